//! The survey: facts about a source (metadata and a bounded sample), read before the split.

//! The hash by which records are partitioned: fixed by this specification, never an engine's own.

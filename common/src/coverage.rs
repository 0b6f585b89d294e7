//! Coverage: do the ranges of a step tile their universe?

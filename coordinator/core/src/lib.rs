//! The decision core: pure functions from facts and state to what follows. No IO, no clock, no
//! randomness; it depends on `gapless-common` alone.

pub mod split;
pub mod validate;

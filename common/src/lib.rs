//! The words of Gapless: jobs, ids, ranges, partitions, attempts, counters, errors.
//!
//! Everything here is data and pure functions over it. No IO, no clock, no async, no engine:
//! the decision core, the workers and the command line all speak in these types.

pub mod address;
pub mod attempt;
pub mod certificate;
pub mod coverage;
pub mod error;
pub mod exact;
pub mod hash;
pub mod ids;
pub mod job;
pub mod key;
pub mod labels;
pub mod manifest;
pub mod order;
pub mod plan;
pub mod plural;
pub mod range;

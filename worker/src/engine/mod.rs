//! The engine: the only door to DataFusion. Everything else in the worker speaks Arrow batches,
//! SQL text and [`TaskError`]s.
//!
//! - [`analyse`] reads a step's SQL and checks without data: output columns, whether it is row-wise
//!   or whole, which input columns it needs.
//! - [`Program`] is the SQL compiled once for a step and a slot, then run for each chunk.
//! - [`Checks`] are the rules a record must meet.
//! - [`Slot`] is what runs of one slot share: a runtime on the calling thread, a memory pool, a
//!   bounded folder for spilled data.

mod analyse;
mod casts;
mod checks;
mod classify;
mod errors;
mod ignored;
mod input;
mod overflow;
mod program;
mod room;
mod session;
mod sum;

#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;

pub use analyse::{Analysis, analyse, check_syntax, examine, takes_all_columns};
pub use checks::{Broken, Checks, Verdict};
pub use errors::{Cause, PlanFault, near, offer};
pub use program::{LookupTable, Program, RunError, RunTotals};
pub use room::STACK;
pub use session::{Slot, SlotLimits};

/// The name of a step's records in its SQL.
pub const INPUT: &str = "input";

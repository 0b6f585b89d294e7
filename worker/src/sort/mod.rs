//! Sorting: rows of a run are put in order in memory, and through the disk where they do not fit.
//!
//! [`Order`] says how rows compare, [`Sorter`] puts those of a run in order within its memory, [`merge`]
//! joins stretches that are in order already, and [`OrderCheck`] looks at what comes out, row by row, by
//! another way of comparing. The order is that of [`gapless_common::order`].

mod check;
mod merge;
mod order;
mod sorter;
mod spill;
#[cfg(test)]
mod tests;

pub use check::OrderCheck;
pub use merge::{Batches, merge};
pub use order::{Order, check_order, check_step_order};
pub use sorter::{SortLimits, Sorter};

use arrow::error::ArrowError;
use gapless_common::error::{ErrorClass, TaskError};

/// What Arrow says against rows that were checked to have an order: a fault of ours, told rather than sorted wrongly.
fn wrong_rows(error: &ArrowError) -> TaskError {
    TaskError::new(ErrorClass::Data, format!("rows cannot be sorted: {error}"))
}

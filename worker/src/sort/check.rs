//! Looks at rows that should be in order.

use std::cmp::Ordering;

use arrow::{
    array::{ArrayRef, DynComparator, RecordBatch, make_comparator},
    compute::SortOptions,
    row::OwnedRow,
};
use gapless_common::{
    error::{ErrorClass, TaskError},
    order::{KeyRow, KeySpan},
};

use super::{Order, wrong_rows};

/// Holds each row against the one before, and remembers the first and the last.
pub struct OrderCheck<'a> {
    order: &'a Order,
    first: Option<KeyRow>,
    /// The last row so far.
    last: Option<(OwnedRow, KeyRow)>,
    rows: u64,
}

impl<'a> OrderCheck<'a> {
    pub fn new(order: &'a Order) -> Self {
        Self {
            order,
            first: None,
            last: None,
            rows: 0,
        }
    }

    /// Errors: `Data` where a row stands behind one that it belongs before.
    pub fn take(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let columns = self.order.key_columns(batch)?;
        let comparators = self
            .order
            .columns()
            .iter()
            .zip(&columns)
            .map(|(by, column)| comparator(column, by.options))
            .collect::<Result<Vec<_>, _>>()?;
        let out_of_order = |row: &usize| {
            let mut orderings = comparators.iter().map(|compare| compare(row - 1, *row));
            orderings.find(|ordering| ordering.is_ne()) == Some(Ordering::Greater)
        };
        if let Some(row) = (1..rows).find(out_of_order) {
            return Err(self.misplaced(row));
        }
        let ends: Vec<ArrayRef> = columns.iter().map(|column| column.slice(0, 1)).collect();
        if let Some((last, _)) = &self.last
            && last.row() > self.order.keys(&ends)?.row(0)
        {
            return Err(self.misplaced(0));
        }
        self.first.get_or_insert_with(|| Order::key_row(&columns, 0));
        let ends: Vec<ArrayRef> = columns.iter().map(|column| column.slice(rows - 1, 1)).collect();
        let last = self.order.keys(&ends)?.row(0).owned();
        self.last = Some((last, Order::key_row(&columns, rows - 1)));
        self.rows += rows as u64;
        Ok(())
    }

    /// The first and the last row; `None` where there was none.
    pub fn span(self) -> Option<KeySpan> {
        Some(KeySpan {
            first: self.first?,
            last: self.last?.1,
        })
    }

    fn misplaced(&self, row: usize) -> TaskError {
        let names: Vec<&str> = self.order.columns().iter().map(|by| by.name.as_str()).collect();
        TaskError::new(
            ErrorClass::Data,
            format!(
                "row {} of a chunk that was sorted by {} belongs before the row above it; nothing of it is committed. \
                 This is a fault of Gapless: please report it with the job file",
                self.rows + row as u64,
                names.join(", ")
            ),
        )
    }
}

fn comparator(column: &ArrayRef, options: SortOptions) -> Result<DynComparator, TaskError> {
    make_comparator(column.as_ref(), column.as_ref(), options).map_err(|error| wrong_rows(&error))
}

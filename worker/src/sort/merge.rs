//! The k-way merge: stretches of rows that are in order, into one.

use std::cmp::Ordering;

use arrow::{array::RecordBatch, compute::interleave_record_batch, row::Rows};
use gapless_common::error::TaskError;

use super::{Order, wrong_rows};

/// The batches of one stretch, from its first row to its last.
pub type Batches<'a> = Box<dyn FnMut() -> Result<Option<RecordBatch>, TaskError> + 'a>;

/// A stretch, at its next row.
struct Cursor<'a> {
    batches: Batches<'a>,
    keys: Option<Rows>,
    /// The batch by its place in the pool.
    batch: usize,
    row: usize,
}

impl Cursor<'_> {
    /// Steps to the next batch that has rows; its place in the pool is its last.
    fn refill(&mut self, order: &Order, pool: &mut Vec<RecordBatch>) -> Result<bool, TaskError> {
        self.keys = None;
        while let Some(batch) = (self.batches)()? {
            if batch.num_rows() > 0 {
                self.keys = Some(order.keys(&order.key_columns(&batch)?)?);
                (self.batch, self.row) = (pool.len(), 0);
                pool.push(batch);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Merges stretches into batches of `batch_rows`. Of equal rows those of the earlier stretch come first.
///
/// A batch of each stretch is held, and those of which rows wait to be handed on.
pub fn merge(
    order: &Order,
    stretches: Vec<Batches<'_>>,
    batch_rows: usize,
    out: &mut dyn FnMut(RecordBatch) -> Result<(), TaskError>,
) -> Result<(), TaskError> {
    let mut pool: Vec<RecordBatch> = Vec::new();
    let mut cursors = Vec::with_capacity(stretches.len());
    for batches in stretches {
        let mut cursor = Cursor {
            batches,
            keys: None,
            batch: 0,
            row: 0,
        };
        if cursor.refill(order, &mut pool)? {
            cursors.push(cursor);
        }
    }
    // A heap of cursors, by their places.
    let mut heap: Vec<usize> = (0..cursors.len()).collect();
    for at in (0..heap.len() / 2).rev() {
        sift(&mut heap, at, &cursors);
    }
    let mut picked: Vec<(usize, usize)> = Vec::with_capacity(batch_rows);
    while let Some(&top) = heap.first() {
        let cursor = &mut cursors[top];
        picked.push((cursor.batch, cursor.row));
        cursor.row += 1;
        let batch_ended = cursor.keys.as_ref().is_none_or(|keys| cursor.row == keys.num_rows());
        if batch_ended && !cursor.refill(order, &mut pool)? {
            heap.swap_remove(0);
        }
        sift(&mut heap, 0, &cursors);
        // Batches that are done with pile up in the pool until their rows are handed on.
        if picked.len() == batch_rows || pool.len() > 2 * cursors.len() + 2 {
            hand_on(&mut picked, &mut pool, &mut cursors, out)?;
        }
    }
    hand_on(&mut picked, &mut pool, &mut cursors, out)
}

fn hand_on(
    picked: &mut Vec<(usize, usize)>,
    pool: &mut Vec<RecordBatch>,
    cursors: &mut [Cursor<'_>],
    out: &mut dyn FnMut(RecordBatch) -> Result<(), TaskError>,
) -> Result<(), TaskError> {
    if picked.is_empty() {
        return Ok(());
    }
    let batches: Vec<&RecordBatch> = pool.iter().collect();
    let merged = interleave_record_batch(&batches, picked).map_err(|error| wrong_rows(&error))?;
    picked.clear();
    // Only the batches that cursors stand in are still needed.
    let mut kept = Vec::with_capacity(cursors.len());
    for cursor in cursors.iter_mut().filter(|cursor| cursor.keys.is_some()) {
        let batch = pool[cursor.batch].clone();
        cursor.batch = kept.len();
        kept.push(batch);
    }
    *pool = kept;
    out(merged)
}

/// Lets the cursor at `at` sink below those that come before it.
fn sift(heap: &mut [usize], mut at: usize, cursors: &[Cursor<'_>]) {
    loop {
        let (left, right) = (2 * at + 1, 2 * at + 2);
        let mut first = at;
        if left < heap.len() && is_before(heap[left], heap[first], cursors) {
            first = left;
        }
        if right < heap.len() && is_before(heap[right], heap[first], cursors) {
            first = right;
        }
        if first == at {
            return;
        }
        heap.swap(at, first);
        at = first;
    }
}

fn is_before(a: usize, b: usize, cursors: &[Cursor<'_>]) -> bool {
    let (left, right) = (&cursors[a], &cursors[b]);
    let ordering = match (&left.keys, &right.keys) {
        (Some(keys), Some(others)) => keys.row(left.row).cmp(&others.row(right.row)),
        _ => Ordering::Equal,
    };
    ordering.then(a.cmp(&b)).is_lt()
}

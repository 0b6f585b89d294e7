//! Puts the rows of a run in order: in memory while they fit, else stretch by stretch through the disk.

use std::{collections::BTreeSet, mem, path::PathBuf};

use arrow::{
    array::{Array, RecordBatch},
    compute::interleave_record_batch,
    datatypes::{DataType, SchemaRef},
    row::Rows,
};
use gapless_common::error::{ErrorClass, TaskError};

use super::{
    Batches, Order, merge,
    spill::{SpillWriter, Spilled},
    wrong_rows,
};

/// Rows of a batch that is handed on.
const BATCH_ROWS: usize = 8192;
/// Bytes of such a batch, for wide rows.
const BATCH_BYTES: usize = 32 << 20;
/// Stretches that are merged at a time. Each holds a batch or two in memory; more of them are merged in turns.
const FAN_IN: usize = 64;
/// Bytes of a batch of a spilled stretch, where memory allows.
const SPILL_BATCH_BYTES: usize = 1 << 20;
/// What a row costs beside its values: its key, and its place among the sorted.
const ROW_BYTES: usize = 48;

/// Bounds on what a sorter holds.
#[derive(Clone, Debug)]
pub struct SortLimits {
    /// Bytes of rows, with their keys, that wait in memory.
    pub memory: usize,
    /// Bytes of spilled rows.
    pub spill: u64,
    /// Folder for them; made when it is first needed.
    pub folder: PathBuf,
}

/// Takes the rows of a run, in batches, and gives them out in order. Rows that are equal in all columns of the order
/// keep the order in which they came.
pub struct Sorter<'a> {
    order: &'a Order,
    schema: SchemaRef,
    limits: SortLimits,
    held: Vec<RecordBatch>,
    held_rows: usize,
    held_bytes: usize,
    spilled: Vec<Spilled>,
    spilled_bytes: u64,
}

impl<'a> Sorter<'a> {
    pub fn new(order: &'a Order, schema: SchemaRef, limits: SortLimits) -> Self {
        Self {
            order,
            schema,
            limits,
            held: Vec::new(),
            held_rows: 0,
            held_bytes: 0,
            spilled: Vec::new(),
            spilled_bytes: 0,
        }
    }

    /// Errors: `Resource` where the disk is full or the limit on spilled rows is reached.
    pub fn push(&mut self, batch: RecordBatch) -> Result<(), TaskError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.held_rows += batch.num_rows();
        self.held_bytes += bytes_of(&batch) + batch.num_rows() * ROW_BYTES;
        self.held.push(batch);
        if self.held_bytes > self.limits.memory {
            self.spill()?;
        }
        Ok(())
    }

    /// Gives out all rows that were taken, in order; then the sorter is empty.
    pub fn drain(&mut self, out: &mut dyn FnMut(RecordBatch) -> Result<(), TaskError>) -> Result<(), TaskError> {
        let rows = self.rows_of(BATCH_BYTES);
        if self.spilled.is_empty() {
            return self.drain_held(rows, out);
        }
        if !self.held.is_empty() {
            self.spill()?;
        }
        let stretches = self.take_spilled()?;
        merge(self.order, stretches, rows, out)
    }

    /// Whether rows went through the disk since the last drain.
    pub fn has_spilled(&self) -> bool {
        !self.spilled.is_empty()
    }

    fn take_spilled(&mut self) -> Result<Vec<Batches<'static>>, TaskError> {
        self.spilled_bytes = 0;
        mem::take(&mut self.spilled).into_iter().map(Spilled::read).collect()
    }

    /// Rows of a batch that is spilled: of all stretches together, batches take a part of the memory.
    fn spill_rows(&self) -> usize {
        self.rows_of(SPILL_BATCH_BYTES.min(self.limits.memory / (4 * FAN_IN)))
    }

    /// Rows of a batch of about so many bytes.
    fn rows_of(&self, bytes: usize) -> usize {
        let row = (self.held_bytes / self.held_rows.max(1)).max(1);
        (bytes / row).clamp(1, BATCH_ROWS)
    }

    fn spill(&mut self) -> Result<(), TaskError> {
        let rows = self.spill_rows();
        let mut writer = SpillWriter::create(&self.limits.folder, &self.schema)?;
        self.drain_held(rows, &mut |batch| writer.write(&batch))?;
        self.keep(writer.finish()?)?;
        if self.spilled.len() == FAN_IN {
            let bytes = self.spilled_bytes;
            let mut writer = SpillWriter::create(&self.limits.folder, &self.schema)?;
            let stretches = self.take_spilled()?;
            // While they are merged, both stand on the disk.
            self.spilled_bytes = bytes;
            merge(self.order, stretches, rows, &mut |batch| writer.write(&batch))?;
            self.spilled_bytes = 0;
            self.keep(writer.finish()?)?;
        }
        Ok(())
    }

    fn keep(&mut self, spilled: Spilled) -> Result<(), TaskError> {
        self.spilled_bytes += spilled.bytes;
        self.spilled.push(spilled);
        if self.spilled_bytes > self.limits.spill {
            return Err(TaskError::new(
                ErrorClass::Resource,
                format!(
                    "a sort has spilled more than the {} GiB that one slot may; cut the step finer, or give workers \
                     more memory for each slot",
                    self.limits.spill >> 30
                ),
            ));
        }
        Ok(())
    }

    /// Gives out what is in memory, in order.
    fn drain_held(
        &mut self,
        batch_rows: usize,
        out: &mut dyn FnMut(RecordBatch) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        (self.held_rows, self.held_bytes) = (0, 0);
        let held = mem::take(&mut self.held);
        if held.is_empty() {
            return Ok(());
        }
        let keys = held
            .iter()
            .map(|batch| self.order.keys(&self.order.key_columns(batch)?))
            .collect::<Result<Vec<_>, _>>()?;
        let places = sorted(&keys);
        drop(keys);
        let batches: Vec<&RecordBatch> = held.iter().collect();
        let mut picked: Vec<(usize, usize)> = Vec::with_capacity(batch_rows.min(places.len()));
        for places in places.chunks(batch_rows) {
            picked.clear();
            picked.extend(places.iter().map(|place| (place.batch as usize, place.row as usize)));
            out(interleave_record_batch(&batches, &picked).map_err(|error| wrong_rows(&error))?)?;
        }
        Ok(())
    }
}

/// A row by its place, with the beginning of its key.
struct Place {
    prefix: u64,
    batch: u32,
    row: u32,
}

/// The rows of some batches in order.
fn sorted(keys: &[Rows]) -> Vec<Place> {
    let mut places = Vec::with_capacity(keys.iter().map(Rows::num_rows).sum());
    for (batch, keys) in keys.iter().enumerate() {
        places.extend(keys.iter().enumerate().map(|(row, key)| Place {
            prefix: prefix(key.data()),
            batch: batch as u32,
            row: row as u32,
        }));
    }
    places.sort_unstable_by(|a, b| {
        a.prefix
            .cmp(&b.prefix)
            .then_with(|| {
                let (a, b) = (
                    keys[a.batch as usize].row(a.row as usize),
                    keys[b.batch as usize].row(b.row as usize),
                );
                a.cmp(&b)
            })
            .then_with(|| (a.batch, a.row).cmp(&(b.batch, b.row)))
    });
    places
}

/// The first bytes of a key as a number that compares like them.
fn prefix(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut first = [0; 8];
            first[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(first)
        }
    }
}

/// Bytes that a batch keeps in memory. Views of texts keep the whole buffers that they look into, which columns may share;
/// of other columns a slice counts as what it shows.
fn bytes_of(batch: &RecordBatch) -> usize {
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    for column in batch.columns() {
        let data = column.to_data();
        let viewed = match column.data_type() {
            DataType::Utf8View | DataType::BinaryView => &data.buffers()[1..],
            _ => {
                bytes += data
                    .get_slice_memory_size()
                    .unwrap_or_else(|_| data.get_buffer_memory_size());
                continue;
            }
        };
        bytes += size_of::<u128>() * column.len();
        let new = viewed.iter().filter(|buffer| seen.insert(buffer.as_ptr() as usize));
        bytes += new.map(|buffer| buffer.len()).sum::<usize>();
    }
    bytes
}

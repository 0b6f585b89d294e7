//! The split: rows of many batches, sorted by bucket with one pass over each column.
//!
//! A counting sort gives every row its place; then each column is written to its places once. That is
//! done run by run, as soon as a run is there: its cells and places fit a core's cache, a block's do
//! not (sorting a block at once takes twice as long). At the block's end each segment is gathered from
//! its stretches in the runs.

use std::ops::Range;

use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt32Array},
    compute::{concat, take_record_batch},
    datatypes::{Field, Schema, SchemaRef},
    error::ArrowError,
    ipc::writer::StreamWriter,
};

use super::{
    carrier::{Carrier, travelling_schema},
    durable::WRITE_PIECE,
    layout::{Block, ColumnLayout, Segment, SegmentKey, columns_hash, segment_hash},
    narrow::WaitingColumn,
    sorted::SortedColumn,
};

/// Rows of a run. Larger ones leave the cache, smaller ones make the stretches too short to copy.
const RUN_ROWS: usize = 64 * 1024;

/// Rows with their buckets: a run that waits to be sorted, and the sorted runs of a block.
pub(super) struct Splitter {
    schema: SchemaRef,
    buckets: usize,
    waiting: Vec<WaitingColumn>,
    sorted: Vec<SortedColumn>,
    runs: Vec<Run>,
    /// Of all rows of the block.
    bucket_of: Vec<u16>,
    bytes: usize,
    /// Where the rows of a run go within it.
    places: Vec<u32>,
    run_rows: usize,
}

/// Rows that were sorted together.
pub(super) struct Run {
    pub(super) rows: Range<usize>,
    /// Where each bucket begins within the run, and where the last one ends.
    starts: Vec<u32>,
}

impl Run {
    pub(super) fn buckets(&self) -> usize {
        self.starts.len() - 1
    }

    /// Where a bucket's rows lie in the block.
    pub(super) fn of_bucket(&self, bucket: usize) -> Range<usize> {
        let at = |bucket: usize| self.rows.start + self.starts[bucket] as usize;
        at(bucket)..at(bucket + 1)
    }

    /// Sorts by counting: answers the run, and puts into `places` where each row goes within it.
    fn new(rows: Range<usize>, bucket_of: &[u16], buckets: usize, places: &mut Vec<u32>) -> Run {
        let mut starts = vec![0; buckets + 1];
        for &bucket in bucket_of {
            starts[bucket as usize] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += std::mem::replace(start, sum);
        }
        let mut next = starts.clone();
        places.clear();
        places.extend(bucket_of.iter().map(|&bucket| {
            let next = &mut next[bucket as usize];
            let place = *next;
            *next += 1;
            place
        }));
        Run { rows, starts }
    }
}

impl Splitter {
    /// A splitter for rows of `schema` into `buckets` buckets.
    pub(super) fn new(schema: &Schema, buckets: u32) -> Self {
        Self::with_runs_of(RUN_ROWS, schema, buckets)
    }

    pub(super) fn with_runs_of(run_rows: usize, schema: &Schema, buckets: u32) -> Self {
        let schema = travelling_schema(schema);
        let carriers = schema.fields().iter().map(|field| Carrier::of(field.data_type()));
        let waiting: Vec<WaitingColumn> = carriers.map(WaitingColumn::new).collect();
        Self {
            sorted: waiting.iter().map(|_| SortedColumn::default()).collect(),
            waiting,
            runs: Vec::new(),
            buckets: buckets as usize,
            schema,
            bucket_of: Vec::new(),
            bytes: 0,
            places: Vec::new(),
            run_rows,
        }
    }

    /// The schema of what comes out of the exchange.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn rows(&self) -> usize {
        self.bucket_of.len()
    }

    /// About how many bytes wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the columns of one batch, in their travelling types, and the bucket of each row.
    pub(super) fn push(&mut self, columns: &[ArrayRef], bucket_of: &[u16]) {
        for (at, bucket_of) in bucket_of.chunks(self.run_rows).enumerate() {
            let from = at * self.run_rows;
            for (waiting, column) in self.waiting.iter_mut().zip(columns) {
                self.bytes += waiting.push(&column.slice(from, bucket_of.len()));
            }
            self.bucket_of.extend_from_slice(bucket_of);
            if self.waiting_rows().len() >= self.run_rows {
                self.sort_run();
            }
        }
    }

    fn waiting_rows(&self) -> Range<usize> {
        self.runs.last().map_or(0, |run| run.rows.end)..self.bucket_of.len()
    }

    fn sort_run(&mut self) {
        let rows = self.waiting_rows();
        let bucket_of = &self.bucket_of[rows.clone()];
        let run = Run::new(rows, bucket_of, self.buckets, &mut self.places);
        for (sorted, waiting) in self.sorted.iter_mut().zip(&mut self.waiting) {
            sorted.sort_run(waiting, &run, &self.places, bucket_of);
            waiting.clear_run();
        }
        self.runs.push(run);
    }

    /// Sorts what waits and hands the block to `write`, piece by piece, as the bytes of the exchange
    /// file. Then the splitter is empty.
    ///
    /// Errors: those of `write`, and those of Arrow for columns that travel as IPC.
    pub(super) fn drain<E: From<ArrowError>>(
        &mut self,
        mut write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Block, E> {
        if !self.waiting_rows().is_empty() {
            self.sort_run();
        }
        let others = self.others()?;
        let layout: Vec<ColumnLayout> = self.sorted.iter().map(SortedColumn::layout).collect();
        let columns = columns_hash(&layout);
        let mut segments = Vec::with_capacity(self.buckets);
        let mut pending = Vec::with_capacity(2 * WRITE_PIECE);
        let mut sum = 0;
        for bucket in 0..self.buckets {
            let rows = self.runs.iter().map(|run| run.of_bucket(bucket).len()).sum::<usize>() as u32;
            if rows == 0 {
                segments.push(Segment::EMPTY);
                continue;
            }
            let from = pending.len();
            for (column, layout) in self.sorted.iter_mut().zip(&layout) {
                column.append(layout, bucket, &self.runs, &mut pending);
            }
            if let Some(others) = &others {
                append_ipc(&others.slice(sum, rows as usize), &mut pending)?;
            }
            sum += rows as usize;
            let stored = &pending[from..];
            let key = SegmentKey {
                bucket: bucket as u32,
                rows,
                columns,
            };
            let bytes = u32::try_from(stored.len()).map_err(|_| too_large(bucket, stored.len()))?;
            segments.push(Segment {
                rows,
                bytes,
                hash: segment_hash(key, stored),
            });
            if pending.len() >= WRITE_PIECE {
                write(&pending)?;
                pending.clear();
            }
        }
        write(&pending)?;
        self.clear();
        Ok(Block {
            offset: 0,
            columns: layout,
            segments,
        })
    }

    fn clear(&mut self) {
        self.waiting.iter_mut().for_each(WaitingColumn::clear);
        self.sorted.iter_mut().for_each(SortedColumn::clear);
        self.bucket_of.clear();
        self.runs.clear();
        self.bytes = 0;
    }

    /// The columns that travel as IPC, in the order of all others.
    fn others(&self) -> Result<Option<RecordBatch>, ArrowError> {
        let mut columns = Vec::new();
        let mut fields = Vec::<Field>::new();
        for (column, field) in self.waiting.iter().zip(self.schema.fields()) {
            if column.carrier == Carrier::Other {
                fields.push(field.as_ref().clone().with_nullable(true));
                let parts: Vec<&dyn Array> = column.others.iter().map(|part| part.as_ref()).collect();
                columns.push(match parts.as_slice() {
                    [] => arrow::array::new_empty_array(field.data_type()),
                    parts => concat(parts)?,
                });
            }
        }
        if columns.is_empty() {
            return Ok(None);
        }
        let mut order: Vec<u32> = (0..self.bucket_of.len() as u32).collect();
        order.sort_by_key(|&row| self.bucket_of[row as usize]);
        let arrived = RecordBatch::try_new(Schema::new(fields).into(), columns)?;
        take_record_batch(&arrived, &UInt32Array::from(order)).map(Some)
    }
}

fn too_large(bucket: usize, bytes: usize) -> ArrowError {
    ArrowError::InvalidArgumentError(format!(
        "{bytes} bytes of bucket {bucket} in one block: 4 GiB are the limit"
    ))
}

fn append_ipc(batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    let mut writer = StreamWriter::try_new(out, batch.schema_ref())?;
    writer.write(batch)?;
    writer.finish()
}

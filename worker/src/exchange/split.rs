//! The split: waiting rows, sorted by bucket with one pass over each column.
//!
//! A counting sort gives every row its place; then each column is written to its places once. That is
//! done run by run, since a run's cells and places fit a core's cache and a block's do not (sorting a
//! block at once takes twice as long). A segment is then gathered from its stretches in the runs.

use std::ops::Range;

use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt32Array},
    compute::{concat, take_record_batch},
    datatypes::{Field, Schema, SchemaRef, ToByteSlice},
    error::ArrowError,
    ipc::writer::StreamWriter,
};

use super::{
    carrier::{Carrier, travelling_schema},
    durable::WRITE_PIECE,
    layout::{Block, ColumnLayout, Segment, SegmentKey, Width, columns_hash, segment_hash},
    narrow::{Cells, Part, WaitingColumn},
};

/// Rows of a run. Larger ones leave the cache, smaller ones make the stretches too short to copy.
const RUN_ROWS: usize = 64 * 1024;

/// Rows with their buckets, waiting to be sorted.
pub(super) struct Splitter {
    schema: SchemaRef,
    buckets: usize,
    waiting: Vec<WaitingColumn>,
    bucket_of: Vec<u16>,
    runs: Vec<Run>,
    bytes: usize,
    sorted: Vec<SortedColumn>,
    /// Of the rows of one run.
    places: Vec<u32>,
}

/// Rows that are sorted together: whole batches.
struct Run {
    rows: Range<usize>,
    parts: Range<usize>,
    /// Rows of each bucket; once it is sorted, where each bucket begins among the block's sorted rows,
    /// and where the last one ends.
    starts: Vec<u32>,
}

impl Run {
    fn of_bucket(&self, bucket: usize) -> Range<usize> {
        self.starts[bucket] as usize..self.starts[bucket + 1] as usize
    }
}

impl Splitter {
    /// A splitter for rows of `schema` into `buckets` buckets.
    pub(super) fn new(schema: &Schema, buckets: u32) -> Self {
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
        for (at, bucket_of) in bucket_of.chunks(RUN_ROWS).enumerate() {
            let from = at * RUN_ROWS;
            for (waiting, column) in self.waiting.iter_mut().zip(columns) {
                self.bytes += waiting.push(&column.slice(from, bucket_of.len()));
            }
            self.push_buckets(bucket_of);
        }
    }

    fn push_buckets(&mut self, bucket_of: &[u16]) {
        let (rows, parts) = (self.bucket_of.len(), self.runs.last().map_or(0, |run| run.parts.end));
        if self.runs.last().is_none_or(|run| run.rows.len() >= RUN_ROWS) {
            self.runs.push(Run {
                rows: rows..rows,
                parts: parts..parts,
                starts: vec![0; self.buckets + 1],
            });
        }
        if let Some(run) = self.runs.last_mut() {
            run.rows.end += bucket_of.len();
            run.parts.end += 1;
            for &bucket in bucket_of {
                run.starts[bucket as usize] += 1;
            }
        }
        self.bucket_of.extend_from_slice(bucket_of);
    }

    /// Sorts what waits and hands it to `write`, piece by piece, as the bytes of the exchange file.
    /// Then the splitter is empty.
    ///
    /// Errors: those of `write`, and those of Arrow for columns that travel as IPC.
    pub(super) fn drain<E: From<ArrowError>>(
        &mut self,
        mut write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Block, E> {
        for (sorted, waiting) in self.sorted.iter_mut().zip(&self.waiting) {
            sorted.prepare(waiting, self.bucket_of.len());
        }
        for run in &mut self.runs {
            let bucket_of = &self.bucket_of[run.rows.clone()];
            assign_places(run, bucket_of, &mut self.places);
            for (sorted, waiting) in self.sorted.iter_mut().zip(&self.waiting) {
                sorted.sort_run(waiting, run, &self.places, bucket_of);
            }
        }
        let others = self.others()?;
        let layout: Vec<ColumnLayout> = self.sorted.iter().map(|sorted| sorted.layout).collect();
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
            for column in &mut self.sorted {
                column.append(bucket, &self.runs, &mut pending);
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

/// Gives every row of a run its place among the block's sorted rows.
fn assign_places(run: &mut Run, bucket_of: &[u16], places: &mut Vec<u32>) {
    let mut sum = run.rows.start as u32;
    for start in &mut run.starts {
        let count = std::mem::replace(start, sum);
        sum += count;
    }
    let mut next = run.starts.clone();
    places.clear();
    places.extend(bucket_of.iter().map(|&bucket| {
        let next = &mut next[bucket as usize];
        let place = *next;
        *next += 1;
        place
    }));
}

/// One column of a block in bucket order.
#[derive(Default)]
struct SortedColumn {
    layout: ColumnLayout,
    cells: Cells,
    /// 1 for each row that is not NULL; only of a nullable column.
    valid: Vec<u8>,
    /// The texts of a column that travels as bytes, and how many bytes of them are sorted.
    texts: Vec<u8>,
    texts_sorted: usize,
    /// Of each run: where each bucket's texts begin, and where the last one's end.
    text_starts: Vec<usize>,
    bucket_valid: Vec<u8>,
}

impl SortedColumn {
    /// Chooses the layout of the block's column, and makes room.
    fn prepare(&mut self, waiting: &WaitingColumn, rows: usize) {
        let (minimum, width) = match waiting.bounds() {
            None => (0, Width::W0),
            Some((min, max)) => match Width::for_distance(max.wrapping_sub(min) as u128) {
                Width::W16 => (0, Width::W16),
                width => (min, width),
            },
        };
        self.layout = ColumnLayout {
            minimum,
            width,
            nullable: !waiting.valid.is_empty(),
        };
        match width {
            Width::W0 => {}
            Width::W1 => make_room(&mut self.cells.w1, rows),
            Width::W2 => make_room(&mut self.cells.w2, rows),
            Width::W4 => make_room(&mut self.cells.w4, rows),
            Width::W8 => make_room(&mut self.cells.w8, rows),
            Width::W16 => make_room(&mut self.cells.w16, rows),
        }
        if self.layout.nullable {
            make_room(&mut self.valid, rows);
        }
        make_room(&mut self.texts, waiting.texts.len());
        self.texts_sorted = 0;
        self.text_starts.clear();
    }

    fn sort_run(&mut self, waiting: &WaitingColumn, run: &Run, places: &[u32], bucket_of: &[u16]) {
        let (minimum, out) = (self.layout.minimum, &mut self.cells);
        // What travels as IPC has no cells.
        let parts = waiting.parts.get(run.parts.clone()).unwrap_or_default();
        match self.layout.width {
            Width::W0 => {}
            Width::W1 => sort_cells(waiting, parts, minimum, places, &mut out.w1, |cell| cell as u8),
            Width::W2 => sort_cells(waiting, parts, minimum, places, &mut out.w2, |cell| cell as u16),
            Width::W4 => sort_cells(waiting, parts, minimum, places, &mut out.w4, |cell| cell as u32),
            Width::W8 => sort_cells(waiting, parts, minimum, places, &mut out.w8, |cell| cell),
            Width::W16 => sort_wide(waiting, parts, places, &mut out.w16),
        }
        if self.layout.nullable {
            put(&waiting.valid[run.rows.clone()], places, &mut self.valid, |bit| bit);
        }
        if waiting.carrier == Carrier::Bytes {
            self.sort_texts(waiting, parts, bucket_of, run.starts.len() - 1);
        }
    }

    fn sort_texts(&mut self, waiting: &WaitingColumn, parts: &[Part], bucket_of: &[u16], buckets: usize) {
        let mut sums = vec![0usize; buckets];
        each_length(waiting, parts, bucket_of, |bucket, length| sums[bucket] += length);
        let mut from = self.texts_sorted;
        let mut next = Vec::with_capacity(buckets);
        for sum in sums {
            next.push(self.texts_sorted);
            self.texts_sorted += sum;
        }
        self.text_starts.extend_from_slice(&next);
        self.text_starts.push(self.texts_sorted);
        let out = &mut self.texts;
        each_length(waiting, parts, bucket_of, |bucket, length| {
            let to = &mut next[bucket];
            out[*to..*to + length].copy_from_slice(&waiting.texts[from..from + length]);
            *to += length;
            from += length;
        });
    }

    /// Appends the column's part of one bucket's segment.
    fn append(&mut self, bucket: usize, runs: &[Run], out: &mut Vec<u8>) {
        let ranges = runs.iter().map(|run| run.of_bucket(bucket));
        if self.layout.nullable {
            self.bucket_valid.clear();
            ranges
                .clone()
                .for_each(|range| self.bucket_valid.extend_from_slice(&self.valid[range]));
            pack_bits(&self.bucket_valid, out);
        }
        let cells = &self.cells;
        match self.layout.width {
            Width::W0 => {}
            Width::W1 => ranges.for_each(|range| out.extend_from_slice(&cells.w1[range])),
            Width::W2 => ranges.for_each(|range| out.extend_from_slice(cells.w2[range].to_byte_slice())),
            Width::W4 => ranges.for_each(|range| out.extend_from_slice(cells.w4[range].to_byte_slice())),
            Width::W8 => ranges.for_each(|range| out.extend_from_slice(cells.w8[range].to_byte_slice())),
            Width::W16 => ranges.for_each(|range| out.extend_from_slice(cells.w16[range].to_byte_slice())),
        }
        for starts in self.text_starts.chunks(runs[0].starts.len()) {
            out.extend_from_slice(&self.texts[starts[bucket]..starts[bucket + 1]]);
        }
    }
}

/// Makes room for so many cells, whatever they hold: each will be written.
fn make_room<C: Copy + Default>(cells: &mut Vec<C>, rows: usize) {
    if cells.len() < rows {
        cells.resize(rows, C::default());
    }
}

/// Writes each cell, as `convert` makes it, to its place.
#[inline(always)]
fn put<I: Copy, O>(cells: &[I], places: &[u32], out: &mut [O], convert: impl Fn(I) -> O) {
    for (&cell, &place) in cells.iter().zip(places) {
        out[place as usize] = convert(cell);
    }
}

/// Sorts the cells of a run's parts, as distances from the block's minimum.
fn sort_cells<C: Copy>(
    waiting: &WaitingColumn,
    parts: &[Part],
    minimum: i128,
    mut places: &[u32],
    out: &mut [C],
    narrow: impl Fn(u64) -> C + Copy,
) {
    for part in parts {
        let (these, rest) = places.split_at(part.rows);
        let Part { start, rows, .. } = *part;
        let cells = &waiting.cells;
        // A part without values has no minimum: its cells are never looked at.
        let delta = if part.minimum > part.maximum {
            0
        } else {
            (part.minimum - minimum) as u64
        };
        let shift = |cell: u64| narrow(cell.wrapping_add(delta));
        match part.width {
            Width::W0 => these.iter().for_each(|&place| out[place as usize] = shift(0)),
            Width::W1 => put(&cells.w1[start..start + rows], these, out, |cell| shift(cell.into())),
            Width::W2 => put(&cells.w2[start..start + rows], these, out, |cell| shift(cell.into())),
            Width::W4 => put(&cells.w4[start..start + rows], these, out, |cell| shift(cell.into())),
            Width::W8 => put(&cells.w8[start..start + rows], these, out, shift),
            Width::W16 => unreachable!("a block is as wide as its widest part"),
        }
        places = rest;
    }
}

/// Sorts the cells of a run's parts as the values themselves.
fn sort_wide(waiting: &WaitingColumn, parts: &[Part], mut places: &[u32], out: &mut [i128]) {
    for part in parts {
        let (these, rest) = places.split_at(part.rows);
        let Part {
            start, rows, minimum, ..
        } = *part;
        let cells = &waiting.cells;
        let value = |cell: u64| minimum.wrapping_add(cell.into());
        match part.width {
            Width::W0 => these.iter().for_each(|&place| out[place as usize] = minimum),
            Width::W1 => put(&cells.w1[start..start + rows], these, out, |cell| value(cell.into())),
            Width::W2 => put(&cells.w2[start..start + rows], these, out, |cell| value(cell.into())),
            Width::W4 => put(&cells.w4[start..start + rows], these, out, |cell| value(cell.into())),
            Width::W8 => put(&cells.w8[start..start + rows], these, out, value),
            Width::W16 => put(&cells.w16[start..start + rows], these, out, |cell| cell),
        }
        places = rest;
    }
}

/// Calls `each` with the bucket and the length of every text, in the order of arrival.
fn each_length(waiting: &WaitingColumn, parts: &[Part], mut bucket_of: &[u16], mut each: impl FnMut(usize, usize)) {
    for part in parts {
        let (these, rest) = bucket_of.split_at(part.rows);
        let Part {
            start, rows, minimum, ..
        } = *part;
        let (cells, least) = (&waiting.cells, minimum as usize);
        let buckets = these.iter().map(|&bucket| bucket as usize);
        match part.width {
            Width::W0 => buckets.for_each(|bucket| each(bucket, least)),
            Width::W1 => {
                let cells = &cells.w1[start..start + rows];
                buckets
                    .zip(cells)
                    .for_each(|(bucket, &cell)| each(bucket, least + cell as usize));
            }
            Width::W2 => {
                let cells = &cells.w2[start..start + rows];
                buckets
                    .zip(cells)
                    .for_each(|(bucket, &cell)| each(bucket, least + cell as usize));
            }
            _ => {
                let cells = &cells.w4[start..start + rows];
                buckets
                    .zip(cells)
                    .for_each(|(bucket, &cell)| each(bucket, least + cell as usize));
            }
        }
        bucket_of = rest;
    }
}

fn pack_bits(valid: &[u8], out: &mut Vec<u8>) {
    let pack = |bits: &[u8]| bits.iter().enumerate().fold(0u8, |byte, (at, &bit)| byte | (bit << at));
    out.extend(valid.chunks(8).map(pack));
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

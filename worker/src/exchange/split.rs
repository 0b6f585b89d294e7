//! The split: waiting rows, sorted by bucket with one pass over each column.
//!
//! A counting sort gives every row its place; then each column is written to its places once. No row
//! is moved twice, and no bucket is gathered by itself.

use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt32Array},
    compute::{concat, take},
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

/// Rows with their buckets, waiting to be sorted.
pub(super) struct Splitter {
    schema: SchemaRef,
    buckets: usize,
    waiting: Vec<WaitingColumn>,
    bucket_of: Vec<u16>,
    counts: Vec<u32>,
    bytes: usize,
    sorted: Vec<SortedColumn>,
    places: Vec<u32>,
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
            counts: vec![0; buckets as usize],
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
        for (waiting, column) in self.waiting.iter_mut().zip(columns) {
            self.bytes += waiting.push(column);
        }
        for &bucket in bucket_of {
            self.counts[bucket as usize] += 1;
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
        let starts = self.assign_places();
        for (sorted, waiting) in self.sorted.iter_mut().zip(&self.waiting) {
            sorted.sort(waiting, &self.places, &self.bucket_of, starts.len());
        }
        let others = self.sort_others()?;
        let layout: Vec<ColumnLayout> = self.sorted.iter().map(SortedColumn::layout).collect();

        let columns = columns_hash(&layout);
        let mut segments = Vec::with_capacity(self.buckets);
        let mut pending = Vec::with_capacity(2 * WRITE_PIECE);
        for bucket in 0..self.buckets {
            let rows = self.counts[bucket] as usize;
            if rows == 0 {
                segments.push(Segment::EMPTY);
                continue;
            }
            let from = pending.len();
            let first = starts[bucket] as usize;
            for column in &self.sorted {
                column.append(bucket, first, rows, &mut pending);
            }
            if let Some(others) = &others {
                append_ipc(&others.slice(first, rows), &mut pending)?;
            }
            let rows = rows as u32;
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
        self.counts.fill(0);
        self.bytes = 0;
    }

    /// Gives every row its place in bucket order; answers where each bucket starts.
    fn assign_places(&mut self) -> Vec<u32> {
        let mut starts = Vec::with_capacity(self.buckets);
        let mut sum = 0;
        for &count in &self.counts {
            starts.push(sum);
            sum += count;
        }
        let mut next = starts.clone();
        self.places.clear();
        self.places.extend(self.bucket_of.iter().map(|&bucket| {
            let next = &mut next[bucket as usize];
            let place = *next;
            *next += 1;
            place
        }));
        starts
    }

    /// The columns that travel as IPC, in bucket order.
    fn sort_others(&self) -> Result<Option<RecordBatch>, ArrowError> {
        let others = self
            .waiting
            .iter()
            .enumerate()
            .filter(|(_, column)| column.carrier == Carrier::Other);
        let others: Vec<(usize, &WaitingColumn)> = others.collect();
        if others.is_empty() {
            return Ok(None);
        }
        let mut source = vec![0u32; self.places.len()];
        for (row, &place) in self.places.iter().enumerate() {
            source[place as usize] = row as u32;
        }
        let source = UInt32Array::from(source);
        let mut columns = Vec::new();
        let mut fields = Vec::<Field>::new();
        for (index, column) in others {
            fields.push(self.schema.field(index).clone().with_nullable(true));
            let parts: Vec<&dyn Array> = column.others.iter().map(|part| part.as_ref()).collect();
            columns.push(match parts.as_slice() {
                [] => arrow::array::new_empty_array(self.schema.field(index).data_type()),
                parts => take(&concat(parts)?, &source, None)?,
            });
        }
        RecordBatch::try_new(Schema::new(fields).into(), columns).map(Some)
    }
}

/// One column of a block in bucket order.
#[derive(Default)]
struct SortedColumn {
    layout: ColumnLayout,
    cells: Cells,
    /// 1 for each row that is not NULL; only of a nullable column.
    valid: Vec<u8>,
    /// The texts of a column that travels as bytes, and where each bucket's begin.
    texts: Vec<u8>,
    text_starts: Vec<usize>,
}

impl SortedColumn {
    fn layout(&self) -> ColumnLayout {
        self.layout
    }

    fn sort(&mut self, waiting: &WaitingColumn, places: &[u32], bucket_of: &[u16], buckets: usize) {
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
        if self.layout.nullable {
            self.valid.resize(places.len(), 0);
            put(&waiting.valid, places, &mut self.valid, |bit| bit);
        }
        let (rows, out) = (places.len(), &mut self.cells);
        match width {
            Width::W0 => {}
            Width::W1 => sort_cells(waiting, minimum, places, room(&mut out.w1, rows), |cell| cell as u8),
            Width::W2 => sort_cells(waiting, minimum, places, room(&mut out.w2, rows), |cell| cell as u16),
            Width::W4 => sort_cells(waiting, minimum, places, room(&mut out.w4, rows), |cell| cell as u32),
            Width::W8 => sort_cells(waiting, minimum, places, room(&mut out.w8, rows), |cell| cell),
            Width::W16 => sort_wide(waiting, places, room(&mut out.w16, rows)),
        }
        if waiting.carrier == Carrier::Bytes {
            self.sort_texts(waiting, bucket_of, buckets);
        }
    }

    fn sort_texts(&mut self, waiting: &WaitingColumn, bucket_of: &[u16], buckets: usize) {
        let mut sums = vec![0usize; buckets];
        each_length(waiting, bucket_of, |bucket, length| sums[bucket] += length);
        self.text_starts.clear();
        let mut total = 0;
        for sum in sums {
            self.text_starts.push(total);
            total += sum;
        }
        let mut next = self.text_starts.clone();
        self.text_starts.push(total);
        let out = room(&mut self.texts, total);
        let mut from = 0;
        each_length(waiting, bucket_of, |bucket, length| {
            let to = next[bucket];
            copy_text(&waiting.texts, from, out, to, length);
            next[bucket] += length;
            from += length;
        });
    }

    /// Appends the column's part of one bucket's segment.
    fn append(&self, bucket: usize, first: usize, rows: usize, out: &mut Vec<u8>) {
        let range = first..first + rows;
        if self.layout.nullable {
            pack_bits(&self.valid[range.clone()], out);
        }
        match self.layout.width {
            Width::W0 => {}
            Width::W1 => out.extend_from_slice(&self.cells.w1[range]),
            Width::W2 => out.extend_from_slice(self.cells.w2[range].to_byte_slice()),
            Width::W4 => out.extend_from_slice(self.cells.w4[range].to_byte_slice()),
            Width::W8 => out.extend_from_slice(self.cells.w8[range].to_byte_slice()),
            Width::W16 => out.extend_from_slice(self.cells.w16[range].to_byte_slice()),
        }
        if let [start, end, ..] = self.text_starts.get(bucket..).unwrap_or_default() {
            out.extend_from_slice(&self.texts[*start..*end]);
        }
    }
}

/// Room for so many cells, whatever they hold: each will be written.
fn room<C: Copy + Default>(cells: &mut Vec<C>, rows: usize) -> &mut [C] {
    if cells.len() < rows {
        cells.resize(rows, C::default());
    }
    &mut cells[..rows]
}

/// Writes each cell, as `convert` makes it, to its place.
#[inline(always)]
fn put<I: Copy, O>(cells: &[I], places: &[u32], out: &mut [O], convert: impl Fn(I) -> O) {
    for (&cell, &place) in cells.iter().zip(places) {
        out[place as usize] = convert(cell);
    }
}

/// Sorts the cells of all parts, as distances from the block's minimum.
fn sort_cells<C: Copy>(
    waiting: &WaitingColumn,
    minimum: i128,
    mut places: &[u32],
    out: &mut [C],
    narrow: impl Fn(u64) -> C + Copy,
) {
    for part in &waiting.parts {
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

/// Sorts the cells of all parts as the values themselves.
fn sort_wide(waiting: &WaitingColumn, mut places: &[u32], out: &mut [i128]) {
    for part in &waiting.parts {
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
fn each_length(waiting: &WaitingColumn, mut bucket_of: &[u16], mut each: impl FnMut(usize, usize)) {
    for part in &waiting.parts {
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

/// Copies one text. Most are short, where a call to `memcpy` costs more than the copy.
#[inline(always)]
fn copy_text(texts: &[u8], from: usize, out: &mut [u8], to: usize, length: usize) {
    out[to..to + length].copy_from_slice(&texts[from..from + length]);
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

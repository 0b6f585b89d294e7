//! The split: rows of many batches, sorted by bucket with one pass over each column.
//!
//! A counting sort gives every row its place; then each column is written to its places once,
//! already narrowed to the distance from the chunk's minimum. No row is moved twice, and no bucket
//! is gathered by itself.

use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt32Array},
    compute::{concat, take},
    datatypes::{Field, Schema, SchemaRef},
    error::ArrowError,
    ipc::writer::StreamWriter,
};

use super::{
    carrier::{Carrier, Native, cells, nulls_of, travelling_schema, with_bytes, with_native},
    durable::WRITE_PIECE,
    layout::{Block, ColumnLayout, Segment, SegmentKey, Width, segment_hash},
    stats::Stats,
};

/// Rows with their buckets, waiting to be sorted.
pub(super) struct Splitter {
    schema: SchemaRef,
    buckets: usize,
    carriers: Vec<Carrier>,
    batches: Vec<Vec<ArrayRef>>,
    bucket_of: Vec<u16>,
    counts: Vec<u32>,
    stats: Vec<Stats>,
    bytes: usize,
    /// Room for one block's columns, kept from block to block: fresh pages cost more than the sort.
    columns: Vec<SortedColumn>,
    places: Vec<u32>,
}

impl Splitter {
    /// A splitter for rows of `schema` into `buckets` buckets.
    pub(super) fn new(schema: &Schema, buckets: u32) -> Self {
        let schema = travelling_schema(schema);
        let carriers: Vec<Carrier> = schema
            .fields()
            .iter()
            .map(|field| Carrier::of(field.data_type()))
            .collect();
        Self {
            columns: carriers.iter().map(|_| SortedColumn::default()).collect(),
            stats: vec![Stats::NONE; carriers.len()],
            counts: vec![0; buckets as usize],
            buckets: buckets as usize,
            schema,
            carriers,
            batches: Vec::new(),
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

    /// Bytes of the values that wait, as they are in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the columns of one batch, in their travelling types, and the bucket of each row.
    pub(super) fn push(&mut self, columns: Vec<ArrayRef>, bucket_of: &[u16]) {
        for (index, column) in columns.iter().enumerate() {
            self.bytes += self.stats[index].add_column(self.carriers[index], column);
        }
        for &bucket in bucket_of {
            self.counts[bucket as usize] += 1;
        }
        self.bucket_of.extend_from_slice(bucket_of);
        self.batches.push(columns);
    }

    /// Sorts what waits and hands it to `write`, bucket by bucket, as the bytes of the exchange file.
    /// Then the splitter is empty.
    ///
    /// Errors: those of `write`, and those of Arrow for columns that travel as IPC.
    pub(super) fn drain<E: From<ArrowError>>(
        &mut self,
        mut write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Block, E> {
        let starts = self.assign_places();
        for index in 0..self.carriers.len() {
            let batches = self.batches.iter().map(|columns| &columns[index]);
            self.columns[index].sort(
                self.carriers[index],
                self.stats[index],
                batches,
                &self.places,
                &self.bucket_of,
                &starts,
            );
        }
        let others = self.sort_others()?;
        let layout = self.columns.iter().map(SortedColumn::layout).collect::<Vec<_>>();

        let mut segments = Vec::with_capacity(self.buckets);
        let mut pending = Vec::new();
        for bucket in 0..self.buckets {
            let rows = self.counts[bucket] as usize;
            if rows == 0 {
                segments.push(Segment::EMPTY);
                continue;
            }
            let from = pending.len();
            let first = starts[bucket] as usize;
            for column in &self.columns {
                column.append(bucket, first, rows, &mut pending);
            }
            if let Some(others) = &others {
                append_ipc(&others.slice(first, rows), &mut pending)?;
            }
            let key = SegmentKey {
                bucket: bucket as u32,
                rows: rows as u32,
                columns: &layout,
            };
            let stored = &pending[from..];
            let bytes = u32::try_from(stored.len()).map_err(|_| too_large(bucket, stored.len()))?;
            segments.push(Segment {
                rows: rows as u32,
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
        self.batches.clear();
        self.bucket_of.clear();
        self.counts.fill(0);
        self.stats.fill(Stats::NONE);
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
            let place = next[bucket as usize];
            next[bucket as usize] += 1;
            place
        }));
        starts
    }

    /// The columns that travel as IPC, in bucket order.
    fn sort_others(&self) -> Result<Option<RecordBatch>, ArrowError> {
        let others: Vec<usize> = (0..self.carriers.len())
            .filter(|&at| self.carriers[at] == Carrier::Other)
            .collect();
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
        for &index in &others {
            fields.push(self.schema.field(index).clone().with_nullable(true));
            let parts: Vec<&dyn Array> = self.batches.iter().map(|columns| columns[index].as_ref()).collect();
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
    carrier: Option<Carrier>,
    width: Width,
    minimum: i128,
    nullable: bool,
    cells8: Vec<u8>,
    cells16: Vec<u16>,
    cells32: Vec<u32>,
    cells64: Vec<u64>,
    cells128: Vec<i128>,
    /// 1 for each row that is not NULL; only of a nullable column.
    valid: Vec<u8>,
    /// The texts of a column that travels as bytes, and where each bucket's begin.
    bytes: Vec<u8>,
    byte_starts: Vec<usize>,
}

impl SortedColumn {
    fn layout(&self) -> ColumnLayout {
        ColumnLayout {
            minimum: self.minimum,
            width: self.width,
            nullable: self.nullable,
        }
    }

    fn sort<'a>(
        &mut self,
        carrier: Carrier,
        stats: Stats,
        batches: impl Iterator<Item = &'a ArrayRef> + Clone,
        places: &[u32],
        bucket_of: &[u16],
        starts: &[u32],
    ) {
        self.carrier = Some(carrier);
        // The IPC part keeps its own NULLs.
        self.nullable = stats.nulls && carrier != Carrier::Other;
        (self.minimum, self.width) = match carrier {
            Carrier::Other => (0, Width::W0),
            // Lengths and truth values need no minimum.
            Carrier::Bytes | Carrier::Bool => (0, Width::for_distance(stats.max.max(0) as u128)),
            _ if stats.min > stats.max => (0, Width::W0),
            _ => match Width::for_distance(stats.max.wrapping_sub(stats.min) as u128) {
                Width::W16 => (0, Width::W16),
                width => (stats.min, width),
            },
        };
        if self.nullable {
            self.sort_validity(batches.clone(), places);
        }
        with_native!(carrier, N => self.sort_native::<N>(batches, places), Bool => {
            self.cells8.resize(places.len(), 0);
            let mut places = places;
            for batch in batches {
                let bools = arrow::array::AsArray::as_boolean(batch.as_ref());
                let (these, rest) = places.split_at(batch.len());
                for (bit, &place) in bools.values().iter().zip(these) {
                    self.cells8[place as usize] = bit as u8;
                }
                places = rest;
            }
        }, Bytes => self.sort_bytes(batches, places, bucket_of, starts), Other => {});
    }

    fn sort_validity<'a>(&mut self, batches: impl Iterator<Item = &'a ArrayRef>, mut places: &[u32]) {
        self.valid.clear();
        self.valid.resize(places.len(), 1);
        for batch in batches {
            let (these, rest) = places.split_at(batch.len());
            if let Some(nulls) = nulls_of(batch) {
                for (valid, &place) in nulls.iter().zip(these) {
                    self.valid[place as usize] = valid as u8;
                }
            }
            places = rest;
        }
    }

    fn sort_native<'a, N: Native>(&mut self, batches: impl Iterator<Item = &'a ArrayRef>, places: &[u32]) {
        let minimum = N::narrow(self.minimum);
        let rows = places.len();
        match self.width {
            Width::W0 => {}
            Width::W1 => scatter::<N, u8>(batches, places, &mut self.cells8, |cell| cell.distance(minimum) as u8),
            Width::W2 => scatter::<N, u16>(batches, places, &mut self.cells16, |cell| cell.distance(minimum) as u16),
            Width::W4 => scatter::<N, u32>(batches, places, &mut self.cells32, |cell| cell.distance(minimum) as u32),
            Width::W8 => scatter::<N, u64>(batches, places, &mut self.cells64, |cell| cell.distance(minimum)),
            Width::W16 => scatter::<N, i128>(batches, places, &mut self.cells128, |cell| cell.widen()),
        }
        debug_assert!(rows == places.len());
    }

    fn sort_bytes<'a>(
        &mut self,
        batches: impl Iterator<Item = &'a ArrayRef> + Clone,
        places: &[u32],
        bucket_of: &[u16],
        starts: &[u32],
    ) {
        self.cells32.resize(places.len(), 0);
        let mut sums = vec![0usize; starts.len()];
        let mut row = 0;
        for batch in batches.clone() {
            with_bytes!(batch, texts => for at in 0..texts.len() {
                let length = if texts.is_valid(at) { AsRef::<[u8]>::as_ref(texts.value(at)).len() } else { 0 };
                self.cells32[places[row] as usize] = length as u32;
                sums[bucket_of[row] as usize] += length;
                row += 1;
            });
        }
        self.byte_starts.clear();
        let mut total = 0;
        for sum in sums {
            self.byte_starts.push(total);
            total += sum;
        }
        let mut next = self.byte_starts.clone();
        self.byte_starts.push(total);
        self.bytes.resize(total, 0);
        let mut row = 0;
        for batch in batches {
            with_bytes!(batch, texts => for at in 0..texts.len() {
                if texts.is_valid(at) {
                    let text: &[u8] = texts.value(at).as_ref();
                    let start = &mut next[bucket_of[row] as usize];
                    self.bytes[*start..*start + text.len()].copy_from_slice(text);
                    *start += text.len();
                }
                row += 1;
            });
        }
    }

    /// Appends the column's part of one bucket's segment.
    fn append(&self, bucket: usize, first: usize, rows: usize, out: &mut Vec<u8>) {
        use arrow::datatypes::ToByteSlice;
        let range = first..first + rows;
        if self.nullable {
            pack_bits(&self.valid[range.clone()], out);
        }
        if self.carrier == Some(Carrier::Bytes) {
            let lengths = &self.cells32[range];
            match self.width {
                Width::W0 => {}
                Width::W1 => out.extend(lengths.iter().map(|&length| length as u8)),
                Width::W2 => out.extend(lengths.iter().flat_map(|&length| (length as u16).to_le_bytes())),
                _ => out.extend_from_slice(lengths.to_byte_slice()),
            }
            out.extend_from_slice(&self.bytes[self.byte_starts[bucket]..self.byte_starts[bucket + 1]]);
            return;
        }
        match self.width {
            Width::W0 => {}
            Width::W1 => out.extend_from_slice(&self.cells8[range]),
            Width::W2 => out.extend_from_slice(self.cells16[range].to_byte_slice()),
            Width::W4 => out.extend_from_slice(self.cells32[range].to_byte_slice()),
            Width::W8 => out.extend_from_slice(self.cells64[range].to_byte_slice()),
            Width::W16 => out.extend_from_slice(self.cells128[range].to_byte_slice()),
        }
    }
}

/// Writes each cell, narrowed, to its place.
fn scatter<'a, N: Native, C: Copy + Default>(
    batches: impl Iterator<Item = &'a ArrayRef>,
    mut places: &[u32],
    out: &mut Vec<C>,
    narrow: impl Fn(N) -> C,
) {
    out.resize(places.len(), C::default());
    for batch in batches {
        let (cells, nulls) = cells::<N>(batch);
        let (these, rest) = places.split_at(batch.len());
        match nulls {
            // What lies under a NULL is arbitrary: zero makes equal rows equal bytes.
            Some(nulls) => {
                for ((&cell, &place), valid) in cells.as_slice().iter().zip(these).zip(nulls.iter()) {
                    out[place as usize] = if valid { narrow(cell) } else { C::default() };
                }
            }
            None => {
                for (&cell, &place) in cells.as_slice().iter().zip(these) {
                    out[place as usize] = narrow(cell);
                }
            }
        }
        places = rest;
    }
}

fn pack_bits(valid: &[u8], out: &mut Vec<u8>) {
    out.extend(
        valid
            .chunks(8)
            .map(|bits| bits.iter().enumerate().fold(0u8, |byte, (at, &bit)| byte | (bit << at))),
    );
}

fn too_large(bucket: usize, bytes: usize) -> ArrowError {
    ArrowError::InvalidArgumentError(format!(
        "{bytes} bytes of bucket {bucket} in one batch: 4 GiB are the limit"
    ))
}

fn append_ipc(batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    let mut writer = StreamWriter::try_new(out, batch.schema_ref())?;
    writer.write(batch)?;
    writer.finish()
}

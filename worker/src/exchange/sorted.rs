//! One column of a block, sorted by bucket run by run, and gathered into segments at the end.

use std::ops::Range;

use arrow::datatypes::ToByteSlice;

use super::{
    carrier::Carrier,
    layout::{ColumnLayout, Width},
    narrow::{Cells, Part, WaitingColumn, bounds_of},
    split::Run,
};

/// The sorted runs of one column. Its vectors keep their length from block to block: each cell is
/// written before it is read.
#[derive(Default)]
pub(super) struct SortedColumn {
    /// One for each run: its bounds and the width of its cells, which lie at the run's rows.
    runs: Vec<Part>,
    cells: Cells,
    /// 1 for each row that is not NULL; of runs before the first NULL there is nothing.
    valid: Vec<u8>,
    /// The first row of the first run that has a NULL.
    nulls_from: Option<usize>,
    /// The texts of a column that travels as bytes, and how many bytes of them are sorted.
    texts: Vec<u8>,
    texts_sorted: usize,
    /// Of each run: where each bucket's texts begin, and where the last one's end.
    text_starts: Vec<usize>,
    bucket_valid: Vec<u8>,
}

impl SortedColumn {
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.nulls_from = None;
        self.texts_sorted = 0;
        self.text_starts.clear();
    }

    /// How the column is stored in the block: as narrow as its bounds over all runs allow.
    pub(super) fn layout(&self) -> ColumnLayout {
        let (minimum, width) = narrowest(&self.runs);
        ColumnLayout {
            minimum,
            width,
            nullable: self.nulls_from.is_some(),
        }
    }

    /// Sorts the rows that wait as the next run.
    pub(super) fn sort_run(&mut self, waiting: &WaitingColumn, run: &Run, places: &[u32], bucket_of: &[u16]) {
        if waiting.carrier == Carrier::Other {
            return;
        }
        let (minimum, width) = narrowest(&waiting.parts);
        let (least, greatest) = bounds_of(&waiting.parts).unwrap_or((i128::MAX, i128::MIN));
        self.runs.push(Part {
            rows: run.rows.len(),
            minimum: least,
            maximum: greatest,
            width,
            start: run.rows.start,
        });
        let (cells, rows) = (&mut self.cells, run.rows.clone());
        match width {
            Width::W0 => {}
            Width::W1 => sort_cells(waiting, minimum, places, room(&mut cells.w1, rows), |cell| cell as u8),
            Width::W2 => sort_cells(waiting, minimum, places, room(&mut cells.w2, rows), |cell| cell as u16),
            Width::W4 => sort_cells(waiting, minimum, places, room(&mut cells.w4, rows), |cell| cell as u32),
            Width::W8 => sort_cells(waiting, minimum, places, room(&mut cells.w8, rows), |cell| cell),
            Width::W16 => sort_wide(waiting, places, room(&mut cells.w16, rows)),
        }
        let rows = run.rows.clone();
        if !waiting.valid.is_empty() {
            self.nulls_from.get_or_insert(rows.start);
            put(&waiting.valid, places, room(&mut self.valid, rows), |bit| bit);
        } else if self.nulls_from.is_some() {
            room(&mut self.valid, rows).fill(1);
        }
        if waiting.carrier == Carrier::Bytes {
            self.sort_texts(waiting, bucket_of, run.buckets());
        }
    }

    fn sort_texts(&mut self, waiting: &WaitingColumn, bucket_of: &[u16], buckets: usize) {
        let mut sums = vec![0usize; buckets];
        each_length(waiting, bucket_of, |bucket, length| sums[bucket] += length);
        let first = self.texts_sorted;
        let mut next = Vec::with_capacity(buckets);
        for sum in sums {
            next.push(self.texts_sorted - first);
            self.text_starts.push(self.texts_sorted);
            self.texts_sorted += sum;
        }
        self.text_starts.push(self.texts_sorted);
        let out = room(&mut self.texts, first..self.texts_sorted);
        let mut from = 0;
        each_length(waiting, bucket_of, |bucket, length| {
            let to = &mut next[bucket];
            out[*to..*to + length].copy_from_slice(&waiting.texts[from..from + length]);
            *to += length;
            from += length;
        });
    }

    /// Appends the column's part of one bucket's segment.
    pub(super) fn append(&mut self, layout: &ColumnLayout, bucket: usize, runs: &[Run], out: &mut Vec<u8>) {
        if let Some(nulls_from) = self.nulls_from {
            self.bucket_valid.clear();
            for run in runs {
                let rows = run.of_bucket(bucket);
                if run.rows.start < nulls_from {
                    self.bucket_valid.resize(self.bucket_valid.len() + rows.len(), 1);
                } else {
                    self.bucket_valid.extend_from_slice(&self.valid[rows]);
                }
            }
            pack_bits(&self.bucket_valid, out);
        }
        for (part, run) in self.runs.iter().zip(runs) {
            let rows = run.of_bucket(bucket);
            match layout.width {
                Width::W0 => {}
                Width::W16 => self.append_wide(part, rows, out),
                _ => self.append_distances(layout, part, rows, out),
            }
        }
        for (starts, run) in self.text_starts.chunks(runs[0].buckets() + 1).zip(runs) {
            debug_assert_eq!(starts.len(), run.buckets() + 1);
            out.extend_from_slice(&self.texts[starts[bucket]..starts[bucket + 1]]);
        }
    }

    fn append_distances(&self, layout: &ColumnLayout, part: &Part, rows: Range<usize>, out: &mut Vec<u8>) {
        let delta = delta(part, layout.minimum);
        if delta == 0 && part.width == layout.width {
            match part.width {
                Width::W1 => out.extend_from_slice(&self.cells.w1[rows]),
                Width::W2 => out.extend_from_slice(self.cells.w2[rows].to_byte_slice()),
                Width::W4 => out.extend_from_slice(self.cells.w4[rows].to_byte_slice()),
                _ => out.extend_from_slice(self.cells.w8[rows].to_byte_slice()),
            }
            return;
        }
        match layout.width {
            Width::W1 => self.append_shifted(part, rows, out, |cell| [(cell.wrapping_add(delta)) as u8]),
            Width::W2 => self.append_shifted(part, rows, out, |cell| (cell.wrapping_add(delta) as u16).to_le_bytes()),
            Width::W4 => self.append_shifted(part, rows, out, |cell| (cell.wrapping_add(delta) as u32).to_le_bytes()),
            _ => self.append_shifted(part, rows, out, |cell| cell.wrapping_add(delta).to_le_bytes()),
        }
    }

    fn append_shifted<const W: usize>(
        &self,
        part: &Part,
        rows: Range<usize>,
        out: &mut Vec<u8>,
        shift: impl Fn(u64) -> [u8; W],
    ) {
        let cells = &self.cells;
        match part.width {
            Width::W0 => append_cells(rows.map(|_| shift(0)), out),
            Width::W1 => append_cells(cells.w1[rows].iter().map(|&cell| shift(cell.into())), out),
            Width::W2 => append_cells(cells.w2[rows].iter().map(|&cell| shift(cell.into())), out),
            Width::W4 => append_cells(cells.w4[rows].iter().map(|&cell| shift(cell.into())), out),
            Width::W8 => append_cells(cells.w8[rows].iter().map(|&cell| shift(cell)), out),
            Width::W16 => unreachable!("a block is as wide as its widest run"),
        }
    }

    fn append_wide(&self, part: &Part, rows: Range<usize>, out: &mut Vec<u8>) {
        let minimum = part.minimum;
        let value = |cell: u64| minimum.wrapping_add(cell.into()).to_le_bytes();
        match part.width {
            Width::W16 => out.extend_from_slice(self.cells.w16[rows].to_byte_slice()),
            _ => self.append_shifted(part, rows, out, value),
        }
    }
}

/// Minimum and width for the cells of all parts. The widest cells are the values themselves.
fn narrowest(parts: &[Part]) -> (i128, Width) {
    match bounds_of(parts) {
        None => (0, Width::W0),
        Some((min, max)) => match Width::for_distance(max.wrapping_sub(min) as u128) {
            Width::W16 => (0, Width::W16),
            width => (min, width),
        },
    }
}

/// How far a part's minimum lies above another. A part without values has none, and its cells are
/// never looked at.
fn delta(part: &Part, minimum: i128) -> u64 {
    if part.minimum > part.maximum {
        0
    } else {
        (part.minimum - minimum) as u64
    }
}

/// Room for a run, whatever it holds: each of its cells will be written.
fn room<C: Copy + Default>(cells: &mut Vec<C>, rows: Range<usize>) -> &mut [C] {
    if cells.len() < rows.end {
        cells.resize(rows.end, C::default());
    }
    &mut cells[rows]
}

fn append_cells<const W: usize>(cells: impl ExactSizeIterator<Item = [u8; W]>, out: &mut Vec<u8>) {
    let from = out.len();
    out.resize(from + cells.len() * W, 0);
    for (out, cell) in out[from..].as_chunks_mut::<W>().0.iter_mut().zip(cells) {
        *out = cell;
    }
}

/// Writes each cell, as `convert` makes it, to its place.
#[inline(always)]
fn put<I: Copy, O>(cells: &[I], places: &[u32], out: &mut [O], convert: impl Fn(I) -> O) {
    for (&cell, &place) in cells.iter().zip(places) {
        out[place as usize] = convert(cell);
    }
}

/// Sorts the cells of a run's parts, as distances from the run's minimum.
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
        let delta = delta(part, minimum);
        let shift = |cell: u64| narrow(cell.wrapping_add(delta));
        match part.width {
            Width::W0 => these.iter().for_each(|&place| out[place as usize] = shift(0)),
            Width::W1 => put(&cells.w1[start..start + rows], these, out, |cell| shift(cell.into())),
            Width::W2 => put(&cells.w2[start..start + rows], these, out, |cell| shift(cell.into())),
            Width::W4 => put(&cells.w4[start..start + rows], these, out, |cell| shift(cell.into())),
            Width::W8 => put(&cells.w8[start..start + rows], these, out, shift),
            Width::W16 => unreachable!("a run is as wide as its widest part"),
        }
        places = rest;
    }
}

/// Sorts the cells of a run's parts as the values themselves.
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

fn pack_bits(valid: &[u8], out: &mut Vec<u8>) {
    let pack = |bits: &[u8]| bits.iter().enumerate().fold(0u8, |byte, (at, &bit)| byte | (bit << at));
    out.extend(valid.chunks(8).map(pack));
}

//! Rows that wait to be sorted, narrowed as they arrive: each batch's columns are copied once, as
//! distances from the batch's minimum, while they are in the cache. The batch itself is let go at
//! once, so its memory serves the next one; a block of waiting rows takes about a quarter.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    buffer::NullBuffer,
};

use super::{
    carrier::{Carrier, Native, cells, nulls_of, with_bytes, with_native},
    layout::Width,
};

/// One column of the rows that wait.
pub(super) struct WaitingColumn {
    pub(super) carrier: Carrier,
    pub(super) parts: Vec<Part>,
    pub(super) cells: Cells,
    /// 1 for each row that is not NULL; empty until there is a NULL.
    pub(super) valid: Vec<u8>,
    /// Texts end to end, in the order of arrival; their lengths are the cells.
    pub(super) texts: Vec<u8>,
    /// What travels as IPC waits as it came.
    pub(super) others: Vec<ArrayRef>,
    rows: usize,
    lengths: Vec<u32>,
}

/// The cells of one batch. Without values (all NULL, or no rows) `minimum > maximum`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) rows: usize,
    pub(super) minimum: i128,
    pub(super) maximum: i128,
    pub(super) width: Width,
    /// Where its cells begin among those of its width.
    pub(super) start: usize,
}

/// Room for cells of every width. It is kept from block to block: fresh pages cost more than the
/// work on them.
#[derive(Default)]
pub(super) struct Cells {
    pub(super) w1: Vec<u8>,
    pub(super) w2: Vec<u16>,
    pub(super) w4: Vec<u32>,
    pub(super) w8: Vec<u64>,
    pub(super) w16: Vec<i128>,
}

impl WaitingColumn {
    pub(super) fn new(carrier: Carrier) -> Self {
        Self {
            carrier,
            parts: Vec::new(),
            cells: Cells::default(),
            valid: Vec::new(),
            texts: Vec::new(),
            others: Vec::new(),
            rows: 0,
            lengths: Vec::new(),
        }
    }

    /// Takes in a column of a batch; answers about how many bytes it takes.
    pub(super) fn push(&mut self, column: &ArrayRef) -> usize {
        let rows = column.len();
        let nulls = if self.carrier == Carrier::Other {
            None
        } else {
            nulls_of(column)
        };
        if nulls.is_some() || !self.valid.is_empty() {
            self.valid.resize(self.rows, 1);
            match &nulls {
                Some(nulls) => self.valid.extend(nulls.iter().map(u8::from)),
                None => self.valid.resize(self.rows + rows, 1),
            }
        }
        self.rows += rows;
        with_native!(self.carrier, N => {
            let (cells, nulls) = cells::<N>(column);
            self.push_cells(cells.as_slice(), nulls.as_ref())
        }, Bool => {
            let bits: Vec<u8> = column.as_boolean().values().iter().map(u8::from).collect();
            self.push_cells(&bits, nulls.as_ref())
        }, Bytes => self.push_texts(column, nulls.as_ref()), Other => {
            self.others.push(column.clone());
            column.get_array_memory_size()
        })
    }

    fn push_texts(&mut self, column: &ArrayRef, nulls: Option<&NullBuffer>) -> usize {
        let before = self.texts.len();
        let mut lengths = std::mem::take(&mut self.lengths);
        lengths.clear();
        with_bytes!(column, texts => for row in 0..texts.len() {
            let from = self.texts.len();
            if nulls.is_none_or(|nulls| nulls.is_valid(row)) {
                self.texts.extend_from_slice(texts.value(row).as_ref());
            }
            lengths.push((self.texts.len() - from) as u32);
        });
        // The length under a NULL is 0 and counts as any other.
        let bytes = self.push_cells(&lengths, None);
        self.lengths = lengths;
        bytes + self.texts.len() - before
    }

    fn push_cells<N: Native>(&mut self, cells: &[N], nulls: Option<&NullBuffer>) -> usize {
        let part = vectorised(|| bounds(cells, nulls)).map_or(Part::EMPTY, |(minimum, maximum)| {
            let width = Width::for_distance(maximum.wrapping_sub(minimum) as u128);
            Part {
                minimum,
                maximum,
                width,
                ..Part::EMPTY
            }
        });
        let minimum = N::narrow(part.minimum);
        let out = &mut self.cells;
        let start = match part.width {
            Width::W0 => 0,
            Width::W1 => append(&mut out.w1, cells, nulls, |cell| cell.distance(minimum) as u8),
            Width::W2 => append(&mut out.w2, cells, nulls, |cell| cell.distance(minimum) as u16),
            Width::W4 => append(&mut out.w4, cells, nulls, |cell| cell.distance(minimum) as u32),
            Width::W8 => append(&mut out.w8, cells, nulls, |cell| cell.distance(minimum)),
            Width::W16 => append(&mut out.w16, cells, nulls, |cell| cell.widen()),
        };
        self.parts.push(Part {
            rows: cells.len(),
            start,
            ..part
        });
        cells.len() * part.width as usize
    }

    /// Least and greatest value of all parts.
    pub(super) fn bounds(&self) -> Option<(i128, i128)> {
        let parts = self.parts.iter().filter(|part| part.minimum <= part.maximum);
        let bounds = parts.map(|part| (part.minimum, part.maximum));
        bounds.reduce(|(min, max), (least, greatest)| (min.min(least), max.max(greatest)))
    }

    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.cells.w1.clear();
        self.cells.w2.clear();
        self.cells.w4.clear();
        self.cells.w8.clear();
        self.cells.w16.clear();
        self.valid.clear();
        self.texts.clear();
        self.others.clear();
        self.rows = 0;
    }
}

impl Part {
    const EMPTY: Part = Part {
        rows: 0,
        minimum: i128::MAX,
        maximum: i128::MIN,
        width: Width::W0,
        start: 0,
    };
}

/// Appends the cells; what lies under a NULL is arbitrary and becomes zero. Answers where they begin.
fn append<N: Native, C: Copy + Default>(
    out: &mut Vec<C>,
    cells: &[N],
    nulls: Option<&NullBuffer>,
    narrow: impl Fn(N) -> C,
) -> usize {
    let start = out.len();
    match nulls {
        None => vectorised(|| out.extend(cells.iter().map(|&cell| narrow(cell)))),
        Some(nulls) => out.extend(cells.iter().zip(nulls.iter()).map(
            |(&cell, valid)| {
                if valid { narrow(cell) } else { C::default() }
            },
        )),
    }
    start
}

/// Least and greatest of the values that are not NULL.
#[inline(always)]
fn bounds<N: Native>(cells: &[N], nulls: Option<&NullBuffer>) -> Option<(i128, i128)> {
    if let Some(nulls) = nulls {
        let valid = nulls.valid_indices().map(|row| (cells[row], cells[row]));
        let (min, max) = valid.reduce(|(min, max), (cell, _)| (min.min(cell), max.max(cell)))?;
        return Some((min.widen(), max.widen()));
    }
    let &first = cells.first()?;
    if size_of::<N>() > size_of::<i64>() {
        // Nearly all decimals fit 64 bits, which compare much faster than 128.
        let narrow = |cell: N| cell.widen() as i64;
        let misfit = cells.iter().fold(0, |bits, &cell| {
            bits | ((cell.widen() >> 64) as i64 ^ (narrow(cell) >> 63))
        });
        if misfit == 0 {
            let (min, max) = cells.iter().fold((i64::MAX, i64::MIN), |(min, max), &cell| {
                (min.min(narrow(cell)), max.max(narrow(cell)))
            });
            return Some((min.into(), max.into()));
        }
    }
    let (min, max) = cells
        .iter()
        .fold((first, first), |(min, max), &cell| (min.min(cell), max.max(cell)));
    Some((min.widen(), max.widen()))
}

/// Runs a loop over integers with the vector instructions that the processor has: the baseline of
/// x86-64 can neither compare nor multiply 64-bit integers in vectors.
#[inline(always)]
pub(super) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw")]
        fn with_avx512<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        #[target_feature(enable = "avx2")]
        fn with_avx2<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        if is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
        {
            // SAFETY: the processor has these instructions, as was just asked.
            return unsafe { with_avx512(work) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { with_avx2(work) };
        }
    }
    work()
}

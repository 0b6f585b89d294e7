//! Rows that wait to be sorted, narrowed as they arrive: each batch's columns are copied once, as
//! distances from the batch's minimum, while they are in the cache. The batch itself is let go at
//! once, so its memory serves the next one; a block of waiting rows takes about a quarter.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    buffer::NullBuffer,
};

use super::{
    carrier::{Carrier, Native, bytes_of, cells, nulls_of, with_bytes, with_native},
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
                self.texts.extend_from_slice(bytes_of(texts.value(row)));
            }
            lengths.push((self.texts.len() - from) as u32);
        });
        // The length under a NULL is 0 and counts as any other.
        let bytes = self.push_cells(&lengths, None);
        self.lengths = lengths;
        bytes + self.texts.len() - before
    }

    fn push_cells<N: Native>(&mut self, cells: &[N], nulls: Option<&NullBuffer>) -> usize {
        let part = bounds(cells, nulls).map_or(Part::EMPTY, |(minimum, maximum)| {
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
            Width::W1 => append(&mut out.w1, cells, nulls, minimum),
            Width::W2 => append(&mut out.w2, cells, nulls, minimum),
            Width::W4 => append(&mut out.w4, cells, nulls, minimum),
            Width::W8 => append(&mut out.w8, cells, nulls, minimum),
            Width::W16 => append_wide(&mut out.w16, cells),
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
fn append<N: Native, C: Cell>(out: &mut Vec<C>, cells: &[N], nulls: Option<&NullBuffer>, minimum: N) -> usize {
    let start = out.len();
    match nulls {
        None => vectorised(Narrow { out, cells, minimum }),
        Some(nulls) => out.extend(cells.iter().zip(nulls.iter()).map(|(&cell, valid)| {
            if valid {
                C::from_distance(cell.distance(minimum))
            } else {
                C::default()
            }
        })),
    }
    start
}

/// Appends the cells themselves. Answers where they begin.
fn append_wide<N: Native>(out: &mut Vec<i128>, cells: &[N]) -> usize {
    let start = out.len();
    out.extend(cells.iter().map(|cell| cell.widen()));
    start
}

/// What a distance is stored as.
trait Cell: Copy + Default {
    fn from_distance(distance: u64) -> Self;
}

macro_rules! cell {
    ($($cell:ty),*) => {$(
        impl Cell for $cell {
            #[inline(always)]
            fn from_distance(distance: u64) -> Self {
                distance as Self
            }
        }
    )*};
}
cell!(u8, u16, u32, u64);

/// Appends the distances of cells from the minimum.
struct Narrow<'a, N, C> {
    out: &'a mut Vec<C>,
    cells: &'a [N],
    minimum: N,
}

impl<N: Native, C: Cell> Loop for Narrow<'_, N, C> {
    type Result = ();

    #[inline(always)]
    fn run(self) {
        let minimum = self.minimum;
        self.out
            .extend(self.cells.iter().map(|cell| C::from_distance(cell.distance(minimum))));
    }
}

/// Least and greatest of the values that are not NULL.
fn bounds<N: Native>(cells: &[N], nulls: Option<&NullBuffer>) -> Option<(i128, i128)> {
    match nulls {
        Some(nulls) => {
            let valid = nulls.valid_indices().map(|row| (cells[row], cells[row]));
            let (min, max) = valid.reduce(|(min, max), (cell, _)| (min.min(cell), max.max(cell)))?;
            Some((min.widen(), max.widen()))
        }
        None => vectorised(Bounds(cells)),
    }
}

struct Bounds<'a, N>(&'a [N]);

impl<N: Native> Loop for Bounds<'_, N> {
    type Result = Option<(i128, i128)>;

    #[inline(always)]
    fn run(self) -> Self::Result {
        let cells = self.0;
        let &first = cells.first()?;
        let (mut min, mut max) = (first, first);
        if size_of::<N>() > size_of::<i64>() {
            // Nearly all decimals fit 64 bits, which compare much faster than 128.
            let (mut misfit, mut least, mut greatest) = (0, i64::MAX, i64::MIN);
            for cell in cells {
                let (low, high) = (cell.widen() as i64, (cell.widen() >> 64) as i64);
                misfit |= high ^ (low >> 63);
                least = least.min(low);
                greatest = greatest.max(low);
            }
            if misfit == 0 {
                return Some((least.into(), greatest.into()));
            }
        }
        for &cell in cells {
            min = min.min(cell);
            max = max.max(cell);
        }
        Some((min.widen(), max.widen()))
    }
}

/// A loop over integers that gains by vector instructions beyond the baseline of x86-64, which can
/// neither compare nor multiply 64-bit integers in vectors. `run` must be `#[inline(always)]`: it is
/// compiled into a caller that may use them.
pub(super) trait Loop {
    type Result;
    fn run(self) -> Self::Result;
}

/// Runs a loop with the best instructions that the processor has.
#[inline]
pub(super) fn vectorised<L: Loop>(work: L) -> L::Result {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw")]
        fn with_avx512<L: Loop>(work: L) -> L::Result {
            work.run()
        }
        #[target_feature(enable = "avx2")]
        fn with_avx2<L: Loop>(work: L) -> L::Result {
            work.run()
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
    work.run()
}

//! What decides how a column of a block is narrowed: its least and greatest value, and whether it
//! has NULLs. Taken batch by batch, while the batch is still in the cache.

use arrow::{
    array::{Array, ArrayRef},
    buffer::NullBuffer,
};

use super::carrier::{Carrier, Native, cells, nulls_of, with_bytes, with_native};

/// Bounds of the values that are not NULL; of texts, of their lengths. Without values `min > max`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stats {
    pub(super) min: i128,
    pub(super) max: i128,
    pub(super) nulls: bool,
}

impl Stats {
    pub(super) const NONE: Stats = Stats {
        min: i128::MAX,
        max: i128::MIN,
        nulls: false,
    };

    fn widen(&mut self, min: i128, max: i128) {
        self.min = self.min.min(min);
        self.max = self.max.max(max);
    }

    /// Takes in a column of a batch; answers the bytes of its values.
    pub(super) fn add_column(&mut self, carrier: Carrier, column: &ArrayRef) -> usize {
        self.nulls |= column.null_count() > 0;
        with_native!(carrier, N => {
            let (cells, nulls) = cells::<N>(column);
            if let Some((min, max)) = bounds(cells.as_slice(), nulls.as_ref()) {
                self.widen(min, max);
            }
            size_of_val(cells.as_slice())
        }, Bool => {
            self.widen(0, 1);
            column.len()
        }, Bytes => with_bytes!(column, texts => {
            let nulls = nulls_of(column);
            let (mut sum, mut longest) = (0, 0);
            for row in 0..texts.len() {
                if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                    let length = AsRef::<[u8]>::as_ref(texts.value(row)).len();
                    longest = longest.max(length);
                    sum += length;
                }
            }
            self.widen(0, longest as i128);
            sum + texts.len() * size_of::<u32>()
        }), Other => column.get_array_memory_size())
    }
}

/// Least and greatest of the values that are not NULL.
fn bounds<N: Native>(cells: &[N], nulls: Option<&NullBuffer>) -> Option<(i128, i128)> {
    let (min, max) = match nulls {
        Some(nulls) => nulls
            .valid_indices()
            .map(|row| cells[row])
            .fold(None, |bounds, cell| match bounds {
                Some((min, max)) => Some((cell.min(min), cell.max(max))),
                None => Some((cell, cell)),
            })?,
        None if cells.is_empty() => return None,
        None => return Some(dense_bounds(cells)),
    };
    Some((min.widen(), max.widen()))
}

/// Bounds of at least one value. Comparing 64-bit integers in vectors needs more than the baseline
/// of x86-64, and is four times as fast.
fn dense_bounds<N: Native>(cells: &[N]) -> (i128, i128) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn with_avx2<N: Native>(cells: &[N]) -> (i128, i128) {
            fold_bounds(cells)
        }
        // SAFETY: the processor has AVX2, as was just asked.
        return unsafe { with_avx2(cells) };
    }
    fold_bounds(cells)
}

#[inline(always)]
fn fold_bounds<N: Native>(cells: &[N]) -> (i128, i128) {
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
            return (min.into(), max.into());
        }
    }
    let first = cells[0];
    let (min, max) = cells
        .iter()
        .fold((first, first), |(min, max), &cell| (min.min(cell), max.max(cell)));
    (min.widen(), max.widen())
}

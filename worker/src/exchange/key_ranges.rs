//! Key ranges over whole batches: how many bounds lie at or below each value. The bounds are turned
//! once into the column's own domain (width, scale, time unit), so that values are compared as they
//! are stored. The order is that of [`gapless_common::key::Key`].

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, TimeUnit},
};
use gapless_common::key::{Key, KeyType};

use super::{
    bucket::half_to_f64,
    carrier::{Carrier, Native, bytes_of, cells, with_bytes, with_native},
};

/// Up to so many bounds are counted rather than searched: no branch to guess, and it vectorises.
const COUNTED_BOUNDS: usize = 16;

/// Bounds of intervals, as the column stores its values.
pub(super) enum KeyRanges {
    /// Integers, decimals, dates, timestamps, booleans: the least stored value of each interval.
    Integers(Vec<i128>),
    /// Sortable bits.
    Floats(Vec<u64>),
    Texts(TextBounds),
}

impl KeyRanges {
    /// The words of an error say what does not fit.
    pub(super) fn new(column: &DataType, key_type: KeyType, bounds: &[Key]) -> Result<Self, String> {
        if let Some(pair) = bounds.windows(2).find(|pair| pair[0] >= pair[1]) {
            let (low, high) = (pair[0].display(key_type), pair[1].display(key_type));
            return Err(format!("bound {high} does not lie above {low}"));
        }
        let mismatch = || format!("its type {column} cannot be cut by keys of type {key_type:?}");
        match key_type {
            KeyType::Text => match Carrier::of(column) {
                Carrier::Bytes => bounds
                    .iter()
                    .map(text_of)
                    .collect::<Option<Vec<_>>>()
                    .map(|bounds| KeyRanges::Texts(TextBounds::new(bounds))),
                _ => None,
            },
            KeyType::Float => match column {
                DataType::Float16 | DataType::Float32 | DataType::Float64 => bounds
                    .iter()
                    .map(float_of)
                    .collect::<Option<_>>()
                    .map(KeyRanges::Floats),
                _ => None,
            },
            _ => stored_per_key(column, key_type).and_then(|unit| {
                let bounds = bounds
                    .iter()
                    .map(|bound| integer_of(bound).map(|key| unit.least_at_or_above(key)));
                bounds.collect::<Option<_>>().map(KeyRanges::Integers)
            }),
        }
        .ok_or_else(mismatch)
    }

    /// Appends the number of bounds at or below each value. What it says of NULLs means nothing.
    pub(super) fn assign(&self, column: &ArrayRef, out: &mut Vec<u16>) {
        match self {
            KeyRanges::Texts(bounds) => with_bytes!(column, texts => {
                out.extend((0..texts.len()).map(|row| {
                    bounds.at_or_below(bytes_of(texts.value(row))) as u16
                }));
            }),
            KeyRanges::Floats(bounds) => match column.data_type() {
                DataType::Float16 => {
                    assign_cells::<u16, u64>(column, bounds, 0, out, |bits| sortable(half_to_f64(bits)))
                }
                DataType::Float32 => {
                    assign_cells::<u32, u64>(column, bounds, 0, out, |bits| sortable(f64::from(f32::from_bits(bits))));
                }
                _ => assign_cells::<u64, u64>(column, bounds, 0, out, |bits| sortable(f64::from_bits(bits))),
            },
            KeyRanges::Integers(bounds) => with_native!(Carrier::of(column.data_type()), N => {
                // Bounds below the type's least value are below all values, those above its
                // greatest below none.
                let (least, greatest) = limits::<N>();
                let below = bounds.partition_point(|&bound| bound <= least);
                let above = bounds.partition_point(|&bound| bound <= greatest);
                let within: Vec<N> = bounds[below..above].iter().map(|&bound| N::narrow(bound)).collect();
                assign_cells::<N, N>(column, &within, below as u16, out, |value| value);
            }, Bool => {
                out.extend(column.as_boolean().values().iter().map(|bit| {
                    bounds.partition_point(|&bound| bound <= i128::from(bit)) as u16
                }));
            }, Bytes => unreachable!("bounds are not text"), Other => unreachable!("refused when the bounds were made")),
        }
    }
}

/// Bounds of texts: most texts are told apart from all of them by their first bytes.
pub(super) struct TextBounds {
    bounds: Vec<Vec<u8>>,
    /// The first bytes of each, as a number that compares like them.
    prefixes: Vec<u64>,
}

impl TextBounds {
    fn new(bounds: Vec<Vec<u8>>) -> Self {
        Self {
            prefixes: bounds.iter().map(|bound| prefix(bound)).collect(),
            bounds,
        }
    }

    /// How many bounds are no greater than a text.
    fn at_or_below(&self, text: &[u8]) -> usize {
        let first = prefix(text);
        let low = self.prefixes.partition_point(|&bound| bound < first);
        let alike = self.prefixes[low..].partition_point(|&bound| bound <= first);
        low + self.bounds[low..low + alike].partition_point(|bound| bound.as_slice() <= text)
    }
}

/// Texts that end before are filled up with zeros: what the numbers leave open has to be compared.
fn prefix(text: &[u8]) -> u64 {
    match text.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut first = [0; 8];
            first[..text.len()].copy_from_slice(text);
            u64::from_be_bytes(first)
        }
    }
}

fn assign_cells<N: Native, K: Ord + Copy>(
    column: &ArrayRef,
    bounds: &[K],
    below: u16,
    out: &mut Vec<u16>,
    key: impl Fn(N) -> K,
) {
    let (cells, _) = cells::<N>(column);
    let cells = cells.as_slice().iter().map(|&cell| key(cell));
    if bounds.len() <= COUNTED_BOUNDS {
        out.extend(cells.map(|cell| {
            bounds
                .iter()
                .fold(below, |count, &bound| count + u16::from(bound <= cell))
        }));
    } else {
        out.extend(cells.map(|cell| below + bounds.partition_point(|&bound| bound <= cell) as u16));
    }
}

/// Least and greatest value of a native type.
fn limits<N: Native>() -> (i128, i128) {
    let bits = size_of::<N>() as u32 * 8;
    let signed = N::narrow(-1).widen() < 0;
    match (signed, bits) {
        (true, 128) => (i128::MIN, i128::MAX),
        (true, _) => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
        (false, _) => (0, (1i128 << bits) - 1),
    }
}

/// How stored integers relate to integer keys: `key = stored * multiply / divide`, one of them 1.
struct Unit {
    multiply: i128,
    divide: i128,
}

impl Unit {
    /// The least stored value whose key is at or above `key`; at the ends of the type it saturates.
    fn least_at_or_above(&self, key: i128) -> i128 {
        if self.divide > 1 {
            return key.saturating_mul(self.divide);
        }
        let floor = key.div_euclid(self.multiply);
        if floor * self.multiply == key { floor } else { floor + 1 }
    }
}

/// How a column's stored integers relate to keys; `None` where they do not.
fn stored_per_key(column: &DataType, key_type: KeyType) -> Option<Unit> {
    const SAME: Unit = Unit { multiply: 1, divide: 1 };
    let column_scale = match column {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => Some(*scale),
        ty if ty.is_integer() => Some(0),
        _ => None,
    };
    match key_type {
        KeyType::Int | KeyType::Decimal { .. } => {
            let key_scale = if let KeyType::Decimal { scale } = key_type {
                scale
            } else {
                0
            };
            let difference = i32::from(column_scale?) - i32::from(key_scale);
            let power = 10i128.checked_pow(difference.unsigned_abs())?;
            Some(if difference >= 0 {
                Unit {
                    multiply: 1,
                    divide: power,
                }
            } else {
                Unit {
                    multiply: power,
                    divide: 1,
                }
            })
        }
        KeyType::Bool => (*column == DataType::Boolean).then_some(SAME),
        KeyType::Date => match column {
            DataType::Date32 => Some(SAME),
            DataType::Date64 => Some(Unit {
                multiply: 1,
                divide: 86_400_000,
            }),
            _ => None,
        },
        KeyType::Timestamp => match column {
            DataType::Timestamp(TimeUnit::Second, _) => Some(Unit {
                multiply: 1_000_000,
                divide: 1,
            }),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Some(Unit {
                multiply: 1_000,
                divide: 1,
            }),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Some(SAME),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(Unit {
                multiply: 1,
                divide: 1_000,
            }),
            _ => None,
        },
        KeyType::Float | KeyType::Text => None,
    }
}

fn integer_of(key: &Key) -> Option<i128> {
    if let Key::Int(value) = key { Some(*value) } else { None }
}

fn float_of(key: &Key) -> Option<u64> {
    if let Key::Float(value) = key {
        Some(sortable(*value))
    } else {
        None
    }
}

fn text_of(key: &Key) -> Option<Vec<u8>> {
    if let Key::Text(text) = key {
        Some(text.clone().into_bytes())
    } else {
        None
    }
}

/// Bits that compare as unsigned integers in the order of [`gapless_common::key::compare_floats`].
fn sortable(value: f64) -> u64 {
    if value.is_nan() {
        return u64::MAX;
    }
    // Adding zero turns -0 into 0.
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

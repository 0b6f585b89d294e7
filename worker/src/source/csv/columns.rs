//! One typed loop for each column: fields of a block to an Arrow array. A field that is no value of
//! its column's type flags its row and the loop goes on; the reader takes such rows out afterwards.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, ArrowPrimitiveType, BooleanArray, Decimal128Array, PrimitiveArray, StringViewArray, TimestampMicrosecondArray,
        types::{
            Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
            UInt32Type, UInt64Type,
        },
    },
    buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, ScalarBuffer},
    datatypes::{DataType, TimeUnit},
};
use gapless_common::{
    error::TaskError,
    job::ColumnType,
};

use super::{
    block::Text,
    values::{self, Fixed},
};
use crate::source::pins::config;

/// The Arrow type of a declared column. Text is `Utf8View`: values point into the block that was
/// read instead of being copied.
///
/// Errors: `Config` for a decimal that 128 bits cannot hold.
pub fn arrow_type(name: &str, ty: ColumnType) -> Result<DataType, TaskError> {
    Ok(match ty {
        ColumnType::Int8 => DataType::Int8,
        ColumnType::Int16 => DataType::Int16,
        ColumnType::Int32 => DataType::Int32,
        ColumnType::Int64 => DataType::Int64,
        ColumnType::Uint8 => DataType::UInt8,
        ColumnType::Uint16 => DataType::UInt16,
        ColumnType::Uint32 => DataType::UInt32,
        ColumnType::Uint64 => DataType::UInt64,
        ColumnType::Float32 => DataType::Float32,
        ColumnType::Float64 => DataType::Float64,
        ColumnType::Decimal { precision, scale } => {
            if !(1..=38).contains(&precision) || !(-38..=precision as i8).contains(&scale) {
                return Err(config(format!(
                    "column {name}: decimal({precision},{scale}) is not possible; the precision is 1 to 38, the scale at \
                     most the precision"
                )));
            }
            DataType::Decimal128(precision, scale)
        }
        ColumnType::String => DataType::Utf8View,
        ColumnType::Bool => DataType::Boolean,
        ColumnType::Date => DataType::Date32,
        ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
    })
}

/// The declared type that reads back what a CSV sink wrote of an Arrow type; `None` where there is
/// none and the column stays text.
pub fn column_type(ty: &DataType) -> Option<ColumnType> {
    Some(match ty {
        DataType::Int8 => ColumnType::Int8,
        DataType::Int16 => ColumnType::Int16,
        DataType::Int32 => ColumnType::Int32,
        DataType::Int64 => ColumnType::Int64,
        DataType::UInt8 => ColumnType::Uint8,
        DataType::UInt16 => ColumnType::Uint16,
        DataType::UInt32 => ColumnType::Uint32,
        DataType::UInt64 => ColumnType::Uint64,
        DataType::Float32 => ColumnType::Float32,
        DataType::Float64 => ColumnType::Float64,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => ColumnType::Decimal {
            precision: *precision,
            scale: *scale,
        },
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ColumnType::String,
        DataType::Boolean => ColumnType::Bool,
        DataType::Date32 => ColumnType::Date,
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond, _) => ColumnType::Timestamp,
        DataType::Dictionary(_, value) => column_type(value)?,
        _ => return None,
    })
}

/// What a field of the type looks like, for people.
pub(super) fn expectation(ty: ColumnType) -> String {
    let between = |low: i128, high: i128| format!("a whole number from {low} to {high}");
    match ty {
        ColumnType::Int8 => between(i8::MIN.into(), i8::MAX.into()),
        ColumnType::Int16 => between(i16::MIN.into(), i16::MAX.into()),
        ColumnType::Int32 => between(i32::MIN.into(), i32::MAX.into()),
        ColumnType::Int64 => between(i64::MIN.into(), i64::MAX.into()),
        ColumnType::Uint8 => between(0, u8::MAX.into()),
        ColumnType::Uint16 => between(0, u16::MAX.into()),
        ColumnType::Uint32 => between(0, u32::MAX.into()),
        ColumnType::Uint64 => between(0, u64::MAX.into()),
        ColumnType::Float32 | ColumnType::Float64 => "a number".to_string(),
        ColumnType::Decimal { precision, scale } => {
            format!("a decimal({precision},{scale}) without more digits than it holds")
        }
        ColumnType::String => "text in UTF-8".to_string(),
        ColumnType::Bool => "true or false".to_string(),
        ColumnType::Date => "a date (YYYY-MM-DD)".to_string(),
        ColumnType::Timestamp => "a timestamp (YYYY-MM-DD HH:MM:SS, at most six digits behind the seconds)".to_string(),
    }
}

/// The texts that mean NULL, with a filter by length in front.
#[derive(Debug)]
pub(super) struct Nulls {
    texts: Vec<Vec<u8>>,
    /// Bit i: some text has i bytes (63: or more).
    lengths: u64,
}

impl Nulls {
    pub fn new(texts: &[String]) -> Self {
        let lengths = texts.iter().fold(0, |mask, text| mask | 1 << text.len().min(63));
        Self {
            texts: texts.iter().map(|text| text.clone().into_bytes()).collect(),
            lengths,
        }
    }

    #[inline(always)]
    fn contain(&self, text: Text<'_>, start: usize, end: usize) -> bool {
        self.lengths >> (end - start).min(63) & 1 != 0 && self.listed(text.slice(start, end))
    }

    #[inline(never)]
    fn listed(&self, field: &[u8]) -> bool {
        self.texts.iter().any(|text| text == field)
    }
}

/// The rows of a block: where each field stands.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub text: Text<'a>,
    pub ends: &'a [u32],
    /// For each row the index into `ends` of the end of its first field. `firsts[row] >= 1`, and
    /// `firsts[row] + columns <= ends.len()`.
    pub firsts: &'a [u32],
    pub columns: usize,
    pub quote: Option<u8>,
    pub nulls: &'a Nulls,
}

/// A row that cannot go on, with the column (position in the file) that is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub row: u32,
    pub column: u32,
    pub start: u32,
    pub end: u32,
}

impl<'a> Rows<'a> {
    pub fn len(&self) -> usize {
        self.firsts.len()
    }

    /// The field as positions, the carriage return of a line end taken off.
    #[inline(always)]
    fn field(&self, first: u32, column: usize, last: bool) -> (usize, usize) {
        let at = first as usize + column;
        debug_assert!(at >= 1 && at < self.ends.len());
        // SAFETY: see `firsts`.
        let (before, end) = unsafe { (*self.ends.get_unchecked(at - 1), *self.ends.get_unchecked(at)) };
        let (start, mut end) = (before as usize + 1, end as usize);
        if last && end > start && self.text.byte(end - 1) == b'\r' {
            end -= 1;
        }
        (start, end)
    }

    #[inline(always)]
    fn quoted(&self, start: usize, end: usize) -> bool {
        start < end && Some(self.text.byte(start)) == self.quote
    }

    /// Decodes one column of all rows; appends what does not parse to `flaws` (in row order) and
    /// leaves a placeholder in the array. `block` is the buffer under `text`.
    pub fn decode(&self, column: usize, ty: ColumnType, block: &Buffer, utf8: bool, flaws: &mut Vec<Flaw>) -> ArrayRef {
        macro_rules! narrow {
            ($arrow:ty, $parse:expr) => {
                self.primitive::<$arrow>(column, flaws, |text, start, end| {
                    $parse(text, start, end).and_then(|value| value.try_into().ok())
                })
            };
        }
        match ty {
            ColumnType::Int8 => narrow!(Int8Type, values::int),
            ColumnType::Int16 => narrow!(Int16Type, values::int),
            ColumnType::Int32 => narrow!(Int32Type, values::int),
            ColumnType::Int64 => self.primitive::<Int64Type>(column, flaws, values::int),
            ColumnType::Uint8 => narrow!(UInt8Type, values::uint),
            ColumnType::Uint16 => narrow!(UInt16Type, values::uint),
            ColumnType::Uint32 => narrow!(UInt32Type, values::uint),
            ColumnType::Uint64 => self.primitive::<UInt64Type>(column, flaws, values::uint),
            ColumnType::Float32 => self.primitive::<Float32Type>(column, flaws, values::float32),
            ColumnType::Float64 => self.primitive::<Float64Type>(column, flaws, values::float64),
            ColumnType::Date => self.primitive::<Date32Type>(column, flaws, values::date),
            ColumnType::Decimal { precision, scale } => {
                let fixed = Fixed::new(precision, scale);
                let (values, nulls) = self.values(column, flaws, |text, start, end| fixed.parse(text, start, end));
                let array = Decimal128Array::new(ScalarBuffer::from(values), nulls);
                Arc::new(array.with_data_type(DataType::Decimal128(precision, scale)))
            }
            ColumnType::Timestamp => {
                let (values, nulls) = self.values(column, flaws, values::timestamp);
                Arc::new(TimestampMicrosecondArray::new(ScalarBuffer::from(values), nulls))
            }
            ColumnType::Bool => {
                let (values, nulls) = self.values(column, flaws, |text, start, end| {
                    values::boolean(text.slice(start, end))
                });
                Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
            }
            ColumnType::String => self.strings(column, block, utf8, flaws),
        }
    }

    fn primitive<T: ArrowPrimitiveType>(
        &self,
        column: usize,
        flaws: &mut Vec<Flaw>,
        parse: impl Fn(Text<'_>, usize, usize) -> Option<T::Native>,
    ) -> ArrayRef {
        let (values, nulls) = self.values(column, flaws, parse);
        Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls))
    }

    #[inline(always)]
    fn values<V: Copy + Default>(
        &self,
        column: usize,
        flaws: &mut Vec<Flaw>,
        parse: impl Fn(Text<'_>, usize, usize) -> Option<V>,
    ) -> (Vec<V>, Option<NullBuffer>) {
        let mut values = vec![V::default(); self.len()];
        let mut nulls = Validity::new(self.len());
        let last = column + 1 == self.columns;
        for (row, (&first, value)) in self.firsts.iter().zip(&mut values).enumerate() {
            let (start, end) = self.field(first, column, last);
            if self.nulls.contain(self.text, start, end) {
                nulls.clear(row);
                continue;
            }
            let parsed = match parse(self.text, start, end) {
                // Quotes around a value that has no need of them.
                None if self.quoted(start, end) && end - start > 2 && Some(self.text.byte(end - 1)) == self.quote => {
                    parse(self.text, start + 1, end - 1)
                }
                parsed => parsed,
            };
            match parsed {
                Some(parsed) => *value = parsed,
                None => flaws.push(Flaw {
                    row: row as u32,
                    column: column as u32,
                    start: start as u32,
                    end: end as u32,
                }),
            }
        }
        (values, nulls.finish())
    }

    /// Text stays where it was read; only fields with doubled quotes are copied to a second buffer.
    fn strings(&self, column: usize, block: &Buffer, utf8: bool, flaws: &mut Vec<Flaw>) -> ArrayRef {
        let mut views = vec![0u128; self.len()];
        let mut nulls = Validity::new(self.len());
        let mut unescaped = Vec::new();
        let last = column + 1 == self.columns;
        for (row, (&first, view)) in self.firsts.iter().zip(&mut views).enumerate() {
            let (mut start, mut end) = self.field(first, column, last);
            if self.nulls.contain(self.text, start, end) {
                nulls.clear(row);
                continue;
            }
            let flaw = Flaw {
                row: row as u32,
                column: column as u32,
                start: start as u32,
                end: end as u32,
            };
            if self.quoted(start, end) {
                let quote = self.text.byte(start);
                if end - start < 2 || self.text.byte(end - 1) != quote {
                    flaws.push(flaw);
                    continue;
                }
                (start, end) = (start + 1, end - 1);
                if memchr::memchr(quote, self.text.slice(start, end)).is_some() {
                    match self.unescape(quote, start, end, utf8, &mut unescaped) {
                        Some(made) => *view = made,
                        None => flaws.push(flaw),
                    }
                    continue;
                }
            }
            if !utf8 && std::str::from_utf8(self.text.slice(start, end)).is_err() {
                flaws.push(flaw);
                continue;
            }
            *view = self.view(start, end);
        }
        let mut buffers = vec![block.clone()];
        if !unescaped.is_empty() {
            buffers.push(Buffer::from_vec(unescaped));
        }
        // SAFETY: views are made by `view` and `unescape` for text within these buffers that is
        // UTF-8: all of the block is (`utf8`), or the field was checked.
        let array = unsafe { StringViewArray::new_unchecked(ScalarBuffer::from(views), buffers, nulls.finish()) };
        Arc::new(array)
    }

    /// The view of text within the block: its length, then up to twelve bytes of text, or the first
    /// four of them, the buffer (0) and the offset.
    #[inline(always)]
    fn view(&self, start: usize, end: usize) -> u128 {
        const KEEP: [u128; 13] = {
            let mut keep = [0; 13];
            let mut len = 1;
            while len < 13 {
                keep[len] = (1 << (8 * len)) - 1;
                len += 1;
            }
            keep
        };
        let len = end - start;
        if len <= 12 {
            (self.text.wide(start) & KEEP[len]) << 32 | len as u128
        } else {
            len as u128 | u128::from(self.text.word(start) as u32) << 32 | (start as u128) << 96
        }
    }

    /// Copies a quoted text with each doubled quote made single; `None` where a quote stands alone
    /// or the text is not UTF-8.
    #[cold]
    fn unescape(&self, quote: u8, start: usize, end: usize, utf8: bool, into: &mut Vec<u8>) -> Option<u128> {
        let from = into.len();
        let mut rest = self.text.slice(start, end);
        while let Some(at) = memchr::memchr(quote, rest) {
            if rest.get(at + 1) != Some(&quote) {
                into.truncate(from);
                return None;
            }
            into.extend_from_slice(&rest[..=at]);
            rest = &rest[at + 2..];
        }
        into.extend_from_slice(rest);
        let made = &into[from..];
        if !utf8 && std::str::from_utf8(made).is_err() {
            into.truncate(from);
            return None;
        }
        let view = arrow::array::builder::make_view(made, 1, from as u32);
        if made.len() <= 12 {
            into.truncate(from);
        }
        Some(view)
    }
}

/// A validity bitmap that costs nothing until the first NULL.
struct Validity {
    len: usize,
    bits: Option<MutableBuffer>,
}

impl Validity {
    fn new(len: usize) -> Self {
        Self { len, bits: None }
    }

    #[inline]
    fn clear(&mut self, row: usize) {
        let len = self.len;
        let bits = self
            .bits
            .get_or_insert_with(|| MutableBuffer::new(len.div_ceil(8)).with_bitset(len.div_ceil(8), true));
        bits.as_slice_mut()[row / 8] &= !(1 << (row % 8));
    }

    fn finish(self) -> Option<NullBuffer> {
        let bits = self.bits?;
        Some(NullBuffer::new(BooleanBuffer::new(bits.into(), 0, self.len)))
    }
}

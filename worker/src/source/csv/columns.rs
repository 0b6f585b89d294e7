//! One typed loop for each column: fields of a block to an Arrow array. A field that is no value of
//! its column's type flags its row and the loop goes on; the reader takes such rows out afterwards.

use std::{marker::PhantomData, sync::Arc};

use arrow::{
    array::{
        ArrayRef, ArrowPrimitiveType, BooleanArray, Decimal128Array, PrimitiveArray, StringViewArray,
        TimestampMicrosecondArray,
        types::{
            Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
            UInt32Type, UInt64Type,
        },
    },
    buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, ScalarBuffer},
    datatypes::{DataType, TimeUnit},
};
use gapless_common::{error::TaskError, job::ColumnType};

use super::{
    block::Text,
    exact::unescape,
    scan::Signs,
    values::{Boolean, Date, Fixed, Float32, Float64, Int, Parse, Timestamp, Uint},
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
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond, _) => {
            ColumnType::Timestamp
        }
        DataType::Dictionary(_, value) => column_type(value)?,
        _ => return None,
    })
}

/// What a field of the type looks like, for people.
pub(in crate::source) fn expectation(ty: ColumnType) -> String {
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
        ColumnType::Float32 => "a number that a float32 holds".to_string(),
        ColumnType::Float64 => "a number that a float64 holds".to_string(),
        ColumnType::Decimal { precision, scale } => {
            let whole = i16::from(precision) - i16::from(scale);
            format!("a decimal({precision},{scale}): at most {whole} digits before the point and {scale} behind it")
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

    /// One byte that stands for NULL.
    pub fn sign(sign: u8) -> Self {
        Self {
            texts: vec![vec![sign]],
            lengths: 1 << 1,
        }
    }

    fn contain(&self, text: Text<'_>, start: usize, end: usize) -> bool {
        self.lengths >> (end - start).min(63) & 1 != 0 && self.texts.iter().any(|text_| text_ == text.slice(start, end))
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
    pub signs: Signs,
    /// Whether quotes may stand within quoted fields.
    pub doubled: bool,
    /// Whether there are escapes.
    pub escaped: bool,
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

fn flaw(row: usize, column: usize, start: usize, end: usize) -> Flaw {
    Flaw {
        row: row as u32,
        column: column as u32,
        start: start as u32,
        end: end as u32,
    }
}

impl<'a> Rows<'a> {
    pub fn len(&self) -> usize {
        self.firsts.len()
    }

    #[inline(always)]
    fn quoted(&self, start: usize, end: usize) -> bool {
        start < end && Some(self.text.byte(start)) == self.signs.quote
    }

    /// Decodes one column of all rows; appends what does not parse to `flaws` (in row order) and
    /// leaves a placeholder in the array. `block` is the buffer under `text`.
    pub fn decode(&self, column: usize, ty: ColumnType, block: &Buffer, utf8: bool, flaws: &mut Vec<Flaw>) -> ArrayRef {
        match ty {
            ColumnType::Int8 => self.primitive::<Int8Type, _>(column, flaws, &Int(PhantomData)),
            ColumnType::Int16 => self.primitive::<Int16Type, _>(column, flaws, &Int(PhantomData)),
            ColumnType::Int32 => self.primitive::<Int32Type, _>(column, flaws, &Int(PhantomData)),
            ColumnType::Int64 => self.primitive::<Int64Type, _>(column, flaws, &Int(PhantomData)),
            ColumnType::Uint8 => self.primitive::<UInt8Type, _>(column, flaws, &Uint(PhantomData)),
            ColumnType::Uint16 => self.primitive::<UInt16Type, _>(column, flaws, &Uint(PhantomData)),
            ColumnType::Uint32 => self.primitive::<UInt32Type, _>(column, flaws, &Uint(PhantomData)),
            ColumnType::Uint64 => self.primitive::<UInt64Type, _>(column, flaws, &Uint(PhantomData)),
            ColumnType::Float32 => self.primitive::<Float32Type, _>(column, flaws, &Float32),
            ColumnType::Float64 => self.primitive::<Float64Type, _>(column, flaws, &Float64),
            ColumnType::Date => self.primitive::<Date32Type, _>(column, flaws, &Date),
            ColumnType::Decimal { precision, scale } => {
                let (values, nulls) = self.values(column, flaws, &Fixed::new(precision, scale));
                let array = Decimal128Array::new(ScalarBuffer::from(values), nulls);
                Arc::new(array.with_data_type(DataType::Decimal128(precision, scale)))
            }
            ColumnType::Timestamp => {
                let (values, nulls) = self.values(column, flaws, &Timestamp);
                Arc::new(TimestampMicrosecondArray::new(ScalarBuffer::from(values), nulls))
            }
            ColumnType::Bool => {
                let (values, nulls) = self.values(column, flaws, &Boolean);
                Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
            }
            ColumnType::String => self.strings(column, block, utf8, flaws),
        }
    }

    fn primitive<T: ArrowPrimitiveType, P: Parse<Value = T::Native>>(
        &self,
        column: usize,
        flaws: &mut Vec<Flaw>,
        parser: &P,
    ) -> ArrayRef {
        let (values, nulls) = self.values(column, flaws, parser);
        Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls))
    }

    fn values<P: Parse>(
        &self,
        column: usize,
        flaws: &mut Vec<Flaw>,
        parser: &P,
    ) -> (Vec<P::Value>, Option<NullBuffer>) {
        let mut nulls = Validity::new(self.len());
        let odd = |row, start, end| {
            if self.nulls.contain(self.text, start, end) {
                nulls.clear(row);
                return P::Value::default();
            }
            self.unquoted(parser, start, end).unwrap_or_else(|| {
                flaws.push(flaw(row, column, start, end));
                P::Value::default()
            })
        };
        let values = match column + 1 == self.columns {
            false => self.each_field::<_, false>(column, parser, odd),
            true => self.each_field::<_, true>(column, parser, odd),
        };
        (values, nulls.finish())
    }

    /// The values of a column: of the parser where it has one and the field is no NULL by its length,
    /// else of `odd`, which is told the row too. A loop by itself, so that what it needs stays in
    /// registers.
    #[inline(always)]
    fn each_field<P: Parse, const LAST: bool>(
        &self,
        column: usize,
        parser: &P,
        mut odd: impl FnMut(usize, usize, usize) -> P::Value,
    ) -> Vec<P::Value> {
        let mut values: Vec<P::Value> = Vec::with_capacity(self.len());
        let out = values.as_mut_ptr();
        let (ends, text, null_lengths) = (self.ends.as_ptr(), self.text, self.nulls.lengths);
        let further = self.signs.delimiter.further();
        for (row, &first) in self.firsts.iter().enumerate() {
            let at = first as usize + column;
            debug_assert!(at >= 1 && at < self.ends.len());
            // SAFETY: see `firsts`.
            let (before, end) = unsafe { (*ends.add(at - 1), *ends.add(at)) };
            let (start, mut end) = (before as usize + 1, end as usize);
            // The carriage return of a CRLF is no part of the last field.
            if LAST && end > start && text.byte(end - 1) == b'\r' {
                end -= 1;
            }
            if !LAST {
                end -= further;
            }
            let may_be_null = null_lengths >> (end - start).min(63) & 1 != 0;
            let usual = if may_be_null {
                None
            } else {
                parser.parse(text, start, end)
            };
            let value = match usual {
                Some(value) => value,
                None => odd(row, start, end),
            };
            // SAFETY: there is room for one value for each row.
            unsafe { out.add(row).write(value) };
        }
        // SAFETY: each row's value was written.
        unsafe { values.set_len(self.len()) };
        values
    }

    /// A field that was not taken as it stands, for what it is or because of its length.
    #[cold]
    #[inline(never)]
    fn unquoted<P: Parse>(&self, parser: &P, start: usize, end: usize) -> Option<P::Value> {
        match self.quoted(start, end) && self.closed(start, end) && end - start > 2 {
            // Quotes around a value that has no need of them.
            true => parser.parse(self.text, start + 1, end - 1),
            false => parser.parse(self.text, start, end),
        }
    }

    /// Text stays where it was read; only fields with doubled quotes are copied to a second buffer.
    fn strings(&self, column: usize, block: &Buffer, utf8: bool, flaws: &mut Vec<Flaw>) -> ArrayRef {
        let mut nulls = Validity::new(self.len());
        let mut copies = Vec::new();
        let parser = Views {
            utf8: utf8 && !self.escaped,
            quoting: self.signs.quote.is_some(),
            quote: self.signs.quote.unwrap_or_default(),
            doubled: self.doubled,
        };
        let odd = |row, start, end| {
            if self.nulls.contain(self.text, start, end) {
                nulls.clear(row);
                return 0;
            }
            self.careful_view(start, end, &mut copies).unwrap_or_else(|| {
                flaws.push(flaw(row, column, start, end));
                0
            })
        };
        let views = match column + 1 == self.columns {
            false => self.each_field::<_, false>(column, &parser, odd),
            true => self.each_field::<_, true>(column, &parser, odd),
        };
        let mut buffers = vec![block.clone()];
        if !copies.is_empty() {
            buffers.push(Buffer::from_vec(copies));
        }
        // SAFETY: views are made by `view` and `careful_view` for text within these buffers that
        // is UTF-8: all of the block is (`utf8`), or the field was checked.
        let array = unsafe { StringViewArray::new_unchecked(ScalarBuffer::from(views), buffers, nulls.finish()) };
        Arc::new(array)
    }

    /// Whether a quoted field ends with a quote too.
    #[inline(always)]
    fn closed(&self, start: usize, end: usize) -> bool {
        end - start >= 2 && Some(self.text.byte(end - 1)) == self.signs.quote
    }

    /// The view of a field that may not be UTF-8, or may hold doubled quotes or escapes, which are taken
    /// out in a copy. `None` where it is no text.
    #[inline(never)]
    fn careful_view(&self, start: usize, end: usize, copies: &mut Vec<u8>) -> Option<u128> {
        let quoted = self.quoted(start, end);
        if quoted && !self.closed(start, end) {
            return None;
        }
        let (inner, inner_end) = if quoted { (start + 1, end - 1) } else { (start, end) };
        let text = self.text.slice(inner, inner_end);
        std::str::from_utf8(text).ok()?;
        let holds = |sign: Option<u8>| sign.is_some_and(|sign| memchr::memchr(sign, text).is_some());
        if !(quoted && holds(self.signs.quote) || holds(self.signs.escape)) {
            return Some(view(self.text, inner, inner_end));
        }
        let from = copies.len();
        if !unescape(self.text.slice(start, end), self.signs, copies) {
            copies.truncate(from);
            return None;
        }
        let made = &copies[from..];
        let view = arrow::array::builder::make_view(made, 1, from as u32);
        if made.len() <= 12 {
            copies.truncate(from);
        }
        Some(view)
    }
}

/// Text that can stay where it is: the common case of a text column.
struct Views {
    /// Whether all of the block is known to be UTF-8.
    utf8: bool,
    quoting: bool,
    quote: u8,
    doubled: bool,
}

impl Parse for Views {
    type Value = u128;

    #[inline(always)]
    fn parse(&self, text: Text<'_>, start: usize, end: usize) -> Option<u128> {
        if !self.utf8 {
            return None;
        }
        if !self.quoting || start == end || text.byte(start) != self.quote {
            return Some(view(text, start, end));
        }
        let plain = !self.doubled && end - start >= 2 && text.byte(end - 1) == self.quote;
        plain.then(|| view(text, start + 1, end - 1))
    }
}

/// The view of text within the block: its length, then up to twelve bytes of text, or the first
/// four of them, the buffer (0) and the offset.
#[inline(always)]
pub(in crate::source) fn view(text: Text<'_>, start: usize, end: usize) -> u128 {
    const KEEP: [u128; 14] = {
        let mut keep = [0; 14];
        let mut len = 1;
        while len < 13 {
            keep[len] = (1 << (8 * len)) - 1;
            len += 1;
        }
        keep[13] = 0xFFFF_FFFF;
        keep
    };
    let len = end - start;
    let bytes = text.wide(start) & KEEP[len.min(13)];
    // Without a branch: lengths around twelve are mixed in most columns of words.
    let offset = if len > 12 { start as u64 } else { 0 };
    bytes << 32 | len as u128 | u128::from(offset) << 96
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

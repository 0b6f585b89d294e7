//! Fields of lines to typed columns.

use std::{marker::PhantomData, sync::Arc};

use arrow::{
    array::{
        ArrayRef, ArrowPrimitiveType, BooleanArray, Decimal128Array, NullBufferBuilder, PrimitiveArray,
        StringViewArray, TimestampMicrosecondArray,
        types::{
            Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
            UInt32Type, UInt64Type,
        },
    },
    buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer},
    datatypes::DataType,
};
use gapless_common::{
    exact::Exact,
    job::{Align, ColumnType, LayoutField, LineType, RecordLayout},
};

use super::shape::char_place;
use crate::source::csv::{
    block::{PAD, Text},
    columns::view,
    values::{Boolean, Date, Fixed, Float32, Float64, Int, Parse, Timestamp, Uint},
};

/// A stretch of a line or block: from, to.
pub(super) type Span = (u32, u32);

/// The place of a field that its record lacks, and of one that is blank.
pub(super) const NULL: Span = (u32::MAX, u32::MAX);

/// Where the fields of a line stand within it, padding included.
///
/// Errors: what is wrong with the line as a whole.
pub(super) fn spans_of(layout: &RecordLayout, line_type: &LineType, line: &[u8]) -> Result<Vec<Span>, String> {
    let mut spans = Vec::with_capacity(line_type.fields.len());
    append_spans(layout, line_type, line_type.width(), line, 0, &mut spans)?;
    Ok(spans)
}

/// As [`spans_of`], for a line of `width` characters that stands at `base` of its block.
pub(super) fn append_spans(
    layout: &RecordLayout,
    line_type: &LineType,
    width: u32,
    line: &[u8],
    base: u32,
    spans: &mut Vec<Span>,
) -> Result<(), String> {
    let before = spans.len();
    let Some(delimiter) = layout.delimiter else {
        return append_placed(line_type, width, line, base, spans);
    };
    let mut start = 0;
    for end in memchr::memchr_iter(delimiter, line).chain([line.len()]) {
        spans.push((base + start as u32, base + end as u32));
        start = end + 1;
    }
    if line_type.tag.is_some() {
        spans.remove(before);
    }
    let (found, wanted) = (spans.len() - before, line_type.fields.len());
    if found != wanted {
        spans.truncate(before);
        return Err(format!(
            "a line of type {} has {wanted} fields, this one has {found}",
            line_type.name
        ));
    }
    Ok(())
}

fn append_placed(
    line_type: &LineType,
    width: u32,
    line: &[u8],
    base: u32,
    spans: &mut Vec<Span>,
) -> Result<(), String> {
    let ascii = line.is_ascii();
    let length = match ascii {
        true => line.len(),
        false => line.iter().filter(|byte| *byte & 0xC0 != 0x80).count(),
    };
    if length != width as usize {
        return Err(format!(
            "a line of type {} has {width} characters, this one has {length}",
            line_type.name
        ));
    }
    let place = |at: u32| match ascii {
        true => at,
        false => char_place(line, at).unwrap_or(line.len()) as u32,
    };
    let fields = line_type
        .fields
        .iter()
        .map(|field| (base + place(field.at), base + place(field.at + field.width)));
    spans.extend(fields);
    Ok(())
}

/// A field without its padding; empty for one that is blank.
pub(super) fn without_padding<'a>(field: &'a [u8], own: &LayoutField) -> &'a [u8] {
    let (start, end) = trimmed(field, own).unwrap_or((0, 0));
    &field[start..end]
}

/// Whether a text that was written into a field of fixed width is read back as it was. An empty one is blank, as NULL is,
/// where blanks fill the field.
pub(crate) fn reads_back(text: &[u8], field: &[u8], own: &LayoutField) -> bool {
    if text.is_empty() || (own.pad == b'0' && own.ty.is_number() && own.align == Align::Right) {
        return true;
    }
    trimmed(field, own).is_some_and(|(from, to)| &field[from..to] == text)
}

/// The stretch of a field that holds its value; `None` where it is blank.
fn trimmed(field: &[u8], own: &LayoutField) -> Option<(usize, usize)> {
    let len = field.len();
    // Delimited fields have no padding.
    if own.width == 0 {
        return (len > 0).then_some((0, len));
    }
    if field.iter().all(|&byte| byte == b' ') {
        return None;
    }
    // Zeros before a number are digits.
    if own.pad == b'0' && own.ty.is_number() {
        return Some((0, len));
    }
    Some(match own.align {
        Align::Left => (0, len - field.iter().rev().take_while(|&&byte| byte == own.pad).count()),
        Align::Right => (field.iter().take_while(|&&byte| byte == own.pad).count(), len),
    })
}

/// Where the value of a field stands, without its padding; [`NULL`] where it is blank.
pub(super) fn value_of(text: Text<'_>, span: Span, own: &LayoutField) -> Span {
    if span == NULL {
        return NULL;
    }
    let (start, end) = span;
    trimmed(text.slice(start as usize, end as usize), own)
        .map_or(NULL, |(from, to)| (start + from as u32, start + to as u32))
}

/// The exact number in a field; `None` where it holds none.
pub(super) fn exact(field: &[u8], own: &LayoutField) -> Option<Exact> {
    let value = without_padding(field, own);
    let mut padded = vec![0; PAD + value.len() + PAD];
    padded[PAD..PAD + value.len()].copy_from_slice(value);
    let units = match value.is_empty() {
        true => return None,
        false => units(Text::new(&padded), (PAD as u32, (PAD + value.len()) as u32), own)?,
    };
    Some(Exact {
        units,
        scale: scale(own.ty),
    })
}

/// Digits behind the point of an exact number.
pub(super) fn scale(ty: ColumnType) -> u8 {
    match ty {
        ColumnType::Decimal { scale, .. } => scale.unsigned_abs(),
        _ => 0,
    }
}

/// The value of an exact number times ten to its scale.
pub(super) fn units(text: Text<'_>, (start, end): Span, own: &LayoutField) -> Option<i128> {
    let parser = match own.ty {
        ColumnType::Decimal { precision, scale } => Fixed::new(precision, if own.implied_point { 0 } else { scale }),
        _ => Fixed::new(38, 0),
    };
    parser.parse(text, start as usize, end as usize)
}

/// The cells of one column in a block.
pub(super) struct Cells<'a> {
    pub block: &'a Buffer,
    /// The same as text.
    pub text: Text<'a>,
    /// For each cell the stretch that holds its value, or [`NULL`].
    pub spans: Vec<Span>,
    /// Cells that hold no value of the type, ascending.
    pub flaws: Vec<u32>,
}

impl<'a> Cells<'a> {
    pub fn new(block: &'a Buffer, count: usize) -> Cells<'a> {
        Cells {
            block,
            text: Text::new(block),
            spans: Vec::with_capacity(count),
            flaws: Vec::new(),
        }
    }

    /// Adds a cell with its padding.
    pub fn push(&mut self, span: Span, own: &LayoutField) {
        self.spans.push(value_of(self.text, span, own));
    }

    /// The typed column; what does not parse is in `flaws` and has a placeholder.
    pub fn decode(&mut self, ty: ColumnType, implied_point: bool) -> ArrayRef {
        match ty {
            ColumnType::Int8 => self.primitive::<Int8Type, _>(&Int(PhantomData)),
            ColumnType::Int16 => self.primitive::<Int16Type, _>(&Int(PhantomData)),
            ColumnType::Int32 => self.primitive::<Int32Type, _>(&Int(PhantomData)),
            ColumnType::Int64 => self.primitive::<Int64Type, _>(&Int(PhantomData)),
            ColumnType::Uint8 => self.primitive::<UInt8Type, _>(&Uint(PhantomData)),
            ColumnType::Uint16 => self.primitive::<UInt16Type, _>(&Uint(PhantomData)),
            ColumnType::Uint32 => self.primitive::<UInt32Type, _>(&Uint(PhantomData)),
            ColumnType::Uint64 => self.primitive::<UInt64Type, _>(&Uint(PhantomData)),
            ColumnType::Float32 => self.primitive::<Float32Type, _>(&Float32),
            ColumnType::Float64 => self.primitive::<Float64Type, _>(&Float64),
            ColumnType::Date => self.primitive::<Date32Type, _>(&Date),
            ColumnType::Decimal { precision, scale } => {
                let (values, nulls) = self.values(&Fixed::new(precision, if implied_point { 0 } else { scale }));
                let array = Decimal128Array::new(ScalarBuffer::from(values), nulls);
                Arc::new(array.with_data_type(DataType::Decimal128(precision, scale)))
            }
            ColumnType::Timestamp => {
                let (values, nulls) = self.values(&Timestamp);
                Arc::new(TimestampMicrosecondArray::new(ScalarBuffer::from(values), nulls))
            }
            ColumnType::Bool => {
                let (values, nulls) = self.values(&Boolean);
                Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
            }
            ColumnType::String => self.strings(),
        }
    }

    fn primitive<T: ArrowPrimitiveType, P: Parse<Value = T::Native>>(&mut self, parser: &P) -> ArrayRef {
        let (values, nulls) = self.values(parser);
        Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls))
    }

    fn values<P: Parse>(&mut self, parser: &P) -> (Vec<P::Value>, Option<NullBuffer>) {
        let mut values = Vec::with_capacity(self.spans.len());
        let mut nulls = NullBufferBuilder::new(self.spans.len());
        for (cell, &(start, end)) in self.spans.iter().enumerate() {
            let is_null = (start, end) == NULL;
            nulls.append(!is_null);
            let parsed = match !is_null && start < end {
                true => parser.parse(self.text, start as usize, end as usize),
                false => None,
            };
            if parsed.is_none() && !is_null {
                self.flaws.push(cell as u32);
            }
            values.push(parsed.unwrap_or_default());
        }
        (values, nulls.finish())
    }

    /// Text stays where it was read. All lines of a block that are decoded are UTF-8.
    fn strings(&self) -> ArrayRef {
        let mut nulls = NullBufferBuilder::new(self.spans.len());
        let views: Vec<u128> = self
            .spans
            .iter()
            .map(|&(start, end)| {
                let is_null = (start, end) == NULL;
                nulls.append(!is_null);
                match is_null {
                    true => 0,
                    false => view(self.text, start as usize, end as usize),
                }
            })
            .collect();
        // SAFETY: views are made for stretches of the block between characters of lines that the
        // reader has checked to be UTF-8.
        let array = unsafe {
            StringViewArray::new_unchecked(ScalarBuffer::from(views), vec![self.block.clone()], nulls.finish())
        };
        Arc::new(array)
    }
}

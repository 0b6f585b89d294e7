//! The way back: segments of many files, restored into one Arrow batch.

use std::{io::Cursor, sync::Arc};

use arrow::{
    array::{
        ArrayData, ArrayRef, BinaryViewBuilder, BooleanBufferBuilder, RecordBatch, RecordBatchOptions,
        StringViewBuilder, make_array,
    },
    buffer::Buffer,
    compute::concat,
    datatypes::{DataType, SchemaRef},
    ipc::reader::StreamReader,
};

use super::{
    carrier::{Carrier, Native, with_native},
    layout::{ColumnLayout, Width},
};

/// Gathers the rows of segments until they are taken as a batch.
pub(super) struct Restorer {
    schema: SchemaRef,
    columns: Vec<Column>,
    others: Vec<usize>,
    rows: usize,
    bytes: usize,
}

/// One column of the batch in the making.
struct Column {
    carrier: Carrier,
    cells: Cells,
    /// `None` until there is a NULL.
    validity: Option<BooleanBufferBuilder>,
    /// Rows of the last batch: the next one will have about as many.
    expected: usize,
}

enum Cells {
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    I128(Vec<i128>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    Bool(BooleanBufferBuilder),
    /// Ends of the texts, and the texts.
    Bytes(Vec<i64>, Vec<u8>),
    Other(Vec<ArrayRef>),
}

/// The vector of cells of a native type.
trait Of<N> {
    fn of(&mut self) -> &mut Vec<N>;
}

macro_rules! of {
    ($($native:ty => $variant:ident),*) => {$(
        impl Of<$native> for Cells {
            fn of(&mut self) -> &mut Vec<$native> {
                match self {
                    Cells::$variant(cells) => cells,
                    _ => unreachable!("a column's cells are of its carrier"),
                }
            }
        }
    )*};
}
of!(i8 => I8, i16 => I16, i32 => I32, i64 => I64, i128 => I128, u8 => U8, u16 => U16, u32 => U32, u64 => U64);

impl Cells {
    /// No cells yet, with room for some.
    fn new(carrier: Carrier, rows: usize) -> Cells {
        match carrier {
            Carrier::I8 => Cells::I8(Vec::with_capacity(rows)),
            Carrier::I16 => Cells::I16(Vec::with_capacity(rows)),
            Carrier::I32 => Cells::I32(Vec::with_capacity(rows)),
            Carrier::I64 => Cells::I64(Vec::with_capacity(rows)),
            Carrier::I128 => Cells::I128(Vec::with_capacity(rows)),
            Carrier::U8 => Cells::U8(Vec::with_capacity(rows)),
            Carrier::U16 => Cells::U16(Vec::with_capacity(rows)),
            Carrier::U32 => Cells::U32(Vec::with_capacity(rows)),
            Carrier::U64 => Cells::U64(Vec::with_capacity(rows)),
            Carrier::Bool => Cells::Bool(BooleanBufferBuilder::new(rows)),
            Carrier::Bytes => Cells::Bytes(Vec::with_capacity(rows), Vec::new()),
            Carrier::Other => Cells::Other(Vec::new()),
        }
    }
}

impl Restorer {
    pub(super) fn new(schema: SchemaRef) -> Self {
        let carriers: Vec<Carrier> = schema
            .fields()
            .iter()
            .map(|field| Carrier::of(field.data_type()))
            .collect();
        Self {
            others: (0..carriers.len())
                .filter(|&at| carriers[at] == Carrier::Other)
                .collect(),
            columns: carriers
                .into_iter()
                .map(|carrier| Column {
                    carrier,
                    cells: Cells::new(carrier, 0),
                    validity: None,
                    expected: 0,
                })
                .collect(),
            schema,
            rows: 0,
            bytes: 0,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// About how many bytes the batch takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the rows of one segment whose bytes have been verified. The words of an error say what
    /// is wrong with it; then the batch is not to be used.
    pub(super) fn add(&mut self, columns: &[ColumnLayout], rows: usize, segment: &[u8]) -> Result<(), String> {
        let mut rest = segment;
        for (column, layout) in self.columns.iter_mut().zip(columns) {
            column.add(layout, self.rows, rows, &mut rest)?;
        }
        self.bytes += segment.len() + rows * self.columns.len() * size_of::<u64>();
        self.rows += rows;
        if self.others.is_empty() {
            return if rest.is_empty() {
                Ok(())
            } else {
                Err(format!("{} bytes are left over", rest.len()))
            };
        }
        let reader = StreamReader::try_new(Cursor::new(rest), None).map_err(|error| error.to_string())?;
        for batch in reader {
            let batch = batch.map_err(|error| error.to_string())?;
            for (&index, array) in self.others.iter().zip(batch.columns()) {
                if let Cells::Other(parts) = &mut self.columns[index].cells {
                    parts.push(array.clone());
                }
            }
        }
        Ok(())
    }

    /// The batch of all rows added since the last one.
    pub(super) fn take(&mut self) -> Result<RecordBatch, String> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let arrays = self
            .columns
            .iter_mut()
            .zip(self.schema.fields())
            .map(|(column, field)| column.take(field.data_type(), rows))
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).map_err(|error| error.to_string())
    }
}

const CUT_SHORT: &str = "a segment is cut short";

impl Column {
    /// Adds `rows` rows to the `before` that are there, from the front of `segment`.
    fn add(&mut self, layout: &ColumnLayout, before: usize, rows: usize, segment: &mut &[u8]) -> Result<(), String> {
        let mut take = |bytes: usize| {
            let (taken, rest) = segment.split_at_checked(bytes).ok_or(CUT_SHORT)?;
            *segment = rest;
            Ok::<&[u8], String>(taken)
        };
        if layout.nullable {
            let bits = take(rows.div_ceil(8))?;
            let validity = self.validity.get_or_insert_with(|| all_valid(before));
            validity.append_packed_range(0..rows, bits);
        } else if let Some(validity) = &mut self.validity {
            validity.append_n(rows, true);
        }
        let width = layout.width as usize;
        with_native!(self.carrier, N => {
            restore::<N>(Of::<N>::of(&mut self.cells), layout, rows, take(width * rows)?);
        }, Bool => {
            let Cells::Bool(bits) = &mut self.cells else { unreachable!("a column's cells are of its carrier") };
            let mut bytes = Vec::with_capacity(rows);
            restore::<u8>(&mut bytes, layout, rows, take(width * rows)?);
            bytes.into_iter().for_each(|byte| bits.append(byte != 0));
        }, Bytes => {
            let Cells::Bytes(ends, texts) = &mut self.cells else { unreachable!("a column's cells are of its carrier") };
            let mut end = texts.len() as i64;
            let mut lengths = Vec::with_capacity(rows);
            restore::<u32>(&mut lengths, layout, rows, take(width * rows)?);
            ends.extend(lengths.into_iter().map(|length| {
                end += i64::from(length);
                end
            }));
            texts.extend_from_slice(take(end as usize - texts.len())?);
        }, Other => {});
        Ok(())
    }

    fn take(&mut self, ty: &DataType, rows: usize) -> Result<ArrayRef, String> {
        let cells = std::mem::replace(&mut self.cells, Cells::new(self.carrier, self.expected.max(rows)));
        self.expected = rows;
        let validity = self.validity.take().map(|mut bits| bits.finish());
        let nulls = validity
            .map(arrow::buffer::NullBuffer::new)
            .filter(|nulls| nulls.null_count() > 0);
        let buffers = match cells {
            Cells::I8(cells) => vec![Buffer::from_vec(cells)],
            Cells::I16(cells) => vec![Buffer::from_vec(cells)],
            Cells::I32(cells) => vec![Buffer::from_vec(cells)],
            Cells::I64(cells) => vec![Buffer::from_vec(cells)],
            Cells::I128(cells) => vec![Buffer::from_vec(cells)],
            Cells::U8(cells) => vec![Buffer::from_vec(cells)],
            Cells::U16(cells) => vec![Buffer::from_vec(cells)],
            Cells::U32(cells) => vec![Buffer::from_vec(cells)],
            Cells::U64(cells) => vec![Buffer::from_vec(cells)],
            Cells::Bool(mut bits) => vec![bits.finish().into_inner()],
            Cells::Bytes(ends, texts) => match ty {
                DataType::Utf8View | DataType::BinaryView => return views(ty, &ends, texts, nulls.as_ref()),
                DataType::LargeUtf8 | DataType::LargeBinary => {
                    let offsets: Vec<i64> = std::iter::once(0).chain(ends).collect();
                    vec![Buffer::from_vec(offsets), Buffer::from_vec(texts)]
                }
                _ => {
                    if i32::try_from(texts.len()).is_err() {
                        return Err(format!("{} bytes of text do not fit one batch of {ty}", texts.len()));
                    }
                    let offsets: Vec<i32> = std::iter::once(0)
                        .chain(ends.into_iter().map(|end| end as i32))
                        .collect();
                    vec![Buffer::from_vec(offsets), Buffer::from_vec(texts)]
                }
            },
            Cells::Other(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| part.as_ref()).collect();
                return match parts.as_slice() {
                    [] => Ok(arrow::array::new_empty_array(ty)),
                    parts => concat(parts).map_err(|error| error.to_string()),
                };
            }
        };
        let data = ArrayData::builder(ty.clone()).len(rows).buffers(buffers).nulls(nulls);
        data.build().map(make_array).map_err(|error| error.to_string())
    }
}

fn all_valid(rows: usize) -> BooleanBufferBuilder {
    let mut bits = BooleanBufferBuilder::new(rows);
    bits.append_n(rows, true);
    bits
}

fn restore<N: Native>(out: &mut Vec<N>, layout: &ColumnLayout, rows: usize, stored: &[u8]) {
    let minimum = N::narrow(layout.minimum);
    let at = |distance: u64| N::at_distance(minimum, distance);
    match layout.width {
        Width::W0 => out.extend(std::iter::repeat_n(minimum, rows)),
        Width::W1 => out.extend(stored.iter().map(|&cell| at(u64::from(cell)))),
        Width::W2 => out.extend(
            stored
                .as_chunks()
                .0
                .iter()
                .map(|&cell| at(u64::from(u16::from_le_bytes(cell)))),
        ),
        Width::W4 => out.extend(
            stored
                .as_chunks()
                .0
                .iter()
                .map(|&cell| at(u64::from(u32::from_le_bytes(cell)))),
        ),
        Width::W8 => out.extend(stored.as_chunks().0.iter().map(|&cell| at(u64::from_le_bytes(cell)))),
        Width::W16 => out.extend(
            stored
                .as_chunks()
                .0
                .iter()
                .map(|&cell| N::narrow(i128::from_le_bytes(cell))),
        ),
    }
}

/// Texts as views into one buffer.
fn views(
    ty: &DataType,
    ends: &[i64],
    texts: Vec<u8>,
    nulls: Option<&arrow::buffer::NullBuffer>,
) -> Result<ArrayRef, String> {
    let valid = |row: usize| nulls.is_none_or(|nulls| nulls.is_valid(row));
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let spans = starts
        .zip(ends)
        .map(|(start, &end)| (start as u32, (end - start) as u32))
        .enumerate();
    if u32::try_from(texts.len()).is_err() {
        return Err(format!("{} bytes of text do not fit one batch of {ty}", texts.len()));
    }
    macro_rules! build {
        ($builder:ty) => {{
            let mut builder = <$builder>::with_capacity(ends.len());
            let block = builder.append_block(texts.into());
            for (row, (start, length)) in spans {
                match valid(row) {
                    true => builder
                        .try_append_view(block, start, length)
                        .map_err(|error| error.to_string())?,
                    false => builder.append_null(),
                }
            }
            Ok(Arc::new(builder.finish()))
        }};
    }
    match ty {
        DataType::Utf8View => build!(StringViewBuilder),
        _ => build!(BinaryViewBuilder),
    }
}

//! How a column travels through an exchange file: its *carrier*. Values of all fixed-width types
//! travel as integers (floats by their bits), texts and bytes as lengths and bytes, everything else
//! as Arrow IPC. Pure functions over Arrow arrays.

use arrow::{
    array::{Array, ArrayRef},
    buffer::NullBuffer,
    compute::cast,
    datatypes::{ArrowNativeType, DataType, Field, IntervalUnit, Schema, SchemaRef},
    error::ArrowError,
};

/// What the cells of a column are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    I8,
    I16,
    I32,
    I64,
    I128,
    U8,
    U16,
    U32,
    U64,
    /// 0 and 1.
    Bool,
    /// Lengths and bytes.
    Bytes,
    /// Arrow IPC: lists, structs, and whatever else is rare.
    Other,
}

impl Carrier {
    pub(super) fn of(ty: &DataType) -> Carrier {
        match ty {
            DataType::Int8 => Carrier::I8,
            DataType::Int16 => Carrier::I16,
            DataType::Int32
            | DataType::Date32
            | DataType::Time32(_)
            | DataType::Decimal32(_, _)
            | DataType::Interval(IntervalUnit::YearMonth) => Carrier::I32,
            DataType::Int64
            | DataType::Date64
            | DataType::Time64(_)
            | DataType::Timestamp(_, _)
            | DataType::Duration(_)
            | DataType::Decimal64(_, _) => Carrier::I64,
            DataType::Decimal128(_, _) => Carrier::I128,
            DataType::UInt8 => Carrier::U8,
            DataType::UInt16 | DataType::Float16 => Carrier::U16,
            DataType::UInt32 | DataType::Float32 => Carrier::U32,
            DataType::UInt64 | DataType::Float64 => Carrier::U64,
            DataType::Boolean => Carrier::Bool,
            DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView => Carrier::Bytes,
            _ => Carrier::Other,
        }
    }
}

/// A fixed-width integer that travels as the distance from a chunk's minimum.
pub(super) trait Native: ArrowNativeType + Ord {
    fn widen(self) -> i128;
    /// Low bits of a number that [`Native::widen`] made.
    fn narrow(wide: i128) -> Self;
    /// Low 64 bits of `self - minimum`.
    fn distance(self, minimum: Self) -> u64;
    /// The inverse of [`Native::distance`] for distances below 2^64.
    fn at_distance(minimum: Self, distance: u64) -> Self;
}

macro_rules! native {
    ($($signed:ty as $unsigned:ty),*) => {$(
        impl Native for $signed {
            #[inline]
            fn widen(self) -> i128 {
                self as i128
            }
            #[inline]
            fn narrow(wide: i128) -> Self {
                wide as Self
            }
            #[inline]
            fn distance(self, minimum: Self) -> u64 {
                self.wrapping_sub(minimum) as $unsigned as u64
            }
            #[inline]
            fn at_distance(minimum: Self, distance: u64) -> Self {
                minimum.wrapping_add(distance as Self)
            }
        }
    )*};
}
native!(
    i8 as u8,
    i16 as u16,
    i32 as u32,
    i64 as u64,
    i128 as u128,
    u8 as u8,
    u16 as u16,
    u32 as u32,
    u64 as u64
);

/// Runs a block with `$N` bound to the native type of a fixed-width carrier; `$bool` and `$else`
/// stand for the carriers without one.
macro_rules! with_native {
    ($carrier:expr, $N:ident => $body:expr, Bool => $bool:expr, Bytes => $bytes:expr, Other => $other:expr) => {
        match $carrier {
            $crate::exchange::carrier::Carrier::I8 => {
                type $N = i8;
                $body
            }
            $crate::exchange::carrier::Carrier::I16 => {
                type $N = i16;
                $body
            }
            $crate::exchange::carrier::Carrier::I32 => {
                type $N = i32;
                $body
            }
            $crate::exchange::carrier::Carrier::I64 => {
                type $N = i64;
                $body
            }
            $crate::exchange::carrier::Carrier::I128 => {
                type $N = i128;
                $body
            }
            $crate::exchange::carrier::Carrier::U8 => {
                type $N = u8;
                $body
            }
            $crate::exchange::carrier::Carrier::U16 => {
                type $N = u16;
                $body
            }
            $crate::exchange::carrier::Carrier::U32 => {
                type $N = u32;
                $body
            }
            $crate::exchange::carrier::Carrier::U64 => {
                type $N = u64;
                $body
            }
            $crate::exchange::carrier::Carrier::Bool => $bool,
            $crate::exchange::carrier::Carrier::Bytes => $bytes,
            $crate::exchange::carrier::Carrier::Other => $other,
        }
    };
}
pub(super) use with_native;

/// The cells of a fixed-width array, whatever its logical type, and its NULLs where it has any.
///
/// `N` must be the native type of the array's carrier.
pub(super) fn cells<N: Native>(array: &dyn Array) -> (CellBuffer<N>, Option<NullBuffer>) {
    let data = array.to_data();
    let buffer = data.buffers()[0].clone();
    let cells = CellBuffer {
        buffer,
        offset: data.offset(),
        len: data.len(),
        native: std::marker::PhantomData,
    };
    (cells, nulls_of(array))
}

/// An array's NULLs; none where all its values are valid.
pub(super) fn nulls_of(array: &dyn Array) -> Option<NullBuffer> {
    array.nulls().filter(|nulls| nulls.null_count() > 0).cloned()
}

/// Shared ownership of a stretch of cells.
pub(super) struct CellBuffer<N> {
    buffer: arrow::buffer::Buffer,
    offset: usize,
    len: usize,
    native: std::marker::PhantomData<N>,
}

impl<N: Native> CellBuffer<N> {
    pub(super) fn as_slice(&self) -> &[N] {
        &self.buffer.typed_data::<N>()[self.offset..self.offset + self.len]
    }
}

/// Calls `$f` with a text or bytes array as its concrete type; its items are `AsRef<[u8]>`.
macro_rules! with_bytes {
    ($array:expr, $name:ident => $body:expr) => {{
        use arrow::array::AsArray as _;
        let array: &dyn arrow::array::Array = $array;
        match array.data_type() {
            arrow::datatypes::DataType::Utf8 => {
                let $name = array.as_string::<i32>();
                $body
            }
            arrow::datatypes::DataType::LargeUtf8 => {
                let $name = array.as_string::<i64>();
                $body
            }
            arrow::datatypes::DataType::Utf8View => {
                let $name = array.as_string_view();
                $body
            }
            arrow::datatypes::DataType::Binary => {
                let $name = array.as_binary::<i32>();
                $body
            }
            arrow::datatypes::DataType::LargeBinary => {
                let $name = array.as_binary::<i64>();
                $body
            }
            arrow::datatypes::DataType::BinaryView => {
                let $name = array.as_binary_view();
                $body
            }
            other => unreachable!("{other} does not travel as bytes"),
        }
    }};
}
pub(super) use with_bytes;

/// The bytes of a text or of bytes.
pub(super) fn bytes_of<T: AsRef<[u8]> + ?Sized>(value: &T) -> &[u8] {
    value.as_ref()
}

/// The type in which a column travels: dictionaries and runs travel as their values.
pub(super) fn travelling_type(ty: &DataType) -> &DataType {
    match ty {
        DataType::Dictionary(_, values) => travelling_type(values),
        DataType::RunEndEncoded(_, values) => travelling_type(values.data_type()),
        plain => plain,
    }
}

/// The schema with each column in its travelling type: what comes out of the exchange. Dictionaries
/// do not come back, since the keys of many files together may not fit the key type.
pub(super) fn travelling_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| {
            field
                .as_ref()
                .clone()
                .with_data_type(travelling_type(field.data_type()).clone())
        })
        .collect();
    Schema::new(fields).into()
}

/// The array in its travelling type.
pub(super) fn to_travelling(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let ty = travelling_type(array.data_type());
    if ty == array.data_type() {
        Ok(array.clone())
    } else {
        cast(array, ty)
    }
}

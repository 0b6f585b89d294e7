//! Column types in the words of a plan: Arrow schema to plan columns and back, keys out of arrays.

use arrow::{
    array::{Array, AsArray},
    datatypes::{
        DataType, Date32Type, Decimal32Type, Decimal64Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type,
        Int16Type, Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use gapless_common::{
    key::{Key, KeyType},
    plan::Column,
};

/// A bound need not be a value: a long text is cut, so that a sample stays small.
pub const MAX_KEY_TEXT: usize = gapless_common::order::CUT_TEXT;

/// The columns of a schema as a plan tells them.
pub fn columns_of(schema: &Schema) -> Vec<Column> {
    schema
        .fields()
        .iter()
        .map(|field| Column {
            name: field.name().clone(),
            ty: field.data_type().to_string(),
            nullable: field.is_nullable(),
            key_type: key_type(field.data_type()),
        })
        .collect()
}

/// The schema that [`columns_of`] told of; `None` where a type's name does not read back (nested ones).
pub fn schema_of(columns: &[Column]) -> Option<Schema> {
    let fields: Option<Vec<Field>> = columns
        .iter()
        .map(|column| {
            Some(Field::new(
                &column.name,
                column.ty.parse::<DataType>().ok()?,
                column.nullable,
            ))
        })
        .collect();
    fields.map(Schema::new)
}

/// The key order of a type; `None` where it has none.
pub fn key_type(ty: &DataType) -> Option<KeyType> {
    Some(match ty {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => KeyType::Int,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => KeyType::Int,
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
            KeyType::Decimal { scale: *scale }
        }
        DataType::Float32 | DataType::Float64 => KeyType::Float,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => KeyType::Text,
        DataType::Boolean => KeyType::Bool,
        DataType::Date32 => KeyType::Date,
        // Finer units do not fit a key of microseconds.
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond, _) => KeyType::Timestamp,
        _ => return None,
    })
}

/// What to do where [`key_type`] has none, to go behind the message; empty where there is nothing to do.
pub fn key_remedy(ty: &DataType) -> &'static str {
    match ty {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            " (keys are exact to the microsecond: make it one in SQL, by arrow_cast(…, 'Timestamp(Microsecond, None)'))"
        }
        _ => "",
    }
}

/// The key at `row`; `None` for NULL and for types without a key order.
pub fn key_at(array: &dyn Array, row: usize) -> Option<Key> {
    if array.is_null(row) {
        return None;
    }
    macro_rules! int {
        ($ty:ty) => {
            int!($ty, 1)
        };
        ($ty:ty, $factor:expr) => {
            Key::Int(i128::from(array.as_primitive::<$ty>().value(row)) * $factor)
        };
    }
    Some(match array.data_type() {
        DataType::Int8 => int!(Int8Type),
        DataType::Int16 => int!(Int16Type),
        DataType::Int32 => int!(Int32Type),
        DataType::Int64 => int!(Int64Type),
        DataType::UInt8 => int!(UInt8Type),
        DataType::UInt16 => int!(UInt16Type),
        DataType::UInt32 => int!(UInt32Type),
        DataType::UInt64 => int!(UInt64Type),
        DataType::Decimal32(..) => int!(Decimal32Type),
        DataType::Decimal64(..) => int!(Decimal64Type),
        DataType::Decimal128(..) => int!(Decimal128Type),
        DataType::Date32 => int!(Date32Type),
        DataType::Timestamp(TimeUnit::Second, _) => int!(TimestampSecondType, 1_000_000),
        DataType::Timestamp(TimeUnit::Millisecond, _) => int!(TimestampMillisecondType, 1_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => int!(TimestampMicrosecondType),
        DataType::Boolean => Key::Int(array.as_boolean().value(row).into()),
        DataType::Float32 => Key::Float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => Key::Float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => text(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(array.as_string::<i64>().value(row)),
        DataType::Utf8View => text(array.as_string_view().value(row)),
        _ => return None,
    })
}

fn text(value: &str) -> Key {
    Key::Text(value[..value.floor_char_boundary(MAX_KEY_TEXT)].to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_of_declared_types_read_back() {
        let types = [
            DataType::Int8,
            DataType::UInt64,
            DataType::Float32,
            DataType::Decimal128(12, 2),
            DataType::Utf8View,
            DataType::Boolean,
            DataType::Date32,
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        ];
        let fields: Vec<Field> = types
            .iter()
            .enumerate()
            .map(|(at, ty)| Field::new(format!("c{at}"), ty.clone(), at % 2 == 0))
            .collect();
        let schema = Schema::new(fields);
        assert_eq!(schema_of(&columns_of(&schema)), Some(schema));
    }
}

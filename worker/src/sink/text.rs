//! Values as text: the same in CSV fields and in the names of Hive folders.
//!
//! Integers and decimals exact, floats as the shortest text that reads back the same, dates and
//! timestamps in ISO 8601, bytes in hexadecimal.

use std::fmt::{self, Write as _};

use arrow::{
    array::{Array, ArrayRef, AsArray, LargeStringArray, StringArray, StringViewArray},
    compute::cast,
    datatypes::DataType,
    util::display::{ArrayFormatter, FormatOptions},
};
use gapless_common::error::{ErrorClass, TaskError};

use crate::type_names::type_name;

/// Prepares a column for [`TextColumn`]: takes dictionaries apart.
///
/// Errors: `Config` for types that have no text (lists, structs, maps).
pub(super) fn textual(name: &str, column: &ArrayRef) -> Result<ArrayRef, TaskError> {
    check_type(name, column.data_type())?;
    match column.data_type() {
        DataType::Dictionary(_, values) => {
            cast(column, values).map_err(|error| TaskError::new(ErrorClass::Data, format!("column {name}: {error}")))
        }
        _ => Ok(column.clone()),
    }
}

/// Whether values of a type can be written as text.
pub(super) fn check_type(name: &str, ty: &DataType) -> Result<(), TaskError> {
    let flat = match ty {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    if flat.is_nested() {
        return Err(TaskError::new(
            ErrorClass::Config,
            format!(
                "column {name} is {}, which has no place in a text; use a parquet or ndjson sink, or select its parts",
                type_name(ty)
            ),
        ));
    }
    Ok(())
}

/// One column, ready to be written value by value.
pub(super) enum TextColumn<'a> {
    Utf8(&'a StringArray),
    LargeUtf8(&'a LargeStringArray),
    Utf8View(&'a StringViewArray),
    /// Of the type that has no value, such as `SELECT NULL AS x` makes.
    Null,
    Other(&'a dyn Array, ArrayFormatter<'a>),
}

impl<'a> TextColumn<'a> {
    pub fn new(column: &'a dyn Array) -> Result<Self, TaskError> {
        Ok(match column.data_type() {
            DataType::Utf8 => TextColumn::Utf8(column.as_string()),
            DataType::LargeUtf8 => TextColumn::LargeUtf8(column.as_string()),
            DataType::Utf8View => TextColumn::Utf8View(column.as_string_view()),
            DataType::Null => TextColumn::Null,
            _ => {
                // Else an error of a value would be written as its text.
                let options = FormatOptions::default().with_display_error(false);
                let formatter = ArrayFormatter::try_new(column, &options)
                    .map_err(|error| TaskError::new(ErrorClass::Config, error.to_string()))?;
                TextColumn::Other(column, formatter)
            }
        })
    }

    pub fn is_null(&self, row: usize) -> bool {
        match self {
            TextColumn::Utf8(column) => column.is_null(row),
            TextColumn::LargeUtf8(column) => column.is_null(row),
            TextColumn::Utf8View(column) => column.is_null(row),
            TextColumn::Null => true,
            TextColumn::Other(column, _) => column.is_null(row),
        }
    }

    /// The text of a value of text type.
    pub fn text(&self, row: usize) -> Option<&str> {
        match self {
            TextColumn::Utf8(column) => Some(column.value(row)),
            TextColumn::LargeUtf8(column) => Some(column.value(row)),
            TextColumn::Utf8View(column) => Some(column.value(row)),
            TextColumn::Null | TextColumn::Other(..) => None,
        }
    }

    /// Appends the value, unquoted.
    ///
    /// Errors: `Data` for a value outside of what its type can show (a date beyond year 262,000).
    pub fn append(&self, row: usize, out: &mut Vec<u8>) -> Result<(), TaskError> {
        match self {
            TextColumn::Other(column, formatter) => write!(Bytes(out), "{}", formatter.value(row)).map_err(|_| {
                let message = format!(
                    "a value of the type {} has no text: it lies beyond the years that can be written; leave such out with \
                     a check, or use a parquet sink",
                    type_name(column.data_type())
                );
                TaskError::new(ErrorClass::Data, message)
            }),
            _ => {
                out.extend_from_slice(self.text(row).unwrap_or_default().as_bytes());
                Ok(())
            }
        }
    }
}

struct Bytes<'a>(&'a mut Vec<u8>);

impl fmt::Write for Bytes<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, TimestampMillisecondArray};

    use super::*;

    #[test]
    fn a_value_without_a_text_is_an_error_and_no_other_text() {
        let columns: [ArrayRef; 3] = [
            Arc::new(TimestampMillisecondArray::from(vec![i64::MIN, 0])),
            Arc::new(TimestampMillisecondArray::from(vec![i64::MAX, 0]).with_timezone("+00:00")),
            Arc::new(Date32Array::from(vec![i32::MAX, 0])),
        ];
        for column in columns {
            let values = TextColumn::new(&column).expect("a flat type");
            let mut out = Vec::new();
            let error = values.append(0, &mut out).expect_err("has no text");
            assert_eq!(error.class, ErrorClass::Data, "{error}");
            out.clear();
            values.append(1, &mut out).expect("has a text");
            assert!(out.starts_with(b"1970-01-01"));
        }
    }
}

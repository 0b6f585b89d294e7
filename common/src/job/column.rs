//! Columns of CSV sources: names and types as they are written.

use super::{
    ColumnType,
    error::shown,
    keys::COLUMN_TYPES,
    read::Fields,
    yaml::{Entry, Node, Value},
};

/// Digits of a decimal in 128 bits.
const MAX_PRECISION: u8 = 38;

/// The declared columns, in the order of the file.
pub(super) fn columns(fields: &Fields) -> Vec<(String, ColumnType)> {
    let entries = fields.entries("columns").unwrap_or_default();
    let mut columns = Vec::with_capacity(entries.len());
    let mut cut = false;
    for entry in entries {
        // In `{price: decimal(12,2)}` YAML sees a column `2)`: the fault was told at the first half.
        if !(cut && entry.key.ends_with(')') && entry.value.is_null()) {
            columns.extend(column(fields, entry));
        }
        cut = matches!(&entry.value.value, Value::Scalar { text, .. } if text.contains('(') && !text.contains(')'));
    }
    columns
}

fn column(fields: &Fields, entry: &Entry) -> Option<(String, ColumnType)> {
    let faults = fields.cx.faults;
    if entry.key.trim().is_empty() || entry.key.contains("${") || entry.key.chars().any(char::is_control) {
        let found = format!("a column with the name `{}`", shown(&entry.key));
        faults.add(
            entry.key_at,
            found,
            "a name, without placeholders and control characters",
        );
        return None;
    }
    let ty = column_type(fields, &format!("column `{}`", shown(&entry.key)), &entry.value)?;
    Some((entry.key.clone(), ty))
}

/// A type as it is written; `of` says whose it is.
pub(super) fn column_type(fields: &Fields, of: &str, node: &Node) -> Option<ColumnType> {
    let faults = fields.cx.faults;
    let text = match &node.value {
        Value::Scalar { text, .. } if !node.is_null() => text.trim(),
        Value::Refused => return None,
        _ => {
            let found = format!("the type of {of} is {}", node.describe());
            faults.unknown(node.at, found, "", COLUMN_TYPES.iter().copied());
            return None;
        }
    };
    match simple_type(text) {
        Some(ty) => Some(ty),
        None if text.starts_with("decimal") => match decimal(text) {
            Ok(ty) => Some(ty),
            Err(allowed) => {
                let found = format!("the type of {of} is `{}`", shown(text));
                faults.add(node.at, found, allowed);
                None
            }
        },
        None => {
            let found = format!("unknown type `{}` of {of}", shown(text));
            faults.unknown(node.at, found, text, COLUMN_TYPES.iter().copied());
            None
        }
    }
}

fn simple_type(text: &str) -> Option<ColumnType> {
    Some(match text {
        "int8" => ColumnType::Int8,
        "int16" => ColumnType::Int16,
        "int32" => ColumnType::Int32,
        "int64" => ColumnType::Int64,
        "uint8" => ColumnType::Uint8,
        "uint16" => ColumnType::Uint16,
        "uint32" => ColumnType::Uint32,
        "uint64" => ColumnType::Uint64,
        "float32" => ColumnType::Float32,
        "float64" => ColumnType::Float64,
        "string" => ColumnType::String,
        "bool" => ColumnType::Bool,
        "date" => ColumnType::Date,
        "timestamp" => ColumnType::Timestamp,
        _ => return None,
    })
}

/// `decimal(p,s)`; else what would be allowed.
fn decimal(text: &str) -> Result<ColumnType, String> {
    let rule =
        format!("decimal(p,s) with p from 1 to {MAX_PRECISION} digits and s from 0 to p of them after the point");
    let Some(inner) = text.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')) else {
        return Err(match text.contains(')') {
            true => rule,
            false => format!("{rule}; inside {{ }} it needs quotes: \"decimal(12,2)\""),
        });
    };
    let numbers = inner.split_once(',').and_then(|(precision, scale)| {
        let precision: u8 = precision.trim().parse().ok()?;
        let scale: i8 = scale.trim().parse().ok()?;
        Some((precision, scale))
    });
    match numbers {
        Some((precision, scale))
            if (1..=MAX_PRECISION).contains(&precision)
                && u8::try_from(scale).is_ok_and(|scale| scale <= precision) =>
        {
            Ok(ColumnType::Decimal { precision, scale })
        }
        _ => Err(rule),
    }
}

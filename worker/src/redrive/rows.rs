//! Rows that the quarantine keeps as JSON, made rows of their types again: a Parquet file with the schema that the step
//! read. What does not come back as it was kept is refused, so that nothing is altered unnoticed.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch},
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
};
use arrow_json::ReaderBuilder;
use bytes::Bytes;
use gapless_common::error::TaskError;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use serde_json::{Map, Value};

use super::config;
use crate::{
    source::{Place, shown::row_as_json},
    type_names::{type_name, type_names},
};

/// Rows that are decoded at a time.
const BATCH: usize = 4096;
/// Rows of a row group, which one partition takes whole.
const GROUP: usize = 1 << 16;

/// A Parquet file with these rows, in their order.
///
/// Errors: `Config` naming record, column and type where a row is not what the source has, or would not come back as it
/// is written.
pub(super) fn as_parquet(schema: &SchemaRef, places: &[&Place]) -> Result<Vec<u8>, TaskError> {
    let (own, file) = (columns(schema)?, SchemaRef::clone(schema));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP))
        .build();
    let failed =
        |error: &dyn std::fmt::Display| config(format!("the rejected rows do not go into a Parquet file: {error}"));
    let mut writer = ArrowWriter::try_new(Vec::new(), file, Some(properties)).map_err(|error| failed(&error))?;
    for places in places.chunks(BATCH) {
        let batch = typed(schema, &own, places)?;
        writer.write(&batch).map_err(|error| failed(&error))?;
    }
    let bytes = Bytes::from(writer.into_inner().map_err(|error| failed(&error))?);
    compare(schema, places, bytes.clone())?;
    Ok(bytes.to_vec())
}

/// The schema with which the rows are decoded: dictionaries as their values.
fn columns(schema: &SchemaRef) -> Result<SchemaRef, TaskError> {
    if schema.fields().is_empty() {
        return Err(config(
            "the run read no column of its source, so that the rejected records hold nothing; mend the source and run \
             the job again"
                .into(),
        ));
    }
    let fields = schema.fields().iter().map(decodable).collect::<Vec<_>>();
    for (field, read) in fields.iter().zip(schema.fields()) {
        let alone = Arc::new(Schema::new(vec![field.clone()]));
        if let Err(error) = ReaderBuilder::new(alone).build_decoder() {
            return Err(config(format!(
                "column {} is {}, of which the quarantine keeps nothing that can be read again ({error}); mend the source \
                 and run the job again",
                read.name(),
                type_name(read.data_type())
            )));
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn decodable(field: &FieldRef) -> FieldRef {
    let ty = match field.data_type() {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(decodable).collect()),
        DataType::List(item) => DataType::List(decodable(item)),
        DataType::LargeList(item) => DataType::LargeList(decodable(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(decodable(item), *size),
        DataType::Map(entries, sorted) => DataType::Map(decodable(entries), *sorted),
        other => other.clone(),
    };
    Arc::new(Field::new(field.name(), ty, field.is_nullable()))
}

fn typed(schema: &SchemaRef, own: &SchemaRef, places: &[&Place]) -> Result<RecordBatch, TaskError> {
    let text: Vec<&str> = places.iter().map(|place| place.raw.as_str()).collect();
    let decoded = match decode(own, true, &text) {
        Ok(decoded) => decoded,
        Err(error) => return Err(explained(own, places, &error)),
    };
    let fit =
        |error: &dyn std::fmt::Display| config(format!("the rejected rows are not of the source's columns: {error}"));
    let columns: Result<Vec<ArrayRef>, TaskError> = schema
        .fields()
        .iter()
        .zip(decoded.columns())
        .map(|(field, column)| match column.data_type() == field.data_type() {
            true => Ok(column.clone()),
            false => cast(column, field.data_type()).map_err(|error| fit(&error)),
        })
        .collect();
    RecordBatch::try_new(schema.clone(), columns?).map_err(|error| fit(&error))
}

/// `whole`: whether other names than those of the schema are faults.
fn decode(schema: &SchemaRef, whole: bool, rows: &[&str]) -> Result<RecordBatch, String> {
    let mut decoder = ReaderBuilder::new(schema.clone())
        .with_batch_size(rows.len())
        .with_strict_mode(whole)
        .build_decoder()
        .map_err(|error| error.to_string())?;
    let text = rows.join("\n");
    let read = decoder.decode(text.as_bytes()).map_err(|error| error.to_string())?;
    let batch = decoder.flush().map_err(|error| error.to_string())?;
    match batch {
        Some(batch) if batch.num_rows() == rows.len() && read == text.len() => Ok(batch),
        _ => Err("not one object for each record".to_string()),
    }
}

/// The first row, and the column of it, that cannot be decoded.
fn explained(own: &SchemaRef, places: &[&Place], error: &str) -> TaskError {
    for place in places {
        if decode(own, true, &[&place.raw]).is_ok() {
            continue;
        }
        if let Err(error) = object(place) {
            return error;
        }
        for field in own.fields() {
            let alone = Arc::new(Schema::new(vec![field.clone()]));
            if let Err(error) = decode(&alone, false, &[&place.raw]) {
                return config(format!(
                    "{place}: column {} is {}{}: {error}",
                    field.name(),
                    type_name(field.data_type()),
                    if field.is_nullable() { "" } else { " and never NULL" }
                ));
            }
        }
        return config(format!("{place}: {error}"));
    }
    config(format!("the rejected rows are not of the source's columns: {error}"))
}

fn object(place: &Place) -> Result<Map<String, Value>, TaskError> {
    serde_json::from_str(&place.raw).map_err(|error| config(format!("{place}: `raw` is no JSON object: {error}")))
}

/// Reads the file as the step will, and holds each row against what was kept of it.
fn compare(schema: &SchemaRef, places: &[&Place], file: Bytes) -> Result<(), TaskError> {
    let failed =
        |error: &dyn std::fmt::Display| config(format!("the rejected rows do not come back out of Parquet: {error}"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| failed(&error))?;
    for (read, field) in reader.schema().fields().iter().zip(schema.fields()) {
        if read.data_type() != field.data_type() {
            let (is, back) = type_names(field.data_type(), read.data_type());
            return Err(config(format!(
                "column {} is {is}, which a Parquet file gives back as {back}; mend the source and run the job again",
                field.name()
            )));
        }
    }
    let reader = reader.with_batch_size(BATCH).build().map_err(|error| failed(&error))?;
    let mut places = places.iter();
    for batch in reader {
        let batch = batch.map_err(|error| failed(&error))?;
        for row in 0..batch.num_rows() {
            let place = places.next().ok_or_else(|| failed(&"there are more of them"))?;
            same_row(schema, place, &row_as_json(&batch, row))?;
        }
    }
    match places.next() {
        None => Ok(()),
        Some(place) => Err(failed(&format!("{place} is missing"))),
    }
}

fn same_row(schema: &Schema, place: &Place, read: &Map<String, Value>) -> Result<(), TaskError> {
    let given = object(place)?;
    if let Some(name) = given.keys().find(|name| !read.contains_key(*name)) {
        return Err(config(format!("{place}: `raw` has {name}, which is no column")));
    }
    for field in schema.fields() {
        let name = field.name();
        let (Some(given), Some(read)) = (given.get(name), read.get(name)) else {
            return Err(config(format!(
                "{place}: `raw` lacks column {name}; write null where it has no value"
            )));
        };
        if !is_same(given, read, field.data_type()) {
            return Err(config(format!(
                "{place}: column {name} is {}, and {given} would be read as {read}: write it so (--from), or mend the source \
                 and run the job again",
                type_name(field.data_type())
            )));
        }
    }
    Ok(())
}

/// Whether what is written means the value that it was read as.
fn is_same(given: &Value, read: &Value, ty: &DataType) -> bool {
    match (ty, given, read) {
        (DataType::Dictionary(_, values), ..) => is_same(given, read, values),
        (DataType::Float32, Value::Number(_), Value::Number(_)) => is_near(given, read, f64::from(f32::EPSILON)),
        (DataType::Float64, Value::Number(_), Value::Number(_)) => is_near(given, read, 4.0 * f64::EPSILON),
        (
            DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..),
            Value::String(_) | Value::Number(_),
            Value::String(read),
        ) => digits(given).is_some_and(|given| given == trimmed(read)),
        (DataType::Struct(fields), Value::Object(given), Value::Object(read)) => {
            given.len() == read.len()
                && fields.iter().all(|field| {
                    let values = given.get(field.name()).zip(read.get(field.name()));
                    values.is_some_and(|(given, read)| is_same(given, read, field.data_type()))
                })
        }
        (
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _),
            Value::Array(given),
            Value::Array(read),
        ) => {
            given.len() == read.len()
                && given
                    .iter()
                    .zip(read)
                    .all(|(given, read)| is_same(given, read, item.data_type()))
        }
        (DataType::Map(entries, _), Value::Object(given), Value::Object(read)) => {
            let DataType::Struct(parts) = entries.data_type() else {
                return false;
            };
            let Some(value) = parts.get(1) else { return false };
            given.len() == read.len()
                && given.iter().all(|(key, given)| {
                    read.get(key)
                        .is_some_and(|read| is_same(given, read, value.data_type()))
                })
        }
        _ => given == read,
    }
}

/// A literal of a binary fraction stands for the nearest one.
fn is_near(given: &Value, read: &Value, share: f64) -> bool {
    match (given.as_f64(), read.as_f64()) {
        (Some(given), Some(read)) => {
            given.is_sign_negative() == read.is_sign_negative() && (given - read).abs() <= share * given.abs()
        }
        _ => false,
    }
}

/// A decimal without zeros that say nothing. As a number of JSON it has no more digits than that gives it.
fn digits(given: &Value) -> Option<String> {
    match given {
        Value::String(text) => Some(trimmed(text)),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

fn trimmed(text: &str) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    }
}

#[cfg(test)]
mod tests;

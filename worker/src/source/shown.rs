//! Rows as people and the quarantine see them: JSON.

use arrow::{
    array::{Array, RecordBatch},
    datatypes::DataType,
    util::display::{ArrayFormatter, FormatOptions},
};
use serde_json::{Map, Value};

use super::Place;

/// One row as a JSON object: numbers and booleans as they are, everything else as text.
pub fn row_as_json(batch: &RecordBatch, row: usize) -> Map<String, Value> {
    let mut object = Map::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        object.insert(field.name().clone(), cell_as_json(column, row));
    }
    object
}

/// [`row_as_json`] as text, cut at [`Place::MAX_RAW`].
pub fn row_as_text(batch: &RecordBatch, row: usize) -> String {
    let mut raw = Value::Object(row_as_json(batch, row)).to_string();
    raw.truncate(raw.floor_char_boundary(Place::MAX_RAW));
    raw
}

/// The values of these columns in a row, as far as the batch has them; `None` without any.
pub fn key_as_json(batch: &RecordBatch, row: usize, columns: &[String]) -> Option<Map<String, Value>> {
    let mut object = Map::new();
    for name in columns {
        if let Some(column) = batch.column_by_name(name) {
            object.insert(name.clone(), cell_as_json(column, row));
        }
    }
    (!object.is_empty()).then_some(object)
}

fn cell_as_json(column: &dyn Array, row: usize) -> serde_json::Value {
    if column.is_null(row) {
        return Value::Null;
    }
    let options = FormatOptions::default();
    let text = match ArrayFormatter::try_new(column, &options) {
        Ok(formatter) => formatter.value(row).to_string(),
        Err(error) => return Value::String(format!("({error})")),
    };
    let plain = column.data_type().is_integer() || matches!(column.data_type(), DataType::Float32 | DataType::Float64);
    match column.data_type() {
        DataType::Boolean => Value::Bool(text == "true"),
        _ if plain => text.parse().map_or(Value::String(text), Value::Number),
        _ => Value::String(text),
    }
}

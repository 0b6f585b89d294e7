//! Rows as people and the quarantine see them: JSON.

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StructArray},
    datatypes::DataType,
    util::display::{ArrayFormatter, FormatOptions},
};
use serde_json::{Map, Number, Value};

use super::Place;

/// One row as a JSON object: numbers, booleans, lists and objects as they are, everything else as text.
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

fn cell_as_json(column: &dyn Array, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    let cells = |values: ArrayRef| Value::Array((0..values.len()).map(|row| cell_as_json(&values, row)).collect());
    match column.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(column.as_boolean().value(row)),
        DataType::Struct(fields) => {
            let parts = fields.iter().zip(column.as_struct().columns());
            Value::Object(
                parts
                    .map(|(field, part)| (field.name().clone(), cell_as_json(part, row)))
                    .collect(),
            )
        }
        DataType::List(_) => cells(column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => cells(column.as_list::<i64>().value(row)),
        DataType::FixedSizeList(_, _) => cells(column.as_fixed_size_list().value(row)),
        DataType::Map(_, _) => entries_as_json(&column.as_map().value(row)),
        DataType::Dictionary(_, _) => {
            let dictionary = column.as_any_dictionary();
            match dictionary.normalized_keys().get(row) {
                Some(&key) if !dictionary.values().is_empty() => cell_as_json(dictionary.values(), key),
                _ => Value::Null,
            }
        }
        DataType::Float32 | DataType::Float64 => float_as_json(shown(column, row)),
        ty if ty.is_integer() => {
            let text = shown(column, row);
            text.parse().map_or(Value::String(text), Value::Number)
        }
        _ => Value::String(shown(column, row)),
    }
}

/// An object; a list of entries where keys are no text, or one stands twice.
fn entries_as_json(entries: &StructArray) -> Value {
    let (keys, values) = (entries.column(0), entries.column(1));
    let mut object = Map::new();
    for row in 0..entries.len() {
        let value = cell_as_json(values, row);
        match cell_as_json(keys, row) {
            Value::String(key) if !object.contains_key(&key) => object.insert(key, value),
            _ => return Value::Array((0..entries.len()).map(|row| cell_as_json(entries, row)).collect()),
        };
    }
    Value::Object(object)
}

/// The shortest number that is read as this value again; `NaN` and infinity are no numbers of JSON.
fn float_as_json(text: String) -> Value {
    let number = text.parse::<f64>().ok().and_then(Number::from_f64);
    number.map_or(Value::String(text), Value::Number)
}

fn shown(column: &dyn Array, row: usize) -> String {
    match ArrayFormatter::try_new(column, &FormatOptions::default()) {
        Ok(formatter) => formatter.value(row).to_string(),
        Err(error) => format!("({error})"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Float32Array, Float64Array, Int64Array, ListArray, StructArray},
        datatypes::{Field, Int32Type, Schema},
    };

    use super::*;

    #[test]
    fn nested_values_and_numbers_are_told_as_they_are() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
        let inner: ArrayRef = Arc::new(Int64Array::from(vec![Some(i64::MAX), None]));
        let object = StructArray::from(vec![(Arc::new(Field::new("a", DataType::Int64, true)), inner)]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(list),
            Arc::new(object),
            Arc::new(Float64Array::from(vec![0.1 + 0.2, f64::NAN])),
            Arc::new(Float32Array::from(vec![0.1, f32::INFINITY])),
            Arc::new(Float64Array::from(vec![1.797_693_134_862_315_5e308, 4.35e-317])),
        ];
        let fields = columns
            .iter()
            .enumerate()
            .map(|(at, column)| Field::new(format!("c{at}"), column.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batch = RecordBatch::try_new(schema, columns).expect("a batch");
        assert_eq!(
            row_as_text(&batch, 0),
            r#"{"c0":[1,null],"c1":{"a":9223372036854775807},"c2":0.30000000000000004,"c3":0.1,"c4":1.7976931348623155e+308}"#
        );
        assert_eq!(
            row_as_text(&batch, 1),
            r#"{"c0":null,"c1":{"a":null},"c2":"NaN","c3":"inf","c4":4.35e-317}"#
        );
    }
}

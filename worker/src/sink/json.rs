//! Values as JSON, exact: lists are arrays, structs objects with all of their fields, maps objects whose names are the keys.

use arrow::{
    array::{Array, ArrayRef, AsArray, LargeListArray, MapArray, RecordBatch, StructArray},
    compute::cast,
    datatypes::{DataType, Schema},
};
use gapless_common::error::{ErrorClass, TaskError};

use super::text::{self, TextColumn, textual};

/// Rows as lines of JSON: one object for each, every column in it, NULL as `null`.
///
/// Numbers are written exactly; what JSON has no number for (`NaN`, `inf`) is written as text, which reads
/// back as the same value. Dates, timestamps and bytes are text too.
pub(crate) struct JsonLines {
    /// Each column's name as it begins its member: `{"a":`, `,"b":`.
    names: Vec<Vec<u8>>,
}

impl JsonLines {
    /// Errors: `Config` for a column whose values have no JSON.
    pub fn of(schema: &Schema) -> Result<JsonLines, TaskError> {
        let mut names = Vec::with_capacity(schema.fields().len());
        for (number, field) in schema.fields().iter().enumerate() {
            check_type(field.name(), field.data_type())?;
            let mut name = vec![if number == 0 { b'{' } else { b',' }];
            append_text(field.name(), &mut name)?;
            name.push(b':');
            names.push(name);
        }
        Ok(JsonLines { names })
    }

    /// Appends the rows of a batch, which has the columns of the schema. `behind` is called behind each, and may take
    /// what is there.
    pub fn append(
        &self,
        batch: &RecordBatch,
        out: &mut Vec<u8>,
        mut behind: impl FnMut(&mut Vec<u8>) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        let schema = batch.schema_ref();
        let columns = schema.fields().iter().zip(batch.columns());
        let parts: Result<Vec<Parts>, TaskError> =
            columns.map(|(field, column)| Parts::of(field.name(), column)).collect();
        let parts = parts?;
        let cells = parts.iter().map(Cells::of).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            for (name, cells) in self.names.iter().zip(&cells) {
                out.extend_from_slice(name);
                cells.append(row, out)?;
            }
            out.extend_from_slice(if self.names.is_empty() { b"{}\n" } else { b"}\n" });
            behind(out)?;
        }
        Ok(())
    }
}

/// Whether values of a type can be written as JSON.
///
/// Errors: `Config` for those that have none: unions, and maps whose keys are nested.
pub(super) fn check_type(name: &str, ty: &DataType) -> Result<(), TaskError> {
    match ty {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => check_type(name, item.data_type()),
        DataType::Struct(fields) => fields.iter().try_for_each(|field| check_type(name, field.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                text::check_type(name, fields[0].data_type())?;
                check_type(name, fields[1].data_type())
            }
            other => text::check_type(name, other),
        },
        flat => text::check_type(name, flat),
    }
}

/// A column taken apart, down to columns without parts.
enum Parts {
    Flat(ArrayRef),
    List {
        lists: ArrayRef,
        items: Box<Parts>,
    },
    Struct {
        structs: ArrayRef,
        members: Vec<(Vec<u8>, Parts)>,
    },
    Map {
        maps: ArrayRef,
        keys: Box<Parts>,
        values: Box<Parts>,
    },
}

impl Parts {
    /// Errors: as of [`check_type`].
    fn of(name: &str, column: &ArrayRef) -> Result<Parts, TaskError> {
        let failed = |error| TaskError::new(ErrorClass::Data, format!("column {name}: {error}"));
        Ok(match column.data_type() {
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => {
                let lists = cast(column, &DataType::LargeList(item.clone())).map_err(failed)?;
                let items = Box::new(Parts::of(name, lists.as_list::<i64>().values())?);
                Parts::List { lists, items }
            }
            DataType::Struct(fields) => {
                let columns = fields.iter().zip(column.as_struct().columns());
                let members = columns.map(|(field, column)| {
                    let mut begin = Vec::new();
                    append_text(field.name(), &mut begin)?;
                    begin.push(b':');
                    Ok((begin, Parts::of(name, column)?))
                });
                Parts::Struct {
                    members: members.collect::<Result<_, TaskError>>()?,
                    structs: column.clone(),
                }
            }
            DataType::Map(..) => {
                let maps = column.as_map();
                Parts::Map {
                    keys: Box::new(Parts::Flat(textual(name, maps.keys())?)),
                    values: Box::new(Parts::of(name, maps.values())?),
                    maps: column.clone(),
                }
            }
            _ => Parts::Flat(textual(name, column)?),
        })
    }
}

/// The values of a column, ready to be written one by one.
enum Cells<'a> {
    Flat(TextColumn<'a>, &'a DataType),
    List(&'a LargeListArray, Box<Cells<'a>>),
    Struct(&'a StructArray, Vec<(&'a [u8], Cells<'a>)>),
    Map(&'a MapArray, TextColumn<'a>, Box<Cells<'a>>),
}

impl<'a> Cells<'a> {
    fn of(parts: &'a Parts) -> Result<Cells<'a>, TaskError> {
        Ok(match parts {
            Parts::Flat(column) => Cells::Flat(TextColumn::new(column)?, column.data_type()),
            Parts::List { lists, items } => Cells::List(lists.as_list(), Box::new(Cells::of(items)?)),
            Parts::Struct { structs, members } => {
                let members = members
                    .iter()
                    .map(|(begin, part)| Ok((begin.as_slice(), Cells::of(part)?)));
                Cells::Struct(structs.as_struct(), members.collect::<Result<_, TaskError>>()?)
            }
            Parts::Map { maps, keys, values } => match &**keys {
                Parts::Flat(keys) => Cells::Map(maps.as_map(), TextColumn::new(keys)?, Box::new(Cells::of(values)?)),
                _ => unreachable!("keys are taken apart as flat ones"),
            },
        })
    }

    /// Appends the value, NULL as `null`.
    ///
    /// Errors: `Data` for a value outside of what its type can show.
    fn append(&self, row: usize, out: &mut Vec<u8>) -> Result<(), TaskError> {
        let is_null = match self {
            Cells::Flat(column, _) => column.is_null(row),
            Cells::List(lists, _) => lists.is_null(row),
            Cells::Struct(structs, _) => structs.is_null(row),
            Cells::Map(maps, ..) => maps.is_null(row),
        };
        if is_null {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        match self {
            Cells::Flat(column, ty) => append_flat(column, ty, row, out),
            Cells::List(lists, items) => {
                let offsets = lists.value_offsets();
                listed(
                    b"[]",
                    offsets[row] as usize..offsets[row + 1] as usize,
                    out,
                    |item, out| items.append(item, out),
                )
            }
            Cells::Struct(_, members) => listed(b"{}", 0..members.len(), out, |number, out| {
                let (begin, cells) = &members[number];
                out.extend_from_slice(begin);
                cells.append(row, out)
            }),
            Cells::Map(maps, keys, values) => {
                let offsets = maps.value_offsets();
                listed(
                    b"{}",
                    offsets[row] as usize..offsets[row + 1] as usize,
                    out,
                    |entry, out| {
                        let mut key = Vec::new();
                        keys.append(entry, &mut key)?;
                        append_text(&String::from_utf8_lossy(&key), out)?;
                        out.push(b':');
                        values.append(entry, out)
                    },
                )
            }
        }
    }
}

/// Appends items with commas between them, within these brackets.
fn listed(
    brackets: &[u8; 2],
    items: std::ops::Range<usize>,
    out: &mut Vec<u8>,
    mut append: impl FnMut(usize, &mut Vec<u8>) -> Result<(), TaskError>,
) -> Result<(), TaskError> {
    out.push(brackets[0]);
    for item in items.clone() {
        if item > items.start {
            out.push(b',');
        }
        append(item, out)?;
    }
    out.push(brackets[1]);
    Ok(())
}

fn append_flat(column: &TextColumn<'_>, ty: &DataType, row: usize, out: &mut Vec<u8>) -> Result<(), TaskError> {
    if let Some(text) = column.text(row) {
        return append_text(text, out);
    }
    let start = out.len();
    column.append(row, out)?;
    if !is_bare(ty, &out[start..]) {
        let value = out.split_off(start);
        append_text(&String::from_utf8_lossy(&value), out)?;
    }
    Ok(())
}

/// Whether a value stands in JSON without quotes.
fn is_bare(ty: &DataType, value: &[u8]) -> bool {
    match ty {
        DataType::Boolean => true,
        _ if ty.is_integer() || ty.is_decimal() => true,
        // `NaN`, `inf`, `-inf` end in a letter, numbers in a digit.
        _ if ty.is_floating() => value.last().is_some_and(u8::is_ascii_digit),
        _ => false,
    }
}

/// Appends a text in quotes.
fn append_text(text: &str, out: &mut Vec<u8>) -> Result<(), TaskError> {
    serde_json::to_writer(out, text)
        .map_err(|error| TaskError::new(ErrorClass::Data, format!("a text has no JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{
            Decimal128Array, DictionaryArray, Float64Array, Int64Array, Int64Builder, ListArray, MapBuilder,
            MapFieldNames, StringArray, StringBuilder,
        },
        datatypes::{Field, Int32Type, Int64Type},
    };

    use super::*;

    fn shown(column: ArrayRef) -> Vec<String> {
        check_type("c", column.data_type()).expect("has JSON");
        let parts = Parts::of("c", &column).expect("has JSON");
        let cells = Cells::of(&parts).expect("ready");
        let rows = 0..column.len();
        rows.map(|row| {
            let mut out = Vec::new();
            cells.append(row, &mut out).expect("written");
            let text = String::from_utf8(out).expect("UTF-8");
            serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
            text
        })
        .collect()
    }

    #[test]
    fn lists_structs_and_maps_are_written_by_their_parts() {
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
            Some(vec![Some(-7)]),
        ]);
        let lists: ArrayRef = Arc::new(lists);
        assert_eq!(shown(lists.clone()), ["[1,null]", "null", "[]", "[-7]"]);
        // A stretch of rows begins anywhere.
        assert_eq!(shown(lists.slice(2, 2)), ["[]", "[-7]"]);
        for ty in [DataType::LargeList, DataType::ListView, DataType::LargeListView] {
            let item = Arc::new(Field::new_list_field(DataType::Int64, true));
            let cast = cast(&lists, &ty(item)).expect("a kind of list");
            assert_eq!(shown(cast), ["[1,null]", "null", "[]", "[-7]"]);
        }
        let member =
            |name: &str, column: ArrayRef| (Arc::new(Field::new(name, column.data_type().clone(), true)), column);
        let decimals = Decimal128Array::from(vec![Some(1234567890123456789012345678), None, Some(-5), Some(0)]);
        let decimals = decimals.with_precision_and_scale(38, 2).expect("a decimal");
        let words: DictionaryArray<Int32Type> = [Some("a \"b\""), Some("é\n"), None, Some("")].into_iter().collect();
        let structs: ArrayRef = Arc::new(StructArray::from(vec![
            member("x \"y\"", Arc::new(decimals)),
            member("list", lists),
            member("word", Arc::new(words)),
            member("f", Arc::new(Float64Array::from(vec![0.5, f64::NAN, 1e300, -0.0]))),
        ]));
        let expected = [
            r#"{"x \"y\"":12345678901234567890123456.78,"list":[1,null],"word":"a \"b\"","f":0.5}"#,
            r#"{"x \"y\"":null,"list":null,"word":"é\n","f":"NaN"}"#,
            r#"{"x \"y\"":-0.05,"list":[],"word":null,"f":1e300}"#,
            r#"{"x \"y\"":0.00,"list":[-7],"word":"","f":-0.0}"#,
        ];
        assert_eq!(shown(structs.clone()), expected);
        assert_eq!(shown(structs.slice(1, 2)), expected[1..3]);

        let names = MapFieldNames::default();
        let mut maps = MapBuilder::new(Some(names), StringBuilder::new(), Int64Builder::new());
        for entries in [vec![("a", Some(1)), ("b\"", None)], Vec::new()] {
            for (key, value) in entries {
                maps.keys().append_value(key);
                maps.values().append_option(value);
            }
            maps.append(true).expect("a map");
        }
        let maps: ArrayRef = Arc::new(maps.finish());
        assert_eq!(shown(maps.clone()), [r#"{"a":1,"b\"":null}"#, "{}"]);
        assert_eq!(shown(maps.slice(1, 1)), ["{}"]);
        assert_eq!(shown(Arc::new(StringArray::from(vec!["x"]))), [r#""x""#]);
        assert_eq!(shown(Arc::new(Int64Array::from(vec![1]))), ["1"]);
    }
}

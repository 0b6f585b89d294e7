//! A layout made ready for reading: its columns, where they come from, and how a line is told.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use gapless_common::{
    error::TaskError,
    job::{ColumnType, LineType, RecordLayout, Total},
};

use crate::source::csv::{arrow_type, projected};

/// Where a column comes from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// The name of the line's type.
    Type,
    /// Whether the record has the line.
    Present(usize),
    /// A field, by line and place in the line; of several lines where these share the column.
    Field(Vec<(usize, usize)>, ColumnType),
    /// The lines of a type that repeats: a list of structs of its named fields.
    List(usize),
}

/// A total that header or trailer declare, with what is counted for it.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    /// Whether it stands in the header; else in the trailer.
    pub in_header: bool,
    pub field: usize,
    pub what: String,
    pub of: Counted,
}

#[derive(Clone, Debug)]
pub(super) enum Counted {
    Records,
    Lines,
    /// By its place among the sums.
    Sum(usize),
}

/// A layout with its columns, and which of them are wanted.
#[derive(Debug)]
pub struct Shape {
    pub(super) layout: RecordLayout,
    /// All columns, in the order of the layout.
    columns: Vec<(Arc<Field>, Origin)>,
    /// Places in `columns` of those that are decoded.
    pub(super) wanted: Vec<usize>,
    schema: SchemaRef,
    pub(super) declared: Vec<Declared>,
    /// For each sum the fields that it is of, as (line, field).
    pub(super) sums: Vec<Vec<(usize, usize)>>,
    /// Widths of the lines.
    pub(super) widths: Vec<u32>,
}

impl Shape {
    /// `projection`: names of the columns to decode; `None` for all. Fields left out are not checked
    /// against their type, unless a total is of them.
    ///
    /// Errors: `Config` for an unusable type or a projected name that is no column.
    pub fn new(layout: &RecordLayout, projection: Option<&[String]>) -> Result<Shape, TaskError> {
        let columns = columns(layout)?;
        let wanted = projected(columns.iter().map(|(field, _)| field.name().as_str()), projection)?;
        let fields: Vec<_> = wanted.iter().map(|&at| columns[at].0.clone()).collect();
        let mut sums = Vec::new();
        let mut declared = Vec::new();
        for (in_header, edge) in [(true, &layout.header), (false, &layout.trailer)] {
            let Some(edge) = edge else { continue };
            for (number, field) in edge.fields.iter().enumerate() {
                let Some(total) = &field.total else { continue };
                let name = match &field.name {
                    Some(name) => format!("`{name}`"),
                    None => format!("field {}", number + 1),
                };
                let (of, what) = match total {
                    Total::Records => (Counted::Records, "the number of records".to_string()),
                    Total::Lines => (Counted::Lines, "the number of lines".to_string()),
                    Total::Sum(of) => {
                        sums.push(layout.summed(of).collect());
                        (Counted::Sum(sums.len() - 1), format!("the sum of {of}"))
                    }
                };
                declared.push(Declared {
                    in_header,
                    field: number,
                    what: format!("{name} of the {}, {what}", edge.name),
                    of,
                });
            }
        }
        Ok(Shape {
            wanted,
            schema: Arc::new(Schema::new(fields)),
            columns,
            declared,
            sums,
            widths: layout.lines.iter().map(LineType::width).collect(),
            layout: layout.clone(),
        })
    }

    /// For files that hold records alone: no header and trailer, but what they would declare is counted.
    pub(super) fn of_body(layout: &RecordLayout) -> Result<Shape, TaskError> {
        let mut shape = Shape::new(layout, None)?;
        shape.declared.clear();
        (shape.layout.header, shape.layout.trailer) = (None, None);
        Ok(shape)
    }

    /// The decoded columns, in the order of the layout.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The decoded columns with their origin.
    pub(super) fn decoded(&self) -> impl Iterator<Item = &(Arc<Field>, Origin)> {
        self.wanted.iter().map(|&at| &self.columns[at])
    }

    /// The type of a line by its tag, by its place in the layout.
    pub(super) fn line_type(&self, line: &[u8]) -> Option<usize> {
        self.layout
            .lines
            .iter()
            .position(|line_type| has_tag(&self.layout, line_type, line))
    }

    pub(crate) fn layout(&self) -> &RecordLayout {
        &self.layout
    }

    /// Whether a record of several lines begins with this one.
    pub(crate) fn begins_record(&self, line: &[u8]) -> bool {
        has_tag(&self.layout, &self.layout.lines[0], line)
    }

    /// Whether a line is no part of a record at all.
    pub(crate) fn is_passed_over(&self, line: &[u8]) -> bool {
        line.is_empty()
            || self
                .layout
                .comment
                .as_ref()
                .is_some_and(|comment| line.starts_with(comment.as_bytes()))
    }
}

/// Whether the line says that it is of this type.
pub(super) fn has_tag(layout: &RecordLayout, line_type: &LineType, line: &[u8]) -> bool {
    let Some(tag) = &line_type.tag else { return true };
    let tag = tag.as_bytes();
    match layout.delimiter {
        Some(delimiter) => line
            .strip_prefix(tag)
            .is_some_and(|rest| rest.is_empty() || rest[0] == delimiter),
        None => char_place(line, line_type.tag_at).is_some_and(|at| line[at..].starts_with(tag)),
    }
}

/// The offset of a character by its number from 0; the end of the line for the one behind the last.
/// Bytes that are no UTF-8 count as they come.
pub(super) fn char_place(line: &[u8], number: u32) -> Option<usize> {
    let number = number as usize;
    // The usual line is ASCII, and most places stand within its first characters.
    if number <= line.len() && line[..number].is_ascii() && line.get(number).is_none_or(u8::is_ascii) {
        return Some(number);
    }
    let mut seen = 0;
    for (at, byte) in line.iter().enumerate() {
        if byte & 0xC0 != 0x80 {
            if seen == number {
                return Some(at);
            }
            seen += 1;
        }
    }
    (seen == number).then_some(line.len())
}

fn field(name: &str, ty: DataType) -> Arc<Field> {
    Arc::new(Field::new(name, ty, true))
}

fn columns(layout: &RecordLayout) -> Result<Vec<(Arc<Field>, Origin)>, TaskError> {
    let mut columns: Vec<(Arc<Field>, Origin)> = Vec::new();
    if let Some(name) = &layout.type_column {
        columns.push((field(name, DataType::Utf8View), Origin::Type));
    }
    for (line_no, line) in layout.lines.iter().enumerate() {
        if layout.multiline && line.repeats {
            let item = DataType::Struct(item_fields(line)?);
            let list = DataType::List(Arc::new(Field::new_list_field(item, true)));
            columns.push((field(&line.name, list), Origin::List(line_no)));
            continue;
        }
        if let Some(name) = &line.present {
            columns.push((field(name, DataType::Boolean), Origin::Present(line_no)));
        }
        for (field_no, own) in line.fields.iter().enumerate() {
            let Some(name) = &own.name else { continue };
            let known = columns
                .iter_mut()
                .find(|(column, origin)| column.name() == name && matches!(origin, Origin::Field(..)));
            match known {
                Some((_, Origin::Field(places, _))) => places.push((line_no, field_no)),
                _ => columns.push((
                    field(name, arrow_type(name, own.ty)?),
                    Origin::Field(vec![(line_no, field_no)], own.ty),
                )),
            }
        }
    }
    Ok(columns)
}

/// The named fields of a line that repeats.
pub(super) fn item_fields(line: &LineType) -> Result<Fields, TaskError> {
    line.fields
        .iter()
        .filter_map(|own| own.name.as_ref().map(|name| (name, own.ty)))
        .map(|(name, ty)| Ok(field(name, arrow_type(name, ty)?)))
        .collect()
}

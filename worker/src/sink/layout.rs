//! Files of a record layout: the same lines that the source of this kind reads.
//!
//! A chunk's file holds records alone. Header and trailer are written when files are merged, since only
//! then the whole file is known.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Decimal128Array, ListArray, RecordBatch, new_null_array},
    compute::cast,
    datatypes::{DataType, Decimal128Type, Field, Schema, SchemaRef},
};
use gapless_common::{
    error::{ErrorClass, TaskError},
    exact::Exact,
    job::{Align, ColumnType, Compression, LayoutField, LineType, RecordLayout, RecordsSink, Total},
};

use super::{
    encoder::TextEncoder,
    text::{TextColumn, check_type, textual},
};
use crate::{
    source::{csv::arrow_type, records::reads_back},
    storage::DurableFile,
    type_names::{type_name, type_names},
};

/// Text is handed on in pieces of this size: a system call and a hash update for each.
const BUFFER_BYTES: usize = 256 * 1024;

/// A value in a message is cut after this many characters.
const SHOWN: usize = 80;

/// How the lines of a sink are written.
#[derive(Debug)]
pub(crate) struct LayoutStyle {
    pub layout: RecordLayout,
    end: &'static [u8],
    /// For each type of line what stands in it, from left to right.
    parts: Vec<Vec<Part>>,
}

/// What one file holds between header and trailer.
#[derive(Clone, Debug, Default)]
pub(crate) struct BodyTotals {
    pub records: u64,
    pub lines: u64,
    /// In the order in which header and then trailer name them.
    pub sums: Vec<Exact>,
}

/// A stretch of a line: its tag, or a field by its place in the layout.
#[derive(Clone, Copy, Debug)]
enum Part {
    Tag,
    Field(usize),
}

fn config(message: String) -> TaskError {
    TaskError::new(ErrorClass::Config, message)
}

fn data(message: String) -> TaskError {
    TaskError::new(ErrorClass::Data, message)
}

fn parts(layout: &RecordLayout, line: &LineType) -> Vec<Part> {
    let mut parts: Vec<(u32, Part)> = (0..line.fields.len())
        .map(|at| (line.fields[at].at, Part::Field(at)))
        .collect();
    if line.tag.is_some() {
        parts.insert(0, (line.tag_at, Part::Tag));
    }
    if layout.delimiter.is_none() {
        parts.sort_by_key(|(at, _)| *at);
    }
    parts.into_iter().map(|(_, part)| part).collect()
}

impl LayoutStyle {
    pub fn of(sink: &RecordsSink) -> LayoutStyle {
        LayoutStyle {
            end: if sink.crlf { b"\r\n" } else { b"\n" },
            parts: sink.layout.lines.iter().map(|line| parts(&sink.layout, line)).collect(),
            layout: sink.layout.clone(),
        }
    }

    /// `None`, `Gzip` or `Zstd`.
    pub fn compression(&self) -> Compression {
        match self.layout.packing.compression {
            Compression::Auto => Compression::None,
            other => other,
        }
    }

    pub fn encoder(&self, file: DurableFile) -> Result<TextEncoder, TaskError> {
        TextEncoder::new(file, self.compression(), self.layout.packing.encoding)
    }

    /// The header or trailer of a file, with its line end.
    ///
    /// Errors: `Data` where a total does not fit its field.
    pub fn edge(&self, edge: &LineType, totals: &BodyTotals) -> Result<Vec<u8>, TaskError> {
        let mut sums = self
            .layout
            .edges()
            .flat_map(|edge| &edge.fields)
            .filter_map(|field| matches!(field.total, Some(Total::Sum(_))).then_some(field as *const LayoutField));
        let mut line = LineBuilder::new(&self.layout, edge);
        for part in parts(&self.layout, edge) {
            let Part::Field(at) = part else {
                line.tag();
                continue;
            };
            let field = &edge.fields[at];
            let text = match &field.total {
                None => String::new(),
                Some(Total::Records) => number(Exact::whole(i128::from(totals.records)), field, &edge.name)?,
                Some(Total::Lines) => number(Exact::whole(i128::from(totals.lines)), field, &edge.name)?,
                Some(Total::Sum(_)) => {
                    let place = sums.position(|known| std::ptr::eq(known, field));
                    let sum = place.and_then(|place| totals.sums.get(place)).copied();
                    number(sum.unwrap_or_default(), field, &edge.name)?
                }
            };
            line.field(field, (!text.is_empty()).then_some(&text))?;
        }
        line.finish(self.end)
    }

    /// Checks the rows that the sink will get against the layout.
    ///
    /// Errors: `Config`, naming the column and what there is.
    pub fn check(&self, output: &Schema) -> Result<(), TaskError> {
        let names = || {
            let names: Vec<&str> = output.fields().iter().map(|field| field.name().as_str()).collect();
            names.join(", ")
        };
        let column = |name: &str| {
            output.field_with_name(name).map_err(|_| {
                config(format!(
                    "the layout has a column {name}, the output has none; it has {}",
                    names()
                ))
            })
        };
        let mut used: Vec<&str> = Vec::new();
        if let Some(name) = &self.layout.type_column {
            expect_text(column(name)?)?;
            used.push(name);
        }
        for line in &self.layout.lines {
            if self.layout.multiline && line.repeats {
                used.push(&line.name);
                let items = list_items(column(&line.name)?)?;
                for name in line.fields.iter().filter_map(|field| field.name.as_deref()) {
                    let (_, item) = items.find(name).ok_or_else(|| {
                        config(format!(
                            "column {} is a list whose items have no field {name}",
                            line.name
                        ))
                    })?;
                    check_type(name, item.data_type())?;
                }
                continue;
            }
            if let Some(name) = &line.present {
                used.push(name);
                if column(name)?.data_type() != &DataType::Boolean {
                    return Err(config(format!(
                        "column {name} says whether a line is there: it must be true or false"
                    )));
                }
            }
            for name in line.fields.iter().filter_map(|field| field.name.as_deref()) {
                check_type(name, column(name)?.data_type())?;
                used.push(name);
            }
        }
        match output
            .fields()
            .iter()
            .find(|field| !used.contains(&field.name().as_str()))
        {
            None => Ok(()),
            Some(left) => Err(config(format!(
                "column {} of the output has no place in the layout; leave it out of the SQL, or add a field",
                left.name()
            ))),
        }
    }
}

fn expect_text(field: &Field) -> Result<(), TaskError> {
    match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(()),
        other => Err(config(format!(
            "column {} names the type of a line: it must be text, not {}",
            field.name(),
            type_name(other)
        ))),
    }
}

fn list_items(field: &Field) -> Result<&arrow::datatypes::Fields, TaskError> {
    match field.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) => match item.data_type() {
            DataType::Struct(fields) => Ok(fields),
            other => Err(config(format!(
                "column {} must be a list of structs, not of {}",
                field.name(),
                type_name(other)
            ))),
        },
        other => Err(config(format!(
            "column {} holds the lines of a type that repeats: it must be a list of structs, such as \
             array_agg(named_struct('x', x)) makes, not {}",
            field.name(),
            type_name(other)
        ))),
    }
}

/// A number in the form of its field.
fn number(value: Exact, field: &LayoutField, of: &str) -> Result<String, TaskError> {
    let name = field.name.as_deref().unwrap_or("a total");
    let wanted = match field.ty {
        ColumnType::Decimal { scale, .. } => scale.unsigned_abs(),
        _ => 0,
    };
    let too_exact = || data(format!("the {of}: {name} is {value}, which its type does not hold"));
    let mut value = value;
    while value.scale > wanted {
        if value.units % 10 != 0 {
            return Err(too_exact());
        }
        value.units /= 10;
        value.scale -= 1;
    }
    let value = value
        .checked_add(Exact {
            units: 0,
            scale: wanted,
        })
        .ok_or_else(too_exact)?;
    Ok(match field.implied_point {
        true => value.units.to_string(),
        false => value.to_string(),
    })
}

/// One line, from left to right.
struct LineBuilder<'a> {
    layout: &'a RecordLayout,
    line: &'a LineType,
    text: Vec<u8>,
    /// Characters in `text`.
    chars: u32,
    parts: usize,
}

impl<'a> LineBuilder<'a> {
    fn new(layout: &'a RecordLayout, line: &'a LineType) -> Self {
        Self {
            layout,
            line,
            text: Vec::with_capacity(line.width() as usize + 2),
            chars: 0,
            parts: 0,
        }
    }

    fn blanks(&mut self, up_to: u32) {
        let missing = up_to.saturating_sub(self.chars);
        self.fill(b' ', missing);
    }

    fn fill(&mut self, byte: u8, count: u32) {
        self.text.resize(self.text.len() + count as usize, byte);
        self.chars += count;
    }

    fn push(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
        self.chars += text.chars().count() as u32;
    }

    fn begin_part(&mut self, at: u32) {
        match self.layout.delimiter {
            Some(delimiter) if self.parts > 0 => self.text.push(delimiter),
            Some(_) => {}
            None => self.blanks(at),
        }
        self.parts += 1;
    }

    fn tag(&mut self) {
        self.begin_part(self.line.tag_at);
        if let Some(tag) = &self.line.tag {
            self.push(tag);
        }
    }

    /// Errors: `Data` for a value that the field cannot hold.
    fn field(&mut self, own: &LayoutField, value: Option<&String>) -> Result<(), TaskError> {
        self.begin_part(own.at);
        let Some(text) = own.value.as_ref().or(value) else {
            if self.layout.delimiter.is_none() {
                self.fill(b' ', own.width);
            }
            return Ok(());
        };
        let wrong = |why: String| {
            let shown: String = text.chars().take(SHOWN).collect();
            let name = own.name.as_deref().unwrap_or("without a name");
            let line = match self.line.name.as_str() {
                // The only type of line there is.
                "line" => String::new(),
                name => format!("line {name}, "),
            };
            data(format!("{line}field {name}: «{shown}» {why}"))
        };
        if text.bytes().any(|byte| matches!(byte, b'\n' | b'\r')) {
            return Err(wrong("holds a line end, which a line cannot".to_string()));
        }
        let Some(delimiter) = self.layout.delimiter else {
            let chars = text.chars().count() as u32;
            let Some(rest) = own.width.checked_sub(chars) else {
                return Err(wrong(format!("has {chars} characters, the field {}", own.width)));
            };
            let start = self.text.len();
            match own.align {
                Align::Left => {
                    self.push(text);
                    self.fill(own.pad, rest);
                }
                // Zeros stand between the sign and the digits.
                Align::Right if own.pad == b'0' && text.starts_with('-') && own.ty.is_number() => {
                    self.push("-");
                    self.fill(own.pad, rest);
                    self.push(&text[1..]);
                }
                Align::Right => {
                    self.fill(own.pad, rest);
                    self.push(text);
                }
            }
            // What always stands there is compared as it is.
            if own.value.is_none() && !reads_back(text.as_bytes(), &self.text[start..], own) {
                let side = match own.align {
                    Align::Left => "ends",
                    Align::Right => "begins",
                };
                return Err(wrong(format!(
                    "{side} with what fills the field («{}») and would be read back as another value: trim it in the SQL, or give the field another `pad` or `align`",
                    char::from(own.pad)
                )));
            }
            return Ok(());
        };
        if text.as_bytes().contains(&delimiter) {
            return Err(wrong(format!("holds the delimiter «{}»", char::from(delimiter))));
        }
        self.push(text);
        Ok(())
    }

    fn finish(mut self, end: &[u8]) -> Result<Vec<u8>, TaskError> {
        if self.layout.delimiter.is_none() {
            self.blanks(self.line.width());
        }
        if self.text.is_empty() {
            return Err(data(format!(
                "a line of type {} would be empty, and an empty line is no record",
                self.line.name
            )));
        }
        self.text.extend_from_slice(end);
        Ok(self.text)
    }
}

/// The values of a field, in the form in which they are written.
struct Values {
    column: ArrayRef,
    /// Of a decimal whose point is implied.
    units: Option<Decimal128Array>,
}

impl Values {
    fn cells(&self) -> Result<Cells<'_>, TaskError> {
        Ok(Cells {
            text: TextColumn::new(&self.column)?,
            units: self.units.as_ref(),
        })
    }

    /// Errors: `Data` for a value that the field's type does not hold exactly.
    fn new(own: &LayoutField, name: &str, column: &ArrayRef) -> Result<Values, TaskError> {
        let column = textual(name, column)?;
        if own.ty == ColumnType::String {
            return Ok(Values { column, units: None });
        }
        let wanted = arrow_type(name, own.ty)?;
        let column = match column.data_type() {
            ty if ty == &wanted => column,
            // No value, whatever the type.
            DataType::Null => new_null_array(&wanted, column.len()),
            _ => exactly(name, &column, &wanted)?,
        };
        let units = own
            .implied_point
            .then(|| column.as_primitive::<Decimal128Type>().clone());
        Ok(Values { column, units })
    }
}

/// The column as another type, where nothing is lost.
fn exactly(name: &str, column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, TaskError> {
    let lossy = || {
        let (is, wanted) = type_names(column.data_type(), wanted);
        data(format!(
            "column {name} holds values of type {is} that {wanted}, the type of its field, does not hold exactly; round or \
             cast them in the SQL"
        ))
    };
    let made = cast(column, wanted).map_err(|_| lossy())?;
    let back = cast(&made, column.data_type()).map_err(|_| lossy())?;
    match back.to_data() == column.to_data() && made.null_count() == column.null_count() {
        true => Ok(made),
        false => Err(lossy()),
    }
}

struct Cells<'a> {
    text: TextColumn<'a>,
    units: Option<&'a Decimal128Array>,
}

impl Cells<'_> {
    fn is_null(&self, row: usize) -> bool {
        self.text.is_null(row)
    }

    fn value(&self, row: usize) -> Result<Option<String>, TaskError> {
        if self.text.is_null(row) {
            return Ok(None);
        }
        if let Some(units) = self.units {
            return Ok(Some(units.value(row).to_string()));
        }
        let mut bytes = Vec::new();
        self.text.append(row, &mut bytes)?;
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| data("a value has no text in UTF-8".to_string()))
    }
}

/// The columns of a batch that a type of line is written from.
struct LineColumns {
    /// For each field; `None` where it has no name.
    values: Vec<Option<Values>>,
    present: Option<ArrayRef>,
    /// Of a line that repeats.
    list: Option<ListArray>,
}

pub(crate) struct LayoutFile {
    encoder: TextEncoder,
    style: Arc<LayoutStyle>,
    schema: SchemaRef,
    buffer: Vec<u8>,
}

impl LayoutFile {
    pub fn begin(file: DurableFile, schema: SchemaRef, style: Arc<LayoutStyle>) -> Result<Self, TaskError> {
        Ok(Self {
            encoder: style.encoder(file)?,
            style,
            schema,
            buffer: Vec::new(),
        })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        let style = self.style.clone();
        let layout = &style.layout;
        let columns = layout
            .lines
            .iter()
            .map(|line| self.columns(batch, line, layout.multiline))
            .collect::<Result<Vec<_>, _>>()?;
        let cells = columns
            .iter()
            .map(|line| {
                line.values
                    .iter()
                    .map(|values| values.as_ref().map(Values::cells).transpose())
                    .collect::<Result<Vec<_>, _>>()
            })
            .collect::<Result<Vec<_>, _>>()?;
        let types = match &layout.type_column {
            Some(name) => Some(textual(name, self.column(batch, name)?)?),
            None => None,
        };
        let types = types.as_ref().map(|types| TextColumn::new(types)).transpose()?;
        for row in 0..batch.num_rows() {
            match (&types, layout.multiline) {
                (Some(types), _) => {
                    let name = types.text(row).filter(|_| !types.is_null(row)).unwrap_or_default();
                    let Some(ty) = layout.lines.iter().position(|line| line.name == name) else {
                        let known: Vec<&str> = layout.lines.iter().map(|line| line.name.as_str()).collect();
                        return Err(data(format!(
                            "«{name}» is no type of line of the layout, which has {}",
                            known.join(", ")
                        )));
                    };
                    self.line(&style, ty, &cells[ty], row)?;
                }
                (None, false) => self.line(&style, 0, &cells[0], row)?,
                (None, true) => self.group(&style, &columns, &cells, row)?,
            }
            if self.buffer.len() >= BUFFER_BYTES {
                self.write_out()?;
            }
        }
        Ok(())
    }

    fn group(
        &mut self,
        style: &LayoutStyle,
        columns: &[LineColumns],
        cells: &[Vec<Option<Cells<'_>>>],
        row: usize,
    ) -> Result<(), TaskError> {
        for (ty, line) in style.layout.lines.iter().enumerate() {
            if let Some(list) = &columns[ty].list {
                let offsets = list.value_offsets();
                let items = match list.is_null(row) {
                    true => 0..0,
                    false => offsets[row] as usize..offsets[row + 1] as usize,
                };
                if items.is_empty() && !line.optional {
                    return Err(data(format!(
                        "a record without a line of type {}, which it must have",
                        line.name
                    )));
                }
                for item in items {
                    self.line(style, ty, &cells[ty], item)?;
                }
                continue;
            }
            let there = match &columns[ty].present {
                Some(present) => present.is_valid(row) && present.as_boolean().value(row),
                None => !line.optional || cells[ty].iter().flatten().any(|cells| !cells.is_null(row)),
            };
            if there {
                self.line(style, ty, &cells[ty], row)?;
            }
        }
        Ok(())
    }

    fn line(
        &mut self,
        style: &LayoutStyle,
        ty: usize,
        cells: &[Option<Cells<'_>>],
        row: usize,
    ) -> Result<(), TaskError> {
        let line_type = &style.layout.lines[ty];
        let mut line = LineBuilder::new(&style.layout, line_type);
        for part in &style.parts[ty] {
            match part {
                Part::Tag => line.tag(),
                Part::Field(at) => {
                    let value = match &cells[*at] {
                        Some(cells) => cells.value(row)?,
                        None => None,
                    };
                    line.field(&line_type.fields[*at], value.as_ref())?;
                }
            }
        }
        self.buffer.extend(line.finish(style.end)?);
        Ok(())
    }

    fn column<'b>(&self, batch: &'b RecordBatch, name: &str) -> Result<&'b ArrayRef, TaskError> {
        let at = self
            .schema
            .index_of(name)
            .map_err(|_| config(format!("the layout has a column {name}, the output has none")))?;
        Ok(batch.column(at))
    }

    fn columns(&self, batch: &RecordBatch, line: &LineType, multiline: bool) -> Result<LineColumns, TaskError> {
        let mut list = None;
        if multiline && line.repeats {
            let column = self.column(batch, &line.name)?;
            let (DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item)) = column.data_type()
            else {
                return Err(config(format!("column {} is no list", line.name)));
            };
            let plain = cast(column, &DataType::List(item.clone()))
                .map_err(|error| data(format!("column {}: {error}", line.name)))?;
            list = Some(plain.as_list::<i32>().clone());
        }
        let of_field = |own: &LayoutField| {
            let Some(name) = &own.name else { return Ok(None) };
            let column = match &list {
                Some(list) => list
                    .values()
                    .as_struct_opt()
                    .and_then(|items| items.column_by_name(name).cloned())
                    .ok_or_else(|| config(format!("the items of {} have no field {name}", line.name)))?,
                None => self.column(batch, name)?.clone(),
            };
            Values::new(own, name, &column).map(Some)
        };
        Ok(LineColumns {
            values: line.fields.iter().map(of_field).collect::<Result<_, _>>()?,
            present: match &line.present {
                Some(name) => Some(self.column(batch, name)?.clone()),
                None => None,
            },
            list,
        })
    }

    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    pub fn write_out(&mut self) -> Result<(), TaskError> {
        self.encoder.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    pub fn close(mut self) -> Result<DurableFile, TaskError> {
        self.write_out()?;
        self.encoder.close()
    }
}

//! Reports: rows through templates, with pages and totals. A chunk stages its rows as Parquet; the merge
//! stage, which sees all of them in order, writes the one text. Rows stream, so memory is that of a batch.

mod operators;

use std::{collections::BTreeMap, io::Write};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, Int64Type, Schema, UInt64Type},
};
use gapless_common::{
    error::{ErrorClass, TaskError},
    exact::Exact,
    job::ReportSink,
};
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value};

use self::operators::{Compiled, Decimal};
use super::text::{TextColumn, check_type, textual};
use crate::{
    storage::{DurableFile, io_error},
    type_names::type_name,
};

/// Steps that a template may take: a row of hundreds of columns takes some thousands.
const FUEL: u64 = 1_000_000;

/// A page's header or a row is text for people, not a file of its own.
const MAX_PIECE_BYTES: usize = 1024 * 1024;

/// Text is handed on in pieces of this size: a system call and a hash update for each.
const BUFFER_BYTES: usize = 256 * 1024;

/// What a template may name besides the columns of a row.
const PAGE_VALUES: [&str; 4] = ["page", "rows", "totals", "page_totals"];

const ROW: &str = "row";

/// The templates of a report, compiled.
#[derive(Debug)]
pub(crate) struct ReportStyle {
    sink: ReportSink,
    environment: Environment<'static>,
    escape: AutoEscape,
}

fn config(message: String) -> TaskError {
    TaskError::new(ErrorClass::Config, message)
}

fn data(message: String) -> TaskError {
    TaskError::new(ErrorClass::Data, message)
}

/// The error of a template with what caused it.
fn reason(error: &minijinja::Error) -> String {
    use std::error::Error;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// Fills with blanks up to a width; what is longer stays whole.
fn left(value: &Value, width: usize) -> String {
    format!("{:<width$}", operators::text(value))
}

fn right(value: &Value, width: usize) -> String {
    format!("{:>width$}", operators::text(value))
}

/// Commas between groups of three digits before the point.
fn grouped(value: &Value) -> String {
    let text = operators::text(value);
    let digits = text.trim_start_matches('-');
    let whole = digits.find('.').unwrap_or(digits.len());
    if !digits.as_bytes()[..whole].iter().all(u8::is_ascii_digit) {
        return text;
    }
    let mut grouped = text[..text.len() - digits.len()].to_string();
    for (at, digit) in digits[..whole].chars().enumerate() {
        if at > 0 && (whole - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + &digits[whole..]
}

impl ReportStyle {
    /// Errors: `Config` for a template that cannot be compiled or names what no report has, with its place.
    pub fn of(sink: &ReportSink) -> Result<ReportStyle, TaskError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        let escape = match sink.extension.as_str() {
            "html" | "htm" => AutoEscape::Html,
            _ => AutoEscape::None,
        };
        environment.set_auto_escape_callback(move |_| escape);
        environment.set_keep_trailing_newline(true);
        operators::add_to(&mut environment);
        environment.add_filter("left", left);
        environment.add_filter("right", right);
        environment.add_filter("grouped", grouped);
        for (name, text) in templates(sink) {
            environment
                .add_template_owned(name, text.to_string())
                .map_err(|error| config(format!("the template `{name}`: {}", reason(&error))))?;
        }
        let style = ReportStyle {
            sink: sink.clone(),
            environment,
            escape,
        };
        for (name, _) in templates(sink) {
            style.check_totals(name)?;
            // Which columns there are is not known here: of a row, only what no column can mend.
            let mut values = Vec::new();
            match name {
                ROW => values.extend(style.named(name, false)?.into_iter().map(|it| (it, Value::from("1")))),
                _ => style.check_names(name, &[])?,
            }
            style.try_out(name, values, name != ROW)?;
        }
        Ok(style)
    }

    /// The template of a name, if the sink has it.
    ///
    /// Errors: `Config` where it cannot be compiled.
    fn compile(&self, name: &'static str) -> Result<Option<Compiled<'_>>, TaskError> {
        let found = templates(&self.sink).find(|(known, _)| *known == name);
        found
            .map(|(name, text)| Compiled::new(name, text, self.escape))
            .transpose()
            .map_err(|error| config(format!("the template `{name}`: {}", reason(&error))))
    }

    /// The values that a template names; with `nested` also as `totals.amount`.
    fn named(&self, name: &str, nested: bool) -> Result<Vec<String>, TaskError> {
        let template = self.environment.get_template(name);
        let template = template.map_err(|error| config(reason(&error)))?;
        let mut named: Vec<String> = template.undeclared_variables(nested).into_iter().collect();
        named.sort_unstable();
        // Functions of the language are no values of ours.
        named.retain(|wanted| !self.environment.globals().any(|(global, _)| global == wanted));
        Ok(named)
    }

    fn check_totals(&self, name: &str) -> Result<(), TaskError> {
        for named in self.named(name, true)? {
            let mut parts = named.split('.');
            let is_sum = matches!(parts.next(), Some("totals" | "page_totals"));
            let Some(column) = parts.next().filter(|_| is_sum) else {
                continue;
            };
            if !self.sink.totals.iter().any(|total| total == column) {
                let summed = match self.sink.totals.as_slice() {
                    [] => "no column".to_string(),
                    totals => format!("{} alone", totals.join(", ")),
                };
                return Err(config(format!(
                    "the template `{name}` names «{named}», and `totals` names {summed}: name {column} there"
                )));
            }
        }
        Ok(())
    }

    fn check_names(&self, name: &str, columns: &[&str]) -> Result<(), TaskError> {
        let there: Vec<&str> = columns.iter().chain(&PAGE_VALUES).copied().collect();
        match self.named(name, false)?.iter().find(|it| !there.contains(&it.as_str())) {
            None => Ok(()),
            Some(unknown) => Err(config(format!(
                "the template `{name}` names «{unknown}», which it has not; it has {}",
                there.join(", ")
            ))),
        }
    }

    /// Renders a template once, with made-up values. What values alone may cause is no fault; what is one for all values
    /// is: a filter, test or function that does not exist and, where `typed`, a sum of text and a number.
    fn try_out(&self, name: &'static str, mut values: Vec<(String, Value)>, typed: bool) -> Result<(), TaskError> {
        let Some(template) = self.compile(name)? else {
            return Ok(());
        };
        let sums = || Value::from_iter(self.sink.totals.iter().map(|total| (total.clone(), decimal("1"))));
        values.retain(|(name, _)| !PAGE_VALUES.contains(&name.as_str()));
        values.push(("page".to_string(), Value::from(1)));
        values.push(("rows".to_string(), Value::from(1)));
        values.push(("totals".to_string(), sums()));
        values.push(("page_totals".to_string(), sums()));
        let Err(error) = template.render(&self.environment, Value::from_iter(values)) else {
            return Ok(());
        };
        let is_fault = match error.kind() {
            ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction => true,
            ErrorKind::InvalidOperation => {
                let detail = error.detail().unwrap_or_default();
                typed && operators::UNSUPPORTED.iter().any(|fault| detail.starts_with(fault))
            }
            _ => false,
        };
        match is_fault {
            true => Err(config(format!("the template `{name}`: {}", reason(&error)))),
            false => Ok(()),
        }
    }

    pub fn extension(&self) -> &str {
        &self.sink.extension
    }

    /// Checks the templates against the rows that they will get.
    ///
    /// Errors: `Config`, naming the template, what it names, and what there is.
    pub fn check(&self, output: &Schema) -> Result<(), TaskError> {
        let columns: Vec<&str> = output.fields().iter().map(|field| field.name().as_str()).collect();
        for field in output.fields() {
            check_type(field.name(), field.data_type())?;
            if PAGE_VALUES.contains(&field.name().as_str()) {
                return Err(config(format!(
                    "a report has a value {0} of its own: give the column {0} another name in the SQL",
                    field.name()
                )));
            }
        }
        for total in &self.sink.totals {
            let field = output.field_with_name(total).map_err(|_| {
                config(format!(
                    "totals: no column {total} in the output; there are {}",
                    columns.join(", ")
                ))
            })?;
            if exact_scale(field.data_type()).is_none() {
                return Err(config(format!(
                    "totals: column {total} is {}; sums are of whole numbers and decimals",
                    type_name(field.data_type())
                )));
            }
        }
        self.check_names(ROW, &columns)?;
        let fields = output.fields().iter();
        let values = fields.map(|field| (field.name().clone(), sample(field.data_type())));
        self.try_out(ROW, values.collect(), true)
    }
}

/// The templates that the sink has, by their keys.
fn templates(sink: &ReportSink) -> impl Iterator<Item = (&'static str, &str)> {
    [
        ("begin", &sink.begin),
        ("header", &sink.header),
        ("footer", &sink.footer),
        ("end", &sink.end),
    ]
    .into_iter()
    .filter_map(|(name, text)| Some((name, text.as_deref()?)))
    .chain([(ROW, sink.row.as_str())])
}

/// A value of the kind that [`value`] makes of a column.
fn sample(ty: &DataType) -> Value {
    match ty {
        DataType::Boolean => Value::from(true),
        DataType::Float32 | DataType::Float64 => Value::from(1.0),
        ty if ty.is_integer() => Value::from(1),
        ty if ty.is_decimal() => decimal("1"),
        _ => Value::from("1"),
    }
}

fn decimal(text: &str) -> Value {
    Value::from_object(Decimal(text.to_string()))
}

/// Digits behind the point of a type whose sums are exact.
fn exact_scale(ty: &DataType) -> Option<u8> {
    match ty {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
            u8::try_from(*scale).ok()
        }
        ty if ty.is_integer() => Some(0),
        _ => None,
    }
}

/// A report that is being written.
pub(crate) struct ReportFile<'a> {
    file: DurableFile,
    style: &'a ReportStyle,
    templates: BTreeMap<&'static str, Compiled<'a>>,
    buffer: Vec<u8>,
    page: u64,
    rows: u64,
    on_page: u64,
    totals: Vec<Exact>,
    page_totals: Vec<Exact>,
}

impl<'a> ReportFile<'a> {
    /// Begins the report. `schema` is that of the rows.
    pub fn begin(file: DurableFile, schema: &Schema, style: &'a ReportStyle) -> Result<Self, TaskError> {
        let zero = |name: &String| {
            let ty = schema
                .field_with_name(name)
                .ok()
                .and_then(|field| exact_scale(field.data_type()));
            Exact {
                units: 0,
                scale: ty.unwrap_or(0),
            }
        };
        let zeros: Vec<Exact> = style.sink.totals.iter().map(zero).collect();
        let mut compiled = BTreeMap::new();
        for (name, _) in templates(&style.sink) {
            compiled.extend(style.compile(name)?.map(|template| (name, template)));
        }
        let mut report = Self {
            file,
            style,
            templates: compiled,
            buffer: Vec::new(),
            page: 1,
            rows: 0,
            on_page: 0,
            page_totals: zeros.clone(),
            totals: zeros,
        };
        report.piece("begin", Vec::new())?;
        report.piece("header", Vec::new())?;
        Ok(report)
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        let schema = batch.schema();
        let columns = schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, column)| textual(field.name(), column))
            .collect::<Result<Vec<_>, _>>()?;
        let texts = columns
            .iter()
            .map(|column| TextColumn::new(column))
            .collect::<Result<Vec<_>, _>>()?;
        let summed = self
            .style
            .sink
            .totals
            .iter()
            .map(|name| {
                let at = schema
                    .index_of(name)
                    .map_err(|_| config(format!("totals: no column {name}")))?;
                units(&columns[at])
            })
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            if self
                .style
                .sink
                .page_rows
                .is_some_and(|rows| self.on_page >= u64::from(rows))
            {
                self.turn_page()?;
            }
            self.rows += 1;
            self.on_page += 1;
            for (at, units) in summed.iter().enumerate() {
                let value = match units[row] {
                    Some(value) => value,
                    None => continue,
                };
                for sum in [&mut self.totals[at], &mut self.page_totals[at]] {
                    let more = Exact {
                        units: value,
                        scale: sum.scale,
                    };
                    *sum = sum
                        .checked_add(more)
                        .ok_or_else(|| data(format!("the total of {} leaves 128 bits", self.style.sink.totals[at])))?;
                }
            }
            let mut values = Vec::with_capacity(columns.len() + PAGE_VALUES.len());
            for ((field, column), text) in schema.fields().iter().zip(&columns).zip(&texts) {
                values.push((field.name().clone(), value(column, text, row)?));
            }
            self.piece(ROW, values)?;
        }
        Ok(())
    }

    fn turn_page(&mut self) -> Result<(), TaskError> {
        self.piece("footer", Vec::new())?;
        self.buffer.extend_from_slice(self.style.sink.page_break.as_bytes());
        self.page += 1;
        self.on_page = 0;
        self.page_totals.iter_mut().for_each(|sum| sum.units = 0);
        self.piece("header", Vec::new())
    }

    /// Adds what a template makes, with a line end. One that makes nothing adds nothing.
    fn piece(&mut self, name: &str, mut values: Vec<(String, Value)>) -> Result<(), TaskError> {
        let Some(template) = self.templates.get(name) else {
            return Ok(());
        };
        let sums = |sums: &[Exact]| {
            let named = self.style.sink.totals.iter().zip(sums);
            Value::from_iter(named.map(|(name, sum)| {
                let sum = match sum.scale {
                    0 => Value::from(sum.units),
                    _ => decimal(&sum.to_string()),
                };
                (name.clone(), sum)
            }))
        };
        values.push(("page".to_string(), Value::from(self.page)));
        values.push(("rows".to_string(), Value::from(self.rows)));
        values.push(("totals".to_string(), sums(&self.totals)));
        values.push(("page_totals".to_string(), sums(&self.page_totals)));
        let text = template
            .render(&self.style.environment, Value::from_iter(values))
            .map_err(|error| {
                data(format!(
                    "the template `{name}`, at row {}: {}",
                    self.rows,
                    reason(&error)
                ))
            })?;
        if text.len() > MAX_PIECE_BYTES {
            return Err(data(format!(
                "the template `{name}`, at row {}: it makes {} bytes; at most {MAX_PIECE_BYTES} are possible",
                self.rows,
                text.len()
            )));
        }
        self.buffer.extend_from_slice(text.as_bytes());
        if !text.is_empty() && !text.ends_with('\n') {
            self.buffer.push(b'\n');
        }
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_out()?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), TaskError> {
        let path = self.file.path().to_path_buf();
        self.file
            .write_all(&self.buffer)
            .map_err(|error| io_error("write", &path, &error))?;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the last page and the report.
    pub fn close(mut self) -> Result<DurableFile, TaskError> {
        self.piece("footer", Vec::new())?;
        self.piece("end", Vec::new())?;
        self.write_out()?;
        Ok(self.file)
    }
}

/// The values of a summed column, times ten to its scale.
fn units(column: &ArrayRef) -> Result<Vec<Option<i128>>, TaskError> {
    let wide = match column.data_type() {
        DataType::UInt64 => {
            let values = column.as_primitive::<UInt64Type>();
            return Ok(values.iter().map(|value| value.map(i128::from)).collect());
        }
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
            DataType::Decimal128(38, *scale)
        }
        _ => DataType::Int64,
    };
    let cast = arrow::compute::cast(column, &wide).map_err(|error| data(format!("a total: {error}")))?;
    Ok(match wide {
        DataType::Int64 => cast
            .as_primitive::<Int64Type>()
            .iter()
            .map(|value| value.map(i128::from))
            .collect(),
        _ => cast.as_primitive::<Decimal128Type>().iter().collect(),
    })
}

/// A value for a template: numbers and booleans as such, all else as its exact text.
fn value(column: &ArrayRef, text: &TextColumn<'_>, row: usize) -> Result<Value, TaskError> {
    let float = |value: f64, shown: Value| match value.is_finite() {
        true => shown,
        // What a calculation gave would be an error.
        false => decimal(&value.to_string()),
    };
    if text.is_null(row) {
        return Ok(Value::from(()));
    }
    Ok(match column.data_type() {
        DataType::Boolean => Value::from(column.as_boolean().value(row)),
        DataType::Int64 => Value::from(column.as_primitive::<Int64Type>().value(row)),
        DataType::UInt64 => Value::from(column.as_primitive::<UInt64Type>().value(row)),
        DataType::Float64 => {
            let value = column.as_primitive::<Float64Type>().value(row);
            float(value, Value::from(value))
        }
        DataType::Float32 => {
            let value = column.as_primitive::<Float32Type>().value(row);
            float(value.into(), Value::from(value))
        }
        ty => {
            let mut bytes = Vec::new();
            text.append(row, &mut bytes)?;
            let text = String::from_utf8_lossy(&bytes);
            match ty.is_integer().then(|| text.parse::<i64>().ok()).flatten() {
                Some(number) => Value::from(number),
                None if ty.is_decimal() => decimal(&text),
                None => Value::from(text.into_owned()),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_aligned_and_grouped_and_never_cut() {
        let text = |value: &str| Value::from(value.to_string());
        assert_eq!(left(&text("ab"), 4) + "|", "ab  |");
        assert_eq!(right(&Value::from(7), 3), "  7");
        assert_eq!(right(&text("abcd"), 2), "abcd");
        for (plain, expected) in [
            ("1", "1"),
            ("-1234567.891", "-1,234,567.891"),
            ("123", "123"),
            ("n/a", "n/a"),
            ("", ""),
        ] {
            assert_eq!(grouped(&text(plain)), expected);
        }
    }
}

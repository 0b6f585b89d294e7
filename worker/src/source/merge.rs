//! Several inputs as one source: their records one behind the other, or in one order, in the columns of all.
//!
//! Each input keeps its own reader, positions and fingerprint. The units of the source are those of the inputs laid
//! end to end, so that a merge is cut, resumed and certified like one source of many files.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, Schema, SchemaRef},
    row::OwnedRow,
};
use gapless_common::{
    error::TaskError,
    job::{Job, MergeSource, MissingColumns, Source, Step},
    manifest::InputSpan,
    order::{self, KeySpan, SortColumn},
    plan::{Facts, InputFacts, PinnedFile},
    range::UnitRange,
};

use super::{
    InputBatch, Intake, Nowhere, Origin, Place, SourceReader,
    keys::Prints,
    open::{Stored, in_former_places, open_files, stored_of},
    pins::{config, data},
    shown::key_as_json,
    types::{key_remedy, key_type, schema_of},
};
use crate::{
    attempt::StepContext,
    engine::offer,
    sort::Order,
    type_names::{type_name, type_names},
};

/// Most digits of a decimal.
const DIGITS: u8 = 38;

/// An input as messages call it: `input 2 (csv new.csv)`. Counts from 1.
pub fn input_name(number: usize, source: &Source) -> String {
    format!("input {} ({})", number + 1, source.shown())
}

/// The columns of a merge: those of the first input, then those that only further ones have. A column has one type
/// that holds the values of all inputs as they are.
///
/// Errors: `Config` in words where a column is missing and may not be, or types do not go together.
pub fn columns_of_inputs(merge: &MergeSource, inputs: &[SchemaRef]) -> Result<Schema, TaskError> {
    let name = |number: usize| input_name(number, &merge.inputs[number]);
    // Each with the input that had it first.
    let mut columns: Vec<(Field, usize)> = Vec::new();
    for (number, schema) in inputs.iter().enumerate() {
        for field in schema.fields() {
            if merge
                .read_columns
                .as_ref()
                .is_some_and(|names| !names.contains(field.name()))
            {
                continue;
            }
            let Some((known, first)) = columns.iter_mut().find(|(known, _)| known.name() == field.name()) else {
                columns.push((field.as_ref().clone(), number));
                continue;
            };
            let Some(ty) = common_type(known.data_type(), field.data_type()) else {
                let (one, other) = type_names(known.data_type(), field.data_type());
                return Err(config(format!(
                    "merge: column «{}» is {one} in {} and {other} in {}: no type holds both as they are; declare one \
                     type, or let a step before this one cast it",
                    field.name(),
                    name(*first),
                    name(number)
                )));
            };
            let nullable = known.is_nullable() || field.is_nullable();
            *known = Field::new(field.name(), ty, nullable);
        }
    }
    let mut fields = Vec::with_capacity(columns.len());
    for (field, first) in columns {
        let lacks = inputs.iter().position(|schema| schema.index_of(field.name()).is_err());
        match (lacks, merge.missing_columns) {
            (None, _) => fields.push(field),
            (Some(_), MissingColumns::Fill) => fields.push(field.with_nullable(true)),
            (Some(lacks), MissingColumns::Refuse) => {
                let names: Vec<&str> = inputs[lacks]
                    .fields()
                    .iter()
                    .map(|field| field.name().as_str())
                    .collect();
                return Err(config(format!(
                    "merge: {} has no column «{}», which {} has; it has: {}. Columns are matched by name; with \
                     `missing_columns: fill` those that are missing are NULL",
                    name(lacks),
                    field.name(),
                    name(first),
                    names.join(", ")
                )));
            }
        }
    }
    Ok(Schema::new(fields))
}

/// The type that holds all values of both as they are.
fn common_type(one: &DataType, other: &DataType) -> Option<DataType> {
    use DataType::*;
    if one == other {
        return Some(one.clone());
    }
    let text = |ty: &DataType| matches!(ty, Utf8 | LargeUtf8 | Utf8View);
    if text(one) && text(other) {
        return Some(Utf8View);
    }
    match (one, other) {
        (Float32, Float64) | (Float64, Float32) => Some(Float64),
        (Decimal128(p, s), Decimal128(q, t)) if *s >= 0 && *t >= 0 => {
            let scale = *s.max(t);
            let whole = (i16::from(*p) - i16::from(*s)).max(i16::from(*q) - i16::from(*t));
            let digits = u8::try_from(whole + i16::from(scale)).ok()?;
            (digits <= DIGITS).then_some(Decimal128(digits, scale))
        }
        _ => common_integer(one, other),
    }
}

fn common_integer(one: &DataType, other: &DataType) -> Option<DataType> {
    use DataType::*;
    // Bytes, and whether it has a sign.
    let kind = |ty: &DataType| {
        Some(match ty {
            Int8 => (1, true),
            Int16 => (2, true),
            Int32 => (4, true),
            Int64 => (8, true),
            UInt8 => (1, false),
            UInt16 => (2, false),
            UInt32 => (4, false),
            UInt64 => (8, false),
            _ => return None,
        })
    };
    let ((size, signed), (size_of_other, other_signed)) = (kind(one)?, kind(other)?);
    if signed == other_signed {
        return Some(if size >= size_of_other { one } else { other }.clone());
    }
    let (with_sign, without) = match signed {
        true => (size, size_of_other),
        false => (size_of_other, size),
    };
    // One with a sign needs twice the bytes to hold those without.
    match with_sign.max(2 * without) {
        2 => Some(Int16),
        4 => Some(Int32),
        8 => Some(Int64),
        _ => None,
    }
}

/// The columns by which inputs are sorted, and those that are unique, have to be there and to have an order.
///
/// Errors: `Config` in words.
pub fn check_keys(merge: &MergeSource, columns: &Schema) -> Result<(), TaskError> {
    let by = merge.by.iter().map(|by| ("by", &by.column));
    for (key, name) in by.chain(merge.unique.iter().map(|name| ("unique", name))) {
        let Ok(field) = columns.field_with_name(name) else {
            let names: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
            let offer = offer(name, &names, "columns");
            return Err(config(format!(
                "merge: {key}: the inputs have no column «{name}»{offer}"
            )));
        };
        if key_type(field.data_type()).is_none() {
            return Err(config(format!(
                "merge: {key}: column {name} is {}, whose values cannot be compared; name a number, text, date, timestamp \
                 or bool{}",
                type_name(field.data_type()),
                key_remedy(field.data_type())
            )));
        }
    }
    Ok(())
}

/// The stretch of the domain, and of the files, that each input has.
pub(crate) fn stretches<'a>(
    inputs: &'a [InputFacts],
    files: &'a [PinnedFile],
) -> impl Iterator<Item = (&'a InputFacts, u64, &'a [PinnedFile])> {
    let (mut low, mut first) = (0, 0);
    inputs.iter().map(move |input| {
        let end = (first + input.files).min(files.len());
        let own = &files[first..end];
        let base = low;
        first = end;
        low += own.iter().map(|pinned| pinned.units).sum::<u64>();
        (input, base, own)
    })
}

/// Opens the records of `units` of a merge.
///
/// Errors: `Config` where the facts do not fit the job.
pub(super) fn open_merge(
    job: &Job,
    step: &Step,
    merge: &MergeSource,
    base_dir: &Path,
    facts: &Facts,
    units: UnitRange,
    projection: Option<&[String]>,
) -> Result<Box<dyn SourceReader>, TaskError> {
    let reader = merge_reader(job, step, merge, base_dir, facts, units, projection)?;
    Ok(Box::new(reader))
}

fn merge_reader(
    job: &Job,
    step: &Step,
    merge: &MergeSource,
    base_dir: &Path,
    facts: &Facts,
    units: UnitRange,
    projection: Option<&[String]>,
) -> Result<MergeReader, TaskError> {
    if facts.inputs.len() != merge.inputs.len() {
        return Err(config(format!(
            "the plan of step {} tells of {} inputs, the job of {}",
            step.name,
            facts.inputs.len(),
            merge.inputs.len()
        )));
    }
    let columns = match schema_of(&facts.columns) {
        Some(columns) => columns,
        None => {
            // Nested types have no name that reads back: the files tell.
            let schemas: Result<Vec<SchemaRef>, TaskError> = stretches(&facts.inputs, &facts.files)
                .zip(&merge.inputs)
                .map(|((input, _, files), source)| {
                    if let Some(schema) = schema_of(&input.columns) {
                        return Ok(Arc::new(schema));
                    }
                    let stored = stored_of(job, &step.name, source)?;
                    let all = UnitRange::new(0, files.iter().map(|pinned| pinned.units).sum());
                    let reader = open_files(&stored, base_dir, input.unit, files, &input.columns, all, None)?;
                    Ok(reader.schema())
                })
                .collect();
            columns_of_inputs(merge, &schemas?)?
        }
    };
    let fields = columns.fields().iter();
    let wanted = fields.filter(|field| projection.is_none_or(|names| names.contains(field.name())));
    let schema = Arc::new(Schema::new(wanted.cloned().collect::<Vec<_>>()));
    let mut parts = Vec::new();
    for (number, ((input, base, files), source)) in
        stretches(&facts.inputs, &facts.files).zip(&merge.inputs).enumerate()
    {
        let high = base + files.iter().map(|pinned| pinned.units).sum::<u64>();
        let own = UnitRange::new(units.low.max(base), units.high.min(high));
        if own.low >= own.high {
            continue;
        }
        let stored: Stored<'_> = stored_of(job, &step.name, source)?;
        let own = UnitRange::new(own.low - base, own.high - base);
        let names: Option<Vec<String>> = projection.map(|names| {
            let has = |name: &&String| input.columns.iter().any(|column| column.name == **name);
            names.iter().filter(has).cloned().collect()
        });
        let reader = open_files(
            &stored,
            base_dir,
            input.unit,
            files,
            &input.columns,
            own,
            names.as_deref(),
        )?;
        let reader = in_former_places(reader, source, base_dir)?;
        parts.push(Part { number, base, reader });
    }
    Ok(MergeReader {
        parts: parts.into_iter(),
        current: None,
        watch: Watch::new(merge, &schema)?,
        schema,
        position: units.low,
        high: units.high,
        intake: Intake::default(),
    })
}

/// The part of an input that lies in the range.
struct Part {
    number: usize,
    /// The unit of the source at which the input begins.
    base: u64,
    reader: Box<dyn SourceReader>,
}

/// Reads inputs one behind the other.
struct MergeReader {
    /// Those that have not begun.
    parts: std::vec::IntoIter<Part>,
    current: Option<Part>,
    schema: SchemaRef,
    watch: Watch,
    /// Up to where the inputs that are done with have been read.
    position: u64,
    high: u64,
    intake: Intake,
}

impl MergeReader {
    fn take_from_current(&mut self) {
        let Some(part) = &mut self.current else { return };
        let taken = part.reader.take_intake();
        let intake = &mut self.intake;
        intake.read += taken.read;
        intake.bytes += taken.bytes;
        intake.records += taken.records;
        intake.rejects.extend(taken.rejects);
        intake.totals.extend(taken.totals);
    }

    /// As `next_batch`, with the number of the input that the records are of.
    fn next_of_input(&mut self) -> Result<Option<(usize, InputBatch)>, TaskError> {
        loop {
            let Some(part) = &mut self.current else {
                self.current = self.parts.next();
                match self.current {
                    Some(_) => continue,
                    None => {
                        self.position = self.high;
                        return Ok(None);
                    }
                }
            };
            let number = part.number;
            let read = part.reader.next_batch()?;
            if let Some(input) = read {
                let fitted = InputBatch {
                    batch: fitted(&input.batch, &self.schema)?,
                    origin: input.origin,
                };
                self.watch.look(number, &fitted, &mut self.intake)?;
                return Ok(Some((number, fitted)));
            }
            self.position = part.base + part.reader.position();
            self.take_from_current();
            self.watch.last = None;
            self.current = None;
            // A chunk may end between two inputs.
            if self.parts.len() > 0 {
                let nothing = InputBatch {
                    batch: RecordBatch::new_empty(self.schema.clone()),
                    origin: Arc::new(Nowhere),
                };
                return Ok(Some((number, nothing)));
            }
        }
    }
}

impl SourceReader for MergeReader {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn next_batch(&mut self) -> Result<Option<InputBatch>, TaskError> {
        Ok(self.next_of_input()?.map(|(_, batch)| batch))
    }

    fn position(&self) -> u64 {
        match &self.current {
            Some(part) => part.base + part.reader.position(),
            None => self.position,
        }
    }

    fn may_stop(&self) -> bool {
        self.current.as_ref().is_none_or(|part| part.reader.may_stop())
    }

    fn passed(&self) -> u64 {
        self.current.as_ref().map_or(0, |part| part.reader.passed())
    }

    fn take_intake(&mut self) -> Intake {
        self.take_from_current();
        std::mem::take(&mut self.intake)
    }
}

/// What a merge promises of its inputs, held against their records.
struct Watch {
    by: Option<(Vec<SortColumn>, Order)>,
    unique: Option<Prints>,
    /// How messages call the inputs.
    names: Vec<String>,
    /// The last record of the input that is read.
    last: Option<(OwnedRow, Held)>,
}

/// A record with the way back to its origin.
pub(crate) struct Held {
    pub batch: RecordBatch,
    pub origin: Arc<dyn Origin>,
    pub row: usize,
}

impl Held {
    pub fn of(read: &InputBatch, row: usize) -> Held {
        Held {
            batch: read.batch.clone(),
            origin: read.origin.clone(),
            row,
        }
    }

    pub fn place(&self) -> Place {
        self.origin.locate(self.row)
    }

    /// The values of these columns.
    pub fn shown(&self, columns: &[String]) -> String {
        let values = key_as_json(&self.batch, self.row, columns).unwrap_or_default();
        let values: Vec<String> = values
            .values()
            .map(|value| match value {
                serde_json::Value::String(text) => format!("'{text}'"),
                serde_json::Value::Null => "NULL".to_string(),
                other => other.to_string(),
            })
            .collect();
        format!("({})", values.join(", "))
    }
}

/// What is said of an input that is not in its order.
pub(crate) fn not_sorted(name: &str, by: &[SortColumn], before: &Held, after: &Held) -> TaskError {
    let columns: Vec<String> = by.iter().map(|by| by.column.clone()).collect();
    data(format!(
        "merge: {name} is not sorted by {}: {} has {}, behind {} of {}; nothing is published: sort the input, or leave `by` \
         out",
        order::display(by),
        after.place(),
        after.shown(&columns),
        before.shown(&columns),
        before.place()
    ))
}

impl Watch {
    fn new(merge: &MergeSource, schema: &Schema) -> Result<Watch, TaskError> {
        let named = merge.inputs.iter().enumerate();
        Ok(Watch {
            by: match merge.by.is_empty() {
                true => None,
                false => Some((merge.by.clone(), Order::new(&merge.by, schema)?)),
            },
            unique: match merge.unique.is_empty() {
                true => None,
                false => Some(Prints::new(&merge.unique, schema)?),
            },
            names: named.map(|(number, input)| input_name(number, input)).collect(),
            last: None,
        })
    }

    /// Errors: `Data` where a record stands behind one that it belongs before.
    fn look(&mut self, input: usize, read: &InputBatch, intake: &mut Intake) -> Result<(), TaskError> {
        let rows = read.batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        if let Some((by, order)) = &self.by {
            let columns = order.key_columns(&read.batch)?;
            let keys = order.keys(&columns)?;
            let misplaced =
                |before: &Held, row: usize| Err(not_sorted(&self.names[input], by, before, &Held::of(read, row)));
            if let Some((last, held)) = &self.last
                && last.row() > keys.row(0)
            {
                return misplaced(held, 0);
            }
            if let Some(row) = (1..rows).find(|&row| keys.row(row - 1) > keys.row(row)) {
                return misplaced(&Held::of(read, row - 1), row);
            }
            let span = KeySpan {
                first: Order::key_row(&columns, 0),
                last: Order::key_row(&columns, rows - 1),
            };
            let input_no = input as u32;
            InputSpan::add_all(&mut intake.spans, vec![InputSpan { input: input_no, span }]);
            self.last = Some((keys.row(rows - 1).owned(), Held::of(read, rows - 1)));
        }
        if let Some(unique) = &self.unique {
            intake.keys.extend(unique.of(&read.batch)?.into_iter().flatten());
        }
        Ok(())
    }
}

/// Shows the records of `units` of a merge, with the number of their input and in the columns that the merge promises
/// something of, until `visit` wants no more.
pub(crate) fn look_again(
    context: &StepContext,
    facts: &Facts,
    merge: &MergeSource,
    units: UnitRange,
    visit: &mut dyn FnMut(usize, &InputBatch) -> Result<bool, TaskError>,
) -> Result<(), TaskError> {
    let columns: Vec<String> = merge
        .by
        .iter()
        .map(|by| &by.column)
        .chain(&merge.unique)
        .cloned()
        .collect();
    let step = context.step();
    let mut reader = merge_reader(
        &context.job,
        step,
        merge,
        &context.base_dir,
        facts,
        units,
        Some(&columns),
    )?;
    while let Some((input, read)) = reader.next_of_input()? {
        drop(reader.take_intake());
        if read.batch.num_rows() > 0 && !visit(input, &read)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Records of an input in the columns of the merge.
fn fitted(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, TaskError> {
    let rows = batch.num_rows();
    let column = |field: &Arc<Field>| -> Result<ArrayRef, TaskError> {
        let Some(column) = batch.column_by_name(field.name()) else {
            return Ok(new_null_array(field.data_type(), rows));
        };
        if column.data_type() == field.data_type() {
            return Ok(column.clone());
        }
        // The type of the merge holds every value, so none is lost.
        let exact = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        cast_with_options(column, field.data_type(), &exact)
            .map_err(|error| data(format!("merge: column {}: {error}", field.name())))
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|error| {
        data(format!(
            "merge: the records of an input do not fit its columns: {error}"
        ))
    })
}

#[cfg(test)]
mod tests;

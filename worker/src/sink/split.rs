//! Dividing the rows of a chunk over named outputs: each is a sub-folder of the step's output.
//!
//! The name of its output becomes one more column, by which [`HiveSink`] makes the folders.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    compute::filter,
    datatypes::{DataType, Field, Schema, SchemaRef},
    util::display::{ArrayFormatter, FormatOptions},
};
use gapless_common::{
    error::{ErrorClass, TaskError},
    job::{Split, SplitBy},
};

use super::{
    ChunkSink, SealedChunk,
    format::wrong_batch,
    hive::{HiveSink, folder_of_value},
    plain::Staging,
    text::{TextColumn, check_type, textual},
};
use crate::{
    engine::{Checks, Verdict, offer},
    exchange::HashBuckets,
};

/// The column that holds the name of a row's output; no name that a job can give.
const LABEL: &str = "\u{1}output";
/// Columns of a row that is shown in an error.
const SHOWN_COLUMNS: usize = 8;

pub(super) struct SplitSink {
    inner: HiveSink,
    labels: Labels,
    otherwise: Option<String>,
    schema: SchemaRef,
}

enum Labels {
    Value(usize),
    When(Vec<(String, Checks)>),
    Hash(HashBuckets),
}

/// Checks a split against the rows it will get.
///
/// Errors: `Config`, naming the column or the rule.
pub(super) fn check_split(split: &Split, rows: &SchemaRef) -> Result<(), TaskError> {
    labels(split, rows, 0).map(drop)
}

fn column(name: &str, rows: &Schema) -> Result<usize, TaskError> {
    rows.index_of(name).map_err(|_| {
        let names: Vec<&str> = rows.fields().iter().map(|field| field.name().as_str()).collect();
        let message = format!(
            "split: the output has no column «{name}»{}",
            offer(name, &names, "columns")
        );
        TaskError::new(ErrorClass::Config, message)
    })
}

/// `None` for a split that names no outputs.
fn labels(split: &Split, rows: &SchemaRef, now_micros: i64) -> Result<Option<Labels>, TaskError> {
    Ok(Some(match &split.by {
        SplitBy::Value(name) => {
            let index = column(name, rows)?;
            check_type(name, rows.field(index).data_type())?;
            Labels::Value(index)
        }
        SplitBy::When(rules) => Labels::When(
            rules
                .iter()
                .map(|rule| {
                    let checks = Checks::compile(std::slice::from_ref(rule), rows, now_micros)
                        .map_err(|error| TaskError::new(error.class, format!("split: {}", error.message)))?;
                    Ok((rule.name.clone(), checks))
                })
                .collect::<Result<_, TaskError>>()?,
        ),
        SplitBy::Hash { columns, into } => {
            columns.iter().try_for_each(|name| column(name, rows).map(drop))?;
            Labels::Hash(HashBuckets::new(columns, *into, rows)?)
        }
        SplitBy::Rows(_) => return Ok(None),
    }))
}

impl SplitSink {
    /// `None` for a split that names no outputs.
    pub fn new(
        split: &Split,
        rows: &SchemaRef,
        now_micros: i64,
        staging: &dyn Fn() -> Staging,
    ) -> Result<Option<Self>, TaskError> {
        let Some(labels) = labels(split, rows, now_micros)? else {
            return Ok(None);
        };
        let mut fields: Vec<_> = rows.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(LABEL, DataType::Utf8, false)));
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        Ok(Some(Self {
            inner: HiveSink::named(staging(), &schema, LABEL)?,
            labels,
            otherwise: split.otherwise.clone(),
            schema,
        }))
    }

    /// The output of each row; `None` where there is none for it. The other answer: why that of some row cannot be told.
    fn outputs(&mut self, batch: &RecordBatch) -> Result<Result<Vec<Option<String>>, String>, TaskError> {
        let rows = batch.num_rows();
        match &mut self.labels {
            Labels::Value(index) => {
                let name = batch.schema_ref().field(*index).name().clone();
                let column = textual(&name, batch.column(*index))?;
                let text = TextColumn::new(&column)?;
                let mut value = Vec::new();
                (0..rows)
                    .map(|row| {
                        if text.is_null(row) {
                            return Ok(None);
                        }
                        value.clear();
                        text.append(row, &mut value)?;
                        if value.is_empty() {
                            return Ok(None);
                        }
                        let taken = self.otherwise.as_deref();
                        folder_of_value(&name, &String::from_utf8_lossy(&value), taken).map(Some)
                    })
                    .collect::<Result<_, _>>()
                    .map(Ok)
            }
            Labels::When(rules) => {
                let mut outputs = vec![None; rows];
                // Rows that no rule has taken yet.
                let mut left: Vec<usize> = (0..rows).collect();
                let mut rest = batch.clone();
                for (name, rule) in rules {
                    if left.is_empty() {
                        break;
                    }
                    let taken = match rule.judge(&rest)? {
                        Verdict::Right => {
                            left.drain(..).for_each(|row| outputs[row] = Some(name.clone()));
                            break;
                        }
                        Verdict::Broken { keep, broken } => match broken.into_iter().find(|broken| broken.undecided) {
                            // Neither this output nor a later one.
                            Some(undecided) => return Ok(Err(format!("split «{name}»: {}", undecided.reason))),
                            None => keep,
                        },
                    };
                    let mut next = Vec::with_capacity(left.len());
                    for (at, row) in left.into_iter().enumerate() {
                        match taken.value(at) {
                            true => outputs[row] = Some(name.clone()),
                            false => next.push(row),
                        }
                    }
                    left = next;
                    let stays = arrow::compute::not(&taken).map_err(|error| wrong_batch(&error))?;
                    let columns = rest.columns().iter().map(|column| filter(column, &stays));
                    let columns = columns
                        .collect::<Result<Vec<_>, _>>()
                        .map_err(|error| wrong_batch(&error))?;
                    rest = RecordBatch::try_new(rest.schema(), columns).map_err(|error| wrong_batch(&error))?;
                }
                Ok(Ok(outputs))
            }
            Labels::Hash(buckets) => {
                let outputs = buckets.of(batch)?.iter().map(|bucket| Some(format!("{bucket:05}")));
                Ok(Ok(outputs.collect()))
            }
        }
    }

    fn unmatched(&self, batch: &RecordBatch, row: usize) -> TaskError {
        let options = FormatOptions::new().with_null("NULL");
        let fields = batch.schema_ref().fields().iter().zip(batch.columns());
        let shown = fields.take(SHOWN_COLUMNS).map(|(field, column)| {
            let value = ArrayFormatter::try_new(column.as_ref(), &options).map(|shown| shown.value(row).to_string());
            format!("{}: {:.200}", field.name(), value.unwrap_or_default())
        });
        TaskError::new(
            ErrorClass::Data,
            format!(
                "split: no output takes the row ({}); name one for such rows in `otherwise`",
                shown.collect::<Vec<_>>().join(", ")
            ),
        )
    }
}

impl ChunkSink for SplitSink {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        let outputs = self.outputs(batch)?;
        let outputs = outputs.map_err(|reason| TaskError::new(ErrorClass::Data, reason))?;
        if self.otherwise.is_none()
            && let Some(row) = outputs.iter().position(Option::is_none)
        {
            return Err(self.unmatched(batch, row));
        }
        let otherwise = self.otherwise.as_deref().unwrap_or_default();
        let labels = outputs.iter().map(|output| output.as_deref().unwrap_or(otherwise));
        let labels: ArrayRef = Arc::new(StringArray::from_iter_values(labels));
        let mut columns = batch.columns().to_vec();
        columns.push(labels);
        let labelled = RecordBatch::try_new(self.schema.clone(), columns).map_err(|error| wrong_batch(&error))?;
        self.inner.write(&labelled)
    }

    fn undecided(&mut self, batch: &RecordBatch) -> Result<Option<String>, TaskError> {
        match self.labels {
            Labels::When(_) => Ok(self.outputs(batch)?.err()),
            Labels::Value(_) | Labels::Hash(_) => Ok(None),
        }
    }

    fn seal(self: Box<Self>) -> Result<SealedChunk, TaskError> {
        Box::new(self.inner).seal()
    }
}

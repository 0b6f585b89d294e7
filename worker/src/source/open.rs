//! From a step and its facts to a reader of one unit range.

use std::{path::Path, sync::Arc};

use arrow::datatypes::DataType;
use gapless_common::{
    error::TaskError,
    job::{ColumnType, Compression, Job, RecordLayout, Sink, Source, Step},
    plan::{Column, Facts, PinnedFile, Unit},
    range::UnitRange,
};

use super::{
    SourceReader,
    avro::{AvroReader, head},
    csv::{CsvReader, Format, Layout, Records, column_type},
    merge::open_merge,
    parquet::{ParquetReader, footer},
    pins::config,
    places::Redriven,
    records::{RecordsReader, Shape},
    sequence::SequenceReader,
    types::schema_of,
};
use crate::storage::resolve;

/// How the records of a step's source are stored.
pub(crate) enum Stored<'a> {
    /// Delimited text, or lines of JSON.
    Text {
        format: Format,
        declared: &'a [(String, ColumnType)],
        /// The published output of an earlier step: types come from that step's columns.
        of_step: bool,
    },
    Parquet,
    Avro,
    Records(&'a RecordLayout),
    Sequence {
        from: i64,
    },
}

/// Errors: `Config` where the source is a step that does not exist or keeps no output.
pub(crate) fn stored<'a>(job: &'a Job, step: &'a Step) -> Result<Stored<'a>, TaskError> {
    stored_of(job, &step.name, &step.source)
}

/// As [`stored`] of one source of the step `name`: its own, or an input of a merge.
pub(crate) fn stored_of<'a>(job: &'a Job, step: &str, source: &'a Source) -> Result<Stored<'a>, TaskError> {
    Ok(match source {
        Source::Csv(csv) => Stored::Text {
            format: Format::from(csv),
            declared: &csv.columns,
            of_step: false,
        },
        Source::Ndjson(ndjson) => Stored::Text {
            format: Format::from(ndjson),
            declared: &ndjson.columns,
            of_step: false,
        },
        Source::Parquet(_) => Stored::Parquet,
        Source::Avro(_) => Stored::Avro,
        Source::Records(records) => Stored::Records(&records.layout),
        Source::Sequence { from, .. } => Stored::Sequence { from: *from },
        Source::Step(name) => {
            let earlier = job.step(name).ok_or_else(|| {
                config(format!(
                    "step {step}: its source is step {name}, which the job does not have"
                ))
            })?;
            match &earlier.sink {
                Sink::Csv(sink) => Stored::Text {
                    format: Format::from(sink),
                    declared: &[],
                    of_step: true,
                },
                Sink::Ndjson(_) => Stored::Text {
                    format: Format::ndjson(Compression::Auto, Vec::new(), false),
                    declared: &[],
                    of_step: true,
                },
                Sink::Parquet(_) => Stored::Parquet,
                Sink::Avro(_) => Stored::Avro,
                Sink::Records(records) => Stored::Records(&records.layout),
                Sink::Report(_) => {
                    return Err(config(format!(
                        "step {step}: its source is step {name}, whose sink is a report: a text for people, which is not read back"
                    )));
                }
                Sink::Discard => {
                    return Err(config(format!(
                        "step {step}: its source is step {name}, whose sink is discard: there is no output to read"
                    )));
                }
            }
        }
        Source::Merge(_) => {
            return Err(config(format!(
                "step {step}: a merge is read input by input; it has no format of its own"
            )));
        }
    })
}

/// Opens the records of `units` of a step's source.
///
/// `projection` names the columns that are wanted (a reader's schema holds them in source order);
/// `None` is all of them. Fields of other columns are not checked against their type. A sequence
/// has one column and returns it always.
///
/// Files are checked against their pins when they are opened, which is when the first batch from
/// them is asked for.
///
/// Errors: `Config` when the facts do not fit the job or a projected column does not exist.
pub fn open(
    job: &Job,
    step: &Step,
    base_dir: &Path,
    facts: &Facts,
    units: UnitRange,
    projection: Option<&[String]>,
) -> Result<Box<dyn SourceReader>, TaskError> {
    if let Source::Merge(merge) = &step.source {
        return open_merge(job, step, merge, base_dir, facts, units, projection);
    }
    let stored = stored(job, step)?;
    if let Stored::Sequence { from } = stored {
        return Ok(Box::new(SequenceReader::new(from, units)));
    }
    let reader = open_files(
        &stored,
        base_dir,
        facts.unit,
        &facts.files,
        &facts.columns,
        units,
        projection,
    )?;
    in_former_places(reader, &step.source, base_dir)
}

/// The reader of a source, which in a redrive tells of its records where they stood at first.
pub(super) fn in_former_places(
    reader: Box<dyn SourceReader>,
    source: &Source,
    base_dir: &Path,
) -> Result<Box<dyn SourceReader>, TaskError> {
    match source.places() {
        Some(places) => Ok(Box::new(Redriven::open(reader, &resolve(base_dir, places))?)),
        None => Ok(reader),
    }
}

pub(crate) fn open_files(
    stored: &Stored<'_>,
    base_dir: &Path,
    unit: Unit,
    files: &[PinnedFile],
    columns: &[Column],
    units: UnitRange,
    projection: Option<&[String]>,
) -> Result<Box<dyn SourceReader>, TaskError> {
    let (first_unit, overlapping) = overlapping(files, units);
    let base_dir_buf = base_dir.to_path_buf();
    match stored {
        Stored::Text {
            format,
            declared,
            of_step,
        } => {
            let typed = columns.iter().map(|column| {
                let ty = match of_step {
                    false => declared
                        .iter()
                        .find(|(name, _)| *name == column.name)
                        .map(|(_, ty)| *ty),
                    true => column.ty.parse::<DataType>().ok().and_then(|ty| column_type(&ty)),
                };
                (column.name.clone(), ty.unwrap_or(ColumnType::String))
            });
            let mut format = format.clone();
            // The survey made whole files the units of an output with line ends in its fields. A packed one without
            // them reads the same.
            format.dialect.multiline |= *of_step && unit == Unit::File && format.records == Records::Delimited;
            let layout = Layout::new(format, typed.collect(), projection)?;
            let layout = Arc::new(layout);
            Ok(Box::new(CsvReader::new(
                layout,
                base_dir_buf,
                overlapping,
                first_unit,
                unit,
                units,
            )))
        }
        Stored::Parquet => {
            let schema = match (schema_of(columns), overlapping.first()) {
                (Some(schema), _) => schema,
                // Nested types have no name that reads back: the files tell.
                (None, Some(pinned)) => {
                    let schema = footer(base_dir, &pinned.path)?.schema;
                    schema.as_ref().clone()
                }
                (None, None) => return Err(config("the plan names column types that cannot be read back")),
            };
            let schema = Arc::new(schema);
            let reader = ParquetReader::new(base_dir_buf, overlapping, first_unit, &schema, projection, units)?;
            Ok(Box::new(reader))
        }
        Stored::Avro => {
            let schema = match (schema_of(columns), overlapping.first()) {
                (Some(schema), _) => Arc::new(schema),
                // As with Parquet: the files tell.
                (None, Some(pinned)) => head(base_dir, &pinned.path)?.schema,
                (None, None) => return Err(config("the plan names column types that cannot be read back")),
            };
            let reader = AvroReader::new(base_dir_buf, overlapping, first_unit, &schema, projection, units)?;
            Ok(Box::new(reader))
        }
        Stored::Records(layout) => {
            let shape = Arc::new(Shape::new(layout, projection)?);
            Ok(Box::new(RecordsReader::new(
                shape,
                base_dir_buf,
                overlapping,
                first_unit,
                unit,
                units,
            )))
        }
        Stored::Sequence { from } => Ok(Box::new(SequenceReader::new(*from, units))),
    }
}

/// The files that hold units of the range, and the unit at which the first of them begins.
fn overlapping(files: &[PinnedFile], units: UnitRange) -> (u64, Arc<[PinnedFile]>) {
    let (mut low, mut first, mut found) = (0, 0, Vec::new());
    for pinned in files {
        let high = low + pinned.units;
        if low < units.high && units.low < high {
            if found.is_empty() {
                first = low;
            }
            found.push(pinned.clone());
        }
        low = high;
    }
    (first, found.into())
}

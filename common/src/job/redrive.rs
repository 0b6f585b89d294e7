//! A redrive: a job that does one of its steps again, over the records that the step had rejected. `gapless redrive`
//! writes what it is of as JSON, which travels beside the job's text: no job file says it.
//!
//! Records of text stay in the form of their source. Those of a source with types of its own, of which the quarantine
//! keeps the values, are Parquet.

use std::collections::BTreeMap;

use super::{
    AvroSource, ColumnType, Compression, CsvSource, Dialect, Exists, Job, Lookup, NdjsonSource, Packing, ParquetSource,
    Partition, RecordsSource, Redrive, Sink, Source, Step,
    column::columns,
    error::Position,
    keys::REDRIVE,
    read::{Fields, Text},
    substitute::Context,
    yaml::Node,
};

/// What stands in place of a file's name in messages about it.
pub(super) const NAME: &str = "the redrive";

/// What was written, as far as it could be read.
pub(super) struct Written {
    step: Text,
    number: u32,
    of: Of,
    /// The files of look-ups that read a step.
    lookups: BTreeMap<String, Vec<String>>,
    at: Position,
}

enum Of {
    /// One source.
    One(Input),
    /// Each input of a merge.
    Merge {
        inputs: Vec<Input>,
        read_columns: Option<Vec<String>>,
    },
}

/// The records of one source.
struct Input {
    records: Text,
    places: Text,
    columns: Vec<(String, ColumnType)>,
    at: Position,
}

pub(super) fn read(cx: &Context, node: &Node) -> Option<Written> {
    let fields = Fields::new(cx, &REDRIVE, node, NAME)?;
    let (step, number) = (fields.name("step"), fields.integer("number"));
    for name in ["places", "columns"] {
        if fields.has("inputs") && fields.has(name) {
            let found = format!("`{name}` beside `inputs` in redrive");
            fields
                .cx
                .faults
                .add(fields.key_at(name), found, "it in each of `inputs`");
        }
    }
    let of = match fields.list("inputs") {
        Some(items) => {
            let inputs: Option<Vec<Input>> = items.iter().map(input).collect();
            let read_columns = match fields.has("read_columns") {
                true => Some(
                    fields
                        .texts("read_columns")?
                        .into_iter()
                        .map(|name| name.value)
                        .collect(),
                ),
                false => None,
            };
            Of::Merge {
                inputs: inputs?,
                read_columns,
            }
        }
        None => Of::One(input(&fields)?),
    };
    let mut lookups = BTreeMap::new();
    if fields.has("lookups") {
        for (entry, lookup) in fields.map("lookups") {
            let paths = lookup.texts("path")?;
            lookups.insert(entry.key.clone(), paths.into_iter().map(|path| path.value).collect());
        }
    }
    Some(Written {
        step: step?,
        number: number?,
        of,
        lookups,
        at: fields.node.at,
    })
}

fn input(fields: &Fields) -> Option<Input> {
    // An item of `inputs` must have it.
    if fields.has("records") && !fields.has("places") && fields.section.name == "redrive" {
        let faults = fields.cx.faults;
        faults.add(fields.node.at, "missing key `places` in redrive", "text");
    }
    let columns = columns(fields);
    Some(Input {
        records: fields.text("records")?,
        places: fields.text("places")?,
        columns,
        at: fields.node.at,
    })
}

/// Leaves the one step, reading the records and adding to the output.
pub(super) fn apply(written: Written, job: &mut Job, cx: &Context) -> Option<()> {
    let faults = cx.faults;
    let mut steps = std::mem::take(&mut job.steps);
    let Some(at) = steps.iter().position(|step| step.name == written.step.value) else {
        let found = format!(
            "`redrive` names the step `{}`, which the job does not have",
            written.step.value
        );
        let names = steps.iter().map(|step| step.name.as_str());
        faults.unknown(written.step.at, found, &written.step.value, names);
        return None;
    };
    let mut step = steps.swap_remove(at);
    step.after.clear();
    match (&mut step.source, written.of) {
        (Source::Merge(merge), Of::Merge { inputs, read_columns }) if inputs.len() == merge.inputs.len() => {
            for (source, records) in merge.inputs.iter_mut().zip(inputs) {
                *source = over(source, records, &steps, cx)?;
            }
            merge.read_columns = read_columns;
        }
        (Source::Merge(merge), _) => {
            let found = format!("`redrive` of step `{}`, which merges {}", step.name, merge.inputs.len());
            faults.add(written.at, found, "`inputs`, one for each that the step merges");
            return None;
        }
        (_, Of::Merge { .. }) => {
            let found = format!("`inputs` in the `redrive` of step `{}`, which merges none", step.name);
            faults.add(written.at, found, "records, places, columns");
            return None;
        }
        (source, Of::One(records)) => *source = over(source, records, &steps, cx)?,
    }
    for (name, lookup) in &mut step.lookups {
        if let (Lookup::Step(earlier), Some(paths)) = (&*lookup, written.lookups.get(name)) {
            let earlier = steps.iter().find(|step| step.name == *earlier);
            let paths = paths.clone();
            *lookup = match earlier.map(|step| &step.sink) {
                Some(Sink::Avro(_)) => Lookup::Avro(AvroSource { paths }),
                _ => Lookup::Parquet(ParquetSource { paths, places: None }),
            };
        }
    }
    // Row groups are no bytes.
    let is_parquet = |source: &Source| matches!(source, Source::Parquet(_));
    if step.partition.method == Partition::Bytes && step.source.inputs().iter().any(is_parquet) {
        step.partition.method = Partition::Auto;
    }
    if let Some(file) = step.sink.file_mut() {
        file.exists = Exists::Append;
    }
    job.steps = vec![step];
    job.redrive = Some(Redrive {
        step: written.step.value,
        number: written.number,
    });
    Some(())
}

/// What a source is over its rejected records. `steps`: those of the job, apart from the one that is redriven.
fn over(source: &Source, written: Input, steps: &[Step], cx: &Context) -> Option<Source> {
    let Input {
        records,
        places,
        columns,
        at,
    } = written;
    let (paths, places) = (vec![records.value], Some(places.value));
    // Records are kept as UTF-8, one below another.
    let over = match read_as(source, steps) {
        Source::Csv(csv) => Source::Csv(CsvSource {
            paths,
            columns,
            header: false,
            compression: Compression::None,
            dialect: Dialect {
                escape: csv.dialect.escape,
                multiline: csv.dialect.multiline,
                ..Dialect::default()
            },
            places,
            ..csv
        }),
        Source::Ndjson(ndjson) => Source::Ndjson(NdjsonSource {
            paths,
            // Where the first record told the names, others stay faults; those of a step are known.
            closed: !matches!(source, Source::Step(_)) && (ndjson.closed || ndjson.columns.is_empty()),
            columns,
            compression: Compression::None,
            places,
            ..ndjson
        }),
        Source::Records(mut records) => {
            records.paths = paths;
            (records.layout.header, records.layout.trailer) = (None, None);
            records.layout.packing = Packing {
                compression: Compression::None,
                ..Packing::default()
            };
            records.places = places;
            Source::Records(records)
        }
        Source::Parquet(_) | Source::Avro(_) | Source::Sequence { .. } | Source::Step(_) | Source::Merge(_) => {
            Source::Parquet(ParquetSource { paths, places })
        }
    };
    if matches!(&over, Source::Csv(CsvSource { columns, .. }) | Source::Ndjson(NdjsonSource { columns, .. }) if columns.is_empty())
    {
        let allowed = "a mapping from column names to types";
        cx.faults.add(at, "missing key `columns` in redrive", allowed);
        return None;
    }
    Some(over)
}

/// The source itself; of an earlier step's output, what its files are by their form.
fn read_as(source: &Source, steps: &[Step]) -> Source {
    let Source::Step(name) = source else {
        return source.clone();
    };
    let paths = Vec::new();
    match steps.iter().find(|step| step.name == *name).map(|step| &step.sink) {
        Some(Sink::Csv(sink)) => Source::Csv(CsvSource {
            paths,
            columns: Vec::new(),
            header: false,
            delimiter: sink.delimiter,
            quote: Some(b'"'),
            nulls: vec![sink.null.clone()],
            compression: Compression::None,
            // Its writer puts fields with line ends into quotes.
            dialect: Dialect {
                multiline: true,
                ..Dialect::default()
            },
            places: None,
        }),
        Some(Sink::Ndjson(_)) => Source::Ndjson(NdjsonSource {
            paths,
            columns: Vec::new(),
            required: Vec::new(),
            compression: Compression::None,
            closed: false,
            places: None,
        }),
        Some(Sink::Records(sink)) => Source::Records(Box::new(RecordsSource {
            paths,
            layout: sink.layout.clone(),
            places: None,
        })),
        _ => source.clone(),
    }
}

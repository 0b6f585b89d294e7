//! A redrive: a job that does one of its steps again, over the records that the step had rejected. `gapless redrive`
//! writes it as a key of the job's text, which is all that travels.

use super::{
    ColumnType, Compression, Dialect, Exists, Job, Packing, Redrive, Source,
    column::columns,
    error::Position,
    read::{Fields, Text},
};

/// The key, as far as it could be read.
pub(super) struct Written {
    step: Text,
    number: u32,
    records: Text,
    places: Text,
    columns: Vec<(String, ColumnType)>,
    at: Position,
}

pub(super) fn read(fields: &Fields) -> Option<Written> {
    let fields = fields.section("redrive")?;
    let columns = columns(&fields);
    Some(Written {
        step: fields.name("step")?,
        number: fields.integer("number")?,
        records: fields.text("records")?,
        places: fields.text("places")?,
        columns,
        at: fields.node.at,
    })
}

/// Leaves the one step, reading the records and adding to the output.
pub(super) fn apply(written: Written, job: &mut Job, fields: &Fields) -> Option<()> {
    let faults = fields.cx.faults;
    let names: Vec<String> = job.steps.iter().map(|step| step.name.clone()).collect();
    job.steps.retain(|step| step.name == written.step.value);
    let Some(step) = job.steps.first_mut() else {
        let found = format!(
            "`redrive` names the step `{}`, which the job does not have",
            written.step.value
        );
        faults.unknown(
            written.step.at,
            found,
            &written.step.value,
            names.iter().map(String::as_str),
        );
        return None;
    };
    step.after.clear();
    // Records are kept as UTF-8, one below another.
    let (paths, places) = (vec![written.records.value], Some(written.places.value));
    match &mut step.source {
        Source::Csv(csv) => {
            csv.paths = paths;
            csv.columns = written.columns;
            csv.header = false;
            csv.compression = Compression::None;
            csv.dialect = Dialect {
                escape: csv.dialect.escape,
                multiline: csv.dialect.multiline,
                ..Dialect::default()
            };
            csv.places = places;
        }
        Source::Ndjson(ndjson) => {
            ndjson.paths = paths;
            // Where the first record told the names, others stay faults.
            ndjson.closed |= ndjson.columns.is_empty();
            ndjson.columns = written.columns;
            ndjson.compression = Compression::None;
            ndjson.places = places;
        }
        Source::Records(records) => {
            records.paths = paths;
            (records.layout.header, records.layout.trailer) = (None, None);
            records.layout.packing = Packing {
                compression: Compression::None,
                ..Packing::default()
            };
            records.places = places;
        }
        Source::Parquet(_) | Source::Avro(_) | Source::Step(_) | Source::Sequence { .. } | Source::Merge(_) => {
            faults.add(
                written.at,
                format!(
                    "`redrive` of step `{}`, whose source is none of csv, ndjson, records",
                    step.name
                ),
                "a step that reads text; mend other sources and run the job again",
            );
            return None;
        }
    }
    if let Some(file) = step.sink.file_mut() {
        file.exists = Exists::Append;
    }
    job.redrive = Some(Redrive {
        step: written.step.value,
        number: written.number,
    });
    Some(())
}

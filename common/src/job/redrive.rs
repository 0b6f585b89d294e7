//! A redrive: a job that does one of its steps again, over the records that the step had rejected. `gapless redrive`
//! writes it as a key of the job's text, which is all that travels.

use super::{
    ColumnType, Compression, Dialect, Exists, Job, Redrive, Source,
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
    let Source::Csv(csv) = &mut step.source else {
        faults.add(
            written.at,
            format!("`redrive` of step `{}`, whose source is not CSV", step.name),
            "a step that reads text; mend other sources and run the job again",
        );
        return None;
    };
    csv.paths = vec![written.records.value];
    csv.columns = written.columns;
    csv.header = false;
    csv.compression = Compression::None;
    // Records are kept as UTF-8, one below another.
    csv.dialect = Dialect {
        escape: csv.dialect.escape,
        multiline: csv.dialect.multiline,
        ..Dialect::default()
    };
    csv.places = Some(written.places.value);
    if let Some(file) = step.sink.file_mut() {
        file.exists = Exists::Append;
    }
    job.redrive = Some(Redrive {
        step: written.step.value,
        number: written.number,
    });
    Some(())
}

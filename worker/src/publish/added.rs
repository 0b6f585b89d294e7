//! What is added to an output, by `exists: append` or a redrive, is of the columns, the types and the form of what is
//! published there; the certificate of the last that was published tells them. A redrive is made of each record by itself.

use arrow::datatypes::DataType;
use gapless_common::{
    certificate::Certificate,
    error::{ErrorClass, TaskError},
    job::{Compression, Exists, Job, Sink, Step},
    plan::{Column, Facts, TransformMode},
};

use super::verdict::last_committed;
use crate::{
    storage::{StepFolders, read_if_present},
    type_names::type_names,
};

/// `facts`: those of the step. Where nothing tells what stands at the output (files of others, an older
/// release), everything may be added.
///
/// Errors: `Config` naming the column or the key that differs; `Data` for a certificate that is none.
pub(super) fn check_added(job: &Job, step: &Step, facts: &Facts, folders: &StepFolders) -> Result<(), TaskError> {
    let is_redrive = job.redrive.is_some();
    let appends = step.sink.file().is_some_and(|file| file.exists == Exists::Append);
    // A report is text for people, whose lines need not be alike.
    if !is_redrive && (!appends || matches!(step.sink, Sink::Report(_))) {
        return Ok(());
    }
    if is_redrive {
        check_by_rows(step, facts, folders)?;
    }
    let Some(last) = last_committed(folders)? else {
        return Ok(());
    };
    let path = folders.certificate_of(last.run, last.step);
    let Some(text) = read_if_present(&path)? else {
        return Ok(());
    };
    let published: Certificate = serde_json::from_slice(&text).map_err(|error| {
        let message = format!("{} is no certificate: {error}; was it changed by hand?", path.display());
        TaskError::new(ErrorClass::Data, message)
    })?;
    let output = folders.output().display();
    let config = |message: String| Err(TaskError::new(ErrorClass::Config, message));
    let sink = published.reading.job.step(&published.step_name).map(|step| &step.sink);
    let is_other_form = sink.is_some_and(|sink| form(sink) != form(&step.sink));
    if is_other_form && !is_redrive {
        return config(format!(
            "`exists: append` adds to {output}, which run {} has written by another sink; leave the sink as it was (only path, \
             exists, files and compression may change), choose another path, or write `exists: replace`",
            last.run
        ));
    }
    if is_other_form {
        return config(format!(
            "a redrive adds to {output}, which was written by another sink than that of the mended job; leave its sink as it \
             was: only path, exists, files and compression may change"
        ));
    }
    // A release that did not tell them.
    if published.reading.output.is_empty() {
        return Ok(());
    }
    match difference(&published.reading.output, &facts.output, in_order(&step.sink)) {
        None => Ok(()),
        Some(what) if !is_redrive => config(format!(
            "`exists: append` adds to {output}: {what} (run {} wrote it); give the same columns and types, choose another path, or \
             write `exists: replace`",
            last.run
        )),
        Some(what) => config(format!(
            "a redrive adds to {output}: {what}; let the mended job give the columns and types of what is published, or \
             run it again as a whole"
        )),
    }
}

/// What records give by themselves is a part of what all of them give only where each is worked on by itself.
fn check_by_rows(step: &Step, facts: &Facts, folders: &StepFolders) -> Result<(), TaskError> {
    let why = match (&facts.transform.mode, &step.sink) {
        (TransformMode::Whole { .. }, _) => format!(
            "what it makes of a record depends on others: {}",
            facts.transform.reason
        ),
        (_, Sink::Report(_)) => "its sink is a report, one text over all records".to_string(),
        _ => return Ok(()),
    };
    Err(TaskError::new(
        ErrorClass::Config,
        format!(
            "step {} cannot be redriven: {why}. What the rejected records give by themselves does not belong beside what is \
             in {}; mend the source and run the job again, with another value for an identifying parameter",
            step.name,
            folders.output().display()
        ),
    ))
}

/// A sink without what says nothing of its rows.
fn form(sink: &Sink) -> Sink {
    let mut sink = sink.clone();
    if let Some(file) = sink.file_mut() {
        file.path.clear();
        file.exists = Exists::Fail;
        file.files = None;
        file.compression = Compression::Auto;
    }
    sink
}

/// Whether readers find columns by their places; by their names otherwise.
fn in_order(sink: &Sink) -> bool {
    !matches!(sink, Sink::Parquet(_) | Sink::Avro(_) | Sink::Ndjson(_))
}

fn difference(published: &[Column], added: &[Column], in_order: bool) -> Option<String> {
    let names = |columns: &[Column]| {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        names.join(", ")
    };
    let (has, gives) = (names(published), names(added));
    let (mut published, mut added) = (published.to_vec(), added.to_vec());
    if !in_order {
        for columns in [&mut published, &mut added] {
            columns.sort_by(|one, other| one.name.cmp(&other.name));
        }
    }
    if names(&published) != names(&added) {
        return Some(format!("it has the columns {has}, and the job gives {gives}"));
    }
    let mut pairs = published.iter().zip(&added);
    let (has, gives) = pairs.find(|(has, gives)| written(&has.ty) != written(&gives.ty))?;
    let (was, is) = match (written(&has.ty), written(&gives.ty)) {
        (Ok(was), Ok(is)) => type_names(&was, &is),
        _ => (has.ty.clone(), gives.ty.clone()),
    };
    Some(format!("its column {} is {was}, and the job gives {is}", has.name))
}

/// Text is text, and bytes are bytes, however the engine holds them.
fn written(ty: &str) -> Result<DataType, &str> {
    Ok(match ty.parse::<DataType>().map_err(|_| ty)? {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        other => other,
    })
}

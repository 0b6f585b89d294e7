//! What a redrive adds to an output is of the columns, the types and the form of what is published there, and made of each
//! record by itself.

use arrow::datatypes::DataType;
use gapless_common::{
    certificate::Certificate,
    error::{ErrorClass, TaskError},
    job::{Compression, Exists, Sink},
    manifest::VerdictKind,
    plan::{Column, StepFrame, TransformMode},
};

use super::verdict::verdicts_from;
use crate::{
    attempt::StepContext,
    storage::{StepFolders, read_if_present},
    type_names::type_names,
};

/// Errors: `Config` naming the column or the key that differs; `Data` for a certificate that is none.
pub(super) fn check_added(context: &StepContext, folders: &StepFolders) -> Result<(), TaskError> {
    let Some(frame) = context.frame.as_ref().filter(|_| context.job.redrive.is_some()) else {
        return Ok(());
    };
    check_by_rows(context, frame, folders)?;
    let mut verdicts = verdicts_from(folders, 0)?;
    verdicts.retain(|verdict| verdict.verdict == VerdictKind::Committed);
    let Some(last) = verdicts.into_iter().max_by_key(|verdict| verdict.generation) else {
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
    if sink.is_some_and(|sink| form(sink) != form(&context.step().sink)) {
        return config(format!(
            "a redrive adds to {output}, which was written by another sink than that of the mended job; leave its sink as it \
             was: only path, exists, files and compression may change"
        ));
    }
    // A release that did not tell them.
    if published.reading.output.is_empty() {
        return Ok(());
    }
    match difference(&published.reading.output, &frame.facts.output) {
        None => Ok(()),
        Some(what) => config(format!(
            "a redrive adds to {output}: {what}; let the mended job give the columns and types of what is published, or \
             run it again as a whole"
        )),
    }
}

/// What records give by themselves is a part of what all of them give only where each is worked on by itself.
fn check_by_rows(context: &StepContext, frame: &StepFrame, folders: &StepFolders) -> Result<(), TaskError> {
    let step = context.step();
    let why = match (&frame.facts.transform.mode, &step.sink) {
        (TransformMode::Whole { .. }, _) => format!(
            "what it makes of a record depends on others: {}",
            frame.facts.transform.reason
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

fn difference(published: &[Column], added: &[Column]) -> Option<String> {
    let names = |columns: &[Column]| {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        names.join(", ")
    };
    let (has, gives) = (names(published), names(added));
    if has != gives {
        return Some(format!("it has the columns {has}, and the job gives {gives}"));
    }
    let mut pairs = published.iter().zip(added);
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

//! What the job to be done makes of the kept records: it may declare other types and rules, and reads what was kept.

use arrow::datatypes::DataType;
use gapless_common::{
    error::TaskError,
    job::{ColumnType, Compression, Job, RecordLayout, Source, Step},
    plan::Column,
};

use super::{Form, Input, config, form};
use crate::source::{
    csv::{Format, column_type},
    open::{Stored, stored_of},
};

/// What no redrive can do whatever the records are.
pub(super) fn check_mended(step: &Step, mended: &Step) -> Result<(), TaskError> {
    let merges = |step: &Step| match &step.source {
        Source::Merge(merge) => Some(merge.inputs.len()),
        _ => None,
    };
    if merges(step) != merges(mended) {
        return Err(other_kind(&step.name, &step.source, &mended.source));
    }
    let path = |step: &Step| step.sink.file().map(|file| file.path.clone());
    match (path(step), path(mended)) {
        (Some(published), Some(other)) if published != other => Err(config(format!(
            "the mended job's step {} writes to {other}, and a redrive adds to what is published at {published}; leave the \
             path of its sink as it was",
            step.name
        ))),
        _ => Ok(()),
    }
}

fn other_kind(step: &str, source: &Source, mended: &Source) -> TaskError {
    config(format!(
        "the mended job's step {step} reads {}, and its rejected records are of {}; leave the kind of its `source` as it was",
        mended.shown(),
        source.shown()
    ))
}

/// The columns of text, in the order of its fields: those that the run read, of the types that the job to be done
/// declares. None for records that tell theirs.
pub(super) fn columns(
    step: &str,
    input: &Input<'_>,
    mended: Option<(&Job, &Source)>,
) -> Result<Vec<(String, ColumnType)>, TaskError> {
    let source = input.source;
    if let Some((job, mended)) = mended {
        check_kind(step, input, job, mended)?;
    }
    let mended = mended.map(|(_, mended)| mended);
    let read: Vec<&str> = input.columns.iter().map(|it| it.name.as_str()).collect();
    let typed = |declared: &[(String, ColumnType)]| {
        let ty = |name: &str| declared.iter().find(|it| it.0 == name).map(|it| it.1);
        let column = |name: &&str| (name.to_string(), ty(name).unwrap_or(ColumnType::String));
        read.iter().map(column).collect()
    };
    Ok(match (form(&input.stored), source, mended) {
        (Form::Rows | Form::Records, ..) => Vec::new(),
        (Form::Csv, Source::Csv(_), Some(Source::Csv(csv))) if !csv.header => {
            if csv.columns.len() != read.len() {
                return Err(config(format!(
                    "the mended job declares {} columns for the source of step {step}, and its rejected records are of \
                     {}: {}; declare these under `columns`, of whatever types",
                    csv.columns.len(),
                    read.len(),
                    read.join(", ")
                )));
            }
            csv.columns.clone()
        }
        (Form::Csv, Source::Csv(_), Some(Source::Csv(csv))) => {
            let declared = csv.columns.iter().map(|column| column.0.as_str());
            let unknown: Vec<&str> = declared.filter(|name| !read.contains(name)).collect();
            if !unknown.is_empty() {
                return Err(config(format!(
                    "the mended job declares {} under `columns` of step {step}, which the rejected records do not have; \
                     they have {}",
                    unknown.join(", "),
                    read.join(", ")
                )));
            }
            typed(&csv.columns)
        }
        (Form::Ndjson, Source::Ndjson(_), Some(Source::Ndjson(ndjson))) if !ndjson.columns.is_empty() => {
            ndjson.columns.clone()
        }
        (Form::Ndjson, Source::Ndjson(_), Some(Source::Ndjson(_))) => typed(&[]),
        (_, Source::Csv(csv), _) => typed(&csv.columns),
        (_, Source::Ndjson(ndjson), _) => typed(&ndjson.columns),
        // Those of an earlier step have the types that they were read with.
        _ => {
            let ty = |column: &Column| column.ty.parse::<DataType>().ok().and_then(|ty| column_type(&ty));
            let columns = input.columns.iter();
            columns
                .map(|column| (column.name.clone(), ty(column).unwrap_or(ColumnType::String)))
                .collect()
        }
    })
}

/// Errors: `Config` where the mended source does not read what was kept.
fn check_kind(step: &str, input: &Input<'_>, job: &Job, mended: &Source) -> Result<(), TaskError> {
    let source = input.source;
    let other = || Err(other_kind(step, source, mended));
    let stored = match mended {
        Source::Merge(_) => return other(),
        mended => stored_of(job, step, mended)?,
    };
    // What is redriven again is in the form that the first redrive gave it.
    let is_redriven = source.places().is_some();
    let is_kind = std::mem::discriminant(source) == std::mem::discriminant(mended);
    if form(&input.stored) != form(&stored) || !(is_kind || is_redriven) {
        return other();
    }
    if !matches!(mended, Source::Step(_)) {
        return Ok(());
    }
    let is_same = match (&input.stored, &stored) {
        (Stored::Text { format: one, .. }, Stored::Text { format: other, .. }) => signs(one) == signs(other),
        (Stored::Records(one), Stored::Records(other)) => one.lines == other.lines,
        _ => true,
    };
    match is_same {
        true => Ok(()),
        false => Err(config(format!(
            "the mended job's {} writes its output in another form than that which the rejected records have; leave its \
             sink as it was",
            mended.shown()
        ))),
    }
}

/// What of a format says how a line is read.
fn signs(format: &Format) -> Format {
    Format {
        header: false,
        compression: Compression::None,
        dialect: Default::default(),
        ..format.clone()
    }
}

/// How texts are read, as the job to be done has it; `None` for records of other kinds.
pub(super) fn format(input: &Input<'_>, mended: Option<(&Job, &Step, usize)>) -> Result<Option<Format>, TaskError> {
    let of = |stored: &Stored<'_>| match stored {
        Stored::Text { format, of_step, .. } => Some(format.redriven(*of_step)),
        _ => None,
    };
    match mended {
        None => Ok(of(&input.stored)),
        Some((job, step, number)) => Ok(of(&stored_of(job, &step.name, &step.source.inputs()[number])?)),
    }
}

/// The layout of records that have one, as the job to be done has it.
pub(super) fn layout(
    input: &Input<'_>,
    mended: Option<(&Job, &Step, usize)>,
) -> Result<Option<RecordLayout>, TaskError> {
    let own = match &input.stored {
        Stored::Records(layout) => layout,
        _ => return Ok(None),
    };
    Ok(Some(match mended {
        None => (*own).clone(),
        Some((job, step, number)) => match stored_of(job, &step.name, &step.source.inputs()[number])? {
            Stored::Records(layout) => layout.clone(),
            _ => (*own).clone(),
        },
    }))
}

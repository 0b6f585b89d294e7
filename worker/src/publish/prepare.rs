//! Prepare: everything about the output that can be found wrong before any work is done.

use std::{collections::BTreeSet, fs, io::ErrorKind, os::unix::fs::MetadataExt, path::Path};

use gapless_common::{
    attempt::Fence,
    certificate::Certificate,
    error::{ErrorClass, TaskError},
    ids::{RunId, Stage},
    job::{Exists, FileSink, IfUnchanged, Job, Sink, Source, Step},
    manifest::VerdictKind,
    plan::{Column, Facts},
};
use rustix::fs::{Access, access};
use uuid::Uuid;

use super::{
    Preparation,
    added::check_added,
    exists_mode, is_own,
    verdict::{generations, last_committed, verdicts_from},
};
use crate::{
    attempt::StepContext,
    sink::Format,
    storage::{
        CERTIFICATE_PREFIX, CONTROL_SUBFOLDER, Created, StepFolders, create_once, exchange_folders, file_exists,
        folder_exists, io_error, is_object, list_folder, read_if_present, remove_tree, staged_below, sync_folder,
    },
};

/// Below this a file system is as good as full: no chunk fits.
const LEAST_FREE_BYTES: u64 = 64 << 20;

/// Checks the output and makes the folders of this step. Doing it again changes nothing.
///
/// Errors: `Config` with the remedy where the output cannot be what the job asks for, `Resource`
/// where there is no room.
pub fn prepare(context: &StepContext, fence: Fence) -> Result<Preparation, TaskError> {
    let folders = StepFolders::of(context)?;
    let output = folders.output().display().to_string();
    let rejects = folders.rejects().display().to_string();
    let known = generations(&folders)?;
    // Its own record: the step is settled, and nothing of it may be staged again.
    if let Some(own) = verdicts_from(&folders, 0)?
        .into_iter()
        .find(|verdict| is_own(verdict, context))
    {
        return Ok(Preparation {
            generation: own.generation,
            output,
            rejects,
        });
    }
    if let (Some(file), Some(frame)) = (context.step().sink.file(), &context.frame) {
        check_columns(file, &context.step().sink, &frame.facts.output)?;
    }
    if let Some(frame) = &context.frame {
        check_added(&context.job, context.step(), &frame.facts, &folders)?;
    }
    if !is_object(folders.output()) {
        make_all(parent_of(folders.output()))?;
    }
    let exists = exists_mode(context);
    check_output(exists, &folders)?;
    let places = [
        folders.published(),
        folders.data(),
        folders.rejects(),
        folders.manifests(Stage::Execute),
        folders.manifests(Stage::Scatter),
        folders.exchange(),
    ];
    let unique = matches!(&context.step().source, Source::Merge(merge) if !merge.unique.is_empty());
    for path in places.into_iter().chain(unique.then(|| folders.keys())) {
        if !is_object(&path) {
            make_all(&path)?;
        }
    }
    for path in [
        folders.control(),
        parent_of(folders.staged()),
        folders.staged(),
        parent_of(folders.output()),
    ] {
        sync_folder(path)?;
    }
    for place in BTreeSet::from([folders.scratch(), folders.staged()]) {
        match is_object(place) {
            true => probe_store(place, fence)?,
            false => check_room(place)?,
        }
    }
    if !is_object(folders.staged()) {
        probe(&folders, fence, exists)?;
    }
    Ok(Preparation {
        generation: known.last().copied().unwrap_or(0) + 1,
        output,
        rejects,
    })
}

/// What [`prepare`] would refuse of a step's output, as far as looking tells: nothing is made.
///
/// `facts`: `None` where the source is not there to be surveyed yet.
///
/// Errors: as those of [`prepare`].
pub fn foresee(job: &Job, step: &Step, base_dir: &Path, facts: Option<&Facts>) -> Result<Foreseen, TaskError> {
    let Some(file) = step.sink.file() else {
        return Ok(Foreseen::Free);
    };
    // Folders of a run that is none: those that all runs share are looked at.
    let nobody = RunId(Uuid::nil());
    let folders = StepFolders::new(&step.sink, base_dir, Path::new(""), nobody, 0)?;
    if let Some(facts) = facts {
        check_columns(file, &step.sink, &facts.output)?;
        check_added(job, step, facts, &folders)?;
    }
    if let Err(error) = check_output(file.exists, &folders) {
        return match standing(job, step, base_dir, facts, &folders)? {
            Some(run) => Ok(Foreseen::Stands(run)),
            None => Err(error),
        };
    }
    if !is_object(folders.staged()) {
        let there = nearest(folders.staged())?;
        check_room(there)?;
        if let Err(error) = access(there, Access::WRITE_OK | Access::EXEC_OK) {
            let parent = parent_of(folders.output());
            let first = if parent.is_dir() { folders.control() } else { parent };
            return Err(io_error("create the folder", first, &error.into()));
        }
    }
    Ok(Foreseen::Free)
}

/// What stands where an output is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreseen {
    /// Nothing that is in the way.
    Free,
    /// What this run has published of this very step, which is not done again.
    Stands(RunId),
}

/// The run of the same job over the same folder, or of a step that is skipped while its input is unchanged, whose
/// output this is.
fn standing(
    job: &Job,
    step: &Step,
    base_dir: &Path,
    facts: Option<&Facts>,
    folders: &StepFolders,
) -> Result<Option<RunId>, TaskError> {
    let Some(verdict) = last_committed(folders)? else {
        return Ok(None);
    };
    let own = StepFolders::new(&step.sink, base_dir, Path::new(""), verdict.run, verdict.step)?;
    let Some(text) = read_if_present(&own.certificate())? else {
        return Ok(None);
    };
    let Ok(certificate) = serde_json::from_slice::<Certificate>(&text) else {
        return Ok(None);
    };
    let reading = &certificate.reading;
    let unchanged = |facts: &Facts| {
        step.if_unchanged == IfUnchanged::Skip
            && facts.standing == Some(own.certificate().display().to_string())
            && reading.job.step(&step.name) == Some(step)
            && (&certificate.files, &certificate.lookups) == (&facts.files, &facts.lookups)
    };
    let same = certificate.step_name == step.name
        && Path::new(&reading.base_dir) == base_dir
        && (reading.job == *job || facts.is_some_and(unchanged));
    Ok(same.then_some(verdict.run))
}

/// The deepest folder on the way to a path that is there.
fn nearest(path: &Path) -> Result<&Path, TaskError> {
    for folder in path.ancestors() {
        match fs::metadata(folder) {
            Ok(_) => return Ok(folder),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("look at", folder, &error)),
        }
    }
    Ok(Path::new("/"))
}

fn check_columns(file: &FileSink, sink: &Sink, output: &[Column]) -> Result<(), TaskError> {
    Format::of(sink)?;
    let names: Vec<&str> = output.iter().map(|column| column.name.as_str()).collect();
    let added = file.partition_column.as_deref();
    let config = |message: String| Err(TaskError::new(ErrorClass::Config, message));
    if let Some(name) = added.filter(|name| names.contains(name)) {
        return config(format!(
            "partition_column: the output has a column {name} already; choose another name"
        ));
    }
    for name in &file.partition_by {
        if !names.contains(&name.as_str()) && added != Some(name.as_str()) {
            return config(format!(
                "partition_by: no column {name} in the output; there are {}",
                names.join(", ")
            ));
        }
    }
    Ok(())
}

/// Whether the output may become what the job asks for.
fn check_output(exists: Exists, folders: &StepFolders) -> Result<(), TaskError> {
    let output = folders.output();
    let config = |message: String| Err(TaskError::new(ErrorClass::Config, message));
    let not_empty = format!(
        "{} exists and is not empty; move it away, choose another path, or write `exists: replace` or \
         `exists: append`",
        output.display()
    );
    if is_object(output) {
        // Also asks whether the bucket is there and may be listed.
        let empty = !folder_exists(output)?;
        return match exists {
            Exists::Fail if !empty => config(not_empty),
            Exists::Fail => check_undisturbed(folders),
            Exists::Replace => check_replaceable(folders),
            Exists::Append => Ok(()),
        };
    }
    match fs::metadata(output) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(io_error("look at", output, &error)),
        Ok(meta) if !meta.is_dir() => {
            return config(format!(
                "{} is a file; a sink's path is a folder: move it away",
                output.display()
            ));
        }
        Ok(meta) => {
            let parent = parent_of(output);
            let around = fs::metadata(parent).map_err(|error| io_error("look at", parent, &error))?;
            if meta.dev() != around.dev() {
                return config(format!(
                    "{} is a mount point, which cannot be exchanged in one step; choose a folder below it",
                    output.display()
                ));
            }
            if exists == Exists::Fail && !list_folder(output)?.is_empty() {
                return config(not_empty);
            }
        }
    }
    if exists == Exists::Replace {
        check_replaceable(folders)?;
    }
    match exists {
        Exists::Fail => check_undisturbed(folders),
        Exists::Replace | Exists::Append => Ok(()),
    }
}

/// Whether nobody is about to show what he has published already.
fn check_undisturbed(folders: &StepFolders) -> Result<(), TaskError> {
    if let Some(verdict) = last_committed(folders)?
        && folder_exists(&staged_below(
            parent_of(folders.staged()),
            verdict.run,
            verdict.step,
            verdict.edition,
        ))?
    {
        return Err(TaskError::new(
            ErrorClass::Config,
            format!(
                "run {} is publishing to {}; let it end (submit its job again if it was stopped), or choose another path",
                verdict.run,
                folders.output().display()
            ),
        ));
    }
    Ok(())
}

/// Whether the folder at the output may be removed: it is missing, empty, or an output of Gapless. That is told
/// by a certificate in it, or by a file in it that a verdict lists. The control folder beside it tells
/// nothing: a run that failed leaves one too.
///
/// Errors: `Config` where it is somebody else's.
pub(super) fn check_replaceable(folders: &StepFolders) -> Result<(), TaskError> {
    let output = folders.output();
    if list_folder(output)?.is_empty() {
        return Ok(());
    }
    let records = list_folder(&output.join(CONTROL_SUBFOLDER))?;
    if records.iter().any(|name| name.starts_with(CERTIFICATE_PREFIX)) {
        return Ok(());
    }
    let listed = verdicts_from(folders, 0)?
        .into_iter()
        .filter(|verdict| verdict.verdict == VerdictKind::Committed)
        .flat_map(|verdict| verdict.files);
    for file in listed {
        if file_exists(&output.join(&file.path))? {
            return Ok(());
        }
    }
    Err(TaskError::new(
        ErrorClass::Config,
        format!(
            "{} is not empty, and nothing in it tells that Gapless has written it: `exists: replace` would remove it for \
             good; move it away or delete it, or choose another path, then submit the job again",
            output.display()
        ),
    ))
}

fn make_all(path: &Path) -> Result<(), TaskError> {
    fs::create_dir_all(path).map_err(|error| io_error("create the folder", path, &error))
}

fn check_room(path: &Path) -> Result<(), TaskError> {
    let stat =
        rustix::fs::statvfs(path).map_err(|error| io_error("look at the file system of", path, &error.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    // File systems without a table of inodes report none at all.
    let inodes = stat.f_files == 0 || stat.f_favail > 0;
    if free < LEAST_FREE_BYTES || !inodes {
        let what = match inodes {
            true => format!(
                "{} MiB left on this file system, and {} MiB are the least to begin with",
                free >> 20,
                LEAST_FREE_BYTES >> 20
            ),
            false => format!("none of its {} inodes left on this file system", stat.f_files),
        };
        return Err(TaskError::new(
            ErrorClass::Resource,
            format!("{}: {what}; free some, then the run goes on", path.display()),
        ));
    }
    Ok(())
}

/// Tries what publishing stands on: a name that is created once, and two folders exchanged in one step.
fn probe(folders: &StepFolders, fence: Fence, exists: Exists) -> Result<(), TaskError> {
    let place = folders.staged().join(format!("probe-{}", fence.id));
    remove_tree(&place)?;
    make_all(&place)?;
    let record = place.join("record");
    let first = create_once(&record, "1", b"1")?;
    let second = fs::hard_link(place.join("record"), &record);
    let refused = matches!(&second, Err(error) if error.kind() == ErrorKind::AlreadyExists);
    if first != Created::Created || !refused {
        return Err(TaskError::new(
            ErrorClass::Config,
            format!(
                "the file system of {} does not create names once (link(2)); choose another",
                place.display()
            ),
        ));
    }
    if exists == Exists::Replace {
        let (one, other) = (place.join("one"), place.join("other"));
        make_all(&one)?;
        make_all(&other)?;
        exchange_folders(&one, &other)?;
    }
    remove_tree(&place)
}

/// Tries what exactly-once stands on in an object store: of two puts of one name, each made only if there is
/// no such object, the second is refused. Some stores, and proxies before them, do not know that condition.
fn probe_store(staged: &Path, fence: Fence) -> Result<(), TaskError> {
    let place = staged.join(format!("probe-{}", fence.id));
    remove_tree(&place)?;
    let record = place.join("record");
    let first = create_once(&record, "1", b"1")?;
    let second = create_once(&record, "2", b"2")?;
    let kept = read_if_present(&record)?;
    remove_tree(&place)?;
    if first == Created::Created && second == Created::Exists(b"1".to_vec()) && kept.as_deref() == Some(b"1") {
        return Ok(());
    }
    Err(TaskError::new(
        ErrorClass::Config,
        format!(
            "the store of {} does not put an object only if it is absent (If-None-Match: *): of two puts of {} both were \
             accepted, so two workers could publish this step twice; nothing was written: use a store that honours the \
             condition, or a local folder",
            staged.display(),
            record.display()
        ),
    ))
}

pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

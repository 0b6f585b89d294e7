//! Checks and plans that need no cluster: the job language, the survey, the split and the proof, in
//! this process.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use gapless_common::{
    certificate::Certificate,
    error::TaskError,
    ids::RunId,
    job::{self, BoundParameters, Job, JobError, Lookup, Step},
    plan::Facts,
};
use gapless_coordinator::{
    split::{Capacity, split},
    validate::validate,
};
use gapless_platform::clock::Clock;
use gapless_worker::{
    command::Inherited,
    examine::{Remark, examine_job},
    publish::{Foreseen, foresee, look_at_output},
    redrive,
    rejects::{ParquetRejects, Quarantine},
    reread, storage, verify,
    work::survey_step,
};
pub use gapless_worker::{
    redrive::{InputRecords, Records as RedriveRecords},
    rejects::Quarantined as Rejected,
    verify::{Difference, Unread},
};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    failure::{Failure, Kind},
    job_file::JobFile,
    output,
    partition_table::{Cut, PlannedStep, Target},
};

/// Reads a job and puts its parameters in.
///
/// Errors: [`Kind::Invalid`] with one line for each fault: file, line, column, what is allowed.
pub fn bind(file: &JobFile, parameters: &BTreeMap<String, String>) -> Result<(Job, BoundParameters), Failure> {
    let parsed = job::parse_redrive(&file.text, &file.redrive, &file.name);
    let bound = parsed.and_then(|parsed| parsed.bind(parameters));
    bound.map_err(|errors| Failure::new(Kind::Invalid, errors.to_string()))
}

/// A job that may work, as far as that can be told without data.
#[derive(Clone, Debug)]
pub struct Sound {
    pub job: Job,
    pub bound: BoundParameters,
    /// What only data can tell, each with its place in the file.
    pub open: Vec<String>,
}

/// Reads a job, puts its parameters in, and plans its SQL, checks and key columns over the columns that it
/// declares.
///
/// Errors: [`Kind::Invalid`] with one line for each fault.
pub fn check(file: &JobFile, parameters: &BTreeMap<String, String>) -> Result<Sound, Failure> {
    let (job, bound) = bind(file, parameters)?;
    let parsed = job::parse_redrive(&file.text, &file.redrive, &file.name);
    let parsed = parsed.map_err(|errors| Failure::new(Kind::Invalid, errors.to_string()))?;
    let found = examine_job(&job, Clock::system().now_micros());
    let place = |remark: &Remark| {
        let (step, field) = (&remark.step, remark.path());
        match &remark.word {
            Some(word) => parsed.error_at(&file.text, step, &field, word, &remark.message),
            None => parsed.error(step, &field, &remark.message),
        }
    };
    let lines = |remarks: &[Remark]| {
        let mut errors: Vec<JobError> = remarks.iter().map(place).collect();
        errors.sort_by_key(|error| error.at);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    match found.faults.is_empty() {
        true => Ok(Sound {
            job,
            bound,
            open: lines(&found.open),
        }),
        false => Err(Failure::new(Kind::Invalid, lines(&found.faults).join("\n"))),
    }
}

/// Surveys, cuts and proves each step whose source is there, for so many slots.
pub fn plan(job: &Job, base_dir: &Path, slots: u32, inherited: &Inherited) -> Result<Vec<PlannedStep>, Failure> {
    // Nothing is read that a run has published: such steps are planned when it has.
    let run = RunId(Uuid::nil());
    let now = Clock::system().now_micros();
    let earlier = |step: &Step| {
        step.source
            .steps()
            .next()
            .map(str::to_string)
            .or_else(|| looks_up(step))
    };
    let cut = |step: &Step| match earlier(step) {
        Some(step) => Cut::Later { step },
        None => match survey_step(job, step, base_dir, run, now, inherited) {
            Ok(facts) => cut(step, facts, slots),
            Err(error) => Cut::Impossible { why: error.message },
        },
    };
    let planned = job.steps.iter().map(|step| {
        let cut = cut(step);
        PlannedStep {
            step: step.clone(),
            output: output(job, step, base_dir, &cut),
            cut,
        }
    });
    Ok(planned.collect())
}

/// Whether the step could publish where its sink says; nothing where it cannot be planned in the first place.
fn output(job: &Job, step: &Step, base_dir: &Path, cut: &Cut) -> Target {
    let facts = match cut {
        Cut::Planned { facts, .. } => Some(&**facts),
        Cut::Later { .. } => None,
        Cut::Impossible { .. } => return Target::Free,
    };
    match foresee(job, step, base_dir, facts) {
        Ok(Foreseen::Free) => Target::Free,
        Ok(Foreseen::Stands(run)) => Target::Stands { run },
        Err(error) => Target::Refused { why: error.message },
    }
}

/// The step whose output a look-up of this one reads.
fn looks_up(step: &Step) -> Option<String> {
    step.lookups.values().find_map(|lookup| match lookup {
        Lookup::Step(earlier) => Some(earlier.clone()),
        _ => None,
    })
}

fn cut(step: &Step, facts: Facts, slots: u32) -> Cut {
    match split(
        step,
        &facts,
        Capacity {
            slots,
            bytes_per_second: None,
        },
    ) {
        Ok(plan) => {
            let coverage = validate(step, &facts, &plan);
            let coverage = coverage
                .map(|coverage| coverage.verdict())
                .map_err(|fault| fault.to_string());
            Cut::Planned {
                facts: Box::new(facts),
                plan: Box::new(plan),
                coverage,
            }
        }
        Err(refusal) => Cut::Impossible {
            why: refusal.to_string(),
        },
    }
}

/// The JSON Schema of job files.
pub fn schema() -> Result<String, Failure> {
    output::json(&job::json_schema())
}

/// The keys of job files, as tables for people.
pub fn reference() -> String {
    job::reference()
}

/// What a second look at the source found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Records read again.
    pub records: u64,
    /// What differs, each with its file or partition; empty where the certificate holds.
    pub differences: Vec<Difference>,
    /// What the job's paths match by now that the run did not read.
    pub unread: Vec<Unread>,
    /// Whether no record of the publication is at hand, so that the files of the output were not looked at.
    pub output_unknown: bool,
}

/// Whether a path is an address in an object store.
pub fn is_object(path: &Path) -> bool {
    storage::is_object(path)
}

/// The text of an object.
pub fn object_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut object = storage::StoredFile::open(path)?.into_reader();
    object.read_to_string(&mut text)?;
    Ok(text)
}

/// The names directly below a prefix of an object store.
pub fn object_names(prefix: &Path) -> Result<Vec<String>, Failure> {
    storage::list_folder(prefix).map_err(|error| Failure::failed(error.message))
}

/// Reads the source of a certificate again.
pub fn verify(certificate: &Certificate) -> Result<Verification, Failure> {
    let mut source = reread::Source::of(certificate).ok_or_else(|| {
        let message = format!(
            "the certificate of {} does not hold its step {}; was it changed by hand?",
            certificate.job, certificate.step_name
        );
        Failure::failed(message)
    })?;
    let mut differences = verify::verify(certificate, &mut source);
    differences.retain(Difference::breaks);
    let output = look_at_output(certificate).map_err(|error| Failure::failed(error.message))?;
    let damaged = output.iter().flatten().map(|damage| Difference::Output {
        path: damage.path.clone(),
        what: damage.what.clone(),
    });
    differences.extend(damaged);
    let has_output = certificate.reading.job.step(&certificate.step_name);
    let has_output = has_output.is_some_and(|step| step.sink.file().is_some());
    Ok(Verification {
        differences,
        output_unknown: has_output && output.is_none(),
        unread: source.unread(),
        records: source.records,
    })
}

/// Gives the quarantined records of a step, whose folder and certificate a coordinator has told, until `visit`
/// wants no more.
///
/// Errors: those of `visit`; [`Kind::Failed`] where the folder cannot be read.
pub fn rejects(
    folder: &str,
    certificate: &str,
    visit: &mut dyn FnMut(Rejected) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let failed = |error: TaskError| Failure::failed(error.message);
    let quarantine = match certificate {
        "" => Quarantine::staged(Path::new(folder)),
        path => Quarantine::published(Path::new(folder), &certificate_at(Path::new(path))?),
    };
    let mut stopped = None;
    quarantine
        .map_err(failed)?
        .read_in_order(&mut |record| {
            visit(record).or_else(|failure| {
                stopped = Some(failure);
                Ok(false)
            })
        })
        .map_err(failed)?;
    stopped.map_or(Ok(()), Err)
}

/// Writes the records of a redrive beside the output.
///
/// Errors: [`Kind::Failed`] in words where they cannot be redriven.
pub fn prepare_redrive(
    folder: &str,
    certificate: &str,
    from: Option<&Path>,
    mended: Option<&Job>,
) -> Result<RedriveRecords, Failure> {
    let certificate = certificate_at(Path::new(certificate))?;
    redrive::prepare(&certificate, Path::new(folder), from, mended).map_err(|error| Failure::failed(error.message))
}

/// The run whose certificate lies where one is missing.
fn replaced_by(path: &Path) -> Option<String> {
    let step = path.file_name()?.to_str()?.strip_prefix(storage::CERTIFICATE_PREFIX)?;
    let (step, _) = step.split_once('-')?;
    let names = storage::list_folder(path.parent()?).ok()?;
    let beginning = format!("{}{step}-", storage::CERTIFICATE_PREFIX);
    let mut others = names
        .iter()
        .filter_map(|name| name.strip_prefix(&beginning)?.strip_suffix(".json"));
    others.next_back().map(str::to_string)
}

/// Reads a certificate.
pub fn certificate_at(path: &Path) -> Result<Certificate, Failure> {
    let name = path.display();
    let text = match is_object(path) {
        true => object_text(path),
        false => fs::read_to_string(path),
    };
    let text = text.map_err(|error| {
        let message = match replaced_by(path) {
            Some(other) => format!(
                "{name} is not there any more: run {other} has put its output in the place of this one, whose certificate and \
                 rejected records went with it"
            ),
            None => format!("cannot read the certificate {name}: {error}; do this where the output is at hand"),
        };
        let kind = match error.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::PermissionDenied => Kind::Denied,
            _ => Kind::Failed,
        };
        Failure::new(kind, message)
    })?;
    let certificate: Certificate = serde_json::from_str(&text)
        .map_err(|error| Failure::failed(format!("{name} is no certificate: {error}; was it changed by hand?")))?;
    if certificate.version > Certificate::VERSION {
        let message = format!(
            "{name} is of version {}, newer than this program knows ({}); use a newer gapless",
            certificate.version,
            Certificate::VERSION
        );
        return Err(Failure::failed(message));
    }
    Ok(certificate)
}

/// A rejected record with the name of its step.
pub fn named<'a>(step: &'a str, record: &'a Rejected) -> impl Serialize + 'a {
    #[derive(Serialize)]
    struct Named<'a> {
        step: &'a str,
        #[serde(flatten)]
        record: &'a Rejected,
    }
    Named { step, record }
}

/// Where `gapless run` keeps what the programs of its jobs say, for `gapless logs`.
pub fn programs_log(state: &Path) -> PathBuf {
    state.join("logs")
}

/// Quarantined records kept as Parquet.
pub struct RejectsFile(ParquetRejects);

impl RejectsFile {
    pub fn create(path: &Path) -> Result<RejectsFile, Failure> {
        if path.exists() {
            let message = format!("{} exists; give another name, or move it away", path.display());
            return Err(Failure::new(Kind::Conflict, message));
        }
        let made = ParquetRejects::create(path);
        made.map(RejectsFile).map_err(|error| Failure::failed(error.message))
    }

    pub fn write(&mut self, step: &str, record: Rejected) -> Result<(), Failure> {
        self.0
            .write(step, record)
            .map_err(|error| Failure::failed(error.message))
    }

    pub fn finish(self) -> Result<u64, Failure> {
        self.0.finish().map_err(|error| Failure::failed(error.message))
    }
}

//! Checks and plans that need no cluster: the job language, the survey, the split and the proof, in
//! this process.

use std::{collections::BTreeMap, path::Path};

use gapless_common::{
    certificate::Certificate,
    job::{self, BoundParameters, Job},
};

use crate::{
    failure::{Failure, Kind},
    job_file::JobFile,
    output,
    partition_table::PlannedStep,
};

/// Reads a job and puts its parameters in.
///
/// Errors: [`Kind::Invalid`] with one line for each fault: file, line, column, what is allowed.
pub fn bind(file: &JobFile, parameters: &BTreeMap<String, String>) -> Result<(Job, BoundParameters), Failure> {
    let parsed = job::parse(&file.text, &file.name);
    let bound = parsed.and_then(|parsed| parsed.bind(parameters));
    bound.map_err(|errors| Failure::new(Kind::Invalid, errors.to_string()))
}

/// Surveys, cuts and proves each step whose source is there, for so many slots.
pub fn plan(_job: &Job, _base_dir: &Path, _slots: u32) -> Result<Vec<PlannedStep>, Failure> {
    Err(not_wired("plan", "survey a source"))
}

/// The JSON Schema of job files.
pub fn schema() -> Result<String, Failure> {
    output::json(&job::json_schema())
}

/// What a second look at the source found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Records read again.
    pub records: u64,
    /// What differs, each with its file or partition; empty where the certificate holds.
    pub differences: Vec<String>,
}

/// Reads the source of a certificate again.
pub fn verify(_certificate: &Certificate) -> Result<Verification, Failure> {
    Err(not_wired("verify", "read a source"))
}

fn not_wired(verb: &str, what: &str) -> Failure {
    Failure::failed(format!(
        "this build of gapless cannot {what}, which `gapless {verb}` needs"
    ))
}

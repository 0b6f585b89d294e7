//! Publishing: the tasks that open, merge, settle and expose the output of a step.
//!
//! The place where readers look is the arbiter: one create-once record at the output decides
//! whether a step is committed or aborted. Everything before it can be thrown away, everything
//! after it can be repeated by whoever comes next, in any number.

mod abort;
mod added;
mod expose;
mod inputs;
mod merge;
mod objects;
mod prepare;
mod reconcile;
mod settle;
mod standing;
mod task;
mod verdict;

use gapless_common::{
    attempt::{Fence, RecordHash},
    error::{ErrorClass, TaskError},
    job::Exists,
    manifest::{Verdict, VerdictKind},
    range::UnitRange,
};
use serde::{Deserialize, Serialize};

use crate::attempt::{CommittedPartition, StepContext};

pub use abort::{abort, abort_unprepared};
pub use merge::merge;
pub use prepare::{Foreseen, foresee, prepare};
pub use settle::{publish, sweep_late};
pub use standing::{Damage, look_at_output, standing_certificate};
pub use task::{ScatteredOf, adopt_published, run_abort, run_merge, run_prepare, run_publish};

/// What prepare reports, and publish and abort are given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preparation {
    /// The number of the verdict that this step will create.
    pub generation: u64,
    /// The folder of the output, absolute.
    pub output: String,
    /// The folder in which rejected records lie until the step is settled: the leader names it when there
    /// are too many. Empty in what earlier releases reported.
    #[serde(default)]
    pub rejects: String,
}

/// What publish reports, and abort where the step had been published before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    pub verdict: VerdictKind,
    pub output: String,
    pub certificate: String,
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    /// Fingerprint of the input records, hexadecimal.
    pub records: String,
    /// Input records that the certificate covers.
    pub source_rows: u64,
}

/// What abort reports: `ABORTED`, or `COMMITTED` where it came too late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abortion {
    pub verdict: VerdictKind,
    /// Present where the step had been published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publication: Option<Publication>,
}

/// The committed partitions of the sealed stages, as the leader lists them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Committed<'a> {
    /// Empty without an exchange.
    pub scatter: &'a [CommittedPartition],
    pub execute: &'a [CommittedPartition],
    /// Empty where the output is not merged.
    pub merge: &'a [CommittedPartition],
}

/// Tells rows and fingerprint that were scattered into a range of buckets, from the indexes of the
/// sealed exchange files.
pub type Scattered<'a> = dyn Fn(UnitRange) -> Result<(u64, RecordHash), TaskError> + 'a;

/// What a publisher is to publish.
#[derive(Clone, Copy)]
pub struct Sealed<'a> {
    pub context: &'a StepContext,
    pub fence: Fence,
    pub generation: u64,
    /// The digest under which the leader sealed the step.
    pub seal: u64,
    pub committed: Committed<'a>,
    /// Asked where the step went through the exchange.
    pub scattered: &'a Scattered<'a>,
}

/// What a publishing task has just done. It may be stopped after each, and repeated from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// So many keys that must be unique are looked at.
    Compared(u64),
    /// The manifests are read and add up.
    Reconciled,
    /// The publication stands ready in a folder of this attempt.
    LaidOut,
    /// The verdict stands.
    Decided,
    /// One file of an appended output is visible.
    Linked,
    /// The output is visible.
    Exposed,
    /// What was staged is out of reach of any other attempt.
    MovedAway,
    /// What was staged is removed.
    Swept,
}

/// Asked after each action whether to go on: a stop of the leader comes in here.
pub type Gate<'a> = dyn FnMut(Action) -> Result<(), TaskError> + 'a;

/// How a step's output stands to what is there already. A sink that keeps nothing has a place of
/// its own for its records.
fn exists_mode(context: &StepContext) -> Exists {
    context.step().sink.file().map_or(Exists::Fail, |file| file.exists)
}

/// Whether a verdict settles this step as it is planned now. An earlier edition that was aborted is settled for itself;
/// what is published of any is the step's output.
fn is_own(verdict: &Verdict, context: &StepContext) -> bool {
    let same = (verdict.run, verdict.step) == (context.run, context.step_no);
    same && (verdict.edition == context.edition || verdict.verdict == VerdictKind::Committed)
}

/// Whoever is still to publish does not hear of it; else the leader does not know of the abort, and would ask for ever.
fn aborted(context: &StepContext) -> TaskError {
    TaskError::new(
        ErrorClass::Config,
        format!(
            "step {} was aborted: its verdict at the output says so; nothing is published. If the run is not cancelled, the \
             cluster's store was restored from an older copy: cancel the run, then submit the job again",
            context.step().name
        ),
    )
}

#[cfg(test)]
mod tests;

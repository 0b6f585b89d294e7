//! What can happen, and what may follow.

use std::sync::Arc;

use gapless_common::{
    attempt::{Commit, Fence},
    error::TaskError,
    ids::{RunId, SessionId, StepNo, TaskKey},
    job::Priority,
    labels::Labels,
    plan::Facts,
    range::UnitRange,
};
use uuid::Uuid;

use crate::{
    history::Kind,
    row::{Change, JobRow, Publication},
};

/// Everything that can change the state. Ids in events were made by the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Submit(Submit),
    /// A worker opened a session, holding these attempts from an earlier one.
    Connect {
        session: SessionId,
        worker: Uuid,
        name: String,
        version: String,
        slots: u32,
        labels: Labels,
        held: Vec<Held>,
    },
    /// A heartbeat: the complete set of attempts the worker holds.
    Heard {
        session: SessionId,
        held: Vec<Held>,
        resident_bytes: u64,
    },
    Commit {
        session: SessionId,
        task: TaskKey,
        fence: Fence,
        commit: Commit,
    },
    Finished {
        session: SessionId,
        task: TaskKey,
        fence: Fence,
        result: StageResult,
    },
    Failed {
        session: SessionId,
        task: TaskKey,
        fence: Fence,
        error: TaskError,
    },
    /// Something for the run's history: what a program of the job said.
    Said {
        session: SessionId,
        task: TaskKey,
        fence: Fence,
        text: String,
    },
    Released {
        session: SessionId,
        task: TaskKey,
        fence: Fence,
    },
    Drain {
        session: SessionId,
    },
    /// The worker's connection broke. It may come back: it keeps what it holds and is given nothing more.
    Away {
        session: SessionId,
    },
    /// The session is over: its stream ended, or it was silent for the lease time.
    Lost {
        session: SessionId,
    },
    Stop {
        run: RunId,
    },
    Cancel {
        run: RunId,
    },
    /// Goes on with what was too large for one decision.
    Continue(Continuation),
    /// Grants what is ready to whoever is free.
    Assign,
    /// Time has passed.
    Tick,
}

/// Work that is spread over several decisions. Each can be repeated from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuation {
    /// Writes the plan of a step, beginning with this slice.
    Plan { run: RunId, step: StepNo, slice: u32 },
    /// Begins the steps that wait for nothing any more.
    Begin { run: RunId },
    /// Takes back the leases of a voided session.
    Void { session: SessionId },
    /// Takes back the leases of a cancelled run, then has its steps aborted.
    Cancel { run: RunId },
    /// Looks whether a step cannot succeed any more.
    Settle { run: RunId, step: StepNo },
    /// Looks at the inputs of a planned step again.
    Look { run: RunId, step: StepNo },
    /// Cuts what is left of a step for the slots there are now.
    Recut { run: RunId, step: StepNo },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Submit {
    /// The id the run gets if it is a new one.
    pub run: RunId,
    pub identity: String,
    pub text_digest: String,
    /// In place of the job file's.
    pub priority: Option<Priority>,
    pub job: Arc<JobRow>,
}

/// An attempt in a worker's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub task: TaskKey,
    pub fence: Fence,
    pub position: u64,
    /// Records read since the last commit.
    pub rows: u64,
}

/// What a stage without commits reports.
#[derive(Clone, Debug, PartialEq)]
pub enum StageResult {
    Facts(Arc<Facts>),
    /// What prepare found, JSON that belongs to the workers.
    Prepared(String),
    Published(Publication),
    /// The verdict that stands at the output after an abort: `Some` where the step had been
    /// published before.
    Aborted(Option<Publication>),
}

/// Rows to make durable first; then the answer and the effects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    pub rows: Vec<Change>,
    pub answer: Option<Answer>,
    pub effects: Vec<Effect>,
}

/// The answer to whoever sent the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Submitted { run: RunId, resumed: bool },
    Done,
}

/// Something to send once the rows are durable. None is needed for progress: a heartbeat repeats it.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Grant {
        session: SessionId,
        grant: Grant,
    },
    Committed {
        session: SessionId,
        task: TaskKey,
        fence: Fence,
        seq: u32,
    },
    Refused {
        session: SessionId,
        task: TaskKey,
        fence: Fence,
        seq: u32,
        refusal: Refusal,
    },
    StopAttempt {
        session: SessionId,
        task: TaskKey,
        fence: Fence,
        at_checkpoint: bool,
        reason: &'static str,
    },
    Close {
        session: SessionId,
    },
    /// To be fed back as an event.
    Continue(Continuation),
    /// For the run's history and for the log.
    Note {
        run: RunId,
        step: StepNo,
        kind: Kind,
        text: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub task: TaskKey,
    pub fence: Fence,
    /// How often the step was planned anew before: its earlier plans' files are none of this attempt's.
    pub edition: u32,
    pub units: UnitRange,
    pub position: u64,
    pub seq: u32,
}

/// Why an event was not accepted. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the same job with the same identifying parameters is running as {run}")]
    AlreadyRunning { run: RunId },
    #[error("the same job with the same identifying parameters is complete as {run}")]
    AlreadyComplete { run: RunId },
    #[error(
        "the same job with the same identifying parameters is being cancelled as {run}; submit it again when that has ended"
    )]
    BeingCancelled { run: RunId },
    #[error("{limit} runs are live, which is the limit; wait for one to end or cancel one")]
    TooManyRuns { limit: usize },
    #[error(
        "{limit} workers are in session, which is the limit; this one may try again when others have left, or have more slots instead"
    )]
    TooManySessions { limit: usize },
    #[error("no run {run}")]
    NoSuchRun { run: RunId },
    #[error("run {run} has ended: {state}")]
    RunEnded { run: RunId, state: &'static str },
    #[error("session {session} is over")]
    SessionOver { session: SessionId },
    #[error("fenced: {task} is not leased to this attempt any more")]
    Fenced { task: TaskKey },
    #[error("sealed: {task} belongs to a stage that takes no commits any more")]
    Sealed { task: TaskKey },
    #[error("cancelled: the run of {task} is ending")]
    Cancelled { task: TaskKey },
    #[error("out of order: commit {seq} at {previous} where commit {expected_seq} at {expected} was next")]
    OutOfOrder {
        seq: u32,
        previous: u64,
        expected_seq: u32,
        expected: u64,
    },
    #[error("out of range: the commit ends at {next}, the partition is {units}")]
    OutOfRange { next: u64, units: UnitRange },
    #[error("another commit with this number is recorded already")]
    Contradicts { seq: u32 },
    #[error("this stage does not report that")]
    WrongStage { task: TaskKey },
}

//! Rows: the durable state, a key and its full value each. Stored as JSON under a readable key.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use gapless_common::{
    attempt::{Counters, Fence, RecordHash, Segment},
    error::ErrorClass,
    ids::{ClusterId, Epoch, PartitionNo, RunId, SessionId, Stage, StepNo, TaskKey},
    job::{Job, Priority},
    labels::Labels,
    plan::{ExchangePlan, Facts, Method, Partition},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{limits::MAX_EDITIONS, schema, time::Timestamp};

/// One row of the durable state.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    Cluster(ClusterRow),
    Session(SessionId, SessionRow),
    Run(RunId, RunRow),
    /// The job of a run: written once.
    Job(RunId, Arc<JobRow>),
    /// Which run an identity (job and identifying parameters) belongs to.
    Identity(String, RunId),
    Step(RunId, StepNo, StepRow),
    /// What the survey found: written once for each edition of the step.
    Facts(RunId, StepNo, Arc<Facts>),
    /// A slice of a partition table: written once. Those of the split are there before the step leaves
    /// `Splitting`; later ones narrow partitions of earlier slices and add others.
    Plan(RunId, StepNo, Stage, u32, Vec<Partition>),
    /// The row is the lease.
    Lease(TaskKey, LeaseRow),
    Progress(TaskKey, ProgressRow),
    /// How fast a step of a job went when it was last published: by the names of job and step.
    Speed(String, String, SpeedRow),
}

/// The identity of a row in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    Cluster,
    Session(SessionId),
    Run(RunId),
    Job(RunId),
    Identity(String),
    Step(RunId, StepNo),
    Facts(RunId, StepNo),
    Plan(RunId, StepNo, Stage, u32),
    Lease(TaskKey),
    Progress(TaskKey),
    Speed(String, String),
}

/// What a decision does to a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Put(Row),
    /// The key must be absent: two holders of one lease cannot both succeed.
    Create(Row),
    Delete(RowKey),
}

/// Whose store this is, and of what form its rows are; see [`crate::schema`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRow {
    pub cluster: ClusterId,
    /// Raised whenever an operator accepts a store that is older than what others have seen.
    #[serde(default)]
    pub epoch: Epoch,
    /// Version of the rows' forms.
    pub schema: u32,
    /// The oldest form that a row may still have. Schema 1 did not say so.
    #[serde(default = "schema::first")]
    pub oldest: u32,
    /// The release that raised the schema to what it is. Schema 1 did not say so.
    #[serde(default)]
    pub release: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The worker process: its newer session takes over from its older one.
    pub worker: Uuid,
    pub name: String,
    pub slots: u32,
    pub version: String,
    pub draining: bool,
    /// Voided: its leases are being taken back and nothing of it is accepted.
    pub void: bool,
    /// What steps may ask for.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

impl SessionRow {
    /// Slots that this session adds to the cluster's.
    pub(crate) fn seated(&self) -> u32 {
        if self.void { 0 } else { self.slots }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    Running,
    /// Asked to stop at checkpoints.
    Stopping,
    Stopped,
    /// A task failed for good; what runs is stopped at checkpoints.
    Failing,
    Failed,
    Cancelling,
    Cancelled,
    Completed,
}

impl RunState {
    pub const ALL: [RunState; 8] = [
        RunState::Running,
        RunState::Stopping,
        RunState::Stopped,
        RunState::Failing,
        RunState::Failed,
        RunState::Cancelling,
        RunState::Cancelled,
        RunState::Completed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            RunState::Running => "running",
            RunState::Stopping => "stopping",
            RunState::Stopped => "stopped",
            RunState::Failing => "failing",
            RunState::Failed => "failed",
            RunState::Cancelling => "cancelling",
            RunState::Cancelled => "cancelled",
            RunState::Completed => "completed",
        }
    }

    /// Whether the run still holds or may take workers.
    pub fn is_live(self) -> bool {
        match self {
            RunState::Running | RunState::Stopping | RunState::Failing | RunState::Cancelling => true,
            RunState::Stopped | RunState::Failed | RunState::Cancelled | RunState::Completed => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRow {
    pub state: RunState,
    pub identity: String,
    pub text_digest: String,
    pub submitted: Timestamp,
    pub finished: Option<Timestamp>,
    pub error: Option<String>,
    /// How often a stopped or failed run was taken up again. Failures of earlier restarts are forgiven.
    pub restarts: u32,
    #[serde(default)]
    pub priority: Priority,
}

impl RunRow {
    /// Stands in between a run's job row and its run row, which are written together.
    pub const NEW: RunRow = RunRow {
        state: RunState::Running,
        identity: String::new(),
        text_digest: String::new(),
        submitted: Timestamp(0),
        finished: None,
        error: None,
        restarts: 0,
        priority: Priority(50),
    };
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRow {
    pub text: String,
    /// Beside the text: what makes it a redrive, empty where it is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub redrive: String,
    pub file_name: String,
    pub parameters: BTreeMap<String, String>,
    pub base_dir: String,
    pub job: Job,
}

/// Where a step is in its life. The stages that lease tasks carry their stage's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Waiting,
    Survey,
    /// The plan is being written; nothing is granted before it is whole.
    Splitting,
    Prepare,
    Scatter,
    Execute,
    Merge,
    /// Sealed: no commit of the step is accepted any more.
    Publish,
    Published,
    Abort,
    Aborted,
}

impl Phase {
    /// The stage whose tasks are leased in this phase.
    pub fn stage(self) -> Option<Stage> {
        match self {
            Phase::Survey => Some(Stage::Survey),
            Phase::Prepare => Some(Stage::Prepare),
            Phase::Scatter => Some(Stage::Scatter),
            Phase::Execute => Some(Stage::Execute),
            Phase::Merge => Some(Stage::Merge),
            Phase::Publish => Some(Stage::Publish),
            Phase::Abort => Some(Stage::Abort),
            Phase::Waiting | Phase::Splitting | Phase::Published | Phase::Aborted => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Splitting => "split",
            Phase::Published => "published",
            Phase::Aborted => "aborted",
            other => other.stage().map_or("", Stage::name),
        }
    }
}

/// The plan without its partition tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanHeader {
    pub method: Method,
    pub reason: String,
    pub exchange: Option<ExchangePlan>,
    pub scatter: u32,
    pub execute: u32,
    pub merge: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    pub phase: Phase,
    /// The slots that the step was cut for: splitting again gives the same plan.
    pub slots: u32,
    /// The restart of the run in which what was left of the step was last cut anew.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: u32,
    /// How often the step was planned anew because an input had changed. What is on record of an earlier edition
    /// (its partition tables, the progress of its tasks) counts no more; see [`first_slice`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub edition: u32,
    /// The highest attempt number of all earlier editions: numbers go on from there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attempts: u32,
    /// The restart of the run in which the step's inputs were last looked at.
    #[serde(default, skip_serializing_if = "is_default")]
    pub looked: u32,
    /// While the inputs of a planned step are looked at again: the phase that it goes back to if they are unchanged.
    #[serde(default, skip_serializing_if = "is_default")]
    pub back_to: Option<Phase>,
    /// Why it was last planned anew.
    #[serde(default, skip_serializing_if = "is_default")]
    pub anew: Option<Box<Anew>>,
    /// How fast a slot went in an earlier run, at the split likewise.
    #[serde(default)]
    pub speed: Option<u64>,
    pub plan: Option<Box<PlanHeader>>,
    /// What prepare and publish reported, JSON.
    pub preparation: Option<String>,
    pub publication: Option<Publication>,
    /// Digest over everything committed, fixed when the step was sealed.
    pub seal: Option<u64>,
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
}

impl StepRow {
    pub const WAITING: StepRow = StepRow {
        phase: Phase::Waiting,
        slots: 0,
        restart: 0,
        edition: 0,
        attempts: 0,
        looked: 0,
        back_to: None,
        anew: None,
        speed: None,
        plan: None,
        preparation: None,
        publication: None,
        seal: None,
        started: None,
        finished: None,
    };
}

/// That inputs of a step had changed, which people may ask for long after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anew {
    pub at: Timestamp,
    /// Which, in a sentence.
    pub told: String,
}

/// Plan rows of one edition of a step: far more than the slices that a table of [`PARTITIONS_PER_ROW`] each can have,
/// however often it is cut anew.
///
/// [`PARTITIONS_PER_ROW`]: crate::limits::PARTITIONS_PER_ROW
const SLICES_PER_EDITION: u32 = 1 << 20;

const _: () = assert!((MAX_EDITIONS as u64) < (1u64 << 32) / SLICES_PER_EDITION as u64);

/// The number of the first slice of the tables of an edition. Slices of other editions are not looked at.
pub fn first_slice(edition: u32) -> u32 {
    edition * SLICES_PER_EDITION
}

/// The edition of the table that a slice belongs to.
pub(crate) fn edition_of(slice: u32) -> u32 {
    slice / SLICES_PER_EDITION
}

/// How fast a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpeedRow {
    /// Of its source, for each slot.
    pub bytes_per_second: u64,
    /// When it was measured: the oldest makes room for others.
    pub at: Timestamp,
}

/// What the publish task reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    pub output: String,
    pub certificate: String,
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    /// Fingerprint of the input records, hexadecimal.
    pub records: String,
    pub source_rows: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    pub session: SessionId,
    pub fence: Fence,
}

/// How a task ended for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub class: ErrorClass,
    pub message: String,
    /// The restart in which it failed; a later restart tries again.
    pub restart: u32,
}

/// What is durable of a task besides its lease. Absent until its first attempt has ended.
///
/// There is one for each partition, so that the stored form leaves out what has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressRow {
    /// The highest attempt number that was granted and has ended.
    pub attempt: u32,
    /// The edition of the step's plan that it is of.
    #[serde(default, skip_serializing_if = "is_default")]
    pub edition: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub done: bool,
    /// Commits so far: the number of the next one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub seq: u32,
    /// Where the last commit ended; meaningful once `seq > 0`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub position: u64,
    #[serde(default, skip_serializing_if = "is_default", with = "counters_in_row")]
    pub counters: Counters,
    #[serde(default, skip_serializing_if = "is_default")]
    pub records: RecordHash,
    #[serde(default, skip_serializing_if = "is_default", with = "segments_in_row")]
    pub segments: Vec<Segment>,
    /// Digest of the last commit: the same commit sent again is recognised by it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub digest: u64,
    /// Attempts that failed in a way that may pass, in the present restart.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failures: u32,
    /// Attempts whose worker was lost.
    #[serde(default, skip_serializing_if = "is_default")]
    pub losses: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub failure: Option<Failure>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Counters as a list of six numbers, in the order of their fields.
mod counters_in_row {
    use gapless_common::attempt::Counters;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(counters: &Counters, serializer: S) -> Result<S::Ok, S::Error> {
        let Counters {
            read,
            written,
            filtered,
            rejected,
            bytes_read,
            bytes_written,
        } = *counters;
        [read, written, filtered, rejected, bytes_read, bytes_written].serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Counters, D::Error> {
        Ok(match Stored::deserialize(deserializer)? {
            Stored::Listed([read, written, filtered, rejected, bytes_read, bytes_written]) => Counters {
                read,
                written,
                filtered,
                rejected,
                bytes_read,
                bytes_written,
            },
            Stored::Named(counters) => counters,
        })
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Listed([u64; 6]),
        /// As in schema 1.
        Named(Counters),
    }
}

/// Each segment as a list of four numbers: term and serial of the attempt, its first commit and the one
/// after its last.
mod segments_in_row {
    use gapless_common::{
        attempt::Segment,
        ids::{AttemptId, Term},
    };
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(segments: &[Segment], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(segments.iter().map(|segment| {
            let AttemptId { term, serial } = segment.attempt;
            (term.0, serial, segment.first_seq, segment.next_seq)
        }))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Segment>, D::Error> {
        let segments: Vec<Stored> = Deserialize::deserialize(deserializer)?;
        let segment = |stored| match stored {
            Stored::Listed(term, serial, first_seq, next_seq) => Segment {
                attempt: AttemptId {
                    term: Term(term),
                    serial,
                },
                first_seq,
                next_seq,
            },
            Stored::Named(segment) => segment,
        };
        Ok(segments.into_iter().map(segment).collect())
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Listed(u64, u64, u32, u32),
        /// As in schema 1.
        Named(Segment),
    }
}

impl Row {
    pub fn key(&self) -> RowKey {
        match self {
            Row::Cluster(_) => RowKey::Cluster,
            Row::Session(id, _) => RowKey::Session(*id),
            Row::Run(run, _) => RowKey::Run(*run),
            Row::Job(run, _) => RowKey::Job(*run),
            Row::Identity(identity, _) => RowKey::Identity(identity.clone()),
            Row::Step(run, step, _) => RowKey::Step(*run, *step),
            Row::Facts(run, step, _) => RowKey::Facts(*run, *step),
            Row::Plan(run, step, stage, slice, _) => RowKey::Plan(*run, *step, *stage, *slice),
            Row::Lease(task, _) => RowKey::Lease(*task),
            Row::Progress(task, _) => RowKey::Progress(*task),
            Row::Speed(job, step, _) => RowKey::Speed(job.clone(), step.clone()),
        }
    }

    /// The value as stored: JSON.
    pub fn encode(&self) -> Vec<u8> {
        let encoded = match self {
            Row::Cluster(row) => serde_json::to_vec(row),
            Row::Session(_, row) => serde_json::to_vec(row),
            Row::Run(_, row) => serde_json::to_vec(row),
            Row::Job(_, row) => serde_json::to_vec(&**row),
            Row::Identity(_, run) => serde_json::to_vec(run),
            Row::Step(_, _, row) => serde_json::to_vec(row),
            Row::Facts(_, _, row) => serde_json::to_vec(&**row),
            Row::Plan(_, _, _, _, partitions) => serde_json::to_vec(partitions),
            Row::Lease(_, row) => serde_json::to_vec(row),
            Row::Progress(_, row) => serde_json::to_vec(row),
            Row::Speed(_, _, row) => serde_json::to_vec(row),
        };
        encoded.expect("rows hold no type that JSON cannot")
    }

    /// Reads a stored row. Errors name the key: a row that cannot be read must stop the start, since
    /// going on without it could run work twice.
    pub fn decode(key: &str, value: &[u8]) -> Result<Row, RowError> {
        let parsed: RowKey = key.parse()?;
        let wrong = |source| RowError::Value {
            key: key.to_string(),
            source,
        };
        Ok(match parsed {
            RowKey::Cluster => Row::Cluster(serde_json::from_slice(value).map_err(wrong)?),
            RowKey::Session(id) => Row::Session(id, serde_json::from_slice(value).map_err(wrong)?),
            RowKey::Run(run) => Row::Run(run, serde_json::from_slice(value).map_err(wrong)?),
            RowKey::Job(run) => Row::Job(run, Arc::new(serde_json::from_slice(value).map_err(wrong)?)),
            RowKey::Identity(identity) => Row::Identity(identity, serde_json::from_slice(value).map_err(wrong)?),
            RowKey::Step(run, step) => Row::Step(run, step, serde_json::from_slice(value).map_err(wrong)?),
            RowKey::Facts(run, step) => Row::Facts(run, step, Arc::new(serde_json::from_slice(value).map_err(wrong)?)),
            RowKey::Plan(run, step, stage, slice) => {
                Row::Plan(run, step, stage, slice, serde_json::from_slice(value).map_err(wrong)?)
            }
            RowKey::Lease(task) => Row::Lease(task, serde_json::from_slice(value).map_err(wrong)?),
            RowKey::Progress(task) => Row::Progress(task, serde_json::from_slice(value).map_err(wrong)?),
            RowKey::Speed(job, step) => Row::Speed(job, step, serde_json::from_slice(value).map_err(wrong)?),
        })
    }
}

impl Change {
    pub fn key(&self) -> RowKey {
        match self {
            Change::Put(row) | Change::Create(row) => row.key(),
            Change::Delete(key) => key.clone(),
        }
    }
}

/// A stored row that this release cannot read.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    #[error("the key {0} is of no kind that this release knows; was it written by a newer release, or by hand?")]
    Key(String),
    #[error("the row {key} cannot be read: {source}; was it written by a newer release, or by hand?")]
    Value { key: String, source: serde_json::Error },
    /// Going on would drop it as soon as the row is written again.
    #[error("the row {key} has a field that this release does not know: {field}; was it written by a newer release?")]
    Field { key: String, field: String },
}

impl std::fmt::Display for RowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RowKey::Cluster => f.write_str("cluster"),
            RowKey::Session(id) => write!(f, "session/{id}"),
            RowKey::Run(run) => write!(f, "run/{run}"),
            RowKey::Job(run) => write!(f, "job/{run}"),
            RowKey::Identity(identity) => write!(f, "identity/{identity}"),
            RowKey::Step(run, step) => write!(f, "step/{run}/{step}"),
            RowKey::Facts(run, step) => write!(f, "facts/{run}/{step}"),
            RowKey::Plan(run, step, stage, slice) => write!(f, "plan/{run}/{step}/{stage}/{slice}"),
            RowKey::Lease(task) => write!(f, "lease/{task}"),
            RowKey::Progress(task) => write!(f, "progress/{task}"),
            RowKey::Speed(job, step) => write!(f, "speed/{job}/{step}"),
        }
    }
}

impl FromStr for RowKey {
    type Err = RowError;

    fn from_str(text: &str) -> Result<Self, RowError> {
        parse_key(text).ok_or_else(|| RowError::Key(text.to_string()))
    }
}

fn parse_key(text: &str) -> Option<RowKey> {
    if text == "cluster" {
        return Some(RowKey::Cluster);
    }
    let (kind, rest) = text.split_once('/')?;
    if kind == "identity" {
        // It is the client's word and may hold any character.
        return Some(RowKey::Identity(rest.to_string()));
    }
    let parts: Vec<&str> = rest.split('/').collect();
    Some(match (kind, parts.as_slice()) {
        ("session", [id]) => RowKey::Session(id.parse().ok()?),
        ("run", [run]) => RowKey::Run(run.parse().ok()?),
        ("job", [run]) => RowKey::Job(run.parse().ok()?),
        ("step", [run, step]) => RowKey::Step(run.parse().ok()?, step.parse().ok()?),
        ("facts", [run, step]) => RowKey::Facts(run.parse().ok()?, step.parse().ok()?),
        ("plan", [run, step, stage, slice]) => RowKey::Plan(
            run.parse().ok()?,
            step.parse().ok()?,
            Stage::from_name(stage)?,
            slice.parse().ok()?,
        ),
        ("lease", [run, step, stage, partition]) => RowKey::Lease(task(run, step, stage, partition)?),
        // Names hold no slash.
        ("speed", [job, step]) => RowKey::Speed(job.to_string(), step.to_string()),
        ("progress", [run, step, stage, partition]) => RowKey::Progress(task(run, step, stage, partition)?),
        _ => return None,
    })
}

fn task(run: &str, step: &str, stage: &str, partition: &str) -> Option<TaskKey> {
    Some(TaskKey {
        run: run.parse().ok()?,
        step: step.parse::<StepNo>().ok()?,
        stage: Stage::from_name(stage)?,
        partition: partition.parse::<PartitionNo>().ok()?,
    })
}

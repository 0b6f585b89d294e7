//! An attempt: one task, from its grant to its last commit.

pub mod execute;
pub mod intake;
mod narrow;
pub mod survey;

use std::{path::PathBuf, sync::Arc};

use gapless_common::{
    attempt::{Commit, Counters, Fence, RecordHash, Segment},
    error::TaskError,
    ids::{PartitionNo, RunId, Stage, TaskKey},
    job::{Job, Step},
    plan::{BucketFn, StepFrame},
    range::UnitRange,
};

/// What an attempt knows of its step besides its partition. One for each (run, step, edition), shared.
#[derive(Debug)]
pub struct StepContext {
    pub job: Arc<Job>,
    pub step_no: u16,
    pub run: RunId,
    /// How often the step was planned anew because its input had changed: each time it has folders of its own.
    pub edition: u32,
    /// Folder against which relative paths are resolved.
    pub base_dir: PathBuf,
    /// The run's time in microseconds since the epoch: `now()` in SQL.
    pub started_micros: i64,
    /// Folder for exchange files and other scratch of all workers.
    pub scratch: PathBuf,
    /// `None` before the split (survey).
    pub frame: Option<StepFrame>,
    /// What prepare reported, JSON; `None` before it.
    pub preparation: Option<Vec<u8>>,
    /// The digest under which the step is sealed; `None` before it.
    pub seal: Option<u64>,
}

impl StepContext {
    pub fn step(&self) -> &Step {
        &self.job.steps[self.step_no as usize]
    }

    /// The columns by which the step is cut; none where it is cut along its source.
    pub fn key_columns(&self) -> &[String] {
        let exchange = self.frame.as_ref().and_then(|frame| frame.exchange.as_ref());
        match exchange.map(|exchange| &exchange.function) {
            Some(BucketFn::Hash { columns }) => columns,
            Some(BucketFn::KeyRange { column, .. }) => std::slice::from_ref(column),
            None => &[],
        }
    }
}

/// One granted attempt.
#[derive(Clone, Debug)]
pub struct Assignment {
    pub task: TaskKey,
    pub fence: Fence,
    pub units: UnitRange,
    /// Where the last commit ended, and the number of the next one.
    pub position: u64,
    pub seq: u32,
    pub context: Arc<StepContext>,
}

/// How an attempt ended when it did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The last commit was offered (scatter, execute, merge).
    Committed,
    /// A stage without commits is done; JSON whose shape belongs to the stage.
    Finished(Vec<u8>),
    /// Stopped at a checkpoint, as asked; what is committed stands.
    Released,
}

/// What the leader wants of a running attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    No,
    /// Commit what is there at the next checkpoint and release.
    AtCheckpoint,
    /// Give up at once: nothing more of this attempt will count.
    Now,
}

/// What is committed of one partition of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedPartition {
    pub partition: PartitionNo,
    pub units: UnitRange,
    pub position: u64,
    pub counters: Counters,
    pub records: RecordHash,
    /// Which attempt made which commits: file names follow.
    pub segments: Vec<Segment>,
}

/// The attempt's line to the leader. Calls block the attempt's own thread.
pub trait Leader: Send + Sync {
    /// Offers a chunk whose output is durable. A commit that is not the last waits until the leader
    /// has recorded it, asking again as long as the answer is unknown. The last one (`commit.last`)
    /// is handed over and settled by the session: the attempt has nothing left to do.
    ///
    /// Errors: `Fenced` when another attempt holds the partition, `Cancelled` when the run ends.
    fn commit(&self, commit: Commit) -> Result<(), TaskError>;

    /// Tells how far the attempt has read (for progress and the stall deadline) and learns whether
    /// to stop. Cheap: call it for each batch.
    fn progress(&self, position: u64, rows_since_commit: u64) -> Stop;

    /// Tells something for the run's history. It may be lost.
    fn tell(&self, text: String) {
        tracing::info!("{text}");
    }

    /// The committed partitions of a sealed stage of this step, in order.
    fn committed(&self, stage: Stage) -> Result<Vec<CommittedPartition>, TaskError>;
}

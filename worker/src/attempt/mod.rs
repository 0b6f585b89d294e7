//! An attempt: one task, from its grant to its last commit.

use gapless_common::{attempt::Fence, ids::TaskKey, job::{Job, Step}, plan::StepFrame, range::UnitRange};
use std::{path::PathBuf, sync::Arc};

/// What an attempt knows of its step besides its partition. One for each (run, step), shared.
#[derive(Debug)]
pub struct StepContext {
    pub job: Job,
    pub step_no: u16,
    pub run: gapless_common::ids::RunId,
    /// Folder against which relative paths are resolved.
    pub base_dir: PathBuf,
    /// The run's time in microseconds since the epoch: `now()` in SQL.
    pub started_micros: i64,
    /// Folder for exchange files and other scratch of all workers.
    pub scratch: PathBuf,
    /// `None` before the split (survey).
    pub frame: Option<StepFrame>,
}

impl StepContext {
    pub fn step(&self) -> &Step {
        &self.job.steps[self.step_no as usize]
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

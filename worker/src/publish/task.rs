//! The stages of this room as an attempt runs them: an assignment in, an outcome out.

use gapless_common::{
    attempt::RecordHash,
    error::{ErrorClass, TaskError},
    ids::Stage,
    range::UnitRange,
};
use serde::Serialize;

use super::{
    Action, Committed, Preparation, Scattered, Sealed, abort, abort_unprepared, merge, prepare, publish, settle,
};
use crate::attempt::{Assignment, CommittedPartition, Leader, Outcome, StepContext, Stop};

/// Stage Prepare. The result is a [`Preparation`].
pub fn run_prepare(assignment: &Assignment) -> Result<Outcome, TaskError> {
    finished(&prepare(&assignment.context, assignment.fence)?)
}

/// Stage Merge: one commit.
pub fn run_merge(assignment: &Assignment, leader: &dyn Leader) -> Result<Outcome, TaskError> {
    let Assignment {
        task,
        fence,
        units,
        context,
        ..
    } = assignment;
    let execute = leader.committed(Stage::Execute)?;
    let commit = merge(context, *fence, task.partition, *units, &execute, &mut |rows| {
        check_stop(assignment, leader, rows)
    })?;
    leader.commit(commit)?;
    Ok(Outcome::Committed)
}

/// Of a stage over data that failed: that its step is published already, where it is. The result is a
/// [`Publication`](super::Publication); the error stays where that cannot be said.
pub fn adopt_published(context: &StepContext, error: TaskError) -> Result<Outcome, TaskError> {
    match settle::published_already(context) {
        Some(publication) => finished(&publication?),
        None => Err(error),
    }
}

/// Stage Publish. The result is a [`Publication`](super::Publication). `scattered` is asked only
/// where the step went through the exchange, with the committed scatter partitions.
pub fn run_publish(
    assignment: &Assignment,
    leader: &dyn Leader,
    scattered: &ScatteredOf<'_>,
) -> Result<Outcome, TaskError> {
    let stages = committed_stages(assignment, leader)?;
    let scattered = |units| scattered(&stages.scatter, units);
    let sealed = stages.sealed(assignment, preparation(assignment)?.generation, &scattered);
    finished(&publish(&sealed, &mut |action| {
        let keys = if let Action::Compared(keys) = action { keys } else { 0 };
        check_stop(assignment, leader, keys)
    })?)
}

/// Stage Abort. The result is an [`Abortion`](super::Abortion).
pub fn run_abort(
    assignment: &Assignment,
    leader: &dyn Leader,
    scattered: &ScatteredOf<'_>,
) -> Result<Outcome, TaskError> {
    let context = &assignment.context;
    let gate = &mut |_| check_stop(assignment, leader, 0);
    if context.preparation.is_none() {
        return finished(&abort_unprepared(context, assignment.fence, gate)?);
    }
    // A step that was not sealed cannot have been published, so nothing has to be made visible.
    let stages = match context.seal {
        Some(_) => committed_stages(assignment, leader)?,
        None => Stages::default(),
    };
    let scattered = |units| scattered(&stages.scatter, units);
    let sealed = stages.sealed(assignment, preparation(assignment)?.generation, &scattered);
    finished(&abort(&sealed, gate)?)
}

/// Rows and fingerprint that committed scatter partitions put into a range of buckets.
pub type ScatteredOf<'a> = dyn Fn(&[CommittedPartition], UnitRange) -> Result<(u64, RecordHash), TaskError> + 'a;

#[derive(Default)]
struct Stages {
    scatter: Vec<CommittedPartition>,
    execute: Vec<CommittedPartition>,
    merge: Vec<CommittedPartition>,
}

impl Stages {
    fn sealed<'a>(&'a self, assignment: &'a Assignment, generation: u64, scattered: &'a Scattered<'a>) -> Sealed<'a> {
        Sealed {
            context: &assignment.context,
            fence: assignment.fence,
            generation,
            seal: assignment.context.seal.unwrap_or(0),
            committed: Committed {
                scatter: &self.scatter,
                execute: &self.execute,
                merge: &self.merge,
            },
            scattered,
        }
    }
}

fn committed_stages(assignment: &Assignment, leader: &dyn Leader) -> Result<Stages, TaskError> {
    let frame = assignment.context.frame.as_ref();
    let scatter = match frame.and_then(|frame| frame.exchange.as_ref()) {
        Some(_) => leader.committed(Stage::Scatter)?,
        None => Vec::new(),
    };
    let merge = match frame.and_then(|frame| frame.merge) {
        Some(_) => leader.committed(Stage::Merge)?,
        None => Vec::new(),
    };
    Ok(Stages {
        scatter,
        execute: leader.committed(Stage::Execute)?,
        merge,
    })
}

fn check_stop(assignment: &Assignment, leader: &dyn Leader, rows: u64) -> Result<(), TaskError> {
    match leader.progress(assignment.position, rows) {
        Stop::No | Stop::AtCheckpoint => Ok(()),
        Stop::Now => Err(TaskError::new(
            ErrorClass::Fenced,
            format!(
                "{} of {} was told to stop; another attempt goes on",
                assignment.fence, assignment.task
            ),
        )),
    }
}

fn preparation(assignment: &Assignment) -> Result<Preparation, TaskError> {
    let json = assignment.context.preparation.as_deref().unwrap_or_default();
    serde_json::from_slice(json).map_err(|error| {
        TaskError::new(
            ErrorClass::Transient,
            format!("what prepare reported for {} cannot be read: {error}", assignment.task),
        )
    })
}

fn finished(result: &impl Serialize) -> Result<Outcome, TaskError> {
    serde_json::to_vec(result)
        .map(Outcome::Finished)
        .map_err(|error| TaskError::new(ErrorClass::Data, format!("a result has no JSON: {error}")))
}

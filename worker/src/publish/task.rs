//! The stages of this room as an attempt runs them: an assignment in, an outcome out.

use gapless_common::{
    error::{ErrorClass, TaskError},
    ids::Stage,
};
use serde::Serialize;

use super::{Committed, Preparation, Sealed, abort, merge, prepare, publish};
use crate::attempt::{Assignment, Leader, Outcome, Stop};

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

/// Stage Publish. `preparation` is what prepare reported, JSON. The result is a
/// [`Publication`](super::Publication).
pub fn run_publish(
    assignment: &Assignment,
    leader: &dyn Leader,
    preparation: &[u8],
    seal: u64,
) -> Result<Outcome, TaskError> {
    let stages = committed_stages(assignment, leader)?;
    let sealed = Sealed {
        context: &assignment.context,
        fence: assignment.fence,
        generation: parse(preparation)?.generation,
        seal,
        committed: stages.as_committed(),
    };
    finished(&publish(&sealed, &mut |_| check_stop(assignment, leader, 0))?)
}

/// Stage Abort. `preparation` is empty where the step was not prepared, `seal` `None` where it was
/// not sealed. The result is an [`Abortion`](super::Abortion).
pub fn run_abort(
    assignment: &Assignment,
    leader: &dyn Leader,
    preparation: &[u8],
    seal: Option<u64>,
) -> Result<Outcome, TaskError> {
    let generation = if preparation.is_empty() {
        None
    } else {
        Some(parse(preparation)?.generation)
    };
    // An unsealed step cannot have been published, so nothing has to be made visible.
    let stages = match seal {
        Some(_) => committed_stages(assignment, leader)?,
        None => Stages::default(),
    };
    let abortion = abort(
        &assignment.context,
        assignment.fence,
        generation,
        seal.unwrap_or(0),
        stages.as_committed(),
        &mut |_| check_stop(assignment, leader, 0),
    )?;
    finished(&abortion)
}

#[derive(Default)]
struct Stages {
    scatter: Vec<crate::attempt::CommittedPartition>,
    execute: Vec<crate::attempt::CommittedPartition>,
    merge: Vec<crate::attempt::CommittedPartition>,
}

impl Stages {
    fn as_committed(&self) -> Committed<'_> {
        Committed {
            scatter: &self.scatter,
            execute: &self.execute,
            merge: &self.merge,
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

fn parse(preparation: &[u8]) -> Result<Preparation, TaskError> {
    serde_json::from_slice(preparation).map_err(|error| {
        TaskError::new(
            ErrorClass::Transient,
            format!("what prepare reported cannot be read: {error}"),
        )
    })
}

fn finished(result: &impl Serialize) -> Result<Outcome, TaskError> {
    serde_json::to_vec(result)
        .map(Outcome::Finished)
        .map_err(|error| TaskError::new(ErrorClass::Data, format!("a result has no JSON: {error}")))
}

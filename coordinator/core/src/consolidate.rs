//! Consolidate: a stage whose tasks are all done gives way to the next; the last one is sealed and
//! published once.

use gapless_common::{
    attempt::Fence,
    ids::{PartitionNo, RunId, SessionId, Stage, StepNo, TaskKey},
};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    decide::{Draft, Holding},
    event::{Continuation, Effect, Refusal},
    history::Kind,
    limits::MAX_STEPS,
    look,
    row::{Phase, ProgressRow, Publication, RunState},
    speed,
    state::{StageState, Step},
};

/// A task of a stage is done, with this progress: if it was the last, the step goes on.
pub(crate) fn task_done(draft: &mut Draft, key: TaskKey, holding: &Holding, progress: &ProgressRow) {
    let Some(stage) = holding.step.stage(key.stage) else {
        return;
    };
    if stage.failed > 0 {
        draft.effect(Effect::Continue(Continuation::Settle {
            run: key.run,
            step: key.step,
        }));
    }
    if stage.done + 1 < stage.total() {
        return;
    }
    let merge = holding.step.row.plan.as_ref().is_some_and(|plan| plan.merge.is_some());
    let next = match key.stage {
        Stage::Scatter => Phase::Execute,
        Stage::Execute if merge => Phase::Merge,
        Stage::Execute | Stage::Merge => Phase::Publish,
        Stage::Survey | Stage::Prepare | Stage::Publish | Stage::Abort => return,
    };
    let seal = (next == Phase::Publish).then(|| seal(stage, key.partition, progress));
    draft.change_step(key.run, key.step, holding.step, |row| {
        row.phase = next;
        row.seal = seal;
    });
}

/// A digest over everything that is committed in the last stage of a step. After it is written no
/// commit of the step is accepted, so it names exactly what a publisher may publish.
fn seal(stage: &StageState, last: PartitionNo, progress: &ProgressRow) -> u64 {
    let mut digest = Xxh3::new();
    for (number, task) in stage.tasks.iter().enumerate() {
        // The task whose commit completes the stage is in this decision, not in the state yet.
        let recorded = if number as PartitionNo == last {
            Some(progress)
        } else {
            task.progress.as_deref()
        };
        let Some(recorded) = recorded else { continue };
        digest.update(&(number as u32).to_le_bytes());
        digest.update(&recorded.seq.to_le_bytes());
        digest.update(&recorded.position.to_le_bytes());
        digest.update(&recorded.digest.to_le_bytes());
    }
    digest.digest()
}

/// The publish task has created, or found, the verdict COMMITTED of this step; or a task over data has found it,
/// of which this state knows nothing: the store was restored from an older copy.
pub(crate) fn published(
    draft: &mut Draft,
    session: SessionId,
    key: TaskKey,
    fence: Fence,
    publication: Publication,
) -> Result<(), Refusal> {
    let holding = draft.holding(session, key, fence)?;
    match key.stage {
        Stage::Publish => {}
        Stage::Scatter | Stage::Execute | Stage::Merge => {
            adopt(draft, key, fence, &holding, publication);
            return Ok(());
        }
        Stage::Survey | Stage::Prepare | Stage::Abort => return Err(Refusal::WrongStage { task: key }),
    }
    let mut progress = holding.task.progress_for(holding.run.row.restarts);
    progress.done = true;
    draft.release(key, fence, progress);
    publish_step(draft, key.run, key.step, holding.step, publication);
    speed::keep(draft, holding.run, key.step);
    step_ended(draft, key, &holding);
    Ok(())
}

/// The verdict at the output is the arbiter: the step is published, whatever is on record of its partitions. What
/// others hold of it comes back by itself, as it cannot be committed; until then the run is not complete
/// (`Draft::settle`).
fn adopt(draft: &mut Draft, key: TaskKey, fence: Fence, holding: &Holding, publication: Publication) {
    draft.release(key, fence, holding.task.progress_for(holding.run.row.restarts));
    if holding.step.row.phase == Phase::Published {
        return;
    }
    let text = format!(
        "step {} had been published before the cluster's store was restored from an older copy: its output in {} stands, \
         which {} certifies, and is not published a second time",
        holding.run.definition(key.step).name,
        publication.output,
        publication.certificate
    );
    draft.note(key.run, key.step, Kind::Note, text);
    publish_step(draft, key.run, key.step, holding.step, publication);
    if holding.run.leases > 1 {
        begin_steps(draft, key.run, Some(key.step));
    } else {
        step_ended(draft, key, holding);
    }
}

/// A step has an output: the run goes on with those that waited for it, or is complete.
pub(crate) fn step_ended(draft: &mut Draft, key: TaskKey, holding: &Holding) {
    if holding
        .run
        .steps
        .iter()
        .enumerate()
        .all(|(number, step)| number == key.step as usize || step.row.phase == Phase::Published)
    {
        let now = draft.now;
        draft.change_run(key.run, holding.run, |row| {
            row.state = RunState::Completed;
            row.finished = Some(now);
        });
        return;
    }
    begin_steps(draft, key.run, Some(key.step));
}

pub(crate) fn publish_step(draft: &mut Draft, run: RunId, number: StepNo, step: &Step, publication: Publication) {
    let now = draft.now;
    draft.change_step(run, number, step, |row| {
        row.phase = Phase::Published;
        row.publication = Some(publication);
        row.finished = Some(now);
    });
}

/// Begins the steps that wait for nothing but `published`, which this decision completes.
pub(crate) fn begin_steps(draft: &mut Draft, id: RunId, published: Option<StepNo>) {
    let Some(run) = draft.state.run(id) else { return };
    if published.is_none() && run.row.state != RunState::Running {
        return;
    }
    for (begun, number) in run.startable(published).enumerate() {
        if begun == MAX_STEPS {
            draft.effect(Effect::Continue(Continuation::Begin { run: id }));
            return;
        }
        let now = draft.now;
        draft.change_step(id, number, &run.steps[number as usize], |row| {
            row.phase = Phase::Survey;
            row.started = Some(now);
        });
    }
}

/// The abort task has settled the verdict of a step: aborted, or published before it came. Unless the run is
/// cancelled, the step begins anew.
pub(crate) fn aborted(
    draft: &mut Draft,
    session: SessionId,
    key: TaskKey,
    fence: Fence,
    publication: Option<Publication>,
) -> Result<(), Refusal> {
    let holding = draft.holding(session, key, fence)?;
    if key.stage != Stage::Abort {
        return Err(Refusal::WrongStage { task: key });
    }
    let mut progress = holding.task.progress_for(holding.run.row.restarts);
    progress.done = true;
    draft.release(key, fence, progress);
    let is_cancelled = holding.run.row.state == RunState::Cancelling;
    match publication {
        Some(publication) => {
            let text = match is_cancelled {
                true => {
                    let name = &holding.run.definition(key.step).name;
                    format!("too late to cancel step {name}: it is published")
                }
                false => "it turns out to be published, from its former input: that stands".to_string(),
            };
            draft.note(key.run, key.step, Kind::Note, text);
            publish_step(draft, key.run, key.step, holding.step, publication);
            if !is_cancelled {
                step_ended(draft, key, &holding);
            }
        }
        None if !is_cancelled => look::begin_anew(draft, key.run, key.step, holding.run, holding.step, fence.number),
        None => {
            let now = draft.now;
            draft.change_step(key.run, key.step, holding.step, |row| {
                row.phase = Phase::Aborted;
                row.finished = Some(now);
            });
        }
    }
    Ok(())
}

//! Survey, split and prepare: from facts to a plan that is whole before anything is granted.

use std::sync::Arc;

use gapless_common::{
    attempt::Fence,
    error::{ErrorClass, TaskError},
    ids::{RunId, SessionId, Stage, StepNo, TaskKey},
    job::{Exists, IfUnchanged},
    plan::{Facts, Partition},
};

use crate::{
    consolidate,
    decide::Draft,
    event::{Continuation, Effect, Refusal},
    fail,
    history::Kind,
    limits::{PARTITIONS_PER_ROW, PLAN_ROWS},
    look,
    row::{Phase, PlanHeader, Publication, Row, RunState, first_slice},
    speed,
    split::{Capacity, split},
    state::{Run, State},
    validate::validate,
};

/// A survey has reported: the facts are kept, the split begins.
pub(crate) fn surveyed(
    draft: &mut Draft,
    session: SessionId,
    key: TaskKey,
    fence: Fence,
    facts: Arc<Facts>,
) -> Result<(), Refusal> {
    let holding = draft.holding(session, key, fence)?;
    if key.stage != Stage::Survey {
        return Err(Refusal::WrongStage { task: key });
    }
    // The task itself stays open: a refused plan is surveyed again after a restart.
    let progress = holding.task.progress_for(holding.run.row.restarts);
    if let Some(phase) = holding.step.row.back_to {
        draft.release(key, fence, progress);
        look::looked(draft, key, &holding, phase, &facts);
        return Ok(());
    }
    draft.put(Row::Facts(key.run, key.step, facts.clone()));
    if let Some((earlier, publication)) = unchanged(draft.state, holding.run, key, &facts) {
        let text = format!(
            "unchanged since run {earlier}: the same step over the same files; nothing is read, its output in {} stands, \
             which {} certifies",
            publication.output, publication.certificate
        );
        draft.note(key.run, key.step, Kind::Note, text);
        draft.release(key, fence, progress);
        consolidate::publish_step(draft, key.run, key.step, holding.step, publication);
        consolidate::step_ended(draft, key, &holding);
        return Ok(());
    }
    let slots = draft.state.slots().max(1);
    let speed = speed::of(draft.state, holding.run, key.step);
    let restart = holding.run.row.restarts;
    draft.change_step(key.run, key.step, holding.step, |row| {
        row.phase = Phase::Splitting;
        row.looked = restart;
        row.slots = slots;
        row.speed = speed;
    });
    draft.release(key, fence, progress);
    draft.effect(Effect::Continue(Continuation::Plan {
        run: key.run,
        step: key.step,
        slice: 0,
    }));
    Ok(())
}

/// The latest completed run of the job that has done this very step over the same input, where the step asks for it.
///
/// The definition is compared after its parameters were put in, so a path or a date that differs is a difference.
fn unchanged(state: &State, run: &Run, key: TaskKey, facts: &Facts) -> Option<(RunId, Publication)> {
    let definition = run.definition(key.step);
    // A redrive adds to an output: that its input was there before is its nature.
    if definition.if_unchanged != IfUnchanged::Skip || run.job.job.redrive.is_some() {
        return None;
    }
    let same = |earlier: &Run| {
        let job = &earlier.job;
        if earlier.row.state != RunState::Completed
            || job.job.name != run.job.job.name
            || job.base_dir != run.job.base_dir
            || job.job.redrive.is_some()
        {
            return None;
        }
        let number = job.job.steps.iter().position(|step| step == definition)?;
        let step = earlier.step(number as StepNo)?;
        let known = step.facts.as_ref()?;
        let same = known.files == facts.files
            && known.lookups == facts.lookups
            && known.columns == facts.columns
            && known.domain == facts.domain;
        same.then(|| step.row.publication.clone()).flatten()
    };
    // Of one that others add to nothing is looked at: what was taken away from it is not missing.
    let is_alone = definition.sink.file().is_some_and(|file| file.exists != Exists::Append);
    let stands = |it: &Publication| !is_alone || facts.standing.as_ref() == Some(&it.certificate);
    // Ids rise with time.
    let mut runs = state.runs.iter().rev();
    let found = runs.find_map(|(id, earlier)| Some((*id, same(earlier)?)));
    found.filter(|(id, publication)| stands(publication) && !is_replaced(state, *id, publication))
}

/// Whether another output may have come into the place of this one since `run` has ended: then it does not stand
/// any more, although the input is the same again.
fn is_replaced(state: &State, run: RunId, publication: &Publication) -> bool {
    let ended = state.run(run).and_then(|run| run.row.finished);
    state.runs.iter().any(|(id, other)| {
        let is_later = *id > run || other.row.finished.is_none_or(|at| Some(at) > ended);
        let mut steps = other.job.job.steps.iter().zip(&other.steps);
        is_later
            && steps.any(|(definition, step)| {
                let adds = definition.sink.file().is_none_or(|file| file.exists == Exists::Append);
                // That of a run that was skipped is the one it refers to.
                let elsewhere =
                    |it: &Publication| it.output != publication.output || it.certificate == publication.certificate;
                !adds && !step.row.publication.as_ref().is_none_or(elsewhere)
            })
    })
}

/// Writes the next slices of a step's partition tables; with the last one the step goes on.
///
/// The split is a pure function of rows that are durable already, so it is made again for each
/// decision and can be begun again after a crash. Until the step row names the plan, no slice counts.
pub(crate) fn write_plan(draft: &mut Draft, id: RunId, number: StepNo, slice: u32) {
    let Some(run) = draft.state.run(id) else { return };
    let Some(step) = run.step(number) else { return };
    let Some(facts) = step.facts.clone() else { return };
    let is_open = step.row.phase == Phase::Splitting && run.row.state == RunState::Running;
    if !is_open || look::is_due(run, number) {
        return;
    }
    let definition = run.definition(number);
    let capacity = Capacity {
        slots: step.row.slots,
        bytes_per_second: step.row.speed,
    };
    let planned = split(definition, &facts, capacity)
        .map_err(|error| error.to_string())
        .and_then(|plan| match validate(definition, &facts, &plan) {
            Ok(_) => Ok(plan),
            Err(error) => Err(error.to_string()),
        });
    let plan = match planned {
        Ok(plan) => plan,
        Err(refusal) => {
            // The step is surveyed again when the run is taken up again.
            draft.change_step(id, number, step, |row| row.phase = Phase::Survey);
            let error = TaskError::new(ErrorClass::Config, format!("step {}: {refusal}", definition.name));
            fail::fail_run(draft, id, run, error.message);
            return;
        }
    };
    let tables = [(Stage::Scatter, &plan.scatter), (Stage::Execute, &plan.execute)];
    let slices: Vec<(Stage, u32, &[Partition])> = tables
        .into_iter()
        .flat_map(|(stage, table)| {
            table
                .chunks(PARTITIONS_PER_ROW)
                .enumerate()
                .map(move |(at, slice)| (stage, at as u32, slice))
        })
        .collect();
    let from = slice as usize;
    for (stage, at, partitions) in slices.iter().skip(from).take(PLAN_ROWS) {
        let at = first_slice(step.row.edition) + at;
        draft.put(Row::Plan(id, number, *stage, at, partitions.to_vec()));
    }
    if from + PLAN_ROWS < slices.len() {
        let next = Continuation::Plan {
            run: id,
            step: number,
            slice: (from + PLAN_ROWS) as u32,
        };
        draft.effect(Effect::Continue(next));
        return;
    }
    let header = PlanHeader {
        method: plan.method,
        reason: plan.reason.clone(),
        exchange: plan.exchange.clone(),
        scatter: plan.scatter.len() as u32,
        execute: plan.execute.len() as u32,
        merge: plan.merge,
    };
    draft.change_step(id, number, step, |row| {
        row.phase = Phase::Prepare;
        row.plan = Some(Box::new(header));
    });
}

/// Source and sink can do what is asked: the partitions may be granted.
pub(crate) fn prepared(
    draft: &mut Draft,
    session: SessionId,
    key: TaskKey,
    fence: Fence,
    found: String,
) -> Result<(), Refusal> {
    let holding = draft.holding(session, key, fence)?;
    if key.stage != Stage::Prepare {
        return Err(Refusal::WrongStage { task: key });
    }
    let mut progress = holding.task.progress_for(holding.run.row.restarts);
    progress.done = true;
    let exchange = holding
        .step
        .row
        .plan
        .as_ref()
        .is_some_and(|plan| plan.exchange.is_some());
    draft.change_step(key.run, key.step, holding.step, |row| {
        row.phase = if exchange { Phase::Scatter } else { Phase::Execute };
        row.preparation = Some(found);
    });
    draft.release(key, fence, progress);
    Ok(())
}

//! Stop and cancel: ending a run on request.

use gapless_common::ids::{RunId, StepNo};

use crate::{
    decide::Draft,
    event::{Answer, Continuation, Effect, Refusal},
    fail,
    limits::{MAX_STEPS, MAX_VOIDED},
    row::{Phase, RunState},
};

/// Stops a run at the next checkpoint of each of its tasks. It can be submitted again to go on.
pub(crate) fn stop(draft: &mut Draft, id: RunId) -> Result<(), Refusal> {
    let run = draft.state.run(id).ok_or(Refusal::NoSuchRun { run: id })?;
    match run.row.state {
        RunState::Running if run.leases == 0 => {
            let now = draft.now;
            draft.change_run(id, run, |row| {
                row.state = RunState::Stopped;
                row.finished = Some(now);
            });
        }
        RunState::Running => {
            draft.change_run(id, run, |row| row.state = RunState::Stopping);
            fail::stop_attempts(draft, id, true, "the run is being stopped");
        }
        RunState::Stopping | RunState::Failing | RunState::Stopped => {}
        state @ (RunState::Failed | RunState::Cancelling | RunState::Cancelled | RunState::Completed) => {
            return Err(Refusal::RunEnded {
                run: id,
                state: state.name(),
            });
        }
    }
    draft.answer = Some(Answer::Done);
    Ok(())
}

/// Cancels a run: from this row on no commit of it counts. What was staged is then removed by
/// fenced abort tasks, which also settle each verdict.
pub(crate) fn cancel(draft: &mut Draft, id: RunId) -> Result<(), Refusal> {
    let run = draft.state.run(id).ok_or(Refusal::NoSuchRun { run: id })?;
    match run.row.state {
        RunState::Running | RunState::Stopping | RunState::Failing | RunState::Stopped | RunState::Failed => {
            draft.change_run(id, run, |row| {
                row.state = RunState::Cancelling;
                row.finished = None;
            });
            fail::stop_attempts(draft, id, false, "the run is cancelled");
            draft.effect(Effect::Continue(Continuation::Cancel { run: id }));
        }
        RunState::Cancelling => {}
        state @ (RunState::Cancelled | RunState::Completed) => {
            return Err(Refusal::RunEnded {
                run: id,
                state: state.name(),
            });
        }
    }
    draft.answer = Some(Answer::Done);
    Ok(())
}

/// Takes back the leases of a cancelled run, then has its steps aborted, then ends it.
pub(crate) fn go_on_cancelling(draft: &mut Draft, id: RunId) {
    let state = draft.state;
    let Some(run) = state.run(id) else { return };
    if run.row.state != RunState::Cancelling {
        return;
    }
    let held = state
        .sessions
        .values()
        .flat_map(|session| &session.leases)
        .filter(|key| key.run == id && key.stage != gapless_common::ids::Stage::Abort);
    let held: Vec<_> = held.take(MAX_VOIDED).copied().collect();
    if !held.is_empty() {
        for key in held {
            if let Some(task) = state.task(&key) {
                fail::lose(draft, key, task, false);
            }
        }
        return;
    }
    let mut open = false;
    let mut changed = 0;
    for (number, step) in run.steps.iter().enumerate() {
        if changed == MAX_STEPS {
            draft.effect(Effect::Continue(Continuation::Cancel { run: id }));
            return;
        }
        let next = match step.row.phase {
            // Its plan stands still, and what was staged by it.
            Phase::Survey if step.row.back_to.is_some() => Phase::Abort,
            Phase::Waiting | Phase::Survey | Phase::Splitting => Phase::Aborted,
            Phase::Prepare | Phase::Scatter | Phase::Execute | Phase::Merge | Phase::Publish => Phase::Abort,
            Phase::Abort => {
                open = true;
                continue;
            }
            Phase::Published | Phase::Aborted => continue,
        };
        open |= next == Phase::Abort;
        changed += 1;
        draft.change_step(id, number as StepNo, step, |row| {
            row.phase = next;
            row.back_to = None;
        });
    }
    if !open {
        let now = draft.now;
        // Too late for every step: it is what it is, and must not run again.
        let complete = run.steps.iter().all(|step| step.row.phase == Phase::Published);
        draft.change_run(id, run, |row| {
            row.state = if complete {
                RunState::Completed
            } else {
                RunState::Cancelled
            };
            row.finished = Some(now);
        });
    }
}

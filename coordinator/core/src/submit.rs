//! Submit: a job text and its parameters become one run.

use gapless_common::{
    ids::{RunId, StepNo},
    job::Priority,
};

use crate::{
    decide::Draft,
    event::{Answer, Continuation, Effect, Refusal, Submit},
    history::Kind,
    limits::{MAX_LIVE_RUNS, MAX_STEPS},
    look,
    row::{Phase, Row, RunRow, RunState, StepRow},
    state::{Run, needs},
};

/// An identity has at most one live and one completed run. A stopped or failed run goes on if the
/// job's text is the same; if it was changed, the old run is cleared away, then a new one begins.
pub(crate) fn submit(draft: &mut Draft, submit: Submit) -> Result<(), Refusal> {
    if let Some(&id) = draft.state.identities.get(&submit.identity)
        && let Some(run) = draft.state.run(id)
    {
        match run.row.state {
            RunState::Completed => return Err(Refusal::AlreadyComplete { run: id }),
            RunState::Running | RunState::Stopping | RunState::Failing => {
                return Err(Refusal::AlreadyRunning { run: id });
            }
            RunState::Stopped | RunState::Failed if run.row.text_digest == submit.text_digest => {
                resume(draft, id, run, submit.priority);
                return Ok(());
            }
            RunState::Stopped | RunState::Failed => {
                draft.change_run(id, run, |row| row.state = RunState::Cancelling);
                draft.effect(Effect::Continue(Continuation::Cancel { run: id }));
            }
            // It may turn out to be too late for the cancel: then the output is there already.
            RunState::Cancelling => return Err(Refusal::BeingCancelled { run: id }),
            RunState::Cancelled => {}
        }
    }
    if draft.state.live().len() >= MAX_LIVE_RUNS {
        return Err(Refusal::TooManyRuns { limit: MAX_LIVE_RUNS });
    }
    let row = RunRow {
        identity: submit.identity.clone(),
        text_digest: submit.text_digest,
        submitted: draft.now,
        priority: submit.priority.unwrap_or(submit.job.job.priority),
        ..RunRow::NEW
    };
    let needs = needs(&submit.job.job);
    let first = (0..)
        .zip(&needs)
        .filter(|(_, needs)| needs.is_empty())
        .map(|(step, _)| step);
    let first: Vec<StepNo> = first.collect();
    draft.create(Row::Job(submit.run, submit.job));
    draft.put(Row::Run(submit.run, row));
    draft.put(Row::Identity(submit.identity, submit.run));
    if first.len() > MAX_STEPS {
        draft.effect(Effect::Continue(Continuation::Begin { run: submit.run }));
    }
    for step in first.into_iter().take(MAX_STEPS) {
        let row = StepRow {
            phase: Phase::Survey,
            started: Some(draft.now),
            ..StepRow::WAITING
        };
        draft.put(Row::Step(submit.run, step, row));
    }
    draft.answer = Some(Answer::Submitted {
        run: submit.run,
        resumed: false,
    });
    Ok(())
}

fn resume(draft: &mut Draft, id: RunId, run: &Run, priority: Option<Priority>) {
    draft.change_run(id, run, |row| {
        row.state = RunState::Running;
        row.restarts += 1;
        row.error = None;
        row.finished = None;
        row.priority = priority.unwrap_or(row.priority);
    });
    let text = format!("taken up again (restart {})", run.row.restarts + 1);
    draft.note(id, 0, Kind::Resumed, text);
    // The rest of it needs no word: `due` finds it.
    for step in (0..run.steps.len() as StepNo).filter(|step| look::looks_again(run, *step)) {
        draft.effect(Effect::Continue(Continuation::Look { run: id, step }));
    }
    draft.answer = Some(Answer::Submitted { run: id, resumed: true });
}

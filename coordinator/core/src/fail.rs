//! Fail: what becomes of a task that did not succeed, and of its run.

use gapless_common::{
    attempt::{Commit, Counters, Fence},
    error::{ErrorClass, TaskError},
    ids::{RunId, SessionId, Stage, StepNo, TaskKey},
    job::PartitionFailed,
    plan::Unit,
    plural::counted,
};

use serde::Deserialize;

use crate::{
    decide::{Draft, Holding},
    event::{Continuation, Effect, Refusal},
    history::Kind,
    limits::LOSSES_BEFORE_QUARANTINE,
    look,
    row::{Failure, Phase, ProgressRow, RunState},
    state::{Run, Step, Task},
};

/// A worker reports that an attempt failed.
pub(crate) fn failed(
    draft: &mut Draft,
    session: SessionId,
    key: TaskKey,
    fence: Fence,
    error: TaskError,
) -> Result<(), Refusal> {
    let holding = draft.holding(session, key, fence)?;
    let restart = holding.run.row.restarts;
    let mut progress = holding.task.progress_for(restart);
    if holding.step.row.phase == Phase::Published {
        // Another one has found it published.
        draft.release(key, fence, progress);
        return Ok(());
    }
    let attempts = holding.run.definition(key.step).on_error.attempts_after(error.class);
    let tries_again = match error.class {
        // Nothing else can end a cancelled run.
        _ if key.stage == Stage::Abort && holding.run.row.state == RunState::Cancelling => {
            progress.failures += 1;
            true
        }
        // Not its fault: costs nothing.
        ErrorClass::Fenced | ErrorClass::Cancelled | ErrorClass::WorkerLost => true,
        ErrorClass::Transient | ErrorClass::TimedOut | ErrorClass::Resource => {
            progress.failures += 1;
            progress.failures < attempts
        }
        ErrorClass::Data | ErrorClass::Config => false,
    };
    let name = &holding.run.definition(key.step).name;
    let place = match key.stage {
        // One task for the step: it has no partition worth a word.
        Stage::Survey | Stage::Prepare | Stage::Publish | Stage::Abort if fence.number == 1 => {
            format!("step {name}, {}", key.stage)
        }
        Stage::Survey | Stage::Prepare | Stage::Publish | Stage::Abort => {
            format!("step {name}, {}, attempt {}", key.stage, fence.number)
        }
        Stage::Scatter | Stage::Execute | Stage::Merge => format!(
            "step {name}, {} partition {}, attempt {}",
            key.stage, key.partition, fence.number
        ),
    };
    if tries_again {
        if progress.failures > 0 {
            let text = format!("{place} failed and is tried again: {error}");
            draft.note(key.run, key.step, Kind::Retry, text);
        }
        draft.release(key, fence, progress);
    } else if key.stage == Stage::Abort {
        // Of a step that is to begin anew. The task stays open: for the run that is taken up again, or cancelled.
        let message = format!("{place}: {}", error.message);
        progress.failures = 0;
        draft.release(key, fence, progress);
        draft.note(key.run, key.step, Kind::Failure, message.clone());
        fail_run(draft, key.run, holding.run, message);
    } else {
        let message = format!("{place}: {}", error.message);
        give_up(draft, key, holding.run, fence, progress, error.class, message);
    }
    Ok(())
}

/// Records that a task has failed for good, and what that means for its run.
fn give_up(
    draft: &mut Draft,
    key: TaskKey,
    run: &Run,
    fence: Fence,
    mut progress: ProgressRow,
    class: ErrorClass,
    message: String,
) {
    progress.failure = Some(Failure {
        class,
        message: message.clone(),
        restart: run.row.restarts,
    });
    draft.release(key, fence, progress);
    draft.note(key.run, key.step, Kind::Failure, message.clone());
    match run.definition(key.step).on_error.partition_failed {
        PartitionFailed::Stop => fail_run(draft, key.run, run, message),
        PartitionFailed::Continue => {
            draft.effect(Effect::Continue(Continuation::Settle {
                run: key.run,
                step: key.step,
            }));
        }
    }
}

/// Ends a run as failed: what still runs is stopped at its next checkpoint.
pub(crate) fn fail_run(draft: &mut Draft, id: RunId, run: &Run, message: String) {
    if draft.run_row(id, run).state != RunState::Running {
        return;
    }
    draft.change_run(id, run, |row| {
        row.state = RunState::Failing;
        row.error = Some(message);
    });
    stop_attempts(draft, id, true, "the run has failed");
}

/// Asks for what a run still holds. Heartbeats repeat it, so a lost message costs little.
pub(crate) fn stop_attempts(draft: &mut Draft, id: RunId, at_checkpoint: bool, reason: &'static str) {
    let state = draft.state;
    for (session, holder) in &state.sessions {
        for key in holder.leases.iter().filter(|key| key.run == id) {
            let Some(lease) = state.task(key).and_then(|task| task.lease) else {
                continue;
            };
            let (task, fence) = (*key, lease.row.fence);
            draft.effect(Effect::StopAttempt {
                session: *session,
                task,
                fence,
                at_checkpoint,
                reason,
            });
        }
    }
}

/// Fails a run whose step cannot succeed any more: with `partition_failed: continue` when nothing of
/// the stage is left but failures, and when it was taken up again with more rejected records than
/// its limit.
pub(crate) fn end_if_hopeless(draft: &mut Draft, id: RunId, number: StepNo) {
    let Some(run) = draft.state.run(id) else { return };
    if look::is_due(run, number) {
        return;
    }
    if let Some(broken) = exceeded_limit(run, number) {
        let message = over_limit(run, number, &broken);
        fail_run(draft, id, run, message);
        return;
    }
    let Some((stage, tasks)) = run.step(number).and_then(Step::current) else {
        return;
    };
    if tasks.failed > 0 && tasks.done + tasks.failed == tasks.total() {
        let name = &run.definition(number).name;
        let message = format!(
            "step {name}: {} of {} {stage} partitions failed",
            tasks.failed,
            tasks.total()
        );
        fail_run(draft, id, run, message);
    }
}

/// A worker gave an attempt back at a checkpoint: drained or stopped. Costs nothing.
pub(crate) fn released(draft: &mut Draft, session: SessionId, key: TaskKey, fence: Fence) -> Result<(), Refusal> {
    let holding = draft.holding(session, key, fence)?;
    let progress = holding.task.progress_for(holding.run.row.restarts);
    draft.release(key, fence, progress);
    Ok(())
}

/// A lease ends because its worker was lost. `counts` is false for losses that are no sign against
/// the partition: several workers at once, or a worker that only came back.
pub(crate) fn lose(draft: &mut Draft, key: TaskKey, task: &Task, counts: bool) {
    let (Some(run), Some(lease)) = (draft.state.run(key.run), task.lease) else {
        return;
    };
    let mut progress = task.progress_for(run.row.restarts);
    progress.losses += u32::from(counts);
    let is_over = run
        .step(key.step)
        .is_some_and(|step| step.row.phase == Phase::Published);
    if !is_over && progress.losses >= LOSSES_BEFORE_QUARANTINE && key.stage != Stage::Abort {
        let name = &run.definition(key.step).name;
        let message = format!(
            "step {name}, {} partition {}: its worker was lost {} times, the last times while it ran alone; \
             it is held back as the likely cause",
            key.stage, key.partition, progress.losses
        );
        give_up(
            draft,
            key,
            run,
            lease.row.fence,
            progress,
            ErrorClass::WorkerLost,
            message,
        );
    } else {
        draft.release(key, lease.row.fence, progress);
    }
}

/// Fails the run when its step has rejected more records than its limit, over all partitions.
pub(crate) fn check_reject_limit(draft: &mut Draft, key: TaskKey, holding: &Holding, commit: &Commit) {
    let more = commit.counters;
    let last = commit.last
        && holding
            .step
            .stage(key.stage)
            .is_some_and(|it| it.done + 1 >= it.total());
    if more.rejected == 0 && !last {
        return;
    }
    let now = Commits {
        stage: key.stage,
        counters: more,
        last,
    };
    if let Some(broken) = broken_limit(holding.run, key.step, Some(now)) {
        let message = over_limit(holding.run, key.step, &broken);
        draft.note(key.run, key.step, Kind::Failure, message.clone());
        fail_run(draft, key.run, holding.run, message);
    }
}

/// A limit that a step cannot keep any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BrokenLimit {
    Count {
        rejected: u64,
        limit: u64,
    },
    /// Of all records that there are, read or not.
    Share {
        rejected: u64,
        records: u64,
        millionths: u32,
    },
}

/// What a decision commits that is not in the state yet.
#[derive(Clone, Copy)]
pub(crate) struct Commits {
    stage: Stage,
    counters: Counters,
    /// Whether the stage is complete with it.
    last: bool,
}

/// The limit that a planned step has broken. Nothing of it is granted: a restart with the same text over the same
/// input changes nothing.
pub(crate) fn exceeded_limit(run: &Run, number: StepNo) -> Option<BrokenLimit> {
    match run.step(number)?.row.phase {
        Phase::Prepare | Phase::Scatter | Phase::Execute | Phase::Merge | Phase::Publish => {
            broken_limit(run, number, None)
        }
        // What is committed may count no more: that is found out.
        Phase::Waiting | Phase::Survey | Phase::Splitting | Phase::Abort | Phase::Published | Phase::Aborted => None,
    }
}

pub(crate) fn broken_limit(run: &Run, number: StepNo, now: Option<Commits>) -> Option<BrokenLimit> {
    let on_error = run.definition(number).on_error;
    let step = run.step(number)?;
    let stages = step.stages().map(|(_, stage)| stage.counters.rejected);
    let rejected = stages.sum::<u64>() + now.map_or(0, |now| now.counters.rejected);
    if let Some(limit) = on_error.reject_limit
        && rejected > limit
    {
        return Some(BrokenLimit::Count { rejected, limit });
    }
    let millionths = on_error.reject_share.filter(|_| rejected > 0)?;
    let records = records_of(step, now)?;
    let broken = u128::from(rejected) * 1_000_000 > u128::from(records) * u128::from(millionths);
    broken.then_some(BrokenLimit::Share {
        rejected,
        records,
        millionths,
    })
}

/// How many records a step's source has, once that is known: from the files' own counts, or since all of it is
/// read.
fn records_of(step: &Step, now: Option<Commits>) -> Option<u64> {
    let facts = step.facts.as_ref()?;
    let counted = match facts.unit {
        Unit::Number => true,
        _ => !facts.files.is_empty() && facts.files.iter().all(|file| file.rows.is_some()),
    };
    if counted {
        return Some(facts.rows);
    }
    let scatters = step.row.plan.as_ref().is_some_and(|plan| plan.scatter > 0);
    let stage = if scatters { Stage::Scatter } else { Stage::Execute };
    let reading = step.stage(stage)?;
    let now = now.filter(|now| now.stage == stage);
    let complete = reading.done == reading.total() || now.is_some_and(|now| now.last);
    complete.then(|| reading.counters.read + now.map_or(0, |now| now.counters.read))
}

pub(crate) fn over_limit(run: &Run, number: StepNo, broken: &BrokenLimit) -> String {
    let name = &run.definition(number).name;
    let place = rejects_folder(run, number).map_or(String::new(), |folder| {
        format!("; the rejected records are in {folder} until the step begins anew or the run is cancelled")
    });
    let what = match broken {
        BrokenLimit::Count { rejected, limit } => {
            let rejected = counted(*rejected, "record");
            format!("{rejected} rejected, the limit is {limit} (on_error.reject.limit)")
        }
        BrokenLimit::Share {
            rejected,
            records,
            millionths,
        } => format!(
            "{rejected} of {} rejected, the limit is {} % of them (on_error.reject.share)",
            counted(*records, "record"),
            f64::from(*millionths) / 10_000.0
        ),
    };
    format!("step {name}: {what}; nothing is published{place}")
}

/// Where the rejected records of a step lie until it is settled, as its prepare task has told.
pub fn rejects_folder(run: &Run, number: StepNo) -> Option<String> {
    #[derive(Deserialize)]
    struct Preparation {
        #[serde(default)]
        rejects: String,
    }
    let told = run.step(number)?.row.preparation.as_deref()?;
    let preparation: Preparation = serde_json::from_str(told).ok()?;
    Some(preparation.rejects).filter(|folder| !folder.is_empty())
}

//! Commit: a worker's durable chunk becomes part of the output, under the fence.

use gapless_common::{
    attempt::{Commit, Fence, Segment},
    ids::{SessionId, Stage, TaskKey},
};

use crate::{
    consolidate,
    decide::Draft,
    event::{Effect, Refusal},
    fail,
    row::ProgressRow,
    state::Task,
};

/// Records a commit, or answers it again if it is the one recorded last.
pub(crate) fn commit(
    draft: &mut Draft,
    session: SessionId,
    key: TaskKey,
    fence: Fence,
    commit: Commit,
) -> Result<(), Refusal> {
    let committed = Effect::Committed {
        session,
        task: key,
        fence,
        seq: commit.seq,
    };
    if let Some(task) = draft.state.task(&key)
        && is_recorded(task, fence, &commit)?
    {
        draft.effect(committed);
        return Ok(());
    }
    let holding = draft.holding(session, key, fence)?;
    match key.stage {
        Stage::Scatter | Stage::Execute | Stage::Merge => {}
        Stage::Survey | Stage::Prepare | Stage::Publish | Stage::Abort => {
            return Err(Refusal::WrongStage { task: key });
        }
    }
    if holding.step.row.phase.stage() != Some(key.stage) {
        return Err(Refusal::Sealed { task: key });
    }
    let mut progress = holding.task.progress_for(holding.run.row.restarts);
    let position = holding.task.position();
    if commit.seq != progress.seq || commit.previous != position {
        return Err(Refusal::OutOfOrder {
            seq: commit.seq,
            previous: commit.previous,
            expected_seq: progress.seq,
            expected: position,
        });
    }
    let units = holding.task.units;
    let ends_where_it_must = if commit.last {
        commit.next == units.high
    } else {
        commit.next <= units.high
    };
    if commit.next < commit.previous || !ends_where_it_must {
        return Err(Refusal::OutOfRange {
            next: commit.next,
            units,
        });
    }
    record(&mut progress, fence, &commit);
    draft.effect(committed);
    if commit.last {
        draft.release(key, fence, progress.clone());
        consolidate::task_done(draft, key, &holding, &progress);
    } else {
        draft.put_progress(key, progress);
    }
    fail::check_reject_limit(draft, key, &holding, &commit);
    Ok(())
}

/// Whether this very commit is on record as the last one. Another commit under its number is not a
/// repetition but a contradiction.
fn is_recorded(task: &Task, fence: Fence, commit: &Commit) -> Result<bool, Refusal> {
    let Some(progress) = &task.progress else {
        return Ok(false);
    };
    let Some(segment) = progress.segments.last() else {
        return Ok(false);
    };
    if segment.attempt != fence.id || commit.seq >= progress.seq {
        return Ok(false);
    }
    if commit.seq + 1 == progress.seq && commit.digest == progress.digest && commit.next == progress.position {
        return Ok(true);
    }
    Err(Refusal::Contradicts { seq: commit.seq })
}

fn record(progress: &mut ProgressRow, fence: Fence, commit: &Commit) {
    progress.seq = commit.seq + 1;
    progress.position = commit.next;
    progress.counters += commit.counters;
    progress.records += commit.records;
    progress.digest = commit.digest;
    progress.done = commit.last;
    match progress.segments.last_mut() {
        Some(segment) if segment.attempt == fence.id => segment.next_seq = progress.seq,
        _ => progress.segments.push(Segment {
            attempt: fence.id,
            first_seq: commit.seq,
            next_seq: progress.seq,
        }),
    }
}

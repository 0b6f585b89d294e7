//! Sessions: workers come, are heard, and are lost. One function handles every way to lose one.

use gapless_common::ids::{SessionId, Stage, TaskKey};

use crate::{
    decide::Draft,
    event::{Continuation, Effect, Held, Refusal},
    fail,
    history::Kind,
    limits::{MAX_MOVED, MAX_SESSIONS, MAX_VOIDED},
    row::{LeaseRow, Row, RowKey, RunState, SessionRow},
    state::Session,
};

/// A worker opens a session. Its former session ends at once; attempts that it still holds and that
/// are still its own move to the new one, so a short break costs nothing.
pub(crate) fn connect(draft: &mut Draft, id: SessionId, row: SessionRow, held: &[Held]) -> Result<(), Refusal> {
    let state = draft.state;
    let worker = row.worker;
    let is_new = || state.sessions.values().all(|session| session.row.worker != worker);
    if state.sessions.len() >= MAX_SESSIONS && is_new() {
        return Err(Refusal::TooManySessions { limit: MAX_SESSIONS });
    }
    draft.put(Row::Session(id, row));
    let former = state
        .sessions
        .iter()
        .filter(|(other, session)| **other != id && session.row.worker == worker);
    let mut kept: Vec<TaskKey> = Vec::new();
    for (old, session) in former {
        let mine = |key: &TaskKey| {
            let lease = state.task(key)?.lease?;
            let kept = held
                .iter()
                .any(|held| held.task == *key && held.fence == lease.row.fence);
            (kept && !session.row.void).then_some(lease.row.fence)
        };
        let before = kept.len();
        for (key, fence) in session
            .leases
            .iter()
            .filter_map(|key| mine(key).map(|fence| (*key, fence)))
            .take(MAX_MOVED - before)
        {
            draft.put(Row::Lease(key, LeaseRow { session: id, fence }));
            kept.push(key);
        }
        if session.leases.len() == kept.len() - before {
            draft.delete(RowKey::Session(*old));
        } else {
            if !session.row.void {
                draft.put(Row::Session(
                    *old,
                    SessionRow {
                        void: true,
                        ..session.row.clone()
                    },
                ));
            }
            draft.effect(Effect::Continue(Continuation::Void { session: *old }));
        }
        draft.effect(Effect::Close { session: *old });
    }
    for held in held.iter().filter(|held| !kept.contains(&held.task)) {
        draft.effect(stop_now(id, held));
    }
    Ok(())
}

fn stop_now(session: SessionId, held: &Held) -> Effect {
    Effect::StopAttempt {
        session,
        task: held.task,
        fence: held.fence,
        at_checkpoint: false,
        reason: "fenced: the partition is not leased to this attempt any more",
    }
}

/// A heartbeat: what is leased but not held is granted again, what is held but not leased is
/// stopped. So no other message is needed for progress.
pub(crate) fn heard(draft: &mut Draft, id: SessionId, held: &[Held]) -> Result<(), Refusal> {
    let state = draft.state;
    let session = live(draft, id)?;
    for held in held {
        let lease = state.task(&held.task).and_then(|task| task.lease);
        if !lease.is_some_and(|lease| lease.row.session == id && lease.row.fence == held.fence) {
            draft.effect(stop_now(id, held));
        }
    }
    let mut given_back = 0;
    for key in &session.leases {
        let (Some(task), Some(run)) = (state.task(key), state.run(key.run)) else {
            continue;
        };
        let Some(lease) = task.lease else { continue };
        let is_held = held
            .iter()
            .any(|held| held.task == *key && held.fence == lease.row.fence);
        let (task_key, fence) = (*key, lease.row.fence);
        match run.row.state {
            // Of a cancelled run only the abort goes on.
            RunState::Running | RunState::Cancelling
                if !is_held && (key.stage == Stage::Abort || run.row.state == RunState::Running) =>
            {
                let seq = task.progress.as_ref().map_or(0, |progress| progress.seq);
                let grant = crate::event::Grant {
                    task: task_key,
                    fence,
                    edition: run.step(key.step).map_or(0, |step| step.row.edition),
                    units: task.units,
                    position: task.position(),
                    seq,
                };
                draft.effect(Effect::Grant { session: id, grant });
            }
            RunState::Stopping | RunState::Failing if is_held => {
                let reason = "the run is ending";
                draft.effect(Effect::StopAttempt {
                    session: id,
                    task: task_key,
                    fence,
                    at_checkpoint: true,
                    reason,
                });
            }
            // Neither is worked on nor will be: give it back. What does not fit is seen again with
            // the next heartbeat.
            RunState::Stopping | RunState::Failing if given_back < MAX_VOIDED => {
                let progress = task.progress_for(run.row.restarts);
                draft.release(task_key, fence, progress);
                given_back += 1;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The worker takes nothing new; what it holds it gives back itself.
pub(crate) fn drain(draft: &mut Draft, id: SessionId) -> Result<(), Refusal> {
    let session = live(draft, id)?;
    draft.put(Row::Session(
        id,
        SessionRow {
            draining: true,
            ..session.row.clone()
        },
    ));
    Ok(())
}

fn live<'a>(draft: &Draft<'a>, id: SessionId) -> Result<&'a Session, Refusal> {
    let session = draft.state.sessions.get(&id).filter(|session| !session.row.void);
    session.ok_or(Refusal::SessionOver { session: id })
}

/// A session is over, whatever ended it: one row voids its leases.
pub(crate) fn lost(draft: &mut Draft, id: SessionId) {
    let Some(session) = draft.state.sessions.get(&id).filter(|session| !session.row.void) else {
        return;
    };
    draft.effect(Effect::Close { session: id });
    if session.leases.is_empty() {
        draft.delete(RowKey::Session(id));
        return;
    }
    draft.put(Row::Session(
        id,
        SessionRow {
            void: true,
            ..session.row.clone()
        },
    ));
    let runs: std::collections::BTreeMap<_, _> = session.leases.iter().map(|key| (key.run, key.step)).collect();
    for (run, step) in runs {
        let count = session.leases.iter().filter(|key| key.run == run).count();
        draft.note(
            run,
            step,
            Kind::WorkerLost,
            match count {
                1 => format!("worker {} lost; 1 task waits for another", session.row.name),
                count => format!("worker {} lost; {count} tasks wait for another", session.row.name),
            },
        );
    }
    take_back(draft, id, session, !session.row.draining);
}

/// Goes on taking back the leases of a voided session.
pub(crate) fn void(draft: &mut Draft, id: SessionId) {
    let Some(session) = draft.state.sessions.get(&id).filter(|session| session.row.void) else {
        return;
    };
    take_back(draft, id, session, false);
}

fn take_back(draft: &mut Draft, id: SessionId, session: &Session, counts: bool) {
    for key in session.leases.iter().take(MAX_VOIDED) {
        if let Some(task) = draft.state.task(key) {
            let counts = counts && !draft.state.others_lost_lately(key, draft.now);
            fail::lose(draft, *key, task, counts);
        }
    }
    if session.leases.len() > MAX_VOIDED {
        draft.effect(Effect::Continue(Continuation::Void { session: id }));
    } else {
        draft.delete(RowKey::Session(id));
    }
}

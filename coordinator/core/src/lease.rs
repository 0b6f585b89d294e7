//! Lease: who works on what next.
//!
//! Runs are served in the order of their submission, partitions in the order of their numbers, the
//! worker with the fewest tasks first. A worker gets more tasks than slots only while tasks are so
//! short that it would wait for the next message otherwise.

use std::collections::BTreeSet;

use gapless_common::{
    attempt::Fence,
    ids::{RunId, SessionId, Stage, StepNo, TaskKey},
};

use crate::{
    decide::Draft,
    event::{Effect, Event, Grant},
    fail,
    history::Kind,
    limits::{LOSSES_BEFORE_ALONE, MAX_GRANTS, MAX_PREFETCH, PREFETCH_WINDOW_MICROS, STALLS_WITHOUT_POSITION},
    row::{LeaseRow, Phase, Row, RunState},
    state::{Run, Session, StageState, State},
    time::Timestamp,
};

/// How many more tasks a session may hold.
fn free(session: &Session) -> usize {
    if session.row.void || session.row.draining {
        return 0;
    }
    let slots = session.row.slots as usize;
    let ahead = match session.service_micros {
        Some(micros) => (PREFETCH_WINDOW_MICROS * slots as u64 / micros.max(1)) as usize,
        None => 0,
    };
    (slots + ahead.min(MAX_PREFETCH)).saturating_sub(session.leases.len())
}

struct Seat {
    session: SessionId,
    free: usize,
    held: usize,
    /// Holds a task that must be alone.
    closed: bool,
}

/// Grants what is ready to whoever is free, at most [`MAX_GRANTS`] at a time.
pub(crate) fn assign(draft: &mut Draft) {
    let state = draft.state;
    let mut seats: Vec<Seat> = state
        .sessions
        .iter()
        .map(|(id, session)| Seat {
            session: *id,
            free: free(session),
            held: session.leases.len(),
            closed: session.leases.iter().any(|key| runs_alone(state, key)),
        })
        .filter(|seat| seat.free > 0 && !seat.closed)
        .collect();
    let mut granted = 0;
    let being_cancelled = |run: &&Run| run.row.state == RunState::Cancelling;
    let cleared_away: BTreeSet<&str> = state.runs.values().filter(being_cancelled).map(identity).collect();
    for (id, run) in &state.runs {
        // A run waits until the one before it with its identity has left the output.
        if run.row.state == RunState::Running && cleared_away.contains(identity(run)) {
            continue;
        }
        for (key, lonely) in ready(*id, run) {
            if granted == MAX_GRANTS || seats.is_empty() {
                return;
            }
            let Some(at) = choose(&seats, lonely) else {
                // Every worker is busy: keep the least busy one free of new work until it is idle.
                reserve(&mut seats);
                continue;
            };
            grant(draft, run, key, seats[at].session, granted as u64);
            granted += 1;
            let seat = &mut seats[at];
            seat.free -= 1;
            seat.held += 1;
            if seat.free == 0 || lonely {
                seats.swap_remove(at);
            }
        }
    }
}

fn identity(run: &Run) -> &str {
    &run.row.identity
}

/// The stages of a run whose ready tasks may be granted, in order.
pub(crate) fn open_stages(run: &Run) -> impl Iterator<Item = (StepNo, Stage, &StageState)> {
    let steps = (0..).zip(&run.steps);
    let open = steps.filter(|(number, step)| match run.row.state {
        RunState::Running => step.row.phase != Phase::Abort && fail::exceeded_limit(run, *number).is_none(),
        RunState::Cancelling => step.row.phase == Phase::Abort,
        _ => false,
    });
    open.filter_map(|(number, step)| step.current().map(|(stage, tasks)| (number, stage, tasks)))
}

/// The tasks of a run that may be granted, in order, and whether each must run alone.
fn ready(id: RunId, run: &Run) -> impl Iterator<Item = (TaskKey, bool)> + '_ {
    open_stages(run).flat_map(move |(step, stage, tasks)| {
        tasks.ready.iter().map(move |&partition| {
            let losses = tasks.tasks[partition as usize]
                .progress
                .as_ref()
                .map_or(0, |progress| progress.losses);
            let key = TaskKey {
                run: id,
                step,
                stage,
                partition,
            };
            (key, losses >= LOSSES_BEFORE_ALONE)
        })
    })
}

fn runs_alone(state: &State, key: &TaskKey) -> bool {
    let progress = state.task(key).and_then(|task| task.progress.as_ref());
    progress.is_some_and(|progress| progress.losses >= LOSSES_BEFORE_ALONE)
}

fn choose(seats: &[Seat], lonely: bool) -> Option<usize> {
    let open = seats.iter().enumerate().filter(|(_, seat)| !lonely || seat.held == 0);
    open.min_by_key(|(_, seat)| (seat.held, seat.session)).map(|(at, _)| at)
}

fn reserve(seats: &mut Vec<Seat>) {
    if let Some(at) = choose(seats, false) {
        seats.swap_remove(at);
    }
}

fn grant(draft: &mut Draft, run: &Run, key: TaskKey, session: SessionId, nth: u64) {
    let Some(task) = draft.state.task(&key) else { return };
    let progress = task.progress_for(run.row.restarts);
    let fence = Fence {
        number: progress.attempt + 1,
        id: draft.state.attempt_id(nth),
    };
    let grant = Grant {
        task: key,
        fence,
        units: task.units,
        position: task.position(),
        seq: progress.seq,
    };
    draft.create(Row::Lease(key, LeaseRow { session, fence }));
    draft.effect(Effect::Grant { session, grant });
    if progress.losses > 0 {
        let worker = &draft.state.sessions[&session].row.name;
        let text = format!(
            "{} partition {} taken over by {worker} (attempt {})",
            key.stage, key.partition, fence.number
        );
        draft.note(key.run, key.step, Kind::TakeOver, text);
    }
}

/// Attempts whose position has not moved for the stall time: the worker is asked for nothing, its
/// lease ends.
pub(crate) fn stalled(state: &State, now: Timestamp) -> Vec<Event> {
    let mut events = Vec::new();
    for session in state.sessions.values() {
        for key in &session.leases {
            let Some(lease) = state.task(key).and_then(|task| task.lease) else {
                continue;
            };
            let stall_millis = match key.stage {
                Stage::Scatter | Stage::Execute | Stage::Merge => state.stall_millis,
                Stage::Survey | Stage::Prepare | Stage::Publish | Stage::Abort => {
                    state.stall_millis * STALLS_WITHOUT_POSITION
                }
            };
            if now.micros_since(lease.moved.max(lease.granted)) > stall_millis * 1000 {
                let message = format!(
                    "stalled: {key} has not moved for {} s; it goes to another worker",
                    stall_millis / 1000
                );
                events.push(Event::Failed {
                    session: lease.row.session,
                    task: *key,
                    fence: lease.row.fence,
                    error: gapless_common::error::TaskError::new(gapless_common::error::ErrorClass::Transient, message),
                });
            }
        }
    }
    events
}

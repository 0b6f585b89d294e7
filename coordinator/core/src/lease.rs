//! Lease: who works on what next.
//!
//! Runs of the highest priority are served first. Among those of one priority the next task is of the
//! run that holds the fewest: each comes to an equal share of the slots, and one that was just
//! submitted is served at the next free slot. Where two hold as many, the one with less left to do
//! goes first, then the older one. Within a run tasks go in the order of steps and partitions, to the
//! least busy worker that has the labels of the step.
//!
//! A worker gets more tasks than slots only while they are so short that it would wait for the next
//! message otherwise, and while no task of another run waits for a slot.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque, btree_set},
    iter::Peekable,
};

use gapless_common::{
    attempt::Fence,
    ids::{PartitionNo, RunId, SessionId, Stage, StepNo, TaskKey},
    job::Priority,
    labels::Labels,
};

use crate::{
    decide::Draft,
    event::{Continuation, Effect, Event, Grant},
    fail,
    history::Kind,
    limits::{MAX_GRANTS, STALLS_WITHOUT_POSITION},
    look, recut,
    row::{LeaseRow, Phase, Row, RunState},
    seats::{Choice, stage_of},
    state::{Run, StageState, State},
    time::Timestamp,
};

/// Grants what is ready to whoever is free, at most [`MAX_GRANTS`] at a time.
pub(crate) fn assign(draft: &mut Draft) {
    let state = draft.state;
    if state.seats.is_empty() {
        return;
    }
    let (mut lines, outgrown) = lines(state);
    for (run, step) in outgrown {
        draft.effect(Effect::Continue(Continuation::Recut { run, step }));
    }
    let mut seats = Choice::new(state, &state.seats);
    let mut granted = 0;
    while granted < MAX_GRANTS
        && !seats.is_empty()
        && let Some((mut turn, mut line)) = lines.pop_first()
    {
        if let Some((key, session)) = line.next(&mut seats) {
            grant(draft, line.run, key, session, granted as u64);
            granted += 1;
            turn.held += 1;
            lines.insert(turn, line);
        }
    }
}

/// When a run is served: the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    priority: Reverse<Priority>,
    held: usize,
    /// Tasks of its open stages that are not done.
    left: u64,
    run: RunId,
}

/// The ready tasks of a run, in order.
struct Line<'a> {
    id: RunId,
    run: &'a Run,
    stages: VecDeque<ReadyStage<'a>>,
}

struct ReadyStage<'a> {
    step: StepNo,
    stage: Stage,
    tasks: &'a StageState,
    ready: Peekable<btree_set::Iter<'a, PartitionNo>>,
    labels: &'a Labels,
}

/// The runs that have something to grant, and the steps that are to be cut anew before.
fn lines(state: &State) -> (BTreeMap<Turn, Line<'_>>, Vec<(RunId, StepNo)>) {
    let live = || state.live().iter().filter_map(|id| Some((*id, state.run(*id)?)));
    let being_cancelled = |run: &&Run| run.row.state == RunState::Cancelling;
    let cleared_away: BTreeSet<&str> = live()
        .map(|(_, run)| run)
        .filter(being_cancelled)
        .map(identity)
        .collect();
    // A run waits until the one before it with its identity has left the output.
    let waits = |run: &Run| run.row.state == RunState::Running && cleared_away.contains(identity(run));
    let (mut lines, mut outgrown) = (BTreeMap::new(), Vec::new());
    for (id, run) in live().filter(|(_, run)| !waits(run)) {
        let (mut left, mut stages) = (0, VecDeque::new());
        for (step, stage, tasks) in open_stages(run) {
            left += u64::from(tasks.total() - tasks.done);
            let waits = !tasks.ready.is_empty();
            if waits && run.step(step).is_some_and(|step| recut::is_due(state, run, step)) {
                outgrown.push((id, step));
            } else if waits {
                stages.push_back(ReadyStage {
                    step,
                    stage,
                    tasks,
                    ready: tasks.ready.iter().peekable(),
                    labels: &run.definition(step).placement,
                });
            }
        }
        if stages.is_empty() {
            continue;
        }
        let turn = Turn {
            priority: Reverse(run.row.priority),
            held: run.leases,
            left,
            run: id,
        };
        lines.insert(turn, Line { id, run, stages });
    }
    (lines, outgrown)
}

impl<'a> Line<'a> {
    /// The next task that finds a seat. `None`: no other of this run does in this decision.
    fn next(&mut self, seats: &mut Choice<'a>) -> Option<(TaskKey, SessionId)> {
        while let Some(stage) = self.stages.front_mut() {
            while let Some(&&partition) = stage.ready.peek() {
                let alone = stage.tasks.tasks[partition as usize].runs_alone();
                let key = TaskKey {
                    run: self.id,
                    step: stage.step,
                    stage: stage.stage,
                    partition,
                };
                if let Some(session) = seats.take(stage_of(&key), stage.labels, alone) {
                    stage.ready.next();
                    return Some((key, session));
                }
                // Every worker is busy: one is kept free of new work until it is idle.
                if !(alone && seats.reserve(stage.labels)) {
                    seats.wait(stage.labels);
                    break;
                }
                stage.ready.next();
            }
            self.stages.pop_front();
        }
        None
    }
}

fn identity(run: &Run) -> &str {
    &run.row.identity
}

/// The stages of a run whose ready tasks may be granted, in order.
pub(crate) fn open_stages(run: &Run) -> impl Iterator<Item = (StepNo, Stage, &StageState)> {
    let steps = run.active().iter().filter_map(|at| Some((*at, run.step(*at)?)));
    let open = steps.filter(|(number, step)| match run.row.state {
        RunState::Running => !look::is_due(run, *number) && fail::exceeded_limit(run, *number).is_none(),
        RunState::Cancelling => step.row.phase == Phase::Abort,
        _ => false,
    });
    open.filter_map(|(number, step)| step.current().map(|(stage, tasks)| (number, stage, tasks)))
}

fn grant(draft: &mut Draft, run: &Run, key: TaskKey, session: SessionId, nth: u64) {
    let Some(task) = draft.state.task(&key) else { return };
    let progress = task.progress_for(run.row.restarts);
    let (edition, attempts) = run
        .step(key.step)
        .map_or((0, 0), |step| (step.row.edition, step.row.attempts));
    let fence = Fence {
        number: progress.attempt.max(attempts) + 1,
        id: draft.state.attempt_id(nth),
    };
    let grant = Grant {
        task: key,
        fence,
        edition,
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

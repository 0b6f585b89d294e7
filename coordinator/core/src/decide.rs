//! The one entrance: an event and the state in, a decision out.

use std::collections::{BTreeMap, BTreeSet};

use gapless_common::{
    attempt::Fence,
    ids::{RunId, SessionId, Stage, StepNo, TaskKey},
};

use crate::{
    commit, consolidate,
    event::{Answer, Continuation, Decision, Effect, Event, Refusal, StageResult},
    fail,
    history::{self, Kind},
    lease,
    limits::MAX_ROWS,
    look, recut,
    row::{Change, Phase, ProgressRow, Row, RowKey, RunRow, RunState, SessionRow, StepRow},
    session,
    state::{Run, State, Step, Task},
    stop, submit, survey,
    time::Timestamp,
};

/// Chooses what follows `event`. Reads `state`, changes nothing: no IO, no clock, no randomness, no
/// logging.
pub fn decide(state: &State, now: Timestamp, event: Event) -> Result<Decision, Refusal> {
    let mut draft = Draft::new(state, now);
    match event {
        Event::Submit(submit) => submit::submit(&mut draft, submit)?,
        Event::Connect {
            session,
            worker,
            name,
            version,
            slots,
            labels,
            held,
        } => {
            let row = SessionRow {
                worker,
                name,
                slots,
                version,
                draining: false,
                void: false,
                labels,
            };
            session::connect(&mut draft, session, row, &held)?;
        }
        Event::Heard { session, held, .. } => session::heard(&mut draft, session, &held)?,
        Event::Drain { session } => session::drain(&mut draft, session)?,
        Event::Lost { session } => session::lost(&mut draft, session),
        Event::Commit {
            session,
            task,
            fence,
            commit,
        } => commit::commit(&mut draft, session, task, fence, commit)?,
        Event::Finished {
            session,
            task,
            fence,
            result,
        } => match result {
            StageResult::Facts(facts) => survey::surveyed(&mut draft, session, task, fence, facts)?,
            StageResult::Prepared(found) => survey::prepared(&mut draft, session, task, fence, found)?,
            StageResult::Published(publication) => {
                consolidate::published(&mut draft, session, task, fence, publication)?;
            }
            StageResult::Aborted(publication) => {
                consolidate::aborted(&mut draft, session, task, fence, publication)?;
            }
        },
        Event::Failed {
            session,
            task,
            fence,
            error,
        } => fail::failed(&mut draft, session, task, fence, error)?,
        Event::Said {
            session,
            task,
            fence,
            text,
        } => history::said(&mut draft, session, task, fence, &text)?,
        Event::Released { session, task, fence } => fail::released(&mut draft, session, task, fence)?,
        Event::Stop { run } => stop::stop(&mut draft, run)?,
        Event::Cancel { run } => stop::cancel(&mut draft, run)?,
        Event::Continue(Continuation::Plan { run, step, slice }) => survey::write_plan(&mut draft, run, step, slice),
        Event::Continue(Continuation::Look { run, step }) => look::look(&mut draft, run, step),
        Event::Continue(Continuation::Begin { run }) => consolidate::begin_steps(&mut draft, run, None),
        Event::Continue(Continuation::Void { session }) => session::void(&mut draft, session),
        Event::Continue(Continuation::Cancel { run }) => stop::go_on_cancelling(&mut draft, run),
        Event::Continue(Continuation::Settle { run, step }) => fail::end_if_hopeless(&mut draft, run, step),
        Event::Continue(Continuation::Recut { run, step }) => recut::recut_step(&mut draft, run, step),
        Event::Assign => lease::assign(&mut draft),
        // Time changes nothing durable by itself; `due` names the events that follow from it.
        Event::Tick | Event::Away { .. } => {}
    }
    Ok(draft.finish())
}

/// The events that the passing of time brings about, oldest cause first.
pub fn due(state: &State, now: Timestamp) -> Vec<Event> {
    let lease = state.lease_millis * 1000;
    let silent = state
        .sessions
        .iter()
        .filter(|(_, session)| now.micros_since(session.heard) > lease);
    let mut events: Vec<Event> = silent
        .map(|(id, session)| match session.row.void {
            // Its leases are being taken back; perhaps the step in between was lost with a leader.
            true => Event::Continue(Continuation::Void { session: *id }),
            false => Event::Lost { session: *id },
        })
        .collect();
    let live = state.live().iter().filter_map(|id| Some((id, state.run(*id)?)));
    for (run, state) in live {
        if state.row.state == RunState::Cancelling {
            events.push(Event::Continue(Continuation::Cancel { run: *run }));
        }
        if state.row.state == RunState::Running && state.startable(None).next().is_some() {
            events.push(Event::Continue(Continuation::Begin { run: *run }));
        }
        for (step, it) in state.steps.iter().enumerate() {
            let step = step as StepNo;
            let looks = state.row.state == RunState::Running && look::is_due(state, step);
            if looks {
                events.push(Event::Continue(Continuation::Look { run: *run, step }));
            } else if it.row.phase == Phase::Splitting {
                events.push(Event::Continue(Continuation::Plan {
                    run: *run,
                    step,
                    slice: 0,
                }));
            }
            let hopeless =
                it.current().is_some_and(|(_, stage)| stage.failed > 0) || fail::exceeded_limit(state, step).is_some();
            if hopeless && !looks && state.row.state == RunState::Running {
                events.push(Event::Continue(Continuation::Settle { run: *run, step }));
            }
        }
    }
    events.extend(lease::stalled(state, now));
    events
}

/// A decision in the making.
pub(crate) struct Draft<'a> {
    pub state: &'a State,
    pub now: Timestamp,
    rows: Vec<Change>,
    pub answer: Option<Answer>,
    effects: Vec<Effect>,
    /// Leases that this decision takes back, for each run.
    released: BTreeMap<RunId, usize>,
    /// Run rows as this decision leaves them, before it is seen whether the run is idle.
    runs: BTreeMap<RunId, RunRow>,
}

/// A lease that was found to be the caller's.
pub(crate) struct Holding<'a> {
    pub run: &'a Run,
    pub step: &'a Step,
    pub task: &'a Task,
}

impl<'a> Draft<'a> {
    fn new(state: &'a State, now: Timestamp) -> Self {
        Draft {
            state,
            now,
            rows: Vec::new(),
            answer: None,
            effects: Vec::new(),
            released: BTreeMap::new(),
            runs: BTreeMap::new(),
        }
    }

    fn finish(mut self) -> Decision {
        self.settle();
        debug_assert!(self.rows.len() <= MAX_ROWS, "a decision of {} rows", self.rows.len());
        Decision {
            rows: self.rows,
            answer: self.answer,
            effects: self.effects,
        }
    }

    pub fn put(&mut self, row: Row) {
        self.rows.push(Change::Put(row));
    }

    pub fn create(&mut self, row: Row) {
        self.rows.push(Change::Create(row));
    }

    pub fn delete(&mut self, key: RowKey) {
        self.rows.push(Change::Delete(key));
    }

    pub fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub fn note(&mut self, run: RunId, step: StepNo, kind: Kind, text: String) {
        self.effects.push(Effect::Note { run, step, kind, text });
    }

    /// Finds the lease under which a worker acts, or says why it may not.
    pub fn holding(&self, session: SessionId, key: TaskKey, fence: Fence) -> Result<Holding<'a>, Refusal> {
        let fenced = Refusal::Fenced { task: key };
        let run = self.state.run(key.run).ok_or(fenced.clone())?;
        let step = run.step(key.step).ok_or(fenced.clone())?;
        let task = self.state.task(&key).ok_or(fenced.clone())?;
        let lease = task.lease.ok_or(fenced.clone())?;
        let void = self.state.sessions.get(&session).is_none_or(|session| session.row.void);
        if void || lease.row.session != session || lease.row.fence != fence {
            return Err(fenced);
        }
        if run.row.state == RunState::Cancelling && key.stage != Stage::Abort {
            return Err(Refusal::Cancelled { task: key });
        }
        Ok(Holding { run, step, task })
    }

    /// Takes a lease back, remembering its attempt number with whatever else is new in `progress`.
    pub fn release(&mut self, key: TaskKey, fence: Fence, mut progress: ProgressRow) {
        progress.attempt = progress.attempt.max(fence.number);
        self.put_progress(key, progress);
        self.delete(RowKey::Lease(key));
        *self.released.entry(key.run).or_default() += 1;
    }

    /// Writes what is on record of a task, for the edition of the step that it belongs to.
    pub fn put_progress(&mut self, key: TaskKey, mut progress: ProgressRow) {
        let step = self.state.run(key.run).and_then(|run| run.step(key.step));
        progress.edition = step.map_or(0, |step| step.row.edition);
        self.put(Row::Progress(key, progress));
    }

    /// Writes a step's row with one thing changed.
    pub fn change_step(&mut self, run: RunId, number: StepNo, step: &Step, change: impl FnOnce(&mut StepRow)) {
        let mut row = step.row.clone();
        change(&mut row);
        self.put(Row::Step(run, number, row));
    }

    pub fn change_run(&mut self, id: RunId, run: &Run, change: impl FnOnce(&mut RunRow)) {
        change(self.runs.entry(id).or_insert_with(|| run.row.clone()));
    }

    /// A run as this decision leaves it so far.
    pub fn run_row<'b>(&'b self, id: RunId, run: &'b Run) -> &'b RunRow {
        self.runs.get(&id).unwrap_or(&run.row)
    }

    /// Ends each run that was only waiting for its last lease, and writes the run rows.
    fn settle(&mut self) {
        let touched: BTreeSet<RunId> = self.released.keys().chain(self.runs.keys()).copied().collect();
        for id in touched {
            let Some(run) = self.state.run(id) else { continue };
            let released = self.released.get(&id).copied().unwrap_or(0);
            let mut row = self.runs.remove(&id).unwrap_or_else(|| run.row.clone());
            if run.leases == released {
                let ended = match row.state {
                    RunState::Stopping => Some(RunState::Stopped),
                    RunState::Failing => Some(RunState::Failed),
                    // Of a step that was found published others may have held something still.
                    RunState::Running if run.is_published() => Some(RunState::Completed),
                    RunState::Running
                    | RunState::Stopped
                    | RunState::Failed
                    | RunState::Cancelling
                    | RunState::Cancelled
                    | RunState::Completed => None,
                };
                if let Some(ended) = ended {
                    row.state = ended;
                    row.finished = Some(self.now);
                }
            }
            if released > 0 && row.state == RunState::Cancelling {
                self.effect(Effect::Continue(Continuation::Cancel { run: id }));
            }
            if row != run.row {
                self.put(Row::Run(id, row));
            }
        }
    }
}

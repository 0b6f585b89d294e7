//! The state: what is durable, rebuilt by `apply` alone, and what is volatile, kept by `note`.
//!
//! Indexes (ready sets, counts, totals) are derived from rows in the same place where rows change,
//! so recovery and normal running cannot differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gapless_common::{
    attempt::{Counters, RecordHash},
    ids::{AttemptId, PartitionNo, RunId, SessionId, Stage, StepNo, TaskKey, Term},
    job,
    plan::{Facts, Partition},
    range::{KeyRange, UnitRange},
};

use crate::{
    event::{Event, Held},
    history::{Entry, History},
    limits::{LOSSES_BEFORE_ALONE, RETRY_FIRST_MILLIS, RETRY_LONGEST_MILLIS},
    row::{
        Change, ClusterRow, JobRow, LeaseRow, Phase, ProgressRow, Row, RowKey, RunRow, SessionRow, SpeedRow, StepRow,
        edition_of,
    },
    seats::{Paces, Seats, StageKey, stage_of},
    time::Timestamp,
};

/// Everything the leader knows.
#[derive(Debug)]
pub struct State {
    pub term: Term,
    /// Silence of this length ends a session.
    pub lease_millis: u64,
    /// An attempt whose position has not moved for so long is given to another worker.
    pub stall_millis: u64,
    pub cluster: Option<ClusterRow>,
    pub sessions: BTreeMap<SessionId, Session>,
    pub runs: BTreeMap<RunId, Run>,
    pub identities: BTreeMap<String, RunId>,
    /// How fast steps went, by the names of job and step.
    pub speeds: BTreeMap<(String, String), SpeedRow>,
    /// Runs that hold workers or may take some.
    live: BTreeSet<RunId>,
    /// Slots of all workers in session.
    slots: u32,
    /// Who can take another task.
    pub(crate) seats: Seats,
    /// The serial number of the next attempt in this term.
    next_serial: u64,
    /// Tasks that wait before they are tried again.
    backoff: BTreeSet<(Timestamp, TaskKey)>,
    /// Sessions lost within the last lease time: when, and what they held.
    losses: Vec<(Timestamp, BTreeSet<TaskKey>)>,
}

#[derive(Debug)]
pub struct Session {
    pub row: SessionRow,
    pub leases: BTreeSet<TaskKey>,
    pub heard: Timestamp,
    pub resident_bytes: u64,
    /// Recent time for each task by its stage, smoothed.
    pub(crate) paces: Paces,
    /// Leases of tasks that were known to be short when they were granted.
    pub(crate) short: usize,
    /// Leases of tasks that must be alone.
    pub(crate) alone: usize,
    /// Its connection is broken.
    pub(crate) away: bool,
    last_done: Timestamp,
}

#[derive(Debug)]
pub struct Run {
    pub row: RunRow,
    pub job: Arc<JobRow>,
    pub steps: Vec<Step>,
    /// Steps in a phase that leases tasks.
    active: BTreeSet<StepNo>,
    /// For each step the steps that must be complete before it.
    needs: Vec<Vec<StepNo>>,
    /// Live leases over all steps.
    pub leases: usize,
    pub history: History,
}

#[derive(Debug)]
pub struct Step {
    pub row: StepRow,
    pub facts: Option<Arc<Facts>>,
    stages: BTreeMap<Stage, StageState>,
}

/// The tasks of one stage with what is derived from them.
#[derive(Debug, Default)]
pub struct StageState {
    pub tasks: Vec<Task>,
    /// Tasks that may be granted now.
    pub ready: BTreeSet<PartitionNo>,
    pub leased: u32,
    pub done: u32,
    pub failed: u32,
    pub losses: u32,
    /// Sums over what is committed.
    pub counters: Counters,
    pub records: RecordHash,
    /// Units below the committed positions.
    pub committed_units: u64,
    /// Units of tasks that one attempt worked off under this leader, and the slots' time they took.
    pub timed_units: u64,
    pub timed_micros: u64,
    /// Slices of the partition table so far.
    pub(crate) slices: u32,
}

#[derive(Clone, Debug, Default)]
pub struct Task {
    pub units: UnitRange,
    pub keys: Option<Box<KeyRange>>,
    pub progress: Option<Box<ProgressRow>>,
    pub lease: Option<Lease>,
    pub not_before: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
pub struct Lease {
    pub row: LeaseRow,
    pub granted: Timestamp,
    /// How far the worker says it has read, and when that last moved.
    pub position: u64,
    pub rows: u64,
    pub moved: Timestamp,
    /// Known to be short when it was granted.
    short: bool,
    /// Of a task that nothing is committed of yet.
    whole: bool,
    /// Its worker takes nothing else meanwhile.
    alone: bool,
}

impl Task {
    /// Where the next attempt goes on.
    pub fn position(&self) -> u64 {
        match &self.progress {
            Some(progress) if progress.seq > 0 => progress.position,
            _ => self.units.low,
        }
    }

    /// Whether it lost its workers so often that it gets one for itself.
    pub fn runs_alone(&self) -> bool {
        let losses = self.progress.as_ref().map_or(0, |progress| progress.losses);
        losses >= LOSSES_BEFORE_ALONE
    }

    pub fn is_done(&self) -> bool {
        self.progress.as_ref().is_some_and(|progress| progress.done)
    }

    /// Whether it has failed for good, as far as this restart of its run goes.
    pub fn has_failed(&self, restart: u32) -> bool {
        let failure = self.progress.as_ref().and_then(|progress| progress.failure.as_ref());
        failure.is_some_and(|failure| failure.restart == restart)
    }

    /// The progress row to go on from; what belongs to earlier restarts is forgiven.
    pub fn progress_for(&self, restart: u32) -> ProgressRow {
        let mut progress = self.progress.as_deref().cloned().unwrap_or_default();
        if progress
            .failure
            .as_ref()
            .is_some_and(|failure| failure.restart != restart)
        {
            progress.failure = None;
            progress.failures = 0;
            progress.losses = 0;
        }
        progress
    }
}

impl Step {
    fn new() -> Step {
        let single = |stage| {
            let task = Task {
                units: UnitRange { low: 0, high: 1 },
                ..Task::default()
            };
            (
                stage,
                StageState {
                    tasks: vec![task],
                    ready: BTreeSet::from([0]),
                    ..StageState::default()
                },
            )
        };
        Step {
            row: StepRow::WAITING,
            facts: None,
            stages: [Stage::Survey, Stage::Prepare, Stage::Publish, Stage::Abort]
                .map(single)
                .into(),
        }
    }

    pub fn stage(&self, stage: Stage) -> Option<&StageState> {
        self.stages.get(&stage)
    }

    pub fn stages(&self) -> impl Iterator<Item = (Stage, &StageState)> {
        self.stages.iter().map(|(stage, state)| (*stage, state))
    }

    /// The stage that is worked off now.
    pub fn current(&self) -> Option<(Stage, &StageState)> {
        let stage = self.row.phase.stage()?;
        Some((stage, self.stages.get(&stage)?))
    }
}

impl Run {
    pub fn definition(&self, step: StepNo) -> &job::Step {
        &self.job.job.steps[step as usize]
    }

    /// Whether all of its steps are.
    pub fn is_published(&self) -> bool {
        self.steps.iter().all(|step| step.row.phase == Phase::Published)
    }

    pub fn step(&self, step: StepNo) -> Option<&Step> {
        self.steps.get(step as usize)
    }

    /// Steps in a phase that leases tasks.
    pub fn active(&self) -> &BTreeSet<StepNo> {
        &self.active
    }

    /// The steps that wait, and for nothing but `published`.
    pub fn startable(&self, published: Option<StepNo>) -> impl Iterator<Item = StepNo> + '_ {
        let complete = move |at: StepNo| Some(at) == published || self.steps[at as usize].row.phase == Phase::Published;
        let waits = self.steps.iter().map(|step| step.row.phase == Phase::Waiting);
        let waiting = waits.zip(&self.needs).enumerate().filter(|(_, (waits, _))| *waits);
        waiting.filter_map(move |(number, (_, needs))| needs.iter().all(|&at| complete(at)).then_some(number as StepNo))
    }
}

/// For each step the numbers of those that must be complete before it.
pub(crate) fn needs(job: &job::Job) -> Vec<Vec<StepNo>> {
    let numbers: BTreeMap<&str, StepNo> = (0..)
        .zip(&job.steps)
        .map(|(at, step)| (step.name.as_str(), at))
        .collect();
    let of = |step: &job::Step| {
        let names = step.after.iter().map(String::as_str).chain(step.source.steps());
        names.filter_map(|name| numbers.get(name).copied()).collect()
    };
    job.steps.iter().map(of).collect()
}

impl State {
    pub fn new(term: Term, lease_millis: u64, stall_millis: u64) -> State {
        State {
            term,
            lease_millis,
            stall_millis,
            cluster: None,
            sessions: BTreeMap::new(),
            runs: BTreeMap::new(),
            identities: BTreeMap::new(),
            speeds: BTreeMap::new(),
            live: BTreeSet::new(),
            slots: 0,
            seats: Seats::default(),
            next_serial: 0,
            backoff: BTreeSet::new(),
            losses: Vec::new(),
        }
    }

    /// Rebuilds the state from all rows of a store. Every known session gets one lease time from `now`.
    pub fn recover(term: Term, lease_millis: u64, stall_millis: u64, mut rows: Vec<Row>, now: Timestamp) -> State {
        let mut state = State::new(term, lease_millis, stall_millis);
        const LAST: u64 = u64::MAX;
        // A row may refer to rows of the kinds before its own.
        rows.sort_by_key(|row| match row {
            Row::Cluster(_) => 0,
            Row::Session(..) => 1,
            Row::Job(..) => 2,
            Row::Run(..) => 3,
            Row::Identity(..) => 4,
            Row::Facts(..) => 5,
            Row::Step(..) => 6,
            // Later slices of a table narrow partitions of earlier ones.
            Row::Plan(_, _, _, slice, _) => 7 + u64::from(*slice),
            Row::Progress(..) => LAST - 2,
            Row::Lease(..) => LAST - 1,
            Row::Speed(..) => LAST,
        });
        for row in rows {
            state.apply(Change::Put(row), now);
        }
        state
    }

    /// Runs that hold workers or may take some.
    pub fn live(&self) -> &BTreeSet<RunId> {
        &self.live
    }

    pub fn run(&self, run: RunId) -> Option<&Run> {
        self.runs.get(&run)
    }

    pub fn task(&self, key: &TaskKey) -> Option<&Task> {
        self.runs
            .get(&key.run)?
            .step(key.step)?
            .stages
            .get(&key.stage)?
            .tasks
            .get(key.partition as usize)
    }

    /// The attempt id for the `nth` grant of a decision.
    pub fn attempt_id(&self, nth: u64) -> AttemptId {
        AttemptId {
            term: self.term,
            serial: self.next_serial + nth,
        }
    }

    /// Slots of all workers in session.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Whether a session that did not hold this task was lost within one lease time before `now`:
    /// losses that come together are taken to be the network's or the operator's doing, not a
    /// partition's. Sessions that all held it are no excuse: it may be what ends them, one by one.
    pub fn others_lost_lately(&self, key: &TaskKey, now: Timestamp) -> bool {
        self.losses
            .iter()
            .any(|(at, held)| now.micros_since(*at) < self.lease_millis * 1000 && !held.contains(key))
    }

    /// Applies one change of a decision. The only place where durable state changes.
    pub fn apply(&mut self, change: Change, now: Timestamp) {
        match change {
            Change::Put(row) | Change::Create(row) => self.put(row, now),
            Change::Delete(key) => self.delete(key),
        }
    }

    fn put(&mut self, row: Row, now: Timestamp) {
        match row {
            Row::Cluster(row) => self.cluster = Some(row),
            Row::Session(id, row) => self.put_session(id, row, now),
            Row::Job(run, job) => {
                let steps = job.job.steps.iter().map(|_| Step::new()).collect();
                self.live.insert(run);
                self.runs.insert(
                    run,
                    Run {
                        row: RunRow::NEW,
                        needs: needs(&job.job),
                        job,
                        steps,
                        leases: 0,
                        active: BTreeSet::new(),
                        history: History::default(),
                    },
                );
            }
            Row::Run(run, row) => self.put_run(run, row),
            Row::Identity(identity, run) => {
                self.identities.insert(identity, run);
            }
            Row::Facts(run, step, facts) => {
                if let Some(step) = self.step_mut(run, step) {
                    step.facts = Some(facts);
                }
            }
            Row::Step(run, step, row) => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.put_step(step, row);
                }
            }
            Row::Plan(run, step, stage, slice, partitions) => {
                if let Some(run) = self.runs.get_mut(&run)
                    && let Some(step) = run.steps.get_mut(step as usize)
                {
                    step.put_plan(stage, slice, partitions, run.row.restarts);
                }
            }
            Row::Progress(task, row) => self.put_progress(task, row, now),
            Row::Lease(task, row) => self.put_lease(task, row, now),
            Row::Speed(job, step, row) => {
                self.speeds.insert((job, step), row);
            }
        }
    }

    fn delete(&mut self, key: RowKey) {
        match key {
            RowKey::Session(id) => {
                if let Some(session) = self.sessions.remove(&id) {
                    self.slots -= session.row.seated();
                    self.seats.place(id, &session.row.labels, None);
                }
            }
            RowKey::Lease(task) => self.delete_lease(task),
            RowKey::Speed(job, step) => {
                self.speeds.remove(&(job, step));
            }
            RowKey::Identity(identity) => {
                self.identities.remove(&identity);
            }
            // Nothing else is deleted while the leader runs.
            RowKey::Cluster
            | RowKey::Run(_)
            | RowKey::Job(_)
            | RowKey::Step(..)
            | RowKey::Facts(..)
            | RowKey::Plan(..)
            | RowKey::Progress(_) => {}
        }
    }

    fn step_mut(&mut self, run: RunId, step: StepNo) -> Option<&mut Step> {
        self.runs.get_mut(&run)?.steps.get_mut(step as usize)
    }

    fn put_session(&mut self, id: SessionId, row: SessionRow, now: Timestamp) {
        let before = self.sessions.get(&id).map_or(0, |session| session.row.seated());
        self.slots = self.slots - before + row.seated();
        match self.sessions.get_mut(&id) {
            Some(session) => {
                if row.void && !session.row.void {
                    let lease = self.lease_millis * 1000;
                    self.losses.retain(|(at, _)| now.micros_since(*at) < lease);
                    self.losses.push((now, session.leases.clone()));
                }
                session.row = row;
            }
            None => {
                let session = Session {
                    row,
                    leases: BTreeSet::new(),
                    heard: now,
                    resident_bytes: 0,
                    paces: Paces::default(),
                    short: 0,
                    alone: 0,
                    away: false,
                    last_done: now,
                };
                self.sessions.insert(id, session);
            }
        }
        self.reseat(id);
    }

    /// A session holds something else than before, or is something else.
    fn reseat(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get(&id) {
            self.seats.place(id, &session.row.labels, Some(session));
        }
    }

    fn put_run(&mut self, id: RunId, row: RunRow) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let restarted = run.row.restarts != row.restarts;
        run.row = row;
        match run.row.state.is_live() {
            true => self.live.insert(id),
            false => self.live.remove(&id),
        };
        if restarted {
            let restart = run.row.restarts;
            for step in &mut run.steps {
                for stage in step.stages.values_mut() {
                    stage.rebuild(restart);
                }
            }
        }
    }

    fn put_progress(&mut self, key: TaskKey, row: ProgressRow, now: Timestamp) {
        let Some(run) = self.runs.get_mut(&key.run) else { return };
        let restart = run.row.restarts;
        let Some(stage) = run
            .steps
            .get_mut(key.step as usize)
            .filter(|step| step.row.edition == row.edition)
            .and_then(|step| step.stages.get_mut(&key.stage))
        else {
            return;
        };
        let lease = stage.put_progress(key.partition, row, restart, now);
        let Some(task) = stage.tasks.get(key.partition as usize) else {
            return;
        };
        if let Some(at) = task.not_before {
            self.backoff.insert((at, key));
        }
        // Without a lease (at recovery) there is nobody to credit. How long a survey or a publish took
        // says nothing of the chunks to come.
        let units = task.units;
        if task.is_done()
            && matches!(key.stage, Stage::Scatter | Stage::Execute | Stage::Merge)
            && let Some(lease) = lease
            && let Some(session) = self.sessions.get_mut(&lease.row.session)
        {
            let took = session.note_done(stage_of(&key), &lease, now);
            if lease.whole {
                stage.timed_units += units.len();
                stage.timed_micros = stage.timed_micros.saturating_add(took);
            }
            self.reseat(lease.row.session);
        }
    }

    fn put_lease(&mut self, key: TaskKey, row: LeaseRow, now: Timestamp) {
        if row.fence.id.term == self.term {
            self.next_serial = self.next_serial.max(row.fence.id.serial + 1);
        }
        let Some(run) = self.runs.get_mut(&key.run) else { return };
        let Some(stage) = run
            .steps
            .get_mut(key.step as usize)
            .and_then(|step| step.stages.get_mut(&key.stage))
        else {
            return;
        };
        let Some(task) = stage.tasks.get_mut(key.partition as usize) else {
            return;
        };
        let position = task.position();
        let session = self.sessions.get(&row.session);
        let former = task.lease.map(|lease| lease.row.session);
        match &mut task.lease {
            // A lease moves with its worker to a new session; the attempt goes on.
            Some(lease) => {
                if let Some(session) = self.sessions.get_mut(&lease.row.session) {
                    session.lets_go(&key, lease);
                }
                lease.row = row;
            }
            None => {
                task.lease = Some(Lease {
                    row,
                    granted: now,
                    position,
                    rows: 0,
                    moved: now,
                    whole: position == task.units.low,
                    short: session.is_some_and(|session| session.is_short(stage_of(&key))),
                    alone: task
                        .progress
                        .as_ref()
                        .is_some_and(|it| it.losses >= LOSSES_BEFORE_ALONE),
                });
                stage.leased += 1;
                run.leases += 1;
            }
        }
        stage.ready.remove(&key.partition);
        if let Some(session) = self.sessions.get_mut(&row.session)
            && let Some(lease) = &task.lease
        {
            session.takes(key, lease);
        }
        former.into_iter().for_each(|former| self.reseat(former));
        self.reseat(row.session);
    }

    fn delete_lease(&mut self, key: TaskKey) {
        let Some(run) = self.runs.get_mut(&key.run) else { return };
        let restart = run.row.restarts;
        let Some(stage) = run
            .steps
            .get_mut(key.step as usize)
            .and_then(|step| step.stages.get_mut(&key.stage))
        else {
            return;
        };
        let Some(lease) = stage
            .tasks
            .get_mut(key.partition as usize)
            .and_then(|task| task.lease.take())
        else {
            return;
        };
        stage.leased -= 1;
        run.leases -= 1;
        stage.reindex(key.partition, restart);
        if let Some(session) = self.sessions.get_mut(&lease.row.session) {
            session.lets_go(&key, &lease);
        }
        self.reseat(lease.row.session);
    }

    /// Keeps what is volatile: who was heard when, how far attempts say they are, whose wait is over.
    pub fn note(&mut self, event: &Event, now: Timestamp) {
        match event {
            Event::Heard {
                session,
                held,
                resident_bytes,
            } => {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.heard = now;
                    session.resident_bytes = *resident_bytes;
                }
                held.iter().for_each(|held| self.note_held(*session, held, now));
            }
            Event::Commit { session, .. }
            | Event::Finished { session, .. }
            | Event::Failed { session, .. }
            | Event::Said { session, .. }
            | Event::Released { session, .. }
            | Event::Drain { session } => {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.heard = now;
                }
            }
            Event::Away { session: id } => {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.away = true;
                }
                self.reseat(*id);
            }
            Event::Tick => self.end_waits(now),
            Event::Submit(_)
            | Event::Connect { .. }
            | Event::Lost { .. }
            | Event::Stop { .. }
            | Event::Cancel { .. }
            | Event::Continue(_)
            | Event::Assign => {}
        }
    }

    /// Gives every session a full lease time from `now`: for a while nobody could be heard, which is
    /// no worker's fault.
    pub fn renew_sessions(&mut self, now: Timestamp) {
        self.sessions.values_mut().for_each(|session| session.heard = now);
    }

    /// Lets a time pass for nobody: the leader heard no one in it, so it proves no worker's silence and no
    /// attempt's stall.
    pub fn pass_over(&mut self, micros: u64) {
        let later = |time: &mut Timestamp| time.0 = time.0.saturating_add_unsigned(micros);
        for session in self.sessions.values_mut() {
            later(&mut session.heard);
        }
        let steps = self.runs.values_mut().flat_map(|run| &mut run.steps);
        let stages = steps.flat_map(|step| step.stages.values_mut());
        let tasks = stages.flat_map(|stage| &mut stage.tasks);
        tasks
            .filter_map(|task| task.lease.as_mut())
            .for_each(|lease| later(&mut lease.moved));
    }

    fn note_held(&mut self, session: SessionId, held: &Held, now: Timestamp) {
        let Some(task) = self
            .runs
            .get_mut(&held.task.run)
            .and_then(|run| run.steps.get_mut(held.task.step as usize))
            .and_then(|step| step.stages.get_mut(&held.task.stage))
            .and_then(|stage| stage.tasks.get_mut(held.task.partition as usize))
        else {
            return;
        };
        if let Some(lease) = &mut task.lease
            && lease.row.session == session
            && lease.row.fence == held.fence
        {
            if lease.position != held.position || lease.rows != held.rows {
                lease.moved = now;
            }
            lease.position = held.position;
            lease.rows = held.rows;
        }
    }

    fn end_waits(&mut self, now: Timestamp) {
        while let Some(&(at, key)) = self.backoff.first()
            && at <= now
        {
            self.backoff.pop_first();
            let Some(run) = self.runs.get_mut(&key.run) else {
                continue;
            };
            let restart = run.row.restarts;
            if let Some(stage) = run
                .steps
                .get_mut(key.step as usize)
                .and_then(|step| step.stages.get_mut(&key.stage))
            {
                // Of an earlier edition of the step: there may be no such task any more.
                if let Some(task) = stage.tasks.get_mut(key.partition as usize) {
                    task.not_before = None;
                    stage.reindex(key.partition, restart);
                }
            }
        }
    }

    /// When the next wait ends, for the shell's timer.
    pub fn next_wait(&self) -> Option<Timestamp> {
        self.backoff.first().map(|(at, _)| *at)
    }

    /// Keeps what happened to a run for those who ask.
    pub fn remember(&mut self, run: RunId, entry: Entry) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.history.push(entry);
        }
    }
}

impl Session {
    /// Whether it is given new tasks at all.
    pub fn takes_work(&self) -> bool {
        !self.row.void && !self.row.draining
    }

    /// A task is done. Answers how long a slot had it.
    fn note_done(&mut self, stage: StageKey, lease: &Lease, now: Timestamp) -> u64 {
        let took = now.micros_since(lease.granted.max(self.last_done));
        self.paces.note(stage, took);
        self.last_done = now;
        let busy = u64::from(self.row.slots).min(self.leases.len() as u64).max(1);
        match lease.short {
            // It waited behind others: what counts is the time from one end to the next.
            true => took * busy,
            false => now.micros_since(lease.granted),
        }
    }

    fn takes(&mut self, key: TaskKey, lease: &Lease) {
        if self.leases.insert(key) {
            self.short += usize::from(lease.short);
            self.alone += usize::from(lease.alone);
        }
    }

    fn lets_go(&mut self, key: &TaskKey, lease: &Lease) {
        if self.leases.remove(key) {
            self.short -= usize::from(lease.short);
            self.alone -= usize::from(lease.alone);
        }
    }
}

impl Run {
    fn put_step(&mut self, number: StepNo, row: StepRow) {
        let Some(step) = self.steps.get_mut(number as usize) else {
            return;
        };
        match row.phase.stage() {
            Some(_) => self.active.insert(number),
            None => self.active.remove(&number),
        };
        step.put(row);
    }
}

impl Step {
    fn put(&mut self, row: StepRow) {
        if row.edition != self.row.edition {
            // It begins anew: nobody holds anything of it.
            self.stages = Step::new().stages;
        }
        if let Some(plan) = &row.plan
            && let Some(files) = plan.merge
        {
            let stage = self.stages.entry(Stage::Merge).or_default();
            if stage.tasks.is_empty() {
                stage.tasks.resize_with(files as usize, Task::default);
                stage.ready = (0..files).collect();
            }
            // Before the first of them is granted, the partitions may be cut anew.
            let share = |file: u32| u64::from(file) * u64::from(plan.execute) / u64::from(files);
            for (file, task) in (0..).zip(&mut stage.tasks) {
                task.units = UnitRange::new(share(file), share(file + 1));
            }
        }
        self.row = row;
    }

    fn put_plan(&mut self, stage: Stage, slice: u32, partitions: Vec<Partition>, restart: u32) {
        if edition_of(slice) != self.row.edition {
            return;
        }
        let stage = self.stages.entry(stage).or_default();
        stage.slices = stage.slices.max(slice + 1);
        for partition in partitions {
            let number = partition.number as usize;
            if stage.tasks.len() <= number {
                stage.tasks.resize_with(number + 1, Task::default);
            }
            let task = &mut stage.tasks[number];
            task.units = partition.units;
            task.keys = partition.keys.map(Box::new);
            stage.reindex(partition.number, restart);
        }
    }
}

impl StageState {
    /// Replaces a task's progress, keeping counts and totals; answers the lease it was made under.
    fn put_progress(&mut self, number: PartitionNo, row: ProgressRow, restart: u32, now: Timestamp) -> Option<Lease> {
        let task = self.tasks.get_mut(number as usize)?;
        let failures_before = task.progress.as_ref().map_or(0, |progress| progress.failures);
        let (before, after) = (task.progress.as_deref().cloned().unwrap_or_default(), &row);
        self.done = self.done + u32::from(after.done) - u32::from(before.done);
        self.losses = self.losses + after.losses - before.losses;
        self.counters = add_difference(self.counters, before.counters, after.counters);
        self.records = RecordHash(
            self.records
                .0
                .wrapping_sub(before.records.0)
                .wrapping_add(after.records.0),
        );
        let moved = |progress: &ProgressRow| {
            if progress.seq > 0 {
                progress.position - task.units.low
            } else {
                0
            }
        };
        self.committed_units = self.committed_units - moved(&before) + moved(after);
        let failed = |progress: &ProgressRow| progress.failure.as_ref().is_some_and(|it| it.restart == restart);
        self.failed = self.failed + u32::from(failed(after)) - u32::from(failed(&before));
        if row.failures > failures_before && row.failure.is_none() {
            task.not_before = Some(now.plus_millis(retry_wait_millis(row.failures)));
        }
        if let Some(lease) = &mut task.lease
            && row.seq > before.seq
        {
            lease.position = row.position;
            lease.rows = 0;
            lease.moved = now;
        }
        task.progress = Some(Box::new(row));
        let lease = task.lease;
        self.reindex(number, restart);
        lease
    }

    fn reindex(&mut self, number: PartitionNo, restart: u32) {
        let task = &self.tasks[number as usize];
        let ready = task.lease.is_none() && !task.is_done() && !task.has_failed(restart) && task.not_before.is_none();
        if ready {
            self.ready.insert(number);
        } else {
            self.ready.remove(&number);
        }
    }

    /// After a restart: what had failed may be tried again.
    fn rebuild(&mut self, restart: u32) {
        self.failed = 0;
        for number in 0..self.tasks.len() as u32 {
            self.tasks[number as usize].not_before = None;
            self.failed += u32::from(self.tasks[number as usize].has_failed(restart));
            self.reindex(number, restart);
        }
    }

    pub fn total(&self) -> u32 {
        self.tasks.len() as u32
    }
}

fn add_difference(sum: Counters, before: Counters, after: Counters) -> Counters {
    let one = |sum: u64, before: u64, after: u64| sum - before + after;
    Counters {
        read: one(sum.read, before.read, after.read),
        written: one(sum.written, before.written, after.written),
        filtered: one(sum.filtered, before.filtered, after.filtered),
        rejected: one(sum.rejected, before.rejected, after.rejected),
        bytes_read: one(sum.bytes_read, before.bytes_read, after.bytes_read),
        bytes_written: one(sum.bytes_written, before.bytes_written, after.bytes_written),
    }
}

/// The wait before the next attempt after so many failures: doubles up to a limit.
fn retry_wait_millis(failures: u32) -> u64 {
    RETRY_FIRST_MILLIS
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(RETRY_LONGEST_MILLIS)
}

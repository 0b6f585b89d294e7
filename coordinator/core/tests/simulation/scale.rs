//! The core at the size of a large site: thousands of workers, up to a million partitions, failures all
//! the time. Promises are judged as they are made, by books of a few bytes for each partition; the state
//! as a whole is looked over now and then, since a look costs as much as there are partitions.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use gapless_common::{
    attempt::{Commit, Counters, Fence, RecordHash},
    error::{ErrorClass, TaskError},
    ids::{RunId, SessionId, Stage, TaskKey, Term},
    job::{Count, Job, OnError, Partition, PartitionFailed, Partitioning, Priority, Sink, Source, Step},
    labels::Labels,
    plan::{Facts, TransformFacts, TransformMode, Unit},
    range::UnitRange,
};
use gapless_core::{
    Change, Decision, Effect, Event, Row, RowKey, State, Timestamp, decide,
    decide::due,
    event::{Grant, Held, StageResult, Submit},
    invariants,
    limits::MAX_ROWS,
    row::{JobRow, Publication, RunState},
};
use uuid::Uuid;

use crate::{rng::Rng, watch};

/// Partitions of one run: what a run may have at most.
const PER_RUN: u64 = 100_000;
const SLOTS: u32 = 2;
const LEASE_MILLIS: u64 = 10_000;
const BEAT_MICROS: i64 = 2_500_000;
const TICK_MICROS: i64 = 50_000;
/// Events taken into one round of the loop, as the shell does.
const ROUND: usize = 256;
/// The state as a whole is judged so many times in a simulation.
const LOOKS: u64 = 20;
/// Leaders that fall in the course of a simulation.
const FALLS: u64 = 4;

/// All of them happen in a simulation of any size, or it proves nothing.
pub const FAULTS: [&str; 8] = [
    "a commit arrives twice",
    "a commit is lost and offered again",
    "a grant is lost",
    "a leader falls",
    "a line breaks and is mended",
    "a task fails",
    "a worker dies",
    "a worker dies in silence",
];

pub struct Size {
    pub workers: usize,
    pub partitions: u64,
}

/// What a simulation cost, for each tenth of its partitions.
pub struct Tenth {
    pub events: u64,
    /// In decisions and in applying their rows; without the simulation around them.
    pub took: Duration,
}

pub struct Course {
    pub tenths: Vec<Tenth>,
    pub counts: BTreeMap<&'static str, u64>,
    /// Rows that are stored at the end, and their bytes with their keys.
    pub rows: usize,
    pub bytes: usize,
}

enum Happening {
    Tick,
    Beat(usize, SessionId),
    /// A slot is through with its task.
    Through(usize, Grant),
    Dial(usize),
    Fall,
}

struct Worker {
    id: Uuid,
    link: Option<SessionId>,
    held: BTreeMap<TaskKey, Grant>,
}

/// The smallest book that can tell a broken promise about a partition.
#[derive(Clone, Copy, Default)]
struct Page {
    number: u32,
    leased: Option<(SessionId, Fence)>,
    seq: u32,
    done: bool,
}

struct Site {
    rng: Rng,
    now: i64,
    state: State,
    store: BTreeMap<RowKey, Row>,
    workers: Vec<Worker>,
    links: BTreeMap<SessionId, usize>,
    queue: BinaryHeap<Reverse<(i64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    pushed: u64,
    follow: VecDeque<Event>,
    runs: BTreeMap<RunId, usize>,
    books: Vec<Vec<Page>>,
    serial: u64,
    counts: BTreeMap<&'static str, u64>,
    committed: u64,
    tenth: Tenth,
    course: Vec<Tenth>,
}

/// Runs jobs of so many partitions on so many workers to their end.
pub fn simulate(size: &Size, seed: u64) -> Result<Course, String> {
    let mut site = Site::new(size, seed);
    let runs = size.partitions.div_ceil(PER_RUN);
    let mut left = size.partitions;
    for number in 0..runs {
        let partitions = left.min(PER_RUN);
        left -= partitions;
        let run = RunId(Uuid::from_u128(site.rng.id()));
        site.runs.insert(run, number as usize);
        site.books.push(vec![Page::default(); partitions as usize]);
        let submit = Submit {
            run,
            identity: format!("job{number}"),
            text_digest: String::new(),
            priority: None,
            job: job(number, partitions),
        };
        site.round(vec![Event::Submit(submit)])?;
    }
    for worker in 0..size.workers {
        site.at(worker as i64 * 50, Happening::Dial(worker));
    }
    site.at(0, Happening::Tick);
    let (mut fallen, mut looks) = (0, 0);
    while !site.is_over() {
        let most = site.workers.len() as i64;
        let Some(Reverse((at, key))) = site.queue.pop() else {
            return Err("I9: nothing happens any more, and runs are open".into());
        };
        site.now = site.now.max(at);
        // What happens within one turn of the loop goes into one round.
        let mut keys = vec![key];
        while keys.len() < ROUND
            && let Some(Reverse((next, key))) = site.queue.peek().copied()
            && next <= at + 1000.min(most)
        {
            site.queue.pop();
            keys.push(key);
        }
        site.happen(&keys)?;
        if site.committed >= (fallen + 1) * size.partitions / (FALLS + 1) && fallen < FALLS {
            fallen += 1;
            site.at(0, Happening::Fall);
        }
        if site.committed >= looks * size.partitions / LOOKS {
            looks += 1;
            invariants::check(&site.state)?;
        }
        if site.committed >= (site.course.len() as u64 + 1) * size.partitions / 10 {
            let begun = Tenth {
                events: 0,
                took: Duration::ZERO,
            };
            site.course.push(std::mem::replace(&mut site.tenth, begun));
        }
    }
    site.settle_up()?;
    let bytes = site
        .store
        .iter()
        .map(|(key, row)| key.to_string().len() + row.encode().len())
        .sum();
    Ok(Course {
        tenths: site.course,
        counts: site.counts,
        rows: site.store.len(),
        bytes,
    })
}

impl Site {
    fn new(size: &Size, seed: u64) -> Site {
        let mut rng = Rng::new(seed);
        let workers = (0..size.workers).map(|_| Worker {
            id: Uuid::from_u128(rng.id()),
            link: None,
            held: BTreeMap::new(),
        });
        Site {
            workers: workers.collect(),
            rng,
            now: 1_000_000,
            state: State::new(Term(1), LEASE_MILLIS, 600_000),
            store: BTreeMap::new(),
            links: BTreeMap::new(),
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            pushed: 0,
            follow: VecDeque::new(),
            runs: BTreeMap::new(),
            books: Vec::new(),
            serial: 0,
            counts: BTreeMap::new(),
            committed: 0,
            tenth: Tenth {
                events: 0,
                took: Duration::ZERO,
            },
            course: Vec::new(),
        }
    }

    fn at(&mut self, after: i64, happening: Happening) {
        self.pushed += 1;
        self.queue.push(Reverse((self.now + after, self.pushed)));
        self.happenings.insert(self.pushed, happening);
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn is_over(&self) -> bool {
        self.state.runs.values().all(|run| !run.row.state.is_live())
    }

    fn happen(&mut self, keys: &[u64]) -> Result<(), String> {
        let mut events = Vec::new();
        for key in keys {
            match self.happenings.remove(key).expect("what is queued is kept") {
                Happening::Tick => {
                    events.push(Event::Tick);
                    self.at(TICK_MICROS, Happening::Tick);
                }
                Happening::Beat(worker, session) => self.beat(worker, session, &mut events),
                Happening::Through(worker, grant) => self.through(worker, grant, &mut events),
                Happening::Dial(worker) => {
                    if self.workers[worker].link.is_none() {
                        self.dial(worker, &mut events);
                    }
                }
                Happening::Fall => {
                    let open = std::mem::take(&mut events);
                    self.round(open)?;
                    self.fall()?;
                }
            }
        }
        self.round(events)
    }

    fn dial(&mut self, worker: usize, events: &mut Vec<Event>) {
        let session = SessionId(Uuid::from_u128(self.rng.id()));
        self.links.insert(session, worker);
        let it = &mut self.workers[worker];
        it.link = Some(session);
        let held = it.held.values().map(held).collect();
        events.push(Event::Connect {
            session,
            worker: it.id,
            name: format!("w{worker}"),
            version: String::new(),
            slots: SLOTS,
            labels: Labels::default(),
            held,
        });
        let beat = self.rng.below(BEAT_MICROS as u64) as i64;
        self.at(beat, Happening::Beat(worker, session));
    }

    fn beat(&mut self, worker: usize, session: SessionId, events: &mut Vec<Event>) {
        if self.workers[worker].link != Some(session) {
            return;
        }
        self.at(BEAT_MICROS, Happening::Beat(worker, session));
        if self.rng.per_mille(2) {
            self.break_down(worker, session, events);
            return;
        }
        let held = self.workers[worker].held.values().map(held).collect();
        events.push(Event::Heard {
            session,
            held,
            resident_bytes: 0,
        });
    }

    /// A worker dies, seen or unseen, or loses its line for a moment.
    fn break_down(&mut self, worker: usize, session: SessionId, events: &mut Vec<Event>) {
        let it = &mut self.workers[worker];
        it.link = None;
        self.links.remove(&session);
        let back = match self.rng.below(3) {
            0 => {
                self.count("a worker dies");
                self.workers[worker].held.clear();
                events.push(Event::Lost { session });
                1_000_000
            }
            1 => {
                self.count("a worker dies in silence");
                self.workers[worker].held.clear();
                // It comes back as another worker: nobody voids the old session before its time.
                self.workers[worker].id = Uuid::from_u128(self.rng.id());
                1_000_000
            }
            _ => {
                self.count("a line breaks and is mended");
                300_000
            }
        };
        self.at(back, Happening::Dial(worker));
    }

    fn through(&mut self, worker: usize, grant: Grant, events: &mut Vec<Event>) {
        let it = &self.workers[worker];
        let mine = it.held.get(&grant.task).is_some_and(|held| held.fence == grant.fence);
        let Some(session) = it.link.filter(|_| mine) else {
            if mine {
                // It offers again once it has a line.
                self.at(200_000, Happening::Through(worker, grant));
            }
            return;
        };
        let (task, fence) = (grant.task, grant.fence);
        let result = match task.stage {
            Stage::Execute => {
                if self.rng.per_mille(5) {
                    self.count("a task fails");
                    self.workers[worker].held.remove(&task);
                    let error = TaskError::new(ErrorClass::WorkerLost, "a planned failure".to_string());
                    events.push(Event::Failed {
                        session,
                        task,
                        fence,
                        error,
                    });
                    return;
                }
                let commit = commit(&grant);
                let event = Event::Commit {
                    session,
                    task,
                    fence,
                    commit,
                };
                if self.rng.per_mille(10) {
                    self.count("a commit arrives twice");
                    events.push(event.clone());
                }
                if self.rng.per_mille(10) {
                    self.count("a commit is lost and offered again");
                    self.at(1_000_000, Happening::Through(worker, grant));
                    return;
                }
                events.push(event);
                return;
            }
            Stage::Survey => StageResult::Facts(facts(self.partitions_of(task.run))),
            Stage::Prepare => StageResult::Prepared("{}".into()),
            Stage::Publish => StageResult::Published(publication()),
            other => panic!("nothing of this job has the stage {other}"),
        };
        self.workers[worker].held.remove(&task);
        events.push(Event::Finished {
            session,
            task,
            fence,
            result,
        });
    }

    fn partitions_of(&self, run: RunId) -> u64 {
        self.books[self.runs[&run]].len() as u64
    }

    /// One round of the control loop.
    fn round(&mut self, events: Vec<Event>) -> Result<(), String> {
        let (mut effects, mut changes) = (Vec::new(), Vec::new());
        for event in events {
            if event == Event::Tick {
                let now = Timestamp(self.now);
                let begun = Instant::now();
                self.state.note(&Event::Tick, now);
                self.follow.extend(due(&self.state, now));
                self.tenth.took += begun.elapsed();
            } else {
                self.decide(event, &mut effects, &mut changes)?;
            }
        }
        loop {
            while let Some(event) = self.follow.pop_front() {
                self.decide(event, &mut effects, &mut changes)?;
            }
            let before = changes.len();
            self.decide(Event::Assign, &mut effects, &mut changes)?;
            if self.follow.is_empty() && changes.len() == before {
                break;
            }
        }
        for change in changes {
            self.keep(change)?;
        }
        effects.into_iter().for_each(|effect| self.effect(effect));
        Ok(())
    }

    fn decide(&mut self, event: Event, effects: &mut Vec<Effect>, changes: &mut Vec<Change>) -> Result<(), String> {
        let now = Timestamp(self.now);
        let begun = Instant::now();
        self.state.note(&event, now);
        let decision = decide(&self.state, now, event.clone());
        if let Ok(decision) = &decision {
            for change in &decision.rows {
                self.state.apply(change.clone(), now);
            }
        }
        self.tenth.took += begun.elapsed();
        self.tenth.events += 1;
        let Decision { rows, effects: out, .. } = match decision {
            Ok(decision) => decision,
            // The worker drops it with its next heartbeat; here at once.
            Err(_) => {
                if let Event::Commit {
                    session, task, fence, ..
                } = &event
                    && let Some(&worker) = self.links.get(session)
                {
                    let held = &mut self.workers[worker].held;
                    if held.get(task).is_some_and(|held| held.fence == *fence) {
                        held.remove(task);
                    }
                    self.count("a late commit is refused");
                }
                return Ok(());
            }
        };
        if rows.len() > MAX_ROWS {
            return Err(format!("a decision has {} rows: {event:?}", rows.len()));
        }
        if let Event::Commit {
            session,
            task,
            fence,
            commit,
        } = &event
            && !rows.is_empty()
        {
            let page = self.books[self.runs[&task.run]][task.partition as usize];
            // The book is kept with the round's end: what this round did to the partition comes first.
            let lately = changes.iter().any(|change| concerns(change, task));
            if !lately && page.leased != Some((*session, *fence)) {
                return Err(format!(
                    "I3: {task}: a commit of {fence} is accepted that holds no lease"
                ));
            }
            if !lately && page.seq != commit.seq {
                return Err(format!("I4: {task}: commit {} follows {}", commit.seq, page.seq));
            }
        }
        changes.extend(rows);
        for effect in out {
            match effect {
                Effect::Continue(next) => self.follow.push_back(Event::Continue(next)),
                Effect::Note { .. } => {}
                effect => effects.push(effect),
            }
        }
        Ok(())
    }

    /// Stores a change, and judges it.
    fn keep(&mut self, change: Change) -> Result<(), String> {
        if let Change::Create(Row::Lease(_, lease)) = &change {
            let id = (lease.fence.id.term.0 << 48) | lease.fence.id.serial;
            if id <= self.serial {
                return Err(format!("I2: the attempt id {} is used again", lease.fence.id));
            }
            self.serial = id;
        }
        let page = match &change {
            Change::Put(Row::Lease(key, _))
            | Change::Create(Row::Lease(key, _))
            | Change::Put(Row::Progress(key, _)) => Some(*key),
            Change::Delete(RowKey::Lease(key)) => Some(*key),
            _ => None,
        };
        if let Some(key) = page.filter(|key| key.stage == Stage::Execute) {
            let page = &mut self.books[self.runs[&key.run]][key.partition as usize];
            let done = page.done;
            enter(page, &change).map_err(|what| format!("{key}: {what}"))?;
            self.committed += u64::from(page.done && !done);
        }
        match change {
            Change::Create(row) => {
                if self.store.insert(row.key(), row).is_some() {
                    return Err("a row is created that is there".into());
                }
            }
            Change::Put(row) => {
                self.store.insert(row.key(), row);
            }
            Change::Delete(key) => {
                self.store.remove(&key);
            }
        }
        Ok(())
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Grant { session, grant } => {
                let Some(&worker) = self.links.get(&session) else {
                    return;
                };
                if self.rng.per_mille(10) {
                    self.count("a grant is lost");
                    return;
                }
                let before = self.workers[worker].held.insert(grant.task, grant);
                if before.is_some_and(|before| before.fence == grant.fence) {
                    return;
                }
                let takes = self.rng.between(500_000, 8_000_000) as i64;
                self.at(takes, Happening::Through(worker, grant));
            }
            Effect::Committed {
                session, task, fence, ..
            }
            | Effect::Refused {
                session, task, fence, ..
            }
            | Effect::StopAttempt {
                session, task, fence, ..
            } => {
                let Some(&worker) = self.links.get(&session) else {
                    return;
                };
                let held = &mut self.workers[worker].held;
                if held.get(&task).is_some_and(|held| held.fence == fence) {
                    held.remove(&task);
                }
            }
            Effect::Close { session } => {
                if let Some(worker) = self.links.remove(&session)
                    && self.workers[worker].link == Some(session)
                {
                    self.workers[worker].link = None;
                    self.at(100_000, Happening::Dial(worker));
                }
            }
            Effect::Continue(_) | Effect::Note { .. } => {}
        }
    }

    /// The leader dies; the next one rises from the rows, and everybody dials again.
    fn fall(&mut self) -> Result<(), String> {
        self.count("a leader falls");
        let now = Timestamp(self.now);
        let term = Term(self.state.term.0 + 1);
        let rows: Vec<Row> = self.store.values().cloned().collect();
        let recovered = State::recover(term, LEASE_MILLIS, 600_000, rows, now);
        watch::same(&self.state, &recovered)?;
        invariants::check(&recovered)?;
        self.state = recovered;
        self.follow.clear();
        self.links.clear();
        for worker in 0..self.workers.len() {
            if self.workers[worker].link.take().is_some() {
                let after = self.rng.between(50_000, 2_000_000) as i64;
                self.at(after, Happening::Dial(worker));
            }
        }
        Ok(())
    }

    /// Every partition is done once, and every run is complete.
    fn settle_up(&self) -> Result<(), String> {
        invariants::check(&self.state)?;
        let recovered = State::recover(
            self.state.term,
            LEASE_MILLIS,
            600_000,
            self.store.values().cloned().collect(),
            Timestamp(self.now),
        );
        watch::same(&self.state, &recovered)?;
        for (id, run) in &self.state.runs {
            if run.row.state != RunState::Completed {
                return Err(format!("I9: run {id} ended as {:?}", run.row.state));
            }
        }
        let open = self
            .books
            .iter()
            .flatten()
            .filter(|page| !page.done || page.seq != 1)
            .count();
        match open {
            0 => Ok(()),
            _ => Err(format!("I1: {open} partitions are not done exactly once")),
        }
    }
}

fn concerns(change: &Change, task: &TaskKey) -> bool {
    matches!(change.key(), RowKey::Lease(key) | RowKey::Progress(key) if key == *task)
}

/// Enters a change into the book of its partition.
fn enter(page: &mut Page, change: &Change) -> Result<(), String> {
    match change {
        Change::Create(Row::Lease(_, lease)) => {
            if page.leased.is_some() {
                return Err("I2: it is leased twice".into());
            }
            if page.done {
                return Err("I2: it is leased though it is done".into());
            }
            if lease.fence.number <= page.number {
                return Err(format!("I2: attempt {} follows {}", lease.fence.number, page.number));
            }
            page.number = lease.fence.number;
            page.leased = Some((lease.session, lease.fence));
        }
        Change::Put(Row::Lease(_, lease)) => match page.leased {
            Some((_, fence)) if fence == lease.fence => page.leased = Some((lease.session, fence)),
            other => return Err(format!("I2: a lease moves that is not there: {other:?}")),
        },
        Change::Put(Row::Progress(_, row)) => {
            if row.seq < page.seq || (page.done && !row.done) {
                return Err("I4: a commit is lost".into());
            }
            if page.done && row.seq != page.seq {
                return Err("I4: it is committed after its end".into());
            }
            page.seq = row.seq;
            page.done = row.done;
        }
        Change::Delete(RowKey::Lease(_)) => page.leased = None,
        _ => {}
    }
    Ok(())
}

fn held(grant: &Grant) -> Held {
    Held {
        task: grant.task,
        fence: grant.fence,
        position: grant.position,
        rows: 0,
    }
}

fn commit(grant: &Grant) -> Commit {
    Commit {
        seq: grant.seq,
        previous: grant.position,
        next: grant.units.high,
        counters: Counters {
            read: 1,
            written: 1,
            ..Counters::default()
        },
        records: RecordHash(1),
        digest: 1,
        last: true,
    }
}

fn job(number: u64, partitions: u64) -> Arc<JobRow> {
    let step = Step {
        name: "count".into(),
        after: vec![],
        source: Source::Sequence {
            from: 0,
            to: partitions as i64,
        },
        lookups: BTreeMap::new(),
        partition: Partitioning {
            method: Partition::Auto,
            count: Count::Fixed(partitions as u32),
        },
        checks: vec![],
        sql: None,
        command: None,
        sort: Vec::new(),
        placement: Labels::default(),
        sink: Sink::Discard,
        on_error: OnError {
            attempts: 3,
            attempts_written: true,
            reject_limit: None,
            reject_share: None,
            partition_failed: PartitionFailed::Stop,
        },
        if_unchanged: Default::default(),
    };
    Arc::new(JobRow {
        redrive: String::new(),
        text: String::new(),
        file_name: "job.yaml".into(),
        parameters: BTreeMap::new(),
        base_dir: "/".into(),
        job: Job {
            name: format!("job{number}"),
            parameters: BTreeMap::new(),
            priority: Priority::default(),
            steps: vec![step],
            redrive: None,
        },
    })
}

fn facts(units: u64) -> Arc<Facts> {
    Arc::new(Facts {
        unit: Unit::Number,
        files: vec![],
        domain: UnitRange::new(0, units),
        columns: vec![],
        output: vec![],
        read_columns: None,
        inputs: Vec::new(),
        transform: TransformFacts {
            mode: TransformMode::RowWise { expands: false },
            reason: "a projection".into(),
        },
        rows: units,
        bytes: units * 8,
        sample: None,
        warnings: vec![],
        lookups: vec![],
        standing: None,
    })
}

fn publication() -> Publication {
    Publication {
        output: "out".into(),
        certificate: "certificate".into(),
        rows: 1,
        files: 1,
        bytes: 1,
        records: "1".into(),
        source_rows: 1,
    }
}

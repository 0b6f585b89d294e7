//! The simulated world: a clock, a network, workers, one leader at a time, and trouble. Everything
//! happens in one queue, in an order that follows from the seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use gapless_common::{
    error::ErrorClass,
    ids::{AttemptId, RunId, SessionId, Stage, StepNo, TaskKey},
    job::Priority,
};
use gapless_core::{
    Effect, Event,
    event::Submit,
    row::{Phase, RunState},
};
use uuid::Uuid;

use crate::{
    attempt,
    jobs::{self, Spec},
    leader::{Input, Leader},
    output::Output,
    rng::Rng,
    store::{Batch, FakeStore},
    watch::Watch,
    worker::{Fate, Worker},
};

pub const LEASE_MILLIS: u64 = 600;
pub const STALL_MILLIS: u64 = 1500;
const BEAT_MICROS: u64 = 200_000;
const TICK_MICROS: u64 = 50_000;
/// What a simulation may take before it is said not to converge.
const MAX_HAPPENINGS: u64 = 60_000;

pub enum Happening {
    Rise,
    LeaderRun,
    Tick,
    /// A transaction arrives that its sender waits for no more.
    Stray(Batch),
    Hello {
        worker: usize,
        event: Event,
    },
    Welcome {
        session: SessionId,
        worker: usize,
    },
    ToLeader(Vec<Event>),
    ToWorker {
        worker: usize,
        session: SessionId,
        term: u64,
        commands: Vec<Effect>,
    },
    /// The worker sees its link end.
    LinkGone {
        worker: usize,
        session: SessionId,
    },
    /// The leader sees a link end, and waits no more for the worker to come back.
    LinkLost(SessionId),
    LinkOver(SessionId),
    Dial(usize),
    Beat {
        worker: usize,
        session: SessionId,
    },
    Advance {
        worker: usize,
        attempt: AttemptId,
    },
    Restart(usize),
    Trouble,
    Client,
}

pub struct World {
    pub now: i64,
    pub rng: Rng,
    pub faults: bool,
    pub store: FakeStore,
    pub output: Output,
    pub leader: Option<Leader>,
    pub workers: Vec<Worker>,
    pub watch: Watch,
    /// Transactions of fallen leaders that may arrive at any time.
    pub lurking: Vec<Batch>,
    specs: Vec<Spec>,
    /// Which job each run is of.
    runs: BTreeMap<RunId, usize>,
    queue: BTreeMap<(i64, u64), Happening>,
    pushed: u64,
    /// Tasks that bring their worker down, now and then.
    killers: BTreeSet<(usize, StepNo, Stage, u32)>,
    /// A chunk takes about so long, in microseconds.
    pace: u64,
    /// How likely the network, workers and tasks misbehave, in a thousand.
    rough: u64,
    trace: Option<Vec<String>>,
    /// What happened how often: a fault that never fires tests nothing.
    pub counts: BTreeMap<&'static str, u64>,
}

/// Runs the simulation of a seed. With `trace` the whole course is kept.
pub fn simulate(seed: u64, trace: bool) -> (Result<(), String>, World) {
    let mut world = World::new(seed, trace);
    let result = world.live();
    (result, world)
}

impl World {
    fn new(seed: u64, trace: bool) -> World {
        let mut rng = Rng::new(seed);
        let jobs = rng.between(1, 2) as usize;
        // Each job has a second version of its text.
        let specs: Vec<Spec> = (0..jobs * 2).map(|at| jobs::spec(&mut rng, at / 2, at % 2)).collect();
        let pace = *rng.pick(&[300, 3_000, 15_000, 60_000]);
        let rough = *rng.pick(&[0, 10, 40, 120]);
        let killers = (0..rng.below(3))
            .map(|_| {
                let stage = *rng.pick(&[Stage::Survey, Stage::Execute, Stage::Publish, Stage::Abort]);
                let job = rng.below(jobs as u64 * 2) as usize;
                (job, rng.below(3) as StepNo, stage, rng.below(3) as u32)
            })
            .collect();
        let mut world = World {
            now: 1_000_000,
            rng,
            faults: true,
            store: FakeStore::default(),
            output: Output::default(),
            leader: None,
            workers: Vec::new(),
            watch: Watch::default(),
            lurking: Vec::new(),
            specs,
            runs: BTreeMap::new(),
            queue: BTreeMap::new(),
            pushed: 0,
            killers,
            pace,
            rough,
            trace: trace.then(Vec::new),
            counts: BTreeMap::new(),
        };
        for at in 0..world.rng.between(1, 4) as usize {
            let (id, slots, obedient) = (world.rng.id(), world.rng.between(1, 3), world.rng.per_mille(500));
            // The first one can take every task, so that all of them end.
            let labels = if at == 0 { "zone=a" } else { "" };
            let mut worker = Worker::new(Uuid::from_u128(id), format!("w{at}"), slots as u32, obedient);
            worker.labels = labels.parse().expect("labels");
            world.workers.push(worker);
            // Some join when the work has begun.
            let comes = *world.rng.pick(&[5_000, 300_000, 800_000, 1_500_000]);
            world.after(if at == 0 { 5_000 } else { comes }, Happening::Dial(at));
        }
        world.after(0, Happening::Rise);
        world.after(0, Happening::Tick);
        world.after(10_000, Happening::Trouble);
        for _ in 0..world.rng.between(jobs as u64, 10) {
            let at = world.rng.between(8_000, 3_000_000);
            world.after(at, Happening::Client);
        }
        for job in 0..jobs {
            world.after(6_000 + job as u64, Happening::Client);
        }
        world
    }

    pub fn spec(&self, run: RunId) -> &Spec {
        &self.specs[self.runs[&run]]
    }

    pub fn after(&mut self, micros: u64, happening: Happening) {
        self.pushed += 1;
        self.queue.insert((self.now + micros as i64, self.pushed), happening);
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn log(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9} {}", now / 1000, line()));
        }
    }

    pub fn trace(&self) -> &[String] {
        self.trace.as_deref().unwrap_or_default()
    }

    pub fn trace_end(&self) -> String {
        self.trace().last().cloned().unwrap_or_default()
    }

    pub fn latency(&mut self) -> u64 {
        self.rng.between(100, 1500)
    }

    fn trouble(&mut self, per_mille: u64) -> bool {
        self.faults && self.rng.per_mille(per_mille)
    }

    /// Trouble for a while, then calm; then every run must end, and what was left must succeed.
    fn live(&mut self) -> Result<(), String> {
        let calm = self.now + self.rng.between(1_500_000, 5_000_000) as i64;
        self.go(|world| world.now >= calm)?;
        self.calm();
        self.go(|world| world.is_settled())?;
        self.judge_end()?;
        for job in 0..self.specs.len() / 2 {
            self.resubmit(job);
        }
        // The submits have to be taken first.
        let taken = self.now + 200_000;
        self.go(|world| world.now >= taken && world.is_settled())?;
        self.judge_end()?;
        for job in 0..self.specs.len() / 2 {
            self.judge_job(job)?;
        }
        Ok(())
    }

    fn go(&mut self, until: impl Fn(&World) -> bool) -> Result<(), String> {
        let limit = self.pushed + MAX_HAPPENINGS;
        let latest = self.now + 120_000_000;
        while !until(self) {
            let Some(((at, _), happening)) = self.queue.pop_first() else {
                return Err("nothing happens any more".into());
            };
            self.now = at;
            self.happen(happening)?;
            if self.pushed > limit || self.now > latest {
                return Err(format!("I9: it does not converge: {}", self.summary()));
            }
        }
        Ok(())
    }

    /// From here on nothing goes wrong that has not begun to.
    fn calm(&mut self) {
        self.log(|| "calm".into());
        self.faults = false;
        for at in 0..self.workers.len() {
            self.workers[at].paused_until = 0;
            if self.workers[at].draining {
                self.kill_worker(at);
            }
        }
    }

    fn is_settled(&self) -> bool {
        let strays = self.queue.values().any(|it| matches!(it, Happening::Stray(_)));
        let live = |state: &gapless_core::State| state.runs.values().any(|run| run.row.state.is_live());
        let asked = self.leader.as_ref().is_some_and(|leader| !leader.inbox.is_empty());
        !strays && !asked && self.state().is_some_and(|state| !live(state))
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        let Some(state) = self.state() else {
            return "there is no leader".into();
        };
        for (id, run) in &state.runs {
            let _ = write!(text, "\n  run {id} {:?} with {} leases:", run.row.state, run.leases);
            for step in &run.steps {
                let stages = step.stages().filter(|(_, stage)| stage.done < stage.total());
                let stages: Vec<String> = stages
                    .map(|(stage, it)| {
                        format!("{stage} ready {:?} leased {} failed {}", it.ready, it.leased, it.failed)
                    })
                    .collect();
                let _ = write!(text, "\n    {:?} {}", step.row.phase, stages.join("; "));
            }
        }
        text
    }

    /// Every run has ended, and its output is what its state says.
    fn judge_end(&mut self) -> Result<(), String> {
        self.compare()?;
        let runs: Vec<(RunId, RunState, usize)> = self
            .state()
            .map(|state| {
                state
                    .runs
                    .iter()
                    .map(|(id, run)| (*id, run.row.state, run.steps.len()))
                    .collect()
            })
            .unwrap_or_default();
        for (run, state, steps) in runs {
            for step in 0..steps as StepNo {
                let phase = self.phase(run, step);
                let visible = self.output.visible.contains_key(&(run, step));
                let published = phase == Phase::Published;
                if published && !visible {
                    return Err(format!("I7: run {run} step {step} is published and not visible"));
                }
                if state == RunState::Completed && !published {
                    return Err(format!("run {run} is completed, its step {step} is {phase:?}"));
                }
                let ended = matches!(phase, Phase::Published | Phase::Aborted);
                if state == RunState::Cancelled && (!ended || (!published && visible)) {
                    return Err(format!("I11: run {run} is cancelled, its step {step} is {phase:?}"));
                }
                if phase == Phase::Aborted && self.output.is_committed(run, step) {
                    return Err(format!("I7: run {run} step {step} is aborted against its verdict"));
                }
            }
        }
        Ok(())
    }

    /// The job's latest run has succeeded, unless it cannot.
    fn judge_job(&mut self, job: usize) -> Result<(), String> {
        let Some(state) = self.state() else {
            return Err("there is no leader".into());
        };
        let identity = &self.specs[job * 2].identity;
        let completed = state
            .runs
            .iter()
            .filter(|(id, run)| run.row.state == RunState::Completed && self.runs[id] / 2 == job);
        let texts: Vec<usize> = completed.map(|(id, _)| self.runs[id]).collect();
        if texts.len() > 1
            && texts
                .iter()
                .any(|text| texts.iter().filter(|other| *other == text).count() > 1)
        {
            return Err(format!("{identity} has {} completed runs", texts.len()));
        }
        let latest = state
            .identities
            .get(identity)
            .and_then(|id| Some((*id, state.run(*id)?)));
        let Some((id, run)) = latest else {
            return Err(format!("{identity} has no run"));
        };
        let must_fail = self.spec(id).cannot_succeed();
        match run.row.state {
            RunState::Completed if !must_fail => Ok(()),
            RunState::Failed if must_fail => Ok(()),
            other => Err(format!("{identity} ends {other:?}: {:?}", run.row.error)),
        }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Rise if self.leader.is_none() => self.rise()?,
            Happening::Rise => {}
            Happening::LeaderRun => self.leader_run()?,
            Happening::Tick => {
                self.input(Input::Tick);
                self.after(TICK_MICROS, Happening::Tick);
            }
            Happening::Stray(batch) => {
                // Refused, or the successor would not know; the next comparison shows it.
                if self.store.write(&batch).is_ok() {
                    let ours = self.leader.is_none() && batch.term == self.store.term;
                    self.log(|| format!("batch {} of term {} arrives late", batch.seq, batch.term));
                    if !ours {
                        return Err("a batch that is not in its turn was written".into());
                    }
                    self.watch.stored(&batch.changes)?;
                }
            }
            Happening::Hello { worker, event } => self.input(Input::Hello { worker, event }),
            Happening::ToLeader(events) => events.into_iter().for_each(|event| self.input(Input::Tell(event))),
            Happening::LinkLost(session) => {
                if let Some(leader) = &mut self.leader {
                    leader.links.remove(&session);
                }
                self.input(Input::Tell(Event::Away { session }));
                let wait = self.rng.between(0, 60_000);
                self.after(wait, Happening::LinkOver(session));
            }
            Happening::LinkOver(session) => self.input(Input::Tell(Event::Lost { session })),
            Happening::Trouble => self.make_trouble(),
            Happening::Client => self.client(),
            Happening::Restart(at) => self.restart(at),
            Happening::Welcome { worker, .. }
            | Happening::ToWorker { worker, .. }
            | Happening::LinkGone { worker, .. }
            | Happening::Dial(worker)
            | Happening::Beat { worker, .. }
            | Happening::Advance { worker, .. } => {
                let thaw = self.workers[worker].paused_until;
                if thaw > self.now {
                    // A frozen process sees everything when it thaws, in order.
                    self.after((thaw - self.now) as u64, happening);
                } else if self.workers[worker].alive {
                    self.at_worker(worker, happening)?;
                    self.tend(worker);
                }
            }
        }
        Ok(())
    }

    fn at_worker(&mut self, at: usize, happening: Happening) -> Result<(), String> {
        let now = self.now;
        match happening {
            Happening::Welcome { session, .. } => {
                let open = self
                    .leader
                    .as_ref()
                    .is_some_and(|leader| leader.links.contains_key(&session));
                if !open || self.workers[at].link.is_some() {
                    self.after(20_000, Happening::Dial(at));
                    return Ok(());
                }
                self.workers[at].resume(session, now);
                self.after(BEAT_MICROS, Happening::Beat { worker: at, session });
            }
            Happening::ToWorker {
                session,
                term,
                commands,
                ..
            } => {
                let worker = &mut self.workers[at];
                if worker.link == Some(session) && term >= worker.term {
                    worker.term = term;
                    worker.hear(commands, now);
                }
            }
            Happening::LinkGone { session, .. } if self.workers[at].link == Some(session) => self.hang_up(at),
            Happening::Dial(_) if self.workers[at].link.is_none() => self.dial(at),
            Happening::Beat { session, .. } if self.workers[at].link == Some(session) => {
                self.workers[at].heartbeat(now);
                self.after(BEAT_MICROS, Happening::Beat { worker: at, session });
            }
            Happening::Advance { attempt, .. } => {
                let goes_on = attempt::advance(self, at, attempt)?;
                goes_on.then(|| self.after_work(at, attempt));
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends what the worker has to say, and lets its slots begin what they took.
    fn tend(&mut self, at: usize) {
        let begun = std::mem::take(&mut self.workers[at].begun);
        for attempt in begun {
            let Some((key, _)) = self.workers[at].attempt(attempt) else {
                continue;
            };
            let fate = self.fate(key);
            if let Some((_, entry)) = self.workers[at].attempt(attempt) {
                entry.fate = fate;
            }
            self.after_work(at, attempt);
        }
        for attempt in std::mem::take(&mut self.workers[at].answered) {
            self.after_work(at, attempt);
        }
        let Some(session) = self.workers[at].link else { return };
        let mut events = self.workers[at].take_out(session);
        self.confuse(&mut events);
        if !events.is_empty() {
            self.send(|delay, world| world.after(delay, Happening::ToLeader(events.clone())));
        }
    }

    /// A worker that has lost count: it holds the lease, so only the order of commits stops it.
    fn confuse(&mut self, events: &mut Vec<Event>) {
        let Some(Event::Commit { commit, .. }) = events.last() else {
            return;
        };
        if commit.next == commit.previous || !self.trouble(self.rough) {
            return;
        }
        self.count("commit out of order");
        let mut wrong = events.last().cloned();
        if let Some(Event::Commit { commit, .. }) = &mut wrong {
            // The same range under the next number, or a number that is far ahead.
            commit.seq += *self.rng.pick(&[1, 1000]);
            commit.digest ^= 1;
        }
        events.extend(wrong);
    }

    /// The network: late, lost, doubled.
    fn send(&mut self, send: impl Fn(u64, &mut World)) {
        if self.trouble(self.rough) {
            self.count("lost message");
            return;
        }
        let mut delay = self.latency();
        if self.trouble(self.rough) {
            self.count("late message");
            delay += self.rng.between(1_000, 1_500_000);
        }
        send(delay, self);
        if self.trouble(self.rough) {
            self.count("doubled message");
            let again = delay + self.rng.between(0, 800_000);
            send(again, self);
        }
    }

    pub fn tell_worker(&mut self, session: SessionId, commands: Vec<Effect>) {
        let Some(leader) = &self.leader else { return };
        let Some(&worker) = leader.links.get(&session) else {
            return;
        };
        let term = leader.term;
        self.send(|delay, world| {
            world.after(
                delay,
                Happening::ToWorker {
                    worker,
                    session,
                    term,
                    commands: commands.clone(),
                },
            )
        });
    }

    fn after_work(&mut self, worker: usize, attempt: AttemptId) {
        let takes = self.rng.between(self.pace / 2, self.pace * 2);
        self.after(takes, Happening::Advance { worker, attempt });
    }

    fn fate(&mut self, key: TaskKey) -> Fate {
        let job = self.runs[&key.run];
        if self.killers.contains(&(job, key.step, key.stage, key.partition)) && self.trouble(700) {
            self.count("a task kills its worker");
            return Fate::KillsItsWorker;
        }
        if !self.trouble(self.rough) {
            return Fate::Fine;
        }
        self.count("a task fails");
        let chunks = matches!(key.stage, Stage::Scatter | Stage::Execute | Stage::Merge);
        match self.rng.below(4) {
            0 if chunks => Fate::Hangs,
            _ => Fate::Fails(*self.rng.pick(&ErrorClass::ALL)),
        }
    }

    fn dial(&mut self, at: usize) {
        if self.leader.is_none() {
            self.after(50_000, Happening::Dial(at));
            return;
        }
        let session = SessionId(Uuid::from_u128(self.rng.id()));
        let worker = &self.workers[at];
        let event = Event::Connect {
            session,
            worker: worker.id,
            name: worker.name.clone(),
            version: String::new(),
            slots: worker.slots,
            labels: worker.labels.clone(),
            held: worker.hello(),
        };
        self.after(500, Happening::Hello { worker: at, event });
        // Nobody may answer.
        self.after(300_000, Happening::Dial(at));
    }

    fn hang_up(&mut self, at: usize) {
        self.workers[at].link = None;
        self.workers[at].out.clear();
        let pause = self.rng.between(1_000, 100_000);
        self.after(pause, Happening::Dial(at));
    }

    pub fn kill_worker(&mut self, at: usize) {
        let Some(session) = self.dead(at) else { return };
        let delay = self.rng.between(500, 3_000);
        if !self.trouble(300) {
            self.after(delay, Happening::LinkLost(session));
        }
    }

    /// The process is gone; another is started in its place. Answers its session.
    fn dead(&mut self, at: usize) -> Option<SessionId> {
        self.log(|| format!("worker w{at} dies"));
        let worker = &mut self.workers[at];
        worker.alive = false;
        let pause = self.rng.between(20_000, 900_000);
        self.after(pause, Happening::Restart(at));
        self.workers[at].link.take()
    }

    fn restart(&mut self, at: usize) {
        if self.workers[at].alive {
            return;
        }
        let id = Uuid::from_u128(self.rng.id());
        let (name, slots, obedient, labels) = {
            let worker = &self.workers[at];
            (
                worker.name.clone(),
                worker.slots,
                worker.obedient,
                worker.labels.clone(),
            )
        };
        self.workers[at] = Worker::new(id, name, slots, obedient);
        self.workers[at].labels = labels;
        self.after(1_000, Happening::Dial(at));
    }

    fn make_trouble(&mut self) {
        if !self.faults {
            return;
        }
        let next = self.rng.between(20_000, 600_000);
        self.after(next, Happening::Trouble);
        if self.rng.per_mille(40) {
            self.count("an input changes while its run goes");
            let spec = self.rng.below(self.specs.len() as u64) as usize;
            self.change_input(spec);
        }
        let at = self.rng.below(self.workers.len() as u64) as usize;
        if !self.workers[at].alive || self.rough == 0 {
            return;
        }
        match self.rng.below(10) {
            0..=1 => {
                self.count("worker crash");
                self.kill_worker(at);
            }
            2..=4 => {
                self.count("worker pause");
                let pause = self.rng.between(50_000, 3 * LEASE_MILLIS * 1000);
                self.log(|| format!("worker w{at} freezes for {} ms", pause / 1000));
                self.workers[at].paused_until = self.now + pause as i64;
            }
            5..=7 => {
                let Some(session) = self.workers[at].link else { return };
                self.count("broken link");
                self.log(|| format!("the link of w{at} breaks"));
                if self.rng.per_mille(500) {
                    let delay = self.rng.between(100, 900_000);
                    self.after(delay, Happening::LinkLost(session));
                }
                self.hang_up(at);
            }
            8 => {
                self.count("drain");
                self.log(|| format!("worker w{at} drains"));
                let now = self.now;
                self.workers[at].drain(now);
                self.tend(at);
            }
            _ => {
                self.count("leader crash");
                self.fell("in between");
            }
        }
    }

    /// Somebody submits, stops or cancels.
    fn client(&mut self) {
        if !self.faults {
            return;
        }
        let jobs = self.specs.len() as u64 / 2;
        let job = self.rng.below(jobs) as usize;
        let Some(state) = self.state() else {
            self.after(30_000, Happening::Client);
            return;
        };
        let run = state.identities.get(&self.specs[job * 2].identity).copied();
        let ended = run.and_then(|run| Some(state.run(run)?.row.state));
        if let Some(run) = run
            && matches!(ended, Some(RunState::Failed | RunState::Stopped))
            && self.rng.per_mille(400)
        {
            self.count("an input changed between failure and resume");
            let spec = self.runs[&run];
            self.change_input(spec);
            self.submit(spec);
            return;
        }
        match (run, self.rng.below(10)) {
            (Some(run), 0..=2) => {
                self.count("cancel");
                self.input(Input::Tell(Event::Cancel { run }));
            }
            (Some(run), 3..=5) => {
                self.count("stop");
                self.input(Input::Tell(Event::Stop { run }));
                let again = self.rng.between(1_000, 1_000_000);
                self.after(again, Happening::Client);
            }
            (Some(_), 6) => {
                self.count("submit with another text");
                self.submit(job * 2 + 1);
            }
            _ => self.submit(job * 2),
        }
    }

    /// Somebody writes one of a job's sources anew.
    fn change_input(&mut self, spec: usize) {
        let steps = &mut self.specs[spec].steps;
        let step = self.rng.below(steps.len() as u64) as usize;
        steps[step].change(&mut self.rng);
        let now = steps[step].now();
        self.log(|| format!("the source of job {spec} step {step} changes: version {now}"));
    }

    fn submit(&mut self, spec: usize) {
        // Version 7 ids rise with time; so do these.
        let run = RunId(Uuid::from_u128(
            (u128::from(self.pushed) << 64) | u128::from(self.rng.next()),
        ));
        self.runs.insert(run, spec);
        let priority = Some(Priority(*self.rng.pick(&[50, 50, 80])));
        let spec = &self.specs[spec];
        let event = Event::Submit(Submit {
            run,
            identity: spec.identity.clone(),
            text_digest: spec.digest.clone(),
            priority,
            job: spec.job.clone(),
        });
        self.input(Input::Tell(event));
    }

    /// Takes the job up again as it was submitted last.
    fn resubmit(&mut self, job: usize) {
        let spec = self.state().and_then(|state| {
            let run = state.identities.get(&self.specs[job * 2].identity)?;
            self.runs.get(run).copied()
        });
        self.submit(spec.unwrap_or(job * 2));
    }
}

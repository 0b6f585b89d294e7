//! A fake shell around the production core: the control loop's order of things, without threads.
//! Events are noted, decided and applied; what follows is decided; then the batch is written; only
//! then anything leaves.

use std::collections::{BTreeMap, VecDeque};

use gapless_common::{
    attempt::Commit,
    ids::{AttemptId, ClusterId, RunId, SessionId, StepNo, TaskKey, Term},
    plan::Partition,
};
use gapless_core::{
    Change, Decision, Effect, Event, Refusal, Row, State, Timestamp, decide, decide::due, event::Continuation,
    invariants, limits::MAX_ROWS, row::ClusterRow,
};
use uuid::Uuid;

use crate::{
    store::{Batch, Refused},
    watch,
    world::{Happening, LEASE_MILLIS, STALL_MILLIS, World},
};

pub enum Input {
    Tell(Event),
    Hello { worker: usize, event: Event },
    Tick,
}

pub struct Leader {
    pub state: State,
    pub term: u64,
    seq: u64,
    pub inbox: VecDeque<Input>,
    follow: VecDeque<Event>,
    pub links: BTreeMap<SessionId, usize>,
    scheduled: bool,
}

#[derive(Default)]
struct Outgoing {
    changes: Vec<Change>,
    effects: Vec<Effect>,
    commits: Vec<(TaskKey, AttemptId, Commit)>,
    welcomed: Vec<(SessionId, usize)>,
}

impl World {
    /// A coordinator wins the next term and reads everything.
    pub fn rise(&mut self) -> Result<(), String> {
        let term = self.store.begin_term();
        let now = Timestamp(self.now);
        let state = State::recover(Term(term), LEASE_MILLIS, STALL_MILLIS, self.store.rows(), now);
        invariants::check(&state)?;
        self.log(|| format!("leader of term {term} recovers {} runs", state.runs.len()));
        let mut leader = Leader {
            state,
            term,
            seq: 0,
            inbox: VecDeque::new(),
            follow: VecDeque::new(),
            links: BTreeMap::new(),
            scheduled: false,
        };
        if leader.state.cluster.is_none() {
            let row = ClusterRow::new(ClusterId(Uuid::nil()));
            let mut out = Outgoing::default();
            let create = Change::Create(Row::Cluster(row));
            leader.state.apply(create.clone(), now);
            out.changes.push(create);
            self.leader = Some(leader);
            self.write(out)?;
        } else {
            self.leader = Some(leader);
        }
        self.input(Input::Tick);
        Ok(())
    }

    pub fn state(&self) -> Option<&State> {
        self.leader.as_ref().map(|leader| &leader.state)
    }

    /// Queues something for the loop.
    pub fn input(&mut self, input: Input) {
        let delay = self.rng.between(50, 1500);
        let Some(leader) = &mut self.leader else { return };
        leader.inbox.push_back(input);
        if !leader.scheduled {
            leader.scheduled = true;
            self.after(delay, Happening::LeaderRun);
        }
    }

    /// One round of the loop: a batch.
    pub fn leader_run(&mut self) -> Result<(), String> {
        let limit = self.rng.between(1, 12);
        // A loop that writes in between loses what was to follow when it crashes there.
        let whole = !self.faults || self.rng.per_mille(800);
        let Some(mut leader) = self.leader.take() else {
            return Ok(());
        };
        leader.scheduled = false;
        let mut out = Outgoing::default();
        for _ in 0..limit {
            let Some(input) = leader.inbox.pop_front() else { break };
            self.take(&mut leader, input, &mut out)?;
        }
        loop {
            while let Some(event) = leader.follow.pop_front() {
                // What follows is never refused in a way that anybody waits for.
                let _ = self.decide(&mut leader, event, &mut out)?;
                if !whole {
                    break;
                }
            }
            let before = out.changes.len();
            let _ = self.decide(&mut leader, Event::Assign, &mut out)?;
            if !whole || (leader.follow.is_empty() && out.changes.len() == before) {
                break;
            }
        }
        if !leader.inbox.is_empty() || !leader.follow.is_empty() {
            leader.scheduled = true;
            self.after(100, Happening::LeaderRun);
        }
        self.leader = Some(leader);
        self.write(out)
    }

    fn take(&mut self, leader: &mut Leader, input: Input, out: &mut Outgoing) -> Result<(), String> {
        match input {
            Input::Tick => {
                let now = Timestamp(self.now);
                leader.state.note(&Event::Tick, now);
                leader.follow.extend(due(&leader.state, now));
            }
            Input::Hello { worker, event } => {
                let Event::Connect { session, .. } = &event else {
                    return Ok(());
                };
                leader.links.insert(*session, worker);
                out.welcomed.push((*session, worker));
                let _ = self.decide(leader, event, out)?;
            }
            Input::Tell(event) => {
                let commit = match &event {
                    Event::Commit {
                        session,
                        task,
                        fence,
                        commit,
                    } => Some((*session, *task, *fence, commit.seq)),
                    _ => None,
                };
                let Err(refusal) = self.decide(leader, event, out)? else {
                    return Ok(());
                };
                if let Some((session, task, fence, seq)) = commit {
                    out.effects.push(Effect::Refused {
                        session,
                        task,
                        fence,
                        seq,
                        refusal,
                    });
                } else if let Refusal::SessionOver { session } = refusal {
                    out.effects.push(Effect::Close { session });
                }
            }
        }
        Ok(())
    }

    /// Counts what was cut anew, and the partitions among it of which something is committed.
    fn count_recut(&mut self, state: &State, (run, step): (RunId, StepNo), rows: &[Change]) {
        for change in rows {
            let Change::Put(Row::Plan(_, _, stage, _, partitions)) = change else {
                continue;
            };
            self.count("a step is cut anew");
            let key = |partition: u32| TaskKey {
                run,
                step,
                stage: *stage,
                partition,
            };
            let begun = |partition: &Partition| {
                state
                    .task(&key(partition.number))
                    .is_some_and(|it| it.position() > it.units.low)
            };
            if partitions.iter().any(begun) {
                self.count("a partition with commits is narrowed");
            }
        }
    }

    /// Counts how steps come out of having their inputs looked at again.
    fn count_anew(&mut self, state: &State, change: &Change) {
        let Change::Put(Row::Step(run, number, row)) = change else {
            return;
        };
        let Some(before) = state.run(*run).and_then(|run| run.step(*number)) else {
            return;
        };
        if row.edition > before.row.edition {
            self.count("a step begins anew");
        } else if before.row.back_to.is_some() && before.row.back_to == Some(row.phase) {
            self.count("a step goes on with its inputs unchanged");
        }
    }

    fn decide(&mut self, leader: &mut Leader, event: Event, out: &mut Outgoing) -> Result<Result<(), Refusal>, String> {
        let now = Timestamp(self.now);
        leader.state.note(&event, now);
        let decision = decide(&leader.state, now, event.clone());
        self.watch.decided(&leader.state, &event, &decision)?;
        if !matches!(event, Event::Assign) || decision.as_ref().is_ok_and(|it| !it.rows.is_empty()) {
            self.log(|| brief(&event, &decision));
        }
        let Decision {
            rows,
            answer: _,
            effects,
        } = match decision {
            Ok(decision) => decision,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if rows.len() > MAX_ROWS {
            return Err(format!("a decision has {} rows: {event:?}", rows.len()));
        }
        if let Event::Commit {
            task, fence, commit, ..
        } = &event
            && !rows.is_empty()
        {
            out.commits.push((*task, fence.id, commit.clone()));
        }
        let before = out.changes.len();
        if let Event::Continue(Continuation::Recut { run, step }) = event {
            self.count_recut(&leader.state, (run, step), &rows);
        }
        for change in rows {
            self.count_anew(&leader.state, &change);
            leader.state.apply(change.clone(), now);
            out.changes.push(change);
        }
        if out.changes.len() > before {
            invariants::check(&leader.state).map_err(|what| format!("after {}: {what}", self.trace_end()))?;
        }
        for effect in effects {
            match effect {
                Effect::Continue(next) => leader.follow.push_back(Event::Continue(next)),
                Effect::Note { .. } => {}
                effect => out.effects.push(effect),
            }
        }
        Ok(Ok(()))
    }

    /// Makes a batch durable, or loses it with the leader, or never learns which.
    fn write(&mut self, out: Outgoing) -> Result<(), String> {
        let Some(leader) = &mut self.leader else { return Ok(()) };
        if out.changes.is_empty() {
            return self.deliver(out);
        }
        let batch = Batch {
            term: leader.term,
            seq: leader.seq + 1,
            changes: out.changes.clone(),
        };
        let fault = if self.faults { self.rng.below(1000) } else { 1000 };
        if fault < 3 {
            self.count("crash before the write");
            self.fell("before its write");
            return Ok(());
        }
        if fault < 8 {
            // It dies not knowing; the transaction arrives later, under its successor perhaps.
            self.count("a batch of a former term arrives");
            match self.rng.per_mille(500) {
                true => self.lurking.push(batch),
                false => {
                    let delay = self.rng.between(100, 2_000_000);
                    self.after(delay, Happening::Stray(batch));
                }
            }
            self.fell("with a batch under way");
            return Ok(());
        }
        // The worst moment: under the next term, just when its number is next.
        while let Some(at) = self.lurking.iter().position(|late| late.seq == batch.seq) {
            self.count("a batch of a former term comes in its turn");
            let late = self.lurking.swap_remove(at);
            if self.store.write(&late).is_ok() {
                return Err(format!(
                    "a batch of term {} was written in term {}",
                    late.term, batch.term
                ));
            }
        }
        let mut asked = false;
        if fault < 30 {
            // The first answer is lost: applied or not, the same batch is sent again.
            self.count("unknown outcome");
            asked = true;
            if self.rng.per_mille(500) {
                self.store
                    .write(&batch)
                    .map_err(|refused| format!("the batch is refused: {refused:?}"))?;
            }
        }
        match self.store.write(&batch) {
            Ok(()) => {}
            Err(Refused::Sequence { stored }) if stored == batch.seq && asked => {}
            Err(refused) => return Err(format!("the batch is refused: {refused:?}")),
        }
        if self.faults && self.rng.per_mille(20) {
            self.count("a batch arrives again");
            let delay = self.rng.between(100, 200_000);
            self.after(delay, Happening::Stray(batch.clone()));
        }
        self.watch.stored(&batch.changes)?;
        for (task, attempt, commit) in &out.commits {
            self.watch.recorded(*task, *attempt, commit.clone());
        }
        if let Some(leader) = &mut self.leader {
            leader.seq += 1;
        }
        self.compare()?;
        if (34..40).contains(&fault) {
            self.count("crash between write and effects");
            self.fell("after its write");
            return Ok(());
        }
        self.deliver(out)
    }

    /// I8, after every batch.
    pub fn compare(&mut self) -> Result<(), String> {
        let Some(leader) = &self.leader else { return Ok(()) };
        let now = Timestamp(self.now);
        let recovered = State::recover(Term(leader.term), LEASE_MILLIS, STALL_MILLIS, self.store.rows(), now);
        watch::same(&leader.state, &recovered)
    }

    fn deliver(&mut self, out: Outgoing) -> Result<(), String> {
        for (session, worker) in out.welcomed {
            let delay = self.latency();
            self.after(delay, Happening::Welcome { session, worker });
        }
        let mut messages: BTreeMap<SessionId, Vec<Effect>> = BTreeMap::new();
        let mut closed = Vec::new();
        for effect in out.effects {
            match &effect {
                Effect::Grant { session, .. }
                | Effect::Committed { session, .. }
                | Effect::Refused { session, .. }
                | Effect::StopAttempt { session, .. } => messages.entry(*session).or_default().push(effect),
                Effect::Close { session } => closed.push(*session),
                Effect::Continue(_) | Effect::Note { .. } => {}
            }
        }
        for (session, commands) in messages {
            self.tell_worker(session, commands);
        }
        for session in closed {
            let Some(leader) = &mut self.leader else { break };
            if let Some(worker) = leader.links.remove(&session) {
                let delay = self.latency();
                self.after(delay, Happening::LinkGone { worker, session });
            }
        }
        Ok(())
    }

    /// The leader is gone with all it had in memory; its links break.
    pub fn fell(&mut self, how: &str) {
        let Some(leader) = self.leader.take() else { return };
        self.log(|| format!("the leader of term {} falls {how}", leader.term));
        for (session, worker) in leader.links {
            let delay = self.latency();
            self.after(delay, Happening::LinkGone { worker, session });
        }
        let delay = self.rng.between(10_000, 400_000);
        self.after(delay, Happening::Rise);
    }
}

/// A decision in a line, for the trace.
fn brief(event: &Event, decision: &Result<Decision, Refusal>) -> String {
    let event = match event {
        Event::Submit(submit) => format!("submit {} {}", submit.identity, submit.text_digest),
        other => {
            let mut text = format!("{other:?}");
            text.truncate(400);
            text
        }
    };
    match decision {
        Ok(decision) => {
            let rows: Vec<String> = decision
                .rows
                .iter()
                .map(|change| match change {
                    Change::Put(row) => format!("put {} {}", row.key(), shown(row)),
                    Change::Create(row) => format!("create {} {}", row.key(), shown(row)),
                    Change::Delete(key) => format!("delete {key}"),
                })
                .collect();
            format!("{event}\n      -> {}", rows.join("\n         "))
        }
        Err(refusal) => format!("{event}\n      refused: {refusal}"),
    }
}

fn shown(row: &Row) -> String {
    match row {
        Row::Facts(..) | Row::Job(..) => String::new(),
        row => String::from_utf8_lossy(&row.encode()).into_owned(),
    }
}

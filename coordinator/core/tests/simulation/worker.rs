//! A fake worker: the book of what it holds, kept by the rules of the real one. What its slots do
//! stands in `attempt`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gapless_common::{
    attempt::{Commit, Fence},
    error::{ErrorClass, TaskError},
    ids::{AttemptId, SessionId, TaskKey},
    labels::Labels,
};
use gapless_core::{
    Effect, Event, Refusal,
    event::{Grant, Held, StageResult},
};
use uuid::Uuid;

use crate::world::LEASE_MILLIS;

#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Commit(Commit),
    Finished(StageResult),
    Failed(TaskError),
    Released,
    Heartbeat,
    Drain,
}

/// What chance has in store for an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    Fine,
    Fails(ErrorClass),
    Hangs,
    KillsItsWorker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    No,
    AtCheckpoint,
}

pub struct Entry {
    pub grant: Grant,
    pub begun: bool,
    pub position: u64,
    pub seq: u32,
    pub offer: Option<(Commit, i64)>,
    pub stop: Stop,
    pub fate: Fate,
    /// How far a publisher or an abort has come.
    pub stage: u8,
    /// The output as a publisher read it from the leader.
    pub list: Vec<u64>,
    /// What it knows of its step since it began.
    pub context: Option<Context>,
}

/// A step as an attempt learns of it, once.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    pub edition: u32,
    /// The content of the source that the step was planned for.
    pub version: usize,
    pub buckets: Option<u64>,
    pub merges: bool,
}

impl Entry {
    fn last_offered(&self) -> bool {
        self.offer.as_ref().is_some_and(|(commit, _)| commit.last)
    }
}

struct Report {
    held: Held,
    said: Said,
    at: i64,
}

pub struct Worker {
    pub id: Uuid,
    pub name: String,
    pub slots: u32,
    pub labels: Labels,
    pub alive: bool,
    pub paused_until: i64,
    pub link: Option<SessionId>,
    pub term: u64,
    pub heard: i64,
    /// Whether it begins and offers nothing while it is suspect. The protocol must hold without.
    pub obedient: bool,
    pub draining: bool,
    pub entries: BTreeMap<TaskKey, Entry>,
    queue: VecDeque<TaskKey>,
    /// Attempts that are over here. None is ever begun again: its file names are used.
    over: BTreeSet<AttemptId>,
    reports: Vec<Report>,
    pub out: Vec<(TaskKey, Fence, Said)>,
    /// Attempts that a slot has begun since they were last taken.
    pub begun: Vec<AttemptId>,
    /// Attempts that were answered since they were last taken.
    pub answered: Vec<AttemptId>,
}

impl Worker {
    pub fn new(id: Uuid, name: String, slots: u32, obedient: bool) -> Worker {
        Worker {
            id,
            name,
            slots,
            labels: Labels::default(),
            alive: true,
            paused_until: 0,
            link: None,
            term: 0,
            heard: 0,
            obedient,
            draining: false,
            entries: BTreeMap::new(),
            queue: VecDeque::new(),
            over: BTreeSet::new(),
            reports: Vec::new(),
            out: Vec::new(),
            begun: Vec::new(),
            answered: Vec::new(),
        }
    }

    pub fn suspect(&self, now: i64) -> bool {
        now - self.heard > LEASE_MILLIS as i64 * 1000
    }

    pub fn attempt(&mut self, id: AttemptId) -> Option<(TaskKey, &mut Entry)> {
        let found = self.entries.iter_mut().find(|(_, entry)| entry.grant.fence.id == id);
        found.map(|(key, entry)| (*key, entry))
    }

    /// Slots take what is queued.
    pub fn fill_slots(&mut self) {
        loop {
            let busy = self
                .entries
                .values()
                .filter(|entry| entry.begun && !entry.last_offered())
                .count();
            if busy >= self.slots as usize {
                return;
            }
            let Some(key) = self.queue.pop_front() else { return };
            if let Some(entry) = self.entries.get_mut(&key).filter(|entry| !entry.begun) {
                entry.begun = true;
                self.begun.push(entry.grant.fence.id);
            }
        }
    }

    fn held_now(&self) -> Vec<Held> {
        let held = |(key, entry): (&TaskKey, &Entry)| Held {
            task: *key,
            fence: entry.grant.fence,
            position: entry.position,
            rows: 0,
        };
        self.entries.iter().map(held).collect()
    }

    /// All that a hello tells: also what has ended, since its report may be lost.
    pub fn hello(&self) -> Vec<Held> {
        let mut held = self.held_now();
        held.extend(self.reports.iter().map(|report| report.held));
        held
    }

    /// A session is open: what was not answered is said again.
    pub fn resume(&mut self, session: SessionId, now: i64) {
        self.link = Some(session);
        self.heard = now;
        self.out.clear();
        for report in &self.reports {
            self.out
                .push((report.held.task, report.held.fence, report.said.clone()));
        }
        for (key, entry) in &mut self.entries {
            if let Some((commit, at)) = &mut entry.offer {
                *at = now;
                self.out.push((*key, entry.grant.fence, Said::Commit(commit.clone())));
            }
        }
        if self.draining {
            self.out.push((nobody(), no_fence(), Said::Drain));
        }
    }

    pub fn heartbeat(&mut self, now: i64) {
        let old = |at: i64| now - at > LEASE_MILLIS as i64 * 1000;
        self.reports.retain(|report| !old(report.at));
        for (key, entry) in &mut self.entries {
            if let Some((commit, at)) = &mut entry.offer
                && old(*at)
            {
                *at = now;
                self.out.push((*key, entry.grant.fence, Said::Commit(commit.clone())));
            }
        }
        self.out.push((nobody(), no_fence(), Said::Heartbeat));
    }

    pub fn drain(&mut self, now: i64) {
        self.draining = true;
        self.out.push((nobody(), no_fence(), Said::Drain));
        let waiting: Vec<TaskKey> = self.entries.iter().filter(|it| !it.1.begun).map(|it| *it.0).collect();
        for key in waiting {
            self.end(key, Said::Released, now);
        }
        for entry in self.entries.values_mut() {
            entry.stop = entry.stop.max(Stop::AtCheckpoint);
        }
    }

    /// The attempt is over here; its report is kept for a while in case it gets lost.
    pub fn end(&mut self, key: TaskKey, said: Said, now: i64) {
        let Some(entry) = self.entries.remove(&key) else {
            return;
        };
        let fence = entry.grant.fence;
        self.queue.retain(|queued| *queued != key);
        self.over.insert(fence.id);
        self.out.push((key, fence, said.clone()));
        let held = Held {
            task: key,
            fence,
            position: entry.position,
            rows: 0,
        };
        self.reports.push(Report { held, said, at: now });
        self.fill_slots();
    }

    pub fn offer(&mut self, key: TaskKey, commit: Commit, now: i64) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.offer = Some((commit.clone(), now));
        let fence = entry.grant.fence;
        self.out.push((key, fence, Said::Commit(commit)));
        self.fill_slots();
    }

    /// A message of the leader.
    pub fn hear(&mut self, commands: Vec<Effect>, now: i64) {
        self.heard = now;
        for command in commands {
            match command {
                Effect::Grant { grant, .. } => self.granted(grant),
                Effect::Committed { task, fence, seq, .. } => self.reply(task, fence, seq, None, now),
                Effect::Refused {
                    task,
                    fence,
                    seq,
                    refusal,
                    ..
                } => self.reply(task, fence, seq, Some(refusal), now),
                Effect::StopAttempt {
                    task,
                    fence,
                    at_checkpoint,
                    ..
                } => self.stop(task, fence, at_checkpoint, now),
                Effect::Close { .. } | Effect::Continue(_) | Effect::Note { .. } => {}
            }
        }
        self.fill_slots();
    }

    fn granted(&mut self, grant: Grant) {
        if let Some(entry) = self.entries.get(&grant.task) {
            if entry.grant.fence.number >= grant.fence.number {
                return;
            }
            self.over.insert(entry.grant.fence.id);
            self.entries.remove(&grant.task);
            self.queue.retain(|queued| *queued != grant.task);
        }
        if let Some(report) = self
            .reports
            .iter()
            .find(|report| report.held.fence.id == grant.fence.id)
        {
            self.out.push((grant.task, grant.fence, report.said.clone()));
            return;
        }
        if self.draining || self.over.contains(&grant.fence.id) {
            self.out.push((grant.task, grant.fence, Said::Released));
            return;
        }
        self.entries.insert(
            grant.task,
            Entry {
                grant,
                begun: false,
                position: grant.position,
                seq: grant.seq,
                offer: None,
                stop: Stop::No,
                fate: Fate::Fine,
                stage: 0,
                list: Vec::new(),
                context: None,
            },
        );
        self.queue.push_back(grant.task);
    }

    fn reply(&mut self, task: TaskKey, fence: Fence, seq: u32, refusal: Option<Refusal>, now: i64) {
        if matches!(refusal, Some(Refusal::SessionOver { .. })) {
            return;
        }
        let Some(entry) = self
            .entries
            .get_mut(&task)
            .filter(|entry| entry.grant.fence.id == fence.id)
        else {
            return;
        };
        let Some((commit, _)) = entry.offer.take_if(|(commit, _)| commit.seq == seq) else {
            return;
        };
        match refusal {
            _ if commit.last => {
                self.entries.remove(&task);
                self.over.insert(fence.id);
            }
            None => {
                entry.position = commit.next;
                entry.seq = commit.seq + 1;
                self.answered.push(fence.id);
            }
            Some(refusal) => {
                let error = TaskError::new(ErrorClass::Fenced, refusal.to_string());
                self.end(task, Said::Failed(error), now);
            }
        }
    }

    fn stop(&mut self, task: TaskKey, fence: Fence, at_checkpoint: bool, now: i64) {
        let Some(entry) = self
            .entries
            .get_mut(&task)
            .filter(|entry| entry.grant.fence.id == fence.id)
        else {
            return;
        };
        if !entry.begun {
            self.end(task, Said::Released, now);
        } else if at_checkpoint {
            entry.stop = entry.stop.max(Stop::AtCheckpoint);
        } else if entry.last_offered() {
            self.entries.remove(&task);
            self.over.insert(fence.id);
        } else {
            let error = TaskError::new(ErrorClass::Cancelled, "stopped");
            self.end(task, Said::Failed(error), now);
        }
    }

    /// What is to be sent in this session.
    pub fn take_out(&mut self, session: SessionId) -> Vec<Event> {
        let said = std::mem::take(&mut self.out);
        said.into_iter()
            .map(|(task, fence, said)| match said {
                Said::Commit(commit) => Event::Commit {
                    session,
                    task,
                    fence,
                    commit,
                },
                Said::Finished(result) => Event::Finished {
                    session,
                    task,
                    fence,
                    result,
                },
                Said::Failed(error) => Event::Failed {
                    session,
                    task,
                    fence,
                    error,
                },
                Said::Released => Event::Released { session, task, fence },
                Said::Drain => Event::Drain { session },
                Said::Heartbeat => Event::Heard {
                    session,
                    held: self.held_now(),
                    resident_bytes: 0,
                },
            })
            .collect()
    }
}

/// Stands where a word is about no task.
fn nobody() -> TaskKey {
    TaskKey {
        run: gapless_common::ids::RunId(Uuid::nil()),
        step: 0,
        stage: gapless_common::ids::Stage::Survey,
        partition: 0,
    }
}

fn no_fence() -> Fence {
    Fence {
        number: 0,
        id: AttemptId {
            term: gapless_common::ids::Term(0),
            serial: 0,
        },
    }
}

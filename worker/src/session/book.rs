//! The book: every attempt this worker holds, and what the leader has still to be told of it.
//!
//! No IO and no waiting: commands of the leader and words of the slots go in, events for the leader
//! come out in [`Book::out`]. One task owns it. All that is held is repeated in every hello and
//! heartbeat, and what is unanswered is offered again after a reconnect, so no single message
//! is needed for progress.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use gapless_common::{
    attempt::{Commit, Fence},
    error::TaskError,
    ids::{AttemptId, RunId, TaskKey},
};
use gapless_proto::v1::{self, worker_event::Event};
use prost::bytes::Bytes;

use super::{
    held::Held,
    limits::{MAX_OVER, MAX_QUEUED, MAX_REPORTS, OFFER_AGAIN_FRACTION},
    queue::Queue,
    wire::{self, WireError},
};

/// What a slot says of its attempt.
#[derive(Debug)]
pub struct Said {
    pub held: Arc<Held>,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    Commit(Commit),
    Finished(Vec<u8>),
    Failed(TaskError),
    Released,
    /// Something for the run's history; the attempt goes on.
    Said(String),
}

#[derive(Debug)]
struct Entry {
    held: Arc<Held>,
    /// A commit whose answer is unknown.
    offer: Option<Offer>,
}

#[derive(Debug)]
struct Offer {
    request: v1::CommitRequest,
    offered: Duration,
}

/// An ended attempt as it was reported.
#[derive(Debug)]
struct Report {
    held: Arc<Held>,
    event: Event,
    reported: Duration,
}

/// Attempts that are over for the leader too, the oldest forgotten first.
#[derive(Debug, Default)]
struct Over {
    order: VecDeque<AttemptId>,
    ids: std::collections::HashSet<AttemptId>,
}

impl Over {
    fn insert(&mut self, id: AttemptId) {
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > MAX_OVER
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

#[derive(Debug)]
pub struct Book {
    entries: HashMap<TaskKey, Entry>,
    over: Over,
    reports: VecDeque<Report>,
    queue: Arc<Queue>,
    /// Granted by the present message, not queued yet.
    fresh: Vec<Arc<Held>>,
    /// The last run seen and its id as bytes, which its tasks share.
    run: (RunId, Bytes),
    /// The worker's name, for the log.
    worker: String,
    draining: bool,
    /// What is to be sent next, in order.
    pub out: Vec<v1::WorkerEvent>,
}

impl Book {
    pub fn new(queue: Arc<Queue>, worker: String) -> Self {
        Self {
            entries: HashMap::new(),
            over: Over::default(),
            reports: VecDeque::new(),
            queue,
            fresh: Vec::new(),
            run: (RunId(uuid::Uuid::nil()), wire::bytes(uuid::Uuid::nil())),
            worker,
            draining: false,
            out: Vec::new(),
        }
    }

    /// Whether nothing is held and nothing is left to be sent.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.out.is_empty()
    }

    pub fn is_draining(&self) -> bool {
        self.draining
    }

    pub fn held(&self) -> usize {
        self.entries.len()
    }

    fn tell(&mut self, event: Event) {
        self.out.push(v1::WorkerEvent { event: Some(event) });
    }

    /// A lease. One that is held or was worked off already is not begun again; one with a higher
    /// fence takes the place of the attempt it fences.
    pub fn grant(&mut self, grant: &v1::Grant) -> Result<(), WireError> {
        let task = wire::task(grant.task.as_ref())?;
        let fence = wire::fence(grant.fence.as_ref())?;
        let units = wire::units(grant.low, grant.high)?;
        if let Some(entry) = self.entries.get(&task) {
            if entry.held.fence.number >= fence.number {
                return Ok(());
            }
            self.supersede(task, fence);
        }
        if self.over.ids.contains(&fence.id) {
            return Ok(());
        }
        if let Some(report) = self.reports.iter().find(|report| report.held.fence.id == fence.id) {
            // The report got lost: the leader still thinks that the attempt runs.
            let event = report.event.clone();
            self.tell(event);
            return Ok(());
        }
        let run = self.run_bytes(task.run);
        let held = Held::new(task, fence, units, grant.position, grant.seq, run).of_edition(grant.edition);
        let held = Arc::new(held);
        if self.draining || self.queue.len() + self.fresh.len() >= MAX_QUEUED {
            let released = released(&held);
            self.tell(released);
            return Ok(());
        }
        self.entries.insert(
            task,
            Entry {
                held: held.clone(),
                offer: None,
            },
        );
        self.fresh.push(held);
        Ok(())
    }

    /// Queues what the present message granted, at one stroke.
    pub fn begin_granted(&mut self) {
        self.queue.push(self.fresh.drain(..));
    }

    fn run_bytes(&mut self, run: RunId) -> Bytes {
        if self.run.0 != run {
            self.run = (run, wire::bytes(run.0));
        }
        self.run.1.clone()
    }

    fn supersede(&mut self, task: TaskKey, by: Fence) {
        if let Some(old) = self.entries.remove(&task) {
            self.unqueue(&old.held);
            self.over.insert(old.held.fence.id);
            let why = old
                .held
                .fenced(&format!("{by} of the same task was granted to this worker"));
            old.held.stop_now(why);
        }
    }

    fn unqueue(&mut self, held: &Held) -> bool {
        let fresh = self.fresh.len();
        self.fresh.retain(|other| other.fence.id != held.fence.id);
        fresh != self.fresh.len() || self.queue.remove(held)
    }

    /// The answer to a commit. Answers to nothing that is asked are late repetitions.
    pub fn reply(&mut self, reply: &v1::CommitReply) -> Result<(), WireError> {
        let task = wire::task(reply.task.as_ref())?;
        let fence = wire::fence(reply.fence.as_ref())?;
        // "The session is over" says nothing of the commit: it is asked again in the next session.
        if !reply.accepted && reply.reason.starts_with("session") {
            return Ok(());
        }
        let Some(entry) = self
            .entries
            .get_mut(&task)
            .filter(|entry| entry.held.fence.id == fence.id)
        else {
            return Ok(());
        };
        let Some(offer) = entry.offer.take_if(|offer| offer.request.seq == reply.seq) else {
            return Ok(());
        };
        if !offer.request.last {
            let answer = if reply.accepted {
                Ok(())
            } else {
                Err(entry.held.refused(&reply.reason))
            };
            entry.held.answer(answer);
            return Ok(());
        }
        if !reply.accepted {
            let _entered = entry.held.span(&self.worker).entered();
            tracing::warn!(seq = reply.seq, reason = reply.reason, "the last commit was refused");
        }
        self.entries.remove(&task);
        self.over.insert(fence.id);
        Ok(())
    }

    /// The leader wants an attempt to end.
    pub fn stop(&mut self, stop: &v1::StopAttempt, now: Duration) -> Result<(), WireError> {
        let task = wire::task(stop.task.as_ref())?;
        let fence = wire::fence(stop.fence.as_ref())?;
        let Some(entry) = self.entries.get(&task).filter(|entry| entry.held.fence.id == fence.id) else {
            return Ok(());
        };
        let held = entry.held.clone();
        if self.unqueue(&held) {
            self.end(&held, released(&held), now);
        } else if stop.at_checkpoint {
            held.ask_to_stop(true);
        } else {
            let _entered = held.span(&self.worker).entered();
            tracing::info!(reason = stop.reason, "the leader stops an attempt");
            if held.last_offered() {
                // Its slot is done with it, and its commit will not be answered otherwise.
                self.entries.remove(&task);
                self.over.insert(fence.id);
            }
            held.stop_now(held.refused(&stop.reason));
        }
        Ok(())
    }

    /// A slot's word. That of a superseded attempt counts no more.
    pub fn said(&mut self, said: Said, now: Duration) {
        let Said { held, what } = said;
        let entry = self
            .entries
            .get_mut(&held.task)
            .filter(|entry| entry.held.fence.id == held.fence.id);
        let Some(entry) = entry else {
            if matches!(what, What::Commit(_)) {
                held.answer(Err(held.fenced("this worker does not hold it any more")));
            }
            return;
        };
        match what {
            What::Commit(commit) => {
                let request = wire::commit_to_wire(held.wire_task(), held.wire_fence(), &commit);
                entry.offer = Some(Offer {
                    request: request.clone(),
                    offered: now,
                });
                self.tell(Event::Commit(request));
            }
            What::Finished(result) => {
                let finished = v1::Finished {
                    task: Some(held.wire_task()),
                    fence: Some(held.wire_fence()),
                    result: result.into(),
                };
                self.end(&held, Event::Finished(finished), now);
            }
            What::Failed(error) => {
                let failed = v1::Failed {
                    task: Some(held.wire_task()),
                    fence: Some(held.wire_fence()),
                    class: error.class.name().to_string(),
                    message: error.message,
                };
                self.end(&held, Event::Failed(failed), now);
            }
            What::Released => self.end(&held, released(&held), now),
            What::Said(text) => self.tell(Event::Said(v1::Said {
                task: Some(held.wire_task()),
                fence: Some(held.wire_fence()),
                text,
            })),
        }
    }

    /// The attempt is over here; its report is kept for a while in case it gets lost.
    fn end(&mut self, held: &Arc<Held>, event: Event, now: Duration) {
        self.entries.remove(&held.task);
        self.tell(event.clone());
        self.reports.push_back(Report {
            held: held.clone(),
            event,
            reported: now,
        });
        if self.reports.len() > MAX_REPORTS {
            self.reports.pop_front();
        }
    }

    /// All that the worker holds, for a heartbeat.
    fn everything(&self) -> Vec<v1::HeldAttempt> {
        self.entries.values().map(|entry| entry.held.to_wire()).collect()
    }

    /// A heartbeat. Commits that wait too long for an answer are offered again. Reports that are a
    /// lease time old have arrived, else the leader would have granted their tasks again.
    pub fn heartbeat(&mut self, now: Duration, lease: Duration, resident_bytes: u64) {
        let older = |then: Duration, age: Duration| now.saturating_sub(then) > age;
        self.reports.retain(|report| !older(report.reported, lease));
        self.offer(now, |offer| older(offer.offered, lease / OFFER_AGAIN_FRACTION));
        let held = self.everything();
        self.tell(Event::Heartbeat(v1::Heartbeat { held, resident_bytes }));
    }

    /// Offers commits that are unanswered again.
    fn offer(&mut self, now: Duration, again: impl Fn(&Offer) -> bool) {
        let offers = self.entries.values_mut().filter_map(|entry| entry.offer.as_mut());
        for offer in offers.filter(|offer| again(offer)) {
            offer.offered = now;
            let event = Some(Event::Commit(offer.request.clone()));
            self.out.push(v1::WorkerEvent { event });
        }
    }

    /// What a new session begins with: all that is held, ended attempts whose report may be lost included.
    pub fn hello_held(&self) -> Vec<v1::HeldAttempt> {
        let mut held = self.everything();
        held.extend(self.reports.iter().map(|report| report.held.to_wire()));
        held
    }

    /// A new session is open: what went into the old one and was not answered is said again.
    pub fn resume(&mut self, now: Duration) {
        self.out.clear();
        let reports: Vec<Event> = self.reports.iter().map(|report| report.event.clone()).collect();
        reports.into_iter().for_each(|event| self.tell(event));
        self.offer(now, |_| true);
        if self.draining {
            self.tell(Event::Drain(v1::Drain {}));
        }
    }

    /// The worker leaves: nothing new is begun, the rest stops at its next checkpoint.
    pub fn drain(&mut self, now: Duration) {
        self.draining = true;
        self.tell(Event::Drain(v1::Drain {}));
        let queued: Vec<Arc<Held>> = self.fresh.drain(..).chain(self.queue.clear()).collect();
        for held in queued {
            self.end(&held, released(&held), now);
        }
        self.entries.values().for_each(|entry| entry.held.ask_to_stop(true));
    }

    /// There is no more time for a checkpoint: what is still open is given back at its last commit. Answers
    /// how many attempts that were.
    pub fn give_back(&mut self, now: Duration) -> usize {
        let open: Vec<Arc<Held>> = self.entries.values().map(|entry| entry.held.clone()).collect();
        for held in &open {
            held.stop_now(held.cancelled("the worker leaves"));
            self.end(held, released(held), now);
        }
        open.len()
    }

    /// The worker ends: every slot that waits is answered.
    pub fn abandon(&mut self) {
        self.queue.clear();
        for (_, entry) in self.entries.drain() {
            entry.held.stop_now(entry.held.cancelled("the worker ends"));
        }
    }
}

fn released(held: &Held) -> Event {
    Event::Released(v1::Released {
        task: Some(held.wire_task()),
        fence: Some(held.wire_fence()),
    })
}

//! The runner: one thread for each slot, which takes granted attempts and works them off, one by one.
//!
//! It stands between the session and the stages' own code ([`Work`]): a panic or an error of a task
//! ends here as a typed report, never as the end of the worker.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
};

use gapless_common::{
    attempt::Commit,
    error::{ErrorClass, TaskError},
    ids::Stage,
};
use gapless_platform::shutdown::panic_message;
use tokio::sync::mpsc;

use crate::{
    attempt::{Assignment, CommittedPartition, Leader, Outcome, Stop},
    engine::STACK,
    metrics::{Ended, Metrics},
    session::{
        book::{Said, What},
        calls::Calls,
        context::Contexts,
        held::Held,
        queue::Queue,
    },
};

/// What a worker does with an attempt: the seam to the code of the stages.
pub trait Work: Send + Sync {
    /// Works off one attempt on the calling thread, which belongs to one slot.
    ///
    /// An outcome of [`Outcome::Committed`] means that `leader` was offered the last commit.
    fn run(&self, assignment: Assignment, leader: &dyn Leader, slot: &mut SlotState) -> Result<Outcome, TaskError>;
}

/// What a slot keeps from task to task: its limits, and whatever is costly to make anew (a
/// session of the engine, buffers, a compiled transform). Lost when a task panics.
#[derive(Debug)]
pub struct SlotState {
    /// From 0.
    pub slot: u32,
    /// Memory for the data of one task, in bytes.
    pub memory_bytes: u64,
    kept: HashMap<TypeId, Box<dyn Any>>,
}

impl SlotState {
    pub fn new(slot: u32, memory_bytes: u64) -> Self {
        Self {
            slot,
            memory_bytes,
            kept: HashMap::new(),
        }
    }

    /// The slot's one value of this type, made when it is first asked for.
    pub fn keep<T: Any>(&mut self, make: impl FnOnce() -> T) -> &mut T {
        let kept = self.kept.entry(TypeId::of::<T>()).or_insert_with(|| Box::new(make()));
        kept.downcast_mut().expect("stored under its own type")
    }
}

/// What all slots of a worker share.
pub(crate) struct Shared {
    pub queue: Arc<Queue>,
    pub said: mpsc::Sender<Said>,
    pub calls: Calls,
    pub contexts: Contexts,
    pub work: Arc<dyn Work>,
    pub worker: String,
    pub memory_bytes: u64,
    pub metrics: Metrics,
}

/// Starts the thread of one slot. It ends when the queue is closed; `alive` is dropped with it.
pub(crate) fn start_slot(shared: Arc<Shared>, slot: u32, alive: mpsc::Sender<()>) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(format!("gapless-slot-{slot}"))
        .stack_size(STACK)
        .spawn(move || {
            let _alive = alive;
            let mut state = SlotState::new(slot, shared.memory_bytes);
            while let Some(held) = shared.queue.take() {
                work_off(&shared, &held, &mut state);
            }
        })
}

fn work_off(shared: &Shared, held: &Arc<Held>, state: &mut SlotState) {
    let span = held.span(&shared.worker);
    let _entered = span.enter();
    let line = Line {
        shared,
        held,
        span: &span,
    };
    let begun = shared.metrics.begun();
    let outcome = match catch_unwind(AssertUnwindSafe(|| attempt(shared, held, &line, state))) {
        Ok(outcome) => outcome,
        Err(panic) => {
            // Whatever it kept may be half changed.
            *state = SlotState::new(state.slot, state.memory_bytes);
            let message = format!(
                "worker panic in {} on {}: {}",
                held.task,
                shared.worker,
                panic_message(&*panic)
            );
            Err(TaskError::new(ErrorClass::Transient, message))
        }
    };
    let (how, error) = match &outcome {
        // What comes after the last commit was offered changes nothing.
        _ if held.last_offered() => (Ended::Done, None),
        Ok(Outcome::Committed | Outcome::Finished(_)) => (Ended::Done, None),
        Ok(Outcome::Released) => (Ended::Released, None),
        Err(error) => (Ended::Failed, Some(error)),
    };
    shared.metrics.ended(held.task.stage, begun, how, error);
    let what = match outcome {
        _ if held.last_offered() => {
            if let Err(error) = outcome {
                tracing::warn!(%error, "an error after the last commit was offered changes nothing");
            }
            tracing::debug!("the attempt ended with its last commit");
            return;
        }
        Ok(Outcome::Committed) => {
            let message = format!(
                "{}: the attempt ended without a last commit (a bug of Gapless)",
                held.task
            );
            What::Failed(TaskError::new(ErrorClass::Transient, message))
        }
        Ok(Outcome::Finished(result)) => What::Finished(result),
        Ok(Outcome::Released) => What::Released,
        Err(error) => What::Failed(error),
    };
    match &what {
        What::Failed(error) => tracing::warn!(class = %error.class, %error, "the attempt failed"),
        _ => tracing::debug!("the attempt ended"),
    }
    // The session is gone only when the worker ends, and then nobody waits for this.
    line.say(what).ok();
}

fn attempt(shared: &Shared, held: &Held, line: &Line, state: &mut SlotState) -> Result<Outcome, TaskError> {
    match held.stop() {
        Stop::No => {}
        Stop::AtCheckpoint => return Ok(Outcome::Released),
        Stop::Now => return Err(held.cancelled("it was stopped before it began")),
    }
    let assignment = Assignment {
        task: held.task,
        fence: held.fence,
        units: held.units,
        position: held.position,
        seq: held.seq,
        context: shared.contexts.get(held, &shared.calls)?,
    };
    tracing::debug!(units = %held.units, position = held.position, "the attempt begins");
    shared.work.run(assignment, line, state)
}

/// An attempt's line to the leader.
struct Line<'a> {
    shared: &'a Shared,
    held: &'a Arc<Held>,
    /// Entered by whatever thread commits.
    span: &'a tracing::Span,
}

impl Line<'_> {
    fn say(&self, what: What) -> Result<(), TaskError> {
        let said = Said {
            held: self.held.clone(),
            what,
        };
        let sent = match self.shared.said.try_send(said) {
            Err(mpsc::error::TrySendError::Full(said)) => self.shared.calls.wait(self.shared.said.send(said)).is_ok(),
            other => other.is_ok(),
        };
        if sent {
            Ok(())
        } else {
            Err(self.held.cancelled("the worker ends"))
        }
    }
}

impl Leader for Line<'_> {
    fn commit(&self, commit: Commit) -> Result<(), TaskError> {
        let held = self.held;
        held.before_offer();
        if held.stop() == Stop::Now {
            return Err(held.cancelled("it was stopped"));
        }
        let (next, last) = (commit.next, commit.last);
        let _entered = self.span.enter();
        tracing::debug!(
            seq = commit.seq,
            next,
            last,
            rows = commit.counters.read,
            "a chunk is durable"
        );
        self.shared.metrics.chunk(held.task.stage, &commit.counters);
        if last {
            held.reached(next, 0);
            // Set first: a stop that comes now must know that no slot waits any more.
            held.set_last_offered();
            return self.say(What::Commit(commit));
        }
        self.say(What::Commit(commit))?;
        held.wait_for_answer()?;
        held.reached(next, 0);
        Ok(())
    }

    fn progress(&self, position: u64, rows_since_commit: u64) -> Stop {
        self.held.reached(position, rows_since_commit);
        self.held.stop()
    }

    fn tell(&self, text: String) {
        // The session is gone only when the worker ends.
        self.say(What::Said(text)).ok();
    }

    fn committed(&self, stage: Stage) -> Result<Vec<CommittedPartition>, TaskError> {
        self.shared.calls.list_committed(self.held, stage)
    }
}

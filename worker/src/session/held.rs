//! One attempt in this worker's hands: shared by the session, which speaks to the leader about it,
//! and the slot that works on it. They meet in atomics and in one answer, never in a lock held
//! while either works.

use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

use gapless_common::{
    attempt::Fence,
    error::{ErrorClass, TaskError},
    ids::TaskKey,
    range::UnitRange,
};
use gapless_proto::v1;
use prost::bytes::Bytes;
use tokio::sync::Notify;

use super::wire;
use crate::attempt::Stop;

/// What the leader said to a commit.
pub type Answer = Result<(), TaskError>;

#[derive(Debug)]
pub struct Held {
    pub task: TaskKey,
    pub fence: Fence,
    pub units: UnitRange,
    /// As granted: where the last commit ended, and the number of the next one.
    pub position: u64,
    pub seq: u32,
    /// The edition of the step.
    pub edition: u32,
    run: Bytes,
    reached: AtomicU64,
    rows: AtomicU64,
    stop: AtomicU8,
    last_offered: AtomicBool,
    answer: Mutex<Option<Answer>>,
    answered: Condvar,
    stopped: Notify,
}

const GO_ON: u8 = 0;
const AT_CHECKPOINT: u8 = 1;
const NOW: u8 = 2;

impl Held {
    /// `run` is the run id's bytes, shared by all tasks of the run.
    pub fn new(task: TaskKey, fence: Fence, units: UnitRange, position: u64, seq: u32, run: Bytes) -> Self {
        Self {
            edition: 0,
            task,
            fence,
            units,
            position,
            seq,
            run,
            reached: AtomicU64::new(position),
            rows: AtomicU64::new(0),
            stop: AtomicU8::new(GO_ON),
            last_offered: AtomicBool::new(false),
            answer: Mutex::new(None),
            answered: Condvar::new(),
            stopped: Notify::new(),
        }
    }

    /// Of the step as it was planned for the `edition`th time anew.
    pub fn of_edition(self, edition: u32) -> Self {
        Self { edition, ..self }
    }

    /// The span of everything that is logged of this attempt by this worker.
    pub fn span(&self, worker: &str) -> tracing::Span {
        tracing::info_span!(
            "task",
            run = %self.task.run,
            step = self.task.step,
            stage = self.task.stage.name(),
            partition = self.task.partition,
            attempt = %self.fence.id,
            worker,
        )
    }

    pub fn wire_task(&self) -> v1::TaskKey {
        wire::task_to_wire(self.task, self.run.clone())
    }

    pub fn wire_fence(&self) -> v1::Fence {
        wire::fence_to_wire(self.fence)
    }

    /// As it stands in hellos and heartbeats.
    pub fn to_wire(&self) -> v1::HeldAttempt {
        v1::HeldAttempt {
            task: Some(self.wire_task()),
            fence: Some(self.wire_fence()),
            position: self.reached.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
        }
    }

    /// Tells how far the attempt has read.
    pub fn reached(&self, position: u64, rows: u64) {
        self.reached.store(position, Ordering::Relaxed);
        self.rows.store(rows, Ordering::Relaxed);
    }

    pub fn stop(&self) -> Stop {
        match self.stop.load(Ordering::Acquire) {
            GO_ON => Stop::No,
            AT_CHECKPOINT => Stop::AtCheckpoint,
            _ => Stop::Now,
        }
    }

    /// Asks the slot to stop. A harder wish is not taken back by a softer one.
    pub fn ask_to_stop(&self, at_checkpoint: bool) {
        self.stop
            .fetch_max(if at_checkpoint { AT_CHECKPOINT } else { NOW }, Ordering::AcqRel);
        if !at_checkpoint {
            self.stopped.notify_waiters();
        }
    }

    /// Stops the attempt at once; a slot that waits for an answer gets `why`.
    pub fn stop_now(&self, why: TaskError) {
        self.ask_to_stop(false);
        self.answer(Err(why));
    }

    /// Resolves once the attempt is to stop at once.
    pub async fn stopped_now(&self) {
        let stopped = self.stopped.notified();
        tokio::pin!(stopped);
        // Registered before the flag is read, so that no stop falls between.
        stopped.as_mut().enable();
        if self.stop() != Stop::Now {
            stopped.await;
        }
    }

    /// Whether the last commit was handed to the session: what the slot says after it counts no more.
    pub fn last_offered(&self) -> bool {
        self.last_offered.load(Ordering::Acquire)
    }

    pub fn set_last_offered(&self) {
        self.last_offered.store(true, Ordering::Release);
    }

    /// Gives the slot the answer to its commit. Only the first of an offer counts.
    pub fn answer(&self, answer: Answer) {
        self.lock().get_or_insert(answer);
        self.answered.notify_all();
    }

    /// Forgets an answer that came before the question (a stop).
    pub fn before_offer(&self) {
        if self.stop() != Stop::Now {
            self.lock().take();
        }
    }

    /// Blocks the slot until the answer is there. The session gives one to every offer, at the
    /// latest when the worker ends.
    pub fn wait_for_answer(&self) -> Answer {
        let mut answer = self.lock();
        loop {
            match answer.take() {
                Some(answer) => return answer,
                None => answer = self.answered.wait(answer).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Answer>> {
        // The guarded value is whole at every moment, so a panic elsewhere does not spoil it.
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn fenced(&self, reason: &str) -> TaskError {
        TaskError::new(ErrorClass::Fenced, format!("{} of {}: {reason}", self.fence, self.task))
    }

    pub fn cancelled(&self, reason: &str) -> TaskError {
        TaskError::new(
            ErrorClass::Cancelled,
            format!("{} of {}: {reason}", self.fence, self.task),
        )
    }

    /// The error for a reason that the leader gave.
    pub fn refused(&self, reason: &str) -> TaskError {
        if reason.starts_with("cancelled") {
            self.cancelled(reason)
        } else {
            self.fenced(reason)
        }
    }
}

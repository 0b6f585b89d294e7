//! The line of granted attempts before the slots, and the rule that a suspect worker begins nothing.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gapless_platform::clock::Clock;

use super::held::Held;

/// When the leader was last heard, and how long it may be silent.
#[derive(Debug)]
pub struct Heard {
    clock: Clock,
    /// Microseconds of the monotonic clock.
    last: AtomicU64,
    lease: AtomicU64,
}

impl Heard {
    pub fn new(clock: Clock) -> Self {
        // Without a welcome there is nothing to be suspect about.
        Self {
            clock,
            last: AtomicU64::new(0),
            lease: AtomicU64::new(u64::MAX),
        }
    }

    pub fn set_lease(&self, lease: Duration) {
        self.lease.store(micros(lease), Ordering::Relaxed);
    }

    pub fn lease(&self) -> Duration {
        Duration::from_micros(self.lease.load(Ordering::Relaxed))
    }

    /// Time on the clock by which silence is measured.
    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The leader was heard just now. Answers whether the worker was suspect until then.
    pub fn hear(&self) -> bool {
        let was_suspect = self.is_suspect();
        self.last.store(micros(self.clock.monotonic()), Ordering::Relaxed);
        was_suspect
    }

    /// Whether a lease time has passed without a word of the leader: it may have given this worker's
    /// tasks to others. Told by the clock and not by a timer, so that a worker that was frozen
    /// knows it with its first instruction.
    pub fn is_suspect(&self) -> bool {
        let silent = micros(self.clock.monotonic()).saturating_sub(self.last.load(Ordering::Relaxed));
        silent > self.lease.load(Ordering::Relaxed)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// First in, first out, for all slots: a long task holds up nobody else.
#[derive(Debug)]
pub struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
    heard: Arc<Heard>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Arc<Held>>,
    closed: bool,
    /// Slots that have work before them and wait because the worker is suspect.
    held_back: usize,
}

impl Queue {
    pub fn new(heard: Arc<Heard>) -> Self {
        Self {
            inner: Mutex::default(),
            changed: Condvar::new(),
            heard,
        }
    }

    pub fn push(&self, attempts: impl IntoIterator<Item = Arc<Held>>) {
        let mut inner = self.lock();
        let before = inner.waiting.len();
        inner.waiting.extend(attempts);
        match inner.waiting.len() - before {
            0 => {}
            1 => self.changed.notify_one(),
            _ => self.changed.notify_all(),
        }
    }

    /// The next attempt to work on. Blocks; `None` once closed.
    pub fn take(&self) -> Option<Arc<Held>> {
        let mut inner = self.lock();
        loop {
            if inner.closed {
                return None;
            }
            let suspect = self.heard.is_suspect();
            if !suspect && let Some(held) = inner.waiting.pop_front() {
                return Some(held);
            }
            let held_back = usize::from(suspect && !inner.waiting.is_empty());
            inner.held_back += held_back;
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
            inner.held_back -= held_back;
        }
    }

    /// Takes an attempt out again. False: a slot has it, or had it.
    pub fn remove(&self, held: &Held) -> bool {
        let mut inner = self.lock();
        let at = inner.waiting.iter().position(|other| other.fence.id == held.fence.id);
        at.and_then(|at| inner.waiting.remove(at)).is_some()
    }

    /// Takes out all that no slot has begun.
    pub fn clear(&self) -> Vec<Arc<Held>> {
        self.lock().waiting.drain(..).collect()
    }

    pub fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Slots that are held back because the worker is suspect.
    #[cfg(test)]
    pub fn held_back(&self) -> usize {
        self.lock().held_back
    }

    /// Lets slots look again: the worker is no longer suspect.
    pub fn wake(&self) {
        // The lock orders this after a look that found the worker suspect.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Ends all slots once they are done with what they have.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc,
        thread,
        time::{Duration, Instant},
    };

    use gapless_common::{
        attempt::Fence,
        ids::{AttemptId, RunId, Stage, TaskKey, Term},
        range::UnitRange,
    };
    use prost::bytes::Bytes;
    use uuid::Uuid;

    use super::*;

    const LEASE: Duration = Duration::from_secs(1);
    const PATIENCE: Duration = Duration::from_secs(30);

    fn held(serial: u64) -> Arc<Held> {
        let task = TaskKey {
            run: RunId(Uuid::nil()),
            step: 0,
            stage: Stage::Execute,
            partition: serial as u32,
        };
        let fence = Fence {
            number: 1,
            id: AttemptId { term: Term(1), serial },
        };
        Arc::new(Held::new(task, fence, UnitRange::new(0, 1), 0, 0, Bytes::new()))
    }

    fn queue() -> (Clock, Arc<Heard>, Queue) {
        let clock = Clock::manual(1_000_000);
        let heard = Arc::new(Heard::new(clock.clone()));
        heard.set_lease(LEASE);
        heard.hear();
        (clock, heard.clone(), Queue::new(heard))
    }

    #[test]
    fn silence_longer_than_a_lease_makes_suspect_and_a_word_ends_it() {
        let (clock, heard, _) = queue();
        clock.advance(LEASE);
        assert!(!heard.is_suspect());
        clock.advance(Duration::from_micros(1));
        assert!(heard.is_suspect());
        assert!(heard.hear());
        assert!(!heard.is_suspect() && !heard.hear());
    }

    #[test]
    fn a_suspect_worker_holds_its_slots_back_until_it_hears_the_leader() {
        let (clock, heard, queue) = queue();
        queue.push([held(1)]);
        clock.advance(LEASE * 2);
        thread::scope(|scope| {
            let (sender, taken) = mpsc::channel();
            let queue = &queue;
            scope.spawn(move || sender.send(queue.take().map(|held| held.fence.id.serial)));
            let deadline = Instant::now() + PATIENCE;
            while queue.held_back() == 0 {
                assert!(
                    Instant::now() < deadline && taken.try_recv().is_err(),
                    "the slot did not wait"
                );
                thread::yield_now();
            }
            heard.hear();
            queue.wake();
            assert_eq!(taken.recv_timeout(PATIENCE), Ok(Some(1)));
        });
    }

    #[test]
    fn attempts_leave_in_order_or_are_taken_out() {
        let (_, _, queue) = queue();
        let (one, two, three) = (held(1), held(2), held(3));
        queue.push([one.clone(), two.clone(), three]);
        assert!(queue.remove(&two) && !queue.remove(&two));
        assert_eq!(queue.take().map(|held| held.fence.id.serial), Some(1));
        assert_eq!(queue.clear().len(), 1);
        queue.close();
        assert!(queue.take().is_none());
    }
}

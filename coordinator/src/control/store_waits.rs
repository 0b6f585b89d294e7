//! Tests of the loop while its store does not take a batch.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gapless_common::ids::{RunId, Term};
use gapless_core::Event;
use gapless_platform::{clock::Clock, retry::Policy};
use tokio::task::JoinHandle;
use uuid::Uuid;

pub use super::Waiting;
use super::{
    Connected, Control, Unanswered,
    started::{LEASE_MS, hello, started},
};
use crate::{
    limits::{BEHIND, HARD_OF_HEARING},
    store::{Batch, Store, StoreError, Write},
};

const LEASE: Duration = Duration::from_millis(LEASE_MS as u64);
const FULL: &str = "make room";

/// Why the store takes no batch, while it does not.
type Gate = Arc<Mutex<Option<Waiting>>>;

/// Forgets everything, and takes a batch only while its gate is open.
struct Gated(Gate);

impl Store for Gated {
    fn begin_term(&mut self) -> Result<Term, StoreError> {
        Ok(Term(1))
    }

    fn end_term(&mut self) {}

    fn reached(&self) -> u64 {
        1
    }

    fn confirm(&self, _: Term) -> Result<(), StoreError> {
        Ok(())
    }

    fn place(&self) -> String {
        "a test".into()
    }

    fn row(&self, _: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(None)
    }

    fn rows(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(Vec::new())
    }

    fn rows_per_batch(&self) -> usize {
        gapless_core::limits::MAX_ROWS
    }

    fn creates_per_batch(&self) -> usize {
        self.rows_per_batch()
    }

    fn takes(&self, _: &[Write]) -> bool {
        true
    }

    fn bytes_per_batch(&self) -> usize {
        1 << 20
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn unknown_policy(&self) -> Policy {
        let delay = Duration::from_millis(1);
        Policy {
            first_delay: delay,
            longest_delay: delay,
            give_up_after: None,
        }
    }

    fn write(&mut self, _: &Batch) -> Result<(), StoreError> {
        match &*self.0.lock().expect("no panic") {
            None => Ok(()),
            Some(Waiting::Unknown) => Err(StoreError::Unknown { reason: "away".into() }),
            Some(Waiting::Full { reason }) => Err(StoreError::Full { reason: reason.clone() }),
        }
    }
}

/// A loop on such a store.
pub struct Place {
    pub control: Control,
    gate: Gate,
    clock: Clock,
}

fn full() -> Waiting {
    Waiting::Full { reason: FULL.into() }
}

impl Place {
    pub async fn start() -> Place {
        let (gate, clock) = (Gate::default(), Clock::manual(1));
        let (control, _) = started(Box::new(Gated(gate.clone())), clock.clone()).await;
        // The cluster's row is written while the gate is open.
        control.read(|_| ()).await.expect("it answers");
        Place { control, gate, clock }
    }

    /// A worker that says hello. Its session begins when that is durable.
    pub fn connect(&self, worker: u128) -> JoinHandle<Result<Connected, String>> {
        let control = self.control.clone();
        tokio::spawn(async move {
            let connected = control
                .connect(hello(worker))
                .await
                .map_err(|error| error.to_string())?;
            connected.map_err(|refusal| refusal.to_string())
        })
    }

    pub async fn shut(&self, waiting: Waiting) {
        *self.gate.lock().expect("no panic") = Some(waiting.clone());
        let mut seen = self.control.waiting.clone();
        // Nothing is written, so the loop does not know yet.
        if seen.borrow().is_some() {
            seen.wait_for(|seen| seen.as_ref() == Some(&waiting))
                .await
                .expect("it lives");
        }
    }

    pub async fn until_it_waits(&self) {
        let mut seen = self.control.waiting.clone();
        seen.wait_for(Option::is_some).await.expect("it lives");
    }

    fn queued(&self) -> usize {
        let messages = &self.control.messages;
        messages.max_capacity() - messages.capacity()
    }

    pub fn open(&self) {
        *self.gate.lock().expect("no panic") = None;
    }

    pub async fn sessions(&self) -> usize {
        let read = self.control.read(|state| state.sessions.len());
        read.await.expect("it answers")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn time_in_which_the_loop_heard_nobody_is_nobodys_silence() {
    let place = Place::start().await;
    let _worker = place.connect(1).await.expect("no panic").expect("a session");
    place.shut(Waiting::Unknown).await;
    let second = place.connect(2);
    place.until_it_waits().await;
    // It stands in the queue before anything that the worker says.
    place.control.tick().expect("it leads");
    place.clock.advance(100 * LEASE);
    place.open();
    let _second = second.await.expect("no panic").expect("a session");
    place.control.tick().expect("it leads");
    assert_eq!(place.sessions().await, 2, "nobody could be heard");

    // A process that stood still, or a clock that was set, is the same.
    place.clock.advance(100 * LEASE);
    place.control.tick().expect("it leads");
    assert_eq!(place.sessions().await, 2, "nobody could be heard");

    // But one that listens hears who is silent.
    let step = HARD_OF_HEARING / 2;
    let mut silent = Duration::ZERO;
    while silent <= LEASE + HARD_OF_HEARING {
        place.clock.advance(step);
        silent += step;
        place.control.tick().expect("it leads");
        place.sessions().await;
    }
    assert_eq!(place.sessions().await, 0, "both were silent");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_a_loop_whose_store_is_full_is_told_at_once() {
    let place = Place::start().await;
    place.shut(Waiting::Unknown).await;
    let worker = place.connect(1);
    place.until_it_waits().await;
    let stop = || Event::Stop {
        run: RunId(Uuid::from_u128(7)),
    };
    let (control, asked) = (place.control.clone(), stop());
    let asking = tokio::spawn(async move { control.ask(asked).await });
    while place.queued() == 0 {
        tokio::task::yield_now().await;
    }
    place.shut(full()).await;
    let meanwhile = asking.await.expect("no panic");
    assert!(
        matches!(&meanwhile, Err(Unanswered::StoreFullMeanwhile { reason }) if reason == FULL),
        "{meanwhile:?}"
    );
    let asked = place.control.ask(stop()).await;
    assert!(matches!(asked, Err(Unanswered::StoreFull { .. })), "{asked:?}");
    let read = place.control.read(|state| state.sessions.len()).await;
    assert!(matches!(read, Err(Unanswered::StoreFull { .. })), "{read:?}");
    place.open();
    let _worker = worker.await.expect("no panic").expect("a session");
    assert_eq!(place.sessions().await, 1, "and then all goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_did_not_wait_for_its_welcome_has_no_session() {
    let place = Place::start().await;
    place.shut(Waiting::Unknown).await;
    let first = place.connect(1);
    place.until_it_waits().await;
    let gone = place.connect(2);
    while place.queued() == 0 {
        tokio::task::yield_now().await;
    }
    gone.abort();
    assert!(gone.await.is_err(), "it has gone");
    assert_eq!(place.queued(), 1, "its hello has not");
    place.open();
    let _first = first.await.expect("no panic").expect("a session");
    assert_eq!(place.sessions().await, 1);
}

/// A worker that was silent for a lease time while so many events waited that its words may be among them, and the
/// sessions that are left when all of them were heard. `None` where the loop was just turning to its queue when the
/// store stopped: then the events were not there together.
async fn try_a_crowd(waiting: usize) -> Option<usize> {
    let place = Place::start().await;
    let worker = place.connect(1).await.expect("no panic").expect("a session");
    let step = HARD_OF_HEARING / 2;
    let mut silent = Duration::ZERO;
    while silent + step <= LEASE {
        place.clock.advance(step);
        silent += step;
        place.control.tick().expect("it leads");
        assert_eq!(place.sessions().await, 1, "a lease time has not passed");
    }
    place.shut(Waiting::Unknown).await;
    let second = place.connect(2);
    place.until_it_waits().await;
    // It looks at the clock first, then at what came before the worker's words.
    place.clock.advance(step);
    place.control.tick().expect("it leads");
    for _ in 0..waiting {
        place.control.tell(Vec::new()).await.expect("it leads");
    }
    let heard = Event::Heard {
        session: worker.session,
        held: Vec::new(),
        resident_bytes: 0,
    };
    place.control.tell(vec![heard]).await.expect("it leads");
    if place.queued() != waiting + 2 {
        return None;
    }
    place.open();
    let _second = second.await.expect("no panic").expect("a session");
    place.control.tick().expect("it leads");
    Some(place.sessions().await)
}

async fn left_of_a_crowd(waiting: usize) -> usize {
    for _ in 0..20 {
        if let Some(left) = try_a_crowd(waiting).await {
            return left;
        }
    }
    panic!("the events were never there together")
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_taken_for_lost_whose_words_may_wait_in_a_crowd() {
    assert_eq!(left_of_a_crowd(BEHIND).await, 2, "both were heard in the end");
    assert_eq!(
        left_of_a_crowd(BEHIND / 2).await,
        1,
        "without a crowd who was silent is lost"
    );
}

//! Tests of turns that overlap: one is being written while the next one is decided.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, Sender},
    },
    time::Duration,
};

use futures::FutureExt;
use gapless_common::ids::{Epoch, RunId, Term};
use gapless_core::Event;
use gapless_platform::{clock::Clock, retry::Policy, shutdown::Shutdown};
use tokio::{runtime::Handle, sync::watch};
use uuid::Uuid;

use super::{
    Connected, Control, End, Unanswered,
    batches::{Decided, Most},
    started::{hello, started},
    writer::Writer,
};
use crate::{
    metrics::Metrics,
    store::{Batch, Store, StoreError, Write},
};

/// A batch that has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store whose every batch waits for the test to say what becomes of it.
struct Stepped {
    begun: Sender<Batch>,
    outcomes: Receiver<Result<(), StoreError>>,
    ended: Arc<Mutex<bool>>,
    most: Most,
    creates_as_a_rule: usize,
}

/// What a store takes in a batch where a test is about something else.
const ENOUGH: Most = Most {
    rows: 1000,
    creates: 1000,
    bytes: 1 << 20,
};

impl Store for Mutex<Stepped> {
    fn begin_term(&mut self) -> Result<Term, StoreError> {
        Ok(Term(1))
    }

    fn end_term(&mut self) {
        let stepped = self.get_mut().expect("no panic");
        *stepped.ended.lock().expect("no panic") = true;
    }

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
        self.lock().expect("no panic").most.rows
    }

    fn creates_per_batch(&self) -> usize {
        self.lock().expect("no panic").most.creates
    }

    fn creates_as_a_rule(&self) -> usize {
        self.lock().expect("no panic").creates_as_a_rule
    }

    fn takes(&self, writes: &[Write]) -> bool {
        creates(writes) <= self.creates_per_batch()
    }

    fn bytes_per_batch(&self) -> usize {
        self.lock().expect("no panic").most.bytes
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

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let stepped = self.get_mut().expect("no panic");
        // A test that has ended wants no more.
        let over = || StoreError::Refused {
            reason: "the test is over".into(),
        };
        stepped.begun.send(batch.clone()).map_err(|_| over())?;
        stepped.outcomes.recv().map_err(|_| over())?
    }
}

/// A loop on such a store, which holds nothing but the cluster's row.
struct Place {
    control: Control,
    begun: Receiver<Batch>,
    outcomes: Sender<Result<(), StoreError>>,
    ended: Arc<Mutex<bool>>,
    thread: std::thread::JoinHandle<Result<End, StoreError>>,
}

/// An answer that may be looked at without waiting.
type Answer<T> = futures::future::BoxFuture<'static, Result<T, Unanswered>>;

impl Place {
    async fn start() -> Place {
        Place::start_with(ENOUGH).await
    }

    /// On a store that takes so much in a batch.
    async fn start_with(most: Most) -> Place {
        let (tell, begun) = mpsc::channel();
        let (outcomes, told) = mpsc::channel();
        let ended: Arc<Mutex<bool>> = Arc::default();
        let store = Box::new(Mutex::new(Stepped {
            begun: tell,
            outcomes: told,
            ended: ended.clone(),
            most,
            creates_as_a_rule: most.creates,
        }));
        let (control, thread) = started(store, Clock::manual(1)).await;
        let place = Place {
            control,
            begun,
            outcomes,
            ended,
            thread,
        };
        assert_eq!(place.next_batch().seq, 1, "the cluster's row");
        place.settle(Ok(()));
        place
    }

    /// Waits until the next batch is at the store. None is beside it.
    fn next_batch(&self) -> Batch {
        tokio::task::block_in_place(|| self.begun.recv_timeout(PATIENCE).expect("the loop writes"))
    }

    fn is_written(&self) -> bool {
        self.begun.try_recv().is_err()
    }

    fn settle(&self, outcome: Result<(), StoreError>) {
        self.outcomes.send(outcome).expect("the loop lives");
    }

    /// Puts a hello in the queue.
    async fn connect(&self, worker: u128) -> Answer<Connected> {
        let control = self.control.clone();
        begun(async move { Ok(control.connect(hello(worker)).await?.expect("no refusal")) }.boxed())
    }

    /// Puts a read in the queue: how many sessions there are.
    async fn sessions(&self) -> Answer<usize> {
        let control = self.control.clone();
        begun(async move { control.read(|state| state.sessions.len()).await }.boxed())
    }

    /// Waits until the loop has dealt with all that was in its queue, as far as it deals with it now.
    async fn until_taken(&self) {
        // Whatever is in the queue is taken before it is empty, and what follows from the last of it is done when
        // another one has been taken.
        for _ in 0..2 {
            self.control.tick().expect("it leads");
            while self.queued() > 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn queued(&self) -> usize {
        let messages = &self.control.messages;
        messages.max_capacity() - messages.capacity()
    }

    async fn end(self) -> Result<End, StoreError> {
        let Place { control, thread, .. } = self;
        drop(control);
        tokio::task::spawn_blocking(|| thread.join().expect("no panic"))
            .await
            .expect("no panic")
    }
}

/// Polls an answer once, so that what is asked stands in the queue.
fn begun<T: Send + 'static>(mut answer: Answer<T>) -> Answer<T> {
    match (&mut answer).now_or_never() {
        None => answer,
        Some(answered) => futures::future::ready(answered).boxed(),
    }
}

/// What was answered, if anything.
fn seen<T>(answer: &mut Answer<T>) -> Option<Result<T, Unanswered>> {
    answer.now_or_never()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_leaves_when_its_own_turn_is_durable_and_not_before() {
    let place = Place::start().await;
    let mut first = place.connect(1).await;
    assert_eq!(place.next_batch().writes.len(), 1);
    // Decided while the first one is being written, together.
    let (mut second, mut third) = (place.connect(2).await, place.connect(3).await);
    let mut count = place.sessions().await;
    let stop = Event::Stop {
        run: RunId(Uuid::nil()),
    };
    let control = place.control.clone();
    let mut refused = begun(async move { control.ask(stop).await }.boxed());
    place.until_taken().await;
    assert!(seen(&mut first).is_none(), "its batch is not durable");
    assert!(
        seen(&mut second).is_none() && seen(&mut count).is_none() && seen(&mut refused).is_none(),
        "nor is what they saw"
    );
    assert!(place.is_written(), "one batch at a time");
    place.settle(Ok(()));
    let first = first.await.expect("its batch is durable");
    let next = place.next_batch();
    assert_eq!(
        (next.seq, next.writes.len()),
        (3, 2),
        "what came meanwhile is one batch"
    );
    // A further turn is decided: it is none of theirs.
    let mut fourth = place.connect(4).await;
    place.until_taken().await;
    assert!(
        seen(&mut second).is_none() && seen(&mut third).is_none(),
        "theirs is being written"
    );
    assert!(
        seen(&mut count).is_none() && seen(&mut refused).is_none(),
        "refusals and reads too"
    );
    place.settle(Ok(()));
    assert_eq!(
        count.await.expect("answered"),
        3,
        "a read tells what it saw, and nothing of the turn after"
    );
    assert!(refused.await.expect("answered").is_err(), "there is no such run");
    second.await.expect("a session");
    third.await.expect("a session");
    assert_eq!(place.next_batch().seq, 4);
    place.until_taken().await;
    assert!(seen(&mut fourth).is_none());
    place.settle(Ok(()));
    let fourth = fourth.await.expect("a session");
    assert!(first.session != fourth.session);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_takes_several_batches_leaves_after_the_last_of_them() {
    const BYTES: usize = 500;
    let place = Place::start_with(Most { bytes: BYTES, ..ENOUGH }).await;
    let first = place.connect(1).await;
    let batch = place.next_batch();
    let mut answers = Vec::new();
    for worker in 2..=10 {
        answers.push(place.connect(worker).await);
    }
    place.until_taken().await;
    place.settle(Ok(()));
    first.await.expect("a session");
    // One turn, since all of them were decided together.
    let (mut seq, mut written) = (batch.seq, 0);
    while written < answers.len() {
        let batch = place.next_batch();
        let bytes = batch.writes.iter().map(size).sum::<usize>();
        assert!(
            bytes <= BYTES && batch.writes.len() < answers.len(),
            "{bytes}: {batch:?}"
        );
        assert_eq!(batch.seq, seq + 1);
        (seq, written) = (batch.seq, written + batch.writes.len());
        place.until_taken().await;
        let left = answers.iter_mut().filter_map(seen).count();
        assert_eq!(left, 0, "{written} of {} rows are being written", answers.len());
        place.settle(Ok(()));
    }
    assert!(seq > batch.seq + 1, "it took several");
    for answer in answers {
        answer.await.expect("a session");
    }
    assert_eq!(place.sessions().await.await.expect("answered"), 10);
}

/// As a rule a store takes many new rows in a batch, and now and then their keys are such that it does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_more_new_rows_than_the_store_takes_is_written_as_several() {
    let (tell, begun) = mpsc::channel();
    let (outcomes, told) = mpsc::channel();
    let clock = Clock::manual(1);
    let mut writer = Writer {
        store: Box::new(Mutex::new(Stepped {
            begun: tell,
            outcomes: told,
            ended: Arc::default(),
            most: Most { creates: 2, ..ENOUGH },
            creates_as_a_rule: 8,
        })),
        term: Term(1),
        epoch: Epoch::FIRST,
        seq: 0,
        mark: Arc::default(),
        waits: watch::channel(None).0,
        runtime: Handle::current(),
        stop: Shutdown::new(),
        clock: clock.clone(),
        metrics: Metrics::new(clock),
    };
    let mut decided = Decided::default();
    for number in 0..9 {
        decided.push(Write::Create(format!("lease/{number}"), Vec::new()));
        decided.push(Write::Put(format!("progress/{number}"), Vec::new()));
        decided.end();
    }
    let all = decided.writes.clone();
    (0..all.len()).for_each(|_| outcomes.send(Ok(())).expect("it is there"));
    writer.write(decided).expect("written");
    drop(writer);
    let batches: Vec<Batch> = begun.iter().collect();
    assert!(
        batches
            .iter()
            .all(|batch| creates(&batch.writes) <= 2 && batch.writes.len() % 2 == 0),
        "{batches:?}"
    );
    let seqs: Vec<u64> = batches.iter().map(|batch| batch.seq).collect();
    assert_eq!(seqs, (1..=batches.len() as u64).collect::<Vec<_>>());
    let written: Vec<Write> = batches.into_iter().flat_map(|batch| batch.writes).collect();
    assert_eq!(written, all, "all of it, in order, before the answer");
}

fn creates(writes: &[Write]) -> usize {
    writes.iter().filter(|write| matches!(write, Write::Create(..))).count()
}

fn size(write: &Write) -> usize {
    match write {
        Write::Put(key, value) | Write::Create(key, value) => key.len() + value.len(),
        Write::Delete(key) => key.len(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_is_told_waits_for_its_turn_too() {
    let place = Place::start().await;
    let worker = place.connect(1).await;
    place.next_batch();
    place.settle(Ok(()));
    let mut worker = worker.await.expect("a session");
    worker.outbox.recv().await.expect("the welcome");
    // So that all of that turn has left.
    place.until_taken().await;
    let changes = place.control.changes();
    let before = *changes.borrow();
    let second = place.connect(2).await;
    place.next_batch();
    let heard = vec![Event::Heard {
        session: worker.session,
        held: Vec::new(),
        resident_bytes: 0,
    }];
    place.control.tell(heard).await.expect("it leads");
    place.until_taken().await;
    assert!(worker.outbox.try_recv().is_err(), "a heartbeat saw what is not durable");
    assert_eq!(*changes.borrow(), before, "watchers would look at it");
    place.settle(Ok(()));
    worker.outbox.recv().await.expect("the answer to its heartbeat");
    second.await.expect("a session");
    assert!(changes.borrow().any > before.any);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_after_a_batch_that_is_refused_is_dropped_with_it() {
    let place = Place::start().await;
    let first = place.connect(1).await;
    let batch = place.next_batch();
    let second = place.connect(2).await;
    let count = place.sessions().await;
    place.until_taken().await;
    place.settle(Err(StoreError::LostTerm {
        offered: batch.term,
        current: Term(9),
    }));
    assert!(matches!(first.await, Err(Unanswered::NotLeading(_))));
    assert!(matches!(second.await, Err(Unanswered::NotLeading(_))));
    assert!(matches!(count.await, Err(Unanswered::NotLeading(_))));
    let ended = place.ended.clone();
    let no_more = place.is_written();
    let end = place.end().await;
    assert!(
        matches!(end, Err(StoreError::LostTerm { current: Term(9), .. })),
        "it steps down"
    );
    assert!(no_more, "nothing else was written");
    assert!(*ended.lock().expect("no panic"), "the term is given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_sent_again_before_the_next_one_when_nobody_knows_its_outcome() {
    let place = Place::start().await;
    let first = place.connect(1).await;
    let batch = place.next_batch();
    let mut second = place.connect(2).await;
    place.until_taken().await;
    place.settle(Err(StoreError::Unknown { reason: "away".into() }));
    assert_eq!(place.next_batch(), batch);
    assert!(place.control.is_waiting());
    // Nobody is listened to meanwhile: the queue keeps what comes.
    place.control.tick().expect("it leads");
    let third = place.connect(3).await;
    assert!(seen(&mut second).is_none());
    place.settle(Err(StoreError::OutOfSequence {
        offered: batch.seq,
        stored: batch.seq,
    }));
    first.await.expect("it had been written");
    let next = place.next_batch();
    assert_eq!(next.seq, batch.seq + 1);
    place.settle(Ok(()));
    second.await.expect("a session");
    assert_eq!(place.next_batch().seq, batch.seq + 2);
    place.settle(Ok(()));
    third.await.expect("a session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_is_told_to_end_ends_after_what_came_before() {
    let place = Place::start().await;
    let first = place.connect(1).await;
    place.next_batch();
    let second = place.connect(2).await;
    place.control.stop().await;
    let late = place.connect(3).await;
    place.settle(Ok(()));
    first.await.expect("a session");
    place.next_batch();
    place.settle(Ok(()));
    second.await.expect("a session");
    assert!(matches!(late.await, Err(Unanswered::NotLeading(_))));
    let ended = place.ended.clone();
    assert!(matches!(place.end().await, Ok(End::Over)));
    assert!(*ended.lock().expect("no panic"));
}

//! The control loop: the one thread that owns the state. This file is the way to it.
//!
//! It takes a bounded number of events, decides and applies each in memory, and has their rows written: that is
//! a turn. Answers, effects and reads leave once the rows of their turn are durable, so nothing that anyone has
//! seen can be lost. While a turn is written the next one is decided.
//!
//! | file | what it is |
//! |---|---|
//! | `turns` | the loop |
//! | `outgoing` | what leaves it, and when |
//! | `batches` | cutting a turn into what the store takes at a time |
//! | `writer` | one turn after the other is made durable |

mod batches;
mod outgoing;
mod turns;
mod writer;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use gapless_common::{
    ids::{ClusterId, SessionId, Term},
    labels::Labels,
};
use gapless_core::{Answer, Event, Refusal, State, Timestamp, event::Held, row::ClusterRow};
use gapless_platform::{clock::Clock, shutdown::Shutdown};
use gapless_proto::v1;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
};
use tracing::{error, info};
use uuid::Uuid;

use self::{
    batches::Most,
    outgoing::Delivery,
    turns::Loop,
    writer::{Pipeline, Writer},
};
use crate::{
    limits::{EVENT_QUEUE, QUEUE_WAIT, STALL},
    metrics::Metrics,
    store::StoreError,
    takeover::{Hold, TakenOver},
};

type Welcome = oneshot::Sender<Result<Connected, Refusal>>;
type Reply = oneshot::Sender<Result<Answer, Refusal>>;
/// Looks at the state, and answers when that may be told.
type Read = Box<dyn FnOnce(&State) -> Delivery + Send>;

/// What reaches the loop.
enum Message {
    /// An event whose sender waits for the answer.
    Ask(Event, Reply),
    /// Events of a worker; what follows goes to its outbox.
    Tell(Vec<Event>),
    Connect(Hello, Welcome),
    /// A read of the state, answered when what it saw is durable.
    Read(Read),
    /// Workers can be heard again, after a time in which they could not.
    Renew,
    Tick,
    Stop,
}

/// A worker's first message.
pub struct Hello {
    /// How far it has seen this cluster come, and in whose reign; `None` before its first session.
    pub mark: Term,
    pub reign: Option<Uuid>,
    pub worker: Uuid,
    pub name: String,
    pub version: String,
    pub slots: u32,
    pub labels: Labels,
    pub held: Vec<Held>,
}

/// A session that is open.
pub struct Connected {
    pub session: SessionId,
    pub outbox: mpsc::Receiver<v1::LeaderMessage>,
}

/// The loop has ended: this coordinator leads no more. What was asked may have been done.
#[derive(Debug, thiserror::Error)]
#[error("this coordinator leads no more")]
pub struct NotLeading;

/// Why the loop gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// Nothing was done.
    #[error(
        "the coordinator has more to do than it can: {EVENT_QUEUE} events wait, and there was no place for another within {QUEUE_WAIT:?}; try again in a moment"
    )]
    Behind,
    /// Nothing was done.
    #[error("{reason}")]
    StoreFull { reason: String },
    #[error("{reason}. What was asked for is done when there is room, unless this coordinator ends before")]
    StoreFullMeanwhile { reason: String },
}

/// What the loop waits for while a batch cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Somebody has to make room.
    Full { reason: String },
    /// An answer.
    Unknown,
}

/// The way to the loop, for services.
#[derive(Clone)]
pub struct Control {
    messages: mpsc::Sender<Message>,
    changes: watch::Receiver<Changes>,
    waiting: watch::Receiver<Option<Waiting>>,
    pub cluster: ClusterId,
    mark: Arc<AtomicU64>,
}

/// How a loop has ended.
pub enum End {
    /// Its term is given up.
    Over,
    /// Its store turned out to be older than what a worker has seen of it. The term goes on.
    Older(Box<Hold>),
}

/// What watchers are woken by: how often the state may have come to look different.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub any: u64,
    /// Ends of runs among them, which nobody should have to wait for.
    pub ends: u64,
}

/// What the loop is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct ControlConfig {
    pub lease_ms: u32,
    pub heartbeat_ms: u32,
    /// Whether every worker of earlier terms is known to be dead, as when workers live in the
    /// process that held the store's lock.
    pub workers_died: bool,
}

impl Control {
    /// Rebuilds the state from a store that was taken over and starts the loop, which ends with its
    /// [`Control::stop`], with its term, or at once when `stop` does. On a thread that may block, of a
    /// runtime with time.
    pub fn start(
        taken: TakenOver,
        clock: Clock,
        config: ControlConfig,
        stop: Shutdown,
        metrics: Metrics,
    ) -> Result<(Control, JoinHandle<Result<End, StoreError>>), StoreError> {
        let TakenOver {
            store,
            term: store_term,
            seq,
            stored,
        } = taken;
        let now = Timestamp(clock.now_micros());
        let known = stored.cluster().cloned();
        let is_founded = known.is_some();
        let cluster = known.unwrap_or_else(|| ClusterRow::new(ClusterId(Uuid::new_v4())));
        let term = Term::of(cluster.epoch, store_term.0);
        let stall = STALL.as_millis() as u64;
        let state = State::recover(term, u64::from(config.lease_ms), stall, stored.rows, now);
        info!(%term, runs = state.runs.len(), sessions = state.sessions.len(), "leading");
        let (messages, queue) = mpsc::channel(EVENT_QUEUE);
        let (changed, changes) = watch::channel(Changes::default());
        let (waits, waiting) = watch::channel(None);
        let mark = Arc::default();
        let most = Most::as_a_rule(&*store);
        let writer = Writer {
            store,
            term: store_term,
            epoch: term.epoch(),
            seq,
            mark: Arc::clone(&mark),
            waits,
            runtime: Handle::current(),
            stop,
            clock: clock.clone(),
            metrics: metrics.clone(),
        };
        let mut control_loop = Loop {
            runtime: Handle::current(),
            most,
            pipeline: Pipeline::new(writer)?,
            under_way: None,
            waiting: waiting.clone(),
            clock,
            config,
            state,
            reign: Uuid::new_v4(),
            older: None,
            mark: Arc::clone(&mark),
            term,
            listened: now,
            granted_all: true,
            outboxes: HashMap::new(),
            changed,
            metrics,
        };
        let control = Control {
            messages,
            changes,
            waiting,
            cluster: cluster.cluster,
            mark,
        };
        let founded = (!is_founded).then_some(cluster);
        let thread = thread::Builder::new().name("control".into()).spawn(move || {
            control_loop.metrics.leads(term);
            let ended = control_loop.run(founded, stored.outdated, queue);
            if let Err(error) = &ended {
                error!(%error, "the control loop has ended");
            }
            let cluster = control_loop.state.cluster.take();
            let (older, metrics) = (control_loop.older.take(), control_loop.metrics.clone());
            // A thread that writes and panicked has taken the store with it.
            if let Some(writer) = control_loop.pipeline.end() {
                let Writer {
                    mut store, term, seq, ..
                } = *writer;
                if ended.is_ok()
                    && let Some(why) = older
                {
                    metrics.leads_no_more();
                    return Ok(End::Older(Box::new(Hold {
                        store,
                        term,
                        seq,
                        cluster,
                        why,
                    })));
                }
                store.end_term();
            }
            metrics.leads_no_more();
            ended.map(|()| End::Over)
        });
        let thread = thread.map_err(|error| StoreError::Read {
            reason: format!("no thread for the loop: {error}"),
        })?;
        Ok((control, thread))
    }

    /// Sends an event and waits for what was decided, once it is durable.
    pub async fn ask(&self, event: Event) -> Result<Result<Answer, Refusal>, Unanswered> {
        if let Some(Waiting::Full { reason }) = self.waiting.borrow().clone() {
            return Err(Unanswered::StoreFull { reason });
        }
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.enqueue(Message::Ask(event, reply)).await?;
            Ok(answer.await.map_err(|_| NotLeading)?)
        };
        tokio::select! {
            biased;
            answered = asked => answered,
            reason = self.full() => Err(Unanswered::StoreFullMeanwhile { reason }),
        }
    }

    /// Waits until the store is full: then the loop answers nobody before somebody makes room.
    async fn full(&self) -> String {
        let mut waiting = self.waiting.clone();
        let full = waiting.wait_for(|waiting| matches!(waiting, Some(Waiting::Full { .. })));
        let full = full.await.ok().and_then(|waiting| waiting.clone());
        match full {
            Some(Waiting::Full { reason }) => reason,
            // The loop has ended, which those who wait are told otherwise.
            Some(Waiting::Unknown) | None => std::future::pending().await,
        }
    }

    /// Whether the loop waits for its store, and listens to nobody.
    pub fn is_waiting(&self) -> bool {
        self.waiting.borrow().is_some()
    }

    /// Takes a place in the queue, if there is one soon.
    async fn enqueue(&self, message: Message) -> Result<(), Unanswered> {
        let sent = self.messages.send_timeout(message, QUEUE_WAIT).await;
        sent.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => Unanswered::Behind,
            mpsc::error::SendTimeoutError::Closed(_) => NotLeading.into(),
        })
    }

    /// Events of a worker. Waits for a place in the queue, so that the worker's stream waits too.
    pub async fn tell(&self, events: Vec<Event>) -> Result<(), NotLeading> {
        self.messages.send(Message::Tell(events)).await.map_err(|_| NotLeading)
    }

    pub async fn connect(&self, hello: Hello) -> Result<Result<Connected, Refusal>, Unanswered> {
        let (reply, connected) = oneshot::channel();
        self.enqueue(Message::Connect(hello, reply)).await?;
        Ok(connected.await.map_err(|_| NotLeading)?)
    }

    /// Reads the state; what is seen is durable when the answer arrives.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (reply, answer) = oneshot::channel();
        let read = Box::new(move |state: &State| {
            let seen = read(state);
            Box::new(move || {
                // Nobody waits any more: the reader has gone away.
                let _ = reply.send(seen);
            }) as Delivery
        });
        let asked = async {
            self.enqueue(Message::Read(read)).await?;
            Ok(answer.await.map_err(|_| NotLeading)?)
        };
        tokio::select! {
            biased;
            answered = asked => answered,
            reason = self.full() => Err(Unanswered::StoreFull { reason }),
        }
    }

    /// Tells the loop that time has passed. One that has much to do needs no telling.
    pub fn tick(&self) -> Result<(), NotLeading> {
        match self.messages.try_send(Message::Tick) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(NotLeading),
        }
    }

    /// Gives each session a full lease time: for a while no worker could be heard.
    pub async fn renew_sessions(&self) -> Result<(), NotLeading> {
        self.messages.send(Message::Renew).await.map_err(|_| NotLeading)
    }

    /// Ends the loop after what is queued before.
    pub async fn stop(&self) {
        // An error means that it has ended already.
        let _ = self.messages.send(Message::Stop).await;
    }

    /// How far the store had come when it was last written; `None` before that.
    pub fn mark(&self) -> Option<Term> {
        match self.mark.load(Ordering::Relaxed) {
            0 => None,
            mark => Some(Term(mark)),
        }
    }

    /// Whether the loop has ended.
    pub fn is_over(&self) -> bool {
        self.messages.is_closed()
    }

    /// Changes whenever the state may look different to a watcher.
    pub fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.clone()
    }
}

impl Waiting {
    fn on(error: &StoreError) -> Waiting {
        match error {
            StoreError::Full { reason } => Waiting::Full { reason: reason.clone() },
            _ => Waiting::Unknown,
        }
    }
}

#[cfg(test)]
mod overlap;
#[cfg(test)]
mod started;
#[cfg(test)]
pub mod store_waits;

#[cfg(test)]
mod tests {
    use gapless_common::ids::RunId;

    use super::*;

    #[test]
    fn a_call_that_finds_the_queue_full_is_refused_and_told_when_to_call_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            // A loop that takes nothing off its queue.
            let (messages, _queue) = mpsc::channel(EVENT_QUEUE);
            let control = Control {
                messages,
                changes: watch::channel(Changes::default()).1,
                waiting: watch::channel(None).1,
                cluster: ClusterId(Uuid::nil()),
                mark: Arc::default(),
            };
            for _ in 0..EVENT_QUEUE {
                control.messages.try_send(Message::Tick).expect("a place");
            }
            let run = RunId(Uuid::nil());
            let refused = control.ask(Event::Stop { run }).await.expect_err("no place");
            assert!(refused.to_string().contains("1024 events wait"), "{refused}");
            let status = tonic::Status::from(refused);
            assert_eq!(status.code(), tonic::Code::ResourceExhausted);
            assert!(status.metadata().contains_key(gapless_proto::RETRY_KEY));
            let read = control.read(|_| ()).await;
            assert!(matches!(read, Err(Unanswered::Behind)));
        });
    }
}

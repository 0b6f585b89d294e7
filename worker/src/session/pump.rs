//! The session's one loop. It owns the book and is never blocked: whatever is ready is done, what is to be
//! sent leaves when nothing else is ready, so that events of many tasks travel in one message
//! without waiting for each other.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use gapless_common::ids::ClusterId;
use gapless_platform::{process, shutdown::Shutdown};
use gapless_proto::v1::{self, leader_command::Command};
use prost::bytes::Bytes;
use tokio::{
    runtime,
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, interval_at, sleep_until, timeout, timeout_at},
};
use tonic::{Status, Streaming, transport::Channel};
use uuid::Uuid;

use super::{
    WorkerConfig, WorkerError,
    book::{Book, Said},
    calls::Calls,
    connection::{self, Dialer, Link, LinkError},
    context::Contexts,
    limits::{DRAIN_GRACE, LEAVE_GRACE, MAX_EVENTS_PER_MESSAGE, MAX_SAID, MIN_HEARTBEAT, SUSPECT_LOOK},
    queue::{Heard, Queue},
    wire,
};
use crate::{
    metrics,
    runner::{self, Shared, Work},
};

pub fn run(config: WorkerConfig, work: Arc<dyn Work>, shutdown: &Shutdown) -> Result<(), WorkerError> {
    if config.slots == 0 {
        return Err(WorkerError::NoSlots);
    }
    let dialer = Dialer::new(&config.endpoints, &config.access)?;
    // One thread, the calling one, is enough for 50,000 events a second.
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let heard = Arc::new(Heard::new(config.clock.clone()));
    let queue = Arc::new(Queue::new(heard.clone()));
    let (said, said_by_slots) = mpsc::channel(MAX_SAID);
    let (current, reader) = watch::channel(None);
    // The calls of slots end when the pump does, whatever ended it.
    let own = shutdown.child();
    let shared = Arc::new(Shared {
        queue: queue.clone(),
        said,
        calls: Calls::new(runtime.handle().clone(), reader, config.access.clone(), own.clone()),
        contexts: Contexts::default(),
        work,
        worker: config.name.clone(),
        memory_bytes: config.memory_per_slot_bytes,
        metrics: config.metrics.clone(),
    });
    let (alive, ended) = mpsc::channel(1);
    let mut slots = Vec::new();
    for slot in 0..config.slots {
        match runner::start_slot(shared.clone(), slot, alive.clone()) {
            Ok(thread) => slots.push(thread),
            Err(error) => {
                queue.close();
                return Err(error.into());
            }
        }
    }
    drop((alive, shared));
    let pump = Pump {
        book: Book::new(queue.clone(), config.name.clone()),
        queue,
        heard,
        said: said_by_slots,
        current,
        worker: Uuid::now_v7(),
        config,
        term: 0,
        mark: 0,
        reign: Bytes::new(),
        cluster: None,
        inbound: None,
        outbound: None,
        beat: None,
        asked: None,
        suspect: false,
        gave_back: false,
    };
    let slots_ended = runtime.block_on(pump.run(dialer, &own, ended))?;
    if slots_ended {
        // All of them have said goodbye: these joins do not wait.
        for slot in slots {
            slot.join().ok();
        }
    }
    Ok(())
}

/// On the way to a session: first a connection, then a hello that tells what is held at that moment.
enum Reaching {
    Trying(Pin<Box<dyn Future<Output = (Dialer, Reached)>>>),
    /// There is a session.
    Idle(Box<Dialer>),
}

enum Reached {
    Channel(String, Result<Channel, LinkError>),
    Link(String, Result<Box<Link>, LinkError>),
}

struct Pump {
    config: WorkerConfig,
    worker: Uuid,
    book: Book,
    queue: Arc<Queue>,
    heard: Arc<Heard>,
    said: mpsc::Receiver<Said>,
    current: watch::Sender<Option<Channel>>,
    /// The highest term seen.
    term: u64,
    /// How far the cluster was seen to have come, and in whose reign.
    mark: u64,
    reign: Bytes,
    cluster: Option<ClusterId>,
    inbound: Option<Streaming<v1::LeaderMessage>>,
    outbound: Option<mpsc::Sender<v1::WorkerMessage>>,
    beat: Option<Interval>,
    /// When the oldest heartbeat was sent that nothing was heard after.
    asked: Option<Duration>,
    /// Whether no leader was heard for a lease time, as was last told.
    suspect: bool,
    /// Whether a drain ended with tasks open: their slots end with the process.
    gave_back: bool,
}

impl Pump {
    /// Answers whether all slots have ended.
    async fn run(
        mut self,
        dialer: Dialer,
        shutdown: &Shutdown,
        mut slots_alive: mpsc::Receiver<()>,
    ) -> Result<bool, WorkerError> {
        let result = self.pump(dialer, shutdown).await;
        self.config.metrics.enter(metrics::State::Ended);
        self.config.metrics.disconnected();
        shutdown.stop();
        self.leave().await;
        self.queue.close();
        self.book.abandon();
        self.said.close();
        while let Ok(Said { held, .. }) = self.said.try_recv() {
            held.stop_now(held.cancelled("the worker ends"));
        }
        // Nothing is ever sent here: it closes when the last slot is gone.
        let gone = timeout(LEAVE_GRACE, slots_alive.recv()).await;
        result?;
        match gone {
            Ok(_) => Ok(true),
            // Nothing of theirs counts any more, and the leader knows.
            Err(_) if self.gave_back => Ok(false),
            Err(_) => Err(WorkerError::StillRunning {
                count: slots_alive.sender_strong_count(),
            }),
        }
    }

    /// Works until told to end and done, or until there is no sense in going on.
    async fn pump(&mut self, dialer: Dialer, shutdown: &Shutdown) -> Result<(), WorkerError> {
        let mut reaching = dial(dialer);
        let mut batch = Vec::with_capacity(MAX_EVENTS_PER_MESSAGE);
        let mut deadline: Option<Instant> = None;
        let mut look = interval(SUSPECT_LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.config.metrics.turned(self.queue.len());
            if self.outbound.is_none() {
                // Not lost: the book says it again when there is a session.
                self.book.out.clear();
            }
            if deadline.is_some() && self.book.is_empty() {
                return Ok(());
            }
            let room = self.book.out.len() < MAX_EVENTS_PER_MESSAGE;
            tokio::select! {
                biased;
                () = shutdown.stopping().cancelled() => return Ok(()),
                () = shutdown.draining().cancelled(), if deadline.is_none() => {
                    tracing::info!(held = self.book.held(), "draining");
                    deadline = Some(Instant::now() + DRAIN_GRACE);
                    self.config.metrics.enter(metrics::State::Draining);
                    self.book.drain(self.heard.now());
                }
                () = until(deadline) => {
                    let open = self.book.give_back(self.heard.now());
                    self.gave_back = true;
                    tracing::warn!(open, grace = ?DRAIN_GRACE, "no checkpoint within the drain's limit: given back at the last commit");
                    return Ok(());
                }
                _ = look.tick() => self.tell_suspect(),
                () = beat(&mut self.beat) => {
                    if self.heard.is_suspect() && self.queue.len() > 0 {
                        tracing::warn!("the leader answered no heartbeat for a lease time, and tasks wait: connecting anew");
                        reaching = self.disconnect(reaching);
                    } else {
                        self.asked.get_or_insert(self.heard.now());
                        self.book.heartbeat(self.heard.now(), self.heard.lease(), process::resident_bytes());
                    }
                }
                (dialer, reached) = reach(&mut reaching) => reaching = self.reached(dialer, reached)?,
                message = next(&mut self.inbound), if room => {
                    if !self.message(message) {
                        reaching = self.disconnect(reaching);
                    }
                }
                count = self.said.recv_many(&mut batch, MAX_EVENTS_PER_MESSAGE), if room => {
                    debug_assert!(count > 0, "slots live as long as the pump");
                    let now = self.heard.now();
                    batch.drain(..).for_each(|said| self.book.said(said, now));
                }
                open = has_room(&self.outbound), if !self.book.out.is_empty() => {
                    if !open || !self.send() {
                        reaching = self.disconnect(reaching);
                    }
                }
            }
        }
    }

    /// A step on the way to a session is done.
    fn reached(&mut self, mut dialer: Dialer, reached: Reached) -> Result<Reaching, WorkerError> {
        let (endpoint, error) = match reached {
            Reached::Channel(endpoint, Ok(channel)) => {
                let (hello, term, cluster) = (self.hello(), self.term, self.cluster);
                let access = self.config.access.clone();
                return Ok(Reaching::Trying(Box::pin(async move {
                    let link = connection::open(endpoint.clone(), channel, access, hello, term, cluster).await;
                    (dialer, Reached::Link(endpoint, link.map(Box::new)))
                })));
            }
            Reached::Link(_, Ok(link)) => {
                dialer.succeeded(Duration::from_millis(u64::from(link.welcome.lease_ms)));
                self.welcome(*link);
                return Ok(Reaching::Idle(Box::new(dialer)));
            }
            Reached::Link(endpoint, Err(LinkError::OtherCluster { known, found })) => {
                return Err(WorkerError::OtherCluster { endpoint, known, found });
            }
            Reached::Channel(endpoint, Err(error)) | Reached::Link(endpoint, Err(error)) => (endpoint, error),
        };
        dialer.failed(&endpoint, &error);
        Ok(dial(dialer))
    }

    fn hello(&self) -> v1::Hello {
        v1::Hello {
            worker: wire::bytes(self.worker),
            name: self.config.name.clone(),
            slots: self.config.slots,
            cluster: self.cluster.map(|cluster| wire::bytes(cluster.0)).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            held: self.book.hello_held(),
            labels: self
                .config
                .labels
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            mark: self.mark,
            reign: self.reign.clone(),
        }
    }

    fn welcome(&mut self, link: Link) {
        let lease = Duration::from_millis(u64::from(link.welcome.lease_ms));
        let heartbeat = Duration::from_millis(u64::from(link.welcome.heartbeat_ms)).max(MIN_HEARTBEAT);
        tracing::info!(
            endpoint = link.endpoint, session = %link.session, cluster = %link.cluster, term = link.first.term,
            ?lease, ?heartbeat, held = self.book.held(), "in session"
        );
        if !self.book.is_draining() {
            self.config.metrics.enter(metrics::State::InSession);
        }
        self.config.metrics.connected();
        self.cluster = Some(link.cluster);
        self.reign = link.welcome.reign;
        self.heard.set_lease(lease);
        let mut beat = interval_at(Instant::now() + heartbeat, heartbeat);
        // After a pause one heartbeat tells all.
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.beat = Some(beat);
        self.inbound = Some(link.inbound);
        self.outbound = Some(link.outbound);
        self.book.resume(self.heard.now());
        self.message(Ok(Some(link.first)));
        self.current.send_replace(Some(link.channel));
    }

    /// A message of the leader, or the end of its stream. False: the session is over.
    fn message(&mut self, message: Result<Option<v1::LeaderMessage>, Status>) -> bool {
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => {
                tracing::info!("the leader ended the session");
                return false;
            }
            Err(status) if connection::is_ordinary_end(&status) => {
                tracing::info!(reason = status.message(), "the session broke");
                return false;
            }
            Err(status) => {
                tracing::warn!(code = ?status.code(), reason = status.message(), "the session broke");
                return false;
            }
        };
        if message.term < self.term {
            tracing::warn!(
                term = message.term,
                known = self.term,
                "dropped a message of a former leader"
            );
            return true;
        }
        self.term = message.term;
        self.mark = self.mark.max(message.mark);
        if self.heard.hear() {
            self.tell_suspect();
            self.queue.wake();
        }
        let now = self.heard.now();
        if let Some(asked) = self.asked.take() {
            self.config.metrics.heartbeat_answered(now.saturating_sub(asked));
        }
        for command in message.commands.iter().filter_map(|command| command.command.as_ref()) {
            let obeyed = match command {
                // Settled when the session was opened.
                Command::Welcome(_) => Ok(()),
                Command::Grant(grant) => self.book.grant(grant),
                Command::CommitReply(reply) => self.book.reply(reply),
                Command::Stop(stop) => self.book.stop(stop, now),
            };
            if let Err(error) = obeyed {
                tracing::warn!(%error, "ignored a command of the leader that cannot be read");
            }
        }
        self.book.begin_granted();
        true
    }

    /// Tells, once each, that the worker has become suspect and that it is no more.
    fn tell_suspect(&mut self) {
        let suspect = self.heard.is_suspect();
        if suspect == self.suspect {
            return;
        }
        self.suspect = suspect;
        self.config.metrics.suspect(suspect);
        if suspect {
            tracing::warn!(
                lease = ?self.heard.lease(), held = self.book.held(), queued = self.queue.len(),
                "suspect: no leader was heard for a lease time. Nothing new is begun; what is open is finished, \
                 sealed and kept until a leader says whether it still counts"
            );
        } else {
            tracing::info!(held = self.book.held(), "suspect no more: a leader was heard");
        }
    }

    /// Sends all that is to be sent as one message. False: the stream is gone.
    fn send(&mut self) -> bool {
        let Some(outbound) = &self.outbound else { return false };
        let events = std::mem::take(&mut self.book.out);
        // Only this task sends, so the room that was found is still there.
        outbound.try_send(v1::WorkerMessage { events }).is_ok()
    }

    fn disconnect(&mut self, reaching: Reaching) -> Reaching {
        self.inbound = None;
        self.outbound = None;
        self.beat = None;
        self.asked = None;
        self.config.metrics.disconnected();
        if !self.book.is_draining() {
            self.config.metrics.enter(metrics::State::Connecting);
        }
        self.current.send_replace(None);
        match reaching {
            Reaching::Idle(mut dialer) => {
                // The one that has just gone is the least likely to be back.
                dialer.turn();
                dial(*dialer)
            }
            under_way => under_way,
        }
    }

    /// Says what is left to say and lets the leader see the end of the stream.
    async fn leave(&mut self) {
        let deadline = Instant::now() + LEAVE_GRACE;
        self.current.send_replace(None);
        if let Some(outbound) = self.outbound.take()
            && !self.book.out.is_empty()
        {
            let rest = v1::WorkerMessage {
                events: std::mem::take(&mut self.book.out),
            };
            timeout_at(deadline, outbound.send(rest)).await.ok();
        }
        if let Some(mut inbound) = self.inbound.take() {
            let end = async { while let Ok(Some(_)) = inbound.message().await {} };
            timeout_at(deadline, end).await.ok();
        }
    }
}

fn dial(mut dialer: Dialer) -> Reaching {
    Reaching::Trying(Box::pin(async move {
        let (endpoint, channel) = dialer.connect().await;
        (dialer, Reached::Channel(endpoint, channel))
    }))
}

async fn reach(reaching: &mut Reaching) -> (Dialer, Reached) {
    match reaching {
        Reaching::Trying(trying) => trying.await,
        Reaching::Idle(_) => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn beat(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

async fn next(inbound: &mut Option<Streaming<v1::LeaderMessage>>) -> Result<Option<v1::LeaderMessage>, Status> {
    match inbound {
        Some(inbound) => inbound.message().await,
        None => std::future::pending().await,
    }
}

/// Resolves once a message can be sent without waiting. False: the stream is gone.
async fn has_room(outbound: &Option<mpsc::Sender<v1::WorkerMessage>>) -> bool {
    match outbound {
        Some(outbound) => outbound.reserve().await.is_ok(),
        None => std::future::pending().await,
    }
}

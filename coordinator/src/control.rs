//! The control loop: the one thread that owns the state.
//!
//! It takes a bounded batch of events, decides and applies each in memory, writes their rows in one
//! store transaction, and only then lets answers, effects and reads out. So nothing that anyone has
//! seen can be lost, and while a transaction is under way the next batch gathers.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use gapless_common::{
    ids::{ClusterId, RunId, SessionId, Term},
    labels::Labels,
};
use gapless_core::{
    Answer, Change, Decision, Effect, Event, Refusal, Row, State, Timestamp,
    decide::{self, decide},
    event::Held,
    history::{self, Entry, Kind},
    limits::{MAX_GRANTS, MAX_ROWS},
    row::ClusterRow,
    schema::SCHEMA,
};
use gapless_platform::{clock::Clock, retry::Delays, shutdown::Shutdown};
use gapless_proto::v1;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::{
    identity::{Older, Seen},
    limits::{BEHIND, EVENT_QUEUE, HARD_OF_HEARING, MESSAGES_PER_BATCH, OUTBOX, QUEUE_WAIT, STALL},
    metrics::Metrics,
    store::{Batch, Store, StoreError, Write},
    takeover::{Hold, TakenOver},
    traced, wire,
};

/// What reaches the loop.
enum Message {
    /// An event whose sender waits for the answer.
    Ask(Event, Reply),
    /// Events of a worker; what follows goes to its outbox.
    Tell(Vec<Event>),
    Connect(Hello, Welcome),
    /// A read of the state, answered after the batch it saw is durable.
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
        let mut control_loop = Loop {
            runtime: Handle::current(),
            stop,
            most: Most {
                rows: store.rows_per_batch(),
                creates: store.creates_per_batch(),
                bytes: store.bytes_per_batch(),
            },
            store,
            clock,
            config,
            state,
            store_term,
            reign: Uuid::new_v4(),
            older: None,
            mark: Arc::default(),
            term,
            seq,
            listened: now,
            outboxes: HashMap::new(),
            changed,
            waits,
            metrics,
        };
        let control = Control {
            messages,
            changes,
            waiting,
            cluster: cluster.cluster,
            mark: control_loop.mark.clone(),
        };
        let founded = (!is_founded).then_some(cluster);
        let thread = thread::Builder::new().name("control".into()).spawn(move || {
            control_loop.metrics.leads(term);
            let ended = control_loop.run(founded, stored.outdated, queue);
            if let Err(error) = &ended {
                error!(%error, "the control loop has ended");
            }
            if ended.is_ok()
                && let Some(why) = control_loop.older.take()
            {
                control_loop.metrics.leads_no_more();
                return Ok(End::Older(Box::new(Hold {
                    store: control_loop.store,
                    term: store_term,
                    seq: control_loop.seq,
                    cluster: control_loop.state.cluster,
                    why,
                })));
            }
            control_loop.store.end_term();
            control_loop.metrics.leads_no_more();
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
            // Nobody waits any more: the reader has gone away.
            let _ = reply.send(read(state));
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

struct Loop {
    runtime: Handle,
    stop: Shutdown,
    most: Most,
    store: Box<dyn Store>,
    clock: Clock,
    config: ControlConfig,
    state: State,
    /// The term as the store counts it.
    store_term: Term,
    /// Tells this loop from all others, whatever terms they had.
    reign: Uuid,
    /// Why this store must not be worked on any more, once that is known.
    older: Option<Older>,
    /// For others to see; 0 before the first write.
    mark: Arc<AtomicU64>,
    term: Term,
    seq: u64,
    /// When it last turned to its queue.
    listened: Timestamp,
    outboxes: HashMap<SessionId, mpsc::Sender<v1::LeaderMessage>>,
    changed: watch::Sender<Changes>,
    waits: watch::Sender<Option<Waiting>>,
    metrics: Metrics,
}

type Welcome = oneshot::Sender<Result<Connected, Refusal>>;
type Reply = oneshot::Sender<Result<Answer, Refusal>>;
type Read = Box<dyn FnOnce(&State) + Send>;

/// What leaves the loop once a batch is durable.
#[derive(Default)]
struct Outgoing {
    writes: Vec<Write>,
    /// How many of the writes create a row.
    creates: usize,
    /// Where the writes of each decision end.
    ends: Vec<usize>,
    answers: Vec<(Reply, Result<Answer, Refusal>)>,
    connected: Vec<(Welcome, Result<Connected, Refusal>)>,
    reads: Vec<Read>,
    commands: HashMap<SessionId, Vec<v1::LeaderCommand>>,
    closed: Vec<SessionId>,
    /// Events that follow from decisions of this batch.
    follow: VecDeque<Event>,
    /// Whether so much waits that silence is no sign of a loss.
    behind: bool,
    touched: bool,
    /// A run has come to its end.
    ended: bool,
}

impl Loop {
    fn run(
        &mut self,
        founded: Option<ClusterRow>,
        outdated: Vec<Row>,
        mut queue: mpsc::Receiver<Message>,
    ) -> Result<(), StoreError> {
        self.raise_schema(outdated)?;
        self.found(founded)?;
        let mut granted_all = true;
        loop {
            let mut next = match granted_all {
                true => queue.blocking_recv(),
                false => queue.try_recv().ok(),
            };
            if granted_all && next.is_none() {
                return Ok(());
            }
            let begun = self.clock.monotonic();
            self.listen();
            let mut out = Outgoing {
                behind: queue.len() >= BEHIND,
                ..Outgoing::default()
            };
            let mut stopping = false;
            for _ in 0..MESSAGES_PER_BATCH {
                let Some(message) = next.take() else { break };
                stopping |= matches!(message, Message::Stop);
                self.take(message, &mut out)?;
                if self.older.is_some() {
                    break;
                }
                next = if out.writes.len() < self.most.rows {
                    queue.try_recv().ok()
                } else {
                    None
                };
            }
            // A message that was taken off the queue but not looked at would be lost.
            if let Some(message) = next {
                stopping |= matches!(message, Message::Stop);
                self.take(message, &mut out)?;
            }
            if self.older.is_some() {
                // What was decided before this was known stands; nothing follows from it.
                self.write(&mut out)?;
                self.send(out);
                return Ok(());
            }
            granted_all = self.follow_up(&mut out);
            let wrote = !out.writes.is_empty();
            self.write(&mut out)?;
            self.send(out);
            if wrote {
                self.metrics.batch_done(self.clock.monotonic().saturating_sub(begun));
            }
            if self.metrics.turned() {
                self.metrics.publish(&self.state);
            }
            if stopping {
                return Ok(());
            }
        }
    }

    /// Brings the rows of a store of an older schema to this release's form. The cluster row comes first,
    /// so that no release that does not know the form takes over in between; and last, to say that all is
    /// done. Whoever takes over in between goes on with what is left.
    fn raise_schema(&mut self, outdated: Vec<Row>) -> Result<(), StoreError> {
        let Some(cluster) = self.state.cluster.as_ref().filter(|row| row.oldest < SCHEMA) else {
            return Ok(());
        };
        let cluster = cluster.raised();
        info!(
            rows = outdated.len(),
            from = cluster.oldest,
            to = SCHEMA,
            "raising the schema of the store"
        );
        let put = |row: &Row| Write::Put(row.key().to_string(), row.encode());
        self.write_batch(vec![put(&Row::Cluster(cluster.clone()))])?;
        for rows in outdated.chunks(self.most.creates) {
            let rows = rows.iter().filter(|row| !matches!(row, Row::Cluster(_)));
            self.write_batch(rows.map(put).collect())?;
        }
        let cluster = ClusterRow {
            oldest: SCHEMA,
            ..cluster
        };
        let mut out = Outgoing::default();
        self.apply(vec![Change::Put(Row::Cluster(cluster))], &mut out);
        self.write(&mut out)
    }

    /// The first batch of a term: the cluster's identity, and the sessions that cannot live any more.
    fn found(&mut self, founded: Option<ClusterRow>) -> Result<(), StoreError> {
        let mut out = Outgoing::default();
        if let Some(row) = founded {
            info!(cluster = %row.cluster, "a new cluster is founded");
            self.apply(vec![Change::Create(Row::Cluster(row))], &mut out);
        }
        if self.config.workers_died {
            let sessions: Vec<SessionId> = self.state.sessions.keys().copied().collect();
            for session in sessions {
                // Losing a session is never refused.
                let _ = self.decide(Event::Lost { session }, &mut out);
            }
        }
        self.follow_up(&mut out);
        self.write(&mut out)?;
        self.note_mark();
        self.send(out);
        Ok(())
    }

    /// A loop that waited for its store, or whose process stood still, has heard nobody meanwhile, however
    /// loudly they spoke: that time is nobody's silence.
    fn listen(&mut self) {
        let now = self.now();
        let away = now.micros_since(self.listened);
        if let Some(deaf) = away.checked_sub(HARD_OF_HEARING.as_micros() as u64) {
            self.state.pass_over(deaf);
        }
        self.listened = now;
    }

    /// Lets others see how far the store has come.
    fn note_mark(&self) {
        let mark = Term::of(self.term.epoch(), self.store.reached());
        self.mark.store(mark.0, Ordering::Relaxed);
    }

    /// Whether a worker has seen this cluster come further than this store ever did. One that has seen a
    /// later leader proves only that this one leads no more, if it does not.
    fn is_behind(&mut self, hello: &Hello) -> Result<bool, StoreError> {
        if hello.mark < self.term || hello.reign == Some(self.reign) {
            return Ok(false);
        }
        self.store.confirm(self.store_term)?;
        self.older = Some(Older::Behind {
            term: self.term,
            seen: Seen {
                cluster: self
                    .state
                    .cluster
                    .as_ref()
                    .map_or(ClusterId(Uuid::nil()), |row| row.cluster),
                mark: hello.mark,
                by: format!("worker {}", hello.name),
            },
        });
        Ok(true)
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_micros())
    }

    fn take(&mut self, message: Message, out: &mut Outgoing) -> Result<(), StoreError> {
        match message {
            Message::Ask(event, reply) => {
                let answer = self.decide(event, out).map(|answer| answer.unwrap_or(Answer::Done));
                out.answers.push((reply, answer));
            }
            Message::Tell(events) => {
                for event in events {
                    self.tell(event, out);
                }
            }
            Message::Connect(hello, reply) => match self.is_behind(&hello) {
                Ok(false) => self.connect(hello, reply, out),
                // It comes again, and is told then.
                Ok(true) => {}
                Err(StoreError::Unknown { reason }) => {
                    debug!(worker = %hello.name, reason, "it has seen a later term, and the store does not answer");
                }
                Err(error) => return Err(error),
            },
            Message::Read(read) => out.reads.push(read),
            Message::Renew => {
                let now = self.now();
                self.state.renew_sessions(now);
            }
            Message::Tick => {
                let now = self.now();
                self.state.note(&Event::Tick, now);
                // Those that were not heard may be in the queue, or behind it.
                let judged = decide::due(&self.state, now)
                    .into_iter()
                    .filter(|event| !(out.behind && matches!(event, Event::Lost { .. })));
                out.follow.extend(judged);
            }
            Message::Stop => {}
        }
        Ok(())
    }

    /// A worker's event. A refused commit is answered as such; other refusals need no answer, since
    /// the next heartbeat settles what the worker holds.
    fn tell(&mut self, event: Event, out: &mut Outgoing) {
        let commit = match &event {
            Event::Commit {
                session,
                task,
                fence,
                commit,
            } => Some((*session, *task, *fence, commit.seq)),
            _ => None,
        };
        if let Event::Heard { session, .. } = &event {
            out.touched = true;
            // Every heartbeat is answered, with an empty message if need be: a worker that hears
            // nothing for a lease time must take no new work.
            out.commands.entry(*session).or_default();
        }
        let Err(refusal) = self.decide(event, out) else { return };
        debug!(%refusal, "refused");
        if let Some((session, task, fence, seq)) = commit {
            let effect = Effect::Refused {
                session,
                task,
                fence,
                seq,
                refusal,
            };
            self.effect(effect, out);
        } else if let Refusal::SessionOver { session } = refusal {
            out.closed.push(session);
        }
    }

    fn connect(&mut self, hello: Hello, reply: Welcome, out: &mut Outgoing) {
        if reply.is_closed() {
            // It did not wait so long, and has come again since: a session of its own would only take from
            // the one that lives.
            return;
        }
        let session = SessionId(Uuid::now_v7());
        let cluster = self
            .state
            .cluster
            .as_ref()
            .map(|row| row.cluster.0.as_bytes().to_vec())
            .unwrap_or_default();
        let welcome = v1::Welcome {
            session: session.0.as_bytes().to_vec().into(),
            cluster: cluster.into(),
            lease_ms: self.config.lease_ms,
            heartbeat_ms: self.config.heartbeat_ms,
            reign: self.reign.as_bytes().to_vec().into(),
        };
        let (worker, slots, labels) = (hello.name.clone(), hello.slots, hello.labels.to_string());
        let event = Event::Connect {
            session,
            worker: hello.worker,
            name: hello.name,
            version: hello.version,
            slots: hello.slots,
            labels: hello.labels,
            held: hello.held,
        };
        // The welcome comes first, whatever else is said to it.
        command(out, session, v1::leader_command::Command::Welcome(welcome));
        if let Err(refusal) = self.decide(event, out) {
            warn!(%worker, %refusal, "a worker is refused");
            out.commands.remove(&session);
            out.connected.push((reply, Err(refusal)));
            return;
        }
        let (outbox, messages) = mpsc::channel(OUTBOX);
        self.outboxes.insert(session, outbox);
        info!(%worker, slots, %labels, %session, "worker connected");
        let connected = Connected {
            session,
            outbox: messages,
        };
        out.connected.push((reply, Ok(connected)));
    }

    fn decide(&mut self, event: Event, out: &mut Outgoing) -> Result<Option<Answer>, Refusal> {
        let now = self.now();
        self.state.note(&event, now);
        let failed = match &event {
            Event::Failed { error, .. } => Some(error.class),
            _ => None,
        };
        let Decision { rows, answer, effects } = decide(&self.state, now, event)?;
        if let Some(class) = failed {
            self.metrics.attempt_failed(class);
        }
        self.apply(rows, out);
        for effect in effects {
            self.effect(effect, out);
        }
        Ok(answer)
    }

    fn apply(&mut self, rows: Vec<Change>, out: &mut Outgoing) {
        let now = self.now();
        for change in rows {
            if let Change::Put(Row::Run(_, row)) = &change {
                out.ended |= row.finished.is_some();
            }
            out.creates += usize::from(matches!(change, Change::Create(_)));
            out.writes.push(match &change {
                Change::Put(row) => Write::Put(row.key().to_string(), row.encode()),
                Change::Create(row) => Write::Create(row.key().to_string(), row.encode()),
                Change::Delete(key) => Write::Delete(key.to_string()),
            });
            self.metrics.count(&self.state, &change);
            let told = history::told_by(&self.state, &change, now);
            self.state.apply(change, now);
            if let Some((run, entry)) = told {
                traced::told(&self.state, run, &entry);
                self.remember(run, entry);
            }
        }
        out.ends.push(out.writes.len());
    }

    fn remember(&mut self, run: RunId, entry: Entry) {
        info!(%run, step = entry.step, kind = entry.kind.name(), "{}", entry.text);
        self.state.remember(run, entry);
    }

    fn effect(&mut self, effect: Effect, out: &mut Outgoing) {
        use v1::leader_command::Command;
        match effect {
            Effect::Grant { session, grant } => command(out, session, wire::grant_out(grant)),
            Effect::Committed {
                session,
                task,
                fence,
                seq,
            } => {
                let reply = commit_reply(task, fence, seq, None);
                command(out, session, Command::CommitReply(reply));
            }
            Effect::Refused {
                session,
                task,
                fence,
                seq,
                refusal,
            } => {
                warn!(%task, %fence, seq, %refusal, "commit refused");
                self.metrics.commit_refused();
                let reply = commit_reply(task, fence, seq, Some(refusal.to_string()));
                command(out, session, Command::CommitReply(reply));
            }
            Effect::StopAttempt {
                session,
                task,
                fence,
                at_checkpoint,
                reason,
            } => {
                let stop = v1::StopAttempt {
                    task: Some(wire::task_out(task)),
                    fence: Some(wire::fence_out(fence)),
                    at_checkpoint,
                    reason: reason.to_string(),
                };
                command(out, session, Command::Stop(stop));
            }
            Effect::Close { session } => out.closed.push(session),
            Effect::Continue(continuation) => out.follow.push_back(Event::Continue(continuation)),
            Effect::Note { run, step, kind, text } => {
                let entry = Entry {
                    at: self.now(),
                    step: (kind != Kind::Resumed).then_some(step),
                    kind,
                    text,
                };
                self.remember(run, entry);
            }
        }
    }

    /// Decides what follows from the batch itself, then grants what is ready, as long as the batch has
    /// room: what was granted goes out while the rest is written with the next batch. False where there
    /// may be more to grant.
    fn follow_up(&mut self, out: &mut Outgoing) -> bool {
        loop {
            while let Some(event) = out.follow.pop_front() {
                if let Err(refusal) = self.decide(event, out) {
                    debug!(%refusal, "refused");
                }
            }
            let before = out.writes.len();
            // Assigning is never refused.
            let _ = self.decide(Event::Assign, out);
            if out.follow.is_empty() {
                let granted_all = out.writes.len() == before;
                let full = out.creates + MAX_GRANTS > self.most.creates || out.writes.len() + MAX_ROWS > self.most.rows;
                if granted_all || full {
                    return granted_all;
                }
            }
        }
    }

    /// Makes all durable that was decided, in as many batches as the store needs.
    fn write(&mut self, out: &mut Outgoing) -> Result<(), StoreError> {
        out.touched |= !out.writes.is_empty();
        let (writes, ends) = (std::mem::take(&mut out.writes), std::mem::take(&mut out.ends));
        for writes in batches(writes, &ends, self.most) {
            self.write_batch(writes)?;
        }
        Ok(())
    }

    /// Makes a batch durable. An unknown outcome is settled by asking again with the same batch, for as
    /// long as the store allows: nobody may be answered meanwhile, and a term that is not lost is kept.
    fn write_batch(&mut self, writes: Vec<Write>) -> Result<(), StoreError> {
        let batch = Batch {
            term: self.store_term,
            seq: self.seq + 1,
            writes,
        };
        let mut delays = Delays::new(self.store.unknown_policy());
        let mut tries = 0u32;
        let begun = self.clock.monotonic();
        loop {
            match self.store.write(&batch) {
                Ok(()) => break,
                Err(StoreError::OutOfSequence { offered, stored }) if offered == stored && tries > 0 => break,
                Err(error @ (StoreError::Unknown { .. } | StoreError::Full { .. })) => {
                    self.metrics.store_asked_again();
                    tries += 1;
                    if tries.is_power_of_two() {
                        warn!(%error, tries, seq = batch.seq, "a batch is not written yet; asking again");
                    }
                    self.waits.send_replace(Some(Waiting::on(&error)));
                    let delay = delays.next_delay().filter(|_| !self.stop.is_stopping());
                    let Some(delay) = delay else {
                        return Err(error);
                    };
                    // A loop that asks is not stuck.
                    self.metrics.turned();
                    let wait = async { tokio::time::sleep(delay).await };
                    self.runtime.block_on(self.stop.stopping().run_until_cancelled(wait));
                }
                Err(lost) => return Err(lost),
            }
        }
        if tries > 0 {
            info!(tries, seq = batch.seq, "the batch is written");
            self.waits.send_replace(None);
        }
        self.seq += 1;
        self.note_mark();
        let took = self.clock.monotonic().saturating_sub(begun);
        self.metrics.stored(batch.writes.len(), took);
        Ok(())
    }

    fn send(&mut self, out: Outgoing) {
        let mark = self.mark.load(Ordering::Relaxed);
        for (session, commands) in out.commands {
            let Some(outbox) = self.outboxes.get(&session) else {
                continue;
            };
            let message = v1::LeaderMessage {
                term: self.term.0,
                commands,
                mark,
            };
            if let Err(mpsc::error::TrySendError::Closed(_)) = outbox.try_send(message) {
                self.outboxes.remove(&session);
            }
        }
        for session in out.closed {
            self.outboxes.remove(&session);
        }
        for (reply, connected) in out.connected {
            // The worker has gone away again: its stream's end is told by the service.
            let _ = reply.send(connected);
        }
        for (reply, answer) in out.answers {
            // The client has gone away; what it asked for is done all the same.
            let _ = reply.send(answer);
        }
        for read in out.reads {
            read(&self.state);
        }
        if out.touched {
            self.changed.send_modify(|changes| {
                changes.any += 1;
                changes.ends += u64::from(out.ended);
            });
        }
    }
}

/// What one batch may hold; in bytes, what goes well into one.
#[derive(Clone, Copy, Debug)]
struct Most {
    rows: usize,
    creates: usize,
    bytes: usize,
}

impl Most {
    /// What would be left of it beside `writes`; `None` where they do not fit.
    fn beside(self, writes: &[Write]) -> Option<Most> {
        let (mut creates, mut bytes) = (0, 0);
        for write in writes {
            bytes += match write {
                Write::Put(key, value) => key.len() + value.len(),
                Write::Create(key, value) => {
                    creates += 1;
                    key.len() + value.len()
                }
                Write::Delete(key) => key.len(),
            };
        }
        Some(Most {
            rows: self.rows.checked_sub(writes.len())?,
            creates: self.creates.checked_sub(creates)?,
            bytes: self.bytes.checked_sub(bytes)?,
        })
    }
}

/// Cuts what was decided into batches: decisions stay whole, and their order stays. One that is larger
/// than a batch by itself is left to the store to take or to refuse.
fn batches(writes: Vec<Write>, ends: &[usize], most: Most) -> Vec<Vec<Write>> {
    let mut batches: Vec<Vec<Write>> = Vec::new();
    let mut left = None;
    let mut writes = writes.into_iter();
    let mut begin = 0;
    for &end in ends {
        let decision: Vec<Write> = writes.by_ref().take(end - begin).collect();
        begin = end;
        if decision.is_empty() {
            continue;
        }
        match (batches.last_mut(), left.and_then(|left: Most| left.beside(&decision))) {
            (Some(last), Some(rest)) => {
                last.extend(decision);
                left = Some(rest);
            }
            _ => {
                left = most.beside(&decision);
                batches.push(decision);
            }
        }
    }
    batches
}

impl Waiting {
    fn on(error: &StoreError) -> Waiting {
        match error {
            StoreError::Full { reason } => Waiting::Full { reason: reason.clone() },
            _ => Waiting::Unknown,
        }
    }
}

fn command(out: &mut Outgoing, session: SessionId, command: v1::leader_command::Command) {
    out.commands
        .entry(session)
        .or_default()
        .push(v1::LeaderCommand { command: Some(command) });
}

fn commit_reply(
    task: gapless_common::ids::TaskKey,
    fence: gapless_common::attempt::Fence,
    seq: u32,
    refusal: Option<String>,
) -> v1::CommitReply {
    v1::CommitReply {
        task: Some(wire::task_out(task)),
        fence: Some(wire::fence_out(fence)),
        seq,
        accepted: refusal.is_none(),
        reason: refusal.unwrap_or_default(),
    }
}

#[cfg(test)]
pub mod store_waits;

#[cfg(test)]
mod tests {
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

    #[test]
    fn decisions_stay_whole_and_in_order() {
        let check = |sizes: &[usize], most: usize, expected: &[usize]| {
            let writes: Vec<Write> = (0..sizes.iter().sum())
                .map(|n: usize| Write::Delete(n.to_string()))
                .collect();
            let ends: Vec<usize> = sizes
                .iter()
                .scan(0, |end, size| {
                    *end += size;
                    Some(*end)
                })
                .collect();
            let most = Most {
                rows: most,
                creates: 0,
                bytes: 10_000,
            };
            let cut = batches(writes.clone(), &ends, most);
            assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{sizes:?}");
            assert_eq!(cut.concat(), writes);
        };
        check(&[], 96, &[]);
        check(&[0, 0], 96, &[]);
        check(&[96, 1, 0, 95], 96, &[96, 96]);
        check(&[50, 50, 0, 46, 1], 96, &[50, 96, 1]);
        check(&[0, 40, 40, 40], 96, &[80, 40]);
        check(&[200, 1], 96, &[200, 1]);
    }
    #[test]
    fn a_batch_creates_so_many_rows_and_holds_so_many_bytes() {
        let create = |bytes: usize| Write::Create("k".into(), vec![0; bytes - 1]);
        let put = |bytes: usize| Write::Put("k".into(), vec![0; bytes - 1]);
        let most = Most {
            rows: 100,
            creates: 2,
            bytes: 50,
        };
        let check = |decisions: &[&[Write]], expected: &[usize]| {
            let ends: Vec<usize> = (0..decisions.len()).map(|at| decisions[..=at].concat().len()).collect();
            let cut = batches(decisions.concat(), &ends, most);
            assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), expected);
            assert_eq!(cut.concat(), decisions.concat());
        };
        check(&[&[create(1)], &[create(1)], &[create(1)], &[put(1)]], &[2, 2]);
        check(&[&[create(1), create(1), create(1)], &[put(1)]], &[3, 1]);
        check(&[&[put(30)], &[put(20)], &[put(1)]], &[2, 1]);
        check(&[&[put(60)], &[put(20)], &[put(30)]], &[1, 2]);
    }
}

//! The control loop: the one thread that owns the state.
//!
//! It takes a bounded batch of events, decides and applies each in memory, writes their rows in one
//! store transaction, and only then lets answers, effects and reads out. So nothing that anyone has
//! seen can be lost, and while a transaction is under way the next batch gathers.

use std::{
    collections::{HashMap, VecDeque},
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
    row::ClusterRow,
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
    limits::{BEHIND, EVENT_QUEUE, MESSAGES_PER_BATCH, OUTBOX, QUEUE_WAIT, STALL},
    metrics::Metrics,
    store::{Batch, Store, StoreError, Write},
    wire,
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

/// Why the loop gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// Nothing was done.
    #[error(
        "the coordinator has more to do than it can: {EVENT_QUEUE} events wait, and there was no place for another within {QUEUE_WAIT:?}; try again in a moment"
    )]
    Behind,
}

/// The way to the loop, for services.
#[derive(Clone)]
pub struct Control {
    messages: mpsc::Sender<Message>,
    changes: watch::Receiver<Changes>,
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
    /// Begins a term on the store, rebuilds the state and starts the loop, which ends with its
    /// [`Control::stop`], with its term, or at once when `stop` does. On a thread that may block, of a
    /// runtime with time.
    pub fn start(
        mut store: Box<dyn Store>,
        clock: Clock,
        config: ControlConfig,
        stop: Shutdown,
        metrics: Metrics,
    ) -> Result<(Control, JoinHandle<Result<(), StoreError>>), StoreError> {
        let term = store.begin_term()?;
        let now = Timestamp(clock.now_micros());
        let rows = match read_rows(&*store) {
            Ok(rows) => rows,
            Err(error) => {
                store.end_term();
                return Err(error);
            }
        };
        let stall = STALL.as_millis() as u64;
        let state = State::recover(term, u64::from(config.lease_ms), stall, rows, now);
        info!(%term, runs = state.runs.len(), sessions = state.sessions.len(), "leading");
        let (messages, queue) = mpsc::channel(EVENT_QUEUE);
        let (changed, changes) = watch::channel(Changes::default());
        let mut control_loop = Loop {
            runtime: Handle::current(),
            stop,
            rows_per_batch: store.rows_per_batch(),
            store,
            clock,
            config,
            state,
            term,
            seq: 0,
            outboxes: HashMap::new(),
            changed,
            metrics,
        };
        let thread = thread::Builder::new().name("control".into()).spawn(move || {
            control_loop.metrics.leads(term);
            let ended = control_loop.run(queue);
            if let Err(error) = &ended {
                error!(%error, "the control loop has ended");
            }
            control_loop.store.end_term();
            control_loop.metrics.leads_no_more();
            ended
        });
        let thread = thread.map_err(|error| StoreError::Read {
            reason: format!("no thread for the loop: {error}"),
        })?;
        Ok((Control { messages, changes }, thread))
    }

    /// Sends an event and waits for what was decided, once it is durable.
    pub async fn ask(&self, event: Event) -> Result<Result<Answer, Refusal>, Unanswered> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Message::Ask(event, reply)).await?;
        Ok(answer.await.map_err(|_| NotLeading)?)
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
        self.enqueue(Message::Read(read)).await?;
        Ok(answer.await.map_err(|_| NotLeading)?)
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

    /// Whether the loop has ended.
    pub fn is_over(&self) -> bool {
        self.messages.is_closed()
    }

    /// Changes whenever the state may look different to a watcher.
    pub fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.clone()
    }
}

fn read_rows(store: &dyn Store) -> Result<Vec<Row>, StoreError> {
    let rows = store.rows()?;
    let rows: Result<Vec<Row>, _> = rows.iter().map(|(key, value)| Row::decode(key, value)).collect();
    rows.map_err(|error| StoreError::Read {
        reason: error.to_string(),
    })
}

struct Loop {
    runtime: Handle,
    stop: Shutdown,
    rows_per_batch: usize,
    store: Box<dyn Store>,
    clock: Clock,
    config: ControlConfig,
    state: State,
    term: Term,
    seq: u64,
    outboxes: HashMap<SessionId, mpsc::Sender<v1::LeaderMessage>>,
    changed: watch::Sender<Changes>,
    metrics: Metrics,
}

type Welcome = oneshot::Sender<Result<Connected, Refusal>>;
type Reply = oneshot::Sender<Result<Answer, Refusal>>;
type Read = Box<dyn FnOnce(&State) + Send>;

/// What leaves the loop once a batch is durable.
#[derive(Default)]
struct Outgoing {
    writes: Vec<Write>,
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
    fn run(&mut self, mut queue: mpsc::Receiver<Message>) -> Result<(), StoreError> {
        self.found()?;
        while let Some(first) = queue.blocking_recv() {
            let begun = self.clock.monotonic();
            let mut out = Outgoing {
                behind: queue.len() >= BEHIND,
                ..Outgoing::default()
            };
            let mut stopping = false;
            let mut next = Some(first);
            for _ in 0..MESSAGES_PER_BATCH {
                let Some(message) = next else { break };
                stopping |= matches!(message, Message::Stop);
                self.take(message, &mut out);
                next = if out.writes.len() < self.rows_per_batch {
                    queue.try_recv().ok()
                } else {
                    None
                };
            }
            // A message that was taken off the queue but not looked at would be lost.
            if let Some(message) = next {
                stopping |= matches!(message, Message::Stop);
                self.take(message, &mut out);
            }
            self.follow_up(&mut out);
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
        Ok(())
    }

    /// The first batch of a term: the cluster's identity, and the sessions that cannot live any more.
    fn found(&mut self) -> Result<(), StoreError> {
        let mut out = Outgoing::default();
        if self.state.cluster.is_none() {
            let row = ClusterRow {
                cluster: ClusterId(Uuid::new_v4()),
                schema: ClusterRow::SCHEMA,
            };
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
        self.send(out);
        Ok(())
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_micros())
    }

    fn take(&mut self, message: Message, out: &mut Outgoing) {
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
            Message::Connect(hello, reply) => self.connect(hello, reply, out),
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
            out.writes.push(match &change {
                Change::Put(row) => Write::Put(row.key().to_string(), row.encode()),
                Change::Create(row) => Write::Create(row.key().to_string(), row.encode()),
                Change::Delete(key) => Write::Delete(key.to_string()),
            });
            self.metrics.count(&self.state, &change);
            let told = history::told_by(&self.state, &change, now);
            self.state.apply(change, now);
            if let Some((run, entry)) = told {
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

    /// Decides what follows from the batch itself, then grants what is ready.
    fn follow_up(&mut self, out: &mut Outgoing) {
        loop {
            while let Some(event) = out.follow.pop_front() {
                if let Err(refusal) = self.decide(event, out) {
                    debug!(%refusal, "refused");
                }
            }
            let before = out.writes.len();
            // Assigning is never refused.
            let _ = self.decide(Event::Assign, out);
            if out.follow.is_empty() && (out.writes.len() == before || out.writes.len() >= self.rows_per_batch) {
                return;
            }
        }
    }

    /// Makes all durable that was decided, in as many batches as the store needs.
    fn write(&mut self, out: &mut Outgoing) -> Result<(), StoreError> {
        out.touched |= !out.writes.is_empty();
        let (writes, ends) = (std::mem::take(&mut out.writes), std::mem::take(&mut out.ends));
        for writes in batches(writes, &ends, self.rows_per_batch) {
            self.write_batch(writes)?;
        }
        Ok(())
    }

    /// Makes a batch durable. An unknown outcome is settled by asking again with the same batch, for as
    /// long as the store allows: nobody may be answered meanwhile, and a term that is not lost is kept.
    fn write_batch(&mut self, writes: Vec<Write>) -> Result<(), StoreError> {
        let batch = Batch {
            term: self.term,
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
                Err(StoreError::Unknown { reason }) => {
                    self.metrics.store_asked_again();
                    tries += 1;
                    if tries.is_power_of_two() {
                        warn!(
                            reason,
                            tries,
                            seq = batch.seq,
                            "the outcome of a batch is unknown; asking again"
                        );
                    }
                    let delay = delays.next_delay().filter(|_| !self.stop.is_stopping());
                    let Some(delay) = delay else {
                        return Err(StoreError::Unknown { reason });
                    };
                    let wait = async { tokio::time::sleep(delay).await };
                    self.runtime.block_on(self.stop.stopping().run_until_cancelled(wait));
                }
                Err(lost) => return Err(lost),
            }
        }
        if tries > 0 {
            info!(tries, seq = batch.seq, "the batch is written");
        }
        self.seq += 1;
        let took = self.clock.monotonic().saturating_sub(begun);
        self.metrics.stored(batch.writes.len(), took);
        Ok(())
    }

    fn send(&mut self, out: Outgoing) {
        for (session, commands) in out.commands {
            let Some(outbox) = self.outboxes.get(&session) else {
                continue;
            };
            let message = v1::LeaderMessage {
                term: self.term.0,
                commands,
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

/// Cuts what was decided into batches of at most `most` writes: decisions stay whole, and their order
/// stays. One that is larger by itself is left to the store to refuse.
fn batches(writes: Vec<Write>, ends: &[usize], most: usize) -> Vec<Vec<Write>> {
    let mut batches: Vec<Vec<Write>> = Vec::new();
    let mut writes = writes.into_iter();
    let mut begin = 0;
    for &end in ends {
        let decision: Vec<Write> = writes.by_ref().take(end - begin).collect();
        begin = end;
        match batches.last_mut() {
            Some(last) if last.len() + decision.len() <= most => last.extend(decision),
            _ if decision.is_empty() => {}
            _ => batches.push(decision),
        }
    }
    batches
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
}

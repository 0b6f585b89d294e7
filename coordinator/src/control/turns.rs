//! The loop: it takes messages, decides and applies each, has the rows of a turn written, and lets out what
//! belongs to a turn when that is done.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
};

use gapless_common::ids::{ClusterId, RunId, SessionId, Term};
use gapless_core::{
    Answer, Change, Decision, Effect, Event, Refusal, Row, State, Timestamp,
    decide::{self, decide},
    history::{self, Entry, Kind},
    limits::{MAX_GRANTS, MAX_ROWS},
    row::ClusterRow,
    schema::SCHEMA,
};
use gapless_platform::clock::Clock;
use gapless_proto::v1;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{
    Changes, Connected, ControlConfig, Hello, Message, Waiting, Welcome,
    batches::Most,
    outgoing::{Outgoing, commit_reply},
    writer::{Begun, Pipeline},
};
use crate::{
    identity::{Older, Seen},
    limits::{BEHIND, HARD_OF_HEARING, MESSAGES_PER_BATCH, OUTBOX},
    metrics::Metrics,
    store::{StoreError, Write},
    traced, wire,
};

pub struct Loop {
    pub(super) runtime: Handle,
    pub(super) most: Most,
    pub(super) pipeline: Pipeline,
    /// What leaves when the turn that is being written is durable.
    pub(super) under_way: Option<Outgoing>,
    /// Whether the store does not take what is being written.
    pub(super) waiting: watch::Receiver<Option<Waiting>>,
    pub(super) clock: Clock,
    pub(super) config: ControlConfig,
    /// With all that was decided, durable or not.
    pub(super) state: State,
    /// Tells this loop from all others, whatever terms they had.
    pub(super) reign: Uuid,
    /// Why this store must not be worked on any more, once that is known.
    pub(super) older: Option<Older>,
    /// How far the store has come; 0 before the first write.
    pub(super) mark: Arc<AtomicU64>,
    pub(super) term: Term,
    /// When it last turned to its queue.
    pub(super) listened: Timestamp,
    /// False where there may be more to grant.
    pub(super) granted_all: bool,
    pub(super) outboxes: HashMap<SessionId, mpsc::Sender<v1::LeaderMessage>>,
    pub(super) changed: watch::Sender<Changes>,
    pub(super) metrics: Metrics,
}

/// What the loop has waited for.
enum Woken {
    Message(Message),
    /// The turn that was being written is, or will not be.
    Written(Result<(), StoreError>),
    /// There is something to do without a message.
    ToGoOn,
    /// Nobody is left who could say anything.
    Closed,
}

impl Loop {
    pub(super) fn run(
        &mut self,
        founded: Option<ClusterRow>,
        outdated: Vec<Row>,
        mut queue: mpsc::Receiver<Message>,
    ) -> Result<(), StoreError> {
        self.raise_schema(outdated)?;
        self.found(founded)?;
        let mut turn = Outgoing::default();
        let mut stopping = false;
        loop {
            let mut heard = false;
            match self.wait(&mut queue, &turn, stopping) {
                Woken::Message(message) => {
                    heard = true;
                    stopping |= self.gather(message, &mut queue, &mut turn)?;
                }
                Woken::Written(result) => {
                    let written = self.under_way.take();
                    result?;
                    // The store has something to do again before anything else is done here.
                    let at_once = self.hand_over(&mut turn)?;
                    written.into_iter().chain(at_once).for_each(|turn| self.send(turn));
                }
                Woken::ToGoOn => {}
                Woken::Closed => stopping = true,
            }
            if self.older.is_some() {
                // What was decided before this was known stands; nothing follows from it.
                return self.finish(&mut turn);
            }
            if heard || !self.granted_all {
                self.granted_all = self.follow_up(&mut turn);
            }
            if !self.pipeline.is_writing()
                && let Some(turn) = self.hand_over(&mut turn)?
            {
                self.send(turn);
            }
            if self.metrics.turned() {
                self.metrics.publish(&self.state);
            }
            if stopping && !self.pipeline.is_writing() {
                return Ok(());
            }
        }
    }

    /// Waits for the next thing to do. While a turn is being written the next one is decided, as long as it has
    /// room and the store answers: a loop whose store does not answer listens to nobody.
    fn wait(&mut self, queue: &mut mpsc::Receiver<Message>, turn: &Outgoing, stopping: bool) -> Woken {
        if !self.pipeline.is_writing() {
            return match self.granted_all {
                true => queue.blocking_recv().map_or(Woken::Closed, Woken::Message),
                false => queue.try_recv().map_or(Woken::ToGoOn, Woken::Message),
            };
        }
        let takes = !stopping && self.has_room(turn) && self.waiting.borrow_and_update().is_none();
        if takes && !self.granted_all && !turn.assigned {
            return Woken::ToGoOn;
        }
        let (pipeline, waiting) = (&mut self.pipeline, &mut self.waiting);
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                result = pipeline.written() => Woken::Written(result),
                _ = waiting.changed(), if takes => Woken::ToGoOn,
                message = queue.recv(), if takes => message.map_or(Woken::Closed, Woken::Message),
            }
        })
    }

    /// Takes a message and those that wait behind it, as long as the turn has room. Says whether the loop is to
    /// end.
    fn gather(
        &mut self,
        first: Message,
        queue: &mut mpsc::Receiver<Message>,
        turn: &mut Outgoing,
    ) -> Result<bool, StoreError> {
        self.listen();
        turn.behind = queue.len() >= BEHIND;
        turn.begun.get_or_insert_with(|| self.clock.monotonic());
        let (mut next, mut stopping) = (Some(first), false);
        while let Some(message) = next {
            stopping |= matches!(message, Message::Stop);
            turn.messages += 1;
            self.take(message, turn)?;
            next = match !stopping && self.older.is_none() && self.has_room(turn) {
                true => queue.try_recv().ok(),
                false => None,
            };
        }
        Ok(stopping)
    }

    fn has_room(&self, turn: &Outgoing) -> bool {
        turn.messages < MESSAGES_PER_BATCH && turn.decided.writes.len() < self.most.rows
    }

    /// Begins to write a turn, where none is being written. Answers with it if it may leave now.
    fn hand_over(&mut self, turn: &mut Outgoing) -> Result<Option<Outgoing>, StoreError> {
        let mut turn = std::mem::take(turn);
        if turn.decided.writes.is_empty() {
            return Ok(Some(turn));
        }
        turn.touched = true;
        turn.wrote = true;
        match self.pipeline.begin(std::mem::take(&mut turn.decided))? {
            Begun::Written => Ok(Some(turn)),
            Begun::UnderWay => {
                self.under_way = Some(turn);
                Ok(None)
            }
        }
    }

    /// Waits until nothing is being written, and lets out what was.
    fn settle(&mut self) -> Result<(), StoreError> {
        if let Some(under_way) = self.under_way.take() {
            self.runtime.block_on(self.pipeline.written())?;
            self.send(under_way);
        }
        Ok(())
    }

    /// Makes all durable that was decided, and lets it out.
    fn finish(&mut self, turn: &mut Outgoing) -> Result<(), StoreError> {
        self.settle()?;
        if let Some(turn) = self.hand_over(turn)? {
            self.send(turn);
        }
        self.settle()
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
        self.pipeline
            .writer()?
            .write_batch(vec![put(&Row::Cluster(cluster.clone()))])?;
        for rows in outdated.chunks(self.most.creates) {
            let rows = rows.iter().filter(|row| !matches!(row, Row::Cluster(_)));
            self.pipeline.writer()?.write_batch(rows.map(put).collect())?;
        }
        let cluster = ClusterRow {
            oldest: SCHEMA,
            ..cluster
        };
        let mut out = Outgoing::default();
        self.apply(vec![Change::Put(Row::Cluster(cluster))], &mut out);
        self.finish(&mut out)
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
        self.granted_all = self.follow_up(&mut out);
        self.finish(&mut out)?;
        self.pipeline.writer()?.note_mark();
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

    /// Whether a worker has seen this cluster come further than this store ever did. One that has seen a
    /// later leader proves only that this one leads no more, if it does not.
    fn is_behind(&mut self, hello: &Hello) -> Result<bool, StoreError> {
        if !self.may_be_behind(hello) {
            return Ok(false);
        }
        let writer = self.pipeline.writer()?;
        writer.store.confirm(writer.term)?;
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

    fn may_be_behind(&self, hello: &Hello) -> bool {
        hello.mark >= self.term && hello.reign != Some(self.reign)
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
            Message::Connect(hello, reply) => {
                if self.may_be_behind(&hello) {
                    // It is the store that is asked.
                    self.settle()?;
                }
                match self.is_behind(&hello) {
                    Ok(false) => self.connect(hello, reply, out),
                    // It comes again, and is told then.
                    Ok(true) => {}
                    Err(StoreError::Unknown { reason }) => {
                        debug!(worker = %hello.name, reason, "it has seen a later term, and the store does not answer");
                    }
                    Err(error) => return Err(error),
                }
            }
            Message::Read(read) => out.reads.push(read(&self.state)),
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
        out.command(session, v1::leader_command::Command::Welcome(welcome));
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
            out.decided.push(match &change {
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
        out.decided.end();
    }

    fn remember(&mut self, run: RunId, entry: Entry) {
        info!(%run, step = entry.step, kind = entry.kind.name(), "{}", entry.text);
        self.state.remember(run, entry);
    }

    fn effect(&mut self, effect: Effect, out: &mut Outgoing) {
        use v1::leader_command::Command;
        match effect {
            Effect::Grant { session, grant } => out.command(session, wire::grant_out(grant)),
            Effect::Committed {
                session,
                task,
                fence,
                seq,
            } => {
                let reply = commit_reply(task, fence, seq, None);
                out.command(session, Command::CommitReply(reply));
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
                out.command(session, Command::CommitReply(reply));
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
                out.command(session, Command::Stop(stop));
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

    /// Decides what follows from the turn itself, then grants what is ready, as long as a batch has room: what
    /// was granted goes out while the rest is written with the next turn. False where there may be more to
    /// grant.
    fn follow_up(&mut self, turn: &mut Outgoing) -> bool {
        loop {
            while let Some(event) = turn.follow.pop_front() {
                if let Err(refusal) = self.decide(event, turn) {
                    debug!(%refusal, "refused");
                }
            }
            let (rows, creates) = (turn.decided.writes.len(), turn.decided.creates);
            if turn.assigned && (creates + MAX_GRANTS > self.most.creates || rows + MAX_ROWS > self.most.rows) {
                return false;
            }
            turn.assigned = true;
            // Assigning is never refused.
            let _ = self.decide(Event::Assign, turn);
            if turn.follow.is_empty() && turn.decided.writes.len() == rows {
                return true;
            }
        }
    }
}

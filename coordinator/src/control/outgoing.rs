//! What leaves the loop, once the rows of its turn are durable.

use std::{
    collections::{HashMap, VecDeque},
    sync::atomic::Ordering,
    time::Duration,
};

use gapless_common::{
    attempt::Fence,
    ids::{SessionId, TaskKey},
};
use gapless_core::{Answer, Event, Refusal};
use gapless_proto::v1;
use tokio::sync::mpsc;

use super::{Connected, Reply, Welcome, batches::Decided, turns::Loop};
use crate::wire;

/// Tells a reader what was seen.
pub type Delivery = Box<dyn FnOnce() + Send>;

/// A turn: what was decided together, and what it makes leave.
#[derive(Default)]
pub struct Outgoing {
    pub decided: Decided,
    /// When its first message was taken, on the monotonic clock.
    pub begun: Option<Duration>,
    pub messages: usize,
    /// Whether grants were looked for.
    pub assigned: bool,
    pub answers: Vec<(Reply, Result<Answer, Refusal>)>,
    pub connected: Vec<(Welcome, Result<Connected, Refusal>)>,
    pub reads: Vec<Delivery>,
    pub commands: HashMap<SessionId, Vec<v1::LeaderCommand>>,
    pub closed: Vec<SessionId>,
    /// Events that follow from decisions of this turn.
    pub follow: VecDeque<Event>,
    /// Whether so much waits that silence is no sign of a loss.
    pub behind: bool,
    /// Whether it wrote.
    pub wrote: bool,
    pub touched: bool,
    /// A run has come to its end.
    pub ended: bool,
}

impl Outgoing {
    pub fn command(&mut self, session: SessionId, command: v1::leader_command::Command) {
        self.commands
            .entry(session)
            .or_default()
            .push(v1::LeaderCommand { command: Some(command) });
    }
}

impl Loop {
    /// Lets out what was decided in a turn. Its rows are durable.
    pub(super) fn send(&mut self, out: Outgoing) {
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
        for deliver in out.reads {
            deliver();
        }
        if out.touched {
            self.changed.send_modify(|changes| {
                changes.any += 1;
                changes.ends += u64::from(out.ended);
            });
        }
        if out.wrote
            && let Some(begun) = out.begun
        {
            self.metrics.batch_done(self.clock.monotonic().saturating_sub(begun));
        }
    }
}

pub fn commit_reply(task: TaskKey, fence: Fence, seq: u32, refusal: Option<String>) -> v1::CommitReply {
    v1::CommitReply {
        task: Some(wire::task_out(task)),
        fence: Some(wire::fence_out(fence)),
        seq,
        accepted: refusal.is_none(),
        reason: refusal.unwrap_or_default(),
    }
}

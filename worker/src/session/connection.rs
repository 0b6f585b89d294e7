//! Reaching the leader: endpoint after endpoint, with a pause that grows, until one says welcome. A
//! coordinator that does not lead says who does; that one is tried next.

use std::time::Duration;

use gapless_common::ids::{ClusterId, SessionId};
use gapless_platform::retry::{self, Delays, Policy};
use gapless_proto::{
    LEADER_KEY,
    access::{Access, AccessError, causes, may_send_on},
    v1::{self, leader_command::Command, worker_event::Event, workers_client::WorkersClient},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};

use super::{
    WorkerError,
    limits::{
        CONNECT_TIMEOUT, DIALS_PER_LEASE, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, MAX_OUTBOUND_MESSAGES,
        MAX_SESSION_MESSAGE_BYTES, WELCOME_TIMEOUT,
    },
    wire::{self, WireError},
};

/// An open session.
#[derive(Debug)]
pub struct Link {
    pub endpoint: String,
    pub channel: Channel,
    pub outbound: mpsc::Sender<v1::WorkerMessage>,
    pub inbound: Streaming<v1::LeaderMessage>,
    pub session: SessionId,
    pub cluster: ClusterId,
    pub welcome: v1::Welcome,
    /// The message that the welcome came in: other commands may follow it there.
    pub first: v1::LeaderMessage,
}

/// Why an endpoint did not become a session.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("cannot connect: {}", causes(.0))]
    Connect(#[from] tonic::transport::Error),
    #[error("{:?}: {}", .0.code(), .0.message())]
    Refused(Box<Status>),
    #[error("no welcome within {WELCOME_TIMEOUT:?}")]
    Silent,
    #[error("the session ended before a welcome")]
    Ended,
    #[error("its first message is no welcome")]
    Unexpected,
    #[error("it leads term {found}, but term {known} has been seen: it is no longer the leader")]
    OldTerm { found: u64, known: u64 },
    #[error("its welcome cannot be read: {0}")]
    Malformed(#[from] WireError),
    #[error("it belongs to cluster {found}, this worker to cluster {known}")]
    OtherCluster { known: ClusterId, found: ClusterId },
}

impl LinkError {
    /// The leader that a coordinator named when it refused, where it knows one.
    fn leader(&self) -> Option<&str> {
        let LinkError::Refused(status) = self else { return None };
        let leader = status.metadata().get(LEADER_KEY)?.to_str().ok()?;
        Some(leader).filter(|leader| !leader.is_empty())
    }
}

/// The endpoints, the one to try next, and how long to wait before.
#[derive(Debug)]
pub struct Dialer {
    endpoints: Vec<(String, Endpoint)>,
    access: Access,
    next: usize,
    /// Where another coordinator says that the leader is.
    named: Option<(String, Endpoint)>,
    /// Whether the present try goes where another coordinator sent us. Such a one is not sent on: two
    /// that take each other for the leader must not keep a worker busy.
    sent: bool,
    delays: Delays,
    /// Whether to wait before the next try: not before the first.
    pause: bool,
    /// Failures since the last session.
    failures: u32,
}

impl Dialer {
    /// Errors: [`WorkerError::Access`] for one that is no URL or must not be shown the token,
    /// [`WorkerError::NoEndpoint`].
    pub fn new(endpoints: &[String], access: &Access) -> Result<Self, WorkerError> {
        let parse = |text: &String| {
            let endpoint = endpoint(text, access)?;
            Ok((text.clone(), endpoint))
        };
        let endpoints: Vec<_> = endpoints.iter().map(parse).collect::<Result<_, WorkerError>>()?;
        if endpoints.is_empty() {
            return Err(WorkerError::NoEndpoint);
        }
        Ok(Self {
            endpoints,
            access: access.clone(),
            next: 0,
            named: None,
            sent: false,
            delays: Delays::new(retry::CONNECT),
            pause: false,
            failures: 0,
        })
    }

    /// Waits its turn, then connects to the next endpoint. Endless only in failing: each call is one try.
    pub async fn connect(&mut self) -> (String, Result<Channel, LinkError>) {
        self.sent = self.named.is_some();
        if let Some((name, endpoint)) = self.named.take() {
            let channel = endpoint.connect().await;
            return (name, channel.map_err(LinkError::Connect));
        }
        if self.pause
            && let Some(delay) = self.delays.next_delay()
        {
            tokio::time::sleep(delay).await;
        }
        self.pause = true;
        let (name, endpoint) = &self.endpoints[self.next];
        (name.clone(), endpoint.connect().await.map_err(LinkError::Connect))
    }

    /// On to the next endpoint.
    pub fn turn(&mut self) {
        self.next = (self.next + 1) % self.endpoints.len();
    }

    /// The endpoint was of no use: on to the leader that it names, or to the next one. The first failure
    /// and then ever fewer are told.
    pub fn failed(&mut self, endpoint: &str, error: &LinkError) {
        if !self.sent {
            self.turn();
            let named = error.leader();
            let named = named.filter(|leader| *leader != endpoint && may_send_on(endpoint, leader));
            self.named =
                named.and_then(|leader| Some((leader.to_string(), self::endpoint(leader, &self.access).ok()?)));
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures.is_power_of_two() {
            tracing::warn!(endpoint, %error, failures = self.failures, "no session here; trying on");
        } else {
            tracing::debug!(endpoint, %error, failures = self.failures, "no session here; trying on");
        }
    }

    /// A session was opened: the next break begins with the shortest pause, and no pause is so long that
    /// the lease time which a new leader gives could pass meanwhile.
    pub fn succeeded(&mut self, lease: Duration) {
        self.delays = Delays::new(Policy {
            longest_delay: retry::CONNECT.longest_delay.min(lease / DIALS_PER_LEASE),
            ..retry::CONNECT
        });
        self.failures = 0;
    }
}

fn endpoint(text: &str, access: &Access) -> Result<Endpoint, AccessError> {
    Ok(access
        .endpoint(text)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// Opens a session: says hello, waits for the welcome.
pub async fn open(
    endpoint: String,
    channel: Channel,
    access: Access,
    hello: v1::Hello,
    known_term: u64,
    known_cluster: Option<ClusterId>,
) -> Result<Link, LinkError> {
    let (outbound, messages) = mpsc::channel(MAX_OUTBOUND_MESSAGES);
    let first = v1::WorkerMessage {
        events: vec![v1::WorkerEvent {
            event: Some(Event::Hello(hello)),
        }],
    };
    // Cannot fail: the channel is empty and its receiver is here.
    outbound.try_send(first).map_err(|_| LinkError::Ended)?;
    let client = WorkersClient::with_interceptor(channel.clone(), access);
    let mut client = client.max_decoding_message_size(MAX_SESSION_MESSAGE_BYTES);
    let refused = |status: Status| LinkError::Refused(Box::new(status));
    let opening = async {
        let mut inbound = client
            .session(ReceiverStream::new(messages))
            .await
            .map_err(refused)?
            .into_inner();
        let first = inbound.message().await.map_err(refused)?.ok_or(LinkError::Ended)?;
        Ok::<_, LinkError>((inbound, first))
    };
    let (inbound, first) = tokio::time::timeout(WELCOME_TIMEOUT, opening)
        .await
        .map_err(|_| LinkError::Silent)??;
    if first.term < known_term {
        return Err(LinkError::OldTerm {
            found: first.term,
            known: known_term,
        });
    }
    let Some(Command::Welcome(welcome)) = first.commands.first().and_then(|command| command.command.clone()) else {
        return Err(LinkError::Unexpected);
    };
    let session = SessionId(wire::uuid("the session id", &welcome.session)?);
    let found = wire::cluster(&welcome.cluster)?;
    if let Some(known) = known_cluster.filter(|known| *known != found) {
        return Err(LinkError::OtherCluster { known, found });
    }
    Ok(Link {
        endpoint,
        channel,
        outbound,
        inbound,
        session,
        cluster: found,
        welcome,
        first,
    })
}

/// Whether the end of a session is worth a warning: a leader that steps down or restarts is not.
pub fn is_ordinary_end(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Ok)
}

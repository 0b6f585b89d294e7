//! Reaching etcd: a client for each member, one of which is used until it fails. So one dead member
//! costs one call, not a share of all.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use etcd_client::{Client, ConnectOptions, KvClient};
use gapless_platform::{
    retry::{self, GaveUp, Policy},
    shutdown::Shutdown,
};
use tonic::Code;

use super::limits::{CONNECT_TIMEOUT, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT, MAX_ANSWER_BYTES};

/// Why a call to etcd has no answer that helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It may have been done. Another member, or this one later, may answer.
    #[error("{endpoint}: {reason}")]
    Away { endpoint: String, reason: String },
    /// Not done, and the same call will not be.
    #[error("{endpoint} refuses: {reason}")]
    Refused { endpoint: String, reason: String },
    /// Not done, and done once somebody has made room.
    #[error("{endpoint}: {FULL}")]
    Full { endpoint: String },
    /// What was asked for is older than what etcd keeps.
    #[error("{endpoint}: the revision asked for was compacted")]
    Compacted { endpoint: String },
    #[error("this coordinator is stopping")]
    Stopping,
}

impl CallError {
    pub fn may_pass(&self) -> bool {
        matches!(self, CallError::Away { .. } | CallError::Full { .. })
    }
}

/// What an etcd with the alarm NOSPACE needs, in words.
pub const FULL: &str = "etcd is full and takes no write until somebody makes room (alarm NOSPACE): compact it (`etcdctl \
    compact REVISION`), then `etcdctl defrag` each member or raise --quota-backend-bytes, then `etcdctl alarm disarm`";

/// What etcd answers to a write when its alarm NOSPACE is raised.
const NO_SPACE: &str = "database space exceeded";

/// One member of etcd.
#[derive(Clone)]
pub struct Member {
    pub endpoint: Arc<str>,
    pub client: Client,
    pub kv: KvClient,
}

/// The members, and the one in use. Clones share it.
#[derive(Clone)]
pub struct Members {
    all: Arc<[Member]>,
    current: Arc<AtomicUsize>,
}

/// How etcd is spoken to. TLS and a user with a password belong here.
fn options() -> ConnectOptions {
    ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE_TIMEOUT)
        .with_keep_alive_while_idle(true)
        // A member that is cut off from the others must not hold a watch that shows nothing.
        .with_require_leader(true)
}

impl Members {
    /// Makes the clients; connections are made as they are needed.
    ///
    /// Errors: an endpoint that is no URL.
    pub async fn new(endpoints: &[String]) -> Result<Members, CallError> {
        let mut all = Vec::new();
        for endpoint in endpoints {
            let refused = |error: etcd_client::Error| CallError::Refused {
                endpoint: endpoint.clone(),
                reason: error.to_string(),
            };
            let client = Client::connect([endpoint], Some(options())).await.map_err(refused)?;
            all.push(Member {
                endpoint: endpoint.as_str().into(),
                kv: client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES),
                client,
            });
        }
        Ok(Members {
            all: all.into(),
            current: Arc::default(),
        })
    }

    pub fn all(&self) -> &[Member] {
        &self.all
    }

    /// The names of all, for messages.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.all.iter().map(|member| &*member.endpoint).collect();
        names.join(", ")
    }

    /// Calls the member in use, once. One that does not answer gives its place to the next.
    pub async fn once<T, F>(&self, limit: Duration, call: impl FnOnce(Member) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let at = self.current.load(Ordering::Relaxed);
        let outcome = call_member(&self.all[at], limit, call).await;
        if matches!(outcome, Err(CallError::Away { .. })) {
            let next = (at + 1) % self.all.len();
            // Of calls that failed together only the first turns; an error says that another has.
            let _ = self
                .current
                .compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        outcome
    }

    /// Calls member after member until one answers. Only for what may be done twice.
    pub async fn again<T, F>(
        &self,
        policy: Policy,
        limit: Duration,
        stop: &Shutdown,
        call: impl Fn(Member) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let tried = retry::retry(policy, stop.stopping(), CallError::may_pass, || self.once(limit, &call));
        tried.await.map_err(|gave_up| match gave_up {
            GaveUp::Permanent(error) | GaveUp::TimeOver(error) => error,
            GaveUp::Stopped(_) => CallError::Stopping,
        })
    }
}

/// Calls one member, once.
pub async fn call_member<T, F>(member: &Member, limit: Duration, call: impl FnOnce(Member) -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<T, etcd_client::Error>>,
{
    let endpoint = member.endpoint.to_string();
    match tokio::time::timeout(limit, call(member.clone())).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(classify(endpoint, &error)),
        Err(_) => Err(CallError::Away {
            endpoint,
            reason: format!("no answer within {limit:?}"),
        }),
    }
}

fn classify(endpoint: String, error: &etcd_client::Error) -> CallError {
    let (code, reason) = match error {
        etcd_client::Error::GRpcStatus(status) => (status.code(), status.message().to_string()),
        // etcd answered, and what it answered is no success.
        etcd_client::Error::LeaseKeepAliveError(_) => (Code::NotFound, error.to_string()),
        other => (Code::Unavailable, other.to_string()),
    };
    match code {
        Code::OutOfRange if reason.contains("compacted") => CallError::Compacted { endpoint },
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented => CallError::Refused { endpoint, reason },
        Code::ResourceExhausted if reason.contains(NO_SPACE) => CallError::Full { endpoint },
        // Too many requests, which passes.
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => CallError::Away { endpoint, reason },
    }
}

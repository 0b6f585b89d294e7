//! The worker's session with the leader: gRPC on a thread of its own, so that heartbeats never wait
//! for the engine, and one thread for each slot (`crate::runner`).
//!
//! | file | what it is |
//! |---|---|
//! | `pump` | the one loop: messages of the leader, words of the slots, time, shutdown |
//! | `book` | what is held and what is unanswered; pure |
//! | `held` | one attempt, shared with its slot |
//! | `queue` | granted attempts before the slots; the suspect rule |
//! | `connection` | endpoints, hello and welcome |
//! | `calls`, `context` | calls beside the session, and what they teach about steps |
//! | `wire` | from and to the wire's types |
//! | `limits` | every bound and time-out, with its reason |

pub(crate) mod book;
pub(crate) mod calls;
mod connection;
pub(crate) mod context;
pub(crate) mod held;
mod limits;
pub use limits::DRAIN_LIMIT;
mod pump;
pub(crate) mod queue;
mod wire;

#[cfg(test)]
mod fake_leader;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc};

use gapless_common::{ids::ClusterId, labels::Labels};
use gapless_platform::{clock::Clock, shutdown::Shutdown};
use gapless_proto::access::{Access, AccessError};

use crate::{metrics::Metrics, runner::Work};

/// What a worker has to know before it speaks to anyone.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// URLs of the coordinators, tried in turn.
    pub endpoints: Vec<String>,
    /// For people.
    pub name: String,
    /// Tasks worked on at a time, at least 1.
    pub slots: u32,
    /// What steps may ask for.
    pub labels: Labels,
    /// Memory for the data of one task, in bytes.
    pub memory_per_slot_bytes: u64,
    /// What the worker shows to coordinators.
    pub access: Access,
    pub clock: Clock,
    /// Filled by the worker; whoever made it may serve it.
    pub metrics: Metrics,
}

/// Why a worker ended when nobody asked it to, or not as asked.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("no coordinator to speak to: set endpoints")]
    NoEndpoint,
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(
        "{endpoint} belongs to cluster {found}, but this worker has worked for cluster {known}: two clusters must not share workers; check the endpoints, or start the worker anew if the cluster was set up again"
    )]
    OtherCluster {
        endpoint: String,
        known: ClusterId,
        found: ClusterId,
    },
    #[error("a worker needs at least one slot")]
    NoSlots,
    #[error("cannot start the worker's threads: {0}")]
    Threads(#[from] io::Error),
    #[error("{count} tasks were still running at the end of the grace time and are left to end with the process")]
    StillRunning { count: usize },
}

/// Runs a worker on the calling thread until `shutdown` ends it: a drain gives back what is held at
/// the next checkpoint, or after [`limits::DRAIN_GRACE`] without one, and leaves within
/// [`limits::DRAIN_LIMIT`]; a stop leaves at once. Many workers
/// may run in one process, each on a thread of its own.
///
/// Errors: [`WorkerError`]. A leader that is away is none: it is waited for.
pub fn run_worker(config: WorkerConfig, work: Arc<dyn Work>, shutdown: &Shutdown) -> Result<(), WorkerError> {
    pump::run(config, work, shutdown)
}

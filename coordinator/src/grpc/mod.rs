//! The services. Each method turns a message into an event or a read, and the outcome into a reply.

mod cluster;
mod crowd;
mod events;
mod jobs;
mod workers;

pub use cluster::ClusterService;
pub use crowd::Submits;
pub use jobs::JobsService;
pub use workers::{Sessions, WorkersService};

use gapless_proto::RETRY_KEY;
use tonic::Status;

use crate::{
    control::{NotLeading, Unanswered},
    limits::RETRY_AFTER,
};

impl From<NotLeading> for Status {
    fn from(error: NotLeading) -> Self {
        Status::unavailable(error.to_string())
    }
}

impl From<Unanswered> for Status {
    fn from(error: Unanswered) -> Self {
        match error {
            Unanswered::NotLeading(error) => error.into(),
            Unanswered::Behind => crowded(error.to_string()),
            Unanswered::StoreFull { .. } | Unanswered::StoreFullMeanwhile { .. } => {
                Status::resource_exhausted(error.to_string())
            }
        }
    }
}

/// A refusal that passes by itself: nothing was done, and the same call may succeed soon.
fn crowded(message: String) -> Status {
    let mut status = Status::resource_exhausted(message);
    if let Ok(value) = RETRY_AFTER.as_millis().to_string().parse() {
        status.metadata_mut().insert(RETRY_KEY, value);
    }
    status
}

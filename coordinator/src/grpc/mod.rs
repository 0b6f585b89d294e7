//! The services. Each method turns a message into an event or a read, and the outcome into a reply.

mod cluster;
mod events;
mod jobs;
mod workers;

pub use cluster::ClusterService;
pub use jobs::JobsService;
pub use workers::{Sessions, WorkersService};

use crate::control::{NotLeading, Unanswered};

impl From<NotLeading> for tonic::Status {
    fn from(error: NotLeading) -> Self {
        tonic::Status::unavailable(error.to_string())
    }
}

impl From<Unanswered> for tonic::Status {
    fn from(error: Unanswered) -> Self {
        match error {
            Unanswered::NotLeading(error) => error.into(),
            Unanswered::StoreFull { .. } | Unanswered::StoreFullMeanwhile { .. } => {
                tonic::Status::resource_exhausted(error.to_string())
            }
        }
    }
}

//! The services. Each method turns a message into an event or a read, and the outcome into a reply.

mod cluster;
mod events;
mod jobs;
mod workers;

pub use cluster::ClusterService;
pub use jobs::JobsService;
pub use workers::{Sessions, WorkersService};

use crate::control::NotLeading;

impl From<NotLeading> for tonic::Status {
    fn from(error: NotLeading) -> Self {
        tonic::Status::unavailable(error.to_string())
    }
}

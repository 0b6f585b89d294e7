//! Whether this coordinator leads, as its services see it. Those that need the state ask here at each
//! call; whoever asks a standby is told where the leader is.

use gapless_platform::shutdown::Shutdown;
use gapless_proto::LEADER_KEY;
use tokio::sync::watch;
use tonic::Status;

use crate::{control::Control, store::StoreFull};

/// The lead, while it lasts.
#[derive(Clone)]
pub struct Lead {
    pub control: Control,
    /// Stops when this coordinator must not speak to anybody any more: its term is lost or in doubt.
    pub over: Shutdown,
    /// Says why no job is taken.
    pub full: watch::Receiver<Option<StoreFull>>,
}

#[derive(Clone)]
pub enum Role {
    Leads(Lead),
    /// Another one leads, at this URL; empty where it is not known, or nobody leads.
    Follows {
        leader: String,
    },
}

/// The present role. Clones see the same.
#[derive(Clone)]
pub struct Seat(watch::Receiver<Role>);

impl Seat {
    pub fn new(role: watch::Receiver<Role>) -> Seat {
        Seat(role)
    }

    /// The lead, or the refusal that names who has it.
    pub fn lead(&self) -> Result<Lead, Status> {
        match &*self.0.borrow() {
            Role::Leads(lead) => Ok(lead.clone()),
            Role::Follows { leader } => Err(not_leader(leader)),
        }
    }
}

/// The refusal of a coordinator that does not lead: nothing was done.
pub fn not_leader(leader: &str) -> Status {
    let mut status = Status::unavailable(match leader {
        "" => "this coordinator does not lead, and does not know who does".to_string(),
        leader => format!("this coordinator does not lead; {leader} does"),
    });
    // An address that cannot stand in a header cannot be reached either.
    if let Ok(value) = leader.parse() {
        status.metadata_mut().insert(LEADER_KEY, value);
    }
    status
}

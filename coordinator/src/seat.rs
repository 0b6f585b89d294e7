//! Whether this coordinator leads, as its services see it. Those that need the state ask here at each
//! call; whoever asks a standby is told where the leader is.

use gapless_common::ids::{ClusterId, Epoch, Term};
use gapless_platform::shutdown::Shutdown;
use gapless_proto::LEADER_KEY;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use crate::{
    control::Control,
    store::{StoreError, StoreFull},
};

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
    /// Nobody leads, and this one does not either, for a reason that somebody has to look at.
    Refuses {
        reason: String,
    },
    /// This one has the lead and does nothing with it: its store is older than what was seen of it.
    Holds(Holding),
}

/// A lead that waits for an operator.
#[derive(Clone)]
pub struct Holding {
    pub reason: String,
    pub cluster: ClusterId,
    /// The epoch that was; accepting makes it one more.
    pub epoch: Epoch,
    pub term: Term,
    /// Takes the operator's word; answers when the lead goes on.
    pub accept: mpsc::Sender<oneshot::Sender<Result<(), StoreError>>>,
}

/// The present role. Clones see the same.
#[derive(Clone)]
pub struct Seat(watch::Receiver<Role>);

impl Seat {
    pub fn new(role: watch::Receiver<Role>) -> Seat {
        Seat(role)
    }

    /// The lead that waits for an operator, if this is one.
    pub fn holding(&self) -> Option<Holding> {
        match &*self.0.borrow() {
            Role::Holds(holding) => Some(holding.clone()),
            Role::Leads(_) | Role::Follows { .. } | Role::Refuses { .. } => None,
        }
    }

    /// The lead, or the refusal that names who has it.
    pub fn lead(&self) -> Result<Lead, Status> {
        match &*self.0.borrow() {
            Role::Leads(lead) => Ok(lead.clone()),
            Role::Follows { leader } => Err(not_leader(leader)),
            Role::Refuses { reason } | Role::Holds(Holding { reason, .. }) => {
                Err(Status::failed_precondition(reason.clone()))
            }
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

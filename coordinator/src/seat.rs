//! Whether this coordinator leads, as its services see it. Those that need the state ask here at each
//! call; whoever asks a standby is told where the leader is.

use std::time::Duration;

use gapless_common::ids::{ClusterId, Epoch, Term};
use gapless_platform::shutdown::Shutdown;
use gapless_proto::LEADER_KEY;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use crate::{
    control::Control,
    store::{Standing, StoreError, StoreFull},
};

/// The lead, while it lasts.
#[derive(Clone)]
pub struct Lead {
    pub control: Control,
    /// Stops when this coordinator must not speak to anybody any more: its term is lost or in doubt.
    pub over: Shutdown,
    /// Says why no job is taken.
    pub full: watch::Receiver<Option<StoreFull>>,
    /// What the term stands on; none where no other coordinator can lead.
    pub confirmation: Option<Confirmation>,
}

/// The store's word that a term lasts, which holds for a while.
#[derive(Clone)]
pub struct Confirmation {
    pub standing: watch::Receiver<Standing>,
    pub patience: Duration,
}

impl Confirmation {
    /// Whether another one may lead by now, as after a time in which this process stood still.
    pub fn is_doubtful(&self) -> bool {
        match *self.standing.borrow() {
            Standing::Leads { confirmed } => confirmed.elapsed() > self.patience,
            Standing::Standby | Standing::Lost => true,
        }
    }
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

    /// The lead, or the refusal that names who has it. The time is looked at with each call: a process that
    /// thaws meets what came meanwhile before it has fallen silent.
    pub fn lead(&self) -> Result<Lead, Status> {
        match &*self.0.borrow() {
            Role::Leads(lead) if lead.confirmation.as_ref().is_some_and(Confirmation::is_doubtful) => {
                Err(not_leader(""))
            }
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

#[cfg(test)]
mod tests {
    use gapless_platform::clock::Clock;
    use tokio::time::Instant;

    use super::*;
    use crate::{control::ControlConfig, metrics::Metrics, store::EmbeddedStore, takeover::taken_over};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_term_that_is_not_confirmed_answers_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = EmbeddedStore::open(&folder.path().join("store")).expect("opened");
        let config = ControlConfig {
            lease_ms: 1000,
            heartbeat_ms: 100,
            workers_died: false,
        };
        let started = tokio::task::spawn_blocking(move || {
            let (clock, metrics) = (Clock::system(), Metrics::new(Clock::system()));
            Control::start(taken_over(Box::new(store)), clock, config, Shutdown::new(), metrics)
        });
        let (control, thread) = started.await.expect("no panic").expect("started");
        let patience = Duration::from_secs(60);
        let leads = |age| Standing::Leads {
            confirmed: Instant::now() - age,
        };
        let (tell, standing) = watch::channel(leads(Duration::ZERO));
        let lead = Lead {
            control: control.clone(),
            over: Shutdown::new(),
            full: watch::channel(None).1,
            confirmation: Some(Confirmation { standing, patience }),
        };
        let (_role, seat) = watch::channel(Role::Leads(lead));
        let seat = Seat::new(seat);
        assert!(seat.lead().is_ok());
        for doubtful in [leads(2 * patience), Standing::Lost] {
            tell.send_replace(doubtful);
            assert_eq!(
                seat.lead().err().map(|refusal| refusal.code()),
                Some(tonic::Code::Unavailable)
            );
        }
        tell.send_replace(leads(Duration::ZERO));
        assert!(seat.lead().is_ok(), "confirmed again");
        control.stop().await;
        tokio::task::spawn_blocking(|| thread.join())
            .await
            .expect("no panic")
            .expect("no panic")
            .expect("ended");
    }
}

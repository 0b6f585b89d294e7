//! Who leads. The leader's key is created by whoever finds none, hangs on a lease of etcd, and goes
//! with it. Its create revision is the term: it rises, and no two leaders have the same.

use std::{future::Future, time::Duration};

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse, WatchOptions};
use gapless_common::ids::Term;
use gapless_platform::retry::Delays;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{
    Etcd,
    limits::{ASK_AGAIN, CALL_TIMEOUT, CONFIRMS_PER_TTL, REREAD, WATCH_AGAIN},
    members::CallError,
};
use crate::store::StoreError;

/// How a coordinator stands, as far as it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Standby,
    /// At that moment etcd still knew its term.
    Leads {
        confirmed: Instant,
    },
    /// Its term is over for good.
    Lost,
}

/// The leader's key, as others read it.
#[derive(Serialize, Deserialize)]
struct LeaderValue {
    /// The URL at which it is reached.
    address: String,
    /// New for each term that somebody tries to begin: tells one's own key after an unknown outcome.
    holder: Uuid,
}

/// A term that was begun.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub term: Term,
    pub lease: i64,
    pub since: Instant,
}

/// Who leads, and when that was so.
struct Seen {
    leader: Option<(Term, LeaderValue)>,
    revision: i64,
}

fn leader_of(kv: &KeyValue) -> (Term, LeaderValue) {
    let value = serde_json::from_slice(kv.value()).unwrap_or(LeaderValue {
        // Of another make: it leads all the same.
        address: String::new(),
        holder: Uuid::nil(),
    });
    (Term(kv.create_revision().cast_unsigned()), value)
}

impl Etcd {
    /// Takes the lead if nobody has it.
    pub(super) async fn take_lead(&self) -> Result<Taken, StoreError> {
        let unknown = |error: CallError| match error {
            CallError::Full { .. } => StoreError::Full {
                reason: error.to_string(),
            },
            error => StoreError::Unknown {
                reason: error.to_string(),
            },
        };
        let ttl = self.config.leader_ttl.as_secs().cast_signed();
        let lease = self
            .members
            .again(ASK_AGAIN, CALL_TIMEOUT, &self.stop, |member| async move {
                let mut client = member.client;
                client.lease_grant(ttl, None).await
            });
        // One that was granted and not heard of runs out unused.
        let lease = lease.await.map_err(unknown)?.id();
        let holder = Uuid::new_v4();
        let value = LeaderValue {
            address: self.config.address.clone().unwrap_or_default(),
            holder,
        };
        let value = serde_json::to_vec(&value).map_err(|error| StoreError::Refused {
            reason: error.to_string(),
        })?;
        let keys = &self.keys;
        let create = Txn::new()
            .when([Compare::create_revision(keys.leader.as_str(), CompareOp::Equal, 0)])
            .and_then([
                TxnOp::put(keys.leader.as_str(), value, Some(PutOptions::new().with_lease(lease))),
                TxnOp::put(keys.seq.as_str(), "0", None),
            ])
            .or_else([TxnOp::get(keys.leader.as_str(), None)]);
        let since = Instant::now();
        let done = self.members.again(ASK_AGAIN, CALL_TIMEOUT, &self.stop, |mut member| {
            let create = create.clone();
            async move { member.kv.txn(create).await }
        });
        let done = done.await.map_err(unknown)?;
        if done.succeeded() {
            let revision = done.header().map_or(0, |header| header.revision());
            let term = Term(revision.cast_unsigned());
            return Ok(Taken { term, lease, since });
        }
        let found = match done.op_responses().first() {
            Some(TxnOpResponse::Get(found)) => found.kvs().first().map(leader_of),
            _ => None,
        };
        match found {
            // The first answer got lost.
            Some((term, leader)) if leader.holder == holder => Ok(Taken { term, lease, since }),
            Some((_, leader)) => Err(StoreError::Led { leader: leader.address }),
            None => Err(StoreError::Unknown {
                reason: "the leader's key was in the way, and then it was not there".into(),
            }),
        }
    }

    /// Keeps the lease alive and the term confirmed, until the term is lost.
    pub(super) async fn keep_lead(self, taken: Taken, standing: watch::Sender<Standing>) {
        let mut ticks = tokio::time::interval(self.config.leader_ttl / CONFIRMS_PER_TTL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = 0u32;
        loop {
            ticks.tick().await;
            let asked = Instant::now();
            // A keep-alive that succeeds proves nothing on some versions; the key does.
            let kept = self.members.once(CALL_TIMEOUT, |member| async move {
                let mut client = member.client;
                client.lease_keep_alive(taken.lease).await
            });
            let (kept, seen) = tokio::join!(kept, self.look());
            if let Err(error) = kept {
                debug!(%error, "the leader's lease was not kept alive");
            }
            match seen {
                Ok(Seen {
                    leader: Some((term, _)),
                    ..
                }) if term == taken.term => {
                    if failures > 0 {
                        info!(term = %taken.term, failures, "etcd confirms the term again");
                    }
                    failures = 0;
                    standing.send_replace(Standing::Leads { confirmed: asked });
                }
                Ok(_) => {
                    standing.send_replace(Standing::Lost);
                    return;
                }
                Err(error) => {
                    failures += 1;
                    if failures.is_power_of_two() {
                        warn!(%error, failures, term = %taken.term, "etcd does not confirm the term");
                    }
                }
            }
        }
    }

    /// Whether a term is the present one.
    pub(super) async fn confirm(&self, offered: Term) -> Result<(), StoreError> {
        let seen = self.look().await.map_err(|error| StoreError::Unknown {
            reason: error.to_string(),
        })?;
        match seen.leader.map_or(Term(0), |(term, _)| term) {
            current if current == offered => Ok(()),
            current => Err(StoreError::LostTerm { offered, current }),
        }
    }

    /// Who leads, by a linearizable read.
    async fn look(&self) -> Result<Seen, CallError> {
        let key = self.keys.leader.clone();
        let found = self
            .members
            .once(CALL_TIMEOUT, |mut member| async move { member.kv.get(key, None).await })
            .await?;
        Ok(Seen {
            leader: found.kvs().first().map(leader_of),
            revision: found.header().map_or(0, |header| header.revision()),
        })
    }

    /// Waits until nobody leads. Tells the address of each leader that it sees meanwhile. A watch tells
    /// of changes at once; whatever becomes of it, the key is read again every now and then.
    pub(crate) async fn until_free(&self, mut tell: impl FnMut(&str)) {
        let mut delays = Delays::new(WATCH_AGAIN);
        loop {
            let revision = match self.look().await {
                Ok(Seen { leader: None, .. }) => return,
                Ok(Seen {
                    leader: Some((_, leader)),
                    revision,
                }) => {
                    tell(&leader.address);
                    revision
                }
                Err(error) => {
                    debug!(%error, "who leads cannot be read");
                    pause(&mut delays).await;
                    continue;
                }
            };
            match within(REREAD, self.changed(revision + 1)).await {
                None | Some(Ok(())) => delays.reset(),
                Some(Err(error)) => {
                    debug!(%error, "the watch on the leader failed");
                    pause(&mut delays).await;
                }
            }
        }
    }

    /// Waits for a change of the leader's key from a revision on, or for the end of the watch. One that
    /// begins at a compacted revision says so and then stays silent: that is an end too.
    async fn changed(&self, from: i64) -> Result<(), CallError> {
        let key = self.keys.leader.clone();
        let opened = self.members.once(CALL_TIMEOUT, |member| async move {
            let mut client = member.client;
            client
                .watch(key, Some(WatchOptions::new().with_start_revision(from)))
                .await
        });
        let mut watched = opened.await?;
        let broken = |reason: String| CallError::Away {
            endpoint: self.members.names(),
            reason,
        };
        loop {
            match watched.message().await {
                Ok(Some(message)) if message.canceled() || message.compact_revision() != 0 => return Ok(()),
                Ok(Some(message)) if !message.events().is_empty() => return Ok(()),
                Ok(Some(_)) => {}
                Ok(None) => return Err(broken("the watch ended".into())),
                Err(error) => return Err(broken(error.to_string())),
            }
        }
    }
}

async fn pause(delays: &mut Delays) {
    if let Some(delay) = delays.next_delay() {
        tokio::time::sleep(delay).await;
    }
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}

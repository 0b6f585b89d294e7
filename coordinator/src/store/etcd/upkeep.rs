//! What the leader does for etcd beside its batches: old revisions are compacted, and etcd is watched
//! so that it never becomes too full to end the runs that are there.

use std::fmt;

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, warn};

use super::{
    Etcd,
    limits::{CALL_TIMEOUT, FULL_PERCENT, UPKEEP},
    members::{CallError, FULL, call_member},
};

/// etcd is nearly full: no new job is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFull {
    pub endpoint: String,
    pub used_bytes: u64,
    pub quota_bytes: u64,
    /// Whether it has raised its alarm NOSPACE, which stays until somebody disarms it.
    pub alarm: bool,
}

impl fmt::Display for StoreFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        if self.alarm {
            return write!(f, "{}: {FULL}", self.endpoint);
        }
        write!(
            f,
            "etcd at {} uses {} of {} MiB, and no job is taken above {FULL_PERCENT} %: make room with `etcdctl defrag`, \
             or raise --quota-backend-bytes of etcd (and etcd_quota_mib here)",
            self.endpoint,
            mib(self.used_bytes),
            mib(self.quota_bytes)
        )
    }
}

/// Faults of a version of etcd that matter here, in words.
pub fn known_faults(version: &str) -> Option<&'static str> {
    let mut numbers = version
        .split(['.', '-', '+'])
        .map_while(|part| part.parse::<u32>().ok());
    let (major, minor, patch) = (numbers.next()?, numbers.next()?, numbers.next()?);
    let fixed = match (major, minor) {
        (3, 4) => 38,
        (3, 5) => 23,
        (3, 6) => 5,
        (3, ..4) | (..3, _) => u32::MAX,
        _ => 0,
    };
    (patch < fixed).then_some(
        "this etcd may keep a lease alive that it has revoked, which costs a fail-over; 3.4.38, 3.5.23 and 3.6.5 do not",
    )
}

impl Etcd {
    /// Compacts, and tells when etcd is nearly full and when it is no longer. Ends when dropped.
    pub(crate) async fn upkeep(&self, full: watch::Sender<Option<StoreFull>>) {
        let mut ticks = interval(UPKEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The revision at the last time, and at the one before.
        let (mut last, mut before) = (None, None);
        loop {
            ticks.tick().await;
            match self.fullest().await {
                Ok((found, revision)) => {
                    if let Some(words) = found.as_ref().filter(|_| full.borrow().is_none()) {
                        warn!("{words}");
                    }
                    full.send_if_modified(|known| {
                        let changed = *known != found;
                        *known = found;
                        changed
                    });
                    before = last.replace(revision);
                }
                Err(error) => debug!(%error, "etcd does not tell how full it is"),
            }
            let Some(revision) = before.filter(|&revision| revision > 0) else {
                continue;
            };
            let compacted = self.members.once(CALL_TIMEOUT, |mut member| async move {
                member.kv.compact(revision, None).await
            });
            match compacted.await {
                // Somebody else compacts too.
                Ok(_) | Err(CallError::Compacted { .. }) => {}
                Err(error) => debug!(%error, revision, "not compacted"),
            }
        }
    }

    /// The member that is fullest, if it is too full, and the present revision. Members that are away
    /// tell nothing.
    async fn fullest(&self) -> Result<(Option<StoreFull>, i64), CallError> {
        let mut full: Option<StoreFull> = None;
        let mut answer = Err(CallError::Away {
            endpoint: self.members.names(),
            reason: "no member answers".into(),
        });
        for member in self.members.all() {
            let status = call_member(member, CALL_TIMEOUT, |member| async move {
                let mut client = member.client;
                client.status().await
            });
            let status = match status.await {
                Ok(status) => status,
                Err(error) => {
                    debug!(%error, "a member does not tell its status");
                    continue;
                }
            };
            let revision = status.header().map_or(0, |header| header.revision());
            answer = answer.map(|highest: i64| highest.max(revision)).or(Ok(revision));
            let used_bytes = status.db_size().max(0).cast_unsigned();
            // Versions before 3.6 do not tell it.
            let quota_bytes = match status.db_size_quota().max(0).cast_unsigned() {
                0 => self.config.quota_bytes,
                told => told,
            };
            let alarm = status.errors().iter().any(|error| error.contains("NOSPACE"));
            let more = |full: &StoreFull| (alarm, used_bytes) > (full.alarm, full.used_bytes);
            if full.as_ref().is_none_or(more) && (alarm || used_bytes * 100 > quota_bytes * FULL_PERCENT) {
                full = Some(StoreFull {
                    endpoint: member.endpoint.to_string(),
                    used_bytes,
                    quota_bytes,
                    alarm,
                });
            }
        }
        answer.map(|revision| (full, revision))
    }
}

#[cfg(test)]
mod tests {
    use super::known_faults;

    #[test]
    fn versions_with_known_faults_are_told() {
        for (version, faulty) in [
            ("3.3.27", true),
            ("3.4.23", true),
            ("3.4.38", false),
            ("3.5.1", true),
            ("3.5.23", false),
            ("3.6.4", true),
            ("3.6.5", false),
            ("3.7.0", false),
            ("4.0.0", false),
            ("no version", false),
        ] {
            assert_eq!(known_faults(version).is_some(), faulty, "{version}");
        }
    }
}

//! The store of a cluster: etcd. All keys lie under `/gapless/<cluster name>/`:
//!
//! | key | what it is |
//! |---|---|
//! | `leader` | who leads. It hangs on a lease, and its create revision is the term |
//! | `seq` | the number of the last batch of the term |
//! | `row/<key>` | a row; see `values` |
//! | `part/<term>-<seq>-<row>/<number>` | a part of a value that is too large for one request |
//!
//! Each batch is one transaction that compares the term and the number before its own. So whoever
//! does not lead writes nothing, whatever leases and clocks say; neither the Lock nor the Election
//! service of etcd is used, whose answers are no proof of holding anything.
//!
//! | file | what it is |
//! |---|---|
//! | `members` | calls, time-outs, one member at a time |
//! | `leadership` | taking the lead, keeping it, waiting for it |
//! | `batch` | a batch as a transaction, and how its outcome is settled |
//! | `neighbours` | which keys one range does for |
//! | `values`, `listing` | rows as values, page by page |
//! | `orphans` | parts that no row refers to are removed |
//! | `upkeep` | compaction, and how full etcd is |
//! | `limits` | every bound, with its reason |

mod batch;
mod leadership;
mod limits;
mod listing;
mod members;
mod neighbours;
mod orphans;
mod upkeep;
mod values;

use std::{collections::BTreeSet, time::Duration};

use gapless_common::ids::Term;
use gapless_platform::{retry::Policy, shutdown::Shutdown};
use tokio::{runtime::Handle, sync::watch, task::JoinSet};
use tracing::warn;

use self::{
    limits::{
        ASK_AGAIN, BATCH_BYTES, CALL_TIMEOUT, CREATES_PER_BATCH, LEASES_PER_BATCH, ROWS_PER_BATCH, START, UNKNOWN,
    },
    members::{CallError, Members},
    neighbours::Leases,
};
use super::{Batch, Store, StoreError, Write};

pub use leadership::Standing;
pub use members::EtcdAccess;
pub use upkeep::StoreFull;

/// Where etcd is and who this coordinator is there.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// URLs of the members.
    pub endpoints: Vec<String>,
    pub access: EtcdAccess,
    /// Clusters of different names share an etcd and nothing else.
    pub cluster: String,
    /// URL at which workers and clients reach this coordinator.
    pub address: Option<String>,
    /// Silence after which another coordinator leads; etcd counts whole seconds, at least 2.
    pub leader_ttl: Duration,
    /// What etcd may grow to, where it does not tell.
    pub quota_bytes: u64,
}

/// An etcd that was reached. Clones share its connections.
#[derive(Clone)]
pub struct Etcd {
    config: EtcdConfig,
    members: Members,
    keys: Keys,
    stop: Shutdown,
    runtime: Handle,
}

/// The keys of one cluster.
#[derive(Clone)]
struct Keys {
    leader: String,
    seq: String,
    rows: String,
    parts: String,
}

impl Keys {
    fn new(cluster: &str) -> Keys {
        let key = |name: &str| format!("/gapless/{cluster}/{name}");
        Keys {
            leader: key("leader"),
            seq: key("seq"),
            rows: key("row/"),
            parts: key("part/"),
        }
    }

    fn row(&self, key: &str) -> String {
        format!("{}{key}", self.rows)
    }
}

impl Etcd {
    /// Looks for etcd until a member answers, and warns of versions with known faults. `stop` ends
    /// every wait. On a runtime with IO and time.
    pub async fn connect(config: EtcdConfig, stop: Shutdown) -> Result<Etcd, StoreError> {
        let place = config.endpoints.join(", ");
        let cannot = |error: CallError| StoreError::Open {
            place: format!("etcd ({place})"),
            reason: error.to_string(),
        };
        let members = Members::new(&config.endpoints, &config.access).await.map_err(cannot)?;
        let status = members.again(START, CALL_TIMEOUT, &stop, |member| async move {
            let mut client = member.client;
            client.status().await
        });
        let status = status.await.map_err(cannot)?;
        if let Some(words) = upkeep::known_faults(status.version()) {
            warn!(version = status.version(), "{words}");
        }
        Ok(Etcd {
            keys: Keys::new(&config.cluster),
            config,
            members,
            stop,
            runtime: Handle::current(),
        })
    }

    pub fn leader_ttl(&self) -> Duration {
        self.config.leader_ttl
    }

    fn read_failed(&self, error: CallError) -> StoreError {
        StoreError::Read {
            reason: format!("etcd ({}): {error}", self.members.names()),
        }
    }
}

/// The store of one coordinator, which leads at times. It blocks: not for threads of the runtime.
pub struct EtcdStore {
    etcd: Etcd,
    standing: watch::Sender<Standing>,
    /// The lease on which the leader's key hangs.
    lease: Option<i64>,
    /// Keeps the term; ends with the store.
    keeper: JoinSet<()>,
    /// The highest revision at which something of this term was written.
    reached: u64,
    /// Those of the present term.
    leases: Leases,
}

impl EtcdStore {
    pub fn new(etcd: Etcd) -> EtcdStore {
        EtcdStore {
            etcd,
            standing: watch::channel(Standing::Standby).0,
            lease: None,
            keeper: JoinSet::new(),
            reached: 0,
            leases: Leases::default(),
        }
    }

    /// Removes parts of values that no row refers to, under the present term, as is done from time to time
    /// without asking. Says how many.
    pub fn collect_parts(&self, term: Term) -> Result<usize, StoreError> {
        let collected = self.etcd.runtime.block_on(self.etcd.collect(term));
        collected.map_err(|error| self.etcd.read_failed(error))
    }

    /// Why so much cannot be written at a time, if it cannot.
    fn too_large(&self, writes: &[Write]) -> Option<StoreError> {
        let mut created: Vec<&str> = Vec::new();
        for write in writes {
            if let Write::Create(key, _) = write {
                created.push(key);
            }
        }
        let created = match created.len() {
            few @ ..=CREATES_PER_BATCH => few,
            // What one compare does for counts once.
            _ => self.leases.runs(created, &BTreeSet::new()).len(),
        };
        let of = [
            (writes.len(), "rows", ROWS_PER_BATCH),
            (created, "created rows", CREATES_PER_BATCH),
        ];
        let too_many = of.into_iter().find(|(count, _, most)| count > most);
        too_many.map(|(count, what, most)| StoreError::TooLarge { count, what, most })
    }

    /// How this coordinator stands, as far as it knows.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }
}

impl Store for EtcdStore {
    fn begin_term(&mut self) -> Result<Term, StoreError> {
        self.end_term();
        let etcd = self.etcd.clone();
        let taken = etcd.runtime.block_on(etcd.take_lead())?;
        self.lease = Some(taken.lease);
        self.reached = taken.term.0;
        // Nobody else can write from now on.
        self.leases = etcd.runtime.block_on(etcd.read_leases());
        self.standing.send_replace(Standing::Leads { confirmed: taken.since });
        let keeping = etcd.clone().keep_lead(taken, self.standing.clone());
        self.keeper.spawn_on(keeping, &etcd.runtime);
        self.keeper
            .spawn_on(etcd.clone().keep_collecting(taken.term), &etcd.runtime);
        Ok(taken.term)
    }

    fn end_term(&mut self) {
        self.keeper.abort_all();
        self.leases.forget();
        let Some(lease) = self.lease.take() else { return };
        self.standing.send_replace(Standing::Lost);
        let revoked = self.etcd.members.once(CALL_TIMEOUT, |member| async move {
            let mut client = member.client;
            client.lease_revoke(lease).await
        });
        if let Err(error) = self.etcd.runtime.block_on(revoked) {
            // It runs out by itself.
            warn!(%error, "the leader's key could not be given back");
        }
    }

    fn rows_per_batch(&self) -> usize {
        ROWS_PER_BATCH
    }

    fn creates_per_batch(&self) -> usize {
        CREATES_PER_BATCH
    }

    fn creates_as_a_rule(&self) -> usize {
        LEASES_PER_BATCH
    }

    fn takes(&self, writes: &[Write]) -> bool {
        self.too_large(writes).is_none()
    }

    fn bytes_per_batch(&self) -> usize {
        BATCH_BYTES
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn unknown_policy(&self) -> Policy {
        UNKNOWN
    }

    fn reached(&self) -> u64 {
        self.reached
    }

    fn confirm(&self, term: Term) -> Result<(), StoreError> {
        self.etcd.runtime.block_on(self.etcd.confirm(term))
    }

    fn place(&self) -> String {
        let keys = self.etcd.keys.rows.trim_end_matches("row/");
        format!("etcd ({}), under {keys}", self.etcd.members.names())
    }

    fn row(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self.etcd.runtime.block_on(self.etcd.read_row(key, ASK_AGAIN));
        row.map_err(|error| self.etcd.read_failed(error))
    }

    fn rows(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let rows = self.etcd.runtime.block_on(self.etcd.list_rows(ASK_AGAIN));
        rows.map_err(|error| self.etcd.read_failed(error))
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if let Some(error) = self.too_large(&batch.writes) {
            return Err(error);
        }
        let etcd = self.etcd.clone();
        let written = etcd
            .runtime
            .block_on(etcd.write(batch, &self.leases, &mut self.reached));
        match &written {
            Ok(()) => self.leases.note(&batch.writes),
            // By an earlier try.
            Err(StoreError::OutOfSequence { offered, stored }) if offered == stored => self.leases.note(&batch.writes),
            // More may have gone than was known.
            Err(StoreError::Refused { .. }) => self.leases.forget(),
            // It was not written; or it may have been, and is sent again.
            Err(_) => {}
        }
        written
    }
}

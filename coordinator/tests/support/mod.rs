//! The places where stores lie, for the tests of this folder.

#![allow(dead_code, reason = "each file of tests uses a part of it")]

pub mod secure;

use std::{env, time::Duration};

use gapless_common::ids::Term;
use gapless_coordinator::store::{EmbeddedStore, Etcd, EtcdAccess, EtcdConfig, EtcdStore, Store, StoreError};
use gapless_platform::shutdown::Shutdown;
use gapless_tests::{etcd::Etcd as Servers, wait_for};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A place where a store lies while nobody has it open.
pub trait Place {
    fn open(&self) -> Box<dyn Store>;

    /// How many batches a child writes before it is killed, each time.
    fn kills(&self) -> &'static [usize];

    /// What a child process must know to open it, for [`place_of_child`].
    fn describe(&self) -> String;

    /// Waits until nobody leads there: a store that was dropped leads until its lease has run out.
    fn wait_until_free(&self);

    /// Begins a term once whoever had one before is known to be gone.
    fn begin(&self, store: &mut dyn Store) -> Term {
        self.wait_until_free();
        store.begin_term().expect("a term")
    }
}

/// What the child of a test finds in its environment.
const CHILD_PLACE: &str = "GAPLESS_TEST_STORE";

pub fn set_child_place(command: &mut std::process::Command, place: &dyn Place) {
    command.env(CHILD_PLACE, place.describe());
}

/// The place that the parent of this process described, if it is such a child.
pub fn place_of_child() -> Option<Box<dyn Place>> {
    let described = env::var(CHILD_PLACE).ok()?;
    let (kind, rest) = described.split_once(' ').expect("a description");
    Some(match kind {
        "folder" => Box::new(Embedded {
            folder: rest.into(),
            _owned: None,
        }),
        _ => {
            let (endpoints, certificates) = rest.split_once(' ').expect("a description");
            let mut place = OnEtcd::at(endpoints.split(',').map(str::to_string).collect(), None);
            if !certificates.is_empty() {
                (place.root, place.access) = secure::access(certificates.as_ref());
            }
            Box::new(place)
        }
    })
}

pub struct Embedded {
    folder: std::path::PathBuf,
    _owned: Option<TempDir>,
}

impl Embedded {
    pub fn new() -> Embedded {
        let owned = TempDir::new().expect("a folder");
        Embedded {
            folder: owned.path().to_path_buf(),
            _owned: Some(owned),
        }
    }
}

impl Place for Embedded {
    fn open(&self) -> Box<dyn Store> {
        Box::new(EmbeddedStore::open(&self.folder).expect("the store opens"))
    }

    fn kills(&self) -> &'static [usize] {
        &[1, 3, 8, 20, 47, 5]
    }

    fn describe(&self) -> String {
        format!("folder {}", self.folder.display())
    }

    fn wait_until_free(&self) {}
}

/// A cluster's keys on an etcd.
pub struct OnEtcd {
    pub runtime: Runtime,
    pub endpoints: Vec<String>,
    pub access: EtcdAccess,
    /// As which tests look at all keys.
    pub root: EtcdAccess,
    pub servers: Option<Servers>,
    certificates: Option<TempDir>,
}

/// Short, so that tests which wait for its end are short, and long enough for a busy machine.
pub const LEADER_TTL: Duration = Duration::from_secs(4);
pub const CLUSTER: &str = "test";

impl OnEtcd {
    pub fn new(members: usize) -> OnEtcd {
        let servers = Servers::start(members);
        OnEtcd::at(servers.endpoints(), Some(servers))
    }

    fn at(endpoints: Vec<String>, servers: Option<Servers>) -> OnEtcd {
        OnEtcd {
            runtime: Runtime::new().expect("a runtime"),
            endpoints,
            access: EtcdAccess::default(),
            root: EtcdAccess::default(),
            servers,
            certificates: None,
        }
    }

    /// With TLS, client certificates, and a user for whom there are the keys of this cluster and no others.
    pub fn secured(members: usize) -> OnEtcd {
        let certificates = secure::certificates();
        let servers = Servers::start_with_tls(members, certificates.path());
        let mut place = OnEtcd::at(servers.endpoints(), Some(servers));
        (place.root, place.access) = secure::access(certificates.path());
        place
            .runtime
            .block_on(secure::add_users(&place.endpoints, &place.access));
        place.certificates = Some(certificates);
        place
    }

    pub fn config(&self, address: &str) -> EtcdConfig {
        EtcdConfig {
            endpoints: self.endpoints.clone(),
            access: self.access.clone(),
            cluster: CLUSTER.into(),
            address: Some(address.into()),
            leader_ttl: LEADER_TTL,
            quota_bytes: 2 << 30,
        }
    }

    pub fn store(&self, address: &str) -> EtcdStore {
        self.store_with(self.config(address))
    }

    pub fn store_with(&self, config: EtcdConfig) -> EtcdStore {
        let connected = self.runtime.block_on(Etcd::connect(config, Shutdown::new()));
        EtcdStore::new(connected.expect("etcd is reached"))
    }

    pub fn servers(&mut self) -> &mut Servers {
        self.servers.as_mut().expect("its own servers")
    }

    /// The value and the lease of a key, by a connection of the test's own to the first member that
    /// answers.
    pub fn key(&self, name: &str) -> Option<(String, i64)> {
        let key = format!("/gapless/{CLUSTER}/{name}");
        let mut client = self.client();
        let found = self.runtime.block_on(client.get(key, None)).expect("etcd answers");
        let kv = found.kvs().first()?;
        Some((kv.value_str().expect("text").to_string(), kv.lease()))
    }

    pub fn client(&self) -> etcd_client::Client {
        let connected = self.runtime.block_on(etcd_client::Client::connect(
            &self.endpoints,
            Some(secure::options(&self.root)),
        ));
        connected.expect("a client")
    }
}

impl Place for OnEtcd {
    fn open(&self) -> Box<dyn Store> {
        Box::new(self.store("http://coordinator:1"))
    }

    fn kills(&self) -> &'static [usize] {
        &[1, 20, 7]
    }

    fn describe(&self) -> String {
        let folder = self
            .certificates
            .as_ref()
            .map(|folder| folder.path().display().to_string());
        format!("etcd {} {}", self.endpoints.join(","), folder.unwrap_or_default())
    }

    fn wait_until_free(&self) {
        wait_for("the leader's key to go", || self.key("leader").is_none().then_some(()));
    }
}

/// Sends a batch until its outcome is known, as the control loop does. Says whether it had been
/// written by an earlier try.
pub fn settle(store: &mut dyn Store, batch: &gapless_coordinator::store::Batch) -> Result<bool, StoreError> {
    wait_for("the outcome of a batch", || match store.write(batch) {
        Ok(()) => Some(Ok(false)),
        Err(StoreError::OutOfSequence { offered, stored }) if offered == stored => Some(Ok(true)),
        Err(StoreError::Unknown { .. }) => None,
        Err(error) => Some(Err(error)),
    })
}

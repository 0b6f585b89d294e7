//! What an operator does to an etcd, over its API: look who leads, fill it, compact, defragment, disarm.

use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmOptions, AlarmType, Client, ConnectOptions, DeleteOptions, Error, GetOptions, StatusResponse,
};
use tokio::runtime::Runtime;

use crate::{etcd::Etcd, wait_for};

/// Of one call: a member that does not answer must not hold up a test.
const CALL: Duration = Duration::from_secs(5);

/// Keys of somebody else who uses the same etcd.
const OTHERS: &str = "/somebody-else/";

/// Bytes of one of their values, below what etcd takes in a request.
const VALUE_BYTES: usize = 1 << 20;

/// Calls to the members of an etcd, each by its number.
pub struct Admin {
    runtime: Runtime,
    members: Vec<Client>,
}

impl Admin {
    pub fn new(etcd: &Etcd) -> Admin {
        let runtime = Runtime::new().expect("a runtime");
        let options = ConnectOptions::new().with_connect_timeout(CALL).with_timeout(CALL);
        let connect = |endpoint: &String| {
            let connected = runtime.block_on(Client::connect([endpoint], Some(options.clone())));
            connected.expect("a client")
        };
        let members = etcd.endpoints().iter().map(connect).collect();
        Admin { runtime, members }
    }

    fn call<T>(&self, member: usize, call: impl AsyncFnOnce(&mut Client) -> Result<T, Error>) -> Result<T, Error> {
        let mut client = self.members[member].clone();
        self.runtime.block_on(call(&mut client))
    }

    fn status(&self, member: usize) -> Option<StatusResponse> {
        self.call(member, async |client| client.status().await).ok()
    }

    /// The number of the member that leads the others.
    pub fn leader(&self) -> usize {
        wait_for("a leader of etcd", || {
            (0..self.members.len()).find(|&member| {
                let status = self.status(member);
                status.is_some_and(|status| status.header().is_some_and(|it| it.member_id() == status.leader()))
            })
        })
    }

    pub fn revision(&self) -> i64 {
        let status = wait_for("a status", || self.status(0));
        status.header().expect("it has one").revision()
    }

    /// Bytes of the file in which a member keeps all.
    pub fn size(&self, member: usize) -> u64 {
        let status = wait_for("a status", || self.status(member));
        status.db_size().try_into().expect("a size")
    }

    /// Bytes of that file which hold something.
    pub fn used(&self, member: usize) -> u64 {
        let status = wait_for("a status", || self.status(member));
        status.raft_used_db_size().try_into().expect("a size")
    }

    /// Writes a value over the former one of this key, which stays until it is compacted.
    pub fn put(&self, key: &str, bytes: usize) {
        let put = self.call(0, async |client| {
            client.put(format!("{OTHERS}{key}"), vec![b'x'; bytes], None).await
        });
        put.expect("etcd takes it");
    }

    /// Whether what was before this revision is gone.
    pub fn is_compacted(&self, revision: i64) -> bool {
        let at = GetOptions::new().with_revision(revision);
        match self.call(0, async |client| client.get(OTHERS, Some(at)).await) {
            Ok(_) => false,
            Err(error) if error.to_string().contains("compacted") => true,
            Err(error) => panic!("etcd answers: {error}"),
        }
    }

    /// Compacts up to a revision, unless somebody else has.
    pub fn compact(&self, revision: i64) {
        match self.call(0, async |client| client.compact(revision, None).await) {
            Ok(_) => {}
            Err(error) if error.to_string().contains("compacted") => {}
            Err(error) => panic!("etcd compacts: {error}"),
        }
    }

    /// Writes until etcd holds so many bytes.
    pub fn fill_up_to(&self, bytes: u64) {
        // So many and no more: its size is told only with its next write to disk.
        for number in 0..bytes.div_ceil(VALUE_BYTES as u64) {
            self.put(&format!("begin/{number}"), VALUE_BYTES);
        }
        wait_for("etcd to hold so much", || (self.size(0) >= bytes).then_some(()));
    }

    /// Writes until etcd is full and raises its alarm: from then on it takes no writes.
    pub fn fill(&self) {
        let mut number = 0;
        wait_for("etcd to be full", || {
            number += 1;
            let (key, value) = (format!("{OTHERS}{number}"), vec![b'x'; VALUE_BYTES]);
            match self.call(0, async |client| client.put(key, value, None).await) {
                Ok(_) => None,
                Err(error) if error.to_string().contains("database space exceeded") => Some(()),
                Err(error) => panic!("etcd is full, or not: {error}"),
            }
        });
        assert!(self.is_alarmed(), "etcd has raised its alarm");
    }

    pub fn is_alarmed(&self) -> bool {
        !self.alarmed().is_empty()
    }

    /// The members that have raised an alarm.
    fn alarmed(&self) -> Vec<u64> {
        let alarms = self.call(0, async |client| {
            client.alarm(AlarmAction::Get, AlarmType::Nospace, None).await
        });
        let alarms = alarms.expect("etcd answers");
        alarms.alarms().iter().map(|alarm| alarm.member_id()).collect()
    }

    /// Deletes what filled it, compacts and defragments. The alarm stays.
    pub fn make_room(&self) {
        let all = DeleteOptions::new().with_prefix();
        let deleted = self.call(0, async |client| client.delete(OTHERS, Some(all)).await);
        deleted.expect("etcd lets go of keys even when it is full");
        self.compact(self.revision());
        for member in 0..self.members.len() {
            let done = self.call(member, async |client| client.defragment().await);
            done.expect("etcd defragments");
        }
    }

    pub fn disarm(&self) {
        for member in self.alarmed() {
            let mut of = AlarmOptions::new();
            of.with_member(member);
            let disarmed = self.call(0, async |client| {
                client
                    .alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(of))
                    .await
            });
            disarmed.expect("etcd disarms its alarm");
        }
        assert!(!self.is_alarmed());
    }
}

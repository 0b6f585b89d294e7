//! Coordinators that share an etcd: one leads, the others send callers to it, and the lead passes on.

mod support;

use std::net::SocketAddr;

use gapless_coordinator::{Security, ServeConfig, Server, StoreConfig, metrics::Metrics, serve};
use gapless_platform::{clock::Clock, monitor::Monitored, shutdown::Shutdown};
use gapless_proto::{
    LEADER_KEY,
    v1::{
        ClusterInfo, GetClusterRequest, ListRunsRequest, SubmitRequest, cluster_client::ClusterClient,
        jobs_client::JobsClient,
    },
};
use gapless_tests::wait_for;
use support::{LEADER_TTL, OnEtcd};
use tempfile::TempDir;
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

const JOB: &str = "
job: numbers
steps:
  - name: count
    source: {sequence: {from: 0, to: 10}}
    sink: discard
";

/// A coordinator of a test.
struct Coordinator<'a> {
    place: &'a OnEtcd,
    server: Server,
    metrics: Metrics,
    shutdown: Shutdown,
    _scratch: TempDir,
}

impl<'a> Coordinator<'a> {
    fn start(place: &'a OnEtcd, quota_bytes: u64) -> Coordinator<'a> {
        let scratch = TempDir::new().expect("a folder");
        let mut etcd = place.config("");
        etcd.address = None;
        etcd.quota_bytes = quota_bytes;
        let metrics = Metrics::new(Clock::system());
        let config = ServeConfig {
            store: StoreConfig::Etcd(Box::new(etcd)),
            scratch: scratch.path().to_path_buf(),
            memory_dir: Some(scratch.path().to_path_buf()),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            lease_ms: 2000,
            heartbeat_ms: 200,
            workers_died: false,
            metrics: metrics.clone(),
            security: Security::default(),
        };
        let shutdown = Shutdown::new();
        let server = place
            .runtime
            .block_on(serve(config, shutdown.clone()))
            .expect("it serves");
        Coordinator {
            place,
            server,
            metrics,
            shutdown,
            _scratch: scratch,
        }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.server.address)
    }

    fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(self.endpoint()).expect("an address");
        self.place.runtime.block_on(endpoint.connect()).expect("it listens")
    }

    fn cluster(&self) -> Result<ClusterInfo, Status> {
        let mut client = ClusterClient::new(self.channel());
        let asked = client.get_cluster(GetClusterRequest {});
        self.place.runtime.block_on(asked).map(|answer| answer.into_inner())
    }

    fn leads(&self) -> Option<ClusterInfo> {
        self.cluster().ok()
    }

    fn list_runs(&self) -> Result<usize, Status> {
        let mut client = JobsClient::new(self.channel());
        let asked = client.list_runs(ListRunsRequest::default());
        self.place
            .runtime
            .block_on(asked)
            .map(|answer| answer.into_inner().runs.len())
    }

    fn submit(&self) -> Result<String, Status> {
        let mut client = JobsClient::new(self.channel());
        let asked = client.submit(SubmitRequest {
            job_text: JOB.into(),
            base_dir: "/".into(),
            ..Default::default()
        });
        self.place.runtime.block_on(asked).map(|answer| answer.into_inner().run)
    }

    fn health(&self, service: &str) -> ServingStatus {
        let mut client = HealthClient::new(self.channel());
        let service = service.to_string();
        let asked = client.check(HealthCheckRequest { service });
        self.place.runtime.block_on(asked).expect("known").into_inner().status()
    }

    /// What monitoring sees: its probe, and whether its metrics say that it leads.
    fn monitored(&self) -> (Result<&'static str, String>, bool) {
        let leads = self.metrics.metrics().contains("\ngapless_leader 1\n");
        (self.metrics.ready(), leads)
    }

    fn stop(self) {
        self.shutdown.stop();
        let ended = self.place.runtime.block_on(self.server.ended);
        ended.expect("no panic").expect("an orderly end");
    }
}

const PLENTY: u64 = 2 << 30;

/// Two coordinators, the leading one first.
fn two(place: &OnEtcd) -> (Coordinator<'_>, Coordinator<'_>) {
    let leader = Coordinator::start(place, PLENTY);
    wait_for("the first to lead", || leader.leads());
    (leader, Coordinator::start(place, PLENTY))
}

/// Asks a standby until it has seen who leads.
fn refusal(standby: &Coordinator, names: &str) -> Status {
    wait_for("the standby to name the leader", || {
        let refused = standby.list_runs().expect_err("it does not lead");
        (refused.metadata().get(LEADER_KEY)?.to_str().ok()? == names).then_some(refused)
    })
}

#[test]
fn a_standby_sends_callers_to_the_leader_and_leads_when_that_one_leaves() {
    let place = OnEtcd::new(1);
    let (leader, standby) = two(&place);
    let refused = refusal(&standby, &leader.endpoint());
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains(&leader.endpoint()), "{refused}");
    for service in ["gapless.v1.Jobs", "gapless.v1.Workers"] {
        assert_eq!(leader.health(service), ServingStatus::Serving);
        assert_eq!(standby.health(service), ServingStatus::NotServing);
    }
    assert_eq!(leader.monitored(), (Ok("leading"), true));
    assert_eq!(standby.monitored(), (Ok("standing by"), false));
    let run = leader.submit().expect("it leads");
    let before = leader.cluster().expect("it leads");
    let left = std::time::Instant::now();
    leader.stop();
    let after = wait_for("the standby to lead", || standby.leads());
    // It gave the key back, so nobody had to wait for its end.
    assert!(left.elapsed() < LEADER_TTL, "{:?}", left.elapsed());
    assert!(after.term > before.term, "{} after {}", after.term, before.term);
    assert_eq!((after.id, after.live_runs), (before.id, 1));
    assert_eq!(standby.health("gapless.v1.Jobs"), ServingStatus::Serving);
    assert_eq!(standby.monitored(), (Ok("leading"), true));
    let again = standby.submit().expect_err("the run is known");
    assert_eq!(
        again.metadata().get("gapless-run").and_then(|run| run.to_str().ok()),
        Some(run.as_str())
    );
    standby.stop();
}

#[test]
fn a_leader_whose_key_is_taken_away_stands_by_and_leads_again() {
    let place = OnEtcd::new(1);
    let leader = Coordinator::start(&place, PLENTY);
    let before = wait_for("it to lead", || leader.leads());
    let (_, lease) = place.key("leader").expect("a leader");
    let mut client = place.client();
    place.runtime.block_on(client.lease_revoke(lease)).expect("revoked");
    let after = wait_for("it to lead again", || {
        leader.leads().filter(|info| info.term > before.term)
    });
    assert_eq!(after.id, before.id);
    leader.stop();
}

#[test]
fn a_leader_that_etcd_does_not_confirm_falls_silent_until_it_does() {
    let mut place = OnEtcd::new(1);
    let servers = place.servers.take().expect("its own");
    let leader = Coordinator::start(&place, PLENTY);
    let before = wait_for("it to lead", || leader.leads());
    servers.freeze(0);
    let refused = wait_for("it to fall silent", || leader.cluster().err());
    assert_eq!(
        refused.metadata().get(LEADER_KEY).map(|leader| leader.is_empty()),
        Some(true)
    );
    // Calls are refused first, by the time; what others look at follows.
    wait_for("its health and metrics to say so", || {
        let silent = leader.health("gapless.v1.Workers") == ServingStatus::NotServing;
        (silent && leader.monitored() == (Ok("standing by"), false)).then_some(())
    });
    servers.thaw(0);
    let after = wait_for("it to speak again", || leader.leads());
    assert_eq!(leader.monitored(), (Ok("leading"), true));
    assert!(after.term >= before.term);
    leader.submit().expect("it leads");
    leader.stop();
}

#[test]
fn a_nearly_full_etcd_takes_no_job_and_says_what_to_do() {
    let place = OnEtcd::new(1);
    // Any etcd is fuller than that.
    let leader = Coordinator::start(&place, 1 << 10);
    wait_for("it to lead", || leader.leads());
    let refused = wait_for("it to look", || {
        leader
            .submit()
            .err()
            .filter(|status| status.code() != Code::AlreadyExists)
    });
    assert_eq!(refused.code(), Code::ResourceExhausted);
    for word in ["etcdctl defrag", "--quota-backend-bytes", "70 %"] {
        assert!(refused.message().contains(word), "{refused}");
    }
    leader.list_runs().expect("all else goes on");
    leader.stop();
}

#[test]
fn etcd_that_is_not_there_is_told_at_the_start() {
    // A port on which nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let scratch = TempDir::new().expect("a folder");
    let config = ServeConfig {
        store: StoreConfig::Etcd(Box::new(gapless_coordinator::store::EtcdConfig {
            access: Default::default(),
            endpoints: vec![format!("http://127.0.0.1:{port}")],
            cluster: "test".into(),
            address: None,
            leader_ttl: LEADER_TTL,
            quota_bytes: PLENTY,
        })),
        scratch: scratch.path().to_path_buf(),
        memory_dir: Some(scratch.path().to_path_buf()),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        lease_ms: 2000,
        heartbeat_ms: 200,
        workers_died: false,
        metrics: Metrics::new(Clock::system()),
        security: Security::default(),
    };
    let Err(error) = runtime.block_on(serve(config, Shutdown::new())) else {
        panic!("there is no etcd");
    };
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

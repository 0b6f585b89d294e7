//! Stores whose rows are of another schema than this release writes: older ones are raised, newer ones are
//! refused in words and left as they are, also by a standby whose turn comes in a rolling upgrade.

mod support;

use std::{net::SocketAddr, path::Path};

use gapless_coordinator::{
    Security, ServeConfig, ServeError, Server, StoreConfig,
    metrics::Metrics,
    serve,
    store::{Batch, EmbeddedStore, EtcdConfig, Store, Write},
};
use gapless_platform::{clock::Clock, monitor::Monitored, shutdown::Shutdown};
use gapless_proto::v1::{GetClusterRequest, cluster_client::ClusterClient};
use gapless_tests::wait_for;
use serde_json::Value;
use support::{OnEtcd, Place};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::{Code, Status};

/// Schema 1 had no more than this.
const FIRST: &str = r#"{"cluster":"01930000-0000-4000-8000-000000000003","schema":1}"#;
const NEWER: &str =
    r#"{"cluster":"01930000-0000-4000-8000-000000000003","schema":9,"oldest":8,"release":"4.5.6","planet":"Mars"}"#;
/// A row in a form that nobody writes any more.
const SPACED: &str = " \"01930000-0000-7000-8000-000000000001\" ";

fn rows(cluster: &str) -> Vec<Write> {
    vec![
        Write::Put("cluster".into(), cluster.into()),
        Write::Put("identity/numbers".into(), SPACED.into()),
    ]
}

fn write(store: &mut dyn Store, writes: Vec<Write>) {
    let term = store.begin_term().expect("a term");
    store.write(&Batch { term, seq: 1, writes }).expect("written");
    store.end_term();
}

struct Coordinator {
    server: Server,
    metrics: Metrics,
    shutdown: Shutdown,
    _scratch: TempDir,
}

fn start(runtime: &Runtime, store: StoreConfig) -> Result<Coordinator, ServeError> {
    let scratch = TempDir::new().expect("a folder");
    let metrics = Metrics::new(Clock::system());
    let config = ServeConfig {
        store,
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
    let server = runtime.block_on(serve(config, shutdown.clone()))?;
    Ok(Coordinator {
        server,
        metrics,
        shutdown,
        _scratch: scratch,
    })
}

impl Coordinator {
    fn cluster(&self, runtime: &Runtime) -> Result<String, Status> {
        let endpoint = format!("http://{}", self.server.address);
        let asked = async {
            let mut client = ClusterClient::connect(endpoint).await.expect("it listens");
            client.get_cluster(GetClusterRequest {}).await
        };
        runtime.block_on(asked).map(|answer| answer.into_inner().id)
    }

    fn stop(self, runtime: &Runtime) {
        self.shutdown.stop();
        runtime.block_on(self.server.ended).expect("joined").expect("in order");
    }
}

fn on_etcd(place: &OnEtcd) -> StoreConfig {
    StoreConfig::Etcd(Box::new(EtcdConfig {
        address: None,
        ..place.config("")
    }))
}

fn check_raised(rows: &[(String, Vec<u8>)]) {
    let value = |key: &str| {
        let found = rows.iter().find(|(of, _)| of == key);
        String::from_utf8(found.expect(key).1.clone()).expect("text")
    };
    let cluster: Value = serde_json::from_str(&value("cluster")).expect("JSON");
    assert_eq!(
        (&cluster["schema"], &cluster["oldest"]),
        (&2.into(), &2.into()),
        "{cluster}"
    );
    assert_eq!(
        (&cluster["epoch"], &cluster["release"]),
        (&1.into(), &env!("CARGO_PKG_VERSION").into())
    );
    assert_eq!(
        cluster["cluster"], "01930000-0000-4000-8000-000000000003",
        "the identity stays"
    );
    assert_eq!(
        value("identity/numbers"),
        SPACED.trim(),
        "and every row has the new form"
    );
}

fn check_words(said: &str, place: &str) {
    for words in [
        place,
        "of schema 9",
        "reads schemas 1 to 2",
        "install release 4.5.6 or newer",
        "left as it is",
    ] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
}

fn embedded(state: &Path) -> EmbeddedStore {
    EmbeddedStore::open(&state.join("store")).expect("it opens")
}

#[test]
fn an_embedded_store_of_the_schema_before_is_raised_and_a_newer_one_refused() {
    let (runtime, state) = (Runtime::new().expect("a runtime"), TempDir::new().expect("a folder"));
    let config = StoreConfig::Embedded {
        state_dir: state.path().to_path_buf(),
    };
    write(&mut embedded(state.path()), rows(FIRST));
    let coordinator = start(&runtime, config.clone()).expect("schema 1 is known");
    let cluster = coordinator.cluster(&runtime).expect("it leads");
    assert_eq!(cluster, "01930000-0000-4000-8000-000000000003");
    coordinator.stop(&runtime);
    check_raised(&embedded(state.path()).rows().expect("rows"));

    write(&mut embedded(state.path()), rows(NEWER));
    // Looking begins a term.
    let known = || {
        let mut store = embedded(state.path());
        (store.rows().expect("rows"), store.begin_term().expect("a term").0)
    };
    let (before, term) = known();
    let error = start(&runtime, config)
        .err()
        .expect("schema 9 is not known")
        .to_string();
    check_words(&error, &state.path().join("store").display().to_string());
    assert_eq!(known(), (before, term + 1), "nothing is changed, and no term was begun");
}

#[test]
fn in_a_rolling_upgrade_the_older_coordinator_neither_leads_nor_starts() {
    let place = OnEtcd::new(1);
    let runtime = &place.runtime;
    // The newer coordinator leads on rows that the older one still knows.
    let mut newer = place.store("http://newer:1");
    let term = newer.begin_term().expect("a term");
    newer
        .write(&Batch {
            term,
            seq: 1,
            writes: rows(FIRST),
        })
        .expect("written");
    let older = start(runtime, on_etcd(&place)).expect("it stands by");
    wait_for("it to stand by", || {
        older.metrics.ready().ok().filter(|what| *what == "standing by")
    });
    // It raises them, and then it is gone.
    newer
        .write(&Batch {
            term,
            seq: 2,
            writes: rows(NEWER),
        })
        .expect("written");
    let raised = newer.rows().expect("rows");
    newer.end_term();
    let refused = wait_for("the older one to refuse", || {
        older
            .cluster(runtime)
            .err()
            .filter(|status| status.code() == Code::FailedPrecondition)
    });
    check_words(refused.message(), "/gapless/test/");
    check_words(&older.metrics.ready().expect_err("not ready"), "/gapless/test/");
    let error = start(runtime, on_etcd(&place))
        .err()
        .expect("another of the older release does not start");
    check_words(&error.to_string(), "/gapless/test/");
    assert_eq!(newer.rows().expect("rows"), raised, "nothing is changed");
    assert_eq!(place.key("leader"), None, "and nobody leads");

    // Another newer one leads: the older one says where.
    let term = newer.begin_term().expect("nobody is in its way");
    let followed = wait_for("the older one to follow", || {
        older
            .cluster(runtime)
            .err()
            .filter(|status| status.code() == Code::Unavailable)
    });
    assert!(followed.message().contains("http://newer:1"), "{followed:?}");
    assert!(older.metrics.ready().is_ok());
    // A release that the older one can follow: it leads again, and raises the rows to its own schema.
    newer
        .write(&Batch {
            term,
            seq: 1,
            writes: rows(FIRST),
        })
        .expect("written");
    newer.end_term();
    wait_for("the older one to lead", || older.cluster(runtime).ok());
    older.stop(runtime);
    place.wait_until_free();
    check_raised(&newer.rows().expect("rows"));
}

//! The coordinator and the workers inside this process: the only door to the two crates that serve.
//!
//! Everything a verb needs of them is named here, in the command line's own words.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gapless_common::labels::Labels;
pub use gapless_coordinator::{Security, metrics::Metrics as CoordinatorMetrics, store::EtcdAccess};
use gapless_coordinator::{
    ServeConfig, ServeError, StoreConfig,
    store::{EtcdConfig, StoreError},
};
use gapless_platform::{clock::Clock, config::SpillDir, process, shutdown::Shutdown};
use gapless_proto::access::Access;
pub use gapless_worker::metrics::Metrics as WorkerMetrics;
/// A worker that was asked to leave is gone after so long.
pub use gapless_worker::session::DRAIN_LIMIT;
use gapless_worker::{
    allow::AllowList,
    command::Inherited,
    session::{WorkerConfig, WorkerError, run_worker as run_session},
    work::Stages,
};
use tokio::task::JoinHandle;

use crate::failure::{Failure, Kind};

/// What a coordinator needs to know.
#[derive(Clone, Debug)]
pub struct CoordinatorSettings {
    pub state: State,
    /// A folder, or an address of an object store.
    pub scratch: PathBuf,
    /// Where a file remembers how far a cluster on etcd has come.
    pub memory_dir: Option<PathBuf>,
    /// Port 0 lets the system choose.
    pub listen: SocketAddr,
    pub lease_ms: u32,
    pub heartbeat_ms: u32,
    /// Whether the workers are in the process that has the store, so that none outlives it.
    pub own_workers: bool,
    pub metrics: CoordinatorMetrics,
    pub security: Security,
}

/// Where a coordinator keeps its state.
#[derive(Clone, Debug)]
pub enum State {
    Folder(PathBuf),
    Etcd(Box<EtcdSettings>),
}

/// The store of a cluster with several coordinators.
#[derive(Clone, Debug)]
pub struct EtcdSettings {
    pub endpoints: Vec<String>,
    pub access: EtcdAccess,
    pub cluster: String,
    /// `HOST:PORT` at which others reach this coordinator, unless it is where it listens.
    pub advertise: Option<String>,
    pub leader_ttl: Duration,
    pub quota_bytes: u64,
}

/// What a worker needs to know.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    pub endpoints: Vec<String>,
    /// For people; host name and process id where it is not given.
    pub name: Option<String>,
    pub slots: u32,
    pub labels: Labels,
    pub memory_per_slot_mib: u32,
    pub metrics: WorkerMetrics,
    pub access: Access,
    /// Folders outside which it touches no data; empty for any.
    pub allow_paths: Vec<PathBuf>,
    /// Whether it starts the programs of jobs.
    pub allow_command: bool,
    /// Variables that these get although they may hold secrets.
    pub program_variables: Vec<String>,
    pub spill_dir: SpillDir,
}

/// A coordinator that serves in this process.
pub struct Coordinator {
    pub address: SocketAddr,
    scheme: &'static str,
    shutdown: Shutdown,
    serving: JoinHandle<Result<(), ServeError>>,
}

/// File in the state folder that names the address of the process that has the store open.
const ENDPOINT_FILE: &str = "endpoint";

impl Coordinator {
    /// Opens the store and serves until `shutdown` stops. A store in a folder belongs to one process
    /// at a time.
    ///
    /// Errors: [`Kind::Conflict`] for a second process.
    pub async fn start(settings: CoordinatorSettings, shutdown: Shutdown) -> Result<Coordinator, Failure> {
        let config = ServeConfig {
            store: match settings.state.clone() {
                State::Folder(state_dir) => StoreConfig::Embedded { state_dir },
                State::Etcd(etcd) => StoreConfig::Etcd(Box::new(EtcdConfig {
                    endpoints: etcd.endpoints,
                    access: etcd.access,
                    cluster: etcd.cluster,
                    address: etcd.advertise,
                    leader_ttl: etcd.leader_ttl,
                    quota_bytes: etcd.quota_bytes,
                })),
            },
            scratch: settings.scratch,
            memory_dir: settings.memory_dir,
            listen: settings.listen,
            lease_ms: settings.lease_ms,
            heartbeat_ms: settings.heartbeat_ms,
            workers_died: settings.own_workers,
            metrics: settings.metrics,
            security: settings.security,
        };
        let served = gapless_coordinator::serve(config, shutdown.clone()).await;
        let server = served.map_err(|error| start_failure(&error, &settings.state))?;
        Ok(Coordinator {
            address: server.address,
            scheme: server.scheme,
            shutdown,
            serving: server.ended,
        })
    }

    /// Where it can be reached from this machine.
    pub fn endpoint(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            });
        }
        format!("{}://{address}", self.scheme)
    }

    /// Where workers and clients reach it: as it is advertised, `HOST:PORT`, else from this machine.
    pub fn reached_at(&self, advertised: Option<&str>) -> String {
        match advertised {
            Some(host) => format!("{}://{host}", self.scheme),
            None => self.endpoint(),
        }
    }

    /// Waits until the coordinator has ended, by itself or because it was told to.
    pub async fn ended(&mut self) -> Result<(), Failure> {
        match (&mut self.serving).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::failed(error.to_string())),
            Err(error) => Err(Failure::failed(format!(
                "the coordinator failed: {error}; please report it"
            ))),
        }
    }

    /// Stops it and waits for its end.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.shutdown.stop();
        self.ended().await
    }
}

/// Works for a cluster until `shutdown` drains and the open tasks are given back.
pub async fn run_worker(settings: WorkerSettings, shutdown: Shutdown) -> Result<(), Failure> {
    let name = settings
        .name
        .unwrap_or_else(|| format!("{}-{}", process::host_name(), std::process::id()));
    let config = WorkerConfig {
        endpoints: settings.endpoints,
        name,
        slots: settings.slots,
        labels: settings.labels,
        memory_per_slot_bytes: u64::from(settings.memory_per_slot_mib) << 20,
        access: settings.access,
        clock: Clock::system(),
        metrics: settings.metrics,
    };
    let allowed = AllowList::new(&settings.allow_paths).map_err(|error| Failure::usage(error.to_string()))?;
    let programs = settings
        .allow_command
        .then(|| Inherited::with(settings.program_variables));
    let stages = Arc::new(Stages::within(allowed, programs, settings.spill_dir));
    // The session has a runtime of its own: computing must never keep a heartbeat waiting.
    let ended = tokio::task::spawn_blocking(move || run_session(config, stages, &shutdown)).await;
    match ended {
        Ok(Err(WorkerError::Access(error))) => Err(Failure::usage(error.to_string())),
        Ok(result) => result.map_err(|error| Failure::failed(error.to_string())),
        Err(panic) => Err(Failure::failed(format!("the worker failed: {panic}; please report it"))),
    }
}

/// Why a coordinator did not start, with what to do.
fn start_failure(error: &ServeError, state: &State) -> Failure {
    match (error, state) {
        (ServeError::Listen { address, source }, _) if source.kind() == io::ErrorKind::AddrInUse => Failure::new(
            Kind::Conflict,
            format!("{address} is in use: is a coordinator running there? Choose another address with --listen"),
        ),
        (ServeError::Store(StoreError::Schema { .. }), _) => Failure::failed(error.to_string()),
        (ServeError::Security(error), _) => Failure::usage(error.to_string()),
        (ServeError::Store(error), State::Folder(state)) => match live_endpoint(state) {
            Some(endpoint) => Failure::new(
                Kind::Conflict,
                format!(
                    "the state folder {} belongs to the coordinator at {endpoint}. \
                     Speak to it with --endpoint {endpoint}, or choose another folder with --state",
                    state.display()
                ),
            ),
            None => Failure::failed(error.to_string()),
        },
        (ServeError::Store(error), State::Etcd(_)) => Failure::new(
            Kind::Unreachable,
            format!(
                "{error}\nIs etcd running there? Name its members with --etcd-endpoints or GAPLESS_ETCD_ENDPOINTS."
            ),
        ),
        (ServeError::Folder { path, source }, _) => {
            let kind = match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
                _ => Kind::Failed,
            };
            let message = format!(
                "cannot make the folder {}: {source}; give this user the right to write there, or choose others with \
                 --state and --scratch",
                path.display()
            );
            Failure::new(kind, message)
        }
        (ServeError::NoAddress { .. }, _) => Failure::usage(error.to_string()),
        _ => Failure::failed(error.to_string()),
    }
}

/// On this machine a connection is taken at once or not at all.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// The address of the process that has the store of this folder open, where one has. One that was
/// killed may have left its address, at which nobody answers.
pub fn live_endpoint(state: &Path) -> Option<String> {
    let endpoint = fs::read_to_string(state.join(ENDPOINT_FILE)).ok()?;
    let address: SocketAddr = endpoint.trim().split_once("://")?.1.parse().ok()?;
    TcpStream::connect_timeout(&address, ANSWER_TIMEOUT).ok()?;
    Some(endpoint.trim().to_string())
}

/// Notes where the store of this folder can be reached, for [`live_endpoint`]; dropped, forgets it.
pub struct Announced(PathBuf);

impl Announced {
    pub fn write(state: &Path, endpoint: &str) -> Result<Announced, Failure> {
        let path = state.join(ENDPOINT_FILE);
        let written = fs::create_dir_all(state).and_then(|()| fs::write(&path, endpoint));
        let written = written.map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())));
        written.map(|()| Announced(path))
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        // A file that stays names an address that does not answer, which is found out.
        let _ = fs::remove_file(&self.0);
    }
}

/// Opens an embedded store that no other process has open, to read it.
pub async fn open_store(state: &Path) -> Result<Coordinator, Failure> {
    if !state.is_dir() {
        let message = format!(
            "no state folder {}; `gapless run` makes one beside its job file",
            state.display()
        );
        return Err(Failure::new(Kind::NotFound, message));
    }
    let settings = CoordinatorSettings {
        state: State::Folder(state.to_path_buf()),
        scratch: state.join("scratch"),
        memory_dir: None,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        lease_ms: 5000,
        heartbeat_ms: 1000,
        // A cluster's workers may outlive its coordinator: a look must not void what they hold.
        own_workers: false,
        metrics: CoordinatorMetrics::new(Clock::system()),
        security: Security::default(),
    };
    Coordinator::start(settings, Shutdown::new()).await
}

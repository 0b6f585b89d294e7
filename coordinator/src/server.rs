//! Serving: the store is opened, the services are put on a port, and the lead is taken.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use gapless_common::address::is_url;
use gapless_platform::{clock::Clock, shutdown::Shutdown};
use gapless_proto::v1::{self, cluster_server::ClusterServer, jobs_server::JobsServer, workers_server::WorkersServer};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tonic::transport::Server as Grpc;

use crate::{
    control::ControlConfig,
    grpc::{ClusterService, JobsService, Sessions, Submits, WorkersService},
    guard::{Guard, Security, SecurityError},
    identity::Memory,
    leading::Leading,
    limits::{KEEP_ALIVE, MESSAGE_LIMIT, REQUEST_LIMIT, RETURN_FRACTION, RETURN_MOST, STREAMS},
    metrics::Metrics,
    seat::{Role, Seat},
    store::{EmbeddedStore, Etcd, EtcdConfig, EtcdStore, StoreError},
    takeover::check_schema,
};

/// Where a coordinator keeps its state.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// In this folder. Its only coordinator leads at once.
    Embedded { state_dir: PathBuf },
    /// In etcd, which any number of coordinators share. One of them leads. Where the configuration names
    /// no address, it is the one on which this coordinator listens.
    Etcd(Box<EtcdConfig>),
}

/// What a coordinator needs to know.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    pub store: StoreConfig,
    /// Folder for exchange files and staged data, which every worker can reach, or an address in an object
    /// store, which this coordinator does not ask for anything.
    pub scratch: PathBuf,
    /// Folder for a file that remembers how far a cluster on etcd has come; `None` where there is no folder
    /// that outlives this process.
    pub memory_dir: Option<PathBuf>,
    /// Port 0 lets the system choose.
    pub listen: SocketAddr,
    pub lease_ms: u32,
    pub heartbeat_ms: u32,
    /// Whether every worker of earlier starts is known to be dead.
    pub workers_died: bool,
    /// Filled by the coordinator; whoever made it may serve it.
    pub metrics: Metrics,
    pub security: Security,
}

/// Why a coordinator did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{path}: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Security(#[from] SecurityError),
    #[error("serving failed: {0}")]
    Serve(#[from] tonic::transport::Error),
    #[error("the services cannot describe themselves: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error(
        "the listening address {address} is not one that others can reach: say with --advertise HOST:PORT where this coordinator is"
    )]
    NoAddress { address: SocketAddr },
    #[error("the control loop has ended; the log says why")]
    LoopEnded,
}

/// A coordinator that serves.
pub struct Server {
    pub address: SocketAddr,
    /// `https` or `http`.
    pub scheme: &'static str,
    /// Ends when the shutdown does, or with an error when the coordinator cannot go on.
    pub ended: JoinHandle<Result<(), ServeError>>,
}

enum Opened {
    Embedded(EmbeddedStore),
    Etcd(Box<EtcdConfig>),
}

/// Where the lead is decided.
enum Place {
    /// Here: it is taken already.
    Embedded,
    Etcd(Box<Etcd>),
}

/// Opens the store and serves until `shutdown` stops. With the embedded store this coordinator leads
/// when this returns; with etcd it may be a standby.
pub async fn serve(config: ServeConfig, shutdown: Shutdown) -> Result<Server, ServeError> {
    let clock = Clock::system();
    let guard = Guard::new(&config.security, config.listen, clock.clone())?;
    let scratch = match config.scratch.to_str().is_some_and(is_url) {
        true => config.scratch.clone(),
        false => make_folder(&config.scratch)?,
    };
    let store = match &config.store {
        StoreConfig::Embedded { state_dir } => {
            make_folder(state_dir)?;
            Opened::Embedded(EmbeddedStore::open(&state_dir.join("store"))?)
        }
        StoreConfig::Etcd(etcd) => Opened::Etcd(etcd.clone()),
    };
    let refused = |source| ServeError::Listen {
        address: config.listen,
        source,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let (health_reporter, health) = tonic_health::server::health_reporter();
    let (role, seen) = watch::channel(Role::Follows { leader: String::new() });
    let control = ControlConfig {
        lease_ms: config.lease_ms,
        heartbeat_ms: config.heartbeat_ms,
        workers_died: config.workers_died,
    };
    let memory = match &config.store {
        // Whoever uses an embedded store alone remembers nothing that could outlive it.
        StoreConfig::Embedded { .. } => Memory::default(),
        StoreConfig::Etcd(etcd) => match &config.memory_dir {
            Some(folder) => Memory::in_folder(&make_folder(folder)?, &etcd.cluster),
            None => {
                tracing::info!(
                    "scratch is in an object store and no state folder is named: only the coordinators and workers that \
                     run remember how far the cluster has come; --state names a folder for a file that outlives them"
                );
                Memory::default()
            }
        },
    };
    let mut leading = Leading::new(
        role,
        health_reporter,
        clock.clone(),
        control,
        config.metrics.clone(),
        memory,
    );
    let mut own = format!("{}://{address}", guard.scheme());
    let place = match store {
        Opened::Embedded(store) => {
            leading.begin(Box::new(store), watch::channel(None).1, None).await?;
            Place::Embedded
        }
        Opened::Etcd(mut etcd) => {
            if etcd.address.is_none() && address.ip().is_unspecified() {
                return Err(ServeError::NoAddress { address });
            }
            let named = etcd.address.unwrap_or_else(|| address.to_string());
            // Whoever is sent here must know whether there is TLS.
            own = format!("{}://{named}", guard.scheme());
            etcd.address = Some(own.clone());
            let etcd = Etcd::connect(*etcd, shutdown.clone()).await?;
            let store = EtcdStore::new(etcd.clone());
            // One that could never lead says so at once.
            let checked = tokio::task::spawn_blocking(move || check_schema(&store)).await;
            checked.map_err(|error| StoreError::Read {
                reason: error.to_string(),
            })??;
            Place::Etcd(Box::new(etcd))
        }
    };
    let seat = Seat::new(seen);
    let sessions = Sessions::default();
    let workers = WorkersService {
        seat: seat.clone(),
        scratch: scratch.display().to_string(),
        sessions: sessions.clone(),
        return_time: RETURN_MOST.min(Duration::from_millis(u64::from(config.lease_ms)) / RETURN_FRACTION),
    };
    let jobs = JobsService {
        seat: seat.clone(),
        submits: Submits::new(clock.clone()),
    };
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .build_v1()?;
    let serving = Grpc::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .layer(guard.layer())
        .add_service(health)
        .add_service(reflection)
        .add_service(JobsServer::new(jobs).max_decoding_message_size(REQUEST_LIMIT))
        .add_service(
            WorkersServer::new(workers)
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
        )
        .add_service(ClusterServer::new(ClusterService {
            seat,
            clock,
            address: own,
        }))
        .serve_with_incoming(guard.admit(listener));
    let stop = shutdown.stopping().clone();
    let ended = tokio::spawn(async move {
        let lead = async {
            match &place {
                Place::Embedded => leading.lead_alone().await,
                Place::Etcd(etcd) => leading.stand(etcd).await,
            }
        };
        let result = tokio::select! {
            served = serving => served.map_err(ServeError::from),
            () = lead => Err(ServeError::LoopEnded),
            () = stop.cancelled() => Ok(()),
        };
        sessions.end();
        match leading.end().await {
            true => Err(ServeError::LoopEnded),
            false => result,
        }
    });
    Ok(Server {
        address,
        scheme: guard.scheme(),
        ended,
    })
}

fn make_folder(path: &Path) -> Result<PathBuf, ServeError> {
    let made = fs::create_dir_all(path).and_then(|()| path.canonicalize());
    made.map_err(|source| ServeError::Folder {
        path: path.to_path_buf(),
        source,
    })
}

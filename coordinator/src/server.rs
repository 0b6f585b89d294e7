//! Serving: the store is opened, the loop started, the services put on a port.

use std::{fs, io, net::SocketAddr, path::PathBuf, thread};

use gapless_platform::{clock::Clock, shutdown::Shutdown};
use gapless_proto::v1::{self, cluster_server::ClusterServer, jobs_server::JobsServer, workers_server::WorkersServer};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::transport::Server as Grpc;

use crate::{
    control::{Control, ControlConfig},
    grpc::{ClusterService, JobsService, Sessions, WorkersService},
    guard::{Guard, Security, SecurityError},
    limits::{KEEP_ALIVE, MESSAGE_LIMIT, REQUEST_LIMIT, STREAMS, TICK},
    store::{EmbeddedStore, StoreError},
};

/// What a coordinator needs to know.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Folder of the embedded store.
    pub state_dir: PathBuf,
    /// Folder for exchange files and staged data, which every worker can reach.
    pub scratch: PathBuf,
    /// Port 0 lets the system choose.
    pub listen: SocketAddr,
    pub lease_ms: u32,
    pub heartbeat_ms: u32,
    /// Whether every worker of earlier starts is known to be dead.
    pub workers_died: bool,
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

/// Opens the store, takes the lead and serves until `shutdown` stops.
pub async fn serve(config: ServeConfig, shutdown: Shutdown) -> Result<Server, ServeError> {
    let clock = Clock::system();
    let guard = Guard::new(&config.security, config.listen, clock.clone())?;
    for path in [&config.state_dir, &config.scratch] {
        fs::create_dir_all(path).map_err(|source| ServeError::Folder {
            path: path.clone(),
            source,
        })?;
    }
    let scratch = config.scratch.canonicalize();
    let scratch = scratch.map_err(|source| ServeError::Folder {
        path: config.scratch.clone(),
        source,
    })?;
    let store = EmbeddedStore::open(&config.state_dir.join("store"))?;
    let ControlParts { control, thread } = start_control(store, &config, &clock)?;
    let refused = |source| ServeError::Listen {
        address: config.listen,
        source,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let sessions = Sessions::default();
    let workers = WorkersService {
        control: control.clone(),
        scratch: scratch.display().to_string(),
        sessions: sessions.clone(),
    };
    let jobs = JobsService {
        control: control.clone(),
    };
    let cluster = ClusterService {
        control: control.clone(),
        clock,
    };
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_serving::<JobsServer<JobsService>>().await;
    health_reporter.set_serving::<WorkersServer<WorkersService>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .build_v1()?;
    let stop = shutdown.stopping().clone();
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
        .add_service(ClusterServer::new(cluster))
        .serve_with_incoming(guard.admit(listener));
    let ended = tokio::spawn(async move {
        let result = tokio::select! {
            served = serving => served.map_err(ServeError::from),
            () = keep_time(&control) => Err(ServeError::LoopEnded),
            () = stop.cancelled() => Ok(()),
        };
        sessions.end();
        control.stop().await;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        match joined {
            Ok(Ok(())) => result,
            _ => Err(ServeError::LoopEnded),
        }
    });
    Ok(Server {
        address,
        scheme: guard.scheme(),
        ended,
    })
}

struct ControlParts {
    control: Control,
    thread: thread::JoinHandle<()>,
}

fn start_control(store: EmbeddedStore, config: &ServeConfig, clock: &Clock) -> Result<ControlParts, StoreError> {
    let control_config = ControlConfig {
        lease_ms: config.lease_ms,
        heartbeat_ms: config.heartbeat_ms,
        workers_died: config.workers_died,
    };
    let (control, thread) = Control::start(Box::new(store), clock.clone(), control_config)?;
    Ok(ControlParts { control, thread })
}

/// Tells the loop that time passes, until the loop has ended.
async fn keep_time(control: &Control) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if control.tick().await.is_err() {
            return;
        }
    }
}

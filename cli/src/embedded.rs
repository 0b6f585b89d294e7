//! The coordinator and the workers inside this process: the only door to the two crates that serve.
//!
//! Everything a verb needs of them is named here, in the command line's own words.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use gapless_platform::shutdown::Shutdown;

use crate::failure::Failure;

/// What a coordinator needs to know.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "read by the serving crate once it is wired in")]
pub struct CoordinatorSettings {
    pub state_dir: PathBuf,
    pub scratch: PathBuf,
    /// Port 0 lets the system choose.
    pub listen: SocketAddr,
    pub lease_ms: u32,
    pub heartbeat_ms: u32,
}

/// What a worker needs to know.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "read by the serving crate once it is wired in")]
pub struct WorkerSettings {
    pub endpoints: Vec<String>,
    /// For people; host name and process id where it is not given.
    pub name: Option<String>,
    pub slots: u32,
    pub memory_per_slot_mib: u32,
}

/// A coordinator that serves in this process.
pub struct Coordinator {
    pub address: SocketAddr,
    pub shutdown: Shutdown,
}

/// A part that this build does not hold.
#[derive(Debug, thiserror::Error)]
#[error("this build of gapless has no {part}: it cannot {what}")]
pub struct NotWired {
    part: &'static str,
    what: &'static str,
}

impl From<NotWired> for Failure {
    fn from(error: NotWired) -> Self {
        Failure::failed(error.to_string())
    }
}

/// File in the state folder that names the address of the process that has the store open.
const ENDPOINT_FILE: &str = "endpoint";

impl Coordinator {
    /// Opens the store and serves until `shutdown` stops. The store belongs to one process at a
    /// time; the error for a second one says which has it.
    pub async fn start(_settings: CoordinatorSettings, _shutdown: Shutdown) -> Result<Coordinator, Failure> {
        Err(NotWired {
            part: "coordinator",
            what: "lead a cluster or do a job in this process",
        }
        .into())
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until the coordinator has ended, by itself or because it was told to.
    pub async fn ended(&mut self) -> Result<(), Failure> {
        self.shutdown.stopping().cancelled().await;
        Ok(())
    }

    /// Stops it and waits for its end.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.shutdown.stop();
        self.ended().await
    }
}

/// Works for a cluster until `shutdown` drains and the open tasks are given back.
pub async fn run_worker(_settings: WorkerSettings, _shutdown: Shutdown) -> Result<(), Failure> {
    Err(NotWired {
        part: "worker",
        what: "work for a cluster",
    }
    .into())
}

/// The address of the process that has the store of this folder open, where one has.
pub fn live_endpoint(state: &Path) -> Option<String> {
    let endpoint = fs::read_to_string(state.join(ENDPOINT_FILE)).ok()?;
    let endpoint = endpoint.trim();
    (!endpoint.is_empty()).then(|| endpoint.to_string())
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
        return Err(Failure::new(crate::failure::Kind::NotFound, message));
    }
    let settings = CoordinatorSettings {
        state_dir: state.to_path_buf(),
        scratch: state.join("scratch"),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        lease_ms: 5000,
        heartbeat_ms: 1000,
    };
    Coordinator::start(settings, Shutdown::new()).await
}

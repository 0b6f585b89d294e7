//! A coordinator that plays a script: it answers what it is told to, and notes what it was asked.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use gapless_proto::v1::{
    AcceptRestoreRequest, CancelRunRequest, ClusterInfo, Counters, GetClusterRequest, GetRunRequest, ListEventsRequest,
    ListPartitionsRequest, ListPartitionsResponse, ListRunsRequest, ListRunsResponse, ListWorkersRequest,
    ListWorkersResponse, PartitionCounts, PartitionStatus, Run, RunEvent, RunState, StepStatus, StopRunRequest,
    SubmitRequest, SubmitResponse, WorkerInfo,
    cluster_server::{Cluster, ClusterServer},
    jobs_server::{Jobs, JobsServer},
};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, http},
    transport::Server,
};

/// One move in the script of `WatchRun`. The script goes on with the next stream.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a script has a few of them")]
pub enum Watch {
    Then(Run),
    Break(Code),
    Close,
    Hang,
}

/// The answer to one call of `ListEvents`: these events, then the end or a break.
#[derive(Clone, Debug)]
pub struct Events {
    pub events: Vec<RunEvent>,
    pub then: Option<Code>,
}

#[derive(Default)]
struct Script {
    refusal: Option<Status>,
    runs: Vec<Run>,
    watches: VecDeque<Watch>,
    workers: Vec<WorkerInfo>,
    partitions: Vec<PartitionStatus>,
    events: VecDeque<Events>,
    submitted: Vec<SubmitRequest>,
    stopped: Vec<String>,
    listed: Vec<ListEventsRequest>,
}

/// The coordinator; it ends when this is dropped.
pub struct Fake {
    script: Arc<Mutex<Script>>,
    address: SocketAddr,
    _runtime: Runtime,
}

impl Fake {
    pub fn start() -> Fake {
        let runtime = Runtime::new().expect("a runtime");
        let script = Arc::new(Mutex::new(Script::default()));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let service = Service(script.clone());
        let services = Services {
            jobs: JobsServer::new(service.clone()),
            cluster: ClusterServer::new(service),
        };
        runtime.spawn(Server::builder().serve_with_incoming(services, TcpListenerStream::new(listener)));
        Fake {
            script,
            address,
            _runtime: runtime,
        }
    }

    /// The refusal of a submit for a run that exists.
    pub fn exists(run: &str) -> Status {
        let mut status = Status::already_exists("it is there");
        status.metadata_mut().insert("gapless-run", run.parse().expect("ASCII"));
        status
    }

    /// The refusal of a coordinator that does not lead; empty where it does not know who does.
    pub fn not_leader(leader: &str) -> Status {
        let mut status = Status::unavailable("it does not lead");
        let leader = leader.parse().expect("ASCII");
        status.metadata_mut().insert("gapless-leader", leader);
        status
    }

    pub fn accept_submit(&self) {
        self.script().refusal = None;
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn refuse_submit(&self, status: Status) {
        self.script().refusal = Some(status);
    }

    pub fn know(&self, run: Run) {
        self.script().runs.push(run);
    }

    pub fn watches(&self, moves: Vec<Watch>) {
        self.script().watches = moves.into();
    }

    pub fn work(&self, worker: WorkerInfo) {
        self.script().workers.push(worker);
    }

    pub fn partitions(&self, partitions: impl Iterator<Item = PartitionStatus>) {
        self.script().partitions = partitions.collect();
    }

    pub fn events(&self, events: Vec<Events>) {
        self.script().events = events.into();
    }

    /// What `ListEvents` was asked.
    pub fn listed(&self) -> Vec<ListEventsRequest> {
        self.script().listed.clone()
    }

    pub fn submitted(&self) -> Vec<SubmitRequest> {
        self.script().submitted.clone()
    }

    pub fn stopped(&self) -> Vec<String> {
        self.script().stopped.clone()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no test panicked")
    }
}

/// A run of the job `nightly`.
pub fn run(id: &str, state: RunState, steps: Vec<StepStatus>) -> Run {
    Run {
        id: id.into(),
        job: "nightly".into(),
        parameters: [("date".to_string(), "2026-11-20".to_string())].into(),
        state: state.into(),
        submitted_micros: 1_795_171_200_000_000,
        finished_micros: 1_795_171_202_000_000,
        steps,
        ..Default::default()
    }
}

/// A step of 1000 units and rows.
pub fn step(name: &str, state: &str, read: u64) -> StepStatus {
    StepStatus {
        name: name.into(),
        state: state.into(),
        partitions: Some(PartitionCounts {
            total: 4,
            done: 1,
            running: 2,
            waiting: 1,
            failed: 0,
        }),
        counters: Some(Counters {
            read,
            written: read / 100 * 99,
            rejected: read / 100,
            ..Default::default()
        }),
        units_total: 1000,
        units_read: read,
        rows_read: read,
        started_micros: 1_795_171_200_000_000,
        finished_micros: 1_795_171_202_000_000,
        ..Default::default()
    }
}

/// The services on one port, by the path of the call: what tonic's router does, without axum.
#[derive(Clone)]
struct Services {
    jobs: JobsServer<Service>,
    cluster: ClusterServer<Service>,
}

impl tonic::codegen::Service<http::Request<Body>> for Services {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match request.uri().path().starts_with("/gapless.v1.Jobs/") {
            true => self.jobs.call(request),
            false => self.cluster.call(request),
        }
    }
}

#[derive(Clone)]
struct Service(Arc<Mutex<Script>>);

impl Service {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().expect("no test panicked")
    }

    fn find(&self, id: &str) -> Result<Run, Status> {
        let script = self.script();
        let found = script.runs.iter().find(|run| run.id == id);
        found.cloned().ok_or_else(|| Status::not_found(format!("no run {id}")))
    }

    fn turn(&self, id: &str, state: RunState) -> Result<Response<Run>, Status> {
        let mut run = self.find(id)?;
        run.state = state.into();
        Ok(Response::new(run))
    }
}

#[tonic::async_trait]
impl Jobs for Service {
    type WatchRunStream = Pin<Box<dyn Stream<Item = Result<Run, Status>> + Send>>;

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        let mut script = self.script();
        script.submitted.push(request.into_inner());
        match &script.refusal {
            Some(status) => Err(status.clone()),
            None => Ok(Response::new(SubmitResponse {
                run: "run-1".into(),
                resumed: false,
            })),
        }
    }

    async fn get_run(&self, request: Request<GetRunRequest>) -> Result<Response<Run>, Status> {
        self.find(&request.into_inner().run).map(Response::new)
    }

    async fn list_runs(&self, _: Request<ListRunsRequest>) -> Result<Response<ListRunsResponse>, Status> {
        let runs = self.script().runs.iter().rev().cloned().collect();
        Ok(Response::new(ListRunsResponse { runs }))
    }

    async fn watch_run(&self, _: Request<GetRunRequest>) -> Result<Response<Self::WatchRunStream>, Status> {
        let mut script = self.script();
        let mut states = Vec::new();
        let mut hangs = false;
        while let Some(next) = script.watches.pop_front() {
            match next {
                Watch::Then(run) => states.push(Ok(run)),
                Watch::Break(code) => {
                    states.push(Err(Status::new(code, "a scripted break")));
                    break;
                }
                Watch::Close => break,
                Watch::Hang => {
                    hangs = true;
                    break;
                }
            }
        }
        let states = tokio_stream::iter(states);
        Ok(Response::new(match hangs {
            true => Box::pin(states.chain(tokio_stream::pending())),
            false => Box::pin(states),
        }))
    }

    async fn list_partitions(
        &self,
        request: Request<ListPartitionsRequest>,
    ) -> Result<Response<ListPartitionsResponse>, Status> {
        let request = request.into_inner();
        let script = self.script();
        let end = (request.from as usize + request.limit as usize).min(script.partitions.len());
        Ok(Response::new(ListPartitionsResponse {
            partitions: script.partitions[request.from as usize..end].to_vec(),
            next: (end < script.partitions.len()).then_some(end as u32),
        }))
    }

    type ListEventsStream = Pin<Box<dyn Stream<Item = Result<RunEvent, Status>> + Send>>;

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<Self::ListEventsStream>, Status> {
        let request = request.into_inner();
        self.find(&request.run)?;
        let mut script = self.script();
        script.listed.push(request);
        let Some(Events { events, then }) = script.events.pop_front() else {
            return Err(Status::unavailable("the script is over"));
        };
        let end = then.map(|code| Err(Status::new(code, "a scripted break")));
        let events = events.into_iter().map(Ok).chain(end);
        Ok(Response::new(Box::pin(tokio_stream::iter(events))))
    }

    async fn stop_run(&self, request: Request<StopRunRequest>) -> Result<Response<Run>, Status> {
        let run = request.into_inner().run;
        self.script().stopped.push(run.clone());
        self.turn(&run, RunState::Stopping)
    }

    async fn cancel_run(&self, request: Request<CancelRunRequest>) -> Result<Response<Run>, Status> {
        self.turn(&request.into_inner().run, RunState::Cancelling)
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn get_cluster(&self, _: Request<GetClusterRequest>) -> Result<Response<ClusterInfo>, Status> {
        Ok(Response::new(ClusterInfo::default()))
    }

    async fn accept_restore(&self, _: Request<AcceptRestoreRequest>) -> Result<Response<ClusterInfo>, Status> {
        Err(Status::failed_precondition("nothing to accept"))
    }

    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Result<Response<ListWorkersResponse>, Status> {
        let workers = self.script().workers.clone();
        Ok(Response::new(ListWorkersResponse { workers }))
    }
}

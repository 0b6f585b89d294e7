//! A leader for tests: the real wire on loopback, with a script for its answers and a log of all
//! it heard.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use gapless_common::ids::TaskKey;
use gapless_proto::v1::{
    self,
    leader_command::Command,
    worker_event::Event,
    workers_server::{Workers, WorkersServer},
};
use tokio::{net::TcpListener, runtime::Runtime, sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::server::TcpIncoming};
use uuid::Uuid;

use super::wire;

/// Far above what any wait here takes; only a failing test reaches it.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const CLUSTER: Uuid = Uuid::from_u128(0xc1);

/// What the leader answers to an event.
pub type Script = Box<dyn FnMut(&Event) -> Vec<Command> + Send>;

/// Accepts every commit.
pub fn accepting() -> Script {
    Box::new(|event| match event {
        Event::Commit(commit) => vec![reply(commit, true, "")],
        _ => Vec::new(),
    })
}

/// Answers nothing.
pub fn silent() -> Script {
    Box::new(|_| Vec::new())
}

pub fn reply(commit: &v1::CommitRequest, accepted: bool, reason: &str) -> Command {
    Command::CommitReply(v1::CommitReply {
        task: commit.task.clone(),
        fence: commit.fence,
        seq: commit.seq,
        accepted,
        reason: reason.to_string(),
    })
}

pub fn fence(number: u32, serial: u64) -> v1::Fence {
    v1::Fence {
        number,
        term: 1,
        serial,
    }
}

pub fn grant(task: TaskKey, number: u32, serial: u64) -> Command {
    Command::Grant(v1::Grant {
        task: Some(wire::task_to_wire(task, wire::bytes(task.run.0))),
        fence: Some(fence(number, serial)),
        low: 0,
        high: 10,
        position: 0,
        seq: 0,
        edition: 0,
    })
}

pub fn stop(task: TaskKey, number: u32, serial: u64, at_checkpoint: bool, reason: &str) -> Command {
    Command::Stop(v1::StopAttempt {
        task: Some(wire::task_to_wire(task, wire::bytes(task.run.0))),
        fence: Some(fence(number, serial)),
        at_checkpoint,
        reason: reason.to_string(),
    })
}

struct State {
    /// Number of the session, from 1, and what was heard in it.
    heard: Vec<(u32, Event)>,
    keep_log: bool,
    sessions: u32,
    refusing: bool,
    /// Whom a refusal names as the leader.
    names: Option<String>,
    /// Answers nothing that needs no command.
    mute: bool,
    refused: u32,
    term: u64,
    cluster: Uuid,
    script: Script,
    outbound: Option<mpsc::Sender<Result<v1::LeaderMessage, Status>>>,
    step: v1::GetStepResponse,
    steps_asked: u32,
    pages: HashMap<u32, v1::ListCommittedResponse>,
    readers: JoinSet<()>,
}

#[derive(Clone)]
struct Service(Arc<(Mutex<State>, Condvar)>);

impl Service {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().expect("no test panics inside")
    }

    /// Logs what a worker said and collects the answers.
    fn hear(&self, session: u32, message: v1::WorkerMessage) -> (Vec<Command>, u64) {
        let mut state = self.lock();
        let mut answers = Vec::new();
        for event in message.events.into_iter().filter_map(|event| event.event) {
            answers.extend((state.script)(&event));
            if state.keep_log {
                state.heard.push((session, event));
            }
        }
        self.0.1.notify_all();
        (answers, state.term)
    }
}

fn message(term: u64, commands: Vec<Command>) -> v1::LeaderMessage {
    let commands = commands
        .into_iter()
        .map(|command| v1::LeaderCommand { command: Some(command) })
        .collect();
    v1::LeaderMessage {
        term,
        commands,
        mark: term,
    }
}

#[tonic::async_trait]
impl Workers for Service {
    type SessionStream = ReceiverStream<Result<v1::LeaderMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (outbound, messages) = mpsc::channel(64);
        let mut state = self.lock();
        if state.refusing {
            state.refused += 1;
            self.0.1.notify_all();
            let mut status = Status::unavailable("told to refuse");
            if let Some(leader) = &state.names {
                let leader = leader.parse().expect("an address");
                status.metadata_mut().insert(gapless_proto::LEADER_KEY, leader);
            }
            return Err(status);
        }
        state.sessions += 1;
        let session = state.sessions;
        let welcome = Command::Welcome(v1::Welcome {
            reign: wire::bytes(CLUSTER),
            session: wire::bytes(Uuid::from_u128(u128::from(session))),
            cluster: wire::bytes(state.cluster),
            lease_ms: LEASE.as_millis() as u32,
            heartbeat_ms: HEARTBEAT.as_millis() as u32,
        });
        outbound
            .try_send(Ok(message(state.term, vec![welcome])))
            .expect("an empty channel");
        state.outbound = Some(outbound.clone());
        let service = self.clone();
        let mut inbound = request.into_inner();
        // The session ends when the leader lets go of its sender, so the reader holds it weakly.
        let outbound = outbound.downgrade();
        state.readers.spawn(async move {
            while let Ok(Some(heard)) = inbound.message().await {
                let (answers, term) = service.hear(session, heard);
                let Some(outbound) = outbound.upgrade() else { return };
                if answers.is_empty() && service.lock().mute {
                    continue;
                }
                outbound.send(Ok(message(term, answers))).await.ok();
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn get_step(&self, request: Request<v1::GetStepRequest>) -> Result<Response<v1::GetStepResponse>, Status> {
        let mut state = self.lock();
        state.steps_asked += 1;
        let mut step = state.step.clone();
        if request.get_ref().job_known {
            step.job_text.clear();
            step.parameters.clear();
        }
        Ok(Response::new(step))
    }

    async fn list_committed(
        &self,
        request: Request<v1::ListCommittedRequest>,
    ) -> Result<Response<v1::ListCommittedResponse>, Status> {
        let page = self.lock().pages.get(&request.get_ref().from).cloned();
        page.map(Response::new).ok_or_else(|| Status::internal("no such page"))
    }
}

pub const LEASE: Duration = Duration::from_millis(2000);
pub const HEARTBEAT: Duration = Duration::from_millis(20);

pub struct FakeLeader {
    service: Service,
    address: SocketAddr,
    _runtime: Runtime,
}

impl FakeLeader {
    pub fn start(script: Script) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("bound");
        let service = Service(Arc::new((
            Mutex::new(State {
                heard: Vec::new(),
                keep_log: true,
                sessions: 0,
                refusing: false,
                names: None,
                mute: false,
                refused: 0,
                term: 5,
                cluster: CLUSTER,
                script,
                outbound: None,
                step: v1::GetStepResponse::default(),
                steps_asked: 0,
                pages: HashMap::new(),
                readers: JoinSet::new(),
            }),
            Condvar::new(),
        )));
        let server = WorkersServer::new(service.clone());
        // Ends with the runtime.
        runtime.spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            tonic::transport::Server::builder()
                .serve_with_incoming(server, incoming)
                .await
                .expect("serving");
        });
        Self {
            service,
            address,
            _runtime: runtime,
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends commands in the leader's present term, as one message.
    pub fn send(&self, commands: Vec<Command>) {
        let term = self.service.lock().term;
        self.send_in_term(term, commands);
    }

    pub fn send_in_term(&self, term: u64, commands: Vec<Command>) {
        let outbound = self.service.lock().outbound.clone().expect("a session");
        outbound
            .blocking_send(Ok(message(term, commands)))
            .expect("an open session");
    }

    pub fn set_mute(&self) {
        self.service.lock().mute = true;
    }

    pub fn set_term(&self, term: u64) {
        self.service.lock().term = term;
    }

    pub fn set_cluster(&self, cluster: Uuid) {
        self.service.lock().cluster = cluster;
    }

    pub fn set_step(&self, step: v1::GetStepResponse) {
        self.service.lock().step = step;
    }

    pub fn set_page(&self, from: u32, page: v1::ListCommittedResponse) {
        self.service.lock().pages.insert(from, page);
    }

    pub fn steps_asked(&self) -> u32 {
        self.service.lock().steps_asked
    }

    /// Stops logging: for measuring.
    pub fn keep_no_log(&self) {
        self.service.lock().keep_log = false;
    }

    /// Ends the present session, and refuses new ones or not.
    pub fn cut_off(&self, refusing: bool) {
        let mut state = self.service.lock();
        state.refusing = refusing;
        state.outbound = None;
    }

    /// Is a standby from now on, which names this leader.
    pub fn stand_by(&self, leader: &str) {
        self.service.lock().names = Some(leader.to_string());
        self.cut_off(true);
    }

    pub fn refused(&self) -> u32 {
        self.service.lock().refused
    }

    pub fn accept_again(&self) {
        self.service.lock().refusing = false;
    }

    /// Waits until something is found in the log (session number, event) and returns it.
    pub fn wait<T>(&self, what: &str, find: impl Fn(&[(u32, Event)]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.service.lock();
        loop {
            if let Some(found) = find(&state.heard) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {what}; heard {:#?}", state.heard);
            state = self
                .service
                .0
                .1
                .wait_timeout(state, left)
                .expect("no test panics inside")
                .0;
        }
    }

    /// Waits for an event of a session.
    pub fn wait_event<T>(&self, what: &str, session: u32, find: impl Fn(&Event) -> Option<T>) -> T {
        self.wait(what, |heard| {
            heard
                .iter()
                .filter(|(in_session, _)| *in_session == session)
                .find_map(|(_, event)| find(event))
        })
    }

    /// Waits until so many sessions were refused.
    pub fn wait_until_refused(&self, count: u32) {
        let state = self.service.lock();
        let waited = self
            .service
            .0
            .1
            .wait_timeout_while(state, PATIENCE, |state| state.refused < count);
        assert!(
            !waited.expect("no test panics inside").1.timed_out(),
            "waited in vain for {count} refusals"
        );
    }

    pub fn count_in(&self, session: u32, matches: impl Fn(&Event) -> bool) -> usize {
        let state = self.service.lock();
        state
            .heard
            .iter()
            .filter(|(in_session, event)| *in_session == session && matches(event))
            .count()
    }

    pub fn count(&self, matches: impl Fn(&Event) -> bool) -> usize {
        self.service
            .lock()
            .heard
            .iter()
            .filter(|(_, event)| matches(event))
            .count()
    }
}

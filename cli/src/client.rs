//! The line to a coordinator: gRPC calls, with their errors as failures of the command line. A
//! coordinator that does not lead says who does, and one that is gone is replaced by another: a call
//! goes where it can be answered.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use gapless_platform::{
    config::Setting,
    retry::{Delays, Policy},
};
use gapless_proto::{
    LEADER_KEY, RETRY_KEY,
    access::{Access, may_send_on},
    v1::{
        AcceptRestoreRequest, CancelRunRequest, ClusterInfo, GetClusterRequest, GetRunRequest, ListEventsRequest,
        ListPartitionsRequest, ListRunsRequest, ListWorkersRequest, PartitionStatus, Run, RunEvent, RunState,
        StopRunRequest, SubmitRequest, WorkerInfo, cluster_client::ClusterClient, jobs_client::JobsClient,
    },
};
use tonic::{Code, Request, Response, Status, Streaming, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    app::{App, Flags, flag},
    arguments::{TargetArguments, folder_flag},
    embedded::{self, Coordinator},
    failure::{Failure, Kind},
    job_file::JobFile,
    wording::word,
};

/// A coordinator that does not take a connection for so long is taken for unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A call waits for one store transaction; this is a hundred times what that takes.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Notices a peer that has gone without a word while a stream is open.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Partitions asked for at a time: a page stays far below the 4 MiB of a gRPC message.
const PARTITIONS_PAGE: u32 = 2000;
/// Metadata key under which a refused submit names the run that is in its way.
const RUN_KEY: &str = "gapless-run";

/// While coordinators answer and none of them leads, one is waited for so long: a fail-over takes the
/// time to live of the leader's key, 10 s unless configured, and somewhat more where etcd fails too.
const FAIL_OVER: Policy = Policy {
    first_delay: Duration::from_millis(50),
    longest_delay: Duration::from_secs(1),
    give_up_after: Some(Duration::from_secs(60)),
};

/// A client of the coordinators at some endpoints, connected to one of them.
pub struct Client {
    line: Line,
    endpoints: Vec<String>,
    access: Access,
    /// What to add to a command so that it speaks to the same store.
    target: String,
    /// The coordinator that this process runs itself to read an embedded store.
    own: Option<Coordinator>,
}

/// A connection to one coordinator.
#[derive(Clone)]
struct Line {
    endpoint: String,
    jobs: JobsClient<InterceptedService<Channel, Access>>,
    cluster: ClusterClient<InterceptedService<Channel, Access>>,
}

/// Whether a call is made again after one of which nobody knows whether it was answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// It changes nothing.
    Always,
    /// Only if it certainly was not done.
    IfRefused,
}

/// What became of a submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// A run was made, or (`resumed`) a stopped or failed one goes on.
    Accepted { run: String, resumed: bool },
    /// A run of the same identity is running, being cancelled or complete.
    Exists { run: String },
}

impl Client {
    /// Connects to the cluster that the flags, or the settings, name: to the first coordinator that
    /// answers.
    pub async fn open(target: &TargetArguments, app: &App) -> Result<Client, Failure> {
        if let Some(state) = &target.state {
            return Self::open_state(state.clone(), target, app).await;
        }
        let mut flags = Flags::new();
        flag(&mut flags, Setting::Endpoints, target.endpoint.as_ref());
        target.access.note(&mut flags);
        let config = app.config(flags)?;
        let access = app.access(&config)?;
        let given = target.endpoint.as_ref();
        let client = Self::connect(config.endpoints, access).await?;
        let endpoint = given.map_or(String::new(), |given| format!(" --endpoint {}", word(given)));
        let target = endpoint + &target.access.words() + &app.words();
        Ok(Client { target, ..client })
    }

    /// Speaks to an embedded store: through the process that has it open, or by opening it here.
    async fn open_state(state: PathBuf, given: &TargetArguments, app: &App) -> Result<Client, Failure> {
        let target = folder_flag("--state", &state) + &given.access.words() + &app.words();
        let Some(endpoint) = embedded::live_endpoint(&state) else {
            let own = embedded::open_store(&state).await?;
            let client = Self::connect(vec![own.endpoint()], Access::default()).await?;
            let own = Some(own);
            return Ok(Client { target, own, ..client });
        };
        let mut flags = Flags::new();
        given.access.note(&mut flags);
        let access = app.access(&app.config(flags)?)?;
        let client = Self::connect(vec![endpoint], access).await?;
        Ok(Client { target, ..client })
    }

    /// Connects to the first of these addresses, such as `http://127.0.0.1:7070`, that answers.
    pub async fn connect(endpoints: Vec<String>, access: Access) -> Result<Client, Failure> {
        let line = Line::first(&endpoints, &access).await?;
        Ok(Client {
            line,
            endpoints,
            access,
            target: String::new(),
            own: None,
        })
    }

    /// Calls the leader: at the coordinator of the last call, then wherever that one or the others say.
    async fn call<T, F>(&mut self, again: Again, call: impl Fn(Line) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut delays = Delays::new(FAIL_OVER);
        // Two who name each other are not asked without a pause.
        let mut sent = false;
        loop {
            let status = match call(self.line.clone()).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            // A crowd that passes: nothing was done.
            if let Some(after) = retry_after(&status)
                && let Some(delay) = delays.next_delay()
            {
                tokio::time::sleep(delay.max(after)).await;
                continue;
            }
            let leader = leader_named_by(&status);
            let broken = matches!(
                status.code(),
                Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded
            );
            let denied = refused_handshake(&status, &self.line.endpoint).is_some();
            let may_repeat = again == Again::Always || never_sent(&status);
            if leader.is_none() && (denied || !broken || !may_repeat) {
                return Err(status);
            }
            let here = &self.line.endpoint;
            let elsewhere =
                leader.filter(|leader| !leader.is_empty() && leader != here && may_send_on(here, leader) && !sent);
            sent = false;
            if let Some(leader) = elsewhere {
                match Line::open(&leader, &self.access).await {
                    Ok(line) => {
                        self.line = line;
                        sent = true;
                        continue;
                    }
                    Err(failure) if failure.kind == Kind::Unreachable => {}
                    Err(failure) => return Err(Status::permission_denied(failure.message)),
                }
            }
            let Some(delay) = delays.next_delay() else {
                return Err(status);
            };
            tokio::time::sleep(delay).await;
            // The one that has just been asked comes last.
            let at = self
                .endpoints
                .iter()
                .position(|endpoint| *endpoint == self.line.endpoint);
            let (before, after) = self.endpoints.split_at(at.map_or(0, |at| at + 1));
            match Line::first(&[after, before].concat(), &self.access).await {
                Ok(line) => self.line = line,
                // Nobody at all: no fail-over is under way.
                Err(_) => return Err(status),
            }
        }
    }

    /// Whether this process has opened the store itself, since nobody else had.
    pub fn owns_store(&self) -> bool {
        self.own.is_some()
    }

    /// What a message adds to a command so that it reaches the same store; empty for the settings.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Names the embedded store in messages, for a client that is connected to it already.
    pub fn speak_of(&mut self, state: &Path) {
        self.target = folder_flag("--state", state);
    }

    /// Hands a job over.
    ///
    /// Errors: [`Kind::Invalid`] with one line for each fault of the job file.
    /// `priority` is in place of the job file's.
    pub async fn submit(
        &mut self,
        job: &JobFile,
        parameters: &BTreeMap<String, String>,
        priority: Option<u32>,
    ) -> Result<Submitted, Failure> {
        let request = SubmitRequest {
            job_text: job.text.clone(),
            redrive: job.redrive.clone(),
            file_name: job.name.clone(),
            parameters: parameters.clone().into_iter().collect(),
            base_dir: job.base_dir.clone(),
            priority,
        };
        let submitted = self.call(Again::IfRefused, |mut line| {
            let request = bounded(request.clone());
            async move { line.jobs.submit(request).await }
        });
        match submitted.await {
            Ok(response) => Ok(Submitted::Accepted {
                run: response.run,
                resumed: response.resumed,
            }),
            Err(status) => match (status.code(), named_run(&status)) {
                (Code::AlreadyExists, Some(run)) => Ok(Submitted::Exists { run }),
                (Code::InvalidArgument, _) => Err(Failure::new(Kind::Invalid, status.message())),
                _ => Err(self.failure(&status)),
            },
        }
    }

    pub async fn get(&mut self, run: &str) -> Result<Run, Failure> {
        let called = self.call(Again::Always, |mut line| {
            let request = bounded(GetRunRequest {
                run: run.to_string(),
                with_job: false,
            });
            async move { line.jobs.get_run(request).await }
        });
        let run = called.await.map_err(|status| self.failure(&status))?;
        Ok(self.as_it_stands(run))
    }

    /// As [`Client::get`], with the job file.
    pub async fn get_with_job(&mut self, run: &str) -> Result<Run, Failure> {
        let called = self.call(Again::Always, |mut line| {
            let request = bounded(GetRunRequest {
                run: run.to_string(),
                with_job: true,
            });
            async move { line.jobs.get_run(request).await }
        });
        let run = called.await.map_err(|status| self.failure(&status))?;
        Ok(self.as_it_stands(run))
    }

    /// Runs, newest first; of one job where `job` is not empty.
    pub async fn list(&mut self, job: &str, limit: u32) -> Result<Vec<Run>, Failure> {
        let called = self.call(Again::Always, |mut line| {
            let request = bounded(ListRunsRequest {
                job: job.to_string(),
                limit,
            });
            async move { line.jobs.list_runs(request).await }
        });
        let listed = called.await.map_err(|status| self.failure(&status))?;
        Ok(listed.runs.into_iter().map(|run| self.as_it_stands(run)).collect())
    }

    /// A run in a store that only this process has open, to look at it, is run by nobody: whoever did was killed.
    fn as_it_stands(&self, mut run: Run) -> Run {
        if self.owns_store() && matches!(run.state(), RunState::Running | RunState::Stopping) {
            run.state = RunState::Interrupted.into();
            let goes_on = "nobody runs it: the process that did is gone; `gapless run` of the same job goes on where it was, or \
                           the coordinator of a cluster, started again on this folder";
            run.error = match run.error.is_empty() {
                true => goes_on.to_string(),
                false => format!("{}\n{goes_on}", run.error),
            };
        }
        run
    }

    /// The run now and at every change until it has ended. The stream itself has no deadline.
    pub async fn watch(&mut self, run: &str) -> Result<Streaming<Run>, Failure> {
        let called = self.call(Again::Always, |mut line| {
            let request = GetRunRequest {
                run: run.to_string(),
                with_job: false,
            };
            async move { line.jobs.watch_run(request).await }
        });
        called.await.map_err(|status| self.failure(&status))
    }

    /// What happened to a run after a time; with `follow`, until it has ended. No deadline then.
    pub async fn events(&mut self, run: &str, after_micros: i64, follow: bool) -> Result<Streaming<RunEvent>, Failure> {
        let called = self.call(Again::Always, |mut line| {
            let request = ListEventsRequest {
                run: run.to_string(),
                after_micros,
                follow,
            };
            let request = if follow {
                Request::new(request)
            } else {
                bounded(request)
            };
            async move { line.jobs.list_events(request).await }
        });
        called.await.map_err(|status| self.failure(&status))
    }

    /// The partition table of a run, at most `limit` rows, and whether there are more.
    pub async fn partitions(&mut self, run: &str, limit: usize) -> Result<(Vec<PartitionStatus>, bool), Failure> {
        let mut partitions = Vec::new();
        let mut from = 0;
        loop {
            let called = self.call(Again::Always, |mut line| {
                let request = bounded(ListPartitionsRequest {
                    run: run.to_string(),
                    from,
                    limit: PARTITIONS_PAGE,
                    ..Default::default()
                });
                async move { line.jobs.list_partitions(request).await }
            });
            let page = called.await.map_err(|status| self.failure(&status))?;
            partitions.extend(page.partitions);
            if partitions.len() > limit {
                partitions.truncate(limit);
                return Ok((partitions, true));
            }
            match page.next {
                // A server that does not get ahead must not hold us here.
                Some(next) if next > from => from = next,
                _ => return Ok((partitions, false)),
            }
        }
    }

    pub async fn stop(&mut self, run: &str) -> Result<Run, Failure> {
        let called = self.call(Again::IfRefused, |mut line| {
            let request = bounded(StopRunRequest { run: run.to_string() });
            async move { line.jobs.stop_run(request).await }
        });
        called.await.map_err(|status| self.failure(&status))
    }

    pub async fn cancel(&mut self, run: &str) -> Result<Run, Failure> {
        let called = self.call(Again::IfRefused, |mut line| {
            let request = bounded(CancelRunRequest { run: run.to_string() });
            async move { line.jobs.cancel_run(request).await }
        });
        called.await.map_err(|status| self.failure(&status))
    }

    pub async fn cluster(&mut self) -> Result<ClusterInfo, Failure> {
        let called = self.call(Again::Always, |mut line| async move {
            line.cluster.get_cluster(bounded(GetClusterRequest {})).await
        });
        called.await.map_err(|status| self.failure(&status))
    }

    /// Says that the store is to be used as it is, in this epoch.
    pub async fn accept_restore(&mut self, epoch: u32) -> Result<ClusterInfo, Failure> {
        let called = self.call(Again::IfRefused, |mut line| async move {
            line.cluster
                .accept_restore(bounded(AcceptRestoreRequest { epoch }))
                .await
        });
        called.await.map_err(|status| self.failure(&status))
    }

    pub async fn workers(&mut self) -> Result<Vec<WorkerInfo>, Failure> {
        let called = self.call(Again::Always, |mut line| async move {
            line.cluster.list_workers(bounded(ListWorkersRequest {})).await
        });
        let listed = called.await;
        listed
            .map(|listed| listed.workers)
            .map_err(|status| self.failure(&status))
    }

    /// Ends a coordinator that was started to read an embedded store.
    pub async fn close(self) -> Result<(), Failure> {
        match self.own {
            Some(own) => own.stop().await,
            None => Ok(()),
        }
    }

    pub fn failure(&self, status: &Status) -> Failure {
        let mut failure = failure_of(status, &self.line.endpoint);
        if failure.kind == Kind::NotFound {
            let list = format!("`gapless list{}`", self.target);
            failure.message = failure.message.replace("`gapless list`", &list);
        }
        failure
    }
}

impl Line {
    async fn open(endpoint: &str, access: &Access) -> Result<Line, Failure> {
        let channel = access
            .endpoint(endpoint)
            .map_err(|error| Failure::usage(error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .tcp_nodelay(true);
        let channel = channel.connect().await;
        let channel = channel.map_err(|error| match refused_handshake(&error, endpoint) {
            Some(failure) => failure,
            None => Failure::new(Kind::Unreachable, format!("{endpoint}: {}", root_cause(&error))),
        })?;
        Ok(Line {
            endpoint: endpoint.to_string(),
            jobs: JobsClient::with_interceptor(channel.clone(), access.clone()),
            cluster: ClusterClient::with_interceptor(channel, access.clone()),
        })
    }

    /// The first that takes a connection.
    async fn first(endpoints: &[String], access: &Access) -> Result<Line, Failure> {
        let mut failures = Vec::new();
        for endpoint in endpoints {
            match Self::open(endpoint, access).await {
                Ok(line) => return Ok(line),
                Err(failure) if failure.kind == Kind::Unreachable => failures.push(failure.message),
                Err(failure) => return Err(failure),
            }
        }
        Err(unreachable(&failures))
    }
}

/// Where a coordinator that does not lead says that the leader is; empty where it does not know. `None`
/// for every other status.
fn leader_named_by(status: &Status) -> Option<String> {
    let leader = status.metadata().get(LEADER_KEY)?;
    leader.to_str().ok().map(str::to_string)
}

/// How long the coordinator asks to wait before the same call is made again.
fn retry_after(status: &Status) -> Option<Duration> {
    if status.code() != Code::ResourceExhausted {
        return None;
    }
    let millis = status.metadata().get(RETRY_KEY)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(millis).min(FAIL_OVER.longest_delay))
}

fn bounded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

fn named_run(status: &Status) -> Option<String> {
    let run = status.metadata().get(RUN_KEY)?;
    run.to_str().ok().map(str::to_string)
}

fn unreachable(tried: &[String]) -> Failure {
    let message = format!(
        "no coordinator answers:\n  {}\n\
         Start one with `gapless coordinator`, name another with --endpoint or GAPLESS_ENDPOINTS, or do the job in \
         this process with `gapless run`.",
        tried.join("\n  ")
    );
    Failure::new(Kind::Unreachable, message)
}

/// The innermost error, which names the trouble; the outer ones say that there is some.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A server that wants a certificate, or another one, says so in an alert once the client has taken
/// the connection for open.
fn refused_handshake(error: &dyn std::error::Error, endpoint: &str) -> Option<Failure> {
    let cause = root_cause(error);
    if !cause.contains("fatal alert") {
        return None;
    }
    let message = format!(
        "{endpoint} refuses this side's certificate: {cause}. Give one that its authority has made, with --tls-cert and \
         --tls-key"
    );
    Some(Failure::new(Kind::Denied, message))
}

/// Whether the connection was closed before the call left this side. A server that refuses the client's
/// certificate does that: whether the call hears its alert or only this is chance.
fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_canceled)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

fn failure_of(status: &Status, endpoint: &str) -> Failure {
    let message = status.message();
    if let Some(failure) = refused_handshake(status, endpoint) {
        return failure;
    }
    if never_sent(status) {
        let hint = "it closes the connection before it takes a call; a server that asks for another certificate does so \
                    (--tls-cert, --tls-key), and its log names the reason";
        return unreachable(&[format!("{endpoint}: {hint} ({message})")]);
    }
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => Failure::usage(message),
        Code::NotFound if message.contains("`gapless list`") => Failure::new(Kind::NotFound, message),
        Code::NotFound => {
            let message = format!("{message}\n`gapless list` shows the runs that are there.");
            Failure::new(Kind::NotFound, message)
        }
        Code::PermissionDenied | Code::Unauthenticated => Failure::new(Kind::Denied, message),
        // What tonic calls a connection that broke while the call was under way.
        Code::Unknown if message.contains("transport error") => unreachable(&[format!("{endpoint}: {message}")]),
        // What tonic calls an answer that is no HTTP/2, such as an alert of TLS.
        Code::Internal if message.contains("h2 protocol error") => {
            let hint = "it does not speak plain HTTP/2; if it serves TLS, write https:// and give --tls-ca";
            unreachable(&[format!("{endpoint}: {hint} ({message})")])
        }
        Code::Unavailable => unreachable(&[format!("{endpoint}: {message}")]),
        Code::DeadlineExceeded | Code::Cancelled => Failure::new(
            Kind::Unreachable,
            format!(
                "the coordinator at {endpoint} did not answer in time: {message}\nTry again; what was asked may have been done."
            ),
        ),
        Code::ResourceExhausted => Failure::failed(message),
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Failure::new(Kind::Conflict, message),
        Code::Unimplemented => Failure::failed(format!(
            "the coordinator at {endpoint} does not know this call: is it of another version than this program ({})?",
            env!("CARGO_PKG_VERSION")
        )),
        code => Failure::failed(format!("the coordinator at {endpoint} failed: {message} ({code:?})")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::atomic::{AtomicU32, Ordering},
    };

    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// What a call is told whose connection is gone before it left this side: an error of hyper's own, over loopback.
    async fn closed_before_it_was_sent(address: SocketAddr) -> Status {
        use tonic::{body::Body, codegen::http};

        let stream = TcpStream::connect(address).await.expect("connected");
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.expect("begun");
        drop(connection);
        let sent = sender.send_request(http::Request::new(Body::empty())).await;
        Status::from_error(Box::new(sent.expect_err("nobody is there")))
    }

    #[tokio::test]
    async fn a_call_that_was_never_sent_is_made_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        // Takes connections, and keeps them.
        let server = tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                taken.push(stream);
            }
        });
        let endpoints = vec![format!("http://{address}")];
        let mut client = Client::connect(endpoints, Access::default()).await.expect("connected");
        assert!(never_sent(&closed_before_it_was_sent(address).await));
        // One of which nobody knows whether it was done is not.
        assert!(!never_sent(&Status::unavailable("gone")));
        for (again, first, expected) in [
            (
                Again::IfRefused,
                Some(closed_before_it_was_sent(address).await),
                (true, 2),
            ),
            (Again::IfRefused, Some(Status::unavailable("gone")), (false, 1)),
            (Again::Always, Some(Status::unavailable("gone")), (true, 2)),
            (Again::IfRefused, None, (true, 1)),
        ] {
            let calls = AtomicU32::new(0);
            let answer = client.call(again, |_| {
                let failed = match calls.fetch_add(1, Ordering::Relaxed) {
                    0 => first.clone(),
                    _ => None,
                };
                async move { failed.map_or(Ok(Response::new(())), Err) }
            });
            let answer = answer.await;
            assert_eq!((answer.is_ok(), calls.into_inner()), expected, "{first:?}");
        }
        server.abort();
    }

    #[test]
    fn each_status_has_its_exit_code() {
        for (code, kind) in [
            (Code::InvalidArgument, Kind::Usage),
            (Code::NotFound, Kind::NotFound),
            (Code::PermissionDenied, Kind::Denied),
            (Code::Unauthenticated, Kind::Denied),
            (Code::Unavailable, Kind::Unreachable),
            (Code::DeadlineExceeded, Kind::Unreachable),
            (Code::AlreadyExists, Kind::Conflict),
            (Code::FailedPrecondition, Kind::Conflict),
            (Code::Internal, Kind::Failed),
        ] {
            assert_eq!(
                failure_of(&Status::new(code, "why"), "http://h:1").kind,
                kind,
                "{code:?}"
            );
        }
    }
}

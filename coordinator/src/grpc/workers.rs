//! `Workers`: one stream for each worker, and what a worker asks about its steps.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{Stream, StreamExt};
use gapless_common::ids::{RunId, SessionId, Term};
use gapless_core::Event;
use gapless_platform::shutdown::Shutdown;
use gapless_proto::v1::{self, worker_event, workers_server::Workers};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::{
    control::{Control, Hello},
    guard::Subject,
    limits::COMMITTED_PAGE,
    seat::{Seat, not_leader},
    view, wire,
};

pub struct WorkersService {
    pub seat: Seat,
    pub scratch: String,
    /// One task for each open session.
    pub sessions: Sessions,
}

/// Owns the tasks that listen to workers; dropping it ends them.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Mutex<JoinSet<()>>>);

impl Sessions {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Ends what still listens.
    pub fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

fn invalid(error: wire::WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

#[tonic::async_trait]
impl Workers for WorkersService {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::LeaderMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let subject = Subject::of(&request);
        let lead = self.seat.lead()?;
        let mut messages = request.into_inner();
        let first = messages
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("no hello"))?;
        let mut events = first.events.into_iter();
        let Some(worker_event::Event::Hello(hello)) = events.next().and_then(|event| event.event) else {
            return Err(Status::invalid_argument("the first message must be a hello"));
        };
        subject.note(|about| about.worker = hello.name.clone());
        same_cluster(&lead.control, &hello).await?;
        let connected = lead.control.connect(Hello {
            worker: wire::uuid(&hello.worker, "hello.worker").map_err(invalid)?,
            name: hello.name.clone(),
            version: hello.version,
            slots: hello.slots,
            held: wire::held(hello.held).map_err(invalid)?,
            mark: Term(hello.mark),
            reign: match hello.reign.is_empty() {
                true => None,
                false => Some(wire::uuid(&hello.reign, "hello.reign").map_err(invalid)?),
            },
        });
        let connected = connected.await?;
        let rest = events.collect();
        self.sessions.spawn(listen(
            lead.control,
            lead.over.clone(),
            connected.session,
            hello.name,
            messages,
            rest,
        ));
        let over = async move { lead.over.stopping().cancelled().await };
        let outbox = ReceiverStream::new(connected.outbox).map(Ok).take_until(over);
        // So the worker looks elsewhere; what it holds it keeps.
        let end = futures::stream::once(async { Err(not_leader("")) });
        Ok(Response::new(Box::pin(outbox.chain(end))))
    }

    async fn get_step(&self, request: Request<v1::GetStepRequest>) -> Result<Response<v1::GetStepResponse>, Status> {
        let request = request.into_inner();
        let run = RunId(wire::uuid(&request.run, "run").map_err(invalid)?);
        let step = u16::try_from(request.step).map_err(|_| Status::invalid_argument("step"))?;
        let scratch = self.scratch.clone();
        let job_known = request.job_known;
        let control = self.seat.lead()?.control;
        let found = control
            .read(move |state| view::step_for_workers(state, run, step, &scratch, job_known))
            .await?;
        found
            .map(Response::new)
            .ok_or_else(|| Status::not_found(format!("run {run} has no step {step}")))
    }

    async fn list_committed(
        &self,
        request: Request<v1::ListCommittedRequest>,
    ) -> Result<Response<v1::ListCommittedResponse>, Status> {
        let request = request.into_inner();
        let run = RunId(wire::uuid(&request.run, "run").map_err(invalid)?);
        let step = u16::try_from(request.step).map_err(|_| Status::invalid_argument("step"))?;
        let stage = wire::stage(request.stage).map_err(invalid)?;
        let control = self.seat.lead()?.control;
        let read = control.read(move |state| view::committed(state, run, step, stage, request.from, COMMITTED_PAGE));
        read.await?
            .map(Response::new)
            .ok_or_else(|| Status::not_found(format!("run {run} has no step {step}")))
    }
}

/// A worker that belongs to another cluster must not work here: its fences would mean nothing.
async fn same_cluster(control: &Control, hello: &v1::Hello) -> Result<(), Status> {
    if hello.cluster.is_empty() {
        return Ok(());
    }
    let theirs = wire::uuid(&hello.cluster, "hello.cluster").map_err(invalid)?;
    let ours = control
        .read(|state| state.cluster.as_ref().map(|row| row.cluster))
        .await?;
    match ours {
        Some(ours) if ours.0 != theirs => Err(Status::failed_precondition(format!(
            "the worker belongs to cluster {theirs}, this is {ours}; start it anew to join this one, unless the store of \
             {theirs} was lost and this is its successor by mistake"
        ))),
        _ => Ok(()),
    }
}

/// Takes a worker's messages until its stream ends, however that comes; then its session is over. When
/// this coordinator must not speak any more, the session is not over: whoever leads then finds it.
async fn listen(
    control: Control,
    over: Shutdown,
    session: SessionId,
    name: String,
    mut messages: Streaming<v1::WorkerMessage>,
    first: Vec<v1::WorkerEvent>,
) {
    let mut events = first;
    let why = loop {
        let parsed: Result<Vec<Event>, _> = events.into_iter().map(|event| wire::event(session, event)).collect();
        match parsed {
            Ok(parsed) if parsed.is_empty() => {}
            Ok(parsed) => {
                if control.tell(parsed).await.is_err() {
                    return;
                }
            }
            Err(error) => break format!("it does not follow the protocol: {error}"),
        }
        let message = tokio::select! {
            message = messages.message() => message,
            () = over.stopping().cancelled() => return,
        };
        events = match message {
            Ok(Some(message)) => message.events,
            Ok(None) => break "it left".to_string(),
            Err(status) => break status.message().to_string(),
        };
    };
    info!(worker = %name, %session, %why, "worker gone");
    if control.tell(vec![Event::Lost { session }]).await.is_err() {
        warn!(%session, "the loop has ended before the session");
    }
}

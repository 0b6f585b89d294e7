//! `Workers`: one stream for each worker, and what a worker asks about its steps.

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, future, stream};
use gapless_common::{
    ids::{RunId, SessionId, Term},
    labels::Labels,
};
use gapless_core::{Event, State};
use gapless_platform::shutdown::Shutdown;
use gapless_proto::v1::{self, worker_event, workers_server::Workers};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::{
    control::{Control, Hello},
    guard::{Pass, Subject},
    limits::{COMMITTED_PAGE, HELLO_WAIT, TOKEN_LOOK},
    seat::{Seat, not_leader},
    view, wire,
};

pub struct WorkersService {
    pub seat: Seat,
    pub scratch: String,
    /// One task for each open session.
    pub sessions: Sessions,
    /// How long a worker whose connection broke may take to come back.
    pub return_time: Duration,
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

/// To a worker that may be heard again, in a session of its own.
const SESSION_OVER: &str =
    "this session is over: nothing was heard from the worker for a lease time, or it has opened another one";

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
        let pass = request.extensions().get::<Pass>().cloned();
        let lead = self.seat.lead()?;
        let mut messages = request.into_inner();
        let late =
            |_| Status::deadline_exceeded(format!("no hello within {HELLO_WAIT:?} of the opening of the session"));
        let first = timeout(HELLO_WAIT, messages.message()).await.map_err(late)??;
        let first = first.ok_or_else(|| Status::invalid_argument("no hello"))?;
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
            labels: Labels::new(hello.labels).map_err(|error| Status::invalid_argument(error.to_string()))?,
            held: wire::held(hello.held).map_err(invalid)?,
            mark: Term(hello.mark),
            reign: match hello.reign.is_empty() {
                true => None,
                false => Some(wire::uuid(&hello.reign, "hello.reign").map_err(invalid)?),
            },
        });
        let connected = connected
            .await?
            .map_err(|refusal| Status::resource_exhausted(refusal.to_string()))?;
        let rest = events.collect();
        let (ended, end) = oneshot::channel();
        let session = Session {
            control: lead.control,
            over: lead.over.clone(),
            id: connected.session,
            name: hello.name,
            pass,
            return_time: self.return_time,
        };
        self.sessions.spawn(session.listen(messages, rest, ended));
        let over = async move {
            // So the worker looks elsewhere; what it holds it keeps.
            let over = lead.over.stopping().cancelled().map(|()| not_leader(""));
            // Without a word it has ended for a reason that the worker knows, or that is in its outbox.
            let ended = end.then(|end| async {
                match end {
                    Ok(status) => status,
                    Err(_) => future::pending().await,
                }
            });
            future::select(pin!(over), pin!(ended)).await.factor_first().0
        };
        let (why, told) = oneshot::channel();
        let over = over.map(move |status| drop(why.send(status)));
        let outbox = ReceiverStream::new(connected.outbox).map(Ok).take_until(over);
        let end = stream::once(told.map(|why| Err(why.unwrap_or_else(|_| Status::unavailable(SESSION_OVER)))));
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

/// One worker, as long as its stream lasts.
struct Session {
    control: Control,
    over: Shutdown,
    id: SessionId,
    name: String,
    /// The token that it came in with.
    pass: Option<Pass>,
    return_time: Duration,
}

/// Why a worker is not listened to any more.
enum Gone {
    /// It said all it had to say.
    Left,
    /// Perhaps it is about to come back.
    Broken(String),
    /// It may not stay.
    Refused(Status),
}

impl Session {
    /// Takes a worker's messages until its stream ends, however that comes; then its session is over. When
    /// this coordinator must not speak any more, the session is not over: whoever leads then finds it.
    ///
    /// A worker whose stream broke may have lost its connection and nothing else. It keeps what it holds if it
    /// is back soon: its new session takes the place of this one, which is then known to nobody.
    async fn listen(
        self,
        messages: impl Stream<Item = Result<v1::WorkerMessage, Status>> + Unpin,
        first: Vec<v1::WorkerEvent>,
        ended: oneshot::Sender<Status>,
    ) {
        let Some(gone) = self.hear(messages, first).await else {
            return;
        };
        let (worker, session) = (&self.name, self.id);
        let why = match gone {
            Gone::Left => "it left".to_string(),
            Gone::Broken(why) if self.control.is_waiting() => {
                // Nobody could answer it, so it looks for a leader, and comes back with what it holds. If it
                // does not, its lease runs out.
                info!(%worker, %session, %why, "a worker hung up on a leader that waits for its store");
                return;
            }
            Gone::Broken(why) => {
                info!(%worker, %session, %why, wait = ?self.return_time, "a worker's connection broke; it may come back");
                if self.control.tell(vec![Event::Away { session }]).await.is_err() {
                    return;
                }
                tokio::select! {
                    () = sleep(self.return_time) => {}
                    () = self.over.stopping().cancelled() => return,
                }
                let is_known = move |state: &State| state.sessions.contains_key(&session);
                match self.control.read(is_known).await {
                    Ok(true) => why,
                    Ok(false) => return,
                    Err(_) => "nothing was heard of it".to_string(),
                }
            }
            Gone::Refused(status) => {
                let why = status.message().to_string();
                // It may have hung up.
                ended.send(status).ok();
                why
            }
        };
        info!(%worker, %session, %why, "worker gone");
        if self.control.tell(vec![Event::Lost { session }]).await.is_err() {
            warn!(%session, "the loop has ended before the session");
        }
    }

    /// Hands on what a worker says. `None`: this coordinator leads no more.
    async fn hear(
        &self,
        mut messages: impl Stream<Item = Result<v1::WorkerMessage, Status>> + Unpin,
        first: Vec<v1::WorkerEvent>,
    ) -> Option<Gone> {
        let mut events = first;
        let mut drained = false;
        let mut look = interval(TOKEN_LOOK);
        loop {
            let parsed: Result<Vec<Event>, _> = events.into_iter().map(|event| wire::event(self.id, event)).collect();
            match parsed {
                Ok(parsed) if parsed.is_empty() => {}
                Ok(parsed) => {
                    drained |= parsed.iter().any(|event| matches!(event, Event::Drain { .. }));
                    self.control.tell(parsed).await.ok()?;
                }
                Err(error) => {
                    let why = format!("it does not follow the protocol: {error}");
                    return Some(Gone::Refused(Status::invalid_argument(why)));
                }
            }
            events = Vec::new();
            tokio::select! {
                message = messages.next() => match message {
                    Some(Ok(message)) => events = message.events,
                    None if drained => return Some(Gone::Left),
                    // A worker that hangs up to dial anew has not said that it leaves.
                    None => return Some(Gone::Broken("it hung up".to_string())),
                    Some(Err(status)) => return Some(Gone::Broken(status.message().to_string())),
                },
                _ = look.tick(), if self.pass.is_some() => {
                    if let Some(Err(status)) = self.pass.as_ref().map(Pass::still_holds) {
                        return Some(Gone::Refused(status));
                    }
                }
                () = self.over.stopping().cancelled() => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::store_waits::{Place, Waiting};

    /// A worker's stream ends, with nothing said before.
    async fn ends(place: &Place, session: SessionId) {
        let session = Session {
            control: place.control.clone(),
            over: Shutdown::new(),
            id: session,
            name: String::new(),
            pass: None,
            return_time: Duration::ZERO,
        };
        let (ended, _) = oneshot::channel();
        session.listen(stream::empty(), Vec::new(), ended).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_worker_that_leaves_a_loop_that_waits_may_come_back() {
        let place = Place::start().await;
        let worker = place.connect(1).await.expect("no panic").expect("a session");
        place.shut(Waiting::Unknown).await;
        let second = place.connect(2);
        place.until_it_waits().await;
        ends(&place, worker.session).await;
        place.open();
        let second = second.await.expect("no panic").expect("a session");
        assert_eq!(place.sessions().await, 2, "nobody could answer it");
        ends(&place, second.session).await;
        assert_eq!(place.sessions().await, 1, "it left");
    }
}

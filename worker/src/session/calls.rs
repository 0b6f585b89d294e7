//! Calls beside the session, made from slot threads: they block the slot and nobody else.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use gapless_common::error::{ErrorClass, TaskError};
use gapless_platform::{
    retry::{self, GaveUp},
    shutdown::Shutdown,
};
use gapless_proto::{
    access::Access,
    v1::{self, workers_client::WorkersClient},
};
use tokio::{runtime::Handle, sync::watch};
use tonic::{Code, Response, Status, service::interceptor::InterceptedService, transport::Channel};

use super::{
    held::Held,
    limits::{CALL_TIMEOUT, MAX_CALL_MESSAGE_BYTES},
    wire,
};
use crate::attempt::CommittedPartition;

/// The way to whoever leads now; `None` while there is no session.
pub type Current = watch::Receiver<Option<Channel>>;

#[derive(Clone, Debug)]
pub struct Calls {
    runtime: Handle,
    current: Current,
    access: Access,
    shutdown: Shutdown,
}

impl Calls {
    pub fn new(runtime: Handle, current: Current, access: Access, shutdown: Shutdown) -> Self {
        Self {
            runtime,
            current,
            access,
            shutdown,
        }
    }

    /// Waits for a future of the session's runtime on the calling thread.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let _entered = self.runtime.enter();
        // Not `block_on`: the engine may call from inside a runtime of its own, where that panics,
        // and whose budget of polls must not starve a future of ours.
        block_on(tokio::task::unconstrained(future))
    }

    pub fn get_step(&self, held: &Held, job_known: bool) -> Result<v1::GetStepResponse, TaskError> {
        let request = v1::GetStepRequest {
            run: wire::bytes(held.task.run.0),
            step: u32::from(held.task.step),
            job_known,
        };
        self.call(held, "GetStep", |mut client| {
            let request = request.clone();
            async move { client.get_step(request).await }
        })
    }

    /// All committed partitions of a sealed stage, page by page.
    pub fn list_committed(
        &self,
        held: &Held,
        stage: gapless_common::ids::Stage,
    ) -> Result<Vec<CommittedPartition>, TaskError> {
        let mut partitions = Vec::new();
        let mut from = 0;
        loop {
            let request = v1::ListCommittedRequest {
                run: wire::bytes(held.task.run.0),
                step: u32::from(held.task.step),
                stage: wire::stage_to_wire(stage).into(),
                from,
            };
            let page = self.call(held, "ListCommitted", |mut client| {
                let request = request.clone();
                async move { client.list_committed(request).await }
            })?;
            for partition in page.partitions {
                if !partition.done {
                    let number = partition.partition;
                    return Err(transient(
                        held,
                        format!("stage {stage} is not sealed: partition {number} is not done"),
                    ));
                }
                let partition = wire::committed(partition)
                    .map_err(|error| transient(held, format!("the leader's list of stage {stage}: {error}")))?;
                partitions.push(partition);
            }
            match page.next {
                None => return Ok(partitions),
                Some(next) if next > from => from = next,
                Some(next) => {
                    return Err(transient(
                        held,
                        format!("the leader's list of stage {stage} goes from {from} to {next}"),
                    ));
                }
            }
        }
    }

    /// Calls until there is an answer: a leader that is away is waited for, however long it takes,
    /// unless the attempt is stopped or the worker ends.
    fn call<T, F>(
        &self,
        held: &Held,
        name: &'static str,
        call: impl Fn(WorkersClient<InterceptedService<Channel, Access>>) -> F,
    ) -> Result<T, TaskError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let once = || async {
            let channel = self.channel().await?;
            let client = WorkersClient::with_interceptor(channel, self.access.clone());
            let client = client.max_decoding_message_size(MAX_CALL_MESSAGE_BYTES);
            let answer = tokio::time::timeout(CALL_TIMEOUT, call(client)).await;
            answer.unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer in {CALL_TIMEOUT:?}"))))
        };
        let outcome = self.wait(async {
            tokio::select! {
                outcome = retry::retry(retry::CONNECT, self.shutdown.stopping(), may_pass, once) => outcome,
                () = held.stopped_now() => Err(GaveUp::Stopped(None)),
            }
        });
        outcome.map(Response::into_inner).map_err(|error| match error {
            GaveUp::Stopped(_) => held.cancelled("it was stopped"),
            GaveUp::Permanent(status) | GaveUp::TimeOver(status) if status.code() == Code::NotFound => {
                held.cancelled(&format!("{name}: {}", status.message()))
            }
            GaveUp::Permanent(status) | GaveUp::TimeOver(status) => {
                transient(held, format!("{name}: {:?}: {}", status.code(), status.message()))
            }
        })
    }

    async fn channel(&self) -> Result<Channel, Status> {
        let mut current = self.current.clone();
        let channel = current.wait_for(Option::is_some).await.map(|channel| channel.clone());
        channel
            .ok()
            .flatten()
            .ok_or_else(|| Status::cancelled("the worker ends"))
    }
}

fn transient(held: &Held, message: String) -> TaskError {
    TaskError::new(ErrorClass::Transient, format!("{}: {message}", held.task))
}

/// Whether the same call may succeed at this or at the next leader.
fn may_pass(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Aborted
        | Code::Unknown
        | Code::ResourceExhausted => true,
        // What tonic makes of a connection that broke while the answer was under way.
        Code::Internal => status.message().contains("h2") || std::error::Error::source(status).is_some(),
        _ => false,
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

//! Ending in order: first *drain* (take nothing new, bring what is open to a checkpoint), then
//! *stop* (leave now). Two tokens in a tree, and an owner for every task, so that nothing is left
//! running that nobody waits for.

use std::{collections::HashMap, future::Future, io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::{Id, JoinSet},
};
use tokio_util::sync::CancellationToken;

/// The wish to end, in two degrees. Clones are the same wish; a [`Shutdown::child`] also ends on
/// its own without ending its parent.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    stop: CancellationToken,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends with its parent, or alone.
    pub fn child(&self) -> Self {
        Self {
            drain: self.drain.child_token(),
            stop: self.stop.child_token(),
        }
    }

    /// Asks for an orderly end.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Asks for an end now. Implies [`Shutdown::drain`].
    pub fn stop(&self) {
        self.drain.cancel();
        self.stop.cancel();
    }

    /// Is cancelled when nothing new is to be begun.
    pub fn draining(&self) -> &CancellationToken {
        &self.drain
    }

    /// Is cancelled when everything is to end.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Follows SIGTERM and SIGINT: the first drains and starts a deadline of `grace`, after which,
    /// or at a second signal, everything stops. Returns once stopping. Run it as a task of the
    /// process; the handlers are in place when this function (not its future) returns.
    ///
    /// Errors: the process cannot install signal handlers, or this is no tokio runtime with IO.
    pub fn follow_signals(&self, grace: Duration) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let mut signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        let shutdown = self.clone();
        Ok(async move {
            tokio::select! {
                name = signals.next() => tracing::info!(signal = name, "draining; a second signal stops at once"),
                () = shutdown.drain.cancelled() => {}
            }
            shutdown.drain();
            tokio::select! {
                name = signals.next() => tracing::warn!(signal = name, "stopping at once"),
                () = tokio::time::sleep(grace) => tracing::warn!(?grace, "still draining at the deadline: stopping"),
                () = shutdown.stop.cancelled() => {}
            }
            shutdown.stop();
        })
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// How a task that has an owner ended badly.
#[derive(Debug, thiserror::Error)]
pub enum TaskEnd {
    #[error("task {name} panicked: {message}")]
    Panicked { name: &'static str, message: String },
    #[error("task {name} did not end within {grace:?} and was aborted")]
    Late { name: &'static str, grace: Duration },
}

/// Owns the tasks of one part of the process. Dropping it aborts them.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that this owner waits for.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name);
    }

    /// The next task to end, by name; `None` when none is left.
    pub async fn next_end(&mut self) -> Option<Result<&'static str, TaskEnd>> {
        let ended = self.set.join_next_with_id().await?;
        Some(match ended {
            Ok((id, ())) => Ok(self.names.remove(&id).unwrap_or("unnamed")),
            Err(error) => {
                let name = self.names.remove(&error.id()).unwrap_or("unnamed");
                match error.try_into_panic() {
                    Ok(panic) => Err(TaskEnd::Panicked {
                        name,
                        message: panic_message(&*panic),
                    }),
                    // Only this owner aborts, and it then no longer asks.
                    Err(_) => Ok(name),
                }
            }
        })
    }

    /// Waits until all have ended; those that have not after `grace` are aborted and named.
    pub async fn join(mut self, grace: Duration) -> Vec<TaskEnd> {
        let mut bad = Vec::new();
        let deadline = tokio::time::sleep(grace);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                ended = self.next_end() => match ended {
                    None => return bad,
                    Some(Ok(_)) => {}
                    Some(Err(end)) => bad.push(end),
                },
                () = &mut deadline => {
                    bad.extend(self.names.values().map(|&name| TaskEnd::Late { name, grace }));
                    self.set.shutdown().await;
                    return bad;
                }
            }
        }
    }
}

/// What a panic said, as far as it was text.
pub fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_string())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_child_ends_with_its_parent_and_alone() {
        let parent = Shutdown::new();
        let (one, two) = (parent.child(), parent.child());
        one.stop();
        assert!(one.is_draining() && one.is_stopping());
        assert!(!parent.is_draining() && !two.is_draining());
        parent.drain();
        assert!(two.is_draining() && !two.is_stopping());
    }

    #[test]
    fn the_first_signal_drains_and_the_second_stops() {
        run(async {
            let shutdown = Shutdown::new();
            let mut tasks = Tasks::new();
            tasks.spawn("signals", shutdown.follow_signals(LONG).expect("handlers"));
            let raise = || rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
            raise().expect("a signal");
            shutdown.draining().cancelled().await;
            assert!(!shutdown.is_stopping());
            raise().expect("a signal");
            shutdown.stopping().cancelled().await;
            assert!(tasks.join(LONG).await.is_empty());
        });
    }

    #[test]
    fn a_drain_that_does_not_end_is_stopped_at_the_deadline() {
        run(async {
            let shutdown = Shutdown::new();
            shutdown.drain();
            shutdown.follow_signals(Duration::ZERO).expect("handlers").await;
            assert!(shutdown.is_stopping());
        });
    }

    #[test]
    fn late_and_panicking_tasks_are_named() {
        let bad = run(async {
            let mut tasks = Tasks::new();
            tasks.spawn("good", async {});
            tasks.spawn("broken", async { panic!("out of luck") });
            tasks.spawn("endless", std::future::pending());
            // Long enough for a panic with its backtrace on a busy machine.
            tasks.join(Duration::from_secs(2)).await
        });
        let mut words: Vec<String> = bad.iter().map(ToString::to_string).collect();
        words.sort();
        assert_eq!(
            words,
            [
                "task broken panicked: out of luck",
                "task endless did not end within 2s and was aborted"
            ]
        );
    }
}

//! Following a run until it has ended, a time is over, or somebody presses Ctrl-C.

use std::{path::Path, time::Duration};

use gapless_platform::{
    retry::{Delays, Policy},
    shutdown::Shutdown,
};
use gapless_proto::v1::{Run, RunState};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};
use tonic::{Code, Streaming};

use crate::{
    app::App,
    client::Client,
    embedded::DRAIN_LIMIT,
    failure::{Failure, Kind, talk},
    output::{self, Format},
    result,
    terminal::Display,
    view::{self, RunView},
    wording::{short, word},
};

/// A coordinator that is started again, or a fail-over, is waited for so long.
pub const RECONNECT: Policy = Policy {
    first_delay: Duration::from_millis(100),
    longest_delay: Duration::from_secs(2),
    give_up_after: Some(Duration::from_secs(60)),
};
/// How a run is followed.
#[derive(Clone, Copy, Debug)]
pub struct Manner<'a> {
    pub format: Format,
    pub timeout: Option<Duration>,
    /// Whether each state is printed as a line of JSON, rather than the last one at the end.
    pub stream: bool,
    /// Whether the run lives in this process, so that leaving means stopping it.
    pub embedded: bool,
    /// The workers of this process, where it has the store open.
    pub workers: Option<&'a Shutdown>,
}

/// Follows a run to its end, shows progress on the way and the result at the end.
///
/// Errors: [`Kind::Failed`] when the run does not complete, [`Kind::TimedOut`],
/// [`Kind::Interrupted`], [`Kind::Unreachable`] when the coordinator stays away.
pub async fn follow(
    client: &mut Client,
    run: &str,
    manner: Manner<'_>,
    again: &str,
    app: &App,
) -> Result<Run, Failure> {
    let mut follower = Follower {
        display: match manner.format {
            Format::Table | Format::Wide => Display::for_stderr(),
            // A person at the terminal sees progress, whatever a program gets on stdout.
            Format::Json | Format::Yaml | Format::Name if !manner.stream => Display::for_stderr(),
            Format::Json | Format::Yaml | Format::Name => Display::Quiet,
        },
        signals: Signals::listen()?,
        deadline: manner.timeout.map(|timeout| Instant::now() + timeout),
        manner,
        app,
        last: None,
    };
    let ended = follower.until_end(client, run).await;
    follower.display.end();
    let ended = match ended {
        Ok(run) => run,
        Err(failure) => return Err(follower.leave(failure, client, run, again).await),
    };
    report(&ended, manner, client.target())?;
    result::outcome(&ended, again)?;
    Ok(ended)
}

/// Prints the end of a run: data on stdout, what to do next on stderr.
fn report(run: &Run, manner: Manner<'_>, target: &str) -> Result<(), Failure> {
    let text = match manner.format {
        _ if manner.stream && manner.format == Format::Json => String::new(),
        Format::Table | Format::Wide => {
            let mut text = result::table(run);
            let certificates = result::certificates(run);
            if !certificates.is_empty() {
                text += &format!("\nCoverage:\n{}\n", certificates.join("\n"));
            }
            text
        }
        Format::Json => output::json(&RunView::from(run))?,
        Format::Yaml => output::yaml(&RunView::from(run))?,
        Format::Name => format!("{}\n", run.id),
    };
    let printed = output::print(&text);
    if matches!(manner.format, Format::Table | Format::Wide) {
        talk("");
        result::next(run, target).into_iter().for_each(talk);
    }
    // How the run ended matters more than a reader that went away.
    if run.state() == RunState::Completed {
        printed
    } else {
        Ok(())
    }
}

struct Follower<'a> {
    display: Display,
    signals: Signals,
    deadline: Option<Instant>,
    manner: Manner<'a>,
    app: &'a App,
    last: Option<Run>,
}

impl Follower<'_> {
    async fn until_end(&mut self, client: &mut Client, run: &str) -> Result<Run, Failure> {
        let mut states = self.watch(client, run).await?;
        loop {
            let state = tokio::select! {
                state = states.message() => state,
                () = self.signals.next() => return Err(Failure::new(Kind::Interrupted, "")),
                () = at(self.deadline) => return Err(Failure::new(Kind::TimedOut, "")),
            };
            match state {
                Ok(Some(state)) => {
                    self.show(&state)?;
                    if view::has_ended(&state) {
                        return Ok(state);
                    }
                }
                Ok(None) => states = self.reconnect(client, run, "it closed the stream").await?,
                Err(status) if is_passing(status.code()) => {
                    states = self.reconnect(client, run, status.message()).await?;
                }
                Err(status) => return Err(client.failure(&status)),
            }
        }
    }

    fn show(&mut self, run: &Run) -> Result<(), Failure> {
        self.display.show(run, self.app.clock.now_micros());
        if self.manner.stream && self.manner.format == Format::Json {
            output::print(&output::json_line(&RunView::from(run))?)?;
        }
        self.last = Some(run.clone());
        Ok(())
    }

    /// Begins to watch. While one coordinator takes over from another that can take a while, in which
    /// Ctrl-C and the deadline still count.
    async fn watch(&mut self, client: &mut Client, run: &str) -> Result<Streaming<Run>, Failure> {
        tokio::select! {
            states = client.watch(run) => states,
            () = self.signals.next() => Err(Failure::new(Kind::Interrupted, "")),
            () = at(self.deadline) => Err(Failure::new(Kind::TimedOut, "")),
        }
    }

    /// Waits for a coordinator that has gone away; the run goes on, or will.
    async fn reconnect(&mut self, client: &mut Client, run: &str, why: &str) -> Result<Streaming<Run>, Failure> {
        self.display.say(&format!("lost the coordinator ({why}); trying again"));
        let mut delays = Delays::new(RECONNECT);
        loop {
            let failure = match self.watch(client, run).await {
                Ok(states) => return Ok(states),
                Err(failure) => failure,
            };
            let Some(delay) = delays.next_delay().filter(|_| failure.kind == Kind::Unreachable) else {
                return Err(failure);
            };
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.signals.next() => return Err(Failure::new(Kind::Interrupted, "")),
                () = at(self.deadline) => return Err(Failure::new(Kind::TimedOut, "")),
            }
        }
    }

    /// Leaves a run that has not ended. One that lives in this process is brought to a checkpoint.
    async fn leave(&mut self, failure: Failure, client: &mut Client, run: &str, again: &str) -> Failure {
        let why = match failure.kind {
            Kind::Interrupted => "interrupted",
            Kind::TimedOut => "--timeout has passed",
            _ => return failure,
        };
        let id = short(run);
        let target = client.target();
        let message = if self.manner.embedded {
            talk(format_args!(
                "{why}: stopping at the next checkpoint; once more stops at once, which loses nothing either"
            ));
            self.stop(client, run).await;
            format!("{why}; run {id} was stopped. `{again}` goes on from there.")
        } else {
            format!(
                "{why}; run {id} goes on. `gapless watch {id}{target}` follows it, `gapless stop {id}{target}` stops it."
            )
        };
        Failure::new(failure.kind, message)
    }

    /// What comes to no checkpoint is given back by the workers as they leave, and its programs are killed.
    async fn stop(&mut self, client: &mut Client, run: &str) {
        self.deadline = Some(Instant::now() + DRAIN_LIMIT);
        // Whatever goes wrong here, leaving now is as safe as a power cut.
        let stopped = client.stop(run).await;
        if let Some(workers) = self.manner.workers {
            workers.drain();
        }
        if stopped.is_ok() {
            let _ = self.until_end(client, run).await;
        }
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

pub fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
    )
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot listen to signals: {error}")));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The command that does a job again, for messages.
pub fn again(verb: &str, file: &Path, parameters: &[(String, String)], target: &str) -> String {
    let parameters: String = parameters
        .iter()
        .map(|(name, value)| format!(" -p {}", word(&format!("{name}={value}"))))
        .collect();
    format!(
        "gapless {verb} {}{parameters}{target}",
        word(&file.display().to_string())
    )
}

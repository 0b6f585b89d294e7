//! `gapless logs`: what happened to a run, as its coordinator keeps it.

use clap::{Args, ValueEnum};
use gapless_platform::retry::Delays;
use gapless_proto::v1::RunEvent;
use tonic::Streaming;

use crate::{
    app::App,
    arguments::{RunArgument, TargetArguments},
    client::Client,
    failure::{Failure, Kind, talk},
    follow::{RECONNECT, is_passing},
    output,
    view::EventView,
    wording::time,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    run: RunArgument,
    /// Go on with what happens until the run has ended
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    target: TargetArguments,
    /// Form of each line
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Form::Text)]
    output: Form,
}

/// How an event is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Time, step, what happened
    Text,
    /// One object a line
    Json,
}

pub async fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let mut client = Client::open(&arguments.target, app).await?;
    // A job's name may come to mean a newer run while this one is followed.
    let run = client.get(&arguments.run.run).await?.id;
    let mut reader = Reader {
        run,
        // In a store that nobody else has open nothing more happens.
        follow: arguments.follow && !client.owns_store(),
        form: arguments.output,
        after_micros: 0,
    };
    reader.read(&mut client).await?;
    client.close().await
}

struct Reader {
    run: String,
    follow: bool,
    form: Form,
    /// The time of the last event that was printed.
    after_micros: i64,
}

impl Reader {
    /// Prints to the end of the history; one that is followed survives a fail-over.
    async fn read(&mut self, client: &mut Client) -> Result<(), Failure> {
        let mut events = client.events(&self.run, self.after_micros, self.follow).await?;
        loop {
            match events.message().await {
                Ok(Some(event)) => self.print(&event)?,
                Ok(None) => return Ok(()),
                Err(status) if self.follow && is_passing(status.code()) => {
                    talk(format_args!(
                        "lost the coordinator ({}); trying again",
                        status.message()
                    ));
                    events = self.reconnect(client).await?;
                }
                Err(status) => return Err(client.failure(&status)),
            }
        }
    }

    async fn reconnect(&self, client: &mut Client) -> Result<Streaming<RunEvent>, Failure> {
        let mut delays = Delays::new(RECONNECT);
        loop {
            let failure = match client.events(&self.run, self.after_micros, self.follow).await {
                Ok(events) => return Ok(events),
                Err(failure) => failure,
            };
            let Some(delay) = delays.next_delay().filter(|_| failure.kind == Kind::Unreachable) else {
                return Err(failure);
            };
            tokio::time::sleep(delay).await;
        }
    }

    fn print(&mut self, event: &RunEvent) -> Result<(), Failure> {
        self.after_micros = event.at_micros;
        output::print(&line(event, self.form)?)
    }
}

fn line(event: &RunEvent, form: Form) -> Result<String, Failure> {
    match form {
        Form::Json => output::json_line(&EventView::from(event)),
        Form::Text => {
            let at = time(event.at_micros).unwrap_or_default();
            let step = match event.step.as_str() {
                "" => String::new(),
                step => format!("{step}: "),
            };
            Ok(format!("{at}  {step}{}\n", event.text))
        }
    }
}

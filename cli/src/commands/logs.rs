//! `gapless logs`: what happened to a run, as its coordinator keeps it.

use std::{collections::VecDeque, path::Path};

use clap::{Args, ValueEnum};
use gapless_platform::{
    retry::Delays,
    said::{self, Said},
};
use gapless_proto::v1::{Run, RunEvent};
use tonic::Streaming;

use crate::{
    app::App,
    arguments::{RunArgument, TargetArguments},
    client::Client,
    failure::{Failure, Kind, talk},
    follow::{RECONNECT, is_passing},
    local::programs_log,
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
    let run = client.get(&arguments.run.run).await?;
    // In a store that nobody else has open nothing more happens.
    let follow = arguments.follow && !client.owns_store();
    let said = match &arguments.target.state {
        Some(state) if !follow => said(state, &run)?,
        _ => Vec::new(),
    };
    let mut reader = Reader {
        run: run.id,
        follow,
        form: arguments.output,
        after_micros: 0,
        has_lines: !said.is_empty(),
        said: said.into(),
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
    /// What programs said, by time, that is not printed yet.
    said: VecDeque<RunEvent>,
    /// Whether there was any, so that the last words in the history say nothing more.
    has_lines: bool,
}

/// What the programs of a run that was done by `gapless run` have said, line by line.
fn said(state: &Path, run: &Run) -> Result<Vec<RunEvent>, Failure> {
    let folder = programs_log(state);
    let Ok(id) = run.id.parse() else {
        return Ok(Vec::new());
    };
    let lines = said::of_run(&folder, id)
        .map_err(|error| Failure::failed(format!("cannot read {}: {error}", folder.display())))?;
    let event = |said: Said| RunEvent {
        at_micros: said.at_micros,
        step: run
            .steps
            .get(usize::from(said.step))
            .map_or(String::new(), |step| step.name.clone()),
        text: match said.stage.as_str() {
            "execute" => format!("partition {}: {}", said.partition, said.text),
            stage => format!("{stage}: {}", said.text),
        },
        kind: SAID.to_string(),
    };
    let mut events: Vec<RunEvent> = lines.into_iter().map(event).collect();
    events.sort_by_key(|event| event.at_micros);
    Ok(events)
}

/// The kind of events that are words of programs.
const SAID: &str = "said";

impl Reader {
    /// Prints to the end of the history; one that is followed survives a fail-over.
    async fn read(&mut self, client: &mut Client) -> Result<(), Failure> {
        let mut events = client.events(&self.run, self.after_micros, self.follow).await?;
        loop {
            match events.message().await {
                Ok(Some(event)) if self.has_lines && event.kind == SAID => {}
                Ok(Some(event)) => {
                    self.print_said(event.at_micros)?;
                    self.print(&event)?;
                }
                Ok(None) => return self.print_said(i64::MAX),
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

    /// Prints what programs said up to a time.
    fn print_said(&mut self, until: i64) -> Result<(), Failure> {
        while let Some(event) = self.said.pop_front_if(|event| event.at_micros <= until) {
            output::print(&line(&event, self.form)?)?;
        }
        Ok(())
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

//! `gapless submit`: hands a job to a cluster.

use clap::Args;
use serde::Serialize;

use crate::{
    app::App,
    arguments::{JobArguments, OutputArguments, TargetArguments, TimeoutArgument},
    client::{Client, Submitted},
    failure::{Failure, Kind, talk},
    follow::{Manner, again, follow},
    job_file::JobFile,
    output::{self, Format, Table},
    view,
    wording::short,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    job: JobArguments,
    /// Priority of the run, in place of the job file's: 1 to 100; the higher is given slots first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    priority: Option<u32>,
    /// Follow the run until it has ended
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    timeout: TimeoutArgument,
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Serialize)]
struct Answer<'a> {
    run: &'a str,
    resumed: bool,
}

pub async fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    if arguments.timeout.timeout.is_some() && !arguments.wait {
        return Err(Failure::usage("--timeout bounds the waiting: give --wait with it"));
    }
    let parameters = arguments.job.parameters()?;
    let job = JobFile::read(&arguments.job.file)?;
    let mut client = Client::open(&arguments.target, app).await?;
    let (run, resumed) = match client.submit(&job, &parameters, arguments.priority).await? {
        Submitted::Accepted { run, resumed } => (run, resumed),
        Submitted::Exists { run } => return Err(conflict(&mut client, &run).await),
    };
    if arguments.wait {
        let goes_on = if resumed { " goes on" } else { "" };
        talk(format_args!("run {}{goes_on}", short(&run)));
        let manner = Manner {
            format: arguments.output.output,
            timeout: arguments.timeout.timeout,
            stream: false,
            embedded: false,
            workers: None,
        };
        let target = client.target().to_string();
        let again = again("submit", &arguments.job.file, &arguments.job.parameters, &target);
        follow(&mut client, &run, manner, &again, app).await?;
    } else {
        output::print(&answer(&run, resumed, arguments.output.output)?)?;
    }
    client.close().await
}

fn answer(run: &str, resumed: bool, format: Format) -> Result<String, Failure> {
    let answer = Answer { run, resumed };
    match format {
        Format::Json => output::json(&answer),
        Format::Yaml => output::yaml(&answer),
        Format::Name => Ok(format!("{run}\n")),
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["RUN", "SUBMITTED"]);
            table.row([run.to_string(), if resumed { "goes on" } else { "new" }.to_string()]);
            Ok(table.text())
        }
    }
}

/// A run of the same identity is in the way: names it, and what can be done.
pub async fn conflict(client: &mut Client, run: &str) -> Failure {
    let target = client.target().to_string();
    let id = short(run);
    let message = match client.get(run).await {
        Ok(found) if view::has_ended(&found) => completed(&found.job, id, &target),
        Ok(found) => format!(
            "{} with these parameters is already {}: run {id}. `gapless watch {id}{target}` follows it.",
            found.job,
            view::state_name(&found)
        ),
        // It may have ended and been purged in between: the answer stays the same.
        Err(_) => format!("the same job with the same parameters is already running or complete: run {id}"),
    };
    Failure::new(Kind::Conflict, message)
}

/// Why a completed run is not done again, and how to run the job once more.
pub fn completed(job: &str, id: &str, target: &str) -> String {
    format!(
        "{job} with these parameters is complete: run {id}; each is done once. \
         `gapless describe {id}{target}` shows it.\n\
         To run the job again, give an identifying parameter another value (-p NAME=VALUE); a job without one \
         can be given one, such as `parameters: {{attempt: {{type: int64}}}}`."
    )
}

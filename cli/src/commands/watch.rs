//! `gapless watch`: follows a run until it has ended.

use clap::Args;

use crate::{
    app::App,
    arguments::{OutputArguments, RunArgument, TargetArguments, TimeoutArgument},
    client::Client,
    failure::Failure,
    follow::{Manner, follow},
    output::{self, Format},
    result::outcome,
    view::{RunView, has_ended},
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    run: RunArgument,
    #[command(flatten)]
    timeout: TimeoutArgument,
    #[command(flatten)]
    target: TargetArguments,
    /// With `json`, each state of the run is a line
    #[command(flatten)]
    output: OutputArguments,
}

/// The command that goes on with a run whose job file is elsewhere.
fn again(verb: &str, client: &Client) -> String {
    format!("gapless {verb} JOB.yaml{}", client.target())
}

pub async fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let mut client = Client::open(&arguments.target, app).await?;
    // A job's name may come to mean a newer run while this one is followed.
    let run = client.get(&arguments.run.run).await?;
    let manner = Manner {
        format: arguments.output.output,
        timeout: arguments.timeout.timeout,
        stream: arguments.output.output == Format::Json,
        embedded: false,
        workers: None,
    };
    if client.owns_store() && !has_ended(&run) {
        // Nothing would ever happen.
        if manner.stream {
            output::print(&output::json_line(&RunView::from(&run))?)?;
        }
        let again = again("run", &client);
        client.close().await?;
        return outcome(&run, &again);
    }
    let again = again("submit", &client);
    follow(&mut client, &run.id, manner, &again, app).await?;
    client.close().await
}

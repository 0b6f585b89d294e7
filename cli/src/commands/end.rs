//! `gapless stop` and `gapless cancel`: a run ends, to go on later or for good.

use clap::Args;
use gapless_proto::v1::Run;

use crate::{
    app::App,
    arguments::{RunArgument, TargetArguments},
    client::Client,
    failure::{Failure, talk},
    view,
    wording::short,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    run: RunArgument,
    #[command(flatten)]
    target: TargetArguments,
}

/// Stops a run at the next checkpoint of each task.
pub async fn stop(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let mut client = Client::open(&arguments.target, app).await?;
    let run = client.stop(&arguments.run.run).await?;
    let (id, target) = (short(&run.id), client.target());
    let then = format!("; submit the job again to go on, `gapless watch {id}{target}` to see it end");
    told(client, &run, &then).await
}

/// Ends a run and removes what it staged.
pub async fn cancel(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let mut client = Client::open(&arguments.target, app).await?;
    let run = client.cancel(&arguments.run.run).await?;
    let published = run.steps.iter().filter(|step| step.state == "published");
    let kept = match published.map(|step| step.name.as_str()).collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => none,
        names => format!("; already published, and staying: {names}"),
    };
    told(client, &run, &kept).await
}

async fn told(client: Client, run: &Run, then: &str) -> Result<(), Failure> {
    let (id, state) = (short(&run.id), view::state_name(run));
    talk(format_args!("run {id} of {} is {state}{then}", run.job));
    client.close().await
}

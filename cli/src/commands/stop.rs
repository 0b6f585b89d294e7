//! `gapless stop`: stops a run at the next checkpoint of each task.

use clap::Args;

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

pub async fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let mut client = Client::open(&arguments.target, app).await?;
    let run = client.stop(&arguments.run.run).await?;
    let (id, target) = (short(&run.id), client.target());
    talk(format_args!(
        "run {id} of {} is {}; submit the job again to go on, `gapless watch {id}{target}` to see it end",
        run.job,
        view::state_name(&run)
    ));
    client.close().await
}

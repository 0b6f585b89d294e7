//! `gapless cancel`: ends a run and removes what it staged.

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
    let run = client.cancel(&arguments.run.run).await?;
    let published: Vec<_> = run.steps.iter().filter(|step| step.state == "published").collect();
    let kept = match published.as_slice() {
        [] => String::new(),
        steps => {
            let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
            format!("; already published, and staying: {}", names.join(", "))
        }
    };
    let state = view::state_name(&run);
    talk(format_args!("run {} of {} is {state}{kept}", short(&run.id), run.job));
    client.close().await
}

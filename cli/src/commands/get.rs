//! `gapless get`: one run.

use clap::Args;

use super::list::table;
use crate::{
    app::App,
    arguments::{OutputArguments, RunArgument, TargetArguments},
    client::Client,
    failure::Failure,
    output::{self, Format},
    view::RunView,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    run: RunArgument,
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    output: OutputArguments,
}

pub async fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let mut client = Client::open(&arguments.target, app).await?;
    let run = client.get(&arguments.run.run).await?;
    client.close().await?;
    let now = app.clock.now_micros();
    let text = match arguments.output.output {
        Format::Json => output::json(&RunView::from(&run))?,
        Format::Yaml => output::yaml(&RunView::from(&run))?,
        Format::Name => format!("{}\n", run.id),
        Format::Table => table(std::slice::from_ref(&run), now, false),
        Format::Wide => table(std::slice::from_ref(&run), now, true),
    };
    output::print(&text)
}

//! `gapless plan`: how a job would be cut, and the proof that the partitions cover the data; or the steps as a graph.

use std::path::Path;

use clap::Args;
use gapless_platform::config::Setting;
use gapless_worker::command::Inherited;

use crate::{
    app::{App, Flags, flag},
    arguments::JobArguments,
    failure::Failure,
    graph::{GraphFormat, draw},
    job_file::JobFile,
    local, output,
    partition_table::{PlanFormat, render, verdict},
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    job: JobArguments,
    /// Tasks at a time to plan for [default: the cores of this machine]
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// Form of the result
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = PlanFormat::Table)]
    output: PlanFormat,
    /// Draw the steps and what each waits for: text, dot (Graphviz) or mermaid
    #[arg(
        long,
        value_enum,
        value_name = "FORM",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text",
        conflicts_with = "output"
    )]
    graph: Option<GraphFormat>,
}

pub fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let parameters = arguments.job.parameters()?;
    let file = JobFile::read(&arguments.job.file)?;
    let (job, _) = local::bind(&file, &parameters)?;
    let mut flags = Flags::new();
    flag(&mut flags, Setting::Slots, arguments.slots);
    let config = app.config(flags)?;
    let inherited = Inherited::with(config.program_variables);
    let steps = local::plan(&job, Path::new(&file.base_dir), config.slots, &inherited)?;
    let text = match arguments.graph {
        Some(format) => draw(&job.name, &steps, format),
        None => render(&job.name, &steps, arguments.output)?,
    };
    output::print(&text)?;
    verdict(&steps).map_err(|(kind, fault)| Failure::new(kind, format!("{} is refused: {fault}", file.name)))
}

//! `gapless describe`: everything about one run, for people; `-o json` gives the same to programs.

use clap::Args;
use gapless_proto::v1::{PartitionStatus, Run, StepStatus};
use serde::Serialize;

use crate::{
    app::App,
    arguments::{OutputArguments, RunArgument, TargetArguments},
    client::Client,
    failure::Failure,
    output::{self, Format, Table},
    progress, result, view,
    view::{PartitionView, RunView},
    wording::{bytes, count, span, time},
};

/// Rows of the partition table that a terminal is shown; `wide`, `json` and `yaml` have all.
const SHOWN_PARTITIONS: usize = 100;
/// The stated limit of partitions of a run.
const ALL_PARTITIONS: usize = 100_000;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    run: RunArgument,
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Serialize)]
struct Description {
    #[serde(flatten)]
    run: RunView,
    partition_table: Vec<PartitionView>,
}

pub async fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let format = arguments.output.output;
    let mut client = Client::open(&arguments.target, app).await?;
    let run = client.get(&arguments.run.run).await?;
    if format == Format::Name {
        return output::print(&format!("{}\n", run.id));
    }
    let limit = if format == Format::Table {
        SHOWN_PARTITIONS
    } else {
        ALL_PARTITIONS
    };
    let (partitions, more) = client.partitions(&run.id, limit).await?;
    client.close().await?;
    let description = || Description {
        run: RunView::from(&run),
        partition_table: partitions.iter().map(PartitionView::from).collect(),
    };
    let text = match format {
        Format::Json => output::json(&description())?,
        Format::Yaml => output::yaml(&description())?,
        Format::Table | Format::Wide | Format::Name => {
            let more = if more { "more are shown by -o wide\n" } else { "" };
            describe(&run, &partitions, app.clock.now_micros()) + more
        }
    };
    output::print(&text)
}

fn describe(run: &Run, partitions: &[PartitionStatus], now: i64) -> String {
    let mut text = String::new();
    let mut say = |name: &str, what: String| {
        if !what.is_empty() {
            text += &format!("{name:<12} {what}\n");
        }
    };
    say("Run", run.id.clone());
    say("Job", run.job.clone());
    let mut parameters: Vec<_> = run
        .parameters
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    parameters.sort();
    say("Parameters", parameters.join(" "));
    say("State", view::state_name(run).to_string());
    say("Priority", run.priority.to_string());
    say("Submitted", time(run.submitted_micros).unwrap_or_default());
    say("Finished", time(run.finished_micros).unwrap_or_default());
    let until = if run.finished_micros > 0 {
        run.finished_micros
    } else {
        now
    };
    say("Took", span(until - run.submitted_micros));
    say("Error", run.error.replace('\n', "\n             "));
    text += "\nSteps\n";
    text += &result::table(run);
    for step in &run.steps {
        text += &notes(step);
    }
    let certificates = result::certificates(run);
    if !certificates.is_empty() {
        text += &format!("\nCoverage\n{}\n", certificates.join("\n"));
    }
    if !run.events.is_empty() {
        text += "\nEvents\n";
        for event in &run.events {
            let step = if event.step.is_empty() {
                String::new()
            } else {
                format!("{}: ", event.step)
            };
            text += &format!("{}  {step}{}\n", time(event.at_micros).unwrap_or_default(), event.text);
        }
    }
    if !partitions.is_empty() {
        text += "\nPartitions\n";
        text += &partition_table(partitions);
    }
    text
}

fn notes(step: &StepStatus) -> String {
    let mut text = String::new();
    if progress::is_working(step) {
        text += &format!("{}: {}\n", step.name, progress::status(step, None));
    }
    if !step.waits_for.is_empty() {
        text += &format!("{}: waits: {}\n", step.name, step.waits_for);
    }
    for warning in &step.warnings {
        text += &format!("{}: note: {warning}\n", step.name);
    }
    if !step.error.is_empty() {
        text += &format!("{}: error: {}\n", step.name, step.error);
    }
    text
}

fn partition_table(partitions: &[PartitionStatus]) -> String {
    let mut table = Table::new(&[
        "STEP",
        ">PARTITION",
        "STATE",
        ">ATTEMPT",
        "WORKER",
        ">LOW",
        ">HIGH",
        "KEYS",
        ">POSITION",
        ">READ",
        ">WRITTEN",
        ">REJECTED",
        ">OUTPUT",
        "ERROR",
    ]);
    for partition in partitions {
        let counters = partition.counters.unwrap_or_default();
        table.row([
            partition.step.clone(),
            partition.number.to_string(),
            partition.state.clone(),
            partition.attempt.to_string(),
            partition.worker.clone(),
            partition.low.to_string(),
            partition.high.to_string(),
            partition.keys.clone(),
            partition.position.to_string(),
            count(counters.read),
            count(counters.written),
            count(counters.rejected),
            bytes(counters.bytes_written),
            partition.error.lines().next().unwrap_or_default().to_string(),
        ]);
    }
    table.text()
}

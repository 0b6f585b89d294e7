//! `gapless workers`: the workers of a cluster.

use clap::Args;
use gapless_proto::v1::WorkerInfo;

use crate::{
    app::App,
    arguments::{OutputArguments, TargetArguments},
    client::Client,
    failure::Failure,
    output::{self, Format, Table},
    view::WorkerView,
    wording::{bytes, span},
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    output: OutputArguments,
}

pub async fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let mut client = Client::open(&arguments.target, app).await?;
    let workers = client.workers().await?;
    client.close().await?;
    let views = || workers.iter().map(WorkerView::from).collect::<Vec<_>>();
    let text = match arguments.output.output {
        Format::Json => output::json(&views())?,
        Format::Yaml => output::yaml(&views())?,
        Format::Name => workers.iter().map(|worker| format!("{}\n", worker.name)).collect(),
        Format::Table => table(&workers, false),
        Format::Wide => table(&workers, true),
    };
    output::print(&text)
}

fn table(workers: &[WorkerInfo], wide: bool) -> String {
    let mut columns = vec!["NAME", "STATE", ">SLOTS", ">BUSY", ">HEARD", ">MEMORY"];
    if wide {
        columns.extend(["LABELS", "VERSION", "SESSION", "TASKS"]);
    }
    let mut table = Table::new(&columns);
    for worker in workers {
        let silent = i64::try_from(worker.silent_ms).unwrap_or(i64::MAX).saturating_mul(1000);
        let mut cells = vec![
            worker.name.clone(),
            worker.state.clone(),
            worker.slots.to_string(),
            worker.busy.to_string(),
            format!("{} ago", span(silent)),
            bytes(worker.resident_bytes),
        ];
        if wide {
            let mut labels: Vec<_> = worker
                .labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            labels.sort();
            cells.extend([
                labels.join(","),
                worker.version.clone(),
                worker.session.clone(),
                worker.tasks.join(" "),
            ]);
        }
        table.row(cells);
    }
    table.text()
}

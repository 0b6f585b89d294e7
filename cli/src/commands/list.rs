//! `gapless list`: the runs of a cluster, newest first.

use clap::Args;
use gapless_proto::v1::Run;

use crate::{
    app::App,
    arguments::{OutputArguments, TargetArguments},
    client::Client,
    failure::Failure,
    output::{self, Format, Table},
    view::{self, RunView},
    wording::{count, span, time},
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Only runs of this job
    #[arg(value_name = "JOB")]
    job: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    output: OutputArguments,
}

pub async fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let mut client = Client::open(&arguments.target, app).await?;
    let runs = client
        .list(arguments.job.as_deref().unwrap_or_default(), arguments.limit)
        .await?;
    client.close().await?;
    output::print(&show(&runs, arguments.output.output, app.clock.now_micros())?)
}

fn show(runs: &[Run], format: Format, now: i64) -> Result<String, Failure> {
    let views = || runs.iter().map(RunView::from).collect::<Vec<_>>();
    match format {
        Format::Json => output::json(&views()),
        Format::Yaml => output::yaml(&views()),
        Format::Name => Ok(runs.iter().map(|run| format!("{}\n", run.id)).collect()),
        Format::Table => Ok(table(runs, now, false)),
        Format::Wide => Ok(table(runs, now, true)),
    }
}

/// One row for each run.
pub fn table(runs: &[Run], now: i64, wide: bool) -> String {
    let mut columns = vec!["RUN", "JOB", "STATE", ">STEPS", ">ROWS", "SUBMITTED", ">TOOK"];
    if wide {
        columns.extend([">PRIORITY", "PARAMETERS", "ERROR"]);
    }
    let mut table = Table::new(&columns);
    for run in runs {
        let published = run.steps.iter().filter(|step| step.state == "published");
        let rows: u64 = run
            .steps
            .iter()
            .map(|step| match step.counters.unwrap_or_default().written {
                // Of a step that was skipped: those of the output that it left standing.
                0 => step.output_rows,
                written => written,
            })
            .sum();
        let until = if run.finished_micros > 0 {
            run.finished_micros
        } else {
            now
        };
        let mut cells = vec![
            run.id.clone(),
            run.job.clone(),
            view::state_name(run).to_string(),
            format!("{}/{}", published.count(), run.steps.len()),
            count(rows),
            time(run.submitted_micros).unwrap_or_default(),
            span(until - run.submitted_micros),
        ];
        if wide {
            let mut parameters: Vec<_> = run
                .parameters
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            parameters.sort();
            cells.push(run.priority.to_string());
            cells.push(parameters.join(","));
            cells.push(run.error.lines().next().unwrap_or_default().to_string());
        }
        table.row(cells);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use gapless_proto::v1::{Counters, RunState, StepStatus};

    use super::*;

    #[test]
    fn a_list_for_people_and_for_programs() {
        let run = Run {
            id: "0192f3a4-5b6c-7d8e-9f00-112233445566".into(),
            job: "nightly".into(),
            parameters: [("date".to_string(), "2026-11-20".to_string())].into(),
            state: RunState::Running.into(),
            submitted_micros: 1_795_171_200_000_000,
            priority: 50,
            steps: vec![StepStatus {
                name: "load".into(),
                state: "published".into(),
                counters: Some(Counters {
                    written: 1234,
                    ..Default::default()
                }),
                ..Default::default()
            }],
            ..Default::default()
        };
        let runs = [run];
        let show = |format| show(&runs, format, 1_795_171_265_000_000).expect("shown");
        assert_eq!(
            show(Format::Wide),
            "\
RUN                                   JOB      STATE    STEPS   ROWS  SUBMITTED                   TOOK  PRIORITY  PARAMETERS       ERROR
0192f3a4-5b6c-7d8e-9f00-112233445566  nightly  running    1/1  1,234  2026-11-20T10:40:00Z  1 min 05 s        50  date=2026-11-20  -
"
        );
        assert_eq!(show(Format::Name), "0192f3a4-5b6c-7d8e-9f00-112233445566\n");
        let json: serde_json::Value = serde_json::from_str(&show(Format::Json)).expect("JSON");
        assert_eq!(json[0]["state"], "running");
        assert_eq!(json[0]["steps"][0]["counters"]["written"], 1234);
        assert_eq!(json[0]["finished"], serde_json::Value::Null);
        assert!(show(Format::Yaml).contains("state: running"));
    }
}

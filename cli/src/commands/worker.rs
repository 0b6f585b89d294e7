//! `gapless worker`: works for a cluster until it is told to stop.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use gapless_platform::{config::Setting, shutdown::Shutdown};

use super::coordinator::follow_signals;
use crate::{
    app::{App, Flags, flag, start_log, start_monitor},
    arguments::{AccessArguments, TellingArguments},
    embedded::{WorkerMetrics, WorkerSettings, run_worker},
    failure::Failure,
};

/// A drain ends by itself after 5 s; this is for one that does not.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub struct Arguments {
    /// Address of a coordinator, or several joined by commas
    #[arg(long, visible_alias = "endpoints", value_name = "URL")]
    endpoint: Option<String>,
    /// Tasks to do at a time [default: the number of cores]
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// Labels that steps may ask for in `placement`, such as gpu=yes,zone=a
    #[arg(long, value_name = "NAME=VALUE,…")]
    labels: Option<String>,
    /// Name in lists and messages [default: host name and process id]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Folder of this machine for what memory does not hold [default: spill in the scratch folder, or in TMPDIR]
    #[arg(long, value_name = "DIR")]
    spill_dir: Option<PathBuf>,
    /// Touch no data outside this folder; may be given many times [default: any]
    #[arg(long = "allow-path", value_name = "DIR", help_heading = "Security")]
    allow_paths: Vec<String>,
    /// Start the programs of jobs (`transform.command`) [default: refuse such jobs]
    #[arg(long, help_heading = "Security")]
    allow_command: bool,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    telling: TellingArguments,
}

pub async fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let mut flags = Flags::new();
    flag(&mut flags, Setting::Endpoints, arguments.endpoint.as_ref());
    flag(&mut flags, Setting::Slots, arguments.slots);
    flag(&mut flags, Setting::Labels, arguments.labels.as_ref());
    flag(
        &mut flags,
        Setting::SpillDir,
        arguments.spill_dir.as_ref().map(|path| path.display()),
    );
    arguments.telling.note(&mut flags);
    arguments.access.note(&mut flags);
    let allowed = (!arguments.allow_paths.is_empty()).then(|| arguments.allow_paths.join(","));
    flag(&mut flags, Setting::AllowPaths, allowed);
    flag(
        &mut flags,
        Setting::AllowCommand,
        arguments.allow_command.then_some("on"),
    );
    let config = app.config(flags)?;
    let access = app.access(&config)?;
    let telling = start_log(&config, "worker", None)?;
    let shutdown = Shutdown::new();
    let signals = follow_signals(&shutdown, GRACE)?;
    let metrics = WorkerMetrics::new(config.slots, app.clock.clone());
    let monitor = start_monitor(&config, metrics.clone()).await?;
    let settings = WorkerSettings {
        endpoints: config.endpoints,
        name: arguments.name,
        slots: config.slots,
        labels: config.labels,
        memory_per_slot_mib: config.memory_per_slot_mib,
        metrics,
        access,
        allow_paths: config.allow_paths,
        allow_command: config.allow_command,
        program_variables: config.program_variables,
        spill_dir: config.spill_dir,
    };
    let ended = run_worker(settings, shutdown).await;
    drop((signals, monitor));
    telling.end().await;
    ended
}

//! `gapless`: the one binary. Arguments, then configuration, then the verb; nothing else lives here.

mod app;
mod arguments;
mod client;
mod commands;
mod embedded;
mod failure;
mod follow;
mod graph;
mod job_file;
mod local;
mod output;
mod partition_table;
mod progress;
mod result;
mod terminal;
mod view;
mod wording;

use std::{process::ExitCode, time::Duration};

use clap::Parser;

use crate::{app::App, arguments::Arguments, failure::Failure};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Blocking work that is still going on when a verb is done (a name look-up, a write) gets so long.
const RUNTIME_SHUTDOWN: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            ExitCode::from(failure.code())
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}; look at the process limits")))?;
    let app = App::new(arguments.config);
    let outcome = runtime.block_on(arguments.command.run(&app));
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    outcome
}

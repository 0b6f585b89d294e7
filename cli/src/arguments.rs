//! The command line: verbs and the flags they share.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use gapless_platform::config::Setting;

use crate::{
    app::{App, Flags, flag},
    commands::{
        cluster, completion, config, coordinator, describe, end, get, init, list, logs, man, plan, redrive, rejects,
        run, schema, submit, tls, token, validate, verify, watch, worker, workers,
    },
    failure::Failure,
    output::Format,
    wording::word,
};

const EXIT_CODES: &str = "\
Exit codes:
  0 done   1 job failed or stopped   2 usage   3 job file invalid   4 not found   5 denied
  6 cluster unreachable   7 conflict (already running or complete)
  124 --timeout passed   130 Ctrl-C

Data goes to stdout, everything else to stderr. Settings: flag, then GAPLESS_* variable, then
configuration file, then default; `gapless config show --origin` tells which one holds.";

/// Batch jobs that cover every record exactly once.
#[derive(Debug, Parser)]
#[command(name = "gapless", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Arguments {
    /// Configuration file [default: ~/.config/gapless/config.yaml, /etc/gapless/config.yaml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a job to begin with, and a little input for it
    Init(init::Arguments),
    /// Do a whole job in this process; started again, it goes on where it was
    Run(run::Arguments),
    /// Show how a job would be cut, and that the partitions cover the data
    Plan(plan::Arguments),
    /// Check a job file without touching data
    Validate(validate::Arguments),
    /// Be the coordinator of a cluster
    Coordinator(Box<coordinator::Arguments>),
    /// Be a worker of a cluster
    Worker(worker::Arguments),
    /// Hand a job to a cluster
    Submit(submit::Arguments),
    /// List runs, newest first
    List(list::Arguments),
    /// Show one run
    Get(get::Arguments),
    /// Show everything about one run: steps, partitions, events
    Describe(describe::Arguments),
    /// Follow a run until it has ended
    Watch(watch::Arguments),
    /// Show what happened to a run: its stages, lost workers, take-overs, failures
    Logs(logs::Arguments),
    /// Show the records that a run rejected, or keep them in a file
    Rejects(rejects::Arguments),
    /// Do a step again over the records that it had rejected, and add to its output
    Redrive(redrive::Arguments),
    /// Stop a run at the next checkpoint; submitting it again goes on from there
    Stop(end::Arguments),
    /// End a run and remove what it staged
    Cancel(end::Arguments),
    /// Read the source again and say whether the coverage certificates still hold
    Verify(verify::Arguments),
    /// List the workers of a cluster
    Workers(workers::Arguments),
    /// Show the cluster itself, or accept a store that was restored
    Cluster(cluster::Arguments),
    /// Print the language of job files: a JSON Schema for editors, or tables for people
    Schema(schema::Arguments),
    /// Print a script that completes verbs and flags in a shell
    Completion(completion::Arguments),
    /// Print or write man pages
    Man(man::Arguments),
    /// Show the settings in force
    Config(config::Arguments),
    /// Make certificates for trying out
    Tls(tls::Arguments),
    /// Make tokens
    Token(token::Arguments),
}

impl Command {
    pub async fn run(self, app: &App) -> Result<(), Failure> {
        match self {
            Command::Init(arguments) => init::run(arguments),
            Command::Run(arguments) => run::run(arguments, app).await,
            Command::Plan(arguments) => plan::run(arguments, app),
            Command::Validate(arguments) => validate::run(arguments),
            Command::Coordinator(arguments) => coordinator::run(*arguments, app).await,
            Command::Worker(arguments) => worker::run(arguments, app).await,
            Command::Submit(arguments) => submit::run(arguments, app).await,
            Command::List(arguments) => list::run(arguments, app).await,
            Command::Get(arguments) => get::run(arguments, app).await,
            Command::Describe(arguments) => describe::run(arguments, app).await,
            Command::Watch(arguments) => watch::run(arguments, app).await,
            Command::Logs(arguments) => logs::run(arguments, app).await,
            Command::Rejects(arguments) => rejects::run(arguments, app).await,
            Command::Redrive(arguments) => redrive::run(arguments, app).await,
            Command::Stop(arguments) => end::stop(arguments, app).await,
            Command::Cancel(arguments) => end::cancel(arguments, app).await,
            Command::Verify(arguments) => verify::run(arguments, app).await,
            Command::Workers(arguments) => workers::run(arguments, app).await,
            Command::Cluster(arguments) => cluster::run(arguments, app).await,
            Command::Schema(arguments) => schema::run(arguments),
            Command::Completion(arguments) => completion::run(arguments),
            Command::Man(arguments) => man::run(arguments),
            Command::Config(arguments) => config::run(arguments, app),
            Command::Tls(arguments) => tls::run(arguments, app),
            Command::Token(arguments) => token::run(arguments, app),
        }
    }
}

/// The job file and its parameters.
#[derive(Debug, Args)]
pub struct JobArguments {
    /// The job file; `-` reads it from stdin
    #[arg(value_name = "JOB.yaml")]
    pub file: PathBuf,
    /// Value of a parameter of the job; may be given many times
    #[arg(short, long = "parameter", value_name = "NAME=VALUE", value_parser = parse_parameter)]
    pub parameters: Vec<(String, String)>,
}

/// Which cluster a client verb speaks to.
#[derive(Debug, Args)]
pub struct TargetArguments {
    /// Address of a coordinator, or several joined by commas
    #[arg(long, visible_alias = "endpoints", value_name = "URL", conflicts_with = "state")]
    pub endpoint: Option<String>,
    /// Speak to the embedded store in this folder, as `gapless run` leaves it
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    #[command(flatten)]
    pub access: AccessArguments,
}

/// TLS files of this side.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Security")]
pub struct TlsArguments {
    /// PEM file of the authority that the other side's certificate must come from
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// PEM file of this side's certificate
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

impl TlsArguments {
    pub fn note(&self, flags: &mut Flags) {
        flag(flags, Setting::TlsCa, self.tls_ca.as_ref().map(|path| path.display()));
        flag(
            flags,
            Setting::TlsCert,
            self.tls_cert.as_ref().map(|path| path.display()),
        );
        flag(flags, Setting::TlsKey, self.tls_key.as_ref().map(|path| path.display()));
    }
}

/// What a client or worker shows to a coordinator.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Security")]
pub struct AccessArguments {
    #[command(flatten)]
    tls: TlsArguments,
    /// File with the token to show; the variable GAPLESS_TOKEN holds the token itself
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl AccessArguments {
    /// The flags that were given, as words of a command line.
    pub fn words(&self) -> String {
        let given = [
            ("--tls-ca", &self.tls.tls_ca),
            ("--tls-cert", &self.tls.tls_cert),
            ("--tls-key", &self.tls.tls_key),
            ("--token-file", &self.token_file),
        ];
        given
            .iter()
            .filter_map(|(flag, path)| path.as_ref().map(|path| folder_flag(flag, path)))
            .collect()
    }

    pub fn note(&self, flags: &mut Flags) {
        self.tls.note(flags);
        flag(
            flags,
            Setting::TokenFile,
            self.token_file.as_ref().map(|path| path.display()),
        );
    }
}

/// What a process that serves tells of itself.
#[derive(Debug, Args)]
pub struct TellingArguments {
    /// Address for /metrics, /healthz and /readyz; port 0 takes a free one [default: off]
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<String>,
    /// OpenTelemetry collector (OTLP over gRPC) to tell of runs and attempts, such as http://127.0.0.1:4317 [default: off]
    #[arg(long, value_name = "URL")]
    traces_endpoint: Option<String>,
    /// Form of log lines: compact or json
    #[arg(long, value_name = "FORM")]
    log_format: Option<String>,
    /// error, warn, info, debug, trace, or target=level parts joined by commas
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl TellingArguments {
    /// Notes the flags that were given.
    pub fn note(&self, flags: &mut Flags) {
        flag(flags, Setting::MetricsListen, self.metrics_listen.as_ref());
        flag(flags, Setting::TracesEndpoint, self.traces_endpoint.as_ref());
        flag(flags, Setting::LogFormat, self.log_format.as_ref());
        flag(flags, Setting::LogLevel, self.log_level.as_ref());
    }
}

/// A flag with a path, as words that go on in a command line.
pub fn folder_flag(flag: &str, path: &Path) -> String {
    format!(" {flag} {}", word(&path.display().to_string()))
}

/// How results are printed.
#[derive(Debug, Args)]
pub struct OutputArguments {
    /// Form of the result
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Format::Table)]
    pub output: Format,
}

/// A run, as client verbs name it.
#[derive(Debug, Args)]
pub struct RunArgument {
    /// A run: its id, a unique beginning of its id, or a job's name for the newest run of it
    #[arg(value_name = "RUN")]
    pub run: String,
}

/// A bound on waiting.
#[derive(Debug, Args)]
pub struct TimeoutArgument {
    /// Wait at most so long (such as 90s, 10m, 2h), then exit with 124; the job goes on
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

fn parse_parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err("a parameter is written NAME=VALUE, such as date=2026-11-20".to_string()),
    }
}

/// Reads `250ms`, `90s`, `10m` or `2h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    match number
        .zip(milliseconds)
        .and_then(|(number, unit)| number.checked_mul(unit))
    {
        Some(0) => Err("it must be longer than nothing".to_string()),
        Some(milliseconds) => Ok(Duration::from_millis(milliseconds)),
        None => Err("a duration is a number and a unit: 250ms, 90s, 10m or 2h".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let read = |text: &str| parse_duration(text).ok().map(|duration| duration.as_millis());
        for (text, expected) in [
            ("250ms", Some(250)),
            ("90s", Some(90_000)),
            ("10m", Some(600_000)),
            ("2h", Some(7_200_000)),
            ("0s", None),
            ("10", None),
            ("s", None),
            ("-1s", None),
            ("1.5h", None),
            ("99999999999999999h", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn parameters_are_cut_at_the_first_equals_sign() {
        assert_eq!(parse_parameter("a=b=c"), Ok(("a".to_string(), "b=c".to_string())));
        assert_eq!(parse_parameter("a="), Ok(("a".to_string(), String::new())));
        assert!(parse_parameter("=b").is_err());
        assert!(parse_parameter("a").is_err());
    }
}

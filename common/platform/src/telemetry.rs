//! Log lines: to stderr, since stdout belongs to data.

use std::{
    fmt,
    io::{self, IsTerminal},
    str::FromStr,
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{self as log, format::FmtSpan},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{said::SaidLayer, traces::TracesLayer};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for a person.
    #[default]
    Compact,
    /// One JSON object for each line, for machines.
    Json,
}

impl LogFormat {
    pub fn name(self) -> &'static str {
        match self {
            LogFormat::Compact => "compact",
            LogFormat::Json => "json",
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "compact" => Ok(LogFormat::Compact),
            "json" => Ok(LogFormat::Json),
            _ => Err("allowed are compact and json".to_string()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(
        "log level {level:?}: {reason}; write a level (error, warn, info, debug, trace) or `target=level` parts joined by commas"
    )]
    Level { level: String, reason: String },
    #[error("a log subscriber is installed already")]
    Installed,
}

/// Reads a level as it stands in the configuration.
///
/// Errors: [`TelemetryError::Level`] with what is wrong.
pub fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(level)
        .map_err(|error| TelemetryError::Level {
            level: level.to_string(),
            reason: error.to_string(),
        })
}

/// Installs the process's subscriber: the log, and spans for a collector, where they are asked for,
/// whatever the level of the log is, and likewise what programs say. Call once.
pub fn init(
    format: LogFormat,
    level: &str,
    traces: Option<TracesLayer>,
    said: Option<SaidLayer>,
) -> Result<(), TelemetryError> {
    // A closed stderr must not end a worker: write errors are not reported anywhere.
    let lines = log::layer()
        .with_writer(io::stderr)
        .with_span_events(FmtSpan::NONE)
        .log_internal_errors(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Compact => {
            let ansi = io::stderr().is_terminal();
            lines.compact().with_ansi(ansi).with_target(false).boxed()
        }
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
    };
    let installed = tracing_subscriber::registry()
        .with(lines.with_filter(filter(level)?))
        .with(traces.map(TracesLayer::filtered))
        .with(said.map(SaidLayer::filtered))
        .try_init();
    installed.map_err(|_| TelemetryError::Installed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_or_refused_in_words() {
        for good in ["info", "warn,gapless_worker=debug", "off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        let error = filter("gapless_worker=loud").expect_err("no such level").to_string();
        assert!(error.contains("loud") && error.contains("debug"), "{error}");
    }
}

//! What every verb is given: the way to its settings, and the time.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use gapless_platform::{
    clock::Clock,
    config::{Config, Layers, Setting},
    monitor::{self, Monitor, Monitored},
    said::SaidLayer,
    secret::Secret,
    telemetry,
    traces::{self, Exporter, TracesConfig},
};
use gapless_proto::access::{Access, Pems};

use crate::{
    arguments::folder_flag,
    failure::{Failure, Kind, talk},
};

pub struct App {
    /// The configuration file that was named.
    config_file: Option<PathBuf>,
    pub clock: Clock,
}

/// Settings that were given as flags.
pub type Flags = BTreeMap<Setting, String>;

impl App {
    pub fn new(config_file: Option<PathBuf>) -> Self {
        Self {
            config_file,
            clock: Clock::system(),
        }
    }

    /// The configuration file that was named, as words that go on in a command line.
    pub fn words(&self) -> String {
        let named = self.config_file.as_ref();
        named.map_or(String::new(), |path| folder_flag("--config", path))
    }

    /// The settings in force: these flags over variables over the configuration file over defaults.
    pub fn config(&self, flags: Flags) -> Result<Config, Failure> {
        let layers = Layers::of_process(flags, self.config_file.clone());
        let config = layers.and_then(|layers| Config::resolve(&layers));
        let config = config.map_err(|error| Failure::usage(error.to_string()))?;
        config.warnings.iter().for_each(talk);
        Ok(config)
    }

    /// What this process shows to a coordinator, as the settings say.
    pub fn access(&self, config: &Config) -> Result<Access, Failure> {
        let material = config.tls.load().map_err(|error| Failure::usage(error.to_string()))?;
        let token = config.token.read().map_err(|error| Failure::usage(error.to_string()))?;
        let pems = Pems {
            ca: material.ca,
            identity: material.identity.map(|identity| (identity.cert, identity.key)),
        };
        let access = Access::new(pems, token.as_ref().map(Secret::expose));
        access.map_err(|error| Failure::usage(error.to_string()))
    }
}

/// What a process tells of itself beside its log, until [`Telling::end`].
#[must_use]
pub struct Telling(Option<Exporter>);

impl Telling {
    /// Sends what is still to be told.
    pub async fn end(self) {
        if let Some(exporter) = self.0 {
            exporter.end().await;
        }
    }
}

/// Starts the log on stderr, for verbs that serve, and the spans for a collector, where the settings name one.
///
/// `said` keeps what programs say, for a process whose log nobody keeps.
pub fn start_log(config: &Config, part: &'static str, said: Option<SaidLayer>) -> Result<Telling, Failure> {
    let usage = |error: String| Failure::usage(error);
    let (layer, exporter) = match &config.traces_endpoint {
        None => (None, None),
        Some(endpoint) => {
            let ca = config.tls.load().map_err(|error| usage(error.to_string()))?.ca;
            let endpoint = endpoint.clone();
            let traces = traces::start(TracesConfig { endpoint, ca, part });
            let (layer, exporter) = traces.map_err(|error| usage(error.to_string()))?;
            (Some(layer), Some(exporter))
        }
    };
    telemetry::init(config.log_format, &config.log_level, layer, said).map_err(|error| usage(error.to_string()))?;
    Ok(Telling(exporter))
}

/// Serves metrics and probes, where the settings say so, until the handle is dropped.
pub async fn start_monitor(config: &Config, what: impl Monitored + 'static) -> Result<Option<Monitor>, Failure> {
    let Some(address) = config.metrics_listen else {
        return Ok(None);
    };
    match monitor::open(address, Arc::new(what)).await {
        Ok(monitor) => {
            talk(format_args!("metrics at http://{}/metrics", monitor.address));
            Ok(Some(monitor))
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Failure::new(
            Kind::Conflict,
            format!("{address} is in use; choose another address with --metrics-listen"),
        )),
        Err(error) => Err(Failure::failed(format!("cannot serve metrics on {address}: {error}"))),
    }
}

/// Notes a flag where it was given.
pub fn flag(flags: &mut Flags, setting: Setting, value: Option<impl ToString>) {
    if let Some(value) = value {
        flags.insert(setting, value.to_string());
    }
}

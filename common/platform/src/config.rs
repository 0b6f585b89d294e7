//! Configuration: flag > `GAPLESS_*` variable > config file > default, each value with its origin.
//!
//! Everything here is a function of what it is given, but for [`Layers::of_process`], which reads
//! the environment and the config file. A setting is one row of [`Setting::ALL`] (`setting.rs`); its text becomes a
//! value in `values.rs`.

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    thread,
};

use gapless_common::labels::Labels;

use crate::{
    secret::{PasswordSource, TokenSource},
    telemetry::{self, LogFormat},
    tls::TlsFiles,
};

mod setting;
#[cfg(test)]
mod tests;
mod values;

pub use setting::Setting;

use values::{
    ETCD_QUOTA_MIB, HEARTBEAT_MS, LEADER_TTL_S, LEASE_MS, MAX_MEMORY_PER_SLOT_MIB, MAX_SLOTS, allow_paths,
    cluster_name, etcd_user, folder_or_address, host_and_port, is_loopback, parse, parse_endpoints, parse_file,
    parse_number, parse_path, program_variables, sourced, text, token_source,
};

/// Names the config file, where no flag does.
pub const CONFIG_VARIABLE: &str = "GAPLESS_CONFIG";

/// Looked for in this order when no file is named; having none is fine.
const DEFAULT_FILES: [&str; 2] = ["$HOME/.config/gapless/config.yaml", "/etc/gapless/config.yaml"];

/// A lease must outlast some heartbeats, else one late packet costs a worker its work.
pub const HEARTBEATS_PER_LEASE: u32 = 3;

/// What stands for a file that is not given.
const NONE: &str = "none";

/// Holds a token itself. Not a setting: settings are shown.
pub const TOKEN_VARIABLE: &str = "GAPLESS_TOKEN";

/// Holds the password of etcd's user itself.
pub const ETCD_PASSWORD_VARIABLE: &str = "GAPLESS_ETCD_PASSWORD";

/// Where a coordinator keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    Embedded,
    Etcd,
}

/// Who signs in to etcd, and where the password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdUser {
    pub name: String,
    pub password: PasswordSource,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag(String),
    Variable(String),
    File(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => write!(f, "flag {flag}"),
            Origin::Variable(name) => write!(f, "variable {name}"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("config file {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("config file {}: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("config file {}: unknown setting {name:?}{}; allowed are {}", path.display(), did_you_mean(suggestion), allowed())]
    UnknownSetting {
        path: PathBuf,
        name: String,
        suggestion: Option<&'static str>,
    },
    #[error("{} = {value:?} (from {origin}): {reason}", setting.name())]
    BadValue {
        setting: Setting,
        value: String,
        origin: Origin,
        reason: String,
    },
    #[error(
        "heartbeat_ms = {heartbeat_ms} and lease_ms = {lease_ms}: a lease must last at least {HEARTBEATS_PER_LEASE} heartbeats; raise lease_ms or lower heartbeat_ms"
    )]
    LeaseTooShort { heartbeat_ms: u32, lease_ms: u32 },
    #[error("etcd_user = {user:?}, and no password: give etcd_password_file or GAPLESS_ETCD_PASSWORD")]
    NoEtcdPassword { user: String },
    #[error("there is a password for etcd and nobody to sign in: give etcd_user")]
    NoEtcdUser,
    #[error(
        "{endpoint} has no TLS and is not this machine: the password of etcd_user is not sent there in plain text; write https:// and give etcd_ca"
    )]
    EtcdPasswordInTheClear { endpoint: String },
    #[error("{endpoint} has no TLS, but etcd_ca or etcd_cert is given: write https://")]
    EtcdWithoutTls { endpoint: String },
    #[error("{endpoint} is to be reached with TLS, but no authority is known: give etcd_ca")]
    NoEtcdAuthority { endpoint: String },
}

fn did_you_mean(suggestion: &Option<&'static str>) -> String {
    suggestion.map_or_else(String::new, |name| format!(", did you mean {name:?}?"))
}

fn allowed() -> String {
    Setting::ALL.map(Setting::name).join(", ")
}

/// The layers above the defaults, as texts.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// Only those given on the command line.
    pub flags: BTreeMap<Setting, String>,
    pub variables: BTreeMap<String, String>,
    /// Path and text of the config file.
    pub file: Option<(PathBuf, String)>,
}

impl Layers {
    /// Takes the environment of this process and reads the config file: `named` (by a flag), else
    /// the one that `GAPLESS_CONFIG` names, else the first of the usual places that exists.
    pub fn of_process(flags: BTreeMap<Setting, String>, named: Option<PathBuf>) -> Result<Layers, ConfigError> {
        // Names and values that are no UTF-8 cannot be settings of ours.
        let variables: BTreeMap<String, String> = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let named = named.or_else(|| variables.get(CONFIG_VARIABLE).map(PathBuf::from));
        let file = match named {
            Some(path) => match fs::read_to_string(&path) {
                Ok(text) => Some((path, text)),
                Err(source) => return Err(ConfigError::Unreadable { path, source }),
            },
            None => usual_file(variables.get("HOME"))?,
        };
        Ok(Layers { flags, variables, file })
    }
}

fn usual_file(home: Option<&String>) -> Result<Option<(PathBuf, String)>, ConfigError> {
    for place in DEFAULT_FILES {
        let path = match (place.strip_prefix("$HOME/"), home) {
            (Some(below), Some(home)) => PathBuf::from(home).join(below),
            (Some(_), None) => continue,
            (None, _) => PathBuf::from(place),
        };
        match fs::read_to_string(&path) {
            Ok(text) => return Ok(Some((path, text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        }
    }
    Ok(None)
}

/// The folder of the system for temporary files, as other programs know it.
const TEMPORARY_VARIABLE: &str = "TMPDIR";
const DEFAULT_TEMPORARY: &str = "/tmp";

/// Where a worker puts what its memory does not hold. Where scratch lies, it learns from the coordinator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpillDir {
    /// As configured; `None` for a place that follows from where scratch is.
    pub named: Option<PathBuf>,
    /// Of the system, for all programs.
    pub temporary: PathBuf,
}

/// A setting's text and where it comes from, for `config show --origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced {
    pub setting: Setting,
    pub value: String,
    pub origin: Origin,
}

/// The configuration of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub endpoints: Vec<String>,
    pub listen: SocketAddr,
    pub state_dir: PathBuf,
    /// A folder, or an address of an object store.
    pub scratch: PathBuf,
    pub spill_dir: SpillDir,
    pub slots: u32,
    pub memory_per_slot_mib: u32,
    pub lease_ms: u32,
    pub heartbeat_ms: u32,
    pub tls: TlsFiles,
    /// Where the token that this process shows comes from.
    pub token: TokenSource,
    /// The tokens that a coordinator lets in.
    pub tokens: Option<PathBuf>,
    pub audit_log: Option<PathBuf>,
    /// Folders outside which a worker touches no data; empty for any.
    pub allow_paths: Vec<PathBuf>,
    /// Whether a worker starts programs of jobs.
    pub allow_command: bool,
    /// Variables that programs get although they may hold secrets; `PREFIX*` for all that begin so.
    pub program_variables: Vec<String>,
    /// What a worker says of itself, for steps to ask for.
    pub labels: Labels,
    pub log_format: LogFormat,
    pub log_level: String,
    pub store: StoreKind,
    pub etcd_endpoints: Vec<String>,
    pub etcd_tls: TlsFiles,
    /// As whom a coordinator signs in to etcd; `None` for nobody.
    pub etcd_user: Option<EtcdUser>,
    pub cluster_name: String,
    /// `HOST:PORT`; `None` for the address on which the coordinator serves.
    pub advertise: Option<String>,
    pub leader_ttl_s: u32,
    pub etcd_quota_mib: u32,
    /// Where metrics and probes are served; `None` where they are not.
    pub metrics_listen: Option<SocketAddr>,
    /// Collector of OpenTelemetry that is told of runs and attempts.
    pub traces_endpoint: Option<String>,
    /// One for each setting, in the order of [`Setting::ALL`].
    pub sources: Vec<Sourced>,
    /// What is not wrong but probably not meant, to be logged once telemetry runs.
    pub warnings: Vec<String>,
}

impl Config {
    /// Lays the layers over each other and checks every value, also those of lower layers that win.
    pub fn resolve(layers: &Layers) -> Result<Config, ConfigError> {
        let file = match &layers.file {
            Some((path, text)) => read_file(path, text)?,
            None => BTreeMap::new(),
        };
        let sources: Vec<Sourced> = Setting::ALL.map(|setting| pick(setting, layers, &file)).into();
        let state_dir = parse_path(&sources, Setting::StateDir)?;
        let scratch = match text(&sources, Setting::Scratch) {
            "auto" => state_dir.join("scratch"),
            _ => parse(&sources, Setting::Scratch, folder_or_address)?,
        };
        let spill_dir = SpillDir {
            named: match text(&sources, Setting::SpillDir) {
                "auto" => None,
                _ => Some(parse_path(&sources, Setting::SpillDir)?),
            },
            temporary: layers
                .variables
                .get(TEMPORARY_VARIABLE)
                .filter(|path| !path.is_empty())
                .map_or_else(|| PathBuf::from(DEFAULT_TEMPORARY), PathBuf::from),
        };
        let slots = match text(&sources, Setting::Slots) {
            "auto" => processors(),
            _ => parse_number(&sources, Setting::Slots, 1..=MAX_SLOTS)?,
        };
        let tls = TlsFiles {
            ca: parse_file(&sources, Setting::TlsCa)?,
            cert: parse_file(&sources, Setting::TlsCert)?,
            key: parse_file(&sources, Setting::TlsKey)?,
        };
        let scheme = if tls.is_empty() { "http" } else { "https" };
        let etcd_tls = TlsFiles {
            ca: parse_file(&sources, Setting::EtcdCa)?,
            cert: parse_file(&sources, Setting::EtcdCert)?,
            key: parse_file(&sources, Setting::EtcdKey)?,
        };
        let etcd_scheme = if etcd_tls.is_empty() { "http" } else { "https" };
        let config = Config {
            endpoints: parse_endpoints(&sources, Setting::Endpoints, scheme, &["http", "https"])?,
            listen: parse(&sources, Setting::Listen, |text| {
                text.parse()
                    .map_err(|_| "write an address and a port, such as 127.0.0.1:7070".to_string())
            })?,
            state_dir,
            scratch,
            spill_dir,
            slots,
            memory_per_slot_mib: parse_number(&sources, Setting::MemoryPerSlotMib, 16..=MAX_MEMORY_PER_SLOT_MIB)?,
            lease_ms: parse_number(&sources, Setting::LeaseMs, LEASE_MS)?,
            heartbeat_ms: parse_number(&sources, Setting::HeartbeatMs, HEARTBEAT_MS)?,
            tls,
            token: token_source(&sources, layers)?,
            tokens: parse_file(&sources, Setting::Tokens)?,
            audit_log: parse_file(&sources, Setting::AuditLog)?,
            allow_paths: parse(&sources, Setting::AllowPaths, allow_paths)?,
            allow_command: parse(&sources, Setting::AllowCommand, |text| match text {
                "on" => Ok(true),
                "off" => Ok(false),
                _ => Err("write on or off".to_string()),
            })?,
            program_variables: parse(&sources, Setting::ProgramVariables, program_variables)?,
            labels: parse(&sources, Setting::Labels, |text| match text {
                NONE => Ok(Labels::default()),
                text => Labels::from_str(text).map_err(|error| error.to_string()),
            })?,
            log_format: parse(&sources, Setting::LogFormat, LogFormat::from_str)?,
            log_level: parse(&sources, Setting::LogLevel, |text| {
                telemetry::filter(text)
                    .map(|_| text.to_string())
                    .map_err(|error| error.to_string())
            })?,
            store: parse(&sources, Setting::Store, |text| match text {
                "embedded" => Ok(StoreKind::Embedded),
                "etcd" => Ok(StoreKind::Etcd),
                _ => Err("write embedded or etcd".to_string()),
            })?,
            etcd_endpoints: parse_endpoints(&sources, Setting::EtcdEndpoints, etcd_scheme, &["http", "https"])?,
            etcd_user: etcd_user(&sources, layers)?,
            etcd_tls,
            cluster_name: parse(&sources, Setting::ClusterName, cluster_name)?,
            advertise: match text(&sources, Setting::Advertise) {
                "auto" => None,
                _ => Some(parse(&sources, Setting::Advertise, host_and_port)?),
            },
            leader_ttl_s: parse_number(&sources, Setting::LeaderTtlS, LEADER_TTL_S)?,
            etcd_quota_mib: parse_number(&sources, Setting::EtcdQuotaMib, ETCD_QUOTA_MIB)?,
            metrics_listen: parse(&sources, Setting::MetricsListen, |text| match text {
                "off" => Ok(None),
                address => address
                    .parse()
                    .map(Some)
                    .map_err(|_| "write an address and a port, such as 127.0.0.1:9464, or off".to_string()),
            })?,
            traces_endpoint: match text(&sources, Setting::TracesEndpoint) {
                "off" => None,
                _ => parse_endpoints(&sources, Setting::TracesEndpoint, "http", &["http", "https"])?.pop(),
            },
            sources,
            warnings: unknown_variables(&layers.variables),
        };
        if config.heartbeat_ms * HEARTBEATS_PER_LEASE > config.lease_ms {
            let Config {
                heartbeat_ms, lease_ms, ..
            } = config;
            return Err(ConfigError::LeaseTooShort { heartbeat_ms, lease_ms });
        }
        config.check_etcd()?;
        Ok(config)
    }

    /// Whether what goes to etcd goes there as it should.
    fn check_etcd(&self) -> Result<(), ConfigError> {
        for endpoint in self.etcd_endpoints.iter().cloned() {
            let has_tls = endpoint.starts_with("https://");
            let wrong = match (has_tls, &self.etcd_tls, &self.etcd_user) {
                (true, tls, _) if tls.ca.is_none() => ConfigError::NoEtcdAuthority { endpoint },
                (false, tls, _) if !tls.is_empty() => ConfigError::EtcdWithoutTls { endpoint },
                (false, _, Some(_)) if !is_loopback(&endpoint) => ConfigError::EtcdPasswordInTheClear { endpoint },
                _ => continue,
            };
            return Err(wrong);
        }
        Ok(())
    }

    pub fn origin(&self, setting: Setting) -> &Origin {
        &sourced(&self.sources, setting).origin
    }
}

fn processors() -> u32 {
    thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(MAX_SLOTS))
}

/// The settings of a config file as texts: a mapping of scalars, lists for lists.
fn read_file(path: &Path, text: &str) -> Result<BTreeMap<Setting, String>, ConfigError> {
    let malformed = |reason: String| ConfigError::Malformed {
        path: path.to_path_buf(),
        reason,
    };
    // A file of comments alone is an empty one.
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(BTreeMap::new());
    }
    let values: BTreeMap<String, serde_json::Value> =
        serde_saphyr::from_str(text).map_err(|error| malformed(error.to_string()))?;
    let mut settings = BTreeMap::new();
    for (name, value) in values {
        let Some(setting) = Setting::from_name(&name) else {
            let suggestion = nearest(&name, &Setting::ALL.map(Setting::name));
            return Err(ConfigError::UnknownSetting {
                path: path.to_path_buf(),
                name,
                suggestion,
            });
        };
        let value = as_text(&value).ok_or_else(|| {
            malformed(format!(
                "{name}: write a text, a number, or a list of texts, not {value}"
            ))
        })?;
        settings.insert(setting, value);
    }
    Ok(settings)
}

fn as_text(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Array(items) => items
            .iter()
            .map(as_text)
            .collect::<Option<Vec<_>>>()
            .map(|all| all.join(",")),
        // What YAML 1.1 makes of the word `off`, which is a value of ours.
        serde_json::Value::Bool(false) => Some("off".to_string()),
        serde_json::Value::Null | serde_json::Value::Bool(true) | serde_json::Value::Object(_) => None,
    }
}

/// The name that was probably meant: at most a third of its letters are different.
fn nearest(name: &str, names: &[&'static str]) -> Option<&'static str> {
    let distance = |known: &str| strsim::damerau_levenshtein(name, known);
    names
        .iter()
        .copied()
        .min_by_key(|known| distance(known))
        .filter(|known| distance(known) * 3 <= known.len())
}

/// Variables of ours that mean nothing but look like a setting misspelt. Others (`GAPLESS_…` of
/// wrappers and tests) are not our business.
fn unknown_variables(variables: &BTreeMap<String, String>) -> Vec<String> {
    variables
        .keys()
        .filter_map(|name| {
            let rest = name.strip_prefix("GAPLESS_")?.to_ascii_lowercase();
            if Setting::from_name(&rest).is_some()
                || [TOKEN_VARIABLE, ETCD_PASSWORD_VARIABLE, CONFIG_VARIABLE].contains(&name.as_str())
            {
                return None;
            }
            let meant = Setting::from_name(nearest(&rest, &Setting::ALL.map(Setting::name))?)?;
            Some(format!(
                "variable {name} is not a setting and is ignored; did you mean {}?",
                meant.variable()
            ))
        })
        .collect()
}

fn pick(setting: Setting, layers: &Layers, file: &BTreeMap<Setting, String>) -> Sourced {
    let (value, origin) = if let Some(value) = layers.flags.get(&setting) {
        (value.clone(), Origin::Flag(setting.flag()))
    } else if let Some(value) = layers.variables.get(&setting.variable()) {
        (value.clone(), Origin::Variable(setting.variable()))
    } else if let (Some(value), Some((path, _))) = (file.get(&setting), &layers.file) {
        (value.clone(), Origin::File(path.clone()))
    } else {
        (setting.default_text().to_string(), Origin::Default)
    };
    Sourced { setting, value, origin }
}

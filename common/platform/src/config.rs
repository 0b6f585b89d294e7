//! Configuration: flag > `GAPLESS_*` variable > config file > default, each value with its origin.
//!
//! Everything here is a function of what it is given, but for [`Layers::of_process`], which reads
//! the environment and the config file. A setting is one row of [`Setting::ALL`].

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    thread,
};

use gapless_common::{
    address::{ObjectUrl, is_url},
    labels::Labels,
};

use crate::{
    objects::{ObjectError, is_built},
    secret::{PasswordSource, Secret, TokenSource},
    telemetry::{self, LogFormat},
    tls::TlsFiles,
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

const MAX_SLOTS: u32 = 1024;
const MAX_MEMORY_PER_SLOT_MIB: u32 = 1024 * 1024;
/// Below, a busy machine's scheduling ends leases; above, a lost worker is missed for too long.
const LEASE_MS: std::ops::RangeInclusive<u32> = 200..=600_000;
const HEARTBEAT_MS: std::ops::RangeInclusive<u32> = 20..=200_000;
/// etcd grants no shorter lease; above, a dead leader is missed for too long.
const LEADER_TTL_S: std::ops::RangeInclusive<u32> = 2..=600;
/// etcd itself advises against more than 8 GiB.
const ETCD_QUOTA_MIB: std::ops::RangeInclusive<u32> = 16..=64 * 1024;
const MAX_CLUSTER_NAME: usize = 64;

/// What can be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    Endpoints,
    Listen,
    StateDir,
    Scratch,
    SpillDir,
    Slots,
    MemoryPerSlotMib,
    LeaseMs,
    HeartbeatMs,
    TlsCa,
    TlsCert,
    TlsKey,
    TokenFile,
    Tokens,
    AuditLog,
    AllowPaths,
    AllowCommand,
    ProgramVariables,
    Labels,
    LogFormat,
    LogLevel,
    Store,
    EtcdEndpoints,
    EtcdCa,
    EtcdCert,
    EtcdKey,
    EtcdUser,
    EtcdPasswordFile,
    ClusterName,
    Advertise,
    LeaderTtlS,
    EtcdQuotaMib,
    MetricsListen,
    TracesEndpoint,
}

impl Setting {
    pub const ALL: [Setting; 34] = [
        Setting::Endpoints,
        Setting::Listen,
        Setting::StateDir,
        Setting::Scratch,
        Setting::SpillDir,
        Setting::Slots,
        Setting::MemoryPerSlotMib,
        Setting::LeaseMs,
        Setting::HeartbeatMs,
        Setting::TlsCa,
        Setting::TlsCert,
        Setting::TlsKey,
        Setting::TokenFile,
        Setting::Tokens,
        Setting::AuditLog,
        Setting::AllowPaths,
        Setting::AllowCommand,
        Setting::ProgramVariables,
        Setting::Labels,
        Setting::LogFormat,
        Setting::LogLevel,
        Setting::Store,
        Setting::EtcdEndpoints,
        Setting::EtcdCa,
        Setting::EtcdCert,
        Setting::EtcdKey,
        Setting::EtcdUser,
        Setting::EtcdPasswordFile,
        Setting::ClusterName,
        Setting::Advertise,
        Setting::LeaderTtlS,
        Setting::EtcdQuotaMib,
        Setting::MetricsListen,
        Setting::TracesEndpoint,
    ];

    /// The name in the config file.
    pub fn name(self) -> &'static str {
        match self {
            Setting::Endpoints => "endpoints",
            Setting::Listen => "listen",
            Setting::StateDir => "state_dir",
            Setting::Scratch => "scratch",
            Setting::SpillDir => "spill_dir",
            Setting::Slots => "slots",
            Setting::MemoryPerSlotMib => "memory_per_slot_mib",
            Setting::LeaseMs => "lease_ms",
            Setting::HeartbeatMs => "heartbeat_ms",
            Setting::TlsCa => "tls_ca",
            Setting::TlsCert => "tls_cert",
            Setting::TlsKey => "tls_key",
            Setting::TokenFile => "token_file",
            Setting::Tokens => "tokens",
            Setting::AuditLog => "audit_log",
            Setting::AllowPaths => "allow_paths",
            Setting::AllowCommand => "allow_command",
            Setting::ProgramVariables => "program_variables",
            Setting::Labels => "labels",
            Setting::LogFormat => "log_format",
            Setting::LogLevel => "log_level",
            Setting::Store => "store",
            Setting::EtcdEndpoints => "etcd_endpoints",
            Setting::EtcdCa => "etcd_ca",
            Setting::EtcdCert => "etcd_cert",
            Setting::EtcdKey => "etcd_key",
            Setting::EtcdUser => "etcd_user",
            Setting::EtcdPasswordFile => "etcd_password_file",
            Setting::ClusterName => "cluster_name",
            Setting::Advertise => "advertise",
            Setting::LeaderTtlS => "leader_ttl_s",
            Setting::EtcdQuotaMib => "etcd_quota_mib",
            Setting::MetricsListen => "metrics_listen",
            Setting::TracesEndpoint => "traces_endpoint",
        }
    }

    /// What it is for, with its unit, for `--help` and `config show`.
    pub fn about(self) -> &'static str {
        match self {
            Setting::Endpoints => "coordinators to speak to, as URLs joined by commas",
            Setting::Listen => "address on which a coordinator serves",
            Setting::StateDir => "folder of the embedded store",
            Setting::Scratch => {
                "folder for exchange files and staged data, shared by all workers, or an address in an object store; `auto` is scratch in the state folder"
            }
            Setting::SpillDir => {
                "folder of one machine for what a worker's memory does not hold; `auto` is spill in the scratch folder or, where that is in an object store, a folder of this user in TMPDIR"
            }
            Setting::Slots => "tasks a worker runs at a time; `auto` is one for each processor",
            Setting::MemoryPerSlotMib => "memory for the data of one task, in MiB",
            Setting::LeaseMs => "silence after which a worker's tasks are given to others, in milliseconds",
            Setting::HeartbeatMs => "time between a worker's heartbeats, in milliseconds",
            Setting::TlsCa => "PEM file of the authority that the other side's certificate must come from",
            Setting::TlsCert => "PEM file of this side's certificate",
            Setting::TlsKey => "PEM file of the private key of tls_cert",
            Setting::TokenFile => {
                "file with the token that a client or worker shows; GAPLESS_TOKEN holds the token itself"
            }
            Setting::Tokens => "YAML file of the tokens that a coordinator lets in",
            Setting::AuditLog => "file to which a coordinator appends who did what, as JSON lines",
            Setting::AllowPaths => "folders outside which a worker touches no data, joined by commas",
            Setting::AllowCommand => {
                "whether a worker starts the programs of jobs (transform.command): on or off; `gapless run` does unless it is set"
            }
            Setting::ProgramVariables => {
                "variables of a worker's environment that the programs of jobs get although they may hold secrets, joined by commas; a name may end in *"
            }
            Setting::Labels => "labels of a worker that steps may ask for, NAME=VALUE joined by commas",
            Setting::LogFormat => "compact or json",
            Setting::LogLevel => "error, warn, info, debug, trace, or target=level parts joined by commas",
            Setting::Store => {
                "where a coordinator keeps its state: embedded (a folder, one coordinator) or etcd (any number of coordinators)"
            }
            Setting::EtcdEndpoints => "members of etcd, as URLs joined by commas",
            Setting::EtcdCa => "PEM file of the authority that etcd's certificates must come from",
            Setting::EtcdCert => "PEM file of the certificate that a coordinator shows to etcd",
            Setting::EtcdKey => "PEM file of the private key of etcd_cert",
            Setting::EtcdUser => "name of the user as which a coordinator signs in to etcd",
            Setting::EtcdPasswordFile => {
                "file with the password of etcd_user; GAPLESS_ETCD_PASSWORD holds the password itself"
            }
            Setting::ClusterName => {
                "name under which this cluster keeps its keys in etcd; every coordinator has the same"
            }
            Setting::Advertise => {
                "HOST:PORT at which workers and clients reach this coordinator; `auto` is the address on which it serves"
            }
            Setting::LeaderTtlS => "silence of the leading coordinator after which another one leads, in seconds",
            Setting::EtcdQuotaMib => "etcd's --quota-backend-bytes in MiB, for versions that do not tell it",
            Setting::TracesEndpoint => {
                "OpenTelemetry collector (OTLP over gRPC) that is told of runs and attempts; or `off`"
            }
            Setting::MetricsListen => "address for /metrics, /healthz and /readyz of a coordinator or worker; or `off`",
        }
    }

    pub fn default_text(self) -> &'static str {
        match self {
            Setting::Endpoints => "127.0.0.1:7070",
            Setting::Listen => "127.0.0.1:7070",
            Setting::StateDir => ".gapless",
            Setting::Scratch | Setting::SpillDir => "auto",
            Setting::Slots => "auto",
            Setting::MemoryPerSlotMib => "512",
            Setting::LeaseMs => "5000",
            Setting::HeartbeatMs => "1000",
            Setting::TlsCa | Setting::TlsCert | Setting::TlsKey => NONE,
            Setting::TokenFile | Setting::Tokens | Setting::AuditLog => NONE,
            Setting::AllowPaths => "any",
            Setting::AllowCommand => "off",
            Setting::ProgramVariables => NONE,
            Setting::Labels => NONE,
            Setting::LogFormat => "compact",
            Setting::LogLevel => "info",
            Setting::Store => "embedded",
            Setting::EtcdEndpoints => "http://127.0.0.1:2379",
            Setting::EtcdCa | Setting::EtcdCert | Setting::EtcdKey => NONE,
            Setting::EtcdUser | Setting::EtcdPasswordFile => NONE,
            Setting::ClusterName => "default",
            Setting::Advertise => "auto",
            Setting::LeaderTtlS => "10",
            Setting::EtcdQuotaMib => "2048",
            Setting::MetricsListen | Setting::TracesEndpoint => "off",
        }
    }

    /// `GAPLESS_LEASE_MS`.
    pub fn variable(self) -> String {
        format!("GAPLESS_{}", self.name().to_ascii_uppercase())
    }

    /// `--lease-ms`.
    pub fn flag(self) -> String {
        format!("--{}", self.name().replace('_', "-"))
    }

    pub fn from_name(name: &str) -> Option<Setting> {
        Setting::ALL.into_iter().find(|setting| setting.name() == name)
    }
}

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

fn sourced(sources: &[Sourced], setting: Setting) -> &Sourced {
    // `sources` is made from `Setting::ALL`, whose order is that of the enum.
    &sources[setting as usize]
}

fn text(sources: &[Sourced], setting: Setting) -> &str {
    sourced(sources, setting).value.trim()
}

fn parse<T>(
    sources: &[Sourced],
    setting: Setting,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, ConfigError> {
    read(text(sources, setting)).map_err(|reason| {
        let Sourced { value, origin, .. } = sourced(sources, setting).clone();
        ConfigError::BadValue {
            setting,
            value,
            origin,
            reason,
        }
    })
}

fn parse_number(
    sources: &[Sourced],
    setting: Setting,
    allowed: std::ops::RangeInclusive<u32>,
) -> Result<u32, ConfigError> {
    parse(sources, setting, |text| {
        text.parse()
            .ok()
            .filter(|number| allowed.contains(number))
            .ok_or_else(|| {
                format!(
                    "write a whole number from {} to {}: {}",
                    allowed.start(),
                    allowed.end(),
                    setting.about()
                )
            })
    })
}

fn parse_path(sources: &[Sourced], setting: Setting) -> Result<PathBuf, ConfigError> {
    parse(sources, setting, |text| match text {
        "" => Err("write the path of a folder".to_string()),
        path if is_url(path) => {
            Err("write the path of a folder: object stores hold sources, sinks and scratch, not this".to_string())
        }
        path => Ok(PathBuf::from(path)),
    })
}

fn folder_or_address(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("write the path of a folder, or an address, such as s3://bucket/scratch".to_string()),
        address if is_url(address) => match address.parse::<ObjectUrl>() {
            Ok(url) if !is_built(url.scheme) => Err(ObjectError::not_built(url.scheme, &url).message),
            Ok(url) => Ok(PathBuf::from(url.to_string())),
            Err(why) => Err(format!("the address {why}; write s3://bucket/scratch")),
        },
        path => Ok(PathBuf::from(path)),
    }
}

fn cluster_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.len() {
        1..=MAX_CLUSTER_NAME if text.chars().all(allowed) => Ok(text.to_string()),
        _ => Err(format!(
            "write up to {MAX_CLUSTER_NAME} letters, digits, dashes, dots and underscores"
        )),
    }
}

fn host_and_port(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let host = host.unwrap_or(text);
    match host.rsplit_once(':') {
        Some((name, port))
            if !name.is_empty() && !name.contains('/') && port.parse().is_ok_and(|port: u16| port > 0) =>
        {
            Ok(host.to_string())
        }
        _ => Err("write HOST:PORT, such as coordinator-1:7070".to_string()),
    }
}

/// A file that may be left out.
fn parse_file(sources: &[Sourced], setting: Setting) -> Result<Option<PathBuf>, ConfigError> {
    parse(sources, setting, |text| match text {
        "" => Err(format!("write the path of a file, or {NONE}")),
        NONE => Ok(None),
        path => Ok(Some(PathBuf::from(path))),
    })
}

/// A file named by flag or variable, then the variable with the token, then the configuration file.
fn token_source(sources: &[Sourced], layers: &Layers) -> Result<TokenSource, ConfigError> {
    let file = parse_file(sources, Setting::TokenFile)?;
    let near = matches!(
        sourced(sources, Setting::TokenFile).origin,
        Origin::Flag(_) | Origin::Variable(_)
    );
    let given = layers.variables.get(TOKEN_VARIABLE).filter(|token| !token.is_empty());
    Ok(match (file, given) {
        (Some(file), _) if near => TokenSource::File(file),
        (_, Some(token)) => TokenSource::Given(Secret::new(token.trim())),
        (Some(file), None) => TokenSource::File(file),
        (None, None) => TokenSource::None,
    })
}

fn etcd_user(sources: &[Sourced], layers: &Layers) -> Result<Option<EtcdUser>, ConfigError> {
    let name = match text(sources, Setting::EtcdUser) {
        NONE | "" => None,
        name => Some(name.to_string()),
    };
    let file = parse_file(sources, Setting::EtcdPasswordFile)?;
    let given = layers
        .variables
        .get(ETCD_PASSWORD_VARIABLE)
        .filter(|text| !text.is_empty());
    let near = matches!(
        sourced(sources, Setting::EtcdPasswordFile).origin,
        Origin::Flag(_) | Origin::Variable(_)
    );
    let password = match (file, given) {
        (Some(file), _) if near => Some(PasswordSource::File(file)),
        (_, Some(text)) => Some(PasswordSource::Given(Secret::new(text))),
        (Some(file), None) => Some(PasswordSource::File(file)),
        (None, None) => None,
    };
    match (name, password) {
        (Some(name), Some(password)) => Ok(Some(EtcdUser { name, password })),
        (Some(user), None) => Err(ConfigError::NoEtcdPassword { user }),
        (None, Some(_)) => Err(ConfigError::NoEtcdUser),
        (None, None) => Ok(None),
    }
}

/// Whether a URL without TLS names this machine, whatever the resolver says.
fn is_loopback(endpoint: &str) -> bool {
    let host = endpoint
        .trim_start_matches("http://")
        .split('/')
        .next()
        .unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn allow_paths(text: &str) -> Result<Vec<PathBuf>, String> {
    if text == "any" {
        return Ok(Vec::new());
    }
    let paths = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let paths: Vec<PathBuf> = paths.map(PathBuf::from).collect();
    let usable = |path: &Path| path.is_absolute() || path.to_str().is_some_and(is_url);
    match paths.iter().find(|path| !usable(path)) {
        Some(path) => Err(format!(
            "{}: write absolute paths, such as /srv/data, or addresses, such as s3://bucket/data",
            path.display()
        )),
        // Nothing allowed would be a worker that can do nothing: surely a slip.
        None if paths.is_empty() => Err("write at least one absolute path, or any".to_string()),
        None => Ok(paths),
    }
}

/// Names of variables, some with a `*` at their end.
fn program_variables(text: &str) -> Result<Vec<String>, String> {
    if text == NONE {
        return Ok(Vec::new());
    }
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_string()).collect();
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match names
        .iter()
        .find(|name| *name != "*" && !is_name(name.strip_suffix('*').unwrap_or(name)))
    {
        Some(name) => Err(format!(
            "{name:?} is no name of a variable: write such as AWS_*,MODEL_TOKEN, or {NONE}"
        )),
        None => match names.iter().find(|name| name.starts_with("GAPLESS_")) {
            Some(name) => Err(format!("{name} is a setting of Gapless, which no program gets")),
            None => Ok(names),
        },
    }
}

/// URLs of these schemes; `scheme` is the one of those that name none.
fn parse_endpoints(
    sources: &[Sourced],
    setting: Setting,
    scheme: &str,
    schemes: &[&str],
) -> Result<Vec<String>, ConfigError> {
    parse(sources, setting, |text| {
        let endpoints: Vec<String> = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| with_scheme(part, scheme))
            .collect();
        let known = |endpoint: &&String| {
            let parts = endpoint.split_once("://");
            parts.is_some_and(|(scheme, _)| schemes.contains(&scheme))
        };
        match endpoints.iter().find(|endpoint| !known(endpoint)) {
            Some(bad) => {
                let forms: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://HOST:PORT")).collect();
                Err(format!("{bad}: write {}", forms.join(" or ")))
            }
            None if endpoints.is_empty() => Err(format!("write at least one, such as {}", setting.default_text())),
            None => Ok(endpoints),
        }
    })
}

fn with_scheme(endpoint: &str, scheme: &str) -> String {
    if endpoint.contains("://") {
        endpoint.to_string()
    } else {
        format!("{scheme}://{endpoint}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(flags: &[(Setting, &str)], variables: &[(&str, &str)], file: Option<&str>) -> Layers {
        Layers {
            flags: flags
                .iter()
                .map(|(setting, value)| (*setting, value.to_string()))
                .collect(),
            variables: variables
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            file: file.map(|text| (PathBuf::from("conf.yaml"), text.to_string())),
        }
    }

    #[test]
    fn settings_stand_in_the_order_of_their_enum() {
        for (index, setting) in Setting::ALL.into_iter().enumerate() {
            assert_eq!(setting as usize, index, "{setting:?}");
        }
    }

    #[test]
    fn defaults_are_valid() {
        let config = Config::resolve(&Layers::default()).expect("the defaults");
        assert_eq!(config.endpoints, ["http://127.0.0.1:7070"]);
        assert_eq!(config.scratch, PathBuf::from(".gapless/scratch"));
        assert!(config.slots >= 1);
        assert_eq!(config.metrics_listen, None);
        assert!(config.sources.iter().all(|sourced| sourced.origin == Origin::Default));
    }

    #[test]
    fn the_nearest_layer_wins_and_says_so() {
        let file = "slots: 3\nlease_ms: 9000\nlog_level: debug\nendpoints: [a:1, 'http://b:2']\n";
        let variables = [("GAPLESS_SLOTS", "4"), ("GAPLESS_LEASE_MS", "8000")];
        let config = Config::resolve(&layers(&[(Setting::Slots, "5")], &variables, Some(file))).expect("valid");
        assert_eq!(
            (config.slots, config.lease_ms, config.log_level.as_str()),
            (5, 8000, "debug")
        );
        assert_eq!(config.endpoints, ["http://a:1", "http://b:2"]);
        let origins = [
            Setting::Slots,
            Setting::LeaseMs,
            Setting::LogLevel,
            Setting::HeartbeatMs,
        ]
        .map(|setting| config.origin(setting).to_string());
        assert_eq!(
            origins,
            ["flag --slots", "variable GAPLESS_LEASE_MS", "file conf.yaml", "default"]
        );
    }

    #[test]
    fn scratch_is_a_folder_or_an_address_and_what_is_spilled_a_folder() {
        let file = "scratch: s3://lake/scratch/\nspill_dir: /fast\n";
        let config = Config::resolve(&layers(&[], &[("TMPDIR", "/var/tmp")], Some(file)));
        // Which stores there are is a matter of the build.
        if is_built(gapless_common::address::Scheme::S3) {
            let config = config.expect("valid");
            assert_eq!(config.scratch, PathBuf::from("s3://lake/scratch"));
            let spill = SpillDir {
                named: Some("/fast".into()),
                temporary: "/var/tmp".into(),
            };
            assert_eq!(config.spill_dir, spill);
        } else {
            let error = config.expect_err("not built").to_string();
            assert!(error.contains("cargo feature s3"), "{error}");
        }
        assert_eq!(
            Config::resolve(&Layers::default()).expect("defaults").spill_dir,
            SpillDir {
                named: None,
                temporary: "/tmp".into()
            }
        );
        for (setting, value, words) in [
            (Setting::Scratch, "ftp://lake/scratch", "known are s3://"),
            (Setting::Scratch, "", "s3://bucket/scratch"),
            (Setting::SpillDir, "s3://lake/spill", "write the path of a folder"),
            (Setting::StateDir, "s3://lake/state", "write the path of a folder"),
        ] {
            let error = Config::resolve(&layers(&[(setting, value)], &[], None)).expect_err("refused");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn mistakes_are_told_with_place_and_remedy() {
        let check = |layers: Layers, words: &[&str]| {
            let error = Config::resolve(&layers).expect_err("a mistake").to_string();
            for word in words {
                assert!(error.contains(word), "{error}\nlacks {word}");
            }
        };
        check(
            layers(&[], &[], Some("slot: 3")),
            &["conf.yaml", "\"slot\"", "did you mean \"slots\"?"],
        );
        check(
            layers(&[], &[], Some("slots: {a: 1}")),
            &["conf.yaml", "slots", "a number"],
        );
        check(layers(&[], &[], Some("slots: [1")), &["conf.yaml", "line 1"]);
        check(
            layers(&[(Setting::Slots, "0")], &[], None),
            &["slots = \"0\"", "flag --slots", "from 1 to 1024"],
        );
        check(
            layers(&[], &[("GAPLESS_LISTEN", "here")], None),
            &["variable GAPLESS_LISTEN", "127.0.0.1:7070"],
        );
        check(
            layers(&[], &[], Some("metrics_listen: 9464")),
            &["file conf.yaml", "127.0.0.1:9464, or off"],
        );
        check(
            layers(&[], &[("GAPLESS_LOG_FORMAT", "xml")], None),
            &["compact and json"],
        );
        check(
            layers(&[], &[("GAPLESS_ENDPOINTS", "ftp://a:1")], None),
            &["ftp://a:1", "http://HOST:PORT"],
        );
        check(
            layers(&[(Setting::Store, "zookeeper")], &[], None),
            &["flag --store", "embedded or etcd"],
        );
        check(
            layers(&[], &[("GAPLESS_ETCD_ENDPOINTS", " , ")], None),
            &["GAPLESS_ETCD_ENDPOINTS", "http://127.0.0.1:2379"],
        );
        check(
            layers(&[(Setting::ClusterName, "a/b")], &[], None),
            &["cluster_name", "dashes"],
        );
        check(
            layers(&[(Setting::Advertise, "here")], &[], None),
            &["advertise", "coordinator-1:7070"],
        );
        check(layers(&[(Setting::LeaderTtlS, "1")], &[], None), &["from 2 to 600"]);
        check(
            layers(&[(Setting::HeartbeatMs, "2000")], &[], None),
            &["heartbeat_ms = 2000", "lease_ms = 5000"],
        );
    }

    #[test]
    fn endpoints_without_a_scheme_follow_tls() {
        let file = "endpoints: ['a:1', 'http://b:2', 'https://c:3']\n";
        let plain = Config::resolve(&layers(&[], &[], Some(file))).expect("valid");
        assert_eq!(plain.endpoints, ["http://a:1", "http://b:2", "https://c:3"]);
        let with_ca = [("GAPLESS_TLS_CA", "ca.pem")];
        let config = Config::resolve(&layers(&[], &with_ca, Some(file))).expect("valid");
        assert_eq!(config.endpoints, ["https://a:1", "http://b:2", "https://c:3"]);
        let config = Config::resolve(&layers(&[], &with_ca, None)).expect("valid");
        assert_eq!(config.endpoints, ["https://127.0.0.1:7070"]);
    }

    #[test]
    fn the_nearest_token_is_shown_and_never_printed() {
        let source = |layers: Layers| Config::resolve(&layers).expect("valid").token;
        let file = |path: &str| TokenSource::File(PathBuf::from(path));
        let given = TokenSource::Given(Secret::new("s3cret"));
        let token = ("GAPLESS_TOKEN", "s3cret");
        assert_eq!(source(layers(&[], &[], None)), TokenSource::None);
        assert_eq!(source(layers(&[], &[token], Some("token_file: f"))), given);
        assert_eq!(source(layers(&[], &[], Some("token_file: f"))), file("f"));
        assert_eq!(
            source(layers(&[], &[token, ("GAPLESS_TOKEN_FILE", "v")], None)),
            file("v")
        );
        assert_eq!(source(layers(&[(Setting::TokenFile, "w")], &[token], None)), file("w"));

        let config = Config::resolve(&layers(&[], &[token], None)).expect("valid");
        assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }

    #[test]
    fn variables_for_programs_are_named() {
        let read = |text: &str| Config::resolve(&layers(&[(Setting::ProgramVariables, text)], &[], None));
        assert!(read("none").expect("valid").program_variables.is_empty());
        let config = read("AWS_*, MODEL_TOKEN,*").expect("valid");
        assert_eq!(config.program_variables, ["AWS_*", "MODEL_TOKEN", "*"]);
        for (bad, words) in [
            ("A B", "no name of a variable"),
            ("A*B", "no name of a variable"),
            ("", "no name of a variable"),
            ("A,,B", "no name of a variable"),
            ("GAPLESS_TOKEN", "no program gets"),
        ] {
            let error = read(bad).expect_err("refused").to_string();
            assert!(error.contains(words), "{bad:?}: {error}");
        }
    }

    #[test]
    fn allowed_paths_are_absolute() {
        let read = |text: &str| Config::resolve(&layers(&[(Setting::AllowPaths, text)], &[], None));
        assert!(read("any").expect("valid").allow_paths.is_empty());
        let config = read("/srv/a, /srv/b").expect("valid");
        assert_eq!(config.allow_paths, [PathBuf::from("/srv/a"), PathBuf::from("/srv/b")]);
        for bad in ["data", "/srv/a,data", "", " , "] {
            let error = read(bad).expect_err("refused").to_string();
            assert!(error.contains("absolute path"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_misspelt_variable_is_told() {
        let variables = [
            ("GAPLESS_SLOT", "4"),
            ("GAPLESS_SLOTS", "2"),
            ("GAPLESS_TEST_SEED", "1"),
            ("SLOT", "9"),
        ];
        let config = Config::resolve(&layers(&[], &variables, None)).expect("valid");
        assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
        assert!(config.warnings[0].contains("GAPLESS_SLOTS"));
    }

    #[test]
    fn a_named_file_must_exist_and_comments_are_no_settings() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.yaml");
        let error = Layers::of_process(BTreeMap::new(), Some(path.clone())).expect_err("no file");
        assert!(error.to_string().contains("config.yaml"), "{error}");
        for text in ["# nothing yet\n", "metrics_listen: off\n"] {
            fs::write(&path, text).expect("written");
            let layers = Layers::of_process(BTreeMap::new(), Some(path.clone())).expect("a file");
            let config = Config::resolve(&layers).expect("valid");
            assert_eq!(config.metrics_listen, None);
        }
    }

    #[test]
    fn etcd_is_reached_with_tls_or_here_and_its_password_is_never_in_the_clear() {
        let resolve = |flags: &[(Setting, &str)], variables: &[(&str, &str)]| {
            Config::resolve(&layers(flags, variables, None)).map_err(|error| error.to_string())
        };
        let (at, user, ca) = (Setting::EtcdEndpoints, Setting::EtcdUser, Setting::EtcdCa);
        let password = ("GAPLESS_ETCD_PASSWORD", "s3cret word");
        let config = resolve(&[(user, "sales")], &[password]).expect("on this machine");
        assert_eq!(config.warnings, Vec::<String>::new());
        assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
        assert_eq!(
            config.etcd_user.expect("a user").password.read().expect("a password"),
            Secret::new("s3cret word")
        );
        let config = resolve(&[(at, "etcd-1:2379"), (user, "sales"), (ca, "/ca.pem")], &[password]).expect("with TLS");
        assert_eq!(config.etcd_endpoints, ["https://etcd-1:2379"]);
        type Flags<'a> = &'a [(Setting, &'a str)];
        type Variables<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Flags<'_>, Variables<'_>, &str); 6] = [
            (
                &[(at, "http://etcd-1:2379"), (user, "sales")],
                &[password],
                "not sent there in plain text",
            ),
            (
                &[(at, "http://127.0.0.1.example:1"), (user, "sales")],
                &[password],
                "in plain text",
            ),
            (&[(at, "http://127.0.0.1:2379"), (ca, "/ca.pem")], &[], "write https://"),
            (&[(at, "https://etcd-1:2379")], &[], "give etcd_ca"),
            (&[(user, "sales")], &[], "GAPLESS_ETCD_PASSWORD"),
            (&[], &[password], "give etcd_user"),
        ];
        for (flags, variables, words) in cases {
            let said = resolve(flags, variables).expect_err(words);
            assert!(
                said.contains(words) && !said.contains("s3cret"),
                "{words:?} is not in: {said}"
            );
        }
    }
}

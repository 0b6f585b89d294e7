//! What can be configured: a row each of name, default and meaning.

use super::NONE;

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

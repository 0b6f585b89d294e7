//! `gapless coordinator`: a coordinator of a cluster: the only one, with the embedded store, or one of
//! several, with etcd.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use gapless_common::address::is_url;
use gapless_platform::{
    config::{Config, Origin, Setting, StoreKind},
    shutdown::Shutdown,
};
use gapless_proto::access::Pems;

use crate::{
    app::{App, Flags, flag, start_log, start_monitor},
    arguments::{TellingArguments, TlsArguments},
    embedded::{
        Announced, Coordinator, CoordinatorMetrics, CoordinatorSettings, EtcdAccess, EtcdSettings, Security, State,
    },
    failure::{Failure, talk},
    output,
};

/// Open calls get so long to be answered.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub struct Arguments {
    /// Address to serve on; port 0 takes a free one, and the address is printed
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Folder of the embedded store
    #[arg(long, visible_alias = "state-dir", value_name = "DIR")]
    state: Option<PathBuf>,
    /// Folder, or address in an object store, for exchange files and staged data, which every worker must reach
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Silence after which a worker's tasks are given to others, in milliseconds
    #[arg(long, value_name = "MS")]
    lease_ms: Option<u32>,
    /// Time between a worker's heartbeats, in milliseconds
    #[arg(long, value_name = "MS")]
    heartbeat_ms: Option<u32>,
    /// Where the state is kept: embedded (a folder, one coordinator) or etcd (any number of coordinators)
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// Members of etcd, joined by commas
    #[arg(long, value_name = "URLS")]
    etcd_endpoints: Option<String>,
    /// PEM file of the authority that etcd's certificates must come from
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    etcd_ca: Option<PathBuf>,
    /// PEM file of the certificate that is shown to etcd
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    etcd_cert: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    etcd_key: Option<PathBuf>,
    /// User to sign in to etcd
    #[arg(long, value_name = "NAME", help_heading = "Security")]
    etcd_user: Option<String>,
    /// File with the user's password; GAPLESS_ETCD_PASSWORD holds the password itself
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    etcd_password_file: Option<PathBuf>,
    /// Name under which this cluster keeps its keys in etcd; the same for all its coordinators
    #[arg(long, value_name = "NAME")]
    cluster_name: Option<String>,
    /// Where workers and clients reach this coordinator, if not at its listening address
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Silence of the leading coordinator after which another one leads, in seconds
    #[arg(long, value_name = "S")]
    leader_ttl_s: Option<u32>,
    #[command(flatten)]
    telling: TellingArguments,
    #[command(flatten)]
    tls: TlsArguments,
    /// YAML file of the tokens to let in, as `gapless token new` makes them
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    tokens: Option<PathBuf>,
    /// File to which is appended who did what, as JSON lines
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    audit_log: Option<PathBuf>,
    /// Serve other machines although they are not made to show who they are
    #[arg(long, help_heading = "Security")]
    insecure: bool,
}

pub async fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let mut flags = Flags::new();
    flag(&mut flags, Setting::Listen, arguments.listen.as_ref());
    flag(
        &mut flags,
        Setting::StateDir,
        arguments.state.as_ref().map(|path| path.display()),
    );
    flag(
        &mut flags,
        Setting::Scratch,
        arguments.scratch.as_ref().map(|path| path.display()),
    );
    flag(&mut flags, Setting::LeaseMs, arguments.lease_ms);
    flag(&mut flags, Setting::HeartbeatMs, arguments.heartbeat_ms);
    flag(&mut flags, Setting::Store, arguments.store);
    flag(&mut flags, Setting::EtcdEndpoints, arguments.etcd_endpoints);
    for (setting, file) in [
        (Setting::EtcdCa, &arguments.etcd_ca),
        (Setting::EtcdCert, &arguments.etcd_cert),
        (Setting::EtcdKey, &arguments.etcd_key),
        (Setting::EtcdPasswordFile, &arguments.etcd_password_file),
    ] {
        flag(&mut flags, setting, file.as_ref().map(|path| path.display()));
    }
    flag(&mut flags, Setting::EtcdUser, arguments.etcd_user);
    flag(&mut flags, Setting::ClusterName, arguments.cluster_name);
    flag(&mut flags, Setting::Advertise, arguments.advertise);
    flag(&mut flags, Setting::LeaderTtlS, arguments.leader_ttl_s);
    arguments.telling.note(&mut flags);
    arguments.tls.note(&mut flags);
    flag(
        &mut flags,
        Setting::Tokens,
        arguments.tokens.as_ref().map(|path| path.display()),
    );
    flag(
        &mut flags,
        Setting::AuditLog,
        arguments.audit_log.as_ref().map(|path| path.display()),
    );
    let config = app.config(flags)?;
    let state = state(&config)?;
    let telling = start_log(&config, "coordinator", None)?;

    let shutdown = Shutdown::new();
    let signals = follow_signals(&shutdown, GRACE)?;
    let metrics = CoordinatorMetrics::new(app.clock.clone());
    // First: a probe may look while the coordinator starts or stands by.
    let monitor = start_monitor(&config, metrics.clone()).await?;
    let settings = CoordinatorSettings {
        state: state.clone(),
        memory_dir: memory_dir(&config),
        scratch: config.scratch,
        listen: config.listen,
        lease_ms: config.lease_ms,
        heartbeat_ms: config.heartbeat_ms,
        own_workers: false,
        metrics,
        security: Security {
            tls: config.tls,
            tokens: config.tokens,
            audit_log: config.audit_log,
            insecure: arguments.insecure,
        },
    };
    let mut coordinator = Coordinator::start(settings, shutdown.child()).await?;
    let endpoint = coordinator.endpoint();
    let announced = match &state {
        State::Folder(folder) => Some(Announced::write(folder, &endpoint)?),
        State::Etcd(_) => None,
    };
    let reached = coordinator.reached_at(config.advertise.as_deref());
    // Whoever started this with port 0 reads the address here.
    output::print(&format!("{reached}\n"))?;
    let elsewhere = match coordinator.address.ip().is_unspecified() && config.advertise.is_none() {
        true => {
            "; it listens on all addresses: from other machines write this one's name, as --advertise would tell it"
        }
        false => "",
    };
    talk(format_args!(
        "coordinator at {reached}; `gapless worker --endpoint {reached}` joins it{elsewhere}"
    ));
    let ended = tokio::select! {
        ended = coordinator.ended() => ended,
        () = shutdown.draining().cancelled() => coordinator.stop().await,
    };
    drop((signals, announced, monitor));
    telling.end().await;
    ended
}

/// Where a file remembers how far a cluster on etcd has come: in the scratch folder, which its machines share.
/// Where scratch is in an object store, of which a coordinator has no keys, in the state folder that was named.
fn memory_dir(config: &Config) -> Option<PathBuf> {
    if !config.scratch.to_str().is_some_and(is_url) {
        return Some(config.scratch.clone());
    }
    (*config.origin(Setting::StateDir) != Origin::Default).then(|| config.state_dir.clone())
}

fn state(config: &Config) -> Result<State, Failure> {
    if config.store == StoreKind::Embedded {
        return Ok(State::Folder(config.state_dir.clone()));
    }
    if *config.origin(Setting::Scratch) == Origin::Default {
        return Err(Failure::usage(
            "with etcd, say with --scratch where exchange files and staged data lie: a folder that has the same path \
             for all coordinators and workers, or an address in an object store, such as s3://bucket/scratch",
        ));
    }
    Ok(State::Etcd(Box::new(EtcdSettings {
        endpoints: config.etcd_endpoints.clone(),
        access: etcd_access(config)?,
        cluster: config.cluster_name.clone(),
        advertise: config.advertise.clone(),
        leader_ttl: Duration::from_secs(u64::from(config.leader_ttl_s)),
        quota_bytes: u64::from(config.etcd_quota_mib) << 20,
    })))
}

/// What this coordinator shows to etcd, as the settings say.
fn etcd_access(config: &Config) -> Result<EtcdAccess, Failure> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| Failure::usage(format!("{what}: {error}"));
    let material = config.etcd_tls.load();
    let material = material.map_err(|error| wrong("etcd_ca, etcd_cert, etcd_key", &error))?;
    let pems = Pems {
        ca: material.ca,
        identity: material.identity.map(|identity| (identity.cert, identity.key)),
    };
    let user = match &config.etcd_user {
        Some(user) => {
            let password = user
                .password
                .read()
                .map_err(|error| wrong("etcd_password_file", &error))?;
            Some((user.name.clone(), password))
        }
        None => None,
    };
    Ok(EtcdAccess {
        tls: pems.client_tls(),
        user,
    })
}

/// Follows SIGTERM and Ctrl-C as a task that ends with its handle.
pub fn follow_signals(shutdown: &Shutdown, grace: Duration) -> Result<tokio::task::JoinSet<()>, Failure> {
    let follow = shutdown.follow_signals(grace);
    let follow = follow.map_err(|error| Failure::failed(format!("cannot listen to signals: {error}")))?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(follow);
    Ok(tasks)
}

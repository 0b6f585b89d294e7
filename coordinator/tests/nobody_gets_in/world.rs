//! A coordinator on a real socket, certificates for it, and what it put on the record.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use gapless_coordinator::{Security, ServeConfig, Server, StoreConfig, metrics::Metrics, serve};
use gapless_platform::{
    clock::Clock,
    secret::Secret,
    shutdown::Shutdown,
    tls::TlsFiles,
    tokens::{self, Role},
};
use gapless_proto::{
    access::{Access, Pems},
    v1::{self, cluster_client::ClusterClient, jobs_client::JobsClient},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use tonic::{Status, service::interceptor::InterceptedService, transport::Channel};

/// Far above what any wait here takes; only a failing test reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// What hyper says of a call that was still in its queue when the connection ended.
const NEVER_SENT: &str = "operation was canceled: connection closed";
const LOOK: Duration = Duration::from_millis(2);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The log of this process, which the tests share.
pub fn log() -> String {
    let log = log_buffer().lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&log).into_owned()
}

fn log_buffer() -> &'static Arc<Mutex<Vec<u8>>> {
    static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    LOG.get_or_init(|| {
        let log: Arc<Mutex<Vec<u8>>> = Arc::default();
        let copy = Copy(log.clone());
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || copy.clone())
            .init();
        log
    })
}

#[derive(Clone)]
struct Copy(Arc<Mutex<Vec<u8>>>);

impl Write for Copy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Certificate and private key as PEM.
pub type Pair = (Vec<u8>, Vec<u8>);

pub struct Authority {
    pub pem: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem().into_bytes();
        Authority {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    pub fn server(&self) -> Pair {
        self.issue(
            "coordinator",
            ExtendedKeyUsagePurpose::ServerAuth,
            SystemTime::now() + DAY,
        )
    }

    pub fn client(&self, name: &str) -> Pair {
        self.issue(name, ExtendedKeyUsagePurpose::ClientAuth, SystemTime::now() + DAY)
    }

    /// A client's that was good until yesterday.
    pub fn expired(&self, name: &str) -> Pair {
        self.issue(name, ExtendedKeyUsagePurpose::ClientAuth, SystemTime::now() - DAY)
    }

    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose, until: SystemTime) -> Pair {
        let hosts = vec!["localhost".to_string(), "127.0.0.1".to_string()];
        let mut params = CertificateParams::new(hosts).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        params.not_before = (until - 30 * DAY).into();
        params.not_after = until.into();
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }

    /// The serving side of mutual TLS with this authority.
    pub fn files(&self, folder: &Path) -> TlsFiles {
        let (cert, key) = self.server();
        let write = |name: &str, pem: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, pem).expect("written");
            Some(path)
        };
        TlsFiles {
            ca: write("ca.pem", &self.pem),
            cert: write("coordinator.pem", &cert),
            key: write("coordinator.key", &key),
        }
    }
}

pub fn with_certificate(trusted: &Authority, identity: Option<Pair>) -> Access {
    let pems = Pems {
        ca: Some(trusted.pem.clone()),
        identity,
    };
    Access::new(pems, None).expect("good PEM")
}

pub fn with_token(token: &str) -> Access {
    Access::new(Pems::default(), Some(token)).expect("a token")
}

/// A file of tokens, which can be changed.
pub struct TokenFile {
    pub path: PathBuf,
    lines: Mutex<Vec<(String, String)>>,
}

impl TokenFile {
    pub fn new(folder: &Path) -> TokenFile {
        TokenFile {
            path: folder.join("tokens.yaml"),
            lines: Mutex::default(),
        }
    }

    /// Adds a token and gives it.
    pub fn add(&self, name: &str, role: Role, expires: Option<&str>) -> Secret {
        let token = tokens::new_token().expect("random bytes");
        let line = tokens::line_of(&token, name, role, expires);
        self.lines().push((name.to_string(), line));
        self.write();
        token
    }

    pub fn take_out(&self, name: &str) {
        self.lines().retain(|(other, _)| other != name);
        self.write();
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<(String, String)>> {
        self.lines.lock().expect("no test panicked")
    }

    fn write(&self) {
        let lines: String = self.lines().iter().map(|(_, line)| format!("{line}\n")).collect();
        // In one step, as an editor does it.
        let new = self.path.with_extension("new");
        fs::write(&new, format!("tokens:\n{lines}")).expect("written");
        fs::rename(&new, &self.path).expect("renamed");
    }
}

/// A coordinator that serves.
pub struct World {
    _folder: TempDir,
    pub address: SocketAddr,
    url: String,
    audit: PathBuf,
    shutdown: Shutdown,
    server: Option<Server>,
}

impl World {
    pub fn folder() -> TempDir {
        log_buffer();
        tempfile::tempdir().expect("a folder")
    }

    pub async fn start(folder: TempDir, security: Security) -> World {
        let audit = folder.path().join("audit.jsonl");
        let config = ServeConfig {
            store: StoreConfig::Embedded {
                state_dir: folder.path().join("state"),
            },
            scratch: folder.path().join("scratch"),
            memory_dir: None,
            listen: ([127, 0, 0, 1], 0).into(),
            // Workers of these tests send no heartbeats.
            lease_ms: 600_000,
            heartbeat_ms: 200_000,
            workers_died: true,
            metrics: Metrics::new(Clock::system()),
            security: Security {
                audit_log: Some(audit.clone()),
                ..security
            },
        };
        let shutdown = Shutdown::new();
        let server = serve(config, shutdown.clone()).await.expect("it serves");
        World {
            address: server.address,
            url: format!("{}://{}", server.scheme, server.address),
            server: Some(server),
            _folder: folder,
            audit,
            shutdown,
        }
    }

    pub async fn channel(&self, access: &Access) -> Result<Channel, String> {
        let endpoint = access.endpoint(&self.url).map_err(|error| error.to_string())?;
        endpoint.connect().await.map_err(|error| causes(&error))
    }

    pub async fn jobs(&self, access: &Access) -> JobsClient<InterceptedService<Channel, Access>> {
        let channel = self.channel(access).await.expect("connected");
        JobsClient::with_interceptor(channel, access.clone())
    }

    pub async fn cluster(&self, access: &Access) -> ClusterClient<InterceptedService<Channel, Access>> {
        let channel = self.channel(access).await.expect("connected");
        ClusterClient::with_interceptor(channel, access.clone())
    }

    /// Asks for the state of the cluster: the error with all its causes where that fails. Where the
    /// connection was closed before the call was sent, which of its two ends the call hears of is chance:
    /// it is asked again then, as the command line does.
    pub async fn ask(&self, access: &Access) -> Result<v1::ClusterInfo, String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let channel = self.channel(access).await?;
            let mut client = ClusterClient::with_interceptor(channel, access.clone());
            match client.get_cluster(v1::GetClusterRequest {}).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if causes(&status).contains(NEVER_SENT) && Instant::now() < end => {}
                Err(status) => return Err(causes(&status)),
            }
        }
    }

    /// Lines of the audit file so far.
    pub fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.audit).expect("readable");
        // A line is one write, so that none is seen in part.
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// Waits until a line is on the record, from `from` lines on.
    pub async fn told(&self, from: usize, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = || self.audit().into_iter().skip(from).find(|line| is(line));
        wait_for(&format!("{what} on the record"), found, || {
            format!("{:#?}", self.audit())
        })
        .await
    }

    /// A refusal at the door with these words in its reason.
    pub async fn shown_the_door(&self, from: usize, words: &str) -> Value {
        self.told(from, words, |line| {
            line["method"] == "connect"
                && line["outcome"] == "denied"
                && line["reason"].as_str().is_some_and(|reason| reason.contains(words))
        })
        .await
    }

    /// Stops the coordinator: it must end well, whatever it went through.
    pub async fn close(mut self) {
        self.shutdown.stop();
        let server = self.server.take().expect("served");
        let ended = tokio::time::timeout(PATIENCE, server.ended).await;
        let ended = ended.expect("it ends").expect("it did not panic");
        ended.expect("it ends well");
    }
}

/// Waits until `look` gives something.
pub async fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>, shows: impl Fn() -> String) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}: {}", shows());
        tokio::time::sleep(LOOK).await;
    }
}

pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The status that a call was refused with.
pub fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> Status {
    answer.expect_err("refused")
}

//! A real etcd on loopback: one member or several, which can be frozen, killed and started again.

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{Process, wait_for};

/// Names the program, where it is not `etcd` of the search path.
const PROGRAM: &str = "GAPLESS_ETCD";

/// A free port that was found may be taken by another before etcd has it.
const TRIES: u32 = 3;

/// The members of one etcd. They end with this.
pub struct Etcd {
    members: Vec<Member>,
}

struct Member {
    arguments: Vec<String>,
    scheme: &'static str,
    port: u16,
    /// Where its health is told without TLS.
    probe: u16,
    folder: TempDir,
    process: Option<Process>,
}

impl Etcd {
    /// Starts so many members and waits until they serve.
    pub fn start(members: usize) -> Etcd {
        Etcd::start_with(members, None)
    }

    /// The same with TLS for clients, who must show a certificate: `ca.pem`, `server.pem` and `server.key` of
    /// this folder.
    pub fn start_with_tls(members: usize, certificates: &Path) -> Etcd {
        Etcd::start_with(members, Some(certificates))
    }

    fn start_with(members: usize, certificates: Option<&Path>) -> Etcd {
        for _ in 1..TRIES {
            if let Some(etcd) = Etcd::try_start(members, certificates) {
                return etcd;
            }
        }
        Etcd::try_start(members, certificates).expect("etcd ended at its start; are loopback ports free?")
    }

    fn try_start(members: usize, certificates: Option<&Path>) -> Option<Etcd> {
        let ports = free_ports(3 * members);
        let tls: Vec<String> = certificates.map_or(Vec::new(), |folder| {
            let file = |name: &str| folder.join(name).display().to_string();
            let arguments = [
                ("--cert-file", file("server.pem")),
                ("--key-file", file("server.key")),
                ("--trusted-ca-file", file("ca.pem")),
            ];
            let named = arguments
                .into_iter()
                .flat_map(|(name, value)| [name.to_string(), value]);
            // Passwords of tests need not be slow to check.
            let rest = ["--client-cert-auth", "--bcrypt-cost", "4"];
            named.chain(rest.map(str::to_string)).collect()
        });
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let peers: Vec<String> = (0..members)
            .map(|at| format!("m{at}={}", url(ports[members + at])))
            .collect();
        let members = (0..members).map(|at| {
            let folder = tempfile::tempdir().expect("a folder");
            let (client, peer) = (format!("{scheme}://127.0.0.1:{}", ports[at]), url(ports[members + at]));
            let (probe, health) = (ports[2 * members + at], url(ports[2 * members + at]));
            let data = folder.path().join("data").display().to_string();
            let peers = peers.join(",");
            let arguments = [
                ("--name", format!("m{at}").as_str()),
                ("--data-dir", &data),
                ("--listen-client-urls", &client),
                ("--advertise-client-urls", &client),
                ("--listen-peer-urls", &peer),
                ("--initial-advertise-peer-urls", &peer),
                ("--initial-cluster", &peers),
                ("--initial-cluster-state", "new"),
                ("--listen-metrics-urls", &health),
            ]
            .into_iter()
            .flat_map(|(name, value)| [name.to_string(), value.to_string()])
            .chain(tls.clone())
            .collect();
            Member {
                arguments,
                scheme,
                port: ports[at],
                probe,
                folder,
                process: None,
            }
        });
        let mut etcd = Etcd {
            members: members.collect(),
        };
        etcd.members.iter_mut().for_each(Member::spawn);
        for member in &mut etcd.members {
            let served = wait_for("etcd to serve", || {
                if !member.process.as_mut()?.is_running() {
                    return Some(false);
                }
                is_healthy(member.probe).then_some(true)
            });
            if !served {
                return None;
            }
        }
        Some(etcd)
    }

    /// URLs of all members.
    pub fn endpoints(&self) -> Vec<String> {
        let url = |member: &Member| format!("{}://127.0.0.1:{}", member.scheme, member.port);
        self.members.iter().map(url).collect()
    }

    pub fn port(&self, member: usize) -> u16 {
        self.members[member].port
    }

    /// Freezes a member: its connections stay, and it does not answer.
    pub fn freeze(&self, member: usize) {
        self.process(member).freeze();
    }

    pub fn thaw(&self, member: usize) {
        self.process(member).thaw();
    }

    /// Kills a member with SIGKILL.
    pub fn kill(&mut self, member: usize) {
        let killed = self.members[member]
            .process
            .take()
            .is_some_and(|mut process| process.kill());
        assert!(killed, "the member was alive");
    }

    /// Starts a member that was killed, on its data, and waits until it serves.
    pub fn start_again(&mut self, member: usize) {
        let member = &mut self.members[member];
        member.spawn();
        wait_for("etcd to serve again", || is_healthy(member.probe).then_some(()));
    }

    /// The folder of a member's data. Its content may be changed while the member does not run.
    pub fn data(&self, member: usize) -> PathBuf {
        self.members[member].folder.path().join("data")
    }

    fn process(&self, member: usize) -> &Process {
        self.members[member].process.as_ref().expect("a member that runs")
    }
}

impl Member {
    fn spawn(&mut self) {
        let program = std::env::var_os(PROGRAM).unwrap_or_else(|| "etcd".into());
        let path = self.folder.path().join("log");
        let log = File::create(&path).expect("made");
        let mut command = Command::new(&program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD_")) {
            command.env_remove(name);
        }
        let spawned = command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .spawn();
        let child = spawned.unwrap_or_else(|error| {
            panic!(
                "{}: {error}. These tests need etcd: install the package etcd-server (Debian, Ubuntu) or another \
                 etcd of version 3.4 or newer, or name its program with {PROGRAM}=/path/to/etcd",
                program.to_string_lossy()
            )
        });
        self.process = Some(Process::new(child, path));
    }
}

/// Ports that were free just now, all different.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
        .collect();
    let port = |listener: &TcpListener| listener.local_addr().expect("bound").port();
    listeners.iter().map(port).collect()
}

/// Whether the member answers and its cluster has a leader.
fn is_healthy(port: u16) -> bool {
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    answer().is_ok_and(|answer| answer.contains("\"health\":\"true\""))
}

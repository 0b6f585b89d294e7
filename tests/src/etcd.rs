//! A real etcd: one member or several on loopback, or one on a host of a test's network. Members can be
//! frozen, killed and started again.

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{Process, network::Host, wait_for};

/// Names the program, where it is not `etcd` of the search path.
const PROGRAM: &str = "GAPLESS_ETCD";

/// A free port that was found may be taken by another before etcd has it.
const TRIES: u32 = 3;

/// On a host of its own etcd has the ports that it has everywhere.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// The members of one etcd. They end with this.
pub struct Etcd {
    members: Vec<Member>,
}

struct Member {
    arguments: Vec<String>,
    /// Where it is, if not on this machine's own network.
    host: Option<Host>,
    client: String,
    port: u16,
    /// Where its health is told without TLS.
    probe: u16,
    folder: TempDir,
    process: Option<Process>,
}

impl Etcd {
    /// Starts so many members and waits until they serve.
    pub fn start(members: usize) -> Etcd {
        Etcd::start_with(members, &[])
    }

    /// Starts so many members with these arguments beside the necessary ones.
    pub fn start_with(members: usize, more: &[&str]) -> Etcd {
        Etcd::start_at("http", members, more)
    }

    /// The same with TLS for clients, who must show a certificate: `ca.pem`, `server.pem` and `server.key` of
    /// this folder.
    pub fn start_with_tls(members: usize, certificates: &Path) -> Etcd {
        let file = |name: &str| certificates.join(name).display().to_string();
        let (cert, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
        let more = [
            ["--cert-file", &cert],
            ["--key-file", &key],
            ["--trusted-ca-file", &ca],
            // Passwords of tests need not be slow to check.
            ["--bcrypt-cost", "4"],
        ];
        let more: Vec<&str> = more.into_iter().flatten().chain(["--client-cert-auth"]).collect();
        Etcd::start_at("https", members, &more)
    }

    fn start_at(scheme: &str, members: usize, more: &[&str]) -> Etcd {
        for _ in 1..TRIES {
            if let Some(etcd) = Etcd::try_start(scheme, members, more) {
                return etcd;
            }
        }
        Etcd::try_start(scheme, members, more).expect("etcd ended at its start; are loopback ports free?")
    }

    /// Starts one member on a host of a network.
    pub fn start_on(host: &Host) -> Etcd {
        let url = |port: u16| format!("http://{}:{port}", host.address());
        let peer = url(PEER_PORT);
        let mut member = Member::new(0, &url(CLIENT_PORT), &peer, &format!("m0={peer}"), &[]);
        member.port = CLIENT_PORT;
        member.host = Some(host.clone());
        member.spawn();
        wait_for("etcd to serve", || member.serves().then_some(()));
        Etcd { members: vec![member] }
    }

    fn try_start(scheme: &str, members: usize, more: &[&str]) -> Option<Etcd> {
        let ports = free_ports(3 * members);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let peers: Vec<String> = (0..members)
            .map(|at| format!("m{at}={}", url(ports[members + at])))
            .collect();
        let peers = peers.join(",");
        let members = (0..members).map(|at| {
            let (client, peer) = (format!("{scheme}://127.0.0.1:{}", ports[at]), url(ports[members + at]));
            let probe = ports[2 * members + at];
            let health = url(probe);
            let more = [&["--listen-metrics-urls", &health], more].concat();
            let mut member = Member::new(at, &client, &peer, &peers, &more);
            (member.port, member.probe) = (ports[at], probe);
            member
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
                member.serves().then_some(true)
            });
            if !served {
                return None;
            }
        }
        Some(etcd)
    }

    /// URLs of all members.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
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

    /// Ends a member with SIGTERM.
    pub fn stop(&mut self, member: usize) {
        let mut process = self.members[member].process.take().expect("a member that runs");
        process.signal(rustix::process::Signal::TERM);
        process.signal_of_end();
    }

    /// Starts a member that was killed or stopped, on its data, and waits until it serves.
    pub fn start_again(&mut self, member: usize) {
        self.start_all_again(&[member]);
    }

    /// Starts members that were killed, on their data, and waits until they serve: for those that have
    /// no quorum without each other.
    pub fn start_all_again(&mut self, members: &[usize]) {
        for &member in members {
            self.members[member].spawn();
        }
        for &member in members {
            wait_for("etcd to serve again", || self.members[member].serves().then_some(()));
        }
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
    fn new(at: usize, client: &str, peer: &str, peers: &str, more: &[&str]) -> Member {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data").display().to_string();
        let name = format!("m{at}");
        let arguments = [
            ("--name", name.as_str()),
            ("--data-dir", &data),
            ("--listen-client-urls", client),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer),
            ("--initial-advertise-peer-urls", peer),
            ("--initial-cluster", peers),
            ("--initial-cluster-state", "new"),
        ];
        let arguments = arguments.into_iter().flat_map(|(name, value)| [name, value]);
        Member {
            arguments: arguments.chain(more.iter().copied()).map(str::to_string).collect(),
            host: None,
            client: client.to_string(),
            port: 0,
            probe: 0,
            folder,
            process: None,
        }
    }

    /// Whether it answers and its cluster has a leader. A member on another host cannot be asked from
    /// here: it says so in its log.
    fn serves(&self) -> bool {
        match &self.host {
            None => is_healthy(self.probe),
            Some(_) => {
                let process = self.process.as_ref();
                process.is_some_and(|process| process.log().contains("ready to serve client requests"))
            }
        }
    }

    fn spawn(&mut self) {
        let program = std::env::var_os(PROGRAM).unwrap_or_else(|| "etcd".into());
        let path = self.folder.path().join("log");
        let log = File::create(&path).expect("made");
        let mut command = match &self.host {
            None => Command::new(&program),
            Some(host) => host.command(Path::new(&program)),
        };
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

//! A network of a test's own: a host for each name, all on one bridge, and cuts between them.
//!
//! Each host is a network namespace without a name, which lives as long as the process that holds it, and
//! that one ends when its stdin does: so nothing is left, however the test ends. Cuts drop packets and
//! tell nobody, so that connections hang and do not fail.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    net::Ipv4Addr,
    path::Path,
    process::{ChildStdin, Command, Stdio},
};

use tempfile::TempDir;

use crate::{Process, wait_for};

/// The name of the host that reaches all others and is never cut off.
const OBSERVER: &str = "observer";

/// The namespaces know nothing of other networks: any address will do.
fn address(number: usize) -> Ipv4Addr {
    let number = u8::try_from(number + 1).expect("a few hosts");
    Ipv4Addr::new(10, 77, 0, number)
}

/// Hosts by name. They vanish with this, their links and rules with them.
pub struct Network {
    hosts: BTreeMap<String, Host>,
    _holders: Vec<Holder>,
    _logs: TempDir,
}

/// A host. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Host {
    /// The process that holds the namespace.
    id: u32,
    address: Ipv4Addr,
}

/// Ends with its stdin, and the namespace with it.
struct Holder {
    _stdin: ChildStdin,
    process: Process,
}

impl Network {
    /// Hosts of these names, where the machine permits it. Where it does not, that is said where nobody
    /// overlooks it, and the test has nothing to do.
    pub fn of(names: &[&str]) -> Option<Network> {
        match Network::try_of(names) {
            Ok(network) => Some(network),
            Err(reason) => {
                let test = std::thread::current().name().unwrap_or_default().to_string();
                let words = format!(
                    "\n*** SKIPPED: {test}\n*** This machine does not let a test have networks of its own: {reason}\n\
                     *** Such tests need root, and the programs ip and iptables (Debian: iproute2, iptables).\n"
                );
                // Not eprintln: the harness keeps back what passing tests print.
                let _ = std::io::stderr().write_all(words.as_bytes());
                None
            }
        }
    }

    fn try_of(names: &[&str]) -> Result<Network, String> {
        let logs = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut network = Network {
            hosts: BTreeMap::new(),
            _holders: Vec::new(),
            _logs: logs,
        };
        for (number, name) in [OBSERVER].iter().chain(names).enumerate() {
            let log = network._logs.path().join(format!("{number}.log"));
            let holder = Holder::start(&log)?;
            let host = Host {
                id: holder.process.id(),
                address: address(number),
            };
            network._holders.push(holder);
            host.ip("link set lo up")?;
            if number == 0 {
                host.ip("link add bridge0 type bridge")?;
                host.ip(&format!("addr add {}/24 dev bridge0", host.address))?;
                host.ip("link set bridge0 up")?;
            } else {
                let observer = network.observer();
                observer.ip(&format!(
                    "link add port{number} type veth peer name eth0 netns {}",
                    host.id
                ))?;
                observer.ip(&format!("link set port{number} master bridge0 up"))?;
                host.ip(&format!("addr add {}/24 dev eth0", host.address))?;
                host.ip("link set eth0 up")?;
                host.iptables("-S INPUT")?;
            }
            network.hosts.insert((*name).to_string(), host);
        }
        // Every kind of rule that a test may need.
        let probe = Rule::loss(network.observer());
        probe.clone().put()?;
        probe.remove();
        Ok(network)
    }

    pub fn host(&self, name: &str) -> &Host {
        &self.hosts[name]
    }

    pub fn observer(&self) -> &Host {
        self.host(OBSERVER)
    }

    /// Drops what one host sends to another, for each such pair, until the cut is healed.
    pub fn cut(&self, ways: &[(&str, &str)]) -> Cut {
        let rule = |(from, to): &(&str, &str)| Rule {
            at: self.host(to).clone(),
            what: format!("-s {} -j DROP", self.host(from).address),
        };
        Cut(ways.iter().map(|way| rule(way).put().expect("a rule")).collect())
    }

    /// Every tenth packet that any host receives of another is lost, by chance.
    pub fn lose_every_tenth(&self) -> Cut {
        Cut(self
            .hosts
            .values()
            .map(|host| Rule::loss(host).put().expect("a rule"))
            .collect())
    }
}

/// Rules under which packets are dropped.
#[must_use]
pub struct Cut(Vec<Rule>);

impl Cut {
    /// Ends the cut, and gives the packets that were dropped, by each rule. Some were, or it proves nothing;
    /// who hears nothing may have nothing to say either.
    pub fn heal(self) -> Vec<u64> {
        let dropped: Vec<u64> = self.0.iter().map(Rule::packets).collect();
        self.0.into_iter().for_each(Rule::remove);
        assert!(dropped.iter().sum::<u64>() > 0, "the cut was felt: {dropped:?}");
        dropped
    }
}

/// A rule for what a host receives.
#[derive(Clone, Debug)]
struct Rule {
    at: Host,
    what: String,
}

impl Rule {
    fn loss(at: &Host) -> Rule {
        Rule {
            at: at.clone(),
            what: "! -i lo -m statistic --mode random --probability 0.1 -j DROP".into(),
        }
    }

    fn put(self) -> Result<Rule, String> {
        self.at.iptables(&format!("-A INPUT {}", self.what)).map(|_| self)
    }

    fn remove(self) {
        self.at
            .iptables(&format!("-D INPUT {}", self.what))
            .expect("it was there");
    }

    /// Packets that it has dropped: of rules for the same address each host has one at a time.
    fn packets(&self) -> u64 {
        let listed = self.at.iptables("-S INPUT -v").expect("listed");
        let mut words = self.what.split_whitespace();
        let mark = match (words.next(), words.next()) {
            (Some("-s"), Some(address)) => format!("-s {address}/32 "),
            _ => "--mode random".into(),
        };
        let line = listed.lines().find(|line| line.contains(&mark));
        let line = line.unwrap_or_else(|| panic!("{mark} is not in {listed}"));
        let (_, counts) = line.split_once(" -c ").expect("counters");
        let packets = counts.split_whitespace().next().map(str::parse);
        packets.expect("a count").expect("a number")
    }
}

impl Host {
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A program that sees the network as this host does. It has the id of the process that is started.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.id)).arg("--");
        command.arg(program);
        command
    }

    fn ip(&self, arguments: &str) -> Result<String, String> {
        self.run("ip", arguments)
    }

    fn iptables(&self, arguments: &str) -> Result<String, String> {
        // -w: another one may hold the lock that all namespaces share.
        self.run("iptables", &format!("-w {arguments}"))
    }

    fn run(&self, program: &str, arguments: &str) -> Result<String, String> {
        let ran = self.command(Path::new(program)).args(arguments.split(' ')).output();
        let ran = ran.map_err(|error| format!("nsenter: {error}"))?;
        if ran.status.success() {
            return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&ran.stderr).trim().to_string();
        Err(format!("`{program} {arguments}`: {said}"))
    }
}

impl Holder {
    fn start(log: &Path) -> Result<Holder, String> {
        let file = File::create(log).map_err(|error| error.to_string())?;
        let spawned = Command::new("unshare")
            .args(["--net", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn();
        let mut child = spawned.map_err(|error| format!("unshare: {error}"))?;
        let stdin = child.stdin.take().expect("piped");
        let mut process = Process::new(child, log.to_path_buf());
        let own = fs::read_link("/proc/self/ns/net").map_err(|error| error.to_string())?;
        let apart = wait_for("a namespace", || {
            if !process.is_running() {
                return Some(false);
            }
            let its = fs::read_link(format!("/proc/{}/ns/net", process.id())).ok()?;
            (its != own).then_some(true)
        });
        match apart {
            true => Ok(Holder { _stdin: stdin, process }),
            false => Err(process.log().trim().to_string()),
        }
    }
}

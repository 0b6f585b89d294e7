//! Several coordinators on a real etcd, with workers: all of them processes that can be killed, frozen
//! and started again.

use std::{collections::BTreeMap, process::Output};

use serde_json::Value;

use crate::{
    Process, World,
    etcd::Etcd,
    network::{Host, Network},
    wait_for,
};

/// Of the leader's key, in seconds: the shortest that etcd keeps.
pub const LEADER_TTL_S: u64 = 2;

/// Of a worker's tasks, in milliseconds.
pub const LEASE_MS: u64 = 3000;

/// Where a coordinator listens that has a host of its own.
const PORT: u16 = 7070;

/// Coordinators by name, workers by number, and the etcd that the coordinators share.
pub struct Coordinators<'a> {
    pub world: &'a World,
    pub etcd: Etcd,
    coordinators: BTreeMap<&'static str, (Process, String)>,
    pub workers: BTreeMap<usize, Process>,
    /// Where each process has the host of its name; without it all of them are on loopback.
    pub network: Option<Network>,
}

impl<'a> Coordinators<'a> {
    /// Starts two coordinators, the first of which leads, and waits for the workers to register.
    pub fn start(world: &'a World, members: usize, workers: usize) -> Coordinators<'a> {
        Coordinators::start_on(world, Etcd::start(members), None, workers)
    }

    /// The same on an etcd that is there, with each process on the host of its name if there is a network.
    pub fn start_on(world: &'a World, etcd: Etcd, network: Option<Network>, workers: usize) -> Coordinators<'a> {
        let mut cluster = Coordinators {
            world,
            etcd,
            coordinators: BTreeMap::new(),
            workers: BTreeMap::new(),
            network,
        };
        cluster.start_coordinator("first");
        wait_for("the first to lead", || cluster.runs(&cluster.endpoint("first")));
        cluster.start_coordinator("second");
        (0..workers).for_each(|number| cluster.start_worker(number));
        cluster.wait_workers();
        cluster
    }

    /// Starts a coordinator, on the port that it had if there was one of this name.
    pub fn start_coordinator(&mut self, name: &'static str) {
        let former = self.coordinators.remove(name);
        let host = self.host(name);
        let listen = match (former, host) {
            (Some((_, endpoint)), _) => endpoint.trim_start_matches("http://").to_string(),
            (None, Some(host)) => format!("{}:{PORT}", host.address()),
            (None, None) => "127.0.0.1:0".to_string(),
        };
        let (etcd, ttl, lease) = (
            self.etcd.endpoints().join(","),
            LEADER_TTL_S.to_string(),
            LEASE_MS.to_string(),
        );
        let mut process = self.world.start_on(
            host,
            name,
            &[
                "coordinator",
                "--insecure",
                "--store",
                "etcd",
                "--etcd-endpoints",
                &etcd,
                "--cluster-name",
                "sales",
                "--leader-ttl-s",
                &ttl,
                "--listen",
                &listen,
                "--scratch",
                "scratch",
                "--lease-ms",
                &lease,
                "--heartbeat-ms",
                "200",
                "--metrics-listen",
                "127.0.0.1:0",
            ],
        );
        let endpoint = process.line();
        assert!(
            endpoint.starts_with("http://"),
            "it says where it is: {endpoint:?}\n{}",
            process.log()
        );
        self.coordinators.insert(name, (process, endpoint));
    }

    /// Starts a worker with one slot, in the place of a former one of this number.
    pub fn start_worker(&mut self, number: usize) {
        let (name, endpoints) = (format!("worker-{number}"), self.endpoints());
        let worker = self.world.start_on(
            self.host(&name),
            &name,
            &["worker", "--endpoints", &endpoints, "--slots", "1", "--name", &name],
        );
        self.workers.insert(number, worker);
    }

    /// Waits until as many workers as there are have registered.
    pub fn wait_workers(&self) {
        wait_for("the workers to register", || {
            let list = self.ask(&["workers", "-o", "json"]);
            (list.as_array()?.len() >= self.workers.len()).then_some(())
        });
    }

    pub fn coordinator(&mut self, name: &str) -> &mut Process {
        &mut self.coordinators.get_mut(name).expect("it was started").0
    }

    pub fn worker(&mut self, number: usize) -> &mut Process {
        self.workers.get_mut(&number).expect("it was started")
    }

    pub fn endpoint(&self, name: &str) -> String {
        self.coordinators[name].1.clone()
    }

    pub fn endpoints(&self) -> String {
        let all = self.coordinators.values().map(|(_, endpoint)| endpoint.as_str());
        all.collect::<Vec<_>>().join(",")
    }

    /// The host of a process, if there is a network.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.network.as_ref().map(|network| network.host(name))
    }

    /// Runs the program where it reaches all coordinators.
    pub fn gapless(&self, arguments: &[&str]) -> Output {
        let observer = self.network.as_ref().map(Network::observer);
        self.world.gapless_on(observer, arguments)
    }

    pub fn ask(&self, arguments: &[&str]) -> Value {
        let endpoints = self.endpoints();
        let output = self.gapless(&[arguments, &["--endpoints", endpoints.as_str()]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// The runs that a coordinator, or the one that it names, tells.
    pub fn runs(&self, endpoint: &str) -> Option<Value> {
        let output = self.gapless(&["list", "-o", "json", "--endpoint", endpoint]);
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// The name of the coordinator that leads, by its metrics.
    pub fn leader(&self) -> Option<&'static str> {
        let leads = |process: &Process| {
            let metrics = process.metrics_if_alive();
            metrics.is_some_and(|metrics| metrics.get("gapless_leader") == 1.0)
        };
        let mut all = self.coordinators.iter();
        all.find_map(|(name, (process, _))| leads(process).then_some(*name))
    }

    pub fn run(&self, run: &str) -> Value {
        self.ask(&["get", run, "-o", "json"])
    }

    pub fn ended(&self, run: &str) -> Value {
        wait_for("the run to end", || {
            let run = self.run(run);
            let state = run["state"].as_str()?;
            matches!(state, "completed" | "failed" | "cancelled" | "stopped").then_some(run)
        })
    }

    /// Partitions of the first step that are on record as done; none while it is in another stage.
    pub fn committed(&self, run: &str) -> Option<u64> {
        let run = self.run(run);
        let step = &run["steps"][0];
        (step["state"] == "execute").then(|| step["partitions"]["done"].as_u64())?
    }

    /// Submits the job, waits until so much of its first step is on record, and gives the run.
    pub fn begin(&self, partitions: u64) -> String {
        let run = self.submit();
        wait_for("partitions on record", || {
            self.committed(&run).filter(|done| *done >= partitions)
        });
        run
    }

    pub fn submit(&self) -> String {
        let output = self.gapless(&["submit", "job.yaml", "-o", "name", "--endpoints", &self.endpoints()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    }

    /// Submits the job of this name, whoever leads meanwhile, and gives the run.
    pub fn submit_named(&self, job: &str) -> String {
        submit_until_taken(self.world, &self.endpoints(), &[], |run| run["job"] == job)
    }

    /// Submits the job for a day, whatever dies meanwhile, and gives the run.
    pub fn submit_for(&self, day: &str) -> String {
        submit_for(self.world, &self.endpoints(), day)
    }
}

/// Submits the job for a day to one of these endpoints: again and again, until there is a run for it.
pub fn submit_for(world: &World, endpoints: &str, day: &str) -> String {
    let parameter = format!("day={day}");
    submit_until_taken(world, endpoints, &["-p", &parameter], |run| {
        run["parameters"]["day"] == day
    })
}

fn submit_until_taken(world: &World, endpoints: &str, more: &[&str], is_it: impl Fn(&Value) -> bool) -> String {
    wait_for("the job to be taken", || {
        let at = ["--endpoints", endpoints];
        // One that gets no answer may have been taken.
        world.gapless(&[["submit", "job.yaml"].as_slice(), more, &at].concat());
        let listed = world.gapless(&[["list", "-o", "json"].as_slice(), &at].concat());
        let runs: Value = serde_json::from_slice(&listed.stdout).ok()?;
        let run = runs.as_array()?.iter().find(|run| is_it(run))?;
        run["run"].as_str().map(str::to_string)
    })
}

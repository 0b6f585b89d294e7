//! Several coordinators on a real etcd: the leader dies, another one leads, and the run goes on.

use std::{collections::BTreeMap, fs, path::PathBuf};

use gapless_tests::{Process, World, etcd::Etcd, expected, term, wait_for};
use serde_json::Value;

const ROWS: u64 = 60_000;
const MANY: &str = "{key_range: {column: id}, count: 24}";

/// Coordinators by name, workers, and the etcd that the coordinators share.
struct Cluster<'a> {
    world: &'a World,
    etcd: Etcd,
    coordinators: BTreeMap<&'static str, (Process, String)>,
    workers: Vec<Process>,
}

impl<'a> Cluster<'a> {
    fn start(world: &'a World, members: usize, workers: usize) -> Cluster<'a> {
        let mut cluster = Cluster {
            world,
            etcd: Etcd::start(members),
            coordinators: BTreeMap::new(),
            workers: Vec::new(),
        };
        // The first leads before there is a second.
        cluster.add_coordinator("first");
        wait_for("the first to lead", || cluster.runs(&cluster.endpoint("first")));
        cluster.add_coordinator("second");
        for number in 0..workers {
            cluster.add_worker(number);
        }
        wait_for("the workers to register", || {
            let list = cluster.ask(&["workers", "-o", "json"]);
            (list.as_array()?.len() == workers).then_some(())
        });
        cluster
    }

    fn add_coordinator(&mut self, name: &'static str) {
        let etcd = self.etcd.endpoints().join(",");
        let mut process = self.world.start_as(
            name,
            &[
                "coordinator",
                "--store",
                "etcd",
                "--etcd-endpoints",
                &etcd,
                "--cluster-name",
                "sales",
                "--leader-ttl-s",
                "2",
                "--listen",
                "127.0.0.1:0",
                "--scratch",
                "scratch",
                "--lease-ms",
                "3000",
                "--heartbeat-ms",
                "200",
            ],
        );
        let endpoint = process.line();
        assert!(endpoint.starts_with("http://"), "it says where it is: {endpoint:?}");
        self.coordinators.insert(name, (process, endpoint));
    }

    fn add_worker(&mut self, number: usize) {
        let (name, endpoints) = (format!("worker-{number}"), self.endpoints());
        let worker = self.world.start_as(
            &name,
            &["worker", "--endpoints", &endpoints, "--slots", "1", "--name", &name],
        );
        self.workers.push(worker);
    }

    fn endpoint(&self, name: &str) -> String {
        self.coordinators[name].1.clone()
    }

    fn endpoints(&self) -> String {
        let all: Vec<&str> = self
            .coordinators
            .values()
            .map(|(_, endpoint)| endpoint.as_str())
            .collect();
        all.join(",")
    }

    fn ask(&self, arguments: &[&str]) -> Value {
        let endpoints = self.endpoints();
        let output = self
            .world
            .gapless(&[arguments, &["--endpoints", endpoints.as_str()]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// The runs that a coordinator, or the one that it names, tells.
    fn runs(&self, endpoint: &str) -> Option<Value> {
        let output = self.world.gapless(&["list", "-o", "json", "--endpoint", endpoint]);
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    fn ended(&self, run: &str) -> Value {
        wait_for("the run to end", || {
            let run = self.ask(&["get", run, "-o", "json"]);
            let state = run["state"].as_str()?;
            matches!(state, "completed" | "failed" | "cancelled" | "stopped").then_some(run)
        })
    }

    /// Partitions of the first step that are on record as done; none while it is in another stage.
    fn committed(&self, run: &str) -> Option<u64> {
        let run = self.ask(&["get", run, "-o", "json"]);
        let step = &run["steps"][0];
        (step["state"] == "execute").then(|| step["partitions"]["done"].as_u64())?
    }

    fn submit(&self) -> String {
        let output = self
            .world
            .gapless(&["submit", "job.yaml", "-o", "name", "--endpoints", &self.endpoints()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    }
}

fn check_output(world: &World, sales: &gapless_tests::Sales) {
    let rows = world.rows("out/load");
    let mut ids: Vec<u64> = rows
        .iter()
        .map(|row| row.split(',').next().unwrap_or_default().parse().expect("an id"))
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..ROWS).collect::<Vec<_>>(), "each sale is published once");
    assert_eq!(world.rows("out/by-shop"), expected(sales));
}

/// The terms in which the published files of a step were written.
fn terms(world: &World, output: &str) -> BTreeMap<u64, usize> {
    let mut terms = BTreeMap::new();
    for path in world.files(output) {
        *terms.entry(term(&path)).or_default() += 1;
    }
    terms
}

/// A published verdict of a step: none before it is published.
fn is_published(world: &World, output: &str) -> bool {
    let verdicts: PathBuf = world.path(&format!("out/.{output}.gapless/published"));
    fs::read_dir(verdicts).is_ok_and(|mut entries| entries.next().is_some())
}

#[test]
fn a_leader_that_is_killed_is_followed_by_the_standby_and_nothing_committed_is_done_again() {
    let (world, sales) = World::with_sales(ROWS);
    world.sales_job(MANY, "{hash: {columns: [shop]}, count: 8}");
    let mut cluster = Cluster::start(&world, 1, 3);
    let run = cluster.submit();
    let committed = wait_for("some partitions on record", || {
        cluster.committed(&run).filter(|done| *done >= 3)
    });
    let killed_at = std::time::Instant::now();
    let (leader, _) = cluster.coordinators.get_mut("first").expect("it runs");
    assert!(leader.kill(), "the leader was alive");
    assert!(
        !is_published(&world, "load"),
        "the kill came before the step was published"
    );
    assert!(!world.path("out/load").exists(), "and before its output was to be seen");
    let second = cluster.endpoint("second");
    wait_for("the standby to lead", || cluster.runs(&second));
    println!("the standby leads {:?} after the kill", killed_at.elapsed());
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    check_output(&world, &sales);
    // Files carry the term in which their attempt was granted. What was on record at the kill is of the
    // first leader; so is what the workers had in hand, which they kept.
    let terms = terms(&world, "out/load");
    let of_first = terms.first_key_value().map_or(0, |(_, count)| *count as u64);
    assert!(
        of_first >= committed,
        "{committed} were on record at the kill: {terms:?}"
    );
    let takeovers: u64 = ended["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|step| step["takeovers"].as_u64())
        .sum();
    assert_eq!(takeovers, 0, "each worker kept its attempt: {ended:#}");
    for worker in &mut cluster.workers {
        assert!(worker.is_running());
    }
}

#[test]
fn a_member_of_etcd_that_is_killed_costs_no_fail_over() {
    let (world, sales) = World::with_sales(ROWS);
    world.sales_job(MANY, "{hash: {columns: [shop]}, count: 8}");
    let mut cluster = Cluster::start(&world, 3, 2);
    let run = cluster.submit();
    wait_for("a partition on record", || {
        cluster.committed(&run).filter(|done| *done >= 1)
    });
    // The one that the leader speaks to, as long as none has failed.
    cluster.etcd.kill(0);
    assert!(
        !is_published(&world, "load"),
        "the kill came before the step was published"
    );
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    check_output(&world, &sales);
}

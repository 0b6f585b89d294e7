//! A store that goes back in time: etcd is wiped, or an old copy of its data is put back. It looks like any
//! other etcd; but coordinators, workers and a file in the scratch folder remember how far it had come. Nothing
//! is done before an operator accepts it, and nothing is published twice afterwards.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use gapless_tests::{Cluster, Process, Sales, World, etcd::Etcd, expected, sales::SLOW, term, wait_for};
use serde_json::Value;

const ROWS: u64 = 600_000;
const MANY: &str = "{key_range: {column: id}, count: 24}";
/// Where the terms of the second epoch begin.
const SECOND_EPOCH: u64 = 1 << 44;

/// One member of etcd, coordinators by name, and workers.
struct Site<'a> {
    world: &'a World,
    etcd: Etcd,
    coordinators: BTreeMap<&'static str, (Process, String)>,
    workers: Vec<Process>,
    scratch: &'static str,
}

impl<'a> Site<'a> {
    fn start(world: &'a World, workers: usize) -> Site<'a> {
        Site::with_scratch(world, workers, "scratch")
    }

    fn with_scratch(world: &'a World, workers: usize, scratch: &'static str) -> Site<'a> {
        let mut site = Site {
            scratch,
            world,
            etcd: Etcd::start(1),
            coordinators: BTreeMap::new(),
            workers: Vec::new(),
        };
        site.add_coordinator("first");
        for number in 0..workers {
            let (name, endpoints) = (format!("worker-{number}"), site.endpoints());
            let arguments = ["worker", "--endpoints", &endpoints, "--slots", "1", "--name", &name];
            let worker = world.start_as(&name, &arguments);
            site.workers.push(worker);
        }
        wait_for("the workers to register", || {
            let list = site.ask(&["workers", "-o", "json"]);
            (list.as_array()?.len() == workers).then_some(())
        });
        site
    }

    fn add_coordinator(&mut self, name: &'static str) {
        let former = self.coordinators.remove(name).map(|(_, endpoint)| endpoint);
        let listen = former.as_deref().unwrap_or("http://127.0.0.1:0");
        let etcd = self.etcd.endpoints().join(",");
        let arguments = [
            ["coordinator", "--store"],
            ["etcd", "--etcd-endpoints"],
            [&etcd, "--cluster-name"],
            ["sales", "--leader-ttl-s"],
            ["2", "--scratch"],
            [self.scratch, "--listen"],
            [listen.trim_start_matches("http://"), "--lease-ms"],
            ["3000", "--heartbeat-ms"],
            ["200", "--metrics-listen"],
        ];
        let arguments = [arguments.as_flattened(), &["127.0.0.1:0"]].concat();
        let mut process = self.world.start_as(name, &arguments);
        let endpoint = process.line();
        assert!(endpoint.starts_with("http://"), "it says where it is: {endpoint:?}");
        self.coordinators.insert(name, (process, endpoint));
    }

    fn coordinator(&mut self, name: &str) -> &mut Process {
        &mut self.coordinators.get_mut(name).expect("it runs").0
    }

    fn endpoints(&self) -> String {
        let all: Vec<&str> = self.coordinators.values().map(|(_, at)| at.as_str()).collect();
        all.join(",")
    }

    fn gapless(&self, arguments: &[&str]) -> Output {
        self.world
            .gapless(&[arguments, &["--endpoints", self.endpoints().as_str()]].concat())
    }

    fn ask(&self, arguments: &[&str]) -> Value {
        serde_json::from_slice(&self.gapless(arguments).stdout).unwrap_or(Value::Null)
    }

    fn cluster(&self) -> Value {
        self.ask(&["cluster", "show", "-o", "json"])
    }

    fn submit(&self, job: &str) -> String {
        let output = self.gapless(&["submit", job, "-o", "name"]);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    }

    fn ended(&self, run: &str) -> Value {
        wait_for("the run to end", || {
            let run = self.ask(&["get", run, "-o", "json"]);
            let state = run["state"].as_str()?;
            matches!(state, "completed" | "failed" | "cancelled" | "stopped").then_some(run)
        })
    }

    fn complete(&self, run: &str) {
        let ended = self.ended(run);
        assert_eq!(ended["state"], "completed", "{ended:#}");
    }

    /// Waits until some partitions of a run's first step are on record and others are not.
    fn wait_until_midway(&self, run: &str) {
        wait_for("a run that is midway", || {
            let run = self.ask(&["get", run, "-o", "json"]);
            let step = &run["steps"][0];
            let done = step["partitions"]["done"].as_u64()?;
            assert_ne!(step["state"], "published", "it was faster than this test: {run:#}");
            (step["state"] == "execute" && done >= 2).then_some(())
        });
    }

    /// Waits until the leader holds, and gives the reason.
    fn wait_until_held(&self) -> String {
        wait_for("the leader to hold", || {
            let cluster = self.cluster();
            (cluster["state"] == "held").then(|| cluster["held"].as_str().expect("a reason").to_string())
        })
    }

    /// Everybody is told, and nothing moves, until the operator accepts what is described as `meaning`.
    fn check_held_and_accept(&mut self, name: &str, words: &str) {
        let reason = self.wait_until_held();
        assert!(reason.contains(words), "{words:?} is not in: {reason}");
        for part in [
            "/gapless/sales/",
            "gapless cluster accept-restore",
            "No work is given out",
        ] {
            assert!(reason.contains(part), "{part:?} is not in: {reason}");
        }
        assert!(
            self.coordinator(name)
                .log()
                .contains("holding the lead without working")
        );
        let (status, ready) = self.coordinator(name).monitor("/readyz");
        assert!(status == 503 && ready.contains(words), "{status} {ready}");
        assert_eq!(self.coordinator(name).metrics().get("gapless_leader"), 0.0);
        for refused in [
            self.gapless(&["submit", "job.yaml"]),
            self.gapless(&["list"]),
            self.gapless(&["workers"]),
        ] {
            assert!(!refused.status.success());
            assert!(stderr(&refused).contains(words), "{}", stderr(&refused));
        }
        // Each worker has come and was told; what it had open it may still finish, in its staging folder.
        for worker in 0..self.workers.len() {
            wait_for("a worker to be told", || {
                self.workers[worker].log().contains("cannot be trusted").then_some(())
            });
        }
        let before = published(&self.world.path("out"));
        let asked = self.gapless(&["cluster", "accept-restore"]);
        assert_eq!(asked.status.code(), Some(2), "without --yes nothing is done");
        for part in [
            words,
            "are forgotten",
            "not published a second time",
            "cannot be undone",
            "--yes",
        ] {
            assert!(stderr(&asked).contains(part), "{part:?} is not in: {}", stderr(&asked));
        }
        assert_eq!(self.cluster()["state"], "held");
        assert_eq!(published(&self.world.path("out")), before, "nothing is published");

        let epoch = self.cluster()["epoch"].as_u64().expect("a number");
        let accepted = self.gapless(&["cluster", "accept-restore", "--yes"]);
        assert!(accepted.status.success(), "{}", stderr(&accepted));
        let cluster = self.cluster();
        assert_eq!(
            (&cluster["state"], cluster["epoch"].as_u64()),
            (&"leading".into(), Some(epoch + 1))
        );
        assert!(cluster["term"].as_u64() > Some(epoch * SECOND_EPOCH), "{cluster:#}");
        let again = self.gapless(&["cluster", "accept-restore", "--yes"]);
        assert_eq!(again.status.code(), Some(7), "there is nothing more to accept");
        wait_for("the workers to come back, the same ones", || {
            let list = self.ask(&["workers", "-o", "json"]);
            (list.as_array()?.len() == self.workers.len()).then_some(())
        });
        for worker in &mut self.workers {
            assert!(worker.is_running());
        }
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every file below a folder, but for what runs have staged.
fn published(folder: &Path) -> Vec<PathBuf> {
    let is_staging = |path: &Path| {
        let parent = path.parent().and_then(Path::extension);
        path.ends_with("run") && parent.is_some_and(|extension| extension == "gapless")
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if is_staging(&path) => {}
            path if path.is_dir() => found.extend(published(&path)),
            path => found.push(path),
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed").flatten() {
        let to = to.join(entry.file_name());
        match entry.path() {
            path if path.is_dir() => copy(&path, &to),
            path => drop(fs::copy(path, to).expect("copied")),
        }
    }
}

fn verdicts(world: &World, output: &str) -> Vec<String> {
    let folder = world.path(&format!("out/.{output}.gapless/published"));
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .map(|file| fs::read_to_string(file.path()).expect("read"))
        .collect()
}

fn check_output(world: &World, sales: &Sales) {
    let ids = world.rows("out/load");
    let mut ids: Vec<u64> = ids
        .iter()
        .map(|row| row.split(',').next().unwrap_or_default().parse().expect("an id"))
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..ROWS).collect::<Vec<_>>(), "each sale is published once");
    assert_eq!(world.rows("out/by-shop"), expected(sales));
}

/// A job beside that of the sales, with an output of its own. One record of ten takes computing, so that a fault meets it.
fn write_other_job(world: &World, name: &str) {
    let text = format!(
        "job: {name}\nsteps:\n  - name: {name}\n    source:\n      csv: {{path: \"data/sales-*.csv\", columns: {{id: int64}}}}\n    \
         partition: {MANY}\n    transform: {{sql: \"SELECT * FROM input WHERE CASE WHEN id % 10 = 0 THEN {SLOW} ELSE true END\"}}\n    sink: {{csv: {{path: \"out/{name}\"}}}}\n"
    );
    fs::write(world.path(&format!("{name}.yaml")), text).expect("written");
}

fn check_other_output(world: &World, name: &str) {
    assert_eq!(world.rows(&format!("out/{name}")).len() as u64, ROWS);
    assert_eq!(verdicts(world, name).len(), 1);
    for file in world.files(&format!("out/{name}")) {
        assert!(
            term(&file) > SECOND_EPOCH,
            "written after the restore was accepted: {}",
            file.display()
        );
    }
}

#[test]
fn a_wiped_etcd_stops_the_cluster_until_an_operator_accepts_it() {
    let (world, sales) = World::with_sales(ROWS);
    world.sales_job(MANY, "{hash: {columns: [shop]}, count: 8}");
    write_other_job(&world, "other");
    let mut site = Site::start(&world, 2);
    let published = site.submit("job.yaml");
    site.complete(&published);
    let (before, identity) = (verdicts(&world, "load"), site.cluster());
    assert_eq!((before.len(), &identity["epoch"]), (1, &1.into()));
    let lost = site.submit("other.yaml");
    site.wait_until_midway(&lost);

    site.etcd.kill(0);
    fs::remove_dir_all(site.etcd.data(0)).expect("wiped");
    site.etcd.start_again(0);
    site.check_held_and_accept("first", "was it wiped?");
    assert_eq!(site.cluster()["id"], identity["id"], "it is the same cluster");
    assert_eq!(
        site.ask(&["list", "-o", "json"]),
        Value::Array(vec![]),
        "what etcd had is gone"
    );
    assert!(
        !world.path("out/other").exists(),
        "nothing of the lost run was published"
    );

    let run = site.submit("other.yaml");
    site.complete(&run);
    check_other_output(&world, "other");
    // The run that had published is not known any more; its output is.
    let again = site.submit("job.yaml");
    let ended = site.ended(&again);
    assert_eq!(ended["state"], "failed", "{ended:#}");
    assert!(
        ended["error"].as_str().is_some_and(|error| error.contains("exists")),
        "{ended:#}"
    );
    assert_eq!(verdicts(&world, "load"), before, "not published twice");
    check_output(&world, &sales);

    // A coordinator that is started anew finds all in order.
    assert!(site.coordinator("first").kill());
    site.add_coordinator("first");
    let cluster = wait_for("it to lead", || {
        Some(site.cluster()).filter(|cluster| cluster["state"] == "leading")
    });
    assert_eq!((&cluster["id"], &cluster["epoch"]), (&identity["id"], &2.into()));
}

#[test]
fn an_old_copy_of_etcd_stops_the_cluster_and_what_was_published_since_is_not_published_again() {
    let (world, sales) = World::with_sales(ROWS);
    world.sales_job(MANY, "{hash: {columns: [shop]}, count: 8}");
    write_other_job(&world, "other");
    let mut site = Site::start(&world, 2);
    let run = site.submit("job.yaml");
    site.wait_until_midway(&run);
    let copied = world.path("copy-of-etcd");
    site.etcd.kill(0);
    copy(&site.etcd.data(0), &copied);
    site.etcd.start_again(0);
    site.complete(&run);
    let before = verdicts(&world, "load");
    assert_eq!(before.len(), 1);

    site.etcd.kill(0);
    fs::remove_dir_all(site.etcd.data(0)).expect("removed");
    copy(&copied, &site.etcd.data(0));
    site.etcd.start_again(0);
    site.check_held_and_accept("first", "was it restored from an old copy?");
    // The run goes on from what the copy says; its output is there already, and counts.
    let ended = site.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    let events = ended["events"].as_array().expect("events");
    let found = events.iter().filter_map(|event| event["text"].as_str());
    let found = found.filter(|text| text.contains("step load had been published before"));
    assert_eq!(found.count(), 1, "{ended:#}");
    let step = &ended["steps"][0];
    let output = &step["output"];
    assert_eq!(
        (
            &step["state"],
            &output["rows"],
            &output["source_rows"],
            &output["files"]
        ),
        (
            &"published".into(),
            &ROWS.into(),
            &ROWS.into(),
            &world.files("out/load").len().into()
        ),
        "{step:#}"
    );
    let verified = site.gapless(&["verify", &run]);
    assert!(verified.status.success(), "{}", stderr(&verified));
    let again = site.gapless(&["submit", "job.yaml"]);
    assert_eq!(again.status.code(), Some(7), "it is complete: {}", stderr(&again));
    assert_eq!(verdicts(&world, "load"), before, "not published twice");
    check_output(&world, &sales);
    let other = site.submit("other.yaml");
    site.complete(&other);
    check_other_output(&world, "other");
}

#[test]
fn what_a_worker_has_seen_is_enough_to_stop_the_cluster() {
    let (world, _) = World::with_sales(1000);
    world.sales_job("{count: 2}", "{hash: {columns: [shop]}, count: 2}");
    let mut site = Site::start(&world, 1);
    let copied = world.path("copy-of-etcd");
    site.etcd.kill(0);
    copy(&site.etcd.data(0), &copied);
    site.etcd.start_again(0);
    let run = wait_for("a run to be taken", || {
        let output = site.gapless(&["submit", "job.yaml", "-o", "name"]);
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    });
    site.complete(&run);

    // The coordinator dies with what it knew, and so does its file.
    assert!(site.coordinator("first").kill());
    site.etcd.kill(0);
    let file = world.path("scratch/cluster-sales.json");
    fs::remove_file(&file).expect("it was there");
    fs::remove_dir_all(site.etcd.data(0)).expect("removed");
    copy(&copied, &site.etcd.data(0));
    site.etcd.start_again(0);
    site.add_coordinator("first");
    site.check_held_and_accept("first", "worker worker-0 has seen");
}

#[test]
fn what_the_last_coordinator_wrote_down_is_enough_to_stop_the_next_one() {
    what_was_written_down_stops_the_next_one("scratch", "scratch/cluster-sales.json");
}

/// A coordinator asks an object store for nothing: what it writes down lies in the state folder that it was given.
#[cfg(feature = "s3")]
#[test]
fn what_was_written_down_with_scratch_in_an_object_store_is_as_good() {
    what_was_written_down_stops_the_next_one("s3://nowhere/scratch", "state/cluster-sales.json");
}

fn what_was_written_down_stops_the_next_one(scratch: &'static str, file: &str) {
    let (mut world, _) = World::with_sales(10);
    world.sales_job("{count: 1}", "{hash: {columns: [shop]}, count: 1}");
    world.set("GAPLESS_STATE_DIR", "state");
    let mut site = Site::with_scratch(&world, 0, scratch);
    let file = world.path(file);
    wait_for("the file to be written", || file.is_file().then_some(()));
    assert!(site.coordinator("first").kill());
    site.etcd.kill(0);
    fs::remove_dir_all(site.etcd.data(0)).expect("wiped");
    site.etcd.start_again(0);
    site.add_coordinator("first");
    site.check_held_and_accept("first", "cluster-sales.json has seen");
}

#[test]
fn an_embedded_store_that_is_put_back_is_noticed_by_its_workers() {
    let (world, _) = World::with_sales(1000);
    world.sales_job("{count: 2}", "{hash: {columns: [shop]}, count: 2}");
    let mut cluster = Cluster::start(&world, 1);
    let (state, copied) = (world.path("state"), world.path("copy-of-state"));
    assert!(cluster.coordinator.kill());
    copy(&state, &copied);
    cluster.restart_coordinator();
    let run = cluster.submit("job.yaml");
    assert_eq!(cluster.ended(&run)["state"], "completed");
    let before = verdicts(&world, "load");

    assert!(cluster.coordinator.kill());
    fs::remove_dir_all(&state).expect("removed");
    copy(&copied, &state);
    cluster.restart_coordinator();
    let held = wait_for("the coordinator to hold", || {
        let shown = cluster.ask(&["cluster", "show", "-o", "json"]);
        (shown["state"] == "held").then(|| shown["held"].as_str().expect("why").to_string())
    });
    assert!(
        held.contains("worker worker-0 has seen") && held.contains("old copy"),
        "{held}"
    );
    let accept = ["cluster", "accept-restore", "--yes", "--endpoint", &cluster.endpoint];
    let accepted = world.gapless(&accept);
    assert!(accepted.status.success(), "{}", stderr(&accepted));
    let shown = cluster.ask(&["cluster", "show", "-o", "json"]);
    assert_eq!((&shown["state"], &shown["epoch"]), (&"leading".into(), &2.into()));
    let again = cluster.submit("job.yaml");
    assert_ne!(again, run, "the run is forgotten");
    let ended = cluster.ended(&again);
    assert_eq!(ended["state"], "failed", "its output exists: {ended:#}");
    assert_eq!(verdicts(&world, "load"), before, "not published twice");
    assert!(cluster.workers[0].is_running());
}

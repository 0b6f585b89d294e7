//! Workers that are frozen and killed while they compute, at the moment a chunk becomes durable, and
//! between that and the leader's word: what they leave does not count twice, and nothing is missing.

use std::path::{Path, PathBuf};

use gapless_tests::{Cluster, Process, World, strace::Fault, wait_for};
use serde_json::Value;

const ROWS: u64 = 6000;
const LOAD: &str = "{key_range: {column: id}, count: 12}";
const BY_SHOP: &str = "{hash: {columns: [shop]}, count: 4}";

/// A line of the partition table of a run.
#[derive(Debug, PartialEq)]
struct Line {
    partition: u64,
    attempt: u64,
    state: String,
    worker: String,
}

/// The partitions of `load` in its stage `execute`.
fn partitions(cluster: &Cluster, run: &str) -> Vec<Line> {
    let described = cluster.ask(&["describe", run, "-o", "json"]);
    let table = described["partition_table"].as_array().cloned().unwrap_or_default();
    let word = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_string();
    let ours = |line: &&Value| line["step"] == "load" && line["stage"] == "execute";
    let lines = table.iter().filter(ours).map(|line| Line {
        partition: line["partition"].as_u64().expect("a number"),
        attempt: line["attempt"].as_u64().expect("a number"),
        state: word(line, "state"),
        worker: word(line, "worker"),
    });
    lines.collect()
}

fn number(worker: &str) -> usize {
    let number = worker.strip_prefix("worker-").and_then(|number| number.parse().ok());
    number.expect("a name of ours")
}

/// Freezes a worker while it has a partition in hand (this one, if told), which it cannot finish before the
/// thaw.
fn freeze_one_at_work(cluster: &Cluster, run: &str, partition: Option<u64>) -> Line {
    let wanted = |line: &Line| line.state == "running" && partition.is_none_or(|it| it == line.partition);
    wait_for("a worker that computes a partition", || {
        let line = partitions(cluster, run).into_iter().find(|line| {
            // One that is frozen already has been lost, or will be.
            wanted(line) && !cluster.workers[number(&line.worker)].is_still()
        })?;
        let victim = &cluster.workers[number(&line.worker)];
        victim.freeze();
        if partitions(cluster, run).contains(&line) {
            return Some(line);
        }
        victim.thaw();
        None
    })
}

#[test]
fn a_worker_that_is_frozen_past_its_lease_loses_its_partition_and_works_again_when_it_thaws() {
    let (world, sales) = World::with_sales(ROWS);
    world.slow_sales_job(LOAD, BY_SHOP);
    let mut cluster = Cluster::start(&world, 2);
    let run = cluster.submit("job.yaml");
    let lost = freeze_one_at_work(&cluster, &run, None);
    let victim = number(&lost.worker);
    wait_for("its partition to be taken over", || {
        let mut lines = partitions(&cluster, &run).into_iter();
        lines.find(|line| line.partition == lost.partition && line.attempt > lost.attempt)
    });
    assert!(cluster.workers[victim].is_still(), "it was frozen all the time");
    let events = cluster.run(&run)["events"].to_string();
    assert!(events.contains(&format!("worker {} lost", lost.worker)), "{events}");

    cluster.workers[victim].thaw();
    let told = || {
        cluster.workers[victim]
            .log()
            .contains("the partition is not leased to this attempt any more")
    };
    wait_for("the zombie to be told that its partition is another's", || {
        told().then_some(())
    });
    // The other one is gone: what is done now, the zombie of before does.
    assert!(cluster.workers[1 - victim].kill(), "it was alive");
    assert_eq!(cluster.run(&run)["state"], "running", "there is work left for it");
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    world.check_sales(ROWS, &sales);
}

/// Freezes the coordinator so that it does not hear of a chunk that is durable: when this returns, the
/// workers have done all that they could. Gives the manifests of such chunks.
fn freeze_before_a_commit_is_heard(world: &World, cluster: &Cluster) -> Vec<PathBuf> {
    wait_for("a chunk that is durable and not acknowledged", || {
        let before = manifests(world);
        if before.is_empty() {
            return None;
        }
        cluster.coordinator.freeze();
        wait_for("the workers to have done what they could", || {
            cluster.workers.iter().all(Process::is_at_rest).then_some(())
        });
        let mut new = manifests(world);
        new.retain(|path| !before.contains(path));
        if new.is_empty() {
            // They had nothing in hand.
            cluster.coordinator.thaw();
            return None;
        }
        Some(new)
    })
}

fn manifests(world: &World) -> Vec<PathBuf> {
    let steps = world.staged("load").into_iter();
    let entries = steps.flat_map(|step| std::fs::read_dir(step.join("manifest")).into_iter().flatten().flatten());
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .collect()
}

/// Whether a chunk with this manifest is among the published files.
fn is_published(world: &World, manifest: &Path) -> bool {
    let stem = |path: &Path| {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        name.split('.').next().unwrap_or_default().to_string()
    };
    world.files("out/load").iter().any(|file| stem(file) == stem(manifest))
}

#[test]
fn a_commit_that_comes_after_the_lease_is_refused() {
    let (world, sales) = World::with_sales(ROWS);
    // Two long ones, so that whoever takes over can be frozen in the midst.
    world.slow_sales_job("{key_range: {column: id}, count: 2}", BY_SHOP);
    let mut cluster = Cluster::start(&world, 1);
    let run = cluster.submit("job.yaml");
    let offered = freeze_before_a_commit_is_heard(&world, &cluster);
    cluster.workers[0].freeze();
    // What it offered lies with the coordinator, which never reads it.
    assert!(cluster.coordinator.kill(), "it was alive");
    cluster.restart_coordinator();
    cluster.add_worker();
    // Its partition goes to the other one, which is frozen in turn: what is refused now would fit the
    // record, and only the fence tells that it must not count.
    let name = offered[0].file_name().expect("a file").to_string_lossy().into_owned();
    let partition = name
        .split('-')
        .nth(1)
        .and_then(|number| number.parse().ok())
        .expect("a name of ours");
    let again = freeze_one_at_work(&cluster, &run, Some(partition));
    assert_eq!(again.worker, "worker-1");
    assert!(cluster.workers[0].is_still(), "it was frozen all the time");
    cluster.workers[0].thaw();
    wait_for("the late commit to be refused", || {
        (cluster.coordinator.metrics().get("gapless_commits_refused_total") >= 1.0).then_some(())
    });
    cluster.workers[1].thaw();
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    world.check_sales(ROWS, &sales);
    for manifest in offered {
        assert!(
            !is_published(&world, &manifest),
            "{manifest:?} was done again by another"
        );
    }
}

#[test]
fn a_worker_that_is_killed_before_its_durable_chunk_is_acknowledged_costs_nothing_and_doubles_nothing() {
    let (world, sales) = World::with_sales(ROWS);
    world.slow_sales_job(LOAD, BY_SHOP);
    let mut cluster = Cluster::start(&world, 1);
    let run = cluster.submit("job.yaml");
    freeze_before_a_commit_is_heard(&world, &cluster);
    assert!(cluster.workers[0].kill(), "it was alive");
    cluster.coordinator.thaw();
    cluster.add_worker();
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    world.check_sales(ROWS, &sales);
}

#[test]
fn a_worker_that_is_killed_at_the_durable_step_of_a_chunk_has_committed_nothing() {
    let (world, sales) = World::with_sales(ROWS);
    world.sales_job(LOAD, BY_SHOP);
    let mut cluster = Cluster::start(&world, 0);
    // Nobody works yet, so that the paths are known before anything happens on them.
    let run = cluster.submit("job.yaml");
    let staged = format!("out/.load.gapless/run/{run}-0");
    let points = [
        ("scatter", format!("scratch/{run}-0/manifest")),
        ("execute", format!("{staged}/data")),
        ("execute", format!("{staged}/manifest")),
    ];
    for (at, (stage, folder)) in points.iter().enumerate() {
        let fault = Fault {
            calls: "fsync",
            action: "signal=KILL:when=1",
            path: &world.path(folder),
        };
        let name = format!("doomed-{at}");
        let arguments = [
            "worker",
            "--endpoint",
            &cluster.endpoint,
            "--slots",
            "1",
            "--name",
            &name,
        ];
        world.start_with(&fault, &name, &arguments).wait_killed();
        let step = &cluster.run(&run)["steps"][0];
        assert_eq!(step["state"], *stage, "killed in that stage: {step:#}");
        assert_eq!(step["partitions"]["done"], 0, "nothing was committed: {step:#}");
    }
    assert!(
        !manifests(&world).is_empty(),
        "the last was killed with its manifest written"
    );
    cluster.add_worker();
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    world.check_sales(ROWS, &sales);
}

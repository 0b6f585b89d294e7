//! Elastic: what is left of a run is cut anew for the workers there are, when they come and when the run
//! is taken up again. What was done is not done again, and the rows are those of any other cut.

use std::fs;

use gapless_tests::{Cluster, World, wait_for};
use serde_json::Value;

/// Some seconds of work for one slot: each number is hashed. Enough to be cut for several slots.
const LONG: u64 = 8_000_000;
/// Of so many numbers one is written.
const EVERY: u64 = 100_000;

/// A step that is cut into four for one slot; the second goes through the exchange.
fn job(world: &World) {
    world.job(&format!(
        r#"job: long
steps:
  - name: count
    source: {{sequence: {{from: 0, to: {LONG}}}}}
    transform: {{sql: "SELECT n FROM input WHERE n % {EVERY} = 0 OR md5(CAST(n AS VARCHAR)) = 'none'"}}
    sink: {{csv: {{path: out/count, files: 3}}}}
"#
    ));
}

fn table(cluster: &Cluster, run: &str) -> Vec<Value> {
    let run = cluster.ask(&["describe", run, "-o", "json"]);
    run["partition_table"].as_array().cloned().unwrap_or_default()
}

/// The tables of a run before and after it was cut anew: what was done, and what was begun, is kept.
fn is_finer(before: &[Value], after: &[Value]) {
    assert!(after.len() > before.len(), "{before:#?}\n{after:#?}");
    let unit = |row: &Value, name: &str| row[name].as_u64().expect("a unit");
    for (row, now) in before.iter().zip(after) {
        assert_eq!(unit(row, "low"), unit(now, "low"));
        assert!(unit(now, "high") <= unit(row, "high") && unit(now, "high") >= unit(row, "position"));
        if row["state"] == "done" {
            assert_eq!(row["high"], now["high"], "done is done: {now:#}");
        }
    }
    let mut ranges: Vec<(u64, u64)> = after.iter().map(|row| (unit(row, "low"), unit(row, "high"))).collect();
    ranges.sort_unstable();
    let ends = ranges.iter().scan(0, |end, (low, high)| {
        let meets = low == end;
        *end = *high;
        Some(meets)
    });
    assert!(ends.into_iter().all(|meets| meets), "they tile: {ranges:?}");
    assert_eq!(ranges.last().map(|(_, high)| *high), Some(LONG));
}

/// The whole answer, each number read once, in the order of the source, and the certificate holds.
fn is_right(world: &World, cluster: &Cluster, run: &str) {
    let ended = cluster.run(run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    assert_eq!(ended["steps"][0]["counters"]["read"], LONG, "{ended:#}");
    let mut files = world.files("out/count");
    files.sort();
    let texts: Vec<String> = files
        .iter()
        .map(|file| fs::read_to_string(file).expect("a file"))
        .collect();
    let rows = texts.iter().flat_map(|text| text.lines().skip(1));
    let rows: Vec<u64> = rows.map(|row| row.parse().expect("a number")).collect();
    assert_eq!(rows, (0..LONG / EVERY).map(|at| at * EVERY).collect::<Vec<_>>());
    let verified = world.gapless(&["verify", run, "--endpoint", &cluster.endpoint]);
    assert_eq!(
        verified.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
}

fn in_the_middle(cluster: &Cluster, run: &str) -> Vec<Value> {
    wait_for("a partition to be read in part", || {
        let table = table(cluster, run);
        let begun = |row: &Value| row["state"] == "running" && row["position"].as_u64() > row["low"].as_u64();
        table.iter().any(begun).then_some(table)
    })
}

#[test]
fn what_is_left_of_a_run_that_is_taken_up_again_is_cut_for_the_workers_there_are() {
    let (world, _) = World::with_sales(1);
    job(&world);
    let mut cluster = Cluster::start(&world, 1);
    let run = cluster.submit("job.yaml");
    in_the_middle(&cluster, &run);
    let stop = world.gapless(&["stop", &run, "--endpoint", &cluster.endpoint]);
    assert!(stop.status.success());
    assert_eq!(cluster.ended(&run)["state"], "stopped");
    let stopped = table(&cluster, &run);
    let begun = |row: &Value| row["position"].as_u64() > row["low"].as_u64();
    assert!(stopped.iter().any(begun), "something is committed: {stopped:#?}");

    (0..3).for_each(|_| cluster.add_worker());
    wait_for("four workers", || {
        let workers = cluster.ask(&["workers", "-o", "json"]);
        (workers.as_array()?.len() == 4).then_some(())
    });
    assert_eq!(cluster.submit("job.yaml"), run, "the same run goes on");
    cluster.ended(&run);
    is_finer(&stopped, &table(&cluster, &run));
    is_right(&world, &cluster, &run);
    let told = world.gapless(&["logs", &run, "--endpoint", &cluster.endpoint]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert_eq!(
        told.matches("cut anew for the slots there are now, 4:").count(),
        1,
        "{told}"
    );
}

#[test]
fn workers_that_join_get_a_share_of_what_is_left_and_a_leader_that_falls_knows_the_new_table() {
    let (world, _) = World::with_sales(1);
    job(&world);
    let mut cluster = Cluster::start(&world, 1);
    let run = cluster.submit("job.yaml");
    let before = in_the_middle(&cluster, &run);
    (0..3).for_each(|_| cluster.add_worker());
    let after = wait_for("what is left to be cut anew", || {
        let table = table(&cluster, &run);
        (table.len() > before.len()).then_some(table)
    });
    is_finer(&before, &after);
    assert!(cluster.coordinator.kill(), "the coordinator is killed");
    cluster.restart_coordinator();
    cluster.ended(&run);
    is_finer(&before, &table(&cluster, &run));
    is_right(&world, &cluster, &run);
}

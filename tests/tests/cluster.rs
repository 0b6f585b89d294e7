//! Several coordinators on a real etcd: the leader dies, another one leads, and the run goes on.

use std::{collections::BTreeMap, fs, path::PathBuf};

use gapless_tests::{World, coordinators::Coordinators, term, wait_for};

const ROWS: u64 = 6_000;
const MANY: &str = "{key_range: {column: id}, count: 24}";

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
    world.slow_sales_job(MANY, "{hash: {columns: [shop]}, count: 8}");
    let mut cluster = Coordinators::start(&world, 1, 3);
    let run = cluster.submit();
    let committed = wait_for("some partitions on record", || {
        cluster.committed(&run).filter(|done| *done >= 3)
    });
    let killed_at = std::time::Instant::now();
    assert!(cluster.coordinator("first").kill(), "the leader was alive");
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
    world.check_sales(ROWS, &sales);
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
    for worker in cluster.workers.values_mut() {
        assert!(worker.is_running());
    }
}

#[test]
fn a_member_of_etcd_that_is_killed_costs_no_fail_over() {
    let (world, sales) = World::with_sales(ROWS);
    world.slow_sales_job(MANY, "{hash: {columns: [shop]}, count: 8}");
    let mut cluster = Coordinators::start(&world, 3, 2);
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
    world.check_sales(ROWS, &sales);
}

#[test]
#[ignore = "measures; run it with --ignored --nocapture"]
fn seconds_from_a_leader_that_is_gone_to_the_next_one() {
    for frozen in [false, true] {
        let mut took: Vec<f64> = (0..7).map(|_| fail_over(frozen)).collect();
        took.sort_by(f64::total_cmp);
        let how = if frozen { "frozen" } else { "killed" };
        println!("{how}: {took:.2?}, median {:.2}", took[took.len() / 2]);
    }
}

/// Seconds until the standby answers callers.
fn fail_over(frozen: bool) -> f64 {
    let (world, _) = World::with_sales(1);
    let mut cluster = Coordinators::start(&world, 1, 0);
    let second = cluster.endpoint("second");
    let first = cluster.coordinator("first");
    let since = std::time::Instant::now();
    if frozen {
        first.freeze();
    } else {
        first.kill();
    }
    wait_for("the standby to lead", || {
        (cluster.leader() == Some("second")).then_some(())
    });
    wait_for("the standby to answer", || cluster.runs(&second));
    since.elapsed().as_secs_f64()
}

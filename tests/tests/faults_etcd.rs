//! Faults of etcd while jobs run: members killed and frozen, the quorum lost, all of it restarted, full,
//! and compacted by others. The answer stays the one computed apart, and nothing is done again that
//! need not be.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use gapless_tests::{
    Sales, World,
    coordinators::{Coordinators, LEADER_TTL_S, LEASE_MS},
    etcd::Etcd,
    etcd_admin::Admin,
    wait_for,
};
use serde_json::Value;

const ROWS: u64 = 6_000;
const LOAD: &str = "{key_range: {column: id}, count: 24}";
const BY_SHOP: &str = "{hash: {columns: [shop]}, count: 8}";

/// Longer than every time to live of these tests.
const LONG: Duration = Duration::from_secs(25);
const _: () = assert!(LONG.as_millis() as u64 > 4 * LEASE_MS && LONG.as_secs() > 4 * LEADER_TTL_S);

/// A job that takes some seconds.
fn world() -> (World, Sales) {
    let (world, sales) = World::with_sales(ROWS);
    world.slow_sales_job(LOAD, BY_SHOP);
    (world, sales)
}

/// Waits for the right end of the run, in which no worker lost what it had in hand.
fn assert_completed_by_all(cluster: &Coordinators, run: &str, sales: &Sales) {
    let ended = cluster.ended(run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    cluster.world.check_sales(ROWS, sales);
    assert_eq!(takeovers(&ended), 0, "each worker kept its attempt: {ended:#}");
}

fn takeovers(run: &Value) -> u64 {
    let steps = run["steps"].as_array().into_iter().flatten();
    steps.filter_map(|step| step["takeovers"].as_u64()).sum()
}

/// Waits until a time has passed since then, while something must hold.
fn hold(since: Instant, time: Duration, mut holds: impl FnMut()) {
    wait_for("time to pass", || {
        holds();
        std::thread::sleep(Duration::from_millis(200));
        (since.elapsed() >= time).then_some(())
    });
}

#[test]
fn the_leader_of_etcd_is_killed_and_no_attempt_is_lost() {
    let (world, sales) = world();
    let mut cluster = Coordinators::start(&world, 3, 2);
    let run = cluster.begin(2);
    let leader = Admin::new(&cluster.etcd).leader();
    cluster.etcd.kill(leader);
    world.assert_unpublished();
    assert_completed_by_all(&cluster, &run, &sales);
}

#[test]
fn without_a_quorum_nobody_is_answered_and_the_run_goes_on_by_itself_when_there_is_one_again() {
    let (world, sales) = world();
    let mut cluster = Coordinators::start(&world, 3, 2);
    let run = cluster.begin(2);
    let admin = Admin::new(&cluster.etcd);
    let leader = admin.leader();
    let other = (leader + 1) % 3;
    cluster.etcd.kill(leader);
    cluster.etcd.kill(other);
    let since = Instant::now();
    world.assert_unpublished();
    wait_for("nobody to lead", || cluster.leader().is_none().then_some(()));
    let committed = world.manifests("load");
    // It asks until somebody may answer, and nobody does.
    let endpoints = cluster.endpoints();
    let mut asking = world.start_as("asking", &["get", &run, "-o", "json", "--endpoints", &endpoints]);
    hold(since, 2 * Duration::from_millis(LEASE_MS), || {
        assert!(asking.is_running(), "nobody can know the answer: {}", asking.log());
        assert_eq!(cluster.leader(), None);
    });
    assert!(
        world.manifests("load") <= committed + cluster.workers.len(),
        "workers finish what they have in hand, and no more"
    );
    world.assert_unpublished();
    cluster.etcd.start_again(other);
    assert_eq!(asking.code(), 0, "and then it is answered: {}", asking.log());
    assert_completed_by_all(&cluster, &run, &sales);
}

#[test]
fn a_leader_of_etcd_that_is_frozen_for_long_is_done_without_and_fits_in_again() {
    let (world, sales) = world();
    let cluster = Coordinators::start(&world, 3, 2);
    let run = cluster.begin(2);
    let admin = Admin::new(&cluster.etcd);
    let leader = admin.leader();
    cluster.etcd.freeze(leader);
    let since = Instant::now();
    world.assert_unpublished();
    assert_completed_by_all(&cluster, &run, &sales);
    hold(since, LONG, || ());
    cluster.etcd.thaw(leader);
    // The member that thawed believes for a moment that it leads etcd: nobody may believe it. The leader's lease may
    // be lost over it, and who has asked the leader meanwhile asks again.
    world.again();
    let run = cluster.submit_named("again");
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    world.check_sales(ROWS, &sales);
    wait_for("the member to follow", || (admin.leader() != leader).then_some(()));
}

#[test]
fn an_etcd_that_is_frozen_as_a_whole_for_long_is_waited_for() {
    let (world, sales) = world();
    let cluster = Coordinators::start(&world, 1, 2);
    let run = cluster.begin(2);
    cluster.etcd.freeze(0);
    let since = Instant::now();
    world.assert_unpublished();
    wait_for("nobody to lead", || cluster.leader().is_none().then_some(()));
    hold(since, LONG, || assert_eq!(cluster.leader(), None));
    world.assert_unpublished();
    cluster.etcd.thaw(0);
    assert_completed_by_all(&cluster, &run, &sales);
}

#[test]
fn all_of_etcd_is_killed_and_started_on_its_data_and_no_attempt_is_lost() {
    let (world, sales) = world();
    let mut cluster = Coordinators::start(&world, 3, 2);
    let run = cluster.begin(2);
    let since = Instant::now();
    (0..3).for_each(|member| cluster.etcd.kill(member));
    world.assert_unpublished();
    hold(since, 2 * Duration::from_millis(LEASE_MS), || ());
    cluster.etcd.start_all_again(&[0, 1, 2]);
    assert_completed_by_all(&cluster, &run, &sales);
}

/// Of the etcd that is filled, in bytes.
const QUOTA: u64 = 16 << 20;

/// What a full etcd is told about: what it is, and what to do.
const FULL_WORDS: [&str; 4] = ["NOSPACE", "compact", "defrag", "alarm disarm"];

fn says_what_to_do(text: &str) -> bool {
    FULL_WORDS.iter().all(|word| text.contains(word))
}

#[test]
fn an_etcd_that_is_full_is_told_with_what_to_do_and_the_run_goes_on_when_there_is_room() {
    let (world, sales) = World::with_sales(2 * ROWS);
    world.slow_sales_job(LOAD, BY_SHOP);
    let etcd = Etcd::start_with(1, &["--quota-backend-bytes", &QUOTA.to_string()]);
    let mut cluster = Coordinators::start_on(&world, etcd, None, 2);
    let admin = Admin::new(&cluster.etcd);
    // What is left is filled in no time.
    admin.fill_up_to(QUOTA / 4);
    let run = cluster.begin(2);
    admin.fill();
    let since = Instant::now();
    world.assert_unpublished();
    wait_for("the log to say what to do", || {
        says_what_to_do(&cluster.coordinator("first").log()).then_some(())
    });
    let endpoints = cluster.endpoints();
    for verb in [&["submit", "job.yaml"][..], &["get", &run], &["list"]] {
        let output = cluster.gapless(&[verb, &["--endpoints", &endpoints]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && says_what_to_do(&said), "{verb:?}: {said}");
    }
    hold(since, 3 * Duration::from_millis(LEASE_MS), || {
        assert_eq!(cluster.leader(), Some("first"), "it keeps its term");
    });
    admin.make_room();
    let output = cluster.gapless(&["submit", "job.yaml", "--endpoints", &endpoints]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && says_what_to_do(&said),
        "the alarm is still there: {said}"
    );
    admin.disarm();
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    world.check_sales(2 * ROWS, &sales);
    assert_eq!(takeovers(&ended), 0, "each worker kept its attempt: {ended:#}");
}

#[test]
fn the_leader_compacts_so_that_etcd_does_not_grow_without_end() {
    const HISTORY: [usize; 2] = [20, 512 << 10];
    let (world, _) = World::with_sales(1);
    let cluster = Coordinators::start(&world, 1, 0);
    let admin = Admin::new(&cluster.etcd);
    let overwrite = || (0..HISTORY[0]).for_each(|_| admin.put("history", HISTORY[1]));
    let bytes = HISTORY.iter().product::<usize>() as u64;
    overwrite();
    // The file grows with the next commit of it.
    let size = wait_for("the history to be stored", || {
        Some(admin.size(0)).filter(|size| *size >= bytes)
    });
    let revision = admin.revision();
    assert!(!admin.is_compacted(revision - 1), "nothing of it is compacted yet");
    wait_for("the leader to compact", || {
        admin.is_compacted(revision - 1).then_some(())
    });
    wait_for("room to be free", || {
        // It is counted with a write.
        admin.put("other", 1);
        (admin.used(0) < bytes / 2).then_some(())
    });
    // As much again goes where the former history was.
    overwrite();
    assert!(
        admin.size(0) < size + bytes / 2,
        "{size} bytes became {}",
        admin.size(0)
    );
}

#[test]
fn others_compact_all_the_time_and_the_standby_leads_when_its_turn_comes() {
    let (world, sales) = world();
    let mut cluster = Coordinators::start(&world, 1, 2);
    let admin = Admin::new(&cluster.etcd);
    let (compactions, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Also when an assertion fails, or the scope would wait for ever.
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                admin.put("other", 1);
                admin.compact(admin.revision());
                compactions.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let so_far = || compactions.load(Ordering::Relaxed);
        let run = cluster.begin(2);
        wait_for("compactions while the standby waits", || (so_far() > 10).then_some(()));
        world.assert_unpublished();
        assert!(cluster.coordinator("first").kill(), "the leader was alive");
        let before = so_far();
        assert_completed_by_all(&cluster, &run, &sales);
        assert!(so_far() > before + 10, "and while it took the lead");
    });
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

//! Faults of the network while jobs run: hosts cut off from each other, in both directions and in one, and
//! packets lost everywhere. Each process has a host of its own; cuts drop packets silently.

use std::time::{Duration, Instant};

use gapless_tests::{
    Process, Sales, World,
    coordinators::{Coordinators, LEADER_TTL_S},
    etcd::Etcd,
    network::Network,
    wait_for,
};
use serde_json::Value;

const ROWS: u64 = 6_000;
const LOAD: &str = "{key_range: {column: id}, count: 24}";
const BY_SHOP: &str = "{hash: {columns: [shop]}, count: 8}";

const TTL: Duration = Duration::from_secs(LEADER_TTL_S);

fn world() -> (World, Sales) {
    let (world, sales) = World::with_sales(ROWS);
    world.slow_sales_job(LOAD, BY_SHOP);
    (world, sales)
}

/// Two coordinators, etcd and two workers, each on a host of its own; `None` where the machine permits no
/// networks.
fn cluster(world: &World) -> Option<Coordinators<'_>> {
    let network = Network::of(&["etcd", "first", "second", "worker-0", "worker-1"])?;
    let etcd = Etcd::start_on(network.host("etcd"));
    Some(Coordinators::start_on(world, etcd, Some(network), 2))
}

fn network<'a>(cluster: &'a Coordinators) -> &'a Network {
    cluster.network.as_ref().expect("it has one")
}

fn completed(cluster: &Coordinators, run: &str, sales: &Sales) -> Value {
    let ended = cluster.ended(run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    cluster.world.check_sales(ROWS, sales);
    ended
}

/// How often this stands in the log.
fn told(process: &Process, words: &str) -> usize {
    process.log().matches(words).count()
}

/// Waits until this stands in the log more often than before.
fn wait_told(process: &Process, words: &str, before: usize) {
    wait_for(words, || (told(process, words) > before).then_some(()));
}

/// Runs the job once more, with the one worker alone: it works.
fn work_alone(cluster: &mut Coordinators, worker: usize, sales: &Sales) {
    assert!(cluster.worker(1 - worker).kill(), "it was alive");
    cluster.world.again();
    let run = cluster.submit();
    completed(cluster, &run, sales);
}

/// Cuts packets between a worker and the leader for longer than a lease: the other worker does its part,
/// and when the cut has healed it comes back and works.
fn a_worker_is_cut_off(ways: &[(&str, &str)]) {
    let (world, sales) = world();
    let Some(mut cluster) = cluster(&world) else { return };
    let run = cluster.begin(2);
    let cut = network(&cluster).cut(ways);
    world.assert_unpublished();
    let sessions = told(cluster.worker(1), "in session");
    wait_told(cluster.coordinator("first"), "worker worker-1 lost", 0);
    let ended = completed(&cluster, &run, &sales);
    let steps = ended["steps"].as_array().cloned().unwrap_or_default();
    let takeovers: u64 = steps.iter().filter_map(|step| step["takeovers"].as_u64()).sum();
    assert!(takeovers >= 1, "what it had in hand ran elsewhere: {ended:#}");
    println!("dropped {:?}", cut.heal());
    wait_told(cluster.worker(1), "in session", sessions);
    // What it had in hand, or had finished and could not offer, is not its own any more.
    wait_told(
        cluster.worker(1),
        "fenced: the partition is not leased to this attempt",
        0,
    );
    work_alone(&mut cluster, 1, &sales);
    world.check_sales(ROWS, &sales);
}

#[test]
fn a_worker_that_is_cut_off_from_the_leader_is_done_without_and_comes_back() {
    a_worker_is_cut_off(&[("worker-1", "first"), ("first", "worker-1")]);
}

#[test]
fn a_worker_that_the_leader_does_not_hear_is_done_without_and_comes_back() {
    a_worker_is_cut_off(&[("worker-1", "first")]);
}

#[test]
fn a_worker_that_does_not_hear_the_leader_is_done_without_and_comes_back() {
    a_worker_is_cut_off(&[("first", "worker-1")]);
}

/// Cuts packets between the leader and etcd for longer than the time to live of its key: the standby leads,
/// and the leader of before stands by when the cut has healed.
fn the_leader_is_cut_off_from_etcd(ways: &[(&str, &str)]) {
    let (world, sales) = world();
    let Some(mut cluster) = cluster(&world) else { return };
    let run = cluster.begin(2);
    let cut = network(&cluster).cut(ways);
    let since = Instant::now();
    world.assert_unpublished();
    let (first, second) = (cluster.endpoint("first"), cluster.endpoint("second"));
    wait_told(cluster.coordinator("first"), "falling silent", 0);
    wait_told(cluster.coordinator("second"), "leading", 0);
    println!("the standby leads {:?} after the cut", since.elapsed());
    // The one of before answers nobody from what it knew: whoever asks it alone waits in vain.
    let mut asking = world.start_on(
        cluster.network.as_ref().map(Network::observer),
        "asking",
        &["get", &run, "-o", "json", "--endpoint", &first],
    );
    let ended = completed(&cluster, &run, &sales);
    assert!(asking.is_running(), "it does not lead: {}", asking.log());
    wait_for("twice the time to live", || (since.elapsed() > 2 * TTL).then_some(()));
    assert!(asking.is_running(), "it does not lead: {}", asking.log());
    println!("dropped {:?}", cut.heal());
    wait_told(cluster.coordinator("first"), "the term is over", 0);
    wait_told(cluster.coordinator("first"), "standing by", 0);
    assert_eq!(asking.code(), 0, "it sends callers to the leader now: {}", asking.log());
    let same = cluster.runs(&first).expect("it sends callers to the leader");
    assert_eq!(Some(&same), cluster.runs(&second).as_ref());
    assert_eq!(ended["events"].to_string().matches("lost").count(), 0, "{ended:#}");
    // It leads again when the other one dies.
    assert!(cluster.coordinator("second").kill(), "it was alive");
    world.again();
    let run = cluster.submit();
    completed(&cluster, &run, &sales);
}

#[test]
fn a_leader_that_is_cut_off_from_etcd_is_followed_and_stands_by() {
    the_leader_is_cut_off_from_etcd(&[("first", "etcd"), ("etcd", "first")]);
}

#[test]
fn a_leader_that_etcd_does_not_hear_is_followed_and_stands_by() {
    the_leader_is_cut_off_from_etcd(&[("first", "etcd")]);
}

#[test]
fn with_every_tenth_packet_lost_the_run_completes() {
    let (world, sales) = world();
    let Some(cluster) = cluster(&world) else { return };
    let loss = network(&cluster).lose_every_tenth();
    let run = cluster.submit();
    completed(&cluster, &run, &sales);
    println!("dropped {:?}", loss.heal());
}

#[test]
fn a_leader_whose_machine_vanishes_is_missed_by_all_who_spoke_to_it() {
    let (world, sales) = world();
    let Some(mut cluster) = cluster(&world) else { return };
    let run = cluster.begin(2);
    let observer = cluster.network.as_ref().map(Network::observer);
    let endpoints = cluster.endpoints();
    let watch = ["watch", &run, "--endpoints", &endpoints];
    let mut watching = world.start_on(observer, "watching", &watch);
    wait_for("the run to be watched", || (!watching.log().is_empty()).then_some(()));
    let others = ["observer", "etcd", "second", "worker-0", "worker-1"];
    let ways: Vec<_> = others
        .iter()
        .flat_map(|other| [(*other, "first"), ("first", *other)])
        .collect();
    let cut = network(&cluster).cut(&ways);
    world.assert_unpublished();
    wait_told(cluster.coordinator("second"), "leading", 0);
    assert_eq!(
        watching.code(),
        0,
        "it looked for the one that leads now: {}",
        watching.log()
    );
    assert_eq!(told(&watching, "lost the coordinator"), 1, "{}", watching.log());
    // Workers miss it after the 5 s of their keep-alive, which is what the next leader gives them here: with
    // times to live as short as these they may come too late for what they had in hand.
    completed(&cluster, &run, &sales);
    println!("dropped {:?}", cut.heal());
    wait_told(cluster.coordinator("first"), "standing by", 0);
}

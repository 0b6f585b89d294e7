//! Faults at random moments, again and again: whatever is killed or frozen, each run publishes what it
//! should. `GAPLESS_FAULT_POINTS` says how many faults (`make nightly` brings many), and `GAPLESS_SEED`
//! which ones; moments are those of the machine, so that one seed is not one trace.

use std::{fs, thread, time::Duration};

use gapless_tests::{
    World,
    coordinators::{Coordinators, LEADER_TTL_S, LEASE_MS},
    wait_for,
};

const ROWS: u64 = 6000;
const LOAD: &str = "{key_range: {column: id}, count: 12}";
const BY_SHOP: &str = "{hash: {columns: [shop]}, count: 3}";

/// Faults unless told otherwise: a minute of them.
const POINTS: u64 = 10;

const MEMBERS: u64 = 3;
const WORKERS: u64 = 3;

/// A run takes twice as long, so that a fault within this time meets it at work.
const RUN_MILLIS: u64 = 1000;

/// What is killed is started again within this time.
const AWAY_MILLIS: u64 = 1500;

/// What is frozen thaws within this time: often, but not always, after its lease or its term.
const FROZEN_MILLIS: u64 = 2 * LEASE_MS;

const _: () = assert!(FROZEN_MILLIS > LEADER_TTL_S * 1000);

/// Numbers by SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn sleep(&mut self, below_millis: u64) -> Duration {
        let time = Duration::from_millis(self.below(below_millis));
        thread::sleep(time);
        time
    }
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is not a number")),
    )
}

/// Kills or freezes something, and brings it back after a while. Says what it was.
fn strike(cluster: &mut Coordinators, random: &mut Random) -> String {
    let kills = random.below(2) == 0;
    let (target, time) = match random.below(6) {
        0..2 => {
            let number = random.below(WORKERS) as usize;
            let time = if kills {
                assert!(cluster.worker(number).kill(), "it was alive");
                let time = random.sleep(AWAY_MILLIS);
                cluster.start_worker(number);
                time
            } else {
                freeze(cluster.worker(number), random)
            };
            (format!("worker {number}"), time)
        }
        2 => {
            for worker in cluster.workers.values_mut() {
                assert!(worker.kill(), "it was alive");
            }
            let time = random.sleep(AWAY_MILLIS);
            (0..WORKERS as usize).for_each(|number| cluster.start_worker(number));
            return format!("all workers killed for {time:?}");
        }
        role @ (3 | 4) => {
            let leader = wait_for("a leader", || cluster.leader());
            let standby = if leader == "first" { "second" } else { "first" };
            let (name, role) = if role == 3 {
                (leader, "leader")
            } else {
                (standby, "standby")
            };
            let time = if kills {
                assert!(cluster.coordinator(name).kill(), "it was alive");
                let time = random.sleep(AWAY_MILLIS);
                cluster.start_coordinator(name);
                time
            } else {
                freeze(cluster.coordinator(name), random)
            };
            (format!("the {role}"), time)
        }
        _ => {
            let member = random.below(MEMBERS) as usize;
            let time = if kills {
                cluster.etcd.kill(member);
                let time = random.sleep(AWAY_MILLIS);
                cluster.etcd.start_again(member);
                time
            } else {
                cluster.etcd.freeze(member);
                let time = random.sleep(FROZEN_MILLIS);
                cluster.etcd.thaw(member);
                time
            };
            (format!("etcd member {member}"), time)
        }
    };
    format!("{target} {} for {time:?}", if kills { "killed" } else { "frozen" })
}

fn freeze(process: &gapless_tests::Process, random: &mut Random) -> Duration {
    process.freeze();
    let time = random.sleep(FROZEN_MILLIS);
    assert!(process.is_still(), "it was frozen all the time");
    process.thaw();
    time
}

#[test]
fn whatever_dies_whenever_each_run_publishes_each_record_once() {
    let clock = || {
        std::time::UNIX_EPOCH
            .elapsed()
            .expect("after 1970")
            .subsec_nanos()
            .into()
    };
    let seed = setting("GAPLESS_SEED").unwrap_or_else(clock);
    let points = setting("GAPLESS_FAULT_POINTS").unwrap_or(POINTS);
    println!("GAPLESS_SEED={seed} GAPLESS_FAULT_POINTS={points}");
    let mut random = Random(seed);
    let (world, sales) = World::with_sales(ROWS);
    world.slow_sales_job(LOAD, BY_SHOP);
    let mut cluster = Coordinators::start(&world, MEMBERS as usize, WORKERS as usize);
    let (mut struck, mut under_way, mut round) = (0, 0, 0);
    while struck < points {
        round += 1;
        let run = cluster.submit_for(&format!("{}-01-01", 2000 + round));
        for number in 0..=random.below(3) {
            let after = random.sleep(RUN_MILLIS);
            let meets_run = ["load", "by-shop"].iter().any(|step| world.verdicts(step).is_empty());
            if number > 0 && !meets_run {
                break;
            }
            let fault = strike(&mut cluster, &mut random);
            struck += 1;
            under_way += u64::from(meets_run);
            let met = if meets_run { "under way" } else { "over" };
            println!("point {struck}, run {round} {met}: {fault}, {after:?} after what was before");
        }
        let ended = cluster.ended(&run);
        assert_eq!(ended["state"], "completed", "seed {seed}, point {struck}: {ended:#}");
        world.check_sales(ROWS, &sales);
        fs::rename(world.path("out"), world.path(&format!("out-{round}"))).expect("moved");
    }
    println!("{struck} faults, {under_way} of them met a run under way, in {round} runs");
    assert!(under_way * 2 >= struck, "most faults meet a run");
}

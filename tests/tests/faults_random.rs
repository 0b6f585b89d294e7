//! Faults at random moments, one or two at a time: whatever is killed, frozen or told to end, each run
//! publishes what it should. `GAPLESS_FAULT_POINTS` says how many faults (`make nightly` brings many), and `GAPLESS_SEED`
//! which ones; moments are those of the machine, so that one seed is not one trace.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use gapless_tests::{
    Process, Sales, World,
    coordinators::{Coordinators, LEADER_TTL_S, LEASE_MS},
    wait_for,
};
use rustix::process::Signal;

const ROWS: u64 = 12_000;
const LOAD: &str = "{key_range: {column: id}, count: 12}";
const BY_SHOP: &str = "{hash: {columns: [shop]}, count: 3}";

/// Faults unless told otherwise: a minute of them.
const POINTS: u64 = 10;

const MEMBERS: u64 = 3;
const WORKERS: u64 = 3;

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

/// What a fault meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Worker(usize),
    AllWorkers,
    Coordinator(&'static str),
    Member(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Killed,
    Frozen,
    /// By SIGTERM.
    Ended,
}

/// Something that is away for a while.
#[derive(Debug)]
struct Fault {
    target: Target,
    way: Way,
    away: Duration,
}

impl Fault {
    /// A fault at a leader, whoever that is now, and one at a standby, are as likely as one at a worker.
    fn any(cluster: &Coordinators, random: &mut Random) -> Fault {
        let target = match random.below(7) {
            0 | 1 => Target::Worker(random.below(WORKERS) as usize),
            2 => Target::AllWorkers,
            role @ (3 | 4) => {
                let leader = wait_for("a leader", || cluster.leader());
                let standby = if leader == "first" { "second" } else { "first" };
                Target::Coordinator(if role == 3 { leader } else { standby })
            }
            _ => Target::Member(random.below(MEMBERS) as usize),
        };
        let way = [Way::Killed, Way::Frozen, Way::Ended][random.below(3) as usize];
        let longest = if way == Way::Frozen { FROZEN_MILLIS } else { AWAY_MILLIS };
        let away = Duration::from_millis(random.below(longest));
        Fault { target, way, away }
    }

    /// Whether both can be at the same time: two of three members of etcd are needed, and what is gone
    /// cannot be frozen.
    fn bears(&self, other: &Fault) -> bool {
        match (self.target, other.target) {
            (Target::Member(_), Target::Member(_)) => false,
            (Target::AllWorkers, Target::Worker(_) | Target::AllWorkers) => false,
            (Target::Worker(_), Target::AllWorkers) => false,
            (one, another) => one != another,
        }
    }

    fn strike(&self, cluster: &mut Coordinators) {
        match self.target {
            Target::Worker(number) => strike(cluster.worker(number), self.way),
            Target::AllWorkers => cluster.workers.values_mut().for_each(|worker| strike(worker, self.way)),
            Target::Coordinator(name) => strike(cluster.coordinator(name), self.way),
            Target::Member(number) => match self.way {
                Way::Killed => cluster.etcd.kill(number),
                Way::Frozen => cluster.etcd.freeze(number),
                Way::Ended => cluster.etcd.stop(number),
            },
        }
    }

    fn mend(&self, cluster: &mut Coordinators) {
        let (way, workers) = (self.way, 0..WORKERS as usize);
        let worker = |cluster: &mut Coordinators, number| {
            if mend(cluster.worker(number), way) == Mended::IsGone {
                cluster.start_worker(number);
            }
        };
        match self.target {
            Target::Worker(number) => worker(cluster, number),
            Target::AllWorkers => workers.for_each(|number| worker(cluster, number)),
            Target::Coordinator(name) => {
                if mend(cluster.coordinator(name), way) == Mended::IsGone {
                    cluster.start_coordinator(name);
                }
            }
            Target::Member(number) if way == Way::Frozen => cluster.etcd.thaw(number),
            Target::Member(number) => cluster.etcd.start_again(number),
        }
    }
}

fn strike(process: &mut Process, way: Way) {
    match way {
        Way::Killed => assert!(process.kill(), "it was alive"),
        Way::Frozen => process.freeze(),
        Way::Ended => process.signal(Signal::TERM),
    }
}

#[derive(PartialEq, Eq)]
enum Mended {
    Works,
    IsGone,
}

fn mend(process: &mut Process, way: Way) -> Mended {
    match way {
        Way::Killed => Mended::IsGone,
        Way::Frozen => {
            assert!(process.is_still(), "it was frozen all the time");
            process.thaw();
            Mended::Works
        }
        Way::Ended => {
            assert_eq!(process.code(), 0, "it ends in order: {}", process.log());
            Mended::IsGone
        }
    }
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
    // How long a run takes here that nothing meets: a fault within most of that time meets one at work.
    let run = cluster.submit_for("2000-01-01");
    let submitted = Instant::now();
    wait_for("the run that nothing meets", || is_settled(&world).then_some(()));
    let meets_within = submitted.elapsed().as_millis() as u64 * 3 / 4;
    finish(&world, &cluster, &run, &sales, 0);
    println!("a fault comes within {meets_within} ms");
    let (mut struck, mut under_way, mut round) = (0, 0, 0);
    while struck < points {
        round += 1;
        let run = cluster.submit_for(&format!("{}-01-01", 2000 + round));
        for number in 0..=random.below(3) {
            let after = random.sleep(meets_within);
            let meets_run = !is_settled(&world);
            if number > 0 && !meets_run {
                break;
            }
            let mut faults = vec![Fault::any(&cluster, &mut random)];
            let another = Fault::any(&cluster, &mut random);
            if random.below(3) == 0 && faults[0].bears(&another) {
                faults.push(another);
            }
            struck += faults.len() as u64;
            under_way += if meets_run { faults.len() as u64 } else { 0 };
            let met = if meets_run { "under way" } else { "over" };
            println!("point {struck}, run {round} {met}, {after:?} after what was before: {faults:?}");
            faults.iter().for_each(|fault| fault.strike(&mut cluster));
            faults.sort_by_key(|fault| fault.away);
            let mut passed = Duration::ZERO;
            for fault in &faults {
                thread::sleep(fault.away - passed);
                passed = fault.away;
                fault.mend(&mut cluster);
            }
        }
        finish(&world, &cluster, &run, &sales, round);
    }
    println!("{struck} faults, {under_way} of them met a run under way, in {round} runs");
    assert!(under_way * 2 >= struck, "most faults meet a run");
}

/// Both steps have their verdicts.
fn is_settled(world: &World) -> bool {
    ["load", "by-shop"].iter().all(|step| !world.verdicts(step).is_empty())
}

/// The run ends with each record published once; its output makes room for the next run's.
fn finish(world: &World, cluster: &Coordinators, run: &str, sales: &Sales, round: u64) {
    let ended = cluster.ended(run);
    assert_eq!(ended["state"], "completed", "round {round}: {ended:#}");
    world.check_sales(ROWS, sales);
    fs::rename(world.path("out"), world.path(&format!("out-{round}"))).expect("moved");
}

//! The decision core in a simulated world: production decisions, fake store, fake shell, fake
//! workers, random jobs, and every kind of trouble; then calm, and everything must end.
//!
//! After each step the invariants are checked (`watch`, `gapless_core::invariants`), and that the
//! rows give the same state again. `GAPLESS_SEED=n` runs one seed and prints its course.

mod attempt;
mod jobs;
mod leader;
mod output;
mod rng;
mod scale;
mod store;
mod watch;
mod worker;
mod world;

use std::{
    collections::BTreeMap,
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use world::simulate;

/// Seeds of a normal test run.
const SEEDS: u64 = 500;

/// Runs one seed; the error says what was broken.
fn outcome(seed: u64, counts: &mut BTreeMap<&'static str, u64>) -> Result<(), String> {
    let run = catch_unwind(AssertUnwindSafe(|| simulate(seed, false)));
    match run {
        Ok((result, world)) => {
            for (what, times) in world.counts {
                *counts.entry(what).or_default() += times;
            }
            result
        }
        Err(panic) => Err(panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
            .unwrap_or_else(|| "a panic without words".into())),
    }
}

#[test]
fn every_seed_keeps_every_promise() {
    if let Some(seed) = env::var("GAPLESS_SEED").ok().and_then(|seed| seed.parse().ok()) {
        let (result, world) = simulate(seed, true);
        world.trace().iter().for_each(|line| println!("{line}"));
        result.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        return;
    }
    let seeds = env::var("GAPLESS_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(SEEDS);
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let work = || {
        let (mut broken, mut counts) = (Vec::new(), BTreeMap::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return (broken, counts);
            }
            if let Err(what) = outcome(seed, &mut counts) {
                broken.push((seed, what));
            }
        }
    };
    let (mut broken, mut counts) = (Vec::new(), BTreeMap::<&str, u64>::new());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let (found, counted) = thread.join().expect("failures are caught");
            broken.extend(found);
            counted
                .into_iter()
                .for_each(|(what, times)| *counts.entry(what).or_default() += times);
        }
    });
    println!(
        "{:.0} seeds/s; {counts:?}",
        seeds as f64 / began.elapsed().as_secs_f64()
    );
    broken.sort();
    let shown: Vec<String> = broken
        .iter()
        .take(12)
        .map(|(seed, what)| format!("seed {seed}: {what}"))
        .collect();
    assert!(
        broken.is_empty(),
        "{} of {seeds} seeds broke a promise; see one with GAPLESS_SEED=n\n{}",
        broken.len(),
        shown.join("\n")
    );
    let silent: Vec<_> = FAULTS.iter().filter(|fault| !counts.contains_key(*fault)).collect();
    assert!(
        silent.is_empty() || seeds < SEEDS,
        "these faults never happened: {silent:?}"
    );
}

const FAULTS: [&str; 25] = [
    "a batch arrives again",
    "a batch of a former term arrives",
    "a batch of a former term comes in its turn",
    "a partition with commits is narrowed",
    "a step begins anew",
    "a step goes on with its inputs unchanged",
    "a step is cut anew",
    "a task fails",
    "a task kills its worker",
    "an input changed between failure and resume",
    "an input changes while its run goes",
    "broken link",
    "cancel",
    "commit out of order",
    "crash before the write",
    "crash between write and effects",
    "doubled message",
    "drain",
    "late message",
    "leader crash",
    "lost message",
    "stop",
    "submit with another text",
    "unknown outcome",
    "worker pause",
];

#[test]
fn the_same_seed_has_the_same_course() {
    for seed in [1, 7, 42] {
        let (first, again) = (simulate(seed, true).1, simulate(seed, true).1);
        assert!(first.trace().len() > 20, "seed {seed} does nothing");
        let differ = first.trace().iter().zip(again.trace()).find(|(a, b)| a != b);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(first.trace().len(), again.trace().len(), "seed {seed}");
    }
}

/// The figures are of a full size: `cargo test --release -p gapless-core --test simulation -- --ignored --nocapture`.
fn at_size(workers: usize, partitions: u64) {
    let course = scale::simulate(&scale::Size { workers, partitions }, 1).unwrap_or_else(|broken| panic!("{broken}"));
    println!("{workers} workers, {partitions} partitions: {:?}", course.counts);
    println!("stored at the end: {} rows, {} bytes", course.rows, course.bytes);
    for (tenth, cost) in course.tenths.iter().enumerate() {
        let each = cost.took.as_nanos() / u128::from(cost.events.max(1));
        println!("tenth {}: {} events, {each} ns each", tenth + 1, cost.events);
    }
    let silent: Vec<_> = scale::FAULTS
        .iter()
        .filter(|fault| !course.counts.contains_key(*fault))
        .collect();
    assert!(silent.is_empty(), "these faults never happened: {silent:?}");
}

#[test]
fn every_promise_holds_for_a_thousand_workers() {
    at_size(1_000, 100_000);
}

#[test]
#[ignore = "half a minute on an idle machine; `make nightly` runs it"]
fn every_promise_holds_for_ten_thousand_workers_and_a_million_partitions() {
    at_size(10_000, 1_000_000);
}

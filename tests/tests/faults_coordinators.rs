//! Coordinators on a real etcd that freeze past their term, everything that dies at once, and a restart
//! of every process while a run is under way.

use std::{
    fs,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use gapless_tests::{
    World,
    coordinators::{Coordinators, submit_for},
    gapless, wait_for,
};
use rustix::process::Signal;
use serde_json::Value;

const ROWS: u64 = 6000;
const LOAD: &str = "{key_range: {column: id}, count: 12}";
const BY_SHOP: &str = "{hash: {columns: [shop]}, count: 4}";

/// Clients that ask a frozen coordinator at the same time.
const CLIENTS: usize = 8;

/// Clients that ask this coordinator for a run, and wait for its answer.
fn ask_at(endpoint: &str, run: &str) -> Vec<Child> {
    let ask = || {
        let mut command = Command::new(gapless());
        command.args(["get", run, "-o", "json", "--endpoint", endpoint]);
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("the program starts")
    };
    (0..CLIENTS).map(|_| ask()).collect()
}

#[test]
fn a_leader_that_is_frozen_past_its_term_steps_down_and_does_not_answer_from_its_old_state() {
    let (world, sales) = World::with_sales(ROWS);
    world.slow_sales_job(LOAD, BY_SHOP);
    let mut cluster = Coordinators::start(&world, 1, 2);
    let run = cluster.submit();
    wait_for("some partitions on record", || {
        cluster.committed(&run).filter(|done| *done >= 2)
    });
    // Without workers it has nothing to write when it thaws: no refused write tells it that it leads no more.
    kill_workers(&mut cluster);
    cluster.coordinator("first").freeze();
    assert!(
        !world.path("out/load").exists(),
        "the freeze came before the output was to be seen"
    );
    let second = cluster.endpoint("second");
    wait_for("the standby to lead", || {
        (cluster.leader() == Some("second")).then_some(())
    });
    (2..4).for_each(|number| cluster.start_worker(number));
    let completed = wait_for("the second to complete the run", || {
        let output = world.gapless(&["get", &run, "-o", "json", "--endpoint", &second]);
        let run: Value = serde_json::from_slice(&output.stdout).ok()?;
        (run["state"] == "completed").then_some(run)
    });
    assert!(cluster.coordinator("first").is_still(), "it was frozen all the time");
    world.check_sales(ROWS, &sales);

    // They ask before it thaws, so that it meets their questions before anything else.
    let first = cluster.endpoint("first");
    let mut clients = ask_at(&first, &run);
    wait_for("the clients to wait for it", || {
        clients.iter_mut().all(waits).then_some(())
    });
    cluster.coordinator("first").thaw();
    for client in clients {
        let output = client.wait_with_output().expect("it ends");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        assert_eq!(
            answer["state"], "completed",
            "an answer of before the freeze: {output:?}"
        );
        assert_eq!(answer["finished"], completed["finished"]);
    }
    wait_for("the first to have stepped down", || {
        let metrics = cluster.coordinator("first").metrics();
        (metrics.get("gapless_leader") == 0.0).then_some(())
    });
    assert_eq!(cluster.leader(), Some("second"));
    world.check_sales(ROWS, &sales);
    // The whole of it is known to the second alone, and it is asked for again without harm.
    let again = world.gapless(&["submit", "job.yaml", "--endpoint", &first]);
    assert_eq!(again.status.code(), Some(7), "complete: {again:?}");
}

/// Kills all workers, and waits until the leader has missed the last of them.
fn kill_workers(cluster: &mut Coordinators) {
    for worker in cluster.workers.values_mut() {
        assert!(worker.kill(), "it was alive");
    }
    cluster.workers.clear();
    wait_for("the last of them to be missed", || {
        let workers = cluster.ask(&["workers", "-o", "json"]);
        workers.as_array().is_some_and(Vec::is_empty).then_some(())
    });
}

/// Whether a client has sent its question: it sleeps, with nothing to do but wait.
fn waits(client: &mut Child) -> bool {
    assert_eq!(client.try_wait().expect("waitable"), None, "nobody has answered yet");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", client.id())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

#[test]
fn workers_that_all_die_are_followed_by_new_ones() {
    let (world, sales) = World::with_sales(ROWS);
    world.slow_sales_job(LOAD, BY_SHOP);
    let mut cluster = Coordinators::start(&world, 1, 3);
    let run = cluster.submit();
    let committed = wait_for("some partitions on record", || {
        cluster.committed(&run).filter(|done| *done >= 2)
    });
    kill_workers(&mut cluster);
    let step = &cluster.run(&run)["steps"][0];
    let (state, done) = (&step["state"], step["partitions"]["done"].as_u64());
    assert!(
        state == "execute" && done >= Some(committed),
        "it waits for workers: {step:#}"
    );
    (3..5).for_each(|number| cluster.start_worker(number));
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    world.check_sales(ROWS, &sales);
}

#[test]
fn everything_but_etcd_dies_and_the_run_goes_on_when_it_is_started_again() {
    let (world, sales) = World::with_sales(ROWS);
    world.slow_sales_job(LOAD, BY_SHOP);
    let mut cluster = Coordinators::start(&world, 1, 2);
    let run = cluster.submit();
    let committed = wait_for("some partitions on record", || {
        cluster.committed(&run).filter(|done| *done >= 2)
    });
    for worker in cluster.workers.values_mut() {
        assert!(worker.kill(), "it was alive");
    }
    for name in ["first", "second"] {
        assert!(cluster.coordinator(name).kill(), "it was alive");
    }
    assert!(
        !world.path("out/load").exists(),
        "it all died before the output was to be seen"
    );
    for name in ["second", "first"] {
        cluster.start_coordinator(name);
    }
    (0..2).for_each(|number| cluster.start_worker(number));
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    world.check_sales(ROWS, &sales);
    let of_first_term = world
        .files("out/load")
        .iter()
        .filter(|file| gapless_tests::term(file) == term_of(&world))
        .count();
    assert!(
        of_first_term as u64 >= committed,
        "what was on record is not done again"
    );
}

/// The first term in which a published file of `load` was written.
fn term_of(world: &World) -> u64 {
    world
        .files("out/load")
        .iter()
        .map(|file| gapless_tests::term(file))
        .min()
        .expect("files")
}

/// What the history of a run has of these kinds.
fn history(world: &World, endpoints: &str, run: &str, kinds: &[&str]) -> Vec<Value> {
    let output = world.gapless(&["logs", run, "-o", "json", "--endpoints", endpoints]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let events = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"));
    let of_kind = |event: &Value| kinds.iter().any(|kind| event["kind"] == *kind);
    events.filter(of_kind).collect()
}

/// Runs the job again and again until told to end, and checks each run. Gives how many there were.
fn keep_running(world: &World, sales: &gapless_tests::Sales, endpoints: &str, end: &AtomicBool) -> u32 {
    let mut runs = 0;
    while !end.load(Ordering::Relaxed) {
        runs += 1;
        let run = submit_for(world, endpoints, &format!("2026-01-{runs:02}"));
        let ended = wait_for("the run to end", || {
            let output = world.gapless(&["get", &run, "-o", "json", "--endpoints", endpoints]);
            let run: Value = serde_json::from_slice(&output.stdout).ok()?;
            (!matches!(run["state"].as_str()?, "running" | "stopping" | "cancelling")).then_some(run)
        });
        assert_eq!(ended["state"], "completed", "{ended:#}");
        world.check_sales(ROWS, sales);
        let spent = history(world, endpoints, &run, &["retry", "failure"]);
        assert!(spent.is_empty(), "no attempt was used up: {spent:#?}");
        fs::rename(world.path("out"), world.path(&format!("out-{runs}"))).expect("moved");
    }
    runs
}

#[test]
fn a_restart_of_every_process_one_by_one_costs_no_attempt() {
    let (world, sales) = World::with_sales(ROWS);
    world.slow_sales_job(LOAD, BY_SHOP);
    let mut cluster = Coordinators::start(&world, 3, 3);
    let (endpoints, end) = (cluster.endpoints(), AtomicBool::new(false));
    let (world, sales, endpoints, end) = (&world, &sales, endpoints.as_str(), &end);
    let runs = thread::scope(|scope| {
        let running = scope.spawn(move || keep_running(world, sales, endpoints, end));
        // Each is restarted in the midst of a run, and the next only when all is as before.
        let at_work = |cluster: &Coordinators| {
            wait_for("a run under way", || {
                assert!(!running.is_finished(), "runs go on");
                let runs = cluster.ask(&["list", "-o", "json"]);
                let run = runs[0]["run"].as_str()?.to_string();
                cluster.committed(&run).filter(|done| (1..10).contains(done))
            });
        };
        for member in 0..3 {
            at_work(&cluster);
            cluster.etcd.stop(member);
            at_work(&cluster);
            cluster.etcd.start_again(member);
        }
        for name in ["first", "second"] {
            at_work(&cluster);
            let process = cluster.coordinator(name);
            process.signal(Signal::TERM);
            assert_eq!(process.code(), 0, "{}", process.log());
            at_work(&cluster);
            cluster.start_coordinator(name);
        }
        for number in 0..3 {
            at_work(&cluster);
            let process = cluster.worker(number);
            process.signal(Signal::TERM);
            assert_eq!(process.code(), 0, "{}", process.log());
            cluster.start_worker(number);
            cluster.wait_workers();
        }
        at_work(&cluster);
        end.store(true, Ordering::Relaxed);
        running.join().expect("every run was right")
    });
    assert!(runs > 1);
    println!("{runs} runs through the restart of 8 processes");
}

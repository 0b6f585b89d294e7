//! Workers that leave or lose their connection in the middle of a long partition: what they have read
//! counts, nothing is read twice, and nothing is held against the partition. And steps that wait for a
//! worker with their labels.

use std::{
    collections::BTreeSet,
    io,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use gapless_tests::{Cluster, Process, World, wait_for};
use rustix::process::Signal;
use serde_json::Value;

/// Some seconds of work for one slot: each number is hashed.
const LONG: u64 = 20_000_000;
/// Of so many numbers one is written.
const EVERY: u64 = 100_000;

/// One partition that can stop at any batch.
fn long_job(world: &World) {
    world.job(&format!(
        r#"job: long
steps:
  - name: count
    source: {{sequence: {{from: 0, to: {LONG}}}}}
    partition: {{count: 1}}
    transform: {{sql: "SELECT n FROM input WHERE n % {EVERY} = 0 OR md5(CAST(n AS VARCHAR)) = 'none'"}}
    sink: {{csv: {{path: out/count}}}}
"#
    ));
}

/// The first row of the partition table, once the step is in its last stage.
fn partition(cluster: &Cluster, run: &str) -> Option<Value> {
    let run = cluster.ask(&["describe", run, "-o", "json"]);
    let first = run["partition_table"].get(0)?;
    (run["steps"][0]["state"] == "execute").then(|| first.clone())
}

/// Waits until a worker has read some of the partition, in this attempt.
fn in_the_middle(cluster: &Cluster, run: &str, attempt: u64, beyond: u64) -> Value {
    wait_for("the partition to be read in part", || {
        let found = partition(cluster, run)?;
        let position = found["position"].as_u64()?;
        let reads = found["state"] == "running" && found["attempt"] == attempt && position > beyond;
        (reads && position < LONG).then_some(found)
    })
}

fn position(partition: &Value) -> u64 {
    partition["position"].as_u64().expect("a position")
}

/// Nothing of what happened to the run counts against it.
fn costs_nothing(run: &Value) {
    assert_eq!(run["steps"][0]["takeovers"], 0, "{run:#}");
    let told = |kind: &str| {
        let events = run["events"].as_array().expect("events");
        events.iter().any(|event| event["kind"] == kind)
    };
    assert!(!told("retry") && !told("failure") && !told("worker-lost"), "{run:#}");
}

fn numbers(world: &World) -> Vec<u64> {
    let mut numbers: Vec<u64> = world
        .rows("out/count")
        .iter()
        .map(|row| row.parse().expect("a number"))
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_worker_that_is_told_to_leave_commits_what_it_has_read_and_another_goes_on_there() {
    let (world, _) = World::with_sales(1);
    long_job(&world);
    let mut cluster = Cluster::start(&world, 1);
    let run = cluster.submit("job.yaml");
    in_the_middle(&cluster, &run, 1, 0);
    cluster.workers[0].signal(Signal::TERM);
    assert_eq!(cluster.workers[0].code(), 0, "{}", cluster.workers[0].log());

    let left = partition(&cluster, &run).expect("on record");
    let checkpoint = position(&left);
    assert!(checkpoint > 0 && checkpoint < LONG, "{left:#}");
    assert_eq!(
        (&left["state"], &left["attempt"]),
        (&"waiting".into(), &1.into()),
        "{left:#}"
    );
    assert_eq!(left["counters"]["read"], checkpoint, "all of it is committed: {left:#}");
    assert_eq!(world.manifests("count"), 1);
    costs_nothing(&cluster.run(&run));

    cluster.add_worker();
    let next = in_the_middle(&cluster, &run, 2, checkpoint);
    assert!(position(&next) > checkpoint, "it goes on: {next:#}");
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    assert_eq!(ended["steps"][0]["counters"]["read"], LONG);
    assert_eq!(
        numbers(&world),
        (0..LONG / EVERY).map(|at| at * EVERY).collect::<Vec<_>>()
    );
    // part-<partition>-<term>-<serial>-<sequence>: no chunk was written by both.
    let files = world.files("out/count");
    let name = |path: &std::path::PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let parts: Vec<Vec<String>> = files
        .iter()
        .map(|path| name(path).split('-').map(str::to_string).collect())
        .collect();
    let attempts: BTreeSet<&str> = parts.iter().map(|part| part[3].as_str()).collect();
    let chunks: BTreeSet<&str> = parts.iter().map(|part| part[4].as_str()).collect();
    assert_eq!((attempts.len(), chunks.len()), (2, files.len()), "{parts:?}");
}

/// Of two attempts that a partition has, one that ends with its worker is none. Here the next one fails, and the one
/// after it completes: had leaving counted, there would have been one too many.
#[test]
fn a_worker_that_is_told_to_leave_uses_up_none_of_the_attempts() {
    let world = World::empty();
    world.job(
        r#"job: tried
steps:
  - name: count
    source: {sequence: {from: 0, to: 2000000}}
    partition: {count: 1}
    transform: {command: {run: [sh, program.sh], format: ndjson, columns: {n: int64}}}
    sink: {csv: {path: out/count}}
    on_error: {retry: {attempts: 2}}
"#,
    );
    // The first attempt is slow, the second fails in a way that may pass.
    let program = "case $GAPLESS_ATTEMPT in\n1) while read -r line; do echo \"$line\"; done;;\n2) exit 75;;\n*) exec cat;;\nesac\n";
    std::fs::write(world.path("program.sh"), program).expect("written");
    let cluster = Cluster::start(&world, 0);
    let start = |name| worker(&world, name, &cluster.endpoint, &["--allow-command"]);
    let mut leaving = start("leaving");
    let run = cluster.submit("job.yaml");
    wait_for("the first attempt to be under way", || {
        let found = partition(&cluster, &run)?;
        (found["state"] == "running" && found["attempt"] == 1).then_some(())
    });
    leaving.signal(Signal::TERM);
    assert_eq!(leaving.code(), 0, "{}", leaving.log());
    let left = partition(&cluster, &run).expect("on record");
    assert_eq!(
        (&left["state"], &left["attempt"]),
        (&"waiting".into(), &1.into()),
        "{left:#}"
    );
    costs_nothing(&cluster.run(&run));

    let _staying = start("staying");
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    let events = ended["events"].as_array().expect("events");
    let retries: Vec<&Value> = events.iter().filter(|event| event["kind"] == "retry").collect();
    assert!(
        matches!(retries.as_slice(), [one] if one.to_string().contains("exit code 75")),
        "the second attempt failed, and no other: {ended:#}"
    );
    assert_eq!(numbers(&world), (0..2_000_000).collect::<Vec<_>>());
}

#[test]
fn a_partition_that_cannot_stop_is_given_back_when_the_drain_ends() {
    let (world, _) = World::with_sales(1);
    // One aggregate over all: there is no checkpoint before its end.
    world.job(&format!(
        r#"job: long
steps:
  - name: most
    source: {{sequence: {{from: 0, to: {}}}}}
    partition: {{count: 1}}
    transform: {{sql: "SELECT max(md5(CAST(n AS VARCHAR))) AS most FROM input"}}
    sink: {{csv: {{path: out/most}}}}
"#,
        50 * LONG
    ));
    let mut cluster = Cluster::start(&world, 1);
    let run = cluster.submit("job.yaml");
    in_the_middle(&cluster, &run, 1, 0);
    cluster.workers[0].signal(Signal::TERM);
    assert_eq!(cluster.workers[0].code(), 0, "{}", cluster.workers[0].log());
    let log = cluster.workers[0].log();
    assert!(log.contains("no checkpoint within the drain's limit"), "{log}");

    let left = partition(&cluster, &run).expect("on record");
    assert_eq!((&left["state"], position(&left)), (&"waiting".into(), 0), "{left:#}");
    costs_nothing(&cluster.run(&run));
    cluster.add_worker();
    in_the_middle(&cluster, &run, 2, 0);
    let cancelled = world.gapless(&["cancel", &run, "--endpoint", &cluster.endpoint]);
    assert!(
        cancelled.status.success(),
        "{}",
        String::from_utf8_lossy(&cancelled.stderr)
    );
    assert_eq!(cluster.ended(&run)["state"], "cancelled");
}

/// Stands between a worker and its coordinator, and can cut the line.
struct Line {
    address: String,
    open: Arc<Mutex<Vec<TcpStream>>>,
    over: Arc<AtomicBool>,
}

impl Line {
    fn to(endpoint: &str) -> Line {
        let target = endpoint.trim_start_matches("http://").to_string();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let line = Line {
            address: listener.local_addr().expect("bound").to_string(),
            open: Arc::default(),
            over: Arc::default(),
        };
        let (open, over) = (line.open.clone(), line.over.clone());
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if over.load(Ordering::Acquire) {
                    return;
                }
                let Ok(far) = TcpStream::connect(&target) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().expect("cloned"), to.try_clone().expect("cloned"));
                    thread::spawn(move || {
                        // Ends with either side.
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                open.lock().expect("whole").extend([near, far]);
            }
        });
        line
    }

    /// Breaks what is open. New connections are taken.
    fn cut(&self) -> usize {
        let cut: Vec<TcpStream> = self.open.lock().expect("whole").drain(..).collect();
        cut.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        cut.len()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.cut();
        // So that it sees the flag.
        let _ = TcpStream::connect(&self.address);
    }
}

fn worker(world: &World, name: &str, endpoint: &str, more: &[&str]) -> Process {
    let arguments = ["worker", "--endpoint", endpoint, "--slots", "1", "--name", name];
    world.start_as(name, &[&arguments, more].concat())
}

#[test]
fn a_worker_whose_connection_breaks_comes_back_and_keeps_its_open_chunk() {
    /// A busy machine may take longer to come back than it is waited for; not each time.
    const CUTS: u64 = 5;
    let (world, _) = World::with_sales(1);
    long_job(&world);
    let cluster = Cluster::start(&world, 0);
    let line = Line::to(&cluster.endpoint);
    let _worker = worker(&world, "behind", &format!("http://{}", line.address), &[]);
    let run = cluster.submit("job.yaml");
    let mut attempt = 1;
    let survived = (1..=CUTS).any(|cut| {
        let before = in_the_middle(&cluster, &run, attempt, 0);
        assert!(line.cut() >= 2, "there was a line to cut");
        wait_for("the coordinator to see it", || {
            let seen = cluster.coordinator.log().matches("a worker's connection broke").count() as u64;
            (seen >= cut).then_some(())
        });
        let after = wait_for("the worker to be back, or the partition to be taken away", || {
            let now = partition(&cluster, &run)?;
            let (back, again) = (position(&now) > position(&before), now["attempt"] != attempt);
            (now["state"] == "running" && (back || again)).then_some(now)
        });
        let kept = after["attempt"] == attempt;
        attempt = after["attempt"].as_u64().expect("a number");
        kept
    });
    assert!(survived, "{}", cluster.coordinator.log());
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    assert_eq!(numbers(&world).len() as u64, LONG / EVERY);
}

#[test]
fn a_step_waits_for_a_worker_with_its_labels_and_says_so() {
    let (world, _) = World::with_sales(1);
    world.job(
        r#"job: placed
steps:
  - name: count
    source: {sequence: {from: 0, to: 1000}}
    placement: {labels: {zone: a, gpu: "yes"}}
    sink: discard
"#,
    );
    let cluster = Cluster::start(&world, 1);
    let run = cluster.submit("job.yaml");
    let waits = |run: &Value| run["steps"][0]["waits_for"].as_str().map(str::to_string);
    let words = wait_for("the reason", || waits(&cluster.run(&run)));
    assert_eq!(words, "no worker here has the labels gpu=yes,zone=a (placement)");
    wait_for("the metric", || {
        let waiting = cluster
            .coordinator
            .metrics()
            .get(r#"gapless_tasks_unplaceable{stage="survey"}"#);
        (waiting == 1.0).then_some(())
    });
    wait_for("the log", || {
        cluster
            .coordinator
            .log()
            .contains("with the labels of their step")
            .then_some(())
    });
    // Half of what is asked is not enough.
    let _half = worker(&world, "half", &cluster.endpoint, &["--labels", "zone=a"]);
    wait_for("both workers", || {
        (cluster.ask(&["workers", "-o", "json"]).as_array()?.len() == 2).then_some(())
    });
    assert_eq!(waits(&cluster.run(&run)).as_deref(), Some(words.as_str()));
    let _all = worker(
        &world,
        "all",
        &cluster.endpoint,
        &["--labels", "disk=ssd,gpu=yes,zone=a"],
    );
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    assert_eq!(waits(&ended), None);
}

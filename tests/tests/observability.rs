//! What real processes tell of themselves: metrics that follow a job, probes, log lines that name their
//! task, the history of a run.

use std::{collections::BTreeSet, fs};

use gapless_tests::{
    Cluster, Metrics, Process, World,
    collector::{Collector, Span},
    wait_for,
};
use rustix::process::Signal;
use serde_json::Value;

const ROWS: u64 = 60_000;
const PARTITIONS: u64 = 24;
const LOAD: &str = "{key_range: {column: id}, count: 24}";
const BY_SHOP: &str = "{hash: {columns: [shop]}, count: 8}";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until the metrics of the coordinator are as they should be.
fn coordinator_tells(cluster: &Cluster, what: &str, is_so: impl Fn(&Metrics) -> bool) -> Metrics {
    wait_for(what, || Some(cluster.coordinator.metrics()).filter(&is_so))
}

#[test]
fn metrics_follow_a_job() {
    let (world, _) = World::with_sales(ROWS);
    world.sales_job(LOAD, BY_SHOP);
    let mut cluster = Cluster::start(&world, 0);
    assert_eq!(cluster.coordinator.monitor("/healthz"), (200, "ok\n".to_string()));
    assert_eq!(cluster.coordinator.monitor("/readyz"), (200, "leading\n".to_string()));
    assert_eq!(cluster.coordinator.monitor("/other").0, 404);
    let before = cluster.coordinator.metrics();
    assert_eq!((before.get("gapless_leader"), before.get("gapless_term")), (1.0, 1.0));
    assert_eq!(
        (before.sum("gapless_runs"), before.sum("gapless_tasks_waiting")),
        (0.0, 0.0)
    );

    // Nobody works: both steps wait to be surveyed, which is the depth of the queue.
    let run = cluster.submit("job.yaml");
    let waiting = coordinator_tells(&cluster, "the queue", |now| now.sum("gapless_tasks_waiting") == 2.0);
    assert_eq!(waiting.get("gapless_tasks_waiting{stage=\"survey\"}"), 2.0);
    assert_eq!(waiting.get("gapless_runs{state=\"running\"}"), 1.0);
    assert_eq!(waiting.get("gapless_runs_submitted_total"), 1.0);
    assert_eq!(waiting.get("gapless_slots"), 0.0);

    cluster.add_worker();
    assert_eq!(cluster.ended(&run)["state"], "completed");
    let after = coordinator_tells(&cluster, "the end", |now| {
        now.get("gapless_runs{state=\"completed\"}") == 1.0
    });
    for (sample, expected) in [
        ("gapless_runs_ended_total{state=\"completed\"}", 1.0),
        ("gapless_workers{state=\"live\"}", 1.0),
        ("gapless_slots", 1.0),
        ("gapless_slots_busy", 0.0),
        // Both steps scatter every record once, and read it back once.
        ("gapless_rows_read_total{stage=\"scatter\"}", 2.0 * ROWS as f64),
        ("gapless_rows_read_total{stage=\"execute\"}", 2.0 * ROWS as f64),
        ("gapless_commits_refused_total", 0.0),
        ("gapless_takeovers_total", 0.0),
    ] {
        assert_eq!(after.get(sample), expected, "{sample}");
    }
    for name in [
        "gapless_tasks_waiting",
        "gapless_tasks_leased",
        "gapless_attempts_failed_total",
    ] {
        assert_eq!(after.sum(name), 0.0, "{name}");
    }
    assert!(after.get("gapless_commits_total{stage=\"execute\"}") >= PARTITIONS as f64);
    assert!(after.sum("gapless_bytes_written_total") > 0.0);
    let batches = after.get("gapless_batch_duration_seconds_count");
    assert!(batches > 0.0 && after.get("gapless_batch_duration_seconds_sum") > 0.0);
    assert!(after.get("gapless_store_write_duration_seconds_count") >= batches);
    assert!(after.get("gapless_store_rows_total") > after.sum("gapless_commits_total"));

    let worker = &cluster.workers[0];
    assert_eq!(worker.monitor("/readyz"), (200, "in session\n".to_string()));
    let metrics = worker.metrics();
    for stage in ["scatter", "execute"] {
        for what in ["rows_read", "rows_written", "bytes_read", "bytes_written"] {
            assert_eq!(
                metrics.get(&format!("gapless_worker_{what}_total{{stage=\"{stage}\"}}")),
                after.get(&format!("gapless_{what}_total{{stage=\"{stage}\"}}")),
                "what the only worker counts of {stage} is what was committed: {what}"
            );
        }
    }
    let executed = metrics.get("gapless_worker_attempts_total{stage=\"execute\",outcome=\"done\"}");
    assert_eq!(executed, after.get("gapless_attempts_started_total{stage=\"execute\"}"));
    assert_eq!(
        metrics.get("gapless_worker_attempt_duration_seconds_count{stage=\"execute\"}"),
        executed
    );
    assert_eq!(metrics.get("gapless_worker_connected"), 1.0);
    assert_eq!(
        (
            metrics.get("gapless_worker_slots"),
            metrics.get("gapless_worker_slots_busy")
        ),
        (1.0, 0.0)
    );
    assert!(metrics.get("gapless_worker_heartbeat_duration_seconds_count") > 0.0);
    assert!(metrics.get("process_resident_memory_bytes") > 1e6);

    // Without a coordinator a worker is well, but of no use.
    assert!(cluster.coordinator.kill());
    let (status, words) = wait_for("the worker to notice", || {
        Some(worker.monitor("/readyz")).filter(|(status, _)| *status != 200)
    });
    assert_eq!((status, words.as_str()), (503, "no session with a coordinator yet\n"));
    assert_eq!(worker.monitor("/healthz").0, 200);
    assert_eq!(worker.metrics().get("gapless_worker_connected"), 0.0);
}

#[test]
fn a_take_over_is_counted_and_told() {
    let (world, _) = World::with_sales(ROWS);
    world.sales_job(LOAD, BY_SHOP);
    let mut cluster = Cluster::start(&world, 2);
    let run = cluster.submit("job.yaml");
    // Stopped first: what it holds then, it cannot finish before it is killed.
    let victim = wait_for("a worker that holds a task", || {
        let number = cluster.busy_worker()?;
        cluster.workers[number].signal(Signal::STOP);
        if cluster.busy_worker() == Some(number) {
            return Some(number);
        }
        cluster.workers[number].signal(Signal::CONT);
        None
    });
    assert!(cluster.workers[victim].kill(), "the worker was alive");
    assert_eq!(cluster.ended(&run)["state"], "completed");
    let events = history(&world, &cluster, &run, &[]);
    let of_kind = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count() as f64;
    let metrics = coordinator_tells(&cluster, "the end", |now| {
        now.get("gapless_runs{state=\"completed\"}") == 1.0
    });
    assert!(of_kind("worker-lost") >= 1.0, "{events:#?}");
    assert_eq!(metrics.get("gapless_takeovers_total"), of_kind("take-over"));
    assert_eq!(
        metrics.get("gapless_attempts_failed_total{class=\"worker_lost\"}"),
        of_kind("take-over"),
        "each lost attempt was made good by one take-over"
    );
    assert_eq!(metrics.get("gapless_workers{state=\"live\"}"), 1.0);
}

/// What `gapless logs -o json` prints, line by line.
fn history(world: &World, cluster: &Cluster, run: &str, more: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["logs", run, "-o", "json", "--endpoint", &cluster.endpoint];
    arguments.extend(more);
    let output = world.gapless(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

#[test]
fn a_run_has_a_history_that_can_be_followed() {
    let (world, _) = World::with_sales(ROWS);
    world.sales_job(LOAD, BY_SHOP);
    let mut cluster = Cluster::start(&world, 1);
    let run = cluster.submit("job.yaml");
    // Followed to the end of the run, and the same when asked again.
    let events = history(&world, &cluster, &run, &["--follow"]);
    assert_eq!(events, history(&world, &cluster, &run, &[]));
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["kind"].as_str()).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&"submitted"), Some(&"completed")));
    let of_load: Vec<(&str, &str)> = events
        .iter()
        .filter(|event| event["step"] == "load")
        .filter_map(|event| Some((event["kind"].as_str()?, event["text"].as_str()?)))
        .collect();
    let expected = [
        ("stage", "survey"),
        ("planned", "planned: 24 partitions"),
        ("stage", "scatter of "),
        ("stage", "execute of 24 partitions"),
        ("sealed", "sealed as "),
        ("published", "published 60000 rows in 24 files at "),
    ];
    assert_eq!(of_load.len(), expected.len(), "{of_load:#?}");
    for ((kind, words), (expected_kind, beginning)) in of_load.iter().zip(expected) {
        assert!(
            *kind == expected_kind && words.starts_with(beginning),
            "{kind}: {words}"
        );
    }
    let times: Vec<i64> = events.iter().filter_map(|event| event["at_micros"].as_i64()).collect();
    assert!(
        times.is_sorted_by(|one, next| one < next),
        "no two at the same time: {times:?}"
    );

    let for_people = world.gapless(&["logs", "sales", "--endpoint", &cluster.endpoint]);
    assert!(text(&for_people.stdout).contains("Z  load: execute of 24 partitions\n"));
    let unknown = world.gapless(&["logs", "nothing", "--endpoint", &cluster.endpoint]);
    assert_eq!(unknown.status.code(), Some(4), "{}", text(&unknown.stderr));

    // A coordinator that is started anew has the rows alone.
    assert!(cluster.coordinator.kill());
    cluster.restart_coordinator();
    let outline = history(&world, &cluster, &run, &["-f"]);
    let kinds: Vec<&str> = outline.iter().filter_map(|event| event["kind"].as_str()).collect();
    let expected = [
        "submitted",
        "stage",
        "stage",
        "published",
        "published",
        "completed",
        "gap",
    ];
    assert_eq!(kinds, expected, "{outline:#?}");
}

#[test]
fn each_log_line_of_a_task_names_it() {
    let (world, _) = World::with_sales(ROWS);
    world.sales_job(LOAD, BY_SHOP);
    let cluster = Cluster::start(&world, 1);
    let run = cluster.submit("job.yaml");
    assert_eq!(cluster.ended(&run)["state"], "completed");
    let mut executed = BTreeSet::new();
    let mut messages = BTreeSet::new();
    let log = cluster.workers[0].log();
    // The first line is for people: where the metrics are.
    for line in log.lines().filter(|line| !line.starts_with("metrics at ")) {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let message = line["message"].as_str().expect("a message").to_string();
        let of_task = line["span"]["name"] == "task";
        if line["target"] == "gapless_worker::runner" {
            assert!(of_task, "{line}");
        }
        if !of_task {
            continue;
        }
        let span = &line["span"];
        assert_eq!(
            (&span["run"], &span["worker"]),
            (&Value::from(run.clone()), &Value::from("worker-0"))
        );
        for field in ["step", "stage", "partition", "attempt"] {
            assert!(!span[field].is_null(), "{field} is missing: {line}");
        }
        if span["step"] == 0 && span["stage"] == "execute" {
            executed.insert(span["partition"].as_u64().expect("a number"));
        }
        messages.insert(message);
    }
    assert_eq!(executed, (0..PARTITIONS).collect(), "every partition left a line");
    for message in [
        "the attempt begins",
        "a chunk is durable",
        "the attempt ended with its last commit",
    ] {
        assert!(messages.contains(message), "{message} is not among {messages:?}");
    }
}

/// The names of metrics in a text of queries.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("gapless_") || word.starts_with("process_"))
        .map(str::to_string)
        .collect()
}

/// All texts under a key, however deep.
fn texts_under(value: &Value, key: &str, found: &mut String) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let (true, Some(text)) = (name == key, value.as_str()) {
                    found.push_str(text);
                    found.push('\n');
                }
                texts_under(value, key, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| texts_under(item, key, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn dashboard_alerts_and_documentation_name_metrics_that_exist() {
    let root = gapless_tests::checkout();
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (world, _) = World::with_sales(10);
    let cluster = Cluster::start(&world, 1);
    let mut exist: BTreeSet<String> = cluster.coordinator.metrics().names.into_iter().collect();
    exist.extend(cluster.workers[0].metrics().names);

    let mut queries = String::new();
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/gapless.json")).expect("JSON");
    texts_under(&dashboard, "expr", &mut queries);
    for (path, key) in [
        ("deploy/prometheus/alerts.yml", "expr"),
        ("deploy/kubernetes/autoscale.yaml", "query"),
    ] {
        let value: Value = serde_saphyr::from_str(&read(path)).expect("YAML");
        texts_under(&value, key, &mut queries);
    }
    let used = named(&queries);
    assert!(used.len() > 20, "the queries were seen: {used:?}");
    let missing: Vec<&String> = used.difference(&exist).collect();
    assert!(missing.is_empty(), "queried, but not told by any process: {missing:?}");

    // One table, in which each metric has a row.
    let manual = read("docs/operating.md");
    let rows = manual
        .lines()
        .filter(|line| line.starts_with("| `gapless_") || line.starts_with("| `process_"));
    let documented: BTreeSet<String> = rows
        .filter_map(|row| row.split('`').nth(1))
        .map(|name| name.split('{').next().unwrap_or(name).to_string())
        .collect();
    let base = |name: &String| {
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.iter().find_map(|part| name.strip_suffix(part));
        base.unwrap_or(name).to_string()
    };
    let told: BTreeSet<String> = exist.iter().map(base).collect();
    let undocumented: Vec<_> = told.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&told).collect();
    assert!(
        undocumented.is_empty() && gone.is_empty(),
        "docs/operating.md lacks {undocumented:?} and has {gone:?}, which no process tells"
    );
}

/// A coordinator and a worker that tell a collector what they do.
struct Traced {
    endpoint: String,
    processes: [Process; 2],
}

impl Traced {
    fn start(world: &World, collector: &Collector) -> Traced {
        let traces = ["--traces-endpoint", &collector.endpoint];
        let own = ["--listen", "127.0.0.1:0", "--state", "state", "--scratch", "scratch"];
        let mut coordinator = world.start_as("coordinator", &[&["coordinator"], &own[..], &traces].concat());
        let endpoint = coordinator.line();
        let own = ["--endpoint", &endpoint, "--slots", "2", "--name", "worker-1"];
        let worker = world.start_as("worker", &[&["worker"], &own[..], &traces].concat());
        Traced {
            endpoint,
            processes: [worker, coordinator],
        }
    }

    /// What is queued goes out when they end.
    fn end(&mut self) {
        for process in &mut self.processes {
            process.signal(Signal::TERM);
            assert_eq!(process.code(), 0, "{}", process.log());
        }
    }
}

/// Coordinator and worker tell one trace without speaking of it to each other: its id is the run's.
#[test]
fn a_run_is_one_trace_of_its_steps_and_attempts() {
    let (world, _) = World::with_sales(ROWS);
    world.sales_job(LOAD, BY_SHOP);
    let collector = Collector::start();
    let mut traced = Traced::start(&world, &collector);
    let submit = world.gapless(&[
        "submit",
        "job.yaml",
        "--wait",
        "-o",
        "name",
        "--endpoint",
        &traced.endpoint,
    ]);
    assert!(submit.status.success(), "{}", text(&submit.stderr));
    let run = text(&submit.stdout).trim().replace('-', "");
    traced.end();
    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.trace == run), "one trace, which is {run}");
    let of = |service: &str| -> Vec<&Span> { spans.iter().filter(|span| span.service == service).collect() };
    let (told, attempts) = (of("gapless-coordinator"), of("gapless-worker"));
    assert_eq!(told.len() + attempts.len(), spans.len());
    let named = |name: &str| *told.iter().find(|span| span.name == name).expect("a span of that name");
    let (root, load, by_shop) = (named("sales"), named("load"), named("by-shop"));
    assert_eq!((told.len(), root.parent.as_str()), (3, ""));
    assert_eq!([&load.parent, &by_shop.parent], [&root.id; 2]);
    let executed = attempts
        .iter()
        .filter(|span| span.name.starts_with("execute ") && span.parent == load.id);
    assert_eq!(executed.count() as u64, PARTITIONS);
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), spans.len(), "each span has an id of its own");
    for attempt in attempts {
        let step = [load, by_shop].into_iter().find(|step| step.id == attempt.parent);
        let step = step.unwrap_or_else(|| panic!("of no step: {attempt:?}"));
        assert!(
            attempt.begun <= attempt.ended && attempt.ended >= step.begun,
            "{attempt:?} of {step:?}"
        );
        assert_eq!(attempt.error, None);
    }
    assert!(
        root.begun <= load.begun && load.ended <= root.ended,
        "{root:?}, {load:?}"
    );
}

/// Whatever a run ends with, all that was begun of it is told as ended: the attempts that failed, the step that was
/// not published, and the run, with the error.
#[test]
fn the_trace_of_a_run_that_fails_is_whole_and_says_why() {
    let (world, _) = World::with_sales(100);
    world.job(
        r#"job: sales
steps:
  - name: load
    source: {csv: {path: "data/sales-*.csv", columns: {id: int64, shop: string, cents: int64, note: string}}}
    partition: {count: 1}
    check: [{name: cheap, that: "cents < 0"}]
    sink: {csv: {path: out/load}}
  - {name: after, after: load, source: {sequence: {from: 0, to: 9}}, sink: discard}
"#,
    );
    let collector = Collector::start();
    let mut traced = Traced::start(&world, &collector);
    let submit = world.gapless(&[
        "submit",
        "job.yaml",
        "--wait",
        "-o",
        "name",
        "--endpoint",
        &traced.endpoint,
    ]);
    assert_eq!(submit.status.code(), Some(1), "{}", text(&submit.stderr));
    traced.end();
    let spans = collector.spans();
    let of = |service: &str| -> Vec<&Span> { spans.iter().filter(|span| span.service == service).collect() };
    let (told, attempts) = (of("gapless-coordinator"), of("gapless-worker"));
    let names: Vec<&str> = told.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["load", "sales"], "the second step was never begun");
    let (load, root) = (told[0], told[1]);
    assert_eq!((&load.parent, root.parent.as_str()), (&root.id, ""));
    assert!(
        load.begun > 0 && root.begun <= load.begun && load.ended <= root.ended,
        "{load:?} {root:?}"
    );
    let why = "more than 0 records were rejected";
    assert!(root.error.as_ref().is_some_and(|error| error.contains(why)), "{root:?}");
    assert!(attempts.iter().all(|span| span.parent == load.id), "{attempts:?}");
    let failed: Vec<_> = attempts.iter().filter(|span| span.error.is_some()).collect();
    let [failed] = failed.as_slice() else {
        panic!("{attempts:?}")
    };
    assert_eq!(failed.name, "execute 0");
    assert!(
        failed.error.as_ref().is_some_and(|error| error.contains(why)),
        "{failed:?}"
    );
    for stage in ["survey 0", "prepare 0"] {
        assert!(attempts.iter().any(|span| span.name == stage), "{stage}: {attempts:?}");
    }
}

#[test]
fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let (world, sales) = World::with_sales(6_000);
    world.sales_job("{key_range: {column: id}, count: 3}", BY_SHOP);
    // Nobody listens there: the port was free a moment ago.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|it| it.local_addr())
        .expect("a port");
    let told_to = |endpoint: &str| {
        let settings = format!("traces_endpoint: {endpoint}\nlog_level: warn\n");
        fs::write(world.path("gapless.yaml"), settings).expect("written");
    };
    told_to(&format!("http://{nobody}"));
    let run = world.gapless(&["run", "job.yaml", "--config", "gapless.yaml"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert!(
        text(&run.stderr).contains("spans were dropped"),
        "{}",
        text(&run.stderr)
    );
    assert_eq!(world.rows("out/by-shop"), gapless_tests::expected(&sales));
    told_to("ftp://collector");
    let none = world.gapless(&["run", "job.yaml", "--config", "gapless.yaml"]);
    assert_eq!(none.status.code(), Some(2), "{}", text(&none.stderr));
}

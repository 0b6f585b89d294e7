//! Sorted outputs on real processes: one order over all files, whatever dies, and in a quarter of the memory.

use std::fs;

use gapless_tests::{Cluster, World, wait_for};

/// Rows of the input, and their order by the job of [`job`].
struct Input {
    /// `id,k,x` as they stand in the file.
    rows: Vec<(u64, String, Option<i64>)>,
}

/// A third of all rows has one `x`; texts have a long common beginning; NULLs in both columns.
fn input(world: &World, rows: u64, padding: usize) -> Input {
    let mut text = "id,k,x,padding\n".to_string();
    let mut kept = Vec::new();
    let padding = "p".repeat(padding);
    for id in 0..rows {
        let hash = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        let x = match hash % 9 {
            0 => None,
            1..=3 => Some(42),
            _ => Some((hash % 5_003) as i64 - 2_500),
        };
        let k = match hash % 11 {
            0 => String::new(),
            n if n % 2 == 0 => format!("a common beginning {}", hash % 97),
            _ => format!("é{}", hash % 1_009),
        };
        let shown = x.map_or(String::new(), |x| x.to_string());
        text.push_str(&format!("{id},{k},{shown},{padding}\n"));
        kept.push((id, k, x));
    }
    fs::write(world.path("data.csv"), text).expect("written");
    Input { rows: kept }
}

impl Input {
    /// By `x` falling with NULL first, then `k` rising with NULL last, then `id` falling.
    fn sorted(&self) -> Vec<String> {
        let mut rows = self.rows.clone();
        rows.sort_by(|(id, k, x), (other_id, other_k, other_x)| {
            let x = x.is_some().cmp(&other_x.is_some()).then(other_x.cmp(x));
            let k = k
                .is_empty()
                .cmp(&other_k.is_empty())
                .then(k.as_bytes().cmp(other_k.as_bytes()));
            x.then(k).then(other_id.cmp(id))
        });
        rows.into_iter().map(|(id, ..)| id.to_string()).collect()
    }
}

fn job(world: &World, partition: &str, sink: &str) {
    world.job(&format!(
        r#"job: sort
steps:
  - name: sort
    source: {{csv: {{path: data.csv, columns: {{id: int64, k: string, x: int64, padding: string}}}}}}
    partition: {partition}
    sort: [{{column: x, order: desc, nulls: first}}, k, {{column: id, order: desc}}]
    sink: {{csv: {{path: out/sort, {sink}}}}}
"#
    ));
}

/// The ids of an output, its files in the order of their names.
fn ids(world: &World, output: &str) -> Vec<String> {
    let mut files = world.files(output);
    files.sort();
    let mut ids = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).expect("readable");
        ids.extend(
            text.lines()
                .skip(1)
                .map(|line| line.split(',').next().unwrap_or_default().to_string()),
        );
    }
    ids
}

fn check(world: &World, input: &Input) {
    let (found, expected) = (ids(world, "out/sort"), input.sorted());
    assert_eq!(found.len(), expected.len());
    if let Some(at) = (0..found.len()).find(|&at| found[at] != expected[at]) {
        panic!("row {at} is {}, not {}", found[at], expected[at]);
    }
}

#[test]
fn the_order_does_not_depend_on_the_cut() {
    for (partition, workers, sink) in [
        ("auto", "1", "exists: fail"),
        ("{count: 1}", "1", "exists: fail"),
        ("{count: 7}", "3", "exists: fail"),
        ("{count: 24}", "2", "files: 3"),
    ] {
        let world = World::empty();
        let input = input(&world, 30_000, 10);
        job(&world, partition, sink);
        let output = world.gapless(&["run", "job.yaml", "--workers", workers, "--slots", "1"]);
        assert!(
            output.status.success(),
            "{partition}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        check(&world, &input);
    }
}

#[test]
fn a_run_that_is_killed_goes_on_in_order() {
    for chunks in [0, 1, 7, 15, 22] {
        let world = World::empty();
        let input = input(&world, 60_000, 10);
        job(&world, "{count: 24}", "exists: fail");
        let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
        wait_for("the chunks to kill at", || {
            (world.manifests("sort") >= chunks && world.path(".gapless/store").is_dir() || !first.is_running())
                .then_some(())
        });
        assert!(first.kill(), "the kill at {chunks} chunks came before the end");
        let output = world.gapless(&["run", "job.yaml", "--slots", "1"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        check(&world, &input);
    }
}

#[test]
fn a_killed_worker_changes_nothing_of_the_order() {
    let world = World::empty();
    let input = input(&world, 60_000, 10);
    job(&world, "{count: 24}", "exists: fail");
    let mut cluster = Cluster::start(&world, 3);
    let run = cluster.submit("job.yaml");
    let victim = wait_for("a worker at work", || cluster.busy_worker());
    assert!(cluster.workers[victim].kill(), "the worker was alive");
    assert_eq!(cluster.run(&run)["state"], "running", "the kill came before the end");
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    check(&world, &input);
}

/// The least memory a slot can have is 16 MiB; the input is above 64 MiB, and in one partition.
#[test]
fn an_input_of_four_times_the_memory_is_sorted_through_the_disk() {
    let world = World::empty();
    let input = input(&world, 150_000, 450);
    assert!(fs::metadata(world.path("data.csv")).expect("there").len() > 4 * (16 << 20));
    fs::write(world.path("config.yaml"), "memory_per_slot_mib: 16\n").expect("written");
    for (partition, state) in [("{count: 1}", "one"), ("{count: 2}", "two")] {
        job(&world, partition, "exists: replace");
        let arguments = [
            "run",
            "job.yaml",
            "--slots",
            "1",
            "--config",
            "config.yaml",
            "--state",
            state,
        ];
        let output = world.gapless(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        check(&world, &input);
    }
}

//! Programs as transforms, on real processes: what they make is published once, and they die with their attempt.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use gapless_tests::{Cluster, World, wait_for};
use rustix::process::Signal;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn job(command: &str, rest: &str) -> String {
    format!(
        r#"job: programs
steps:
  - name: load
    source: {{csv: {{path: in.csv, columns: {{id: int64, shop: string}}}}}}
    transform: {{command: {{{command}}}}}
    sink: {{csv: {{path: out/load}}}}
    on_error: {{retry: {{attempts: 1}}}}
{rest}
"#
    )
}

const ROWS: u64 = 5_000;

fn world(command: &str, rest: &str) -> World {
    let lines: String = (0..ROWS).map(|id| format!("{id},shop-{}\n", id % 7)).collect();
    World::with("in.csv", &format!("id,shop\n{lines}"), &job(command, rest))
}

fn run(world: &World, more: &[&str]) -> Output {
    world.gapless(&[&["run", "job.yaml"], more].concat())
}

#[track_caller]
fn ids(world: &World) -> Vec<u64> {
    let rows = world.rows("out/load");
    let id = |row: &String| row.split(',').next().and_then(|id| id.parse().ok()).expect("an id");
    let mut ids: Vec<u64> = rows.iter().map(id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_program_is_a_transform_like_any_other() {
    for (command, rest) in [
        ("run: cat", ""),
        (
            "run: cat, columns: {id: int64, shop: string}",
            "    partition: {bytes: {}, count: 5}",
        ),
        (
            "run: [sh, -c, cat], format: ndjson, columns: {id: int64, shop: string}",
            "    partition: {hash: {columns: [shop]}, count: 3}",
        ),
        (
            "run: cat, mode: whole",
            "    partition: {key_range: {column: id}, count: 4}",
        ),
        // Its output is read like any other, with the columns that it told.
        (
            "run: cat",
            "  - {name: again, source: {step: load}, transform: {sql: SELECT count(*) AS n FROM input}, sink: {csv: {path: out/again}}}",
        ),
    ] {
        let world = world(command, rest);
        let output = run(&world, &["--slots", "2"]);
        assert!(output.status.success(), "{command}: {}", text(&output.stderr));
        assert_eq!(ids(&world), (0..ROWS).collect::<Vec<_>>(), "{command}");
        if rest.contains("again") {
            assert_eq!(world.rows("out/again"), [ROWS.to_string()]);
        }
    }
}

#[test]
fn whole_partitions_are_one_run_each_and_know_which_they_are() {
    let world = world(
        "run: [./count.sh], format: ndjson, mode: whole, columns: {id: int64, shop: string}",
        "    partition: {hash: {columns: [shop]}, count: 3}",
    );
    let script = "#!/bin/sh\necho \"{\\\"id\\\": $GAPLESS_PARTITION, \\\"shop\\\": \\\"$GAPLESS_PROGRAM \
                  $GAPLESS_ATTEMPT $((GAPLESS_HIGH > GAPLESS_LOW)) $(wc -l)\\\"}\"\n";
    fs::write(world.path("count.sh"), script).expect("written");
    let made = Command::new("chmod").arg("+x").arg(world.path("count.sh")).status();
    assert!(made.expect("chmod").success());
    let output = run(&world, &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(ids(&world), [0, 1, 2]);
    let mut seen = 0;
    for row in world.rows("out/load") {
        let (_, told) = row.split_once(',').expect("two columns");
        let words: Vec<&str> = told.split_whitespace().collect();
        assert_eq!(words[..3], ["programs/load", "1", "1"], "{row}");
        seen += words[3].parse::<u64>().expect("a count");
    }
    assert_eq!(seen, ROWS);
}

#[test]
fn a_program_that_fails_publishes_nothing_and_is_told_in_words() {
    for (command, words) in [
        (
            "run: [sh, -c, \"cat; echo broken >&2; exit 3\"]",
            "exit code 3 (data); the last that it said: broken",
        ),
        (
            "run: [sleep, \"1000\"], timeout_s: 1, columns: {id: int64}",
            "took longer than 1 s",
        ),
        ("run: [echo, hello], columns: {id: int64}", "no Arrow IPC stream"),
        (
            "run: [\"yes\", '{\"id\": 1}'], format: ndjson, output_mib: 1, columns: {id: int64}",
            "more than 1 MiB",
        ),
        ("run: no-such-program", "the program no-such-program cannot be started"),
        // The script is named, and nothing behind it.
        (
            "run: [sh, -e, ends.sh, --token, hunter2], columns: {id: int64}",
            "the program `sh -e ends.sh …` ended with exit code 3 (data)",
        ),
        (
            "run: [sh, -c, \"kill -9 $$\"], columns: {id: int64}",
            "was killed by signal 9",
        ),
    ] {
        let world = world(command, "");
        std::fs::write(world.path("ends.sh"), "cat > /dev/null; exit 3").expect("written");
        let output = run(&world, &[]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let said = text(&output.stderr);
        assert!(!said.contains("hunter2"), "{said}");
        assert!(said.contains(words), "{command}: {said}\nlacks {words}");
        assert!(!world.path("out/load").exists(), "{command}");
    }
}

/// A time-out is no failure like others: each try takes as long, so there are two, or as many as the job says.
#[test]
fn a_program_that_takes_too_long_is_tried_once_more_or_as_the_job_says() {
    let command = "run: [sh, -c, \"echo x >> tries; exec sleep 1000\"], timeout_s: 1, columns: {id: int64}";
    let written = "    on_error: {retry: {attempts: 1}}\n";
    for (retry, tries) in [
        ("", 2),
        (written, 1),
        ("    on_error: {retry: {attempts: 3}}\n", 3),
        ("    on_error: {reject: {limit: 7}}\n", 2),
    ] {
        let job = job(command, "").replace(written, retry);
        let world = World::with("in.csv", "id,shop\n1,a\n", &job);
        let output = run(&world, &[]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("took longer than 1 s and was killed (timeout_s)"),
            "{said}"
        );
        let begun = fs::read_to_string(world.path("tries")).expect("tries");
        assert_eq!(begun.lines().count(), tries, "{retry}: {said}");
        assert!(!world.path("out/load").exists(), "{retry}");
    }
}

#[test]
fn a_worker_starts_programs_only_where_it_was_told_to() {
    let refused = world("run: [touch, began], columns: {id: int64}", "");
    // What starts on one's own machine by default, a setting turns off.
    fs::write(refused.path("config.yaml"), "allow_command: off\n").expect("written");
    let output = refused.gapless(&["--config", "config.yaml", "run", "job.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("runs a program (touch)") && said.contains("--allow-command"),
        "{said}"
    );
    assert!(!refused.path("began").exists() && !refused.path("out/load").exists());

    // A worker of a cluster starts none by itself.
    let world = world("run: [touch, began], columns: {id: int64}", "");
    let cluster = Cluster::start(&world, 1);
    let run = cluster.submit("job.yaml");
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "failed", "{ended:#}");
    assert!(
        ended["error"]
            .as_str()
            .is_some_and(|error| error.contains("--allow-command")),
        "{ended:#}"
    );
    assert!(!world.path("began").exists());
}

/// The process of a program, which wrote its number as it began.
fn program(world: &World) -> String {
    let pid = wait_for("the program to begin", || {
        fs::read_to_string(world.path("pid"))
            .ok()
            .filter(|pid| pid.ends_with('\n'))
    });
    let process = format!("/proc/{}", pid.trim());
    assert!(Path::new(&process).exists(), "it runs");
    process
}

const LASTING: &str = "run: [sh, -c, \"echo $$ > pid; exec sleep 1000\"], columns: {id: int64}";

#[test]
fn a_program_dies_with_its_worker() {
    let world = world(LASTING, "");
    let mut gapless = world.start(&["run", "job.yaml"]);
    let process = program(&world);
    assert!(gapless.kill(), "the worker was alive");
    wait_for("the program to be gone", || {
        (!Path::new(&process).exists()).then_some(())
    });
}

/// A program that leaves one behind, which would write into the folder of the job for ever.
#[test]
fn what_a_program_leaves_running_dies_with_its_end() {
    // What is left behind holds none of the pipes, so that nothing waits for it.
    let left = "(echo $BASHPID > pid; exec sleep 1000) > left.log 2>&1 < /dev/null &";
    for (end, code) in [("cat", 0), ("cat; exit 3", 1), ("sleep 1000", 1)] {
        let world = world(
            "run: [bash, leaves.sh], format: ndjson, timeout_s: 5, columns: {id: int64, shop: string}",
            "",
        );
        // It ends when the other one is there.
        let script = format!("{left}\nwhile ! test -s pid; do :; done\n{end}\n");
        fs::write(world.path("leaves.sh"), script).expect("written");
        let output = run(&world, &[]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        let pid = fs::read_to_string(world.path("pid")).expect("it was left");
        let process = format!("/proc/{}", pid.trim());
        wait_for("what was left to be gone", || {
            (!Path::new(&process).exists()).then_some(())
        });
    }
}

#[test]
fn a_program_dies_when_its_run_is_cancelled() {
    let world = world(LASTING, "");
    let mut gapless = world.start(&["run", "job.yaml"]);
    let process = program(&world);
    let output = world.gapless(&["cancel", "programs", "--state", ".gapless"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    wait_for("the program to be gone", || {
        (!Path::new(&process).exists()).then_some(())
    });
    assert_eq!(gapless.code(), 1);
    assert!(!world.path("out/load").exists());
}

/// A program that comes to no checkpoint is not waited for longer than a worker waits that is to leave.
#[test]
fn a_program_that_hangs_does_not_keep_a_run_that_is_to_end() {
    for signal in [Signal::TERM, Signal::INT] {
        let world = world(LASTING, "");
        let mut gapless = world.start(&["run", "job.yaml"]);
        let process = program(&world);
        let began = Instant::now();
        gapless.signal(signal);
        assert_eq!(gapless.code(), 130);
        // 5 s by its own limits, and some more on a busy machine.
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert!(!Path::new(&process).exists(), "the program is gone");
        // Nothing of it counts as a failure, and it goes on.
        let output = world.gapless(&["describe", "programs", "--state", ".gapless"]);
        assert!(text(&output.stdout).contains("stopped"), "{}", text(&output.stdout));
        assert!(!text(&output.stdout).contains("lost"), "{}", text(&output.stdout));
    }
}

#[test]
fn what_a_program_says_is_in_the_log_of_a_run_in_one_process_after_it_too() {
    let state = ["--state", ".gapless"];
    for (end, code) in [("", 0), ("; exit 3", 1)] {
        let command = format!(
            "run: [sh, -c, \"cat; for i in $(seq 203); do echo line $i >&2; done{end}\"], columns: {{id: int64, shop: string}}"
        );
        let world = World::with("in.csv", "id,shop\n1,a\n", &job(&command, ""));
        assert_eq!(run(&world, &[]).status.code(), Some(code));
        let output = world.gapless(&[&["logs", "programs", "-o", "json"], &state[..]].concat());
        let told = text(&output.stdout);
        let told: Vec<serde_json::Value> = told
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let said: Vec<&str> = told
            .iter()
            .filter(|event| event["kind"] == "said" && event["step"] == "load")
            .filter_map(|event| event["text"].as_str()?.strip_prefix("partition 0: "))
            .collect();
        assert_eq!(said.len(), 201, "{said:?}");
        assert_eq!((said[0], said[199]), ("line 1", "line 200"));
        assert!(
            said[200].starts_with("and 3 more lines; the last that it said: line 192 | "),
            "{}",
            said[200]
        );
        assert!(said[200].ends_with(" | line 203"), "{}", said[200]);
        let times: Vec<i64> = told.iter().filter_map(|event| event["at_micros"].as_i64()).collect();
        assert!(
            times.iter().take(times.len() - 1).is_sorted(),
            "in order, but for the gap: {times:?}"
        );
        let end = if code == 0 { "completed" } else { "failed" };
        assert!(told.iter().any(|event| event["kind"] == end), "{told:?}");
    }
}

//! Records that do not go on: quarantined one by one, counted, and the rest is published.

use std::{fs, process::Output};

use gapless_tests::World;
use serde_json::Value;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The published rejects of an output, in the order of their lines.
fn rejects(world: &World, output: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let folder = world.path(output).join("_gapless/rejects");
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let content = fs::read_to_string(entry.expect("an entry").path()).expect("a file of rejects");
        found.extend(
            content
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).expect("JSON")),
        );
    }
    found.sort_by_key(|reject| reject["line"].as_u64());
    found
}

/// Six pairs of names; the third is longer than 30 characters.
fn poison_row(transform: &str, limit: u32) -> World {
    let mut names: Vec<String> = (1..=6).map(|n| format!("foo{n},bar{n}")).collect();
    names[2] = format!("f{}3,b{}r3", "o".repeat(29), "a".repeat(29));
    let job = format!(
        r#"job: vets
steps:
  - name: load
    source: {{csv: {{path: vets.csv, header: false, columns: {{first: string, last: string}}}}}}
{transform}
    sink: {{csv: {{path: out/vets}}}}
    on_error: {{reject: {{limit: {limit}}}}}
"#
    );
    World::with("vets.csv", &(names.join("\n") + "\n"), &job)
}

fn run(world: &World) -> Output {
    world.gapless(&["run", "job.yaml"])
}

const AS_CHECK: &str = r#"    check: [{name: at most 30 characters, that: "character_length(first) <= 30 AND character_length(last) <= 30"}]"#;
const AS_EXPRESSION: &str = r#"    transform:
      sql: >
        SELECT first, CASE WHEN character_length(last) > 30 THEN CAST(CAST(last AS BIGINT) AS VARCHAR) ELSE last END AS last
        FROM input"#;

#[test]
fn one_poisoned_row_is_quarantined_alone() {
    for (transform, rule) in [(AS_CHECK, "at most 30 characters"), (AS_EXPRESSION, "transform")] {
        let world = poison_row(transform, 1);
        let output = run(&world);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let rows = world.rows("out/vets");
        assert_eq!(rows.len(), 5, "{rows:?}");
        assert!(rows.iter().all(|row| !row.contains("ooooo")), "{rows:?}");
        let rejects = rejects(&world, "out/vets");
        assert_eq!(rejects.len(), 1, "{rejects:?}");
        assert_eq!((&rejects[0]["line"], &rejects[0]["rule"]), (&3.into(), &rule.into()));
        assert!(rejects[0]["raw"].as_str().expect("raw").starts_with("fooooo"));
    }
}

#[test]
fn a_poisoned_row_over_the_limit_is_named_and_nothing_is_published() {
    for transform in [AS_CHECK, AS_EXPRESSION] {
        let world = poison_row(transform, 0);
        let output = run(&world);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains("vets.csv, line 3"), "{said}");
        assert!(!world.path("out/vets").exists());
    }
}

/// Twenty players of six fields; 7, 9 and 11 have five, 15 has no year, and 17 has its fields shifted.
fn players() -> Vec<String> {
    let bad = |n: u32| match n {
        7 | 9 | 11 => format!("P{n:04},last{n},first{n},rb,1950"),
        15 => format!("P{n:04},last{n},first{n},qb,,1980"),
        17 => format!("P{n:04},last{n},jr.,first{n},1950,rb"),
        _ => good(n),
    };
    (1..=20).map(bad).collect()
}

fn good(n: u32) -> String {
    format!("P{n:04},last{n},first{n},rb,{},{}", 1950 + n, 1970 + n)
}

fn football(limit: u32) -> World {
    let job = format!(
        r#"job: football
steps:
  - name: players
    source:
      csv:
        path: players.csv
        header: false
        columns: {{id: string, last: string, first: string, position: string, born: int64, debut: int64}}
    check: [{{name: year of birth, that: born IS NOT NULL}}]
    sink: {{csv: {{path: out/players}}}}
    on_error: {{reject: {{limit: {limit}}}}}
"#
    );
    World::with("players.csv", &(players().join("\n") + "\n"), &job)
}

const STATE: [&str; 2] = ["--state", ".gapless"];

fn lines_of(output: &Output) -> Vec<Value> {
    let text = text(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

#[test]
fn rejects_are_shown_and_kept() {
    let world = football(5);
    assert!(run(&world).status.success());
    let output = world.gapless(&[&["rejects", "football", "-o", "json"], &STATE[..]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut found = lines_of(&output);
    found.sort_by_key(|reject| reject["line"].as_u64());
    let places: Vec<_> = found
        .iter()
        .map(|reject| reject["line"].as_u64().expect("a line"))
        .collect();
    assert_eq!(places, [7, 9, 11, 15, 17]);
    for (reject, n) in found.iter().zip([7u32, 9, 11, 15, 17]) {
        assert_eq!(reject["raw"], players()[n as usize - 1]);
        assert_eq!(
            (&reject["step"], &reject["file"]),
            (&"players".into(), &"players.csv".into())
        );
        assert_eq!(reject["rule"], if n == 15 { "year of birth" } else { "parse" });
    }
    let output = world.gapless(&[&["rejects", "football", "--limit", "2"], &STATE[..]].concat());
    let table = text(&output.stdout);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(
        table.contains("players.csv     7") || table.contains("P0007"),
        "{table}"
    );
    assert!(text(&output.stderr).contains("these are the first 2"));
    let output = world.gapless(&[&["rejects", "football", "--to", "kept.parquet"], &STATE[..]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("5 rejected records are in kept.parquet"));
    let again = world.gapless(&[&["rejects", "football", "--to", "kept.parquet"], &STATE[..]].concat());
    assert_eq!(again.status.code(), Some(1), "what is there is not written over");
    let output = world.gapless(&[&["rejects", "football", "--step", "player"], &STATE[..]].concat());
    assert_eq!(output.status.code(), Some(4));

    // The Parquet file is one that Gapless reads as well.
    let job = "job: kept\nsteps:\n  - {name: a, source: {parquet: {path: kept.parquet}}, transform: {sql: \"SELECT line, rule FROM input\"}, sink: {csv: {path: out/kept}}}\n";
    world.job(job);
    assert!(run(&world).status.success());
    assert_eq!(world.rows("out/kept").len(), 5);
}

#[test]
fn a_run_over_its_limit_publishes_nothing_and_shows_what_it_rejected() {
    let world = football(4);
    let output = run(&world);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("more than 4 records were rejected"),
        "{}",
        text(&output.stderr)
    );
    assert!(!world.path("out/players").exists());
    let output = world.gapless(&[&["rejects", "football", "-o", "json"], &STATE[..]].concat());
    assert_eq!(lines_of(&output).len(), 5, "{}", text(&output.stderr));
    let output = world.gapless(&[&["redrive", "football", "--rejects"], &STATE[..]].concat());
    assert_eq!(output.status.code(), Some(7), "there is nothing to add to");
    assert!(
        text(&output.stderr).contains("is not published"),
        "{}",
        text(&output.stderr)
    );
}

/// The ids of the published players.
fn ids(world: &World) -> Vec<String> {
    let id = |row: &String| row.split(',').next().expect("an id").to_string();
    let mut ids: Vec<String> = world.rows("out/players").iter().map(id).collect();
    ids.sort();
    ids
}

fn all_ids() -> Vec<String> {
    (1..=20).map(|n| format!("P{n:04}")).collect()
}

fn redrive(world: &World, run: &str, more: &[&str]) -> Output {
    world.gapless(&[&["redrive", run, "--rejects"], more, &STATE[..]].concat())
}

#[test]
fn what_was_rejected_is_redriven_once_from_a_corrected_copy() {
    let world = football(5);
    assert!(run(&world).status.success());
    assert_eq!(ids(&world).len(), 15);
    let corrected: String = (1..=20).map(|n| good(n) + "\n").collect();
    fs::write(world.path("corrected.csv"), corrected).expect("written");
    let output = redrive(&world, "football", &["--from", "corrected.csv"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(ids(&world), all_ids());

    // The newest run of the job is the redrive, which has rejected nothing.
    let output = redrive(&world, "football", &[]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let runs = world.gapless(&[&["list", "-o", "json"], &STATE[..]].concat());
    let runs: Value = serde_json::from_slice(&runs.stdout).expect("JSON");
    let first = runs[1]["run"].as_str().expect("an id");
    let output = redrive(&world, first, &["--from", "corrected.csv"]);
    assert_eq!(
        output.status.code(),
        Some(7),
        "each is redriven once: {}",
        text(&output.stderr)
    );
    assert_eq!(ids(&world), all_ids());
    for run in [first, runs[0]["run"].as_str().expect("an id")] {
        let output = world.gapless(&[&["verify", run], &STATE[..]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

#[test]
fn what_a_redrive_rejects_again_keeps_its_place_and_can_be_redriven() {
    let world = football(5);
    assert!(run(&world).status.success());
    // As told by `rejects`, two of them corrected.
    let told = world.gapless(&[&["rejects", "football", "-o", "json"], &STATE[..]].concat());
    let corrected: String = lines_of(&told)
        .iter_mut()
        .map(|reject| {
            let line = reject["line"].as_u64().expect("a line") as u32;
            if line > 10 {
                reject["raw"] = good(line).into();
            }
            format!("{reject}\n")
        })
        .collect();
    fs::write(world.path("corrected.ndjson"), corrected).expect("written");
    let output = redrive(&world, "football", &["--from", "corrected.ndjson"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(ids(&world).len(), 18);
    let told = world.gapless(&[&["rejects", "football", "-o", "json"], &STATE[..]].concat());
    let left: Vec<_> = lines_of(&told)
        .iter()
        .map(|it| (it["file"].clone(), it["line"].clone()))
        .collect();
    assert_eq!(left, [7, 9].map(|line| ("players.csv".into(), Value::from(line))));
    let corrected: String = (1..=20).map(|n| good(n) + "\n").collect();
    fs::write(world.path("corrected.csv"), corrected).expect("written");
    let output = redrive(&world, "football", &["--from", "corrected.csv"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(ids(&world), all_ids());
}

#[test]
fn a_mended_job_takes_what_the_old_one_rejected() {
    let world = football(5);
    let mended = fs::read_to_string(world.path("job.yaml")).expect("the job");
    let mended = mended.replace("born IS NOT NULL", "true");
    assert!(run(&world).status.success());
    fs::write(world.path("mended.yaml"), mended).expect("written");
    let output = redrive(&world, "football", &["--job", "mended.yaml"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let taken: Vec<String> = ids(&world);
    assert_eq!(taken.len(), 16);
    assert!(taken.contains(&"P0015".to_string()), "{taken:?}");
}

#[test]
fn two_redrives_at_once_are_one() {
    let world = football(5);
    let cluster = gapless_tests::Cluster::start(&world, 1);
    let run = cluster.submit("job.yaml");
    assert_eq!(cluster.ended(&run)["state"], "completed");
    let corrected: String = (1..=20).map(|n| good(n) + "\n").collect();
    fs::write(world.path("corrected.csv"), corrected).expect("written");
    let redrive = || {
        let from = [
            "redrive",
            &run,
            "--rejects",
            "--from",
            "corrected.csv",
            "--endpoint",
            &cluster.endpoint,
        ];
        world.gapless(&from).status.code()
    };
    let codes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(redrive)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 7))), "{codes:?}");
    assert_eq!(ids(&world), all_ids());
}

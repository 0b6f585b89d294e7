//! `if_unchanged: skip`: what an earlier run has done over the same files is not done again.

use std::{fs, time::SystemTime};

use gapless_tests::World;
use serde_json::Value;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn world(sql: &str) -> World {
    let world = World::with("in.csv", "id,shop\n1,a\n2,b\n", "");
    fs::write(world.path("shops.csv"), "shop,city\na,Oslo\nb,Lima\n").expect("written");
    job(&world, sql);
    world
}

fn job(world: &World, sql: &str) {
    world.job(&format!(
        r#"job: nightly
parameters: {{night: {{type: int64}}}}
steps:
  - name: load
    source: {{csv: {{path: in.csv}}}}
    lookups: {{shops: {{csv: {{path: shops.csv}}}}}}
    transform: {{sql: "{sql}"}}
    sink: {{csv: {{path: out/load, exists: replace}}}}
    if_unchanged: skip
"#
    ));
}

const SQL: &str = "SELECT id, city FROM input JOIN shops ON input.shop = shops.shop";

/// Runs one night; gives the run, and the run since which nothing has changed, if that was said.
fn night(world: &World, night: u32) -> (String, Option<String>) {
    let parameter = format!("night={night}");
    let output = world.gapless(&["run", "job.yaml", "-p", &parameter, "-o", "json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let run: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let said = text(&output.stderr);
    let since = said
        .split_once("unchanged since run ")
        .and_then(|(_, rest)| rest.split_once(':'));
    let run = run["run"].as_str().expect("an id").to_string();
    (run, since.map(|(since, _)| since.to_string()))
}

fn certificates(world: &World) -> Vec<String> {
    let listed = fs::read_dir(world.path("out/load/_gapless")).expect("an output");
    let names = listed.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("certificate")).collect()
}

#[test]
fn the_same_input_is_read_once() {
    let world = world(SQL);
    let (first, since) = night(&world, 1);
    assert_eq!(since, None);
    let before = certificates(&world);
    let (second, since) = night(&world, 2);
    assert_eq!(since.as_ref(), Some(&first), "it is told in words");
    assert_ne!(first, second, "it is a run of its own");
    assert_eq!(certificates(&world), before, "and that has written nothing");
    // The certificate it refers to is that of the first.
    let output = world.gapless(&["verify", &second, "--state", ".gapless"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // A third one finds the second.
    assert_eq!(night(&world, 3).1, Some(second));
    // The identity of a run comes before: the same night is a conflict as ever.
    let output = world.gapless(&["run", "job.yaml", "-p", "night=3"]);
    assert_eq!(output.status.code(), Some(7));
}

/// A run whose step was skipped has the rows of the output that it left standing, and a job's name is the run that did
/// the work: its rejects are shown.
#[test]
fn a_skipped_run_is_told_by_what_it_left_standing() {
    let world = world(SQL);
    let text_of = fs::read_to_string(world.path("job.yaml")).expect("the job");
    let bad = text_of
        .replace("csv: {path: in.csv}", "csv: {path: in.csv, columns: {id: int64}}")
        .replace(
            "    if_unchanged",
            "    on_error: {reject: {limit: 1}}\n    if_unchanged",
        );
    world.job(&bad);
    fs::write(world.path("in.csv"), "id,shop\n1,a\n2,b\nx,a\n").expect("written");
    let (first, _) = night(&world, 1);
    let (second, since) = night(&world, 2);
    assert_eq!(since.as_ref(), Some(&first));
    let listed = world.gapless(&["list", "--state", ".gapless"]);
    let listed = text(&listed.stdout);
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    let at = rows[0].iter().position(|name| *name == "ROWS").expect("a column");
    assert_eq!(rows.len(), 3, "{listed}");
    for (row, run) in rows[1..].iter().zip([&second, &first]) {
        assert_eq!(
            (row[0], row[2], row[3], row[at]),
            (run.as_str(), "completed", "1/1", "2"),
            "{listed}"
        );
    }
    let rejects = |run: &str| {
        let shown = world.gapless(&["rejects", run, "--state", ".gapless", "-o", "json"]);
        assert!(shown.status.success(), "{}", text(&shown.stderr));
        text(&shown.stdout)
    };
    let told = rejects("nightly");
    assert!(told.contains("«x» is not a whole number"), "{told}");
    assert_eq!(told, rejects(&first));
}

#[test]
fn anything_that_differs_is_done_again() {
    let world = world(SQL);
    night(&world, 1);
    // The same bytes at another time are another file.
    let file = fs::File::options()
        .append(true)
        .open(world.path("in.csv"))
        .expect("there");
    file.set_modified(SystemTime::UNIX_EPOCH).expect("touched");
    assert_eq!(night(&world, 2).1, None, "another time");
    assert!(night(&world, 3).1.is_some(), "which is known now");
    fs::write(world.path("shops.csv"), "shop,city\na,Rome\nb,Lima\n").expect("written");
    assert_eq!(night(&world, 4).1, None, "another look-up");
    assert!(world.rows("out/load").iter().any(|row| row.contains("Rome")));
    job(&world, &SQL.replace("SELECT id", "SELECT id AS no"));
    assert_eq!(night(&world, 5).1, None, "another step");
}

#[test]
fn an_output_that_another_took_the_place_of_does_not_stand() {
    let world = world(SQL);
    let (input, former) = (world.path("in.csv"), world.path("former.csv"));
    night(&world, 1);
    // Another input for a night, and then the first one again: the very same file.
    fs::rename(&input, &former).expect("moved");
    fs::write(&input, "id,shop\n3,b\n").expect("written");
    assert_eq!(night(&world, 2).1, None);
    assert_eq!(world.rows("out/load"), ["3,Lima"]);
    fs::rename(&former, &input).expect("moved back");
    let (third, since) = night(&world, 3);
    assert_eq!(since, None, "what it made lies there no more");
    assert_eq!(world.rows("out/load"), ["1,Oslo", "2,Lima"]);
    assert_eq!(night(&world, 4).1, Some(third), "now it does");
}

#[test]
fn an_output_that_is_not_there_any_more_does_not_stand() {
    let world = world(SQL);
    night(&world, 1);
    assert!(night(&world, 2).1.is_some());
    fs::remove_dir_all(world.path("out/load")).expect("removed");
    assert_eq!(night(&world, 3).1, None, "the folder is gone");
    assert_eq!(world.rows("out/load"), ["1,Oslo", "2,Lima"]);
    assert!(night(&world, 4).1.is_some());
    fs::remove_file(&world.files("out/load")[0]).expect("removed");
    assert_eq!(night(&world, 5).1, None, "a file is gone");
    assert_eq!(world.rows("out/load"), ["1,Oslo", "2,Lima"]);
    fs::write(&world.files("out/load")[0], "id,city\n").expect("written");
    assert_eq!(night(&world, 6).1, None, "a file is cut");
    assert_eq!(world.rows("out/load"), ["1,Oslo", "2,Lima"]);
}

#[test]
fn verify_looks_at_the_output_too() {
    let world = world(SQL);
    night(&world, 1);
    let file = world.files("out/load")[0].clone();
    let content = fs::read(&file).expect("there");
    let verify = || {
        let output = world.gapless(&["verify", "--certificate", "out/load"]);
        (output.status.code(), text(&output.stderr))
    };
    assert_eq!(verify(), (Some(0), String::new()));
    let mut other = content.clone();
    *other.last_mut().expect("bytes") = b'!';
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    for (now, says) in [
        (
            Some(other),
            format!("{name} is not what was published: its checksum is "),
        ),
        (
            Some(content[1..].to_vec()),
            format!("{name} has {} bytes, and {} were", content.len() - 1, content.len()),
        ),
        (None, format!("{name} is missing")),
    ] {
        match now {
            Some(now) => fs::write(&file, now).expect("written"),
            None => fs::remove_file(&file).expect("removed"),
        }
        let (code, told) = verify();
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains(&says), "«{says}» is not in: {told}");
    }
    fs::write(&file, content).expect("put back");
    assert_eq!(verify(), (Some(0), String::new()));
    // An output that was copied has no record of its publication with it.
    fs::remove_dir_all(world.path("out/.load.gapless")).expect("removed");
    let (code, told) = verify();
    assert_eq!(code, Some(0));
    assert!(told.contains("its files were not compared"), "{told}");
}

#[test]
fn a_run_that_did_not_complete_is_none_to_refer_to() {
    let world = world(SQL);
    let job = fs::read_to_string(world.path("job.yaml")).expect("the job");
    let second = "  - {name: more, after: load, source: {csv: {path: none.csv}}, sink: {csv: {path: out/more, exists: replace}}}\n";
    world.job(&format!("{job}{second}"));
    for night in ["night=1", "night=2"] {
        let output = world.gapless(&["run", "job.yaml", "-p", night]);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains("none.csv: no such file"), "{said}");
        assert!(!said.contains("unchanged since"), "{said}");
        assert_eq!(world.rows("out/load").len(), 2, "its first step is published");
    }
    // One that completed stays the one to refer to, also after a run that skipped the step and failed in another.
    let more = world.path("none.csv");
    fs::write(&more, "id\n1\n").expect("written");
    let (third, since) = night(&world, 3);
    assert_eq!(since, None);
    fs::remove_file(&more).expect("removed");
    let output = world.gapless(&["run", "job.yaml", "-p", "night=4"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("unchanged since run "),
        "{}",
        text(&output.stderr)
    );
    fs::write(&more, "id\n1\n").expect("written");
    assert_eq!(night(&world, 5).1, Some(third));
}

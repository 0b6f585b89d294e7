//! Outputs that are taken, or no folder, or not ours.

use crate::room::{Room, copy_of};

fn room(what: &str, sink: &str) -> Room {
    let job = copy_of("{id: int64}").replace("path: out/a", sink);
    Room::new(what).file("in.csv", "id\n1\n").job(&job)
}

#[test]
fn an_output_that_is_there_is_refused_before_any_work_and_left_as_it_is() {
    let taken = room("exists: fail", "path: out/a").file("out/a/mine.txt", "mine");
    refused(
        &taken,
        "step a, prepare: {out}/a exists and is not empty; move it away, choose another path, or write `exists: replace` or `exists: append`",
    );
    let taken =
        room("exists: replace, of somebody else", "path: out/a, exists: replace").file("out/a/mine.txt", "mine");
    refused(
        &taken,
        "step a, prepare: {out}/a is not empty, and nothing in it tells that Gapless has written it: `exists: replace` would remove it for good; move it away or delete it, or choose another path, then submit the job again",
    );
    let taken = room("a file", "path: out/a").file("out/a", "mine");
    refused(
        &taken,
        "step a, prepare: {out}/a is a file; a sink's path is a folder: move it away",
    );
    let taken = room("a file on the way", "path: out/a/b").file("out/a", "mine");
    refused(
        &taken,
        "step a, prepare: cannot list {out}/a/.b.gapless/published: Not a directory (os error 20); a part of the path is a file where a folder is needed",
    );
}

/// `plan` says so, shows the plan all the same and leaves the folder as it is; the run fails with the same words, and
/// what was at the output is all that is there.
fn refused(room: &Room, says: &str) {
    let before: Vec<String> = outputs(room);
    let folder = room.path("out").display().to_string();
    let all = room.paths();
    let planned = room.gapless(&["plan", "job.yaml"]);
    let told = format!("job.yaml is refused: {}", says.replace("{out}", &folder));
    assert_eq!(planned.code, Some(1), "{}", planned.stderr);
    assert!(planned.stderr.contains(&told), "{}\nand not\n{told}", planned.stderr);
    assert!(planned.stdout.contains("  output     REFUSED: "), "{}", planned.stdout);
    assert_eq!(room.paths(), all);
    let ended = room.gapless(&["run", "job.yaml"]);
    let says = says.replace("{out}", &folder);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(&says), "{}\nand not\n{says}", ended.stderr);
    assert_eq!(outputs(room), before);
}

fn outputs(room: &Room) -> Vec<String> {
    let paths = room.paths().into_iter();
    paths
        .filter(|path| path.starts_with("out/") && !path.contains("/."))
        .collect()
}

#[test]
fn plan_tells_what_a_further_step_could_not_publish() {
    let job = "job: j\nsteps:\n  - name: a\n    source: {csv: {path: in.csv, columns: {id: int64}}}\n    sink: {csv: {path: out/a}}\n  - name: b\n    source: {step: a}\n    sink: {csv: {path: out/b}}\n";
    let taken = Room::new("a later step").file("in.csv", "id\n1\n").job(job);
    let taken = taken.file("out/b/mine.txt", "mine");
    let planned = taken.gapless(&["plan", "job.yaml", "-o", "json"]);
    assert_eq!(planned.code, Some(1), "{}", planned.stderr);
    let says = "job.yaml is refused: step b, prepare: ";
    assert!(planned.stderr.contains(says), "{}", planned.stderr);
    let json: serde_json::Value = serde_json::from_str(&planned.stdout).expect("JSON");
    assert_eq!(json["steps"][0].get("error"), None, "{json}");
    let error = json["steps"][1]["error"].as_str().expect("told");
    assert!(
        error.ends_with("or write `exists: replace` or `exists: append`"),
        "{error}"
    );
}

/// What a run of this very job has published is no stranger's: the run goes on behind it, or is complete.
#[test]
fn plan_takes_a_jobs_own_output_for_what_it_is() {
    let room = room("its own output", "path: out/a");
    room.makes(&["1"]);
    let planned = room.gapless(&["plan", "job.yaml"]);
    assert_eq!(planned.code, Some(0), "{}", planned.stderr);
    let says = "of this very step has published it: it is not done again";
    assert!(planned.stdout.contains(says), "{}", planned.stdout);
    // Another job finds it taken.
    let other = room.job(&copy_of("{id: int64}").replace("job: j", "job: other"));
    refused(
        &other,
        "step a, prepare: {out}/a exists and is not empty; move it away, choose another path, or write `exists: replace` or `exists: append`",
    );
}

#[test]
fn a_run_that_was_done_is_not_done_again() {
    let room = room("twice", "path: out/a");
    room.makes(&["1"]);
    let before = room
        .paths()
        .into_iter()
        .filter(|path| path.starts_with("out/"))
        .collect::<Vec<_>>();
    let again = room.gapless(&["run", "job.yaml"]);
    assert_eq!(again.code, Some(7), "{}", again.stderr);
    assert!(again.stderr.contains("is complete: run "), "{}", again.stderr);
    let after = room
        .paths()
        .into_iter()
        .filter(|path| path.starts_with("out/"))
        .collect::<Vec<_>>();
    assert_eq!(after, before);
}

/// The guard of this matrix sees an output where there is one.
#[test]
#[should_panic(expected = "out/a/part-00000-1-2-0.csv")]
fn what_is_published_is_seen() {
    let room = room("published", "path: out/a");
    room.makes(&["1"]);
    room.check_nothing_published();
}

/// What a process may hold at once beside some files that are open: the engine, and a part of the rows.
const PEAK_MIB: u64 = 400;

#[test]
fn many_folders_of_many_columns_take_bounded_memory() {
    let names: Vec<String> = (0..200).map(|column| format!("c{column}")).collect();
    let rows = (0..200).map(|row| vec![format!("v{row}"); names.len()].join(",") + "\n");
    let text = names.join(",") + "\n" + &rows.collect::<String>();
    let sink = "parquet: {path: out/a, partition_by: [c0]}";
    let job = copy_of("{}").replace("csv: {path: out/a}", sink);
    let room = Room::new("200 folders of 200 columns").file("in.csv", text).job(&job);
    let ended = room.gapless(&["run", "job.yaml"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(room.path("out/a/c0=v199").is_dir());
    assert!(ended.peak_mib < PEAK_MIB, "{} MiB", ended.peak_mib);
}

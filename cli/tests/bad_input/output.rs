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

/// The run fails, and what was at the output is all that is there.
fn refused(room: &Room, says: &str) {
    let before: Vec<String> = outputs(room);
    let folder = room.path("out").display().to_string();
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

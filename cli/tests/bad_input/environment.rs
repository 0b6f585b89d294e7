//! What the machine denies: rights, space, inodes.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::room::{Room, copy_of};

fn room(what: &str) -> Room {
    Room::new(what).file("in.csv", "id\n1\n").job(&copy_of("{id: int64}"))
}

/// The room's program is bound by permissions, also where root runs the tests: then it goes without the
/// capabilities that let root pass them by.
fn bound(room: Room) -> Room {
    if !rustix::process::geteuid().is_root() {
        return room;
    }
    room.by(&[
        "setpriv",
        "--bounding-set=-dac_override,-dac_read_search",
        "--inh-caps=-dac_override,-dac_read_search",
    ])
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
}

#[test]
fn what_may_not_be_read_or_written_is_told_with_the_remedy() {
    let denied = bound(room("an input"));
    set_mode(&denied.path("in.csv"), 0);
    denied
        .fails("step a, survey: in.csv: permission denied while opening it; the worker's user must be able to read it");

    let denied = bound(room("an output"));
    fs::create_dir(denied.path("out")).expect("made");
    set_mode(&denied.path("out"), 0o555);
    denied.fails("out/.a.gapless");
    set_mode(&denied.path("out"), 0o755);

    let denied = bound(room("a job file"));
    set_mode(&denied.path("job.yaml"), 0);
    for verb in ["validate", "plan", "run"] {
        denied.refuses(
            &[verb, "job.yaml"],
            5,
            "cannot read the job file job.yaml: Permission denied",
        );
    }

    let denied = bound(room("a state folder"));
    fs::create_dir(denied.path("state")).expect("made");
    set_mode(&denied.path("state"), 0o555);
    denied.refuses(
        &["run", "job.yaml", "--state", "state"],
        5,
        "cannot make the folder state/scratch: Permission denied (os error 13); give this user the right to write there, or choose others with --state and --scratch",
    );
    set_mode(&denied.path("state"), 0o755);
}

/// A file system in memory, mounted on a folder of a room, which must outlive it.
struct Disk(PathBuf);

impl Disk {
    /// None, with a word why, where nobody may mount anything.
    fn mount(room: &Room, folder: &str, options: &str) -> Option<Disk> {
        let path = room.path(folder);
        fs::create_dir_all(&path).expect("made");
        let mut mount = Command::new("mount");
        let output = mount
            .args(["-t", "tmpfs", "-o", options, "gapless-test"])
            .arg(&path)
            .output();
        let output = output.expect("mount starts");
        if output.status.success() {
            return Some(Disk(path));
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let denied = ["must be superuser", "permission denied", "not permitted"];
        assert!(denied.iter().any(|words| said.contains(words)), "{said}");
        eprintln!("SKIPPED: a full disk needs a mount, which is for root: {said}");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.0.display());
        }
    }
}

#[test]
fn a_disk_without_room_is_told_before_any_work() {
    let once = "    on_error: {retry: {attempts: 1}}\n";
    let space = "MiB left on this file system, and 64 MiB are the least to begin with; free some, then the run goes on";
    let inodes = "none of its 8 inodes left on this file system; free some, then the run goes on";
    for (what, folder, options, says) in [
        ("a small output", "out", "size=1m", space),
        ("a small scratch", ".gapless/scratch", "size=1m", space),
        ("an output without inodes", "out", "size=128m,nr_inodes=8", inodes),
        (
            "a scratch without inodes",
            ".gapless/scratch",
            "size=128m,nr_inodes=4",
            "0 of 4 inodes); free space or inodes there, then the run goes on",
        ),
    ] {
        let room = room(what).job(&(copy_of("{id: int64}") + once));
        let Some(_disk) = Disk::mount(&room, folder, options) else {
            return;
        };
        let ended = room.fails(says);
        let place = room.path(folder).display().to_string();
        for words in ["step a, prepare: ", &place] {
            assert!(ended.stderr.contains(words), "{what}: {}", ended.stderr);
        }
    }
}

/// Prepare finds room, and the output is larger than that.
#[test]
fn a_disk_that_fills_while_it_is_written_is_told_and_nothing_is_published() {
    let job = |sink: &str| {
        format!(
            "job: j\nsteps:\n  - name: a\n    source: {{sequence: {{from: 0, to: 4000000}}}}\n    partition: {{count: 1}}\n    transform: {{sql: \"SELECT n, sha256(CAST(n AS VARCHAR)) AS h FROM input\"}}\n    sink: {{{sink}: {{path: out/a}}}}\n    on_error: {{retry: {{attempts: 2}}}}\n"
        )
    };
    for sink in ["csv", "parquet"] {
        let room = Room::new(sink).job(&job(sink));
        let Some(disk) = Disk::mount(&room, "out", "size=72m") else {
            return;
        };
        let ended = room.fails("No space left on device (os error 28) (free there by now: ");
        for words in [
            " of 72 MiB, ",
            " inodes); free space or inodes there, then the run goes on",
        ] {
            assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
        }
        drop(disk);
    }
    // The exchange of sixty million numbers takes more than that.
    let exchange = "job: j\nsteps:\n  - name: a\n    source: {sequence: {from: 0, to: 60000000}}\n    partition: {hash: {columns: [n]}, count: 4}\n    sink: {csv: {path: out/a}}\n    on_error: {retry: {attempts: 1}}\n";
    let room = Room::new("scratch").job(exchange);
    let Some(_disk) = Disk::mount(&room, ".gapless/scratch", "size=72m") else {
        return;
    };
    let ended = room.fails("No space left on device");
    let place = room.path(".gapless/scratch").display().to_string();
    for words in [
        "step a, scatter partition ",
        &place,
        "free space or inodes there, then the run goes on",
    ] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    // Each chunk takes a few inodes.
    let inodes = job("csv").replace("count: 1", "count: 64").replace("4000000", "64000");
    let room = Room::new("inodes").job(&inodes);
    let Some(_disk) = Disk::mount(&room, "out", "size=128m,nr_inodes=40") else {
        return;
    };
    let ended = room.fails("No space left on device");
    assert!(ended.stderr.contains("execute partition "), "{}", ended.stderr);
}

#[test]
fn a_spill_folder_that_fills_is_told_with_its_place() {
    let job = "job: j\nsteps:\n  - name: a\n    source: {sequence: {from: 0, to: 2000000}}\n    partition: {count: 1}\n    transform: {sql: \"SELECT h, count(*) AS c FROM (SELECT md5(CAST(n AS VARCHAR)) AS h FROM input) GROUP BY h\"}\n    sink: {csv: {path: out/a}}\n    on_error: {retry: {attempts: 1}}\n";
    let room = Room::new("spill")
        .by(&["env", "GAPLESS_MEMORY_PER_SLOT_MIB=16"])
        .job(job);
    let Some(_disk) = Disk::mount(&room, "spill", "size=4m") else {
        return;
    };
    let ended = room.fails_as(
        &["run", "job.yaml", "--spill-dir", "spill"],
        "the SQL failed: cannot spill to ",
    );
    let says = " of 4 MiB, ";
    assert!(ended.stderr.contains(says), "{}", ended.stderr);
}

//! A run that failed because of its data is taken up again: what has changed of its input is planned anew, each
//! record counts once, of the new data; what has not changed goes on where it was.

use std::{fs, os::unix::fs::MetadataExt, process::Output};

use gapless_tests::{Cluster, World, strace::Fault};
use serde_json::Value;

const ROWS: u64 = 3000;
const BAD: [u64; 4] = [400, 1200, 1900, 2700];

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Writes a file of numbers in which those of `bad` are none.
fn write(world: &World, name: &str, rows: u64, bad: &[u64]) {
    fs::create_dir_all(world.path("in")).expect("made");
    let line = |id: u64| match bad.contains(&id) {
        true => format!("{id},bad\n"),
        false => format!("{id},{}\n", id * 2),
    };
    let text: String = (0..rows).map(line).collect();
    fs::write(world.path(&format!("in/{name}.csv")), format!("id,n\n{text}")).expect("written");
}

fn job(world: &World, options: &str) {
    world.job(&format!(
        "job: again\nsteps:\n  - name: load\n    source: {{csv: {{path: \"in/*.csv\", columns: {{id: int64, n: int64}}}}}}\n    \
         {options}\n    sink: {{csv: {{path: out/load}}}}\n"
    ));
}

fn run(world: &World) -> Output {
    world.gapless(&["run", "job.yaml", "--slots", "2"])
}

fn fails(world: &World, words: &str) -> String {
    let output = run(world);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(words), "{words}\nin\n{}", said(&output));
    assert!(!world.path("out/load").exists(), "nothing is published");
    said(&output)
}

fn succeeds(world: &World) -> String {
    let output = run(world);
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

fn ask(world: &World, arguments: &[&str]) -> Value {
    let all: Vec<&str> = arguments
        .iter()
        .copied()
        .chain(["--state", ".gapless", "-o", "json"])
        .collect();
    serde_json::from_slice(&world.gapless(&all).stdout).expect("JSON")
}

/// Each record of these files once, by the run's own word, by the output and by the certificate; nothing else is left.
fn holds(world: &World, files: &[(u64, u64)]) {
    let mut expected: Vec<String> = files
        .iter()
        .flat_map(|(rows, factor)| (0..*rows).map(move |id| format!("{id},{}", id * factor)))
        .collect();
    expected.sort_unstable();
    assert_eq!(world.rows("out/load"), expected);
    let run = ask(world, &["get", "again"]);
    assert_eq!(run["state"], "completed", "{run:#}");
    let counters = &run["steps"][0]["counters"];
    assert_eq!(counters["read"], expected.len() as u64, "{run:#}");
    assert_eq!(counters["written"], expected.len() as u64, "{run:#}");
    let verified = world.gapless(&["verify", "again", "--state", ".gapless"]);
    assert!(verified.status.success(), "{}", said(&verified));
    for folder in ["out/.load.gapless/run", ".gapless/scratch"] {
        let left = fs::read_dir(world.path(folder)).into_iter().flatten().flatten();
        let left: Vec<_> = left.map(|it| it.file_name()).filter(|name| name != "spill").collect();
        assert!(left.is_empty(), "{folder} holds {left:?}");
    }
}

const ANEW: &str = "load: in/a.csv changed since the run was planned: the step begins anew";

#[test]
fn too_many_rejects_over_partitions_are_mended_in_the_file() {
    // Through the exchange it is the one partition that scatters which fails.
    for (partition, failure, again) in [
        (
            "{bytes: {}, count: 4}",
            "step load: 4 records rejected, the limit is 3",
            "no input of the step has changed since the run was planned: mend the records in it",
        ),
        (
            "{hash: {columns: [id]}, count: 3}",
            "more than 3 records were rejected",
            "load: no input has changed since the run was planned: what is committed stays",
        ),
    ] {
        let world = World::empty();
        write(&world, "a", ROWS, &BAD);
        write(&world, "b", 100, &[]);
        job(
            &world,
            &format!("partition: {partition}\n    on_error: {{reject: {{limit: 3}}}}"),
        );
        let first = fails(&world, failure);
        assert!(first.contains("unless an input of its step has changed"), "{first}");
        // Nothing has changed: the same failure, and words that say what helps.
        assert!(fails(&world, again).contains(failure));
        write(&world, "a", ROWS, &[]);
        assert!(succeeds(&world).contains(ANEW));
        holds(&world, &[(ROWS, 2), (100, 2)]);
        let outline = world.gapless(&["logs", "again", "--state", ".gapless"]);
        assert!(String::from_utf8_lossy(&outline.stdout).contains(ANEW), "it is kept");
        // Each is done once.
        assert_eq!(run(&world).status.code(), Some(7));
    }
}

/// Mended in part only: the second edition fails by its own count, which begins at zero.
#[test]
fn counts_of_an_edition_begin_at_zero() {
    let world = World::empty();
    write(&world, "a", ROWS, &BAD);
    job(
        &world,
        "partition: {bytes: {}, count: 4}\n    on_error: {reject: {limit: 1}}",
    );
    fails(&world, "the limit is 1");
    write(&world, "a", ROWS, &BAD[..2]);
    let again = fails(&world, "step load: 2 records rejected, the limit is 1");
    assert!(again.contains(ANEW), "{again}");
    write(&world, "a", ROWS, &[]);
    assert!(succeeds(&world).contains(ANEW));
    holds(&world, &[(ROWS, 2)]);
}

#[test]
fn a_partition_over_its_limit_is_mended_in_the_file_or_by_taking_the_file_away() {
    for by_removal in [false, true] {
        let world = World::empty();
        write(&world, "a", ROWS, &[]);
        write(&world, "b", 200, &[77]);
        job(&world, "partition: {files: {}}");
        fails(&world, "in/b.csv, line 79");
        write(&world, "c", 50, &[]);
        let told = match by_removal {
            false => {
                write(&world, "b", 200, &[]);
                "load: in/b.csv changed, in/c.csv was added since the run was planned: the step begins anew"
            }
            true => {
                fs::remove_file(world.path("in/b.csv")).expect("removed");
                "load: in/b.csv was removed, in/c.csv was added since the run was planned: the step begins anew"
            }
        };
        let again = succeeds(&world);
        assert!(again.contains(told), "{again}");
        match by_removal {
            false => holds(&world, &[(ROWS, 2), (200, 2), (50, 2)]),
            true => holds(&world, &[(ROWS, 2), (50, 2)]),
        }
    }
}

/// Of an input that is gone and comes back as it was, what is committed is kept: the partition that is done has one
/// attempt in the end.
#[test]
fn what_is_committed_is_kept_while_no_input_changes() {
    let world = World::empty();
    write(&world, "a", ROWS, &[]);
    write(&world, "b", 200, &[77]);
    job(
        &world,
        "partition: {files: {}}\n    on_error: {partition_failed: continue}",
    );
    fails(&world, "1 of 2 execute partitions failed");
    let table = || {
        let run = ask(&world, &["describe", "again"]);
        let rows = run["partition_table"].as_array().expect("a table").clone();
        rows.into_iter()
            .map(|row| {
                (
                    row["state"].as_str().expect("a state").to_string(),
                    row["attempt"].as_u64(),
                )
            })
            .collect::<Vec<_>>()
    };
    let done = ("done".to_string(), Some(1));
    let before = table();
    assert_eq!((before.len(), &before[0]), (2, &done), "{before:?}");
    let attempts = before[1].1.expect("a number");
    fs::rename(world.path("in"), world.path("away")).expect("moved");
    fails(&world, "no file matches in/*.csv");
    fs::rename(world.path("away"), world.path("in")).expect("moved");
    let again = fails(&world, "1 of 2 execute partitions failed");
    assert!(
        again.contains("load: no input has changed since the run was planned: what is committed stays"),
        "{again}"
    );
    let after = table();
    assert_eq!(after[0], done, "{after:?}");
    assert!(after[1].1 > Some(attempts), "{after:?}");
}

/// Control totals are compared when the step is sealed: the plan of a sealed step is dropped too.
#[test]
fn a_total_that_does_not_agree_is_mended_in_the_file() {
    let world = World::empty();
    let pay = |declared: u64| {
        let lines: String = (1..=40).map(|id| format!("PAY{id:08}\n")).collect();
        fs::write(world.path("pay.txt"), format!("{lines}END{declared:07}\n")).expect("written");
    };
    pay(41);
    world.job(
        "job: again\nsteps:\n  - name: load\n    source: {records: {path: pay.txt, trailer: {tag: END, fields: [{name: records, \
         width: 7, type: int64, pad: zero, count: records}]}, lines: [{tag: PAY, fields: [{name: id, width: 8, type: int64, pad: \
         zero}]}]}}\n    partition: {count: 3}\n    sink: {csv: {path: out/load}}\n",
    );
    let wrong = "the number of records is declared as 41, counted were 40; nothing is published";
    fails(&world, wrong);
    fails(&world, wrong);
    fs::remove_file(world.path("pay.txt")).expect("removed");
    fails(&world, "pay.txt");
    pay(40);
    let again = succeeds(&world);
    assert!(
        again.contains("load: pay.txt changed since the run was planned: the step begins anew"),
        "{again}"
    );
    assert_eq!(world.rows("out/load").len(), 40);
    let verified = world.gapless(&["verify", "again", "--state", ".gapless"]);
    assert!(verified.status.success(), "{}", said(&verified));
}

#[test]
fn a_key_that_stands_twice_is_mended_in_the_input() {
    let world = World::empty();
    write(&world, "a", 300, &[]);
    let more = |first: u64| {
        let text: String = (0..200)
            .map(|at| format!("{},{}\n", at + first, (at + first) * 2))
            .collect();
        fs::write(world.path("more.csv"), format!("id,n\n{text}")).expect("written");
    };
    more(299);
    world.job(
        "job: again\nsteps:\n  - name: load\n    source:\n      merge:\n        unique: [id]\n        inputs:\n          - csv: \
         {path: in/a.csv, columns: {id: int64, n: int64}}\n          - csv: {path: more.csv, columns: {id: int64, n: \
         int64}}\n    partition: {count: 4}\n    sink: {csv: {path: out/load}}\n",
    );
    fails(&world, "the key (id) = (299) stands twice");
    more(300);
    let again = succeeds(&world);
    assert!(
        again.contains("load: more.csv changed since the run was planned: the step begins anew"),
        "{again}"
    );
    holds(&world, &[(500, 2)]);
}

/// The process is killed at moments of dropping the first plan and of making the second: the verdict of the first, its
/// sweep, the folder of the second, a chunk of it.
#[test]
fn a_process_that_is_killed_while_it_plans_anew_is_followed_by_one_that_ends_it() {
    for moment in [
        "before the verdict",
        "before the sweep",
        "at the new folder",
        "at a new chunk",
    ] {
        let world = World::empty();
        write(&world, "a", ROWS, &BAD);
        job(
            &world,
            "partition: {bytes: {}, count: 4}\n    on_error: {reject: {limit: 3}}",
        );
        fails(&world, "the limit is 3");
        let id = ask(&world, &["get", "again"])["run"]
            .as_str()
            .expect("an id")
            .to_string();
        let own = format!("out/.load.gapless/run/{id}-0");
        let (calls, path) = match moment {
            "before the verdict" => ("?link,linkat", "out/.load.gapless/published/000001.json".to_string()),
            "before the sweep" => ("?rename,?renameat,renameat2", own),
            "at the new folder" => ("?mkdir,mkdirat", format!("{own}-1/data")),
            _ => ("?open,openat,?link,linkat,fsync", format!("{own}-1/manifest")),
        };
        write(&world, "a", ROWS, &[]);
        let fault = Fault {
            calls,
            action: "signal=KILL:when=1",
            path: &world.path(&path),
        };
        let mut killed = world.start_with(&fault, "killed", &["run", "job.yaml", "--slots", "2"]);
        killed.wait_killed();
        assert!(!world.path("out/load").exists(), "{moment}");
        succeeds(&world);
        holds(&world, &[(ROWS, 2)]);
    }
}

#[test]
fn a_step_that_is_published_stays_whatever_becomes_of_its_input() {
    let world = World::empty();
    write(&world, "a", ROWS, &[]);
    fs::write(world.path("second.csv"), "id\n1\nbad\n").expect("written");
    world.job(
        "job: again\nsteps:\n  - name: load\n    source: {csv: {path: \"in/*.csv\", columns: {id: int64, n: int64}}}\n    sink: \
         {csv: {path: out/load}}\n  - name: second\n    after: [load]\n    source: {csv: {path: second.csv, columns: {id: \
         int64}}}\n    sink: {csv: {path: out/second}}\n",
    );
    let first = run(&world);
    assert_eq!(first.status.code(), Some(1), "{}", said(&first));
    assert!(world.path("out/load").exists() && !world.path("out/second").exists());
    let identity = || {
        let meta = fs::metadata(world.path("out/load")).expect("there");
        (meta.ino(), meta.mtime(), meta.mtime_nsec())
    };
    let before = identity();
    fs::write(world.path("second.csv"), "id\n1\n2\n").expect("written");
    write(&world, "a", 10, &[]);
    let again = succeeds(&world);
    assert!(
        again.contains("second: second.csv changed since the run was planned: the step begins anew"),
        "{again}"
    );
    assert!(!again.contains("in/a.csv"), "{again}");
    assert_eq!(identity(), before, "it is not made anew");
    assert_eq!(world.rows("out/load").len() as u64, ROWS);
    assert_eq!(world.rows("out/second"), ["1", "2"]);
}

/// Workers that live on learn of the new edition: its look-up, its columns, its exchange.
#[test]
fn workers_that_served_the_first_plan_serve_the_second() {
    let world = World::empty();
    write(&world, "a", ROWS, &BAD);
    let kinds = |kind: &str| fs::write(world.path("kind.csv"), format!("id,kind\n7,{kind}\n")).expect("written");
    kinds("old");
    job(
        &world,
        "lookups: {kind: {csv: {path: kind.csv, columns: {id: int64, kind: string}}}}\n    partition: {hash: {columns: [id]}, \
         count: 3}\n    transform: {sql: \"SELECT input.id, input.n, k.kind FROM input LEFT JOIN kind k ON k.id = input.id\"}\n    \
         on_error: {reject: {limit: 3}}",
    );
    let cluster = Cluster::start(&world, 2);
    let run = cluster.submit("job.yaml");
    let failed = cluster.ended(&run);
    assert_eq!(failed["state"], "failed", "{failed:#}");
    kinds("new");
    write(&world, "a", ROWS + 500, &[]);
    assert_eq!(cluster.submit("job.yaml"), run, "the same run goes on");
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    assert_eq!(ended["steps"][0]["counters"]["read"], ROWS + 500, "{ended:#}");
    assert_eq!(ended["steps"][0]["counters"]["rejected"], 0, "{ended:#}");
    let events = ended["events"].to_string();
    assert!(
        events.contains("in/a.csv changed, look-up kind: kind.csv changed since the run was planned"),
        "{events}"
    );
    let mut expected: Vec<String> = (0..ROWS + 500)
        .map(|id| format!("{id},{},{}", id * 2, if id == 7 { "new" } else { "" }))
        .collect();
    expected.sort_unstable();
    assert_eq!(world.rows("out/load"), expected);
    let verified = world.gapless(&["verify", &run, "--endpoint", &cluster.endpoint]);
    assert!(verified.status.success(), "{}", said(&verified));
}

/// A file that changes while its run is under way fails it, and the words name what helps, which does.
#[test]
fn a_file_that_changes_under_a_run_is_planned_anew_by_running_again() {
    let world = World::empty();
    write(&world, "a", 20_000, &[]);
    // Slow enough to be killed in between.
    job(
        &world,
        "partition: {bytes: {}, count: 24}\n    transform: {sql: \"SELECT id, n FROM input WHERE md5(repeat(CAST(n AS VARCHAR), \
         4000)) <> 'none'\"}",
    );
    let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
    gapless_tests::wait_for("a chunk", || (world.manifests("load") >= 1).then_some(()));
    assert!(first.kill(), "the kill came before the end");
    write(&world, "a", ROWS, &[]);
    fails(&world, "run the job again, then the step begins anew");
    assert!(succeeds(&world).contains(ANEW));
    holds(&world, &[(ROWS, 2)]);
}

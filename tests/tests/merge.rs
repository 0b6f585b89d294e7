//! Merges on real processes: inputs of several formats as one source, in order, whatever dies.

use std::{fs, process::Output};

use gapless_tests::{Cluster, World, wait_for};

/// Records of each input.
const EACH: u64 = 20_000;
/// Partitions: eight for each input, as the inputs have about the same size.
const PARTITIONS: usize = 24;

fn name(id: u64) -> String {
    format!("name {:>7}", id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44)
}

/// Three inputs of three formats, with numbered records.
fn inputs(world: &World) {
    let lines = |from: u64, line: &dyn Fn(u64) -> String| (from..from + EACH).map(line).collect::<String>();
    let one = lines(0, &|id| format!("{id},{},----------\n", name(id)));
    let two = lines(EACH, &|id| format!("{},{id},----------\n", name(id)));
    let three = lines(2 * EACH, &|id| format!("{id};{};----\n", name(id)));
    fs::write(world.path("one.csv"), one).expect("written");
    fs::write(world.path("two.csv"), format!("name,id,padding\n{two}")).expect("written");
    fs::write(world.path("three.txt"), three).expect("written");
}

fn job(world: &World, options: &str, sink: &str) {
    world.job(&format!(
        r#"job: merge
steps:
  - name: merge
    source:
      merge:
        {options}
        inputs:
          - csv: {{path: one.csv, header: false, columns: {{id: int64, name: string, padding: string}}}}
          - csv: {{path: two.csv, columns: {{id: int32}}}}
          - records: {{path: three.txt, delimiter: ";", fields: [{{name: id, type: int64}}, {{name: name}}, {{name: padding}}]}}
    partition: {{count: {PARTITIONS}}}
    sink: {{csv: {{path: out/merge, {sink}}}}}
"#
    ));
}

/// The lines of an output, its files in the order of their names.
fn lines(world: &World, output: &str) -> Vec<String> {
    let mut files = world.files(output);
    files.sort();
    let text = |file| fs::read_to_string(file).expect("readable");
    files
        .iter()
        .flat_map(|file| text(file).lines().skip(1).map(str::to_string).collect::<Vec<_>>())
        .collect()
}

fn check(world: &World) {
    let found = lines(world, "out/merge");
    assert_eq!(found.len() as u64, 3 * EACH);
    for (id, line) in (0..).zip(&found) {
        let padding = if id < 2 * EACH { "----------" } else { "----" };
        assert_eq!(*line, format!("{id},{},{padding}", name(id)));
    }
}

fn succeeds(world: &World, arguments: &[&str]) {
    let output = world.gapless(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const PLAIN: &str = "missing_columns: refuse";

#[test]
fn the_order_does_not_depend_on_the_cut() {
    for (workers, sink) in [("1", "exists: fail"), ("3", "exists: fail"), ("2", "files: 1")] {
        let world = World::empty();
        inputs(&world);
        job(&world, PLAIN, sink);
        succeeds(&world, &["run", "job.yaml", "--workers", workers, "--slots", "1"]);
        check(&world);
        succeeds(&world, &["verify", "merge", "--state", ".gapless"]);
    }
}

/// The partitions of the second input are numbers 8 to 15; with one slot they are worked off one by one.
#[test]
fn a_run_that_is_killed_in_the_second_input_goes_on_without_a_duplicate() {
    for chunks in [8, 10, 13] {
        let world = World::empty();
        inputs(&world);
        job(&world, PLAIN, "exists: fail");
        let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
        wait_for("the chunks to kill at", || {
            (world.manifests("merge") >= chunks || !first.is_running()).then_some(())
        });
        assert!(first.kill(), "the kill at {chunks} chunks came before the end");
        let made = world.manifests("merge");
        assert!((8..16).contains(&made), "the kill came at {made} chunks");
        succeeds(&world, &["run", "job.yaml", "--slots", "1"]);
        check(&world);
        succeeds(&world, &["verify", "merge", "--state", ".gapless"]);
    }
}

#[test]
fn a_killed_worker_changes_nothing_of_the_order() {
    let world = World::empty();
    inputs(&world);
    job(&world, PLAIN, "exists: fail");
    let mut cluster = Cluster::start(&world, 2);
    let run = cluster.submit("job.yaml");
    let victim = wait_for("a worker at work", || cluster.busy_worker());
    assert!(cluster.workers[victim].kill(), "the worker was alive");
    assert_eq!(cluster.run(&run)["state"], "running", "the kill came before the end");
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    check(&world);
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const UNIQUE: &str = "unique: [id]";

#[test]
fn keys_are_unique_over_all_inputs_whatever_dies() {
    for chunks in [0, 9, 20] {
        let world = World::empty();
        inputs(&world);
        job(&world, UNIQUE, "exists: fail");
        if chunks > 0 {
            let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
            wait_for("the chunks to kill at", || {
                (world.manifests("merge") >= chunks || !first.is_running()).then_some(())
            });
            assert!(first.kill(), "the kill at {chunks} chunks came before the end");
        }
        succeeds(&world, &["run", "job.yaml", "--slots", "1"]);
        check(&world);
    }
}

/// A record of the third input has the key of one of the first: in one partition, in several, through the exchange,
/// and where one half was read before everything was killed.
#[test]
fn a_key_that_stands_twice_is_told_with_both_places_and_nothing_is_published() {
    for (options, partition, chunks) in [
        (UNIQUE, "{count: 1}", 0),
        (UNIQUE, "{count: 24}", 0),
        (UNIQUE, "{count: 24}", 12),
        (UNIQUE, "{hash: {columns: [name]}, count: 4}", 0),
        ("{unique: [id], by: [id]}", "auto", 0),
    ] {
        let world = World::empty();
        inputs(&world);
        let three = fs::read_to_string(world.path("three.txt")).expect("readable");
        let (last, _) = three.trim_end().rsplit_once('\n').expect("lines");
        let (key, sorted) = match options.contains("by") {
            // In order all the same.
            true => (2 * EACH - 1, format!("{};twice;----\n{last}\n", 2 * EACH - 1)),
            false => (77, format!("{last}\n77;twice;----\n")),
        };
        fs::write(world.path("three.txt"), sorted).expect("written");
        job(
            &world,
            options
                .trim_matches(['{', '}'])
                .replace(", by", "\n        by")
                .as_str(),
            "exists: fail",
        );
        let text = fs::read_to_string(world.path("job.yaml")).expect("readable");
        let text = text.replace(&format!("{{count: {PARTITIONS}}}"), partition);
        fs::write(world.path("job.yaml"), text).expect("written");
        if chunks > 0 {
            let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
            wait_for("the chunks to kill at", || {
                (world.manifests("merge") >= chunks || !first.is_running()).then_some(())
            });
            assert!(first.kill(), "the kill at {chunks} chunks came before the end");
        }
        let output = world.gapless(&["run", "job.yaml", "--slots", "1"]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let (one, line) = match key {
            77 => ("input 1 (csv one.csv), one.csv, line 78", EACH),
            _ => ("input 2 (csv two.csv), two.csv, line 20001", 1),
        };
        let expected = format!(
            "merge: the key (id) = ({key}) stands twice: in {one}, and in input 3 (records three.txt), three.txt, line {line}; \
             nothing is published: mend the inputs, or leave `unique` out"
        );
        assert!(
            said(&output).contains(&expected),
            "{options} {partition}: {}",
            said(&output)
        );
        assert!(!world.path("out/merge").exists());
    }
}

/// Records of an input in the tests of order: 32 bytes each, so that cuts fall where a test wants them.
const LINE: usize = 32;

/// Three inputs that are sorted by `k`, with equal keys within and between them; `n` counts the records of an input.
fn sorted_inputs(world: &World, rows: u64) -> Vec<String> {
    let mut all = Vec::new();
    for input in 0..3 {
        let mut text = String::new();
        for n in 0..rows {
            let k = n * (input + 1) / 4;
            let line = format!("{k:>12},{input},{n:>16}\n");
            assert_eq!(line.len(), LINE);
            text.push_str(&line);
            all.push((k, input, n));
        }
        fs::write(world.path(&format!("in-{input}.csv")), text).expect("written");
    }
    // Of equal keys those of the earlier input come first, then those that stand earlier.
    all.sort();
    all.iter().map(|(k, input, n)| format!("{k},{input},{n}")).collect()
}

fn sorted_job(world: &World, partition: &str, sink: &str) {
    let input = |at: u64| {
        format!(
            "          - records: {{path: in-{at}.csv, fields: [{{name: k, width: 12, type: int64}}, {{width: 1, value: \",\"}}, {{name: input, width: 1, type: int64}}, {{width: 1, value: \",\"}}, {{name: n, width: 16, type: int64}}]}}\n"
        )
    };
    world.job(&format!(
        "job: merge\nsteps:\n  - name: merge\n    source:\n      merge:\n        by: [k]\n        unique: [input, n]\n        inputs:\n{}{}{}    partition: {partition}\n    sink: {{csv: {{path: out/merge, {sink}}}}}\n",
        input(0),
        input(1),
        input(2)
    ));
}

#[test]
fn sorted_inputs_become_one_order_in_which_equal_keys_keep_that_of_the_inputs() {
    for (partition, workers, sink) in [
        ("{count: 1}", "1", "exists: fail"),
        ("{count: 7}", "3", "exists: fail"),
        ("{count: 5}", "2", "files: 1"),
    ] {
        let world = World::empty();
        // Above 6 MiB, so that several partitions read them.
        let expected = sorted_inputs(&world, 70_000);
        sorted_job(&world, partition, sink);
        succeeds(&world, &["run", "job.yaml", "--workers", workers, "--slots", "1"]);
        assert!(lines(&world, "out/merge") == expected, "{partition} {workers} {sink}");
        succeeds(&world, &["verify", "merge", "--state", ".gapless"]);
    }
}

#[test]
fn a_merge_of_sorted_inputs_that_is_killed_goes_on_in_order() {
    for chunks in [0, 3, 9] {
        let world = World::empty();
        let expected = sorted_inputs(&world, 70_000);
        sorted_job(&world, "{count: 12}", "exists: fail");
        let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
        wait_for("the chunks to kill at", || {
            (world.manifests("merge") >= chunks && world.path(".gapless/store").is_dir() || !first.is_running())
                .then_some(())
        });
        assert!(first.kill(), "the kill at {chunks} chunks came before the end");
        succeeds(&world, &["run", "job.yaml", "--slots", "1"]);
        assert!(lines(&world, "out/merge") == expected, "killed at {chunks} chunks");
    }
}

/// The record that is out of order is the first of a partition, the last of one, or in the midst of one.
#[test]
fn an_input_that_is_not_sorted_is_told_wherever_its_order_breaks() {
    // One slot reads 4 MiB in two parts; the inputs have equal sizes.
    let rows = (4 << 20) / 3 / LINE as u64;
    let middle = 3 * rows / 2 - rows;
    for (at, partition) in [
        (middle, "{count: 2}"),
        (middle + 1, "{count: 2}"),
        (rows - 1, "{count: 2}"),
        (5, "{count: 1}"),
    ] {
        let world = World::empty();
        sorted_inputs(&world, rows);
        let mut text = fs::read(world.path("in-1.csv")).expect("readable");
        let from = at as usize * LINE;
        text[from..from + 12].copy_from_slice(b"          -1");
        fs::write(world.path("in-1.csv"), text).expect("written");
        sorted_job(&world, partition, "exists: fail");
        let output = world.gapless(&["run", "job.yaml", "--slots", "1"]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let expected = format!(
            "merge: input 2 (records in-1.csv) is not sorted by k: in-1.csv, line {} has (-1), behind ({}) of in-1.csv, line {at}; \
             nothing is published: sort the input, or leave `by` out",
            at + 1,
            (at - 1) * 2 / 4
        );
        assert!(said(&output).contains(&expected), "at {at}: {}", said(&output));
        assert!(!world.path("out/merge").exists());
    }
}

/// Bytes of the first input in the test of chunks; the second has as many. A chunk is full at 128 MiB.
const LARGE: u64 = 96 << 20;

/// Bytes that the second chunk of the only partition has written so far.
fn second_chunk(world: &World) -> u64 {
    let runs = fs::read_dir(world.path("out/.merge.gapless/run"))
        .into_iter()
        .flatten()
        .flatten();
    let files = runs.flat_map(|run| fs::read_dir(run.path().join("data")).into_iter().flatten().flatten());
    let second = files.filter(|file| file.file_name().to_string_lossy().ends_with("-1.csv.part"));
    second.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// A chunk of the one partition ends in the midst of the second input, and the next attempt goes on there.
#[test]
fn a_partition_that_is_killed_behind_a_chunk_goes_on_in_the_midst_of_an_input() {
    let rows = LARGE / 64;
    for _ in 0..5 {
        let world = World::empty();
        for (at, name) in [(0, "one.csv"), (1, "two.csv")] {
            let line = |id: u64| format!("{:>12},{:p>50}\n", at * rows + id, "");
            let text: String = (0..rows).map(line).collect();
            assert_eq!(text.len() as u64, LARGE);
            fs::write(world.path(name), text).expect("written");
        }
        let input = |name: &str, keys: &str| {
            format!("{{{keys}: {{path: {name}, delimiter: \",\", fields: [{{name: id}}, {{name: padding}}]}}}}")
        };
        let csv = "{csv: {path: one.csv, header: false, columns: {id: string, padding: string}}}";
        world.job(&format!(
            "job: merge\nsteps:\n  - name: merge\n    source: {{merge: {{inputs: [{csv}, {}]}}}}\n    partition: {{count: 1}}\n    \
             transform: {{sql: \"SELECT cast(trim(id) AS bigint) AS id FROM input\"}}\n    sink: {{csv: {{path: out/merge}}}}\n",
            input("two.csv", "records")
        ));
        let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
        wait_for("the second chunk", || {
            (second_chunk(&world) >= 256 << 10 || !first.is_running()).then_some(())
        });
        assert!(first.kill(), "the kill came before the end");
        succeeds(&world, &["run", "job.yaml", "--slots", "1"]);
        let found = lines(&world, "out/merge");
        assert_eq!(found.len() as u64, 2 * rows);
        assert!((0..).zip(&found).all(|(id, line): (u64, _)| *line == id.to_string()));
        // `part-<first unit>-<partition>-<attempt>-<commit>.csv`
        let mut files = world.files("out/merge");
        files.sort();
        let part = |at: usize| -> Vec<String> {
            let name = files[at].file_name().expect("a name").to_string_lossy().into_owned();
            name.split('-').map(str::to_string).collect()
        };
        let (one, two) = (part(0), part(1));
        let begins: u64 = two[1].parse().expect("a unit");
        assert!(
            (LARGE..2 * LARGE).contains(&begins),
            "the second chunk begins at {begins}"
        );
        // Two attempts: the kill came when the leader knew of the first chunk.
        if one[3..5] != two[3..5] {
            return;
        }
    }
    panic!("no kill came behind a commit");
}

/// Each step merges the two before it, so that columns of the first reach the last on very many ways.
#[test]
fn steps_that_each_merge_the_two_before_are_surveyed_once_each() {
    let world = World::empty();
    let mut job = "job: chain\nsteps:\n".to_string();
    for step in 0..28 {
        let source = match step {
            0 | 1 => "{sequence: {from: 0, to: 3}}".to_string(),
            _ => format!(
                "{{merge: {{inputs: [{{step: s{}}}, {{step: s{}}}]}}}}",
                step - 2,
                step - 1
            ),
        };
        job += &format!(
            "  - {{name: s{step}, source: {source}, transform: {{sql: \"SELECT n FROM input WHERE n = {step} - 1\"}}, \
             sink: {{csv: {{path: out/s{step}}}}}}}\n"
        );
    }
    world.job(&job);
    let mut run = world.start(&["run", "job.yaml", "--slots", "2"]);
    assert_eq!(run.code(), 0, "{}", run.log());
}

#[test]
fn one_file_under_two_names_is_not_read_twice() {
    let world = World::empty();
    fs::write(world.path("a.csv"), "id\n1\n").expect("written");
    std::os::unix::fs::symlink("a.csv", world.path("link.csv")).expect("linked");
    fs::hard_link(world.path("a.csv"), world.path("hard.csv")).expect("linked");
    let absolute = world.path("a.csv").display().to_string();
    for other in ["./a.csv", "link.csv", "hard.csv", &absolute] {
        world.job(&format!(
            "job: twice\nsteps:\n  - name: merge\n    source: {{merge: {{inputs: [{{csv: {{path: a.csv}}}}, {{csv: {{path: \
             {other:?}}}}}]}}}}\n    sink: {{csv: {{path: out/merge}}}}\n"
        ));
        let output = world.gapless(&["run", "job.yaml", "--slots", "1"]);
        assert_eq!(output.status.code(), Some(1), "{other}: {}", said(&output));
        let says = format!(
            "merge: {other} is a file of input 2 (csv {other}), and is a.csv of input 1 (csv a.csv); its records would be read twice"
        );
        assert!(said(&output).contains(&says), "{}", said(&output));
        assert!(!world.path("out/merge").exists());
    }
}

/// A file without a header has the columns that are declared for it, and is told as what it is.
#[test]
fn an_input_that_is_empty_is_told_as_empty() {
    let job = |columns: &str| {
        format!(
            "job: m\nsteps:\n  - name: m\n    source: {{merge: {{inputs: [{{csv: {{path: a.csv, columns: {{id: int64}}}}}}, {{csv: {{path: b.csv, \
             columns: {{{columns}}}}}}}]}}}}\n    sink: {{csv: {{path: out}}}}\n"
        )
    };
    let world = World::with("a.csv", "id,v\n1,a\n", &job("id: int64"));
    fs::write(world.path("b.csv"), "").expect("written");
    let output = world.gapless(&["run", "job.yaml"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told.contains("input 2 (csv b.csv) is empty") && told.contains("declare all of them in `columns`"),
        "{told}"
    );
    world.job(&job("id: int64, v: string"));
    let output = world.gapless(&["run", "job.yaml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(world.rows("out").len(), 1);
}

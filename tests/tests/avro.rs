//! Avro as whole jobs on the real program: in every cut and codec, as source, sink, step and look-up, also after kills.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Output};

use gapless_tests::World;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn run(world: &World) -> Output {
    world.gapless(&["run", "job.yaml", "--slots", "2"])
}

/// Rows of the sources: two files, in two codecs, with NULLs, made by the program.
const ROWS: u64 = 200_000;

fn make(world: &World) {
    for (number, codec) in ["snappy", "zstd"].iter().enumerate() {
        let (from, to) = (number as u64 * ROWS / 2, (number as u64 + 1) * ROWS / 2);
        world.job(&format!(
            "job: make-{codec}\nsteps:\n  - name: a\n    source: {{sequence: {{from: {from}, to: {to}}}}}\n    transform: {{sql: \
             \"SELECT n AS id, CASE WHEN n % 7 <> 0 THEN 'name ' || n END AS name, CAST(n AS DECIMAL(12,2)) / 4 AS price FROM \
             input\"}}\n    sink: {{avro: {{path: in/{codec}, compression: {codec}, files: 1}}}}\n"
        ));
        succeeds(&run(world));
    }
}

fn only_file(world: &World, output: &str) -> PathBuf {
    let files = world.files(output);
    assert_eq!(files.len(), 1, "{output}: one file");
    files[0].clone()
}

/// The answer to the job of [`table`], by arithmetic.
fn expected() -> Vec<String> {
    let names = (0..ROWS).filter(|id| id % 7 != 0).count();
    let quarters: u64 = (0..ROWS).sum();
    vec![format!(
        "{ROWS},{ROWS},{names},{}.{:02}",
        quarters / 4,
        quarters % 4 * 25
    )]
}

const SUM: &str = "SELECT count(*) AS n, count(DISTINCT id) AS ids, count(name) AS names, CAST(sum(price) AS DECIMAL(20,2)) AS price FROM input";

#[test]
fn every_cut_copies_each_row_once_and_the_copy_is_read_as_a_step_and_a_look_up() {
    let world = World::empty();
    make(&world);
    for (number, (cut, files)) in [
        ("{bytes: {}, count: 7}", ""),
        ("{files: {}}", ", files: 1"),
        ("{key_range: {column: id}, count: 3}", ", compression: none, files: 2"),
        (
            "{hash: {columns: [name]}, count: 2}",
            ", compression: snappy, partition_column: part",
        ),
    ]
    .iter()
    .enumerate()
    {
        world.job(&format!(
            r#"
job: cut-{number}
steps:
  - name: copy
    source: {{avro: {{path: "in/*/*.avro"}}}}
    partition: {cut}
    sink: {{avro: {{path: out/copy-{number}{files}}}}}
  - name: counted
    source: {{step: copy}}
    transform: {{sql: "{SUM}"}}
    sink: {{csv: {{path: out/counted-{number}, files: 1}}}}
  - name: few
    source: {{avro: {{path: "in/snappy/*.avro"}}}}
    transform: {{sql: "SELECT id, name AS other FROM input WHERE id < 100"}}
    sink: {{avro: {{path: out/few-{number}, files: 1}}}}
  - name: joined
    source: {{sequence: {{from: 0, to: 1000}}}}
    lookups: {{few: {{step: few}}}}
    transform: {{sql: "SELECT n, other FROM input JOIN few ON few.id = n"}}
    sink: {{csv: {{path: out/joined-{number}, files: 1}}}}
"#
        ));
        succeeds(&run(&world));
        assert_eq!(world.rows(&format!("out/counted-{number}")), expected(), "{cut}");
        let joined = world.rows(&format!("out/joined-{number}"));
        assert_eq!(joined.len(), 100, "{cut}");
        assert!(joined.contains(&"7,".to_string()) && joined.contains(&"8,name 8".to_string()));
        let verified = world.gapless(&["verify", "--certificate", &format!("out/copy-{number}")]);
        succeeds(&verified);
    }
}

/// What one run makes in one go and another after a kill, merged, is the same to the byte.
#[test]
fn a_copy_is_the_same_to_the_byte_also_after_a_kill() {
    let world = World::empty();
    make(&world);
    let copy = |name: &str| {
        world.job(&format!(
            "job: {name}\nsteps:\n  - name: {name}\n    source: {{avro: {{path: \"in/*/*.avro\"}}}}\n    partition: {{bytes: {{}}, \
             count: 12}}\n    transform: {{sql: \"SELECT id, name, price, md5(repeat(name, 300)) AS sum FROM input\"}}\n    sink: \
             {{avro: {{path: out/{name}, files: 1}}}}\n"
        ));
    };
    copy("whole");
    succeeds(&run(&world));
    copy("killed");
    let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
    gapless_tests::wait_for("chunks to kill at", || {
        (world.manifests("killed") >= 3 || !first.is_running()).then_some(())
    });
    assert!(first.kill(), "the kill came before the end");
    assert!(!world.path("out/killed").exists(), "nothing is published yet");
    succeeds(&world.gapless(&["run", "job.yaml", "--workers", "2", "--slots", "1"]));
    let bytes = |name: &str| fs::read(only_file(&world, name)).expect("readable");
    assert!(bytes("out/whole") == bytes("out/killed"), "the copies differ");
    succeeds(&world.gapless(&["verify", "--certificate", "out/killed"]));
}

/// Whether the second chunk of a partition of `out/large` is staged: `part-<partition>-<term>-<serial>-1.csv.part`.
fn has_second_chunk(world: &World) -> bool {
    let runs = fs::read_dir(world.path("out/.large.gapless/run"))
        .into_iter()
        .flatten()
        .flatten();
    let files = runs.flat_map(|run| fs::read_dir(run.path().join("data")).into_iter().flatten().flatten());
    files
        .into_iter()
        .any(|file| file.file_name().to_string_lossy().contains("-1.csv"))
}

/// A partition that is larger than a chunk goes on at a block within its file.
#[test]
fn a_partition_that_is_killed_goes_on_at_a_block() {
    const LARGE: u64 = 1_700;
    let world = World::empty();
    world.job(&format!(
        "job: make\nsteps:\n  - name: a\n    source: {{sequence: {{from: 0, to: {LARGE}}}}}\n    transform: {{sql: \"SELECT n, repeat('x', \
         100000) AS t FROM input\"}}\n    sink: {{avro: {{path: in, compression: none, files: 1}}}}\n"
    ));
    succeeds(&run(&world));
    // The text is looked through slowly, so that the kill comes in time.
    world.job(
        "job: large\nsteps:\n  - name: large\n    source: {avro: {path: \"in/*.avro\"}}\n    partition: {files: {}}\n    transform: {sql: \
         \"SELECT n, length(regexp_replace(t, 'x', 'yy', 'g')) AS letters FROM input\"}\n    sink: {csv: {path: out/large}}\n",
    );
    let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
    gapless_tests::wait_for("a second chunk, begun when the first is on record", || {
        (has_second_chunk(&world) || !first.is_running()).then_some(())
    });
    assert!(first.kill(), "the kill came before the end");
    succeeds(&world.gapless(&["run", "job.yaml", "--slots", "1"]));
    let mut rows = world.rows("out/large");
    let mut numbers = (0..LARGE).map(|n| format!("{n},200000")).collect::<Vec<_>>();
    rows.sort_unstable();
    numbers.sort_unstable();
    assert_eq!(rows, numbers);
    let terms: Vec<u64> = world
        .files("out/large")
        .iter()
        .map(|path| gapless_tests::term(path))
        .collect();
    assert_eq!(
        terms.iter().collect::<BTreeSet<_>>().len(),
        2,
        "the second run went on: {terms:?}"
    );
    succeeds(&world.gapless(&["verify", "--certificate", "out/large"]));
}

/// A rule that rows break tells each with its block.
#[test]
fn rejected_rows_are_told_with_their_block() {
    let world = World::empty();
    make(&world);
    world.job(
        "job: rules\nsteps:\n  - name: a\n    source: {avro: {path: \"in/snappy/*.avro\"}}\n    check: [{name: not 77777, that: \"id <> \
         77777\"}]\n    on_error: {reject: {limit: 1}}\n    sink: {avro: {path: out/a}}\n",
    );
    succeeds(&run(&world));
    let output = world.gapless(&["rejects", "rules", "--state", ".gapless", "-o", "json"]);
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one record");
    let record = if record.is_array() { record[0].clone() } else { record };
    assert!(
        record["block"].as_u64() > Some(0) && record["row"].as_u64().is_some(),
        "{record}"
    );
    assert!(record["raw"].as_str().expect("text").contains("77777"), "{record}");
    let table = text(&world.gapless(&["rejects", "rules", "--state", ".gapless"]).stdout);
    assert!(table.contains(" of block "), "{table}");
}

//! Records that do not go on: quarantined one by one, counted, and the rest is published.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

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
    // Where the step is cut by a key, the rule is asked before the exchange.
    let by_key = AS_CHECK.to_string() + "\n    partition: {hash: {columns: [last]}, count: 2}";
    for transform in [AS_CHECK, AS_EXPRESSION, &by_key] {
        let world = poison_row(transform, 0);
        let output = run(&world);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains("vets.csv, line 3"), "{said}");
        assert!(!world.path("out/vets").exists());
        let kept = world.gapless(&[&["rejects", "vets", "-o", "json"], &STATE[..]].concat());
        let lines: Vec<Value> = lines_of(&kept).iter().map(|reject| reject["line"].clone()).collect();
        assert_eq!(lines, [3], "{}", text(&kept.stderr));
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
    assert_eq!(again.status.code(), Some(7), "what is there is not written over");
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

/// Whatever the step writes, and whatever it does with an output that is there: a redrive adds.
#[test]
fn a_redrive_adds_to_what_its_run_has_published_in_every_form() {
    let fields =
        "fields: [{name: id, width: 6}, {name: born, width: 5, type: int64}, {name: debut, width: 5, type: int64}]";
    for sink in ["csv: {", "ndjson: {", &format!("records: {{{fields}, ")] {
        for exists in ["fail", "replace", "append"] {
            let world = football(5);
            let job = fs::read_to_string(world.path("job.yaml")).expect("the job");
            let sql = "    transform: {sql: \"SELECT id, born, debut FROM input\"}\n    sink:";
            let job = job.replace("    sink:", sql).replace(
                "csv: {path: out/players}",
                &format!("{sink}path: out/players, exists: {exists}}}"),
            );
            world.job(&job);
            let output = run(&world);
            assert!(output.status.success(), "{sink}: {}", text(&output.stderr));
            let published = || -> Vec<String> {
                let files = world.files("out/players");
                let all: String = files
                    .iter()
                    .map(|file| fs::read_to_string(file).expect("text"))
                    .collect();
                all_ids()
                    .into_iter()
                    .filter(|id| all.matches(id.as_str()).count() == 1)
                    .collect()
            };
            assert_eq!(published().len(), 15, "{sink}");
            let corrected: String = (1..=20).map(|n| good(n) + "\n").collect();
            fs::write(world.path("corrected.csv"), corrected).expect("written");
            let output = redrive(&world, "football", &["--from", "corrected.csv"]);
            assert!(output.status.success(), "{sink}, {exists}: {}", text(&output.stderr));
            assert_eq!(published(), all_ids(), "{sink}, {exists}");
        }
    }
}

/// A job over `in.txt` that rejects some of its records, and its redrive from a corrected copy or from what `rejects`
/// told: the ids that are published each time.
fn redriven(source: &str, bad: &str, good: &str, more: &[&str]) -> (World, Vec<Vec<String>>) {
    let job = format!(
        "job: text\nsteps:\n  - name: a\n    source: {source}\n    transform: {{sql: \"SELECT id FROM input\"}}\n    sink: {{csv: {{path: \
         out/a}}}}\n    on_error: {{reject: {{limit: 5}}}}\n"
    );
    let world = World::with("in.txt", bad, &job);
    let output = run(&world);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut published = vec![world.rows("out/a")];
    let corrected = more.get(1).unwrap_or(&"corrected.txt");
    fs::write(world.path(corrected), good).expect("written");
    let output = redrive(&world, "text", more);
    if !output.status.success() {
        published.push(vec![text(&output.stderr)]);
        return (world, published);
    }
    published.push(world.rows("out/a"));
    (world, published)
}

const FROM: &[&str] = &["--from", "corrected.txt"];

#[test]
fn objects_and_records_of_a_layout_are_redriven_too() {
    let all = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>();
    // NDJSON with declared columns: no object, and a value that is none.
    let good = "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n{\"id\":4}\n";
    let bad = "{\"id\":1}\n[2]\n{\"id\":3}\n{\"id\":\"four\"}\n";
    let (world, published) = redriven("{ndjson: {path: in.txt, columns: {id: int64}}}", bad, good, FROM);
    assert_eq!(published, [all(&[1, 3]), all(&[1, 2, 3, 4])]);
    let output = world.gapless(&[&["verify", "text"], &STATE[..]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    // A copy may be named as such files are: what is in it tells it from the output of `rejects`.
    let named = &["--from", "corrected.ndjson"];
    let (_, published) = redriven("{ndjson: {path: in.txt, columns: {id: int64}}}", bad, good, named);
    assert_eq!(published, [all(&[1, 3]), all(&[1, 2, 3, 4])]);
    // Without columns other names stay faults, and what is rejected again keeps its place.
    let (world, published) = redriven(
        "{ndjson: {path: in.txt}}",
        "{\"id\":\"1\"}\n{\"id\":\"2\",\"x\":0}\n{\"ix\":\"3\"}\n",
        "{\"id\":\"1\"}\n{\"id\":\"2\",\"x\":0}\n{\"id\":\"3\"}\n",
        FROM,
    );
    assert_eq!(published, [all(&[1]), all(&[1, 3])]);
    let told = world.gapless(&[&["rejects", "text", "-o", "json"], &STATE[..]].concat());
    let told = lines_of(&told);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (&told[0]["file"], &told[0]["line"]),
        (&"in.txt".into(), &2.into()),
        "{told:?}"
    );

    // Fixed widths between a header and a trailer that counts: the redrive has neither.
    let layout = "{records: {path: in.txt, header: {tag: H}, trailer: {tag: T, fields: [{name: n, width: 1, type: int64, count: \
                  records}]}, lines: [{tag: R, fields: [{name: id, width: 3, type: int64, pad: zero}]}]}}";
    let (_, published) = redriven(layout, "H\nR001\nR0x2\nR003\nT3\n", "H\nR001\nR002\nR003\nT3\n", FROM);
    assert_eq!(published, [all(&[1, 3]), all(&[1, 2, 3])]);

    // Records of several lines, one with a bad second line.
    let layout = "{records: {path: in.txt, delimiter: \";\", multiline: true, lines: [{tag: O, fields: [{name: id, type: int64}]}, {tag: \
                  N, fields: [{name: pieces, type: int64}]}]}}";
    let good = "O;1\nN;1\nO;2\nN;2\nO;3\nN;3\n";
    let (_, published) = redriven(layout, "O;1\nN;1\nO;two\nN;2\nO;3\nN;3\n", good, FROM);
    assert_eq!(published, [all(&[1, 3]), all(&[1, 2, 3])]);
    // A line that begins no record would become a part of another.
    let (_, published) = redriven(layout, "N;9\nO;1\nN;1\nO;2\nN;x\n", "", &[]);
    let says = "in.txt, line 1: what stands there does not begin with the first line of a record";
    assert!(published[1][0].contains(says), "{published:?}");
}

#[test]
fn corrected_records_that_are_not_those_rejected_are_told_and_nothing_is_redriven() {
    let world = football(5);
    assert!(run(&world).status.success());
    let told = world.gapless(&[&["rejects", "football", "-o", "json"], &STATE[..]].concat());
    let told = text(&told.stdout);
    let other = told
        .lines()
        .next()
        .expect("a record")
        .replace("\"line\":7", "\"line\":8");
    let empty = told.lines().next().expect("a record");
    let (before, raw) = empty.split_once("\"raw\":\"").expect("the text of a record");
    let (_, after) = raw.split_once('"').expect("its end");
    let empty = told.replacen(empty, &format!("{before}\"raw\":\" \"{after}"), 1);
    let one_less: String = told.lines().skip(1).map(|line| format!("{line}\n")).collect();
    for (content, says) in [
        (
            format!("{told}{other}\n"),
            "has a record of players.csv, line 8, which was not rejected",
        ),
        (
            one_less,
            "lacks the record of players.csv, line 7; leave a record that cannot be mended as it is",
        ),
        (
            empty,
            "has no text for the record of players.csv, line 7; leave a record",
        ),
        (
            format!("{told}no record\n"),
            "corrected.ndjson, line 6: not a record as `gapless rejects -o json` tells it",
        ),
    ] {
        fs::write(world.path("corrected.ndjson"), content).expect("written");
        let output = redrive(&world, "football", &["--from", "corrected.ndjson"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(says), "{}", text(&output.stderr));
        assert_eq!(ids(&world).len(), 15);
    }
}

/// A record that is longer than the quarantine keeps of it is not redriven by half.
#[test]
fn a_record_of_which_the_quarantine_has_a_part_is_redriven_from_a_copy_alone() {
    let world = football(5);
    let long = format!("P0015,last15,{},qb,,1980", "x".repeat(100_000));
    let mut lines = players();
    lines[14] = long.clone();
    fs::write(world.path("players.csv"), lines.join("\n") + "\n").expect("written");
    assert!(run(&world).status.success());
    let output = redrive(&world, "football", &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("players.csv, line 15: the quarantine has the first") && said.contains("--from"),
        "{said}"
    );
    let mut corrected: Vec<String> = (1..=20).map(good).collect();
    corrected[14] = long.replace("qb,,", "qb,1950,");
    fs::write(world.path("corrected.csv"), corrected.join("\n") + "\n").expect("written");
    let output = redrive(&world, "football", &["--from", "corrected.csv"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(ids(&world), all_ids());
    let whole = |row: &String| row.contains(&"x".repeat(100_000));
    assert_eq!(world.rows("out/players").iter().filter(|row| whole(row)).count(), 1);
}

/// The only file with this ending below a folder.
fn one_file(folder: &Path, ending: &str) -> PathBuf {
    let listed = fs::read_dir(folder)
        .expect("listed")
        .flatten()
        .map(|entry| entry.path());
    let found: Vec<PathBuf> = listed.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn a_record_that_an_attempt_and_the_one_after_it_rejected_is_shown_once() {
    let world = football(4);
    assert_eq!(run(&world).status.code(), Some(1));
    // What an attempt leaves that was killed while it wrote: the same records, the last one in part.
    let runs = world.staged("players");
    let [staged] = runs.as_slice() else { panic!("{runs:?}") };
    let file = one_file(&staged.join("rejects"), ".ndjson");
    let content = fs::read_to_string(&file).expect("readable");
    let killed = file.with_file_name(format!("part-00000-1-999-0{}", ".ndjson"));
    fs::write(killed, &content[..content.len() - 20]).expect("written");
    let output = world.gapless(&[&["rejects", "football", "-o", "json"], &STATE[..]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut lines: Vec<_> = lines_of(&output).iter().filter_map(|it| it["line"].as_u64()).collect();
    lines.sort_unstable();
    assert_eq!(lines, [7, 9, 11, 15, 17]);
}

#[test]
fn published_rejects_of_which_a_file_is_gone_are_not_shown_as_if_they_were_all() {
    let world = football(5);
    assert!(run(&world).status.success());
    let file = one_file(&world.path("out/players/_gapless/rejects"), ".ndjson");
    fs::remove_file(file).expect("removed");
    for verb in [&["rejects", "football"][..], &["redrive", "football", "--rejects"]] {
        let output = world.gapless(&[verb, &STATE].concat());
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let said = text(&output.stderr);
        assert!(said.contains("were some removed?"), "{said}");
    }
    assert_eq!(ids(&world).len(), 15);
}

/// Every tenth of these records is none, and each partition has some of them.
fn tenths(rows: u64, cut: &str, limit: &str) -> World {
    let line = |n: u64| {
        if n % 10 == 9 {
            format!("x{n}\n")
        } else {
            format!("{n}\n")
        }
    };
    let job = format!(
        "job: tenths\nsteps:\n  - name: a\n    source: {{csv: {{path: in.csv, header: false, columns: {{id: int64}}}}}}\n    \
         partition: {cut}\n    sink: {{csv: {{path: out/a}}}}\n    on_error: {{reject: {{{limit}}}}}\n"
    );
    World::with("in.csv", &(0..rows).map(line).collect::<String>(), &job)
}

/// A limit is one for the whole step, however its records are cut, and no partition has more than it allows.
#[test]
fn a_limit_holds_over_all_partitions() {
    let cuts = [
        "{bytes: {}, count: 8}",
        "{hash: {columns: [id]}, count: 3}",
        "{key_range: {column: id}, count: 3}",
    ];
    for cut in cuts {
        // Of 400 records 40 are none.
        for (limit, says) in [
            ("limit: 40", None),
            ("limit: 39", Some("40 records rejected, the limit is 39")),
            ("share: 10%", None),
            (
                "share: 9.9%",
                Some("40 of 400 records rejected, the limit is 9.9 % of them"),
            ),
        ] {
            let world = tenths(400, cut, limit);
            let output = world.gapless(&["run", "job.yaml", "--workers", "2", "--slots", "1"]);
            let said = text(&output.stderr);
            match says {
                None => {
                    assert!(output.status.success(), "{cut}, {limit}: {said}");
                    assert_eq!(world.rows("out/a").len(), 360, "{cut}, {limit}");
                    assert_eq!(rejects(&world, "out/a").len(), 40);
                }
                Some(says) => {
                    assert_eq!(output.status.code(), Some(1), "{cut}, {limit}: {said}");
                    let alone = "more than 39 records were rejected";
                    assert!(said.contains(says) || said.contains(alone), "{cut}, {limit}: {said}");
                    assert!(!world.path("out/a").exists(), "{cut}, {limit}");
                }
            }
        }
    }
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

/// A job whose `v` is a whole number, over ten records of which `bad` are not.
fn numbers(source: &str, file: &str, content: &str) -> World {
    let job = format!(
        "job: numbers\nsteps:\n  - name: load\n    source: {source}\n    on_error: {{reject: {{limit: unlimited}}}}\n    \
         sink: {{csv: {{path: out/numbers}}}}\n"
    );
    World::with(file, content, &job)
}

#[test]
fn a_redrive_reads_the_columns_of_the_mended_job() {
    let line = |n: u32| {
        format!(
            "{n},{}\n",
            if n.is_multiple_of(3) {
                "BAD".to_string()
            } else {
                n.to_string()
            }
        )
    };
    let lines: String = (1..=10).map(line).collect();
    let object = |n: u32| {
        format!(
            "{{\"id\": {n}, \"v\": {}}}\n",
            if n.is_multiple_of(3) {
                "\"BAD\"".to_string()
            } else {
                n.to_string()
            }
        )
    };
    let objects: String = (1..=10).map(object).collect();
    let cases = [
        (
            "{csv: {path: in.csv, columns: {id: int64, v: int64}}}",
            "in.csv",
            format!("id,v\n{lines}"),
        ),
        (
            "{csv: {path: in.csv, header: false, columns: {id: int64, v: int64}}}",
            "in.csv",
            lines,
        ),
        (
            "{ndjson: {path: in.ndjson, columns: {id: int64, v: int64}}}",
            "in.ndjson",
            objects,
        ),
    ];
    for (source, file, content) in cases {
        let world = numbers(source, file, &content);
        assert!(run(&world).status.success());
        assert_eq!(world.rows("out/numbers").len(), 7, "{source}");
        let job = fs::read_to_string(world.path("job.yaml")).expect("the job");
        // What cannot be read is refused before anything is redriven.
        let parquet = job.replace(source, "{parquet: {path: in.x}}");
        let other = job.replace("v: int64", "w: string, x: string");
        let mut refused = vec![(parquet, "the mended job's step load reads")];
        // Objects may have any names.
        if file == "in.csv" {
            refused.push((other, "the mended job declares "));
        }
        for (mended, says) in refused {
            fs::write(world.path("mended.yaml"), mended).expect("written");
            let output = redrive(&world, "numbers", &["--job", "mended.yaml"]);
            assert!(!output.status.success(), "{source}");
            assert!(text(&output.stderr).contains(says), "{}", text(&output.stderr));
        }
        let job = job.replace("v: int64", "v: string");
        let sql = |sql: &str| format!("{job}    transform: {{sql: \"{sql}\"}}\n");
        fs::write(
            world.path("mended.yaml"),
            sql("SELECT id, TRY_CAST(v AS BIGINT) AS v FROM input"),
        )
        .expect("written");
        let output = redrive(&world, "numbers", &["--job", "mended.yaml"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let mut rows = world.rows("out/numbers");
        rows.sort();
        assert_eq!(rows.len(), 10, "{source}: {rows:?}");
        assert!(rows.contains(&"3,".to_string()), "{rows:?}");
        // A name is the newest run, and that is said.
        let output = redrive(&world, "numbers", &[]);
        assert_eq!(output.status.code(), Some(4));
        assert!(
            text(&output.stderr).contains("`gapless list numbers"),
            "{}",
            text(&output.stderr)
        );
    }
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

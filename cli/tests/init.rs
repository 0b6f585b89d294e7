//! `gapless init`: every pairing of its words is written, checked, planned and run; nothing is overwritten.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

const SOURCES: &[&str] = &["csv", "ndjson", "records", "merge", "parquet", "avro", "sequence"];
const TRANSFORMS: &[&str] = &["", "sql,", "command,"];
const SINKS: &[&str] = &["csv", "parquet", "avro", "ndjson", "records", "report", "discard"];
/// Sources whose columns differ, and which are paired with every sink; the others give what the first does.
const KINDS: &[&str] = &["csv", "sequence"];

fn gapless(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gapless"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent");
    command.current_dir(folder).output().expect("started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a verb and gives what it prints.
fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let ended = gapless(folder, arguments);
    assert!(ended.status.success(), "{arguments:?}: {}", text(&ended.stderr));
    text(&ended.stdout)
}

#[test]
fn every_pairing_runs_as_it_is() {
    for source in SOURCES {
        for transform in TRANSFORMS {
            for sink in SINKS {
                if *sink != SINKS[0] && !KINDS.contains(source) {
                    continue;
                }
                let words = format!("{source},{transform}{sink}");
                let folder = tempfile::tempdir().expect("a folder");
                let folder = folder.path();
                let written = succeeds(folder, &["init", &words, "mine"]);
                assert!(written.starts_with("mine/job.yaml\n"), "{words}: {written}");
                succeeds(folder, &["validate", "mine/job.yaml"]);
                succeeds(folder, &["plan", "mine/job.yaml"]);
                let result = succeeds(folder, &["run", "mine/job.yaml"]);
                let rows = match (*source, *transform) {
                    ("sequence", "sql,") => "500",
                    ("sequence", _) => "1,000",
                    // Two of the orders are of nothing.
                    (_, "sql,") => "22",
                    _ => "24",
                };
                let row: Vec<&str> = result.lines().nth(1).unwrap_or_default().split_whitespace().collect();
                assert_eq!((row[1], row[3]), ("published", rows), "{words}: {result}");
                assert_eq!(folder.join("mine/out/load-1").exists(), *sink != "discard", "{words}");
                if *sink == SINKS[0] {
                    // Once more, as the file says.
                    succeeds(folder, &["run", "mine/job.yaml", "-p", "run=2"]);
                }
            }
        }
    }
}

/// The other samples hold what the CSV sample does.
#[test]
fn all_samples_hold_the_same_rows() {
    let rows = |words: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        succeeds(folder.path(), &["init", words]);
        succeeds(folder.path(), &["run", "job.yaml"]);
        let out = folder.path().join("out/load-1");
        let files = fs::read_dir(&out)
            .expect("listed")
            .map(|entry| entry.expect("an entry").path());
        let files: Vec<_> = files.filter(|path| path.is_file()).collect();
        let [file] = files.as_slice() else { panic!("{files:?}") };
        fs::read_to_string(file).expect("readable")
    };
    let of_csv = rows("csv,csv");
    assert_eq!(of_csv.lines().count(), 25);
    for source in SOURCES.iter().filter(|source| **source != "sequence") {
        assert_eq!(of_csv, rows(&format!("{source},csv")), "{source}");
    }
}

#[test]
fn nothing_is_overwritten() {
    for taken in ["job.yaml", "data/orders.csv"] {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        fs::create_dir(folder.join("data")).expect("made");
        fs::write(folder.join(taken), "mine").expect("written");
        let refused = gapless(folder, &["init", "csv,sql,parquet"]);
        assert_eq!(refused.status.code(), Some(7), "{}", text(&refused.stderr));
        let says = format!("{taken} is there already, and is not overwritten; name another folder");
        assert!(text(&refused.stderr).contains(&says), "{}", text(&refused.stderr));
        assert_eq!(fs::read_to_string(folder.join(taken)).expect("readable"), "mine");
        let others = ["job.yaml", "data/orders.csv"].map(|path| folder.join(path).exists());
        assert_eq!(
            others.iter().filter(|there| **there).count(),
            1,
            "nothing beside it is written"
        );
    }
}

#[test]
fn words_that_are_not_known_are_told_with_those_that_are() {
    let folder = tempfile::tempdir().expect("a folder");
    for (words, says) in [
        (
            "cvs,csv",
            "`cvs` is no source that is known; did you mean `csv`? allowed: csv, ndjson, records, merge, parquet, avro, sequence",
        ),
        (
            "csv,sqk,csv",
            "`sqk` is no transform that is known; did you mean `sql`? allowed: sql, command",
        ),
        (
            "csv,nowhere",
            "`nowhere` is no sink that is known; allowed: csv, parquet, avro, ndjson, records, report, discard",
        ),
        (
            "step,csv",
            "a job may have the source `step`, but `gapless init` cannot write one; it writes csv, ",
        ),
        ("csv", "`csv` is not SOURCE,TRANSFORM,SINK or SOURCE,SINK"),
        ("a,b,c,d", "`a,b,c,d` is not SOURCE,TRANSFORM,SINK"),
    ] {
        let refused = gapless(folder.path(), &["init", words]);
        assert_eq!(refused.status.code(), Some(2), "{words}");
        assert!(
            text(&refused.stderr).contains(says),
            "{words}: {}",
            text(&refused.stderr)
        );
    }
    assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 0);
}

/// The help lists the words that the program knows.
#[test]
fn the_help_lists_all_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let help = succeeds(folder.path(), &["init", "--help"]);
    for (title, words) in [("Sources:", SOURCES), ("Sinks:", SINKS)] {
        let line = help.lines().find(|line| line.starts_with(title)).expect("a line");
        let listed: Vec<&str> = line[title.len()..].trim().split(", ").collect();
        assert_eq!(listed, words);
    }
}

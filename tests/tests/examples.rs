//! The reference jobs of `examples/`: each gives what was worked out for it apart from Gapless.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use gapless_tests::gapless;

fn example(name: &str) -> PathBuf {
    gapless_tests::checkout().join("examples").join(name)
}

/// The job and its input in a folder of their own.
fn copied(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let from = example(name);
    fs::copy(from.join("job.yaml"), folder.path().join("job.yaml")).expect("copied");
    fs::create_dir(folder.path().join("data")).expect("made");
    for entry in fs::read_dir(from.join("data")).expect("listed") {
        let path = entry.expect("an entry").path();
        let to = folder.path().join("data").join(path.file_name().expect("a name"));
        fs::copy(&path, to).expect("copied");
    }
    folder
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(gapless());
    command.args(arguments).current_dir(folder).env("HOME", "/nonexistent");
    let ended = command.output().expect("started");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{arguments:?}: {stderr}");
    ended
}

/// The lines of the files in a folder, or of one file, sorted, without headers.
fn lines(path: &Path) -> Vec<String> {
    let files: Vec<PathBuf> = match path.is_dir() {
        false => vec![path.to_path_buf()],
        true => fs::read_dir(path)
            .expect("listed")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.is_file())
            .collect(),
    };
    let mut lines: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let text = fs::read_to_string(file).expect("readable");
            text.lines().skip(1).map(str::to_string).collect::<Vec<_>>()
        })
        .collect();
    lines.sort();
    lines
}

/// Any cut and any number of workers give the same.
const MANNERS: &[&[&str]] = &[&["--slots", "1"], &["--workers", "2", "--slots", "2"]];

#[test]
fn warehouse_gives_what_was_worked_out_apart() {
    let expected = example("warehouse/expected");
    for manner in MANNERS {
        let folder = copied("warehouse");
        let folder = folder.path();
        run(folder, &[&["run", "job.yaml"], *manner].concat());
        for step in ["revenue", "reasons"] {
            let found = lines(&folder.join("out").join(step).join("2026-11-20"));
            assert_eq!(found, lines(&expected.join(format!("{step}.csv"))), "{step} {manner:?}");
        }
        let days = fs::read_dir(folder.join("out/orders-by-day/2026-11-20")).expect("listed");
        let days = days.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
        let mut days: Vec<String> = days.filter(|name| name.starts_with("day=")).collect();
        days.sort();
        assert_eq!(
            days,
            ["day=2026-11-16", "day=2026-11-17", "day=2026-11-18", "day=2026-11-19"]
        );
        let rejects = folder.join("out/orders/2026-11-20/_gapless/rejects");
        let mut rejected: Vec<String> = fs::read_dir(rejects)
            .expect("listed")
            .flat_map(|entry| {
                let text = fs::read_to_string(entry.expect("an entry").path()).expect("readable");
                text.lines().map(str::to_string).collect::<Vec<_>>()
            })
            .map(|line| {
                let reject: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                let raw = reject["raw"].as_str().expect("raw text").to_string();
                raw.split(',').next().unwrap_or_default().to_string()
            })
            .collect();
        rejected.sort();
        assert_eq!(rejected, lines(&expected.join("rejected.csv")));
        run(folder, &["verify", "warehouse", "--state", ".gapless"]);
    }
}

#[test]
fn features_are_split_and_standardised_as_was_worked_out_apart() {
    let expected = example("features/expected");
    for manner in MANNERS {
        let folder = copied("features");
        let folder = folder.path();
        run(folder, &[&["run", "job.yaml"], *manner].concat());
        for set in ["train", "test"] {
            let found = lines(&folder.join("out").join(set).join("1"));
            let wanted = lines(&expected.join(format!("{set}.csv")));
            assert!(found == wanted, "{set} {manner:?}: {found:?}");
        }
        run(folder, &["verify", "features", "--state", ".gapless"]);
    }
}

/// What lies in the examples is what their programs make.
#[test]
fn the_input_of_the_examples_is_made_again() {
    for name in ["warehouse", "features"] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut python = Command::new("python3");
        let made = python.arg(example(name).join("make.py")).arg(folder.path()).output();
        let Ok(made) = made else {
            eprintln!("SKIPPED: the program that makes the input needs python3");
            return;
        };
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        for part in ["data", "expected"] {
            for entry in fs::read_dir(folder.path().join(part)).expect("listed") {
                let path = entry.expect("an entry").path();
                let kept = example(name).join(part).join(path.file_name().expect("a name"));
                let (made, kept) = (fs::read(&path).expect("readable"), fs::read(&kept).expect("readable"));
                assert!(made == kept, "{} is made otherwise", path.display());
            }
        }
    }
}

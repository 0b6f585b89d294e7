//! Completion, man pages, the reference and the graph of steps: what is printed for people and their shells.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

fn gapless(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gapless"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent");
    command.current_dir(folder).output().expect("started")
}

fn printed(folder: &Path, arguments: &[&str]) -> String {
    let ended = gapless(folder, arguments);
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(ended.stdout).expect("text")
}

const VERBS: &[&str] = &[
    "init", "run", "plan", "validate", "submit", "describe", "verify", "schema", "man",
];

#[test]
fn shells_complete_all_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(Path::new("."), &["completion", shell]);
        for verb in VERBS {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
    // Bash is there on every machine that runs the tests: it reads the script, and completes a verb.
    let script = printed(Path::new("."), &["completion", "bash"]);
    let ask = "\nCOMP_WORDS=(gapless val); COMP_CWORD=1; _gapless gapless val gapless; echo \"${COMPREPLY[@]}\"\n";
    let mut bash = Command::new("bash")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash starts");
    let mut stdin = bash.stdin.take().expect("stdin");
    stdin.write_all((script + ask).as_bytes()).expect("written");
    drop(stdin);
    let ended = bash.wait_with_output().expect("ended");
    assert_eq!(String::from_utf8_lossy(&ended.stdout).trim(), "validate");
    assert_eq!(gapless(Path::new("."), &["completion", "tcsh"]).status.code(), Some(2));
}

#[test]
fn each_verb_has_a_man_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = printed(folder.path(), &["man"]);
    assert!(page.contains(".TH gapless 1"), "{page}");
    assert!(page.contains("Exit codes"), "{page}");
    printed(folder.path(), &["man", "man/man1"]);
    for verb in VERBS {
        let page = folder.path().join(format!("man/man1/gapless-{verb}.1"));
        let page = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(page.contains(".SH SYNOPSIS"), "{verb}: {page}");
    }
}

#[test]
fn the_language_is_printed_for_editors_and_for_people() {
    let schema: serde_json::Value = serde_json::from_str(&printed(Path::new("."), &["schema"])).expect("JSON");
    assert_eq!(schema["title"], "Gapless job file");
    let tables = printed(Path::new("."), &["schema", "-o", "markdown"]);
    assert!(tables.contains("| **`job`** | name |  | The job's name."), "{tables}");
}

const JOB: &str = "\
job: shops
steps:
  - name: load
    source: {csv: {path: sales.csv, columns: {id: int64}}}
    sink: {csv: {path: out/load}}
  - name: by-shop
    source: {step: load}
    transform: {sql: \"SELECT shop, count(*) AS n FROM input GROUP BY shop\"}
    sink: {csv: {path: out/by-shop, files: 1}}
  - name: by-day
    source: {step: load}
    transform: {sql: \"SELECT day, count(*) AS n FROM input GROUP BY day\"}
    sink: {csv: {path: out/by-day, files: 1}}
  - name: count
    after: [by-shop, by-day]
    source: {sequence: {from: 0, to: 10}}
    sink: discard
";

#[test]
fn the_steps_are_drawn_with_what_they_read_and_where_they_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("job.yaml"), JOB).expect("written");
    fs::write(folder.join("sales.csv"), "id,shop,day\n1,a,2026-11-20\n").expect("written");
    let drawn = printed(folder, &["plan", "job.yaml", "--graph"]);
    let expected = "\
shops
      ┌───────────────────────────────────┐
      │ load                              │
      │ from  csv sales.csv: 1 file, 27 B │
      │ in    1 partition by bytes        │
      │ to    csv out/load                │
┌─────┴───────────────────────────────────┘
│     ┌─────────────────────────────────────────┐
├─────► by-shop                                 │
│     │ from  step load                         │
│     │ in    partitions that are planned later │
│     │ to    csv out/by-shop                   │
│  ┌──┴─────────────────────────────────────────┘
│  │  ┌─────────────────────────────────────────┐
└──┼──► by-day                                  │
   │  │ from  step load                         │
   │  │ in    partitions that are planned later │
   │  │ to    csv out/by-day                    │
┌──┼──┴─────────────────────────────────────────┘
│  │  ┌──────────────────────────────────────────────────┐
└──┴──► count                                            │
      │ from  the numbers from 0 to below 10             │
      │ in    1 partition by sequence                    │
      │ to    discard: rows are counted, none is written │
      └──────────────────────────────────────────────────┘
";
    assert_eq!(
        drawn.lines().collect::<Vec<_>>(),
        expected.lines().collect::<Vec<_>>(),
        "\n{drawn}"
    );
    let dot = printed(folder, &["plan", "job.yaml", "--graph=dot"]);
    assert!(
        dot.contains("\"load\" -> \"by-shop\";") && dot.contains("\"by-day\" -> \"count\" [style=dashed];"),
        "{dot}"
    );
    let mermaid = printed(folder, &["plan", "job.yaml", "--graph=mermaid"]);
    assert!(
        mermaid.contains("s0 --> s1") && mermaid.contains("s2 -.-> s3"),
        "{mermaid}"
    );
    assert_eq!(
        gapless(folder, &["plan", "job.yaml", "--graph=png"]).status.code(),
        Some(2)
    );
}

const KINDS: &str = "\
job: kinds
steps:
  - name: mend
    source: {merge: {inputs: [{csv: {path: a.csv}}, {csv: {path: b.csv}}]}}
    transform: {command: {run: [python3, mend.py], format: ndjson, columns: {shop: string, amount: int64}}}
    sink: {csv: {path: out/mend, split: {by: shop, otherwise: rest}}}
  - name: names
    source: {csv: {path: a.csv, columns: {amount: int64}}}
    lookups: {rates: {csv: {path: b.csv}}, old: {csv: {path: b.csv}}}
    transform: {sql: \"SELECT input.shop, input.amount FROM input LEFT JOIN rates ON rates.shop = input.shop\"}
    sort: [shop, {column: amount, order: desc}]
    sink: {csv: {path: out/names, split: {hash: {columns: [shop], into: 4}}}}
";

#[test]
fn a_plan_shows_programs_orders_and_splits_and_notes_what_is_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("job.yaml"), KINDS).expect("written");
    for name in ["a.csv", "b.csv"] {
        fs::write(folder.join(name), "shop,amount\nx,1\n").expect("written");
    }
    let drawn = printed(folder, &["plan", "job.yaml", "--graph"]);
    for words in [
        "│ from  merge of csv a.csv, csv b.csv: 2 files, ",
        "│ run   python3 mend.py ",
        "│ sort  shop, amount desc ",
        "│ split by shop, else rest ",
        "│ with  old, rates ",
        "│ split by the hash of shop into 4 ",
    ] {
        assert!(drawn.contains(words), "{words}: {drawn}");
    }
    let plan = printed(folder, &["plan", "job.yaml"]);
    let noted = "the look-up «old» is read and pinned, and the SQL does not use it: leave it out";
    assert_eq!(plan.matches("is read and pinned").count(), 1, "{plan}");
    assert!(plan.contains(noted), "{plan}");
}

const BAD: &str = "\
job: bad
steps:
  - name: load
    source: {csv: {path: in.csv, columns: {id: int64}}}
    sink: {csv: {path: out/load}}
";

/// Runs a line as somebody pastes it into a shell.
fn pasted(folder: &Path, line: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_gapless"));
    let path = format!("{}:/usr/bin:/bin", program.parent().expect("a folder").display());
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line])
        .env_clear()
        .env("PATH", path)
        .env("HOME", "/nonexistent");
    shell.current_dir(folder).output().expect("started")
}

fn commands(stderr: &str) -> Vec<String> {
    let listed = stderr.lines().filter_map(|line| line.strip_prefix("  gapless "));
    let listed = listed.map(|line| line.split("  ").next().unwrap_or_default().to_string());
    listed.map(|rest| format!("gapless {rest}")).collect()
}

#[test]
fn a_failure_is_told_once_and_the_printed_commands_reach_its_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("job.yaml"), BAD).expect("written");
    fs::write(folder.join("in.csv"), "id\n1\nx\n").expect("written");
    let first = pasted(
        folder,
        "gapless run job.yaml --state 'a state' --scratch 'it''s' --slots 1",
    );
    assert_eq!(first.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&first.stderr).into_owned();
    let told = stderr.matches("«x» is not a whole number").count();
    assert_eq!(told, 1, "{stderr}");
    assert!(stderr.contains("load: failed\n"), "{stderr}");
    let id = stderr
        .lines()
        .find_map(|line| line.strip_prefix("run "))
        .expect("an id");
    let mut verbs = Vec::new();
    for command in commands(&stderr) {
        let ended = pasted(folder, &command);
        assert!(
            ended.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&ended.stderr)
        );
        let stdout = String::from_utf8_lossy(&ended.stdout);
        let verb = command.split(' ').nth(1).unwrap_or_default().to_string();
        let says = match verb.as_str() {
            "rejects" => "in.csv     3",
            "logs" => "failed",
            _ => id,
        };
        assert!(stdout.contains(says), "{command}: {stdout}");
        verbs.push(verb);
    }
    assert_eq!(verbs, ["describe", "logs", "rejects", "list"]);
    let again = stderr.split('`').nth(1).expect("a command");
    assert_eq!(again, "gapless run job.yaml --state 'a state' --scratch its --slots 1");
    let goes_on = pasted(folder, again);
    let stderr = String::from_utf8_lossy(&goes_on.stderr);
    assert!(stderr.starts_with(&format!("run {id} goes on\n")), "{stderr}");

    let kept = format!("gapless rejects {id} --state 'a state' --to kept.parquet");
    assert!(pasted(folder, &kept).status.success());
    let once_more = pasted(folder, &kept);
    assert_eq!(once_more.status.code(), Some(7));
    let stderr = String::from_utf8_lossy(&once_more.stderr);
    assert!(stderr.contains("kept.parquet exists; give another name"), "{stderr}");
}

const REJECTS: &str = "\
job: rejects
steps:
  - name: load
    source: {csv: {path: [b.csv, a.csv], columns: {id: int64}}}
    check: [{name: small, that: \"id < 10\"}]
    sink: {csv: {path: out/load}}
    on_error: {reject: {limit: 100}}
";

#[test]
fn rejects_are_listed_by_file_and_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("job.yaml"), REJECTS).expect("written");
    // Of those that cannot be read and those that break a rule each kind is found at its own time.
    for name in ["a.csv", "b.csv"] {
        fs::write(folder.join(name), "id\n11\nx\n1\n12\ny\n").expect("written");
    }
    printed(folder, &["run", "job.yaml"]);
    let listed = printed(folder, &["rejects", "rejects", "--state", ".gapless", "-o", "json"]);
    let places: Vec<(String, u64)> = listed
        .lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let (file, line) = (record["file"].as_str(), record["line"].as_u64());
            (file.unwrap_or_default().to_string(), line.unwrap_or_default())
        })
        .collect();
    let expected: Vec<(String, u64)> = ["a.csv", "b.csv"]
        .iter()
        .flat_map(|file| [2, 3, 5, 6].map(|line| (file.to_string(), line)))
        .collect();
    assert_eq!(places, expected, "{listed}");
}

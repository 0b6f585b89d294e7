//! What a step rejected is done again, whatever it read: rows keep their types, places and order, and what a run with
//! its redrives publishes is what one run over mended data does.

use std::{fs, path::PathBuf, process::Output};

use gapless_tests::World;
use serde_json::Value;

const STATE: [&str; 2] = ["--state", ".gapless"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn gapless(world: &World, arguments: &[&str]) -> Output {
    world.gapless(&[arguments, &STATE].concat())
}

fn done(world: &World, arguments: &[&str]) -> Output {
    let output = gapless(world, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    output
}

/// What `gapless rejects` tells of the newest run of a job.
fn told(world: &World, job: &str) -> Vec<Value> {
    let output = done(world, &["rejects", job, "-o", "json"]);
    text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

fn place(reject: &Value) -> [Value; 4] {
    ["file", "line", "row", "block"].map(|key| reject[key].clone())
}

/// Keeps what `rejects` told in `corrected.ndjson`, each `raw` mended.
fn corrected(world: &World, told: &[Value], mend: impl Fn(&str) -> String) {
    let lines = told.iter().map(|reject| {
        let mut reject = reject.clone();
        reject["raw"] = mend(reject["raw"].as_str().expect("raw")).into();
        format!("{reject}\n")
    });
    fs::write(world.path("corrected.ndjson"), lines.collect::<String>()).expect("written");
}

fn verify_all(world: &World, job: &str) {
    let runs = done(world, &["list", job, "-o", "json"]);
    let runs: Value = serde_json::from_slice(&runs.stdout).expect("JSON");
    let completed = |run: &&Value| run["state"] == "completed";
    for run in runs.as_array().expect("a list").iter().filter(completed) {
        done(world, &["verify", run["run"].as_str().expect("an id")]);
    }
}

/// Ten records; a check rejects 3, the SQL fails on 5 and 7.
fn lines(mended: bool) -> String {
    let line = |id: u32| {
        let v = match id {
            3 if !mended => "Q".to_string(),
            5 if !mended => "X".to_string(),
            7 => "Y".to_string(),
            id => (id % 10).to_string(),
        };
        let (at, d, f) = match id {
            7 => ("", "", "NaN"),
            5 => ("1969-12-31 23:59:59.999999", "-99999999.99", "0.30000000000000004"),
            _ => ("2024-02-29 12:00:00.123456", "1.50", "-1e300"),
        };
        format!("{id},{v},{at},{d},{f}\n")
    };
    "id,v,at,d,f\n".to_string() + &(1..=10).map(line).collect::<String>()
}

const RAW: &str = r#"csv: {path: in.csv, columns: {id: int64, at: timestamp, d: "decimal(10,2)", f: float64}}"#;
/// Types that text does not have.
const TYPED: &str = "SELECT *, arrow_cast(at, 'Timestamp(Nanosecond, Some(\\\"UTC\\\"))') AS tz, arrow_cast(CAST(id AS VARCHAR), 'Binary') AS b, arrow_cast(f, \
                     'Float32') AS g, CAST(at AS DATE) AS day FROM input";
const NESTED: &str = "SELECT *, arrow_cast(at, 'Timestamp(Nanosecond, Some(\\\"+02:00\\\"))') AS tz, arrow_cast(v, 'Dictionary(Int32, Utf8)') AS \
                      c, make_array(id, NULL) AS l, named_struct('x', d, 'y', v) AS s, id > 5 AS big FROM input";

fn make(sql: &str, sink: &str) -> String {
    format!("  - name: make\n    source: {{{RAW}}}\n    transform: {{sql: \"{sql}\"}}\n    sink: {{{sink}}}\n")
}

fn load(source: &str, sql: &str, sink: &str) -> String {
    format!(
        "  - name: load\n    source: {{{source}}}\n    check: [{{name: known, that: \"v <> 'Q'\"}}]\n    transform: {{sql: \"{sql}\"}}\n    \
         sink: {{{sink}}}\n    on_error: {{reject: {{limit: 5}}}}\n"
    )
}

/// Runs `job` over `lines(false)` after `before`, redrives corrected rows, then those rejected again with a mended job;
/// what is published is what a run over mended lines publishes.
fn check_redriven(before: Option<&str>, job: &str, sink: &str) {
    let mended = job.replace("CAST(v AS BIGINT)", "COALESCE(TRY_CAST(v AS BIGINT), 7)");
    let published = |is_mended: bool| {
        let world = World::with("in.csv", &lines(is_mended), "");
        if let Some(before) = before {
            world.job(&format!("job: before\nsteps:\n{before}"));
            done(&world, &["run", "job.yaml"]);
        }
        world.job(if is_mended { &mended } else { job });
        done(&world, &["run", "job.yaml"]);
        world
    };
    let world = published(false);
    let first = told(&world, "load");
    assert_eq!(first.len(), 3, "{first:?}");
    let rules: Vec<_> = first
        .iter()
        .map(|reject| reject["rule"].as_str().expect("a rule"))
        .collect();
    assert_eq!(rules.iter().filter(|rule| **rule == "known").count(), 1, "{rules:?}");
    assert_eq!(
        rules.iter().filter(|rule| **rule == "transform").count(),
        2,
        "{rules:?}"
    );

    corrected(&world, &first, |raw| raw.replace('Q', "3").replace('X', "5"));
    done(&world, &["redrive", "load", "--rejects", "--from", "corrected.ndjson"]);
    let again = told(&world, "load");
    let [again] = again.as_slice() else { panic!("{again:?}") };
    assert_eq!(again["rule"], "transform");
    let same = first.iter().find(|reject| reject["raw"] == again["raw"]);
    assert_eq!(place(again), place(same.expect("it was rejected at first")), "{job}");

    fs::write(world.path("mended.yaml"), &mended).expect("written");
    done(&world, &["redrive", "load", "--rejects", "--job", "mended.yaml"]);
    assert_eq!(
        gapless(&world, &["redrive", "load", "--rejects"]).status.code(),
        Some(4)
    );
    verify_all(&world, "load");
    let nested = before.is_some_and(|before| before.contains("named_struct"));
    let expected = content(&published(true), sink, nested);
    assert_eq!(content(&world, sink, nested), expected, "{job}");
}

/// The rows of an output, with the types of files that have some. Files of other types than the first are no source.
fn content(world: &World, sink: &str, nested: bool) -> Vec<String> {
    let mut rows = match sink {
        "csv" => world.rows("out/load"),
        format => {
            let sql = match nested {
                true => {
                    "SELECT * EXCLUDE (l, s), array_to_string(l, ',', 'NULL') AS l, s['x'] AS x, s['y'] AS y, arrow_typeof(l) AS tl, \
                     arrow_typeof(s) AS ts, arrow_typeof(tz) AS ty FROM input"
                }
                false => "SELECT *, arrow_typeof(tz) AS ty FROM input",
            };
            world.job(&format!(
                "job: read\nsteps:\n  - {{name: a, source: {{{format}: {{path: \"out/load/*.{format}\"}}}}, transform: {{sql: \"{sql}\"}}, sink: {{ndjson: {{path: out/read}}}}}}\n"
            ));
            done(world, &["run", "job.yaml"]);
            let files = world.files("out/read");
            let read = files.iter().map(|file| fs::read_to_string(file).expect("text"));
            read.collect::<String>().lines().map(str::to_string).collect()
        }
    };
    rows.sort();
    rows
}

#[test]
fn rows_of_parquet_and_avro_are_redriven_with_their_types() {
    let sql = "SELECT *, CAST(v AS BIGINT) AS n FROM input";
    for (format, made, sink) in [
        ("parquet", NESTED, "parquet"),
        ("parquet", TYPED, "avro"),
        ("avro", TYPED, "parquet"),
        ("avro", TYPED, "avro"),
    ] {
        let before = make(made, &format!("{format}: {{path: in}}"));
        let source = format!("{format}: {{path: \"in/*.{format}\"}}");
        let job = format!(
            "job: load\nsteps:\n{}",
            load(&source, sql, &format!("{sink}: {{path: out/load}}"))
        );
        check_redriven(Some(&before), &job, sink);
    }
}

#[test]
fn what_an_earlier_step_gave_is_redriven_in_every_form() {
    let records = "records: {path: out/make, fields: [{name: id, width: 3, type: int64}, {name: v, width: 2}]}";
    for (made, sink) in [
        (TYPED, "parquet: {path: out/make}"),
        (TYPED, "avro: {path: out/make}"),
        (
            "SELECT id, v, at, d FROM input",
            "csv: {path: out/make, delimiter: \\\";\\\", null: none}",
        ),
        ("SELECT id, v, at, d FROM input", "ndjson: {path: out/make}"),
        ("SELECT id, v FROM input", records),
    ] {
        let sink = sink.replace("\\\"", "\"");
        let columns = if sink == records { "id, v" } else { "id, v, at, d" };
        let sql = format!("SELECT {columns}, CAST(v AS BIGINT) AS n FROM input");
        let job = format!(
            "job: load\nsteps:\n{}{}",
            make(made, &sink),
            load("step: make", &sql, "csv: {path: out/load}")
        );
        check_redriven(None, &job, "csv");
    }
}

#[test]
fn numbers_of_a_sequence_are_redriven() {
    let world = World::empty();
    let job = "job: load\nsteps:\n  - {name: a, source: {sequence: {from: 0, to: 20}}, check: [{name: few, that: n < 15}], partition: \
               {key_range: {column: n}, count: 3}, on_error: {reject: {limit: 9}}, sink: {csv: {path: out/a}}}\n";
    world.job(job);
    done(&world, &["run", "job.yaml"]);
    fs::write(world.path("mended.yaml"), job.replace("n < 15", "n < 18")).expect("written");
    done(&world, &["redrive", "load", "--rejects", "--job", "mended.yaml"]);
    let left: Vec<_> = told(&world, "load")
        .iter()
        .map(|reject| reject["row"].clone())
        .collect();
    assert_eq!(left, [18, 19]);
    fs::write(world.path("mended.yaml"), job.replace("n < 15", "true")).expect("written");
    done(&world, &["redrive", "load", "--rejects", "--job", "mended.yaml"]);
    let mut rows = world.rows("out/a");
    rows.sort_by_key(|row| row.parse::<u32>().expect("a number"));
    assert_eq!(rows, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    verify_all(&world, "load");
}

/// A Parquet source of which `load` reads id, v and d, and rejects three.
fn rejected() -> World {
    let world = World::with("in.csv", &lines(false), "");
    world.job(&format!("job: before\nsteps:\n{}", make(TYPED, "parquet: {path: in}")));
    done(&world, &["run", "job.yaml"]);
    world.job(&loaded("SELECT id, CAST(v AS BIGINT) AS n, d FROM input"));
    done(&world, &["run", "job.yaml"]);
    assert_eq!(world.rows("out/load").len(), 7);
    world
}

fn loaded(sql: &str) -> String {
    let load = load("parquet: {path: \"in/*.parquet\"}", sql, "csv: {path: out/load}");
    format!("job: load\nsteps:\n{load}")
}

/// Refused in these words, with exit code 1, and nothing is published.
fn refused(world: &World, more: &[&str], says: &str) {
    let output = gapless(world, &[&["redrive", "load", "--rejects"], more].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{says}: {said}");
    assert!(said.contains(says), "«{says}» is not in: {said}");
    assert_eq!(world.rows("out/load").len(), 7, "{says}");
}

/// The answer over some records is no part of the answer over all.
#[test]
fn what_is_made_of_several_records_is_not_redriven() {
    let report = "report: {path: out/load, row: \"{{ v }}\"}";
    for (sql, sink, says) in [
        (
            "SELECT id % 2 AS k, count(*) AS n FROM input GROUP BY 1",
            "csv: {path: out/load}",
            "what it makes of a record depends on others: ",
        ),
        (
            "SELECT sum(id) AS n FROM input",
            "csv: {path: out/load}",
            "an aggregate without GROUP BY over the whole input",
        ),
        (
            "SELECT id, v FROM input",
            report,
            "its sink is a report, one text over all records",
        ),
    ] {
        let world = World::with("in.csv", &lines(false), "");
        world.job(&format!("job: load\nsteps:\n{}", load(RAW, sql, sink)));
        done(&world, &["run", "job.yaml"]);
        let published = |world: &World| -> Vec<(PathBuf, Vec<u8>)> {
            let mut files = world.files("out/load");
            files.sort();
            let content = |file: PathBuf| (file.clone(), fs::read(&file).expect("read"));
            files.into_iter().map(content).collect()
        };
        let before = published(&world);
        let first = told(&world, "load");
        assert_eq!(first.len(), 1, "{sql}");
        corrected(&world, &first, |raw| raw.replace('Q', "3"));
        let from = ["redrive", "load", "--rejects", "--from", "corrected.ndjson"];
        let output = gapless(&world, &from);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{sql}: {said}");
        for says in ["step load cannot be redriven: ", says, "run the job again"] {
            assert!(said.contains(says), "{sql}: «{says}» is not in: {said}");
        }
        assert!(published(&world) == before, "{sql}: nothing is added");
        verify_all(&world, "load");
    }
}

#[test]
fn a_mended_job_adds_to_the_output_that_there_is() {
    let world = rejected();
    let job = loaded("SELECT id, CAST(v AS BIGINT) AS n, d FROM input").replace("out/load", "out/other");
    fs::write(world.path("mended.yaml"), job).expect("written");
    refused(
        &world,
        &["--job", "mended.yaml"],
        "writes to out/other, and a redrive adds to what is published at out/load",
    );
    assert!(!world.path("out/other").exists());
}

#[test]
fn rejects_that_went_with_a_replaced_output_are_told_so() {
    let world = World::with("in.csv", &lines(false), "");
    let job = load(
        RAW,
        "SELECT id, CAST(v AS BIGINT) AS n, d FROM input",
        "csv: {path: out/load, exists: replace}",
    );
    world.job(&format!(
        "job: load\nparameters: {{day: {{type: int64}}}}\nsteps:\n{job}"
    ));
    let run = |day: &str| {
        let output = done(&world, &["run", "job.yaml", "-p", day, "-o", "json"]);
        let run: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        run["run"].as_str().expect("an id").to_string()
    };
    let (first, second) = (run("day=1"), run("day=2"));
    for arguments in [["rejects", &first].as_slice(), &["redrive", &first, "--rejects"]] {
        let output = gapless(&world, arguments);
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{said}");
        let says = format!("run {second} has put its output in the place of this one");
        assert!(said.contains(&says), "«{says}» is not in: {said}");
    }
    assert_eq!(told(&world, &second).len(), 3);
}

#[test]
fn corrected_rows_that_are_not_of_the_columns_are_refused_in_words() {
    let world = rejected();
    let first = told(&world, "load");
    let from = &["--from", "corrected.ndjson"];
    let cases = [
        (
            r#""d":"1.50""#,
            r#""d":"1.505""#,
            "column d is decimal(10,2), and \"1.505\" would be read as \"1.5",
        ),
        (r#""d":"1.50""#, r#""d":"123456789.50""#, "column d is decimal(10,2)"),
        (
            r#""id":5"#,
            r#""id":5.5"#,
            "column id is int64, and 5.5 would be read as 5: ",
        ),
        (
            r#""id":5"#,
            r#""id":"5""#,
            "column id is int64, and \"5\" would be read as 5",
        ),
        (r#""v":"X""#, r#""v":5"#, "column v is "),
        (r#""v":"X""#, r#""v":"5","w":1"#, "w"),
        (r#","v":"X""#, "", "`raw` lacks column v; write null"),
        (r#""v":"X"}"#, r#""v":"X""#, "`raw` is no JSON object"),
        (r#""v":"X"}"#, r#""v":"X"}{}"#, "`raw` is no JSON object"),
    ];
    for (wrong, right, says) in cases {
        corrected(&world, &first, |raw| raw.replace(wrong, right));
        refused(&world, from, says);
    }
    // What says the same is taken.
    corrected(&world, &first, |raw| {
        raw.replace(r#""d":"1.50""#, r#""d":"1.5""#).replace('Q', "3")
    });
    done(&world, &["redrive", "load", "--rejects", "--from", "corrected.ndjson"]);
    assert!(
        world.rows("out/load").contains(&"3,3,1.50".to_string()),
        "{:?}",
        world.rows("out/load")
    );
}

#[test]
fn copies_of_binary_files_and_records_that_were_not_rejected_are_refused_in_words() {
    let world = rejected();
    let file = world.files("in").remove(0);
    let says = "is not what `gapless rejects RUN -o json` tells, and the records of in/";
    refused(&world, &["--from", &file.display().to_string()], says);
    refused(&world, &["--from", "in"], says);
    let first = told(&world, "load");
    let name = first[0]["file"].as_str().expect("a file").to_string();
    corrected(&world, &first[1..], str::to_string);
    refused(
        &world,
        &["--from", "corrected.ndjson"],
        &format!("lacks the record of {name}, row "),
    );
    let mut other = first.clone();
    other.push(first[0].clone());
    other[3]["row"] = 0.into();
    corrected(&world, &other, str::to_string);
    let says = format!("has a record of {name}, row 0, which was not rejected");
    refused(&world, &["--from", "corrected.ndjson"], &says);
}

#[test]
fn a_mended_job_that_the_kept_rows_cannot_serve_is_refused_in_words() {
    let world = rejected();
    let mended = |sql: &str| fs::write(world.path("mended.yaml"), loaded(sql)).expect("written");
    let with = &["--job", "mended.yaml"];
    // The run had no need of it, so that nobody knows what it was.
    mended("SELECT id, 0 + f AS n, d FROM input");
    refused(&world, with, "there is no column «f»; the columns are id, v, d");
    // What is added has the columns and types of what is there.
    for (sql, says) in [
        (
            "SELECT id, v AS n, d FROM input",
            "its column n is int64, and the job gives string",
        ),
        (
            "SELECT id, TRY_CAST(v AS INT) AS n, d FROM input",
            "its column n is int64, and the job gives int32",
        ),
        (
            "SELECT id, TRY_CAST(v AS BIGINT) AS m, d FROM input",
            "it has the columns id, n, d, and the job gives id, m, d",
        ),
        (
            "SELECT id, d, 1 AS n FROM input",
            "it has the columns id, n, d, and the job gives id, d, n",
        ),
    ] {
        mended(sql);
        refused(&world, with, says);
    }
    let good = loaded("SELECT id, TRY_CAST(v AS BIGINT) AS n, d FROM input").replace("'Q'", "''");
    for (was, is, says) in [
        (
            "sink: {csv: {",
            "sink: {csv: {delimiter: \";\", ",
            "written by another sink than that of the mended job",
        ),
        (
            "sink: {csv: {",
            "sink: {ndjson: {",
            "written by another sink than that of the mended job",
        ),
        (
            "parquet: {path: \"in/*.parquet\"}",
            "csv: {path: in.csv}",
            "the mended job's step load reads csv in.csv, and",
        ),
        (
            "parquet: {path: \"in/*.parquet\"}",
            "avro: {path: in.avro}",
            "leave the kind of its `source` as it was",
        ),
        (
            "parquet: {path: \"in/*.parquet\"}",
            "merge: {inputs: [{parquet: {path: \"in/*.parquet\"}}, {parquet: {path: in.x}}]}",
            "leave the kind of its `source` as it was",
        ),
    ] {
        assert!(good.contains(was));
        fs::write(world.path("mended.yaml"), good.replace(was, is)).expect("written");
        refused(&world, with, says);
    }
    // None of these was the redrive.
    fs::write(world.path("mended.yaml"), good).expect("written");
    done(&world, &["redrive", "load", "--rejects", "--job", "mended.yaml"]);
    assert_eq!(world.rows("out/load").len(), 10);
}

#[test]
fn a_row_of_which_the_quarantine_has_a_part_is_redriven_whole_alone() {
    let world = World::empty();
    world.job(
        "job: before\nsteps:\n  - {name: a, source: {sequence: {from: 0, to: 10}}, transform: {sql: \"SELECT n, CASE WHEN n = 4 THEN \
         repeat('ä', 40000) ELSE 'x' END AS v FROM input\"}, sink: {parquet: {path: in}}}\n",
    );
    done(&world, &["run", "job.yaml"]);
    let job = "job: load\nsteps:\n  - {name: a, source: {parquet: {path: \"in/*.parquet\"}}, check: [{name: c, that: \"v = 'x'\"}], \
               transform: {sql: \"SELECT n, v FROM input\"}, sink: {csv: {path: out/load}}, on_error: {reject: {limit: 1}}}\n";
    world.job(job);
    done(&world, &["run", "job.yaml"]);
    let output = gapless(&world, &["redrive", "load", "--rejects"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(", row 4: the quarantine has the first 65536 bytes of this record alone"),
        "{said}"
    );
    corrected(&world, &told(&world, "load"), |_| r#"{"n":4,"v":"x"}"#.to_string());
    done(&world, &["redrive", "load", "--rejects", "--from", "corrected.ndjson"]);
    assert_eq!(world.rows("out/load").len(), 10);
}

#[test]
fn rows_that_lost_their_place_or_have_a_type_that_no_text_tells_are_refused_in_words() {
    let world = World::with("in.csv", &lines(false), "");
    world.job(&format!("job: before\nsteps:\n{}", make(TYPED, "parquet: {path: in}")));
    done(&world, &["run", "job.yaml"]);
    let job = loaded("SELECT id, CAST(v AS BIGINT) AS n, d FROM input");
    world.job(&(job.clone() + "    partition: {hash: {columns: [id]}, count: 2}\n"));
    done(&world, &["run", "job.yaml"]);
    refused(
        &world,
        &[],
        "that broke the rule «transform» has left its file and line behind in the exchange",
    );

    let world = World::with("in.csv", &lines(false), "");
    let sql = "SELECT *, arrow_cast(id, 'Duration(Second)') AS took FROM input";
    world.job(&format!("job: before\nsteps:\n{}", make(sql, "parquet: {path: in}")));
    done(&world, &["run", "job.yaml"]);
    world.job(&loaded(
        "SELECT id, CAST(v AS BIGINT) AS n, d FROM input WHERE took IS NOT NULL",
    ));
    done(&world, &["run", "job.yaml"]);
    refused(&world, &[], "column took is duration in seconds");
}

/// The text of all files of an output: those of the run, then those of the redrive.
fn all_of(world: &World, output: &str) -> String {
    let mut files = world.files(output);
    files.sort_by_key(|file| file.to_string_lossy().contains("-g2"));
    let texts = files.iter().map(|file| fs::read_to_string(file).expect("text"));
    texts.collect()
}

/// A job over lines that end in CR, of which two records hold an LF, is not redriven in more records than there were.
#[test]
fn a_record_is_redriven_as_one_or_not_at_all() {
    let job = |more: &str| {
        format!(
            "job: load\nsteps:\n  - name: load\n    source: {{csv: {{path: in.csv, header: false, {more}, columns: {{id: int64, v: string}}}}}}\n    \
             check: [{{name: short, that: \"length(v) < 2\"}}]\n    sink: {{csv: {{path: out}}}}\n    on_error: {{reject: {{limit: 9}}}}\n"
        )
    };
    let world = World::with("in.csv", "1,a\r2,b\nc\r3,d\n4,e\r", &job("newline: cr"));
    done(&world, &["run", "job.yaml"]);
    let first = told(&world, "load");
    assert_eq!(first.len(), 2, "{first:?}");
    let refused = |more: &[&str], says: &str| {
        let output = gapless(&world, &[&["redrive", "load", "--rejects"], more].concat());
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(says), "{says}: {said}");
    };
    refused(&[], "its text is not one record of CSV");
    // An open quote would take the records below it into its field.
    corrected(&world, &first, |raw| {
        raw.replace("b\nc", "\"b").replace("3,d\n4,e", "3,d")
    });
    let mended = job("newline: cr, multiline: true").replace("< 2", "< 9");
    fs::write(world.path("mended.yaml"), mended).expect("written");
    let from = ["--from", "corrected.ndjson", "--job", "mended.yaml"];
    refused(&from, "a quote that is not closed");
    corrected(&world, &first, |raw| {
        raw.replace("b\nc", "\"b\nc\"").replace("3,d\n4,e", "3,d")
    });
    done(&world, &[&["redrive", "load", "--rejects"], &from[..]].concat());
    assert_eq!(all_of(&world, "out"), "id,v\n1,a\nid,v\n2,\"b\nc\"\n3,d\n");
    verify_all(&world, "load");
}

#[test]
fn fields_of_an_earlier_step_keep_their_line_ends() {
    let job = |most: u32| {
        format!(
            "job: load\nsteps:\n  - name: make\n    source: {{csv: {{path: in.csv, columns: {{id: int64, v: string}}}}}}\n    \
             transform: {{sql: \"SELECT id, v || chr(10) || '9,z' AS v FROM input\"}}\n    sink: {{csv: {{path: mid}}}}\n  - name: load\n    \
             source: {{step: make}}\n    check: [{{name: short, that: \"length(v) < {most}\"}}]\n    sink: {{ndjson: {{path: out}}}}\n    \
             on_error: {{reject: {{limit: 9}}}}\n"
        )
    };
    let world = World::with("in.csv", "id,v\n1,a\n2,bb\n3,cc\n", &job(6));
    done(&world, &["run", "job.yaml"]);
    fs::write(world.path("mended.yaml"), job(9)).expect("written");
    done(&world, &["redrive", "load", "--rejects", "--job", "mended.yaml"]);
    let line = |(id, v): (u32, &str)| format!("{{\"id\":{id},\"v\":\"{v}\\n9,z\"}}\n");
    assert_eq!(
        all_of(&world, "out"),
        [(1, "a"), (2, "bb"), (3, "cc")].map(line).concat()
    );
}

/// Inputs of every kind over parts of the ten records, one of them without a record that is rejected and alone with a column.
fn merged(more: &str, sql: &str) -> (World, String) {
    let world = World::with("in.csv", &lines(false), "");
    for (format, ids) in [
        ("parquet", "id <= 3"),
        ("avro", "id = 4 OR id = 5"),
        ("ndjson", "id = 6 OR id = 7"),
    ] {
        let sql = format!("SELECT id, v, d, f FROM input WHERE {ids}");
        world.job(&format!(
            "job: before-{format}\nsteps:\n{}",
            make(&sql, &format!("{format}: {{path: in-{format}}}"))
        ));
        done(&world, &["run", "job.yaml"]);
    }
    fs::write(world.path("rest.csv"), "id,v,d,note\n8,8,1.50,eight\n9,9,,nine\n").expect("written");
    fs::write(world.path("last.csv"), "id,v,d\n10,Q,1.50\n11,11,x\n").expect("written");
    let columns = "columns: {id: int64, v: string, d: \"decimal(12,3)\"}";
    let job = format!(
        "job: load\nsteps:\n{}{more}",
        load(
            &format!(
                "merge: {{inputs: [{{parquet: {{path: \"in-parquet/*.parquet\"}}}}, {{avro: {{path: \"in-avro/*.avro\"}}}}, {{ndjson: {{path: \
                 \"in-ndjson/*.ndjson\", columns: {{id: int64, v: string, d: \"decimal(10,2)\"}}}}}}, {{csv: {{path: rest.csv, columns: {{id: \
                 int64, d: \"decimal(10,2)\"}}}}}}, {{csv: {{path: last.csv, {columns}}}}}], missing_columns: fill MORE}}"
            ),
            sql,
            "parquet: {path: out/load}"
        )
    );
    (world, job)
}

fn ndjson_of(world: &World) -> Vec<String> {
    world.job("job: read\nsteps:\n  - {name: a, source: {parquet: {path: \"out/load/*.parquet\"}}, sink: {ndjson: {path: out/read}}}\n");
    done(world, &["run", "job.yaml"]);
    let files = world.files("out/read");
    let read = files.iter().map(|file| fs::read_to_string(file).expect("text"));
    let mut rows: Vec<String> = read.collect::<String>().lines().map(str::to_string).collect();
    rows.sort();
    rows
}

#[test]
fn inputs_of_a_merge_are_redriven_each_in_its_own_form() {
    // Without `f`, which the rows then lack, and with it.
    for sql in [
        "SELECT id, CAST(v AS BIGINT) AS n, d, note FROM input",
        "SELECT *, CAST(v AS BIGINT) AS n FROM input",
    ] {
        let (world, job) = merged("", sql);
        let job = job.replace(" MORE", "");
        let mended = job.replace("CAST(v AS BIGINT)", "COALESCE(TRY_CAST(v AS BIGINT), 7)");
        world.job(&job);
        done(&world, &["run", "job.yaml"]);
        let first = told(&world, "load");
        assert_eq!(first.len(), 5, "{first:?}");
        let correct = |raw: &str| {
            let raw = raw.replace("10,Q", "10,10").replace('Q', "3").replace('X', "5");
            raw.replace("11,11,x", "11,11,0.125")
        };
        corrected(&world, &first, correct);
        done(&world, &["redrive", "load", "--rejects", "--from", "corrected.ndjson"]);
        let again = told(&world, "load");
        let [again] = again.as_slice() else { panic!("{again:?}") };
        let same = first.iter().find(|reject| reject["raw"] == again["raw"]);
        assert_eq!(place(again), place(same.expect("it was rejected at first")));
        fs::write(world.path("mended.yaml"), &mended).expect("written");
        done(&world, &["redrive", "load", "--rejects", "--job", "mended.yaml"]);
        verify_all(&world, "load");
        let rows = ndjson_of(&world);

        let (world, _) = merged("", sql);
        for (format, ids) in [("parquet", "id <= 3"), ("avro", "id = 4 OR id = 5")] {
            let sql = format!("SELECT id, replace(replace(v, 'Q', '3'), 'X', '5') AS v, d, f FROM input WHERE {ids}");
            fs::remove_dir_all(world.path(&format!("in-{format}"))).expect("removed");
            world.job(&format!(
                "job: mend-{format}\nsteps:\n{}",
                make(&sql, &format!("{format}: {{path: in-{format}}}"))
            ));
            done(&world, &["run", "job.yaml"]);
        }
        fs::write(world.path("last.csv"), "id,v,d\n10,10,1.50\n11,11,0.125\n").expect("written");
        world.job(&mended);
        done(&world, &["run", "job.yaml"]);
        let expected = ndjson_of(&world);
        assert_eq!(expected.len(), 11);
        assert_eq!(rows, expected, "{sql}");
    }
}

/// Two sorted inputs of which a check rejects some; the third has none rejected and comes first by name.
fn sorted(more: &str) -> (World, String) {
    let world = World::empty();
    world.job(
        "job: before\nsteps:\n  - {name: a, source: {sequence: {from: 0, to: 10}}, transform: {sql: \"SELECT n * 3 AS k, 'p' AS v FROM \
         input\"}, sink: {parquet: {path: in}}}\n",
    );
    done(&world, &["run", "job.yaml"]);
    // One input of two files, which do not follow one another by name.
    for (name, from, rows) in [("z.csv", 1, 0..5), ("b.csv", 1, 5..10), ("a.csv", 2, 0..10)] {
        let rows = rows.map(|n| format!("{},{}\n", n * 3 + from, if from == 2 { "a" } else { "b" }));
        fs::write(world.path(name), "k,v\n".to_string() + &rows.collect::<String>()).expect("written");
    }
    let job = format!(
        "job: load\nsteps:\n  - name: load\n    source:\n      merge:\n        inputs:\n          - csv: {{path: [z.csv, b.csv], columns: {{k: \
         int64}}}}\n          - parquet: {{path: \"in/*.parquet\"}}\n          - csv: {{path: a.csv, columns: {{k: int64}}}}\n        by: \
         [k]\n{more}    check: [{{name: few, that: \"k % 2 = 0 OR v = 'a'\"}}]\n    sink: {{csv: {{path: out/load}}}}\n    on_error: \
         {{reject: {{limit: 20}}}}\n"
    );
    world.job(&job);
    done(&world, &["run", "job.yaml"]);
    assert_eq!(world.rows("out/load").len(), 20);
    (world, job)
}

/// The merged records of each publication are in one order.
#[test]
fn a_sorted_merge_is_redriven_in_its_order() {
    let (world, job) = sorted("        unique: [k]\n");
    // First those of the Parquet input, then the others.
    fs::write(world.path("mended.yaml"), job.replace("v = 'a'", "v <> 'b'")).expect("written");
    done(&world, &["redrive", "load", "--rejects", "--job", "mended.yaml"]);
    let left = told(&world, "load");
    assert_eq!(left.len(), 5, "{left:?}");
    assert!(
        left.iter()
            .all(|reject| reject["file"] == "b.csv" || reject["file"] == "z.csv"),
        "{left:?}"
    );
    fs::write(world.path("mended.yaml"), job.replace("v = 'a'", "true")).expect("written");
    done(&world, &["redrive", "load", "--rejects", "--job", "mended.yaml"]);
    for file in world.files("out/load") {
        let text = fs::read_to_string(file).expect("text");
        let keys: Vec<u32> = text
            .lines()
            .skip(1)
            .map(|line| line.split(',').next().expect("k").parse().expect("a number"))
            .collect();
        assert!(keys.is_sorted(), "{keys:?}");
    }
    let mut rows = world.rows("out/load");
    rows.sort_by_key(|row| row.split(',').next().expect("k").parse::<u32>().expect("a number"));
    let keys: Vec<_> = rows
        .iter()
        .map(|row| row.split(',').next().expect("k").to_string())
        .collect();
    assert_eq!(keys, (0..30).map(|k| k.to_string()).collect::<Vec<_>>());
    verify_all(&world, "load");
}

#[test]
fn what_may_bring_a_key_that_nobody_compared_is_refused_in_words() {
    let (world, job) = sorted("        unique: [k]\n");
    let refused = |more: &[&str], says: &str| {
        let output = gapless(&world, &[&["redrive", "load", "--rejects"], more].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{says}: {said}");
        assert!(said.contains(says), "«{says}» is not in: {said}");
        assert!(
            said.contains("would not be held against those that are published"),
            "{said}"
        );
        assert_eq!(world.rows("out/load").len(), 20);
    };
    corrected(&world, &told(&world, "load"), |raw| raw.replace("3,b", "6,b"));
    refused(
        &["--from", "corrected.ndjson"],
        "corrected.ndjson may give other keys than the run read",
    );
    for (was, is, says) in [
        ("unique: [k]", "unique: [v]", "the run was not asked for these columns"),
        (
            "path: [z.csv, b.csv], columns: {k: int64}",
            "path: [z.csv, b.csv]",
            "column k of csv z.csv, b.csv has another type now",
        ),
    ] {
        assert!(job.contains(was));
        fs::write(world.path("mended.yaml"), job.replace(was, is)).expect("written");
        refused(&["--job", "mended.yaml"], says);
    }
    // Who leaves `unique` out knows better; among themselves the records would be compared.
    let without = job.replace("        unique: [k]\n", "").replace("v = 'a'", "true");
    fs::write(world.path("mended.yaml"), without).expect("written");
    done(&world, &["redrive", "load", "--rejects", "--job", "mended.yaml"]);
    assert_eq!(world.rows("out/load").len(), 30);

    let (world, job) = sorted("");
    fs::write(world.path("bad.csv"), "k,v\nx,b\n32,a\n").expect("written");
    let job = job
        .replace("path: [z.csv, b.csv]", "path: bad.csv")
        .replace("        by: [k]\n", "        unique: [k]\n")
        .replace("out/load", "out/bad");
    world.job(&job.replace("job: load", "job: bad"));
    done(&world, &["run", "job.yaml"]);
    let output = gapless(&world, &["redrive", "bad", "--rejects"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("merge: unique: the run could not read the record of bad.csv, line 2, so keys (k)"),
        "{said}"
    );
}

#[test]
fn a_merge_is_redriven_by_inputs_that_are_as_they_were() {
    let (world, job) = sorted("");
    let refused = |more: &[&str], says: &str| {
        let output = gapless(&world, &[&["redrive", "load", "--rejects"], more].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{says}: {said}");
        assert!(said.contains(says), "«{says}» is not in: {said}");
        assert_eq!(world.rows("out/load").len(), 20);
    };
    let csv = "          - csv: {path: a.csv, columns: {k: int64}}\n";
    for (was, is, says) in [
        (csv, "", "leave the kind of its `source` as it was"),
        (
            csv,
            "          - ndjson: {path: a.csv}\n",
            "leave the kind of its `source` as it was",
        ),
        (
            "check:",
            "transform: {sql: \"SELECT k, v, w FROM input\"}\n    check:",
            "there is no column «w»",
        ),
    ] {
        assert!(job.contains(was));
        fs::write(world.path("mended.yaml"), job.replace(was, is)).expect("written");
        refused(&["--job", "mended.yaml"], says);
    }
    // Copies are of text alone.
    refused(&["--from", "."], "the records of in/");
    // A corrected key that does not stand where it belongs.
    corrected(&world, &told(&world, "load"), |raw| raw.replace("25,b", "2,a"));
    refused(&["--from", "corrected.ndjson"], "merge: input 1 (csv ");
    corrected(&world, &told(&world, "load"), |raw| {
        raw.replace(",b", ",a").replace("\"p\"", "\"a\"")
    });
    done(&world, &["redrive", "load", "--rejects", "--from", "corrected.ndjson"]);
    assert_eq!(world.rows("out/load").len(), 30);
    verify_all(&world, "load");
}

/// Inputs of text alone are corrected in copies of their files too.
#[test]
fn copies_of_the_texts_of_a_merge_are_read() {
    let world = World::empty();
    fs::create_dir(world.path("corrected")).expect("made");
    for (name, bad, good) in [
        ("a.csv", "k\n1\nx\n", "k\n1\n2\n"),
        ("b.ndjson", "{\"k\":\"y\"}\n", "{\"k\":3}\n"),
    ] {
        fs::write(world.path(name), bad).expect("written");
        fs::write(world.path("corrected").join(name), good).expect("written");
    }
    world.job(
        "job: load\nsteps:\n  - {name: a, source: {merge: {inputs: [{csv: {path: a.csv, columns: {k: int64}}}, {ndjson: {path: b.ndjson, \
         columns: {k: int64}}}]}}, sink: {csv: {path: out/load}}, on_error: {reject: {limit: 9}}}\n",
    );
    done(&world, &["run", "job.yaml"]);
    assert_eq!(world.rows("out/load"), ["1"]);
    done(&world, &["redrive", "load", "--rejects", "--from", "corrected"]);
    let mut rows = world.rows("out/load");
    rows.sort();
    assert_eq!(rows, ["1", "2", "3"]);
    verify_all(&world, "load");
}

/// What an earlier step of the run gave is there still, also for a second redrive.
#[test]
fn look_ups_in_earlier_steps_are_those_of_the_run() {
    for format in ["parquet", "avro"] {
        let world = World::empty();
        let job = format!(
            "job: load\nsteps:\n  - {{name: names, source: {{sequence: {{from: 0, to: 9}}}}, transform: {{sql: \"SELECT n, 'name-' || n AS name FROM \
             input\"}}, sink: {{{format}: {{path: out/names, exists: append}}}}}}\n  - {{name: load, source: {{sequence: {{from: 0, to: 9}}}}, \
             lookups: {{l: {{step: names}}}}, check: [{{name: few, that: n < 3}}], transform: {{sql: \"SELECT input.n, l.name FROM input JOIN l ON \
             l.n = input.n\"}}, sink: {{csv: {{path: out/load}}}}, on_error: {{reject: {{limit: 9}}}}}}\n"
        );
        world.job(&job);
        done(&world, &["run", "job.yaml"]);
        // What others add there is not the run's.
        world.job(&format!(
            "job: other\nsteps:\n  - {{name: names, source: {{sequence: {{from: 0, to: 9}}}}, transform: {{sql: \"SELECT n, 'other' AS name FROM \
             input\"}}, sink: {{{format}: {{path: out/names, exists: append}}}}}}\n"
        ));
        done(&world, &["run", "job.yaml"]);
        for rule in ["n < 6", "true"] {
            fs::write(world.path("mended.yaml"), job.replace("n < 3", rule)).expect("written");
            done(&world, &["redrive", "load", "--rejects", "--job", "mended.yaml"]);
        }
        let mut rows = world.rows("out/load");
        rows.sort();
        assert_eq!(rows, (0..9).map(|n| format!("{n},name-{n}")).collect::<Vec<_>>());
        verify_all(&world, "load");
    }
}

/// Columns that the run did not read are not known of rows, so that no input has them: neither a fault nor NULL.
#[test]
fn a_mended_job_asks_a_merge_for_no_column_that_its_rows_lack() {
    let world = World::with("in.csv", "k,v,more\n10,x,1\n11,11,2\n", "");
    world.job(
        "job: before\nsteps:\n  - {name: a, source: {sequence: {from: 0, to: 3}}, transform: {sql: \"SELECT n AS k, CASE WHEN n = 1 THEN 'y' ELSE \
         '0' END AS v, 'z' AS more FROM input\"}, sink: {avro: {path: in}}}\n",
    );
    done(&world, &["run", "job.yaml"]);
    for mode in ["refuse", "fill"] {
        let job = format!(
            "job: load-{mode}\nsteps:\n  - {{name: load, source: {{merge: {{inputs: [{{csv: {{path: in.csv, columns: {{k: int64}}}}}}, {{avro: {{path: \
             \"in/*.avro\"}}}}], missing_columns: {mode}}}}}, transform: {{sql: \"SELECT k, CAST(v AS BIGINT) AS n FROM input\"}}, sink: {{csv: \
             {{path: out/{mode}}}}}, on_error: {{reject: {{limit: 9}}}}}}\n"
        );
        world.job(&job);
        done(&world, &["run", "job.yaml"]);
        let (name, output) = (format!("load-{mode}"), format!("out/{mode}"));
        assert_eq!(world.rows(&output).len(), 3);
        let asks = job.replace("CAST(v AS BIGINT)", "CAST(COALESCE(more, '5') AS BIGINT)");
        fs::write(world.path("mended.yaml"), asks).expect("written");
        let asked = gapless(&world, &["redrive", &name, "--rejects", "--job", "mended.yaml"]);
        let said = text(&asked.stderr);
        assert_eq!(asked.status.code(), Some(1), "{said}");
        assert!(
            said.contains("there is no column «more»; the columns are k, v"),
            "{said}"
        );
        // Twice: what is redriven again has no more columns.
        for value in [
            "COALESCE(TRY_CAST(v AS BIGINT), 5 / CAST(k > 9 AS BIGINT))",
            "COALESCE(TRY_CAST(v AS BIGINT), 5)",
        ] {
            fs::write(world.path("mended.yaml"), job.replace("CAST(v AS BIGINT)", value)).expect("written");
            done(&world, &["redrive", &name, "--rejects", "--job", "mended.yaml"]);
        }
        let mut rows = world.rows(&output);
        rows.sort();
        assert_eq!(rows, ["0,0", "1,5", "10,5", "11,11", "2,0"]);
        verify_all(&world, &name);
    }
}

/// Whatever form a job file has, its text is left as it is: also where nothing can be added to it.
#[test]
fn a_job_of_any_form_is_redriven() {
    let step = r#"{"name": "load", "source": {"csv": {"path": "in.csv", "columns": {"id": "int64"}}}, "sink": {"csv": {"path": "out"}}, "on_error": {"reject": {"limit": 9}}}"#;
    let json = format!(r#"{{"job": "load", "steps": [{step}]}}"#);
    let ended = format!("job: load\nsteps:\n- {step}\n...\n");
    let indented = format!("  job: load\n  steps:\n  - {step}");
    for job in [json, ended, indented] {
        let world = World::with("in.csv", "id\n1\nx\n3\n", &job);
        fs::write(world.path("good.csv"), "id\n1\n2\n3\n").expect("written");
        done(&world, &["run", "job.yaml"]);
        done(&world, &["redrive", "load", "--rejects", "--from", "good.csv"]);
        assert_eq!(all_of(&world, "out"), "id\n1\n3\nid\n2\n", "{job}");
        verify_all(&world, "load");
    }
}

//! Steps, cuts and SQL that do not fit together.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use crate::room::Room;

fn gzip(text: &str, level: Compression) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), level);
    packed.write_all(text.as_bytes()).expect("packed");
    packed.finish().expect("packed")
}

/// The rows that a plan of the room's job estimates, and what it notes.
fn planned(room: &Room) -> (u64, Vec<String>) {
    let ended = room.gapless(&["plan", "job.yaml", "-o", "json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let step = &json["steps"][0];
    let warnings = step["warnings"].as_array().expect("a list").iter();
    let warnings = warnings.map(|warning| warning.as_str().expect("text").to_string());
    (step["rows"].as_u64().expect("a number"), warnings.collect())
}

/// Files that are packed hold as many rows as they say, and plain ones beside them no more than they have.
#[test]
fn rows_of_packed_files_are_estimated_by_what_they_hold() {
    let text: String = (0..300_000)
        .map(|n| format!("{n:>8},some text that stands in each row {n:>8}\n"))
        .collect();
    let near = |rows: u64, of: u64| rows.abs_diff(of) * 50 <= of;
    let csv = |name: &str| format!("csv: {{path: {name}, header: false, columns: {{id: string, v: string}}}}");
    let merge = format!(
        "merge: {{inputs: [{{{}}}, {{{}}}]}}",
        csv("in-1.csv"),
        csv("in-2.csv.gz")
    );
    for (what, source) in [("files", csv("\"in-*\"")), ("inputs", merge)] {
        let room = Room::new(what)
            .file("in-1.csv", &text)
            .file("in-2.csv.gz", gzip(&text, Compression::fast()))
            .job(&format!(
                "job: j\nsteps:\n  - {{name: a, source: {{{source}}}, sink: discard}}\n"
            ));
        let (rows, warnings) = planned(&room);
        assert!(near(rows, 600_000), "{what}: {rows} rows");
        assert_eq!(warnings, Vec::<String>::new());
    }
    // The same of a record layout, so large that it is a word worth that one partition reads it alone.
    let text = text.repeat(5);
    let layout = "fields: [{name: id, width: 8}, {name: sign, width: 1}, {name: v, width: 43}]";
    let room = Room::new("a record layout").file("in.txt.gz", gzip(&text, Compression::none()));
    let job =
        format!("job: j\nsteps:\n  - {{name: a, source: {{records: {{path: in.txt.gz, {layout}}}}}, sink: discard}}\n");
    let room = room.job(&job);
    let (rows, warnings) = planned(&room);
    assert!(near(rows, 1_500_000), "{rows} rows");
    let told = "1 large file that can only be read from the beginning (compressed, or not in UTF-8): each is read by one \
                partition and resumes only at file ends; more, smaller files run in parallel";
    assert_eq!(warnings, [told]);
    // Of a small one nobody wants to hear.
    let small = gzip(&text[..text.len() / 50], Compression::none());
    std::fs::write(room.path("in.txt.gz"), small).expect("written");
    assert_eq!(planned(&room), (30_000, Vec::new()));
}

#[test]
fn cuts_and_orders_that_cannot_be_are_refused() {
    let cut = |count: &str| {
        format!(
            "job: j\nsteps:\n  - {{name: a, source: {{sequence: {{from: 0, to: 9}}}}, partition: {{count: {count}}}, sink: discard}}\n"
        )
    };
    let steps = |steps: &str| format!("job: j\nsteps:\n{steps}");
    let cases: &[(&str, String, &str)] = &[
        (
            "no partitions",
            cut("0"),
            "job.yaml:3:72: `count` in partition is `0`; allowed: auto, or a whole number from 1 to 100000",
        ),
        (
            "fewer than none",
            cut("-1"),
            "`count` in partition is `-1`; allowed: auto, or a whole number from 1 to 100000",
        ),
        (
            "a number in words",
            cut("\"ten\""),
            "`count` in partition is the text \"ten\"; allowed: auto, or a whole number from 1 to 100000",
        ),
        (
            "a circle",
            steps(
                "  - {name: a, after: b, source: {sequence: {from: 0, to: 9}}, sink: discard}\n  - {name: b, after: a, source: {sequence: {from: 0, to: 9}}, sink: discard}\n",
            ),
            "job.yaml:3:22: steps wait for one another in a circle: a after b after a; allowed: an order in which each step comes after those it needs",
        ),
        (
            "an unknown step",
            steps("  - {name: load, after: laod, source: {sequence: {from: 0, to: 9}}, sink: discard}\n"),
            "job.yaml:3:25: unknown step `laod` in `after`",
        ),
        (
            "a source that is no step",
            steps("  - {name: load, source: {step: lod}, sink: discard}\n"),
            "job.yaml:3:33: unknown step `lod` in `source`",
        ),
        (
            "two steps with one output",
            steps(
                "  - {name: a, source: {sequence: {from: 0, to: 9}}, sink: {csv: {path: out/a}}}\n  - {name: b, source: {sequence: {from: 0, to: 9}}, sink: {csv: {path: ./out//a/}}}\n",
            ),
            "job.yaml:4:72: the output `./out//a/` shares a place with the output `out/a` of step `a`; allowed: a folder of its own for each output",
        ),
        (
            "an output inside the input",
            steps("  - {name: a, source: {csv: {path: data/*.csv}}, sink: {csv: {path: data}}}\n"),
            "the output `data` shares a place with the input `data/*.csv` of step `a`; allowed: a folder apart from all inputs; `source: {step: NAME}` reads the output of a step",
        ),
    ];
    for (what, text, says) in cases {
        Room::new(what).job(text).is_refused(says);
    }
}

#[test]
fn names_in_sql_that_nothing_has_are_told_with_their_place() {
    let job = |source: &str, sql: &str| {
        format!(
            "job: j\nsteps:\n  - name: a\n    source: {{{source}}}\n    transform:\n      sql: {sql}\n    sink: {{csv: {{path: out/a}}}}\n"
        )
    };
    let declared = "csv: {path: in.csv, header: false, columns: {id: int64, amount: int64}}";
    for (what, sql, says) in [
        (
            "an unknown column",
            "SELECT id, amuont FROM input",
            "job.yaml:6:23: step a: the SQL: there is no column «amuont»; did you mean «amount»? Names are case-sensitive",
        ),
        (
            "a column in the wrong case",
            "SELECT ID FROM input",
            "job.yaml:6:19: step a: the SQL: there is no column «ID»; did you mean «id»? Names are case-sensitive",
        ),
        (
            "an unknown function",
            "SELECT uper(id) FROM input",
            "job.yaml:6:19: step a: the SQL: there is no function «uper». Did you mean 'upper'?",
        ),
        (
            "an unknown table",
            "SELECT id FROM inptu",
            "step a: the SQL: there is no table «inptu»",
        ),
        (
            "a call of another type",
            "SELECT round(CAST('2026-11-20' AS DATE)) AS x FROM input",
            "step a: the SQL: the function «round» does not take (date); it is called as round(decimal, int32), ",
        ),
        (
            "types that do not go together",
            "SELECT id + (amount > 1) AS x FROM input",
            "step a: the SQL: Cannot coerce arithmetic expression int64 + bool to valid types",
        ),
        (
            "a join of another dialect",
            "SELECT id FROM input SEMI JOIN input AS other USING (id)",
            "step a: the SQL: SEMI JOIN is not supported; write LEFT SEMI JOIN, which gives the rows of the left side that have a \
             match, or RIGHT SEMI JOIN\n",
        ),
        (
            "an operator of another dialect",
            "SELECT id FROM input WHERE CAST(id AS VARCHAR) RLIKE 'x'",
            "step a: the SQL: RLIKE is not supported; write regexp_like(text, pattern)\n",
        ),
        (
            "what nobody here knows",
            "SELECT MATCH(id) AGAINST ('x') FROM input",
            "step a: the SQL: MatchAgainst is not supported\n",
        ),
        // What the engine would pass over without a word.
        (
            "a hierarchy",
            "SELECT id FROM input START WITH id = 1 CONNECT BY PRIOR id = amount",
            "step a: the SQL: CONNECT BY is not supported; write a recursive query (WITH RECURSIVE)\n",
        ),
        (
            "a sample, in a subquery",
            "SELECT id FROM (SELECT id FROM input TABLESAMPLE (10)) AS t",
            "step a: the SQL: TABLESAMPLE is not supported; choose records by their values",
        ),
        (
            "rows that go elsewhere",
            "SELECT id INTO other FROM input",
            "step a: the SQL: SELECT INTO is not supported; the sink is where the rows go\n",
        ),
        (
            "a placeholder",
            "SELECT id FROM input WHERE amount > $least",
            "step a: the SQL: «$least» is a placeholder, and nothing is put in its place; a parameter of the job is written ${param.NAME}\n",
        ),
        ("no SQL", "SELEKT id", "step a: the SQL"),
        ("two statements", "SELECT 1; SELECT 2", "step a: the SQL"),
        ("a statement that changes", "DROP TABLE input", "step a: the SQL"),
    ] {
        let room = Room::new(what).file("in.csv", "1,2\n").job(&job(declared, sql));
        room.refuses(&["validate", "job.yaml"], 3, says);
        room.refuses(&["run", "job.yaml"], 3, says);
    }
    // The header of the file may name what the job does not declare: then the survey tells.
    let open = "csv: {path: in.csv, columns: {id: int64}}";
    let room = Room::new("an undeclared column").file("in.csv", "id,amount\n1,2\n");
    let room = room.job(&job(open, "SELECT id, amuont FROM input"));
    room.fails("step a, survey: the SQL: there is no column «amuont»; did you mean «amount»?");
}

#[test]
fn columns_of_a_cut_or_an_output_that_nothing_has() {
    let job = |rest: &str| {
        format!(
            "job: j\nsteps:\n  - name: a\n    source: {{csv: {{path: in.csv, header: false, columns: {{id: int64, amount: int64}}}}}}\n{rest}\n"
        )
    };
    let room = |what: &str, rest: &str| Room::new(what).file("in.csv", "1,2\n").job(&job(rest));
    room(
        "a key column",
        "    partition: {hash: {columns: [idd]}, count: 2}\n    sink: {csv: {path: out/a}}",
    )
    .refuses(
        &["run", "job.yaml"],
        3,
        "job.yaml:5:34: unknown column `idd` in `partition`; did you mean `id`? allowed: id, amount",
    );
    room("a folder column", "    sink: {csv: {path: out/a, partition_by: [day]}}").refuses(
        &["run", "job.yaml"],
        3,
        "step a: partition_by: no column day in the output; there are id, amount",
    );
    room(
        "a second column of this name",
        "    sink: {csv: {path: out/a, partition_column: id}}",
    )
    .refuses(
        &["run", "job.yaml"],
        3,
        "step a: partition_column: the output has a column id already; choose another name",
    );
}

#[test]
fn a_cut_with_a_hole_is_refused_with_the_interval() {
    let job = "job: j\nsteps:\n  - name: a\n    source: {csv: {path: in.csv, header: false, columns: {id: int64}}}\n    partition: {key_range: {column: id, ranges: [{through: 4, \"null\": true}, {from: 6}]}}\n    sink: {csv: {path: out/a}}\n";
    let room = Room::new("a hole").file("in.csv", "1\n5\n").job(job);
    let says = "gap at 5 of column 'id', between range 1 (-inf, 5) and range 2 [6, +inf): in no range (the source holds such keys: 5); widen a range, leave its end open, or set `outside: partition`";
    let plan = room.gapless(&["plan", "job.yaml"]);
    assert_eq!(plan.code, Some(3), "{}", plan.stderr);
    assert!(plan.stderr.contains(says), "{}", plan.stderr);
    room.fails(says);
}

//! Records and values that are none of what the job declares. Each is refused with file and line, and under a limit
//! set aside with its raw text while the others go on.

use std::fs;

use crate::room::{Room, copy_of};

/// Of a column type a field that is none of it, and why.
const VALUES: &[(&str, &str, &str)] = &[
    (
        "int64",
        "9223372036854775808",
        "«9223372036854775808» is not a whole number from -9223372036854775808 to 9223372036854775807",
    ),
    (
        "int64",
        "-9223372036854775809",
        "«-9223372036854775809» is not a whole number from -9223372036854775808",
    ),
    (
        "uint64",
        "18446744073709551616",
        "«18446744073709551616» is not a whole number from 0 to 18446744073709551615",
    ),
    ("int64", "NaN", "«NaN» is not a whole number"),
    ("int64", "1e3", "«1e3» is not a whole number"),
    ("int64", "--1", "«--1» is not a whole number"),
    ("int64", " 1", "« 1» is not a whole number"),
    ("int8", "128", "«128» is not a whole number from -128 to 127"),
    ("float64", "1e999", "«1e999» is not a number that a float64 holds"),
    ("float32", "3.5e38", "«3.5e38» is not a number that a float32 holds"),
    ("float64", "\"12,5\"", "«\"12,5\"» is not a number that a float64 holds"),
    ("float64", "--1", "«--1» is not a number that a float64 holds"),
    (
        "\"decimal(12,2)\"",
        "NaN",
        "«NaN» is not a decimal(12,2): at most 10 digits before the point and 2 behind it",
    ),
    ("\"decimal(12,2)\"", "1e999", "«1e999» is not a decimal(12,2)"),
    ("\"decimal(12,2)\"", "\"12,5\"", "«\"12,5\"» is not a decimal(12,2)"),
    ("\"decimal(12,2)\"", "--1", "«--1» is not a decimal(12,2)"),
    ("\"decimal(12,2)\"", "0.001", "«0.001» is not a decimal(12,2)"),
    (
        "\"decimal(38,0)\"",
        "123456789012345678901234567890123456789",
        "«123456789012345678901234567890123456789» is not a decimal(38,0): at most 38 digits before the point and 0 behind it",
    ),
    ("date", "2023-02-29", "«2023-02-29» is not a date (YYYY-MM-DD)"),
    ("date", "29.02.2024", "«29.02.2024» is not a date (YYYY-MM-DD)"),
    (
        "timestamp",
        "2026-11-20T24:00:00",
        "«2026-11-20T24:00:00» is not a timestamp",
    ),
    ("bool", "maybe", "«maybe» is not true or false"),
];

#[test]
fn a_value_that_is_none_of_its_type_is_refused_with_its_line() {
    for (ty, value, why) in VALUES {
        let room = Room::new(&format!("{ty} {value}"))
            .file("in.csv", format!("id,v\n1,\n2,{value}\n3,\n"))
            .job(&copy_of(&format!("{{id: int64, v: {ty}}}")));
        room.fails(&format!(
            "step a, execute partition 0, attempt 1: more than 0 records were rejected (reject: limit); the last: in.csv, line 3: parse: column v: {why}"
        ));
    }
}

#[test]
fn records_of_another_form_are_refused_with_their_line() {
    let cases: &[(&str, &[u8], &str)] = &[
        (
            "too few fields",
            b"id,v\n1,a\n2\n",
            "in.csv, line 3: parse: the record has 1 field, and there are 2 columns",
        ),
        (
            "too many fields",
            b"id,v\n1,a,\n",
            "in.csv, line 2: parse: the record has 3 fields, and there are 2 columns",
        ),
        (
            "a quote without an end",
            b"id,v\n1,a\n2,\"b\n",
            "in.csv, line 3: parse: a quote is still open at the end of the line",
        ),
        (
            "a quote without an end, and no line end",
            b"id,v\n1,a\n2,\"b",
            "in.csv, line 3: parse: a quote is still open at the end of the line",
        ),
        (
            "no UTF-8",
            b"id,v\n1,a\xffb\n",
            "in.csv, line 2: parse: column v: «a\u{fffd}b» is not text in UTF-8",
        ),
    ];
    for (what, input, says) in cases {
        Room::new(what)
            .file("in.csv", input)
            .job(&copy_of("{id: int64, v: string}"))
            .fails(says);
    }
}

#[test]
fn within_the_limit_bad_records_are_set_aside_and_the_others_go_on() {
    let mut input = b"id,v\n".to_vec();
    input.extend(b"1,1.5\n2,NaN\n3,--1\nx,1\n4\n5,1,2\n6,\"1\n7,\xff\n8,2.5\n");
    let job = copy_of("{id: int64, v: \"decimal(4,1)\"}") + "    on_error: {reject: {limit: 7}}\n";
    let room = Room::new("seven of nine").file("in.csv", &input).job(&job);
    let ended = room.makes(&["1,1.5", "8,2.5"]);
    let row = ended.stdout.lines().nth(1).expect("the step");
    let counts: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(counts[1..6], ["published", "9", "2", "0", "7"], "{}", ended.stdout);
    let rejects: Vec<_> = room
        .paths()
        .into_iter()
        .filter(|path| path.contains("/_gapless/rejects/"))
        .collect();
    let [file] = rejects.as_slice() else {
        panic!("{rejects:?}")
    };
    let lines: Vec<serde_json::Value> = fs::read_to_string(room.path(file))
        .expect("readable")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["line"].as_u64(), line["raw"].as_str()))
        .collect();
    let expected = [
        (3, "2,NaN"),
        (4, "3,--1"),
        (5, "x,1"),
        (6, "4"),
        (7, "5,1,2"),
        (8, "6,\"1"),
        (9, "7,\u{fffd}"),
    ];
    assert_eq!(told, expected.map(|(line, raw)| (Some(line), Some(raw))));
}

#[test]
fn infinity_and_nan_are_numbers_where_the_text_says_so() {
    Room::new("NaN of a float")
        .file("in.csv", "id,v\n1,NaN\n2,inf\n3,-inf\n")
        .job(&copy_of("{id: int64, v: float64}"))
        .makes(&["1,NaN", "2,inf", "3,-inf"]);
}

#[test]
fn sql_that_fails_on_a_value_is_told_with_the_remedy() {
    let job = "job: j\nsteps:\n  - name: a\n    source: {csv: {path: in.csv, columns: {id: int64}}}\n    transform: {sql: \"SELECT 10 / id AS tenth FROM input\"}\n    sink: {csv: {path: out/a}}\n";
    Room::new("a division by zero")
        .file("in.csv", "id\n1\n0\n")
        .job(job)
        .fails("Divide by zero error");
    let job = "job: j\nsteps:\n  - name: a\n    source: {csv: {path: in.csv}}\n    transform: {sql: SQL}\n    sink: {csv: {path: out/a}}\n";
    for (sql, says) in [
        // The record tells which of two conversions it was.
        (
            "SELECT CAST(a AS BIGINT) AS a, CAST(b AS BIGINT) AS b FROM input",
            "in.csv, line 3: transform: the SQL failed: Cast error: Cannot cast string 'x' to value of int64 type (converting column b to int64)",
        ),
        (
            "SELECT a FROM input WHERE b > 3",
            "Cannot cast string 'x' to value of int64 type (converting column b to int64)",
        ),
        (
            "SELECT CAST(upper(b) AS BIGINT) AS b FROM input",
            "Cannot cast string 'X' to value of int64 type (converting «upper(b)» to int64)",
        ),
        // Where all records are taken together, those that it may be.
        (
            "SELECT sum(CAST(a AS BIGINT)) AS a, sum(CAST(b AS BIGINT)) AS b, max(CAST(a AS DOUBLE)) AS c FROM input",
            "Cannot cast string 'x' to value of int64 type (converting column a to int64, or column b to int64)",
        ),
    ] {
        Room::new(sql)
            .file("in.csv", "a,b\n1,2\n3,x\n")
            .job(&job.replace("SQL", &format!("\"{sql}\"")))
            .fails(says);
    }
}

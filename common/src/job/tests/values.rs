//! Parameters: their values, where they may stand, and the identity that they give a run.

use std::collections::BTreeMap;

use super::{
    super::{BoundParameters, Job, JobErrors, Sink, Source, parse},
    language::REFERENCE,
};

fn bind(text: &str, given: &[(&str, &str)]) -> Result<(Job, BoundParameters), JobErrors> {
    let given: BTreeMap<_, _> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    parse(text, "job.yaml")
        .unwrap_or_else(|errors| panic!("{errors}"))
        .bind(&given)
}

/// A job with one parameter `x`, used nowhere.
fn typed(ty: &str) -> String {
    format!(
        "job: j\nparameters:\n  x: {{type: {ty}}}\nsteps:\n  - {{name: a, source: {{sequence: {{from: 0, to: 1}}}}, sink: discard}}\n"
    )
}

#[test]
fn values_have_one_text() {
    let cases = [
        ("string", "", Ok("")),
        ("string", " a ${param.x} ", Ok(" a ${param.x} ")),
        ("int64", "007", Ok("7")),
        ("int64", "-9223372036854775808", Ok("-9223372036854775808")),
        ("int64", "9223372036854775808", Err("a whole number of 64 bits")),
        ("int64", "1.0", Err("a whole number of 64 bits")),
        ("float64", "1.50", Ok("1.5")),
        ("float64", "-0", Ok("0")),
        ("float64", "NaN", Err("a finite number")),
        ("float64", "-inf", Err("a finite number")),
        ("bool", "true", Ok("true")),
        ("bool", "yes", Err("true, false")),
        ("date", "2024-02-29", Ok("2024-02-29")),
        ("date", "2026-02-29", Err("a date like 2026-11-20")),
        ("date", "2026-12-31", Ok("2026-12-31")),
        ("date", "2026-13-01", Err("a date like 2026-11-20")),
        ("date", "2026-11-00", Err("a date like 2026-11-20")),
        ("date", "+026-11-20", Err("a date like 2026-11-20")),
        ("date", "20.11.2026", Err("a date like 2026-11-20")),
        ("timestamp", "2026-11-20 07:30:00Z", Ok("2026-11-20T07:30:00")),
        ("timestamp", "2026-11-20T07:30:00.5", Ok("2026-11-20T07:30:00.500000")),
        ("timestamp", "2026-11-20T07:30:00.000", Ok("2026-11-20T07:30:00")),
        (
            "timestamp",
            "2026-11-20T24:00:00",
            Err("a time in UTC like 2026-11-20T07:30:00 or 2026-11-20T07:30:00.250"),
        ),
        (
            "timestamp",
            "2026-11-20",
            Err("a time in UTC like 2026-11-20T07:30:00 or 2026-11-20T07:30:00.250"),
        ),
    ];
    for (ty, text, expected) in cases {
        let found = bind(&typed(ty), &[("x", text)]);
        match (found, expected) {
            (Ok((_, bound)), Ok(value)) => assert_eq!(bound.values["x"], value, "{ty} {text}"),
            (Err(errors), Err(allowed)) => {
                assert_eq!(
                    errors.to_string(),
                    format!("job.yaml:3:3: parameter `x` is \"{text}\"; allowed: {allowed}")
                );
            }
            (found, _) => panic!("{ty} {text}: {found:?}"),
        }
    }
}

#[test]
fn values_that_are_missing_or_too_many_are_told() {
    let errors = bind(REFERENCE, &[("dat", "2026-11-20")]).expect_err("a value is missing");
    let expected = [
        "job.yaml:3:1: unknown parameter `dat` was given; did you mean `date`? allowed: date",
        "job.yaml:4:3: parameter `date` was not given and has no default; allowed: -p date=VALUE with a date like 2026-11-20",
    ];
    assert_eq!(errors.to_string().lines().collect::<Vec<_>>(), expected);
    let none = "{job: j, steps: [{name: a, source: {sequence: {from: 0, to: 1}}, sink: discard}]}";
    let errors = bind(none, &[("x", "1")]).expect_err("a value too many");
    assert_eq!(
        errors.to_string(),
        "job.yaml:1:1: unknown parameter `x` was given; allowed: none; this job has no parameters"
    );
}

const PLACEHOLDERS: &str = r#"job: j
parameters:
  x: {type: string}
  n: {type: int64, default: 3}
steps:
  - name: a
    source: {csv: {path: "in/${param.x}/$${param.x}-$${", delimiter: "${param.x}"}}
    partition: {hash: {column: "${param.x}"}, count: "${param.n}"}
    check: [{name: "not ${param.x}", that: "c <> '${param.x}'"}]
    transform: {sql: "SELECT c -${param.n} FROM input WHERE d = '${param.x}'"}
    sink: {csv: {path: "out/${param.n}", exists: "${param.x}"}}
"#;

#[test]
fn a_value_is_text_and_never_syntax() {
    let text = PLACEHOLDERS
        .replace(r#", delimiter: "${param.x}""#, "")
        .replace(r#", exists: "${param.x}""#, "");
    let (job, _) = bind(&text, &[("x", "a: {b}, ${param.n}")]).unwrap_or_else(|errors| panic!("{errors}"));
    let step = &job.steps[0];
    let Source::Csv(source) = &step.source else {
        panic!("{step:?}")
    };
    assert_eq!(source.paths, ["in/a: {b}, ${param.n}/${param.x}-${"]);
    assert_eq!(step.checks[0].name, "not a: {b}, ${param.n}");
    assert_eq!(
        step.sql.as_deref(),
        Some("SELECT c -3 FROM input WHERE d = 'a: {b}, ${param.n}'")
    );
    assert_eq!(step.partition.count, super::super::Count::Fixed(3));
    let Sink::Csv(sink) = &step.sink else {
        panic!("{step:?}")
    };
    assert_eq!(sink.path, "out/3");
}

#[test]
fn what_a_value_makes_of_a_field_is_checked() {
    let errors = bind(PLACEHOLDERS, &[("x", "repl'ace it"), ("n", "-1")]).expect_err("values that do not fit");
    let expected = [
        r#"job.yaml:7:70: `delimiter` in csv source is the text "${param.x}"; allowed: tab, or 1 to 8 bytes of text without a line end"#,
        r#"job.yaml:8:54: `count` in partition is the text "${param.n}"; allowed: auto, or a whole number from 1 to 100000"#,
    ];
    for line in expected {
        assert!(errors.to_string().lines().any(|found| found == line), "{errors}");
    }
}

#[test]
fn a_value_cannot_lead_out_of_the_folder_before_it() {
    let text = r#"job: j
parameters: {x: {type: string}, dir: {type: string, default: "../in"}}
steps:
  - name: a
    source: {parquet: {path: ["${param.dir}/pm-${param.x}", "../b"]}}
    sink: {csv: {path: "out/.${param.x}"}}
"#;
    // As a part of its own, and together with what stands before it.
    for (value, lines) in [
        ("../../zz", &[5, 6][..]),
        ("a/../b", &[5, 6]),
        ("a/..", &[5, 6]),
        (".", &[6]),
        ("./../b", &[5, 6]),
    ] {
        let errors = bind(text, &[("x", value)]).expect_err(value).to_string();
        for line in [5, 6] {
            let told = errors.lines().any(|error| {
                let place = format!("job.yaml:{line}:");
                let says =
                    format!("parameter `x` with the value \"{value}\" leads out of the folder that stands before it");
                error.starts_with(&place)
                    && error.contains(&says)
                    && error.contains("allowed: values without the part `..`")
            });
            assert_eq!(told, lines.contains(&line), "{value}, line {line}: {errors}");
        }
    }
    let text = text.replace("out/.$", "out/a-$");
    for value in ["a", "..a", "a..", "...", "a/b..c/d"] {
        assert!(bind(&text, &[("x", value)]).is_ok(), "{value}");
    }
    // Where a path begins with a value, that says where to go.
    assert!(bind(&text, &[("x", "a"), ("dir", "../../b/..")]).is_ok());
}

#[test]
fn a_value_cannot_break_out_of_sql() {
    let text = r#"job: j
parameters: {x: {type: string}}
steps:
  - name: a
    source: {parquet: {path: in}}
    check: [{name: c, that: "a > -${param.x}"}]
    sink: discard
"#;
    for value in ["a'b", "a\"b", "a`b", "a\\b", "a;b", "a\nb", "a--b", "/*", "*/", "-5"] {
        let errors = bind(text, &[("x", value)]).expect_err(value).to_string();
        let shown: String = value.chars().flat_map(char::escape_debug).collect();
        let expected = format!(
            "job.yaml:6:29: parameter `x` with the value \"{shown}\" cannot stand in SQL; allowed: values without quotes, backslash, semicolon, control characters and comment marks"
        );
        assert_eq!(errors, expected);
    }
    let (job, _) = bind(text, &[("x", "5")]).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(job.steps[0].checks[0].that, "a > -5");
}

#[test]
fn outputs_that_meet_by_their_values_are_told() {
    let text = r#"job: j
parameters: {x: {type: string}, y: {type: string}}
steps:
  - {name: a, source: {parquet: {path: in}}, sink: {parquet: {path: "out/${param.x}"}}}
  - {name: b, source: {parquet: {path: in}}, sink: {parquet: {path: "out/${param.y}"}}}
"#;
    bind(text, &[("x", "1"), ("y", "2")]).unwrap_or_else(|errors| panic!("{errors}"));
    let errors = bind(text, &[("x", "1"), ("y", "1")]).expect_err("one folder for two");
    assert_eq!(
        errors.to_string(),
        "job.yaml:5:69: the output `out/1` shares a place with the output `out/1` of step `a`; allowed: a folder of its own for each output"
    );
}

#[test]
fn identity_is_the_job_and_its_identifying_values() {
    let text = r#"job: j
parameters: {a: {type: int64}, b: {type: string}, note: {type: string, identifying: false, default: ""}}
steps: [{name: s, source: {sequence: {from: 0, to: 1}}, sink: discard}]
"#;
    let identity = |text: &str, given: &[(&str, &str)]| {
        let (_, bound) = bind(text, given).unwrap_or_else(|errors| panic!("{errors}"));
        (bound.identity, bound.version)
    };
    let (first, version) = identity(text, &[("a", "7"), ("b", "x")]);
    // Fixed by specification: stores keep it.
    assert_eq!(first, "a2fa70a09fc70726a4cfae5fc032867f");
    assert_eq!(
        identity(text, &[("a", "007"), ("b", "x"), ("note", "again")]),
        (first.clone(), version.clone())
    );
    assert_ne!(identity(text, &[("a", "8"), ("b", "x")]).0, first);
    assert_ne!(identity(text, &[("a", "7"), ("b", "")]).0, first);
    assert_ne!(
        identity(&text.replace("job: j", "job: k"), &[("a", "7"), ("b", "x")]).0,
        first
    );
    let other = identity(&text.replace("to: 1", "to: 2"), &[("a", "7"), ("b", "x")]);
    assert_eq!(other.0, first);
    assert_ne!(other.1, version);
}

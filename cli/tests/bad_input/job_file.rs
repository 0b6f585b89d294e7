//! Job files that cannot be. They are refused alike by every verb, before anything is made.

use crate::room::Room;

/// A step around which a fault is put.
const STEP: &str = "  - {name: a, source: {sequence: {from: 0, to: 9}}, sink: discard}\n";

#[test]
fn what_is_no_job_is_refused_with_its_place_and_what_is_allowed() {
    let job = |text: &str| format!("job: j\nsteps:\n{text}");
    let huge = format!("job: j\n#{}\n", "x".repeat(1 << 20));
    let deep = format!("job: {}", "[".repeat(5_000));
    let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\njob: *c\n";
    let cases: &[(&str, &str, &str)] = &[
        (
            "an empty file",
            "",
            "job.yaml:1:1: the job file is empty; allowed: a mapping with the keys job,",
        ),
        (
            "text",
            "hello world",
            "job.yaml:1:1: the job file is `hello world`; allowed: a mapping with the keys job,",
        ),
        ("not YAML", "job: {j\nsteps: ]", "this is not YAML: "),
        (
            "an unknown key",
            &job("  - {name: a, sauce: {sequence: {from: 0, to: 9}}, sink: discard}\n"),
            "job.yaml:3:15: unknown key `sauce` in step; did you mean `source`? allowed: name, after, source,",
        ),
        (
            "a key twice",
            &format!("job: k\n{}", job(STEP)),
            "job.yaml:2:1: duplicate key `job`, first at line 1; allowed: each key once",
        ),
        (
            "a missing key",
            &job("  - {name: a, source: {sequence: {from: 0, to: 9}}}\n"),
            "job.yaml:3:5: missing key `sink` in step; allowed: discard, or a mapping with the keys csv, ndjson, parquet, avro,",
        ),
        (
            "a wrong type",
            &job("  - {name: a, source: {sequence: {from: zero, to: 9}}, sink: discard}\n"),
            "job.yaml:3:41: `from` in sequence is `zero`; allowed: a whole number of 64 bits",
        ),
        (
            "a list for a mapping",
            &job("  - {name: a, source: [in.csv], sink: discard}\n"),
            "job.yaml:3:23: `source` in step is a list; allowed: a mapping with the keys csv, ndjson, parquet, avro,",
        ),
        (
            "a name that climbs",
            &job("  - {name: ../a, source: {sequence: {from: 0, to: 9}}, sink: discard}\n"),
            "job.yaml:3:12: `name` in step is `../a`; allowed: letters, digits, `_`, `-`, `.`, beginning with a letter or digit, at most 64",
        ),
        (
            "a job's name that climbs",
            &format!("job: ../../etc\nsteps:\n{STEP}"),
            "job.yaml:1:6: `job` in job is `../../etc`; allowed: letters, digits,",
        ),
        (
            "more than 1 MiB",
            &huge,
            "job.yaml is longer than 1048576 bytes, which no job file may be; is it data?",
        ),
        ("deep nesting", &deep, "values are nested too deep; allowed: 32 levels"),
        (
            "text that expands itself",
            bomb,
            "job.yaml:1:7: an anchor (`&name`); allowed: the value itself: job files have no anchors and aliases",
        ),
        (
            "a variable of the environment",
            &job("  - {name: a, source: {csv: {path: \"${env.HOME}/in.csv\"}}, sink: discard}\n"),
            "job.yaml:3:36: `${env.HOME}` stands only in connection and credential fields",
        ),
        (
            "an unknown parameter",
            &job("  - {name: a, source: {csv: {path: \"${param.day}.csv\"}}, sink: discard}\n"),
            "job.yaml:3:36: unknown parameter `day`; allowed: a parameter declared in `parameters`; this job has none",
        ),
        (
            "a parameter without a value",
            &format!("parameters: {{day: {{type: date}}}}\n{}", job(STEP)),
            "job.yaml:1:14: parameter `day` was not given and has no default; allowed: -p day=VALUE with a date like 2026-11-20",
        ),
    ];
    for (what, text, says) in cases {
        Room::new(what).job(text).is_refused(says);
    }
}

#[test]
fn a_file_that_is_no_text_is_told_with_its_byte() {
    let room = Room::new("binary").file("job.yaml", [b'j', b'o', b'b', 0xff]);
    room.is_refused("job.yaml is no UTF-8 text (byte 3); a job file is YAML in UTF-8");
}

#[test]
fn all_faults_are_told_at_once() {
    let room = Room::new("three").job("job: a/b\nstep: 1\nsteps: none\n");
    let ended = room.gapless(&["validate", "job.yaml"]);
    let told = ended.stderr.lines().filter(|line| line.contains("job.yaml:")).count();
    assert_eq!((ended.code, told), (Some(3), 3), "{}", ended.stderr);
}

#[test]
fn wrong_parameters_are_told_with_their_place() {
    let job = format!("job: j\nparameters: {{day: {{type: date}}}}\nsteps:\n{STEP}");
    for (given, says) in [
        (
            "day=2023-02-29",
            "parameter `day` is \"2023-02-29\"; allowed: a date like 2026-11-20",
        ),
        (
            "dya=2026-11-20",
            "job.yaml:2:1: unknown parameter `dya` was given; did you mean `day`? allowed: day",
        ),
    ] {
        let room = Room::new(given).job(&job);
        for verb in ["validate", "plan", "run"] {
            room.refuses(&[verb, "job.yaml", "-p", given], 3, says);
        }
    }
}

#[test]
fn a_job_file_that_is_not_there_or_is_no_file() {
    let room = Room::new("no job file");
    for verb in ["validate", "plan", "run"] {
        room.refuses(
            &[verb, "job.yaml"],
            4,
            "cannot read the job file job.yaml: No such file",
        );
        room.refuses(&[verb, "."], 2, "cannot read the job file .: Is a directory");
    }
}

//! Sound files: the whole language into the model, and the schema that says the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::{
    BoundParameters, Check, Compression, Count, Job, JobErrors, Partition, Partitioning, Priority, Sink, Source, Split,
    SplitBy, json_schema,
    keys::{Kind, SECTIONS},
    parse, parse_redrive,
};

/// The reference job.
pub const REFERENCE: &str = r#"# yaml-language-server: $schema=./gapless.schema.json
job: nightly-revenue
parameters:
  date: {type: date}                      # identifying: one completed run for each date
steps:
  - name: load
    source:
      csv:
        path: data/lineitem-*.csv
        columns: {l_orderkey: int64, l_quantity: "decimal(12,2)", l_shipdate: date, l_comment: string}
    partition: {key_range: {column: l_orderkey}, count: auto}
    check:
      - {name: positive quantity, that: "l_quantity > 0"}
    transform:
      sql: SELECT *, l_extendedprice * (1 - l_discount) AS revenue FROM input
    sink:
      parquet: {path: "out/revenue/${param.date}", compression: zstd}
    on_error: {retry: {attempts: 5}, reject: {limit: 1000}, partition_failed: stop}
  - name: by-supplier
    after: [load]
    source: {step: load}
    transform: {sql: "SELECT l_suppkey, sum(revenue) AS revenue FROM input GROUP BY l_suppkey"}
    sink: {csv: {path: "out/by-supplier/${param.date}", files: 1}}
"#;

/// Uses every key of the language.
pub const EVERY_KEY: &str = r#"
job: every-key.1
priority: 80
parameters:
  day: {type: date, identifying: false, default: 2026-11-20}
steps:
  - name: one
    source:
      csv:
        path: [in/a.csv, in/b-*.csv]
        columns:
          z: int8
          a: "decimal(38, 0)"
          Mixed Case: timestamp
        header: false
        delimiter: tab
        quote: none
        nulls: ["NULL", ""]
        compression: gzip
    lookups:
      region: {parquet: {path: region.parquet}}
      nation: {csv: {path: nation.csv, delimiter: "|", quote: "'"}}
      city: {csv: {path: city.csv, escape: "\\", multiline: true, newline: cr, encoding: utf-16le, comment: ";", skip_lines: 2}}
    partition:
      key_range:
        column: Mixed Case
        ranges:
          - {to: 5}
          - {from: 5, through: 9.50}
          - {null: true}
        outside: partition
    placement: {labels: {gpu: yes, zone: "a"}}
    check:
      - {name: small, that: z < 5}
    transform:
      sql: |
        SELECT z
        FROM input
    sink:
      csv:
        path: out/one
        exists: replace
        compression: zstd
        files: 3
        partition_column: part
        header: false
        delimiter: ";"
        "null": "\\N"
    on_error: {retry: {attempts: 2}, reject: {limit: unlimited}, partition_failed: continue}
  - name: two
    after: one
    source: {step: one}
    partition: {bytes: {}, count: 7}
    sink: {parquet: {path: out/two}}
  - {name: three, if_unchanged: skip, source: {sequence: {from: -5, to: 5}}, partition: {hash: {column: n}}, sink: {discard: {}}}
  - name: parted
    source: {step: two}
    sink: {csv: {path: out/parted, encoding: utf-16, line_end: crlf, split: {when: [{name: large, that: a > 5}], otherwise: small}}}
  - {name: by-value, source: {step: two}, sink: {parquet: {path: out/by-value, split: {by: a}}}}
  - {name: by-hash, source: {step: two}, sink: {csv: {path: out/by-hash, split: {hash: {columns: [a], into: 4}}}}}
  - {name: by-size, source: {step: two}, sink: {csv: {path: out/by-size, split: {rows: 1000}}}}
  - {name: ordered, source: {step: two}, sort: [z, {column: a, order: desc, nulls: first}], sink: discard}
  - {name: four, source: {step: two}, partition: {row_groups: }, sink: {discard: }}
  - {name: lines, source: {ndjson: {path: in/a.ndjson, columns: {id: int64}, required: id}}, partition: bytes, sink: {ndjson: {path: out/lines, compression: gzip}}}
  - {name: events, source: {avro: {path: in/*.avro}}, partition: bytes, lookups: {l: {avro: {path: l.avro}}}, sink: {avro: {path: out/events, compression: snappy}}}
  - {name: five, source: {parquet: {path: in/five}}, partition: {files: {}}, sink: discard}
  - {name: six, source: {parquet: {path: in/five}}, partition: {hash: {columns: [a, b]}}, sink: {parquet: {path: out/six, partition_by: [a]}}}
  - name: seven
    source:
      records:
        path: in/seven.txt
        comment: '#'
        compression: zstd
        encoding: utf-16be
        type_column: kind
        header: {tag: H, fields: [{at: 2, width: 3, align: right, pad: "*", value: abc}]}
        trailer:
          tag: T
          tag_at: 1
          fields:
            - {name: records, width: 5, type: int64, pad: zero, count: records}
            - {name: total, width: 9, type: "decimal(9,2)", point: implied, sum: amount}
        lines:
          - {tag: A, name: account, fields: [{name: id, at: 2, width: 4, type: int64}, {width: 2}]}
          - {tag: P, fields: [{name: amount, width: 8, type: "decimal(8,2)", point: implied, pad: zero}]}
    sink:
      records:
        path: out/seven
        exists: append
        files: 2
        line_end: crlf
        compression: gzip
        encoding: latin1
        delimiter: ";"
        multiline: true
        lines:
          - {tag: A, fields: [{name: id}]}
          - {tag: P, optional: true, repeats: true, fields: [{name: amount}, {value: EUR}]}
          - {tag: N, optional: true, present: noted, fields: [{name: note}]}
  - name: nine
    source: {step: two}
    sink: {report: {path: out/nine, page_rows: 50, begin: "b", header: "{{ page }}", row: "{{ a }}", footer: f, end: e, totals: [a], page_break: "--", extension: md}}
  - {name: eight, source: {records: {path: in/eight.txt, fields: [{name: id, width: 4}]}}, sink: {records: {path: out/eight, fields: [{name: id, width: 4}]}}}
  - name: eleven
    source:
      merge:
        missing_columns: fill
        by: [z, {column: a, order: desc, nulls: first}]
        unique: [z, a]
        inputs:
          - csv: {path: in/eleven.csv, header: false, columns: {z: int8}}
          - ndjson: {path: in/eleven.ndjson}
          - parquet: {path: in/eleven.parquet}
          - avro: {path: in/eleven.avro}
          - records: {path: in/eleven.txt, fields: [{name: id, width: 4}]}
          - step: two
    sink: discard
  - name: ten
    source: {sequence: {from: 0, to: 2}}
    on_error: {reject: {share: 0.25%}}
    transform:
      command: {run: [python3, score.py], format: ndjson, mode: whole, columns: {a: int64}, timeout_s: 5, output_mib: 7}
    sink: discard
"#;

/// What `gapless redrive` says beside a job file.
pub const REDRIVEN: &str = r#"{"step": "b", "number": 2, "records": "/r.csv", "places": "/p.ndjson", "columns": {"a": "int64", "b c": "string"}}"#;

/// The same of a step that merges.
pub const REDRIVEN_MERGE: &str = "{step: m, number: 1, inputs: [{records: /r-1.csv, places: /p-1.ndjson, columns: {a: int64}}, {records: \
                                  /r-2.parquet, places: /p-2.ndjson}], read_columns: [a], lookups: {l: {path: [/l-1, /l-2]}}}";

pub fn redriven(text: &str, redrive: &str) -> Result<(Job, BoundParameters), JobErrors> {
    parse_redrive(text, redrive, "job.yaml").and_then(|parsed| parsed.bind(&BTreeMap::new()))
}

pub fn bound(text: &str, given: &[(&str, &str)]) -> Job {
    let given: BTreeMap<_, _> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let bound = parse(text, "job.yaml").and_then(|parsed| parsed.bind(&given));
    bound.unwrap_or_else(|errors| panic!("{errors}")).0
}

fn check_step(job: &Job, name: &str, expected: Value) {
    let step = serde_json::to_value(job.step(name)).expect("the model is JSON");
    let step = step.as_object().expect("a step");
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&step[key], value, "{key} of step {name}");
    }
}

#[test]
fn the_reference_job_is_read() {
    let job = bound(REFERENCE, &[("date", "2026-11-20")]);
    assert_eq!(job.name, "nightly-revenue");
    check_step(
        &job,
        "load",
        json!({
            "after": [],
            "source": {"csv": {
                "paths": ["data/lineitem-*.csv"],
                "columns": [
                    ["l_orderkey", "int64"],
                    ["l_quantity", {"decimal": {"precision": 12, "scale": 2}}],
                    ["l_shipdate", "date"],
                    ["l_comment", "string"],
                ],
                "header": true, "delimiter": b',', "quote": b'"', "nulls": [""], "compression": "auto",
            }},
            "lookups": {},
            "partition": {"method": {"key_range": {"column": "l_orderkey", "ranges": [], "outside": "refuse"}}, "count": "auto"},
            "checks": [{"name": "positive quantity", "that": "l_quantity > 0"}],
            "sql": "SELECT *, l_extendedprice * (1 - l_discount) AS revenue FROM input",
            "sink": {"parquet": {
                "path": "out/revenue/2026-11-20", "exists": "fail", "compression": "zstd", "files": null,
                "partition_by": [], "partition_column": null, "header": true, "delimiter": b',', "null": "",
            }},
            "on_error": {"attempts": 5, "attempts_written": true, "reject_limit": 1000, "partition_failed": "stop"},
        }),
    );
    check_step(
        &job,
        "by-supplier",
        json!({
            "after": ["load"],
            "source": {"step": "load"},
            "partition": {"method": "auto", "count": "auto"},
            "sink": {"csv": {
                "path": "out/by-supplier/2026-11-20", "exists": "fail", "compression": "none", "files": 1,
                "partition_by": [], "partition_column": null, "header": true, "delimiter": b',', "null": "",
            }},
            "on_error": {"attempts": 5, "reject_limit": 0, "partition_failed": "stop"},
        }),
    );
}

#[test]
fn every_key_reaches_the_model() {
    let job = bound(EVERY_KEY, &[]);
    assert_eq!(job.priority, Priority(80));
    assert_eq!(
        serde_json::to_value(&job.parameters).expect("JSON"),
        json!({"day": {"ty": "date", "identifying": false, "default": "2026-11-20"}})
    );
    check_step(
        &job,
        "one",
        json!({
            "source": {"csv": {
                "paths": ["in/a.csv", "in/b-*.csv"],
                "columns": [["z", "int8"], ["a", {"decimal": {"precision": 38, "scale": 0}}], ["Mixed Case", "timestamp"]],
                "header": false, "delimiter": b'\t', "quote": null, "nulls": ["NULL", ""], "compression": "gzip",
            }},
            "lookups": {
                "region": {"parquet": {"paths": ["region.parquet"]}},
                "nation": {"csv": {
                    "paths": ["nation.csv"], "columns": [], "header": true, "delimiter": b'|', "quote": b'\'',
                    "nulls": [""], "compression": "auto",
                }},
                "city": {"csv": {
                    "paths": ["city.csv"], "columns": [], "header": true, "delimiter": b',', "quote": b'"',
                    "nulls": [""], "compression": "auto", "dialect": {
                        "escape": b'\\', "multiline": true, "newline": "cr", "encoding": "utf-16le", "comment": b';',
                        "skip_lines": 2,
                    },
                }},
            },
            "partition": {"method": {"key_range": {
                "column": "Mixed Case",
                "ranges": [
                    {"from": null, "to": "5", "through": null, "null": false},
                    {"from": "5", "to": null, "through": "9.50", "null": false},
                    {"from": null, "to": null, "through": null, "null": true},
                ],
                "outside": "partition",
            }}, "count": "auto"},
            "placement": {"gpu": "yes", "zone": "a"},
            "checks": [{"name": "small", "that": "z < 5"}],
            "sql": "SELECT z\nFROM input\n",
            "sink": {"csv": {
                "path": "out/one", "exists": "replace", "compression": "zstd", "files": 3,
                "partition_by": [], "partition_column": "part", "header": false, "delimiter": b';', "null": "\\N",
            }},
            "on_error": {"attempts": 2, "attempts_written": true, "reject_limit": null, "partition_failed": "continue"},
        }),
    );
    check_step(
        &job,
        "ten",
        json!({"sql": null, "command": {
            "run": ["python3", "score.py"], "format": "ndjson", "mode": "whole", "columns": [["a", "int64"]],
            "timeout_s": 5, "output_mib": 7,
        }, "on_error": {
            "attempts": 5, "reject_limit": null, "reject_share": 2500, "partition_failed": "stop",
        }}),
    );
    check_step(&job, "three", json!({"if_unchanged": "skip"}));
    let merge = &job.step("eleven").expect("a step").source;
    let inputs: Vec<String> = merge.inputs().iter().map(Source::shown).collect();
    assert_eq!(
        inputs,
        [
            "csv in/eleven.csv",
            "ndjson in/eleven.ndjson",
            "parquet in/eleven.parquet",
            "avro in/eleven.avro",
            "records in/eleven.txt",
            "step two"
        ]
    );
    let merge = serde_json::to_value(merge).expect("JSON");
    assert_eq!(merge["merge"]["missing_columns"], "fill");
    assert_eq!(merge["merge"]["unique"], json!(["z", "a"]));
    let order = json!([{"column": "z"}, {"column": "a", "descending": true, "nulls_first": true}]);
    assert_eq!(merge["merge"]["by"], order);
    check_step(&job, "eleven", json!({"sort": order}));
    assert_eq!(job.step("eleven").expect("a step").after, ["two"]);
    check_step(
        &job,
        "ordered",
        json!({"sort": [{"column": "z"}, {"column": "a", "descending": true, "nulls_first": true}]}),
    );
    let split = |name: &str| match &job.step(name).expect("a step").sink {
        Sink::Csv(sink) | Sink::Parquet(sink) => sink.split.clone().expect("a split"),
        other => panic!("{other:?}"),
    };
    let when = Check {
        name: "large".into(),
        that: "a > 5".into(),
    };
    for (name, by, otherwise) in [
        ("parted", SplitBy::When(vec![when]), Some("small")),
        ("by-value", SplitBy::Value("a".into()), None),
        (
            "by-hash",
            SplitBy::Hash {
                columns: vec!["a".into()],
                into: 4,
            },
            None,
        ),
        ("by-size", SplitBy::Rows(1000), None),
    ] {
        let otherwise = otherwise.map(str::to_string);
        assert_eq!(split(name), Split { by, otherwise }, "{name}");
    }
    let partition = |name: &str| job.step(name).expect("a step").partition.clone();
    let auto = |method| Partitioning {
        method,
        count: Count::Auto,
    };
    let hash = |columns: &[&str]| Partition::Hash {
        columns: columns.iter().map(|c| c.to_string()).collect(),
    };
    assert_eq!(
        partition("two"),
        Partitioning {
            method: Partition::Bytes,
            count: Count::Fixed(7)
        }
    );
    assert_eq!(partition("three"), auto(hash(&["n"])));
    assert_eq!(partition("four"), auto(Partition::RowGroups));
    assert_eq!(partition("five"), auto(Partition::Files));
    assert_eq!(partition("six"), auto(hash(&["a", "b"])));
    assert_eq!(
        job.step("three").expect("a step").source,
        Source::Sequence { from: -5, to: 5 }
    );
    assert_eq!(job.step("four").expect("a step").after, ["two"]);
    let events = job.step("events").expect("a step");
    assert_eq!(
        serde_json::to_value((&events.source, &events.lookups, &events.sink)).expect("JSON"),
        json!([
            {"avro": {"paths": ["in/*.avro"]}},
            {"l": {"avro": {"paths": ["l.avro"]}}},
            {"avro": {
                "path": "out/events", "exists": "fail", "compression": "snappy", "files": null, "partition_by": [],
                "partition_column": null, "header": true, "delimiter": b',', "null": "",
            }},
        ])
    );
    let parted = job.step("parted").expect("a step").sink.file().expect("files");
    assert!(parted.crlf && parted.encoding.name() == "utf-16");
    let seven = job.step("seven").expect("a step");
    let packed = serde_json::to_value((&seven.source, &seven.sink)).expect("JSON");
    assert_eq!(
        [
            &packed[0]["records"]["layout"]["packing"],
            &packed[1]["records"]["layout"]["packing"]
        ],
        [
            &json!({"compression": "zstd", "encoding": "utf-16be"}),
            &json!({"compression": "gzip", "encoding": "latin1"})
        ]
    );
    let lines = job.step("lines").expect("a step");
    assert_eq!(
        serde_json::to_value((&lines.source, &lines.sink)).expect("JSON"),
        json!([
            {"ndjson": {"paths": ["in/a.ndjson"], "columns": [["id", "int64"]], "required": ["id"], "compression": "auto"}},
            {"ndjson": {
                "path": "out/lines", "exists": "fail", "compression": "gzip", "files": null, "partition_by": [],
                "partition_column": null, "header": true, "delimiter": b',', "null": "",
            }},
        ])
    );
}

/// The parser knows no key beside the table (it says so in every test that uses one), the schema is
/// made of the table, and the text above uses all of it: a key that is added must be added there.
#[test]
fn schema_and_parser_know_the_same_keys() {
    let schema = json_schema();
    let text = EVERY_KEY;
    let words: BTreeSet<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    for section in SECTIONS {
        let properties = &schema["definitions"][section.name.replace(' ', "_")]["properties"];
        let shown: BTreeSet<&str> = properties
            .as_object()
            .expect("properties")
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            shown,
            section.keys.iter().map(|key| key.name).collect(),
            "{}",
            section.name
        );
        for key in section.keys {
            assert!(
                words.contains(key.name),
                "no example of `{}` in {}",
                key.name,
                section.name
            );
            let example = serde_json::from_str::<Value>(key.example);
            assert!(
                example.is_ok(),
                "the example of `{}` in {} is no JSON",
                key.name,
                section.name
            );
            if let Kind::Section(inner) | Kind::List(inner) | Kind::Map(inner) | Kind::ListOr { section: inner, .. } =
                key.kind
            {
                assert!(
                    SECTIONS.iter().any(|section| section.name == inner.name),
                    "{} is in no list",
                    inner.name
                );
            }
        }
    }
    assert_eq!(schema["properties"], schema["definitions"]["job"]["properties"]);
}

#[test]
fn compression_defaults_to_that_of_the_format() {
    let job = bound(
        "{job: j, steps: [{name: a, source: {parquet: {path: x}}, sink: {parquet: {path: y}}}]}",
        &[],
    );
    let super::super::Sink::Parquet(sink) = &job.steps[0].sink else {
        panic!("{job:?}")
    };
    assert_eq!(sink.compression, Compression::Zstd);
}

#[test]
fn a_step_comes_after_those_that_it_looks_up() {
    let job = bound(
        "job: j
steps:
  - {name: a, source: {sequence: {from: 0, to: 9}}, sink: {parquet: {path: a}}}
  - {name: b, source: {step: a}, lookups: {l: {step: c}}, sink: discard}
  - {name: c, source: {step: a}, sink: {parquet: {path: c}}}
",
        &[],
    );
    let step = job.step("b").expect("a step");
    assert_eq!(step.after, ["a", "c"]);
    assert_eq!(step.lookups["l"], super::super::Lookup::Step("c".into()));
}

#[test]
fn a_command_needs_no_more_than_a_program() {
    let text = "job: j\nsteps:\n  - name: a\n    source: {sequence: {from: 0, to: 9}}\n    sink: discard\n    transform: {command: {run: cat}}\n";
    check_step(
        &bound(text, &[]),
        "a",
        json!({"command": {
            "run": ["cat"], "format": "arrow", "mode": "rows", "columns": [], "timeout_s": 3600, "output_mib": 4096,
        }}),
    );
}

#[test]
fn a_redrive_is_one_step_over_its_records_and_another_run() {
    let job = "job: j\nsteps:\n  - {name: a, source: {csv: {path: x}}, sink: discard}\n  - {name: b, after: a, source: {csv: {path: \"in/*.csv.gz\", delimiter: \";\"}}, sink: {csv: {path: y, exists: replace}}}\n";
    let bound = |redrive: &str| redriven(job, redrive).unwrap_or_else(|errors| panic!("{errors}"));
    let identity = |redrive: &str| bound(redrive).1.identity;
    let made = bound(REDRIVEN).0;
    assert_eq!(made.steps.len(), 1);
    check_step(
        &made,
        "b",
        json!({
            "after": [],
            "source": {"csv": {
                "paths": ["/r.csv"], "columns": [["a", "int64"], ["b c", "string"]], "header": false,
                "delimiter": b';', "quote": b'"', "nulls": [""], "compression": "none", "places": "/p.ndjson",
            }},
        }),
    );
    let redrive = made.redrive.expect("it says so");
    assert_eq!((redrive.step.as_str(), redrive.number), ("b", 2));
    let others = [
        String::new(),
        REDRIVEN.replace("\"number\": 2", "\"number\": 1"),
        REDRIVEN.replace("\"step\": \"b\"", "\"step\": \"a\""),
    ];
    for other in &others {
        assert_ne!(identity(REDRIVEN), identity(other), "{other}");
    }
    // Other records for the same redrive are another version of the same run.
    let others = REDRIVEN.replace("/r.csv", "/s.csv");
    assert_eq!(identity(REDRIVEN), identity(&others));
    assert_ne!(bound(REDRIVEN).1.version, bound(&others).1.version);
    assert_ne!(bound(REDRIVEN).1.version, bound("").1.version);
}

/// However a job is written, its text is not touched: what is wrong in it stands where the user sees it.
#[test]
fn a_job_of_any_form_is_redriven_and_its_faults_keep_their_places() {
    let forms = [
        r#"{"job": "j", "steps": [{"name": "b", "source": {"csv": {"path": "x"}}, "sink": "discard"}]}"#,
        "job: j\nsteps:\n- {name: b, source: {csv: {path: x}}, sink: discard}\n...\n",
        "---\njob: j\nsteps: [{name: b, source: {csv: {path: x}}, sink: discard}] # the end",
        "  job: j\n  steps:\n  - {name: b, source: {csv: {path: x}}, sink: discard}",
    ];
    for text in forms {
        let (job, _) = redriven(text, REDRIVEN).unwrap_or_else(|errors| panic!("{text}: {errors}"));
        assert_eq!(job.redrive.expect("it is one").number, 2, "{text}");
    }
    let said = |text: &str, redrive: &str| redriven(text, redrive).expect_err("a fault").to_string();
    let fault = "job: j\nsteps:\n- {name: b, source: {csv: {path: x}}, sink: discord}\n...\n";
    assert!(
        said(fault, REDRIVEN).starts_with("job.yaml:3:"),
        "{}",
        said(fault, REDRIVEN)
    );
    assert!(!said(fault, REDRIVEN).contains("redrive"), "{}", said(fault, REDRIVEN));
    let missing = said(forms[1], &REDRIVEN.replace("\"b\"", "\"c\""));
    assert!(
        missing.starts_with("the redrive:1:10: `redrive` names the step `c`"),
        "{missing}"
    );
    // Nobody writes it into a job file.
    let written = said(&format!("{}redrive: {REDRIVEN}\n", forms[1].replace("...\n", "")), "");
    assert!(written.starts_with("job.yaml:4:1: unknown key `redrive`"), "{written}");
}

/// Records of typed sources are rows of Parquet; those of a step are in the form that its sink gave them.
#[test]
fn a_redrive_reads_records_in_the_form_in_which_they_are_kept() {
    let source = |source: &str, more: &str, redrive: &str| {
        let job = format!(
            "job: j\nsteps:\n  - {{name: e, source: {{sequence: {{from: 0, to: 9}}}}, sink: {more}}}\n  - {{name: b, source: {{{source}}}, sink: \
             discard}}\n"
        );
        let redrive = format!("{{step: b, number: 1, records: /r, places: /p{redrive}}}");
        let made = redriven(&job, &redrive).unwrap_or_else(|errors| panic!("{errors}")).0;
        assert_eq!(made.steps.len(), 1);
        assert!(made.steps[0].after.is_empty());
        serde_json::to_value(&made.steps[0].source).expect("JSON")
    };
    let parquet = json!({"parquet": {"paths": ["/r"], "places": "/p"}});
    for typed in ["parquet: {path: x}", "avro: {path: x}", "sequence: {from: 0, to: 9}"] {
        assert_eq!(source(typed, "discard", ""), parquet, "{typed}");
    }
    for sink in ["{parquet: {path: e}}", "{avro: {path: e}}"] {
        assert_eq!(source("step: e", sink, ""), parquet, "{sink}");
    }
    assert_eq!(
        source(
            "step: e",
            "{csv: {path: e, delimiter: \";\", null: none}}",
            ", columns: {n: int64}"
        ),
        json!({"csv": {
            "paths": ["/r"], "columns": [["n", "int64"]], "header": false, "delimiter": b';', "quote": b'"', "nulls": ["none"],
            "compression": "none", "dialect": {"multiline": true}, "places": "/p",
        }})
    );
    assert_eq!(
        source("step: e", "{ndjson: {path: e}}", ", columns: {n: int64}"),
        json!({"ndjson": {"paths": ["/r"], "columns": [["n", "int64"]], "required": [], "compression": "none", "places": "/p"}})
    );
    let records = source("step: e", "{records: {path: e, fields: [{name: n, width: 3}]}}", "");
    assert_eq!(
        (&records["records"]["paths"], &records["records"]["places"]),
        (&json!(["/r"]), &json!("/p"))
    );

    let merge = "job: j\nsteps:\n  - {name: e, source: {csv: {path: x}}, sink: {avro: {path: e}}}\n  - {name: m, lookups: {l: {step: e}, o: {csv: {path: o}}}, partition: {bytes: {}}, source: {merge: {inputs: [{csv: {path: x}}, {avro: {path: y}}]}}, sink: discard}\n";
    let made = redriven(merge, REDRIVEN_MERGE)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .0;
    let step = &made.steps[0];
    assert_eq!(step.partition.method, Partition::Auto);
    let Source::Merge(merge) = &step.source else {
        panic!("{step:?}")
    };
    assert_eq!(merge.read_columns, Some(vec!["a".to_string()]));
    let places: Vec<_> = merge.inputs.iter().map(Source::places).collect();
    assert_eq!(places, [Some("/p-1.ndjson"), Some("/p-2.ndjson")]);
    assert!(matches!(merge.inputs[1], Source::Parquet(_)));
    assert_eq!(
        serde_json::to_value(&step.lookups["l"]).expect("JSON"),
        json!({"avro": {"paths": ["/l-1", "/l-2"]}})
    );
    assert_eq!(step.lookups["o"].paths(), ["o"]);
}

#[test]
fn fields_keep_their_places() {
    let parsed = parse(EVERY_KEY, "job.yaml").expect("it is sound");
    let cases = [
        ("one", "transform.sql", "SELECT z"),
        ("one", "check.0.that", "z < 5}"),
        ("one", "source.csv.path.1", "in/b-*.csv]"),
        ("one", "lookups.nation", "{csv: {path: nation.csv"),
        ("one", "", "name: one"),
        // The nearest thing around what is not there.
        ("two", "transform.sql", "name: two"),
        ("three", "sink.csv", "{discard: {}}}"),
    ];
    for (step, field, expected) in cases {
        let at = parsed.position(step, field).expect("a known step");
        let line = EVERY_KEY.lines().nth(at.line as usize - 1).expect("a line of the text");
        let found = &line[at.column as usize - 1..];
        assert!(found.starts_with(expected), "{step} {field}: {found}");
    }
    assert_eq!(parsed.position("nobody", "sink"), None);
    let error = parsed.error("one", "check.0.that", "no column `z`");
    let at = parsed.position("one", "check.0.that").expect("a known step");
    assert_eq!(
        error.to_string(),
        format!("job.yaml:{}:{}: no column `z`", at.line, at.column)
    );
}

#[test]
fn an_error_about_a_word_points_at_it() {
    let text = r#"job: words
parameters: {what: {type: string, default: amount}}
steps:
  - name: one
    source: {csv: {path: in.csv}}
    partition: {hash: {columns: [city, shop]}}
    check: [{name: shop is known, that: "shop_id > 0 AND shop <> 'amount'"}]
    transform:
      sql: |
        SELECT upper('amount') AS é, amounts, amount
        FROM input WHERE ${param.what} > 0
    sink: {csv: {path: out}}
"#;
    let parsed = parse(text, "job.yaml").expect("sound");
    let at = |field: &str, word: &str| {
        let error = parsed.error_at(text, "one", field, word, "no");
        (error.at.line, error.at.column)
    };
    assert_eq!(at("transform.sql", "amount"), (10, 47));
    assert_eq!(at("transform.sql", "input"), (11, 14));
    assert_eq!(at("transform.sql", "upper"), (10, 16));
    assert_eq!(at("check.0.that", "shop"), (7, 58));
    assert_eq!(at("partition.hash.columns", "shop"), (6, 40));
    assert_eq!(at("transform.sql", "nowhere"), (10, 9), "else the text begins");
}

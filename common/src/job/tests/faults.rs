//! Each fault of a file: the message names the place, what was found and what is allowed. Every
//! expectation is the whole answer, so that a fault that is missed or told twice shows.

use super::super::{JobErrors, MAX_TEXT_BYTES, parse, parse_redrive};

fn answer(text: &str) -> String {
    match parse(text, "job.yaml") {
        Ok(parsed) => format!("job `{}` is sound", parsed.name()),
        Err(errors) => errors.to_string(),
    }
}

fn check(text: &str, expected: &[&str]) {
    assert_eq!(answer(text).lines().collect::<Vec<_>>(), expected, "\nin\n{text}");
}

/// Faults in the last lines of a step, which begin at line 6.
fn check_step(lines: &str, expected: &[&str]) {
    let step = "job: j\nsteps:\n  - name: a\n    source: {sequence: {from: 0, to: 9}}\n    sink: discard\n";
    check(&format!("{step}{lines}"), expected);
}

/// Faults of what stands beside the job.
fn check_redrive(redrive: &str, expected: &[&str]) {
    check_redrive_of("sequence: {from: 0, to: 9}", redrive, expected);
}

fn check_redrive_of(source: &str, redrive: &str, expected: &[&str]) {
    let job = format!("job: j\nsteps:\n  - {{name: a, source: {{{source}}}, sink: discard}}\n");
    let errors = parse_redrive(&job, redrive, "job.yaml")
        .expect_err("a fault")
        .to_string();
    assert_eq!(errors.lines().collect::<Vec<_>>(), expected, "\nof\n{redrive}");
}

#[test]
fn nothing_or_something_else_in_the_file() {
    check(
        "",
        &["job.yaml:1:1: the job file is empty; allowed: a mapping with the keys job, parameters, priority, steps"],
    );
    check(
        "# only a comment",
        &["job.yaml:1:1: the job file is empty; allowed: a mapping with the keys job, parameters, priority, steps"],
    );
    check(
        "hello world",
        &[
            "job.yaml:1:1: the job file is `hello world`; allowed: a mapping with the keys job, parameters, priority, steps",
        ],
    );
    check(
        "- a
- b",
        &["job.yaml:1:1: the job file is a list; allowed: a mapping with the keys job, parameters, priority, steps"],
    );
    check("{{{", &["job.yaml:1:3: this is not YAML: unclosed bracket '{'"]);
    check(
        "job: j
steps:
  - name: a
   source: {sequence: {from: 0, to: 1}}",
        &["job.yaml:4:4: this is not YAML: while parsing a block collection, did not find expected '-' indicator"],
    );
    check(
        "job: j
---
job: k",
        &["job.yaml:2:1: a second document begins with `---`; allowed: one job in a file"],
    );
    check(
        "%YAML 1.2
---
job: j",
        &["job.yaml:1:1: a YAML directive (`%NAME`); allowed: the job itself: job files have no directives"],
    );
    check(
        "job: j
steps:
  - {name: a, source: {csv: {path: in/${param.n}/x}}, sink: discard}",
        &[
            "job.yaml:3:40: this is not YAML: while parsing a flow mapping, did not find expected ',' or '}' (inside { } or [ ] a value with ${…} needs quotes)",
        ],
    );
}

#[test]
fn keys() {
    check(
        "job: j
steps:
  - name: load
    source:
      csv:
        path: in.csv
        coloumns: {a: int64}
    sink: discard",
        &[
            "job.yaml:7:9: unknown key `coloumns` in csv source; did you mean `columns`? allowed: path, columns, header, delimiter, quote, nulls, escape, multiline, newline, encoding, comment, skip_lines, compression",
        ],
    );
    check(
        "jobs: j
steps:
  - {nam: a, source: {cvs: {path: x}}, sink: {parqet: {path: y}}}",
        &[
            "job.yaml:1:1: unknown key `jobs` in job; did you mean `job`? allowed: job, parameters, priority, steps",
            "job.yaml:3:6: unknown key `nam` in step; did you mean `name`? allowed: name, after, source, lookups, partition, if_unchanged, placement, check, transform, sort, sink, on_error",
            "job.yaml:3:23: unknown key `cvs` in source; did you mean `csv`? allowed: csv, ndjson, parquet, avro, records, step, sequence, merge",
            "job.yaml:3:47: unknown key `parqet` in sink; did you mean `parquet`? allowed: csv, ndjson, parquet, avro, records, report, discard",
        ],
    );
    check(
        "job: j
job: k
steps:
  - {name: a, source: {sequence: {from: 0, to: 1}, sequence: {from: 1, to: 2}}, sink: discard}",
        &[
            "job.yaml:2:1: duplicate key `job`, first at line 1; allowed: each key once",
            "job.yaml:4:52: duplicate key `sequence`, first at line 4; allowed: each key once",
        ],
    );
    check(
        "parameters: {}",
        &[
            "job.yaml:1:1: missing key `job` in job; allowed: letters, digits, `_`, `-`, `.`, beginning with a letter or digit, at most 64",
            "job.yaml:1:1: missing key `steps` in job; allowed: a list, each item a mapping with the keys name, after, source, lookups, partition, if_unchanged, placement, check, transform, sort, sink, on_error",
        ],
    );
    check(
        "job: j
steps:
  - source: {}
    sink: {csv: {}}",
        &[
            "job.yaml:3:5: missing key `name` in step; allowed: letters, digits, `_`, `-`, `.`, beginning with a letter or digit, at most 64",
            "job.yaml:3:13: source says nothing; allowed: one of csv, ndjson, parquet, avro, records, step, sequence, merge",
            "job.yaml:4:17: missing key `path` in csv sink; allowed: the path of a folder",
        ],
    );
    check(
        "job: j
steps: []",
        &[
            "job.yaml:2:8: `steps` in job is an empty list; allowed: a list, each item a mapping with the keys name, after, source, lookups, partition, if_unchanged, placement, check, transform, sort, sink, on_error",
        ],
    );
    check(
        "job: j
steps:
  [a]: b
  ? {x: y}
  : z",
        &[
            "job.yaml:3:3: a key is a list; allowed: text as a key",
            "job.yaml:3:3: `steps` in job is a mapping; allowed: a list, each item a mapping with the keys name, after, source, lookups, partition, if_unchanged, placement, check, transform, sort, sink, on_error",
            "job.yaml:4:5: a key is a mapping; allowed: text as a key",
        ],
    );
}

#[test]
fn anchors_aliases_and_tags() {
    check(
        "a: &a [x, x]
b: &b [*a, *a]",
        &[
            "job.yaml:1:1: unknown key `a` in job; allowed: job, parameters, priority, steps",
            "job.yaml:1:1: missing key `job` in job; allowed: letters, digits, `_`, `-`, `.`, beginning with a letter or digit, at most 64",
            "job.yaml:1:1: missing key `steps` in job; allowed: a list, each item a mapping with the keys name, after, source, lookups, partition, if_unchanged, placement, check, transform, sort, sink, on_error",
            "job.yaml:1:7: an anchor (`&name`); allowed: the value itself: job files have no anchors and aliases",
            "job.yaml:2:1: unknown key `b` in job; allowed: job, parameters, priority, steps",
            "job.yaml:2:7: an anchor (`&name`); allowed: the value itself: job files have no anchors and aliases",
            "job.yaml:2:8: an alias (`*name`); allowed: the value itself: job files have no anchors and aliases",
            "job.yaml:2:12: an alias (`*name`); allowed: the value itself: job files have no anchors and aliases",
        ],
    );
    check(
        "job: !!str j
steps: *nope",
        &[
            "job.yaml:1:12: a tag (`!name`); allowed: the value itself: job files have no tags",
            "job.yaml:2:8: an alias (`*name`); allowed: the value itself: job files have no anchors and aliases",
        ],
    );
}

#[test]
fn names() {
    check(
        r#"job: ../j
steps:
  - {name: "a/b", source: {sequence: {from: 0, to: 1}}, sink: discard}
  - {name: "", source: {step: "../a"}, sink: discard}
  - {name: [x], source: {sequence: {from: 0, to: 1}}, sink: discard}
  - {name: "${param.x}", source: {sequence: {from: 0, to: 1}}, sink: discard}
  - {name: null, source: {sequence: {from: 0, to: 1}}, sink: discard}"#,
        &[
            "job.yaml:1:6: `job` in job is `../j`; allowed: letters, digits, `_`, `-`, `.`, beginning with a letter or digit, at most 64",
            "job.yaml:3:12: `name` in step is `a/b`; allowed: letters, digits, `_`, `-`, `.`, beginning with a letter or digit, at most 64",
            "job.yaml:4:12: `name` in step is ``; allowed: letters, digits, `_`, `-`, `.`, beginning with a letter or digit, at most 64",
            "job.yaml:4:31: `step` in source is `../a`; allowed: letters, digits, `_`, `-`, `.`, beginning with a letter or digit, at most 64",
            "job.yaml:5:12: `name` in step is a list; allowed: letters, digits, `_`, `-`, `.`, beginning with a letter or digit, at most 64",
            "job.yaml:6:12: `name` in step is `${param.x}`; allowed: letters, digits, `_`, `-`, `.`, beginning with a letter or digit, at most 64",
            "job.yaml:7:12: `name` in step is `null`, which YAML reads as no value (put it in quotes to mean the text); allowed: letters, digits, `_`, `-`, `.`, beginning with a letter or digit, at most 64",
        ],
    );
    check(
        "job: j
steps:
  - {name: load, source: {sequence: {from: 0, to: 1}}, sink: discard}
  - {name: sum, after: [laod, nothing], source: {step: loda}, sink: discard}
  - {name: sum, after: [load, load], source: {step: load}, sink: discard}",
        &[
            "job.yaml:4:25: unknown step `laod` in `after`; did you mean `load`? allowed: load",
            "job.yaml:4:31: unknown step `nothing` in `after`; allowed: load",
            "job.yaml:4:56: unknown step `loda` in `source`; did you mean `load`? allowed: load",
            "job.yaml:5:12: a second step `sum`, the first is at line 4; allowed: each name once",
            "job.yaml:5:31: step `load` stands twice in `after`; allowed: each step once",
            "job.yaml:5:53: step `load` has the sink `discard`, so there is nothing to read; allowed: a step whose sink keeps files",
        ],
    );
    check(
        "job: j
steps:
  - {name: a, after: [c], source: {sequence: {from: 0, to: 1}}, sink: discard}
  - {name: b, after: a, source: {sequence: {from: 0, to: 1}}, sink: discard}
  - {name: c, after: [b], source: {sequence: {from: 0, to: 1}}, sink: discard}
  - {name: d, after: [d], source: {sequence: {from: 0, to: 1}}, sink: discard}
  - {name: e, source: {step: f}, sink: {csv: {path: e}}}
  - {name: f, source: {step: e}, sink: {csv: {path: f}}}
  - {name: g, after: f, source: {step: e}, sink: {csv: {path: g}}}",
        &[
            "job.yaml:3:23: steps wait for one another in a circle: a after c after b after a; allowed: an order in which each step comes after those it needs",
            "job.yaml:6:23: step `d` names itself in `after`; allowed: another step",
            "job.yaml:7:30: steps wait for one another in a circle: e after f after e; allowed: an order in which each step comes after those it needs",
        ],
    );
}

#[test]
fn look_ups_in_steps() {
    check(
        "job: j
steps:
  - {name: a, source: {sequence: {from: 0, to: 1}}, sink: discard}
  - {name: b, source: {sequence: {from: 0, to: 1}}, sink: {csv: {path: b}}}
  - {name: c, source: {sequence: {from: 0, to: 1}}, sink: {parquet: {path: c, partition_by: [n]}}}
  - {name: d, source: {step: b}, lookups: {a: {step: a}, b: {step: b}, c: {step: c}, d: {step: d}, e: {step: ab}}, sink: discard}",
        &[
            "job.yaml:6:54: step `a` has no parquet or avro sink, so a look-up cannot read it; allowed: a step with a parquet or avro sink without `partition_by`",
            "job.yaml:6:68: step `b` has no parquet or avro sink, so a look-up cannot read it; allowed: a step with a parquet or avro sink without `partition_by`",
            "job.yaml:6:82: step `c` keeps its `partition_by` columns in folder names, which a look-up does not read back; allowed: a step with a parquet or avro sink without `partition_by`",
            "job.yaml:6:96: step `d` names itself in `lookups`; allowed: another step",
            "job.yaml:6:96: step `d` has no parquet or avro sink, so a look-up cannot read it; allowed: a step with a parquet or avro sink without `partition_by`",
            "job.yaml:6:110: unknown step `ab` in `lookups`; did you mean `a`? allowed: a, b, c",
        ],
    );
}

#[test]
fn counts() {
    check_step(
        "    partition: {count: 0}",
        &["job.yaml:6:24: `count` in partition is `0`; allowed: auto, or a whole number from 1 to 100000"],
    );
    check_step(
        "    partition: {count: -1}",
        &["job.yaml:6:24: `count` in partition is `-1`; allowed: auto, or a whole number from 1 to 100000"],
    );
    check_step(
        r#"    partition: {count: "ten"}"#,
        &[
            r#"job.yaml:6:24: `count` in partition is the text "ten"; allowed: auto, or a whole number from 1 to 100000"#,
        ],
    );
    check_step(
        "    partition: {count: 100001}",
        &["job.yaml:6:24: `count` in partition is `100001`; allowed: auto, or a whole number from 1 to 100000"],
    );
    check_step(
        r#"    partition: {count: "8"}"#,
        &[r#"job.yaml:6:24: `count` in partition is the text "8"; allowed: auto, or a whole number from 1 to 100000"#],
    );
    check_step(
        "    partition: {count: .nan}",
        &["job.yaml:6:24: `count` in partition is `.nan`; allowed: auto, or a whole number from 1 to 100000"],
    );
    check_step(
        "    partition: {count: 99999999999999999999}",
        &[
            "job.yaml:6:24: `count` in partition is `99999999999999999999`; allowed: auto, or a whole number from 1 to 100000",
        ],
    );
    check_step(
        "    partition: {count: }",
        &["job.yaml:6:22: `count` in partition is empty; allowed: auto, or a whole number from 1 to 100000"],
    );
    check_step(
        "    partition: {count: [1]}",
        &["job.yaml:6:24: `count` in partition is a list; allowed: auto, or a whole number from 1 to 100000"],
    );
}

#[test]
fn partitioning() {
    check_step(
        "    partition: row_group",
        &[
            "job.yaml:6:16: `partition` in step is `row_group`; did you mean `row_groups`? allowed: auto, bytes, files, row_groups, or a mapping with the keys bytes, files, row_groups, key_range, hash, count",
        ],
    );
    check_step(
        "    partition: hash",
        &[
            "job.yaml:6:16: `partition` in step is `hash`; allowed: auto, bytes, files, row_groups, or a mapping with the keys bytes, files, row_groups, key_range, hash, count",
        ],
    );
    check_step(
        "    partition: row_groups",
        &["job.yaml:6:16: a sequence cannot be partitioned by `row_groups`; allowed: auto, key_range, hash"],
    );
    check_step(
        "    partition: {files: , count: 3}",
        &[
            "job.yaml:6:16: a sequence cannot be partitioned by `files`; allowed: auto, key_range, hash",
            "job.yaml:6:26: a fixed `count` beside `files`, which makes one partition for each file; allowed: no count, or auto",
        ],
    );
    check_step(
        "    partition: {hash: {columns: [n, m, n]}}",
        &[
            "job.yaml:6:37: unknown column `m` in `partition`; did you mean `n`? allowed: n",
            "job.yaml:6:40: column `n` stands twice in `columns`; allowed: each column once",
        ],
    );
    check_step(
        "    partition: {hash: {columns: [], column: n}}",
        &[
            "job.yaml:6:33: `columns` in hash is an empty list; allowed: text, or a list of texts",
            "job.yaml:6:37: `column` beside `columns` in hash; allowed: one of columns, column",
        ],
    );
    check_step(
        "    partition: {hash: {}, key_range: {column: n}}",
        &[
            "job.yaml:6:27: `key_range` beside `hash` in partition; allowed: one of bytes, files, row_groups, key_range, hash",
        ],
    );
    check_step(
        "    partition: {key_range: {column: n, ranges: []}}",
        &[
            "job.yaml:6:48: `ranges` in key_range is an empty list; allowed: a list, each item a mapping with the keys from, to, through, null",
        ],
    );
    check_step(
        r#"    partition: {key_range: {column: "", outside: ignore}}"#,
        &[
            "job.yaml:6:37: `column` is empty; allowed: the name of a column",
            "job.yaml:6:41: `outside` without `ranges` in key_range; allowed: `outside` only beside `ranges`: bounds that are chosen for you leave nothing out",
            "job.yaml:6:50: `outside` in key_range is `ignore`; allowed: refuse, partition",
        ],
    );
    check_step(
        "    partition:
      key_range:
        column: n
        ranges:
          - {from: 1, to: 2, through: 3}
          - {}
          - {null: false}
          - {frm: 1}
          - {null: true}
          - {from: ~}
      count: 4",
        &[
            "job.yaml:10:30: `through` beside `to` in range; allowed: one of to, through",
            "job.yaml:11:13: a range without bounds; allowed: at least one of from, to, through; or `null: true` for NULL alone",
            "job.yaml:12:13: a range without bounds; allowed: at least one of from, to, through; or `null: true` for NULL alone",
            "job.yaml:13:14: unknown key `frm` in range; did you mean `from`? allowed: from, to, through, null",
            "job.yaml:15:20: `from` in range is `~`, which YAML reads as no value (put it in quotes to mean the text); allowed: text",
            "job.yaml:16:7: a fixed `count` beside `ranges`, which make one partition each; allowed: no count, or auto",
        ],
    );
    check(
        "job: j
steps:
  - {name: a, source: {parquet: {path: x}}, sink: {csv: {path: y, partition_by: [z]}}}
  - {name: b, source: {step: a}, sink: discard}",
        &[
            "job.yaml:4:30: step `a` keeps its `partition_by` columns in folder names, which a step does not read back; allowed: a step without `partition_by`",
        ],
    );
    check(
        "job: j
steps:
  - {name: a, source: {parquet: {path: x}}, partition: bytes, sink: {csv: {path: y}}}
  - {name: b, source: {step: a}, partition: {row_groups: }, sink: discard}
  - {name: c, source: {step: b}, sink: discard}",
        &[
            "job.yaml:3:56: Parquet files cannot be partitioned by `bytes`; allowed: auto, files, row_groups, key_range, hash",
            "job.yaml:4:45: CSV files cannot be partitioned by `row_groups`; allowed: auto, bytes, files, key_range, hash",
            "job.yaml:5:30: step `b` has the sink `discard`, so there is nothing to read; allowed: a step whose sink keeps files",
        ],
    );
    check(
        "job: j
steps:
  - {name: a, source: {avro: {path: x}}, partition: row_groups, sink: {avro: {path: y}}}
  - {name: b, source: {avro: {path: x}}, sink: {avro: {path: z, compression: gzip}}}",
        &[
            "job.yaml:3:53: Avro files cannot be partitioned by `row_groups`; allowed: auto, bytes, files, key_range, hash",
            "job.yaml:4:78: `compression` in avro sink is `gzip`; allowed: deflate, snappy, zstd, none",
        ],
    );
}

#[test]
fn sources() {
    check(
        r#"job: j
steps:
  - name: a
    source:
      csv:
        path: [a.csv, 5, {x: y}]
        columns: {a: decimal(39,2), b: "decimal(5,6)", c: "decimal(39,3)", d: integer, e: , f: [x], g: "decimal(5)", "": int8, h: Int64}
        header: yes
        delimiter: "|||||||||"
        quote: ","
        nulls: [NULL, ""]
        compression: gz
    sink: discard"#,
        &[
            "job.yaml:6:26: `path` in csv source is a mapping; allowed: a path, or a list of paths",
            r#"job.yaml:7:22: the type of column `a` is `decimal(39`; allowed: decimal(p,s) with p from 1 to 38 digits and s from 0 to p of them after the point; inside { } it needs quotes: "decimal(12,2)""#,
            "job.yaml:7:40: the type of column `b` is `decimal(5,6)`; allowed: decimal(p,s) with p from 1 to 38 digits and s from 0 to p of them after the point",
            "job.yaml:7:59: the type of column `c` is `decimal(39,3)`; allowed: decimal(p,s) with p from 1 to 38 digits and s from 0 to p of them after the point",
            "job.yaml:7:79: unknown type `integer` of column `d`; allowed: int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64, decimal(p,s), string, bool, date, timestamp",
            "job.yaml:7:89: the type of column `e` is empty; allowed: int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64, decimal(p,s), string, bool, date, timestamp",
            "job.yaml:7:96: the type of column `f` is a list; allowed: int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64, decimal(p,s), string, bool, date, timestamp",
            "job.yaml:7:104: the type of column `g` is `decimal(5)`; allowed: decimal(p,s) with p from 1 to 38 digits and s from 0 to p of them after the point",
            "job.yaml:7:118: a column with the name ``; allowed: a name, without placeholders and control characters",
            "job.yaml:7:131: unknown type `Int64` of column `h`; did you mean `int64`? allowed: int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64, decimal(p,s), string, bool, date, timestamp",
            "job.yaml:8:17: `header` in csv source is `yes`; did you mean `true`? allowed: true, false",
            r#"job.yaml:9:20: `delimiter` in csv source is the text "|||||||||"; allowed: tab, or 1 to 8 bytes of text without a line end"#,
            "job.yaml:11:17: `nulls` in csv source is `NULL`, which YAML reads as no value (put it in quotes to mean the text); allowed: text, or a list of texts",
            "job.yaml:12:22: `compression` in csv source is `gz`; did you mean `gzip`? allowed: auto, none, gzip, zstd",
        ],
    );
    check(
        r#"job: j
steps:
  - {name: a, source: {csv: {path: x, encoding: utf8, newline: crlf, skip_lines: -1}}, sink: discard}
  - {name: b, source: {csv: {path: x, escape: ","}}, sink: discard}
  - {name: c, source: {csv: {path: x, quote: none, multiline: true}}, sink: discard}
  - {name: d, source: {csv: {path: x, comment: '"'}}, sink: discard}
  - {name: e, source: {csv: {path: x, escape: '"'}}, sink: discard}
  - {name: f, source: {csv: {path: x, delimiter: "|'|", quote: "'", escape: "|"}}, sink: {csv: {path: y, delimiter: '","'}}}
  - {name: g, source: {csv: {path: x, delimiter: '#~', comment: '#'}}, sink: {csv: {path: z, delimiter: "a\nb"}}}"#,
        &[
            "job.yaml:3:49: `encoding` in csv source is `utf8`; did you mean `utf-8`? allowed: utf-8, latin1, windows-1252, utf-16, utf-16le, utf-16be",
            "job.yaml:3:64: `newline` in csv source is `crlf`; allowed: lf, cr",
            "job.yaml:3:82: `skip_lines` in csv source is `-1`; allowed: a whole number from 0 to 1000",
            "job.yaml:4:39: `,` is both delimiter and escape in csv source; allowed: two different characters",
            "job.yaml:5:52: `multiline` with `quote: none` and no `escape`, so that no field can hold a line end; allowed: multiline beside a quote or an escape",
            r#"job.yaml:6:39: `"` is both quote and comment in csv source; allowed: two different characters"#,
            r#"job.yaml:8:57: the delimiter `|'|` holds the quote `'` in csv source; allowed: two different characters"#,
            r#"job.yaml:8:69: the delimiter `|'|` holds the escape `|` in csv source; allowed: two different characters"#,
            r#"job.yaml:8:106: the delimiter `","` holds the quote `"` in csv sink; allowed: two different characters"#,
            r#"job.yaml:9:56: the delimiter `#~` holds the comment `#` in csv source; allowed: two different characters"#,
            r#"job.yaml:9:105: `delimiter` in csv sink is the text "a\nb"; allowed: tab, or 1 to 8 bytes of text without a line end"#,
        ],
    );
    check(
        r#"job: j
steps:
  - {name: a, source: {csv: {path: x, columns: {a: int64, a: int8}}}, sink: discard}
  - {name: b, source: {csv: {path: x, header: false}}, sink: discard}
  - {name: c, source: {csv: {path: x, delimiter: '"'}}, sink: discard}
  - {name: d, source: {csv: {path: []}}, sink: discard}
  - {name: e, source: {csv: {path: 'ftp://b/x'}}, sink: discard}
  - {name: f, source: {csv: {path: "a\nb"}}, sink: discard}
  - {name: g, source: {csv: {path: x}, parquet: {path: x}}, sink: discard}
  - {name: h, source: {sequence: {from: 10, to: 1}}, sink: discard}
  - {name: i, source: {sequence: {from: 1.5, to: 1e3}}, sink: discard}
  - {name: k, source: {csv: {path: x, columns: [a, b]}}, sink: discard}
  - {name: l, source: {csv: {path: x, header: false, columns: {id: int64}}}, partition: {hash: {column: idd}}, sink: discard}"#,
        &[
            "job.yaml:3:59: duplicate key `a`, first at line 3; allowed: each key once",
            "job.yaml:4:39: `header: false` without `columns` in csv source; allowed: columns, in the order of the file",
            r#"job.yaml:5:39: `"` is both delimiter and quote in csv source; allowed: two different characters"#,
            "job.yaml:6:36: `path` in csv source is an empty list; allowed: a path, or a list of paths",
            r#"job.yaml:7:36: `path` in csv source has a scheme that is not known; known are s3://, gs:// and az://: "ftp://b/x"; allowed: a path, or a list of paths"#,
            r#"job.yaml:8:36: `path` in csv source holds a control character: "a\nb"; allowed: a path, or a list of paths"#,
            "job.yaml:9:40: `parquet` beside `csv` in source; allowed: one of csv, ndjson, parquet, avro, records, step, sequence, merge",
            "job.yaml:10:45: `to` in sequence is 1, below `from`, which is 10; allowed: `to` at or above `from`",
            "job.yaml:11:41: `from` in sequence is `1.5`; allowed: a whole number of 64 bits",
            "job.yaml:11:50: `to` in sequence is `1e3`; allowed: a whole number of 64 bits",
            "job.yaml:12:48: `columns` in csv source is a list; allowed: a mapping from column names to types",
            "job.yaml:13:105: unknown column `idd` in `partition`; did you mean `id`? allowed: id",
        ],
    );
}

#[test]
fn redrives() {
    let redrive = |step: &str| format!("{{step: {step}, number: 1, records: /r, places: /p, columns: {{a: int64}}}}");
    check_redrive(
        &redrive("b"),
        &["the redrive:1:8: `redrive` names the step `b`, which the job does not have; did you mean `a`? allowed: a"],
    );
    check_redrive(
        "{step: a, number: 0}",
        &[
            "the redrive:1:1: redrive says nothing; allowed: one of records, inputs",
            "the redrive:1:19: `number` in redrive is `0`; allowed: a whole number from 1 to 10000",
        ],
    );
    check_redrive(
        "{step: a, number: 1, records: /r, columns: {a: int64}}",
        &["the redrive:1:1: missing key `places` in redrive; allowed: text"],
    );
    check_redrive(
        "{step: a, number: 1, records: /r, inputs: [{records: /r, places: /p}]}",
        &[
            "the redrive:1:1: `inputs` in the `redrive` of step `a`, which merges none; allowed: records, places, columns",
            "the redrive:1:35: `inputs` beside `records` in redrive; allowed: one of records, inputs",
        ],
    );
    check_redrive(
        "{step: a, number: 1, inputs: [{records: /r, places: /p}, {records: /r}]}",
        &["the redrive:1:58: missing key `places` in redriven input; allowed: text"],
    );
    check_redrive(
        "{step: a, number: 1, places: /p, inputs: [{records: /r, places: /p}]}",
        &[
            "the redrive:1:1: `inputs` in the `redrive` of step `a`, which merges none; allowed: records, places, columns",
            "the redrive:1:22: `places` beside `inputs` in redrive; allowed: it in each of `inputs`",
        ],
    );
    check_redrive(
        "{step: a, number: 1, inputs: [{records: /r, places: /p}]}",
        &[
            "the redrive:1:1: `inputs` in the `redrive` of step `a`, which merges none; allowed: records, places, columns",
        ],
    );
    for source in ["csv: {path: x}", "ndjson: {path: x}"] {
        check_redrive_of(
            source,
            "{step: a, number: 1, records: /r, places: /p}",
            &["the redrive:1:1: missing key `columns` in redrive; allowed: a mapping from column names to types"],
        );
    }
    for records in [
        "inputs: [{records: /r, places: /p, columns: {a: int64}}]",
        "records: /r, places: /p",
    ] {
        check_redrive_of(
            "merge: {inputs: [{csv: {path: x}}, {avro: {path: y}}]}",
            &format!("{{step: a, number: 1, {records}}}"),
            &[
                "the redrive:1:1: `redrive` of step `a`, which merges 2; allowed: `inputs`, one for each that the step merges",
            ],
        );
    }
}

#[test]
fn shares_and_skips() {
    for share in ["1", "0.12345%", "101%", "-1%", "%", "1.2.3%", "a%"] {
        check_step(
            &format!("    on_error: {{reject: {{share: \"{share}\"}}}}\n"),
            &[&format!(
                "job.yaml:6:32: `share` in reject is `{share}`; allowed: a percentage from 0% to 100% with at most four digits after the point, such as 0.1%"
            )],
        );
    }
    check_step(
        "    on_error: {reject: {share: 1%, limit: 5}}\n",
        &["job.yaml:6:36: `limit` beside `share` in reject; allowed: one of limit, share"],
    );
    check_step(
        "    if_unchanged: skip\n  - {name: b, source: {step: a}, sink: discard, if_unchanged: skip}\n",
        &[
            "job.yaml:6:5: `if_unchanged: skip` of step `a`, which another step reads; allowed: it on steps that no other reads",
            "job.yaml:7:30: step `a` has the sink `discard`, so there is nothing to read; allowed: a step whose sink keeps files",
            "job.yaml:7:49: `if_unchanged: skip` of a step that reads another, whose output is of this run; allowed: it on steps that read files",
        ],
    );
}

#[test]
fn commands() {
    check_step(
        "    transform: {sql: SELECT 1, command: {run: cat}}\n",
        &["job.yaml:6:32: `command` beside `sql` in transform; allowed: one of sql, command"],
    );
    check_step(
        "    transform: {}\n",
        &["job.yaml:6:16: transform says nothing; allowed: one of sql, command"],
    );
    check_step(
        "    transform: {command: {format: json, mode: all, timeout_s: 0, output_mib: x, columns: {a: int}, shell: true}}\n",
        &[
            "job.yaml:6:26: missing key `run` in command; allowed: text, or a list of texts",
            "job.yaml:6:35: `format` in command is `json`; did you mean `ndjson`? allowed: arrow, ndjson",
            "job.yaml:6:47: `mode` in command is `all`; allowed: rows, whole",
            "job.yaml:6:63: `timeout_s` in command is `0`; allowed: a whole number from 1 to 604800",
            "job.yaml:6:78: `output_mib` in command is `x`; allowed: a whole number from 1 to 1048576",
            "job.yaml:6:94: unknown type `int` of column `a`; did you mean `int8`? allowed: int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64, decimal(p,s), string, bool, date, timestamp",
            "job.yaml:6:100: unknown key `shell` in command; allowed: run, format, mode, columns, timeout_s, output_mib",
        ],
    );
    check_step(
        "    transform: {command: {run: [], format: ndjson}}\n    lookups: {l: {csv: {path: l.csv}}}\n",
        &[
            "job.yaml:6:26: a command with `format: ndjson` and without `columns`; allowed: columns: JSON does not tell the types of what the program writes",
            "job.yaml:6:32: `run` in command is an empty list; allowed: text, or a list of texts",
            "job.yaml:7:5: `lookups` beside `transform.command`, which gets records alone; allowed: look-ups in a step with SQL before this one",
        ],
    );
    check_step(
        "    transform: {command: {run: \"\"}}\n",
        &["job.yaml:6:32: `run` names no program; allowed: the name of a program, then its arguments"],
    );
    check_step(
        "    transform: {command: {run: cat, format: ndjson}}\n    lookups: {l: {csv: {path: l.csv}}}\n",
        &[
            "job.yaml:6:26: a command with `format: ndjson` and without `columns`; allowed: columns: JSON does not tell the types of what the program writes",
            "job.yaml:7:5: `lookups` beside `transform.command`, which gets records alone; allowed: look-ups in a step with SQL before this one",
        ],
    );
}

#[test]
fn the_rest_of_a_step() {
    check_step(
        r#"    transform: SELECT 1
    check: {name: a, that: b}
    lookups: {input: {csv: {path: y}}, "a b": {csv: {path: z}}, c: {}}
    on_error: {retry: {attempts: 0}, reject: {limit: -1}, partition_failed: quarantine}"#,
        &[
            "job.yaml:6:16: `transform` in step is `SELECT 1`; allowed: a mapping with the keys sql, command",
            "job.yaml:7:12: `check` in step is a mapping; allowed: a list, each item a mapping with the keys name, that",
            "job.yaml:8:15: a look-up with the name `input`, which is the step's own source; allowed: another name",
            "job.yaml:8:40: the name `a b` in `lookups`; allowed: letters, digits and `_`, beginning with a letter, at most 64",
            "job.yaml:8:68: lookup says nothing; allowed: one of csv, ndjson, parquet, avro, records, step",
            "job.yaml:9:34: `attempts` in retry is `0`; allowed: a whole number from 1 to 100",
            "job.yaml:9:54: `limit` in reject is `-1`; allowed: unlimited, or a whole number from 0",
            "job.yaml:9:77: `partition_failed` in on_error is `quarantine`; allowed: stop, continue",
        ],
    );
    check_step(
        r#"    transform: {sql: ""}
    check: [{name: "", that: " "}, {name: x, that: a}, {name: x, that: b}]"#,
        &[
            r#"job.yaml:6:22: `sql` in transform is empty: ""; allowed: SQL text"#,
            r#"job.yaml:7:20: a check with the name ""; allowed: text of at most 200 bytes, without control characters"#,
            r#"job.yaml:7:30: `that` in check is empty: " "; allowed: SQL text"#,
            r#"job.yaml:7:63: a second check with the name "x" in this step; allowed: each name once"#,
        ],
    );
}

#[test]
fn outputs_that_are_divided() {
    let sink = |split: &str| {
        format!(
            "job: j\nsteps:\n  - name: a\n    source: {{sequence: {{from: 0, to: 9}}}}\n    sink: {{csv: {{path: o, {split}}}}}"
        )
    };
    check(&sink("split: {by: n, otherwise: fail}"), &["job `j` is sound"]);
    check(
        &sink("split: {by: n, rows: 5}"),
        &["job.yaml:5:42: `rows` beside `by` in split; allowed: one of by, when, hash, rows"],
    );
    check(
        &sink("partition_by: [m], split: {rows: 0}"),
        &[
            "job.yaml:5:46: `split` beside `partition_by`, which both make folders; allowed: one of them",
            "job.yaml:5:60: `rows` in split is `0`; allowed: a whole number from 1",
        ],
    );
    check(
        &sink("files: 2, split: {rows: 5, otherwise: rest}"),
        &[
            "job.yaml:5:45: `rows` beside `files`, which both make files; allowed: one of them",
            "job.yaml:5:54: `otherwise` where every row has its place; allowed: `otherwise` beside `by` or `when`",
        ],
    );
    let name = "letters, digits, `_`, `-`, `.`, beginning with a letter or digit, at most 64";
    check(
        &sink("split: {when: [{name: a, that: n > 1}, {name: a, that: n > 2}, {name: ../b, that: n > 3}]}"),
        &[
            "job.yaml:5:73: a second output `a` in `split`; allowed: each name once",
            &format!("job.yaml:5:97: `name` in when is `../b`; allowed: {name}"),
        ],
    );
}

#[test]
fn the_order_of_an_output() {
    check_step(
        "    sort: [n, {column: m, order: desc, nulls: first}]",
        &["job `j` is sound"],
    );
    let item = "a list, each item the text of `column`, or a mapping with the keys column, order, nulls";
    check_step(
        "    sort: []",
        &[&format!(
            "job.yaml:6:11: `sort` in step is an empty list; allowed: {item}"
        )],
    );
    check_step(
        "    sort: [{order: down, nulls: high}, [n], \"\"]",
        &[
            "job.yaml:6:12: missing key `column` in sort; allowed: text",
            "job.yaml:6:20: `order` in sort is `down`; allowed: asc, desc",
            "job.yaml:6:33: `nulls` in sort is `high`; allowed: first, last",
            &format!("job.yaml:6:40: `sort` in step is a list; allowed: {item}"),
            "job.yaml:6:45: an empty name in `sort`; allowed: names of columns, each once",
        ],
    );
    check_step(
        "    sort: [n, {column: n, order: desc}]",
        &["job.yaml:6:24: column `n` stands twice in `sort`; allowed: names of columns, each once"],
    );
    check_step(
        "    partition: {hash: {column: n}}\n    sort: n",
        &[
            "job.yaml:6:16: a method of `partition` beside `sort`, which cuts by ranges of its first column; allowed: `partition: {count: N}`, or none",
        ],
    );
}

#[test]
fn priority_and_placement() {
    let labels =
        "a mapping from label names to values, 1 to 32 of them: letters, digits, `_`, `-`, `.`, `/`, at most 64";
    check_step(
        "    placement: {labels: {}}",
        &[&format!(
            "job.yaml:6:25: `labels` in placement is a mapping; allowed: {labels}"
        )],
    );
    check_step(
        "    placement: {labels: {gpu: a b}}",
        &[&format!(
            "job.yaml:6:25: `labels` in placement: `a b` in a label: names and values are letters, digits, `_`, `-`, `.` and `/`, \
             at most 64 bytes, and not empty; allowed: {labels}"
        )],
    );
    check_step(
        "    placement: gpu",
        &["job.yaml:6:16: `placement` in step is `gpu`; allowed: a mapping with the keys labels"],
    );
    for (priority, sound) in [
        ("1", true),
        ("100", true),
        ("0", false),
        ("101", false),
        ("high", false),
    ] {
        let text = format!(
            "{{job: j, priority: {priority}, steps: [{{name: a, source: {{sequence: {{from: 0, to: 9}}}}, sink: discard}}]}}"
        );
        let expected = match sound {
            true => "job `j` is sound".to_string(),
            false => format!("job.yaml:1:20: `priority` in job is `{priority}`; allowed: a whole number from 1 to 100"),
        };
        check(&text, &[&expected]);
    }
}

#[test]
fn sinks() {
    check(
        r#"job: j
steps:
  - {name: a, source: {sequence: {from: 0, to: 1}}, sink: discrad}
  - {name: b, source: {sequence: {from: 0, to: 1}}, sink: csv}
  - {name: c, source: {sequence: {from: 0, to: 1}}, sink: {discard: {a: b}}}
  - {name: d, source: {sequence: {from: 0, to: 1}}, sink: }
  - {name: e, source: {sequence: {from: 0, to: 1}}, sink: {parquet: {path: o, files: 0, exists: overwrite, compression: [zstd]}}}
  - {name: f, source: {sequence: {from: 0, to: 1}}, sink: {parquet: {path: p, partition_by: [d, d], partition_column: d, header: true}}}
  - {name: g, source: {sequence: {from: 0, to: 1}}, sink: {csv: {path: x/.., exists: replce, compression: snappy}}}
  - {name: h, source: {sequence: {from: 0, to: 1}}, sink: {csv: {path: /, null: NULL}}}
  - {name: i, source: {sequence: {from: 0, to: 1}}, sink: {csv: {path: "in.x/*"}}}"#,
        &[
            "job.yaml:3:59: `sink` in step is `discrad`; did you mean `discard`? allowed: discard, or a mapping with the keys csv, ndjson, parquet, avro, records, report, discard",
            "job.yaml:4:59: `sink` in step is `csv`; allowed: discard, or a mapping with the keys csv, ndjson, parquet, avro, records, report, discard",
            "job.yaml:5:69: `discard` in sink is a mapping; allowed: {}",
            "job.yaml:6:57: `sink` in step is empty; allowed: discard, or a mapping with the keys csv, ndjson, parquet, avro, records, report, discard",
            "job.yaml:7:86: `files` in parquet sink is `0`; allowed: a whole number from 1 to 100000",
            "job.yaml:7:97: `exists` in parquet sink is `overwrite`; allowed: fail, replace, append",
            "job.yaml:7:121: `compression` in parquet sink is a list; allowed: zstd, snappy, lz4, gzip, none",
            "job.yaml:8:97: column `d` stands twice in `partition_by`; allowed: each column once",
            "job.yaml:8:101: `d` is in both `partition_by` and `partition_column`; allowed: two different names",
            "job.yaml:8:122: unknown key `header` in parquet sink; allowed: path, exists, compression, files, partition_by, split, partition_column",
            r#"job.yaml:9:72: `path` in csv sink has no name of its own: "x/.."; allowed: the path of a folder"#,
            "job.yaml:9:86: `exists` in csv sink is `replce`; did you mean `replace`? allowed: fail, replace, append",
            "job.yaml:9:107: `compression` in csv sink is `snappy`; allowed: none, gzip, zstd",
            r#"job.yaml:10:72: `path` in csv sink has no name of its own: "/"; allowed: the path of a folder"#,
            "job.yaml:10:81: `null` in csv sink is `NULL`, which YAML reads as no value (put it in quotes to mean the text); allowed: text",
            r#"job.yaml:11:72: `path` in csv sink holds a wildcard: "in.x/*"; allowed: the path of a folder"#,
        ],
    );
}

#[test]
fn outputs_lie_apart() {
    check(
        r#"job: j
steps:
  - {name: a, source: {csv: {path: "data/*"}}, sink: {csv: {path: out/a}}}
  - {name: b, source: {csv: {path: in/b.csv}}, sink: {csv: {path: ./out//x/../a/}}}
  - {name: c, source: {csv: {path: in/c.csv}}, sink: {csv: {path: out/a/c}}}
  - {name: d, source: {csv: {path: in/d.csv}}, sink: {csv: {path: data/d}}}
  - {name: e, source: {csv: {path: in/e}}, sink: {csv: {path: in}}}
  - {name: f, source: {csv: {path: out/g/part-*.csv}}, sink: {csv: {path: f}}}
  - {name: g, after: [f], source: {csv: {path: x}}, lookups: {l: {csv: {path: y}}}, sink: {csv: {path: out/g}}}
  - {name: h, source: {csv: {path: same}}, sink: {csv: {path: ./same/}}}"#,
        &[
            "job.yaml:4:67: the output `./out//x/../a/` shares a place with the output `out/a` of step `a`; allowed: a folder of its own for each output",
            "job.yaml:5:67: the output `out/a/c` shares a place with the output `out/a` of step `a`; allowed: a folder of its own for each output",
            "job.yaml:6:67: the output `data/d` shares a place with the input `data/*` of step `a`; allowed: a folder apart from all inputs; `source: {step: NAME}` reads the output of a step",
            "job.yaml:7:63: the output `in` shares a place with the input `in/b.csv` of step `b`; allowed: a folder apart from all inputs; `source: {step: NAME}` reads the output of a step",
            "job.yaml:9:104: the output `out/g` shares a place with the input `out/g/part-*.csv` of step `f`; allowed: a folder apart from all inputs; `source: {step: NAME}` reads the output of a step",
            "job.yaml:10:63: the output `./same/` shares a place with the input `same` of step `h`; allowed: a folder apart from all inputs; `source: {step: NAME}` reads the output of a step",
        ],
    );
    check(
        r#"job: j
steps:
  - {name: a, source: {csv: {path: "in/**/x.csv"}}, sink: {csv: {path: in/deep/er}}}
  - {name: b, source: {csv: {path: "in2/[ab]?-*x/y"}}, sink: {csv: {path: in2/ac-xx}}}
  - {name: c, source: {csv: {path: "/in3/*"}}, sink: {csv: {path: in3/c}}}"#,
        &[
            "job.yaml:3:72: the output `in/deep/er` shares a place with the input `in/**/x.csv` of step `a`; allowed: a folder apart from all inputs; `source: {step: NAME}` reads the output of a step",
            "job.yaml:4:75: the output `in2/ac-xx` shares a place with the input `in2/[ab]?-*x/y` of step `b`; allowed: a folder apart from all inputs; `source: {step: NAME}` reads the output of a step",
        ],
    );
}

#[test]
fn parameters_and_placeholders() {
    check(
        r#"job: j
parameters:
  date: date
  n: {type: integer, default: 5}
  m: {type: int64, default: 5.5}
  d: {type: date, default: 2026-02-30}
  f: {type: float64, default: NaN, identifying: "no"}
  e: {type: string, default: "${env.HOME}"}
  t: {type: timestamp, default: 2026-11-20T24:00:00, identifying: yes}
  "x-y": {type: string}
steps:
  - {name: a, source: {csv: {path: "in/${param.date}${param.n}"}}, sink: discard}"#,
        &[
            "job.yaml:3:9: parameter `date` is `date`; allowed: a mapping with the keys type, identifying, default",
            "job.yaml:4:13: `type` in parameter is `integer`; allowed: string, int64, float64, bool, date, timestamp",
            r#"job.yaml:5:29: the default of parameter `m` is "5.5"; allowed: a whole number of 64 bits"#,
            r#"job.yaml:6:28: the default of parameter `d` is "2026-02-30"; allowed: a date like 2026-11-20"#,
            r#"job.yaml:7:31: the default of parameter `f` is "NaN"; allowed: a finite number"#,
            r#"job.yaml:7:49: `identifying` in parameter is the text "no"; did you mean `false`? allowed: true, false"#,
            "job.yaml:8:30: `default` in parameter holds a placeholder: `${env.HOME}`; allowed: a value as it is",
            r#"job.yaml:9:33: the default of parameter `t` is "2026-11-20T24:00:00"; allowed: a time in UTC like 2026-11-20T07:30:00 or 2026-11-20T07:30:00.250"#,
            "job.yaml:9:67: `identifying` in parameter is `yes`; did you mean `true`? allowed: true, false",
            "job.yaml:10:3: the name `x-y` in `parameters`; allowed: letters, digits and `_`, beginning with a letter, at most 64",
        ],
    );
    check(
        r#"job: j
parameters: {date: {type: date}}
steps:
  - name: a
    source: {csv: {path: ["${param.dat}", "${env.HOME}", "${foo}", "${param.date", "${}", "$${param.dat}"]}}
    sink: {csv: {path: {secret: x}}}
  - name: b
    source: {csv: {path: secret:foo, secret: x, columns: {"${param.date}": string}}}
    sink: discard"#,
        &[
            "job.yaml:5:27: unknown parameter `dat`; did you mean `date`? allowed: date",
            "job.yaml:5:43: `${env.HOME}` stands only in connection and credential fields; allowed: ${param.NAME} here; no source or sink of this job takes a credential",
            "job.yaml:5:58: `${foo}` stands for nothing; allowed: ${param.NAME}; `$${` for the text `${`",
            "job.yaml:5:68: `${param.date` has no closing brace; allowed: ${param.NAME}; `$${` for the text `${`",
            "job.yaml:5:84: `${}` stands for nothing; allowed: ${param.NAME}; `$${` for the text `${`",
            "job.yaml:6:24: `secret:` stands only in connection and credential fields; allowed: the value itself; no source or sink of this job takes a credential",
            "job.yaml:8:26: `secret:` stands only in connection and credential fields; allowed: the value itself; no source or sink of this job takes a credential",
            "job.yaml:8:38: `secret` in csv source stands only in connection and credential fields; allowed: path, columns, header, delimiter, quote, nulls, escape, multiline, newline, encoding, comment, skip_lines, compression",
            "job.yaml:8:59: a column with the name `${param.date}`; allowed: a name, without placeholders and control characters",
        ],
    );
    check(
        r#"job: j
steps:
  - {name: a, source: {csv: {path: "in/${param.date}"}}, sink: discard}
"#,
        &["job.yaml:3:36: unknown parameter `date`; allowed: a parameter declared in `parameters`; this job has none"],
    );
}

#[test]
fn hostile_texts_are_refused_soon() {
    let cases = [
        (
            "x".repeat(MAX_TEXT_BYTES + 1),
            "job.yaml:1:1: the job file has 1048577 bytes; allowed: at most 1048576; move long lists of values into a file and use `lookups`",
        ),
        (
            "[".repeat(MAX_TEXT_BYTES),
            "job.yaml:1:33: values are nested too deep; allowed: 32 levels",
        ),
        (
            "- ".repeat(MAX_TEXT_BYTES / 2),
            "job.yaml:1:65: values are nested too deep; allowed: 32 levels",
        ),
        (
            "{a: ".repeat(40),
            "job.yaml:1:129: values are nested too deep; allowed: 32 levels",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(answer(&text), expected);
    }
}

#[test]
fn of_very_many_faults_the_first_hundred_are_told() {
    let names: String = (0..250).map(|n| format!("s{n}, ")).collect();
    let text = format!(
        "job: j\nsteps:\n  - name: a\n    after: [{names}]\n    source: {{sequence: {{from: 0, to: 9}}}}\n    sink: discard\n"
    );
    let answer = answer(&text);
    let lines: Vec<&str> = answer.lines().collect();
    assert_eq!(lines.len(), JobErrors::MAX + 1);
    assert_eq!(lines[99], "job.yaml:4:498: unknown step `s99` in `after`");
    assert_eq!(lines[100], "and 150 more");
}

#[test]
fn an_output_may_lie_beside_inputs_that_a_glob_does_not_take_in() {
    check(
        "job: j\nsteps:\n  - {name: a, source: {csv: {path: 'data/in-*.csv'}}, sink: {csv: {path: data/out}}}\n",
        &["job `j` is sound"],
    );
}

proptest::proptest! {
    /// Any damage to a sound file is answered with places in the file, never with a panic.
    #[test]
    fn damaged_files_are_answered(
        edits in proptest::collection::vec((0..4000usize, 0..3usize, "[ -~\n\t\u{e9}]|\\$\\{|: |- |\"|'|\\{|\\}|\\[|\\]|null|~|\n  "), 1..6),
    ) {
        let mut text: Vec<char> = super::language::EVERY_KEY.chars().collect();
        for (at, removed, inserted) in edits {
            let at = at % text.len();
            let end = (at + removed).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(errors) = parse(&text, "job.yaml") {
            // A missing end stands behind the last line.
            let lines: Vec<&str> = text.split('\n').collect();
            proptest::prop_assert!(!errors.errors.is_empty());
            for error in errors.errors {
                let width = lines.get(error.at.line as usize - 1).map_or(0, |line| line.chars().count());
                proptest::prop_assert!(error.at.line as usize <= lines.len() + 1, "{}", error);
                proptest::prop_assert!(error.at.column as usize <= width + 1, "{}", error);
            }
        }
    }
}

#[test]
fn merges() {
    let merge = |merge: &str, expected: &[&str]| {
        let steps = "job: j\nsteps:\n  - {name: two, source: {sequence: {from: 0, to: 9}}, sink: discard}\n  - name: a\n    sink: discard\n";
        let (merge, beside) = merge.split_once('\n').unwrap_or((merge, ""));
        check(&format!("{steps}    source: {{merge: {merge}}}\n{beside}"), expected);
    };
    let list = "allowed: a list, each item a mapping with the keys csv, ndjson, parquet, avro, records, step";
    merge("{inputs: [{csv: {path: a}}, {csv: {path: b}}]}", &["job `j` is sound"]);
    merge(
        "{inputs: []}",
        &[&format!("job.yaml:6:30: `inputs` in merge is an empty list; {list}")],
    );
    merge(
        "{missing_columns: fill}",
        &[&format!("job.yaml:6:21: missing key `inputs` in merge; {list}")],
    );
    merge(
        "{inputs: [{sequence: {from: 0, to: 1}}]}",
        &[
            "job.yaml:6:31: input says nothing; allowed: one of csv, ndjson, parquet, avro, records, step",
            "job.yaml:6:32: unknown key `sequence` in input; allowed: csv, ndjson, parquet, avro, records, step",
        ],
    );
    merge(
        "{inputs: [{csv: {path: a}, step: two}]}",
        &["job.yaml:6:48: `step` beside `csv` in input; allowed: one of csv, ndjson, parquet, avro, records, step"],
    );
    merge(
        "{inputs: [{csv: {path: a}}], missing_columns: drop}",
        &["job.yaml:6:67: `missing_columns` in merge is `drop`; allowed: refuse, fill"],
    );
    merge(
        "{inputs: [{csv: {path: a}}], by: [id, id], unique: [a, a]}",
        &[
            "job.yaml:6:59: column `id` stands twice in `by`; allowed: names of columns, each once",
            "job.yaml:6:76: column `a` stands twice in `unique`; allowed: each column once",
        ],
    );
    merge(
        "{inputs: [{csv: {path: a}}], by: [{column: id, order: up}]}",
        &["job.yaml:6:75: `order` in by is `up`; allowed: asc, desc"],
    );
    for (beside, expected) in [
        (
            "sort: id",
            "job.yaml:7:5: `sort` beside `by` of a merge, which orders the output; allowed: one of them",
        ),
        (
            "transform: {command: {run: cat}}",
            "job.yaml:6:5: `by` of a merge beside `transform.command`; allowed: a step of its own that reads this one and sorts",
        ),
        (
            "partition: bytes",
            "job.yaml:7:16: a method of `partition` beside `by` of a merge, which cuts by ranges of its first column; allowed: \
             `partition: {count: N}`, or none",
        ),
    ] {
        merge(
            &format!("{{inputs: [{{csv: {{path: a}}}}], by: id}}\n    {beside}"),
            &[expected],
        );
    }
    let discards =
        "step `two` has the sink `discard`, so there is nothing to read; allowed: a step whose sink keeps files";
    merge("{inputs: [{step: two}]}", &[&format!("job.yaml:6:38: {discards}")]);
    merge(
        "{inputs: [{step: tow}, {csv: {path: a}}]}",
        &["job.yaml:6:38: unknown step `tow` in `source`; did you mean `two`? allowed: two"],
    );
    let of = |rest: &str, expected: &str| {
        let steps =
            "job: j\nsteps:\n  - {name: two, source: {sequence: {from: 0, to: 9}}, sink: {parquet: {path: out}}}\n";
        let merge = format!("  - {{name: a, sink: discard, source: {{merge: {{inputs: [{{step: two}}{rest}\n");
        check(&format!("{steps}{merge}"), &[expected]);
    };
    of(
        ", {step: two}]}}}",
        "job.yaml:4:76: step `two` stands twice in `inputs`; allowed: each step once",
    );
    of(
        ", {csv: {path: out/a.csv}}]}}}",
        "job.yaml:3:78: the output `out` shares a place with the input `out/a.csv` of step `a`; allowed: a folder apart from all \
         inputs; `source: {step: NAME}` reads the output of a step",
    );
    of(
        "]}}, partition: bytes}",
        "job.yaml:4:83: Parquet files cannot be partitioned by `bytes`; allowed: auto, files, row_groups, key_range, hash",
    );
    of(
        ", {csv: {path: a.csv}}]}}, partition: row_groups}",
        "job.yaml:4:105: inputs of several formats cannot be partitioned by `row_groups`; allowed: auto, bytes, files, key_range, hash",
    );
    of(
        "]}}, if_unchanged: skip}",
        "job.yaml:4:72: `if_unchanged: skip` of a step that reads another, whose output is of this run; allowed: it on steps that \
         read files",
    );
    let many = ", {csv: {path: a.csv}}".repeat(1000);
    of(
        &format!("{many}]}}}}}}"),
        "job.yaml:4:22047: 1001 inputs of a merge; allowed: at most 1000; files of one kind are one input, by a glob",
    );
}

//! Text of every kind as whole jobs on the real program: read, written, read back, and verified; what cannot be
//! read is told, and nothing is published of it.

use std::{fs, process::Output};

use gapless_tests::World;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(world: &World) -> Output {
    world.gapless(&["run", "job.yaml", "--slots", "2"])
}

/// The lines of the files that a step published.
fn lines(world: &World, output: &str) -> Vec<String> {
    let texts = world
        .files(output)
        .into_iter()
        .map(|path| fs::read_to_string(path).expect("readable"));
    texts
        .flat_map(|text| text.lines().map(str::to_string).collect::<Vec<_>>())
        .collect()
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort_unstable();
    rows
}

/// A job that fails with this code and message, and publishes nothing.
fn fails(job: &str, files: &[(&str, &[u8])], code: i32, says: &[&str]) {
    let world = World::empty();
    for (name, content) in files {
        fs::write(world.path(name), content).expect("written");
    }
    world.job(job);
    let ended = run(&world);
    let told = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(code), "{told}");
    for part in says {
        assert!(told.contains(part), "«{part}» is not in: {told}");
    }
    assert!(!world.path("out/a").exists(), "nothing is published");
}

/// What has parts is JSON in NDJSON, exact, and goes on to a step that reads it as text.
#[test]
fn lists_and_structs_are_written_as_json() {
    let world = World::with("in.csv", "id,amount\n1,2.50\n2,\n3,0.10\n", "");
    let sql = "SELECT id, make_array(amount, NULL) AS amounts, named_struct('id', id, 'tags', make_array('a \"b\"')) AS s, \
               map(['k'], [amount]) AS m FROM input";
    let sql = serde_json::to_string(sql).expect("quoted");
    world.job(&format!(
        r#"job: nested
steps:
  - name: a
    source: {{csv: {{path: in.csv, columns: {{id: int64, amount: "decimal(12,2)"}}}}}}
    transform: {{sql: {sql}}}
    sink: {{ndjson: {{path: out/a, files: 1}}}}
  - name: b
    source: {{step: a}}
    transform: {{sql: "SELECT id, s FROM input WHERE id = 2"}}
    sink: {{csv: {{path: out/b, files: 1}}}}
"#
    ));
    let ended = run(&world);
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    assert_eq!(
        lines(&world, "out/a"),
        [
            r#"{"id":1,"amounts":[2.50,null],"s":{"id":1,"tags":["a \"b\""]},"m":{"k":2.50}}"#,
            r#"{"id":2,"amounts":[null,null],"s":{"id":2,"tags":["a \"b\""]},"m":{"k":null}}"#,
            r#"{"id":3,"amounts":[0.10,null],"s":{"id":3,"tags":["a \"b\""]},"m":{"k":0.10}}"#,
        ]
    );
    let read = r#"2,"{""id"":2,""tags"":[""a \""b\""""]}""#;
    assert_eq!(lines(&world, "out/b"), ["id,s", read]);
    // Where text is all that there is, they have no place.
    let csv = fs::read_to_string(world.path("job.yaml")).expect("the job");
    let csv = csv
        .replace("ndjson: {path: out/a", "csv: {path: out/c")
        .replace("job: nested", "job: flat");
    world.job(&csv);
    let ended = run(&world);
    assert_eq!(ended.status.code(), Some(3));
    let says = "column amounts is list of decimal(12,2), which has no place in a text; use a parquet or ndjson sink, or select its parts";
    assert!(text(&ended.stderr).contains(says), "{}", text(&ended.stderr));
}

/// Every record, whatever it is written as: the same table as UTF-16 over several lines, with escapes, and as NDJSON,
/// through steps that hand it on, joined with a look-up.
#[test]
fn a_table_is_the_same_in_every_form_and_its_certificates_hold() {
    let world = World::empty();
    let note = |id: u32| match id % 3 {
        0 => format!("größer\r\n«{id}», \"said\""),
        1 => format!("a|b\\{id}"),
        _ => String::new(),
    };
    let ids = 0..30_000u32;
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let wide: String = ids
        .clone()
        .map(|id| format!("{id}\t{}\r\n", quoted(&note(id))))
        .collect();
    let wide: Vec<u8> = format!("\u{feff}id\tnote\r\n{wide}")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let escaped: String = ids
        .clone()
        .map(|id| {
            let note = note(id).replace('\\', "\\\\").replace('|', "\\|").replace('\n', "\\\n");
            format!("{id}|{}\n", note.replace('"', "\\\""))
        })
        .collect();
    let barred: String = ids.clone().map(|id| format!("{id}||{}\n", quoted(&note(id)))).collect();
    fs::write(world.path("barred.txt"), format!("id||note\n{barred}")).expect("written");
    fs::write(world.path("wide.txt"), wide).expect("written");
    fs::write(world.path("escaped.txt"), format!("a title\nid|note\n{escaped}")).expect("written");
    fs::write(
        world.path("kinds.ndjson"),
        "{\"kind\":0,\"word\":\"said\"}\n{\"kind\":1,\"word\":\"cut\"}\n",
    )
    .expect("written");
    fs::write(world.path("labels.txt"), " 0zero\n 1one \n").expect("written");
    world.job(
        r#"
job: forms
steps:
  - name: wide
    source: {csv: {path: wide.txt, delimiter: tab, encoding: utf-16, multiline: true, columns: {id: int64}, nulls: ["NULL"]}}
    partition: {hash: {column: id}, count: 3}
    sink: {ndjson: {path: out/wide, compression: zstd}}
  - name: escaped
    source: {csv: {path: escaped.txt, delimiter: "|", escape: "\\", quote: none, multiline: true, skip_lines: 1, columns: {id: int64}, nulls: ["NULL"]}}
    sink: {ndjson: {path: out/escaped}}
  - name: barred
    source: {csv: {path: barred.txt, delimiter: "||", multiline: true, columns: {id: int64}, nulls: ["NULL"]}}
    sink: {csv: {path: out/barred, delimiter: "§|"}}
  - name: joined-files
    source: {step: barred}
    sink: {csv: {path: out/joined-files, files: 1}}
  - name: again
    source: {step: joined-files}
    sink: {ndjson: {path: out/again}}
  - name: joined
    source: {step: wide}
    lookups: {kinds: {ndjson: {path: kinds.ndjson, columns: {kind: int64, word: string}, required: [kind]}}, labels: {records: {path: labels.txt, fields: [{name: kind, width: 2, type: int64}, {name: label, width: 4}]}}}
    transform: {sql: "SELECT id, note, word, label FROM input LEFT JOIN kinds ON id % 3 = kinds.kind LEFT JOIN labels ON id % 3 = labels.kind"}
    sink: {ndjson: {path: out/joined, files: 2}}
  - name: counted
    source: {step: joined}
    transform: {sql: "SELECT word, min(label) AS label, count(*) AS n, sum(length(note)) AS letters FROM input GROUP BY word"}
    sink: {csv: {path: out/counted, "null": "-", files: 1}}
"#,
    );
    let ended = run(&world);
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    let row = |id: u32| {
        format!(
            "{{\"id\":{id},\"note\":{}}}",
            serde_json::to_string(&note(id)).expect("JSON")
        )
    };
    let expected = sorted(ids.clone().map(row).collect());
    assert_eq!(sorted(lines(&world, "out/escaped")), expected);
    assert_eq!(sorted(lines(&world, "out/again")), expected);
    let letters = |kind: u32| -> usize {
        let of = ids.clone().filter(|id| id % 3 == kind);
        of.map(|id| note(id).chars().count()).sum()
    };
    assert_eq!(
        world.rows("out/counted"),
        sorted(vec![
            format!("said,zero,10000,{}", letters(0)),
            format!("cut,one,10000,{}", letters(1)),
            "-,-,10000,0".to_string(),
        ])
    );
    let verify = || world.gapless(&["verify", "forms", "--state", ".gapless"]);
    let verified = verify();
    assert!(
        verified.status.success(),
        "{}{}",
        text(&verified.stdout),
        text(&verified.stderr)
    );
    // A record that is another one is found.
    let changed = fs::read(world.path("escaped.txt")).expect("read");
    let changed = text(&changed).replacen("|a\\|b", "|a\\|c", 1);
    fs::write(world.path("escaped.txt"), changed).expect("written");
    let verified = verify();
    assert!(!verified.status.success(), "{}", text(&verified.stdout));
}

/// Killed at some moments, and started again: each object once.
#[test]
fn objects_are_read_once_whatever_dies() {
    const ROWS: u32 = 200_000;
    for chunks in [1, 5] {
        let world = World::empty();
        let objects: String = (0..ROWS)
            .map(|id| format!("{{\"id\":{id},\"note\":\"{}\"}}\n", "x".repeat(id as usize % 50)))
            .collect();
        fs::write(world.path("in.ndjson"), objects).expect("written");
        world.job(
            "job: objects\nsteps:\n  - name: a\n    source: {ndjson: {path: in.ndjson, columns: {id: int64}, required: id}}\n    partition: {bytes: {}, count: 12}\n    sink: {ndjson: {path: out/a}}\n",
        );
        let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
        gapless_tests::wait_for("the chunks to kill at", || {
            (world.manifests("a") >= chunks || !first.is_running()).then_some(())
        });
        assert!(first.kill(), "the kill at {chunks} chunks came before the end");
        let ended = run(&world);
        assert!(ended.status.success(), "{}", text(&ended.stderr));
        let mut ids: Vec<u32> = lines(&world, "out/a")
            .iter()
            .map(|row| {
                let id = row.strip_prefix("{\"id\":").and_then(|row| row.strip_suffix('}'));
                id.expect("an object").parse().expect("an id")
            })
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..ROWS).collect::<Vec<_>>(), "each object is published once");
    }
}

const OBJECTS: &str = "job: j\nsteps:\n  - name: a\n    source: {ndjson: {path: \"in.*\", columns: {id: int64, v: \"decimal(38,2)\"}, required: [id]}}\n    sink: {ndjson: {path: out/a}}\n";

#[test]
fn lines_that_are_no_objects_of_the_kind_fail_with_file_and_line() {
    let cases: &[(&[u8], &str)] = &[
        (b"{\"id\":1}\n7\n", "the line is a number: a record is an object"),
        (
            b"{\"id\":1}\n[{\"id\":1}]\n",
            "the line is a list: a record is an object",
        ),
        (
            b"{\"id\":1}\n{\"id\":2\n",
            "the line is not JSON (byte 7): the line ends within a value",
        ),
        (b"{\"id\":1}\n{\"id\":2,\"v\":NaN}\n", "the line is not JSON"),
        (
            b"{\"id\":1}\n{\"id\":2,\"v\":1e999}\n",
            "column v: «1e999» is not a decimal(38,2)",
        ),
        (
            b"{\"id\":1}\n{\"id\":9223372036854775808}\n",
            "column id: «9223372036854775808» is not a whole number",
        ),
        (
            b"{\"id\":1}\n{\"id\":2,\"v\":123456789012345678901234567890123456789}\n",
            "column v: «123456789012345678901234567890123456789» is not a decimal(38,2)",
        ),
        (
            b"{\"id\":1}\n{\"v\":2}\n",
            "column id: it is missing in the object, but the column is required",
        ),
        (
            b"{\"id\":1}\n{\"id\":null}\n",
            "column id: it is null, but the column is required",
        ),
        (b"{\"id\":1}\n{\"id\":1,\"id\":2}\n", "«id» stands twice in the object"),
        (
            b"{\"id\":1}\n{\"id\":1,\"x\":\"\xff\"}\n",
            "the line is not text in UTF-8",
        ),
    ];
    for (input, says) in cases {
        fails(OBJECTS, &[("in.ndjson", input)], 1, &["in.ndjson", "line 2", says]);
    }
}

#[test]
fn files_of_objects_that_cannot_be_read_are_told() {
    let packed = zstd::encode_all(&b"{\"id\":1}\n".repeat(100_000)[..], 1).expect("packed");
    let half = &packed[..packed.len() / 2];
    fails(
        OBJECTS,
        &[("in.ndjson.zst", half)],
        1,
        &["in.ndjson.zst: the compressed file ends too early"],
    );
    // A line of 4 GiB out of some kilobytes.
    let mut bomb = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    let piece = vec![b'7'; 1 << 20];
    (0..4096).for_each(|_| std::io::Write::write_all(&mut bomb, &piece).expect("packed"));
    let bomb = bomb.finish().expect("packed");
    let says = "in.ndjson.zst: the line at byte 0 (line 1) has no end within 16777216 bytes; this is no NDJSON file";
    fails(OBJECTS, &[("in.ndjson.zst", &bomb)], 1, &[says]);
    let open = OBJECTS.replace("columns: {id: int64, v: \"decimal(38,2)\"}, ", "");
    let says = ["in.ndjson: without `columns` in the job its first record tells them, but the line is a number"];
    fails(&open, &[("in.ndjson", b"7\n")], 1, &says);
    fails(
        &open,
        &[("in.ndjson", b"\n\n")],
        1,
        &["there is no record to tell the columns; declare `columns`"],
    );
    let says = ["the column id, which is required, is none of the source's"];
    fails(&open, &[("in.ndjson", b"{\"a\":1}\n")], 1, &says);
}

#[test]
fn text_that_is_not_what_was_declared_is_told() {
    let job = |options: &str| {
        format!(
            "job: j\nsteps:\n  - name: a\n    source: {{csv: {{path: in.csv, columns: {{id: int64}}, {options}}}}}\n    sink: {{csv: {{path: out/a}}}}\n"
        )
    };
    let says = [
        "in.csv",
        "line 3",
        "a quote is still open at the end of the file, 2 lines further on",
    ];
    let open = b"id,v\n1,a\n2,\"b\n3,c\n4,d\n";
    fails(&job("multiline: true"), &[("in.csv", open)], 1, &says);
    let says = ["in.csv: no byte order mark at the beginning, which `encoding: utf-16` needs"];
    fails(&job("encoding: utf-16"), &[("in.csv", b"id,v\n1,a\n")], 1, &says);
    let half = b"i\0d\0,\0v\0\n\x001\0,\0=\xd8x\0\n\0";
    let says = ["line 2", "column v: «\u{fffd}x» is not text in utf-16le"];
    fails(&job("encoding: utf-16le"), &[("in.csv", half)], 1, &says);
    let says = ["in.csv: a quote in the header line is still open at its end"];
    fails(&job("multiline: true"), &[("in.csv", b"id,\"v\n1,a\n")], 1, &says);
    // Nothing but a header is a table without rows.
    let world = World::empty();
    fs::write(world.path("in.csv"), "# none\nid,v\n").expect("written");
    world.job(&job("comment: '#', escape: '\\'"));
    assert!(run(&world).status.success());
    assert_eq!(world.rows("out/a"), [""; 0]);
}

/// What a csv sink writes in another encoding is that encoding's text, merged or not, and is read back as a step.
#[test]
fn a_csv_output_in_another_encoding_is_read_back() {
    let rows: String = (0..20_000).map(|id| format!("{id},größer «{id}»\n")).collect();
    for (encoding, files) in [
        ("latin1", 1),
        ("windows-1252", 2),
        ("utf-16", 1),
        ("utf-16le", 2),
        ("utf-16be", 1),
    ] {
        let end = if encoding == "utf-16" { "crlf" } else { "lf" };
        let world = World::empty();
        fs::write(world.path("in.csv"), format!("id,note\n{rows}")).expect("written");
        world.job(&format!(
            "job: enc\nsteps:\n  - {{name: a, source: {{csv: {{path: in.csv, columns: {{id: int64}}}}}}, partition: {{bytes: {{}}, count: \
             3}}, sink: {{csv: {{path: out/a, encoding: {encoding}, line_end: {end}, files: {files}}}}}}}\n  - {{name: b, source: {{step: a}}, sort: [id], \
             sink: {{csv: {{path: out/b, files: 1}}}}}}\n"
        ));
        let ended = run(&world);
        assert!(ended.status.success(), "{encoding}: {}", text(&ended.stderr));
        let back = lines(&world, "out/b").join("\n") + "\n";
        assert!(back == format!("id,note\n{rows}"), "{encoding}: read back it differs");
        if files == 1 {
            let bytes = fs::read(&world.files("out/a")[0]).expect("readable");
            let expected = format!("id,note\n{rows}");
            let expected: Vec<u8> = match encoding {
                "latin1" => expected.chars().map(|c| c as u8).collect(),
                "utf-16" => format!("\u{feff}{expected}")
                    .replace('\n', "\r\n")
                    .encode_utf16()
                    .flat_map(u16::to_le_bytes)
                    .collect(),
                _ => expected.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            };
            assert!(bytes == expected, "{encoding}: other bytes");
        }
    }
}

/// Files of one output are of one form: what `exists: append` adds has the columns and the sink of what is there.
#[test]
fn what_is_appended_has_the_columns_of_what_is_published() {
    let world = World::empty();
    let job = |name: &str, sql: &str, sink: &str| {
        format!(
            "{{job: {name}, steps: [{{name: a, source: {{sequence: {{from: 0, to: 3}}}}, transform: {{sql: \"SELECT {sql} FROM \
             input\"}}, sink: {{{sink}}}}}]}}"
        )
    };
    let all = "n AS id, 'x' AS city, CAST(n AS DECIMAL(9,2)) AS amount";
    let csv = "csv: {path: out/a, exists: append}";
    let parquet = "parquet: {path: out/b, exists: append}";
    let run = |name: &str, sql: &str, sink: &str| {
        world.job(&job(name, sql, sink));
        world.gapless(&["run", "job.yaml", "--slots", "1"])
    };
    for (name, sink) in [("first", csv), ("second", csv), ("third", parquet)] {
        let output = run(name, all, sink);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let published = || (world.files("out/a"), world.files("out/b"));
    let before = published();
    let refused = [
        (
            "n AS id",
            csv,
            "it has the columns id, city, amount, and the job gives id",
        ),
        (
            "'x' AS city, n AS id, CAST(n AS DECIMAL(9,2)) AS amount",
            csv,
            "and the job gives city, id, amount",
        ),
        (
            "n AS id, 'x' AS city, CAST(n AS DECIMAL(10,2)) AS amount",
            csv,
            "its column amount is decimal(9,2), and the job gives decimal(10,2)",
        ),
        (
            all,
            "csv: {path: out/a, exists: append, delimiter: ';'}",
            "by another sink",
        ),
        (all, "ndjson: {path: out/a, exists: append}", "by another sink"),
        (
            "n AS id",
            parquet,
            "it has the columns id, city, amount, and the job gives id",
        ),
    ];
    for (number, (sql, sink, said)) in refused.into_iter().enumerate() {
        let output = run(&format!("other-{number}"), sql, sink);
        assert_eq!(output.status.code(), Some(1), "{sql} {sink}");
        let told = text(&output.stderr);
        assert!(
            told.contains(said) && told.contains("`exists: append` adds to"),
            "{told}"
        );
        let output = world.gapless(&["plan", "job.yaml"]);
        assert!(!output.status.success() && (text(&output.stderr) + &text(&output.stdout)).contains(said));
        assert_eq!(published(), before, "{sql} {sink}");
    }
    // Where columns are found by their names, their order is free; how files are packed is, too.
    let other_order = "'x' AS city, n AS id, CAST(n AS DECIMAL(9,2)) AS amount";
    for (name, sql, sink) in [
        ("fourth", other_order, parquet),
        (
            "fifth",
            all,
            "csv: {path: out/a, exists: append, files: 1, compression: gzip}",
        ),
    ] {
        let output = run(name, sql, sink);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert_ne!(published(), before);
}

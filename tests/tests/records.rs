//! Files of record layouts, and reports, on real processes: what is read comes back byte by byte, whatever the
//! cut and whatever dies; totals that do not agree publish nothing.

use std::fs;

use gapless_tests::World;

const RECORDS: u64 = 6_000;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn draw(number: u64, salt: u64) -> u64 {
    (number.wrapping_mul(31) + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33
}

/// A layout as the job file has it, what only a source or only a sink says, and a file.
struct Layout {
    name: &'static str,
    layout: &'static str,
    only_sink: &'static str,
    file: String,
}

/// Accounts and payments with places and widths, between a header and a trailer with totals.
fn fixed() -> Layout {
    let mut file = "HACCOUNTS\n".to_string();
    let mut cents = 0;
    for number in 0..RECORDS {
        if draw(number, 1).is_multiple_of(3) {
            let city = ["Oslo", "Zürich", "Reykjavík", ""][draw(number, 2) as usize % 4];
            file.push_str(&format!("ACC{number:08}{city:<10}  \n"));
        } else {
            let amount = draw(number, 3) as i64 % 1_000_000 - 300_000;
            cents += amount;
            file.push_str(&format!("PAY{number:08}{amount:012}\n"));
        }
    }
    file.push_str(&format!("T{RECORDS:07}{cents:015}\n"));
    Layout {
        name: "fixed",
        layout: r#"header: {tag: H, fields: [{value: ACCOUNTS}]}, trailer: {tag: T, fields: [{name: records, width: 7, type:
            int64, pad: zero, count: records}, {name: cents, width: 15, type: "decimal(15,2)", point: implied, pad: zero, sum:
            amount}]}, lines: [{tag: ACC, fields: [{name: id, width: 8, type: int64, pad: zero}, {name: city, width: 10}, {width:
            2}]}, {tag: PAY, fields: [{name: id, width: 8, type: int64, pad: zero}, {name: amount, width: 12, type:
            "decimal(12,2)", point: implied, pad: zero}]}]"#,
        only_sink: "",
        file,
    }
}

/// Orders of several lines, between delimiters.
fn orders() -> Layout {
    let mut file = "FH;orders\n".to_string();
    let (mut lines, mut pieces) = (0, 0);
    for number in 0..RECORDS / 4 {
        file.push_str(&format!("O;{number};2026-11-{:02}\n", number % 28 + 1));
        if draw(number, 1).is_multiple_of(2) {
            let note = ["", "by \"hand\"", "fast, please"][draw(number, 2) as usize % 3];
            file.push_str(&format!("N;{note}\n"));
            lines += 1;
        }
        for item in 0..draw(number, 3) % 5 {
            let count = draw(number, 4 + item) % 9;
            file.push_str(&format!("I;sku-{item};{count};{}.{:02}\n", count * 3, number % 100));
            lines += 1;
            pieces += count;
        }
        file.push_str("E;end\n");
        lines += 2;
    }
    file.push_str(&format!("FT;{};{lines};{pieces}\n", RECORDS / 4));
    Layout {
        name: "orders",
        layout: r#"delimiter: ";", multiline: true, header: {tag: FH, fields: [{value: orders}]}, trailer: {tag: FT, fields:
            [{name: orders, type: int64, count: records}, {name: lines, type: int64, count: lines}, {name: pieces, type: int64,
            sum: item.pieces}]}, lines: [{tag: O, fields: [{name: id, type: int64}, {name: day, type: date}]}, {tag: N, optional:
            true, present: noted, fields: [{name: note}]}, {tag: I, name: item, optional: true, repeats: true, fields: [{name:
            sku}, {name: pieces, type: int64}, {name: price, type: "decimal(8,2)"}]}, {tag: E, fields: [{value: end}]}]"#,
        only_sink: "",
        file,
    }
}

/// Lines of one type that end with a carriage return, without header and trailer.
fn plain() -> Layout {
    let lines = (0..RECORDS).map(|number| format!("{number}\t{}\r\n", draw(number, 1).is_multiple_of(2)));
    Layout {
        name: "plain",
        layout: "delimiter: tab, fields: [{name: id, type: int64}, {name: even, type: bool}]",
        only_sink: "files: 1, line_end: crlf,",
        file: lines.collect(),
    }
}

impl Layout {
    fn copy(&self, world: &World) {
        fs::write(world.path("in.txt"), &self.file).expect("written");
        let Layout { layout, only_sink, .. } = self;
        world.job(&format!(
            "{{job: copy, steps: [{{name: copy, source: {{records: {{path: in.txt, {layout}}}}}, partition: {{bytes: {{}}, count: \
             9}}, sink: {{records: {{path: out/copy, {only_sink} {layout}}}}}}}]}}"
        ));
    }

    fn check(&self, world: &World) {
        let files = world.files("out/copy");
        assert_eq!(files.len(), 1, "{}: one file", self.name);
        let copy = fs::read_to_string(&files[0]).expect("readable");
        let differs = copy.lines().zip(self.file.lines()).find(|(copy, line)| copy != line);
        assert!(copy == self.file, "{}: the copy differs: {differs:?}", self.name);
    }
}

#[test]
fn a_layout_comes_back_byte_by_byte_also_after_a_kill() {
    for layout in [fixed(), orders(), plain()] {
        let world = World::empty();
        layout.copy(&world);
        let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
        gapless_tests::wait_for("chunks to kill at", || {
            (world.manifests("copy") >= 3 || !first.is_running()).then_some(())
        });
        assert!(first.kill(), "{}: the kill came before the end", layout.name);
        let output = world.gapless(&["run", "job.yaml", "--workers", "2", "--slots", "1"]);
        assert!(output.status.success(), "{}: {}", layout.name, text(&output.stderr));
        layout.check(&world);
        let verified = world.gapless(&["verify", "--certificate", "out/copy"]);
        assert!(verified.status.success(), "{}: {}", layout.name, text(&verified.stderr));
    }
}

/// The bytes of a text in an encoding of the job's words.
fn encoded(text: &str, encoding: &str) -> Vec<u8> {
    match encoding {
        "latin1" => text
            .chars()
            .map(|c| u8::try_from(u32::from(c)).expect("in latin1"))
            .collect(),
        "utf-16be" => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        "utf-16" => format!("\u{feff}{text}")
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect(),
        _ => text.as_bytes().to_vec(),
    }
}

/// Files that are compressed and in another encoding: what is unpacked of the copy is the file, byte by byte, totals
/// and all.
#[test]
fn a_packed_layout_comes_back_byte_by_byte() {
    for (encoding, compression, ending) in [
        ("latin1", "gzip", ".txt.gz"),
        ("utf-16", "zstd", ".txt.zst"),
        ("utf-16be", "none", ".txt"),
        ("utf-8", "zstd", ".txt.zst"),
    ] {
        for layout in [fixed(), orders(), plain()] {
            let world = World::empty();
            let bytes = encoded(&layout.file, encoding);
            let packed = match compression {
                "none" => bytes.clone(),
                // The source's compression goes by its name, which is that of zstd.
                _ => zstd::encode_all(&bytes[..], 1).expect("packed"),
            };
            let name = if compression == "none" { "in.txt" } else { "in.txt.zst" };
            fs::write(world.path(name), packed).expect("written");
            let Layout {
                layout: lines,
                only_sink,
                ..
            } = &layout;
            world.job(&format!(
                "{{job: copy, steps: [{{name: packed, source: {{records: {{path: \
                 {name}, encoding: {encoding}, {lines}}}}}, sink: {{records: {{path: out/copy, {only_sink} compression: {compression}, \
                 encoding: {encoding}, {lines}}}}}}}, {{name: again, source: {{step: packed}}, sink: {{records: {{path: out/again, \
                 {only_sink} {lines}}}}}}}]}}"
            ));
            let output = world.gapless(&["run", "job.yaml", "--slots", "2"]);
            let what = format!("{} in {encoding}, {compression}", layout.name);
            assert!(output.status.success(), "{what}: {}", text(&output.stderr));
            let files = world.files("out/copy");
            assert_eq!(files.len(), 1, "{what}: one file");
            assert!(
                files[0].to_string_lossy().ends_with(ending),
                "{what}: {}",
                files[0].display()
            );
            let copy = fs::read(&files[0]).expect("readable");
            let copy = match compression {
                "zstd" => zstd::decode_all(&copy[..]).expect("unpacked"),
                "gzip" => {
                    let mut unpacked = Vec::new();
                    let unpack = std::process::Command::new("gzip").arg("-dc").arg(&files[0]).output();
                    unpacked.extend(unpack.expect("gzip").stdout);
                    unpacked
                }
                _ => copy,
            };
            assert!(copy == bytes, "{what}: the copy differs");
            let again = fs::read_to_string(&world.files("out/again")[0]).expect("readable");
            assert!(again == layout.file, "{what}: read as a step it differs");
            let verified = world.gapless(&["verify", "--certificate", "out/copy"]);
            assert!(verified.status.success(), "{what}: {}", text(&verified.stderr));
        }
    }
}

#[test]
fn packed_records_that_are_damaged_or_have_no_place_in_an_encoding_are_told() {
    let check = |name: &str, bytes: &[u8], source: &str, sink: &str, says: &str| {
        let world = World::empty();
        fs::write(world.path(name), bytes).expect("written");
        let fields = "fields: [{name: id, width: 3, type: int64}, {name: t, width: 5}]";
        world.job(&format!(
            "{{job: told, steps: [{{name: a, source: {{records: {{path: {name}, {source} {fields}}}}}, sink: {{{sink}}}}}]}}"
        ));
        let output = world.gapless(&["run", "job.yaml"]);
        let told = text(&output.stderr);
        assert!(
            !output.status.success() && told.contains(says),
            "«{says}» is not in: {told}"
        );
        assert!(!world.path("out/a").exists(), "nothing is published");
    };
    let records = "records: {path: out/a, fields: [{name: id, width: 3}, {name: t, width: 5}], encoding: latin1}";
    let csv = "csv: {path: out/a, encoding: windows-1252}";
    let line = "001€ 12 \n".as_bytes();
    let packed = zstd::encode_all(&line.repeat(1000)[..], 1).expect("packed");
    check(
        "in.zst",
        &packed[..packed.len() - 5],
        "",
        records,
        "in.zst: the compressed file ends too early: it is cut off",
    );
    check(
        "in.gz",
        line,
        "",
        records,
        "in.gz: this is no gzip file, though its name or `compression` says so",
    );
    check(
        "in.txt",
        line,
        "",
        records,
        "the character «€» (U+20AC), in «1  € 12 », is none of latin1",
    );
    check(
        "in.txt",
        "001😀   x\n".as_bytes(),
        "",
        csv,
        "the character «😀» (U+1F600)",
    );
    check(
        "in.txt",
        line,
        "encoding: utf-16,",
        records,
        "in.txt: no byte order mark at the beginning",
    );
    let bomb = zstd::encode_all(&vec![b' '; 40 << 20][..], 1).expect("packed");
    check(
        "in.zst",
        &bomb,
        "",
        records,
        "in.zst: the record at byte 0 has no end within 16777216 bytes",
    );
}

#[test]
fn a_total_that_does_not_agree_publishes_nothing() {
    let records = format!("T{RECORDS:07}");
    let off_by_one = format!("T{:07}", RECORDS + 1);
    let layout = fixed();
    let trailer = layout.file.lines().last().expect("a trailer").to_string();
    let cents: i64 = trailer[8..].parse().expect("a sum");
    let amount = |cents: i64| format!("{}.{:02}", cents / 100, cents % 100);
    let cases = [
        (
            trailer.replace(&records, &off_by_one),
            format!(
                "in.txt: `records` of the trailer, the number of records is declared as {}, counted were {RECORDS}; nothing is \
                 published",
                RECORDS + 1
            ),
        ),
        (
            format!("{records}{:015}", cents + 1),
            format!(
                "in.txt: `cents` of the trailer, the sum of amount is declared as {}, counted were {}; nothing is published",
                amount(cents + 1),
                amount(cents)
            ),
        ),
    ];
    for (wrong, said) in cases {
        let world = World::empty();
        let layout = fixed();
        let layout = Layout {
            file: layout.file.replace(&trailer, &wrong),
            ..layout
        };
        layout.copy(&world);
        let output = world.gapless(&["run", "job.yaml", "--workers", "2", "--slots", "1"]);
        assert_eq!(output.status.code(), Some(1), "{wrong}");
        assert!(
            text(&output.stderr).contains(&said),
            "{said}\nin\n{}",
            text(&output.stderr)
        );
        assert!(!world.path("out/copy").exists(), "nothing is published");
    }
}

/// The check holds whichever way the records go: through the exchange, into no file, filtered away.
#[test]
fn totals_are_checked_whatever_becomes_of_the_records() {
    let ways = [
        "sink: discard",
        "partition: {hash: {columns: [id]}, count: 3}, sink: {parquet: {path: out/a}}",
        "partition: {key_range: {column: id}, count: 3}, sink: discard",
        "transform: {sql: \"SELECT id FROM input WHERE id < 0\"}, sink: {csv: {path: out/a}}",
        "transform: {sql: \"SELECT sum(pieces) AS pieces FROM (SELECT unnest(item)['pieces'] AS pieces FROM input)\"}, sink: \
         {csv: {path: out/a}}",
    ];
    for way in ways {
        for (wrong, code) in [(false, 0), (true, 1)] {
            let world = World::empty();
            let layout = orders();
            let end = format!("FT;{}", RECORDS / 4);
            let other = format!("FT;{}", RECORDS / 4 - 1);
            let file = match wrong {
                true => layout.file.replace(&end, &other),
                false => layout.file.clone(),
            };
            fs::write(world.path("in.txt"), file).expect("written");
            let layout = layout.layout;
            world.job(&format!(
                "{{job: totals, steps: [{{name: a, source: {{records: {{path: in.txt, {layout}}}}}, {way}}}]}}"
            ));
            let output = world.gapless(&["run", "job.yaml", "--slots", "1"]);
            assert_eq!(output.status.code(), Some(code), "{way}: {}", text(&output.stderr));
            let said = text(&output.stderr)
                .contains("`orders` of the trailer, the number of records is declared as 1499, counted were 1500");
            assert_eq!(said, wrong, "{way}: {}", text(&output.stderr));
            let published = !wrong && !way.contains("discard");
            assert_eq!(world.path("out/a").exists(), published, "{way}");
        }
    }
}

/// A rule about each line of a record rejects that record alone.
#[test]
fn a_rule_about_each_line_rejects_its_record() {
    let world = World::empty();
    let layout = orders();
    let broken = layout.file.replacen("I;sku-1;", "I;sku-x;", 1);
    assert_ne!(broken, layout.file);
    fs::write(world.path("in.txt"), broken).expect("written");
    let layout = layout.layout;
    world.job(&format!(
        "{{job: rules, steps: [{{name: a, source: {{records: {{path: in.txt, {layout}}}}}, check: [{{name: known, that: \"NOT \
         coalesce(array_any_match(item, i -> i['sku'] = 'sku-x'), false)\"}}], transform: {{sql: \"SELECT id FROM input\"}}, sink: \
         {{csv: {{path: out/a}}}}, on_error: {{reject: {{limit: 1}}}}}}]}}"
    ));
    let output = world.gapless(&["run", "job.yaml", "--slots", "1"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(world.rows("out/a").len() as u64, RECORDS / 4 - 1);
}

#[test]
fn a_file_without_its_trailer_is_refused_before_any_work() {
    let world = World::empty();
    let layout = fixed();
    let cut = layout.file.len() - 40;
    let layout = Layout {
        file: layout.file[..cut].to_string(),
        ..layout
    };
    layout.copy(&world);
    let output = world.gapless(&["run", "job.yaml", "--slots", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let said = "in.txt: the trailer is missing: the last line,";
    assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    assert!(!world.path("out/copy").exists() && world.manifests("copy") == 0);
}

/// The filling of a field is taken off when it is read, and nothing else may go with it.
#[test]
fn a_text_that_looks_like_the_filling_of_its_field_is_refused() {
    let job = |value: &str, field: &str| {
        format!(
            "{{job: pad, steps: [{{name: a, source: {{sequence: {{from: 0, to: 2}}}}, transform: {{sql: \"SELECT {value} AS x FROM \
             input\"}}, sink: {{records: {{path: out/a, fields: [{{name: x, width: 6, {field}}}, {{value: '.', width: 1}}]}}}}}}]}}"
        )
    };
    let refused = [
        ("'x '", "type: string", "«x » ends with what fills the field (« »)"),
        ("'  '", "type: string", "ends with"),
        (
            "'00'",
            "pad: zero, align: right",
            "«00» begins with what fills the field («0»)",
        ),
        ("' x'", "align: right", "begins with"),
        ("'x*'", "pad: '*'", "ends with"),
        ("'      '", "pad: '*'", "would be read back as another value"),
    ];
    for (value, field, said) in refused {
        let world = World::empty();
        world.job(&job(value, field));
        let output = world.gapless(&["run", "job.yaml", "--slots", "1"]);
        assert_eq!(output.status.code(), Some(1), "{value} {field}");
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
        assert!(!world.path("out/a").exists());
    }
    let taken = [
        ("' x'", "type: string", " x    ."),
        ("'x '", "align: right", "    x ."),
        ("'0x'", "pad: zero, align: left", "0x0000."),
        ("100", "type: int64, pad: zero", "000100."),
        ("-7", "type: int64, pad: zero", "-00007."),
        ("''", "type: string", "      ."),
        ("NULL", "type: int64", "      ."),
    ];
    for (value, field, line) in taken {
        let world = World::empty();
        world.job(&job(value, field));
        let output = world.gapless(&["run", "job.yaml", "--slots", "1"]);
        assert!(output.status.success(), "{value} {field}: {}", text(&output.stderr));
        let written = fs::read_to_string(&world.files("out/a")[0]).expect("readable");
        assert_eq!(written, format!("{line}\n").repeat(2), "{value} {field}");
    }
}

#[test]
fn a_value_that_does_not_fit_fails_the_step_in_words() {
    let cases = [
        ("width: 3", "«1000» has 4 characters, the field 3"),
        (
            "width: 9, type: int8",
            "that int8, the type of its field, does not hold exactly",
        ),
    ];
    for (field, said) in cases {
        let world = World::empty();
        world.job(&format!(
            "{{job: wide, steps: [{{name: a, source: {{sequence: {{from: 0, to: 1001}}}}, sink: {{records: {{path: out/a, fields: \
             [{{name: n, {field}}}]}}}}}}]}}"
        ));
        let output = world.gapless(&["run", "job.yaml", "--slots", "1"]);
        assert_eq!(output.status.code(), Some(1), "{field}");
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
        assert!(!world.path("out/a").exists());
    }
}

/// Rows of many partitions come in order, and pages and totals are those of the whole report.
#[test]
fn a_report_has_its_pages_and_totals_also_after_a_kill() {
    const ROWS: u64 = 20_000;
    let world = World::empty();
    world.job(&format!(
        r#"
job: report
steps:
  - name: report
    source: {{sequence: {{from: 0, to: {ROWS}}}}}
    partition: {{count: 12}}
    transform: {{sql: "SELECT n, CAST(n AS DECIMAL(12, 2)) / 4 AS amount FROM input"}}
    sink:
      report:
        path: out/report
        page_rows: 7
        totals: [n]
        begin: begin
        header: "page {{{{ page }}}}"
        row: "{{{{ n | right(6) }}}} {{{{ amount }}}}"
        footer: "= {{{{ page_totals.n }}}}"
        end: "{{{{ rows }}}} rows, {{{{ totals.n | grouped }}}}"
"#
    ));
    let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
    gapless_tests::wait_for("chunks to kill at", || {
        (world.manifests("report") >= 4 || !first.is_running()).then_some(())
    });
    assert!(first.kill(), "the kill came before the end");
    let output = world.gapless(&["run", "job.yaml", "--workers", "2", "--slots", "1"]);
    assert!(output.status.success(), "{}", text(&output.stderr));

    let mut expected = "begin\n".to_string();
    let rows: Vec<u64> = (0..ROWS).collect();
    for (page, rows) in rows.chunks(7).enumerate() {
        let turned = if page > 0 { "\u{c}" } else { "" };
        expected += &format!("{turned}page {}\n", page + 1);
        for row in rows {
            let digits = ["0000", "2500", "5000", "7500"][*row as usize % 4];
            expected += &format!("{row:>6} {}.{digits}\n", row / 4);
        }
        expected += &format!("= {}\n", rows.iter().sum::<u64>());
    }
    expected += "20000 rows, 199,990,000\n";
    let files = world.files("out/report");
    assert_eq!(files.len(), 1);
    let report = fs::read_to_string(&files[0]).expect("readable");
    let plain = |text: &str| -> Vec<String> {
        // How many digits a quotient has is the engine's.
        text.lines()
            .map(|line| line.trim_end_matches('0').to_string())
            .collect()
    };
    assert_eq!(plain(&report), plain(&expected));
}

#[test]
fn a_template_that_names_what_is_not_there_is_told_before_any_work() {
    let cases = [
        (
            "row: \"{{ m }}\"",
            "the template `row` names «m», which it has not; it has n, page, rows, totals, page_totals",
        ),
        ("row: \"{{ n }\"", "the template `row`: syntax error"),
        (
            "row: x, header: \"{{ n }}\"",
            "the template `header` names «n», which it has not; it has page, rows, totals, page_totals",
        ),
        ("row: x, totals: [m]", "totals: no column m in the output; there are n"),
    ];
    for (templates, said) in cases {
        let world = World::empty();
        world.job(&format!(
            "{{job: r, steps: [{{name: a, source: {{sequence: {{from: 0, to: 9}}}}, sink: {{report: {{path: out/a, \
             {templates}}}}}}}]}}"
        ));
        let output = world.gapless(&["validate", "job.yaml"]);
        assert_eq!(output.status.code(), Some(3), "{templates}");
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
}

/// Comparisons and sums in templates go by value, of all rows, and what has none is told.
#[test]
fn a_report_compares_by_value() {
    let job = |row: &str, end: &str| {
        format!(
            r#"
job: r
steps:
  - name: a
    source: {{sequence: {{from: 0, to: 3}}}}
    transform:
      sql: |
        SELECT n, CAST(n AS DECIMAL(30,2)) - 1.05 AS d, CASE WHEN n = 1 THEN NULL ELSE CAST(n AS DECIMAL(9,1)) END AS gap,
          NULL AS nothing, CAST('2026-01-0' || (n + 1) AS DATE) AS day, 'x' || n AS name, n AS neg, n AS "in"
        FROM input ORDER BY n
    sink: {{report: {{path: out/a, totals: [d, n], row: '{row}', end: '{end}'}}}}
"#
        )
    };
    let row = "{{ d }}|{{ d < 0 }}|{{ d > 100 }}|{{ d == 0.95 }}|{{ d is le(n) }}|{{ d * 2 - 1 }}|{{ gap }}|{{ gap < 9 }}|{{ nothing }}|{{ \
               day > \"2026-01-01\" }}|{{ d in [\"-0.050\", 7] }}|{{ [d, 0] | max }}|{{ -d | round(1) }}|{{ \"-\" ~ gap | right(4) }}";
    let world = World::empty();
    world.job(&job(
        row,
        "{{ totals.d }} {{ totals.d < 0 }} {{ totals.n / rows }} {{ totals.d == \"-0.15\" }}",
    ));
    let output = world.gapless(&["run", "job.yaml", "--slots", "1"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = fs::read_to_string(&world.files("out/a")[0]).expect("readable");
    assert_eq!(
        report,
        "-1.05|True|False|False|True|-3.10|0.0|True||False|False|0|1.1|- 0.0\n\
         -0.05|True|False|False|True|-1.10||False||True|True|0|0.1|-    \n\
         0.95|False|False|True|True|0.90|2.0|True||True|False|0.95|-1.0|- 2.0\n\
         -0.15 True 1.0 True\n"
    );

    // Told by validate where the types tell, else when the values do; nothing is published.
    let cases = [
        ("{{ name < 5 }}", 3, "cannot compare text with a number"),
        ("{{ day > 20260101 }}", 3, "cannot compare text"),
        (
            "{{ name + d }}",
            3,
            "tried to use + operator on unsupported types text and a decimal; text is joined with ~",
        ),
        ("{{ 1 < n < 3 }}", 3, "several comparisons in one"),
        ("{{ 1 / (n - 2) }}", 0, "the template `row`, at row 3: "),
        ("{{ 1 / (n - 2) }}", 0, "1 / 0 divides by zero"),
        ("{{ 1e308 * n * 10 }}", 0, "more than a float holds"),
        (
            "{{ d < name }}",
            0,
            "cannot compare a decimal with text that is no number",
        ),
    ];
    for (row, code, said) in cases {
        let world = World::empty();
        world.job(&job(row, ""));
        let output = world.gapless(&["validate", "job.yaml"]);
        assert_eq!(output.status.code(), Some(code), "{row}: {}", text(&output.stderr));
        let output = match code {
            0 => world.gapless(&["run", "job.yaml", "--slots", "1"]),
            _ => output,
        };
        assert!(!output.status.success(), "{row}");
        assert!(text(&output.stderr).contains(said), "{row}: {}", text(&output.stderr));
        assert!(!world.path("out/a").exists());
    }
}

/// The reference job of a paged report, with the data and the answer that lie beside it.
#[test]
fn the_example_makes_the_report_beside_it() {
    let world = World::empty();
    let example = gapless_tests::checkout().join("examples/statement");
    fs::create_dir(world.path("data")).expect("made");
    for file in ["statement.yaml", "data/payments.txt"] {
        fs::copy(example.join(file), world.path(file)).expect("copied");
    }
    let output = world.gapless(&["run", "statement.yaml", "-p", "day=2026-11-20", "--slots", "1"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let files = world.files("out/statement/2026-11-20");
    let report = fs::read_to_string(&files[0]).expect("readable");
    let expected = fs::read_to_string(example.join("expected/statement.txt")).expect("readable");
    assert_eq!(report, expected);
}

/// Some MiB of zstd that unpack to 192 GiB of empty lines: a survey looks at a part, and a plan is made of it.
#[test]
fn a_plan_looks_at_a_part_of_what_packed_files_unpack_to() {
    let world = World::empty();
    let frame = zstd::encode_all("\n".repeat(64 << 20).as_bytes(), 1).expect("packed");
    for file in 0..3 {
        fs::write(world.path(&format!("{file}.zst")), frame.repeat(1024)).expect("written");
    }
    for trailer in ["", ", trailer: {tag: T}"] {
        for partition in ["auto", "{key_range: {column: id}, count: 2}"] {
            world.job(&format!(
                "job: bomb\nsteps:\n  - name: a\n    source: {{records: {{path: \"*.zst\", lines: [{{tag: R, fields: [{{name: id, width: \
                 1}}]}}]{trailer}}}}}\n    partition: {partition}\n    sink: {{csv: {{path: out/a}}}}\n"
            ));
            let mut plan = world.start(&["plan", "job.yaml"]);
            assert_eq!(plan.code(), 0, "{trailer} {partition}: {}", plan.log());
        }
    }
}

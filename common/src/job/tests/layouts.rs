//! Record layouts: what is read of them, and what is wrong with them.

use super::{
    super::{Align, Sink, Source, Total, parse},
    language::{EVERY_KEY, bound},
};

fn answer(layout: &str) -> Vec<String> {
    let text =
        format!("job: j\nsteps:\n  - name: a\n    sink: discard\n    source:\n      records: {{path: x, {layout}}}\n");
    match parse(&text, "j") {
        Ok(_) => Vec::new(),
        Err(errors) => errors
            .to_string()
            .lines()
            .map(|line| line.split_once(": ").map_or(line, |(_, what)| what).to_string())
            .collect(),
    }
}

#[track_caller]
fn check(layout: &str, expected: &[&str]) {
    assert_eq!(answer(layout), expected, "\nin\n{layout}");
}

#[test]
fn places_follow_one_another_and_are_counted_from_one() {
    let job = bound(EVERY_KEY, &[]);
    let Source::Records(records) = &job.step("seven").expect("a step").source else {
        panic!("a records source")
    };
    let layout = &records.layout;
    let account = &layout.lines[0];
    let places: Vec<_> = account.fields.iter().map(|field| (field.at, field.width)).collect();
    assert_eq!((places, account.width()), (vec![(1, 4), (5, 2)], 7));
    assert_eq!(
        (account.name.as_str(), account.fields[0].align),
        ("account", Align::Right)
    );
    assert_eq!(layout.lines[1].name, "P");
    assert_eq!(layout.type_column.as_deref(), Some("kind"));
    let trailer = layout.trailer.as_ref().expect("a trailer");
    let totals: Vec<_> = trailer.fields.iter().map(|field| field.total.clone()).collect();
    assert_eq!(totals, [Some(Total::Records), Some(Total::Sum("amount".into()))]);
    assert_eq!(layout.summed("amount").collect::<Vec<_>>(), [(1, 0)]);

    let Sink::Records(sink) = &job.step("seven").expect("a step").sink else {
        panic!("a records sink")
    };
    assert!(sink.crlf && sink.layout.multiline);
    assert_eq!((sink.layout.type_column.as_ref(), sink.file.files), (None, Some(2)));
    assert_eq!(sink.layout.summed("P.amount").collect::<Vec<_>>(), [(1, 0)]);
}

#[test]
fn a_sink_with_a_trailer_makes_one_file() {
    let text = "{job: j, steps: [{name: a, source: {sequence: {from: 0, to: 1}}, sink: {records: {path: o, \
                fields: [{name: n, width: 3}], trailer: {tag: E}}}}]}";
    let job = bound(text, &[]);
    assert_eq!(job.steps[0].sink.file().and_then(|file| file.files), Some(1));
}

#[test]
fn layouts_that_are_sound() {
    check("fields: [{name: a, width: 2}]", &[]);
    check("delimiter: tab, fields: [{name: a}]", &[]);
    // Lines that are records of their own may share columns.
    check(
        "lines: [{tag: A, fields: [{name: id, width: 2}]}, {tag: B, fields: [{name: id, width: 3}]}]",
        &[],
    );
    check("header: {}, trailer: {tag: E}, fields: [{name: a, width: 2}]", &[]);
}

#[test]
fn fields_that_cannot_be() {
    check(
        "fields: [{name: a}]",
        &["field `a` without `width`; allowed: how many characters it has"],
    );
    check(
        "fields: [{name: a, width: 4}, {name: b, at: 3, width: 1}]",
        &["field `b` begins at 3, within field `a`, which ends at 4; allowed: fields that lie apart"],
    );
    check(
        "delimiter: \";\", fields: [{name: a, width: 4}]",
        &["`width` of field `a` beside `delimiter`; allowed: fields in the order of the line"],
    );
    check(
        "fields: [{name: a, width: 4, type: int46}]",
        &[
            "unknown type `int46` of field `a`; did you mean `int16`? allowed: int8, int16, int32, int64, uint8, uint16, \
             uint32, uint64, float32, float64, decimal(p,s), string, bool, date, timestamp",
        ],
    );
    check(
        "fields: [{name: a, width: 4, point: implied}]",
        &["`point: implied` of field `a`, which is no decimal; allowed: the type decimal(p,s)"],
    );
    check(
        "fields: [{name: a, width: 4}, {width: 2, value: abc}]",
        &["the value of a field has 3 characters, its width is 2; allowed: a width that holds it"],
    );
    check(
        "fields: [{name: a, width: 4}, {name: a, width: 2}]",
        &["column `a` stands twice in the layout, or with two types; allowed: each column once"],
    );
    check(
        "fields: [{width: 4}]",
        &["a layout without a column; allowed: at least one field with a `name`"],
    );
}

#[test]
fn lines_that_cannot_be_told_apart() {
    check(
        "lines: [{tag: A, fields: [{name: a, width: 1}]}, {fields: [{name: b, width: 1}]}]",
        &["a line without `tag` beside others; allowed: the text by which the line tells its type"],
    );
    check(
        "lines: [{tag: AB, fields: [{name: a, width: 1}]}, {tag: A, fields: [{name: b, width: 1}]}]",
        &["the tags of two lines are not distinct: `AB` and `A`; allowed: tags that tell one line from another"],
    );
    check(
        "lines: [{tag: A, optional: true, fields: [{name: a, width: 1}]}]",
        &["`optional` of a line that is a record of its own; allowed: `multiline: true` beside `lines`"],
    );
    check(
        "multiline: true, lines: [{tag: A, repeats: true, fields: [{name: a, width: 1}]}]",
        &[
            "the line `A`, which begins a record, is optional, repeats or has no tag; allowed: a first line with a tag, \
             once in each record",
        ],
    );
    check(
        "multiline: true, lines: [{tag: A, fields: [{name: a, width: 1}]}, {tag: B, fields: [{name: a, width: 1}]}]",
        &["column `a` stands twice in the layout, or with two types; allowed: each column once"],
    );
}

#[test]
fn reports_that_cannot_be() {
    let report = |keys: &str| {
        let text = format!(
            "job: j\nsteps:\n  - name: a\n    source: {{sequence: {{from: 0, to: 1}}}}\n    sink:\n      report: {{path: o, {keys}}}\n"
        );
        parse(&text, "j").map_or_else(|errors| errors.to_string(), |_| String::new())
    };
    assert_eq!(report("row: x"), "");
    assert_eq!(
        report("header: x"),
        "j:6:15: missing key `row` in report sink; allowed: text"
    );
    assert_eq!(
        report("row: x, extension: a/b"),
        "j:6:44: `extension` in report sink is \"a/b\"; allowed: 1 to 16 letters and digits"
    );
    assert_eq!(
        report("row: x, page_rows: 0"),
        "j:6:44: `page_rows` in report sink is `0`; allowed: a whole number from 1 to 1000000"
    );
    let text = "{job: j, steps: [{name: a, source: {sequence: {from: 0, to: 1}}, sink: {report: {path: o, row: x}}}, {name: b, \
                source: {step: a}, sink: discard}]}";
    let said = parse(text, "j").map_or_else(|errors| errors.to_string(), |_| String::new());
    assert!(
        said.contains("has the sink `report`, a text for people that is not read back"),
        "{said}"
    );
}

#[test]
fn totals_that_cannot_be() {
    check(
        "fields: [{name: a, width: 4}], trailer: {fields: [{name: n, width: 4, count: records}]}",
        &["`count` of field `n`, which is no whole number; allowed: a type such as int64"],
    );
    check(
        "fields: [{name: amount, width: 4, type: int64}], trailer: {fields: [{width: 4, type: int64, sum: amuont}]}",
        &["`sum: amuont` in trailer names no column of exact numbers; did you mean `amount`? allowed: amount"],
    );
    check(
        "multiline: true, lines: [{tag: A, fields: [{name: a, width: 1}]}, {tag: B, repeats: true, fields: [{name: q, \
         width: 1, type: int8}]}], trailer: {fields: [{width: 4, type: int64, sum: q}]}",
        &["`sum: q` in trailer names no column of exact numbers; allowed: B.q"],
    );
    check(
        "fields: [{name: a, width: 4}], trailer: {fields: [{name: n, width: 4, type: int64, count: records, sum: a}]}",
        &["`sum` beside `count` in header or trailer field; allowed: one of count, sum, value"],
    );
}

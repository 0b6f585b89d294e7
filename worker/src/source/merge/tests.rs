//! Merges of files that the tests make: any cut gives the same records, and types that do not go together are told.

use std::{fs, path::Path};

use arrow::{array::AsArray, datatypes::Int64Type};
use gapless_common::{
    attempt::RecordHash,
    ids::RunId,
    job::{Job, parse},
    plan::{TransformFacts, TransformMode, Unit},
};

use super::*;
use crate::{
    source::{Place, open::open},
    survey::{SourceFacts, sample_keys, survey_source},
};

/// A job of one step with these inputs; `options` are further keys of the merge.
fn job(inputs: &str, options: &str) -> Job {
    let text = format!(
        "job: j\nsteps:\n  - name: s\n    sink: discard\n    source:\n      merge:\n        {options}\n        inputs:\n{inputs}"
    );
    let parsed = parse(&text, "job.yaml").unwrap_or_else(|errors| panic!("{errors}"));
    parsed
        .bind(&Default::default())
        .unwrap_or_else(|errors| panic!("{errors}"))
        .0
}

fn survey(job: &Job, base: &Path) -> Result<SourceFacts, TaskError> {
    survey_source(job, &job.steps[0], base, RunId(Default::default()), &[])
}

fn facts(found: &SourceFacts) -> Facts {
    let analysis = crate::engine::analyse(None, found.schema.clone(), &[], &[], 0).expect("no SQL");
    let mut facts = crate::attempt::survey::facts(found.clone(), &analysis);
    facts.transform = TransformFacts {
        mode: TransformMode::RowWise { expands: false },
        reason: String::new(),
    };
    facts
}

/// Text in bytes, a compressed file, another order of columns, a narrower type.
fn mixed(base: &Path) -> Job {
    let rows = |range: std::ops::Range<i64>, line: fn(i64) -> String| range.map(line).collect::<String>();
    fs::write(base.join("a.csv"), rows(0..500, |n| format!("{n},name {n}\n"))).expect("written");
    fs::write(
        base.join("b.csv"),
        "name,id\n".to_string() + &rows(500..900, |n| format!("name {n},{n}\n")),
    )
    .expect("written");
    let text = rows(900..1000, |n| format!("{{\"id\":{n},\"name\":\"name {n}\"}}\n"));
    fs::write(
        base.join("c.ndjson.zst"),
        zstd::encode_all(text.as_bytes(), 1).expect("zstd"),
    )
    .expect("written");
    fs::write(base.join("d.txt"), rows(1000..1300, |n| format!("{n:08}name {n:<9}\n"))).expect("written");
    job(
        "          - csv: {path: a.csv, header: false, columns: {id: int64, name: string}}
          - csv: {path: b.csv, columns: {id: int32}}
          - ndjson: {path: c.ndjson.zst, columns: {name: string, id: int64}}
          - records: {path: d.txt, fields: [{name: id, width: 8, type: int16, pad: zero}, {name: name, width: 14}]}\n",
        "missing_columns: refuse",
    )
}

struct Got {
    ids: Vec<i64>,
    places: Vec<Place>,
    read: u64,
    records: RecordHash,
    /// Where a chunk may end, and the records read by then.
    stops: Vec<(u64, usize)>,
}

fn read(job: &Job, base: &Path, facts: &Facts, units: UnitRange) -> Got {
    let mut reader = open(job, &job.steps[0], base, facts, units, None).expect("opened");
    let mut got = Got {
        ids: Vec::new(),
        places: Vec::new(),
        read: 0,
        records: RecordHash::default(),
        stops: Vec::new(),
    };
    loop {
        let input = reader.next_batch().expect("read");
        let intake = reader.take_intake();
        got.read += intake.read;
        got.records += intake.records;
        assert!(intake.rejects.is_empty());
        let Some(input) = input else { break };
        assert_eq!(input.batch.schema(), reader.schema());
        let ids = input
            .batch
            .column_by_name("id")
            .expect("there")
            .as_primitive::<Int64Type>();
        got.ids.extend_from_slice(ids.values());
        got.places
            .extend((0..input.batch.num_rows()).map(|row| input.origin.locate(row)));
        if reader.may_stop() {
            got.stops.push((reader.position(), got.ids.len()));
        }
    }
    assert_eq!(reader.position(), units.high);
    got
}

#[test]
fn any_cut_gives_the_records_of_the_inputs_in_their_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let job = mixed(dir.path());
    let found = survey(&job, dir.path()).expect("surveyed");
    assert_eq!((found.unit, found.rows), (Unit::Mixed, 1300));
    let facts = facts(&found);
    assert_eq!(
        facts.inputs.iter().map(|input| input.unit).collect::<Vec<_>>(),
        [Unit::Byte, Unit::Byte, Unit::File, Unit::Byte]
    );
    let all = read(&job, dir.path(), &facts, facts.domain);
    assert_eq!(all.ids, (0..1300).collect::<Vec<_>>());
    assert_eq!(all.read, 1300);
    // The last record of each input, where it stands.
    for (row, file, line) in [
        (499, "a.csv", 500),
        (899, "b.csv", 401),
        (999, "c.ndjson.zst", 100),
        (1299, "d.txt", 300),
    ] {
        assert_eq!(
            (all.places[row].file.as_str(), all.places[row].line),
            (file, Some(line))
        );
    }
    let high = facts.domain.high;
    for cut in (0..=high).step_by(97).chain([all.stops[0].0]) {
        let (left, right) = (
            read(&job, dir.path(), &facts, UnitRange::new(0, cut)),
            read(&job, dir.path(), &facts, UnitRange::new(cut, high)),
        );
        let mut sum = left.records;
        sum += right.records;
        assert_eq!([left.ids, right.ids].concat(), all.ids, "cut at {cut}");
        assert_eq!(sum, all.records, "cut at {cut}");
    }
}

#[test]
fn a_reader_goes_on_where_a_chunk_ended() {
    let dir = tempfile::tempdir().expect("a folder");
    let job = mixed(dir.path());
    let facts = facts(&survey(&job, dir.path()).expect("surveyed"));
    let all = read(&job, dir.path(), &facts, facts.domain);
    // At least at the end of each input.
    assert!(all.stops.len() >= 4, "{:?}", all.stops);
    for (position, records) in &all.stops {
        let rest = read(&job, dir.path(), &facts, facts.domain.after(*position));
        assert_eq!(rest.ids, all.ids[*records..], "from {position}");
    }
}

#[test]
fn readers_make_the_columns_that_are_asked_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let job = mixed(dir.path());
    let facts = facts(&survey(&job, dir.path()).expect("surveyed"));
    for (names, expected) in [
        (&["name"][..], &["name"][..]),
        (&["name", "id"], &["id", "name"]),
        (&[], &[]),
    ] {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut reader = open(&job, &job.steps[0], dir.path(), &facts, facts.domain, Some(&names)).expect("opened");
        let schema = reader.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(columns, expected);
        let mut rows = 0;
        while let Some(input) = reader.next_batch().expect("read") {
            rows += input.batch.num_rows();
        }
        assert_eq!(rows, 1300);
    }
}

#[test]
fn a_sample_is_of_all_inputs() {
    let dir = tempfile::tempdir().expect("a folder");
    let job = mixed(dir.path());
    let found = survey(&job, dir.path()).expect("surveyed");
    let sample = sample_keys(&job, &job.steps[0], dir.path(), &found, "id").expect("drawn");
    assert_eq!((sample.keys.len(), sample.nulls, sample.complete), (1300, 0, true));
    assert!(sample.keys.is_sorted());
}

#[test]
fn types_that_no_value_is_lost_in_go_together_and_others_are_told() {
    use DataType::*;
    for (one, other, together) in [
        (Int8, Int64, Some(Int64)),
        (UInt8, Int8, Some(Int16)),
        (UInt32, Int16, Some(Int64)),
        (UInt64, Int64, None),
        (Utf8, Utf8View, Some(Utf8View)),
        (Float32, Float64, Some(Float64)),
        (Int64, Float64, None),
        (Decimal128(12, 2), Decimal128(10, 4), Some(Decimal128(14, 4))),
        (Decimal128(38, 0), Decimal128(10, 4), None),
        (Date32, Utf8View, None),
        (Boolean, Boolean, Some(Boolean)),
    ] {
        assert_eq!(common_type(&one, &other), together, "{one} and {other}");
        assert_eq!(common_type(&other, &one), together, "{other} and {one}");
    }
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("a.csv"), "id,name\n1,x\n").expect("written");
    fs::write(dir.path().join("b.csv"), "id,more\n7,2020-02-03\n").expect("written");
    let inputs = |types: &str| {
        format!(
            "          - csv: {{path: a.csv, columns: {{id: int64}}}}\n          - csv: {{path: b.csv, columns: {types}}}\n"
        )
    };
    let refused = |types: &str, options: &str| {
        survey(&job(&inputs(types), options), dir.path())
            .expect_err("refused")
            .message
    };
    assert_eq!(
        refused("{id: date}", "missing_columns: fill"),
        "merge: column «id» is int64 in input 1 (csv a.csv) and date in input 2 (csv b.csv): no type holds both as they are; \
         declare one type, or let a step before this one cast it"
    );
    assert_eq!(
        refused("{id: int8}", "missing_columns: refuse"),
        "merge: input 2 (csv b.csv) has no column «name», which input 1 (csv a.csv) has; it has: id, more. Columns are matched \
         by name; with `missing_columns: fill` those that are missing are NULL"
    );
    let fill = job(&inputs("{id: int8, more: date}"), "missing_columns: fill");
    let found = survey(&fill, dir.path()).expect("surveyed");
    let columns: Vec<String> = found
        .schema
        .fields()
        .iter()
        .map(|field| format!("{} {}", field.name(), field.data_type()))
        .collect();
    assert_eq!(columns, ["id Int64", "name Utf8View", "more Date32"]);
    let facts = facts(&found);
    let mut reader = open(&fill, &fill.steps[0], dir.path(), &facts, facts.domain, None).expect("opened");
    let mut nulls = Vec::new();
    while let Some(input) = reader.next_batch().expect("read") {
        if input.batch.num_rows() > 0 {
            nulls.push((input.batch.column(1).null_count(), input.batch.column(2).null_count()));
        }
    }
    assert_eq!(nulls, [(0, 1), (1, 0)]);
    let twice = job(
        "          - csv: {path: a.csv}\n          - csv: {path: \"*.csv\"}\n",
        "missing_columns: fill",
    );
    let error = survey(&twice, dir.path()).expect_err("refused").message;
    assert!(
        error.contains("its header differs from that of the first file"),
        "{error}"
    );
    fs::remove_file(dir.path().join("b.csv")).expect("removed");
    let error = survey(&twice, dir.path()).expect_err("refused").message;
    assert_eq!(
        error,
        "merge: a.csv is a file of input 1 (csv a.csv) and of input 2 (csv *.csv); its records would be read twice"
    );
}

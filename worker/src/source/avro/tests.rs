//! Blocks read by position: any cut, any resume, and what is damaged is told with its byte.

use std::{fs, path::Path};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray},
    datatypes::Int64Type,
};
use arrow_avro::writer::AvroWriter;
use gapless_common::{attempt::RecordHash, error::ErrorClass, plan::Unit};

use super::*;
use crate::{
    avro::put_long,
    survey::{rows_of_avro, survey_avro},
};

/// Rows `from..to` of (k, t), in blocks of `block` rows, by the library's own writer.
pub(in crate::source) fn write(path: &Path, from: i64, to: i64, block: usize) {
    let schema = Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("t", DataType::Utf8, true),
    ]);
    let mut writer = AvroWriter::new(fs::File::create(path).unwrap(), schema.clone()).unwrap();
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(from..to));
    let texts = (from..to).map(|i| (i % 3 != 0).then(|| format!("text of {i}")));
    let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
    let batch = RecordBatch::try_new(Arc::new(schema), vec![keys, texts]).unwrap();
    for low in (0..batch.num_rows()).step_by(block) {
        let slice = batch.slice(low, block.min(batch.num_rows() - low));
        writer.write(&slice).unwrap();
    }
    writer.finish().unwrap();
}

/// A record `{a: …}` of a type, in blocks of (count, bytes), as a file.
fn file_of(ty: &str, blocks: &[(u64, &[u8])]) -> Vec<u8> {
    let schema = format!(r#"{{"type":"record","name":"r","fields":[{{"name":"a","type":{ty}}}]}}"#);
    let marker = [7; crate::avro::MARKER];
    let mut file = crate::avro::Header::bytes(&schema, crate::avro::Codec::Null, marker);
    for (rows, bytes) in blocks {
        crate::avro::write_block(*rows, bytes, marker, &mut file);
    }
    file
}

struct Found {
    folder: tempfile::TempDir,
    facts: crate::survey::SourceFacts,
}

fn survey(folder: tempfile::TempDir, names: &[&str]) -> Result<Found, TaskError> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let facts = survey_avro(folder.path(), &names)?;
    Ok(Found { folder, facts })
}

#[derive(Debug, Default, PartialEq)]
struct Got {
    keys: Vec<i64>,
    nulls: usize,
    read: u64,
    records: RecordHash,
    stops: Vec<u64>,
}

impl Found {
    fn open(&self, low: u64, high: u64, projection: Option<&[String]>) -> AvroReader {
        let base = self.folder.path().to_path_buf();
        let range = UnitRange::new(low, high);
        let files = self.facts.files.clone().into();
        AvroReader::new(base, files, 0, &self.facts.schema, projection, range).unwrap()
    }

    fn read(&self, low: u64, high: u64) -> Result<Got, TaskError> {
        let mut reader = self.open(low, high, None);
        let mut got = Got::default();
        while let Some(input) = reader.next_batch()? {
            assert_eq!(input.batch.schema(), reader.schema());
            assert!(low <= reader.position() && reader.position() <= high);
            got.keys
                .extend_from_slice(input.batch.column(0).as_primitive::<Int64Type>().values());
            got.nulls += input.batch.column(1).null_count();
            if reader.may_stop() {
                got.stops.push(reader.position());
            }
        }
        assert!(reader.may_stop());
        assert_eq!(reader.position(), high);
        let intake = reader.take_intake();
        (got.read, got.records) = (intake.read, intake.records);
        Ok(got)
    }
}

#[test]
fn every_cut_gives_each_row_once_and_each_stop_is_one_to_go_on_from() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a.avro"), 0, 50, 7);
    write(&folder.path().join("b.avro"), 50, 90, 13);
    write(&folder.path().join("c.avro"), 90, 90, 1);
    write(&folder.path().join("d.avro"), 90, 100, 100);
    let found = survey(folder, &["a.avro", "b.avro", "c.avro", "d.avro"]).unwrap();
    let facts = &found.facts;
    assert_eq!((facts.unit, facts.rows), (Unit::Byte, 100));
    let high = facts.domain.high;
    let all = found.read(0, high).unwrap();
    assert_eq!(all.keys, (0..100).collect::<Vec<_>>());
    assert_eq!((all.read, all.nulls), (100, 34));
    for cut in 0..=high {
        let (left, right) = (found.read(0, cut).unwrap(), found.read(cut, high).unwrap());
        assert_eq!([left.keys, right.keys].concat(), all.keys, "cut at {cut}");
        let mut sum = left.records;
        sum += right.records;
        assert_eq!((sum, left.read + right.read), (all.records, 100), "cut at {cut}");
    }
    // Three cuts at once, of any width: most ranges have no block.
    for width in [1, 2, 15, 16, 17, 40] {
        let ranges = (0..high)
            .step_by(width)
            .map(|low| (low, (low + width as u64).min(high)));
        let keys: Vec<i64> = ranges
            .flat_map(|(low, high)| found.read(low, high).unwrap().keys)
            .collect();
        assert_eq!(keys, all.keys, "ranges of {width} bytes");
    }
}

#[test]
fn large_blocks_are_read_in_batches_and_end_as_places_to_stop_at() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a.avro"), 0, 100_000, 20_000);
    let found = survey(folder, &["a.avro"]).unwrap();
    let high = found.facts.domain.high;
    let all = found.read(0, high).unwrap();
    assert_eq!(all.keys, (0..100_000).collect::<Vec<_>>());
    assert_eq!(all.stops.len(), 5, "at the end of each block");
    for (block, stop) in all.stops.iter().enumerate() {
        let rest = found.read(*stop, high).unwrap();
        assert_eq!(rest.keys.len(), 80_000 - block * 20_000);
    }
    let mut reader = found.open(all.stops[1], high, Some(&["t".to_string()]));
    let first = reader.next_batch().unwrap().unwrap();
    assert_eq!((first.batch.num_columns(), first.batch.num_rows()), (1, BATCH));
    assert!(!reader.may_stop());
    let second = reader.next_batch().unwrap().unwrap();
    let place = second.origin.locate(4);
    assert_eq!((place.row, place.block), (Some(BATCH as u64 + 4), Some(all.stops[1])));
    assert_eq!(place.raw, format!("{{\"t\":\"text of {}\"}}", 40_000 + BATCH + 4));
    // No column at all: rows are counted.
    let mut reader = found.open(0, high, Some(&[]));
    let mut rows = 0;
    while let Some(input) = reader.next_batch().unwrap() {
        rows += input.batch.num_rows();
    }
    assert_eq!(rows, 100_000);
}

#[test]
fn small_blocks_share_a_batch_and_tell_each_row_with_its_block() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a.avro"), 0, 1000, 10);
    let found = survey(folder, &["a.avro"]).unwrap();
    let mut reader = found.open(0, found.facts.domain.high, None);
    let input = reader.next_batch().unwrap().unwrap();
    assert_eq!(input.batch.num_rows(), 1000);
    let places: Vec<(u64, u64)> = (0..1000)
        .map(|row| input.origin.locate(row))
        .map(|place| (place.block.unwrap(), place.row.unwrap()))
        .collect();
    assert!(places.is_sorted() && places.iter().enumerate().all(|(row, place)| place.1 == row as u64 % 10));
}

#[test]
fn what_is_damaged_is_told_with_its_byte() {
    let check = |bytes: &[u8], expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.avro"), bytes).unwrap();
        let found = survey(folder, &["x.avro"]);
        let error = match found {
            Err(error) => error,
            Ok(found) => {
                let mut reader = found.open(0, found.facts.domain.high, None);
                loop {
                    match reader.next_batch() {
                        Ok(Some(_)) => {}
                        Ok(None) => panic!("{expected}: nothing was found"),
                        Err(error) => break error,
                    }
                }
            }
        };
        assert!(error.message.starts_with("x.avro: "), "{error}");
        assert!(error.message.contains(expected), "{error}\nlacks: {expected}");
        error.class
    };
    let good = file_of("\"int\"", &[(2, &[2, 4]), (1, &[6])]);
    // Two integers, two bytes and the marker; two integers, one byte and the marker.
    let first = good.len() - (2 + 2 + 16) - (2 + 1 + 16);
    assert_eq!(check(b"", "the file is empty"), ErrorClass::Config);
    assert_eq!(
        check(b"id,v\n1,2\n", "no Avro object container file"),
        ErrorClass::Config
    );
    assert_eq!(check(&good[..30], "the header ends at byte 30"), ErrorClass::Data);
    for cut in [first + 1, first + 5, good.len() - 1] {
        check(&good[..cut], &format!("its last 16 bytes, from byte {} on,", cut - 16));
    }
    // Cut off behind a block it is a whole file with less in it, as every Avro file.
    let mut marker = good.clone();
    marker[first + 4] ^= 1;
    check(
        &marker,
        &format!(
            "the block at byte {first} is damaged: behind its 2 bytes, at byte {}, stands no sync marker",
            first + 4
        ),
    );
    let mut long = good.clone();
    long[first + 1] = 100;
    check(
        &long,
        &format!(
            "the block at byte {first} is damaged: it reaches to byte {}",
            first + 2 + 50 + 16
        ),
    );
    let mut negative = good.clone();
    negative[first] = 1;
    check(&negative, "its count or length is negative");
    check(
        &file_of("\"int\"", &[(1, &[2, 4])]),
        "behind its 1 rows, 1 bytes are left",
    );
    check(
        &file_of("\"int\"", &[(3, &[2, 4])]),
        "row 2: the block ends within a value",
    );
    check(
        &file_of("\"string\"", &[(2, &[2, b'a', 2, 0xff])]),
        "row 1: a string is no UTF-8",
    );
    check(&file_of("\"null\"", &[(2, &[])]), "column a: its type is null alone");
    check(
        &file_of("[\"null\",\"int\",\"string\"]", &[]),
        "column a: it is a union of several types",
    );
    check(&file_of("\"other\"", &[]), "its schema uses the type other");
    let schema = crate::avro::Header::bytes(
        "{\"type\":\"record\",\"name\":\"r\",\"fields\":[]}",
        crate::avro::Codec::Null,
        [1; 16],
    );
    check(&schema, "its schema has no fields");
    let mut codec = good.clone();
    let at = good.windows(4).position(|bytes| bytes == b"null").unwrap();
    codec[at..at + 4].copy_from_slice(b"lzma");
    assert_eq!(check(&codec, "compressed by the codec `lzma`"), ErrorClass::Config);
}

#[test]
fn files_of_one_source_have_the_same_columns() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("1.avro"), file_of("\"int\"", &[(1, &[2])])).unwrap();
    fs::write(
        folder.path().join("2.avro"),
        file_of("[\"null\",\"int\"]", &[(2, &[0, 2, 4])]),
    )
    .unwrap();
    fs::write(folder.path().join("3.avro"), file_of("\"string\"", &[])).unwrap();
    let error = survey_avro(folder.path(), &["1.avro".into(), "2.avro".into(), "3.avro".into()]).unwrap_err();
    assert_eq!(
        error.message,
        "3.avro: its columns differ from those of the first file: column a is string instead of int32; all files of a \
         source have the same columns"
    );
    let found = survey(folder, &["1.avro", "2.avro"]).unwrap();
    assert!(found.facts.schema.field(0).is_nullable());
    let mut reader = found.open(0, found.facts.domain.high, None);
    let mut nulls = Vec::new();
    while let Some(input) = reader.next_batch().unwrap() {
        nulls.push(input.batch.column(0).null_count());
    }
    assert_eq!(nulls, [0, 1]);
    // Another schema under the same plan.
    let mut facts = found.facts.clone();
    facts.schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let other = Found { facts, ..found };
    let error = other.open(0, 1, None).next_batch().map(|_| ()).unwrap_err();
    assert!(
        error.message.contains("changed after planning (column a is int32)"),
        "{error}"
    );
}

#[test]
fn types_become_those_of_the_engine() {
    let kinds = [
        ("\"boolean\"", DataType::Boolean),
        ("\"float\"", DataType::Float32),
        ("\"bytes\"", DataType::Binary),
        (r#"["null","string"]"#, DataType::Utf8View),
        (r#"{"type":"enum","name":"e","symbols":["x"]}"#, DataType::Utf8View),
        (r#"{"type":"string","logicalType":"uuid"}"#, DataType::Utf8View),
        (r#"{"type":"int","logicalType":"date"}"#, DataType::Date32),
        (
            r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#,
            DataType::Decimal128(9, 2),
        ),
        (
            r#"{"type":"long","logicalType":"timestamp-millis"}"#,
            DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        ),
        (
            r#"{"type":"long","logicalType":"local-timestamp-micros"}"#,
            DataType::Timestamp(TimeUnit::Microsecond, None),
        ),
    ];
    for (ty, expected) in kinds {
        let schema = format!(r#"{{"type":"record","name":"r","fields":[{{"name":"a","type":{ty}}}]}}"#);
        let columns = columns(&schema, "x.avro").unwrap();
        assert_eq!(columns.field(0).data_type(), &expected, "{ty}");
        // The plan keeps types by their names.
        let kept = crate::source::types::columns_of(&columns);
        assert_eq!(crate::source::schema_of(&kept), Some(columns), "{ty}");
    }
}

/// A file of one block, of records with these fields.
fn file_with(fields: &str, rows: u64, block: &[u8]) -> Vec<u8> {
    let schema = format!(r#"{{"type":"record","name":"r","fields":[{fields}]}}"#);
    let marker = [7; crate::avro::MARKER];
    let mut file = crate::avro::Header::bytes(&schema, crate::avro::Codec::Null, marker);
    crate::avro::write_block(rows, block, marker, &mut file);
    file
}

fn found_in(files: &[Vec<u8>]) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (1..=files.len()).map(|number| format!("{number}.avro")).collect();
    for (name, bytes) in names.iter().zip(files) {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    survey(folder, &names).unwrap()
}

/// The rows of a source, as text.
fn shown(found: &Found, projection: Option<&[String]>) -> Vec<String> {
    let mut reader = found.open(0, found.facts.domain.high, projection);
    let mut rows = Vec::new();
    while let Some(input) = reader.next_batch().unwrap() {
        rows.extend((0..input.batch.num_rows()).map(|row| row_as_text(&input.batch, row)));
    }
    rows
}

/// As changes of databases are told: one named type for what was and what is.
#[test]
fn a_column_is_read_without_the_one_that_defines_its_type() {
    let value = r#"{"type":"record","name":"Value","fields":[{"name":"v","type":"int"}]}"#;
    let before_first =
        format!(r#"{{"name":"before","type":["null",{value}]}},{{"name":"after","type":["null","Value"]}}"#);
    let after_first =
        format!(r#"{{"name":"after","type":["null",{value}]}},{{"name":"before","type":["null","Value"]}}"#);
    // Nothing and 2; 3 and 4. Then the other way around.
    let files = [
        file_with(&before_first, 2, &[0, 2, 4, 2, 6, 2, 8]),
        file_with(&after_first, 2, &[2, 4, 0, 2, 8, 2, 6]),
    ];
    let after = [r#"{"after":{"v":2}}"#, r#"{"after":{"v":4}}"#];
    let before = [r#"{"before":null}"#, r#"{"before":{"v":3}}"#];
    for files in [&files[..1], &files[1..], &files[..]] {
        let found = found_in(files);
        for (column, expected) in [("after", &after), ("before", &before)] {
            let rows = shown(&found, Some(&[column.to_string()]));
            assert_eq!(rows, expected.repeat(files.len()), "{column}");
        }
        assert_eq!(shown(&found, None).len(), 2 * files.len());
    }
}

/// A NULL takes as much room as a value where values are of one size, whatever it takes in the file.
#[test]
fn nulls_of_large_values_end_a_batch() {
    let size = 100_000;
    let wide = format!(r#"{{"name":"a","type":["null",{{"type":"fixed","name":"f","size":{size}}}]}}"#);
    let found = found_in(&[file_with(&wide, 300, &[0; 300])]);
    let mut reader = found.open(0, found.facts.domain.high, None);
    let mut rows = 0;
    while let Some(input) = reader.next_batch().unwrap() {
        assert!(
            input.batch.num_rows() * size <= BATCH_BYTES + size,
            "{} rows at once",
            input.batch.num_rows()
        );
        assert_eq!(input.batch.column(0).null_count(), input.batch.num_rows());
        rows += input.batch.num_rows();
    }
    assert_eq!(rows, 300);
    let refused = |fields: &str, says: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("1.avro"), file_with(fields, 0, &[])).unwrap();
        let error = survey(folder, &["1.avro"]).map(|_| ()).unwrap_err();
        assert!(
            error.message.starts_with("1.avro: ") && error.message.contains(says),
            "{error}"
        );
    };
    let huge = r#"{"name":"a","type":["null",{"type":"fixed","name":"f","size":1048577}]}"#;
    refused(huge, "values of one size take more than 1 MiB");
    let endless =
        r#"{"name":"a","type":{"type":"fixed","name":"f","size":18446744073709551615}},{"name":"b","type":"f"}"#;
    refused(endless, "values of one size take more than 1 MiB");
    // One record with a list of them.
    let many = r#"{"name":"a","type":{"type":"array","items":["null",{"type":"fixed","name":"f","size":1000000}]}}"#;
    let mut block = Vec::new();
    put_long(1000, &mut block);
    block.resize(block.len() + 1001, 0);
    let found = found_in(&[file_with(many, 1, &block)]);
    let error = found
        .open(0, found.facts.domain.high, None)
        .next_batch()
        .map(|_| ())
        .unwrap_err();
    assert!(
        error.message.contains("row 0: it takes more than 64 MiB in memory"),
        "{error}"
    );
}

/// What a writer notes beside nested types (documentation, names of other systems) is no part of a column.
#[test]
fn files_whose_nested_types_differ_in_notes_alone_are_one_source() {
    let noted = |note: &str| {
        let item = format!(r#"{{"type":"record","name":"s","fields":[{{"name":"v","type":"int"{note}}}]{note}}}"#);
        file_with(
            &format!(
                r#"{{"name":"a","type":{item}}},{{"name":"b","type":{{"type":"array","items":"s"}}}},{{"name":"c","type":{{"type":"map","values":["null","s"]}}}}"#
            ),
            1,
            &[2, 2, 4, 0, 2, 2, b'k', 2, 6, 0],
        )
    };
    let found = found_in(&[noted(""), noted(r#","doc":"a number","connect.version":1"#), noted("")]);
    let row = r#"{"a":{"v":1},"b":[{"v":2}],"c":{"k":{"v":3}}}"#;
    assert_eq!(shown(&found, None), [row; 3]);
}

#[test]
fn nested_columns_fixed_ones_and_nanoseconds_are_read() {
    let fields = r#"
        {"name":"l","type":{"type":"array","items":["null","string"]}},
        {"name":"m","type":{"type":"map","values":"long"}},
        {"name":"s","type":["null",{"type":"record","name":"s","fields":[{"name":"x","type":"double"},{"name":"y","type":["null","string"]}]}]},
        {"name":"f","type":{"type":"fixed","name":"f","size":3}},
        {"name":"e","type":{"type":"array","items":{"type":"enum","name":"e","symbols":["p","q"]}}},
        {"name":"t","type":{"type":"long","logicalType":"timestamp-nanos"}},
        {"name":"u","type":{"type":"long","logicalType":"local-timestamp-nanos"}},
        {"name":"d","type":{"type":"array","items":{"type":"long","logicalType":"timestamp-millis"}}}"#;
    let mut block = Vec::new();
    let long = |value: i64, block: &mut Vec<u8>| put_long(value, block);
    // First row: each with something in it.
    for value in [3, 1, 1] {
        long(value, &mut block);
    }
    block.push(b'a');
    for value in [0, 1, 2] {
        long(value, &mut block);
    }
    block.extend_from_slice("ä".as_bytes());
    // The end of the list; an entry of the map.
    for value in [0, 1, 1] {
        long(value, &mut block);
    }
    block.push(b'k');
    for value in [-5, 0, 1] {
        long(value, &mut block);
    }
    block.extend_from_slice(&2.5f64.to_le_bytes());
    long(1, &mut block);
    long(1, &mut block);
    block.push(b'y');
    block.extend_from_slice(b"\x00\x7f\xff");
    for value in [2, 1, 0, 0, 1_000_000_001, 2_000_000_002, 1, 3_004, 0] {
        long(value, &mut block);
    }
    // Second row: each with nothing in it.
    for value in [0, 0, 0] {
        long(value, &mut block);
    }
    block.extend_from_slice(b"abc");
    for value in [0, -1, 0, 0] {
        long(value, &mut block);
    }
    let found = found_in(&[file_with(fields, 2, &block)]);
    let schema = &found.facts.schema;
    let ty = |name: &str| schema.field_with_name(name).unwrap().data_type().clone();
    assert_eq!(ty("f"), DataType::FixedSizeBinary(3));
    assert_eq!(ty("t"), DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())));
    assert_eq!(ty("u"), DataType::Timestamp(TimeUnit::Nanosecond, None));
    let (DataType::List(l), DataType::List(e), DataType::List(d)) = (ty("l"), ty("e"), ty("d")) else {
        panic!("lists: {schema}")
    };
    assert_eq!((l.data_type(), e.data_type()), (&DataType::Utf8, &DataType::Utf8));
    assert_eq!(
        d.data_type(),
        &DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
    );
    assert!(matches!(ty("m"), DataType::Map(_, _)) && matches!(ty("s"), DataType::Struct(_)));
    let expected = [
        r#"{"d":["1970-01-01T00:00:03.004Z"],"e":["q","p"],"f":"007fff","l":["a",null,"ä"],"m":{"k":-5},"s":{"x":2.5,"y":"y"},"t":"1970-01-01T00:00:01.000000001Z","u":"1970-01-01T00:00:02.000000002"}"#,
        r#"{"d":[],"e":[],"f":"616263","l":[],"m":{},"s":null,"t":"1969-12-31T23:59:59.999999999Z","u":"1970-01-01T00:00:00"}"#,
    ];
    assert_eq!(shown(&found, None), expected);
    let mut reader = found.open(0, found.facts.domain.high, Some(&["l".to_string()]));
    let lists = reader.next_batch().unwrap().unwrap().batch;
    assert_eq!(lists.column(0).as_list::<i32>().values().null_count(), 1);
    // Each by itself.
    for field in schema.fields() {
        let rows = shown(&found, Some(&[field.name().clone()]));
        for (row, whole) in rows.iter().zip(expected) {
            assert!(whole.contains(&row[1..row.len() - 1]), "{row}");
        }
        assert_eq!(rows.len(), 2);
    }
}

#[test]
fn a_part_of_a_null_record_is_null() {
    let ty = r#"["null",{"type":"record","name":"q","fields":[{"name":"n","type":"long"}]}]"#;
    // NULL, then 7: the number of the type in the union, then the value, both doubled.
    let found = found_in(&[file_of(ty, &[(2, &[0, 2, 14])])]);
    let mut reader = found.open(0, found.facts.domain.high, None);
    let read = reader.next_batch().unwrap().expect("two rows").batch;
    let part = read.column(0).as_struct().column(0).as_primitive::<Int64Type>();
    assert_eq!(part.iter().collect::<Vec<_>>(), [None, Some(7)]);
}

#[test]
fn rows_of_many_files_are_estimated_from_a_few_of_them() {
    const FILES: usize = 60;
    let mut block = Vec::new();
    put_long(200_000, &mut block);
    block.resize(block.len() + 200_000, b'x');
    // The first has no block; places in the others lie behind the only block's beginning.
    let mut files = vec![file_of("\"bytes\"", &[])];
    files.resize(FILES + 1, file_of("\"bytes\"", &[(1, &block)]));
    let found = found_in(&files);
    let facts = &found.facts;
    assert!(facts.bytes > 8 << 20, "more than is counted");
    assert!((55..=65).contains(&facts.rows), "{} of {FILES}", facts.rows);
    // The others are opened once, for their schema.
    let (mut low, mut left) = (0, 0);
    for pinned in &facts.files {
        let high = low + pinned.size;
        if (0..16).any(|place| (low..high).contains(&(facts.bytes * place / 16))) {
            left += 1;
        } else {
            fs::remove_file(found.folder.path().join(&pinned.path)).unwrap();
        }
        low = high;
    }
    assert_eq!(left, 16);
    let rows = rows_of_avro(found.folder.path(), &facts.files, facts.bytes).unwrap();
    assert_eq!(rows, facts.rows);
}

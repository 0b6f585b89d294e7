//! The reader against what it promises: every record once whatever the cuts, the same fields as
//! csv-core, rejects in words with their place.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{Array, AsArray},
    util::display::{ArrayFormatter, FormatOptions},
};
use gapless_common::{
    attempt::RecordHash,
    error::{ErrorClass, TaskError},
    job::{ColumnType, Compression, Delimiter, Dialect},
    plan::{PinnedFile, Unit},
    range::UnitRange,
};
use proptest::prelude::*;

mod dialects;
mod objects;

use super::{CsvReader, Format, Layout, MAX_RECORD, Records, columns_of_header};
use crate::source::{Intake, Reject, SourceReader, pins::pin};

fn format(header: bool) -> Format {
    Format {
        delimiter: Delimiter::COMMA,
        quote: Some(b'"'),
        nulls: vec![String::new()],
        header,
        compression: Compression::Auto,
        dialect: Dialect::default(),
        records: Records::Delimited,
    }
}

/// Files in a folder, read as one source.
struct Case {
    dir: tempfile::TempDir,
    files: Arc<[PinnedFile]>,
    layout: Arc<Layout>,
    unit: Unit,
}

/// What a range gave: rows as text (NULL as `\N`), and the intake.
#[derive(Debug, Default)]
struct Got {
    rows: Vec<Vec<String>>,
    read: u64,
    bytes: u64,
    records: RecordHash,
    rejects: Vec<Reject>,
    /// Each place at which the reader may stop, with the number of records before it.
    stops: Vec<(u64, u64)>,
}

impl Case {
    fn new(files: &[(&str, &[u8])], format: Format, columns: &[(&str, ColumnType)]) -> Case {
        let dir = tempfile::tempdir().unwrap();
        let mut unit = Unit::Byte;
        let mut pins = Vec::new();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
            let (_, mut pinned) = pin(dir.path(), name).unwrap();
            pinned.units = pinned.size;
            if format.reads_from_start(name).unwrap() {
                unit = Unit::File;
            }
            pins.push(pinned);
        }
        if unit == Unit::File {
            pins.iter_mut().for_each(|pinned| pinned.units = 1);
        }
        let columns = columns.iter().map(|(name, ty)| (name.to_string(), *ty)).collect();
        Case {
            dir,
            files: pins.into(),
            layout: Arc::new(Layout::new(format, columns, None).unwrap()),
            unit,
        }
    }

    fn units(&self) -> u64 {
        self.files.iter().map(|pinned| pinned.units).sum()
    }

    fn reader(&self, low: u64, high: u64) -> CsvReader {
        let range = UnitRange::new(low, high);
        CsvReader::new(
            self.layout.clone(),
            self.dir.path().to_path_buf(),
            self.files.clone(),
            0,
            self.unit,
            range,
        )
    }

    fn read(&self, low: u64, high: u64) -> Result<Got, TaskError> {
        let mut reader = self.reader(low, high);
        let mut got = Got::default();
        while let Some(input) = reader.next_batch()? {
            let options = FormatOptions::new().with_null("\\N");
            let columns: Vec<_> = input
                .batch
                .columns()
                .iter()
                .map(|c| ArrayFormatter::try_new(c, &options).unwrap())
                .collect();
            for row in 0..input.batch.num_rows() {
                got.rows
                    .push(columns.iter().map(|column| column.value(row).to_string()).collect());
            }
            for column in input.batch.columns() {
                if let Some(views) = column.as_string_view_opt() {
                    views.to_data().validate_full().unwrap();
                }
            }
            let Intake {
                read,
                bytes,
                records,
                rejects,
                ..
            } = reader.take_intake();
            got.read += read;
            got.bytes += bytes;
            got.records += records;
            got.rejects.extend(rejects);
            if reader.may_stop() {
                got.stops.push((reader.position(), got.read));
            }
        }
        assert_eq!(reader.position(), high);
        Ok(got)
    }

    fn all(&self) -> Got {
        self.read(0, self.units()).unwrap()
    }
}

fn one(content: &str, columns: &[(&str, ColumnType)]) -> Got {
    Case::new(&[("f.csv", content.as_bytes())], format(true), columns).all()
}

const AB: [(&str, ColumnType); 2] = [("a", ColumnType::Int64), ("b", ColumnType::String)];

#[test]
fn fields_become_values() {
    let check = |content: &str, expected: &[&[&str]]| {
        let got = one(content, &AB);
        assert_eq!(got.rejects, [], "{content:?}");
        assert_eq!(got.rows, expected, "{content:?}");
        assert_eq!(got.read as usize, expected.len());
    };
    check("a,b\n1,x\n2,y\n", &[&["1", "x"], &["2", "y"]]);
    check("a,b\n1,x\n2,y", &[&["1", "x"], &["2", "y"]]);
    check("a,b\r\n1,x\r\n2,\"y\"\r\n", &[&["1", "x"], &["2", "y"]]);
    check("\u{feff}a,b\n1,x\n", &[&["1", "x"]]);
    check("a,b\n,\n\"7\",\"\"\n", &[&["\\N", "\\N"], &["7", ""]]);
    check(
        "a,b\n1,\"x,y\"\n2,\"say \"\"hi\"\" to all of them\"\n",
        &[&["1", "x,y"], &["2", "say \"hi\" to all of them"]],
    );
    check(
        "a,b\n1,5\" pipe\n2,\"\"\"q\"\"\"\n",
        &[&["1", "5\" pipe"], &["2", "\"q\""]],
    );
    check("a,b\n\n1,x\n\r\n\n", &[&["1", "x"]]);
    check(
        "a,b\n1,größer als zwölf Bytes\n2,é\n",
        &[&["1", "größer als zwölf Bytes"], &["2", "é"]],
    );
    check("a,b\n", &[]);
    check("a,b", &[]);
    check("", &[]);
    check("\"a\",\"b\"\n1,x\n", &[&["1", "x"]]);
    let single = one("s\nx\n\n\"\"\ny", &[("s", ColumnType::String)]);
    assert_eq!(single.rows, [["x"], ["\\N"], [""], ["y"]]);
}

#[test]
fn every_type_is_read() {
    let columns = [
        ("i8", ColumnType::Int8),
        ("u16", ColumnType::Uint16),
        ("f32", ColumnType::Float32),
        ("f64", ColumnType::Float64),
        (
            "dec",
            ColumnType::Decimal {
                precision: 12,
                scale: 2,
            },
        ),
        ("ok", ColumnType::Bool),
        ("day", ColumnType::Date),
        ("at", ColumnType::Timestamp),
    ];
    let got = one(
        "i8,u16,f32,f64,dec,ok,day,at\n-128,65535,0.5,1e3,17,true,2024-02-29,2024-02-29T01:02:03.5\n,,,,,,,\n",
        &columns,
    );
    assert_eq!(got.rejects, []);
    let row = [
        "-128",
        "65535",
        "0.5",
        "1000.0",
        "17.00",
        "true",
        "2024-02-29",
        "2024-02-29T01:02:03.500",
    ];
    assert_eq!(got.rows, [row, ["\\N"; 8]]);
}

#[test]
fn bad_records_are_rejected_with_place_and_reason() {
    let content = "a,b\n1,x\nx7,y\n3\n4,a,b\n5,\"open\n6,\"a\"b\n99999999999999999999,z\n8,ok\n";
    let got = one(content, &AB);
    assert_eq!(got.rows, [["1", "x"], ["8", "ok"]]);
    assert_eq!(got.read, 8);
    let told: Vec<(u64, &str, &str)> = got
        .rejects
        .iter()
        .map(|r| (r.place.line.unwrap(), r.place.raw.as_str(), r.reason.as_str()))
        .collect();
    let expected = [
        (3, "x7,y", "column a: «x7» is not a whole number"),
        (4, "3", "the record has 1 field, and there are 2 columns"),
        (5, "4,a,b", "the record has 3 fields"),
        (6, "5,\"open", "a quote is still open"),
        (7, "6,\"a\"b", "column b: «\"a\"b» has text behind its closing quote"),
        (
            8,
            "99999999999999999999,z",
            "column a: «99999999999999999999» is not a whole number from -9223372036854775808",
        ),
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((line, raw, reason), (line_, raw_, part)) in told.into_iter().zip(expected) {
        assert_eq!((line, raw), (line_, raw_));
        assert!(reason.contains(part), "{reason}");
    }
    assert!(
        got.rejects
            .iter()
            .all(|reject| reject.rule == "parse" && reject.place.file == "f.csv")
    );
    let case = Case::new(
        &[("f", b"a,b\n1,\xff\n2,caf\xc3\xa9\n3,\"\xff\"\"\"\n")],
        format(true),
        &AB,
    );
    let got = case.all();
    assert_eq!(got.rows, [["2", "café"]]);
    assert!(
        got.rejects[0].reason.contains("is not text in UTF-8"),
        "{:?}",
        got.rejects
    );
    assert_eq!(got.rejects[1].place.line, Some(4));
}

#[test]
fn null_texts_and_quotes_are_as_declared() {
    let mut form = format(true);
    form.nulls = vec!["NA".into(), "-1".into()];
    form.delimiter = Delimiter::of_byte(b';');
    form.quote = None;
    let case = Case::new(&[("f", b"a;b\nNA;\"NA\"\n-1;NA\n2;\n")], form, &AB);
    let got = case.all();
    assert_eq!(got.rejects, []);
    assert_eq!(got.rows, [["\\N", "\"NA\""], ["\\N", "\\N"], ["2", ""]]);
}

#[test]
fn headers_are_checked() {
    let declared = [("b".to_string(), ColumnType::Int64)];
    let of = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        columns_of_header("f.csv", &names, &declared).map_err(|error| error.message)
    };
    assert_eq!(
        of(&["a", "b"]).unwrap(),
        [("a".into(), ColumnType::String), ("b".into(), ColumnType::Int64)]
    );
    assert!(of(&["a"]).unwrap_err().contains("no column b"));
    assert!(of(&["b", "a", "b"]).unwrap_err().contains("column b twice"));
    let files: [(&str, &[u8]); 2] = [("1.csv", b"a,b\n1,x\n"), ("2.csv", b"b,a\n1,x\n")];
    let error = Case::new(&files, format(true), &AB).read(0, 16).unwrap_err();
    assert_eq!(error.class, ErrorClass::Config);
    assert!(error.message.starts_with("2.csv: its header differs"), "{error}");
}

#[test]
fn a_line_without_end_is_refused_in_bounded_memory() {
    let mut content = b"a,b\n1,x\n2,".to_vec();
    content.resize(MAX_RECORD + 1024 * 1024, b'y');
    let case = Case::new(&[("f.csv", &content)], format(true), &AB);
    let error = case.read(0, case.units()).map(|got| got.read).unwrap_err();
    assert_eq!(error.class, ErrorClass::Data);
    assert!(
        error.message.contains("f.csv: the line at byte 8 has no end"),
        "{error}"
    );
    let error = case.read(100, case.units()).map(|got| got.read).unwrap_err();
    assert_eq!(error.class, ErrorClass::Data);
    // A long record below the limit is one record.
    content.truncate(3 * 1024 * 1024);
    content.extend_from_slice(b"\n3,z\n");
    let case = Case::new(&[("f.csv", &content)], format(true), &AB);
    let got = case.all();
    assert_eq!(
        got.rows.iter().map(|row| row[1].len()).collect::<Vec<_>>(),
        [1, 3 * 1024 * 1024 - 10, 1]
    );
}

#[test]
fn a_file_that_changed_is_refused() {
    let case = Case::new(&[("f.csv", b"a,b\n1,x\n")], format(true), &AB);
    std::fs::write(case.dir.path().join("f.csv"), "a,b\n1,x\n2,y\n").unwrap();
    let error = case.read(0, 8).unwrap_err();
    assert!(error.message.contains("changed after planning"), "{error}");
    std::fs::remove_file(case.dir.path().join("f.csv")).unwrap();
    assert_eq!(case.read(0, 8).unwrap_err().class, ErrorClass::Config);
}

fn gzip(content: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_files_are_units_and_must_be_whole() {
    let text = "a,b\n1,x\n2,y\n".to_string() + &(3..200_000).map(|i| format!("{i},some text\n")).collect::<String>();
    let (zipped, zstd) = (gzip(text.as_bytes()), zstd::encode_all(text.as_bytes(), 1).unwrap());
    let files: [(&str, &[u8]); 3] = [("1.csv.gz", &zipped), ("2.csv.zst", &zstd), ("3.csv", b"a,b\n7,z")];
    let case = Case::new(&files, format(true), &AB);
    assert_eq!(case.units(), 3);
    let all = case.all();
    assert_eq!(all.read, 2 * 199_999 + 1);
    assert_eq!(
        all.bytes,
        files.iter().map(|(_, content)| content.len() as u64).sum::<u64>() - 4
    );
    let mut sum = RecordHash::default();
    for unit in 0..3 {
        sum += case.read(unit, unit + 1).unwrap().records;
    }
    assert_eq!(sum, all.records);
    let mut reader = case.reader(0, 3);
    reader.next_batch().unwrap();
    assert_eq!((reader.position(), reader.may_stop()), (0, false));
    for (name, whole) in [("1.csv.gz", &zipped), ("2.csv.zst", &zstd)] {
        let case = Case::new(&[(name, &whole[..whole.len() / 2])], format(true), &AB);
        let error = case.read(0, 1).unwrap_err();
        assert_eq!(error.class, ErrorClass::Data, "{error}");
        assert!(error.message.contains("cut off"), "{error}");
    }
}

#[test]
fn line_numbers_hold_in_every_range() {
    let content: String = (0..20_000)
        .map(|i| {
            if i % 1000 == 7 {
                "bad,x\n".into()
            } else {
                format!("{i},t\n")
            }
        })
        .collect();
    let content = format!("a,b\n{content}");
    let case = Case::new(&[("f.csv", content.as_bytes())], format(true), &AB);
    let expected: Vec<u64> = (0..20).map(|i| i * 1000 + 7 + 2).collect();
    let cuts = [0, 1, 3, 5000, 40_000, 40_001, 90_000, case.units()];
    let mut lines = Vec::new();
    // Later ranges first: nothing is known of what stands before them.
    for pair in cuts.windows(2).rev() {
        let rejects = case.read(pair[0], pair[1]).unwrap().rejects;
        lines.extend(rejects.iter().rev().map(|reject| reject.place.line.unwrap()));
    }
    lines.reverse();
    assert_eq!(lines, expected);
}

/// What csv-core makes of each line: its fields, or `None` where the number of fields is wrong.
fn reference(content: &[u8], columns: usize) -> Vec<Option<Vec<String>>> {
    let content = content.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(content);
    let mut records = Vec::new();
    for line in content.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let mut reader = csv_core::Reader::new();
        let (mut out, mut ends) = (vec![0; line.len() + 8], vec![0; line.len() + 8]);
        let mut line = line.to_vec();
        line.push(b'\n');
        let (_, _, written, count) = reader.read_record(&line, &mut out, &mut ends);
        let mut fields = Vec::new();
        let mut start = 0;
        for &end in &ends[..count] {
            fields.push(String::from_utf8_lossy(&out[start..end]).into_owned());
            start = end;
        }
        let _ = written;
        records.push((count == columns).then_some(fields));
    }
    records
}

/// Lines of ordinary, quoted and odd fields, without text behind a closing quote (which csv-core
/// takes and we reject) and without quotes left open.
fn line() -> impl Strategy<Value = String> {
    let plain = "[a-zé0-9 ;'-]{0,20}";
    let quoted = "[a-z,é0-9 ]{0,20}(\"\")?[a-z,]{0,12}".prop_map(|inner: String| format!("\"{inner}\""));
    let stray = "[a-z]{1,3}\"[a-z\"]{0,4}";
    let field = prop_oneof![6 => plain, 3 => quoted, 1 => stray];
    let fields = prop_oneof![8 => prop::collection::vec(field.clone(), 3), 1 => prop::collection::vec(field, 0..6)];
    (
        fields,
        prop_oneof![4 => Just("\n"), 1 => Just("\r\n"), 1 => Just("\n\n")],
    )
        .prop_map(|(fields, end)| fields.join(",") + end)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_cut_gives_each_record_once(
        texts in prop::collection::vec((prop::collection::vec(line(), 0..60), any::<bool>(), any::<bool>()), 1..4),
        header in any::<bool>(),
        cuts in prop::collection::vec(0.0..1.0f64, 0..12),
    ) {
        let columns = [("x", ColumnType::String), ("y", ColumnType::String), ("z", ColumnType::String)];
        let mut contents = Vec::new();
        let mut expected = Vec::new();
        for (lines, bom, unfinished) in texts {
            let mut text = lines.concat();
            if unfinished {
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
            }
            expected.extend(reference(text.as_bytes(), 3));
            contents.push(format!("{}{}{text}", if bom { "\u{feff}" } else { "" }, if header { "x,y,z\n" } else { "" }));
        }
        let names: Vec<String> = (0..contents.len()).map(|i| format!("{i}.csv")).collect();
        let files: Vec<(&str, &[u8])> =
            names.iter().zip(&contents).map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
        let mut form = format(header);
        form.nulls = vec!["no such text".into()];
        let case = Case::new(&files, form, &columns);
        let all = case.all();
        let good: Vec<Vec<String>> = expected.iter().flatten().cloned().collect();
        prop_assert_eq!(&all.rows, &good);
        prop_assert_eq!(all.read as usize, expected.len());
        prop_assert_eq!(all.rejects.len(), expected.len() - good.len());

        let units = case.units();
        let mut points: Vec<u64> = cuts.iter().map(|cut| (cut * (units + 1) as f64) as u64).collect();
        points.extend([0, units]);
        points.sort_unstable();
        let (mut rows, mut records, mut rejects, mut read) = (Vec::new(), RecordHash::default(), Vec::new(), 0);
        for pair in points.windows(2) {
            let part = case.read(pair[0], pair[1]).unwrap();
            rows.extend(part.rows);
            records += part.records;
            rejects.extend(part.rejects);
            read += part.read;
        }
        prop_assert_eq!(rows, good);
        prop_assert_eq!(records, all.records);
        prop_assert_eq!(rejects, all.rejects);
        prop_assert_eq!(read, all.read);
    }

    #[test]
    fn any_bytes_are_counted_and_never_panic(
        content in prop::collection::vec(prop_oneof![
            3 => prop::sample::select(&b",\"\n\r01-."[..]), 1 => any::<u8>()], 0..600),
        cut in 0.0..1.0f64,
    ) {
        let columns = [("x", ColumnType::String), ("y", ColumnType::Decimal { precision: 5, scale: 1 })];
        let case = Case::new(&[("f", &content)], format(false), &columns);
        let all = case.all();
        prop_assert_eq!(all.rows.len() + all.rejects.len(), all.read as usize);
        let at = (cut * content.len() as f64) as u64;
        let (left, right) = (case.read(0, at).unwrap(), case.read(at, case.units()).unwrap());
        prop_assert_eq!(left.read + right.read, all.read);
        let mut sum = left.records;
        sum += right.records;
        prop_assert_eq!(sum, all.records);
        let rejects: Vec<Reject> = left.rejects.into_iter().chain(right.rejects).collect();
        prop_assert_eq!(rejects, all.rejects);
    }
}

#[test]
fn a_reader_opened_at_any_stop_gives_the_rest() {
    let mut content = String::from("a,b\n");
    for i in 0..120_000 {
        content.push_str(&format!("{i},\"text, {}\"\n", "x".repeat(i % 40)));
    }
    let half = content.len() / 2;
    let files: [(&str, &[u8]); 3] = [
        ("1", content.as_bytes()),
        ("2", b"a,b\n"),
        ("3", &content.as_bytes()[..half]),
    ];
    let case = Case::new(&files, format(true), &AB);
    let all = case.all();
    assert!(all.stops.len() > 5);
    for &(position, before) in &all.stops {
        let rest = case.read(position, case.units()).unwrap();
        assert_eq!(
            rest.rows,
            all.rows[(before as usize).min(all.rows.len())..],
            "from {position}"
        );
    }
    assert!(Path::new(&case.dir.path().join("1")).exists());
}

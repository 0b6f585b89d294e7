//! The reader against what it promises: every record once whatever the cuts, typed fields, rejects in words
//! with their place, totals over the whole file.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use gapless_common::{
    attempt::RecordHash,
    error::TaskError,
    job::{Source, parse},
    manifest::FileTotals,
    plan::{PinnedFile, Unit},
    range::UnitRange,
};
use proptest::prelude::*;

use super::{RecordsReader, Shape};
use crate::source::{Reject, SourceReader, pins::pin};

/// A file of a layout as it stands in a job file.
struct Case {
    dir: tempfile::TempDir,
    files: Arc<[PinnedFile]>,
    shape: Arc<Shape>,
}

#[derive(Debug, Default, PartialEq)]
struct Got {
    rows: Vec<String>,
    read: u64,
    records: RecordHash,
    rejects: Vec<Reject>,
    totals: Vec<FileTotals>,
    stops: Vec<u64>,
}

fn shape(layout: &str) -> Shape {
    let text = format!("{{job: j, steps: [{{name: a, sink: discard, source: {{records: {{path: x, {layout}}}}}}}]}}");
    let job = parse(&text, "j").and_then(|job| job.bind(&BTreeMap::new()));
    let job = job.unwrap_or_else(|errors| panic!("{errors}")).0;
    match &job.steps[0].source {
        Source::Records(records) => Shape::new(&records.layout, None).unwrap(),
        other => panic!("{other:?}"),
    }
}

impl Case {
    fn new(layout: &str, content: &str) -> Case {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f.txt"), content).unwrap();
        let (_, mut pinned) = pin(dir.path(), "f.txt").unwrap();
        pinned.units = pinned.size;
        Case {
            dir,
            files: vec![pinned].into(),
            shape: Arc::new(shape(layout)),
        }
    }

    fn size(&self) -> u64 {
        self.files[0].size
    }

    fn read(&self, low: u64, high: u64) -> Result<Got, TaskError> {
        let (base, files) = (self.dir.path().to_path_buf(), self.files.clone());
        let mut reader = RecordsReader::new(
            self.shape.clone(),
            base,
            files,
            0,
            Unit::Byte,
            UnitRange::new(low, high),
        );
        let mut got = Got::default();
        while let Some(input) = reader.next_batch()? {
            let options = FormatOptions::new().with_null("\\N");
            let columns: Vec<_> = input.batch.columns().iter().collect();
            let columns: Vec<_> = columns
                .iter()
                .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
                .collect();
            for row in 0..input.batch.num_rows() {
                let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
                got.rows.push(values.join("|"));
                assert_eq!(Path::new(&input.origin.locate(row).file), Path::new("f.txt"));
            }
            got.take(&mut reader);
        }
        got.take(&mut reader);
        Ok(got)
    }

    fn whole(&self) -> Got {
        self.read(0, self.size()).unwrap()
    }

    /// Every cut in two gives what the whole gives, and so does going on from every place to stop.
    fn check_cuts(&self) {
        let whole = self.whole();
        for cut in 0..=self.size() {
            let mut got = self.read(0, cut).unwrap();
            got.add(self.read(cut, self.size()).unwrap());
            got.stops.clone_from(&whole.stops);
            assert_eq!(got, whole, "cut at {cut}");
        }
        for &stop in &whole.stops {
            let before = self.read(0, stop).unwrap();
            let behind = self.read(stop, self.size()).unwrap();
            assert_eq!(before.read + behind.read, whole.read, "stop at {stop}");
        }
    }
}

impl Got {
    fn take(&mut self, reader: &mut RecordsReader) {
        let intake = reader.take_intake();
        self.read += intake.read;
        self.records += intake.records;
        self.rejects.extend(intake.rejects);
        FileTotals::add_all(&mut self.totals, intake.totals).unwrap();
        self.stops.push(reader.position());
    }

    fn add(&mut self, more: Got) {
        self.rows.extend(more.rows);
        self.read += more.read;
        self.records += more.records;
        self.rejects.extend(more.rejects);
        FileTotals::add_all(&mut self.totals, more.totals).unwrap();
    }

    fn reasons(&self) -> Vec<String> {
        let shown = |reject: &Reject| format!("{}: {}", reject.place.line.unwrap_or(0), reject.reason);
        self.rejects.iter().map(shown).collect()
    }

    fn counted(&self) -> Vec<String> {
        let totals = self.totals.iter().flat_map(|file| &file.totals);
        totals
            .map(|total| format!("{}: {} / {}", total.what, total.declared, total.counted))
            .collect()
    }
}

const ACCOUNTS: &str = r#"fields: [{name: id, width: 4, type: int64, pad: zero}, {name: city, width: 6}, {name: sum,
    width: 7, type: "decimal(9,2)", point: implied, pad: zero}, {name: day, width: 10, type: date}]"#;

#[test]
fn fields_by_place_become_typed_columns() {
    let text = "0001Oslo  00012342026-11-20\n0002Zürich-0000502026-01-01\r\n\n0003      0000000          \n";
    let case = Case::new(ACCOUNTS, text);
    let got = case.whole();
    assert_eq!(
        got.rows,
        ["1|Oslo|12.34|2026-11-20", "2|Zürich|-0.50|2026-01-01", "3|\\N|0.00|\\N"]
    );
    assert_eq!((got.read, got.rejects.len()), (3, 0));
    case.check_cuts();
}

#[test]
fn what_is_no_record_of_the_layout_is_rejected_with_its_line_and_why() {
    let text = "0001Oslo  00012342026-11-20\n0002Oslo  0001234\n00x3Oslo  00012342026-11-20\n\
                0004Oslo  00012342026-02-30\n";
    let case = Case::new(ACCOUNTS, text);
    let got = case.whole();
    assert_eq!(got.rows, ["1|Oslo|12.34|2026-11-20"]);
    assert_eq!(
        got.reasons(),
        [
            "2: a line of type line has 27 characters, this one has 17",
            "3: field id: «00x3» is not a whole number from -9223372036854775808 to 9223372036854775807",
            "4: field day: «2026-02-30» is not a date (YYYY-MM-DD)",
        ]
    );
    assert_eq!(got.rejects[1].place.raw, "00x3Oslo  00012342026-11-20");
    case.check_cuts();
}

#[test]
fn lines_tell_their_type_and_share_columns() {
    let layout = r#"lines: [{tag: A, fields: [{name: id, width: 2}, {name: name, width: 3}]},
        {tag: B, tag_at: 3, name: pay, fields: [{name: id, at: 1, width: 2}, {name: sum, at: 4, width: 3, type: int32}]}]"#;
    let case = Case::new(layout, "A01Ann\n02B 17\nC03   \nA03Bob\n");
    let got = case.whole();
    assert_eq!(got.rows, ["A|01|Ann|\\N", "pay|02|\\N|17", "A|03|Bob|\\N"]);
    assert_eq!(
        got.reasons(),
        ["3: the line is of no type of the layout, whose tags are A, B"]
    );
    case.check_cuts();
}

const ORDERS: &str = r##"delimiter: ";", multiline: true, comment: "#",
    header: {tag: FH, fields: [{name: day}]},
    trailer: {tag: FT, fields: [{name: orders, type: int64, count: records}, {name: total, type: "decimal(12,2)", sum:
      total}, {name: pieces, type: int64, sum: item.pieces}, {name: lines, type: int64, count: lines}]},
    lines: [{tag: O, fields: [{name: id, type: int64}]}, {tag: N, optional: true, present: noted, fields: [{name: note}]},
      {tag: I, name: item, repeats: true, fields: [{name: sku}, {name: pieces, type: int32}]},
      {tag: E, fields: [{name: total, type: "decimal(8,2)"}]}]"##;

#[test]
fn a_group_of_lines_is_one_record() {
    let text = "# orders\nFH;2026-11-20\nO;1\nN;fast\nI;a;2\nI;b;1\nE;10.50\n# between\nO;2\nI;c;5\nE;4.00\nO;3\nN;\nI;d;1\n\
                E;0.25\nFT;3;14.75;9;12\n";
    let case = Case::new(ORDERS, text);
    let got = case.whole();
    assert_eq!(
        got.rows,
        [
            "1|true|fast|[{sku: a, pieces: 2}, {sku: b, pieces: 1}]|10.50",
            "2|false|\\N|[{sku: c, pieces: 5}]|4.00",
            "3|true|\\N|[{sku: d, pieces: 1}]|0.25",
        ]
    );
    assert_eq!(
        got.counted(),
        [
            "`orders` of the trailer, the number of records: 3 / 3",
            "`total` of the trailer, the sum of total: 14.75 / 14.75",
            "`pieces` of the trailer, the sum of item.pieces: 9 / 9",
            "`lines` of the trailer, the number of lines: 12 / 12",
        ]
    );
    case.check_cuts();
}

#[test]
fn a_group_that_is_not_what_the_layout_says_is_rejected_as_a_whole() {
    let text = "FH;x\nI;a;1\nO;1\nE;1\nI;b;2\nO;2\nI;a;1\nO;3\nI;a;x\nE;1\nO;4\nI;a;1\nE;1\nX\nO;5\nI;z;3;4\nE;1\n\
                FT;5;0;0;0\n";
    let case = Case::new(ORDERS, text);
    let got = case.whole();
    assert_eq!(
        got.reasons(),
        [
            "2: its first line: a line of type item before any of type O, with which a record begins",
            "3: line 5: a line of type item behind one of type E; the layout has it before",
            "6: the record has no line of type E",
            "8: line 9: field pieces: «x» is not a whole number from -2147483648 to 2147483647",
            "11: line 14: the line is of no type of the layout, whose tags are O, N, I, E",
            "15: line 16: a line of type item has 2 fields, this one has 3",
        ]
    );
    assert_eq!((got.read, got.rows.len()), (6, 0));
    assert_eq!(got.rejects[2].place.raw, "O;2\nI;a;1");
    case.check_cuts();
}

fn fails(layout: &str, text: &str) -> String {
    let case = Case::new(layout, text);
    case.read(0, case.size().max(1)).unwrap_err().message
}

#[test]
fn header_and_trailer_are_what_the_layout_says_or_the_file_is_refused() {
    let layout = "fields: [{name: a, width: 1}], header: {tag: H, fields: [{value: \"01\"}]}, trailer: {tag: T, fields: \
                  [{name: n, width: 3, type: int64, pad: zero, count: records}]}";
    assert_eq!(
        fails(layout, "x\nT001\n"),
        "f.txt: the header is missing: the first line, «x», has not its tag «H»; the file was cut off, or is not of this \
         layout"
    );
    assert_eq!(
        fails(layout, "H01\nx\n"),
        "f.txt: the trailer is missing: the last line, «x», has not its tag «T»; the file was cut off, or is not of this \
         layout"
    );
    assert_eq!(
        fails(layout, "H01\n"),
        "f.txt: the trailer is missing: no line stands behind the header; the file was cut off, or is not of this layout"
    );
    assert_eq!(
        fails(layout, "H02\nx\nT001\n"),
        "f.txt: the header, «H02»: «02» stands where the layout says «01»"
    );
    assert_eq!(
        fails(layout, "H01\nx\nT0x1\n"),
        "f.txt: the trailer, «T0x1»: `n` of the trailer, the number of records: «0x1» is no such number"
    );
    // Without an end of the last line, with empty lines behind it, and without a record.
    for text in ["H01\nx\nT001", "H01\nx\nT001\n\n\r\n", "H01\r\nT001\r\n"] {
        let case = Case::new(layout, text);
        case.check_cuts();
        let records = u64::from(text.contains('x'));
        let expected = format!("`n` of the trailer, the number of records: 1 / {records}");
        assert_eq!(case.whole().counted(), [expected], "{text:?}");
    }
}

#[test]
fn a_line_without_end_is_told_in_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("f.txt")).unwrap();
    file.set_len(1 << 30).unwrap();
    let (_, mut pinned) = pin(dir.path(), "f.txt").unwrap();
    pinned.units = pinned.size;
    let shape = Arc::new(shape("fields: [{name: a, width: 1}]"));
    let range = UnitRange::new(0, pinned.size);
    let mut reader = RecordsReader::new(
        shape,
        dir.path().to_path_buf(),
        vec![pinned].into(),
        0,
        Unit::Byte,
        range,
    );
    let error = reader.next_batch().err().expect("no line ends");
    assert!(
        error
            .message
            .contains("the record at byte 0 has no end within 16777216 bytes"),
        "{error}"
    );
}

/// Of a packed file the end is looked for a stretch at a time, and text without records is passed over so too: whoever
/// waits sees that it goes on, and may stop it.
#[test]
fn text_that_is_passed_over_is_told_a_stretch_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let text = ["\n".repeat(5 * super::PASS as usize / 2), "R1\nT1\n".to_string()].concat();
    std::fs::write(dir.path().join("f.zst"), zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    let (_, mut pinned) = pin(dir.path(), "f.zst").unwrap();
    pinned.units = 1;
    let lines = "lines: [{tag: R, fields: [{name: id, width: 1}]}]";
    let counted = "trailer: {tag: T, fields: [{name: n, width: 1, type: int64, count: records}]}";
    for (layout, looked) in [(lines.to_string(), 0), (format!("{lines}, {counted}"), 2)] {
        let mut reader = RecordsReader::new(
            Arc::new(shape(&layout)),
            dir.path().to_path_buf(),
            vec![pinned.clone()].into(),
            0,
            Unit::File,
            UnitRange::new(0, 1),
        );
        let mut stops = Vec::new();
        let mut seen = 0;
        let rows = loop {
            let read = reader.next_batch().unwrap().expect("a record");
            if read.batch.num_rows() > 0 {
                break read.batch.num_rows();
            }
            assert!(reader.passed() > seen, "something moves");
            seen = reader.passed();
            stops.push(reader.may_stop());
        };
        assert_eq!((rows, reader.passed()), (1, 0));
        assert_eq!(stops.iter().filter(|stop| **stop).count(), looked, "{layout}");
        assert!(stops.len() > looked, "empty lines are passed over by blocks");
        assert!(reader.next_batch().unwrap().is_none());
        assert_eq!(
            reader.take_intake().bytes,
            text.len() as u64 - if looked > 0 { 3 } else { 0 }
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Hostile text, cut anywhere: nothing is lost, read twice or out of bounds.
    #[test]
    fn any_text_cut_anywhere_gives_each_record_once(
        lines in prop::collection::vec("(O;[0-9]|I;[a-z];[0-9x]|E;[0-9]|N;|#c|[ -~é]{0,6}|O)\r?", 0..24),
        ended in any::<bool>(),
    ) {
        let mut text = lines.join("\n");
        if ended {
            text.push('\n');
        }
        for layout in [
            r##"delimiter: ";", multiline: true, comment: "#", lines: [{tag: O, fields: [{name: id, type: int64}]}, {tag: N,
                optional: true, fields: [{name: note}]}, {tag: I, optional: true, repeats: true, fields: [{name: s}, {name: p,
                type: int8}]}, {tag: E, fields: [{name: t, type: "decimal(3,1)"}]}]"##,
            r#"lines: [{tag: "O;", fields: [{name: a, width: 1, type: int8}]}, {tag: I, fields: [{name: b, width: 4}]}]"#,
        ] {
            Case::new(layout, &text).check_cuts();
        }
    }
}

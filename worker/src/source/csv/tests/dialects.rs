//! Delimited text beyond one line for each record, in UTF-8: each kind gives what the plain form of the
//! same table gives.

use gapless_common::job::{Encoding, Newline};

use super::*;

fn dialect(change: impl FnOnce(&mut Dialect)) -> Format {
    let mut format = format(true);
    change(&mut format.dialect);
    format
}

fn read(content: &[u8], format: Format) -> Got {
    let case = Case::new(&[("f.csv", content)], format, &AB);
    let all = case.all();
    assert_eq!(all.rows.len() + all.rejects.len(), all.read as usize);
    all
}

fn told(got: &Got) -> Vec<(u64, &str, &str)> {
    let told = |reject: &'_ Reject| reject.place.line.unwrap();
    got.rejects
        .iter()
        .map(|reject| (told(reject), reject.place.raw.as_str(), reject.reason.as_str()))
        .collect()
}

#[test]
fn a_quoted_field_may_span_lines() {
    let format = dialect(|dialect| dialect.multiline = true);
    let content = b"\"a\",b\r\n1,\"x\ny\r\n\"\r\n2,z\n\n\"3\",\"\"\"q\"\",\n\"\nbad,\"u\nv\"\n5,w";
    let got = read(content, format);
    assert_eq!(got.rows, [["1", "x\ny\r\n"], ["2", "z"], ["3", "\"q\",\n"], ["5", "w"]]);
    let found = told(&got);
    assert_eq!((found[0].0, found[0].1), (9, "bad,\"u\nv\""));
    assert!(found[0].2.contains("column a: «bad» is not a whole number"));
    // The names of columns too.
    let mut format = dialect(|dialect| dialect.multiline = true);
    format.nulls = vec!["NULL".into()];
    let case = Case::new(
        &[("f.csv", b"a,\"b\nc\"\n1,NULL\n2,\"NULL\"\n")],
        format,
        &[("a", ColumnType::Int64), ("b\nc", ColumnType::String)],
    );
    assert_eq!(case.all().rows, [["1", "\\N"], ["2", "NULL"]]);
}

#[test]
fn a_quote_that_is_never_closed_is_told_with_its_line() {
    let format = dialect(|dialect| dialect.multiline = true);
    let got = read(b"a,b\n1,x\n2,\"open\n3,y\n4,z\n", format.clone());
    assert_eq!(got.rows, [["1", "x"]]);
    let found = told(&got);
    assert_eq!((found.len(), found[0].0, found[0].1), (1, 3, "2,\"open\n3,y\n4,z"));
    assert!(
        found[0]
            .2
            .contains("a quote is still open at the end of the file, 2 lines further on")
    );

    let mut content = b"a,b\n1,x\n2,\"".to_vec();
    for _ in 0..MAX_RECORD / 4 + 100_000 {
        content.extend_from_slice(b"7,y\n");
    }
    let case = Case::new(&[("f.csv", &content)], format, &AB);
    let error = case.read(0, case.units()).map(|got| got.read).unwrap_err();
    assert_eq!(error.class, ErrorClass::Data);
    let expected = "f.csv: the record at byte 8 (line 3) has no end within 16777216 bytes: a quote that opens in it";
    assert!(error.message.starts_with(expected), "{error}");
}

#[test]
fn escapes_are_taken_out() {
    let mut format = dialect(|dialect| dialect.escape = Some(b'\\'));
    format.nulls = vec!["\\N".into()];
    let got = read(
        b"a,b\n1,x\\,y\n2,\"say \\\"hi\\\" to \\\\ all\"\n\\N,\\N\n3,\"\\N\"\n4,a \"\"quoted\"\" word, no\n5,caf\xc3\xa9 \\\xc3\xa9\n6,end\\",
        format,
    );
    assert_eq!(
        got.rows,
        [
            ["1", "x,y"],
            ["2", "say \"hi\" to \\ all"],
            ["\\N", "\\N"],
            ["3", "N"],
            ["5", "café é"]
        ]
    );
    let found = told(&got);
    assert_eq!((found[0].0, found[1].0), (6, 8));
    assert!(found[0].2.contains("3 fields"), "{found:?}");
    assert!(found[1].2.contains("behind its closing quote"), "{found:?}");
}

/// The fast scan and the exact one give the same of the same table.
#[test]
fn a_delimiter_of_several_characters_gives_what_a_comma_gives() {
    let content = "a,b\n1,x\n2,\"say \"\"hi\"\"\"\n3,\n,\"\"\r\nx,y\n4,é£\r\n5,a,b\n6,\"q\n7,one|~ of| them\n8,last";
    let comma = read(content.as_bytes(), format(true));
    assert_eq!((comma.rows.len(), comma.rejects.len()), (7, 3));
    for delimiter in ["||", "§", "~|~", "::", " |"] {
        let mut format = format(true);
        format.delimiter = Delimiter::of_text(delimiter).unwrap();
        let content = content.replace(',', delimiter);
        let case = Case::new(&[("f.csv", content.as_bytes())], format.clone(), &AB);
        let all = case.all();
        assert_eq!(all.rows, comma.rows, "{delimiter}");
        let lines = |got: &Got| got.rejects.iter().map(|reject| reject.place.line).collect::<Vec<_>>();
        assert_eq!(lines(&all), lines(&comma), "{delimiter}");
        assert_eq!(told(&all)[1].1, format!("5{delimiter}a{delimiter}b"));
        // At whatever byte the file is cut, each record is read once.
        for cut in 0..=case.units() {
            let (left, right) = (case.read(0, cut).unwrap(), case.read(cut, case.units()).unwrap());
            assert_eq!([left.rows, right.rows].concat(), all.rows, "{delimiter} cut at {cut}");
        }
    }
}

#[test]
fn comments_and_lines_before_the_header_are_no_records() {
    let format = dialect(|dialect| {
        dialect.comment = Some(b'#');
        dialect.skip_lines = 2;
    });
    let content = b"\xEF\xBB\xBFA report, \"of\nNovember\n# the columns\na,b\n# \"one\n1,x\n#,\n2,#y\n#";
    let case = Case::new(&[("f.csv", content)], format, &AB);
    let all = case.all();
    assert_eq!(all.rows, [["1", "x"], ["2", "#y"]]);
    assert_eq!((all.read, all.rejects.len()), (2, 0));
    for cut in 0..=case.units() {
        let (left, right) = (case.read(0, cut).unwrap(), case.read(cut, case.units()).unwrap());
        assert_eq!([left.rows, right.rows].concat(), all.rows, "cut at {cut}");
    }
    let mut format = dialect(|dialect| dialect.skip_lines = 9);
    assert_eq!(read(b"a,b\n1,x\n", format.clone()).read, 0);
    format.dialect.skip_lines = 1;
    format.header = false;
    assert_eq!(read(b"title\n1,x\n", format).rows, [["1", "x"]]);
}

#[test]
fn a_line_may_end_in_cr_alone() {
    let format = dialect(|dialect| dialect.newline = Newline::Cr);
    let got = read(b"a,b\r1,x\r\r2,\"y\"\rz,w\r3,v", format);
    assert_eq!(got.rows, [["1", "x"], ["2", "y"], ["3", "v"]]);
    assert_eq!((told(&got)[0].0, told(&got)[0].1), (5, "z,w"));
}

#[test]
fn other_encodings_are_read_as_declared() {
    let text = "a,b\n1,größer als zwölf Zeichen\n2,\"é\"\nzwölf,x\n4,ü\n";
    let plain = read(text.as_bytes(), format(true));
    let utf16 = |order: fn(u16) -> [u8; 2], mark: bool| {
        let text = if mark { format!("\u{feff}{text}") } else { text.into() };
        text.encode_utf16().flat_map(order).collect::<Vec<u8>>()
    };
    let latin: Vec<u8> = text.chars().map(|sign| sign as u8).collect();
    let cases = [
        (Encoding::Latin1, latin.clone()),
        (Encoding::Windows1252, latin),
        (Encoding::Utf16Le, utf16(u16::to_le_bytes, false)),
        (Encoding::Utf16Le, utf16(u16::to_le_bytes, true)),
        (Encoding::Utf16Be, utf16(u16::to_be_bytes, false)),
        (Encoding::Utf16, utf16(u16::to_le_bytes, true)),
        (Encoding::Utf16, utf16(u16::to_be_bytes, true)),
    ];
    for (encoding, bytes) in cases {
        let got = read(&bytes, dialect(|dialect| dialect.encoding = encoding));
        assert_eq!(got.rows, plain.rows, "{encoding:?}");
        assert_eq!(got.rejects, plain.rejects, "{encoding:?}");
        assert_eq!(got.records, plain.records, "{encoding:?}");
    }
    let form = dialect(|dialect| dialect.encoding = Encoding::Utf16);
    let case = Case::new(&[("f.csv", b"a,b\n1,x\n")], form, &AB);
    let error = case.read(0, 1).map(|got| got.read).unwrap_err();
    assert!(error.message.starts_with("f.csv: no byte order mark"), "{error}");
    // Half of a pair is no character.
    let mut bytes: Vec<u8> = "a,b\n1,".encode_utf16().flat_map(u16::to_le_bytes).collect();
    bytes.extend_from_slice(b"=\xd8x\0\n\0");
    let got = read(&bytes, dialect(|dialect| dialect.encoding = Encoding::Utf16Le));
    assert!(
        told(&got)[0].2.ends_with("is not text in utf-16le"),
        "{:?}",
        got.rejects
    );
}

#[test]
fn a_file_that_is_compressed_and_encoded_is_read_as_both() {
    let text: String = (0..50_000).map(|i| format!("{i},\"é\n{i}\"\n")).collect();
    let text = format!("a,b\n{text}");
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let form = dialect(|dialect| {
        dialect.encoding = Encoding::Utf16Be;
        dialect.multiline = true;
    });
    let packed = zstd::encode_all(&bytes[..], 1).unwrap();
    let case = Case::new(&[("f.csv.zst", &packed)], form, &AB);
    let all = case.all();
    assert_eq!((all.read, all.rejects.len()), (50_000, 0));
    assert_eq!(all.rows[49_999], ["49999", "é\n49999"]);
}

/// What csv-core makes of a text whose records may span lines.
fn reference(content: &[u8]) -> Vec<Vec<String>> {
    let mut reader = csv_core::Reader::new();
    let (mut out, mut ends) = (vec![0; content.len() + 8], vec![0; content.len() + 8]);
    let mut rest = content;
    let mut records = Vec::new();
    loop {
        let (result, used, _, count) = reader.read_record(rest, &mut out, &mut ends);
        rest = &rest[used..];
        match result {
            csv_core::ReadRecordResult::Record => {
                let starts = [0].into_iter().chain(ends.iter().copied());
                let fields = starts.zip(&ends[..count]).map(|(from, &to)| &out[from..to]);
                records.push(
                    fields
                        .map(|field| String::from_utf8_lossy(field).into_owned())
                        .collect(),
                );
            }
            csv_core::ReadRecordResult::End => return records,
            // The next call is told that there is no more.
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_exact_way_agrees_with_the_fast_one(
        content in prop::collection::vec(prop_oneof![
            6 => prop::sample::select(&b",\"\n\r01-.ab"[..]), 1 => 0x80..=0xFFu8], 0..600),
        cut in 0.0..1.0f64,
    ) {
        let columns = [("x", ColumnType::String), ("y", ColumnType::Decimal { precision: 5, scale: 1 })];
        let fast = Case::new(&[("f", &content)], format(false), &columns);
        let mut escaped = format(false);
        // A sign that is not there.
        escaped.dialect.escape = Some(1);
        let exact = Case::new(&[("f", &content)], escaped, &columns);
        let at = (cut * content.len() as f64) as u64;
        for (low, high) in [(0, fast.units()), (0, at), (at, fast.units())] {
            let (fast, exact) = (fast.read(low, high).unwrap(), exact.read(low, high).unwrap());
            prop_assert_eq!(fast.rows, exact.rows);
            prop_assert_eq!(fast.records, exact.records);
            prop_assert_eq!(fast.rejects, exact.rejects);
        }
    }

    #[test]
    fn records_that_span_lines_are_those_of_csv_core(
        rows in prop::collection::vec((any::<i64>(), "[a-zé,\"\n\r ]{0,30}", any::<bool>()), 0..60),
        crlf in any::<bool>(),
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let mut text = format!("a,b{end}");
        for (number, word, quoted) in &rows {
            let needs = *quoted || word.contains(['"', ',', '\n', '\r']) || word.is_empty();
            let word = if needs { format!("\"{}\"", word.replace('"', "\"\"")) } else { word.clone() };
            text.push_str(&format!("{number},{word}{end}"));
        }
        let got = read(text.as_bytes(), dialect(|dialect| dialect.multiline = true));
        prop_assert_eq!(got.rejects, []);
        let expected = reference(text.as_bytes());
        prop_assert_eq!(&got.rows, &expected[1..]);
        let written: Vec<Vec<String>> = rows.iter().map(|(number, word, _)| vec![number.to_string(), word.clone()]).collect();
        prop_assert_eq!(got.rows, written);
    }
}

//! Lines of JSON: the same promises as for delimited text.

use super::*;

const COLUMNS: [(&str, ColumnType); 3] = [
    ("id", ColumnType::Int64),
    (
        "amount",
        ColumnType::Decimal {
            precision: 38,
            scale: 2,
        },
    ),
    ("note", ColumnType::String),
];

fn ndjson(required: &[&str]) -> Format {
    Format::ndjson(
        Compression::Auto,
        required.iter().map(ToString::to_string).collect(),
        false,
    )
}

fn case(content: &[u8], required: &[&str]) -> Case {
    Case::new(&[("f.ndjson", content)], ndjson(required), &COLUMNS)
}

#[test]
fn objects_become_rows() {
    let got = case(
        "\u{feff}{\"id\":1,\"amount\":12.5,\"note\":\"größer als zwölf\\nZeichen\"}\r\n\n  \n{\"note\":{\"a\":[1,2]},\"more\":1}\n{\"id\":\"7\",\"amount\":\"-0.10\",\"note\":\"\\r\"}"
            .as_bytes(),
        &[],
    )
    .all();
    assert_eq!(got.rejects, []);
    assert_eq!(
        got.rows,
        [
            ["1", "12.50", "größer als zwölf\nZeichen"],
            ["\\N", "\\N", "{\"a\":[1,2]}"],
            ["7", "-0.10", "\r"]
        ]
    );
    assert_eq!(got.read, 3);
}

#[test]
fn lines_that_are_no_records_are_rejected_with_place_and_reason() {
    let content = [
        "{\"id\":1,\"amount\":1}",
        "7",
        "{\"id\":2,\"amount\":12,5}",
        "{\"id\":9223372036854775808,\"amount\":1}",
        "{\"id\":3,\"amount\":1234567890123456789012345678901234567.123}",
        "{\"amount\":1}",
        "{\"id\":4,\"amount\":NaN}",
        "{\"id\":5,\"amount\":1e999}",
        "{\"id\":6,\"amount\":null}",
    ]
    .join("\n");
    let mut bytes = content.into_bytes();
    bytes.extend_from_slice(b"\n{\"id\":7,\"note\":\"\xff\"}\n{\"id\":8}\n{\"id\":9");
    let got = case(&bytes, &["id"]).all();
    assert_eq!(
        got.rows.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(),
        ["1", "6", "8"]
    );
    let told: Vec<(u64, &str)> = got
        .rejects
        .iter()
        .map(|reject| (reject.place.line.unwrap(), reject.reason.as_str()))
        .collect();
    let expected = [
        (2, "the line is a number: a record is an object such as {\"id\": 1}"),
        (3, "the line is not JSON (byte "),
        (4, "column id: «9223372036854775808» is not a whole number from"),
        (5, "is not a decimal(38,2)"),
        (6, "column id: it is missing in the object, but the column is required"),
        (7, "the line is not JSON"),
        (8, "column amount: «1e999» is not a decimal(38,2)"),
        (10, "the line is not text in UTF-8"),
        (12, "the line is not JSON (byte 7): the line ends within a value"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((line, reason), (line_, part)) in told.into_iter().zip(expected) {
        assert_eq!(line, line_, "{reason}");
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(got.rejects[0].place.raw, "7");
}

#[test]
fn the_first_record_tells_columns_that_are_not_declared() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "\u{feff}\n \n{\"b\":1,\"a\\n\":{}}\n{\"c\":1}\n").unwrap();
    std::fs::write(dir.path().join("e"), "\n\n").unwrap();
    std::fs::write(dir.path().join("s"), "[1]\n").unwrap();
    let format = Format::ndjson(Compression::Auto, vec![], true);
    let names = |file: &str| super::super::names_of(dir.path(), file, &format);
    assert_eq!(names("f").unwrap().unwrap(), ["b", "a\n"]);
    assert_eq!(names("e").unwrap(), None);
    let error = names("s").unwrap_err();
    assert!(error.message.contains("s: without `columns`"), "{error}");
    assert!(error.message.contains("the line is a list"), "{error}");
    let case = Case::new(
        &[("f", b"{\"b\":1}\n{\"c\":1}\n")],
        format,
        &[("b", ColumnType::String)],
    );
    let got = case.all();
    assert_eq!((got.rows.len(), got.rejects.len()), (1, 1));
    assert!(got.rejects[0].reason.contains("«c» is no column"));
}

#[test]
fn a_projection_leaves_other_columns_unread() {
    let case = case(
        b"{\"id\":1,\"amount\":\"bad\",\"note\":\"x\"}\n{\"id\":2,\"note\":\"y\"}\n",
        &[],
    );
    let columns: Vec<_> = COLUMNS.iter().map(|(name, ty)| (name.to_string(), *ty)).collect();
    for wanted in [
        vec![],
        vec!["note".to_string()],
        vec!["note".to_string(), "id".to_string()],
    ] {
        let layout = Arc::new(Layout::new(ndjson(&[]), columns.clone(), Some(&wanted)).unwrap());
        let mut reader = CsvReader::new(
            layout,
            case.dir.path().to_path_buf(),
            case.files.clone(),
            0,
            Unit::Byte,
            UnitRange::new(0, case.units()),
        );
        let batch = reader.next_batch().unwrap().unwrap().batch;
        assert_eq!((batch.num_rows(), batch.num_columns()), (2, wanted.len()));
        assert!(reader.take_intake().rejects.is_empty());
    }
}

#[test]
fn packed_files_and_long_lines_are_bounded() {
    let text: String = (0..100_000)
        .map(|i| format!("{{\"id\":{i},\"amount\":{i}.25}}\n"))
        .collect();
    let packed = zstd::encode_all(text.as_bytes(), 1).unwrap();
    let case = Case::new(&[("f.ndjson.zst", &packed)], ndjson(&[]), &COLUMNS);
    let all = case.all();
    assert_eq!((all.read, all.rows.len()), (100_000, 100_000));
    let packed = zstd::encode_all(&vec![b'7'; 64 * MAX_RECORD][..], 1).unwrap();
    let case = Case::new(&[("bomb.ndjson.zst", &packed)], ndjson(&[]), &COLUMNS);
    let error = case.read(0, 1).map(|got| got.read).unwrap_err();
    assert_eq!(error.class, ErrorClass::Data);
    let expected =
        "bomb.ndjson.zst: the line at byte 0 (line 1) has no end within 16777216 bytes; this is no NDJSON file";
    assert!(error.message.starts_with(expected), "{error}");
}

fn line() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        any::<i64>().prop_map(|value| value.to_string()),
        "[a-zé\"\\\\\n ]{0,20}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just("null".to_string()),
        Just("{\"x\":[\"}\"]}".to_string()),
    ];
    prop_oneof![
        8 => (any::<i64>(), value).prop_map(|(id, note)| format!("{{\"id\":{id}, \"note\" : {note}}}\n")),
        1 => Just("\n".to_string()),
        1 => "[\\[\\]{}:,\"0-9a]{0,12}".prop_map(|text| text + "\n"),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_cut_gives_each_object_once(lines in prop::collection::vec(line(), 0..60), cut in 0.0..1.0f64) {
        let text = lines.concat();
        let case = case(text.as_bytes(), &["id"]);
        let all = case.all();
        // What the library reads as an object is a row, and no other line.
        let mut expected = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line).ok();
            if let Some(id) = object.as_ref().and_then(|object| object.get("id")?.as_i64()) {
                let note = match object.unwrap().get("note") {
                    None | Some(serde_json::Value::Null) => "\\N".to_string(),
                    Some(serde_json::Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                };
                expected.push(vec![id.to_string(), "\\N".to_string(), note]);
            }
        }
        prop_assert_eq!(&all.rows, &expected);
        prop_assert_eq!(all.rows.len() + all.rejects.len(), all.read as usize);
        let at = (cut * (case.units() + 1) as f64) as u64;
        let (left, right) = (case.read(0, at).unwrap(), case.read(at, case.units()).unwrap());
        prop_assert_eq!([left.rows, right.rows].concat(), all.rows);
        let mut records = left.records;
        records += right.records;
        prop_assert_eq!(records, all.records);
        prop_assert_eq!([left.rejects, right.rejects].concat(), all.rejects);
    }
}

//! What a text sink writes is read back as the same values.

use arrow::{
    array::{BooleanArray, Float32Array, TimestampMicrosecondArray, UInt64Array},
    compute::cast,
    datatypes::{DataType, SchemaRef},
};
use gapless_common::{
    job::{ColumnType, Delimiter, Dialect},
    plan::Unit,
    range::UnitRange,
};
use proptest::prelude::*;

use super::*;
use crate::source::{
    SourceReader,
    csv::{CsvReader, Format as TextFormat, Layout, column_type},
    pins::pin,
};

/// One row of each kind of value.
#[derive(Clone, Debug)]
struct Row {
    number: Option<i64>,
    unsigned: Option<u64>,
    narrow: Option<f32>,
    wide: Option<f64>,
    decimal: Option<i128>,
    word: Option<String>,
    flag: Option<bool>,
    day: Option<i32>,
    at: Option<i64>,
}

fn row() -> impl Strategy<Value = Row> {
    let word = prop_oneof![
        "[a-z,;|§\"'\\\\{}#é 0-9-]{0,16}",
        "\\PC{0,20}",
        Just(String::new()),
        Just("NULL".into()),
        Just("1".into())
    ];
    // Years 0000 to 9999.
    let day = -719_528..2_932_896i32;
    let at = -62_167_219_200_000_000..253_402_300_799_999_999i64;
    let canonical = |value: f64| if value.is_nan() { f64::NAN } else { value };
    let numbers = (
        proptest::option::of(any::<i64>()),
        proptest::option::of(any::<u64>()),
        proptest::option::of(any::<f32>().prop_map(|value| if value.is_nan() { f32::NAN } else { value })),
        proptest::option::of(
            prop_oneof![any::<f64>(), Just(f64::INFINITY), Just(f64::NAN), Just(-0.0)].prop_map(canonical),
        ),
        proptest::option::of(-(10i128.pow(38) - 1)..10i128.pow(38)),
    );
    let others = (
        proptest::option::of(word),
        proptest::option::of(any::<bool>()),
        proptest::option::of(day),
        proptest::option::of(at),
    );
    (numbers, others).prop_map(
        |((number, unsigned, narrow, wide, decimal), (word, flag, day, at))| Row {
            number,
            unsigned,
            narrow,
            wide,
            decimal,
            word,
            flag,
            day,
            at,
        },
    )
}

fn columns(rows: &[Row]) -> RecordBatch {
    let decimals: Decimal128Array = rows.iter().map(|row| row.decimal).collect();
    batch(vec![
        (
            "number",
            Arc::new(rows.iter().map(|row| row.number).collect::<Int64Array>()),
        ),
        (
            "unsigned",
            Arc::new(rows.iter().map(|row| row.unsigned).collect::<UInt64Array>()),
        ),
        (
            "narrow",
            Arc::new(rows.iter().map(|row| row.narrow).collect::<Float32Array>()),
        ),
        (
            "wide",
            Arc::new(rows.iter().map(|row| row.wide).collect::<Float64Array>()),
        ),
        ("decimal", Arc::new(decimals.with_precision_and_scale(38, 7).unwrap())),
        (
            "a \"word\"",
            Arc::new(rows.iter().map(|row| row.word.clone()).collect::<StringArray>()),
        ),
        (
            "flag",
            Arc::new(rows.iter().map(|row| row.flag).collect::<BooleanArray>()),
        ),
        ("day", Arc::new(rows.iter().map(|row| row.day).collect::<Date32Array>())),
        (
            "at",
            Arc::new(rows.iter().map(|row| row.at).collect::<TimestampMicrosecondArray>()),
        ),
    ])
}

fn read_back(path: &Path, format: TextFormat, schema: &SchemaRef) -> RecordBatch {
    let (folder, name) = (path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap());
    let typed: Vec<(String, ColumnType)> = schema
        .fields()
        .iter()
        .map(|field| (field.name().clone(), column_type(field.data_type()).unwrap()))
        .collect();
    let (_, mut pinned) = pin(folder, name).unwrap();
    let unit = match format.reads_from_start(name).unwrap() {
        true => Unit::File,
        false => Unit::Byte,
    };
    pinned.units = if unit == Unit::File { 1 } else { pinned.size };
    let range = UnitRange::new(0, pinned.units);
    let layout = Arc::new(Layout::new(format, typed, None).unwrap());
    let mut reader = CsvReader::new(layout, folder.to_path_buf(), [pinned].into(), 0, unit, range);
    let mut batches = Vec::new();
    while let Some(input) = reader.next_batch().unwrap() {
        batches.push(input.batch);
    }
    assert!(reader.take_intake().rejects.is_empty());
    let read = concat_batches(&reader.schema(), &batches).unwrap();
    // Text is read as views.
    let cast_back = read
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| cast(column, field.data_type()).unwrap());
    RecordBatch::try_new(schema.clone(), cast_back.collect()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_written_as_text_is_read_as_it_was(
        rows in prop::collection::vec(row(), 1..40),
        objects in any::<bool>(),
        compression in prop::sample::select(&[Compression::None, Compression::Gzip, Compression::Zstd][..]),
        delimiter in prop::sample::select(&[",", ";", "|", "\t", "-", "1", "||", "|-|", "-1", "§"][..]),
        null in prop::sample::select(&["", "NULL", "\\N"][..]),
        header in any::<bool>(),
    ) {
        let written = columns(&rows);
        let delimiter = Delimiter::of_text(delimiter).unwrap();
        let file = FileSink { compression, delimiter, null: null.into(), header, ..file_sink("out") };
        let (sink, format) = match objects {
            true => (Sink::Ndjson(file), TextFormat::ndjson(compression, vec![], false)),
            false => {
                let format = TextFormat::from(&file);
                let dialect = Dialect { multiline: true, ..Dialect::default() };
                (Sink::Csv(file), TextFormat { dialect, compression, ..format })
            }
        };
        let place = Place::new(&sink, 0);
        let files = place.write(&sink, std::slice::from_ref(&written)).unwrap();
        let read = read_back(&place.path(&files[0]), format, &written.schema());
        for (column, name) in written.schema().fields().iter().map(|field| field.name()).enumerate() {
            prop_assert_eq!(read.column(column), written.column(column), "column {}", name);
        }
    }
}

#[test]
fn each_row_is_one_object() {
    let sink = Sink::Ndjson(file_sink("out"));
    let place = Place::new(&sink, 0);
    let files = place.write(&sink, &[sample()]).unwrap();
    assert!(files[0].path.ends_with(".ndjson"));
    let text = fs::read_to_string(place.path(&files[0])).unwrap();
    assert_eq!(
        text,
        "{\"n\":1,\"t\":\"plain\",\"f\":0.1,\"d\":-0.05,\"day\":\"1970-01-01\"}\n\
         {\"n\":null,\"t\":null,\"f\":null,\"d\":null,\"day\":null}\n\
         {\"n\":-3,\"t\":\"\",\"f\":1e300,\"d\":1234.56,\"day\":\"2024-02-29\"}\n\
         {\"n\":4,\"t\":\"a,\\\"b\\\"\\nc\",\"f\":\"NaN\",\"d\":0.00,\"day\":\"1969-12-31\"}\n"
    );
    let nested = Arc::new(arrow::array::ListArray::new_null(
        Arc::new(arrow::datatypes::Field::new("item", DataType::Int64, true)),
        1,
    ));
    let place = Place::new(&sink, 0);
    let files = place.write(&sink, &[batch(vec![("l", nested as ArrayRef)])]).unwrap();
    assert_eq!(fs::read_to_string(place.path(&files[0])).unwrap(), "{\"l\":null}\n");
}

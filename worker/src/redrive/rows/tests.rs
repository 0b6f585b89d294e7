use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Date64Array, Decimal128Array, Decimal256Array,
        DictionaryArray, DurationSecondArray, FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array,
        Int32Builder, Int64Array, LargeBinaryArray, LargeListArray, ListArray, MapBuilder, NullArray, StringBuilder,
        StringViewArray, StructArray, Time32MillisecondArray, Time64NanosecondArray, TimestampMicrosecondArray,
        TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
    },
    datatypes::{Int32Type, i256},
};

use super::*;
use crate::source::shown::row_as_text;

fn place(row: u64, raw: String) -> Place {
    Place {
        file: "in.parquet".into(),
        line: None,
        row: Some(row),
        block: None,
        raw,
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns.into_iter().map(|(_, column)| column).collect()).expect("a batch")
}

fn kept(batch: &RecordBatch) -> Vec<Place> {
    (0..batch.num_rows())
        .map(|row| place(row as u64, row_as_text(batch, row)))
        .collect()
}

fn written(batch: &RecordBatch, places: &[Place]) -> Result<Vec<u8>, String> {
    let places: Vec<&Place> = places.iter().collect();
    as_parquet(&batch.schema(), &places).map_err(|error| error.message)
}

/// Each with a value, one at an edge, and NULL.
fn of_every_type() -> Vec<(&'static str, ArrayRef)> {
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    map.keys().append_value("b");
    map.values().append_value(1);
    map.keys().append_value("a");
    map.values().append_null();
    map.append(true).expect("an entry");
    map.append(true).expect("an entry");
    map.append(false).expect("an entry");
    let inner: ArrayRef = Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(-0.0), None]));
    let item = Arc::new(Field::new("x", DataType::Float64, true));
    vec![
        ("int8", Arc::new(Int8Array::from(vec![Some(-128), Some(127), None]))),
        (
            "int64",
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None])),
        ),
        (
            "uint64",
            Arc::new(UInt64Array::from(vec![Some(0), Some(u64::MAX), None])),
        ),
        (
            "float32",
            Arc::new(Float32Array::from(vec![Some(0.1), Some(f32::NEG_INFINITY), None])),
        ),
        (
            "float64",
            Arc::new(Float64Array::from(vec![Some(0.1 + 0.2), Some(5e-324), None])),
        ),
        (
            "bool",
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        ),
        ("null", Arc::new(NullArray::new(3))),
        (
            "text",
            Arc::new(StringViewArray::from(vec![Some("«\u{1}\"\\\n😀"), Some(""), None])),
        ),
        (
            "bytes",
            Arc::new(BinaryArray::from(vec![Some(&[0u8, 255][..]), Some(&[]), None])),
        ),
        (
            "many bytes",
            Arc::new(LargeBinaryArray::from(vec![Some(&[1u8][..]), Some(&[]), None])),
        ),
        (
            "two bytes",
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                    [Some([1u8, 2]), Some([0, 0]), None].into_iter(),
                    2,
                )
                .expect("two"),
            ),
        ),
        ("date", Arc::new(Date32Array::from(vec![Some(-1), Some(40_000), None]))),
        (
            "day",
            Arc::new(Date64Array::from(vec![Some(-86_400_000), Some(0), None])),
        ),
        (
            "seconds",
            Arc::new(TimestampSecondArray::from(vec![Some(-1), Some(4_000_000_000), None])),
        ),
        (
            "millis",
            Arc::new(TimestampMillisecondArray::from(vec![Some(-1), Some(1), None]).with_timezone("UTC")),
        ),
        (
            "micros",
            Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), Some(1), None]).with_timezone("+01:00")),
        ),
        (
            "nanos",
            Arc::new(TimestampNanosecondArray::from(vec![Some(-1), Some(i64::MAX), None]).with_timezone("-12:30")),
        ),
        (
            "time",
            Arc::new(Time32MillisecondArray::from(vec![Some(0), Some(86_399_999), None])),
        ),
        (
            "fine time",
            Arc::new(Time64NanosecondArray::from(vec![
                Some(1),
                Some(86_399_999_999_999),
                None,
            ])),
        ),
        (
            "decimal",
            Arc::new(
                Decimal128Array::from(vec![Some(i128::from(i64::MAX)), Some(-1), None])
                    .with_precision_and_scale(38, 10)
                    .expect("38 digits"),
            ),
        ),
        (
            "whole",
            Arc::new(
                Decimal128Array::from(vec![Some(100), Some(0), None])
                    .with_precision_and_scale(20, 0)
                    .expect("20 digits"),
            ),
        ),
        (
            "long",
            Arc::new(
                Decimal256Array::from(vec![Some(i256::from_i128(i128::MAX)), Some(i256::from_i128(-5)), None])
                    .with_precision_and_scale(60, 3)
                    .expect("60 digits"),
            ),
        ),
        (
            "words",
            Arc::new(
                [Some("a"), Some("b"), None]
                    .into_iter()
                    .collect::<DictionaryArray<Int32Type>>(),
            ),
        ),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
                Some(vec![Some(1), None]),
                Some(vec![]),
                None,
            ])),
        ),
        (
            "long list",
            Arc::new(LargeListArray::from_iter_primitive::<Int32Type, _, _>([
                Some(vec![Some(-1)]),
                Some(vec![None]),
                None,
            ])),
        ),
        ("object", Arc::new(StructArray::from(vec![(item, inner)]))),
        ("map", Arc::new(map.finish())),
    ]
}

#[test]
fn rows_of_every_type_come_back_as_they_were() {
    let batch = batch(of_every_type());
    let file = written(&batch, &kept(&batch)).expect("a file");
    assert_eq!(
        file,
        written(&batch, &kept(&batch)).expect("a file"),
        "the same rows make the same file"
    );
    let read = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file))
        .expect("Parquet")
        .build()
        .expect("a reader");
    let read: Vec<RecordBatch> = read.map(|read| read.expect("rows")).collect();
    let [read] = read.as_slice() else { panic!("{read:?}") };
    for (field, (read, was)) in batch
        .schema()
        .fields()
        .iter()
        .zip(read.columns().iter().zip(batch.columns()))
    {
        match field.name().as_str() {
            // Entries of a map have no order; NaN is not equal to itself.
            "map" | "object" => assert_eq!(read.data_type(), was.data_type()),
            name => assert_eq!(read, was, "{name}"),
        }
    }
    assert_eq!(kept(read), kept(&batch));
}

#[test]
fn no_rows_are_a_file_with_all_columns() {
    let batch = batch(of_every_type());
    let file = written(&batch, &[]).expect("a file");
    let read = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).expect("Parquet");
    let types = |schema: &Schema| {
        schema
            .fields()
            .iter()
            .map(|field| field.data_type().clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(types(read.schema()), types(&batch.schema()));
    assert_eq!(read.metadata().file_metadata().num_rows(), 0);
}

#[test]
fn types_that_no_text_tells_are_refused_in_words() {
    for (column, says) in [
        (
            Arc::new(DurationSecondArray::from(vec![1])) as ArrayRef,
            "column c is duration in seconds",
        ),
        (
            Arc::new(arrow::array::IntervalYearMonthArray::from(vec![1])),
            "column c is interval of months",
        ),
    ] {
        let batch = batch(vec![("c", column)]);
        let error = written(&batch, &kept(&batch)).expect_err(says);
        assert!(error.contains(says), "{error}");
    }
    let none = RecordBatch::new_empty(Arc::new(Schema::empty()));
    let error = written(&none, &[place(0, "{}".into())]).expect_err("no columns");
    assert!(error.contains("the run read no column"), "{error}");
}

/// What would be another value than the one that is written, if nobody looked.
#[test]
fn values_that_would_be_altered_are_refused_in_words() {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(Int64Array::from(vec![1]))),
        ("f", Arc::new(Float32Array::from(vec![0.5]))),
        (
            "d",
            Arc::new(
                Decimal128Array::from(vec![150])
                    .with_precision_and_scale(10, 2)
                    .expect("ten digits"),
            ),
        ),
        ("t", Arc::new(TimestampMicrosecondArray::from(vec![0]))),
        (
            "l",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)])])),
        ),
    ];
    let batch = batch(columns);
    let good = r#"{"d":"1.50","f":0.5,"l":[1],"n":1,"t":"1970-01-01T00:00:00"}"#;
    assert_eq!(kept(&batch)[0].raw, good);
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        written(&batch, &[place(3, good.replace(from, to))])
    };
    for (from, to) in [
        (r#""1.50""#, r#""1.5""#),
        ("0.5", "0.123456789"),
        ("0.5", "5e-1"),
        ("0.5", "null"),
        ("[1]", "[]"),
        (
            r#"{"d""#,
            " {
 \"d\"",
        ),
    ] {
        with(from, to).unwrap_or_else(|error| panic!("{to}: {error}"));
    }
    for (from, to, says) in [
        (
            r#""1.50""#,
            r#""1.504""#,
            "column d is decimal(10,2), and \"1.504\" would be read as \"1.50\"",
        ),
        (
            r#""1.50""#,
            "1.5",
            "column d is decimal(10,2), and 1.5 would be read as \"1.50\"",
        ),
        (r#""1.50""#, r#""12345678901""#, "column d is "),
        (
            r#""n":1"#,
            r#""n":1.25"#,
            "column n is int64, and 1.25 would be read as 1",
        ),
        (r#""n":1"#, r#""n":9223372036854775808"#, "column n is int64"),
        (
            r#""n":1"#,
            r#""n":"1""#,
            "column n is int64, and \"1\" would be read as 1",
        ),
        (r#""n":1"#, r#""n":true"#, "column n is int64"),
        ("0.5", "1e39", "column f is float32"),
        ("00:00:00\"", "00:00:00.1234567\"", "column t is "),
        ("1970-01-01T00:00:00", "1970-02-30T00:00:00", "column t is "),
        ("[1]", "[1.5]", "column l is list of int32"),
        ("[1]", "1", "column l is list of int32"),
        (r#""l":[1],"#, "", "`raw` lacks column l; write null"),
        (r#""l":[1]"#, r#""l":[1],"m":0"#, "m"),
    ] {
        let error = with(from, to).expect_err(to);
        assert!(
            error.contains("in.parquet, row 3: ") && error.contains(says),
            "{to}: {error}"
        );
    }
}

#[test]
fn null_in_a_column_that_has_none_is_told() {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let batch = RecordBatch::new_empty(schema);
    let error = written(
        &batch,
        &[place(0, r#"{"n":1}"#.into()), place(1, r#"{"n":null}"#.into())],
    )
    .expect_err("a null");
    assert!(
        error.contains("in.parquet, row 1: column n is int64 and never NULL"),
        "{error}"
    );
}

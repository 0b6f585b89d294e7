//! Avro files: read by the library's own reader, the same bytes for the same rows, and what is not written.

use std::io::BufReader;

use arrow::{
    array::{BinaryArray, StringDictionaryBuilder, TimestampSecondArray, UInt8Array, UInt64Array},
    compute::cast,
    datatypes::{DataType, Int8Type},
};
use arrow_avro::reader::ReaderBuilder;

use super::*;

fn sink_of(compression: Compression) -> Sink {
    Sink::Avro(FileSink {
        compression,
        ..file_sink("out")
    })
}

/// By the library's reader, which has no codec here.
fn read_avro(path: &Path) -> RecordBatch {
    let reader = ReaderBuilder::new()
        .build(BufReader::new(fs::File::open(path).unwrap()))
        .unwrap();
    let schema = reader.schema();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

fn many() -> RecordBatch {
    let copies: Vec<RecordBatch> = (0..5000).map(|_| sample()).collect();
    concat_batches(sample().schema_ref(), &copies).unwrap()
}

#[test]
fn avro_reads_back_equal_in_every_codec() {
    let place = |compression| {
        let sink = sink_of(compression);
        let place = Place::new(&sink, 3);
        let files = place.write(&sink, &[many()]).unwrap();
        (place, files)
    };
    let (plain, files) = place(Compression::None);
    assert_eq!(
        (files[0].path.as_str(), files[0].rows),
        ("part-00003-1-17-0.avro", 20_000)
    );
    let back = read_avro(&plain.path(&files[0]));
    assert_eq!(format!("{:?}", back.columns()), format!("{:?}", many().columns()));
    // The blocks of the others unpack to the same.
    let unpacked = |place: &super::Place, file: &DataFile| {
        let path = place.path(file);
        let stored = crate::storage::StoredFile::open(&path).unwrap();
        let mut blocks = crate::avro::Blocks::open(stored, "x", file.bytes).unwrap();
        let (mut at, mut all, mut rows, mut block_bytes) = (blocks.header().len, Vec::new(), 0, Vec::new());
        while let Some(block) = blocks.at(at).unwrap() {
            blocks.unpack(&block, &mut block_bytes).unwrap();
            all.extend_from_slice(&block_bytes);
            rows += block.rows;
            at = block.end;
        }
        (rows, all)
    };
    let expected = unpacked(&plain, &files[0]);
    for compression in [
        Compression::Deflate,
        Compression::Snappy,
        Compression::Zstd,
        Compression::Auto,
    ] {
        let (packed, files) = place(compression);
        assert!(unpacked(&packed, &files[0]) == expected, "{compression:?}");
    }
    assert_eq!(
        open_chunk(&sink_of(Compression::Gzip), sample().schema_ref(), &plain.target)
            .err()
            .unwrap()
            .message,
        "blocks of Avro files are compressed by deflate, snappy or zstd, not Gzip"
    );
}

#[test]
fn the_same_rows_make_the_same_bytes_however_they_come() {
    let sink = sink_of(Compression::Deflate);
    let bytes = |batches: &[RecordBatch]| {
        let place = Place::new(&sink, 0);
        let files = place.write(&sink, batches).unwrap();
        fs::read(place.path(&files[0])).unwrap()
    };
    let whole = bytes(&[many()]);
    let pieces: Vec<RecordBatch> = (0..20_000)
        .step_by(777)
        .map(|at| many().slice(at, 777.min(20_000 - at)))
        .collect();
    assert!(bytes(&pieces) == whole, "cut into batches");
    // Other rows have another marker: a file cannot come to hold that of another by chance.
    let other = bytes(&[many().slice(1, 19_999)]);
    assert_ne!(other[other.len() - 16..], whole[whole.len() - 16..]);
    assert_eq!(bytes(&[many()])[whole.len() - 16..], whole[whole.len() - 16..]);
}

#[test]
fn an_empty_output_has_its_schema() {
    let sink = sink_of(Compression::Auto);
    let place = Place::new(&sink, 0);
    let files = place.write(&sink, &[sample().slice(0, 0)]).unwrap();
    let path = place.path(&files[0]);
    let head = crate::source::avro::head(path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap()).unwrap();
    let names: Vec<&str> = head.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["n", "t", "f", "d", "day"]);
}

#[test]
fn types_that_avro_lacks_are_widened_or_refused() {
    let mut symbols = StringDictionaryBuilder::<Int8Type>::new();
    symbols.append_value("a");
    symbols.append_null();
    let rows = batch(vec![
        ("small", Arc::new(UInt8Array::from(vec![Some(255), None])) as ArrayRef),
        ("large", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]))),
        ("symbol", Arc::new(symbols.finish())),
        ("bytes", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"x\0"), None]))),
        (
            "view",
            Arc::new(StringViewArray::from(vec![
                Some("a long text that is no inline view"),
                None,
            ])),
        ),
    ]);
    let sink = sink_of(Compression::None);
    let place = Place::new(&sink, 0);
    let files = place.write(&sink, std::slice::from_ref(&rows)).unwrap();
    let back = read_avro(&place.path(&files[0]));
    let types: Vec<DataType> = back.columns().iter().map(|column| column.data_type().clone()).collect();
    assert_eq!(
        types,
        [
            DataType::Int32,
            DataType::Decimal128(20, 0),
            DataType::Utf8,
            DataType::Binary,
            DataType::Utf8
        ]
    );
    for (number, column) in back.columns().iter().enumerate() {
        let expected = cast(rows.column(number), &types[number]).unwrap();
        assert_eq!(column.as_ref(), expected.as_ref());
    }
    let refused = |name: &str, ty: DataType| {
        let schema = Arc::new(arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new(
            name, ty, true,
        )]));
        let error = check_sink(&sink, &schema).unwrap_err();
        assert_eq!(error.class, ErrorClass::Config);
        error.message
    };
    assert!(refused("sum(x)", DataType::Int64).starts_with("column sum(x): names in Avro are letters, digits and `_`"));
    assert!(refused("1st", DataType::Int64).starts_with("column 1st: "));
    let list = DataType::new_list(DataType::Int64, true);
    assert!(refused("a", list).contains("which is not written to Avro; cast it"));
    assert!(refused("a", DataType::Null).contains("not written to Avro"));
}

#[test]
fn a_value_that_its_type_in_avro_cannot_hold_is_told() {
    let rows = batch(vec![(
        "at",
        Arc::new(TimestampSecondArray::from(vec![Some(1), Some(i64::MAX)])) as ArrayRef,
    )]);
    let sink = sink_of(Compression::None);
    let error = Place::new(&sink, 0).write(&sink, &[rows]).unwrap_err();
    assert!(error.message.starts_with("column at: "), "{error}");
    assert!(error.message.contains(&i64::MAX.to_string()), "{error}");
}

//! What a sink's files look like from outside.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::{
    array::{
        ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
        StringViewArray,
    },
    compute::concat_batches,
    datatypes::Int64Type,
};
use gapless_common::{
    attempt::Fence,
    error::{ErrorClass, TaskError},
    ids::{AttemptId, RunId, Stage, Term},
    job::{Compression, Delimiter, Exists, FileSink, Sink},
    manifest::DataFile,
};
use uuid::Uuid;

use super::*;
use crate::storage::{ChunkName, StepFolders};

pub(crate) fn file_sink(path: &str) -> FileSink {
    FileSink {
        path: path.into(),
        exists: Exists::Fail,
        compression: Compression::Auto,
        files: None,
        partition_by: vec![],
        split: None,
        partition_column: None,
        header: true,
        delimiter: Delimiter::COMMA,
        null: String::new(),
        encoding: Default::default(),
        crlf: false,
    }
}

struct Place {
    _folder: tempfile::TempDir,
    target: ChunkTarget,
}

impl Place {
    fn new(sink: &Sink, partition: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fence = Fence {
            number: 1,
            id: AttemptId {
                term: Term(1),
                serial: 17,
            },
        };
        let folders = StepFolders::new(
            sink,
            folder.path(),
            &folder.path().join("scratch"),
            RunId(Uuid::nil()),
            0,
        )
        .unwrap();
        for path in [folders.data(), folders.rejects(), folders.manifests(Stage::Execute)] {
            fs::create_dir_all(path).unwrap();
        }
        let chunk = ChunkName {
            stage: Stage::Execute,
            partition,
            attempt: fence.id,
            seq: 0,
        };
        Self {
            _folder: folder,
            target: ChunkTarget {
                folders,
                chunk,
                discards: matches!(sink, Sink::Discard),
                low: None,
                now_micros: 0,
            },
        }
    }

    fn write(&self, sink: &Sink, batches: &[RecordBatch]) -> Result<Vec<DataFile>, TaskError> {
        let mut chunk = open_chunk(sink, batches[0].schema_ref(), &self.target)?;
        for batch in batches {
            chunk.write(batch)?;
        }
        chunk.finish()
    }

    fn path(&self, file: &DataFile) -> PathBuf {
        self.target.folders.data_file(&file.path)
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn sample() -> RecordBatch {
    batch(vec![
        ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(-3), Some(4)]))),
        (
            "t",
            Arc::new(StringArray::from(vec![
                Some("plain"),
                None,
                Some(""),
                Some("a,\"b\"\nc"),
            ])),
        ),
        (
            "f",
            Arc::new(Float64Array::from(vec![Some(0.1), None, Some(1e300), Some(f64::NAN)])),
        ),
        (
            "d",
            Arc::new(
                Decimal128Array::from(vec![Some(-5), None, Some(123_456), Some(0)])
                    .with_precision_and_scale(12, 2)
                    .unwrap(),
            ),
        ),
        (
            "day",
            Arc::new(Date32Array::from(vec![Some(0), None, Some(19_782), Some(-1)])),
        ),
    ])
}

fn read_parquet(path: &Path) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
    let schema = builder.schema().clone();
    let batches: Vec<_> = builder.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

mod avro;
mod round_trip;

#[test]
fn parquet_reads_back_equal() {
    for compression in [
        Compression::Auto,
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
    ] {
        let sink = Sink::Parquet(FileSink {
            compression,
            ..file_sink("out")
        });
        let place = Place::new(&sink, 3);
        let files = place.write(&sink, &[sample(), sample()]).unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(
            (files[0].path.as_str(), files[0].rows),
            ("part-00003-1-17-0.parquet", 8)
        );
        let bytes = fs::read(place.path(&files[0])).unwrap();
        assert_eq!(files[0].bytes, bytes.len() as u64);
        assert_eq!(
            files[0].checksum,
            format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes))
        );
        let back = read_parquet(&place.path(&files[0]));
        // NaN is not equal to itself, so compare as shown.
        let expected = concat_batches(sample().schema_ref(), &[sample(), sample()]).unwrap();
        assert_eq!(format!("{back:?}"), format!("{expected:?}"));
    }
}

/// Readers that take the embedded schema at its word cannot all filter or sort views.
#[test]
fn parquet_tells_of_no_views_and_comes_back_as_views_to_a_merge() {
    use arrow::{
        array::{BinaryViewArray, ListArray, StringViewArray, StructArray},
        buffer::OffsetBuffer,
        datatypes::{DataType, Field},
    };
    let texts: ArrayRef = Arc::new(StringViewArray::from(vec![
        Some("a text of more than twelve bytes"),
        None,
    ]));
    let bytes: ArrayRef = Arc::new(BinaryViewArray::from(vec![Some(&b"\xff"[..]), None]));
    let item = Arc::new(Field::new("item", DataType::Utf8View, true));
    let list: ArrayRef = Arc::new(ListArray::new(
        item,
        OffsetBuffer::from_lengths([2, 0]),
        texts.clone(),
        None,
    ));
    let parts = StructArray::from(vec![
        (Arc::new(Field::new("b", DataType::BinaryView, true)), bytes.clone()),
        (Arc::new(Field::new("l", list.data_type().clone(), true)), list.clone()),
    ]);
    let rows = batch(vec![("t", texts), ("b", bytes), ("l", list), ("s", Arc::new(parts))]);
    let sink = Sink::Parquet(file_sink("out"));
    let place = Place::new(&sink, 3);
    let files = place.write(&sink, std::slice::from_ref(&rows)).unwrap();
    let path = place.path(&files[0]);
    let back = read_parquet(&path);
    let told = format!("{:?}", back.schema());
    assert!(
        !told.contains("View") && told.contains("Utf8") && told.contains("Binary"),
        "{told}"
    );
    for (column, made) in back.columns().iter().zip(rows.columns()) {
        let made = arrow::compute::cast(made, column.data_type()).unwrap();
        assert_eq!(column.to_data(), made.to_data());
    }

    let merged = super::read_back(fs::File::open(&path).unwrap()).unwrap();
    let types: Vec<_> = merged
        .schema()
        .fields()
        .iter()
        .map(|field| field.data_type().clone())
        .collect();
    assert_eq!(types[..2], [DataType::Utf8View, DataType::BinaryView]);
    let read: Vec<_> = merged.build().unwrap().map(Result::unwrap).collect();
    assert_eq!(read[0].columns()[..2], rows.columns()[..2]);
}

#[test]
fn csv_is_written_byte_for_byte() {
    let cases = [
        (
            file_sink("out"),
            "n,t,f,d,day\n1,plain,0.1,-0.05,1970-01-01\n,,,,\n-3,\"\",1e300,1234.56,2024-02-29\n\
             4,\"a,\"\"b\"\"\nc\",NaN,0.00,1969-12-31\n",
        ),
        (
            FileSink {
                header: false,
                delimiter: Delimiter::of_byte(b'-'),
                null: "4".into(),
                ..file_sink("out")
            },
            "1-plain-0.1-\"-0.05\"-\"1970-01-01\"\n4-4-4-4-4\n\"-3\"-\"\"-1e300-1234.56-\"2024-02-29\"\n\
             \"4\"-\"a,\"\"b\"\"\nc\"-NaN-0.00-\"1969-12-31\"\n",
        ),
        (
            FileSink {
                delimiter: Delimiter::of_text("a,").unwrap(),
                ..file_sink("out")
            },
            "na,ta,fa,da,day\n1a,plaina,0.1a,-0.05a,1970-01-01\na,a,a,a,\n-3a,\"\"a,1e300a,1234.56a,2024-02-29\n\
             4a,\"a,\"\"b\"\"\nc\"a,NaNa,0.00a,1969-12-31\n",
        ),
    ];
    for (file, expected) in cases {
        let crlf = FileSink {
            crlf: true,
            ..file.clone()
        };
        let sink = Sink::Csv(crlf);
        let place = Place::new(&sink, 3);
        let files = place.write(&sink, &[sample()]).unwrap();
        // A line end within a text stays what it is.
        let with_cr = expected.replace('\n', "\r\n").replace("\"\"\r\nc", "\"\"\nc");
        assert_eq!(fs::read_to_string(place.path(&files[0])).unwrap(), with_cr);
        let sink = Sink::Csv(file);
        let place = Place::new(&sink, 3);
        let files = place.write(&sink, &[sample()]).unwrap();
        assert_eq!(fs::read_to_string(place.path(&files[0])).unwrap(), expected);
    }
}

#[test]
fn a_column_without_a_type_is_null() {
    let untyped: ArrayRef = Arc::new(arrow::array::NullArray::new(2));
    let batch = batch(vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
        ("x", untyped),
    ]);
    let csv = Sink::Csv(FileSink {
        null: "-".into(),
        ..file_sink("out")
    });
    let written = |sink: &Sink, read: &dyn Fn(&Path) -> String| {
        let place = Place::new(sink, 3);
        let files = place.write(sink, std::slice::from_ref(&batch)).unwrap();
        read(&place.path(&files[0]))
    };
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    assert_eq!(written(&csv, &text), "id,x\n1,-\n2,-\n");
    let ndjson = Sink::Ndjson(file_sink("out"));
    assert_eq!(
        written(&ndjson, &text),
        "{\"id\":1,\"x\":null}\n{\"id\":2,\"x\":null}\n"
    );
    let back = |path: &Path| format!("{:?}", read_parquet(path));
    assert_eq!(written(&Sink::Parquet(file_sink("out")), &back), format!("{batch:?}"));
}

#[test]
fn csv_is_compressed_as_asked() {
    use std::io::Read;
    for (compression, name) in [
        (Compression::Gzip, "part-00003-1-17-0.csv.gz"),
        (Compression::Zstd, "part-00003-1-17-0.csv.zst"),
    ] {
        let sink = Sink::Csv(FileSink {
            compression,
            ..file_sink("out")
        });
        let place = Place::new(&sink, 3);
        let files = place.write(&sink, &[sample()]).unwrap();
        assert_eq!(files[0].path, name);
        let Some((Format::Csv(style), _)) = Format::of(&sink).unwrap() else {
            panic!()
        };
        let mut text = String::new();
        decoder(
            fs::File::open(place.path(&files[0])).unwrap(),
            style.compression,
            style.encoding,
        )
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
        assert!(text.starts_with("n,t,f,d,day\n1,plain,0.1"), "{text}");
    }
    let sink = Sink::Csv(FileSink {
        compression: Compression::Snappy,
        ..file_sink("out")
    });
    assert_eq!(
        Place::new(&sink, 3).write(&sink, &[sample()]).unwrap_err().class,
        ErrorClass::Config
    );
}

#[test]
fn only_partition_zero_leaves_an_empty_file() {
    let sink = Sink::Parquet(file_sink("out"));
    for (partition, files) in [(0, 1), (1, 0)] {
        let place = Place::new(&sink, partition);
        let written = place.write(&sink, &[sample().slice(0, 0)]).unwrap();
        assert_eq!(written.len(), files);
        for file in written {
            assert_eq!(read_parquet(&place.path(&file)).schema(), sample().schema());
        }
    }
}

#[test]
fn the_partition_number_is_a_column() {
    let sink = Sink::Csv(FileSink {
        partition_column: Some("part".into()),
        ..file_sink("out")
    });
    let place = Place::new(&sink, 12);
    let files = place.write(&sink, &[sample().project(&[0]).unwrap()]).unwrap();
    assert_eq!(
        fs::read_to_string(place.path(&files[0])).unwrap(),
        "n,part\n1,12\n,12\n-3,12\n4,12\n"
    );
}

/// Writes, and reads back (folder, values of the one column left).
fn hive(sink: &Sink, batches: &[RecordBatch]) -> (usize, BTreeMap<String, Vec<i64>>) {
    let place = Place::new(sink, 3);
    let files = place.write(sink, batches).unwrap();
    let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for file in &files {
        let (folder, name) = file.path.rsplit_once('/').unwrap();
        assert!(name.starts_with("part-00003-1-17-0"), "{name}");
        let rows = read_parquet(&place.path(file));
        assert_eq!(rows.num_columns(), 1);
        assert_eq!(rows.num_rows() as u64, file.rows);
        found
            .entry(folder.to_string())
            .or_default()
            .extend(rows.column(0).as_primitive::<Int64Type>().values());
    }
    (files.len(), found)
}

#[test]
fn hive_folders_are_named_as_hive_does() {
    let sink = Sink::Parquet(FileSink {
        partition_by: vec!["k".into(), "d".into()],
        ..file_sink("out")
    });
    let keys = StringArray::from(vec![
        Some("x"),
        Some("a/b c%"),
        None,
        Some(""),
        Some("__HIVE_DEFAULT_PARTITION__"),
        Some("x"),
        Some("ü=1"),
    ]);
    let days = Date32Array::from(vec![Some(0), Some(0), Some(0), Some(0), Some(0), None, Some(1)]);
    let rows = batch(vec![
        ("k", Arc::new(keys)),
        ("n", Arc::new(Int64Array::from_iter_values(0..7))),
        ("d", Arc::new(days)),
    ]);
    let expected = [
        ("k=x/d=1970-01-01", vec![0]),
        ("k=a%2Fb c%25/d=1970-01-01", vec![1]),
        ("k=__HIVE_DEFAULT_PARTITION__/d=1970-01-01", vec![2]),
        ("k=/d=1970-01-01", vec![3]),
        ("k=%5F_HIVE_DEFAULT_PARTITION__/d=1970-01-01", vec![4]),
        ("k=x/d=__HIVE_DEFAULT_PARTITION__", vec![5]),
        ("k=ü%3D1/d=1970-01-02", vec![6]),
    ];
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|(name, rows)| (name.to_string(), rows))
        .collect();
    assert_eq!(hive(&sink, &[rows]), (7, expected));
}

#[test]
fn hive_files_are_bounded_and_lose_no_row() {
    let sink = Sink::Parquet(FileSink {
        partition_by: vec!["k".into()],
        ..file_sink("out")
    });
    // Sorted, shuffled, and far more values than files may be open, with rows wide enough to spill.
    for (values, shuffle, width) in [(5_i64, 1_i64, 1_usize), (500, 1, 1), (500, 7919, 1), (200, 7919, 400)] {
        let rows = 20_000_i64;
        let batches: Vec<_> = (0..rows)
            .collect::<Vec<_>>()
            .chunks(4096)
            .map(|chunk| {
                let key = |n: &i64| n * shuffle % rows * values / rows;
                let pad = "x".repeat(width);
                batch(vec![
                    ("n", Arc::new(Int64Array::from(chunk.to_vec()))),
                    (
                        "k",
                        Arc::new(StringViewArray::from_iter_values(
                            chunk.iter().map(|n| format!("{pad:.200}{}", key(n))),
                        )),
                    ),
                ])
            })
            .collect();
        let (files, found) = hive(&sink, &batches);
        assert_eq!(found.len(), values as usize);
        assert!(files < 3 * values as usize, "{files} files for {values} folders");
        for rows in found.values() {
            assert!(rows.is_sorted(), "rows of a folder keep their order");
        }
        let mut all: Vec<i64> = found.into_values().flatten().collect();
        all.sort_unstable();
        assert_eq!(all, (0..rows).collect::<Vec<_>>());
    }
}

#[test]
fn options_that_cannot_be_are_refused_by_name() {
    let by = |columns: &[&str]| FileSink {
        partition_by: columns.iter().map(|name| name.to_string()).collect(),
        ..file_sink("out")
    };
    let cases = [
        (Sink::Parquet(by(&["absent"])), "absent"),
        (Sink::Parquet(by(&["n", "n"])), "twice"),
        (Sink::Parquet(by(&["n", "t", "f", "d", "day"])), "at least one"),
        (
            Sink::Csv(FileSink {
                partition_column: Some("n".into()),
                ..file_sink("out")
            }),
            "has a column n already",
        ),
        (
            Sink::Csv(FileSink {
                null: "a,b".into(),
                ..file_sink("out")
            }),
            "a,b",
        ),
        (
            // Behind it stands a delimiter: the reader would find that one byte early.
            Sink::Csv(FileSink {
                null: "-|".into(),
                delimiter: Delimiter::of_text("||").unwrap(),
                ..file_sink("out")
            }),
            "-|",
        ),
    ];
    for (sink, told) in cases {
        let error = check_sink(&sink, sample().schema_ref()).unwrap_err();
        assert_eq!(error.class, ErrorClass::Config);
        assert!(error.message.contains(told), "{}", error.message);
    }
}

//! From a job's source to records: survey, sample, open, resume, and what is refused.

use std::{fs, path::Path, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, DictionaryArray, Int64Array, RecordBatch, StringArray, StructArray},
    buffer::NullBuffer,
    datatypes::{DataType, Field, Fields, Int32Type, Int64Type, Schema, SchemaRef},
};
use gapless_common::{
    attempt::RecordHash,
    error::{ErrorClass, TaskError},
    ids::RunId,
    job::{
        AvroSource, ColumnType, Compression, Count, CsvSource, Delimiter, Exists, FileSink, Job, Lookup, NdjsonSource,
        OnError, ParquetSource, Partition, Partitioning, Sink, Source, Step,
    },
    key::{Key, KeyType},
    manifest::{DataFile, Verdict, VerdictKind, Version},
    plan::{Facts, KeySample, TransformFacts, TransformMode, Unit},
    range::UnitRange,
};
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};

use super::{
    lookup::{MAX_TABLE, MAX_TABLE_FILES, read_pinned, read_table},
    open::open,
    types::columns_of,
};
use crate::survey::{SourceFacts, sample_keys, survey_source};

fn csv(paths: &[&str], columns: &[(&str, ColumnType)]) -> CsvSource {
    CsvSource {
        paths: paths.iter().map(ToString::to_string).collect(),
        columns: columns.iter().map(|(name, ty)| (name.to_string(), *ty)).collect(),
        header: true,
        delimiter: Delimiter::COMMA,
        quote: Some(b'"'),
        nulls: vec![String::new()],
        compression: Compression::Auto,
        dialect: Default::default(),
        places: None,
    }
}

fn step(name: &str, source: Source, sink: Sink) -> Step {
    Step {
        name: name.into(),
        after: vec![],
        source,
        lookups: Default::default(),
        partition: Partitioning {
            method: Partition::Auto,
            count: Count::Auto,
        },
        placement: Default::default(),
        checks: vec![],
        sql: None,
        command: None,
        sort: Vec::new(),
        sink,
        on_error: OnError::default(),
        if_unchanged: Default::default(),
    }
}

fn job(steps: Vec<Step>) -> Job {
    Job {
        name: "job".into(),
        parameters: Default::default(),
        priority: Default::default(),
        steps,
        redrive: None,
    }
}

fn one(source: Source) -> Job {
    job(vec![step("s", source, Sink::Discard)])
}

fn survey(job: &Job, base: &Path) -> Result<SourceFacts, TaskError> {
    survey_source(job, &job.steps[0], base, RunId(Default::default()), &[])
}

fn plan(found: &SourceFacts) -> Facts {
    Facts {
        unit: found.unit,
        files: found.files.clone(),
        domain: found.domain,
        columns: columns_of(&found.schema),
        read_columns: None,
        inputs: Vec::new(),
        output: vec![],
        transform: TransformFacts {
            mode: TransformMode::RowWise { expands: false },
            reason: String::new(),
        },
        rows: found.rows,
        bytes: found.bytes,
        sample: None,
        warnings: vec![],
        lookups: vec![],
        standing: None,
    }
}

/// What a range gave: the first column, which is `int64`, the intake, and where it may stop.
#[derive(Debug, Default, PartialEq)]
struct Got {
    keys: Vec<i64>,
    read: u64,
    records: RecordHash,
    stops: Vec<u64>,
}

fn read(job: &Job, step: &Step, base: &Path, facts: &Facts, low: u64, high: u64) -> Result<Got, TaskError> {
    let mut reader = open(job, step, base, facts, UnitRange::new(low, high), None)?;
    let mut got = Got::default();
    while let Some(input) = reader.next_batch()? {
        assert_eq!(input.batch.schema(), reader.schema());
        got.keys
            .extend_from_slice(input.batch.column(0).as_primitive::<Int64Type>().values());
        if reader.may_stop() {
            got.stops.push(reader.position());
        }
    }
    assert_eq!(reader.position(), high);
    let intake = reader.take_intake();
    got.read = intake.read;
    got.records = intake.records;
    Ok(got)
}

/// Rows `from..to` of (k, t), in row groups of `group` rows.
fn write_parquet(path: &Path, from: i64, to: i64, group: usize) {
    let schema = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("t", DataType::Utf8, true),
    ]));
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(from..to));
    let texts: ArrayRef = Arc::new(
        (from..to)
            .map(|i| (i % 3 != 0).then(|| format!("text of {i}")))
            .collect::<StringArray>(),
    );
    let batch = RecordBatch::try_new(schema.clone(), vec![keys, texts]).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group))
        .build();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_is_read_by_row_groups_and_resumes_at_them() {
    let dir = tempfile::tempdir().unwrap();
    write_parquet(&dir.path().join("a.parquet"), 0, 25_000, 10_000);
    write_parquet(&dir.path().join("b.parquet"), 25_000, 26_000, 400);
    let job = one(Source::Parquet(ParquetSource {
        paths: vec!["*.parquet".into()],
        places: None,
    }));
    let found = survey(&job, dir.path()).unwrap();
    assert_eq!(
        (found.unit, found.domain, found.rows),
        (Unit::RowGroup, UnitRange::new(0, 6), 26_000)
    );
    assert_eq!(found.schema.field(1).data_type(), &DataType::Utf8View);
    let facts = plan(&found);
    let all = read(&job, &job.steps[0], dir.path(), &facts, 0, 6).unwrap();
    assert_eq!(all.keys, (0..26_000).collect::<Vec<_>>());
    assert_eq!((all.read, &all.stops), (26_000, &vec![1, 2, 3, 4, 5, 6]));
    let mut sum = RecordHash::default();
    for unit in 0..6 {
        sum += read(&job, &job.steps[0], dir.path(), &facts, unit, unit + 1)
            .unwrap()
            .records;
    }
    assert_eq!(sum, all.records);

    let wanted = ["t".to_string()];
    let mut reader = open(
        &job,
        &job.steps[0],
        dir.path(),
        &facts,
        UnitRange::new(2, 4),
        Some(&wanted),
    )
    .unwrap();
    assert_eq!(reader.schema().fields().len(), 1);
    let first = reader.next_batch().unwrap().unwrap();
    let place = first.origin.locate(2);
    assert_eq!(
        (place.file.as_str(), place.row, place.raw.as_str()),
        ("a.parquet", Some(20_002), "{\"t\":\"text of 20002\"}")
    );
    // The hash is that of the columns read.
    let narrow = reader.take_intake();
    assert!(narrow.records != all.records && narrow.bytes < found.bytes);
    // No column at all: rows are counted.
    let mut reader = open(&job, &job.steps[0], dir.path(), &facts, facts.domain, Some(&[])).unwrap();
    let mut rows = 0;
    while let Some(input) = reader.next_batch().unwrap() {
        rows += input.batch.num_rows();
    }
    assert_eq!(rows, 26_000);

    write_parquet(&dir.path().join("a.parquet"), 0, 25_000, 5_000);
    let error = read(&job, &job.steps[0], dir.path(), &facts, 0, 1).unwrap_err();
    assert_eq!(error.class, ErrorClass::Config);
    assert!(error.message.contains("changed after planning"), "{error}");
}

#[test]
fn parts_of_a_null_struct_in_parquet_are_null_and_dictionaries_are_texts() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Fields::from(vec![Field::new("n", DataType::Int64, false)]);
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![5, 7]));
    let nulls = NullBuffer::from(vec![false, true]);
    let structs: ArrayRef = Arc::new(StructArray::new(parts, vec![numbers], Some(nulls)));
    let shops: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::from_iter([Some("b"), None]));
    let batch = RecordBatch::try_from_iter_with_nullable([("rec", structs, true), ("shop", shops, true)]).unwrap();
    let file = fs::File::create(dir.path().join("a.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let job = one(Source::Parquet(ParquetSource {
        paths: vec!["a.parquet".into()],
        places: Default::default(),
    }));
    let found = survey(&job, dir.path()).unwrap();
    assert_eq!(columns_of(&found.schema)[1].key_type, Some(KeyType::Text));
    let mut reader = open(
        &job,
        &job.steps[0],
        dir.path(),
        &plan(&found),
        UnitRange::new(0, 1),
        None,
    )
    .unwrap();
    let read = reader.next_batch().unwrap().expect("two rows").batch;
    let parts = read.column(0).as_struct();
    assert!(parts.is_null(0));
    let numbers: Vec<Option<i64>> = parts.column(0).as_primitive::<Int64Type>().iter().collect();
    assert_eq!(numbers, [None, Some(7)]);
    assert!(read.column(1).as_string_view().iter().eq([Some("b"), None]));
}

#[test]
fn parquet_files_must_have_the_same_columns_and_be_whole() {
    let dir = tempfile::tempdir().unwrap();
    write_parquet(&dir.path().join("1.parquet"), 0, 10, 10);
    let batch = RecordBatch::try_from_iter([("k", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]).unwrap();
    let file = fs::File::create(dir.path().join("2.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let job = |paths: &[&str]| {
        one(Source::Parquet(ParquetSource {
            paths: paths.iter().map(ToString::to_string).collect(),
            places: None,
        }))
    };
    let error = survey(&job(&["*.parquet"]), dir.path()).unwrap_err();
    assert!(error.message.starts_with("2.parquet: its columns differ"), "{error}");
    assert!(error.message.contains("column k is string instead of int64"), "{error}");
    let whole = fs::read(dir.path().join("1.parquet")).unwrap();
    fs::write(dir.path().join("cut.parquet"), &whole[..whole.len() / 2]).unwrap();
    assert_eq!(
        survey(&job(&["cut.parquet"]), dir.path()).unwrap_err().class,
        ErrorClass::Data
    );
}

#[test]
fn a_csv_survey_pins_counts_and_types() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("b.csv"), "k,t,x\n3,c,\n4,d,9\n").unwrap();
    fs::write(dir.path().join("a.csv"), "k,t,x\n1,a,1\n2,\"b\",bad\n").unwrap();
    fs::write(dir.path().join("c.csv"), "").unwrap();
    let columns = [("x", ColumnType::Int8), ("k", ColumnType::Int64)];
    let job = one(Source::Csv(csv(&["*.csv"], &columns)));
    let found = survey(&job, dir.path()).unwrap();
    let names: Vec<&str> = found.files.iter().map(|pinned| pinned.path.as_str()).collect();
    assert_eq!((names, found.rows), (vec!["a.csv", "b.csv", "c.csv"], 4));
    let types: Vec<String> = columns_of(&found.schema).into_iter().map(|column| column.ty).collect();
    assert_eq!(types, ["Int64", "Utf8View", "Int8"]);
    let facts = plan(&found);
    let got = read(&job, &job.steps[0], dir.path(), &facts, 0, found.domain.high).unwrap();
    assert_eq!((got.keys, got.read), (vec![1, 3, 4], 4));

    let refused = |source: CsvSource| survey(&one(Source::Csv(source)), dir.path()).unwrap_err().message;
    assert!(refused(csv(&["a.csv"], &[("y", ColumnType::Int8)])).contains("a.csv: the header has no column y"));
    assert!(refused(csv(&["nothing*.csv"], &[])).contains("no file matches"));
    assert!(refused(csv(&["a.csv", "none.csv"], &[])).contains("none.csv: no such file"));
    assert!(refused(csv(&["c.csv"], &[])).contains("empty"));
    let mut headless = csv(&["a.csv"], &[]);
    headless.header = false;
    assert!(refused(headless).contains("needs its columns declared"));
    fs::write(dir.path().join("d.csv"), "k,x,t\n").unwrap();
    assert!(refused(csv(&["*.csv"], &[])).starts_with("d.csv: its header differs"));
}

#[test]
fn samples_are_whole_for_small_sources_and_even_for_large_ones() {
    let dir = tempfile::tempdir().unwrap();
    let sample = |job: &Job, column: &str| {
        let found = survey(job, dir.path()).unwrap();
        (sample_keys(job, &job.steps[0], dir.path(), &found, column), found.rows)
    };
    fs::write(dir.path().join("small.csv"), "k,t\n3,c\n,b\n1,\"ab\"\n1,\n").unwrap();
    let small = one(Source::Csv(csv(&["small.csv"], &[("k", ColumnType::Int64)])));
    let keys = sample(&small, "k").0.unwrap();
    assert_eq!(
        (keys.keys, keys.nulls, keys.complete),
        (vec![Key::Int(1), Key::Int(1), Key::Int(3)], 1, true)
    );
    assert_eq!(sample(&small, "t").0.unwrap().key_type, KeyType::Text);
    assert!(sample(&small, "z").0.unwrap_err().message.contains("no column z"));

    // Even: the quantiles of the sample are those of the numbers.
    let check_even = |sample: &KeySample, from: i128, rows: i128| {
        assert!(!sample.complete && sample.keys.len() > 2000 && sample.keys.len() <= KeySample::MAX);
        for eighth in 1..8 {
            let Key::Int(key) = sample.keys[sample.keys.len() * eighth / 8] else {
                panic!("an integer")
            };
            let off = (key - from - rows * eighth as i128 / 8).abs();
            assert!(off * 50 < rows, "eighth {eighth} of {rows} is {key}");
        }
    };
    let large: String = (1_000_000..2_500_000).map(|i| format!("{i},t\n")).collect();
    fs::write(dir.path().join("large.csv"), format!("k,t\n{large}")).unwrap();
    let job = one(Source::Csv(csv(&["large.csv"], &[("k", ColumnType::Int64)])));
    let (keys, rows) = sample(&job, "k");
    check_even(&keys.unwrap(), 1_000_000, 1_500_000);
    assert!(rows.abs_diff(1_500_000) < 30_000, "{rows}");
    let zipped = zstd::encode_all(format!("k,t\n{large}").as_bytes(), 1).unwrap();
    fs::write(dir.path().join("large.csv.zst"), zipped).unwrap();
    let job = one(Source::Csv(csv(&["large.csv.zst"], &[("k", ColumnType::Int64)])));
    let (keys, rows) = sample(&job, "k");
    check_even(&keys.unwrap(), 1_000_000, 1_500_000);
    assert_eq!(rows, 1_500_000);

    write_parquet(&dir.path().join("p.parquet"), 0, 100_000, 1000);
    let job = one(Source::Parquet(ParquetSource {
        paths: vec!["p.parquet".into()],
        places: None,
    }));
    check_even(&sample(&job, "k").0.unwrap(), 0, 100_000);
    super::avro::tests::write(&dir.path().join("p.avro"), 0, 1_000_000, 1000);
    let job = one(Source::Avro(AvroSource {
        paths: vec!["p.avro".into()],
    }));
    let (keys, rows) = sample(&job, "k");
    check_even(&keys.unwrap(), 0, 1_000_000);
    assert!(rows.abs_diff(1_000_000) < 30_000, "{rows}");
    let job = one(Source::Sequence { from: 0, to: 100_000 });
    check_even(&sample(&job, "n").0.unwrap(), 0, 100_000);
    let job = one(Source::Sequence { from: -3, to: 2 });
    let keys = sample(&job, "n").0.unwrap();
    assert_eq!((keys.keys, keys.complete), ((-3..2).map(Key::Int).collect(), true));
}

fn sink(path: &str) -> FileSink {
    FileSink {
        path: path.into(),
        exists: Exists::Fail,
        compression: Compression::None,
        files: None,
        partition_by: vec![],
        split: None,
        partition_column: None,
        header: true,
        delimiter: Delimiter::of_byte(b';'),
        null: "NULL".into(),
        encoding: Default::default(),
        crlf: false,
    }
}

#[test]
fn the_output_of_an_earlier_step_is_what_its_verdict_lists() {
    let dir = tempfile::tempdir().unwrap();
    let job = job(vec![
        step("later", Source::Step("first".into()), Sink::Discard),
        step(
            "first",
            Source::Sequence { from: 0, to: 1 },
            Sink::Csv(sink("out/first/")),
        ),
        step("none", Source::Step("later".into()), Sink::Discard),
    ]);
    let run = RunId(Default::default());
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("d", DataType::Decimal128(6, 2), true),
    ]));
    let look = || survey_source(&job, &job.steps[0], dir.path(), run, &[Some(schema.clone())]);
    let error = look().unwrap_err();
    assert!(
        error.message.contains("step first has published nothing for run"),
        "{error}"
    );

    let folder = dir.path().join("out/.first.gapless/published");
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir_all(dir.path().join("out/first")).unwrap();
    fs::write(dir.path().join("out/first/part-0.csv"), "k;d\n1;1.50\nNULL;NULL\n").unwrap();
    fs::write(dir.path().join("out/first/old.csv"), "k;d\n9;9.00\n").unwrap();
    let record = |generation, verdict, step, path: &str| {
        let verdict = Verdict {
            version: Version::default(),
            verdict,
            run,
            step,
            edition: 0,
            step_name: "first".into(),
            generation,
            seal: 1,
            replaces: false,
            rows: 2,
            bytes: 20,
            files: vec![DataFile {
                path: path.into(),
                rows: 2,
                bytes: 20,
                checksum: String::new(),
                multiline: false,
            }],
        };
        let name = folder.join(format!("{generation:06}.json"));
        fs::write(name, serde_json::to_vec(&verdict).unwrap()).unwrap();
    };
    record(1, VerdictKind::Committed, 1, "old.csv");
    record(2, VerdictKind::Committed, 1, "part-0.csv");
    record(3, VerdictKind::Aborted, 1, "old.csv");
    record(4, VerdictKind::Committed, 0, "old.csv");
    let found = look().unwrap();
    assert_eq!(found.files[0].path, "out/first/part-0.csv");
    assert_eq!((found.schema.clone(), found.rows), (schema.clone(), 2));
    let facts = plan(&found);
    let mut reader = open(&job, &job.steps[0], dir.path(), &facts, facts.domain, None).unwrap();
    let batch = reader.next_batch().unwrap().unwrap().batch;
    assert_eq!(
        (batch.schema(), batch.num_rows(), batch.column(1).null_count()),
        (schema.clone(), 2, 1)
    );
    let error = survey_source(&job, &job.steps[2], dir.path(), run, &[]).unwrap_err();
    assert!(error.message.contains("whose sink is discard"), "{error}");
}

#[test]
fn lookup_tables_are_read_whole_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.csv"), "k,t\n1,a\n2,b\n").unwrap();
    let table = |columns: &[(&str, ColumnType)]| read_table("t", &Lookup::Csv(csv(&["t.csv"], columns)), dir.path());
    let found = table(&[("k", ColumnType::Int64)]).unwrap();
    assert_eq!(
        (
            found.schema.fields().len(),
            found.batches.iter().map(RecordBatch::num_rows).sum::<usize>()
        ),
        (2, 2)
    );
    fs::write(dir.path().join("t.ndjson"), "{\"k\":1,\"t\":\"a\"}\n{\"k\":2}\n").unwrap();
    let objects = |columns: &[(&str, ColumnType)], required: &[&str]| {
        let source = NdjsonSource {
            paths: vec!["t.ndjson".into()],
            columns: columns.iter().map(|(name, ty)| (name.to_string(), *ty)).collect(),
            required: required.iter().map(ToString::to_string).collect(),
            compression: Compression::Auto,
            closed: false,
            places: None,
        };
        read_table("t", &Lookup::Ndjson(source), dir.path())
    };
    let found = objects(&[("k", ColumnType::Int64), ("t", ColumnType::String)], &[]).unwrap();
    assert_eq!(found.batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    let error = objects(&[], &["t"]).unwrap_err();
    assert!(
        error.message.contains("t.ndjson, line 2: column t: it is missing"),
        "{error}"
    );
    let error = table(&[("t", ColumnType::Date)]).unwrap_err();
    assert_eq!(error.class, ErrorClass::Data);
    assert!(error.message.contains(": t.csv, line 2: column t"), "{error}");
    write_parquet(&dir.path().join("t.parquet"), 0, 10, 5);
    let parquet = Lookup::Parquet(ParquetSource {
        paths: vec!["t.parquet".into()],
        places: None,
    });
    assert_eq!(
        read_table("t", &parquet, dir.path())
            .unwrap()
            .batches
            .iter()
            .map(RecordBatch::num_rows)
            .sum::<usize>(),
        10
    );
    super::avro::tests::write(&dir.path().join("t.avro"), 0, 10, 5);
    let avro = Lookup::Avro(AvroSource {
        paths: vec!["t.avro".into()],
    });
    let found = read_table("t", &avro, dir.path()).unwrap();
    assert_eq!(found.batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 10);
    // A sparse file has the size without the bytes.
    fs::File::options()
        .append(true)
        .open(dir.path().join("t.csv"))
        .unwrap()
        .set_len(MAX_TABLE + 1)
        .unwrap();
    let error = table(&[]).unwrap_err();
    assert!(error.message.contains("too many for a table"), "{error}");
}

#[test]
fn a_look_up_is_read_again_only_as_it_was_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("a.csv", "k,t\n1,a\n");
    write("b.csv", "k,t\n2,b\n");
    let lookup = Lookup::Csv(csv(&["*.csv"], &[("k", ColumnType::Int64)]));
    let pinned = read_table("names", &lookup, dir.path()).unwrap().files;
    let paths: Vec<&str> = pinned.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["a.csv", "b.csv"]);
    assert_eq!((pinned[0].size, pinned[0].digest.len()), (8, 32));

    let again = || read_pinned("names", &lookup, dir.path(), &pinned);
    let rows = |table: super::lookup::Table| table.batches.iter().map(RecordBatch::num_rows).sum::<usize>();
    // Another time and inode, as on another machine, and a file that came later: the same table.
    write("copy", "k,t\n1,a\n");
    fs::rename(dir.path().join("copy"), dir.path().join("a.csv")).unwrap();
    write("c.csv", "k,t\n3,c\n");
    assert_eq!(rows(again().unwrap()), 2);

    type Change<'a> = (&'a dyn Fn(), &'a str);
    let changes: [Change; 3] = [
        (
            &|| write("b.csv", "k,t\n2,x\n"),
            "b.csv changed since this run was planned: 8 bytes as before, but not the same ones",
        ),
        (
            &|| write("b.csv", "k,t\n2,bb\n"),
            "b.csv changed since this run was planned: it had 8 bytes, now 9",
        ),
        (
            &|| fs::remove_file(dir.path().join("b.csv")).unwrap(),
            "b.csv is missing; it had 8 bytes",
        ),
    ];
    for (change, words) in changes {
        change();
        let error = again().unwrap_err();
        assert_eq!(error.class, ErrorClass::Config, "{error}");
        for part in [
            "look-up names: ",
            words,
            "put the old content back",
            "run the job again",
        ] {
            assert!(error.message.contains(part), "{error}\nlacks: {part}");
        }
    }
    // The old content again, whatever its time: the run goes on.
    write("b.csv", "k,t\n2,b\n");
    assert_eq!(rows(again().unwrap()), 2);

    for number in 0..=MAX_TABLE_FILES {
        write(&format!("{number}.csv"), "");
    }
    let error = read_table("names", &lookup, dir.path()).unwrap_err();
    assert!(
        error.message.contains("look-up names: 1004 files are too many"),
        "{error}"
    );
}

//! Golden rows: one of each kind with every field filled, as each release whose rows are still read has
//! written them. `tests/golden/rows-v<schema>.txt` holds a line `<key> = <value>` for each.
//!
//! While a schema is not released, its file follows the code:
//! `REWRITE=1 cargo test --release -p gapless-core --test golden` writes the file of this schema again, to be
//! read as a diff. Once it is released its file never changes: a change of a row's form then begins with
//! raising `SCHEMA` in `src/schema.rs`. Files of schemas below `OLDEST` are removed.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc};

use gapless_common::{
    attempt::{Counters, Fence, RecordHash, Segment},
    error::ErrorClass,
    ids::{AttemptId, ClusterId, Epoch, RunId, SessionId, Stage, TaskKey, Term},
    job::{
        Check, ColumnType, Compression, Count, CsvSource, Delimiter, Dialect, Exists, FileSink, Job, Lookup, OnError,
        Outside, Parameter, ParameterType, ParquetSource, PartitionFailed, Partitioning, Priority, Sink, Source, Step,
        WrittenRange,
    },
    key::{Key, KeyType},
    labels::Labels,
    plan::{
        BucketFn, Column, Estimate, ExchangePlan, Facts, KeySample, LookupFile, Method, Partition, PinnedFile,
        PinnedLookup, TransformFacts, TransformMode, Unit,
    },
    range::{KeyInterval, KeyRange, UnitRange},
};
use gapless_core::{
    Row, RowKey, Timestamp,
    row::{
        ClusterRow, Failure, JobRow, LeaseRow, Phase, PlanHeader, ProgressRow, Publication, RunRow, RunState,
        SessionRow, SpeedRow, StepRow,
    },
    schema::{self, Known, OLDEST, SCHEMA, SchemaError},
};
use uuid::Uuid;

const RUN: RunId = RunId(Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0001));
const SESSION: SessionId = SessionId(Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0002));

fn file(schema: u32) -> PathBuf {
    PathBuf::from(format!("tests/golden/rows-v{schema}.txt"))
}

fn stored(schema: u32) -> Vec<(String, Vec<u8>)> {
    let path = file(schema);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let pair = |line: &str| {
        let (key, value) = line.split_once(" = ").expect("<key> = <value>");
        (key.to_string(), value.as_bytes().to_vec())
    };
    text.lines().map(pair).collect()
}

#[test]
fn rows_have_the_form_of_their_schema() {
    let line = |row: &Row| {
        let value = String::from_utf8(row.encode()).expect("JSON");
        format!("{} = {value}\n", row.key())
    };
    let now: String = rows().iter().map(line).collect();
    if std::env::var_os("REWRITE").is_some() {
        fs::write(file(SCHEMA), &now).expect("written");
    }
    let golden = fs::read_to_string(file(SCHEMA)).unwrap_or_default();
    for (now, golden) in now.lines().zip(golden.lines()) {
        assert_eq!(
            now, golden,
            "\nA row has another form than schema {SCHEMA} says, or has a new field (fill it here). Is schema {SCHEMA} \
             released? Then raise SCHEMA in src/schema.rs, and keep its file. Afterwards, or if it is not released:\n  \
             REWRITE=1 cargo test --release -p gapless-core --test golden\n"
        );
    }
    assert_eq!(now.lines().count(), golden.lines().count(), "see REWRITE above");
}

#[test]
fn rows_of_every_schema_that_is_known_are_read() {
    for schema in OLDEST..=SCHEMA {
        let stored = schema::read(&stored(schema), &Known::HERE).unwrap_or_else(|error| panic!("v{schema}: {error}"));
        assert_eq!(stored.is_older, schema < SCHEMA);
        let kinds: BTreeSet<&str> = stored.rows.iter().map(|row| kind(&row.key())).collect();
        // Schema 1 knew nothing of speeds.
        let then = if schema == 1 { KINDS - 1 } else { KINDS };
        assert_eq!(kinds.len(), then, "v{schema} has one of each kind: {kinds:?}");
        let outdated: Vec<String> = stored.outdated.iter().map(|row| row.key().to_string()).collect();
        match schema {
            // It had neither epoch nor release.
            1 => assert!(outdated.contains(&"cluster".to_string()), "{outdated:?}"),
            _ => assert_eq!(outdated, [""; 0], "what this release writes is up to date"),
        }
        if schema == SCHEMA {
            assert_eq!(stored.rows, rows(), "read back equal");
        }
    }
}

#[test]
fn a_store_of_another_schema_is_refused_in_words_before_anything_else_is_looked_at() {
    let cluster = |value: &str| ("cluster".to_string(), value.as_bytes().to_vec());
    let newer = [
        ("marvel/1".to_string(), b"of a kind that is not known".to_vec()),
        cluster(r#"{"schema": 9, "oldest": 8, "release": "4.5.6", "owner": {"a": []}}"#),
    ];
    let said = |rows: &[(String, Vec<u8>)], known: &Known| schema::read(rows, known).unwrap_err().to_string();
    assert_eq!(
        said(&newer, &Known::HERE),
        format!(
            "the rows are of schema 9, and this release, {}, reads schemas {OLDEST} to {SCHEMA}: install release 4.5.6 or newer",
            env!("CARGO_PKG_VERSION")
        )
    );
    let later = Known {
        schemas: 9..=10,
        release: "5.0.0",
    };
    assert!(matches!(
        schema::read(&newer, &later),
        Err(SchemaError::Older { stored: 8, .. })
    ));
    assert!(said(&newer, &later).contains("let a release between lead once"));
    assert!(said(&newer[..1], &Known::HERE).contains("marvel/1 is of no kind that this release knows"));
}

#[test]
fn a_field_that_is_not_known_is_not_dropped_in_silence() {
    let mut rows = stored(SCHEMA);
    for (key, value) in &mut rows {
        let text = String::from_utf8(value.clone()).expect("JSON");
        if key.starts_with("facts/") {
            *value = text.replace(r#""nullable":"#, r#""comment":"","nullable":"#).into();
            assert_ne!(text.as_bytes(), value.as_slice());
        }
    }
    let said = schema::read(&rows, &Known::HERE).unwrap_err().to_string();
    assert!(said.contains("facts/") && said.contains("columns.0.comment"), "{said}");
}

/// How many kinds of rows there are; `kind` does not compile without a new one.
const KINDS: usize = 11;

fn kind(key: &RowKey) -> &'static str {
    match key {
        RowKey::Cluster => "cluster",
        RowKey::Session(_) => "session",
        RowKey::Run(_) => "run",
        RowKey::Job(_) => "job",
        RowKey::Identity(_) => "identity",
        RowKey::Step(..) => "step",
        RowKey::Facts(..) => "facts",
        RowKey::Plan(..) => "plan",
        RowKey::Lease(_) => "lease",
        RowKey::Progress(_) => "progress",
        RowKey::Speed(..) => "speed",
    }
}

/// One row of each kind at least, with every field filled and every form of a value: no `..` and no
/// `Default` here, so that a new field is missed by the compiler.
fn rows() -> Vec<Row> {
    let task = |stage, partition| TaskKey {
        run: RUN,
        step: 0,
        stage,
        partition,
    };
    let fence = Fence {
        number: 3,
        id: AttemptId {
            term: Term(905),
            serial: 17,
        },
    };
    let mut rows = vec![
        Row::Cluster(ClusterRow {
            cluster: ClusterId(Uuid::from_u128(0x0193_0000_0000_4000_8000_0000_0000_0003)),
            epoch: Epoch(2),
            schema: SCHEMA,
            oldest: SCHEMA,
            release: "0.1.0".into(),
        }),
        Row::Session(
            SESSION,
            SessionRow {
                worker: Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0004),
                name: "host-1".into(),
                slots: 4,
                labels: labels(),
                version: "0.1.0".into(),
                draining: true,
                void: true,
            },
        ),
        Row::Job(RUN, Arc::new(job_row())),
        Row::Identity("sales day=2026-11-20".into(), RUN),
        Row::Facts(RUN, 0, Arc::new(facts())),
        Row::Plan(RUN, 0, Stage::Execute, 0, partitions()),
        Row::Speed(
            "sales".into(),
            "load".into(),
            SpeedRow {
                bytes_per_second: 100_000_000,
                at: Timestamp(1_795_171_260_000_000),
            },
        ),
        Row::Lease(
            task(Stage::Execute, 0),
            LeaseRow {
                session: SESSION,
                fence,
            },
        ),
        Row::Progress(
            task(Stage::Execute, 1),
            ProgressRow {
                attempt: 3,
                edition: 0,
                done: true,
                seq: 2,
                position: 4096,
                counters: Counters {
                    read: 10,
                    written: 7,
                    filtered: 2,
                    rejected: 1,
                    bytes_read: 1000,
                    bytes_written: 700,
                },
                records: RecordHash(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
                segments: vec![Segment {
                    attempt: fence.id,
                    first_seq: 0,
                    next_seq: 2,
                }],
                digest: u64::MAX,
                failures: 2,
                losses: 1,
                failure: Some(Failure {
                    class: ErrorClass::Transient,
                    message: "the disk was away".into(),
                    restart: 1,
                }),
            },
        ),
    ];
    for (at, state) in (0..).zip(RunState::ALL) {
        let run = RunRow {
            state,
            identity: "sales day=2026-11-20".into(),
            text_digest: "00112233445566778899aabbccddeeff".into(),
            submitted: Timestamp(1_795_171_200_000_000),
            finished: Some(Timestamp(1_795_171_260_000_000)),
            error: Some("step load failed".into()),
            restarts: 1,
            priority: Priority(80),
        };
        rows.push(Row::Run(RunId(Uuid::from_u128(RUN.0.as_u128() + at)), run));
    }
    for (at, phase) in (0..).zip(PHASES) {
        rows.push(Row::Step(
            RUN,
            at,
            step_row(phase, METHODS[at as usize % METHODS.len()]),
        ));
    }
    for (at, class) in (2..).zip(ErrorClass::ALL) {
        let failure = Failure {
            class,
            message: String::new(),
            restart: 0,
        };
        let row = ProgressRow {
            failure: Some(failure),
            ..ProgressRow::default()
        };
        rows.push(Row::Progress(task(Stage::Scatter, at), row));
    }
    for (at, stage) in (0..).zip(Stage::ALL) {
        rows.push(Row::Lease(
            task(stage, at + 9),
            LeaseRow {
                session: SESSION,
                fence,
            },
        ));
    }
    rows
}

fn labels() -> Labels {
    "gpu=yes,zone=a".parse().expect("labels")
}

const PHASES: [Phase; 11] = [
    Phase::Waiting,
    Phase::Survey,
    Phase::Splitting,
    Phase::Prepare,
    Phase::Scatter,
    Phase::Execute,
    Phase::Merge,
    Phase::Publish,
    Phase::Published,
    Phase::Abort,
    Phase::Aborted,
];

const METHODS: [Method; 7] = [
    Method::Bytes,
    Method::Files,
    Method::RowGroups,
    Method::KeyRange,
    Method::Hash,
    Method::Sequence,
    Method::Single,
];

fn step_row(phase: Phase, method: Method) -> StepRow {
    let function = match method {
        Method::Hash => BucketFn::Hash {
            columns: vec!["shop".into()],
        },
        _ => BucketFn::KeyRange {
            column: "id".into(),
            key_type: KeyType::Int,
            bounds: vec![Key::Int(-1), Key::Int(i128::MAX)],
            null_bucket: Some(0),
            descending: false,
        },
    };
    StepRow {
        phase,
        slots: 8,
        restart: 1,
        edition: 0,
        attempts: 0,
        looked: 0,
        back_to: None,
        anew: None,
        plan: Some(Box::new(PlanHeader {
            method,
            reason: "the SQL groups by shop".into(),
            exchange: Some(ExchangePlan { function, buckets: 64 }),
            scatter: 4,
            execute: 8,
            merge: Some(2),
        })),
        preparation: Some(r#"{"generation":1}"#.into()),
        publication: Some(Publication {
            output: "/out/load".into(),
            certificate: "/out/load/_gapless/certificate-0.json".into(),
            rows: 7,
            files: 2,
            bytes: 700,
            records: "0123456789abcdef0123456789abcdef".into(),
            source_rows: 10,
        }),
        seal: Some(u64::MAX),
        speed: Some(100_000_000),
        started: Some(Timestamp(1_795_171_200_000_001)),
        finished: Some(Timestamp(1_795_171_260_000_001)),
    }
}

fn facts() -> Facts {
    let columns = [
        KeyType::Int,
        KeyType::Decimal { scale: 2 },
        KeyType::Float,
        KeyType::Text,
        KeyType::Bool,
        KeyType::Date,
        KeyType::Timestamp,
    ];
    let column = |(at, key_type): (usize, KeyType)| Column {
        name: format!("c{at}"),
        ty: "Int64".into(),
        nullable: true,
        key_type: Some(key_type),
    };
    Facts {
        unit: Unit::Byte,
        files: vec![PinnedFile {
            path: "/data/sales.csv".into(),
            size: 4096,
            etag: "1795171200000000000-7".into(),
            units: 4096,
            rows: Some(10),
        }],
        domain: UnitRange { low: 0, high: 4096 },
        columns: columns.into_iter().enumerate().map(column).collect(),
        read_columns: Some(vec!["c0".into()]),
        inputs: Vec::new(),
        output: vec![Column {
            name: "list".into(),
            ty: "List(Int64)".into(),
            nullable: false,
            key_type: None,
        }],
        transform: TransformFacts {
            mode: TransformMode::Whole {
                keys: vec!["c0".into()],
            },
            reason: "it groups".into(),
        },
        rows: 10,
        bytes: 4096,
        sample: Some(KeySample {
            column: "c2".into(),
            key_type: KeyType::Float,
            keys: vec![Key::Float(f64::NEG_INFINITY), Key::Float(0.5), Key::Float(f64::NAN)],
            nulls: 1,
            complete: true,
        }),
        warnings: vec!["a header was taken to be one".into()],
        lookups: vec![PinnedLookup {
            name: "shops".into(),
            files: vec![LookupFile {
                path: "/data/shops.csv".into(),
                size: 100,
                etag: "1795171200000000000-8".into(),
                digest: "0123456789abcdef0123456789abcdef".into(),
            }],
        }],
        standing: None,
    }
}

fn partitions() -> Vec<Partition> {
    let partition = |number: u32, keys| Partition {
        number,
        units: UnitRange {
            low: u64::from(number) * 8,
            high: u64::from(number) * 8 + 8,
        },
        keys,
        estimate: Estimate { rows: 5, bytes: 2048 },
    };
    let interval = KeyInterval {
        low: Some(Key::Text("a".into())),
        high: Some(Key::Text("m".into())),
    };
    vec![
        partition(
            0,
            Some(KeyRange {
                interval: Some(interval),
                null: true,
            }),
        ),
        partition(
            1,
            Some(KeyRange {
                interval: None,
                null: true,
            }),
        ),
        partition(2, None),
    ]
}

fn job_row() -> JobRow {
    JobRow {
        redrive: String::new(),
        text: "job: sales\n".into(),
        file_name: "sales.yaml".into(),
        parameters: [("day".to_string(), "2026-11-20".to_string())].into(),
        base_dir: "/jobs".into(),
        job: Job {
            name: "sales".into(),
            priority: Priority(80),
            parameters: [(
                "day".to_string(),
                Parameter {
                    ty: ParameterType::Date,
                    identifying: true,
                    default: Some("2026-11-20".into()),
                },
            )]
            .into(),
            steps: steps(),
            redrive: None,
        },
    }
}

fn steps() -> Vec<Step> {
    use gapless_common::job::Partition as By;
    let csv = CsvSource {
        paths: vec!["data/*.csv".into()],
        columns: COLUMN_TYPES
            .into_iter()
            .enumerate()
            .map(|(at, ty)| (format!("c{at}"), ty))
            .collect(),
        header: true,
        delimiter: Delimiter::of_byte(b';'),
        quote: Some(b'"'),
        nulls: vec!["NULL".into()],
        compression: Compression::Zstd,
        dialect: Dialect::default(),
        places: None,
    };
    let parquet = ParquetSource {
        paths: vec!["data/*.parquet".into()],
        places: None,
    };
    let sources = [
        Source::Csv(csv.clone()),
        Source::Parquet(parquet.clone()),
        Source::Step("load".into()),
        Source::Sequence { from: -1, to: 9 },
    ];
    let range = WrittenRange {
        from: Some("a".into()),
        to: Some("m".into()),
        through: Some("z".into()),
        null: true,
    };
    let methods = [
        By::KeyRange {
            column: "c0".into(),
            ranges: vec![range],
            outside: Outside::Partition,
        },
        By::Hash {
            columns: vec!["c0".into()],
        },
        By::Auto,
        By::Bytes,
        By::Files,
        By::RowGroups,
    ];
    let sink = FileSink {
        path: "out/load".into(),
        exists: Exists::Append,
        compression: Compression::Gzip,
        files: Some(2),
        partition_by: vec!["day".into()],
        split: None,
        partition_column: Some("part".into()),
        header: true,
        delimiter: Delimiter::COMMA,
        null: "-".into(),
        encoding: Default::default(),
        crlf: false,
    };
    let sinks = [Sink::Csv(sink.clone()), Sink::Parquet(sink), Sink::Discard];
    let step = |(at, method): (usize, By)| Step {
        name: format!("step-{at}"),
        after: vec!["before".into()],
        source: sources[at % sources.len()].clone(),
        lookups: [
            ("shops".to_string(), Lookup::Csv(csv.clone())),
            ("regions".to_string(), Lookup::Parquet(parquet.clone())),
        ]
        .into(),
        partition: Partitioning {
            method,
            count: if at == 0 { Count::Fixed(8) } else { Count::Auto },
        },
        checks: vec![Check {
            name: "positive".into(),
            that: "c0 > 0".into(),
        }],
        sql: Some("SELECT * FROM input".into()),
        command: None,
        sort: Vec::new(),
        placement: labels(),
        sink: sinks[at % sinks.len()].clone(),
        on_error: OnError {
            attempts: 5,
            attempts_written: false,
            reject_limit: Some(10),
            reject_share: None,
            partition_failed: if at == 0 {
                PartitionFailed::Continue
            } else {
                PartitionFailed::Stop
            },
        },
        if_unchanged: Default::default(),
    };
    methods.into_iter().enumerate().map(step).collect()
}

const COLUMN_TYPES: [ColumnType; 15] = [
    ColumnType::Int8,
    ColumnType::Int16,
    ColumnType::Int32,
    ColumnType::Int64,
    ColumnType::Uint8,
    ColumnType::Uint16,
    ColumnType::Uint32,
    ColumnType::Uint64,
    ColumnType::Float32,
    ColumnType::Float64,
    ColumnType::Decimal {
        precision: 12,
        scale: 2,
    },
    ColumnType::String,
    ColumnType::Bool,
    ColumnType::Date,
    ColumnType::Timestamp,
];

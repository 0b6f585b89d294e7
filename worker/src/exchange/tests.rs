//! The exchange at its boundary: what goes in at scatter attempts comes out at gather readers, each
//! row once, in the right bucket; and nothing else is taken for it.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use arrow::{
    array::*,
    compute::{cast, concat_batches},
    datatypes::*,
    util::display::{ArrayFormatter, FormatOptions},
};
use gapless_common::{
    attempt::{Commit, Counters, Fence, RecordHash, Segment},
    error::{ErrorClass, TaskError},
    hash,
    ids::{AttemptId, RunId, Stage, TaskKey, Term},
    job::Job,
    key::{Key, KeyType},
    manifest::ChunkManifest,
    plan::{BucketFn, ExchangePlan, Facts, Method, StepFrame, TransformFacts, TransformMode, Unit},
    range::UnitRange,
};
use proptest::prelude::*;

use super::{
    GatherReader, ScatterFolders, bucket::Bucketing, carrier::to_travelling, committed_files, exchange_folder,
    file::ExchangeWriter, gather, scatter, scattered, split::Splitter,
};
use crate::{
    attempt::{Assignment, CommittedPartition, Leader, Outcome, StepContext, Stop},
    source::{InputBatch, Intake, Origin, Place, Reject, SourceReader},
};

/// A source of given batches: position = batches read.
struct Batches {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    next: usize,
    low: u64,
    taken: u64,
    rejects: Vec<Reject>,
    resumable: bool,
}

struct Nowhere;

impl Origin for Nowhere {
    fn locate(&self, row: usize) -> Place {
        Place {
            file: "given".into(),
            line: None,
            row: Some(row as u64),
            block: None,
            raw: format!("row {row}"),
        }
    }
}

impl SourceReader for Batches {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn next_batch(&mut self) -> Result<Option<InputBatch>, TaskError> {
        let batch = self.batches.get(self.next).cloned();
        self.next += usize::from(batch.is_some());
        self.taken = batch.as_ref().map_or(0, |batch| batch.num_rows() as u64);
        Ok(batch.map(|batch| InputBatch {
            batch,
            origin: Arc::new(Nowhere),
        }))
    }

    fn position(&self) -> u64 {
        self.low + if self.may_stop() { self.next as u64 } else { 0 }
    }

    fn may_stop(&self) -> bool {
        self.resumable || self.next == self.batches.len()
    }

    fn take_intake(&mut self) -> Intake {
        let rejects = std::mem::take(&mut self.rejects);
        let read = std::mem::take(&mut self.taken) + rejects.len() as u64;
        Intake {
            read,
            bytes: read * 10,
            records: RecordHash(u128::from(read)),
            rejects,
            totals: Vec::new(),
            ..Intake::default()
        }
    }
}

/// A leader that records every commit it is offered.
#[derive(Default)]
struct Recorder {
    commits: Mutex<Vec<Commit>>,
    refuse_from: Option<u32>,
    stop: Option<Stop>,
}

impl Leader for Recorder {
    fn commit(&self, commit: Commit) -> Result<(), TaskError> {
        if self.refuse_from.is_some_and(|seq| commit.seq >= seq) {
            return Err(TaskError::new(
                ErrorClass::Fenced,
                "another attempt holds the partition",
            ));
        }
        self.commits
            .lock()
            .expect("no test panics while it holds the lock")
            .push(commit);
        Ok(())
    }

    fn progress(&self, _position: u64, _rows_since_commit: u64) -> Stop {
        self.stop.unwrap_or(Stop::No)
    }

    fn committed(&self, _stage: Stage) -> Result<Vec<CommittedPartition>, TaskError> {
        Ok(Vec::new())
    }
}

/// A step with an exchange, in a folder of its own.
struct Stage1 {
    folder: tempfile::TempDir,
    context: Arc<StepContext>,
    committed: Vec<CommittedPartition>,
}

impl Stage1 {
    fn new(function: BucketFn, buckets: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let facts = Facts {
            unit: Unit::Byte,
            files: vec![],
            domain: UnitRange::new(0, 0),
            columns: vec![],
            output: vec![],
            read_columns: None,
            inputs: Vec::new(),
            transform: TransformFacts {
                mode: TransformMode::RowWise { expands: false },
                reason: String::new(),
            },
            rows: 0,
            bytes: 0,
            sample: None,
            warnings: vec![],
            lookups: Vec::new(),
            standing: None,
        };
        let frame = StepFrame {
            facts,
            method: Method::Hash,
            exchange: Some(ExchangePlan { function, buckets }),
            merge: None,
        };
        let context = StepContext {
            job: Arc::new(Job {
                name: "job".into(),
                parameters: BTreeMap::new(),
                priority: Default::default(),
                steps: vec![],
                redrive: None,
            }),
            step_no: 0,
            run: RunId(uuid::Uuid::nil()),
            edition: 0,
            base_dir: folder.path().into(),
            started_micros: 0,
            scratch: folder.path().join("scratch"),
            frame: Some(frame),
            preparation: None,
            seal: None,
        };
        let stage = Self {
            folder,
            context: Arc::new(context),
            committed: vec![],
        };
        make(&stage.folders());
        stage
    }

    fn assignment(&self, partition: u32, units: UnitRange) -> Assignment {
        Assignment {
            task: TaskKey {
                run: self.context.run,
                step: 0,
                stage: Stage::Scatter,
                partition,
            },
            fence: Fence {
                number: 1,
                id: AttemptId {
                    term: Term(1),
                    serial: u64::from(partition) + 7,
                },
            },
            units,
            position: units.low,
            seq: 0,
            context: self.context.clone(),
        }
    }

    fn folders(&self) -> ScatterFolders {
        ScatterFolders::new(
            &self.context,
            self.folder.path().join("rejects"),
            self.folder.path().join("keys"),
        )
    }

    /// Scatters batches as one partition, as an attempt does.
    fn scatter(&mut self, schema: &SchemaRef, batches: Vec<RecordBatch>, resumable: bool) -> Vec<Commit> {
        let partition = self.committed.len() as u32;
        let units = UnitRange::new(0, batches.len() as u64);
        let mut reader = Batches {
            schema: schema.clone(),
            batches,
            next: 0,
            low: 0,
            taken: 0,
            rejects: vec![],
            resumable,
        };
        let leader = Recorder::default();
        let assignment = self.assignment(partition, units);
        let mut check = |input: InputBatch| Ok((input.batch, vec![]));
        let outcome = scatter(
            &assignment,
            &leader,
            &mut reader,
            &mut check,
            None,
            None,
            &self.folders(),
        );
        assert_eq!(outcome, Ok(Outcome::Committed));
        let commits = leader
            .commits
            .into_inner()
            .expect("no test panics while it holds the lock");
        self.settle(partition, units, &assignment, &commits);
        commits
    }

    fn settle(&mut self, partition: u32, units: UnitRange, assignment: &Assignment, commits: &[Commit]) {
        let mut counters = Counters::default();
        let mut records = RecordHash::default();
        for commit in commits {
            counters += commit.counters;
            records += commit.records;
        }
        let segment = Segment {
            attempt: assignment.fence.id,
            first_seq: 0,
            next_seq: commits.len() as u32,
        };
        self.committed.push(CommittedPartition {
            partition,
            units,
            position: commits.last().map_or(units.low, |commit| commit.next),
            counters,
            records,
            segments: vec![segment],
        });
    }

    fn files(&self) -> Vec<PathBuf> {
        committed_files(&exchange_folder(&self.context), &self.committed)
    }
}

/// Makes the folders, as prepare does.
fn make(folders: &ScatterFolders) {
    for folder in [&folders.exchange, &folders.manifests, &folders.rejects] {
        fs::create_dir_all(folder).expect("a folder in a temporary one");
    }
}

/// Reads a range of buckets; checks that what is read is what was scattered.
fn read(stage: &Stage1, range: UnitRange) -> Vec<RecordBatch> {
    let mut reader = gather(&stage.context, &stage.committed, range).expect("opens");
    let mut batches = Vec::new();
    let mut position = range.low;
    while let Some(input) = reader.next_batch().expect("reads") {
        assert!(input.batch.num_rows() > 0);
        batches.push(input.batch);
        assert!(position <= reader.position() && reader.position() <= range.high);
        position = reader.position();
    }
    assert_eq!(reader.position(), range.high);
    assert!(reader.may_stop());
    let intake = reader.take_intake();
    let scattered = scattered(&stage.files(), range).expect("indexes are read");
    assert_eq!((intake.read, intake.records), (scattered.rows, scattered.records));
    assert_eq!(
        intake.read,
        batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>()
    );
    batches
}

/// Rows as texts, sorted.
fn rows_of(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).expect("every type is shown"))
            .collect();
        for row in 0..batch.num_rows() {
            // The type's width is not part of a value, its NULL is.
            let cells: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            rows.push(cells.join("|"));
        }
    }
    rows.sort();
    rows
}

fn hash_on(columns: &[&str]) -> BucketFn {
    BucketFn::Hash {
        columns: columns.iter().map(|name| name.to_string()).collect(),
    }
}

/// A batch with one column of each type that travels, from a seed.
fn all_types(rows: usize, seed: u64, null_share: u64) -> RecordBatch {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    };
    let mut ints = |bits: u32| -> Vec<Option<i64>> {
        let shift = 64 - bits;
        (0..rows)
            .map(|_| {
                if next() % 100 < null_share {
                    None
                } else {
                    Some(next() as i64 >> shift)
                }
            })
            .collect()
    };
    let base = |bits: u32, ints: &mut dyn FnMut(u32) -> Vec<Option<i64>>| Int64Array::from(ints(bits));
    let text = |ints: Vec<Option<i64>>| -> StringArray {
        ints.into_iter()
            .map(|int| int.map(|int| "grün ".repeat((int & 7) as usize) + &int.to_string()))
            .collect()
    };
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    let integers = [
        (DataType::Int8, 8),
        (DataType::Int16, 16),
        (DataType::Int16, 7),
        (DataType::Int32, 32),
        (DataType::Int64, 64),
        (DataType::Int64, 20),
        (DataType::Int64, 12),
        (DataType::Date32, 14),
        (DataType::Decimal128(38, 3), 60),
        (DataType::Decimal128(15, 2), 30),
        (DataType::Decimal64(18, 1), 40),
        (DataType::Float64, 50),
        (DataType::Float32, 20),
        (DataType::Timestamp(TimeUnit::Microsecond, None), 50),
        (DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())), 60),
        (DataType::Time64(TimeUnit::Microsecond), 30),
        (DataType::Boolean, 1),
    ];
    for (at, (ty, bits)) in integers.into_iter().enumerate() {
        let ints = base(bits, &mut ints);
        let column = match ty {
            // Unit and scale would overflow in a cast.
            DataType::Timestamp(..) | DataType::Time64(_) => {
                let data = ints
                    .to_data()
                    .into_builder()
                    .data_type(ty)
                    .build()
                    .expect("same layout");
                make_array(data)
            }
            ty => cast(&ints, &ty).expect("casts"),
        };
        columns.push((format!("n{at}"), column));
    }
    for (at, bits) in [(0, 8u32), (1, 16), (2, 32), (3, 64)] {
        let array: ArrayRef = match bits {
            8 => Arc::new(
                ints(63)
                    .into_iter()
                    .map(|int| int.map(|int| int as u8))
                    .collect::<UInt8Array>(),
            ),
            16 => Arc::new(
                ints(63)
                    .into_iter()
                    .map(|int| int.map(|int| int as u16))
                    .collect::<UInt16Array>(),
            ),
            32 => Arc::new(
                ints(63)
                    .into_iter()
                    .map(|int| int.map(|int| int as u32))
                    .collect::<UInt32Array>(),
            ),
            _ => Arc::new(
                ints(64)
                    .into_iter()
                    .map(|int| int.map(|int| int as u64))
                    .collect::<UInt64Array>(),
            ),
        };
        columns.push((format!("u{at}"), array));
    }
    let wide: Decimal128Array = ints(64)
        .into_iter()
        .map(|int| int.map(|int| i128::from(int) << 60))
        .collect();
    columns.push(("wide".into(), Arc::new(wide)));
    for (at, ty) in [
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::BinaryView,
    ]
    .into_iter()
    .enumerate()
    {
        columns.push((format!("t{at}"), cast(&text(ints(9)), &ty).expect("casts")));
    }
    let dictionary = DataType::Dictionary(DataType::Int16.into(), DataType::Utf8.into());
    columns.push(("dictionary".into(), cast(&text(ints(4)), &dictionary).expect("casts")));
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(
        ints(12)
            .into_iter()
            .map(|int| int.map(|int| (0..int & 3).map(|at| Some(at as i32)).collect::<Vec<_>>())),
    );
    columns.push(("list".into(), Arc::new(list)));
    columns.push(("none".into(), arrow::array::new_null_array(&DataType::Int32, rows)));
    columns.push(("same".into(), Arc::new(Int64Array::from(vec![-7; rows]))));
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .expect("equal lengths")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn every_row_comes_out_once(
        sizes in prop::collection::vec(prop::collection::vec(0usize..120, 0..4), 1..4),
        seed: u64,
        null_share in prop::sample::select(vec![0u64, 0, 10, 100]),
        buckets in prop::sample::select(vec![1u32, 2, 7, 64]),
        cuts in prop::collection::vec(0u64..65, 0..4),
        keys in prop::sample::select(vec![vec!["n4"], vec!["t0", "n9"], vec!["dictionary", "n11", "n16"], vec!["none"]]),
        resumable: bool,
    ) {
        let schema = all_types(0, 0, 0).schema();
        let mut stage = Stage1::new(hash_on(&keys), buckets);
        let mut given = Vec::new();
        for (partition, sizes) in sizes.into_iter().enumerate() {
            let batches: Vec<RecordBatch> = sizes
                .into_iter()
                .enumerate()
                .map(|(at, rows)| all_types(rows, seed.wrapping_add((partition * 100 + at) as u64), null_share))
                .collect();
            given.extend(batches.iter().cloned());
            stage.scatter(&schema, batches, resumable);
        }
        let mut cuts: Vec<u64> = cuts.into_iter().map(|cut| cut.min(u64::from(buckets))).collect();
        cuts.extend([0, u64::from(buckets)]);
        cuts.sort();
        let mut out = Vec::new();
        let mut bucket_of_row = HashMap::new();
        for range in cuts.windows(2) {
            let batches = read(&stage, UnitRange::new(range[0], range[1]));
            for row in rows_of(&batches) {
                let before = bucket_of_row.insert(row.clone(), range[0]);
                prop_assert!(before.is_none_or(|before| before == range[0]), "{row} came out of two ranges");
            }
            out.extend(batches);
        }
        prop_assert_eq!(rows_of(&out), rows_of(&given));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Runs differ in bounds, widths and NULLs; blocks of one file follow each other in one splitter.
    #[test]
    fn runs_are_gathered_into_segments(
        batches in prop::collection::vec((0usize..60, prop::sample::select(vec![0u64, 0, 5, 100])), 0..12),
        seed: u64,
        run_rows in prop::sample::select(vec![1usize, 2, 7, 40]),
        buckets in prop::sample::select(vec![1u32, 3, 16]),
    ) {
        let schema = all_types(0, 0, 0).schema();
        let plan = ExchangePlan { function: hash_on(&["n6"]), buckets };
        let mut bucketing = Bucketing::new(&plan, &schema).expect("binds");
        let mut splitter = Splitter::with_runs_of(run_rows, &schema, buckets);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("runs.gx");
        let mut file = ExchangeWriter::create(path.clone(), splitter.schema().clone(), buckets).expect("creates");
        let mut given = Vec::new();
        for (at, &(rows, null_share)) in batches.iter().enumerate() {
            let batch = all_types(rows, seed.wrapping_add(at as u64), null_share);
            let columns: Vec<ArrayRef> =
                batch.columns().iter().map(|column| to_travelling(column).expect("travels")).collect();
            let mut bucket_of = Vec::new();
            bucketing.assign(&columns, rows, &mut bucket_of);
            splitter.push(&columns, &bucket_of);
            given.push(batch);
            if at % 3 == 2 {
                file.write_block(&mut splitter).expect("writes");
            }
        }
        file.write_block(&mut splitter).expect("writes");
        file.finish().and_then(|finished| finished.staged.publish()).expect("publishes");
        let mut reader = GatherReader::open(&[path], UnitRange::new(0, u64::from(buckets))).expect("opens");
        let mut out = Vec::new();
        while let Some(input) = reader.next_batch().expect("reads") {
            out.push(input.batch);
        }
        prop_assert_eq!(rows_of(&out), rows_of(&given));
    }
}

fn buckets_of(function: BucketFn, buckets: u32, column: ArrayRef) -> Vec<u16> {
    let schema = Schema::new(vec![Field::new("k", column.data_type().clone(), true)]);
    let plan = ExchangePlan { function, buckets };
    let mut bucketing = Bucketing::new(&plan, &schema).expect("binds");
    let travelling = to_travelling(&column).expect("travels");
    let mut out = Vec::new();
    bucketing.assign(&[travelling], column.len(), &mut out);
    out
}

#[test]
fn hash_buckets_are_those_of_the_specification() {
    let ints = Int64Array::from(vec![Some(0), Some(1), Some(-5), Some(100), None]);
    let days = ints.to_data().into_builder();
    let expect = |hash: &dyn Fn(i64) -> u64| -> Vec<u16> {
        let hashes = ints.iter().map(|int| int.map_or(hash::hash_null(), hash));
        hashes.map(|hash| hash::bucket(hash, 1000) as u16).collect()
    };
    let cases: Vec<(ArrayRef, Vec<u16>)> = vec![
        (Arc::new(ints.clone()), expect(&hash::hash_i64)),
        (cast(&ints, &DataType::Int8).unwrap(), expect(&hash::hash_i64)),
        (cast(&ints, &DataType::Int32).unwrap(), expect(&hash::hash_i64)),
        (
            cast(&ints, &DataType::Decimal128(20, 0)).unwrap(),
            expect(&|int| hash::hash_decimal(i128::from(int), 0)),
        ),
        (
            cast(&ints, &DataType::Decimal128(20, 4)).unwrap(),
            expect(&|int| hash::hash_decimal(i128::from(int), 0)),
        ),
        (
            cast(&ints, &DataType::Decimal64(18, 2)).unwrap(),
            expect(&|int| hash::hash_decimal(i128::from(int), 0)),
        ),
        (
            cast(&ints, &DataType::Float32).unwrap(),
            expect(&|int| hash::hash_f64(int as f64)),
        ),
        (
            cast(&ints, &DataType::Float64).unwrap(),
            expect(&|int| hash::hash_f64(int as f64)),
        ),
        (
            cast(&ints, &DataType::Utf8View).unwrap(),
            expect(&|int| hash::hash_bytes(int.to_string().as_bytes())),
        ),
        (
            cast(
                &cast(&ints, &DataType::Utf8).unwrap(),
                &DataType::Dictionary(DataType::Int8.into(), DataType::Utf8.into()),
            )
            .unwrap(),
            expect(&|int| hash::hash_bytes(int.to_string().as_bytes())),
        ),
        (
            make_array(
                days.data_type(DataType::Timestamp(TimeUnit::Second, None))
                    .build()
                    .unwrap(),
            ),
            expect(&|int| hash::hash_timestamp(int * 1_000_000)),
        ),
        (
            cast(&cast(&ints, &DataType::Int32).unwrap(), &DataType::Date32).unwrap(),
            expect(&hash::hash_date),
        ),
    ];
    for (column, expected) in cases {
        let ty = column.data_type().clone();
        assert_eq!(buckets_of(hash_on(&["k"]), 1000, column), expected, "{ty}");
    }
}

/// Buckets by key range, and by comparing keys one by one; NULL last, and in any other place.
fn check_ranges(key_type: KeyType, bounds: Vec<Key>, column: ArrayRef, keys: Vec<Option<Key>>) {
    let buckets = bounds.len() as u32 + 2;
    for placed in std::iter::once(None).chain((0..buckets).map(Some)) {
        let null = placed.unwrap_or(buckets - 1) as u16;
        let expected: Vec<u16> = keys
            .iter()
            .map(|key| match key {
                None => null,
                Some(key) => {
                    let below = bounds.iter().filter(|bound| *bound <= key).count() as u16;
                    below + u16::from(below >= null)
                }
            })
            .collect();
        let ty = column.data_type().clone();
        for descending in [false, true] {
            let function = BucketFn::KeyRange {
                column: "k".into(),
                key_type,
                bounds: bounds.clone(),
                null_bucket: placed,
                descending,
            };
            // Counted from the other end.
            let numbered = expected.iter().map(|&bucket| match descending {
                true => buckets as u16 - 1 - bucket,
                false => bucket,
            });
            assert_eq!(
                buckets_of(function, buckets, column.clone()),
                numbered.collect::<Vec<_>>(),
                "{ty} by {key_type:?}, NULL at {placed:?}, descending: {descending}"
            );
        }
    }
}

#[test]
fn key_ranges_follow_the_order_of_keys() {
    let ints = vec![
        Some(-300i64),
        Some(-5),
        Some(0),
        Some(4),
        Some(5),
        Some(6),
        Some(1_000_000),
        None,
    ];
    let array = Int64Array::from(ints.clone());
    let int_keys = |times: i128| {
        ints.iter()
            .map(|int| int.map(|int| Key::Int(i128::from(int) * times)))
            .collect::<Vec<_>>()
    };
    let ends = vec![Key::Int(i128::MIN), Key::Int(-5), Key::Int(5), Key::Int(i128::MAX)];
    check_ranges(KeyType::Int, ends.clone(), Arc::new(array.clone()), int_keys(1));
    check_ranges(KeyType::Int, ends, cast(&array, &DataType::Int32).unwrap(), int_keys(1));
    check_ranges(KeyType::Int, vec![], Arc::new(array.clone()), int_keys(1));
    let many = (-50..50).map(|at| Key::Int(at * 3)).collect();
    check_ranges(KeyType::Int, many, Arc::new(array.clone()), int_keys(1));

    let decimals = cast(&array, &DataType::Decimal128(20, 2)).unwrap();
    let bounds = vec![Key::Int(-5), Key::Int(499), Key::Int(500), Key::Int(501)];
    check_ranges(
        KeyType::Decimal { scale: 2 },
        bounds.clone(),
        decimals.clone(),
        int_keys(100),
    );
    check_ranges(
        KeyType::Decimal { scale: 2 },
        bounds.clone(),
        Arc::new(array.clone()),
        int_keys(100),
    );
    check_ranges(KeyType::Int, vec![Key::Int(-5), Key::Int(5)], decimals, int_keys(1));

    let seconds = array
        .to_data()
        .into_builder()
        .data_type(DataType::Timestamp(TimeUnit::Second, None))
        .build()
        .unwrap();
    let bounds = vec![Key::Int(-4_999_999), Key::Int(4_000_001), Key::Int(5_000_000)];
    check_ranges(KeyType::Timestamp, bounds, make_array(seconds), int_keys(1_000_000));

    let floats = [
        f64::NEG_INFINITY,
        -1.5,
        -0.0,
        0.0,
        1.5,
        f64::INFINITY,
        f64::NAN,
        -f64::NAN,
    ];
    let bounds: Vec<Key> = [-1.5, 0.0, 1.6, f64::NAN].map(Key::Float).into();
    let keys = floats.map(|float| Some(Key::Float(float))).to_vec();
    let array = Float64Array::from(floats.to_vec());
    check_ranges(
        KeyType::Float,
        bounds.clone(),
        cast(&array, &DataType::Float32).unwrap(),
        {
            // 1.6 lies between the 32-bit floats around it: the values here are exact in both.
            keys.clone()
        },
    );
    check_ranges(KeyType::Float, bounds, Arc::new(array), keys);

    let texts = [Some(""), Some("a"), Some("ab"), Some("b"), Some("é"), Some("z"), None];
    let keys: Vec<_> = texts
        .iter()
        .map(|text| text.map(|text| Key::Text(text.into())))
        .collect();
    let bounds: Vec<Key> = ["a", "b", "zz"].map(|text| Key::Text(text.into())).into();
    for ty in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View] {
        let array = cast(&StringArray::from(texts.to_vec()), &ty).unwrap();
        check_ranges(KeyType::Text, bounds.clone(), array, keys.clone());
    }
}

#[test]
fn a_function_that_does_not_fit_the_source_is_refused() {
    let schema = Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("l", DataType::new_list(DataType::Int64, true), true),
    ]);
    let range = |column: &str, key_type, bounds: Vec<Key>| BucketFn::KeyRange {
        column: column.into(),
        key_type,
        bounds,
        null_bucket: None,
        descending: false,
    };
    let cases = [
        (hash_on(&["x"]), 4, "needs column x"),
        (hash_on(&["l"]), 4, "cannot be hashed"),
        (hash_on(&["k"]), 0, "0 buckets"),
        (range("k", KeyType::Int, vec![Key::Int(5)]), 4, "make 3 buckets"),
        (
            range("k", KeyType::Int, vec![Key::Int(5), Key::Int(5)]),
            4,
            "does not lie above",
        ),
        (
            range("k", KeyType::Text, vec![Key::Text("a".into())]),
            3,
            "cannot be cut",
        ),
    ];
    for (function, buckets, words) in cases {
        let Err(error) = Bucketing::new(&ExchangePlan { function, buckets }, &schema) else {
            panic!("{words}: accepted")
        };
        assert_eq!(error.class, ErrorClass::Config);
        assert!(error.message.contains(words), "{error}");
    }
}

/// A stage of one file with 50 rows in 4 buckets.
fn small_stage() -> Stage1 {
    let mut stage = Stage1::new(hash_on(&["n4"]), 4);
    let batch = all_types(50, 1, 10);
    stage.scatter(&batch.schema(), vec![batch], true);
    stage
}

#[test]
fn any_flipped_byte_is_found() {
    let stage = small_stage();
    let whole = fs::read(&stage.files()[0]).unwrap();
    for at in (8..whole.len()).step_by(11) {
        let mut broken = whole.clone();
        broken[at] ^= 0x10;
        let path = stage.folder.path().join(format!("flipped-at-{at}.gx"));
        fs::write(&path, broken).unwrap();
        let result = GatherReader::open(std::slice::from_ref(&path), UnitRange::new(0, 4)).and_then(|mut reader| {
            while reader.next_batch()?.is_some() {}
            Ok(())
        });
        let error = result.expect_err("the flipped byte is found");
        assert_eq!(error.class, ErrorClass::Data);
        assert!(error.message.contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn missing_and_foreign_files_are_found() {
    let stage = small_stage();
    let path = stage.files()[0].clone();
    let kept = fs::read(&path).unwrap();

    fs::remove_file(&path).unwrap();
    let error = gather(&stage.context, &stage.committed, UnitRange::new(0, 4))
        .map(|_| ())
        .expect_err("missing");
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains(path.to_str().unwrap()), "{error}");

    let other = {
        let mut stage = Stage1::new(hash_on(&["n4"]), 4);
        let batch = all_types(49, 1, 10);
        stage.scatter(&batch.schema(), vec![batch], true);
        fs::read(&stage.files()[0]).unwrap()
    };
    fs::write(&path, other).unwrap();
    let error = gather(&stage.context, &stage.committed, UnitRange::new(0, 4))
        .map(|_| ())
        .expect_err("foreign");
    assert!(error.message.contains("hold 49 rows, its commits say 50"), "{error}");

    fs::write(&path, &kept[..kept.len() - 30]).unwrap();
    let error = GatherReader::open(&stage.files(), UnitRange::new(0, 4))
        .map(|_| ())
        .expect_err("cut short");
    assert_eq!(error.class, ErrorClass::Data);
}

fn numbers(from: i64, to: i64) -> RecordBatch {
    RecordBatch::try_from_iter([("k", Arc::new(Int64Array::from_iter_values(from..to)) as ArrayRef)]).unwrap()
}

#[test]
fn chunks_chain_through_the_range_and_carry_their_rejects() {
    // Three chunks' worth of rows; each tenth breaks a rule, and two records cannot be parsed.
    let mut stage = Stage1::new(hash_on(&["k"]), 16);
    let batches: Vec<_> = (0..25).map(|at| numbers(at * 100_000, (at + 1) * 100_000)).collect();
    let schema = batches[0].schema();
    let units = UnitRange::new(0, 25);
    let reject = |rule: &str| Reject {
        place: Nowhere.locate(3),
        key: None,
        rule: rule.into(),
        reason: "so".into(),
    };
    let mut reader = Batches {
        schema,
        batches,
        next: 0,
        low: 0,
        taken: 0,
        rejects: vec![reject("parse"), reject("parse")],
        resumable: true,
    };
    let mut check = |input: InputBatch| {
        let keys = input.batch.column(0).as_primitive::<Int64Type>();
        let keep: BooleanArray = keys
            .iter()
            .map(|key| Some(key.is_some_and(|key| key % 10 != 0)))
            .collect();
        let rejects = vec![reject("tenth"); keys.len() / 10];
        Ok((
            arrow::compute::filter_record_batch(&input.batch, &keep).unwrap(),
            rejects,
        ))
    };
    let leader = Recorder::default();
    let assignment = stage.assignment(0, units);
    let outcome = scatter(
        &assignment,
        &leader,
        &mut reader,
        &mut check,
        None,
        None,
        &stage.folders(),
    );
    assert_eq!(outcome, Ok(Outcome::Committed));
    let commits = leader.commits.into_inner().unwrap();
    let shape: Vec<_> = commits.iter().map(|c| (c.seq, c.previous, c.next, c.last)).collect();
    assert_eq!(shape, [(0, 0, 10, false), (1, 10, 20, false), (2, 20, 25, true)]);
    for commit in &commits {
        assert!(commit.counters.reconciles(), "{commit:?}");
        let name = format!(
            "scratch/{}-0/manifest/scatter-00000-1-7-{}.json",
            stage.context.run, commit.seq
        );
        let manifest = fs::read(stage.folder.path().join(name)).unwrap();
        assert_eq!(xxhash_rust::xxh3::xxh3_64(&manifest), commit.digest);
        let manifest: ChunkManifest = serde_json::from_slice(&manifest).unwrap();
        assert_eq!((manifest.counters, manifest.files.len()), (commit.counters, 1));
        let rejects = manifest.rejects.expect("every chunk has some");
        let text = fs::read_to_string(stage.folder.path().join("rejects").join(&rejects.path)).unwrap();
        assert_eq!(
            (text.lines().count() as u64, rejects.rows),
            (commit.counters.rejected, commit.counters.rejected)
        );
        assert_eq!(
            format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes())),
            rejects.checksum
        );
    }
    let total: u64 = commits.iter().map(|commit| commit.counters.rejected).sum();
    assert_eq!(total, 250_002);
    stage.settle(0, units, &assignment, &commits);
    let out = read(&stage, UnitRange::new(0, 16));
    let mut keys: Vec<i64> = out
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    keys.sort();
    assert!(keys.into_iter().eq((0..2_500_000).filter(|key| key % 10 != 0)));
}

#[test]
fn a_source_that_cannot_resume_is_one_commit_of_several_blocks() {
    let mut stage = Stage1::new(hash_on(&["k"]), 8);
    let batches: Vec<_> = (0..25).map(|at| numbers(at * 100_000, (at + 1) * 100_000)).collect();
    let commits = stage.scatter(&batches[0].schema(), batches, false);
    assert_eq!(commits.len(), 1);
    assert_eq!((commits[0].next, commits[0].counters.written), (25, 2_500_000));
    let one = concat_batches(&numbers(0, 0).schema(), &read(&stage, UnitRange::new(0, 8))).unwrap();
    assert_eq!(one.num_rows(), 2_500_000);
    assert!(!one.column(0).as_primitive::<Int64Type>().values().is_sorted());
}

#[test]
fn only_the_columns_asked_for_are_scattered() {
    let mut stage = Stage1::new(hash_on(&["n4"]), 4);
    let batch = all_types(50, 1, 10);
    let units = UnitRange::new(0, 1);
    let mut reader = Batches {
        schema: batch.schema(),
        batches: vec![batch.clone()],
        next: 0,
        low: 0,
        taken: 0,
        rejects: vec![],
        resumable: true,
    };
    let leader = Recorder::default();
    let assignment = stage.assignment(0, units);
    let columns = ["t0".to_string(), "n1".to_string()];
    let mut check = |input: InputBatch| Ok((input.batch, vec![]));
    scatter(
        &assignment,
        &leader,
        &mut reader,
        &mut check,
        Some(&columns),
        None,
        &stage.folders(),
    )
    .expect("scatters");
    stage.settle(0, units, &assignment, &leader.commits.into_inner().unwrap());
    let wanted = batch
        .project(&[
            batch.schema().index_of("t0").unwrap(),
            batch.schema().index_of("n1").unwrap(),
        ])
        .unwrap();
    assert_eq!(rows_of(&read(&stage, UnitRange::new(0, 4))), rows_of(&[wanted]));
}

#[test]
fn a_scatter_attempt_stops_as_it_is_told() {
    let stage = Stage1::new(hash_on(&["k"]), 8);
    let check = |leader: Recorder, expected: Result<Outcome, ErrorClass>, commits: &[(u64, u64, bool)]| {
        let batches: Vec<_> = (0..25).map(|at| numbers(at * 100_000, (at + 1) * 100_000)).collect();
        let schema = batches[0].schema();
        let mut reader = Batches {
            schema,
            batches,
            next: 0,
            low: 0,
            taken: 0,
            rejects: vec![],
            resumable: true,
        };
        let mut pass = |input: InputBatch| Ok((input.batch, vec![]));
        let folder = tempfile::tempdir().unwrap();
        let folders = ScatterFolders {
            exchange: folder.path().join("e"),
            manifests: folder.path().join("m"),
            rejects: folder.path().join("r"),
            keys: folder.path().join("k"),
        };
        make(&folders);
        let outcome = scatter(
            &stage.assignment(0, UnitRange::new(0, 25)),
            &leader,
            &mut reader,
            &mut pass,
            None,
            None,
            &folders,
        );
        assert_eq!(outcome.map_err(|error| error.class), expected);
        let made: Vec<_> = leader
            .commits
            .into_inner()
            .unwrap()
            .iter()
            .map(|c| (c.previous, c.next, c.last))
            .collect();
        assert_eq!(made, commits);
    };
    let stop = |stop| Recorder {
        stop: Some(stop),
        ..Recorder::default()
    };
    check(stop(Stop::AtCheckpoint), Ok(Outcome::Released), &[(0, 1, false)]);
    check(stop(Stop::Now), Err(ErrorClass::Cancelled), &[]);
    check(
        Recorder {
            refuse_from: Some(1),
            ..Recorder::default()
        },
        Err(ErrorClass::Fenced),
        &[(0, 10, false)],
    );
    check(
        Recorder::default(),
        Ok(Outcome::Committed),
        &[(0, 10, false), (10, 20, false), (20, 25, true)],
    );
}

#[test]
fn an_attempt_that_comes_too_late_makes_no_folder() {
    let mut stage = Stage1::new(hash_on(&["k"]), 8);
    stage.scatter(&numbers(0, 1).schema(), vec![numbers(0, 10)], true);
    fs::remove_dir_all(&stage.context.scratch).unwrap();
    let batches = vec![numbers(0, 10)];
    let mut reader = Batches {
        schema: batches[0].schema(),
        batches,
        next: 0,
        low: 0,
        taken: 0,
        rejects: vec![],
        resumable: true,
    };
    let mut check = |input: InputBatch| Ok((input.batch, vec![]));
    let assignment = stage.assignment(1, UnitRange::new(0, 1));
    let leader = Recorder::default();
    let error = scatter(
        &assignment,
        &leader,
        &mut reader,
        &mut check,
        None,
        None,
        &stage.folders(),
    )
    .expect_err("too late");
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("its folder is not there"), "{error}");
    assert!(!stage.context.scratch.exists());
}

#[test]
fn an_empty_source_is_an_empty_file_and_an_empty_range() {
    let mut stage = Stage1::new(hash_on(&["n4"]), 4);
    let schema = all_types(0, 0, 0).schema();
    let commits = stage.scatter(&schema, vec![], true);
    assert_eq!(commits.len(), 1);
    assert!(commits[0].last);
    assert!(read(&stage, UnitRange::new(0, 4)).is_empty());
    assert!(read(&stage, UnitRange::new(2, 2)).is_empty());
}

//! The chunk pipeline between a source, a sink and a leader that are all in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use arrow::{
    array::{AsArray, Int64Array},
    datatypes::{DataType, Field, Int64Type, Schema},
};
use gapless_common::{
    attempt::Fence,
    ids::{AttemptId, Stage, TaskKey, Term},
    job::{Check, Count, Job, OnError, Partition, Partitioning, Sink, Source, Step},
    plan::{BucketFn, ExchangePlan, Facts, Method, StepFrame, TransformFacts, Unit},
    range::UnitRange,
};
use uuid::Uuid;

use super::*;
use crate::{
    attempt::{CommittedPartition, StepContext},
    sink::SealedChunk,
    source::{InputBatch, Intake, Origin, Place},
};

/// What a case is about; the rest is ordinary.
#[derive(Clone)]
struct Case {
    sql: Option<&'static str>,
    check: Option<&'static str>,
    units: UnitRange,
    position: u64,
    seq: u32,
    reject_limit: Option<u64>,
    /// Rows of a batch of the source.
    batch: u64,
    /// The column by whose hash the records came here through an exchange.
    exchange: Option<&'static str>,
    /// Bytes that the source says a batch has.
    batch_bytes: u64,
    may_stop: bool,
    /// Records that cannot be parsed.
    unparsable: &'static [u64],
    /// What the leader answers to the n-th report.
    stop: (usize, Stop),
    /// The commit that the leader refuses.
    fenced_at: Option<u32>,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            sql: None,
            check: None,
            units: UnitRange::new(0, 20),
            position: 0,
            seq: 0,
            reject_limit: Some(100),
            batch: 4,
            exchange: None,
            batch_bytes: 1,
            may_stop: true,
            unparsable: &[],
            stop: (usize::MAX, Stop::No),
            fenced_at: None,
        }
    }
}

/// Everything that came out of an attempt.
struct Seen {
    result: Result<Outcome, TaskError>,
    commits: Vec<Commit>,
    manifests: Vec<ChunkManifest>,
    rejects: Vec<Reject>,
    /// First column of the rows, by chunk.
    rows: BTreeMap<u32, Vec<i64>>,
    sinks_opened: usize,
}

#[derive(Default)]
struct World {
    commits: Vec<Commit>,
    manifests: Vec<ChunkManifest>,
    rejects: Vec<Reject>,
    rows: BTreeMap<u32, Vec<i64>>,
    sinks_opened: usize,
    reports: usize,
}

struct Fake {
    case: Case,
    world: Arc<Mutex<World>>,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("parity", DataType::Int64, false),
    ]))
}

struct Numbers {
    case: Case,
    at: u64,
    intake: Intake,
}

struct NumberOrigin(Vec<u64>);

impl Origin for NumberOrigin {
    fn locate(&self, row: usize) -> Place {
        place(self.0[row])
    }
}

fn place(n: u64) -> Place {
    Place {
        file: "numbers".to_string(),
        line: Some(n + 1),
        row: None,
        block: None,
        raw: n.to_string(),
    }
}

impl SourceReader for Numbers {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn next_batch(&mut self) -> Result<Option<InputBatch>, TaskError> {
        let end = (self.at + self.case.batch).min(self.case.units.high);
        if self.at == end {
            return Ok(None);
        }
        let mut good = Vec::new();
        for n in self.at..end {
            self.intake.read += 1;
            self.intake.records.add(u128::from(n) + 1);
            if self.case.unparsable.contains(&n) {
                self.intake.rejects.push(Reject {
                    place: place(n),
                    key: None,
                    rule: "parse".to_string(),
                    reason: "not a number".to_string(),
                });
            } else {
                good.push(n);
            }
        }
        self.intake.bytes += self.case.batch_bytes;
        self.at = end;
        let ints = |f: &dyn Fn(u64) -> u64| Arc::new(Int64Array::from_iter_values(good.iter().map(|n| f(*n) as i64)));
        let batch = RecordBatch::try_new(schema(), vec![ints(&|n| n), ints(&|n| n % 2)]).expect("two columns");
        Ok(Some(InputBatch {
            batch,
            origin: Arc::new(NumberOrigin(good)),
        }))
    }

    fn position(&self) -> u64 {
        self.at
    }

    fn may_stop(&self) -> bool {
        self.case.may_stop
    }

    fn take_intake(&mut self) -> Intake {
        std::mem::take(&mut self.intake)
    }
}

struct Rows {
    seq: u32,
    rows: Vec<i64>,
    world: Arc<Mutex<World>>,
}

impl ChunkSink for Rows {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        self.rows.extend(batch.column(0).as_primitive::<Int64Type>().values());
        Ok(())
    }

    fn seal(self: Box<Self>) -> Result<SealedChunk, TaskError> {
        Ok(SealedChunk::default())
    }

    fn finish(self: Box<Self>) -> Result<Vec<DataFile>, TaskError> {
        let file = DataFile {
            path: format!("chunk-{}", self.seq),
            rows: self.rows.len() as u64,
            bytes: 8 * self.rows.len() as u64,
            checksum: String::new(),
            multiline: false,
        };
        self.world.lock().expect("no panic").rows.insert(self.seq, self.rows);
        Ok(vec![file])
    }
}

impl StepIo for Fake {
    fn input_schema(&self, _: &Assignment) -> Result<SchemaRef, TaskError> {
        Ok(schema())
    }

    fn lookups(&self, _: &Assignment) -> Result<Vec<LookupTable>, TaskError> {
        Ok(Vec::new())
    }

    fn open_source(&self, assignment: &Assignment) -> Result<Box<dyn SourceReader>, TaskError> {
        Ok(Box::new(Numbers {
            case: self.case.clone(),
            at: assignment.units.after(assignment.position).low,
            intake: Intake::default(),
        }))
    }

    fn is_checked(&self, _: &Assignment) -> bool {
        false
    }

    fn open_sink(&self, _: &Assignment, seq: u32, _: u64, _: &SchemaRef) -> Result<Box<dyn ChunkSink>, TaskError> {
        self.world.lock().expect("no panic").sinks_opened += 1;
        Ok(Box::new(Rows {
            seq,
            rows: Vec::new(),
            world: self.world.clone(),
        }))
    }

    fn keys_file(&self, _: &Assignment, seq: u32) -> Result<PathBuf, TaskError> {
        Ok(PathBuf::from(format!("{seq}.keys")))
    }

    fn write_rejects(&self, _: &Assignment, seq: u32, rejects: &[Reject]) -> Result<DataFile, TaskError> {
        self.world
            .lock()
            .expect("no panic")
            .rejects
            .extend(rejects.iter().cloned());
        Ok(DataFile {
            path: format!("rejects-{seq}"),
            rows: rejects.len() as u64,
            bytes: 0,
            checksum: String::new(),
            multiline: false,
        })
    }

    fn keep_rejects(&self, assignment: &Assignment, seq: u32, rejects: &[Reject]) -> Result<PathBuf, TaskError> {
        self.write_rejects(assignment, seq, rejects)?;
        Ok(PathBuf::from("/kept"))
    }

    fn write_manifest(&self, _: &Assignment, manifest: &ChunkManifest) -> Result<u64, TaskError> {
        self.world.lock().expect("no panic").manifests.push(manifest.clone());
        Ok(1000 + u64::from(manifest.seq))
    }
}

impl Leader for Fake {
    fn commit(&self, commit: Commit) -> Result<(), TaskError> {
        if self.case.fenced_at == Some(commit.seq) {
            return Err(TaskError::new(ErrorClass::Fenced, "another attempt holds it"));
        }
        self.world.lock().expect("no panic").commits.push(commit);
        Ok(())
    }

    fn progress(&self, _: u64, _: u64) -> Stop {
        let mut world = self.world.lock().expect("no panic");
        world.reports += 1;
        if world.reports >= self.case.stop.0 {
            self.case.stop.1
        } else {
            Stop::No
        }
    }

    fn committed(&self, _: Stage) -> Result<Vec<CommittedPartition>, TaskError> {
        Ok(Vec::new())
    }
}

fn assignment(case: &Case) -> Assignment {
    let run = RunId(Uuid::new_v4());
    let step = Step {
        name: "step".to_string(),
        after: Vec::new(),
        source: Source::Sequence { from: 0, to: 20 },
        lookups: BTreeMap::new(),
        partition: Partitioning {
            method: Partition::Auto,
            count: Count::Auto,
        },
        placement: Default::default(),
        checks: case
            .check
            .map(|that| Check {
                name: "rule".to_string(),
                that: that.to_string(),
            })
            .into_iter()
            .collect(),
        sql: case.sql.map(str::to_string),
        command: None,
        sort: Vec::new(),
        sink: Sink::Discard,
        on_error: OnError {
            reject_limit: case.reject_limit,
            ..OnError::default()
        },
        if_unchanged: Default::default(),
    };
    Assignment {
        task: TaskKey {
            run,
            step: 0,
            stage: Stage::Execute,
            partition: 0,
        },
        fence: Fence {
            number: 1,
            id: AttemptId {
                term: Term(1),
                serial: 1,
            },
        },
        units: case.units,
        position: case.position,
        seq: case.seq,
        context: Arc::new(StepContext {
            job: Arc::new(Job {
                name: "job".to_string(),
                parameters: BTreeMap::new(),
                priority: Default::default(),
                steps: vec![step],
                redrive: None,
            }),
            step_no: 0,
            run,
            edition: 0,
            base_dir: ".".into(),
            started_micros: 0,
            scratch: ".".into(),
            frame: case.exchange.map(frame),
            preparation: None,
            seal: None,
        }),
    }
}

fn frame(column: &str) -> StepFrame {
    StepFrame {
        facts: Facts {
            unit: Unit::Byte,
            files: Vec::new(),
            domain: UnitRange::new(0, 20),
            columns: Vec::new(),
            output: Vec::new(),
            read_columns: None,
            inputs: Vec::new(),
            transform: TransformFacts {
                mode: TransformMode::RowWise { expands: false },
                reason: String::new(),
            },
            rows: 20,
            bytes: 20,
            sample: None,
            warnings: Vec::new(),
            lookups: Vec::new(),
            standing: None,
        },
        method: Method::Hash,
        exchange: Some(ExchangePlan {
            function: BucketFn::Hash {
                columns: vec![column.to_string()],
            },
            buckets: 256,
        }),
        merge: None,
    }
}

fn attempt(case: Case) -> Seen {
    let folder = tempfile::tempdir().expect("a folder");
    let mut slot = Slot::new(SlotLimits::new(folder.path().to_path_buf()));
    let world = Arc::new(Mutex::new(World::default()));
    let assignment = assignment(&case);
    let fake = Fake {
        case,
        world: world.clone(),
    };
    let result = execute(&assignment, &fake, &mut slot, &fake);
    let world = std::mem::take(&mut *world.lock().expect("no panic"));
    Seen {
        result,
        commits: world.commits,
        manifests: world.manifests,
        rejects: world.rejects,
        rows: world.rows,
        sinks_opened: world.sinks_opened,
    }
}

/// Commits chain through the range; sums over them are those of the range; manifests say the same.
fn assert_proper(seen: &Seen, case: &Case, until: u64) {
    let mut at = case.position;
    let mut records = RecordHash::default();
    let mut read = 0;
    for (index, commit) in seen.commits.iter().enumerate() {
        assert_eq!(commit.seq, case.seq + index as u32);
        assert_eq!(commit.previous, at);
        assert_eq!(commit.digest, 1000 + u64::from(commit.seq));
        let manifest = &seen.manifests[index];
        assert_eq!(
            (
                manifest.seq,
                manifest.previous,
                manifest.next,
                manifest.counters,
                manifest.records
            ),
            (
                commit.seq,
                commit.previous,
                commit.next,
                commit.counters,
                commit.records
            )
        );
        let rows = seen.rows.get(&commit.seq).map_or(0, Vec::len) as u64;
        assert_eq!(commit.counters.written, rows);
        assert_eq!(commit.counters.bytes_written, 8 * rows);
        at = commit.next;
        records += commit.records;
        read += commit.counters.read;
    }
    assert_eq!(at, until);
    assert_eq!(read, until - case.position);
    let expected: u128 = (case.position..until).map(|n| u128::from(n) + 1).sum();
    assert_eq!(records, RecordHash(expected));
}

fn written(seen: &Seen) -> Vec<i64> {
    seen.rows.values().flatten().copied().collect()
}

#[test]
fn chunks_end_at_their_limit_and_chain_through_the_range() {
    let case = Case {
        batch_bytes: CHUNK_INPUT_BYTES / 2,
        ..Case::default()
    };
    let seen = attempt(case.clone());
    assert_eq!(seen.result, Ok(Outcome::Committed));
    assert_proper(&seen, &case, 20);
    let ends: Vec<(u64, bool)> = seen.commits.iter().map(|commit| (commit.next, commit.last)).collect();
    assert_eq!(ends, [(8, false), (16, false), (20, true)]);
    assert_eq!(written(&seen), (0..20).collect::<Vec<_>>());
}

#[test]
fn every_kind_of_step_accounts_for_each_record() {
    type Accounts<'a> = (Option<&'a str>, Option<&'a str>, &'a [u64], [u64; 4]);
    let cases: &[Accounts] = &[
        // sql, check, unparsable records; read, written, filtered, rejected
        (None, None, &[], [20, 20, 0, 0]),
        (None, Some("n <> 7"), &[3, 9], [20, 17, 0, 3]),
        (Some("SELECT n FROM input WHERE n >= 15"), None, &[], [20, 5, 15, 0]),
        (
            Some("SELECT n FROM input WHERE n >= 15"),
            Some("n <> 17"),
            &[0, 19],
            [20, 3, 14, 3],
        ),
        (
            Some("SELECT n FROM input WHERE false"),
            Some("10 / n < 5"),
            &[],
            [20, 0, 17, 3],
        ),
        (
            Some("SELECT parity, sum(n) AS s FROM input GROUP BY parity"),
            None,
            &[5],
            [20, 2, 0, 1],
        ),
    ];
    for (sql, check, unparsable, expected) in cases {
        let case = Case {
            sql: *sql,
            check: *check,
            unparsable,
            batch_bytes: CHUNK_INPUT_BYTES / 2,
            ..Case::default()
        };
        let seen = attempt(case.clone());
        assert_eq!(seen.result, Ok(Outcome::Committed), "{sql:?}");
        assert_proper(&seen, &case, 20);
        let mut sum = Counters::default();
        seen.commits.iter().for_each(|commit| sum += commit.counters);
        assert_eq!(
            [sum.read, sum.written, sum.filtered, sum.rejected],
            *expected,
            "{sql:?} {check:?}"
        );
        assert_eq!(seen.rejects.len() as u64, sum.rejected);
        let whole = sql.is_some_and(|sql| sql.contains("GROUP BY"));
        assert_eq!(seen.commits.len(), if whole { 1 } else { 3 }, "{sql:?}");
    }
}

#[test]
fn an_attempt_goes_on_where_the_last_commit_ended() {
    let case = Case {
        position: 8,
        seq: 2,
        ..Case::default()
    };
    let seen = attempt(case.clone());
    assert_proper(&seen, &case, 20);
    assert_eq!(seen.rows.keys().copied().collect::<Vec<_>>(), [2]);
    assert_eq!(written(&seen), (8..20).collect::<Vec<_>>());
}

#[test]
fn a_source_that_cannot_be_resumed_is_one_chunk() {
    let case = Case {
        batch_bytes: CHUNK_INPUT_BYTES,
        may_stop: false,
        ..Case::default()
    };
    let seen = attempt(case.clone());
    assert_proper(&seen, &case, 20);
    assert_eq!(seen.commits.len(), 1);
}

#[test]
fn an_empty_range_is_one_commit() {
    let case = Case {
        units: UnitRange::new(5, 5),
        position: 5,
        ..Case::default()
    };
    let seen = attempt(case.clone());
    assert_eq!(seen.result, Ok(Outcome::Committed));
    assert_proper(&seen, &case, 5);
    assert!(seen.commits[0].last);
    // That of partition 0: an output without rows still has its schema.
    assert_eq!(seen.sinks_opened, 1);
}

#[test]
fn a_stop_at_the_next_checkpoint_commits_what_was_read() {
    let case = Case {
        stop: (2, Stop::AtCheckpoint),
        ..Case::default()
    };
    let seen = attempt(case.clone());
    assert_eq!(seen.result, Ok(Outcome::Released));
    assert_proper(&seen, &case, 8);
    assert!(!seen.commits[0].last);
}

#[test]
fn a_stop_does_not_cut_a_whole_partition() {
    let case = Case {
        sql: Some("SELECT count(*) AS n FROM input"),
        stop: (2, Stop::AtCheckpoint),
        ..Case::default()
    };
    let seen = attempt(case.clone());
    assert_eq!(seen.result, Ok(Outcome::Committed));
    assert_proper(&seen, &case, 20);
    assert_eq!(written(&seen), [20]);
}

#[test]
fn a_whole_program_runs_bucket_by_bucket_where_its_keys_are_those_of_the_exchange() {
    let case = Case {
        sql: Some("SELECT count(*) AS n, parity FROM input GROUP BY parity ORDER BY n"),
        units: UnitRange::new(0, 100_000),
        batch: 20_000,
        ..Case::default()
    };
    let grouped = Some("SELECT count(*) AS n, parity FROM input GROUP BY parity");
    let cases = [
        // A run ends with the unit that fills it: 40,000 rows, 40,000, and the rest.
        (
            grouped,
            Some("parity"),
            vec![20_000, 20_000, 20_000, 20_000, 10_000, 10_000],
        ),
        // Exchanged by another column, or not at all: rows of a group may be anywhere.
        (grouped, Some("n"), vec![50_000, 50_000]),
        (grouped, None, vec![50_000, 50_000]),
        (case.sql, Some("parity"), vec![50_000, 50_000]),
    ];
    for (sql, exchange, expected) in cases {
        let case = Case {
            sql,
            exchange,
            ..case.clone()
        };
        let seen = attempt(case.clone());
        assert_proper(&seen, &case, 100_000);
        assert_eq!(seen.commits.len(), 1);
        assert_eq!(written(&seen), expected, "{sql:?} {exchange:?}");
    }
    // A chunk may end between buckets, too.
    let case = Case {
        sql: grouped,
        exchange: Some("parity"),
        batch_bytes: CHUNK_INPUT_BYTES / 2,
        ..case
    };
    let seen = attempt(case.clone());
    assert_proper(&seen, &case, 100_000);
    assert_eq!(seen.commits.len(), 3);
}

#[test]
fn giving_up_at_once_commits_nothing() {
    let seen = attempt(Case {
        stop: (2, Stop::Now),
        ..Case::default()
    });
    assert_eq!(seen.result.expect_err("gives up").class, ErrorClass::Cancelled);
    assert!(seen.commits.is_empty() && seen.manifests.is_empty());
}

#[test]
fn a_refused_commit_ends_the_attempt() {
    let seen = attempt(Case {
        batch_bytes: CHUNK_INPUT_BYTES,
        fenced_at: Some(1),
        ..Case::default()
    });
    assert_eq!(seen.result.expect_err("is fenced").class, ErrorClass::Fenced);
    assert_eq!(seen.commits.len(), 1);
    assert_eq!(seen.manifests.len(), 2);
}

#[test]
fn too_many_rejects_fail_the_attempt_with_the_place_of_the_last() {
    let case = Case {
        check: Some("n < 6 OR n > 8"),
        reject_limit: Some(2),
        ..Case::default()
    };
    let seen = attempt(case.clone());
    let error = seen.result.expect_err("three are too many");
    assert_eq!(error.class, ErrorClass::Data);
    assert!(error.message.contains("numbers, line 9: rule"), "{error}");
    assert!(
        error.message.ends_with("; the rejected records are in /kept"),
        "{error}"
    );
    let kept: Vec<_> = seen.rejects.iter().map(|reject| reject.place.clone()).collect();
    assert_eq!(kept, [place(6), place(7), place(8)], "those that were too many too");
    assert!(seen.commits.is_empty());
    let seen = attempt(Case {
        reject_limit: Some(3),
        ..case.clone()
    });
    assert_eq!(seen.result, Ok(Outcome::Committed));
    assert_eq!(seen.rejects[0].place, place(6));
    assert_eq!(seen.rejects[0].reason, "«n < 6 OR n > 8» is false");
    let seen = attempt(Case {
        reject_limit: None,
        ..case
    });
    assert_eq!(seen.result, Ok(Outcome::Committed));
}

#[test]
fn a_record_on_which_the_sql_fails_is_rejected_alone() {
    let fails_at = |bad: &str| -> &'static str {
        Box::leak(
            format!("SELECT n, 100 / (CASE WHEN n IN ({bad}) THEN 0 ELSE 1 END) AS q FROM input").into_boxed_str(),
        )
    };
    for (bad, may_stop, batch) in [
        (vec![3u64], true, 4),
        (vec![0, 1, 2, 19], true, 4),
        (vec![7], false, 20),
        ((0..20).collect(), true, 20),
    ] {
        let list: Vec<String> = bad.iter().map(u64::to_string).collect();
        let case = Case {
            sql: Some(fails_at(&list.join(", "))),
            batch,
            may_stop,
            batch_bytes: CHUNK_INPUT_BYTES / 2,
            ..Case::default()
        };
        let seen = attempt(case.clone());
        assert_eq!(seen.result, Ok(Outcome::Committed), "{bad:?}");
        assert_proper(&seen, &case, 20);
        let expected: Vec<i64> = (0..20).filter(|n| !bad.contains(n)).map(|n| n as i64).collect();
        assert_eq!(written(&seen), expected);
        let places: Vec<Place> = seen.rejects.iter().map(|reject| reject.place.clone()).collect();
        assert_eq!(places, bad.iter().map(|n| place(*n)).collect::<Vec<_>>());
        for reject in &seen.rejects {
            assert_eq!(reject.rule, TRANSFORM_RULE);
            assert!(reject.reason.contains("ivide by zero"), "{}", reject.reason);
        }
    }
}

#[test]
fn rejects_of_parsing_checks_and_sql_are_counted_together_and_each_once() {
    let case = Case {
        sql: Some("SELECT n, 1 / (n - 11) AS q FROM input WHERE n <> 5"),
        check: Some("n <> 7"),
        unparsable: &[3, 13],
        reject_limit: Some(4),
        batch_bytes: CHUNK_INPUT_BYTES / 2,
        ..Case::default()
    };
    let seen = attempt(case.clone());
    assert_eq!(seen.result, Ok(Outcome::Committed));
    assert_proper(&seen, &case, 20);
    let mut found: Vec<_> = seen
        .rejects
        .iter()
        .map(|it| (it.place.line, it.rule.as_str()))
        .collect();
    found.sort_unstable();
    let expected = [(4, "parse"), (8, "rule"), (12, TRANSFORM_RULE), (14, "parse")];
    assert_eq!(found, expected.map(|(line, rule)| (Some(line), rule)));
    let mut sum = Counters::default();
    seen.commits.iter().for_each(|commit| sum += commit.counters);
    assert_eq!([sum.read, sum.written, sum.filtered, sum.rejected], [20, 15, 1, 4]);

    let seen = attempt(Case {
        reject_limit: Some(3),
        ..case
    });
    let error = seen.result.expect_err("four are too many");
    assert!(error.message.contains("numbers, line 14: parse"), "{error}");
    assert_eq!(seen.commits.len(), 1, "of the first chunk");
}

#[test]
fn without_a_reject_limit_to_spare_the_record_on_which_the_sql_fails_is_named() {
    let seen = attempt(Case {
        sql: Some("SELECT 1 / (n - 11) AS q FROM input"),
        reject_limit: Some(0),
        ..Case::default()
    });
    let error = seen.result.expect_err("fails");
    assert_eq!(error.class, ErrorClass::Data);
    assert!(error.message.contains("numbers, line 12: transform"), "{error}");
    assert!(error.message.contains("ivide by zero"), "{error}");
    assert!(seen.commits.is_empty());
}

#[test]
fn whole_sql_that_fails_on_a_value_fails_the_attempt() {
    let seen = attempt(Case {
        sql: Some("SELECT sum(1 / (n - 11)) AS q FROM input"),
        ..Case::default()
    });
    let error = seen.result.expect_err("fails");
    assert_eq!(error.class, ErrorClass::Data);
    assert!(seen.commits.is_empty() && seen.rejects.is_empty());
}

#[test]
#[ignore = "a measurement"]
fn a_tiny_partition_costs_microseconds() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut slot = Slot::new(SlotLimits::new(folder.path().to_path_buf()));
    for sql in [
        None,
        Some("SELECT n + 1 AS m FROM input"),
        Some("SELECT count(*) AS c FROM input"),
    ] {
        let case = Case {
            sql,
            units: UnitRange::new(0, 1),
            ..Case::default()
        };
        let assignment = assignment(&case);
        let fake = Fake {
            case,
            world: Arc::default(),
        };
        let start = Instant::now();
        for _ in 0..10_000 {
            execute(&assignment, &fake, &mut slot, &fake).expect("runs");
        }
        println!("{sql:?}: {:?} an attempt of one row", start.elapsed() / 10_000);
    }
}

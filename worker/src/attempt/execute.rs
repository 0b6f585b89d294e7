//! Stage Execute: reads one range, checks and transforms it, and commits it chunk by chunk.
//!
//! A chunk is what was read between two commits: its rows are in files of its own, its manifest is
//! durable before its commit is offered. What is not committed never counts, so any error simply
//! leaves the attempt here.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use gapless_common::{
    attempt::{Commit, Counters, RecordHash},
    error::{ErrorClass, TaskError},
    ids::{RunId, StepNo},
    manifest::{ChunkManifest, DataFile, FileTotals, Version},
    order::KeySpan,
    plan::{BucketFn, TransformMode},
};

use super::{
    Assignment, Leader, Outcome, Stop,
    intake::{CheckedReader, Limits, Runs},
};
use crate::{
    engine::{self, Checks, LookupTable, Program, SlotLimits},
    sink::ChunkSink,
    sort::{Order, OrderCheck, SortLimits, Sorter},
    source::{Reject, SourceReader},
};

/// Input of one chunk. 50–200 MB cost the same; smaller ones lose less to a crash.
pub const CHUNK_INPUT_BYTES: u64 = 128 << 20;
/// The age at which a chunk is committed however little it has read: what a crash costs at most.
pub const CHUNK_AGE: Duration = Duration::from_secs(60);
/// Rows that a whole program takes at a time, at least, where it may stop between buckets. The smaller
/// the hash table, the more of it stays in the processor's cache: grouping by two integers with two
/// decimal sums takes 97 ns a row for 2 M rows at once, 62 for 500 k, 45 for 125 k, 36 for 32 k and 33
/// for 8 k (7.5 rows a group). A run itself costs 13 µs.
pub const RUN_ROWS: u64 = 32 << 10;
/// Rejected records that a chunk holds until it is committed.
pub const CHUNK_REJECT_BYTES: usize = 32 << 20;

/// Input of one chunk of a sorted output: a partition of the usual size is one file, also where its share of
/// the keys is somewhat larger than that of others.
pub const SORTED_CHUNK_INPUT_BYTES: u64 = 192 << 20;
/// The part of a slot's memory in which rows wait to be sorted; the rest is for the program, and for rows on their
/// way in and out.
const SORT_SHARE: usize = 2;

/// What an attempt reads from and writes to. Opening is left to whoever knows formats and folders.
pub trait StepIo: Send + Sync {
    /// All columns of the step's source: what SQL sees as `input`.
    fn input_schema(&self, assignment: &Assignment) -> Result<SchemaRef, TaskError>;

    /// Small tables, pinned for the run. Asked once for each step and slot.
    fn lookups(&self, assignment: &Assignment) -> Result<Vec<LookupTable>, TaskError>;

    /// A reader of what is left of the assignment: `units.after(position)`. Its batches may leave
    /// out columns that neither the SQL nor the checks read.
    fn open_source(&self, assignment: &Assignment) -> Result<Box<dyn SourceReader>, TaskError>;

    /// Whether records were checked before they came here (in the exchange's scatter).
    fn is_checked(&self, assignment: &Assignment) -> bool;

    /// A sink for the rows of chunk `seq`, which begins at unit `low`. Asked for a chunk's first row, not before.
    fn open_sink(
        &self,
        assignment: &Assignment,
        seq: u32,
        low: u64,
        schema: &SchemaRef,
    ) -> Result<Box<dyn ChunkSink>, TaskError>;

    /// Makes the rejects of chunk `seq` durable. Not called without any.
    fn write_rejects(&self, assignment: &Assignment, seq: u32, rejects: &[Reject]) -> Result<DataFile, TaskError>;

    /// Keeps the rejects of chunk `seq`, which will not be committed since there are too many, where people can look
    /// at them. Gives the folder in which the rejects of the step lie.
    fn keep_rejects(&self, assignment: &Assignment, seq: u32, rejects: &[Reject]) -> Result<PathBuf, TaskError>;

    /// Makes a manifest durable and gives the XXH3-64 of its bytes.
    fn write_manifest(&self, assignment: &Assignment, manifest: &ChunkManifest) -> Result<u64, TaskError>;
}

/// A place where attempts run, one at a time, on a thread of its own. Keeps what the partitions of
/// a step share.
pub struct Slot {
    engine: engine::Slot,
    step: Option<CompiledStep>,
}

struct CompiledStep {
    run: RunId,
    step: StepNo,
    program: Program,
    /// With the columns that the rules were compiled for.
    checks: Option<(SchemaRef, Checks)>,
}

impl Slot {
    pub fn new(limits: SlotLimits) -> Self {
        Self {
            engine: engine::Slot::new(limits),
            step: None,
        }
    }

    fn compile(&mut self, assignment: &Assignment, io: &dyn StepIo) -> Result<(), TaskError> {
        let context = &assignment.context;
        if let Some(known) = &self.step
            && known.run == context.run
            && known.step == context.step_no
        {
            return Ok(());
        }
        let step = context.step();
        self.step = None;
        let lookups = if step.sql.is_some() {
            io.lookups(assignment)?
        } else {
            Vec::new()
        };
        let program = Program::compile(
            &mut self.engine,
            step.sql.as_deref(),
            io.input_schema(assignment)?,
            lookups,
            context.started_micros,
        )?;
        self.step = Some(CompiledStep {
            run: context.run,
            step: context.step_no,
            program,
            checks: None,
        });
        Ok(())
    }
}

impl CompiledStep {
    /// The rules over the columns of a reader; compiled again only where these change.
    fn checks(&mut self, assignment: &Assignment, schema: &SchemaRef) -> Result<&Checks, TaskError> {
        let fits = matches!(&self.checks, Some((known, _)) if known == schema);
        if !fits {
            let rules = &assignment.context.step().checks;
            let checks = Checks::compile(rules, schema, assignment.context.started_micros)?;
            self.checks = Some((schema.clone(), checks));
        }
        let (_, checks) = self.checks.as_ref().expect("compiled above");
        Ok(checks)
    }
}

/// Works one partition off, from its last commit to its end.
///
/// Errors: `Data` when records exceed the reject limit or the SQL fails on a value; `Cancelled` and
/// `Fenced` when the leader says so; those of source, sink and engine as they are.
pub fn execute(
    assignment: &Assignment,
    leader: &dyn Leader,
    slot: &mut Slot,
    io: &dyn StepIo,
) -> Result<Outcome, TaskError> {
    slot.compile(assignment, io)?;
    let Slot { engine, step } = slot;
    let step = step.as_mut().expect("compiled above");
    let mut reader = io.open_source(assignment)?;
    let none = Checks::none();
    let mut limits = Limits::of_chunks(assignment.context.step().on_error.reject_limit);
    let order = match assignment.context.step().sort.as_slice() {
        [] => None,
        by => Some(Order::new(by, step.program.output())?),
    };
    if order.is_some() {
        limits.bytes = SORTED_CHUNK_INPUT_BYTES;
    }
    if !io.is_checked(assignment) {
        step.checks(assignment, &reader.schema())?;
    }
    let checks = match &step.checks {
        Some((_, checks)) if !io.is_checked(assignment) => checks,
        _ => &none,
    };
    let runs = match order {
        Some(_) => runs_of_sort(step.program.mode(), assignment),
        None => runs(step.program.mode(), assignment),
    };
    let mut records = CheckedReader::new(reader.as_mut(), checks, leader, limits, runs);
    let mut chunk = Chunk {
        assignment,
        io,
        order: order.as_ref(),
        seq: assignment.seq,
        previous: assignment.position,
    };
    loop {
        let end = match chunk.run(&mut step.program, engine, &mut records) {
            Err(error) if records.is_over_limit() => {
                return Err(chunk.keep_rejects(error, &records.take_chunk().rejects));
            }
            end => end?,
        };
        if end.last || end.next > chunk.previous {
            let commit = chunk.seal(end)?;
            let last = commit.last;
            (chunk.previous, chunk.seq) = (commit.next, commit.seq + 1);
            leader.commit(commit)?;
            if last {
                return Ok(Outcome::Committed);
            }
        }
        if records.stop() == Stop::AtCheckpoint {
            return Ok(Outcome::Released);
        }
    }
}

/// How a program runs over its partition. Rows that a whole program needs together are in one bucket
/// of an exchange by some of its keys, so there it may run bucket by bucket. A partition that the
/// user cut otherwise is what the SQL is meant for, as a whole.
fn runs(mode: &TransformMode, assignment: &Assignment) -> Runs {
    let TransformMode::Whole { keys } = mode else {
        return Runs::ByChunk;
    };
    let frame = assignment.context.frame.as_ref();
    let by_keys = match frame
        .and_then(|frame| frame.exchange.as_ref())
        .map(|exchange| &exchange.function)
    {
        Some(BucketFn::Hash { columns }) => !columns.is_empty() && columns.iter().all(|column| keys.contains(column)),
        Some(BucketFn::KeyRange { column, .. }) => keys.contains(column),
        None => false,
    };
    if by_keys { Runs::ByUnit } else { Runs::Whole }
}

/// How a program whose rows are sorted runs over its partition. Where buckets are ranges of what the order begins
/// with, they follow one another in the output's order: each stretch of them can be sorted apart.
fn runs_of_sort(mode: &TransformMode, assignment: &Assignment) -> Runs {
    let exchange = assignment
        .context
        .frame
        .as_ref()
        .and_then(|frame| frame.exchange.as_ref());
    match (exchange.map(|exchange| &exchange.function), mode) {
        (Some(BucketFn::KeyRange { .. }), TransformMode::RowWise { .. }) => Runs::ByUnit,
        (Some(BucketFn::KeyRange { column, .. }), TransformMode::Whole { keys }) if keys.contains(column) => {
            Runs::ByUnit
        }
        _ => Runs::Whole,
    }
}

/// The open chunk of an attempt.
struct Chunk<'a> {
    assignment: &'a Assignment,
    io: &'a dyn StepIo,
    /// That of the step's output, where it has one.
    order: Option<&'a Order>,
    seq: u32,
    previous: u64,
}

/// A chunk whose rows have all been given to the sink.
struct End {
    next: u64,
    last: bool,
    counters: Counters,
    records: RecordHash,
    rejects: Vec<Reject>,
    totals: Vec<FileTotals>,
    order: Option<KeySpan>,
    sink: Option<Box<dyn ChunkSink>>,
}

impl Chunk<'_> {
    fn run(
        &self,
        program: &mut Program,
        engine: &mut engine::Slot,
        records: &mut CheckedReader<'_>,
    ) -> Result<End, TaskError> {
        records.begin_chunk();
        let mut sink: Option<Box<dyn ChunkSink>> = None;
        let mut written = 0;
        let mut filtered = 0;
        let mut check = self.order.map(OrderCheck::new);
        let mut push = |batch: RecordBatch| {
            if batch.num_rows() == 0 {
                return Ok(());
            }
            if let Some(check) = &mut check {
                check.take(&batch)?;
            }
            written += batch.num_rows() as u64;
            let sink = match &mut sink {
                Some(sink) => sink,
                None => sink.insert(self.open_sink(&batch.schema())?),
            };
            sink.write(&batch)
        };
        let mut sorter = self.order.map(|order| {
            let limits = engine.limits();
            let limits = SortLimits {
                memory: limits.memory / SORT_SHARE,
                spill: limits.spill,
                folder: limits.spill_folder.clone(),
            };
            Sorter::new(order, program.output().clone(), limits)
        });
        loop {
            let totals = match &mut sorter {
                None => program.run(engine, &mut || records.next_batch(), &mut push)?,
                Some(sorter) => {
                    let totals = program.run(engine, &mut || records.next_batch(), &mut |batch| sorter.push(batch))?;
                    sorter.drain(&mut |batch| {
                        records.keep_on()?;
                        push(batch)
                    })?;
                    totals
                }
            };
            filtered += totals.filtered;
            if records.is_chunk_done() {
                break;
            }
        }
        // An output without rows still has a schema: its first chunk makes a file all the same.
        if sink.is_none() && self.assignment.task.partition == 0 && self.seq == 0 {
            sink = Some(self.open_sink(program.output())?);
        }
        let taken = records.take_chunk();
        let counters = Counters {
            read: taken.read,
            written,
            filtered,
            rejected: taken.rejects.len() as u64,
            bytes_read: taken.bytes,
            bytes_written: 0,
        };
        let must_add_up = matches!(program.mode(), TransformMode::RowWise { expands: false });
        if must_add_up && !counters.reconciles() {
            return Err(TaskError::new(
                ErrorClass::Data,
                format!(
                    "the counts of chunk {} do not add up: {} read, {} written + {} filtered + {} rejected; \
                     nothing of it is committed. This is a fault of Gapless: please report it with the job file",
                    self.seq, counters.read, counters.written, counters.filtered, counters.rejected
                ),
            ));
        }
        Ok(End {
            next: if records.is_ended() {
                self.assignment.units.high
            } else {
                records.position()
            },
            last: records.is_ended(),
            counters,
            records: taken.records,
            rejects: taken.rejects,
            totals: taken.totals,
            order: check.and_then(OrderCheck::span),
            sink,
        })
    }

    fn open_sink(&self, schema: &SchemaRef) -> Result<Box<dyn ChunkSink>, TaskError> {
        self.io.open_sink(self.assignment, self.seq, self.previous, schema)
    }

    /// Keeps the rejects of an attempt that had too many, and says where.
    fn keep_rejects(&self, error: TaskError, rejects: &[Reject]) -> TaskError {
        let place = match self.io.keep_rejects(self.assignment, self.seq, rejects) {
            Ok(folder) => format!("the rejected records are in {}", folder.display()),
            Err(error) => format!("the rejected records could not be kept: {error}"),
        };
        TaskError::new(error.class, format!("{}; {place}", error.message))
    }

    /// Makes a chunk durable: its files, its rejects, then the manifest that names them.
    fn seal(&self, end: End) -> Result<Commit, TaskError> {
        let files = match end.sink {
            Some(sink) => sink.finish()?,
            None => Vec::new(),
        };
        let rejects = if end.rejects.is_empty() {
            None
        } else {
            Some(self.io.write_rejects(self.assignment, self.seq, &end.rejects)?)
        };
        let mut counters = end.counters;
        counters.bytes_written = files.iter().map(|file| file.bytes).sum();
        let task = &self.assignment.task;
        let manifest = ChunkManifest {
            version: Version::default(),
            run: task.run,
            step: task.step,
            partition: task.partition,
            fence: self.assignment.fence,
            seq: self.seq,
            previous: self.previous,
            next: end.next,
            counters,
            records: end.records,
            files,
            order: end.order,
            rejects,
            totals: end.totals,
        };
        let digest = self.io.write_manifest(self.assignment, &manifest)?;
        Ok(Commit {
            seq: self.seq,
            previous: self.previous,
            next: end.next,
            counters,
            records: end.records,
            digest,
            last: end.last,
        })
    }
}

impl Limits {
    fn of_chunks(rejects: Option<u64>) -> Limits {
        Limits {
            bytes: CHUNK_INPUT_BYTES,
            age: CHUNK_AGE,
            run_rows: RUN_ROWS,
            reject_bytes: CHUNK_REJECT_BYTES,
            rejects,
            now: Instant::now,
        }
    }
}

#[cfg(test)]
mod tests;

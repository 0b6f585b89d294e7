//! Stage Execute: reads one range, checks and transforms it, and commits it chunk by chunk.
//!
//! A chunk is what was read between two commits: its rows are in files of its own, its manifest is
//! durable before its commit is offered. What is not committed never counts, so any error simply
//! leaves the attempt here.

use std::{
    cell::Cell,
    ops::Range,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use gapless_common::{
    attempt::{Commit, Counters, RecordHash},
    error::{ErrorClass, TaskError},
    ids::{RunId, StepNo},
    manifest::{ChunkManifest, DataFile, FileTotals, InputSpan, Version},
    order::KeySpan,
    plan::{BucketFn, TransformMode},
};

use super::{
    Assignment, Leader, Outcome, StepContext, Stop,
    intake::{CheckedReader, Limits, Runs},
    narrow::{Narrowing, Trial},
};
use crate::{
    command::{Environment, External, Inherited, Records},
    engine::{self, Checks, LookupTable, Program, RunError, SlotLimits},
    sink::ChunkSink,
    sort::{Order, OrderCheck, SortLimits, Sorter},
    source::{Reject, SourceReader, keys::KeyWriter, schema_of, shown::key_as_json},
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
/// Output of a trial of some rows, held until all of them have passed.
const TRIAL_BYTES: usize = 64 << 20;
/// What rejects a record on which the SQL fails, in place of the name of a check.
pub const TRANSFORM_RULE: &str = "transform";
/// Of one that the rules of a split cannot be asked of.
pub const SPLIT_RULE: &str = "split";

/// What makes the step's rows of its records.
enum Transform {
    Sql(Program),
    Command(External),
}

impl Transform {
    /// The columns of the rows; known after the first run at the latest.
    fn output(&self) -> Option<&SchemaRef> {
        match self {
            Transform::Sql(program) => Some(program.output()),
            Transform::Command(external) => external.output(),
        }
    }

    /// Whether each record is one row, filtered or rejected.
    fn must_add_up(&self) -> bool {
        match self {
            Transform::Sql(program) => matches!(program.mode(), TransformMode::RowWise { expands: false }),
            Transform::Command(_) => false,
        }
    }

    /// How it runs over its partition. Rows that a whole program needs together are in one bucket of an
    /// exchange by some of its keys, so there it may run bucket by bucket. A partition that the user cut
    /// otherwise is what the SQL is meant for, as a whole.
    fn runs(&self, context: &StepContext) -> Runs {
        let keys = match self {
            Transform::Command(external) if external.takes_whole_partitions() => return Runs::Whole,
            Transform::Command(_) => return Runs::ByChunk,
            Transform::Sql(program) => match program.mode() {
                TransformMode::Whole { keys } => keys,
                TransformMode::RowWise { .. } => return Runs::ByChunk,
            },
        };
        let by = context.key_columns();
        match !by.is_empty() && by.iter().all(|column| keys.contains(column)) {
            true => Runs::ByUnit,
            false => Runs::Whole,
        }
    }
}

/// What an attempt reads from and writes to. Opening is left to whoever knows formats and folders.
pub trait StepIo: Send + Sync {
    /// All columns of the step's source: what SQL sees as `input`.
    fn input_schema(&self, assignment: &Assignment) -> Result<SchemaRef, TaskError>;

    /// Small tables, pinned for the run. Asked once for each step and slot.
    fn lookups(&self, assignment: &Assignment) -> Result<Vec<LookupTable>, TaskError>;

    /// A reader of what is left of the assignment: `units.after(position)`. Its batches may leave
    /// out columns that neither the SQL nor the checks read.
    fn open_source(&self, assignment: &Assignment) -> Result<Box<dyn SourceReader>, TaskError>;

    /// What a program gets of the worker's environment.
    fn inherited(&self) -> Inherited {
        Inherited::default()
    }

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

    /// Where the fingerprints of keys of chunk `seq` go, if they are to be unique.
    fn keys_file(&self, assignment: &Assignment, seq: u32) -> Result<PathBuf, TaskError>;

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
    edition: u32,
    transform: Transform,
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
            && (known.run, known.step, known.edition) == (context.run, context.step_no, context.edition)
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
        let input = io.input_schema(assignment)?;
        let transform = match &step.command {
            Some(command) => {
                let planned = context.frame.as_ref();
                let planned = planned.and_then(|frame| schema_of(&frame.facts.output)).map(Arc::new);
                Transform::Command(External::new(
                    command,
                    context.base_dir.clone(),
                    io.inherited(),
                    planned,
                )?)
            }
            None => Transform::Sql(Program::compile(
                &mut self.engine,
                step.sql.as_deref(),
                input,
                lookups,
                context.started_micros,
            )?),
        };
        self.step = Some(CompiledStep {
            run: context.run,
            step: context.step_no,
            edition: context.edition,
            transform,
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
    let reader = io.open_source(assignment)?;
    let none = Checks::none();
    let mut limits = Limits::of_chunks(assignment.context.step().on_error.reject_limit);
    let order = match assignment.context.step().sort.as_slice() {
        [] => None,
        by => match &step.transform {
            Transform::Sql(program) => Some(Order::new(by, program.output())?),
            // The language refuses it.
            Transform::Command(_) => None,
        },
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
    let runs = match (&order, &step.transform) {
        (Some(_), Transform::Sql(program)) => runs_of_sort(program.mode(), &assignment.context),
        _ => step.transform.runs(&assignment.context),
    };
    let mut records = CheckedReader::new(reader, checks, leader, limits, runs);
    let mut chunk = Chunk {
        assignment,
        io,
        order: order.as_ref(),
        seq: assignment.seq,
        previous: assignment.position,
    };
    loop {
        records.keep_keys_in(io.keys_file(assignment, chunk.seq)?);
        let end = match &mut step.transform {
            Transform::Command(external) => chunk.run_command(external, &mut records),
            Transform::Sql(program) => match chunk.run(program, engine, &mut records) {
                Err(RunError::OnValue(_)) if program.is_row_wise() => {
                    // Files of the chunk so far are gone with its sink: it is read once more, batch by batch.
                    records.reopen(io.open_source(&chunk.rest())?);
                    chunk.run_narrowing(program, engine, &mut records)
                }
                made => made.map_err(TaskError::from),
            },
        };
        let end = end.and_then(|made| chunk.end(made, &step.transform, &mut records));
        let end = match end {
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

/// How a program whose rows are sorted runs over its partition. Where buckets are ranges of what the order begins
/// with, they follow one another in the output's order: each stretch of them can be sorted apart.
fn runs_of_sort(mode: &TransformMode, context: &StepContext) -> Runs {
    let exchange = context.frame.as_ref().and_then(|frame| frame.exchange.as_ref());
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
    spans: Vec<InputSpan>,
    keys: Option<KeyWriter>,
    order: Option<KeySpan>,
    sink: Option<Box<dyn ChunkSink>>,
}

/// The rows of an open chunk on their way to its sink.
struct Pushed<'a> {
    chunk: &'a Chunk<'a>,
    sink: Option<Box<dyn ChunkSink>>,
    /// Where the rows of a run wait, if the output is ordered.
    sorter: Option<Sorter<'a>>,
    check: Option<OrderCheck<'a>>,
    written: u64,
    filtered: u64,
    /// Whether the sink could not tell where a row belongs: a matter of that record's values.
    undecided: bool,
}

impl Pushed<'_> {
    /// From here on rows are sorted, where the output is ordered.
    fn sort(&mut self, program: &Program, engine: &engine::Slot) {
        self.sorter = self.chunk.order.map(|order| {
            let limits = engine.limits();
            let limits = SortLimits {
                memory: limits.memory / SORT_SHARE,
                spill: limits.spill,
                folder: limits.spill_folder.clone(),
            };
            Sorter::new(order, program.output().clone(), limits)
        });
    }

    fn push(&mut self, batch: RecordBatch) -> Result<(), TaskError> {
        match &mut self.sorter {
            Some(sorter) => sorter.push(batch),
            None => self.write(&batch),
        }
    }

    /// Writes the rows of a run that waited to be sorted.
    fn end_run(&mut self, records: &mut CheckedReader<'_>) -> Result<(), TaskError> {
        let Some(mut sorter) = self.sorter.take() else {
            return Ok(());
        };
        sorter.drain(&mut |batch| {
            records.keep_on()?;
            self.write(&batch)
        })?;
        self.sorter = Some(sorter);
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if let Some(check) = &mut self.check {
            check.take(batch)?;
        }
        self.written += batch.num_rows() as u64;
        let sink = self.sink(batch)?;
        let Err(error) = sink.write(batch) else { return Ok(()) };
        self.undecided = sink.undecided(batch)?.is_some();
        Err(error)
    }

    fn sink(&mut self, batch: &RecordBatch) -> Result<&mut Box<dyn ChunkSink>, TaskError> {
        Ok(match &mut self.sink {
            Some(sink) => sink,
            none => none.insert(self.chunk.open_sink(&batch.schema())?),
        })
    }

    /// Why the sink cannot tell where one of the rows belongs.
    fn first_undecided(&mut self, batches: &[RecordBatch]) -> Result<Option<String>, TaskError> {
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            if let Some(reason) = self.sink(batch)?.undecided(batch)? {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }

    /// A value on which the sink fails is as one on which the SQL does.
    fn sort_out(&self, error: RunError) -> RunError {
        match error {
            RunError::Other(error) if self.undecided => RunError::OnValue(error),
            other => other,
        }
    }
}

impl Chunk<'_> {
    fn pushed(&self) -> Pushed<'_> {
        Pushed {
            chunk: self,
            sink: None,
            sorter: None,
            check: self.order.map(OrderCheck::new),
            written: 0,
            filtered: 0,
            undecided: false,
        }
    }

    /// The assignment from where this chunk begins.
    fn rest(&self) -> Assignment {
        Assignment {
            position: self.previous,
            seq: self.seq,
            ..self.assignment.clone()
        }
    }

    fn run(
        &self,
        program: &mut Program,
        engine: &mut engine::Slot,
        records: &mut CheckedReader<'_>,
    ) -> Result<Pushed<'_>, RunError> {
        records.begin_chunk();
        let mut pushed = self.pushed();
        pushed.sort(program, engine);
        loop {
            let ran = program.run(engine, &mut || records.next_batch(), &mut |batch| pushed.push(batch));
            let totals = ran.map_err(|error| pushed.sort_out(error))?;
            pushed.filtered += totals.filtered;
            let ended = pushed.end_run(records);
            ended.map_err(|error| pushed.sort_out(RunError::Other(error)))?;
            if records.is_chunk_done() {
                break;
            }
        }
        Ok(pushed)
    }

    /// As [`Self::run`] with a program of the user's.
    fn run_command(&self, external: &mut External, records: &mut CheckedReader<'_>) -> Result<Pushed<'_>, TaskError> {
        records.begin_chunk();
        let mut pushed = self.pushed();
        let input = self.io.input_schema(self.assignment)?;
        let environment = environment(self.assignment);
        loop {
            external.run(&input, &environment, records, &mut |batch| pushed.push(batch))?;
            if records.is_chunk_done() {
                return Ok(pushed);
            }
        }
    }

    /// As [`Self::run`] for a program that works row by row, each batch on its own; records on which it
    /// fails are rejected.
    fn run_narrowing(
        &self,
        program: &mut Program,
        engine: &mut engine::Slot,
        records: &mut CheckedReader<'_>,
    ) -> Result<Pushed<'_>, TaskError> {
        records.begin_chunk();
        let mut pushed = self.pushed();
        pushed.sort(program, engine);
        let mut narrowing = Narrowing::default();
        while !records.is_chunk_done() {
            let Some(judged) = records.next_judged()? else {
                pushed.end_run(records)?;
                continue;
            };
            let rule = Cell::new(TRANSFORM_RULE);
            let mut attempt = |pushed: &mut Pushed<'_>, rows: Range<usize>| {
                rule.set(TRANSFORM_RULE);
                let mut given = Some(judged.batch.slice(rows.start, rows.len()));
                let (mut made, mut bytes, mut too_much) = (Vec::new(), 0, false);
                let ran = program.run(engine, &mut || Ok(given.take()), &mut |batch| {
                    bytes += batch.get_array_memory_size();
                    made.push(batch);
                    too_much = bytes > TRIAL_BYTES && rows.len() > 1;
                    match too_much {
                        true => Err(TaskError::new(ErrorClass::Resource, "too much output to hold")),
                        false => Ok(()),
                    }
                });
                match ran {
                    Ok(totals) => {
                        if let Some(reason) = pushed.first_undecided(&made)? {
                            rule.set(SPLIT_RULE);
                            return Ok(Trial::Failed(reason));
                        }
                        pushed.filtered += totals.filtered;
                        made.into_iter().try_for_each(|batch| pushed.push(batch))?;
                        Ok(Trial::Passed)
                    }
                    Err(RunError::OnValue(error)) => Ok(Trial::Failed(error.message)),
                    Err(RunError::Other(error)) if too_much => Ok(Trial::Failed(error.message)),
                    Err(RunError::Other(error)) => Err(error),
                }
            };
            narrowing.run(
                judged.batch.num_rows(),
                &mut pushed,
                &mut attempt,
                &mut |_, row, reason| {
                    records.reject(Reject {
                        place: judged.locate(row),
                        key: key_as_json(&judged.batch, row, self.assignment.context.key_columns()),
                        rule: rule.get().to_string(),
                        reason,
                    })
                },
            )?;
        }
        pushed.end_run(records)?;
        tracing::debug!(trials = narrowing.trials, "rows on which the SQL fails were looked for");
        Ok(pushed)
    }

    fn end(
        &self,
        mut pushed: Pushed<'_>,
        transform: &Transform,
        records: &mut CheckedReader<'_>,
    ) -> Result<End, TaskError> {
        // An output without rows still has a schema: its first chunk makes a file all the same.
        if pushed.sink.is_none()
            && self.assignment.task.partition == 0
            && self.seq == 0
            && let Some(output) = transform.output()
        {
            pushed.sink = Some(self.open_sink(output)?);
        }
        let taken = records.take_chunk();
        let counters = Counters {
            read: taken.read,
            written: pushed.written,
            filtered: pushed.filtered,
            rejected: taken.rejects.len() as u64,
            bytes_read: taken.bytes,
            bytes_written: 0,
        };
        if transform.must_add_up() && !counters.reconciles() {
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
            spans: taken.spans,
            keys: taken.keys,
            order: pushed.check.and_then(OrderCheck::span),
            sink: pushed.sink,
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
        let keys = end.keys.map(KeyWriter::finish).transpose()?;
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
            inputs: end.spans,
            keys,
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

impl Records for CheckedReader<'_> {
    fn next(&mut self) -> Result<Option<RecordBatch>, TaskError> {
        self.next_batch()
    }

    fn look(&mut self) -> Result<(), TaskError> {
        self.report()
    }

    fn said(&mut self, text: String) {
        self.tell(text);
    }
}

/// What a program is told of the attempt that it works for.
fn environment(assignment: &Assignment) -> Environment {
    let Assignment {
        task,
        fence,
        units,
        context,
        ..
    } = assignment;
    let (job, step) = (&context.job.name, &context.step().name);
    Environment::from([
        ("GAPLESS_PROGRAM", format!("{job}/{step}")),
        ("GAPLESS_RUN", context.run.to_string()),
        ("GAPLESS_PARTITION", task.partition.to_string()),
        ("GAPLESS_LOW", units.low.to_string()),
        ("GAPLESS_HIGH", units.high.to_string()),
        ("GAPLESS_ATTEMPT", fence.number.to_string()),
    ])
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

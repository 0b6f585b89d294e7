//! The work of a worker: each stage's code, put together with the formats, folders and look-ups of
//! its step. The only place that knows all rooms of this crate.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use arrow::{
    array::RecordBatch,
    compute::filter_record_batch,
    datatypes::{Schema, SchemaRef},
};
use gapless_common::{
    error::{ErrorClass, TaskError},
    ids::{RunId, Stage, StepNo},
    job::{Check, Job, Lookup, Partition, Sink, Source, Step},
    manifest::{ChunkManifest, DataFile},
    plan::{Facts, PinnedLookup},
};
use gapless_platform::config::SpillDir;

use crate::{
    allow::AllowList,
    attempt::{
        Assignment, CommittedPartition, Leader, Outcome, StepContext,
        execute::{Slot, StepIo, execute},
        survey::facts,
    },
    command::{self, Inherited},
    engine::{Analysis, Checks, LookupTable, SlotLimits, Verdict, analyse},
    exchange::{self, ScatterFolders},
    publish::{adopt_published, run_abort, run_merge, run_prepare, run_publish, standing_certificate, sweep_late},
    runner::{SlotState, Work},
    sink::{ChunkSink, ChunkTarget, check_sink, open_chunk, written_schema},
    sort::check_step_order,
    source::{InputBatch, Reject, SourceReader, lookup, open, schema_of, shown::key_as_json, types::key_type},
    storage::{FirstUnit, SpillFolder, StepFolders, spill_folder, sweep_spill},
    survey::{published_files, sample_keys, survey_source},
};

/// Steps whose look-ups and scatter lists are kept. A worker serves few steps at a time; look-ups
/// may hold [`crate::source::lookup::MAX_TABLE`] each.
const KEPT_STEPS: usize = 4;

/// What the slots of a worker share of a step.
struct Shared {
    run: RunId,
    step: StepNo,
    edition: u32,
    lookups: Option<Arc<Vec<LookupTable>>>,
    scattered: Option<Arc<Vec<CommittedPartition>>>,
}

/// The stages' code behind the runner's seam.
#[derive(Default)]
pub struct Stages {
    allowed: AllowList,
    /// What programs of jobs inherit; `None` where none is started.
    programs: Option<Inherited>,
    spill_dir: SpillDir,
    shared: Mutex<VecDeque<Shared>>,
    /// This worker's place for spilled data; made with the first task, which tells where scratch is.
    spill: OnceLock<SpillFolder>,
}

impl Work for Stages {
    fn run(&self, assignment: Assignment, leader: &dyn Leader, slot: &mut SlotState) -> Result<Outcome, TaskError> {
        self.allowed.check(&assignment)?;
        self.check_command(&assignment)?;
        let all = spill_folder(&self.spill_dir, &assignment.context.scratch)?;
        let spill = self.spill(&all)?;
        if matches!(assignment.task.stage, Stage::Publish | Stage::Abort) {
            sweep(&all);
        }
        let outcome = match assignment.task.stage {
            Stage::Survey => run_survey(&assignment.context, &self.inherited()),
            Stage::Prepare => {
                self.check(&assignment)?;
                run_prepare(&assignment)
            }
            Stage::Scatter => self.scatter(&assignment, leader),
            Stage::Execute => {
                let memory = slot.memory_bytes as usize;
                let slot = slot.keep(|| {
                    Slot::new(SlotLimits {
                        memory,
                        ..SlotLimits::new(spill.path().to_path_buf())
                    })
                });
                execute(&assignment, leader, slot, &Io { stages: self, leader })
            }
            Stage::Merge => run_merge(&assignment, leader),
            Stage::Publish => run_publish(&assignment, leader, &scattered_of(&assignment.context)),
            Stage::Abort => run_abort(&assignment, leader, &scattered_of(&assignment.context)),
        };
        match assignment.task.stage {
            // What a published step has staged is swept: of that alone the error would tell.
            Stage::Scatter | Stage::Execute | Stage::Merge => {
                // Also after a last commit was offered: whether it was taken, nobody here waits to hear.
                sweep_late(&assignment.context);
                outcome.or_else(|error| adopt_published(&assignment.context, error))
            }
            Stage::Survey | Stage::Prepare | Stage::Publish | Stage::Abort => outcome,
        }
    }
}

/// Removes what killed workers have spilled. Nobody's work depends on it.
fn sweep(all: &Path) {
    match sweep_spill(all) {
        Ok(0) => {}
        Ok(workers) => tracing::info!(workers, "removed what workers that are gone had spilled"),
        Err(error) => tracing::warn!(%error, "spilled data of workers that are gone stays"),
    }
}

fn scattered_of(
    context: &StepContext,
) -> impl Fn(
    &[CommittedPartition],
    gapless_common::range::UnitRange,
) -> Result<(u64, gapless_common::attempt::RecordHash), TaskError>
+ '_ {
    move |committed, buckets| {
        let files = exchange::committed_files(&exchange::exchange_folder(context), committed);
        let sum = exchange::scattered(&files, buckets)?;
        Ok((sum.rows, sum.records))
    }
}

/// What a step's survey would report: facts of its source and of its SQL.
///
/// Errors: `Config` and others as the source and the SQL give them.
pub fn survey_step(
    job: &Job,
    step: &Step,
    base_dir: &Path,
    run: RunId,
    started_micros: i64,
    inherited: &Inherited,
) -> Result<Facts, TaskError> {
    let mut known = Outputs::new();
    let earlier = earlier_outputs(job, step, base_dir, run, started_micros, inherited, &mut known)?;
    let mut source = survey_source(job, step, base_dir, run, &earlier)?;
    let (lookups, pins) = survey_lookups(job, step, base_dir, run)?;
    let analysis = transformed(
        step,
        source.schema.clone(),
        &lookups,
        &step.checks,
        base_dir,
        started_micros,
        inherited,
    )?;
    let mut read = analysis.columns.clone();
    if let Source::Merge(merge) = &step.source {
        read.extend(merge.by.iter().map(|by| by.column.clone()));
        read.extend(merge.unique.iter().cloned());
    }
    match &step.partition.method {
        Partition::KeyRange { column, .. } => {
            source.sample = Some(sample_keys(job, step, base_dir, &source, column)?);
            read.push(column.clone());
        }
        Partition::Hash { columns } => read.extend(columns.iter().cloned()),
        Partition::Auto if !step.sort.is_empty() => {
            check_step_order(step, &step.sort, &analysis.output)?;
            let carried = analysis.carried(&step.sort[0].column);
            // Types that have an order once they are read, but no key.
            let sampled = carried.filter(|column| {
                let field = source.schema.field_with_name(column);
                field.is_ok_and(|field| key_type(field.data_type()).is_some())
            });
            if let Some(column) = sampled {
                source.sample = Some(sample_keys(job, step, base_dir, &source, column)?);
                read.push(column.to_string());
            }
        }
        Partition::Auto | Partition::Bytes | Partition::Files | Partition::RowGroups => {}
    }
    let schema = source.schema.clone();
    let names = schema
        .fields()
        .iter()
        .map(|field| field.name())
        .filter(|name| read.contains(name));
    let names: Vec<String> = names.cloned().collect();
    let mut facts = facts(source, &analysis);
    facts.read_columns = (names.len() < schema.fields().len()).then_some(names);
    facts.lookups = pins;
    let unused = analysis.unused.iter();
    facts.warnings.extend(
        unused
            .map(|name| format!("the look-up «{name}» is read and pinned, and the SQL does not use it: leave it out")),
    );
    facts.standing = standing_certificate(step, base_dir)?;
    check_sink(&step.sink, &analysis.output)?;
    Ok(facts)
}

/// What a step makes of its records, and what it reads of them.
fn transformed(
    step: &Step,
    input: SchemaRef,
    lookups: &[NamedSchema],
    checks: &[Check],
    base_dir: &Path,
    started_micros: i64,
    inherited: &Inherited,
) -> Result<Analysis, TaskError> {
    let analysis = analyse(step.sql.as_deref(), input.clone(), lookups, checks, started_micros)?;
    let Some(command) = &step.command else {
        return Ok(analysis);
    };
    Ok(Analysis {
        output: command::output_of(command, base_dir.to_path_buf(), inherited, &input)?,
        transform: command::transform_facts(command, &step.partition.method),
        ..analysis
    })
}

/// Columns of what earlier steps published, by their names. Steps that merge steps which merge others meet the same ones
/// on very many ways: each is looked at once.
type Outputs = BTreeMap<String, Option<SchemaRef>>;

/// For the source of a step, or each input of it, the columns of the files that an earlier step published, where they
/// cannot be read off the files.
fn earlier_outputs(
    job: &Job,
    step: &Step,
    base_dir: &Path,
    run: RunId,
    started_micros: i64,
    inherited: &Inherited,
    known: &mut Outputs,
) -> Result<Vec<Option<SchemaRef>>, TaskError> {
    let mut columns = Vec::new();
    for input in step.source.inputs() {
        let Source::Step(name) = input else {
            columns.push(None);
            continue;
        };
        if !known.contains_key(name) {
            let output = earlier_output(job, name, base_dir, run, started_micros, inherited, known)?;
            known.insert(name.clone(), output);
        }
        columns.push(known.get(name).cloned().flatten());
    }
    Ok(columns)
}

fn earlier_output(
    job: &Job,
    name: &str,
    base_dir: &Path,
    run: RunId,
    started_micros: i64,
    inherited: &Inherited,
    known: &mut Outputs,
) -> Result<Option<SchemaRef>, TaskError> {
    let Some(earlier) = job.step(name) else { return Ok(None) };
    if !matches!(earlier.sink, Sink::Csv(_) | Sink::Ndjson(_)) {
        return Ok(None);
    }
    let before = earlier_outputs(job, earlier, base_dir, run, started_micros, inherited, known)?;
    let source = survey_source(job, earlier, base_dir, run, &before)?;
    let (lookups, _) = survey_lookups(job, earlier, base_dir, run)?;
    let analysis = transformed(
        earlier,
        source.schema,
        &lookups,
        &[],
        base_dir,
        started_micros,
        inherited,
    )?;
    written_schema(&earlier.sink, &analysis.output).map(Some)
}

/// A table's name in SQL, and its columns.
type NamedSchema = (String, SchemaRef);

/// The columns of a step's look-ups, and the pins that every attempt of the step is held to.
fn survey_lookups(
    job: &Job,
    step: &Step,
    base_dir: &Path,
    run: RunId,
) -> Result<(Vec<NamedSchema>, Vec<PinnedLookup>), TaskError> {
    let (mut columns, mut pins) = (Vec::new(), Vec::new());
    for (name, lookup) in &step.lookups {
        let read = match lookup {
            Lookup::Step(earlier) => published_files(job, earlier, base_dir, run).and_then(|files| {
                let paths: Vec<String> = files.into_iter().map(|file| file.path).collect();
                lookup::read_published(name, lookup, earlier, base_dir, &paths)
            }),
            Lookup::Csv(_) | Lookup::Ndjson(_) | Lookup::Parquet(_) | Lookup::Avro(_) | Lookup::Records(_) => {
                lookup::read_table(name, lookup, base_dir)
            }
        };
        let table = read.map_err(|mut error| {
            // What fails to open does not know what it was for.
            if !error.message.starts_with("look-up ") {
                error.message = format!("look-up {name}: {}", error.message);
            }
            error
        })?;
        columns.push((name.clone(), table.schema));
        pins.push(PinnedLookup {
            name: name.clone(),
            files: table.files,
        });
    }
    Ok((columns, pins))
}

/// The look-ups of a step as its survey read them. A plan of a release that did not pin them takes them as
/// they are.
fn pinned_lookups(step: &Step, base_dir: &Path, pins: &[PinnedLookup]) -> Result<Vec<LookupTable>, TaskError> {
    let read = |(name, lookup): (&String, &Lookup)| {
        let table = match pins.iter().find(|pin| pin.name == *name) {
            Some(pin) => lookup::read_pinned(name, lookup, base_dir, &pin.files)?,
            None => lookup::read_table(name, lookup, base_dir)?,
        };
        Ok(LookupTable {
            name: name.clone(),
            schema: table.schema,
            batches: table.batches,
        })
    };
    step.lookups.iter().map(read).collect()
}

fn run_survey(context: &StepContext, inherited: &Inherited) -> Result<Outcome, TaskError> {
    let facts = survey_step(
        &context.job,
        context.step(),
        &context.base_dir,
        context.run,
        context.started_micros,
        inherited,
    )?;
    let json = serde_json::to_vec(&facts)
        .map_err(|error| TaskError::new(ErrorClass::Data, format!("the survey's facts have no JSON: {error}")))?;
    Ok(Outcome::Finished(json))
}

/// The facts of a step that is planned.
fn planned(context: &StepContext) -> Result<&Facts, TaskError> {
    context.frame.as_ref().map(|frame| &frame.facts).ok_or_else(|| {
        TaskError::new(
            ErrorClass::Transient,
            format!("step {} came without its plan", context.step().name),
        )
    })
}

/// All columns of a step's source, as SQL sees them.
fn input_schema(context: &StepContext) -> Result<SchemaRef, TaskError> {
    let facts = planned(context)?;
    if let Some(schema) = schema_of(&facts.columns) {
        return Ok(Arc::new(schema));
    }
    // Types that have no name of their own: the source tells.
    let none = gapless_common::range::UnitRange::new(facts.domain.low, facts.domain.high);
    let reader = open::open(&context.job, context.step(), &context.base_dir, facts, none, None)?;
    Ok(reader.schema())
}

fn open_planned(
    assignment: &Assignment,
    units: gapless_common::range::UnitRange,
) -> Result<Box<dyn SourceReader>, TaskError> {
    let context = &assignment.context;
    let facts = planned(context)?;
    let columns = facts.read_columns.as_deref();
    open::open(&context.job, context.step(), &context.base_dir, facts, units, columns)
}

impl Stages {
    /// Touches nothing outside these folders, and starts programs of jobs only where `commands` says so.
    /// What memory does not hold goes to `spill_dir`.
    pub fn within(allowed: AllowList, programs: Option<Inherited>, spill_dir: SpillDir) -> Stages {
        Stages {
            allowed,
            programs,
            spill_dir,
            ..Stages::default()
        }
    }

    fn inherited(&self) -> Inherited {
        self.programs.clone().unwrap_or_default()
    }

    /// Errors: `Config` where the task would start a program and this worker starts none.
    fn check_command(&self, assignment: &Assignment) -> Result<(), TaskError> {
        let step = assignment.context.step();
        let starts = matches!(assignment.task.stage, Stage::Survey | Stage::Execute);
        match &step.command {
            Some(command) if starts && self.programs.is_none() => Err(TaskError::new(
                ErrorClass::Config,
                format!(
                    "step {} runs a program ({}), and this worker runs none: start workers with --allow-command \
                     (allow_command), or use SQL",
                    step.name,
                    command.run.first().map_or("", String::as_str)
                ),
            )),
            _ => Ok(()),
        }
    }

    /// This worker's folder for spilled data. With the first task, remains of other workers are removed.
    fn spill(&self, all: &Path) -> Result<&SpillFolder, TaskError> {
        if let Some(spill) = self.spill.get() {
            return Ok(spill);
        }
        let spill = SpillFolder::open(all)?;
        sweep(all);
        // Of two slots at once one keeps its folder, the other's is removed at once.
        Ok(self.spill.get_or_init(|| spill))
    }

    /// What can be told wrong before a partition is granted: look-ups that do not open, or differ from the survey's.
    fn check(&self, assignment: &Assignment) -> Result<(), TaskError> {
        self.lookups(&assignment.context).map(drop)
    }

    fn scatter(&self, assignment: &Assignment, leader: &dyn Leader) -> Result<Outcome, TaskError> {
        let context = &assignment.context;
        let mut reader = open_planned(assignment, assignment.units.after(assignment.position))?;
        let checks = Checks::compile(&context.step().checks, &reader.schema(), context.started_micros)?;
        let keys = context.key_columns();
        let mut check = |input: InputBatch| -> Result<(RecordBatch, Vec<Reject>), TaskError> {
            match checks.judge(&input.batch)? {
                Verdict::Right => Ok((input.batch, Vec::new())),
                Verdict::Broken { keep, broken } => {
                    let rejects = broken.into_iter().map(|broken| Reject {
                        place: input.origin.locate(broken.row),
                        key: key_as_json(&input.batch, broken.row, keys),
                        rule: broken.rule,
                        reason: broken.reason,
                    });
                    let rejects = rejects.collect();
                    let kept = filter_record_batch(&input.batch, &keep).map_err(|error| {
                        TaskError::new(ErrorClass::Data, format!("rejecting records failed: {error}"))
                    })?;
                    Ok((kept, rejects))
                }
            }
        };
        let columns = planned(context)?.read_columns.as_deref();
        let folders = StepFolders::of(context)?;
        let folders = ScatterFolders::new(context, folders.rejects(), folders.keys());
        let limit = assignment.context.step().on_error.reject_limit;
        exchange::scatter(
            assignment,
            leader,
            reader.as_mut(),
            &mut check,
            columns,
            limit,
            &folders,
        )
    }

    /// The look-ups of a step, read once for all slots.
    fn lookups(&self, context: &StepContext) -> Result<Arc<Vec<LookupTable>>, TaskError> {
        if context.step().lookups.is_empty() {
            return Ok(Arc::default());
        }
        // Held while reading: a second slot waits instead of reading the same tables.
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let step = entry(&mut shared, context);
        if let Some(lookups) = &step.lookups {
            return Ok(lookups.clone());
        }
        let pins = &planned(context)?.lookups;
        let lookups = Arc::new(pinned_lookups(context.step(), &context.base_dir, pins)?);
        step.lookups = Some(lookups.clone());
        Ok(lookups)
    }

    /// The sealed scatter stage of a step: it does not change any more.
    fn scattered(&self, context: &StepContext, leader: &dyn Leader) -> Result<Arc<Vec<CommittedPartition>>, TaskError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let step = entry(&mut shared, context);
        if let Some(scattered) = &step.scattered {
            return Ok(scattered.clone());
        }
        let mut scattered = leader.committed(Stage::Scatter)?;
        // In the order of the source, so that rows of one bucket come in it.
        scattered.sort_unstable_by_key(|partition| (partition.units, partition.partition));
        let scattered = Arc::new(scattered);
        step.scattered = Some(scattered.clone());
        Ok(scattered)
    }
}

fn entry<'a>(shared: &'a mut VecDeque<Shared>, context: &StepContext) -> &'a mut Shared {
    let known = shared
        .iter()
        .position(|it| (it.run, it.step, it.edition) == (context.run, context.step_no, context.edition));
    let at = match known {
        Some(at) => at,
        None => {
            if shared.len() == KEPT_STEPS {
                shared.pop_front();
            }
            shared.push_back(Shared {
                run: context.run,
                step: context.step_no,
                edition: context.edition,
                lookups: None,
                scattered: None,
            });
            shared.len() - 1
        }
    };
    &mut shared[at]
}

/// Formats and folders for the execute stage of one attempt.
struct Io<'a> {
    stages: &'a Stages,
    leader: &'a dyn Leader,
}

impl Io<'_> {
    fn target(assignment: &Assignment, seq: u32) -> Result<ChunkTarget, TaskError> {
        let task = &assignment.task;
        ChunkTarget::new(&assignment.context, task.stage, task.partition, assignment.fence, seq)
    }
}

fn has_exchange(assignment: &Assignment) -> bool {
    assignment
        .context
        .frame
        .as_ref()
        .is_some_and(|frame| frame.exchange.is_some())
}

impl StepIo for Io<'_> {
    fn inherited(&self) -> Inherited {
        self.stages.inherited()
    }

    fn input_schema(&self, assignment: &Assignment) -> Result<SchemaRef, TaskError> {
        let schema = input_schema(&assignment.context)?;
        // Without SQL what is read is what goes on.
        match (
            &assignment.context.step().sql,
            &planned(&assignment.context)?.read_columns,
        ) {
            (None, Some(read)) => {
                let fields = schema.fields().iter().filter(|field| read.contains(field.name()));
                Ok(Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>())))
            }
            _ => Ok(schema),
        }
    }

    fn lookups(&self, assignment: &Assignment) -> Result<Vec<LookupTable>, TaskError> {
        self.stages
            .lookups(&assignment.context)
            .map(|lookups| lookups.as_ref().clone())
    }

    fn open_source(&self, assignment: &Assignment) -> Result<Box<dyn SourceReader>, TaskError> {
        let units = assignment.units.after(assignment.position);
        if has_exchange(assignment) {
            let scattered = self.stages.scattered(&assignment.context, self.leader)?;
            return Ok(Box::new(exchange::gather(&assignment.context, &scattered, units)?));
        }
        open_planned(assignment, units)
    }

    fn is_checked(&self, assignment: &Assignment) -> bool {
        has_exchange(assignment)
    }

    fn open_sink(
        &self,
        assignment: &Assignment,
        seq: u32,
        low: u64,
        schema: &SchemaRef,
    ) -> Result<Box<dyn ChunkSink>, TaskError> {
        let step = assignment.context.step();
        let target = Self::target(assignment, seq)?;
        let target = match (&step.source, step.sort.is_empty()) {
            (_, false) => target.in_order(FirstUnit::Sorted(low)),
            (Source::Merge(_), true) if !has_exchange(assignment) => target.in_order(FirstUnit::OfSource(low)),
            _ => target,
        };
        open_chunk(&step.sink, schema, &target)
    }

    fn keys_file(&self, assignment: &Assignment, seq: u32) -> Result<PathBuf, TaskError> {
        let target = Self::target(assignment, seq)?;
        Ok(target.folders().keys_file(&target.chunk().to_string()))
    }

    fn write_rejects(&self, assignment: &Assignment, seq: u32, rejects: &[Reject]) -> Result<DataFile, TaskError> {
        let written = Self::target(assignment, seq)?.write_rejects(rejects)?;
        written.ok_or_else(|| TaskError::new(ErrorClass::Data, "no rejects to write"))
    }

    fn keep_rejects(&self, assignment: &Assignment, seq: u32, rejects: &[Reject]) -> Result<PathBuf, TaskError> {
        let target = Self::target(assignment, seq)?;
        target.write_rejects(rejects)?;
        Ok(target.folders().rejects())
    }

    fn write_manifest(&self, assignment: &Assignment, manifest: &ChunkManifest) -> Result<u64, TaskError> {
        Self::target(assignment, manifest.seq)?.write_manifest(manifest)
    }
}

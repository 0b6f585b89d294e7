//! A program: a step's SQL compiled once for a step and a slot, then run for each chunk.

use std::{path::Path, sync::Arc, task::Poll};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{
    common::{DataFusionError, JoinType, utils::memory::get_record_batch_memory_size},
    datasource::MemTable,
    execution::{TaskContext, memory_pool::MemoryConsumer},
    physical_plan::{
        ExecutionPlan,
        coalesce_partitions::CoalescePartitionsExec,
        coop::CooperativeExec,
        displayable,
        execution_plan::reset_plan_states,
        filter::FilterExec,
        joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec},
        metrics::MetricValue,
        projection::ProjectionExec,
        scalar_subquery::ScalarSubqueryExec,
        unnest::UnnestExec,
    },
};
use futures::StreamExt;
use gapless_common::{
    error::{ErrorClass, TaskError},
    plan::TransformMode,
};

use super::{
    INPUT, Slot,
    analyse::plan_query,
    casts::Casts,
    classify, errors,
    input::{Feed, InputExec, InputTable},
    room::with_room,
    session,
};

/// A plan that keeps nothing of its input is run this often before it is made new: so long it keeps
/// the hash tables of its look-ups, and its metrics, of which every run adds some.
const RUNS_BEFORE_RESET: u32 = 64;

/// A small table, joined by name and pinned for the step.
#[derive(Clone, Debug)]
pub struct LookupTable {
    pub name: String,
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
}

/// A step's SQL, ready to run. Without SQL nothing of DataFusion is touched.
pub struct Program {
    output: SchemaRef,
    mode: TransformMode,
    compiled: Option<Compiled>,
}

struct Compiled {
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    feed: Arc<Feed>,
    /// Whether the plan reads `input` more than once, so that it has to be held.
    shared: bool,
    /// Runs after which the plan is made new.
    keep: u32,
    runs: u32,
    /// Rows dropped in the runs since the plan was made new.
    dropped: u64,
    /// What may fail on a value, for messages.
    casts: Casts,
    /// Names.
    lookups: Vec<String>,
}

/// What a run did with its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTotals {
    /// Rows taken from `pull`.
    pub taken: u64,
    /// Rows that a filter or an unmatched look-up dropped, counted there. In a whole program: those
    /// dropped before rows are brought together.
    pub filtered: u64,
}

/// Why a run failed.
#[derive(Debug)]
pub enum RunError {
    /// The SQL cannot be evaluated on a value of the rows that it was given.
    OnValue(TaskError),
    /// Anything else: reading, writing, memory.
    Other(TaskError),
}

impl From<TaskError> for RunError {
    fn from(error: TaskError) -> RunError {
        RunError::Other(error)
    }
}

impl From<RunError> for TaskError {
    fn from(error: RunError) -> TaskError {
        match error {
            RunError::OnValue(error) | RunError::Other(error) => error,
        }
    }
}

/// An error of the running plan, which `record` alone was given to, if there was only one.
fn running(error: &DataFusionError, casts: &Casts, record: Option<&RecordBatch>, folder: &Path) -> RunError {
    let place = casts.place(error, record);
    let mut error = errors::running(error, folder);
    if let Some(place) = place {
        error.message = format!("{} ({place})", error.message);
    }
    match error.class {
        ErrorClass::Data => RunError::OnValue(error),
        _ => RunError::Other(error),
    }
}

/// A value on which the SQL failed before it had any record, so that it is one of a look-up, and no record is to blame.
fn without_record(failed: RunError, lookups: &[String]) -> RunError {
    let RunError::OnValue(error) = failed else {
        return failed;
    };
    RunError::Other(TaskError::new(
        ErrorClass::Config,
        format!(
            "{}; no record was read yet, so it is a value of a look-up (there is «{}»): mend it there, declare the type of \
             its column, or convert it with try_cast",
            error.message,
            lookups.join("», «")
        ),
    ))
}

impl Program {
    /// Compiles `sql` over `input` (all columns of the source) for one slot. `now_micros` is the
    /// run's time.
    ///
    /// Errors: `Config` when the SQL does not fit, `Resource` when the slot cannot be set up.
    pub fn compile(
        slot: &mut Slot,
        sql: Option<&str>,
        input: SchemaRef,
        lookups: Vec<LookupTable>,
        now_micros: i64,
    ) -> Result<Program, TaskError> {
        with_room(|| Program::compile_here(slot, sql, input, lookups, now_micros))
    }

    fn compile_here(
        slot: &mut Slot,
        sql: Option<&str>,
        input: SchemaRef,
        lookups: Vec<LookupTable>,
        now_micros: i64,
    ) -> Result<Program, TaskError> {
        let Some(sql) = sql else {
            return Ok(Program {
                output: input,
                mode: TransformMode::RowWise { expands: false },
                compiled: None,
            });
        };
        let resources = slot.resources()?;
        let state = session::open(now_micros, Some(resources.environment.clone()))?;
        let feed = Arc::new(Feed::default());
        session::register(&state, INPUT, Arc::new(InputTable::new(input.clone(), feed.clone())))?;
        let names_of_lookups = lookups.iter().map(|lookup| lookup.name.clone()).collect();
        for lookup in lookups {
            let place = format!("look-up «{}»", lookup.name);
            let table = MemTable::try_new(lookup.schema, vec![lookup.batches])
                .map_err(|error| errors::planning(&place, &error))?;
            session::register(&state, &lookup.name, Arc::new(table))?;
        }
        let planning = |error| errors::planning("the SQL", &error);
        let query = plan_query(&state, sql)?;
        let names: Vec<String> = input.fields().iter().map(|field| field.name().clone()).collect();
        let mode = classify::classify(&query.optimized, &names).map_err(planning)?.mode;
        let casts = Casts::of(&query.optimized).map_err(planning)?;
        let shared = classify::input_scans(&query.optimized).map_err(planning)? > 1;
        let plan = resources
            .runtime
            .block_on(state.query_planner().create_physical_plan(&query.optimized, &state))
            .map_err(planning)?;
        // One stream to drive, whatever the planner made of a union.
        let plan: Arc<dyn ExecutionPlan> = if plan.properties().output_partitioning().partition_count() > 1 {
            Arc::new(CoalescePartitionsExec::new(plan))
        } else {
            plan
        };
        let keep = if holds_no_input(&plan) { RUNS_BEFORE_RESET } else { 1 };
        Ok(Program {
            output: plan.schema(),
            mode,
            compiled: Some(Compiled {
                plan,
                keep,
                context: state.task_ctx(),
                feed,
                shared,
                runs: 0,
                dropped: 0,
                casts,
                lookups: names_of_lookups,
            }),
        })
    }

    /// The columns of the batches that runs give out.
    pub fn output(&self) -> &SchemaRef {
        &self.output
    }

    pub fn mode(&self) -> &TransformMode {
        &self.mode
    }

    /// The operators, one a line, as the engine shows them; empty without SQL.
    pub fn explain(&self) -> String {
        let plan = self.compiled.as_ref().map(|compiled| compiled.plan.as_ref());
        plan.map_or(String::new(), |plan| displayable(plan).indent(false).to_string())
    }

    /// Whether records may be run through in chunks.
    pub fn is_row_wise(&self) -> bool {
        matches!(self.mode, TransformMode::RowWise { .. })
    }

    /// Runs over the batches that `pull` gives until it gives `None`, and hands each output batch to
    /// `push`. All of the input is pulled, also where the SQL needs only some of it. Batches carry
    /// at least the columns that the SQL reads, by name. Blocks the calling thread, which must not
    /// be one of an async runtime; `pull` and `push` are called on it.
    ///
    /// Errors: those of `pull` and `push` as they are; [`RunError::OnValue`] where the SQL fails on a value,
    /// `Resource` where the slot's memory or spill folder is full. The program can be run again.
    pub fn run(
        &mut self,
        slot: &mut Slot,
        pull: &mut dyn FnMut() -> Result<Option<RecordBatch>, TaskError>,
        push: &mut dyn FnMut(RecordBatch) -> Result<(), TaskError>,
    ) -> Result<RunTotals, RunError> {
        let Some(compiled) = &mut self.compiled else {
            let mut taken = 0;
            while let Some(batch) = pull()? {
                taken += batch.num_rows() as u64;
                push(batch)?;
            }
            return Ok(RunTotals { taken, filtered: 0 });
        };
        let row_wise = matches!(self.mode, TransformMode::RowWise { .. });
        compiled.prepare(&slot.limits().spill_folder)?;
        let result = with_room(|| compiled.run(slot, pull, push));
        if result.is_err() {
            // Whatever state the plan was left in is not used again.
            compiled.runs = compiled.keep;
        }
        let (fed, drained) = result?;
        let dropped = dropped(&compiled.plan).rows;
        let filtered = dropped - compiled.dropped;
        compiled.dropped = dropped;
        Ok(RunTotals {
            taken: fed + drained,
            // A row-wise plan that ends early wants none of the rest: a filter that is never true,
            // an inner join with an empty look-up.
            filtered: filtered + if row_wise { drained } else { 0 },
        })
    }
}

impl Compiled {
    fn prepare(&mut self, folder: &Path) -> Result<(), TaskError> {
        if self.runs >= self.keep {
            self.plan = reset_plan_states(self.plan.clone()).map_err(|error| errors::running(&error, folder))?;
            self.runs = 0;
            self.dropped = 0;
        }
        self.runs += 1;
        Ok(())
    }

    /// Rows that the plan was fed, and rows that were pulled after it had ended.
    fn run(
        &mut self,
        slot: &mut Slot,
        pull: &mut dyn FnMut() -> Result<Option<RecordBatch>, TaskError>,
        push: &mut dyn FnMut(RecordBatch) -> Result<(), TaskError>,
    ) -> Result<(u64, u64), RunError> {
        self.feed.reset();
        let folder = slot.limits().spill_folder.clone();
        let resources = slot.resources()?;
        // Held until the run is over.
        let held = MemoryConsumer::new(INPUT).register(&resources.environment.memory_pool);
        let mut fed = 0;
        let mut ended = false;
        if self.shared {
            let mut batches = Vec::new();
            while let Some(batch) = pull()? {
                held.try_grow(get_record_batch_memory_size(&batch))
                    .map_err(|error| errors::running(&error, &folder))?;
                fed += batch.num_rows() as u64;
                batches.push(batch);
            }
            ended = true;
            self.feed.share(batches);
        }
        let (feed, casts) = (&self.feed, &self.casts);
        let (plan, context) = (&self.plan, &self.context);
        let mut record = None;
        resources.runtime.block_on(async {
            let mut stream = plan
                .execute(0, context.clone())
                .map_err(|error| running(&error, casts, None, &folder))?;
            std::future::poll_fn(|task| {
                loop {
                    match stream.poll_next_unpin(task) {
                        Poll::Ready(Some(Ok(batch))) => push(batch)?,
                        Poll::Ready(Some(Err(error))) => {
                            let failed = running(&error, casts, record.as_ref(), &folder);
                            return Poll::Ready(Err(match fed {
                                0 if !self.lookups.is_empty() => without_record(failed, &self.lookups),
                                _ => failed,
                            }));
                        }
                        Poll::Ready(None) => return Poll::Ready(Ok(())),
                        Poll::Pending if feed.is_hungry(task.waker()) => {
                            let batch = pull()?;
                            fed += batch.as_ref().map_or(0, |batch| batch.num_rows() as u64);
                            ended = batch.is_none();
                            if let Some(batch) = &batch {
                                record = (fed == 1).then(|| batch.clone());
                            }
                            feed.give(batch);
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                }
            })
            .await
        })?;
        let mut drained = 0;
        while !ended {
            match pull()? {
                Some(batch) => drained += batch.num_rows() as u64,
                None => ended = true,
            }
        }
        Ok((fed, drained))
    }
}

/// Operators that hand each batch of their input on and remember nothing of it.
fn is_passing(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<FilterExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<UnnestExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<ScalarSubqueryExec>()
}

/// Whether a plan can be run again as it is: what it remembers from a run is of look-ups alone. A
/// join remembers the side that it builds its table from, which is the first.
fn holds_no_input(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if plan.is::<InputExec>() {
        return true;
    }
    let children = plan.children();
    let of_input: Vec<usize> = (0..children.len())
        .filter(|&child| reads_input(children[child]))
        .collect();
    match of_input.as_slice() {
        [] => true,
        [child] => {
            let probes = *child == 1
                && plan.downcast_ref::<HashJoinExec>().is_some_and(|join| {
                    matches!(
                        join.join_type(),
                        JoinType::Inner
                            | JoinType::Right
                            | JoinType::RightSemi
                            | JoinType::RightAnti
                            | JoinType::RightMark
                    )
                });
            (probes || is_passing(plan.as_ref())) && holds_no_input(children[*child])
        }
        _ => false,
    }
}

fn reads_input(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<InputExec>() || plan.children().into_iter().any(reads_input)
}

/// What is dropped on the way from `input` up to a node of an executed plan.
#[derive(Clone, Copy, Default)]
struct Dropped {
    rows: u64,
    /// Whether the node's rows come from `input`.
    of_input: bool,
    /// Whether they still correspond to rows of the input.
    row_wise: bool,
}

fn dropped(plan: &Arc<dyn ExecutionPlan>) -> Dropped {
    if plan.is::<InputExec>() {
        return Dropped {
            rows: 0,
            of_input: true,
            row_wise: true,
        };
    }
    let children = plan.children();
    let below: Vec<(usize, Dropped)> = children
        .iter()
        .map(|child| dropped(child))
        .enumerate()
        .filter(|(_, below)| below.of_input)
        .collect();
    let (side, mut here) = match below.as_slice() {
        [] => return Dropped::default(),
        [one] => *one,
        several => {
            return Dropped {
                rows: several.iter().map(|(_, below)| below.rows).sum(),
                of_input: true,
                row_wise: false,
            };
        }
    };
    if !here.row_wise {
        return here;
    }
    if plan.is::<FilterExec>() {
        here.rows += filtered_out(plan.as_ref());
    } else if let Some(join) = join_type(plan.as_ref()) {
        here.rows += unmatched(plan.as_ref(), join, side == 0);
    } else {
        here.row_wise = is_passing(plan.as_ref());
    }
    here
}

/// Rows that a filter took and did not give on, by its own count.
fn filtered_out(filter: &dyn ExecutionPlan) -> u64 {
    let Some(metrics) = filter.metrics() else { return 0 };
    metrics
        .iter()
        .filter_map(|metric| match metric.value() {
            MetricValue::Ratio { name, ratio_metrics } if name == "selectivity" => {
                Some(ratio_metrics.total().saturating_sub(ratio_metrics.part()) as u64)
            }
            _ => None,
        })
        .sum()
}

fn join_type(plan: &dyn ExecutionPlan) -> Option<JoinType> {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return Some(*join.join_type());
    }
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        return Some(*join.join_type());
    }
    if let Some(join) = plan.downcast_ref::<SortMergeJoinExec>() {
        return Some(join.join_type());
    }
    plan.is::<CrossJoinExec>().then_some(JoinType::Inner)
}

/// Rows of the input that found no match in a join that drops those, by the join's own count. With
/// a look-up that matches a row more than once the count is a lower bound.
fn unmatched(join: &dyn ExecutionPlan, ty: JoinType, input_builds: bool) -> u64 {
    if !matches!(
        ty,
        JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi | JoinType::LeftAnti | JoinType::RightAnti
    ) {
        return 0;
    }
    let Some(metrics) = join.metrics() else { return 0 };
    let count = |name: &str| metrics.sum_by_name(name).map_or(0, |value| value.as_usize());
    let taken = if input_builds {
        count("build_input_rows")
    } else {
        count("input_rows")
    };
    taken.saturating_sub(metrics.output_rows().unwrap_or(0)) as u64
}

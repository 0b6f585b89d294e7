//! The table `input`: a scan that is fed batch by batch from outside the plan.
//!
//! The source is read on the thread that runs the plan, between two polls: a scan that finds its
//! feed empty asks for more and waits, and the driver (in [`super::program`]) reads the next batch.
//! So nothing of the source needs to be `'static` and no thread or channel stands between.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::SchemaRef,
};
use datafusion::{
    catalog::{Session, TableProvider},
    common::{DataFusionError, Result, Statistics, stats::Precision, tree_node::TreeNodeRecursion},
    execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableType},
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
        execution_plan::{Boundedness, EmissionType, SchedulingType},
        statistics::StatisticsArgs,
    },
};
use futures::Stream;

/// What planning is told about the size of `input`: more than any look-up, so that joins build
/// their tables from the look-up and stream the input.
const PLANNED_ROWS: usize = 1 << 40;

/// Hands batches from the driver to the scans of one plan.
#[derive(Default)]
pub struct Feed {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Batches that are held for all scans (a plan that reads `input` several times), or the one
    /// that is next.
    batches: Vec<RecordBatch>,
    /// Whether scans share `batches` from the first one on, each at its own pace.
    shared: bool,
    ended: bool,
    hungry: bool,
    scan: Option<Waker>,
    driver: Option<Waker>,
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves plain data here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a run: nothing fed, nothing ended.
    pub fn reset(&self) {
        *self.lock() = State::default();
    }

    /// Before a run of a plan that reads `input` more than once: everything at once.
    pub fn share(&self, batches: Vec<RecordBatch>) {
        *self.lock() = State {
            batches,
            shared: true,
            ended: true,
            ..State::default()
        };
    }

    /// Whether a scan waits for a batch. `driver` is woken when one begins to.
    pub fn is_hungry(&self, driver: &Waker) -> bool {
        let mut state = self.lock();
        if !state.hungry {
            match &mut state.driver {
                Some(known) if known.will_wake(driver) => {}
                known => *known = Some(driver.clone()),
            }
        }
        state.hungry
    }

    /// The next batch, or the end, for the scan that waits.
    pub fn give(&self, batch: Option<RecordBatch>) {
        let mut state = self.lock();
        state.hungry = false;
        match batch {
            Some(batch) => state.batches.push(batch),
            None => state.ended = true,
        }
        if let Some(scan) = state.scan.take() {
            scan.wake();
        }
    }

    fn poll_take(&self, at: usize, context: &mut Context<'_>) -> Poll<Option<RecordBatch>> {
        let mut state = self.lock();
        let batch = if state.shared {
            state.batches.get(at).cloned()
        } else {
            state.batches.pop()
        };
        if let Some(batch) = batch {
            return Poll::Ready(Some(batch));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.hungry = true;
        state.scan = Some(context.waker().clone());
        if let Some(driver) = state.driver.take() {
            driver.wake();
        }
        Poll::Pending
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed")
    }
}

/// The table that SQL names `input`.
#[derive(Debug)]
pub struct InputTable {
    schema: SchemaRef,
    feed: Arc<Feed>,
}

impl InputTable {
    pub fn new(schema: SchemaRef, feed: Arc<Feed>) -> Self {
        Self { schema, feed }
    }
}

impl TableProvider for InputTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    // `async fn scan`, written out: the trait is made by a macro that nothing else here needs.
    fn scan<'a, 'b, 'c, 'd, 'future>(
        &'a self,
        _state: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        _filters: &'d [Expr],
        _limit: Option<usize>,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<dyn ExecutionPlan>>> + Send + 'future>>
    where
        'a: 'future,
        'b: 'future,
        'c: 'future,
        'd: 'future,
        Self: 'future,
    {
        let schema = match projection {
            Some(columns) => self.schema.project(columns).map(Arc::new),
            None => Ok(self.schema.clone()),
        };
        let plan = schema
            .map(|schema| Arc::new(InputExec::new(schema, self.feed.clone())) as Arc<dyn ExecutionPlan>)
            .map_err(DataFusionError::from);
        Box::pin(std::future::ready(plan))
    }
}

/// A scan of `input`, in the columns that the plan reads.
#[derive(Debug)]
pub struct InputExec {
    schema: SchemaRef,
    feed: Arc<Feed>,
    properties: Arc<PlanProperties>,
}

impl InputExec {
    fn new(schema: SchemaRef, feed: Arc<Feed>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Self {
            schema,
            feed,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for InputExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InputExec")
    }
}

impl ExecutionPlan for InputExec {
    fn name(&self) -> &str {
        "InputExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Ok(Box::pin(InputStream {
            schema: self.schema.clone(),
            feed: self.feed.clone(),
            at: 0,
            columns: None,
        }))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = Precision::Inexact(PLANNED_ROWS);
        statistics.total_byte_size = Precision::Inexact(PLANNED_ROWS * 64);
        Ok(Arc::new(statistics))
    }
}

struct InputStream {
    schema: SchemaRef,
    feed: Arc<Feed>,
    at: usize,
    /// The columns of a fed batch that this scan wants, found at the first batch. Batches may carry
    /// more columns than the scan reads (those of the checks), never fewer.
    columns: Option<Vec<usize>>,
}

impl InputStream {
    fn project(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        if self.columns.is_none() {
            let from = batch.schema();
            let columns: Result<Vec<usize>, _> = self
                .schema
                .fields()
                .iter()
                .map(|field| from.index_of(field.name()))
                .collect();
            self.columns = Some(columns?);
        }
        let wanted = self.columns.as_deref().unwrap_or_default();
        let columns = wanted.iter().map(|&column| batch.column(column).clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(
            self.schema.clone(),
            columns,
            &options,
        )?)
    }
}

impl Stream for InputStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let taken = self.feed.poll_take(self.at, context);
        self.at += 1;
        match taken {
            Poll::Ready(Some(batch)) => Poll::Ready(Some(self.project(batch))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                self.at -= 1;
                Poll::Pending
            }
        }
    }
}

impl RecordBatchStream for InputStream {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

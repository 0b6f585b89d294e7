//! Sessions with DataFusion: the settings that every plan is made with, and the resources of a slot.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use chrono::{DateTime, Utc};
use datafusion::{
    catalog::{MemoryCatalogProviderList, TableProvider},
    common::{TableReference, config::Dialect},
    execution::{
        SessionState, SessionStateBuilder,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::FairSpillPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    logical_expr::{AggregateUDF, execution_props::ExecutionProps, registry::FunctionRegistry},
    prelude::SessionConfig,
};
use gapless_common::error::{ErrorClass, TaskError};

use super::{INPUT, errors, overflow::CheckArithmetic, sum::CheckedSum};

/// Rows of a batch inside the engine. Grouping measures alike with 4, 8 and 16 Ki.
pub const BATCH_ROWS: usize = 8192;

/// Bounds on what the runs of one slot may hold at a time.
#[derive(Clone, Debug)]
pub struct SlotLimits {
    /// Bytes of memory for hash tables, sorts and look-ups; what needs more spills or fails.
    pub memory: usize,
    /// Bytes of spilled data in `spill_folder`.
    pub spill: u64,
    /// Folder for spilled data; made when it is first needed.
    pub spill_folder: PathBuf,
}

impl SlotLimits {
    /// A slot is one core; machines come with 2 to 8 GiB for each, half of it left to readers,
    /// writers and the page cache.
    pub const MEMORY: usize = 1 << 30;
    /// A hundred times the memory: a partition larger than that wants to be cut further.
    pub const SPILL: u64 = 100 << 30;

    pub fn new(spill_folder: PathBuf) -> Self {
        Self {
            memory: Self::MEMORY,
            spill: Self::SPILL,
            spill_folder,
        }
    }
}

/// The dialect that a text is read in: the engine's own, but where it may hold lambdas (`x -> x > 0`), which
/// that one reads as something else that the engine has not.
pub(super) fn dialect(state: &SessionState, sql: &str) -> Dialect {
    match sql.contains("->") {
        true => Dialect::DuckDB,
        false => state.config().options().sql_parser.dialect,
    }
}

/// What the runs of one slot share. Nothing of it exists before a program needs it, so a step
/// without SQL pays nothing.
pub struct Slot {
    limits: SlotLimits,
    resources: Option<Resources>,
}

pub(super) struct Resources {
    pub runtime: tokio::runtime::Runtime,
    pub environment: Arc<RuntimeEnv>,
}

impl Slot {
    pub fn new(limits: SlotLimits) -> Self {
        Self {
            limits,
            resources: None,
        }
    }

    pub fn limits(&self) -> &SlotLimits {
        &self.limits
    }

    pub(super) fn resources(&mut self) -> Result<&Resources, TaskError> {
        if self.resources.is_none() {
            self.resources = Some(self.open()?);
        }
        Ok(self.resources.as_ref().expect("opened above"))
    }

    fn open(&self) -> Result<Resources, TaskError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|error| TaskError::new(ErrorClass::Resource, format!("no runtime for the engine: {error}")))?;
        // Made here, where another slot's making it at the same time is no error.
        std::fs::create_dir_all(&self.limits.spill_folder).map_err(|error| {
            let folder = self.limits.spill_folder.display();
            TaskError::new(ErrorClass::Resource, format!("no spill folder {folder}: {error}"))
        })?;
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![self.limits.spill_folder.clone()]))
            .with_max_temp_directory_size(self.limits.spill);
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(self.limits.memory)))
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(|error| {
                TaskError::new(ErrorClass::Resource, format!("no memory pool or spill folder: {error}"))
            })?;
        Ok(Resources { runtime, environment })
    }
}

/// Functions, rules and settings, built once for the process: registering them takes longer than
/// planning does.
static BASE: LazyLock<SessionState> = LazyLock::new(|| {
    let mut state = SessionStateBuilder::new()
        .with_config(config())
        .with_default_features()
        .build();
    let sum = Arc::new(AggregateUDF::from(CheckedSum::default()));
    // It does not fail; were it to, nothing could be planned.
    state.register_udaf(sum).expect("a function of the engine is replaced");
    state.add_analyzer_rule(Arc::new(CheckArithmetic));
    state
});

fn config() -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(1)
        .with_batch_size(BATCH_ROWS)
        .with_information_schema(false)
        .with_create_default_catalog_and_schema(true);
    let options = config.options_mut();
    options.execution.planning_concurrency = 1;
    // Names keep their case.
    options.sql_parser.enable_ident_normalization = false;
    // 0.05 is exact, as in standard SQL.
    options.sql_parser.parse_float_as_decimal = true;
    // CAST(x AS VARCHAR) gives what a text column of a source is.
    options.sql_parser.map_string_types_to_utf8view = false;
    // One partition for each plan; the parallelism is over partitions of the step.
    options.optimizer.enable_round_robin_repartition = false;
    options.optimizer.repartition_aggregations = false;
    options.optimizer.repartition_joins = false;
    options.optimizer.repartition_sorts = false;
    options.optimizer.repartition_windows = false;
    // They prune file scans, which never happen in here, and are state that a second run would see.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    config
}

/// A session of its own, with tables of its own, at the run's time. (A `SessionContext` would set
/// the time to that of each call.)
pub(super) fn open(now_micros: i64, environment: Option<Arc<RuntimeEnv>>) -> Result<SessionState, TaskError> {
    let now = run_time(now_micros)?;
    let mut builder = SessionStateBuilder::new_from_existing(BASE.clone())
        .with_config(BASE.config().clone())
        // The base has a catalog of its own; tables of two steps must not meet in it.
        .with_catalog_list(Arc::new(MemoryCatalogProviderList::new()))
        .with_execution_props(ExecutionProps::new().with_query_execution_start_time(now));
    if let Some(environment) = environment {
        builder = builder.with_runtime_env(environment);
    }
    Ok(builder.build())
}

/// Adds a table. Errors: `Config` when there is one of that name.
pub(super) fn register(state: &SessionState, name: &str, table: Arc<dyn TableProvider>) -> Result<(), TaskError> {
    let place = format!("table «{name}»");
    let planning = |error| errors::planning(&place, &error);
    let schema = state.schema_for_ref(TableReference::bare(name)).map_err(planning)?;
    if schema.table_exist(name) {
        return Err(TaskError::new(
            ErrorClass::Config,
            format!("two tables are named «{name}»: `{INPUT}` is the records, look-ups need names of their own"),
        ));
    }
    schema
        .register_table(name.to_string(), table)
        .map(drop)
        .map_err(planning)
}

fn run_time(now_micros: i64) -> Result<DateTime<Utc>, TaskError> {
    DateTime::from_timestamp_micros(now_micros).ok_or_else(|| {
        TaskError::new(
            ErrorClass::Config,
            format!("the run's time, {now_micros} microseconds since 1970, is out of range"),
        )
    })
}

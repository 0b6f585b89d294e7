//! What a step's SQL and checks are, told from their text and the columns they read: no data.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::{
    datasource::empty::EmptyTable,
    execution::SessionState,
    logical_expr::LogicalPlan,
    sql::{
        parser::Statement,
        sqlparser::{
            ast,
            dialect::GenericDialect,
            keywords::Keyword,
            tokenizer::{Token, Tokenizer},
        },
    },
};
use futures::FutureExt;
use gapless_common::{
    error::{ErrorClass, TaskError},
    job::Check,
    plan::{TransformFacts, TransformMode},
};

use super::{
    Checks, INPUT, classify,
    errors::{self, Cause, PlanFault},
    ignored,
    room::{check_chains, with_room},
    session,
};

/// What [`analyse`] found.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// The columns that the step gives to its sink.
    pub output: SchemaRef,
    pub transform: TransformFacts,
    /// The input columns that the SQL and the checks read, in the order of the input. A source need
    /// not make the others.
    pub columns: Vec<String>,
    /// For each column of the output, the input column whose values it carries.
    pub carries: Vec<Option<String>>,
    /// The look-ups that the SQL does not read.
    pub unused: Vec<String>,
}

impl Analysis {
    /// The input column whose values a column of the output carries as they are.
    pub fn carried(&self, output: &str) -> Option<&str> {
        let (index, _) = self.output.fields().find(output)?;
        self.carries.get(index)?.as_deref()
    }
}

/// Plans `sql` over a table `input` and `lookups`, and checks the rules.
///
/// `now_micros` is the run's time in microseconds since the epoch, the value of `now()`.
///
/// Errors: `Config`, naming what is unknown or not allowed and what is near it.
pub fn analyse(
    sql: Option<&str>,
    input: SchemaRef,
    lookups: &[(String, SchemaRef)],
    checks: &[Check],
    now_micros: i64,
) -> Result<Analysis, TaskError> {
    examine(sql, input, lookups, checks, now_micros).map_err(TaskError::from)
}

/// As [`analyse`], with the cause of an error.
pub fn examine(
    sql: Option<&str>,
    input: SchemaRef,
    lookups: &[(String, SchemaRef)],
    checks: &[Check],
    now_micros: i64,
) -> Result<Analysis, PlanFault> {
    with_room(|| examine_here(sql, input, lookups, checks, now_micros))
}

fn examine_here(
    sql: Option<&str>,
    input: SchemaRef,
    lookups: &[(String, SchemaRef)],
    checks: &[Check],
    now_micros: i64,
) -> Result<Analysis, PlanFault> {
    let all = || {
        input
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect::<Vec<_>>()
    };
    let rules = Checks::examine(checks, &input, now_micros)?;
    let Some(sql) = sql else {
        return Ok(Analysis {
            output: input.clone(),
            transform: TransformFacts {
                mode: TransformMode::RowWise { expands: false },
                reason: "without SQL each record goes on as it is".to_string(),
            },
            columns: all(),
            carries: all().into_iter().map(Some).collect(),
            unused: lookups.iter().map(|(name, _)| name.clone()).collect(),
        });
    };
    let state = session::open(now_micros, None)?;
    session::register(&state, INPUT, Arc::new(EmptyTable::new(input.clone())))?;
    for (name, schema) in lookups {
        session::register(&state, name, Arc::new(EmptyTable::new(schema.clone())))?;
    }
    let plan = plan_query(&state, sql)?;
    let planning = |error| errors::fault("the SQL", &error);
    let transform = classify::classify(&plan.optimized, &all()).map_err(planning)?;
    let carries = classify::carried(&plan.optimized, &all()).map_err(planning)?;
    let mut read = columns_read(&plan.optimized).map_err(planning)?;
    read.extend(rules.columns());
    Ok(Analysis {
        output: plan.output,
        transform,
        carries,
        unused: lookups
            .iter()
            .filter(|(name, _)| !plan.tables.contains(name))
            .map(|(name, _)| name.clone())
            .collect(),
        columns: all()
            .into_iter()
            .enumerate()
            .filter(|(index, _)| read.contains(index))
            .map(|(_, name)| name)
            .collect(),
    })
}

/// A query, planned and optimized.
pub(super) struct Query {
    pub optimized: LogicalPlan,
    pub output: SchemaRef,
    /// The tables that it names, whether or not anything of them is needed.
    pub tables: BTreeSet<String>,
}

/// Parses one query and plans it. Anything that is not a query is refused.
pub(super) fn plan_query(state: &SessionState, sql: &str) -> Result<Query, PlanFault> {
    let planning = |error| errors::fault("the SQL", &error);
    let statement = parse_query(state, sql)?;
    let plan = ready(state.statement_to_plan(statement), "the SQL")?.map_err(planning)?;
    let output = output_schema(&plan)?;
    let tables = tables(&plan).map_err(planning)?;
    let optimized = state.optimize(&plan).map_err(planning)?;
    Ok(Query {
        optimized,
        output,
        tables,
    })
}

fn tables(plan: &LogicalPlan) -> datafusion::common::Result<BTreeSet<String>> {
    let mut tables = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            tables.insert(scan.table_name.table().to_string());
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    Ok(tables)
}

fn parse_query(state: &SessionState, sql: &str) -> Result<Statement, PlanFault> {
    check_chains(sql).map_err(|what| PlanFault {
        message: format!("the SQL: {what}"),
        cause: Cause::Other,
    })?;
    let dialect = session::dialect(state, sql);
    let statement = state
        .sql_to_statement(sql, &dialect)
        .map_err(|error| errors::fault("the SQL", &error))?;
    let is_query =
        matches!(&statement, Statement::Statement(inner) if matches!(inner.as_ref(), ast::Statement::Query(_)));
    if let Some(words) = ignored::find(&statement) {
        return Err(PlanFault {
            message: format!("the SQL: {words}"),
            cause: Cause::Syntax,
        });
    }
    match is_query {
        true => Ok(statement),
        false => Err(PlanFault {
            message: format!("the SQL: a step's SQL is one query (SELECT … FROM {INPUT}), not another statement"),
            cause: Cause::Syntax,
        }),
    }
}

/// Reads `sql` as a query, where nothing is known of its tables.
pub fn check_syntax(sql: &str) -> Result<(), PlanFault> {
    let state = session::open(0, None)?;
    with_room(|| parse_query(&state, sql).map(drop))
}

/// Whether a query asks for all columns of something (`SELECT *`, `input.*`): then what it gives depends on
/// columns that it does not name.
pub fn takes_all_columns(sql: &str) -> bool {
    let Ok(tokens) = Tokenizer::new(&GenericDialect, sql).tokenize() else {
        return true;
    };
    let mut before: Option<&Token> = None;
    for token in tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))) {
        let opens = match before {
            Some(Token::Comma | Token::Period) => true,
            Some(Token::Word(word)) => matches!(word.keyword, Keyword::SELECT | Keyword::DISTINCT | Keyword::ALL),
            _ => false,
        };
        if *token == Token::Mul && opens {
            return true;
        }
        before = Some(token);
    }
    false
}

/// Planning over tables in memory never waits.
pub(super) fn ready<T>(future: impl Future<Output = T>, place: &str) -> Result<T, TaskError> {
    future.now_or_never().ok_or_else(|| {
        TaskError::new(
            ErrorClass::Config,
            format!("{place}: planning would have to wait for something"),
        )
    })
}

fn output_schema(plan: &LogicalPlan) -> Result<SchemaRef, PlanFault> {
    let schema: &Schema = plan.schema().as_arrow();
    let mut names = HashSet::new();
    for field in schema.fields() {
        if !names.insert(field.name()) {
            return Err(PlanFault {
                message: format!("the SQL: {}", errors::duplicate(field.name())),
                cause: Cause::Other,
            });
        }
    }
    Ok(Arc::new(schema.clone()))
}

fn columns_read(plan: &LogicalPlan) -> datafusion::common::Result<BTreeSet<usize>> {
    let mut read = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.table() == INPUT
        {
            match &scan.projection {
                Some(columns) => read.extend(columns.iter().copied()),
                None => read.extend(0..scan.source.schema().fields().len()),
            }
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    Ok(read)
}

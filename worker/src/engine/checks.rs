//! Checks: rules that must be true of a record. A rule that is false or NULL of a record rejects
//! it, and so does one that cannot be evaluated (a division by zero): that record alone.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
    datatypes::{DataType, SchemaRef},
};
use datafusion::{
    common::{DFSchema, DataFusionError, tree_node::TreeNode},
    logical_expr::{Expr, simplify::SimplifyContext},
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{PhysicalExpr, utils::collect_columns},
};
use gapless_common::{
    error::{ErrorClass, TaskError},
    job::Check,
};

use super::{
    errors::{self, Cause, PlanFault},
    overflow::check_arithmetic,
    room::{check_chains, with_room},
    session,
};
use crate::type_names::{type_name, with_type_names};

/// The rules of a step, compiled over the columns of its input.
pub struct Checks {
    rules: Vec<Rule>,
}

struct Rule {
    name: String,
    text: String,
    that: Arc<dyn PhysicalExpr>,
}

/// What the rules say of a batch.
pub enum Verdict {
    /// Every record is right: the batch goes on as it is.
    Right,
    /// Some are not.
    Broken {
        /// True for the records that go on.
        keep: BooleanArray,
        /// The others, in row order.
        broken: Vec<Broken>,
    },
}

/// A record that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub row: usize,
    /// The first rule that it breaks, in the order of the job file.
    pub rule: String,
    pub reason: String,
    /// Whether the rule could not be evaluated, so that it says neither yes nor no.
    pub undecided: bool,
}

/// Whether an expression is about more than one record.
fn is_of_many(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::AggregateFunction(_)
            | Expr::WindowFunction(_)
            | Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::SetComparison(_)
            | Expr::ScalarSubquery(_)
    )
}

impl Checks {
    /// No rule at all.
    pub const fn none() -> Checks {
        Checks { rules: Vec::new() }
    }

    /// Errors: `Config` when a rule does not fit the columns or is not true-or-false.
    pub fn compile(checks: &[Check], input: &SchemaRef, now_micros: i64) -> Result<Checks, TaskError> {
        Checks::examine(checks, input, now_micros).map_err(TaskError::from)
    }

    /// As [`Checks::compile`], with the cause of an error.
    pub fn examine(checks: &[Check], input: &SchemaRef, now_micros: i64) -> Result<Checks, PlanFault> {
        match checks.is_empty() {
            true => Ok(Checks::none()),
            false => with_room(|| Checks::examine_here(checks, input, now_micros)),
        }
    }

    fn examine_here(checks: &[Check], input: &SchemaRef, now_micros: i64) -> Result<Checks, PlanFault> {
        let state = session::open(now_micros, None)?;
        let schema = DFSchema::try_from(input.as_ref().clone())
            .map_err(|error| errors::fault("the columns of the source", &error))?;
        let rules = checks
            .iter()
            .map(|check| {
                let place = format!("check «{}»", check.name);
                let planning = |error: DataFusionError| errors::fault(&place, &error);
                check_chains(&check.that).map_err(|what| PlanFault {
                    message: format!("{place}: {what}"),
                    cause: Cause::Other,
                })?;
                let expr = state
                    .sql_to_expr_with_alias(&check.that, &session::dialect(&state, &check.that))
                    .and_then(|expr| state.create_logical_expr_from_sql_expr(expr, &schema))
                    .map_err(planning)?;
                if expr.exists(|part| Ok(is_of_many(part))).map_err(planning)? {
                    return Err(PlanFault {
                        message: format!(
                            "{place}: a rule is asked of each record by itself, so it has no aggregate (such as sum), no \
                             window and no subquery"
                        ),
                        cause: Cause::Other,
                    });
                }
                if expr.is_volatile() {
                    return Err(PlanFault {
                        message: format!("{place}: a rule must give the same answer each time it is asked"),
                        cause: Cause::Other,
                    });
                }
                // Simplifying makes now() the run's time and folds constants.
                let simplifier = ExprSimplifier::new(
                    SimplifyContext::builder()
                        .with_schema(Arc::new(schema.clone()))
                        .with_config_options(state.config_options().clone())
                        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
                        .build(),
                );
                let expr = simplifier.coerce(expr, &schema).map_err(planning)?;
                let expr = check_arithmetic(expr, &schema).map_err(planning)?.data;
                let expr = simplifier.simplify(expr).map_err(planning)?;
                let that = state.create_physical_expr(expr, &schema).map_err(planning)?;
                let ty = that.data_type(input).map_err(planning)?;
                if ty != DataType::Boolean {
                    return Err(PlanFault {
                        message: format!("{place}: «{}» is {}, not true or false", check.that, type_name(&ty)),
                        cause: Cause::Other,
                    });
                }
                Ok(Rule {
                    name: check.name.clone(),
                    text: check.that.clone(),
                    that,
                })
            })
            .collect::<Result<_, PlanFault>>()?;
        Ok(Checks { rules })
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Indices of the input columns that the rules read.
    pub fn columns(&self) -> impl Iterator<Item = usize> + '_ {
        self.rules
            .iter()
            .flat_map(|rule| collect_columns(&rule.that).into_iter().map(|column| column.index()))
    }

    /// Asks every rule of every record. The batch has the columns that the rules were compiled for.
    pub fn judge(&self, batch: &RecordBatch) -> Result<Verdict, TaskError> {
        match self.rules.is_empty() {
            true => Ok(Verdict::Right),
            false => with_room(|| self.judge_here(batch)),
        }
    }

    fn judge_here(&self, batch: &RecordBatch) -> Result<Verdict, TaskError> {
        let rows = batch.num_rows();
        let mut broken: Vec<Broken> = Vec::new();
        // Rows that have broken no rule yet; allocated with the first one that has.
        let mut right: Option<Vec<bool>> = None;
        for rule in &self.rules {
            let before = broken.len();
            rule.judge(batch, 0, &mut broken)?;
            if broken.len() == before {
                continue;
            }
            let right = right.get_or_insert_with(|| vec![true; rows]);
            let mut at = before;
            // A record is rejected once, for the first rule that it breaks.
            while at < broken.len() {
                let row = broken[at].row;
                if std::mem::replace(&mut right[row], false) {
                    at += 1;
                } else {
                    broken.swap_remove(at);
                }
            }
        }
        let Some(right) = right else {
            return Ok(Verdict::Right);
        };
        broken.sort_unstable_by_key(|broken| broken.row);
        Ok(Verdict::Broken {
            keep: BooleanArray::new(BooleanBuffer::from(right), None),
            broken,
        })
    }
}

impl Rule {
    /// Adds the rows of `batch` that break this rule, counted from `first`.
    fn judge(&self, batch: &RecordBatch, first: usize, broken: &mut Vec<Broken>) -> Result<(), TaskError> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let evaluated = self.that.evaluate(batch).and_then(|value| value.into_array(rows));
        let answers = match evaluated {
            Ok(answers) => answers,
            // One record spoils the whole batch: halve it until that record is found.
            Err(error) if rows == 1 => {
                broken.push(Broken {
                    row: first,
                    rule: self.name.clone(),
                    reason: format!(
                        "«{}» cannot be evaluated: {}",
                        self.text,
                        with_type_names(&error.find_root().message())
                    ),
                    undecided: true,
                });
                return Ok(());
            }
            Err(_) => {
                let half = rows / 2;
                self.judge(&batch.slice(0, half), first, broken)?;
                return self.judge(&batch.slice(half, rows - half), first + half, broken);
            }
        };
        let answers = answers.as_boolean_opt().ok_or_else(|| {
            TaskError::new(
                ErrorClass::Config,
                format!("check «{}» does not answer true or false", self.name),
            )
        })?;
        if answers.true_count() == rows {
            return Ok(());
        }
        for row in 0..rows {
            let reason = if answers.is_null(row) {
                format!("«{}» is NULL", self.text)
            } else if answers.value(row) {
                continue;
            } else {
                format!("«{}» is false", self.text)
            };
            broken.push(Broken {
                row: first + row,
                rule: self.name.clone(),
                reason,
                undecided: false,
            });
        }
        Ok(())
    }
}

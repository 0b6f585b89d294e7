//! Row-wise or whole: what a plan needs of the rows of `input` to give, part by part, the answer
//! that it gives for all of them.
//!
//! A plan P *distributes* over a partitioning of the input when the multiset P(I1) + P(I2) + …
//! equals P(I1 + I2 + …). Each operator is given the weakest condition on partitionings under
//! which it distributes, from the leaves up:
//!
//! - any partitioning at all ([`Needs::Nothing`]): projections, filters, unnest, joins with
//!   look-ups that keep each row of the input apart;
//! - those that keep rows together that are equal in certain input columns ([`Needs::Together`]):
//!   grouping, DISTINCT, windows, joins of the input with itself. A partitioning that keeps rows
//!   together by some of these columns keeps them together by all, so any non-empty subset may be
//!   used; where two operators ask for different columns, their intersection satisfies both;
//! - only the trivial one ([`Needs::All`]): sorts, limits, aggregates without a plain column.
//!
//! That a key of an operator *is* an input column is told by following plain column references
//! (`trace`): the value in such a column is that of some input row from which the row was made.

use std::collections::BTreeSet;

use datafusion::{
    common::{
        Column, JoinType, Result, TableReference,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{
        Aggregate, Distinct, Expr, GroupingSet, Join, LogicalPlan, Projection, Subquery, Union, Unnest, Window,
    },
};
use gapless_common::plan::{TransformFacts, TransformMode};

use super::INPUT;

/// Which mode an optimized plan over `input` runs in, and why.
pub fn classify(plan: &LogicalPlan, input_columns: &[String]) -> Result<TransformFacts> {
    if let Some(name) = volatile_function(plan)? {
        return Ok(whole(format!(
            "{name}() gives another value each time, so one partition reads everything and commits once"
        )));
    }
    let scans = input_scans(plan)?;
    let shape = Shape::of(plan)?;
    let name = |column: &usize| input_columns[*column].clone();
    Ok(match shape.needs {
        Needs::Fixed => whole("the SQL does not read `input`".to_string()),
        Needs::Nothing { expands } if scans <= 1 => TransformFacts {
            mode: TransformMode::RowWise { expands },
            reason: if expands {
                "each output row comes from one input row; an input row may give several".to_string()
            } else {
                "each output row comes from one input row".to_string()
            },
        },
        Needs::Nothing { .. } => TransformFacts {
            mode: TransformMode::Whole {
                keys: shape
                    .trace
                    .iter()
                    .flatten()
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .map(name)
                    .collect(),
            },
            reason: "the SQL reads `input` more than once".to_string(),
        },
        Needs::Together { keys, because } => {
            let keys: Vec<String> = keys.iter().map(name).collect();
            TransformFacts {
                reason: format!("{because}: rows that are equal in {} belong together", keys.join(", ")),
                mode: TransformMode::Whole { keys },
            }
        }
        Needs::All { because } => whole(because),
    })
}

/// For each column that a plan gives, the input column whose values it carries.
pub fn carried(plan: &LogicalPlan, input_columns: &[String]) -> Result<Vec<Option<String>>> {
    let trace = Shape::of(plan)?.trace;
    Ok(trace
        .into_iter()
        .map(|column| column.map(|column| input_columns[column].clone()))
        .collect())
}

fn whole(reason: String) -> TransformFacts {
    TransformFacts {
        mode: TransformMode::Whole { keys: Vec::new() },
        reason,
    }
}

/// What a plan asks of a partitioning of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Needs {
    /// It does not depend on the input: made of look-ups and constants.
    Fixed,
    Nothing {
        expands: bool,
    },
    /// Input columns, in the order in which the SQL names them; never empty.
    Together {
        keys: Vec<usize>,
        because: String,
    },
    All {
        because: String,
    },
}

struct Shape {
    needs: Needs,
    /// For each output column, the input column whose value it carries.
    trace: Vec<Option<usize>>,
}

impl Shape {
    fn of(plan: &LogicalPlan) -> Result<Shape> {
        if let Some(because) = subquery_over_input(plan)? {
            return Ok(Shape::all(plan, because));
        }
        match plan {
            LogicalPlan::TableScan(scan) => {
                let width = scan.projected_schema.fields().len();
                if !is_input(&scan.table_name) {
                    return Ok(Shape::fixed(plan));
                }
                if scan.fetch.is_some() {
                    return Ok(Shape::all(plan, "LIMIT counts over the whole input"));
                }
                let trace = match &scan.projection {
                    Some(columns) => columns.iter().copied().map(Some).collect(),
                    None => (0..width).map(Some).collect(),
                };
                Ok(Shape {
                    needs: Needs::Nothing { expands: false },
                    trace,
                })
            }
            // No row of any input: the same, part by part.
            LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row => Ok(Shape {
                needs: Needs::Nothing { expands: false },
                trace: vec![None; plan.schema().fields().len()],
            }),
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => Ok(Shape::fixed(plan)),
            LogicalPlan::Projection(projection) => Shape::of_projection(projection),
            LogicalPlan::Filter(filter) => Shape::of(&filter.input),
            LogicalPlan::SubqueryAlias(alias) => Shape::of(&alias.input),
            LogicalPlan::Repartition(repartition) => Shape::of(&repartition.input),
            LogicalPlan::Unnest(unnest) => Shape::of_unnest(unnest),
            LogicalPlan::Join(join) => Shape::of_join(join),
            LogicalPlan::Aggregate(aggregate) => Shape::of_aggregate(aggregate),
            LogicalPlan::Distinct(distinct) => Shape::of_distinct(distinct),
            LogicalPlan::Window(window) => Shape::of_window(window),
            LogicalPlan::Union(union) => Shape::of_union(union),
            LogicalPlan::Sort(sort) => Ok(Shape::of(&sort.input)?.then_all("ORDER BY over the whole input")),
            LogicalPlan::Limit(limit) => Ok(Shape::of(&limit.input)?.then_all("LIMIT counts over the whole input")),
            other => {
                if input_scans(other)? == 0 {
                    Ok(Shape::fixed(plan))
                } else {
                    Ok(Shape::all(
                        plan,
                        "a recursive query or another operator over the whole input",
                    ))
                }
            }
        }
    }

    fn fixed(plan: &LogicalPlan) -> Shape {
        Shape {
            needs: Needs::Fixed,
            trace: vec![None; plan.schema().fields().len()],
        }
    }

    fn all(plan: &LogicalPlan, because: impl Into<String>) -> Shape {
        Shape {
            needs: Needs::All {
                because: because.into(),
            },
            trace: vec![None; plan.schema().fields().len()],
        }
    }

    /// The same columns from an operator that needs every row, unless nothing is of the input.
    fn then_all(mut self, because: &str) -> Shape {
        if !matches!(self.needs, Needs::Fixed | Needs::All { .. }) {
            self.needs = Needs::All {
                because: because.to_string(),
            };
        }
        self
    }

    /// The input column behind an expression that is a plain column of `plan`.
    fn column(&self, plan: &LogicalPlan, expr: &Expr) -> Option<usize> {
        let column: &Column = match expr {
            Expr::Alias(alias) => return self.column(plan, &alias.expr),
            Expr::Column(column) => column,
            _ => return None,
        };
        plan.schema()
            .maybe_index_of_column(column)
            .and_then(|index| self.trace[index])
    }

    fn of_projection(projection: &Projection) -> Result<Shape> {
        let below = Shape::of(&projection.input)?;
        let trace = projection
            .expr
            .iter()
            .map(|expr| below.column(&projection.input, expr))
            .collect();
        Ok(Shape {
            needs: below.needs,
            trace,
        })
    }

    fn of_unnest(unnest: &Unnest) -> Result<Shape> {
        let below = Shape::of(&unnest.input)?;
        let nested: BTreeSet<usize> = unnest
            .list_type_columns
            .iter()
            .map(|(index, _)| *index)
            .chain(unnest.struct_type_columns.iter().copied())
            .collect();
        let trace = unnest
            .dependency_indices
            .iter()
            .map(|index| {
                if nested.contains(index) {
                    None
                } else {
                    below.trace[*index]
                }
            })
            .collect();
        let needs = match below.needs {
            Needs::Nothing { expands } => Needs::Nothing {
                expands: expands || !unnest.list_type_columns.is_empty(),
            },
            other => other,
        };
        Ok(Shape { needs, trace })
    }

    /// Grouping by `sets` of expressions over `input` (one set, or those of GROUPING SETS), with
    /// `trace` of the result.
    fn grouped(self, plan: &LogicalPlan, sets: &[Vec<&Expr>], what: &str, trace: Vec<Option<usize>>) -> Shape {
        if matches!(self.needs, Needs::Fixed | Needs::All { .. }) {
            return Shape {
                needs: self.needs,
                trace,
            };
        }
        let mut keys: Option<Vec<usize>> = None;
        for set in sets {
            let plain: Vec<usize> = set.iter().filter_map(|expr| self.column(plan, expr)).collect();
            keys = Some(match keys {
                None => distinct(plain),
                Some(keys) => keys.into_iter().filter(|key| plain.contains(key)).collect(),
            });
        }
        let mut keys = keys.unwrap_or_default();
        let none = keys.is_empty();
        if let Needs::Together { keys: below, .. } = &self.needs {
            keys.retain(|key| below.contains(key));
        }
        let needs = if none {
            Needs::All {
                because: format!("{what} has no plain column of `input` to bring rows together on"),
            }
        } else if keys.is_empty() {
            Needs::All {
                because: format!("{what} and the grouping below it share no column of `input`"),
            }
        } else {
            Needs::Together {
                keys,
                because: what.to_string(),
            }
        };
        Shape { needs, trace }
    }

    fn of_aggregate(aggregate: &Aggregate) -> Result<Shape> {
        let below = Shape::of(&aggregate.input)?;
        let width = aggregate.schema.fields().len();
        let plan = aggregate.input.as_ref();
        if aggregate.group_expr.is_empty() {
            return Ok(match below.needs {
                Needs::Fixed => Shape {
                    needs: Needs::Fixed,
                    trace: vec![None; width],
                },
                Needs::All { .. } => Shape {
                    needs: below.needs,
                    trace: vec![None; width],
                },
                _ => Shape {
                    needs: Needs::All {
                        because: "an aggregate without GROUP BY over the whole input".to_string(),
                    },
                    trace: vec![None; width],
                },
            });
        }
        let mut trace = vec![None; width];
        let sets: Vec<Vec<&Expr>> = match aggregate.group_expr.as_slice() {
            [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => {
                sets.iter().map(|set| set.iter().collect()).collect()
            }
            // One of their sets is empty: a total over everything.
            [Expr::GroupingSet(_)] => vec![vec![]],
            plain => {
                for (index, expr) in plain.iter().enumerate() {
                    trace[index] = below.column(plan, expr);
                }
                vec![plain.iter().collect()]
            }
        };
        Ok(below.grouped(plan, &sets, "GROUP BY", trace))
    }

    fn of_distinct(distinct: &Distinct) -> Result<Shape> {
        match distinct {
            Distinct::All(input) => {
                let below = Shape::of(input)?;
                let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
                let trace = below.trace.clone();
                Ok(below.grouped(input, &[columns.iter().collect()], "DISTINCT", trace))
            }
            Distinct::On(on) => {
                let below = Shape::of(&on.input)?;
                let trace = on
                    .select_expr
                    .iter()
                    .map(|expr| below.column(&on.input, expr))
                    .collect();
                Ok(below.grouped(&on.input, &[on.on_expr.iter().collect()], "DISTINCT ON", trace))
            }
        }
    }

    fn of_window(window: &Window) -> Result<Shape> {
        let below = Shape::of(&window.input)?;
        let mut trace = below.trace.clone();
        trace.resize(window.schema.fields().len(), None);
        let sets: Vec<Vec<&Expr>> = window
            .window_expr
            .iter()
            .map(|expr| match expr.unaliased() {
                Expr::WindowFunction(function) => function.params.partition_by.iter().collect(),
                _ => vec![],
            })
            .collect();
        Ok(below.grouped(&window.input, &sets, "PARTITION BY of a window", trace))
    }

    fn of_union(union: &Union) -> Result<Shape> {
        let width = union.schema.fields().len();
        let parts = union
            .inputs
            .iter()
            .map(|input| Shape::of(input))
            .collect::<Result<Vec<_>>>()?;
        let trace = (0..width)
            .map(|column| {
                let first = parts.first()?.trace[column];
                first.filter(|_| parts.iter().all(|part| part.trace[column] == first))
            })
            .collect();
        if parts.iter().all(|part| part.needs == Needs::Fixed) {
            return Ok(Shape {
                needs: Needs::Fixed,
                trace,
            });
        }
        let mut needs = Needs::Nothing { expands: true };
        for part in parts {
            let part = match part.needs {
                Needs::Fixed => Needs::All {
                    because: "UNION adds rows that are not of `input`".to_string(),
                },
                other => other,
            };
            needs = both(needs, part, "UNION");
        }
        Ok(Shape { needs, trace })
    }

    fn of_join(join: &Join) -> Result<Shape> {
        let left = Shape::of(&join.left)?;
        let right = Shape::of(&join.right)?;
        let none = |shape: &Shape| vec![None; shape.trace.len()];
        let trace = match join.join_type {
            JoinType::Inner => [left.trace.clone(), right.trace.clone()].concat(),
            JoinType::Left => [left.trace.clone(), none(&right)].concat(),
            JoinType::Right => [none(&left), right.trace.clone()].concat(),
            JoinType::Full => [none(&left), none(&right)].concat(),
            JoinType::LeftSemi | JoinType::LeftAnti => left.trace.clone(),
            JoinType::RightSemi | JoinType::RightAnti => right.trace.clone(),
            JoinType::LeftMark => [left.trace.clone(), vec![None]].concat(),
            JoinType::RightMark => [right.trace.clone(), vec![None]].concat(),
        };
        let needs = match (&left.needs, &right.needs) {
            (Needs::Fixed, Needs::Fixed) => Needs::Fixed,
            (_, Needs::Fixed) => join_lookup(&left.needs, join, true),
            (Needs::Fixed, _) => join_lookup(&right.needs, join, false),
            _ => join_input(&left, &right, join),
        };
        Ok(Shape { needs, trace })
    }
}

/// A join of `input` with a look-up, where the input is on the left or on the right.
fn join_lookup(input: &Needs, join: &Join, input_left: bool) -> Needs {
    use JoinType::*;
    let (keeps, may_repeat) = match (join.join_type, input_left) {
        (Inner, _) | (Left, true) | (Right, false) => (true, true),
        (LeftSemi | LeftAnti | LeftMark, true) | (RightSemi | RightAnti | RightMark, false) => (true, false),
        _ => (false, false),
    };
    if !keeps {
        return Needs::All {
            because: "the join keeps rows of a look-up that no input row matches, which only the whole input tells"
                .to_string(),
        };
    }
    match input {
        Needs::Nothing { expands } => Needs::Nothing {
            expands: *expands || (may_repeat && !lookup_is_unique(join, input_left)),
        },
        other => other.clone(),
    }
}

/// Whether the look-up has at most one row for each combination of the join's keys, so that an
/// input row gives at most one row.
fn lookup_is_unique(join: &Join, input_left: bool) -> bool {
    let lookup = if input_left { &join.right } else { &join.left };
    let keys: BTreeSet<usize> = join
        .on
        .iter()
        .map(|(left, right)| if input_left { right } else { left })
        .filter_map(|expr| match expr {
            Expr::Column(column) => lookup.schema().maybe_index_of_column(column),
            _ => None,
        })
        .collect();
    unique_columns(lookup).is_some_and(|columns| columns.iter().all(|column| keys.contains(column)))
}

/// Output columns whose values together occur once, where the plan's form says so.
fn unique_columns(plan: &LogicalPlan) -> Option<BTreeSet<usize>> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => match aggregate.group_expr.as_slice() {
            [Expr::GroupingSet(_)] => None,
            groups => Some((0..groups.len()).collect()),
        },
        LogicalPlan::Distinct(Distinct::All(input)) => Some((0..input.schema().fields().len()).collect()),
        LogicalPlan::SubqueryAlias(alias) => unique_columns(&alias.input),
        LogicalPlan::Filter(filter) => unique_columns(&filter.input),
        LogicalPlan::Projection(projection) => unique_columns(&projection.input)?
            .into_iter()
            .map(|below| {
                projection.expr.iter().position(|expr| {
                    matches!(expr.unaliased(), Expr::Column(column)
                        if projection.input.schema().maybe_index_of_column(column) == Some(below))
                })
            })
            .collect(),
        _ => None,
    }
}

/// A join of the input with itself: rows that meet must be equal in a column of the input.
fn join_input(left: &Shape, right: &Shape, join: &Join) -> Needs {
    let plain = |expr: &Expr, side: &Shape, plan: &LogicalPlan| side.column(plan, expr);
    let keys: Vec<usize> = join
        .on
        .iter()
        .filter_map(|(l, r)| {
            let l = plain(l, left, &join.left)?;
            (plain(r, right, &join.right)? == l).then_some(l)
        })
        .collect();
    if keys.is_empty() || join.null_aware {
        return Needs::All {
            because: "a join of `input` with itself that is not by equal plain columns".to_string(),
        };
    }
    let on = Needs::Together {
        keys: distinct(keys),
        because: "a join of `input` with itself".to_string(),
    };
    both(
        both(left.needs.clone(), right.needs.clone(), "the join"),
        on,
        "the join",
    )
}

/// What satisfies two needs at once.
fn both(a: Needs, b: Needs, what: &str) -> Needs {
    match (a, b) {
        (Needs::All { because }, _) | (_, Needs::All { because }) => Needs::All { because },
        (Needs::Together { keys: a, because }, Needs::Together { keys: b, .. }) => {
            let keys: Vec<usize> = a.into_iter().filter(|key| b.contains(key)).collect();
            if keys.is_empty() {
                Needs::All {
                    because: format!("the parts of {what} group by different columns"),
                }
            } else {
                Needs::Together { keys, because }
            }
        }
        (together @ Needs::Together { .. }, _) | (_, together @ Needs::Together { .. }) => together,
        (Needs::Nothing { expands: a }, Needs::Nothing { expands: b }) => Needs::Nothing { expands: a || b },
        (Needs::Fixed, other) | (other, Needs::Fixed) => other,
    }
}

fn distinct(columns: Vec<usize>) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    columns.into_iter().filter(|column| seen.insert(*column)).collect()
}

trait Unaliased {
    fn unaliased(&self) -> &Expr;
}

impl Unaliased for Expr {
    fn unaliased(&self) -> &Expr {
        match self {
            Expr::Alias(alias) => alias.expr.unaliased(),
            other => other,
        }
    }
}

fn is_input(table: &TableReference) -> bool {
    table.table() == INPUT
}

/// How many times a plan reads `input`, subqueries included.
pub fn input_scans(plan: &LogicalPlan) -> Result<usize> {
    let mut scans = 0;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && is_input(&scan.table_name)
        {
            scans += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(scans)
}

/// The name of a function in the plan that gives another value each time it is called.
fn volatile_function(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if part.is_volatile_node() {
                    found = Some(match part {
                        Expr::ScalarFunction(function) => function.name().to_string(),
                        other => other.to_string(),
                    });
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// Subqueries that the optimizer left as expressions: fine over look-ups (a constant), else not.
fn subquery_over_input(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut because = None;
    plan.apply_expressions(|expr| {
        expr.apply(|part| {
            let subquery: &Subquery = match part {
                Expr::ScalarSubquery(subquery) => subquery,
                Expr::Exists(exists) => &exists.subquery,
                Expr::InSubquery(within) => &within.subquery,
                Expr::SetComparison(comparison) => &comparison.subquery,
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            if input_scans(&subquery.subquery)? > 0 {
                because = Some("a subquery reads the whole input".to_string());
            } else if !subquery.outer_ref_columns.is_empty() {
                because = Some("a subquery depends on the row in a way that has no join form".to_string());
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(because)
}

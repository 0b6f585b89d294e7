//! Which conversion an error is about. The engine says what could not be converted to what, and not whose value it was:
//! the plan knows the conversions, those that it was not asked for in words too (`text > 3`).

use arrow::{
    array::RecordBatch,
    datatypes::DataType,
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{
    common::{
        DataFusionError, Result,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, LogicalPlan},
};

use super::{INPUT, overflow::as_written};
use crate::type_names::type_name;

/// Conversions that a message names; more of them say little.
const NAMED: usize = 4;
/// Characters of an expression in a message.
const SHOWN: usize = 60;

/// A conversion in a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cast {
    /// The column that is converted, where it is one as it stands.
    column: Option<String>,
    /// What is converted, as SQL.
    of: String,
    to: DataType,
}

/// The conversions of a plan that may fail on a value.
#[derive(Clone, Debug, Default)]
pub(super) struct Casts(Vec<Cast>);

impl Casts {
    pub fn of(plan: &LogicalPlan) -> Result<Casts> {
        let mut casts = Vec::new();
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                expr.apply(|part| {
                    if let Expr::Cast(cast) = part {
                        let made = Cast {
                            column: match cast.expr.as_ref() {
                                Expr::Column(column) => Some(column.name.clone()),
                                _ => None,
                            },
                            of: shown(&cast.expr),
                            to: cast.field.data_type().clone(),
                        };
                        if !casts.contains(&made) {
                            casts.push(made);
                        }
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        Ok(Casts(casts))
    }

    /// Words to go behind an error: which conversion it was, as far as that can be told. `record` is the one record of
    /// a run that had no other.
    pub fn place(&self, error: &DataFusionError, record: Option<&RecordBatch>) -> Option<String> {
        let DataFusionError::ArrowError(arrow, _) = error.find_root() else {
            return None;
        };
        let (ArrowError::CastError(message) | ArrowError::ParseError(message)) = arrow.as_ref() else {
            return None;
        };
        let to_that = |cast: &&Cast| message.contains(&cast.to.to_string());
        let mut found: Vec<&Cast> = self.0.iter().filter(to_that).collect();
        if found.is_empty() {
            found = self.0.iter().collect();
        }
        if let Some(record) = record {
            let has_value = |cast: &&&Cast| cast.column.as_ref().is_some_and(|name| is_about(message, record, name));
            let about: Vec<&Cast> = found.iter().filter(has_value).copied().collect();
            if !about.is_empty() {
                found = about;
            }
        }
        let mut named: Vec<String> = Vec::new();
        for cast in found {
            let words = match &cast.column {
                Some(_) => format!("column {} to {}", cast.of, type_name(&cast.to)),
                None => format!("«{}» to {}", cast.of, type_name(&cast.to)),
            };
            if !named.contains(&words) {
                named.push(words);
            }
        }
        match named.len() {
            0 => None,
            1..=NAMED => Some(format!("converting {}", named.join(", or "))),
            _ => {
                let rest = named.len() - NAMED;
                Some(format!(
                    "converting {}, or one of {rest} others",
                    named[..NAMED].join(", or ")
                ))
            }
        }
    }
}

/// Whether the message quotes the value that a column has in a record.
fn is_about(message: &str, record: &RecordBatch, column: &str) -> bool {
    let Some(array) = record.column_by_name(column) else {
        return false;
    };
    let Ok(values) = ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default()) else {
        return false;
    };
    record.num_rows() == 1 && message.contains(&format!("'{}'", values.value(0)))
}

fn shown(expr: &Expr) -> String {
    let text = as_written(expr.clone()).to_string().replace(&format!("{INPUT}."), "");
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

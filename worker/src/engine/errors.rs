//! DataFusion's errors in our words: what is wrong, where, and what is near it.

use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError, utils::datafusion_strsim::normalized_levenshtein};
use gapless_common::error::{ErrorClass, TaskError};

/// Names this alike (1 is the same) are offered as what was meant.
const NEAR: f64 = 0.5;
/// So many names of columns stand in a message; the rest is a count.
const LISTED: usize = 20;

/// An error of planning: the job cannot work as written. `place` says which text it is about,
/// `the SQL` or `check «positive quantity»`.
pub fn planning(place: &str, error: &DataFusionError) -> TaskError {
    let message = match error.find_root() {
        DataFusionError::SchemaError(schema, _) => schema_message(schema),
        DataFusionError::SQL(parser, _) => parser.to_string().trim_start_matches("sql parser error: ").to_string(),
        DataFusionError::Plan(message) => plan_message(message),
        root => root.message().to_string(),
    };
    TaskError::new(ErrorClass::Config, format!("{place}: {message}"))
}

/// An error of a running plan.
pub fn running(error: &DataFusionError) -> TaskError {
    let root = error.find_root();
    let class = match root {
        DataFusionError::ResourcesExhausted(_) => ErrorClass::Resource,
        // Nothing but spilled data is read or written in here.
        DataFusionError::IoError(_) => ErrorClass::Resource,
        DataFusionError::ArrowError(arrow, _)
            if matches!(arrow.as_ref(), ArrowError::IoError(..) | ArrowError::MemoryError(_)) =>
        {
            ErrorClass::Resource
        }
        DataFusionError::ExecutionJoin(_) => ErrorClass::Transient,
        DataFusionError::NotImplemented(_) | DataFusionError::Internal(_) | DataFusionError::Plan(_) => {
            ErrorClass::Config
        }
        _ => ErrorClass::Data,
    };
    TaskError::new(class, format!("the SQL failed: {}", root.message()))
}

fn schema_message(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
            format!(
                "there is no column «{}»{}",
                field.flat_name(),
                offer(&field.name, &names, "columns")
            )
        }
        SchemaError::AmbiguousReference { field } => format!(
            "«{}» is a column of several tables: write the table before it, as in input.{}",
            field.name, field.name
        ),
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            duplicate(name)
        }
    }
}

/// Two output columns of one name.
pub fn duplicate(name: &str) -> String {
    format!("two output columns are named «{name}»: name them apart with AS")
}

fn plan_message(message: &str) -> String {
    // A table: "table 'datafusion.public.inpt' not found".
    if let Some(rest) = message.strip_prefix("table 'datafusion.public.")
        && let Some(name) = rest.strip_suffix("' not found")
    {
        return format!("there is no table «{name}»: the records are `input`, look-ups go by their names");
    }
    // A function: "Invalid function 'foo'.\nDid you mean 'bar'?".
    if let Some(rest) = message.strip_prefix("Invalid function '")
        && let Some((name, hint)) = rest.split_once("'.")
    {
        return format!("there is no function «{name}». {}", hint.trim());
    }
    message.to_string()
}

/// The near names to one that does not exist, else all of them.
fn offer(wanted: &str, names: &[&str], what: &str) -> String {
    let mut near: Vec<(f64, &str)> = names
        .iter()
        .map(|name| {
            (
                normalized_levenshtein(&wanted.to_lowercase(), &name.to_lowercase()),
                *name,
            )
        })
        .filter(|(alike, _)| *alike >= NEAR)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.truncate(3);
    if near.is_empty() {
        let listed: Vec<&str> = names.iter().take(LISTED).copied().collect();
        let rest = names.len() - listed.len();
        let more = if rest > 0 {
            format!(" and {rest} more")
        } else {
            String::new()
        };
        return format!("; the {what} are {}{more}", listed.join(", "));
    }
    let near: Vec<String> = near.iter().map(|(_, name)| format!("«{name}»")).collect();
    format!("; did you mean {}? Names are case-sensitive", near.join(" or "))
}

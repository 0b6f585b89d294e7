//! DataFusion's errors in our words: what is wrong, where, and what is near it.

use std::{io, path::Path};

use arrow::error::ArrowError;
use datafusion::common::{Column, DataFusionError, SchemaError, utils::datafusion_strsim::normalized_levenshtein};
use gapless_common::error::{ErrorClass, TaskError};

use crate::{storage::io_error, type_names::with_type_names};

/// Names this alike (1 is the same) are offered as what was meant.
const NEAR: f64 = 0.5;
/// So many names of columns stand in a message; the rest is a count.
const LISTED: usize = 20;

/// Why a text of the job cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanFault {
    /// What is wrong, in which text, and what is near it.
    pub message: String,
    pub cause: Cause,
}

/// The kind of a [`PlanFault`], with the name that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    Column {
        /// The table before the name, where one is written.
        table: Option<String>,
        name: String,
    },
    /// A column of several tables.
    Ambiguous {
        name: String,
    },
    Table {
        name: String,
    },
    Function {
        name: String,
    },
    /// Not SQL.
    Syntax,
    Other,
}

impl From<PlanFault> for TaskError {
    fn from(fault: PlanFault) -> TaskError {
        TaskError::new(ErrorClass::Config, fault.message)
    }
}

impl From<TaskError> for PlanFault {
    fn from(error: TaskError) -> PlanFault {
        PlanFault {
            message: error.message,
            cause: Cause::Other,
        }
    }
}

/// An error of planning: the job cannot work as written. `place` says which text it is about,
/// `the SQL` or `check «positive quantity»`.
pub fn planning(place: &str, error: &DataFusionError) -> TaskError {
    fault(place, error).into()
}

/// As [`planning`], with the cause.
pub fn fault(place: &str, error: &DataFusionError) -> PlanFault {
    let (message, cause) = match error.find_root() {
        DataFusionError::SchemaError(schema, _) => (schema_message(schema), schema_cause(schema)),
        DataFusionError::SQL(parser, _) => {
            let message = parser.to_string().trim_start_matches("sql parser error: ").to_string();
            (message, Cause::Syntax)
        }
        DataFusionError::Plan(message) => plan_message(message),
        DataFusionError::NotImplemented(message) if message.contains("single SQL statement") => (
            "a step's SQL is one query, and here are several statements".to_string(),
            Cause::Syntax,
        ),
        DataFusionError::NotImplemented(message) => (not_there(message), Cause::Other),
        root => (in_words(&root.message()), Cause::Other),
    };
    PlanFault {
        message: format!("{place}: {message}"),
        cause,
    }
}

/// An error of a running plan, which spills to `folder`.
pub fn running(error: &DataFusionError, folder: &Path) -> TaskError {
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
    let message = match root {
        DataFusionError::NotImplemented(message) => not_there(message),
        root => match system_error(&root.message()).filter(|_| class == ErrorClass::Resource) {
            // Nothing else is written.
            Some(error) => io_error("spill to", folder, &error).message,
            None => with_type_names(&root.message()),
        },
    };
    TaskError::new(class, format!("the SQL failed: {message}"))
}

/// The system's error that a message of the engine ends with: of its kinds of errors some keep only the words.
fn system_error(message: &str) -> Option<io::Error> {
    let (_, number) = message.strip_suffix(')')?.rsplit_once("(os error ")?;
    number.parse().ok().map(io::Error::from_raw_os_error)
}

fn schema_message(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            // With a table before it, those of that table, if there is such a one.
            let of_table = |column: &&Column| column.relation == field.relation;
            let is_there = field.relation.is_some() && valid_fields.iter().any(|column| of_table(&column));
            let fields = valid_fields.iter().filter(|column| !is_there || of_table(column));
            let mut names: Vec<&str> = Vec::new();
            for column in fields {
                if !names.contains(&column.name.as_str()) {
                    names.push(&column.name);
                }
            }
            if let (Some(table), false, false) = (&field.relation, is_there, valid_fields.is_empty()) {
                let mut tables: Vec<&str> = Vec::new();
                for table in valid_fields.iter().filter_map(|column| column.relation.as_ref()) {
                    if !tables.contains(&table.table()) {
                        tables.push(table.table());
                    }
                }
                return format!(
                    "there is no column «{}», as there is no table «{}»{}",
                    field.flat_name(),
                    table.table(),
                    offer(table.table(), &tables, "tables")
                );
            }
            format!(
                "there is no column «{}»{}",
                field.flat_name(),
                offer(&field.name, &names, "columns")
            )
        }
        // That a name is asked for without its table names no table: this is a name that is given twice.
        SchemaError::AmbiguousReference { field } if field.relation.is_some() => duplicate(&field.name),
        SchemaError::AmbiguousReference { field } => format!(
            "«{}» is a column of several tables: write the table before it, as in input.{}",
            field.name, field.name
        ),
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            duplicate(name)
        }
    }
}

fn schema_cause(error: &SchemaError) -> Cause {
    match error {
        SchemaError::FieldNotFound { field, .. } => Cause::Column {
            table: field.relation.as_ref().map(|table| table.table().to_string()),
            name: field.name.clone(),
        },
        SchemaError::AmbiguousReference { field } if field.relation.is_some() => Cause::Other,
        SchemaError::AmbiguousReference { field } => Cause::Ambiguous {
            name: field.name.clone(),
        },
        SchemaError::DuplicateQualifiedField { .. } | SchemaError::DuplicateUnqualifiedField { .. } => Cause::Other,
    }
}

/// Two output columns of one name.
pub fn duplicate(name: &str) -> String {
    format!("two output columns are named «{name}»: name them apart with AS")
}

fn plan_message(message: &str) -> (String, Cause) {
    // A table: "table 'datafusion.public.inpt' not found".
    if let Some(rest) = message.strip_prefix("table 'datafusion.public.")
        && let Some(name) = rest.strip_suffix("' not found")
    {
        let words = format!("there is no table «{name}»: the records are `input`, look-ups go by their names");
        return (words, Cause::Table { name: name.to_string() });
    }
    // A function: "Invalid function 'foo'.\nDid you mean 'bar'?".
    if let Some(rest) = message.strip_prefix("Invalid function '")
        && let Some((name, hint)) = rest.split_once("'.")
    {
        let words = format!("there is no function «{name}». {}", hint.trim());
        return (words, Cause::Function { name: name.to_string() });
    }
    // A name given twice: "Projections require unique expression names but the expression "input.id" at position 0 …".
    if let Some(rest) = message.strip_prefix("Projections require unique expression names but the expression \"")
        && let Some((name, _)) = rest.split_once("\" at position ")
    {
        let is_column = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'));
        let name = name.rsplit('.').next().filter(|_| is_column).unwrap_or(name);
        return (duplicate(name), Cause::Other);
    }
    (in_words(message), Cause::Other)
}

/// What the engine says of types that do not go together, in our words, or its own with our names of types.
fn in_words(message: &str) -> String {
    // A call: "…No function matches the given name and argument types 'sum(Utf8)'. You might need to add explicit type
    // casts.\n\tCandidate functions:\n\tsum(Decimal)\n\tsum(Int64)".
    if let Some((_, rest)) = message.split_once("No function matches the given name and argument types '")
        && let Some((call, rest)) = rest.split_once("'. ")
        && let Some((name, arguments)) = call.split_once('(')
    {
        let candidates = rest.split_once("Candidate functions:").map_or("", |(_, lines)| lines);
        let mut takes: Vec<String> = Vec::new();
        for line in candidates.lines().map(str::trim) {
            let line = with_type_names(line).to_lowercase().replace("numeric(1)", "number");
            // Some functions judge by themselves, and do not tell.
            if line.contains('(') && !line.contains("userdefined") && !takes.contains(&line) && takes.len() < LISTED {
                takes.push(line);
            }
        }
        let takes = match takes.is_empty() {
            true => String::new(),
            false => format!("; it is called as {}", takes.join(", ")),
        };
        return format!(
            "the function «{name}» does not take ({}{takes}: cast what it is given",
            with_type_names(arguments)
        );
    }
    if let Some(words) = unsupported(message) {
        return words;
    }
    // What is no fault of the engine's is not to be reported to its makers.
    let message = message
        .split("\nThis issue was likely caused by a bug in")
        .next()
        .unwrap_or(message);
    with_type_names(message.trim_start_matches("Internal error: "))
}

/// SQL that the engine reads and does not do, by what it calls it, and what to write instead.
const INSTEAD: &[(&str, &str)] = &[
    (
        "JOIN operator Semi",
        "SEMI JOIN is not supported; write LEFT SEMI JOIN, which gives the rows of the left side that have a match, or RIGHT \
         SEMI JOIN",
    ),
    (
        "JOIN operator Anti",
        "ANTI JOIN is not supported; write LEFT ANTI JOIN, which gives the rows of the left side that have no match, or \
         RIGHT ANTI JOIN",
    ),
    (
        "JOIN operator AsOf",
        "ASOF JOIN is not supported; join by an inequality, and take the nearest row with a window function",
    ),
    (
        "JOIN operator CrossApply",
        "CROSS APPLY is not supported; write JOIN LATERAL (…) ON true",
    ),
    (
        "JOIN operator OuterApply",
        "OUTER APPLY is not supported; write LEFT JOIN LATERAL (…) ON true",
    ),
    ("RLike", "RLIKE is not supported; write regexp_like(text, pattern)"),
    ("Convert", "CONVERT is not supported; write CAST or TRY_CAST"),
    (
        "Pivot",
        "PIVOT is not supported; write a sum for each value: sum(x) FILTER (WHERE kind = 'a')",
    ),
    (
        "Unpivot",
        "UNPIVOT is not supported; write a SELECT for each column, joined by UNION ALL",
    ),
    ("TOP", "TOP is not supported; write LIMIT behind the query"),
    ("FETCH clause", "FETCH is not supported; write LIMIT"),
    (
        "LATERAL VIEWS",
        "LATERAL VIEW is not supported; write unnest(list) in the SELECT list",
    ),
];

/// Words for what the engine calls unsupported, beside which it shows a part of its own tree.
fn unsupported(message: &str) -> Option<String> {
    let what = message.strip_prefix("Unsupported ")?;
    let what = what.strip_prefix("ast node in sqltorel: ").unwrap_or(what);
    let what = what.strip_prefix("ast node ").unwrap_or(what);
    let name = without_tree(what);
    let known = INSTEAD.iter().find(|(called, _)| *called == name);
    Some(match known {
        Some((_, words)) => words.to_string(),
        None if name.len() < what.len() => format!("{name} is not supported"),
        None => with_type_names(message),
    })
}

fn not_there(message: &str) -> String {
    let known = || {
        INSTEAD
            .iter()
            .find(|(called, _)| message.split(" is not supported").next() == Some(*called))
    };
    if let Some(words) = unsupported(message) {
        return words;
    }
    if let Some((_, words)) = known() {
        return words.to_string();
    }
    if let Some(expr) = message.strip_prefix("Physical plan does not support logical expression ") {
        return match without_tree(expr) {
            "OuterReferenceColumn" | "ScalarSubquery" | "InSubquery" | "Exists" | "SetComparison" => {
                "a subquery depends on the row in a way that has no form as a join; write it as a join".to_string()
            }
            name => format!("{name} is not supported here"),
        };
    }
    let short = without_tree(message);
    let is_name = !short.contains(' ') || short.chars().all(|c| !c.is_lowercase());
    match is_name {
        true => format!("{short} is not supported"),
        false => with_type_names(short),
    }
}

/// A text up to the part of the engine's tree within it.
fn without_tree(text: &str) -> &str {
    const SIGNS: [&str; 4] = ["Ident {", "Span(", "relation: ", "subquery"];
    if !SIGNS.iter().any(|sign| text.contains(sign)) {
        return text.trim_end();
    }
    let end = text.find(['(', '{']).unwrap_or(text.len());
    text[..end].trim_end_matches([' ', ':'])
}

/// The near names to one that does not exist, else all of them.
pub fn offer(wanted: &str, names: &[&str], what: &str) -> String {
    let near = near(wanted, names);
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
    format!("; {near}")
}

/// What was probably meant, as a question; empty where nothing is near.
pub fn near(wanted: &str, names: &[&str]) -> String {
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
        return String::new();
    }
    let near: Vec<String> = near.iter().map(|(_, name)| format!("«{name}»")).collect();
    format!("did you mean {}? Names are case-sensitive", near.join(" or "))
}

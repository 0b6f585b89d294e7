//! Why a step cannot be planned as asked.

use gapless_common::{
    coverage::CoverageError,
    key::KeyParseError,
    plan::{Method, Unit},
};

/// What cannot be planned as the job says, why, and what can. The caller names the step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("partition: the ranges do not cover every key exactly once:\n{0}")]
    Coverage(Box<CoverageError>),
    #[error("partition: `{end}` of range {range} of column '{column}': {source}")]
    BadBound {
        column: String,
        /// Counted from 1, as people count.
        range: usize,
        end: &'static str,
        source: KeyParseError,
    },
    #[error("partition: range {range} has both `to` (exclusive) and `through` (inclusive); give one of them")]
    TwoEnds { range: usize },
    #[error("partition: {}", no_such_column(.column, .known))]
    NoSuchColumn { column: String, known: Vec<String> },
    #[error(
        "partition: column '{column}' is of a type that has no key order; take a number, text, date, \
             timestamp or bool column"
    )]
    NotAKey { column: String },
    #[error("partition: `hash` names no column; name at least one")]
    NoColumns,
    #[error(
        "partition: no keys of column '{column}' were sampled, so there are no quantiles to cut at; \
             survey the source again, or write `ranges`"
    )]
    NoSample { column: String },
    #[error("partition: `{}` does not fit a source of {}; use `auto`{}", .method.name(), units(*.unit), fitting(*.unit))]
    MethodNotForSource { method: Method, unit: Unit },
    #[error("partition: a cut by ({}) would split groups: the SQL needs rows with equal ({}) in one partition ({why}); \
             cut by columns among those, or leave `partition` out", .by.join(", "), .keys.join(", "))]
    SplitsGroups {
        by: Vec<String>,
        keys: Vec<String>,
        why: String,
    },
    #[error("partition: `{}` would tear apart rows that the SQL needs together ({why}); {}", .method.name(), instead(.keys))]
    TearsRows {
        method: Method,
        keys: Vec<String>,
        why: String,
    },
    #[error("partition: the SQL needs all rows in one partition ({why}){}; use `count: 1` or leave `partition` out, \
             or write SQL that groups by columns or works row by row", several(*.asked))]
    NeedsOne { asked: Option<u32>, why: String },
    #[error(
        "partition: `count: {count}`, but one partition has to sort everything: {why}; use `count: 1`, or sort in a \
             step that reads this one"
    )]
    SortInOne { count: u32, why: String },
    #[error("partition: `count: 0` leaves nobody to read the data; use 1 or more, or `auto`")]
    ZeroCount,
    #[error("sink: `files: 0` leaves nothing to write to; use 1 or more, or leave it out")]
    ZeroFiles,
    #[error("partition: {asked} partitions are more than the {limit} that a step may have; use fewer or `auto`")]
    TooMany { asked: u64, limit: u32 },
    #[error(
        "partition: `files` makes one partition for each of {files} files, but `count: {count}` is asked; \
             leave the count out, or use `bytes`"
    )]
    CountAgainstFiles { count: u32, files: usize },
    #[error("partition: {ranges} ranges are written, but `count: {count}` is asked; leave the count out")]
    CountAgainstRanges { count: u32, ranges: usize },
}

fn no_such_column(column: &str, known: &[String]) -> String {
    const SHOWN: usize = 30;
    let near = known.iter().find(|known| known.eq_ignore_ascii_case(column));
    let hint = near.map_or(String::new(), |near| {
        format!(" (names keep their case: did you mean '{near}'?)")
    });
    let more = if known.len() > SHOWN { ", …" } else { "" };
    let list = known
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    format!("the source has no column '{column}'{hint}; it has: {list}{more}")
}

fn units(unit: Unit) -> &'static str {
    match unit {
        Unit::Byte => "plain text files",
        Unit::File => "files that have to be read whole",
        Unit::RowGroup => "Parquet row groups",
        Unit::Bucket => "exchange buckets",
        Unit::Number => "numbers",
        Unit::Mixed => "inputs of several kinds",
    }
}

fn fitting(unit: Unit) -> &'static str {
    match unit {
        Unit::Byte => ", `bytes` or `files`",
        Unit::File => " or `files`",
        Unit::Mixed => ", `bytes` or `files`",
        Unit::RowGroup => ", `row_groups` or `files`",
        Unit::Bucket | Unit::Number => "",
    }
}

fn instead(keys: &[String]) -> String {
    match keys.is_empty() {
        true => "use `count: 1` or leave `partition` out".to_string(),
        false => format!(
            "use `hash: {{columns: [{}]}}` or leave `partition` out",
            keys.join(", ")
        ),
    }
}

fn several(asked: Option<u32>) -> String {
    asked.map_or(", but several are asked".to_string(), |count| {
        format!(", but `count: {count}` is asked")
    })
}

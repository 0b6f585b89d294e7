//! Split: facts and policy become the partition table of a step.
//!
//! Nothing here has to be exact for a step to be right: sizes and quantiles only balance the work.
//! That the ranges tile their universe follows from how they are cut, and is proved again by
//! [`crate::validate`] before any of them is leased.

mod error;
mod exchange;
mod quantiles;
mod recut;
mod skew;
mod source;
mod written;

pub use error::PlanError;
pub use recut::{Left, recut};
pub use skew::{Skew, skew};
pub use source::file_spans;

use gapless_common::{
    job::{Count, Outside, Partition as Wanted, Step, WrittenRange},
    key::KeyType,
    order::{self, SortColumn},
    plan::{Facts, Method, Partition, StepPlan, TransformMode, Unit},
    range::UnitRange,
};

use exchange::through;
use source::SourceMap;

/// The most partitions a stage may have. Each costs the store a few rows of up to 256 bytes, so this
/// keeps a run within some tens of megabytes of state.
pub const MAX_PARTITIONS: u32 = 100_000;
/// Input of an execute partition: some seconds of work, so that a lost worker costs little and the
/// per-task cost (about a millisecond) does not show.
const EXECUTE_BYTES: u64 = 96 << 20;
/// Below this a partition is mostly overhead: opening the file, finishing an output file.
const EXECUTE_LEAST_BYTES: u64 = 4 << 20;
/// Partitions for each slot, so that slots stay busy to the end though partitions differ in length.
const EXECUTE_PER_SLOT: u64 = 4;
/// How long an execute partition takes where an earlier run has told how fast the step goes: long enough
/// that granting and opening it do not show, short enough that a lost worker costs little, that slots end
/// together, and that a new run gets a slot soon.
const EXECUTE_SECONDS: u64 = 5;
/// The most partitions that a slow earlier run may bring about, for each slot and in place of each of the
/// usual size: one that stood still for an hour must not make a hundred thousand of them.
const EXECUTE_MOST_PER_SLOT: u64 = 64;
const EXECUTE_MOST_FOR_USUAL: u64 = 8;
/// Input of a scatter partition: its chunks are about a million rows whatever its size.
const SCATTER_BYTES: u64 = 96 << 20;
const SCATTER_LEAST_BYTES: u64 = 1 << 20;
const SCATTER_PER_SLOT: u64 = 2;

/// What the cluster can do at once when the plan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Tasks that can run at the same time, over all workers.
    pub slots: u32,
    /// Bytes of the step's source that one slot works off in a second, as an earlier run went.
    pub bytes_per_second: Option<u64>,
}

/// How a step will be cut, before counts and bounds.
enum Cut<'a> {
    /// The source's own units.
    Source(Method),
    /// Through the exchange, by the hash of columns.
    Hash(Vec<String>),
    /// Through the exchange, by quantiles of a sampled column.
    Quantiles(&'a str),
    /// Through the exchange, by ranges from the job file.
    Written(&'a str, &'a [WrittenRange], Outside),
    /// Through the exchange, by quantiles of what the first column of `sort` carries.
    Sorted(&'a str, &'a SortColumn),
    /// One partition reads everything.
    Single,
}

/// Plans a step: its method, how many partitions, their ranges, and the exchange between, if any.
///
/// Errors say what cannot be planned as asked, why, and what can.
pub fn split(step: &Step, facts: &Facts, capacity: Capacity) -> Result<StepPlan, PlanError> {
    Planner::new(step, facts, capacity).split()
}

struct Planner<'a> {
    step: &'a Step,
    facts: &'a Facts,
    slots: u64,
    speed: Option<u64>,
    source: SourceMap,
}

impl<'a> Planner<'a> {
    fn new(step: &'a Step, facts: &'a Facts, capacity: Capacity) -> Planner<'a> {
        Planner {
            step,
            facts,
            slots: u64::from(capacity.slots.max(1)),
            speed: capacity.bytes_per_second.filter(|speed| *speed > 0),
            source: SourceMap::new(facts),
        }
    }

    fn split(&self) -> Result<StepPlan, PlanError> {
        let asked = self.asked_count()?;
        let merge = self.merge()?;
        let (cut, why) = self.choose(asked)?;
        let (method, (exchanged, execute, note)) = match cut {
            Cut::Source(method) => {
                let (execute, note) = self.by_source(method, asked)?;
                (method, (None, execute, note))
            }
            Cut::Single => (
                Method::Single,
                (None, self.rows_of_source(vec![self.facts.domain]), String::new()),
            ),
            Cut::Hash(columns) => (Method::Hash, through(self.by_hash(columns, asked))),
            Cut::Sorted(column, first) => (Method::KeyRange, through(self.by_order(column, first, asked)?)),
            Cut::Quantiles(column) => (Method::KeyRange, through(self.by_quantiles(column, asked)?)),
            Cut::Written(column, ranges, outside) => (
                Method::KeyRange,
                through(self.by_written(column, ranges, outside, asked)?),
            ),
        };
        self.within_limit(execute.len())?;
        let scatter = match exchanged {
            Some(_) => self.scatter(),
            None => Vec::new(),
        };
        let reason = match note.is_empty() {
            true => why,
            false => format!("{why}; {note}"),
        };
        Ok(StepPlan {
            method,
            reason,
            exchange: exchanged,
            scatter,
            execute,
            merge,
        })
    }

    fn asked_count(&self) -> Result<Option<u32>, PlanError> {
        match self.step.partition.count {
            Count::Auto => Ok(None),
            Count::Fixed(0) => Err(PlanError::ZeroCount),
            Count::Fixed(count) => self.within_limit(count as usize).map(|()| Some(count)),
        }
    }

    fn within_limit(&self, count: usize) -> Result<(), PlanError> {
        match count <= MAX_PARTITIONS as usize {
            true => Ok(()),
            false => Err(PlanError::TooMany {
                asked: count as u64,
                limit: MAX_PARTITIONS,
            }),
        }
    }

    fn merge(&self) -> Result<Option<u32>, PlanError> {
        match self.step.sink.file().and_then(|file| file.files) {
            Some(0) => Err(PlanError::ZeroFiles),
            Some(files) => self.within_limit(files as usize).map(|()| Some(files)),
            None => Ok(None),
        }
    }

    /// Decides the kind of cut, and says why.
    fn choose(&self, asked: Option<u32>) -> Result<(Cut<'a>, String), PlanError> {
        let facts = self.facts;
        let why = &facts.transform.reason;
        let one = asked == Some(1);
        let keys = match &facts.transform.mode {
            TransformMode::RowWise { .. } => None,
            TransformMode::Whole { keys } => Some(keys),
        };
        if let Some(first) = self.step.sort.first() {
            return self.choose_sorted(first, keys, asked);
        }
        let wanted = &self.step.partition.method;
        let by = match wanted {
            Wanted::Auto => return self.choose_freely(keys, asked),
            Wanted::Bytes | Wanted::Files | Wanted::RowGroups => {
                let method = self.source_method(wanted)?;
                let Some(keys) = keys else {
                    return Ok((Cut::Source(method), format!("{} as the job says", method.name())));
                };
                let lone_file = method == Method::Files && facts.files.len() <= 1 && asked.is_none();
                return match one || lone_file {
                    true => Ok((
                        Cut::Single,
                        format!("one partition, as the SQL works on all rows ({why})"),
                    )),
                    false => Err(PlanError::TearsRows {
                        method,
                        keys: keys.clone(),
                        why: why.clone(),
                    }),
                };
            }
            Wanted::KeyRange { column, .. } => std::slice::from_ref(column),
            Wanted::Hash { columns } => &columns[..],
        };
        if by.is_empty() {
            return Err(PlanError::NoColumns);
        }
        for column in by {
            self.key_type(column)?;
        }
        if let Some(keys) = keys.filter(|keys| !by.iter().all(|column| keys.contains(column))) {
            return match (one, keys.is_empty()) {
                (true, _) => Ok((
                    Cut::Single,
                    format!("one partition as the job says; the SQL is whole: {why}"),
                )),
                (false, true) => Err(PlanError::NeedsOne {
                    asked,
                    why: why.clone(),
                }),
                (false, false) => Err(PlanError::SplitsGroups {
                    by: by.to_vec(),
                    keys: keys.clone(),
                    why: why.clone(),
                }),
            };
        }
        Ok(match wanted {
            Wanted::KeyRange {
                column,
                ranges,
                outside,
            } if !ranges.is_empty() => (
                Cut::Written(column, ranges, *outside),
                format!("key ranges of '{column}' as the job file lists them"),
            ),
            Wanted::KeyRange { column, .. } => (
                Cut::Quantiles(column),
                format!("key ranges of '{column}' as the job says"),
            ),
            _ => (
                Cut::Hash(by.to_vec()),
                format!("hash of ({}) as the job says", by.join(", ")),
            ),
        })
    }

    /// A sorted output is cut by ranges of what its first column carries, so that partitions follow one another in the
    /// output's order; else one partition sorts everything.
    fn choose_sorted(
        &self,
        first: &'a SortColumn,
        keys: Option<&Vec<String>>,
        asked: Option<u32>,
    ) -> Result<(Cut<'a>, String), PlanError> {
        let order = order::display(&self.step.sort);
        if asked.unwrap_or_else(|| self.execute_count().0) == 1 {
            let small = match asked {
                Some(_) => "as the job says",
                None => "the input is small",
            };
            let reason = format!("one partition, {small}, sorts by {order}: no exchange is needed");
            return Ok((Cut::Single, reason));
        }
        let transform = &self.facts.transform.reason;
        let why = match &self.facts.sample {
            None => format!(
                "the SQL makes '{}', or its type has no key order, so its ranges are not known before",
                first.column
            ),
            Some(sample) => match keys {
                Some(keys) if !keys.contains(&sample.column) => {
                    format!("the SQL brings other rows together ({transform})")
                }
                _ => {
                    let reason = format!("ranges of '{}': the output is sorted by {order}", sample.column);
                    return Ok((Cut::Sorted(&sample.column, first), reason));
                }
            },
        };
        match asked {
            Some(count) => Err(PlanError::SortInOne { count, why }),
            None => Ok((
                Cut::Single,
                format!("one partition sorts by {order}: {why}; a step of its own that sorts runs in parallel"),
            )),
        }
    }

    /// The automatic choice of method.
    fn choose_freely(&self, keys: Option<&Vec<String>>, asked: Option<u32>) -> Result<(Cut<'a>, String), PlanError> {
        let why = &self.facts.transform.reason;
        let Some(keys) = keys else {
            let (method, what) = match self.facts.unit {
                Unit::Byte => (Method::Bytes, "byte ranges: the SQL works row by row"),
                Unit::File => (
                    Method::Files,
                    "whole files: they are compressed or their records span lines",
                ),
                Unit::RowGroup => (Method::RowGroups, "row groups: the SQL works row by row"),
                Unit::Number | Unit::Bucket => (Method::Sequence, "stretches of the sequence"),
                Unit::Mixed => (
                    Method::Bytes,
                    "stretches of the inputs, each cut as its format can be: the SQL works row by row",
                ),
            };
            let per_file = self.facts.files.len() as u32;
            // A count of the user's own, or too many files, groups files instead.
            let method = match method {
                Method::Files if asked.is_some_and(|count| count != per_file) || per_file > MAX_PARTITIONS => {
                    Method::Bytes
                }
                method => method,
            };
            return Ok((Cut::Source(method), what.to_string()));
        };
        // Rows with equal keys meet under any part of the keys; not every type can be hashed.
        let by: Vec<String> = keys.iter().filter(|key| self.key_type(key).is_ok()).cloned().collect();
        if by.is_empty() {
            return match asked {
                Some(count) if count > 1 => Err(PlanError::NeedsOne {
                    asked,
                    why: why.clone(),
                }),
                _ => Ok((
                    Cut::Single,
                    format!("one partition: the SQL needs all rows together ({why})"),
                )),
            };
        }
        if asked.unwrap_or_else(|| self.execute_count().0) == 1 {
            let small = match asked {
                Some(_) => "as the job says",
                None => "the input is small",
            };
            return Ok((
                Cut::Single,
                format!("one partition, {small}: no exchange is needed ({why})"),
            ));
        }
        let reason = format!("hash of ({}): the SQL needs equal keys together ({why})", by.join(", "));
        Ok((Cut::Hash(by), reason))
    }

    fn source_method(&self, wanted: &Wanted) -> Result<Method, PlanError> {
        let method = match wanted {
            Wanted::Files => Method::Files,
            Wanted::RowGroups => Method::RowGroups,
            _ => Method::Bytes,
        };
        let fits = match (method, self.facts.unit) {
            (Method::Files, Unit::Byte | Unit::File | Unit::RowGroup | Unit::Mixed) => true,
            (Method::RowGroups, Unit::RowGroup) => true,
            // Whole files cut by their size.
            (Method::Bytes, Unit::Byte | Unit::File | Unit::Mixed) => true,
            _ => false,
        };
        match fits {
            true => Ok(method),
            false => Err(PlanError::MethodNotForSource {
                method,
                unit: self.facts.unit,
            }),
        }
    }

    fn key_type(&self, name: &str) -> Result<KeyType, PlanError> {
        let Some(column) = self.facts.columns.iter().find(|column| column.name == name) else {
            return Err(PlanError::NoSuchColumn {
                column: name.to_string(),
                known: self.facts.columns.iter().map(|column| column.name.clone()).collect(),
            });
        };
        column.key_type.ok_or_else(|| PlanError::NotAKey {
            column: name.to_string(),
        })
    }

    /// How many execute partitions, where the job leaves it open, and why.
    fn execute_count(&self) -> (u32, String) {
        let bytes = self.facts.bytes;
        let by_size = self.execute_by_size(bytes);
        let by_slots = self.execute_by_slots(bytes);
        let count = self.full_rounds(by_size).max(by_slots).min(u64::from(MAX_PARTITIONS)) as u32;
        let why = match by_slots > by_size {
            _ if count == 1 => "the input is small".to_string(),
            true if by_slots == self.slots * EXECUTE_PER_SLOT => {
                format!("{EXECUTE_PER_SLOT} for each of {} slots", self.slots)
            }
            true => format!("about {} MiB of input each", EXECUTE_LEAST_BYTES >> 20),
            false => match self.speed {
                Some(speed) => format!(
                    "about {EXECUTE_SECONDS} s each at {} a slot, as an earlier run went",
                    rate(speed)
                ),
                None => format!("about {} MiB of input each", EXECUTE_BYTES >> 20),
            },
        };
        (count, why)
    }

    /// So many that slots stay busy to the end, and none is too small.
    fn execute_by_slots(&self, bytes: u64) -> u64 {
        (self.slots * EXECUTE_PER_SLOT).min(bytes / EXECUTE_LEAST_BYTES)
    }

    fn scatter_by_slots(&self, bytes: u64) -> u64 {
        (self.slots * SCATTER_PER_SLOT).min(bytes / SCATTER_LEAST_BYTES)
    }

    /// So many that each is some seconds of work: as known from an earlier run, else by a usual size.
    fn execute_by_size(&self, bytes: u64) -> u64 {
        let usual = bytes.div_ceil(EXECUTE_BYTES).max(1);
        match self.speed {
            Some(speed) => {
                let most = (usual * EXECUTE_MOST_FOR_USUAL).max(self.slots * EXECUTE_MOST_PER_SLOT);
                bytes.div_ceil(speed.saturating_mul(EXECUTE_SECONDS)).clamp(1, most)
            }
            None => usual,
        }
    }

    fn count(&self, asked: Option<u32>) -> (u32, String) {
        match asked {
            Some(count) => (count, format!("{} as the job says", partitions(count))),
            None => {
                let (count, why) = self.execute_count();
                (count, format!("{}: {why}", partitions(count)))
            }
        }
    }

    fn by_source(&self, method: Method, asked: Option<u32>) -> Result<(Vec<Partition>, String), PlanError> {
        if method == Method::Files {
            let spans = file_spans(self.facts);
            if let Some(count) = asked.filter(|&count| count as usize != spans.len()) {
                return Err(PlanError::CountAgainstFiles {
                    count,
                    files: spans.len(),
                });
            }
            self.within_limit(spans.len())?;
            let ranges = if spans.is_empty() {
                vec![self.facts.domain]
            } else {
                spans
            };
            return Ok((self.rows_of_source(ranges), "one partition for each file".to_string()));
        }
        let (count, why) = self.count(asked);
        // More partitions than units come only on request: the rest of them stay empty.
        let most = self.facts.domain.len().clamp(1, u64::from(MAX_PARTITIONS)) as u32;
        let cut = asked.unwrap_or_else(|| count.min(most));
        let why = match cut == count {
            true => why,
            false => format!("{}: there is nothing finer to cut", partitions(cut)),
        };
        Ok((self.rows_of_source(self.source.cut(cut)), why))
    }

    /// A count at which no slot is idle while others work off the last partitions: a multiple of the
    /// slots, where there is more than one partition for each.
    fn full_rounds(&self, count: u64) -> u64 {
        match count > self.slots {
            true => count.next_multiple_of(self.slots),
            false => count,
        }
    }

    fn rows_of_source(&self, ranges: Vec<UnitRange>) -> Vec<Partition> {
        let row = |(number, units)| Partition {
            number,
            units,
            keys: None,
            estimate: self.source.estimate(units),
        };
        (0..).zip(ranges).map(row).collect()
    }

    fn scatter(&self) -> Vec<Partition> {
        let bytes = self.facts.bytes;
        let by_size = bytes.div_ceil(SCATTER_BYTES);
        let by_slots = self.scatter_by_slots(bytes);
        let most = self.facts.domain.len().clamp(1, u64::from(MAX_PARTITIONS));
        let count = self.full_rounds(by_size).max(by_slots).clamp(1, most) as u32;
        self.rows_of_source(self.source.cut(count))
    }
}

fn rate(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB/s", bytes >> 10),
        mib => format!("{mib} MiB/s"),
    }
}

fn partitions(count: u32) -> String {
    match count {
        1 => "1 partition".to_string(),
        _ => format!("{count} partitions"),
    }
}

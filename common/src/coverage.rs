//! Coverage: do the ranges of a step tile their universe?
//!
//! Two universes: the units `[low, high)` of a dense domain, and the keys `(-inf, +inf)` of a column
//! with NULL as a place of its own. A check reports every fault with its exact interval, never only
//! the first. Below stand the two questions of a restart: what is left, and how to cut it anew.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    ids::PartitionNo,
    key::{Key, KeyType},
    range::{KeyInterval, KeyRange, UnitRange},
};

/// What a set of ranges has to tile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Universe {
    /// `of` says what a unit is, in the plural: "bytes of the source", "buckets of the exchange".
    Units { of: String, domain: UnitRange },
    /// All values of a column, NULL included.
    Keys { column: String, key_type: KeyType },
}

impl fmt::Display for Universe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Universe::Units { of, domain } => write!(f, "{of} {domain}"),
            Universe::Keys { column, .. } => write!(f, "keys of column '{column}', (-inf, +inf) and NULL"),
        }
    }
}

/// A stretch of a universe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    Units(UnitRange),
    Keys(KeyInterval),
    Null,
}

impl Span {
    /// Shows the stretch in interval notation, or as the one value that it holds.
    pub fn display(&self, universe: &Universe) -> String {
        match (self, universe) {
            (Span::Units(range), _) if range.low < range.high && range.len() == 1 => range.low.to_string(),
            (Span::Units(range), _) => range.to_string(),
            (Span::Keys(interval), Universe::Keys { key_type, .. }) => match only_key(interval, *key_type) {
                Some(key) => key.display(*key_type),
                None => interval.display(*key_type),
            },
            (Span::Keys(interval), Universe::Units { .. }) => interval.display(KeyType::Int),
            (Span::Null, _) => "NULL".to_string(),
        }
    }

    fn holds_one(&self, universe: &Universe) -> bool {
        match (self, universe) {
            (Span::Units(range), _) => range.low < range.high && range.len() == 1,
            (Span::Keys(interval), Universe::Keys { key_type, .. }) => only_key(interval, *key_type).is_some(),
            (Span::Keys(_), Universe::Units { .. }) => false,
            (Span::Null, _) => true,
        }
    }
}

/// The key that an interval of a countable domain holds alone.
fn only_key(interval: &KeyInterval, ty: KeyType) -> Option<&Key> {
    let low = interval.low.as_ref()?;
    match (&interval.high, low.successor(ty)) {
        (Some(high), Some(next)) if *high == next => Some(low),
        // NaN is the greatest float: nothing follows it.
        (None, _) if matches!(low, Key::Float(value) if value.is_nan()) => Some(low),
        _ => None,
    }
}

/// A partition, with the stretch it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub partition: PartitionNo,
    pub span: Span,
}

/// One way in which ranges fail to tile their universe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// There is no partition at all.
    NoPartitions,
    /// The low end lies above the high end, or the key range holds no key.
    Inverted(Held),
    /// In no partition. `seen`: a sampled key that lies in it, where one is known.
    Gap {
        span: Span,
        before: Option<Held>,
        after: Option<Held>,
        seen: Option<Key>,
    },
    /// In two partitions, and in `more` beside them.
    Overlap {
        span: Span,
        first: Held,
        second: Held,
        more: usize,
    },
    /// Beyond the ends of the universe.
    Outside { held: Held, beyond: Span },
    /// Reaches over the end of a file where each partition has to stay within one.
    CrossesFile { held: Held, file: String },
    /// The keys a partition states are not those of its buckets.
    WrongKeys { held: Held, stated: String, actual: String },
    /// Partitions must be numbered from 0 in order: files and commits are named by the number.
    Misnumbered { position: usize, found: PartitionNo },
    /// Bucket bounds must rise strictly: bucket `bucket` would hold no key.
    UnorderedBounds { bucket: u32 },
    /// The number of buckets is not what the bucket function gives.
    WrongBuckets { stated: u32, actual: u32 },
    /// Rows that the SQL needs together may land in different partitions.
    SplitsGroups { by: Vec<String>, keys: Vec<String> },
}

/// Why the ranges of a step do not tile their universe: every fault, in the order of the universe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct CoverageError {
    pub universe: Universe,
    /// Whether partitions are ranges as the user wrote them: they are then counted from 1.
    pub written: bool,
    pub faults: Vec<Fault>,
}

impl CoverageError {
    /// A message for people shows this many faults; `faults` holds them all.
    pub const SHOWN: usize = 12;

    fn name(&self, held: &Held) -> String {
        let span = held.span.display(&self.universe);
        match self.written {
            true => format!("range {} {span}", held.partition + 1),
            false => format!("partition {} {span}", held.partition),
        }
    }

    fn describe(&self, fault: &Fault) -> String {
        let universe = &self.universe;
        let noun = if self.written { "range" } else { "partition" };
        let column = match universe {
            Universe::Keys { column, .. } => format!(" of column '{column}'"),
            Universe::Units { of, .. } => format!(" of the {of}"),
        };
        match fault {
            Fault::NoPartitions => format!("no {noun} at all: nothing{column} would be read; give at least one"),
            Fault::Inverted(held) => format!(
                "{}{column} holds nothing: its low end is not below its high end; swap the ends or leave it out",
                self.name(held)
            ),
            Fault::Gap {
                span,
                before,
                after,
                seen,
            } => {
                let place = span.display(universe);
                let at = if span.holds_one(universe) { "at " } else { "" };
                let beside = match (before, after) {
                    (Some(low), Some(high)) => format!(", between {} and {}", self.name(low), self.name(high)),
                    (Some(low), None) => format!(", above {}", self.name(low)),
                    (None, Some(high)) => format!(", below {}", self.name(high)),
                    (None, None) => String::new(),
                };
                let seen = match (seen, universe) {
                    (Some(key), Universe::Keys { key_type, .. }) => {
                        format!(" (the source holds such keys: {})", key.display(*key_type))
                    }
                    _ => String::new(),
                };
                let remedy = match (span, self.written) {
                    (Span::Null, true) => "set `null: true` on one range or `outside: partition`",
                    (_, true) => "widen a range, leave its end open, or set `outside: partition`",
                    (_, false) => "this plan must not run: plan the step anew",
                };
                format!("gap {at}{place}{column}{beside}: in no {noun}{seen}; {remedy}")
            }
            Fault::Overlap {
                span,
                first,
                second,
                more,
            } => {
                let place = span.display(universe);
                let at = if span.holds_one(universe) { "at " } else { "" };
                let more = match more {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let remedy = match self.written {
                    true => "each key must be in one range: end one range where the other begins",
                    false => "this plan must not run: plan the step anew",
                };
                format!(
                    "overlap {at}{place}{column}: in {}, {}{more}; {remedy}",
                    self.name(first),
                    self.name(second)
                )
            }
            Fault::Outside { held, beyond } => format!(
                "{} reaches beyond the {universe} by {}; this plan must not run: plan the step anew",
                self.name(held),
                beyond.display(universe)
            ),
            Fault::CrossesFile { held, file } => format!(
                "{} reaches over the end of file '{file}', but each partition has to stay within one file; \
                 plan the step anew or partition by bytes",
                self.name(held)
            ),
            Fault::WrongKeys { held, stated, actual } => format!(
                "{} is said to hold {stated}, but its buckets hold {actual}; plan the step anew",
                self.name(held)
            ),
            Fault::Misnumbered { position, found } => {
                format!("{noun} {position} of the table carries the number {found}; plan the step anew")
            }
            Fault::UnorderedBounds { bucket } => {
                format!("bucket {bucket}{column} holds no key: its bounds do not rise; plan the step anew")
            }
            Fault::WrongBuckets { stated, actual } => {
                format!("the plan has {stated} buckets, its bucket function gives {actual}; plan the step anew")
            }
            Fault::SplitsGroups { by, keys } => match keys.is_empty() {
                true => "the SQL needs all rows together, but there are several partitions; use one".to_string(),
                false => format!(
                    "the SQL needs rows with equal ({}) together, but the cut is by ({}); cut by those columns",
                    keys.join(", "),
                    by.join(", ")
                ),
            },
        }
    }
}

impl fmt::Display for CoverageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().take(Self::SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.describe(fault))?;
        }
        match self.faults.len().saturating_sub(Self::SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more faults"),
        }
    }
}

/// An end of a range; the order of the variants is that of the line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edge<B> {
    Least,
    At(B),
    Greatest,
}

/// A stretch between two neighbouring edges that is not held exactly once.
struct Finding<B> {
    low: Edge<B>,
    high: Edge<B>,
    /// Indexes of the ranges that hold it, two at most, and how many there are.
    holders: Vec<usize>,
    held_by: usize,
    /// Indexes of a range that ends at `low` and of one that begins at `high`.
    before: Option<usize>,
    after: Option<usize>,
}

/// Sweeps over the edges of `ranges` within `universe`. Ranges must run upwards (or be empty, then
/// they hold nothing).
fn sweep<B: Ord + Clone>(universe: (Edge<B>, Edge<B>), ranges: &[(Edge<B>, Edge<B>)]) -> Vec<Finding<B>> {
    let mut events: Vec<(&Edge<B>, bool, usize)> = Vec::with_capacity(ranges.len() * 2);
    for (index, (low, high)) in ranges.iter().enumerate().filter(|(_, (low, high))| low < high) {
        events.push((low, true, index));
        events.push((high, false, index));
    }
    events.sort();
    let mut findings = Vec::new();
    let mut open: BTreeSet<usize> = BTreeSet::new();
    let (mut at, mut before) = (universe.0.clone(), None);
    let mut next = 0;
    while at < universe.1 {
        let (mut closed, mut opened) = (None, None);
        while let Some((_, opens, index)) = events.get(next).filter(|(edge, ..)| **edge <= at) {
            match opens {
                true => {
                    open.insert(*index);
                    opened.get_or_insert(*index);
                }
                false => {
                    open.remove(index);
                    closed.get_or_insert(*index);
                }
            }
            next += 1;
        }
        before = closed.or(before);
        let high = events
            .get(next)
            .map_or(&universe.1, |(edge, ..)| *edge)
            .min(&universe.1)
            .clone();
        if open.len() != 1 {
            let after = events
                .get(next)
                .filter(|(edge, opens, _)| *opens && **edge == high)
                .map(|event| event.2);
            findings.push(Finding {
                low: at,
                high: high.clone(),
                holders: open.iter().copied().take(2).collect(),
                held_by: open.len(),
                before,
                after,
            });
        }
        at = high;
    }
    findings
}

fn faults_of<B: Ord + Clone>(
    findings: Vec<Finding<B>>,
    held: &[Held],
    span: impl Fn(Edge<B>, Edge<B>) -> Span,
) -> Vec<Fault> {
    let faults = findings.into_iter().map(|finding| {
        let span = span(finding.low, finding.high);
        match finding.holders[..] {
            [first, second, ..] => Fault::Overlap {
                span,
                first: held[first].clone(),
                second: held[second].clone(),
                more: finding.held_by - 2,
            },
            _ => Fault::Gap {
                span,
                before: finding.before.map(|index| held[index].clone()),
                after: finding.after.map(|index| held[index].clone()),
                seen: None,
            },
        }
    });
    faults.collect()
}

/// Every fault of unit ranges that ought to tile `domain`. Empty ranges within it are legal.
pub fn unit_faults(domain: UnitRange, parts: &[(PartitionNo, UnitRange)]) -> Vec<Fault> {
    if parts.is_empty() {
        return vec![Fault::NoPartitions];
    }
    let mut faults = Vec::new();
    let (mut held, mut ranges) = (Vec::new(), Vec::new());
    for &(partition, range) in parts {
        let this = Held {
            partition,
            span: Span::Units(range),
        };
        if range.low > range.high {
            faults.push(Fault::Inverted(this));
            continue;
        }
        let beyond = [
            UnitRange {
                low: range.low,
                high: range.high.min(domain.low),
            },
            UnitRange {
                low: range.low.max(domain.high),
                high: range.high,
            },
        ];
        // An empty range has no place beyond the ends either, though it holds nothing there.
        let stray = range.is_empty() && (range.low < domain.low || range.low > domain.high);
        for beyond in beyond.into_iter().filter(|beyond| beyond.low < beyond.high) {
            faults.push(Fault::Outside {
                held: this.clone(),
                beyond: Span::Units(beyond),
            });
        }
        if stray {
            faults.push(Fault::Outside {
                held: this.clone(),
                beyond: this.span.clone(),
            });
        }
        ranges.push((Edge::At(range.low), Edge::At(range.high)));
        held.push(this);
    }
    let findings = sweep((Edge::At(domain.low), Edge::At(domain.high)), &ranges);
    faults.extend(faults_of(findings, &held, |low, high| match (low, high) {
        (Edge::At(low), Edge::At(high)) => Span::Units(UnitRange { low, high }),
        // Both ends of a unit domain are numbers.
        _ => Span::Units(domain),
    }));
    faults
}

/// Every fault of key ranges that ought to tile all keys and NULL. A range without a key is a fault.
pub fn key_faults(ty: KeyType, parts: &[(PartitionNo, KeyRange)]) -> Vec<Fault> {
    if parts.is_empty() {
        return vec![Fault::NoPartitions];
    }
    let mut faults = Vec::new();
    let (mut held, mut ranges) = (Vec::new(), Vec::new());
    for (partition, range) in parts {
        let Some(interval) = &range.interval else { continue };
        let this = Held {
            partition: *partition,
            span: Span::Keys(interval.clone()),
        };
        if interval.holds_nothing(ty) {
            faults.push(Fault::Inverted(this));
            continue;
        }
        let interval = interval.clone().widened(ty);
        let low = interval.low.map_or(Edge::Least, Edge::At);
        let high = interval.high.map_or(Edge::Greatest, Edge::At);
        ranges.push((low, high));
        held.push(this);
    }
    faults.extend(faults_of(
        sweep((Edge::Least, Edge::Greatest), &ranges),
        &held,
        |low, high| {
            let bound = |edge| match edge {
                Edge::At(key) => Some(key),
                Edge::Least | Edge::Greatest => None,
            };
            Span::Keys(KeyInterval {
                low: bound(low),
                high: bound(high),
            })
        },
    ));
    let nulls: Vec<Held> = parts
        .iter()
        .filter(|(_, range)| range.null)
        .map(|(partition, range)| Held {
            partition: *partition,
            span: range.interval.clone().map_or(Span::Null, Span::Keys),
        })
        .collect();
    match &nulls[..] {
        [] => faults.push(Fault::Gap {
            span: Span::Null,
            before: None,
            after: None,
            seen: None,
        }),
        [_] => {}
        [first, second, rest @ ..] => faults.push(Fault::Overlap {
            span: Span::Null,
            first: first.clone(),
            second: second.clone(),
            more: rest.len(),
        }),
    }
    faults
}

/// Whether unit ranges tile `domain`; `of` names the units in the plural.
pub fn check_units(of: &str, domain: UnitRange, parts: &[(PartitionNo, UnitRange)]) -> Result<(), CoverageError> {
    let universe = Universe::Units {
        of: of.to_string(),
        domain,
    };
    refuse(universe, false, unit_faults(domain, parts))
}

/// Whether key ranges tile all keys of `column` and NULL. `written`: see [`CoverageError`].
pub fn check_keys(
    column: &str,
    key_type: KeyType,
    written: bool,
    parts: &[(PartitionNo, KeyRange)],
) -> Result<(), CoverageError> {
    let universe = Universe::Keys {
        column: column.to_string(),
        key_type,
    };
    refuse(universe, written, key_faults(key_type, parts))
}

/// An error of `faults`, where there are any.
pub fn refuse(universe: Universe, written: bool, faults: Vec<Fault>) -> Result<(), CoverageError> {
    match faults.is_empty() {
        true => Ok(()),
        false => Err(CoverageError {
            universe,
            written,
            faults,
        }),
    }
}

/// The bucket of NULL in [`crate::plan::BucketFn::KeyRange`] with so many bounds: the last, unless the plan says
/// otherwise.
pub fn null_bucket(bounds: usize, placed: Option<u32>) -> u64 {
    placed.map_or(bounds as u64 + 1, u64::from)
}

/// The keys in the buckets `units` of [`crate::plan::BucketFn::KeyRange`] with these bounds.
pub fn keys_of_buckets(bounds: &[Key], placed: Option<u32>, units: UnitRange) -> KeyRange {
    let null = null_bucket(bounds.len(), placed);
    // Buckets of keys below a bucket, all of them but that of NULL.
    let below = |bucket: u64| bucket - u64::from(bucket > null);
    let (low, high) = (below(units.low), below(units.high).min(bounds.len() as u64 + 1));
    let bound = |bucket: u64| (bucket > 0).then(|| bounds.get(bucket as usize - 1).cloned()).flatten();
    KeyRange {
        interval: (low < high).then(|| KeyInterval {
            low: bound(low),
            high: bound(high),
        }),
        null: units.low <= null && null < units.high,
    }
}

/// The same buckets, counted from the other end.
pub fn mirrored(units: UnitRange, buckets: u64) -> UnitRange {
    UnitRange::new(buckets.saturating_sub(units.high), buckets.saturating_sub(units.low))
}

/// What is left of partitions after their positions: ascending stretches that do not touch.
/// The ranges must not overlap (a validated plan's do not).
pub fn left(parts: impl IntoIterator<Item = (UnitRange, u64)>) -> Vec<UnitRange> {
    let mut rest: Vec<UnitRange> = parts
        .into_iter()
        .map(|(range, position)| range.after(position))
        .filter(|range| !range.is_empty())
        .collect();
    rest.sort();
    let mut merged: Vec<UnitRange> = Vec::with_capacity(rest.len());
    for range in rest {
        match merged.last_mut() {
            Some(last) if last.high == range.low => last.high = range.high,
            _ => merged.push(range),
        }
    }
    merged
}

/// Cuts stretches anew into about `count` ranges of like length: never fewer than there are
/// stretches, never more than `count` beside that, each within one stretch, none empty. Together they
/// hold exactly what `stretches` hold. `walls` are places no range may reach over (file ends), in
/// ascending order.
pub fn recut(stretches: &[UnitRange], count: u32, walls: &[u64]) -> Vec<UnitRange> {
    let mut walled = Vec::with_capacity(stretches.len());
    for &stretch in stretches.iter().filter(|stretch| !stretch.is_empty()) {
        let mut low = stretch.low;
        let first = walls.partition_point(|&wall| wall <= stretch.low);
        for &wall in walls[first..].iter().take_while(|&&wall| wall < stretch.high) {
            if wall > low {
                walled.push(UnitRange::new(low, wall));
                low = wall;
            }
        }
        walled.push(UnitRange::new(low, stretch.high));
    }
    let total: u128 = walled.iter().map(|range| u128::from(range.len())).sum();
    let piece = total.div_ceil(u128::from(count.max(1))).max(1);
    let mut cut = Vec::new();
    for range in walled {
        // Rounded down, so that the pieces of all stretches together stay within `count`.
        let pieces = (u128::from(range.len()) / piece).max(1) as u64;
        cut.extend(evenly(range, pieces));
    }
    cut
}

/// Cuts a range into `pieces` whose lengths differ by one at most; some are empty where there are
/// fewer units than pieces.
pub fn evenly(range: UnitRange, pieces: u64) -> impl Iterator<Item = UnitRange> {
    let at =
        move |index: u64| range.low + (u128::from(range.len()) * u128::from(index) / u128::from(pieces.max(1))) as u64;
    (0..pieces.max(1)).map(move |index| UnitRange::new(at(index), at(index + 1)))
}

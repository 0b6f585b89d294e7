//! What is left of a stage, cut finer.

use gapless_common::{
    coverage,
    ids::{PartitionNo, Stage},
    job::{Count, Partition as Wanted, Step},
    plan::{Estimate, Facts, Method, Partition, StepPlan},
    range::UnitRange,
};

use super::{Capacity, MAX_PARTITIONS, Planner};
use crate::limits::MAX_RECUT;

/// A partition that is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    pub number: PartitionNo,
    /// What of it is not committed yet.
    pub units: UnitRange,
    /// Somebody works on it.
    pub is_held: bool,
}

/// Partitions that are narrower than they were, and new ones that take what those gave away, numbered after the
/// last. Empty where there are enough for `capacity` already, or where the cut is the user's own.
///
/// A narrowed partition keeps what it has committed and at least one unit to go on with.
pub fn recut(
    step: &Step,
    facts: &Facts,
    plan: &StepPlan,
    stage: Stage,
    left: &[Left],
    capacity: Capacity,
) -> Vec<Partition> {
    let planner = Planner::new(step, facts, capacity);
    let table = match stage {
        Stage::Scatter => &plan.scatter,
        _ => &plan.execute,
    };
    if stage != Stage::Scatter && !may_be_finer(step, plan) {
        return Vec::new();
    }
    let exchange = plan.exchange.as_ref().filter(|_| stage != Stage::Scatter);
    let estimate = |units: UnitRange| match exchange {
        Some(exchange) => planner.share_of(units, u64::from(exchange.buckets)),
        None => planner.source.estimate(units),
    };
    let bytes: u64 = left.iter().map(|left| estimate(left.units).bytes).sum();
    let wanted = match stage {
        Stage::Scatter => planner.scatter_by_slots(bytes),
        _ => planner.execute_by_slots(bytes),
    };
    let most = (MAX_PARTITIONS as usize).saturating_sub(table.len()).min(MAX_RECUT);
    let more = usize::try_from(wanted)
        .unwrap_or(usize::MAX)
        .saturating_sub(left.len())
        .min(most);
    let mut free: Vec<&Left> = left
        .iter()
        .filter(|left| !left.is_held && !left.units.is_empty())
        .collect();
    if more == 0 || free.is_empty() {
        return Vec::new();
    }
    free.sort_by_key(|left| left.units);
    let rests: Vec<UnitRange> = free.iter().map(|left| left.units).collect();
    let pieces = coverage::recut(&rests, (free.len() + more) as u32, &[]);
    let (mut narrowed, mut added) = (Vec::new(), Vec::new());
    let mut pieces = pieces.into_iter().peekable();
    for (rest, left) in rests.iter().zip(free) {
        let Some(first) = pieces.next() else { break };
        if first.high == rest.high {
            continue;
        }
        let low = table[left.number as usize].units.low;
        narrowed.push((left.number, UnitRange::new(low, first.high)));
        while let Some(piece) = pieces.next_if(|piece| piece.low < rest.high) {
            added.push(piece);
        }
    }
    let row = |(number, units): (PartitionNo, UnitRange)| Partition {
        number,
        units,
        keys: exchange.and_then(|exchange| exchange.keys(units)),
        estimate: estimate(units),
    };
    let added = (table.len() as PartitionNo..).zip(added);
    narrowed.into_iter().chain(added).map(row).collect()
}

/// Whether the cut is ours, and may be finer than it is.
fn may_be_finer(step: &Step, plan: &StepPlan) -> bool {
    let written = matches!(&step.partition.method, Wanted::KeyRange { ranges, .. } if !ranges.is_empty());
    let ours = step.partition.count == Count::Auto && !written;
    match plan.method {
        Method::Bytes | Method::RowGroups | Method::KeyRange | Method::Hash | Method::Sequence => ours,
        // One for each file is what was asked for; one for all is all there can be.
        Method::Files | Method::Single => false,
    }
}

impl Planner<'_> {
    /// The part of the source that these of so many buckets hold, if they are alike.
    pub(super) fn share_of(&self, units: UnitRange, buckets: u64) -> Estimate {
        let below =
            |total: u64, bucket: u64| (u128::from(total) * u128::from(bucket) / u128::from(buckets.max(1))) as u64;
        let share = |total: u64| below(total, units.high) - below(total, units.low);
        Estimate {
            rows: share(self.facts.rows),
            bytes: share(self.facts.bytes),
        }
    }
}

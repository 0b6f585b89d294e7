//! Cuts that run through the exchange: by hash, by quantiles, by written ranges.
//!
//! The bucket function is frozen with the plan and finer than the partitions: a restart groups the
//! same buckets anew for the workers there are then.

use gapless_common::{
    coverage::{evenly, mirrored},
    job::{Outside, WrittenRange},
    key::{Key, KeyType},
    order::SortColumn,
    plan::{BucketFn, ExchangePlan, KeySample, Partition},
    range::UnitRange,
};

use super::{PlanError, Planner, partitions, quantiles, written};

/// Fine buckets of an exchange: each fits a cache, and a restart can group them anew.
const BUCKETS: u32 = 256;
/// Buckets for each partition, so that grouping whole buckets keeps partitions within a quarter.
const BUCKETS_PER_PARTITION: u32 = 4;
/// Beyond this many buckets the index of a scattered chunk costs more than even groups are worth.
const EVEN_BUCKETS: u32 = 4096;

/// The parts of a plan that go through the exchange.
pub(super) struct Exchanged {
    pub function: BucketFn,
    pub buckets: u32,
    pub execute: Vec<Partition>,
    /// Said after the reason, where there is something to tell.
    pub note: String,
}

/// Where keys are cut into buckets, and which way these run.
struct KeyCut {
    bounds: Vec<Key>,
    null_bucket: Option<u32>,
    descending: bool,
}

impl Planner<'_> {
    pub(super) fn by_hash(&self, columns: Vec<String>, asked: Option<u32>) -> Exchanged {
        let (count, note) = self.count(asked);
        let buckets = hash_buckets(count);
        let units: Vec<UnitRange> = evenly(UnitRange::new(0, u64::from(buckets)), u64::from(count)).collect();
        let row = |(number, units): (u32, UnitRange)| Partition {
            number,
            units,
            keys: None,
            estimate: self.share_of(units, u64::from(buckets)),
        };
        let execute = (0..).zip(units).map(row).collect();
        Exchanged {
            function: BucketFn::Hash { columns },
            buckets,
            execute,
            note,
        }
    }

    pub(super) fn by_quantiles(&self, column: &str, asked: Option<u32>) -> Result<Exchanged, PlanError> {
        let key_type = self.key_type(column)?;
        let Some(sample) = self.sample(column) else {
            return Err(PlanError::NoSample {
                column: column.to_string(),
            });
        };
        let (count, why) = self.count(asked);
        let (bounds, ranges) = quantiles::key_buckets(&sample.keys, count, BUCKETS);
        let cut = ranges.len();
        let note = match cut == count as usize {
            true => why,
            false => format!("{}: the sample has no more distinct keys", partitions(cut as u32)),
        };
        let drawn = if sample.complete { "all" } else { "a sample of" };
        let note = format!("{note}; bounds are quantiles of {drawn} {} keys", sample.keys.len());
        let cut = KeyCut {
            bounds,
            null_bucket: None,
            descending: false,
        };
        Ok(self.by_keys(column, key_type, cut, ranges, note))
    }

    /// Quantiles of a column, with buckets that run in the order of a sorted output: NULL at the end where the order
    /// has it, and the greatest keys first where values fall.
    pub(super) fn by_order(
        &self,
        column: &str,
        first: &SortColumn,
        asked: Option<u32>,
    ) -> Result<Exchanged, PlanError> {
        let key_type = self.key_type(column)?;
        let Some(sample) = self.sample(column) else {
            return Err(PlanError::NoSample {
                column: column.to_string(),
            });
        };
        let (count, why) = self.count(asked);
        let (bounds, mut ranges) = quantiles::key_buckets(&sample.keys, count, BUCKETS);
        let note = match ranges.len() == count as usize {
            true => why,
            false => format!(
                "{}: the sample has no more distinct keys",
                partitions(ranges.len() as u32)
            ),
        };
        if first.null_is_least() {
            // From behind the last bucket to before the first.
            for range in &mut ranges {
                *range = UnitRange::new(range.low + 1, range.high + 1);
            }
            ranges[0].low = 0;
            if let Some(last) = ranges.last_mut() {
                last.high -= 1;
            }
        }
        let cut = KeyCut {
            bounds,
            null_bucket: first.null_is_least().then_some(0),
            descending: first.descending,
        };
        Ok(self.by_keys(column, key_type, cut, ranges, note))
    }

    pub(super) fn by_written(
        &self,
        column: &str,
        ranges: &[WrittenRange],
        outside: Outside,
        asked: Option<u32>,
    ) -> Result<Exchanged, PlanError> {
        let key_type = self.key_type(column)?;
        if let Some(count) = asked.filter(|&count| count as usize != ranges.len()) {
            return Err(PlanError::CountAgainstRanges {
                count,
                ranges: ranges.len(),
            });
        }
        let nullable = self
            .facts
            .columns
            .iter()
            .any(|known| known.name == column && known.nullable);
        let sample = self.sample(column);
        let written = written::key_buckets(column, key_type, nullable, ranges, outside, sample)?;
        let cut = KeyCut {
            bounds: written.bounds,
            null_bucket: written.null_bucket,
            descending: false,
        };
        Ok(self.by_keys(column, key_type, cut, written.units, written.note))
    }

    /// `rising`: the buckets of each partition, counted from the least keys.
    fn by_keys(
        &self,
        column: &str,
        key_type: KeyType,
        cut: KeyCut,
        mut rising: Vec<UnitRange>,
        note: String,
    ) -> Exchanged {
        let KeyCut {
            bounds,
            null_bucket,
            descending,
        } = cut;
        let estimate = quantiles::Estimator::new(self.facts, self.sample(column), &bounds, null_bucket);
        if descending {
            rising.reverse();
        }
        let exchange = ExchangePlan {
            buckets: bounds.len() as u32 + 2,
            function: BucketFn::KeyRange {
                column: column.to_string(),
                key_type,
                bounds,
                null_bucket,
                descending,
            },
        };
        let row = |(number, rising): (u32, UnitRange)| {
            let units = match descending {
                true => mirrored(rising, u64::from(exchange.buckets)),
                false => rising,
            };
            Partition {
                number,
                units,
                keys: exchange.keys(units),
                estimate: estimate.of(rising),
            }
        };
        let execute = (0..).zip(rising).map(row).collect();
        Exchanged {
            function: exchange.function,
            buckets: exchange.buckets,
            execute,
            note,
        }
    }

    fn sample(&self, column: &str) -> Option<&KeySample> {
        self.facts.sample.as_ref().filter(|sample| sample.column == column)
    }
}

pub(super) fn through(exchanged: Exchanged) -> (Option<ExchangePlan>, Vec<Partition>, String) {
    let plan = ExchangePlan {
        function: exchanged.function,
        buckets: exchanged.buckets,
    };
    (Some(plan), exchanged.execute, exchanged.note)
}

/// Fine buckets for so many partitions: a power of two, several for each partition while that is cheap.
fn hash_buckets(partitions: u32) -> u32 {
    let even = partitions
        .saturating_mul(BUCKETS_PER_PARTITION)
        .next_power_of_two()
        .min(EVEN_BUCKETS);
    even.max(partitions.next_power_of_two()).max(BUCKETS)
}

//! Key bounds from a sample: partitions of like size, each made of several fine buckets.

use gapless_common::{
    coverage::null_bucket,
    key::Key,
    plan::{Estimate, Facts, KeySample},
    range::UnitRange,
};

/// Bounds of the fine buckets and, for each partition, its buckets. Partition ends are bucket ends;
/// NULL (the last bucket) belongs to the last partition. There are `count` partitions, or as many as
/// the sample has distinct keys, where those are fewer.
pub(super) fn key_buckets(sample: &[Key], count: u32, fine: u32) -> (Vec<Key>, Vec<UnitRange>) {
    let partition_starts = starts(sample, count as usize);
    let ends = partition_starts.iter().skip(1).copied().chain([sample.len()]);
    let fine_each = (fine as usize / partition_starts.len()).max(1);
    let mut bounds: Vec<Key> = Vec::new();
    let mut units: Vec<UnitRange> = Vec::with_capacity(partition_starts.len());
    for (&start, end) in partition_starts.iter().zip(ends) {
        let low = units.last().map_or(0, |before| before.high);
        let buckets = starts(&sample[start..end], fine_each);
        units.push(UnitRange::new(low, low + buckets.len() as u64));
        // The first bucket of all is open below.
        bounds.extend(
            buckets
                .iter()
                .map(|at| start + at)
                .filter(|&at| at > 0)
                .map(|at| sample[at].clone()),
        );
    }
    if let Some(last) = units.last_mut() {
        last.high += 1;
    }
    (bounds, units)
}

/// Where each of `pieces` like stretches of sorted keys begins; a run of equal keys is never divided,
/// so each piece begins with a key of its own. The first begins at 0, also without any key.
fn starts(keys: &[Key], pieces: usize) -> Vec<usize> {
    let distinct: Vec<usize> = (1..keys.len()).filter(|&at| keys[at] != keys[at - 1]).collect();
    let cuts = pieces.max(1).min(distinct.len() + 1) - 1;
    let mut chosen = vec![0];
    let mut next = 0;
    for cut in 1..=cuts {
        let ideal = keys.len() * cut / (cuts + 1);
        // The cuts still to come need a start each.
        let last = distinct.len() - 1 - (cuts - cut);
        let above = distinct.partition_point(|&at| at < ideal);
        let nearest = match above {
            0 => 0,
            _ if above == distinct.len() => above - 1,
            _ if ideal - distinct[above - 1] < distinct[above] - ideal => above - 1,
            _ => above,
        };
        let at = nearest.clamp(next, last);
        chosen.push(distinct[at]);
        next = at + 1;
    }
    chosen
}

/// Expected rows and bytes of bucket ranges, from where the sampled keys fall.
pub(super) struct Estimator {
    rows: u64,
    bytes: u64,
    /// Sampled keys, NULLs too, in the buckets before each bucket; then all of them.
    below: Vec<u64>,
}

impl Estimator {
    /// `placed`: the bucket of NULL; `None` for the last.
    pub(super) fn new(facts: &Facts, sample: Option<&KeySample>, bounds: &[Key], placed: Option<u32>) -> Self {
        let below = sample.map_or(Vec::new(), |sample| {
            let cumulative = bounds
                .iter()
                .map(|bound| sample.keys.partition_point(|key| key < bound) as u64);
            let mut below: Vec<u64> = [0]
                .into_iter()
                .chain(cumulative)
                .chain([sample.keys.len() as u64])
                .collect();
            // One more place, at the low end of the bucket of NULL; beyond it NULLs count too.
            let null = null_bucket(bounds.len(), placed) as usize;
            if let Some(&at) = below.get(null) {
                below.insert(null, at);
                below[null + 1..].iter_mut().for_each(|count| *count += sample.nulls);
            }
            below
        });
        Self {
            rows: facts.rows,
            bytes: facts.bytes,
            below,
        }
    }

    /// Zero where nothing was sampled: not known.
    pub(super) fn of(&self, units: UnitRange) -> Estimate {
        let Some(&all) = self.below.last().filter(|&&all| all > 0) else {
            return Estimate::default();
        };
        let below = |bucket: u64| self.below.get(bucket as usize).copied().unwrap_or(all);
        let share = |total: u64, bucket| (u128::from(total) * u128::from(below(bucket)) / u128::from(all)) as u64;
        Estimate {
            rows: share(self.rows, units.high) - share(self.rows, units.low),
            bytes: share(self.bytes, units.high) - share(self.bytes, units.low),
        }
    }
}

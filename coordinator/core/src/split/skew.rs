//! Skew: how unequal the partitions of a table are expected to be.

use gapless_common::plan::{Estimate, Partition};

/// How unequal partitions are expected to be, in rows, or in bytes where rows are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    pub min: u64,
    pub median: u64,
    pub max: u64,
    pub of_rows: bool,
}

/// The skew of a partition table; `None` where nothing is known of any partition's size.
pub fn skew(partitions: &[Partition]) -> Option<Skew> {
    let sorted = |of: fn(&Estimate) -> u64| {
        let mut sizes: Vec<u64> = partitions.iter().map(|partition| of(&partition.estimate)).collect();
        sizes.sort_unstable();
        sizes
    };
    let (rows, bytes) = (sorted(|estimate| estimate.rows), sorted(|estimate| estimate.bytes));
    let of_rows = rows.last().is_some_and(|&most| most > 0);
    let sizes = if of_rows { rows } else { bytes };
    let max = *sizes.last().filter(|&&most| most > 0)?;
    Some(Skew {
        min: sizes[0],
        median: sizes[sizes.len() / 2],
        max,
        of_rows,
    })
}

//! Ranges: what a partition covers.
//!
//! Two domains are enough for every way to partition. A *unit range* counts something that is
//! dense: bytes of the pinned files laid end to end, row groups, hash buckets, sequence numbers.
//! A *key interval* is a stretch of ordered key values, with NULL as a place of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyType};

/// The half-open interval `[low, high)` of a dense domain. An empty one (`low == high`) is legal:
/// an empty file is a partition with nothing in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitRange {
    pub low: u64,
    pub high: u64,
}

impl UnitRange {
    pub fn new(low: u64, high: u64) -> Self {
        debug_assert!(low <= high, "a range runs upwards: {low}..{high}");
        Self { low, high }
    }

    pub fn len(self) -> u64 {
        self.high - self.low
    }

    pub fn is_empty(self) -> bool {
        self.low == self.high
    }

    /// What is left to do after everything below `position` is done.
    pub fn after(self, position: u64) -> UnitRange {
        UnitRange::new(position.clamp(self.low, self.high), self.high)
    }
}

impl fmt::Display for UnitRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.low, self.high)
    }
}

/// A stretch of keys `low <= key < high`, open-ended where a bound is `None`.
///
/// Half-open intervals tile without asking what lies between two keys. An inclusive upper end is
/// turned into an exclusive one when it is read, by the successor of the key (countable domains)
/// or of the prefix (text).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInterval {
    pub low: Option<Key>,
    pub high: Option<Key>,
}

impl KeyInterval {
    pub const ALL: KeyInterval = KeyInterval { low: None, high: None };

    pub fn contains(&self, key: &Key) -> bool {
        self.low.as_ref().is_none_or(|low| low <= key) && self.high.as_ref().is_none_or(|high| key < high)
    }

    pub fn is_empty(&self) -> bool {
        matches!((&self.low, &self.high), (Some(low), Some(high)) if low >= high)
    }

    /// Whether no value of the type lies within: also an interval below the least value.
    pub fn holds_nothing(&self, ty: KeyType) -> bool {
        let below_all = matches!((&self.high, ty.least()), (Some(high), Some(least)) if *high <= least);
        let above_all = matches!((&self.low, ty.greatest()), (Some(low), Some(greatest)) if *low > greatest);
        self.is_empty() || below_all || above_all
    }

    /// The same keys with bounds that bound nothing left open: no text is below the empty one, no
    /// truth value below false or above true.
    pub fn widened(self, ty: KeyType) -> KeyInterval {
        let (least, greatest) = (ty.least(), ty.greatest());
        KeyInterval {
            low: self.low.filter(|low| least.as_ref().is_none_or(|least| low > least)),
            high: self
                .high
                .filter(|high| greatest.as_ref().is_none_or(|greatest| high <= greatest)),
        }
    }

    pub fn display(&self, ty: KeyType) -> String {
        let low = self
            .low
            .as_ref()
            .map_or("(-inf".to_string(), |key| format!("[{}", key.display(ty)));
        let high = self
            .high
            .as_ref()
            .map_or("+inf)".to_string(), |key| format!("{})", key.display(ty)));
        format!("{low}, {high}")
    }
}

/// The keys of one partition: an interval, NULL, or both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    /// `None` where the partition holds NULL alone.
    pub interval: Option<KeyInterval>,
    pub null: bool,
}

impl KeyRange {
    /// A range without any key.
    pub fn nothing() -> KeyRange {
        KeyRange {
            interval: None,
            null: false,
        }
    }

    pub fn display(&self, ty: KeyType) -> String {
        match (&self.interval, self.null) {
            (Some(interval), true) => format!("{} and NULL", interval.display(ty)),
            (Some(interval), false) => interval.display(ty),
            (None, true) => "NULL".to_string(),
            (None, false) => "nothing".to_string(),
        }
    }
}

//! Time as the core sees it: a number that comes with each event.

use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01T00:00:00Z, by the clock of the shell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub fn plus_millis(self, millis: u64) -> Timestamp {
        Timestamp(self.0.saturating_add((millis as i64).saturating_mul(1000)))
    }

    /// Microseconds from `earlier` to `self`; 0 where the clock went back.
    pub fn micros_since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0).max(0) as u64
    }
}

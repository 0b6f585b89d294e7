//! Attempts, commits and counters: the words of the exactly-once protocol.

use std::{fmt, ops::AddAssign};

use serde::{Deserialize, Serialize};

use crate::ids::AttemptId;

/// The right to commit for a task: the number rises with every grant, the id is never reused.
/// Whoever acts on output shows its fence; a lower number or another id is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fence {
    pub number: u32,
    pub id: AttemptId,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attempt {} ({})", self.number, self.id)
    }
}

/// Records counted on their own at each place they pass, so that the sum is a check and not a
/// definition: without expansion `read = written + filtered + rejected`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Records taken from the source, rejected ones included.
    pub read: u64,
    /// Rows given to the sink.
    pub written: u64,
    /// Rows dropped by a filter or an unmatched look-up.
    pub filtered: u64,
    /// Records quarantined: not parsable, or breaking a rule.
    pub rejected: u64,
    /// Bytes of input taken from the source.
    pub bytes_read: u64,
    /// Bytes of output made durable.
    pub bytes_written: u64,
}

impl Counters {
    /// Whether each record read is accounted for, for a step that neither expands nor aggregates.
    pub fn reconciles(&self) -> bool {
        self.read == self.written + self.filtered + self.rejected
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.read += other.read;
        self.written += other.written;
        self.filtered += other.filtered;
        self.rejected += other.rejected;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
    }
}

/// An order-free fingerprint of records: the sum modulo 2^128 of one XXH3-128 for each record (or
/// column chunk). Sums of parts add up to the sum of the whole, in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHash(pub u128);

impl RecordHash {
    pub fn add(&mut self, hash: u128) {
        self.0 = self.0.wrapping_add(hash);
    }
}

impl AddAssign for RecordHash {
    fn add_assign(&mut self, other: Self) {
        self.add(other.0);
    }
}

impl fmt::Display for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

// 128-bit integers do not survive every JSON reader; hexadecimal text does.
impl Serialize for RecordHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RecordHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16)
            .map(RecordHash)
            .map_err(serde::de::Error::custom)
    }
}

/// One durable piece of a partition's output, offered to the leader. It becomes part of the step's
/// output only when the leader has recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The number of this commit within its partition, from 0, across attempts.
    pub seq: u32,
    /// The position before this chunk: must equal the partition's recorded position.
    pub previous: u64,
    /// The position after it.
    pub next: u64,
    /// What this chunk alone read, wrote, filtered and rejected.
    pub counters: Counters,
    /// Fingerprint of the records this chunk read.
    pub records: RecordHash,
    /// XXH3-64 of the chunk's manifest; equal digests mean the same commit sent again.
    pub digest: u64,
    /// Whether the partition is complete with this commit. Then `next` is its high end.
    pub last: bool,
}

/// The commits `[first_seq, next_seq)` of one partition that one attempt made. File names follow
/// from (partition, attempt id, seq), so segments are all a publisher needs to find the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    pub attempt: AttemptId,
    pub first_seq: u32,
    pub next_seq: u32,
}

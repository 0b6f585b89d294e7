//! Identities. Each is a type of its own so that one can never be passed for another.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_id!(
    /// One execution of a job with its parameters. Version 7, so runs sort by submission time.
    RunId
);
uuid_id!(
    /// One connection life of a worker. A worker that reconnects gets a new one, which voids the old.
    SessionId
);
uuid_id!(
    /// The cluster whose store this is; written at first start, never changed.
    ClusterId
);

/// A leadership period. Strictly increases; every store transaction compares it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How often an operator has accepted that a cluster's store went back in time, and one. What was seen
/// of an earlier epoch is no argument against the store any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl Epoch {
    pub const FIRST: Epoch = Epoch(1);

    /// The last one that [`Term::of`] has room for.
    pub const LAST: Epoch = Epoch(1 << (u64::BITS - STORE_TERM_BITS));
}

impl Default for Epoch {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Room for the store's own counting within an epoch: etcd, which counts its writes, would need a
/// hundred years at 5,000 a second to fill it.
const STORE_TERM_BITS: u32 = 44;

impl Term {
    /// The term, or another moment of a term, as everybody but the store counts it: what the store
    /// counts starts low again when the store goes back in time, and the epoch, which stands before
    /// it, has then risen. So terms always rise, and no attempt id is given twice.
    pub fn of(epoch: Epoch, in_store: u64) -> Term {
        debug_assert!(epoch >= Epoch::FIRST && epoch <= Epoch::LAST && in_store >> STORE_TERM_BITS == 0);
        Term((u64::from(epoch.0 - Epoch::FIRST.0) << STORE_TERM_BITS) + in_store)
    }

    /// The epoch of this term.
    pub fn epoch(self) -> Epoch {
        Epoch((self.0 >> STORE_TERM_BITS) as u32 + Epoch::FIRST.0)
    }
}

/// The identity of one attempt at a task, unique for the life of a store: the term that granted it
/// and a serial number within that term. It names the attempt's files, so no two attempts share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    pub term: Term,
    pub serial: u64,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.term, self.serial)
    }
}

/// The position of a step in its job file, from 0.
pub type StepNo = u16;

/// The number of a partition within its stage, from 0.
pub type PartitionNo = u32;

/// The stages of a step, in the order in which they run. Every stage is worked off as leased tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reads metadata and a bounded sample of the source: one task.
    Survey,
    /// Checks that source and sink can do what the step asks: one task.
    Prepare,
    /// Sorts the source into the buckets of the exchange: one task for each source partition.
    Scatter,
    /// Reads, checks, transforms and writes: one task for each partition of the step.
    Execute,
    /// Rewrites the output into the number of files asked for: one task for each file.
    Merge,
    /// Publishes the sealed output once and writes the certificate: one task.
    Publish,
    /// Raises the fences, settles the verdict as aborted and removes what was staged: one task.
    Abort,
}

impl Stage {
    pub const ALL: [Stage; 7] = [
        Stage::Survey,
        Stage::Prepare,
        Stage::Scatter,
        Stage::Execute,
        Stage::Merge,
        Stage::Publish,
        Stage::Abort,
    ];

    /// The lower-case name used in store keys, logs and listings.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Survey => "survey",
            Stage::Prepare => "prepare",
            Stage::Scatter => "scatter",
            Stage::Execute => "execute",
            Stage::Merge => "merge",
            Stage::Publish => "publish",
            Stage::Abort => "abort",
        }
    }

    /// The inverse of [`Stage::name`].
    pub fn from_name(name: &str) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One leased unit of work: a partition of a stage of a step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskKey {
    pub run: RunId,
    pub step: StepNo,
    pub stage: Stage,
    pub partition: PartitionNo,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.run, self.step, self.stage, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_epoch_is_above_every_term_of_an_earlier_one() {
        let last = (1 << STORE_TERM_BITS) - 1;
        assert_eq!(
            Term::of(Epoch::FIRST, 901),
            Term(901),
            "the first epoch counts as the store does"
        );
        for (lower, higher) in [
            (Term::of(Epoch(1), 5), Term::of(Epoch(1), 6)),
            (Term::of(Epoch(1), last), Term::of(Epoch(2), 0)),
            (Term::of(Epoch(2), last), Term::of(Epoch(3), 1)),
            (Term::of(Epoch(7), 1), Term::of(Epoch::LAST, last)),
        ] {
            assert!(lower < higher, "{lower} {higher}");
        }
        for epoch in [Epoch(1), Epoch(2), Epoch(900), Epoch::LAST] {
            assert_eq!(Term::of(epoch, 77).epoch(), epoch);
        }
    }
}

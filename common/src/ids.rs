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

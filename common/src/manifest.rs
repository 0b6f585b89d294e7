//! The records that lie beside output: one manifest for each committed chunk, and the verdict.

use serde::{Deserialize, Serialize};

use crate::{
    attempt::{Counters, Fence, RecordHash},
    ids::{PartitionNo, RunId, StepNo},
};

/// A data file of a chunk, by its path below the folder it will be published in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Relative, with `/`; includes Hive folders (`day=2026-11-20/part-00003-1-17-0.parquet`).
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
    /// XXH3-64 of the file's bytes, hexadecimal.
    pub checksum: String,
}

/// The version of a record's form. One that is not known is refused in reading, in words: it may say
/// what this release cannot see. Records of before there were versions are of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(try_from = "u32", into = "u32")]
pub struct Version(());

impl Version {
    pub const NOW: u32 = 1;
}

impl From<Version> for u32 {
    fn from(_: Version) -> u32 {
        Version::NOW
    }
}

impl TryFrom<u32> for Version {
    type Error = String;

    fn try_from(version: u32) -> Result<Self, String> {
        match version {
            Self::NOW => Ok(Self(())),
            other => Err(format!("it has version {other}, and this release reads {}", Self::NOW)),
        }
    }
}

/// What one chunk made, written durably before its commit is offered. The publisher reads the
/// manifests of the committed chunks, and no others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkManifest {
    #[serde(default)]
    pub version: Version,
    pub run: RunId,
    pub step: StepNo,
    pub partition: PartitionNo,
    pub fence: Fence,
    pub seq: u32,
    pub previous: u64,
    pub next: u64,
    pub counters: Counters,
    pub records: RecordHash,
    pub files: Vec<DataFile>,
    /// The quarantined records of this chunk (NDJSON), where there are any.
    pub rejects: Option<DataFile>,
}

/// How a step's output ended, at the output itself. Created once; whoever finds one adopts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum VerdictKind {
    Committed,
    Aborted,
}

/// The create-once record at `published/<generation>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    #[serde(default)]
    pub version: Version,
    pub verdict: VerdictKind,
    pub run: RunId,
    pub step: StepNo,
    pub step_name: String,
    pub generation: u64,
    /// The digest under which the leader sealed the step; 0 for an abort.
    pub seal: u64,
    /// Whether the output is these files alone, rather than these beside those of earlier verdicts.
    #[serde(default)]
    pub replaces: bool,
    pub rows: u64,
    pub bytes: u64,
    pub files: Vec<DataFile>,
}

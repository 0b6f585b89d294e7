//! The records that lie beside output: one manifest for each committed chunk, and the verdict.

use serde::{Deserialize, Serialize};

use crate::{
    attempt::{Counters, Fence, RecordHash},
    exact::Exact,
    ids::{PartitionNo, RunId, StepNo},
    order::KeySpan,
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
    /// Of delimited text: whether a field holds a line end, so that the file can only be read from its beginning.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multiline: bool,
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
    /// In a step with an order: the first and the last row of the files, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<KeySpan>,
    /// The quarantined records of this chunk (NDJSON), where there are any.
    pub rejects: Option<DataFile>,
    /// For each source file that declares control totals and that the chunk has read of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub totals: Vec<FileTotals>,
    /// Of a merge of sorted inputs: where what the chunk has read of each begins and ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputSpan>,
    /// Of a merge whose keys are unique: the fingerprints of those that the chunk has read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<DataFile>,
}

/// The first and the last record of a stretch of an input of a merge, by its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSpan {
    /// The number of the input, from 0.
    pub input: u32,
    pub span: KeySpan,
}

impl InputSpan {
    /// Adds stretches that follow those that are known.
    pub fn add_all(sum: &mut Vec<InputSpan>, more: Vec<InputSpan>) {
        for span in more {
            match sum.last_mut() {
                Some(last) if last.input == span.input => last.span.last = span.span.last,
                _ => sum.push(span),
            }
        }
    }
}

/// What a source file declares of itself, and what a chunk counted of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTotals {
    pub path: String,
    pub totals: Vec<ControlTotal>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlTotal {
    /// In words: which field of header or trailer, and what it declares.
    pub what: String,
    pub declared: Exact,
    pub counted: Exact,
}

impl FileTotals {
    /// Adds what was counted of files to what was counted before; `None` where a sum leaves 128 bits or the
    /// two speak of different totals.
    pub fn add_all(sum: &mut Vec<FileTotals>, more: Vec<FileTotals>) -> Option<()> {
        for file in more {
            match sum.iter_mut().find(|known| known.path == file.path) {
                None => sum.push(file),
                Some(known) => known.add(&file)?,
            }
        }
        Some(())
    }

    fn add(&mut self, more: &FileTotals) -> Option<()> {
        if self.totals.len() != more.totals.len() {
            return None;
        }
        for (total, more) in self.totals.iter_mut().zip(&more.totals) {
            if (&total.what, total.declared) != (&more.what, more.declared) {
                return None;
            }
            total.counted = total.counted.checked_add(more.counted)?;
        }
        Some(())
    }
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
    /// How often the step had been planned anew within its run because its input had changed.
    #[serde(default, skip_serializing_if = "is_first")]
    pub edition: u32,
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

fn is_first(edition: &u32) -> bool {
    *edition == 0
}

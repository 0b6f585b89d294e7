//! Sources: readers that own positions. A reader covers one unit range of the pinned source and
//! tells, for each batch, how far it has read and where each record came from.

pub mod avro;
pub mod csv;
pub mod keys;
pub mod lookup;
pub mod merge;
mod nature;
mod nested;
pub mod open;
pub mod parquet;
pub mod pins;
pub mod places;
pub mod records;
pub mod sequence;
pub mod shown;
pub(crate) mod text_size;
pub mod types;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use gapless_common::{
    attempt::RecordHash,
    error::TaskError,
    manifest::{FileTotals, InputSpan},
};
use serde::{Deserialize, Serialize};

pub use types::schema_of;

/// Records as they come from the source, with the way back to their origin.
#[derive(Clone)]
pub struct InputBatch {
    pub batch: RecordBatch,
    pub origin: Arc<dyn Origin>,
}

/// Finds a record of a batch again. Called only for records that are rejected, so it may be slow.
pub trait Origin: Send + Sync {
    /// The place and raw text of row `row` of the batch.
    fn locate(&self, row: usize) -> Place;
}

/// Where a record stands in its source, and what it looks like there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub file: String,
    /// Line number from 1, for text formats.
    pub line: Option<u64>,
    /// Row number from 0 within the file, for binary formats; within the block where there is one.
    pub row: Option<u64>,
    /// The byte of the file at which the record's block begins, for formats of blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<u64>,
    /// The record as it stands in the source (text formats) or as JSON; at most
    /// [`Place::MAX_RAW`] bytes, cut where longer.
    pub raw: String,
}

impl Place {
    /// A quarantined record is kept to be looked at, not to be archived.
    pub const MAX_RAW: usize = 64 * 1024;

    /// Whether the record may be longer than what is kept of it: what is cut ends with a whole character, of up to four
    /// bytes.
    pub fn may_be_cut(&self) -> bool {
        self.raw.len() + 4 > Self::MAX_RAW
    }
}

/// Where to look: `in/a.csv, line 7`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.row, self.block) {
            (Some(line), ..) => write!(f, "{}, line {line}", self.file),
            (None, Some(row), Some(block)) => write!(f, "{}, row {row} of the block at byte {block}", self.file),
            (None, Some(row), None) => write!(f, "{}, row {row}", self.file),
            (None, None, _) => f.write_str(&self.file),
        }
    }
}

/// A record that does not go on: it cannot be parsed or breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    #[serde(flatten)]
    pub place: Place,
    /// The values by which the step is cut, where it is cut by a key and the record has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<serde_json::Map<String, serde_json::Value>>,
    /// `parse` for records that cannot be parsed, else the name of the check.
    pub rule: String,
    /// What is wrong, in words: column, value, expectation.
    pub reason: String,
}

impl Reject {
    /// The rule of records that cannot be parsed.
    pub const PARSE: &str = "parse";
}

/// What a reader took from the source since it was last asked.
#[derive(Debug, Default)]
pub struct Intake {
    /// Records taken, those in `rejects` included.
    pub read: u64,
    pub bytes: u64,
    pub records: RecordHash,
    /// Records that could not be parsed; they are in no batch.
    pub rejects: Vec<Reject>,
    /// Of files that declare control totals: those, and what was counted for them.
    pub totals: Vec<FileTotals>,
    /// Of a merge of sorted inputs: where what was taken of each begins and ends.
    pub spans: Vec<InputSpan>,
    /// Of a merge with unique keys: their fingerprints.
    pub keys: Vec<u128>,
}

/// Reads one unit range, front to back, on the calling thread.
pub trait SourceReader: Send {
    fn schema(&self) -> SchemaRef;

    /// The next batch, or `None` at the end of the range. A batch may be empty of rows.
    ///
    /// Errors: `Config` when the source is not the one that was planned for, `Data` when the file
    /// is broken beyond a record, `Transient` when reading failed.
    fn next_batch(&mut self) -> Result<Option<InputBatch>, TaskError>;

    /// Everything of the range below this position has been returned or rejected; a reader opened
    /// here goes on with the next record. Never above the end of the range.
    fn position(&self) -> u64;

    /// Whether a chunk may end at the present position. Readers that cannot resume inside their
    /// range (compressed files) answer `false` until the range is read.
    fn may_stop(&self) -> bool;

    /// Rises while text is gone through in which no record stands, so that whoever waits sees that something moves.
    fn passed(&self) -> u64 {
        0
    }

    fn take_intake(&mut self) -> Intake;
}

/// The origin of no rows.
struct Nowhere;

impl Origin for Nowhere {
    fn locate(&self, _: usize) -> Place {
        Place {
            file: String::new(),
            line: None,
            row: None,
            block: None,
            raw: String::new(),
        }
    }
}

//! Facts that a survey reports, and the plan that a split makes of them.

use serde::{Deserialize, Serialize};

use crate::{
    coverage::{keys_of_buckets, mirrored},
    ids::PartitionNo,
    key::{Key, KeyType},
    range::{KeyRange, UnitRange},
};

/// What one unit of a source domain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A byte of the pinned files laid end to end. Cuts fall on any byte: a record belongs to the
    /// range that holds its first byte.
    Byte,
    /// A file: compressed files and records that may span lines are read whole.
    File,
    /// A Parquet row group, counted over the pinned files in order.
    RowGroup,
    /// A bucket of the exchange.
    Bucket,
    /// A number of a sequence.
    Number,
    /// Units of several kinds: inputs of a merge that are cut in different ways, one behind the other.
    Mixed,
}

/// One input file as the survey saw it. A file that differs when it is read fails the task: the
/// plan was made for other data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedFile {
    pub path: String,
    pub size: u64,
    /// Changes whenever the content may have: modification time in nanoseconds and inode for
    /// local files, the store's etag elsewhere.
    pub etag: String,
    /// Units of this file in the source domain: its bytes, its row groups, or 1.
    pub units: u64,
    /// Rows, where the format tells.
    pub rows: Option<u64>,
}

/// One file of a look-up table as the survey read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupFile {
    pub path: String,
    pub size: u64,
    /// As that of a [`PinnedFile`]. It tells people when the file was written; the digest decides.
    pub etag: String,
    /// XXH3-128 of the content, 32 hex digits.
    pub digest: String,
}

/// A look-up table as the survey read it: every attempt of the step joins the same content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedLookup {
    pub name: String,
    /// In the order in which they are read.
    pub files: Vec<LookupFile>,
}

/// Whether a step's SQL works on any slice of its input, or needs a partition as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransformMode {
    /// Each output row depends on one input row: run chunk by chunk.
    RowWise {
        /// Whether one input row gives at most one output row, so that counts must reconcile.
        expands: bool,
    },
    /// Output rows depend on several input rows: a partition commits once.
    Whole {
        /// Input columns on which rows must be brought together for the answer to be that of the
        /// whole input; empty where no column will do and one partition has to read everything.
        keys: Vec<String>,
    },
}

/// Why the mode is what it is, in a sentence for `gapless plan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformFacts {
    pub mode: TransformMode,
    pub reason: String,
}

/// A column as the engine names it; `ty` is the engine's type name, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub ty: String,
    pub nullable: bool,
    /// `None` where values of the type have no key order (lists, structs).
    pub key_type: Option<KeyType>,
}

/// Keys drawn from the source, sorted; at most [`KeySample::MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySample {
    pub column: String,
    pub key_type: KeyType,
    /// Evenly drawn from the records, in key order, repeats included.
    pub keys: Vec<Key>,
    /// How many NULL keys were drawn beside them.
    pub nulls: u64,
    /// Whether the sample is every record of the source.
    pub complete: bool,
}

impl KeySample {
    /// Enough for 256 buckets within a few percent of even (each bound is off by about
    /// sqrt(p(1-p)/n) of the rows), and a row of a few tens of kilobytes.
    pub const MAX: usize = 4096;
}

/// What a survey found: metadata and a bounded sample, never the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub unit: Unit,
    /// In unit order. Empty for a sequence.
    pub files: Vec<PinnedFile>,
    /// The whole source domain.
    pub domain: UnitRange,
    pub columns: Vec<Column>,
    /// The columns that the SQL, the checks and the partitioning read; `None` for all. Readers make no others.
    pub read_columns: Option<Vec<String>>,
    /// Columns after the transform, in order.
    pub output: Vec<Column>,
    pub transform: TransformFacts,
    /// Rows of the source, exact or estimated.
    pub rows: u64,
    pub bytes: u64,
    pub sample: Option<KeySample>,
    /// Things the user should know that stop nothing.
    pub warnings: Vec<String>,
    /// The step's look-ups. Empty also in facts of releases that did not pin them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lookups: Vec<PinnedLookup>,
    /// Of a merge: its inputs. Their files stand in `files` one behind the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputFacts>,
    /// The certificate of the output that is there already and whole, where the step may be skipped for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<String>,
}

/// What a survey found of one input of a merge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFacts {
    pub unit: Unit,
    /// How many of the source's files are its own.
    pub files: usize,
    /// Its own columns, before they are put into those of the merge.
    pub columns: Vec<Column>,
}

/// The function that assigns a record to a bucket. Frozen with the plan: a restart may group
/// buckets differently, never redefine them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BucketFn {
    /// The top bits of [`crate::hash`] over the columns: bucket = hash * buckets / 2^64.
    Hash { columns: Vec<String> },
    /// NULL has a bucket alone; the others hold, in order, the keys below `bounds[0]`, in
    /// `[bounds[i-1], bounds[i])`, and from the last bound on.
    KeyRange {
        column: String,
        key_type: KeyType,
        bounds: Vec<Key>,
        /// The bucket of NULL; `None` for the last. It lies beside the keys that share a partition with NULL.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        null_bucket: Option<u32>,
        /// Whether buckets are numbered from the greatest keys down: the other way round than the bounds, and than
        /// `null_bucket` counts.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        descending: bool,
    },
}

/// Records sorted into buckets between two stages, durable and exact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangePlan {
    pub function: BucketFn,
    pub buckets: u32,
}

impl ExchangePlan {
    /// The keys in a range of buckets; `None` where buckets are not ranges of keys.
    pub fn keys(&self, units: UnitRange) -> Option<KeyRange> {
        match &self.function {
            BucketFn::Hash { .. } => None,
            BucketFn::KeyRange {
                bounds,
                null_bucket,
                descending,
                ..
            } => {
                let buckets = u64::from(self.buckets);
                let rising = if *descending { mirrored(units, buckets) } else { units };
                Some(keys_of_buckets(bounds, *null_bucket, rising))
            }
        }
    }
}

/// One row of the partition table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    pub number: PartitionNo,
    /// What it covers of its stage's domain.
    pub units: UnitRange,
    /// What it covers of the key's universe, where the step is cut by key range.
    pub keys: Option<KeyRange>,
    pub estimate: Estimate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    pub rows: u64,
    pub bytes: u64,
}

/// The cut of one step, fixed before any of its data is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepPlan {
    pub method: Method,
    /// Why this method and count.
    pub reason: String,
    pub exchange: Option<ExchangePlan>,
    /// Source partitions that feed the exchange; empty without one. They tile the source domain.
    pub scatter: Vec<Partition>,
    /// The step's partitions: they tile the source domain, or the buckets of the exchange.
    pub execute: Vec<Partition>,
    /// Number of files to merge the output into, where the sink asks for one.
    pub merge: Option<u32>,
}

/// The way a step is cut, as it was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Bytes,
    Files,
    RowGroups,
    KeyRange,
    Hash,
    Sequence,
    /// One partition reads everything.
    Single,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Method::Bytes => "bytes",
            Method::Files => "files",
            Method::RowGroups => "row_groups",
            Method::KeyRange => "key_range",
            Method::Hash => "hash",
            Method::Sequence => "sequence",
            Method::Single => "single",
        }
    }
}

/// What a worker needs to know of a step besides its partition: the plan without its tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFrame {
    pub facts: Facts,
    pub method: Method,
    pub exchange: Option<ExchangePlan>,
    pub merge: Option<u32>,
}

//! The coverage certificate: what proves, at any later time, that every record was read once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    attempt::{Counters, RecordHash},
    ids::{PartitionNo, RunId, StepNo},
    job::Job,
    manifest::DataFile,
    plan::{Column, InputFacts, PinnedFile, PinnedLookup, Unit},
    range::UnitRange,
};

/// How far the certificate reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// The source was pinned: intervals, counts and fingerprints can be checked again.
    Proved,
    /// The source was live: so many rows were read, which is not a snapshot.
    Counted,
}

/// All that is needed to read the source again as the run did, without a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    pub job: Job,
    /// Folder against which relative paths are resolved.
    pub base_dir: String,
    pub unit: Unit,
    pub columns: Vec<Column>,
    /// `None` for all columns.
    pub read_columns: Option<Vec<String>>,
    /// Of a merge: as in the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputFacts>,
    /// The columns that were written. Empty in certificates of releases that did not tell them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<Column>,
}

/// One source range, read once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeProof {
    pub partition: PartitionNo,
    pub units: UnitRange,
    pub read: u64,
    pub records: RecordHash,
}

/// One bucket range of the exchange: what was scattered into it and what was read out of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeProof {
    pub partition: PartitionNo,
    pub units: UnitRange,
    pub scattered_rows: u64,
    pub read_rows: u64,
    pub scattered: RecordHash,
    pub read: RecordHash,
}

/// Written by the publisher beside the verdict; `gapless verify` reads it back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    pub version: u32,
    pub job: String,
    pub run: RunId,
    pub step: StepNo,
    pub step_name: String,
    pub strength: Strength,
    /// How the source is read again.
    pub reading: Reading,
    /// The pinned source, in unit order.
    pub files: Vec<PinnedFile>,
    /// The look-ups that the records were joined with. Empty also in certificates of releases that did
    /// not pin them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lookups: Vec<PinnedLookup>,
    /// The whole source domain; `ranges` tile it.
    pub domain: UnitRange,
    pub ranges: Vec<RangeProof>,
    /// Present where the step went through the exchange.
    pub exchange: Vec<ExchangeProof>,
    /// Totals over the step.
    pub counters: Counters,
    /// Sum of the fingerprints of `ranges`.
    pub records: RecordHash,
    /// The files of quarantined records, named as they were staged: where an output is appended to, `-g` and
    /// the generation come before the dot. Empty also in certificates of releases that did not list them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejects: Vec<DataFile>,
    /// Rows of each output of a step with `split`; their sum is what was written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, u64>,
    /// Whether `read = written + filtered + rejected` had to hold, and did.
    pub reconciled: Option<bool>,
}

impl Certificate {
    pub const VERSION: u32 = 1;
}

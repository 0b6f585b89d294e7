//! Random jobs, small but of every shape: source cuts, exchanges, merges, chains of steps.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gapless_common::{
    job::{
        Compression, Count, Delimiter, Exists, FileSink, Job, OnError, Outside, ParquetSource, Partition,
        PartitionFailed, Partitioning, Sink, Source, Step,
    },
    key::{Key, KeyType},
    plan::{Column, Facts, KeySample, PinnedFile, TransformFacts, TransformMode, Unit},
    range::UnitRange,
};
use gapless_core::row::JobRow;

use crate::rng::Rng;

/// A job and the truth about its data.
pub struct Spec {
    pub identity: String,
    pub digest: String,
    pub job: Arc<JobRow>,
    pub steps: Vec<StepSpec>,
}

pub struct StepSpec {
    /// The contents that its source had, the present one last.
    pub versions: Vec<Version>,
    pub limit: Option<u64>,
    /// Whether it cannot be planned.
    pub refused: bool,
}

/// A content of a source.
pub struct Version {
    pub facts: Arc<Facts>,
    /// Source units that are rejected when they are read.
    pub bad: BTreeSet<u64>,
}

/// A record: which content of its source it is of, and at which unit.
pub fn record(version: usize, unit: u64) -> u64 {
    (version as u64) << 32 | unit
}

pub fn unit_of(record: u64) -> u64 {
    record & 0xffff_ffff
}

impl Version {
    pub fn units(&self) -> u64 {
        self.facts.domain.high
    }
}

impl StepSpec {
    /// The number of the present content.
    pub fn now(&self) -> usize {
        self.versions.len() - 1
    }

    pub fn content(&self) -> &Version {
        &self.versions[self.now()]
    }

    pub fn over_limit(&self, version: usize) -> bool {
        let bad = self.versions[version].bad.len() as u64;
        self.limit.is_some_and(|limit| bad > limit)
    }

    /// Somebody writes the source anew: mended, with other records in it, or as many others that are as bad.
    pub fn change(&mut self, rng: &mut Rng) {
        let (last, group) = (self.content(), self.content().facts.bytes / self.content().units());
        let (units, bad) = match rng.per_mille(600) {
            true => (rng.between(1, 30), BTreeSet::new()),
            false => (last.units(), last.bad.clone()),
        };
        let mut facts = facts(rng, units, group);
        let etag = self.versions.len() + 1;
        facts.files.iter_mut().for_each(|file| file.etag = etag.to_string());
        self.versions.push(Version {
            facts: Arc::new(facts),
            bad,
        });
    }
}

impl Spec {
    /// Whether it must fail however often it is tried.
    pub fn cannot_succeed(&self) -> bool {
        self.steps
            .iter()
            .any(|step| step.refused || step.over_limit(step.now()))
    }
}

pub fn spec(rng: &mut Rng, number: usize, version: usize) -> Spec {
    let count = rng.between(1, 3) as usize;
    let mut steps = Vec::new();
    let mut definitions = Vec::new();
    for at in 0..count {
        let (definition, step) = step(rng, at);
        definitions.push(definition);
        steps.push(step);
    }
    let job = Job {
        name: format!("job{number}"),
        parameters: BTreeMap::new(),
        priority: Default::default(),
        steps: definitions,
        redrive: None,
    };
    let row = JobRow {
        redrive: String::new(),
        text: String::new(),
        file_name: "job.yaml".into(),
        parameters: BTreeMap::new(),
        base_dir: "/".into(),
        job,
    };
    Spec {
        identity: format!("job{number}"),
        digest: format!("version{version}"),
        job: Arc::new(row),
        steps,
    }
}

fn step(rng: &mut Rng, at: usize) -> (Step, StepSpec) {
    // Row groups of a hundred megabytes, so that an exchange gets several scatter partitions; or many small
    // ones, so that a plan for few slots has several in a partition.
    let (units, group) = match rng.per_mille(600) {
        true => (rng.between(1, 14), 100 << 20),
        false => (rng.between(8, 40), 6 << 20),
    };
    let refused = rng.per_mille(20);
    let method = match rng.below(10) {
        _ if refused => Partition::Hash {
            columns: vec!["nowhere".into()],
        },
        0..=4 => Partition::RowGroups,
        5..=7 => Partition::Hash {
            columns: vec!["id".into()],
        },
        _ => Partition::KeyRange {
            column: "id".into(),
            ranges: vec![],
            outside: Outside::Refuse,
        },
    };
    let earlier = |rng: &mut Rng| format!("s{}", rng.below(at as u64));
    let (source, after) = match at > 0 {
        true if rng.per_mille(400) => (Source::Step(earlier(rng)), vec![]),
        true if rng.per_mille(600) => (parquet(), vec![earlier(rng)]),
        _ => (parquet(), vec![]),
    };
    let bad: BTreeSet<u64> = (0..units).filter(|_| rng.per_mille(60)).collect();
    let limit = match rng.below(4) {
        0 => Some(0),
        1 => Some(2),
        _ => None,
    };
    let placement = if rng.per_mille(150) { "zone=a" } else { "" };
    let partition_failed = *rng.pick(&[PartitionFailed::Stop, PartitionFailed::Continue]);
    let definition = Step {
        name: format!("s{at}"),
        after,
        source,
        lookups: BTreeMap::new(),
        partition: Partitioning {
            method,
            count: match rng.per_mille(300) {
                true => Count::Fixed(rng.between(1, 5) as u32),
                false => Count::Auto,
            },
        },
        placement: placement.parse().expect("labels"),
        checks: vec![],
        sql: None,
        command: None,
        sort: Vec::new(),
        sink: Sink::Parquet(sink(rng)),
        on_error: OnError {
            attempts: 3,
            attempts_written: true,
            reject_limit: limit,
            reject_share: None,
            partition_failed,
        },
        if_unchanged: Default::default(),
    };
    let facts = Arc::new(facts(rng, units, group));
    let spec = StepSpec {
        versions: vec![Version { facts, bad }],
        limit,
        refused,
    };
    (definition, spec)
}

fn parquet() -> Source {
    Source::Parquet(ParquetSource {
        paths: vec!["in/*.parquet".into()],
        places: None,
    })
}

fn sink(rng: &mut Rng) -> FileSink {
    FileSink {
        path: "out".into(),
        exists: Exists::Fail,
        compression: Compression::Zstd,
        files: rng.per_mille(300).then(|| rng.between(1, 3) as u32),
        partition_by: vec![],
        split: None,
        partition_column: None,
        header: true,
        delimiter: Delimiter::COMMA,
        null: String::new(),
        encoding: Default::default(),
        crlf: false,
    }
}

/// Each unit is a row group of `group` bytes.
fn facts(rng: &mut Rng, units: u64, group: u64) -> Facts {
    let mut files = Vec::new();
    let mut left = units;
    while left > 0 {
        let groups = rng.between(1, left);
        left -= groups;
        files.push(PinnedFile {
            path: format!("in/{}.parquet", files.len()),
            size: groups * group,
            etag: "1".into(),
            units: groups,
            rows: Some(groups),
        });
    }
    let column = Column {
        name: "id".into(),
        ty: "Int64".into(),
        nullable: true,
        key_type: Some(KeyType::Int),
    };
    Facts {
        unit: Unit::RowGroup,
        files,
        domain: UnitRange::new(0, units),
        columns: vec![column.clone()],
        output: vec![column],
        read_columns: None,
        inputs: Vec::new(),
        transform: TransformFacts {
            mode: TransformMode::RowWise { expands: false },
            reason: "a projection".into(),
        },
        rows: units,
        bytes: units * group,
        sample: Some(KeySample {
            column: "id".into(),
            key_type: KeyType::Int,
            keys: (0..units).map(|unit| Key::Int(i128::from(unit))).collect(),
            nulls: 0,
            complete: true,
        }),
        warnings: vec![],
        lookups: vec![],
        standing: None,
    }
}

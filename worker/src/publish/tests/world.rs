//! A small run in a folder of its own: prepared, executed, merged, ready to be published.

use std::{collections::BTreeMap, fs, path::Path, path::PathBuf, sync::Arc};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use gapless_common::{
    attempt::{Counters, RecordHash, Segment},
    certificate::Certificate,
    ids::{AttemptId, RunId, Stage, Term},
    job::{Compression, Count, Delimiter, FileSink, Job, OnError, Partition, Partitioning, Sink, Source, Step},
    manifest::{ChunkManifest, Version},
    plan::{Column, Facts, Method, StepFrame, TransformFacts, TransformMode, Unit},
    range::UnitRange,
};
use uuid::Uuid;

use super::super::*;
use crate::{
    sink::{ChunkTarget, open_chunk},
    source::{Place, Reject},
    storage::{StepFolders, list_folder},
};

pub(super) const PARTITIONS: u32 = 3;
/// Records of a partition: one is filtered, one rejected.
pub(super) const RECORDS: u64 = 10;
pub(super) const SEAL: u64 = 0x5ea1;

pub(super) fn file_sink(exists: Exists) -> FileSink {
    FileSink {
        path: "out/table".into(),
        exists,
        compression: Compression::Auto,
        files: None,
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

pub(super) fn fence(serial: u64) -> Fence {
    Fence {
        number: serial as u32,
        id: AttemptId { term: Term(1), serial },
    }
}

/// One step of one run over a folder that several runs may share.
pub(super) struct Run {
    pub(super) context: StepContext,
    pub(super) preparation: Preparation,
    pub(super) execute: Vec<CommittedPartition>,
    pub(super) merge: Vec<CommittedPartition>,
}

pub(super) fn context(folder: &Path, run: u128, sink: Sink) -> StepContext {
    let step = Step {
        name: "load".into(),
        after: vec![],
        source: Source::Sequence { from: 0, to: 30 },
        lookups: BTreeMap::new(),
        partition: Partitioning {
            method: Partition::Auto,
            count: Count::Auto,
        },
        placement: Default::default(),
        checks: vec![],
        sql: None,
        command: None,
        sort: Vec::new(),
        on_error: OnError::default(),
        sink: sink.clone(),
        if_unchanged: Default::default(),
    };
    let column = |name: &str| Column {
        name: name.into(),
        ty: "Int64".into(),
        nullable: true,
        key_type: None,
    };
    let facts = Facts {
        unit: Unit::Number,
        files: vec![],
        domain: UnitRange::new(0, u64::from(PARTITIONS) * RECORDS),
        columns: vec![column("n")],
        output: vec![column("n"), column("k")],
        read_columns: None,
        inputs: Vec::new(),
        transform: TransformFacts {
            mode: TransformMode::RowWise { expands: false },
            reason: String::new(),
        },
        rows: 30,
        bytes: 0,
        sample: None,
        warnings: vec![],
        lookups: vec![],
        standing: None,
    };
    let merge = sink.file().and_then(|file| file.files);
    StepContext {
        job: Arc::new(Job {
            name: "nightly".into(),
            parameters: BTreeMap::new(),
            priority: Default::default(),
            steps: vec![step],
            redrive: None,
        }),
        step_no: 0,
        run: RunId(Uuid::from_u128(run)),
        edition: 0,
        base_dir: folder.to_path_buf(),
        started_micros: 0,
        preparation: None,
        seal: None,
        scratch: folder.join("scratch"),
        frame: Some(StepFrame {
            facts,
            method: Method::Sequence,
            exchange: None,
            merge,
        }),
    }
}

impl Run {
    pub(super) fn prepared(folder: &Path, run: u128, sink: Sink) -> Self {
        Self::prepared_anew(folder, run, sink, 0)
    }

    fn prepared_anew(folder: &Path, run: u128, sink: Sink, edition: u32) -> Self {
        let context = StepContext {
            edition,
            ..context(folder, run, sink)
        };
        let preparation = prepare(&context, fence(1)).unwrap();
        assert_eq!(
            prepare(&context, fence(2)).unwrap(),
            preparation,
            "preparing again changes nothing"
        );
        Self {
            context,
            preparation,
            execute: vec![],
            merge: vec![],
        }
    }

    /// Prepared, executed and merged.
    pub(super) fn executed(folder: &Path, run: u128, sink: Sink) -> Self {
        Self::executed_anew(folder, run, sink, 0)
    }

    /// The same of an edition of the step.
    pub(super) fn executed_anew(folder: &Path, run: u128, sink: Sink, edition: u32) -> Self {
        let mut this = Self::prepared_anew(folder, run, sink, edition);
        this.execute = (0..PARTITIONS)
            .map(|partition| this.execute(partition, 10 + u64::from(partition)))
            .collect();
        if let Some(shares) = this.context.frame.as_ref().unwrap().merge {
            let share = |number| {
                let units = UnitRange::new(u64::from(number), u64::from(number) + 1);
                let fence = fence(20 + u64::from(number));
                let commit = merge(&this.context, fence, number, units, &this.execute, &mut |_| Ok(())).unwrap();
                committed(number, units, commit.counters, commit.records, fence, 1)
            };
            this.merge = (0..shares).map(share).collect();
        }
        this
    }

    /// Writes a partition in two chunks: of ten records one is filtered and one rejected.
    pub(super) fn execute(&self, partition: u32, serial: u64) -> CommittedPartition {
        let low = u64::from(partition) * RECORDS;
        let units = UnitRange::new(low, low + RECORDS);
        let mut total = Counters::default();
        let mut records = RecordHash::default();
        for (seq, (from, to)) in [(low, low + 4), (low + 4, low + RECORDS)].into_iter().enumerate() {
            let kept: Vec<i64> = (from..to)
                .filter(|n| n % RECORDS != 3 && n % RECORDS != 7)
                .map(|n| n as i64)
                .collect();
            let manifest = self.chunk(partition, fence(serial), seq as u32, (from, to), &kept);
            total += manifest.counters;
            records += manifest.records;
        }
        committed(partition, units, total, records, fence(serial), 2)
    }

    pub(super) fn chunk(
        &self,
        partition: u32,
        fence: Fence,
        seq: u32,
        (from, to): (u64, u64),
        kept: &[i64],
    ) -> ChunkManifest {
        let target = ChunkTarget::new(&self.context, Stage::Execute, partition, fence, seq).unwrap();
        let keys = StringArray::from_iter_values(kept.iter().map(|n| if n % 2 == 0 { "even" } else { "odd" }));
        let batch = RecordBatch::try_from_iter([
            ("n", Arc::new(Int64Array::from(kept.to_vec())) as ArrayRef),
            ("k", Arc::new(keys) as ArrayRef),
        ])
        .unwrap();
        let mut sink = open_chunk(&self.context.step().sink, batch.schema_ref(), &target).unwrap();
        sink.write(&batch).unwrap();
        let files = sink.finish().unwrap();
        let rejects: Vec<Reject> = (from..to)
            .filter(|n| n % RECORDS == 7)
            .map(|n| Reject {
                place: Place {
                    file: "in.csv".into(),
                    line: Some(n),
                    row: None,
                    block: None,
                    raw: format!("{n},\"x"),
                },
                key: None,
                rule: "parse".into(),
                reason: "an odd quote".into(),
            })
            .collect();
        let rejects_file = target.write_rejects(&rejects).unwrap();
        let read = to - from;
        let counters = Counters {
            read,
            written: kept.len() as u64,
            rejected: rejects.len() as u64,
            filtered: read - kept.len() as u64 - rejects.len() as u64,
            bytes_read: read * 8,
            bytes_written: files.iter().map(|file| file.bytes).sum(),
        };
        let manifest = ChunkManifest {
            version: Version::default(),
            run: self.context.run,
            step: 0,
            partition,
            fence,
            seq,
            previous: from,
            next: to,
            counters,
            records: RecordHash((from..to).map(u128::from).sum()),
            files,
            order: None,
            rejects: rejects_file,
            totals: Vec::new(),
            inputs: Vec::new(),
            keys: None,
        };
        target.write_manifest(&manifest).unwrap();
        manifest
    }

    pub(super) fn sealed(&self, serial: u64) -> Sealed<'_> {
        Sealed {
            context: &self.context,
            fence: fence(serial),
            generation: self.preparation.generation,
            seal: SEAL,
            committed: Committed {
                scatter: &[],
                execute: &self.execute,
                merge: &self.merge,
            },
            scattered: &|_| unreachable!("there is no exchange"),
        }
    }

    pub(super) fn publish(&self, serial: u64) -> Result<Publication, TaskError> {
        publish(&self.sealed(serial), &mut |_| Ok(()))
    }

    pub(super) fn abort(&self, serial: u64) -> Result<Abortion, TaskError> {
        abort(&self.sealed(serial), &mut |_| Ok(()))
    }

    pub(super) fn folders(&self) -> StepFolders {
        StepFolders::of(&self.context).unwrap()
    }

    /// A paused attempt comes back: it adds a chunk that no leader has committed.
    pub(super) fn zombie(&self, serial: u64) {
        if self.folders().staged().exists() {
            self.chunk(0, fence(serial), 0, (0, 4), &[666]);
        }
    }

    pub(super) fn check_nothing_staged(&self) {
        let folders = self.folders();
        for place in [folders.staged(), folders.scratch()] {
            let left: Vec<_> = list_folder(place.parent().unwrap()).unwrap();
            let run = self.context.run.to_string();
            assert!(!left.iter().any(|name| name.contains(&run)), "staged: {left:?}");
        }
    }
}

pub(super) fn committed(
    partition: u32,
    units: UnitRange,
    counters: Counters,
    records: RecordHash,
    fence: Fence,
    commits: u32,
) -> CommittedPartition {
    CommittedPartition {
        partition,
        units,
        position: units.high,
        counters,
        records,
        segments: vec![Segment {
            attempt: fence.id,
            first_seq: 0,
            next_seq: commits,
        }],
    }
}

/// The numbers in the CSV files of an output, sorted; folders and hidden names as readers take them.
pub(super) fn numbers(output: &Path) -> Vec<i64> {
    let mut found: Vec<i64> = files(output)
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "csv"))
        .flat_map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let lines: Vec<i64> = text
                .lines()
                .skip(1)
                .map(|line| line.split(',').next().unwrap().parse().unwrap())
                .collect();
            lines
        })
        .collect();
    found.sort_unstable();
    found
}

pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in list_folder(folder)
        .unwrap()
        .into_iter()
        .filter(|name| !name.starts_with(['_', '.']))
    {
        let path = folder.join(name);
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found
}

pub(super) fn expected() -> Vec<i64> {
    (0..30).filter(|n| n % 10 != 3 && n % 10 != 7).collect()
}

/// What stands at the output before: numbers that the step may not produce itself.
pub(super) fn former(folder: &Path, exists: Exists) -> Vec<i64> {
    if exists == Exists::Fail {
        return vec![];
    }
    fs::create_dir_all(folder.join("out/table/_gapless")).unwrap();
    fs::write(folder.join("out/table/old.csv"), "n,k\n1000,old\n").unwrap();
    fs::write(folder.join("out/table/_gapless/certificate-0-old.json"), "{}").unwrap();
    vec![1000]
}

pub(super) fn check_published(run: &Run, publication: &Publication, former: &[i64]) {
    let output = run.folders().output().to_path_buf();
    let mut all = expected();
    if exists_mode(&run.context) == Exists::Append {
        all.extend(former);
    }
    assert_eq!(numbers(&output), all);
    assert_eq!((publication.rows, publication.source_rows), (24, 30));
    assert_eq!(publication.records, RecordHash((0..30).sum()).to_string());
    let certificate: Certificate = serde_json::from_slice(&fs::read(&publication.certificate).unwrap()).unwrap();
    assert_eq!((certificate.counters.read, certificate.reconciled), (30, Some(true)));
    assert_eq!(certificate.ranges.len(), PARTITIONS as usize);
    let rejects = output.join("_gapless/rejects");
    let lines: Vec<String> = list_folder(&rejects)
        .unwrap()
        .iter()
        .flat_map(|name| {
            fs::read_to_string(rejects.join(name))
                .unwrap()
                .lines()
                .map(String::from)
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[0].contains("\"partition\":0") && lines[0].contains("\"line\":7"),
        "{}",
        lines[0]
    );
    run.check_nothing_staged();
}

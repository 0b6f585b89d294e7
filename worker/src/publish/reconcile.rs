//! Reconciling: do the manifests of the committed chunks, and the counters that the leader has
//! recorded, tell one story without a hole? Then the certificate is written from it.

use std::collections::BTreeMap;

use gapless_common::{
    attempt::{Counters, RecordHash, Segment},
    certificate::{Certificate, ExchangeProof, RangeProof, Reading, Strength},
    error::{ErrorClass, TaskError},
    ids::{PartitionNo, Stage},
    job::{Sink, Source, SplitBy},
    key::Key,
    manifest::{ChunkManifest, DataFile},
    order::{self, KeySpan},
    plan::{PinnedFile, StepFrame, TransformMode},
    range::UnitRange,
};

use super::{Committed, Gate, Sealed, expose::rejects_name, inputs::check_inputs};
use crate::{
    attempt::{CommittedPartition, StepContext, intake::add_totals},
    source::{
        merge::stretches,
        open::{Stored, stored_of},
    },
    storage::{ChunkName, StepFolders, read_if_present},
};

/// Control totals that do not agree and are told; a message is to be read.
const TOLD_TOTALS: usize = 10;

/// What is to be published, and its proof.
pub(super) struct Accounts {
    pub files: Vec<DataFile>,
    /// Rows written, also by a sink that keeps none.
    pub rows: u64,
    /// With the name of the chunk each belongs to.
    pub rejects: Vec<(ChunkName, DataFile)>,
    pub certificate: Certificate,
}

fn data_error(message: String) -> TaskError {
    TaskError::new(ErrorClass::Data, message)
}

/// Reads exactly the committed manifests and checks that everything adds up.
///
/// Errors: `Data` in words, naming stage, partition and figures; then nothing is published.
pub(super) fn reconcile(sealed: &Sealed<'_>, gate: &mut Gate<'_>) -> Result<Accounts, TaskError> {
    let Sealed { context, committed, .. } = *sealed;
    let folders = StepFolders::of(context)?;
    let frame = frame(context)?;
    let scatter = read_stage(context, &folders, Stage::Scatter, committed.scatter)?;
    let execute = read_stage(context, &folders, Stage::Execute, committed.execute)?;
    let merged = read_stage(context, &folders, Stage::Merge, committed.merge)?;

    let source = if frame.exchange.is_some() {
        committed.scatter
    } else {
        committed.execute
    };
    tiles("source", source, frame.facts.domain)?;
    if let Some(exchange) = &frame.exchange {
        let all = UnitRange::new(0, u64::from(exchange.buckets));
        tiles("exchange", committed.execute, all)?;
    }
    check_counts(context, frame, committed)?;
    let read = if frame.exchange.is_some() { &scatter } else { &execute };
    check_totals(context, frame, read)?;
    check_inputs(context, &folders, frame, read, gate)?;
    check_order(context, &execute)?;
    let exchange = match frame.exchange {
        Some(_) => exchange_proofs(sealed)?,
        None => Vec::new(),
    };

    let mut files: Vec<DataFile> = if frame.merge.is_some() { &merged } else { &execute }
        .iter()
        .flat_map(|(_, m)| m.files.clone())
        .collect();
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    let written = total(committed.execute).written;
    if !matches!(context.step().sink, Sink::Discard) && rows != written {
        return Err(data_error(format!(
            "the output does not add up: the partitions wrote {written} rows, its files hold {rows}; nothing is published"
        )));
    }
    if rows > 0 {
        // An empty file only lends its schema to an output without rows.
        files.retain(|file| file.rows > 0);
    }
    let rejects: Vec<(ChunkName, DataFile)> = scatter
        .iter()
        .chain(&execute)
        .filter_map(|(name, m)| Some((*name, m.rejects.clone()?)))
        .collect();
    let mut certificate = certificate(context, frame, committed, exchange);
    certificate.outputs = rows_of_outputs(context, &files);
    certificate.rejects = rejects
        .iter()
        .map(|(chunk, file)| DataFile {
            path: rejects_name(*chunk),
            ..file.clone()
        })
        .collect();
    Ok(Accounts {
        files,
        rows: written,
        rejects,
        certificate,
    })
}

pub(super) fn frame(context: &StepContext) -> Result<&StepFrame, TaskError> {
    context.frame.as_ref().ok_or_else(|| {
        TaskError::new(
            ErrorClass::Transient,
            format!("the plan of step {} is not known here yet", context.step().name),
        )
    })
}

/// The certificate's totals of the source: records read, and their fingerprint.
pub(super) fn source_totals(frame: &StepFrame, committed: Committed<'_>) -> (u64, RecordHash) {
    let source = if frame.exchange.is_some() {
        committed.scatter
    } else {
        committed.execute
    };
    let mut records = RecordHash::default();
    source.iter().for_each(|partition| records += partition.records);
    (total(source).read, records)
}

pub(super) fn total(partitions: &[CommittedPartition]) -> Counters {
    let mut sum = Counters::default();
    partitions.iter().for_each(|partition| sum += partition.counters);
    sum
}

/// The place of a partition among others of its stage: numbers follow it only until a run is cut anew.
pub(super) fn in_units(partition: &CommittedPartition) -> (UnitRange, PartitionNo) {
    (partition.units, partition.partition)
}

/// The manifests of a stage in the order of units, then of sequence, each checked against its neighbours and
/// the leader's sums.
pub(super) fn read_stage(
    context: &StepContext,
    folders: &StepFolders,
    stage: Stage,
    partitions: &[CommittedPartition],
) -> Result<Vec<(ChunkName, ChunkManifest)>, TaskError> {
    let mut partitions: Vec<&CommittedPartition> = partitions.iter().collect();
    partitions.sort_unstable_by_key(|partition| in_units(partition));
    let mut manifests = Vec::new();
    for partition in partitions {
        manifests.extend(read_partition(context, folders, stage, partition)?);
    }
    Ok(manifests)
}

fn read_partition(
    context: &StepContext,
    folders: &StepFolders,
    stage: Stage,
    partition: &CommittedPartition,
) -> Result<Vec<(ChunkName, ChunkManifest)>, TaskError> {
    let place = format!("partition {} of stage {stage}", partition.partition);
    if partition.position != partition.units.high || partition.segments.is_empty() {
        return Err(data_error(format!(
            "{place} is not complete: committed up to {} of {}; nothing is published",
            partition.position, partition.units
        )));
    }
    let names = chunk_names(stage, partition).map_err(|seq| {
        data_error(format!(
            "{place}: no attempt is recorded for commit {seq}; nothing is published"
        ))
    })?;
    let discards = matches!(context.step().sink, Sink::Discard);
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let path = folders.manifest_file(name);
        let Some(content) = read_if_present(&path)? else {
            if discards {
                continue;
            }
            return Err(data_error(format!(
                "{place}: the manifest {} is missing; nothing is published",
                path.display()
            )));
        };
        let manifest: ChunkManifest = serde_json::from_slice(&content)
            .map_err(|error| data_error(format!("{place}: the manifest {} is damaged: {error}", path.display())))?;
        check_manifest(context, name, &manifest, discards)
            .map_err(|what| data_error(format!("{place}: the manifest {} {what}", path.display())))?;
        found.push((name, manifest));
    }
    check_chain(&place, partition, &found, discards)?;
    Ok(found)
}

/// The chunks of a partition, or the first sequence number that no segment covers.
fn chunk_names(stage: Stage, partition: &CommittedPartition) -> Result<Vec<ChunkName>, u32> {
    let mut names = Vec::new();
    let mut next = 0;
    for &Segment {
        attempt,
        first_seq,
        next_seq,
    } in &partition.segments
    {
        if first_seq != next {
            return Err(next);
        }
        names.extend((first_seq..next_seq).map(|seq| ChunkName {
            stage,
            partition: partition.partition,
            attempt,
            seq,
        }));
        next = next_seq;
    }
    Ok(names)
}

fn check_manifest(
    context: &StepContext,
    name: ChunkName,
    manifest: &ChunkManifest,
    discards: bool,
) -> Result<(), String> {
    let is = (
        manifest.run,
        manifest.step,
        manifest.partition,
        manifest.fence.id,
        manifest.seq,
    );
    if is != (context.run, context.step_no, name.partition, name.attempt, name.seq) {
        return Err("belongs to another chunk".into());
    }
    let rows: u64 = manifest.files.iter().map(|file| file.rows).sum();
    if name.stage != Stage::Scatter && !discards && rows != manifest.counters.written {
        return Err(format!(
            "lists files of {rows} rows for {} rows written",
            manifest.counters.written
        ));
    }
    let rejected = manifest.rejects.as_ref().map_or(0, |file| file.rows);
    if rejected != manifest.counters.rejected {
        return Err(format!(
            "keeps {rejected} of {} rejected records",
            manifest.counters.rejected
        ));
    }
    Ok(())
}

/// Each chunk begins where the one before ended, and together they are what the leader recorded.
fn check_chain(
    place: &str,
    partition: &CommittedPartition,
    chunks: &[(ChunkName, ChunkManifest)],
    discards: bool,
) -> Result<(), TaskError> {
    let mut counters = Counters::default();
    let mut records = RecordHash::default();
    let mut position = partition.units.low;
    for (name, manifest) in chunks {
        if !discards && manifest.previous != position {
            return Err(data_error(format!(
                "{place}: commit {} begins at {} where the one before ended at {position}; nothing is published",
                name.seq, manifest.previous
            )));
        }
        position = manifest.next;
        counters += manifest.counters;
        records += manifest.records;
    }
    if discards {
        // Chunks that kept nothing have no manifest; those that rejected something must have one.
        if counters.rejected != partition.counters.rejected {
            return Err(data_error(format!(
                "{place}: {} records were rejected, {} are kept; nothing is published",
                partition.counters.rejected, counters.rejected
            )));
        }
        return Ok(());
    }
    if position != partition.units.high {
        return Err(data_error(format!(
            "{place}: its commits end at {position} of {}; nothing is published",
            partition.units
        )));
    }
    if counters != partition.counters || records != partition.records {
        return Err(data_error(format!(
            "{place}: its manifests say {counters:?} ({records}), the coordinator recorded {:?} ({}); nothing is published",
            partition.counters, partition.records
        )));
    }
    Ok(())
}

/// The partitions of a stage cover its domain without gap or overlap.
fn tiles(what: &str, partitions: &[CommittedPartition], domain: UnitRange) -> Result<(), TaskError> {
    let mut ranges: Vec<UnitRange> = partitions.iter().map(|partition| partition.units).collect();
    ranges.sort_unstable();
    let mut end = domain.low;
    for range in ranges {
        if range.low != end {
            let kind = if range.low > end {
                "nothing covers"
            } else {
                "two partitions cover"
            };
            let hole = UnitRange::new(end.min(range.low), end.max(range.low));
            return Err(data_error(format!(
                "the {what} is not covered once: {kind} {hole}; nothing is published"
            )));
        }
        end = range.high;
    }
    if end != domain.high {
        return Err(data_error(format!(
            "the {what} is not covered: nothing covers {end} to {}; nothing is published",
            domain.high
        )));
    }
    Ok(())
}

fn check_counts(context: &StepContext, frame: &StepFrame, committed: Committed<'_>) -> Result<(), TaskError> {
    let check = |stage: Stage, partition: &CommittedPartition| {
        let Counters {
            read,
            written,
            filtered,
            rejected,
            ..
        } = partition.counters;
        if partition.counters.reconciles() {
            return Ok(());
        }
        Err(data_error(format!(
            "partition {} of stage {stage} does not add up: {read} read, but {written} written, {filtered} filtered \
             and {rejected} rejected; nothing is published",
            partition.partition
        )))
    };
    committed
        .scatter
        .iter()
        .try_for_each(|partition| check(Stage::Scatter, partition))?;
    if must_reconcile(frame) {
        committed
            .execute
            .iter()
            .try_for_each(|partition| check(Stage::Execute, partition))?;
    }
    if frame.exchange.is_some() {
        let (scattered, read) = (total(committed.scatter).written, total(committed.execute).read);
        if scattered != read {
            return Err(data_error(format!(
                "the exchange does not add up: {scattered} records went in, {read} came out; nothing is published"
            )));
        }
    }
    let expected = frame.merge.map_or(0, |files| files as usize);
    if committed.merge.len() != expected {
        return Err(data_error(format!(
            "step {} is planned to be merged by {expected} tasks, {} are committed; nothing is published",
            context.step().name,
            committed.merge.len()
        )));
    }
    Ok(())
}

/// Chunks follow one another in the order of the output: the rows of each were held against one another when they
/// were written.
fn check_order(context: &StepContext, execute: &[(ChunkName, ChunkManifest)]) -> Result<(), TaskError> {
    let by = &context.step().sort;
    let discards = matches!(context.step().sink, Sink::Discard);
    if by.is_empty() || discards {
        return Ok(());
    }
    let mut before: Option<(&ChunkName, &KeySpan)> = None;
    for (name, manifest) in execute {
        let span = match &manifest.order {
            Some(span) => span,
            None if manifest.counters.written == 0 => continue,
            None => {
                return Err(data_error(format!(
                    "the manifest of {name} does not say where its {} sorted rows begin and end; nothing is published",
                    manifest.counters.written
                )));
            }
        };
        if let Some((earlier, before)) = before
            && order::compare(by, &before.last, &span.first).is_gt()
        {
            return Err(data_error(format!(
                "the output is not sorted by {}: {earlier} ends with {} and {name}, which follows it, begins with {}; \
                 nothing is published",
                order::display(by),
                shown(&before.last),
                shown(&span.first)
            )));
        }
        before = Some((name, span));
    }
    Ok(())
}

fn shown(row: &[Option<Key>]) -> String {
    let values = row
        .iter()
        .map(|key| key.as_ref().map_or("NULL".to_string(), Key::to_string));
    format!("({})", values.collect::<Vec<_>>().join(", "))
}

/// Each range of buckets gave what was scattered into it, by count and by fingerprint.
fn exchange_proofs(sealed: &Sealed<'_>) -> Result<Vec<ExchangeProof>, TaskError> {
    let prove = |partition: &CommittedPartition| {
        let (scattered_rows, scattered) = (sealed.scattered)(partition.units)?;
        let proof = ExchangeProof {
            partition: partition.partition,
            units: partition.units,
            scattered_rows,
            read_rows: partition.counters.read,
            scattered,
            read: partition.records,
        };
        if (proof.scattered_rows, proof.scattered) != (proof.read_rows, proof.read) {
            return Err(data_error(format!(
                "the exchange does not add up: {scattered_rows} records ({scattered}) went into buckets {} of \
                 partition {}, which read {} ({}); nothing is published",
                proof.units, proof.partition, proof.read_rows, proof.read
            )));
        }
        Ok(proof)
    };
    sealed.committed.execute.iter().map(prove).collect()
}

/// What the source's files declare of themselves is what all chunks together have counted of them.
fn check_totals(
    context: &StepContext,
    frame: &StepFrame,
    read: &[(ChunkName, ChunkManifest)],
) -> Result<(), TaskError> {
    let declaring = declaring_files(context, frame)?;
    if declaring.is_empty() {
        return Ok(());
    }
    let mut sum = Vec::new();
    for (_, manifest) in read {
        add_totals(&mut sum, manifest.totals.clone())?;
    }
    let mut wrong = Vec::new();
    for pinned in declaring {
        let Some(file) = sum.iter().find(|file| file.path == pinned.path) else {
            return Err(data_error(format!(
                "{}: its control totals were counted by no partition; nothing is published",
                pinned.path
            )));
        };
        let differ = file.totals.iter().filter(|total| total.declared != total.counted);
        wrong.extend(differ.map(|total| {
            format!(
                "{}: {} is declared as {}, counted were {}",
                file.path, total.what, total.declared, total.counted
            )
        }));
    }
    match wrong.len() {
        0 => Ok(()),
        count => {
            let more = match count > TOLD_TOTALS {
                true => format!("; and {} more", count - TOLD_TOTALS),
                false => String::new(),
            };
            wrong.truncate(TOLD_TOTALS);
            Err(data_error(format!(
                "{}{more}; nothing is published: mend the file or get it again, then run the job again: the step begins anew",
                wrong.join("; ")
            )))
        }
    }
}

/// The files of the source that declare control totals.
fn declaring_files<'a>(context: &StepContext, frame: &'a StepFrame) -> Result<Vec<&'a PinnedFile>, TaskError> {
    let (step, facts) = (context.step(), &frame.facts);
    let declares = |source| -> Result<bool, TaskError> {
        let stored = stored_of(&context.job, &step.name, source)?;
        Ok(matches!(stored, Stored::Records(layout) if layout.has_totals()))
    };
    let mut files = Vec::new();
    match &step.source {
        Source::Merge(merge) => {
            for ((_, _, own), source) in stretches(&facts.inputs, &facts.files).zip(&merge.inputs) {
                if declares(source)? {
                    files.extend(own);
                }
            }
        }
        source => {
            if declares(source)? {
                files.extend(&facts.files);
            }
        }
    }
    Ok(files)
}

fn must_reconcile(frame: &StepFrame) -> bool {
    matches!(frame.facts.transform.mode, TransformMode::RowWise { expands: false })
}

/// Rows in each named part of the output, those without any too.
fn rows_of_outputs(context: &StepContext, files: &[DataFile]) -> BTreeMap<String, u64> {
    let split = context.step().sink.file().and_then(|sink| sink.split.as_ref());
    let Some(split) = split.filter(|split| !matches!(split.by, SplitBy::Rows(_))) else {
        return BTreeMap::new();
    };
    let mut rows: BTreeMap<String, u64> = split.otherwise.iter().map(|name| (name.clone(), 0)).collect();
    if let SplitBy::When(outputs) = &split.by {
        rows.extend(outputs.iter().map(|output| (output.name.clone(), 0)));
    }
    for file in files.iter().filter(|file| file.rows > 0) {
        let (folder, _) = file.path.split_once('/').unwrap_or_default();
        *rows.entry(folder.to_string()).or_default() += file.rows;
    }
    rows
}

fn certificate(
    context: &StepContext,
    frame: &StepFrame,
    committed: Committed<'_>,
    exchange: Vec<ExchangeProof>,
) -> Certificate {
    let exchanged = frame.exchange.is_some();
    let source = if exchanged {
        committed.scatter
    } else {
        committed.execute
    };
    let mut counters = total(committed.execute);
    if exchanged {
        let scatter = total(committed.scatter);
        counters.read = scatter.read;
        counters.bytes_read = scatter.bytes_read;
        counters.filtered += scatter.filtered;
        counters.rejected += scatter.rejected;
    }
    let range = |partition: &CommittedPartition| RangeProof {
        partition: partition.partition,
        units: partition.units,
        read: partition.counters.read,
        records: partition.records,
    };
    Certificate {
        version: Certificate::VERSION,
        job: context.job.name.clone(),
        run: context.run,
        step: context.step_no,
        step_name: context.step().name.clone(),
        strength: Strength::Proved,
        reading: Reading {
            job: (*context.job).clone(),
            base_dir: context.base_dir.display().to_string(),
            unit: frame.facts.unit,
            columns: frame.facts.columns.clone(),
            read_columns: frame.facts.read_columns.clone(),
            inputs: frame.facts.inputs.clone(),
            output: frame.facts.output.clone(),
        },
        files: frame.facts.files.clone(),
        lookups: frame.facts.lookups.clone(),
        domain: frame.facts.domain,
        ranges: source.iter().map(range).collect(),
        exchange,
        counters,
        records: source_totals(frame, committed).1,
        outputs: BTreeMap::new(),
        rejects: Vec::new(),
        reconciled: must_reconcile(frame).then_some(true),
    }
}

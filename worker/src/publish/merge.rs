//! Merge: rewrites the files of a contiguous share of partitions into one file (for each Hive
//! folder), in the order of units and sequence. One commit.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use gapless_common::{
    attempt::{Commit, Counters, Fence, RecordHash},
    error::{ErrorClass, TaskError},
    ids::{PartitionNo, Stage},
    job::{Compression, Encoding},
    manifest::{ChunkManifest, DataFile, Version},
    range::UnitRange,
};

use super::reconcile::{frame, in_units, read_stage};
use crate::{
    attempt::{CommittedPartition, StepContext},
    avro::{Blocks, Codec},
    sink::{
        BlockWriter, BodyTotals, ChunkTarget, Format, LayoutStyle, ReportFile, ReportStyle, Staging, TextEncoder,
        decoder, parquet_error, read_back,
    },
    source::records::recount,
    storage::{DurableFile, StepFolders, StoredFile, io_error},
};

/// Rows of a batch on the way from file to file.
const BATCH_ROWS: usize = 8192;

/// Bytes of text on the way from file to file.
const COPY_BYTES: usize = 256 * 1024;

/// Merges share `number` of the step's output durably and returns the commit to offer. `execute`
/// are the committed partitions of stage Execute; `units` is the range of this task. `go_on` is
/// asked with the rows written so far.
pub fn merge(
    context: &StepContext,
    fence: Fence,
    number: PartitionNo,
    units: UnitRange,
    execute: &[CommittedPartition],
    go_on: &mut dyn FnMut(u64) -> Result<(), TaskError>,
) -> Result<Commit, TaskError> {
    let folders = StepFolders::of(context)?;
    let shares = frame(context)?.merge.unwrap_or(1);
    let mut partitions: Vec<&CommittedPartition> = execute.iter().collect();
    partitions.sort_unstable_by_key(|partition| in_units(partition));
    let share: Vec<CommittedPartition> = share_of(number, shares, partitions.len())
        .map(|index| partitions[index].clone())
        .collect();
    let manifests = read_stage(context, &folders, Stage::Execute, &share)?;

    let mut inputs: BTreeMap<String, Vec<DataFile>> = BTreeMap::new();
    for file in manifests.into_iter().flat_map(|(_, manifest)| manifest.files) {
        let (folder, _) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        inputs.entry(folder.to_string()).or_default().push(file);
    }
    let target = ChunkTarget::new(context, Stage::Merge, number, fence, 0)?;
    let mut counters = Counters::default();
    let mut files = Vec::new();
    if let Some((format, _)) = Format::of(&context.step().sink)? {
        let mut staging = target.staging(format);
        for (hive, mut files) in inputs {
            if files.iter().any(|file| file.rows > 0) {
                files.retain(|file| file.rows > 0);
            }
            let rows = merge_folder(&folders, &mut staging, &hive, &files, &mut |more| {
                go_on(counters.written + more)
            })?;
            counters.read += files.iter().map(|file| file.rows).sum::<u64>();
            counters.bytes_read += files.iter().map(|file| file.bytes).sum::<u64>();
            counters.written += rows;
        }
        files = staging.into_sealed().wait()?;
    }
    if counters.read != counters.written {
        return Err(TaskError::new(
            ErrorClass::Data,
            format!(
                "merge {number} read {} rows and wrote {}; nothing of it counts",
                counters.read, counters.written
            ),
        ));
    }
    counters.bytes_written = files.iter().map(|file| file.bytes).sum();
    let manifest = ChunkManifest {
        version: Version::default(),
        run: context.run,
        step: context.step_no,
        partition: number,
        fence,
        seq: 0,
        previous: units.low,
        next: units.high,
        counters,
        records: RecordHash::default(),
        files,
        order: None,
        rejects: None,
        totals: Vec::new(),
        inputs: Vec::new(),
        keys: None,
    };
    let digest = target.write_manifest(&manifest)?;
    Ok(Commit {
        seq: 0,
        previous: units.low,
        next: units.high,
        counters,
        records: RecordHash::default(),
        digest,
        last: true,
    })
}

/// The partitions that share `number` of `shares` covers: contiguous, and all shares together tile.
fn share_of(number: PartitionNo, shares: u32, partitions: usize) -> std::ops::Range<usize> {
    let at = |number: u32| (u64::from(number) * partitions as u64 / u64::from(shares.max(1))) as usize;
    at(number)..at(number + 1)
}

/// Returns the rows written.
fn merge_folder(
    folders: &StepFolders,
    staging: &mut Staging,
    hive: &str,
    files: &[DataFile],
    go_on: &mut dyn FnMut(u64) -> Result<(), TaskError>,
) -> Result<u64, TaskError> {
    match staging.format().clone() {
        Format::Avro(codec) => merge_avro(folders, staging, hive, files, codec, go_on),
        Format::Parquet(_) => merge_parquet(folders, staging, hive, files, go_on),
        Format::Report(style) => write_report(folders, &style, staging, hive, files, go_on),
        Format::Records(style) => {
            let (rel, file) = staging.create(hive, 0)?;
            let rows = files.iter().map(|file| file.rows).sum();
            let file = merge_records(folders, &style, file, files, go_on)?;
            staging.add(rel, rows, file);
            Ok(rows)
        }
        Format::Csv(style) => merge_text(
            folders,
            staging,
            hive,
            files,
            (style.compression, style.encoding, style.header),
            go_on,
        ),
        Format::Ndjson(compression) => merge_text(
            folders,
            staging,
            hive,
            files,
            (compression, Encoding::Utf8, false),
            go_on,
        ),
    }
}

/// The rows of all chunks, in order, through the templates.
fn write_report(
    folders: &StepFolders,
    style: &ReportStyle,
    staging: &mut Staging,
    hive: &str,
    files: &[DataFile],
    go_on: &mut dyn FnMut(u64) -> Result<(), TaskError>,
) -> Result<u64, TaskError> {
    let (rel, file) = staging.create(hive, 0)?;
    let mut begun = Err(file);
    let mut rows = 0;
    for staged in files {
        let path = folders.data_file(&staged.path);
        let builder = read_back(open(&path)?)
            .map_err(|error| parquet_error("read", &path, &error))?
            .with_batch_size(BATCH_ROWS);
        let mut report = match begun {
            Ok(report) => report,
            Err(file) => ReportFile::begin(file, builder.schema(), style)?,
        };
        let reader = builder.build().map_err(|error| parquet_error("read", &path, &error))?;
        for batch in reader {
            let batch = batch.map_err(|error| {
                TaskError::new(ErrorClass::Data, format!("cannot read {}: {error}", path.display()))
            })?;
            report.write(&batch)?;
            rows += batch.num_rows() as u64;
            go_on(rows)?;
        }
        begun = Ok(report);
    }
    let file = match begun {
        Ok(report) => report.close()?,
        Err(file) => file,
    };
    staging.add(rel, rows, file);
    Ok(rows)
}

fn merge_parquet(
    folders: &StepFolders,
    staging: &mut Staging,
    hive: &str,
    files: &[DataFile],
    go_on: &mut dyn FnMut(u64) -> Result<(), TaskError>,
) -> Result<u64, TaskError> {
    let mut merged = None;
    let mut rows = 0;
    for file in files {
        let path = folders.data_file(&file.path);
        let builder = read_back(open(&path)?)
            .map_err(|error| parquet_error("read", &path, &error))?
            .with_batch_size(BATCH_ROWS);
        let schema = Arc::clone(builder.schema());
        let reader = builder.build().map_err(|error| parquet_error("read", &path, &error))?;
        for batch in reader {
            let batch = batch.map_err(|error| {
                TaskError::new(ErrorClass::Data, format!("cannot read {}: {error}", path.display()))
            })?;
            let open = match &mut merged {
                Some(open) => open,
                empty => empty.insert(staging.begin(hive, 0, Arc::clone(&schema), Some(&batch), 1)?),
            };
            open.write(&batch)?;
            rows += batch.num_rows() as u64;
            go_on(rows)?;
        }
        if merged.is_none() {
            merged = Some(staging.begin(hive, 0, schema, None, 1)?);
        }
    }
    if let Some(open) = merged {
        staging.seal(open)?;
    }
    Ok(rows)
}

/// Joins the blocks as they are stored, behind one header.
fn merge_avro(
    folders: &StepFolders,
    staging: &mut Staging,
    hive: &str,
    files: &[DataFile],
    codec: Codec,
    go_on: &mut dyn FnMut(u64) -> Result<(), TaskError>,
) -> Result<u64, TaskError> {
    let (rel, file) = staging.create(hive, 0)?;
    let mut begun = Err(file);
    let mut rows = 0;
    for staged in files {
        let path = folders.data_file(&staged.path);
        let shown = path.display().to_string();
        let mut blocks = Blocks::open(open(&path)?, &shown, staged.bytes)?;
        let header = blocks.header().clone();
        let mut merged = match begun {
            Ok(merged) => merged,
            Err(file) => BlockWriter::new(file, header.schema.clone(), codec),
        };
        if header.codec != codec || header.schema != merged.schema() {
            let message = format!("{shown}: its schema or codec is not that of the other files of this step");
            return Err(TaskError::new(ErrorClass::Data, message));
        }
        let mut at = header.len;
        while let Some(block) = blocks.at(at)? {
            merged.add(block.rows, blocks.stored(&block)?)?;
            rows += block.rows;
            at = block.end;
            go_on(rows)?;
        }
        begun = Ok(merged);
    }
    let file = match begun {
        Ok(merged) => merged.close()?,
        Err(file) => file,
    };
    staging.add(rel, rows, file);
    Ok(rows)
}

/// Joins the texts, the header (if they have one) once.
fn merge_text(
    folders: &StepFolders,
    staging: &mut Staging,
    hive: &str,
    files: &[DataFile],
    (compression, encoding, header): (Compression, Encoding, bool),
    go_on: &mut dyn FnMut(u64) -> Result<(), TaskError>,
) -> Result<u64, TaskError> {
    let (rel, file) = staging.create(hive, 0)?;
    let mut encoder = TextEncoder::new(file, compression, encoding)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut rows = 0;
    for (number, file) in files.iter().enumerate() {
        let path = folders.data_file(&file.path);
        let wrong = |error: io::Error| io_error("read", &path, &error);
        let mut text = decoder(open(&path)?.into_reader(), compression, encoding).map_err(wrong)?;
        let mut skip = HeaderSkip::new(header && number > 0);
        loop {
            let length = text.read(&mut buffer).map_err(wrong)?;
            if length == 0 {
                break;
            }
            encoder.write_all(skip.rest(&buffer[..length]))?;
        }
        rows += file.rows;
        go_on(rows)?;
    }
    let multiline = files.iter().any(|file| file.multiline);
    staging.add_text(rel, rows, multiline, encoder.close()?);
    Ok(rows)
}

/// Joins the records between header and trailer. What these declare is counted by reading the records
/// back, so that it speaks of what the file holds.
fn merge_records(
    folders: &StepFolders,
    style: &LayoutStyle,
    file: DurableFile,
    files: &[DataFile],
    go_on: &mut dyn FnMut(u64) -> Result<(), TaskError>,
) -> Result<DurableFile, TaskError> {
    let mut totals = BodyTotals::default();
    if style.layout.has_totals() {
        for file in files {
            recount(&folders.data_file(&file.path), &style.layout, &mut totals)?;
            go_on(0)?;
        }
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        if totals.records != rows {
            return Err(TaskError::new(
                ErrorClass::Data,
                format!(
                    "{rows} records were written, {} read back; nothing of it counts",
                    totals.records
                ),
            ));
        }
    }
    let mut merged = style.encoder(file)?;
    if let Some(header) = &style.layout.header {
        merged.write_all(&style.edge(header, &totals)?)?;
    }
    let mut buffer = vec![0; COPY_BYTES];
    let mut rows = 0;
    for file in files {
        let path = folders.data_file(&file.path);
        let wrong = |error: io::Error| io_error("read", &path, &error);
        let file_in = open(&path)?.into_reader();
        let mut text = decoder(file_in, style.compression(), style.layout.packing.encoding).map_err(wrong)?;
        loop {
            let length = text.read(&mut buffer).map_err(wrong)?;
            if length == 0 {
                break;
            }
            merged.write_all(&buffer[..length])?;
        }
        rows += file.rows;
        go_on(rows)?;
    }
    if let Some(trailer) = &style.layout.trailer {
        merged.write_all(&style.edge(trailer, &totals)?)?;
    }
    merged.close()
}

/// Drops the first record of a text that comes in pieces.
struct HeaderSkip {
    skipping: bool,
    quoted: bool,
}

impl HeaderSkip {
    fn new(skipping: bool) -> Self {
        Self {
            skipping,
            quoted: false,
        }
    }

    fn rest<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        if !self.skipping {
            return piece;
        }
        for (at, &byte) in piece.iter().enumerate() {
            match byte {
                // A doubled quote inside quotes turns this off and on again.
                b'"' => self.quoted = !self.quoted,
                b'\n' if !self.quoted => {
                    self.skipping = false;
                    return &piece[at + 1..];
                }
                _ => {}
            }
        }
        &[]
    }
}

fn open(path: &Path) -> Result<StoredFile, TaskError> {
    StoredFile::open(path).map_err(|error| io_error("read", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_tile_the_partitions() {
        for (shares, partitions) in [(1, 1), (3, 8), (8, 3), (4, 0), (7, 10_000)] {
            let all: Vec<usize> = (0..shares)
                .flat_map(|number| share_of(number, shares, partitions))
                .collect();
            assert_eq!(all, (0..partitions).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_record_is_skipped_however_it_is_cut() {
        let text = b"a,\"b\"\"\nc\"\n1,2\n\"3\",4\n";
        for cut in 0..text.len() {
            let mut header = HeaderSkip::new(true);
            let mut rest = header.rest(&text[..cut]).to_vec();
            rest.extend_from_slice(header.rest(&text[cut..]));
            assert_eq!(rest, b"1,2\n\"3\",4\n", "cut at {cut}");
        }
    }
}

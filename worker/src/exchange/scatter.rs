//! A scatter attempt: source records, checked, into exchange files, one commit for each.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use arrow::{array::RecordBatch, datatypes::Schema};
use gapless_common::{
    attempt::{Commit, Counters, RecordHash},
    error::{ErrorClass, TaskError},
    ids::PartitionNo,
    manifest::{ChunkManifest, DataFile, FileTotals, InputSpan, Version},
    plan::ExchangePlan,
};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::{
    BLOCK_BYTES, BLOCK_ROWS, bucket::Bucketing, carrier::to_travelling, chunk_name, durable::StagedFile,
    exchange_folder, file::ExchangeWriter, scratch_folder, split::Splitter,
};
use crate::{
    attempt::{
        Assignment, Leader, Outcome, StepContext, Stop,
        intake::{add_totals, over_limit},
    },
    sink::records::RejectLine,
    source::{InputBatch, Reject, SourceReader, keys::KeyWriter},
};

/// Rows of a chunk, which is a file and a commit: what a lost worker costs, a second or so.
const CHUNK_ROWS: u64 = BLOCK_ROWS as u64;
/// Bytes of a chunk, for wide rows.
const CHUNK_BYTES: u64 = 128 * 1024 * 1024;
/// A slow source commits at least so often.
const CHUNK_TIME: Duration = Duration::from_secs(60);
/// Chunks that are written but wait to be durable. More would only hide that the disk is too slow.
const CHUNKS_IN_FLIGHT: usize = 1;

/// A batch after the step's checks: the rows that keep the rules, and the records that do not.
pub type Checked = (RecordBatch, Vec<Reject>);

/// Where a scatter attempt puts what it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScatterFolders {
    pub exchange: PathBuf,
    pub manifests: PathBuf,
    /// On the file system of the step's output, since the publisher links the files.
    pub rejects: PathBuf,
    /// Fingerprints of keys that are to be unique, beside the rejects.
    pub keys: PathBuf,
}

impl ScatterFolders {
    /// The folders of a step, its rejects and keys in the run folder of its sink.
    pub fn new(context: &StepContext, rejects: PathBuf, keys: PathBuf) -> Self {
        let scratch = scratch_folder(context);
        Self {
            exchange: exchange_folder(context),
            manifests: scratch.join("manifest"),
            rejects,
            keys,
        }
    }
}

/// Reads the assignment's part of the source, passes each batch through `check`, and writes `columns`
/// of the rows (all, where `None`) into exchange files. Commits each file, the last one with
/// `commit.last`.
///
/// Files become durable, and commits are offered, on a thread of their own while the next chunk is
/// read; at most [`CHUNKS_IN_FLIGHT`] wait.
///
/// Errors: those of the reader, of `check` and of the leader; `Config` where the plan has no exchange
/// or its columns are missing; `Data` where records were lost between the reader and the file, and where more than
/// `limit` were rejected;
/// `Transient` or `Resource` where files cannot be written; `Cancelled` when told to stop at once.
pub fn scatter(
    assignment: &Assignment,
    leader: &dyn Leader,
    reader: &mut dyn SourceReader,
    check: &mut dyn FnMut(InputBatch) -> Result<Checked, TaskError>,
    columns: Option<&[String]>,
    limit: Option<u64>,
    folders: &ScatterFolders,
) -> Result<Outcome, TaskError> {
    let frame = assignment.context.frame.as_ref();
    let plan = frame.and_then(|frame| frame.exchange.as_ref()).ok_or_else(|| {
        TaskError::new(
            ErrorClass::Config,
            format!("{} has no exchange in its plan", assignment.task),
        )
    })?;
    thread::scope(|scope| {
        let (chunks, sealed) = sync_channel(CHUNKS_IN_FLIGHT);
        let committer = scope.spawn(move || commit_chunks(sealed, leader));
        let outcome = Scatter::new(assignment, plan, reader, columns, limit, folders, chunks)
            .and_then(|scatter| scatter.run(leader, reader, check));
        // The committer ends when the chunks' sender is gone. Its error comes first: it is why
        // the sender failed.
        match committer.join() {
            Ok(committed) => committed.and(outcome),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A chunk whose files are written and not yet durable.
struct SealedChunk {
    files: Vec<StagedFile>,
    commit: Commit,
}

fn commit_chunks(chunks: Receiver<SealedChunk>, leader: &dyn Leader) -> Result<(), TaskError> {
    for chunk in chunks {
        // The manifest comes last: it names the others.
        for file in chunk.files {
            file.publish()?;
        }
        leader.commit(chunk.commit)?;
    }
    Ok(())
}

/// The state of an attempt: the chunk that is open, and where it began.
struct Scatter<'a> {
    assignment: &'a Assignment,
    folders: &'a ScatterFolders,
    bucketing: Bucketing,
    /// Columns that are scattered, by their place in the source.
    projection: Vec<usize>,
    splitter: Splitter,
    buckets: u32,
    chunks: SyncSender<SealedChunk>,
    seq: u32,
    previous: u64,
    chunk: Chunk,
    /// Records that this attempt has rejected.
    rejected: u64,
    /// Of records that the step may reject.
    limit: Option<u64>,
}

/// What an open chunk has taken and written so far.
struct Chunk {
    counters: Counters,
    records: RecordHash,
    opened: Instant,
    /// From the first block on.
    file: Option<ExchangeWriter>,
    rejects: Option<RejectWriter>,
    totals: Vec<FileTotals>,
    spans: Vec<InputSpan>,
    keys: Option<KeyWriter>,
}

impl Chunk {
    fn new() -> Self {
        let (counters, records) = (Counters::default(), RecordHash::default());
        Self {
            counters,
            records,
            opened: Instant::now(),
            file: None,
            rejects: None,
            totals: Vec::new(),
            spans: Vec::new(),
            keys: None,
        }
    }
}

impl<'a> Scatter<'a> {
    fn new(
        assignment: &'a Assignment,
        plan: &ExchangePlan,
        reader: &dyn SourceReader,
        columns: Option<&[String]>,
        limit: Option<u64>,
        folders: &'a ScatterFolders,
        chunks: SyncSender<SealedChunk>,
    ) -> Result<Self, TaskError> {
        let schema = reader.schema();
        let projection = match columns {
            None => (0..schema.fields().len()).collect(),
            Some(columns) => columns
                .iter()
                .map(|name| position_of(&schema, name))
                .collect::<Result<Vec<_>, _>>()?,
        };
        let scattered = schema
            .project(&projection)
            .map_err(|error| TaskError::new(ErrorClass::Config, error.to_string()))?;
        Ok(Self {
            bucketing: Bucketing::new(plan, &schema)?,
            splitter: Splitter::new(&scattered, plan.buckets),
            buckets: plan.buckets,
            projection,
            folders,
            chunks,
            seq: assignment.seq,
            previous: assignment.position,
            chunk: Chunk::new(),
            rejected: 0,
            limit,
            assignment,
        })
    }

    fn run(
        mut self,
        leader: &dyn Leader,
        reader: &mut dyn SourceReader,
        check: &mut dyn FnMut(InputBatch) -> Result<Checked, TaskError>,
    ) -> Result<Outcome, TaskError> {
        let end = self.assignment.units.high;
        loop {
            let batch = reader.next_batch()?;
            let ended = batch.is_none();
            if let Some(batch) = batch {
                let (rows, rejects) = check(batch)?;
                self.take_rows(&rows)?;
                self.take_rejects(&rejects)?;
            }
            let intake = reader.take_intake();
            self.chunk.counters.read += intake.read;
            self.chunk.counters.bytes_read += intake.bytes;
            self.chunk.records += intake.records;
            add_totals(&mut self.chunk.totals, intake.totals)?;
            InputSpan::add_all(&mut self.chunk.spans, intake.spans);
            self.take_keys(intake.keys)?;
            self.take_rejects(&intake.rejects)?;

            let stop = leader.progress(reader.position(), self.chunk.counters.read + reader.passed());
            if stop == Stop::Now {
                let message = format!("{} was told to stop at once", self.assignment.task);
                return Err(TaskError::new(ErrorClass::Cancelled, message));
            }
            let may_stop = reader.may_stop();
            if ended || may_stop && reader.position() >= end {
                self.seal(end, true)?;
                return Ok(Outcome::Committed);
            }
            if self.splitter.rows() >= BLOCK_ROWS || self.splitter.bytes() >= BLOCK_BYTES {
                self.write_block()?;
            }
            let chunk_full = self.chunk.counters.read >= CHUNK_ROWS
                || self.chunk.file.as_ref().is_some_and(|file| file.bytes() >= CHUNK_BYTES)
                || self.chunk.opened.elapsed() >= CHUNK_TIME;
            let stopping = stop == Stop::AtCheckpoint;
            if may_stop && (stopping || chunk_full) && reader.position() > self.previous {
                self.seal(reader.position(), false)?;
            }
            if may_stop && stopping {
                return Ok(Outcome::Released);
            }
        }
    }

    fn take_rows(&mut self, rows: &RecordBatch) -> Result<(), TaskError> {
        let travelling = rows.columns().iter().map(to_travelling).collect::<Result<Vec<_>, _>>();
        let columns = travelling.map_err(|error| TaskError::new(ErrorClass::Data, error.to_string()))?;
        let mut buckets = Vec::with_capacity(rows.num_rows());
        self.bucketing.assign(&columns, rows.num_rows(), &mut buckets);
        let columns: Vec<_> = self.projection.iter().map(|&index| columns[index].clone()).collect();
        self.splitter.push(&columns, &buckets);
        self.chunk.counters.written += rows.num_rows() as u64;
        Ok(())
    }

    fn take_rejects(&mut self, rejects: &[Reject]) -> Result<(), TaskError> {
        if rejects.is_empty() {
            return Ok(());
        }
        self.chunk.counters.rejected += rejects.len() as u64;
        let name = self.name() + ".ndjson";
        let writer = match &mut self.chunk.rejects {
            Some(writer) => writer,
            none => none.insert(RejectWriter::create(&self.folders.rejects, name)?),
        };
        writer.write(self.assignment.task.partition, rejects)?;
        let before = self.rejected;
        self.rejected += rejects.len() as u64;
        let beyond = self
            .limit
            .and_then(|limit| Some((limit, rejects.get(usize::try_from(limit.saturating_sub(before)).ok()?)?)));
        match beyond {
            None => Ok(()),
            Some((limit, reject)) => Err(self.keep_rejects(over_limit(limit, reject))),
        }
    }

    /// The step fails with this: its rejects are kept, and the message names the folder.
    fn keep_rejects(&mut self, error: TaskError) -> TaskError {
        let kept = self.chunk.rejects.take().map(|writer| writer.finish()?.0.publish());
        let place = match kept.transpose() {
            Ok(_) => format!("the rejected records are in {}", self.folders.rejects.display()),
            Err(error) => format!("the rejected records could not be kept: {error}"),
        };
        TaskError::new(error.class, format!("{}; {place}", error.message))
    }

    fn take_keys(&mut self, keys: Vec<u128>) -> Result<(), TaskError> {
        if keys.is_empty() {
            return Ok(());
        }
        let path = self.folders.keys.join(self.name() + ".keys");
        let writer = match &mut self.chunk.keys {
            Some(writer) => writer,
            none => none.insert(KeyWriter::create(&path)?),
        };
        writer.push(keys)
    }

    /// The name of what the open chunk writes.
    fn name(&self) -> String {
        chunk_name(self.assignment.task.partition, self.assignment.fence.id, self.seq)
    }

    fn write_block(&mut self) -> Result<(), TaskError> {
        let path = self.folders.exchange.join(self.name() + ".gx");
        let file = match &mut self.chunk.file {
            Some(file) => file,
            none => none.insert(ExchangeWriter::create(
                path,
                self.splitter.schema().clone(),
                self.buckets,
            )?),
        };
        if self.splitter.rows() > 0 {
            file.write_block(&mut self.splitter)?;
        }
        Ok(())
    }

    /// Closes the open chunk at `next` and hands it to the committer.
    fn seal(&mut self, next: u64, last: bool) -> Result<(), TaskError> {
        self.write_block()?;
        let name = self.name();
        let Chunk {
            mut counters,
            records,
            file,
            rejects,
            totals,
            spans,
            keys,
            ..
        } = std::mem::replace(&mut self.chunk, Chunk::new());
        let file = file.map(ExchangeWriter::finish).transpose()?;
        let rows = file.as_ref().map_or(0, |file| file.rows);
        if rows != counters.written || !counters.reconciles() {
            let message = format!(
                "{}: of {} records read {rows} were scattered and {} rejected; this is a fault of the program, \
                 nothing was committed",
                self.assignment.task, counters.read, counters.rejected
            );
            return Err(TaskError::new(ErrorClass::Data, message));
        }
        let mut staged = Vec::new();
        let mut files = Vec::new();
        if let Some(file) = file {
            counters.bytes_written = file.bytes;
            let (path, checksum) = (format!("{name}.gx"), format!("{:016x}", file.checksum));
            files.push(DataFile {
                path,
                rows: file.rows,
                bytes: file.bytes,
                checksum,
                multiline: false,
            });
            staged.push(file.staged);
        }
        let rejects = rejects.map(RejectWriter::finish).transpose()?.map(|(file, data)| {
            staged.push(file);
            data
        });
        let (previous, seq) = (self.previous, self.seq);
        let Assignment { task, fence, .. } = self.assignment;
        let manifest = ChunkManifest {
            version: Version::default(),
            run: task.run,
            step: task.step,
            partition: task.partition,
            fence: *fence,
            seq,
            previous,
            next,
            counters,
            records,
            files,
            order: None,
            rejects,
            totals,
            inputs: spans,
            keys: keys.map(KeyWriter::finish).transpose()?,
        };
        let manifest = serde_json::to_vec(&manifest)
            .map_err(|error| TaskError::new(ErrorClass::Data, format!("the manifest of {name}: {error}")))?;
        let mut file = StagedFile::create(self.folders.manifests.join(name + ".json"))?;
        file.write(&manifest)?;
        staged.push(file);
        let commit = Commit {
            seq,
            previous,
            next,
            counters,
            records,
            digest: xxh3_64(&manifest),
            last,
        };
        (self.previous, self.seq) = (next, seq + 1);
        self.chunks.send(SealedChunk { files: staged, commit }).map_err(|_| {
            let message = format!("{}: an earlier chunk could not be committed", self.assignment.task);
            TaskError::new(ErrorClass::Transient, message)
        })
    }
}

fn position_of(schema: &Schema, name: &str) -> Result<usize, TaskError> {
    schema.index_of(name).map_err(|_| {
        TaskError::new(
            ErrorClass::Config,
            format!("the step needs column {name}, which the source does not have"),
        )
    })
}

/// Quarantined records of a chunk, written as they come: a bad source may reject every record.
struct RejectWriter {
    staged: StagedFile,
    name: String,
    rows: u64,
    pending: Vec<u8>,
    hash: Xxh3Default,
}

/// Rejects are written in pieces of this size.
const REJECT_PIECE: usize = 256 * 1024;

impl RejectWriter {
    fn create(folder: &Path, name: String) -> Result<Self, TaskError> {
        let staged = StagedFile::create(folder.join(&name))?;
        Ok(Self {
            staged,
            name,
            rows: 0,
            pending: Vec::new(),
            hash: Xxh3Default::new(),
        })
    }

    fn write(&mut self, partition: PartitionNo, rejects: &[Reject]) -> Result<(), TaskError> {
        for reject in rejects {
            serde_json::to_writer(&mut self.pending, &RejectLine { partition, reject })
                .map_err(|error| TaskError::new(ErrorClass::Data, format!("a rejected record: {error}")))?;
            self.pending.push(b'\n');
            if self.pending.len() >= REJECT_PIECE {
                self.flush()?;
            }
        }
        self.rows += rejects.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TaskError> {
        self.hash.update(&self.pending);
        self.staged.write(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<(StagedFile, DataFile), TaskError> {
        self.flush()?;
        let checksum = format!("{:016x}", self.hash.digest());
        let data = DataFile {
            path: self.name,
            rows: self.rows,
            bytes: self.staged.bytes(),
            checksum,
            multiline: false,
        };
        Ok((self.staged, data))
    }
}

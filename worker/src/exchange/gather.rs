//! The gather: reads a range of buckets out of the files of all scatter chunks, bucket by bucket.
//! Every segment is checked against its hash before a row of it is passed on.

use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use bytes::Bytes;
use gapless_common::{
    error::{ErrorClass, TaskError},
    range::UnitRange,
};
use gapless_platform::objects::Pending;

use super::{
    index::{ExchangeObject, Indexed, Indexes, damaged, unreadable, unreadable_object},
    layout::{ColumnLayout, Scattered, Segment, SegmentKey, columns_hash, segment_hash},
    restore::Restorer,
};
use crate::source::{InputBatch, Intake, Origin, Place, SourceReader, shown::row_as_text};

/// A batch is handed on from so many rows, be it in the middle of a bucket.
const BATCH_ROWS: usize = 16 * 1024;
/// At the end of a bucket so few are enough; smaller buckets share a batch.
const BUCKET_BATCH_ROWS: usize = 4 * 1024;
/// Wide rows make a batch earlier.
const BATCH_BYTES: usize = 32 * 1024 * 1024;
/// Larger batches (one bucket of one file) are handed on in slices.
const MOST_BATCH_ROWS: usize = 64 * 1024;
/// Bytes of neighbouring buckets that are read ahead, of all files together.
const WINDOW_BYTES: u64 = 16 * 1024 * 1024;
/// Stretches of objects that are asked for before they are needed: some 20 ms each, whatever they bring.
const REQUESTS_AHEAD: usize = 16;

/// Reads buckets `[low, high)` of a sealed scatter stage. Positions are buckets.
pub struct GatherReader {
    schema: SchemaRef,
    range: UnitRange,
    parts: Vec<Part>,
    buffers: Vec<Option<Vec<u8>>>,
    spare: Vec<Vec<u8>>,
    /// The file that was read last.
    file: Option<(Arc<Path>, File)>,
    ahead: Ahead,
    /// The buckets that are read together.
    window: UnitRange,
    bucket: u64,
    /// The part that is next in `bucket`; not 0 in the middle of a bucket.
    part: usize,
    restorer: Restorer,
    /// Everything below this bucket has been handed on.
    settled: u64,
    /// What is left of a batch that is handed on in slices.
    slices: Option<RecordBatch>,
    intake: Intake,
}

/// The range's segments in one block of one file.
struct Part {
    path: Arc<Path>,
    /// `None` for a file of the file system.
    object: Option<Arc<ExchangeObject>>,
    columns: Arc<[ColumnLayout]>,
    columns_hash: u64,
    segments: Vec<Segment>,
    /// Where each segment begins in the file, and where the last one ends.
    offsets: Vec<u64>,
}

impl Part {
    /// Where the segments of a window of the range begin in the file, and how long they are.
    fn span(&self, window: UnitRange, range: UnitRange) -> (u64, usize) {
        let at = |bucket: u64| self.offsets[(bucket - range.low) as usize];
        (at(window.low), (at(window.high) - at(window.low)) as usize)
    }
}

/// Stretches of objects that are on their way: those of the parts that come next in the window.
#[derive(Default)]
struct Ahead {
    pending: HashMap<usize, (Pending<Bytes>, u64)>,
    bytes: u64,
    /// The parts before this one have been asked for, if there was anything to ask for.
    next: usize,
}

impl Ahead {
    fn take(&mut self, part: usize) -> Option<Pending<Bytes>> {
        let (pending, bytes) = self.pending.remove(&part)?;
        self.bytes -= bytes;
        Some(pending)
    }

    /// Asks for the parts after `current`, as many as may be on their way.
    fn send(
        &mut self,
        current: usize,
        parts: &[Part],
        buffers: &[Option<Vec<u8>>],
        span: impl Fn(&Part) -> (u64, usize),
    ) {
        self.next = self.next.max(current + 1);
        while self.pending.len() < REQUESTS_AHEAD
            && let Some(part) = parts.get(self.next)
        {
            let (start, length) = span(part);
            let length = length as u64;
            if self.bytes + length > WINDOW_BYTES {
                break;
            }
            if let Some(object) = &part.object
                && length > 0
                && buffers[self.next].is_none()
            {
                let pending = object.fetch(start..start + length);
                self.pending.insert(self.next, (pending, length));
                self.bytes += length;
            }
            self.next += 1;
        }
    }
}

/// Keeps a buffer for the next file; what an object brought has come in one of its own.
fn recycle(spare: &mut Vec<Vec<u8>>, buffer: Option<Vec<u8>>, part: &Part) {
    if part.object.is_none() {
        spare.extend(buffer);
    }
}

impl GatherReader {
    /// Opens the files of a scatter stage for a range of buckets: those of a partition, or what is
    /// left of it.
    ///
    /// Errors: `Transient` where a file cannot be read, `Data` where one is damaged or does not
    /// belong to the others.
    pub fn open(files: &[PathBuf], range: UnitRange) -> Result<Self, TaskError> {
        let mut parts = Vec::new();
        let mut first: Option<(SchemaRef, u32)> = None;
        for index in Indexes::of(files) {
            let (path, Indexed { footer, object }) = index?;
            match &first {
                Some((schema, buckets)) if *schema != footer.schema || *buckets != footer.buckets => {
                    return Err(damaged(
                        path,
                        "its columns or buckets are not those of the other exchange files",
                    ));
                }
                Some(_) => {}
                None => first = Some((footer.schema.clone(), footer.buckets)),
            }
            if range.high > u64::from(footer.buckets) {
                return Err(damaged(
                    path,
                    format!("it has {} buckets, the partition is {range}", footer.buckets),
                ));
            }
            let path: Arc<Path> = path.into();
            for block in &footer.blocks {
                let (before, rest) = block.segments.split_at(range.low as usize);
                let segments = rest[..range.len() as usize].to_vec();
                if segments.iter().all(|segment| segment.rows == 0) {
                    continue;
                }
                let mut offset = block.offset + before.iter().map(|segment| u64::from(segment.bytes)).sum::<u64>();
                let mut offsets = vec![offset];
                offsets.extend(segments.iter().map(|segment| {
                    offset += u64::from(segment.bytes);
                    offset
                }));
                let columns_hash = columns_hash(&block.columns);
                let columns = block.columns.as_slice().into();
                parts.push(Part {
                    path: path.clone(),
                    object: object.clone(),
                    columns,
                    columns_hash,
                    segments,
                    offsets,
                });
            }
        }
        let schema = first.map_or_else(|| Arc::new(Schema::empty()), |(schema, _)| schema);
        Ok(Self {
            restorer: Restorer::new(schema.clone()),
            schema,
            range,
            buffers: parts.iter().map(|_| None).collect(),
            parts,
            spare: Vec::new(),
            file: None,
            ahead: Ahead::default(),
            window: UnitRange::new(range.low, range.low),
            bucket: range.low,
            part: 0,
            settled: range.low,
            slices: None,
            intake: Intake::default(),
        })
    }

    /// What the files' indexes say of the range: what will have been read at its end.
    pub fn expected(&self) -> Scattered {
        let mut sum = Scattered::default();
        for segment in self.parts.iter().flat_map(|part| &part.segments) {
            sum.rows += u64::from(segment.rows);
            sum.records.add(segment.hash);
        }
        sum
    }

    /// Chooses the buckets to read together from `self.bucket` on: one at least.
    fn open_window(&mut self) {
        let mut bytes = 0;
        let mut high = self.bucket;
        while high < self.range.high {
            let at = (high - self.range.low) as usize;
            bytes += self
                .parts
                .iter()
                .map(|part| u64::from(part.segments[at].bytes))
                .sum::<u64>();
            if bytes > WINDOW_BYTES && high > self.bucket {
                break;
            }
            high += 1;
        }
        self.window = UnitRange::new(self.bucket, high);
        for (buffer, part) in self.buffers.iter_mut().zip(&self.parts) {
            recycle(&mut self.spare, buffer.take(), part);
        }
        self.ahead = Ahead::default();
    }

    /// Adds the next segment to the batch in the making.
    fn load_segment(&mut self) -> Result<(), TaskError> {
        let index = self.part;
        let part = &self.parts[index];
        let at = (self.bucket - self.range.low) as usize;
        let Segment {
            rows,
            hash,
            bytes: length,
        } = part.segments[at];
        if rows == 0 {
            return Ok(());
        }
        let (window_start, window_length) = part.span(self.window, self.range);
        if self.buffers[index].is_none()
            && let Some(object) = &part.object
        {
            let pending = match self.ahead.take(index) {
                Some(pending) => pending,
                None => object.fetch(window_start..window_start + window_length as u64),
            };
            self.ahead.send(index, &self.parts, &self.buffers, |part| {
                part.span(self.window, self.range)
            });
            let bytes = pending.wait().map_err(|error| unreadable_object(&part.path, error))?;
            if bytes.len() != window_length {
                return Err(unreadable(&part.path, std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.buffers[index] = Some(bytes.into());
        }
        if self.buffers[index].is_none() {
            let mut buffer = self.spare.pop().unwrap_or_default();
            buffer.resize(window_length, 0);
            // The blocks of a file come one after the other.
            let file = match self.file.take() {
                Some((path, file)) if Arc::ptr_eq(&path, &part.path) => file,
                _ => File::open(&part.path).map_err(|error| unreadable(&part.path, error))?,
            };
            file.read_exact_at(&mut buffer, window_start)
                .map_err(|error| unreadable(&part.path, error))?;
            self.file = Some((part.path.clone(), file));
            self.buffers[index] = Some(buffer);
        }
        let buffer = self.buffers[index].as_deref().unwrap_or_default();
        let start = (part.offsets[at] - window_start) as usize;
        let stored = &buffer[start..start + length as usize];
        let key = SegmentKey {
            bucket: self.bucket as u32,
            rows,
            columns: part.columns_hash,
        };
        if segment_hash(key, stored) != hash {
            return Err(damaged(
                &part.path,
                format!("bucket {} does not have its checksum", self.bucket),
            ));
        }
        self.restorer
            .add(&part.columns, rows as usize, stored)
            .map_err(|words| damaged(&part.path, words))?;
        self.intake.read += u64::from(rows);
        self.intake.bytes += u64::from(length);
        self.intake.records.add(hash);
        if self.bucket + 1 == self.window.high {
            recycle(&mut self.spare, self.buffers[index].take(), part);
        }
        Ok(())
    }

    /// Steps to the next segment; answers whether that begins a bucket.
    fn step(&mut self) -> bool {
        self.part += 1;
        if self.part < self.parts.len() {
            return false;
        }
        self.part = 0;
        self.bucket += 1;
        true
    }

    fn fill(&mut self) -> Result<(), TaskError> {
        if self.parts.is_empty() {
            self.bucket = self.range.high;
        }
        while self.bucket < self.range.high {
            if self.bucket >= self.window.high {
                self.open_window();
            }
            self.load_segment()?;
            let enough = if self.step() { BUCKET_BATCH_ROWS } else { BATCH_ROWS };
            if self.restorer.rows() >= enough || self.restorer.bytes() >= BATCH_BYTES {
                break;
            }
        }
        Ok(())
    }
}

impl SourceReader for GatherReader {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn next_batch(&mut self) -> Result<Option<InputBatch>, TaskError> {
        let mut whole = match self.slices.take() {
            Some(rest) => rest,
            None => {
                self.fill()?;
                if self.restorer.rows() == 0 {
                    self.settled = self.bucket;
                    return Ok(None);
                }
                self.restorer.take().map_err(|words| {
                    TaskError::new(
                        ErrorClass::Data,
                        format!("buckets {} cannot be read: {words}", self.range),
                    )
                })?
            }
        };
        if whole.num_rows() > MOST_BATCH_ROWS {
            self.slices = Some(whole.slice(MOST_BATCH_ROWS, whole.num_rows() - MOST_BATCH_ROWS));
            whole = whole.slice(0, MOST_BATCH_ROWS);
        } else {
            self.settled = self.bucket;
        }
        let origin = Arc::new(ExchangedRows {
            batch: whole.clone(),
            range: self.range,
        });
        Ok(Some(InputBatch { batch: whole, origin }))
    }

    fn position(&self) -> u64 {
        self.settled
    }

    fn may_stop(&self) -> bool {
        self.part == 0 && self.slices.is_none()
    }

    fn take_intake(&mut self) -> Intake {
        std::mem::take(&mut self.intake)
    }
}

/// Rows of the exchange have left their file and line behind: they are shown by their values.
struct ExchangedRows {
    batch: RecordBatch,
    range: UnitRange,
}

impl Origin for ExchangedRows {
    fn locate(&self, row: usize) -> Place {
        Place {
            file: format!("exchange buckets {}", self.range),
            line: None,
            row: None,
            block: None,
            raw: row_as_text(&self.batch, row),
        }
    }
}

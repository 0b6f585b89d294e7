//! Records that a program writes, read with limits: it may write anything.

use std::{
    io::{self, BufRead, BufReader, Read},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::SyncSender,
    },
};

use arrow::{
    array::RecordBatch,
    buffer::{Buffer, MutableBuffer},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
    ipc::{convert::fb_to_schema, reader::StreamDecoder, root_as_message},
};
use gapless_common::job::CommandFormat;

use super::{Event, shown};
use crate::{
    source::csv::{ObjectLines, column_type},
    type_names::type_name,
};

/// The metadata of a message: a schema of thousands of columns fits.
const MAX_METADATA: usize = 16 << 20;
/// A batch of records; more than one of them is held in memory.
const MAX_BATCH: usize = 256 << 20;
/// A line of JSON: as long as a record of text may be.
const MAX_LINE: usize = 16 << 20;
/// Lines that become one batch, and their bytes.
const BATCH_LINES: usize = 8192;
const BATCH_BYTES: usize = 8 << 20;
/// Lines are read in pieces of this size.
const BUFFER: usize = 256 * 1024;
/// So much of a line is shown.
const SHOWN: usize = 200;
/// What each message of a stream begins with.
const CONTINUATION: u32 = 0xffff_ffff;

/// Why the output of a program cannot be taken, in words that go after "the program X".
#[derive(Debug)]
pub(super) enum OutputError {
    /// It ended in the middle.
    BrokenOff(String),
    /// It is not what it should be, or too much.
    Wrong(String),
    Io(io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> OutputError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => OutputError::BrokenOff("wrote a stream that breaks off".to_string()),
            _ => OutputError::Io(error),
        }
    }
}

fn wrong(what: impl Into<String>) -> OutputError {
    OutputError::Wrong(what.into())
}

pub(super) struct Reader {
    pub format: CommandFormat,
    /// What is expected; JSON cannot be read without.
    pub columns: Option<SchemaRef>,
    pub limit: u64,
}

/// Counts what a program writes.
struct Counted<R> {
    inner: R,
    left: u64,
    over: bool,
    /// Told to whoever waits.
    bytes_read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes_read.fetch_add(read as u64, Ordering::Relaxed);
        self.over |= read as u64 > self.left;
        self.left = self.left.saturating_sub(read as u64);
        match self.over {
            true => Err(io::Error::other("too much")),
            false => Ok(read),
        }
    }
}

impl Reader {
    /// Reads to the end. Who does not listen any more ends it.
    pub fn read(self, stdout: impl Read, bytes_read: Arc<AtomicU64>, events: &SyncSender<Event>) {
        let mut counted = Counted {
            inner: stdout,
            left: self.limit,
            over: false,
            bytes_read,
        };
        let ended = match self.format {
            CommandFormat::Arrow => read_arrow(&mut counted, events),
            CommandFormat::Ndjson => self.read_ndjson(&mut counted, events),
        };
        let ended = match counted.over {
            true => Err(wrong(format!(
                "wrote more than {} MiB in one run (output_mib); nothing of it counts",
                self.limit >> 20
            ))),
            false => ended,
        };
        events.send(Event::OutputEnded(ended)).ok();
    }

    fn read_ndjson(&self, stdout: impl Read, events: &SyncSender<Event>) -> Result<(), OutputError> {
        let mut objects = self.objects()?;
        if events.send(Event::Schema(objects.schema())).is_err() {
            return Ok(());
        }
        let mut stdout = BufReader::with_capacity(BUFFER, stdout);
        let (mut lines, mut text) = (0u64, Vec::new());
        // Where the records of a batch stand in the text, and in which line.
        let mut records: Vec<(Range<usize>, u64)> = Vec::new();
        loop {
            text.clear();
            records.clear();
            let mut ended = false;
            while records.len() < BATCH_LINES && text.len() < BATCH_BYTES {
                let start = text.len();
                let read = (&mut stdout).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut text)?;
                if read == 0 {
                    ended = true;
                    break;
                }
                lines += 1;
                if read > MAX_LINE {
                    return Err(wrong(format!(
                        "wrote a line of more than {} MiB, line {lines}",
                        MAX_LINE >> 20
                    )));
                }
                match text[start..].trim_ascii_end().len() {
                    0 => text.truncate(start),
                    len => records.push((start..start + len, lines)),
                }
            }
            if !records.is_empty() {
                let found = objects.decode(text.len(), records.iter().map(|(place, _)| &text[place.clone()]));
                let batch = found.map_err(|bad| {
                    let (place, number) = &records[bad.at];
                    let shown = String::from_utf8_lossy(&text[place.start..place.end.min(place.start + SHOWN)]);
                    wrong(format!(
                        "wrote a line that is no record with the declared columns, line {number}: {}: «{shown}»",
                        bad.reason
                    ))
                })?;
                if events.send(Event::Batch(batch)).is_err() {
                    return Ok(());
                }
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Errors: columns that lines of JSON cannot have.
    fn objects(&self) -> Result<ObjectLines, OutputError> {
        let schema = self.columns.clone().unwrap_or_else(|| Arc::new(Schema::empty()));
        let column = |field: &Arc<Field>| {
            let ty = column_type(field.data_type()).ok_or_else(|| {
                wrong(format!(
                    "is to write lines of JSON, of which column {} cannot be of type {}",
                    field.name(),
                    type_name(field.data_type())
                ))
            })?;
            Ok((field.name().clone(), ty))
        };
        let columns: Result<Vec<_>, OutputError> = schema.fields().iter().map(column).collect();
        ObjectLines::new(columns?).map_err(|error| wrong(error.message))
    }
}

fn read_arrow(mut stdout: impl Read, events: &SyncSender<Event>) -> Result<(), OutputError> {
    let mut decoder = StreamDecoder::new();
    let mut known = false;
    loop {
        let mut prefix = [0u8; 8];
        match read_full(&mut stdout, &mut prefix)? {
            // A stream may end without its mark, when it has begun.
            0 if known => return Ok(()),
            0 => {
                return Err(OutputError::BrokenOff(
                    "wrote no Arrow stream, but nothing at all".to_string(),
                ));
            }
            8 => {}
            some => return Err(no_message(&prefix[..some], known)),
        }
        let word = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
        let length = word(4) as usize;
        if word(0) != CONTINUATION || length > MAX_METADATA {
            return Err(no_message(&prefix, known));
        }
        if length == 0 {
            // The mark of the end; whatever follows was not meant for us.
            if events.send(Event::OutputComplete).is_err() {
                return Ok(());
            }
            let rest = io::copy(&mut stdout, &mut io::sink())?;
            return match rest {
                0 => Ok(()),
                rest => Err(wrong(format!(
                    "wrote {rest} bytes more after the end of its Arrow stream"
                ))),
            };
        }
        let metadata = read_buffer(&mut stdout, length)?;
        let message = root_as_message(&metadata)
            .map_err(|error| wrong(format!("wrote a message that is no Arrow IPC: {error}")))?;
        if !known && let Some(schema) = message.header_as_schema() {
            known = true;
            // The decoder tells it only once more has come.
            if events.send(Event::Schema(Arc::new(fb_to_schema(schema)))).is_err() {
                return Ok(());
            }
        }
        let body = message.bodyLength();
        let body = usize::try_from(body)
            .ok()
            .filter(|body| *body <= MAX_BATCH)
            .ok_or_else(|| {
                wrong(format!(
                    "wrote a batch of {body} bytes; write batches of at most {} MiB",
                    MAX_BATCH >> 20
                ))
            })?;
        let body = read_buffer(&mut stdout, body)?;
        for mut part in [Buffer::from(prefix.as_slice()), metadata, body] {
            while !part.is_empty() {
                let batch = decoder
                    .decode(&mut part)
                    .map_err(|error| wrong(format!("wrote an Arrow stream that cannot be read: {error}")))?;
                if let Some(batch) = batch
                    && batch.num_rows() > 0
                    && events.send(Event::Batch(batch)).is_err()
                {
                    return Ok(());
                }
            }
        }
    }
}

fn no_message(found: &[u8], known: bool) -> OutputError {
    let shown = String::from_utf8_lossy(found);
    let what = match known {
        true => "wrote something between the batches of its Arrow stream",
        false => "wrote something that is no Arrow IPC stream",
    };
    wrong(format!(
        "{what}: «{}…»; its standard output is for records alone, messages go to standard error (or set format: ndjson)",
        shown.escape_debug()
    ))
}

/// As much as there is, up to the length of `buffer`.
fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn read_buffer(from: &mut impl Read, length: usize) -> Result<Buffer, OutputError> {
    let mut buffer = MutableBuffer::from_len_zeroed(length);
    from.read_exact(buffer.as_slice_mut())?;
    Ok(buffer.into())
}

/// What a program writes, brought to the columns that the step has.
pub(super) struct Reshape {
    output: SchemaRef,
    same: bool,
}

impl Reshape {
    /// `expected`: names, order and types are to be these; text and bytes may come in any of their forms.
    pub fn new(written: &SchemaRef, expected: Option<&SchemaRef>) -> Result<Reshape, String> {
        let Some(expected) = expected else {
            return Ok(Reshape {
                output: written.clone(),
                same: true,
            });
        };
        let fits =
            written.fields().len() == expected.fields().len()
                && written.fields().iter().zip(expected.fields()).all(|(one, other)| {
                    one.name() == other.name() && plain(one.data_type()) == plain(other.data_type())
                });
        if !fits {
            return Err(format!(
                "writes other columns than it is expected to: ({}) instead of ({}); declare what it writes in `columns`",
                shown(written),
                shown(expected)
            ));
        }
        Ok(Reshape {
            same: written == expected,
            output: expected.clone(),
        })
    }

    pub fn output(&self) -> &SchemaRef {
        &self.output
    }

    pub fn shape(&self, batch: RecordBatch) -> Result<RecordBatch, String> {
        if self.same {
            return Ok(batch);
        }
        let columns = batch.columns().iter().zip(self.output.fields());
        let columns: Result<Vec<_>, _> = columns.map(|(column, field)| cast(column, field.data_type())).collect();
        columns
            .and_then(|columns| RecordBatch::try_new(self.output.clone(), columns))
            .map_err(|error| format!("wrote records that do not fit its columns: {error}"))
    }
}

fn plain(ty: &DataType) -> DataType {
    match ty {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, values) => plain(values),
        other => other.clone(),
    }
}

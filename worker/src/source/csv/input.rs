//! Blocks of whole lines from one file: by position for plain files, as a stream for compressed
//! ones. Knows where records begin and end, nothing of fields.

use std::{io::Read, path::PathBuf, sync::Arc};

use arrow::buffer::Buffer;
use gapless_common::{error::TaskError, job::Encoding, plan::PinnedFile};

use super::{
    block::{PAD, Pool},
    encoding::utf8,
    layout::{Codec, Format, Head, Layout, decode_error, first_names, read_full},
    lines::LineBase,
    members::{gunzip, unzstd},
    scan::Scan,
};
use crate::{
    source::{
        nature,
        pins::{config, data, io_error},
    },
    storage::{FromOffset, StoredFile},
};

/// A line longer than this is not a record but a file that is no CSV.
pub const MAX_RECORD: usize = 16 * 1024 * 1024;

/// Bytes read at once: measured best between 256 and 512 KiB; larger leaves the cache.
const BLOCK: usize = 512 * 1024;

/// Read beyond the end of a range to finish its last record, in most cases in the same read.
const TAIL: u64 = 4096;

enum Bytes {
    Plain(StoredFile),
    Stream(Box<dyn Read + Send>),
}

/// The lines of one file whose first bytes lie in `[start, stop)`.
pub(super) struct Input {
    bytes: Bytes,
    pub path: Arc<str>,
    /// Length of the content; unknown (`u64::MAX`) for compressed files.
    size: u64,
    stop: u64,
    /// Offset in the content of the next line.
    pub at: u64,
    /// What was read from `at` on: a stretch of the last block.
    carry: Option<(Buffer, usize, usize)>,
    ended: bool,
    pub lines: Arc<LineBase>,
    /// Newlines passed since the start that `lines` knows.
    newlines: u64,
}

/// Whole lines: `scan` holds the places of the first `lines` of them.
pub(super) struct Block {
    pub buffer: Buffer,
    pub lines: usize,
    /// Newlines passed before this block since the start that `base` knows.
    pub newlines_before: u64,
    /// Bytes of the content that the lines take.
    pub len: u64,
}

/// How files begin: of zstd also those with a frame to skip in front, whose first four bits count.
pub(super) const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
pub(super) const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
pub(super) const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];

/// Whether a file that is said to be compressed begins as such files do, and one that is not does not.
pub(in crate::source) fn check_magic(codec: Codec, path: &str, file: &StoredFile) -> Result<(), TaskError> {
    let mut first = [0; 4];
    let read = |first: &mut [u8]| {
        read_full(&mut FromOffset::new(file, 0), first).map_err(|error| io_error(path, "reading", &error))
    };
    if codec == Codec::Plain {
        let mut first = [0; nature::TOLD_BY];
        let got = read(&mut first)?;
        return nature::check(path, &first[..got]);
    }
    let got = read(&mut first)?;
    let (name, is_one) = match codec {
        Codec::Plain => return Ok(()),
        Codec::Gzip => ("gzip", first.starts_with(GZIP_MAGIC)),
        Codec::Zstd => (
            "zstd",
            first == ZSTD_MAGIC || (first[0] & 0xf0 == 0x50 && &first[1..] == ZSTD_SKIPPABLE),
        ),
    };
    // Too short to tell: the decoder says that it is cut off.
    if is_one || got < first.len() {
        return Ok(());
    }
    Err(config(format!(
        "{path}: this is no {name} file, though its name or `compression` says so; name what it is with `compression`"
    )))
}

/// The text of a file, from its first byte.
fn decoder(format: &Format, path: &str, file: StoredFile) -> Result<Box<dyn Read + Send>, TaskError> {
    let codec = format.codec(path)?;
    // Of plain UTF-8 whoever reads it looks at the first bytes.
    if codec != Codec::Plain || format.dialect.encoding != Encoding::Utf8 {
        check_magic(codec, path, &file)?;
    }
    unpacked(codec, format.dialect.encoding, path, file.into_reader())
}

/// The text of what a file holds.
pub(in crate::source) fn unpacked(
    codec: Codec,
    encoding: Encoding,
    path: &str,
    file: Box<dyn Read + Send>,
) -> Result<Box<dyn Read + Send>, TaskError> {
    let bytes: Box<dyn Read + Send> = match codec {
        Codec::Plain => file,
        Codec::Gzip => gunzip(file).map_err(|error| io_error(path, "opening", &error))?,
        Codec::Zstd => unzstd(file).map_err(|error| io_error(path, "opening", &error))?,
    };
    Ok(utf8(encoding, bytes))
}

/// Reads the beginning of a file as a survey does.
pub(super) fn head(file: StoredFile, path: &str, format: &Format) -> Result<Head, TaskError> {
    let mut input = decoder(format, path, file)?;
    Head::survey(path, &mut input, format)
}

/// The names in the first record of a file of objects.
pub(super) fn names(file: StoredFile, path: &str, format: &Format) -> Result<Option<Vec<String>>, TaskError> {
    first_names(path, &mut decoder(format, path, file)?, format)
}

impl Input {
    /// Opens `[low, high)` of a file's bytes; a compressed file is opened as a whole.
    pub fn open(
        file: StoredFile,
        full_path: PathBuf,
        pinned: &PinnedFile,
        layout: &Layout,
        (low, high): (u64, u64),
    ) -> Result<Input, TaskError> {
        let path: Arc<str> = Arc::from(pinned.path.as_str());
        match layout.format.reads_from_start(&path)? {
            false => {
                let head = Head::read(&path, &mut FromOffset::new(&file, 0), &layout.format)?;
                if let Some(header) = &head.header {
                    layout.check_header(&path, header)?;
                }
                let data_start = head.data_start as u64;
                let at = match low <= data_start {
                    true => data_start,
                    false => line_after(&file, &path, low - 1, pinned.size)?,
                };
                Ok(Input {
                    bytes: Bytes::Plain(file),
                    path,
                    size: pinned.size,
                    stop: high.min(pinned.size),
                    at,
                    carry: None,
                    ended: false,
                    lines: Arc::new(LineBase::new(full_path, &pinned.etag, at)),
                    newlines: 0,
                })
            }
            true => {
                let mut stream = decoder(&layout.format, &path, file)?;
                let head = Head::read(&path, &mut stream, &layout.format)?;
                if let Some(header) = &head.header {
                    layout.check_header(&path, header)?;
                }
                let newline = layout.format.signs().newline;
                let passed = memchr::memchr_iter(newline, &head.bytes[..head.data_start]).count() as u64;
                let len = head.bytes.len();
                Ok(Input {
                    bytes: Bytes::Stream(stream),
                    path,
                    size: u64::MAX,
                    stop: u64::MAX,
                    at: head.data_start as u64,
                    carry: Some((Buffer::from_vec(head.bytes), head.data_start, len)),
                    ended: false,
                    lines: Arc::new(LineBase::known(passed)),
                    newlines: 0,
                })
            }
        }
    }

    /// Where the next line stands, never above the end of the range.
    pub fn position(&self) -> u64 {
        self.at.min(self.stop)
    }

    /// The next block of at least one line, scanned; `None` at the end of the range.
    ///
    /// Errors: `Data` for a line without end or a damaged compressed file, `Transient` when reading
    /// fails, `Config` when the file has become shorter.
    pub fn next(&mut self, pool: &mut Pool, scan: &mut Scan, layout: &Layout) -> Result<Option<Block>, TaskError> {
        let mut at_least = 0;
        loop {
            if self.at >= self.stop || (self.ended && self.carry.is_none()) {
                return Ok(None);
            }
            let (mut bytes, len) = self.fill(pool, at_least)?;
            if len == 0 {
                self.carry = None;
                return Ok(None);
            }
            let (signs, exact) = (layout.format.signs(), layout.format.is_exact());
            // A last line without a line end gets one, which is no byte of the file.
            let added = usize::from(self.ended && bytes[PAD + len - 1] != signs.newline);
            if added == 1 {
                bytes[PAD + len] = signs.newline;
            }
            match exact {
                true => scan.run_exact(&bytes, PAD, PAD + len + added, signs, self.ended),
                false => scan.run(&bytes, PAD, PAD + len + added, signs),
            }
            let buffer = pool.share(bytes);
            let lines = match self.at.saturating_add(len as u64) <= self.stop {
                true => scan.lines.len(),
                false => {
                    let stop = (self.stop - self.at) as usize + PAD;
                    // A line belongs to the range when its first byte lies below `stop`.
                    let ends_below = scan
                        .lines
                        .partition_point(|&to| scan.ends[to as usize - 1] as usize + 1 < stop);
                    (ends_below + 1).min(scan.lines.len())
                }
            };
            let longest = scan
                .lines
                .first()
                .map_or(len, |&to| scan.ends[to as usize - 1] as usize - PAD);
            if longest > MAX_RECORD {
                return Err(self.endless(&layout.format));
            }
            if lines == 0 {
                self.carry = Some((buffer, PAD, PAD + len));
                // Only the first line of a block can be longer than a block.
                at_least = (len * 2).min(MAX_RECORD + 2);
                continue;
            }
            let end = scan.ends[scan.lines[lines - 1] as usize - 1] as usize + 1;
            let taken = (end - PAD).min(len);
            let block = Block {
                buffer: buffer.clone(),
                lines,
                newlines_before: self.newlines,
                len: taken as u64,
            };
            self.newlines += match exact {
                true => memchr::memchr_iter(signs.newline, &buffer[PAD..PAD + taken]).count() as u64,
                false => lines as u64 - u64::from(taken < end - PAD),
            };
            self.at += taken as u64;
            self.carry = (taken < len).then_some((buffer, PAD + taken, PAD + len));
            self.lines.passed(self.at, self.newlines);
            return Ok(Some(block));
        }
    }

    fn endless(&self, format: &Format) -> TaskError {
        let (path, at, kind) = (&self.path, self.at, format.name());
        let line = match &self.bytes {
            Bytes::Plain(_) => String::new(),
            Bytes::Stream(_) => {
                let before = self.lines.newlines_before().unwrap_or_default();
                format!(" (line {})", before + self.newlines + 1)
            }
        };
        data(match format.dialect.multiline {
            true => format!(
                "{path}: the record at byte {at}{line} has no end within {MAX_RECORD} bytes: a quote that opens in it is \
                 never closed, or this is no {kind} file"
            ),
            false => format!(
                "{path}: the line at byte {at}{line} has no end within {MAX_RECORD} bytes; this is no {kind} file, or a \
                 line end other than LF or CRLF is used"
            ),
        })
    }

    /// A padded buffer with what was carried and what was read behind it, and its length.
    fn fill(&mut self, pool: &mut Pool, at_least: usize) -> Result<(Vec<u8>, usize), TaskError> {
        let carried = self.carry.as_ref().map_or(0, |(_, from, to)| to - from);
        let goal = match self.bytes {
            Bytes::Plain(_) => {
                let wanted = (self.stop - self.at)
                    .saturating_add(TAIL)
                    .min(BLOCK as u64)
                    .max(at_least as u64);
                wanted.min(self.size - self.at) as usize
            }
            Bytes::Stream(_) => BLOCK.max(at_least),
        };
        let goal = goal.max(carried);
        let mut bytes = pool.take(PAD + goal + 1 + PAD);
        if let Some((buffer, from, to)) = self.carry.take() {
            bytes[PAD..PAD + carried].copy_from_slice(&buffer[from..to]);
        }
        let free = &mut bytes[PAD + carried..PAD + goal];
        let wanted = free.len();
        let got = match &mut self.bytes {
            Bytes::Plain(file) => {
                let at = self.at + carried as u64;
                let got = read_full(&mut FromOffset::new(file, at), free)
                    .map_err(|error| io_error(&self.path, "reading", &error))?;
                if got < wanted {
                    return Err(config(format!(
                        "{}: changed after planning: it has become shorter",
                        self.path
                    )));
                }
                self.ended = at + got as u64 == self.size;
                got
            }
            Bytes::Stream(stream) => {
                let got = read_full(stream, free).map_err(|error| decode_error(&self.path, &error))?;
                self.ended = got < wanted;
                got
            }
        };
        Ok((bytes, carried + got))
    }
}

/// The offset behind the first newline at or after `from`, or the end of the file.
fn line_after(file: &StoredFile, path: &str, from: u64, size: u64) -> Result<u64, TaskError> {
    let mut buffer = vec![0; TAIL as usize];
    let mut at = from;
    while at < size {
        let got = file
            .read_at(&mut buffer, at)
            .map_err(|error| io_error(path, "reading", &error))?;
        if got == 0 {
            return Err(config(format!("{path}: changed after planning: it has become shorter")));
        }
        if let Some(found) = memchr::memchr(b'\n', &buffer[..got]) {
            return Ok(at + found as u64 + 1);
        }
        at += got as u64;
        if at - from > MAX_RECORD as u64 {
            return Err(data(format!(
                "{path}: no line end within {MAX_RECORD} bytes of byte {from}; this is no CSV file, or a line end other \
                 than LF or CRLF is used"
            )));
        }
        if buffer.len() < BLOCK {
            buffer.resize(buffer.len() * 4, 0);
        }
    }
    Ok(size)
}

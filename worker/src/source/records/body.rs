//! Blocks of whole records from the part of a file between header and trailer. Knows where lines and
//! records begin and end, nothing of fields.

use std::{path::PathBuf, sync::Arc};

use arrow::buffer::Buffer;
use gapless_common::{error::TaskError, exact::Exact, plan::PinnedFile};

use super::{
    content::Content,
    edges::{edges, without_cr},
    shape::Shape,
};
use crate::source::{
    csv::{
        MAX_RECORD,
        block::{PAD, Pool},
        lines::LineBase,
    },
    pins::data,
};

/// Bytes read at once.
const BLOCK: u64 = 512 * 1024;

/// Read beyond the end of a range to finish its last record.
const TAIL: u64 = 4096;

/// A line within its block, without its end; its type by its place in the layout, where it has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub start: u32,
    pub end: u32,
    pub ty: Option<u16>,
}

/// Whole records.
pub(super) struct Block {
    pub buffer: Buffer,
    pub lines: Vec<Line>,
    /// For each record the place of its first line in `lines`, and the end of the last one.
    pub records: Vec<u32>,
    /// Newlines passed before this block since the start that the line base knows.
    pub newlines_before: u64,
    /// Bytes of the file that the block covers.
    pub len: u64,
}

impl Block {
    pub fn lines_of(&self, record: usize) -> &[Line] {
        &self.lines[self.records[record] as usize..self.records[record + 1] as usize]
    }

    pub fn len(&self) -> usize {
        self.records.len().saturating_sub(1)
    }
}

/// The records of one file whose first bytes lie in `[start, stop)`.
pub(super) struct Body {
    file: Content,
    pub path: Arc<str>,
    stop: u64,
    /// Where the trailer begins, or the file ends, once that is known.
    end: u64,
    /// Offset in the file of the next record.
    at: u64,
    pub base: Arc<LineBase>,
    /// Newlines passed since the start that `base` knows.
    newlines: u64,
    /// Whether no line of the body was seen yet by the range that holds its first byte. Lines there that
    /// begin no record belong to this range, wherever they stand: no other looks for them.
    leading: bool,
    pub declared: Vec<Exact>,
}

impl Body {
    /// Takes `[low, high)` of a file's bytes.
    pub fn open(
        mut file: Content,
        full_path: PathBuf,
        pinned: &PinnedFile,
        shape: &Shape,
        (low, high): (u64, u64),
    ) -> Result<Body, TaskError> {
        let edges = edges(&mut file, shape)?;
        let mut body = Body {
            file,
            path: Arc::from(pinned.path.as_str()),
            stop: high.min(edges.end),
            end: edges.end,
            at: edges.start,
            base: Arc::new(LineBase::known(0)),
            newlines: 0,
            leading: low <= edges.start && edges.start < high,
            declared: edges.declared,
        };
        if low > edges.start {
            body.at = body.next_record(low, shape)?;
        }
        body.base = Arc::new(match body.file.is_packed() {
            true => LineBase::known(body.lines_before(body.at)?),
            false => LineBase::new(full_path, &pinned.etag, body.at),
        });
        Ok(body)
    }

    /// Of a file that is read from its beginning: what stands there is the header.
    fn lines_before(&self, at: u64) -> Result<u64, TaskError> {
        let mut bytes = vec![0; at as usize];
        self.file.read(&mut bytes, 0)?;
        Ok(memchr::memchr_iter(b'\n', &bytes).count() as u64)
    }

    /// Where the next record stands, never above the end of the range.
    pub fn position(&self) -> u64 {
        self.at.min(self.stop)
    }

    /// The first place at or behind `low` where a record begins: a line, of the first type where a record
    /// has several. The lines before belong to a record that began before `low`.
    fn next_record(&self, low: u64, shape: &Shape) -> Result<u64, TaskError> {
        let mut at = low - 1;
        let mut len = TAIL;
        // The line that holds the byte before `low` is over.
        let mut within = true;
        while at < self.stop {
            let mut bytes = vec![0; len.min(self.end - at) as usize];
            self.file.read(&mut bytes, at)?;
            let to_end = at + bytes.len() as u64 == self.end;
            let mut start = 0;
            for end in memchr::memchr_iter(b'\n', &bytes).chain(to_end.then_some(bytes.len())) {
                if end > bytes.len() || start >= bytes.len() {
                    break;
                }
                let line = without_cr(&bytes[start..end]);
                if !within && (!shape.layout.multiline || shape.begins_record(line)) {
                    return Ok(at + start as u64);
                }
                within = false;
                start = end + 1;
            }
            if to_end {
                return Ok(self.end);
            }
            match start {
                0 if len > MAX_RECORD as u64 => return Err(self.too_long("line")),
                0 => len *= 4,
                _ => at += start as u64,
            }
        }
        Ok(self.end)
    }

    fn too_long(&self, what: &str) -> TaskError {
        data(format!(
            "{}: the {what} at byte {} has no end within {MAX_RECORD} bytes; this is no file of this layout, or a line \
             end other than LF or CRLF is used",
            self.path, self.at
        ))
    }

    /// The next block, of no record where what it covers is passed over; `None` at the end of the range.
    ///
    /// Errors: `Data` for a record without end, `Transient` when reading fails, `Config` when the file has
    /// become shorter.
    pub fn next(&mut self, pool: &mut Pool, shape: &Shape) -> Result<Option<Block>, TaskError> {
        let mut least = 0;
        while self.at < self.stop || self.leading && self.at < self.end {
            let want = self
                .stop
                .saturating_sub(self.at)
                .saturating_add(TAIL)
                .min(BLOCK)
                .max(least);
            let want = want.min(self.end - self.at) as usize;
            let mut bytes = pool.take(PAD + want + 1 + PAD);
            let len = self.file.read_some(&mut bytes[PAD..PAD + want], self.at)?;
            if len < want {
                self.end = self.at + len as u64;
                self.stop = self.stop.min(self.end);
                if len == 0 {
                    return Ok(None);
                }
            }
            let ended = len as u64 == self.end - self.at;
            // A last line without a line end gets one, which is no byte of the file.
            let added = usize::from(ended && bytes[PAD + len - 1] != b'\n');
            if added == 1 {
                bytes[PAD + len] = b'\n';
            }
            let buffer = pool.share(bytes);
            let mut found = Found {
                leading: self.leading,
                ..Found::default()
            };
            found.search(&buffer, PAD + len + added, self.at, self.stop, ended, shape);
            if found.next == PAD {
                if found.beyond {
                    return Ok(None);
                }
                if len > MAX_RECORD {
                    return Err(self.too_long("record"));
                }
                least = len as u64 * 2;
                continue;
            }
            let taken = (found.next - PAD).min(len) as u64;
            let newlines = memchr::memchr_iter(b'\n', &buffer[PAD..PAD + taken as usize]).count() as u64;
            let block = Block {
                buffer,
                newlines_before: self.newlines,
                len: taken,
                records: found.records,
                lines: found.lines,
            };
            self.newlines += newlines;
            self.leading = found.leading;
            self.at += taken;
            self.base.passed(self.at, self.newlines);
            return Ok(Some(block));
        }
        Ok(None)
    }
}

/// The records of a buffer.
#[derive(Default)]
struct Found {
    lines: Vec<Line>,
    records: Vec<u32>,
    /// The place in the buffer of the first record that is not among these.
    next: usize,
    /// As in [`Body`].
    leading: bool,
    /// Whether the next record begins beyond the range.
    beyond: bool,
}

impl Found {
    /// `offset` is that of the buffer's text in the file; records that begin at `stop` or behind are left.
    fn search(&mut self, buffer: &[u8], len: usize, offset: u64, stop: u64, ended: bool, shape: &Shape) {
        let multiline = shape.layout.multiline;
        let leading = self.leading;
        let mut start = PAD;
        // The first line of the open record.
        let mut open: Option<usize> = None;
        self.next = PAD;
        for end in memchr::memchr_iter(b'\n', &buffer[PAD..len]).map(|at| PAD + at) {
            let line = without_cr(&buffer[start..end]);
            let here = start;
            start = end + 1;
            if shape.is_passed_over(line) {
                // Within a record it may be followed by another of its lines.
                if open.is_none() {
                    self.next = start;
                }
                continue;
            }
            let begins = !multiline || shape.begins_record(line);
            if begins || open.is_none() {
                if open.is_some() {
                    self.next = here;
                    self.records.push(self.lines.len() as u32);
                }
                let leads = std::mem::replace(&mut self.leading, false) && !begins;
                if !leads && offset + (here - PAD) as u64 >= stop {
                    self.next = here;
                    self.beyond = true;
                    open = None;
                    break;
                }
                open = Some(self.lines.len());
            }
            self.lines.push(Line {
                start: here as u32,
                end: (here + line.len()) as u32,
                ty: shape.line_type(line).map(|ty| ty as u16),
            });
            if !multiline {
                self.next = start;
                self.records.push(self.lines.len() as u32);
                open = None;
            }
        }
        match open {
            Some(_) if ended => {
                self.next = len;
                self.records.push(self.lines.len() as u32);
            }
            // What is read of it is left for the next block.
            Some(first) => {
                self.lines.truncate(first);
                self.leading = leading && first == 0;
            }
            None => {}
        }
        self.records.insert(0, 0);
    }
}

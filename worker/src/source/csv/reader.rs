//! The reader: goes through the files of its range block by block and makes batches of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{BooleanArray, RecordBatch, RecordBatchOptions},
    buffer::Buffer,
    compute::filter_record_batch,
    datatypes::SchemaRef,
};
use gapless_common::{
    error::TaskError,
    plan::{PinnedFile, Unit},
    range::UnitRange,
};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    block::{PAD, Pool, Text},
    columns::Rows,
    exact,
    input::{Block, Input, head, names},
    json::Fields,
    layout::{Format, Layout},
    lines::LineBase,
    scan::{Scan, Signs, split_line},
};
use crate::{
    source::{
        InputBatch, Intake, Origin, Place, Reject, SourceReader,
        pins::{data, file_of, open_pinned, pin},
    },
    storage::resolve,
};

/// The names in a file's header; `None` without a header or for an empty file.
///
/// Errors: `Config` when the file cannot be read, `Data` when a compressed one is damaged.
pub fn header_of(base_dir: &Path, path: &str, format: &Format) -> Result<Option<Vec<String>>, TaskError> {
    let (file, _) = pin(base_dir, path)?;
    Ok(head(file, path, format)?.header)
}

/// The names in the first record of a file of objects; `None` for a file without one.
///
/// Errors: `Config` when the file cannot be read or the record is none, `Data` when a compressed one is damaged.
pub fn names_of(base_dir: &Path, path: &str, format: &Format) -> Result<Option<Vec<String>>, TaskError> {
    let (file, _) = pin(base_dir, path)?;
    names(file, path, format)
}

/// Reads the records of one unit range of delimited text, or of lines of JSON.
pub struct CsvReader {
    layout: Arc<Layout>,
    base_dir: PathBuf,
    files: Arc<[PinnedFile]>,
    /// The unit at which the first of `files` begins.
    first_unit: u64,
    unit: Unit,
    range: UnitRange,
    position: u64,
    /// The file that is open, by its place in `files`, and the unit at which it begins.
    current: Option<(Input, usize, u64)>,
    pool: Pool,
    scan: Scan,
    firsts: Vec<u32>,
    /// Values out of lines that are objects.
    fields: Fields,
    intake: Intake,
    content_bytes: u64,
}

impl CsvReader {
    /// `unit` is `Byte`, or `File` where a file counts as one unit and is read whole. `files` holds
    /// at least those of `range`; the first begins at `first_unit`.
    pub fn new(
        layout: Arc<Layout>,
        base_dir: PathBuf,
        files: Arc<[PinnedFile]>,
        first_unit: u64,
        unit: Unit,
        range: UnitRange,
    ) -> CsvReader {
        CsvReader {
            layout,
            base_dir,
            files,
            first_unit,
            unit,
            position: range.low,
            range,
            current: None,
            pool: Pool::default(),
            scan: Scan::default(),
            firsts: Vec::new(),
            fields: Fields::default(),
            intake: Intake::default(),
            content_bytes: 0,
        }
    }

    /// Goes on by one batch; `false` at the end of the range.
    pub(crate) fn next_batch_counted(&mut self) -> Result<bool, TaskError> {
        Ok(self.next_batch()?.is_some())
    }

    /// Records and bytes of text taken since the intake was last asked for. Unlike the intake's,
    /// these bytes are those of the content, decompressed.
    pub(crate) fn intake_so_far(&self) -> (u64, u64) {
        (self.intake.read, self.content_bytes)
    }

    /// Opens the file at the present position; `false` at the end of the range.
    fn open_next(&mut self) -> Result<bool, TaskError> {
        if self.position >= self.range.high {
            return Ok(false);
        }
        let (at, units) = file_of(&self.files, self.first_unit, self.position)?;
        let (pinned, base) = (&self.files[at], units.low);
        let file = open_pinned(&self.base_dir, pinned)?;
        let full_path = resolve(&self.base_dir, &pinned.path);
        let stretch = match self.unit {
            Unit::Byte => (self.position - base, self.range.high - base),
            _ => (0, pinned.size),
        };
        let input = Input::open(file, full_path, pinned, &self.layout, stretch)?;
        self.current = Some((input, at, base));
        Ok(true)
    }

    /// Leaves the open file: everything of it that lies in the range is read.
    fn close(&mut self) {
        if let Some((_, at, base)) = self.current.take() {
            let pinned = &self.files[at];
            self.position = (base + pinned.units).min(self.range.high);
            if self.reads_whole_stream(at) {
                self.intake.bytes += pinned.size;
            }
        }
    }

    /// Whether the content's bytes are not the file's.
    fn reads_whole_stream(&self, file: usize) -> bool {
        !matches!(self.layout.format.reads_from_start(&self.files[file].path), Ok(false))
    }

    fn decode(&mut self, block: Block) -> Result<InputBatch, TaskError> {
        let (input, at, _) = self.current.as_ref().expect("a block comes from an open file");
        let (path, base) = (input.path.clone(), input.lines.clone());
        self.content_bytes += block.len;
        if !self.reads_whole_stream(*at) {
            self.intake.bytes += block.len;
        }
        let mut origin = CsvOrigin {
            path,
            base,
            newlines_before: block.newlines_before,
            buffer: block.buffer.clone(),
            end: self.scan.ends[self.scan.lines[block.lines - 1] as usize - 1] as usize,
            exact: self.layout.format.is_exact(),
            signs: self.layout.format.signs(),
            starts: Vec::new(),
        };
        let (mut faults, buffer) = match &self.layout.objects {
            None => (self.lines_to_rows(&block), block.buffer.clone()),
            Some(_) => {
                let faults = self.objects_to_rows(&block, &mut origin.starts);
                (faults, self.pool.share(self.fields.finish()))
            }
        };
        let text = Text::new(&buffer);
        let rows = match &self.layout.objects {
            None => Rows {
                text,
                ends: &self.scan.ends,
                firsts: &self.firsts,
                columns: self.layout.columns.len(),
                signs: self.layout.format.signs(),
                doubled: self.scan.doubled,
                escaped: self.scan.escaped,
                nulls: &self.layout.nulls,
            },
            Some(_) => self.layout.rows_of_objects(&self.fields, text),
        };
        // What is valid as a whole is valid in each field: fields are cut at ASCII signs. A line that is an
        // object was checked.
        let utf8 = self.layout.objects.is_some()
            || !self.scan.high
            || std::str::from_utf8(&block.buffer[PAD..origin.end]).is_ok();
        let mut flaws = Vec::new();
        let decoded = self.layout.decode(&rows, &buffer, utf8, &mut flaws);
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let mut batch =
            RecordBatch::try_new_with_options(self.layout.schema(), decoded, &options).map_err(|error| {
                data(format!(
                    "{}: a batch of columns does not fit together: {error}",
                    origin.path
                ))
            })?;
        if self.layout.objects.is_none() {
            origin.starts = self
                .firsts
                .iter()
                .map(|&first| self.scan.ends[first as usize - 1] + 1)
                .collect();
        }
        if !flaws.is_empty() {
            flaws.sort_by_key(|flaw| flaw.row);
            flaws.dedup_by_key(|flaw| flaw.row);
            let mut keep = vec![true; rows.len()];
            for flaw in &flaws {
                keep[flaw.row as usize] = false;
                let told = self.layout.describe(text, flaw);
                faults.push((origin.starts[flaw.row as usize], told));
            }
            batch = filter_record_batch(&batch, &BooleanArray::from(keep.clone()))
                .map_err(|error| data(format!("{}: taking out rejected rows failed: {error}", origin.path)))?;
            let mut kept = keep.iter();
            origin.starts.retain(|_| *kept.next().expect("one flag for each row"));
        }
        faults.sort_by_key(|(start, _)| *start);
        for (start, reason) in faults {
            self.intake.rejects.push(Reject {
                place: origin.place(start as usize),
                key: None,
                rule: Reject::PARSE.to_string(),
                reason,
            });
        }
        Ok(InputBatch {
            batch,
            origin: Arc::new(origin),
        })
    }

    /// Counts and hashes the lines of the block that are records, fills `fields` and `starts` with those
    /// that are objects of the right kind, and answers the others by their start with what is wrong.
    fn objects_to_rows(&mut self, block: &Block, starts: &mut Vec<u32>) -> Vec<(u32, String)> {
        let layout = self.layout.clone();
        let mut faults = Vec::new();
        let mut records = self.intake.records;
        self.fields.clear(self.pool.take(block.len as usize + 2 * PAD));
        let mut first = 1;
        for &to in &self.scan.lines[..block.lines] {
            let start = self.scan.ends[first as usize - 1] + 1;
            let line = record(&block.buffer, start as usize, self.scan.ends[to as usize - 1] as usize);
            first = to;
            if line.trim_ascii().is_empty() {
                continue;
            }
            self.intake.read += 1;
            records.add(xxh3_128(line));
            let Some(shape) = &layout.objects else { continue };
            match self.fields.add(line, shape) {
                Ok(()) => starts.push(start),
                Err(fault) => faults.push((start, fault.0)),
            }
        }
        self.intake.records = records;
        faults
    }

    /// Counts and hashes the records of the block, fills `firsts` with those that have the right
    /// number of fields, and answers the others by their start with what is wrong.
    fn lines_to_rows(&mut self, block: &Block) -> Vec<(u32, String)> {
        let columns = self.layout.columns.len();
        let (signs, exact) = (self.layout.format.signs(), self.layout.format.is_exact());
        let lines = &self.scan.lines[..block.lines];
        self.firsts.clear();
        self.firsts.reserve(lines.len());
        let regular = self.scan.odd.is_empty()
            && signs.comment.is_none()
            && lines
                .iter()
                .enumerate()
                .all(|(at, &to)| to as usize == 1 + (at + 1) * columns);
        let mut records = self.intake.records;
        if regular {
            let mut first = 1;
            for &to in lines {
                let start = self.scan.ends[first as usize - 1] as usize + 1;
                records.add(xxh3_128(record(
                    &block.buffer,
                    start,
                    self.scan.ends[to as usize - 1] as usize,
                )));
                self.firsts.push(first);
                first = to;
            }
            self.intake.read += lines.len() as u64;
            self.intake.records = records;
            return Vec::new();
        }
        let mut faults = Vec::new();
        let mut odd = self.scan.odd.iter().peekable();
        let mut first = 1;
        for (at, &to) in lines.iter().enumerate() {
            let start = self.scan.ends[first as usize - 1] + 1;
            let end = self.scan.ends[to as usize - 1] as usize;
            let line = record(&block.buffer, start as usize, end);
            let mut fields = (to - first) as usize;
            let mut row = first;
            first = to;
            let is_odd = odd.next_if(|&&line| line as usize == at).is_some();
            if (line.is_empty() && columns > 1) || (signs.comment.is_some() && line.first().copied() == signs.comment) {
                continue;
            }
            self.intake.read += 1;
            records.add(xxh3_128(line));
            if is_odd && exact {
                faults.push((start, open_quote(line, signs)));
                continue;
            }
            if is_odd {
                self.scan.ends.push(start - 1);
                row = self.scan.ends.len() as u32;
                // With the carriage return, if there is one: who decodes the last field takes it off.
                let line = &block.buffer[start as usize..end];
                if split_line(line, signs, start, &mut self.scan.ends).is_err() {
                    faults.push((start, OPEN_QUOTE.to_string()));
                    continue;
                }
                fields = self.scan.ends.len() - row as usize;
            }
            match fields == columns {
                true => self.firsts.push(row),
                false => faults.push((
                    start,
                    format!(
                        "the record has {fields} field{}, and there are {columns} columns",
                        if fields == 1 { "" } else { "s" }
                    ),
                )),
            }
        }
        self.intake.records = records;
        faults
    }
}

const OPEN_QUOTE: &str = "a quote is still open at the end of the line: one line is one record; close the quote, or double \
                          it where it is part of the text; fields with line ends in them need `multiline: true`";

/// What is wrong with a record whose quote, or escape, is open at its end.
fn open_quote(record: &[u8], signs: Signs) -> String {
    if !signs.multiline {
        return OPEN_QUOTE.to_string();
    }
    let lines = memchr::memchr_iter(signs.newline, record).count();
    format!(
        "a quote is still open at the end of the file, {lines} lines further on: all of them are taken for this one record; \
         close the quote, or double it where it is part of the text"
    )
}

/// The bytes of a line, the carriage return of a CRLF taken off.
#[inline(always)]
fn record(buffer: &[u8], start: usize, end: usize) -> &[u8] {
    let end = if end > start && buffer[end - 1] == b'\r' {
        end - 1
    } else {
        end
    };
    &buffer[start..end]
}

impl SourceReader for CsvReader {
    fn schema(&self) -> SchemaRef {
        self.layout.schema()
    }

    fn next_batch(&mut self) -> Result<Option<InputBatch>, TaskError> {
        loop {
            if self.current.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let Some((input, _, base)) = &mut self.current else {
                continue;
            };
            match input.next(&mut self.pool, &mut self.scan, &self.layout)? {
                Some(block) => {
                    if self.unit == Unit::Byte {
                        self.position = *base + input.position();
                    }
                    return self.decode(block).map(Some);
                }
                None => self.close(),
            }
        }
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn may_stop(&self) -> bool {
        self.unit == Unit::Byte || self.current.is_none()
    }

    fn take_intake(&mut self) -> Intake {
        std::mem::take(&mut self.intake)
    }
}

/// The way back from rows to lines: the block is kept as long as the batch's origin is.
struct CsvOrigin {
    path: Arc<str>,
    base: Arc<LineBase>,
    newlines_before: u64,
    buffer: Buffer,
    /// Where the block's last line ends.
    end: usize,
    exact: bool,
    signs: Signs,
    /// For each row the place of its first byte in the block.
    starts: Vec<u32>,
}

impl CsvOrigin {
    fn place(&self, start: usize) -> Place {
        let end = match self.exact {
            true => exact::record_end(&self.buffer[..=self.end], start, self.signs).unwrap_or(self.end),
            false => memchr::memchr(b'\n', &self.buffer[start..]).map_or(self.buffer.len(), |at| start + at),
        };
        let mut raw = String::from_utf8_lossy(record(&self.buffer, start, end)).into_owned();
        if raw.len() > Place::MAX_RAW {
            raw.truncate(raw.floor_char_boundary(Place::MAX_RAW));
        }
        let within = memchr::memchr_iter(self.signs.newline, &self.buffer[PAD..start]).count() as u64;
        let line = self
            .base
            .newlines_before()
            .map(|before| before + self.newlines_before + within + 1);
        Place {
            file: self.path.to_string(),
            line,
            row: None,
            block: None,
            raw,
        }
    }
}

impl Origin for CsvOrigin {
    fn locate(&self, row: usize) -> Place {
        self.place(self.starts[row] as usize)
    }
}

//! The reader: goes through the files of its range block by block and makes batches of the records.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, BooleanArray, ListArray, RecordBatch, RecordBatchOptions, StringViewArray, StructArray},
    buffer::{Buffer, NullBuffer, OffsetBuffer},
    compute::filter_record_batch,
    datatypes::{DataType, Field, SchemaRef},
};
use gapless_common::{
    error::TaskError,
    exact::Exact,
    job::{ColumnType, LayoutField, RecordLayout},
    manifest::{ControlTotal, FileTotals},
    plan::{PinnedFile, Unit},
    range::UnitRange,
};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    body::{Block, Body, Line},
    cells::{Cells, NULL, Span, append_spans, scale, units, value_of},
    content::Content,
    shape::{Counted, Origin as ColumnOrigin, Shape, item_fields},
};
use crate::sink::BodyTotals;
use crate::source::{
    InputBatch, Intake, Nowhere, Origin, Place, Reject, SourceReader,
    csv::{
        block::{PAD, Pool, Text},
        columns::expectation,
        lines::LineBase,
    },
    pins::{data, file_of, open_pinned, pin},
};

/// Text of a packed file that is gone through at once to find its end: a matter of milliseconds. As much may stand
/// behind a batch of no records.
pub(crate) const PASS: u64 = 8 << 20;

/// A field that is shown in a reason is cut after this many characters.
const SHOWN: usize = 80;

/// Reads the records of one byte range.
pub struct RecordsReader {
    shape: Arc<Shape>,
    base_dir: PathBuf,
    files: Arc<[PinnedFile]>,
    /// The unit at which the first of `files` begins.
    first_unit: u64,
    /// `Byte`, or `File` where files are read whole.
    unit: Unit,
    range: UnitRange,
    position: u64,
    /// The file that is open, by its place in `files`, and the unit at which it begins.
    current: Option<(Body, usize, u64)>,
    /// As `current`: a file whose end is being looked for.
    opening: Option<(Content, usize, u64)>,
    /// Stretches of text that were gone through since the last record.
    passed: u64,
    pool: Pool,
    intake: Intake,
}

/// How the opening of the next file went.
enum Opened {
    Open,
    /// Its end is not found yet.
    Passing,
    /// There is none in the range.
    End,
}

/// The rows of a block: records whose lines are what the layout says.
struct Rows {
    /// For each row and type of line the first of its lines and how many there are.
    slots: Vec<(u32, u32)>,
    /// Types of lines.
    types: usize,
    /// For each row the number of its record in the block.
    records: Vec<u32>,
    /// For each line of the block where its spans begin.
    first_spans: Vec<u32>,
    /// Of all fields of all lines, padding included.
    spans: Vec<Span>,
}

/// A field that is no value of its type.
struct Flaw {
    row: u32,
    line: u32,
    ty: usize,
    field: usize,
}

impl Rows {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn slot(&self, row: usize, ty: usize) -> (u32, u32) {
        self.slots[row * self.types + ty]
    }

    fn span(&self, line: u32, field: usize) -> Span {
        self.spans[self.first_spans[line as usize] as usize + field]
    }
}

impl RecordsReader {
    /// `files` holds at least those of `range`; the first begins at `first_unit`. Units are bytes or files.
    pub fn new(
        shape: Arc<Shape>,
        base_dir: PathBuf,
        files: Arc<[PinnedFile]>,
        first_unit: u64,
        unit: Unit,
        range: UnitRange,
    ) -> RecordsReader {
        RecordsReader {
            shape,
            base_dir,
            files,
            first_unit,
            unit,
            position: range.low,
            range,
            current: None,
            opening: None,
            passed: 0,
            pool: Pool::default(),
            intake: Intake::default(),
        }
    }

    /// Records and bytes taken since the intake was last asked for.
    pub(crate) fn intake_so_far(&self) -> (u64, u64) {
        (self.intake.read, self.intake.bytes)
    }

    /// The file at the present position, with its place in `files` and the unit at which it begins.
    fn next_file(&self) -> Result<(Content, usize, u64), TaskError> {
        let (at, units) = file_of(&self.files, self.first_unit, self.position)?;
        let pinned = &self.files[at];
        let file = open_pinned(&self.base_dir, pinned)?;
        let content = Content::open(file, &pinned.path, pinned.size, self.shape.layout().packing)?;
        Ok((content, at, units.low))
    }

    /// Opens the file at the present position, or goes on with it.
    fn open_next(&mut self) -> Result<Opened, TaskError> {
        if self.position >= self.range.high {
            return Ok(Opened::End);
        }
        let (mut content, at, base) = match self.opening.take() {
            Some(opening) => opening,
            None => self.next_file()?,
        };
        // The trailer of a packed file stands at an end that is not known.
        if self.shape.layout().trailer.is_some() && !content.pass_on(PASS)? {
            self.opening = Some((content, at, base));
            return Ok(Opened::Passing);
        }
        let pinned = &self.files[at];
        let full_path = crate::storage::resolve(&self.base_dir, &pinned.path);
        let stretch = match self.unit {
            Unit::File => (0, u64::MAX),
            _ => (self.position - base, self.range.high - base),
        };
        let body = Body::open(content, full_path, pinned, &self.shape, stretch)?;
        self.count(&body, 0, 0, &vec![Exact::default(); self.shape.sums.len()])?;
        self.current = Some((body, at, base));
        Ok(Opened::Open)
    }

    fn close(&mut self) {
        if let Some((_, at, base)) = self.current.take() {
            self.position = (base + self.files[at].units).min(self.range.high);
        }
    }

    /// Adds to the totals of a file.
    fn count(&mut self, body: &Body, records: u64, lines: u64, sums: &[Exact]) -> Result<(), TaskError> {
        if self.shape.declared.is_empty() {
            return Ok(());
        }
        let totals = self.shape.declared.iter().zip(&body.declared).map(|(total, declared)| {
            let counted = match total.of {
                Counted::Records => Exact::whole(i128::from(records)),
                Counted::Lines => Exact::whole(i128::from(lines)),
                Counted::Sum(at) => sums[at],
            };
            ControlTotal {
                what: total.what.clone(),
                declared: *declared,
                counted,
            }
        });
        let file = FileTotals {
            path: body.path.to_string(),
            totals: totals.collect(),
        };
        FileTotals::add_all(&mut self.intake.totals, vec![file])
            .ok_or_else(|| data(format!("{}: a control total leaves 128 bits", body.path)))
    }

    fn decode(&mut self, body: &Body, block: Block) -> Result<InputBatch, TaskError> {
        let shape = self.shape.clone();
        let mut origin = RecordsOrigin::of(body, &block);
        self.intake.read += block.len() as u64;
        self.intake.bytes += block.len;
        for record in 0..block.len() {
            let (start, end) = stretch(block.lines_of(record));
            let bytes = &block.buffer[start as usize..end as usize];
            self.intake.records.add(xxh3_128(bytes));
        }
        let mut faults: Vec<(u32, String)> = Vec::new();
        let rows = rows(&shape, &block, &origin, &mut faults);
        let mut flaws = Vec::new();
        let sums = sums(&shape, &block, &rows, &mut flaws)
            .ok_or_else(|| data(format!("{}: a control total leaves 128 bits", body.path)))?;
        self.count(body, block.len() as u64, block.lines.len() as u64, &sums)?;
        let columns = shape
            .decoded()
            .map(|(field, from)| column(&shape, &block.buffer, &rows, field, from, &mut flaws))
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let mut batch = RecordBatch::try_new_with_options(shape.schema(), columns, &options)
            .map_err(|error| data(format!("{}: columns do not fit together: {error}", body.path)))?;
        let mut keep = vec![true; rows.len()];
        flaws.sort_by_key(|flaw| (flaw.row, flaw.line, flaw.field));
        flaws.dedup_by_key(|flaw| flaw.row);
        for flaw in &flaws {
            keep[flaw.row as usize] = false;
            let reason = describe(&shape, &block, &rows, flaw, &origin);
            faults.push((rows.records[flaw.row as usize], reason));
        }
        origin.stretches = rows
            .records
            .iter()
            .zip(&keep)
            .filter(|(_, keep)| **keep)
            .map(|(&record, _)| stretch(block.lines_of(record as usize)))
            .collect();
        if !flaws.is_empty() {
            batch = filter_record_batch(&batch, &BooleanArray::from(keep))
                .map_err(|error| data(format!("{}: taking out rejected rows failed: {error}", body.path)))?;
        }
        faults.sort_by_key(|(record, _)| *record);
        for (record, reason) in faults {
            self.intake.rejects.push(Reject {
                place: origin.place(stretch(block.lines_of(record as usize))),
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
}

/// Counts a file that holds the records of a layout alone, such as a chunk has written.
///
/// Errors: `Data` where a record does not read back, which would be a fault of ours.
pub(crate) fn recount(path: &Path, layout: &RecordLayout, totals: &mut BodyTotals) -> Result<(), TaskError> {
    let shape = Shape::of_body(layout)?;
    let shown = path.to_string_lossy();
    let (file, pinned) = pin(Path::new(""), &shown)?;
    let content = Content::open(file, &shown, pinned.size, layout.packing)?;
    let mut body = Body::open(content, path.to_path_buf(), &pinned, &shape, (0, u64::MAX))?;
    let mut pool = Pool::default();
    totals.sums.resize(shape.sums.len(), Exact::default());
    while let Some(block) = body.next(&mut pool, &shape)? {
        let origin = RecordsOrigin::of(&body, &block);
        let (mut faults, mut flaws) = (Vec::new(), Vec::new());
        let rows = rows(&shape, &block, &origin, &mut faults);
        let more = sums(&shape, &block, &rows, &mut flaws);
        if let Some((_, fault)) = faults.first() {
            return Err(data(format!("{shown}: what was written does not read back: {fault}")));
        }
        let summed = more.filter(|_| flaws.is_empty()).and_then(|more| {
            let pairs = totals.sums.iter().zip(more);
            pairs
                .map(|(sum, more)| sum.checked_add(more))
                .collect::<Option<Vec<_>>>()
        });
        totals.sums = summed.ok_or_else(|| data(format!("{shown}: a control total has no exact sum in 128 bits")))?;
        totals.records += block.len() as u64;
        totals.lines += block.lines.len() as u64;
    }
    Ok(())
}

/// From the first byte of the first line to the end of the last.
fn stretch(lines: &[Line]) -> Span {
    match (lines.first(), lines.last()) {
        (Some(first), Some(last)) => (first.start, last.end),
        _ => (PAD as u32, PAD as u32),
    }
}

/// Finds the fields of all lines; what is wrong with the others is told by their record.
fn rows(shape: &Shape, block: &Block, origin: &RecordsOrigin, faults: &mut Vec<(u32, String)>) -> Rows {
    let types = shape.layout.lines.len();
    let mut rows = Rows {
        slots: Vec::with_capacity(block.len() * types),
        types,
        records: Vec::with_capacity(block.len()),
        first_spans: Vec::with_capacity(block.lines.len()),
        spans: Vec::new(),
    };
    let utf8 = std::str::from_utf8(&block.buffer[PAD..PAD + block.len as usize]).is_ok();
    let mut line_no = 0;
    for record in 0..block.len() {
        let lines = block.lines_of(record);
        let slots = rows.slots.len();
        rows.slots.resize(slots + types, (0, 0));
        let mut fault = None;
        for (at, line) in lines.iter().enumerate() {
            rows.first_spans.push(rows.spans.len() as u32);
            if fault.is_none() {
                let wrong = take_line(shape, block, line, line_no, utf8, &mut rows, slots);
                fault = wrong.err().map(|reason| match shape.layout.multiline {
                    true => format!("{}: {reason}", origin.line_name(line.start, at == 0)),
                    false => reason,
                });
            }
            line_no += 1;
        }
        let fault = fault.or_else(|| lacks(shape, &rows.slots[slots..]));
        match fault {
            None => rows.records.push(record as u32),
            Some(reason) => {
                rows.slots.truncate(slots);
                faults.push((record as u32, reason));
            }
        }
    }
    rows
}

fn take_line(
    shape: &Shape,
    block: &Block,
    line: &Line,
    line_no: u32,
    utf8: bool,
    rows: &mut Rows,
    slots: usize,
) -> Result<(), String> {
    let bytes = &block.buffer[line.start as usize..line.end as usize];
    if !utf8 && std::str::from_utf8(bytes).is_err() {
        return Err("the line is not valid UTF-8".to_string());
    }
    let Some(ty) = line.ty.map(usize::from) else {
        let tags = shape.layout.lines.iter().filter_map(|line| line.tag.as_deref());
        return Err(format!(
            "the line is of no type of the layout, whose tags are {}",
            tags.collect::<Vec<_>>().join(", ")
        ));
    };
    let line_type = &shape.layout.lines[ty];
    if shape.layout.multiline {
        let slots = &rows.slots[slots..];
        if ty > 0 && slots[0].1 == 0 {
            return Err(format!(
                "a line of type {} before any of type {}, with which a record begins",
                line_type.name, shape.layout.lines[0].name
            ));
        }
        if let Some(later) = (ty + 1..slots.len()).find(|&later| slots[later].1 > 0) {
            return Err(format!(
                "a line of type {} behind one of type {}; the layout has it before",
                line_type.name, shape.layout.lines[later].name
            ));
        }
        if slots[ty].1 > 0 && !line_type.repeats {
            return Err(format!("a second line of type {} in one record", line_type.name));
        }
    }
    append_spans(
        &shape.layout,
        line_type,
        shape.widths[ty],
        bytes,
        line.start,
        &mut rows.spans,
    )?;
    let first = rows.first_spans[line_no as usize] as usize;
    for (field, &(start, end)) in line_type.fields.iter().zip(&rows.spans[first..]) {
        let Some(value) = &field.value else { continue };
        let text = &block.buffer[start as usize..end as usize];
        if super::cells::without_padding(text, field) != super::cells::without_padding(value.as_bytes(), field) {
            return Err(format!(
                "«{}» stands where the layout says «{value}»",
                String::from_utf8_lossy(text)
            ));
        }
    }
    let slot = &mut rows.slots[slots + ty];
    if slot.1 == 0 {
        slot.0 = line_no;
    }
    slot.1 += 1;
    Ok(())
}

/// The line that a record of several lines must have and has not.
fn lacks(shape: &Shape, slots: &[(u32, u32)]) -> Option<String> {
    if !shape.layout.multiline {
        return None;
    }
    let mut lines = shape.layout.lines.iter().zip(slots);
    let (missing, _) = lines.find(|(line, (_, count))| *count == 0 && !line.optional)?;
    Some(format!("the record has no line of type {}", missing.name))
}

/// The sums that header or trailer declare. What cannot be read is no part of them, and its record is rejected.
fn sums(shape: &Shape, block: &Block, rows: &Rows, flaws: &mut Vec<Flaw>) -> Option<Vec<Exact>> {
    let text = Text::new(&block.buffer);
    let mut sums = Vec::with_capacity(shape.sums.len());
    for places in &shape.sums {
        let mut sum = Exact::default();
        for &(ty, field) in places {
            let own = &shape.layout.lines[ty].fields[field];
            let mut total = 0i128;
            for row in 0..rows.len() {
                let (first, count) = rows.slot(row, ty);
                for line in first..first + count {
                    let span = value_of(text, rows.span(line, field), own);
                    if span == NULL {
                        continue;
                    }
                    match (span.0 < span.1).then(|| units(text, span, own)).flatten() {
                        Some(units) => total = total.checked_add(units)?,
                        None => flaws.push(Flaw {
                            row: row as u32,
                            line,
                            ty,
                            field,
                        }),
                    }
                }
            }
            sum = sum.checked_add(Exact {
                units: total,
                scale: scale(own.ty),
            })?;
        }
        sums.push(sum);
    }
    Some(sums)
}

fn column(
    shape: &Shape,
    block: &Buffer,
    rows: &Rows,
    field: &Arc<Field>,
    from: &ColumnOrigin,
    flaws: &mut Vec<Flaw>,
) -> Result<ArrayRef, TaskError> {
    Ok(match from {
        ColumnOrigin::Type => {
            let name = |row: usize| {
                let ty = (0..rows.types).find(|&ty| rows.slot(row, ty).1 > 0)?;
                Some(shape.layout.lines[ty].name.as_str())
            };
            Arc::new(StringViewArray::from_iter((0..rows.len()).map(name)))
        }
        ColumnOrigin::Present(ty) => {
            let present: Vec<bool> = (0..rows.len()).map(|row| rows.slot(row, *ty).1 > 0).collect();
            Arc::new(BooleanArray::from(present))
        }
        ColumnOrigin::Field(places, ty) => {
            let mut cells = Cells::new(block, rows.len());
            let mut own: &LayoutField = &shape.layout.lines[places[0].0].fields[places[0].1];
            let implied = own.implied_point;
            for row in 0..rows.len() {
                let place = places.iter().find(|(line, _)| rows.slot(row, *line).1 > 0);
                match place {
                    Some(&(line, field)) => {
                        own = &shape.layout.lines[line].fields[field];
                        cells.push(rows.span(rows.slot(row, line).0, field), own);
                    }
                    None => cells.push(NULL, own),
                }
            }
            let array = cells.decode(*ty, implied);
            for cell in cells.flaws {
                let row = cell as usize;
                let Some(&(ty, field)) = places.iter().find(|(line, _)| rows.slot(row, *line).1 > 0) else {
                    continue;
                };
                flaws.push(Flaw {
                    row: cell,
                    line: rows.slot(row, ty).0,
                    ty,
                    field,
                });
            }
            array
        }
        ColumnOrigin::List(ty) => list(shape, block, rows, field, *ty, flaws)?,
    })
}

/// The lines of a type that repeats, as structs.
fn list(
    shape: &Shape,
    block: &Buffer,
    rows: &Rows,
    field: &Arc<Field>,
    ty: usize,
    flaws: &mut Vec<Flaw>,
) -> Result<ArrayRef, TaskError> {
    let line_type = &shape.layout.lines[ty];
    // For each line its row.
    let mut owners = Vec::new();
    let mut lines = Vec::new();
    for row in 0..rows.len() {
        let (first, count) = rows.slot(row, ty);
        owners.extend(std::iter::repeat_n(row as u32, count as usize));
        lines.extend(first..first + count);
    }
    let mut parts: Vec<ArrayRef> = Vec::new();
    for (number, own) in line_type.fields.iter().enumerate() {
        if own.name.is_none() {
            continue;
        }
        let mut cells = Cells::new(block, lines.len());
        lines.iter().for_each(|&line| cells.push(rows.span(line, number), own));
        parts.push(cells.decode(own.ty, own.implied_point));
        flaws.extend(cells.flaws.iter().map(|&cell| Flaw {
            row: owners[cell as usize],
            line: lines[cell as usize],
            ty,
            field: number,
        }));
    }
    let items = StructArray::try_new_with_length(item_fields(line_type)?, parts, None::<NullBuffer>, lines.len())
        .map_err(|error| data(format!("lines of type {}: {error}", line_type.name)))?;
    let offsets = OffsetBuffer::from_lengths((0..rows.len()).map(|row| rows.slot(row, ty).1 as usize));
    let DataType::List(item) = field.data_type() else {
        return Err(data(format!("lines of type {} make no list", line_type.name)));
    };
    let list = ListArray::try_new(item.clone(), offsets, Arc::new(items), None)
        .map_err(|error| data(format!("lines of type {}: {error}", line_type.name)))?;
    Ok(Arc::new(list))
}

fn describe(shape: &Shape, block: &Block, rows: &Rows, flaw: &Flaw, origin: &RecordsOrigin) -> String {
    let line_type = &shape.layout.lines[flaw.ty];
    let own = &line_type.fields[flaw.field];
    let (start, end) = rows.span(flaw.line, flaw.field);
    let text = String::from_utf8_lossy(&block.buffer[start as usize..end as usize]);
    let shown = match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.into_owned(),
    };
    let name = own.name.as_deref().unwrap_or("without a name");
    let what = match (own.implied_point, own.ty) {
        (true, ColumnType::Decimal { precision, scale }) => {
            format!("at most {precision} digits, of which {scale} stand behind the implied point")
        }
        (_, ty) => expectation(ty),
    };
    let place = match shape.layout.multiline {
        true => {
            let line = &block.lines[flaw.line as usize];
            format!("{}: ", origin.line_name(line.start, false))
        }
        false => String::new(),
    };
    format!("{place}field {name}: «{shown}» is not {what}")
}

impl SourceReader for RecordsReader {
    fn schema(&self) -> SchemaRef {
        self.shape.schema()
    }

    fn next_batch(&mut self) -> Result<Option<InputBatch>, TaskError> {
        loop {
            if self.current.is_none() {
                match self.open_next()? {
                    Opened::Open => {}
                    Opened::End => return Ok(None),
                    Opened::Passing => {
                        self.passed += 1;
                        return Ok(Some(InputBatch {
                            batch: RecordBatch::new_empty(self.schema()),
                            origin: Arc::new(Nowhere),
                        }));
                    }
                }
            }
            let Some((mut body, at, base)) = self.current.take() else {
                continue;
            };
            let block = body.next(&mut self.pool, &self.shape);
            let position = match self.unit {
                Unit::File => base,
                _ => base + body.position(),
            };
            match block? {
                Some(block) => {
                    self.passed = if block.len() > 0 { 0 } else { self.passed + 1 };
                    let batch = self.decode(&body, block)?;
                    self.position = position;
                    self.current = Some((body, at, base));
                    return Ok(Some(batch));
                }
                None => {
                    self.current = Some((body, at, base));
                    self.close();
                }
            }
        }
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn may_stop(&self) -> bool {
        self.unit != Unit::File || self.current.is_none()
    }

    fn passed(&self) -> u64 {
        self.passed
    }

    fn take_intake(&mut self) -> Intake {
        std::mem::take(&mut self.intake)
    }
}

/// The way back from rows to lines: the block is kept as long as the batch's origin is.
struct RecordsOrigin {
    path: Arc<str>,
    base: Arc<LineBase>,
    newlines_before: u64,
    buffer: Buffer,
    /// For each row where its record stands in the block.
    stretches: Vec<Span>,
}

impl RecordsOrigin {
    fn of(body: &Body, block: &Block) -> RecordsOrigin {
        RecordsOrigin {
            path: body.path.clone(),
            base: body.base.clone(),
            newlines_before: block.newlines_before,
            buffer: block.buffer.clone(),
            stretches: Vec::new(),
        }
    }

    /// The number of the line that holds a place of the block, from 1.
    fn line(&self, start: u32) -> Option<u64> {
        let within = memchr::memchr_iter(b'\n', &self.buffer[PAD..start as usize]).count() as u64;
        let before = self.base.newlines_before()?;
        Some(before + self.newlines_before + within + 1)
    }

    fn line_name(&self, start: u32, is_first: bool) -> String {
        match self.line(start) {
            Some(line) if !is_first => format!("line {line}"),
            _ => "its first line".to_string(),
        }
    }

    fn place(&self, (start, end): Span) -> Place {
        let mut raw = String::from_utf8_lossy(&self.buffer[start as usize..end as usize]).into_owned();
        if raw.len() > Place::MAX_RAW {
            raw.truncate(raw.floor_char_boundary(Place::MAX_RAW));
        }
        Place {
            file: self.path.to_string(),
            line: self.line(start),
            row: None,
            block: None,
            raw,
        }
    }
}

impl Origin for RecordsOrigin {
    fn locate(&self, row: usize) -> Place {
        self.place(self.stretches[row])
    }
}

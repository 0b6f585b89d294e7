//! What a CSV file looks like: its signs, its header, its columns and their types.

use std::{
    collections::HashSet,
    io::{self, Read},
    ops::Range,
    sync::Arc,
};

use arrow::{
    array::ArrayRef,
    buffer::Buffer,
    datatypes::{Field, Schema, SchemaRef},
};
use gapless_common::{
    error::TaskError,
    job::{ColumnType, Compression, CsvSource, Delimiter, Dialect, Encoding, FileSink, NdjsonSource, Newline},
};

use super::{
    block::Text,
    columns::{Flaw, Nulls, Rows, arrow_type, expectation},
    encoding::{NoByteOrderMark, OtherByteOrderMark, check_mark},
    exact, first_record,
    json::{self, Fields, Shape},
    members::Trailing,
    scan::{Signs, split_line},
};
use crate::{
    source::{
        nature,
        pins::{config, data, io_error},
    },
    storage::object_error_in,
};

/// A field that is shown in a reason is cut after this many characters.
const SHOWN: usize = 80;

/// A header is names, not data.
const MAX_HEADER: usize = 1024 * 1024;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// What a line feed of UTF-16 becomes in the other byte order: a code point that stands for nothing.
const SWAPPED_LF: &str = "\u{A00}";

/// The form of a CSV source, apart from its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    pub delimiter: Delimiter,
    pub quote: Option<u8>,
    pub nulls: Vec<String>,
    pub header: bool,
    pub compression: Compression,
    pub dialect: Dialect,
    pub records: Records,
}

/// What a record is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// Fields between delimiters.
    Delimited,
    /// A line with a JSON object.
    Json {
        required: Vec<String>,
        /// Whether the first record tells the columns; a name that it lacks is then no column.
        closed: bool,
    },
}

impl From<&CsvSource> for Format {
    fn from(source: &CsvSource) -> Self {
        Self {
            delimiter: source.delimiter,
            quote: source.quote,
            nulls: source.nulls.clone(),
            header: source.header,
            compression: source.compression,
            dialect: source.dialect.clone(),
            records: Records::Delimited,
        }
    }
}

impl From<&NdjsonSource> for Format {
    fn from(source: &NdjsonSource) -> Self {
        Self::ndjson(
            source.compression,
            source.required.clone(),
            source.closed || source.columns.is_empty(),
        )
    }
}

/// How a CSV sink of ours writes.
impl From<&FileSink> for Format {
    fn from(sink: &FileSink) -> Self {
        Self {
            delimiter: sink.delimiter,
            quote: Some(b'"'),
            nulls: vec![sink.null.clone()],
            header: sink.header,
            compression: Compression::Auto,
            dialect: Dialect {
                encoding: sink.encoding,
                ..Dialect::default()
            },
            records: Records::Delimited,
        }
    }
}

/// How one file is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Plain,
    Gzip,
    Zstd,
}

/// How a text file is unpacked.
///
/// Errors: `Config` for a compression that text is not read with.
pub(crate) fn codec_of(compression: Compression, path: &str) -> Result<Codec, TaskError> {
    match compression {
        Compression::Auto if path.ends_with(".gz") => Ok(Codec::Gzip),
        Compression::Auto if path.ends_with(".zst") => Ok(Codec::Zstd),
        Compression::Auto | Compression::None => Ok(Codec::Plain),
        Compression::Gzip => Ok(Codec::Gzip),
        Compression::Zstd => Ok(Codec::Zstd),
        Compression::Snappy | Compression::Lz4 | Compression::Deflate => Err(config(format!(
            "{path}: text is read plain, gzip or zstd, not snappy or lz4"
        ))),
    }
}

impl Format {
    pub fn ndjson(compression: Compression, required: Vec<String>, closed: bool) -> Self {
        Self {
            // A line is one field to the scan.
            delimiter: Delimiter::of_byte(b'\n'),
            quote: None,
            nulls: Vec::new(),
            header: false,
            compression,
            dialect: Dialect::default(),
            records: Records::Json { required, closed },
        }
    }

    /// How records are read that stood in files of this form and are kept as UTF-8, one below another.
    pub fn redriven(&self, of_step: bool) -> Format {
        Format {
            header: false,
            compression: Compression::None,
            dialect: Dialect {
                escape: self.dialect.escape,
                multiline: self.dialect.multiline || (of_step && self.records == Records::Delimited),
                ..Dialect::default()
            },
            ..self.clone()
        }
    }

    /// Whether a text, with others below it, is read as one record to its end.
    pub fn is_one_record(&self, text: &str) -> bool {
        if !self.is_exact() {
            return !text.contains('\n');
        }
        let line = [text.as_bytes(), b"\n"].concat();
        exact::record_end(&line, 0, self.signs()) == Some(text.len())
    }

    /// As it is called in messages.
    pub fn name(&self) -> &'static str {
        match self.records {
            Records::Delimited => "CSV",
            Records::Json { .. } => "NDJSON",
        }
    }

    /// Errors: `Config` for a compression that text is not read with.
    pub fn codec(&self, path: &str) -> Result<Codec, TaskError> {
        codec_of(self.compression, path)
    }

    /// Whether a file can only be read from its beginning: what lies at an offset does not tell where
    /// records begin, or is not the text itself.
    pub fn reads_from_start(&self, path: &str) -> Result<bool, TaskError> {
        let dialect = &self.dialect;
        let plain = !dialect.multiline && dialect.newline == Newline::Lf && dialect.encoding == Encoding::Utf8;
        Ok(!plain || self.codec(path)? != Codec::Plain)
    }

    /// Whether records need the exact scan, byte after byte.
    pub(super) fn is_exact(&self) -> bool {
        let dialect = &self.dialect;
        let is_plain = !dialect.multiline && dialect.escape.is_none() && dialect.newline == Newline::Lf;
        !is_plain || self.delimiter.byte().is_none()
    }

    pub(super) fn signs(&self) -> Signs {
        Signs {
            delimiter: self.delimiter,
            quote: self.quote,
            escape: self.dialect.escape,
            comment: self.dialect.comment,
            newline: match self.dialect.newline {
                Newline::Lf => b'\n',
                Newline::Cr => b'\r',
            },
            multiline: self.dialect.multiline,
        }
    }
}

/// A format with its columns, and which of them are wanted.
#[derive(Debug)]
pub struct Layout {
    pub(super) format: Format,
    pub(super) nulls: Nulls,
    /// All columns, in file order.
    pub(super) columns: Vec<(String, ColumnType)>,
    /// Positions in `columns` of those that are decoded, ascending.
    pub(super) projected: Vec<usize>,
    /// Where each line is an object.
    pub(super) objects: Option<Shape>,
    schema: SchemaRef,
}

impl Layout {
    /// `projection`: names of the columns to decode; `None` for all. Columns left out are not
    /// checked against their type either.
    ///
    /// Errors: `Config` for an unusable type or a projected name that is no column.
    pub fn new(
        format: Format,
        columns: Vec<(String, ColumnType)>,
        projection: Option<&[String]>,
    ) -> Result<Layout, TaskError> {
        if columns.is_empty() {
            return Err(config(match format.records {
                Records::Delimited => "a CSV source without a header needs its columns declared",
                Records::Json { .. } => "an NDJSON source needs at least one column",
            }));
        }
        let projected = projected(columns.iter().map(|(name, _)| name.as_str()), projection)?;
        let fields: Result<Vec<Field>, TaskError> = projected
            .iter()
            .map(|&at| {
                let (name, ty) = &columns[at];
                Ok(Field::new(name, arrow_type(name, *ty)?, true))
            })
            .collect();
        if let Records::Json { required, .. } = &format.records
            && let Some(name) = required
                .iter()
                .find(|name| columns.iter().all(|(column, _)| column != *name))
        {
            return Err(config(format!(
                "the column {name}, which is required, is none of the source's"
            )));
        }
        let objects = shape(&format, &columns, &projected);
        Ok(Layout {
            nulls: match objects {
                None => Nulls::new(&format.nulls),
                Some(_) => Nulls::sign(json::NULL),
            },
            objects,
            format,
            columns,
            projected,
            schema: Arc::new(Schema::new(fields?)),
        })
    }

    /// The same files with no column decoded: for counting.
    pub(crate) fn without_columns(&self) -> Layout {
        Layout {
            format: self.format.clone(),
            nulls: Nulls::new(&self.format.nulls),
            objects: self.shape(&[]),
            columns: self.columns.clone(),
            projected: Vec::new(),
            schema: Arc::new(Schema::empty()),
        }
    }

    fn shape(&self, wanted: &[usize]) -> Option<Shape> {
        shape(&self.format, &self.columns, wanted)
    }

    /// The decoded columns, in file order.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The rows whose values were taken out of objects.
    pub(super) fn rows_of_objects<'a>(&'a self, fields: &'a Fields, text: Text<'a>) -> Rows<'a> {
        Rows {
            text,
            ends: &fields.ends,
            firsts: &fields.firsts,
            // No field is the last of a line, whose carriage return would be taken off.
            columns: self.projected.len() + 1,
            signs: self.format.signs(),
            doubled: false,
            escaped: false,
            nulls: &self.nulls,
        }
    }

    /// The wanted columns of rows. `block` is the buffer under their text.
    pub(super) fn decode(&self, rows: &Rows<'_>, block: &Buffer, utf8: bool, flaws: &mut Vec<Flaw>) -> Vec<ArrayRef> {
        let mut decoded = Vec::with_capacity(self.projected.len());
        for (at, &column) in self.projected.iter().enumerate() {
            let place = if self.objects.is_some() { at } else { column };
            let from = flaws.len();
            decoded.push(rows.decode(place, self.columns[column].1, block, utf8, flaws));
            flaws[from..].iter_mut().for_each(|flaw| flaw.column = column as u32);
        }
        decoded
    }

    /// What is wrong with a field, in words.
    pub(super) fn describe(&self, text: Text<'_>, flaw: &Flaw) -> String {
        let (name, ty) = &self.columns[flaw.column as usize];
        let field = text.slice(flaw.start as usize, flaw.end as usize);
        let shown = String::from_utf8_lossy(field);
        let shown = match shown.char_indices().nth(SHOWN) {
            Some((cut, _)) => format!("{}…", &shown[..cut]),
            None => shown.into_owned(),
        };
        let utf8 = std::str::from_utf8(field).is_ok();
        if *ty == ColumnType::String && utf8 {
            return format!(
                "column {name}: «{shown}» has text behind its closing quote, or a quote inside that is not doubled"
            );
        }
        let encoding = self.format.dialect.encoding;
        if *ty == ColumnType::String && encoding != Encoding::Utf8 {
            return format!("column {name}: «{shown}» is not text in {}", encoding.name());
        }
        format!("column {name}: «{shown}» is not {}", expectation(*ty))
    }

    /// Checks a file's header against the columns that were planned for.
    pub(super) fn check_header(&self, path: &str, header: &[String]) -> Result<(), TaskError> {
        if header.len() == self.columns.len() && header.iter().zip(&self.columns).all(|(a, (b, _))| a == b) {
            return Ok(());
        }
        let planned: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        Err(config(format!(
            "{path}: its header differs from that of the first file: {} instead of {}; all files of a source have the \
             same columns in the same order",
            header.join(","),
            planned.join(",")
        )))
    }
}

/// `None` where lines are no objects.
fn shape(format: &Format, columns: &[(String, ColumnType)], wanted: &[usize]) -> Option<Shape> {
    match &format.records {
        Records::Delimited => None,
        Records::Json { required, closed } => Some(Shape::new(columns, wanted, required, *closed)),
    }
}

/// Positions of the names in `projection` among `names`, ascending.
pub(crate) fn projected<'a>(
    names: impl Iterator<Item = &'a str>,
    projection: Option<&[String]>,
) -> Result<Vec<usize>, TaskError> {
    let names: Vec<&str> = names.collect();
    let Some(wanted) = projection else {
        return Ok((0..names.len()).collect());
    };
    let mut positions = Vec::with_capacity(wanted.len());
    for name in wanted {
        let at = names
            .iter()
            .position(|known| known == name)
            .ok_or_else(|| config(format!("the source has no column {name}; it has {}", names.join(", "))))?;
        positions.push(at);
    }
    positions.sort_unstable();
    positions.dedup();
    Ok(positions)
}

/// The columns of a schema that are read.
///
/// Errors: as of [`projected`].
pub(crate) fn projected_schema(schema: &SchemaRef, projection: Option<&[String]>) -> Result<SchemaRef, TaskError> {
    let wanted = projected(schema.fields().iter().map(|field| field.name().as_str()), projection)?;
    let schema = schema.project(&wanted);
    let schema =
        schema.map_err(|error| config(format!("the columns asked for are not those of the source: {error}")))?;
    Ok(Arc::new(schema))
}

/// The columns of a file from its header and the declared types: what is not declared is text.
///
/// Errors: `Config` naming a declared column that the header lacks, or a name that stands twice.
pub fn columns_of_header(
    path: &str,
    header: &[String],
    declared: &[(String, ColumnType)],
) -> Result<Vec<(String, ColumnType)>, TaskError> {
    let mut seen = HashSet::new();
    for name in header {
        if !seen.insert(name.as_str()) {
            return Err(config(match name.is_empty() {
                true => format!(
                    "{path}: the header has two columns without a name; name them, or is it no header (`header: false`), \
                     or of lines that end in CR alone (`newline: cr`)?"
                ),
                false => format!("{path}: the header names column {name} twice"),
            }));
        }
    }
    for (name, _) in declared {
        if !seen.contains(name.as_str()) {
            let there = match header.join(", ") {
                names if names.trim_matches([',', ' ']).is_empty() => "its first line is empty".to_string(),
                names => format!("it has {names}"),
            };
            let other = match header {
                [all] => [';', '\t', '|', ','].into_iter().find(|other| all.contains(*other)),
                _ => None,
            };
            let hint = other.map_or(String::new(), |other| {
                let shown = if other == '\t' {
                    "tab".to_string()
                } else {
                    format!("\"{other}\"")
                };
                format!(". Is it parted by another character (`delimiter: {shown}`)?")
            });
            return Err(config(format!(
                "{path}: the header has no column {name}, which the job declares; {there}{hint}"
            )));
        }
    }
    let type_of = |name: &String| {
        declared
            .iter()
            .find(|(declared, _)| declared == name)
            .map(|(_, ty)| *ty)
    };
    Ok(header
        .iter()
        .map(|name| (name.clone(), type_of(name).unwrap_or(ColumnType::String)))
        .collect())
}

/// The beginning of a file, before its first record.
pub(super) struct Head {
    /// Names in the header; `None` without a header, and for a file without a byte of content.
    pub header: Option<Vec<String>>,
    /// Where the first record may begin.
    pub data_start: usize,
    /// All that was read, beyond `data_start` too.
    pub bytes: Vec<u8>,
}

impl Head {
    /// Reads as much as is needed of `input`, which stands at the file's first byte.
    pub fn read(path: &str, input: &mut dyn Read, format: &Format) -> Result<Head, TaskError> {
        Self::look(path, input, format, false)
    }

    /// As [`Head::read`], before anybody reads records: without a header the first record is looked at instead.
    pub fn survey(path: &str, input: &mut dyn Read, format: &Format) -> Result<Head, TaskError> {
        let is_bare = !format.header && format.records == Records::Delimited;
        Self::look(path, input, format, is_bare)
    }

    fn look(path: &str, input: &mut dyn Read, format: &Format, is_bare: bool) -> Result<Head, TaskError> {
        const STEP: usize = 4096;
        let mut bytes = Vec::new();
        loop {
            let had = bytes.len();
            let step = STEP.max(had);
            bytes.resize(had + step, 0);
            let got = read_full(input, &mut bytes[had..]).map_err(|error| decode_error(path, &error))?;
            bytes.truncate(had + got);
            let ended = got < step;
            if had == 0 && format.dialect.encoding == Encoding::Utf8 {
                check_plain(path, &bytes, format)?;
            }
            if let Some((header, data_start)) = places(&bytes, format, ended) {
                let newline = format.signs().newline;
                let is_all = ended || bytes.len() > MAX_HEADER;
                if is_bare && first_record::check(path, &bytes, data_start, is_all, format)?.is_continue() {
                    continue;
                }
                if format.header && header.is_empty() && memchr::memchr(newline, &bytes).is_none() {
                    // Lines to skip and comments have taken the whole file.
                    let text = bytes.strip_suffix(b"\r").unwrap_or(&bytes);
                    check_line_ends(path, "what is passed over before the header", text, format)?;
                }
                let header = match header.is_empty() {
                    true => None,
                    false => {
                        let line = 1 + memchr::memchr_iter(newline, &bytes[..header.start]).count();
                        Some(header_names(path, line, &bytes[header], format)?)
                    }
                };
                return Ok(Head {
                    header,
                    data_start,
                    bytes,
                });
            }
            if bytes.len() > MAX_HEADER {
                if memchr::memchr(format.signs().newline, &bytes).is_none() {
                    check_line_ends(path, "the first line", &bytes, format)?;
                }
                return Err(config(format!(
                    "{path}: no line end within the first {MAX_HEADER} bytes, so it is not known where records begin; is this CSV?"
                )));
            }
        }
    }
}

/// Whether a text in UTF-8 begins as one.
fn check_plain(path: &str, first: &[u8], format: &Format) -> Result<(), TaskError> {
    if format.codec(path)? == Codec::Plain {
        nature::check(path, first)?;
    }
    check_mark(Encoding::Utf8, first).map_err(|other| match format.records {
        Records::Delimited => config(format!("{path}: {other}")),
        Records::Json { .. } => config(format!(
            "{path}: it begins with a byte order mark of utf-16, and ndjson is read as UTF-8; convert it"
        )),
    })
}

/// Where the header line stands (empty without one) and where the first record may begin; `None` where
/// more bytes are needed.
fn places(bytes: &[u8], format: &Format, ended: bool) -> Option<(Range<usize>, usize)> {
    let signs = format.signs();
    if bytes.len() < BOM.len() && !ended {
        return None;
    }
    let mut at = if bytes.starts_with(BOM) { BOM.len() } else { 0 };
    let line_from = |at: usize| match memchr::memchr(signs.newline, &bytes[at..]) {
        Some(found) => Some(at + found + 1),
        None => ended.then_some(bytes.len()),
    };
    for _ in 0..format.dialect.skip_lines {
        at = line_from(at)?;
    }
    if !format.header {
        return Some((at..at, at));
    }
    while signs.comment.is_some() && bytes.get(at).copied() == signs.comment {
        at = line_from(at)?;
    }
    if at == bytes.len() && !ended {
        return None;
    }
    let end = match format.is_exact() {
        true => match exact::record_end(bytes, at, signs) {
            Some(end) => end + 1,
            None => ended.then_some(bytes.len())?,
        },
        false => line_from(at)?,
    };
    Some((at..end, end))
}

/// Whether `text`, which is said to be of one line, has line ends of another kind, or bytes in another
/// order, than the job declares: the whole file would be its header.
pub(super) fn check_line_ends(path: &str, what: &str, text: &[u8], format: &Format) -> Result<(), TaskError> {
    let (sign, found) = match format.dialect.newline {
        Newline::Lf => (
            b'\r',
            "a CR without an LF behind it; where lines end in CR alone declare `newline: cr`",
        ),
        Newline::Cr => (b'\n', "an LF; where lines end in LF or CRLF declare `newline: lf`"),
    };
    if memchr::memchr(sign, text).is_some() {
        return Err(config(format!("{path}: {what} holds {found}")));
    }
    let other = match format.dialect.encoding {
        Encoding::Utf16Le => Encoding::Utf16Be,
        Encoding::Utf16Be => Encoding::Utf16Le,
        _ => return Ok(()),
    };
    match memchr::memmem::find(text, SWAPPED_LF.as_bytes()) {
        None => Ok(()),
        Some(_) => Err(config(format!(
            "{path}: {what} holds U+0A00, which is no character but a line end with its bytes in the other order; declare \
             `encoding: {}`",
            other.name()
        ))),
    }
}

/// The names of a header line, its line end included.
fn header_names(path: &str, number: usize, line: &[u8], format: &Format) -> Result<Vec<String>, TaskError> {
    let signs = format.signs();
    let line = line.strip_suffix(&[signs.newline]).unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut ends = Vec::new();
    let split = match format.is_exact() {
        true => exact::split_record(line, signs, &mut ends),
        false => split_line(line, signs, 0, &mut ends),
    };
    split.map_err(|_| config(format!("{path}: a quote in the header line is still open at its end")))?;
    let mut start = 0;
    let mut names = Vec::with_capacity(ends.len());
    for (at, &end) in ends.iter().enumerate() {
        let is_last = at + 1 == ends.len();
        let further = if is_last { 0 } else { signs.delimiter.further() };
        let field = &line[start..end as usize - further];
        start = end as usize + 1;
        let mut name = Vec::new();
        let is_quoted = signs.quote.is_some() && field.first().copied() == signs.quote;
        // What is quoted wrongly is taken as it stands: no declared column will have that name.
        let is_right = exact::unescape(field, signs, &mut name);
        if !is_right {
            name = field.to_vec();
        }
        if !(is_right && is_quoted) {
            check_line_ends(path, &format!("the header (line {number})"), field, format)?;
        }
        names.push(String::from_utf8(name).map_err(|_| {
            config(format!(
                "{path}: the header line is not valid {}; declare the file's `encoding`, or convert it",
                format.dialect.encoding.name()
            ))
        })?);
    }
    Ok(names)
}

/// The names in the first record of a file of objects, which may begin with empty lines; `None` for a file
/// without a record.
pub(super) fn first_names(path: &str, input: &mut dyn Read, format: &Format) -> Result<Option<Vec<String>>, TaskError> {
    let mut bytes = Vec::new();
    let mut from = 0;
    loop {
        let had = bytes.len();
        let step = had.max(4096);
        bytes.resize(had + step, 0);
        let got = read_full(input, &mut bytes[had..]).map_err(|error| decode_error(path, &error))?;
        bytes.truncate(had + got);
        let ended = got < step;
        if had == 0 {
            check_plain(path, &bytes, format)?;
        }
        if had == 0 && bytes.starts_with(BOM) {
            from = BOM.len();
        }
        loop {
            let end = match memchr::memchr(b'\n', &bytes[from..]) {
                Some(found) => from + found,
                None if ended => bytes.len(),
                None => break,
            };
            let line = bytes[from..end].trim_ascii();
            if !line.is_empty() {
                return json::names(line).map(Some).map_err(|fault| {
                    config(format!(
                        "{path}: without `columns` in the job its first record tells them, but {}",
                        fault.0
                    ))
                });
            }
            if end == bytes.len() {
                return Ok(None);
            }
            from = end + 1;
        }
        if bytes.len() > MAX_HEADER {
            return Err(config(format!(
                "{path}: the first record has no end within {MAX_HEADER} bytes; declare `columns`, or is this no NDJSON?"
            )));
        }
    }
}

/// Reads until `buffer` is full or the input ends.
pub(super) fn read_full(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// An error of the system may pass; one of the decoder is the file's.
pub(in crate::source) fn decode_error(path: &str, error: &io::Error) -> TaskError {
    if error.raw_os_error().is_some() || object_error_in(error).is_some() {
        return io_error(path, "reading", error);
    }
    if error.get_ref().is_some_and(|inner| inner.is::<NoByteOrderMark>()) {
        return config(format!("{path}: {NoByteOrderMark}"));
    }
    if let Some(other) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<OtherByteOrderMark>())
    {
        return config(format!("{path}: {other}"));
    }
    if let Some(trailing) = error.get_ref().and_then(|inner| inner.downcast_ref::<Trailing>()) {
        return data(format!("{path}: {trailing}"));
    }
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the compressed file ends too early: it is cut off".to_string(),
        _ if error.to_string().contains("requires too much memory") => {
            return config(format!(
                "{path}: the compressed file needs more than 128 MiB to be read; compress it again without a larger \
                 window (`zstd --long`)"
            ));
        }
        _ => format!("the compressed file is damaged: {error}"),
    };
    data(format!("{path}: {what}; copy or make the file again"))
}

//! Header and trailer: where the records of a file begin and end, and what the file declares.

use gapless_common::{
    error::TaskError,
    exact::Exact,
    job::{Encoding, LineType},
};

use super::{
    cells::{exact, spans_of},
    content::Content,
    shape::{Shape, has_tag},
};
use crate::source::{
    csv::{MAX_RECORD, encoding::check_mark},
    nature,
    pins::{config, data},
};

/// Read at once at either end of a file.
const STEP: usize = 4096;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// A file without its header and trailer.
#[derive(Debug)]
pub(crate) struct Edges {
    /// Records lie in `[start, end)`.
    pub start: u64,
    pub end: u64,
    /// For each of the layout's totals what the file declares.
    pub declared: Vec<Exact>,
}

/// Finds and checks header and trailer of a file.
///
/// Errors: `Data` where one is missing, is not what the layout says, or declares no number;
/// `Transient` when reading fails.
pub(crate) fn edges(file: &mut Content, shape: &Shape) -> Result<Edges, TaskError> {
    let layout = &shape.layout;
    // Whoever has little time goes through the file before.
    while layout.trailer.is_some() && !file.pass_on(u64::MAX)? {}
    let file = &*file;
    let (path, size) = (file.path.as_str(), file.size);
    let mut edges = Edges {
        start: byte_order_mark(file, size)?,
        end: size,
        declared: Vec::new(),
    };
    let mut declared = vec![Exact::default(); shape.declared.len()];
    if let Some(header) = &layout.header {
        let Some((line, next)) = first_line(file, path, edges.start, size, shape)? else {
            return Err(missing(path, header, "the file holds no line"));
        };
        read_edge(path, &line, header, shape, true, &mut declared)?;
        edges.start = next;
    }
    if let Some(trailer) = &layout.trailer {
        let Some((line, at)) = last_line(file, path, edges.start, size, shape)? else {
            return Err(missing(path, trailer, "no line stands behind the header"));
        };
        read_edge(path, &line, trailer, shape, false, &mut declared)?;
        edges.end = at;
    }
    edges.declared = declared;
    Ok(edges)
}

fn missing(path: &str, edge: &LineType, why: &str) -> TaskError {
    data(format!(
        "{path}: the {} is missing: {why}; the file was cut off, or is not of this layout",
        edge.name
    ))
}

/// How long the byte order mark is, if there is one.
///
/// Errors: `Config` where a file that is read as it is begins as no text in UTF-8 does.
fn byte_order_mark(file: &Content, size: u64) -> Result<u64, TaskError> {
    let mut first = [0; nature::TOLD_BY];
    let first = &mut first[..size.min(nature::TOLD_BY as u64) as usize];
    let got = file.read_some(first, 0)?;
    let first = &first[..got];
    if !file.is_packed() {
        let path = &file.path;
        nature::check(path, first)?;
        check_mark(Encoding::Utf8, first).map_err(|other| config(format!("{path}: {other}")))?;
    }
    Ok(if first.starts_with(BOM) { BOM.len() as u64 } else { 0 })
}

fn too_long(path: &str, at: u64) -> TaskError {
    data(format!(
        "{path}: the line at byte {at} has no end within {MAX_RECORD} bytes; this is no file of lines, or a line end \
         other than LF or CRLF is used"
    ))
}

pub(super) fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The first line that is not passed over, and the place behind it.
fn first_line(
    file: &Content,
    path: &str,
    mut at: u64,
    size: u64,
    shape: &Shape,
) -> Result<Option<(Vec<u8>, u64)>, TaskError> {
    let mut len = STEP;
    while at < size {
        let mut bytes = vec![0; len.min((size - at) as usize)];
        let got = file.read_some(&mut bytes, at)?;
        let to_end = got < bytes.len() || got as u64 == size - at;
        bytes.truncate(got);
        let end = match memchr::memchr(b'\n', &bytes) {
            Some(end) => end,
            None if bytes.is_empty() => return Ok(None),
            None if to_end => bytes.len(),
            None if len > MAX_RECORD => return Err(too_long(path, at)),
            None => {
                len *= 4;
                continue;
            }
        };
        let next = (at + end as u64 + 1).min(if to_end { at + got as u64 } else { size });
        let line = without_cr(&bytes[..end]);
        if !shape.is_passed_over(line) {
            return Ok(Some((line.to_vec(), next)));
        }
        at = next;
    }
    Ok(None)
}

/// The last line at or behind `from` that is not passed over, and its place.
fn last_line(
    file: &Content,
    path: &str,
    from: u64,
    size: u64,
    shape: &Shape,
) -> Result<Option<(Vec<u8>, u64)>, TaskError> {
    let (mut end, mut len) = (size, STEP);
    while end > from {
        let at = end.saturating_sub(len as u64).max(from);
        let mut bytes = vec![0; (end - at) as usize];
        file.read(&mut bytes, at)?;
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let start = match memchr::memrchr(b'\n', text) {
            Some(before) => before + 1,
            None if at == from => 0,
            None if len > MAX_RECORD => return Err(too_long(path, at)),
            None => {
                len *= 4;
                continue;
            }
        };
        let line = without_cr(&text[start..]);
        end = at + start as u64;
        if !shape.is_passed_over(line) {
            return Ok(Some((line.to_vec(), end)));
        }
    }
    Ok(None)
}

fn read_edge(
    path: &str,
    line: &[u8],
    edge: &LineType,
    shape: &Shape,
    is_header: bool,
    declared: &mut [Exact],
) -> Result<(), TaskError> {
    let place = if is_header { "first" } else { "last" };
    let shown = || {
        let text = String::from_utf8_lossy(line);
        text.chars().take(80).collect::<String>()
    };
    if !has_tag(&shape.layout, edge, line) {
        let tag = edge.tag.as_deref().unwrap_or_default();
        let why = format!("the {place} line, «{}», has not its tag «{tag}»", shown());
        return Err(missing(path, edge, &why));
    }
    if edge.fields.is_empty() {
        return Ok(());
    }
    let wrong = |reason: String| data(format!("{path}: the {}, «{}»: {reason}", edge.name, shown()));
    if std::str::from_utf8(line).is_err() {
        return Err(wrong("it is not valid UTF-8".to_string()));
    }
    let spans = spans_of(&shape.layout, edge, line).map_err(&wrong)?;
    for (field, (start, end)) in edge.fields.iter().zip(&spans) {
        let text = &line[*start as usize..*end as usize];
        if let Some(value) = &field.value
            && super::cells::without_padding(text, field) != super::cells::without_padding(value.as_bytes(), field)
        {
            let text = String::from_utf8_lossy(text);
            return Err(wrong(format!("«{text}» stands where the layout says «{value}»")));
        }
    }
    for (total, declared) in shape.declared.iter().zip(declared) {
        if total.in_header != is_header {
            continue;
        }
        let (field, (start, end)) = (&edge.fields[total.field], spans[total.field]);
        let text = &line[start as usize..end as usize];
        *declared = exact(text, field).ok_or_else(|| {
            let text = String::from_utf8_lossy(text);
            wrong(format!("{}: «{text}» is no such number", total.what))
        })?;
    }
    Ok(())
}

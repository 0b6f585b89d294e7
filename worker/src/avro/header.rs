//! The header of a file: schema, codec and the marker that stands behind it and behind each block.

use std::io;

use gapless_common::error::TaskError;
use xxhash_rust::xxh3::xxh3_128;

use super::{Codec, put_long, take_long};
use crate::{
    source::pins::{config, data, io_error},
    storage::StoredFile,
};

/// Bytes of a marker.
pub(crate) const MARKER: usize = 16;

const MAGIC: &[u8; 4] = b"Obj\x01";
const SCHEMA: &str = "avro.schema";
const CODEC: &str = "avro.codec";

/// A schema of a thousand columns with their documentation takes some hundred kilobytes.
const MAX_HEADER: usize = 16 << 20;

/// Most headers are shorter than this, and are read at once.
const FIRST: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The schema of the records, as JSON.
    pub schema: String,
    pub codec: Codec,
    pub marker: [u8; MARKER],
    /// Bytes of the header: where the first block begins.
    pub len: u64,
}

impl Header {
    /// Reads the header of a file of `size` bytes.
    ///
    /// Errors: `Config` for a file that is no Avro or has a codec that is not read, `Data` for one that is cut off.
    pub fn read(file: &StoredFile, path: &str, size: u64) -> Result<Header, TaskError> {
        let mut bytes = Vec::new();
        let mut wanted = FIRST;
        loop {
            let have = bytes.len();
            let most = wanted.min(usize::try_from(size).unwrap_or(usize::MAX));
            bytes.resize(most, 0);
            file.read_exact_at(&mut bytes[have..], have as u64)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        config(format!("{path}: changed after planning: it became shorter"))
                    }
                    _ => io_error(path, "reading", &error),
                })?;
            if bytes.is_empty() {
                return Err(config(format!(
                    "{path}: the file is empty; an Avro file has at least a header"
                )));
            }
            if !bytes.starts_with(MAGIC) {
                return Err(config(format!(
                    "{path}: this is no Avro object container file: it does not begin with the bytes `Obj` and 1"
                )));
            }
            match parse(&bytes, path)? {
                Some(header) => return Ok(header),
                None if bytes.len() as u64 == size => {
                    return Err(data(format!(
                        "{path}: the header ends at byte {size}, with the file: it is cut off or still being written"
                    )));
                }
                None if wanted >= MAX_HEADER => {
                    return Err(data(format!(
                        "{path}: damaged: the header has no end within {MAX_HEADER} bytes"
                    )));
                }
                None => wanted = (wanted * 8).min(MAX_HEADER),
            }
        }
    }

    /// The header as it is written.
    pub fn bytes(schema: &str, codec: Codec, marker: [u8; MARKER]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put_long(2, &mut out);
        for (key, value) in [(SCHEMA, schema), (CODEC, codec.name())] {
            for text in [key, value] {
                put_long(text.len() as i64, &mut out);
                out.extend_from_slice(text.as_bytes());
            }
        }
        put_long(0, &mut out);
        out.extend_from_slice(&marker);
        out
    }
}

/// `None` where the bytes end within the header.
fn parse(bytes: &[u8], path: &str) -> Result<Option<Header>, TaskError> {
    let mut at = MAGIC.len();
    let (mut schema, mut codec) = (None, Codec::Null);
    loop {
        let damaged = |at: usize| data(format!("{path}: damaged: the header's map is broken at byte {at}"));
        let Some(count) = long(bytes, &mut at, path)? else {
            return Ok(None);
        };
        if count == 0 {
            break;
        }
        // A negative count is followed by the length of the entries.
        if count < 0 && long(bytes, &mut at, path)?.is_none() {
            return Ok(None);
        }
        for _ in 0..count.unsigned_abs() {
            let mut texts = [&bytes[..0]; 2];
            for text in &mut texts {
                let Some(len) = long(bytes, &mut at, path)? else {
                    return Ok(None);
                };
                let len = usize::try_from(len).map_err(|_| damaged(at))?;
                let end = at.checked_add(len).ok_or_else(|| damaged(at))?;
                let Some(found) = bytes.get(at..end) else {
                    return Ok(None);
                };
                *text = found;
                at = end;
            }
            let [key, value] = texts;
            if key == SCHEMA.as_bytes() {
                let text = String::from_utf8(value.to_vec());
                schema = Some(text.map_err(|_| data(format!("{path}: damaged: its schema is no UTF-8")))?);
            } else if key == CODEC.as_bytes() {
                let name = String::from_utf8_lossy(value);
                codec = Codec::named(&name).ok_or_else(|| {
                    config(format!(
                        "{path}: its blocks are compressed by the codec `{}` (named before byte {at}), which is not read; \
                         those that are: {}; write the file again with one of them",
                        name.chars().take(64).collect::<String>(),
                        Codec::known()
                    ))
                })?;
            }
        }
    }
    let Some(marker) = bytes.get(at..at + MARKER) else {
        return Ok(None);
    };
    let schema = schema.ok_or_else(|| data(format!("{path}: damaged: its header has no `{SCHEMA}`")))?;
    Ok(Some(Header {
        schema,
        codec,
        marker: marker.try_into().unwrap_or_default(),
        len: (at + MARKER) as u64,
    }))
}

fn long(bytes: &[u8], at: &mut usize, path: &str) -> Result<Option<i64>, TaskError> {
    /// An integer of 64 bits takes at most so many bytes.
    const LONGEST: usize = 10;
    let begin = *at;
    match take_long(bytes, at) {
        None if bytes.len().saturating_sub(begin) >= LONGEST => Err(data(format!(
            "{path}: damaged: no integer at byte {begin} of the header"
        ))),
        value => Ok(value),
    }
}

/// The marker of a file that we write: it follows from the content, so that the same rows make the same bytes, and no
/// file can hold its own marker but by intent.
pub(crate) fn marker_of(schema: &str, codec: Codec, first_block: &[u8]) -> [u8; MARKER] {
    let head = xxh3_128(&Header::bytes(schema, codec, [0; MARKER]));
    xxh3_128(&[&head.to_le_bytes()[..], first_block].concat()).to_le_bytes()
}

/// Appends a stored block.
pub(crate) fn write_block(rows: u64, stored: &[u8], marker: [u8; MARKER], out: &mut Vec<u8>) {
    put_long(rows as i64, out);
    put_long(stored.len() as i64, out);
    out.extend_from_slice(stored);
    out.extend_from_slice(&marker);
}

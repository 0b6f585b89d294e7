//! Where the text of a file goes: through its encoding, and as it is or compressed.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use encoding_rs::{EncoderResult, WINDOWS_1252};
use flate2::write::GzEncoder;
use gapless_common::{
    error::{ErrorClass, TaskError},
    job::{Compression, Encoding},
};

use crate::{
    source::csv::utf8,
    storage::{DurableFile, io_error},
};

/// Text is handed on in pieces of this size: a system call and a hash update for each.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;

const ZSTD_LEVEL: i32 = 3;

/// In UTF-8.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Text around what cannot be written, in a message.
const SHOWN: usize = 40;

/// How a text file is compressed: `None`, `Gzip` or `Zstd`.
///
/// Errors: `Config` for what only columns are compressed with.
pub(super) fn packing(compression: Compression) -> Result<Compression, TaskError> {
    match compression {
        Compression::Auto | Compression::None => Ok(Compression::None),
        Compression::Gzip | Compression::Zstd => Ok(compression),
        other => Err(TaskError::new(
            ErrorClass::Config,
            format!("text files are compressed by gzip or zstd, not {other:?}"),
        )),
    }
}

/// Takes UTF-8 in pieces of any length.
pub(crate) struct TextEncoder {
    target: Target,
    encoding: Encoding,
    /// The beginning of a character that the last piece ended in.
    begun: Vec<u8>,
}

enum Target {
    Plain(DurableFile),
    Gzip(GzEncoder<DurableFile>),
    Zstd(zstd::Encoder<'static, DurableFile>),
}

impl TextEncoder {
    pub fn new(file: DurableFile, compression: Compression, encoding: Encoding) -> Result<Self, TaskError> {
        let target = match compression {
            Compression::Gzip => Target::Gzip(GzEncoder::new(file, flate2::Compression::default())),
            Compression::Zstd => {
                let path = file.path().to_path_buf();
                let encoder = zstd::Encoder::new(file, ZSTD_LEVEL).map_err(|error| io_error("begin", &path, &error))?;
                Target::Zstd(encoder)
            }
            _ => Target::Plain(file),
        };
        let mut encoder = TextEncoder {
            target,
            encoding,
            begun: Vec::new(),
        };
        if encoding == Encoding::Utf16 {
            encoder.write_all(BYTE_ORDER_MARK.as_bytes())?;
        }
        Ok(encoder)
    }

    /// Errors: `Data` for a character that the encoding has not; those of writing.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), TaskError> {
        if self.encoding == Encoding::Utf8 {
            return self.put(bytes);
        }
        let joined = [&self.begun[..], bytes].concat();
        let (text, rest) = match std::str::from_utf8(&joined) {
            Ok(text) => (text, &[][..]),
            Err(error) if error.error_len().is_none() => {
                let (text, rest) = joined.split_at(error.valid_up_to());
                (std::str::from_utf8(text).unwrap_or_default(), rest)
            }
            Err(error) => return Err(self.broken(&error.to_string())),
        };
        let encoded = encoded(text, self.encoding).map_err(|what| self.broken(&what))?;
        self.begun = rest.to_vec();
        self.put(&encoded)
    }

    fn broken(&self, what: &str) -> TaskError {
        TaskError::new(
            ErrorClass::Data,
            format!("cannot write {}: {what}", self.path().display()),
        )
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), TaskError> {
        let result = match &mut self.target {
            Target::Plain(file) => file.write_all(bytes),
            Target::Gzip(encoder) => encoder.write_all(bytes),
            Target::Zstd(encoder) => encoder.write_all(bytes),
        };
        result.map_err(|error| io_error("write", self.path(), &error))
    }

    pub fn close(self) -> Result<DurableFile, TaskError> {
        if !self.begun.is_empty() {
            return Err(self.broken("the text ends within a character"));
        }
        let path = self.path().to_path_buf();
        let result = match self.target {
            Target::Plain(file) => Ok(file),
            Target::Gzip(encoder) => encoder.finish(),
            Target::Zstd(encoder) => encoder.finish(),
        };
        result.map_err(|error| io_error("write", &path, &error))
    }

    pub fn path(&self) -> &Path {
        match &self.target {
            Target::Plain(file) => file.path(),
            Target::Gzip(encoder) => encoder.get_ref().path(),
            Target::Zstd(encoder) => encoder.get_ref().path(),
        }
    }
}

/// Errors name the first character that the encoding has not.
fn encoded(text: &str, encoding: Encoding) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    match encoding {
        Encoding::Utf8 => out.extend_from_slice(text.as_bytes()),
        Encoding::Latin1 => {
            for (at, c) in text.char_indices() {
                out.push(u8::try_from(u32::from(c)).map_err(|_| lacks(text, at, c, encoding))?);
            }
        }
        Encoding::Windows1252 => {
            let mut encoder = WINDOWS_1252.new_encoder();
            out.resize(text.len(), 0);
            // A byte for each character, which has one or more in UTF-8.
            let (result, read, written) = encoder.encode_from_utf8_without_replacement(text, &mut out, true);
            out.truncate(written);
            if let EncoderResult::Unmappable(c) = result {
                return Err(lacks(text, read - c.len_utf8(), c, encoding));
            }
        }
        Encoding::Utf16 | Encoding::Utf16Le => out.extend(text.encode_utf16().flat_map(u16::to_le_bytes)),
        Encoding::Utf16Be => out.extend(text.encode_utf16().flat_map(u16::to_be_bytes)),
    }
    Ok(out)
}

fn lacks(text: &str, at: usize, c: char, encoding: Encoding) -> String {
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let near: String = text[line..]
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(SHOWN)
        .collect();
    format!(
        "the character «{c}» (U+{:04X}), in «{near}», is none of {}; replace it in the SQL, or write another `encoding`",
        u32::from(c),
        encoding.name()
    )
}

/// A reader of the text that such an encoder wrote, without a byte order mark.
pub(crate) fn decoder(
    file: impl Read + Send + 'static,
    compression: Compression,
    encoding: Encoding,
) -> io::Result<Box<dyn Read + Send>> {
    let bytes: Box<dyn Read + Send> = match compression {
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Compression::Zstd => Box::new(zstd::Decoder::new(file)?),
        _ => Box::new(file),
    };
    let mut text = utf8(encoding, bytes);
    if encoding == Encoding::Utf16 {
        text.read_exact(&mut [0; BYTE_ORDER_MARK.len()])?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_encoding_is_read_back_and_what_it_has_not_is_named() {
        let of = |text: &str, encoding| encoded(text, encoding);
        assert_eq!(of("café\u{80}", Encoding::Latin1).unwrap(), b"caf\xe9\x80");
        assert_eq!(of("café€", Encoding::Windows1252).unwrap(), b"caf\xe9\x80");
        assert_eq!(of("aé😀", Encoding::Utf16Le).unwrap(), b"a\0\xe9\0=\xd8\0\xde");
        assert_eq!(of("aé", Encoding::Utf16Be).unwrap(), b"\0a\0\xe9");
        let error = of("one\ntwo €\n", Encoding::Latin1).unwrap_err();
        assert!(
            error.starts_with("the character «€» (U+20AC), in «two €», is none of latin1"),
            "{error}"
        );
        let error = of("é😀", Encoding::Windows1252).unwrap_err();
        assert!(
            error.starts_with("the character «😀» (U+1F600), in «é😀», is none of windows-1252"),
            "{error}"
        );
    }
}

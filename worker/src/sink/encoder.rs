//! Where the bytes of a text file go: as they are, or compressed.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use flate2::write::GzEncoder;
use gapless_common::{
    error::{ErrorClass, TaskError},
    job::Compression,
};

use crate::storage::{DurableFile, io_error};

/// Text is handed on in pieces of this size: a system call and a hash update for each.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;

const ZSTD_LEVEL: i32 = 3;

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

pub(crate) enum TextEncoder {
    Plain(DurableFile),
    Gzip(GzEncoder<DurableFile>),
    Zstd(zstd::Encoder<'static, DurableFile>),
}

impl TextEncoder {
    pub fn new(file: DurableFile, compression: Compression) -> Result<Self, TaskError> {
        Ok(match compression {
            Compression::Gzip => TextEncoder::Gzip(GzEncoder::new(file, flate2::Compression::default())),
            Compression::Zstd => {
                let path = file.path().to_path_buf();
                let encoder = zstd::Encoder::new(file, ZSTD_LEVEL).map_err(|error| io_error("begin", &path, &error))?;
                TextEncoder::Zstd(encoder)
            }
            _ => TextEncoder::Plain(file),
        })
    }

    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), TaskError> {
        let result = match self {
            TextEncoder::Plain(file) => file.write_all(bytes),
            TextEncoder::Gzip(encoder) => encoder.write_all(bytes),
            TextEncoder::Zstd(encoder) => encoder.write_all(bytes),
        };
        result.map_err(|error| io_error("write", self.path(), &error))
    }

    pub fn close(self) -> Result<DurableFile, TaskError> {
        let path = self.path().to_path_buf();
        let result = match self {
            TextEncoder::Plain(file) => Ok(file),
            TextEncoder::Gzip(encoder) => encoder.finish(),
            TextEncoder::Zstd(encoder) => encoder.finish(),
        };
        result.map_err(|error| io_error("write", &path, &error))
    }

    fn path(&self) -> &Path {
        match self {
            TextEncoder::Plain(file) => file.path(),
            TextEncoder::Gzip(encoder) => encoder.get_ref().path(),
            TextEncoder::Zstd(encoder) => encoder.get_ref().path(),
        }
    }
}

/// A reader of what such an encoder wrote.
pub(crate) fn decoder(file: impl Read + Send + 'static, compression: Compression) -> io::Result<Box<dyn Read>> {
    Ok(match compression {
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Compression::Zstd => Box::new(zstd::Decoder::new(file)?),
        _ => Box::new(file),
    })
}

//! CSV files: RFC 4180 quoting, with NULL and the empty text kept apart.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use flate2::write::GzEncoder;
use gapless_common::{
    error::{ErrorClass, TaskError},
    job::{Compression, FileSink},
};

use super::text::{TextColumn, textual};
use crate::storage::{DurableFile, io_error};

const QUOTE: u8 = b'"';

/// Text is handed on in pieces of this size: a system call and a hash update for each.
const BUFFER_BYTES: usize = 256 * 1024;

const ZSTD_LEVEL: i32 = 3;

/// What a CSV sink's options come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CsvStyle {
    pub header: bool,
    pub delimiter: u8,
    pub null: String,
    /// `None`, `Gzip` or `Zstd`.
    pub compression: Compression,
}

impl CsvStyle {
    pub fn of(sink: &FileSink) -> Result<Self, TaskError> {
        let config = |message: String| Err(TaskError::new(ErrorClass::Config, message));
        let compression = match sink.compression {
            Compression::Auto | Compression::None => Compression::None,
            Compression::Gzip => Compression::Gzip,
            Compression::Zstd => Compression::Zstd,
            other => return config(format!("CSV files are compressed by gzip or zstd, not {other:?}")),
        };
        if matches!(sink.delimiter, QUOTE | b'\n' | b'\r') {
            return config("a delimiter is neither a quote nor the end of a line".into());
        }
        if sink
            .null
            .bytes()
            .any(|byte| matches!(byte, QUOTE | b'\n' | b'\r') || byte == sink.delimiter)
        {
            return config(format!(
                "the null text {:?} holds a delimiter, quote or end of line",
                sink.null
            ));
        }
        Ok(Self {
            header: sink.header,
            delimiter: sink.delimiter,
            null: sink.null.clone(),
            compression,
        })
    }

    /// The header line, empty without one.
    pub fn header_line(&self, schema: &SchemaRef) -> Vec<u8> {
        let mut line = Vec::new();
        if self.header {
            for (number, field) in schema.fields().iter().enumerate() {
                if number > 0 {
                    line.push(self.delimiter);
                }
                self.append_text(field.name(), &mut line);
            }
            line.push(b'\n');
        }
        line
    }

    fn append_text(&self, text: &str, out: &mut Vec<u8>) {
        let special = |byte: u8| byte == self.delimiter || matches!(byte, QUOTE | b'\n' | b'\r');
        if text.is_empty() || text == self.null || text.bytes().any(special) {
            append_quoted(text.as_bytes(), out);
        } else {
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// Whether a value that is not text could be taken for NULL or cut by the delimiter.
    fn guards_values(&self) -> bool {
        !self.null.is_empty() || self.delimiter.is_ascii_alphanumeric() || b"+-.: ".contains(&self.delimiter)
    }

    /// A writer that compresses into `file`.
    pub fn encoder(&self, file: DurableFile) -> Result<CsvEncoder, TaskError> {
        Ok(match self.compression {
            Compression::Gzip => CsvEncoder::Gzip(GzEncoder::new(file, flate2::Compression::default())),
            Compression::Zstd => {
                let path = file.path().to_path_buf();
                let encoder = zstd::Encoder::new(file, ZSTD_LEVEL).map_err(|error| io_error("begin", &path, &error))?;
                CsvEncoder::Zstd(encoder)
            }
            _ => CsvEncoder::Plain(file),
        })
    }

    /// A reader of what such an encoder wrote.
    pub fn decoder(&self, file: Box<dyn Read + Send>) -> io::Result<Box<dyn Read>> {
        Ok(match self.compression {
            Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
            Compression::Zstd => Box::new(zstd::Decoder::new(file)?),
            _ => file,
        })
    }
}

fn append_quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(QUOTE);
    for &byte in text {
        if byte == QUOTE {
            out.push(QUOTE);
        }
        out.push(byte);
    }
    out.push(QUOTE);
}

/// Where the bytes of a CSV file go.
pub(crate) enum CsvEncoder {
    Plain(DurableFile),
    Gzip(GzEncoder<DurableFile>),
    Zstd(zstd::Encoder<'static, DurableFile>),
}

impl CsvEncoder {
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), TaskError> {
        let result = match self {
            CsvEncoder::Plain(file) => file.write_all(bytes),
            CsvEncoder::Gzip(encoder) => encoder.write_all(bytes),
            CsvEncoder::Zstd(encoder) => encoder.write_all(bytes),
        };
        result.map_err(|error| io_error("write", self.path(), &error))
    }

    pub fn close(self) -> Result<DurableFile, TaskError> {
        let path = self.path().to_path_buf();
        let result = match self {
            CsvEncoder::Plain(file) => Ok(file),
            CsvEncoder::Gzip(encoder) => encoder.finish(),
            CsvEncoder::Zstd(encoder) => encoder.finish(),
        };
        result.map_err(|error| io_error("write", &path, &error))
    }

    fn path(&self) -> &Path {
        match self {
            CsvEncoder::Plain(file) => file.path(),
            CsvEncoder::Gzip(encoder) => encoder.get_ref().path(),
            CsvEncoder::Zstd(encoder) => encoder.get_ref().path(),
        }
    }
}

pub(crate) struct CsvFile {
    encoder: CsvEncoder,
    style: CsvStyle,
    schema: SchemaRef,
    buffer: Vec<u8>,
}

impl CsvFile {
    pub fn begin(file: DurableFile, schema: SchemaRef, style: CsvStyle) -> Result<Self, TaskError> {
        let buffer = style.header_line(&schema);
        Ok(Self {
            encoder: style.encoder(file)?,
            style,
            schema,
            buffer,
        })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        let columns = self
            .schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, column)| textual(field.name(), column))
            .collect::<Result<Vec<_>, _>>()?;
        let columns = columns
            .iter()
            .map(|column| TextColumn::new(column))
            .collect::<Result<Vec<_>, _>>()?;
        let guarded = self.style.guards_values();
        for row in 0..batch.num_rows() {
            for (number, column) in columns.iter().enumerate() {
                if number > 0 {
                    self.buffer.push(self.style.delimiter);
                }
                if column.is_null(row) {
                    self.buffer.extend_from_slice(self.style.null.as_bytes());
                } else if let Some(text) = column.text(row) {
                    self.style.append_text(text, &mut self.buffer);
                } else {
                    let start = self.buffer.len();
                    column.append(row, &mut self.buffer)?;
                    if guarded {
                        self.guard(start);
                    }
                }
            }
            self.buffer.push(b'\n');
            if self.buffer.len() >= BUFFER_BYTES {
                self.write_out()?;
            }
        }
        Ok(())
    }

    /// Quotes the value at the end of the buffer where it would be misread.
    fn guard(&mut self, start: usize) {
        let value = &self.buffer[start..];
        if value == self.style.null.as_bytes() || value.contains(&self.style.delimiter) {
            let value = self.buffer.split_off(start);
            append_quoted(&value, &mut self.buffer);
        }
    }

    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    pub fn write_out(&mut self) -> Result<(), TaskError> {
        self.encoder.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    pub fn close(mut self) -> Result<DurableFile, TaskError> {
        self.write_out()?;
        self.encoder.close()
    }
}

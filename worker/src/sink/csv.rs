//! CSV files: RFC 4180 quoting, with NULL and the empty text kept apart.

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use gapless_common::{
    error::{ErrorClass, TaskError},
    job::{Compression, Delimiter, Encoding, FileSink},
};

use memchr::{memchr, memchr2, memchr3};

use super::{
    encoder::{BUFFER_BYTES, TextEncoder, packing},
    text::{TextColumn, textual},
};
use crate::storage::DurableFile;

const QUOTE: u8 = b'"';

/// What a CSV sink's options come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CsvStyle {
    pub header: bool,
    pub delimiter: Delimiter,
    pub null: String,
    /// `None`, `Gzip` or `Zstd`.
    pub compression: Compression,
    pub encoding: Encoding,
    end: &'static [u8],
}

impl CsvStyle {
    pub fn of(sink: &FileSink) -> Result<Self, TaskError> {
        let config = |message: String| Err(TaskError::new(ErrorClass::Config, message));
        let compression = packing(sink.compression)?;
        let is_sign = |byte: &u8| matches!(*byte, QUOTE | b'\n' | b'\r');
        if sink.delimiter.as_bytes().iter().any(is_sign) {
            return config("a delimiter holds neither a quote nor the end of a line".into());
        }
        if sink.null.as_bytes().iter().any(is_sign) || sink.delimiter.cuts(sink.null.as_bytes()) {
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
            encoding: sink.encoding,
            end: if sink.crlf { b"\r\n" } else { b"\n" },
        })
    }

    /// The header line, empty without one, and whether it takes several lines.
    fn header_line(&self, schema: &SchemaRef) -> (Vec<u8>, bool) {
        let mut line = Vec::new();
        let mut multiline = false;
        if self.header {
            for (number, field) in schema.fields().iter().enumerate() {
                if number > 0 {
                    line.extend_from_slice(self.delimiter.as_bytes());
                }
                multiline |= self.append_text(field.name(), &mut line);
            }
            line.extend_from_slice(self.end);
        }
        (line, multiline)
    }

    /// Whether the text holds a line end.
    fn append_text(&self, text: &str, out: &mut Vec<u8>) -> bool {
        let bytes = text.as_bytes();
        let signs = || match self.delimiter.byte() {
            Some(delimiter) => memchr3(delimiter, QUOTE, b'\n', bytes).is_some(),
            None => memchr2(QUOTE, b'\n', bytes).is_some() || self.delimiter.cuts(bytes),
        };
        let special = || signs() || memchr(b'\r', bytes).is_some();
        if text.is_empty() || text == self.null || special() {
            append_quoted(bytes, out);
            memchr(b'\n', bytes).is_some()
        } else {
            out.extend_from_slice(bytes);
            false
        }
    }

    /// Whether a value that is not text could be taken for NULL or cut by the delimiter.
    fn guards_values(&self) -> bool {
        let stands_in_values = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.: ".contains(byte);
        !self.null.is_empty() || self.delimiter.as_bytes().iter().any(stands_in_values)
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

pub(crate) struct CsvFile {
    encoder: TextEncoder,
    style: CsvStyle,
    schema: SchemaRef,
    buffer: Vec<u8>,
    multiline: bool,
}

impl CsvFile {
    pub fn begin(file: DurableFile, schema: SchemaRef, style: CsvStyle) -> Result<Self, TaskError> {
        let (buffer, multiline) = style.header_line(&schema);
        Ok(Self {
            encoder: TextEncoder::new(file, style.compression, style.encoding)?,
            style,
            schema,
            buffer,
            multiline,
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
                    self.buffer.extend_from_slice(self.style.delimiter.as_bytes());
                }
                if column.is_null(row) {
                    self.buffer.extend_from_slice(self.style.null.as_bytes());
                } else if let Some(text) = column.text(row) {
                    self.multiline |= self.style.append_text(text, &mut self.buffer);
                } else {
                    let start = self.buffer.len();
                    column.append(row, &mut self.buffer)?;
                    if guarded {
                        self.guard(start);
                    }
                }
            }
            self.buffer.extend_from_slice(self.style.end);
            if self.buffer.len() >= BUFFER_BYTES {
                self.write_out()?;
            }
        }
        Ok(())
    }

    /// Quotes the value at the end of the buffer where it would be misread.
    fn guard(&mut self, start: usize) {
        let value = &self.buffer[start..];
        if value == self.style.null.as_bytes() || self.style.delimiter.cuts(value) {
            let value = self.buffer.split_off(start);
            append_quoted(&value, &mut self.buffer);
        }
    }

    /// Whether a field of what was written so far holds a line end.
    pub fn is_multiline(&self) -> bool {
        self.multiline
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

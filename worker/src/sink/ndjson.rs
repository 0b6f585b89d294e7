//! Files of lines of JSON.

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use gapless_common::{
    error::TaskError,
    job::{Compression, Encoding},
};

use super::{
    encoder::{BUFFER_BYTES, TextEncoder},
    json::JsonLines,
};
use crate::storage::DurableFile;

pub(crate) struct NdjsonFile {
    encoder: TextEncoder,
    lines: JsonLines,
    buffer: Vec<u8>,
}

impl NdjsonFile {
    pub fn begin(file: DurableFile, schema: SchemaRef, compression: Compression) -> Result<Self, TaskError> {
        Ok(Self {
            encoder: TextEncoder::new(file, compression, Encoding::Utf8)?,
            lines: JsonLines::of(&schema)?,
            buffer: Vec::new(),
        })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        let Self { encoder, lines, buffer } = self;
        lines.append(batch, buffer, |buffer| {
            if buffer.len() >= BUFFER_BYTES {
                encoder.write_all(buffer)?;
                buffer.clear();
            }
            Ok(())
        })
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

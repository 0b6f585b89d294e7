//! Lines of JSON: one object for each row, every column in it, NULL as `null`.
//!
//! Numbers are written exactly; what JSON has no number for (`NaN`, `inf`) is written as text, which reads
//! back as the same value. Dates, timestamps and bytes are text too.

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use gapless_common::{
    error::TaskError,
    job::{Compression, Encoding},
};

use super::{
    encoder::{BUFFER_BYTES, TextEncoder},
    json::{Cells, Parts, append_text},
};
use crate::storage::DurableFile;

pub(crate) struct NdjsonFile {
    encoder: TextEncoder,
    schema: SchemaRef,
    /// Each column's name as it begins its member: `{"a":`, `,"b":`.
    names: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl NdjsonFile {
    pub fn begin(file: DurableFile, schema: SchemaRef, compression: Compression) -> Result<Self, TaskError> {
        let mut names = Vec::with_capacity(schema.fields().len());
        for (number, field) in schema.fields().iter().enumerate() {
            let mut name = vec![if number == 0 { b'{' } else { b',' }];
            append_text(field.name(), &mut name)?;
            name.push(b':');
            names.push(name);
        }
        Ok(Self {
            encoder: TextEncoder::new(file, compression, Encoding::Utf8)?,
            schema,
            names,
            buffer: Vec::new(),
        })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        let columns = self.schema.fields().iter().zip(batch.columns());
        let parts: Result<Vec<Parts>, TaskError> =
            columns.map(|(field, column)| Parts::of(field.name(), column)).collect();
        let parts = parts?;
        let cells = parts.iter().map(Cells::of).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            for (name, cells) in self.names.iter().zip(&cells) {
                self.buffer.extend_from_slice(name);
                cells.append(row, &mut self.buffer)?;
            }
            self.buffer
                .extend_from_slice(if self.names.is_empty() { b"{}\n" } else { b"}\n" });
            if self.buffer.len() >= BUFFER_BYTES {
                self.write_out()?;
            }
        }
        Ok(())
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

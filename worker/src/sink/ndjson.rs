//! Lines of JSON: one object for each row, every column in it, NULL as `null`.
//!
//! Numbers are written exactly; what JSON has no number for (`NaN`, `inf`) is written as text, which reads
//! back as the same value. Dates, timestamps and bytes are text too.

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef},
};
use gapless_common::{
    error::{ErrorClass, TaskError},
    job::{Compression, Encoding},
};

use super::{
    encoder::{BUFFER_BYTES, TextEncoder},
    text::{TextColumn, textual},
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
        let columns = self
            .schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, column)| textual(field.name(), column))
            .collect::<Result<Vec<_>, _>>()?;
        let columns = columns
            .iter()
            .map(|column| Ok((TextColumn::new(column)?, column.data_type())))
            .collect::<Result<Vec<_>, TaskError>>()?;
        for row in 0..batch.num_rows() {
            for (name, (column, ty)) in self.names.iter().zip(&columns) {
                self.buffer.extend_from_slice(name);
                if column.is_null(row) {
                    self.buffer.extend_from_slice(b"null");
                } else if let Some(text) = column.text(row) {
                    append_text(text, &mut self.buffer)?;
                } else {
                    let start = self.buffer.len();
                    column.append(row, &mut self.buffer)?;
                    if !is_bare(ty, &self.buffer[start..]) {
                        let value = self.buffer.split_off(start);
                        append_text(&String::from_utf8_lossy(&value), &mut self.buffer)?;
                    }
                }
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

/// Whether a value stands in JSON without quotes.
fn is_bare(ty: &DataType, value: &[u8]) -> bool {
    match ty {
        DataType::Boolean => true,
        _ if ty.is_integer() || ty.is_decimal() => true,
        // `NaN`, `inf`, `-inf` end in a letter, numbers in a digit.
        _ if ty.is_floating() => value.last().is_some_and(u8::is_ascii_digit),
        _ => false,
    }
}

fn append_text(text: &str, out: &mut Vec<u8>) -> Result<(), TaskError> {
    serde_json::to_writer(out, text)
        .map_err(|error| TaskError::new(ErrorClass::Data, format!("a text has no JSON: {error}")))
}

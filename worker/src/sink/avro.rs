//! Avro object container files. The same rows make the same bytes: blocks are cut by the bytes of their rows, however
//! batches come, and the marker between blocks follows from the first of them.

use std::{io, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, Schema, SchemaRef},
    util::display::FormatOptions,
};
use arrow_avro::{
    schema::SCHEMA_METADATA_KEY,
    writer::{Encoder, WriterBuilder, format::AvroBinaryFormat},
};
use gapless_common::error::{ErrorClass, TaskError};

use super::{encoder::BUFFER_BYTES, format::wrong_batch};
use crate::{
    avro::{Codec, Header, MARKER, marker_of, write_block},
    source::avro::read_back,
    storage::{DurableFile, io_error},
    type_names::type_name,
};

/// Bytes of rows in a block: where a reader of the file resumes, and what is compressed as one.
const BLOCK: usize = 64 * 1024;

/// A value that its type in Avro cannot hold is told, not made NULL.
const WHOLE: CastOptions<'static> = CastOptions {
    safe: false,
    format_options: FormatOptions::new(),
};

/// Rows that are encoded at once.
const SLICE: usize = 1024;

pub(crate) struct AvroFile {
    out: BlockWriter,
    encoder: Encoder,
    /// What the encoder gets: the columns in types that Avro has.
    written: SchemaRef,
    /// Encoded rows of the block that is not full.
    block: Vec<u8>,
    rows: u64,
}

/// Writes blocks behind a header, which waits for the first of them.
pub(crate) struct BlockWriter {
    file: DurableFile,
    schema: String,
    codec: Codec,
    marker: Option<[u8; MARKER]>,
    buffer: Vec<u8>,
}

impl BlockWriter {
    pub fn new(file: DurableFile, schema: String, codec: Codec) -> Self {
        Self {
            file,
            schema,
            codec,
            marker: None,
            buffer: Vec::new(),
        }
    }

    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Adds a block as it is stored.
    pub fn add(&mut self, rows: u64, stored: &[u8]) -> Result<(), TaskError> {
        let marker = self.marker(stored);
        write_block(rows, stored, marker, &mut self.buffer);
        match self.buffer.len() >= BUFFER_BYTES {
            true => self.write_out(),
            false => Ok(()),
        }
    }

    fn marker(&mut self, first_block: &[u8]) -> [u8; MARKER] {
        *self.marker.get_or_insert_with(|| {
            let marker = marker_of(&self.schema, self.codec, first_block);
            self.buffer.extend(Header::bytes(&self.schema, self.codec, marker));
            marker
        })
    }

    fn write_out(&mut self) -> Result<(), TaskError> {
        let written = io::Write::write_all(&mut self.file, &self.buffer);
        written.map_err(|error| io_error("write", self.file.path(), &error))?;
        self.buffer.clear();
        Ok(())
    }

    pub fn close(mut self) -> Result<DurableFile, TaskError> {
        self.marker(&[]);
        self.write_out()?;
        Ok(self.file)
    }
}

impl AvroFile {
    pub fn begin(file: DurableFile, schema: SchemaRef, codec: Codec) -> Result<Self, TaskError> {
        let (written, encoder) = encoder(&schema)?;
        let json = encoder.schema().metadata().get(SCHEMA_METADATA_KEY).cloned();
        Ok(Self {
            out: BlockWriter::new(file, json.unwrap_or_default(), codec),
            encoder,
            written,
            block: Vec::new(),
            rows: 0,
        })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        let columns: Result<Vec<ArrayRef>, TaskError> = self
            .written
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, column)| match column.data_type() == field.data_type() {
                true => Ok(column.clone()),
                false => cast_with_options(column, field.data_type(), &WHOLE)
                    .map_err(|error| TaskError::new(ErrorClass::Data, format!("column {}: {error}", field.name()))),
            })
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch =
            RecordBatch::try_new_with_options(self.written.clone(), columns?, &options).map_err(|e| wrong_batch(&e))?;
        let mut from = 0;
        while from < batch.num_rows() {
            let slice = batch.slice(from, SLICE.min(batch.num_rows() - from));
            from += slice.num_rows();
            let encoded = self.encoder.encode(&slice);
            encoded.map_err(|error| {
                TaskError::new(
                    ErrorClass::Data,
                    format!("cannot write {}: {error}", self.out.file.path().display()),
                )
            })?;
            let rows = self.encoder.flush();
            for row in rows.offsets().windows(2) {
                self.block.extend_from_slice(&rows.bytes()[row[0]..row[1]]);
                self.rows += 1;
                if self.block.len() >= BLOCK {
                    self.end_block()?;
                }
            }
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), TaskError> {
        let stored = self.out.codec.pack(&self.block);
        let stored = stored.map_err(|error| io_error("compress", self.out.file.path(), &error))?;
        self.out.add(self.rows, &stored)?;
        self.block.clear();
        self.rows = 0;
        Ok(())
    }

    pub fn buffered(&self) -> usize {
        self.block.len() + self.out.buffer.len()
    }

    /// Gives up what was stored; a block that is not full stays, so that blocks are cut by their rows alone.
    pub fn write_out(&mut self) -> Result<(), TaskError> {
        match self.out.marker {
            Some(_) => self.out.write_out(),
            None => Ok(()),
        }
    }

    pub fn close(mut self) -> Result<DurableFile, TaskError> {
        if self.rows > 0 {
            self.end_block()?;
        }
        self.out.close()
    }
}

fn encoder(schema: &Schema) -> Result<(SchemaRef, Encoder), TaskError> {
    let config = |message: String| TaskError::new(ErrorClass::Config, message);
    let fields: Result<Vec<Field>, TaskError> = schema
        .fields()
        .iter()
        .map(|field| {
            let (name, ty) = (field.name(), field.data_type());
            if !is_name(name) {
                return Err(config(format!(
                    "column {name}: names in Avro are letters, digits and `_`, and begin with no digit; name it so (AS …)"
                )));
            }
            let Some(read) = read_back(ty) else {
                return Err(config(format!(
                    "column {name} is {}, which is not written to Avro; cast it, select its parts, or use a parquet sink",
                    type_name(ty)
                )));
            };
            let ty = match (ty, read) {
                // Written as they are, whatever they lie in.
                (DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary, _) => ty.clone(),
                (DataType::BinaryView, _) => ty.clone(),
                (_, read) => read,
            };
            Ok(Field::new(name, ty, field.is_nullable()))
        })
        .collect();
    let written = Arc::new(Schema::new(fields?));
    let encoder = WriterBuilder::new(written.as_ref().clone())
        .build_encoder::<AvroBinaryFormat>()
        .map_err(|error| config(format!("the columns have no Avro schema: {error}")))?;
    Ok((written, encoder))
}

/// Whether each column can be written.
///
/// Errors: `Config`, naming the column and what to do.
pub(super) fn check(schema: &Schema) -> Result<(), TaskError> {
    encoder(schema).map(drop)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

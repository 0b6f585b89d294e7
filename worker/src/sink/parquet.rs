//! Parquet files, with the encodings that a trial on real data chose.
//!
//! A dictionary that stops growing at 32 KB and a fallback encoding by type gave smaller files in
//! two thirds of the writer's default time, with no tuning by column. Decimals stay PLAIN where they
//! are fixed-length bytes: not every reader knows BYTE_STREAM_SPLIT on those.

use std::{error::Error as _, io, sync::Arc};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef},
};
use gapless_common::{
    error::{ErrorClass, TaskError},
    job::Compression,
};
use parquet::{
    arrow::{
        ArrowWriter, add_encoded_arrow_schema_to_metadata,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
        arrow_writer::ArrowWriterOptions,
    },
    basic::{Compression as Codec, Encoding, GzipLevel, ZstdLevel},
    errors::ParquetError,
    file::{
        properties::{EnabledStatistics, WriterProperties},
        reader::ChunkReader,
    },
    schema::types::ColumnPath,
};

use super::format::wrong_batch;
use crate::storage::{DurableFile, io_error};

/// Above this a dictionary costs more to build than it saves.
const DICTIONARY_BYTES: usize = 32 * 1024;

/// Rows of a row group: enough to amortise its footer, few enough to be read by several tasks.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// Encoded bytes of a row group, which wait in memory until it ends.
const ROW_GROUP_BYTES: usize = 96 << 20;

/// Least and greatest value are kept for texts up to this average length: longer ones are seldom
/// filtered by range, and comparing them costs as much as encoding them.
const STATISTICS_TEXT_BYTES: usize = 24;

/// Rows looked at to tell how long texts are.
const TEXT_SAMPLE_ROWS: usize = 1024;

/// What an encoder of differences reserves for its column, used or not (parquet 59.3), and what all of those that are
/// open at a time may, a third of what a task has by default: where more columns are open, values stand as they are in
/// further files, and compression has to do.
const DELTA_ENCODER_BYTES: usize = 1 << 20;
const DELTA_BYTES: usize = 160 << 20;

/// Two percent larger than level 3, in a fraction of its time.
const ZSTD_LEVEL: i32 = 1;

pub(crate) struct ParquetFile {
    writer: ArrowWriter<DurableFile>,
    schema: SchemaRef,
}

impl ParquetFile {
    pub fn begin(
        file: DurableFile,
        schema: SchemaRef,
        compression: Compression,
        first: Option<&RecordBatch>,
        open: usize,
    ) -> Result<Self, TaskError> {
        let path = file.path().to_path_buf();
        let mut properties = properties(&schema, compression, first, open)?;
        add_encoded_arrow_schema_to_metadata(&embedded(&schema), &mut properties);
        let options = ArrowWriterOptions::new()
            .with_properties(properties)
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(file, Arc::clone(&schema), options).map_err(|error| {
            TaskError::new(
                ErrorClass::Config,
                format!(
                    "cannot begin {}: {error}; cast the column to a type that Parquet has",
                    path.display()
                ),
            )
        })?;
        Ok(Self { writer, schema })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        // Nullability may differ between batches of one query; the file's schema rules.
        let batch = if batch.schema_ref() == &self.schema {
            batch.clone()
        } else {
            RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec()).map_err(|e| wrong_batch(&e))?
        };
        self.writer.write(&batch).map_err(|error| self.error("write", &error))
    }

    pub fn buffered(&self) -> usize {
        self.writer.memory_size()
    }

    pub fn end_row_group(&mut self) -> Result<(), TaskError> {
        self.writer.flush().map_err(|error| self.error("write", &error))
    }

    pub fn close(self) -> Result<DurableFile, TaskError> {
        let path = self.writer.inner().path().to_path_buf();
        self.writer
            .into_inner()
            .map_err(|error| parquet_error("close", &path, &error))
    }

    fn error(&self, action: &str, error: &ParquetError) -> TaskError {
        parquet_error(action, self.writer.inner().path(), error)
    }
}

/// The schema that a file tells its readers. A view is a form in memory, and not every reader that
/// takes the schema at its word can filter or sort one.
fn embedded(schema: &Schema) -> Schema {
    let fields: Fields = schema.fields().iter().map(without_views).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn without_views(field: &FieldRef) -> FieldRef {
    let ty = plain_type(field.data_type());
    match ty == *field.data_type() {
        true => Arc::clone(field),
        false => Arc::new(Field::clone(field).with_data_type(ty)),
    }
}

fn plain_type(ty: &DataType) -> DataType {
    use DataType::*;
    match ty {
        Utf8View => Utf8,
        BinaryView => Binary,
        List(item) => List(without_views(item)),
        LargeList(item) => LargeList(without_views(item)),
        FixedSizeList(item, length) => FixedSizeList(without_views(item), *length),
        ListView(item) => ListView(without_views(item)),
        LargeListView(item) => LargeListView(without_views(item)),
        Map(entries, sorted) => Map(without_views(entries), *sorted),
        Struct(fields) => Struct(fields.iter().map(without_views).collect()),
        Dictionary(key, value) => Dictionary(key.clone(), Box::new(plain_type(value))),
        RunEndEncoded(ends, values) => RunEndEncoded(Arc::clone(ends), without_views(values)),
        other => other.clone(),
    }
}

/// Begins to read a file that a [`ParquetFile`] has made. Texts come as views: a batch of them has no
/// limit of 2 GiB.
pub(crate) fn read_back<R: ChunkReader + 'static>(file: R) -> Result<ParquetRecordBatchReaderBuilder<R>, ParquetError> {
    let stored = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
    let fields: Fields = (stored.schema().fields().iter())
        .map(|field| match field.data_type() {
            DataType::Utf8 => Arc::new(Field::clone(field).with_data_type(DataType::Utf8View)),
            DataType::Binary => Arc::new(Field::clone(field).with_data_type(DataType::BinaryView)),
            _ => Arc::clone(field),
        })
        .collect();
    let schema = Schema::new_with_metadata(fields, stored.schema().metadata().clone());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    let viewed = ArrowReaderMetadata::try_new(Arc::clone(stored.metadata()), options)?;
    Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(file, viewed))
}

/// An error of the Parquet library in words; a full disk inside it is told as such.
pub(crate) fn parquet_error(action: &str, path: &std::path::Path, error: &ParquetError) -> TaskError {
    let mut cause = error.source();
    if let ParquetError::External(inner) = error {
        cause = Some(inner.as_ref());
    }
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return io_error(action, path, error);
        }
        cause = error.source();
    }
    TaskError::new(ErrorClass::Data, format!("cannot {action} {}: {error}", path.display()))
}

fn properties(
    schema: &SchemaRef,
    compression: Compression,
    first: Option<&RecordBatch>,
    open: usize,
) -> Result<WriterProperties, TaskError> {
    let delta = (schema.flattened_fields().len() * open).saturating_mul(DELTA_ENCODER_BYTES) <= DELTA_BYTES;
    let mut builder = WriterProperties::builder()
        .set_compression(codec(compression)?)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(concat!("gapless ", env!("CARGO_PKG_VERSION")).to_string());
    for (number, field) in schema.fields().iter().enumerate() {
        let path = || ColumnPath::new(vec![field.name().clone()]);
        if let Some(encoding) = fallback_encoding(field.data_type()).filter(|found| delta || !is_delta(*found)) {
            builder = builder.set_column_encoding(path(), encoding);
        }
        let column = first.and_then(|batch| batch.columns().get(number));
        if column.is_some_and(|column| average_text_bytes(column.as_ref()) > STATISTICS_TEXT_BYTES) {
            builder = builder.set_column_statistics_enabled(path(), EnabledStatistics::None);
        }
    }
    Ok(builder.build())
}

fn codec(compression: Compression) -> Result<Codec, TaskError> {
    let invalid = |error: ParquetError| TaskError::new(ErrorClass::Config, error.to_string());
    Ok(match compression {
        Compression::Auto | Compression::Zstd => Codec::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).map_err(invalid)?),
        Compression::None => Codec::UNCOMPRESSED,
        // Avro has one that Parquet calls gzip.
        Compression::Gzip | Compression::Deflate => Codec::GZIP(GzipLevel::default()),
        Compression::Snappy => Codec::SNAPPY,
        Compression::Lz4 => Codec::LZ4_RAW,
    })
}

/// Decimals of up to so many digits are stored as integers.
const INTEGER_DECIMAL_DIGITS: u8 = 18;

/// What a column is encoded with once its dictionary is full. `None`: the format's own choice.
fn fallback_encoding(ty: &DataType) -> Option<Encoding> {
    use DataType::*;
    match ty {
        Int8
        | Int16
        | Int32
        | Int64
        | UInt8
        | UInt16
        | UInt32
        | UInt64
        | Date32
        | Date64
        | Time32(_)
        | Time64(_)
        | Timestamp(_, _) => Some(Encoding::DELTA_BINARY_PACKED),
        Decimal32(digits, _) | Decimal64(digits, _) | Decimal128(digits, _) | Decimal256(digits, _)
            if *digits <= INTEGER_DECIMAL_DIGITS =>
        {
            Some(Encoding::DELTA_BINARY_PACKED)
        }
        Float32 | Float64 => Some(Encoding::BYTE_STREAM_SPLIT),
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
        _ => None,
    }
}

fn is_delta(encoding: Encoding) -> bool {
    matches!(
        encoding,
        Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY
    )
}

/// 0 for columns that are not text.
fn average_text_bytes(column: &dyn Array) -> usize {
    let rows = column.len().min(TEXT_SAMPLE_ROWS);
    if rows == 0 {
        return 0;
    }
    let total: usize = match column.data_type() {
        DataType::Utf8 => (0..rows)
            .map(|row| column.as_string::<i32>().value_length(row) as usize)
            .sum(),
        DataType::LargeUtf8 => (0..rows)
            .map(|row| column.as_string::<i64>().value_length(row) as usize)
            .sum(),
        // The low half of a view is its length.
        DataType::Utf8View => column.as_string_view().views()[..rows]
            .iter()
            .map(|view| *view as u32 as usize)
            .sum(),
        _ => 0,
    };
    total / rows
}

//! The file formats behind one door: a file that takes batches and is then closed.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use gapless_common::{
    error::{ErrorClass, TaskError},
    job::{Compression, FileSink, Sink},
};

use super::{
    avro::{self, AvroFile},
    csv::CsvFile,
    csv::CsvStyle,
    encoder::packing,
    layout::{LayoutFile, LayoutStyle},
    ndjson::NdjsonFile,
    parquet::ParquetFile,
    report::ReportStyle,
};
use crate::{avro::Codec, storage::DurableFile};

/// Columns of Parquet files that are open at a time: each has some 50 KiB of tables and buffers of its own.
const OPEN_COLUMNS: usize = 1024;

/// With fewer, rows without an order would make a file of each handful.
const LEAST_OPEN_FILES: usize = 4;

/// How the files of a sink are written.
#[derive(Clone, Debug)]
pub(crate) enum Format {
    Avro(Codec),
    Parquet(Compression),
    Csv(CsvStyle),
    Records(Arc<LayoutStyle>),
    /// Written when files are merged, from rows that chunks have staged as Parquet.
    Report(Arc<ReportStyle>),
    /// `None`, `Gzip` or `Zstd`.
    Ndjson(Compression),
}

impl Format {
    /// How the files of chunks are written.
    pub fn of_chunks(self) -> Format {
        match self {
            Format::Report(_) => Format::Parquet(Compression::Lz4),
            other => other,
        }
    }

    /// `None` for a sink that keeps nothing. Errors: `Config` for a compression the format lacks.
    pub fn of(sink: &Sink) -> Result<Option<(Format, &FileSink)>, TaskError> {
        Ok(match sink {
            Sink::Avro(file) => Some((Format::Avro(Codec::of(file.compression)?), file)),
            Sink::Parquet(file) => Some((Format::Parquet(file.compression), file)),
            Sink::Csv(file) => Some((Format::Csv(CsvStyle::of(file)?), file)),
            Sink::Records(records) => Some((Format::Records(Arc::new(LayoutStyle::of(records))), &records.file)),
            Sink::Report(report) => Some((Format::Report(Arc::new(ReportStyle::of(report)?)), &report.file)),
            Sink::Ndjson(file) => Some((Format::Ndjson(packing(file.compression)?), file)),
            Sink::Discard => None,
        })
    }

    pub fn extension(&self) -> &str {
        match self {
            Format::Avro(_) => "avro",
            Format::Parquet(_) => "parquet",
            Format::Csv(style) => match style.compression {
                Compression::Gzip => "csv.gz",
                Compression::Zstd => "csv.zst",
                _ => "csv",
            },
            Format::Records(style) => match style.compression() {
                Compression::Gzip => "txt.gz",
                Compression::Zstd => "txt.zst",
                _ => "txt",
            },
            Format::Report(style) => style.extension(),
            Format::Ndjson(Compression::Gzip) => "ndjson.gz",
            Format::Ndjson(Compression::Zstd) => "ndjson.zst",
            Format::Ndjson(_) => "ndjson",
        }
    }

    /// Whether each value is written as text.
    pub fn is_text(&self) -> bool {
        match self {
            Format::Csv(_) | Format::Ndjson(_) => true,
            Format::Avro(_) | Format::Parquet(_) | Format::Records(_) | Format::Report(_) => false,
        }
    }

    /// Whether the format has these columns, where it can have but some.
    pub fn check(&self, schema: &SchemaRef) -> Result<(), TaskError> {
        match self {
            Format::Avro(_) => avro::check(schema),
            Format::Records(style) => style.check(schema),
            Format::Report(style) => style.check(schema),
            Format::Parquet(_) | Format::Csv(_) | Format::Ndjson(_) => Ok(()),
        }
    }

    /// How many files with these columns may be open at a time, of which `most` would be useful.
    pub fn open_files(&self, columns: usize, most: usize) -> usize {
        match self {
            Format::Parquet(_) => (OPEN_COLUMNS / columns.max(1)).clamp(LEAST_OPEN_FILES.min(most), most),
            _ => most,
        }
    }

    /// Begins a file of this schema. `first` is what will be written first, from which the writer
    /// learns how long texts are. `open`: how many such files are open, this one among them.
    pub fn begin(
        &self,
        file: DurableFile,
        schema: SchemaRef,
        first: Option<&RecordBatch>,
        open: usize,
    ) -> Result<FormatFile, TaskError> {
        Ok(match self {
            Format::Avro(codec) => FormatFile::Avro(Box::new(AvroFile::begin(file, schema, *codec)?)),
            Format::Parquet(compression) => {
                FormatFile::Parquet(Box::new(ParquetFile::begin(file, schema, *compression, first, open)?))
            }
            Format::Csv(style) => FormatFile::Csv(Box::new(CsvFile::begin(file, schema, style.clone())?)),
            Format::Report(_) => {
                let message = "a report is written when the rows of all chunks are merged";
                return Err(TaskError::new(ErrorClass::Config, message));
            }
            Format::Records(style) => FormatFile::Records(Box::new(LayoutFile::begin(file, schema, style.clone())?)),
            Format::Ndjson(compression) => FormatFile::Ndjson(Box::new(NdjsonFile::begin(file, schema, *compression)?)),
        })
    }
}

/// An open file of any format.
pub(crate) enum FormatFile {
    Avro(Box<AvroFile>),
    Parquet(Box<ParquetFile>),
    Csv(Box<CsvFile>),
    Records(Box<LayoutFile>),
    Ndjson(Box<NdjsonFile>),
}

impl FormatFile {
    /// Whether a field of what was written so far holds a line end and stands as it is.
    pub fn is_multiline(&self) -> bool {
        matches!(self, FormatFile::Csv(file) if file.is_multiline())
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        match self {
            FormatFile::Avro(file) => file.write(batch),
            FormatFile::Parquet(file) => file.write(batch),
            FormatFile::Csv(file) => file.write(batch),
            FormatFile::Records(file) => file.write(batch),
            FormatFile::Ndjson(file) => file.write(batch),
        }
    }

    /// Bytes that wait in memory.
    pub fn buffered(&self) -> usize {
        match self {
            FormatFile::Avro(file) => file.buffered(),
            FormatFile::Parquet(file) => file.buffered(),
            FormatFile::Csv(file) => file.buffered(),
            FormatFile::Records(file) => file.buffered(),
            FormatFile::Ndjson(file) => file.buffered(),
        }
    }

    /// Gives the memory back: ends the row group, or writes the buffer out.
    pub fn relieve(&mut self) -> Result<(), TaskError> {
        match self {
            FormatFile::Avro(file) => file.write_out(),
            FormatFile::Parquet(file) => file.end_row_group(),
            FormatFile::Csv(file) => file.write_out(),
            FormatFile::Records(file) => file.write_out(),
            FormatFile::Ndjson(file) => file.write_out(),
        }
    }

    pub fn close(self) -> Result<DurableFile, TaskError> {
        match self {
            FormatFile::Avro(file) => file.close(),
            FormatFile::Parquet(file) => file.close(),
            FormatFile::Csv(file) => file.close(),
            FormatFile::Records(file) => file.close(),
            FormatFile::Ndjson(file) => file.close(),
        }
    }
}

/// A batch that is not what the sink was opened for: a fault of ours, told rather than written.
pub(super) fn wrong_batch(error: &arrow::error::ArrowError) -> TaskError {
    TaskError::new(
        ErrorClass::Config,
        format!("the sink was given rows of another shape than planned: {error}"),
    )
}

//! Rows that do not fit into memory: a file for each stretch that is in order.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{DataType, Schema},
    error::ArrowError,
    ipc::{reader::StreamReader, writer::StreamWriter},
};
use gapless_common::error::{ErrorClass, TaskError};
use uuid::Uuid;

use super::Batches;
use crate::storage::io_error;

/// Bytes that are written and read at once.
const PIECE: usize = 256 * 1024;

/// A stretch on its way to the disk. Its file has no name any more, so it goes with whoever holds it, however
/// that ends.
pub(super) struct SpillWriter {
    writer: StreamWriter<BufWriter<File>>,
    path: PathBuf,
}

/// A stretch on the disk.
pub(super) struct Spilled {
    file: File,
    path: PathBuf,
    pub bytes: u64,
}

impl SpillWriter {
    pub fn create(folder: &Path, schema: &Schema) -> Result<Self, TaskError> {
        std::fs::create_dir_all(folder).map_err(|error| io_error("create the folder", folder, &error))?;
        let path = folder.join(format!("sort-{}", Uuid::now_v7()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| io_error("create", &path, &error))?;
        std::fs::remove_file(&path).map_err(|error| io_error("remove", &path, &error))?;
        let writer = StreamWriter::try_new(BufWriter::with_capacity(PIECE, file), schema)
            .map_err(|error| trouble("write", &path, error))?;
        Ok(Self { writer, path })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        own_texts(batch)
            .and_then(|batch| self.writer.write(&batch))
            .map_err(|error| trouble("write", &self.path, error))
    }

    pub fn finish(self) -> Result<Spilled, TaskError> {
        let path = self.path;
        let buffered = self
            .writer
            .into_inner()
            .map_err(|error| trouble("write", &path, error))?;
        let mut file = buffered
            .into_inner()
            .map_err(|error| io_error("write", &path, error.error()))?;
        let bytes = file
            .stream_position()
            .map_err(|error| io_error("read", &path, &error))?;
        Ok(Spilled { file, path, bytes })
    }
}

impl Spilled {
    /// Its batches, from the first on.
    pub fn read(mut self) -> Result<Batches<'static>, TaskError> {
        let path = self.path;
        self.file
            .seek(SeekFrom::Start(0))
            .map_err(|error| io_error("read", &path, &error))?;
        let mut reader = StreamReader::try_new(BufReader::with_capacity(PIECE, self.file), None)
            .map_err(|error| trouble("read", &path, error))?;
        Ok(Box::new(move || {
            reader.next().transpose().map_err(|error| trouble("read", &path, error))
        }))
    }
}

/// The batch with texts of its own: views look into the buffers of all rows that were sorted together, and the file
/// would hold all of these with each batch.
fn own_texts(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => column.clone(),
        }
    });
    RecordBatch::try_new(batch.schema(), columns.collect())
}

/// What went wrong with a file of spilled rows.
fn trouble(verb: &str, path: &Path, error: ArrowError) -> TaskError {
    match error {
        ArrowError::IoError(_, error) => io_error(verb, path, &error),
        other => match other.to_string() {
            words if words.contains("failed to fill whole buffer") => {
                io_error(verb, path, &io::Error::from(io::ErrorKind::UnexpectedEof))
            }
            words => TaskError::new(
                ErrorClass::Transient,
                format!("cannot {verb} {}: {words}", path.display()),
            ),
        },
    }
}

//! Sinks: writers of one chunk's data files, its quarantined records and its manifest.
//!
//! A chunk writes files of its own, under names that carry partition, attempt and sequence, into
//! the staging folder of its step. They count only when the leader has committed that sequence.

mod avro;
mod csv;
mod encoder;
mod format;
mod hive;
mod json;
mod layout;
mod ndjson;
mod open;
mod parquet;
mod plain;
pub(crate) mod records;
mod report;
mod split;
mod text;

use std::{collections::BTreeSet, path::PathBuf};

use arrow::array::RecordBatch;
use gapless_common::{error::TaskError, manifest::DataFile};

use crate::storage::{SealedFile, create_durable};

pub(crate) use avro::BlockWriter;
pub(crate) use encoder::{TextEncoder, decoder};
pub(crate) use format::Format;
pub(crate) use json::JsonLines;
pub(crate) use layout::{BodyTotals, LayoutStyle};
pub use open::{ChunkTarget, check_sink, check_sink_alone, open_chunk, written_schema};
pub(crate) use parquet::{parquet_error, read_back};
pub(crate) use plain::Staging;
pub(crate) use report::{ReportFile, ReportStyle};

/// Writes the rows of one chunk into files of its own. Dropping it unfinished removes them: the chunk may
/// be made once more.
pub trait ChunkSink: Send {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError>;

    /// Why a row of the batch cannot be given a place in the output, where a rule that is to find one cannot be evaluated
    /// on it. [`ChunkSink::write`] fails on such a batch.
    fn undecided(&mut self, _: &RecordBatch) -> Result<Option<String>, TaskError> {
        Ok(None)
    }

    /// Closes the files and hands them to the side threads, which make them durable meanwhile.
    fn seal(self: Box<Self>) -> Result<SealedChunk, TaskError>;

    /// Makes the files durable (content and name) and tells what they are.
    fn finish(self: Box<Self>) -> Result<Vec<DataFile>, TaskError> {
        self.seal()?.wait()
    }
}

/// The closed files of a chunk, on their way to the disk.
#[derive(Default)]
pub struct SealedChunk {
    files: Vec<StagedFile>,
    folders: BTreeSet<PathBuf>,
}

/// A closed file of a chunk.
struct StagedFile {
    path: String,
    rows: u64,
    multiline: bool,
    file: SealedFile,
}

impl SealedChunk {
    /// Returns when content and names are durable.
    pub fn wait(self) -> Result<Vec<DataFile>, TaskError> {
        let (files, sealed): (Vec<_>, Vec<_>) = self
            .files
            .into_iter()
            .map(|staged| {
                let file = DataFile {
                    path: staged.path,
                    rows: staged.rows,
                    bytes: 0,
                    checksum: String::new(),
                    multiline: staged.multiline,
                };
                (file, staged.file)
            })
            .unzip();
        let facts = create_durable(sealed, &self.folders)?;
        let known = |(file, (bytes, checksum)): (DataFile, (u64, u64))| DataFile {
            bytes,
            checksum: format!("{checksum:016x}"),
            ..file
        };
        Ok(files.into_iter().zip(facts).map(known).collect())
    }
}

#[cfg(test)]
mod tests;

//! Sinks: writers of one chunk's data files.

use arrow::array::RecordBatch;
use gapless_common::{error::TaskError, manifest::DataFile};

/// Writes the rows of one chunk into files of its own. Dropping it unfinished leaves files that no
/// manifest names, which the publisher sweeps.
pub trait ChunkSink: Send {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError>;

    /// Makes the files durable (content and name) and tells what they are.
    fn finish(self: Box<Self>) -> Result<Vec<DataFile>, TaskError>;
}

//! One exchange file in the making: written block by block.

use std::path::PathBuf;

use arrow::{datatypes::SchemaRef, error::ArrowError};
use gapless_common::error::{ErrorClass, TaskError};

use super::{
    durable::StagedFile,
    layout::{Footer, MAGIC},
    split::Splitter,
};

/// An exchange file in the making.
pub(super) struct ExchangeWriter {
    staged: StagedFile,
    footer: Footer,
}

/// What a finished file holds.
pub(super) struct Finished {
    pub(super) staged: StagedFile,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// XXH3-64 of the index, which holds the hash of every segment.
    pub(super) checksum: u64,
}

impl ExchangeWriter {
    pub(super) fn create(path: PathBuf, schema: SchemaRef, buckets: u32) -> Result<Self, TaskError> {
        let mut staged = StagedFile::create(path)?;
        staged.write(&MAGIC)?;
        Ok(Self {
            staged,
            footer: Footer {
                schema,
                buckets,
                blocks: Vec::new(),
            },
        })
    }

    /// Sorts what the splitter holds and writes it as one block.
    pub(super) fn write_block(&mut self, splitter: &mut Splitter) -> Result<(), TaskError> {
        self.write_block_timed(splitter, |write| write())
    }

    /// [`ExchangeWriter::write_block`] with each write passed through `timer`.
    pub(super) fn write_block_timed(
        &mut self,
        splitter: &mut Splitter,
        timer: impl Fn(&mut dyn FnMut() -> Result<(), TaskError>) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        let offset = self.staged.bytes();
        let staged = &mut self.staged;
        let mut block = splitter.drain(|bytes| timer(&mut || staged.write(bytes)).map_err(SplitError::Write))?;
        block.offset = offset;
        self.footer.blocks.push(block);
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.staged.bytes()
    }

    pub(super) fn finish(mut self) -> Result<Finished, TaskError> {
        let rows = self.footer.rows();
        let (footer, checksum) = self.footer.encode().map_err(SplitError::Arrow)?;
        self.staged.write(&footer)?;
        Ok(Finished {
            rows,
            bytes: self.staged.bytes(),
            checksum,
            staged: self.staged,
        })
    }
}

/// Why a block was not written.
#[derive(Debug, thiserror::Error)]
enum SplitError {
    #[error(transparent)]
    Write(TaskError),
    #[error("the exchange cannot carry a column: {0}")]
    Arrow(#[from] ArrowError),
}

impl From<SplitError> for TaskError {
    fn from(error: SplitError) -> Self {
        match error {
            SplitError::Write(error) => error,
            SplitError::Arrow(_) => TaskError::new(ErrorClass::Data, error.to_string()),
        }
    }
}

//! The staging of a chunk's files, and the sinks that need no more: one file, or none.

use std::{
    collections::{BTreeSet, HashSet},
    path::PathBuf,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use gapless_common::error::TaskError;

use super::{
    ChunkSink, SealedChunk, StagedFile,
    format::{Format, FormatFile},
};
use crate::storage::{ChunkName, DurableFile, FirstUnit, StepFolders, create_folder};

/// Makes the files of one chunk in the staging folder of its step, and remembers what must be
/// made durable.
pub(crate) struct Staging {
    folders: StepFolders,
    chunk: ChunkName,
    /// The first unit of a chunk of a sorted output.
    low: Option<FirstUnit>,
    /// Whether the chunk has several files in one folder.
    is_cut: bool,
    format: Format,
    /// Hive folders that exist, relative.
    made: HashSet<String>,
    sync: BTreeSet<PathBuf>,
    sealed: Vec<StagedFile>,
}

impl Staging {
    pub fn new(folders: StepFolders, chunk: ChunkName, low: Option<FirstUnit>, format: Format) -> Self {
        Self {
            folders,
            chunk,
            low,
            is_cut: false,
            format,
            made: HashSet::new(),
            sync: BTreeSet::new(),
            sealed: Vec::new(),
        }
    }

    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Creates the file of this chunk in `hive` (empty, or `col=value/…` without a last slash);
    /// `further` counts the files that the chunk has made there before. Returns its final name.
    pub fn create(&mut self, hive: &str, further: u32) -> Result<(String, DurableFile), TaskError> {
        self.make_folders(hive)?;
        let slash = if hive.is_empty() { "" } else { "/" };
        let name = match self.low {
            Some(low) if hive.is_empty() && !self.is_cut => self.chunk.in_order(low),
            // A folder's files hold its rows in the order of their numbers.
            Some(low) => format!("{}-{further:05}", self.chunk.in_order(low)),
            None if further == 0 => self.chunk.to_string(),
            None => format!("{}-f{further}", self.chunk),
        };
        let rel = format!("{hive}{slash}{name}.{}", self.format.extension());
        let file = DurableFile::create(self.folders.data_file(&rel))?;
        Ok((rel, file))
    }

    /// `open`: how many files of the chunk are open, this one among them.
    pub fn begin(
        &mut self,
        hive: &str,
        further: u32,
        schema: SchemaRef,
        first: Option<&RecordBatch>,
        open: usize,
    ) -> Result<OpenFile, TaskError> {
        let (rel, file) = self.create(hive, further)?;
        Ok(OpenFile {
            rel,
            rows: 0,
            file: self.format.begin(file, schema, first, open)?,
        })
    }

    pub fn seal(&mut self, open: OpenFile) -> Result<(), TaskError> {
        let multiline = open.file.is_multiline();
        let file = open.file.close()?;
        self.add_text(open.rel, open.rows, multiline, file);
        Ok(())
    }

    pub fn add(&mut self, rel: String, rows: u64, file: DurableFile) {
        self.add_text(rel, rows, false, file);
    }

    /// `multiline`: whether a field holds a line end.
    pub fn add_text(&mut self, path: String, rows: u64, multiline: bool, file: DurableFile) {
        self.sealed.push(StagedFile {
            path,
            rows,
            multiline,
            file: file.seal(),
        });
    }

    pub fn into_sealed(self) -> SealedChunk {
        SealedChunk {
            files: self.sealed,
            folders: self.sync,
        }
    }

    /// Creates the folders of `hive` below the staged data, never that folder itself: a step that
    /// is settled must not be staged again.
    fn make_folders(&mut self, hive: &str) -> Result<(), TaskError> {
        let data = self.folders.data();
        self.sync.insert(data.clone());
        if hive.is_empty() || self.made.contains(hive) {
            return Ok(());
        }
        let mut path = data;
        for part in hive.split('/') {
            path.push(part);
            create_folder(&path)?;
            self.sync.insert(path.clone());
        }
        self.made.insert(hive.to_string());
        Ok(())
    }
}

/// A file that is being written.
pub(crate) struct OpenFile {
    pub rel: String,
    pub rows: u64,
    pub file: FormatFile,
}

impl OpenFile {
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        self.rows += batch.num_rows() as u64;
        self.file.write(batch)
    }
}

/// One file for the chunk, made when the first row comes.
pub(super) struct PlainSink {
    staging: Staging,
    schema: SchemaRef,
    open: Option<OpenFile>,
    /// Whether a file is made even without rows, so that an empty output has its schema.
    ensure_file: bool,
    /// Rows of a file; `None` for all in one.
    most_rows: Option<u64>,
    /// Files that are full.
    full: u32,
}

impl PlainSink {
    pub fn new(mut staging: Staging, schema: SchemaRef, ensure_file: bool, most_rows: Option<u64>) -> Self {
        staging.is_cut = most_rows.is_some();
        Self {
            most_rows,
            full: 0,
            staging,
            schema,
            open: None,
            ensure_file,
        }
    }

    fn begin(&mut self, first: Option<&RecordBatch>) -> Result<OpenFile, TaskError> {
        self.staging.begin("", self.full, self.schema.clone(), first, 1)
    }
}

impl ChunkSink for PlainSink {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        let mut rest = batch.clone();
        while rest.num_rows() > 0 {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.begin(Some(&rest))?,
            };
            let free = self.most_rows.map_or(u64::MAX, |most| most - open.rows);
            let taken = rest.num_rows().min(usize::try_from(free).unwrap_or(usize::MAX));
            open.write(&rest.slice(0, taken))?;
            rest = rest.slice(taken, rest.num_rows() - taken);
            if Some(open.rows) == self.most_rows {
                self.staging.seal(open)?;
                self.full += 1;
            } else {
                self.open = Some(open);
            }
        }
        Ok(())
    }

    fn seal(mut self: Box<Self>) -> Result<SealedChunk, TaskError> {
        let open = match self.open.take() {
            None if self.ensure_file && self.full == 0 => Some(self.begin(None)?),
            open => open,
        };
        if let Some(open) = open {
            self.staging.seal(open)?;
        }
        Ok(self.staging.into_sealed())
    }
}

/// Takes rows and keeps none; whoever writes counts them.
pub(super) struct DiscardSink;

impl ChunkSink for DiscardSink {
    fn write(&mut self, _batch: &RecordBatch) -> Result<(), TaskError> {
        Ok(())
    }

    fn seal(self: Box<Self>) -> Result<SealedChunk, TaskError> {
        Ok(SealedChunk::default())
    }
}

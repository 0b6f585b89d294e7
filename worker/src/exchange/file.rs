//! One exchange file: written block by block, read by its index. Indexes are read once per process.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use arrow::{datatypes::SchemaRef, error::ArrowError};
use gapless_common::error::{ErrorClass, TaskError};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    durable::StagedFile,
    layout::{Footer, MAGIC, TAIL, decode_tail},
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

/// An exchange file is gone or cannot be read; it may come back (shared storage).
pub(super) fn unreadable(path: &Path, error: std::io::Error) -> TaskError {
    let message = format!("cannot read the exchange file {}: {error}", path.display());
    TaskError::new(ErrorClass::Transient, message)
}

/// An exchange file is not what was written.
pub(super) fn damaged(path: &Path, words: impl std::fmt::Display) -> TaskError {
    let path = path.display();
    let message = format!("exchange file {path} is damaged: {words}; restart the run to scatter its source again");
    TaskError::new(ErrorClass::Data, message)
}

/// Bytes read at first from the end of a file: holds the index of 1,000 buckets and more.
const FIRST_READ: u64 = 32 * 1024;

fn read_footer(path: &Path, file: &File, size: u64) -> Result<Footer, TaskError> {
    let first = FIRST_READ.min(size);
    let mut end = vec![0; first as usize];
    file.read_exact_at(&mut end, size - first)
        .map_err(|error| unreadable(path, error))?;
    let Some(tail) = end.len().checked_sub(TAIL) else {
        return Err(damaged(path, format!("it has {size} bytes")));
    };
    let (length, hash) = decode_tail(&end[tail..]).map_err(|words| damaged(path, words))?;
    let longer;
    let footer = if length <= tail {
        &end[tail - length..tail]
    } else {
        let Some(start) = size.checked_sub((TAIL + length) as u64) else {
            return Err(damaged(path, format!("it has {size} bytes")));
        };
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, start)
            .map_err(|error| unreadable(path, error))?;
        longer = bytes;
        &longer
    };
    if xxh3_64(footer) != hash {
        return Err(damaged(path, "its index does not have its checksum"));
    }
    Footer::decode(footer).map_err(|words| damaged(path, words))
}

/// The index of a file. Files never change under their name, but scratch folders come and go, so a
/// cached index counts only for a file of the same inode, size and time.
pub(super) fn footer_of(path: &Path) -> Result<Arc<Footer>, TaskError> {
    let file = File::open(path).map_err(|error| unreadable(path, error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, error))?;
    let seen = Seen {
        inode: metadata.ino(),
        size: metadata.size(),
        nanos: metadata.mtime_nsec(),
        time: metadata.mtime(),
    };
    let cache = CACHE.get_or_init(Mutex::default);
    let lock = || cache.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(footer) = lock().get(path, seen) {
        return Ok(footer);
    }
    let footer = Arc::new(read_footer(path, &file, metadata.len())?);
    lock().insert(path, seen, footer.clone());
    Ok(footer)
}

/// Memory for indexes: those of 10,000 files of 256 buckets.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

static CACHE: OnceLock<Mutex<FooterCache>> = OnceLock::new();

#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    size: u64,
    time: i64,
    nanos: i64,
}

#[derive(Default)]
struct FooterCache {
    footers: HashMap<PathBuf, (Seen, Arc<Footer>)>,
    /// Oldest first.
    order: VecDeque<PathBuf>,
    bytes: usize,
}

impl FooterCache {
    fn get(&self, path: &Path, seen: Seen) -> Option<Arc<Footer>> {
        self.footers
            .get(path)
            .filter(|(then, _)| *then == seen)
            .map(|(_, footer)| footer.clone())
    }

    fn insert(&mut self, path: &Path, seen: Seen, footer: Arc<Footer>) {
        self.bytes += footer.memory();
        match self.footers.insert(path.to_path_buf(), (seen, footer)) {
            Some((_, former)) => self.bytes -= former.memory(),
            None => self.order.push_back(path.to_path_buf()),
        }
        while self.bytes > CACHE_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some((_, footer)) = self.footers.remove(&oldest) {
                self.bytes -= footer.memory();
            }
        }
    }
}

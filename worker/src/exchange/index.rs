//! The indexes of exchange files, each read once per process, wherever the files lie.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io,
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use gapless_common::error::{ErrorClass, TaskError};
use gapless_platform::objects::{Bucket, Found, ObjectError, Pending, Trouble};
use xxhash_rust::xxh3::xxh3_64;

use super::layout::{Footer, TAIL, decode_tail};
use crate::storage::{object, object_error};

/// Bytes read at first from the end of a file: holds the index of 1,000 buckets and more.
const FIRST_READ: u64 = 32 * 1024;

/// Indexes of objects that are asked for before they are needed: each costs the time of two requests.
const AHEAD: usize = 16;

/// Memory for indexes: those of 10,000 files of 256 buckets.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// An exchange file is gone or cannot be read; it may come back (shared storage).
pub(super) fn unreadable(path: &Path, error: io::Error) -> TaskError {
    let message = format!("cannot read the exchange file {}: {error}", path.display());
    TaskError::new(ErrorClass::Transient, message)
}

/// As [`unreadable`]; a permission or a bucket that is missing will not come back by itself.
pub(super) fn unreadable_object(path: &Path, error: ObjectError) -> TaskError {
    match error.trouble {
        Trouble::NotFound | Trouble::Changed => unreadable(path, error.into()),
        _ => object_error("read the exchange file", &error),
    }
}

/// An exchange file is not what was written.
pub(super) fn damaged(path: &Path, words: impl std::fmt::Display) -> TaskError {
    let path = path.display();
    let message = format!("exchange file {path} is damaged: {words}; restart the run to scatter its source again");
    TaskError::new(ErrorClass::Data, message)
}

/// The index of a file, and where to read what it speaks of.
#[derive(Clone)]
pub(super) struct Indexed {
    pub(super) footer: Arc<Footer>,
    /// `None` for a file of the file system.
    pub(super) object: Option<Arc<ExchangeObject>>,
}

/// An exchange file in an object store, of the etag that it had when its index was read.
pub(super) struct ExchangeObject {
    bucket: Bucket,
    found: Found,
}

impl ExchangeObject {
    pub(super) fn fetch(&self, range: Range<u64>) -> Pending<Bytes> {
        self.bucket.fetch(&self.found.key, &self.found.etag, range)
    }
}

/// The indexes of files, in their order. Those of objects are fetched some files ahead.
pub(super) struct Indexes<'a> {
    files: std::slice::Iter<'a, PathBuf>,
    begun: VecDeque<(&'a Path, Begun)>,
}

enum Begun {
    Local,
    Known(Indexed),
    Coming(Bucket, Pending<(Found, Bytes)>),
    Failed(TaskError),
}

impl<'a> Indexes<'a> {
    pub(super) fn of(files: &'a [PathBuf]) -> Self {
        Self {
            files: files.iter(),
            begun: VecDeque::new(),
        }
    }
}

impl<'a> Iterator for Indexes<'a> {
    type Item = Result<(&'a Path, Indexed), TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.begun.len() < AHEAD
            && let Some(path) = self.files.next()
        {
            self.begun.push_back((path, begin(path)));
        }
        let (path, begun) = self.begun.pop_front()?;
        let indexed = match begun {
            Begun::Local => local(path),
            Begun::Known(indexed) => Ok(indexed),
            Begun::Coming(bucket, tail) => arrived(path, bucket, tail),
            Begun::Failed(error) => Err(error),
        };
        Some(indexed.map(|indexed| (path, indexed)))
    }
}

fn begin(path: &Path) -> Begun {
    match object(path) {
        Ok(None) => Begun::Local,
        // An object never changes under its name, which carries run and attempt; each read names its etag.
        Ok(Some((bucket, key))) => match cache().get(path, Seen::Object) {
            Some(indexed) => Begun::Known(indexed),
            None => {
                let tail = bucket.tail(&key, FIRST_READ);
                Begun::Coming(bucket, tail)
            }
        },
        Err(error) => Begun::Failed(unreadable_object(path, error)),
    }
}

fn arrived(path: &Path, bucket: Bucket, tail: Pending<(Found, Bytes)>) -> Result<Indexed, TaskError> {
    let (found, end) = tail.wait().map_err(|error| unreadable_object(path, error))?;
    let size = found.size;
    let object = Arc::new(ExchangeObject { bucket, found });
    let footer = read_footer(path, &end, size, |range| {
        let rest = object.fetch(range).wait();
        rest.map(Vec::from).map_err(|error| unreadable_object(path, error))
    })?;
    let indexed = Indexed {
        footer: Arc::new(footer),
        object: Some(object),
    };
    cache().insert(path, Seen::Object, indexed.clone());
    Ok(indexed)
}

/// The index of a file of the file system. Files never change under their name, but scratch folders come and
/// go, so a cached index counts only for a file of the same inode, size and time.
fn local(path: &Path) -> Result<Indexed, TaskError> {
    let unreadable = |error| unreadable(path, error);
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let seen = Seen::File {
        inode: metadata.ino(),
        size: metadata.size(),
        nanos: metadata.mtime_nsec(),
        time: metadata.mtime(),
    };
    if let Some(indexed) = cache().get(path, seen) {
        return Ok(indexed);
    }
    let read = |range: Range<u64>| {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start).map_err(unreadable)?;
        Ok(bytes)
    };
    let size = metadata.len();
    let end = read(size.saturating_sub(FIRST_READ)..size)?;
    let indexed = Indexed {
        footer: Arc::new(read_footer(path, &end, size, read)?),
        object: None,
    };
    cache().insert(path, seen, indexed.clone());
    Ok(indexed)
}

/// Reads the index out of the end of a file, or out of more of it, which is asked for then.
fn read_footer(
    path: &Path,
    end: &[u8],
    size: u64,
    read: impl Fn(Range<u64>) -> Result<Vec<u8>, TaskError>,
) -> Result<Footer, TaskError> {
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
        longer = read(start..start + length as u64)?;
        &longer
    };
    if xxh3_64(footer) != hash {
        return Err(damaged(path, "its index does not have its checksum"));
    }
    Footer::decode(footer).map_err(|words| damaged(path, words))
}

static CACHE: OnceLock<Mutex<IndexCache>> = OnceLock::new();

fn cache() -> std::sync::MutexGuard<'static, IndexCache> {
    let cache = CACHE.get_or_init(Mutex::default);
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    File {
        inode: u64,
        size: u64,
        time: i64,
        nanos: i64,
    },
    Object,
}

#[derive(Default)]
struct IndexCache {
    indexes: HashMap<PathBuf, (Seen, Indexed)>,
    /// Oldest first.
    order: VecDeque<PathBuf>,
    bytes: usize,
}

impl IndexCache {
    fn get(&self, path: &Path, seen: Seen) -> Option<Indexed> {
        self.indexes
            .get(path)
            .filter(|(then, _)| *then == seen)
            .map(|(_, indexed)| indexed.clone())
    }

    fn insert(&mut self, path: &Path, seen: Seen, indexed: Indexed) {
        self.bytes += indexed.footer.memory();
        match self.indexes.insert(path.to_path_buf(), (seen, indexed)) {
            Some((_, former)) => self.bytes -= former.footer.memory(),
            None => self.order.push_back(path.to_path_buf()),
        }
        while self.bytes > CACHE_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some((_, indexed)) = self.indexes.remove(&oldest) {
                self.bytes -= indexed.footer.memory();
            }
        }
    }
}

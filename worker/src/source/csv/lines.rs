//! Line numbers, found only when a record is rejected.
//!
//! A reader that starts in the middle of a file knows how many lines it has passed, but not how many
//! stand before its start. These are counted once and remembered for the file, together with what
//! other readers of this process have counted on their way, so that a thousand rejects in a hundred
//! ranges do not read the file a thousand times.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError},
};

use crate::storage::StoredFile;

/// Files whose counts are remembered; the one unused for longest goes first.
const MAX_FILES: usize = 64;

/// Stretches remembered for one file: more readers than this in one process recount a little.
const MAX_STRETCHES: usize = 4096;

const READ: usize = 512 * 1024;

/// Newlines of stretches of one file: start → (end, newlines in between).
#[derive(Default)]
struct Stretches(BTreeMap<u64, (u64, u64)>);

/// Newest last. Keyed by path and etag, so a changed file starts afresh.
type Known = VecDeque<((PathBuf, String), Arc<Mutex<Stretches>>)>;

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

fn known(path: &PathBuf, etag: &str) -> Arc<Mutex<Stretches>> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let at = known.iter().position(|((p, e), _)| p == path && e == etag);
    let entry = match at.and_then(|at| known.remove(at)) {
        Some(entry) => entry,
        None => ((path.clone(), etag.to_string()), Arc::default()),
    };
    let stretches = entry.1.clone();
    known.push_back(entry);
    if known.len() > MAX_FILES {
        known.pop_front();
    }
    stretches
}

/// Where a reader started in its file, and, once somebody asks, which line that is.
pub(in crate::source) struct LineBase {
    path: PathBuf,
    start: u64,
    /// `None` for readers that begin at the first byte (and for compressed files, which do).
    stretches: Option<Arc<Mutex<Stretches>>>,
    before: OnceLock<u64>,
}

impl LineBase {
    pub fn new(path: PathBuf, etag: &str, start: u64) -> Self {
        let stretches = Some(known(&path, etag));
        Self {
            path,
            start,
            stretches,
            before: OnceLock::new(),
        }
    }

    /// For a reader that has passed `newlines` newlines from the beginning of its file.
    pub fn known(newlines: u64) -> Self {
        Self {
            path: PathBuf::new(),
            start: 0,
            stretches: None,
            before: OnceLock::from(newlines),
        }
    }

    /// Tells that this reader counted `newlines` from its start up to `end`.
    pub fn passed(&self, end: u64, newlines: u64) {
        if let Some(stretches) = &self.stretches {
            let mut stretches = stretches.lock().unwrap_or_else(PoisonError::into_inner);
            stretches.learn(self.start, end, newlines);
        }
    }

    /// Newlines before the reader's start; `None` when the file cannot be read any more.
    pub fn newlines_before(&self) -> Option<u64> {
        if let Some(&before) = self.before.get() {
            return Some(before);
        }
        let stretches = self.stretches.as_ref()?;
        let before = stretches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .count(&self.path, self.start)
            .ok()?;
        Some(*self.before.get_or_init(|| before))
    }
}

impl Stretches {
    fn learn(&mut self, start: u64, end: u64, newlines: u64) {
        if start < end && (self.0.len() < MAX_STRETCHES || self.0.contains_key(&start)) {
            self.0.insert(start, (end, newlines));
        }
    }

    /// Newlines in `[0, to)`, from memory where a stretch lies wholly below `to`.
    fn count(&mut self, path: &Path, to: u64) -> io::Result<u64> {
        let mut file = None;
        let (mut at, mut total) = (0, 0);
        while at < to {
            if let Some(&(end, newlines)) = self.0.get(&at).filter(|(end, _)| *end <= to) {
                total += newlines;
                at = end;
                continue;
            }
            // Up to the next stretch that can be used.
            let next = self
                .0
                .range(at + 1..to)
                .find(|(_, (end, _))| *end <= to)
                .map_or(to, |(&start, _)| start);
            let file = match &mut file {
                Some(file) => file,
                none => none.insert(StoredFile::open(path)?),
            };
            let newlines = count_newlines(file, at, next)?;
            self.learn(at, next, newlines);
            total += newlines;
            at = next;
        }
        Ok(total)
    }
}

fn count_newlines(file: &StoredFile, mut from: u64, to: u64) -> io::Result<u64> {
    let mut buffer = vec![0; READ.min((to - from) as usize)];
    let mut total = 0;
    while from < to {
        let want = buffer.len().min((to - from) as usize);
        let got = file.read_at(&mut buffer[..want], from)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        total += memchr::memchr_iter(b'\n', &buffer[..got]).count() as u64;
        from += got as u64;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_use_what_is_known_and_fill_the_holes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "a\nb\nc\nd\ne\n").unwrap();
        let base = |start| LineBase::new(path.clone(), "1", start);
        assert_eq!(base(0).newlines_before(), Some(0));
        // A stretch that claims more than the truth shows that it is used.
        base(2).passed(6, 100);
        assert_eq!(base(8).newlines_before(), Some(1 + 100 + 1));
        // It reaches beyond 4, so it is of no use there.
        assert_eq!(base(4).newlines_before(), Some(2));
        assert_eq!(LineBase::new(path.clone(), "2", 8).newlines_before(), Some(4));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(LineBase::new(path.clone(), "3", 8).newlines_before(), None);
    }
}

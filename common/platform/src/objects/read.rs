//! Reading one object as if it were a file: by offset, with the next stretch on its way.

use std::{
    fmt, io,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use super::{Bucket, Found, ObjectError, Pending};

/// Bytes that small reads are served from. One request costs some 20 ms whatever it brings, so that at
/// this size a connection of 100 MB/s loses a third to it; the next block, fetched meanwhile, hides that.
const BLOCK: u64 = 4 << 20;

/// The least that is asked for: a header, a footer or the end of a line is often all that is wanted.
const LOOK: u64 = 64 << 10;

/// By so much a request is larger than the one before that it follows.
const GROWTH: u64 = 8;

/// An object of a known size and etag. Every request names the etag: an object that was replaced is
/// told, not read. Holds at most two blocks.
pub struct ObjectFile {
    bucket: Bucket,
    found: Found,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    block: Option<(u64, Bytes)>,
    /// The block that is on its way, and where it begins.
    ahead: Option<(u64, Pending<Bytes>)>,
}

impl fmt::Debug for ObjectFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectFile({})", self.bucket.url(&self.found.key))
    }
}

impl ObjectFile {
    pub fn new(bucket: Bucket, found: Found) -> ObjectFile {
        ObjectFile {
            bucket,
            found,
            state: Mutex::default(),
        }
    }

    pub fn len(&self) -> u64 {
        self.found.size
    }

    pub fn is_empty(&self) -> bool {
        self.found.size == 0
    }

    /// As `FileExt::read_at`: at least one byte, unless the object ends at `at`.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let size = self.found.size;
        if buffer.is_empty() || at >= size {
            return Ok(0);
        }
        let wanted = (buffer.len() as u64).min(size - at);
        if wanted >= BLOCK {
            let bytes = self.fetch(at..at + wanted).wait()?;
            return self.take(buffer, &bytes, 0);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |start: u64, len: u64| start <= at && at < start + len;
        if !state
            .block
            .as_ref()
            .is_some_and(|(start, bytes)| holds(*start, bytes.len() as u64))
        {
            // Whoever reads on gets more at once, and the next stretch ahead; a single look costs little.
            let last = state.block.take();
            let followed = last
                .filter(|(start, bytes)| start + bytes.len() as u64 == at)
                .map(|(_, bytes)| bytes.len() as u64);
            let ahead = state.ahead.take();
            let (start, bytes) = match ahead {
                Some((start, pending)) if start == at => (start, pending.wait()?),
                _ => {
                    let len = followed.map_or(wanted.max(LOOK), |len| (len * GROWTH).clamp(LOOK, BLOCK).max(wanted));
                    (at, self.fetch(at..(at + len).min(size)).wait()?)
                }
            };
            let next = start + bytes.len() as u64;
            if followed.is_some() && next < size {
                state.ahead = Some((next, self.fetch(next..(next + BLOCK).min(size))));
            }
            state.block = Some((start, bytes));
        }
        match &state.block {
            Some((start, bytes)) => self.take(buffer, bytes, (at - start) as usize),
            None => Ok(0),
        }
    }

    fn fetch(&self, range: Range<u64>) -> Pending<Bytes> {
        self.bucket.fetch(&self.found.key, &self.found.etag, range)
    }

    fn take(&self, buffer: &mut [u8], bytes: &Bytes, from: usize) -> io::Result<usize> {
        let have = bytes.get(from..).unwrap_or_default();
        if have.is_empty() {
            let url = self.bucket.url(&self.found.key);
            let short = ObjectError::new(super::Trouble::Passing, url, "the store sent less than it has");
            return Err(short.into());
        }
        let got = have.len().min(buffer.len());
        buffer[..got].copy_from_slice(&have[..got]);
        Ok(got)
    }
}

//! The text of a file, in UTF-8 and by offset, however it is packed. A packed file whose layout has a trailer is gone
//! through once for its end, where the trailer stands, and once more for its records.

use std::{
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
};

use gapless_common::{
    error::TaskError,
    job::{Encoding, Packing},
};

use crate::{
    source::{
        csv::{
            Codec, MAX_RECORD, codec_of,
            input::{check_magic, unpacked},
            layout::decode_error,
        },
        pins::{config, data, io_error},
    },
    storage::StoredFile,
};

/// Unpacked at once.
const PIECE: usize = 256 * 1024;

/// Kept of the end of a packed file: trailers are shorter, and a longer one is read by going through the file again.
const TAIL: usize = 64 * 1024;

/// Whether a file can only be read from its beginning.
pub(crate) fn is_packed(packing: Packing, path: &str) -> Result<bool, TaskError> {
    Ok(packing.encoding != Encoding::Utf8 || codec_of(packing.compression, path)? != Codec::Plain)
}

pub(crate) struct Content {
    pub path: String,
    /// Bytes of the text; `u64::MAX` as long as nobody has gone through a packed file.
    pub size: u64,
    kind: Kind,
}

enum Kind {
    Plain(StoredFile),
    Packed(Mutex<Packed>),
}

struct Packed {
    file: Arc<StoredFile>,
    path: String,
    codec: Codec,
    encoding: Encoding,
    stream: Option<Box<dyn Read + Send>>,
    /// What was unpacked of the text, from `start` on, up to where `stream` stands.
    start: u64,
    window: Vec<u8>,
    /// The end of the text, once it was gone through.
    tail: (u64, Vec<u8>),
    /// While it is gone through: how far, and where the last line begins.
    passing: Option<(u64, u64)>,
    /// Bytes that were unpacked of it, each time anew.
    unpacked: u64,
}

impl Content {
    /// Opens a file of `size` bytes.
    ///
    /// Errors: `Config` for one that is not packed as it should be, `Data` for one that is damaged.
    pub fn open(file: StoredFile, path: &str, size: u64, packing: Packing) -> Result<Content, TaskError> {
        let path = path.to_string();
        if !is_packed(packing, &path)? {
            let kind = Kind::Plain(file);
            return Ok(Content { path, size, kind });
        }
        let codec = codec_of(packing.compression, &path)?;
        check_magic(codec, &path, &file)?;
        let packed = Packed {
            file: Arc::new(file),
            path: path.clone(),
            codec,
            encoding: packing.encoding,
            stream: None,
            start: 0,
            window: Vec::new(),
            tail: (0, Vec::new()),
            passing: None,
            unpacked: 0,
        };
        let kind = Kind::Packed(Mutex::new(packed));
        let size = u64::MAX;
        Ok(Content { path, size, kind })
    }

    /// Goes through some `most` bytes more to find the end of the text, before anything is read of it; `true` once
    /// `size` is known.
    ///
    /// Errors: `Data` for a file that is damaged or whose lines have no end.
    pub fn pass_on(&mut self, most: u64) -> Result<bool, TaskError> {
        if self.size == u64::MAX
            && let Kind::Packed(packed) = &mut self.kind
        {
            let packed = packed.get_mut().unwrap_or_else(PoisonError::into_inner);
            self.size = packed.pass_on(most)?.unwrap_or(u64::MAX);
        }
        Ok(self.size != u64::MAX)
    }

    /// Bytes that were unpacked so far; none of a file that is not packed.
    pub fn unpacked(&self) -> u64 {
        match &self.kind {
            Kind::Plain(_) => 0,
            Kind::Packed(packed) => packed.lock().unwrap_or_else(PoisonError::into_inner).unpacked,
        }
    }

    pub fn is_packed(&self) -> bool {
        matches!(self.kind, Kind::Packed(_))
    }

    /// Fills the buffer with what stands at `at`.
    pub fn read(&self, buffer: &mut [u8], at: u64) -> Result<(), TaskError> {
        match self.read_some(buffer, at)? == buffer.len() {
            true => Ok(()),
            false => Err(shorter(&self.path)),
        }
    }

    /// Fills the buffer with what stands at `at`, and tells how much that is: less than all where the text ends, as far
    /// as its size is not known.
    pub fn read_some(&self, buffer: &mut [u8], at: u64) -> Result<usize, TaskError> {
        match &self.kind {
            Kind::Plain(file) => match file.read_exact_at(buffer, at) {
                Ok(()) => Ok(buffer.len()),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(shorter(&self.path)),
                Err(error) => Err(io_error(&self.path, "reading", &error)),
            },
            Kind::Packed(packed) => packed.lock().unwrap_or_else(PoisonError::into_inner).read(buffer, at),
        }
    }
}

fn shorter(path: &str) -> TaskError {
    config(format!("{path}: changed after planning: it has become shorter"))
}

/// Reads an open file on, by offset.
struct ReadOn {
    file: Arc<StoredFile>,
    at: u64,
}

impl Read for ReadOn {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(buffer, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl Packed {
    fn begin(&mut self) -> Result<(), TaskError> {
        let file = Box::new(ReadOn {
            file: self.file.clone(),
            at: 0,
        });
        self.stream = Some(unpacked(self.codec, self.encoding, &self.path, file)?);
        self.start = 0;
        self.window.clear();
        Ok(())
    }

    /// Adds a piece to the window; `false` at the end.
    fn more(&mut self) -> Result<bool, TaskError> {
        let Some(stream) = &mut self.stream else {
            return Ok(false);
        };
        let before = self.window.len();
        let read = stream.take(PIECE as u64).read_to_end(&mut self.window);
        self.unpacked += read.map_err(|error| decode_error(&self.path, &error))? as u64;
        Ok(self.window.len() > before)
    }

    fn pass_to(&mut self, at: u64) {
        let passed = usize::try_from(at - self.start)
            .unwrap_or(usize::MAX)
            .min(self.window.len());
        self.window.drain(..passed);
        self.start += passed as u64;
    }

    /// Bytes of the text, once its end is reached. A line without end stops it, since what a file unpacks to may be
    /// without bounds.
    fn pass_on(&mut self, most: u64) -> Result<Option<u64>, TaskError> {
        if self.passing.is_none() {
            self.begin()?;
        }
        let (mut seen, mut line) = self.passing.unwrap_or_default();
        let until = seen.saturating_add(most);
        while seen < until {
            if !self.more()? {
                self.tail = (self.start, std::mem::take(&mut self.window));
                self.stream = None;
                return Ok(Some(seen));
            }
            let end = self.start + self.window.len() as u64;
            let new = &self.window[(seen - self.start) as usize..];
            if let Some(last) = memchr::memrchr(b'\n', new) {
                line = seen + last as u64 + 1;
            }
            if end - line > MAX_RECORD as u64 {
                return Err(data(format!(
                    "{}: the line at byte {line} of its text has no end within {MAX_RECORD} bytes; this is no file of lines, \
                     or a line end other than LF or CRLF is used",
                    self.path
                )));
            }
            seen = end;
            self.passing = Some((seen, line));
            self.pass_to(end.saturating_sub(TAIL as u64).max(self.start));
        }
        Ok(None)
    }

    fn read(&mut self, buffer: &mut [u8], at: u64) -> Result<usize, TaskError> {
        let end = at + buffer.len() as u64;
        let (tail, bytes) = &self.tail;
        // What is on its way stays where it is.
        if at >= *tail && end <= tail + bytes.len() as u64 {
            let from = (at - tail) as usize;
            buffer.copy_from_slice(&bytes[from..from + buffer.len()]);
            return Ok(buffer.len());
        }
        if self.stream.is_none() || at < self.start {
            self.begin()?;
        }
        loop {
            self.pass_to(at.max(self.start));
            let is_there = self.start == at && self.window.len() >= buffer.len();
            if is_there || !self.more()? {
                let got = match self.start == at {
                    true => self.window.len().min(buffer.len()),
                    false => 0,
                };
                buffer[..got].copy_from_slice(&self.window[..got]);
                return Ok(got);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_common::job::Compression;

    #[test]
    fn packed_text_is_read_at_any_place() {
        let text: String = (0..200_000).map(|n| format!("{n} größer\n")).collect();
        let latin: Vec<u8> = text.chars().map(|c| c as u8).collect();
        let packed = zstd::encode_all(&latin[..], 1).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.zst");
        std::fs::write(&path, &packed).unwrap();
        let packing = Packing {
            compression: Compression::Auto,
            encoding: Encoding::Latin1,
        };
        let file = StoredFile::open(&path).unwrap();
        let mut content = Content::open(file, "a.zst", packed.len() as u64, packing).unwrap();
        while !content.pass_on(1 << 20).unwrap() {}
        assert_eq!(content.size, text.len() as u64);
        let check = |at: usize, len: usize| {
            let mut buffer = vec![0; len];
            content.read(&mut buffer, at as u64).unwrap();
            assert!(buffer == text.as_bytes()[at..at + len], "{len} bytes at {at}");
        };
        let size = text.len();
        // The end first, then on from the beginning, a little back, and the end once more.
        for (at, len) in [
            (size - 10, 10),
            (0, 100),
            (50, 600_000),
            (600_000, 900_000),
            (1_000, 1),
            (size - 100_000, 100_000),
        ] {
            check(at, len);
        }
        assert!(content.read(&mut [0; 11], size as u64 - 10).is_err());
    }

    /// Once for its end and once for its records, whatever else is looked at; once alone where the end is not asked for.
    #[test]
    fn packed_text_is_unpacked_no_more_often_than_said() {
        let text: String = (0..200_000).map(|n| format!("record {n}\n")).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.zst");
        std::fs::write(&path, zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
        let packing = Packing {
            compression: Compression::Auto,
            encoding: Encoding::Utf8,
        };
        for with_end in [true, false] {
            let file = StoredFile::open(&path).unwrap();
            let mut content = Content::open(file, "a.zst", 0, packing).unwrap();
            while with_end && !content.pass_on(1 << 20).unwrap() {}
            let mut buffer = vec![0; 4096];
            content.read(&mut buffer[..3], 0).unwrap();
            if with_end {
                content.read(&mut buffer, text.len() as u64 - 4096).unwrap();
            }
            let mut at = 0;
            loop {
                let got = content.read_some(&mut buffer, at as u64).unwrap();
                assert!(buffer[..got] == text.as_bytes()[at..at + got]);
                at += got;
                if got < buffer.len() {
                    break;
                }
            }
            assert_eq!(at, text.len());
            let times = 1 + u64::from(with_end);
            assert_eq!(content.unpacked(), times * text.len() as u64);
        }
    }
}

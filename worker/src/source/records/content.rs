//! The text of a file, in UTF-8 and by offset, however it is packed. A packed file is gone through once for its
//! length and its end, where a trailer may stand, and once more for its records.

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
    /// Bytes of the text.
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
    /// The end of the text.
    tail: (u64, Vec<u8>),
}

impl Content {
    /// Opens a file of `size` bytes.
    ///
    /// Errors: `Config` for one that is not packed as it should be, `Data` for one that is damaged or whose lines have
    /// no end.
    pub fn open(file: StoredFile, path: &str, size: u64, packing: Packing) -> Result<Content, TaskError> {
        let path = path.to_string();
        if !is_packed(packing, &path)? {
            let kind = Kind::Plain(file);
            return Ok(Content { path, size, kind });
        }
        let codec = codec_of(packing.compression, &path)?;
        check_magic(codec, &path, &file)?;
        let mut packed = Packed {
            file: Arc::new(file),
            path: path.clone(),
            codec,
            encoding: packing.encoding,
            stream: None,
            start: 0,
            window: Vec::new(),
            tail: (0, Vec::new()),
        };
        let size = packed.go_through()?;
        let kind = Kind::Packed(Mutex::new(packed));
        Ok(Content { path, size, kind })
    }

    pub fn is_packed(&self) -> bool {
        matches!(self.kind, Kind::Packed(_))
    }

    /// Fills the buffer with what stands at `at`.
    pub fn read(&self, buffer: &mut [u8], at: u64) -> Result<(), TaskError> {
        match &self.kind {
            Kind::Plain(file) => file.read_exact_at(buffer, at).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => shorter(&self.path),
                _ => io_error(&self.path, "reading", &error),
            }),
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
        read.map_err(|error| decode_error(&self.path, &error))?;
        Ok(self.window.len() > before)
    }

    fn pass_to(&mut self, at: u64) {
        let passed = usize::try_from(at - self.start)
            .unwrap_or(usize::MAX)
            .min(self.window.len());
        self.window.drain(..passed);
        self.start += passed as u64;
    }

    /// Bytes of the text. A line without end stops it, since what a file unpacks to may be without bounds.
    fn go_through(&mut self) -> Result<u64, TaskError> {
        self.begin()?;
        let mut line = 0;
        let mut seen = 0;
        while self.more()? {
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
            self.pass_to(end.saturating_sub(TAIL as u64).max(self.start));
        }
        self.tail = (self.start, std::mem::take(&mut self.window));
        self.stream = None;
        Ok(seen)
    }

    fn read(&mut self, buffer: &mut [u8], at: u64) -> Result<(), TaskError> {
        let end = at + buffer.len() as u64;
        let (tail, bytes) = &self.tail;
        // Before the records are read: what is on its way stays where it is.
        if self.stream.is_none() && at >= *tail && end <= tail + bytes.len() as u64 {
            let from = (at - tail) as usize;
            buffer.copy_from_slice(&bytes[from..from + buffer.len()]);
            return Ok(());
        }
        if self.stream.is_none() || at < self.start {
            self.begin()?;
        }
        loop {
            self.pass_to(at.max(self.start));
            if self.start == at && self.window.len() >= buffer.len() {
                buffer.copy_from_slice(&self.window[..buffer.len()]);
                return Ok(());
            }
            if !self.more()? {
                return Err(shorter(&self.path));
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
        let content = Content::open(file, "a.zst", packed.len() as u64, packing).unwrap();
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
}

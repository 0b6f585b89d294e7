//! The blocks of a file, by their place in it.

use std::ops::Range;

use gapless_common::error::TaskError;

use super::{Header, KEPT_ROOM, MARKER, MAX_BLOCK, take_long};
use crate::{
    source::pins::{config, data, io_error},
    storage::StoredFile,
};

/// Read at once: several blocks of the common size.
const WINDOW: usize = 512 * 1024;

/// The two integers before a block take at most so many bytes.
const MAX_HEAD: usize = 20;

/// A block of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The byte at which it begins.
    pub at: u64,
    pub rows: u64,
    /// The byte behind its marker: where the next one begins.
    pub end: u64,
    stored: Range<u64>,
}

/// Reads the blocks of one file. A range of the file's bytes has the blocks that begin in it.
pub(crate) struct Blocks {
    file: StoredFile,
    path: String,
    size: u64,
    header: Header,
    /// What was read of the file, from `start` on.
    start: u64,
    window: Vec<u8>,
}

impl Blocks {
    /// Errors: those of [`Header::read`]; `Data` for a file that does not end with its marker, as all that are whole do.
    pub fn open(file: StoredFile, path: &str, size: u64) -> Result<Blocks, TaskError> {
        let header = Header::read(&file, path, size)?;
        let mut blocks = Blocks {
            file,
            path: path.to_string(),
            size,
            header,
            start: 0,
            window: Vec::new(),
        };
        let last = size.saturating_sub(MARKER as u64);
        let marker = blocks.header.marker;
        if blocks.bytes(last, size)? != marker {
            return Err(data(format!(
                "{path}: its last {MARKER} bytes, from byte {last} on, are not its sync marker: it is cut off, still being \
                 written, or has something appended"
            )));
        }
        Ok(blocks)
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The place of the first block that begins at `low` or behind it; `None` where none does below `high`.
    pub fn first(&mut self, low: u64, high: u64) -> Result<Option<u64>, TaskError> {
        if low <= self.header.len {
            return Ok(Some(self.header.len).filter(|at| *at < high && *at < self.size));
        }
        let marker = self.header.marker;
        let finder = memchr::memmem::Finder::new(&marker);
        // The marker of the block before.
        let mut from = low - MARKER as u64;
        // One that ends at the file's end has no block behind it.
        let last = high.min(self.size);
        while from + (MARKER as u64) < last {
            // A marker that ends at `high` or behind is of a block of the next range.
            let to = (from + WINDOW as u64).min(last - 1);
            let bytes = self.bytes(from, to)?;
            if let Some(found) = finder.find(bytes) {
                return Ok(Some(from + (found + MARKER) as u64));
            }
            if to == last - 1 {
                break;
            }
            from = to + 1 - MARKER as u64;
        }
        Ok(None)
    }

    /// The block that begins at `at`; `None` at the end of the file.
    ///
    /// Errors: `Data` with the byte for what is no block, reaches beyond the file, or is not followed by the marker.
    pub fn at(&mut self, at: u64) -> Result<Option<Block>, TaskError> {
        if at >= self.size {
            return Ok(None);
        }
        let size = self.size;
        let head = self.bytes(at, (at + MAX_HEAD as u64).min(size))?;
        let mut read = 0;
        let numbers = (take_long(head, &mut read), take_long(head, &mut read));
        let (Some(rows), Some(len)) = numbers else {
            return Err(self.damaged(at, "no count and length stand there"));
        };
        let (Ok(rows), Ok(len)) = (u64::try_from(rows), u64::try_from(len)) else {
            return Err(self.damaged(at, "its count or length is negative"));
        };
        if len > MAX_BLOCK as u64 {
            return Err(config(format!(
                "{}: the block at byte {at} says it has {len} bytes; blocks of up to {} MiB are read, as each is held in \
                 memory: write the file with smaller ones, or is it damaged?",
                self.path,
                MAX_BLOCK >> 20
            )));
        }
        let from = at + read as u64;
        let stored = from..from + len;
        let end = stored.end + MARKER as u64;
        if end > size {
            return Err(self.damaged(
                at,
                &format!("it reaches to byte {end}, the file ends at {size}: it is cut off or still being written"),
            ));
        }
        let marker = self.header.marker;
        if self.bytes(stored.end, end)? != marker {
            return Err(self.damaged(
                at,
                &format!("behind its {len} bytes, at byte {}, stands no sync marker", stored.end),
            ));
        }
        Ok(Some(Block { at, rows, end, stored }))
    }

    /// The bytes of a block as they are stored.
    pub fn stored(&mut self, block: &Block) -> Result<&[u8], TaskError> {
        self.bytes(block.stored.start, block.stored.end)
    }

    /// Unpacks a block.
    pub fn unpack(&mut self, block: &Block, out: &mut Vec<u8>) -> Result<(), TaskError> {
        let codec = self.header.codec;
        let unpacked = codec.unpack(self.stored(block)?, out);
        unpacked.map_err(|what| self.damaged(block.at, &format!("it cannot be unpacked by {}: {what}", codec.name())))
    }

    /// Gives back the room that a large block took.
    pub fn let_go(&mut self) {
        if self.window.capacity() > KEPT_ROOM {
            self.window = Vec::new();
        }
    }

    pub fn damaged(&self, at: u64, what: &str) -> TaskError {
        data(format!("{}: the block at byte {at} is damaged: {what}", self.path))
    }

    /// Bytes `[from, to)` of the file.
    fn bytes(&mut self, from: u64, to: u64) -> Result<&[u8], TaskError> {
        let held = self.start + self.window.len() as u64;
        if from < self.start || to > held {
            match from >= self.start && from < held {
                // What was read already and not passed stays.
                true => drop(self.window.drain(..(from - self.start) as usize)),
                false => self.window.clear(),
            }
            self.start = from;
            let have = self.window.len();
            let wanted = (to - from).max(WINDOW as u64).min(self.size - from);
            self.window.reserve_exact(wanted as usize - have);
            self.window.resize(wanted as usize, 0);
            self.file
                .read_exact_at(&mut self.window[have..], from + have as u64)
                .map_err(|error| match error.kind() {
                    std::io::ErrorKind::UnexpectedEof => {
                        config(format!("{}: changed after planning: it became shorter", self.path))
                    }
                    _ => io_error(&self.path, "reading", &error),
                })?;
        }
        Ok(&self.window[(from - self.start) as usize..(to - self.start) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::{Codec, write_block};

    #[test]
    fn the_room_of_a_large_block_is_given_back_and_reading_goes_on() {
        let marker = [7; MARKER];
        let mut bytes = Header::bytes("{}", Codec::Null, marker);
        let large = vec![1; KEPT_ROOM + 1];
        for stored in [&large[..], b"small"] {
            write_block(1, stored, marker, &mut bytes);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.avro");
        std::fs::write(&path, &bytes).unwrap();
        let mut blocks = Blocks::open(StoredFile::open(&path).unwrap(), "x.avro", bytes.len() as u64).unwrap();
        let first = blocks.at(blocks.header.len).unwrap().unwrap();
        assert!(blocks.stored(&first).unwrap() == large);
        blocks.let_go();
        assert_eq!(blocks.window.capacity(), 0);
        let second = blocks.at(first.end).unwrap().unwrap();
        assert_eq!(blocks.stored(&second).unwrap(), b"small");
        blocks.let_go();
        assert!(!blocks.window.is_empty(), "that of small ones is kept");
        assert_eq!(blocks.at(second.end).unwrap(), None);
    }
}

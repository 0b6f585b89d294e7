//! A file that can be read by offset, wherever it lies.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use gapless_platform::objects::{ObjectError, ObjectFile, Trouble};
use parquet::{
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};

use super::place::object;

/// An open file of the file system, or an object of a known etag.
#[derive(Debug)]
pub enum StoredFile {
    Local(File),
    Object(Arc<ObjectFile>),
}

impl StoredFile {
    /// Opens what is there now. Objects keep the etag that they have at this moment.
    pub fn open(path: &Path) -> io::Result<StoredFile> {
        let Some((bucket, key)) = object(path)? else {
            return Ok(StoredFile::Local(File::open(path)?));
        };
        match bucket.head(&key)? {
            Some(found) => Ok(StoredFile::Object(Arc::new(ObjectFile::new(bucket, found)))),
            None => Err(ObjectError::new(Trouble::NotFound, path.display(), "there is no such object").into()),
        }
    }

    /// Bytes of the file as it is now (of the object as it was opened).
    pub fn size(&self) -> io::Result<u64> {
        match self {
            StoredFile::Local(file) => Ok(file.metadata()?.len()),
            StoredFile::Object(object) => Ok(object.len()),
        }
    }

    /// As `FileExt::read_at`: at least one byte, unless the file ends there.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            StoredFile::Local(file) => file.read_at(buffer, at),
            StoredFile::Object(object) => object.read_at(buffer, at),
        }
    }

    /// Fills the buffer.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(got) => {
                    buffer = &mut buffer[got..];
                    at += got as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads from the first byte on.
    pub fn into_reader(self) -> Box<dyn Read + Send> {
        match self {
            StoredFile::Local(file) => Box::new(file),
            StoredFile::Object(object) => Box::new(ReadOn { object, at: 0 }),
        }
    }
}

/// Reads an object front to back.
struct ReadOn {
    object: Arc<ObjectFile>,
    at: u64,
}

impl Read for ReadOn {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.object.read_at(buffer, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl Length for StoredFile {
    fn len(&self) -> u64 {
        self.size().unwrap_or(0)
    }
}

/// Reads on from an offset.
pub struct FromOffset<'a> {
    file: &'a StoredFile,
    at: u64,
}

impl<'a> FromOffset<'a> {
    pub fn new(file: &'a StoredFile, at: u64) -> Self {
        Self { file, at }
    }
}

impl Read for FromOffset<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(buffer, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl ChunkReader for StoredFile {
    type T = Box<dyn Read + Send>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        match self {
            StoredFile::Local(file) => Ok(Box::new(file.get_read(start)?)),
            StoredFile::Object(object) => {
                let object = object.clone();
                Ok(Box::new(io::BufReader::new(ReadOn { object, at: start })))
            }
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        match self {
            StoredFile::Local(file) => file.get_bytes(start, length),
            StoredFile::Object(_) => {
                let mut bytes = vec![0; length];
                self.read_exact_at(&mut bytes, start).map_err(external)?;
                Ok(Bytes::from(bytes))
            }
        }
    }
}

fn external(error: io::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

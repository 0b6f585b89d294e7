//! Keys that must be unique over all records of a source: fingerprints beside the chunks, compared once all are read.
//!
//! A chunk keeps a file of the fingerprints of its keys, in runs that are sorted each. Whoever publishes compares all of
//! them, a part of the fingerprints' range after the other, so that memory does not grow with their number. Only where
//! two are equal are records read again, to tell which they are.

use std::{
    fmt,
    io::{self, Write},
    mem,
    path::{Path, PathBuf},
};

use arrow::array::{Array, RecordBatch};
use gapless_common::{error::TaskError, manifest::DataFile, order::SortColumn};
use xxhash_rust::xxh3::xxh3_128;

use super::pins::data;
use crate::{
    sort::Order,
    storage::{DurableFile, StoredFile, io_error, sync_folder},
};

/// Fingerprints of a run: 16 MiB in memory before they are sorted and written.
const RUN: usize = 1 << 20;
/// Parts of the fingerprints' range, by their first byte.
const PARTS: usize = 256;
/// Bytes of a fingerprint in a file, the highest first.
const PRINT: usize = 16;
/// Before each run: where each part of it begins, and where the last one ends, 4 bytes each.
const INDEX: usize = (PARTS + 1) * 4;
/// Fingerprints that are compared at a time: 64 MiB with the chunk that each is of. Fingerprints are even over their
/// range, so that a part has no more than this up to half a thousand million of keys, and grows with them beyond.
const COMPARED: u64 = 2 << 20;

/// The fingerprints of keys: XXH3-128 of the values in Arrow's row format, over the columns of the merge.
pub struct Prints {
    order: Order,
}

impl Prints {
    /// Errors: `Config` where a column is missing or has no order.
    pub fn new(columns: &[String], schema: &arrow::datatypes::Schema) -> Result<Prints, TaskError> {
        let by: Vec<SortColumn> = columns
            .iter()
            .map(|column| SortColumn {
                column: column.clone(),
                descending: false,
                nulls_first: false,
            })
            .collect();
        Ok(Prints {
            order: Order::new(&by, schema)?,
        })
    }

    /// That of each record; `None` where a column of the key is NULL.
    pub fn of(&self, batch: &RecordBatch) -> Result<Vec<Option<u128>>, TaskError> {
        let columns = self.order.key_columns(batch)?;
        let rows = self.order.keys(&columns)?;
        let whole = |row: usize| columns.iter().all(|column| !column.is_null(row));
        Ok((0..batch.num_rows())
            .map(|row| whole(row).then(|| xxh3_128(rows.row(row).as_ref())))
            .collect())
    }
}

/// Writes the fingerprints of a chunk.
pub struct KeyWriter {
    file: DurableFile,
    path: PathBuf,
    run: Vec<u128>,
    keys: u64,
}

impl fmt::Debug for KeyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys for {}", self.keys, self.path.display())
    }
}

impl KeyWriter {
    pub fn create(path: &Path) -> Result<KeyWriter, TaskError> {
        Ok(KeyWriter {
            file: DurableFile::create(path.to_path_buf())?,
            path: path.to_path_buf(),
            run: Vec::new(),
            keys: 0,
        })
    }

    pub fn push(&mut self, prints: Vec<u128>) -> Result<(), TaskError> {
        self.keys += prints.len() as u64;
        self.run.extend(prints);
        match self.run.len() >= RUN {
            true => self.write_run(),
            false => Ok(()),
        }
    }

    fn write_run(&mut self) -> Result<(), TaskError> {
        let mut run = mem::take(&mut self.run);
        run.sort_unstable();
        let mut bytes = Vec::with_capacity(INDEX + run.len() * PRINT);
        for part in 0..=PARTS {
            let below = run.partition_point(|print| part_of(*print) < part);
            bytes.extend((below as u32).to_be_bytes());
        }
        run.iter().for_each(|print| bytes.extend(print.to_be_bytes()));
        self.file
            .write_all(&bytes)
            .map_err(|error| io_error("write", &self.path, &error))
    }

    /// Makes the file durable.
    pub fn finish(mut self) -> Result<DataFile, TaskError> {
        if !self.run.is_empty() {
            self.write_run()?;
        }
        let (bytes, checksum) = self.file.seal().wait()?;
        if let Some(folder) = self.path.parent() {
            sync_folder(folder)?;
        }
        let name = self.path.file_name().unwrap_or_default();
        Ok(DataFile {
            path: name.to_string_lossy().into_owned(),
            rows: self.keys,
            bytes,
            checksum: format!("{checksum:016x}"),
        })
    }
}

fn part_of(print: u128) -> usize {
    (print >> 120) as usize
}

/// Two keys that are equal, by the chunks in which they stand, and how many there are of the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicates {
    pub print: u128,
    /// Places in the list of files; the same where both stand in one.
    pub first: usize,
    pub second: usize,
    /// Keys that stand before them already.
    pub count: u64,
}

/// A sorted run of a file.
struct Run {
    file: usize,
    at: u64,
}

/// Compares the keys of files; of those that stand twice that one is told which comes first.
///
/// Errors: `Data` for a file that is not as it was written; those of reading.
pub fn duplicates(folder: &Path, files: &[&DataFile]) -> Result<Option<Duplicates>, TaskError> {
    let mut runs = Vec::new();
    let mut sizes = [0u64; PARTS];
    for (number, file) in files.iter().enumerate() {
        let path = folder.join(&file.path);
        let stored = StoredFile::open(&path).map_err(|error| io_error("open", &path, &error))?;
        let (mut at, mut keys) = (0, 0);
        while at < file.bytes {
            let index = index(&stored, at).map_err(|error| io_error("read", &path, &error))?;
            for (size, ends) in sizes.iter_mut().zip(index.windows(2)) {
                *size += u64::from(ends[1].saturating_sub(ends[0]));
            }
            runs.push(Run { file: number, at });
            keys += u64::from(index[PARTS]);
            at += INDEX as u64 + u64::from(index[PARTS]) * PRINT as u64;
        }
        if (at, keys) != (file.bytes, file.rows) {
            return Err(data(format!(
                "{}: it holds {keys} keys in {at} bytes, and not {} in {} as it was written; restart the run",
                path.display(),
                file.rows,
                file.bytes
            )));
        }
    }
    let mut found: Option<Duplicates> = None;
    let mut low = 0;
    while low < PARTS {
        let mut high = low + 1;
        let mut together = sizes[low];
        while high < PARTS && together + sizes[high] <= COMPARED {
            together += sizes[high];
            high += 1;
        }
        let mut prints: Vec<(u128, u32)> = Vec::with_capacity(together as usize);
        for run in &runs {
            read_parts(folder, files, run, low..high, &mut prints)?;
        }
        prints.sort_unstable();
        for pair in prints.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let (first, second) = (pair[0].1 as usize, pair[1].1 as usize);
            let count = found.map_or(0, |found| found.count) + 1;
            let earlier = found.is_some_and(|found| (found.second, found.first) <= (second, first));
            found = Some(match (found, earlier) {
                (Some(found), true) => Duplicates { count, ..found },
                _ => Duplicates {
                    print: pair[0].0,
                    first,
                    second,
                    count,
                },
            });
        }
        low = high;
    }
    Ok(found)
}

fn index(stored: &StoredFile, at: u64) -> io::Result<Vec<u32>> {
    let mut bytes = [0; INDEX];
    stored.read_exact_at(&mut bytes, at)?;
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap_or_default());
    Ok(bytes.chunks_exact(4).map(number).collect())
}

fn read_parts(
    folder: &Path,
    files: &[&DataFile],
    run: &Run,
    parts: std::ops::Range<usize>,
    prints: &mut Vec<(u128, u32)>,
) -> Result<(), TaskError> {
    let path = folder.join(&files[run.file].path);
    let failed = |error: io::Error| io_error("read", &path, &error);
    let stored = StoredFile::open(&path).map_err(failed)?;
    let index = index(&stored, run.at).map_err(failed)?;
    let (from, to) = (u64::from(index[parts.start]), u64::from(index[parts.end]));
    let mut bytes = vec![0; to.saturating_sub(from) as usize * PRINT];
    stored
        .read_exact_at(&mut bytes, run.at + INDEX as u64 + from * PRINT as u64)
        .map_err(failed)?;
    let print = |bytes: &[u8]| u128::from_be_bytes(bytes.try_into().unwrap_or_default());
    prints.extend(bytes.chunks_exact(PRINT).map(|bytes| (print(bytes), run.file as u32)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, prints: &[u128]) -> DataFile {
        let mut writer = KeyWriter::create(&folder.join(name)).expect("made");
        for some in prints.chunks(100_000) {
            writer.push(some.to_vec()).expect("written");
        }
        writer.finish().expect("durable")
    }

    fn print(n: u64) -> u128 {
        xxh3_128(&n.to_le_bytes())
    }

    /// More than one run, and more than is compared at a time.
    #[test]
    fn equal_keys_are_found_wherever_they_stand() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path();
        let many: Vec<u128> = (0..2_500_000).map(print).collect();
        let first = write(folder, "first", &many);
        let second = write(folder, "second", &[print(2_500_000)]);
        assert!(first.bytes > 2 * (RUN * PRINT) as u64);
        assert_eq!(duplicates(folder, &[&first, &second]).expect("read"), None);
        // Within a file, across its runs, and between files; the first of them is told.
        let third = write(folder, "third", &[print(7), print(2_400_000), print(2_500_000)]);
        let found = duplicates(folder, &[&first, &second, &third])
            .expect("read")
            .expect("found");
        assert_eq!((found.first, found.second, found.count), (0, 2, 3));
        let mut twice = many;
        twice[2_499_999] = print(3);
        let twice = write(folder, "twice", &twice);
        let found = duplicates(folder, &[&second, &twice, &third])
            .expect("read")
            .expect("found");
        assert_eq!(
            (found.print, found.first, found.second, found.count),
            (print(3), 1, 1, 4)
        );
    }

    #[test]
    fn a_file_that_is_not_as_it_was_written_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut file = write(dir.path(), "keys", &[1, 2, 3]);
        file.rows = 4;
        let error = duplicates(dir.path(), &[&file]).expect_err("told").message;
        assert!(error.contains("it holds 3 keys in"), "{error}");
    }
}

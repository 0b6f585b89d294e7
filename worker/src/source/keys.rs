//! Keys that must be unique over all records of a source: fingerprints beside the chunks, compared once all are read.
//!
//! A chunk keeps a file of the fingerprints of its keys, in runs that are sorted each. Whoever publishes compares all of
//! them, a part of the fingerprints' range after the other, so that memory does not grow with their number. Only where
//! two are equal are records read again, to tell which they are.

use std::{
    fmt,
    io::{self, Write},
    mem,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use arrow::{
    array::{Array, RecordBatch},
    datatypes::DataType,
};
use gapless_common::{error::TaskError, manifest::DataFile, order::SortColumn};
use gapless_platform::objects::{Found, ObjectError, ObjectFile, Trouble};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::pins::data;
use crate::{
    sort::Order,
    storage::{DurableFile, StoredFile, io_error, is_object, object, sync_folder},
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
/// Bytes of a file that are read at once to check it.
const PIECE: usize = 1 << 20;
/// Files in an object store that are read at the same time. Each holds up to two blocks of 4 MiB meanwhile.
const AT_ONCE: usize = 16;

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
        let whole = |row: usize| {
            columns
                .iter()
                .all(|column| !column.is_null(row) && column.data_type() != &DataType::Null)
        };
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
            multiline: false,
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
    at: u64,
    /// Where each part of it begins, and where the last one ends.
    index: Vec<u32>,
}

/// A file of fingerprints that is as it was written.
struct KeyFile<'a> {
    file: &'a DataFile,
    path: PathBuf,
    runs: Vec<Run>,
    /// An object as it was then, so that it need not be asked for again.
    object: Option<Found>,
}

/// Asked after each stretch of keys, with the number of all so far, whether to go on.
pub type KeyGate<'a> = dyn FnMut(u64) -> Result<(), TaskError> + 'a;

/// Compares the keys of files; of those that stand twice that one is told which comes first.
///
/// Errors: `Data` for a file that is not as it was written; those of reading, and of `gate`.
pub fn duplicates(folder: &Path, files: &[&DataFile], gate: &mut KeyGate<'_>) -> Result<Option<Duplicates>, TaskError> {
    let at_once = if is_object(folder) { AT_ONCE } else { 1 };
    let mut done = 0;
    let mut opened = Vec::with_capacity(files.len());
    let mut sizes = [0u64; PARTS];
    for some in files.chunks(at_once) {
        for file in in_parallel(some, &|file| KeyFile::open(folder, file))? {
            for run in &file.runs {
                for (size, ends) in sizes.iter_mut().zip(run.index.windows(2)) {
                    *size += u64::from(ends[1] - ends[0]);
                }
            }
            done += file.file.rows;
            opened.push(file);
        }
        gate(done)?;
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
        for (number, some) in opened.chunks(at_once).enumerate() {
            for (at, own) in in_parallel(some, &|file| file.parts(low..high))?
                .into_iter()
                .enumerate()
            {
                let file = (number * at_once + at) as u32;
                prints.extend(own.into_iter().map(|print| (print, file)));
            }
            gate(done + prints.len() as u64)?;
        }
        done += together;
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

/// What `read` gives of each, in their order. Requests to an object store cost time whatever they bring.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    read: &(impl Fn(&T) -> Result<R, TaskError> + Sync),
) -> Result<Vec<R>, TaskError> {
    match items {
        [item] => Ok(vec![read(item)?]),
        items => thread::scope(|scope| {
            let reading: Vec<_> = items.iter().map(|item| scope.spawn(move || read(item))).collect();
            let read = reading.into_iter().map(|reading| match reading.join() {
                Ok(read) => read,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            read.collect()
        }),
    }
}

impl<'a> KeyFile<'a> {
    /// Reads the whole file once: its runs, and whether it has the checksum that was recorded.
    fn open(folder: &Path, file: &'a DataFile) -> Result<KeyFile<'a>, TaskError> {
        let path = folder.join(&file.path);
        let failed = |error: io::Error| io_error("read", &path, &error);
        let (stored, object) = open(&path, None)?;
        let size = stored.size().map_err(failed)?;
        if size != file.bytes {
            return Err(damaged(
                &path,
                format!("it has {size} bytes, and {} were written", file.bytes),
            ));
        }
        let mut hash = Xxh3::new();
        let (mut at, mut keys, mut runs) = (0, 0, Vec::new());
        let mut bytes = vec![0; PIECE];
        while at < size {
            let index = index(&stored, at, size, &mut hash)
                .map_err(failed)?
                .map_err(|words| damaged(&path, words))?;
            let run = u64::from(index[PARTS]);
            let mut from = at + INDEX as u64;
            let end = from + run * PRINT as u64;
            runs.push(Run { at, index });
            while from < end {
                let some = PIECE.min((end - from) as usize);
                stored.read_exact_at(&mut bytes[..some], from).map_err(failed)?;
                hash.update(&bytes[..some]);
                from += some as u64;
            }
            keys += run;
            at = end;
        }
        let checksum = format!("{:016x}", hash.digest());
        if keys != file.rows || checksum != file.checksum {
            return Err(damaged(
                &path,
                format!(
                    "it holds {keys} keys with the checksum {checksum}, and {} with {} were written",
                    file.rows, file.checksum
                ),
            ));
        }
        Ok(KeyFile {
            file,
            path,
            runs,
            object,
        })
    }

    /// The fingerprints of these parts, run by run.
    fn parts(&self, parts: Range<usize>) -> Result<Vec<u128>, TaskError> {
        let failed = |error: io::Error| io_error("read", &self.path, &error);
        let (stored, _) = open(&self.path, self.object.as_ref())?;
        let mut prints = Vec::new();
        for run in &self.runs {
            let (from, to) = (run.index[parts.start], run.index[parts.end]);
            let mut bytes = vec![0; (to - from) as usize * PRINT];
            let at = run.at + INDEX as u64 + u64::from(from) * PRINT as u64;
            stored.read_exact_at(&mut bytes, at).map_err(failed)?;
            let print = |bytes: &[u8]| u128::from_be_bytes(bytes.try_into().unwrap_or_default());
            prints.extend(bytes.chunks_exact(PRINT).map(print));
        }
        Ok(prints)
    }
}

/// Opens a file; an object that was found before as it was then.
fn open(path: &Path, found: Option<&Found>) -> Result<(StoredFile, Option<Found>), TaskError> {
    let failed = |error: ObjectError| io_error("open", path, &error.into());
    let Some((bucket, key)) = object(path).map_err(failed)? else {
        let stored = StoredFile::open(path).map_err(|error| io_error("open", path, &error))?;
        return Ok((stored, None));
    };
    let found = match found {
        Some(found) => Some(found.clone()),
        None => bucket.head(&key).map_err(failed)?,
    };
    let Some(found) = found else {
        let missing = ObjectError::new(Trouble::NotFound, path.display(), "there is no such object");
        return Err(failed(missing));
    };
    let stored = StoredFile::Object(Arc::new(ObjectFile::new(bucket, found.clone())));
    Ok((stored, Some(found)))
}

fn damaged(path: &Path, words: impl fmt::Display) -> TaskError {
    data(format!(
        "the file of keys {} is damaged: {words}; restart the run to read its source again",
        path.display()
    ))
}

/// The index of the run at `at`, which rises and ends within the file; else what is wrong with it.
fn index(stored: &StoredFile, at: u64, size: u64, hash: &mut Xxh3) -> io::Result<Result<Vec<u32>, String>> {
    if size - at < INDEX as u64 {
        return Ok(Err(format!("an index is cut off at byte {at}")));
    }
    let mut bytes = [0; INDEX];
    stored.read_exact_at(&mut bytes, at)?;
    hash.update(&bytes);
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap_or_default());
    let index: Vec<u32> = bytes.chunks_exact(4).map(number).collect();
    let end = at + INDEX as u64 + u64::from(index[PARTS]) * PRINT as u64;
    Ok(match index[0] == 0 && index.is_sorted() && end <= size {
        true => Ok(index),
        false => Err(format!("the index at byte {at} is none")),
    })
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
        assert_eq!(
            duplicates(folder, &[&first, &second], &mut |_| Ok(())).expect("read"),
            None
        );
        // Within a file, across its runs, and between files; the first of them is told.
        let third = write(folder, "third", &[print(7), print(2_400_000), print(2_500_000)]);
        let found = duplicates(folder, &[&first, &second, &third], &mut |_| Ok(()))
            .expect("read")
            .expect("found");
        assert_eq!((found.first, found.second, found.count), (0, 2, 3));
        let mut twice = many;
        twice[2_499_999] = print(3);
        let twice = write(folder, "twice", &twice);
        let found = duplicates(folder, &[&second, &twice, &third], &mut |_| Ok(()))
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
        let file = write(dir.path(), "keys", &[1, 2, 3]);
        let path = dir.path().join("keys");
        let whole = std::fs::read(&path).expect("readable");
        let changed = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            bytes
        };
        for (bytes, says) in [
            (
                whole[..whole.len() - 1].to_vec(),
                "it has 1075 bytes, and 1076 were written",
            ),
            // A run that would end far beyond the file, one whose parts do not rise, and another key.
            (changed(INDEX - 4, 0xff), "the index at byte 0 is none"),
            (changed(8, 1), "the index at byte 0 is none"),
            (changed(whole.len() - 1, 9), "it holds 3 keys with the checksum"),
        ] {
            std::fs::write(&path, bytes).expect("written");
            let error = duplicates(dir.path(), &[&file], &mut |_| Ok(())).expect_err(says);
            assert_eq!(error.class, gapless_common::error::ErrorClass::Data);
            assert!(
                error.message.contains("keys is damaged: ") && error.message.contains(says),
                "{error}"
            );
        }
    }

    /// Whoever waits sees that it goes on, and may stop it at each of the stretches.
    #[test]
    fn a_comparison_is_stopped_at_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let many: Vec<u128> = (0..2_500_000).map(print).collect();
        let file = write(dir.path(), "keys", &many);
        let mut told = Vec::new();
        duplicates(dir.path(), &[&file], &mut |keys| {
            told.push(keys);
            Ok(())
        })
        .expect("read");
        assert!(
            told.len() >= 3 && told.is_sorted_by(|one, other| one < other),
            "{told:?}"
        );
        for stop in 0..told.len() {
            let mut asked = 0;
            let stopped = duplicates(dir.path(), &[&file], &mut |_| {
                asked += 1;
                match asked > stop {
                    true => Err(data("stopped".to_string())),
                    false => Ok(()),
                }
            });
            assert_eq!(
                (stopped.expect_err("stopped").message.as_str(), asked),
                ("stopped", stop + 1)
            );
        }
    }
}

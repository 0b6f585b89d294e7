//! Hive layout: one folder for each value of the `partition_by` columns.
//!
//! Rows are grouped by runs of equal values, so that sorted input costs a slice for each run.
//! A bounded number of files is open; rows of other folders wait in memory, also bounded, and the
//! folder with the most of them takes the place of the file that was used longest ago.

use std::{collections::HashMap, mem, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array},
    compute::{concat_batches, partition, take, take_record_batch},
    datatypes::{DataType, SchemaRef},
    error::ArrowError,
    row::{RowConverter, SortField},
};
use gapless_common::error::{ErrorClass, TaskError};

use super::{
    ChunkSink, SealedChunk,
    format::wrong_batch,
    plain::{OpenFile, Staging},
    text::{TextColumn, textual},
};

/// Files open at a time at most: each holds the buffers of all its columns.
const OPEN_FILES: usize = 48;

/// Encoded bytes in all open files together; above it the fullest ends its row group.
const OPEN_BYTES: usize = 96 << 20;

/// Rows that wait for a file, in bytes.
const WAITING_BYTES: usize = 32 << 20;

/// Folders of one chunk. More is a mistake in the choice of columns: every folder is a file.
const FOLDERS: usize = 20_000;

/// Runs shorter than this on average are gathered into one batch for each folder first.
const SHORT_RUN: usize = 16;

/// The longest file name that local file systems take.
const NAME_BYTES: usize = 255;

pub(super) const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// What the chunk has for one folder.
struct Folder {
    name: String,
    /// Files made so far.
    files: u32,
    /// Place in `open`.
    open: Option<usize>,
    waiting: Vec<RecordBatch>,
    waiting_bytes: usize,
}

struct Slot {
    file: OpenFile,
    folder: usize,
    used: u64,
}

pub(super) struct HiveSink {
    staging: Staging,
    /// What stands in the files.
    schema: SchemaRef,
    names: Vec<String>,
    /// Whether folders are named by the value of the one column alone.
    bare: bool,
    /// Positions of the folder columns, and of the others.
    keys: Vec<usize>,
    rest: Vec<usize>,
    converter: RowConverter,
    /// Folder by the encoded values, and by its name.
    numbers: HashMap<Box<[u8]>, usize>,
    by_name: HashMap<String, usize>,
    folders: Vec<Folder>,
    open: Vec<Option<Slot>>,
    waiting_bytes: usize,
    clock: u64,
}

impl HiveSink {
    /// `input` is what batches look like; `by` names columns of it.
    pub fn new(staging: Staging, input: &SchemaRef, by: &[String]) -> Result<Self, TaskError> {
        let keys = by
            .iter()
            .map(|name| input.index_of(name))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| wrong_batch(&e))?;
        let rest: Vec<usize> = (0..input.fields().len())
            .filter(|column| !keys.contains(column))
            .collect();
        let fields = keys
            .iter()
            .map(|&key| SortField::new(input.field(key).data_type().clone()))
            .collect();
        let schema = Arc::new(input.project(&rest).map_err(|e| wrong_batch(&e))?);
        let open = staging.format().open_files(schema.flattened_fields().len(), OPEN_FILES);
        Ok(Self {
            staging,
            schema,
            names: by.to_vec(),
            bare: false,
            keys,
            rest,
            converter: RowConverter::new(fields).map_err(|e| wrong_batch(&e))?,
            numbers: HashMap::new(),
            by_name: HashMap::new(),
            folders: Vec::new(),
            open: (0..open).map(|_| None).collect(),
            waiting_bytes: 0,
            clock: 0,
        })
    }

    /// Folders that have the very text of one column as their names, which must be fit for that.
    pub fn named(staging: Staging, input: &SchemaRef, by: &str) -> Result<Self, TaskError> {
        let sink = Self::new(staging, input, &[by.to_string()])?;
        Ok(Self { bare: true, ..sink })
    }

    /// The folder of each row in `rows`.
    fn folders_of(&mut self, keys: &[ArrayRef]) -> Result<Vec<usize>, TaskError> {
        let rows = self.converter.convert_columns(keys).map_err(|e| wrong_batch(&e))?;
        let mut found = Vec::with_capacity(rows.num_rows());
        for (number, row) in rows.iter().enumerate() {
            let folder = match self.numbers.get(row.data()) {
                Some(&folder) => folder,
                None => {
                    let folder = self.add_folder(keys, number)?;
                    self.numbers.insert(row.data().into(), folder);
                    folder
                }
            };
            found.push(folder);
        }
        Ok(found)
    }

    fn add_folder(&mut self, keys: &[ArrayRef], row: usize) -> Result<usize, TaskError> {
        let name = match self.bare {
            true => text_at(&keys[0], row)?,
            false => folder_name(&self.names, keys, row)?,
        };
        // Values that differ may have one text (0.0 and -0.0 do not, but NaNs do).
        if let Some(&same) = self.by_name.get(&name) {
            return Ok(same);
        }
        if self.folders.len() == FOLDERS {
            return Err(TaskError::new(
                ErrorClass::Data,
                format!(
                    "{} makes more than {FOLDERS} folders in one chunk, the last {name}; choose columns with fewer values",
                    match self.bare {
                        true => "split".to_string(),
                        false => format!("partition_by [{}]", self.names.join(", ")),
                    }
                ),
            ));
        }
        self.by_name.insert(name.clone(), self.folders.len());
        self.folders.push(Folder {
            name,
            files: 0,
            open: None,
            waiting: Vec::new(),
            waiting_bytes: 0,
        });
        Ok(self.folders.len() - 1)
    }

    fn put(&mut self, folder: usize, rows: RecordBatch) -> Result<(), TaskError> {
        if self.folders[folder].open.is_none() {
            if let Some(free) = self.open.iter().position(Option::is_none) {
                self.open_in(free, folder, &rows)?;
            } else {
                return self.let_wait(folder, rows);
            }
        }
        self.write_open(folder, &rows)
    }

    fn write_open(&mut self, folder: usize, rows: &RecordBatch) -> Result<(), TaskError> {
        self.clock += 1;
        if let Some(slot) = self.folders[folder].open.and_then(|place| self.open[place].as_mut()) {
            slot.used = self.clock;
            slot.file.write(rows)?;
        }
        Ok(())
    }

    fn open_in(&mut self, place: usize, folder: usize, first: &RecordBatch) -> Result<(), TaskError> {
        let entry = &mut self.folders[folder];
        let open = 1 + self.open.iter().flatten().count();
        let file = self
            .staging
            .begin(&entry.name, entry.files, self.schema.clone(), Some(first), open)?;
        entry.files += 1;
        entry.open = Some(place);
        self.open[place] = Some(Slot {
            file,
            folder,
            used: self.clock,
        });
        Ok(())
    }

    /// Keeps rows until there are enough of them to be worth a file.
    fn let_wait(&mut self, folder: usize, rows: RecordBatch) -> Result<(), TaskError> {
        let rows = own_copy(&rows)?;
        let bytes = rows.get_array_memory_size();
        self.folders[folder].waiting.push(rows);
        self.folders[folder].waiting_bytes += bytes;
        self.waiting_bytes += bytes;
        while self.waiting_bytes > WAITING_BYTES {
            let fullest = (0..self.folders.len())
                .max_by_key(|&folder| self.folders[folder].waiting_bytes)
                .unwrap_or(0);
            self.admit(fullest)?;
        }
        Ok(())
    }

    /// Opens a file for a folder whose rows wait, in place of the one used longest ago.
    fn admit(&mut self, folder: usize) -> Result<(), TaskError> {
        let Some(rows) = self.take_waiting(folder)? else {
            return Ok(());
        };
        let oldest = (0..self.open.len())
            .min_by_key(|&place| self.open[place].as_ref().map_or(0, |slot| slot.used))
            .unwrap_or(0);
        self.close(oldest)?;
        self.open_in(oldest, folder, &rows)?;
        self.write_open(folder, &rows)
    }

    fn take_waiting(&mut self, folder: usize) -> Result<Option<RecordBatch>, TaskError> {
        let entry = &mut self.folders[folder];
        self.waiting_bytes -= mem::take(&mut entry.waiting_bytes);
        let waiting = mem::take(&mut entry.waiting);
        let Some(first) = waiting.first() else { return Ok(None) };
        concat_batches(first.schema_ref(), &waiting)
            .map(Some)
            .map_err(|e| wrong_batch(&e))
    }

    fn close(&mut self, place: usize) -> Result<(), TaskError> {
        if let Some(slot) = self.open[place].take() {
            self.folders[slot.folder].open = None;
            self.staging.seal(slot.file)?;
        }
        Ok(())
    }

    fn bound_memory(&mut self) -> Result<(), TaskError> {
        let mut sizes: Vec<(usize, usize)> = (self.open.iter().enumerate())
            .filter_map(|(place, slot)| Some((slot.as_ref()?.file.file.buffered(), place)))
            .collect();
        let mut total: usize = sizes.iter().map(|(bytes, _)| bytes).sum();
        sizes.sort_unstable();
        while total > OPEN_BYTES
            && let Some((bytes, place)) = sizes.pop()
        {
            if let Some(slot) = &mut self.open[place] {
                slot.file.file.relieve()?;
            }
            total -= bytes;
        }
        Ok(())
    }
}

impl ChunkSink for HiveSink {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let keys: Vec<ArrayRef> = self.keys.iter().map(|&key| batch.column(key).clone()).collect();
        let runs = partition(&keys).map_err(|e| wrong_batch(&e))?.ranges();
        let starts = UInt32Array::from_iter_values(runs.iter().map(|run| run.start as u32));
        let first = keys
            .iter()
            .map(|key| take(key, &starts, None))
            .collect::<Result<Vec<_>, _>>();
        let folders = self.folders_of(&first.map_err(|e| wrong_batch(&e))?)?;
        let content = batch.project(&self.rest).map_err(|e| wrong_batch(&e))?;
        if rows / runs.len() >= SHORT_RUN {
            for (run, folder) in runs.into_iter().zip(folders) {
                self.put(folder, content.slice(run.start, run.len()))?;
            }
        } else {
            // Short runs: bring the rows of each folder together, in their order.
            let mut order: Vec<usize> = (0..runs.len()).collect();
            order.sort_by_key(|&run| folders[run]);
            let indices = order.iter().flat_map(|&run| runs[run].clone()).map(|row| row as u32);
            let gathered =
                take_record_batch(&content, &UInt32Array::from_iter_values(indices)).map_err(|e| wrong_batch(&e))?;
            let mut start = 0;
            for group in order.chunk_by(|&one, &other| folders[one] == folders[other]) {
                let length = group.iter().map(|&run| runs[run].len()).sum();
                self.put(folders[group[0]], gathered.slice(start, length))?;
                start += length;
            }
        }
        self.bound_memory()
    }

    fn seal(mut self: Box<Self>) -> Result<SealedChunk, TaskError> {
        for place in 0..self.open.len() {
            self.close(place)?;
        }
        for folder in 0..self.folders.len() {
            self.admit(folder)?;
        }
        for place in 0..self.open.len() {
            self.close(place)?;
        }
        Ok(self.staging.into_sealed())
    }
}

/// A copy that holds nothing else in memory: a slice, or a view of text, keeps all of its parent.
fn own_copy(rows: &RecordBatch) -> Result<RecordBatch, TaskError> {
    let all = UInt32Array::from_iter_values(0..rows.num_rows() as u32);
    let columns = rows.columns().iter().map(|column| {
        let copy = take(column, &all, None)?;
        Ok::<ArrayRef, ArrowError>(match copy.data_type() {
            DataType::Utf8View => Arc::new(copy.as_string_view().gc()),
            DataType::BinaryView => Arc::new(copy.as_binary_view().gc()),
            _ => copy,
        })
    });
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(|e| wrong_batch(&e))?;
    RecordBatch::try_new(rows.schema(), columns).map_err(|e| wrong_batch(&e))
}

fn text_at(column: &ArrayRef, row: usize) -> Result<String, TaskError> {
    let mut value = Vec::new();
    TextColumn::new(column)?.append(row, &mut value)?;
    Ok(String::from_utf8_lossy(&value).into_owned())
}

/// The name of the folder of a value, which is never `taken`, a name in ASCII. Readers hide names that
/// begin with a point or an underscore.
pub(super) fn folder_of_value(column: &str, value: &str, taken: Option<&str>) -> Result<String, TaskError> {
    let mut name = String::new();
    let rest = match value.as_bytes().first() {
        Some(first) if matches!(first, b'.' | b'_') || taken == Some(value) => {
            name.push_str(&format!("%{first:02X}"));
            &value[1..]
        }
        _ => value,
    };
    append_escaped(rest, &mut name);
    match name.len() <= NAME_BYTES {
        true => Ok(name),
        false => Err(TaskError::new(
            ErrorClass::Data,
            format!("split: column {column} holds a value too long for a folder's name: {name}"),
        )),
    }
}

/// `col=value/col=value` of one row.
fn folder_name(names: &[String], keys: &[ArrayRef], row: usize) -> Result<String, TaskError> {
    let mut path = String::new();
    for (name, key) in names.iter().zip(keys) {
        let key = textual(name, key)?;
        let column = TextColumn::new(&key)?;
        if !path.is_empty() {
            path.push('/');
        }
        let start = path.len();
        append_escaped(name, &mut path);
        path.push('=');
        if column.is_null(row) {
            path.push_str(NULL_FOLDER);
        } else {
            let mut value = Vec::new();
            column.append(row, &mut value)?;
            let value = String::from_utf8_lossy(&value);
            // The text that stands for NULL must not be mistaken for it.
            match value.strip_prefix('_') {
                Some(rest) if value == NULL_FOLDER => {
                    path.push_str("%5F");
                    append_escaped(rest, &mut path);
                }
                _ => append_escaped(&value, &mut path),
            }
        }
        if path.len() - start > NAME_BYTES {
            return Err(TaskError::new(
                ErrorClass::Data,
                format!(
                    "column {name} holds a value too long for a folder's name: {}",
                    &path[start..]
                ),
            ));
        }
    }
    Ok(path)
}

/// Percent-encodes what Hive does (`FileUtils.escapePathName`).
fn append_escaped(text: &str, out: &mut String) {
    for character in text.chars() {
        let special = character.is_ascii_control() || "\"#%'*/:=?\\{[]^".contains(character);
        if special {
            out.push_str(&format!("%{:02X}", character as u32));
        } else {
            out.push(character);
        }
    }
}

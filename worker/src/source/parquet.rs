//! Parquet by row groups. Each column chunk that is needed is read once, hashed as it lies in the
//! file, and decoded from memory; a reader resumes at row groups.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use bytes::{Buf, Bytes};
use gapless_common::{error::TaskError, plan::PinnedFile, range::UnitRange};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
            RowSelection,
        },
    },
    errors::ParquetError,
    file::{
        metadata::RowGroupMetaData,
        reader::{ChunkReader, Length},
    },
};
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    storage::{StoredFile, object_error_in},
    type_names::type_names,
};

use super::{
    InputBatch, Intake, Origin, Place, SourceReader,
    csv::{projected, projected_schema},
    nested::{open_type, opened},
    pins::{changed, config, data, file_of, io_error, open_pinned, pin},
    shown::row_as_text,
};

/// Rows of a batch: enough to spread the cost of a batch, few enough to stay in the cache.
const BATCH: usize = 8192;

/// What the footer of a file tells.
pub struct Footer {
    pub pinned: PinnedFile,
    pub schema: SchemaRef,
    /// Rows of each row group.
    pub group_rows: Vec<u64>,
}

/// Reads a file's footer and pins the file: one unit for each row group.
///
/// Errors: `Config` for a file that cannot be opened, `Data` for one that is no Parquet.
pub fn footer(base_dir: &Path, path: &str) -> Result<Footer, TaskError> {
    let (file, mut pinned) = pin(base_dir, path)?;
    let metadata = load(&file, path)?;
    let groups = metadata.metadata().row_groups();
    let group_rows: Vec<u64> = groups.iter().map(|group| group.num_rows() as u64).collect();
    pinned.units = group_rows.len() as u64;
    pinned.rows = Some(group_rows.iter().sum());
    let open = |field: &Arc<Field>| with_type(field, open_type(field.data_type()));
    let fields: Vec<Arc<Field>> = metadata.schema().fields().iter().map(open).collect();
    Ok(Footer {
        pinned,
        schema: Arc::new(Schema::new(fields)),
        group_rows,
    })
}

/// Loads the footer, with text as views, which need no copy.
fn load(file: &StoredFile, path: &str) -> Result<ArrowReaderMetadata, TaskError> {
    let broken = |error: ParquetError| match error {
        ParquetError::External(inner) if inner.downcast_ref::<std::io::Error>().is_some() => {
            match inner.downcast_ref::<std::io::Error>() {
                Some(error) if object_error_in(error).is_some() => io_error(path, "reading", error),
                _ => data(format!("{path}: reading the Parquet footer failed: {inner}")),
            }
        }
        error => data(format!(
            "{path}: not a readable Parquet file: {error}; it is cut off, still being written, or something else"
        )),
    };
    let stored = ArrowReaderMetadata::load(file, ArrowReaderOptions::new()).map_err(broken)?;
    let fields: Vec<Arc<Field>> = stored
        .schema()
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Dictionary(_, value) => with_type(field, viewed(value)),
            plain => with_type(field, viewed(plain)),
        })
        .collect();
    // Metadata of the writer (pandas, Spark) is nobody's business downstream, and differs by file.
    let viewed = Arc::new(Schema::new(fields));
    let options = ArrowReaderOptions::new().with_schema(viewed);
    ArrowReaderMetadata::try_new(stored.metadata().clone(), options).map_err(broken)
}

/// Text as a view; all else as it is.
fn viewed(ty: &DataType) -> DataType {
    match ty {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        other => other.clone(),
    }
}

fn with_type(field: &Field, ty: DataType) -> Arc<Field> {
    Arc::new(field.clone().with_data_type(ty))
}

/// The schema that holds rows of both files, or the column that differs.
///
/// Errors: `Config` naming the file and the column.
pub fn unite(first: &Schema, path: &str, other: &Schema) -> Result<Schema, TaskError> {
    let differs = |what: String| {
        config(format!(
            "{path}: its columns differ from those of the first file: {what}; all files of a source have the same columns"
        ))
    };
    let mut fields = Vec::with_capacity(first.fields().len());
    for field in first.fields() {
        let same = other
            .field_with_name(field.name())
            .map_err(|_| differs(format!("column {} is missing", field.name())))?;
        if same.data_type() != field.data_type() {
            let (is, first) = type_names(same.data_type(), field.data_type());
            return Err(differs(format!("column {} is {is} instead of {first}", field.name())));
        }
        let nullable = field.is_nullable() || same.is_nullable();
        fields.push(Field::new(field.name(), field.data_type().clone(), nullable));
    }
    if let Some(extra) = other
        .fields()
        .iter()
        .find(|field| first.field_with_name(field.name()).is_err())
    {
        return Err(differs(format!("column {} is extra", extra.name())));
    }
    Ok(Schema::new(fields))
}

/// Reads the row groups of one unit range.
pub struct ParquetReader {
    base_dir: PathBuf,
    files: Arc<[PinnedFile]>,
    /// The unit at which the first of `files` begins.
    first_unit: u64,
    schema: SchemaRef,
    range: UnitRange,
    position: u64,
    /// The file of the present row group.
    open: Option<OpenFile>,
    group: Option<OpenGroup>,
    intake: Intake,
}

struct OpenFile {
    file: StoredFile,
    path: Arc<str>,
    metadata: ArrowReaderMetadata,
    /// Units of the domain that are row groups of this file.
    units: UnitRange,
    mask: ProjectionMask,
}

struct OpenGroup {
    reader: ParquetRecordBatchReader,
    /// Row number in the file of the next row.
    row: u64,
    left: u64,
}

impl ParquetReader {
    /// `files` holds at least those of `range`; the first begins at `first_unit`. `schema`: all
    /// columns of the source; `projection`: names of those that are read.
    ///
    /// Errors: `Config` for a projected name that is no column.
    pub fn new(
        base_dir: PathBuf,
        files: Arc<[PinnedFile]>,
        first_unit: u64,
        schema: &SchemaRef,
        projection: Option<&[String]>,
        range: UnitRange,
    ) -> Result<ParquetReader, TaskError> {
        let schema = projected_schema(schema, projection)?;
        Ok(ParquetReader {
            base_dir,
            files,
            first_unit,
            schema,
            range,
            position: range.low,
            open: None,
            group: None,
            intake: Intake::default(),
        })
    }

    fn open_file(&mut self) -> Result<&OpenFile, TaskError> {
        let unit = self.position;
        let is_open = |open: &OpenFile| open.units.low <= unit && unit < open.units.high;
        if !self.open.as_ref().is_some_and(is_open) {
            let (number, units) = file_of(&self.files, self.first_unit, unit)?;
            self.open = Some(open_file(&self.base_dir, &self.files[number], units, &self.schema)?);
        }
        Ok(self.open.as_ref().expect("just opened"))
    }

    /// Reads and hashes the wanted column chunks of the row group at the present position.
    fn open_group(&mut self) -> Result<(), TaskError> {
        let unit = self.position;
        let open = self.open_file()?;
        let index = (unit - open.units.low) as usize;
        let groups = open.metadata.metadata().row_groups();
        let chunks = ChunksInMemory::read(open, &groups[index])?;
        let row = groups[..index].iter().map(|group| group.num_rows() as u64).sum();
        let left = groups[index].num_rows() as u64;
        let (read, hashes) = (chunks.bytes_read(), chunks.hashes());
        let reader = open.group_reader(chunks, index, None)?;
        self.intake.bytes += read;
        for hash in hashes {
            self.intake.records.add(hash);
        }
        self.group = Some(OpenGroup { reader, row, left });
        Ok(())
    }
}

fn open_file(base_dir: &Path, pinned: &PinnedFile, units: UnitRange, wanted: &Schema) -> Result<OpenFile, TaskError> {
    let file = open_pinned(base_dir, pinned)?;
    let metadata = load(&file, &pinned.path)?;
    let footer = metadata.metadata();
    let rows: u64 = footer.row_groups().iter().map(|group| group.num_rows() as u64).sum();
    if footer.num_row_groups() as u64 != pinned.units || pinned.rows.is_some_and(|pinned| pinned != rows) {
        let told = format!(
            "its footer tells {} row groups and {rows} rows, the plan {} and {}",
            footer.num_row_groups(),
            pinned.units,
            pinned.rows.unwrap_or_default()
        );
        return Err(changed(&pinned.path, &told));
    }
    let roots: Result<Vec<usize>, TaskError> = wanted
        .fields()
        .iter()
        .map(|field| {
            let found = metadata.schema().index_of(field.name());
            found.map_err(|_| changed(&pinned.path, &format!("no column {}", field.name())))
        })
        .collect();
    let mask = ProjectionMask::roots(metadata.parquet_schema(), roots?);
    Ok(OpenFile {
        file,
        path: Arc::from(pinned.path.as_str()),
        metadata,
        units,
        mask,
    })
}

impl OpenFile {
    fn group_reader(
        &self,
        chunks: ChunksInMemory,
        index: usize,
        selection: Option<RowSelection>,
    ) -> Result<ParquetRecordBatchReader, TaskError> {
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(chunks, self.metadata.clone())
            .with_row_groups(vec![index])
            .with_projection(self.mask.clone())
            .with_batch_size(BATCH);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        builder.build().map_err(|error| damaged(&self.path, index, &error))
    }
}

fn damaged(path: &str, group: usize, error: &dyn std::fmt::Display) -> TaskError {
    data(format!("{path}: row group {group} is damaged: {error}"))
}

impl SourceReader for ParquetReader {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn next_batch(&mut self) -> Result<Option<InputBatch>, TaskError> {
        loop {
            if self.group.is_none() {
                if self.position >= self.range.high {
                    return Ok(None);
                }
                self.open_group()?;
            }
            let (Some(group), Some(open)) = (&mut self.group, &self.open) else {
                continue;
            };
            let index = (self.position - open.units.low) as usize;
            match group.reader.next() {
                Some(batch) => {
                    let batch = batch.map_err(|error| damaged(&open.path, index, &error))?;
                    let rows = batch.num_rows() as u64;
                    let origin = ParquetOrigin {
                        path: open.path.clone(),
                        row: group.row,
                        batch: conform(batch, &self.schema, &open.path)?,
                    };
                    group.row += rows;
                    group.left = group.left.saturating_sub(rows);
                    self.intake.read += rows;
                    // The end of the row group is a place to stop at, known with its last batch.
                    if group.left == 0 {
                        self.group = None;
                        self.position += 1;
                    }
                    return Ok(Some(InputBatch {
                        batch: origin.batch.clone(),
                        origin: Arc::new(origin),
                    }));
                }
                None if group.left > 0 => {
                    let missing = format!("{} rows fewer than its footer tells", group.left);
                    return Err(damaged(&open.path, index, &missing));
                }
                None => {
                    self.group = None;
                    self.position += 1;
                }
            }
        }
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn may_stop(&self) -> bool {
        self.group.is_none()
    }

    fn take_intake(&mut self) -> Intake {
        std::mem::take(&mut self.intake)
    }
}

/// The batch with the columns of the source in the source's order and nullability.
fn conform(batch: RecordBatch, schema: &SchemaRef, path: &str) -> Result<RecordBatch, TaskError> {
    let differs = |error: &dyn std::fmt::Display| {
        config(format!(
            "{path}: its columns are not those that were planned for: {error}"
        ))
    };
    let columns: Result<Vec<ArrayRef>, TaskError> = schema
        .fields()
        .iter()
        .map(|field| {
            let column = batch
                .column_by_name(field.name())
                .ok_or_else(|| differs(&format!("no column {}", field.name())))?;
            let column = opened(column).map_err(|error| differs(&error))?;
            match column.data_type() == field.data_type() {
                true => Ok(column),
                false => cast(&column, field.data_type()).map_err(|error| differs(&error)),
            }
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns?, &options).map_err(|error| differs(&error))
}

/// The wanted column chunks of one row group, by their place in the file, ascending.
struct ChunksInMemory {
    file_len: u64,
    chunks: Vec<(u64, Bytes)>,
}

impl ChunksInMemory {
    fn read(open: &OpenFile, group: &RowGroupMetaData) -> Result<ChunksInMemory, TaskError> {
        let mut chunks = Vec::new();
        let file_len = open
            .file
            .size()
            .map_err(|error| io_error(&open.path, "reading", &error))?;
        for (leaf, column) in group.columns().iter().enumerate() {
            if !open.mask.leaf_included(leaf) {
                continue;
            }
            let (start, len) = column.byte_range();
            if start.checked_add(len).is_none_or(|end| end > file_len) {
                return Err(data(format!(
                    "{}: damaged: the chunk of column {} at {start} reaches beyond the file's end",
                    open.path,
                    column.column_path()
                )));
            }
            let mut bytes = vec![0; len as usize];
            open.file
                .read_exact_at(&mut bytes, start)
                .map_err(|error| io_error(&open.path, "reading", &error))?;
            chunks.push((start, Bytes::from(bytes)));
        }
        chunks.sort_by_key(|(start, _)| *start);
        Ok(ChunksInMemory { file_len, chunks })
    }

    fn bytes_read(&self) -> u64 {
        self.chunks.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    fn hashes(&self) -> Vec<u128> {
        self.chunks.iter().map(|(_, bytes)| xxh3_128(bytes)).collect()
    }

    /// What is in memory from `start` to the end of its chunk.
    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        let at = self.chunks.partition_point(|(chunk, _)| *chunk <= start);
        let (chunk, bytes) = at
            .checked_sub(1)
            .and_then(|at| self.chunks.get(at))
            .ok_or_else(|| outside(start))?;
        let offset = (start - chunk) as usize;
        if offset > bytes.len() {
            return Err(outside(start));
        }
        Ok(bytes.slice(offset..))
    }
}

fn outside(start: u64) -> ParquetError {
    ParquetError::General(format!("a page at byte {start} lies outside its column chunk"))
}

impl Length for ChunksInMemory {
    fn len(&self) -> u64 {
        self.file_len
    }
}

impl ChunkReader for ChunksInMemory {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.from(start)?;
        if length > bytes.len() {
            return Err(outside(start));
        }
        Ok(bytes.slice(..length))
    }
}

struct ParquetOrigin {
    path: Arc<str>,
    row: u64,
    batch: RecordBatch,
}

impl Origin for ParquetOrigin {
    fn locate(&self, row: usize) -> Place {
        let raw = row_as_text(&self.batch, row);
        Place {
            file: self.path.to_string(),
            line: None,
            row: Some(self.row + row as u64),
            block: None,
            raw,
        }
    }
}

/// Draws about `count` rows of one column, evenly over at most `groups` row groups that lie evenly
/// over the files. Answers the arrays and whether they are all rows.
///
/// Errors: as reading does.
pub fn sample_column(
    base_dir: &Path,
    files: &[PinnedFile],
    schema: &SchemaRef,
    column: &str,
    count: usize,
    groups: usize,
) -> Result<(Vec<ArrayRef>, bool), TaskError> {
    let wanted = projected(
        schema.fields().iter().map(|field| field.name().as_str()),
        Some(&[column.to_string()]),
    )?;
    let schema = schema.project(&wanted).map_err(|error| config(error.to_string()))?;
    let total: u64 = files.iter().map(|file| file.units).sum();
    let rows: u64 = files.iter().filter_map(|file| file.rows).sum();
    let complete = rows <= count as u64 && total <= groups as u64;
    let picked: Vec<u64> = match total <= groups as u64 {
        true => (0..total).collect(),
        // The middle of each of `groups` equal stretches.
        false => (0..groups as u64)
            .map(|i| (2 * i + 1) * total / (2 * groups as u64))
            .collect(),
    };
    let mut arrays = Vec::new();
    let (mut picked, mut low) = (picked.into_iter().peekable(), 0);
    let share = match complete {
        true => u64::MAX,
        false => (count as u64).div_ceil(total.clamp(1, groups as u64)),
    };
    for pinned in files {
        let units = UnitRange::new(low, low + pinned.units);
        low = units.high;
        if picked.peek().is_none_or(|unit| *unit >= units.high) {
            continue;
        }
        let open = open_file(base_dir, pinned, units, &schema)?;
        while let Some(unit) = picked.next_if(|unit| *unit < units.high) {
            let index = (unit - units.low) as usize;
            let group = open.metadata.metadata().row_group(index);
            let selection = evenly(group.num_rows() as u64, share);
            let reader = open.group_reader(ChunksInMemory::read(&open, group)?, index, Some(selection))?;
            for batch in reader {
                let batch = batch.map_err(|error| damaged(&open.path, index, &error))?;
                arrays.push(batch.column(0).clone());
            }
        }
    }
    Ok((arrays, complete))
}

/// Selects `share` of `rows` rows at even distances.
fn evenly(rows: u64, share: u64) -> RowSelection {
    let share = share.min(rows);
    let picks = (0..share).map(|i| ((2 * i + 1) * rows / (2 * share)) as usize);
    RowSelection::from_consecutive_ranges(picks.map(|at| at..at + 1), rows as usize)
}

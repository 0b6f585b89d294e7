//! Avro object container files by blocks. A block belongs to the range that holds its first byte; behind a block is a
//! place to resume at. Blocks are hashed as they lie in the file.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringViewBuilder},
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit},
};
use arrow_avro::{
    reader::{Decoder, ReaderBuilder},
    schema::{AvroSchema, CONFLUENT_MAGIC, Fingerprint, FingerprintAlgorithm, SchemaStore},
};
use gapless_common::{error::TaskError, plan::PinnedFile, range::UnitRange};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    InputBatch, Intake, Origin, Place, SourceReader,
    csv::projected_schema,
    nested::{open_type, opened},
    pins::{changed, config, file_of, open_pinned, pin},
    shown::row_as_text,
};
use crate::{
    avro::{Block, Blocks, KEPT_ROOM, Shape},
    type_names::type_name,
};

/// Rows of a batch: enough to spread the cost of a batch, few enough to stay in the cache.
const BATCH: usize = 8192;

/// Bytes of decoded records after which a batch ends all the same.
const BATCH_BYTES: usize = 8 << 20;

/// The decoder takes records out of a stream of messages, each with the number of its schema in front.
const SCHEMA_NUMBER: u32 = 0;
const MESSAGE: [u8; 5] = [CONFLUENT_MAGIC[0], 0, 0, 0, SCHEMA_NUMBER as u8];

/// What the header of a file tells.
pub struct Head {
    pub pinned: PinnedFile,
    pub schema: SchemaRef,
}

/// Reads a file's header and pins the file: one unit for each byte.
///
/// Errors: `Config` for a file that cannot be opened, is no Avro, or has a schema that columns cannot hold; `Data` for one
/// that is cut off.
pub fn head(base_dir: &Path, path: &str) -> Result<Head, TaskError> {
    let (file, mut pinned) = pin(base_dir, path)?;
    let blocks = Blocks::open(file, path, pinned.size)?;
    let schema = Arc::new(columns(&blocks.header().schema, path)?);
    pinned.units = pinned.size;
    Ok(Head { pinned, schema })
}

/// Counts the rows of blocks in a range of a file's bytes, by their heads alone, and the bytes that these blocks take.
/// Looks at no more than `most` blocks.
///
/// Errors: as reading.
pub fn count_rows(
    base_dir: &Path,
    pinned: &PinnedFile,
    (low, high): (u64, u64),
    most: usize,
) -> Result<(u64, u64), TaskError> {
    let mut blocks = Blocks::open(open_pinned(base_dir, pinned)?, &pinned.path, pinned.size)?;
    let (mut rows, mut bytes) = (0u64, 0);
    let mut next = blocks.first(low, high)?;
    for _ in 0..most {
        let Some(at) = next.filter(|at| *at < high) else { break };
        let Some(block) = blocks.at(at)? else { break };
        rows = rows.saturating_add(block.rows);
        bytes += block.end - block.at;
        next = Some(block.end);
    }
    Ok((rows, bytes))
}

/// The columns of a schema as the engine gets them.
fn columns(schema: &str, path: &str) -> Result<Schema, TaskError> {
    let refused = |what: &str| config(format!("{path}: {what}"));
    Shape::of(schema).map_err(|what| refused(&what))?;
    let decoder = decoder(schema, None).map_err(|what| refused(&format!("its schema cannot be read: {what}")))?;
    let fields: Result<Vec<Field>, TaskError> = decoder
        .schema()
        .fields()
        .iter()
        .map(|field| {
            let name = field.name();
            let ty = engine_type(field).map_err(|what| refused(&format!("column {name}: {what}")))?;
            Ok(Field::new(name, ty, field.is_nullable()))
        })
        .collect();
    let fields = fields?;
    if fields.is_empty() {
        return Err(refused("its schema has no fields, so its records hold nothing"));
    }
    Ok(Schema::new(fields))
}

/// What a field becomes: text as views, which need no copy, symbols and UUIDs as text.
fn engine_type(field: &Field) -> Result<DataType, String> {
    Ok(match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Dictionary(_, _) => DataType::Utf8View,
        DataType::FixedSizeBinary(_) if is_uuid(field) => DataType::Utf8View,
        DataType::Union(_, _) => {
            return Err(
                "it is a union of several types, which no column can hold; only one type and null is read".into(),
            );
        }
        DataType::Null => return Err("its type is null alone: it holds nothing".into()),
        other => open_type(&part_type(other)?),
    })
}

/// What a part of a nested column becomes, without the notes of its writer (documentation, names elsewhere), which may
/// differ from file to file.
fn part_type(ty: &DataType) -> Result<DataType, String> {
    let part = |field: &FieldRef| {
        let ty = part_type(field.data_type())?;
        Ok::<_, String>(Arc::new(Field::new(field.name(), ty, field.is_nullable())))
    };
    Ok(match ty {
        DataType::Union(_, _) => return Err("it holds a union of several types, which no column can".into()),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(part).collect::<Result<_, _>>()?),
        DataType::List(field) => DataType::List(part(field)?),
        DataType::LargeList(field) => DataType::LargeList(part(field)?),
        DataType::Map(field, sorted) => DataType::Map(part(field)?, *sorted),
        DataType::Dictionary(_, _) => DataType::Utf8,
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("UTC".into())),
        other => other.clone(),
    })
}

fn is_uuid(field: &Field) -> bool {
    field
        .metadata()
        .get("logicalType")
        .is_some_and(|name| name.trim_matches('"') == "uuid")
}

/// `projection`: numbers of the fields that are decoded.
fn decoder(schema: &str, projection: Option<Vec<usize>>) -> Result<Decoder, String> {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    let number = Fingerprint::Id(SCHEMA_NUMBER);
    store
        .set(number, AvroSchema::new(schema.to_string()))
        .map_err(|error| error.to_string())?;
    let mut builder = ReaderBuilder::new()
        .with_batch_size(BATCH)
        // Its own views forget which values are null (arrow-avro 59.3); ours are made of the text without a copy.
        .with_utf8_view(false)
        .with_writer_schema_store(store)
        .with_active_fingerprint(number);
    if let Some(projection) = projection {
        builder = builder.with_projection(projection);
    }
    builder.build_decoder().map_err(|error| error.to_string())
}

/// Reads the blocks of one unit range.
pub struct AvroReader {
    base_dir: PathBuf,
    files: Arc<[PinnedFile]>,
    /// The unit at which the first of `files` begins.
    first_unit: u64,
    schema: SchemaRef,
    range: UnitRange,
    position: u64,
    /// The file of the present position.
    open: Option<OpenFile>,
    intake: Intake,
}

struct OpenFile {
    path: Arc<str>,
    blocks: Blocks,
    shape: Shape,
    /// `None` where no column is wanted.
    decoder: Option<Decoder>,
    /// Units of the domain that are bytes of this file.
    units: UnitRange,
    /// The byte of the file at which the next block begins; `None` where none does in the range.
    next: Option<u64>,
    block: Option<OpenBlock>,
    /// What blocks unpack to; kept for the next one.
    buffer: Vec<u8>,
}

struct OpenBlock {
    block: Block,
    /// Of `buffer`: where the next record begins.
    at: usize,
    row: u64,
}

/// Rows of a batch that stand in one block.
struct Run {
    /// The first of them, in the batch.
    first: usize,
    /// The byte of the file at which the block begins.
    block: u64,
    /// The row of the block that is the first of them.
    row: u64,
}

impl AvroReader {
    /// `files` holds at least those of `range`; the first begins at `first_unit`. `schema`: all columns of the source;
    /// `projection`: names of those that are read.
    ///
    /// Errors: `Config` for a projected name that is no column.
    pub fn new(
        base_dir: PathBuf,
        files: Arc<[PinnedFile]>,
        first_unit: u64,
        schema: &SchemaRef,
        projection: Option<&[String]>,
        range: UnitRange,
    ) -> Result<AvroReader, TaskError> {
        let schema = projected_schema(schema, projection)?;
        Ok(AvroReader {
            base_dir,
            files,
            first_unit,
            schema,
            range,
            position: range.low,
            open: None,
            intake: Intake::default(),
        })
    }

    /// Opens the file of the present position.
    fn open_file(&mut self) -> Result<OpenFile, TaskError> {
        let unit = self.position;
        let (number, units) = file_of(&self.files, self.first_unit, unit)?;
        let pinned = &self.files[number];
        let file = open_pinned(&self.base_dir, pinned)?;
        let mut blocks = Blocks::open(file, &pinned.path, pinned.size)?;
        let schema = blocks.header().schema.clone();
        let stored = columns(&schema, &pinned.path)?;
        let mut wanted = Vec::with_capacity(self.schema.fields().len());
        for field in self.schema.fields() {
            let number = stored
                .index_of(field.name())
                .map_err(|_| changed(&pinned.path, &format!("no column {}", field.name())))?;
            let is = stored.field(number);
            if is.data_type() != field.data_type() || (is.is_nullable() && !field.is_nullable()) {
                let told = format!("column {} is {}", field.name(), type_name(is.data_type()));
                return Err(changed(&pinned.path, &told));
            }
            wanted.push(number);
        }
        let refused = |what| config(format!("{}: {what}", pinned.path));
        let decoder = match wanted.len() {
            0 => None,
            some if some == stored.fields().len() => Some(decoder(&schema, None).map_err(refused)?),
            _ => {
                // In the file's order, as a type is defined before it is named. Where a column that is left out defines
                // it, all are decoded: whoever gets them takes columns by name.
                wanted.sort_unstable();
                let few = decoder(&schema, Some(wanted));
                Some(few.or_else(|_| decoder(&schema, None)).map_err(refused)?)
            }
        };
        let next = blocks.first(unit - units.low, self.range.high.min(units.high) - units.low)?;
        Ok(OpenFile {
            path: Arc::from(pinned.path.as_str()),
            blocks,
            shape: Shape::of(&schema).map_err(refused)?,
            decoder,
            units,
            next,
            block: None,
            buffer: Vec::new(),
        })
    }

    /// Decodes rows until a batch is full, or the blocks of the range that lie in this file end.
    fn fill(&mut self, open: &mut OpenFile) -> Result<(Vec<Run>, usize), TaskError> {
        // `bytes`: what the rows take when they are decoded.
        let (mut runs, mut rows, mut bytes) = (Vec::new(), 0, 0);
        let end = self.range.high.min(open.units.high) - open.units.low;
        loop {
            let Some(current) = &mut open.block else {
                let Some(at) = open.next.filter(|at| *at < end) else {
                    self.position = end + open.units.low;
                    break;
                };
                let Some(block) = open.blocks.at(at)? else {
                    self.position = end + open.units.low;
                    break;
                };
                // A batch ends with a block, where it can: chunks end there.
                if rows > 0 && (block.rows > (BATCH - rows) as u64 || bytes >= BATCH_BYTES) {
                    break;
                }
                open.blocks.unpack(&block, &mut open.buffer)?;
                self.intake.bytes += block.end - block.at;
                if block.rows > 0 {
                    self.intake.records.add(xxh3_128(open.blocks.stored(&block)?));
                }
                open.blocks.let_go();
                open.block = Some(OpenBlock { block, at: 0, row: 0 });
                continue;
            };
            if rows < BATCH && current.row < current.block.rows {
                runs.push(Run {
                    first: rows,
                    block: current.block.at,
                    row: current.row,
                });
            }
            while rows < BATCH && bytes < BATCH_BYTES && current.row < current.block.rows {
                let from = current.at;
                let passed = open.shape.pass(&open.buffer, &mut current.at);
                let record = &open.buffer[from..current.at];
                let decoded = passed.and_then(|bytes| decode(open.decoder.as_mut(), record).map(|()| bytes));
                bytes += decoded.map_err(|what| {
                    open.blocks
                        .damaged(current.block.at, &format!("row {}: {what}", current.row))
                })?;
                current.row += 1;
                rows += 1;
            }
            if current.row < current.block.rows {
                break;
            }
            if current.at != open.buffer.len() {
                let rest = open.buffer.len() - current.at;
                let what = format!("behind its {} rows, {rest} bytes are left", current.block.rows);
                return Err(open.blocks.damaged(current.block.at, &what));
            }
            // The end of the block is a place to stop at, known with its last row.
            let next = current.block.end;
            open.next = Some(next);
            open.block = None;
            if open.buffer.capacity() > KEPT_ROOM {
                open.buffer = Vec::new();
            }
            self.position = next.min(end) + open.units.low;
        }
        Ok((runs, rows))
    }
}

/// Errors say what is wrong with the record.
fn decode(decoder: Option<&mut Decoder>, record: &[u8]) -> Result<(), String> {
    let Some(decoder) = decoder else { return Ok(()) };
    if record.is_empty() {
        return Err("it has no bytes; records of nulls alone are not read".into());
    }
    for piece in [&MESSAGE[..], record] {
        match decoder.decode(piece) {
            Ok(taken) if taken == piece.len() => {}
            Ok(taken) => return Err(format!("{taken} of its {} bytes were decoded", piece.len())),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

impl SourceReader for AvroReader {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn next_batch(&mut self) -> Result<Option<InputBatch>, TaskError> {
        while self.position < self.range.high || self.open.as_ref().is_some_and(|open| open.block.is_some()) {
            let position = self.position;
            let is_of =
                |open: &OpenFile| open.block.is_some() || open.units.low <= position && position < open.units.high;
            let mut open = match self.open.take().filter(is_of) {
                Some(open) => open,
                None => self.open_file()?,
            };
            let (runs, rows) = self.fill(&mut open)?;
            let decoded = match (rows, &mut open.decoder) {
                (0, _) | (_, None) => None,
                (_, Some(decoder)) => decoder.flush().map_err(|error| {
                    let at = runs.first().map_or(0, |run| run.block);
                    open.blocks.damaged(at, &error.to_string())
                })?,
            };
            let path = open.path.clone();
            self.open = Some(open);
            if rows == 0 {
                continue;
            }
            self.intake.read += rows as u64;
            let batch = conform(decoded, rows, &self.schema, &path)?;
            return Ok(Some(InputBatch {
                batch: batch.clone(),
                origin: Arc::new(AvroOrigin { path, runs, batch }),
            }));
        }
        Ok(None)
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn may_stop(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.block.is_none())
    }

    fn take_intake(&mut self) -> Intake {
        std::mem::take(&mut self.intake)
    }
}

/// The batch with the columns of the source, in the source's order and types.
fn conform(
    decoded: Option<RecordBatch>,
    rows: usize,
    schema: &SchemaRef,
    path: &str,
) -> Result<RecordBatch, TaskError> {
    let differs = |what: String| {
        config(format!(
            "{path}: its columns are not those that were planned for: {what}"
        ))
    };
    let columns: Result<Vec<ArrayRef>, TaskError> = schema
        .fields()
        .iter()
        .map(|field| {
            let batch = decoded.as_ref().ok_or_else(|| differs("nothing was decoded".into()))?;
            let column = batch
                .column_by_name(field.name())
                .ok_or_else(|| differs(format!("no column {}", field.name())))?;
            let column = &opened(column).map_err(|error| differs(error.to_string()))?;
            if column.data_type() == field.data_type() {
                return Ok(column.clone());
            }
            match (column.data_type(), field.data_type()) {
                (DataType::FixedSizeBinary(16), DataType::Utf8View) => Ok(uuids_as_text(column)),
                (_, ty) => cast(column, ty).map_err(|error| differs(error.to_string())),
            }
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns?, &options).map_err(|error| differs(error.to_string()))
}

fn uuids_as_text(column: &ArrayRef) -> ArrayRef {
    let mut texts = StringViewBuilder::with_capacity(column.len());
    for value in column.as_fixed_size_binary().iter() {
        let uuid = value.and_then(|value| uuid::Uuid::from_slice(value).ok());
        texts.append_option(uuid.map(|uuid| uuid.hyphenated().to_string()));
    }
    Arc::new(texts.finish())
}

struct AvroOrigin {
    path: Arc<str>,
    runs: Vec<Run>,
    batch: RecordBatch,
}

impl Origin for AvroOrigin {
    fn locate(&self, row: usize) -> Place {
        let after = self.runs.partition_point(|run| run.first <= row);
        let run = after.checked_sub(1).and_then(|at| self.runs.get(at));
        Place {
            file: self.path.to_string(),
            line: None,
            row: run.map(|run| run.row + (row - run.first) as u64),
            block: run.map(|run| run.block),
            raw: row_as_text(&self.batch, row),
        }
    }
}

/// The type that a column of this type has when it is read back from a file that we wrote; `None` for types that are not
/// written.
pub(crate) fn read_back(ty: &DataType) -> Option<DataType> {
    Some(match ty {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        // What an unsigned number of 64 bits needs.
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, value) => return read_back(value),
        DataType::Decimal32(digits, scale)
        | DataType::Decimal64(digits, scale)
        | DataType::Decimal128(digits, scale) => {
            if *scale < 0 {
                return None;
            }
            DataType::Decimal128(*digits, *scale)
        }
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) => DataType::Time32(TimeUnit::Millisecond),
        DataType::Timestamp(unit, zone) => {
            let unit = match unit {
                TimeUnit::Second => TimeUnit::Millisecond,
                other => *other,
            };
            DataType::Timestamp(unit, zone.as_ref().map(|_| "UTC".into()))
        }
        DataType::Boolean
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::FixedSizeBinary(_)
        | DataType::Date32
        | DataType::Time64(TimeUnit::Microsecond) => ty.clone(),
        _ => return None,
    })
}

#[cfg(test)]
pub(super) mod tests;

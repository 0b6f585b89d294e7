//! Opening the sink of one chunk.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int32Array, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use gapless_common::{
    attempt::Fence,
    error::{ErrorClass, TaskError},
    ids::{PartitionNo, Stage},
    job::{FileSink, Sink, SplitBy},
};

use super::{
    ChunkSink, SealedChunk,
    format::{Format, wrong_batch},
    hive::HiveSink,
    json,
    plain::{DiscardSink, PlainSink, Staging},
    split::{SplitSink, check_split},
    text::check_type,
};
use crate::{
    attempt::StepContext,
    storage::{ChunkName, FirstUnit, StepFolders},
};

/// Where one chunk puts its files, rejects and manifest.
#[derive(Clone, Debug)]
pub struct ChunkTarget {
    pub(super) folders: StepFolders,
    pub(super) chunk: ChunkName,
    pub(super) discards: bool,
    /// The first unit of the chunk, where the names of files must follow the order of the output.
    pub(super) low: Option<FirstUnit>,
    /// The run's time: `now()` in SQL.
    pub(super) now_micros: i64,
}

impl ChunkTarget {
    pub fn new(
        context: &StepContext,
        stage: Stage,
        partition: PartitionNo,
        fence: Fence,
        seq: u32,
    ) -> Result<Self, TaskError> {
        Ok(Self {
            folders: StepFolders::of(context)?,
            chunk: ChunkName {
                stage,
                partition,
                attempt: fence.id,
                seq,
            },
            discards: matches!(context.step().sink, Sink::Discard),
            low: None,
            now_micros: context.started_micros,
        })
    }

    /// The target of a chunk that keeps its files in `folders`.
    pub fn at(folders: StepFolders, chunk: ChunkName) -> Self {
        Self {
            folders,
            chunk,
            discards: false,
            low: None,
            now_micros: 0,
        }
    }

    /// The target of a chunk of an output with an order.
    pub fn in_order(self, low: FirstUnit) -> Self {
        Self { low: Some(low), ..self }
    }

    pub fn folders(&self) -> &StepFolders {
        &self.folders
    }

    pub fn chunk(&self) -> ChunkName {
        self.chunk
    }

    pub(crate) fn staging(&self, format: Format) -> Staging {
        Staging::new(self.folders.clone(), self.chunk, self.low, format)
    }
}

/// Opens the sink of a chunk of an execute partition. `output` is the schema of the transform's
/// rows; the sink adds and removes what its options ask for.
///
/// Call it for every chunk, also for one without rows: the first chunk of partition 0 leaves an
/// empty file then, so that an empty output still has its schema.
pub fn open_chunk(sink: &Sink, output: &SchemaRef, target: &ChunkTarget) -> Result<Box<dyn ChunkSink>, TaskError> {
    let Some((format, file)) = Format::of(sink)? else {
        return Ok(Box::new(DiscardSink));
    };
    check_sink(sink, output)?;
    let numbered = with_partition_number(file, output);
    let format = format.of_chunks();
    let staging = || target.staging(format.clone());
    let split = file.split.as_ref();
    let named = match split {
        Some(split) => SplitSink::new(split, &numbered, target.now_micros, &staging)?,
        None => None,
    };
    let staging = staging();
    let inner: Box<dyn ChunkSink> = if let Some(named) = named {
        Box::new(named)
    } else if file.partition_by.is_empty() {
        let most_rows = split.and_then(|split| match split.by {
            SplitBy::Rows(rows) => Some(rows),
            _ => None,
        });
        let first = target.chunk.partition == 0 && target.chunk.seq == 0;
        Box::new(PlainSink::new(staging, numbered.clone(), first, most_rows))
    } else {
        Box::new(HiveSink::new(staging, &numbered, &file.partition_by)?)
    };
    Ok(match file.partition_column {
        Some(_) => Box::new(NumberedSink {
            inner,
            schema: numbered,
            partition: target.chunk.partition,
        }),
        None => inner,
    })
}

/// The schema of the files a sink writes; that of the transform for one that keeps nothing.
pub fn written_schema(sink: &Sink, output: &SchemaRef) -> Result<SchemaRef, TaskError> {
    check_sink(sink, output)?;
    let Some(file) = sink.file() else {
        return Ok(output.clone());
    };
    let numbered = with_partition_number(file, output);
    let fields: Vec<_> = numbered
        .fields()
        .iter()
        .filter(|field| !file.partition_by.contains(field.name()))
        .cloned()
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// What a sink says of itself, whatever the columns.
///
/// Errors: `Config`.
pub fn check_sink_alone(sink: &Sink) -> Result<(), TaskError> {
    Format::of(sink).map(drop)
}

/// Checks a sink's options against the rows it will get.
///
/// Errors: `Config`, naming the column and what there is.
pub fn check_sink(sink: &Sink, output: &SchemaRef) -> Result<(), TaskError> {
    let config = |message: String| Err(TaskError::new(ErrorClass::Config, message));
    let Some((format, file)) = Format::of(sink)? else {
        return Ok(());
    };
    if let Some(name) = &file.partition_column
        && output.index_of(name).is_ok()
    {
        return config(format!(
            "partition_column: the output has a column {name} already; choose another name"
        ));
    }
    let numbered = with_partition_number(file, output);
    let names: Vec<&str> = numbered.fields().iter().map(|field| field.name().as_str()).collect();
    for (number, name) in file.partition_by.iter().enumerate() {
        let Ok(field) = numbered.field_with_name(name) else {
            return config(format!(
                "partition_by: no column {name} in the output; there are {}",
                names.join(", ")
            ));
        };
        check_type(name, field.data_type())?;
        if file.partition_by[..number].contains(name) {
            return config(format!("partition_by: {name} stands twice"));
        }
    }
    if let Some(split) = &file.split {
        check_split(split, &numbered)?;
    }
    if file.partition_by.len() == names.len() {
        return config("partition_by: every column would become a folder; at least one must be left".into());
    }
    format.check(&numbered)?;
    for field in numbered.fields() {
        match format {
            Format::Ndjson(_) => json::check_type(field.name(), field.data_type())?,
            _ if format.is_text() => check_type(field.name(), field.data_type())?,
            _ => {}
        }
    }
    Ok(())
}

fn with_partition_number(file: &FileSink, output: &SchemaRef) -> SchemaRef {
    let Some(name) = &file.partition_column else {
        return output.clone();
    };
    let mut fields: Vec<_> = output.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(name, DataType::Int32, false)));
    Arc::new(Schema::new(fields))
}

/// Adds the partition number as a last column.
struct NumberedSink {
    inner: Box<dyn ChunkSink>,
    schema: SchemaRef,
    partition: PartitionNo,
}

impl NumberedSink {
    fn number(&self, batch: &RecordBatch) -> Result<RecordBatch, TaskError> {
        let mut columns = batch.columns().to_vec();
        // Partition numbers end far below 2^31.
        let numbers: ArrayRef = Arc::new(Int32Array::from_value(self.partition as i32, batch.num_rows()));
        columns.push(numbers);
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| wrong_batch(&e))
    }
}

impl ChunkSink for NumberedSink {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        self.inner.write(&self.number(batch)?)
    }

    fn undecided(&mut self, batch: &RecordBatch) -> Result<Option<String>, TaskError> {
        self.inner.undecided(&self.number(batch)?)
    }

    fn seal(self: Box<Self>) -> Result<SealedChunk, TaskError> {
        self.inner.seal()
    }
}

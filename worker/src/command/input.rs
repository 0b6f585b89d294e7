//! Records on their way to a program.

use std::{
    io::{self, BufWriter, PipeWriter, Write},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender},
    },
};

use arrow::{
    array::RecordBatch,
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
    ipc::writer::StreamWriter,
};
use arrow_json::writer::{LineDelimited, WriterBuilder};
use gapless_common::job::CommandFormat;

use super::Event;

/// What stands behind the last record: a reader of Arrow IPC need not look at the mark of the end.
pub(super) fn end_mark(format: CommandFormat) -> usize {
    match format {
        CommandFormat::Arrow => 8,
        CommandFormat::Ndjson => 0,
    }
}

/// Written in pieces of this size.
const BUFFER: usize = 256 * 1024;

pub(super) struct Writer {
    pub format: CommandFormat,
    pub input: SchemaRef,
}

impl Writer {
    /// Writes what comes until no more can come, then closes the program's input.
    pub fn write(self, stdin: PipeWriter, batches: &Receiver<RecordBatch>, events: &SyncSender<Event>) {
        let ended = match self.format {
            CommandFormat::Arrow => self.write_arrow(stdin, batches, events),
            CommandFormat::Ndjson => write_ndjson(stdin, batches, events),
        };
        let ended = ended.map_err(|error| match error {
            ArrowError::IoError(_, error) => error,
            other => io::Error::other(other),
        });
        // Nobody listens any more where the attempt has ended.
        events.send(Event::InputEnded(ended)).ok();
    }

    fn write_arrow(
        &self,
        stdin: PipeWriter,
        batches: &Receiver<RecordBatch>,
        events: &SyncSender<Event>,
    ) -> Result<(), ArrowError> {
        let schema = travelling(&self.input);
        let mut writer = StreamWriter::try_new(BufWriter::with_capacity(BUFFER, stdin), &schema)?;
        // The program may want to see it before there are records.
        writer.flush()?;
        for batch in batches {
            let columns = batch.columns().iter().zip(schema.fields());
            let columns: Result<Vec<_>, _> = columns
                .map(|(column, field)| match column.data_type() == field.data_type() {
                    true => Ok(column.clone()),
                    false => cast(column, field.data_type()),
                })
                .collect();
            writer.write(&RecordBatch::try_new(schema.clone(), columns?)?)?;
            writer.flush()?;
            events.send(Event::Taken).ok();
        }
        writer.finish()?;
        writer.into_inner()?.flush()?;
        Ok(())
    }
}

fn write_ndjson(
    stdin: PipeWriter,
    batches: &Receiver<RecordBatch>,
    events: &SyncSender<Event>,
) -> Result<(), ArrowError> {
    let mut out = BufWriter::with_capacity(BUFFER, stdin);
    for batch in batches {
        let builder = WriterBuilder::new().with_explicit_nulls(true);
        let mut writer = builder.build::<_, LineDelimited>(&mut out);
        writer.write(&batch)?;
        writer.finish()?;
        out.flush()?;
        events.send(Event::Taken).ok();
    }
    out.flush()?;
    Ok(())
}

/// The types that every Arrow library knows: text as `Utf8`, bytes as `Binary`.
fn travelling(schema: &Schema) -> SchemaRef {
    let field = |field: &Arc<Field>| {
        let ty = match field.data_type() {
            DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
            DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
            other => other.clone(),
        };
        Field::new(field.name(), ty, field.is_nullable())
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

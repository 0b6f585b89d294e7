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
use gapless_common::{
    error::{ErrorClass, TaskError},
    job::CommandFormat,
};

use super::Event;
use crate::sink::JsonLines;

/// Why a program was not given all of its records.
#[derive(Debug)]
pub(super) enum InputError {
    /// It takes no more.
    Closed,
    /// They have no form in which it could be given them.
    Formless(TaskError),
}

impl From<io::Error> for InputError {
    fn from(_: io::Error) -> InputError {
        InputError::Closed
    }
}

impl From<TaskError> for InputError {
    fn from(error: TaskError) -> InputError {
        InputError::Formless(error)
    }
}

impl From<ArrowError> for InputError {
    fn from(error: ArrowError) -> InputError {
        match error {
            ArrowError::IoError(..) => InputError::Closed,
            other => InputError::Formless(TaskError::new(ErrorClass::Data, other.to_string())),
        }
    }
}

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
            CommandFormat::Ndjson => self.write_ndjson(stdin, batches, events),
        };
        // Nobody listens any more where the attempt has ended.
        events.send(Event::InputEnded(ended)).ok();
    }

    fn write_arrow(
        &self,
        stdin: PipeWriter,
        batches: &Receiver<RecordBatch>,
        events: &SyncSender<Event>,
    ) -> Result<(), InputError> {
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

    fn write_ndjson(
        &self,
        mut stdin: PipeWriter,
        batches: &Receiver<RecordBatch>,
        events: &SyncSender<Event>,
    ) -> Result<(), InputError> {
        let lines = JsonLines::of(&self.input)?;
        let mut buffer = Vec::with_capacity(BUFFER);
        for batch in batches {
            let mut written = Ok(());
            let appended = lines.append(&batch, &mut buffer, |buffer| {
                if buffer.len() >= BUFFER && written.is_ok() {
                    written = stdin.write_all(buffer);
                    buffer.clear();
                }
                Ok(())
            });
            written?;
            appended?;
            stdin.write_all(&buffer)?;
            buffer.clear();
            events.send(Event::Taken).ok();
        }
        Ok(())
    }
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

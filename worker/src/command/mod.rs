//! Programs: `transform.command`. A program of any language reads records on its standard input and writes
//! records on its standard output; a run of it takes a chunk or a whole partition.
//!
//! Records are written to it and read from it on two threads, so that neither pipe can hold up the other; the
//! attempt's own thread reads the source, hands output to the sink and watches the clock. All queues between
//! them are bounded.

mod inherited;
mod input;
mod output;
mod process;
mod said;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use arrow::{
    array::RecordBatch,
    datatypes::{Field, Schema, SchemaRef},
};
use gapless_common::{
    error::{ErrorClass, TaskError},
    job::{Command, CommandMode, Partition},
    plan::{TransformFacts, TransformMode},
};

use crate::{source::csv::arrow_type, type_names::type_name};
pub use inherited::Inherited;
use input::InputError;
use output::{OutputError, Reshape};
use process::Process;

/// Between two looks at whether the attempt is to stop, while the program says nothing.
const LOOK: Duration = Duration::from_millis(100);
/// Once a program has ended, the end of its output is waited for so long after the last byte. Nobody but a process that it
/// started and that has left its group can hold it open by then.
const OUTPUT_END: Duration = Duration::from_secs(5);
/// Batches that wait to be written to the program.
const BATCHES_AHEAD: usize = 2;
/// Events that wait for the attempt's thread, at most one batch each.
const EVENTS_AHEAD: usize = 4;
/// What a program may take to say which columns it writes.
const PROBE: Duration = Duration::from_secs(60);

/// What a program may know of the attempt that it works for: variables of its environment.
pub type Environment = BTreeMap<&'static str, String>;

/// The records of a run.
pub trait Records {
    /// The next ones, or `None` when the run has ended.
    fn next(&mut self) -> Result<Option<RecordBatch>, TaskError>;

    /// Asked while the program works: an error ends it.
    fn look(&mut self) -> Result<(), TaskError>;

    /// What the program has said, when it has ended well; an error tells it otherwise.
    fn said(&mut self, text: String) {
        tracing::info!("{text}");
    }
}

/// A step's program.
pub struct External {
    command: Command,
    folder: PathBuf,
    inherited: Inherited,
    /// What it writes; known from the job, from the plan or from its first run.
    output: Option<SchemaRef>,
}

/// What happens on the threads beside the attempt's own.
enum Event {
    /// The program has taken a batch.
    Taken,
    /// It has taken all of them, or no more.
    InputEnded(Result<(), InputError>),
    Schema(SchemaRef),
    Batch(RecordBatch),
    /// All that it has to write is there, as its format says; the stream itself has not ended yet.
    OutputComplete,
    OutputEnded(Result<(), OutputError>),
}

/// What a command makes of a step in the eyes of the plan.
pub fn transform_facts(command: &Command, partition: &Partition) -> TransformFacts {
    let (mode, reason) = match (command.mode, partition) {
        (CommandMode::Rows, _) => (
            TransformMode::RowWise { expands: true },
            "the program works on records one by one, as the job says (mode: rows)",
        ),
        // A cut by keys brings together what has to be; rows with one key are never torn apart.
        (CommandMode::Whole, Partition::Hash { columns }) => (
            TransformMode::Whole { keys: columns.clone() },
            "the program takes partitions whole (mode: whole)",
        ),
        (CommandMode::Whole, Partition::KeyRange { column, .. }) => (
            TransformMode::Whole {
                keys: vec![column.clone()],
            },
            "the program takes partitions whole (mode: whole)",
        ),
        (CommandMode::Whole, Partition::Bytes | Partition::Files | Partition::RowGroups) => (
            TransformMode::RowWise { expands: true },
            "the program takes partitions whole (mode: whole), cut as the job says",
        ),
        (CommandMode::Whole, Partition::Auto) => (
            TransformMode::Whole { keys: Vec::new() },
            "the program takes everything at once (mode: whole, and no `partition` says how to cut)",
        ),
    };
    TransformFacts {
        mode,
        reason: reason.to_string(),
    }
}

/// The columns that the job declares for a program; `None` where it leaves them to the program.
///
/// Errors: `Config` for a type that there is not.
pub fn declared(command: &Command) -> Result<Option<SchemaRef>, TaskError> {
    if command.columns.is_empty() {
        return Ok(None);
    }
    let field = |(name, ty): &(String, _)| Ok(Field::new(name, arrow_type(name, *ty)?, true));
    let fields: Result<Vec<Field>, TaskError> = command.columns.iter().map(field).collect();
    Ok(Some(Arc::new(Schema::new(fields?))))
}

/// The columns that a program writes: those declared, or those of the stream that it writes when it is given
/// no records.
///
/// Errors: as [`External::run`].
pub fn output_of(
    command: &Command,
    folder: PathBuf,
    inherited: &Inherited,
    input: &SchemaRef,
) -> Result<SchemaRef, TaskError> {
    if let Some(declared) = declared(command)? {
        return Ok(declared);
    }
    struct Nothing;
    impl Records for Nothing {
        fn next(&mut self) -> Result<Option<RecordBatch>, TaskError> {
            Ok(None)
        }
        fn look(&mut self) -> Result<(), TaskError> {
            Ok(())
        }
    }
    let mut program = External::new(command, folder, inherited.clone(), None)?;
    program.command.timeout_s = command.timeout_s.min(PROBE.as_secs() as u32);
    let environment = Environment::from([("GAPLESS_PROBE", "1".to_string())]);
    program
        .start(input, &environment)?
        .run(&mut program.output, None, &mut Nothing, &mut |_| Ok(()))
        .map_err(|error| {
            let words = "asked for its columns with no records";
            TaskError::new(error.class, format!("{}, {words}; or declare `columns`", error.message))
        })?;
    program
        .output
        .ok_or_else(|| TaskError::new(ErrorClass::Config, "the program wrote no Arrow schema"))
}

impl External {
    /// `planned`: the columns that the survey found; without them those declared.
    pub fn new(
        command: &Command,
        folder: PathBuf,
        inherited: Inherited,
        planned: Option<SchemaRef>,
    ) -> Result<External, TaskError> {
        Ok(External {
            output: match planned {
                Some(planned) => Some(planned),
                None => declared(command)?,
            },
            command: command.clone(),
            folder,
            inherited,
        })
    }

    /// The columns of the batches that runs give out, as far as they are known.
    pub fn output(&self) -> Option<&SchemaRef> {
        self.output.as_ref()
    }

    pub fn takes_whole_partitions(&self) -> bool {
        self.command.mode == CommandMode::Whole
    }

    /// Runs the program once over `records` and hands what it writes to `push`, in order. A run without
    /// records starts no program, where partitions are not taken whole.
    ///
    /// Errors: those of `records` and `push` as they are. Of the program: `Config` where it cannot be started or
    /// writes other columns, `Data` where it writes what cannot be read, too much, or ends before it has read
    /// all records, `Transient` where it takes too long or is killed; by its exit code otherwise.
    pub fn run(
        &mut self,
        input: &SchemaRef,
        environment: &Environment,
        records: &mut dyn Records,
        push: &mut dyn FnMut(RecordBatch) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        let first = records.next()?;
        if first.is_none() && self.output.is_some() && !self.takes_whole_partitions() {
            return Ok(());
        }
        // A reader may leave columns out; what the program is given is what the batches have.
        let schema = first.as_ref().map_or(input.clone(), RecordBatch::schema);
        let running = self.start(&schema, environment)?;
        running.run(&mut self.output, first, records, push)
    }

    fn start(&self, input: &SchemaRef, environment: &Environment) -> Result<Running, TaskError> {
        let mut process = Process::start(&self.command.run, &self.folder, &self.inherited, environment)?;
        let (batches, to_write) = sync_channel(BATCHES_AHEAD);
        let (events, seen) = sync_channel(EVENTS_AHEAD);
        let (stdin, stdout) = (process.stdin(), process.stdout());
        let writer = input::Writer {
            format: self.command.format,
            input: input.clone(),
        };
        let told = events.clone();
        process.beside("input", move || writer.write(stdin, &to_write, &told))?;
        let reader = output::Reader {
            format: self.command.format,
            columns: self.output.clone(),
            limit: u64::from(self.command.output_mib) << 20,
        };
        let bytes_read = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&bytes_read);
        process.beside("output", move || reader.read(stdout, counter, &events))?;
        Ok(Running {
            deadline: Instant::now() + Duration::from_secs(u64::from(self.command.timeout_s)),
            seconds: self.command.timeout_s,
            end_mark: input::end_mark(self.command.format),
            bytes_read,
            process,
            batches: Some(batches),
            events: seen,
        })
    }
}

/// A program that was started. Dropped, it is killed with all that it has started.
struct Running {
    process: Process,
    batches: Option<SyncSender<RecordBatch>>,
    events: Receiver<Event>,
    deadline: Instant,
    seconds: u32,
    /// Bytes that it may leave unread.
    end_mark: usize,
    /// What came of its output.
    bytes_read: Arc<AtomicU64>,
}

/// The output of a program that has ended, while it does not end itself.
#[derive(Default)]
struct Open {
    /// How far it had come, and when that was seen.
    at: Option<(u64, Instant)>,
}

impl Open {
    /// Whether nothing has come any more for [`OUTPUT_END`].
    fn is_idle(&mut self, bytes_read: u64) -> bool {
        match self.at {
            Some((before, since)) if before == bytes_read => since.elapsed() > OUTPUT_END,
            _ => {
                self.at = Some((bytes_read, Instant::now()));
                false
            }
        }
    }
}

impl Running {
    fn run(
        mut self,
        columns: &mut Option<SchemaRef>,
        first: Option<RecordBatch>,
        records: &mut dyn Records,
        push: &mut dyn FnMut(RecordBatch) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        let has_records = first.is_some();
        let mut first = Some(first);
        let mut room = BATCHES_AHEAD;
        let mut reshape: Option<Reshape> = None;
        let mut closed_early = false;
        let (mut complete, mut open) = (false, Open::default());
        loop {
            // What the program has written goes first, so that it is not held up.
            let event = match self.batches.is_some() && room > 0 {
                true => self.events.try_recv().map_err(|_| RecvTimeoutError::Timeout),
                false => self.events.recv_timeout(LOOK),
            };
            match event {
                Ok(Event::Taken) => room += 1,
                Ok(Event::InputEnded(ended)) => {
                    self.batches = None;
                    closed_early = self.is_closed_early(ended)?;
                }
                Ok(Event::Schema(written)) => {
                    let made = Reshape::new(&written, columns.as_ref()).map_err(|what| self.process.wrong(&what))?;
                    columns.get_or_insert_with(|| made.output().clone());
                    reshape = Some(made);
                }
                Ok(Event::Batch(batch)) => {
                    let batch = match &reshape {
                        Some(reshape) => reshape.shape(batch).map_err(|what| self.process.wrong(&what))?,
                        None => batch,
                    };
                    push(batch)?;
                }
                Ok(Event::OutputComplete) => complete = true,
                Ok(Event::OutputEnded(Ok(()))) => break,
                Ok(Event::OutputEnded(Err(error))) => return Err(self.failed_output(error)),
                Err(RecvTimeoutError::Timeout) if self.batches.is_some() && room > 0 => {
                    let batch = match first.take() {
                        Some(first) => first,
                        None => records.next()?,
                    };
                    room -= 1;
                    // Where the writer has ended, its event says why.
                    self.batches = self
                        .batches
                        .take()
                        .zip(batch)
                        .filter(|(batches, batch)| batches.send(batch.clone()).is_ok())
                        .map(|(batches, _)| batches);
                }
                Err(RecvTimeoutError::Timeout) => {
                    records.look()?;
                    let gone = self.process.end_group_with_program();
                    if gone && open.is_idle(self.bytes_read.load(Ordering::Relaxed)) {
                        match complete {
                            true => break,
                            false => return Err(self.held_open()),
                        }
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.in_time()?;
        }
        // It has closed its output, so there is nothing more to come, nor to give.
        let unfinished = self.batches.take().is_some();
        let status = loop {
            if let Some(status) = self.process.ended() {
                break status;
            }
            std::thread::sleep(Duration::from_millis(2));
            records.look()?;
            self.in_time()?;
        };
        self.process.judge(status)?;
        // Few records wait in the pipe, whether somebody reads them or not. The queue of events has room for all that the
        // writer may still tell.
        let unread = self.process.left_unread(self.end_mark + 1) > self.end_mark;
        let unfinished = unfinished || (has_records && unread);
        if !unfinished && !closed_early {
            // The writer may still have something to tell of its last batch.
            while let Ok(event) = self.events.recv_timeout(LOOK) {
                if let Event::InputEnded(ended) = event {
                    closed_early = self.is_closed_early(ended)?;
                }
            }
        }
        if unfinished || closed_early {
            return Err(self.process.error(
                ErrorClass::Data,
                "ended before it had read all of its records; it must read its input to the end",
            ));
        }
        if let Some(said) = self.process.last_words() {
            records.said(said);
        }
        Ok(())
    }

    /// Whether the program has closed its input before all records were written.
    ///
    /// Errors: records that cannot be written at all.
    fn is_closed_early(&mut self, ended: Result<(), InputError>) -> Result<bool, TaskError> {
        match ended {
            Ok(()) => Ok(false),
            Err(InputError::Closed) => Ok(true),
            Err(InputError::Formless(error)) => {
                let words = format!("cannot be given its records: {}", error.message);
                Err(self.process.error(error.class, &words))
            }
        }
    }

    /// The program has ended, and whether its output is complete cannot be told.
    fn held_open(&mut self) -> TaskError {
        if let Some(status) = self.process.ended()
            && let Err(error) = self.process.judge(status)
        {
            return error;
        }
        let words = format!(
            "has ended, but a process that it started still holds its standard output (it has left the program's process group, \
             as daemons do): {} s after the last byte there was no end of it, so it may not be all. Start such a process with \
             its output elsewhere (`>/dev/null 2>&1`)",
            OUTPUT_END.as_secs()
        );
        self.process.wrong(&words)
    }

    fn in_time(&mut self) -> Result<(), TaskError> {
        if Instant::now() < self.deadline {
            return Ok(());
        }
        let words = format!("took longer than {} s and was killed (timeout_s)", self.seconds);
        Err(self.process.error(ErrorClass::TimedOut, &words))
    }

    /// A stream that breaks off is the end of a program that failed, if it did.
    fn failed_output(&mut self, error: OutputError) -> TaskError {
        match error {
            OutputError::BrokenOff(what) => {
                let end = Instant::now() + Duration::from_secs(1);
                while Instant::now() < end {
                    match self.process.ended().map(|status| self.process.judge(status)) {
                        Some(Err(error)) => return error,
                        Some(Ok(())) => break,
                        None => std::thread::sleep(Duration::from_millis(2)),
                    }
                }
                self.process.wrong(&what)
            }
            OutputError::Wrong(what) => self.process.wrong(&what),
            OutputError::Io(error) => self
                .process
                .error(ErrorClass::Transient, &format!("cannot be read from: {error}")),
        }
    }
}

/// The columns of a schema in words, to be compared.
fn shown(schema: &Schema) -> String {
    let columns = schema.fields().iter();
    let columns = columns.map(|column| format!("{} {}", column.name(), type_name(column.data_type())));
    columns.collect::<Vec<_>>().join(", ")
}

//! What the programs of a run's jobs say, kept in a file for each run: for a process whose log nobody keeps.
//!
//! A layer of the log takes the events with the target [`PROGRAM`] within the span of an attempt; `<folder>/<run>.ndjson`
//! has a line for each.

use std::{
    fmt, fs,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{Layer, filter::filter_fn, layer::Context, registry::LookupSpan};
use uuid::Uuid;

use crate::{clock::Clock, traces::ATTEMPT};

/// Target of the events that are lines of a program's standard error.
pub const PROGRAM: &str = "gapless_worker::program";

/// Bytes of one run's file: some ten thousand lines.
const RUN_BYTES: u64 = 4 << 20;

/// Bytes of one of its lines, which a program's own line, escaped, stays below.
const LINE_BYTES: u64 = 64 << 10;

/// Files that are kept; of more runs the oldest go.
const RUNS: usize = 100;

/// The ending of the files' names.
const ENDING: &str = ".ndjson";

/// A line that a program said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    pub at_micros: i64,
    /// The step's number.
    pub step: u16,
    pub stage: String,
    pub partition: u32,
    pub text: String,
}

/// Keeps what programs say.
pub struct SaidLayer {
    folder: PathBuf,
    clock: Clock,
    /// The file of the run that spoke last.
    open: Mutex<Option<Kept>>,
}

/// The file of a run, and how much it holds.
struct Kept {
    run: Uuid,
    file: fs::File,
    bytes: u64,
}

impl SaidLayer {
    /// Keeps it in `folder`, which is made when the first program speaks.
    pub fn new(folder: PathBuf, clock: Clock) -> SaidLayer {
        let open = Mutex::default();
        SaidLayer { folder, clock, open }
    }

    /// With the filter that keeps all other places of the code as cheap as without it.
    pub fn filtered<S>(self) -> impl Layer<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        fn concerns(what: &Metadata) -> bool {
            match what.is_span() {
                true => what.name() == ATTEMPT,
                false => what.target() == PROGRAM,
            }
        }
        self.with_filter(filter_fn(concerns))
    }

    fn keep(&self, run: Uuid, mut said: Said) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_none_or(|kept| kept.run != run) {
            *open = Some(Kept::open(&self.folder, run)?);
        }
        let Some(kept) = open.as_mut().filter(|kept| kept.bytes < RUN_BYTES) else {
            return Ok(());
        };
        let mut line = serde_json::to_vec(&said)?;
        if kept.bytes + line.len() as u64 >= RUN_BYTES {
            said.text = "more that programs say is not kept".to_string();
            line = serde_json::to_vec(&said)?;
            kept.bytes = RUN_BYTES;
        }
        line.push(b'\n');
        kept.bytes += line.len() as u64;
        kept.file.write_all(&line)
    }
}

impl Kept {
    /// Opens the file of a run that may have been under way before.
    fn open(folder: &Path, run: Uuid) -> io::Result<Kept> {
        fs::create_dir_all(folder)?;
        let path = path_of(folder, run);
        if !path.exists() {
            forget(folder)?;
        }
        let file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Kept { run, file, bytes })
    }
}

fn path_of(folder: &Path, run: Uuid) -> PathBuf {
    folder.join(format!("{run}{ENDING}"))
}

/// Makes room for one more file. The ids of runs begin with the time.
fn forget(folder: &Path) -> io::Result<()> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let run = name.to_str().and_then(|name| name.strip_suffix(ENDING));
        if run.is_some_and(|run| run.parse::<Uuid>().is_ok()) {
            names.extend(name.into_string());
        }
    }
    names.sort_unstable();
    let surplus = (names.len() + 1).saturating_sub(RUNS);
    for name in &names[..surplus] {
        fs::remove_file(folder.join(name))?;
    }
    Ok(())
}

/// What the programs of a run have said, as far as it was kept; empty where nothing was.
///
/// Errors: those of reading. A line that is none is passed over: a killed process leaves half of one.
pub fn of_run(folder: &Path, run: Uuid) -> io::Result<Vec<Said>> {
    let file = match fs::File::open(path_of(folder, run)) {
        Ok(file) => file.take(RUN_BYTES + LINE_BYTES),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut said = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        said.extend(serde_json::from_slice::<Said>(&line?));
    }
    Ok(said)
}

/// The fields of an attempt's span, and the text of an event.
#[derive(Clone, Default)]
struct Fields {
    run: Option<Uuid>,
    step: Option<u64>,
    stage: String,
    partition: Option<u64>,
    message: String,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "step" => self.step = Some(value),
            "partition" => self.partition = Some(value),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "stage" {
            self.stage = value.to_string();
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "run" => self.run = format!("{value:?}").parse().ok(),
            "message" => self.message = format!("{value:?}"),
            _ => {}
        }
    }
}

impl<S> Layer<S> for SaidLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut scope = context.event_scope(event).into_iter().flatten();
        let Some(task) = scope.find_map(|span| span.extensions().get::<Fields>().cloned()) else {
            return;
        };
        let (Some(run), Some(step), Some(partition)) = (task.run, task.step, task.partition) else {
            return;
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let said = Said {
            at_micros: self.clock.now_micros(),
            step: u16::try_from(step).unwrap_or(u16::MAX),
            stage: task.stage,
            partition: u32::try_from(partition).unwrap_or(u32::MAX),
            text: fields.message,
        };
        // A log that cannot be written must not end what it tells of.
        self.keep(run, said).ok();
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn what_is_said_within_an_attempt_is_kept_by_run_and_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("logs");
        let runs: Vec<Uuid> = (0..RUNS as u128 + 2).map(Uuid::from_u128).collect();
        let layer = SaidLayer::new(folder.clone(), Clock::system());
        let subscriber = tracing_subscriber::registry().with(layer.filtered());
        let text = "x".repeat(2000);
        tracing::subscriber::with_default(subscriber, || {
            let span =
                |run: &Uuid| tracing::info_span!("task", run = %run, step = 1u16, stage = "execute", partition = 7u32);
            span(&runs[0]).in_scope(|| tracing::info!(target: PROGRAM, "{text}"));
            for run in &runs[1..] {
                span(run).in_scope(|| {
                    tracing::info!(target: PROGRAM, "of {run}");
                    tracing::info!("something else");
                });
            }
            tracing::info!(target: PROGRAM, "of no attempt");
            span(&runs[2]).in_scope(|| (0..4000).for_each(|_| tracing::info!(target: PROGRAM, "{text}")));
        });
        let kept = |run: &Uuid| of_run(&folder, *run).expect("read");
        assert_eq!(fs::read_dir(&folder).expect("there").count(), RUNS);
        assert_eq!(
            (kept(&runs[0]), kept(&runs[1])),
            (Vec::new(), Vec::new()),
            "the oldest went"
        );
        let last = kept(&runs[RUNS + 1]);
        assert_eq!(last.len(), 1);
        let Said {
            step,
            partition,
            text,
            stage,
            ..
        } = &last[0];
        assert_eq!((*step, *partition, stage.as_str()), (1, 7, "execute"));
        assert_eq!(*text, format!("of {}", runs[RUNS + 1]));
        let many = kept(&runs[2]);
        assert!(many.len() < 4000, "{}", many.len());
        assert_eq!(
            many.last().map(|said| said.text.as_str()),
            Some("more that programs say is not kept")
        );
        let size = fs::metadata(path_of(&folder, runs[2])).expect("there").len();
        assert!(size < RUN_BYTES + LINE_BYTES, "{size}");
    }
}

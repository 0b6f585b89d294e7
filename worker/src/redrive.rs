//! Preparing a redrive: the records that a published step had rejected, as files that the step can read again.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use arrow::datatypes::SchemaRef;
use gapless_common::{
    certificate::Certificate,
    error::{ErrorClass, TaskError},
    job::{ColumnType, Job, Lookup, Sink, Source, Step},
    plan::{Column, PinnedFile, Unit},
    range::UnitRange,
};
use xxhash_rust::xxh3::xxh3_64;

mod corrected;
mod keys;
mod mended;
mod rows;

use crate::{
    rejects::Quarantine,
    source::{
        Place, Reject,
        csv::{Format, Records as TextRecords},
        open::{Stored, open_files, stored_of},
        places::FormerPlace,
        records::Shape,
        sequence,
    },
    storage::{Created, StepFolders, create_once, io_error, is_object, resolve},
};

/// Records of one redrive: their places are held in memory by each reader. More are mended at their source.
pub const MAX_RECORDS: usize = 500_000;
/// Their text.
pub const MAX_BYTES: usize = 1 << 30;

/// What a redrive reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// One for the source, or for each input of a merge.
    pub inputs: Vec<InputRecords>,
    pub of_merge: bool,
    /// Of a merge: the columns that its records have, where it has others.
    pub read_columns: Option<Vec<String>>,
    /// The files of look-ups that read an earlier step: the redrive has none.
    pub lookups: BTreeMap<String, Vec<String>>,
    pub count: usize,
}

/// The records of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRecords {
    pub records: PathBuf,
    pub places: PathBuf,
    /// The columns of delimited text and of lines of JSON, in the order of its files; other records tell theirs.
    pub columns: Vec<(String, ColumnType)>,
}

fn config(message: String) -> TaskError {
    TaskError::new(ErrorClass::Config, message)
}

/// A record of the quarantine.
struct Kept {
    place: Place,
    /// The input that it is of.
    input: usize,
    /// Which of the input's files.
    file: usize,
    /// Whether the run could read it: it broke a rule later.
    was_read: bool,
}

/// What was read: the source of the step, or an input of its merge.
struct Input<'a> {
    source: &'a Source,
    stored: Stored<'a>,
    unit: Unit,
    files: &'a [PinnedFile],
    columns: &'a [Column],
}

/// How records are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Csv,
    Ndjson,
    Records,
    /// By their values, which have types.
    Rows,
}

fn form(stored: &Stored<'_>) -> Form {
    match stored {
        Stored::Text { format, .. } => match format.records {
            TextRecords::Delimited => Form::Csv,
            TextRecords::Json { .. } => Form::Ndjson,
        },
        Stored::Records(_) => Form::Records,
        Stored::Parquet | Stored::Avro | Stored::Sequence { .. } => Form::Rows,
    }
}

impl Form {
    fn ending(self) -> &'static str {
        match self {
            Form::Csv => "csv",
            Form::Ndjson => "jsonl",
            Form::Records => "txt",
            Form::Rows => "parquet",
        }
    }
}

/// Writes the records of a step's quarantine beside its output. With `from` their text is taken from there: what
/// `gapless rejects -o json` told, corrected; a corrected copy of the source file; or a folder with such copies under the names that the files have.
/// `mended` is the job as it is to be done now: its source tells what the columns are.
///
/// Errors: `Config` where there are none, too many, or some that have no text to be read again, or that the mended
/// source cannot read.
pub fn prepare(
    certificate: &Certificate,
    folder: &Path,
    from: Option<&Path>,
    mended: Option<&Job>,
) -> Result<Records, TaskError> {
    let step = certificate.reading.job.step(&certificate.step_name);
    let step = step.ok_or_else(|| config(format!("the certificate has no step {}", certificate.step_name)))?;
    if matches!(step.sink, Sink::Discard) {
        return Err(config(format!(
            "step {} keeps no output that a redrive could add to (sink: discard)",
            step.name
        )));
    }
    let inputs = inputs(certificate, step)?;
    let mended = mended.and_then(|job| Some((job, job.step(&step.name)?)));
    if let Some((_, mended)) = mended {
        mended::check_mended(step, mended)?;
    }
    let columns: Result<Vec<_>, TaskError> = inputs
        .iter()
        .enumerate()
        .map(|(number, input)| {
            let mended = mended.map(|(job, step)| (job, &step.source.inputs()[number]));
            mended::columns(&step.name, input, mended)
        })
        .collect();
    let mut kept = kept(certificate, folder, step, &inputs, from.is_some())?;
    let columns = columns?;
    let done = mended.map_or(&step.source, |(_, step)| &step.source);
    if let (Source::Merge(former), Source::Merge(merge)) = (&step.source, done) {
        keys::check_unique(former, merge, &inputs, &columns, &kept, from)?;
    }
    if let Some(from) = from {
        let objects = inputs.iter().any(|input| matches!(input.source, Source::Ndjson(_)));
        corrected::correct(&mut kept, from, objects)?;
    }
    let folder = redrive_folder(certificate, step)?;
    let read = certificate.reading.read_columns.as_deref();
    let of_merge = matches!(step.source, Source::Merge(_));
    let mut written = Vec::with_capacity(inputs.len());
    for (number, (input, columns)) in inputs.iter().zip(columns).enumerate() {
        let places: Vec<&Place> = kept
            .iter()
            .filter(|kept| kept.input == number)
            .map(|kept| &kept.place)
            .collect();
        let done = mended.map(|(job, step)| (job, step, number));
        if let Some(layout) = mended::layout(input, done)? {
            check_lines(&places, &Shape::new(&layout, None)?)?;
        }
        if let Some(format) = mended::format(input, done)? {
            check_texts(&places, &format)?;
        }
        let files = match form(&input.stored) {
            Form::Rows => {
                let schema = schema(input, Path::new(&certificate.reading.base_dir), read)?;
                Files::of_rows(rows::as_parquet(&schema, &places)?, &places)
            }
            _ => Files::of_text(&places),
        };
        let of = of_merge.then_some(number);
        written.push(files?.keep(&folder, form(&input.stored).ending(), of, columns)?);
    }
    let typed = inputs.iter().any(|input| form(&input.stored) == Form::Rows);
    let former = match &step.source {
        Source::Merge(merge) => merge.read_columns.clone(),
        _ => None,
    };
    Ok(Records {
        inputs: written,
        of_merge,
        read_columns: match read {
            Some(read) if of_merge && typed => Some(read.to_vec()),
            _ => former,
        },
        lookups: lookups(certificate, step),
        count: kept.len(),
    })
}

fn lookups(certificate: &Certificate, step: &Step) -> BTreeMap<String, Vec<String>> {
    // What is redriven again says so in the job's text alone.
    let is_redriven = certificate.reading.job.redrive.is_some();
    let of_step = |name: &str| is_redriven || matches!(step.lookups.get(name), Some(Lookup::Step(_)));
    let pinned = certificate.lookups.iter().filter(|pinned| of_step(&pinned.name));
    pinned
        .map(|pinned| {
            (
                pinned.name.clone(),
                pinned.files.iter().map(|file| file.path.clone()).collect(),
            )
        })
        .collect()
}

/// What the step read, each input by itself.
fn inputs<'a>(certificate: &'a Certificate, step: &'a Step) -> Result<Vec<Input<'a>>, TaskError> {
    let reading = &certificate.reading;
    let stored = |source| stored_of(&reading.job, &step.name, source);
    let Source::Merge(merge) = &step.source else {
        return Ok(vec![Input {
            source: &step.source,
            stored: stored(&step.source)?,
            unit: reading.unit,
            files: &certificate.files,
            columns: &reading.columns,
        }]);
    };
    if reading.inputs.len() != merge.inputs.len() {
        return Err(config(format!(
            "the certificate of step {} tells of {} inputs, its job of {}",
            step.name,
            reading.inputs.len(),
            merge.inputs.len()
        )));
    }
    let mut first = 0;
    let input = |(source, read): (&'a Source, &'a gapless_common::plan::InputFacts)| {
        let end = (first + read.files).min(certificate.files.len());
        let files = &certificate.files[first..end];
        first = end;
        Ok(Input {
            source,
            stored: stored(source)?,
            unit: read.unit,
            files,
            columns: &read.columns,
        })
    };
    merge.inputs.iter().zip(&reading.inputs).map(input).collect()
}

/// The records of the quarantine in the order of the source.
fn kept(
    certificate: &Certificate,
    folder: &Path,
    step: &Step,
    inputs: &[Input<'_>],
    is_corrected: bool,
) -> Result<Vec<Kept>, TaskError> {
    let base_dir = Path::new(&certificate.reading.base_dir);
    let mut order: HashMap<String, (usize, usize)> = HashMap::new();
    for (number, input) in inputs.iter().enumerate() {
        let files: Vec<String> = match input.source.places() {
            Some(places) => {
                let places = FormerPlace::read(&resolve(base_dir, places))?;
                places.into_iter().map(|place| place.file).collect()
            }
            None => input.files.iter().map(|file| file.path.clone()).collect(),
        };
        for (at, file) in files.into_iter().enumerate() {
            order.entry(file).or_insert((number, at));
        }
    }
    let (mut kept, mut bytes): (Vec<Kept>, usize) = (Vec::new(), 0);
    Quarantine::published(folder, certificate)?.read(&mut |record| {
        let place = record.reject.place;
        bytes += place.raw.len();
        if place.line.is_none() && place.row.is_none() {
            return Err(config(format!(
                "a record of {} that broke the rule «{}» has left its file and line behind in the exchange, so it \
                 cannot be redriven; write the rule as a check, which is asked before",
                place.file, record.reject.rule
            )));
        }
        if !is_corrected && place.may_be_cut() {
            return Err(config(format!(
                "{place}: the quarantine has the first {} bytes of this record alone; give the whole of it {} (--from)",
                Place::MAX_RAW,
                match place.line {
                    Some(_) => "in a corrected copy of the file",
                    None => "as `raw` in what `gapless rejects RUN -o json` tells",
                }
            )));
        }
        if kept.len() == MAX_RECORDS || bytes > MAX_BYTES {
            return Err(config(format!(
                "step {} has more rejected records than a redrive takes ({MAX_RECORDS}, {} MiB); mend the source and run \
                 the job again",
                step.name,
                MAX_BYTES >> 20
            )));
        }
        let (input, file) = match order.get(&place.file) {
            Some(found) => *found,
            None if inputs.len() == 1 => (0, usize::MAX),
            None => {
                return Err(config(format!(
                    "{place}: the certificate of step {} names no input that has this file",
                    step.name
                )));
            }
        };
        let was_read = record.reject.rule != Reject::PARSE;
        kept.push(Kept {
            place,
            input,
            file,
            was_read,
        });
        Ok(true)
    })?;
    if kept.is_empty() {
        return Err(config(format!("step {} has rejected no records", step.name)));
    }
    fn key(kept: &Kept) -> (usize, usize, &str, Option<u64>, Option<u64>, Option<u64>) {
        let place = &kept.place;
        (kept.input, kept.file, &place.file, place.line, place.block, place.row)
    }
    kept.sort_by(|one, other| key(one).cmp(&key(other)));
    Ok(kept)
}

/// The schema of rows that the quarantine has: that of the columns which were read.
fn schema(input: &Input<'_>, base_dir: &Path, read: Option<&[String]>) -> Result<SchemaRef, TaskError> {
    if matches!(input.stored, Stored::Sequence { .. }) {
        return Ok(sequence::schema());
    }
    let own = |name: &&String| input.columns.iter().any(|column| column.name == **name);
    let names: Option<Vec<String>> = read.map(|names| names.iter().filter(own).cloned().collect());
    let domain = UnitRange::new(0, input.files.iter().map(|file| file.units).sum());
    let reader = open_files(
        &input.stored,
        base_dir,
        input.unit,
        input.files,
        input.columns,
        domain,
        names.as_deref(),
    )?;
    Ok(reader.schema())
}

/// In the file of a redrive records stand one below another: each must begin as one does, else it would become a part of
/// the one before.
fn check_lines(places: &[&Place], shape: &Shape) -> Result<(), TaskError> {
    let is_whole = |place: &Place| {
        let first = place.raw.lines().next().unwrap_or_default().as_bytes();
        !shape.is_passed_over(first) && (!shape.layout().multiline || shape.begins_record(first))
    };
    match places.iter().find(|place| !is_whole(place)) {
        None => Ok(()),
        Some(place) => Err(config(format!(
            "{place}: what stands there does not begin with the first line of a record, so it cannot be redriven by \
             itself; give the whole record with --from, or mend the source and run the job again"
        ))),
    }
}

/// In the file of a redrive texts stand one below another: one that is more than a record would become several, one that
/// does not end would take the next with it.
fn check_texts(places: &[&Place], format: &Format) -> Result<(), TaskError> {
    match places.iter().find(|place| !format.is_one_record(&place.raw)) {
        None => Ok(()),
        Some(place) => Err(config(format!(
            "{place}: with a line end behind it, its text is not one record of {}: it holds a line end outside of quotes, or a \
             quote that is not closed; give the record in one line, or quoted (`multiline: true` in the mended job), with \
             --from, or mend the source and run the job again",
            format.name()
        ))),
    }
}

/// What is written for one source.
struct Files {
    records: Vec<u8>,
    places: Vec<u8>,
}

impl Files {
    fn of_text(places: &[&Place]) -> Result<Files, TaskError> {
        let mut records = String::new();
        let (mut begins, mut at) = (Vec::with_capacity(places.len()), 1);
        for place in places {
            records += &place.raw;
            records.push('\n');
            begins.push(at);
            at += 1 + place.raw.matches('\n').count() as u64;
        }
        Files::new(records.into_bytes(), places, begins)
    }

    fn of_rows(records: Vec<u8>, places: &[&Place]) -> Result<Files, TaskError> {
        Files::new(records, places, (0..places.len() as u64).collect())
    }

    /// `begins`: where in the file each record does.
    fn new(records: Vec<u8>, places: &[&Place], begins: Vec<u64>) -> Result<Files, TaskError> {
        let mut index = Vec::new();
        for (place, at) in places.iter().zip(begins) {
            let former = FormerPlace {
                at,
                file: place.file.clone(),
                line: place.line,
                row: place.row,
                block: place.block,
            };
            serde_json::to_writer(&mut index, &former)
                .map_err(|error| config(format!("the place of a record has no JSON: {error}")))?;
            index.push(b'\n');
        }
        Ok(Files { records, places: index })
    }

    /// Whoever prepares the same records writes the same files: their names tell what is in them. `number` is that of
    /// the input of a merge, no two of which share a file.
    fn keep(
        self,
        folder: &Path,
        ending: &str,
        number: Option<usize>,
        columns: Vec<(String, ColumnType)>,
    ) -> Result<InputRecords, TaskError> {
        let hash = xxh3_64(&[&self.records[..], &self.places].concat());
        let name = match number {
            Some(number) => format!("{hash:016x}-{}", number + 1),
            None => format!("{hash:016x}"),
        };
        let unique = format!("{}", std::process::id());
        let keep = |name: String, content: &[u8]| {
            let path = folder.join(name);
            match create_once(&path, &unique, content)? {
                Created::Created => Ok(path),
                Created::Exists(found) if found == content => Ok(path),
                Created::Exists(_) => Err(config(format!("{} holds something else; move it away", path.display()))),
            }
        };
        Ok(InputRecords {
            records: keep(format!("{name}.{ending}"), &self.records)?,
            places: keep(format!("{name}.ndjson"), &self.places)?,
            columns,
        })
    }
}

fn redrive_folder(certificate: &Certificate, step: &Step) -> Result<PathBuf, TaskError> {
    let base_dir = Path::new(&certificate.reading.base_dir);
    let (run, number) = (certificate.run, certificate.step);
    let folder = StepFolders::new(&step.sink, base_dir, base_dir, run, number)?.redrive();
    if !is_object(&folder) {
        fs::create_dir_all(&folder).map_err(|error| io_error("create the folder", &folder, &error))?;
    }
    Ok(folder)
}

//! Preparing a redrive: the records that a published step had rejected, as a file that the step can read again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use gapless_common::{
    certificate::Certificate,
    error::{ErrorClass, TaskError},
    job::{ColumnType, Job, Sink, Source},
};
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    rejects::Quarantine,
    source::{Place, places::FormerPlace, records::Shape},
    storage::{Created, StepFolders, create_once, io_error, is_object},
};

/// Records of one redrive: their places are held in memory by each reader. More are mended at their source.
pub const MAX_RECORDS: usize = 500_000;
/// Their text.
pub const MAX_BYTES: usize = 1 << 30;
/// A line of a corrected file.
const MAX_LINE: u64 = 16 << 20;

/// What a redrive reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    pub records: PathBuf,
    pub places: PathBuf,
    /// The columns of the source, in the order of its files.
    pub columns: Vec<(String, ColumnType)>,
    pub count: usize,
}

fn config(message: String) -> TaskError {
    TaskError::new(ErrorClass::Config, message)
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
    let step = &certificate.step_name;
    let job = &certificate.reading.job;
    let source = job.step(step).map(|step| &step.source);
    let ending = match source {
        Some(Source::Csv(_)) => "csv",
        Some(Source::Ndjson(_)) => "jsonl",
        Some(Source::Records(_)) => "txt",
        other => {
            return Err(config(format!(
                "step {step} reads {}: records are kept as text that can be read again where the source is csv, ndjson or \
                 records; mend the source and run the job again",
                other.map_or_else(|| "nothing that is known".to_string(), Source::shown)
            )));
        }
    };
    if job.step(step).is_some_and(|step| matches!(step.sink, Sink::Discard)) {
        return Err(config(format!(
            "step {step} keeps no output that a redrive could add to (sink: discard)"
        )));
    }
    let mended = mended.and_then(|job| job.step(step)).map(|step| &step.source);
    let columns = columns(certificate, source, mended)?;
    let mut places: Vec<Place> = Vec::new();
    let mut bytes = 0;
    Quarantine::published(folder, certificate)?.read(&mut |record| {
        let place = record.reject.place;
        bytes += place.raw.len();
        if place.line.is_none() {
            return Err(config(format!(
                "a record of {} that broke the rule «{}» has left its file and line behind in the exchange, so it \
                 cannot be redriven; write the rule as a check, which is asked before",
                place.file, record.reject.rule
            )));
        }
        if from.is_none() && place.raw.len() >= Place::MAX_RAW {
            return Err(config(format!(
                "{}, line {}: the quarantine has the first {} bytes of this record alone; give the whole of it in a \
                 corrected copy of the file (--from)",
                place.file,
                place.line.unwrap_or_default(),
                Place::MAX_RAW
            )));
        }
        if places.len() == MAX_RECORDS || bytes > MAX_BYTES {
            return Err(config(format!(
                "step {step} has more rejected records than a redrive takes ({MAX_RECORDS}, {} MiB); mend the source \
                 and run the job again",
                MAX_BYTES >> 20
            )));
        }
        places.push(place);
        Ok(true)
    })?;
    if places.is_empty() {
        return Err(config(format!("step {step} has rejected no records")));
    }
    places.sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
    if let Some(from) = from {
        correct(&mut places, from, matches!(source, Some(Source::Ndjson(_))))?;
    }
    if let Some(Source::Records(records)) = mended.or(source) {
        check_lines(&places, &Shape::new(&records.layout, None)?)?;
    }
    write(certificate, &places, columns, ending)
}

/// The columns of the records, in the order of their fields: those that the run read, of the types that the job to be
/// done declares.
fn columns(
    certificate: &Certificate,
    source: Option<&Source>,
    mended: Option<&Source>,
) -> Result<Vec<(String, ColumnType)>, TaskError> {
    let step = &certificate.step_name;
    let read: Vec<&str> = certificate.reading.columns.iter().map(|it| it.name.as_str()).collect();
    let typed = |declared: &[(String, ColumnType)]| {
        let ty = |name: &str| declared.iter().find(|it| it.0 == name).map(|it| it.1);
        let column = |name: &&str| (name.to_string(), ty(name).unwrap_or(ColumnType::String));
        read.iter().map(column).collect()
    };
    Ok(match (source, mended) {
        (Some(Source::Csv(_)), Some(Source::Csv(csv))) if !csv.header => {
            if csv.columns.len() != read.len() {
                return Err(config(format!(
                    "the mended job declares {} columns for the source of step {step}, and its rejected records are of \
                     {}: {}; declare these under `columns`, of whatever types",
                    csv.columns.len(),
                    read.len(),
                    read.join(", ")
                )));
            }
            csv.columns.clone()
        }
        (Some(Source::Csv(_)), Some(Source::Csv(csv))) => {
            let declared = csv.columns.iter().map(|column| column.0.as_str());
            let unknown: Vec<&str> = declared.filter(|name| !read.contains(name)).collect();
            if !unknown.is_empty() {
                return Err(config(format!(
                    "the mended job declares {} under `columns` of step {step}, which the rejected records do not have; \
                     they have {}",
                    unknown.join(", "),
                    read.join(", ")
                )));
            }
            typed(&csv.columns)
        }
        (Some(Source::Ndjson(_)), Some(Source::Ndjson(ndjson))) if !ndjson.columns.is_empty() => ndjson.columns.clone(),
        (Some(Source::Ndjson(_)), Some(Source::Ndjson(_))) | (Some(Source::Records(_)), Some(Source::Records(_))) => {
            typed(&[])
        }
        (Some(source), Some(mended)) => {
            return Err(config(format!(
                "the mended job's step {step} reads {}, and its rejected records are of {}; leave the kind of its \
                 `source` as it was",
                mended.shown(),
                source.shown()
            )));
        }
        (Some(Source::Csv(csv)), None) => typed(&csv.columns),
        (Some(Source::Ndjson(ndjson)), None) => typed(&ndjson.columns),
        _ => typed(&[]),
    })
}

/// In the file of a redrive records stand one below another: each must begin as one does, else it would become a part of
/// the one before.
fn check_lines(places: &[Place], shape: &Shape) -> Result<(), TaskError> {
    let is_whole = |place: &Place| {
        let first = place.raw.lines().next().unwrap_or_default().as_bytes();
        !shape.is_passed_over(first) && (!shape.layout().multiline || shape.begins_record(first))
    };
    match places.iter().find(|place| !is_whole(place)) {
        None => Ok(()),
        Some(place) => Err(config(format!(
            "{}, line {}: what stands there does not begin with the first line of a record, so it cannot be redriven by \
             itself; give the whole record with --from, or mend the source and run the job again",
            place.file,
            place.line.unwrap_or_default()
        ))),
    }
}

/// Puts corrected texts in place of those of the quarantine. `objects`: whether the source itself is of JSON.
fn correct(places: &mut [Place], from: &Path, objects: bool) -> Result<(), TaskError> {
    if !from.is_dir() {
        let extension = from.extension().and_then(|extension| extension.to_str());
        // What is named so and is no copy of the source is told what it lacks.
        let named = !objects && matches!(extension, Some("ndjson" | "jsonl" | "json"));
        if named || is_told(places, from)? {
            return correct_by_records(places, from);
        }
    }
    let files: BTreeSet<String> = places.iter().map(|place| place.file.clone()).collect();
    if files.len() > 1 && !from.is_dir() {
        return Err(config(format!(
            "{} is one file, and the rejected records are of {}: give a folder with corrected copies of them, under \
             the same names",
            from.display(),
            files.len()
        )));
    }
    for file in files {
        let corrected = match from.is_dir() {
            true => from.join(Path::new(&file).file_name().unwrap_or_default()),
            false => from.to_path_buf(),
        };
        correct_by_lines(places, &file, &corrected)?;
    }
    Ok(())
}

fn correct_by_lines(places: &mut [Place], file: &str, corrected: &Path) -> Result<(), TaskError> {
    let mut wanted: BTreeMap<u64, &mut Place> = places
        .iter_mut()
        .filter(|place| place.file == file)
        .filter_map(|place| Some((place.line?, place)))
        .collect();
    let opened = File::open(corrected).map_err(|error| io_error("open", corrected, &error))?;
    let mut lines = BufReader::new(opened);
    let mut line = Vec::new();
    // The record that goes on, and how many of its lines are left.
    let mut open: Option<(&mut Place, usize)> = None;
    for number in 1u64.. {
        if wanted.is_empty() && open.is_none() {
            break;
        }
        line.clear();
        let read = std::io::Read::take(&mut lines, MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(|error| io_error("read", corrected, &error))?;
        if read == 0 {
            let missing = match open {
                Some(_) => number,
                None => wanted.keys().next().copied().unwrap_or_default(),
            };
            return Err(config(format!(
                "{} ends before line {missing}, which {file} has; a corrected copy keeps the lines where they are",
                corrected.display()
            )));
        }
        if let Some((place, left)) = open.take() {
            place.raw.push('\n');
            place.raw += &text(&line, corrected, number)?;
            open = (left > 1).then_some((place, left - 1));
        } else if let Some(place) = wanted.remove(&number) {
            let further = place.raw.matches('\n').count();
            place.raw = text(&line, corrected, number)?;
            open = (further > 0).then_some((place, further));
        }
    }
    Ok(())
}

fn text(line: &[u8], path: &Path, number: u64) -> Result<String, TaskError> {
    let text = std::str::from_utf8(line)
        .map_err(|_| config(format!("{}, line {number}: no text in UTF-8", path.display())))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_string())
}

/// A record as `gapless rejects -o json` tells it; the other keys are not looked at.
#[derive(Deserialize)]
struct Corrected {
    file: String,
    line: u64,
    raw: String,
}

/// Whether a file begins with what `gapless rejects -o json` tells of a record. A record of the source may have some of
/// those keys too, but hardly all of them, or the name of its own file.
fn is_told(places: &[Place], from: &Path) -> Result<bool, TaskError> {
    let opened = File::open(from).map_err(|error| io_error("open", from, &error))?;
    let mut lines = BufReader::new(opened);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = std::io::Read::take(&mut lines, MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(|error| io_error("read", from, &error))?;
        if read == 0 || !line.trim_ascii().is_empty() {
            break;
        }
    }
    let Ok(object) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&line) else {
        return Ok(false);
    };
    let has = |keys: &[&str]| keys.iter().all(|key| object.contains_key(*key));
    let file = object.get("file").and_then(|file| file.as_str());
    let is_known = places.iter().any(|place| Some(place.file.as_str()) == file);
    Ok(has(&["file", "line", "raw"]) && (is_known || has(&["rule", "reason"])))
}

fn correct_by_records(places: &mut [Place], from: &Path) -> Result<(), TaskError> {
    let opened = File::open(from).map_err(|error| io_error("open", from, &error))?;
    let mut corrected = BTreeMap::new();
    for (number, line) in BufReader::new(opened).lines().enumerate() {
        let line = line.map_err(|error| io_error("read", from, &error))?;
        if line.trim().is_empty() {
            continue;
        }
        let record: Corrected = serde_json::from_str(&line).map_err(|error| {
            config(format!(
                "{}, line {}: not a record as `gapless rejects -o json` tells it: {error}",
                from.display(),
                number + 1
            ))
        })?;
        corrected.insert((record.file, record.line), record.raw);
    }
    for place in places {
        let key = (place.file.clone(), place.line.unwrap_or_default());
        let Some(raw) = corrected.remove(&key) else {
            let message = format!("{} lacks the record of {}, line {}", from.display(), key.0, key.1);
            return Err(config(message));
        };
        place.raw = raw;
    }
    match corrected.keys().next() {
        Some((file, line)) => Err(config(format!(
            "{} has a record of {file}, line {line}, which was not rejected, or is redriven already",
            from.display()
        ))),
        None => Ok(()),
    }
}

/// Whoever prepares the same records writes the same files: their names tell what is in them.
fn write(
    certificate: &Certificate,
    places: &[Place],
    columns: Vec<(String, ColumnType)>,
    ending: &str,
) -> Result<Records, TaskError> {
    let (mut records, mut index) = (String::new(), String::new());
    let mut at = 1;
    for place in places {
        let former = FormerPlace {
            at,
            file: place.file.clone(),
            line: place.line,
        };
        records += &place.raw;
        records.push('\n');
        index += &serde_json::to_string(&former)
            .map_err(|error| config(format!("the place of a record has no JSON: {error}")))?;
        index.push('\n');
        at += 1 + place.raw.matches('\n').count() as u64;
    }
    let step = certificate.reading.job.step(&certificate.step_name);
    let step = step.ok_or_else(|| config(format!("the certificate has no step {}", certificate.step_name)))?;
    let base_dir = Path::new(&certificate.reading.base_dir);
    let (run, number) = (certificate.run, certificate.step);
    let folders = StepFolders::new(&step.sink, base_dir, base_dir, run, number)?;
    let folder = folders.redrive();
    if !is_object(&folder) {
        fs::create_dir_all(&folder).map_err(|error| io_error("create the folder", &folder, &error))?;
    }
    let name = format!("{:016x}", xxh3_64(format!("{records}{index}").as_bytes()));
    let unique = format!("{}", std::process::id());
    let keep = |name: String, content: &str| {
        let path = folder.join(name);
        match create_once(&path, &unique, content.as_bytes())? {
            Created::Created => Ok(path),
            Created::Exists(found) if found == content.as_bytes() => Ok(path),
            Created::Exists(_) => Err(config(format!("{} holds something else; move it away", path.display()))),
        }
    };
    Ok(Records {
        records: keep(format!("{name}.{ending}"), &records)?,
        places: keep(format!("{name}.ndjson"), &index)?,
        columns,
        count: places.len(),
    })
}

//! The quarantine of a step, read back: what `gapless rejects` shows and keeps, and a redrive takes up.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringBuilder, UInt32Builder, UInt64Builder},
    datatypes::{DataType, Field, Schema},
};
use gapless_common::{
    certificate::Certificate,
    error::{ErrorClass, TaskError},
    ids::PartitionNo,
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use serde::{Deserialize, Serialize};

use crate::{
    sink::parquet_error,
    source::{Place, Reject},
    storage::{StoredFile, io_error, list_folder},
};

/// Records of a batch of the Parquet file: with long records some hundred MiB.
const BATCH: usize = 4096;
/// Bytes of their text that make a batch full as well.
const BATCH_BYTES: usize = 32 << 20;
/// Records of which a second copy is noticed where attempts that did not count have left theirs: 16 bytes each.
const MAX_SEEN: usize = 4_000_000;
/// Memory for records that are put in order before they are shown: some 300,000 short ones.
const ORDERED_BYTES: usize = 128 << 20;
/// What a record takes beside its texts.
const RECORD_BYTES: usize = 256;
/// A line: the record, cut, escaped at worst to six times its length, with its reason.
const MAX_LINE: u64 = 2 << 20;

/// A quarantined record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    pub partition: PartitionNo,
    #[serde(flatten)]
    pub reject: Reject,
}

/// The files of a step's quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    files: Vec<PathBuf>,
    /// Whether attempts that do not count may have left the same records again.
    staged: bool,
}

impl Quarantine {
    /// Those of a step that is not published: everything in its folder.
    pub fn staged(folder: &Path) -> Result<Quarantine, TaskError> {
        Ok(Quarantine {
            files: files_in(folder, |_| true)?,
            staged: true,
        })
    }

    /// Those that a certificate lists, in the folder beside it.
    ///
    /// Errors: `Data` where one is missing.
    pub fn published(folder: &Path, certificate: &Certificate) -> Result<Quarantine, TaskError> {
        let stems: HashSet<&str> = certificate.rejects.iter().map(|file| stem(&file.path)).collect();
        // A release that listed none: the folder was the step's own, unless outputs were appended to it.
        let all = stems.is_empty() && certificate.counters.rejected > 0;
        let files = files_in(folder, |name| all || stems.contains(base(stem(name))))?;
        if !all && files.len() < stems.len() {
            return Err(TaskError::new(
                ErrorClass::Data,
                format!(
                    "{} has {} of the {} files of rejected records that the certificate of step {} lists; were some \
                     removed?",
                    folder.display(),
                    files.len(),
                    stems.len(),
                    certificate.step_name
                ),
            ));
        }
        Ok(Quarantine { files, staged: false })
    }

    /// Gives each record in the order of where it stood, by file and line, until `visit` wants no more. Of very many
    /// records the first that are found are in order, the others as [`Quarantine::read`] gives them.
    ///
    /// Errors: as of [`Quarantine::read`].
    pub fn read_in_order(
        &self,
        visit: &mut dyn FnMut(Quarantined) -> Result<bool, TaskError>,
    ) -> Result<(), TaskError> {
        let (mut held, mut bytes, mut more) = (Vec::new(), 0, true);
        let mut over = false;
        self.read(&mut |record| {
            if !over {
                bytes += record.reject.place.raw.len() + record.reject.reason.len() + RECORD_BYTES;
                held.push(record);
                over = bytes > ORDERED_BYTES;
                if over {
                    more = in_order(&mut held, visit)?;
                }
                return Ok(more);
            }
            visit(record)
        })?;
        match over {
            true => Ok(()),
            false => in_order(&mut held, visit).map(drop),
        }
    }

    /// Gives each record, in the order of files, until `visit` wants no more.
    ///
    /// Errors: those of reading; `Data` for a line that is none.
    pub fn read(&self, visit: &mut dyn FnMut(Quarantined) -> Result<bool, TaskError>) -> Result<(), TaskError> {
        let mut seen = HashSet::new();
        for path in &self.files {
            let file = StoredFile::open(path).map_err(|error| io_error("open", path, &error))?;
            let mut file = BufReader::new(file.into_reader());
            let mut line = Vec::new();
            for number in 1u64.. {
                line.clear();
                let read = std::io::Read::take(&mut file, MAX_LINE)
                    .read_until(b'\n', &mut line)
                    .map_err(|error| io_error("read", path, &error))?;
                if read == 0 {
                    break;
                }
                let record: Quarantined = match serde_json::from_slice(&line) {
                    Ok(record) => record,
                    // The last line of an attempt that was killed.
                    Err(_) if self.staged && !line.ends_with(b"\n") => break,
                    Err(error) => {
                        let message = format!("{}, line {number}: no quarantined record: {error}", path.display());
                        return Err(TaskError::new(ErrorClass::Data, message));
                    }
                };
                if self.staged && seen.len() < MAX_SEEN && !seen.insert(place_hash(&record.reject)) {
                    continue;
                }
                if !visit(record)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Gives out records by where they stood; `false` once `visit` wants no more.
fn in_order(
    held: &mut Vec<Quarantined>,
    visit: &mut dyn FnMut(Quarantined) -> Result<bool, TaskError>,
) -> Result<bool, TaskError> {
    held.sort_by(|one, other| {
        let (one, other) = (&one.reject.place, &other.reject.place);
        let key = |place: &Place| (place.line, place.block, place.row);
        one.file.cmp(&other.file).then_with(|| key(one).cmp(&key(other)))
    });
    for record in held.drain(..) {
        if !visit(record)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Names a record by where it stands.
fn place_hash(reject: &Reject) -> u128 {
    let place = &reject.place;
    // Where only the exchange knew it, by what it was.
    let text = format!(
        "{}\0{:?}\0{:?}\0{:?}\0{}",
        place.file,
        place.line,
        place.row,
        place.block,
        if place.line.or(place.row).is_some() {
            ""
        } else {
            &place.raw
        }
    );
    xxhash_rust::xxh3::xxh3_128(text.as_bytes())
}

fn files_in(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, TaskError> {
    let names = list_folder(folder)?;
    let names = names.iter().filter(|name| name.ends_with(".ndjson") && wanted(name));
    let mut paths: Vec<PathBuf> = names.map(|name| folder.join(name)).collect();
    // A folder lists in any order.
    paths.sort_unstable();
    Ok(paths)
}

/// A file's name without folders and ending.
fn stem(path: &str) -> &str {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    name.split_once('.').map_or(name, |(stem, _)| stem)
}

/// Without the generation that it was appended with.
fn base(stem: &str) -> &str {
    match stem.rsplit_once("-g") {
        Some((base, generation)) if generation.bytes().all(|byte| byte.is_ascii_digit()) => base,
        _ => stem,
    }
}

/// Quarantined records as a Parquet file: columns `step`, `partition`, `file`, `line`, `row`, `key`, `rule`,
/// `reason`, `raw`.
pub struct ParquetRejects {
    writer: ArrowWriter<File>,
    path: PathBuf,
    schema: Arc<Schema>,
    pending: Vec<(String, Quarantined)>,
    bytes: usize,
    rows: u64,
}

impl ParquetRejects {
    /// Begins a file beside `path`, which must not exist; [`ParquetRejects::finish`] gives it its name.
    pub fn create(path: &Path) -> Result<ParquetRejects, TaskError> {
        if path.exists() {
            let message = format!("{} exists; give another name, or move it away", path.display());
            return Err(TaskError::new(ErrorClass::Config, message));
        }
        let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
        let schema = Arc::new(Schema::new(vec![
            text("step", false),
            Field::new("partition", DataType::UInt32, false),
            text("file", false),
            Field::new("line", DataType::UInt64, true),
            Field::new("row", DataType::UInt64, true),
            text("key", true),
            text("rule", false),
            text("reason", false),
            text("raw", false),
        ]));
        let unfinished = unfinished(path);
        let file = File::create(&unfinished).map_err(|error| io_error("create", &unfinished, &error))?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
        let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties.build()))
            .map_err(|error| parquet_error("begin", &unfinished, &error))?;
        Ok(ParquetRejects {
            writer,
            path: path.to_path_buf(),
            schema,
            pending: Vec::new(),
            bytes: 0,
            rows: 0,
        })
    }

    pub fn write(&mut self, step: &str, record: Quarantined) -> Result<(), TaskError> {
        self.rows += 1;
        self.bytes += record.reject.place.raw.len() + record.reject.reason.len();
        self.pending.push((step.to_string(), record));
        match self.pending.len() >= BATCH || self.bytes >= BATCH_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), TaskError> {
        let mut texts: [StringBuilder; 6] = Default::default();
        let (mut partitions, mut lines, mut rows) = (UInt32Builder::new(), UInt64Builder::new(), UInt64Builder::new());
        for (step, Quarantined { partition, reject }) in self.pending.drain(..) {
            let [steps, files, keys, rules, reasons, raws] = &mut texts;
            steps.append_value(step);
            partitions.append_value(partition);
            files.append_value(&reject.place.file);
            lines.append_option(reject.place.line);
            rows.append_option(reject.place.row);
            keys.append_option(reject.key.map(|key| serde_json::Value::Object(key).to_string()));
            rules.append_value(&reject.rule);
            reasons.append_value(&reject.reason);
            raws.append_value(&reject.place.raw);
        }
        self.bytes = 0;
        let [step, file, key, rule, reason, raw] = texts.map(|mut text| Arc::new(text.finish()) as ArrayRef);
        let columns: Vec<ArrayRef> = vec![
            step,
            Arc::new(partitions.finish()),
            file,
            Arc::new(lines.finish()),
            Arc::new(rows.finish()),
            key,
            rule,
            reason,
            raw,
        ];
        let batch = RecordBatch::try_new(self.schema.clone(), columns)
            .map_err(|error| TaskError::new(ErrorClass::Data, format!("rejected records: {error}")))?;
        self.writer
            .write(&batch)
            .map_err(|error| parquet_error("write", &self.path, &error))
    }

    /// The number of records in the file, which is there now, whole.
    pub fn finish(mut self) -> Result<u64, TaskError> {
        self.flush()?;
        let file = self
            .writer
            .into_inner()
            .map_err(|error| parquet_error("close", &self.path, &error))?;
        file.sync_all()
            .map_err(|error| io_error("make durable", &self.path, &error))?;
        let unfinished = unfinished(&self.path);
        std::fs::rename(&unfinished, &self.path).map_err(|error| io_error("name", &self.path, &error))?;
        Ok(self.rows)
    }
}

fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.part"))
}

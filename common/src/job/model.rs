//! A job after parsing, substitution and checking: what the core and the workers act on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{error::ErrorClass, labels::Labels, order::SortColumn};

use super::{Delimiter, RecordsSink, RecordsSource};

/// A whole job file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub name: String,
    pub parameters: BTreeMap<String, Parameter>,
    /// Which runs go first where slots are short; a submit may say otherwise.
    #[serde(default)]
    pub priority: Priority,
    pub steps: Vec<Step>,
    /// What this job is a redrive of. Its one step reads the records already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive: Option<Redrive>,
}

/// A step done again over the records that it had rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redrive {
    pub step: String,
    /// From 1: the first takes what the run itself had rejected, each further one what the one before did.
    pub number: u32,
}

/// From 1 to 100; the higher goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(pub u8);

impl Priority {
    pub const LOWEST: Priority = Priority(1);
    pub const HIGHEST: Priority = Priority(100);

    /// A priority within the range.
    pub fn new(value: u32) -> Option<Priority> {
        let priority = Priority(u8::try_from(value).ok()?);
        (Priority::LOWEST..=Priority::HIGHEST)
            .contains(&priority)
            .then_some(priority)
    }
}

impl Default for Priority {
    fn default() -> Self {
        Priority(50)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    pub ty: ParameterType,
    /// Whether the value is part of the run's identity (the default).
    pub identifying: bool,
    pub default: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParameterType {
    String,
    Int64,
    Float64,
    Bool,
    Date,
    Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    /// Names of steps that must be complete first; a `source: {step: …}` adds its step.
    pub after: Vec<String>,
    pub source: Source,
    pub lookups: BTreeMap<String, Lookup>,
    pub partition: Partitioning,
    /// Labels that a worker must have to take a task of this step.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub placement: Labels,
    pub checks: Vec<Check>,
    /// SQL over `input` and the look-ups; `None` passes records through, unless there is a command.
    pub sql: Option<String>,
    /// A program that makes something of the records, instead of SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// By which columns of what the transform makes the output is ordered, over all its files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sort: Vec<SortColumn>,
    pub sink: Sink,
    pub on_error: OnError,
    /// What to do where an earlier run has done this very step over the same input.
    #[serde(default, skip_serializing_if = "IfUnchanged::is_run")]
    pub if_unchanged: IfUnchanged,
}

/// What becomes of a step whose input is that of a run before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IfUnchanged {
    /// It is done again.
    #[default]
    Run,
    /// Nothing is read: the output of that run stands.
    Skip,
}

impl IfUnchanged {
    pub fn is_run(&self) -> bool {
        *self == IfUnchanged::Run
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Csv(CsvSource),
    /// Lines of JSON, one object for each record.
    Ndjson(NdjsonSource),
    Parquet(ParquetSource),
    /// Avro object container files.
    Avro(AvroSource),
    /// Files of a record layout.
    Records(Box<RecordsSource>),
    /// The published output of an earlier step of this run.
    Step(String),
    /// The numbers `from..to` in one column `n`: for generated data and for measuring.
    Sequence {
        from: i64,
        to: i64,
    },
    /// Several of the others, one behind the other or in one order.
    Merge(Box<MergeSource>),
}

/// Inputs of whatever formats, as one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MergeSource {
    /// In the order in which their records follow one another; none of them is a sequence or a merge.
    pub inputs: Vec<Source>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub missing_columns: MissingColumns,
    /// Each input is in this order, and so is what they give together; the step's `sort` is the same. Empty: one
    /// behind the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<SortColumn>,
    /// Columns in which no two records of all inputs are equal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique: Vec<String>,
    /// The columns that there are, where the inputs have others: in a redrive, as records of types were kept with those
    /// that their run had read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_columns: Option<Vec<String>>,
}

/// What becomes of a column that not all inputs of a merge have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingColumns {
    /// The step is refused before any work.
    #[default]
    Refuse,
    /// It is NULL in the records of inputs that lack it.
    Fill,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CsvSource {
    /// Paths and globs, in order; each glob's matches sorted by bytes.
    pub paths: Vec<String>,
    /// Declared columns in file order (without a header) or by name (with one). Columns of the
    /// header that are not declared are text. Empty: every column of the header is text.
    pub columns: Vec<(String, ColumnType)>,
    pub header: bool,
    pub delimiter: Delimiter,
    pub quote: Option<u8>,
    /// Texts that mean NULL when they stand unquoted. The default is the empty text.
    pub nulls: Vec<String>,
    pub compression: Compression,
    #[serde(default, skip_serializing_if = "Dialect::is_plain")]
    pub dialect: Dialect,
    /// The file that tells where the records stood at first, in a redrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub places: Option<String>,
}

/// What only some delimited files have. The default is none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dialect {
    /// The byte behind it stands for itself, in quotes and outside of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escape: Option<u8>,
    /// Whether line ends may stand within a quoted field, or behind an escape.
    #[serde(skip_serializing_if = "is_default")]
    pub multiline: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub newline: Newline,
    #[serde(skip_serializing_if = "is_default")]
    pub encoding: Encoding,
    /// Lines that begin with it are no records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<u8>,
    /// Lines of each file that stand before its header or first record.
    #[serde(skip_serializing_if = "is_default")]
    pub skip_lines: u32,
}

impl Dialect {
    pub fn is_plain(&self) -> bool {
        is_default(self)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What ends a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Newline {
    /// LF, or CR and LF.
    #[default]
    Lf,
    /// CR alone.
    Cr,
}

/// How the characters of a text file are written as bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// ISO 8859-1: each byte is the character with its number.
    #[serde(rename = "latin1")]
    Latin1,
    #[serde(rename = "windows-1252")]
    Windows1252,
    /// The byte order mark, which must be there, tells the order.
    #[serde(rename = "utf-16")]
    Utf16,
    #[serde(rename = "utf-16le")]
    Utf16Le,
    #[serde(rename = "utf-16be")]
    Utf16Be,
}

impl Encoding {
    /// As it is written in a job.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Utf8 => "utf-8",
            Encoding::Latin1 => "latin1",
            Encoding::Windows1252 => "windows-1252",
            Encoding::Utf16 => "utf-16",
            Encoding::Utf16Le => "utf-16le",
            Encoding::Utf16Be => "utf-16be",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParquetSource {
    pub paths: Vec<String>,
    /// As that of a [`CsvSource`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub places: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AvroSource {
    pub paths: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NdjsonSource {
    pub paths: Vec<String>,
    /// Names in the objects. Empty: those of the first record, all text.
    pub columns: Vec<(String, ColumnType)>,
    /// Columns without which an object is rejected.
    pub required: Vec<String>,
    pub compression: Compression,
    /// Whether names that are no columns are faults, though the columns are declared: in a redrive.
    #[serde(default, skip_serializing_if = "is_default")]
    pub closed: bool,
    /// As that of a [`CsvSource`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub places: Option<String>,
}

impl Source {
    /// Paths and globs; none for a source that reads no files of its own, or those of several inputs.
    pub fn paths(&self) -> &[String] {
        match self {
            Source::Csv(source) => &source.paths,
            Source::Ndjson(source) => &source.paths,
            Source::Parquet(source) => &source.paths,
            Source::Avro(source) => &source.paths,
            Source::Records(source) => &source.paths,
            Source::Step(_) | Source::Sequence { .. } | Source::Merge(_) => &[],
        }
    }

    /// In a redrive the file that tells where the records stood at first.
    pub fn places(&self) -> Option<&str> {
        match self {
            Source::Csv(source) => source.places.as_deref(),
            Source::Ndjson(source) => source.places.as_deref(),
            Source::Parquet(source) => source.places.as_deref(),
            Source::Records(source) => source.places.as_deref(),
            Source::Avro(_) | Source::Step(_) | Source::Sequence { .. } | Source::Merge(_) => None,
        }
    }

    /// The inputs of a merge; of any other source itself.
    pub fn inputs(&self) -> &[Source] {
        match self {
            Source::Merge(merge) => &merge.inputs,
            one => std::slice::from_ref(one),
        }
    }

    /// The steps whose output is read.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.inputs().iter().filter_map(|input| match input {
            Source::Step(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The format as it is called in a job, and where it lies: `csv in/a.csv`.
    pub fn shown(&self) -> String {
        let format = match self {
            Source::Csv(_) => "csv",
            Source::Ndjson(_) => "ndjson",
            Source::Parquet(_) => "parquet",
            Source::Avro(_) => "avro",
            Source::Records(_) => "records",
            Source::Step(name) => return format!("step {name}"),
            Source::Sequence { from, to } => return format!("the numbers from {from} to below {to}"),
            Source::Merge(merge) => {
                let inputs: Vec<String> = merge.inputs.iter().map(Source::shown).collect();
                return format!("merge of {}", inputs.join(", "));
            }
        };
        format!("{format} {}", self.paths().join(", "))
    }
}

/// A small table, joined by name and pinned for the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lookup {
    Csv(CsvSource),
    Ndjson(NdjsonSource),
    Parquet(ParquetSource),
    Avro(AvroSource),
    Records(Box<RecordsSource>),
    /// The published output of another step of the run.
    Step(String),
}

impl Lookup {
    pub fn paths(&self) -> &[String] {
        match self {
            Lookup::Csv(source) => &source.paths,
            Lookup::Ndjson(source) => &source.paths,
            Lookup::Parquet(source) => &source.paths,
            Lookup::Avro(source) => &source.paths,
            Lookup::Records(source) => &source.paths,
            // Its files lie in the output of a step, and what a run has published to itself does not grow.
            Lookup::Step(_) => &[],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Float32,
    Float64,
    Decimal { precision: u8, scale: i8 },
    String,
    Bool,
    Date,
    Timestamp,
}

/// How a file is compressed. `Auto` goes by the name: `.gz`, `.zst`, else none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    Auto,
    None,
    Gzip,
    Zstd,
    Snappy,
    Lz4,
    /// Of Avro alone.
    Deflate,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Partitioning {
    pub method: Partition,
    pub count: Count,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partition {
    /// Chosen from the source and the SQL.
    Auto,
    /// Record-aligned byte ranges.
    Bytes,
    /// One partition for each file.
    Files,
    /// Parquet row groups.
    RowGroups,
    KeyRange {
        column: String,
        /// Written by the user; empty: bounds by quantiles of a sample.
        ranges: Vec<WrittenRange>,
        outside: Outside,
    },
    Hash {
        columns: Vec<String>,
    },
}

/// A range as the user wrote it: `from` inclusive, then `to` exclusive or `through` inclusive.
/// In text `through: L` includes every value that begins with L.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WrittenRange {
    pub from: Option<String>,
    pub to: Option<String>,
    pub through: Option<String>,
    /// Whether NULL keys belong to this range.
    pub null: bool,
}

/// What becomes of keys that no written range covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outside {
    /// The job is refused with the exact interval.
    #[default]
    Refuse,
    /// Partitions of their own are planned for them.
    Partition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    Auto,
    Fixed(u32),
}

/// A program that reads records on its standard input and writes records on its standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program and its arguments; no shell is between.
    pub run: Vec<String>,
    pub format: CommandFormat,
    pub mode: CommandMode,
    /// The columns that it writes, in order; empty: those of its Arrow schema.
    pub columns: Vec<(String, ColumnType)>,
    /// What one run of the program may take.
    pub timeout_s: u32,
    /// What one run of the program may write.
    pub output_mib: u32,
}

/// How records travel to and from a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandFormat {
    /// Streams of Arrow IPC.
    #[default]
    Arrow,
    /// One JSON object a line.
    Ndjson,
}

/// What a run of a program takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandMode {
    /// Some records of a partition: what it makes of one depends on no other.
    #[default]
    Rows,
    /// A whole partition.
    Whole,
}

/// SQL that must be true of a record, else it is rejected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub that: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sink {
    Csv(FileSink),
    Ndjson(FileSink),
    Parquet(FileSink),
    Avro(FileSink),
    /// Files of a record layout.
    Records(Box<RecordsSink>),
    /// A text through templates, with pages and totals.
    Report(Box<ReportSink>),
    /// Counts rows and writes none: for measuring and for checks alone.
    Discard,
}

impl Sink {
    /// Where the files go; `None` for a sink that keeps nothing.
    pub fn file(&self) -> Option<&FileSink> {
        match self {
            Sink::Csv(file) | Sink::Ndjson(file) | Sink::Parquet(file) | Sink::Avro(file) => Some(file),
            Sink::Records(records) => Some(&records.file),
            Sink::Report(report) => Some(&report.file),
            Sink::Discard => None,
        }
    }

    pub fn file_mut(&mut self) -> Option<&mut FileSink> {
        match self {
            Sink::Csv(file) | Sink::Ndjson(file) | Sink::Parquet(file) | Sink::Avro(file) => Some(file),
            Sink::Records(records) => Some(&mut records.file),
            Sink::Report(report) => Some(&mut report.file),
            Sink::Discard => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileSink {
    /// The folder of the output.
    pub path: String,
    pub exists: Exists,
    /// Parquet: zstd (default), snappy, lz4, gzip, none. Avro: deflate (default), snappy, zstd, none. Text: none (default), gzip, zstd.
    pub compression: Compression,
    /// Merge the output into this many files.
    pub files: Option<u32>,
    /// Columns that become Hive folders.
    pub partition_by: Vec<String>,
    /// Named outputs over which the rows are divided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Name of an extra column that holds the partition number.
    pub partition_column: Option<String>,
    /// CSV only.
    pub header: bool,
    pub delimiter: Delimiter,
    pub null: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub encoding: Encoding,
    /// Whether lines end with a carriage return too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub crlf: bool,
}

/// A report: one text, made of templates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportSink {
    pub file: FileSink,
    /// Rows of a page; `None`: one page for all.
    pub page_rows: Option<u32>,
    pub begin: Option<String>,
    pub header: Option<String>,
    pub row: String,
    pub footer: Option<String>,
    pub end: Option<String>,
    /// Columns that are summed, over the page and over the report.
    pub totals: Vec<String>,
    pub page_break: String,
    /// Of the file's name; `html` escapes values.
    pub extension: String,
}

/// Divides rows over sub-folders of an output, each with a name, or over files of so many rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    pub by: SplitBy,
    /// The output of rows that belong to no other; `None`: such a row fails the step.
    pub otherwise: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    /// An output for each value of a column.
    Value(String),
    /// The first output whose SQL is true of a row takes it.
    When(Vec<Check>),
    /// By the hash of columns; outputs are numbered.
    Hash { columns: Vec<String>, into: u32 },
    /// Files of at most so many rows.
    Rows(u64),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exists {
    #[default]
    Fail,
    Replace,
    Append,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnError {
    /// Attempts for each task that fails in a way that may pass; lost workers are not counted.
    pub attempts: u32,
    /// Whether the job says so: then it is said of time-outs too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attempts_written: bool,
    /// Rejected records over all partitions of the step before it fails. `None`: no limit.
    pub reject_limit: Option<u64>,
    /// Rejected records as millionths of all records of the step. `None`: no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject_share: Option<u32>,
    pub partition_failed: PartitionFailed,
}

impl Default for OnError {
    fn default() -> Self {
        Self {
            attempts: 5,
            attempts_written: false,
            reject_limit: Some(0),
            reject_share: None,
            partition_failed: PartitionFailed::Stop,
        }
    }
}

impl OnError {
    /// A second time, for a machine that was busy; further ones would each take as long again.
    const ATTEMPTS_IN_TIME: u32 = 2;

    /// How often a task is tried that fails in this way.
    pub fn attempts_after(&self, class: ErrorClass) -> u32 {
        match class {
            ErrorClass::TimedOut if !self.attempts_written => Self::ATTEMPTS_IN_TIME,
            _ => self.attempts,
        }
    }
}

/// What becomes of the other partitions when one has failed for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionFailed {
    /// Those running are stopped at their next commit; the run fails.
    #[default]
    Stop,
    /// The others finish, then the run fails; a restart does only what is left.
    Continue,
}

impl Job {
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }
}

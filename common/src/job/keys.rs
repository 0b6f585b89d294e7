//! The table of the job language: every key, what may stand behind it, and what it means.
//!
//! The parser takes its checks and its messages from here, the JSON Schema is made of it. A key
//! that is not in this table does not exist.

mod partition;
mod records;
mod sink;
mod source;
mod step;

pub use partition::{HASH, KEY_RANGE, PARTITION, RANGE};
pub use records::{EDGE, EDGE_FIELD, FIELD, LINE, RECORDS_SINK, RECORDS_SOURCE};
pub use sink::{AVRO_SINK, CSV_SINK, NDJSON_SINK, PARQUET_SINK, REPORT_SINK, SINK, SPLIT, SPLIT_HASH, WHEN};
pub use source::{
    AVRO_SOURCE, CSV_SOURCE, LOOKUP, MERGE, MERGE_BY, MERGE_INPUT, NDJSON_SOURCE, PARQUET_SOURCE, SEQUENCE, SOURCE,
};
pub use step::{CHECK, COMMAND, JOB, ON_ERROR, PARAMETER, PLACEMENT, REDRIVE, REJECT, RETRY, SORT, STEP, TRANSFORM};

use crate::labels::{MAX_LABEL_BYTES, MAX_LABELS};

use super::Delimiter;

/// Names of jobs and steps become parts of paths and store keys.
pub const MAX_NAME_BYTES: usize = 64;
/// A step's number is kept in 16 bits; more steps than this are made by a program that should
/// make several jobs.
pub const MAX_STEPS: usize = 1000;
/// Inputs of a merge: files of one kind are one input, and each is looked at by itself.
pub const MAX_INPUTS: usize = 1000;
/// The stated limit of one run (the store's rows are sized for it).
pub const MAX_PARTITIONS: i64 = 100_000;
/// A file each, at most one for each partition.
pub const MAX_FILES: i64 = 100_000;
/// Beyond this a task does not fail by chance.
pub const MAX_ATTEMPTS: i64 = 100;
/// Outputs of a split by hash: each chunk has a file in each of them.
pub const MAX_SPLIT: i64 = 4096;
pub const MAX_PARAMETERS: usize = 100;
/// What stands before a table is a title, not data.
pub const MAX_SKIPPED_LINES: i64 = 1000;
/// Places in a line of a record layout: a line is held in memory as a whole.
pub const MAX_LINE_WIDTH: i64 = 1_000_000;
/// Whoever redrives so often does not mend anything.
pub const MAX_REDRIVES: i64 = 10_000;
/// A week: a program that takes longer for one partition hangs.
pub const MAX_COMMAND_SECONDS: i64 = 7 * 24 * 3600;
/// A TiB: more than the disk of a worker takes for one partition.
pub const MAX_COMMAND_MIB: i64 = 1 << 20;
/// The range of [`super::Priority`].
const MIN_PRIORITY: i64 = super::Priority::LOWEST.0 as i64;
const MAX_PRIORITY: i64 = super::Priority::HIGHEST.0 as i64;

/// A mapping of the language.
#[derive(Debug)]
pub struct Section {
    /// As it is called in messages; unique.
    pub name: &'static str,
    pub about: &'static str,
    pub keys: &'static [Key],
    pub choice: Choice,
    /// Words that may stand in place of the mapping.
    pub words: &'static [&'static str],
}

/// Keys of a section that exclude one another.
#[derive(Debug)]
pub enum Choice {
    Free,
    ExactlyOne(&'static [&'static str]),
    AtMostOne(&'static [&'static str]),
}

#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    /// What it means; `(default …)` in it is what holds where the key is left out.
    pub about: &'static str,
    /// A value for the editor to offer, as JSON.
    pub example: &'static str,
}

/// What may stand behind a key.
#[derive(Debug)]
pub enum Kind {
    /// The name of a job or step: never substituted.
    Name,
    Text,
    OutputPath,
    /// SQL text: values substituted into it are held to a stricter rule.
    Sql,
    /// Free text that is taken as written, without substitution.
    Literal,
    Texts,
    Paths,
    /// Names of steps.
    Names,
    Bool,
    Integer {
        min: i64,
        max: i64,
    },
    /// A word, or a whole number.
    IntegerOr {
        word: &'static str,
        min: i64,
        max: i64,
    },
    Word(&'static [&'static str]),
    /// One ASCII character, or one of these words.
    Character(&'static [&'static str]),
    /// What stands between fields: a few characters, or `tab`.
    Delimiter,
    /// `{}` or nothing.
    Empty,
    /// Column names and their types, in order.
    Columns,
    /// The type of a column.
    ColumnType,
    /// A mapping from label names to values.
    Labels,
    Section(&'static Section),
    List(&'static Section),
    /// A list of sections, or of texts that stand for one key of them; one item may stand alone.
    ListOr {
        section: &'static Section,
        short: &'static str,
    },
    /// From identifiers to sections.
    Map(&'static Section),
}

const fn key(name: &'static str, kind: Kind, about: &'static str, example: &'static str) -> Key {
    Key {
        name,
        kind,
        required: false,
        about,
        example,
    }
}

const fn required(name: &'static str, kind: Kind, about: &'static str, example: &'static str) -> Key {
    Key {
        name,
        kind,
        required: true,
        about,
        example,
    }
}

const fn section(name: &'static str, about: &'static str, keys: &'static [Key]) -> Section {
    Section {
        name,
        about,
        keys,
        choice: Choice::Free,
        words: &[],
    }
}

const SORT_ORDER: Key = key(
    "order",
    Kind::Word(&["asc", "desc"]),
    "Whether values rise or fall (default asc).",
    r#""desc""#,
);
const SORT_NULLS: Key = key(
    "nulls",
    Kind::Word(&["first", "last"]),
    "Where NULL stands, whichever way values run (default last).",
    r#""first""#,
);

/// Every section, the job first.
pub static SECTIONS: &[&Section] = &[
    &JOB,
    &PARAMETER,
    &STEP,
    &SOURCE,
    &MERGE,
    &MERGE_BY,
    &MERGE_INPUT,
    &LOOKUP,
    &CSV_SOURCE,
    &NDJSON_SOURCE,
    &PARQUET_SOURCE,
    &AVRO_SOURCE,
    &RECORDS_SOURCE,
    &LINE,
    &FIELD,
    &EDGE,
    &EDGE_FIELD,
    &SEQUENCE,
    &PARTITION,
    &KEY_RANGE,
    &RANGE,
    &HASH,
    &PLACEMENT,
    &CHECK,
    &TRANSFORM,
    &COMMAND,
    &SORT,
    &SINK,
    &SPLIT,
    &WHEN,
    &SPLIT_HASH,
    &CSV_SINK,
    &NDJSON_SINK,
    &PARQUET_SINK,
    &AVRO_SINK,
    &RECORDS_SINK,
    &REPORT_SINK,
    &ON_ERROR,
    &RETRY,
    &REJECT,
];

/// Encodings of text files.
const ENCODINGS: &[&str] = &["utf-8", "latin1", "windows-1252", "utf-16", "utf-16le", "utf-16be"];
/// The type names of CSV columns, for messages and the schema.
pub const COLUMN_TYPES: &[&str] = &[
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float32",
    "float64",
    "decimal(p,s)",
    "string",
    "bool",
    "date",
    "timestamp",
];

impl Key {
    /// The default, where it is a value of the language rather than a description.
    pub fn default_word(&self) -> Option<&'static str> {
        let words = self.default_words()?;
        let plain = words.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
        let plain = plain.unwrap_or(words);
        let is_value = match self.kind {
            Kind::Bool => matches!(plain, "true" | "false"),
            Kind::Word(words) | Kind::Character(words) => words.contains(&plain) || plain.len() == 1,
            Kind::Delimiter => plain.chars().count() == 1,
            Kind::IntegerOr { word, .. } => plain == word || plain.parse::<i64>().is_ok(),
            Kind::Integer { .. } => plain.parse::<i64>().is_ok(),
            Kind::Section(section) => section.words.contains(&plain),
            _ => false,
        };
        is_value.then_some(plain)
    }

    /// What holds where the key is left out: the last parenthesis of the description, `(default …)`.
    pub fn default_words(&self) -> Option<&'static str> {
        self.default_place().map(|(_, words, _)| words)
    }

    /// The description without the default.
    pub fn meaning(&self) -> String {
        match self.default_place() {
            None => self.about.to_string(),
            Some((before, _, after)) => format!("{before}{after}"),
        }
    }

    fn default_place(&self) -> Option<(&'static str, &'static str, &'static str)> {
        let (before, rest) = self.about.split_once(" (default")?;
        let (words, after) = rest.strip_prefix([' ', ':'])?.split_once(')')?;
        Some((before, words.trim_start(), after))
    }
}

impl Section {
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    pub fn key_names(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.keys.iter().map(|key| key.name)
    }
}

impl Kind {
    /// What may stand there, for "allowed: …".
    pub fn allowed(&self) -> String {
        match self {
            Kind::Name => {
                format!("letters, digits, `_`, `-`, `.`, beginning with a letter or digit, at most {MAX_NAME_BYTES}")
            }
            Kind::Text | Kind::Literal => "text".to_string(),
            Kind::OutputPath => "the path of a folder".to_string(),
            Kind::Sql => "SQL text".to_string(),
            Kind::Texts => "text, or a list of texts".to_string(),
            Kind::Paths => "a path, or a list of paths".to_string(),
            Kind::Names => "the name of a step, or a list of names".to_string(),
            Kind::Bool => "true, false".to_string(),
            Kind::Integer { min, max } => whole(*min, *max),
            Kind::IntegerOr { word, min, max } => format!("{word}, or {}", whole(*min, *max)),
            Kind::Word(words) => words.join(", "),
            Kind::Character(words) => format!("one character, or {}", words.join(", ")),
            Kind::Delimiter => format!("tab, or 1 to {} bytes of text without a line end", Delimiter::MAX_BYTES),
            Kind::Empty => "{}".to_string(),
            Kind::Columns => "a mapping from column names to types".to_string(),
            Kind::ColumnType => COLUMN_TYPES.join(", "),
            Kind::Labels => format!(
                "a mapping from label names to values, 1 to {MAX_LABELS} of them: letters, digits, `_`, `-`, `.`, `/`, at most {MAX_LABEL_BYTES}"
            ),
            Kind::Section(section) => section.allowed(),
            Kind::List(section) => format!("a list, each item {}", section.allowed()),
            Kind::ListOr { section, short } => {
                format!("a list, each item the text of `{short}`, or {}", section.allowed())
            }
            Kind::Map(section) => format!("a mapping from names, each value {}", section.allowed()),
        }
    }
}

impl Section {
    /// What may stand in its place, for "allowed: …".
    pub fn allowed(&self) -> String {
        let keys = self.key_names().collect::<Vec<_>>().join(", ");
        match self.words {
            [] => format!("a mapping with the keys {keys}"),
            words => format!("{}, or a mapping with the keys {keys}", words.join(", ")),
        }
    }
}

fn whole(min: i64, max: i64) -> String {
    match (min, max) {
        (i64::MIN, i64::MAX) => "a whole number of 64 bits".to_string(),
        (min, i64::MAX) => format!("a whole number from {min}"),
        (min, max) => format!("a whole number from {min} to {max}"),
    }
}

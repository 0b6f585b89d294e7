//! The table of the job language: every key, what may stand behind it, and what it means.
//!
//! The parser takes its checks and its messages from here, the JSON Schema is made of it. A key
//! that is not in this table does not exist.

use crate::labels::{MAX_LABEL_BYTES, MAX_LABELS};

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

pub static JOB: Section = section(
    "job",
    "A batch job: steps that each cover every record of their source exactly once.",
    &[
        required(
            "job",
            Kind::Name,
            "The job's name. With the identifying parameters it is the identity of a run.",
            r#""nightly-revenue""#,
        ),
        key(
            "parameters",
            Kind::Map(&PARAMETER),
            "Values given with each run, at most 100; ${param.NAME} stands for them inside values (default none).",
            r#"{"date": {"type": "date"}}"#,
        ),
        key(
            "priority",
            Kind::Integer {
                min: MIN_PRIORITY,
                max: MAX_PRIORITY,
            },
            "Runs of a higher priority are given slots first; those of one priority share them (default 50).",
            "50",
        ),
        required(
            "steps",
            Kind::List(&STEP),
            "The steps, 1 to 1,000. Those that do not depend on one another run at the same time.",
            r#"[{"name": "load", "source": {"csv": {"path": "in/*.csv"}}, "sink": {"parquet": {"path": "out/load"}}}]"#,
        ),
        key(
            "redrive",
            Kind::Section(&REDRIVE),
            "Written by `gapless redrive`: the job does one step again, over the records that it had rejected.",
            r#"{"step": "load", "number": 1, "records": "/x/records.csv", "places": "/x/places.ndjson", "columns": {"a": "int64"}}"#,
        ),
    ],
);

pub static REDRIVE: Section = section(
    "redrive",
    "Written by `gapless redrive`: the job does one step again, over the records that it had rejected.",
    &[
        required("step", Kind::Name, "The step; the job has no other then.", r#""load""#),
        required(
            "number",
            Kind::Integer {
                min: 1,
                max: MAX_REDRIVES,
            },
            "Which redrive it is; a part of the run's identity, so that each is done once.",
            "1",
        ),
        required(
            "records",
            Kind::Text,
            "The file with the records, in the form of the step's source, without a header.",
            r#""/x/records.csv""#,
        ),
        required(
            "places",
            Kind::Text,
            "The file that tells where each of them stood at first.",
            r#""/x/places.ndjson""#,
        ),
        required(
            "columns",
            Kind::Columns,
            "The columns of the source.",
            r#"{"a": "int64"}"#,
        ),
    ],
);

pub static PARAMETER: Section = section(
    "parameter",
    "A value that is given with each run.",
    &[
        required(
            "type",
            Kind::Word(&["string", "int64", "float64", "bool", "date", "timestamp"]),
            "What the value must be.",
            r#""date""#,
        ),
        key(
            "identifying",
            Kind::Bool,
            "Whether the value is part of the run's identity: one completed run for each (default `true`).",
            "true",
        ),
        key(
            "default",
            Kind::Literal,
            "The value where none is given (default none: one must be given).",
            r#""2026-11-20""#,
        ),
    ],
);

pub static STEP: Section = section(
    "step",
    "Source, checks, transform and sink over a set of partitions.",
    &[
        required(
            "name",
            Kind::Name,
            "The step's name, once in the job: letters, digits, `_`, `-`, `.`.",
            r#""load""#,
        ),
        key(
            "after",
            Kind::Names,
            "Steps that must be complete before this one begins; `source: {step: …}` adds its step by itself (default none).",
            r#"["load"]"#,
        ),
        required(
            "source",
            Kind::Section(&SOURCE),
            "Where the records come from.",
            r#"{"parquet": {"path": "in/*.parquet"}}"#,
        ),
        key(
            "lookups",
            Kind::Map(&LOOKUP),
            "Small tables that the SQL joins by name, pinned for the run (default none).",
            r#"{"region": {"csv": {"path": "region.csv"}}}"#,
        ),
        key(
            "partition",
            Kind::Section(&PARTITION),
            "How the records are divided (default `auto`).",
            r#"{"key_range": {"column": "id"}, "count": "auto"}"#,
        ),
        key(
            "if_unchanged",
            Kind::Word(&["run", "skip"]),
            "Where an earlier run has done this very step over the same files: do it again, or let its output stand (default `run`).",
            r#""skip""#,
        ),
        key(
            "placement",
            Kind::Section(&PLACEMENT),
            "Which workers may take the step's tasks (default all workers).",
            r#"{"labels": {"zone": "a"}}"#,
        ),
        key(
            "check",
            Kind::List(&CHECK),
            "What must be true of each record, else it is rejected (default nothing).",
            r#"[{"name": "positive quantity", "that": "quantity > 0"}]"#,
        ),
        key(
            "transform",
            Kind::Section(&TRANSFORM),
            "What is made of the records (default none: they pass through).",
            r#"{"sql": "SELECT * FROM input"}"#,
        ),
        key(
            "sort",
            Kind::ListOr {
                section: &SORT,
                short: "column",
            },
            "Columns by which the output is ordered, over all its files.",
            r#"["shop", {"column": "amount", "order": "desc"}]"#,
        ),
        required(
            "sink",
            Kind::Section(&SINK),
            "Where the records go.",
            r#"{"parquet": {"path": "out/load"}}"#,
        ),
        key(
            "on_error",
            Kind::Section(&ON_ERROR),
            "Retries, rejected records, failed partitions (default as below).",
            r#"{"retry": {"attempts": 5}, "reject": {"limit": 1000}, "partition_failed": "stop"}"#,
        ),
    ],
);

pub static SOURCE: Section = Section {
    choice: Choice::ExactlyOne(&[
        "csv", "ndjson", "parquet", "avro", "records", "step", "sequence", "merge",
    ]),
    ..section(
        "source",
        "Where the records come from: one of these.",
        &[
            key(
                "csv",
                Kind::Section(&CSV_SOURCE),
                "CSV files.",
                r#"{"path": "in/*.csv"}"#,
            ),
            key(
                "ndjson",
                Kind::Section(&NDJSON_SOURCE),
                "Lines of JSON, one object for each record.",
                r#"{"path": "in/*.ndjson"}"#,
            ),
            key(
                "parquet",
                Kind::Section(&PARQUET_SOURCE),
                "Parquet files.",
                r#"{"path": "in/*.parquet"}"#,
            ),
            key(
                "avro",
                Kind::Section(&AVRO_SOURCE),
                "Avro object container files.",
                r#"{"path": "in/*.avro"}"#,
            ),
            key(
                "records",
                Kind::Section(&RECORDS_SOURCE),
                "Files of a record layout: fixed-width or delimited lines of one or several types.",
                r#"{"path": "data/accounts.txt", "fields": [{"name": "id", "width": 8, "type": "int64"}]}"#,
            ),
            key(
                "step",
                Kind::Name,
                "The published output of another step of this run, which then goes first.",
                r#""load""#,
            ),
            key(
                "sequence",
                Kind::Section(&SEQUENCE),
                "The numbers from..to in one column `n`.",
                r#"{"from": 0, "to": 1000}"#,
            ),
            key(
                "merge",
                Kind::Section(&MERGE),
                "Several inputs of any of these formats, one behind the other or in one order.",
                r#"{"inputs": [{"csv": {"path": "old.csv"}}, {"parquet": {"path": "new.parquet"}}]}"#,
            ),
        ],
    )
};

pub static MERGE: Section = section(
    "merge",
    "Several inputs as one source.",
    &[
        required(
            "inputs",
            Kind::List(&MERGE_INPUT),
            "The inputs, in the order in which their records follow one another; at most 1,000.",
            r#"[{"csv": {"path": "old.csv"}}, {"step": "load"}]"#,
        ),
        key(
            "missing_columns",
            Kind::Word(&["refuse", "fill"]),
            "What becomes of columns that not all inputs have: the step is refused, or they are filled with NULL (default `refuse`).",
            r#""fill""#,
        ),
        key(
            "by",
            Kind::ListOr {
                section: &MERGE_BY,
                short: "column",
            },
            "Columns by which each input is sorted: the output is sorted by them, and an input that is not fails the step (default none: one input behind the other).",
            r#"["id", {"column": "day", "order": "desc"}]"#,
        ),
        key(
            "unique",
            Kind::Texts,
            "Columns in which no two records of all inputs may be equal, else the step fails; NULL is equal to nothing (default none).",
            r#"["id"]"#,
        ),
    ],
);

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

pub static MERGE_BY: Section = section(
    "by",
    "A column by which the inputs of a merge are sorted, and which way.",
    &[
        required("column", Kind::Text, "The column, of those of the inputs.", r#""id""#),
        SORT_ORDER,
        SORT_NULLS,
    ],
);

pub static MERGE_INPUT: Section = Section {
    choice: Choice::ExactlyOne(&["csv", "ndjson", "parquet", "avro", "records", "step"]),
    ..section(
        "input",
        "One input of a merge: one of these.",
        &[
            key(
                "csv",
                Kind::Section(&CSV_SOURCE),
                "CSV files.",
                r#"{"path": "old.csv"}"#,
            ),
            key(
                "ndjson",
                Kind::Section(&NDJSON_SOURCE),
                "Lines of JSON, one object for each record.",
                r#"{"path": "old.ndjson"}"#,
            ),
            key(
                "parquet",
                Kind::Section(&PARQUET_SOURCE),
                "Parquet files.",
                r#"{"path": "new.parquet"}"#,
            ),
            key(
                "avro",
                Kind::Section(&AVRO_SOURCE),
                "Avro object container files.",
                r#"{"path": "new.avro"}"#,
            ),
            key(
                "records",
                Kind::Section(&RECORDS_SOURCE),
                "Files of a record layout.",
                r#"{"path": "old.txt", "fields": [{"name": "id", "width": 8, "type": "int64"}]}"#,
            ),
            key(
                "step",
                Kind::Name,
                "The published output of another step of this run, which then goes first.",
                r#""load""#,
            ),
        ],
    )
};

pub static LOOKUP: Section = Section {
    choice: Choice::ExactlyOne(&["csv", "ndjson", "parquet", "avro", "records", "step"]),
    ..section(
        "lookup",
        "A small table: one of these.",
        &[
            key(
                "csv",
                Kind::Section(&CSV_SOURCE),
                "CSV files.",
                r#"{"path": "region.csv"}"#,
            ),
            key(
                "ndjson",
                Kind::Section(&NDJSON_SOURCE),
                "Lines of JSON, one object for each record.",
                r#"{"path": "region.ndjson"}"#,
            ),
            key(
                "parquet",
                Kind::Section(&PARQUET_SOURCE),
                "Parquet files.",
                r#"{"path": "region.parquet"}"#,
            ),
            key(
                "avro",
                Kind::Section(&AVRO_SOURCE),
                "Avro object container files.",
                r#"{"path": "region.avro"}"#,
            ),
            key(
                "records",
                Kind::Section(&RECORDS_SOURCE),
                "Files of a record layout.",
                r#"{"path": "region.txt", "fields": [{"name": "id", "width": 8, "type": "int64"}]}"#,
            ),
            key(
                "step",
                Kind::Name,
                "The published output of another step of this run, which then goes first; one with a parquet or avro sink, which keep the types.",
                r#""load""#,
            ),
        ],
    )
};

pub static CSV_SOURCE: Section = section(
    "csv source",
    "CSV files with declared types.",
    &[
        required(
            "path",
            Kind::Paths,
            "A path or glob, or a list of them.",
            r#""data/lineitem-*.csv""#,
        ),
        key(
            "columns",
            Kind::Columns,
            "Types by column name; required, and in the order of the file, where it has no header. Columns of the header that are not named are text (default all text).",
            r#"{"id": "int64", "price": "decimal(12,2)"}"#,
        ),
        key(
            "header",
            Kind::Bool,
            "Whether the first line of each file names the columns (default `true`).",
            "true",
        ),
        key(
            "delimiter",
            Kind::Character(&["tab"]),
            "What stands between fields: one character or `tab` (default `,`).",
            r#""|""#,
        ),
        key(
            "quote",
            Kind::Character(&["none"]),
            "What stands around a field with delimiters in it: one character or `none`; doubled inside (default `\"`).",
            r#""\"""#,
        ),
        key(
            "nulls",
            Kind::Texts,
            "Texts that mean NULL when they stand unquoted (default the empty text).",
            r#"["", "NULL"]"#,
        ),
        key(
            "escape",
            Kind::Character(&["none"]),
            "The character behind it stands for itself (default none: quotes are doubled within quotes).",
            r#""\\""#,
        ),
        key(
            "multiline",
            Kind::Bool,
            "Whether quoted fields may hold line ends (default false). Each file is then read by one partition.",
            "true",
        ),
        key(
            "newline",
            Kind::Word(&["lf", "cr"]),
            "What ends a line: `lf` is LF or CRLF, `cr` is CR alone (default `lf`). A header that holds line ends of the other kind is refused.",
            r#""lf""#,
        ),
        key(
            "encoding",
            Kind::Word(ENCODINGS),
            "How characters are written as bytes; `utf-16` goes by the byte order mark, which must be there (default utf-8); a mark of UTF-16 that is not that of the encoding is refused. Files in another encoding are read by one partition each.",
            r#""windows-1252""#,
        ),
        key(
            "comment",
            Kind::Character(&["none"]),
            "Lines that begin with it are no records, before the header too (default none).",
            r##""#""##,
        ),
        key(
            "skip_lines",
            Kind::Integer {
                min: 0,
                max: MAX_SKIPPED_LINES,
            },
            "Lines of each file that stand before its header or first record (default 0).",
            "2",
        ),
        key(
            "compression",
            Kind::Word(&["auto", "none", "gzip", "zstd"]),
            "How the files are compressed; `auto` goes by the name: `.gz`, `.zst`, else none (default `auto`).",
            r#""auto""#,
        ),
    ],
);

pub static NDJSON_SOURCE: Section = section(
    "ndjson source",
    "Lines of JSON with declared types, one object for each record.",
    &[
        required(
            "path",
            Kind::Paths,
            "A path or glob, or a list of them.",
            r#""data/events-*.ndjson""#,
        ),
        key(
            "columns",
            Kind::Columns,
            "Names in the objects and their types; other names are passed over. Without it the names of the first record are the columns, all text, and other names are faults.",
            r#"{"id": "int64", "price": "decimal(12,2)"}"#,
        ),
        key(
            "required",
            Kind::Texts,
            "Columns that must be there and not null, else the record is rejected (default none).",
            r#"["id"]"#,
        ),
        key(
            "compression",
            Kind::Word(&["auto", "none", "gzip", "zstd"]),
            "How the files are compressed; `auto` goes by the name: `.gz`, `.zst`, else none (default `auto`).",
            r#""auto""#,
        ),
    ],
);

pub static PARQUET_SOURCE: Section = section(
    "parquet source",
    "Parquet files.",
    &[required(
        "path",
        Kind::Paths,
        "A path or glob, or a list of them.",
        r#""data/lineitem-*.parquet""#,
    )],
);

pub static AVRO_SOURCE: Section = section(
    "avro source",
    "Avro object container files, with blocks compressed by deflate, snappy, zstandard or not at all. All files have the same columns.",
    &[required(
        "path",
        Kind::Paths,
        "A path or glob, or a list of them.",
        r#""data/events-*.avro""#,
    )],
);

const LAYOUT_DELIMITER: Key = key(
    "delimiter",
    Kind::Character(&["tab"]),
    "What stands between the fields of a line: one character or `tab`. Without it each field has a width.",
    r#"";""#,
);
const LAYOUT_FIELDS: Key = key(
    "fields",
    Kind::List(&FIELD),
    "The fields of the one type of line that there is.",
    r#"[{"name": "id", "width": 8, "type": "int64"}, {"name": "city", "width": 20}]"#,
);
const LAYOUT_LINES: Key = key(
    "lines",
    Kind::List(&LINE),
    "The types of lines, each with its tag; in a record of several lines in the order in which they stand there.",
    r#"[{"tag": "ACC", "fields": [{"name": "id", "width": 8}]}, {"tag": "PAY", "fields": [{"name": "amount", "width": 10, "type": "decimal(10,2)"}]}]"#,
);
const LAYOUT_MULTILINE: Key = key(
    "multiline",
    Kind::Bool,
    "Whether a record is a group of lines that begins with the first of `lines` (default false: each line is a record).",
    "true",
);
const LAYOUT_TYPE_COLUMN: Key = key(
    "type_column",
    Kind::Text,
    "The column with the name of the line's type, where lines of several types are records of their own (default `line_type`).",
    r#""line_type""#,
);
const LAYOUT_HEADER: Key = key(
    "header",
    Kind::Section(&EDGE),
    "The first line of each file, which is no record.",
    r#"{"tag": "HDR", "fields": [{"name": "day", "width": 10, "type": "date"}]}"#,
);
const LAYOUT_TRAILER: Key = key(
    "trailer",
    Kind::Section(&EDGE),
    "The last line of each file, which is no record.",
    r#"{"tag": "END", "fields": [{"name": "records", "width": 7, "type": "int64", "count": "records"}]}"#,
);

pub static RECORDS_SOURCE: Section = Section {
    choice: Choice::ExactlyOne(&["fields", "lines"]),
    ..section(
        "records source",
        "Files of a record layout.",
        &[
            required(
                "path",
                Kind::Paths,
                "A path or glob, or a list of them.",
                r#""data/accounts-*.txt""#,
            ),
            LAYOUT_FIELDS,
            LAYOUT_LINES,
            LAYOUT_DELIMITER,
            LAYOUT_MULTILINE,
            LAYOUT_TYPE_COLUMN,
            LAYOUT_HEADER,
            LAYOUT_TRAILER,
            key(
                "comment",
                Kind::Text,
                "Lines that begin with this text are no records.",
                r##""#""##,
            ),
            key(
                "compression",
                Kind::Word(&["auto", "none", "gzip", "zstd"]),
                "How the files are compressed; `auto` goes by the name: `.gz`, `.zst`, else none (default `auto`).",
                r#""auto""#,
            ),
            key(
                "encoding",
                Kind::Word(ENCODINGS),
                "How characters are written as bytes; `utf-16` goes by the byte order mark, which must be there (default utf-8); a mark of the other byte order is refused. Files in another encoding are read by one partition each.",
                r#""latin1""#,
            ),
        ],
    )
};

pub static LINE: Section = section(
    "line",
    "A type of line in a record layout.",
    &[
        key(
            "tag",
            Kind::Text,
            "The text by which a line tells its type: at `tag_at`, or the first field of a delimited line.",
            r#""ACC""#,
        ),
        key(
            "tag_at",
            Kind::Integer {
                min: 1,
                max: MAX_LINE_WIDTH,
            },
            "The place of the tag's first character in a line with widths (default 1).",
            "1",
        ),
        key(
            "name",
            Kind::Text,
            "What the type is called (default: its tag).",
            r#""account""#,
        ),
        required(
            "fields",
            Kind::List(&FIELD),
            "The fields of the line, in order.",
            r#"[{"name": "id", "width": 8, "type": "int64"}]"#,
        ),
        key(
            "optional",
            Kind::Bool,
            "With `multiline`: whether a record may lack the line (default false).",
            "true",
        ),
        key(
            "repeats",
            Kind::Bool,
            "With `multiline`: whether a record may have several of them, which make one column, a list (default false).",
            "true",
        ),
        key(
            "present",
            Kind::Text,
            "With `optional`: a column that says whether the record has the line.",
            r#""has_address""#,
        ),
    ],
);

const FIELD_AT: Key = key(
    "at",
    Kind::Integer {
        min: 1,
        max: MAX_LINE_WIDTH,
    },
    "The place of the first character, from 1 (default: behind the field before, the first behind the tag).",
    "5",
);
const FIELD_WIDTH: Key = key(
    "width",
    Kind::Integer {
        min: 1,
        max: MAX_LINE_WIDTH,
    },
    "How many characters the field has; required without `delimiter`.",
    "8",
);
const FIELD_TYPE: Key = key(
    "type",
    Kind::ColumnType,
    "The type of the column (default string).",
    r#""decimal(12,2)""#,
);
const FIELD_ALIGN: Key = key(
    "align",
    Kind::Word(&["left", "right"]),
    "Where the value stands in its width (default: numbers right, others left).",
    r#""right""#,
);
const FIELD_PAD: Key = key(
    "pad",
    Kind::Character(&["zero"]),
    "What fills the rest of the width: one character, or `zero` (default a space).",
    r#""zero""#,
);
const FIELD_POINT: Key = key(
    "point",
    Kind::Word(&["written", "implied"]),
    "Whether the point of a decimal is written (default), or implied by its scale.",
    r#""implied""#,
);
const FIELD_VALUE: Key = key(
    "value",
    Kind::Text,
    "The text that always stands there; a field with it is no column.",
    r#""EUR""#,
);

pub static FIELD: Section = section(
    "field",
    "A field of a line. Without `name` it is filler: passed over in reading, blank in writing.",
    &[
        key("name", Kind::Text, "The column.", r#""id""#),
        FIELD_AT,
        FIELD_WIDTH,
        FIELD_TYPE,
        FIELD_ALIGN,
        FIELD_PAD,
        FIELD_POINT,
        FIELD_VALUE,
    ],
);

pub static EDGE: Section = section(
    "header or trailer",
    "The first or the last line of a file.",
    &[
        key(
            "tag",
            Kind::Text,
            "The text by which the line is known: at `tag_at`, or the first field of a delimited line.",
            r#""END""#,
        ),
        key(
            "tag_at",
            Kind::Integer {
                min: 1,
                max: MAX_LINE_WIDTH,
            },
            "The place of the tag's first character in a line with widths (default 1).",
            "1",
        ),
        key(
            "fields",
            Kind::List(&EDGE_FIELD),
            "The fields of the line, in order.",
            r#"[{"name": "records", "width": 7, "type": "int64", "count": "records"}]"#,
        ),
    ],
);

pub static EDGE_FIELD: Section = Section {
    choice: Choice::AtMostOne(&["count", "sum", "value"]),
    ..section(
        "header or trailer field",
        "A field of the first or the last line of a file; with `count` or `sum` a control total.",
        &[
            key(
                "name",
                Kind::Text,
                "What the field is called in messages.",
                r#""records""#,
            ),
            FIELD_AT,
            FIELD_WIDTH,
            FIELD_TYPE,
            FIELD_ALIGN,
            FIELD_PAD,
            FIELD_POINT,
            FIELD_VALUE,
            key(
                "count",
                Kind::Word(&["records", "lines"]),
                "Declares how many records the file holds, or how many lines stand between header and trailer.",
                r#""records""#,
            ),
            key(
                "sum",
                Kind::Text,
                "Declares the sum of this column over the file; of a line that repeats `LINE.FIELD`.",
                r#""amount""#,
            ),
        ],
    )
};

pub static SEQUENCE: Section = section(
    "sequence",
    "Generated numbers.",
    &[
        required(
            "from",
            Kind::Integer {
                min: i64::MIN,
                max: i64::MAX,
            },
            "The first number.",
            "0",
        ),
        required(
            "to",
            Kind::Integer {
                min: i64::MIN,
                max: i64::MAX,
            },
            "One beyond the last number.",
            "1000",
        ),
    ],
);

pub static PARTITION: Section = Section {
    choice: Choice::AtMostOne(&["bytes", "files", "row_groups", "key_range", "hash"]),
    words: &["auto", "bytes", "files", "row_groups"],
    ..section(
        "partition",
        "How the records are divided: a method and a count.",
        &[
            key(
                "bytes",
                Kind::Empty,
                "Ranges of bytes of CSV, NDJSON, Avro and record files, cut at records (Avro: at blocks).",
                "{}",
            ),
            key("files", Kind::Empty, "One partition for each file.", "{}"),
            key("row_groups", Kind::Empty, "Row groups of Parquet files.", "{}"),
            key(
                "key_range",
                Kind::Section(&KEY_RANGE),
                "Ranges of a column's values.",
                r#"{"column": "id"}"#,
            ),
            key(
                "hash",
                Kind::Section(&HASH),
                "A hash of one or several columns.",
                r#"{"columns": ["id"]}"#,
            ),
            key(
                "count",
                Kind::IntegerOr {
                    word: "auto",
                    min: 1,
                    max: MAX_PARTITIONS,
                },
                "How many partitions; `auto` goes by size and workers (default `auto`).",
                r#""auto""#,
            ),
        ],
    )
};

pub static KEY_RANGE: Section = section(
    "key_range",
    "Ranges of a column's values: bounds by quantiles of a sample, or written here.",
    &[
        required("column", Kind::Text, "The column.", r#""l_orderkey""#),
        key(
            "ranges",
            Kind::List(&RANGE),
            "Your own ranges; together they must cover every value, see `outside` (default none: bounds are quantiles of a sample).",
            r#"[{"from": "A", "through": "L"}, {"from": "M", "null": true}]"#,
        ),
        key(
            "outside",
            Kind::Word(&["refuse", "partition"]),
            "Values that no written range covers: refuse the job, or plan partitions for them (default `refuse`).",
            r#""refuse""#,
        ),
    ],
);

pub static RANGE: Section = Section {
    choice: Choice::AtMostOne(&["to", "through"]),
    ..section(
        "range",
        "From `from`, up to and without `to`, or up to and with `through`.",
        &[
            key(
                "from",
                Kind::Text,
                "The least value, included (default no lower end).",
                r#""A""#,
            ),
            key(
                "to",
                Kind::Text,
                "The first value beyond (default no upper end).",
                r#""M""#,
            ),
            key(
                "through",
                Kind::Text,
                "Instead of `to`: the last value, included; of text, also all that begins with it; a date for a timestamp, that whole day (default no upper end).",
                r#""L""#,
            ),
            key(
                "null",
                Kind::Bool,
                "Whether NULL belongs to this range (default `false`); alone: NULL and nothing else.",
                "true",
            ),
        ],
    )
};

pub static HASH: Section = Section {
    choice: Choice::ExactlyOne(&["columns", "column"]),
    ..section(
        "hash",
        "Records with equal values of these columns come together.",
        &[
            key("columns", Kind::Texts, "The columns.", r#"["l_suppkey", "l_partkey"]"#),
            key("column", Kind::Text, "The one column.", r#""l_suppkey""#),
        ],
    )
};

pub static PLACEMENT: Section = section(
    "placement",
    "Which workers may take the step's tasks.",
    &[required(
        "labels",
        Kind::Labels,
        "Labels with the values that a worker must have, all of them (`gapless worker --labels`).",
        r#"{"gpu": "yes", "zone": "a"}"#,
    )],
);

pub static CHECK: Section = section(
    "check",
    "A rule for records. One that breaks it goes to the quarantine with the rule's name.",
    &[
        required(
            "name",
            Kind::Text,
            "What the rule is called in reports; once in the step.",
            r#""positive quantity""#,
        ),
        required(
            "that",
            Kind::Sql,
            "SQL that must be true of a record; NULL counts as not true.",
            r#""quantity > 0""#,
        ),
    ],
);

pub static TRANSFORM: Section = Section {
    choice: Choice::ExactlyOne(&["sql", "command"]),
    ..section(
        "transform",
        "What is made of the records: one of these.",
        &[
            key(
                "sql",
                Kind::Sql,
                "One SELECT over `input` and the look-ups.",
                r#""SELECT * FROM input""#,
            ),
            key(
                "command",
                Kind::Section(&COMMAND),
                "A program that reads the records on its standard input and writes records on its standard output.",
                r#"{"run": ["python3", "score.py"]}"#,
            ),
        ],
    )
};

pub static COMMAND: Section = section(
    "command",
    "A program that reads the records on its standard input and writes records on its standard output.",
    &[
        required(
            "run",
            Kind::Texts,
            "The program and its arguments, without a shell; a name with `/` is relative to the folder of the job file.",
            r#"["python3", "score.py"]"#,
        ),
        key(
            "format",
            Kind::Word(&["arrow", "ndjson"]),
            "How records travel: streams of Arrow IPC, or one JSON object a line (default `arrow`).",
            r#""ndjson""#,
        ),
        key(
            "mode",
            Kind::Word(&["rows", "whole"]),
            "What a run of the program takes: a chunk of records, none depending on another, or a whole partition (default `rows`).",
            r#""whole""#,
        ),
        key(
            "columns",
            Kind::Columns,
            "The columns that the program writes, in order (default: those of its Arrow schema).",
            r#"{"id": "int64", "score": "float64"}"#,
        ),
        key(
            "timeout_s",
            Kind::Integer {
                min: 1,
                max: MAX_COMMAND_SECONDS,
            },
            "Seconds that one run of the program may take (default 3600).",
            "600",
        ),
        key(
            "output_mib",
            Kind::Integer {
                min: 1,
                max: MAX_COMMAND_MIB,
            },
            "MiB that one run of the program may write (default 4096).",
            "64",
        ),
    ],
);

pub static SORT: Section = section(
    "sort",
    "A column by which the output is ordered, and which way.",
    &[
        required(
            "column",
            Kind::Text,
            "The column, of those the transform gives.",
            r#""amount""#,
        ),
        SORT_ORDER,
        SORT_NULLS,
    ],
);

pub static SINK: Section = Section {
    choice: Choice::ExactlyOne(&["csv", "ndjson", "parquet", "avro", "records", "report", "discard"]),
    words: &["discard"],
    ..section(
        "sink",
        "Where the records go: one of these.",
        &[
            key("csv", Kind::Section(&CSV_SINK), "CSV files.", r#"{"path": "out/load"}"#),
            key(
                "ndjson",
                Kind::Section(&NDJSON_SINK),
                "Lines of JSON, one object for each row.",
                r#"{"path": "out/load"}"#,
            ),
            key(
                "parquet",
                Kind::Section(&PARQUET_SINK),
                "Parquet files.",
                r#"{"path": "out/load"}"#,
            ),
            key(
                "avro",
                Kind::Section(&AVRO_SINK),
                "Avro object container files.",
                r#"{"path": "out/load"}"#,
            ),
            key(
                "records",
                Kind::Section(&RECORDS_SINK),
                "Files of a record layout: fixed-width or delimited lines of one or several types.",
                r#"{"path": "out/accounts", "fields": [{"name": "id", "width": 8, "type": "int64"}]}"#,
            ),
            key(
                "report",
                Kind::Section(&REPORT_SINK),
                "One text made of templates, with pages and totals.",
                r#"{"path": "out/report", "row": "{{ name }} {{ amount }}"}"#,
            ),
            key("discard", Kind::Empty, "Nowhere: rows are counted.", "{}"),
        ],
    )
};

const OUTPUT_PATH: Key = required(
    "path",
    Kind::OutputPath,
    "The folder of the output; it appears whole, when the step is complete.",
    r#""out/revenue/${param.date}""#,
);
const EXISTS: Key = key(
    "exists",
    Kind::Word(&["fail", "replace", "append"]),
    "What to do where the folder is there already (default `fail`).",
    r#""replace""#,
);
const FILES: Key = key(
    "files",
    Kind::Integer { min: 1, max: MAX_FILES },
    "Merge the output into at most so many files, each of neighbouring partitions (default one or more for each partition). Where the step has fewer partitions, or a folder no rows of them, files are missing, and so are their numbers.",
    "1",
);
const PARTITION_BY: Key = key(
    "partition_by",
    Kind::Texts,
    "Columns that become folders `NAME=VALUE`, as Hive lays them out; NULL is `__HIVE_DEFAULT_PARTITION__` (default none).",
    r#"["day"]"#,
);
const PARTITION_COLUMN: Key = key(
    "partition_column",
    Kind::Text,
    "Name of an extra column that holds the partition number (default none).",
    r#""partition_no""#,
);

const LINE_END: Key = key(
    "line_end",
    Kind::Word(&["lf", "crlf"]),
    "How a line ends (default lf).",
    r#""lf""#,
);

const SINK_ENCODING: Key = key(
    "encoding",
    Kind::Word(ENCODINGS),
    "How characters are written as bytes; `utf-16` is little-endian behind a byte order mark. A character that the encoding has not fails the step (default utf-8).",
    r#""latin1""#,
);

const SPLIT_KEY: Key = key(
    "split",
    Kind::Section(&SPLIT),
    "Divide the rows over named sub-folders, or over files of so many rows.",
    r#"{"when": [{"name": "large", "that": "amount > 100"}], "otherwise": "small"}"#,
);

pub static SPLIT: Section = Section {
    choice: Choice::ExactlyOne(&["by", "when", "hash", "rows"]),
    ..section(
        "split",
        "Divides the rows of an output: by one of these.",
        &[
            key(
                "by",
                Kind::Text,
                "A column: a folder for each of its values.",
                r#""country""#,
            ),
            key(
                "when",
                Kind::List(&WHEN),
                "Folders by name; the first whose SQL is true of a row takes it.",
                r#"[{"name": "large", "that": "amount > 100"}]"#,
            ),
            key(
                "hash",
                Kind::Section(&SPLIT_HASH),
                "Numbered folders, by the hash of columns.",
                r#"{"columns": ["id"], "into": 4}"#,
            ),
            key(
                "rows",
                Kind::Integer { min: 1, max: i64::MAX },
                "Files of at most so many rows.",
                "100000",
            ),
            key(
                "otherwise",
                Kind::Name,
                "With `by` and `when`: the folder of rows that no other takes, with `by` those of NULL and the empty text, or `fail` (default fail). The rows of a value that is the very name are in a folder with its first character escaped: `%72est` beside `rest`.",
                r#""rest""#,
            ),
        ],
    )
};

pub static WHEN: Section = section(
    "when",
    "A named part of the output.",
    &[
        required("name", Kind::Name, "The name of the folder.", r#""large""#),
        required(
            "that",
            Kind::Sql,
            "SQL over the columns of the output that must be true of a row; NULL counts as not true.",
            r#""amount > 100""#,
        ),
    ],
);

pub static SPLIT_HASH: Section = section(
    "hash of split",
    "By the hash of columns.",
    &[
        required(
            "columns",
            Kind::Texts,
            "The columns: rows that are equal in them stay together.",
            r#"["id"]"#,
        ),
        required(
            "into",
            Kind::Integer { min: 1, max: MAX_SPLIT },
            "How many folders.",
            "4",
        ),
    ],
);

pub static CSV_SINK: Section = section(
    "csv sink",
    "CSV files in a folder.",
    &[
        OUTPUT_PATH,
        EXISTS,
        key(
            "compression",
            Kind::Word(&["none", "gzip", "zstd"]),
            "How the files are compressed (default `none`).",
            r#""none""#,
        ),
        FILES,
        PARTITION_BY,
        SPLIT_KEY,
        PARTITION_COLUMN,
        key(
            "header",
            Kind::Bool,
            "Whether each file begins with the names of the columns (default `true`).",
            "true",
        ),
        key(
            "delimiter",
            Kind::Character(&["tab"]),
            "What stands between fields: one character or `tab` (default `,`).",
            r#""|""#,
        ),
        key(
            "null",
            Kind::Text,
            "The text written for NULL (default the empty text).",
            r#""""#,
        ),
        SINK_ENCODING,
        LINE_END,
    ],
);

pub static NDJSON_SINK: Section = section(
    "ndjson sink",
    "Files with lines of JSON in a folder.",
    &[
        OUTPUT_PATH,
        EXISTS,
        key(
            "compression",
            Kind::Word(&["none", "gzip", "zstd"]),
            "How the files are compressed (default `none`).",
            r#""none""#,
        ),
        FILES,
        PARTITION_BY,
        PARTITION_COLUMN,
    ],
);

pub static PARQUET_SINK: Section = section(
    "parquet sink",
    "Parquet files in a folder.",
    &[
        OUTPUT_PATH,
        EXISTS,
        key(
            "compression",
            Kind::Word(&["zstd", "snappy", "lz4", "gzip", "none"]),
            "How the columns are compressed (default `zstd`).",
            r#""zstd""#,
        ),
        FILES,
        PARTITION_BY,
        SPLIT_KEY,
        PARTITION_COLUMN,
    ],
);

pub static AVRO_SINK: Section = section(
    "avro sink",
    "Avro object container files in a folder.",
    &[
        OUTPUT_PATH,
        EXISTS,
        key(
            "compression",
            Kind::Word(&["deflate", "snappy", "zstd", "none"]),
            "How the blocks are compressed; every reader of Avro has `deflate` (default `deflate`).",
            r#""deflate""#,
        ),
        FILES,
        PARTITION_BY,
        SPLIT_KEY,
        PARTITION_COLUMN,
    ],
);

pub static RECORDS_SINK: Section = Section {
    choice: Choice::ExactlyOne(&["fields", "lines"]),
    ..section(
        "records sink",
        "Files of a record layout in a folder.",
        &[
            OUTPUT_PATH,
            EXISTS,
            key(
                "files",
                Kind::Integer { min: 1, max: MAX_FILES },
                "Merge the output into at most so many files, each of neighbouring partitions (default: one or more for each partition; with a header or trailer 1). Where the step has fewer partitions, files are missing, and so are their numbers.",
                "1",
            ),
            LAYOUT_FIELDS,
            LAYOUT_LINES,
            LAYOUT_DELIMITER,
            LAYOUT_MULTILINE,
            LAYOUT_TYPE_COLUMN,
            LAYOUT_HEADER,
            LAYOUT_TRAILER,
            LINE_END,
            key(
                "compression",
                Kind::Word(&["none", "gzip", "zstd"]),
                "How the files are compressed (default `none`).",
                r#""none""#,
            ),
            SINK_ENCODING,
        ],
    )
};

pub static REPORT_SINK: Section = section(
    "report sink",
    "One text in a folder, made of templates (the language of Jinja).",
    &[
        OUTPUT_PATH,
        EXISTS,
        key(
            "page_rows",
            Kind::Integer {
                min: 1,
                max: MAX_LINE_WIDTH,
            },
            "Rows of a page (default: all rows are one page).",
            "50",
        ),
        key(
            "begin",
            Kind::Text,
            "What stands once before the first page.",
            r#""Balances of ${param.date}""#,
        ),
        key(
            "header",
            Kind::Text,
            "What stands at the top of each page; it may name page, rows, totals and page_totals.",
            r#""Page {{ page }}""#,
        ),
        required(
            "row",
            Kind::Text,
            "What stands for each row; it may name the columns too.",
            r#""{{ name | left(20) }}{{ amount | right(12) }}""#,
        ),
        key(
            "footer",
            Kind::Text,
            "What stands at the foot of each page.",
            r#""{{ page_totals.amount }}""#,
        ),
        key(
            "end",
            Kind::Text,
            "What stands once behind the last page.",
            r#""{{ rows }} rows, {{ totals.amount }}""#,
        ),
        key(
            "totals",
            Kind::Texts,
            "Columns of whole numbers or decimals that are summed over the page and over the report.",
            r#"["amount"]"#,
        ),
        key(
            "page_break",
            Kind::Text,
            "What stands between pages (default: a form feed).",
            r#""-----\n""#,
        ),
        key(
            "extension",
            Kind::Text,
            "Of the file's name (default txt); with html values are escaped.",
            r#""txt""#,
        ),
    ],
);

pub static ON_ERROR: Section = section(
    "on_error",
    "What happens when something fails.",
    &[
        key(
            "retry",
            Kind::Section(&RETRY),
            "For failures that may pass (default 5 attempts).",
            r#"{"attempts": 5}"#,
        ),
        key(
            "reject",
            Kind::Section(&REJECT),
            "For records that cannot be read or break a check (default none are allowed).",
            r#"{"limit": 1000}"#,
        ),
        key(
            "partition_failed",
            Kind::Word(&["stop", "continue"]),
            "When a partition has failed for good: stop the others at their next checkpoint, or let them finish first (default `stop`).",
            r#""stop""#,
        ),
    ],
);

pub static RETRY: Section = section(
    "retry",
    "For failures that may pass.",
    &[required(
        "attempts",
        Kind::Integer {
            min: 1,
            max: MAX_ATTEMPTS,
        },
        "Attempts for each task, the first included; lost workers are not counted.",
        "5",
    )],
);

pub static REJECT: Section = Section {
    choice: Choice::ExactlyOne(&["limit", "share"]),
    ..section(
        "reject",
        "For records that cannot be read or break a check: one of these.",
        &[
            key(
                "limit",
                Kind::IntegerOr {
                    word: "unlimited",
                    min: 0,
                    max: i64::MAX,
                },
                "Rejected records over the whole step before it fails and publishes nothing.",
                "1000",
            ),
            key(
                "share",
                Kind::Text,
                "Rejected records of all records of the step, as a percentage, before it fails and publishes nothing.",
                r#""0.1%""#,
            ),
        ],
    )
};

/// Every section, the job first.
pub static SECTIONS: &[&Section] = &[
    &JOB,
    &REDRIVE,
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

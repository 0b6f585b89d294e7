//! What a step writes.

use super::{
    Choice, ENCODINGS, Key, Kind, MAX_FILES, MAX_LINE_WIDTH, MAX_SPLIT, Section, key, records::RECORDS_SINK, required,
    section,
};

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

pub(super) const OUTPUT_PATH: Key = required(
    "path",
    Kind::OutputPath,
    "The folder of the output; it appears whole, when the step is complete.",
    r#""out/revenue/${param.date}""#,
);

pub(super) const EXISTS: Key = key(
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

pub(super) const LINE_END: Key = key(
    "line_end",
    Kind::Word(&["lf", "crlf"]),
    "How a line ends (default lf).",
    r#""lf""#,
);

pub(super) const SINK_ENCODING: Key = key(
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
            Kind::Delimiter,
            "What stands between fields: a character, several (at most 8 bytes in UTF-8), or `tab` (default `,`). A value that holds it is quoted.",
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

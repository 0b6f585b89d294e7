//! What a step reads.

use super::{
    Choice, ENCODINGS, Kind, MAX_SKIPPED_LINES, SORT_NULLS, SORT_ORDER, Section, key, records::RECORDS_SOURCE,
    required, section,
};

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
            Kind::Delimiter,
            "What stands between fields: a character, several (`\"||\"`, `\"§\"`; at most 8 bytes in UTF-8), or `tab` (default `,`). Looked for from the left.",
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
            "What ends a line: `lf` is LF or CRLF, `cr` is CR alone (default `lf`). A header, or a first record without one, that holds line ends of the other kind is refused.",
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

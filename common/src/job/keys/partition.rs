//! How a step is cut.

use super::{Choice, Kind, MAX_PARTITIONS, Section, key, required, section};

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

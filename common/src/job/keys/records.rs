//! Record layouts, read and written.

use super::{
    Choice, ENCODINGS, Key, Kind, MAX_FILES, MAX_LINE_WIDTH, Section, key, required, section,
    sink::{EXISTS, LINE_END, OUTPUT_PATH, SINK_ENCODING},
};

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

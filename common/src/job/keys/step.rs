//! What a job, a parameter and a step are made of.

use super::{
    Choice, Kind, MAX_ATTEMPTS, MAX_COMMAND_MIB, MAX_COMMAND_SECONDS, MAX_PRIORITY, MAX_REDRIVES, MIN_PRIORITY,
    SORT_NULLS, SORT_ORDER, Section, key,
    partition::PARTITION,
    required, section,
    sink::SINK,
    source::{LOOKUP, SOURCE},
};

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
    ],
);

/// Travels beside a job file, in no schema and on no page: `gapless redrive` writes it, nobody else does.
pub static REDRIVE: Section = Section {
    choice: Choice::ExactlyOne(&["records", "inputs"]),
    ..section(
        "redrive",
        "The job does one step again, over the records that it had rejected.",
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
            key("records", Kind::Text, REDRIVE_RECORDS, r#""/x/records.csv""#),
            key("places", Kind::Text, REDRIVE_PLACES, r#""/x/places.ndjson""#),
            key("columns", Kind::Columns, REDRIVE_COLUMNS, r#"{"a": "int64"}"#),
            key(
                "inputs",
                Kind::List(&REDRIVE_INPUT),
                "Of a merge: the same of each of its inputs, in their order; one that had none rejected has a file without records.",
                r#"[{"records": "/x/records-1.csv", "places": "/x/places-1.ndjson", "columns": {"a": "int64"}}]"#,
            ),
            key(
                "read_columns",
                Kind::Texts,
                "Of a merge: the columns that its records have, where it has others (default all).",
                r#"["a"]"#,
            ),
            key(
                "lookups",
                Kind::Map(&REDRIVE_LOOKUP),
                "Look-ups that read a step, by their names: the files that the run read (default none).",
                r#"{"region": {"path": ["out/regions/part-00000-1-2-0.parquet"]}}"#,
            ),
        ],
    )
};

pub static REDRIVE_INPUT: Section = section(
    "redriven input",
    "The rejected records of one input of a merge.",
    &[
        required("records", Kind::Text, REDRIVE_RECORDS, r#""/x/records-1.csv""#),
        required("places", Kind::Text, REDRIVE_PLACES, r#""/x/places-1.ndjson""#),
        key("columns", Kind::Columns, REDRIVE_COLUMNS, r#"{"a": "int64"}"#),
    ],
);

pub static REDRIVE_LOOKUP: Section = section(
    "redriven look-up",
    "A look-up that reads an earlier step, as its run had read it.",
    &[required(
        "path",
        Kind::Paths,
        "The files.",
        r#"["out/regions/part-00000-1-2-0.parquet"]"#,
    )],
);

const REDRIVE_RECORDS: &str =
    "The file with the records, in the form of the source where that is text, without a header; else Parquet.";
const REDRIVE_PLACES: &str = "The file that tells where each of them stood at first.";
const REDRIVE_COLUMNS: &str = "The columns of csv and ndjson; other records tell theirs (default none).";

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

pub static ON_ERROR: Section = section(
    "on_error",
    "What happens when something fails.",
    &[
        key(
            "retry",
            Kind::Section(&RETRY),
            "For failures that may pass (default 5 attempts, 2 where a program took longer than its `timeout_s`).",
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

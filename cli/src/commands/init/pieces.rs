//! What skeletons are made of. Each pairing runs as it is (`cli/tests/init.rs` runs them all).

/// One word of `gapless init`.
pub struct Piece {
    pub word: &'static str,
    /// Its lines of the job file, under the step.
    pub text: &'static str,
    /// Input that it needs, by path in the folder of the job.
    pub sample: &'static [(&'static str, &'static [u8])],
}

pub const JOB: &str = "\
# A job made by `gapless init {words}`.
#
#   gapless validate job.yaml   checks it without data
#   gapless plan job.yaml       shows how it is cut, and that nothing is left out
#   gapless run job.yaml        does it; started again after a kill, it goes on
#
# All keys: `gapless schema -o markdown`. For completion in an editor write `gapless schema > gapless.schema.json` and begin
# this file with the line `# yaml-language-server: $schema=./gapless.schema.json`.
job: first-job            # with the identifying parameters the identity of a run

parameters:
  run: {type: int64, default: 1}     # one completed run for each value: `-p run=2` does it once more

steps:
  - name: load
{source}
    # partition: auto                # how the records are divided: bytes, files, key_range, hash, …
{transform}{sink}
    on_error:
      reject: {limit: 0}             # so many bad records are set aside before the step fails
";

pub const SQL_OF_ORDERS: &str =
    "        SELECT id, customer, city, amount, CAST(amount * 0.2 AS DECIMAL(12,2)) AS tax, day
        FROM input
        WHERE amount > 0
";

pub const SQL_OF_NUMBERS: &str = "        SELECT n, n * n AS square
        FROM input
        WHERE n % 2 = 0
";

/// A column of what a source or a transform gives.
#[derive(Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    pub ty: &'static str,
    /// Characters that hold all values of the samples.
    pub width: u32,
}

const fn column(name: &'static str, ty: &'static str, width: u32) -> Column {
    Column { name, ty, width }
}

pub const ORDERS: [Column; 5] = [
    column("id", "int64", 6),
    column("customer", "string", 12),
    column("city", "string", 14),
    column("amount", "decimal(12,2)", 14),
    column("day", "date", 12),
];
pub const TAX: Column = column("tax", "decimal(12,2)", 14);
pub const NUMBERS: [Column; 1] = [column("n", "int64", 6)];
pub const SQUARE: Column = column("square", "int64", 12);
/// Of the program.
pub const FILLED: Column = column("filled", "int64", 4);

pub const SOURCES: &[Piece] = &[
    Piece {
        word: "csv",
        text: "    source:
      csv:
        path: data/orders*.csv       # a path, a glob, or a list of them
        columns:                     # types are declared, never guessed; what is not named is text
          id: int64
          amount: decimal(12,2)
          day: date",
        sample: &[("data/orders.csv", include_bytes!("samples/orders.csv"))],
    },
    Piece {
        word: "ndjson",
        text: "    source:
      ndjson:
        path: data/orders*.ndjson    # a path, a glob, or a list of them; an object a line
        columns: {id: int64, customer: string, city: string, amount: \"decimal(12,2)\", day: date}
        required: [id]               # must be there, else the record is rejected",
        sample: &[("data/orders.ndjson", include_bytes!("samples/orders.ndjson"))],
    },
    Piece {
        word: "records",
        text: "    source:
      records:
        path: data/orders*.txt       # lines of fields with fixed widths, in characters
        fields:
          - {name: id, width: 6, type: int64}
          - {name: customer, width: 12}
          - {name: city, width: 14}
          - {name: amount, width: 10, type: \"decimal(12,2)\"}
          - {name: day, width: 10, type: date}",
        sample: &[("data/orders.txt", include_bytes!("samples/orders.txt"))],
    },
    Piece {
        word: "merge",
        text: "    source:
      merge:
        inputs:                      # one behind the other; with `by: [id]` in one order
          - csv: {path: data/old.csv, columns: {id: int64, amount: \"decimal(12,2)\", day: date}}
          - ndjson:
              path: data/new.ndjson
              columns: {id: int64, customer: string, city: string, amount: \"decimal(12,2)\", day: date}
        unique: [id]                 # no two records may have the same",
        sample: &[
            ("data/old.csv", include_bytes!("samples/orders-old.csv")),
            ("data/new.ndjson", include_bytes!("samples/orders-new.ndjson")),
        ],
    },
    Piece {
        word: "parquet",
        text: "    source:
      parquet:
        path: data/orders*.parquet   # a path, a glob, or a list of them; the files have the types",
        sample: &[("data/orders.parquet", include_bytes!("samples/orders.parquet"))],
    },
    Piece {
        word: "avro",
        text: "    source:
      avro:
        path: data/orders*.avro      # a path, a glob, or a list of them; the files have the types",
        sample: &[("data/orders.avro", include_bytes!("samples/orders.avro"))],
    },
    Piece {
        word: "sequence",
        text: "    source:
      sequence: {from: 0, to: 1000}  # numbers in one column n, for trying out",
        sample: &[],
    },
];

pub const TRANSFORMS: &[Piece] = &[
    Piece {
        word: "sql",
        text: "    transform:
      sql: |                         # one SELECT over `input`
{sql}",
        sample: &[],
    },
    Piece {
        word: "command",
        text: "    transform:
      command:                       # any program; records on its stdin and stdout
        run: [python3, fill.py]
        format: ndjson               # or Arrow IPC, which is faster
        columns: {{columns}}
        mode: rows                   # what it makes of a record depends on no other
",
        sample: &[("fill.py", include_bytes!("samples/fill.py"))],
    },
];

pub const SINKS: &[Piece] = &[
    Piece {
        word: "csv",
        text: "    sink:
      csv:
        path: out/load-${param.run}  # a folder; it appears whole, when the step is complete
        files: 1                     # left out: one or more for each partition",
        sample: &[],
    },
    Piece {
        word: "parquet",
        text: "    sink:
      parquet:
        path: out/load-${param.run}  # a folder; it appears whole, when the step is complete
        compression: zstd",
        sample: &[],
    },
    Piece {
        word: "avro",
        text: "    sink:
      avro:
        path: out/load-${param.run}  # a folder; it appears whole, when the step is complete
        compression: deflate",
        sample: &[],
    },
    Piece {
        word: "ndjson",
        text: "    sink:
      ndjson:
        path: out/load-${param.run}  # a folder; it appears whole, when the step is complete
        compression: gzip",
        sample: &[],
    },
    Piece {
        word: "records",
        text: "    sink:
      records:
        path: out/load-${param.run}  # a folder; it appears whole, when the step is complete
        fields:                      # of fixed widths; what does not fit fails the step
{fields}
        trailer:                     # left out: records alone
          fields: [{value: END}, {name: records, width: 9, type: int64, pad: zero, count: records}]",
        sample: &[],
    },
    Piece {
        word: "report",
        text: "    sink:
      report:                        # one text; templates are those of Jinja
        path: out/load-${param.run}  # a folder; it appears whole, when the step is complete
        page_rows: 20
        totals: [{total}]
        header: \"Run ${param.run}, page {{ page }}\"
        row: \"{row}\"
        end: \"{{ rows }} rows, {{ totals.{total} | grouped }} in all\"",
        sample: &[],
    },
    Piece {
        word: "discard",
        text: "    sink: discard                    # rows are counted, none is written",
        sample: &[],
    },
];

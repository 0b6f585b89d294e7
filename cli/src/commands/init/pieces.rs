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

pub const TRANSFORMS: &[Piece] = &[Piece {
    word: "sql",
    text: "    transform:
      sql: |                         # one SELECT over `input`
{sql}",
    sample: &[],
}];

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
        word: "discard",
        text: "    sink: discard                    # rows are counted, none is written",
        sample: &[],
    },
];

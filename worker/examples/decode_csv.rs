//! Measures the CSV reader alone: decodes the file named by `DECODE_FILE` (with a header) on
//! `DECODE_THREADS` threads (1) in ranges of `DECODE_RANGE_MIB` (48), `DECODE_REPEAT` times (5), and
//! prints one JSON line for each. `DECODE_TYPES` declares columns: `name=type,…` in the words
//! int32, int64, float64, decimal2 and date; the others are text. `DECODE_COLUMNS` names those
//! wanted (all).

use std::{
    env,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use gapless_common::{
    attempt::RecordHash,
    ids::RunId,
    job::{
        ColumnType, Compression, Count, CsvSource, Delimiter, Job, OnError, Partition, Partitioning, Sink, Source, Step,
    },
    plan::{Facts, TransformFacts, TransformMode},
    range::UnitRange,
};
use gapless_worker::{
    source::{self, types::columns_of},
    survey::survey_source,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// TPC-H lineitem, as the benchmarks type it.
const LINEITEM: &str = "l_orderkey=int64,l_partkey=int64,l_suppkey=int64,l_linenumber=int32,l_quantity=float64,\
                        l_extendedprice=float64,l_discount=float64,l_tax=float64,l_shipdate=date,l_commitdate=date,\
                        l_receiptdate=date";

fn number(name: &str, default: u64) -> u64 {
    env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Seconds that the calling thread has run on a core: other programs do not disturb it much.
fn thread_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos: u64 = text
        .split(' ')
        .next()
        .and_then(|nanos| nanos.parse().ok())
        .unwrap_or_default();
    nanos as f64 / 1e9
}

fn column(text: &str) -> (String, ColumnType) {
    let (name, ty) = text.trim().split_once('=').expect("DECODE_TYPES is name=type,…");
    let ty = match ty {
        "int32" => ColumnType::Int32,
        "int64" => ColumnType::Int64,
        "float64" => ColumnType::Float64,
        "decimal2" => ColumnType::Decimal {
            precision: 15,
            scale: 2,
        },
        "date" => ColumnType::Date,
        _ => ColumnType::String,
    };
    (name.to_string(), ty)
}

fn main() {
    let file = env::var("DECODE_FILE").expect("DECODE_FILE names the CSV file to decode");
    let types = env::var("DECODE_TYPES").unwrap_or(LINEITEM.to_string());
    let projection: Option<Vec<String>> = env::var("DECODE_COLUMNS")
        .ok()
        .map(|names| names.split(',').filter(|n| !n.is_empty()).map(String::from).collect());
    let step = Step {
        name: "decode".into(),
        after: vec![],
        source: Source::Csv(CsvSource {
            paths: vec![file],
            columns: types.split(',').filter(|text| !text.is_empty()).map(column).collect(),
            header: true,
            delimiter: Delimiter::COMMA,
            quote: Some(b'"'),
            nulls: vec![String::new()],
            compression: Compression::Auto,
            dialect: Default::default(),
            places: None,
        }),
        lookups: Default::default(),
        partition: Partitioning {
            method: Partition::Bytes,
            count: Count::Auto,
        },
        placement: Default::default(),
        checks: vec![],
        sql: None,
        command: None,
        sort: Vec::new(),
        sink: Sink::Discard,
        on_error: OnError::default(),
        if_unchanged: Default::default(),
    };
    let job = Job {
        name: "decode".into(),
        parameters: Default::default(),
        priority: Default::default(),
        steps: vec![step],
        redrive: None,
    };
    let (step, base) = (&job.steps[0], Path::new("."));
    let found = survey_source(&job, step, base, RunId(Default::default()), &[]).expect("survey");
    let facts = Facts {
        unit: found.unit,
        columns: columns_of(&found.schema),
        output: vec![],
        read_columns: None,
        inputs: Vec::new(),
        transform: TransformFacts {
            mode: TransformMode::RowWise { expands: false },
            reason: String::new(),
        },
        files: found.files,
        domain: found.domain,
        rows: found.rows,
        bytes: found.bytes,
        sample: None,
        warnings: vec![],
        lookups: Vec::new(),
        standing: None,
    };
    let (threads, size) = (number("DECODE_THREADS", 1), number("DECODE_RANGE_MIB", 48) << 20);
    for _ in 0..number("DECODE_REPEAT", 5) {
        let (next, begin) = (AtomicU64::new(0), Instant::now());
        let work = || {
            let begin = thread_seconds();
            let (mut read, mut records, mut rejects, mut rows) = (0, RecordHash::default(), 0, 0);
            loop {
                let low = next.fetch_add(size, Ordering::Relaxed);
                if low >= facts.domain.high {
                    return (read, records, rejects, rows, thread_seconds() - begin);
                }
                let range = UnitRange::new(low, (low + size).min(facts.domain.high));
                let mut reader =
                    source::open::open(&job, step, base, &facts, range, projection.as_deref()).expect("open");
                while let Some(input) = reader.next_batch().expect("read") {
                    rows += input.batch.num_rows();
                    let intake = reader.take_intake();
                    read += intake.read;
                    records += intake.records;
                    rejects += intake.rejects.len();
                }
            }
        };
        let done: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a thread decodes"))
                .collect()
        });
        let seconds = begin.elapsed().as_secs_f64();
        let (mut read, mut records, mut rejects, mut rows) = (0, RecordHash::default(), 0, 0);
        let mut busy = 0.0;
        for part in done {
            busy += part.4;
            read += part.0;
            records += part.1;
            rejects += part.2;
            rows += part.3;
        }
        println!(
            "{{\"seconds\":{seconds:.3},\"thread_seconds\":{busy:.3},\"threads\":{threads},\"records\":{read},\"rows\":{rows},\"rejects\":{rejects},\
             \"bytes\":{},\"estimated_rows\":{},\"hash\":\"{records}\"}}",
            facts.bytes, facts.rows
        );
    }
}

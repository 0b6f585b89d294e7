//! What the exchange costs, in thread-seconds on the CPU, phase by phase. Prints one line of JSON.
//!
//! ```text
//! GAPLESS_BENCH_LINEITEM=lineitem.parquet cargo test --release -p gapless-worker exchange_cost -- --ignored --nocapture
//! ```
//! The file is TPC-H's lineitem (`tpchgen-cli parquet -s 5 -T lineitem`).

use std::{cell::Cell, fs::File, path::PathBuf, thread, time::Instant};

use gapless_common::{
    plan::{BucketFn, ExchangePlan},
    range::UnitRange,
};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use super::{BLOCK_ROWS, GatherReader, bucket::Bucketing, file::ExchangeWriter, scattered, split::Splitter};
use crate::source::SourceReader;

const THREADS: usize = 2;
const BUCKETS: u32 = 256;
const COLUMNS: [&str; 6] = [
    "l_partkey",
    "l_suppkey",
    "l_quantity",
    "l_extendedprice",
    "l_discount",
    "l_shipdate",
];

/// Nanoseconds that this thread has been on a CPU: other load of the machine does not count.
fn cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells a thread's time");
    text.split(' ')
        .next()
        .and_then(|nanos| nanos.parse().ok())
        .expect("a number comes first")
}

#[derive(Clone, Copy, Default)]
struct Phases {
    decode: u64,
    hash: u64,
    push: u64,
    split: u64,
    write: u64,
    sync: u64,
    read: u64,
    rows: u64,
    bytes: u64,
}

fn timed<T>(sum: &mut u64, work: impl FnOnce() -> T) -> T {
    let from = cpu_nanos();
    let result = work();
    *sum += cpu_nanos() - from;
    result
}

fn scatter_row_groups(path: &str, thread: usize, folder: PathBuf) -> (Phases, Vec<PathBuf>) {
    let mut phases = Phases::default();
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("the file is there")).expect("Parquet");
    let groups: Vec<usize> = (0..builder.metadata().num_row_groups())
        .filter(|group| group % THREADS == thread)
        .collect();
    let mask = ProjectionMask::columns(builder.parquet_schema(), COLUMNS);
    let mut reader = builder
        .with_projection(mask)
        .with_row_groups(groups)
        .with_batch_size(8192)
        .build()
        .expect("opens");
    let schema = arrow::array::RecordBatchReader::schema(&reader);
    let columns = vec!["l_partkey".to_string(), "l_suppkey".to_string()];
    let plan = ExchangePlan {
        function: BucketFn::Hash { columns },
        buckets: BUCKETS,
    };
    let mut bucketing = Bucketing::new(&plan, &schema).expect("binds");
    let mut splitter = Splitter::new(&schema, BUCKETS);
    let mut buckets = Vec::new();
    let mut paths = Vec::new();
    loop {
        let batch = timed(&mut phases.decode, || reader.next())
            .transpose()
            .expect("decodes");
        if let Some(batch) = &batch {
            phases.rows += batch.num_rows() as u64;
            timed(&mut phases.hash, || {
                bucketing.assign(batch.columns(), batch.num_rows(), &mut buckets)
            });
            timed(&mut phases.push, || splitter.push(batch.columns(), &buckets));
        }
        let ended = batch.is_none();
        if splitter.rows() >= BLOCK_ROWS || ended && splitter.rows() > 0 {
            let path = folder.join(format!("{thread}-{}.gx", paths.len()));
            let mut file = ExchangeWriter::create(path.clone(), schema.clone(), BUCKETS).expect("creates");
            let (mut both, writing) = (0, Cell::new(0));
            let write_block = || {
                file.write_block_timed(&mut splitter, |write| {
                    let mut nanos = 0;
                    let result = timed(&mut nanos, write);
                    writing.set(writing.get() + nanos);
                    result
                })
            };
            timed(&mut both, write_block).expect("writes");
            phases.write += writing.get();
            phases.split += both - writing.get();
            let finished = timed(&mut phases.write, || file.finish()).expect("finishes");
            phases.bytes += finished.bytes;
            timed(&mut phases.sync, || finished.staged.publish()).expect("publishes");
            paths.push(path);
        }
        if ended {
            return (phases, paths);
        }
    }
}

fn gather_range(files: &[PathBuf], range: UnitRange) -> Phases {
    let mut phases = Phases::default();
    timed(&mut phases.read, || {
        let mut reader = GatherReader::open(files, range).expect("opens");
        while let Some(input) = reader.next_batch().expect("reads") {
            phases.rows += input.batch.num_rows() as u64;
        }
        let intake = reader.take_intake();
        let scattered = scattered(files, range).expect("indexes");
        assert_eq!((intake.read, intake.records), (scattered.rows, scattered.records));
    });
    phases
}

#[test]
#[ignore = "needs GAPLESS_BENCH_LINEITEM and a quiet machine"]
fn exchange_cost() {
    let path =
        std::env::var("GAPLESS_BENCH_LINEITEM").expect("GAPLESS_BENCH_LINEITEM names a Parquet file of lineitem");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let start = Instant::now();
    let parts: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (path, folder) = (path.as_str(), folder.path().to_path_buf());
                scope.spawn(move || scatter_row_groups(path, thread, folder))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("scatters"))
            .collect()
    });
    let scatter_seconds = start.elapsed().as_secs_f64();
    let files: Vec<PathBuf> = parts.iter().flat_map(|(_, files)| files.clone()).collect();
    let start = Instant::now();
    const PARTITIONS: u64 = 16;
    let per_thread = PARTITIONS / THREADS as u64;
    let reads: Vec<Phases> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS as u64)
            .map(|thread| {
                let files = &files;
                scope.spawn(move || {
                    let width = u64::from(BUCKETS) / PARTITIONS;
                    let partitions = thread * per_thread..(thread + 1) * per_thread;
                    partitions
                        .map(|at| gather_range(files, UnitRange::new(at * width, (at + 1) * width)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("gathers"))
            .collect()
    });
    let gather_seconds = start.elapsed().as_secs_f64();
    let sum = |of: fn(&Phases) -> u64, phases: &mut dyn Iterator<Item = &Phases>| phases.map(of).sum::<u64>();
    let scattered = |of: fn(&Phases) -> u64| sum(of, &mut parts.iter().map(|(phases, _)| phases));
    let gathered = |of: fn(&Phases) -> u64| sum(of, &mut reads.iter());
    assert_eq!(scattered(|phases| phases.rows), gathered(|phases| phases.rows));
    let seconds = |nanos: u64| (nanos as f64 / 1e7).round() / 100.0;
    let line = serde_json::json!({
        "rows": scattered(|p| p.rows),
        "bytes": scattered(|p| p.bytes),
        "files": files.len(),
        "thread_seconds": {
            "decode": seconds(scattered(|p| p.decode)),
            "hash": seconds(scattered(|p| p.hash)),
            "narrow": seconds(scattered(|p| p.push)),
            "split": seconds(scattered(|p| p.split)),
            "write": seconds(scattered(|p| p.write)),
            "sync": seconds(scattered(|p| p.sync)),
            "read": seconds(gathered(|p| p.read)),
        },
        "scatter_s": (scatter_seconds * 100.0).round() / 100.0,
        "gather_s": (gather_seconds * 100.0).round() / 100.0,
    });
    println!("{line}");
}

//! Measurements, not tests: `cargo test --release -p gapless-worker engine::measure -- --ignored --nocapture`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{ArrayRef, Date32Array, Decimal128Array, Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use super::{Analysis, Checks, LookupTable, Program, Slot, SlotLimits, analyse};

const NOW: i64 = 1_795_132_800_000_000;
const ROUNDS: usize = 7;

fn lineitem_schema() -> SchemaRef {
    let decimal = DataType::Decimal128(15, 2);
    Arc::new(Schema::new(vec![
        Field::new("l_partkey", DataType::Int64, false),
        Field::new("l_suppkey", DataType::Int64, false),
        Field::new("l_quantity", decimal.clone(), false),
        Field::new("l_extendedprice", decimal.clone(), false),
        Field::new("l_discount", decimal, false),
        Field::new("l_shipdate", DataType::Date32, false),
    ]))
}

/// `rows` rows in `groups` groups, in no order, in batches of `batch` rows.
fn lineitem(rows: usize, groups: u64, batch: usize) -> Vec<RecordBatch> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let group: Vec<i64> = (0..rows).map(|_| (next() % groups) as i64).collect();
    let decimal = |values: Vec<i128>| -> ArrayRef {
        Arc::new(
            Decimal128Array::from(values)
                .with_precision_and_scale(15, 2)
                .expect("fits"),
        )
    };
    group
        .chunks(batch)
        .map(|group| {
            let numbers = |f: &dyn Fn(i64) -> i64| Arc::new(Int64Array::from_iter_values(group.iter().map(|g| f(*g))));
            let columns: Vec<ArrayRef> = vec![
                numbers(&|g| g / 4 * 4096),
                numbers(&|g| (g / 4 + g % 4 * 2500) % 10_000),
                decimal(group.iter().map(|g| i128::from(g % 50 + 1) * 100).collect()),
                decimal(group.iter().map(|g| i128::from(90_000 + g % 10_000_000)).collect()),
                decimal(group.iter().map(|g| i128::from(g % 11)).collect()),
                Arc::new(Date32Array::from_iter_values(
                    group.iter().map(|g| 8000 + (g % 2500) as i32),
                )),
            ];
            RecordBatch::try_new(lineitem_schema(), columns).expect("columns of one length")
        })
        .collect()
}

/// Processor time of this thread: what a busy machine does not change.
fn thread_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    let nanos = stat
        .split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .expect("nanoseconds come first");
    Duration::from_nanos(nanos)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn slot() -> (tempfile::TempDir, Slot) {
    let folder = tempfile::tempdir().expect("a folder");
    let slot = Slot::new(SlotLimits::new(folder.path().to_path_buf()));
    (folder, slot)
}

/// The time of one of so many runs over the batches that they take 2 M rows or more together (the
/// clock of a thread's time ticks every few milliseconds), and the rows that it gives.
fn timed_run(program: &mut Program, slot: &mut Slot, batches: &[RecordBatch]) -> (Duration, u64) {
    let taken: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let runs = (2_000_000 / taken).max(1) as u32;
    let mut rows = 0;
    let start = thread_time();
    for _ in 0..runs {
        let mut feed = batches.iter().cloned();
        program
            .run(slot, &mut || Ok(feed.next()), &mut |batch| {
                rows += batch.num_rows() as u64;
                Ok(())
            })
            .expect("runs");
    }
    ((thread_time() - start) / runs, rows / u64::from(runs))
}

#[test]
#[ignore = "a measurement"]
fn grouping() {
    let (_folder, mut slot) = slot();
    let sqls = [
        (
            "count alone",
            "SELECT l_partkey, l_suppkey, count(*) AS n FROM input GROUP BY l_partkey, l_suppkey",
        ),
        (
            "W2",
            "SELECT l_partkey, l_suppkey, count(*) AS n, sum(l_quantity) AS qty, \
             sum(l_extendedprice * (1 - l_discount)) AS revenue, max(l_shipdate) AS last_ship \
             FROM input GROUP BY l_partkey, l_suppkey",
        ),
        (
            "expressions alone",
            "SELECT l_partkey, l_extendedprice * (1 - l_discount) AS revenue FROM input",
        ),
        (
            "W2 without the product",
            "SELECT l_partkey, l_suppkey, count(*) AS n, sum(l_quantity) AS qty, sum(l_extendedprice) AS revenue, \
             max(l_shipdate) AS last_ship FROM input GROUP BY l_partkey, l_suppkey",
        ),
    ];
    for (rows, groups) in [
        (2_000_000, 266_000),
        (500_000, 66_500),
        (125_000, 16_600),
        (32_000, 4_250),
        (8_000, 1_060),
    ] {
        for batch in [8192] {
            let batches = lineitem(rows, groups, batch);
            for (what, sql) in sqls {
                let mut program =
                    Program::compile(&mut slot, Some(sql), lineitem_schema(), vec![], NOW).expect("compiles");
                let runs: Vec<_> = (0..ROUNDS)
                    .map(|_| timed_run(&mut program, &mut slot, &batches))
                    .collect();
                let time = median(runs.iter().map(|run| run.0).collect());
                println!(
                    "{rows} rows, batches of {batch}, {what}: {time:?}, {:.1} M rows/s, {} out",
                    rows as f64 / time.as_secs_f64() / 1e6,
                    runs[0].1
                );
            }
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn fixed_costs() {
    let (_folder, mut slot) = slot();
    let schema = lineitem_schema();
    let one = lineitem(1, 1, 1);
    let keys = Arc::new(Schema::new(vec![Field::new("key", DataType::Int64, false)]));
    let lookup = LookupTable {
        name: "lut".to_string(),
        schema: keys.clone(),
        batches: vec![
            RecordBatch::try_new(keys.clone(), vec![Arc::new(Int64Array::from_iter_values(0..1000))])
                .expect("a column"),
        ],
    };
    for (what, sql) in [
        ("no SQL", None),
        ("projection", Some("SELECT l_partkey, l_quantity * 2 AS q FROM input")),
        ("filter", Some("SELECT l_partkey FROM input WHERE l_suppkey >= 0")),
        (
            "look-up",
            Some("SELECT l_partkey FROM input WHERE l_suppkey IN (SELECT key FROM lut)"),
        ),
        (
            "grouping",
            Some("SELECT l_partkey, count(*) AS n FROM input GROUP BY l_partkey"),
        ),
    ] {
        for round in ["first", "again"] {
            let start = Instant::now();
            let program = Program::compile(&mut slot, sql, schema.clone(), vec![lookup.clone()], NOW);
            println!("{what}: compile {round} {:?}", start.elapsed());
            program.expect("compiles");
        }
        let mut program =
            Program::compile(&mut slot, sql, schema.clone(), vec![lookup.clone()], NOW).expect("compiles");
        let start = thread_time();
        for _ in 0..5000 {
            let mut feed = one.iter().cloned();
            program
                .run(&mut slot, &mut || Ok(feed.next()), &mut |_| Ok(()))
                .expect("runs");
        }
        println!("{what}: a run of one row {:?}", (thread_time() - start) / 5000);
    }
    let start = Instant::now();
    let analysis: Result<Analysis, _> = analyse(
        Some("SELECT l_partkey, count(*) AS n FROM input GROUP BY l_partkey"),
        schema.clone(),
        &[],
        &[],
        NOW,
    );
    println!("analyse: {:?}", start.elapsed());
    analysis.expect("is right");
    let rule = gapless_common::job::Check {
        name: "rule".to_string(),
        that: "l_quantity > 0 AND l_shipdate <= current_date".to_string(),
    };
    let start = Instant::now();
    let checks = Checks::compile(&[rule], &schema, NOW).expect("compiles");
    println!("one check: compile {:?}", start.elapsed());
    let batches = lineitem(1_000_000, 1000, 8192);
    let start = Instant::now();
    for batch in &batches {
        checks.judge(batch).expect("judged");
    }
    println!("one check: a million rows {:?}", start.elapsed());
}

#[test]
#[ignore = "a measurement"]
fn row_wise() {
    let (_folder, mut slot) = slot();
    let batches = lineitem(2_000_000, 266_000, 8192);
    for sql in [
        "SELECT * FROM input",
        "SELECT *, l_extendedprice * (1 - l_discount) AS revenue FROM input",
        "SELECT *, l_extendedprice * (1 - l_discount) AS revenue FROM input WHERE l_quantity > 1",
        "SELECT * FROM input WHERE l_quantity > 25",
    ] {
        let mut program = Program::compile(&mut slot, Some(sql), lineitem_schema(), vec![], NOW).expect("compiles");
        let runs: Vec<_> = (0..ROUNDS)
            .map(|_| timed_run(&mut program, &mut slot, &batches))
            .collect();
        println!(
            "{sql}: {:?} for 2 M rows, {} out",
            median(runs.iter().map(|run| run.0).collect()),
            runs[0].1
        );
    }
}

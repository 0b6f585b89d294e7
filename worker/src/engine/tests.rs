//! The engine over SQL: what is row-wise and what is whole, what runs give, what is refused.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Date32Array, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    util::display::array_value_to_string,
};
use gapless_common::{
    error::{ErrorClass, TaskError},
    job::Check,
    plan::TransformMode,
};

use super::{Analysis, Checks, LookupTable, Program, RunTotals, Slot, SlotLimits, Verdict, analyse};

/// 2024-02-29T12:00:00Z.
const NOW: i64 = 1_709_208_000_000_000;

fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("b", DataType::Int64, true),
        Field::new("v", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("Mixed", DataType::Int64, true),
        Field::new("price", DataType::Decimal128(12, 2), true),
        Field::new("day", DataType::Date32, true),
        Field::new("tags", DataType::new_list(DataType::Int64, true), true),
    ]))
}

fn lookup_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, true),
        Field::new("label", DataType::Utf8, true),
    ]))
}

fn analyse_sql(sql: &str) -> Result<Analysis, TaskError> {
    analyse(
        Some(sql),
        input_schema(),
        &[("lut".to_string(), lookup_schema())],
        &[],
        NOW,
    )
}

#[test]
fn the_plan_decides_between_row_wise_and_whole() {
    let row_wise = "row-wise";
    let expands = "row-wise, expands";
    let cases: &[(&str, &str)] = &[
        // Rows of their own.
        ("SELECT * FROM input", row_wise),
        (
            "SELECT k + 1 AS k, upper(name) AS name FROM input WHERE v > 3",
            row_wise,
        ),
        (
            "SELECT i.k FROM (SELECT k, v FROM input WHERE v > 1) i WHERE i.v < 5",
            row_wise,
        ),
        ("WITH t AS (SELECT k FROM input) SELECT k FROM t", row_wise),
        ("SELECT k, now() AS at, current_date AS today FROM input", row_wise),
        ("SELECT CASE WHEN k > 1 THEN 'a' ELSE 'b' END AS c FROM input", row_wise),
        ("SELECT * FROM input WHERE false", row_wise),
        ("SELECT k, unnest(tags) AS tag FROM input", expands),
        // Look-ups.
        ("SELECT i.k, l.label FROM input i JOIN lut l ON i.k = l.key", expands),
        (
            "SELECT i.k, l.label FROM input i LEFT JOIN lut l ON i.k = l.key",
            expands,
        ),
        (
            "SELECT i.k, l.label FROM lut l RIGHT JOIN input i ON i.k = l.key",
            expands,
        ),
        ("SELECT i.k, l.label FROM input i CROSS JOIN lut l", expands),
        (
            "SELECT i.k, l.n FROM input i JOIN (SELECT key, count(*) AS n FROM lut GROUP BY key) l ON i.k = l.key",
            row_wise,
        ),
        ("SELECT k FROM input WHERE k IN (SELECT key FROM lut)", row_wise),
        ("SELECT k FROM input WHERE k NOT IN (SELECT key FROM lut)", row_wise),
        (
            "SELECT k FROM input i WHERE EXISTS (SELECT 1 FROM lut WHERE lut.key = i.k)",
            row_wise,
        ),
        ("SELECT k FROM input WHERE k > (SELECT max(key) FROM lut)", row_wise),
        // Grouped: rows that are equal in a plain column belong together.
        ("SELECT k, sum(v) AS s FROM input GROUP BY k", "whole by k"),
        ("SELECT k, b, sum(v) AS s FROM input GROUP BY k, b", "whole by k, b"),
        (
            "SELECT b AS x, k + 1 AS y, sum(v) AS s FROM input GROUP BY b, k + 1",
            "whole by b",
        ),
        (
            "SELECT g, sum(v) AS s FROM (SELECT k AS g, v FROM input WHERE v > 0) GROUP BY g",
            "whole by k",
        ),
        (
            "SELECT k, sum(v) AS s FROM input GROUP BY k HAVING sum(v) > 10",
            "whole by k",
        ),
        ("SELECT k, count(DISTINCT b) AS n FROM input GROUP BY k", "whole by k"),
        ("SELECT DISTINCT k, name FROM input", "whole by k, name"),
        ("SELECT DISTINCT ON (k) k, v FROM input ORDER BY k, v", ""),
        (
            "SELECT k, b, sum(v) AS s FROM input GROUP BY GROUPING SETS ((k, b), (k))",
            "whole by k",
        ),
        (
            "SELECT k, row_number() OVER (PARTITION BY k ORDER BY v) AS n FROM input",
            "whole by k",
        ),
        (
            "SELECT k, sum(v) OVER (PARTITION BY k, b) AS x, sum(v) OVER (PARTITION BY k) AS y FROM input",
            "whole by k",
        ),
        (
            "SELECT k, max(s) AS m FROM (SELECT k, b, sum(v) AS s FROM input GROUP BY k, b) GROUP BY k",
            "whole by k",
        ),
        (
            "SELECT l.label, i.k, count(*) AS n FROM input i JOIN lut l ON i.k = l.key GROUP BY l.label, i.k",
            "whole by k",
        ),
        (
            "SELECT i.k, i.v, t.s FROM input i JOIN (SELECT k, sum(v) AS s FROM input GROUP BY k) t ON i.k = t.k",
            "whole by k",
        ),
        ("SELECT k FROM input UNION ALL SELECT k FROM input", "whole by k"),
        // Everything at once.
        ("SELECT count(*) AS n FROM input", ""),
        ("SELECT k + 1 AS g, sum(v) AS s FROM input GROUP BY k + 1", ""),
        (
            "SELECT s, count(*) AS n FROM (SELECT k, sum(v) AS s FROM input GROUP BY k) GROUP BY s",
            "",
        ),
        ("SELECT k, b, sum(v) AS s FROM input GROUP BY ROLLUP (k, b)", ""),
        ("SELECT k, v FROM input ORDER BY v", ""),
        ("SELECT k FROM input LIMIT 3", ""),
        ("SELECT k, row_number() OVER (ORDER BY v) AS n FROM input", ""),
        ("SELECT k, random() AS r FROM input", ""),
        ("SELECT l.label, i.k FROM lut l LEFT JOIN input i ON i.k = l.key", ""),
        ("SELECT l.label, i.k FROM lut l FULL JOIN input i ON i.k = l.key", ""),
        ("SELECT key FROM lut WHERE key IN (SELECT k FROM input)", ""),
        ("SELECT k FROM input WHERE v > (SELECT avg(v) FROM input)", ""),
        ("SELECT a.k FROM input a JOIN input c ON a.k = c.b", ""),
        ("SELECT k FROM input UNION ALL SELECT key FROM lut", ""),
        ("SELECT key FROM lut", ""),
        ("SELECT 1 AS one", ""),
    ];
    let mut wrong = Vec::new();
    for (sql, expected) in cases {
        let got = match analyse_sql(sql) {
            Err(error) => format!("{}: {error}", error.class),
            Ok(analysis) => match analysis.transform.mode {
                TransformMode::RowWise { expands: false } => row_wise.to_string(),
                TransformMode::RowWise { expands: true } => expands.to_string(),
                TransformMode::Whole { keys } if keys.is_empty() => String::new(),
                TransformMode::Whole { keys } => format!("whole by {}", keys.join(", ")),
            },
        };
        if got != *expected {
            wrong.push(format!("{sql}\n    expected «{expected}», got «{got}»"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_reason_is_a_sentence_for_people() {
    let cases = [
        ("SELECT k, v FROM input ORDER BY v", "ORDER BY over the whole input"),
        (
            "SELECT k, sum(v) AS s FROM input GROUP BY k",
            "GROUP BY: rows that are equal in k belong together",
        ),
        (
            "SELECT random() AS r FROM input",
            "random() gives another value each time",
        ),
        ("SELECT key FROM lut", "the SQL does not read `input`"),
    ];
    for (sql, expected) in cases {
        let reason = analyse_sql(sql).expect(sql).transform.reason;
        assert!(reason.contains(expected), "{sql}: {reason}");
    }
}

#[test]
fn only_columns_that_are_read_are_asked_of_the_source() {
    let check = |that: &str| {
        vec![Check {
            name: "rule".to_string(),
            that: that.to_string(),
        }]
    };
    let cases: &[(&str, &str, &[&str])] = &[
        ("SELECT k FROM input WHERE v > 1", "true", &["k", "v"]),
        ("SELECT count(*) AS n FROM input", "true", &[]),
        (
            "SELECT count(*) AS n FROM input",
            "b > 0 AND \"Mixed\" > 1",
            &["b", "Mixed"],
        ),
        (
            "SELECT k FROM input WHERE name IN (SELECT label FROM lut)",
            "true",
            &["k", "name"],
        ),
    ];
    for (sql, that, expected) in cases {
        let lookups = [("lut".to_string(), lookup_schema())];
        let analysis = analyse(Some(sql), input_schema(), &lookups, &check(that), NOW).expect(sql);
        assert_eq!(&analysis.columns, expected, "{sql}");
    }
    let passed = analyse(None, input_schema(), &[], &[], NOW).expect("no SQL");
    assert_eq!(passed.columns.len(), input_schema().fields().len());
}

#[test]
fn what_cannot_work_is_refused_in_words() {
    let cases = [
        ("SELECT nam FROM input", "there is no column «nam»; did you mean «name»"),
        ("SELECT mixed FROM input", "did you mean «Mixed»"),
        ("SELECT zzzzzz FROM input", "the columns are k, b, v"),
        ("SELECT k FROM inpt", "there is no table «inpt»"),
        (
            "SELECT uper(name) FROM input",
            "there is no function «uper». Did you mean 'upper'",
        ),
        (
            "SELECT k FROM input JOIN lut ON k = key, input i2",
            "«k» is a column of several tables",
        ),
        (
            "SELECT i.k, j.k FROM input i JOIN input j ON i.k = j.k",
            "two output columns are named «k»",
        ),
        ("SELECT k, v AS k FROM input", "two output columns are named «k»"),
        ("SELECT k, k FROM input", "two output columns are named «k»"),
        (
            "SELECT sum(v), sum(v) FROM input",
            "two output columns are named «sum(input.v)»",
        ),
        (
            "SELECT l.labl FROM input i JOIN lut l ON i.k = l.key",
            "there is no column «l.labl»; did you mean «label»? Names",
        ),
        (
            "SELECT l.zzzzzz FROM input i JOIN lut l ON i.k = l.key",
            "there is no column «l.zzzzzz»; the columns are key, label",
        ),
        (
            "SELECT m.label FROM input i JOIN lut l ON i.k = l.key",
            "there is no column «m.label», as there is no table «m»; the tables are i, l",
        ),
        ("SELECT k FROM input; SELECT 1", "several statements"),
        ("INSERT INTO input VALUES (1)", "one query"),
        ("COPY input TO 'x.csv'", "one query"),
        ("CREATE TABLE t AS SELECT 1", "one query"),
        ("EXPLAIN SELECT 1", "one query"),
        ("SELECT * FROM information_schema.tables", "information_schema"),
        ("SELECT FROM WHERE", ""),
        ("SELECT k +", ""),
        ("", ""),
    ];
    for (sql, expected) in cases {
        let error = analyse_sql(sql).expect_err(sql);
        assert_eq!(error.class, ErrorClass::Config, "{sql}: {error}");
        assert!(error.message.contains(expected), "{sql}: {error}");
    }
    let checks = [
        ("v + 1", "not true or false"),
        ("vv > 1", "there is no column «vv»"),
        ("random() > 0.5", "same answer each time"),
        ("v >", "check «rule»"),
        ("sum(v) > 0", "check «rule»: a rule is asked of each record by itself"),
        ("row_number() OVER (ORDER BY v) > 1", "no window"),
        ("v IN (SELECT 1)", "no subquery"),
    ];
    for (that, expected) in checks {
        let rule = Check {
            name: "rule".to_string(),
            that: that.to_string(),
        };
        let error = analyse(None, input_schema(), &[], &[rule], NOW).expect_err(that);
        assert!(error.message.contains(expected), "{that}: {error}");
    }
}

fn rows(from: i64, to: i64) -> RecordBatch {
    let ints = |f: &dyn Fn(i64) -> i64| Arc::new(Int64Array::from_iter_values((from..to).map(f))) as ArrayRef;
    let schema = Arc::new(
        input_schema()
            .project(&[0, 1, 2, 3, 4, 5, 6])
            .expect("columns of the input"),
    );
    let price = Decimal128Array::from_iter_values((from..to).map(|n| i128::from(n) * 125))
        .with_precision_and_scale(12, 2)
        .expect("fits");
    let columns: Vec<ArrayRef> = vec![
        ints(&|n| n),
        ints(&|n| n % 3),
        ints(&|n| n * 10),
        Arc::new(StringArray::from_iter_values((from..to).map(|n| format!("n{n}")))),
        ints(&|n| -n),
        Arc::new(price),
        Arc::new(Date32Array::from_iter_values((from..to).map(|n| n as i32))),
    ];
    RecordBatch::try_new(schema, columns).expect("columns of one length")
}

fn lookup(keys: &[i64]) -> LookupTable {
    let labels: Vec<String> = keys.iter().map(|key| format!("L{key}")).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(keys.to_vec())),
        Arc::new(StringArray::from(labels)),
    ];
    LookupTable {
        name: "lut".to_string(),
        schema: lookup_schema(),
        batches: vec![RecordBatch::try_new(lookup_schema(), columns).expect("two columns")],
    }
}

fn slot() -> (tempfile::TempDir, Slot) {
    let folder = tempfile::tempdir().expect("a folder");
    let slot = Slot::new(SlotLimits::new(folder.path().join("spill")));
    (folder, slot)
}

fn compile(slot: &mut Slot, sql: &str, keys: &[i64]) -> Program {
    let schema = rows(0, 0).schema();
    Program::compile(slot, Some(sql), schema, vec![lookup(keys)], NOW).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn run(
    program: &mut Program,
    slot: &mut Slot,
    batches: Vec<RecordBatch>,
) -> Result<(Vec<Vec<String>>, RunTotals), TaskError> {
    let mut feed = batches.into_iter();
    let mut shown = Vec::new();
    let totals = program.run(slot, &mut || Ok(feed.next()), &mut |batch| {
        for row in 0..batch.num_rows() {
            let row = batch
                .columns()
                .iter()
                .map(|column| array_value_to_string(column, row).expect("shown"))
                .collect();
            shown.push(row);
        }
        Ok(())
    })?;
    Ok((shown, totals))
}

#[test]
fn a_program_runs_over_chunks() {
    // (sql, rows out, filtered) over rows 0..10 in batches of 4 and keys 1, 2, 3, 40 in the look-up.
    let cases: &[(&str, &[&str], u64)] = &[
        ("SELECT k, v FROM input WHERE v >= 70", &["7 70", "8 80", "9 90"], 7),
        ("SELECT k * 2 AS d FROM input WHERE k < 2", &["0", "2"], 8),
        ("SELECT k FROM input WHERE false", &[], 10),
        (
            "SELECT k FROM input WHERE v > 10 AND k IN (SELECT key FROM lut)",
            &["2", "3"],
            8,
        ),
        (
            "SELECT k FROM input WHERE k NOT IN (SELECT key FROM lut) AND k < 5",
            &["0", "4"],
            8,
        ),
        (
            "SELECT i.k, l.label FROM input i JOIN lut l ON i.k = l.key",
            &["1 L1", "2 L2", "3 L3"],
            7,
        ),
        (
            "SELECT i.k, l.label FROM input i LEFT JOIN lut l ON i.k = l.key WHERE i.k < 2",
            &["0 ", "1 L1"],
            8,
        ),
        (
            "SELECT k FROM input WHERE k > (SELECT min(key) FROM lut) AND k < 4",
            &["2", "3"],
            8,
        ),
        (
            "SELECT k, price * (1 - 0.1) AS p FROM input WHERE k = 4",
            &["4 4.500"],
            9,
        ),
        ("SELECT now() AS at FROM input WHERE k = 0", &["2024-02-29T12:00:00"], 9),
        (
            "SELECT current_date AS today FROM input WHERE k = 0",
            &["2024-02-29"],
            9,
        ),
        (
            "SELECT b, sum(v) AS s FROM input GROUP BY b ORDER BY b",
            &["0 180", "1 120", "2 150"],
            0,
        ),
        ("SELECT count(*) AS n FROM input WHERE k > 3", &["6"], 4),
        ("SELECT k FROM input ORDER BY k DESC LIMIT 2", &["9", "8"], 0),
        (
            "SELECT a.k FROM input a JOIN input c ON a.k = c.k WHERE a.k > 7 ORDER BY a.k",
            &["8", "9"],
            2,
        ),
        ("SELECT sum(price) AS s FROM input", &["56.25"], 0),
    ];
    let (_folder, mut slot) = slot();
    for (sql, expected, filtered) in cases {
        let mut program = compile(&mut slot, sql, &[1, 2, 3, 40]);
        // Twice: a program is used for many chunks.
        for round in 0..2 {
            let batches = vec![rows(0, 4), rows(4, 4), rows(4, 8), rows(8, 10)];
            let (mut shown, totals) =
                run(&mut program, &mut slot, batches).unwrap_or_else(|error| panic!("{sql}: {error}"));
            if program.is_row_wise() {
                shown.sort();
                assert_eq!(totals.filtered, *filtered, "{sql}, round {round}");
            }
            let shown: Vec<String> = shown.iter().map(|row| row.join(" ")).collect();
            assert_eq!(shown, *expected, "{sql}, round {round}");
            assert_eq!(totals.taken, 10, "{sql}, round {round}");
        }
    }
}

#[test]
fn a_plan_has_no_operator_that_only_serves_parallelism() {
    let (_folder, mut slot) = slot();
    let grouped = compile(&mut slot, "SELECT k, sum(v) AS s FROM input GROUP BY k", &[]).explain();
    assert!(grouped.contains("AggregateExec: mode=Single"), "{grouped}");
    let joined = compile(&mut slot, "SELECT i.k FROM input i LEFT JOIN lut l ON i.k = l.key", &[]).explain();
    assert!(
        joined.contains("HashJoinExec: mode=CollectLeft, join_type=Right"),
        "{joined}"
    );
    for plan in [grouped, joined] {
        assert!(!plan.contains("Repartition") && !plan.contains("Coalesce"), "{plan}");
    }
}

#[test]
fn counts_hold_over_more_runs_than_a_plan_is_kept() {
    let (_folder, mut slot) = slot();
    let mut program = compile(
        &mut slot,
        "SELECT k FROM input WHERE k IN (SELECT key FROM lut) AND b < 2",
        &[1, 2],
    );
    for round in 0..200 {
        let (shown, totals) = run(&mut program, &mut slot, vec![rows(0, 10)]).expect("runs");
        assert_eq!((shown.len(), totals.filtered), (1, 9), "round {round}");
    }
}

#[test]
fn an_empty_look_up_drops_every_row() {
    let (_folder, mut slot) = slot();
    let mut program = compile(&mut slot, "SELECT i.k FROM input i JOIN lut l ON i.k = l.key", &[]);
    let (shown, totals) = run(&mut program, &mut slot, vec![rows(0, 4), rows(4, 8)]).expect("runs");
    assert!(shown.is_empty());
    assert_eq!(totals, RunTotals { taken: 8, filtered: 8 });
}

#[test]
fn sql_that_fails_on_a_value_is_a_data_error_and_the_program_goes_on() {
    let (_folder, mut slot) = slot();
    for sql in ["SELECT v / k AS q FROM input", "SELECT price / k AS q FROM input"] {
        let mut program = compile(&mut slot, sql, &[]);
        let error = run(&mut program, &mut slot, vec![rows(0, 4)]).expect_err("divides by zero");
        assert_eq!(error.class, ErrorClass::Data);
        assert!(error.message.to_lowercase().contains("divide by zero"), "{error}");
        let (shown, _) = run(&mut program, &mut slot, vec![rows(1, 4)]).expect("runs");
        assert_eq!(shown.len(), 3);
    }
}

/// Rows with numbers at the ends of their types.
fn extremes(wide: &[i64]) -> RecordBatch {
    let widest = |n: &i64| i128::from(*n) * 5_000_000_000_000_000_000;
    let decimals = Decimal128Array::from_iter_values(wide.iter().map(widest))
        .with_precision_and_scale(38, 0)
        .expect("fits");
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("n", Arc::new(Int64Array::from(wide.to_vec())), true),
        (
            "small",
            Arc::new(Int32Array::from_iter_values(wide.iter().map(|n| *n as i32))),
            true,
        ),
        ("d", Arc::new(decimals), true),
        ("one", Arc::new(Int64Array::from(vec![1; wide.len()])), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length")
}

#[test]
fn a_result_that_its_type_cannot_hold_is_an_error_and_never_another_number() {
    let (_folder, mut slot) = slot();
    let schema = extremes(&[]).schema();
    let mut ask = |sql: &str, numbers: &[i64]| {
        let mut program = Program::compile(&mut slot, Some(sql), schema.clone(), vec![], NOW)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(
            program.output().field(0).data_type(),
            &analysed(sql, schema.clone()),
            "{sql}"
        );
        run(&mut program, &mut slot, vec![extremes(numbers)]).map(|(shown, _)| shown.concat().join(" "))
    };
    let (max, min) = (i64::MAX, i64::MIN);
    // What is asked, of which numbers, and the answer; without one it does not fit.
    let cases: &[(&str, &[i64], Option<&str>)] = &[
        ("SELECT n + one AS r FROM input", &[max], None),
        ("SELECT n + 1 AS r FROM input", &[max - 1], Some("9223372036854775807")),
        ("SELECT n - one AS r FROM input", &[min], None),
        ("SELECT n * 2 AS r FROM input", &[max / 2 + 1], None),
        ("SELECT -n AS r FROM input", &[min], None),
        ("SELECT -n AS r FROM input", &[max], Some("-9223372036854775807")),
        ("SELECT small * small AS r FROM input", &[46_341], None),
        ("SELECT small * n AS r FROM input", &[46_341], Some("2147488281")),
        ("SELECT n FROM input WHERE n * 3 > 0", &[max], None),
        ("SELECT count(*) AS r FROM input GROUP BY n * 3", &[max], None),
        ("SELECT 9223372036854775807 + one AS r FROM input", &[1], None),
        (
            "SELECT CASE WHEN n < 5 THEN n * 9223372036854775807 ELSE n END AS r FROM input",
            &[1, 7],
            Some("9223372036854775807 7"),
        ),
        // 39 digits, which 128 bits hold.
        (
            "SELECT d + d AS r FROM input",
            &[max],
            Some("92233720368547758070000000000000000000"),
        ),
        ("SELECT d + d + d AS r FROM input", &[max], None),
        ("SELECT d - (0 - d) - (0 - d) AS r FROM input", &[max], None),
        ("SELECT sum(n) AS r FROM input", &[max, 1], None),
        (
            "SELECT sum(n) AS r FROM input",
            &[max, 1, -1],
            Some("9223372036854775807"),
        ),
        ("SELECT sum(n) AS r FROM input GROUP BY one", &[min, -1], None),
        (
            "SELECT sum(n) AS r FROM input GROUP BY one",
            &[min, -1, 5],
            Some("-9223372036854775804"),
        ),
        ("SELECT sum(n) AS r FROM input WHERE n < 0", &[1], Some("")),
        (
            "SELECT sum(n) FILTER (WHERE n > 1) AS r FROM input GROUP BY one",
            &[max, 1],
            Some("9223372036854775807"),
        ),
        (
            "SELECT sum(DISTINCT n) AS r, count(DISTINCT small) AS s FROM input",
            &[max, max],
            Some("9223372036854775807 1"),
        ),
        (
            "SELECT sum(DISTINCT n) AS r, count(DISTINCT small) AS s FROM input",
            &[max, 1],
            None,
        ),
        (
            "SELECT sum(small) AS r FROM input",
            &[2_147_483_647, 1],
            Some("2147483648"),
        ),
        (
            "SELECT sum(d) AS r FROM input GROUP BY one",
            &[max, max],
            Some("92233720368547758070000000000000000000"),
        ),
        ("SELECT sum(d) AS r FROM input GROUP BY one", &[max, max, max], None),
        ("SELECT sum(d) AS r FROM input", &[max, max, max, max], None),
        (
            "SELECT sum(CAST(n AS BIGINT UNSIGNED)) AS r FROM input",
            &[max, max, 1],
            Some("18446744073709551615"),
        ),
        (
            "SELECT sum(CAST(n AS BIGINT UNSIGNED)) AS r FROM input",
            &[max, max, 2],
            None,
        ),
        (
            "SELECT sum(n) OVER (ORDER BY n ROWS 1 PRECEDING) AS r FROM input",
            &[1, 2, max - 2],
            Some("1 3 9223372036854775807"),
        ),
        (
            "SELECT sum(n) OVER (ORDER BY n ROWS 1 PRECEDING) AS r FROM input",
            &[1, 3, max - 2],
            None,
        ),
        ("SELECT sum(CAST(n AS DOUBLE)) AS r FROM input", &[1, 2], Some("3.0")),
        (
            "SELECT sum(DISTINCT n) OVER (ORDER BY n ROWS 2 PRECEDING) AS r FROM input",
            &[1, 2, 2, max - 2],
            Some("1 3 3 9223372036854775807"),
        ),
        (
            "SELECT sum(DISTINCT n) OVER (ORDER BY n ROWS 2 PRECEDING) AS r FROM input",
            &[1, 2, 3, max - 2],
            None,
        ),
        (
            "SELECT sum(DISTINCT d) OVER (ORDER BY n ROWS 1 PRECEDING) AS r FROM input",
            &[1, 1, 2],
            Some("5000000000000000000 5000000000000000000 15000000000000000000"),
        ),
        // Of 76 digits, and of 9.
        (
            "SELECT sum(CAST(d AS DECIMAL(76, 0)) * CAST(d AS DECIMAL(76, 0))) AS r FROM input WHERE n > 1 GROUP BY one",
            &[max, max],
            Some("4253529586511730792369845389211625062450000000000000000000000000000000000000"),
        ),
        (
            "SELECT sum(CAST(d AS DECIMAL(76, 0)) * CAST(d AS DECIMAL(76, 0))) AS r FROM input GROUP BY one",
            &[max, max, max, max, max],
            None,
        ),
        (
            "SELECT sum(CAST(d AS DECIMAL(76, 0)) * CAST(d AS DECIMAL(76, 0))) AS r FROM input",
            &[max; 30],
            None,
        ),
        (
            "SELECT sum(arrow_cast(n, 'Decimal32(9, 0)')) AS r FROM input",
            &[999_999_990, 9],
            Some("999999999"),
        ),
        (
            "SELECT sum(arrow_cast(n, 'Decimal32(9, 0)')) AS r FROM input",
            &[999_999_990, 10],
            None,
        ),
        (
            "SELECT arrow_cast(n, 'Decimal32(9, 0)') + arrow_cast(n, 'Decimal32(9, 0)') AS r FROM input",
            &[999_999_990],
            None,
        ),
        (
            "SELECT CAST(d AS DECIMAL(76, 0)) * CAST(d AS DECIMAL(76, 0)) * 5 AS r FROM input",
            &[max],
            None,
        ),
        (
            "SELECT n + 1 AS r, sum(one) AS s FROM input GROUP BY ROLLUP(n + 1) ORDER BY r",
            &[1, 1, 2],
            Some("2 2 3 1  3"),
        ),
        (
            "SELECT n + 1 AS r, sum(one) AS s FROM input GROUP BY GROUPING SETS((n + 1), (small))",
            &[max],
            None,
        ),
        // What is no arithmetic of numbers stays what it is.
        (
            "SELECT arrow_cast(small, 'Date32') - DATE '1969-12-31' AS r FROM input",
            &[30],
            Some("31"),
        ),
        (
            "SELECT (DATE '2024-03-01' - arrow_cast(small, 'Date32')) * n AS r FROM input",
            &[2],
            Some("39562"),
        ),
        (
            "SELECT DATE '2024-02-28' + small AS r FROM input",
            &[2],
            Some("2024-03-01"),
        ),
    ];
    for (sql, numbers, expected) in cases {
        match (ask(sql, numbers), expected) {
            (Ok(found), Some(expected)) => assert_eq!(found, *expected, "{sql} of {numbers:?}"),
            (Err(error), None) => {
                assert_eq!(error.class, ErrorClass::Data, "{sql} of {numbers:?}: {error}");
                assert!(
                    error.message.contains(" does not fit "),
                    "{sql} of {numbers:?}: {error}"
                );
            }
            (found, _) => panic!("{sql} of {numbers:?}: {found:?}"),
        }
    }
}

#[test]
fn a_conversion_is_told_as_it_was_written() {
    let (_folder, mut slot) = slot();
    let sql = "SELECT CAST(-n * 1000 + one AS TINYINT) AS r FROM input";
    let schema = extremes(&[]).schema();
    let mut program = Program::compile(&mut slot, Some(sql), schema, vec![], NOW).expect("compiles");
    let error = run(&mut program, &mut slot, vec![extremes(&[5])]).expect_err("does not fit");
    assert!(
        error.message.contains("converting «(- n) * Int64(1000) + one» to int8"),
        "{error}"
    );
}

#[test]
fn a_long_chain_takes_no_more_stack_than_there_is() {
    let (_folder, mut slot) = slot();
    let input = extremes(&[]).schema();
    for sign in [" + ", " - "] {
        let sql = format!("SELECT {} AS r FROM input", vec!["n"; 400].join(sign));
        let mut program = Program::compile(&mut slot, Some(&sql), input.clone(), vec![], NOW).expect("compiles");
        let (shown, _) = run(&mut program, &mut slot, vec![extremes(&[3])]).expect("calculates");
        assert_eq!(shown[0][0], if sign == " + " { "1200" } else { "-1194" });
    }
    let refused = |result: Result<(), TaskError>| {
        let error = result.expect_err("refused");
        assert_eq!(error.class, ErrorClass::Config, "{error}");
        assert!(error.message.contains("more than 1000 signs"), "{error}");
    };
    let longer = vec!["n"; 100_000].join(" + ");
    let sql = format!("SELECT {longer} AS r FROM input");
    refused(analyse(Some(&sql), input.clone(), &[], &[], NOW).map(drop));
    let rule = Check {
        name: "long".to_string(),
        that: format!("{longer} > 0"),
    };
    refused(Checks::compile(&[rule], &input, NOW).map(drop));
}

/// The type that a job is told the first column has.
fn analysed(sql: &str, schema: SchemaRef) -> DataType {
    let analysis = analyse(Some(sql), schema, &[], &[], NOW).expect(sql);
    analysis.output.field(0).data_type().clone()
}

#[test]
fn a_rule_that_overflows_rejects_the_record_and_no_other() {
    let rule = Check {
        name: "even".to_string(),
        that: "n * 2 > 0".to_string(),
    };
    let checks = Checks::compile(&[rule], &extremes(&[]).schema(), NOW).expect("compiles");
    let Verdict::Broken { broken, .. } = checks.judge(&extremes(&[1, i64::MAX, 3])).expect("judged") else {
        panic!("one record is broken");
    };
    assert_eq!(broken.len(), 1);
    assert_eq!(broken[0].row, 1);
    assert_eq!(
        broken[0].reason,
        "«n * 2 > 0» cannot be evaluated: the result of 9223372036854775807 * 2 does not fit int64; cast to a wider type \
         first"
    );
}

#[test]
fn errors_of_source_and_sink_come_back_as_they_were() {
    let (_folder, mut slot) = slot();
    let fenced = TaskError::new(ErrorClass::Fenced, "another holds it");
    for sql in ["SELECT k FROM input", "SELECT sum(k) AS s FROM input"] {
        let mut program = compile(&mut slot, sql, &[]);
        let error = program
            .run(&mut slot, &mut || Err(fenced.clone()), &mut |_| Ok(()))
            .expect_err("the source fails");
        assert_eq!(TaskError::from(error), fenced);
        let mut once = Some(rows(0, 4));
        let error = program
            .run(&mut slot, &mut || Ok(once.take()), &mut |_| Err(fenced.clone()))
            .expect_err("the sink fails");
        assert_eq!(TaskError::from(error), fenced);
    }
}

#[test]
fn a_batch_may_carry_fewer_columns_than_the_table_and_in_another_order() {
    let (_folder, mut slot) = slot();
    let mut program = compile(&mut slot, "SELECT k, v FROM input WHERE b = 1", &[]);
    let narrow = rows(0, 6).project(&[2, 1, 0]).expect("columns");
    let (shown, _) = run(&mut program, &mut slot, vec![narrow]).expect("runs");
    assert_eq!(shown, [["1", "10"], ["4", "40"]]);
}

#[test]
fn memory_that_runs_out_is_a_resource_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = SlotLimits {
        memory: 64 << 10,
        spill: 1 << 10,
        ..SlotLimits::new(folder.path().join("spill"))
    };
    let mut slot = Slot::new(limits);
    let mut program = compile(&mut slot, "SELECT k, sum(v) AS s FROM input GROUP BY k", &[]);
    let batches = (0..40).map(|n| rows(n * 8000, (n + 1) * 8000)).collect();
    let error = run(&mut program, &mut slot, batches).expect_err("64 KiB are not enough");
    assert_eq!(error.class, ErrorClass::Resource, "{error}");
}

#[test]
fn what_does_not_fit_in_memory_spills() {
    let folder = tempfile::tempdir().expect("a folder");
    // A sort keeps 10 MiB for merging what it spilled.
    let with_spill = |spill| {
        Slot::new(SlotLimits {
            memory: 14 << 20,
            spill,
            spill_folder: folder.path().join("spill"),
        })
    };
    for sql in [
        "SELECT k, sum(v) AS s FROM input GROUP BY k",
        "SELECT k, v, name FROM input ORDER BY name",
    ] {
        let batches: Vec<_> = (0..100).map(|n| rows(n * 8000, (n + 1) * 8000)).collect();
        let mut slot = with_spill(1 << 30);
        let mut program = compile(&mut slot, sql, &[]);
        let (shown, _) = run(&mut program, &mut slot, batches.clone()).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(shown.len(), 800_000, "{sql}");
        // Without room to spill it fails, so the run above did spill.
        let mut slot = with_spill(1);
        let mut program = compile(&mut slot, sql, &[]);
        let error = run(&mut program, &mut slot, batches).expect_err(sql);
        assert_eq!(error.class, ErrorClass::Resource, "{sql}: {error}");
    }
}

#[test]
fn a_record_is_rejected_for_the_first_rule_it_breaks() {
    let rule = |name: &str, that: &str| Check {
        name: name.to_string(),
        that: that.to_string(),
    };
    let rules = [
        rule("ratio", "100 / k >= 20"),
        rule("b", "b <> 2"),
        rule("name", "name <> 'n4' OR NULL"),
        rule("today", "day < current_date"),
    ];
    let checks = Checks::compile(&rules, &rows(0, 0).schema(), NOW).expect("compiles");
    let Verdict::Broken { keep, broken } = checks.judge(&rows(0, 8)).expect("judged") else {
        panic!("some records are broken");
    };
    let kept: Vec<bool> = keep.iter().map(|keep| keep == Some(true)).collect();
    assert_eq!(kept, [false, true, false, true, false, false, false, false]);
    let broken: Vec<(usize, &str, &str)> = broken
        .iter()
        .map(|broken| (broken.row, broken.rule.as_str(), broken.reason.as_str()))
        .collect();
    assert_eq!(
        broken,
        [
            (0, "ratio", "«100 / k >= 20» cannot be evaluated: Divide by zero error"),
            (2, "b", "«b <> 2» is false"),
            (4, "name", "«name <> 'n4' OR NULL» is NULL"),
            (5, "b", "«b <> 2» is false"),
            (6, "ratio", "«100 / k >= 20» is false"),
            (7, "ratio", "«100 / k >= 20» is false"),
        ]
    );
    assert!(matches!(checks.judge(&rows(1, 2)).expect("judged"), Verdict::Right));
    assert!(matches!(checks.judge(&rows(1, 1)).expect("judged"), Verdict::Right));
}

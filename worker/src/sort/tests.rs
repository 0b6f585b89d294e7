//! Sorting against a plain sort in memory: all types, NULLs, NaN, both ways, ties, with and without the disk.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
        Int64Array, RecordBatch, StringArray, StringViewArray, TimestampMicrosecondArray, UInt64Array,
    },
    compute::concat_batches,
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
};
use gapless_common::order::{SortColumn, compare};
use proptest::{prelude::*, test_runner::Config};

use super::*;

const TYPES: usize = 11;

/// A small number as a value of one of the types: few values, so that there are ties; some of them are odd.
fn column(ty: usize, values: &[Option<i8>]) -> ArrayRef {
    let ints = values.iter().copied();
    let float = |value: i8| match value {
        7 => f64::NAN,
        -7 => -f64::NAN,
        6 => f64::INFINITY,
        -6 => f64::NEG_INFINITY,
        0 => -0.0,
        1 => 0.0,
        value => f64::from(value) / 4.0,
    };
    let text = |value: i8| match value {
        7 => String::new(),
        value if value % 2 == 0 => "é".repeat(value.unsigned_abs() as usize),
        value => format!("a common beginning of many bytes {value}"),
    };
    match ty {
        0 => Arc::new(Int64Array::from_iter(ints.map(|v| v.map(|v| i64::from(v) << 50)))),
        1 => Arc::new(Int8Array::from_iter(ints)),
        2 => Arc::new(UInt64Array::from_iter(ints.map(|v| v.map(|v| v as u64)))),
        3 => Arc::new(Float64Array::from_iter(ints.map(|v| v.map(float)))),
        4 => Arc::new(Float32Array::from_iter(ints.map(|v| v.map(|v| float(v) as f32)))),
        5 => Arc::new(StringArray::from_iter(ints.map(|v| v.map(text)))),
        6 => Arc::new(BooleanArray::from_iter(ints.map(|v| v.map(|v| v % 2 == 0)))),
        10 => Arc::new(StringViewArray::from_iter(ints.map(|v| v.map(text)))),
        7 => Arc::new(Date32Array::from_iter(ints.map(|v| v.map(i32::from)))),
        8 => Arc::new(TimestampMicrosecondArray::from_iter(ints.map(|v| v.map(i64::from)))),
        _ => Arc::new(
            Decimal128Array::from_iter(ints.map(|v| v.map(|v| i128::from(v) << 90)))
                .with_precision_and_scale(38, 2)
                .expect("it fits"),
        ),
    }
}

/// Columns `a`, `b`, … of some types, and the place of each row in the last column.
fn rows(types: &[usize], values: &[Vec<Option<i8>>]) -> RecordBatch {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (index, &ty) in types.iter().enumerate() {
        let column = column(ty, &values.iter().map(|row| row[index]).collect::<Vec<_>>());
        let name = char::from(b'a' + index as u8).to_string();
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    }
    fields.push(Field::new("place", DataType::Int64, false));
    columns.push(Arc::new(Int64Array::from_iter_values(0..values.len() as i64)));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns of one length")
}

fn by(columns: &[(bool, bool)]) -> Vec<SortColumn> {
    let name = |index: usize| char::from(b'a' + index as u8).to_string();
    let column = |(index, &(descending, nulls_first)): (usize, &(bool, bool))| SortColumn {
        column: name(index),
        descending,
        nulls_first,
    };
    columns.iter().enumerate().map(column).collect()
}

/// The places of rows as the specification of keys orders them.
fn expected(by: &[SortColumn], batch: &RecordBatch) -> Vec<i64> {
    let columns = &batch.columns()[..by.len()];
    let keys: Vec<_> = (0..batch.num_rows()).map(|row| Order::key_row(columns, row)).collect();
    let mut places: Vec<usize> = (0..batch.num_rows()).collect();
    places.sort_by(|&a, &b| compare(by, &keys[a], &keys[b]));
    places.into_iter().map(|place| place as i64).collect()
}

fn limits(memory: usize, folder: &std::path::Path) -> SortLimits {
    SortLimits {
        memory,
        spill: 1 << 30,
        folder: folder.to_path_buf(),
    }
}

fn places(schema: &SchemaRef, batches: &[RecordBatch]) -> Vec<i64> {
    let all = concat_batches(schema, batches).expect("one schema");
    let last = all.column(all.num_columns() - 1);
    last.as_primitive::<Int64Type>().values().to_vec()
}

proptest! {
    #![proptest_config(Config { cases: 400, failure_persistence: None, ..Config::default() })]

    #[test]
    fn rows_come_out_as_a_plain_sort_has_them(
        types in proptest::collection::vec(0..TYPES, 1..4),
        ways in proptest::collection::vec(any::<(bool, bool)>(), 3),
        values in proptest::collection::vec(proptest::collection::vec(proptest::option::weighted(0.85, -8i8..8), 3), 0..300),
        batch_rows in 1usize..80,
        memory in prop_oneof![Just(1usize), Just(3_000), Just(1 << 20)],
    ) {
        let batch = rows(&types, &values);
        let by = by(&ways[..types.len()]);
        let order = Order::new(&by, &batch.schema()).expect("all types have an order");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut sorter = Sorter::new(&order, batch.schema(), limits(memory, folder.path()));
        let mut check = OrderCheck::new(&order);
        // Twice: a sorter is empty after a drain.
        for _ in 0..2 {
            for from in (0..batch.num_rows()).step_by(batch_rows) {
                sorter.push(batch.slice(from, batch_rows.min(batch.num_rows() - from))).expect("it is taken");
            }
            prop_assert_eq!(sorter.has_spilled(), memory == 1 && batch.num_rows() > 0 || sorter.has_spilled());
            let mut sorted = Vec::new();
            sorter.drain(&mut |batch| { sorted.push(batch); Ok(()) }).expect("it is sorted");
            prop_assert_eq!(places(&batch.schema(), &sorted), expected(&by, &batch));
            check = OrderCheck::new(&order);
            sorted.iter().try_for_each(|batch| check.take(batch)).expect("it is in order");
        }
        prop_assert_eq!(check.span().is_some(), batch.num_rows() > 0);
        prop_assert_eq!(std::fs::read_dir(folder.path()).map_or(0, Iterator::count), 0);
    }

    #[test]
    fn rows_out_of_order_are_told(
        types in proptest::collection::vec(0..TYPES, 1..3),
        ways in proptest::collection::vec(any::<(bool, bool)>(), 2),
        values in proptest::collection::vec(proptest::collection::vec(proptest::option::weighted(0.8, -8i8..8), 2), 2..20),
        cut in 0usize..20,
    ) {
        let batch = rows(&types, &values);
        let by = by(&ways[..types.len()]);
        let order = Order::new(&by, &batch.schema()).expect("all types have an order");
        let keys: Vec<_> = (0..batch.num_rows()).map(|row| Order::key_row(&batch.columns()[..types.len()], row)).collect();
        let in_order = keys.windows(2).all(|pair| compare(&by, &pair[0], &pair[1]) != Ordering::Greater);
        let cut = cut.min(batch.num_rows());
        let mut check = OrderCheck::new(&order);
        let looked = check
            .take(&batch.slice(0, cut))
            .and_then(|()| check.take(&batch.slice(cut, batch.num_rows() - cut)));
        prop_assert_eq!(looked.is_ok(), in_order);
        if in_order {
            let span = check.span().expect("there are rows");
            prop_assert_eq!((&span.first, &span.last), (&keys[0], &keys[keys.len() - 1]));
        }
    }
}

#[test]
fn more_stretches_than_are_merged_at_a_time() {
    let values: Vec<Vec<Option<i8>>> = (0..1000).map(|n: i32| vec![Some((n * 7 % 16) as i8)]).collect();
    let batch = rows(&[0], &values);
    let by = by(&[(true, false)]);
    let order = Order::new(&by, &batch.schema()).expect("an order");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut sorter = Sorter::new(&order, batch.schema(), limits(1, folder.path()));
    for row in 0..1000 {
        sorter.push(batch.slice(row, 1)).expect("it is taken");
    }
    assert!(sorter.has_spilled());
    let mut sorted = Vec::new();
    sorter
        .drain(&mut |batch| {
            sorted.push(batch);
            Ok(())
        })
        .expect("it is sorted");
    assert_eq!(places(&batch.schema(), &sorted), expected(&by, &batch));
}

#[test]
fn a_sort_that_spills_too_much_ends_in_words() {
    let batch = rows(&[0], &vec![vec![Some(1)]; 100]);
    let order = Order::new(&by(&[(false, false)]), &batch.schema()).expect("an order");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let few = SortLimits {
        spill: 1_000,
        ..limits(1, folder.path())
    };
    let mut sorter = Sorter::new(&order, batch.schema(), few);
    let error = (0..100)
        .find_map(|_| sorter.push(batch.clone()).err())
        .expect("it is refused");
    assert_eq!(error.class, ErrorClass::Resource);
    assert!(
        error.message.starts_with("a sort has spilled more than the "),
        "{error}"
    );
}

#[test]
fn columns_that_cannot_be_sorted_by_are_refused() {
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int8, true)));
    let schema = Schema::new(vec![
        Field::new("amount", DataType::Int64, true),
        Field::new("tags", list, true),
    ]);
    let sort = |name: &str| {
        let by = SortColumn {
            column: name.into(),
            descending: false,
            nulls_first: false,
        };
        check_order(&[by], &schema).expect_err("it is refused")
    };
    assert_eq!(
        (sort("amuont").class, sort("tags").class),
        (ErrorClass::Config, ErrorClass::Config)
    );
    assert_eq!(
        sort("amuont").message,
        "sort: the output has no column «amuont»; did you mean «amount»? Names are case-sensitive"
    );
    assert!(sort("tags").message.contains("whose values have no order"));
}

/// Views of texts look into buffers that they share; what is spilled are the rows and no more.
#[test]
fn spilled_views_take_their_own_texts_along() {
    let values: Vec<Vec<Option<i8>>> = (0..2000).map(|n: i32| vec![Some((n % 15) as i8 | 1)]).collect();
    let batch = rows(&[10], &values);
    let order = Order::new(&by(&[(false, false)]), &batch.schema()).expect("an order");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = batch.column(0).as_string_view().total_buffer_bytes_used() as u64;
    // Beside the texts: views and places, and the frame of each batch.
    let enough = SortLimits {
        spill: 3 * text + 2000 * 32 + 2000 * 1024,
        ..limits(64 << 10, folder.path())
    };
    let mut sorter = Sorter::new(&order, batch.schema(), enough);
    for round in 0..2 {
        sorter
            .push(batch.clone())
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    assert!(sorter.has_spilled());
    sorter.drain(&mut |_| Ok(())).expect("it is sorted");
}

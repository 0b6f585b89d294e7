//! Split and validate, at their boundary: facts in, partition table out.

use std::collections::BTreeMap;

use gapless_common::{
    coverage::{Fault, keys_of_buckets, unit_faults},
    hash,
    ids::Stage,
    job::{
        Compression, Count, Delimiter, Exists, FileSink, OnError, Outside, ParquetSource, Partition as Wanted,
        Partitioning, Sink, Source, Step, WrittenRange,
    },
    key::{Key, KeyType},
    order::SortColumn,
    plan::{BucketFn, Column, Facts, KeySample, Method, PinnedFile, StepPlan, TransformFacts, TransformMode, Unit},
    range::UnitRange,
};
use gapless_core::{
    split::{Capacity, Left, MAX_PARTITIONS, Skew, recut, skew, split},
    validate::validate,
};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn step(method: Wanted, count: Count) -> Step {
    Step {
        name: "load".into(),
        after: vec![],
        source: Source::Parquet(ParquetSource {
            paths: vec!["in/*".into()],
            places: None,
        }),
        lookups: BTreeMap::new(),
        partition: Partitioning { method, count },
        placement: Default::default(),
        checks: vec![],
        sql: Some("SELECT * FROM input".into()),
        command: None,
        sort: Vec::new(),
        sink: Sink::Discard,
        on_error: OnError::default(),
        if_unchanged: Default::default(),
    }
}

fn column(name: &str, key_type: Option<KeyType>, nullable: bool) -> Column {
    Column {
        name: name.into(),
        ty: "T".into(),
        nullable,
        key_type,
    }
}

/// Facts of files of these sizes; units follow from the kind.
fn facts(unit: Unit, sizes: &[u64]) -> Facts {
    let pinned = |(at, &size): (usize, &u64)| PinnedFile {
        path: format!("in/{at}.data"),
        size,
        etag: String::new(),
        units: match unit {
            Unit::File => 1,
            Unit::RowGroup => size.div_ceil(50 * MIB),
            _ => size,
        },
        rows: None,
    };
    let files: Vec<PinnedFile> = sizes.iter().enumerate().map(pinned).collect();
    let bytes: u64 = sizes.iter().sum();
    Facts {
        unit,
        domain: UnitRange::new(0, files.iter().map(|file| file.units).sum()),
        files,
        columns: vec![
            column("id", Some(KeyType::Int), true),
            column("Name", Some(KeyType::Text), true),
            column("no", Some(KeyType::Int), false),
            column("tags", None, true),
        ],
        output: vec![],
        read_columns: None,
        inputs: Vec::new(),
        transform: TransformFacts {
            mode: TransformMode::RowWise { expands: false },
            reason: "a projection".into(),
        },
        rows: bytes / 100,
        bytes,
        sample: None,
        warnings: vec![],
        lookups: vec![],
        standing: None,
    }
}

fn whole(mut facts: Facts, keys: &[&str]) -> Facts {
    facts.transform = TransformFacts {
        mode: TransformMode::Whole {
            keys: keys.iter().map(|key| key.to_string()).collect(),
        },
        reason: "GROUP BY".into(),
    };
    facts
}

fn sampled(mut facts: Facts, column: &str, keys: Vec<Key>, nulls: u64) -> Facts {
    let key_type = facts
        .columns
        .iter()
        .find(|known| known.name == column)
        .and_then(|known| known.key_type)
        .unwrap();
    facts.rows = keys.len() as u64 + nulls;
    facts.sample = Some(KeySample {
        column: column.into(),
        key_type,
        keys,
        nulls,
        complete: true,
    });
    facts
}

fn ints(keys: impl IntoIterator<Item = i128>) -> Vec<Key> {
    keys.into_iter().map(Key::Int).collect()
}

fn quantiles(column: &str) -> Wanted {
    Wanted::KeyRange {
        column: column.into(),
        ranges: vec![],
        outside: Outside::Refuse,
    }
}

fn written(column: &str, outside: Outside, ranges: &[&str]) -> Wanted {
    // "1..5" excludes the upper end, "1..=5" includes it, "+" adds NULL, "..+" is NULL alone.
    let parse = |text: &&str| {
        let (text, null) = text.strip_suffix('+').map_or((*text, false), |text| (text, true));
        let (from, rest) = text.split_once("..").unwrap();
        let end = |text: &str| (!text.is_empty()).then(|| text.to_string());
        match rest.strip_prefix('=') {
            Some(through) => WrittenRange {
                from: end(from),
                to: None,
                through: end(through),
                null,
            },
            None => WrittenRange {
                from: end(from),
                to: end(rest),
                through: None,
                null,
            },
        }
    };
    Wanted::KeyRange {
        column: column.into(),
        ranges: ranges.iter().map(parse).collect(),
        outside,
    }
}

fn hash_of(columns: &[&str]) -> Wanted {
    Wanted::Hash {
        columns: columns.iter().map(|column| column.to_string()).collect(),
    }
}

const SLOTS: Capacity = Capacity {
    slots: 2,
    bytes_per_second: None,
};

fn planned(step: &Step, facts: &Facts) -> StepPlan {
    let plan = split(step, facts, SLOTS).unwrap_or_else(|error| panic!("{error}"));
    validate(step, facts, &plan).unwrap_or_else(|error| panic!("{error}\n{plan:#?}"));
    plan
}

fn refused(method: Wanted, count: Count, facts: &Facts) -> String {
    match split(&step(method, count), facts, SLOTS) {
        Ok(plan) => panic!("planned: {plan:#?}"),
        Err(error) => error.to_string(),
    }
}

/// One line for each row: units, keys, estimated rows.
fn table(plan: &StepPlan) -> Vec<String> {
    let key_type = match plan.exchange.as_ref().map(|exchange| &exchange.function) {
        Some(BucketFn::KeyRange { key_type, .. }) => *key_type,
        _ => KeyType::Int,
    };
    plan.execute
        .iter()
        .map(|row| match &row.keys {
            Some(keys) => format!("{} {} rows {}", row.units, keys.display(key_type), row.estimate.rows),
            None => format!("{} rows {}", row.units, row.estimate.rows),
        })
        .collect()
}

#[test]
fn method_and_count_follow_from_source_and_sql() {
    let auto = || step(Wanted::Auto, Count::Auto);
    let cases: [(&str, Facts, Step, Method, usize, usize); 14] = [
        ("small file", facts(Unit::Byte, &[MIB]), auto(), Method::Bytes, 1, 0),
        ("empty file", facts(Unit::Byte, &[0]), auto(), Method::Bytes, 1, 0),
        (
            "4 MiB each at least",
            facts(Unit::Byte, &[20 * MIB]),
            auto(),
            Method::Bytes,
            5,
            0,
        ),
        (
            "4 for each slot",
            facts(Unit::Byte, &[400 * MIB]),
            auto(),
            Method::Bytes,
            8,
            0,
        ),
        (
            "96 MiB each at most",
            facts(Unit::Byte, &[9600 * MIB]),
            auto(),
            Method::Bytes,
            100,
            0,
        ),
        (
            "compressed",
            facts(Unit::File, &[MIB, 0, 500 * MIB]),
            auto(),
            Method::Files,
            3,
            0,
        ),
        (
            "row groups",
            facts(Unit::RowGroup, &[200 * MIB]),
            auto(),
            Method::RowGroups,
            4,
            0,
        ),
        (
            "group by",
            whole(facts(Unit::Byte, &[400 * MIB]), &["id"]),
            auto(),
            Method::Hash,
            8,
            6,
        ),
        (
            "small group by",
            whole(facts(Unit::Byte, &[MIB]), &["id"]),
            auto(),
            Method::Single,
            1,
            0,
        ),
        (
            "global sum",
            whole(facts(Unit::Byte, &[400 * MIB]), &[]),
            auto(),
            Method::Single,
            1,
            0,
        ),
        (
            "group by a list",
            whole(facts(Unit::Byte, &[400 * MIB]), &["tags"]),
            auto(),
            Method::Single,
            1,
            0,
        ),
        (
            "count as the job says",
            facts(Unit::Byte, &[MIB]),
            step(Wanted::Auto, Count::Fixed(7)),
            Method::Bytes,
            7,
            0,
        ),
        (
            "compressed files in fewer partitions",
            facts(Unit::File, &[MIB, 0, 500 * MIB]),
            step(Wanted::Auto, Count::Fixed(2)),
            Method::Bytes,
            2,
            0,
        ),
        (
            "hash as the job says",
            facts(Unit::RowGroup, &[400 * MIB]),
            step(hash_of(&["id", "Name"]), Count::Fixed(64)),
            Method::Hash,
            64,
            6,
        ),
    ];
    for (name, facts, step, method, execute, scatter) in cases {
        let plan = planned(&step, &facts);
        assert_eq!(
            (plan.method, plan.execute.len(), plan.scatter.len()),
            (method, execute, scatter),
            "{name}"
        );
        assert_eq!(plan.exchange.is_some(), scatter > 0, "{name}");
        assert_eq!(
            plan.execute.iter().map(|row| row.estimate.rows).sum::<u64>(),
            facts.rows,
            "{name}"
        );
        assert!(!plan.reason.is_empty(), "{name}");
    }
}

#[test]
fn how_fast_an_earlier_run_went_decides_how_long_a_partition_takes() {
    let cut = |bytes: u64, speed: Option<u64>| {
        let capacity = Capacity {
            slots: 2,
            bytes_per_second: speed,
        };
        let (step, facts) = (step(Wanted::Auto, Count::Auto), facts(Unit::Byte, &[bytes]));
        let plan = split(&step, &facts, capacity).unwrap_or_else(|error| panic!("{error}"));
        validate(&step, &facts, &plan).unwrap_or_else(|error| panic!("{error}"));
        (plan.execute.len(), plan.reason)
    };
    let (count, reason) = cut(9600 * MIB, Some(10 * MIB));
    assert_eq!(count, 192, "{reason}");
    assert!(
        reason.contains("192 partitions: about 5 s each at 10 MiB/s a slot, as an earlier run went"),
        "{reason}"
    );
    // Fast: larger partitions than without a word of it.
    assert_eq!(cut(9600 * MIB, Some(200 * MIB)).0, 10);
    assert_eq!(cut(9600 * MIB, None).0, 100);
    // Slow: no slot has more than some seconds of a small input, and no partition is less than a unit.
    let (count, reason) = cut(20 * MIB, Some(200 << 10));
    assert_eq!(count, 22, "{reason}");
    assert!(reason.contains("at 200 KiB/s a slot"), "{reason}");
    // One that stood still tells little.
    assert_eq!(cut(20 * MIB, Some(1)).0, 128);
    assert_eq!(cut(9600 * MIB, Some(1)).0, 800);
    // Nothing was measured.
    assert_eq!(cut(20 * MIB, Some(0)), cut(20 * MIB, None));
    // The user's own count stands.
    let asked = split(
        &step(Wanted::Auto, Count::Fixed(3)),
        &facts(Unit::Byte, &[MIB]),
        Capacity {
            slots: 2,
            bytes_per_second: Some(1),
        },
    );
    assert_eq!(asked.unwrap_or_else(|error| panic!("{error}")).execute.len(), 3);
}

#[test]
fn what_cannot_be_planned_is_refused_in_words() {
    let rows = facts(Unit::Byte, &[400 * MIB]);
    let grouped = whole(rows.clone(), &["id", "Name"]);
    let global = whole(rows.clone(), &[]);
    let (auto, two) = (Count::Auto, Count::Fixed(2));
    let cases: [(Wanted, Count, &Facts, &str); 16] = [
        (Wanted::Auto, Count::Fixed(0), &rows, "`count: 0`"),
        (
            Wanted::Auto,
            Count::Fixed(MAX_PARTITIONS + 1),
            &rows,
            "100001 partitions are more than the 100000",
        ),
        (
            hash_of(&["nmae"]),
            auto,
            &rows,
            "no column 'nmae'; it has: id, Name, no, tags",
        ),
        (hash_of(&["name"]), auto, &rows, "did you mean 'Name'?"),
        (
            hash_of(&["tags"]),
            auto,
            &rows,
            "'tags' is of a type that has no key order",
        ),
        (hash_of(&[]), auto, &rows, "names no column"),
        (quantiles("id"), auto, &rows, "no keys of column 'id' were sampled"),
        (
            Wanted::RowGroups,
            auto,
            &rows,
            "`row_groups` does not fit a source of plain text files",
        ),
        (Wanted::Files, two, &rows, "each of 1 files, but `count: 2`"),
        (
            hash_of(&["no"]),
            auto,
            &grouped,
            "cut by (no) would split groups: the SQL needs rows with equal (id, Name)",
        ),
        (hash_of(&["id", "no"]), auto, &grouped, "would split groups"),
        (
            Wanted::Bytes,
            auto,
            &grouped,
            "`bytes` would tear apart rows that the SQL needs together",
        ),
        (
            Wanted::Auto,
            two,
            &global,
            "needs all rows in one partition (GROUP BY), but `count: 2`",
        ),
        (hash_of(&["id"]), auto, &global, "needs all rows in one partition"),
        (
            written("id", Outside::Refuse, &["..5", "5..+"]),
            Count::Fixed(3),
            &rows,
            "2 ranges are written, but `count: 3`",
        ),
        (
            written("id", Outside::Refuse, &["..x", "5..+"]),
            auto,
            &rows,
            "`to` of range 1 of column 'id': 'x' is not an integer",
        ),
    ];
    for (method, count, facts, expected) in cases {
        let said = refused(method, count, facts);
        assert!(
            said.contains(expected),
            "{said}
lacks: {expected}"
        );
    }
}

#[test]
fn one_partition_is_always_allowed() {
    let global = whole(facts(Unit::Byte, &[400 * MIB]), &[]);
    for method in [
        Wanted::Auto,
        Wanted::Bytes,
        Wanted::Files,
        hash_of(&["id"]),
        quantiles("id"),
    ] {
        let plan = planned(&step(method, Count::Fixed(1)), &global);
        assert_eq!((plan.method, plan.execute.len()), (Method::Single, 1));
    }
}

#[test]
fn bounds_are_quantiles_of_the_sample() {
    let source = facts(Unit::Byte, &[100]);
    let sparse: Vec<i128> = [1].into_iter().chain(8..=15).collect();
    type Case<'a> = (&'a str, Vec<i128>, u64, u32, &'a [&'a str]);
    let cases: [Case; 7] = [
        (
            "sparse",
            sparse,
            0,
            2,
            &["[0, 4) (-inf, 11) rows 4", "[4, 10) [11, +inf) and NULL rows 5"],
        ),
        (
            "NULLs go last",
            vec![1, 2],
            3,
            2,
            &["[0, 1) (-inf, 2) rows 1", "[1, 3) [2, +inf) and NULL rows 4"],
        ),
        ("one key", vec![7; 50], 0, 4, &["[0, 2) (-inf, +inf) and NULL rows 50"]),
        ("no key", vec![], 0, 4, &["[0, 2) (-inf, +inf) and NULL rows 0"]),
        (
            "a frequent key has a partition of its own",
            [vec![1; 97], vec![2, 3, 4]].concat(),
            0,
            3,
            &[
                "[0, 1) (-inf, 2) rows 97",
                "[1, 2) [2, 3) rows 1",
                "[2, 5) [3, +inf) and NULL rows 2",
            ],
        ),
        (
            "a frequent key in the middle",
            [vec![1, 2], vec![5; 96], vec![8, 9]].concat(),
            0,
            2,
            &["[0, 3) (-inf, 8) rows 98", "[3, 6) [8, +inf) and NULL rows 2"],
        ),
        (
            "fewer keys than partitions asked",
            vec![3, 3, 4],
            0,
            8,
            &["[0, 1) (-inf, 4) rows 2", "[1, 3) [4, +inf) and NULL rows 1"],
        ),
    ];
    for (name, keys, nulls, count, expected) in cases {
        let facts = sampled(source.clone(), "id", ints(keys), nulls);
        let plan = planned(&step(quantiles("id"), Count::Fixed(count)), &facts);
        assert_eq!(table(&plan), expected, "{name}");
    }
}

#[test]
fn written_ranges_are_proved_before_they_are_planned() {
    let source = sampled(facts(Unit::Byte, &[100]), "id", ints(1..=10), 1);
    let plan = |column: &str, outside, ranges: &[&str]| {
        let step = step(written(column, outside, ranges), Count::Auto);
        match split(&step, &source, SLOTS) {
            Ok(plan) => {
                validate(&step, &source, &plan).unwrap_or_else(|error| panic!("{error}"));
                table(&plan).join("; ")
            }
            Err(error) => error.to_string(),
        }
    };
    use Outside::{Partition, Refuse};
    type Case<'a> = (&'a str, Outside, &'a [&'a str], &'a [&'a str]);
    let cases: [Case; 23] = [
        (
            "id",
            Refuse,
            &["..=5", "6..+"],
            &["[0, 1) (-inf, 6) rows 5; [1, 3) [6, +inf) and NULL rows 6"],
        ),
        // NULL belongs to the range it is written in, wherever that lies.
        (
            "id",
            Refuse,
            &["..6+", "6.."],
            &["[0, 2) (-inf, 6) and NULL rows 6; [2, 3) [6, +inf) rows 5"],
        ),
        (
            "id",
            Refuse,
            &["9..", "..3", "3..9+"],
            &["[0, 1) (-inf, 3) rows 2; [1, 3) [3, 9) and NULL rows 7; [3, 4) [9, +inf) rows 2"],
        ),
        (
            "id",
            Partition,
            &["..=3+", "8..=9"],
            &[
                "[0, 2) (-inf, 4) and NULL rows 4; [2, 3) [4, 8) rows 4; [3, 4) [8, 10) rows 2; [4, 5) [10, +inf) rows 1",
            ],
        ),
        // In any order; numbers follow the keys.
        (
            "id",
            Refuse,
            &["6..+", "..6"],
            &["[0, 1) (-inf, 6) rows 5; [1, 3) [6, +inf) and NULL rows 6"],
        ),
        (
            "id",
            Refuse,
            &["..=4", "6..+"],
            &[
                "gap at 5 of column 'id', between range 1 (-inf, 5) and range 2 [6, +inf)",
                "the source holds such keys: 5",
            ],
        ),
        ("id", Refuse, &["..=6", "5..+"], &["overlap [5, 7) of column 'id'"]),
        (
            "id",
            Refuse,
            &["2..=10"],
            &["gap (-inf, 2)", "such keys: 1)", "gap [11, +inf)", "gap at NULL"],
        ),
        (
            "id",
            Refuse,
            &["10..=1", "..5", "5..+"],
            &["range 1 [10, 2) of column 'id' holds nothing"],
        ),
        ("id", Refuse, &["..6", "6.."], &["gap at NULL of column 'id'"]),
        ("id", Refuse, &["..6+", "6..+"], &["overlap at NULL"]),
        (
            "id",
            Partition,
            &["1..=5", "6..=10"],
            &[
                "[0, 1) (-inf, 1) rows 0; [1, 2) [1, 6) rows 5; [2, 3) [6, 11) rows 5; [3, 4) [11, +inf) rows 0; [4, 5) NULL rows 1",
            ],
        ),
        (
            "id",
            Partition,
            &["..5", "7..+"],
            &["[0, 1) (-inf, 5) rows 4; [1, 2) [5, 7) rows 2; [2, 4) [7, +inf) and NULL rows 5"],
        ),
        ("id", Partition, &["..6", "5.."], &["overlap at 5"]),
        // A column without NULLs needs no place for them.
        (
            "no",
            Refuse,
            &["..6", "6.."],
            &["[0, 1) (-inf, 6) rows 0; [1, 3) [6, +inf) and NULL rows 0"],
        ),
        (
            "Name",
            Refuse,
            &["..=L", "M..+"],
            &["[0, 1) (-inf, 'M') rows 0; [1, 3) ['M', +inf) and NULL rows 0"],
        ),
        ("Name", Refuse, &["..=L", "N..+"], &["gap ['M', 'N') of column 'Name'"]),
        (
            "Name",
            Refuse,
            &["..M", "M..", "..+"],
            &["[1, 2) ['M', +inf) rows 0; [2, 3) NULL rows 0"],
        ),
        ("no", Refuse, &["..M", "M..", "..+"], &["'M' is not an integer"]),
        (
            "no",
            Refuse,
            &["..5", "5..", "..+"],
            &["[1, 2) [5, +inf) rows 0; [2, 3) NULL rows 0"],
        ),
        ("id", Refuse, &["..+"], &["gap (-inf, +inf)", "such keys: 1)"]),
        (
            "id",
            Partition,
            &["..+"],
            &["[0, 1) (-inf, +inf) rows 10; [1, 2) NULL rows 1"],
        ),
        (
            "id",
            Refuse,
            &["..5", "5..+", "..+"],
            &["overlap at NULL of column 'id': in range 2 [5, +inf), range 3 NULL"],
        ),
    ];
    for (column, outside, ranges, expected) in cases {
        let said = plan(column, outside, ranges);
        for part in expected {
            assert!(said.contains(part), "{ranges:?} on {column}: {said}\nlacks: {part}");
        }
    }
}

#[test]
fn cuts_prefer_the_ends_of_files() {
    let plan = |sizes: &[u64], count| {
        table(&planned(
            &step(Wanted::Bytes, Count::Fixed(count)),
            &facts(Unit::Byte, sizes),
        ))
    };
    assert_eq!(
        plan(&[90, 110, 100], 3),
        ["[0, 90) rows 0", "[90, 200) rows 2", "[200, 300) rows 1"]
    );
    assert_eq!(plan(&[1000], 2), ["[0, 500) rows 5", "[500, 1000) rows 5"]);
    assert_eq!(plan(&[2], 4).len(), 4);
    // Row groups are cut by the size of their files.
    let groups = facts(Unit::RowGroup, &[MIB, MIB, 98 * MIB, 100 * MIB]);
    let plan = planned(&step(Wanted::RowGroups, Count::Fixed(2)), &groups);
    assert_eq!(plan.execute[0].units, UnitRange::new(0, 4));
}

#[test]
fn a_file_is_a_partition_also_when_empty() {
    let plan = planned(&step(Wanted::Files, Count::Auto), &facts(Unit::Byte, &[200, 0, 100]));
    assert_eq!(
        table(&plan),
        ["[0, 200) rows 2", "[200, 200) rows 0", "[200, 300) rows 1"]
    );
}

#[test]
fn ten_thousand_numbers_make_ten_thousand_partitions() {
    let mut source = facts(Unit::Number, &[]);
    (source.domain, source.rows) = (UnitRange::new(0, 10_000), 10_000);
    let plan = planned(&step(Wanted::Auto, Count::Fixed(10_000)), &source);
    assert_eq!(plan.method, Method::Sequence);
    assert!(
        plan.execute
            .iter()
            .all(|row| row.units.len() == 1 && row.estimate.rows == 1)
    );
}

#[test]
fn merging_is_the_sinks_wish() {
    let sink = |files| {
        Sink::Csv(FileSink {
            path: "out".into(),
            exists: Exists::Fail,
            compression: Compression::None,
            files,
            partition_by: vec![],
            split: None,
            partition_column: None,
            header: true,
            delimiter: Delimiter::COMMA,
            null: String::new(),
            encoding: Default::default(),
            crlf: false,
        })
    };
    let with = |files| Step {
        sink: sink(files),
        ..step(Wanted::Auto, Count::Auto)
    };
    let source = facts(Unit::Byte, &[MIB]);
    assert_eq!(planned(&with(Some(2)), &source).merge, Some(2));
    assert_eq!(planned(&with(None), &source).merge, None);
    assert!(
        split(&with(Some(0)), &source, SLOTS)
            .unwrap_err()
            .to_string()
            .contains("`files: 0`")
    );
}

#[test]
fn skew_tells_how_uneven_partitions_are() {
    let source = sampled(
        facts(Unit::Byte, &[100]),
        "id",
        ints([vec![1; 97], vec![2, 3, 4]].concat()),
        0,
    );
    let plan = planned(&step(quantiles("id"), Count::Fixed(3)), &source);
    assert_eq!(
        skew(&plan.execute),
        Some(Skew {
            min: 1,
            median: 2,
            max: 97,
            of_rows: true
        })
    );
    assert_eq!(skew(&[]), None);
}

#[test]
fn the_verdict_is_one_line() {
    let source = sampled(facts(Unit::Byte, &[400 * MIB, MIB]), "id", ints(0..100), 0);
    let step = step(quantiles("id"), Count::Fixed(4));
    let plan = planned(&step, &source);
    assert_eq!(
        validate(&step, &source, &plan).map(|coverage| coverage.verdict()),
        Ok(
            "complete: 4 partitions tile the keys of column 'id', (-inf, +inf) and NULL; \
            6 scatter partitions tile the bytes of 2 files [0, 420478976); no gap, no overlap"
                .to_string()
        )
    );
}

/// Keys and buckets agree, and yet no text lies below the first bound.
#[test]
fn a_bucket_that_no_key_can_reach_is_refused() {
    let source = sampled(
        facts(Unit::Byte, &[100]),
        "Name",
        vec![Key::Text("a".into()), Key::Text("b".into())],
        0,
    );
    let step = step(quantiles("Name"), Count::Fixed(2));
    let mut plan = planned(&step, &source);
    let bounds = vec![Key::Text(String::new())];
    for row in &mut plan.execute {
        row.keys = Some(keys_of_buckets(&bounds, None, row.units));
    }
    plan.exchange.as_mut().unwrap().function = BucketFn::KeyRange {
        column: "Name".into(),
        key_type: KeyType::Text,
        bounds,
        null_bucket: None,
        descending: false,
    };
    let said = validate(&step, &source, &plan).unwrap_err().to_string();
    assert!(
        said.contains("partition 0 (-inf, '') of column 'Name' holds nothing"),
        "{said}"
    );
}

/// A valid plan with one thing broken; what must be found.
#[test]
fn a_broken_plan_is_refused() {
    let keyed = sampled(facts(Unit::Byte, &[400 * MIB]), "id", ints(0..100), 0);
    let grouped = whole(facts(Unit::Byte, &[400 * MIB]), &["id"]);
    let files = facts(Unit::Byte, &[100, 100]);
    let by_key = step(quantiles("id"), Count::Fixed(4));
    let auto = step(Wanted::Auto, Count::Auto);
    let per_file = step(Wanted::Files, Count::Auto);
    type Break = fn(&mut StepPlan);
    let cases: [(&str, &Step, &Facts, Break); 11] = [
        ("gap [", &by_key, &keyed, |plan| drop(plan.execute.remove(1))),
        ("gap [", &by_key, &keyed, |plan| drop(plan.scatter.remove(1))),
        ("overlap", &by_key, &keyed, |plan| plan.scatter[0].units.high += 5),
        ("reaches beyond", &by_key, &keyed, |plan| {
            plan.scatter.last_mut().unwrap().units.high += 5
        }),
        ("no partition at all", &by_key, &keyed, |plan| plan.execute.clear()),
        ("carries the number 9", &by_key, &keyed, |plan| {
            plan.execute[1].number = 9
        }),
        ("its buckets hold", &by_key, &keyed, |plan| {
            plan.execute[1].keys.as_mut().unwrap().null = true
        }),
        ("bounds do not rise", &by_key, &keyed, |plan| {
            match &mut plan.exchange.as_mut().unwrap().function {
                BucketFn::KeyRange { bounds, .. } => bounds[1] = bounds[0].clone(),
                BucketFn::Hash { .. } => unreachable!("a key range was planned"),
            }
        }),
        ("cut is by (no)", &auto, &grouped, |plan| {
            match &mut plan.exchange.as_mut().unwrap().function {
                BucketFn::Hash { columns } => columns[0] = "no".into(),
                BucketFn::KeyRange { .. } => unreachable!("a hash was planned"),
            }
        }),
        ("cut is by ()", &auto, &grouped, |plan| plan.exchange = None),
        ("over the end of file 'in/0.data'", &per_file, &files, |plan| {
            plan.execute[0].units.high = 150;
            plan.execute[1].units.low = 150;
        }),
    ];
    for (expected, step, facts, damage) in cases {
        let mut plan = planned(step, facts);
        damage(&mut plan);
        let said = validate(step, facts, &plan).expect_err(expected).to_string();
        assert!(said.contains(expected), "{said}\nlacks: {expected}");
    }
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let unit = prop_oneof![Just(Unit::Byte), Just(Unit::File), Just(Unit::RowGroup)];
    let size = prop_oneof![Just(0u64), 1..2000u64, MIB..300 * MIB];
    let keys = prop::collection::vec(-50i128..50, 0..200);
    let mode = prop_oneof![
        Just(None),
        Just(Some(vec![])),
        Just(Some(vec!["id"])),
        Just(Some(vec!["Name", "id"]))
    ];
    (unit, prop::collection::vec(size, 1..12), keys, 0u64..5, mode).prop_map(|(unit, sizes, mut keys, nulls, mode)| {
        keys.sort();
        let rows = facts(unit, &sizes).rows;
        let sampled = Facts {
            rows,
            ..sampled(facts(unit, &sizes), "id", ints(keys), nulls)
        };
        match mode {
            Some(keys) => whole(sampled, &keys),
            None => sampled,
        }
    })
}

proptest! {
    #[test]
    fn what_split_plans_validate_accepts(
        source in any_facts(), slots in 0u32..40, count in prop_oneof![Just(None), (1u32..600).prop_map(Some)],
        method in prop_oneof![
            Just(Wanted::Auto), Just(Wanted::Bytes), Just(Wanted::Files), Just(Wanted::RowGroups),
            Just(quantiles("id")), Just(hash_of(&["id"])), Just(hash_of(&["Name", "id"])),
            Just(written("id", Outside::Partition, &["3..9", "20..=30+"])),
        ],
    ) {
        let step = step(method, count.map_or(Count::Auto, Count::Fixed));
        if let Ok(plan) = split(&step, &source, Capacity { slots, bytes_per_second: None }) {
            let verdict = validate(&step, &source, &plan);
            prop_assert!(verdict.is_ok(), "{:?}\n{:#?}", verdict, plan);
            let rows: u64 = plan.execute.iter().map(|row| row.estimate.rows).sum();
            let known = plan.execute.iter().any(|row| row.estimate.rows > 0);
            prop_assert!(!known || rows == source.rows, "estimates {} of {} rows", rows, source.rows);
            if let (Some(count), false) = (count, matches!(plan.method, Method::KeyRange)) {
                prop_assert_eq!(plan.execute.len(), count as usize);
            }
            if source.domain.len() >= plan.scatter.len() as u64 {
                prop_assert!(plan.scatter.iter().all(|row| !row.units.is_empty() || source.domain.is_empty()));
            }
        }
    }

    /// However far a run has come: the finer table covers what it covered, and nothing that is done, held or
    /// committed belongs to another partition than before.
    #[test]
    fn what_is_left_is_cut_finer_and_nothing_else_changes(
        source in any_facts(), (slots, then) in (1u32..8, 1u32..200), auto in any::<bool>(),
        method in prop_oneof![
            Just(Wanted::Auto), Just(Wanted::Bytes), Just(Wanted::Files), Just(quantiles("id")), Just(hash_of(&["id"])),
            Just(written("id", Outside::Partition, &["3..9", "20..=30+"])),
        ],
        // For each partition in turn: how far it is in hundredths, and whether it is held.
        course in prop::collection::vec((0u64..=100, any::<bool>()), 1..20),
    ) {
        let user_cut = !auto || matches!(&method, Wanted::Files)
            || matches!(&method, Wanted::KeyRange { ranges, .. } if !ranges.is_empty());
        let step = step(method, if auto { Count::Auto } else { Count::Fixed(3) });
        let now = Capacity { slots: then, bytes_per_second: None };
        if let Ok(mut plan) = split(&step, &source, Capacity { slots, bytes_per_second: None }) {
            for stage in [Stage::Scatter, Stage::Execute] {
                let table = if stage == Stage::Scatter { &mut plan.scatter } else { &mut plan.execute };
                let before = table.clone();
                let at = |number: usize| course[number % course.len()];
                let position = |number: usize| {
                    let units = before[number].units;
                    units.low + units.len() * at(number).0 / 100
                };
                let is_done = |number: usize| at(number).0 == 100;
                let open = (0..before.len()).filter(|&number| !is_done(number));
                let left: Vec<Left> = open.map(|number| Left {
                    number: number as u32,
                    units: before[number].units.after(position(number)),
                    is_held: at(number).1,
                }).collect();
                let finer = recut(&step, &source, &plan, stage, &left, now);
                let table = if stage == Stage::Scatter { &mut plan.scatter } else { &mut plan.execute };
                let ours = stage == Stage::Scatter || !user_cut;
                prop_assert!(ours || finer.is_empty(), "{finer:?}");
                for row in finer {
                    let number = row.number as usize;
                    if number >= before.len() {
                        prop_assert_eq!(number, table.len());
                        prop_assert!(!row.units.is_empty());
                        table.push(row);
                        continue;
                    }
                    prop_assert!(!is_done(number) && !at(number).1, "{row:?} is done or held");
                    prop_assert!(row.units.low == before[number].units.low && row.units.high > position(number));
                    table[number] = row;
                }
                let most = (then as usize * 4).max(left.len()) + before.len() - left.len();
                prop_assert!(table.len() <= most, "{} of at most {most}", table.len());
            }
            let verdict = validate(&step, &source, &plan);
            prop_assert!(verdict.is_ok(), "{:?}\n{:#?}", verdict, plan);
        }
    }

    /// As many partitions as asked while there are distinct keys, none without a sampled key, and
    /// none larger than its share by more than the most frequent key.
    #[test]
    fn quantile_partitions_are_even(
        mut keys in prop::collection::vec(prop_oneof![Just(7i128), -1000i128..1000], 1..400), count in 1u32..300,
    ) {
        keys.sort();
        let mut distinct = keys.clone();
        distinct.dedup();
        let most = distinct.iter().map(|key| keys.iter().filter(|other| *other == key).count()).max().unwrap();
        let source = sampled(facts(Unit::Byte, &[1000]), "id", ints(keys.clone()), 0);
        let plan = planned(&step(quantiles("id"), Count::Fixed(count)), &source);
        prop_assert_eq!(plan.execute.len(), distinct.len().min(count as usize));
        prop_assert!(plan.execute.iter().all(|row| row.estimate.rows > 0));
        if distinct.len() >= 4 * count as usize {
            let largest = plan.execute.iter().map(|row| row.estimate.rows as usize).max().unwrap();
            prop_assert!(largest <= keys.len() / count as usize + most + 1, "{} of {}", largest, keys.len());
        }
        // Restarts group the same buckets anew: a table of any grouping tiles them.
        let buckets = u64::from(plan.exchange.unwrap().buckets);
        prop_assert!(buckets <= u64::from(count.max(256)) + 1);
        let parts: Vec<_> = plan.execute.iter().map(|row| (row.number, row.units)).collect();
        prop_assert_eq!(unit_faults(UnitRange::new(0, buckets), &parts), Vec::<Fault>::new());
    }

    /// A key lies in the bucket, and so in the partition, whose stated keys hold it.
    #[test]
    fn hash_buckets_reach_every_partition(count in 1u32..2000) {
        let source = facts(Unit::Byte, &[MIB]);
        let plan = planned(&step(hash_of(&["id"]), Count::Fixed(count)), &source);
        let buckets = plan.exchange.as_ref().unwrap().buckets;
        prop_assert!(buckets.is_power_of_two() && buckets >= 256.max(count));
        for row in &plan.execute {
            prop_assert!(!row.units.is_empty());
            let share = u64::from(buckets) / u64::from(count);
            prop_assert!(row.units.len() == share || row.units.len() == share + 1);
        }
        prop_assert!(hash::bucket(hash::hash_i64(i64::from(count)), buckets) < buckets);
    }
}

/// Planning at the stated limit stays far below anything a user would notice.
#[test]
fn the_limit_can_be_planned() {
    let mut source = facts(Unit::Number, &[]);
    (source.domain, source.rows) = (UnitRange::new(0, 1_000_000), 1_000_000);
    for method in [Wanted::Auto, hash_of(&["id"])] {
        let plan = planned(&step(method, Count::Fixed(MAX_PARTITIONS)), &source);
        assert_eq!(plan.execute.len(), MAX_PARTITIONS as usize);
    }
    let edges: Vec<String> = (0..MAX_PARTITIONS)
        .map(|edge| format!("{edge}..{}", edge + 1))
        .collect();
    let mut ranges: Vec<&str> = edges[1..edges.len() - 1].iter().map(String::as_str).collect();
    ranges.extend(["..1", "99999..+"]);
    assert_eq!(
        planned(&step(written("id", Outside::Refuse, &ranges), Count::Auto), &source)
            .execute
            .len(),
        100_000
    );
}

/// Partitions and buckets of a sorted output follow one another in its order, NULL at the end where it is put.
#[test]
fn a_sorted_output_is_cut_in_its_order() {
    let cases = [
        (
            false,
            false,
            ["(-inf, 25)", "[25, 50)", "[50, 75)", "[75, +inf) and NULL"],
        ),
        (
            false,
            true,
            ["(-inf, 25) and NULL", "[25, 50)", "[50, 75)", "[75, +inf)"],
        ),
        (
            true,
            false,
            ["[75, +inf)", "[50, 75)", "[25, 50)", "(-inf, 25) and NULL"],
        ),
        (
            true,
            true,
            ["[75, +inf) and NULL", "[50, 75)", "[25, 50)", "(-inf, 25)"],
        ),
    ];
    for (descending, nulls_first, expected) in cases {
        let mut step = step(Wanted::Auto, Count::Fixed(4));
        step.sort = vec![SortColumn {
            column: "shown".into(),
            descending,
            nulls_first,
        }];
        let facts = sampled(facts(Unit::Byte, &[100 << 20]), "id", ints(0..100), 20);
        let plan = split(&step, &facts, SLOTS).unwrap();
        validate(&step, &facts, &plan).unwrap();
        assert_eq!(plan.method, Method::KeyRange);
        let keys: Vec<String> = plan
            .execute
            .iter()
            .map(|row| row.keys.as_ref().unwrap().display(KeyType::Int))
            .collect();
        assert_eq!(keys, expected);
        assert!(
            plan.execute
                .windows(2)
                .all(|pair| pair[0].units.high == pair[1].units.low)
        );
        let with_null: Vec<u64> = plan.execute.iter().map(|row| row.estimate.rows).collect();
        let null_at = if nulls_first { 0 } else { 3 };
        assert_eq!(with_null[null_at], 45, "NULL is estimated where it stands");

        let mut wrong = plan.clone();
        let last = wrong.execute.len() - 1;
        (wrong.execute[0].keys, wrong.execute[last].keys) =
            (plan.execute[last].keys.clone(), plan.execute[0].keys.clone());
        validate(&step, &facts, &wrong).unwrap_err();
    }
}

#[test]
fn what_one_partition_has_to_sort() {
    let sorted = |count| {
        let mut step = step(Wanted::Auto, count);
        step.sort = vec![SortColumn {
            column: "shown".into(),
            descending: false,
            nulls_first: false,
        }];
        step
    };
    let large = facts(Unit::Byte, &[1 << 30]);
    let grouped = sampled(whole(facts(Unit::Byte, &[1 << 30]), &["no"]), "id", ints(0..100), 0);
    let cases = [
        (
            &large,
            "one partition sorts by shown: the SQL makes 'shown', or its type has no key order, so its ranges are not known before",
        ),
        (
            &grouped,
            "one partition sorts by shown: the SQL brings other rows together (GROUP BY)",
        ),
    ];
    for (facts, why) in cases {
        let step = sorted(Count::Auto);
        let plan = split(&step, facts, SLOTS).unwrap();
        validate(&step, facts, &plan).unwrap();
        assert_eq!((plan.method, plan.execute.len()), (Method::Single, 1));
        assert!(plan.reason.starts_with(why), "{}", plan.reason);
        let refused = split(&sorted(Count::Fixed(4)), facts, SLOTS).unwrap_err().to_string();
        assert!(
            refused.starts_with("partition: `count: 4`, but one partition has to sort everything: "),
            "{refused}"
        );
    }
    let small = sampled(facts(Unit::Byte, &[1000]), "id", ints(0..100), 0);
    let plan = split(&sorted(Count::Auto), &small, SLOTS).unwrap();
    assert_eq!(
        plan.reason,
        "one partition, the input is small, sorts by shown: no exchange is needed"
    );
}

//! The coverage algebra against random plans: what is planted is found, exactly, and nothing else.

use gapless_common::{
    coverage::{
        Fault, Held, Span, check_keys, check_units, evenly, key_faults, keys_of_buckets, left, recut, unit_faults,
    },
    key::{Key, KeyType},
    range::{KeyInterval, KeyRange, UnitRange},
};
use proptest::prelude::*;

fn units(low: u64, high: u64) -> UnitRange {
    UnitRange { low, high }
}

fn keys(low: Option<i128>, high: Option<i128>, null: bool) -> KeyRange {
    let bound = |key: Option<i128>| key.map(Key::Int);
    KeyRange {
        interval: Some(KeyInterval {
            low: bound(low),
            high: bound(high),
        }),
        null,
    }
}

/// Gaps and overlaps by counting each unit on its own: slow, and plainly right.
fn counted(domain: UnitRange, parts: &[(u32, UnitRange)]) -> Vec<(u64, usize)> {
    (domain.low..domain.high)
        .map(|unit| {
            (
                unit,
                parts
                    .iter()
                    .filter(|(_, range)| range.low <= unit && unit < range.high)
                    .count(),
            )
        })
        .collect()
}

proptest! {
    #[test]
    fn each_unit_is_judged_as_by_counting(
        low in 0u64..20, len in 0u64..60,
        ends in prop::collection::vec((0u64..80, 0u64..80), 1..12),
    ) {
        let domain = units(low, low + len);
        let parts: Vec<(u32, UnitRange)> =
            ends.iter().enumerate().map(|(at, &(a, b))| (at as u32, units(a.min(b), a.max(b)))).collect();
        let faults = unit_faults(domain, &parts);
        for (unit, count) in counted(domain, &parts) {
            let found: Vec<_> = faults.iter().filter(|fault| match fault {
                Fault::Gap { span: Span::Units(range), .. } | Fault::Overlap { span: Span::Units(range), .. } =>
                    range.low <= unit && unit < range.high,
                _ => false,
            }).collect();
            match (count, &found[..]) {
                (0, [Fault::Gap { .. }]) => {}
                (1, []) => {}
                (_, [Fault::Overlap { first, second, more, .. }]) if count >= 2 => {
                    prop_assert_eq!(more + 2, count);
                    for held in [first, second] {
                        let range = parts[held.partition as usize].1;
                        prop_assert!(range.low <= unit && unit < range.high);
                    }
                    prop_assert_ne!(first.partition, second.partition);
                }
                _ => prop_assert!(false, "unit {} in {} partitions, found {:?}", unit, count, found),
            }
        }
        let strays = parts.iter().filter(|(_, r)| r.low < domain.low || r.high > domain.high).count();
        let outside: std::collections::BTreeSet<u32> = faults.iter().filter_map(|fault| match fault {
            Fault::Outside { held, .. } => Some(held.partition),
            _ => None,
        }).collect();
        prop_assert_eq!(outside.len(), strays);
    }

    #[test]
    fn a_tiling_is_accepted_in_any_order(
        low in 0u64..1000, cuts in prop::collection::vec(0u64..500, 0..30), seed in any::<u64>(),
    ) {
        let mut edges: Vec<u64> = cuts.iter().map(|cut| low + cut).chain([low, low + 500]).collect();
        edges.sort();
        let mut parts: Vec<(u32, UnitRange)> =
            edges.windows(2).enumerate().map(|(at, pair)| (at as u32, units(pair[0], pair[1]))).collect();
        let at = seed as usize % parts.len();
        parts.rotate_left(at);
        prop_assert_eq!(check_units("bytes", units(low, low + 500), &parts), Ok(()));
    }

    /// A tiling of keys with one thing planted: it is found with its interval, and it alone.
    #[test]
    fn a_planted_fault_is_the_only_one_found(
        edges in prop::collection::btree_set(-1000i128..1000, 2..20),
        null_at in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        plant in 0..6,
    ) {
        let edges: Vec<i128> = edges.into_iter().collect();
        let ends: Vec<Option<i128>> = [None].into_iter().chain(edges.iter().copied().map(Some)).chain([None]).collect();
        let mut parts: Vec<(u32, KeyRange)> = ends.windows(2).enumerate()
            .map(|(n, pair)| (n as u32, keys(pair[0], pair[1], false))).collect();
        let null_at = null_at.index(parts.len());
        parts[null_at].1.null = true;
        // An inner edge: range `at` ends where range `at + 1` begins.
        let at = at.index(edges.len());
        let edge = edges[at];
        let interval = |range: &KeyRange| range.interval.clone().unwrap();
        let held = |parts: &[(u32, KeyRange)], n: usize| Held {
            partition: n as u32, span: Span::Keys(interval(&parts[n].1)),
        };
        let key_span = |low, high| Span::Keys(interval(&keys(Some(low), Some(high), false)));
        let bound = |low: bool, parts: &mut Vec<(u32, KeyRange)>, n: usize, key: i128| {
            let ends = parts[n].1.interval.as_mut().unwrap();
            if low { ends.low = Some(Key::Int(key)) } else { ends.high = Some(Key::Int(key)) }
        };
        let expected = match plant {
            // A gap before the edge, as wide as the range allows up to 3.
            0 => {
                let least = if at == 0 { edge - 3 } else { (edge - 3).max(edges[at - 1] + 1) };
                if least >= edge { return Ok(()) }
                bound(false, &mut parts, at, least);
                vec![Fault::Gap { span: key_span(least, edge), before: Some(held(&parts, at)), after: Some(held(&parts, at + 1)), seen: None }]
            }
            // An overlap after the edge.
            1 => {
                let most = edges.get(at + 1).map_or(edge + 3, |next| (edge + 3).min(*next));
                bound(false, &mut parts, at, most);
                vec![Fault::Overlap { span: key_span(edge, most), first: held(&parts, at), second: held(&parts, at + 1), more: 0 }]
            }
            2 => {
                parts[null_at].1.null = false;
                vec![Fault::Gap { span: Span::Null, before: None, after: None, seen: None }]
            }
            3 => {
                let other = (null_at + 1) % parts.len();
                parts[other].1.null = true;
                let (first, second) = (null_at.min(other), null_at.max(other));
                vec![Fault::Overlap { span: Span::Null, first: held(&parts, first), second: held(&parts, second), more: 0 }]
            }
            // A range that runs downwards, beside a complete tiling.
            4 => {
                parts.push((99, keys(Some(edge), Some(edge - 1), false)));
                let last = parts.len() - 1;
                vec![Fault::Inverted(Held { partition: 99, ..held(&parts, last) })]
            }
            _ => vec![],
        };
        prop_assert_eq!(key_faults(KeyType::Int, &parts), expected);
    }

    #[test]
    fn what_is_left_and_what_was_done_make_the_whole(
        lens in prop::collection::vec((0u64..50, 0u64..60), 1..12), count in 1u32..20,
        walls in prop::collection::btree_set(0u64..600, 0..8),
    ) {
        let mut at = 0;
        let parts: Vec<(UnitRange, u64)> = lens.iter().map(|&(len, done)| {
            let range = units(at, at + len);
            at += len;
            (range, range.low + done.min(len))
        }).collect();
        let rest = left(parts.iter().copied());
        prop_assert!(rest.windows(2).all(|pair| pair[0].high < pair[1].low));
        let walls: Vec<u64> = walls.into_iter().collect();
        let cut = recut(&rest, count, &walls);
        prop_assert!(cut.iter().all(|range| !range.is_empty()));
        prop_assert!(cut.iter().all(|range| !walls.iter().any(|&wall| range.low < wall && wall < range.high)));
        prop_assert!(cut.len() <= count as usize + rest.len() + walls.len());
        let done = parts.iter().map(|(range, position)| units(range.low, *position));
        let all: Vec<(u32, UnitRange)> = done.chain(cut).enumerate().map(|(n, range)| (n as u32, range)).collect();
        prop_assert_eq!(unit_faults(units(0, at), &all), vec![]);
    }

    #[test]
    fn pieces_are_even(low in 0u64..100, len in 0u64..1000, pieces in 1u64..50) {
        let cut: Vec<UnitRange> = evenly(units(low, low + len), pieces).collect();
        prop_assert_eq!(cut.len() as u64, pieces);
        let lens = || cut.iter().map(|range| range.len());
        prop_assert!(lens().max().unwrap() - lens().min().unwrap() <= 1);
        prop_assert_eq!(lens().sum::<u64>(), len);
    }
}

#[test]
fn a_refusal_says_where_and_what_to_do() {
    // Ranges as a user wrote them, what is refused, and each line of the words for it.
    let cases: [(&str, Vec<KeyRange>, &[&str]); 8] = [
        (
            "complete",
            vec![keys(None, Some(6), true), keys(Some(6), None, false)],
            &[],
        ),
        (
            "1-4 and 6-10, ends open",
            vec![keys(None, Some(5), true), keys(Some(6), None, false)],
            &[
                "gap at 5 of column 'id', between range 1 (-inf, 5) and range 2 [6, +inf): in no range; \
               widen a range, leave its end open, or set `outside: partition`",
            ],
        ),
        (
            "1-6 and 5-10",
            vec![keys(None, Some(7), true), keys(Some(5), None, false)],
            &[
                "overlap [5, 7) of column 'id': in range 1 (-inf, 7), range 2 [5, +inf); \
               each key must be in one range: end one range where the other begins",
            ],
        ),
        (
            "2-10: both ends and NULL uncovered",
            vec![keys(Some(2), Some(11), false)],
            &[
                "gap (-inf, 2) of column 'id', below range 1 [2, 11): in no range; widen a range, \
                 leave its end open, or set `outside: partition`",
                "gap [11, +inf) of column 'id', above range 1 [2, 11): in no range; widen a range, \
                 leave its end open, or set `outside: partition`",
                "gap at NULL of column 'id': in no range; set `null: true` on one range or `outside: partition`",
            ],
        ),
        (
            "no range",
            vec![],
            &["no range at all: nothing of column 'id' would be read; give at least one"],
        ),
        (
            "min above max",
            vec![keys(None, None, true), keys(Some(10), Some(2), false)],
            &[
                "range 2 [10, 2) of column 'id' holds nothing: its low end is not below its high end; \
               swap the ends or leave it out",
            ],
        ),
        (
            "NULL held twice",
            vec![keys(None, Some(6), true), keys(Some(6), None, true)],
            &[
                "overlap at NULL of column 'id': in range 1 (-inf, 6), range 2 [6, +inf); \
               each key must be in one range: end one range where the other begins",
            ],
        ),
        (
            "three ranges at one key",
            vec![
                keys(None, Some(6), true),
                keys(Some(5), Some(6), false),
                keys(Some(5), None, false),
            ],
            &[
                "overlap at 5 of column 'id': in range 1 (-inf, 6), range 2 5 and 1 more; \
               each key must be in one range: end one range where the other begins",
            ],
        ),
    ];
    for (name, ranges, expected) in cases {
        let parts: Vec<(u32, KeyRange)> = (0..).zip(ranges).collect();
        let said =
            check_keys("id", KeyType::Int, true, &parts).map_or_else(|error| error.to_string(), |()| String::new());
        assert_eq!(said, expected.join("\n"), "{name}");
    }
}

#[test]
fn bounds_that_bound_nothing_are_no_gap() {
    let text = |low: Option<&str>, high: Option<&str>, null| KeyRange {
        interval: Some(KeyInterval {
            low: low.map(|t| Key::Text(t.into())),
            high: high.map(|t| Key::Text(t.into())),
        }),
        null,
    };
    let halves = [(0, text(Some(""), Some("M"), true)), (1, text(Some("M"), None, false))];
    assert_eq!(key_faults(KeyType::Text, &halves), vec![]);
    let truths = [(0, keys(Some(0), Some(1), true)), (1, keys(Some(1), Some(2), false))];
    assert_eq!(key_faults(KeyType::Bool, &truths), vec![]);
    assert_eq!(key_faults(KeyType::Int, &truths).len(), 2);
}

#[test]
fn empty_unit_ranges_are_legal_where_the_domain_reaches() {
    let domain = units(0, 10);
    assert_eq!(
        unit_faults(domain, &[(0, units(0, 0)), (1, units(0, 10)), (2, units(10, 10))]),
        vec![]
    );
    assert_eq!(unit_faults(units(0, 0), &[(0, units(0, 0))]), vec![]);
    let beyond = unit_faults(domain, &[(0, units(0, 10)), (1, units(11, 11))]);
    assert!(matches!(beyond[..], [Fault::Outside { .. }]), "{beyond:?}");
    assert_eq!(unit_faults(units(0, 0), &[]), vec![Fault::NoPartitions]);
}

#[test]
fn null_has_the_last_bucket_of_a_key_range_or_that_of_the_plan() {
    let bounds = [Key::Int(5), Key::Int(9)];
    let alone = |null| KeyRange { interval: None, null };
    let cases = [
        (None, units(0, 4), keys(None, None, true)),
        (None, units(0, 1), keys(None, Some(5), false)),
        (None, units(1, 2), keys(Some(5), Some(9), false)),
        (None, units(1, 4), keys(Some(5), None, true)),
        (None, units(3, 4), alone(true)),
        (None, units(2, 2), alone(false)),
        (Some(1), units(0, 4), keys(None, None, true)),
        (Some(1), units(0, 1), keys(None, Some(5), false)),
        (Some(1), units(0, 2), keys(None, Some(5), true)),
        (Some(1), units(1, 2), alone(true)),
        (Some(1), units(1, 3), keys(Some(5), Some(9), true)),
        (Some(1), units(2, 3), keys(Some(5), Some(9), false)),
        (Some(1), units(3, 4), keys(Some(9), None, false)),
        (Some(0), units(0, 1), alone(true)),
        (Some(0), units(1, 2), keys(None, Some(5), false)),
        (Some(3), units(2, 3), keys(Some(9), None, false)),
    ];
    for (placed, units, expected) in cases {
        assert_eq!(
            keys_of_buckets(&bounds, placed, units),
            expected,
            "{units}, NULL at {placed:?}"
        );
    }
}

#[test]
fn a_range_below_the_least_value_holds_nothing() {
    let cases = [
        (KeyType::Text, Some(Key::Text(String::new()))),
        (KeyType::Bool, Some(Key::Int(0))),
        (KeyType::Float, Some(Key::Float(f64::NEG_INFINITY))),
    ];
    for (ty, high) in cases {
        let below = KeyRange {
            interval: Some(KeyInterval { low: None, high }),
            null: false,
        };
        let all = KeyRange {
            interval: Some(KeyInterval::ALL),
            null: true,
        };
        let faults = key_faults(ty, &[(0, below), (1, all)]);
        assert!(
            matches!(faults[..], [Fault::Inverted(Held { partition: 0, .. })]),
            "{ty:?}: {faults:?}"
        );
    }
}

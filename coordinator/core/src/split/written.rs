//! Key ranges as the user wrote them: read by the column's type, proved to cover, made into buckets.

use gapless_common::{
    coverage::{Fault, Span, Universe, key_faults, refuse},
    job::{Outside, WrittenRange},
    key::{Key, KeyType},
    plan::KeySample,
    range::{KeyInterval, KeyRange, UnitRange},
};

use super::PlanError;

/// Buckets of written ranges: each range is one bucket, NULL one beside the range that holds it.
pub(super) struct Written {
    pub bounds: Vec<Key>,
    /// `None` for the last.
    pub null_bucket: Option<u32>,
    pub units: Vec<UnitRange>,
    pub note: String,
}

/// Plans written ranges, in key order. What no range covers is refused, or gets partitions of its
/// own; an overlap or a range that runs downwards is always refused.
pub(super) fn key_buckets(
    column: &str,
    key_type: KeyType,
    nullable: bool,
    ranges: &[WrittenRange],
    outside: Outside,
    sample: Option<&KeySample>,
) -> Result<Written, PlanError> {
    let read = |(at, range): (usize, &WrittenRange)| -> Result<(u32, KeyRange), PlanError> {
        Ok((
            at as u32,
            KeyRange {
                interval: interval(column, key_type, at + 1, range)?,
                null: range.null,
            },
        ))
    };
    let parts = ranges.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;

    let mut intervals: Vec<KeyInterval> = parts
        .iter()
        .filter_map(|(_, range)| range.interval.clone())
        .map(|range| range.widened(key_type))
        .collect();
    let (mut faults, mut added) = (Vec::new(), 0);
    for fault in key_faults(key_type, &parts) {
        match (fault, outside) {
            // Without NULLs there is nothing to leave out; otherwise they get a place below.
            (Fault::Gap { span: Span::Null, .. }, Outside::Partition) => {}
            (Fault::Gap { span: Span::Null, .. }, Outside::Refuse) if !nullable => {}
            (
                Fault::Gap {
                    span: Span::Keys(gap), ..
                },
                Outside::Partition,
            ) => {
                intervals.push(gap);
                added += 1;
            }
            (
                Fault::Gap {
                    span: Span::Keys(gap),
                    before,
                    after,
                    ..
                },
                Outside::Refuse,
            ) => {
                let seen = sample.and_then(|sample| sample.keys.iter().find(|key| gap.contains(key)).cloned());
                faults.push(Fault::Gap {
                    span: Span::Keys(gap),
                    before,
                    after,
                    seen,
                });
            }
            (fault, _) => faults.push(fault),
        }
    }
    let universe = Universe::Keys {
        column: column.to_string(),
        key_type,
    };
    refuse(universe, true, faults).map_err(|error| PlanError::Coverage(Box::new(error)))?;

    // They tile now, so in key order each begins where the one before ends.
    intervals.sort_by(|a, b| a.low.cmp(&b.low));
    let bounds: Vec<Key> = intervals.iter().filter_map(|interval| interval.low.clone()).collect();
    let holder = match parts.iter().find(|(_, range)| range.null) {
        Some((_, range)) => range
            .interval
            .clone()
            .map(|interval| interval.widened(key_type))
            .and_then(|interval| intervals.iter().position(|other| *other == interval)),
        // Without NULLs nothing is gained by a partition for them.
        None => (!nullable).then(|| intervals.len().saturating_sub(1)),
    };
    let last = intervals.len() as u64;
    let null_at = holder.map_or(last, |holder| holder as u64 + 1);
    let mut units: Vec<UnitRange> = Vec::with_capacity(intervals.len() + 1);
    for at in 0..last {
        let low = units.last().map_or(0, |before| before.high);
        let with_null = holder == Some(at as usize);
        units.push(UnitRange::new(low, low + 1 + u64::from(with_null)));
    }
    if holder.is_none() {
        units.push(UnitRange::new(last, last + 1));
    }
    let mut notes = Vec::new();
    if added > 0 {
        notes.push(format!("{added} more for keys outside of them"));
    }
    if holder.is_none() {
        notes.push("one for NULL".to_string());
    }
    Ok(Written {
        bounds,
        null_bucket: (null_at < last).then_some(null_at as u32),
        units,
        note: notes.join(", "),
    })
}

fn interval(
    column: &str,
    key_type: KeyType,
    number: usize,
    range: &WrittenRange,
) -> Result<Option<KeyInterval>, PlanError> {
    let bad = |end: &'static str| {
        move |source| PlanError::BadBound {
            column: column.to_string(),
            range: number,
            end,
            source,
        }
    };
    let low = range
        .from
        .as_deref()
        .map(|text| Key::parse(text, key_type))
        .transpose()
        .map_err(bad("from"))?;
    let high = match (&range.to, &range.through) {
        (Some(_), Some(_)) => return Err(PlanError::TwoEnds { range: number }),
        (Some(text), None) => Some(Key::parse(text, key_type).map_err(bad("to"))?),
        (None, Some(text)) => Key::parse_through(text, key_type).map_err(bad("through"))?,
        (None, None) => None,
    };
    // `null: true` alone is NULL and nothing else; written bounds may still reach to infinity.
    let bounded = range.from.is_some() || range.to.is_some() || range.through.is_some();
    Ok((bounded || !range.null).then_some(KeyInterval { low, high }))
}

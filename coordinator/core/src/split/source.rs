//! The source laid end to end: where to cut it, and how much lies in a stretch of it.

use gapless_common::{
    plan::{Estimate, Facts, PinnedFile},
    range::UnitRange,
};

/// The units of each pinned file within the source domain, in order.
pub fn file_spans(facts: &Facts) -> Vec<UnitRange> {
    let mut low = facts.domain.low;
    let span = |file: &PinnedFile| {
        let span = UnitRange::new(low, low + file.units);
        low = span.high;
        span
    };
    facts.files.iter().map(span).collect()
}

/// Sums up to a place where a file begins, or to the end.
#[derive(Clone, Copy)]
struct Mark {
    unit: u64,
    /// What cuts are balanced by: bytes, and never less than a unit each.
    weight: u128,
    bytes: u64,
    rows: u64,
}

/// Cumulative size along the units of a source; even within a file.
pub(super) struct SourceMap {
    domain: UnitRange,
    marks: Vec<Mark>,
}

impl SourceMap {
    pub(super) fn new(facts: &Facts) -> Self {
        let start = Mark {
            unit: facts.domain.low,
            weight: 0,
            bytes: 0,
            rows: 0,
        };
        let mut marks = vec![start];
        let spans = file_spans(facts);
        let in_files: u64 = facts.files.iter().map(|file| file.size).sum();
        let rows_known = facts.files.iter().all(|file| file.rows.is_some());
        let mut at = start;
        for (file, span) in facts.files.iter().zip(spans) {
            at.unit = span.high;
            at.weight += u128::from(file.size.max(file.units));
            at.bytes += file.size;
            at.rows = match (rows_known, file.rows) {
                (true, Some(rows)) => at.rows + rows,
                _ => scaled(facts.rows, at.bytes, in_files),
            };
            marks.push(at);
        }
        if facts.files.is_empty() {
            let weight = u128::from(facts.domain.len());
            marks.push(Mark {
                unit: facts.domain.high,
                weight,
                bytes: facts.bytes,
                rows: facts.rows,
            });
        }
        Self {
            domain: facts.domain,
            marks,
        }
    }

    /// Cuts the source into `count` ranges of like weight, at file ends where one is near. None is
    /// empty unless there are fewer units than ranges.
    pub(super) fn cut(&self, count: u32) -> Vec<UnitRange> {
        let UnitRange { low, high } = self.domain;
        let pieces = u128::from(count.max(1));
        let total = self.marks.last().map_or(0, |mark| mark.weight);
        let mut ranges = Vec::with_capacity(pieces as usize);
        let mut from = low;
        for index in 1..=pieces {
            let after = (pieces - index) as u64;
            let unit = match index == pieces {
                true => high,
                false => self.cut_near(total * index / pieces, total / pieces / 4),
            };
            // Each range before and after this cut gets a unit, as long as there are enough.
            let (least, most) = match self.domain.len() as u128 >= pieces {
                true => (from + 1, high - after),
                false => (from, high),
            };
            let unit = unit.clamp(least, most);
            ranges.push(UnitRange::new(from, unit));
            from = unit;
        }
        ranges
    }

    /// The unit below which `weight` lies, or the end of a file that is no further than `slack`.
    fn cut_near(&self, weight: u128, slack: u128) -> u64 {
        let above = self
            .marks
            .partition_point(|mark| mark.weight < weight)
            .clamp(1, self.marks.len() - 1);
        let (a, b) = (self.marks[above - 1], self.marks[above]);
        let (below_by, above_by) = (weight.saturating_sub(a.weight), b.weight.saturating_sub(weight));
        if below_by.min(above_by) <= slack {
            return if below_by <= above_by { a.unit } else { b.unit };
        }
        let width = (b.weight - a.weight).max(1);
        a.unit + ((u128::from(b.unit - a.unit) * below_by + width / 2) / width) as u64
    }

    /// Rows and bytes of a stretch. Estimates of ranges that tile the source add up to its totals.
    pub(super) fn estimate(&self, units: UnitRange) -> Estimate {
        let (low, high) = (self.below(units.low), self.below(units.high));
        Estimate {
            rows: high.rows.saturating_sub(low.rows),
            bytes: high.bytes.saturating_sub(low.bytes),
        }
    }

    fn below(&self, unit: u64) -> Estimate {
        let above = self
            .marks
            .partition_point(|mark| mark.unit < unit)
            .clamp(1, self.marks.len() - 1);
        let (a, b) = (self.marks[above - 1], self.marks[above]);
        let (part, whole) = (unit.clamp(a.unit, b.unit) - a.unit, b.unit - a.unit);
        Estimate {
            rows: a.rows + scaled(b.rows - a.rows, part, whole),
            bytes: a.bytes + scaled(b.bytes - a.bytes, part, whole),
        }
    }
}

fn scaled(total: u64, part: u64, whole: u64) -> u64 {
    match whole {
        0 => 0,
        _ => (u128::from(total) * u128::from(part) / u128::from(whole)) as u64,
    }
}

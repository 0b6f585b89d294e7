//! The order of a sorted output: by which columns, which way, and where NULL stands.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::key::Key;

/// One column of an order. Values are compared as [`crate::key`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortColumn {
    pub column: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub descending: bool,
    /// Whichever way the values run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nulls_first: bool,
}

impl SortColumn {
    /// As a person would write it: `a`, `b desc`, `c nulls first`.
    pub fn display(&self) -> String {
        let way = if self.descending { " desc" } else { "" };
        let nulls = if self.nulls_first { " nulls first" } else { "" };
        format!("{}{way}{nulls}", self.column)
    }

    /// Whether NULL stands below all values, where values are put in rising order.
    pub fn null_is_least(&self) -> bool {
        self.nulls_first != self.descending
    }
}

/// The columns of an order in one line.
pub fn display(order: &[SortColumn]) -> String {
    order.iter().map(SortColumn::display).collect::<Vec<_>>().join(", ")
}

/// Values of the columns of an order in one row; `None` is NULL. Texts are cut at [`CUT_TEXT`].
pub type KeyRow = Vec<Option<Key>>;

/// The first and the last row of what was written in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySpan {
    pub first: KeyRow,
    pub last: KeyRow,
}

/// Bytes at which the texts of a [`KeyRow`] are cut, at the end of a character: a record of a chunk stays small.
pub const CUT_TEXT: usize = 256;
/// A text of so many bytes may have been cut.
const MAY_BE_CUT: usize = CUT_TEXT - 3;

/// Compares two rows. What is equal up to where texts were cut is called equal: it may stand in either order.
pub fn compare(order: &[SortColumn], a: &[Option<Key>], b: &[Option<Key>]) -> Ordering {
    for (by, (a, b)) in order.iter().zip(a.iter().zip(b)) {
        let ordering = match (a, b) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) if by.nulls_first => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) if by.nulls_first => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) if by.descending => b.cmp(a),
            (Some(a), Some(b)) => a.cmp(b),
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
        if matches!(a, Some(Key::Text(text)) if text.len() >= MAY_BE_CUT) {
            return Ordering::Equal;
        }
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(descending: bool, nulls_first: bool) -> SortColumn {
        SortColumn {
            column: "a".into(),
            descending,
            nulls_first,
        }
    }

    fn number(value: i128) -> Option<Key> {
        Some(Key::Int(value))
    }

    #[test]
    fn null_stands_where_it_is_put_whichever_way_values_run() {
        for (descending, nulls_first) in [(false, false), (false, true), (true, false), (true, true)] {
            let order = [by(descending, nulls_first)];
            let null = compare(&order, &[None], &[number(1)]);
            assert_eq!(null, if nulls_first { Ordering::Less } else { Ordering::Greater });
            let values = compare(&order, &[number(1)], &[number(2)]);
            assert_eq!(values, if descending { Ordering::Greater } else { Ordering::Less });
            assert_eq!(by(descending, nulls_first).null_is_least(), nulls_first != descending);
        }
    }

    #[test]
    fn a_cut_text_decides_nothing_behind_it() {
        let order = [by(false, false), by(false, false)];
        let row = |length: usize, second| vec![Some(Key::Text("x".repeat(length))), number(second)];
        assert_eq!(compare(&order, &row(10, 2), &row(10, 1)), Ordering::Greater);
        assert_eq!(compare(&order, &row(CUT_TEXT, 2), &row(CUT_TEXT, 1)), Ordering::Equal);
    }
}

//! Key values and their order.
//!
//! The order is fixed here, never taken from a database's locale or an engine: NULL has a place of
//! its own outside the order, numbers by value, NaN greatest, text and bytes by byte.

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Serialize};

mod parse;

pub use parse::KeyParseError;

/// The domain in which keys of a column are compared and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyType {
    /// Integers of every width.
    Int,
    /// Fixed-point numbers, held as their unscaled integer.
    Decimal {
        scale: i8,
    },
    Float,
    Text,
    Bool,
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since 1970-01-01T00:00:00.
    Timestamp,
}

impl KeyType {
    /// The least value of the type, where there is one that bounds it.
    pub fn least(self) -> Option<Key> {
        match self {
            KeyType::Text => Some(Key::Text(String::new())),
            KeyType::Bool => Some(Key::Int(0)),
            KeyType::Float => Some(Key::Float(f64::NEG_INFINITY)),
            KeyType::Int | KeyType::Decimal { .. } | KeyType::Date | KeyType::Timestamp => None,
        }
    }

    /// The greatest value of the type, where there is one that bounds it.
    pub fn greatest(self) -> Option<Key> {
        match self {
            KeyType::Bool => Some(Key::Int(1)),
            KeyType::Float => Some(Key::Float(f64::NAN)),
            KeyType::Text | KeyType::Int | KeyType::Decimal { .. } | KeyType::Date | KeyType::Timestamp => None,
        }
    }
}

/// A value that is not NULL, in the total order of its [`KeyType`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// Int, Decimal (unscaled), Bool (0, 1), Date (days) and Timestamp (microseconds).
    Int(i128),
    /// Compared by IEEE 754 value with -0 equal to 0 and every NaN equal and greatest.
    Float(#[serde(with = "float")] f64),
    /// Compared by bytes.
    Text(String),
}

/// JSON has no NaN and no infinity: they are written as text.
mod float {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Number(f64),
        Text(String),
    }

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        match value.is_finite() {
            true => serializer.serialize_f64(*value),
            false => serializer.collect_str(value),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Stored::deserialize(deserializer)? {
            Stored::Number(value) => Ok(value),
            Stored::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Key::Int(a), Key::Int(b)) => a.cmp(b),
            (Key::Float(a), Key::Float(b)) => compare_floats(*a, *b),
            (Key::Text(a), Key::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            // Keys of one column share a type; across types the order is only a stable tie-break.
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl Key {
    fn rank(&self) -> u8 {
        match self {
            Key::Int(_) => 0,
            Key::Float(_) => 1,
            Key::Text(_) => 2,
        }
    }
}

/// Orders floats by value, with -0 equal to 0 and NaN greatest.
pub fn compare_floats(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.partial_cmp(&b).expect("neither is NaN"),
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key {}

impl Key {
    /// The least key above `self`, in domains whose values are countable. Text has none.
    pub fn successor(&self, ty: KeyType) -> Option<Key> {
        match (self, ty) {
            (
                Key::Int(value),
                KeyType::Int | KeyType::Decimal { .. } | KeyType::Bool | KeyType::Date | KeyType::Timestamp,
            ) => value.checked_add(1).map(Key::Int),
            _ => None,
        }
    }

    /// Shows the key as a person would write it in a job file.
    pub fn display(&self, ty: KeyType) -> String {
        match (self, ty) {
            (Key::Int(value), KeyType::Decimal { scale }) => show_decimal(*value, scale),
            (Key::Int(value), KeyType::Bool) => (*value != 0).to_string(),
            (Key::Int(days), KeyType::Date) => show_date(*days),
            (Key::Int(micros), KeyType::Timestamp) => {
                let day = micros.div_euclid(86_400_000_000);
                let rest = micros.rem_euclid(86_400_000_000);
                let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
                let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
                match fraction {
                    0 => format!("{}T{clock}", show_date(day)),
                    _ => format!("{}T{clock}.{fraction:06}", show_date(day)),
                }
            }
            (Key::Int(value), _) => value.to_string(),
            (Key::Float(value), _) => value.to_string(),
            (Key::Text(value), _) => format!("'{value}'"),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display(KeyType::Int))
    }
}

fn show_decimal(value: i128, scale: i8) -> String {
    if scale <= 0 {
        return format!("{value}{}", "0".repeat(scale.unsigned_abs() as usize));
    }
    let scale = scale as usize;
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{fraction}", if value < 0 { "-" } else { "" })
}

/// Civil date from days since the epoch; the algorithm is Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn show_date(days: i128) -> String {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Days since the epoch of a civil date; Howard Hinnant's `days_from_civil`.
pub fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let shifted_month = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let day_of_year = (153 * shifted_month + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_as_they_are_written() {
        let cases = [
            (Key::Int(-5), KeyType::Int, "-5"),
            (Key::Int(-5), KeyType::Decimal { scale: 2 }, "-0.05"),
            (Key::Int(123_456), KeyType::Decimal { scale: 2 }, "1234.56"),
            (Key::Int(0), KeyType::Date, "1970-01-01"),
            (Key::Int(-1), KeyType::Date, "1969-12-31"),
            (Key::Int(19_782), KeyType::Date, "2024-02-29"),
            (Key::Int(1_500_000), KeyType::Timestamp, "1970-01-01T00:00:01.500000"),
            (Key::Text("M".into()), KeyType::Text, "'M'"),
        ];
        for (key, ty, shown) in cases {
            assert_eq!(key.display(ty), shown);
        }
        assert_eq!(days_from_civil(2024, 2, 29), 19_782);
        assert_eq!(days_from_civil(1969, 12, 31), -1);
    }

    #[test]
    fn floats_have_one_zero_and_nan_is_greatest() {
        assert_eq!(Key::Float(-0.0), Key::Float(0.0));
        assert_eq!(Key::Float(f64::NAN), Key::Float(-f64::NAN));
        assert!(Key::Float(f64::NAN) > Key::Float(f64::INFINITY));
    }
}

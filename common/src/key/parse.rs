//! Keys as people write them in a job file: reading them, and where an inclusive end ends.

use crate::key::{Key, KeyType, days_from_civil};

/// A text is not a key of the column's type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {expected}{detail}")]
pub struct KeyParseError {
    pub text: String,
    /// What was expected, with an example.
    pub expected: String,
    /// What is wrong with it, where more can be said.
    pub detail: String,
}

const MICROS_PER_DAY: i128 = 86_400_000_000;

impl Key {
    /// Reads a key. Dates are `2026-11-20`; timestamps `2026-11-20T08:30:00.5` (UTC; `T` or a space,
    /// seconds and fraction may be left out, or the whole time); floats may be `inf` and `NaN`.
    pub fn parse(text: &str, ty: KeyType) -> Result<Key, KeyParseError> {
        let fail = |expected: &str, detail: &str| KeyParseError {
            text: text.to_string(),
            expected: expected.to_string(),
            detail: detail.to_string(),
        };
        let trimmed = text.trim();
        match ty {
            KeyType::Text => Ok(Key::Text(text.to_string())),
            KeyType::Int => trimmed
                .parse()
                .map(Key::Int)
                .map_err(|_| fail("an integer such as 42", "")),
            KeyType::Float => trimmed
                .parse()
                .map(Key::Float)
                .map_err(|_| fail("a number such as 1.5", "")),
            KeyType::Bool => match trimmed.to_ascii_lowercase().as_str() {
                "false" => Ok(Key::Int(0)),
                "true" => Ok(Key::Int(1)),
                _ => Err(fail("true or false", "")),
            },
            KeyType::Decimal { scale } => parse_decimal(trimmed, scale)
                .map(Key::Int)
                .map_err(|detail| fail(&format!("a decimal with {scale} places"), detail)),
            KeyType::Date => parse_date(trimmed)
                .map(Key::Int)
                .ok_or_else(|| fail("a date such as 2026-11-20", "")),
            KeyType::Timestamp => parse_timestamp(trimmed)
                .map(Key::Int)
                .ok_or_else(|| fail("a timestamp such as 2026-11-20T08:30:00", "")),
        }
    }

    /// The exclusive end that stands for "through `text`". In text, everything that begins with
    /// `text` is included; a date given for a timestamp includes that whole day. `None`: +inf.
    pub fn parse_through(text: &str, ty: KeyType) -> Result<Option<Key>, KeyParseError> {
        let key = Key::parse(text, ty)?;
        let whole_day = ty == KeyType::Timestamp && parse_date(text.trim()).is_some();
        Ok(match key {
            Key::Text(prefix) => after_prefix(&prefix).map(Key::Text),
            Key::Float(value) if value.is_nan() => None,
            Key::Float(f64::INFINITY) => Some(Key::Float(f64::NAN)),
            Key::Float(value) => Some(Key::Float(value.next_up())),
            Key::Int(micros) if whole_day => micros.checked_add(MICROS_PER_DAY).map(Key::Int),
            Key::Int(_) => key.successor(ty),
        })
    }
}

/// The least text above everything that begins with `prefix`; UTF-8 sorts by code point.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut head = prefix.to_string();
    while let Some(last) = head.pop() {
        // The range of a char skips the surrogates.
        if let Some(next) = (last..=char::MAX).nth(1) {
            head.push(next);
            return Some(head);
        }
    }
    None
}

fn parse_decimal(text: &str, scale: i8) -> Result<i128, &'static str> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err("");
    }
    let fraction = fraction.trim_end_matches('0');
    let places = usize::try_from(scale.max(0)).unwrap_or(0);
    if fraction.len() > places {
        return Err(": it has more places than the column");
    }
    let unscaled: i128 = format!("{whole}{fraction:0<places$}0")
        .parse::<i128>()
        .map(|value| value / 10)
        .map_err(|_| ": it has too many digits")?;
    let step = 10i128
        .checked_pow(u32::from(scale.min(0).unsigned_abs()))
        .ok_or(": it has too many digits")?;
    match unscaled % step {
        0 => Ok(if negative { -unscaled / step } else { unscaled / step }),
        _ => Err(": the column is coarser"),
    }
}

fn parse_date(text: &str) -> Option<i128> {
    let (negative, body) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = body.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if year.len() < 4 || year.len() > 6 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    let year = i64::from(number(year)?);
    let (month, day) = (number(month)?, number(day)?);
    let year = if negative { -year } else { year };
    if !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let next_month = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    let days = days_from_civil(next_month.0, next_month.1, 1) - days_from_civil(year, month, 1);
    (i64::from(day) <= days).then(|| i128::from(days_from_civil(year, month, day)))
}

fn parse_timestamp(text: &str) -> Option<i128> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let Some((date, clock)) = text.split_once(['T', ' ']) else {
        return parse_date(text).map(|days| days * MICROS_PER_DAY);
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.splitn(3, ':');
    let (hours, minutes) = (number(parts.next()?)?, number(parts.next()?)?);
    let seconds = parts.next().map_or(Some(0), number)?;
    if hours > 23 || minutes > 59 || seconds > 59 || fraction.len() > 6 {
        return None;
    }
    let micros = if fraction.is_empty() {
        0
    } else {
        number(&format!("{fraction:0<6}"))?
    };
    let of_day = i128::from((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + i128::from(micros);
    Some(parse_date(date)? * MICROS_PER_DAY + of_day)
}

/// Digits alone: `parse` would take a sign.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_people_write_them() {
        let decimal = KeyType::Decimal { scale: 2 };
        let cases = [
            ("-7", KeyType::Int, Some(Key::Int(-7))),
            ("7.0", KeyType::Int, None),
            ("", KeyType::Int, None),
            ("1.5", decimal, Some(Key::Int(150))),
            ("-.5", decimal, Some(Key::Int(-50))),
            ("12", decimal, Some(Key::Int(1200))),
            ("1.500", decimal, Some(Key::Int(150))),
            ("1.505", decimal, None),
            (".", decimal, None),
            ("1200", KeyType::Decimal { scale: -2 }, Some(Key::Int(12))),
            ("1250", KeyType::Decimal { scale: -2 }, None),
            ("2024-02-29", KeyType::Date, Some(Key::Int(19_782))),
            ("2023-02-29", KeyType::Date, None),
            ("2024-13-01", KeyType::Date, None),
            ("2024-2-29", KeyType::Date, None),
            ("1970-01-02", KeyType::Timestamp, Some(Key::Int(MICROS_PER_DAY))),
            ("1970-01-01T00:00:01.5", KeyType::Timestamp, Some(Key::Int(1_500_000))),
            ("1970-01-01 01:00Z", KeyType::Timestamp, Some(Key::Int(3_600_000_000))),
            ("1970-01-01T24:00", KeyType::Timestamp, None),
            ("TRUE", KeyType::Bool, Some(Key::Int(1))),
            ("yes", KeyType::Bool, None),
            ("nan", KeyType::Float, Some(Key::Float(f64::NAN))),
            (" a", KeyType::Text, Some(Key::Text(" a".into()))),
        ];
        for (text, ty, expected) in cases {
            assert_eq!(Key::parse(text, ty).ok(), expected, "{text} as {ty:?}");
        }
    }

    #[test]
    fn an_inclusive_end_is_the_next_exclusive_one() {
        let cases = [
            ("5", KeyType::Int, Some(Key::Int(6))),
            ("L", KeyType::Text, Some(Key::Text("M".into()))),
            ("\u{d7ff}", KeyType::Text, Some(Key::Text("\u{e000}".into()))),
            ("a\u{10ffff}", KeyType::Text, Some(Key::Text("b".into()))),
            ("\u{10ffff}", KeyType::Text, None),
            ("", KeyType::Text, None),
            ("1970-01-01", KeyType::Date, Some(Key::Int(1))),
            ("1970-01-01", KeyType::Timestamp, Some(Key::Int(MICROS_PER_DAY))),
            ("1970-01-01T00:00", KeyType::Timestamp, Some(Key::Int(1))),
            ("inf", KeyType::Float, Some(Key::Float(f64::NAN))),
            ("NaN", KeyType::Float, None),
            ("0.05", KeyType::Decimal { scale: 2 }, Some(Key::Int(6))),
        ];
        for (text, ty, expected) in cases {
            assert_eq!(
                Key::parse_through(text, ty).as_ref(),
                Ok(&expected),
                "through {text} as {ty:?}"
            );
        }
    }
}

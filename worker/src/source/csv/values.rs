//! Texts to values: whole numbers, decimals, floats, dates, timestamps, booleans.
//!
//! Each parser takes the field as positions in a padded block and has a fast path for the short
//! plain forms that data is made of, eight digits a step (the multiply trick of Johnny Lee, as in
//! simdjson's `parse_eight_digits_unrolled`); everything else goes to an exact slow path. A parser
//! answers `None` for what is not a value of its type: there is no trimming, no rounding of
//! decimals, no overflow.

use std::{marker::PhantomData, str::FromStr};

use super::block::Text;

/// A way from the text of a field to a value.
///
/// A trait with types that implement it, rather than functions, so that each typed loop has its
/// parser within it.
pub(in crate::source) trait Parse {
    type Value: Copy + Default;

    /// The value of the field at `start..end`, which is not empty; `None` where it is none.
    fn parse(&self, text: Text<'_>, start: usize, end: usize) -> Option<Self::Value>;
}

/// Whole numbers that fit `T`, which `i64` holds all of.
pub(in crate::source) struct Int<T>(pub PhantomData<T>);

/// Whole numbers that fit `T`, which `u64` holds all of.
pub(in crate::source) struct Uint<T>(pub PhantomData<T>);

pub(in crate::source) struct Float32;
pub(in crate::source) struct Float64;
pub(in crate::source) struct Date;
pub(in crate::source) struct Timestamp;
pub(in crate::source) struct Boolean;

impl<T: Copy + Default + TryFrom<i64>> Parse for Int<T> {
    type Value = T;

    #[inline(always)]
    fn parse(&self, text: Text<'_>, start: usize, end: usize) -> Option<T> {
        T::try_from(int(text, start, end)?).ok()
    }
}

impl<T: Copy + Default + TryFrom<u64>> Parse for Uint<T> {
    type Value = T;

    #[inline(always)]
    fn parse(&self, text: Text<'_>, start: usize, end: usize) -> Option<T> {
        T::try_from(uint(text, start, end)?).ok()
    }
}

impl Parse for Float32 {
    type Value = f32;

    #[inline(always)]
    fn parse(&self, text: Text<'_>, start: usize, end: usize) -> Option<f32> {
        float32(text, start, end)
    }
}

impl Parse for Float64 {
    type Value = f64;

    #[inline(always)]
    fn parse(&self, text: Text<'_>, start: usize, end: usize) -> Option<f64> {
        float64(text, start, end)
    }
}

impl Parse for Fixed {
    type Value = i128;

    #[inline(always)]
    fn parse(&self, text: Text<'_>, start: usize, end: usize) -> Option<i128> {
        self.decimal(text, start, end)
    }
}

impl Parse for Date {
    type Value = i32;

    #[inline(always)]
    fn parse(&self, text: Text<'_>, start: usize, end: usize) -> Option<i32> {
        date(text, start, end)
    }
}

impl Parse for Timestamp {
    type Value = i64;

    fn parse(&self, text: Text<'_>, start: usize, end: usize) -> Option<i64> {
        timestamp(text, start, end)
    }
}

impl Parse for Boolean {
    type Value = bool;

    fn parse(&self, text: Text<'_>, start: usize, end: usize) -> Option<bool> {
        boolean(text.slice(start, end))
    }
}

const ZEROS: u64 = 0x3030_3030_3030_3030;

/// Whether all eight bytes are decimal digits.
#[inline(always)]
fn all_digits(word: u64) -> bool {
    let high = word & 0xF0F0_F0F0_F0F0_F0F0;
    let carried = word.wrapping_add(0x0606_0606_0606_0606) & 0xF0F0_F0F0_F0F0_F0F0;
    high | (carried >> 4) == 0x3333_3333_3333_3333
}

/// The value of eight digits, the first one in the lowest byte.
#[inline(always)]
fn eight_digits(word: u64) -> u64 {
    let pairs = (word & 0x0F0F_0F0F_0F0F_0F0F)
        .wrapping_mul(10)
        .wrapping_add((word & 0x0F0F_0F0F_0F0F_0F0F) >> 8);
    let high = (pairs & 0x0000_00FF_0000_00FF).wrapping_mul(0x000F_4240_0000_0064);
    let low = ((pairs >> 16) & 0x0000_00FF_0000_00FF).wrapping_mul(0x0000_2710_0000_0001);
    high.wrapping_add(low) >> 32
}

/// Keeps the last `len` (1..=8) bytes of `word` and puts zeros before them.
#[inline(always)]
fn last_bytes(word: u64, len: usize) -> u64 {
    let keep = !0u64 << (64 - 8 * len);
    (word & keep) | (ZEROS & !keep)
}

/// Digits alone, at most sixteen of them.
#[inline(always)]
fn short_digits(text: Text<'_>, start: usize, end: usize) -> Option<u64> {
    let len = end.wrapping_sub(start);
    if len.wrapping_sub(1) < 8 {
        let word = last_bytes(text.word_before(end), len);
        return all_digits(word).then(|| eight_digits(word));
    }
    if len.wrapping_sub(1) < 16 {
        let low = text.word_before(end);
        let high = last_bytes(text.word_before(end - 8), len - 8);
        return (all_digits(low) && all_digits(high)).then(|| eight_digits(high) * 100_000_000 + eight_digits(low));
    }
    None
}

/// A signed number that fits `i64`.
#[inline(always)]
fn int(text: Text<'_>, start: usize, end: usize) -> Option<i64> {
    let negative = text.byte(start) == b'-';
    match short_digits(text, start + usize::from(negative), end) {
        Some(value) if negative => Some(-(value as i64)),
        Some(value) => Some(value as i64),
        None => slowly(text.slice(start, end)),
    }
}

/// As the standard library does.
#[cold]
#[inline(never)]
fn slowly<T: FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Whether what reads as infinite or no number says so (`inf`, `NaN`); digits that do are beyond the type.
#[cold]
fn is_word(text: &[u8]) -> bool {
    !text.iter().any(u8::is_ascii_digit)
}

/// A number that fits `u64`.
#[inline(always)]
fn uint(text: Text<'_>, start: usize, end: usize) -> Option<u64> {
    match short_digits(text, start, end) {
        Some(value) => Some(value),
        None => slowly(text.slice(start, end)),
    }
}

/// Digits with at most one point, at most sixteen bytes: all digits as one number, and how many of
/// them stand behind the point.
#[inline(always)]
fn short_decimal(text: Text<'_>, start: usize, end: usize) -> Option<(u64, u32)> {
    const POINTS: u64 = 0x2E2E_2E2E_2E2E_2E2E;
    let len = end.wrapping_sub(start);
    if len.wrapping_sub(1) < 8 {
        let word = last_bytes(text.word_before(end), len);
        let points = zero_bytes(word ^ POINTS);
        if points == 0 {
            return all_digits(word).then(|| (eight_digits(word), 0));
        }
        // The bytes before the point move up over it.
        let at = points.trailing_zeros() & !7;
        let before = (1u64 << at) - 1;
        let word = (word & !(before << 8 | 0xFF)) | (word & before) << 8 | 0x30;
        return (len > 1 && all_digits(word)).then(|| (eight_digits(word), 7 - at / 8));
    }
    if len.wrapping_sub(1) < 16 {
        let low = text.word_before(end);
        let high = last_bytes(text.word_before(end - 8), len - 8);
        let points = u128::from(zero_bytes(high ^ POINTS)) | u128::from(zero_bytes(low ^ POINTS)) << 64;
        let mut wide = u128::from(high) | u128::from(low) << 64;
        let mut fraction = 0;
        if points != 0 {
            let at = points.trailing_zeros() & !7;
            let before = (1u128 << at) - 1;
            wide = (wide & !(before << 8 | 0xFF)) | (wide & before) << 8 | 0x30;
            fraction = 15 - at / 8;
        }
        let (high, low) = (wide as u64, (wide >> 64) as u64);
        return (all_digits(low) && all_digits(high))
            .then(|| (eight_digits(high) * 100_000_000 + eight_digits(low), fraction));
    }
    None
}

/// Marks zero bytes; the lowest mark is exact.
#[inline(always)]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080
}

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Integers up to 2^53 and powers of ten up to 10^22 are exact in an `f64`, so one division rounds
/// once (Clinger, "How to read floating point numbers accurately", 1990).
#[inline(always)]
fn float64(text: Text<'_>, start: usize, end: usize) -> Option<f64> {
    let negative = text.byte(start) == b'-';
    match short_decimal(text, start + usize::from(negative), end) {
        Some((digits, fraction)) if digits <= 1 << 53 => {
            let value = digits as i64 as f64 / POWERS[fraction as usize];
            Some(if negative { -value } else { value })
        }
        _ => {
            let text = text.slice(start, end);
            slowly(text).filter(|value: &f64| value.is_finite() || is_word(text))
        }
    }
}

/// As [`float64`], where integers up to 2^24 and powers up to 10^10 are exact.
#[inline(always)]
fn float32(text: Text<'_>, start: usize, end: usize) -> Option<f32> {
    let negative = text.byte(start) == b'-';
    match short_decimal(text, start + usize::from(negative), end) {
        Some((digits, fraction)) if digits <= 1 << 24 && fraction <= 10 => {
            let value = digits as i64 as f32 / POWERS[fraction as usize] as f32;
            Some(if negative { -value } else { value })
        }
        _ => {
            let text = text.slice(start, end);
            slowly(text).filter(|value: &f32| value.is_finite() || is_word(text))
        }
    }
}

/// A fixed-point type: values are held times 10^scale and are below 10^precision.
#[derive(Clone, Copy, Debug)]
pub(in crate::source) struct Fixed {
    scale: i8,
    limit: i128,
}

impl Fixed {
    /// `precision` is 1..=38.
    pub fn new(precision: u8, scale: i8) -> Self {
        Self {
            scale,
            limit: 10i128.pow(u32::from(precision)),
        }
    }

    /// The exact unscaled value; a number with more digits behind the point than the type holds is
    /// none of its values, unless these are zeros.
    #[inline(always)]
    fn decimal(self, text: Text<'_>, start: usize, end: usize) -> Option<i128> {
        const SCALES: [u64; 4] = [1, 10, 100, 1000];
        let negative = text.byte(start) == b'-';
        if let Some((digits, fraction)) = short_decimal(text, start + usize::from(negative), end) {
            // Sixteen digits times 1000 stay below 2^64.
            if let Some(&factor) = SCALES.get((i32::from(self.scale) - fraction as i32) as usize) {
                let value = i128::from(digits * factor);
                let value = if negative { -value } else { value };
                return (value.abs() < self.limit).then_some(value);
            }
        }
        self.parse_slowly(text.slice(start, end))
    }

    #[cold]
    #[inline(never)]
    fn parse_slowly(self, text: &[u8]) -> Option<i128> {
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        let (mut value, mut fraction, mut seen, mut point) = (0i128, 0i32, false, false);
        for &byte in digits {
            match byte {
                b'0'..=b'9' => {
                    seen = true;
                    if point && fraction >= i32::from(self.scale) {
                        // Behind the last digit that the type holds only zeros stand.
                        if byte != b'0' {
                            return None;
                        }
                        continue;
                    }
                    value = value.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
                    fraction += i32::from(point);
                }
                b'.' if !point => point = true,
                _ => return None,
            }
        }
        if !seen {
            return None;
        }
        let missing = i32::from(self.scale) - fraction;
        let value = match missing {
            0.. => value.checked_mul(10i128.checked_pow(missing as u32)?)?,
            _ => {
                let factor = 10i128.checked_pow(missing.unsigned_abs())?;
                (value % factor == 0).then_some(value / factor)?
            }
        };
        (value < self.limit).then_some(if negative { -value } else { value })
    }
}

/// Days since 1970-01-01 of `YYYY-MM-DD`, a day of the proleptic Gregorian calendar.
#[inline(always)]
fn date(text: Text<'_>, start: usize, end: usize) -> Option<i32> {
    if end - start != 10 {
        return None;
    }
    ten_byte_date(text.word(start), text.word(start + 2))
}

/// Years in which nearly all dates lie: their months are looked up.
const TABLE_FROM: u32 = 1900;
const TABLE_YEARS: u32 = 256;

/// For each month of these years, sixteen places a year: the day before its first, times 64, plus
/// its number of days (0 where there is no such month).
static MONTHS: [i32; 16 * TABLE_YEARS as usize] = {
    let mut months = [0; 16 * TABLE_YEARS as usize];
    let mut at = 0;
    while at < months.len() {
        let (year, month) = (TABLE_FROM + at as u32 / 16, at as u32 % 16);
        let days = days_in_month(year, month);
        if days > 0 {
            months[at] = (days_before_month(year, month) << 6) + days as i32;
        }
        at += 1;
    }
    months
};

/// `first` holds `YYYY-MM-`, `last` holds `YY-MM-DD`.
#[inline(always)]
fn ten_byte_date(first: u64, last: u64) -> Option<i32> {
    const DASHES: u64 = 0xFF00_00FF_0000_0000;
    let digits = (first & 0xFFFF_FFFF) | (first >> 8) & 0xFFFF_0000_0000 | last & 0xFFFF_0000_0000_0000;
    if first & DASHES != 0x2D00_002D_0000_0000 || !all_digits(digits) {
        return None;
    }
    let digits = digits & 0x0F0F_0F0F_0F0F_0F0F;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let pair = |at: u32| (pairs >> (16 * at)) as u32 & 0xFF;
    let (year, month, day) = (pair(0) * 100 + pair(1), pair(2), pair(3));
    let in_table = year.wrapping_sub(TABLE_FROM);
    let (before, days) = if in_table < TABLE_YEARS && month < 16 {
        let entry = MONTHS[(in_table * 16 + month) as usize];
        (entry >> 6, entry as u32 & 63)
    } else {
        (days_before_month(year, month), days_in_month(year, month))
    };
    (day.wrapping_sub(1) < days).then(|| before + day as i32)
}

/// 0 for what is no month.
const fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 0,
    }
}

/// Days since 1970-01-01 of the day before a month: Howard Hinnant's `days_from_civil`, without eras;
/// 400 years are added so that nothing is negative.
const fn days_before_month(year: u32, month: u32) -> i32 {
    let year = year + 400 - (month <= 2) as u32;
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * shifted_month + 2) / 5;
    days as i32 - 719_468 - 146_097 - 1
}

/// Microseconds since 1970-01-01T00:00:00 of `YYYY-MM-DD`, then optionally `T` or a space and
/// `HH:MM`, `:SS`, a fraction of at most six digits (or zeros beyond), and `Z` or `±HH:MM`, which is
/// taken into account: the value is then UTC.
fn timestamp(text: Text<'_>, start: usize, end: usize) -> Option<i64> {
    if end - start < 10 {
        return None;
    }
    let days = i64::from(date(text, start, start + 10)?);
    let micros = days * 86_400_000_000;
    let mut rest = text.slice(start + 10, end);
    if rest.is_empty() {
        return Some(micros);
    }
    if !matches!(rest[0], b'T' | b't' | b' ') {
        return None;
    }
    rest = &rest[1..];
    let hours = two_digits(&mut rest, 23)?;
    rest = rest.strip_prefix(b":")?;
    let minutes = two_digits(&mut rest, 59)?;
    let mut seconds = 0;
    let mut fraction = 0;
    if let Some(after) = rest.strip_prefix(b":") {
        rest = after;
        seconds = two_digits(&mut rest, 59)?;
        if let Some(after) = rest.strip_prefix(b".") {
            let len = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (digits, after) = after.split_at(len);
            if digits.is_empty() || digits.iter().skip(6).any(|&byte| byte != b'0') {
                return None;
            }
            fraction = (0..6).fold(0, |sum, i| {
                sum * 10 + digits.get(i).map_or(0, |&byte| i64::from(byte - b'0'))
            });
            rest = after;
        }
    }
    let offset = zone_minutes(rest)?;
    let seconds = (hours * 60 + minutes - offset) * 60 + seconds;
    Some(micros + seconds * 1_000_000 + fraction)
}

fn two_digits(rest: &mut &[u8], max: i64) -> Option<i64> {
    let [tens @ b'0'..=b'9', units @ b'0'..=b'9', after @ ..] = *rest else {
        return None;
    };
    *rest = after;
    let value = i64::from(tens - b'0') * 10 + i64::from(units - b'0');
    (value <= max).then_some(value)
}

fn zone_minutes(mut zone: &[u8]) -> Option<i64> {
    let sign = match zone {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    zone = &zone[1..];
    let hours = two_digits(&mut zone, 18)?;
    zone = zone.strip_prefix(b":").unwrap_or(zone);
    let minutes = if zone.is_empty() { 0 } else { two_digits(&mut zone, 59)? };
    zone.is_empty().then_some(sign * (hours * 60 + minutes))
}

/// true, t, yes, y, 1 and false, f, no, n, 0, in any case.
fn boolean(text: &[u8]) -> Option<bool> {
    const WORDS: [(&str, bool); 10] = [
        ("true", true),
        ("t", true),
        ("yes", true),
        ("y", true),
        ("1", true),
        ("false", false),
        ("f", false),
        ("no", false),
        ("n", false),
        ("0", false),
    ];
    WORDS
        .iter()
        .find(|(word, _)| text.eq_ignore_ascii_case(word.as_bytes()))
        .map(|&(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::{super::block::PAD, *};

    fn day(year: i64, month: u32, day: u32) -> i32 {
        gapless_common::key::days_from_civil(year, month, day) as i32
    }

    /// Parses `text` with neighbours that must not be read as part of it.
    fn with<T>(text: &str, neighbour: u8, parse: impl Fn(Text<'_>, usize, usize) -> T) -> T {
        let mut block = vec![neighbour; PAD];
        block.extend_from_slice(text.as_bytes());
        block.extend_from_slice(&[neighbour; PAD]);
        parse(Text::new(&block), PAD, PAD + text.len())
    }

    fn check<T: PartialEq + std::fmt::Debug + Copy>(
        parse: impl Fn(Text<'_>, usize, usize) -> Option<T>,
        cases: &[(&str, Option<T>)],
    ) {
        for &(text, expected) in cases {
            for neighbour in [b',', b'7', b'.', b'-', 0xFF] {
                assert_eq!(
                    with(text, neighbour, &parse),
                    expected,
                    "{text:?} beside {}",
                    neighbour as char
                );
            }
        }
    }

    #[test]
    fn whole_numbers() {
        check(
            int,
            &[
                ("0", Some(0)),
                ("-1", Some(-1)),
                ("+5", Some(5)),
                ("12345678", Some(12_345_678)),
                ("123456789", Some(123_456_789)),
                ("-1234567890123456", Some(-1_234_567_890_123_456)),
                ("12345678901234567", Some(12_345_678_901_234_567)),
                ("9223372036854775807", Some(i64::MAX)),
                ("-9223372036854775808", Some(i64::MIN)),
                ("9223372036854775808", None),
                ("00000000000000000000000007", Some(7)),
                ("-", None),
                ("+", None),
                ("--1", None),
                ("1.0", None),
                (" 1", None),
                ("1 ", None),
                ("12a45678", None),
                ("1234567:", None),
                ("1234567/", None),
                ("é", None),
            ],
        );
        check(
            uint,
            &[
                ("18446744073709551615", Some(u64::MAX)),
                ("18446744073709551616", None),
                ("-1", None),
                ("17", Some(17)),
            ],
        );
    }

    #[test]
    fn decimals_are_exact() {
        let parse = |text: Text<'_>, start, end| Fixed::new(12, 2).decimal(text, start, end);
        check(
            parse,
            &[
                ("21168.23", Some(2_116_823)),
                ("17", Some(1700)),
                ("0.04", Some(4)),
                (".5", Some(50)),
                ("5.", Some(500)),
                ("-0.1", Some(-10)),
                ("+1.25", Some(125)),
                ("1.2300", Some(123)),
                ("1.235", None),
                ("9999999999.99", Some(999_999_999_999)),
                ("10000000000.00", None),
                ("10000000000", None),
                ("000000000000000000001.50", Some(150)),
                (".", None),
                ("-", None),
                ("-.", None),
                ("1..2", None),
                ("1.2.3", None),
                ("12345678.1.1", None),
                ("1e3", None),
                ("1,2", None),
            ],
        );
        let whole = |text: Text<'_>, start, end| Fixed::new(38, 0).decimal(text, start, end);
        check(
            whole,
            &[
                ("99999999999999999999999999999999999999", Some(10i128.pow(38) - 1)),
                ("100000000000000000000000000000000000000", None),
                ("1.0", Some(1)),
                ("1.5", None),
            ],
        );
        let thousands = |text: Text<'_>, start, end| Fixed::new(5, -3).decimal(text, start, end);
        check(thousands, &[("12000", Some(12)), ("12500", None)]);
    }

    #[test]
    fn floats_round_as_the_standard_library_does() {
        let texts = [
            "0",
            "-0",
            "0.1",
            "-0.05",
            "123456.789",
            "1e10",
            "1E-5",
            "inf",
            "NaN",
            "9007199254740993",
            "0.30000000000000004",
            "1234567890.123456",
            "170000000000000000000000000000000000000",
            "5e-324",
            ".5",
            "5.",
            "16777217",
            "0.1234567",
            "3.4028235e38",
        ];
        for text in texts {
            let (wide, narrow): (f64, f32) = (text.parse().unwrap(), text.parse().unwrap());
            let got = with(text, b'7', float64).unwrap();
            assert_eq!(got.to_bits(), wide.to_bits(), "{text}");
            // Digits beyond the largest number are no value; the standard library makes them infinite.
            let expected = (narrow.is_finite() || !wide.is_finite()).then_some(narrow.to_bits());
            assert_eq!(with(text, b'7', float32).map(f32::to_bits), expected, "{text}");
        }
        check(
            float64,
            &[
                ("", None),
                (".", None),
                ("-", None),
                ("1..", None),
                ("1,5", None),
                ("x", None),
                ("1e", None),
                ("1e999", None),
                ("-1e999", None),
            ],
        );
        check(
            float32,
            &[("3.5e38", None), ("1e39", None), ("inf", Some(f32::INFINITY))],
        );
    }

    #[test]
    fn dates_are_days_of_the_calendar() {
        check(
            date,
            &[
                ("1970-01-01", Some(0)),
                ("1996-03-13", Some(day(1996, 3, 13))),
                ("2024-02-29", Some(day(2024, 2, 29))),
                ("2023-02-29", None),
                ("1900-02-29", None),
                ("2000-02-29", Some(day(2000, 2, 29))),
                ("0000-01-01", Some(day(0, 1, 1))),
                ("9999-12-31", Some(day(9999, 12, 31))),
                ("1998-99-99", None),
                ("1998-12-32", None),
                ("1998-12-00", None),
                ("1998-00-10", None),
                ("1998-13-10", None),
                ("1998/12/10", None),
                ("98-12-10", None),
                ("1998-1-1", None),
                ("1998-12-1x", None),
                ("1998-12-101", None),
            ],
        );
        for days in (-719_528..2_932_896).step_by(97) {
            let shown = gapless_common::key::Key::Int(days.into()).display(gapless_common::key::KeyType::Date);
            assert_eq!(with(&shown, b'9', date), Some(days), "{shown}");
        }
    }

    #[test]
    fn timestamps() {
        const SECOND: i64 = 1_000_000;
        check(
            timestamp,
            &[
                ("1970-01-02", Some(86_400 * SECOND)),
                ("1970-01-01T00:00:01.5", Some(1_500_000)),
                ("1970-01-01 01:02", Some(3720 * SECOND)),
                ("1970-01-01T00:00:00.123456000Z", Some(123_456)),
                ("1970-01-01T00:00:00.1234567", None),
                ("1970-01-01T01:00:00+01:00", Some(0)),
                ("1969-12-31T23:59:59.999999", Some(-1)),
                ("1970-01-01T00:00:00-0130", Some(5400 * SECOND)),
                ("1970-01-01T24:00:00", None),
                ("1970-01-01T00:60:00", None),
                ("1970-01-01T00:00:00.", None),
                ("1970-01-01X00:00:00", None),
                ("2023-02-29T00:00:00", None),
                ("1970-01-01T", None),
                ("x", None),
            ],
        );
    }

    #[test]
    fn booleans() {
        for (text, expected) in [
            ("TRUE", Some(true)),
            ("f", Some(false)),
            ("0", Some(false)),
            ("yes", Some(true)),
            ("2", None),
        ] {
            assert_eq!(boolean(text.as_bytes()), expected, "{text}");
        }
    }
}

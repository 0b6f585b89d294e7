//! Numbers and times as people read them.

use gapless_common::key::{Key, KeyType};

/// `6,001,215`
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 file`, `2,000 files`
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// `734.2 MB`, by powers of ten as disks are sold.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if number < 1000 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A length of time: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`.
pub fn span(micros: i64) -> String {
    let micros = micros.max(0);
    let seconds = micros / 1_000_000;
    match seconds {
        0..=9 => format!("{:.1} s", micros as f64 / 1e6),
        10..=59 => format!("{seconds} s"),
        60..=3599 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A word of a command line, quoted for a shell where it needs to be.
pub fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=@%+,~".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_string(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// A point in time, UTC, to the second; `None` for 0, which means never.
pub fn time(micros: i64) -> Option<String> {
    let seconds = i128::from(micros.div_euclid(1_000_000)) * 1_000_000;
    (micros != 0).then(|| Key::Int(seconds).display(KeyType::Timestamp) + "Z")
}

/// Enough of a run's id to tell it from others: version 7 ids begin with the time.
pub fn short(run: &str) -> &str {
    run.get(..13).unwrap_or(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_easy_to_read() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (6_001_215, "6,001,215")] {
            assert_eq!(count(number), text);
        }
        assert_eq!(counted(1, "file"), "1 file");
        assert_eq!(counted(0, "file"), "0 files");
        for (number, text) in [
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (999_950, "1.0 MB"),
            (734_200_000, "734.2 MB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        for (micros, text) in [
            (-1, "0.0 s"),
            (400_000, "0.4 s"),
            (12_900_000, "12 s"),
            (185_000_000, "3 min 05 s"),
            (7_800_000_000, "2 h 10 min"),
        ] {
            assert_eq!(span(micros), text);
        }
        for (text, quoted) in [
            ("/data/in.csv", "/data/in.csv"),
            ("city=O'Slo now", "'city=O'\\''Slo now'"),
            ("", "''"),
        ] {
            assert_eq!(word(text), quoted);
        }
        assert_eq!(time(0), None);
        assert_eq!(time(1_500_000).as_deref(), Some("1970-01-01T00:00:01Z"));
    }
}

//! The exact way through delimited text, byte after byte: for records that span lines, escapes and line
//! ends that are not LF. It finds what `scan` finds, and agrees with it where both can be used.

use super::scan::{LineFault, Scan, Signs};

/// How a record ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// At the line end at this place.
    Line(usize),
    /// At the line end at this place, a quote still open.
    Open(usize),
    /// Not within these bytes.
    Beyond,
}

impl Scan {
    /// As [`Scan::run`]. `ended`: there is nothing behind `to`, so that a record which is open there is
    /// taken up to it, and flagged.
    pub fn run_exact(&mut self, block: &[u8], from: usize, to: usize, signs: Signs, ended: bool) {
        assert!(from >= 1 && from <= to && to <= block.len() && block.len() <= u32::MAX as usize);
        self.ends.clear();
        self.lines.clear();
        self.odd.clear();
        let text = &block[from..to];
        let holds = |sign: Option<u8>| sign.is_some_and(|sign| memchr::memchr(sign, text).is_some());
        self.high = !text.is_ascii();
        self.doubled = holds(signs.quote);
        self.escaped = holds(signs.escape);
        self.ends.push(from as u32 - 1);
        let mut at = from;
        while at < to {
            let before = self.ends.len();
            let end = match record(&block[..to], at, signs, |end| self.ends.push(end as u32)) {
                End::Line(end) => end,
                End::Open(end) => {
                    self.odd.push(self.lines.len() as u32);
                    end
                }
                End::Beyond if ended => {
                    self.odd.push(self.lines.len() as u32);
                    to - 1
                }
                End::Beyond => {
                    self.ends.truncate(before);
                    return;
                }
            };
            self.ends.push(end as u32);
            self.lines.push(self.ends.len() as u32);
            at = end + 1;
        }
    }
}

/// The place of the line end behind the record that begins at `start`; `None` where it is open at the end
/// of `bytes`.
pub(super) fn record_end(bytes: &[u8], start: usize, signs: Signs) -> Option<usize> {
    match record(bytes, start, signs, |_| {}) {
        End::Line(end) | End::Open(end) => Some(end),
        End::Beyond => None,
    }
}

/// Splits one record (without its line end): the place of each separator, then its end.
pub(super) fn split_record(record_: &[u8], signs: Signs, ends: &mut Vec<u32>) -> Result<(), LineFault> {
    let mut line = record_.to_vec();
    line.push(signs.newline);
    match record(&line, 0, signs, |end| ends.push(end as u32)) {
        End::Line(end) => {
            ends.push(end as u32);
            Ok(())
        }
        End::Open(_) | End::Beyond => Err(LineFault::OpenQuote),
    }
}

/// Goes through the record at `start` and tells the place of each separator's last byte.
fn record(bytes: &[u8], start: usize, signs: Signs, mut separator: impl FnMut(usize)) -> End {
    let Signs {
        delimiter,
        newline,
        multiline,
        ..
    } = signs;
    let mut at = start;
    if signs.comment.is_some() && bytes.get(at).copied() == signs.comment {
        return match memchr::memchr(newline, &bytes[at..]) {
            Some(found) => End::Line(at + found),
            None => End::Beyond,
        };
    }
    loop {
        if signs.quote.is_some() && bytes.get(at).copied() == signs.quote {
            let quote = bytes[at];
            // In records that span lines a line end is no sign within quotes.
            let line_end = if multiline { quote } else { newline };
            at += 1;
            loop {
                // A sign that does not exist is looked for as one that does.
                let escape = signs.escape.unwrap_or(quote);
                let Some(found) = memchr::memchr3(quote, escape, line_end, &bytes[at..]) else {
                    return End::Beyond;
                };
                at += found;
                if bytes[at] == quote {
                    match bytes.get(at + 1) {
                        None => return End::Beyond,
                        Some(&next) if next == quote => at += 2,
                        Some(_) => {
                            at += 1;
                            break;
                        }
                    }
                } else if Some(bytes[at]) == signs.escape {
                    match bytes.get(at + 1) {
                        None => return End::Beyond,
                        Some(&next) if next == newline && !multiline => return End::Open(at + 1),
                        Some(_) => at += 2,
                    }
                } else {
                    return End::Open(at);
                }
            }
        }
        loop {
            let escape = signs.escape.unwrap_or(newline);
            let Some(found) = memchr::memchr3(delimiter.first(), newline, escape, &bytes[at..]) else {
                return End::Beyond;
            };
            at += found;
            if Some(bytes[at]) == signs.escape {
                match bytes.get(at + 1) {
                    None => return End::Beyond,
                    Some(&next) if next == newline && !multiline => return End::Line(at + 1),
                    Some(_) => at += 2,
                }
            } else if bytes[at] == newline {
                return End::Line(at);
            } else if bytes[at..].starts_with(delimiter.as_bytes()) {
                at += delimiter.as_bytes().len();
                separator(at - 1);
                break;
            } else {
                at += 1;
            }
        }
    }
}

/// Appends what a field stands for: without its quotes and escapes. `false` where it has text behind its
/// closing quote, a quote inside that is not doubled, or an escape of nothing.
pub(super) fn unescape(field: &[u8], signs: Signs, out: &mut Vec<u8>) -> bool {
    let quoted = signs.quote.is_some() && field.first().copied() == signs.quote;
    let mut rest = field;
    if quoted {
        match field {
            [_, inner @ .., last] if Some(*last) == signs.quote => rest = inner,
            _ => return false,
        }
    }
    loop {
        let found = rest
            .iter()
            .position(|&byte| Some(byte) == signs.escape || (quoted && Some(byte) == signs.quote));
        let Some(at) = found else {
            out.extend_from_slice(rest);
            return true;
        };
        out.extend_from_slice(&rest[..at]);
        match rest.get(at + 1) {
            Some(&next) if Some(rest[at]) == signs.escape || Some(next) == signs.quote => out.push(next),
            _ => return false,
        }
        rest = &rest[at + 2..];
    }
}

#[cfg(test)]
mod tests {
    use gapless_common::job::Delimiter;

    use super::{super::block::PAD, *};

    const MULTILINE: Signs = Signs {
        multiline: true,
        ..Signs::USUAL
    };
    const ESCAPED: Signs = Signs {
        escape: Some(b'\\'),
        ..Signs::USUAL
    };

    /// Records as lists of fields; those that are flagged have a `!` before them.
    fn shown(text: &str, signs: Signs, ended: bool) -> Vec<String> {
        let mut block = vec![b','; PAD];
        block.extend_from_slice(text.as_bytes());
        let mut scan = Scan::default();
        scan.run_exact(&block, PAD, PAD + text.len(), signs, ended);
        let mut from = 1;
        let records = scan.lines.iter().enumerate().map(|(at, &to)| {
            let fields: Vec<&str> = (from..to as usize)
                .map(|i| &text[scan.ends[i - 1] as usize + 1 - PAD..scan.ends[i] as usize - PAD])
                .collect();
            from = to as usize;
            let flag = if scan.odd.contains(&(at as u32)) { "!" } else { "" };
            format!("{flag}{}", fields.join("|"))
        });
        records.collect()
    }

    #[test]
    fn records_span_lines_where_they_may() {
        let text = "a,\"b\nc\"\n1,\"x\"\"\ny\",\n\"open,\nrest\n";
        assert_eq!(shown(text, MULTILINE, false), ["a|\"b\nc\"", "1|\"x\"\"\ny\"|"]);
        assert_eq!(
            shown(text, MULTILINE, true),
            ["a|\"b\nc\"", "1|\"x\"\"\ny\"|", "!\"open,\nrest"]
        );
        // One line is one record.
        assert_eq!(shown("a,\"b\nc,d\n", Signs::USUAL, false), ["!a|\"b", "c|d"]);
        // Whether the quote is doubled is not known before the next byte.
        assert_eq!(shown("a,\"b\"", MULTILINE, false), [""; 0]);
    }

    #[test]
    fn an_escaped_sign_is_none() {
        let text = "a\\,b,\"c\\\"d\"\n\"e\\\\\",f\\\ng\n";
        assert_eq!(shown(text, ESCAPED, false), ["a\\,b|\"c\\\"d\"", "\"e\\\\\"|f\\", "g"]);
        let both = Signs {
            multiline: true,
            ..ESCAPED
        };
        assert_eq!(shown(text, both, false), ["a\\,b|\"c\\\"d\"", "\"e\\\\\"|f\\\ng"]);
        let value = |field: &[u8]| {
            let mut out = Vec::new();
            unescape(field, both, &mut out).then(|| String::from_utf8(out).unwrap())
        };
        assert_eq!(value(b"a\\,b").unwrap(), "a,b");
        assert_eq!(value(b"\"c\\\"d\"\"e\"").unwrap(), "c\"d\"e");
        assert_eq!(value(b"f\\\ng").unwrap(), "f\ng");
        for wrong in [&b"\"a\"b\""[..], b"\"a", b"\"", b"a\\"] {
            assert_eq!(value(wrong), None);
        }
    }

    #[test]
    fn a_delimiter_of_several_bytes_is_found_from_the_left() {
        let by = |text: &str| Signs {
            delimiter: Delimiter::of_text(text).unwrap(),
            escape: Some(b'\\'),
            ..Signs::USUAL
        };
        let fields = |text: &str, delimiter: &str| {
            let mut ends = Vec::new();
            split_record(text.as_bytes(), by(delimiter), &mut ends).unwrap();
            let mut start = 0;
            let mut fields = Vec::new();
            for (at, &end) in ends.iter().enumerate() {
                let further = if at + 1 < ends.len() { delimiter.len() - 1 } else { 0 };
                fields.push(text[start..end as usize - further].to_string());
                start = end as usize + 1;
            }
            fields
        };
        assert_eq!(fields("a||b|c||||\"x||y\"||", "||"), ["a", "b|c", "", "\"x||y\"", ""]);
        assert_eq!(fields("a|||b|", "||"), ["a", "|b|"]);
        assert_eq!(fields("a\\||b||c", "||"), ["a\\||b", "c"]);
        assert_eq!(fields("1§£2§é", "§"), ["1", "£2", "é"]);
        // A part of one at the end of what is there may be the beginning of one.
        assert_eq!(record_end(b"a|", 0, by("||")), None);
        assert_eq!(record_end(b"a|\n", 0, by("||")), Some(2));
    }

    #[test]
    fn comments_and_other_line_ends_are_seen() {
        let signs = Signs {
            comment: Some(b'#'),
            newline: b'\r',
            ..MULTILINE
        };
        assert_eq!(shown("#a \"x,\ry\r1,#\r", signs, false), ["#a \"x,", "y", "1|#"]);
    }
}

//! What the first record of a file without a header tells of its line ends. With a header that is told by the header,
//! which must have the names of the columns; without one, a file whose lines end otherwise than the job declares would be
//! one record, or a comment, or all passed over.

use std::ops::ControlFlow;

use gapless_common::error::TaskError;

use super::{
    exact,
    layout::{Format, check_line_ends},
    scan::Signs,
};

/// Looks at a file's beginning, of which a record may begin at `start`. Asks for more (`Continue`) while it has no line
/// end and there is more.
///
/// Errors: `Config` where the text has no line end as declared, and one of another kind outside of quotes.
pub(super) fn check(
    path: &str,
    bytes: &[u8],
    start: usize,
    is_all: bool,
    format: &Format,
) -> Result<ControlFlow<()>, TaskError> {
    let signs = format.signs();
    let mut at = start;
    // A line that `skip_lines` passes over, or a comment, which does not end.
    let mut passed = None;
    if format.dialect.skip_lines > 0 && memchr::memchr(signs.newline, bytes).is_none() {
        passed = Some(0);
    }
    while signs.comment.is_some() && bytes.get(at).copied() == signs.comment {
        match memchr::memchr(signs.newline, &bytes[at..]) {
            Some(end) => at += end + 1,
            None => {
                passed = Some(at);
                break;
            }
        }
    }
    let record = &bytes[at..];
    let has_end = match format.is_exact() {
        true => exact::record_end(bytes, at, signs).is_some(),
        false => memchr::memchr(signs.newline, record).is_some(),
    };
    if has_end && passed.is_none() {
        return Ok(ControlFlow::Break(()));
    }
    if !is_all {
        return Ok(ControlFlow::Continue(()));
    }
    let whole = |text: &[u8]| text.strip_suffix(b"\r").unwrap_or(text).len();
    if let Some(from) = passed {
        let text = &bytes[from..][..whole(&bytes[from..])];
        check_line_ends(path, "what is passed over before the first record", text, format)?;
        return Ok(ControlFlow::Break(()));
    }
    let number = 1 + memchr::memchr_iter(signs.newline, &bytes[..at]).count();
    let text = outside_quotes(&record[..whole(record)], signs);
    check_line_ends(path, &format!("the first record (line {number})"), &text, format)?;
    Ok(ControlFlow::Break(()))
}

/// What stands between quotes may be anything.
fn outside_quotes(record: &[u8], signs: Signs) -> Vec<u8> {
    let (mut inside, mut escaped) = (false, false);
    let outside = record.iter().filter(|&&byte| {
        if std::mem::take(&mut escaped) {
            return !inside;
        }
        escaped = signs.escape == Some(byte);
        inside ^= !escaped && signs.quote == Some(byte);
        !inside
    });
    outside.copied().collect()
}

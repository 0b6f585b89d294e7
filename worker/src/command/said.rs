//! What a program says on its standard error: into the worker's log, and its last words into errors.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    process::ChildStderr,
    sync::{Mutex, PoisonError},
};

use gapless_common::plural::counted;
use gapless_platform::said::PROGRAM;

/// Lines of a run that go into the log; the others are counted.
const LOGGED_LINES: u64 = 200;
/// A line is cut here.
const LINE_BYTES: u64 = 2048;
/// Lines that are kept for an error.
const LAST_LINES: usize = 12;
/// All of them together, in an error.
const LAST_BYTES: usize = 1500;

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Said {
    last: VecDeque<String>,
    lines: u64,
}

impl Said {
    /// The last lines, as one.
    pub fn last(&self) -> String {
        let lines: Vec<&str> = self.last.iter().map(String::as_str).collect();
        let text = lines.join(" | ");
        let start = text.ceil_char_boundary(text.len().saturating_sub(LAST_BYTES));
        text[start..].to_string()
    }

    fn add(&mut self, line: String) {
        self.lines += 1;
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

/// Listens until the program has closed its standard error.
pub(super) fn listen(stderr: ChildStderr, said: &Mutex<Said>) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    let mut count = 0u64;
    loop {
        line.clear();
        match (&mut stderr).take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            continue;
        }
        count += 1;
        if count <= LOGGED_LINES {
            tracing::info!(target: PROGRAM, "{text}");
        }
        said.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(text.to_string());
    }
    if count > LOGGED_LINES {
        let last = said.lock().unwrap_or_else(PoisonError::into_inner).last();
        let more = counted(count - LOGGED_LINES, "more line");
        tracing::info!(target: PROGRAM, "and {more}; the last that it said: {last}");
    }
}

//! Faults of a job file: where, what was found, what is allowed, what was probably meant.

use std::{cell::RefCell, error::Error, fmt};

use serde::{Deserialize, Serialize};

/// A place in a job file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

impl Position {
    pub const START: Position = Position { line: 1, column: 1 };
}

/// One fault of a job file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    pub file: String,
    pub at: Position,
    /// What was found.
    pub found: String,
    /// The nearest allowed word, where one is near.
    pub suggestion: Option<String>,
    /// What may stand there; empty where `found` says it all.
    pub allowed: String,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.at.line, self.at.column, self.found)?;
        match (&self.suggestion, self.allowed.is_empty()) {
            (Some(word), true) => write!(f, "; did you mean `{word}`?"),
            (Some(word), false) => write!(f, "; did you mean `{word}`? allowed: {}", self.allowed),
            (None, true) => Ok(()),
            (None, false) => write!(f, "; allowed: {}", self.allowed),
        }
    }
}

impl Error for JobError {}

/// All faults of a job file in the order of their places, at most [`JobErrors::MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobErrors {
    pub errors: Vec<JobError>,
    /// How many more there were.
    pub omitted: usize,
}

impl JobErrors {
    /// More than anybody mends in one go; bounds the work and the answer for hostile files.
    pub const MAX: usize = 100;
}

/// One line for each fault.
impl fmt::Display for JobErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            error.fmt(f)?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl Error for JobErrors {}

/// Collects faults while a file is read, so that all of them are told at once.
pub(super) struct Faults {
    file: String,
    errors: RefCell<Vec<JobError>>,
    omitted: std::cell::Cell<usize>,
}

impl Faults {
    pub fn new(file: &str) -> Self {
        Self {
            file: file.to_string(),
            errors: RefCell::default(),
            omitted: Default::default(),
        }
    }

    pub fn add(&self, at: Position, found: impl Into<String>, allowed: impl Into<String>) {
        self.push(at, found.into(), None, allowed.into());
    }

    /// A word that is none of `allowed`; suggests the nearest.
    pub fn unknown<'a>(
        &self,
        at: Position,
        found: impl Into<String>,
        word: &str,
        allowed: impl Iterator<Item = &'a str> + Clone,
    ) {
        // Looking for the nearest word takes time that nobody should get for a file full of faults.
        if self.is_full() {
            return self.push(at, String::new(), None, String::new());
        }
        let suggestion = nearest(word, allowed.clone()).map(str::to_string);
        self.push(at, found.into(), suggestion, list(allowed));
    }

    /// Something that is not allowed, with what was probably meant.
    pub fn add_near(&self, at: Position, found: impl Into<String>, near: Option<&str>, allowed: impl Into<String>) {
        self.push(at, found.into(), near.map(str::to_string), allowed.into());
    }

    fn is_full(&self) -> bool {
        self.errors.borrow().len() >= JobErrors::MAX
    }

    fn push(&self, at: Position, found: String, suggestion: Option<String>, allowed: String) {
        if self.is_full() {
            self.omitted.set(self.omitted.get() + 1);
            return;
        }
        self.errors.borrow_mut().push(JobError {
            file: self.file.clone(),
            at,
            found,
            suggestion,
            allowed,
        });
    }

    /// Those of another text.
    pub fn take(&self, others: Faults) {
        for other in others.errors.into_inner() {
            match self.is_full() {
                true => self.omitted.set(self.omitted.get() + 1),
                false => self.errors.borrow_mut().push(other),
            }
        }
        self.omitted.set(self.omitted.get() + others.omitted.get());
    }

    pub fn is_empty(&self) -> bool {
        self.errors.borrow().is_empty()
    }

    pub fn into_errors(self) -> JobErrors {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| error.at);
        JobErrors {
            errors,
            omitted: self.omitted.get(),
        }
    }

    /// `Ok` where nothing was found wrong.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, JobErrors> {
        match value {
            Some(value) if self.is_empty() => Ok(value),
            _ => Err(self.into_errors()),
        }
    }
}

/// Words named in an error; more would hide the message.
const MAX_LISTED: usize = 30;

fn list<'a>(words: impl Iterator<Item = &'a str> + Clone) -> String {
    let total = words.clone().count();
    let mut text = words.take(MAX_LISTED).collect::<Vec<_>>().join(", ");
    if total > MAX_LISTED {
        text.push_str(&format!(", and {} more", total - MAX_LISTED));
    }
    text
}

/// The word that was probably meant: at most a third of its letters differ, by the restricted
/// Damerau-Levenshtein distance (optimal string alignment), case aside.
pub fn nearest<'a>(word: &str, allowed: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer words are no slip of a key, and the distance costs the product of both lengths.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let lower = word.to_lowercase();
    allowed
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| (strsim::osa_distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Text as it is quoted in an error: short, and without control characters.
pub(super) fn shown(text: &str) -> String {
    /// Enough to recognise a value.
    const LONGEST: usize = 60;
    let mut short: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}

//! Why a verb did not succeed, and the exit code that scripts see.

use std::{fmt, io::Write};

/// The exit codes, as `gapless --help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The job failed, was stopped or cancelled; or this program could not do its work.
    Failed,
    Usage,
    /// The job file or its parameters are wrong.
    Invalid,
    NotFound,
    Denied,
    /// No coordinator answers.
    Unreachable,
    /// Already running, or complete.
    Conflict,
    /// `--timeout` has passed.
    TimedOut,
    /// Ctrl-C.
    Interrupted,
    /// Whoever read the output has gone: nothing to say, and nobody to say it to.
    ReaderGone,
}

impl Kind {
    pub fn code(self) -> u8 {
        match self {
            Kind::ReaderGone => 0,
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Invalid => 3,
            Kind::NotFound => 4,
            Kind::Denied => 5,
            Kind::Unreachable => 6,
            Kind::Conflict => 7,
            Kind::TimedOut => 124,
            Kind::Interrupted => 130,
        }
    }
}

/// A failure in words: what happened, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: Kind,
    pub message: String,
}

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub fn code(&self) -> u8 {
        self.kind.code()
    }

    /// Says it on stderr; a stderr that is gone is no reason to fail differently.
    pub fn tell(&self) {
        if self.kind != Kind::ReaderGone {
            talk(format_args!("gapless: {}", self.message));
        }
    }
}

/// Writes a line to stderr. Unlike `eprintln!` it does not panic when stderr is closed.
pub fn talk(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

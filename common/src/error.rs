//! Why a task did not succeed, typed from end to end: the class decides what happens next.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of trouble it was, and so what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// May succeed when tried again: a store that was away. Uses the retry budget.
    Transient,
    /// A program of the user's took longer than the job lets it. Most of those hang for good and each try takes as long, so
    /// the retry budget is small where the job does not say it.
    TimedOut,
    /// The data breaks a rule: trying again changes nothing until the data or the job is mended.
    Data,
    /// The job cannot work as written: a column, file or permission is missing.
    Config,
    /// Disk, memory or another bounded resource ran out. Uses the retry budget, elsewhere if possible.
    Resource,
    /// The worker's session ended while it held the attempt. Uses no budget; counted apart.
    WorkerLost,
    /// Another attempt has taken over. Uses no budget.
    Fenced,
    /// The run was cancelled or stopped. Uses no budget.
    Cancelled,
}

impl ErrorClass {
    pub const ALL: [ErrorClass; 8] = [
        ErrorClass::Transient,
        ErrorClass::TimedOut,
        ErrorClass::Data,
        ErrorClass::Config,
        ErrorClass::Resource,
        ErrorClass::WorkerLost,
        ErrorClass::Fenced,
        ErrorClass::Cancelled,
    ];

    pub fn name(self) -> &'static str {
        match self {
            ErrorClass::Transient => "transient",
            ErrorClass::TimedOut => "timed_out",
            ErrorClass::Data => "data",
            ErrorClass::Config => "config",
            ErrorClass::Resource => "resource",
            ErrorClass::WorkerLost => "worker_lost",
            ErrorClass::Fenced => "fenced",
            ErrorClass::Cancelled => "cancelled",
        }
    }

    pub fn from_name(name: &str) -> Option<ErrorClass> {
        ErrorClass::ALL.into_iter().find(|class| class.name() == name)
    }

    /// Whether the same task may succeed when it is tried again unchanged.
    pub fn is_retryable(self) -> bool {
        match self {
            ErrorClass::Transient
            | ErrorClass::TimedOut
            | ErrorClass::Resource
            | ErrorClass::WorkerLost
            | ErrorClass::Fenced => true,
            ErrorClass::Data | ErrorClass::Config | ErrorClass::Cancelled => false,
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failed task, as its worker reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct TaskError {
    pub class: ErrorClass,
    /// What happened, where (file and line, key, path), and what to do. At most
    /// [`TaskError::MAX_MESSAGE`] bytes.
    pub message: String,
}

impl TaskError {
    /// A message travels in rows and events: long ones are cut.
    pub const MAX_MESSAGE: usize = 2048;

    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if message.len() > Self::MAX_MESSAGE {
            let end = (0..=Self::MAX_MESSAGE - 3)
                .rev()
                .find(|&at| message.is_char_boundary(at))
                .unwrap_or(0);
            message.truncate(end);
            message.push('…');
        }
        Self { class, message }
    }
}

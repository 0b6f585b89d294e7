//! The store: rows that survive, written in batches that a former leader cannot write.

mod embedded;

use gapless_common::ids::Term;

pub use embedded::EmbeddedStore;

/// One write of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Put(String, Vec<u8>),
    /// Fails the whole batch when the key exists.
    Create(String, Vec<u8>),
    Delete(String),
}

/// Writes that become durable together or not at all. It is accepted only in its turn: under the
/// present term, with the sequence number that follows the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub term: Term,
    pub seq: u64,
    pub writes: Vec<Write>,
}

/// Why a batch was not written, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("another coordinator leads: the store is at term {current}, this batch is of term {offered}")]
    LostTerm { offered: Term, current: Term },
    #[error("batch {offered} does not follow batch {stored}")]
    OutOfSequence { offered: u64, stored: u64 },
    #[error("the key {key} exists")]
    Exists { key: String },
    /// It may have been written: ask again with the same batch.
    #[error("the outcome of a write is unknown: {reason}")]
    Unknown { reason: String },
    #[error("the store at {place} cannot be opened: {reason}")]
    Open { place: String, reason: String },
    #[error("the store cannot be read: {reason}")]
    Read { reason: String },
}

/// What the control loop needs of a store. One caller, one batch at a time.
pub trait Store: Send {
    /// Begins a new term, above every earlier one; batches of earlier terms are refused from then on.
    fn begin_term(&mut self) -> Result<Term, StoreError>;

    /// All rows, with their keys.
    fn rows(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Writes a batch durably. The first batch of a term has number 1. A batch that is already
    /// written (same term, same number as the last) answers [`StoreError::OutOfSequence`] with
    /// `stored == offered`.
    fn write(&mut self, batch: &Batch) -> Result<(), StoreError>;
}

//! The store: rows that survive, written in batches that a former leader cannot write.

mod embedded;
mod etcd;

use gapless_common::ids::Term;
use gapless_core::schema::SchemaError;
use gapless_platform::retry::Policy;

pub use embedded::EmbeddedStore;
pub use etcd::{Etcd, EtcdAccess, EtcdConfig, EtcdStore, Standing, StoreFull};

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
    /// It was not written, and is when the same batch is sent again after somebody has made room.
    #[error("{reason}")]
    Full { reason: String },
    /// Nobody has to be told: this coordinator is not the one that leads.
    #[error("the coordinator at {leader} leads")]
    Led { leader: String },
    /// A fault of the caller: what belongs together is decided in fewer rows.
    #[error("a batch of {count} {what}, and the store takes {most} at a time")]
    TooLarge {
        count: usize,
        what: &'static str,
        most: usize,
    },
    /// It was not written and will not be, however often it is sent.
    #[error("the store refuses a batch: {reason}")]
    Refused { reason: String },
    #[error("the store at {place} cannot be opened: {reason}")]
    Open { place: String, reason: String },
    #[error("the store cannot be read: {reason}")]
    Read { reason: String },
    /// Its rows are not for this release, which has changed nothing there.
    #[error("the store in {place} is not for this release and was left as it is: {source}")]
    Schema { place: String, source: SchemaError },
}

/// What the control loop needs of a store. One caller, one batch at a time.
pub trait Store: Send + Sync {
    /// Begins a new term, above every earlier one; batches of earlier terms are refused from then on.
    ///
    /// Errors: [`StoreError::Led`] where the store is shared and another coordinator leads.
    fn begin_term(&mut self) -> Result<Term, StoreError>;

    /// Gives the term up, so that another coordinator need not wait for it to run out. Batches of it
    /// are refused from then on, where others may lead.
    fn end_term(&mut self);

    /// How far the store has come, by its own count of its writes: each batch that is written, and each
    /// term that is begun, is above all before. What it was after the last write of this term at least.
    fn reached(&self) -> u64;

    /// Whether the present term is still the one of this store, asked of the store itself.
    ///
    /// Errors: [`StoreError::LostTerm`], [`StoreError::Unknown`].
    fn confirm(&self, term: Term) -> Result<(), StoreError>;

    /// Where it is, for people.
    fn place(&self) -> String;

    /// One row, whoever leads.
    fn row(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// All rows, with their keys, as they were at one moment.
    fn rows(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// How many writes a batch may hold; more are refused with [`StoreError::TooLarge`].
    fn rows_per_batch(&self) -> usize;

    /// How many of them may create a row, whatever their keys; more are refused likewise unless it
    /// [takes](Store::takes) them.
    fn creates_per_batch(&self) -> usize;

    /// How many may where the keys are as they are as a rule.
    fn creates_as_a_rule(&self) -> usize {
        self.creates_per_batch()
    }

    /// Whether these writes would not be refused with [`StoreError::TooLarge`] as the next batch.
    fn takes(&self, writes: &[Write]) -> bool;

    /// Bytes of keys and values that go well into one batch. More are taken, at a price.
    fn bytes_per_batch(&self) -> usize;

    /// Whether writing is waiting for others, so that a thread of its own is worth its while. Where a batch takes
    /// less than that, the loop writes itself.
    fn is_remote(&self) -> bool;

    /// How an unknown outcome is asked for again.
    fn unknown_policy(&self) -> Policy;

    /// Writes a batch durably. The first batch of a term has number 1. A batch that is already
    /// written (same term, same number as the last) answers [`StoreError::OutOfSequence`] with
    /// `stored == offered`.
    fn write(&mut self, batch: &Batch) -> Result<(), StoreError>;
}

//! The embedded store: a log-structured tree in a folder, for one machine. Opening it locks the
//! folder, so a second coordinator on it is refused.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use gapless_common::ids::Term;
use gapless_platform::retry::Policy;

use super::{Batch, Store, StoreError, Write};

/// Writes of one batch. The tree takes any number; this bounds how long answers wait for a batch.
const ROWS_PER_BATCH: usize = 4096;

/// One batch in memory and in the journal; a plan of 100,000 partitions takes tens of them.
const BYTES_PER_BATCH: usize = 8 << 20;

/// A disk that fails once may be full for a moment; one that goes on failing ends the term.
const UNKNOWN: Policy = Policy {
    first_delay: Duration::from_millis(10),
    longest_delay: Duration::from_millis(200),
    give_up_after: Some(Duration::from_secs(1)),
};

/// Rows and the store's own keys lie in two keyspaces of one database: a batch spans both.
pub struct EmbeddedStore {
    folder: PathBuf,
    database: Database,
    rows: Keyspace,
    meta: Keyspace,
    reached: u64,
}

const TERM: &str = "term";
const SEQ: &str = "seq";

impl EmbeddedStore {
    /// Opens or creates the store in `folder`. A new one is made beside it and moved there when it
    /// is whole: a process that is killed while it makes one leaves nothing that cannot be opened.
    pub fn open(folder: &Path) -> Result<EmbeddedStore, StoreError> {
        if !folder.exists() {
            create(folder)?;
        }
        Self::open_at(folder)
    }

    fn open_at(folder: &Path) -> Result<EmbeddedStore, StoreError> {
        let place: PathBuf = folder.to_path_buf();
        let refused = |error: fjall::Error| StoreError::Open {
            place: place.display().to_string(),
            reason: match error {
                fjall::Error::Locked => "another process has it open".to_string(),
                other => other.to_string(),
            },
        };
        let database = Database::builder(folder).open().map_err(refused)?;
        let rows = database
            .keyspace("rows", KeyspaceCreateOptions::default)
            .map_err(refused)?;
        let meta = database
            .keyspace("meta", KeyspaceCreateOptions::default)
            .map_err(refused)?;
        Ok(EmbeddedStore {
            folder: folder.to_path_buf(),
            database,
            rows,
            meta,
            reached: 0,
        })
    }

    fn number(&self, key: &str) -> Result<u64, StoreError> {
        let value = self.meta.get(key).map_err(read_failed)?;
        Ok(value
            .and_then(|bytes| Some(u64::from_be_bytes(bytes.as_ref().try_into().ok()?)))
            .unwrap_or(0))
    }
}

/// Makes an empty store at `folder`. One process at a time; whoever comes second finds it made.
fn create(folder: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| StoreError::Open {
        place: folder.display().to_string(),
        reason: error.to_string(),
    };
    let lock = File::create(folder.with_extension("lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    if folder.exists() {
        return Ok(());
    }
    let unfinished = folder.with_extension("new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(failed)?;
    }
    let store = EmbeddedStore::open_at(&unfinished)?;
    store.database.persist(PersistMode::SyncAll).map_err(unknown)?;
    drop(store);
    fs::rename(&unfinished, folder).map_err(failed)?;
    let parent = folder.parent().unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)
}

fn read_failed(error: fjall::Error) -> StoreError {
    StoreError::Read {
        reason: error.to_string(),
    }
}

fn unknown(error: fjall::Error) -> StoreError {
    StoreError::Unknown {
        reason: error.to_string(),
    }
}

impl Store for EmbeddedStore {
    fn begin_term(&mut self) -> Result<Term, StoreError> {
        // Above the last batch, as if term and batches were counted in one row.
        let term = self.number(TERM)? + self.number(SEQ)? + 1;
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&self.meta, TERM, term.to_be_bytes());
        batch.insert(&self.meta, SEQ, 0u64.to_be_bytes());
        batch.commit().map_err(unknown)?;
        self.reached = term;
        Ok(Term(term))
    }

    /// Nobody else can have the store open: there is nobody to give way to.
    fn end_term(&mut self) {}

    fn rows_per_batch(&self) -> usize {
        ROWS_PER_BATCH
    }

    fn creates_per_batch(&self) -> usize {
        ROWS_PER_BATCH
    }

    fn takes(&self, writes: &[Write]) -> bool {
        writes.len() <= ROWS_PER_BATCH
    }

    fn bytes_per_batch(&self) -> usize {
        BYTES_PER_BATCH
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn unknown_policy(&self) -> Policy {
        UNKNOWN
    }

    fn reached(&self) -> u64 {
        self.reached
    }

    /// Nobody else can have the store open.
    fn confirm(&self, _: Term) -> Result<(), StoreError> {
        Ok(())
    }

    fn place(&self) -> String {
        self.folder.display().to_string()
    }

    fn row(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.rows.get(key).map_err(read_failed)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn rows(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut rows = Vec::new();
        for guard in self.rows.iter() {
            let (key, value) = guard.into_inner().map_err(read_failed)?;
            let key = String::from_utf8(key.to_vec()).map_err(|error| StoreError::Read {
                reason: format!("a key is not text: {error}"),
            })?;
            rows.push((key, value.to_vec()));
        }
        Ok(rows)
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if batch.writes.len() > ROWS_PER_BATCH {
            return Err(StoreError::TooLarge {
                count: batch.writes.len(),
                what: "rows",
                most: ROWS_PER_BATCH,
            });
        }
        let current = Term(self.number(TERM)?);
        if batch.term != current {
            return Err(StoreError::LostTerm {
                offered: batch.term,
                current,
            });
        }
        let stored = self.number(SEQ)?;
        if batch.seq != stored + 1 {
            return Err(StoreError::OutOfSequence {
                offered: batch.seq,
                stored,
            });
        }
        // A key may be created and deleted within one batch: what counts is the order of the writes.
        let mut written = std::collections::HashMap::new();
        for write in &batch.writes {
            match write {
                Write::Create(key, _) => {
                    let exists = match written.get(key.as_str()) {
                        Some(&exists) => exists,
                        None => self.rows.contains_key(key).map_err(read_failed)?,
                    };
                    if exists {
                        return Err(StoreError::Exists { key: key.clone() });
                    }
                    written.insert(key.as_str(), true);
                }
                Write::Put(key, _) => {
                    written.insert(key.as_str(), true);
                }
                Write::Delete(key) => {
                    written.insert(key.as_str(), false);
                }
            }
        }
        let mut changes = self.database.batch().durability(Some(PersistMode::SyncData));
        for write in &batch.writes {
            match write {
                Write::Put(key, value) | Write::Create(key, value) => {
                    changes.insert(&self.rows, key.as_str(), value.as_slice());
                }
                Write::Delete(key) => changes.remove(&self.rows, key.as_str()),
            }
        }
        changes.insert(&self.meta, SEQ, batch.seq.to_be_bytes());
        changes.commit().map_err(unknown)?;
        self.reached = batch.term.0 + batch.seq;
        Ok(())
    }
}

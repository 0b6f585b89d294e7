//! The store as the protocol asks for it: rows, a term and a sequence number, and nothing else.

use std::collections::BTreeMap;

use gapless_core::{Change, Row};

#[derive(Clone)]
pub struct Batch {
    pub term: u64,
    pub seq: u64,
    pub changes: Vec<Change>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    Term,
    Sequence { stored: u64 },
    Exists(String),
}

#[derive(Default)]
pub struct FakeStore {
    pub term: u64,
    seq: u64,
    rows: BTreeMap<String, Row>,
}

impl FakeStore {
    pub fn begin_term(&mut self) -> u64 {
        self.term += 1;
        self.seq = 0;
        self.term
    }

    pub fn rows(&self) -> Vec<Row> {
        self.rows.values().cloned().collect()
    }

    pub fn row(&self, key: &str) -> Option<&Row> {
        self.rows.get(key)
    }

    /// All of the batch or nothing, under the present term and in its turn.
    pub fn write(&mut self, batch: &Batch) -> Result<(), Refused> {
        if batch.term != self.term {
            return Err(Refused::Term);
        }
        if batch.seq != self.seq + 1 {
            return Err(Refused::Sequence { stored: self.seq });
        }
        let mut after: BTreeMap<String, bool> = BTreeMap::new();
        for change in &batch.changes {
            let key = change.key().to_string();
            let exists = after.get(&key).copied().unwrap_or_else(|| self.rows.contains_key(&key));
            if matches!(change, Change::Create(_)) && exists {
                return Err(Refused::Exists(key));
            }
            after.insert(key, !matches!(change, Change::Delete(_)));
        }
        for change in &batch.changes {
            let key = change.key().to_string();
            match change {
                Change::Put(row) | Change::Create(row) => {
                    let stored = Row::decode(&key, &row.encode()).expect("a row is read back");
                    assert_eq!(&stored, row, "a row is read back as it was written");
                    self.rows.insert(key, stored);
                }
                Change::Delete(_) => {
                    self.rows.remove(&key);
                }
            }
        }
        self.seq = batch.seq;
        Ok(())
    }
}

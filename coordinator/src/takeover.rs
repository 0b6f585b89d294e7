//! Taking over a store: a term is begun and the rows are read, once it is clear that they are for this
//! release. What is not is left as it is, the term included, as far as that can be known beforehand.
//! A store that is older than what was seen of it is held until an operator accepts it.

use std::thread;

use gapless_common::ids::{Epoch, Term};
use gapless_core::{
    Row, RowKey,
    row::ClusterRow,
    schema::{self, Known, SchemaError, Stored},
};
use gapless_platform::retry::{Delays, Policy};

use crate::{
    identity::{self, Older, Seen},
    store::{Batch, Store, StoreError, Write},
};

/// A store under a term of this coordinator.
pub struct TakenOver {
    pub store: Box<dyn Store>,
    /// As the store counts it.
    pub term: Term,
    /// Batches written in this term.
    pub seq: u64,
    pub stored: Stored,
}

/// A store under a term of this coordinator that must not be worked on.
pub struct Hold {
    pub store: Box<dyn Store>,
    pub term: Term,
    pub seq: u64,
    pub cluster: Option<ClusterRow>,
    pub why: Older,
}

/// What becomes of a store that is taken over.
pub enum Found {
    Ready(TakenOver),
    Older(Box<Hold>),
}

/// Begins a term, reads all rows and compares them with what was seen. When that fails the term is given
/// up again.
pub fn take_over(mut store: Box<dyn Store>, seen: Option<&Seen>) -> Result<Found, StoreError> {
    check_schema(&*store)?;
    let term = store.begin_term()?;
    let stored = match read(&*store) {
        Ok(stored) => stored,
        Err(error) => {
            store.end_term();
            return Err(error);
        }
    };
    let seq = 0;
    Ok(match identity::check(stored.cluster(), term, seen) {
        Ok(()) => Found::Ready(TakenOver {
            store,
            term,
            seq,
            stored,
        }),
        Err(why) => Found::Older(Box::new(Hold {
            store,
            term,
            seq,
            cluster: stored.cluster().cloned(),
            why,
        })),
    })
}

fn read(store: &dyn Store) -> Result<Stored, StoreError> {
    let rows = store.rows()?;
    let stored = schema::read(&rows, &Known::HERE).map_err(|error| not_ours(store, error))?;
    match stored.cluster() {
        None if !stored.rows.is_empty() => Err(StoreError::Read {
            reason: format!(
                "{} has rows and does not say whose they are: the row {} is missing; restore it from a whole copy",
                store.place(),
                RowKey::Cluster
            ),
        }),
        _ => Ok(stored),
    }
}

/// Whether the store is for this release, by its cluster row alone.
///
/// Errors: [`StoreError::Schema`].
pub fn check_schema(store: &dyn Store) -> Result<(), StoreError> {
    match store.row(&RowKey::Cluster.to_string())? {
        Some(cluster) => match schema::admit(&cluster, &Known::HERE) {
            Ok(_) => Ok(()),
            Err(error) => Err(not_ours(store, error)),
        },
        None => Ok(()),
    }
}

fn not_ours(store: &dyn Store, source: SchemaError) -> StoreError {
    StoreError::Schema {
        place: store.place(),
        source,
    }
}

/// A store of a test, of which nobody has seen anything.
#[cfg(test)]
pub fn taken_over(store: Box<dyn Store>) -> TakenOver {
    match take_over(store, None).expect("a store that can be taken over") {
        Found::Ready(taken) => taken,
        Found::Older(hold) => panic!("{}", hold.reason()),
    }
}

impl Hold {
    /// Why, and what to do.
    pub fn reason(&self) -> String {
        format!(
            "the store in {} cannot be trusted: {}. No work is given out, taken or published until an operator has looked \
             at it and says with `gapless cluster accept-restore` that it is to be used from now on",
            self.store.place(),
            self.why
        )
    }

    /// The identity that the cluster will have.
    pub fn cluster(&self) -> gapless_common::ids::ClusterId {
        self.cluster.as_ref().map_or(self.why.seen().cluster, |row| row.cluster)
    }

    /// The highest epoch that is known of.
    pub fn epoch(&self) -> Epoch {
        let stored = self.cluster.as_ref().map_or(Epoch::FIRST, |row| row.epoch);
        stored.max(self.why.seen().mark.epoch())
    }

    /// Raises the epoch above all that was seen, and hands the store over. Blocks.
    pub fn accept(mut self: Box<Self>) -> Result<TakenOver, (StoreError, Box<Hold>)> {
        let accepted = self.raise().and_then(|()| read(&*self.store));
        match accepted {
            Ok(stored) => Ok(TakenOver {
                store: self.store,
                term: self.term,
                seq: self.seq,
                stored,
            }),
            Err(error) => Err((error, self)),
        }
    }

    fn raise(&mut self) -> Result<(), StoreError> {
        let epoch = Epoch(self.epoch().0 + 1);
        if epoch > Epoch::LAST {
            return Err(StoreError::Refused {
                reason: format!(
                    "the epoch is {} already, and there is none above: found a new cluster",
                    self.epoch()
                ),
            });
        }
        let cluster = self.cluster.clone().unwrap_or_else(|| ClusterRow::new(self.cluster()));
        let row = Row::Cluster(ClusterRow { epoch, ..cluster });
        let batch = Batch {
            term: self.term,
            seq: self.seq + 1,
            writes: vec![Write::Put(row.key().to_string(), row.encode())],
        };
        let mut delays = Delays::new(Policy {
            give_up_after: Some(crate::limits::ACCEPT_PATIENCE),
            ..self.store.unknown_policy()
        });
        loop {
            match self.store.write(&batch) {
                Ok(()) => break,
                Err(StoreError::OutOfSequence { offered, stored }) if offered == stored => break,
                Err(error @ StoreError::Unknown { .. }) => match delays.next_delay() {
                    Some(delay) => thread::sleep(delay),
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        self.seq += 1;
        Ok(())
    }
}

//! A batch as one transaction.
//!
//! It compares the term and the number of the batch before, puts its own number, and writes its rows.
//! When a compare fails the transaction reads instead, at the same moment, what explains it: so a batch
//! that was applied although its answer got lost is known as such.

use std::collections::{BTreeSet, HashMap, HashSet, hash_map::Entry};

use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, Txn, TxnOp, TxnOpResponse};
use gapless_common::ids::Term;

use super::{
    Etcd,
    limits::{BATCH_BYTES, CALL_TIMEOUT, INLINE_BYTES, PART_BYTES, ROWS_PER_GROUP},
    members::CallError,
    neighbours::{LEASES, Leases, Run, after},
    values,
};
use crate::store::{Batch, StoreError, Write};

/// What a batch comes to: etcd takes one write of a key in a transaction.
#[derive(Debug, Default, PartialEq, Eq)]
struct Folded<'a> {
    /// Keys in the order of their first write, each with its value, or none where it goes.
    writes: Vec<(&'a str, Option<&'a [u8]>)>,
    /// Keys that must not exist before.
    absent: Vec<&'a str>,
}

/// Folds a batch. The error is a key that the batch itself creates twice.
fn fold(writes: &[Write]) -> Result<Folded<'_>, &str> {
    let mut folded = Folded::default();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for write in writes {
        let (key, value) = match write {
            Write::Put(key, value) | Write::Create(key, value) => (key.as_str(), Some(value.as_slice())),
            Write::Delete(key) => (key.as_str(), None),
        };
        let create = matches!(write, Write::Create(..));
        match places.entry(key) {
            Entry::Vacant(place) => {
                place.insert(folded.writes.len());
                if create {
                    folded.absent.push(key);
                }
                folded.writes.push((key, value));
            }
            Entry::Occupied(place) => {
                let former = &mut folded.writes[*place.get()].1;
                if create && former.is_some() {
                    return Err(key);
                }
                *former = value;
            }
        }
    }
    Ok(folded)
}

/// Which values are written in parts: those too large for any transaction, then the largest until the
/// rest fits into one.
fn apart(values: &[(&str, Option<&[u8]>)]) -> HashSet<usize> {
    let size = |at: usize| values[at].1.map_or(0, <[u8]>::len);
    let mut by_size: Vec<usize> = (0..values.len()).collect();
    by_size.sort_by_key(|&at| std::cmp::Reverse(size(at)));
    let mut rest: usize = by_size.iter().map(|&at| size(at)).sum();
    let mut apart = HashSet::new();
    for at in by_size {
        if size(at) <= INLINE_BYTES && rest <= BATCH_BYTES {
            break;
        }
        rest -= size(at);
        apart.insert(at);
    }
    apart
}

/// Puts what is more than a group of operations into transactions of their own, without conditions: the
/// conditions of the batch stand above them.
fn in_groups(operations: Vec<TxnOp>) -> Vec<TxnOp> {
    if operations.len() <= ROWS_PER_GROUP {
        return operations;
    }
    let mut groups = Vec::with_capacity(operations.len().div_ceil(ROWS_PER_GROUP));
    let mut operations = operations.into_iter();
    loop {
        let group: Vec<TxnOp> = operations.by_ref().take(ROWS_PER_GROUP).collect();
        if group.is_empty() {
            return groups;
        }
        groups.push(TxnOp::txn(Txn::new().and_then(group)));
    }
}

/// How many keys the deletions of a transaction found, in order.
fn deleted(answers: &[TxnOpResponse]) -> Vec<usize> {
    let of = |answer: &TxnOpResponse| match answer {
        TxnOpResponse::Delete(deleted) => vec![usize::try_from(deleted.deleted()).unwrap_or(0)],
        TxnOpResponse::Txn(group) => deleted(&group.op_responses()),
        TxnOpResponse::Put(_) | TxnOpResponse::Get(_) => Vec::new(),
    };
    answers.iter().flat_map(of).collect()
}

impl Etcd {
    /// Sends a batch once. Its outcome is asked for by sending it again. Notes in `reached` the revision
    /// at which it was found written, if it was.
    pub(super) async fn write(&self, batch: &Batch, leases: &Leases, reached: &mut u64) -> Result<(), StoreError> {
        let folded = fold(&batch.writes).map_err(|key| StoreError::Exists { key: key.to_string() })?;
        let apart = apart(&folded.writes);
        let (mut put, mut gone) = (BTreeSet::new(), Vec::new());
        for &(key, value) in &folded.writes {
            match value {
                None => gone.push(key),
                Some(_) if key.starts_with(LEASES) => drop(put.insert(key)),
                Some(_) => {}
            }
        }
        let gone = leases.runs(gone, &put);
        let absent = leases.runs(folded.absent.clone(), &BTreeSet::new());
        let mut operations = Vec::with_capacity(folded.writes.len());
        operations.extend(gone.iter().map(|run| {
            let options = (!run.is_single()).then(|| DeleteOptions::new().with_range(after(&self.keys.row(run.last))));
            TxnOp::delete(self.keys.row(run.first), options)
        }));
        for (at, (key, value)) in folded.writes.iter().enumerate() {
            let Some(value) = value else { continue };
            let key = self.keys.row(key);
            operations.push(match apart.contains(&at) {
                true => {
                    let name = format!("{}-{}-{at}", batch.term, batch.seq);
                    let count = self.write_parts(batch.term, &name, value).await?;
                    TxnOp::put(key, values::in_parts(&name, count), None)
                }
                false => TxnOp::put(key, values::whole(value), None),
            });
        }
        let mut operations = in_groups(operations);
        operations.push(TxnOp::put(self.keys.seq.as_str(), batch.seq.to_string(), None));
        let before = batch
            .seq
            .checked_sub(1)
            .map_or(String::new(), |before| before.to_string());
        let mut compares = vec![
            self.under(batch.term),
            Compare::value(self.keys.seq.as_str(), CompareOp::Equal, before),
        ];
        let mut reads = vec![
            TxnOp::get(self.keys.leader.as_str(), None),
            TxnOp::get(self.keys.seq.as_str(), None),
        ];
        for run in &absent {
            let key = self.keys.row(run.first);
            let absent = Compare::version(key.as_str(), CompareOp::Equal, 0);
            let keys_only = GetOptions::new().with_keys_only();
            let (absent, first) = match run.is_single() {
                true => (absent, keys_only),
                false => {
                    let end = after(&self.keys.row(run.last));
                    (
                        absent.with_range(end.as_slice()),
                        keys_only.with_range(end).with_limit(1),
                    )
                }
            };
            compares.push(absent);
            reads.push(TxnOp::get(key, Some(first)));
        }
        let transaction = Txn::new().when(compares).and_then(operations).or_else(reads);
        let sent = self.members.once(
            CALL_TIMEOUT,
            |mut member| async move { member.kv.txn(transaction).await },
        );
        let answer = sent.await.map_err(failed)?;
        let revision = answer.header().map_or(0, |header| header.revision().cast_unsigned());
        let outcome = match answer.succeeded() {
            true => all_known(&gone, &deleted(&answer.op_responses())),
            false => Err(self.explain(batch, &answer.op_responses())),
        };
        if matches!(outcome, Ok(()) | Err(StoreError::OutOfSequence { .. })) {
            *reached = revision.max(*reached);
        }
        outcome
    }

    /// True while the leader's key is the one of this term.
    pub(super) fn under(&self, term: Term) -> Compare {
        Compare::create_revision(self.keys.leader.as_str(), CompareOp::Equal, term.0.cast_signed())
    }

    /// Writes a value in parts, each under the term. The same parts again are the same parts.
    async fn write_parts(&self, term: Term, name: &str, value: &[u8]) -> Result<usize, StoreError> {
        let parts = value.chunks(PART_BYTES);
        let count = parts.len();
        for (number, part) in parts.enumerate() {
            let key = format!("{}{}", self.keys.parts, values::part_key(name, number));
            let transaction = Txn::new()
                .when([self.under(term)])
                .and_then([TxnOp::put(key, part, None)])
                .or_else([TxnOp::get(self.keys.leader.as_str(), None)]);
            let sent = self.members.once(
                CALL_TIMEOUT,
                |mut member| async move { member.kv.txn(transaction).await },
            );
            let answer = sent.await.map_err(failed)?;
            if !answer.succeeded() {
                return Err(StoreError::LostTerm {
                    offered: term,
                    current: current_term(&answer.op_responses()),
                });
            }
        }
        Ok(count)
    }

    /// Why a batch was not applied just now.
    fn explain(&self, batch: &Batch, read: &[TxnOpResponse]) -> StoreError {
        let current = current_term(read);
        if current != batch.term {
            return StoreError::LostTerm {
                offered: batch.term,
                current,
            };
        }
        let found = |at: usize| match read.get(at) {
            Some(TxnOpResponse::Get(found)) => found.kvs().first(),
            _ => None,
        };
        let stored: Option<u64> = found(1).and_then(|kv| kv.value_str().ok()?.parse().ok());
        let Some(stored) = stored else {
            return StoreError::Read {
                reason: format!("{} is no number", self.keys.seq),
            };
        };
        if stored + 1 != batch.seq {
            return StoreError::OutOfSequence {
                offered: batch.seq,
                stored,
            };
        }
        let in_the_way = (2..read.len()).find_map(|at| found(at)?.key_str().ok()?.strip_prefix(&self.keys.rows));
        match in_the_way {
            Some(key) => StoreError::Exists { key: key.to_string() },
            None => StoreError::Unknown {
                reason: "a compare failed that would hold now".into(),
            },
        }
    }
}

/// Whether ranges that were deleted held what was known to be there. A range that held more tells of a lease that
/// nobody here has written: what else is there is not known either, so the term must not go on with it.
fn all_known(gone: &[Run<'_>], found: &[usize]) -> Result<(), StoreError> {
    let differs = |(run, found): &(&Run<'_>, &usize)| !run.is_single() && run.present != **found;
    match gone.iter().zip(found).find(differs) {
        None => Ok(()),
        Some((run, found)) => Err(StoreError::Refused {
            reason: format!(
                "{found} leases were there from {} to {}, and {} were known: somebody else writes to this cluster's rows",
                run.first, run.last, run.present
            ),
        }),
    }
}

/// The term of the present leader, by the first answer; 0 where nobody leads.
fn current_term(read: &[TxnOpResponse]) -> Term {
    let revision = match read.first() {
        Some(TxnOpResponse::Get(leader)) => leader.kvs().first().map_or(0, |kv| kv.create_revision()),
        _ => 0,
    };
    Term(revision.cast_unsigned())
}

fn failed(error: CallError) -> StoreError {
    let reason = error.to_string();
    match error {
        CallError::Away { .. } | CallError::Stopping => StoreError::Unknown { reason },
        CallError::Full { .. } => StoreError::Full { reason },
        CallError::Refused { .. } | CallError::Compacted { .. } => StoreError::Refused { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Write {
        Write::Put(key.into(), value.into())
    }

    fn create(key: &str, value: &str) -> Write {
        Write::Create(key.into(), value.into())
    }

    fn delete(key: &str) -> Write {
        Write::Delete(key.into())
    }

    #[test]
    fn a_key_is_written_once_and_its_first_creation_is_a_condition() {
        let writes = [
            put("a", "1"),
            create("b", "1"),
            put("a", "2"),
            delete("b"),
            create("b", "2"),
            delete("c"),
            create("c", "1"),
            create("d", "1"),
            delete("d"),
        ];
        let folded = fold(&writes).expect("no key twice");
        let expected: Vec<(&str, Option<&[u8]>)> =
            vec![("a", Some(b"2")), ("b", Some(b"2")), ("c", Some(b"1")), ("d", None)];
        assert_eq!(folded.writes, expected);
        assert_eq!(folded.absent, ["b", "d"]);
        assert_eq!(fold(&[put("a", "1"), create("a", "2")]), Err("a"));
    }

    #[test]
    fn what_does_not_fit_is_written_apart() {
        let (small, middle, large) = (vec![0; 100], vec![0; INLINE_BYTES], vec![0; INLINE_BYTES + 1]);
        let check = |values: &[&Vec<u8>], expected: &[usize]| {
            let values: Vec<(&str, Option<&[u8]>)> = values.iter().map(|value| ("", Some(value.as_slice()))).collect();
            let mut found: Vec<usize> = apart(&values).into_iter().collect();
            found.sort_unstable();
            assert_eq!(found, expected);
        };
        check(&[&small, &middle, &small], &[]);
        check(&[&small, &large, &middle], &[1]);
        let fits = BATCH_BYTES / INLINE_BYTES;
        check(&vec![&middle; fits], &[]);
        check(&vec![&middle; fits + 2], &[0, 1]);
        check(&[vec![&middle; fits], vec![&small]].concat(), &[0]);
    }
}

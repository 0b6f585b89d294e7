//! Parts that no row refers to. A batch whose large values were written in parts may never have been
//! written itself, and rows are replaced; the parts stay. The leader removes them, a bounded number at a
//! time, when it takes over and then now and then.

use std::collections::HashSet;

use etcd_client::{Txn, TxnOp};
use gapless_common::ids::Term;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info};

use super::{
    Etcd,
    limits::{ASK_AGAIN, CALL_TIMEOUT, COLLECT, MAX_COLLECTED, PART_KEYS_PER_PAGE, ROWS_PER_BATCH, ROWS_PER_PAGE},
    members::CallError,
    values::{self, Value},
};

impl Etcd {
    /// Collects from time to time, for as long as the term lasts. Ends when dropped.
    pub(super) async fn keep_collecting(self, term: Term) {
        let mut ticks = interval(COLLECT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.collect(term).await {
                Ok(0) => {}
                Ok(parts) => info!(parts, "removed parts of values that no row refers to"),
                Err(error) => debug!(%error, "parts that no row refers to stay for now"),
            }
        }
    }

    /// Removes parts that no row refers to and none can any more, at most [`MAX_COLLECTED`] of them. Says how
    /// many.
    ///
    /// A part belongs to a batch, which its name tells. Of batches of former terms, and of this term up to the
    /// number that is on record, it is settled whether they were written: a row refers to their parts or never
    /// will. Parts of the batch after that may be on their way before it.
    pub(super) async fn collect(&self, term: Term) -> Result<usize, CallError> {
        let (parts, revision) = self.keys(&self.keys.parts, PART_KEYS_PER_PAGE, ASK_AGAIN).await?;
        if parts.is_empty() {
            return Ok(0);
        }
        // As of one moment, so that no row is missed that a batch put in between.
        let (seq, _) = self.pages(&self.keys.seq, 1, revision, ASK_AGAIN).await?;
        let Some(seq) = seq.first().and_then(|kv| kv.value_str().ok()?.parse::<u64>().ok()) else {
            return Ok(0);
        };
        let (rows, _) = self.pages(&self.keys.rows, ROWS_PER_PAGE, revision, ASK_AGAIN).await?;
        let named = |value| match values::read(value) {
            Some(Value::Parts { name, .. }) => Some(name.to_string()),
            Some(Value::Whole(_)) | None => None,
        };
        let live: HashSet<String> = rows.iter().filter_map(|row| named(row.value())).collect();
        let orphans = parts.into_iter().filter(|key| {
            let name = key.strip_prefix(&self.keys.parts).and_then(|key| key.split_once('/'));
            name.is_some_and(|(name, _)| !live.contains(name) && is_settled(name, term, seq))
        });
        let orphans: Vec<String> = orphans.take(MAX_COLLECTED).collect();
        for keys in orphans.chunks(ROWS_PER_BATCH) {
            let deletes: Vec<TxnOp> = keys.iter().map(|key| TxnOp::delete(key.as_str(), None)).collect();
            let transaction = Txn::new().when([self.under(term)]).and_then(deletes);
            // Deleting twice is deleting.
            let done = self.members.again(ASK_AGAIN, CALL_TIMEOUT, &self.stop, |mut member| {
                let transaction = transaction.clone();
                async move { member.kv.txn(transaction).await }
            });
            if !done.await?.succeeded() {
                return Ok(0);
            }
        }
        Ok(orphans.len())
    }
}

/// Whether the batch of a part is of the past, whatever became of it. Names are `<term>-<seq>-<row>`.
fn is_settled(name: &str, term: Term, seq: u64) -> bool {
    let mut numbers = name.split('-').map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(of_term)), Some(Ok(of_seq))) => of_term < term.0 || (of_term == term.0 && of_seq <= seq),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_settled_once_a_later_term_or_its_number_is_on_record() {
        let settled = |name| is_settled(name, Term(900), 5);
        assert!(settled("899-7-0") && settled("900-5-3") && settled("900-1-0"));
        assert!(!settled("900-6-0"), "its parts may be on their way");
        assert!(!settled("901-1-0") && !settled("sales") && !settled("900"));
    }
}

//! Cutting what was decided into batches that the store takes.

use crate::store::{Store, Write};

/// What one batch may hold; in bytes, what goes well into one.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    pub rows: usize,
    pub creates: usize,
    pub bytes: usize,
}

impl Most {
    /// What the store takes if the keys are as they are as a rule.
    pub fn as_a_rule(store: &dyn Store) -> Most {
        Most {
            creates: store.creates_as_a_rule(),
            ..Most::always(store)
        }
    }

    /// What the store takes, whatever the keys.
    pub fn always(store: &dyn Store) -> Most {
        Most {
            rows: store.rows_per_batch(),
            creates: store.creates_per_batch(),
            bytes: store.bytes_per_batch(),
        }
    }

    /// What would be left of it beside `writes`; `None` where they do not fit.
    fn beside(self, writes: &[Write]) -> Option<Most> {
        let (mut creates, mut bytes) = (0, 0);
        for write in writes {
            bytes += match write {
                Write::Put(key, value) => key.len() + value.len(),
                Write::Create(key, value) => {
                    creates += 1;
                    key.len() + value.len()
                }
                Write::Delete(key) => key.len(),
            };
        }
        Some(Most {
            rows: self.rows.checked_sub(writes.len())?,
            creates: self.creates.checked_sub(creates)?,
            bytes: self.bytes.checked_sub(bytes)?,
        })
    }
}

/// Rows that were decided, in the order of their decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    pub writes: Vec<Write>,
    /// How many of the writes create a row.
    pub creates: usize,
    /// Where the writes of each decision end.
    pub ends: Vec<usize>,
}

impl Decided {
    pub fn push(&mut self, write: Write) {
        self.creates += usize::from(matches!(write, Write::Create(..)));
        self.writes.push(write);
    }

    /// Ends a decision.
    pub fn end(&mut self) {
        self.ends.push(self.writes.len());
    }

    /// Cuts it into batches: decisions stay whole, and their order stays. One that is larger than a batch by
    /// itself is left to the store to take or to refuse.
    pub fn batches(self, most: Most) -> Vec<Decided> {
        let mut batches: Vec<Decided> = Vec::new();
        let mut left = None;
        let mut writes = self.writes.into_iter();
        let mut begin = 0;
        for end in self.ends {
            let decision: Vec<Write> = writes.by_ref().take(end - begin).collect();
            begin = end;
            if decision.is_empty() {
                continue;
            }
            left = left.and_then(|left: Most| left.beside(&decision));
            if left.is_none() {
                left = most.beside(&decision);
                batches.push(Decided::default());
            }
            if let Some(batch) = batches.last_mut() {
                decision.into_iter().for_each(|write| batch.push(write));
                batch.end();
            }
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(writes: Vec<Write>, ends: Vec<usize>, most: Most) -> Vec<Vec<Write>> {
        let decided = Decided {
            creates: 0,
            writes,
            ends,
        };
        let batches = decided.batches(most).into_iter();
        batches.map(|batch| batch.writes).collect()
    }

    #[test]
    fn decisions_stay_whole_and_in_order() {
        let check = |sizes: &[usize], most: usize, expected: &[usize]| {
            let writes: Vec<Write> = (0..sizes.iter().sum())
                .map(|n: usize| Write::Delete(n.to_string()))
                .collect();
            let ends: Vec<usize> = sizes
                .iter()
                .scan(0, |end, size| {
                    *end += size;
                    Some(*end)
                })
                .collect();
            let most = Most {
                rows: most,
                creates: 0,
                bytes: 10_000,
            };
            let cut = cut(writes.clone(), ends, most);
            assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{sizes:?}");
            assert_eq!(cut.concat(), writes);
        };
        check(&[], 96, &[]);
        check(&[0, 0], 96, &[]);
        check(&[96, 1, 0, 95], 96, &[96, 96]);
        check(&[50, 50, 0, 46, 1], 96, &[50, 96, 1]);
        check(&[0, 40, 40, 40], 96, &[80, 40]);
        check(&[200, 1], 96, &[200, 1]);
    }

    #[test]
    fn a_batch_creates_so_many_rows_and_holds_so_many_bytes() {
        let create = |bytes: usize| Write::Create("k".into(), vec![0; bytes - 1]);
        let put = |bytes: usize| Write::Put("k".into(), vec![0; bytes - 1]);
        let most = Most {
            rows: 100,
            creates: 2,
            bytes: 50,
        };
        let check = |decisions: &[&[Write]], expected: &[usize]| {
            let ends: Vec<usize> = (0..decisions.len()).map(|at| decisions[..=at].concat().len()).collect();
            let cut = cut(decisions.concat(), ends, most);
            assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), expected);
            assert_eq!(cut.concat(), decisions.concat());
        };
        check(&[&[create(1)], &[create(1)], &[create(1)], &[put(1)]], &[2, 2]);
        check(&[&[create(1), create(1), create(1)], &[put(1)]], &[3, 1]);
        check(&[&[put(30)], &[put(20)], &[put(1)]], &[2, 1]);
        check(&[&[put(60)], &[put(20)], &[put(30)]], &[1, 2]);
    }
}

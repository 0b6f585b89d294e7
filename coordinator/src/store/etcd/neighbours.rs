//! Keys that come and go together. Leases are created and deleted in the order of their partitions, hundreds at a
//! time, and each operation costs etcd some 10 µs. Of neighbours one range does for all: that nothing is there
//! before, or that nothing is there afterwards.
//!
//! Keys are neighbours where no other key lies between them. That is known, not guessed: nobody but the leader
//! writes, so the keys of leases are those that were read when the term began and what it has written since.
//! Where they are not known, each key stands for itself.

use std::{collections::BTreeSet, ops::Bound::Excluded};

use super::limits::MAX_KNOWN;
use crate::store::Write;

/// The rows whose keys are known. Others hardly ever go.
pub const LEASES: &str = "lease/";

/// The keys of leases that are in etcd; `None` where that is not known.
#[derive(Debug, Default)]
pub struct Leases(Option<BTreeSet<String>>);

/// Keys of a batch between which there is no other: the first, the last, and how many of them are there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    pub first: &'a str,
    pub last: &'a str,
    pub present: usize,
}

impl Run<'_> {
    pub fn is_single(&self) -> bool {
        self.first == self.last
    }
}

/// What ends a range that has this key as its last one.
pub fn after(key: &str) -> Vec<u8> {
    [key.as_bytes(), &[0]].concat()
}

impl Leases {
    /// As they were read under the present term, by the keys of their rows.
    pub fn read(keys: impl Iterator<Item = String>) -> Leases {
        Leases(Some(keys.collect())).bounded()
    }

    /// Notes what a batch has done. It does no harm to note the last one again.
    pub fn note(&mut self, writes: &[Write]) {
        let Some(keys) = &mut self.0 else { return };
        for write in writes {
            match write {
                Write::Put(key, _) | Write::Create(key, _) if key.starts_with(LEASES) => {
                    keys.insert(key.clone());
                }
                Write::Delete(key) if key.starts_with(LEASES) => {
                    keys.remove(key);
                }
                Write::Put(..) | Write::Create(..) | Write::Delete(_) => {}
            }
        }
        if keys.len() > MAX_KNOWN {
            self.forget();
        }
    }

    fn bounded(mut self) -> Leases {
        if self.0.as_ref().is_some_and(|keys| keys.len() > MAX_KNOWN) {
            self.forget();
        }
        self
    }

    pub fn forget(&mut self) {
        self.0 = None;
    }

    /// Puts keys of leases that a batch creates or deletes together where they are neighbours. Between those of
    /// a run there is no key before the batch but theirs, and none that it puts (`put`, also sorted).
    pub fn runs<'a>(&self, mut keys: Vec<&'a str>, put: &BTreeSet<&str>) -> Vec<Run<'a>> {
        keys.sort_unstable();
        keys.dedup();
        let mut runs: Vec<Run<'a>> = Vec::new();
        for key in keys {
            let present = usize::from(self.0.as_ref().is_some_and(|known| known.contains(key)));
            match runs.last_mut() {
                Some(run) if self.are_neighbours(run.last, key, put) => {
                    run.last = key;
                    run.present += present;
                }
                _ => runs.push(Run {
                    first: key,
                    last: key,
                    present,
                }),
            }
        }
        runs
    }

    fn are_neighbours(&self, one: &str, next: &str, put: &BTreeSet<&str>) -> bool {
        let Some(known) = &self.0 else { return false };
        let between = (Excluded(one), Excluded(next));
        one.starts_with(LEASES)
            && next.starts_with(LEASES)
            && known.range::<str, _>(between).next().is_none()
            && put.range::<str, _>(between).next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: u32) -> String {
        format!("{LEASES}run/0/execute/{partition}")
    }

    fn leases(partitions: &[u32]) -> Leases {
        Leases::read(partitions.iter().map(|&partition| key(partition)))
    }

    /// The runs as partitions, first, last and how many are there.
    fn runs(leases: &Leases, keys: &[u32], put: &[u32]) -> Vec<(u32, u32, usize)> {
        let (keys, put): (Vec<String>, Vec<String>) = (
            keys.iter().map(|&at| key(at)).collect(),
            put.iter().map(|&at| key(at)).collect(),
        );
        let number = |key: &str| key.rsplit('/').next().and_then(|it| it.parse().ok()).expect("a number");
        let keys = keys.iter().map(String::as_str).collect();
        let found = leases.runs(keys, &put.iter().map(String::as_str).collect());
        let run = |run: &Run<'_>| (number(run.first), number(run.last), run.present);
        found.iter().map(run).collect()
    }

    #[test]
    fn keys_are_neighbours_where_none_lies_between_them() {
        let there = leases(&[10, 11, 12, 14, 15]);
        assert_eq!(runs(&there, &[10, 11, 12], &[]), [(10, 12, 3)]);
        assert_eq!(runs(&there, &[12, 10], &[]), [(10, 10, 1), (12, 12, 1)], "11 stays");
        assert_eq!(runs(&there, &[12, 14], &[]), [(12, 14, 2)], "13 is not there");
        assert_eq!(
            runs(&there, &[12, 14], &[13]),
            [(12, 12, 1), (14, 14, 1)],
            "13 comes in the same batch"
        );
        // By their bytes 110 lies between 11 and 12.
        assert_eq!(
            runs(&leases(&[11, 110, 12]), &[11, 12], &[]),
            [(11, 11, 1), (12, 12, 1)]
        );
        assert_eq!(runs(&leases(&[11, 110, 12]), &[12, 110, 11], &[]), [(11, 12, 3)]);
        // None of these is there.
        assert_eq!(runs(&there, &[16, 17, 18], &[]), [(16, 18, 0)]);
        assert_eq!(runs(&there, &[13, 16], &[]), [(13, 13, 0), (16, 16, 0)]);
    }

    #[test]
    fn other_rows_and_rows_that_are_not_known_stand_for_themselves() {
        let single = |leases: &Leases, keys: [&'static str; 2]| {
            let runs = leases.runs(keys.to_vec(), &BTreeSet::new());
            runs.len() == 2 && runs.iter().all(Run::is_single)
        };
        let leases_of_one_run = ["lease/run/0/execute/1", "lease/run/0/execute/2"];
        assert!(!single(&leases(&[]), leases_of_one_run));
        assert!(single(&Leases::default(), leases_of_one_run));
        assert!(single(&leases(&[]), ["progress/1", "progress/2"]));
        assert!(single(&leases(&[]), ["job/1", "lease/run/0/execute/1"]));
        assert!(single(&leases(&[]), ["lease/run/0/execute/1", "run/1"]));
        let mut too_many = Leases::read((0..=MAX_KNOWN as u32).map(key));
        assert!(single(&too_many, leases_of_one_run));
        too_many = Leases::read((0..MAX_KNOWN as u32).map(key));
        assert!(too_many.0.is_some());
        too_many.note(&[Write::Create(key(MAX_KNOWN as u32), vec![])]);
        assert!(single(&too_many, leases_of_one_run));
    }

    #[test]
    fn what_a_batch_has_done_is_known() {
        let mut leases = leases(&[1, 2]);
        let batch = [
            Write::Create(key(3), vec![]),
            Write::Delete(key(1)),
            Write::Put(key(2), vec![]),
            Write::Put("progress/1".into(), vec![]),
            Write::Create(key(4), vec![]),
            Write::Delete(key(4)),
        ];
        // The second time it is found to have been written already.
        for _ in 0..2 {
            leases.note(&batch);
            let known: Vec<&String> = leases.0.iter().flatten().collect();
            assert_eq!(known, [&key(2), &key(3)]);
        }
    }
}

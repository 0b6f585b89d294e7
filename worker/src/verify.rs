//! Verify: does a certificate still hold? Its source is read again, range by range, and compared.
//!
//! How a source is opened again is given by the caller; nothing of the output is touched.

use gapless_common::{
    attempt::RecordHash,
    certificate::{Certificate, RangeProof},
    error::TaskError,
    ids::PartitionNo,
    plan::PinnedFile,
    range::UnitRange,
};
use std::fmt;

/// The source of a certificate, opened anew.
pub trait Reopen {
    /// A pinned file as it is now; `None` where it is gone.
    fn look(&mut self, file: &PinnedFile) -> Result<Option<PinnedFile>, TaskError>;

    /// Reads one range of the source as the run did: the number of records and their fingerprint.
    fn read(&mut self, range: &RangeProof) -> Result<(u64, RecordHash), TaskError>;
}

/// A way in which the certificate does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The certificate contradicts itself: it was damaged or edited.
    Certificate {
        what: String,
    },
    Missing {
        path: String,
    },
    /// Another size: ranges that touch it are still compared.
    Resized {
        path: String,
        pinned: u64,
        now: u64,
    },
    /// The same size, yet written since. Its content may be the same: the ranges tell.
    Touched {
        path: String,
    },
    Count {
        partition: PartitionNo,
        units: UnitRange,
        certified: u64,
        found: u64,
    },
    /// As many records, but not the same ones.
    Records {
        partition: PartitionNo,
        units: UnitRange,
        certified: RecordHash,
        found: RecordHash,
    },
    /// The range could not be read.
    Unreadable {
        partition: PartitionNo,
        units: UnitRange,
        reason: String,
    },
}

impl Difference {
    /// Whether the source's records differ from what the run read, or may; a file that was only
    /// touched is worth a word, no more.
    pub fn breaks(&self) -> bool {
        !matches!(self, Difference::Touched { .. })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Certificate { what } => write!(f, "the certificate contradicts itself: {what}"),
            Difference::Missing { path } => write!(f, "{path} is missing"),
            Difference::Resized { path, pinned, now } => {
                write!(f, "{path} has changed: {pinned} bytes when it was read, {now} now")
            }
            Difference::Touched { path } => write!(f, "{path} was written again since it was read"),
            Difference::Count {
                partition,
                units,
                certified,
                found,
            } => {
                write!(
                    f,
                    "partition {partition} {units}: {certified} records were read, there are {found} now"
                )
            }
            Difference::Records {
                partition,
                units,
                certified,
                found,
            } => write!(
                f,
                "partition {partition} {units}: as many records as were read, but not the same ones (fingerprint \
                 {certified}, now {found})"
            ),
            Difference::Unreadable {
                partition,
                units,
                reason,
            } => {
                write!(f, "partition {partition} {units} cannot be read: {reason}")
            }
        }
    }
}

/// Compares a certificate with itself and with its source as it is now. Empty: it holds.
pub fn verify(certificate: &Certificate, source: &mut dyn Reopen) -> Vec<Difference> {
    let mut differences = contradictions(certificate);
    let mut gone = Vec::new();
    let mut low = certificate.domain.low;
    for file in &certificate.files {
        let units = UnitRange::new(low, low + file.units);
        low = units.high;
        match source.look(file) {
            Ok(None) => {
                gone.push(units);
                differences.push(Difference::Missing {
                    path: file.path.clone(),
                });
            }
            Ok(Some(now)) if now.size != file.size => {
                differences.push(Difference::Resized {
                    path: file.path.clone(),
                    pinned: file.size,
                    now: now.size,
                });
            }
            Ok(Some(now)) if now.etag != file.etag => {
                differences.push(Difference::Touched {
                    path: file.path.clone(),
                });
            }
            Ok(Some(_)) => {}
            // Whoever reads it will tell.
            Err(_) => {}
        }
    }
    for range in &certificate.ranges {
        // A missing file explains the ranges that touch it.
        if gone
            .iter()
            .any(|file| file.low < range.units.high && range.units.low < file.high)
        {
            continue;
        }
        differences.extend(compare(range, source.read(range)));
    }
    differences
}

fn compare(range: &RangeProof, found: Result<(u64, RecordHash), TaskError>) -> Option<Difference> {
    let &RangeProof {
        partition,
        units,
        read,
        records,
    } = range;
    match found {
        Err(error) => Some(Difference::Unreadable {
            partition,
            units,
            reason: error.message,
        }),
        Ok((found, _)) if found != read => Some(Difference::Count {
            partition,
            units,
            certified: read,
            found,
        }),
        Ok((_, found)) if found != records => Some(Difference::Records {
            partition,
            units,
            certified: records,
            found,
        }),
        Ok(_) => None,
    }
}

/// What the certificate must fulfil by itself: its ranges tile its domain and sum to its totals.
fn contradictions(certificate: &Certificate) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut tell = |what: String| found.push(Difference::Certificate { what });
    if certificate.version != Certificate::VERSION {
        tell(format!(
            "it has version {}, this release reads {}",
            certificate.version,
            Certificate::VERSION
        ));
    }
    let mut ranges: Vec<&RangeProof> = certificate.ranges.iter().collect();
    ranges.sort_unstable_by_key(|range| range.units);
    let mut end = certificate.domain.low;
    for range in &ranges {
        if range.units.low != end {
            tell(format!(
                "partition {} begins at {}, not at {end}",
                range.partition, range.units.low
            ));
        }
        end = range.units.high;
    }
    if end != certificate.domain.high {
        tell(format!(
            "its ranges end at {end}, the source at {}",
            certificate.domain.high
        ));
    }
    let read: u64 = ranges.iter().map(|range| range.read).sum();
    let mut records = RecordHash::default();
    ranges.iter().for_each(|range| records += range.records);
    if read != certificate.counters.read {
        tell(format!(
            "its ranges sum to {read} records, its total says {}",
            certificate.counters.read
        ));
    }
    if records != certificate.records {
        tell("its ranges do not sum to its fingerprint".to_string());
    }
    for bucket in &certificate.exchange {
        if (bucket.scattered_rows, bucket.scattered) != (bucket.read_rows, bucket.read) {
            tell(format!(
                "partition {} read other records than were scattered to it",
                bucket.partition
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_common::{
        attempt::Counters,
        certificate::{Reading, Strength},
        error::ErrorClass,
        ids::RunId,
        job::Job,
        plan::Unit,
    };
    use uuid::Uuid;

    /// Three partitions over two files of 60 and 40 bytes, one record a byte.
    fn certificate() -> Certificate {
        let file = |path: &str, size| PinnedFile {
            path: path.into(),
            size,
            etag: "1".into(),
            units: size,
            rows: None,
        };
        let range = |partition, low, high| RangeProof {
            partition,
            units: UnitRange::new(low, high),
            read: high - low,
            records: RecordHash((low..high).map(u128::from).sum()),
        };
        Certificate {
            version: Certificate::VERSION,
            job: "job".into(),
            run: RunId(Uuid::nil()),
            step: 0,
            step_name: "step".into(),
            strength: Strength::Proved,
            reading: Reading {
                job: Job {
                    name: "job".into(),
                    parameters: Default::default(),
                    steps: vec![],
                },
                base_dir: "/".into(),
                unit: Unit::Byte,
                columns: vec![],
                read_columns: None,
            },
            files: vec![file("a", 60), file("b", 40)],
            domain: UnitRange::new(0, 100),
            ranges: vec![range(0, 0, 50), range(1, 50, 70), range(2, 70, 100)],
            exchange: vec![],
            counters: Counters {
                read: 100,
                written: 100,
                ..Counters::default()
            },
            records: RecordHash((0..100).sum()),
            reconciled: Some(true),
        }
    }

    /// Files as (path, size, etag), and what each range gives now beyond what it gave.
    struct Now {
        files: Vec<(&'static str, u64, &'static str)>,
        more: [(u64, u128); 3],
        broken: Option<PartitionNo>,
    }

    impl Reopen for Now {
        fn look(&mut self, file: &PinnedFile) -> Result<Option<PinnedFile>, TaskError> {
            let now = self.files.iter().find(|(path, ..)| *path == file.path);
            Ok(now.map(|&(_, size, etag)| PinnedFile {
                size,
                etag: etag.into(),
                ..file.clone()
            }))
        }

        fn read(&mut self, range: &RangeProof) -> Result<(u64, RecordHash), TaskError> {
            if self.broken == Some(range.partition) {
                return Err(TaskError::new(ErrorClass::Transient, "no"));
            }
            let (count, hash) = self.more[range.partition as usize];
            Ok((range.read + count, RecordHash(range.records.0 + hash)))
        }
    }

    fn check(certificate: &Certificate, mut now: Now, expected: &[&str]) {
        let told: Vec<String> = verify(certificate, &mut now).iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.contains(expected), "{told:?}");
        }
    }

    const SAME: [(&str, u64, &str); 2] = [("a", 60, "1"), ("b", 40, "1")];

    #[test]
    fn what_differs_is_told_by_partition_and_file() {
        let same = || Now {
            files: SAME.to_vec(),
            more: [(0, 0); 3],
            broken: None,
        };
        let files = |files: &[(&'static str, u64, &'static str)]| Now {
            files: files.to_vec(),
            ..same()
        };
        let more = |more| Now { more, ..same() };
        let cases: [(Now, &[&str]); 7] = [
            (same(), &[]),
            (
                more([(0, 0), (1, 5), (0, 0)]),
                &["partition 1 [50, 70): 20 records were read, there are 21"],
            ),
            (
                more([(0, 0), (0, 0), (0, 5)]),
                &["partition 2 [70, 100): as many records"],
            ),
            (files(&[("a", 60, "1")]), &["b is missing"]),
            (
                files(&[("a", 61, "2"), ("b", 40, "1")]),
                &["a has changed: 60 bytes when it was read, 61 now"],
            ),
            (files(&[("a", 60, "2"), ("b", 40, "1")]), &["a was written again"]),
            (
                Now {
                    broken: Some(0),
                    ..same()
                },
                &["partition 0 [0, 50) cannot be read: no"],
            ),
        ];
        for (now, expected) in cases {
            check(&certificate(), now, expected);
        }
    }

    #[test]
    fn an_edited_certificate_contradicts_itself() {
        type Edit = fn(&mut Certificate);
        let cases: [(Edit, &str); 5] = [
            (|c| c.ranges[1].units.low = 51, "partition 1 begins at 51, not at 50"),
            (|c| c.domain.high = 101, "end at 100, the source at 101"),
            (|c| c.counters.read = 99, "sum to 100 records"),
            (|c| c.records.add(1), "fingerprint"),
            (|c| c.version = 9, "version 9"),
        ];
        for (edit, expected) in cases {
            let mut certificate = certificate();
            edit(&mut certificate);
            check(
                &certificate,
                Now {
                    files: SAME.to_vec(),
                    more: [(0, 0); 3],
                    broken: None,
                },
                &[expected],
            );
        }
    }
}

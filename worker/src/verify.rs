//! Verify: does a certificate still hold? Its source is read again, range by range, and compared.
//!
//! How a source is opened again is given by the caller; nothing of the output is touched.

use std::fmt;

use gapless_common::{
    attempt::RecordHash,
    certificate::{Certificate, RangeProof},
    error::TaskError,
    ids::{PartitionNo, Stage},
    plan::{LookupFile, PinnedFile},
    range::UnitRange,
};
use serde::Serialize;

use crate::source::lookup::changed;

/// So many names stand in a message; the rest is a count.
const LISTED: usize = 12;

/// The source of a certificate, opened anew.
pub trait Reopen {
    /// A pinned file as it is now; `None` where it is gone.
    fn look(&mut self, file: &PinnedFile) -> Result<Option<PinnedFile>, TaskError>;

    /// A file of a look-up as it is now, with the digest of its content where its size is the same; `None`
    /// where it is gone.
    fn look_up(&mut self, file: &LookupFile) -> Result<Option<LookupFile>, TaskError>;

    /// Reads one range of the source as the run did: the number of records and their fingerprint.
    fn read(&mut self, range: &RangeProof) -> Result<(u64, RecordHash), TaskError>;
}

/// A partition that read a range of the source. With an exchange that is one of the scatter stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reader {
    pub stage: Stage,
    pub partition: PartitionNo,
    #[serde(flatten)]
    pub units: UnitRange,
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stage {
            Stage::Scatter => write!(f, "scatter partition {} {}", self.partition, self.units),
            _ => write!(f, "partition {} {}", self.partition, self.units),
        }
    }
}

/// A way in which the certificate does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Difference {
    /// The certificate contradicts itself: it was damaged or edited.
    Certificate {
        what: String,
    },
    Missing {
        path: String,
        partitions: Vec<Reader>,
    },
    /// Another size: ranges that touch it are still compared.
    Resized {
        path: String,
        pinned: u64,
        now: u64,
        partitions: Vec<Reader>,
    },
    /// The same size, yet written since. Its content may be the same: the ranges tell.
    Touched {
        path: String,
        partitions: Vec<Reader>,
    },
    Count {
        #[serde(flatten)]
        reader: Reader,
        /// Those of the range that have been written since, or all of it where none has; none for numbers.
        files: Vec<String>,
        certified: u64,
        found: u64,
    },
    /// As many records, but not the same ones.
    Records {
        #[serde(flatten)]
        reader: Reader,
        /// As of `Count`.
        files: Vec<String>,
        certified: RecordHash,
        found: RecordHash,
    },
    /// The range could not be read.
    Unreadable {
        #[serde(flatten)]
        reader: Reader,
        /// As of `Count`.
        files: Vec<String>,
        reason: String,
    },
    /// A file of the output is not what was published.
    Output {
        path: String,
        what: String,
    },
    /// A look-up is not what the records were joined with.
    Lookup {
        lookup: String,
        path: String,
        what: String,
    },
}

impl Difference {
    /// Whether the records differ from what the run read, or may; a file that was only touched is
    /// worth a word, no more.
    pub fn breaks(&self) -> bool {
        !matches!(self, Difference::Touched { .. })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Certificate { what } => write!(f, "the certificate contradicts itself: {what}"),
            Difference::Missing { path, partitions } => write!(f, "{path} is missing{}", read_by(partitions)),
            Difference::Resized {
                path,
                pinned,
                now,
                partitions,
            } => {
                let by = read_by(partitions);
                write!(f, "{path} has changed: {pinned} bytes when it was read, {now} now{by}")
            }
            Difference::Touched { path, partitions } => {
                write!(f, "{path} was written again since it was read{}", read_by(partitions))
            }
            Difference::Count {
                reader,
                files,
                certified,
                found,
            } => {
                let of = listed(files);
                write!(f, "{of}{reader}: {certified} records were read, there are {found} now")
            }
            Difference::Records {
                reader,
                files,
                certified,
                found,
            } => write!(
                f,
                "{}{reader}: as many records as were read, but not the same ones (fingerprint {certified}, now {found})",
                listed(files)
            ),
            Difference::Unreadable { reader, files, reason } => {
                write!(f, "{}{reader} cannot be read: {reason}", listed(files))
            }
            Difference::Output { path, what } => write!(f, "the output {path} {what}"),
            Difference::Lookup { lookup, what, .. } => write!(f, "look-up {lookup}: {what}"),
        }
    }
}

/// The files that a difference is about, for the beginning of a sentence.
fn listed(files: &[String]) -> String {
    let names = files.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    match (files.len(), files.len().saturating_sub(LISTED)) {
        (0, _) => String::new(),
        (_, 0) => format!("{names}, "),
        (_, more) => format!("{names} and {more} more files, "),
    }
}

/// Which partitions read a file, for the end of a sentence.
fn read_by(partitions: &[Reader]) -> String {
    let listed: Vec<String> = partitions.iter().take(LISTED).map(ToString::to_string).collect();
    match (listed.is_empty(), partitions.len() - listed.len()) {
        (true, _) => String::new(),
        (false, 0) => format!("; read by {}", listed.join(", ")),
        (false, more) => format!("; read by {} and {more} more", listed.join(", ")),
    }
}

/// Files that the job's paths match by now, beside those that the run read. The certificate holds all the
/// same: it speaks of what was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// `None` for the source.
    pub lookup: Option<String>,
    /// The paths and globs, as the job file has them.
    pub patterns: Vec<String>,
    pub files: Vec<String>,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(lookup) = &self.lookup {
            write!(f, "look-up {lookup}: ")?;
        }
        let matches = if self.files.len() == 1 {
            "file matches"
        } else {
            "files match"
        };
        let listed: Vec<&str> = self.files.iter().take(LISTED).map(String::as_str).collect();
        write!(
            f,
            "{} {matches} {} now that the run did not read: {}",
            self.files.len(),
            self.patterns.join(", "),
            listed.join(", ")
        )?;
        match self.files.len() - listed.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Compares a certificate with itself and with its source and look-ups as they are now. Empty: it holds.
pub fn verify(certificate: &Certificate, source: &mut dyn Reopen) -> Vec<Difference> {
    let mut differences = contradictions(certificate);
    let mut gone = Vec::new();
    // The others that are not as they were.
    let mut written = Vec::new();
    for (units, file) in placed(certificate) {
        let path = || file.path.clone();
        let partitions = || readers(certificate, units);
        match source.look(file) {
            Ok(None) => {
                gone.push(units);
                differences.push(Difference::Missing {
                    path: path(),
                    partitions: partitions(),
                });
            }
            Ok(Some(now)) if now.size != file.size => {
                written.push((units, file));
                differences.push(Difference::Resized {
                    path: path(),
                    pinned: file.size,
                    now: now.size,
                    partitions: partitions(),
                });
            }
            Ok(Some(now)) if now.etag != file.etag => {
                written.push((units, file));
                differences.push(Difference::Touched {
                    path: path(),
                    partitions: partitions(),
                });
            }
            Ok(Some(_)) => {}
            // Whoever reads it will tell.
            Err(_) => {}
        }
    }
    for range in &certificate.ranges {
        // A missing file explains the ranges that touch it.
        if gone.iter().any(|file| overlap(*file, range.units)) {
            continue;
        }
        let touching = |files: &mut dyn Iterator<Item = (UnitRange, &PinnedFile)>| -> Vec<String> {
            let touching = files.filter(|(units, _)| overlap(*units, range.units));
            touching.map(|(_, file)| file.path.clone()).collect()
        };
        let files = || match touching(&mut written.iter().copied()) {
            // Whoever has changed one of them has put its time back.
            none if none.is_empty() => touching(&mut placed(certificate)),
            written => written,
        };
        let found = source.read(range);
        differences.extend(compare(reader(certificate, range), range, found, &files));
    }
    for lookup in &certificate.lookups {
        let files = lookup.files.iter();
        differences.extend(files.filter_map(|file| compare_lookup(&lookup.name, file, source.look_up(file))));
    }
    differences
}

/// The files of the source, each with its units.
fn placed(certificate: &Certificate) -> impl Iterator<Item = (UnitRange, &PinnedFile)> {
    let mut low = certificate.domain.low;
    certificate.files.iter().map(move |file| {
        let units = UnitRange::new(low, low + file.units);
        low = units.high;
        (units, file)
    })
}

fn overlap(one: UnitRange, other: UnitRange) -> bool {
    one.low < other.high && other.low < one.high
}

/// The ranges of a certificate are those of whoever read the source.
fn reader(certificate: &Certificate, range: &RangeProof) -> Reader {
    Reader {
        stage: match certificate.exchange.is_empty() {
            true => Stage::Execute,
            false => Stage::Scatter,
        },
        partition: range.partition,
        units: range.units,
    }
}

/// Who read these units.
fn readers(certificate: &Certificate, units: UnitRange) -> Vec<Reader> {
    let touching = certificate.ranges.iter().filter(|range| overlap(units, range.units));
    touching.map(|range| reader(certificate, range)).collect()
}

fn compare_lookup(
    lookup: &str,
    pinned: &LookupFile,
    found: Result<Option<LookupFile>, TaskError>,
) -> Option<Difference> {
    let what = match found {
        Ok(Some(now)) => changed(pinned, &now)?,
        Ok(None) => format!("{} is missing", pinned.path),
        Err(error) => error.message,
    };
    Some(Difference::Lookup {
        lookup: lookup.to_string(),
        path: pinned.path.clone(),
        what,
    })
}

fn compare(
    reader: Reader,
    range: &RangeProof,
    found: Result<(u64, RecordHash), TaskError>,
    files: &dyn Fn() -> Vec<String>,
) -> Option<Difference> {
    match found {
        Err(error) => Some(Difference::Unreadable {
            reader,
            files: files(),
            reason: error.message,
        }),
        Ok((found, _)) if found != range.read => Some(Difference::Count {
            reader,
            files: files(),
            certified: range.read,
            found,
        }),
        Ok((_, found)) if found != range.records => Some(Difference::Records {
            reader,
            files: files(),
            certified: range.records,
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
        certificate::{ExchangeProof, Reading, Strength},
        error::ErrorClass,
        ids::RunId,
        job::Job,
        plan::{PinnedLookup, Unit},
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
                    priority: Default::default(),
                    steps: vec![],
                    redrive: None,
                },
                base_dir: "/".into(),
                unit: Unit::Byte,
                columns: vec![],
                read_columns: None,
                inputs: Vec::new(),
                output: Vec::new(),
            },
            files: vec![file("a", 60), file("b", 40)],
            lookups: vec![PinnedLookup {
                name: "names".into(),
                files: vec![lookup_file("n", 7, "d1")],
            }],
            domain: UnitRange::new(0, 100),
            ranges: vec![range(0, 0, 50), range(1, 50, 70), range(2, 70, 100)],
            exchange: vec![],
            counters: Counters {
                read: 100,
                written: 100,
                ..Counters::default()
            },
            records: RecordHash((0..100).sum()),
            outputs: Default::default(),
            rejects: Vec::new(),
            reconciled: Some(true),
        }
    }

    fn lookup_file(path: &str, size: u64, digest: &str) -> LookupFile {
        LookupFile {
            path: path.into(),
            size,
            etag: String::new(),
            digest: digest.into(),
        }
    }

    /// Files as (path, size, etag), and what each range gives now beyond what it gave.
    struct Now {
        files: Vec<(&'static str, u64, &'static str)>,
        more: [(u64, u128); 3],
        broken: Option<PartitionNo>,
        lookup: Option<LookupFile>,
    }

    impl Reopen for Now {
        fn look_up(&mut self, _: &LookupFile) -> Result<Option<LookupFile>, TaskError> {
            Ok(self.lookup.clone())
        }

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

    fn same() -> Now {
        Now {
            files: SAME.to_vec(),
            more: [(0, 0); 3],
            broken: None,
            lookup: Some(lookup_file("n", 7, "d1")),
        }
    }

    #[test]
    fn what_differs_is_told_by_partition_and_file() {
        let files = |files: &[(&'static str, u64, &'static str)]| Now {
            files: files.to_vec(),
            ..same()
        };
        let more = |more| Now { more, ..same() };
        let lookup = |lookup| Now { lookup, ..same() };
        let cases: [(Now, &[&str]); 11] = [
            (same(), &[]),
            (
                more([(0, 0), (1, 5), (0, 0)]),
                &["a, b, partition 1 [50, 70): 20 records were read, there are 21"],
            ),
            (
                more([(0, 0), (0, 0), (0, 5)]),
                &["b, partition 2 [70, 100): as many records"],
            ),
            (
                Now {
                    more: [(0, 0), (0, 5), (0, 0)],
                    ..files(&[("a", 60, "2"), ("b", 40, "1")])
                },
                &["a was written again", "a, partition 1 [50, 70): as many records"],
            ),
            (
                files(&[("a", 60, "1")]),
                &["b is missing; read by partition 1 [50, 70), partition 2 [70, 100)"],
            ),
            (
                files(&[("a", 61, "2"), ("b", 40, "1")]),
                &[
                    "a has changed: 60 bytes when it was read, 61 now; read by partition 0 [0, 50), partition 1 [50, 70)",
                ],
            ),
            (lookup(None), &["look-up names: n is missing"]),
            (
                lookup(Some(lookup_file("n", 8, ""))),
                &["look-up names: n changed since this run was planned: it had 7 bytes, now 8"],
            ),
            (
                lookup(Some(lookup_file("n", 7, "d2"))),
                &["7 bytes as before, but not the same ones (digest d1, now d2)"],
            ),
            (files(&[("a", 60, "2"), ("b", 40, "1")]), &["a was written again"]),
            (
                Now {
                    broken: Some(0),
                    ..same()
                },
                &["a, partition 0 [0, 50) cannot be read: no"],
            ),
        ];
        for (now, expected) in cases {
            check(&certificate(), now, expected);
        }
    }

    #[test]
    fn with_an_exchange_the_scatter_partitions_are_named() {
        let mut certificate = certificate();
        certificate.exchange = vec![ExchangeProof {
            partition: 0,
            units: UnitRange::new(0, 8),
            scattered_rows: 100,
            read_rows: 100,
            scattered: certificate.records,
            read: certificate.records,
        }];
        let now = Now {
            files: vec![("a", 60, "1"), ("b", 41, "2")],
            more: [(0, 0), (0, 0), (1, 100)],
            ..same()
        };
        check(
            &certificate,
            now,
            &[
                "b has changed: 40 bytes when it was read, 41 now; read by scatter partition 1 [50, 70), scatter partition 2",
                "b, scatter partition 2 [70, 100): 30 records were read, there are 31 now",
            ],
        );
    }

    #[test]
    fn a_certificate_of_a_release_without_pinned_look_ups_is_read() {
        let mut certificate = certificate();
        certificate.lookups.clear();
        let text = serde_json::to_string(&certificate).unwrap();
        assert!(!text.contains("lookups\":["), "{text}");
        assert_eq!(serde_json::from_str::<Certificate>(&text).unwrap(), certificate);
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
            check(&certificate, same(), &[expected]);
        }
    }
}

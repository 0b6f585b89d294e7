//! Golden records: what lies beside output, as each release whose records are still read has written it:
//! `tests/golden/<record>-v<version>.json`. Outputs outlive releases by years, so these files stay for good.
//!
//! While a version is not released its file follows the code: `REWRITE=1 cargo test --release -p
//! gapless-common --test golden` writes it again, to be read as a diff.

use std::{fmt::Debug, fs, path::PathBuf};

use gapless_common::{
    attempt::{Counters, Fence, RecordHash},
    certificate::{Certificate, ExchangeProof, RangeProof, Reading, Strength},
    ids::{AttemptId, RunId, Term},
    job::Job,
    manifest::{ChunkManifest, DataFile, Verdict, VerdictKind, Version},
    plan::{Column, LookupFile, PinnedFile, PinnedLookup, Unit},
    range::UnitRange,
};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

const RUN: RunId = RunId(Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0001));

/// What is written now is what the golden record says, and a record without its version reads as the first.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, record: &T) {
    let path = PathBuf::from(format!("tests/golden/{name}-v1.json"));
    let now = serde_json::to_string_pretty(record).expect("JSON") + "\n";
    if std::env::var_os("REWRITE").is_some() {
        fs::write(&path, &now).expect("written");
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        now, golden,
        "\nA {name} has another form than version 1 says. Is that released? Then add what is new as optional, or raise \
         the version and read both. If it is not released: REWRITE=1 cargo test --release -p gapless-common --test golden\n"
    );
    let again: T = serde_json::from_str(&golden).expect("it is read");
    assert_eq!(again, *record);
}

fn file(path: &str) -> DataFile {
    DataFile {
        path: path.into(),
        rows: 7,
        bytes: 700,
        checksum: "0123456789abcdef".into(),
        multiline: false,
    }
}

const COUNTERS: Counters = Counters {
    read: 10,
    written: 7,
    filtered: 2,
    rejected: 1,
    bytes_read: 1000,
    bytes_written: 700,
};

fn verdict() -> Verdict {
    Verdict {
        version: Version::default(),
        verdict: VerdictKind::Committed,
        run: RUN,
        step: 1,
        edition: 0,
        step_name: "load".into(),
        generation: 3,
        seal: u64::MAX,
        replaces: true,
        rows: 7,
        bytes: 700,
        files: vec![file("day=2026-11-20/part-00003-905-17-0.parquet")],
    }
}

#[test]
fn verdicts_and_manifests_have_the_form_of_their_version() {
    check("verdict", &verdict());
    let manifest = ChunkManifest {
        version: Version::default(),
        run: RUN,
        step: 1,
        partition: 3,
        fence: Fence {
            number: 2,
            id: AttemptId {
                term: Term(905),
                serial: 17,
            },
        },
        seq: 4,
        previous: 100,
        next: 200,
        counters: COUNTERS,
        records: RecordHash(1 << 127),
        files: vec![file("part-00003-905-17-4.csv")],
        order: None,
        rejects: Some(file("part-00003-905-17-4.ndjson")),
        totals: Vec::new(),
        inputs: Vec::new(),
        keys: None,
    };
    check("manifest", &manifest);
}

#[test]
fn a_record_without_a_version_is_of_the_first_and_one_of_a_later_version_is_refused_in_words() {
    let now = serde_json::to_string(&verdict()).expect("JSON");
    let without = now.replace(r#""version":1,"#, "");
    assert_ne!(without, now);
    assert_eq!(
        serde_json::from_str::<Verdict>(&without).expect("it is read"),
        verdict()
    );
    let later = now.replace(r#""version":1"#, r#""version":2"#);
    let said = serde_json::from_str::<Verdict>(&later).unwrap_err().to_string();
    assert!(said.contains("it has version 2, and this release reads 1"), "{said}");
}

#[test]
fn certificates_have_the_form_of_their_version() {
    let units = UnitRange { low: 0, high: 4096 };
    let records = RecordHash(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    let certificate = Certificate {
        version: Certificate::VERSION,
        job: "sales".into(),
        run: RUN,
        step: 1,
        step_name: "load".into(),
        strength: Strength::Proved,
        reading: Reading {
            // The job's own form is in the golden rows of gapless-core.
            job: Job {
                priority: Default::default(),
                name: "sales".into(),
                parameters: Default::default(),
                steps: Vec::new(),
                redrive: None,
            },
            base_dir: "/jobs".into(),
            unit: Unit::Byte,
            columns: vec![Column {
                name: "id".into(),
                ty: "Int64".into(),
                nullable: true,
                key_type: None,
            }],
            read_columns: Some(vec!["id".into()]),
            inputs: Vec::new(),
            output: vec![Column {
                name: "id".into(),
                ty: "Int64".into(),
                nullable: true,
                key_type: None,
            }],
        },
        files: vec![PinnedFile {
            path: "/data/sales.csv".into(),
            size: 4096,
            etag: "1795171200000000000-7".into(),
            units: 4096,
            rows: Some(10),
        }],
        lookups: vec![PinnedLookup {
            name: "shops".into(),
            files: vec![LookupFile {
                path: "/data/shops.csv".into(),
                size: 100,
                etag: "1795171200000000000-8".into(),
                digest: "0123456789abcdef0123456789abcdef".into(),
            }],
        }],
        domain: units,
        ranges: vec![RangeProof {
            partition: 0,
            units,
            read: 10,
            records,
        }],
        exchange: vec![ExchangeProof {
            partition: 0,
            units: UnitRange { low: 0, high: 64 },
            scattered_rows: 9,
            read_rows: 9,
            scattered: records,
            read: records,
        }],
        counters: COUNTERS,
        records,
        rejects: Vec::new(),
        outputs: Default::default(),
        reconciled: Some(true),
    };
    check("certificate", &certificate);
}

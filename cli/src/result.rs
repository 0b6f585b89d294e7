//! What is said when a run has ended: the result of each step, what its certificate proves, and
//! where to look next. Pure, but for reading the certificate that a step names.

use std::fs;

use gapless_common::certificate::{Certificate, Strength};
use gapless_proto::v1::{Run, RunState, StepStatus};

use crate::{
    failure::{Failure, Kind},
    output::Table,
    view,
    wording::{bytes, count, counted, short, span},
};

/// One row for each step: what became of the records, and where they are.
pub fn table(run: &Run) -> String {
    let mut table = Table::new(&[
        "STEP",
        "STATE",
        ">READ",
        ">WRITTEN",
        ">FILTERED",
        ">REJECTED",
        ">ROWS",
        ">FILES",
        ">TIME",
        "OUTPUT",
    ]);
    for step in &run.steps {
        let counters = step.counters.unwrap_or_default();
        let published = step.state == "published";
        let only_published = |number: u64| if published { count(number) } else { String::new() };
        let time = match (step.started_micros, step.finished_micros) {
            (started, finished) if started > 0 && finished >= started => span(finished - started),
            _ => String::new(),
        };
        table.row([
            step.name.clone(),
            step.state.clone(),
            count(counters.read),
            count(counters.written),
            count(counters.filtered),
            count(counters.rejected),
            only_published(step.output_rows),
            only_published(step.output_files),
            time,
            step.output.clone(),
        ]);
    }
    table.text()
}

/// The certificates of the published steps, in words.
pub fn certificates(run: &Run) -> Vec<String> {
    let published = run.steps.iter().filter(|step| step.state == "published");
    published
        .flat_map(|step| {
            let certificate = fs::read_to_string(&step.certificate).ok();
            let certificate = certificate.and_then(|text| serde_json::from_str(&text).ok());
            certificate_words(step, certificate.as_ref())
        })
        .collect()
}

/// What a step's certificate proves. Without the certificate at hand (it lies on another machine)
/// the words are those of the coordinator's summary.
pub fn certificate_words(step: &StepStatus, certificate: Option<&Certificate>) -> Vec<String> {
    let mut lines = Vec::new();
    match certificate {
        Some(certificate) => {
            let proved = match certificate.strength {
                Strength::Proved => "proved",
                Strength::Counted => "counted",
            };
            let size: u64 = certificate.files.iter().map(|file| file.size).sum();
            let of = match certificate.files.len() {
                0 => String::new(),
                files => format!(" of {} ({})", counted(files as u64, "file"), bytes(size)),
            };
            lines.push(format!(
                "{}: {proved}: {}{of} read once, in {} without gap or overlap",
                step.name,
                counted(certificate.counters.read, "record"),
                counted(certificate.ranges.len() as u64, "range"),
            ));
            if !certificate.exchange.is_empty() {
                let scattered: u64 = certificate.exchange.iter().map(|proof| proof.scattered_rows).sum();
                let read: u64 = certificate.exchange.iter().map(|proof| proof.read_rows).sum();
                lines.push(format!(
                    "  exchange: {} scattered, {} read back, in {}",
                    count(scattered),
                    count(read),
                    counted(certificate.exchange.len() as u64, "partition")
                ));
            }
            if !certificate.outputs.is_empty() {
                let outputs = certificate.outputs.iter();
                let outputs: Vec<String> = outputs.map(|(name, rows)| format!("{name} {}", count(*rows))).collect();
                lines.push(format!("  rows of each output: {}", outputs.join(", ")));
            }
            let counters = certificate.counters;
            let balance = format!(
                "{} read = {} written + {} filtered + {} rejected",
                count(counters.read),
                count(counters.written),
                count(counters.filtered),
                count(counters.rejected)
            );
            lines.extend(certificate.reconciled.map(|holds| match holds {
                true => format!("  counts reconcile: {balance}"),
                false => format!("  counts do NOT reconcile: {balance} does not hold"),
            }));
        }
        None => lines.push(format!(
            "{}: {} read once",
            step.name,
            counted(step.source_rows, "record")
        )),
    }
    lines.push(format!("  fingerprint of the records: {}", step.records));
    lines.push(format!("  certificate: {}", step.certificate));
    lines
}

/// Commands that show more, as lines. `target` is what makes them reach the same store.
pub fn next(run: &Run, target: &str) -> Vec<String> {
    let id = short(&run.id);
    let mut found: Vec<(String, &str)> = Vec::new();
    let mut add = |command: String, about| found.push((command, about));
    add(
        format!("gapless describe {id}{target}"),
        "steps, partitions, attempts, events",
    );
    if run.state() != RunState::Completed {
        add(format!("gapless logs {id}{target}"), "what happened, in order");
    }
    // A step over its limit has committed nothing, and an error says where they lie.
    let rejected = |step: &StepStatus| {
        step.counters.is_some_and(|counters| counters.rejected > 0)
            || (!step.rejects.is_empty()
                && [&run.error, &step.error]
                    .iter()
                    .any(|error| error.contains(&step.rejects)))
    };
    if run.steps.iter().any(rejected) {
        add(
            format!("gapless rejects {id}{target}"),
            "the rejected records, with their places and reasons",
        );
    }
    if run.state() == RunState::Completed {
        add(
            format!("gapless verify {id}{target}"),
            "reads source and output again: does the certificate still hold?",
        );
    }
    add(format!("gapless list {}{target}", run.job), "the runs of this job");
    let width = found
        .iter()
        .map(|(command, _)| command.chars().count())
        .max()
        .unwrap_or(0);
    let lines = found
        .iter()
        .map(|(command, about)| format!("  {command:<width$}  {about}"));
    std::iter::once("Where to look next:".to_string())
        .chain(lines)
        .collect()
}

/// The end of a run as the end of the verb that waited for it. `again` is the command that goes on.
pub fn outcome(run: &Run, again: &str) -> Result<(), Failure> {
    let id = short(&run.id);
    let because = match run.error.is_empty() {
        true => String::new(),
        false => format!(": {}", run.error),
    };
    let message = match run.state() {
        RunState::Completed => return Ok(()),
        RunState::Failed => format!(
            "run {id} of {} failed{because}\nMend what is wrong, then `{again}`: what is committed is not done again, unless an \
             input of its step has changed: such a step begins anew. A changed job file is another job, which begins anew.",
            run.job
        ),
        RunState::Stopped => format!(
            "run {id} of {} was stopped{because}\n`{again}` goes on from there.",
            run.job
        ),
        RunState::Cancelled => {
            let kept = run.steps.iter().filter(|step| step.state == "published").count();
            let kept = match kept {
                0 => "nothing of it is published".to_string(),
                kept => format!("{} published before it stay", counted(kept as u64, "step")),
            };
            format!("run {id} of {} was cancelled{because}; {kept}", run.job)
        }
        _ => format!("run {id} of {} is {}{because}", run.job, view::state_name(run)),
    };
    Err(Failure::new(Kind::Failed, message))
}

#[cfg(test)]
mod tests {
    use gapless_common::{
        attempt::{Counters, RecordHash},
        certificate::{ExchangeProof, RangeProof, Reading},
        ids::RunId,
        job::Job,
        plan::{PinnedFile, Unit},
        range::UnitRange,
    };
    use gapless_proto::v1;

    use super::*;

    fn published() -> StepStatus {
        StepStatus {
            name: "load".into(),
            state: "published".into(),
            counters: Some(v1::Counters {
                read: 6000,
                written: 5990,
                filtered: 4,
                rejected: 6,
                ..Default::default()
            }),
            started_micros: 1_000_000,
            finished_micros: 3_500_000,
            output: "/data/out".into(),
            certificate: "/data/out/_gapless/certificate.json".into(),
            output_rows: 5990,
            output_files: 8,
            records: "00ff".into(),
            source_rows: 6000,
            ..Default::default()
        }
    }

    fn run(state: RunState, steps: Vec<StepStatus>) -> Run {
        Run {
            id: "0192f3a4-5b6c-7d8e-9f00-112233445566".into(),
            job: "nightly".into(),
            state: state.into(),
            error: "disk full".into(),
            steps,
            ..Default::default()
        }
    }

    fn certificate() -> Certificate {
        let proof = |partition, low, high, read| RangeProof {
            partition,
            units: UnitRange::new(low, high),
            read,
            records: RecordHash(1),
        };
        Certificate {
            version: Certificate::VERSION,
            job: "nightly".into(),
            run: RunId("0192f3a4-5b6c-7d8e-9f00-112233445566".parse().expect("an id")),
            step: 0,
            step_name: "load".into(),
            strength: Strength::Proved,
            reading: Reading {
                job: Job {
                    name: "nightly".into(),
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
            files: vec![PinnedFile {
                path: "a.csv".into(),
                size: 1_234_000,
                etag: String::new(),
                units: 1_234_000,
                rows: None,
            }],
            lookups: Vec::new(),
            domain: UnitRange::new(0, 1_234_000),
            ranges: vec![proof(0, 0, 600_000, 3000), proof(1, 600_000, 1_234_000, 3000)],
            exchange: vec![ExchangeProof {
                partition: 0,
                units: UnitRange::new(0, 256),
                scattered_rows: 6000,
                read_rows: 6000,
                scattered: RecordHash(2),
                read: RecordHash(2),
            }],
            counters: Counters {
                read: 6000,
                written: 5990,
                filtered: 4,
                rejected: 6,
                ..Default::default()
            },
            records: RecordHash(2),
            rejects: Vec::new(),
            outputs: Default::default(),
            reconciled: Some(true),
        }
    }

    #[test]
    fn the_result_is_a_row_for_each_step() {
        let waiting = StepStatus {
            name: "by-supplier".into(),
            state: "waiting".into(),
            ..Default::default()
        };
        let expected = "\
STEP         STATE       READ  WRITTEN  FILTERED  REJECTED   ROWS  FILES   TIME  OUTPUT
load         published  6,000    5,990         4         6  5,990      8  2.5 s  /data/out
by-supplier  waiting        0        0         0         0      -      -      -  -
";
        assert_eq!(table(&run(RunState::Running, vec![published(), waiting])), expected);
    }

    #[test]
    fn a_certificate_in_words() {
        let expected = "\
load: proved: 6,000 records of 1 file (1.2 MB) read once, in 2 ranges without gap or overlap
  exchange: 6,000 scattered, 6,000 read back, in 1 partition
  counts reconcile: 6,000 read = 5,990 written + 4 filtered + 6 rejected
  fingerprint of the records: 00ff
  certificate: /data/out/_gapless/certificate.json";
        assert_eq!(
            certificate_words(&published(), Some(&certificate())).join("\n"),
            expected
        );
        assert_eq!(
            certificate_words(&published(), None)[0],
            "load: 6,000 records read once",
            "nothing is claimed that was not seen"
        );
        let broken = Certificate {
            outputs: Default::default(),
            reconciled: Some(false),
            ..certificate()
        };
        assert!(certificate_words(&published(), Some(&broken))[2].contains("NOT reconcile"));
    }

    #[test]
    fn only_a_completed_run_is_a_success() {
        let end = |state| outcome(&run(state, vec![published()]), "gapless run job.yaml").err();
        assert_eq!(end(RunState::Completed), None);
        for (state, words) in [
            (
                RunState::Failed,
                "run 0192f3a4-5b6c of nightly failed: disk full\nMend what is wrong, then `gapless run job.yaml`",
            ),
            (
                RunState::Stopped,
                "was stopped: disk full\n`gapless run job.yaml` goes on",
            ),
            (
                RunState::Cancelled,
                "cancelled: disk full; 1 step published before it stay",
            ),
        ] {
            let failure = end(state).expect("a failure");
            assert_eq!(failure.kind, Kind::Failed);
            assert!(failure.message.contains(words), "{failure}");
        }
    }

    #[test]
    fn what_to_look_at_next_reaches_the_same_store() {
        let lines = next(&run(RunState::Completed, vec![]), " --state /data/.gapless").join("\n");
        assert!(
            lines.contains("gapless verify 0192f3a4-5b6c --state /data/.gapless"),
            "{lines}"
        );
        assert!(!next(&run(RunState::Failed, vec![]), "").join("\n").contains("verify"));
    }
}

//! Publishing seen from the output: whatever is cut off, and whoever else is at it.

mod world;

use std::{fs, path::Path};

use gapless_common::{
    attempt::Counters,
    certificate::Certificate,
    ids::Stage,
    job::{FileSink, IfUnchanged, Sink, Step},
    manifest::{ChunkManifest, Version},
};
use uuid::Uuid;

use super::*;
use crate::{sink::ChunkTarget, storage::list_folder};
use world::*;

fn sinks(exists: Exists) -> Vec<Sink> {
    let plain = file_sink(exists);
    let merged = FileSink {
        files: Some(2),
        ..plain.clone()
    };
    let hive = FileSink {
        partition_by: vec!["k".into()],
        ..plain.clone()
    };
    let both = FileSink {
        files: Some(1),
        ..hive.clone()
    };
    [plain, merged, hive, both].into_iter().map(Sink::Csv).collect()
}

const MODES: [Exists; 3] = [Exists::Fail, Exists::Replace, Exists::Append];

/// Runs a publisher that is killed after its `actions`-th action.
fn killed(sealed: &Sealed<'_>, actions: usize) -> Result<Publication, TaskError> {
    let mut left = actions;
    publish(sealed, &mut |_| {
        if left == 0 {
            return Err(TaskError::new(ErrorClass::WorkerLost, "killed"));
        }
        left -= 1;
        Ok(())
    })
}

#[test]
fn a_killed_publisher_is_finished_by_the_next() {
    for exists in MODES {
        for sink in sinks(exists) {
            for actions in 0.. {
                let folder = tempfile::tempdir().unwrap();
                let former = former(folder.path(), exists);
                let run = Run::executed(folder.path(), 1, sink.clone());
                let ended = killed(&run.sealed(30), actions);
                run.zombie(31);
                // Once more killed right behind, then whole, then once more for good measure.
                let _ = killed(&run.sealed(32), actions + 1);
                let publication = run.publish(33).unwrap();
                check_published(&run, &publication, &former);
                assert_eq!(run.publish(34).unwrap(), publication);
                check_published(&run, &publication, &former);
                if ended.is_ok() {
                    assert!(actions >= 6, "every action was a place to be killed at, {actions}");
                    break;
                }
            }
        }
    }
}

#[test]
fn two_publishers_agree() {
    for exists in MODES {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let former = former(folder.path(), exists);
            let run = Run::executed(folder.path(), 1, Sink::Csv(file_sink(exists)));
            let (one, other) = std::thread::scope(|scope| {
                let one = scope.spawn(|| run.publish(30));
                let other = scope.spawn(|| run.publish(31));
                (one.join().unwrap(), other.join().unwrap())
            });
            // Either may stumble over the other's sweep; it says so as something that may pass.
            let results = [one, other];
            assert!(results.iter().any(Result::is_ok), "{results:?}");
            for error in results.iter().filter_map(|result| result.as_ref().err()) {
                assert_eq!(error.class, ErrorClass::Transient, "{error}");
            }
            let publication = run.publish(32).unwrap();
            for result in results.iter().flatten() {
                assert_eq!(result, &publication);
            }
            check_published(&run, &publication, &former);
            assert_eq!(list_folder(&run.folders().published()).unwrap(), ["000001.json"]);
        }
    }
}

#[test]
fn an_abort_and_a_publisher_agree() {
    let mut outcomes = [0, 0];
    for round in 0..48 {
        let exists = MODES[round % 3];
        // The abort begins after so many actions of the publisher; from then on they race.
        let (start, actions) = std::sync::mpsc::channel();
        let head_start = round / 3 % 4;
        let folder = tempfile::tempdir().unwrap();
        let former = former(folder.path(), exists);
        let run = Run::executed(folder.path(), 1, Sink::Csv(file_sink(exists)));
        let (published, aborted) = std::thread::scope(|scope| {
            let run = &run;
            let publisher = scope.spawn(move || {
                publish(&run.sealed(30), &mut |_| {
                    let _ = start.send(());
                    Ok(())
                })
            });
            let abort = scope.spawn(move || {
                actions.iter().take(head_start).for_each(drop);
                run.abort(31)
            });
            (publisher.join().unwrap(), abort.join().unwrap())
        });
        assert!(
            head_start < 3 || published.is_ok(),
            "the verdict stood when the abort began"
        );
        // Whoever was disturbed by the other's sweep asks again, as the leader would have it do.
        let aborted = aborted.or_else(|_| run.abort(32)).unwrap();
        let published = match published {
            Err(error) if error.class == ErrorClass::Transient => run.publish(33),
            result => result,
        };
        match aborted.verdict {
            VerdictKind::Committed => {
                outcomes[0] += 1;
                let publication = published.unwrap();
                assert_eq!(aborted.publication.as_ref(), Some(&publication));
                check_published(&run, &publication, &former);
            }
            VerdictKind::Aborted => {
                outcomes[1] += 1;
                assert_eq!(published.unwrap_err().class, ErrorClass::Config);
                assert_eq!(numbers(run.folders().output()), former);
                run.check_nothing_staged();
            }
        }
        assert_eq!(run.abort(34).unwrap(), aborted);
    }
    assert!(
        outcomes.iter().all(|&count| count > 0),
        "each won sometimes: {outcomes:?}"
    );
}

#[test]
fn an_abort_after_the_verdict_is_too_late_and_finishes_the_work() {
    for exists in MODES {
        // Killed with the verdict standing and nothing visible: read, laid out, decided.
        let folder = tempfile::tempdir().unwrap();
        let former = former(folder.path(), exists);
        let run = Run::executed(folder.path(), 1, Sink::Csv(file_sink(exists)));
        killed(&run.sealed(30), 2).unwrap_err();
        assert_eq!(numbers(run.folders().output()), former);
        let abortion = run.abort(31).unwrap();
        assert_eq!(abortion.verdict, VerdictKind::Committed);
        check_published(&run, &abortion.publication.unwrap(), &former);
    }
}

#[test]
fn nothing_is_published_after_an_abort() {
    for exists in MODES {
        let folder = tempfile::tempdir().unwrap();
        let former = former(folder.path(), exists);
        let run = Run::executed(folder.path(), 1, Sink::Csv(file_sink(exists)));
        // The publisher is paused with everything laid out.
        let mut abortion = None;
        let result = publish(&run.sealed(30), &mut |action| {
            if action == Action::LaidOut {
                abortion = Some(run.abort(31).unwrap());
            }
            Ok(())
        });
        assert_eq!(abortion.unwrap().verdict, VerdictKind::Aborted);
        assert_eq!(result.unwrap_err().class, ErrorClass::Config);
        assert_eq!(numbers(run.folders().output()), former);
        run.check_nothing_staged();
    }
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path(), 1, Sink::Csv(file_sink(Exists::Fail)));
    let abortion = abort_unprepared(&context, fence(1), &mut |_| Ok(())).unwrap();
    assert_eq!(abortion.verdict, VerdictKind::Aborted);
    assert_eq!(
        list_folder(folder.path()).unwrap(),
        Vec::<String>::new(),
        "a step that was not prepared leaves nothing"
    );
}

#[test]
fn an_edition_is_touched_by_nobody_of_the_one_before() {
    for exists in MODES {
        let folder = tempfile::tempdir().unwrap();
        let former = former(folder.path(), exists);
        let sink = || Sink::Csv(file_sink(exists));
        let first = Run::executed(folder.path(), 1, sink());
        // A publisher is paused with everything laid out. Meanwhile an abort creates its verdict and is paused before
        // its sweep, another one ends the abort, and the next edition is written.
        let mut second = None;
        let published = publish(&first.sealed(30), &mut |action| {
            if action == Action::LaidOut {
                let aborted = abort(&first.sealed(31), &mut |action| {
                    if action == Action::Decided {
                        assert_eq!(first.abort(32).unwrap().verdict, VerdictKind::Aborted);
                        second = Some(Run::executed_anew(folder.path(), 1, sink(), 1));
                    }
                    Ok(())
                });
                assert_eq!(aborted.unwrap().verdict, VerdictKind::Aborted);
            }
            Ok(())
        });
        assert_eq!(published.unwrap_err().class, ErrorClass::Config);
        let second = second.expect("the abort was paused");
        assert_eq!(first.abort(33).unwrap().verdict, VerdictKind::Aborted);
        assert_eq!(numbers(first.folders().output()), former);
        let publication = second.publish(40).unwrap();
        check_published(&second, &publication, &former);
        let shown = numbers(second.folders().output());
        assert_eq!(first.publish(41).unwrap_err().class, ErrorClass::Config);
        assert_eq!(first.abort(42).unwrap().verdict, VerdictKind::Aborted);
        assert_eq!(second.abort(43).unwrap().verdict, VerdictKind::Committed, "too late");
        assert_eq!(numbers(second.folders().output()), shown);
        second.check_nothing_staged();
    }
}

#[test]
fn a_verdict_that_was_aborted_hides_nothing_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let sink = || Sink::Csv(file_sink(Exists::Fail));
    let first = Run::executed(folder.path(), 1, sink());
    let second = Run::executed(folder.path(), 2, sink());
    let third = context(folder.path(), 3, sink());
    publish(&first.sealed(30), &mut |action| {
        // Decided and not yet to be seen.
        if action == Action::Decided {
            assert_eq!(second.abort(31).unwrap().verdict, VerdictKind::Aborted);
            let refused = prepare(&third, fence(32)).unwrap_err();
            assert!(refused.message.contains("is publishing to"), "{refused}");
        }
        Ok(())
    })
    .unwrap();
    let step = Step {
        if_unchanged: IfUnchanged::Skip,
        ..third.step().clone()
    };
    let stands = standing_certificate(&step, folder.path()).unwrap();
    assert_eq!(stands, Some(first.folders().certificate().display().to_string()));
}

#[test]
fn what_a_later_edition_has_published_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let sink = || Sink::Csv(file_sink(Exists::Fail));
    let mut first = Run::executed(folder.path(), 1, sink());
    assert_eq!(first.abort(30).unwrap().verdict, VerdictKind::Aborted);
    let second = Run::executed_anew(folder.path(), 1, sink(), 1);
    let published = second.publish(31).unwrap();
    // As a store knows the step that was restored from a copy of before.
    first.context.preparation = Some(serde_json::to_vec(&first.preparation).unwrap());
    let found = settle::published_already(&first.context)
        .expect("is published")
        .unwrap();
    assert_eq!(found.rows, published.rows);
}

#[test]
fn a_late_publisher_does_not_bring_back_what_was_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let sink = || Sink::Csv(file_sink(Exists::Replace));
    let first = Run::executed(folder.path(), 1, sink());
    // The first publisher is paused just before it exposes; another attempt does the work, and then
    // a second run replaces the output.
    let result = publish(&first.sealed(30), &mut |action| {
        if action == Action::Decided {
            first.publish(31).unwrap();
            let second = Run::executed(folder.path(), 2, sink());
            assert_eq!(second.preparation.generation, 2);
            second.publish(32).unwrap();
        }
        Ok(())
    });
    assert!(result.is_ok_and(|publication| publication.rows == 24));
    assert!(
        folder
            .path()
            .join("out/table/_gapless")
            .join(format!("certificate-0-{}.json", Uuid::from_u128(2)))
            .exists()
    );

    // The same where the first was never exposed at all.
    let folder = tempfile::tempdir().unwrap();
    let first = Run::executed(folder.path(), 1, sink());
    killed(&first.sealed(30), 2).unwrap_err();
    let second = Run::executed(folder.path(), 2, sink());
    let publication = second.publish(31).unwrap();
    first.publish(32).unwrap();
    check_published(&second, &publication, &[]);
}

#[test]
fn runs_that_append_both_count_whatever_their_names() {
    // Both were prepared for the same generation, and both stores gave the same attempt ids.
    let folder = tempfile::tempdir().unwrap();
    let sink = || Sink::Csv(file_sink(Exists::Append));
    let (one, other) = (
        Run::executed(folder.path(), 1, sink()),
        Run::executed(folder.path(), 2, sink()),
    );
    assert_eq!(one.preparation.generation, other.preparation.generation);
    one.publish(30).unwrap();
    other.publish(30).unwrap();
    let mut all = [expected(), expected()].concat();
    all.sort_unstable();
    assert_eq!(numbers(one.folders().output()), all);
    assert_eq!(
        list_folder(&one.folders().published()).unwrap(),
        ["000001.json", "000002.json"]
    );
}

#[test]
fn an_output_that_is_taken_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    former(folder.path(), Exists::Replace);
    let error = prepare(&context(folder.path(), 1, Sink::Csv(file_sink(Exists::Fail))), fence(1)).unwrap_err();
    assert_eq!(error.class, ErrorClass::Config);
    assert!(
        error.message.contains("out/table") && error.message.contains("exists: replace"),
        "{error}"
    );

    // Taken after prepare, by another run.
    let folder = tempfile::tempdir().unwrap();
    let sink = || Sink::Csv(file_sink(Exists::Fail));
    let (one, other) = (
        Run::executed(folder.path(), 1, sink()),
        Run::executed(folder.path(), 2, sink()),
    );
    let publication = one.publish(30).unwrap();
    let error = other.publish(31).unwrap_err();
    assert_eq!(error.class, ErrorClass::Config);
    assert!(error.message.contains(&one.context.run.to_string()), "{error}");
    check_published(&one, &publication, &[]);

    // An abort of another run changed nothing and stands in nobody's way.
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (
        Run::executed(folder.path(), 1, sink()),
        Run::executed(folder.path(), 2, sink()),
    );
    one.abort(30).unwrap();
    let publication = other.publish(31).unwrap();
    check_published(&other, &publication, &[]);

    let taken = folder.path().join("file");
    fs::write(&taken, "").unwrap();
    for path in ["file", "file/below"] {
        let sink = Sink::Csv(FileSink {
            path: path.into(),
            ..file_sink(Exists::Replace)
        });
        let error = prepare(&context(folder.path(), 3, sink), fence(1)).unwrap_err();
        assert_eq!(error.class, ErrorClass::Config, "{error}");
    }
}

#[test]
fn replace_removes_outputs_of_gapless_and_nothing_else() {
    let sink = || Sink::Csv(file_sink(Exists::Replace));
    let refused = |error: TaskError| {
        assert_eq!(error.class, ErrorClass::Config, "{error}");
        for words in ["out/table", "would remove it for good", "move it away"] {
            assert!(error.message.contains(words), "{error}");
        }
    };
    let foreign = |folder: &Path| {
        fs::create_dir_all(folder.join("out/table")).unwrap();
        fs::write(folder.join("out/table/thesis.txt"), "years of work").unwrap();
    };
    let kept = |folder: &Path| fs::read_to_string(folder.join("out/table/thesis.txt")).unwrap() == "years of work";

    // Before any work, also where a run that was aborted has left its control folder.
    let folder = tempfile::tempdir().unwrap();
    let aborted = Run::executed(folder.path(), 1, sink());
    aborted.abort(30).unwrap();
    foreign(folder.path());
    refused(prepare(&context(folder.path(), 2, sink()), fence(1)).unwrap_err());
    assert!(kept(folder.path()));

    // Made by somebody while the run was at work: it is not exposed over it, and goes on once it is away.
    let folder = tempfile::tempdir().unwrap();
    let run = Run::executed(folder.path(), 1, sink());
    foreign(folder.path());
    refused(run.publish(30).unwrap_err());
    assert!(kept(folder.path()));
    fs::rename(folder.path().join("out/table"), folder.path().join("mine")).unwrap();
    let publication = run.publish(31).unwrap();
    check_published(&run, &publication, &[]);

    // An output that lost its `_gapless` folder on the way: its verdict lists its files.
    fs::remove_dir_all(folder.path().join("out/table/_gapless")).unwrap();
    let next = Run::executed(folder.path(), 2, sink());
    let publication = next.publish(32).unwrap();
    check_published(&next, &publication, &[]);

    // An empty folder is nobody's.
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("out/table")).unwrap();
    let run = Run::executed(folder.path(), 1, sink());
    let publication = run.publish(30).unwrap();
    check_published(&run, &publication, &[]);
}

#[test]
fn what_does_not_add_up_is_not_published() {
    type Spoil = fn(&mut Run);
    let cases: [(&str, Spoil); 9] = [
        ("begins at 15 where the one before ended at 14", |run| {
            // A hole between two chunks that the sums do not show.
            let name = crate::storage::ChunkName {
                stage: Stage::Execute,
                partition: 1,
                attempt: fence(11).id,
                seq: 1,
            };
            let path = run.folders().manifest_file(name);
            let mut manifest: ChunkManifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            manifest.previous += 1;
            fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
        }),
        ("is missing", |run| {
            let name = crate::storage::ChunkName {
                stage: Stage::Execute,
                partition: 1,
                attempt: fence(11).id,
                seq: 1,
            };
            fs::remove_file(run.folders().manifest_file(name)).unwrap();
        }),
        ("the coordinator recorded", |run| run.execute[1].counters.read += 1),
        ("the coordinator recorded", |run| run.execute[1].records.add(1)),
        ("is not complete", |run| run.execute[2].position -= 1),
        ("its commits end at", |run| run.execute[2].segments[0].next_seq = 1),
        ("no attempt is recorded for commit 0", |run| {
            run.execute[0].segments[0].first_seq = 1
        }),
        ("nothing covers", |run| {
            run.execute.pop();
        }),
        ("bytes where", |run| {
            let data = run.folders().data();
            let name = list_folder(&data).unwrap().remove(0);
            fs::write(data.join(name), "n,k\n").unwrap();
        }),
    ];
    for (told, spoil) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::executed(folder.path(), 1, Sink::Csv(file_sink(Exists::Fail)));
        spoil(&mut run);
        let error = run.publish(30).unwrap_err();
        assert_eq!(error.class, ErrorClass::Data);
        assert!(error.message.contains(told), "{told}: {error}");
        assert!(!run.folders().output().exists());
        assert_eq!(list_folder(&run.folders().published()).unwrap(), Vec::<String>::new());
    }
}

#[test]
fn counts_that_lose_a_record_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::prepared(folder.path(), 1, Sink::Discard);
    let counters = Counters {
        read: 10,
        written: 9,
        ..Counters::default()
    };
    run.execute = (0..PARTITIONS)
        .map(|partition| {
            let low = u64::from(partition) * RECORDS;
            committed(
                partition,
                UnitRange::new(low, low + RECORDS),
                counters,
                RecordHash(0),
                fence(9),
                1,
            )
        })
        .collect();
    let error = run.publish(30).unwrap_err();
    assert_eq!(error.class, ErrorClass::Data);
    assert!(error.message.contains("10 read, but 9 written"), "{error}");
}

#[test]
fn a_discarded_output_has_its_certificate_and_rejects() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::executed(folder.path(), 1, Sink::Discard);
    assert_eq!(list_folder(&run.folders().data()).unwrap(), Vec::<String>::new());
    // Only chunks that rejected something have a manifest.
    assert_eq!(
        list_folder(&run.folders().manifests(Stage::Execute)).unwrap().len(),
        PARTITIONS as usize
    );
    let publication = run.publish(30).unwrap();
    assert_eq!(
        (publication.rows, publication.files, publication.source_rows),
        (24, 0, 30)
    );
    assert!(Path::new(&publication.certificate).exists());
    assert_eq!(
        list_folder(&run.folders().output().join("_gapless/rejects"))
            .unwrap()
            .len(),
        PARTITIONS as usize
    );
    run.check_nothing_staged();
}

#[test]
fn a_merged_output_has_the_files_asked_for() {
    let names = |sink: FileSink, kind: fn(FileSink) -> Sink| {
        let folder = tempfile::tempdir().unwrap();
        let run = Run::executed(folder.path(), 1, kind(sink));
        run.publish(30).unwrap();
        let output = run.folders().output().to_path_buf();
        let found: Vec<String> = files(&output)
            .iter()
            .map(|path| path.strip_prefix(&output).unwrap().display().to_string())
            .collect();
        let first = fs::read(output.join(&found[0])).unwrap();
        (found, first)
    };
    let one = FileSink {
        files: Some(1),
        ..file_sink(Exists::Fail)
    };
    let (found, content) = names(one.clone(), Sink::Csv);
    assert_eq!(found, ["merged-00000-1-20-0.csv"]);
    let text: String = expected()
        .iter()
        .map(|n| format!("{n},{}\n", if n % 2 == 0 { "even" } else { "odd" }))
        .collect();
    assert_eq!(
        String::from_utf8(content).unwrap(),
        format!("n,k\n{text}"),
        "in the order of partitions and chunks"
    );

    let (found, _) = names(
        FileSink {
            files: Some(2),
            ..one.clone()
        },
        Sink::Parquet,
    );
    assert_eq!(found, ["merged-00000-1-20-0.parquet", "merged-00001-1-21-0.parquet"]);
    let (found, _) = names(
        FileSink {
            partition_by: vec!["k".into()],
            ..one
        },
        Sink::Parquet,
    );
    assert_eq!(
        found,
        [
            "k=even/merged-00000-1-20-0.parquet",
            "k=odd/merged-00000-1-20-0.parquet"
        ]
    );
}

#[test]
fn an_exchange_is_proved_bucket_by_bucket() {
    let exchange = gapless_common::plan::ExchangePlan {
        function: gapless_common::plan::BucketFn::Hash {
            columns: vec!["n".into()],
        },
        buckets: 30,
    };
    // How many records more the index of the exchange tells, and what comes of it.
    for (more, told) in [(0, None), (1, Some("11 records"))] {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::executed(folder.path(), 1, Sink::Csv(file_sink(Exists::Fail)));
        run.context.frame.as_mut().unwrap().exchange = Some(exchange.clone());
        let scatter: Vec<CommittedPartition> = (0..2_u32)
            .map(|partition| {
                let units = UnitRange::new(u64::from(partition) * 15, u64::from(partition) * 15 + 15);
                let fence = fence(5 + u64::from(partition));
                let counters = Counters {
                    read: 16,
                    written: 15,
                    filtered: 1,
                    ..Counters::default()
                };
                let manifest = ChunkManifest {
                    version: Version::default(),
                    run: run.context.run,
                    step: 0,
                    partition,
                    fence,
                    seq: 0,
                    previous: units.low,
                    next: units.high,
                    counters,
                    records: RecordHash(7),
                    files: vec![],
                    order: None,
                    rejects: None,
                    totals: vec![],
                    inputs: Vec::new(),
                    keys: None,
                };
                let target = ChunkTarget::new(&run.context, Stage::Scatter, partition, fence, 0).unwrap();
                target.write_manifest(&manifest).unwrap();
                committed(partition, units, counters, RecordHash(7), fence, 1)
            })
            .collect();
        let scattered = |units: UnitRange| {
            let sum = (units.low..units.high).map(u128::from).sum();
            Ok((units.len() + more, RecordHash(sum)))
        };
        let mut sealed = run.sealed(30);
        sealed.committed.scatter = &scatter;
        sealed.scattered = &scattered;
        let result = publish(&sealed, &mut |_| Ok(()));
        let Some(told) = told else {
            let publication = result.unwrap();
            assert_eq!(
                (publication.source_rows, publication.records),
                (32, RecordHash(14).to_string())
            );
            let certificate: Certificate =
                serde_json::from_slice(&fs::read(&publication.certificate).unwrap()).unwrap();
            assert_eq!((certificate.ranges.len(), certificate.exchange.len()), (2, 3));
            assert_eq!((certificate.counters.read, certificate.counters.filtered), (32, 5));
            continue;
        };
        let error = result.unwrap_err();
        assert_eq!(error.class, ErrorClass::Data);
        assert!(error.message.contains(told), "{error}");
    }
}

//! Jobs that read from and write to an S3 server, a real process: the same rows as on files, whatever
//! dies, and words where the store cannot do what publishing once stands on.
#![cfg(feature = "s3")]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use gapless_tests::{
    Sales, World, expected,
    s3::{BUCKET, Fate, Hook, Request, S3, When, killer, lake, worker_through},
    wait_for,
};

const ROWS: u64 = 2000;

/// More than one part of a multipart upload for each of two partitions.
const MANY_ROWS: u64 = 600_000;

/// Copies every sale, then sums them by shop from what was published.
fn job(world: &World, load: &str, sink: &str) {
    world.job(&format!(
        r#"job: sales
steps:
  - name: load
    source:
      csv: {{path: "s3://{BUCKET}/in/sales-*.csv", columns: {{id: int64, shop: string, cents: int64, note: string}}}}
    partition: {load}
    sink: {{csv: {{path: "s3://{BUCKET}/out/load"{sink}}}}}
  - name: by-shop
    source: {{step: load}}
    partition: {{hash: {{columns: [shop]}}, count: 2}}
    transform: {{sql: "SELECT shop, count(*) AS n, sum(cents) AS cents FROM input GROUP BY shop"}}
    sink: {{csv: {{path: "s3://{BUCKET}/out/by-shop", files: 1}}}}
"#
    ));
}

fn run(world: &World, state: &str) -> (i32, String) {
    let output = world.gapless(&["run", "job.yaml", "--slots", "2", "--state", state]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!told.contains("AKIATESTKEY") && !told.contains("hidden"), "{told}");
    (output.status.code().unwrap_or(-1), told)
}

/// Both steps are published, once and whole, and nothing else is left.
fn check(world: &World, s3: &S3, sales: &Sales) {
    assert_eq!(s3.rows("out/by-shop"), expected(sales));
    let mut input = Vec::new();
    for entry in fs::read_dir(world.path("data")).expect("there") {
        let text = fs::read_to_string(entry.expect("listed").path()).expect("readable");
        input.extend(text.lines().skip(1).map(str::to_string));
    }
    input.sort_unstable();
    assert!(s3.rows("out/load") == input, "the rows of load are those of the input");
    for step in ["load", "by-shop"] {
        let left = s3.keys(&format!("out/.{step}.gapless/"));
        assert_eq!(left, [format!("out/.{step}.gapless/published/000001.json")], "swept");
        let certificates = s3.keys(&format!("out/{step}/_gapless/certificate-"));
        assert_eq!(certificates.len(), 1, "{certificates:?}");
    }
    assert_eq!(s3.uploads(), Vec::<String>::new());
}

#[test]
fn a_job_reads_from_and_writes_to_s3() {
    for load in ["{bytes: {}, count: 3}", "{key_range: {column: id}, count: 4}"] {
        let (world, sales, s3) = lake(ROWS);
        job(&world, load, "");
        let (code, told) = run(&world, ".gapless");
        assert_eq!(code, 0, "{told}");
        check(&world, &s3, &sales);
        let output = format!("s3://{BUCKET}/out/load");
        let verified = world.gapless(&["verify", "--certificate", &output]);
        assert_eq!(
            verified.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&verified.stderr)
        );
    }
}

#[test]
fn parquet_avro_and_gzip_are_read_from_s3_as_they_were_written() {
    let (world, sales, s3) = lake(ROWS);
    world.job(&format!(
        r#"job: sales
steps:
  - name: pack
    source:
      csv: {{path: "s3://{BUCKET}/in/*.csv", columns: {{id: int64, shop: string, cents: int64, note: string}}}}
    partition: {{bytes: {{}}, count: 3}}
    sink: {{parquet: {{path: "s3://{BUCKET}/out/pack", files: 2}}}}
  - name: blocks
    source: {{step: pack}}
    sink: {{avro: {{path: "s3://{BUCKET}/out/blocks", compression: none, files: 1}}}}
  - name: zip
    source: {{step: blocks}}
    partition: {{bytes: {{}}, count: 5}}
    sink: {{csv: {{path: "s3://{BUCKET}/out/zip", compression: gzip}}}}
  - name: by-shop
    source: {{step: zip}}
    transform: {{sql: "SELECT shop, count(*) AS n, sum(cents) AS cents FROM input GROUP BY shop"}}
    sink: {{csv: {{path: "out/by-shop", files: 1}}}}
"#
    ));
    let (code, told) = run(&world, ".gapless");
    assert_eq!(code, 0, "{told}");
    assert_eq!(world.rows("out/by-shop"), expected(&sales));
    let blocks = s3.keys("out/blocks/");
    assert_eq!(blocks.iter().filter(|key| key.ends_with(".avro")).count(), 1);
    assert_eq!(
        s3.keys("out/pack/")
            .iter()
            .filter(|key| key.ends_with(".parquet"))
            .count(),
        2
    );
}

#[test]
fn what_lies_there_already_is_kept_replaced_or_added_to() {
    let (world, sales, s3) = lake(ROWS);
    let step = |exists: &str| {
        world.job(&format!(
            r#"job: sales
steps:
  - name: load
    source: {{csv: {{path: "data/sales-*.csv", columns: {{id: int64, shop: string, cents: int64, note: string}}}}}}
    sink: {{csv: {{path: "s3://{BUCKET}/out/load", exists: {exists}}}}}
"#
        ));
    };
    step("fail");
    assert_eq!(run(&world, "one").0, 0);
    let first = s3.keys("out/load/");
    let (code, told) = run(&world, "two");
    assert!(code == 1 && told.contains("is not empty"), "{code} {told}");
    assert_eq!(s3.keys("out/load/"), first, "as before");

    step("append");
    assert_eq!(run(&world, "three").0, 0);
    assert_eq!(s3.rows("out/load").len() as u64, 2 * ROWS);
    step("replace");
    let (code, told) = run(&world, "four");
    assert_eq!(code, 0, "{told}");
    assert_eq!(s3.rows("out/load").len() as u64, ROWS);
    assert!(s3.keys("out/load/").iter().all(|key| !first.contains(key)));
    assert_eq!(s3.keys("out/load/_gapless/certificate-").len(), 1);

    // What somebody else put there is not ours to remove.
    for key in s3.keys("out/load/") {
        s3.delete(&key);
    }
    s3.put("out/load/precious.csv", b"x\n1\n");
    let (code, told) = run(&world, "five");
    assert!(
        code == 1 && told.contains("nothing in it tells that Gapless has written it"),
        "{code} {told}"
    );
    assert_eq!(s3.keys("out/load/"), ["out/load/precious.csv"]);
    drop(sales);
}

fn a_worker_dies(rows: u64, load: &str, moment: &str, matches: fn(&Request, When) -> bool, at_death: fn(&S3)) {
    let (mut world, sales, s3) = lake(rows);
    job(&world, load, "");
    let arguments = [
        "coordinator",
        "--listen",
        "127.0.0.1:0",
        "--state",
        "state",
        "--scratch",
        "scratch",
        "--lease-ms",
        "2000",
        "--heartbeat-ms",
        "200",
    ];
    let mut leader = world.start_as("leader", &arguments);
    let endpoint = leader.line();
    let submitted = world.gapless(&["submit", "job.yaml", "-o", "name", "--endpoint", &endpoint]);
    assert!(
        submitted.status.success(),
        "{}",
        String::from_utf8_lossy(&submitted.stderr)
    );
    let run = String::from_utf8_lossy(&submitted.stdout).trim().to_string();
    let (hook, id) = killer(matches);
    let mut doomed = worker_through(&mut world, &s3, &endpoint, "doomed", hook);
    *id.lock().expect("no panic before") = Some(doomed.id());
    assert_eq!(doomed.signal_of_end(), Some(9), "killed {moment}: {}", doomed.log());
    at_death(&s3);
    let _other = world.start(&["worker", "--endpoint", &endpoint, "--slots", "1", "--name", "other"]);
    let ended = wait_for("the run to end", || {
        let output = world.gapless(&["get", &run, "-o", "json", "--endpoint", &endpoint]);
        let state: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let state = state["state"].as_str()?.to_string();
        matches!(state.as_str(), "completed" | "failed" | "cancelled" | "stopped").then_some(state)
    });
    assert_eq!(ended, "completed", "killed {moment}");
    check(&world, &s3, &sales);
}

const LOAD: &str = "{key_range: {column: id}, count: 3}";
const VERDICT: &str = "/out/.load.gapless/published/000001.json";

#[test]
fn a_publisher_that_is_killed_is_followed_by_another_which_publishes_once() {
    let no_verdict = |s3: &S3| assert_eq!(s3.keys("out/.load.gapless/published/"), Vec::<String>::new());
    let verdict = |s3: &S3| assert_eq!(s3.keys("out/.load.gapless/published/").len(), 1);
    type Matches = fn(&Request, When) -> bool;
    type AtDeath = fn(&S3);
    let moments: [(&str, Matches, AtDeath); 7] = [
        (
            "before the verdict",
            |it, when| it.puts(VERDICT) && when == When::Before,
            no_verdict,
        ),
        (
            "after the verdict",
            |it, when| it.puts(VERDICT) && when == When::After,
            verdict,
        ),
        (
            "before the first copy",
            |it, when| it.copies("/out/load/") && when == When::Before,
            verdict,
        ),
        (
            "after the first copy",
            |it, when| it.copies("/out/load/") && when == When::After,
            verdict,
        ),
        (
            "before the certificate",
            |it, when| it.puts("/load/_gapless/certificate") && when == When::Before,
            verdict,
        ),
        (
            "after the certificate",
            |it, when| it.puts("/load/_gapless/certificate") && when == When::After,
            verdict,
        ),
        (
            "in the middle of the sweep",
            |it, when| {
                static SHOWN: AtomicBool = AtomicBool::new(false);
                SHOWN.fetch_or(it.puts("/load/_gapless/certificate"), Ordering::Relaxed);
                let sweeps = it.method == "POST" && it.target.contains("delete") && when == When::After;
                sweeps && SHOWN.load(Ordering::Relaxed)
            },
            verdict,
        ),
    ];
    for (moment, matches, at_death) in moments {
        a_worker_dies(ROWS, LOAD, moment, matches, at_death);
    }
}

#[test]
fn the_parts_of_an_upload_whose_worker_was_killed_are_discarded() {
    let open = |s3: &S3| assert_eq!(s3.uploads().len(), 1, "it was in the middle of an upload");
    let second_part: fn(&Request, When) -> bool = |it, when| it.puts("partNumber=2") && when == When::After;
    a_worker_dies(MANY_ROWS, "{bytes: {}, count: 2}", "in an upload", second_part, open);
}

/// Runs the job through a proxy with this hook, which must fail; nothing is visible then.
fn refused(rows: u64, hook: Hook) -> String {
    let (mut world, _, s3) = lake(rows);
    job(&world, "{bytes: {}, count: 2}", "");
    world.set("AWS_ENDPOINT_URL", &format!("http://{}", s3.proxy(hook)));
    let (code, told) = run(&world, ".gapless");
    assert_eq!(code, 1, "{told}");
    assert_eq!(s3.keys("out/load/"), Vec::<String>::new(), "nothing is published");
    told
}

#[test]
fn a_store_that_ignores_put_if_absent_is_refused() {
    let conditions = Arc::new(AtomicUsize::new(0));
    let seen = conditions.clone();
    let told = refused(
        ROWS,
        Arc::new(move |request, when| {
            if when == When::Before {
                let before = request.headers.len();
                request
                    .headers
                    .retain(|line| !line.to_ascii_lowercase().starts_with("if-none-match"));
                seen.fetch_add(before - request.headers.len(), Ordering::Relaxed);
            }
            Fate::GoesOn
        }),
    );
    assert!(
        conditions.load(Ordering::Relaxed) >= 2,
        "the condition was there to be ignored"
    );
    assert!(told.contains("does not put an object only if it is absent"), "{told}");
}

#[test]
fn an_object_that_changes_after_planning_is_told_and_not_mixed() {
    let changed = Arc::new(AtomicUsize::new(0));
    let (mut world, _, s3) = lake(ROWS);
    job(&world, "{bytes: {}, count: 2}", "");
    let (server, count) = (s3.address.clone(), changed.clone());
    // With the put of the probe, the survey is over and nothing is read yet for good.
    let hook: Hook = Arc::new(move |request, when| {
        if when == When::After && request.puts("probe-") && count.fetch_add(1, Ordering::Relaxed) == 0 {
            gapless_tests::s3::put_at(&server, "in/sales-0.csv", b"id,shop,cents,note\n1,x,2,y\n");
        }
        Fate::GoesOn
    });
    world.set("AWS_ENDPOINT_URL", &format!("http://{}", s3.proxy(hook)));
    let (code, told) = run(&world, ".gapless");
    assert!(changed.load(Ordering::Relaxed) > 0);
    assert!(code == 1 && told.contains("changed after planning"), "{code} {told}");
    assert_eq!(s3.keys("out/load/"), Vec::<String>::new(), "nothing is published");
}

#[test]
fn what_the_store_refuses_is_told_in_words() {
    let denied = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message><AWSAccessKeyId>AKIATESTKEY</AWSAccessKeyId></Error>";
    let answer = move |matches: fn(&Request) -> bool| -> Hook {
        Arc::new(move |request, when| match when == When::Before && matches(request) {
            true => Fate::Answered("403 Forbidden", denied),
            false => Fate::GoesOn,
        })
    };
    for (what, matches) in [
        (
            "listing",
            (|it| it.method == "GET" && it.target.contains("list-type")) as fn(&Request) -> bool,
        ),
        ("reading", |it| it.method == "GET" && it.target.contains("/in/")),
        ("writing", |it| it.method == "PUT"),
    ] {
        let told = refused(ROWS, answer(matches));
        assert!(
            told.contains("not permitted to this worker's credentials"),
            "{what}: {told}"
        );
    }
    for (source, sink, words, expected) in [
        (
            format!("s3://{BUCKET}/in/none.csv"),
            "out/x".to_string(),
            "there is no such object",
            1,
        ),
        (
            format!("s3://{BUCKET}/in/none-*.csv"),
            "out/x".to_string(),
            "no object matches",
            1,
        ),
        (
            "s3://elsewhere/in/a.csv".to_string(),
            "out/x".to_string(),
            "there is no such bucket",
            1,
        ),
        (
            "s3://elsewhere/in/*.csv".to_string(),
            "out/x".to_string(),
            "there is no such bucket",
            1,
        ),
        (
            format!("s3://{BUCKET}/in/*.csv"),
            "s3://elsewhere/out".to_string(),
            "there is no such bucket",
            1,
        ),
        ("data/*.csv".to_string(), format!("s3://{BUCKET}"), "whole bucket", 1),
        (
            "az://b/in/*.csv".to_string(),
            "out/x".to_string(),
            "AZURE_STORAGE_ACCOUNT_NAME",
            1,
        ),
    ] {
        let (world, _, s3) = lake(10);
        world.job(&format!(
            "job: sales\nsteps:\n  - name: load\n    source: {{csv: {{path: {source:?}, columns: {{id: int64}}}}}}\n    \
             sink: {{csv: {{path: {sink:?}}}}}\n"
        ));
        let (code, told) = run(&world, ".gapless");
        assert!(
            code == expected && told.contains(words),
            "{source} {sink}: {code} {told}"
        );
        assert_eq!(s3.keys("out/"), Vec::<String>::new(), "nothing is published");
        assert!(!world.path("out/x").exists(), "nothing is published");
    }
}

#[test]
fn a_worker_reads_and_writes_allowed_addresses_only() {
    let (mut world, _, s3) = lake(10);
    job(&world, "{bytes: {}, count: 1}", "");
    let allowed = format!("s3://{BUCKET}/in,{}", world.path("").display());
    world.set("GAPLESS_ALLOW_PATHS", &allowed);
    let (code, told) = run(&world, ".gapless");
    assert!(
        code == 1 && told.contains("allow_paths") && told.contains("out/load (a sink)"),
        "{code} {told}"
    );
    assert_eq!(s3.keys("out/"), Vec::<String>::new());
}

/// What was rejected, the file with its places and the rows that a redrive adds lie in the store.
#[test]
fn what_a_step_rejected_in_a_store_is_redriven_there() {
    let (world, _, s3) = lake(10);
    s3.put("bad/one.csv", b"id,name\n1,a\ntwo,b\n3,c\n");
    fs::write(world.path("corrected.csv"), "id,name\n1,a\n2,b\n3,c\n").expect("written");
    world.job(&format!(
        "job: sales\nsteps:\n  - name: load\n    source: {{csv: {{path: \"s3://{BUCKET}/bad/*.csv\", columns: {{id: int64}}}}}}\n    \
         on_error: {{reject: {{limit: 5}}}}\n    sink: {{csv: {{path: \"s3://{BUCKET}/out/load\"}}}}\n"
    ));
    let (code, told) = run(&world, ".gapless");
    assert_eq!(code, 0, "{told}");
    assert_eq!(s3.rows("out/load"), ["1,a", "3,c"]);
    let redrive = [
        "redrive",
        "sales",
        "--rejects",
        "--from",
        "corrected.csv",
        "--state",
        ".gapless",
    ];
    let output = world.start(&redrive).code();
    assert_eq!(output, 0);
    assert_eq!(s3.rows("out/load"), ["1,a", "2,b", "3,c"]);
}

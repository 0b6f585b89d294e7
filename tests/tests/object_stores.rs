//! Jobs that read from and write to object stores, real processes: the same rows as on files, whatever
//! dies, and words where the store cannot do what publishing once stands on.
#![cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use gapless_tests::{
    Sales, World, expected, on_each_store,
    stores::{BUCKET, Door, Fate, Hook, Kind, Request, SECRET, Store, When, killer, lake},
    wait_for,
};

on_each_store!(
    a_job_reads_from_and_writes_to_it,
    parquet_avro_and_gzip_are_read_as_they_were_written,
    what_lies_there_already_is_kept_replaced_or_added_to,
    a_publisher_that_is_killed_is_followed_by_another_which_publishes_once,
    an_object_that_another_has_swept_does_not_end_the_sweep,
    the_parts_of_an_upload_whose_worker_was_killed_are_discarded,
    a_store_that_ignores_put_if_absent_is_refused,
    an_object_that_changes_after_planning_is_told_and_not_mixed,
    a_store_that_ignores_if_match_is_not_believed,
    what_the_store_refuses_is_told_in_words,
    who_is_not_known_to_the_store_is_told_so_without_the_credentials,
    a_worker_reads_and_writes_allowed_addresses_only,
    keys_of_a_merge_are_unique_or_the_first_that_is_not_is_told,
    what_a_step_rejected_in_a_store_is_redriven_there,
    rows_that_a_merge_rejected_in_a_store_are_redriven_there,
);

const ROWS: u64 = 2000;

/// More than one part of a multipart upload for each of two partitions.
const MANY_ROWS: u64 = 600_000;

/// Copies every sale, then sums them by shop from what was published.
fn job(world: &World, store: &Store, load: &str, sink: &str) {
    let at = store.url("");
    world.job(&format!(
        r#"job: sales
steps:
  - name: load
    source:
      csv: {{path: "{at}/in/sales-*.csv", columns: {{id: int64, shop: string, cents: int64, note: string}}}}
    partition: {load}
    sink: {{csv: {{path: "{at}/out/load"{sink}}}}}
  - name: by-shop
    source: {{step: load}}
    partition: {{hash: {{columns: [shop]}}, count: 2}}
    transform: {{sql: "SELECT shop, count(*) AS n, sum(cents) AS cents FROM input GROUP BY shop"}}
    sink: {{csv: {{path: "{at}/out/by-shop", files: 1}}}}
"#
    ));
}

fn run(world: &World, state: &str) -> (i32, String) {
    let output = world.gapless(&["run", "job.yaml", "--slots", "2", "--state", state]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!told.contains("AKIATESTKEY") && !told.contains(SECRET), "{told}");
    (output.status.code().unwrap_or(-1), told)
}

/// Both steps are published, once and whole, and nothing else is left.
fn check(world: &World, store: &Store, sales: &Sales) {
    assert_eq!(store.rows("out/by-shop"), expected(sales));
    let mut input = Vec::new();
    for entry in fs::read_dir(world.path("data")).expect("there") {
        let text = fs::read_to_string(entry.expect("listed").path()).expect("readable");
        input.extend(text.lines().skip(1).map(str::to_string));
    }
    input.sort_unstable();
    assert!(
        store.rows("out/load") == input,
        "the rows of load are those of the input"
    );
    for step in ["load", "by-shop"] {
        let left = store.keys(&format!("out/.{step}.gapless/"));
        assert_eq!(left, [format!("out/.{step}.gapless/published/000001.json")], "swept");
        let certificates = store.keys(&format!("out/{step}/_gapless/certificate-"));
        assert_eq!(certificates.len(), 1, "{certificates:?}");
    }
    assert_eq!(store.uploads(), Vec::<String>::new());
}

fn a_job_reads_from_and_writes_to_it(kind: Kind) {
    for load in ["{bytes: {}, count: 3}", "{key_range: {column: id}, count: 4}"] {
        let (world, sales, store) = lake(kind, ROWS);
        job(&world, &store, load, "");
        let (code, told) = run(&world, ".gapless");
        assert_eq!(code, 0, "{told}");
        check(&world, &store, &sales);
        let output = store.url("out/load");
        let verified = world.gapless(&["verify", "--certificate", &output]);
        assert_eq!(
            verified.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&verified.stderr)
        );
    }
}

fn parquet_avro_and_gzip_are_read_as_they_were_written(kind: Kind) {
    let (world, sales, store) = lake(kind, ROWS);
    let shops: String = sales.keys().map(|shop| format!("{shop}\n")).collect();
    store.put("ref/shops.csv", format!("name\n{shops}").as_bytes());
    let at = store.url("");
    world.job(&format!(
        r#"job: sales
steps:
  - name: pack
    source:
      csv: {{path: "{at}/in/*.csv", columns: {{id: int64, shop: string, cents: int64, note: string}}}}
    partition: {{bytes: {{}}, count: 3}}
    sink: {{parquet: {{path: "{at}/out/pack", files: 2}}}}
  - name: blocks
    source: {{step: pack}}
    sink: {{avro: {{path: "{at}/out/blocks", compression: none, files: 1}}}}
  - name: zip
    source: {{step: blocks}}
    partition: {{bytes: {{}}, count: 5}}
    sink: {{csv: {{path: "{at}/out/zip", compression: gzip}}}}
  - name: by-shop
    source: {{step: zip}}
    lookups: {{known: {{csv: {{path: "{at}/ref/*.csv", columns: {{name: string}}}}}}}}
    transform: {{sql: "SELECT shop, count(*) AS n, sum(cents) AS cents FROM input JOIN known ON shop = name GROUP BY shop"}}
    sink: {{csv: {{path: "out/by-shop", files: 1}}}}
"#
    ));
    let (code, told) = run(&world, ".gapless");
    assert_eq!(code, 0, "{told}");
    assert_eq!(world.rows("out/by-shop"), expected(&sales));
    let blocks = store.keys("out/blocks/");
    assert_eq!(blocks.iter().filter(|key| key.ends_with(".avro")).count(), 1);
    assert_eq!(
        store
            .keys("out/pack/")
            .iter()
            .filter(|key| key.ends_with(".parquet"))
            .count(),
        2
    );
}

fn what_lies_there_already_is_kept_replaced_or_added_to(kind: Kind) {
    let (world, sales, store) = lake(kind, ROWS);
    let at = store.url("");
    let step = |exists: &str| {
        world.job(&format!(
            r#"job: sales
steps:
  - name: load
    source: {{csv: {{path: "data/sales-*.csv", columns: {{id: int64, shop: string, cents: int64, note: string}}}}}}
    sink: {{csv: {{path: "{at}/out/load", exists: {exists}}}}}
"#
        ));
    };
    step("fail");
    assert_eq!(run(&world, "one").0, 0);
    let first = store.keys("out/load/");
    let (code, told) = run(&world, "two");
    assert!(code == 1 && told.contains("is not empty"), "{code} {told}");
    assert_eq!(store.keys("out/load/"), first, "as before");

    step("append");
    assert_eq!(run(&world, "three").0, 0);
    assert_eq!(store.rows("out/load").len() as u64, 2 * ROWS);
    step("replace");
    let (code, told) = run(&world, "four");
    assert_eq!(code, 0, "{told}");
    assert_eq!(store.rows("out/load").len() as u64, ROWS);
    assert!(store.keys("out/load/").iter().all(|key| !first.contains(key)));
    assert_eq!(store.keys("out/load/_gapless/certificate-").len(), 1);

    // What somebody else put there is not ours to remove.
    for key in store.keys("out/load/") {
        store.delete(&key);
    }
    store.put("out/load/precious.csv", b"x\n1\n");
    let (code, told) = run(&world, "five");
    assert!(
        code == 1 && told.contains("nothing in it tells that Gapless has written it"),
        "{code} {told}"
    );
    assert_eq!(store.keys("out/load/"), ["out/load/precious.csv"]);
    drop(sales);
}

fn a_worker_dies(
    kind: Kind,
    rows: u64,
    load: &str,
    moment: &str,
    matches: impl Fn(&Request, When) -> bool + Send + Sync + 'static,
    at_death: impl Fn(&Store),
) {
    let (mut world, sales, store) = lake(kind, rows);
    job(&world, &store, load, "");
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
    let mut doomed = store.worker_through(&mut world, &endpoint, "doomed", hook);
    *id.lock().expect("no panic before") = Some(doomed.id());
    assert_eq!(doomed.signal_of_end(), Some(9), "killed {moment}: {}", doomed.log());
    at_death(&store);
    let _other = world.start(&["worker", "--endpoint", &endpoint, "--slots", "1", "--name", "other"]);
    let ended = wait_for("the run to end", || {
        let output = world.gapless(&["get", &run, "-o", "json", "--endpoint", &endpoint]);
        let state: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let state = state["state"].as_str()?.to_string();
        matches!(state.as_str(), "completed" | "failed" | "cancelled" | "stopped").then_some(state)
    });
    assert_eq!(ended, "completed", "killed {moment}");
    check(&world, &store, &sales);
}

const LOAD: &str = "{key_range: {column: id}, count: 3}";
const VERDICT: &str = "/out/.load.gapless/published/000001.json";

fn a_publisher_that_is_killed_is_followed_by_another_which_publishes_once(kind: Kind) {
    let no_verdict = |store: &Store| assert_eq!(store.keys("out/.load.gapless/published/"), Vec::<String>::new());
    let verdict = |store: &Store| assert_eq!(store.keys("out/.load.gapless/published/").len(), 1);
    type AtDeath = fn(&Store);
    let shown = AtomicBool::new(false);
    let in_the_sweep = move |it: &Request, when| {
        shown.fetch_or(it.puts("/load/_gapless/certificate"), Ordering::Relaxed);
        it.deletes() && when == When::After && shown.load(Ordering::Relaxed)
    };
    type Matches = Box<dyn Fn(&Request, When) -> bool + Send + Sync>;
    let at = |moment: When, matches: fn(&Request) -> bool| -> Matches {
        Box::new(move |it, when| when == moment && matches(it))
    };
    let certificate = |it: &Request| it.puts("/load/_gapless/certificate");
    let moments: [(&str, Matches, AtDeath); 7] = [
        (
            "before the verdict",
            at(When::Before, |it| it.puts(VERDICT)),
            no_verdict,
        ),
        ("after the verdict", at(When::After, |it| it.puts(VERDICT)), verdict),
        (
            "before the first copy",
            at(When::Before, |it| it.copies("/out/load/")),
            verdict,
        ),
        (
            "after the first copy",
            at(When::After, |it| it.copies("/out/load/")),
            verdict,
        ),
        ("before the certificate", at(When::Before, certificate), verdict),
        ("after the certificate", at(When::After, certificate), verdict),
        ("in the middle of the sweep", Box::new(in_the_sweep), verdict),
    ];
    for (moment, matches, at_death) in moments {
        a_worker_dies(kind, ROWS, LOAD, moment, matches, at_death);
    }
}

/// Google and Azure tell of an object that it was not there to be deleted.
fn an_object_that_another_has_swept_does_not_end_the_sweep(kind: Kind) {
    let (mut world, sales, store) = lake(kind, ROWS);
    job(&world, &store, LOAD, "");
    let (door, swept) = (Door::clone(&store), Arc::new(AtomicUsize::new(0)));
    let count = swept.clone();
    let hook: Hook = Arc::new(move |it, when| {
        if it.deletes() && when == When::Before {
            // The first of those that are to go, and others of the step stay for now.
            let staged = door.keys("out/.load.gapless/run/");
            if door.keys("out/load/_gapless/certificate-").len() == 1
                && staged.len() > 1
                && count.fetch_add(1, Ordering::Relaxed) == 0
            {
                door.delete(&staged[0]);
            }
        }
        Fate::GoesOn
    });
    store.hook(&mut world, hook);
    let (code, told) = run(&world, ".gapless");
    assert_eq!(code, 0, "{told}");
    assert!(swept.load(Ordering::Relaxed) > 0, "an object was gone");
    check(&world, &store, &sales);
}

fn the_parts_of_an_upload_whose_worker_was_killed_are_discarded(kind: Kind) {
    let open = |store: &Store| assert_eq!(store.uploads().len(), 1, "it was in the middle of an upload");
    let sent = AtomicUsize::new(0);
    let second_part =
        move |it: &Request, when| it.sends_part() && when == When::After && sent.fetch_add(1, Ordering::Relaxed) == 1;
    a_worker_dies(
        kind,
        MANY_ROWS,
        "{bytes: {}, count: 2}",
        "in an upload",
        second_part,
        open,
    );
}

/// Runs the job through a proxy with this hook, which must fail; nothing is visible then.
fn refused(kind: Kind, rows: u64, hook: Hook) -> String {
    let (mut world, _, store) = lake(kind, rows);
    job(&world, &store, "{bytes: {}, count: 2}", "");
    store.hook(&mut world, hook);
    let (code, told) = run(&world, ".gapless");
    assert_eq!(code, 1, "{told}");
    assert_eq!(store.keys("out/load/"), Vec::<String>::new(), "nothing is published");
    told
}

fn a_store_that_ignores_put_if_absent_is_refused(kind: Kind) {
    let conditions = Arc::new(AtomicUsize::new(0));
    let seen = conditions.clone();
    let told = refused(
        kind,
        ROWS,
        Arc::new(move |request, when| {
            if when == When::Before {
                seen.fetch_add(usize::from(request.drop_put_if_absent()), Ordering::Relaxed);
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

fn an_object_that_changes_after_planning_is_told_and_not_mixed(kind: Kind) {
    let changed = Arc::new(AtomicUsize::new(0));
    let (mut world, _, store) = lake(kind, ROWS);
    job(&world, &store, "{bytes: {}, count: 2}", "");
    let (door, count) = (Door::clone(&store), changed.clone());
    // With the put of the probe, the survey is over and nothing is read yet for good.
    let hook: Hook = Arc::new(move |request, when| {
        if when == When::After && request.puts("probe-") && count.fetch_add(1, Ordering::Relaxed) == 0 {
            door.put("in/sales-0.csv", b"id,shop,cents,note\n1,x,2,y\n");
        }
        Fate::GoesOn
    });
    store.hook(&mut world, hook);
    let (code, told) = run(&world, ".gapless");
    assert!(changed.load(Ordering::Relaxed) > 0);
    assert!(code == 1 && told.contains("changed after planning"), "{code} {told}");
    assert_eq!(store.keys("out/load/"), Vec::<String>::new(), "nothing is published");
}

/// The object changes at the very read, and the condition that would tell it is not looked at.
fn a_store_that_ignores_if_match_is_not_believed(kind: Kind) {
    let (mut world, _, store) = lake(kind, ROWS);
    job(&world, &store, "{bytes: {}, count: 2}", "");
    let (door, planned, changed) = (
        Door::clone(&store),
        AtomicBool::new(false),
        Arc::new(AtomicUsize::new(0)),
    );
    let count = changed.clone();
    let other = fs::read_to_string(world.path("data/sales-0.csv"))
        .expect("readable")
        .replace("shop-1", "shop-2");
    let hook: Hook = Arc::new(move |it, when| {
        planned.fetch_or(it.puts("probe-"), Ordering::Relaxed);
        let reads = planned.load(Ordering::Relaxed) && it.reads("/in/sales-0.csv") && when == When::Before;
        if reads && it.drop_if_match() && count.fetch_add(1, Ordering::Relaxed) == 0 {
            door.put("in/sales-0.csv", other.as_bytes());
        }
        Fate::GoesOn
    });
    store.hook(&mut world, hook);
    let (code, told) = run(&world, ".gapless");
    assert!(
        changed.load(Ordering::Relaxed) > 0,
        "a condition was there to be ignored"
    );
    assert!(code == 1 && told.contains("changed after planning"), "{code} {told}");
    assert_eq!(store.keys("out/load/"), Vec::<String>::new(), "nothing is published");
}

fn what_the_store_refuses_is_told_in_words(kind: Kind) {
    let denied = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message><AWSAccessKeyId>AKIATESTKEY</AWSAccessKeyId></Error>";
    let answer = move |matches: fn(&Request) -> bool| -> Hook {
        Arc::new(move |request, when| match when == When::Before && matches(request) {
            true => Fate::Answered("403 Forbidden", denied),
            false => Fate::GoesOn,
        })
    };
    for (what, matches) in [
        ("listing", (|it| it.lists()) as fn(&Request) -> bool),
        ("reading", |it| it.reads("/in/")),
        ("writing", |it| it.method == "PUT"),
    ] {
        let told = refused(kind, ROWS, answer(matches));
        assert!(
            told.contains("not permitted to this worker's credentials"),
            "{what}: {told}"
        );
    }
    let (at, elsewhere) = (|key| kind.url(BUCKET, key), |key| kind.url("elsewhere", key));
    let x = || "out/x".to_string();
    for (source, sink, words) in [
        (at("in/none.csv"), x(), "there is no such object"),
        (at("in/none-*.csv"), x(), "no object matches"),
        (elsewhere("in/a.csv"), x(), "there is no such bucket"),
        (elsewhere("in/*.csv"), x(), "there is no such bucket"),
        (at("in/*.csv"), elsewhere("out"), "there is no such bucket"),
        ("data/*.csv".to_string(), at(""), "whole bucket"),
    ] {
        let (world, _, store) = lake(kind, 10);
        copies(&world, &source, &sink);
        let (code, told) = run(&world, ".gapless");
        assert!(code == 1 && told.contains(words), "{source} {sink}: {code} {told}");
        assert_eq!(store.keys("out/"), Vec::<String>::new(), "nothing is published");
        assert!(!world.path("out/x").exists(), "nothing is published");
    }
}

/// A job that copies one column.
fn copies(world: &World, source: &str, sink: &str) {
    world.job(&format!(
        "job: sales\nsteps:\n  - name: load\n    source: {{csv: {{path: {source:?}, columns: {{id: int64}}}}}}\n    \
         sink: {{csv: {{path: {sink:?}}}}}\n"
    ));
}

/// The S3 server of the tests believes everybody.
fn who_is_not_known_to_the_store_is_told_so_without_the_credentials(kind: Kind) {
    let credentials = match kind {
        Kind::S3 => return,
        Kind::Google => ("GOOGLE_BEARER_TOKEN", format!("{SECRET}-but-wrong")),
        Kind::Azure => ("AZURE_STORAGE_ACCOUNT_KEY", SECRET.repeat(2)),
    };
    let (mut world, _, store) = lake(kind, 10);
    world.set(credentials.0, &credentials.1);
    copies(&world, &store.url("in/*.csv"), "out/x");
    let (code, told) = run(&world, ".gapless");
    let words = "not permitted to this worker's credentials";
    assert!(code == 1 && told.contains(words), "{code} {told}");
}

#[cfg(feature = "azure")]
#[test]
fn an_account_that_is_missing_is_named() {
    let world = World::empty();
    copies(&world, "az://lake/in/*.csv", "out/x");
    let (code, told) = run(&world, ".gapless");
    assert!(
        code == 1 && told.contains("AZURE_STORAGE_ACCOUNT_NAME"),
        "{code} {told}"
    );
}

/// Azure may accept a copy and make it when it has the time. The object is there meanwhile, and empty.
#[cfg(feature = "azure")]
#[test]
fn a_copy_that_is_made_later_is_waited_for() {
    let (mut world, sales, store) = lake(Kind::Azure, ROWS);
    job(&world, &store, LOAD, "");
    let door = Door::clone(&store);
    let accepted: Mutex<HashMap<String, Vec<u8>>> = Mutex::default();
    let late = Arc::new(AtomicUsize::new(0));
    let overwriting = Arc::new(AtomicUsize::new(0));
    let (count, over) = (late.clone(), overwriting.clone());
    let hook: Hook = Arc::new(move |it, when| {
        let target = it.target();
        let key = target
            .split_once(&format!("/{BUCKET}/"))
            .map_or("", |(_, key)| key)
            .to_string();
        let mut accepted = accepted.lock().expect("no panic before");
        if it.copies("/out/load/") && when == When::Before {
            let from = it
                .header("-copy-source")
                .and_then(|from| from.split_once(&format!("/{BUCKET}/")));
            accepted.insert(key.clone(), door.get(from.expect("a source").1));
            over.fetch_add(usize::from(it.header("if-none-match") != Some("*")), Ordering::Relaxed);
            door.put(&key, b"");
            return Fate::Answered("202 Accepted", "");
        }
        // Who has looked once has seen the empty object, and finds the copy the next time.
        if it.method == "HEAD"
            && when == When::After
            && let Some(content) = accepted.remove(&key)
        {
            door.put(&key, &content);
            count.fetch_add(1, Ordering::Relaxed);
        }
        Fate::GoesOn
    });
    store.hook(&mut world, hook);
    let (code, told) = run(&world, ".gapless");
    assert_eq!(code, 0, "{told}");
    assert_eq!(late.load(Ordering::Relaxed), 3, "copies that came late");
    assert_eq!(
        overwriting.load(Ordering::Relaxed),
        0,
        "none would empty a copy that is there"
    );
    check(&world, &store, &sales);
}

fn a_worker_reads_and_writes_allowed_addresses_only(kind: Kind) {
    let (mut world, _, store) = lake(kind, 10);
    let at = store.url("");
    job(&world, &store, "{bytes: {}, count: 1}", "");
    let allowed = format!("{at}/in,{}", world.path("").display());
    world.set("GAPLESS_ALLOW_PATHS", &allowed);
    let (code, told) = run(&world, ".gapless");
    assert!(
        code == 1 && told.contains("allow_paths") && told.contains("out/load (a sink)"),
        "{code} {told}"
    );
    assert_eq!(store.keys("out/"), Vec::<String>::new());
}

/// The fingerprints of keys lie in the store too: those of a merge are compared there, and swept.
fn keys_of_a_merge_are_unique_or_the_first_that_is_not_is_told(kind: Kind) {
    let (world, _, store) = lake(kind, ROWS);
    let at = store.url("");
    let fields = "columns: {id: int64, shop: string, cents: int64, note: string}";
    let files = store.keys("in/");
    let one = &files[0];
    let job = |inputs: &[String], output: &str| {
        let inputs: String = inputs
            .iter()
            .map(|key| format!("          - csv: {{path: \"{at}/{key}\", {fields}}}\n"))
            .collect();
        world.job(&format!(
            "job: merge\nsteps:\n  - name: all\n    source:\n      merge:\n        unique: [id]\n        inputs:\n{inputs}    \
             partition: {{count: 5}}\n    sink: {{csv: {{path: \"{at}/out/{output}\"}}}}\n"
        ));
    };
    // A record of the first file once more, as the last input.
    let first = fs::read_to_string(world.path("data").join(one.rsplit('/').next().expect("a name"))).expect("readable");
    let lines: Vec<&str> = first.lines().collect();
    fs::create_dir(world.path("again")).expect("made");
    fs::write(world.path("again/twice.csv"), format!("{}\n{}\n", lines[0], lines[7])).expect("written");
    store.upload(&world.path("again"), "again");
    let mut inputs = files.clone();
    inputs.push("again/twice.csv".to_string());
    job(&inputs, "twice");
    let (code, told) = run(&world, ".twice");
    let key = lines[7].split(',').next().expect("an id");
    assert_eq!(code, 1, "{told}");
    for says in [
        format!("merge: the key (id) = ({key}) stands twice: in input 1 (csv {at}/{one}), {at}/{one}, line 8, and in"),
        format!("{at}/again/twice.csv, line 2; nothing is published"),
    ] {
        assert!(told.contains(&says), "{told}\nand not\n{says}");
    }
    assert_eq!(store.keys("out/twice/"), Vec::<String>::new(), "nothing is published");
    // Without it all is well.
    inputs.pop();
    job(&inputs, "all");
    let (code, told) = run(&world, ".gapless");
    assert_eq!(code, 0, "{told}");
    assert_eq!(store.rows("out/all").len() as u64, ROWS);
    assert_eq!(
        store.keys("out/.all.gapless/"),
        ["out/.all.gapless/published/000001.json"],
        "swept"
    );
}

/// What was rejected, the file with its places and the rows that a redrive adds lie in the store.
fn what_a_step_rejected_in_a_store_is_redriven_there(kind: Kind) {
    let (world, _, store) = lake(kind, 10);
    let at = store.url("");
    store.put("bad/one.csv", b"id,name\n1,a\ntwo,b\n3,c\n");
    fs::write(world.path("corrected.csv"), "id,name\n1,a\n2,b\n3,c\n").expect("written");
    world.job(&format!(
        "job: sales\nsteps:\n  - name: load\n    source: {{csv: {{path: \"{at}/bad/*.csv\", columns: {{id: int64}}}}}}\n    \
         on_error: {{reject: {{limit: 5}}}}\n    sink: {{csv: {{path: \"{at}/out/load\"}}}}\n"
    ));
    let (code, told) = run(&world, ".gapless");
    assert_eq!(code, 0, "{told}");
    assert_eq!(store.rows("out/load"), ["1,a", "3,c"]);
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
    assert_eq!(store.rows("out/load"), ["1,a", "2,b", "3,c"]);
}

/// Rows are kept in the store as Parquet, each input of a merge by itself.
fn rows_that_a_merge_rejected_in_a_store_are_redriven_there(kind: Kind) {
    let (world, _, store) = lake(kind, 10);
    let at = store.url("");
    let job = |name: &str, step: &str| world.job(&format!("job: {name}\nsteps:\n  - name: a\n    {step}\n"));
    let numbers = "source: {sequence: {from: 0, to: 4}}";
    job(
        "made",
        &format!("{numbers}\n    sink: {{parquet: {{path: \"{at}/rows\"}}}}"),
    );
    assert_eq!(run(&world, ".gapless").0, 0);
    store.put("bad/one.csv", b"n\n5\nsix\n");
    job(
        "sales",
        &format!(
            "source: {{merge: {{inputs: [{{parquet: {{path: \"{at}/rows/*.parquet\"}}}}, {{csv: {{path: \"{at}/bad/*.csv\", columns: \
             {{n: int64}}}}}}]}}}}\n    check: [{{name: few, that: n > 1}}]\n    on_error: {{reject: {{limit: 5}}}}\n    sink: {{csv: {{path: \
             \"{at}/out/load\"}}}}"
        ),
    );
    let (code, told) = run(&world, ".gapless");
    assert_eq!(code, 0, "{told}");
    assert_eq!(store.rows("out/load"), ["2", "3", "5"]);
    let output = world.gapless(&["rejects", "sales", "-o", "json", "--state", ".gapless"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(told.lines().count(), 3, "{told}");
    let corrected = told.replace("six", "6").replace(":0}", ":7}").replace(":1}", ":8}");
    fs::write(world.path("corrected.ndjson"), corrected).expect("written");
    let from = [
        "redrive",
        "sales",
        "--rejects",
        "--from",
        "corrected.ndjson",
        "--state",
        ".gapless",
    ];
    assert_eq!(world.start(&from).code(), 0);
    assert_eq!(store.rows("out/load"), ["2", "3", "5", "6", "7", "8"]);
    let verified = world.gapless(&["verify", "sales", "--state", ".gapless"]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
}

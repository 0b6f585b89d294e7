//! Scratch in an object store, a real process: nothing but the store is shared by workers, whatever dies, and
//! nothing of a run stays there once it has ended.
#![cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]

use std::{
    fs,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use gapless_tests::{
    Process, Sales, World, expected, on_each_store,
    stores::{Fate, Hook, Kind, Request, Store, When, killer, lake},
    wait_for,
};
use rustix::process::{Pid, Signal, kill_process};

on_each_store!(
    workers_that_share_a_bucket_alone_do_what_those_with_a_shared_folder_do,
    a_worker_killed_while_it_scatters_costs_nothing,
    a_worker_killed_while_buckets_are_read_or_merged_costs_nothing,
    a_worker_killed_before_it_sweeps_is_followed_by_one_that_does,
    the_parts_of_an_exchange_file_whose_worker_was_killed_are_discarded,
    a_cancelled_run_leaves_nothing_in_scratch,
    what_arrives_after_the_end_is_removed_by_who_sent_it,
    who_comes_late_leaves_alone_what_is_not_yet_shown,
    outputs_may_be_folders_or_kept_nowhere,
    a_commit_waits_for_what_it_speaks_of,
    a_store_that_cannot_be_scratch_is_refused_in_words,
);

const ROWS: u64 = 3000;

/// More than one part of a multipart upload for an exchange file.
const MANY_ROWS: u64 = 700_000;

/// Sums by shop through a hash exchange, and all sales in order, each merged into two files.
fn job(world: &World, store: &Store, output: &str) {
    let at = store.url("");
    let source = format!(
        "{{csv: {{path: \"{at}/in/sales-*.csv\", columns: {{id: int64, shop: string, cents: int64, note: string}}}}}}"
    );
    world.job(&format!(
        r#"job: sales
steps:
  - name: by-shop
    source: {source}
    partition: {{hash: {{columns: [shop]}}, count: 4}}
    transform: {{sql: "SELECT shop, count(*) AS n, sum(cents) AS cents FROM input GROUP BY shop"}}
    sink: {{csv: {{path: "{output}/by-shop", files: 2}}}}
  - name: in-order
    source: {source}
    partition: {{count: 4}}
    transform: {{sql: "SELECT cents, id FROM input"}}
    sort: [{{column: cents, order: desc}}, id]
    sink: {{csv: {{path: "{output}/in-order", files: 2}}}}
"#
    ));
}

/// `cents,id` of all sales in the order of the job, from the input itself.
fn in_order(world: &World) -> Vec<String> {
    let mut rows: Vec<(i64, u64)> = Vec::new();
    for entry in fs::read_dir(world.path("data")).expect("there") {
        let text = fs::read_to_string(entry.expect("listed").path()).expect("readable");
        rows.extend(text.lines().skip(1).map(|line| {
            let mut cells = line.split(',');
            let id = cells.next().and_then(|id| id.parse().ok()).expect("an id");
            let cents = cells.nth(1).and_then(|cents| cents.parse().ok()).expect("cents");
            (cents, id)
        }));
    }
    rows.sort_by_key(|(cents, id)| (-cents, *id));
    rows.iter().map(|(cents, id)| format!("{cents},{id}")).collect()
}

/// All lines of an output, file by file in the order of names.
fn lines(store: &Store, output: &str) -> (usize, Vec<String>) {
    let keys = store.keys(&format!("{output}/"));
    let data: Vec<&String> = keys.iter().filter(|key| !key.contains("/_gapless/")).collect();
    let mut lines = Vec::new();
    for key in &data {
        let text = String::from_utf8(store.get(key)).expect("text");
        lines.extend(text.lines().skip(1).map(str::to_string));
    }
    (data.len(), lines)
}

/// Both outputs are right, each in two files.
fn check(world: &World, store: &Store, sales: &Sales) {
    assert_eq!(store.rows("out/by-shop"), expected(sales));
    assert_eq!(lines(store, "out/by-shop").0, 2);
    let (files, found) = lines(store, "out/in-order");
    assert_eq!(files, 2);
    assert!(found == in_order(world), "the rows are those of the input, in order");
    check_swept(world, store);
}

/// Nothing of the run is left in scratch, and nobody has taken the address for the name of a folder.
fn check_swept(world: &World, store: &Store) {
    assert_eq!(store.keys("scratch/"), Vec::<String>::new(), "scratch is swept");
    assert_eq!(store.uploads(), Vec::<String>::new(), "no upload is open");
    assert!(["s3:", "gs:", "az:"].iter().all(|scheme| !world.path(scheme).exists()) && !world.path("scratch").exists());
}

/// A coordinator without credentials and workers with them. They share nothing but the store.
struct Cloud {
    world: World,
    sales: Sales,
    store: Store,
    _coordinator: Process,
    endpoint: String,
}

impl Cloud {
    fn start(kind: Kind, rows: u64) -> Cloud {
        let (mut world, sales) = World::with_sales(rows);
        let store = Store::start(kind, &world);
        store.upload(&world.path("data"), "in");
        let scratch = store.url("scratch") + "/";
        let arguments = [
            "coordinator",
            "--listen",
            "127.0.0.1:0",
            "--state",
            "state",
            "--scratch",
            &scratch,
        ];
        let patience = ["--lease-ms", "2000", "--heartbeat-ms", "200"];
        let mut coordinator = world.start_as("coordinator", &[&arguments[..], &patience[..]].concat());
        let endpoint = coordinator.line();
        store.let_in(&mut world);
        fs::create_dir(world.path("tmp")).expect("made");
        let temporary = world.path("tmp").display().to_string();
        world.set("TMPDIR", &temporary);
        job(&world, &store, &store.url("out"));
        Cloud {
            world,
            sales,
            store,
            _coordinator: coordinator,
            endpoint,
        }
    }

    fn ask(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self
            .world
            .gapless(&[arguments, &["-o", "json", "--endpoint", &self.endpoint]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn worker(&self, name: &str) -> Process {
        let worker = self.world.start_as(
            name,
            &["worker", "--endpoint", &self.endpoint, "--slots", "1", "--name", name],
        );
        self.registered(name);
        worker
    }

    /// A worker whose requests to the store pass a hook.
    fn worker_through(&mut self, name: &str, hook: Hook) -> Process {
        let worker = self.store.worker_through(&mut self.world, &self.endpoint, name, hook);
        self.registered(name);
        worker
    }

    fn registered(&self, name: &str) {
        wait_for("the worker to register", || {
            let list = self.ask(&["workers"]);
            list.as_array()?
                .iter()
                .any(|worker| worker["name"] == name || worker["worker"] == name)
                .then_some(())
        });
    }

    fn submit(&self) -> String {
        let output = self
            .world
            .gapless(&["submit", "job.yaml", "-o", "name", "--endpoint", &self.endpoint]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    }

    fn ended(&self, run: &str) -> serde_json::Value {
        wait_for("the run to end", || {
            let run = self.ask(&["get", run]);
            let ended = matches!(run["state"].as_str()?, "completed" | "failed" | "cancelled" | "stopped");
            ended.then_some(run)
        })
    }
}

/// One of two workers is killed at a request; where `alone`, the other one comes only then.
fn a_worker_dies(kind: Kind, moment: &str, alone: bool, matches: fn(&Request, When) -> bool, at_death: fn(&Store)) {
    let mut cloud = Cloud::start(kind, ROWS);
    let (hook, id) = killer(matches);
    let mut doomed = cloud.worker_through("doomed", hook);
    *id.lock().expect("no panic before") = Some(doomed.id());
    let mut other = (!alone).then(|| cloud.worker("other"));
    let run = cloud.submit();
    assert_eq!(doomed.signal_of_end(), Some(9), "killed {moment}: {}", doomed.log());
    at_death(&cloud.store);
    let _other = other.get_or_insert_with(|| cloud.worker("other"));
    let ended = cloud.ended(&run);
    assert_eq!(ended["state"], "completed", "killed {moment}: {ended:#}");
    check(&cloud.world, &cloud.store, &cloud.sales);
}

fn has(store: &Store, part: &str) -> bool {
    store.keys("scratch/").iter().any(|key| key.contains(part))
}

fn workers_that_share_a_bucket_alone_do_what_those_with_a_shared_folder_do(kind: Kind) {
    let cloud = Cloud::start(kind, ROWS);
    let _workers = [cloud.worker("one"), cloud.worker("two")];
    let run = cloud.submit();
    let ended = cloud.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    check(&cloud.world, &cloud.store, &cloud.sales);
    // What memory does not hold has its place on the machine.
    let spill: Vec<_> = fs::read_dir(cloud.world.path("tmp"))
        .expect("there")
        .flatten()
        .collect();
    assert_eq!(spill.len(), 1, "{spill:?}");
    assert!(
        spill[0].file_name().to_string_lossy().starts_with("gapless-spill-"),
        "{spill:?}"
    );
}

fn a_worker_killed_while_it_scatters_costs_nothing(kind: Kind) {
    a_worker_dies(
        kind,
        "before an exchange file is there",
        false,
        |it, when| it.puts(".gx") && when == When::Before,
        |_| {},
    );
    a_worker_dies(
        kind,
        "after an exchange file is there",
        true,
        |it, when| it.puts(".gx") && when == When::After,
        |store| {
            assert!(
                has(store, ".gx") && !has(store, "/manifest/"),
                "{:?}",
                store.keys("scratch/")
            )
        },
    );
    a_worker_dies(
        kind,
        "before the commit is offered",
        false,
        |it, when| it.puts("/manifest/scatter-") && when == When::After,
        |_| {},
    );
}

fn a_worker_killed_while_buckets_are_read_or_merged_costs_nothing(kind: Kind) {
    a_worker_dies(
        kind,
        "as it reads an exchange file",
        false,
        |it, when| it.reads(".gx") && when == When::Before,
        |_| {},
    );
    a_worker_dies(
        kind,
        "as it merges",
        true,
        |it, when| it.puts("/data/merged-") && when == When::After,
        |store| assert!(has(store, ".gx"), "{:?}", store.keys("scratch/")),
    );
}

/// Whether a request begins to sweep a step's scratch.
fn sweeps_scratch(it: &Request) -> bool {
    let target = it.target();
    it.lists_uploads() && target.contains("prefix=scratch") && !target.contains("probe")
}

fn a_worker_killed_before_it_sweeps_is_followed_by_one_that_does(kind: Kind) {
    a_worker_dies(
        kind,
        "before the sweep",
        true,
        |it, when| sweeps_scratch(it) && when == When::Before,
        |store| {
            assert!(has(store, ".gx"), "{:?}", store.keys("scratch/"));
            assert_eq!(
                store.keys("out/by-shop/_gapless/certificate-").len(),
                1,
                "it is published"
            );
        },
    );
}

/// Wide rows: an exchange file of them takes several parts.
fn the_parts_of_an_exchange_file_whose_worker_was_killed_are_discarded(kind: Kind) {
    let mut cloud = Cloud::start(kind, MANY_ROWS);
    let at = cloud.store.url("");
    cloud.world.job(&format!(
        r#"job: sales
steps:
  - name: copy
    source: {{csv: {{path: "{at}/in/sales-*.csv", columns: {{id: int64, shop: string, cents: int64, note: string}}}}}}
    partition: {{hash: {{columns: [shop]}}, count: 3}}
    sink: {{csv: {{path: "{at}/out/copy"}}}}
"#
    ));
    let (hook, id) = killer(|it, when| it.sends_part() && it.puts(".gx") && when == When::After);
    let mut doomed = cloud.worker_through("doomed", hook);
    *id.lock().expect("no panic before") = Some(doomed.id());
    let run = cloud.submit();
    assert_eq!(doomed.signal_of_end(), Some(9), "{}", doomed.log());
    let open = cloud.store.uploads();
    assert!(
        open.len() == 1 && open[0].ends_with(".gx"),
        "it was in the middle of an upload: {open:?}"
    );
    let _other = cloud.worker("other");
    let ended = cloud.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    let mut input = Vec::new();
    for entry in fs::read_dir(cloud.world.path("data")).expect("there") {
        let text = fs::read_to_string(entry.expect("listed").path()).expect("readable");
        input.extend(text.lines().skip(1).map(str::to_string));
    }
    input.sort_unstable();
    assert!(cloud.store.rows("out/copy") == input, "the rows are those of the input");
    check_swept(&cloud.world, &cloud.store);
}

fn a_cancelled_run_leaves_nothing_in_scratch(kind: Kind) {
    let mut cloud = Cloud::start(kind, ROWS);
    let reached = Arc::new(AtomicBool::new(false));
    let (seen, gate) = (reached.clone(), Arc::new((Mutex::new(false), Condvar::new())));
    let door = gate.clone();
    // Buckets are about to be read: everything that was scattered lies there.
    let hook: Hook = Arc::new(move |it, when| {
        if when == When::Before && it.reads(".gx") {
            seen.store(true, Ordering::Relaxed);
            let (open, opened) = &*door;
            drop(
                opened
                    .wait_while(open.lock().expect("no panic"), |open| !*open)
                    .expect("no panic"),
            );
        }
        Fate::GoesOn
    });
    let _worker = cloud.worker_through("doomed", hook);
    let run = cloud.submit();
    wait_for("the buckets to be read", || {
        reached.load(Ordering::Relaxed).then_some(())
    });
    assert!(has(&cloud.store, ".gx"));
    cloud.world.gapless(&["cancel", &run, "--endpoint", &cloud.endpoint]);
    *gate.0.lock().expect("no panic") = true;
    gate.1.notify_all();
    assert_eq!(cloud.ended(&run)["state"], "cancelled");
    wait_for("scratch to be swept", || (!has(&cloud.store, "")).then_some(()));
    check_swept(&cloud.world, &cloud.store);
    assert_eq!(cloud.store.keys("out/by-shop/"), Vec::<String>::new());
}

/// A worker that stands still with an exchange file on its way, which arrives when [`Late::arrives`] lets it.
struct Late {
    worker: Process,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Late {
    /// Starts the worker and gives it the run, whose scatter it begins.
    fn begin(cloud: &mut Cloud) -> (Late, String) {
        let id: Arc<Mutex<Option<u32>>> = Arc::default();
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let frozen = Arc::new(AtomicUsize::new(0));
        let (of, door, count) = (id.clone(), gate.clone(), frozen.clone());
        let hook: Hook = Arc::new(move |it, when| {
            if when == When::Before && it.puts(".gx") && count.fetch_add(1, Ordering::Relaxed) == 0 {
                let id = wait_for("the id of the worker", || *of.lock().expect("no panic before"));
                kill_process(Pid::from_raw(id as i32).expect("a process"), Signal::STOP).expect("it runs");
                let (open, opened) = &*door;
                drop(
                    opened
                        .wait_while(open.lock().expect("no panic"), |open| !*open)
                        .expect("no panic"),
                );
            }
            Fate::GoesOn
        });
        let worker = cloud.worker_through("late", hook);
        *id.lock().expect("no panic before") = Some(worker.id());
        let run = cloud.submit();
        wait_for("the worker to stand still", || {
            (frozen.load(Ordering::Relaxed) > 0 && worker.is_still()).then_some(())
        });
        (Late { worker, gate }, run)
    }

    /// Lets the file arrive, and the worker go on then.
    fn arrives(&self, store: &Store) {
        let files = || store.keys("scratch/").iter().filter(|key| key.ends_with(".gx")).count();
        let before = files();
        *self.gate.0.lock().expect("no panic") = true;
        self.gate.1.notify_all();
        wait_for("the late exchange file", || (files() > before).then_some(()));
        self.worker.thaw();
    }
}

fn what_arrives_after_the_end_is_removed_by_who_sent_it(kind: Kind) {
    let mut cloud = Cloud::start(kind, ROWS);
    let (late, run) = Late::begin(&mut cloud);
    let _other = cloud.worker("other");
    let ended = cloud.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    check(&cloud.world, &cloud.store, &cloud.sales);
    late.arrives(&cloud.store);
    wait_for("it to be removed", || (!has(&cloud.store, "")).then_some(()));
    check(&cloud.world, &cloud.store, &cloud.sales);
}

/// Between its verdict and its exposure all that a step has staged is needed.
fn who_comes_late_leaves_alone_what_is_not_yet_shown(kind: Kind) {
    let mut cloud = Cloud::start(kind, ROWS);
    let text = fs::read_to_string(cloud.world.path("job.yaml")).expect("written");
    let one_step = text.split("  - name: in-order").next().expect("a step");
    cloud.world.job(one_step);
    let (late, run) = Late::begin(&mut cloud);
    let (hook, id) = killer(|it, when| it.copies("/out/by-shop/") && when == When::Before);
    let mut publisher = cloud.worker_through("publisher", hook);
    *id.lock().expect("no panic before") = Some(publisher.id());
    assert_eq!(publisher.signal_of_end(), Some(9), "{}", publisher.log());
    assert_eq!(
        cloud.store.keys("out/.by-shop.gapless/published/").len(),
        1,
        "the verdict stands"
    );
    let shown = cloud.store.keys("out/by-shop/_gapless/");
    assert_eq!(shown, Vec::<String>::new(), "it is not yet shown");
    late.arrives(&cloud.store);
    let ended = cloud.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    assert_eq!(cloud.store.rows("out/by-shop"), expected(&cloud.sales));
    wait_for("scratch to be swept", || (!has(&cloud.store, "")).then_some(()));
    check_swept(&cloud.world, &cloud.store);
}

fn run(world: &World, arguments: &[&str]) -> (i32, String) {
    let output = world.gapless(&[&["run", "job.yaml", "--slots", "2"], arguments].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!told.contains("AKIATESTKEY") && !told.contains("hidden"), "{told}");
    (output.status.code().unwrap_or(-1), told)
}

fn outputs_may_be_folders_or_kept_nowhere(kind: Kind) {
    let (world, sales, store) = lake(kind, ROWS);
    job(&world, &store, "out");
    let (scratch, at) = (store.url("scratch"), store.url(""));
    let (code, told) = run(&world, &["--scratch", &scratch, "--spill-dir", "spilled"]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(world.rows("out/by-shop"), expected(&sales));
    assert_eq!(world.rows("out/in-order").len() as u64, ROWS);
    check_swept(&world, &store);
    assert_eq!(
        fs::read_dir(world.path("spilled")).expect("made").count(),
        0,
        "nothing is left"
    );

    world.job(&format!(
        r#"job: checked
steps:
  - name: checked
    source: {{csv: {{path: "{at}/in/*.csv", columns: {{id: int64, shop: string, cents: int64, note: string}}}}}}
    partition: {{hash: {{columns: [shop]}}, count: 3}}
    check: [{{name: positive, that: "cents > 0"}}]
    on_error: {{reject: {{limit: {ROWS}}}}}
    sink: {{discard: {{}}}}
"#
    ));
    let (code, told) = run(&world, &["--scratch", &scratch]);
    assert_eq!(code, 0, "{told}");
    let left = store.keys("scratch/");
    assert!(
        left.iter().all(|key| key.starts_with("scratch/published/")),
        "records alone stay: {left:?}"
    );
    let certificates = left.iter().filter(|key| key.contains("/_gapless/certificate-"));
    assert_eq!(certificates.count(), 1, "{left:?}");
    let output = world.gapless(&["rejects", "checked", "-o", "json", "--state", ".gapless"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let wrong = in_order(&world)
        .iter()
        .filter(|row| row.starts_with('-') || row.starts_with("0,"))
        .count();
    assert!(wrong > 0);
    assert_eq!(told.matches("\"rule\"").count(), wrong, "{told}");
}

fn a_commit_waits_for_what_it_speaks_of(kind: Kind) {
    let (mut world, _, store) = lake(kind, ROWS);
    job(&world, &store, "out");
    let denied = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let hook: Hook = Arc::new(move |it, when| match when == When::Before && it.puts(".gx") {
        true => {
            count.fetch_add(1, Ordering::Relaxed);
            Fate::Answered("403 Forbidden", denied)
        }
        false => Fate::GoesOn,
    });
    store.hook(&mut world, hook);
    let (code, told) = run(&world, &["--scratch", &store.url("scratch"), "--state", "state"]);
    assert!(refused.load(Ordering::Relaxed) > 0);
    assert!(
        code == 1 && told.contains("cannot write") && told.contains("not permitted to this worker's credentials"),
        "{code} {told}"
    );
    assert!(!has(&store, "/manifest/"), "{:?}", store.keys("scratch/"));
    assert!(!world.path("out/by-shop").exists(), "nothing is published");
}

fn a_store_that_cannot_be_scratch_is_refused_in_words(kind: Kind) {
    let (mut world, _, store) = lake(kind, 10);
    job(&world, &store, "out");
    let (elsewhere, nowhere) = (kind.url("elsewhere", "scratch"), kind.url("", "scratch"));
    for (scratch, code, words) in [
        (elsewhere.as_str(), 1, "there is no such bucket"),
        ("ftp://b/scratch", 2, "known are s3://"),
        (nowhere.as_str(), 2, "no usable bucket name"),
    ] {
        let found = run(&world, &["--scratch", scratch, "--state", "one"]);
        assert!(found.0 == code && found.1.contains(words), "{scratch}: {found:?}");
    }
    let (code, told) = run(&world, &["--state", &store.url("state")]);
    assert!(
        code == 2 && told.contains("write the path of a folder"),
        "{code} {told}"
    );

    world.set(
        "GAPLESS_ALLOW_PATHS",
        &format!("{},{}", world.path("").display(), store.url("in")),
    );
    let (code, told) = run(&world, &["--scratch", &store.url("scratch"), "--state", "allowed"]);
    assert!(
        code == 1 && told.contains("allow_paths") && told.contains("(scratch)"),
        "{code} {told}"
    );
    world.set("GAPLESS_ALLOW_PATHS", "any");

    let conditions = Arc::new(AtomicUsize::new(0));
    let seen = conditions.clone();
    let hook: Hook = Arc::new(move |request, when| {
        if when == When::Before {
            seen.fetch_add(usize::from(request.drop_put_if_absent()), Ordering::Relaxed);
        }
        Fate::GoesOn
    });
    store.hook(&mut world, hook);
    let scratch = store.url("scratch");
    let (code, told) = run(&world, &["--scratch", &scratch, "--state", "two"]);
    assert!(
        conditions.load(Ordering::Relaxed) >= 2,
        "the condition was there to be ignored"
    );
    assert!(
        code == 1 && told.contains("does not put an object only if it is absent") && told.contains(&(scratch + "/")),
        "{code} {told}"
    );
    assert!(!has(&store, ".gx"), "no work was done");

    assert!(!world.path("out/by-shop").exists(), "nothing is published");
}

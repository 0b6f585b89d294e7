//! Whole jobs on real processes: the answer is the same whatever the cut and whatever dies.

use std::{fs, thread};

use gapless_tests::{Cluster, World, expected};
use serde_json::Value;

const ROWS: u64 = 60_000;
const MANY: &str = "{key_range: {column: id}, count: 24}";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every sale exactly once, and the right sums.
fn check_output(world: &World, sales: &gapless_tests::Sales) {
    let rows = world.rows("out/load");
    let mut ids: Vec<u64> = rows
        .iter()
        .map(|row| row.split(',').next().unwrap_or_default().parse().expect("an id"))
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..ROWS).collect::<Vec<_>>(), "each sale is published once");
    assert_eq!(world.rows("out/by-shop"), expected(sales));
}

#[test]
fn the_answer_does_not_depend_on_the_cut_or_the_workers() {
    let cuts = [
        ("bytes", "{hash: {columns: [shop]}, count: 1}", "1"),
        (
            "{key_range: {column: id}, count: 3}",
            "{hash: {columns: [shop]}, count: 3}",
            "2",
        ),
        (
            "{hash: {columns: [id]}, count: 8}",
            "{key_range: {column: shop}, count: 5}",
            "5",
        ),
        ("files", "{hash: {columns: [shop]}, count: 64}", "2"),
        ("auto", "auto", "1"),
    ];
    for (load, by_shop, workers) in cuts {
        let (world, sales) = World::with_sales(ROWS);
        world.sales_job(load, by_shop);
        let output = world.gapless(&["run", "job.yaml", "--workers", workers, "--slots", "1"]);
        assert!(output.status.success(), "{load}, {by_shop}: {}", text(&output.stderr));
        check_output(&world, &sales);
    }
}

#[test]
fn a_run_that_is_killed_goes_on_where_it_was() {
    // Killed once this many chunks of the first step are durable.
    for chunks in [0, 1, 5, 11, 17, 23] {
        let (world, sales) = World::with_sales(ROWS);
        world.sales_job(MANY, "{hash: {columns: [shop]}, count: 8}");
        let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
        gapless_tests::wait_for("the chunks to kill at", || {
            (world.manifests("load") >= chunks && world.path(".gapless/store").is_dir() || !first.is_running())
                .then_some(())
        });
        assert!(first.kill(), "the kill at {chunks} chunks came before the end");
        let committed = world.committed_partitions();
        let output = world.gapless(&["run", "job.yaml", "--slots", "1"]);
        assert!(
            output.status.success(),
            "after a kill at {chunks}: {}",
            text(&output.stderr)
        );
        check_output(&world, &sales);
        // Files carry the term of the attempt that wrote them. What was on record at the kill is kept;
        // chunks that were durable but not yet on record are made again.
        let of_first = world
            .files("out/load")
            .iter()
            .filter(|path| gapless_tests::term(path) == 1)
            .count();
        assert_eq!(
            of_first as u64, committed,
            "the partitions on record at the kill are not read again"
        );
    }
}

/// The store remembers a run as running; whoever looks at it says that nobody runs it.
#[test]
fn a_run_that_was_killed_is_told_as_interrupted_until_it_goes_on() {
    let (world, _) = World::with_sales(ROWS);
    world.sales_job(MANY, "{hash: {columns: [shop]}, count: 8}");
    let states = || -> Vec<String> {
        let listed = world.gapless(&["list", "--state", ".gapless", "-o", "json"]);
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
        let runs = listed.as_array().expect("a list").iter();
        runs.map(|run| run["state"].as_str().expect("a word").to_string())
            .collect()
    };
    let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
    gapless_tests::wait_for("a chunk to kill at", || {
        (world.manifests("load") >= 1 || !first.is_running()).then_some(())
    });
    assert_eq!(states(), ["running"], "while it runs");
    assert!(first.kill(), "the kill came before the end");
    assert_eq!(states(), ["interrupted"]);
    let goes_on = "nobody runs it: the process that did is gone; `gapless run` of the same job goes on where it was";
    for (verb, code) in [
        (&["get", "-o", "json"] as &[&str], 0),
        (&["describe"], 0),
        // What waits for a change would wait for good.
        (&["watch", "--timeout", "60s"], 1),
        (&["watch", "--timeout", "60s", "-o", "json"], 1),
    ] {
        let looked = world.gapless(&[verb, &["sales", "--state", ".gapless"]].concat());
        let said = text(&looked.stdout) + &text(&looked.stderr);
        assert_eq!(looked.status.code(), Some(code), "{verb:?}: {said}");
        assert!(
            said.contains("interrupted") && said.contains(goes_on),
            "{verb:?}: {said}"
        );
    }
    let mut followed = world.start(&["logs", "sales", "--follow", "--state", ".gapless"]);
    assert_eq!(followed.code(), 0, "{}", followed.log());
    let output = world.gapless(&["run", "job.yaml"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(states(), ["completed"]);
}

#[test]
fn a_worker_that_is_killed_costs_its_open_chunk_alone() {
    let (world, sales) = World::with_sales(ROWS);
    world.sales_job(MANY, "{hash: {columns: [shop]}, count: 8}");
    let mut cluster = Cluster::start(&world, 3);
    let run = cluster.submit("job.yaml");
    let victim = gapless_tests::wait_for("a worker at work", || cluster.busy_worker());
    assert!(cluster.workers[victim].kill(), "the worker was alive");
    assert_eq!(cluster.run(&run)["state"], "running", "the kill came before the end");
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    check_output(&world, &sales);
}

#[test]
fn a_coordinator_that_is_killed_and_started_again_loses_nothing() {
    let (world, sales) = World::with_sales(ROWS);
    world.sales_job(MANY, "{hash: {columns: [shop]}, count: 8}");
    let mut cluster = Cluster::start(&world, 2);
    let run = cluster.submit("job.yaml");
    gapless_tests::wait_for("some chunks", || (world.manifests("load") >= 3).then_some(()));
    assert!(cluster.coordinator.kill(), "the coordinator was alive");
    assert!(
        !world.path("out/load").exists(),
        "the kill came before the step was published"
    );
    cluster.restart_coordinator();
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    check_output(&world, &sales);
}

#[test]
fn fifty_submits_make_one_run_and_a_complete_one_is_not_done_again() {
    let (world, sales) = World::with_sales(ROWS);
    world.sales_job("bytes", "auto");
    let cluster = Cluster::start(&world, 1);
    let codes: Vec<i32> = thread::scope(|scope| {
        let submit = || {
            world
                .gapless(&["submit", "job.yaml", "--endpoint", &cluster.endpoint])
                .status
                .code()
        };
        let threads: Vec<_> = (0..50).map(|_| scope.spawn(submit)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic").expect("an exit code"))
            .collect()
    });
    assert_eq!(
        codes.iter().filter(|code| **code == 0).count(),
        1,
        "one submit wins: {codes:?}"
    );
    assert!(
        codes.iter().all(|code| matches!(code, 0 | 7)),
        "the others conflict: {codes:?}"
    );
    let runs = cluster.ask(&["list", "-o", "json"]);
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "{runs:#}");
    let run = runs[0]["run"].as_str().expect("an id").to_string();
    assert_eq!(cluster.ended(&run)["state"], "completed");
    check_output(&world, &sales);
    let again = world.gapless(&["submit", "job.yaml", "--endpoint", &cluster.endpoint]);
    assert_eq!(again.status.code(), Some(7), "{}", text(&again.stderr));
}

#[test]
fn a_cancelled_run_publishes_nothing_and_leaves_nothing_staged() {
    let (world, _) = World::with_sales(ROWS);
    world.sales_job(MANY, "{hash: {columns: [shop]}, count: 8}");
    let cluster = Cluster::start(&world, 1);
    let run = cluster.submit("job.yaml");
    gapless_tests::wait_for("a chunk", || (world.manifests("load") >= 1).then_some(()));
    let cancelled = world.gapless(&["cancel", &run, "--endpoint", &cluster.endpoint]);
    assert!(cancelled.status.success(), "{}", text(&cancelled.stderr));
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "cancelled", "{ended:#}");
    for (step, name) in [("load", "load"), ("by-shop", "by-shop")] {
        let published = ended["steps"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|it| it["step"] == step && it["state"] == "published");
        assert_eq!(
            world.path(&format!("out/{name}")).is_dir(),
            published,
            "{step} is visible only if it was published"
        );
        assert_eq!(world.manifests(name), 0, "nothing of {step} stays staged");
    }
}

#[test]
fn a_cancelled_run_gives_way_to_a_new_one() {
    let (world, sales) = World::with_sales(ROWS);
    world.sales_job(MANY, "{hash: {columns: [shop]}, count: 8}");
    let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
    gapless_tests::wait_for("a chunk", || (world.manifests("load") >= 1).then_some(()));
    assert!(first.kill(), "the kill came before the end");
    // Nobody works here: the run stays cancelling until a worker comes.
    let cancelled = world.gapless(&["cancel", "sales", "--state", ".gapless"]);
    assert!(cancelled.status.success(), "{}", text(&cancelled.stderr));
    let output = world.gapless(&["run", "job.yaml"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    check_output(&world, &sales);
    let runs: Value =
        serde_json::from_slice(&world.gapless(&["list", "--state", ".gapless", "-o", "json"]).stdout).expect("JSON");
    let states: Vec<_> = runs
        .as_array()
        .expect("a list")
        .iter()
        .map(|run| run["state"].as_str().unwrap_or(""))
        .collect();
    assert_eq!(states, ["completed", "cancelled"], "newest first");
}

#[test]
fn a_kill_while_the_store_is_made_leaves_one_that_opens() {
    // Looked at in steps of the folder's life, the first of which is its lock.
    for sign in [
        ".gapless",
        ".gapless/store.lock",
        ".gapless/store.new",
        ".gapless/store",
    ] {
        let (world, sales) = World::with_sales(ROWS);
        world.sales_job("bytes", "auto");
        let mut first = world.start(&["run", "job.yaml"]);
        gapless_tests::wait_for(sign, || {
            (world.path(sign).exists() || world.path(".gapless/store").exists()).then_some(())
        });
        assert!(first.kill(), "the kill at {sign} came before the end");
        let output = world.gapless(&["run", "job.yaml"]);
        assert!(output.status.success(), "after {sign}: {}", text(&output.stderr));
        check_output(&world, &sales);
    }
}

#[test]
fn a_changed_source_is_told_with_its_partition() {
    let (world, _) = World::with_sales(1000);
    world.sales_job("{key_range: {column: id}, count: 2}", "auto");
    assert!(world.gapless(&["run", "job.yaml"]).status.success());
    let holds = world.gapless(&["verify", "sales", "--state", ".gapless"]);
    assert!(holds.status.success(), "{}", text(&holds.stderr));
    let path = world.path("data/sales-1.csv");
    let changed = fs::read_to_string(&path)
        .expect("readable")
        .replacen("shop-", "ship-", 1);
    fs::write(&path, changed).expect("written");
    let broken = world.gapless(&["verify", "sales", "--state", ".gapless"]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(text(&broken.stderr).contains("partition"), "{}", text(&broken.stderr));
}

#[test]
fn a_look_up_that_changes_under_a_run_is_refused_until_its_content_is_back() {
    let (world, _) = World::with_sales(ROWS);
    let kinds = |text: &str| fs::write(world.path("kind.csv"), text).expect("written");
    kinds("shop,kind\nshop-0,big\n");
    world.job(
        r#"job: sales
steps:
  - name: load
    source:
      csv: {path: "data/sales-*.csv", columns: {id: int64, shop: string, cents: int64, note: string}}
    lookups: {kind: {csv: {path: "kin?.csv"}}}
    partition: {key_range: {column: id}, count: 24}
    transform: {sql: "SELECT input.id, input.shop, k.kind FROM input LEFT JOIN kind k ON k.shop = input.shop"}
    sink: {csv: {path: "out/load"}}
"#,
    );
    let run = || world.gapless(&["run", "job.yaml", "--slots", "1"]);
    let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
    gapless_tests::wait_for("a chunk", || (world.manifests("load") >= 1).then_some(()));
    assert!(first.kill(), "the kill came before the end");
    kinds("shop,kind\nshop-0,BIG\n");
    let refused = run();
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    for words in [
        "look-up kind: kind.csv changed since this run was planned",
        "run the job again, then the step begins anew",
    ] {
        assert!(text(&refused.stderr).contains(words), "{}", text(&refused.stderr));
    }
    assert!(!world.path("out/load").exists(), "nothing is published");
    kinds("shop,kind\nshop-0,big\n");
    let goes_on = run();
    assert!(goes_on.status.success(), "{}", text(&goes_on.stderr));
    let rows = world.rows("out/load");
    assert_eq!(rows.len() as u64, ROWS);
    for row in rows {
        assert_eq!(row.contains(",shop-0,"), row.ends_with(",big"), "{row}");
    }

    let verify = || world.gapless(&["verify", "sales", "--state", ".gapless", "-o", "json"]);
    let holds = verify();
    assert!(holds.status.success(), "{}", text(&holds.stderr));
    kinds("shop,kind\nshop-0,small\n");
    let broken = verify();
    assert_eq!(broken.status.code(), Some(1), "{}", text(&broken.stderr));
    assert!(
        text(&broken.stderr).contains("look-up kind: kind.csv changed"),
        "{}",
        text(&broken.stderr)
    );
    let found: Value = serde_json::from_slice(&broken.stdout).expect("JSON");
    assert_eq!(found[0]["details"][0]["kind"], "lookup", "{found:#}");
}

#[test]
fn verify_tells_of_files_that_came_later_and_of_the_partitions_that_read_a_changed_one() {
    let (world, _) = World::with_sales(1000);
    world.sales_job("bytes", "{hash: {columns: [shop]}, count: 2}");
    assert!(world.gapless(&["run", "job.yaml"]).status.success());
    let verify = || world.gapless(&["verify", "sales", "--state", ".gapless", "-o", "json"]);
    fs::copy(world.path("data/sales-1.csv"), world.path("data/sales-2.csv")).expect("copied");
    let later = verify();
    assert!(later.status.success(), "the certificate holds: {}", text(&later.stderr));
    let notice = "load: 1 file matches data/sales-*.csv now that the run did not read: data/sales-2.csv";
    assert!(text(&later.stderr).contains(notice), "{}", text(&later.stderr));
    let found: Value = serde_json::from_slice(&later.stdout).expect("JSON");
    assert_eq!(found[0]["unread"][0]["files"][0], "data/sales-2.csv", "{found:#}");

    let path = world.path("data/sales-1.csv");
    let longer = fs::read_to_string(&path).expect("readable") + "5000,shop-0,1,x\n";
    fs::write(&path, longer).expect("written");
    let broken = verify();
    assert_eq!(broken.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&broken.stdout).expect("JSON");
    for (step, stage) in [(0, "execute"), (1, "scatter")] {
        let change = &found[step]["details"][0];
        assert_eq!(change["kind"], "resized", "{found:#}");
        assert_eq!(change["path"], "data/sales-1.csv");
        let reader = &change["partitions"][0];
        assert_eq!(
            (&reader["stage"], &reader["partition"]),
            (&Value::from(stage), &Value::from(0))
        );
        assert!(reader["low"].is_u64() && reader["high"].is_u64(), "{reader}");
    }
}

#[test]
fn what_a_killed_run_has_spilled_is_swept_by_the_next() {
    let (world, sales) = World::with_sales(ROWS);
    world.sales_job(MANY, "{hash: {columns: [shop]}, count: 8}");
    let spilled = || {
        let folder = fs::read_dir(world.path(".gapless/scratch/spill"))
            .into_iter()
            .flatten()
            .flatten();
        folder.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
    gapless_tests::wait_for("a chunk", || (world.manifests("load") >= 1).then_some(()));
    assert!(first.kill(), "the kill came before the end");
    let left = spilled();
    let lock = left.iter().find(|path| path.extension().is_some_and(|it| it == "lock"));
    // What a sort that was under way would have left.
    let folder = lock.expect("its lock is left").with_extension("");
    fs::create_dir_all(folder.join("datafusion-x")).expect("made");
    fs::write(folder.join("datafusion-x/0"), "spilled").expect("written");
    let output = world.gapless(&["run", "job.yaml"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    check_output(&world, &sales);
    assert_eq!(
        spilled(),
        Vec::<std::path::PathBuf>::new(),
        "nothing stays of either run"
    );
}

#[test]
fn a_folder_that_is_not_ours_is_not_replaced() {
    let (world, _) = World::with_sales(100);
    fs::create_dir_all(world.path("out/load")).expect("made");
    fs::write(world.path("out/load/thesis.txt"), "years of work").expect("written");
    world.job(
        r#"job: replacing
parameters: {n: {type: int64}}
steps:
  - name: load
    source: {csv: {path: "data/sales-*.csv"}}
    sink: {csv: {path: out/load, exists: replace}}
"#,
    );
    let run = |n: &str| world.gapless(&["run", "job.yaml", "-p", n]);
    let refused = run("n=1");
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    assert!(
        text(&refused.stderr).contains("would remove it for good"),
        "{}",
        text(&refused.stderr)
    );
    assert!(world.path("out/load/thesis.txt").exists());
    fs::rename(world.path("out/load"), world.path("mine")).expect("moved");
    // The first run goes on; another replaces its output.
    for n in ["n=1", "n=2"] {
        let output = run(n);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(world.rows("out/load").len(), 100);
    }
}

#[test]
fn a_plan_with_a_hole_is_refused_before_any_worker_starts() {
    let holes = [
        ("[{through: 4}, {from: 6}]", "5"),
        ("[{through: 6}, {from: 5}]", "overlap"),
        ("[{from: 2}]", "2"),
    ];
    for (ranges, told) in holes {
        let (world, _) = World::with_sales(20);
        world.sales_job(&format!("{{key_range: {{column: id, ranges: {ranges}}}}}"), "auto");
        let plan = world.gapless(&["plan", "job.yaml"]);
        assert_ne!(plan.status.code(), Some(0), "{ranges} is refused");
        let run = world.gapless(&["run", "job.yaml"]);
        assert_ne!(run.status.code(), Some(0));
        let said = text(&run.stderr) + &text(&run.stdout);
        assert!(said.contains(told), "{ranges}: {said}");
        assert!(!world.path("out/load").exists(), "nothing is published");
    }
}

/// A failed run says where its rejected records are, and there they are: so many.
fn check_kept_rejects(stderr: &[u8], expected: usize) {
    let told = text(stderr);
    let folder = told
        .split("the rejected records are in ")
        .nth(1)
        .expect("it is said where");
    let folder = folder.split([' ', '\n', ';']).next().expect("a path");
    let files = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder}: {error}: {told}"));
    let lines = files.map(|entry| {
        let path = entry.expect("listed").path();
        fs::read_to_string(path).expect("readable").lines().count()
    });
    assert_eq!(lines.sum::<usize>(), expected, "{told}");
}

#[test]
fn records_that_are_too_many_for_one_partition_are_kept_where_it_says() {
    let (world, _) = World::with_sales(200);
    fs::write(
        world.path("data/sales-1.csv"),
        "id,shop,cents,note\nx,a,1,n\n2,a,y,n\nz,a,1,n\n4,a,1,n\n",
    )
    .expect("written");
    world.job(
        r#"job: strict
steps:
  - name: load
    source:
      csv: {path: "data/sales-1.csv", columns: {id: int64, shop: string, cents: int64, note: string}}
    partition: bytes
    sink: {csv: {path: out/load}}
    on_error: {reject: {limit: 1}}
"#,
    );
    let over = world.gapless(&["run", "job.yaml"]);
    assert_eq!(over.status.code(), Some(1), "{}", text(&over.stderr));
    // The limit and one more: there reading ended.
    check_kept_rejects(&over.stderr, 2);
}

#[test]
fn records_that_break_a_rule_are_quarantined_up_to_the_limit() {
    let (world, _) = World::with_sales(2000);
    let job = |limit: u32| {
        format!(
            r#"job: checked
parameters: {{limit: {{type: int64}}}}
steps:
  - name: load
    source:
      csv: {{path: "data/sales-*.csv", columns: {{id: int64, shop: string, cents: int64, note: string}}}}
    partition: {{hash: {{columns: [shop]}}, count: 4}}
    check: [{{name: no refund, that: "cents >= 0"}}]
    sink: {{csv: {{path: "out/load"}}}}
    on_error: {{reject: {{limit: {limit}}}}}
"#
        )
    };
    let input = fs::read_to_string(world.path("data/sales-0.csv")).expect("readable")
        + &fs::read_to_string(world.path("data/sales-1.csv")).expect("readable");
    let refunds = input
        .lines()
        .filter(|line| line.split(',').nth(2).is_some_and(|cents| cents.starts_with('-')))
        .count();
    assert!(refunds > 10, "the input has refunds");
    world.job(&job(refunds as u32 - 1));
    let over = world.gapless(&["run", "job.yaml", "-p", "limit=1"]);
    assert_eq!(over.status.code(), Some(1), "{}", text(&over.stderr));
    assert!(!world.path("out/load").exists(), "over the limit nothing is published");
    check_kept_rejects(&over.stderr, refunds);
    world.job(&job(refunds as u32));
    let within = world.gapless(&["run", "job.yaml", "-p", "limit=2"]);
    assert!(within.status.success(), "{}", text(&within.stderr));
    assert_eq!(world.rows("out/load").len(), 2000 - refunds);
    let rejects = fs::read_dir(world.path("out/load/_gapless/rejects")).expect("published with the output");
    let lines: Vec<Value> = rejects
        .flat_map(|entry| {
            fs::read_to_string(entry.expect("listed").path())
                .expect("readable")
                .lines()
                .map(str::to_string)
                .collect::<Vec<_>>()
        })
        .map(|line| serde_json::from_str(&line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), refunds);
    for reject in &lines {
        let (file, line) = (
            reject["file"].as_str().expect("a file"),
            reject["line"].as_u64().expect("a line"),
        );
        let source = fs::read_to_string(world.path(file)).expect("readable");
        let raw = source.lines().nth(line as usize - 1).expect("that line");
        assert_eq!(reject["raw"].as_str(), Some(raw), "the raw text is that of the line");
        assert_eq!(reject["rule"], "no refund");
        assert!(reject["partition"].is_u64(), "{reject}");
    }
}

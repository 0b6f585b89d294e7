//! A guarded cluster of real processes: it does its job for those who may, and the others are told why not.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    process::Output,
};

use gapless_tests::{Process, World, etcd::Etcd, expected, wait_for};
use serde_json::Value;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs the program as the client, worker or coordinator that a configuration file describes.
fn with(world: &World, config: &str, arguments: &[&str]) -> Output {
    world.gapless(&[arguments, &["--config", config]].concat())
}

fn refused(world: &World, config: &str, arguments: &[&str], code: i32, words: &[&str]) {
    let output = with(world, config, arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{config} {arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{config} {arguments:?}: {said}\nlacks {word}");
    }
}

fn audit(world: &World) -> Vec<Value> {
    let text = fs::read_to_string(world.path("audit.jsonl")).expect("readable");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// A cluster with certificates and tokens, and a worker. Configuration files name who is who.
fn guarded(world: &World) -> (Process, Process) {
    for folder in ["certs", "other"] {
        let made = world.gapless(&["tls", "init", folder]);
        assert!(made.status.success(), "{}", text(&made.stderr));
    }
    for (name, role) in [("olga", "operate"), ("vera", "view"), ("will", "worker")] {
        let made = world.gapless(&[
            "token",
            "new",
            "--role",
            role,
            "--name",
            name,
            "--add-to",
            "tokens.yaml",
        ]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        fs::write(world.path(&format!("{name}.token")), &made.stdout).expect("written");
    }
    let tls = |authority: &str, folder: &str, name: &str| {
        format!("tls_ca: {authority}/ca.pem\ntls_cert: {folder}/{name}.pem\ntls_key: {folder}/{name}.key\n")
    };
    let write = |name: &str, text: &str| fs::write(world.path(name), text).expect("written");
    let coordinator = format!(
        "{}listen: 0.0.0.0:0\ntokens: tokens.yaml\naudit_log: audit.jsonl\nstate_dir: state\nlease_ms: 2000\n\
         heartbeat_ms: 200\n",
        tls("certs", "certs", "coordinator")
    );
    write("coordinator.yaml", &coordinator);
    let mut coordinator = world.start(&["coordinator", "--config", "coordinator.yaml"]);
    let endpoint = coordinator.line();
    assert!(endpoint.starts_with("https://127.0.0.1:"), "{endpoint}");
    let at = format!("endpoints: {endpoint}\n");
    let client = tls("certs", "certs", "client");
    for (name, config) in [
        ("olga", format!("{client}token_file: olga.token\n")),
        ("vera", format!("{client}token_file: vera.token\n")),
        ("nobody", client.clone()),
        (
            "no-certificate",
            "tls_ca: certs/ca.pem\ntoken_file: olga.token\n".to_string(),
        ),
        (
            "foreign",
            format!("{}token_file: olga.token\n", tls("certs", "other", "client")),
        ),
        (
            "fooled",
            format!("{}token_file: olga.token\n", tls("other", "certs", "client")),
        ),
        ("no-authority", String::new()),
        (
            "worker",
            format!("{}token_file: will.token\nslots: 1\n", tls("certs", "certs", "worker")),
        ),
    ] {
        write(&format!("{name}.yaml"), &format!("{at}{config}"));
    }
    write("plain.yaml", &at.replace("https", "http"));
    (coordinator, world.start(&["worker", "--config", "worker.yaml"]))
}

#[test]
fn a_guarded_cluster_does_its_job_and_tells_the_others_why_not() {
    let (world, sales) = World::with_sales(2_000);
    let (mut coordinator, mut worker) = guarded(&world);
    world.sales_job(
        "{key_range: {column: id}, count: 4}",
        "{hash: {columns: [shop]}, count: 2}",
    );
    let done = with(&world, "olga.yaml", &["submit", "job.yaml", "--wait"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(world.rows("out/by-shop"), expected(&sales));

    let list = ["list"];
    let cancel = ["cancel", "sales"];
    for (config, arguments, code, words) in [
        (
            "nobody.yaml",
            &list[..],
            5,
            &["ListRuns needs a token of the role view", "--token-file"][..],
        ),
        (
            "vera.yaml",
            &cancel,
            5,
            &["needs the role operate", "vera has the role view"],
        ),
        (
            "no-certificate.yaml",
            &list,
            5,
            &["refuses this side's certificate", "CertificateRequired"],
        ),
        (
            "foreign.yaml",
            &list,
            5,
            &["refuses this side's certificate", "--tls-cert"],
        ),
        ("fooled.yaml", &list, 6, &["invalid peer certificate"]),
        ("no-authority.yaml", &list, 2, &["--tls-ca"]),
        ("plain.yaml", &list, 6, &["http://127.0.0.1", "write https://"]),
    ] {
        refused(&world, config, arguments, code, words);
        let alive = with(&world, "olga.yaml", &list);
        assert!(alive.status.success(), "after {config}: {}", text(&alive.stderr));
    }
    let submits = ["submit", "job.yaml"];
    refused(&world, "vera.yaml", &submits, 5, &["needs the role submit"]);
    refused(&world, "olga.yaml", &submits, 7, &["is complete"]);

    // A worker with somebody else's token is not given anything.
    let config = fs::read_to_string(world.path("worker.yaml")).expect("readable");
    fs::write(world.path("intruder.yaml"), config.replace("will.token", "olga.token")).expect("written");
    let _intruder = world.start(&["worker", "--config", "intruder.yaml", "--name", "intruder"]);
    wait_for("the denial of a session", || {
        audit(&world)
            .into_iter()
            .find(|line| line["method"] == "gapless.v1.Workers/Session" && line["who"] == "olga")
            .map(|line| assert_eq!(line["outcome"], "denied"))
    });
    let workers = with(&world, "olga.yaml", &["workers", "-o", "json"]);
    let workers: Value = serde_json::from_slice(&workers.stdout).expect("JSON");
    assert_eq!(workers.as_array().map(Vec::len), Some(1), "{workers:#}");

    let told: Vec<String> = audit(&world)
        .iter()
        .map(|line| {
            let word = |key: &str| line[key].as_str().unwrap_or("-").to_string();
            format!("{} {} {}", word("who"), word("method"), word("outcome"))
        })
        .collect();
    for expected in [
        "will gapless.v1.Workers/Session done",
        "olga gapless.v1.Jobs/Submit done",
        "client gapless.v1.Jobs/ListRuns denied",
        "vera gapless.v1.Jobs/CancelRun denied",
        "anonymous connect denied",
        "olga gapless.v1.Jobs/Submit refused",
    ] {
        assert!(told.iter().any(|line| line == expected), "{told:#?}\nlack {expected}");
    }
    let refused_at_the_door = told.iter().filter(|line| line.ends_with("connect denied")).count();
    assert!(refused_at_the_door >= 4, "{told:#?}");
    assert!(coordinator.is_running() && worker.is_running());
}

#[test]
fn a_standby_with_tls_sends_clients_and_workers_to_the_leader_over_tls() {
    let (world, sales) = World::with_sales(1_000);
    let made = world.gapless(&["tls", "init", "certs"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let etcd = Etcd::start(1);
    let own = |name: &str| format!("tls_ca: certs/ca.pem\ntls_cert: certs/{name}.pem\ntls_key: certs/{name}.key\n");
    let config = format!(
        "{}store: etcd\netcd_endpoints: [\"{}\"]\nlisten: 127.0.0.1:0\nscratch: scratch\nleader_ttl_s: 2\n",
        own("coordinator"),
        etcd.endpoints().join("\", \"")
    );
    fs::write(world.path("coordinator.yaml"), config).expect("written");
    let start = |name: &str| {
        let mut process = world.start_as(name, &["coordinator", "--config", "coordinator.yaml"]);
        let endpoint = process.line();
        (process, endpoint)
    };
    let (leader, first) = start("one");
    wait_for("the first to lead", || leader.log().contains("leading").then_some(()));
    let (standby, second) = start("two");
    wait_for("the standby to see who leads", || {
        standby.log().contains(&first).then_some(())
    });
    assert!(first.starts_with("https://127.0.0.1:"), "{first}");
    // Both know the standby alone.
    for name in ["worker", "client"] {
        let config = format!("{}endpoints: {second}\n", own(name));
        fs::write(world.path(&format!("{name}.yaml")), config).expect("written");
    }
    let _worker = world.start(&["worker", "--config", "worker.yaml"]);
    world.sales_job("bytes", "{hash: {columns: [shop]}, count: 2}");
    let done = with(&world, "client.yaml", &["submit", "job.yaml", "--wait"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(world.rows("out/by-shop"), expected(&sales));
}

#[test]
fn what_tls_init_makes_is_private_and_not_overwritten() {
    let (world, _) = World::with_sales(1);
    let made = world.gapless(&["tls", "init", "certs", "--host", "example.org"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let files = text(&made.stdout);
    assert_eq!(files.lines().count(), 8, "{files}");
    for file in files.lines() {
        let mode = world.path(file).metadata().expect("made").permissions().mode() & 0o777;
        assert_eq!(mode, if file.ends_with(".key") { 0o600 } else { 0o644 }, "{file}");
    }
    let before = fs::read(world.path("certs/ca.key")).expect("readable");
    fs::remove_file(world.path("certs/ca.pem")).expect("removed");
    let again = world.gapless(&["tls", "init", "certs"]);
    assert_eq!(again.status.code(), Some(7), "{}", text(&again.stderr));
    assert!(
        text(&again.stderr).contains("nothing is overwritten"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(fs::read(world.path("certs/ca.key")).expect("readable"), before);
    assert!(!world.path("certs/ca.pem").exists(), "all or nothing");
}

#[test]
fn a_coordinator_does_not_serve_a_network_unguarded_unless_told_in_words() {
    let (world, _) = World::with_sales(1);
    let everywhere = ["coordinator", "--listen", "0.0.0.0:0", "--state", "state"];
    let output = world.gapless(&everywhere);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("--insecure"), "{}", text(&output.stderr));
    assert!(!world.path("state").exists(), "it has not begun");
    let mut coordinator = world.start(&[&everywhere[..], &["--insecure"]].concat());
    let endpoint = coordinator.line();
    let list = world.gapless(&["list", "--endpoint", &endpoint]);
    assert!(list.status.success(), "{}", text(&list.stderr));
}

#[test]
fn a_worker_touches_nothing_outside_its_folders() {
    let (world, _) = World::with_sales(1_000);
    for folder in ["out", "scratch", "elsewhere"] {
        fs::create_dir(world.path(folder)).expect("made");
    }
    fs::copy(world.path("data/sales-0.csv"), world.path("elsewhere/secret.csv")).expect("copied");
    symlink(world.path("elsewhere/secret.csv"), world.path("data/link.csv")).expect("linked");
    let mut coordinator = world.start(&[
        "coordinator",
        "--listen",
        "127.0.0.1:0",
        "--state",
        "state",
        "--scratch",
        "scratch",
    ]);
    let endpoint = coordinator.line();
    let allowed = ["data", "out", "scratch"].map(|folder| world.path(folder).display().to_string());
    let config = format!("endpoints: {endpoint}\nallow_paths: [{}]\n", allowed.join(", "));
    fs::write(world.path("worker.yaml"), config).expect("written");
    let mut worker = world.start(&["worker", "--config", "worker.yaml"]);
    let job = |name: &str, source: &str, sink: &str| {
        world.job(&format!(
            "job: {name}\nsteps:\n  - name: copy\n    source: {{csv: {{path: {source:?}, columns: {{id: int64}}}}}}\n    \
             sink: {{csv: {{path: {sink:?}}}}}\n"
        ));
        world.gapless(&["submit", "job.yaml", "--wait", "--endpoint", &endpoint])
    };
    let absolute = world.path("elsewhere/secret.csv").display().to_string();
    for (number, (source, sink, named)) in [
        ("elsewhere/secret.csv", "out/x", "elsewhere/secret.csv (a source)"),
        (absolute.as_str(), "out/x", "elsewhere/secret.csv (a source)"),
        ("data/../elsewhere/*.csv", "out/x", "elsewhere (a source)"),
        ("data/link.csv", "out/x", "data/link.csv (a source)"),
        ("data/*.csv", "out/x", "data/link.csv (a source)"),
        ("data/sales-0.csv", "elsewhere/x", "elsewhere/x (a sink)"),
        ("data/sales-0.csv", "out/../elsewhere/x", "elsewhere/x (a sink)"),
    ]
    .into_iter()
    .enumerate()
    {
        let output = job(&format!("outside-{number}"), source, sink);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{source} {sink}: {said}");
        for words in [named, "allow_paths (--allow-path)"] {
            assert!(said.contains(words), "{source} {sink}: {said}\nlacks {words}");
        }
        let elsewhere: Vec<_> = fs::read_dir(world.path("elsewhere")).expect("listed").collect();
        assert_eq!(elsewhere.len(), 1, "nothing was written there: {elsewhere:?}");
        assert_eq!(
            fs::read_dir(world.path("out")).expect("listed").count(),
            0,
            "nor anywhere"
        );
    }
    let inside = job("inside", "data/sales-*.csv", "out/x");
    assert!(inside.status.success(), "{}", text(&inside.stderr));
    assert_eq!(world.rows("out/x").len(), 1_000);
    assert!(coordinator.is_running() && worker.is_running());
}

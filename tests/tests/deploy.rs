//! The files of deploy/ can be read by those they are for, and say what the program understands.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use gapless_tests::{World, gapless, wait_for};
use serde_json::Value;

fn deploy() -> PathBuf {
    gapless_tests::checkout().join("deploy")
}

/// All files below a folder whose names end so.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            found.extend(files(&path, endings));
        } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(path: &Path) -> Vec<Value> {
    let documents = serde_saphyr::from_multiple(&text(path));
    documents.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_yaml_and_json_file_can_be_read() {
    let yamls = files(&deploy(), &[".yaml", ".yml"]);
    assert!(yamls.len() >= 8, "{yamls:?}");
    for path in &yamls {
        let documents = yaml(path);
        assert!(!documents.is_empty(), "{}", path.display());
        for document in documents {
            assert!(document.is_object(), "{}: {document}", path.display());
        }
    }
    for path in files(&deploy(), &[".json"]) {
        let value: Result<Value, _> = serde_json::from_str(&text(&path));
        value.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[test]
fn manifests_hang_together() {
    let kubernetes = deploy().join("kubernetes");
    let documents: Vec<Value> = files(&kubernetes, &[".yaml"])
        .iter()
        .flat_map(|path| yaml(path))
        .collect();
    let of_kind = |kind: &str| -> Vec<&Value> { documents.iter().filter(|it| it["kind"] == kind).collect() };
    for document in &documents {
        assert!(
            document["apiVersion"].is_string() && document["metadata"]["name"].is_string(),
            "{document}"
        );
        let everywhere = document["kind"] == "Namespace" || document["metadata"]["namespace"] == "gapless";
        assert!(everywhere, "{document}");
    }
    assert_eq!(
        (of_kind("Deployment").len(), of_kind("PodDisruptionBudget").len()),
        (2, 2)
    );
    for deployment in of_kind("Deployment") {
        let template = &deployment["spec"]["template"];
        let labels = &deployment["spec"]["selector"]["matchLabels"];
        assert_eq!(labels, &template["metadata"]["labels"]);
        assert!(
            of_kind("PodDisruptionBudget")
                .iter()
                .any(|it| it["spec"]["selector"]["matchLabels"] == *labels),
            "{labels} has a budget"
        );
        let container = &template["spec"]["containers"][0];
        for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            assert_eq!(container[probe]["httpGet"]["path"], path);
        }
        // The volumes that are mounted are there.
        let volumes = template["spec"]["volumes"].as_array().expect("volumes");
        for mount in container["volumeMounts"].as_array().expect("mounts") {
            assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
        }
    }
    let scaled = &of_kind("ScaledObject")[0]["spec"]["scaleTargetRef"]["name"];
    assert!(of_kind("Deployment").iter().any(|it| it["metadata"]["name"] == *scaled));
    // The settings in the ConfigMap are settings.
    let settings = of_kind("ConfigMap")[0]["data"]["config.yaml"]
        .as_str()
        .expect("a file")
        .to_string();
    let world = World::with_sales(1).0;
    fs::write(world.path("config.yaml"), settings).expect("written");
    let shown = world.gapless(&["config", "show", "--config", "config.yaml"]);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
}

#[test]
fn variables_named_in_deploy_are_settings() {
    let shown = World::with_sales(1).0.gapless(&["config", "show", "-o", "json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let mut known: BTreeSet<String> = shown
        .as_array()
        .expect("settings")
        .iter()
        .map(|setting| setting["variable"].as_str().expect("a name").to_string())
        .collect();
    known.insert("GAPLESS_CONFIG".to_string());
    // No setting, since settings are shown.
    known.insert("GAPLESS_ETCD_PASSWORD".to_string());
    for path in files(&deploy(), &["Dockerfile", ".yaml", ".service"]) {
        let content = text(&path);
        let words = content.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        for word in words.filter(|word| word.starts_with("GAPLESS_")) {
            assert!(known.contains(word), "{}: {word} is no setting", path.display());
        }
    }
}

#[test]
fn the_commented_configuration_holds_each_setting_at_its_default() {
    let world = World::with_sales(1).0;
    let show = |arguments: &[&str]| -> Value {
        let output = world.gapless(&[&["config", "show", "-o", "json"], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let file = deploy().join("gapless.yaml");
    fs::write(world.path("empty.yaml"), "").expect("written");
    let defaults = show(&["--config", "empty.yaml"]);
    assert_eq!(show(&["--config", &file.display().to_string()]), defaults);
    let commented = text(&file);
    for setting in defaults.as_array().expect("settings") {
        let name = setting["setting"].as_str().expect("a name");
        assert!(
            commented
                .lines()
                .any(|line| line.trim_start_matches("# ").starts_with(&format!("{name}:"))),
            "{name} is missing in deploy/gapless.yaml"
        );
    }
}

#[test]
fn systemd_understands_the_units() {
    let units = files(&deploy().join("systemd"), &[".service"]);
    assert_eq!(units.len(), 2, "{units:?}");
    let place = tempfile::tempdir().expect("a folder");
    for unit in &units {
        let content = text(unit);
        for line in [
            "TimeoutStopSec=",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "Restart=always",
        ] {
            assert!(
                content.lines().any(|it| it.starts_with(line)),
                "{}: {line}",
                unit.display()
            );
        }
        // The program lies elsewhere in a test.
        let here = content.replace("/usr/bin/gapless", &gapless().display().to_string());
        fs::write(place.path().join(unit.file_name().expect("a name")), here).expect("written");
    }
    for unit in files(place.path(), &[".service"]) {
        let verified = Command::new("systemd-analyze").arg("verify").arg(&unit).output();
        // Where there is no systemd, there is nobody to ask.
        let Ok(verified) = verified else { return };
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(
            verified.status.success() && !said.contains("Unknown"),
            "{}: {said}",
            unit.display()
        );
    }
}

/// The script under test; it clears its processes away when the test fails.
struct Script(Child);

impl Script {
    /// Tells it to end; the exit code. Not by SIGINT, which is ignored below a shell's background jobs.
    fn end(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.0);
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        wait_for("the script to end", || self.0.try_wait().expect("waitable")).code()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.end();
        }
    }
}

#[test]
fn the_local_cluster_starts_works_and_ends_cleanly() {
    let (world, _) = World::with_sales(1000);
    world.sales_job("bytes", "auto");
    let started = Command::new(deploy().join("local-cluster"))
        .env("GAPLESS", gapless())
        .envs([("ETCD", "0"), ("PORT", "0"), ("WORKERS", "2")])
        .env("DIR", world.path("cluster"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut script = Script(started.expect("a shell"));
    // Read to the end: a script that cannot talk any more might not clear away.
    let mut said = BufReader::new(script.0.stderr.take().expect("piped")).lines();
    let mut endpoint = None;
    let mut heard = String::new();
    for line in said.by_ref() {
        let line = line.expect("text");
        if let Some((_, found)) = line.split_once("GAPLESS_ENDPOINTS=") {
            endpoint = Some(found.to_string());
        }
        heard.push_str(&line);
        heard.push('\n');
        if line.contains("Ctrl-C ends the cluster") {
            break;
        }
    }
    let endpoint = endpoint.unwrap_or_else(|| panic!("the cluster is up: {heard}"));
    let done = world.gapless(&["submit", "job.yaml", "--wait", "--endpoint", &endpoint]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    assert_eq!(script.end(), Some(143));
    let last = said.last().expect("words").expect("text");
    assert_eq!(last, "ending the cluster");
    let address = endpoint.trim_start_matches("http://");
    assert!(TcpStream::connect(address).is_err(), "the coordinator has ended");
}

//! No crate in `Cargo.lock` has a security advisory that `deny.toml` does not list with a reason. The
//! same as `cargo deny check advisories`, from what was known when `.ci/advisories.json` was made, so
//! that it needs no network. `.ci/refresh-advisories` makes that file anew.

use std::{fs, path::Path};

use semver::{Version, VersionReq};
use serde::Deserialize;

#[derive(Deserialize)]
struct Known {
    date: String,
    advisories: Vec<Advisory>,
    /// Those that were looked up, sorted.
    crates: Vec<String>,
}

#[derive(Deserialize)]
struct Advisory {
    id: String,
    package: String,
    kind: String,
    patched: Vec<String>,
    unaffected: Vec<String>,
}

impl Advisory {
    fn affects(&self, name: &str, version: &Version) -> bool {
        let spared = |ranges: &[String]| {
            ranges
                .iter()
                .any(|range| VersionReq::parse(range).expect("a range of versions").matches(version))
        };
        self.package == name && !spared(&self.patched) && !spared(&self.unaffected)
    }
}

#[test]
fn no_crate_has_an_advisory_that_is_not_accepted_with_a_reason() {
    let root = Path::new("..");
    let read = |name: &str| fs::read_to_string(root.join(name)).expect(name);
    let known: Known = serde_json::from_str(&read(".ci/advisories.json")).expect("advisories");
    let accepted = read("deny.toml");
    let locked = locked(&read("Cargo.lock"));
    assert!(
        locked.len() > 100,
        "the whole tree was seen, not {} crates",
        locked.len()
    );
    let mut open = Vec::new();
    let mut met = Vec::new();
    for (name, version) in &locked {
        assert!(
            known.crates.binary_search(name).is_ok(),
            "{name} is new since {}: run .ci/refresh-advisories",
            known.date
        );
        for advisory in known.advisories.iter().filter(|one| one.affects(name, version)) {
            let Advisory { id, kind, .. } = advisory;
            match accepted.contains(&format!("id = \"{id}\"")) {
                true => met.push(id),
                false => open.push(format!("{id} ({kind}): {name} {version}")),
            }
        }
    }
    assert!(open.is_empty(), "neither mended nor in deny.toml:\n{}", open.join("\n"));
    // We know of one that is in the tree: a check that does not see it sees nothing.
    assert!(
        met.iter().any(|id| *id == "RUSTSEC-2025-0012"),
        "backoff's advisory was not met"
    );
}

#[test]
fn versions_are_compared_with_the_ranges_of_an_advisory() {
    let advisory = Advisory {
        id: "RUSTSEC-0000-0000".into(),
        package: "one".into(),
        kind: "vulnerability".into(),
        patched: vec!["^1.2.3".into(), ">= 2.1.0".into()],
        unaffected: vec!["< 1.1".into()],
    };
    let affects = |name: &str, version: &str| advisory.affects(name, &Version::parse(version).expect("a version"));
    assert!(affects("one", "1.1.0") && affects("one", "1.2.2") && affects("one", "2.0.9"));
    assert!(!affects("one", "1.0.9") && !affects("one", "1.3.0") && !affects("one", "2.1.0"));
    assert!(!affects("two", "1.2.2"));
}

/// Names and versions of the packages in a lock file that are not our own.
fn locked(lock: &str) -> Vec<(String, Version)> {
    let packages = lock.split("[[package]]").skip(1);
    let foreign = packages.filter(|package| field(package, "source").is_some());
    foreign
        .map(|package| {
            let version = field(package, "version").and_then(|version| Version::parse(&version).ok());
            (field(package, "name").expect("a name"), version.expect("a version"))
        })
        .collect()
}

fn field(package: &str, name: &str) -> Option<String> {
    let prefix = format!("{name} = \"");
    let value = package.lines().find_map(|line| line.strip_prefix(&prefix))?;
    Some(value.trim_end_matches('"').to_string())
}

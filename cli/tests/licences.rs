//! The licence of every crate that is built in is one that `deny.toml` allows. The same as
//! `cargo deny check licenses`, for machines that have no cargo-deny.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

#[test]
fn every_crate_has_a_licence_that_is_allowed() {
    let root = Path::new("..");
    let allowed = allowed(&fs::read_to_string(root.join("deny.toml")).expect("deny.toml"));
    assert!(allowed.contains("Apache-2.0"), "deny.toml allows our own licence");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root)
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(
        packages.len() > 100,
        "the whole tree was seen, not {} crates",
        packages.len()
    );
    let refused: Vec<String> = packages
        .iter()
        .filter_map(|package| {
            let licence = package["license"].as_str().unwrap_or("none");
            let refused = !permits(licence, &allowed);
            refused.then(|| format!("{} {}: {licence}", package["name"], package["version"]))
        })
        .collect();
    assert!(refused.is_empty(), "not allowed by deny.toml:\n{}", refused.join("\n"));
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = BTreeSet::from(["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"].map(str::to_string));
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("GPL-3.0-only OR MIT", true),
        ("GPL-3.0-only/MIT", true),
        ("GPL-3.0-only AND MIT", false),
        ("MIT AND Zlib", true),
        ("(MIT OR GPL-3.0-only) AND Zlib", true),
        ("MIT OR GPL-3.0-only AND GPL-2.0-only", true),
        ("(MIT OR GPL-3.0-only) AND GPL-2.0-only", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("none", false),
        ("", false),
    ] {
        assert_eq!(permits(expression, &allowed), expected, "{expression}");
    }
}

/// The texts in `allow = […]` of the table `[licenses]`.
fn allowed(toml: &str) -> BTreeSet<String> {
    let table = toml.split("[licenses]").nth(1).expect("a table of licences");
    let list = table.split("allow = [").nth(1).and_then(|rest| rest.split(']').next());
    let list = list.expect("a list of licences");
    list.split('"').skip(1).step_by(2).map(str::to_string).collect()
}

/// Whether an SPDX expression can be met with the licences allowed. AND binds closer than OR; the
/// slash is the old way to write OR.
fn permits(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    let permitted = any(&mut rest, allowed);
    permitted && rest.is_empty()
}

fn any(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut permitted = all(rest, allowed);
    while let ["OR", more @ ..] = *rest {
        *rest = more;
        // Both sides are read, whatever the first said.
        permitted |= all(rest, allowed);
    }
    permitted
}

fn all(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut permitted = one(rest, allowed);
    while let ["AND", more @ ..] = *rest {
        *rest = more;
        permitted &= one(rest, allowed);
    }
    permitted
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    match *rest {
        ["(", more @ ..] => {
            *rest = more;
            let permitted = any(rest, allowed);
            match *rest {
                [")", more @ ..] => {
                    *rest = more;
                    permitted
                }
                _ => false,
            }
        }
        [licence, "WITH", exception, more @ ..] => {
            *rest = more;
            allowed.contains(&format!("{licence} WITH {exception}"))
        }
        [licence, more @ ..] => {
            *rest = more;
            allowed.contains(*licence)
        }
        [] => false,
    }
}

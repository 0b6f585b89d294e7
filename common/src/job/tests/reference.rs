//! What the table says of itself: defaults, examples that are sound, and the page that is made of it.

use std::{env, fs, path::Path};

use serde_json::{Map, Value, json};

use super::super::{
    json_schema,
    keys::{Choice, JOB, Key, Kind, SECTIONS, Section},
    parse,
    reference::fill_reference,
};

/// `make reference` writes the page, this test reads it.
#[test]
fn the_page_is_what_the_table_gives() {
    let path = Path::new("../docs/job-reference.md");
    let page = fs::read_to_string(path).expect("the page is there");
    let filled = fill_reference(&page).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if env::var_os("REWRITE").is_some() {
        fs::write(path, &filled).expect("written");
        return;
    }
    for (number, (found, made)) in page.lines().zip(filled.lines()).enumerate() {
        assert_eq!(
            found,
            made,
            "docs/job-reference.md:{}: run `make reference`",
            number + 1
        );
    }
    assert_eq!(page, filled, "run `make reference`");
}

/// What holds without a key stands once, in its parenthesis: `(default …)`.
#[test]
fn a_default_is_told_once() {
    for section in SECTIONS {
        for key in section.keys {
            let meaning = key.meaning();
            assert!(
                !meaning.contains("(default:") && !meaning.contains("(default "),
                "`{}` in {}",
                key.name,
                section.name
            );
        }
    }
}

/// Whether the examples of `keys` and the required keys beside them make a mapping of this section.
fn mapping(section: &Section, keys: &[&Key]) -> Value {
    let mut map = Map::new();
    let chosen = |names: &[&str]| keys.iter().any(|key| names.contains(&key.name));
    let mut add = |key: &Key| {
        let example = serde_json::from_str(key.example).expect("the example is JSON");
        map.insert(key.name.to_string(), example);
    };
    if let Choice::ExactlyOne(names) = section.choice
        && !chosen(names)
    {
        add(section.key(names[0]).expect("a key of the section"));
    }
    section.keys.iter().filter(|key| key.required).for_each(&mut add);
    keys.iter().copied().for_each(&mut add);
    Value::Object(map)
}

/// Mappings of a section that hold the key: alone, with one other, and with all others that may stand beside it.
fn mappings(section: &'static Section, key: &'static Key) -> Vec<Value> {
    let excluded = match section.choice {
        Choice::ExactlyOne(names) | Choice::AtMostOne(names) if names.contains(&key.name) => names,
        _ => &[],
    };
    let others: Vec<&Key> = section
        .keys
        .iter()
        .filter(|other| other.name != key.name && !excluded.contains(&other.name))
        .collect();
    let mut found = vec![mapping(section, &[key])];
    found.extend(others.iter().map(|other| mapping(section, &[key, other])));
    let grouped = match section.choice {
        Choice::ExactlyOne(names) | Choice::AtMostOne(names) => names,
        Choice::Free => &[],
    };
    let free: Vec<&Key> = others
        .into_iter()
        .filter(|other| !grouped.contains(&other.name))
        .collect();
    found.push(mapping(section, &[vec![key], free].concat()));
    found
}

/// Whole jobs around a mapping of a section.
fn jobs(section: &Section, value: Value) -> Vec<Value> {
    if section.name == JOB.name {
        let mut job = value;
        // Examples of texts stand for a date.
        let parameters = job["parameters"].as_object().cloned().unwrap_or_default();
        let mut all = json!({"date": {"type": "date"}});
        all.as_object_mut().expect("a mapping").extend(parameters);
        job["parameters"] = all;
        return vec![job];
    }
    let mut found = Vec::new();
    for parent in SECTIONS {
        for key in parent.keys {
            let inner = match key.kind {
                Kind::Section(inner) if inner.name == section.name => value.clone(),
                Kind::List(inner) | Kind::ListOr { section: inner, .. } if inner.name == section.name => json!([value]),
                Kind::Map(inner) if inner.name == section.name => json!({"x": value}),
                _ => continue,
            };
            let mut around = mapping(parent, &[key]);
            around[key.name] = inner;
            if parent.name != "step" {
                found.extend(jobs(parent, around));
                continue;
            }
            // A step, with the sources that a cut may need, beside one that it may come after or read.
            let load =
                json!({"name": "load", "source": {"parquet": {"path": "x"}}, "sink": {"parquet": {"path": "y"}}});
            around["name"] = json!("tested");
            let sources = match key.name {
                "source" => vec![around["source"].clone()],
                _ => vec![
                    json!({"csv": {"path": "in/*.csv"}}),
                    json!({"parquet": {"path": "in/*.parquet"}}),
                    json!({"step": "load"}),
                    json!({"sequence": {"from": 0, "to": 9}}),
                ],
            };
            for source in sources {
                let mut step = around.clone();
                step["source"] = source;
                found.extend(jobs(&JOB, json!({"job": "j", "steps": [load, step]})));
            }
        }
    }
    found
}

/// Sections of record layouts, whose keys need certain others around them: of their examples it must be enough that
/// they are what may stand behind the key. `layouts.rs` has whole layouts.
const OF_LAYOUTS: &[&str] = &[
    "records source",
    "records sink",
    "line",
    "field",
    "header or trailer",
    "header or trailer field",
];

#[test]
fn every_example_is_part_of_a_sound_job() {
    let given = [("date".to_string(), "2026-11-20".to_string())].into();
    for section in SECTIONS {
        for key in section.keys {
            let mut faults = String::new();
            let candidates = mappings(section, key).into_iter().flat_map(|value| match section.name {
                "step" => {
                    let load =
                        json!({"name": "load", "source": {"parquet": {"path": "x"}}, "sink": {"parquet": {"path": "y"}}});
                    let mut step = value;
                    if key.name != "name" {
                        step["name"] = json!("tested");
                    }
                    let steps = if step["name"] == "load" { json!([step]) } else { json!([load, step]) };
                    jobs(&JOB, json!({"job": "j", "steps": steps}))
                }
                _ => jobs(section, value),
            });
            let sound = candidates.into_iter().any(|job| {
                let text = job.to_string();
                let bound = parse(&text, "job.yaml").and_then(|parsed| parsed.bind(&given));
                let Err(errors) = bound else { return true };
                faults = format!("{errors}\n{text}");
                let blamed = format!("`{}` in {}", key.name, section.name);
                OF_LAYOUTS.contains(&section.name) && !faults.contains(&blamed)
            });
            assert!(
                sound,
                "the example of `{}` in {} makes no sound job: {faults}",
                key.name, section.name
            );
        }
    }
}

#[test]
fn the_schema_tells_defaults_that_are_words_or_numbers() {
    let schema = json_schema();
    let default = |section: &str, key: &str| schema["definitions"][section]["properties"][key]["default"].clone();
    assert_eq!(default("job", "priority"), json!(50));
    assert_eq!(default("csv_source", "header"), json!(true));
    assert_eq!(default("csv_source", "compression"), json!("auto"));
    assert_eq!(default("csv_source", "columns"), Value::Null);
}

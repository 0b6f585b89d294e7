//! What must hold between the steps of a job: names, order, and who reads and writes where.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CsvSource, NdjsonSource, Partition, Sink, Source,
    error::{Faults, shown},
    read::Text,
    step::ReadStep,
};

/// Input paths of a whole job; each is compared with each output.
const MAX_PATHS: usize = 10_000;

pub(super) fn check_steps(faults: &Faults, steps: &[ReadStep]) {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        let Some(name) = &step.name else { continue };
        match names.get(name.value.as_str()) {
            Some(&first) => faults.add(
                name.at,
                format!(
                    "a second step `{}`, the first is at line {}",
                    name.value, steps[first].at.line
                ),
                "each name once",
            ),
            None => {
                names.insert(&name.value, index);
            }
        }
    }
    check_references(faults, steps, &names);
    check_cycles(faults, steps, &names);
    check_methods(faults, steps, &names);
    check_lookups(faults, steps, &names);
    check_places(faults, steps);
    check_skips(faults, steps);
}

/// A step that is skipped has published nothing in this run.
fn check_skips(faults: &Faults, steps: &[ReadStep]) {
    let read: BTreeSet<&str> = steps
        .iter()
        .flat_map(|step| step.reads.iter().chain(&step.looks_up))
        .map(|name| name.value.as_str())
        .collect();
    for step in steps {
        if let (Some(at), Some(name)) = (step.skips, &step.name)
            && read.contains(name.value.as_str())
        {
            let found = format!(
                "`if_unchanged: skip` of step `{}`, which another step reads",
                name.value
            );
            faults.add(at, found, "it on steps that no other reads");
        }
    }
}

fn check_references(faults: &Faults, steps: &[ReadStep], names: &BTreeMap<&str, usize>) {
    for step in steps {
        let own = step.name.as_ref().map(|name| name.value.as_str());
        let mut seen = BTreeSet::new();
        let written = step
            .after
            .iter()
            .filter(|name| step.reads.iter().chain(&step.looks_up).all(|reads| reads.at != name.at));
        let named = written
            .map(|name| ("after", name))
            .chain(step.reads.iter().map(|name| ("source", name)))
            .chain(step.looks_up.iter().map(|name| ("lookups", name)));
        for (key, name) in named {
            if own == Some(name.value.as_str()) {
                let found = format!("step `{}` names itself in `{key}`", name.value);
                faults.add(name.at, found, "another step");
            } else if !names.contains_key(name.value.as_str()) {
                let found = format!("unknown step `{}` in `{key}`", shown(&name.value));
                let others = names.keys().copied().filter(|other| own != Some(*other));
                faults.unknown(name.at, found, &name.value, others);
            } else if key == "after" && !seen.insert(&name.value) {
                faults.add(
                    name.at,
                    format!("step `{}` stands twice in `after`", name.value),
                    "each step once",
                );
            }
        }
    }
}

/// Takes away steps whose predecessors are gone (Kahn's algorithm). What stays holds cycles: from
/// any of it a walk along predecessors that stay comes back to itself.
fn check_cycles(faults: &Faults, steps: &[ReadStep], names: &BTreeMap<&str, usize>) {
    let before: Vec<BTreeSet<usize>> = steps
        .iter()
        .enumerate()
        .map(|(index, step)| {
            let known = step.after.iter().filter_map(|name| names.get(name.value.as_str()));
            known.copied().filter(|&other| other != index).collect()
        })
        .collect();
    let mut followers = vec![Vec::new(); steps.len()];
    for (index, others) in before.iter().enumerate() {
        others.iter().for_each(|&other| followers[other].push(index));
    }
    let mut waits: Vec<usize> = before.iter().map(BTreeSet::len).collect();
    let mut left: BTreeSet<usize> = (0..steps.len()).collect();
    let mut free: Vec<usize> = left.iter().copied().filter(|&step| waits[step] == 0).collect();
    loop {
        while let Some(step) = free.pop() {
            if left.remove(&step) {
                for &follower in &followers[step] {
                    waits[follower] -= 1;
                    if waits[follower] == 0 {
                        free.push(follower);
                    }
                }
            }
        }
        let Some(cycle) = cycle(&before, &left) else { return };
        tell_cycle(faults, steps, &cycle);
        // Gone as if they had run, so that the next cycle shows.
        free.extend(cycle);
    }
}

/// A cycle among the steps that are left, each followed by one that it waits for; begins with the
/// step that stands first in the file.
fn cycle(before: &[BTreeSet<usize>], left: &BTreeSet<usize>) -> Option<Vec<usize>> {
    let mut at = left.first().copied()?;
    let mut walk = Vec::new();
    let start = loop {
        if let Some(start) = walk.iter().position(|&seen| seen == at) {
            break start;
        }
        walk.push(at);
        at = before[at].iter().copied().find(|other| left.contains(other))?;
    };
    let mut cycle = walk.split_off(start);
    let first = (0..cycle.len()).min_by_key(|&index| cycle[index])?;
    cycle.rotate_left(first);
    Some(cycle)
}

fn tell_cycle(faults: &Faults, steps: &[ReadStep], cycle: &[usize]) {
    let name = |step: &usize| steps[*step].name.as_ref().map_or("", |name| name.value.as_str());
    let path = cycle
        .iter()
        .chain(cycle.first())
        .map(name)
        .collect::<Vec<_>>()
        .join(" after ");
    let (first, second) = (&steps[cycle[0]], cycle.get(1).map_or("", name));
    let place = first.after.iter().find(|after| after.value == second);
    faults.add(
        place.map_or(first.at, |after| after.at),
        format!("steps wait for one another in a circle: {}", shown_long(&path)),
        "an order in which each step comes after those it needs",
    );
}

/// A path of names; longer ones are cut.
fn shown_long(text: &str) -> String {
    const LONGEST: usize = 400;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// What a step reads, by how it can be cut.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Csv,
    Ndjson,
    Parquet,
    Avro,
    Records,
    Sequence,
    /// Inputs of a merge of several formats.
    Mixed,
}

fn check_methods(faults: &Faults, steps: &[ReadStep], names: &BTreeMap<&str, usize>) {
    for read in steps {
        let Some(step) = &read.step else { continue };
        let formats: Vec<Option<Format>> = step
            .source
            .inputs()
            .iter()
            .map(|input| format_of(faults, read, input, steps, names))
            .collect();
        let Some(formats) = formats.into_iter().collect::<Option<Vec<_>>>() else {
            continue;
        };
        let format = match formats.iter().all(|format| *format == formats[0]) {
            true => formats[0],
            false => Format::Mixed,
        };
        let method = match step.partition.method {
            Partition::Bytes if matches!(format, Format::Parquet | Format::Sequence) => "bytes",
            Partition::RowGroups if format != Format::Parquet => "row_groups",
            Partition::Files if format == Format::Sequence => "files",
            _ => {
                check_columns(faults, read, &step.source);
                continue;
            }
        };
        let (what, allowed) = match format {
            Format::Csv => ("CSV files", "auto, bytes, files, key_range, hash"),
            Format::Records => ("files of records", "auto, bytes, files, key_range, hash"),
            Format::Ndjson => ("NDJSON files", "auto, bytes, files, key_range, hash"),
            Format::Parquet => ("Parquet files", "auto, files, row_groups, key_range, hash"),
            Format::Avro => ("Avro files", "auto, bytes, files, key_range, hash"),
            Format::Mixed => ("inputs of several formats", "auto, bytes, files, key_range, hash"),
            Format::Sequence => ("a sequence", "auto, key_range, hash"),
        };
        faults.add(
            read.method_at,
            format!("{what} cannot be partitioned by `{method}`"),
            allowed,
        );
    }
}

/// `None`: there is none, or none that can be read, which is told.
fn format_of(
    faults: &Faults,
    read: &ReadStep,
    source: &Source,
    steps: &[ReadStep],
    names: &BTreeMap<&str, usize>,
) -> Option<Format> {
    let name = match source {
        Source::Csv(_) => return Some(Format::Csv),
        Source::Ndjson(_) => return Some(Format::Ndjson),
        Source::Parquet(_) => return Some(Format::Parquet),
        Source::Avro(_) => return Some(Format::Avro),
        Source::Records(_) => return Some(Format::Records),
        Source::Sequence { .. } => return Some(Format::Sequence),
        // The language has none within another.
        Source::Merge(_) => return None,
        Source::Step(name) => name,
    };
    let sink = names
        .get(name.as_str())
        .and_then(|&other| steps[other].step.as_ref())
        .map(|other| &other.sink)?;
    let (found, allowed) = match sink {
        Sink::Csv(sink) | Sink::Ndjson(sink) | Sink::Parquet(sink) | Sink::Avro(sink)
            if !sink.partition_by.is_empty() =>
        {
            (
                format!(
                    "step `{name}` keeps its `partition_by` columns in folder names, which a step does not read back"
                ),
                "a step without `partition_by`",
            )
        }
        Sink::Csv(_) => return Some(Format::Csv),
        Sink::Ndjson(_) => return Some(Format::Ndjson),
        Sink::Parquet(_) => return Some(Format::Parquet),
        Sink::Avro(_) => return Some(Format::Avro),
        Sink::Records(_) => return Some(Format::Records),
        Sink::Report(_) => (
            format!("step `{name}` has the sink `report`, a text for people that is not read back"),
            "a step whose sink keeps records",
        ),
        Sink::Discard => (
            format!("step `{name}` has the sink `discard`, so there is nothing to read"),
            "a step whose sink keeps files",
        ),
    };
    let named = read.reads.iter().find(|reads| reads.value == *name);
    faults.add(named.map_or(read.at, |reads| reads.at), found, allowed);
    None
}

/// Look-ups in outputs of steps: they must be there to read, with their types.
fn check_lookups(faults: &Faults, steps: &[ReadStep], names: &BTreeMap<&str, usize>) {
    for name in steps.iter().flat_map(|step| &step.looks_up) {
        let step = names
            .get(name.value.as_str())
            .and_then(|&other| steps[other].step.as_ref());
        let found = match step.map(|step| &step.sink) {
            None => continue,
            Some(Sink::Parquet(sink) | Sink::Avro(sink)) if sink.partition_by.is_empty() => continue,
            Some(Sink::Parquet(_) | Sink::Avro(_)) => format!(
                "step `{}` keeps its `partition_by` columns in folder names, which a look-up does not read back",
                name.value
            ),
            Some(_) => format!(
                "step `{}` has no parquet or avro sink, so a look-up cannot read it",
                name.value
            ),
        };
        faults.add(
            name.at,
            found,
            "a step with a parquet or avro sink without `partition_by`",
        );
    }
}

/// Key columns, where the file says all columns of the source.
fn check_columns(faults: &Faults, read: &ReadStep, source: &Source) {
    let known: Vec<&str> = match source {
        Source::Csv(CsvSource {
            columns, header: false, ..
        }) => columns.iter().map(|(name, _)| name.as_str()).collect(),
        Source::Ndjson(NdjsonSource { columns, .. }) if !columns.is_empty() => {
            columns.iter().map(|(name, _)| name.as_str()).collect()
        }
        Source::Sequence { .. } => vec!["n"],
        _ => return,
    };
    for key in read
        .key_columns
        .iter()
        .filter(|key| !key.open && !known.contains(&key.value.as_str()))
    {
        let found = format!("unknown column `{}` in `partition`", shown(&key.value));
        faults.unknown(key.at, found, &key.value, known.iter().copied());
    }
}

/// Outputs lie apart from one another and from all inputs: a step would else read what another
/// publishes meanwhile, or replace what it reads.
fn check_places(faults: &Faults, steps: &[ReadStep]) {
    let name = |step: &ReadStep| {
        step.name
            .as_ref()
            .map_or_else(String::new, |name| format!(" `{}`", name.value))
    };
    let inputs: Vec<(&ReadStep, &Text, Place)> = steps
        .iter()
        .flat_map(|step| {
            step.inputs
                .iter()
                .map(move |input| (step, input, Place::of(&input.value)))
        })
        .collect();
    if let Some((_, input, _)) = inputs.get(MAX_PATHS) {
        faults.add(
            input.at,
            format!("{} input paths", inputs.len()),
            format!("at most {MAX_PATHS}; use globs"),
        );
        return;
    }
    let mut earlier: Vec<(&ReadStep, &Text, Place)> = Vec::new();
    for step in steps {
        let Some(output) = &step.output else { continue };
        let place = Place::of(&output.value);
        let tell = |what: &str, (other, path, _): &(&ReadStep, &Text, Place), allowed: &str| {
            let found = format!(
                "the output `{}` shares a place with the {what} `{}` of step{}",
                shown(&output.value),
                shown(&path.value),
                name(other),
            );
            faults.add(output.at, found, allowed);
        };
        if let Some(other) = earlier.iter().find(|(_, _, taken)| place.meets(taken)) {
            tell("output", other, "a folder of its own for each output");
        }
        if let Some(input) = inputs.iter().find(|(_, _, input)| input.meets(&place)) {
            let allowed = "a folder apart from all inputs; `source: {step: NAME}` reads the output of a step";
            tell("input", input, allowed);
        }
        earlier.push((step, output, place));
    }
}

/// A path in parts, by its text alone: links are not followed.
struct Place {
    absolute: bool,
    parts: Vec<String>,
}

impl Place {
    fn of(path: &str) -> Place {
        let mut parts: Vec<String> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." if parts.last().is_some_and(|last| last != "..") => {
                    parts.pop();
                }
                part => parts.push(part.to_string()),
            }
        }
        Place {
            absolute: path.starts_with('/'),
            parts,
        }
    }

    /// Whether one is the other or lies within it. `self` may hold wildcards.
    fn meets(&self, other: &Place) -> bool {
        self.absolute == other.absolute
            && self
                .parts
                .iter()
                .take_while(|part| *part != "**")
                .zip(&other.parts)
                .all(|(pattern, part)| may_match(pattern, part))
    }
}

/// Whether a glob without `/` may match `name`. A class in brackets counts as any character, so it
/// may say yes too often. Takes at most the product of both lengths.
fn may_match(pattern: &str, name: &str) -> bool {
    if !pattern.contains(['*', '?', '[']) {
        return pattern == name;
    }
    let mut symbols: Vec<Option<char>> = Vec::new();
    const ANY: char = '\0';
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '*' => symbols.push(None),
            '?' => symbols.push(Some(ANY)),
            '[' if rest.as_str().contains(']') => {
                rest.by_ref().take_while(|c| *c != ']').for_each(drop);
                symbols.push(Some(ANY));
            }
            c => symbols.push(Some(c)),
        }
    }
    let name: Vec<char> = name.chars().collect();
    let (mut s, mut n) = (0, 0);
    // After a mismatch the last star takes one character more.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match symbols.get(s) {
            Some(None) => {
                star = Some((s, n));
                s += 1;
            }
            Some(Some(c)) if *c == ANY || *c == name[n] => {
                s += 1;
                n += 1;
            }
            _ => match star {
                None => return false,
                Some((at, taken)) => {
                    s = at + 1;
                    n = taken + 1;
                    star = Some((at, n));
                }
            },
        }
    }
    symbols[s..].iter().all(Option::is_none)
}

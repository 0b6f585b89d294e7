//! A job file's text into a [`ParsedJob`], with all its faults at once.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_128;

use super::{
    Job, Parameter, ParameterType, Priority,
    check::check_steps,
    error::{Faults, JobError, JobErrors, Position},
    keys::{JOB, MAX_PARAMETERS, MAX_STEPS},
    params,
    read::Fields,
    redrive,
    step::step,
    substitute::Context,
    yaml::{self, Node, Value},
};

/// A job file that was read and found sound as far as that can be said without parameter values.
#[derive(Clone, Debug)]
pub struct ParsedJob {
    pub(super) file_name: String,
    pub(super) root: Node,
    pub(super) redrive: Option<Node>,
    name: String,
    version: String,
    parameters: BTreeMap<String, Parameter>,
}

/// Reads a job file. `file_name` is for messages only.
pub fn parse(text: &str, file_name: &str) -> Result<ParsedJob, JobErrors> {
    parse_redrive(text, "", file_name)
}

/// Reads a job file that is done as a redrive. `written`: what `gapless redrive` says of it beside the file, JSON; empty where it
/// is none.
pub fn parse_redrive(text: &str, written: &str, file_name: &str) -> Result<ParsedJob, JobErrors> {
    let faults = Faults::new(file_name);
    let root = yaml::read(text, &faults);
    if root.is_none() && faults.is_empty() {
        faults.add(Position::START, "the job file is empty", JOB.allowed());
    }
    let of_redrive = Faults::new(redrive::NAME);
    let redrive = match written.is_empty() {
        true => None,
        false => yaml::read(written, &of_redrive),
    };
    if !of_redrive.is_empty() {
        return Err(of_redrive.into_errors());
    }
    let parsed = root.and_then(|root| {
        let (name, parameters, _) = read_job(&root, redrive.as_ref(), &faults, None)?;
        Some(ParsedJob {
            file_name: file_name.to_string(),
            root,
            redrive,
            name,
            version: version(text, written),
            parameters,
        })
    });
    faults.finish(parsed)
}

fn version(text: &str, redrive: &str) -> String {
    let digest = match redrive.is_empty() {
        true => xxh3_128(text.as_bytes()),
        // No job file holds this byte, so it is no digest of another one.
        false => xxh3_128([text, redrive].join("\0").as_bytes()),
    };
    format!("{digest:032x}")
}

/// Reads the tree, with or without values for its placeholders. The job itself is `None` where a
/// fault was told, or where something is open for lack of values.
pub(super) fn read_job(
    root: &Node,
    redrive: Option<&Node>,
    faults: &Faults,
    values: Option<&BTreeMap<String, String>>,
) -> Option<(String, BTreeMap<String, Parameter>, Option<Job>)> {
    let none = BTreeMap::new();
    let cx = Context {
        faults,
        parameters: &none,
        values,
    };
    let fields = Fields::new(&cx, &JOB, root, "the job file")?;
    let name = fields.name("job").map(|name| name.value);
    let parameters = match fields.has("parameters") {
        true => parameters(&fields),
        false => BTreeMap::new(),
    };

    let cx = Context {
        parameters: &parameters,
        ..cx
    };
    let fields = Fields { cx: &cx, ..fields };
    let priority = match fields.integer("priority") {
        Some(priority) => Some(Priority(priority)),
        None if fields.has("priority") => None,
        None => Some(Priority::default()),
    };
    let items = fields.list("steps").unwrap_or_default();
    if items.len() > MAX_STEPS {
        let found = format!("{} steps", items.len());
        faults.add(fields.key_at("steps"), found, format!("at most {MAX_STEPS}"));
        return None;
    }
    let steps: Vec<_> = items.iter().map(step).collect();
    check_steps(faults, &steps);
    let steps: Option<Vec<_>> = steps.into_iter().map(|read| read.step).collect();
    let name = name?;
    let mut job = steps.zip(priority).map(|(steps, priority)| Job {
        name: name.clone(),
        parameters: parameters.clone(),
        priority,
        steps,
        redrive: None,
    });
    if let Some(node) = redrive {
        let of_redrive = Faults::new(redrive::NAME);
        let cx = Context {
            faults: &of_redrive,
            ..cx
        };
        let redriven = redrive::read(&cx, node).zip(job).and_then(|(written, mut job)| {
            redrive::apply(written, &mut job, &cx)?;
            Some(job)
        });
        job = redriven;
        faults.take(of_redrive);
    }
    Some((name, parameters, job))
}

fn parameters(fields: &Fields) -> BTreeMap<String, Parameter> {
    let entries = fields.map("parameters");
    if entries.len() > MAX_PARAMETERS {
        let found = format!("{} parameters", entries.len());
        let at = fields.key_at("parameters");
        fields.cx.faults.add(at, found, format!("at most {MAX_PARAMETERS}"));
    }
    // A parameter that is at fault is known by name, so that its uses are not told as well.
    let declared = fields.entries("parameters").unwrap_or_default();
    let unsound = |name: &String| {
        let (ty, default) = (ParameterType::String, None);
        let identifying = true;
        (
            name.clone(),
            Parameter {
                ty,
                identifying,
                default,
            },
        )
    };
    let mut parameters: BTreeMap<_, _> = declared.iter().map(|entry| unsound(&entry.key)).collect();
    for (entry, fields) in entries {
        let identifying = fields.boolean("identifying").unwrap_or(true);
        let Some(ty) = fields.word("type") else { continue };
        let default = fields.literal("default").and_then(|text| {
            let value = params::canonical(ty, &text.value);
            let found = format!(
                "the default of parameter `{}` is {}",
                entry.key,
                params::quoted(&text.value)
            );
            value
                .map_err(|allowed| fields.cx.faults.add(text.at, found, allowed))
                .ok()
        });
        let parameter = Parameter {
            ty,
            identifying,
            default,
        };
        parameters.insert(entry.key.clone(), parameter);
    }
    parameters
}

impl ParsedJob {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The declared parameters.
    pub fn parameters(&self) -> &BTreeMap<String, Parameter> {
        &self.parameters
    }

    /// A digest of the text: any change of it makes another version of the job. 32 hex digits.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// An error about a field of a step, found later (by planning its SQL, say); see
    /// [`ParsedJob::position`] for `field`.
    pub fn error(&self, step: &str, field: &str, found: impl Into<String>) -> JobError {
        JobError {
            file: self.file_name.clone(),
            at: self.position(step, field).unwrap_or(Position::START),
            found: found.into(),
            suggestion: None,
            allowed: String::new(),
        }
    }

    /// As [`ParsedJob::error`], at the first place in the field where `word` stands for itself. `text` is what the job
    /// was read from. Where the word is not to be found (it came with a parameter, say), the field's place.
    pub fn error_at(&self, text: &str, step: &str, field: &str, word: &str, found: impl Into<String>) -> JobError {
        let mut error = self.error(step, field, found);
        let within = self.node(step, field).is_some_and(|node| match &node.value {
            Value::Scalar { text, .. } => text.contains(word),
            _ => true,
        });
        if within && let Some(at) = place_of_word(text, error.at, word) {
            error.at = at;
        }
        error
    }

    /// Where a field of a step stands. `field` is a path of keys and list indexes from 0, such as
    /// `transform.sql`, `check.0.that`, `source.csv.path`, `lookups.region`. Where there is no such
    /// field, the nearest thing around it; `None` only for an unknown step.
    pub fn position(&self, step: &str, field: &str) -> Option<Position> {
        self.node(step, field).map(|node| node.at)
    }

    fn node(&self, step: &str, field: &str) -> Option<&Node> {
        let Value::List(steps) = &self.root.get("steps")?.value.value else {
            return None;
        };
        let named = |node: &&Node| {
            node.get("name")
                .is_some_and(|entry| matches!(&entry.value.value, Value::Scalar { text, .. } if text == step))
        };
        let mut node = steps.iter().find(named)?;
        for part in field.split('.').filter(|part| !part.is_empty()) {
            let inner = match &node.value {
                Value::List(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => node.get(part).map(|entry| &entry.value),
            };
            match inner {
                Some(inner) => node = inner,
                None => break,
            }
        }
        Some(node)
    }
}

/// The first place from `from` on at which a word stands for itself, outside of the quotes of SQL text.
fn place_of_word(text: &str, from: Position, word: &str) -> Option<Position> {
    if word.is_empty() {
        return None;
    }
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let lines = text.lines().enumerate().skip(from.line as usize - 1);
    for (number, line) in lines {
        let first = number + 1 == from.line as usize;
        let skipped = if first { from.column as usize - 1 } else { 0 };
        let start = line.char_indices().nth(skipped).map_or(line.len(), |(at, _)| at);
        // The quotes around a value are YAML's.
        let start = start + usize::from(first && line[start..].starts_with(['\'', '"']));
        let mut search = start;
        while let Some(found) = line[search..].find(word) {
            let at = search + found;
            let end = at + word.len();
            let alone = !line[..at].chars().next_back().is_some_and(is_part)
                && !line[end..].chars().next().is_some_and(is_part);
            let quoted = line[start..at].matches('\'').count() % 2 == 1;
            if alone && !quoted {
                return Some(Position {
                    line: number as u32 + 1,
                    column: line[..at].chars().count() as u32 + 1,
                });
            }
            search = end;
        }
    }
    None
}

//! `${param.NAME}` inside values, put in after the YAML was read: a value can never become syntax
//! of the job file. `$${` stands for `${` itself.

use std::{collections::BTreeMap, ops::Range};

use super::{
    Parameter,
    error::{Faults, Position, shown},
    keys::Kind,
};

/// What placeholders are replaced by, and where faults go.
pub(super) struct Context<'a> {
    pub faults: &'a Faults,
    pub parameters: &'a BTreeMap<String, Parameter>,
    /// `None` while a job is checked without values: placeholders stay as written.
    pub values: Option<&'a BTreeMap<String, String>>,
}

/// Where values are put in, which tells what they may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Sql,
    Path,
    Other,
}

impl Place {
    pub fn of(kind: &Kind) -> Place {
        match kind {
            Kind::Sql => Place::Sql,
            Kind::Paths | Kind::OutputPath => Place::Path,
            _ => Place::Other,
        }
    }
}

/// A value that was put in: whose it is, and where it stands.
struct Inserted<'a> {
    name: &'a str,
    value: &'a str,
    at: Range<usize>,
}

/// A scalar after substitution.
pub(super) struct Expanded {
    pub text: String,
    /// Whether it held placeholders.
    pub substituted: bool,
    /// Whether it still holds them, so that its content cannot be judged yet.
    pub open: bool,
}

impl Context<'_> {
    /// Replaces the placeholders of `text`. `None`: told as faults.
    pub fn expand(&self, at: Position, text: &str, place: Place) -> Option<Expanded> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let (mut substituted, mut open, mut sound) = (false, false, true);
        let mut inserted = Vec::new();
        while let Some(start) = rest.find("${") {
            if rest[..start].ends_with('$') {
                out.push_str(&rest[..start - 1]);
                out.push_str("${");
                rest = &rest[start + 2..];
                continue;
            }
            out.push_str(&rest[..start]);
            let Some(length) = rest[start..].find('}') else {
                self.faults.add(
                    at,
                    format!("`{}` has no closing brace", shown(&rest[start..])),
                    "${param.NAME}; `$${` for the text `${`",
                );
                return None;
            };
            let placeholder = &rest[start..=start + length];
            rest = &rest[start + length + 1..];
            match self.parameter(at, placeholder) {
                None => sound = false,
                Some(name) => {
                    substituted = true;
                    match self.values.and_then(|values| values.get(name)) {
                        None => {
                            open = true;
                            out.push_str(placeholder);
                        }
                        Some(value) => {
                            if place == Place::Sql {
                                sound &= self.sql_safe(at, name, value, &out, rest);
                            }
                            let start = out.len();
                            out.push_str(value);
                            let at = start..out.len();
                            inserted.push(Inserted { name, value, at });
                        }
                    }
                }
            }
        }
        out.push_str(rest);
        if place == Place::Path {
            sound &= self.path_safe(at, &out, &inserted);
        }
        sound.then_some(Expanded {
            text: out,
            substituted,
            open,
        })
    }

    /// The name of the parameter that a whole `${…}` stands for.
    fn parameter<'t>(&self, at: Position, placeholder: &'t str) -> Option<&'t str> {
        let inner = &placeholder[2..placeholder.len() - 1];
        if inner.starts_with("env.") || inner.starts_with("secret") {
            self.faults.add(
                at,
                format!(
                    "`{}` stands only in connection and credential fields",
                    shown(placeholder)
                ),
                "${param.NAME} here; no source or sink of this job takes a credential",
            );
            return None;
        }
        let Some(name) = inner.strip_prefix("param.") else {
            self.faults.add(
                at,
                format!("`{}` stands for nothing", shown(placeholder)),
                "${param.NAME}; `$${` for the text `${`",
            );
            return None;
        };
        if self.parameters.contains_key(name) {
            return Some(name);
        }
        let found = format!("unknown parameter `{}`", shown(name));
        match self.parameters.is_empty() {
            true => self
                .faults
                .add(at, found, "a parameter declared in `parameters`; this job has none"),
            false => self
                .faults
                .unknown(at, found, name, self.parameters.keys().map(String::as_str)),
        }
        None
    }

    /// A value behind the beginning of a path names something below what stands before it, so no step upwards comes out of
    /// one. A value at the beginning says where to go.
    fn path_safe(&self, at: Position, path: &str, inserted: &[Inserted<'_>]) -> bool {
        let mut start = 0;
        for component in path.split('/') {
            let end = start + component.len();
            let touches = |it: &&Inserted<'_>| it.at.start < end && start < it.at.end;
            let leads = |it: &&Inserted<'_>| it.at.start == 0;
            if component == ".."
                && let Some(value) = inserted.iter().filter(touches).find(|it| !leads(it))
            {
                self.faults.add(
                    at,
                    format!(
                        "parameter `{}` with the value \"{}\" leads out of the folder that stands before it: the path is \"{}\"",
                        value.name,
                        shown(value.value),
                        shown(path)
                    ),
                    "values without the part `..`, unless the path begins with them",
                );
                return false;
            }
            start = end + 1;
        }
        true
    }

    /// SQL gets a value as text, in quotes or not, as the job's author wrote it around. So a value
    /// may hold nothing that could end a quoted text or begin a comment.
    fn sql_safe(&self, at: Position, name: &str, value: &str, before: &str, after: &str) -> bool {
        const FORBIDDEN: [char; 5] = ['\'', '"', '`', '\\', ';'];
        let bad_character = value.chars().any(|c| FORBIDDEN.contains(&c) || c.is_control());
        let comment = |text: &str| ["--", "/*", "*/"].iter().any(|mark| text.contains(mark));
        let joined = |left: &str, right: &str| {
            comment(
                &left
                    .chars()
                    .rev()
                    .take(1)
                    .chain(right.chars().take(1))
                    .collect::<String>(),
            )
        };
        if !bad_character && !comment(value) && !joined(before, value) && !joined(value, after) {
            return true;
        }
        self.faults.add(
            at,
            format!(
                "parameter `{name}` with the value \"{}\" cannot stand in SQL",
                shown(value)
            ),
            "values without quotes, backslash, semicolon, control characters and comment marks",
        );
        false
    }
}

//! YAML text into a tree with the place of every key and value.
//!
//! A job file uses the plain part of YAML: mappings, lists and scalars. Anchors, aliases, tags and
//! directives are refused: they make a file mean something else than it shows, and aliases can
//! make a small file grow without bound.

use std::collections::BTreeMap;

use serde_saphyr::granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, options};

use super::error::{Faults, Position, shown};

/// A job file's size limit; the text travels in a request and lies in the store.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// Nesting of block and of flow collections each; the language needs 9.
const MAX_NESTING: usize = 32;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub at: Position,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar {
        text: String,
        /// Whether it stood in quotes or in a block: text, whatever it looks like.
        quoted: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something that was already reported.
    Refused,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub key_at: Position,
    pub value: Node,
}

impl Node {
    /// Nothing, `~` or `null` without quotes.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, quoted: false }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// What it is, for "is …" in an error.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Scalar { text, .. } if self.is_null() && text.is_empty() => "empty".to_string(),
            Value::Scalar { text, .. } if self.is_null() => {
                format!("`{text}`, which YAML reads as no value (put it in quotes to mean the text)")
            }
            Value::Scalar { text, quoted: false } => format!("`{}`", shown(text)),
            Value::Scalar { text, quoted: true } => format!("the text \"{}\"", shown(text)),
            Value::List(_) => "a list".to_string(),
            Value::Map(_) => "a mapping".to_string(),
            Value::Refused => "refused".to_string(),
        }
    }
}

/// Reads the one document of a job file. `None`: told in `faults`.
pub(super) fn read(text: &str, faults: &Faults) -> Option<Node> {
    if text.len() > MAX_TEXT_BYTES {
        faults.add(
            Position::START,
            format!("the job file has {} bytes", text.len()),
            format!("at most {MAX_TEXT_BYTES}; move long lists of values into a file and use `lookups`"),
        );
        return None;
    }
    let options = options! {
        emit_comments: false,
        disallow_directives: true,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_NESTING,
        block_nesting_limit: MAX_NESTING,
    };
    let mut builder = Builder {
        parser: Parser::new_from_str_with_options(text, options),
        faults,
    };
    match builder.document() {
        Ok(root) => root,
        Err(error) => {
            let at = position(error.marker());
            let line = text.lines().nth(at.line as usize - 1).unwrap_or_default();
            let hint = match line.contains("${") {
                true => " (inside { } or [ ] a value with ${…} needs quotes)",
                false => "",
            };
            match error.kind() {
                ErrorKind::RecursionLimitExceeded => {
                    faults.add(at, "values are nested too deep", format!("{MAX_NESTING} levels"));
                }
                ErrorKind::DirectiveDisallowed => {
                    faults.add(
                        at,
                        "a YAML directive (`%NAME`)",
                        "the job itself: job files have no directives",
                    );
                }
                _ => faults.add(at, format!("this is not YAML: {}{hint}", error.info()), ""),
            }
            None
        }
    }
}

fn position(marker: &Marker) -> Position {
    Position {
        line: u32::try_from(marker.line()).unwrap_or(u32::MAX).max(1),
        column: u32::try_from(marker.col()).unwrap_or(u32::MAX).saturating_add(1),
    }
}

struct Builder<'a> {
    parser: Parser<'a, serde_saphyr::granit_parser::StrInput<'a>>,
    faults: &'a Faults,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Position)>, ScanError> {
        let Some(next) = self.parser.next_event() else {
            return Ok(None);
        };
        let (mut event, span) = next?;
        // For a value that is not there the parser makes up a `~`.
        if let Event::Scalar(text, ScalarStyle::Plain, ..) = &mut event
            && span.is_empty()
        {
            text.to_mut().clear();
        }
        Ok(Some((event, position(&span.start))))
    }

    fn document(&mut self) -> Result<Option<Node>, ScanError> {
        let mut root = None;
        let mut documents = 0;
        while let Some((event, at)) = self.next()? {
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        self.faults
                            .add(at, "a second document begins with `---`", "one job in a file");
                        return Ok(None);
                    }
                }
                event => root = Some(self.node(event, at)?),
            }
        }
        Ok(root)
    }

    /// The node that begins with `event`. Recursion is bounded by the parser's nesting limits.
    fn node(&mut self, event: Event<'a>, at: Position) -> Result<Node, ScanError> {
        let value = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.plain_yaml_only(at, anchor, tag.is_some());
                Value::Scalar {
                    text: text.into_owned(),
                    quoted: style != ScalarStyle::Plain,
                }
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.plain_yaml_only(at, anchor, tag.is_some());
                let mut items = Vec::new();
                while let Some((event, at)) = self.next()? {
                    match event {
                        Event::SequenceEnd => break,
                        event => items.push(self.node(event, at)?),
                    }
                }
                Value::List(items)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.plain_yaml_only(at, anchor, tag.is_some());
                Value::Map(self.mapping()?)
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.faults.add(
                    at,
                    "an alias (`*name`)",
                    "the value itself: job files have no anchors and aliases",
                );
                Value::Refused
            }
            // The parser gives no other event in the place of a node.
            _ => Value::Refused,
        };
        Ok(Node { at, value })
    }

    fn mapping(&mut self) -> Result<Vec<Entry>, ScanError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: BTreeMap<String, Position> = BTreeMap::new();
        while let Some((event, key_at)) = self.next()? {
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, key_at)?;
            let value = match self.next()? {
                Some((event, at)) => self.node(event, at)?,
                None => break,
            };
            match key.value {
                Value::Scalar { text, .. } => match seen.get(&text) {
                    Some(first) => self.faults.add(
                        key_at,
                        format!("duplicate key `{}`, first at line {}", shown(&text), first.line),
                        "each key once",
                    ),
                    None => {
                        seen.insert(text.clone(), key_at);
                        entries.push(Entry {
                            key: text,
                            key_at,
                            value,
                        });
                    }
                },
                Value::Refused => {}
                _ => self
                    .faults
                    .add(key_at, format!("a key is {}", key.describe()), "text as a key"),
            }
        }
        Ok(entries)
    }

    fn plain_yaml_only(&self, at: Position, anchor: usize, tagged: bool) {
        if anchor != 0 {
            self.faults.add(
                at,
                "an anchor (`&name`)",
                "the value itself: job files have no anchors and aliases",
            );
        }
        if tagged {
            self.faults
                .add(at, "a tag (`!name`)", "the value itself: job files have no tags");
        }
    }
}

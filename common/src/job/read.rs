//! Typed access to one mapping of the tree, checked against the table of keys.

use std::str::FromStr;

use serde::de::{DeserializeOwned, IntoDeserializer, value::Error as WordError};

use crate::{
    address::{ObjectUrl, is_url},
    labels::Labels,
};

use super::{
    Delimiter,
    error::{Faults, Position, nearest, shown},
    keys::{Choice, Key, Kind, MAX_NAME_BYTES, Section},
    substitute::{Context, Place},
    yaml::{Entry, Node, Value},
};

/// A text with its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text {
    pub value: String,
    pub at: Position,
    /// Whether it still holds placeholders.
    pub open: bool,
}

/// One mapping of the file. Readers return `None` where the key is absent or what is there was
/// told as a fault.
pub(super) struct Fields<'a> {
    pub cx: &'a Context<'a>,
    pub section: &'static Section,
    pub node: &'a Node,
}

impl<'a> Fields<'a> {
    /// Checks keys against the table. `label` says what `node` is: "`csv` in source".
    pub fn new(cx: &'a Context<'a>, section: &'static Section, node: &'a Node, label: &str) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            if !matches!(node.value, Value::Refused) {
                cx.faults
                    .add(node.at, format!("{label} is {}", node.describe()), section.allowed());
            }
            return None;
        };
        // Keys that were probably meant: it would be noise to call them missing as well.
        let mut meant = Vec::new();
        for entry in entries.iter().filter(|entry| section.key(&entry.key).is_none()) {
            meant.extend(nearest(&entry.key, section.key_names()));
            unknown_key(cx.faults, section, entry);
        }
        for key in section.keys.iter().filter(|key| key.required) {
            if node.get(key.name).is_none() && !meant.contains(&key.name) {
                let found = format!("missing key `{}` in {}", key.name, section.name);
                cx.faults.add(node.at, found, key.kind.allowed());
            }
        }
        check_choice(cx.faults, section, node, entries, &meant);
        Some(Fields { cx, section, node })
    }

    fn find(&self, name: &str) -> Option<(&'static Key, &'a Entry)> {
        let key = self.section.key(name);
        debug_assert!(key.is_some(), "`{name}` is not in the table of {}", self.section.name);
        key.zip(self.node.get(name))
    }

    /// The value of a key, whatever it is.
    pub fn node(&self, name: &str) -> Option<&'a Node> {
        self.find(name).map(|(_, entry)| &entry.value)
    }

    pub fn has(&self, name: &str) -> bool {
        self.node(name).is_some()
    }

    /// Whether there are keys that the table does not know; they were told.
    pub fn has_unknown(&self) -> bool {
        matches!(&self.node.value, Value::Map(entries) if entries.iter().any(|entry| self.section.key(&entry.key).is_none()))
    }

    pub fn key_at(&self, name: &str) -> Position {
        self.find(name).map_or(self.node.at, |(_, entry)| entry.key_at)
    }

    fn wrong(&self, key: &'static Key, node: &Node) {
        if !matches!(node.value, Value::Refused) {
            let found = format!("`{}` in {} is {}", key.name, self.section.name, node.describe());
            self.cx.faults.add(node.at, found, key.kind.allowed());
        }
    }

    /// A scalar with its placeholders replaced. Plain scalars that look like nothing are refused.
    fn scalar(&self, key: &'static Key, node: &'a Node) -> Option<Scalar> {
        if node.get("secret").is_some() {
            self.secret(node.at);
            return None;
        }
        let Value::Scalar { text, quoted } = &node.value else {
            self.wrong(key, node);
            return None;
        };
        if text.starts_with("secret:") {
            self.secret(node.at);
            return None;
        }
        if node.is_null() {
            self.wrong(key, node);
            return None;
        }
        let expanded = self.cx.expand(node.at, text, Place::of(&key.kind))?;
        Some(Scalar {
            text: expanded.text,
            is_text: *quoted && !expanded.substituted,
            open: expanded.open,
        })
    }

    fn secret(&self, at: Position) {
        self.cx.faults.add(
            at,
            "`secret:` stands only in connection and credential fields",
            "the value itself; no source or sink of this job takes a credential",
        );
    }

    /// Text of any kind, checked as its kind asks.
    pub fn text(&self, name: &str) -> Option<Text> {
        let (key, entry) = self.find(name)?;
        self.text_of(key, &entry.value)
    }

    fn text_of(&self, key: &'static Key, node: &'a Node) -> Option<Text> {
        let scalar = self.scalar(key, node)?;
        let fault = match key.kind {
            Kind::Paths => path_fault(&scalar.text),
            Kind::OutputPath => path_fault(&scalar.text).or_else(|| output_path_fault(&scalar.text)),
            Kind::Sql if scalar.text.trim().is_empty() => Some("is empty"),
            _ => None,
        };
        if let Some(fault) = fault {
            let found = format!(
                "`{}` in {} {fault}: \"{}\"",
                key.name,
                self.section.name,
                shown(&scalar.text)
            );
            self.cx.faults.add(node.at, found, key.kind.allowed());
            return None;
        }
        Some(Text {
            value: scalar.text,
            at: node.at,
            open: scalar.open,
        })
    }

    /// One text or a list of at least one.
    pub fn texts(&self, name: &str) -> Option<Vec<Text>> {
        let (key, entry) = self.find(name)?;
        match &entry.value.value {
            Value::List(items) if items.is_empty() => {
                let found = format!("`{}` in {} is an empty list", key.name, self.section.name);
                self.cx.faults.add(entry.value.at, found, key.kind.allowed());
                None
            }
            Value::List(items) => {
                let texts: Vec<Text> = items.iter().filter_map(|item| self.text_of(key, item)).collect();
                (texts.len() == items.len()).then_some(texts)
            }
            _ => Some(vec![self.text_of(key, &entry.value)?]),
        }
    }

    /// A name, taken as written.
    pub fn name(&self, name: &str) -> Option<Text> {
        let (key, entry) = self.find(name)?;
        self.name_of(key, &entry.value)
    }

    fn name_of(&self, key: &'static Key, node: &'a Node) -> Option<Text> {
        match &node.value {
            Value::Scalar { text, .. } if !node.is_null() && is_name(text) => Some(Text {
                value: text.clone(),
                at: node.at,
                open: false,
            }),
            Value::Scalar { text, .. } if !node.is_null() => {
                let found = format!("`{}` in {} is `{}`", key.name, self.section.name, shown(text));
                let allowed = Kind::Name.allowed();
                self.cx.faults.add(node.at, found, allowed);
                None
            }
            _ => {
                self.wrong(key, node);
                None
            }
        }
    }

    /// One name or a list of them.
    pub fn names(&self, name: &str) -> Vec<Text> {
        match self.find(name) {
            None => Vec::new(),
            Some((key, entry)) => match &entry.value.value {
                Value::List(items) => items.iter().filter_map(|item| self.name_of(key, item)).collect(),
                _ => self.name_of(key, &entry.value).into_iter().collect(),
            },
        }
    }

    /// Free text taken as written.
    pub fn literal(&self, name: &str) -> Option<Text> {
        let (key, entry) = self.find(name)?;
        match &entry.value.value {
            Value::Scalar { text, .. } if text.contains("${") => {
                let found = format!(
                    "`{}` in {} holds a placeholder: `{}`",
                    key.name,
                    self.section.name,
                    shown(text)
                );
                self.cx.faults.add(entry.value.at, found, "a value as it is");
                None
            }
            Value::Scalar { text, .. } if !entry.value.is_null() => Some(Text {
                value: text.clone(),
                at: entry.value.at,
                open: false,
            }),
            _ => {
                self.wrong(key, &entry.value);
                None
            }
        }
    }

    pub fn boolean(&self, name: &str) -> Option<bool> {
        let (key, entry) = self.find(name)?;
        let scalar = self.scalar(key, &entry.value)?;
        match scalar.text.as_str() {
            _ if scalar.open => None,
            "true" if !scalar.is_text => Some(true),
            "false" if !scalar.is_text => Some(false),
            other => {
                let near = match other.to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" | "y" | "1" => Some("true"),
                    "false" | "no" | "off" | "n" | "0" => Some("false"),
                    _ => None,
                };
                let found = format!("`{name}` in {} is {}", self.section.name, entry.value.describe());
                self.cx.faults.add_near(entry.value.at, found, near, key.kind.allowed());
                None
            }
        }
    }

    /// A whole number within the limits of the table.
    pub fn integer<T: TryFrom<i64>>(&self, name: &str) -> Option<T> {
        match self.integer_or(name)? {
            Number::Value(number) => Some(number),
            Number::Word => None,
        }
    }

    /// A whole number within the limits of the table, or the table's word.
    pub fn integer_or<T: TryFrom<i64>>(&self, name: &str) -> Option<Number<T>> {
        let (key, entry) = self.find(name)?;
        let scalar = self.scalar(key, &entry.value)?;
        if scalar.open {
            return None;
        }
        let (word, min, max) = match key.kind {
            Kind::Integer { min, max } => (None, min, max),
            Kind::IntegerOr { word, min, max } => (Some(word), min, max),
            _ => {
                debug_assert!(false, "`{name}` is no number in the table");
                return None;
            }
        };
        if word == Some(scalar.text.as_str()) {
            return Some(Number::Word);
        }
        let number = i64::from_str(&scalar.text)
            .ok()
            .filter(|number| !scalar.is_text && (min..=max).contains(number))
            .and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            self.wrong(key, &entry.value);
        }
        number.map(Number::Value)
    }

    /// A word of the table as the model's enum, whose serde names are the words.
    pub fn word<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let (key, entry) = self.find(name)?;
        let scalar = self.scalar(key, &entry.value)?;
        if scalar.open {
            return None;
        }
        let Kind::Word(words) = key.kind else {
            debug_assert!(false, "`{name}` is no word in the table");
            return None;
        };
        let value = match words.contains(&scalar.text.as_str()) {
            true => T::deserialize(IntoDeserializer::<WordError>::into_deserializer(scalar.text.as_str())).ok(),
            false => None,
        };
        if value.is_none() {
            let found = format!("`{}` in {} is {}", key.name, self.section.name, entry.value.describe());
            self.cx
                .faults
                .unknown(entry.value.at, found, &scalar.text, words.iter().copied());
        }
        value
    }

    /// One ASCII character that is not a line break, or one of the table's words.
    pub fn character(&self, name: &str) -> Option<Character> {
        let (key, entry) = self.find(name)?;
        let scalar = self.scalar(key, &entry.value)?;
        if scalar.open {
            return None;
        }
        match (&key.kind, scalar.text.as_bytes()) {
            (Kind::Character(words), _) if words.contains(&scalar.text.as_str()) => Some(Character::Word),
            // Control characters that part nothing else, as ^A and the unit separator.
            (Kind::Character(_), [byte])
                if byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t' | 0x01..=0x08 | 0x0E..=0x1F) =>
            {
                Some(Character::Byte(*byte))
            }
            _ => {
                self.wrong(key, &entry.value);
                None
            }
        }
    }

    pub fn delimiter(&self, name: &str) -> Option<Delimiter> {
        let (key, entry) = self.find(name)?;
        let scalar = self.scalar(key, &entry.value)?;
        if scalar.open {
            return None;
        }
        let delimiter = match scalar.text.as_str() {
            "tab" => Some(Delimiter::TAB),
            text => Delimiter::of_text(text),
        };
        if delimiter.is_none() {
            self.wrong(key, &entry.value);
        }
        delimiter
    }

    /// `{}` or nothing behind a key that says all by itself.
    pub fn empty(&self, name: &str) -> Option<()> {
        let (key, entry) = self.find(name)?;
        match &entry.value.value {
            Value::Map(entries) if entries.is_empty() => {}
            _ if entry.value.is_null() => {}
            _ => self.wrong(key, &entry.value),
        }
        Some(())
    }

    /// A mapping behind a key.
    pub fn section(&self, name: &str) -> Option<Fields<'a>> {
        let (key, entry) = self.find(name)?;
        let Kind::Section(section) = key.kind else {
            debug_assert!(false, "`{name}` is no section in the table");
            return None;
        };
        Fields::new(
            self.cx,
            section,
            &entry.value,
            &format!("`{name}` in {}", self.section.name),
        )
    }

    /// A word in place of a mapping (`partition: bytes`).
    pub fn section_word(&self, name: &str) -> Option<Text> {
        let (key, entry) = self.find(name)?;
        let Kind::Section(section) = key.kind else {
            return None;
        };
        if section.words.is_empty() || entry.value.is_null() || !matches!(entry.value.value, Value::Scalar { .. }) {
            return None;
        }
        let scalar = self.scalar(key, &entry.value)?;
        if !scalar.open && !section.words.contains(&scalar.text.as_str()) {
            let found = format!("`{name}` in {} is {}", self.section.name, entry.value.describe());
            let near = match section.key(&scalar.text) {
                // The right word, but it needs a mapping behind it.
                Some(_) => None,
                None => nearest(&scalar.text, section.words.iter().copied().chain(section.key_names())),
            };
            self.cx.faults.add_near(entry.value.at, found, near, section.allowed());
        }
        Some(Text {
            value: scalar.text,
            at: entry.value.at,
            open: scalar.open,
        })
    }

    /// Mappings in a list of at least one.
    pub fn list(&self, name: &str) -> Option<Vec<Fields<'a>>> {
        let (key, entry) = self.find(name)?;
        let Kind::List(section) = key.kind else {
            debug_assert!(false, "`{name}` is no list in the table");
            return None;
        };
        match &entry.value.value {
            Value::List(items) if items.is_empty() => {
                let found = format!("`{name}` in {} is an empty list", self.section.name);
                self.cx.faults.add(entry.value.at, found, key.kind.allowed());
                None
            }
            Value::List(items) => {
                let label = format!("an item of `{name}` in {}", self.section.name);
                let fields: Vec<_> = items
                    .iter()
                    .filter_map(|item| Fields::new(self.cx, section, item, &label))
                    .collect();
                Some(fields)
            }
            _ => {
                self.wrong(key, &entry.value);
                None
            }
        }
    }

    /// Mappings, or texts that stand for one key of them: a list of at least one, or one alone.
    pub fn list_or(&self, name: &str) -> Option<Vec<Item<'a>>> {
        let (key, entry) = self.find(name)?;
        let Kind::ListOr { section, .. } = key.kind else {
            debug_assert!(false, "`{name}` is no such list in the table");
            return None;
        };
        let label = format!("an item of `{name}` in {}", self.section.name);
        let item = |node: &'a Node| match &node.value {
            Value::Map(_) => Fields::new(self.cx, section, node, &label).map(Item::Fields),
            _ => self.text_of(key, node).map(Item::Short),
        };
        match &entry.value.value {
            Value::List(items) if items.is_empty() => {
                let found = format!("`{name}` in {} is an empty list", self.section.name);
                self.cx.faults.add(entry.value.at, found, key.kind.allowed());
                None
            }
            Value::List(items) => {
                // What is wrong was told, so the job is not taken with what is left.
                Some(items.iter().filter_map(item).collect())
            }
            _ => item(&entry.value).map(|item| vec![item]),
        }
    }

    /// The entries of a mapping with names of the user's choice.
    pub fn entries(&self, name: &str) -> Option<&'a [Entry]> {
        let (key, entry) = self.find(name)?;
        match &entry.value.value {
            Value::Map(entries) => Some(entries),
            _ => {
                self.wrong(key, &entry.value);
                None
            }
        }
    }

    /// A mapping from label names to values.
    pub fn labels(&self, name: &str) -> Option<Labels> {
        let (key, entry) = self.find(name)?;
        let entries = self.entries(name)?;
        if entries.is_empty() {
            self.wrong(key, &entry.value);
            return None;
        }
        let read = |entry: &'a Entry| {
            let scalar = self.scalar(key, &entry.value)?;
            (!scalar.open).then(|| (entry.key.clone(), scalar.text))
        };
        let pairs: Vec<_> = entries.iter().map(read).collect();
        let pairs: Option<Vec<_>> = pairs.into_iter().collect();
        match Labels::new(pairs?) {
            Ok(labels) => Some(labels),
            Err(error) => {
                let found = format!("`{name}` in {}: {error}", self.section.name);
                self.cx.faults.add(entry.value.at, found, key.kind.allowed());
                None
            }
        }
    }

    /// Sections under identifiers of the user's choice.
    pub fn map(&self, name: &str) -> Vec<(&'a Entry, Fields<'a>)> {
        let Some(Kind::Map(section)) = self.section.key(name).map(|key| &key.kind) else {
            debug_assert!(false, "`{name}` is no map in the table");
            return Vec::new();
        };
        let mut sections = Vec::new();
        for entry in self.entries(name).unwrap_or_default() {
            if !is_identifier(&entry.key) {
                let found = format!("the name `{}` in `{name}`", shown(&entry.key));
                let allowed = format!("letters, digits and `_`, beginning with a letter, at most {MAX_NAME_BYTES}");
                self.cx.faults.add(entry.key_at, found, allowed);
                continue;
            }
            let label = format!("{} `{}`", section.name, entry.key);
            sections.extend(Fields::new(self.cx, section, &entry.value, &label).map(|fields| (entry, fields)));
        }
        sections
    }
}

struct Scalar {
    text: String,
    /// Whether quotes say that it is text, whatever it looks like.
    is_text: bool,
    open: bool,
}

/// An item of a list in which a text stands for one key of a mapping.
pub(super) enum Item<'a> {
    Short(Text),
    Fields(Fields<'a>),
}

pub(super) enum Number<T> {
    Value(T),
    Word,
}

pub(super) enum Character {
    Byte(u8),
    Word,
}

fn unknown_key(faults: &Faults, section: &'static Section, entry: &Entry) {
    if entry.key == "secret" {
        let found = format!(
            "`secret` in {} stands only in connection and credential fields",
            section.name
        );
        faults.add(entry.key_at, found, section.key_names().collect::<Vec<_>>().join(", "));
        return;
    }
    let found = format!("unknown key `{}` in {}", shown(&entry.key), section.name);
    faults.unknown(entry.key_at, found, &entry.key, section.key_names());
}

fn check_choice(faults: &Faults, section: &'static Section, node: &Node, entries: &[Entry], meant: &[&str]) {
    let (names, needed) = match section.choice {
        Choice::Free => return,
        Choice::ExactlyOne(names) => (names, true),
        Choice::AtMostOne(names) => (names, false),
    };
    let mut present = entries.iter().filter(|entry| names.contains(&entry.key.as_str()));
    match (present.next(), present.next()) {
        (None, _) if needed && meant.is_empty() => {
            faults.add(
                node.at,
                format!("{} says nothing", section.name),
                format!("one of {}", names.join(", ")),
            );
        }
        (Some(first), Some(second)) => faults.add(
            second.key_at,
            format!("`{}` beside `{}` in {}", second.key, first.key, section.name),
            format!("one of {}", names.join(", ")),
        ),
        _ => {}
    }
}

/// Names become parts of paths and store keys.
fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

fn is_identifier(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn path_fault(path: &str) -> Option<&'static str> {
    match path {
        _ if path.trim().is_empty() => Some("is empty"),
        _ if path.chars().any(char::is_control) => Some("holds a control character"),
        _ if is_url(path) => path.parse::<ObjectUrl>().err(),
        _ => None,
    }
}

/// An output is a folder with a name: its control folder gets a name made of it.
fn output_path_fault(path: &str) -> Option<&'static str> {
    match path.trim_end_matches('/').rsplit('/').next().unwrap_or_default() {
        "" | "." | ".." => Some("has no name of its own"),
        _ if path.contains(['*', '?']) => Some("holds a wildcard"),
        _ => None,
    }
}

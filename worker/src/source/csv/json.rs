//! Lines of JSON: one object is one record. The values of the wanted columns are written one behind
//! another into a block of fields, which the typed loops of delimited text decode.
//!
//! `serde_json` says whether a line is JSON. Where its values stand is then found by passing over it:
//! numbers are taken as they are written, so that a decimal loses nothing on the way.

use std::{borrow::Cow, collections::HashMap, fmt};

use gapless_common::job::ColumnType;
use serde::de::IgnoredAny;

use super::{block::PAD, columns::expectation};

/// Stands in a block of fields for NULL: no text in UTF-8 is this byte.
pub(super) const NULL: u8 = 0xFF;

/// Characters of a value that are shown in a reason.
const SHOWN: usize = 80;
/// Columns that are named in a reason.
const SHOWN_NAMES: usize = 10;

/// The columns of the objects.
#[derive(Debug)]
pub(super) struct Shape {
    columns: Vec<Column>,
    places: HashMap<String, usize>,
    /// Whether an object with another name in it is rejected.
    closed: bool,
}

#[derive(Debug)]
struct Column {
    name: String,
    ty: ColumnType,
    required: bool,
    wanted: bool,
}

/// Values of rows in a padded block, with the place of each field's end as in a scan.
#[derive(Default)]
pub(super) struct Fields {
    pub bytes: Vec<u8>,
    pub ends: Vec<u32>,
    /// For each row the index into `ends` of the end of its first field.
    pub firsts: Vec<u32>,
    spans: Vec<Option<Span>>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The span is what stands between the quotes.
    Text {
        escaped: bool,
    },
    Number,
    Bool,
    Null,
    /// An object or a list.
    Nested,
}

/// Why a line is no record, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub String);

impl Shape {
    /// `wanted`: positions of the columns that are decoded, ascending.
    pub fn new(columns: &[(String, ColumnType)], wanted: &[usize], required: &[String], closed: bool) -> Shape {
        let column = |(at, (name, ty)): (usize, &(String, ColumnType))| Column {
            name: name.clone(),
            ty: *ty,
            required: required.contains(name),
            wanted: wanted.contains(&at),
        };
        Shape {
            columns: columns.iter().enumerate().map(column).collect(),
            places: (0..).zip(columns).map(|(at, (name, _))| (name.clone(), at)).collect(),
            closed,
        }
    }

    /// The column of a name; `near` is tried first, since objects tend to have their names in one order.
    fn place(&self, name: &str, near: usize) -> Option<usize> {
        match self.columns.get(near) {
            Some(column) if column.name == name => Some(near),
            _ => self.places.get(name).copied(),
        }
    }
}

impl Fields {
    /// Begins a block.
    pub fn clear(&mut self, mut bytes: Vec<u8>) {
        bytes.clear();
        bytes.resize(PAD, b'\n');
        self.bytes = bytes;
        self.ends.clear();
        self.ends.push(PAD as u32 - 1);
        self.firsts.clear();
    }

    /// Appends the row that a line holds. Nothing is appended where it holds none.
    pub fn add(&mut self, line: &[u8], shape: &Shape) -> Result<(), Fault> {
        let line = std::str::from_utf8(line).map_err(|_| Fault("the line is not text in UTF-8".into()))?;
        self.find(line, shape)?;
        let (bytes, ends) = (self.bytes.len(), self.ends.len());
        for (column, span) in shape.columns.iter().zip(&self.spans) {
            if let Err(fault) = append(column, *span, line, &mut self.bytes) {
                self.bytes.truncate(bytes);
                self.ends.truncate(ends);
                return Err(fault);
            }
            if column.wanted {
                self.ends.push(self.bytes.len() as u32);
                self.bytes.push(b'\n');
            }
        }
        self.firsts.push(ends as u32);
        Ok(())
    }

    /// Ends the block: with readable bytes behind the text.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(bytes.len() + PAD, b'\n');
        bytes
    }

    /// Finds the values of a line's object.
    fn find(&mut self, line: &str, shape: &Shape) -> Result<(), Fault> {
        self.spans.clear();
        self.spans.resize(shape.columns.len(), None);
        let mut near = 0;
        each_member(line, |name, span| {
            match shape.place(&name, near) {
                Some(at) if self.spans[at].is_some() => {
                    return Err(Fault(format!("«{name}» stands twice in the object")));
                }
                Some(at) => {
                    self.spans[at] = Some(span);
                    near = at + 1;
                }
                None if shape.closed => {
                    let all: Vec<&str> = shape.columns.iter().map(|column| column.name.as_str()).collect();
                    return Err(Fault(format!(
                        "«{name}» is no column: there are {}",
                        columns_in_words(&all)
                    )));
                }
                None => {}
            }
            Ok(())
        })
    }
}

fn columns_in_words(names: &[&str]) -> String {
    match names.get(..SHOWN_NAMES) {
        Some(first) if names.len() > SHOWN_NAMES => {
            format!("{} and {} more", first.join(", "), names.len() - SHOWN_NAMES)
        }
        _ => names.join(", "),
    }
}

/// The names in a line's object, in order.
pub(super) fn names(line: &[u8]) -> Result<Vec<String>, Fault> {
    let line = std::str::from_utf8(line).map_err(|_| Fault("the line is not text in UTF-8".into()))?;
    let mut names: Vec<String> = Vec::new();
    each_member(line, |name, _| {
        if names.iter().any(|known| *known == name) {
            return Err(Fault(format!("«{name}» stands twice in the object")));
        }
        names.push(name.into_owned());
        Ok(())
    })?;
    Ok(names)
}

fn append(column: &Column, span: Option<Span>, line: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    let name = &column.name;
    let null = |what: &str| Fault(format!("column {name}: {what}, but the column is required"));
    let Some(span) = span else {
        if column.required {
            return Err(null("it is missing in the object"));
        }
        if column.wanted {
            out.push(NULL);
        }
        return Ok(());
    };
    if column.required && span.kind == Kind::Null {
        return Err(null("it is null"));
    }
    if !column.wanted {
        return Ok(());
    }
    let raw = &line[span.start..span.end];
    let fits = match span.kind {
        Kind::Null | Kind::Text { .. } => true,
        Kind::Number => !matches!(column.ty, ColumnType::Bool | ColumnType::Date | ColumnType::Timestamp),
        Kind::Bool => matches!(column.ty, ColumnType::Bool | ColumnType::String),
        Kind::Nested => column.ty == ColumnType::String,
    };
    if !fits {
        return Err(Fault(format!(
            "column {name}: {} is not {}",
            Shown(raw),
            expectation(column.ty)
        )));
    }
    match span.kind {
        Kind::Null => out.push(NULL),
        Kind::Text { escaped: true } => {
            let quoted = &line[span.start - 1..span.end + 1];
            let text: String = serde_json::from_str(quoted).map_err(|error| {
                Fault(format!(
                    "column {name}: {} is no text: {}",
                    Shown(quoted),
                    cause(&error)
                ))
            })?;
            out.extend_from_slice(text.as_bytes());
        }
        _ => out.extend_from_slice(raw.as_bytes()),
    }
    Ok(())
}

/// A value in a reason: long ones are cut.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN) {
            Some((cut, _)) => write!(f, "«{}…»", &self.0[..cut]),
            None => write!(f, "«{}»", self.0),
        }
    }
}

/// What the library found, without its place.
fn cause(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_string(),
        None => text,
    }
}

/// Calls `member` with each name and value of the object that a line is.
fn each_member<'a>(
    line: &'a str,
    mut member: impl FnMut(Cow<'a, str>, Span) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if let Err(error) = serde_json::from_str::<IgnoredAny>(line) {
        let what = match error.is_eof() {
            true => "the line ends within a value".to_string(),
            false => cause(&error),
        };
        return Err(Fault(format!("the line is not JSON (byte {}): {what}", error.column())));
    }
    let walk = Walk { text: line.as_bytes() };
    let mut at = walk.space(0);
    if walk.text.get(at) != Some(&b'{') {
        let what = match walk.text.get(at) {
            Some(b'[') => "a list",
            Some(b'"') => "a text",
            Some(b't' | b'f') => "true or false",
            Some(b'n') => "null",
            _ => "a number",
        };
        return Err(Fault(format!(
            "the line is {what}: a record is an object such as {{\"id\": 1}}"
        )));
    }
    at = walk.space(at + 1);
    while walk.text.get(at) == Some(&b'"') {
        let name = walk.string(at);
        let text = &line[name.start..name.end];
        let text = match name.kind {
            Kind::Text { escaped: true } => {
                let quoted = &line[name.start - 1..name.end + 1];
                let text = serde_json::from_str(quoted)
                    .map_err(|error| Fault(format!("{} is no name: {}", Shown(quoted), cause(&error))))?;
                Cow::Owned(text)
            }
            _ => Cow::Borrowed(text),
        };
        // Behind the name a colon, behind the value a comma or the end of the object.
        at = walk.space(walk.space(name.end + 1) + 1);
        let value = walk.value(at);
        let behind = value.end + usize::from(matches!(value.kind, Kind::Text { .. }));
        member(text, value)?;
        at = walk.space(walk.space(behind) + 1);
    }
    Ok(())
}

/// Goes over JSON that is known to be right.
struct Walk<'a> {
    text: &'a [u8],
}

impl Walk<'_> {
    /// The first place at or behind `at` that is no white space.
    fn space(&self, mut at: usize) -> usize {
        while matches!(self.text.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            at += 1;
        }
        at
    }

    /// The string whose first quote stands at `at`.
    fn string(&self, at: usize) -> Span {
        let start = at + 1;
        let (mut end, mut escaped) = (start, false);
        while let Some(found) = self.text.get(end..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
            end += found;
            if self.text[end] == b'"' {
                break;
            }
            escaped = true;
            end += 2;
        }
        Span {
            start,
            end: end.min(self.text.len()),
            kind: Kind::Text { escaped },
        }
    }

    fn value(&self, at: usize) -> Span {
        let of = |end, kind| Span { start: at, end, kind };
        let word = || {
            let rest = self.text.get(at..).unwrap_or_default();
            let len = rest
                .iter()
                .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'));
            at + len.unwrap_or(rest.len())
        };
        match self.text.get(at) {
            Some(b'"') => self.string(at),
            Some(b'{' | b'[') => of(self.nested(at), Kind::Nested),
            Some(b't' | b'f') => of(word(), Kind::Bool),
            Some(b'n') => of(word(), Kind::Null),
            _ => of(word(), Kind::Number),
        }
    }

    /// Behind the object or list that begins at `at`.
    fn nested(&self, mut at: usize) -> usize {
        let mut depth = 0usize;
        while let Some(byte) = self.text.get(at) {
            match byte {
                b'"' => at = self.string(at).end,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth == 0 {
                break;
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: &str, required: &[String], closed: bool) -> Result<Vec<String>, String> {
        let columns = [
            ("id".to_string(), ColumnType::Int64),
            ("text".to_string(), ColumnType::String),
            ("ok".to_string(), ColumnType::Bool),
        ];
        let shape = Shape::new(&columns, &[0, 1, 2], required, closed);
        let mut fields = Fields::default();
        fields.clear(Vec::new());
        fields.add(line.as_bytes(), &shape).map_err(|fault| fault.0)?;
        let of = |at: usize| &fields.bytes[fields.ends[at - 1] as usize + 1..fields.ends[at] as usize];
        let shown = |field: &[u8]| match field {
            [NULL] => "NULL".to_string(),
            field => String::from_utf8(field.to_vec()).unwrap(),
        };
        Ok((1..=3).map(|at| shown(of(at))).collect())
    }

    #[test]
    fn values_are_taken_as_they_are_written() {
        let check = |line: &str, expected: [&str; 3]| assert_eq!(row(line, &[], false).unwrap(), expected, "{line}");
        check(r#"{"id":1,"text":"x","ok":true}"#, ["1", "x", "true"]);
        check(
            r#" { "ok" : false , "id" : -12.50e3 , "text" : "a\n\"é\u00e9\\" } "#,
            ["-12.50e3", "a\n\"éé\\", "false"],
        );
        check(
            r#"{"text":{"a":[1,"}]"],"b":{}},"id":"7","more":[[]]}"#,
            ["7", r#"{"a":[1,"}]"],"b":{}}"#, "NULL"],
        );
        check(
            r#"{"te\u0078t":12345678901234567890123456789.5,"id":null}"#,
            ["NULL", "12345678901234567890123456789.5", "NULL"],
        );
        check("{}", ["NULL"; 3]);
        check(r#"{"text":"","id":[]}"#.replace("[]", "1").as_str(), ["1", "", "NULL"]);
    }

    #[test]
    fn what_is_no_record_is_told_in_words() {
        let required = ["id".to_string()];
        let check = |line: &str, expected: &str| {
            let found = row(line, &required, true).unwrap_err();
            assert!(found.contains(expected), "{line}: {found}");
        };
        check("7", "the line is a number: a record is an object");
        check("[1]", "the line is a list");
        check("\"x\"", "the line is a text");
        check("null", "the line is null");
        check("{\"id\":1", "not JSON (byte 7): the line ends within a value");
        check("{\"id\":1,}", "not JSON (byte 9): key must be a string");
        check("{\"id\":NaN}", "not JSON (byte 7)");
        check("{\"id\":1} {}", "trailing characters");
        check("{\"id\":1,\"id\":2}", "«id» stands twice");
        check("{\"id\":1,\"tex\":2}", "«tex» is no column");
        check(
            "{\"text\":\"x\"}",
            "column id: it is missing in the object, but the column is required",
        );
        check("{\"id\":null}", "column id: it is null");
        check("{\"id\":{\"a\":1}}", "column id: «{\"a\":1}» is not a whole number");
        check("{\"id\":true}", "column id: «true» is not a whole number");
        check("{\"id\":1,\"ok\":1}", "column ok: «1» is not true or false");
        check("{\"id\":1,\"text\":\"\\ud800\"}", "hex escape");
        assert_eq!(names(b"{\"b\":1,\"a\":{\"c\":2}}").unwrap(), ["b", "a"]);
    }
}

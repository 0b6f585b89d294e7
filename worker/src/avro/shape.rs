//! How the records of a schema lie in a block. Walking over each one before it is decoded tells where it ends and that
//! it is whole, so that damage is told with its place, and a decoder is never given what it would run away with.

use std::collections::HashMap;

use serde_json::Value;

use super::{MAX_BLOCK, take_long};

/// Types within types, as deep as anybody nests them; names are followed. What decodes goes down as deep on its stack.
const MAX_DEPTH: usize = 64;

/// Columns of a schema, each part of a nested one counted wherever its type is named: a schema of some kilobytes can name
/// types that expand to more than any memory holds.
const MAX_COLUMNS: usize = 10_000;

/// What the values of a record that are all of one size (numbers, `fixed`) may take. A NULL takes as much as a value when
/// it is decoded, and one byte in the file.
const MAX_WIDTH: usize = 1 << 20;

/// What a decoded record may take, which is more than it has in the file where it has NULLs or small numbers.
const MAX_RECORD: usize = MAX_BLOCK;

/// What a decoded text or value of bytes takes beside what it holds.
const VIEW: usize = 16;

/// A schema's types, each by its number.
#[derive(Debug)]
pub(crate) struct Shape {
    types: Vec<Type>,
    extents: Vec<Extent>,
    root: usize,
}

/// What a type comes to when the names in it are followed.
#[derive(Clone, Copy, Debug)]
struct Extent {
    depth: usize,
    columns: usize,
    /// Bytes that a value takes when it is decoded, without those of lists and texts: what a NULL takes.
    width: usize,
}

#[derive(Debug)]
enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Fixed(usize),
    Bytes,
    Text,
    /// By the number of its symbols.
    Enum(i64),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(Vec<usize>),
}

impl Shape {
    /// Errors say what is wrong with the schema.
    pub fn of(schema: &str) -> Result<Shape, String> {
        let value: Value = serde_json::from_str(schema).map_err(|error| format!("its schema is no JSON: {error}"))?;
        let mut reading = Reading::default();
        let root = reading.read(&value, "", 0)?;
        if !matches!(reading.types[root], Type::Record(_)) {
            return Err("its schema is not that of a record".into());
        }
        Ok(Shape {
            types: reading.types,
            extents: reading.extents,
            root,
        })
    }

    /// Moves `at` behind the record that begins there, and answers about how many bytes it takes when it is decoded.
    /// Errors say what is wrong with the record.
    pub fn pass(&self, bytes: &[u8], at: &mut usize) -> Result<usize, String> {
        let mut room = MAX_RECORD;
        self.skip(self.root, bytes, at, &mut room)?;
        Ok(MAX_RECORD - room)
    }

    /// `room`: bytes that what is left of the record may take when it is decoded.
    fn skip(&self, ty: usize, bytes: &[u8], at: &mut usize, room: &mut usize) -> Result<(), String> {
        const CUT: &str = "the block ends within a value";
        // A record takes what is in it, a union what its branch does.
        if !matches!(self.types[ty], Type::Record(_) | Type::Union(_)) {
            spend(self.extents[ty].width, room)?;
        }
        match &self.types[ty] {
            Type::Null => {}
            Type::Boolean => match bytes.get(*at) {
                Some(0 | 1) => *at += 1,
                Some(byte) => return Err(format!("a boolean is {byte}")),
                None => return Err(CUT.into()),
            },
            Type::Int => {
                let value = take_long(bytes, at).ok_or(CUT)?;
                i32::try_from(value).map_err(|_| format!("an int is {value}, which has more than 32 bits"))?;
            }
            Type::Long => drop(take_long(bytes, at).ok_or(CUT)?),
            Type::Fixed(len) => drop(take(bytes, at, *len as i64)?),
            Type::Bytes => {
                let len = take_long(bytes, at).ok_or(CUT)?;
                spend(take(bytes, at, len)?.len(), room)?;
            }
            Type::Text => {
                let len = take_long(bytes, at).ok_or(CUT)?;
                let text = take(bytes, at, len)?;
                spend(text.len(), room)?;
                std::str::from_utf8(text).map_err(|error| format!("a string is no UTF-8: {error}"))?;
            }
            Type::Enum(symbols) => {
                let symbol = take_long(bytes, at).ok_or(CUT)?;
                if !(0..*symbols).contains(&symbol) {
                    return Err(format!("an enum is {symbol} of {symbols} symbols"));
                }
            }
            Type::Array(item) => self.items(bytes, at, &[*item], room)?,
            Type::Map(item) => self.items(bytes, at, &[TEXT, *item], room)?,
            Type::Union(branches) => {
                let branch = take_long(bytes, at).ok_or(CUT)?;
                let found = usize::try_from(branch).ok().and_then(|branch| branches.get(branch));
                let found = found.ok_or_else(|| format!("a union has branch {branch} of {}", branches.len()))?;
                match self.types[*found] {
                    Type::Null => spend(self.extents[ty].width, room)?,
                    _ => self.skip(*found, bytes, at, room)?,
                }
            }
            Type::Record(fields) => {
                for field in fields {
                    self.skip(*field, bytes, at, room)?;
                }
            }
        }
        Ok(())
    }

    /// Arrays and maps come in pieces, each with a count; a negative one has the length of the piece behind it.
    fn items(&self, bytes: &[u8], at: &mut usize, item: &[usize], room: &mut usize) -> Result<(), String> {
        loop {
            let mut next = || take_long(bytes, at).ok_or("the block ends within an array or map");
            let count = next()?;
            if count == 0 {
                return Ok(());
            }
            let len = if count < 0 { Some(next()?) } else { None };
            let from = *at;
            for _ in 0..count.unsigned_abs() {
                let before = *at;
                for ty in item {
                    self.skip(*ty, bytes, at, room)?;
                }
                // Values of no bytes could be counted without end.
                if *at == before {
                    return Err("an array of values that have no bytes is not read".into());
                }
            }
            if len.is_some_and(|len| len != (*at - from) as i64) {
                return Err("an array or map is not as long as it says".into());
            }
        }
    }
}

/// Errors: for a record that takes more than it may.
fn spend(bytes: usize, room: &mut usize) -> Result<(), String> {
    *room = room
        .checked_sub(bytes)
        .ok_or_else(|| format!("it takes more than {} MiB in memory", MAX_RECORD >> 20))?;
    Ok(())
}

fn take<'a>(bytes: &'a [u8], at: &mut usize, len: i64) -> Result<&'a [u8], String> {
    let end = usize::try_from(len).ok().and_then(|len| at.checked_add(len));
    let found = end.and_then(|end| bytes.get(*at..end));
    let found = found.ok_or_else(|| format!("a value of {len} bytes reaches beyond the block"))?;
    *at += found.len();
    Ok(found)
}

/// The number of the text type, which every shape has: keys of maps are text.
const TEXT: usize = 0;

struct Reading {
    types: Vec<Type>,
    /// Of each type.
    extents: Vec<Extent>,
    /// Named types; `None` while one is being read.
    named: HashMap<String, Option<usize>>,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            types: vec![Type::Text],
            extents: vec![Extent::leaf(VIEW)],
            named: HashMap::new(),
        }
    }
}

impl Extent {
    fn leaf(width: usize) -> Extent {
        Extent {
            depth: 1,
            columns: 1,
            width,
        }
    }

    /// Of a type that has others in it.
    fn around(inner: impl Iterator<Item = Extent>) -> Extent {
        let none = Extent {
            depth: 0,
            columns: 0,
            width: 0,
        };
        let sum = inner.fold(none, |sum, inner| Extent {
            depth: sum.depth.max(inner.depth),
            columns: sum.columns.saturating_add(inner.columns),
            width: sum.width.saturating_add(inner.width),
        });
        Extent {
            depth: sum.depth + 1,
            columns: sum.columns.max(1),
            ..sum
        }
    }
}

impl Reading {
    /// Errors: for a type that is too large, with all that is in it.
    fn add(&mut self, ty: Type) -> Result<usize, String> {
        let extent = self.extent(&ty);
        if extent.depth > MAX_DEPTH {
            return Err(too_deep());
        }
        if extent.columns > MAX_COLUMNS {
            return Err(format!(
                "its schema has more than {MAX_COLUMNS} columns, nested ones counted wherever their type is named"
            ));
        }
        if extent.width > MAX_WIDTH {
            return Err(format!(
                "its schema has records whose values of one size take more than {} MiB, NULLs among them; have large ones as \
                 `bytes`",
                MAX_WIDTH >> 20
            ));
        }
        self.types.push(ty);
        self.extents.push(extent);
        Ok(self.types.len() - 1)
    }

    fn extent(&self, ty: &Type) -> Extent {
        let of = |inner: &usize| self.extents[*inner];
        match ty {
            Type::Null => Extent {
                columns: 0,
                ..Extent::leaf(0)
            },
            Type::Boolean => Extent::leaf(size_of::<bool>()),
            Type::Int => Extent::leaf(size_of::<i32>()),
            Type::Long => Extent::leaf(size_of::<i64>()),
            Type::Fixed(len) => Extent::leaf(*len),
            Type::Bytes | Type::Text | Type::Enum(_) => Extent::leaf(VIEW),
            Type::Array(item) | Type::Map(item) => Extent {
                width: VIEW,
                ..Extent::around([of(item)].into_iter())
            },
            Type::Union(branches) => Extent::around(branches.iter().map(of)),
            Type::Record(fields) => Extent::around(fields.iter().map(of)),
        }
    }

    fn read(&mut self, value: &Value, space: &str, depth: usize) -> Result<usize, String> {
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        match value {
            Value::String(name) => self.by_name(name, space),
            Value::Array(branches) => {
                let branches: Result<Vec<usize>, String> =
                    branches.iter().map(|ty| self.read(ty, space, depth + 1)).collect();
                self.add(Type::Union(branches?))
            }
            Value::Object(object) => {
                let inner = |key: &str| {
                    object
                        .get(key)
                        .ok_or_else(|| format!("its schema has a type without `{key}`"))
                };
                let Value::String(kind) = inner("type")? else {
                    // A type in brackets of its own.
                    return self.read(inner("type")?, space, depth + 1);
                };
                match kind.as_str() {
                    "array" => {
                        let item = self.read(inner("items")?, space, depth + 1)?;
                        self.add(Type::Array(item))
                    }
                    "map" => {
                        let item = self.read(inner("values")?, space, depth + 1)?;
                        self.add(Type::Map(item))
                    }
                    "enum" | "fixed" | "record" | "error" => {
                        let (name, space) = full_name(object, space)?;
                        if self.named.insert(name.clone(), None).is_some() {
                            return Err(format!("its schema has two types of the name {name}"));
                        }
                        let ty = match kind.as_str() {
                            "enum" => {
                                let symbols = inner("symbols")?.as_array();
                                Type::Enum(symbols.map_or(0, Vec::len) as i64)
                            }
                            "fixed" => {
                                let size = inner("size")?.as_u64().and_then(|size| usize::try_from(size).ok());
                                Type::Fixed(size.ok_or_else(|| format!("its schema has no size for {name}"))?)
                            }
                            _ => {
                                let fields = inner("fields")?.as_array();
                                let fields = fields.ok_or_else(|| format!("its schema has no fields for {name}"))?;
                                let mut types = Vec::with_capacity(fields.len());
                                for field in fields {
                                    let ty = field
                                        .get("type")
                                        .ok_or_else(|| format!("its schema has a field of {name} without a type"))?;
                                    types.push(self.read(ty, &space, depth + 1)?);
                                }
                                Type::Record(types)
                            }
                        };
                        let number = self.add(ty)?;
                        self.named.insert(name, Some(number));
                        Ok(number)
                    }
                    name => self.by_name(name, space),
                }
            }
            other => Err(format!("its schema has {other} in place of a type")),
        }
    }

    fn by_name(&mut self, name: &str, space: &str) -> Result<usize, String> {
        let ty = match name {
            "null" => Type::Null,
            "boolean" => Type::Boolean,
            "int" => Type::Int,
            "long" => Type::Long,
            "float" => Type::Fixed(size_of::<f32>()),
            "double" => Type::Fixed(size_of::<f64>()),
            "bytes" => Type::Bytes,
            "string" => return Ok(TEXT),
            _ => {
                let full = match name.contains('.') || space.is_empty() {
                    true => name.to_string(),
                    false => format!("{space}.{name}"),
                };
                let found = self.named.get(&full).or_else(|| self.named.get(name));
                return match found {
                    Some(Some(number)) => Ok(*number),
                    Some(None) => Err(format!(
                        "the type {name} of its schema holds itself, which no column can"
                    )),
                    None => Err(format!(
                        "its schema uses the type {name}, which it does not define before"
                    )),
                };
            }
        };
        self.add(ty)
    }
}

fn too_deep() -> String {
    format!("its schema nests types more than {MAX_DEPTH} deep")
}

/// The full name of a named type, and the name space of what is in it.
fn full_name(object: &serde_json::Map<String, Value>, space: &str) -> Result<(String, String), String> {
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let name = text("name").ok_or("its schema has a record, enum or fixed without a name")?;
    if let Some((space, _)) = name.rsplit_once('.') {
        return Ok((name.to_string(), space.to_string()));
    }
    let space = text("namespace").unwrap_or(space);
    let full = match space.is_empty() {
        true => name.to_string(),
        false => format!("{space}.{name}"),
    };
    Ok((full, space.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::put_long;

    fn record(fields: &str) -> Result<Shape, String> {
        Shape::of(&format!(r#"{{"type":"record","name":"n.r","fields":[{fields}]}}"#))
    }

    fn passed(shape: &Shape, bytes: &[u8]) -> Result<usize, String> {
        let mut at = 0;
        shape.pass(bytes, &mut at).map(|_| at)
    }

    #[test]
    fn records_are_passed_to_the_byte_and_never_beyond() {
        let shape = record(
            r#"{"name":"a","type":["null","int"]},
               {"name":"b","type":{"type":"array","items":{"type":"map","values":"double"}}},
               {"name":"c","type":{"type":"fixed","name":"f","size":3}},
               {"name":"d","type":{"type":"enum","name":"e","symbols":["x","y"]}},
               {"name":"g","type":{"type":"record","name":"s","fields":[{"name":"h","type":"n.f"},{"name":"i","type":"string"}]}},
               {"name":"j","type":{"type":"long","logicalType":"timestamp-micros"}}, {"name":"k","type":"boolean"}"#,
        )
        .unwrap();
        let mut bytes = Vec::new();
        for value in [1, 7, 1, 1, 1] {
            put_long(value, &mut bytes);
        }
        bytes.extend_from_slice(b"k12345678");
        put_long(0, &mut bytes);
        // A second piece of the array, with its length: one map with no entry.
        for value in [-1, 1, 0, 0] {
            put_long(value, &mut bytes);
        }
        bytes.extend_from_slice(b"abc");
        put_long(1, &mut bytes);
        bytes.extend_from_slice(b"def");
        put_long(2, &mut bytes);
        bytes.extend_from_slice("ä".as_bytes());
        put_long(i64::MIN, &mut bytes);
        bytes.push(1);
        assert_eq!(passed(&shape, &bytes), Ok(bytes.len()));
        for len in 0..bytes.len() {
            assert!(passed(&shape, &bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn broken_values_are_told() {
        let check = |ty: &str, bytes: &[u8], expected: &str| {
            let shape = record(&format!(r#"{{"name":"a","type":{ty}}}"#)).unwrap();
            let error = passed(&shape, bytes).unwrap_err();
            assert!(error.contains(expected), "{ty}: {error}");
        };
        check("\"boolean\"", &[2], "a boolean is 2");
        check("\"string\"", &[2, 0xff], "a string is no UTF-8");
        check("\"string\"", &[1], "a value of -1 bytes");
        check("[\"null\",\"int\"]", &[4], "branch 2 of 2");
        check(
            r#"{"type":"enum","name":"e","symbols":["x"]}"#,
            &[2],
            "an enum is 1 of 1",
        );
        check(
            r#"{"type":"array","items":"null"}"#,
            &[0xfe, 0xff, 0xff, 0xff, 0x0f],
            "have no bytes",
        );
        check(
            r#"{"type":"array","items":"int"}"#,
            &[1, 4, 2, 0],
            "not as long as it says",
        );
        check("\"int\"", &[0xff, 0xff, 0xff, 0xff, 0xff, 1], "more than 32 bits");
    }

    #[test]
    fn schemas_that_cannot_be_read_are_told() {
        let check = |schema: &str, expected: &str| {
            let error = Shape::of(schema).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("{", "no JSON");
        check("\"int\"", "not that of a record");
        check(
            r#"{"type":"record","name":"r","fields":[{"name":"a","type":["null","r"]}]}"#,
            "the type r of its schema holds itself",
        );
        check(
            r#"{"type":"record","name":"r","fields":[{"name":"a","type":"q"}]}"#,
            "uses the type q",
        );
    }

    /// A name stands for the whole type: what is expanded counts, not what is written.
    #[test]
    fn types_that_nest_or_multiply_through_their_names_are_told() {
        let own = |number: usize, fields: &str| {
            format!(r#"{{"name":"f{number}","type":{{"type":"record","name":"r{number}","fields":[{fields}]}}}}"#)
        };
        let field = |name: &str, ty: usize| format!(r#"{{"name":"{name}","type":"r{ty}"}}"#);
        let int = r#"{"name":"a","type":"int"}"#.to_string();
        // 2^40 columns.
        let doubled = (0..40).map(|number| match number {
            0 => own(0, &int),
            _ => own(number, &[field("a", number - 1), field("b", number - 1)].join(",")),
        });
        let error = record(&doubled.collect::<Vec<_>>().join(",")).unwrap_err();
        assert!(
            error.contains("more than 10000 columns, nested ones counted"),
            "{error}"
        );
        // The same, of records that hold nothing.
        let empty = (0..40).map(|number| match number {
            0 => own(0, ""),
            _ => own(number, &[field("a", number - 1), field("b", number - 1)].join(",")),
        });
        assert!(record(&empty.collect::<Vec<_>>().join(",")).is_err());
        let nested = |count| {
            let records = (0..count).map(|number| match number {
                0 => own(0, &int),
                _ => own(number, &field("a", number - 1)),
            });
            record(&records.collect::<Vec<_>>().join(","))
        };
        assert!(nested(50).is_ok());
        let error = nested(3000).unwrap_err();
        assert!(error.contains("nests types more than 64 deep"), "{error}");
        // As many as anybody has.
        let wide = (0..4000).map(|number| format!(r#"{{"name":"c{number}","type":["null","long"]}}"#));
        assert!(record(&wide.collect::<Vec<_>>().join(",")).is_ok());
    }
}

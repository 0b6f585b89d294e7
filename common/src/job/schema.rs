//! The table of the language as a JSON Schema (draft 7), for completion in editors.

use serde_json::{Map, Value, json};

use crate::labels::{MAX_LABEL_BYTES, MAX_LABELS};

use super::Delimiter;
use super::keys::{COLUMN_TYPES, Choice, JOB, Key, Kind, MAX_NAME_BYTES, SECTIONS, Section};

/// The name of a label.
const LABEL_WORD: &str = r"^[A-Za-z0-9_./-]{1,64}$";
const _: () = assert!(MAX_LABEL_BYTES == 64);

/// Where values may be put in, besides what stands there.
const PLACEHOLDER: &str = r"\$\{param\.[A-Za-z][A-Za-z0-9_]*\}";

/// The schema of a job file.
pub fn json_schema() -> Value {
    let mut definitions: Map<String, Value> = SECTIONS
        .iter()
        .map(|section| (definition(section), mapping(section)))
        .collect();
    definitions.insert(
        "placeholder".into(),
        json!({"type": "string", "pattern": PLACEHOLDER, "description": "The value of a parameter."}),
    );
    let mut schema = mapping(&JOB);
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("Gapless job file");
    schema["definitions"] = Value::Object(definitions);
    schema
}

fn definition(section: &Section) -> String {
    section.name.replace(' ', "_")
}

fn reference(section: &Section) -> String {
    format!("#/definitions/{}", definition(section))
}

fn mapping(section: &Section) -> Value {
    let properties: Map<String, Value> = section
        .keys
        .iter()
        .map(|key| (key.name.to_string(), property(key)))
        .collect();
    let required: Vec<&str> = section
        .keys
        .iter()
        .filter(|key| key.required)
        .map(|key| key.name)
        .collect();
    let mut schema = json!({
        "type": "object",
        "description": section.about,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    match section.choice {
        Choice::Free => {}
        Choice::ExactlyOne(names) => {
            schema["oneOf"] = names.iter().map(|name| json!({"required": [name]})).collect();
        }
        Choice::AtMostOne(names) => {
            let none =
                json!({"not": {"anyOf": names.iter().map(|name| json!({"required": [name]})).collect::<Vec<_>>()}});
            schema["oneOf"] = names
                .iter()
                .map(|name| json!({"required": [name]}))
                .chain([none])
                .collect();
        }
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = value(&key.kind);
    schema["description"] = json!(key.about);
    // The examples are part of the table and read by a test.
    schema["examples"] =
        serde_json::from_str(key.example).map_or_else(|_| json!([]), |example: Value| json!([example]));
    if let Some(word) = key.default_word() {
        schema["default"] = match key.kind {
            Kind::Bool | Kind::Integer { .. } | Kind::IntegerOr { .. } => {
                serde_json::from_str(word).unwrap_or_else(|_| json!(word))
            }
            _ => json!(word),
        };
    }
    schema
}

fn value(kind: &Kind) -> Value {
    // YAML makes a number of `5` and a date of nothing: whatever is no collection is text here.
    let text = json!({"type": ["string", "number", "boolean"]});
    let placeholder = json!({"$ref": "#/definitions/placeholder"});
    let name = json!({
        "type": "string",
        "pattern": format!("^[A-Za-z0-9][A-Za-z0-9_.-]{{0,{}}}$", MAX_NAME_BYTES - 1),
    });
    match kind {
        Kind::Name => name,
        Kind::Text | Kind::Literal => text,
        Kind::OutputPath | Kind::Sql => json!({"type": "string", "minLength": 1}),
        Kind::Texts => one_or_more(text),
        Kind::Paths => one_or_more(json!({"type": "string", "minLength": 1})),
        Kind::Names => json!({"anyOf": [name, {"type": "array", "items": name}]}),
        Kind::Bool => json!({"anyOf": [{"type": "boolean"}, placeholder]}),
        Kind::Integer { min, max } => json!({"anyOf": [integer(*min, *max), placeholder]}),
        Kind::IntegerOr { word, min, max } => json!({"anyOf": [{"const": word}, integer(*min, *max), placeholder]}),
        Kind::Word(words) => json!({"anyOf": [{"enum": words}, placeholder]}),
        Kind::Character(words) => {
            json!({"anyOf": [{"enum": words}, {"type": "string", "minLength": 1, "maxLength": 1}, placeholder]})
        }
        Kind::Delimiter => {
            json!({"anyOf": [{"type": "string", "minLength": 1, "maxLength": Delimiter::MAX_BYTES}, placeholder]})
        }
        Kind::Empty => json!({"type": ["object", "null"], "maxProperties": 0}),
        Kind::Columns => json!({"type": "object", "additionalProperties": column_type()}),
        Kind::ColumnType => column_type(),
        Kind::Labels => json!({
            "type": "object",
            "minProperties": 1,
            "maxProperties": MAX_LABELS,
            "propertyNames": {"pattern": LABEL_WORD},
            "additionalProperties": text,
        }),
        Kind::Section(section) if section.words.is_empty() => json!({"allOf": [{"$ref": reference(section)}]}),
        Kind::Section(section) => {
            json!({"anyOf": [{"enum": section.words}, {"$ref": reference(section)}, placeholder]})
        }
        Kind::List(section) => json!({"type": "array", "minItems": 1, "items": {"$ref": reference(section)}}),
        Kind::ListOr { section, .. } => {
            one_or_more(json!({"anyOf": [{"type": "string", "minLength": 1}, {"$ref": reference(section)}]}))
        }
        Kind::Map(section) => {
            let names = json!({"pattern": format!("^[A-Za-z][A-Za-z0-9_]{{0,{}}}$", MAX_NAME_BYTES - 1)});
            json!({"type": "object", "propertyNames": names, "additionalProperties": {"$ref": reference(section)}})
        }
    }
}

fn column_type() -> Value {
    let simple: Vec<&str> = COLUMN_TYPES.iter().copied().filter(|ty| !ty.contains('(')).collect();
    let decimal = r"^decimal\(\s*\d{1,2}\s*,\s*\d{1,2}\s*\)$";
    json!({"anyOf": [{"enum": simple}, {"type": "string", "pattern": decimal}]})
}

fn one_or_more(item: Value) -> Value {
    json!({"anyOf": [item, {"type": "array", "minItems": 1, "items": item}]})
}

fn integer(min: i64, max: i64) -> Value {
    let mut schema = json!({"type": "integer"});
    if min != i64::MIN {
        schema["minimum"] = json!(min);
    }
    if max != i64::MAX {
        schema["maximum"] = json!(max);
    }
    schema
}

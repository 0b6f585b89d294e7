//! Types as messages call them: by their names in the job language, in plain words where it has none.

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};

/// The name of a type: `string`, `int64`, `decimal(12,2)`, `list of string`.
pub fn type_name(ty: &DataType) -> String {
    let plain = |name: &str| name.to_string();
    match ty {
        DataType::Null => plain("NULL without a type"),
        DataType::Boolean => plain("bool"),
        DataType::Int8 => plain("int8"),
        DataType::Int16 => plain("int16"),
        DataType::Int32 => plain("int32"),
        DataType::Int64 => plain("int64"),
        DataType::UInt8 => plain("uint8"),
        DataType::UInt16 => plain("uint16"),
        DataType::UInt32 => plain("uint32"),
        DataType::UInt64 => plain("uint64"),
        DataType::Float16 => plain("float16"),
        DataType::Float32 => plain("float32"),
        DataType::Float64 => plain("float64"),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => plain("string"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => plain("bytes"),
        DataType::FixedSizeBinary(size) => format!("{size} bytes"),
        DataType::Date32 | DataType::Date64 => plain("date"),
        DataType::Timestamp(unit, zone) => {
            let unit = match unit {
                TimeUnit::Microsecond => "timestamp".to_string(),
                unit => format!("timestamp in {}", unit_name(*unit)),
            };
            match zone {
                Some(zone) => format!("{unit} with the zone {zone}"),
                None => unit,
            }
        }
        DataType::Time32(unit) | DataType::Time64(unit) => format!("time of day in {}", unit_name(*unit)),
        DataType::Duration(unit) => format!("duration in {}", unit_name(*unit)),
        DataType::Interval(IntervalUnit::YearMonth) => plain("interval of months"),
        DataType::Interval(IntervalUnit::DayTime | IntervalUnit::MonthDayNano) => plain("interval"),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => format!("list of {}", type_name(item.data_type())),
        DataType::Struct(fields) => format!("struct of {}", members(fields.iter().map(AsRef::as_ref))),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                let (key, value) = (fields[0].data_type(), fields[1].data_type());
                format!("map from {} to {}", type_name(key), type_name(value))
            }
            _ => plain("map"),
        },
        DataType::Union(fields, _) => format!("union of {}", members(fields.iter().map(|(_, field)| field.as_ref()))),
        DataType::Dictionary(_, values) => type_name(values),
        DataType::RunEndEncoded(_, values) => type_name(values.data_type()),
    }
}

fn members<'a>(fields: impl Iterator<Item = &'a Field>) -> String {
    let member = |field: &Field| format!("{} {}", field.name(), type_name(field.data_type()));
    let members: Vec<String> = fields.map(member).collect();
    format!("({})", members.join(", "))
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "seconds",
        TimeUnit::Millisecond => "milliseconds",
        TimeUnit::Microsecond => "microseconds",
        TimeUnit::Nanosecond => "nanoseconds",
    }
}

/// The names of two types that differ. Where the job language calls them the same, what they are to the engine stands
/// beside it.
pub fn type_names(one: &DataType, other: &DataType) -> (String, String) {
    match (type_name(one), type_name(other)) {
        (name, same) if name == same => (format!("{name} ({one})"), format!("{same} ({other})")),
        names => names,
    }
}

/// A message of the engine with its names of types replaced. What stands in quotes is somebody's own words.
pub fn with_type_names(message: &str) -> String {
    let mut told = String::with_capacity(message.len());
    let mut rest = message;
    let mut quote = None;
    let mut behind_word = false;
    while let Some(first) = rest.chars().next() {
        let named = match (quote, behind_word) {
            (None, false) if first.is_ascii_uppercase() => engine_type(rest),
            _ => None,
        };
        if let Some((ty, len)) = named {
            told += &type_name(&ty);
            rest = &rest[len..];
            behind_word = true;
            continue;
        }
        quote = match (quote, first) {
            // Within a word it is an apostrophe.
            (None, '\'') if !behind_word => Some('\''),
            (None, '"') => Some('"'),
            (None, '«') => Some('»'),
            (Some(end), sign) if end == sign => None,
            (quote, _) => quote,
        };
        behind_word = first.is_alphanumeric() || first == '_';
        told.push(first);
        rest = &rest[first.len_utf8()..];
    }
    told
}

/// The type whose name in the engine begins the text, and the bytes of that name. Names that are English words are
/// taken for those.
fn engine_type(text: &str) -> Option<(DataType, usize)> {
    let word = text
        .find(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_')
        .unwrap_or(text.len());
    let mut depth = 0u32;
    let closed = text[word..].char_indices().find_map(|(at, sign)| {
        match sign {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0).then_some(word + at + sign.len_utf8())
    });
    let of_parts = closed.filter(|_| text[word..].starts_with('('));
    [of_parts, Some(word)].into_iter().flatten().find_map(|end| {
        let name = &text[..end];
        let is_english = matches!(name, "Null" | "Binary" | "Map" | "List" | "Union" | "Struct");
        let ty = name.parse::<DataType>().ok().filter(|_| !is_english)?;
        Some((ty, end))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn types_have_the_names_of_the_job_language() {
        let list = |item: DataType| DataType::new_list(item, true);
        let point = DataType::Struct(
            vec![
                Field::new("x", DataType::Float64, true),
                Field::new("tags", list(DataType::Utf8View), true),
            ]
            .into(),
        );
        let coded = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        for (ty, name) in [
            (DataType::Utf8View, "string"),
            (coded, "string"),
            (DataType::UInt16, "uint16"),
            (DataType::Decimal128(12, 2), "decimal(12,2)"),
            (DataType::Boolean, "bool"),
            (DataType::Date32, "date"),
            (DataType::Timestamp(TimeUnit::Microsecond, None), "timestamp"),
            (
                DataType::Timestamp(TimeUnit::Nanosecond, Some("Europe/Berlin".into())),
                "timestamp in nanoseconds with the zone Europe/Berlin",
            ),
            (DataType::Time64(TimeUnit::Microsecond), "time of day in microseconds"),
            (DataType::FixedSizeBinary(16), "16 bytes"),
            (list(point), "list of struct of (x float64, tags list of string)"),
            (
                DataType::Map(
                    Arc::new(Field::new(
                        "entries",
                        DataType::Struct(
                            vec![
                                Field::new("key", DataType::Utf8, false),
                                Field::new("value", DataType::Int64, true),
                            ]
                            .into(),
                        ),
                        false,
                    )),
                    false,
                ),
                "map from string to int64",
            ),
        ] {
            assert_eq!(type_name(&ty), name);
        }
        let (one, other) = type_names(&DataType::Utf8, &DataType::LargeUtf8);
        assert_eq!((one.as_str(), other.as_str()), ("string (Utf8)", "string (LargeUtf8)"));
    }

    #[test]
    fn messages_of_the_engine_get_these_names() {
        for (message, told) in [
            (
                "Cannot coerce arithmetic expression Int64 + Decimal128(12, 2) to valid types",
                "Cannot coerce arithmetic expression int64 + decimal(12,2) to valid types",
            ),
            (
                "f(Timestamp(µs, \"UTC\"), Utf8View)",
                "f(timestamp with the zone UTC, string)",
            ),
            (
                "Cannot cast string 'Int64' to value of Int32 type",
                "Cannot cast string 'Int64' to value of int32 type",
            ),
            ("the function doesn't take Boolean", "the function doesn't take bool"),
            (
                "Null values of MyInt64 and «Utf8» are List elements",
                "Null values of MyInt64 and «Utf8» are List elements",
            ),
            ("open (Int8", "open (int8"),
        ] {
            assert_eq!(with_type_names(message), told);
        }
    }
}

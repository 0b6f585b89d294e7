//! Record layouts of a job file into the model. A layout is checked here as a whole, so that readers
//! and writers can rely on it: fields lie apart, tags tell the types, totals name sums that exist.

use std::collections::BTreeMap;

use super::{
    Align, ColumnType, Compression, Delimiter, Exists, FileSink, LayoutField, LineType, Packing, RecordLayout,
    RecordsSink, RecordsSource, Total,
    column::column_type,
    error::{Position, shown},
    layout::chars,
    read::{Character, Fields, Text},
};

/// What the one type of line is called that needs no tag.
const ONLY_LINE: &str = "line";

/// The column with the type of a line, where the job file names none.
const TYPE_COLUMN: &str = "line_type";

/// Of one line: more are made by a program that should make several layouts.
const MAX_FIELDS: usize = 10_000;

pub(super) fn records_source(fields: &Fields, paths: Option<Vec<String>>) -> Option<RecordsSource> {
    let layout = layout(fields);
    Some(RecordsSource {
        paths: paths?,
        layout: layout?,
        places: None,
    })
}

/// What header and trailer of a sink hold has to come from somewhere.
pub(super) fn records_sink(fields: &Fields, path: Option<&Text>) -> Option<RecordsSink> {
    let layout = layout(fields);
    let exists = fields.word("exists").unwrap_or(Exists::Fail);
    let files = fields.integer("files");
    let crlf = ends_with_crlf(fields)?;
    let layout = layout?;
    for (key, edge) in [("header", &layout.header), ("trailer", &layout.trailer)] {
        let Some(edge) = edge else { continue };
        if edge.tag.is_none() && edge.fields.is_empty() {
            let found = format!("a {key} without `tag` and `fields`, which would be an empty line");
            fields.cx.faults.add(fields.key_at(key), found, "what stands in it");
        }
        for field in &edge.fields {
            if let (Some(name), None, None) = (&field.name, &field.value, &field.total) {
                let found = format!("field `{}` of the {key} has no value", shown(name));
                fields.cx.faults.add(fields.key_at(key), found, "value, count or sum");
            }
        }
    }
    let has_edges = layout.edges().next().is_some();
    Some(RecordsSink {
        file: FileSink {
            path: path?.value.clone(),
            exists,
            compression: Compression::None,
            // Whoever writes header and trailer knows the whole file.
            files: files.or(has_edges.then_some(1)),
            partition_by: Vec::new(),
            split: None,
            partition_column: None,
            header: false,
            delimiter: Delimiter::COMMA,
            null: String::new(),
            encoding: Default::default(),
            crlf: false,
        },
        layout,
        crlf,
    })
}

/// `None`: wrong, or open until parameters are bound.
pub(super) fn ends_with_crlf(fields: &Fields) -> Option<bool> {
    match fields.has("line_end") {
        true => Some(fields.word::<LineEnd>("line_end")? == LineEnd::Crlf),
        false => Some(false),
    }
}

#[derive(PartialEq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum LineEnd {
    Lf,
    Crlf,
}

/// `None`: wrong, or open until parameters are bound.
pub(super) fn layout(fields: &Fields) -> Option<RecordLayout> {
    let delimiter = match fields.has("delimiter") {
        true => Some(match fields.character("delimiter")? {
            Character::Word => b'\t',
            Character::Byte(byte) => byte,
        }),
        false => None,
    };
    let multiline = fields.boolean("multiline").unwrap_or(false);
    let one = fields.has("fields");
    let lines: Vec<Option<LineType>> = match one {
        true => vec![only_line(fields, delimiter)],
        false => {
            let lines = fields.list("lines").unwrap_or_default();
            let many = lines.len() > 1;
            lines
                .iter()
                .map(|line| line_type(line, delimiter, multiline, many))
                .collect()
        }
    };
    let header = edge(fields, "header", delimiter);
    let trailer = edge(fields, "trailer", delimiter);
    let comment = match fields.section.key("comment").is_some() && fields.has("comment") {
        true => Some(fields.text("comment")?.value),
        false => None,
    };
    if comment.as_deref() == Some("") {
        let allowed = "the text that such lines begin with";
        fields
            .cx
            .faults
            .add(fields.key_at("comment"), "`comment` is empty", allowed);
    }
    let lines: Option<Vec<LineType>> = lines.into_iter().collect();
    let lines = lines.filter(|lines| !lines.is_empty())?;
    let typed = lines.len() > 1 && !multiline;
    if fields.has("type_column") && !typed {
        fields.cx.faults.add(
            fields.key_at("type_column"),
            "`type_column` where the lines are not records of several types",
            "`type_column` beside several `lines` without `multiline`",
        );
    }
    let type_column = match typed {
        true if fields.has("type_column") => Some(fields.text("type_column")?.value),
        true => Some(TYPE_COLUMN.to_string()),
        false => None,
    };
    let layout = RecordLayout {
        delimiter,
        lines,
        multiline,
        type_column,
        header: header?,
        trailer: trailer?,
        comment,
        packing: Packing {
            compression: fields.word("compression").unwrap_or(Compression::Auto),
            encoding: fields.word("encoding").unwrap_or_default(),
        },
    };
    check_tags(fields, &layout);
    check_group(fields, &layout);
    check_columns(fields, &layout);
    check_totals(fields, &layout);
    Some(layout)
}

fn only_line(fields: &Fields, delimiter: Option<u8>) -> Option<LineType> {
    if fields.boolean("multiline") == Some(true) {
        fields.cx.faults.add(
            fields.key_at("multiline"),
            format!("`multiline` beside `fields` in {}", fields.section.name),
            "`lines`, the types of lines that make a record",
        );
    }
    let line = LineType {
        name: ONLY_LINE.to_string(),
        tag: None,
        tag_at: 0,
        fields: fields_of(fields, 0, delimiter)?,
        optional: false,
        repeats: false,
        present: None,
    };
    check_overlap(fields, &line, delimiter);
    Some(line)
}

/// A tag, and the place of its first character from 0.
fn tag(line: &Fields, delimiter: Option<u8>) -> Option<(Option<String>, u32)> {
    let faults = line.cx.faults;
    let tag = match line.has("tag") {
        true => Some(line.text("tag")?),
        false => None,
    };
    if let Some(tag) = &tag
        && (tag.value.is_empty() || tag.value.chars().any(char::is_control))
    {
        faults.add(
            tag.at,
            format!("`tag` is \"{}\"", shown(&tag.value)),
            "text of at least one character, without control characters",
        );
        return None;
    }
    if let (Some(tag), Some(delimiter)) = (&tag, delimiter)
        && tag.value.as_bytes().contains(&delimiter)
    {
        let found = format!("the tag \"{}\" holds the delimiter", shown(&tag.value));
        faults.add(tag.at, found, "a tag that is one field");
        return None;
    }
    let at = match line.has("tag_at") {
        true if delimiter.is_some() => {
            let allowed = "no `tag_at`: the tag of a delimited line is its first field";
            faults.add(line.key_at("tag_at"), "`tag_at` beside `delimiter`", allowed);
            return None;
        }
        true if tag.is_none() => {
            faults.add(line.key_at("tag_at"), "`tag_at` without `tag`", "both, or none");
            return None;
        }
        true => line.integer::<u32>("tag_at")? - 1,
        false => 0,
    };
    Some((tag.map(|tag| tag.value), at))
}

fn line_type(line: &Fields, delimiter: Option<u8>, multiline: bool, many: bool) -> Option<LineType> {
    let faults = line.cx.faults;
    let tag = tag(line, delimiter);
    let name = match line.has("name") {
        true => Some(line.text("name")?.value),
        false => None,
    };
    for key in ["optional", "repeats", "present"] {
        if line.has(key) && !multiline {
            let found = format!("`{key}` of a line that is a record of its own");
            faults.add(line.key_at(key), found, "`multiline: true` beside `lines`");
        }
    }
    let optional = line.boolean("optional").unwrap_or(false);
    let repeats = line.boolean("repeats").unwrap_or(false);
    let present = match line.has("present") {
        true => Some(column_name(&line.text("present")?, line)?),
        false => None,
    };
    if present.is_some() && (!optional || repeats) {
        faults.add(
            line.key_at("present"),
            "`present` of a line that does not come once or not at all",
            "`present` beside `optional: true` alone",
        );
    }
    let start = match &tag {
        Some((Some(tag), 0)) if delimiter.is_none() => chars(tag),
        _ => 0,
    };
    let fields = fields_of(line, start, delimiter);
    let (tag, tag_at) = tag?;
    if tag.is_none() && many {
        let allowed = "the text by which the line tells its type";
        faults.add(line.node.at, "a line without `tag` beside others", allowed);
    }
    let name = name.or(tag.clone()).unwrap_or_else(|| ONLY_LINE.to_string());
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        let found = format!("a line with the name \"{}\"", shown(&name));
        faults.add(line.node.at, found, "a name without control characters");
    }
    let line_type = LineType {
        name,
        tag,
        tag_at,
        fields: fields?,
        optional,
        repeats,
        present,
    };
    check_overlap(line, &line_type, delimiter);
    Some(line_type)
}

/// `Some(None)`: there is none.
fn edge(fields: &Fields, key: &'static str, delimiter: Option<u8>) -> Option<Option<LineType>> {
    if !fields.has(key) {
        return Some(None);
    }
    let line = fields.section(key)?;
    let tag = tag(&line, delimiter);
    let start = match &tag {
        Some((Some(tag), 0)) if delimiter.is_none() => chars(tag),
        _ => 0,
    };
    let of = match line.has("fields") {
        true => fields_of(&line, start, delimiter),
        false => Some(Vec::new()),
    };
    let (tag, tag_at) = tag?;
    let edge = LineType {
        name: key.to_string(),
        tag,
        tag_at,
        fields: of?,
        optional: false,
        repeats: false,
        present: None,
    };
    check_overlap(&line, &edge, delimiter);
    Some(Some(edge))
}

fn fields_of(line: &Fields, start: u32, delimiter: Option<u8>) -> Option<Vec<LayoutField>> {
    let items = line.list("fields")?;
    if items.len() > MAX_FIELDS {
        let found = format!("{} fields in a line", items.len());
        line.cx
            .faults
            .add(line.key_at("fields"), found, format!("at most {MAX_FIELDS}"));
        return None;
    }
    let mut at = start;
    let mut read = Vec::with_capacity(items.len());
    for item in &items {
        let field = field(item, at, delimiter);
        if let Some(field) = &field {
            at = field.at + field.width;
        }
        read.push(field);
    }
    read.into_iter().collect()
}

fn column_name(name: &Text, fields: &Fields) -> Option<String> {
    if name.value.trim().is_empty() || name.value.chars().any(char::is_control) {
        let found = format!("a column with the name \"{}\"", shown(&name.value));
        fields
            .cx
            .faults
            .add(name.at, found, "a name without control characters");
        return None;
    }
    Some(name.value.clone())
}

fn field(field: &Fields, next: u32, delimiter: Option<u8>) -> Option<LayoutField> {
    let faults = field.cx.faults;
    let name = match field.has("name") {
        true => Some(column_name(&field.text("name")?, field)?),
        false => None,
    };
    let of = name
        .as_ref()
        .map_or("a field".to_string(), |name| format!("field `{}`", shown(name)));
    let ty = match field.node("type") {
        Some(node) => column_type(field, &of, node)?,
        None => ColumnType::String,
    };
    let value = match field.has("value") {
        true => Some(field.text("value")?),
        false => None,
    };
    let (at, width) = match delimiter {
        Some(delimiter) => {
            for key in ["at", "width", "align", "pad"] {
                if field.has(key) {
                    let found = format!("`{key}` of {of} beside `delimiter`");
                    faults.add(field.key_at(key), found, "fields in the order of the line");
                }
            }
            if let Some(value) = &value
                && value.value.as_bytes().contains(&delimiter)
            {
                let found = format!("the value of {of} holds the delimiter");
                faults.add(value.at, found, "a value that is one field");
            }
            (0, 0)
        }
        None => {
            let at = match field.has("at") {
                true => field.integer::<u32>("at")? - 1,
                false => next,
            };
            let width = match (&value, field.has("width")) {
                (Some(value), false) if !value.open => chars(&value.value).max(1),
                (_, true) => field.integer::<u32>("width")?,
                _ => {
                    faults.add(
                        field.node.at,
                        format!("{of} without `width`"),
                        "how many characters it has",
                    );
                    return None;
                }
            };
            (at, width)
        }
    };
    let align = match field.has("align") {
        true => field.word("align")?,
        false if ty.is_number() => Align::Right,
        false => Align::Left,
    };
    let pad = match field.has("pad") {
        true => match field.character("pad")? {
            Character::Word => b'0',
            Character::Byte(byte) => byte,
        },
        false => b' ',
    };
    let implied_point = match field.has("point") {
        true => field.word::<Point>("point")? == Point::Implied,
        false => false,
    };
    if implied_point && !matches!(ty, ColumnType::Decimal { .. }) {
        let found = format!("`point: implied` of {of}, which is no decimal");
        faults.add(field.key_at("point"), found, "the type decimal(p,s)");
    }
    let is_edge = field.section.key("count").is_some();
    let total = match is_edge {
        true if field.has("count") => Some(match field.word::<Counted>("count")? {
            Counted::Records => Total::Records,
            Counted::Lines => Total::Lines,
        }),
        true if field.has("sum") => Some(Total::Sum(field.text("sum")?.value)),
        _ => None,
    };
    check_value(
        field,
        &of,
        &name,
        value.as_ref(),
        ty,
        delimiter.is_none().then_some(width),
    );
    check_total(field, &of, total.as_ref(), ty);
    Some(LayoutField {
        name,
        at,
        width,
        ty,
        align,
        pad,
        implied_point,
        value: value.map(|value| value.value),
        total,
    })
}

#[derive(PartialEq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Point {
    Written,
    Implied,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Counted {
    Records,
    Lines,
}

fn check_value(
    field: &Fields,
    of: &str,
    name: &Option<String>,
    value: Option<&Text>,
    ty: ColumnType,
    width: Option<u32>,
) {
    let Some(value) = value else { return };
    let faults = field.cx.faults;
    let is_edge = field.section.key("count").is_some();
    if name.is_some() && !is_edge {
        let found = format!("`value` of {of}, which is a column");
        faults.add(field.key_at("value"), found, "`name` or `value`");
    }
    if ty != ColumnType::String {
        let found = format!("`value` of {of}, which has a type");
        faults.add(field.key_at("value"), found, "`value` without `type`");
    }
    if value.value.chars().any(char::is_control) {
        let found = format!("the value of {of} holds a control character");
        faults.add(value.at, found, "text of one line");
    }
    if let Some(width) = width
        && !value.open
        && chars(&value.value) > width
    {
        let found = format!(
            "the value of {of} has {} characters, its width is {width}",
            chars(&value.value)
        );
        faults.add(value.at, found, "a width that holds it");
    }
}

fn check_total(field: &Fields, of: &str, total: Option<&Total>, ty: ColumnType) {
    let faults = field.cx.faults;
    match total {
        Some(Total::Records | Total::Lines) if !ty.is_exact_number() => {
            let found = format!("`count` of {of}, which is no whole number");
            faults.add(field.key_at("count"), found, "a type such as int64");
        }
        Some(Total::Sum(_)) if !ty.is_exact_number() => {
            let found = format!("`sum` of {of}, which is no exact number");
            faults.add(field.key_at("sum"), found, "a type such as int64 or decimal(12,2)");
        }
        _ => {}
    }
}

fn check_overlap(fields: &Fields, line: &LineType, delimiter: Option<u8>) {
    if delimiter.is_some() {
        return;
    }
    let name = |field: &LayoutField| match &field.name {
        Some(name) => format!("field `{}`", shown(name)),
        None => "a field".to_string(),
    };
    let tag = line
        .tag
        .as_ref()
        .map(|tag| (line.tag_at, line.tag_at + chars(tag), "the tag".to_string()));
    let mut places: Vec<(u32, u32, String)> = line
        .fields
        .iter()
        .map(|field| (field.at, field.at + field.width, name(field)))
        .chain(tag)
        .collect();
    places.sort_by_key(|(at, ..)| *at);
    for pair in places.windows(2) {
        let ((_, end, before), (at, _, behind)) = (&pair[0], &pair[1]);
        if at < end {
            let found = format!("{behind} begins at {}, within {before}, which ends at {end}", at + 1);
            fields.cx.faults.add(fields.node.at, found, "fields that lie apart");
        }
    }
}

/// Each tag tells one type.
fn check_tags(fields: &Fields, layout: &RecordLayout) {
    for (number, line) in layout.lines.iter().enumerate() {
        for other in &layout.lines[..number] {
            let same_name = line.name == other.name;
            let clash = match (&line.tag, &other.tag) {
                (Some(tag), Some(before)) if layout.delimiter.is_some() => tag == before,
                (Some(tag), Some(before)) => {
                    line.tag_at == other.tag_at
                        && (tag.starts_with(before.as_str()) || before.starts_with(tag.as_str()))
                }
                _ => false,
            };
            if clash || same_name {
                let what = if clash { "tag" } else { "name" };
                let found = format!(
                    "the {what}s of two lines are not distinct: `{}` and `{}`",
                    shown(other.tag.as_ref().filter(|_| clash).unwrap_or(&other.name)),
                    shown(line.tag.as_ref().filter(|_| clash).unwrap_or(&line.name))
                );
                let allowed = format!("{what}s that tell one line from another");
                fields.cx.faults.add(fields.key_at("lines"), found, allowed);
            }
        }
    }
}

fn check_group(fields: &Fields, layout: &RecordLayout) {
    if !layout.multiline {
        return;
    }
    let first = &layout.lines[0];
    if first.tag.is_none() || first.optional || first.repeats {
        fields.cx.faults.add(
            fields.key_at("lines"),
            format!(
                "the line `{}`, which begins a record, is optional, repeats or has no tag",
                shown(&first.name)
            ),
            "a first line with a tag, once in each record",
        );
    }
}

/// Columns have one name and one type each.
fn check_columns(fields: &Fields, layout: &RecordLayout) {
    let at = match fields.has("fields") {
        true => fields.key_at("fields"),
        false => fields.key_at("lines"),
    };
    let mut known: BTreeMap<&str, ColumnType> = BTreeMap::new();
    let mut faults = Vec::new();
    if let Some(name) = &layout.type_column {
        known.insert(name, ColumnType::Bool);
    }
    for line in &layout.lines {
        let mut own: BTreeMap<&str, ()> = BTreeMap::new();
        let list = line.repeats && layout.multiline;
        let named = line
            .fields
            .iter()
            .filter_map(|field| Some((field.name.as_deref()?, field.ty)));
        for (name, ty) in named {
            let twice = own.insert(name, ()).is_some();
            let other = match list {
                true => None,
                false => known.insert(name, ty),
            };
            // Lines that are records of their own share columns of one type.
            let shared = !layout.multiline && other == Some(ty) && layout.type_column.as_deref() != Some(name);
            if twice || other.is_some() && !shared {
                faults.push(name);
            }
        }
        let extra = list.then_some(&line.name).into_iter().chain(&line.present);
        for name in extra {
            if known.insert(name, ColumnType::Bool).is_some() {
                faults.push(name);
            }
        }
    }
    for name in faults {
        let found = format!("column `{}` stands twice in the layout, or with two types", shown(name));
        fields.cx.faults.add(at, found, "each column once");
    }
    if known.is_empty() {
        fields
            .cx
            .faults
            .add(at, "a layout without a column", "at least one field with a `name`");
    }
}

fn check_totals(fields: &Fields, layout: &RecordLayout) {
    for (key, edge) in [("header", &layout.header), ("trailer", &layout.trailer)] {
        let at: Position = fields.key_at(key);
        for total in edge
            .iter()
            .flat_map(|edge| &edge.fields)
            .filter_map(|field| field.total.as_ref())
        {
            let Total::Sum(of) = total else { continue };
            let mut exact = layout
                .summed(of)
                .map(|(line, field)| layout.lines[line].fields[field].ty.is_exact_number())
                .peekable();
            let known = layout.lines.iter().flat_map(|line| {
                let list = line.repeats && layout.multiline;
                line.fields.iter().filter_map(move |field| {
                    let name = field.name.as_deref()?;
                    field.ty.is_exact_number().then(|| match list {
                        true => format!("{}.{name}", line.name),
                        false => name.to_string(),
                    })
                })
            });
            if exact.peek().is_none() || exact.any(|exact| !exact) {
                let known: Vec<String> = known.collect();
                let found = format!("`sum: {}` in {key} names no column of exact numbers", shown(of));
                fields
                    .cx
                    .faults
                    .unknown(at, found, of, known.iter().map(String::as_str));
            }
        }
    }
}

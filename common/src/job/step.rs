//! One step of a job file into the model.

use std::collections::{BTreeMap, BTreeSet};

use crate::{labels::Labels, order::SortColumn};

use super::{
    AvroSource, Check, Command, CommandFormat, CommandMode, Compression, Count, CsvSource, Delimiter, Dialect, Exists,
    FileSink, IfUnchanged, Lookup, MergeSource, MissingColumns, NdjsonSource, OnError, ParquetSource, Partition,
    Partitioning, ReportSink, Sink, Source, Split, SplitBy, Step, WrittenRange,
    column::columns,
    error::{Position, shown},
    keys::MAX_INPUTS,
    read::{Character, Fields, Item, Number, Text},
    records::{ends_with_crlf, records_sink, records_source},
};

/// A rule's name goes with every record that it rejects.
const MAX_CHECK_NAME_BYTES: usize = 200;

/// What one run of a program may take and write, where the job does not say.
const COMMAND_SECONDS: u32 = 3600;
const COMMAND_MIB: u32 = 4096;

/// A step as far as it could be read, with the places that checks across steps speak of.
pub(super) struct ReadStep {
    /// `None` where something was wrong, or is open until parameters are bound.
    pub step: Option<Step>,
    pub at: Position,
    pub name: Option<Text>,
    pub after: Vec<Text>,
    /// The steps that this one reads: its source, or inputs of it.
    pub reads: Vec<Text>,
    /// The steps that its look-ups read.
    pub looks_up: Vec<Text>,
    /// Paths that this step reads, look-ups included.
    pub inputs: Vec<Text>,
    pub output: Option<Text>,
    /// Columns that the partitioning names.
    pub key_columns: Vec<Text>,
    /// Where the method of partitioning stands.
    pub method_at: Position,
    /// Where it says that it may be skipped.
    pub skips: Option<Position>,
}

pub(super) fn step(fields: &Fields) -> ReadStep {
    let name = fields.name("name");
    let mut after = fields.names("after");
    let mut inputs = Vec::new();
    let source_fields = fields.section("source");
    let mut reads = Vec::new();
    let source = source_fields.and_then(|fields| source(&fields, &mut reads, &mut inputs));
    let mut looks_up = Vec::new();
    let lookups = lookups(fields, &mut inputs, &mut looks_up);
    let (sink, output) = sink(fields);
    let mut key_columns = Vec::new();
    let partition = partitioning(fields, &mut key_columns);
    let placement = placement(fields);
    let checks = checks(fields);
    let (sql, command) = transform(fields);
    let mut sort = order(fields, "sort");
    // A merge of sorted inputs gives sorted output.
    let (ordering, ordering_at) = match &source {
        Some(Source::Merge(merge)) if !merge.by.is_empty() => {
            if fields.has("sort") {
                let found = "`sort` beside `by` of a merge, which orders the output";
                fields.cx.faults.add(fields.key_at("sort"), found, "one of them");
            }
            sort = Some(merge.by.clone());
            (Some("`by` of a merge"), fields.key_at("source"))
        }
        _ => (fields.has("sort").then_some("`sort`"), fields.key_at("sort")),
    };
    if let Some(ordering) = ordering
        && matches!(command, Some(Some(_)))
    {
        fields.cx.faults.add(
            ordering_at,
            format!("{ordering} beside `transform.command`"),
            "a step of its own that reads this one and sorts",
        );
    }
    let on_error = on_error(fields);
    let if_unchanged = match fields.has("if_unchanged") {
        true => fields.word("if_unchanged"),
        false => Some(IfUnchanged::default()),
    };
    let skips = (if_unchanged == Some(IfUnchanged::Skip)).then(|| fields.key_at("if_unchanged"));
    if let Some(at) = skips
        && (!reads.is_empty() || !looks_up.is_empty())
    {
        fields.cx.faults.add(
            at,
            "`if_unchanged: skip` of a step that reads another, whose output is of this run",
            "it on steps that read files",
        );
    }
    let method_at = fields.node("partition").map_or(fields.node.at, |node| node.at);
    if let Some(ordering) = ordering
        && let Some(Partitioning { method, .. }) = &partition
        && *method != Partition::Auto
    {
        fields.cx.faults.add(
            method_at,
            format!("a method of `partition` beside {ordering}, which cuts by ranges of its first column"),
            "`partition: {count: N}`, or none",
        );
    }

    // A step that is read goes first, whether `after` says so or not.
    for step in reads.iter().chain(&looks_up) {
        if after.iter().all(|name| name.value != step.value) {
            after.push(step.clone());
        }
    }
    let step = (|| {
        Some(Step {
            name: name.clone()?.value,
            after: after.iter().map(|name| name.value.clone()).collect(),
            source: source?,
            lookups,
            partition: partition?,
            placement: placement?,
            checks,
            sql: sql?,
            command: command?,
            sort: sort?,
            sink: sink?,
            on_error,
            if_unchanged: if_unchanged?,
        })
    })();
    ReadStep {
        step,
        at: fields.node.at,
        name,
        after,
        reads,
        looks_up,
        inputs,
        output,
        key_columns,
        method_at,
        skips,
    }
}

fn source(fields: &Fields, reads: &mut Vec<Text>, inputs: &mut Vec<Text>) -> Option<Source> {
    if fields.has("sequence") {
        return sequence_source(&fields.section("sequence")?);
    }
    if fields.has("merge") {
        let merge = merge_source(&fields.section("merge")?, reads, inputs);
        return merge.map(|merge| Source::Merge(Box::new(merge)));
    }
    input(fields, reads, inputs)
}

fn merge_source(fields: &Fields, reads: &mut Vec<Text>, inputs: &mut Vec<Text>) -> Option<MergeSource> {
    let items = fields.list("inputs");
    if let Some(too_many) = items.as_ref().and_then(|items| items.get(MAX_INPUTS)) {
        let found = format!("{} inputs of a merge", items.iter().flatten().count());
        let allowed = format!("at most {MAX_INPUTS}; files of one kind are one input, by a glob");
        fields.cx.faults.add(too_many.node.at, found, allowed);
        return None;
    }
    let from = reads.len();
    let merged = items.and_then(|items| all(items.iter().map(|item| input(item, reads, inputs))));
    for (at, step) in reads.iter().enumerate().skip(from) {
        if reads[from..at].iter().any(|other| other.value == step.value) {
            let found = format!("step `{}` stands twice in `inputs`", shown(&step.value));
            fields.cx.faults.add(step.at, found, "each step once");
        }
    }
    let missing_columns = match fields.has("missing_columns") {
        true => fields.word("missing_columns"),
        false => Some(MissingColumns::default()),
    };
    let by = order(fields, "by");
    let unique = match fields.has("unique") {
        true => column_names(fields, "unique").map(values),
        false => Some(Vec::new()),
    };
    Some(MergeSource {
        inputs: merged?,
        missing_columns: missing_columns?,
        by: by?,
        unique: unique?,
        read_columns: None,
    })
}

/// A source of one format: a whole one, or an input of a merge.
fn input(fields: &Fields, reads: &mut Vec<Text>, inputs: &mut Vec<Text>) -> Option<Source> {
    if let Some(csv) = fields.section("csv") {
        return csv_source(&csv, inputs).map(Source::Csv);
    }
    if let Some(ndjson) = fields.section("ndjson") {
        return ndjson_source(&ndjson, inputs).map(Source::Ndjson);
    }
    if let Some(parquet) = fields.section("parquet") {
        return parquet_source(&parquet, inputs).map(Source::Parquet);
    }
    if let Some(avro) = fields.section("avro") {
        return avro_source(&avro, inputs).map(Source::Avro);
    }
    if let Some(records) = fields.section("records") {
        let paths = paths(&records, inputs);
        return records_source(&records, paths).map(|source| Source::Records(Box::new(source)));
    }
    let step = fields.name("step")?;
    let source = Source::Step(step.value.clone());
    reads.push(step);
    Some(source)
}

fn paths(fields: &Fields, inputs: &mut Vec<Text>) -> Option<Vec<String>> {
    let paths = fields.texts("path")?;
    inputs.extend(paths.iter().cloned());
    Some(values(paths))
}

fn values(texts: Vec<Text>) -> Vec<String> {
    texts.into_iter().map(|text| text.value).collect()
}

fn csv_source(fields: &Fields, inputs: &mut Vec<Text>) -> Option<CsvSource> {
    let faults = fields.cx.faults;
    let paths = paths(fields, inputs);
    let columns = columns(fields);
    let header = fields.boolean("header").unwrap_or(true);
    if !header && !fields.has("columns") {
        faults.add(
            fields.key_at("header"),
            "`header: false` without `columns` in csv source",
            "columns, in the order of the file",
        );
    }
    let delimiter = fields.delimiter("delimiter");
    let quote = fields.character("quote");
    // A placeholder is no reason to compare with the default.
    let known = (delimiter.is_some() || !fields.has("delimiter")) && (quote.is_some() || !fields.has("quote"));
    let delimiter = delimiter.unwrap_or(Delimiter::COMMA);
    let quote = match quote {
        None => Some(b'"'),
        Some(Character::Word) => None,
        Some(Character::Byte(byte)) => Some(byte),
    };
    if let Some(quote) = quote
        && known
    {
        let key = if fields.has("quote") { "quote" } else { "delimiter" };
        check_apart(fields, key, delimiter, quote, "quote");
    }
    let nulls = match fields.has("nulls") {
        true => fields.texts("nulls").map(values),
        false => Some(vec![String::new()]),
    };
    let compression = fields.word("compression").unwrap_or(Compression::Auto);
    let dialect = dialect(fields, delimiter, quote, known);
    Some(CsvSource {
        paths: paths?,
        columns,
        header,
        delimiter,
        quote,
        nulls: nulls?,
        compression,
        dialect,
        places: None,
    })
}

/// Another sign of the format is no part of the delimiter.
fn check_apart(fields: &Fields, key: &str, delimiter: Delimiter, sign: u8, name: &str) {
    let section = fields.section.name;
    let found = match delimiter.byte() {
        Some(byte) if byte == sign => format!("`{delimiter}` is both delimiter and {name} in {section}"),
        None if delimiter.as_bytes().contains(&sign) => {
            let sign = char::from(sign);
            format!("the delimiter `{delimiter}` holds the {name} `{sign}` in {section}")
        }
        _ => return,
    };
    fields
        .cx
        .faults
        .add(fields.key_at(key), found, "two different characters");
}

/// `known`: neither delimiter nor quote is open until parameters are bound.
fn dialect(fields: &Fields, delimiter: Delimiter, quote: Option<u8>, known: bool) -> Dialect {
    let faults = fields.cx.faults;
    let sign = |name: &str, others: &[(&str, Option<u8>)]| {
        let Some(Character::Byte(byte)) = fields.character(name) else {
            return None;
        };
        if known {
            check_apart(fields, name, delimiter, byte, name);
        }
        if let Some((other, _)) = others.iter().find(|(_, other)| known && *other == Some(byte)) {
            let found = format!("`{}` is both {other} and {name} in csv source", char::from(byte));
            faults.add(fields.key_at(name), found, "two different characters");
        }
        Some(byte)
    };
    // A quote that escapes quotes is one that is doubled.
    let escape = sign("escape", &[]).filter(|escape| Some(*escape) != quote);
    let comment = sign("comment", &[("quote", quote), ("escape", escape)]);
    let multiline = fields.boolean("multiline").unwrap_or_default();
    if multiline && quote.is_none() && escape.is_none() && !fields.has("escape") {
        faults.add(
            fields.key_at("multiline"),
            "`multiline` with `quote: none` and no `escape`, so that no field can hold a line end",
            "multiline beside a quote or an escape",
        );
    }
    Dialect {
        escape,
        multiline,
        newline: fields.word("newline").unwrap_or_default(),
        encoding: fields.word("encoding").unwrap_or_default(),
        comment,
        skip_lines: fields.integer("skip_lines").unwrap_or_default(),
    }
}

fn ndjson_source(fields: &Fields, inputs: &mut Vec<Text>) -> Option<NdjsonSource> {
    let paths = paths(fields, inputs);
    let columns = columns(fields);
    let required = match fields.has("required") {
        true => column_names(fields, "required"),
        false => Some(Vec::new()),
    };
    for name in required.iter().flatten() {
        if !columns.is_empty() && !name.open && columns.iter().all(|(column, _)| *column != name.value) {
            let found = format!("unknown column `{}` in `required`", shown(&name.value));
            let names = columns.iter().map(|(column, _)| column.as_str());
            fields.cx.faults.unknown(name.at, found, &name.value, names);
        }
    }
    Some(NdjsonSource {
        paths: paths?,
        columns,
        required: values(required?),
        compression: fields.word("compression").unwrap_or(Compression::Auto),
        closed: false,
        places: None,
    })
}

fn parquet_source(fields: &Fields, inputs: &mut Vec<Text>) -> Option<ParquetSource> {
    Some(ParquetSource {
        paths: paths(fields, inputs)?,
        places: None,
    })
}

fn avro_source(fields: &Fields, inputs: &mut Vec<Text>) -> Option<AvroSource> {
    Some(AvroSource {
        paths: paths(fields, inputs)?,
    })
}

fn sequence_source(fields: &Fields) -> Option<Source> {
    let (from, to) = (fields.integer("from"), fields.integer("to"));
    let (from, to): (i64, i64) = (from?, to?);
    if from > to {
        fields.cx.faults.add(
            fields.key_at("to"),
            format!("`to` in sequence is {to}, below `from`, which is {from}"),
            "`to` at or above `from`",
        );
        return None;
    }
    Some(Source::Sequence { from, to })
}

fn lookups(fields: &Fields, inputs: &mut Vec<Text>, looks_up: &mut Vec<Text>) -> BTreeMap<String, Lookup> {
    let mut lookups = BTreeMap::new();
    if !fields.has("lookups") {
        return lookups;
    }
    for (entry, lookup) in fields.map("lookups") {
        if entry.key.eq_ignore_ascii_case("input") {
            fields.cx.faults.add(
                entry.key_at,
                "a look-up with the name `input`, which is the step's own source",
                "another name",
            );
        }
        let csv = lookup.section("csv").and_then(|csv| csv_source(&csv, inputs));
        let parquet = lookup
            .section("parquet")
            .and_then(|parquet| parquet_source(&parquet, inputs));
        let ndjson = lookup
            .section("ndjson")
            .and_then(|ndjson| ndjson_source(&ndjson, inputs));
        let avro = lookup.section("avro").and_then(|avro| avro_source(&avro, inputs));
        let records = lookup.section("records").and_then(|records| {
            let paths = paths(&records, inputs);
            records_source(&records, paths)
        });
        let step = lookup.name("step").map(|step| {
            looks_up.push(step.clone());
            Lookup::Step(step.value)
        });
        let found = csv
            .map(Lookup::Csv)
            .or(ndjson.map(Lookup::Ndjson))
            .or(parquet.map(Lookup::Parquet))
            .or(avro.map(Lookup::Avro))
            .or(records.map(|records| Lookup::Records(Box::new(records))))
            .or(step);
        if let Some(lookup) = found {
            lookups.insert(entry.key.clone(), lookup);
        }
    }
    lookups
}

/// `None`: wrong, or open until parameters are bound.
fn partitioning(fields: &Fields, keys: &mut Vec<Text>) -> Option<Partitioning> {
    let (method, count) = (Partition::Auto, Count::Auto);
    if !fields.has("partition") {
        return Some(Partitioning { method, count });
    }
    if let Some(word) = fields.section_word("partition") {
        let method = match word.value.as_str() {
            "auto" => Partition::Auto,
            "bytes" => Partition::Bytes,
            "files" => Partition::Files,
            "row_groups" => Partition::RowGroups,
            _ => return None,
        };
        return Some(Partitioning { method, count });
    }
    let fields = fields.section("partition")?;
    let count = match fields.integer_or("count") {
        None if fields.has("count") => None,
        None | Some(Number::Word) => Some(Count::Auto),
        Some(Number::Value(count)) => Some(Count::Fixed(count)),
    };
    let method = if fields.has("key_range") {
        fields.section("key_range").and_then(|fields| key_range(&fields, keys))
    } else if fields.has("hash") {
        fields.section("hash").and_then(|fields| hash(&fields, keys))
    } else if fields.empty("bytes").is_some() {
        Some(Partition::Bytes)
    } else if fields.empty("files").is_some() {
        Some(Partition::Files)
    } else if fields.empty("row_groups").is_some() {
        Some(Partition::RowGroups)
    } else {
        Some(Partition::Auto)
    };
    if matches!(count, Some(Count::Fixed(_))) {
        let written = fields
            .node("key_range")
            .is_some_and(|node| node.get("ranges").is_some());
        let maker = match fields.has("files") {
            true => Some("`files`, which makes one partition for each file"),
            false => written.then_some("`ranges`, which make one partition each"),
        };
        if let Some(maker) = maker {
            let found = format!("a fixed `count` beside {maker}");
            fields.cx.faults.add(fields.key_at("count"), found, "no count, or auto");
        }
    }
    Some(Partitioning {
        method: method?,
        count: count?,
    })
}

/// `None`: wrong, or open until parameters are bound.
fn placement(fields: &Fields) -> Option<Labels> {
    match fields.section("placement") {
        Some(placement) => placement.labels("labels"),
        None if fields.has("placement") => None,
        None => Some(Labels::default()),
    }
}

fn key_range(fields: &Fields, keys: &mut Vec<Text>) -> Option<Partition> {
    let column = column_name(fields, "column");
    keys.extend(column.clone());
    let ranges = match fields.has("ranges") {
        true => fields.list("ranges").and_then(|ranges| all(ranges.iter().map(range))),
        false => Some(Vec::new()),
    };
    let outside = fields.word("outside").unwrap_or_default();
    if fields.has("outside") && !fields.has("ranges") {
        fields.cx.faults.add(
            fields.key_at("outside"),
            "`outside` without `ranges` in key_range",
            "`outside` only beside `ranges`: bounds that are chosen for you leave nothing out",
        );
    }
    Some(Partition::KeyRange {
        column: column?.value,
        ranges: ranges?,
        outside,
    })
}

/// Reads to the end, so that the faults of all items are told.
fn all<T>(items: impl Iterator<Item = Option<T>>) -> Option<Vec<T>> {
    items.collect::<Vec<_>>().into_iter().collect()
}

fn range(fields: &Fields) -> Option<WrittenRange> {
    let bound = |name: &str| match fields.has(name) {
        true => fields.text(name).map(|text| Some(text.value)),
        false => Some(None),
    };
    let (from, to, through) = (bound("from"), bound("to"), bound("through"));
    let null = match fields.has("null") {
        true => fields.boolean("null"),
        false => Some(false),
    };
    let bounds = ["from", "to", "through"].iter().any(|key| fields.has(key));
    if !bounds && null == Some(false) && !fields.has_unknown() {
        let allowed = "at least one of from, to, through; or `null: true` for NULL alone";
        fields.cx.faults.add(fields.node.at, "a range without bounds", allowed);
        return None;
    }
    Some(WrittenRange {
        from: from?,
        to: to?,
        through: through?,
        null: null?,
    })
}

fn hash(fields: &Fields, keys: &mut Vec<Text>) -> Option<Partition> {
    let columns = match fields.has("columns") {
        true => column_names(fields, "columns")?,
        false => vec![column_name(fields, "column")?],
    };
    keys.extend(columns.iter().cloned());
    Some(Partition::Hash {
        columns: values(columns),
    })
}

fn column_name(fields: &Fields, key: &str) -> Option<Text> {
    let name = fields.text(key)?;
    if name.value.trim().is_empty() {
        fields
            .cx
            .faults
            .add(name.at, format!("`{key}` is empty"), "the name of a column");
        return None;
    }
    Some(name)
}

fn column_names(fields: &Fields, key: &str) -> Option<Vec<Text>> {
    let names = fields.texts(key)?;
    let mut seen = BTreeSet::new();
    for name in &names {
        if name.value.trim().is_empty() {
            let found = format!("an empty name in `{key}`");
            fields.cx.faults.add(name.at, found, "names of columns");
        }
        if !seen.insert(&name.value) {
            let found = format!("column `{}` stands twice in `{key}`", shown(&name.value));
            fields.cx.faults.add(name.at, found, "each column once");
        }
    }
    Some(names)
}

fn checks(fields: &Fields) -> Vec<Check> {
    let mut checks: Vec<Check> = Vec::new();
    let mut names = BTreeSet::new();
    for check in fields.list("check").unwrap_or_default() {
        let (name, that) = (check.text("name"), check.text("that"));
        let Some(name) = name else { continue };
        let (faults, text) = (check.cx.faults, &name.value);
        if text.trim().is_empty() || text.len() > MAX_CHECK_NAME_BYTES || text.contains(char::is_control) {
            let allowed = format!("text of at most {MAX_CHECK_NAME_BYTES} bytes, without control characters");
            faults.add(name.at, format!("a check with the name \"{}\"", shown(text)), allowed);
        }
        if !names.insert(text.clone()) {
            let found = format!("a second check with the name \"{}\" in this step", shown(text));
            faults.add(name.at, found, "each name once");
        }
        checks.extend(that.map(|that| Check {
            name: name.value,
            that: that.value,
        }));
    }
    checks
}

/// The SQL and the command, at most one of them. `None`: wrong, or open until parameters are bound.
#[allow(
    clippy::type_complexity,
    reason = "two answers of the form that readers of optional keys have"
)]
fn transform(fields: &Fields) -> (Option<Option<String>>, Option<Option<Command>>) {
    let Some(transform) = fields.section("transform") else {
        return (Some(None), Some(None));
    };
    let sql = match transform.has("sql") {
        true => transform.text("sql").map(|sql| Some(sql.value)),
        false => Some(None),
    };
    let command = match transform.has("command") {
        true => transform
            .section("command")
            .and_then(|fields| command(&fields))
            .map(Some),
        false => Some(None),
    };
    if transform.has("command") && fields.has("lookups") {
        fields.cx.faults.add(
            fields.key_at("lookups"),
            "`lookups` beside `transform.command`, which gets records alone",
            "look-ups in a step with SQL before this one",
        );
    }
    (sql, command)
}

fn command(fields: &Fields) -> Option<Command> {
    // All of it is read before anything is given up, so that all faults are told.
    let run = fields.texts("run");
    if let Some(program) = run.as_ref().and_then(|run| run.first())
        && !program.open
        && program.value.trim().is_empty()
    {
        let found = "`run` names no program";
        fields
            .cx
            .faults
            .add(program.at, found, "the name of a program, then its arguments");
    }
    let format = match fields.has("format") {
        true => fields.word("format"),
        false => Some(CommandFormat::default()),
    };
    let mode = match fields.has("mode") {
        true => fields.word("mode"),
        false => Some(CommandMode::default()),
    };
    let columns = columns(fields);
    if format == Some(CommandFormat::Ndjson) && !fields.has("columns") {
        fields.cx.faults.add(
            fields.node.at,
            "a command with `format: ndjson` and without `columns`",
            "columns: JSON does not tell the types of what the program writes",
        );
    }
    let number = |name, default| match fields.has(name) {
        true => fields.integer(name),
        false => Some(default),
    };
    let (timeout_s, output_mib) = (number("timeout_s", COMMAND_SECONDS), number("output_mib", COMMAND_MIB));
    Some(Command {
        run: values(run?),
        format: format?,
        mode: mode?,
        columns,
        timeout_s: timeout_s?,
        output_mib: output_mib?,
    })
}

/// `None`: wrong, or open until parameters are bound.
fn order(fields: &Fields, key: &str) -> Option<Vec<SortColumn>> {
    if !fields.has(key) {
        return Some(Vec::new());
    }
    let mut names = BTreeSet::new();
    let items = fields.list_or(key)?;
    all(items.into_iter().map(|item| {
        let (column, descending, nulls_first) = match &item {
            Item::Short(text) => (Some(text.clone()), false, false),
            Item::Fields(fields) => (
                fields.text("column"),
                fields
                    .word("order")
                    .is_some_and(|order: SortOrder| order == SortOrder::Desc),
                fields.word("nulls").is_some_and(|nulls: Nulls| nulls == Nulls::First),
            ),
        };
        let column = column?;
        let fault = match column.value.trim().is_empty() {
            true => Some(format!("an empty name in `{key}`")),
            false if !names.insert(column.value.clone()) => {
                Some(format!("column `{}` stands twice in `{key}`", shown(&column.value)))
            }
            false => None,
        };
        if let Some(found) = fault {
            fields.cx.faults.add(column.at, found, "names of columns, each once");
            return None;
        }
        Some(SortColumn {
            column: column.value,
            descending,
            nulls_first,
        })
    }))
}

#[derive(PartialEq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum SortOrder {
    Asc,
    Desc,
}

#[derive(PartialEq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Nulls {
    First,
    Last,
}

fn sink(fields: &Fields) -> (Option<Sink>, Option<Text>) {
    if let Some(word) = fields.section_word("sink") {
        return ((word.value == "discard").then_some(Sink::Discard), None);
    }
    let Some(fields) = fields.section("sink") else {
        return (None, None);
    };
    let mut output = None;
    let sink = if let Some(csv) = fields.section("csv") {
        output = csv.text("path");
        file_sink(&csv, output.as_ref(), Compression::None, true).map(Sink::Csv)
    } else if let Some(ndjson) = fields.section("ndjson") {
        output = ndjson.text("path");
        file_sink(&ndjson, output.as_ref(), Compression::None, false).map(Sink::Ndjson)
    } else if let Some(parquet) = fields.section("parquet") {
        output = parquet.text("path");
        file_sink(&parquet, output.as_ref(), Compression::Zstd, false).map(Sink::Parquet)
    } else if let Some(avro) = fields.section("avro") {
        output = avro.text("path");
        file_sink(&avro, output.as_ref(), Compression::Deflate, false).map(Sink::Avro)
    } else if let Some(records) = fields.section("records") {
        output = records.text("path");
        records_sink(&records, output.as_ref()).map(|sink| Sink::Records(Box::new(sink)))
    } else if let Some(report) = fields.section("report") {
        output = report.text("path");
        report_sink(&report, output.as_ref()).map(|sink| Sink::Report(Box::new(sink)))
    } else {
        fields.empty("discard").map(|()| Sink::Discard)
    };
    (sink, output)
}

/// `None`: wrong, or open until parameters are bound.
fn report_sink(fields: &Fields, path: Option<&Text>) -> Option<ReportSink> {
    let template = |key: &str| match fields.has(key) {
        true => fields.text(key).map(|text| Some(text.value)),
        false => Some(None),
    };
    let (begin, header, footer, end) = (
        template("begin"),
        template("header"),
        template("footer"),
        template("end"),
    );
    let page_break = template("page_break");
    let row = fields.text("row");
    let exists = fields.word("exists").unwrap_or(Exists::Fail);
    let page_rows = match fields.has("page_rows") {
        true => Some(fields.integer("page_rows")?),
        false => None,
    };
    let totals = match fields.has("totals") {
        true => column_names(fields, "totals").map(values),
        false => Some(Vec::new()),
    };
    let extension = match fields.text("extension") {
        None => "txt".to_string(),
        Some(extension) => {
            let plain = extension.value.chars().all(|c| c.is_ascii_alphanumeric());
            if !extension.open && (!plain || !(1..=16).contains(&extension.value.len())) {
                let found = format!("`extension` in report sink is \"{}\"", shown(&extension.value));
                fields.cx.faults.add(extension.at, found, "1 to 16 letters and digits");
            }
            extension.value
        }
    };
    Some(ReportSink {
        file: FileSink {
            path: path?.value.clone(),
            exists,
            compression: Compression::None,
            // Pages are counted over all rows.
            files: Some(1),
            partition_by: Vec::new(),
            split: None,
            partition_column: None,
            header: false,
            delimiter: Delimiter::COMMA,
            null: String::new(),
            encoding: Default::default(),
            crlf: false,
        },
        page_rows,
        begin: begin?,
        header: header?,
        row: row?.value,
        footer: footer?,
        end: end?,
        totals: totals?,
        page_break: page_break?.unwrap_or_else(|| "\u{c}".to_string()),
        extension,
    })
}

fn file_sink(fields: &Fields, path: Option<&Text>, compression: Compression, csv: bool) -> Option<FileSink> {
    let exists = fields.word("exists").unwrap_or(Exists::Fail);
    let compression = fields.word("compression").unwrap_or(compression);
    let files = fields.integer("files");
    let partition_by = match fields.has("partition_by") {
        true => column_names(fields, "partition_by").map(values),
        false => Some(Vec::new()),
    };
    let partition_column = match fields.has("partition_column") {
        true => column_name(fields, "partition_column").map(|name| Some(name.value)),
        false => Some(None),
    };
    let split = match fields.has("split") {
        true => split(fields).map(Some),
        false => Some(None),
    };
    if let (Some(Some(name)), Some(others)) = (&partition_column, &partition_by)
        && others.contains(name)
    {
        let found = format!("`{}` is in both `partition_by` and `partition_column`", shown(name));
        let at = fields.key_at("partition_column");
        fields.cx.faults.add(at, found, "two different names");
    }
    let crlf = match csv {
        true => ends_with_crlf(fields),
        false => Some(false),
    };
    let encoding = match csv {
        true => fields.word("encoding").unwrap_or_default(),
        false => Default::default(),
    };
    let (header, delimiter, null) = match csv {
        true => (
            fields.boolean("header").unwrap_or(true),
            sink_delimiter(fields),
            fields.text("null").map_or_else(String::new, |null| null.value),
        ),
        false => (true, Delimiter::COMMA, String::new()),
    };
    Some(FileSink {
        path: path?.value.clone(),
        exists,
        compression,
        files,
        partition_by: partition_by?,
        split: split?,
        partition_column: partition_column?,
        header,
        delimiter,
        null,
        encoding,
        crlf: crlf?,
    })
}

/// Of a csv sink, whose quote is always `"`.
fn sink_delimiter(fields: &Fields) -> Delimiter {
    let delimiter = fields.delimiter("delimiter").unwrap_or(Delimiter::COMMA);
    check_apart(fields, "delimiter", delimiter, b'"', "quote");
    delimiter
}

/// `0.1%` in millionths.
fn share(fields: &Fields) -> Option<u32> {
    let text = fields.text("share")?;
    if text.open {
        return None;
    }
    let millionths = text.value.trim().strip_suffix('%').and_then(|number| {
        let (whole, fraction) = number.trim().split_once('.').unwrap_or((number.trim(), ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let sound = !whole.is_empty() && digits(whole) && digits(fraction) && fraction.len() <= 4;
        let number: u32 = format!("{whole}{fraction:0<4}").parse().ok().filter(|_| sound)?;
        (number <= 1_000_000).then_some(number)
    });
    if millionths.is_none() {
        let found = format!("`share` in reject is `{}`", shown(&text.value));
        let allowed = "a percentage from 0% to 100% with at most four digits after the point, such as 0.1%";
        fields.cx.faults.add(text.at, found, allowed);
    }
    millionths
}

fn split(sink: &Fields) -> Option<Split> {
    let fields = sink.section("split")?;
    let faults = fields.cx.faults;
    if sink.has("partition_by") {
        let at = sink.key_at("split");
        faults.add(
            at,
            "`split` beside `partition_by`, which both make folders",
            "one of them",
        );
    }
    let named = fields.has("by") || fields.has("when");
    if fields.has("otherwise") && !named {
        let at = fields.key_at("otherwise");
        faults.add(
            at,
            "`otherwise` where every row has its place",
            "`otherwise` beside `by` or `when`",
        );
    }
    if fields.has("rows") && sink.has("files") {
        let at = fields.key_at("rows");
        faults.add(at, "`rows` beside `files`, which both make files", "one of them");
    }
    let otherwise = fields.name("otherwise");
    let by = if fields.has("by") {
        column_name(&fields, "by").map(|column| SplitBy::Value(column.value))
    } else if fields.has("when") {
        when(&fields, otherwise.as_ref()).map(SplitBy::When)
    } else if fields.has("hash") {
        fields.section("hash").and_then(|hash| {
            let columns = column_names(&hash, "columns").map(values);
            let into = hash.integer("into");
            Some(SplitBy::Hash {
                columns: columns?,
                into: into?,
            })
        })
    } else {
        fields
            .integer("rows")
            .map(|rows: i64| SplitBy::Rows(rows.unsigned_abs()))
    };
    Some(Split {
        by: by?,
        otherwise: otherwise.map(|name| name.value).filter(|name| name != "fail"),
    })
}

fn when(fields: &Fields, otherwise: Option<&Text>) -> Option<Vec<Check>> {
    let mut names: BTreeSet<String> = otherwise.iter().map(|name| name.value.clone()).collect();
    let outputs = fields.list("when")?;
    all(outputs.iter().map(|output| {
        let (name, that) = (output.name("name"), output.text("that"));
        let name = name?;
        if !names.insert(name.value.clone()) {
            let found = format!("a second output `{}` in `split`", name.value);
            fields.cx.faults.add(name.at, found, "each name once");
            return None;
        }
        Some(Check {
            name: name.value,
            that: that?.value,
        })
    }))
}

fn on_error(fields: &Fields) -> OnError {
    let mut on_error = OnError::default();
    let Some(fields) = fields.section("on_error") else {
        return on_error;
    };
    if let Some(attempts) = fields.section("retry").and_then(|retry| retry.integer("attempts")) {
        on_error.attempts = attempts;
        on_error.attempts_written = true;
    }
    if let Some(reject) = fields.section("reject") {
        if let Some(limit) = reject.integer_or("limit") {
            on_error.reject_limit = match limit {
                Number::Value(limit) => Some(limit),
                Number::Word => None,
            };
        }
        if let Some(share) = share(&reject) {
            (on_error.reject_limit, on_error.reject_share) = (None, Some(share));
        }
    }
    on_error.partition_failed = fields.word("partition_failed").unwrap_or_default();
    on_error
}

//! The source's part of a survey: which files there are, what they look like, how much they hold,
//! and a bounded sample of keys (`sample`). Metadata and a few blocks, never the data.

use std::{collections::HashMap, path::Path, sync::Arc};

use arrow::datatypes::{Schema, SchemaRef};
use gapless_common::{
    error::TaskError,
    ids::RunId,
    job::{ColumnType, Job, MergeSource, RecordLayout, Source, Step},
    manifest::{DataFile, Verdict, VerdictKind},
    plan::{KeySample, PinnedFile, Unit},
    plural::counted,
    range::UnitRange,
};

mod sample;

pub use sample::sample_keys;

use crate::{
    source::{
        SourceReader, avro,
        csv::{CsvReader, Format, Layout, Records, codec_of, column_type, columns_of_header, header_of, names_of},
        merge::{check_keys, columns_of_inputs, input_name},
        open::{Stored, stored_of},
        parquet::{footer, unite},
        pins::{Identity, MAX_FILES, config, expand, file_of, identity, pin},
        records::{Content, PASS, RecordsReader, Shape, edges, is_packed},
        text_size::text_size,
    },
    storage::{list_folder, read_if_present, resolve},
    type_names::type_name,
};

/// Up to this many bytes of CSV are read whole for a sample or a count.
const WHOLE: u64 = 8 * 1024 * 1024;

/// Files above this that one partition has to read alone are told of: a minute's work and more.
const LARGE: u64 = 8 * WHOLE;

/// What a survey reads at most of the text that compressed files unpack to.
const MAX_CONTENT: u64 = 16 * WHOLE;

/// Places at which the length of records is measured.
const LENGTH_PLACES: u64 = 16;

/// What a record of a layout is taken to have, where none is looked at.
const RECORD_BYTES: u64 = 100;

/// What a source tells of itself.
#[derive(Clone, Debug)]
pub struct SourceFacts {
    pub unit: Unit,
    /// In unit order; empty for a sequence.
    pub files: Vec<PinnedFile>,
    /// The whole source domain.
    pub domain: UnitRange,
    /// All columns of the source.
    pub schema: SchemaRef,
    /// Rows, exact or estimated.
    pub rows: u64,
    pub bytes: u64,
    /// Left for [`sample_keys`], which needs to know the column.
    pub sample: Option<KeySample>,
    /// Things the user should know that stop nothing.
    pub warnings: Vec<String>,
    /// Of a merge: its inputs, each by itself.
    pub inputs: Vec<SourceFacts>,
}

/// Surveys the source of a step.
///
/// `earlier`: for the source, or for each input of a merge, where it is an earlier step the columns of that step's
/// output. Its types are needed to read CSV, whose types are never guessed.
///
/// Errors: `Config` for files that are missing, unreadable, not regular or differ in their columns,
/// and for an earlier step that has not published.
pub fn survey_source(
    job: &Job,
    step: &Step,
    base_dir: &Path,
    run: RunId,
    earlier: &[Option<SchemaRef>],
) -> Result<SourceFacts, TaskError> {
    let earlier = |number: usize| earlier.get(number).and_then(Option::as_ref);
    let Source::Merge(merge) = &step.source else {
        return survey_input(job, step, &step.source, base_dir, run, earlier(0));
    };
    let mut inputs = Vec::with_capacity(merge.inputs.len());
    for (number, input) in merge.inputs.iter().enumerate() {
        let facts = survey_input(job, step, input, base_dir, run, earlier(number)).map_err(|error| {
            let message = format!("{}: {}", input_name(number, input), error.message);
            TaskError::new(error.class, message)
        })?;
        inputs.push(facts);
    }
    merged(merge, base_dir, inputs)
}

/// The files of a source that says the same of each of them.
fn all_of(files: &[PinnedFile]) -> String {
    match files {
        [] => "the source".to_string(),
        [file] => file.path.clone(),
        [file, ..] => format!("each of {} files ({}, …)", files.len(), file.path),
    }
}

/// The inputs of a merge, end to end.
fn merged(merge: &MergeSource, base_dir: &Path, inputs: Vec<SourceFacts>) -> Result<SourceFacts, TaskError> {
    let mut known: HashMap<Identity, (usize, &str)> = HashMap::new();
    for (number, input) in inputs.iter().enumerate() {
        for file in &input.files {
            let Some((first, path)) = known.insert(identity(base_dir, &file.path)?, (number, &file.path)) else {
                continue;
            };
            let (one, other) = (
                input_name(first, &merge.inputs[first]),
                input_name(number, &merge.inputs[number]),
            );
            return Err(config(match path == file.path {
                true => format!("merge: {path} is a file of {one} and of {other}; its records would be read twice"),
                false => format!(
                    "merge: {} is a file of {other}, and is {path} of {one}; its records would be read twice",
                    file.path
                ),
            }));
        }
    }
    if known.len() > MAX_FILES {
        return Err(config(format!(
            "the inputs of the merge have more than {MAX_FILES} files; split the job or join the files"
        )));
    }
    let schemas: Vec<SchemaRef> = inputs.iter().map(|input| input.schema.clone()).collect();
    let empty = inputs
        .iter()
        .position(|input| input.bytes == 0 && !input.files.is_empty());
    let schema = columns_of_inputs(merge, &schemas).map_err(|error| match empty {
        None => error,
        Some(number) => {
            let name = input_name(number, &merge.inputs[number]);
            let words = "is empty, without a header too, so it has the columns that are declared for it: declare all of them in `columns`";
            TaskError::new(error.class, format!("{}. {name} {words}", error.message))
        }
    });
    let schema = Arc::new(schema?);
    check_keys(merge, &schema)?;
    // What has no files has no units of any kind.
    let mut units = inputs
        .iter()
        .filter(|input| !input.files.is_empty())
        .map(|input| input.unit);
    let first = units.next().unwrap_or(Unit::Byte);
    let unit = match units.all(|unit| unit == first) {
        true => first,
        false => Unit::Mixed,
    };
    let warned = |(number, input): (usize, &SourceFacts)| {
        let name = input_name(number, &merge.inputs[number]);
        let warnings = input.warnings.iter();
        warnings.map(|warning| format!("{name}: {warning}")).collect::<Vec<_>>()
    };
    Ok(SourceFacts {
        unit,
        files: inputs.iter().flat_map(|input| input.files.iter().cloned()).collect(),
        domain: UnitRange::new(0, inputs.iter().map(|input| input.domain.len()).sum()),
        schema,
        rows: inputs.iter().map(|input| input.rows).sum(),
        bytes: inputs.iter().map(|input| input.bytes).sum(),
        sample: None,
        warnings: inputs.iter().enumerate().flat_map(warned).collect(),
        inputs,
    })
}

/// A source of one format.
fn survey_input(
    job: &Job,
    step: &Step,
    source: &Source,
    base_dir: &Path,
    run: RunId,
    earlier: Option<&SchemaRef>,
) -> Result<SourceFacts, TaskError> {
    match source {
        Source::Merge(_) => Err(config(format!("step {}: a merge is no input of a merge", step.name))),
        Source::Csv(csv) => {
            let files = expand(base_dir, &csv.paths)?;
            survey_text(base_dir, &files, &Format::from(csv), &csv.columns)
        }
        Source::Ndjson(ndjson) => {
            let files = expand(base_dir, &ndjson.paths)?;
            survey_text(base_dir, &files, &Format::from(ndjson), &ndjson.columns)
        }
        Source::Parquet(parquet) => survey_parquet(base_dir, &expand(base_dir, &parquet.paths)?),
        Source::Avro(avro) => survey_avro(base_dir, &expand(base_dir, &avro.paths)?),
        Source::Records(records) => survey_records(base_dir, &expand(base_dir, &records.paths)?, &records.layout),
        Source::Sequence { from, to } => sequence_facts(*from, *to),
        Source::Step(name) => {
            let stored = stored_of(job, &step.name, source)?;
            let published = published_files(job, name, base_dir, run)?;
            let files: Vec<String> = published.iter().map(|file| file.path.clone()).collect();
            match stored {
                Stored::Text { mut format, .. } => {
                    format.dialect.multiline = published.iter().any(|file| file.multiline);
                    let schema = earlier.ok_or_else(|| {
                        config(format!("step {}: the columns of step {name} are not known", step.name))
                    })?;
                    let mut facts = survey_text(base_dir, &files, &format, &declared_as(schema))?;
                    for field in schema.fields() {
                        if column_type(field.data_type()).is_none() {
                            facts.warnings.push(format!(
                                "column {} of step {name} is {}, which {} cannot carry: it is read as text",
                                field.name(),
                                type_name(field.data_type()),
                                format.name()
                            ));
                        }
                    }
                    Ok(facts)
                }
                Stored::Records(layout) => survey_records(base_dir, &files, layout),
                Stored::Avro if !files.is_empty() => survey_avro(base_dir, &files),
                _ if files.is_empty() => Ok(no_files(earlier.cloned().unwrap_or_else(|| Arc::new(Schema::empty())))),
                _ => survey_parquet(base_dir, &files),
            }
        }
    }
}

fn declared_as(schema: &Schema) -> Vec<(String, ColumnType)> {
    schema
        .fields()
        .iter()
        .map(|field| {
            (
                field.name().clone(),
                column_type(field.data_type()).unwrap_or(ColumnType::String),
            )
        })
        .collect()
}

fn sequence_facts(from: i64, to: i64) -> Result<SourceFacts, TaskError> {
    if to < from {
        return Err(config(format!("the sequence {from}..{to} runs downwards")));
    }
    let rows = to.abs_diff(from);
    Ok(SourceFacts {
        unit: Unit::Number,
        files: Vec::new(),
        domain: UnitRange::new(0, rows),
        schema: crate::source::sequence::schema(),
        rows,
        bytes: rows.saturating_mul(size_of::<i64>() as u64),
        sample: None,
        warnings: Vec::new(),
        inputs: Vec::new(),
    })
}

fn no_files(schema: SchemaRef) -> SourceFacts {
    SourceFacts {
        unit: Unit::RowGroup,
        files: Vec::new(),
        domain: UnitRange::new(0, 0),
        schema,
        rows: 0,
        bytes: 0,
        sample: None,
        warnings: Vec::new(),
        inputs: Vec::new(),
    }
}

/// The files that an earlier step of this run has published, under paths like those of a source.
pub fn published_files(job: &Job, name: &str, base_dir: &Path, run: RunId) -> Result<Vec<DataFile>, TaskError> {
    let step_no = job.steps.iter().position(|step| step.name == name);
    let (Some(step_no), Some(sink)) = (step_no, job.step(name).and_then(|step| step.sink.file())) else {
        return Err(config(format!("step {name} has no output files")));
    };
    let path = sink.path.trim_end_matches('/');
    let output = resolve(base_dir, path);
    let folder = match (output.parent(), output.file_name().and_then(|name| name.to_str())) {
        (Some(parent), Some(name)) => parent.join(format!(".{name}.gapless")).join("published"),
        _ => return Err(config(format!("{path}: not a folder that output can be published in"))),
    };
    let unpublished = || config(format!("step {name} has published nothing for run {run} at {path}"));
    let mut latest: Option<Verdict> = None;
    for name in list_folder(&folder)? {
        let record = folder.join(&name);
        if !name.ends_with(".json") {
            continue;
        }
        // Gone again: a temporary name.
        let Some(text) = read_if_present(&record)? else {
            continue;
        };
        let verdict: Verdict = serde_json::from_slice(&text)
            .map_err(|error| config(format!("{}: not a record of a publication: {error}", record.display())))?;
        let ours =
            verdict.verdict == VerdictKind::Committed && verdict.run == run && usize::from(verdict.step) == step_no;
        if ours
            && latest
                .as_ref()
                .is_none_or(|latest| latest.generation < verdict.generation)
        {
            latest = Some(verdict);
        }
    }
    let verdict = latest.ok_or_else(unpublished)?;
    let shown = |file: DataFile| DataFile {
        path: format!("{path}/{}", file.path),
        ..file
    };
    Ok(verdict.files.into_iter().map(shown).collect())
}

pub(crate) fn survey_text(
    base_dir: &Path,
    paths: &[String],
    format: &Format,
    declared: &[(String, ColumnType)],
) -> Result<SourceFacts, TaskError> {
    let mut files = Vec::with_capacity(paths.len());
    let mut columns: Option<Vec<(String, ColumnType)>> = None;
    let mut from_start = 0;
    let mut warnings = Vec::new();
    let objects = matches!(format.records, Records::Json { .. });
    if objects && !declared.is_empty() {
        columns = Some(declared.to_vec());
    }
    if !objects && !format.header && declared.is_empty() {
        return Err(config("a CSV source without a header needs its columns declared"));
    }
    for path in paths {
        let (_, mut pinned) = pin(base_dir, path)?;
        from_start += usize::from(format.reads_from_start(path)?);
        pinned.units = pinned.size;
        if objects {
            // The first record that there is tells the columns.
            if columns.is_none()
                && let Some(names) = names_of(base_dir, path, format)?
            {
                columns = Some(names.into_iter().map(|name| (name, ColumnType::String)).collect());
            }
        } else if let Some(header) = header_of(base_dir, path, format)? {
            match &columns {
                None => columns = Some(columns_of_header(path, &header, declared)?),
                Some(columns) => same_header(path, &header, columns)?,
            }
        }
        files.push(pinned);
    }
    let columns = match columns {
        Some(columns) => columns,
        None if !declared.is_empty() => declared.to_vec(),
        None if objects => {
            return Err(config(format!(
                "{} is empty: there is no record to tell the columns; declare `columns`",
                all_of(&files)
            )));
        }
        None => {
            return Err(config(format!(
                "{} is empty: there is not even a header to tell the columns; declare `columns`, with all that the files have",
                all_of(&files)
            )));
        }
    };
    let unit = if from_start > 0 { Unit::File } else { Unit::Byte };
    if unit == Unit::File {
        files.iter_mut().for_each(|pinned| pinned.units = 1);
        let large = files.iter().filter(|pinned| pinned.size > LARGE).count();
        if large > 0 {
            warnings.push(read_from_start(large, "compressed, `multiline`, or not in UTF-8"));
        }
    }
    let layout = Layout::new(format.clone(), columns, None)?;
    let domain = UnitRange::new(0, files.iter().map(|pinned| pinned.units).sum());
    let bytes = files.iter().map(|pinned| pinned.size).sum();
    let mut facts = SourceFacts {
        unit,
        files,
        domain,
        schema: layout.schema(),
        rows: 0,
        bytes,
        sample: None,
        warnings,
        inputs: Vec::new(),
    };
    facts.rows = estimate_rows(base_dir, &facts, format, &layout)?;
    Ok(facts)
}

fn read_from_start(large: usize, why: &str) -> String {
    format!(
        "{} that can only be read from the beginning ({why}): each is read by one partition and resumes only at file \
         ends; more, smaller files run in parallel",
        counted(large as u64, "large file")
    )
}

fn same_header(path: &str, header: &[String], columns: &[(String, ColumnType)]) -> Result<(), TaskError> {
    if header.iter().eq(columns.iter().map(|(name, _)| name)) {
        return Ok(());
    }
    let first: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    Err(config(format!(
        "{path}: its header differs from that of the first file: {} instead of {}; all files of a source have the same \
         columns in the same order. `source: {{merge: …}}` takes files with other columns as inputs of their own and matches \
         columns by name, with `missing_columns: fill` also where one lacks some",
        header.join(","),
        first.join(",")
    )))
}

/// Rows of a CSV source: counted where it is small, else its bytes by the length of some records.
fn estimate_rows(base_dir: &Path, facts: &SourceFacts, format: &Format, layout: &Layout) -> Result<u64, TaskError> {
    let counting = Arc::new(layout.without_columns());
    let files: Arc<[_]> = facts.files.clone().into();
    let reader = |units| {
        CsvReader::new(
            counting.clone(),
            base_dir.to_path_buf(),
            files.clone(),
            0,
            facts.unit,
            units,
        )
    };
    let text = || {
        text_size(base_dir, &facts.files, format.dialect.encoding, &|path| {
            format.codec(path)
        })
    };
    let (mut read, mut bytes) = (0u64, 0u64);
    if facts.bytes <= WHOLE {
        let mut reader = reader(facts.domain);
        // What a small file unpacks to may be without bounds.
        while reader.intake_so_far().1 <= MAX_CONTENT {
            if !reader.next_batch_counted()? {
                return Ok(reader.intake_so_far().0);
            }
        }
        (read, bytes) = reader.intake_so_far();
        return Ok(rows_of(text()?, read, bytes).max(read));
    }
    if facts.unit == Unit::File {
        for file in places(facts.domain.high, LENGTH_PLACES.min(facts.domain.high), 1) {
            let mut reader = reader(file);
            reader.next_batch_counted()?;
            let (more, of) = reader.intake_so_far();
            read += more;
            bytes += of;
        }
        return Ok(rows_of(text()?, read, bytes));
    }
    for place in places(facts.domain.high, LENGTH_PLACES, WHOLE / LENGTH_PLACES / 8) {
        let mut reader = reader(place);
        while reader.next_batch_counted()? {}
        let (more, of) = reader.intake_so_far();
        read += more;
        bytes += of;
    }
    Ok(rows_of(facts.bytes, read, bytes))
}

fn rows_of(total: u64, read: u64, bytes: u64) -> u64 {
    match bytes {
        0 => 1,
        _ => (u128::from(total) * u128::from(read) / u128::from(bytes)) as u64,
    }
}

/// `count` stretches of `len` units, evenly over `[0, total)`.
fn places(total: u64, count: u64, len: u64) -> impl Iterator<Item = UnitRange> {
    (0..count).map(move |at| {
        let low = (u128::from(total) * u128::from(at) / u128::from(count)) as u64;
        UnitRange::new(low, (low + len).min(total))
    })
}

pub(crate) fn survey_parquet(base_dir: &Path, paths: &[String]) -> Result<SourceFacts, TaskError> {
    let mut files = Vec::with_capacity(paths.len());
    let mut schema: Option<Schema> = None;
    for path in paths {
        let footer = footer(base_dir, path)?;
        schema = Some(match schema {
            None => unite(&footer.schema, path, &footer.schema)?,
            Some(schema) => unite(&schema, path, &footer.schema)?,
        });
        files.push(footer.pinned);
    }
    let rows = files.iter().filter_map(|pinned| pinned.rows).sum();
    Ok(SourceFacts {
        unit: Unit::RowGroup,
        domain: UnitRange::new(0, files.iter().map(|pinned| pinned.units).sum()),
        schema: Arc::new(schema.unwrap_or_else(Schema::empty)),
        rows,
        bytes: files.iter().map(|pinned| pinned.size).sum(),
        files,
        sample: None,
        warnings: Vec::new(),
        inputs: Vec::new(),
    })
}

pub(crate) fn survey_avro(base_dir: &Path, paths: &[String]) -> Result<SourceFacts, TaskError> {
    let mut files = Vec::with_capacity(paths.len());
    let mut schema: Option<Schema> = None;
    for path in paths {
        let head = avro::head(base_dir, path)?;
        schema = Some(match schema {
            None => unite(&head.schema, path, &head.schema)?,
            Some(schema) => unite(&schema, path, &head.schema)?,
        });
        files.push(head.pinned);
    }
    let bytes = files.iter().map(|pinned| pinned.size).sum();
    Ok(SourceFacts {
        unit: Unit::Byte,
        domain: UnitRange::new(0, bytes),
        schema: Arc::new(schema.unwrap_or_else(Schema::empty)),
        rows: rows_of_avro(base_dir, &files, bytes)?,
        bytes,
        files,
        sample: None,
        warnings: Vec::new(),
        inputs: Vec::new(),
    })
}

/// Rows of Avro files of so many bytes: counted where they are small, else by the blocks at places that lie evenly over
/// them. Other files than those with such a place are not opened.
pub(crate) fn rows_of_avro(base_dir: &Path, files: &[PinnedFile], bytes: u64) -> Result<u64, TaskError> {
    let (mut rows, mut of) = (0u64, 0);
    if bytes <= WHOLE {
        for pinned in files {
            rows = rows.saturating_add(avro::count_rows(base_dir, pinned, (0, pinned.size), usize::MAX)?.0);
        }
        return Ok(rows);
    }
    for place in places(bytes, LENGTH_PLACES, 1) {
        let (number, units) = file_of(files, 0, place.low)?;
        let pinned = &files[number];
        let count = |low| avro::count_rows(base_dir, pinned, (low, pinned.size), 1);
        let mut found = count(place.low - units.low)?;
        if found == (0, 0) {
            // The place lies in the file's last block.
            found = count(0)?;
        }
        rows = rows.saturating_add(found.0);
        of += found.1;
    }
    Ok(rows_of(bytes, rows, of))
}

/// Header and trailer of each file are read, so that one that is not what the layout says is told before
/// any work.
pub(crate) fn survey_records(
    base_dir: &Path,
    paths: &[String],
    layout: &RecordLayout,
) -> Result<SourceFacts, TaskError> {
    let shape = Shape::new(layout, None)?;
    let mut files = Vec::with_capacity(paths.len());
    let mut packed = false;
    let mut left = MAX_CONTENT;
    for path in paths {
        let (file, mut pinned) = pin(base_dir, path)?;
        packed |= is_packed(layout.packing, path)?;
        let mut content = Content::open(file, path, pinned.size, layout.packing)?;
        // To see the trailer of a packed file is to unpack it all: of large ones, and of more than a survey looks at,
        // whoever reads them tells.
        let known = layout.trailer.is_none() || pinned.size <= left.min(WHOLE) && content.pass_on(left)?;
        left = left.saturating_sub(content.unpacked());
        if known || !is_packed(layout.packing, path)? {
            edges(&mut content, &shape)?;
        }
        pinned.units = pinned.size;
        files.push(pinned);
    }
    let unit = if packed { Unit::File } else { Unit::Byte };
    if packed {
        files.iter_mut().for_each(|pinned| pinned.units = 1);
    }
    let large = files.iter().filter(|pinned| pinned.size > LARGE).count();
    let warnings = match packed && large > 0 {
        true => vec![read_from_start(large, "compressed, or not in UTF-8")],
        false => Vec::new(),
    };
    let bytes: u64 = files.iter().map(|pinned| pinned.size).sum();
    let counting = Arc::new(Shape::new(layout, Some(&[]))?);
    let pinned: Arc<[_]> = files.clone().into();
    // Of packed text that is not read to its end.
    let text = match packed {
        true => text_size(base_dir, &files, layout.packing.encoding, &|path| {
            codec_of(layout.packing.compression, path)
        })?,
        false => bytes,
    };
    let count = |units| -> Result<(u64, u64), TaskError> {
        let mut reader = RecordsReader::new(counting.clone(), base_dir.to_path_buf(), pinned.clone(), 0, unit, units);
        let mut passed = 0;
        while let Some(read) = reader.next_batch()? {
            passed += if read.batch.num_rows() == 0 { PASS } else { 0 };
            if unit == Unit::File && reader.intake_so_far().1 + passed > MAX_CONTENT {
                let (read, of) = reader.intake_so_far();
                let guessed = match read {
                    0 => rows_of(text, 1, RECORD_BYTES),
                    _ => rows_of(text, read, of),
                };
                return Ok((read.max(guessed), of));
            }
        }
        Ok(reader.intake_so_far())
    };
    let domain = UnitRange::new(0, files.iter().map(|pinned| pinned.units).sum());
    let rows = match bytes <= WHOLE {
        true => count(domain)?.0,
        // As much as the text is likely to hold, without unpacking a file of it.
        false if packed => {
            let (read, of) = begun(base_dir, layout, &pinned)?;
            match read {
                0 => rows_of(text, 1, RECORD_BYTES),
                _ => rows_of(text, read, of),
            }
        }
        false => {
            let (mut read, mut of) = (0, 0);
            for place in places(bytes, LENGTH_PLACES, WHOLE / LENGTH_PLACES / 8) {
                let (more, bytes) = count(place)?;
                read += more;
                of += bytes;
            }
            rows_of(bytes, read, of)
        }
    };
    Ok(SourceFacts {
        unit,
        files,
        domain,
        schema: shape.schema(),
        rows,
        bytes,
        sample: None,
        warnings,
        inputs: Vec::new(),
    })
}

/// Records and bytes at the beginnings of some packed files. A trailer among the records does no harm.
fn begun(base_dir: &Path, layout: &RecordLayout, files: &Arc<[PinnedFile]>) -> Result<(u64, u64), TaskError> {
    let open_ended = RecordLayout {
        trailer: None,
        ..layout.clone()
    };
    let shape = Arc::new(Shape::new(&open_ended, Some(&[]))?);
    let (mut read, mut of) = (0, 0);
    let all = files.len() as u64;
    for file in places(all, LENGTH_PLACES.min(all), 1) {
        let mut reader = RecordsReader::new(
            shape.clone(),
            base_dir.to_path_buf(),
            files.clone(),
            0,
            Unit::File,
            file,
        );
        reader.next_batch()?;
        let (more, bytes) = reader.intake_so_far();
        read += more;
        of += bytes;
    }
    Ok((read, of))
}

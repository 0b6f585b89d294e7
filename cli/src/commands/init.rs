//! `gapless init`: a job to begin with, put together of a source, a transform and a sink. It runs as it is.

mod pieces;

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use gapless_common::job::nearest;

use crate::{
    failure::{Failure, Kind, talk},
    output,
};
use pieces::{Column, Piece, SINKS, SOURCES, TRANSFORMS};

const ABOUT: &str = "\
Sources:     csv, ndjson, records, merge, parquet, avro, sequence
Transforms:  sql, command; left out, the records pass through
Sinks:       csv, parquet, avro, ndjson, records, report, discard

For example `gapless init csv,sql,parquet first-job`, then `gapless run first-job/job.yaml`.";

#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub struct Arguments {
    /// Source, transform and sink, joined by commas
    #[arg(value_name = "SOURCE[,TRANSFORM],SINK")]
    words: String,
    /// The folder to write to, made where it is not there
    #[arg(default_value = ".")]
    folder: PathBuf,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let skeleton = skeleton(&arguments.words)?;
    let folder = &arguments.folder;
    // Looked at before anything is written; who writes between loses nothing, see `create`.
    if let Some(taken) = skeleton
        .iter()
        .map(|(path, _)| folder.join(path))
        .find(|path| path.exists())
    {
        return Err(is_there(&taken));
    }
    for (path, content) in &skeleton {
        create(&folder.join(path), content)?;
    }
    let written: Vec<String> = skeleton
        .iter()
        .map(|(path, _)| folder.join(path).display().to_string())
        .collect();
    output::print(&format!("{}\n", written.join("\n")))?;
    talk(format_args!("now: gapless run {}", folder.join(JOB).display()));
    Ok(())
}

const JOB: &str = "job.yaml";

/// The files of the skeleton, the job first.
fn skeleton(words: &str) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
    let parts: Vec<&str> = words.split(',').map(str::trim).collect();
    let (source, transform, sink) = match parts.as_slice() {
        [source, transform, sink] => (*source, Some(*transform), *sink),
        [source, sink] => (*source, None, *sink),
        _ => {
            return Err(Failure::usage(format!(
                "`{words}` is not SOURCE,TRANSFORM,SINK or SOURCE,SINK, such as csv,sql,parquet; see `gapless init --help`"
            )));
        }
    };
    let source = find("source", SOURCES, OTHER_SOURCES, source)?;
    let find_transform = |word| find("transform", TRANSFORMS, &[], word);
    let transform = transform.map(find_transform).transpose()?;
    let sink = find("sink", SINKS, &[], sink)?;
    let is_of_numbers = source.word == "sequence";
    let sql = match is_of_numbers {
        true => pieces::SQL_OF_NUMBERS,
        false => pieces::SQL_OF_ORDERS,
    };
    let columns = columns(is_of_numbers, transform.map(|transform| transform.word));
    let transform_text = transform.map_or(String::new(), |transform| {
        let types = columns
            .iter()
            .map(|column| format!("{}: {}", column.name, quoted(column.ty)));
        let types: Vec<String> = types.collect();
        let text = transform.text.replace("{sql}", sql);
        text.replace("{columns}", &types.join(", "))
    });
    let text = pieces::JOB
        .replace("{words}", words)
        .replace("{source}", source.text)
        .replace("{transform}", &transform_text)
        .replace("{sink}", &with_columns(sink.text, &columns, is_of_numbers));
    let samples = [Some(source), transform, Some(sink)].into_iter().flatten();
    let samples = samples.flat_map(|piece| piece.sample);
    let mut files = vec![(JOB, text.into_bytes())];
    files.extend(samples.map(|(path, bytes)| (*path, bytes.to_vec())));
    Ok(files)
}

/// What the sink is given.
fn columns(is_of_numbers: bool, transform: Option<&str>) -> Vec<Column> {
    let (mut columns, made) = match is_of_numbers {
        true => (pieces::NUMBERS.to_vec(), pieces::SQUARE),
        false => (pieces::ORDERS.to_vec(), pieces::TAX),
    };
    match transform {
        // Where the SQL puts it.
        Some("sql") => columns.insert(columns.len().min(4), made),
        Some(_) => columns.push(pieces::FILLED),
        None => {}
    }
    columns
}

/// A sink that names its columns.
fn with_columns(text: &str, columns: &[Column], is_of_numbers: bool) -> String {
    let fields = columns.iter().map(|column| {
        let Column { name, ty, width } = column;
        format!("          - {{name: {name}, width: {width}, type: \"{ty}\"}}")
    });
    let row = columns.iter().map(|column| {
        let side = if matches!(column.ty, "string" | "date") {
            "left"
        } else {
            "right"
        };
        format!("{{{{ {} | {side}({}) }}}}", column.name, column.width)
    });
    text.replace("{fields}", &fields.collect::<Vec<_>>().join("\n"))
        .replace("{row}", &row.collect::<Vec<_>>().join(" "))
        .replace("{total}", if is_of_numbers { "n" } else { "amount" })
}

/// What jobs may have besides, of which there is no piece.
const OTHER_SOURCES: &[&str] = &["step"];

fn find<'a>(what: &str, pieces: &'a [Piece], others: &[&str], word: &str) -> Result<&'a Piece, Failure> {
    let known: Vec<&str> = pieces.iter().map(|piece| piece.word).collect();
    pieces.iter().find(|piece| piece.word == word).ok_or_else(|| {
        if others.contains(&word) {
            return Failure::usage(format!(
                "a job may have the {what} `{word}`, but `gapless init` cannot write one; it writes {}",
                known.join(", ")
            ));
        }
        let near = nearest(word, known.iter().copied());
        let near = near.map_or(String::new(), |near| format!(" did you mean `{near}`?"));
        Failure::usage(format!(
            "`{word}` is no {what} that is known;{near} allowed: {}",
            known.join(", ")
        ))
    })
}

fn is_there(path: &Path) -> Failure {
    Failure::new(
        Kind::Conflict,
        format!(
            "{} is there already, and is not overwritten; name another folder: `gapless init WORDS FOLDER`",
            path.display()
        ),
    )
}

fn create(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => is_there(path),
        ErrorKind::PermissionDenied => Failure::new(Kind::Denied, format!("cannot write {}: {error}", path.display())),
        _ => Failure::failed(format!("cannot write {}: {error}", path.display())),
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(cannot)?;
    }
    let mut file = File::create_new(path).map_err(cannot)?;
    file.write_all(content).map_err(cannot)
}

/// A type as YAML: one with a comma needs quotes within `{…}`.
fn quoted(ty: &str) -> String {
    match ty.contains(',') {
        true => format!("\"{ty}\""),
        false => ty.to_string(),
    }
}

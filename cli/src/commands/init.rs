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
use pieces::{Piece, SINKS, SOURCES, TRANSFORMS};

const ABOUT: &str = "\
Sources:     csv, parquet, avro, sequence
Transforms:  sql; left out, the records pass through
Sinks:       csv, parquet, avro, discard

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
    let find_transform = |word| find("transform", TRANSFORMS, OTHER_TRANSFORMS, word);
    let transform = transform.map(find_transform).transpose()?;
    let sink = find("sink", SINKS, OTHER_SINKS, sink)?;
    let sql = match (transform, source.word) {
        (None, _) => String::new(),
        (Some(transform), "sequence") => transform.text.replace("{sql}", pieces::SQL_OF_NUMBERS),
        (Some(transform), _) => transform.text.replace("{sql}", pieces::SQL_OF_ORDERS),
    };
    let text = pieces::JOB
        .replace("{words}", words)
        .replace("{source}", source.text)
        .replace("{transform}", &sql)
        .replace("{sink}", sink.text);
    let mut files = vec![(JOB, text.into_bytes())];
    files.extend(source.sample.iter().map(|(path, bytes)| (*path, bytes.to_vec())));
    Ok(files)
}

/// What jobs may have besides, of which there is no piece.
const OTHER_SOURCES: &[&str] = &["ndjson", "records", "step", "merge"];
const OTHER_TRANSFORMS: &[&str] = &["command"];
const OTHER_SINKS: &[&str] = &["ndjson", "records", "report"];

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

//! Look-up tables: read whole, and pinned by their content.
//!
//! The survey reads each look-up and keeps a digest of every file; whoever reads it for an attempt must
//! read the same bytes. A copy on another machine has another time and inode, so the digest alone decides.

use std::{
    io::{self, Read},
    path::Path,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use gapless_common::{
    error::{ErrorClass, TaskError},
    job::Lookup,
    plan::LookupFile,
};
use xxhash_rust::xxh3::Xxh3Default;

use super::{
    SourceReader,
    csv::Format,
    open::{Stored, open_files},
    pins::{config, data, expand, io_error, is_there, pin},
    types::columns_of,
};
use crate::{
    storage::StoredFile,
    survey::{survey_avro, survey_parquet, survey_records, survey_text},
};

/// The largest look-up table, in bytes of its files: it is held in memory by every worker.
pub const MAX_TABLE: u64 = 256 * 1024 * 1024;

/// A look-up may be compressed: this much of it in memory is too much.
const MAX_TABLE_MEMORY: usize = 4 * MAX_TABLE as usize;

/// Files of one look-up. Their pins travel with the step to every worker; so many take about 200 KB.
pub const MAX_TABLE_FILES: usize = 1000;

/// A digest is taken in pieces of this size.
const PIECE: usize = 256 * 1024;

/// A look-up in memory, and the files that it was read from.
#[derive(Clone, Debug)]
pub struct Table {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    pub files: Vec<LookupFile>,
}

/// Reads a look-up for the first time: resolves its paths, and pins what is read.
///
/// Errors: `Config` when it is larger than [`MAX_TABLE`] or [`MAX_TABLE_FILES`] or cannot be found;
/// `Data` naming the first record that cannot be parsed: a table with holes would change results
/// silently; `Transient` when it is written to meanwhile.
pub fn read_table(name: &str, lookup: &Lookup, base_dir: &Path) -> Result<Table, TaskError> {
    let paths = expand(base_dir, lookup.paths())?;
    check_count(name, &paths)?;
    read(name, lookup, base_dir, digests(name, base_dir, &paths)?)
}

fn check_count(name: &str, paths: &[String]) -> Result<(), TaskError> {
    if paths.len() > MAX_TABLE_FILES {
        return Err(config(format!(
            "look-up {name}: {} files are too many (the limit is {MAX_TABLE_FILES}); join them into fewer",
            paths.len()
        )));
    }
    Ok(())
}

/// Reads the files that another step of the run has published, for the first time.
///
/// Errors: as [`read_table`]; `Config` where the step has published no rows, since files alone tell their columns.
pub fn read_published(
    name: &str,
    lookup: &Lookup,
    step: &str,
    base_dir: &Path,
    paths: &[String],
) -> Result<Table, TaskError> {
    if paths.is_empty() {
        return Err(config(format!(
            "look-up {name}: step {step} has published no rows, so its columns are not known"
        )));
    }
    check_count(name, paths)?;
    read(name, lookup, base_dir, digests(name, base_dir, paths)?)
}

/// Reads a look-up again: the files that the survey pinned, with the content that it read.
///
/// Errors: `Config` naming the file that differs, how, and the remedy; else as [`read_table`].
pub fn read_pinned(name: &str, lookup: &Lookup, base_dir: &Path, pinned: &[LookupFile]) -> Result<Table, TaskError> {
    let refused = |what: String| {
        config(format!(
            "look-up {name}: {what}; all partitions of a run join the same look-ups: run the job again, then the \
             step begins anew with the new content; or put the old content back before that, then it goes on"
        ))
    };
    for file in pinned {
        match look_again(base_dir, file)? {
            None => {
                return Err(refused(format!(
                    "{} is missing; it had {} bytes when this run was planned",
                    file.path, file.size
                )));
            }
            Some(now) => {
                if let Some(change) = changed(file, &now) {
                    return Err(refused(change));
                }
            }
        }
    }
    read(name, lookup, base_dir, pinned.to_vec())
}

/// A pinned file as it is now; `None` where it is gone. The digest is empty where the size tells enough.
pub fn look_again(base_dir: &Path, pinned: &LookupFile) -> Result<Option<LookupFile>, TaskError> {
    if !is_there(base_dir, &pinned.path)? {
        return Ok(None);
    }
    let (file, now) = pin(base_dir, &pinned.path)?;
    let digest = match now.size == pinned.size {
        true => digest(&pinned.path, file, now.size)?,
        false => String::new(),
    };
    Ok(Some(LookupFile {
        path: now.path,
        size: now.size,
        etag: now.etag,
        digest,
    }))
}

/// In what a file differs from its pin, in words.
pub fn changed(pinned: &LookupFile, now: &LookupFile) -> Option<String> {
    let path = &pinned.path;
    if now.size != pinned.size {
        return Some(format!(
            "{path} changed since this run was planned: it had {} bytes, now {}",
            pinned.size, now.size
        ));
    }
    (now.digest != pinned.digest).then(|| {
        format!(
            "{path} changed since this run was planned: {} bytes as before, but not the same ones (digest {}, now {})",
            pinned.size, pinned.digest, now.digest
        )
    })
}

fn digests(name: &str, base_dir: &Path, paths: &[String]) -> Result<Vec<LookupFile>, TaskError> {
    let mut pinned = Vec::with_capacity(paths.len());
    let mut bytes = 0;
    for path in paths {
        let (file, now) = pin(base_dir, path)?;
        bytes += now.size;
        if bytes > MAX_TABLE {
            return Err(too_large(name, path, bytes));
        }
        pinned.push(LookupFile {
            digest: digest(path, file, now.size)?,
            path: now.path,
            size: now.size,
            etag: now.etag,
        });
    }
    Ok(pinned)
}

/// XXH3-128 of a file's content; of no more than one byte beyond `size`, which a pin has bounded.
fn digest(path: &str, file: StoredFile, size: u64) -> Result<String, TaskError> {
    let mut file = file.into_reader().take(size + 1);
    let mut hash = Xxh3Default::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(format!("{:032x}", hash.digest128())),
            Ok(read) => hash.update(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error(path, "reading", &error)),
        }
    }
}

/// Reads the files, which must have this content before and after.
fn read(name: &str, lookup: &Lookup, base_dir: &Path, files: Vec<LookupFile>) -> Result<Table, TaskError> {
    let paths: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
    let (schema, batches) = records(name, lookup, base_dir, &paths)?;
    for file in &files {
        let now = look_again(base_dir, file)?;
        if now.is_none_or(|now| changed(file, &now).is_some()) {
            return Err(TaskError::new(
                ErrorClass::Transient,
                format!("look-up {name}: {} was written to while it was read", file.path),
            ));
        }
    }
    Ok(Table { schema, batches, files })
}

fn records(
    name: &str,
    lookup: &Lookup,
    base_dir: &Path,
    paths: &[String],
) -> Result<(SchemaRef, Vec<RecordBatch>), TaskError> {
    let text = |format: Format, declared| -> Result<_, TaskError> {
        let facts = survey_text(base_dir, paths, &format, declared)?;
        let stored = Stored::Text {
            format,
            declared,
            of_step: false,
        };
        Ok((stored, facts))
    };
    let (stored, facts) = match lookup {
        Lookup::Csv(source) => text(Format::from(source), source.columns.as_slice())?,
        Lookup::Ndjson(source) => text(Format::from(source), source.columns.as_slice())?,
        Lookup::Avro(_) => (Stored::Avro, survey_avro(base_dir, paths)?),
        // What steps publish is named by its format.
        Lookup::Step(_) if paths.iter().all(|path| path.ends_with(".avro")) => {
            (Stored::Avro, survey_avro(base_dir, paths)?)
        }
        Lookup::Parquet(_) | Lookup::Step(_) => (Stored::Parquet, survey_parquet(base_dir, paths)?),
        Lookup::Records(source) => {
            let facts = survey_records(base_dir, paths, &source.layout)?;
            (Stored::Records(&source.layout), facts)
        }
    };
    let columns = columns_of(&facts.schema);
    let mut reader: Box<dyn SourceReader> = open_files(
        &stored,
        base_dir,
        facts.unit,
        &facts.files,
        &columns,
        facts.domain,
        None,
    )?;
    let (mut batches, mut memory) = (Vec::new(), 0);
    while let Some(input) = reader.next_batch()? {
        if let Some(reject) = reader.take_intake().rejects.first() {
            let line = reject.place.line.map_or(String::new(), |line| format!(", line {line}"));
            return Err(data(format!(
                "look-up {name}: {}{line}: {}",
                reject.place.file, reject.reason
            )));
        }
        memory += input.batch.get_array_memory_size();
        if memory > MAX_TABLE_MEMORY {
            return Err(too_large(name, paths.first().map_or("", String::as_str), memory as u64));
        }
        batches.push(input.batch);
    }
    Ok((reader.schema(), batches))
}

fn too_large(name: &str, path: &str, bytes: u64) -> TaskError {
    config(format!(
        "look-up {name} ({path}): {bytes} bytes are too many for a table that every worker holds in memory (the limit is \
         {} MiB of files, {} MiB once read); make it a step of its own and join by partitions, or select the rows that \
         are needed",
        MAX_TABLE / (1024 * 1024),
        MAX_TABLE_MEMORY / (1024 * 1024)
    ))
}

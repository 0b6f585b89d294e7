//! Files and their pins: which files a source names, and whether a file is still the one that the
//! plan was made for. The only place that opens source files.

use std::{
    collections::HashMap,
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use gapless_common::{
    address::is_url,
    error::{ErrorClass, TaskError},
    plan::PinnedFile,
    range::UnitRange,
};
use gapless_platform::objects::{Bucket, Found, ObjectError, ObjectFile, Trouble};

use crate::storage::{StoredFile, is_object, object, object_error, object_error_in, resolve};

/// A file can be matched by a pattern, but not without end: the list travels in one row.
pub const MAX_FILES: usize = 100_000;

/// Objects that are looked through for one pattern: a listing has 1,000 for each request, so these
/// take about a minute.
const MAX_LISTED: usize = 1_000_000;

pub(crate) fn config(message: impl Into<String>) -> TaskError {
    TaskError::new(ErrorClass::Config, message)
}

pub(crate) fn data(message: impl Into<String>) -> TaskError {
    TaskError::new(ErrorClass::Data, message)
}

/// What an IO error on a source file means for the task: a missing file or permission is a fault of
/// the job's surroundings, anything else may pass.
pub(crate) fn io_error(path: &str, doing: &str, error: &io::Error) -> TaskError {
    if let Some(error) = object_error_in(error) {
        return match error.trouble {
            Trouble::Changed => changed(path, "it was written again or deleted"),
            _ => object_error("read", error),
        };
    }
    match error.kind() {
        io::ErrorKind::NotFound => config(format!(
            "{path}: no such file (while {doing} it); mend the path, or wait for the file"
        )),
        io::ErrorKind::PermissionDenied => config(format!(
            "{path}: permission denied while {doing} it; the worker's user must be able to read it"
        )),
        _ => TaskError::new(ErrorClass::Transient, format!("{path}: {doing} failed: {error}")),
    }
}

/// Changes whenever the content may have changed: modification time in nanoseconds and inode.
fn etag(meta: &Metadata) -> String {
    let nanos = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    format!("{nanos:x}-{:x}", meta.ino())
}

/// What a file is, by whatever name: links and other spellings of a path are the same file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    File {
        device: u64,
        inode: u64,
    },
    Object(PathBuf),
    /// There is no such file: whoever opens it tells.
    Missing(PathBuf),
}

pub(crate) fn identity(base_dir: &Path, path: &str) -> Result<Identity, TaskError> {
    let full = resolve(base_dir, path);
    if is_object(&full) {
        return Ok(Identity::Object(full));
    }
    match full.metadata() {
        Ok(meta) => Ok(Identity::File {
            device: meta.dev(),
            inode: meta.ino(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Identity::Missing(full)),
        Err(error) => Err(io_error(path, "looking at", &error)),
    }
}

/// Resolves the paths and globs of a source against `base_dir`, in order, each glob's matches sorted
/// by bytes. The answer keeps paths as they were written: relative ones stay relative to `base_dir`.
///
/// Errors: `Config` when a pattern matches nothing or is malformed, or a file is named twice, by whatever names (its
/// records would be read twice).
pub fn expand(base_dir: &Path, patterns: &[String]) -> Result<Vec<String>, TaskError> {
    if patterns.is_empty() {
        return Err(config("the source names no file: give it a path"));
    }
    let mut files = Vec::new();
    let mut seen: HashMap<Identity, String> = HashMap::new();
    for pattern in patterns {
        for path in matches(base_dir, pattern)? {
            if let Some(other) = seen.insert(identity(base_dir, &path)?, path.clone()) {
                return Err(config(match other == path {
                    true => format!("{path} is named twice by the source's paths; its records would be read twice"),
                    false => format!(
                        "{path} is named twice by the source's paths, which also have it as {other}; its records would be \
                         read twice"
                    ),
                }));
            }
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(config(format!(
                "the source's paths match more than {MAX_FILES} files; split the job or join the files"
            )));
        }
    }
    Ok(files)
}

fn matches(base_dir: &Path, pattern: &str) -> Result<Vec<String>, TaskError> {
    if is_url(pattern) {
        return objects_matching(pattern);
    }
    // A name that exists is taken literally, whatever signs it is made of.
    let literal = !pattern.contains(['*', '?', '[']) || base_dir.join(pattern).symlink_metadata().is_ok();
    if literal {
        return Ok(vec![pattern.to_string()]);
    }
    let relative = !Path::new(pattern).is_absolute();
    let prefix = base_dir.to_string_lossy();
    let full = match relative {
        true => format!("{}/{pattern}", glob::Pattern::escape(prefix.trim_end_matches('/'))),
        false => pattern.to_string(),
    };
    let found = glob::glob_with(&full, MATCHING).map_err(|error| malformed(pattern, &error))?;
    let mut paths = Vec::new();
    for entry in found {
        let path = entry.map_err(|error| io_error(&error.path().to_string_lossy(), "listing", error.error()))?;
        // A pattern such as `data/*` is about the files in the folder, not about folders beside them.
        if path.is_dir() {
            continue;
        }
        let shown = match relative {
            true => path.strip_prefix(base_dir).unwrap_or(&path),
            false => path.as_path(),
        };
        let text = shown.to_str().ok_or_else(|| {
            config(format!(
                "{}: the file name is not valid UTF-8; rename it",
                shown.display()
            ))
        })?;
        paths.push(text.to_string());
    }
    if paths.is_empty() {
        return Err(config(format!(
            "no file matches {pattern} (looked in {}); mend the path, or wait for the file",
            base_dir.display()
        )));
    }
    paths.sort_unstable();
    Ok(paths)
}

const MATCHING: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    // Hidden files are a tool's own: temporary names, control folders.
    require_literal_leading_dot: true,
};

fn malformed(pattern: &str, error: &glob::PatternError) -> TaskError {
    config(format!(
        "{pattern}: not a usable pattern: {} (at sign {})",
        error.msg, error.pos
    ))
}

/// The objects that a pattern means: it is matched against whole keys, `*` never across a slash.
fn objects_matching(address: &str) -> Result<Vec<String>, TaskError> {
    let Some((bucket, pattern)) = opened(Path::new(address))? else {
        return Ok(Vec::new());
    };
    let Some(wild) = pattern.find(['*', '?', '[']) else {
        return Ok(vec![address.to_string()]);
    };
    // A name that exists is taken literally, here too.
    if found(&bucket, &pattern)?.is_some() {
        return Ok(vec![address.to_string()]);
    }
    let compiled = glob::Pattern::new(&pattern).map_err(|error| malformed(address, &error))?;
    let folder = pattern[..wild].rsplit_once('/').map_or("", |(folder, _)| folder);
    let listed = bucket
        .list(folder, MAX_LISTED)
        .map_err(|error| object_error("list", &error))?;
    if listed.len() > MAX_LISTED {
        return Err(config(format!(
            "{address}: there are more than {MAX_LISTED} objects to look through below {}; let the wildcard stand \
             further back in the key",
            bucket.url(folder)
        )));
    }
    let paths: Vec<String> = listed
        .iter()
        .filter(|found| compiled.matches_with(&found.key, MATCHING))
        .map(|found| bucket.url(&found.key))
        .collect();
    match paths.is_empty() {
        true => Err(config(format!(
            "no object matches {address} ({} objects lie below {})",
            listed.len(),
            bucket.url(folder)
        ))),
        false => Ok(paths),
    }
}

/// The bucket and key of an address; `None` for a path of a file system.
fn opened(path: &Path) -> Result<Option<(Bucket, String)>, TaskError> {
    object(path).map_err(|error| object_error("open", &error))
}

fn found(bucket: &Bucket, key: &str) -> Result<Option<Found>, TaskError> {
    bucket.head(key).map_err(|error| object_error("look at", &error))
}

/// An object that must be there.
fn there(bucket: &Bucket, key: &str) -> Result<Found, TaskError> {
    if let Some(found) = found(bucket, key)? {
        return Ok(found);
    }
    // A missing bucket has no better answer to a question for one object.
    bucket.list(key, 0).map_err(|error| object_error("read", &error))?;
    let missing = ObjectError::new(Trouble::NotFound, bucket.url(key), "there is no such object");
    Err(object_error("read", &missing))
}

/// The file that holds a unit, by its number in `files`, and the units that it holds. The first of `files` begins at
/// `first_unit`.
///
/// Errors: `Data` for a unit beyond the last file.
pub(crate) fn file_of(files: &[PinnedFile], first_unit: u64, unit: u64) -> Result<(usize, UnitRange), TaskError> {
    let mut low = first_unit;
    for (number, pinned) in files.iter().enumerate() {
        let units = UnitRange::new(low, low + pinned.units);
        if unit < units.high {
            return Ok((number, units));
        }
        low = units.high;
    }
    Err(data(format!(
        "position {unit} lies beyond the source's files, which end at {low}"
    )))
}

/// A file that is not what the plan was made for.
pub(crate) fn changed(path: &str, how: &str) -> TaskError {
    config(format!(
        "{path}: changed after planning ({how}); this run was planned for the old data: run the job again, then the step \
         begins anew with the new; or put the old file back, with its time and inode, before that"
    ))
}

/// Opens a file that a source names and pins it. `units` and `rows` are left for the format to fill.
///
/// Errors: `Config` for a missing or unreadable file, a folder, a pipe or a device.
pub fn pin(base_dir: &Path, path: &str) -> Result<(StoredFile, PinnedFile), TaskError> {
    let pinned = |size, etag| PinnedFile {
        path: path.to_string(),
        size,
        etag,
        units: 0,
        rows: None,
    };
    if let Some((bucket, key)) = opened(&resolve(base_dir, path))? {
        let found = there(&bucket, &key)?;
        let pinned = pinned(found.size, found.etag.clone());
        return Ok((StoredFile::Object(Arc::new(ObjectFile::new(bucket, found))), pinned));
    }
    let (file, meta) = open_regular(base_dir, path)?;
    let pinned = pinned(meta.len(), etag(&meta));
    Ok((StoredFile::Local(file), pinned))
}

/// A pinned file as it is now; `None` where it is gone.
///
/// Errors: as [`pin`], but for a missing file.
pub fn look(base_dir: &Path, pinned: &PinnedFile) -> Result<Option<PinnedFile>, TaskError> {
    if let Some((bucket, key)) = opened(&resolve(base_dir, &pinned.path))? {
        let found = found(&bucket, &key)?;
        return Ok(found.map(|found| PinnedFile {
            size: found.size,
            etag: found.etag,
            ..pinned.clone()
        }));
    }
    match base_dir.join(&pinned.path).metadata() {
        Ok(meta) => Ok(Some(PinnedFile {
            size: meta.len(),
            etag: etag(&meta),
            ..pinned.clone()
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(&pinned.path, "looking at", &error)),
    }
}

/// Whether there is anything of this name, be it a broken link.
pub(super) fn is_there(base_dir: &Path, path: &str) -> Result<bool, TaskError> {
    let full = resolve(base_dir, path);
    match opened(&full)? {
        Some((bucket, key)) => Ok(found(&bucket, &key)?.is_some()),
        None => {
            let looked = full.symlink_metadata();
            Ok(!matches!(looked, Err(error) if error.kind() == io::ErrorKind::NotFound))
        }
    }
}

/// Opens a pinned file again.
///
/// Errors: `Config` when it is missing or is no longer the file that was planned for.
pub fn open_pinned(base_dir: &Path, pinned: &PinnedFile) -> Result<StoredFile, TaskError> {
    if let Some((bucket, key)) = opened(&resolve(base_dir, &pinned.path))? {
        let found = there(&bucket, &key)?;
        check_pin(pinned, found.size, &found.etag)?;
        return Ok(StoredFile::Object(Arc::new(ObjectFile::new(bucket, found))));
    }
    let (file, meta) = open_regular(base_dir, &pinned.path)?;
    check_pin(pinned, meta.len(), &etag(&meta))?;
    Ok(StoredFile::Local(file))
}

fn check_pin(pinned: &PinnedFile, size: u64, etag: &str) -> Result<(), TaskError> {
    match size == pinned.size && etag == pinned.etag {
        true => Ok(()),
        false => {
            let how = format!("it had {} bytes, now {size}, or was written since", pinned.size);
            Err(changed(&pinned.path, &how))
        }
    }
}

fn open_regular(base_dir: &Path, path: &str) -> Result<(File, Metadata), TaskError> {
    let full = base_dir.join(path);
    // Asked before opening: opening a pipe would wait for its writer.
    let kind = full
        .metadata()
        .map_err(|error| io_error(path, "opening", &error))?
        .file_type();
    if kind.is_dir() {
        return Err(config(format!(
            "{path} is a folder; name the files in it, for example {}/*",
            path.trim_end_matches('/')
        )));
    }
    if !kind.is_file() {
        let what = if kind.is_fifo() { "a pipe" } else { "not a regular file" };
        return Err(config(format!(
            "{path} is {what}; a source must be a file that can be read again"
        )));
    }
    let file = File::open(&full).map_err(|error| io_error(path, "opening", &error))?;
    let meta = file.metadata().map_err(|error| io_error(path, "opening", &error))?;
    Ok((file, meta))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_sorted_and_literal_names_win() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.csv", "a.csv", "a[1].csv", ".hidden.csv"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(dir.path().join("c.csv")).unwrap();
        let expand = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            expand(dir.path(), &patterns).map_err(|error| error.message)
        };
        assert_eq!(expand(&["*.csv"]).unwrap(), ["a.csv", "a[1].csv", "b.csv"]);
        assert_eq!(expand(&["b.csv", "a[1].csv"]).unwrap(), ["b.csv", "a[1].csv"]);
        assert!(expand(&["a*.csv", "a.csv"]).unwrap_err().contains("named twice"));
        for other in ["./a.csv", "../%/a.csv"] {
            let name = dir.path().file_name().unwrap().to_str().unwrap();
            let other = other.replace('%', name);
            let told = format!("{other} is named twice by the source's paths, which also have it as a.csv; ");
            assert!(expand(&["a.csv", &other]).unwrap_err().starts_with(&told));
        }
        let absolute = dir.path().join("a.csv").display().to_string();
        assert!(expand(&[&absolute, "*.csv"]).unwrap_err().contains("named twice"));
        std::fs::hard_link(dir.path().join("a.csv"), dir.path().join("d.csv")).unwrap();
        std::os::unix::fs::symlink("b.csv", dir.path().join("e.csv")).unwrap();
        for (pattern, other) in [("[ad].csv", "a.csv"), ("[be].csv", "b.csv")] {
            let told = format!("which also have it as {other}; its records would be read twice");
            assert!(expand(&[pattern]).unwrap_err().ends_with(&told));
        }
        // Neither is there: whoever opens them tells.
        assert_eq!(expand(&["x.csv", "y.csv"]).unwrap(), ["x.csv", "y.csv"]);
        assert!(expand(&["x*.csv"]).unwrap_err().contains("no file matches x*.csv"));
        assert!(expand(&["ftp://bucket/x"]).unwrap_err().contains("known are s3://"));
    }

    #[test]
    fn only_the_pinned_regular_file_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "one").unwrap();
        let (_, pinned) = pin(dir.path(), "a").unwrap();
        assert!(open_pinned(dir.path(), &pinned).is_ok());
        std::fs::write(dir.path().join("b"), "two").unwrap();
        std::fs::rename(dir.path().join("b"), dir.path().join("a")).unwrap();
        let error = open_pinned(dir.path(), &pinned).unwrap_err();
        assert_eq!(error.class, ErrorClass::Config);
        assert!(error.message.contains("changed after planning"), "{error}");
        assert!(pin(dir.path(), "missing").unwrap_err().message.contains("no such file"));
        assert!(pin(dir.path(), ".").unwrap_err().message.contains("is a folder"));
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("p"), 0o600.into()).unwrap();
        assert!(pin(dir.path(), "p").unwrap_err().message.contains("is a pipe"));
    }
}

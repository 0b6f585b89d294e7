//! Files and their pins: which files a source names, and whether a file is still the one that the
//! plan was made for. The only place that opens source files.

use std::{
    collections::HashSet,
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use gapless_common::{
    error::{ErrorClass, TaskError},
    plan::PinnedFile,
};

/// A file can be matched by a pattern, but not without end: the list travels in one row.
pub const MAX_FILES: usize = 100_000;

pub(crate) fn config(message: impl Into<String>) -> TaskError {
    TaskError::new(ErrorClass::Config, message)
}

pub(crate) fn data(message: impl Into<String>) -> TaskError {
    TaskError::new(ErrorClass::Data, message)
}

/// What an IO error on a source file means for the task: a missing file or permission is a fault of
/// the job's surroundings, anything else may pass.
pub(crate) fn io_error(path: &str, doing: &str, error: &io::Error) -> TaskError {
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

/// Resolves the paths and globs of a source against `base_dir`, in order, each glob's matches sorted
/// by bytes. The answer keeps paths as they were written: relative ones stay relative to `base_dir`.
///
/// Errors: `Config` when a pattern matches nothing or is malformed, or a file is named twice (its
/// records would be read twice).
pub fn expand(base_dir: &Path, patterns: &[String]) -> Result<Vec<String>, TaskError> {
    if patterns.is_empty() {
        return Err(config("the source names no file: give it a path"));
    }
    let mut files = Vec::new();
    let mut seen = HashSet::new();
    for pattern in patterns {
        if let Some((scheme, _)) = pattern.split_once("://") {
            return Err(config(format!(
                "{pattern}: {scheme}:// paths cannot be read yet; use a local path"
            )));
        }
        for path in matches(base_dir, pattern)? {
            if !seen.insert(path.clone()) {
                return Err(config(format!(
                    "{path} is named twice by the source's paths; its records would be read twice"
                )));
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
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        // Hidden files are a tool's own: temporary names, control folders.
        require_literal_leading_dot: true,
    };
    let found = glob::glob_with(&full, options).map_err(|error| {
        config(format!(
            "{pattern}: not a usable pattern: {} (at sign {})",
            error.msg, error.pos
        ))
    })?;
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

/// Opens a file that a source names and pins it. `units` and `rows` are left for the format to fill.
///
/// Errors: `Config` for a missing or unreadable file, a folder, a pipe or a device.
pub fn pin(base_dir: &Path, path: &str) -> Result<(File, PinnedFile), TaskError> {
    let (file, meta) = open_regular(base_dir, path)?;
    let pinned = PinnedFile {
        path: path.to_string(),
        size: meta.len(),
        etag: etag(&meta),
        units: 0,
        rows: None,
    };
    Ok((file, pinned))
}

/// A pinned file as it is now; `None` where it is gone.
///
/// Errors: as [`pin`], but for a missing file.
pub fn look(base_dir: &Path, pinned: &PinnedFile) -> Result<Option<PinnedFile>, TaskError> {
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

/// Opens a pinned file again.
///
/// Errors: `Config` when it is missing or is no longer the file that was planned for.
pub fn open_pinned(base_dir: &Path, pinned: &PinnedFile) -> Result<File, TaskError> {
    let (file, meta) = open_regular(base_dir, &pinned.path)?;
    if meta.len() != pinned.size || etag(&meta) != pinned.etag {
        return Err(config(format!(
            "{}: changed after planning (it had {} bytes, now {}, or was written since); this run was planned for the \
             old data: `gapless cancel` it, then submit the job again to plan for the new",
            pinned.path,
            pinned.size,
            meta.len()
        )));
    }
    Ok(file)
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
        assert!(expand(&["x*.csv"]).unwrap_err().contains("no file matches x*.csv"));
        assert!(expand(&["s3://bucket/x"]).unwrap_err().contains("s3://"));
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

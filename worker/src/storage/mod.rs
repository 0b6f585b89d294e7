//! Storage: the only room that makes files durable and knows where the files of a step lie.
//!
//! A place is a path; `place` tells those of object stores from those of file systems, and every
//! function here takes either.
//!
//! object_store does not fsync local files and a plain rename overwrites silently, so local output
//! goes through this small writer: content synced, name created once, folder synced.

mod durable;
mod flusher;
mod folders;
mod place;
mod spill;
mod stored;

use std::{io, path::Path};

use gapless_common::error::{ErrorClass, TaskError};

pub use durable::{
    Created, DurableFile, SealedFile, create_durable, create_folder, create_once, exchange_folders, file_exists,
    folder_exists, link_file, list_folder, move_folder, read_if_present, remove_tree, sync_folder, write_new,
};
pub use folders::{CERTIFICATE_PREFIX, CONTROL_SUBFOLDER, ChunkName, FirstUnit, StepFolders, staged_below};
pub use place::{is_object, object_error, resolve};
pub(crate) use place::{object, object_error_in};
pub use spill::{SpillFolder, spill_folder, sweep_spill};
pub use stored::{FromOffset, StoredFile};

/// What kind of trouble an error of the file system is.
///
/// A full disk or table may be better elsewhere or later; a missing permission will not mend
/// itself; everything else is worth another try.
pub fn classify(error: &io::Error) -> ErrorClass {
    use rustix::io::Errno;
    if let Some(error) = object_error_in(error) {
        return object_error("", error).class;
    }
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        // The kernel reports a file system without free inodes as ENOSPC too.
        Some(Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::FBIG | Errno::MLINK) => {
            ErrorClass::Resource
        }
        Some(
            Errno::ACCESS
            | Errno::PERM
            | Errno::ROFS
            | Errno::NOTDIR
            | Errno::ISDIR
            | Errno::NAMETOOLONG
            | Errno::LOOP
            | Errno::XDEV
            | Errno::OPNOTSUPP
            | Errno::INVAL,
        ) => ErrorClass::Config,
        _ => ErrorClass::Transient,
    }
}

/// An error of the file system as a task reports it: what was tried, where, and the remedy.
///
/// `action` completes "cannot …".
pub fn io_error(action: &str, path: &Path, error: &io::Error) -> TaskError {
    if let Some(error) = object_error_in(error) {
        return object_error(action, error);
    }
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let left = match errno {
        Some(Errno::NOSPC) => left_at(path),
        _ => String::new(),
    };
    let remedy = match errno {
        Some(Errno::NOSPC | Errno::DQUOT) => "; free space or inodes there, then the run goes on",
        Some(Errno::MFILE | Errno::NFILE) => "; raise the limit of open files (ulimit -n) or use fewer slots",
        Some(Errno::ACCESS | Errno::PERM) => "; give the worker's user write permission there",
        Some(Errno::ROFS) => "; the file system is mounted read-only",
        Some(Errno::NOTDIR) => "; a part of the path is a file where a folder is needed",
        Some(Errno::NAMETOOLONG) => "; a name may be at most 255 bytes long",
        Some(Errno::XDEV) => "; the output must not be a mount point: choose a folder below it",
        Some(Errno::OPNOTSUPP | Errno::INVAL) => "; the file system cannot do what publishing once needs",
        _ => "",
    };
    TaskError::new(
        classify(error),
        format!("cannot {action} {}: {error}{left}{remedy}", path.display()),
    )
}

/// What is free on the file system of a path, or of the folder that it was to be made in; empty where that cannot be told.
fn left_at(path: &Path) -> String {
    let Some(stat) = path.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok()) else {
        return String::new();
    };
    let mib = |blocks: u64| blocks.saturating_mul(stat.f_frsize) >> 20;
    let inodes = match stat.f_files {
        // There is no table of them.
        0 => String::new(),
        all => format!(", {} of {all} inodes", stat.f_favail),
    };
    format!(
        " (free there by now: {} of {} MiB{inodes})",
        mib(stat.f_bavail),
        mib(stat.f_blocks)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn errors_are_classed_by_what_helps() {
        let cases = [
            (Errno::NOSPC, ErrorClass::Resource),
            (Errno::DQUOT, ErrorClass::Resource),
            (Errno::MFILE, ErrorClass::Resource),
            (Errno::ACCESS, ErrorClass::Config),
            (Errno::ROFS, ErrorClass::Config),
            (Errno::NOTDIR, ErrorClass::Config),
            (Errno::IO, ErrorClass::Transient),
            (Errno::NOENT, ErrorClass::Transient),
            (Errno::STALE, ErrorClass::Transient),
        ];
        for (errno, class) in cases {
            let error = io::Error::from(errno);
            assert_eq!(classify(&error), class, "{errno:?}");
            assert!(
                io_error("write", Path::new("/out/x"), &error)
                    .message
                    .contains("/out/x")
            );
        }
    }
}

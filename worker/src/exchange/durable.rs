//! Durable files of the exchange. In a folder: written under a temporary name, fsynced, linked to their final name, and
//! the folder fsynced. In an object store: uploaded under their final name. The one place of this module that creates
//! files.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use gapless_common::error::{ErrorClass, TaskError};
use gapless_platform::objects::Upload;

use crate::storage::{io_error, object, object_error};

/// Size of one write: larger ones stall on page allocation (one of 36 MB took five times as long).
pub(super) const WRITE_PIECE: usize = 256 * 1024;

/// A file that is written but not yet durable, and not yet visible under its name. Its temporary
/// name goes with it.
pub(super) struct StagedFile {
    target: Target,
    temporary: PathBuf,
    path: PathBuf,
    bytes: u64,
}

enum Target {
    Local(File),
    /// Where scratch, or for rejects the sink, is in an object store.
    Object(Upload),
}

impl StagedFile {
    /// Creates the file under a temporary name beside `path`. Its folder must be there: prepare made
    /// it, and an attempt that comes too late must not make it again.
    pub(super) fn create(path: PathBuf) -> Result<Self, TaskError> {
        if let Some((bucket, key)) = object(&path).map_err(|error| object_error("open", &error))? {
            return Ok(Self {
                target: Target::Object(bucket.upload(&key)),
                temporary: PathBuf::new(),
                path,
                bytes: 0,
            });
        }
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        // An attempt's names are its own, so a file left under the temporary one is from a chunk
        // that the same attempt gave up.
        let file = File::create(&temporary).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => gone(&path),
            _ => io_error("create", &temporary, &error),
        })?;
        Ok(Self {
            target: Target::Local(file),
            temporary,
            path,
            bytes: 0,
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), TaskError> {
        match &mut self.target {
            Target::Local(file) => {
                for piece in bytes.chunks(WRITE_PIECE) {
                    file.write_all(piece)
                        .map_err(|error| io_error("write", &self.temporary, &error))?;
                }
            }
            Target::Object(upload) => upload.write(bytes).map_err(|error| object_error("write", &error))?,
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes content and name durable. Slow (a disk's flush): called by the thread that commits.
    pub(super) fn publish(mut self) -> Result<(), TaskError> {
        let file = match &mut self.target {
            Target::Local(file) => file,
            Target::Object(upload) => {
                let sealed = upload.finish().wait();
                return sealed.map_err(|error| object_error("write", &error));
            }
        };
        file.sync_all()
            .map_err(|error| io_error("make durable", &self.temporary, &error))?;
        fs::hard_link(&self.temporary, &self.path).map_err(|error| io_error("create", &self.path, &error))?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| io_error("make durable the folder", folder, &error))
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if matches!(self.target, Target::Object(_)) {
            return;
        }
        // Of no consequence when it fails: the scratch folder is swept with its run.
        let _ = fs::remove_file(&self.temporary);
    }
}

fn gone(path: &Path) -> TaskError {
    let message = format!(
        "cannot create {}: its folder is not there; either the step is settled already, or this worker does not see \
         the scratch folder: share it between the machines",
        path.display()
    );
    TaskError::new(ErrorClass::Transient, message)
}

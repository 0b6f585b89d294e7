//! What lies beside a chunk's data: its quarantined records and its manifest.

use std::io::Write;

use gapless_common::{
    error::{ErrorClass, TaskError},
    ids::PartitionNo,
    manifest::{ChunkManifest, DataFile},
};
use serde::Serialize;

use super::open::ChunkTarget;
use crate::{
    source::Reject,
    storage::{CONTROL_SUBFOLDER, DurableFile, io_error, sync_folder, write_new},
};

/// Lines are handed on in pieces of about this size.
const BUFFER_BYTES: usize = 256 * 1024;

/// One line of a rejects file.
#[derive(Serialize)]
pub(crate) struct RejectLine<'a> {
    pub partition: PartitionNo,
    #[serde(flatten)]
    pub reject: &'a Reject,
}

impl ChunkTarget {
    /// Writes the quarantined records of the chunk durably, one JSON object a line; `None` without any.
    pub fn write_rejects(&self, rejects: &[Reject]) -> Result<Option<DataFile>, TaskError> {
        if rejects.is_empty() {
            return Ok(None);
        }
        let path = self.folders.rejects_file(self.chunk);
        let mut file = DurableFile::create(path.clone())?;
        let mut buffer = Vec::new();
        for reject in rejects {
            serde_json::to_writer(
                &mut buffer,
                &RejectLine {
                    partition: self.chunk.partition,
                    reject,
                },
            )
            .map_err(|error| TaskError::new(ErrorClass::Data, format!("a rejected record has no JSON: {error}")))?;
            buffer.push(b'\n');
            if buffer.len() >= BUFFER_BYTES {
                file.write_all(&buffer)
                    .map_err(|error| io_error("write", &path, &error))?;
                buffer.clear();
            }
        }
        file.write_all(&buffer)
            .map_err(|error| io_error("write", &path, &error))?;
        let (bytes, checksum) = file.seal().wait()?;
        sync_folder(&self.folders.rejects())?;
        Ok(Some(DataFile {
            path: format!("{CONTROL_SUBFOLDER}/rejects/{}.ndjson", self.chunk),
            rows: rejects.len() as u64,
            bytes,
            checksum: format!("{checksum:016x}"),
            multiline: false,
        }))
    }

    /// Writes the chunk's manifest durably and returns its digest (XXH3-64), which the commit
    /// carries. A chunk of a sink that keeps nothing, without rejects, control totals and marks of a merge, has no manifest:
    /// digest 0.
    pub fn write_manifest(&self, manifest: &ChunkManifest) -> Result<u64, TaskError> {
        let nothing_to_tell = manifest.files.is_empty()
            && manifest.rejects.is_none()
            && manifest.totals.is_empty()
            && manifest.inputs.is_empty()
            && manifest.keys.is_none();
        if self.discards && nothing_to_tell {
            return Ok(0);
        }
        let path = self.folders.manifest_file(self.chunk);
        let content = serde_json::to_vec(manifest)
            .map_err(|error| TaskError::new(ErrorClass::Data, format!("a manifest has no JSON: {error}")))?;
        write_new(path, &content)
    }
}

//! Whether what was published is still there: the files of a verdict, against the folder that they were published in.

use std::{
    io::{self, ErrorKind, Read},
    path::Path,
};

use gapless_common::{
    certificate::Certificate,
    error::TaskError,
    ids::RunId,
    job::{Exists, IfUnchanged, Step},
    manifest::{DataFile, Verdict, VerdictKind},
};
use gapless_platform::objects::Trouble;
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use super::verdict::{last_committed, verdicts_from};
use crate::storage::{StepFolders, StoredFile, io_error, object_error_in};

/// Bytes of a file that are compared at once.
const PIECE: usize = 1 << 20;

/// How closely a file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Size,
    Content,
}

/// A file of an output that is not what was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub path: String,
    /// In words.
    pub what: String,
}

/// Whether each file that a certificate's run has published is there, byte for byte. `None` where no record of the
/// publication is at hand, as with an output that was copied elsewhere.
///
/// Errors: those of reading the record.
pub fn look_at_output(certificate: &Certificate) -> Result<Option<Vec<Damage>>, TaskError> {
    let reading = &certificate.reading;
    let Some(step) = reading.job.steps.get(usize::from(certificate.step)) else {
        return Ok(None);
    };
    if step.sink.file().is_none() {
        return Ok(None);
    }
    let base_dir = Path::new(&reading.base_dir);
    let folders = StepFolders::new(&step.sink, base_dir, base_dir, certificate.run, certificate.step)?;
    let verdict = verdicts_from(&folders, 0)?.into_iter().rfind(|verdict| {
        let ours = (verdict.run, verdict.step) == (certificate.run, certificate.step);
        ours && verdict.verdict == VerdictKind::Committed
    });
    Ok(verdict.map(|verdict| damages(&folders, &verdict, Look::Content).collect()))
}

/// The path of the certificate whose output stands at a step's sink, each of its files there and of its size. Asked
/// only for steps that may be skipped, and of sinks with one output at a time.
///
/// Errors: those of reading the record.
pub fn standing_certificate(step: &Step, base_dir: &Path) -> Result<Option<String>, TaskError> {
    let has_one = step.sink.file().is_some_and(|file| file.exists != Exists::Append);
    if step.if_unchanged != IfUnchanged::Skip || !has_one {
        return Ok(None);
    }
    // Verdicts lie in a folder that all runs share.
    let any = StepFolders::new(&step.sink, base_dir, base_dir, RunId(Uuid::nil()), 0)?;
    let Some(verdict) = last_committed(&any)? else {
        return Ok(None);
    };
    let is_whole = damages(&any, &verdict, Look::Size).next().is_none();
    let certificate = any.certificate_of(verdict.run, verdict.step);
    Ok(is_whole.then(|| certificate.display().to_string()))
}

fn damages<'a>(folders: &'a StepFolders, verdict: &'a Verdict, look: Look) -> impl Iterator<Item = Damage> + 'a {
    verdict.files.iter().filter_map(move |file| {
        let path = folders.output().join(&file.path);
        let what = damage(&path, file, look)?;
        Some(Damage {
            path: path.display().to_string(),
            what,
        })
    })
}

fn damage(path: &Path, file: &DataFile, look: Look) -> Option<String> {
    let opened = match StoredFile::open(path) {
        Ok(opened) => opened,
        Err(error) if is_gone(&error) => return Some("is missing".to_string()),
        Err(error) => return Some(io_error("open", path, &error).message),
    };
    let size = match opened.size() {
        Ok(size) => size,
        Err(error) => return Some(io_error("read", path, &error).message),
    };
    if size != file.bytes {
        return Some(format!("has {size} bytes, and {} were published", file.bytes));
    }
    if look == Look::Size {
        return None;
    }
    match checksum(opened) {
        Ok(sum) if sum == file.checksum => None,
        Ok(sum) => Some(format!(
            "is not what was published: its checksum is {sum}, and was {}",
            file.checksum
        )),
        Err(error) => Some(io_error("read", path, &error).message),
    }
}

fn is_gone(error: &io::Error) -> bool {
    let of_object = object_error_in(error).is_some_and(|error| error.trouble == Trouble::NotFound);
    of_object || error.kind() == ErrorKind::NotFound
}

fn checksum(file: StoredFile) -> io::Result<String> {
    let mut hash = Xxh3::new();
    let mut piece = vec![0; PIECE];
    let mut reader = file.into_reader();
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok(format!("{:016x}", hash.digest())),
            got => hash.update(&piece[..got]),
        }
    }
}

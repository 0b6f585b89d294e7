//! A job file as it is handed to a coordinator: its text, unread, and the folder it lies in.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use gapless_common::job::MAX_TEXT_BYTES;

use crate::{
    arguments::JobArguments,
    failure::{Failure, Kind},
};

/// The text of a job and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFile {
    /// As the user named it, for messages.
    pub name: String,
    pub text: String,
    /// Beside the text: what makes it a redrive, empty where it is none.
    pub redrive: String,
    /// Absolute folder against which the job's relative paths are resolved.
    pub base_dir: String,
}

impl JobFile {
    /// Reads a job file, or stdin for `-`, whose folder is the current one.
    ///
    /// Errors: not found, denied, or invalid where it cannot be a job file at all.
    pub fn read(path: &Path) -> Result<JobFile, Failure> {
        let name = path.display().to_string();
        let (folder, bytes) = if path == Path::new("-") {
            (PathBuf::from("."), read_bounded(io::stdin()))
        } else {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            (
                folder.unwrap_or(Path::new(".")).to_path_buf(),
                fs::File::open(path).and_then(read_bounded),
            )
        };
        let bytes = bytes.map_err(|error| unreadable(&name, &error))?;
        if bytes.len() > MAX_TEXT_BYTES {
            let message =
                format!("{name} is longer than {MAX_TEXT_BYTES} bytes, which no job file may be; is it data?");
            return Err(Failure::new(Kind::Invalid, message));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Failure::new(
                Kind::Invalid,
                format!("{name} is no UTF-8 text (byte {at}); a job file is YAML in UTF-8"),
            )
        })?;
        let base_dir = absolute(&folder)?.display().to_string();
        Ok(JobFile {
            name,
            text,
            redrive: String::new(),
            base_dir,
        })
    }
}

fn read_bounded(file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    let message = format!("cannot read the job file {name}: {error}");
    match error.kind() {
        io::ErrorKind::NotFound => Failure::new(Kind::NotFound, message),
        io::ErrorKind::PermissionDenied => Failure::new(Kind::Denied, message),
        _ => Failure::usage(message),
    }
}

/// The path with all links resolved, so that it means the same to every process of this machine.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|error| {
        let here = env::current_dir().map_or(String::new(), |here| format!(" (from {})", here.display()));
        Failure::new(Kind::NotFound, format!("no folder {}{here}: {error}", path.display()))
    })
}

impl JobArguments {
    /// The parameters by name.
    ///
    /// Errors: one was given twice.
    pub fn parameters(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut parameters = BTreeMap::new();
        for (name, value) in &self.parameters {
            if parameters.insert(name.clone(), value.clone()).is_some() {
                return Err(Failure::usage(format!(
                    "the parameter `{name}` is given twice; give it once"
                )));
            }
        }
        Ok(parameters)
    }
}

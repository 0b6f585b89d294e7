//! Making a publication visible in an object store, where nothing is moved: each object is copied to its
//! final key within the store, the certificate comes last and tells that all is there.
//!
//! Whoever only lists may see a part of it meanwhile; the verdict lists what counts. Every final key
//! carries the generation, so that no publisher, however late, touches an object of another one.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use gapless_common::{
    error::{ErrorClass, TaskError},
    job::Exists,
    manifest::{DataFile, VerdictKind},
};
use gapless_platform::objects::{Bucket, MAX_COPY};

use super::{
    Action, Gate,
    expose::{Exposure, appended_name, rejects_name},
    prepare::check_replaceable,
    reconcile::Accounts,
    verdict::verdicts_from,
};
use crate::storage::{CONTROL_SUBFOLDER, Created, StepFolders, create_once, object, object_error};

/// Objects of one output that are looked through: 100,000 files of a verdict, their rejects, and what
/// former generations left.
const MAX_LISTED: usize = 1_000_000;

/// Objects that are copied between two looks at whether to go on.
const STRETCH: usize = 64;

/// Checks that all that was committed lies staged, with the length that was written.
pub(super) fn check_staged(folders: &StepFolders, accounts: &Accounts) -> Result<(), TaskError> {
    let (bucket, data) = placed(&folders.data())?;
    let (_, rejects) = placed(&folders.rejects())?;
    let mut staged: HashMap<String, u64> = HashMap::new();
    for prefix in [&data, &rejects] {
        staged.extend(list(&bucket, prefix)?.into_iter().map(|found| (found.key, found.size)));
    }
    for file in &accounts.files {
        check(&bucket, &staged, &key_of(&folders.data_file(&file.path))?, file.bytes)?;
    }
    for (chunk, file) in &accounts.rejects {
        check(&bucket, &staged, &key_of(&folders.rejects_file(*chunk))?, file.bytes)?;
    }
    Ok(())
}

fn check(bucket: &Bucket, staged: &HashMap<String, u64>, key: &str, bytes: u64) -> Result<(), TaskError> {
    let shown = bucket.url(key);
    match staged.get(key) {
        None => Err(TaskError::new(
            ErrorClass::Transient,
            format!(
                "{shown} is not there; it was committed: either the step is settled already, or it was removed by hand"
            ),
        )),
        Some(&found) if found != bytes => Err(TaskError::new(
            ErrorClass::Data,
            format!(
                "{shown} has {found} bytes where {bytes} were written; something else changed it: run the job anew"
            ),
        )),
        Some(_) if bytes > MAX_COPY => Err(TaskError::new(
            ErrorClass::Config,
            format!(
                "{shown} has {bytes} bytes, more than a store copies in one request ({} GiB): write more files (`files`)",
                MAX_COPY >> 30
            ),
        )),
        Some(_) => Ok(()),
    }
}

/// Copies to the final keys, removes what is replaced, and writes the certificate. Any part may have
/// been done before, also by others at the same time.
pub(super) fn expose(
    exposure: &Exposure<'_>,
    accounts: &Accounts,
    files: &[DataFile],
    generation: u64,
    gate: &mut Gate<'_>,
) -> Result<(), TaskError> {
    let folders = exposure.folders;
    let (bucket, output) = placed(folders.output())?;
    let final_key = |rel: &str| format!("{output}/{rel}");
    let mut copies = Vec::with_capacity(files.len() + accounts.rejects.len());
    for (staged, shown) in accounts.files.iter().zip(files) {
        copies.push((key_of(&folders.data_file(&staged.path))?, final_key(&shown.path)));
    }
    for (chunk, _) in &accounts.rejects {
        let shown = appended_name(&rejects_name(*chunk), generation);
        copies.push((key_of(&folders.rejects_file(*chunk))?, final_key(&shown)));
    }
    // Before the verdicts are read: what comes later is not in it, and stays.
    let present = list(&bucket, &output)?;
    let ours: HashSet<&String> = copies.iter().map(|(_, to)| to).collect();
    match exposure.exists {
        Exists::Append => {}
        Exists::Fail => {
            if let Some(other) = present.iter().find(|found| !ours.contains(&found.key)) {
                return Err(TaskError::new(
                    ErrorClass::Config,
                    format!(
                        "{} has come to be since this step began ({}); the step is committed but not visible: move what \
                         lies there away, then submit the job again",
                        folders.output().display(),
                        bucket.url(&other.key)
                    ),
                ));
            }
        }
        // Somebody may have made it since prepare looked.
        Exists::Replace if present.iter().any(|found| !ours.contains(&found.key)) => check_replaceable(folders)?,
        Exists::Replace => {}
    }
    for stretch in copies.chunks(STRETCH) {
        bucket.copy(stretch).map_err(|error| object_error("publish", &error))?;
        gate(Action::Linked)?;
    }
    let later = Later::read(folders, generation)?;
    if later.replaces {
        // Held up for so long that a later publication has taken the place: nothing of this one comes back.
        let ours: Vec<String> = ours.into_iter().cloned().collect();
        return bucket.delete(&ours).map_err(|error| object_error("remove", &error));
    }
    if exposure.exists == Exists::Replace {
        let certificate = final_key(&folders.certificate_name());
        let former: Vec<String> = present
            .iter()
            .filter(|found| !ours.contains(&found.key) && found.key != certificate)
            .filter(|found| !later.has(found.key.strip_prefix(&format!("{output}/")).unwrap_or_default()))
            .map(|found| found.key.clone())
            .collect();
        bucket.delete(&former).map_err(|error| object_error("remove", &error))?;
        gate(Action::Linked)?;
    }
    let certificate = serde_json::to_vec_pretty(&accounts.certificate)
        .map_err(|error| TaskError::new(ErrorClass::Data, format!("a certificate has no JSON: {error}")))?;
    // Last: it tells that all is there. Whoever was first wrote the same.
    match create_once(&folders.certificate(), "", &certificate)? {
        Created::Created | Created::Exists(_) => Ok(()),
    }
}

/// What publications after this one have shown: they may have come while this one was held up.
struct Later {
    files: HashSet<String>,
    /// Whether one of them is all that its output consists of.
    replaces: bool,
    /// Ends of names of rejects, certificates.
    ends: Vec<String>,
}

impl Later {
    fn read(folders: &StepFolders, generation: u64) -> Result<Later, TaskError> {
        let verdicts = verdicts_from(folders, generation + 1)?;
        let committed = verdicts
            .iter()
            .filter(|verdict| verdict.verdict == VerdictKind::Committed);
        let mut later = Later {
            files: HashSet::new(),
            replaces: false,
            ends: Vec::new(),
        };
        for verdict in committed {
            later.replaces |= verdict.replaces;
            later.files.extend(verdict.files.iter().map(|file| file.path.clone()));
            later.ends.push(format!("-g{}.ndjson", verdict.generation));
            later.ends.push(format!("-{}-{}.json", verdict.step, verdict.run));
        }
        Ok(later)
    }

    fn has(&self, rel: &str) -> bool {
        self.files.contains(rel)
            || (rel.starts_with(CONTROL_SUBFOLDER) && self.ends.iter().any(|end| rel.ends_with(end)))
    }
}

fn list(bucket: &Bucket, prefix: &str) -> Result<Vec<gapless_platform::objects::Found>, TaskError> {
    let found = bucket
        .list(prefix, MAX_LISTED)
        .map_err(|error| object_error("list", &error))?;
    if found.len() > MAX_LISTED {
        return Err(TaskError::new(
            ErrorClass::Config,
            format!(
                "there are more than {MAX_LISTED} objects below {}; write to another path",
                bucket.url(prefix)
            ),
        ));
    }
    Ok(found)
}

fn placed(path: &Path) -> Result<(Bucket, String), TaskError> {
    object(path)
        .map_err(|error| object_error("open", &error))?
        .ok_or_else(|| TaskError::new(ErrorClass::Config, format!("{} is no address", path.display())))
}

fn key_of(path: &Path) -> Result<String, TaskError> {
    placed(path).map(|(_, key)| key)
}

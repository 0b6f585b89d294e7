//! Laying out a publication, and the moves by which it becomes visible. Each can be repeated.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use gapless_common::{
    attempt::Fence,
    error::{ErrorClass, TaskError},
    job::Exists,
    manifest::DataFile,
};

use super::{
    Action, Gate, objects,
    prepare::{check_replaceable, parent_of},
    reconcile::Accounts,
};
use crate::storage::{
    CONTROL_SUBFOLDER, ChunkName, StepFolders, create_folder, exchange_folders, file_exists, io_error, is_object,
    link_file, list_folder, move_folder, remove_tree, sync_folder, write_new,
};

/// How one step is published.
pub(super) struct Exposure<'a> {
    pub folders: &'a StepFolders,
    pub fence: Fence,
    pub exists: Exists,
}

impl Exposure<'_> {
    /// Lays out the folder that will be seen: links to the data files, the rejects, the certificate.
    /// An appended output is linked file by file later, since its names carry the generation.
    pub fn lay_out(&self, accounts: &Accounts) -> Result<(), TaskError> {
        if is_object(self.folders.output()) {
            return objects::check_staged(self.folders, accounts);
        }
        let place = self.folders.publication(self.fence.id);
        // Of an earlier life of this attempt.
        remove_tree(&place)?;
        create_folder(&place)?;
        let mut tree = Tree::new(place);
        tree.folder(&format!("{CONTROL_SUBFOLDER}/rejects"))?;
        for (chunk, file) in &accounts.rejects {
            tree.link(&self.folders.rejects_file(*chunk), &rejects_name(*chunk), file.bytes)?;
        }
        if self.exists != Exists::Append {
            for file in &accounts.files {
                tree.link(&self.folders.data_file(&file.path), &file.path, file.bytes)?;
            }
        }
        let certificate = serde_json::to_vec_pretty(&accounts.certificate)
            .map_err(|error| TaskError::new(ErrorClass::Data, format!("a certificate has no JSON: {error}")))?;
        write_new(tree.root.join(self.folders.certificate_name()), &certificate)?;
        tree.sync()?;
        sync_folder(self.folders.staged())
    }

    /// Whether the output shows this step. The certificate comes with the folder, or last.
    pub fn is_exposed(&self) -> Result<bool, TaskError> {
        file_exists(&self.folders.certificate())
    }

    /// Makes visible what was laid out by this attempt. `files` are those of the verdict, in the
    /// order of `accounts`. An error may also mean that another publisher was faster: ask
    /// [`is_exposed`](Self::is_exposed) then.
    pub fn expose(
        &self,
        accounts: &Accounts,
        files: &[DataFile],
        generation: u64,
        gate: &mut Gate<'_>,
    ) -> Result<(), TaskError> {
        let (place, output) = (self.folders.publication(self.fence.id), self.folders.output());
        if is_object(output) {
            return objects::expose(self, accounts, files, generation, gate);
        }
        match self.exists {
            Exists::Append => self.append(accounts, files, generation, &place, gate),
            Exists::Fail => {
                if move_folder(&place, output)? {
                    return Ok(());
                }
                Err(TaskError::new(
                    ErrorClass::Config,
                    format!(
                        "{} has come to be since this step began, and is not empty; the step is committed but not \
                         visible: move that folder away, then submit the job again",
                        output.display()
                    ),
                ))
            }
            Exists::Replace => {
                if move_folder(&place, output)? {
                    return Ok(());
                }
                // Somebody may have made it since prepare looked.
                check_replaceable(self.folders)?;
                // The former output comes to lie in this attempt's folder and is swept with it.
                exchange_folders(&place, output)
            }
        }
    }

    fn append(
        &self,
        accounts: &Accounts,
        files: &[DataFile],
        generation: u64,
        place: &Path,
        gate: &mut Gate<'_>,
    ) -> Result<(), TaskError> {
        let output = self.folders.output();
        create_folder(output)?;
        let mut tree = Tree::new(output.to_path_buf());
        for (staged, shown) in accounts.files.iter().zip(files) {
            tree.link(&self.folders.data_file(&staged.path), &shown.path, staged.bytes)?;
            gate(Action::Linked)?;
        }
        for (chunk, file) in &accounts.rejects {
            let name = rejects_name(*chunk);
            tree.link(&place.join(&name), &appended_name(&name, generation), file.bytes)?;
            gate(Action::Linked)?;
        }
        tree.folder(CONTROL_SUBFOLDER)?;
        tree.sync()?;
        sync_folder(parent_of(output))?;
        // Last: it tells that all is there.
        let certificate = self.folders.certificate_name();
        match fs::hard_link(place.join(&certificate), output.join(&certificate)) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(io_error("create", &output.join(&certificate), &error));
            }
            _ => {}
        }
        sync_folder(&output.join(CONTROL_SUBFOLDER))
    }
}

/// Where the quarantined records of a chunk are found in the output.
pub(super) fn rejects_name(chunk: ChunkName) -> String {
    format!("{CONTROL_SUBFOLDER}/rejects/{chunk}.ndjson")
}

/// The name under which an appended file is seen. Attempts are numbered by their store, and several
/// stores may append to one output: the generation tells their files apart.
pub(super) fn appended_name(rel: &str, generation: u64) -> String {
    let (folder, name) = rel.rsplit_once('/').map_or(("", rel), |(folder, name)| (folder, name));
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    let slash = if folder.is_empty() { "" } else { "/" };
    format!("{folder}{slash}{stem}-g{generation}.{extension}")
}

/// A folder that is being filled, and which of its folders have new names.
struct Tree {
    root: PathBuf,
    changed: BTreeSet<PathBuf>,
}

impl Tree {
    fn new(root: PathBuf) -> Self {
        Self {
            changed: BTreeSet::from([root.clone()]),
            root,
        }
    }

    /// Creates a folder below the root, never the root itself.
    fn folder(&mut self, rel: &str) -> Result<PathBuf, TaskError> {
        let mut path = self.root.clone();
        for part in rel.split('/').filter(|part| !part.is_empty()) {
            path.push(part);
            if self.changed.insert(path.clone()) {
                create_folder(&path)?;
            }
        }
        Ok(path)
    }

    fn link(&mut self, from: &Path, rel: &str, bytes: u64) -> Result<(), TaskError> {
        let (folder, _) = rel.rsplit_once('/').unwrap_or(("", rel));
        self.folder(folder)?;
        let length = fs::metadata(from).map_err(|error| missing(from, &error))?.len();
        if length != bytes {
            return Err(TaskError::new(
                ErrorClass::Data,
                format!(
                    "{} has {length} bytes where {bytes} were written; something else changed it: run the job anew",
                    from.display()
                ),
            ));
        }
        link_file(from, &self.root.join(rel))
    }

    fn sync(&self) -> Result<(), TaskError> {
        self.changed.iter().try_for_each(|path| sync_folder(path))
    }
}

/// A committed file that is not there is lost data, unless the whole step was swept meanwhile.
fn missing(path: &Path, error: &std::io::Error) -> TaskError {
    let mut task_error = io_error("publish", path, error);
    if error.kind() == std::io::ErrorKind::NotFound {
        task_error
            .message
            .push_str("; it was committed: either the step is settled already, or it was removed by hand");
    }
    task_error
}

/// Removes what this step has staged. It is moved aside in one step first, so that no other attempt
/// of the step, however late, finds anything to add to or to publish.
pub(super) fn sweep(folders: &StepFolders, fence: Fence, gate: &mut Gate<'_>) -> Result<(), TaskError> {
    let mut parents = BTreeSet::new();
    for place in [folders.staged(), folders.scratch()] {
        if is_object(place) {
            continue;
        }
        let parent = parent_of(place);
        parents.insert(parent.to_path_buf());
        let aside = parent.join(format!("{}{}", folders.swept_prefix(), fence.id));
        // Of an earlier life of this attempt; a rename needs the name free.
        remove_tree(&aside)?;
        match fs::rename(place, &aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("move aside", place, &error));
            }
            _ => {}
        }
    }
    gate(Action::MovedAway)?;
    // Objects are not moved. Whoever comes late reads the verdict and the certificate before it acts, and sweeps
    // behind itself.
    sweep_objects(folders)?;
    for parent in parents {
        for name in list_folder(&parent)? {
            if name.starts_with(&folders.swept_prefix()) {
                remove_tree(&parent.join(name))?;
            }
        }
    }
    gate(Action::Swept)
}

/// Removes what this step has staged in object stores, parts of uploads that have no end too.
pub(super) fn sweep_objects(folders: &StepFolders) -> Result<(), TaskError> {
    let places = BTreeSet::from([folders.staged(), folders.scratch()]);
    let objects = places.into_iter().filter(|place| is_object(place));
    objects.into_iter().try_for_each(remove_tree)
}

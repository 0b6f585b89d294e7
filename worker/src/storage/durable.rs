//! Files and folders whose content and names survive a power cut, and names that are created once.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use gapless_common::error::{ErrorClass, TaskError};
use gapless_platform::objects::{self, Bucket, ObjectError, Upload};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use xxhash_rust::xxh3::Xxh3;

use super::{
    flusher::{self, Pending, Tracked},
    io_error, is_object, object, object_error,
};

/// After so many bytes the disk is told to begin, so that little is left when the file is sealed.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// A new file or object that is written front to back. Nothing of it counts before [`SealedFile::wait`]; a file
/// that is dropped before that is removed, so that the same attempt can make it anew, and an object never comes to be.
pub struct DurableFile {
    path: PathBuf,
    uncounted: Uncounted,
    target: Target,
    hash: Box<Xxh3>,
    bytes: u64,
    since_write_back: u64,
}

enum Target {
    Local(Arc<Tracked>),
    Object(Upload),
}

impl DurableFile {
    /// Creates `path`, which must not exist: names carry the attempt, so that an existing file was
    /// written by an earlier life of the same attempt and may already count.
    /// Of an object that is found when it is sealed.
    pub fn create(path: PathBuf) -> Result<Self, TaskError> {
        let (target, uncounted) = match placed(&path)? {
            Some((bucket, key)) => (Target::Object(bucket.upload(&key)), None),
            None => (
                Target::Local(Tracked::new(Self::create_local(&path)?)),
                Some(path.clone()),
            ),
        };
        Ok(Self {
            path,
            uncounted: Uncounted(uncounted),
            target,
            hash: Box::default(),
            bytes: 0,
            since_write_back: 0,
        })
    }

    fn create_local(path: &Path) -> Result<File, TaskError> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => gone(path),
                io::ErrorKind::AlreadyExists => TaskError::new(
                    ErrorClass::Transient,
                    format!(
                        "{} exists already: this attempt has run before; the task goes on with a new attempt",
                        path.display()
                    ),
                ),
                _ => io_error("create", path, &error),
            })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hands the file to the side threads; its name is durable only after a sync of its folder.
    pub fn seal(self) -> SealedFile {
        SealedFile {
            path: self.path,
            uncounted: self.uncounted,
            bytes: self.bytes,
            checksum: self.hash.digest(),
            pending: match self.target {
                Target::Local(file) => Sealing::Local(flusher::finish(file)),
                Target::Object(mut upload) => Sealing::Object(UnderWay(Some(upload.finish()))),
            },
        }
    }
}

impl Write for DurableFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = match &mut self.target {
            Target::Local(file) => (&file.file).write(buffer)?,
            Target::Object(upload) => {
                upload.write(buffer)?;
                buffer.len()
            }
        };
        self.hash.update(&buffer[..written]);
        self.bytes += written as u64;
        self.since_write_back += written as u64;
        if let Target::Local(file) = &self.target
            && self.since_write_back >= WRITE_BACK_BYTES
        {
            self.since_write_back = 0;
            flusher::start(file);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A complete file on its way to the disk.
pub struct SealedFile {
    pub path: PathBuf,
    uncounted: Uncounted,
    pub bytes: u64,
    /// XXH3-64 of the content.
    pub checksum: u64,
    pending: Sealing,
}

enum Sealing {
    Local(Pending),
    Object(UnderWay),
}

/// An object on its way to its store. Whoever gives up waits for it all the same, so that nothing of an
/// attempt arrives once it has ended, and its step may have been swept.
struct UnderWay(Option<objects::Pending<()>>);

impl UnderWay {
    fn wait(&mut self) -> Result<(), ObjectError> {
        self.0.take().map_or(Ok(()), objects::Pending::wait)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.wait().ok();
    }
}

impl SealedFile {
    /// Returns when the content is durable.
    pub fn wait(mut self) -> Result<(u64, u64), TaskError> {
        match self.pending {
            Sealing::Local(pending) => pending
                .wait()
                .map_err(|error| io_error("make durable", &self.path, &error))?,
            Sealing::Object(mut pending) => pending.wait().map_err(|error| object_error("write", &error))?,
        }
        self.uncounted.0 = None;
        Ok((self.bytes, self.checksum))
    }
}

/// A file that nothing counts on yet. What stays all the same, the sweep of the step removes.
struct Uncounted(Option<PathBuf>);

impl Drop for Uncounted {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            fs::remove_file(path).ok();
        }
    }
}

/// The bucket and key of a place in an object store.
fn placed(path: &Path) -> Result<Option<(Bucket, String)>, TaskError> {
    object(path).map_err(|error| object_error("open", &error))
}

/// The folder of a run is made by prepare and moved away as a whole when the step is settled.
fn gone(path: &Path) -> TaskError {
    TaskError::new(
        ErrorClass::Transient,
        format!(
            "cannot create {}: its folder is not there; either the step is settled already, or this worker does not \
             see the file system of the output: share it between the machines",
            path.display()
        ),
    )
}

/// Writes a small new file durably, folder included. The file must not exist.
pub fn write_new(path: PathBuf, content: &[u8]) -> Result<u64, TaskError> {
    let mut file = DurableFile::create(path.clone())?;
    file.write_all(content)
        .map_err(|error| io_error("write", &path, &error))?;
    let (_, checksum) = file.seal().wait()?;
    sync_folder(parent(&path))?;
    Ok(checksum)
}

/// Outcome of creating a record that exists at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    Created,
    /// Somebody was first; this is what they wrote.
    Exists(Vec<u8>),
}

/// Creates `path` with `content` durably, or reads what is there: of any number of callers one
/// creates it, and all agree on the content. The place is the arbiter (`link(2)` has one winner).
///
/// `unique` makes the temporary name beside it unlike that of other callers.
/// In an object store the arbiter is a put that is made only if there is no object of that name.
pub fn create_once(path: &Path, unique: &str, content: &[u8]) -> Result<Created, TaskError> {
    if let Some((bucket, key)) = placed(path)? {
        return create_object(&bucket, &key, content);
    }
    if let Some(content) = read_if_present(path)? {
        sync_folder(parent(path))?;
        return Ok(Created::Exists(content));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent(path).join(format!(".{name}-{unique}.tmp"));
    // Left by an earlier life of the same caller, in whatever state.
    remove_file_if_present(&temporary)?;
    let mut file = DurableFile::create(temporary.clone())?;
    file.write_all(content)
        .map_err(|error| io_error("write", &temporary, &error))?;
    file.seal().wait()?;
    let linked = fs::hard_link(&temporary, path);
    remove_file_if_present(&temporary)?;
    let outcome = match linked {
        Ok(()) => Created::Created,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Created::Exists(fs::read(path).map_err(|error| io_error("read", path, &error))?)
        }
        Err(error) => return Err(io_error("create", path, &error)),
    };
    // Also for the loser: it acts on the record, so the record must not vanish in a power cut.
    sync_folder(parent(path))?;
    Ok(outcome)
}

fn create_object(bucket: &Bucket, key: &str, content: &[u8]) -> Result<Created, TaskError> {
    let fail = |error| object_error("create", &error);
    if bucket.create(key, content.to_vec()).map_err(fail)? {
        return Ok(Created::Created);
    }
    // It may be our own, of a try whose answer was lost: who reads the content finds that out.
    match bucket.get(key).map_err(fail)? {
        Some(content) => Ok(Created::Exists(content.to_vec())),
        None => Err(TaskError::new(
            ErrorClass::Transient,
            format!(
                "{} could not be created, and is not there: others tried at the same moment",
                bucket.url(key)
            ),
        )),
    }
}

/// The content of a file, or `None` where there is none.
pub fn read_if_present(path: &Path) -> Result<Option<Vec<u8>>, TaskError> {
    if let Some((bucket, key)) = placed(path)? {
        let content = bucket.get(&key).map_err(|error| object_error("read", &error))?;
        return Ok(content.map(Vec::from));
    }
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path, &error)),
    }
}

fn remove_file_if_present(path: &Path) -> Result<(), TaskError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path, &error)),
        _ => Ok(()),
    }
}

/// Makes the names in a folder durable. Those of objects are, with the object.
pub fn sync_folder(path: &Path) -> Result<(), TaskError> {
    if is_object(path) {
        return Ok(());
    }
    flusher::folder(path.to_path_buf())
        .wait()
        .map_err(|error| io_error("make durable the folder", path, &error))
}

/// Makes files durable, then the folders that hold their names: all of them at once.
pub fn create_durable(files: Vec<SealedFile>, folders: &BTreeSet<PathBuf>) -> Result<Vec<(u64, u64)>, TaskError> {
    let facts = files.into_iter().map(SealedFile::wait).collect::<Result<Vec<_>, _>>()?;
    let pending: Vec<_> = folders
        .iter()
        .filter(|folder| !is_object(folder))
        .map(|folder| (folder, flusher::folder(folder.clone())))
        .collect();
    for (folder, pending) in pending {
        pending
            .wait()
            .map_err(|error| io_error("make durable the folder", folder, &error))?;
    }
    Ok(facts)
}

/// Creates one folder whose parent exists; `Ok(false)` where it is there already. An object store
/// has none.
pub fn create_folder(path: &Path) -> Result<bool, TaskError> {
    if is_object(path) {
        return Ok(true);
    }
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(gone(path)),
        Err(error) => Err(io_error("create the folder", path, &error)),
    }
}

/// Links `from` to the new name `to`; where `to` is that very file already, nothing is to be done.
///
/// Errors: `Config` where another file has the name.
pub fn link_file(from: &Path, to: &Path) -> Result<(), TaskError> {
    use std::os::unix::fs::MetadataExt;
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
            let (ours, theirs) = (
                identity(from).map_err(|error| io_error("look at", from, &error))?,
                identity(to).map_err(|error| io_error("look at", to, &error))?,
            );
            if ours == theirs {
                return Ok(());
            }
            Err(TaskError::new(
                ErrorClass::Config,
                format!(
                    "{} exists and is another file; move it away, then submit the job again to go on",
                    to.display()
                ),
            ))
        }
        Err(error) => Err(io_error(&format!("link {} to", from.display()), to, &error)),
    }
}

/// Moves a folder to a name that does not exist (or is an empty folder), and makes both names durable.
/// `Ok(false)` where a folder that is not empty has the name.
pub fn move_folder(from: &Path, to: &Path) -> Result<bool, TaskError> {
    match fs::rename(from, to) {
        Ok(()) => {}
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
            ) =>
        {
            return Ok(false);
        }
        Err(error) => return Err(io_error(&format!("move {} to", from.display()), to, &error)),
    }
    sync_folder(parent(to))?;
    sync_folder(parent(from))?;
    Ok(true)
}

/// Swaps two folders in one step: whoever looks sees one or the other, whole.
pub fn exchange_folders(one: &Path, other: &Path) -> Result<(), TaskError> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
        .map_err(|error| io_error(&format!("exchange {} with", one.display()), other, &error.into()))?;
    sync_folder(parent(other))?;
    sync_folder(parent(one))
}

/// The names in a folder, sorted by bytes; empty where there is no folder.
pub fn list_folder(path: &Path) -> Result<Vec<String>, TaskError> {
    if let Some((bucket, key)) = placed(path)? {
        return bucket.names(&key).map_err(|error| object_error("list", &error));
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", path, &error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| io_error("list", path, &error))?;
        // A name that is not text is none of ours; it still makes the folder not empty.
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// How often the removal of a folder is begun again because others remove from it or add to it.
const REMOVALS: usize = 8;

/// Removes a folder and what is in it, also while others do the same; nothing to do where there is none.
pub fn remove_tree(path: &Path) -> Result<(), TaskError> {
    if let Some((bucket, key)) = placed(path)? {
        return remove_objects(&bucket, &key).map_err(|error| object_error("remove", &error));
    }
    let mut result = fs::remove_dir_all(path);
    for _ in 1..REMOVALS {
        match &result {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                if !path.exists() {
                    return Ok(());
                }
                result = fs::remove_dir_all(path);
            }
            _ => break,
        }
    }
    result.map_err(|error| io_error("remove", path, &error))
}

/// Listings of open uploads, of a thousand each: more than attempts of a step can have left, with one or two for each.
const UPLOAD_LISTINGS: usize = 100;

/// Objects that are listed before they are deleted.
const STRETCH: usize = 10_000;

fn remove_objects(bucket: &Bucket, key: &str) -> Result<(), ObjectError> {
    // A listing of uploads may have had no place for all.
    for _ in 0..UPLOAD_LISTINGS {
        if bucket.abort_uploads(key)? == 0 {
            break;
        }
    }
    loop {
        let found = bucket.list(key, STRETCH)?;
        let keys: Vec<String> = found.into_iter().map(|found| found.key).collect();
        bucket.delete(&keys)?;
        if keys.len() <= STRETCH {
            return Ok(());
        }
    }
}

/// Whether there is a file.
pub fn file_exists(path: &Path) -> Result<bool, TaskError> {
    match placed(path)? {
        Some((bucket, key)) => {
            let found = bucket.head(&key).map_err(|error| object_error("look at", &error))?;
            Ok(found.is_some())
        }
        None => Ok(path.exists()),
    }
}

/// Whether there is a folder; of objects: whether there is one below it.
pub fn folder_exists(path: &Path) -> Result<bool, TaskError> {
    match placed(path)? {
        Some((bucket, key)) => {
            let found = bucket.list(&key, 0).map_err(|error| object_error("list", &error))?;
            Ok(!found.is_empty())
        }
        None => Ok(path.exists()),
    }
}

pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_creators_one_wins_and_all_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("000001.json");
        let together = std::sync::Barrier::new(16);
        let outcomes: Vec<(String, Created)> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..16)
                .map(|number| {
                    let (path, together) = (&path, &together);
                    scope.spawn(move || {
                        together.wait();
                        let content = format!("writer {number}");
                        (
                            content.clone(),
                            create_once(path, &number.to_string(), content.as_bytes()).unwrap(),
                        )
                    })
                })
                .collect();
            handles.into_iter().map(|handle| handle.join().unwrap()).collect()
        });
        let winners: Vec<_> = outcomes
            .iter()
            .filter(|(_, outcome)| *outcome == Created::Created)
            .collect();
        assert_eq!(winners.len(), 1);
        for (_, outcome) in &outcomes {
            if let Created::Exists(content) = outcome {
                assert_eq!(content, winners[0].0.as_bytes());
            }
        }
        assert_eq!(
            list_folder(folder.path()).unwrap(),
            ["000001.json"],
            "temporary names are gone"
        );
    }

    #[test]
    fn a_file_is_never_written_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part");
        write_new(path.clone(), b"first").unwrap();
        assert_eq!(
            write_new(path.clone(), b"second").unwrap_err().class,
            ErrorClass::Transient
        );
        assert_eq!(fs::read(path).unwrap(), b"first");
    }

    #[test]
    fn an_exchange_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        for (path, name) in [(&old, "a"), (&new, "b")] {
            fs::create_dir(path).unwrap();
            fs::write(path.join(name), name).unwrap();
        }
        exchange_folders(&new, &old).unwrap();
        assert_eq!(list_folder(&old).unwrap(), ["b"]);
        assert_eq!(list_folder(&new).unwrap(), ["a"]);
    }
}

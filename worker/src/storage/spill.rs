//! Folders for data that does not fit in memory: one for each worker, and swept once its worker is gone.
//!
//! They lie in a file system even where scratch does not ([`spill_folder`]). There a worker has the folder `<id>`
//! and, beside it, the file `<id>.lock`, which it keeps locked (`flock(2)`) as long as it lives. The kernel lets go of the
//! lock with the process, however it dies, so a lock that can be taken belongs to nobody. Age says nothing: a worker may sort for hours.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use gapless_common::error::{ErrorClass, TaskError};
use gapless_platform::config::SpillDir;
use uuid::Uuid;

use super::{
    durable::{list_folder, remove_tree},
    io_error, is_object,
};

/// What the names of locks end with.
const LOCK: &str = ".lock";

/// A worker's own place for spilled data; dropped, it is removed.
#[derive(Debug)]
pub struct SpillFolder {
    path: PathBuf,
    lock: PathBuf,
    /// Locked. `None` on a file system without locks: then nobody sweeps this folder but its worker.
    _held: Option<File>,
}

impl SpillFolder {
    /// Locks a new folder below that of all workers. The folder itself is made by who spills first.
    pub fn open(all: &Path) -> Result<SpillFolder, TaskError> {
        fs::create_dir_all(all).map_err(|error| io_error("create the folder", all, &error))?;
        loop {
            let path = all.join(Uuid::now_v7().to_string());
            let lock = lock_of(&path);
            let file = File::create_new(&lock).map_err(|error| io_error("create", &lock, &error))?;
            let held = match file.try_lock() {
                Ok(()) if is_at(&file, &lock) => Some(file),
                // A sweep was faster than the lock: it took the file for one that nobody holds.
                Ok(()) | Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => {
                    tracing::warn!(%error, path = %lock.display(), "no file locks here: what a killed worker has spilled stays");
                    fs::remove_file(&lock).map_err(|error| io_error("remove", &lock, &error))?;
                    None
                }
            };
            return Ok(SpillFolder {
                path,
                lock,
                _held: held,
            });
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        // What stays is swept by the next worker, since the lock goes with this value.
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!(%error, "spilled data stays until the next sweep");
            return;
        }
        let _ = fs::remove_file(&self.lock);
    }
}

/// Where workers spill: a folder that is named, else one below scratch or, where that is in an object store,
/// one of this user among the temporary files of the system.
///
/// Errors: `Config` where somebody else has made that last one.
pub fn spill_folder(spill: &SpillDir, scratch: &Path) -> Result<PathBuf, TaskError> {
    if let Some(named) = &spill.named {
        return Ok(named.clone());
    }
    if !is_object(scratch) {
        return Ok(scratch.join("spill"));
    }
    let user = rustix::process::geteuid().as_raw();
    let path = spill.temporary.join(format!("gapless-spill-{user}"));
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io_error("create the folder", &path, &error));
        }
        _ => {}
    }
    // Anybody may make names among temporary files, links too.
    let found = fs::symlink_metadata(&path).map_err(|error| io_error("look at", &path, &error))?;
    match found.is_dir() && found.uid() == user {
        true => Ok(path),
        false => Err(TaskError::new(
            ErrorClass::Config,
            format!(
                "{} is not a folder of this user, and what does not fit in memory would be written there; name another \
                 place with --spill-dir (spill_dir)",
                path.display()
            ),
        )),
    }
}

/// Removes what workers that are gone have spilled in a folder; says how many they were.
///
/// Folders without a lock file are left alone: nobody can tell whose they are.
pub fn sweep_spill(all: &Path) -> Result<usize, TaskError> {
    let mut swept = 0;
    for name in list_folder(all)? {
        let Some(id) = name.strip_suffix(LOCK) else { continue };
        match sweep_one(&all.join(id)) {
            Ok(removed) => swept += usize::from(removed),
            // That of another user, say: no reason to leave the others.
            Err(error) => tracing::warn!(%error, "spilled data of a worker that is gone stays"),
        }
    }
    Ok(swept)
}

fn sweep_one(path: &Path) -> Result<bool, TaskError> {
    let lock = lock_of(path);
    // For writing, which locks on network file systems ask for.
    let file = match File::options().read(true).write(true).open(&lock) {
        Ok(file) => file,
        // Another sweep, or the worker itself, was faster.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error("open", &lock, &error)),
    };
    match file.try_lock() {
        Ok(()) if is_at(&file, &lock) => {}
        Ok(()) | Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(io_error("lock", &lock, &error)),
    }
    remove_tree(path)?;
    // Last, and still locked: a sweep that is cut off is taken up again.
    fs::remove_file(&lock).map_err(|error| io_error("remove", &lock, &error))?;
    Ok(true)
}

fn lock_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(LOCK);
    PathBuf::from(name)
}

/// Whether the file still has this name: a lock on a removed file keeps nobody away.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    match (file.metadata().map(identity), fs::metadata(path).map(identity)) {
        (Ok(ours), Ok(named)) => ours == named,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a worker that was killed leaves: a folder with spilled data, and a lock that nobody holds.
    fn killed(scratch: &Path, id: &str) -> PathBuf {
        let path = scratch.join(id);
        fs::create_dir_all(path.join("datafusion-x")).unwrap();
        fs::write(path.join("datafusion-x/0"), "spilled").unwrap();
        fs::write(lock_of(&path), "").unwrap();
        path
    }

    #[test]
    fn a_folder_goes_with_its_worker_and_not_before() {
        let scratch = tempfile::tempdir().unwrap();
        let living = SpillFolder::open(scratch.path()).unwrap();
        fs::create_dir(living.path()).unwrap();
        fs::write(living.path().join("run"), "spilled").unwrap();
        let dead = killed(scratch.path(), "dead");
        // Of a release without locks: whose it is cannot be told.
        let unknown = scratch.path().join("datafusion-old");
        fs::create_dir(&unknown).unwrap();

        assert_eq!(sweep_spill(scratch.path()).unwrap(), 1);
        assert!(living.path().join("run").exists(), "its worker lives");
        assert!(!dead.exists() && !lock_of(&dead).exists(), "its worker is gone");
        assert!(unknown.exists());
        assert_eq!(sweep_spill(scratch.path()).unwrap(), 0);

        let path = living.path().to_path_buf();
        drop(living);
        assert!(!path.exists() && !lock_of(&path).exists());
        assert_eq!(list_folder(scratch.path()).unwrap(), ["datafusion-old"]);
    }

    #[test]
    fn sweeps_and_new_workers_do_not_meet() {
        let scratch = tempfile::tempdir().unwrap();
        let together = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (scratch, together) = (scratch.path(), &together);
                scope.spawn(move || {
                    together.wait();
                    for round in 0..50 {
                        let own = SpillFolder::open(scratch).unwrap();
                        fs::create_dir(own.path()).unwrap();
                        killed(scratch, &format!("dead-{thread}-{round}"));
                        sweep_spill(scratch).unwrap();
                        assert!(own.path().exists(), "a worker that lives was swept");
                    }
                });
            }
        });
        sweep_spill(scratch.path()).unwrap();
        assert_eq!(list_folder(scratch.path()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_scratch_folder_that_nobody_has_spilled_to_is_swept_in_vain() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(sweep_spill(&scratch.path().join("none")).unwrap(), 0);
    }

    #[test]
    fn what_is_spilled_lies_in_a_file_system() {
        let temporary = tempfile::tempdir().unwrap();
        let auto = SpillDir {
            named: None,
            temporary: temporary.path().to_path_buf(),
        };
        let named = SpillDir {
            named: Some("/fast".into()),
            ..auto.clone()
        };
        let (folder, bucket) = (Path::new("/scratch"), Path::new("s3://lake/scratch"));
        assert_eq!(spill_folder(&named, folder).unwrap(), Path::new("/fast"));
        assert_eq!(spill_folder(&named, bucket).unwrap(), Path::new("/fast"));
        assert_eq!(spill_folder(&auto, folder).unwrap(), Path::new("/scratch/spill"));
        let own = spill_folder(&auto, bucket).unwrap();
        assert!(own.starts_with(temporary.path()), "{own:?}");
        assert_eq!(fs::metadata(&own).unwrap().mode() & 0o777, 0o700);
        assert_eq!(spill_folder(&auto, bucket).unwrap(), own, "and again");

        fs::remove_dir(&own).unwrap();
        std::os::unix::fs::symlink("/tmp", &own).unwrap();
        let refused = spill_folder(&auto, bucket).unwrap_err();
        assert_eq!(refused.class, ErrorClass::Config);
        assert!(refused.message.contains("--spill-dir"), "{}", refused.message);
    }
}

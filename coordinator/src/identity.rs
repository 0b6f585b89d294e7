//! Whose store it is, and whether it has gone back in time.
//!
//! A wiped etcd that is started again with the same names, or one restored from an old copy, looks like
//! any other. But others remember how far its cluster had come: this process, a file in the scratch
//! folder (the state folder, where scratch is in an object store), and each worker. What they remember is a *mark*: the store's own count of its writes, below
//! the epoch. The term of a new leader is above every mark of a store that only ever went forward.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use gapless_common::ids::{ClusterId, Term};
use gapless_core::row::ClusterRow;
use serde::{Deserialize, Serialize};

/// How far somebody has seen a cluster come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub cluster: ClusterId,
    /// Counted as terms are: any term of the same or a later epoch that is above it began later.
    pub mark: Term,
    /// Who has seen it, for people.
    pub by: String,
}

/// Why a store must not be worked on before an operator has looked at it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Older {
    #[error(
        "it is empty, but {} has seen cluster {} there, up to mark {} of epoch {}: was it wiped?",
        .seen.by, .seen.cluster, .seen.mark, .seen.mark.epoch()
    )]
    Missing { seen: Seen },
    #[error("it is of cluster {found}, but {} has seen cluster {} there: was it replaced?", .seen.by, .seen.cluster)]
    Other { found: ClusterId, seen: Seen },
    #[error(
        "it is older than what {} has seen of cluster {}: its present term is {term}, and mark {} of epoch {} was seen: \
         was it restored from an old copy?",
        .seen.by, .seen.cluster, .seen.mark, .seen.mark.epoch()
    )]
    Behind { term: Term, seen: Seen },
}

impl Older {
    pub fn seen(&self) -> &Seen {
        match self {
            Older::Missing { seen } | Older::Other { seen, .. } | Older::Behind { seen, .. } => seen,
        }
    }
}

/// Compares a store, as a new leader finds it, with what was seen of it. `in_store` is the new term as
/// the store counts it.
pub fn check(row: Option<&ClusterRow>, in_store: Term, seen: Option<&Seen>) -> Result<(), Older> {
    let Some(seen) = seen.cloned() else { return Ok(()) };
    let Some(row) = row else {
        return Err(Older::Missing { seen });
    };
    if row.cluster != seen.cluster {
        let found = row.cluster;
        return Err(Older::Other { found, seen });
    }
    let term = Term::of(row.epoch, in_store.0);
    if term <= seen.mark {
        return Err(Older::Behind { term, seen });
    }
    Ok(())
}

/// What this coordinator remembers, also in a file that the next process finds.
#[derive(Debug, Default)]
pub struct Memory {
    seen: Option<Seen>,
    file: Option<PathBuf>,
}

/// What the file says to whoever opens it.
const NOTE: &str = "how far this cluster has come; do not remove, see `gapless cluster accept-restore`";

#[derive(Serialize, Deserialize)]
struct Written {
    note: String,
    cluster: ClusterId,
    mark: Term,
}

impl Memory {
    /// A memory whose file lies in a folder that outlives this process; best in one that coordinators share.
    pub fn in_folder(folder: &Path, cluster_name: &str) -> Memory {
        Memory {
            seen: None,
            file: Some(folder.join(format!("cluster-{cluster_name}.json"))),
        }
    }

    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Notes what was seen, unless more is known already.
    pub fn note(&mut self, seen: Seen) {
        let known = self.seen.as_ref().filter(|known| known.cluster == seen.cluster);
        if known.is_none_or(|known| known.mark < seen.mark) {
            self.seen = Some(seen);
        }
    }

    /// Forgets what was seen: an operator has accepted the store as it is.
    pub fn forget(&mut self) {
        self.seen = None;
    }

    /// The most that is known.
    ///
    /// Errors: a file that cannot be read; going on without it could be going back in time.
    pub fn recall(&mut self) -> io::Result<Option<Seen>> {
        if let Some(file) = &self.file
            && let Some(seen) = read(file)?
        {
            // What another coordinator has written counts as much as what this one remembers.
            self.note(seen);
        }
        Ok(self.seen.clone())
    }
}

fn read(file: &Path) -> io::Result<Option<Seen>> {
    let failed = |reason: String| {
        let words = format!(
            "{}: {reason}; it says how far the cluster has come: mend it, or remove it if the store is known to be the right one",
            file.display()
        );
        io::Error::other(words)
    };
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let Written { cluster, mark, .. } = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    Ok(Some(Seen {
        cluster,
        mark,
        by: format!("the file {}", file.display()),
    }))
}

/// Writes the file so that it is whole whenever it is there; not where it says more already.
pub fn write(file: &Path, cluster: ClusterId, mark: Term) -> io::Result<()> {
    if let Ok(Some(known)) = read(file)
        && known.cluster == cluster
        && known.mark >= mark
    {
        return Ok(());
    }
    let written = Written {
        note: NOTE.to_string(),
        cluster,
        mark,
    };
    let text = serde_json::to_string_pretty(&written)? + "\n";
    // Another coordinator may be about to write it too.
    let unfinished = file.with_extension(format!("json.{}", std::process::id()));
    let mut new = File::create(&unfinished)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    fs::rename(&unfinished, file)?;
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use gapless_common::ids::Epoch;
    use uuid::Uuid;

    use super::*;

    const OURS: ClusterId = ClusterId(Uuid::from_u128(1));

    fn seen(mark: Term) -> Seen {
        Seen {
            cluster: OURS,
            mark,
            by: "worker w".into(),
        }
    }

    #[test]
    fn a_store_is_older_when_its_new_term_is_not_above_all_that_was_seen() {
        let row = |epoch| ClusterRow {
            epoch,
            ..ClusterRow::new(OURS)
        };
        let first = row(Epoch::FIRST);
        let behind = |row: &ClusterRow, term, mark| check(Some(row), Term(term), Some(&seen(mark))).is_err();
        assert_eq!(check(None, Term(3), None), Ok(()), "a first start");
        assert_eq!(check(Some(&first), Term(3), None), Ok(()));
        assert!(!behind(&first, 901, Term(900)));
        assert!(behind(&first, 900, Term(900)), "a term is never given twice");
        assert!(behind(&first, 5, Term(900)));
        // An accepted restore: whatever was seen before is no argument any more.
        assert!(!behind(&row(Epoch(2)), 5, Term(900)));
        assert!(behind(&first, 900, Term::of(Epoch(2), 5)), "the epoch itself went back");
        assert!(matches!(
            check(None, Term(3), Some(&seen(Term(1)))),
            Err(Older::Missing { .. })
        ));
        let other = ClusterRow::new(ClusterId(Uuid::from_u128(2)));
        assert!(matches!(
            check(Some(&other), Term(3), Some(&seen(Term(1)))),
            Err(Older::Other { .. })
        ));
    }

    #[test]
    fn what_one_process_has_seen_the_next_one_finds() {
        let scratch = tempfile::tempdir().expect("a folder");
        let mut memory = Memory::in_folder(scratch.path(), "sales");
        assert_eq!(memory.recall().expect("no file yet"), None);
        let file = memory.file().expect("named").to_path_buf();
        write(&file, OURS, Term(900)).expect("written");
        let found = memory.recall().expect("read").expect("there");
        assert_eq!((found.cluster, found.mark), (OURS, Term(900)));
        assert!(found.by.contains("cluster-sales.json"));
        memory.note(seen(Term(950)));
        memory.note(seen(Term(940)));
        assert_eq!(memory.recall().expect("read"), Some(seen(Term(950))), "the most counts");
        memory.forget();
        assert_eq!(memory.recall().expect("read").map(|seen| seen.mark), Some(Term(900)));
        fs::write(&file, "{").expect("written");
        let said = memory.recall().expect_err("half a file").to_string();
        assert!(
            said.contains("cluster-sales.json") && said.contains("remove it"),
            "{said}"
        );
        assert_eq!(
            fs::read_dir(scratch.path()).expect("listed").count(),
            1,
            "nothing else is left"
        );
    }
}

//! The tokens that are let in, as the file has them now: it is looked at with each call, so that a
//! token that is taken out of it is refused from then on.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use gapless_platform::tokens::{TokenBook, TokensError};
use tracing::{info, warn};

/// Changes whenever the content may have changed; `None` where the file cannot be seen.
type Stamp = Option<(u64, u64, i64, i64)>;

#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    known: Mutex<(Stamp, Arc<TokenBook>)>,
}

impl Tokens {
    pub fn read(path: &Path) -> Result<Tokens, TokensError> {
        // The stamp first: what is written in between is read again.
        let stamp = stamp(path);
        let book = TokenBook::read(path)?;
        Ok(Tokens {
            path: path.to_path_buf(),
            known: Mutex::new((stamp, Arc::new(book))),
        })
    }

    /// The tokens now. A file that is gone or faulty changes nothing, and the log says so once.
    pub fn now(&self) -> Arc<TokenBook> {
        let stamp = stamp(&self.path);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != stamp {
            known.0 = stamp;
            match TokenBook::read(&self.path) {
                Ok(book) => {
                    info!(path = %self.path.display(), "the tokens file has changed and is read again");
                    known.1 = Arc::new(book);
                }
                Err(error) => warn!(%error, "the tokens of before stay in force"),
            }
        }
        known.1.clone()
    }
}

fn stamp(path: &Path) -> Stamp {
    let seen = fs::metadata(path).ok()?;
    Some((seen.ino(), seen.len(), seen.mtime(), seen.mtime_nsec()))
}

//! Texts that must not be shown: they have no `Display`, and `Debug` masks them.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// A token file holds one line; more is another file named by mistake.
const MAX_TOKEN_FILE: u64 = 4096;

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where the token that a client or worker shows comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TokenSource {
    /// It shows none.
    #[default]
    None,
    File(PathBuf),
    Given(Secret),
}

/// Where a password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    File(PathBuf),
    Given(Secret),
}

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("password file {}: {source}", path.display())]
    PasswordUnreadable { path: PathBuf, source: io::Error },
    #[error("password file {}: it must hold one password on one line", path.display())]
    NoPassword { path: PathBuf },
    #[error("token file {}: {source}; name another with --token-file", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("token file {}: it must hold one token on one line, as `gapless token new` prints it", path.display())]
    NoToken { path: PathBuf },
}

impl TokenSource {
    /// Reads the token. Errors never quote it.
    pub fn read(&self) -> Result<Option<Secret>, SecretError> {
        match self {
            TokenSource::None => Ok(None),
            TokenSource::Given(token) => Ok(Some(token.clone())),
            TokenSource::File(path) => read_token(path).map(Some),
        }
    }
}

impl PasswordSource {
    /// Reads the password. Errors never quote it.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let path = match self {
            PasswordSource::Given(password) => return Ok(password.clone()),
            PasswordSource::File(path) => path,
        };
        let unreadable = |source| SecretError::PasswordUnreadable {
            path: path.clone(),
            source,
        };
        let text = match fs::metadata(path).map_err(unreadable)?.len() {
            0..=MAX_TOKEN_FILE => fs::read_to_string(path).map_err(unreadable)?,
            _ => String::new(),
        };
        // A password may begin and end with spaces.
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() || password.contains(char::is_control) {
            return Err(SecretError::NoPassword { path: path.clone() });
        }
        Ok(Secret::new(password))
    }
}

fn read_token(path: &Path) -> Result<Secret, SecretError> {
    let unreadable = |source| SecretError::Unreadable {
        path: path.to_path_buf(),
        source,
    };
    let no_token = || SecretError::NoToken {
        path: path.to_path_buf(),
    };
    if fs::metadata(path).map_err(unreadable)?.len() > MAX_TOKEN_FILE {
        return Err(no_token());
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let token = text.trim();
    if token.is_empty() || token.contains(|c: char| !c.is_ascii_graphic()) {
        return Err(no_token());
    }
    Ok(Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_holds_one_password() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        let read = |text: &str| {
            fs::write(&path, text).expect("written");
            PasswordSource::File(path.clone()).read()
        };
        assert_eq!(read(" two words\r\n").expect("a password"), Secret::new(" two words"));
        for bad in ["", "\n", "abc\ndef", &"x".repeat(5000)] {
            let error = read(bad).expect_err("no password").to_string();
            assert!(
                error.contains("one password on one line") && !error.contains("def"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_token_file_holds_one_token() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let read = |text: &str| {
            fs::write(&path, text).expect("written");
            TokenSource::File(path.clone()).read()
        };
        assert_eq!(read(" abc\n").expect("a token"), Some(Secret::new("abc")));
        for bad in ["", "\n", "abc def", "abc\ndef", &"x".repeat(5000)] {
            let error = read(bad).expect_err("no token").to_string();
            assert!(error.contains("one token on one line"), "{error}");
            assert!(!error.contains("def"), "a secret is not quoted: {error}");
        }
        fs::remove_file(&path).expect("removed");
        let error = TokenSource::File(path.clone()).read().expect_err("no file").to_string();
        assert!(error.contains("token") && error.contains("--token-file"), "{error}");
    }
}

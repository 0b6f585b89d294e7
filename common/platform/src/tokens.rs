//! Bearer tokens: who may do what. A coordinator keeps digests only; the token itself is shown once,
//! when it is made.
//!
//! A token has 256 random bits, so a plain SHA-256 of it cannot be turned back by trying.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use ring::{
    digest::{SHA256, SHA256_OUTPUT_LEN, digest},
    rand::{SecureRandom, SystemRandom},
};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use crate::secret::Secret;

/// Begins every token, so that scanners for leaked secrets can find them.
const PREFIX: &str = "gapless_";
const RANDOM_BYTES: usize = 32;

/// Each call looks at every token, which takes about 10 µs for so many.
const MAX_TOKENS: usize = 1000;
/// [`MAX_TOKENS`] entries with room to spare; a larger file is another one named by mistake.
const MAX_FILE: u64 = 1024 * 1024;
/// A name stands in log lines.
const MAX_NAME: usize = 64;

/// What a token allows: each of the first four includes those before it. `Worker` is for the service
/// `Workers` alone, and nothing else allows that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    View,
    Submit,
    Operate,
    Admin,
    Worker,
}

impl Role {
    pub const ALL: [Role; 5] = [Role::View, Role::Submit, Role::Operate, Role::Admin, Role::Worker];

    pub fn name(self) -> &'static str {
        match self {
            Role::View => "view",
            Role::Submit => "submit",
            Role::Operate => "operate",
            Role::Admin => "admin",
            Role::Worker => "worker",
        }
    }

    /// Whether a holder of this role may do what needs `needed`.
    pub fn permits(self, needed: Role) -> bool {
        match (self, needed) {
            (Role::Worker, needed) => needed == Role::Worker,
            (_, Role::Worker) => false,
            (held, needed) => held >= needed,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Role::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| format!("allowed are {}", Role::ALL.map(Role::name).join(", ")))
    }
}

/// One token as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub role: Role,
    sha256: [u8; SHA256_OUTPUT_LEN],
    /// Microseconds since the epoch from which it is refused.
    pub expires_micros: Option<i64>,
}

impl Entry {
    pub fn has_expired(&self, now_micros: i64) -> bool {
        self.expires_micros.is_some_and(|expires| expires <= now_micros)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    #[error("tokens file {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("tokens file {}: it is larger than {MAX_FILE} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("tokens file {}: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("tokens file {}: {name:?}: {reason}", path.display())]
    BadEntry {
        path: PathBuf,
        name: String,
        reason: String,
    },
    #[error("the system gives no random bytes")]
    NoRandomness,
}

/// The tokens that a coordinator lets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenBook {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    tokens: Vec<EntryText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryText {
    name: String,
    role: String,
    sha256: String,
    expires: Option<String>,
}

impl TokenBook {
    pub fn read(path: &Path) -> Result<TokenBook, TokensError> {
        let unreadable = |source| TokensError::Unreadable {
            path: path.to_path_buf(),
            source,
        };
        if fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE {
            return Err(TokensError::TooLarge {
                path: path.to_path_buf(),
            });
        }
        TokenBook::parse(path, &fs::read_to_string(path).map_err(unreadable)?)
    }

    /// Reads the text of a tokens file. An empty list is no list: it would lock everybody out.
    pub fn parse(path: &Path, text: &str) -> Result<TokenBook, TokensError> {
        let malformed = |reason: String| TokensError::Malformed {
            path: path.to_path_buf(),
            reason,
        };
        let file: FileText = serde_saphyr::from_str(text).map_err(|error| malformed(error.to_string()))?;
        if file.tokens.is_empty() || file.tokens.len() > MAX_TOKENS {
            return Err(malformed(format!("write 1 to {MAX_TOKENS} tokens")));
        }
        let (mut names, mut digests) = (BTreeSet::new(), BTreeSet::new());
        let mut entries = Vec::with_capacity(file.tokens.len());
        for written in file.tokens {
            let name = written.name.clone();
            let bad = |reason: String| TokensError::BadEntry {
                path: path.to_path_buf(),
                name: name.clone(),
                reason,
            };
            let entry = entry(written).map_err(bad)?;
            if !names.insert(entry.name.clone()) {
                return Err(bad("this name is there twice".to_string()));
            }
            if !digests.insert(entry.sha256) {
                return Err(bad("this token is there twice".to_string()));
            }
            entries.push(entry);
        }
        Ok(TokenBook { entries })
    }

    /// Whether an entry is there as it was: the same token under the same name, with the same role.
    pub fn holds(&self, known: &Entry) -> bool {
        self.entries.contains(known)
    }

    /// The entry of a token, expired or not. Takes the same time whichever it is.
    pub fn find(&self, token: &str) -> Option<&Entry> {
        let shown = digest_of(token);
        let mut found = None;
        for entry in &self.entries {
            if bool::from(entry.sha256.ct_eq(&shown)) {
                found = Some(entry);
            }
        }
        found
    }
}

/// Names and expiry dates are written back into the file as they are: nothing that YAML would read
/// differently.
pub fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    match name.len() {
        1..=MAX_NAME if name.chars().all(allowed) => Ok(()),
        _ => Err(format!("a name has 1 to {MAX_NAME} letters, digits and signs of -_.@")),
    }
}

/// Reads `2027-01-31` (its beginning, UTC) or `2027-01-31T12:00:00Z` as microseconds since the epoch.
pub fn parse_expiry(text: &str) -> Result<i64, String> {
    let day = chrono::NaiveDate::from_str(text).map(|day| day.and_time(chrono::NaiveTime::MIN).and_utc());
    let moment = day.or_else(|_| chrono::DateTime::parse_from_rfc3339(text).map(|at| at.to_utc()));
    moment
        .map(|at| at.timestamp_micros())
        .map_err(|_| "write a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z".to_string())
}

fn entry(written: EntryText) -> Result<Entry, String> {
    check_name(&written.name)?;
    Ok(Entry {
        role: Role::from_str(&written.role).map_err(|allowed| format!("role {:?}: {allowed}", written.role))?,
        sha256: read_digest(&written.sha256)
            .ok_or_else(|| format!("sha256: write {} hexadecimal digits", 2 * SHA256_OUTPUT_LEN))?,
        expires_micros: match &written.expires {
            Some(text) => Some(parse_expiry(text).map_err(|allowed| format!("expires {text:?}: {allowed}"))?),
            None => None,
        },
        name: written.name,
    })
}

fn digest_of(token: &str) -> [u8; SHA256_OUTPUT_LEN] {
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}

fn read_digest(text: &str) -> Option<[u8; SHA256_OUTPUT_LEN]> {
    if text.len() != 2 * SHA256_OUTPUT_LEN || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new token, to be shown once.
pub fn new_token() -> Result<Secret, TokensError> {
    let mut random = [0; RANDOM_BYTES];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| TokensError::NoRandomness)?;
    Ok(Secret::new(format!("{PREFIX}{}", hexadecimal(&random))))
}

/// The line of the tokens file for a token.
pub fn line_of(token: &Secret, name: &str, role: Role, expires: Option<&str>) -> String {
    let digest = hexadecimal(&digest_of(token.expose()));
    let expires = expires.map_or(String::new(), |text| format!(", expires: \"{text}\""));
    format!("  - {{name: {name:?}, role: {role}, sha256: \"{digest}\"{expires}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TokenBook, TokensError> {
        TokenBook::parse(Path::new("tokens.yaml"), text)
    }

    #[test]
    fn roles_include_those_below_and_workers_stand_apart() {
        let table: Vec<String> = Role::ALL
            .into_iter()
            .map(|held| {
                let allowed = Role::ALL.into_iter().filter(|needed| held.permits(*needed));
                format!("{held}: {}", allowed.map(Role::name).collect::<Vec<_>>().join(" "))
            })
            .collect();
        assert_eq!(
            table,
            [
                "view: view",
                "submit: view submit",
                "operate: view submit operate",
                "admin: view submit operate admin",
                "worker: worker",
            ]
        );
    }

    #[test]
    fn a_new_token_is_found_by_its_line_alone() {
        let token = new_token().expect("random bytes");
        let other = new_token().expect("random bytes");
        assert_ne!(token, other);
        let lines = [
            line_of(&token, "alice", Role::Submit, Some("2027-01-31")),
            line_of(&other, "bob@home", Role::View, None),
        ];
        assert!(!lines[0].contains(token.expose()));
        let book = parse(&format!("tokens:\n{}\n{}\n", lines[0], lines[1])).expect("two tokens");
        let found = book.find(token.expose()).expect("alice");
        assert_eq!((found.name.as_str(), found.role), ("alice", Role::Submit));
        assert!(!found.has_expired(1_801_353_599_999_999));
        assert!(found.has_expired(1_801_353_600_000_000), "at the beginning of the day");
        assert_eq!(
            book.find(other.expose()).map(|entry| entry.name.as_str()),
            Some("bob@home")
        );
        for wrong in ["", "gapless_", &token.expose()[1..], &format!("{} ", token.expose())] {
            assert_eq!(book.find(wrong), None, "{wrong:?}");
        }
        // What a scanner of leaked files finds is of no use.
        let digest = lines[0].split('"').nth(3).expect("a digest");
        assert_eq!(book.find(digest), None);
    }

    #[test]
    fn a_tokens_file_is_refused_with_the_place() {
        let digest = "0".repeat(64);
        let good = format!("{{name: a, role: view, sha256: \"{digest}\"}}");
        assert!(parse(&format!("tokens: [{good}]")).is_ok());
        for (text, words) in [
            ("tokens: []".to_string(), "1 to 1000 tokens"),
            ("tokens: [".to_string(), "tokens.yaml"),
            ("token: []".to_string(), "token"),
            (format!("tokens: [{good}, {good}]"), "this name is there twice"),
            (
                format!("tokens: [{good}, {}]", good.replace("name: a", "name: b")),
                "this token is there twice",
            ),
            (
                format!("tokens: [{}]", good.replace("view", "root")),
                "\"a\": role \"root\": allowed are view, submit, operate, admin, worker",
            ),
            (
                format!("tokens: [{}]", good.replace("000\"", "00\"")),
                "64 hexadecimal digits",
            ),
            (
                format!("tokens: [{}]", good.replace("0\"}", "x\"}")),
                "64 hexadecimal digits",
            ),
            (
                format!("tokens: [{}]", good.replace("a,", "\"a\\nb\",")),
                "letters, digits",
            ),
            (
                format!("tokens: [{}]", good.replace('}', ", expires: \"soon\"}")),
                "2027-01-31T12:00:00Z",
            ),
            (
                format!("tokens: [{}]", good.replace('}', ", expire: \"2027-01-31\"}")),
                "expire",
            ),
        ] {
            let error = parse(&text).expect_err("refused").to_string();
            assert!(error.contains(words), "{text}\n{error}\nlacks {words}");
        }
    }
}

//! The version of the rows' forms, and how stored rows are read by it.
//!
//! One number stands for the forms of all rows, in the cluster row. A release reads the rows of its
//! own version and of the one before; taking the lead, it raises the number and writes the rows of the
//! older form again. Whatever it does not know it refuses, and changes nothing: a field that is not
//! known would be dropped as soon as its row is written again.

use std::{fmt, ops::RangeInclusive};

use gapless_common::ids::{ClusterId, Epoch};
use serde::Deserialize;
use serde_json::Value;

use crate::row::{ClusterRow, Row, RowError, RowKey};

/// The version that this release writes. Raised with each release that changes the form of a row:
/// `tests/golden.rs` tells.
pub const SCHEMA: u32 = 2;

/// The oldest version that this release reads.
pub const OLDEST: u32 = 1;

/// What a store of schema 1 is taken to say of its oldest rows.
pub(crate) fn first() -> u32 {
    1
}

/// The versions that a release knows. Other than [`Known::HERE`] only in tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub schemas: RangeInclusive<u32>,
    pub release: &'static str,
}

impl Known {
    pub const HERE: Known = Known {
        schemas: OLDEST..=SCHEMA,
        release: env!("CARGO_PKG_VERSION"),
    };
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.schemas.start(), self.schemas.end());
        write!(f, "this release, {}, reads schemas {from} to {to}", self.release)
    }
}

/// Why the rows of a store are not for this release. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("the rows are of schema {stored}, and {known}: install release {release} or newer")]
    Newer { stored: u32, release: String, known: Known },
    #[error(
        "some rows may still be of schema {stored}, and {known}: let a release between lead once, which brings them to its own schema"
    )]
    Older { stored: u32, known: Known },
    #[error(transparent)]
    Row(#[from] RowError),
}

/// The part of the cluster row that every release can read, for ever.
#[derive(Deserialize)]
pub struct Format {
    pub schema: u32,
    #[serde(default = "first")]
    pub oldest: u32,
    #[serde(default)]
    pub release: String,
}

/// The rows of a store.
#[derive(Debug, Default)]
pub struct Stored {
    pub rows: Vec<Row>,
    /// Whether the store's schema is older than this release's.
    pub is_older: bool,
    /// Rows whose form is not the one in which this release writes them.
    pub outdated: Vec<Row>,
}

impl Stored {
    pub fn cluster(&self) -> Option<&ClusterRow> {
        self.rows.iter().find_map(|row| match row {
            Row::Cluster(row) => Some(row),
            _ => None,
        })
    }
}

/// Whether a cluster row is of a schema that is known, however it looks otherwise.
///
/// Errors: [`SchemaError`], without having looked at anything else.
pub fn admit(cluster: &[u8], known: &Known) -> Result<Format, SchemaError> {
    let format: Format = serde_json::from_slice(cluster).map_err(|source| RowError::Value {
        key: RowKey::Cluster.to_string(),
        source,
    })?;
    if format.schema > *known.schemas.end() {
        return Err(SchemaError::Newer {
            stored: format.schema,
            release: format.release,
            known: known.clone(),
        });
    }
    if format.oldest < *known.schemas.start() {
        return Err(SchemaError::Older {
            stored: format.oldest,
            known: known.clone(),
        });
    }
    Ok(format)
}

/// Reads all rows of a store; the schema first, since nothing else may be looked at before.
pub fn read(rows: &[(String, Vec<u8>)], known: &Known) -> Result<Stored, SchemaError> {
    let cluster = RowKey::Cluster.to_string();
    let cluster = rows.iter().find(|(key, _)| *key == cluster);
    let mut stored = Stored {
        is_older: match cluster {
            Some((_, value)) => admit(value, known)?.oldest < *known.schemas.end(),
            None => false,
        },
        ..Stored::default()
    };
    for (key, value) in rows {
        let row = Row::decode(key, value)?;
        let again = row.encode();
        // Almost every row is of the very form in which it would be written.
        if again != *value {
            match stored.is_older {
                true => stored.outdated.push(row.clone()),
                false => keeps_all(key, value, &again)?,
            }
        }
        stored.rows.push(row);
    }
    Ok(stored)
}

/// Refuses a row of which something would be lost in writing it again.
fn keeps_all(key: &str, value: &[u8], again: &[u8]) -> Result<(), RowError> {
    let wrong = |source| RowError::Value {
        key: key.to_string(),
        source,
    };
    let before = serde_json::from_slice(value).map_err(wrong)?;
    let after = serde_json::from_slice(again).map_err(wrong)?;
    match lost(&before, &after) {
        None => Ok(()),
        Some(field) => Err(RowError::Field {
            key: key.to_string(),
            field,
        }),
    }
}

/// The path of a field or element of `before` that `after` does not have.
fn lost(before: &Value, after: &Value) -> Option<String> {
    let below = |name: &str, rest: String| match rest.as_str() {
        "" => name.to_string(),
        rest => format!("{name}.{rest}"),
    };
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            before.iter().find_map(|(name, value)| match after.get(name) {
                Some(kept) => lost(value, kept).map(|rest| below(name, rest)),
                None => Some(name.clone()),
            })
        }
        (Value::Array(before), Value::Array(after)) => {
            (0..before.len()).find_map(|at| match (&before[at], after.get(at)) {
                (value, Some(kept)) => lost(value, kept).map(|rest| below(&at.to_string(), rest)),
                (_, None) => Some(at.to_string()),
            })
        }
        (Value::Object(_) | Value::Array(_), _) => Some(String::new()),
        _ => None,
    }
}

impl ClusterRow {
    /// The row of a cluster that is founded by this release.
    pub fn new(cluster: ClusterId) -> ClusterRow {
        ClusterRow {
            cluster,
            epoch: Epoch::FIRST,
            schema: SCHEMA,
            oldest: SCHEMA,
            release: Known::HERE.release.to_string(),
        }
    }

    /// The same with the schema of this release: from now on releases that do not know it are refused.
    /// Rows of the older form may still be there.
    pub fn raised(&self) -> ClusterRow {
        ClusterRow {
            schema: SCHEMA,
            release: Known::HERE.release.to_string(),
            ..self.clone()
        }
    }
}

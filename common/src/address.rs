//! Names in object stores: `s3://bucket/key`.

use std::{fmt, str::FromStr};

/// The stores that have a scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    S3,
    Gcs,
    Azure,
}

impl Scheme {
    const ALL: [Scheme; 3] = [Scheme::S3, Scheme::Gcs, Scheme::Azure];

    /// What stands before `://`.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::S3 => "s3",
            Scheme::Gcs => "gs",
            Scheme::Azure => "az",
        }
    }

    /// The cargo feature that brings it.
    pub fn feature(self) -> &'static str {
        match self {
            Scheme::S3 => "s3",
            Scheme::Gcs => "gcs",
            Scheme::Azure => "azure",
        }
    }
}

/// An object, or what a number of keys begin with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectUrl {
    pub scheme: Scheme,
    pub bucket: String,
    /// Without slashes at its ends; may be empty.
    pub key: String,
}

/// Whether a path names something in an object store, known or not, rather than in a file system.
pub fn is_url(path: &str) -> bool {
    path.contains("://")
}

impl FromStr for ObjectUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").ok_or("has no scheme")?;
        let scheme = Scheme::ALL
            .into_iter()
            .find(|known| known.name() == scheme)
            .ok_or("has a scheme that is not known; known are s3://, gs:// and az://")?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        // Also keeps a user and password out, which do not belong into a job file.
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if bucket.is_empty() || !bucket.bytes().all(named) {
            return Err("has no usable bucket name; credentials stand in the worker's environment");
        }
        let key = key.trim_end_matches('/');
        if key.split('/').any(|part| part == "." || part == "..") {
            return Err("holds `.` or `..`, which mean nothing in an object store");
        }
        if !key.is_empty() && key.split('/').any(str::is_empty) {
            return Err("holds an empty part (`//`)");
        }
        Ok(ObjectUrl {
            scheme,
            bucket: bucket.to_string(),
            key: key.to_string(),
        })
    }
}

impl fmt::Display for ObjectUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.bucket)?;
        match self.key.as_str() {
            "" => Ok(()),
            key => write!(f, "/{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for text in ["s3://b/k", "gs://b-1/a/b.csv", "az://c", "s3://b/data/*.csv"] {
            assert_eq!(text.parse::<ObjectUrl>().unwrap().to_string(), text);
            assert!(is_url(text));
        }
        assert_eq!("s3://b/k/".parse::<ObjectUrl>().unwrap().key, "k");
        assert!(!is_url("data/x.csv"));
    }

    #[test]
    fn what_names_nothing_is_told() {
        for (text, words) in [
            ("ftp://b/k", "known are s3://"),
            ("s3://", "bucket name"),
            ("s3://user:secret@b/k", "credentials stand in the worker's environment"),
            ("s3://b/a/../k", "`..`"),
            ("s3://b/a//k", "`//`"),
            ("s3:///k", "bucket name"),
        ] {
            let why = text.parse::<ObjectUrl>().unwrap_err();
            assert!(why.contains(words), "{text} {why}");
        }
    }
}

//! What goes wrong at an object store, and what helps.

use gapless_common::address::{ObjectUrl, Scheme};

/// The kinds that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The name cannot be one.
    Malformed,
    /// This build lacks the store.
    NotBuilt,
    /// Settings or credentials are missing or unusable.
    Settings,
    NoBucket,
    NotFound,
    /// Who asks is known to the store but may not, or is not known.
    Denied,
    /// The object is not the one that was asked for any more.
    Changed,
    /// There is an object of this name.
    Exists,
    /// Anything else: may pass.
    Passing,
}

/// Holds the name of the object and what the store said, never a header or a key of it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{url}: {message}")]
pub struct ObjectError {
    pub trouble: Trouble,
    pub url: String,
    pub message: String,
}

impl ObjectError {
    pub fn new(trouble: Trouble, url: impl ToString, message: impl Into<String>) -> Self {
        Self {
            trouble,
            url: url.to_string(),
            message: message.into(),
        }
    }

    /// Reads a name.
    ///
    /// Errors: `Malformed`.
    pub fn parse(text: &str) -> Result<ObjectUrl, ObjectError> {
        text.parse().map_err(|why| {
            Self::new(
                Trouble::Malformed,
                text,
                format!("the address {why}; write s3://bucket/key"),
            )
        })
    }

    /// The build has no such store.
    pub fn not_built(scheme: Scheme, url: impl ToString) -> Self {
        let message = format!(
            "this build of Gapless has no {}:// stores; build it with the cargo feature {}",
            scheme.name(),
            scheme.feature()
        );
        Self::new(Trouble::NotBuilt, url, message)
    }
}

impl From<ObjectError> for std::io::Error {
    fn from(error: ObjectError) -> Self {
        use std::io::ErrorKind;
        let kind = match error.trouble {
            Trouble::NotFound | Trouble::NoBucket => ErrorKind::NotFound,
            Trouble::Denied => ErrorKind::PermissionDenied,
            Trouble::Exists => ErrorKind::AlreadyExists,
            _ => ErrorKind::Other,
        };
        std::io::Error::new(kind, error)
    }
}

/// What a store's answer says, in its own words but without what may tell of a key: the XML of S3 and
/// Azure repeats key ids and what was signed beside its message.
#[cfg_attr(
    not(feature = "objects"),
    allow(dead_code, reason = "without a store only its tests use it")
)]
pub(super) fn said(body: &str) -> Option<String> {
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        let (text, _) = rest.split_once(&format!("</{name}>"))?;
        // One line of it is enough for a person.
        let text = text.lines().next()?.trim();
        (!text.is_empty()).then(|| text.chars().take(300).collect::<String>())
    };
    match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (code, message) => code.or(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_without_keys() {
        let body = "<Error><Code>SignatureDoesNotMatch</Code><Message>The signature differs.</Message>\
                    <AWSAccessKeyId>AKIASECRET</AWSAccessKeyId><StringToSign>AWS4</StringToSign></Error>";
        assert_eq!(said(body).unwrap(), "SignatureDoesNotMatch: The signature differs.");
        assert_eq!(said("<html>"), None);
    }

    #[test]
    fn a_build_without_a_store_names_what_brings_it() {
        let error = ObjectError::not_built(Scheme::Gcs, "gs://b/k").to_string();
        assert!(
            error.contains("no gs:// stores") && error.contains("cargo feature gcs"),
            "{error}"
        );
    }
}

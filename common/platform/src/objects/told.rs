//! What an object store's errors mean, in our words.

use gapless_common::address::{ObjectUrl, Scheme};

use super::{ObjectError, Trouble, error::said};

/// What stores say where the bucket is missing.
const NO_BUCKET: [&str; 3] = [
    "NoSuchBucket",
    "ContainerNotFound",
    "The specified bucket does not exist",
];

/// What stores say to credentials that may not, or are not known, where it is told without a status.
const DENIED: [&str; 5] = [
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
];

/// Settings of the environment that cannot be.
pub(super) fn unusable(url: &ObjectUrl, error: &object_store::Error) -> ObjectError {
    ObjectError::new(
        Trouble::Settings,
        url,
        format!(
            "the settings of this worker's environment cannot be used: {}; look at {}",
            reason(error),
            credentials(&url.to_string())
        ),
    )
}

/// The trouble that a refusal tells of, by what the store said and its status.
pub(super) fn trouble_in(said: &str, status: Option<u16>) -> Option<Trouble> {
    let is = |names: &[&str]| names.iter().any(|name| said.contains(name));
    if is(&NO_BUCKET) {
        return Some(Trouble::NoBucket);
    }
    (matches!(status, Some(401 | 403)) || is(&DENIED)).then_some(Trouble::Denied)
}

/// An error of the crate in our words, without what a store repeats of requests.
pub(super) fn told(url: &str, error: &object_store::Error) -> ObjectError {
    use object_store::Error;
    let message = reason(error);
    let refusal = trouble_in(&message, status(error));
    let trouble = match error {
        Error::NotFound { .. } | Error::Generic { .. } if refusal == Some(Trouble::NoBucket) => Trouble::NoBucket,
        Error::NotFound { .. } => Trouble::NotFound,
        Error::AlreadyExists { .. } => Trouble::Exists,
        Error::Precondition { .. } | Error::NotModified { .. } => Trouble::Changed,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Trouble::Denied,
        Error::InvalidPath { .. } => Trouble::Malformed,
        Error::Generic { .. } if of_credentials(error) => Trouble::Settings,
        // Listings and deletions are told by their code alone.
        Error::Generic { .. } => refusal.unwrap_or(Trouble::Passing),
        _ => Trouble::Passing,
    };
    explained(trouble, url, message)
}

/// Whether an object or an upload is not there, though its bucket is.
pub(super) fn is_gone(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. }) && trouble_in(&reason(error), None) != Some(Trouble::NoBucket)
}

/// An error that says what a store said, after what that means.
pub(super) fn explained(trouble: Trouble, url: &str, message: String) -> ObjectError {
    let message = match trouble {
        Trouble::NoBucket => format!("there is no such bucket ({message})"),
        Trouble::NotFound => "there is no such object".to_string(),
        Trouble::Changed => "the object is not the one that it was".to_string(),
        Trouble::Exists => "an object of this name exists".to_string(),
        Trouble::Denied => format!("not permitted to this worker's credentials ({message})"),
        Trouble::Settings => format!(
            "this worker has no credentials for it ({message}); set {} in its environment, or give its machine a role",
            credentials(url)
        ),
        _ => message,
    };
    ObjectError::new(trouble, url, message)
}

/// The variables that hold the credentials of the store of an address.
fn credentials(url: &str) -> &'static str {
    let is = |scheme: Scheme| url.split_once("://").is_some_and(|(name, _)| name == scheme.name());
    if is(Scheme::Gcs) {
        "GOOGLE_APPLICATION_CREDENTIALS"
    } else if is(Scheme::Azure) {
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
    } else {
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    }
}

/// Whether the request was for credentials, which a machine, container or service account has at an
/// address of its own.
fn of_credentials(error: &object_store::Error) -> bool {
    let mut at: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = at {
        let shown = error.to_string();
        let signs = ["169.254.", "metadata.google.internal", "redential", "AssumeRole"];
        if signs.iter().any(|sign| shown.contains(sign)) {
            return true;
        }
        at = error.source();
    }
    false
}

/// The status that a store answered with.
fn status(error: &object_store::Error) -> Option<u16> {
    let mut at: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = at {
        let shown = error.to_string();
        if let Some((_, status)) = shown.split_once("status code: ") {
            return status.get(..3)?.parse().ok();
        }
        at = error.source();
    }
    None
}

/// What a store said, or the innermost reason why nothing came of it.
fn reason(error: &object_store::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    let mut text = String::new();
    loop {
        let shown = innermost.to_string();
        if let Some(said) = said(&shown) {
            return said;
        }
        if let Some((_, status)) = shown.split_once("status code: ") {
            text = format!("status {}", status.split(':').next().unwrap_or_default().trim());
        }
        match innermost.source() {
            Some(source) => innermost = source,
            None if text.is_empty() => {
                // Addresses of requests carry a signature at times.
                let shown = innermost.to_string();
                return shown.split('?').next().unwrap_or_default().chars().take(300).collect();
            }
            None => return text,
        }
    }
}

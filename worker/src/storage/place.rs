//! Places: a path names a file or folder of a file system or, where it has a scheme, an object or a
//! prefix of an object store (`s3://bucket/key`). The only code that tells the two apart.

use std::{
    io,
    path::{Path, PathBuf},
};

use gapless_common::{
    address::is_url,
    error::{ErrorClass, TaskError},
};
use gapless_platform::objects::{Bucket, ObjectError, Trouble};

/// A path of a job file from where it stands: relative ones from `base_dir`, addresses as they are.
pub fn resolve(base_dir: &Path, path: &str) -> PathBuf {
    match is_url(path) {
        true => PathBuf::from(path.trim_end_matches('/')),
        false => base_dir.join(path),
    }
}

/// Whether the place is in an object store.
pub fn is_object(path: &Path) -> bool {
    path.to_str().is_some_and(is_url)
}

/// The bucket and key of a place in an object store; `None` in a file system.
pub(crate) fn object(path: &Path) -> Result<Option<(Bucket, String)>, ObjectError> {
    let Some(text) = path.to_str().filter(|text| is_url(text)) else {
        return Ok(None);
    };
    let url = ObjectError::parse(text)?;
    Ok(Some((Bucket::open(&url)?, url.key)))
}

/// What kind of trouble an error of an object store is: a name, a setting or a permission will not
/// mend itself.
fn class_of(trouble: Trouble) -> ErrorClass {
    match trouble {
        Trouble::Malformed
        | Trouble::NotBuilt
        | Trouble::Settings
        | Trouble::NoBucket
        | Trouble::NotFound
        | Trouble::Denied
        | Trouble::Changed => ErrorClass::Config,
        Trouble::Exists | Trouble::Passing => ErrorClass::Transient,
    }
}

/// An error of an object store as a task reports it. `action` completes "cannot …".
pub fn object_error(action: &str, error: &ObjectError) -> TaskError {
    let remedy = match error.trouble {
        Trouble::NoBucket => "; create the bucket, or mend the path or the endpoint",
        Trouble::Denied => "; give this worker's credentials the permission, or mend the path",
        _ => "",
    };
    TaskError::new(class_of(error.trouble), format!("cannot {action} {error}{remedy}"))
}

/// The error of an object store that an IO error brings.
pub(crate) fn object_error_in(error: &io::Error) -> Option<&ObjectError> {
    error.get_ref()?.downcast_ref::<ObjectError>()
}

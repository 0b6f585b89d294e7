//! Object stores: the one door to them, for threads that wait.
//!
//! A [`Bucket`] lists, reads by range, writes, creates once, copies and deletes. The calls run on a
//! small runtime of their own, each with a time-out and retries; whoever calls is an ordinary thread.
//! Settings and credentials come from the environment of the process, in the names that the stores'
//! own tools use, and go nowhere else: no error and no log holds a part of them.
//!
//! Which stores there are is a matter of the build: the features `s3`, `gcs` and `azure`.

#[cfg(feature = "objects")]
mod connect;
mod error;
mod read;
#[cfg_attr(feature = "objects", path = "store.rs")]
#[cfg_attr(not(feature = "objects"), path = "absent.rs")]
mod store;
#[cfg(feature = "objects")]
mod told;

use gapless_common::address::Scheme;

pub use error::{ObjectError, Trouble};
pub use read::ObjectFile;
pub use store::{Bucket, Pending, Upload};

/// Whether this build has the stores of a scheme.
pub fn is_built(scheme: Scheme) -> bool {
    match scheme {
        Scheme::S3 => cfg!(feature = "s3"),
        Scheme::Gcs => cfg!(feature = "gcs"),
        Scheme::Azure => cfg!(feature = "azure"),
    }
}

/// Bytes of one part of a multipart upload, and of the largest object that is put in one request.
/// Above the 5 MiB that S3 asks for; 10,000 parts of it are 80 GB, the largest object that can be written.
pub const PART: usize = 8 << 20;

/// The largest object that is copied within a store: more than this S3 copies only in parts.
pub const MAX_COPY: u64 = 5 << 30;

/// What a store tells of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub key: String,
    pub size: u64,
    /// Changes with the content. Where a store has none, the time of the last change stands for it, in
    /// a form that no store uses.
    pub etag: String,
}

/// What the etags begin with that are times.
#[cfg(feature = "objects")]
const TIME_ETAG: &str = "modified ";

#[cfg(feature = "objects")]
impl Found {
    /// The etag as the store knows it, to be named in a condition.
    fn condition(etag: &str) -> Option<&str> {
        (!etag.starts_with(TIME_ETAG)).then_some(etag)
    }
}

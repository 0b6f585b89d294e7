//! The door where the build has no object store: it opens to nothing, and says so.

use std::{marker::PhantomData, ops::Range};

use bytes::Bytes;
use gapless_common::address::ObjectUrl;

use super::{Found, ObjectError};

/// A bucket that cannot be reached.
#[derive(Clone, Debug)]
pub struct Bucket {
    url: ObjectUrl,
}

/// An answer that is an error.
pub struct Pending<T>(ObjectError, PhantomData<T>);

/// An object that cannot be written.
pub struct Upload {
    bucket: Bucket,
}

impl Bucket {
    /// Errors: always, naming the feature that is missing.
    pub fn open(url: &ObjectUrl) -> Result<Bucket, ObjectError> {
        Bucket { url: url.clone() }.none()
    }

    fn error(&self) -> ObjectError {
        ObjectError::not_built(self.url.scheme, &self.url)
    }

    fn none<T>(&self) -> Result<T, ObjectError> {
        Err(self.error())
    }

    pub fn url(&self, key: &str) -> String {
        format!("{}/{key}", self.url)
    }

    pub fn list(&self, _: &str, _: usize) -> Result<Vec<Found>, ObjectError> {
        self.none()
    }

    pub fn names(&self, _: &str) -> Result<Vec<String>, ObjectError> {
        self.none()
    }

    pub fn head(&self, _: &str) -> Result<Option<Found>, ObjectError> {
        self.none()
    }

    pub fn get(&self, _: &str) -> Result<Option<Bytes>, ObjectError> {
        self.none()
    }

    pub fn fetch(&self, _: &str, _: &str, _: Range<u64>) -> Pending<Bytes> {
        Pending(self.error(), PhantomData)
    }

    pub fn tail(&self, _: &str, _: u64) -> Pending<(Found, Bytes)> {
        Pending(self.error(), PhantomData)
    }

    pub fn create(&self, _: &str, _: Vec<u8>) -> Result<bool, ObjectError> {
        self.none()
    }

    pub fn copy(&self, _: &[(String, String)]) -> Result<(), ObjectError> {
        self.none()
    }

    pub fn delete(&self, _: &[String]) -> Result<(), ObjectError> {
        self.none()
    }

    pub fn abort_uploads(&self, _: &str) -> Result<usize, ObjectError> {
        self.none()
    }

    pub fn upload(&self, _: &str) -> Upload {
        Upload { bucket: self.clone() }
    }
}

impl<T> Pending<T> {
    pub fn wait(self) -> Result<T, ObjectError> {
        Err(self.0)
    }
}

impl Upload {
    pub fn write(&mut self, _: &[u8]) -> Result<(), ObjectError> {
        self.bucket.none()
    }

    pub fn finish(&mut self) -> Pending<()> {
        Pending(self.bucket.error(), PhantomData)
    }
}

//! The wire: messages and services generated from the .proto files beside this crate, and the way to
//! a server that speaks them.

pub mod access;

/// Version 1 of the API.
pub mod v1 {
    #![allow(clippy::all, reason = "generated code")]
    tonic::include_proto!("gapless.v1");

    /// The encoded descriptors, for the reflection service.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

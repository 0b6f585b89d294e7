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

/// Metadata key of a refusal (UNAVAILABLE) by a coordinator that does not lead: the URL of the one that
/// does, empty where it is not known. What was asked has not been done.
pub const LEADER_KEY: &str = "gapless-leader";

/// Metadata key of a refusal (RESOURCE_EXHAUSTED) that passes by itself: milliseconds after which the call may
/// be made again. What was asked has not been done. The name is that of gRPC's own retries.
pub const RETRY_KEY: &str = "grpc-retry-pushback-ms";

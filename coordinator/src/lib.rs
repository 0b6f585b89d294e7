//! The coordinator: the shell around the decision core. It owns the store, the clock and the
//! connections; what follows from an event is decided in `gapless-core` alone.

pub mod control;
mod grpc;
mod guard;
mod identity;
mod leading;
mod limits;
pub mod metrics;
mod seat;
mod server;
pub mod store;
mod takeover;
mod traced;
mod view;
mod wire;

pub use gapless_core::{split, validate};
pub use guard::{Security, SecurityError};
pub use server::{ServeConfig, ServeError, Server, StoreConfig, serve};

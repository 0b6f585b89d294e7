//! What every process of Gapless stands on: configuration, telemetry, time, retries, shutdown.
//!
//! This is the only crate that reads the environment, the process's clock and its signals; the
//! shells above it are handed values. It knows nothing of jobs, runs or the wire.

pub mod clock;
pub mod config;
pub mod metrics;
pub mod monitor;
pub mod objects;
pub mod process;
pub mod retry;
pub mod said;
pub mod secret;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod tokens;
pub mod traces;

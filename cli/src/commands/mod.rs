//! One file for each verb.

pub mod cancel;
pub mod cluster;
pub mod config;
pub mod coordinator;
pub mod describe;
pub mod get;
pub mod list;
pub mod logs;
pub mod plan;
pub mod run;
pub mod schema;
pub mod stop;
pub mod submit;
pub mod tls;
pub mod token;
pub mod validate;
pub mod verify;
pub mod watch;
pub mod worker;
pub mod workers;

//! One file for each verb.

pub mod cluster;
pub mod completion;
pub mod config;
pub mod coordinator;
pub mod describe;
pub mod end;
pub mod get;
pub mod init;
pub mod list;
pub mod logs;
pub mod man;
pub mod plan;
pub mod redrive;
pub mod rejects;
pub mod run;
pub mod schema;
pub mod submit;
pub mod tls;
pub mod token;
pub mod validate;
pub mod verify;
pub mod watch;
pub mod worker;
pub mod workers;

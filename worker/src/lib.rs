//! The worker: holds a session with the leader, works off the attempts it is granted, and makes
//! their output durable. It never sees the store, and it decides nothing about other partitions.

pub mod allow;
pub mod attempt;
mod avro;
pub mod command;
pub mod engine;
pub mod examine;
pub mod exchange;
pub mod metrics;
pub mod publish;
pub mod redrive;
pub mod rejects;
pub mod reread;
pub mod runner;
pub mod session;
pub mod sink;
pub mod sort;
pub mod source;
pub mod storage;
pub mod survey;
mod type_names;
pub mod verify;
pub mod work;

//! The job language: one YAML file, read by one parser into typed structs.

mod model;

pub use model::*;

//! The job language: one YAML file, read by one parser into typed structs.
//!
//! `yaml` makes a tree with places, `keys` is the table of the language, `read` gives typed access
//! to the tree by that table, `step`, `records` and `column` build the model (`model`, `layout`), `check` compares the steps,
//! `params` and `substitute` put values in, `schema` shows the table to editors, `reference` to readers.

mod check;
mod column;
mod delimiter;
mod error;
mod keys;
mod layout;
mod model;
mod params;
mod parse;
mod read;
mod records;
mod redrive;
mod reference;
mod schema;
mod step;
mod substitute;
mod yaml;

pub use delimiter::Delimiter;
pub use error::{JobError, JobErrors, Position, nearest};
pub use keys::{MAX_NAME_BYTES, MAX_PARTITIONS};
pub use layout::*;
pub use model::*;
pub use params::BoundParameters;
pub use parse::{ParsedJob, parse, parse_redrive};
pub use reference::{fill_reference, reference};
pub use schema::json_schema;
pub use yaml::MAX_TEXT_BYTES;

#[cfg(test)]
mod tests;

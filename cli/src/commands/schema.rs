//! `gapless schema`: the JSON Schema of job files, for editors.

use clap::Args;

use crate::{failure::Failure, local, output};

#[derive(Debug, Args)]
pub struct Arguments {}

pub fn run(_: Arguments) -> Result<(), Failure> {
    output::print(&local::schema()?)
}

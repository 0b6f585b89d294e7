//! `gapless schema`: the language of job files, as a JSON Schema for editors or as tables for people.

use clap::{Args, ValueEnum};

use crate::{failure::Failure, local, output};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Form of the language
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Form::Json)]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A JSON Schema (draft 7)
    Json,
    /// Each key with its type, default, meaning and example
    Markdown,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let text = match arguments.output {
        Form::Json => local::schema()?,
        Form::Markdown => local::reference(),
    };
    output::print(&text)
}

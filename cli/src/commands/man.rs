//! `gapless man`: the manual as man pages, one for each verb.

use std::{fs, path::PathBuf};

use clap::{Args, CommandFactory};
use clap_mangen::{Man, generate_to};

use crate::{
    arguments,
    failure::{Failure, Kind, talk},
    output,
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Write the pages of all verbs to this folder, which is made where it is not there [default: print the page of the
    /// program]
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let command = arguments::Arguments::command();
    let Some(folder) = arguments.folder else {
        let mut page = Vec::new();
        let rendered = Man::new(command).render(&mut page);
        rendered.map_err(|error| Failure::failed(format!("cannot write the page: {error}")))?;
        return output::print(&String::from_utf8_lossy(&page));
    };
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            Failure::new(Kind::Denied, format!("cannot write to {}: {error}", folder.display()))
        }
        _ => Failure::failed(format!("cannot write to {}: {error}", folder.display())),
    };
    fs::create_dir_all(&folder).map_err(cannot)?;
    generate_to(command, &folder).map_err(cannot)?;
    talk(format_args!(
        "man pages are in {}; `man -l {}`",
        folder.display(),
        folder.join("gapless.1").display()
    ));
    Ok(())
}

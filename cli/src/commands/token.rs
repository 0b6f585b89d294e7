//! `gapless token new`: a token for a client or worker, and the line that lets it in.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Args, Subcommand};
use gapless_platform::tokens::{self, Role, TokenBook};

use crate::{
    app::App,
    failure::{Failure, Kind, talk},
    output,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a token: it goes to stdout, and is shown nowhere else and never again
    New(New),
}

#[derive(Debug, Args)]
struct New {
    /// What it allows: view, submit, operate, admin (each with all before it), or worker
    #[arg(long, value_name = "ROLE", value_parser = Role::from_str)]
    role: Role,
    /// Whose it is, for the audit log
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: String,
    /// When it ends to be good, such as 2027-01-31 or 2027-01-31T12:00:00Z [default: never]
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// Add the line to this tokens file, which is made where it is missing
    #[arg(long, value_name = "FILE")]
    add_to: Option<PathBuf>,
}

fn parse_name(text: &str) -> Result<String, String> {
    tokens::check_name(text).map(|()| text.to_string())
}

pub fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let Verb::New(new) = arguments.verb;
    if let Some(text) = &new.expires {
        let expires = tokens::parse_expiry(text);
        let expires = expires.map_err(|allowed| Failure::usage(format!("--expires {text:?}: {allowed}")))?;
        if expires <= app.clock.now_micros() {
            return Err(Failure::usage(format!("--expires {text:?} has passed already")));
        }
    }
    let token = tokens::new_token().map_err(|error| Failure::failed(error.to_string()))?;
    let line = tokens::line_of(&token, &new.name, new.role, new.expires.as_deref());
    match &new.add_to {
        Some(path) => {
            add(path, &line)?;
            talk(format_args!(
                "{} has the role {} by {}",
                new.name,
                new.role,
                path.display()
            ));
        }
        None => talk(format_args!(
            "Add this to the coordinator's tokens file, below `tokens:`, or give --add-to FILE:\n{line}"
        )),
    }
    output::print(&format!("{}\n", token.expose()))
}

/// Adds a line at the end of a tokens file, if that makes a file that a coordinator takes.
fn add(path: &Path, line: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let mut added = String::new();
    match fs::read_to_string(path) {
        Ok(text) if text.is_empty() || text.ends_with('\n') => added.push_str(&text),
        Ok(text) => added.push_str(&format!("{text}\n")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => added.push_str("tokens:\n"),
        Err(error) => return Err(failed(error)),
    }
    let before = fs::metadata(path).map_or(0, |file| file.len() as usize);
    added.push_str(line);
    added.push('\n');
    TokenBook::parse(path, &added)
        .map_err(|error| Failure::new(Kind::Conflict, format!("{error}; nothing was added")))?;
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(&added.as_bytes()[before..]));
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_added_and_a_name_is_there_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens.yaml");
        let line = |name: &str| {
            let token = tokens::new_token().expect("random bytes");
            tokens::line_of(&token, name, Role::View, None)
        };
        add(&path, &line("a")).expect("made");
        add(&path, &line("b")).expect("added");
        let before = fs::read_to_string(&path).expect("readable");
        let refused = add(&path, &line("a")).expect_err("twice");
        assert_eq!(refused.kind, Kind::Conflict);
        assert!(refused.message.contains("nothing was added"), "{refused}");
        assert_eq!(fs::read_to_string(&path).expect("readable"), before);
        // Without a line end, as editors may leave it.
        fs::write(&path, before.trim_end()).expect("written");
        add(&path, &line("c")).expect("added");
        assert!(TokenBook::read(&path).is_ok());
        assert_eq!(fs::read_to_string(&path).expect("readable").lines().count(), 4);
    }
}

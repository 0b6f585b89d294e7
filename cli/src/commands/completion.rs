//! `gapless completion`: the script that completes verbs and flags in a shell.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

use crate::{arguments, failure::Failure, output};

const ABOUT: &str = "\
  bash   gapless completion bash > ~/.local/share/bash-completion/completions/gapless
  zsh    gapless completion zsh > ~/.zfunc/_gapless        (a folder of $fpath)
  fish   gapless completion fish > ~/.config/fish/completions/gapless.fish";

#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub struct Arguments {
    #[arg(value_enum)]
    shell: Known,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let shell = match arguments.shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut arguments::Arguments::command(), "gapless", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

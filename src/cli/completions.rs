//! `residua completions SHELL`.

use clap_complete::Shell;

use super::output::print;
use crate::error::Result;

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua completions bash > ~/.local/share/bash-completion/completions/residua
      For bash, from the next shell on
  residua completions zsh > ~/.zfunc/_residua
      For zsh, with ~/.zfunc in fpath
  residua completions fish > ~/.config/fish/completions/residua.fish
      For fish";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// The shell to complete for
    shell: Shell,
}

pub fn run(arguments: &Arguments, command: &mut clap::Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "residua", &mut script);
    print(&String::from_utf8_lossy(&script))
}

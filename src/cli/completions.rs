//! `residua completions SHELL`.

use clap_complete::Shell;

use super::output::print;
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The shell to complete for
    shell: Shell,
}

pub fn run(arguments: &Arguments, command: &mut clap::Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "residua", &mut script);
    print(&String::from_utf8_lossy(&script))
}

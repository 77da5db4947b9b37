//! `residua completions SHELL`.

use clap_complete::Shell;

use crate::error::Result;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The shell to complete for
    shell: Shell,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::command(), "residua", &mut script);
    super::print(&String::from_utf8_lossy(&script))
}

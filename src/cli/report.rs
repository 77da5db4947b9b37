//! `residua report RUN`.

use std::path::PathBuf;

use super::common::Common;
use super::output::{in_json, print};
use crate::error::Result;
use crate::report::{self, Options};

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua report runs/first
      Writes runs/first/report.html
  residua report runs/first --png
      Every figure as PNG, too";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// The folder of a run: recipe.toml, metrics.jsonl, ood/, collapse/, whatever is there; the folder of several seeds; or what
    /// `ood --out` or `collapse --out` wrote
    run: PathBuf,
    /// Write every figure as PNG too
    #[arg(long)]
    png: bool,
}

pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let page = report::build_with(&arguments.run, Options { png: arguments.png })?;
    if common.json {
        print(&format!("{}\n", serde_json::json!({ "report": in_json(&page) })))?;
    } else {
        print(&format!("{}\n", page.display()))?;
    }
    Ok(())
}

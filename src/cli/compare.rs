//! `residua compare RUN RUN…`.

use std::path::PathBuf;

use super::common::Common;
use super::output::{print, print_result, tell, width};
use crate::compare::{self, Options};
use crate::error::Result;
use crate::files;
use crate::values::Wholes;

const EXAMPLES: &str = "\
Examples:
  residua compare runs/a runs/b
      Two trainings, on the samples that they share
  residua compare runs/a runs/b runs/c --out runs/compared
      Two runs against the first, and a page: runs/compared/compare.html
  residua compare runs/sgd-seeds runs/adam-seeds
      Folders of `run --seeds`: means over seeds
  residua compare ood_a ood_b --paired
      What `ood --out` wrote, on samples that you know to be the same
  residua compare runs/a/test runs/b/test --json
      Two caches of `extract`, for a program

Every difference is run − baseline with a 95 % interval. On the same samples
it is paired: Newcombe's method 10 and McNemar for accuracy, DeLong for AUROC,
t for NLL and Brier, a bootstrap that draws the same samples for both for ECE
and FPR95. These intervals cover the choice of test samples, not the seed of
the training. A folder of seeds is one run: means over its seeds, and t
intervals that cover the seed and not the test samples.";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// Run folders, folders of several seeds, what `ood --out` or `collapse --out` wrote, or feature caches; the first is the
    /// baseline
    #[arg(value_name = "RUN", num_args = 2.., required = true)]
    runs: Vec<PathBuf>,
    /// Folder for compare.html, compare.json and compare.csv; without it the tables are printed and nothing is written
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Name of the labelled test set's cache below RUN/features/CHECKPOINT/
    #[arg(long, value_name = "NAME", default_value = "id")]
    set: String,
    /// Vouch that scores and test sets with equal numbers of rows are of the same samples in the same order, where no cache tells
    #[arg(long)]
    paired: bool,
    /// Replicates of the bootstrap, for intervals of ECE and FPR95; 0 for none
    #[arg(long, value_parser = Wholes::<u32>::ANY, default_value_t = 1000, value_name = "N")]
    bootstrap: u32,
    /// Seed of the bootstrap
    #[arg(long, value_parser = Wholes::<u64>::ANY, default_value_t = 0, value_name = "S")]
    seed: u64,
}

/// Columns of a text that goes to no terminal.
const COLUMNS: usize = 80;

pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let out = arguments.out.as_deref().map(files::check_output_folder).transpose()?;
    let options = Options {
        set: arguments.set.clone(),
        bootstrap: arguments.bootstrap,
        seed: arguments.seed,
        assume_paired: arguments.paired,
    };
    let comparison = compare::compare(&arguments.runs, &options)?;
    let page = out.map(|out| comparison.write(&out)).transpose()?;
    print_result(common, None, &comparison, || comparison.text(width().unwrap_or(COLUMNS)))?;
    match page {
        Some(page) if common.json => {
            if !common.quiet {
                tell(&format!("page: {}", page.display()));
            }
            Ok(())
        }
        Some(page) => print(&format!("\npage: {}\n", page.display())),
        None => Ok(()),
    }
}

//! `residua compare RUN RUN…`.

use std::path::PathBuf;

use super::common::Common;
use super::output::{print, print_result, tell};
use crate::compare::{self, Options};
use crate::error::Result;
use crate::files;
use crate::values::Wholes;

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  \
    residua compare runs/a runs/b                    two trainings, on the samples they share\n  \
    residua compare runs/a runs/b runs/c --out cmp   two runs against the first; cmp/compare.html\n  \
    residua compare runs/sgd runs/adam               folders of `run --seeds`: means over seeds\n  \
    residua compare ood_a ood_b --paired             what `ood --out` wrote, of the same samples\n  \
    residua compare runs/a/test runs/b/test --json   two caches of `extract`, for a program\n\n\
    Every difference is run − baseline with a 95 % interval. On the same samples it is paired:\n\
    Newcombe's method 10 and McNemar for accuracy, DeLong for AUROC, t for NLL and Brier, a\n\
    bootstrap that draws the same samples for both for ECE and FPR95. These intervals cover the\n\
    choice of test samples. A folder of seeds is one run: means over its seeds, and t intervals\n\
    that cover the seed.")]
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
    let columns = usize::from(console::Term::stdout().size().1);
    print_result(common, None, &comparison, || comparison.text(columns))?;
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

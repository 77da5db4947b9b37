//! `residua verify`: is a result bundle as it was written, and do its numbers come out again?

use std::path::PathBuf;

use clap::Args;

use super::common::Common;
use super::output::print_result;
use crate::error::{Error, Result};
use crate::ood::bundle;

/// Examples of `--help`, and what is compared.
const EXAMPLES: &str = "\
Examples:
  residua verify result.zip
      Levels 1 and 2, from the bundle alone
  residua verify result.zip --caches runs/first/features
      All four levels: everything is computed anew
  residua verify result.zip --json
      The same for a program: every level, every difference

Levels:
  1  hashes: each entry has the size and SHA-256 of the manifest, and every
     byte of the file around the entries is the one that belongs there
  2  tables from scores: every number of metrics.json and line of metrics.csv
  3  scores from fit and caches: every score of every sample, and whether its
     class is predicted
  4  fit from caches: fitted again, and compared by rank, dimension, condition
     and constants, by tensors (but bases of eigenvectors, whose signs and
     order mean nothing), and by every score that the new fit gives
  A level that was not asked for is called `not done`.

Differences are shares: of the larger of two numbers in tables (at least
1e-6), of the largest absolute score of that score on that set, of the largest
number of a tensor. Up to 1e-9 they hold; at level 4, where a score inverts a
matrix, up to 16 epsilon of its condition number if that is more. Counts,
names, texts and predicted classes have to be equal.

Caches are found in DIR and the folders below by the name they had, or any
other name if their arrays have the SHA-256 of the manifest.

Hashes prove integrity, not authorship: whoever changes a bundle can write
new hashes. Levels 3 and 4 show that its numbers follow from the caches; that
it is the bundle you were told of shows its SHA-256, which is printed, beside
one from a source that you trust.

Exit codes: 0 every level that was asked for holds, 1 something differs or
the file is no bundle, 2 wrong use.";

/// Flags of `verify`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// A result bundle, which `residua ood --bundle` wrote
    #[arg(value_name = "BUNDLE.zip")]
    bundle: PathBuf,
    /// A folder with the feature caches that the bundle was made from, for levels 3 and 4; a cache that is not the one of the bundle
    /// is named with its array
    #[arg(long, value_name = "DIR")]
    caches: Option<PathBuf>,
}

/// Runs the verb.
///
/// # Errors
/// No bundle, or one that does not hold.
pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let Arguments { bundle: file, caches } = arguments;
    if let Some(folder) = caches.as_ref().filter(|folder| !folder.is_dir()) {
        return Err(Error::usage(format!(
            "--caches {}: expected a folder with feature caches, found {}",
            folder.display(),
            if folder.exists() { "a file" } else { "nothing" }
        )));
    }
    let report = bundle::verify(file, caches.as_deref())?;
    print_result(common, None, &report, || report.summary())?;
    match report.holds {
        true => Ok(()),
        false => Err(Error::invalid(format!("{}: {}", file.display(), report.verdict))),
    }
}

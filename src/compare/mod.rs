//! Runs beside each other: how their numbers, curves, recipes and answers differ, and which of it may be chance.
//!
//! The first run is the baseline; every difference is *run − baseline* with a 95 % interval. Two trainings measured on the same samples are
//! compared sample by sample (`statistics`), so what is hard for both cancels; the interval covers the choice of test samples, not what
//! another seed would have given. A run of several seeds is compared by means over its seeds; that interval covers how
//! trainings differ, on the test samples at hand. Intervals hold one by one, not all at once: of twenty differences that are nothing, one is
//! outside its interval on average.
//!
//! | file | holds |
//! |---|---|
//! | `runs` | what is compared: run folders, folders of seeds, output of `ood`, caches |
//! | `predictions` | answers, confidences and losses of a network on its labelled test set |
//! | `pairing` | whether two runs measured the same samples |
//! | `statistics` | intervals and tests |
//! | `rows`, `id_rows`, `ood_rows` | the table of differences |
//! | `recipes` | keys that differ |
//! | `disagreements` | samples on which one network is right and the other wrong |
//! | `terminal`, `files`, `page` | the result for people and for programs |

mod disagreements;
mod files;
mod id_rows;
mod ood_rows;
mod page;
mod pairing;
mod predictions;
mod recipes;
mod rows;
mod runs;
mod statistics;
mod terminal;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};

pub use disagreements::{Disagreement, Sample};
pub use recipes::RecipeKey;
pub use rows::{Covers, Difference, Metric, Row, Section, Verdict};
pub use statistics::Agreement;

use runs::Run;

/// Most runs that one comparison holds.
pub const MOST_RUNS: usize = 50;

/// Most replicates of the bootstrap: percentiles are no sharper with more.
pub const MOST_REPLICATES: u32 = 100_000;

/// Choices of a comparison.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the labelled test set's cache, below `features/CHECKPOINT/`.
    pub set: String,
    /// Replicates of the bootstrap, for ECE and FPR95; 0 leaves their intervals out.
    pub bootstrap: u32,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Takes samples for the same where numbers of rows allow it, though nothing shows that they are.
    pub assume_paired: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { set: "id".to_string(), bootstrap: 1000, seed: 0, assume_paired: false }
    }
}

/// A run of a comparison.
#[derive(Debug, Clone, Serialize)]
pub struct RunSummary {
    /// The name in tables: unique, and no longer than needed for that.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// The recipe's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The seeds of a run that has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<u64>,
}

/// Everything that a comparison found.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The runs; the first is the baseline.
    pub runs: Vec<RunSummary>,
    /// Notes that decide how the numbers are to be read, in sentences.
    pub notes: Vec<String>,
    /// Keys of the recipes that differ; `None` where a run has no recipe.
    pub recipe: Option<Vec<RecipeKey>>,
    /// Numbers and their differences.
    pub rows: Vec<Row>,
    /// A comparison of answers with the baseline for each run that has some of the same samples.
    pub disagreements: Vec<Disagreement>,
    #[serde(skip)]
    curves: Vec<page::Curves>,
}

/// Compares runs with the first of them.
///
/// # Errors
/// Fewer than two runs, more than [`MOST_RUNS`], a folder that is no run (named, with what was expected), or a damaged file in one.
pub fn compare(folders: &[PathBuf], options: &Options) -> Result<Comparison> {
    if folders.len() < 2 || folders.len() > MOST_RUNS {
        return Err(Error::usage(format!(
            "{} run was given; a comparison takes from 2 to {MOST_RUNS}: the baseline first",
            folders.len()
        )));
    }
    if options.bootstrap == 1 || options.bootstrap > MOST_REPLICATES {
        return Err(Error::usage(format!(
            "--bootstrap {}: expected 0, for no interval of ECE and FPR95, or from 2 to {MOST_REPLICATES} replicates",
            options.bootstrap
        )));
    }
    let names = runs::names(folders);
    let read = |(folder, name): (&PathBuf, String)| Run::read(folder, name, &options.set);
    let runs: Vec<Run> = folders.iter().zip(names).map(read).collect::<Result<_>>()?;
    let mut notes = Vec::new();
    let mut table = rows::Table::new(&runs);
    id_rows::add(&mut table, &runs, options, &mut notes);
    ood_rows::add(&mut table, &runs, options, &mut notes)?;
    table.add_training(&runs);
    table.add_collapse(&runs);
    runs.iter().for_each(|run| notes.extend(run.notes.iter().cloned()));
    if table.rows.is_empty() {
        notes.push(format!(
            "the runs have no numbers in common: neither a cache features/CHECKPOINT/{} with labels, nor OOD scores, a log of the \
             training, or collapse",
            options.set
        ));
    }
    Ok(Comparison {
        recipe: recipes::differences(&runs),
        rows: table.rows,
        disagreements: disagreements::find(&runs, options),
        curves: page::curves(&runs),
        runs: runs.iter().map(Run::summary).collect(),
        // Paths are in them.
        notes: notes.iter().map(|note| runs::one_line(note)).collect(),
    })
}

impl Comparison {
    /// The tables in plain text, for a terminal of so many columns.
    pub fn text(&self, columns: usize) -> String {
        terminal::text(self, columns)
    }

    /// Writes `compare.html`, `compare.json` and `compare.csv` into a folder; returns the path of the page.
    ///
    /// # Errors
    /// A figure cannot be drawn or a file not written; older files are then untouched.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let html = page::page(self)?;
        files::write(self, folder)?;
        let path = folder.join("compare.html");
        crate::files::write(&path, html)?;
        Ok(path)
    }

    /// The runs beside the baseline, with their numbers.
    fn others(&self) -> impl Iterator<Item = (usize, &RunSummary)> {
        self.runs.iter().enumerate().skip(1)
    }
}

//! `residua run RECIPE`: a whole experiment, resumable.

use std::path::{Path, PathBuf};

use super::common::Common;
use super::compute::Compute;
use super::experiment::{Shown, goes_on, json, summary};
use super::output::print;
use super::stop;
use crate::error::{Error, Result};
use crate::files;
use crate::recipe::{Experiment, Outcome, Recipe, Sets, WrongKey, over_seeds};
use crate::report;
use crate::train::{RunFolder, TrainOptions};
use crate::values::{Reals, Wholes};

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua run recipes/cifar100-ood.toml --data-root data
      An experiment; once more goes on where it stopped
  residua run recipes/cifar100-ood.toml --seeds 0,1,2 --out runs/cifar100
      Three seeds, with means and deviations
  residua run recipes/cifar100-ood.toml --epochs 2 --limit 500 --out runs/try
      A quick try on 500 images";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// The recipe, such as recipes/cifar100-ood.toml
    recipe: PathBuf,
    /// Folder that relative paths of data start from
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// Seeds; several give a run folder each, and mean ± standard deviation of the sample (n - 1) in metrics.csv and report.html
    #[arg(long, value_parser = Wholes::<u64>::ANY, value_delimiter = ',', value_name = "S,S,…")]
    seeds: Vec<u64>,
    /// Run folder; by default runs/ and the recipe's name
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Passes over the training data, instead of the recipe's
    #[arg(long, value_parser = Wholes::<u64>::POSITIVE)]
    epochs: Option<u64>,
    /// Factor on the number of channels, instead of the recipe's
    #[arg(long, value_parser = Reals::POSITIVE)]
    width: Option<f64>,
    /// Epochs from one checkpoint to the next, instead of the recipe's
    #[arg(long, value_parser = Wholes::<u64>::ANY, value_name = "EPOCHS")]
    checkpoint_every: Option<u64>,
    /// Use the first N samples of every in-distribution set
    #[arg(long, value_parser = Wholes::<usize>::POSITIVE, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    compute: Compute,
}

impl Arguments {
    /// The run folder.
    fn out(&self) -> PathBuf {
        let stem =
            self.recipe.file_stem().map_or_else(|| "run".into(), |stem| stem.to_string_lossy().into_owned());
        self.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(stem))
    }

    /// Applies the options that the command line gives instead of the recipe.
    fn adjust(&self, train: &mut TrainOptions) {
        train.epochs = self.epochs.unwrap_or(train.epochs);
        train.width = self.width.unwrap_or(train.width);
        train.checkpoint_every = self.checkpoint_every.unwrap_or(train.checkpoint_every);
    }

    /// Seeds and their run folders: one, or a folder for each of several.
    fn runs(&self, seed: u64) -> Result<Vec<(u64, PathBuf)>> {
        for (index, seed) in self.seeds.iter().enumerate() {
            if self.seeds[..index].contains(seed) {
                return Err(Error::usage(format!(
                    "--seeds has {seed} twice; the same seed gives the same run, and a deviation of nothing: give each once"
                )));
            }
        }
        Ok(match self.seeds.as_slice() {
            [] => vec![(seed, self.out())],
            [only] => vec![(*only, self.out())],
            several => several.iter().map(|&seed| (seed, self.out().join(format!("seed_{seed}")))).collect(),
        })
    }
}

pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let mut recipe = Recipe::read(&arguments.recipe)?;
    arguments.adjust(recipe.train_mut());
    if let Some(limit) = arguments.limit {
        recipe.limit(limit)?;
    }
    recipe.check().map_err(WrongKey::error)?;
    let mut outcomes = Vec::new();
    for (seed, out) in arguments.runs(recipe.seed())? {
        let outcome = one(&recipe.with_seed(seed), arguments, common, &out)?;
        print(&if common.json { format!("{}\n", json(&outcome)) } else { summary(&outcome) })?;
        outcomes.push(outcome);
    }
    if outcomes.len() < 2 {
        return Ok(());
    }
    let Some((table, count)) = over_seeds(outcomes, &arguments.out())? else { return Ok(()) };
    let page = report::build_over_seeds(files::parent(&table))?;
    if !common.json {
        print(&format!(
            "mean ± standard deviation of the sample (n - 1) over {count} seeds: {}\nreport over all seeds: {}\n",
            table.display(),
            page.display()
        ))?;
    }
    Ok(())
}

/// Runs the experiment with one seed in a folder of its own.
fn one(recipe: &Recipe, arguments: &Arguments, common: &Common, out: &Path) -> Result<Outcome> {
    let sets = Sets::open(recipe, arguments.data_root.as_deref())?;
    let folder = RunFolder::lock(out)?;
    let mut choice = arguments.compute.choice(common)?;
    choice.precision = recipe.precision();
    let experiment = Experiment { recipe, sets: &sets, choice, folder: &folder, stop: stop::listen() };
    experiment.run(&mut Shown::new(common.quiet)).map_err(|error| goes_on(error, &stop::same_command()))
}

//! `residua run RECIPE`: a whole experiment, resumable.

use std::path::PathBuf;

use super::compute::Compute;
use super::experiment::{Shown, json, summary};
use super::{Common, stop};
use crate::error::Result;
use crate::ood::table::Evaluation;
use crate::recipe::{Pipeline, Recipe, Sets};
use crate::train::RunFolder;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The recipe, such as recipes/cifar100-ood.toml
    recipe: PathBuf,
    /// Folder that relative paths of data start from
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// Seeds; several give a run folder each and mean ± std in metrics.csv
    #[arg(long, value_delimiter = ',', value_name = "S,S,…")]
    seeds: Vec<u64>,
    /// Run folder; by default runs/ and the recipe's name
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Passes over the training data, instead of the recipe's
    #[arg(long)]
    epochs: Option<u64>,
    /// Checkpoint every so many epochs, instead of the recipe's
    #[arg(long, value_name = "EPOCHS")]
    checkpoint_every: Option<u64>,
    /// Use the first N samples of every in-distribution set
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    compute: Compute,
}

pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let mut recipe = Recipe::read(&arguments.recipe)?;
    recipe.train.epochs = arguments.epochs.unwrap_or(recipe.train.epochs);
    recipe.train.checkpoint_every = arguments.checkpoint_every.unwrap_or(recipe.train.checkpoint_every);
    if let Some(limit) = arguments.limit {
        recipe = recipe.limited(limit)?;
    }
    recipe.check()?;
    let stem =
        arguments.recipe.file_stem().map_or_else(|| "run".into(), |stem| stem.to_string_lossy().into_owned());
    let out = arguments.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(stem));
    if arguments.seeds.len() < 2 {
        recipe.seed = arguments.seeds.first().copied().unwrap_or(recipe.seed);
        one(&recipe, arguments, common, out)?;
        return Ok(());
    }
    let mut evaluations = Vec::new();
    for &seed in &arguments.seeds {
        let recipe = Recipe { seed, ..recipe.clone() };
        evaluations.extend(one(&recipe, arguments, common, out.join(format!("seed_{seed}")))?);
    }
    if !evaluations.is_empty() {
        let table = out.join("metrics.csv");
        Evaluation::write_csv(&evaluations, &table)?;
        if !common.json {
            super::print(&format!("mean ± std over {} seeds: {}\n", evaluations.len(), table.display()));
        }
    }
    Ok(())
}

fn one(recipe: &Recipe, arguments: &Arguments, common: &Common, out: PathBuf) -> Result<Option<Evaluation>> {
    let sets = Sets::open(recipe, arguments.data_root.as_deref())?;
    let folder = RunFolder::lock(&out)?;
    let mut choice = arguments.compute.choice(common);
    choice.precision = recipe.precision;
    let pipeline = Pipeline { recipe, sets: &sets, choice, folder: &folder, stop: stop::listen() };
    let outcome = pipeline.run(&mut Shown::new(common.quiet))?;
    super::print(&if common.json { format!("{}\n", json(&outcome)) } else { summary(&outcome) });
    Ok(outcome.evaluation)
}

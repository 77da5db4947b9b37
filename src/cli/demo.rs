//! `residua demo`: the whole story on the images inside the binary.

use std::path::PathBuf;

use super::common::Common;
use super::compute::Compute;
use super::experiment::{Shown, goes_on, json, summary};
use super::output::{in_shell, print, tell};
use super::stop;
use crate::error::{Error, Result};
use crate::recipe::{DemoSize, Experiment, Inputs, Recipe, Sets, demo, is_demo};
use crate::train::RunFolder;
use crate::values::Wholes;

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua demo --tiny
      The whole story in half a minute, on images inside the binary
  residua demo --out runs/demo --seed 1
      The same with all of them; open runs/demo/report.html";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// Run folder; an earlier demo there is replaced. `residua run DIR/recipe.toml` runs the same experiment
    #[arg(long, default_value = "runs/demo", value_name = "DIR")]
    out: PathBuf,
    /// A toy size: a few hundred images, two epochs
    #[arg(long)]
    tiny: bool,
    /// Seed of everything random
    #[arg(long, value_parser = Wholes::<u64>::ANY, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    compute: Compute,
}

pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let size = if arguments.tiny { DemoSize::Tiny } else { DemoSize::Full };
    let recipe = demo(size, arguments.seed, arguments.compute.precision);
    let choice = arguments.compute.choice(common)?;
    let sets = Sets::open(&recipe, None)?;
    let folder = RunFolder::lock(&arguments.out)?;
    if folder.recipe().exists() {
        clear(&folder)?;
    }
    if let (Inputs::Open(inputs), false) = (&sets.folds[0].trainings[0].inputs, common.quiet) {
        tell(&format!(
            "{} on {} images of {} classes; then scores on {} OOD sets, collapse, report",
            inputs.architecture,
            inputs.data.len(),
            inputs.architecture.heads[0].classes,
            sets.folds[0].ood_sets().len()
        ));
    }
    let experiment =
        Experiment { recipe: &recipe, sets: &sets, choice, folder: &folder, stop: stop::listen() };
    // This command would begin anew.
    let recipe_file = in_shell(&folder.recipe());
    let command = format!("residua run {recipe_file} --out {}", in_shell(&arguments.out));
    let outcome = experiment.run(&mut Shown::new(common.quiet)).map_err(|error| goes_on(error, &command))?;
    print(&if common.json { format!("{}\n", json(&outcome)) } else { summary(&outcome) })
}

/// Removes the files of an earlier demo; a folder that holds another run is refused.
fn clear(folder: &RunFolder) -> Result<()> {
    let is_ours = Recipe::read(&folder.recipe()).is_ok_and(|there| is_demo(&there));
    if !is_ours {
        return Err(Error::usage(format!(
            "{} holds a run that is not a demo; choose another --out",
            folder.path().display()
        )));
    }
    let failed = |e| Error::io("read the folder", folder.path(), e);
    for entry in std::fs::read_dir(folder.path()).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_result = RESULTS.contains(&name.as_str())
            || ["events.", "thresholds."].iter().any(|start| name.starts_with(start));
        if is_result {
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(|e| Error::io("remove", &path, e))?;
        }
    }
    Ok(())
}

/// The files a demo leaves, besides its events and thresholds, whose names are longer.
const RESULTS: [&str; 8] =
    ["checkpoints", "features", "ood", "collapse", "plots", "metrics.jsonl", "report.html", "recipe.toml"];

//! `residua demo`: the whole story on the images inside the binary.

use std::path::PathBuf;

use super::compute::Compute;
use super::experiment::{Shown, json, summary};
use super::{Common, stop};
use crate::error::{Error, Result};
use crate::recipe::{DemoSize, Pipeline, demo};
use crate::train::RunFolder;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Run folder; an earlier demo there is replaced
    #[arg(long, default_value = "runs/demo", value_name = "DIR")]
    out: PathBuf,
    /// A toy size: a few hundred images, two epochs
    #[arg(long)]
    tiny: bool,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    compute: Compute,
}

pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let size = if arguments.tiny { DemoSize::Tiny } else { DemoSize::Full };
    let (mut recipe, sets) = demo(size, arguments.seed)?;
    recipe.precision = arguments.compute.precision;
    let folder = RunFolder::lock(&arguments.out)?;
    if folder.recipe().exists() {
        clear(&folder)?;
    }
    if !common.quiet {
        eprintln!(
            "{} on {} images of {} classes; then scores on {} OOD sets, collapse, report",
            sets.materials.architecture,
            sets.materials.data.len(),
            sets.materials.architecture.heads[0].classes,
            sets.ood.len()
        );
    }
    let choice = arguments.compute.choice(common);
    let pipeline = Pipeline { recipe: &recipe, sets: &sets, choice, folder: &folder, stop: stop::listen() };
    let outcome = pipeline.run(&mut Shown::new(common.quiet))?;
    super::print(&if common.json { format!("{}\n", json(&outcome)) } else { summary(&outcome) });
    Ok(())
}

/// Removes what an earlier demo left; a folder that holds another run is refused.
fn clear(folder: &RunFolder) -> Result<()> {
    let there = crate::files::read_text(&folder.recipe(), 1 << 20)?;
    if !there.contains("data = \"demo:") {
        return Err(Error::usage(format!(
            "{} holds a run that is not a demo; choose another --out",
            folder.path().display()
        )));
    }
    for name in
        ["checkpoints", "features", "ood", "collapse", "plots", "metrics.jsonl", "report.html", "recipe.toml"]
    {
        let path = folder.path().join(name);
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &path, e)),
            _ => {}
        }
    }
    Ok(())
}

//! `residua train`: train or fine-tune.

use std::path::PathBuf;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::common::Common;
use super::compute::Compute;
use super::output::{in_json, in_shell, print, tell};
use super::progress::TrainProgress;
use super::stop;
use crate::error::{Error, Result};
use crate::files;
use crate::recipe::TrainRecipe;
use crate::train::{RECIPE_FILE, RunFolder, Summary, TrainOptions, TrainingInputs, train};
use crate::values::Wholes;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    options: TrainOptions,
    #[command(flatten)]
    compute: Compute,
    /// Seed of initial weights, order and augmentation
    #[arg(long, value_parser = Wholes::<u64>::ANY, default_value_t = 0, help_heading = "Compute")]
    seed: u64,
    /// Run folder for metrics and checkpoints
    #[arg(long, default_value = "runs/train", value_name = "DIR", help_heading = "Output")]
    out: PathBuf,
    /// Continue the training in --out where its last checkpoint is; only --epochs and --max-steps may change
    #[arg(long, help_heading = "Output")]
    resume: bool,
}

/// Flags that may accompany `--resume`.
const RESUMABLE: [&str; 15] = [
    "resume",
    "out",
    "epochs",
    "max_steps",
    "threads",
    "quiet",
    "json",
    "device",
    "checkpoint_every",
    "kernel_table",
    "kernel_cache",
    "launches",
    "qualify",
    "exclude",
    "device_timeout",
];

pub fn run(arguments: &Arguments, common: &Common, matches: &ArgMatches) -> Result<()> {
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let recipe = if arguments.resume {
        let changed = matches.ids().map(clap::Id::as_str).find(|id| {
            given(id)
                && !RESUMABLE.contains(id)
                && matches.try_contains_id(id).is_ok()
                && !id.starts_with(char::is_uppercase)
        });
        if let Some(id) = changed {
            let flag = id.replace('_', "-");
            return Err(Error::usage(format!(
                "--{flag} cannot change with --resume; the run's recipe.toml has it"
            )));
        }
        let mut recipe = TrainRecipe::read(&arguments.out.join(RECIPE_FILE))?;
        if given("epochs") {
            recipe.train.epochs = arguments.options.epochs;
        }
        recipe.train.max_steps = arguments.options.max_steps;
        recipe
    } else {
        TrainRecipe {
            seed: arguments.seed,
            precision: arguments.compute.precision,
            train: arguments.options.clone(),
        }
    };
    let inputs = TrainingInputs::open(&recipe.train, None, recipe.seed)?;
    let folder = RunFolder::lock(&arguments.out)?;
    if !arguments.resume && folder.checkpoints().exists() {
        return Err(Error::usage(format!(
            "{} holds a training already; --resume continues it, another --out starts a new one",
            arguments.out.display()
        )));
    }
    files::write(&folder.recipe(), recipe.to_toml())?;
    if !common.quiet {
        for note in &inputs.notes {
            tell(&format!("note: {note}"));
        }
        tell(&format!("{} on {} images", inputs.architecture, inputs.data.len()));
    }
    let mut choice = arguments.compute.choice(common)?;
    choice.precision = recipe.precision;
    let mut progress = TrainProgress::new("training", common.quiet);
    let job = inputs.job(&recipe.train, recipe.seed, &folder, arguments.resume, stop::listen());
    let summary = choice.on_device(|device| train(device, &job, &mut progress))?;
    report(&summary, arguments, common)?;
    if !summary.finished && recipe.train.max_steps.is_none() {
        return Err(Error::Interrupted(format!(
            "{} keeps everything up to step {}; `residua train --resume --out {}` goes on",
            arguments.out.display(),
            summary.steps,
            in_shell(&arguments.out)
        )));
    }
    Ok(())
}

fn report(summary: &Summary, arguments: &Arguments, common: &Common) -> Result<()> {
    if common.json {
        let text = serde_json::json!({
            "out": in_json(&arguments.out), "steps": summary.steps, "epochs": summary.epochs, "finished": summary.finished,
            "seconds": summary.seconds, "train": summary.train, "validation": summary.validation,
        });
        return print(&format!("{text}\n"));
    }
    let mut text =
        format!("{} steps, {} epochs in {:.1} s\n", summary.steps, summary.epochs, summary.seconds);
    for metrics in [&summary.train, &summary.validation].into_iter().flatten() {
        text += &format!(
            "{:<5}  loss {:.4}  accuracy {:.2} %\n",
            metrics.split,
            metrics.loss,
            100.0 * metrics.accuracy
        );
        for (name, value) in &metrics.further {
            text += &format!("       {name} {value:.4}\n");
        }
    }
    text += &format!("checkpoints in {}\n", arguments.out.join("checkpoints").display());
    print(&text)
}

//! `residua train`: train or fine-tune.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::common::Common;
use super::compute::Compute;
use super::output::{in_json, in_shell, print, tell};
use super::progress::TrainProgress;
use super::stop;
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::files;
use crate::recipe::TrainRecipe;
use crate::train::{RECIPE_FILE, RunFolder, Summary, TrainOptions, TrainingInputs, train};
use crate::values::Wholes;

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua train --data demo:fashion-mnist --arch resnet20 --width 0.25 \\
      --epochs 2 --out runs/first
      A small network on images inside the binary
  residua train --data cifar10:data/cifar-10-batches-bin --holdout 0.1 \\
      --epochs 30 --out runs/cifar10
      ResNet-18 on CIFAR-10, validated on a tenth of it
  residua train --resume --out runs/cifar10
      Go on where Ctrl-C or a crash stopped it
  residua train --data 'folder:images/train?size=224' --init resnet50.pth \\
      --arch resnet50 --stem imagenet --normalize imagenet \\
      --lr 0.01 --out runs/fine
      Fine-tune weights from PyTorch on a folder per class";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
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
    let is_reached = recipe.train.max_steps.is_some_and(|most| summary.steps >= most);
    if summary.finished || is_reached {
        return Ok(());
    }
    let checkpoint = checkpoint::resolve(&folder.checkpoints().join("last"))?;
    let checkpoint = std::fs::canonicalize(&checkpoint).unwrap_or(checkpoint);
    let name = checkpoint.file_name().unwrap_or_default().to_string_lossy();
    Err(Error::Interrupted(format!(
        "{} keeps everything up to step {}, in checkpoints/{name}; `{}` goes on",
        arguments.out.display(),
        summary.steps,
        resume_command(arguments, matches)
    )))
}

/// The command that goes on with a training: with the flags that the run's recipe does not hold.
fn resume_command(arguments: &Arguments, matches: &ArgMatches) -> String {
    let mut command = format!("residua train --resume --out {}", in_shell(&arguments.out));
    let of_recipe = ["resume", "out", "epochs", "checkpoint_every", "quiet", "json"];
    for id in RESUMABLE.iter().filter(|id| !of_recipe.contains(id)) {
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            command += &format!(" --{} {}", id.replace('_', "-"), in_shell(Path::new(value)));
        }
    }
    command
}

fn report(summary: &Summary, arguments: &Arguments, common: &Common) -> Result<()> {
    let images_per_second = summary.images_of_run as f64 / summary.seconds.max(1e-9);
    if common.json {
        let text = serde_json::json!({
            "out": in_json(&arguments.out), "steps": summary.steps, "epochs": summary.epochs, "finished": summary.finished,
            "seconds": summary.seconds, "steps_of_run": summary.steps_of_run, "images_per_second": images_per_second, "train": summary.train, "validation": summary.validation,
        });
        return print(&format!("{text}\n"));
    }
    let this_run = format!("{:.1} s, {images_per_second:.0} images/s", summary.seconds);
    let mut text = format!("{} steps, {} epochs", summary.steps, summary.epochs);
    text += &if summary.steps_of_run == summary.steps {
        format!(" in {this_run}\n")
    } else {
        format!(" in all; this run: {} steps in {this_run}\n", summary.steps_of_run)
    };
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

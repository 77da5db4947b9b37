//! What a user chooses about a training: the flags of `train`, which are the keys of a recipe's `[train]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Optimizer, OptimizerKind, ScheduleKind};
use crate::error::{Error, Result};
use crate::nn::{Architecture, Depth, Shortcut, Stem};

/// Order of the samples in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Shuffle {
    /// A new random order in every epoch.
    Epoch,
    /// The order of the data set.
    None,
}

/// The classifier behind the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum HeadKind {
    /// One fully connected layer.
    Linear,
}

/// Everything about a training but where it happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct TrainOptions {
    /// Training data, such as cifar10:DIR, cifar100:DIR?labels=coarse, folder:DIR, csv:FILE,images=ZIP
    #[arg(long, default_value = "", hide_default_value = true, value_name = "DATA", help_heading = "Data")]
    pub data: String,
    /// Data to validate on after epochs; its `split` is `test` unless given (the log then calls it test)
    #[arg(long, value_name = "DATA", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val: Option<String>,
    /// Hold this share of the training data out, at random, and validate on it
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, conflicts_with = "val", help_heading = "Data")]
    pub holdout: f64,
    /// Augmentation: none, crop-flip, resize-flip-rotate
    #[arg(long, default_value = "crop-flip", value_name = "NAME", help_heading = "Data")]
    pub augment: String,
    /// Normalisation: cifar10, cifar100, imagenet, notebook, or R,G,B/R,G,B; `auto` follows the data
    #[arg(long, default_value = "auto", value_name = "PRESET|MEAN/STD", help_heading = "Data")]
    pub normalize: String,
    /// Leave out images that cannot be read, and say how many; otherwise they are an error
    #[arg(long, help_heading = "Data")]
    pub skip_unreadable: bool,
    /// Order of the samples: a new random one every epoch, or none
    #[arg(long, value_enum, default_value_t = Shuffle::Epoch, help_heading = "Data")]
    pub shuffle: Shuffle,

    /// Architecture: resnet18, 34, 50, 101, or He et al.'s resnet20, 32, 44, 56, 110
    #[arg(long, value_enum, default_value_t = Depth::ResNet18, hide_possible_values = true, help_heading = "Network")]
    pub arch: Depth,
    /// How images enter: cifar (3x3, stride 1) or imagenet (7x7, stride 2, max pooling)
    #[arg(long, value_enum, help_heading = "Network")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stem: Option<Stem>,
    /// Shortcut of resnet20 to 110: a (zero padding) or b (convolution)
    #[arg(long, value_enum, help_heading = "Network")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shortcut: Option<Shortcut>,
    /// Factor on the number of channels
    #[arg(long, default_value_t = 1.0, help_heading = "Network")]
    pub width: f64,
    /// Classifier behind the features
    #[arg(long, value_enum, default_value_t = HeadKind::Linear, help_heading = "Network")]
    pub head: HeadKind,
    /// Start from these weights (.safetensors, .pth, .th, or a checkpoint folder); a classifier for other classes is dropped
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,

    /// Passes over the training data
    #[arg(long, default_value_t = 30, help_heading = "Optimisation")]
    pub epochs: u64,
    /// Stop after this many steps, counted from the very first; the schedule still spans all epochs
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Images per step
    #[arg(long, default_value_t = 128, help_heading = "Optimisation")]
    pub batch_size: usize,
    /// Update rule
    #[arg(long, value_enum, default_value_t = OptimizerKind::Sgd, help_heading = "Optimisation")]
    pub optimizer: OptimizerKind,
    /// Peak learning rate
    #[arg(long, default_value_t = 0.1, help_heading = "Optimisation")]
    pub lr: f64,
    /// Momentum of SGD
    #[arg(long, default_value_t = 0.9, help_heading = "Optimisation")]
    pub momentum: f64,
    /// Nesterov momentum for SGD
    #[arg(long, help_heading = "Optimisation")]
    pub nesterov: bool,
    /// Weight decay: an L2 penalty for sgd and adam, decoupled for adamw
    #[arg(long, default_value_t = 5e-4, help_heading = "Optimisation")]
    pub weight_decay: f64,
    /// Learning rate over time
    #[arg(long, value_enum, default_value_t = ScheduleKind::Cosine, help_heading = "Optimisation")]
    pub schedule: ScheduleKind,
    /// Epochs of linear warm-up
    #[arg(long, default_value_t = 0.0, value_name = "EPOCHS", help_heading = "Optimisation")]
    pub warmup_epochs: f64,
    /// Epochs at which multistep falls; by default half and three quarters of all
    #[arg(long, value_delimiter = ',', value_name = "E,E,…", help_heading = "Optimisation")]
    pub milestones: Vec<u64>,
    /// Factor of multistep at each milestone
    #[arg(long, default_value_t = 0.1, value_name = "FACTOR", help_heading = "Optimisation")]
    pub lr_decay: f64,
    /// Share of the target spread over all classes
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", help_heading = "Optimisation")]
    pub label_smoothing: f64,

    /// Keep a checkpoint every so many epochs; 0 keeps only the last and the best
    #[arg(long, default_value_t = 10, value_name = "EPOCHS", help_heading = "Output")]
    pub checkpoint_every: u64,
    /// Write a training line to metrics.jsonl every so many steps; 0 writes one per epoch only
    #[arg(long, default_value_t = 0, value_name = "STEPS", help_heading = "Output")]
    pub log_every: u64,
    /// Validate every so many epochs
    #[arg(long, default_value_t = 1, value_name = "EPOCHS", help_heading = "Output")]
    pub eval_every: u64,
}

impl Default for TrainOptions {
    /// The defaults of the flags.
    fn default() -> TrainOptions {
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            options: TrainOptions,
        }
        <Flags as clap::Parser>::parse_from(["train"]).options
    }
}

impl TrainOptions {
    /// The optimizer these options describe.
    pub fn optimizer(&self) -> Optimizer {
        Optimizer {
            kind: self.optimizer,
            momentum: self.momentum,
            nesterov: self.nesterov,
            weight_decay: self.weight_decay,
        }
    }

    /// The network these options describe.
    ///
    /// # Errors
    /// Options that make no network.
    pub fn architecture(&self, classes: usize) -> Result<Architecture> {
        Architecture::new(self.arch, self.stem, self.shortcut, self.width, classes)
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Names the flag, the value, and the range.
    pub fn check(&self) -> Result<()> {
        let require = |holds: bool, what: String| if holds { Ok(()) } else { Err(Error::usage(what)) };
        require(
            !self.data.is_empty(),
            "--data says what to train on, for instance --data cifar10:DIR".into(),
        )?;
        require(self.epochs > 0, "--epochs must be at least 1".into())?;
        require(self.batch_size > 0, "--batch-size must be at least 1".into())?;
        require(self.max_steps != Some(0), "--max-steps must be at least 1".into())?;
        require(self.eval_every > 0, "--eval-every must be at least 1".into())?;
        require(!self.nesterov || self.momentum > 0.0, "--nesterov needs a --momentum above 0".into())?;
        let ranges = [
            ("--lr", self.lr, 0.0, f64::MAX),
            ("--momentum", self.momentum, 0.0, 1.0),
            ("--weight-decay", self.weight_decay, 0.0, f64::MAX),
            ("--warmup-epochs", self.warmup_epochs, 0.0, self.epochs as f64),
            ("--lr-decay", self.lr_decay, 0.0, 1.0),
            ("--label-smoothing", self.label_smoothing, 0.0, 1.0),
            ("--holdout", self.holdout, 0.0, 0.9),
        ];
        for (flag, value, least, most) in ranges {
            let range = if most == f64::MAX {
                format!("at least {least}")
            } else {
                format!("between {least} and {most}")
            };
            require(value >= least && value <= most, format!("{flag} {value}: the value must be {range}"))?;
        }
        Ok(())
    }

    /// The epochs at which `multistep` falls.
    pub fn milestones(&self) -> Vec<u64> {
        if self.milestones.is_empty() {
            vec![self.epochs / 2, self.epochs * 3 / 4]
        } else {
            self.milestones.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_round_trip_through_toml_and_unknown_keys_are_errors() {
        let options = TrainOptions { data: "cifar10:x".into(), lr: 0.05, ..TrainOptions::default() };
        let text = toml::to_string(&options).unwrap();
        assert_eq!(toml::from_str::<TrainOptions>(&text).unwrap(), options);
        let error = toml::from_str::<TrainOptions>("use_psudeo_novel = false").unwrap_err();
        assert!(error.to_string().contains("use_psudeo_novel"));
    }

    #[test]
    fn a_number_out_of_range_names_its_flag() {
        let options = TrainOptions { data: "x".into(), label_smoothing: 1.5, ..TrainOptions::default() };
        assert!(options.check().unwrap_err().to_string().contains("--label-smoothing 1.5"));
    }
}

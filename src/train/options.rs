//! The user's options of a training: the flags of `train`, which are the keys of a recipe's `[train]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    ClassWeights, FineTune, KlDetach, KlDirection, Optimizer, OptimizerKind, OutlierLoss, Sampler,
    ScheduleKind, Shuffle,
};
use crate::data::{Augment, Normalize};
use crate::error::{Error, Result};
use crate::nn::{
    Architecture, Depth, HeadKind, HeadSpec, ONLY_HEAD, SUBCLASS_HEAD, SUPERCLASS_HEAD, Shortcut, Stem,
};
use crate::values::{Reals, Wholes};

/// Share of the data that may be held out.
const HOLDOUT: Reals = Reals::between(0.0, 0.9);
/// Range of a temperature that logits are divided by.
const KL_TEMPERATURE: Reals = Reals::between(1e-3, 1e3);

/// An option that makes no sense. A recipe's reader adds the line, the command line says it of the flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongOption {
    /// Its key in a recipe; as a flag it has hyphens.
    pub key: &'static str,
    /// The expectation, and the value found.
    pub what: String,
}

impl WrongOption {
    /// The complaint as an error that names the flag.
    pub fn error(self) -> Error {
        Error::usage(format!("--{}: {}", self.key.replace('_', "-"), self.what))
    }
}

/// Everything about a training but where it happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct TrainOptions {
    /// Training data, such as cifar10:DIR, cifar100:DIR?labels=coarse, folder:DIR, csv:FILE,images=ZIP, or demo: (images inside
    /// the binary)
    #[arg(long, default_value = "", hide_default_value = true, value_name = "DATA", help_heading = "Data")]
    pub data: String,
    /// Data to validate on after epochs; its `split` is `test` unless given (the log then calls it test)
    #[arg(long, value_name = "DATA", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val: Option<String>,
    /// Hold this share of the training data out, at random, and validate on it
    #[arg(long, value_parser = HOLDOUT, value_name = "SHARE", default_value_t = 0.0, conflicts_with = "val", help_heading = "Data")]
    pub holdout: f64,
    /// Augmentation: none, crop-flip, resize-flip-rotate
    #[arg(long, default_value_t = Augment::CropFlip, value_name = "NAME", hide_possible_values = true, help_heading = "Data")]
    pub augment: Augment,
    /// Normalisation: cifar10, cifar100, imagenet, notebook, or R,G,B/R,G,B; `auto` follows the data
    #[arg(long, default_value = "auto", value_name = "PRESET|MEAN/STD", help_heading = "Data")]
    pub normalize: String,
    /// Leave out images that cannot be read, and say how many; otherwise they are an error
    #[arg(long, help_heading = "Data")]
    pub skip_unreadable: bool,
    /// Order of the samples: a new random one every epoch, or none
    #[arg(long, default_value_t = Shuffle::Epoch, help_heading = "Data")]
    pub shuffle: Shuffle,
    /// Samples of an epoch: shuffle (each once), or balanced (the same number, drawn at random so that every class has the same
    /// chance, the class `novel` included; of two levels the subclasses count)
    #[arg(long, default_value_t = Sampler::Shuffle, help_heading = "Data")]
    pub sampler: Sampler,

    /// Architecture: resnet18, 34, 50, 101, or He et al.'s resnet20, 32, 44, 56, 110
    #[arg(long, default_value_t = Depth::ResNet18, hide_possible_values = true, help_heading = "Network")]
    pub arch: Depth,
    /// How images enter: cifar (3x3, stride 1) or imagenet (7x7, stride 2, max pooling)
    #[arg(long, help_heading = "Network")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stem: Option<Stem>,
    /// Shortcut of resnet20 to 110: a (zero padding) or b (convolution)
    #[arg(long, help_heading = "Network")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shortcut: Option<Shortcut>,
    /// Factor on the number of channels
    #[arg(long, value_parser = Reals::POSITIVE, default_value_t = 1.0, help_heading = "Network")]
    pub width: f64,
    /// Classifier behind the features: linear; cosine (scaled cosines, the scale kept positive and not decayed);
    /// cosine-relu-linear (scaled cosines, a rectifier, a linear layer)
    #[arg(long, default_value_t = HeadKind::Linear, hide_possible_values = true, value_name = "KIND",
          help_heading = "Network")]
    pub head: HeadKind,
    /// Classifier of the superclasses, where both levels are trained (data with labels=both); as --head unless given
    #[arg(long, hide_possible_values = true, value_name = "KIND", help_heading = "Network")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superclass_head: Option<HeadKind>,
    /// Start from these weights (.safetensors, .pth, .th, or a checkpoint folder); heads for other classes are dropped
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Which network of the --init file, where it holds several: the key it lies under, such as state_dict_ema
    #[arg(long, value_name = "KEY", requires = "init", help_heading = "Network")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights_key: Option<String>,
    /// Parameters to train: full (all), or frozen (the heads only; the backbone runs in eval mode and keeps its running statistics)
    #[arg(long, default_value_t = FineTune::Full, value_name = "full|frozen", hide_possible_values = true,
          help_heading = "Network")]
    pub fine_tune: FineTune,

    /// Passes over the training data
    #[arg(long, value_parser = Wholes::<u64>::POSITIVE, default_value_t = 30, help_heading = "Optimisation")]
    pub epochs: u64,
    /// Stop after this many steps, counted from the very first; the schedule still spans all epochs
    #[arg(long, value_parser = Wholes::<u64>::POSITIVE, value_name = "N", help_heading = "Optimisation")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Images per step
    #[arg(long, value_parser = Wholes::<usize>::POSITIVE, default_value_t = 128, help_heading = "Optimisation")]
    pub batch_size: usize,
    /// Update rule
    #[arg(long, default_value_t = OptimizerKind::Sgd, help_heading = "Optimisation")]
    pub optimizer: OptimizerKind,
    /// Peak learning rate
    #[arg(long, value_parser = Reals::NOT_NEGATIVE, default_value_t = 0.1, help_heading = "Optimisation")]
    pub lr: f64,
    /// Peak learning rate of the heads, which follow the same schedule; --lr unless given, with a frozen backbone 0.01
    #[arg(long, value_parser = Reals::NOT_NEGATIVE, value_name = "RATE", help_heading = "Optimisation")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_lr: Option<f64>,
    /// Momentum of SGD
    #[arg(long, value_parser = Reals::SHARE, default_value_t = 0.9, help_heading = "Optimisation")]
    pub momentum: f64,
    /// Nesterov momentum for SGD
    #[arg(long, help_heading = "Optimisation")]
    pub nesterov: bool,
    /// Weight decay: an L2 penalty for sgd and adam, decoupled for adamw
    #[arg(long, value_parser = Reals::NOT_NEGATIVE, default_value_t = 5e-4, help_heading = "Optimisation")]
    pub weight_decay: f64,
    /// Learning rate over time
    #[arg(long, default_value_t = ScheduleKind::Cosine, help_heading = "Optimisation")]
    pub schedule: ScheduleKind,
    /// Epochs of linear warm-up
    #[arg(long, value_parser = Reals::NOT_NEGATIVE, default_value_t = 0.0, value_name = "EPOCHS", help_heading = "Optimisation")]
    pub warmup_epochs: f64,
    /// Epochs at which multistep falls; by default half and three quarters of all
    #[arg(long, value_parser = Wholes::<u64>::ANY, value_delimiter = ',', value_name = "E,E,…", help_heading = "Optimisation")]
    pub milestones: Vec<u64>,
    /// Factor of multistep at each milestone
    #[arg(long, value_parser = Reals::SHARE, default_value_t = 0.1, value_name = "FACTOR", help_heading = "Optimisation")]
    pub lr_decay: f64,
    /// Share of the target spread over all classes
    #[arg(long, value_parser = Reals::SHARE, default_value_t = 0.0, value_name = "SHARE", help_heading = "Optimisation")]
    pub label_smoothing: f64,

    /// Weights of classes in the cross-entropy: none, or balanced (samples / (classes * samples of the class))
    #[arg(long, default_value_t = ClassWeights::None, value_name = "none|balanced",
          hide_possible_values = true, help_heading = "Losses")]
    pub class_weights: ClassWeights,
    /// Loss of samples of the class named `novel`: extra-class (a class like any other), uniform (all classes equally
    /// likely), energy (an energy beyond a margin)
    #[arg(long, default_value_t = OutlierLoss::ExtraClass, value_name = "LOSS", hide_possible_values = true,
          help_heading = "Losses")]
    pub outlier_loss: OutlierLoss,
    /// Weight of the loss of outliers beside the cross-entropy; 0.5 for uniform and 0.1 for energy unless given
    #[arg(long, value_parser = Reals::NOT_NEGATIVE, value_name = "WEIGHT", help_heading = "Losses")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_weight: Option<f64>,
    /// Energies that samples of the classes should stay below and outliers above: the margins of Liu et al., who chose
    /// them for CIFAR; energies grow with the logits, so choose them from those of a trained network
    #[arg(long, value_parser = Reals::FINITE, value_delimiter = ',', default_values_t = [-23.0, -5.0], allow_hyphen_values = true,
          value_name = "IN,OUT", help_heading = "Losses")]
    pub energy_margins: Vec<f64>,
    /// Weight of the divergence between the superclass head and the subclass head summed up to superclasses; 0 is off
    #[arg(long, value_parser = Reals::NOT_NEGATIVE, default_value_t = 0.0, value_name = "WEIGHT", help_heading = "Losses")]
    pub kl_weight: f64,
    /// Divergence: super_agg is KL(superclass head, sum), agg_super is KL(sum, superclass head), js is Jensen-Shannon
    #[arg(long, default_value_t = KlDirection::SuperclassToSum, value_name = "super_agg|agg_super|js",
          hide_possible_values = true, help_heading = "Losses")]
    pub kl_direction: KlDirection,
    /// Head that learns nothing from the divergence: none, super or sub
    #[arg(long, default_value_t = KlDetach::None, value_name = "none|super|sub",
          hide_possible_values = true, help_heading = "Losses")]
    pub kl_detach: KlDetach,
    /// Temperature that divides the logits of both sides of a divergence
    #[arg(long, value_parser = KL_TEMPERATURE, default_value_t = 1.0, value_name = "T", help_heading = "Losses")]
    pub kl_temperature: f64,
    /// Trained superclass model that the subclass head, summed up to superclasses, should agree with
    #[arg(long, value_name = "CHECKPOINT", help_heading = "Losses")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<PathBuf>,
    /// Weight of that agreement, KL(teacher, sum)
    #[arg(long, value_parser = Reals::NOT_NEGATIVE, default_value_t = 0.2, value_name = "WEIGHT", help_heading = "Losses")]
    pub teacher_weight: f64,

    /// Keep the checkpoint of every EPOCHS-th epoch; 0 keeps only the last and the best
    #[arg(long, value_parser = Wholes::<u64>::ANY, default_value_t = 10, value_name = "EPOCHS", help_heading = "Output")]
    pub checkpoint_every: u64,
    /// Write a training line to metrics.jsonl every STEPS steps; 0 writes one per epoch only
    #[arg(long, value_parser = Wholes::<u64>::ANY, default_value_t = 0, value_name = "STEPS", help_heading = "Output")]
    pub log_every: u64,
    /// Validate every EPOCHS epochs
    #[arg(long, value_parser = Wholes::<u64>::POSITIVE, default_value_t = 1, value_name = "EPOCHS", help_heading = "Output")]
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
            separate_heads: self.head_rate() != self.rate(),
        }
    }

    /// The network these options describe, with one head.
    ///
    /// # Errors
    /// Options that make no network.
    pub fn architecture(&self, classes: usize) -> Result<Architecture> {
        Architecture::new(self.arch, self.stem, self.shortcut, self.width, classes)?
            .with_heads(vec![HeadSpec::new(ONLY_HEAD, self.head, classes)])
    }

    /// The network these options describe, with a head for each level.
    ///
    /// # Errors
    /// Options that make no network.
    pub fn two_headed(&self, superclasses: usize, subclasses: usize) -> Result<Architecture> {
        let superclass_head = self.superclass_head.unwrap_or(self.head);
        self.architecture(subclasses)?.with_heads(vec![
            HeadSpec::new(SUPERCLASS_HEAD, superclass_head, superclasses),
            HeadSpec::new(SUBCLASS_HEAD, self.head, subclasses),
        ])
    }

    /// Peak learning rate of the heads.
    pub fn head_rate(&self) -> f64 {
        const FROZEN: f64 = 1e-2;
        let usual = if self.fine_tune == FineTune::Frozen { FROZEN } else { self.lr };
        self.head_lr.unwrap_or(usual)
    }

    /// Peak learning rate of everything else; of the heads where nothing else is trained.
    pub fn rate(&self) -> f64 {
        if self.fine_tune == FineTune::Frozen { self.head_rate() } else { self.lr }
    }

    /// Weight of the loss of outliers, in the way they are chosen to teach.
    pub fn outlier_weight(&self) -> f64 {
        let usual = if self.outlier_loss == OutlierLoss::Energy { 0.1 } else { 0.5 };
        self.outlier_weight.unwrap_or(usual)
    }

    /// Checks every number, and that the options agree with each other.
    ///
    /// # Errors
    /// Names the key, the value, and the range.
    pub fn check(&self) -> Result<(), WrongOption> {
        let wrong = |key: &'static str, what: String| Err(WrongOption { key, what });
        if self.data.is_empty() {
            return wrong("data", "it says what to train on, for instance cifar10:DIR".into());
        }
        if self.normalize != "auto"
            && let Err(error) = self.normalize.parse::<Normalize>()
        {
            return wrong("normalize", format!("{error}; `auto` follows the data"));
        }
        for (key, path) in [("init", &self.init), ("teacher", &self.teacher)] {
            if path.as_ref().is_some_and(|path| path.to_str().is_none()) {
                return wrong(
                    key,
                    "the path is no UTF-8, and recipe.toml, which keeps it, is; rename the file".into(),
                );
            }
        }
        if let (Some(key), None) = (&self.weights_key, &self.init) {
            return wrong(
                "weights_key",
                format!("{key} chooses in a weights file; say which file with init"),
            );
        }
        for (key, value, range) in [
            ("epochs", Some(self.epochs), Wholes::<u64>::POSITIVE),
            ("batch_size", Some(self.batch_size as u64), Wholes::POSITIVE),
            ("max_steps", self.max_steps, Wholes::POSITIVE),
            ("eval_every", Some(self.eval_every), Wholes::POSITIVE),
        ] {
            if let Some(value) = value
                && let Err(range) = range.check(value)
            {
                return wrong(key, format!("{range}, found {value}"));
            }
        }
        let warmup = Reals::between(0.0, self.epochs as f64);
        for (key, value, range) in [
            ("width", Some(self.width), Reals::POSITIVE),
            ("lr", Some(self.lr), Reals::NOT_NEGATIVE),
            ("momentum", Some(self.momentum), Reals::SHARE),
            ("weight_decay", Some(self.weight_decay), Reals::NOT_NEGATIVE),
            ("warmup_epochs", Some(self.warmup_epochs), warmup),
            ("lr_decay", Some(self.lr_decay), Reals::SHARE),
            ("label_smoothing", Some(self.label_smoothing), Reals::SHARE),
            ("holdout", Some(self.holdout), HOLDOUT),
            ("head_lr", self.head_lr, Reals::NOT_NEGATIVE),
            ("outlier_weight", self.outlier_weight, Reals::NOT_NEGATIVE),
            ("kl_weight", Some(self.kl_weight), Reals::NOT_NEGATIVE),
            ("kl_temperature", Some(self.kl_temperature), KL_TEMPERATURE),
            ("teacher_weight", Some(self.teacher_weight), Reals::NOT_NEGATIVE),
        ] {
            if let Some(value) = value
                && let Err(range) = range.check(value)
            {
                let until = if key == "warmup_epochs" { " (the number of epochs is the end)" } else { "" };
                return wrong(key, format!("{range}{until}, found {value}"));
            }
        }
        if self.nesterov && self.momentum == 0.0 {
            return wrong("nesterov", "it needs a momentum above 0".into());
        }
        let margins = &self.energy_margins;
        let ordered = matches!(margins[..], [inside, outside] if inside <= outside);
        if !ordered || !margins.iter().all(|margin| margin.is_finite()) {
            let found = margins.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            return wrong(
                "energy_margins",
                format!("expected two numbers, the smaller first, such as -23,-5, found {found}"),
            );
        }
        if self.sampler == Sampler::Balanced && self.shuffle == Shuffle::None {
            return wrong(
                "sampler",
                "balanced draws the samples at random; it does not go with shuffle none".into(),
            );
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
    fn the_rate_of_the_heads_is_the_common_one_unless_the_backbone_is_frozen() {
        let options = TrainOptions { lr: 1e-4, ..TrainOptions::default() };
        assert_eq!((options.rate(), options.head_rate()), (1e-4, 1e-4));
        let frozen = TrainOptions { fine_tune: FineTune::Frozen, ..options.clone() };
        assert_eq!((frozen.rate(), frozen.head_rate()), (1e-2, 1e-2));
        let own = TrainOptions { head_lr: Some(0.3), ..options };
        assert_eq!((own.rate(), own.head_rate()), (1e-4, 0.3));
    }

    #[test]
    fn margins_in_the_wrong_order_and_a_balanced_sampler_in_file_order_are_refused() {
        let valid = || TrainOptions { data: "x".into(), ..TrainOptions::default() };
        valid().check().unwrap();
        for (options, part) in [
            (TrainOptions { energy_margins: vec![-5.0, -23.0], ..valid() }, "--energy-margins"),
            (TrainOptions { energy_margins: vec![-5.0], ..valid() }, "two numbers"),
            (TrainOptions { sampler: Sampler::Balanced, shuffle: Shuffle::None, ..valid() }, "shuffle none"),
            (TrainOptions { kl_weight: f64::NAN, ..valid() }, "--kl-weight"),
            (TrainOptions { weights_key: Some("ema".into()), ..valid() }, "say which file with init"),
        ] {
            let error = options.check().unwrap_err().error().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_number_out_of_range_names_its_flag() {
        let options = TrainOptions { data: "x".into(), label_smoothing: 1.5, ..TrainOptions::default() };
        let error = options.check().unwrap_err().error();
        assert_eq!(error.to_string(), "--label-smoothing: expected a number from 0 to 1, found 1.5");
        assert_eq!(error.exit_code(), 2);
    }
}

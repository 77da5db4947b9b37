//! From options to what a training works with: data sets, transform, architecture, initial weights.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::trainer::{Job, Validation};
use super::{RunFolder, TrainOptions};
use crate::checkpoint::{self, StateDict};
use crate::data::{self, DataSpec, Normalize, Selected, SharedDataset, Source, Split, Transform};
use crate::error::{Error, Result};
use crate::nn::Architecture;
use crate::rng::{Purpose, Stream};

/// What a training works with.
#[derive(Debug, Clone)]
pub struct Materials {
    /// What to train on.
    pub data: SharedDataset,
    /// What to validate on.
    pub validation: Option<Validation>,
    /// From image to network input.
    pub transform: Transform,
    /// Which network.
    pub architecture: Architecture,
    /// Weights to start from, and where they come from.
    pub initial: Option<(StateDict, PathBuf)>,
    /// Things the user should know.
    pub notes: Vec<String>,
}

/// The side of the padded images that 28-pixel ones become.
const MNIST_SIDE: u32 = 28;
const PADDED_SIDE: u32 = 32;

impl Materials {
    /// Opens what the options name; relative paths are taken from `root`.
    ///
    /// # Errors
    /// Data or weights that cannot be opened, data without classes, classes that differ.
    pub fn open(options: &TrainOptions, root: Option<&Path>, seed: u64) -> Result<Materials> {
        options.check()?;
        let spec = parse(&options.data, root)?;
        let mut skipped = Vec::new();
        let mut open = |spec: &DataSpec, split| -> Result<SharedDataset> {
            let all = data::open(spec, split)?;
            if !options.skip_unreadable {
                return Ok(all);
            }
            let (readable, unreadable) = data::skip_unreadable(all)?;
            if let Some(first) = unreadable.first() {
                skipped.push(format!(
                    "{} unreadable images of {spec} are left out, the first: {}",
                    unreadable.len(),
                    first.error
                ));
            }
            Ok(readable)
        };
        let data = open(&spec, Split::Train)?;
        let validation = match &options.val {
            Some(text) => {
                let spec = parse(text, root)?;
                let split = if spec.split.unwrap_or(Split::Test) == Split::Test { "test" } else { "val" };
                Some(Validation { data: open(&spec, Split::Test)?, split })
            }
            None => None,
        };
        let transform = transform(options, Some(&spec.source), &data)?;
        let initial = match &options.init {
            None => None,
            Some(path) => {
                let path = root.map_or_else(|| path.clone(), |root| root.join(path));
                Some((weights(&path)?, path))
            }
        };
        let mut materials = Materials::assemble(options, data, validation, transform, initial, seed)?;
        materials.notes.extend(skipped);
        Ok(materials)
    }

    /// The same from data that is open already.
    ///
    /// # Errors
    /// As [`Materials::open`].
    pub fn assemble(
        options: &TrainOptions,
        data: SharedDataset,
        validation: Option<Validation>,
        transform: Transform,
        initial: Option<(StateDict, PathBuf)>,
        seed: u64,
    ) -> Result<Materials> {
        let classes = data.class_names().len();
        if classes < 2 {
            return Err(Error::invalid(format!(
                "{} has {classes} classes; training needs at least two",
                if options.data.is_empty() { "the training data" } else { &options.data }
            )));
        }
        if let Some(validation) = &validation {
            check_same_classes(data.class_names(), validation.data.class_names())?;
        }
        let mut notes = Vec::new();
        if validation.as_ref().is_some_and(|v| v.split == "test") {
            notes.push(
                "validating on test data: `best` is chosen by it, so its accuracy flatters; --holdout 0.1 avoids that"
                    .to_string(),
            );
        }
        let (data, validation) = match validation {
            None if options.holdout > 0.0 => hold_out(data, options.holdout, seed)?,
            validation => (data, validation),
        };
        let architecture = options.architecture(classes)?;
        Ok(Materials { data, validation, transform, architecture, initial, notes })
    }
}

impl Materials {
    /// The training of these materials in a run folder.
    pub fn job<'a>(
        &'a self,
        options: &'a TrainOptions,
        seed: u64,
        folder: &'a RunFolder,
        resume: bool,
        stop: &'a AtomicBool,
    ) -> Job<'a> {
        Job {
            options,
            seed,
            data: self.data.clone(),
            validation: self.validation.clone(),
            transform: self.transform.clone(),
            architecture: self.architecture.clone(),
            initial: self.initial.as_ref().map(|(state, path)| (state, path.as_path())),
            folder,
            resume,
            stop,
        }
    }
}

/// Parses the name of a data set, relative paths taken from `root`.
fn parse(text: &str, root: Option<&Path>) -> Result<DataSpec> {
    let spec: DataSpec = text.parse()?;
    Ok(root.map_or_else(|| spec.clone(), |root| spec.clone().under(root)))
}

/// The transform of a training: the size of the images, with 28 x 28 padded to 32 x 32.
fn transform(options: &TrainOptions, source: Option<&Source>, data: &SharedDataset) -> Result<Transform> {
    let first = data.image(0)?;
    let size = match (first.width, first.height) {
        (MNIST_SIDE, MNIST_SIDE) => PADDED_SIDE,
        (width, height) if width == height => width,
        (width, height) => {
            return Err(Error::usage(format!(
                "the images of {} are {width} x {height} (the first one); a network wants squares: add ?size=64",
                options.data
            )));
        }
    };
    let normalize: Normalize = match (options.normalize.as_str(), source) {
        ("auto", Some(Source::Cifar10 { .. })) => "cifar10".parse()?,
        ("auto", Some(Source::Cifar100 { .. })) => "cifar100".parse()?,
        ("auto", _) => "imagenet".parse()?,
        (text, _) => text.parse()?,
    };
    let mut transform = Transform::new(size, normalize);
    transform.augment = options.augment.parse()?;
    Ok(transform)
}

/// Reads weights from a weights file or a checkpoint.
fn weights(path: &Path) -> Result<StateDict> {
    if path.is_dir() { Ok(checkpoint::load(path)?.model) } else { Ok(checkpoint::read_weights(path)?.state) }
}

/// Keeps a random share of the training data for validation.
fn hold_out(data: SharedDataset, share: f64, seed: u64) -> Result<(SharedDataset, Option<Validation>)> {
    let count = (data.len() as f64 * share).round() as usize;
    if count == 0 || count >= data.len() {
        return Err(Error::usage(format!(
            "--holdout {share} of {} samples leaves one side empty",
            data.len()
        )));
    }
    const HOLDOUT: u64 = 1;
    let mut order = Stream::for_purpose(seed, Purpose::Subset, &[HOLDOUT]).permutation(data.len());
    let mut kept = order.split_off(count);
    order.sort_unstable();
    kept.sort_unstable();
    let held = Validation { data: Arc::new(Selected::new(data.clone(), order)), split: "val" };
    Ok((Arc::new(Selected::new(data, kept)), Some(held)))
}

fn check_same_classes(train: &[String], validation: &[String]) -> Result<()> {
    if train == validation {
        return Ok(());
    }
    let differing = train.iter().zip(validation).position(|(a, b)| a != b);
    Err(Error::invalid(match differing {
        Some(index) => format!(
            "class {index} is `{}` in the training data and `{}` in the validation data; both need the same classes",
            train[index], validation[index]
        ),
        None => format!(
            "the training data has {} classes, the validation data {}; both need the same",
            train.len(),
            validation.len()
        ),
    }))
}

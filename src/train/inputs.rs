//! From options to the inputs of a training: data sets, transform, classes, architecture, objective, initial weights.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::objective::{Coupling, Exposure, Objective, class_weights};
use super::targets::Targets;
use super::teacher::Teacher;
use super::trainer::{Job, Validation};
use super::{FineTune, OutlierLoss, RunFolder, TrainOptions, WrongOption};
use crate::checkpoint::{self, HeadClasses, StateDict, Trained, network};
use crate::data::{self, DataSpec, Level, Normalize, Selected, SharedDataset, Source, Split, Transform};
use crate::error::{Error, Result};
use crate::nn::{Architecture, Network};
use crate::rng::{Purpose, Stream};
use crate::tensor::DType;

/// The inputs of a training.
#[derive(Debug, Clone)]
pub struct TrainingInputs {
    /// The training data.
    pub data: SharedDataset,
    /// The validation data.
    pub validation: Option<Validation>,
    /// From image to network input.
    pub transform: Transform,
    /// The network's architecture.
    pub architecture: Architecture,
    /// The target of each head for each training sample.
    pub targets: Targets,
    /// The loss.
    pub objective: Objective,
    /// A trained model that the subclass head should agree with.
    pub teacher: Option<Teacher>,
    /// Weights to start from, and where they come from.
    pub initial: Option<Initial>,
    /// Things the user should know.
    pub notes: Vec<String>,
}

/// The side of the padded images that 28-pixel ones become.
const MNIST_SIDE: u32 = 28;
const PADDED_SIDE: u32 = 32;

impl TrainingInputs {
    /// Opens the data and weights that the options name; relative paths are taken from `root`. Data with `labels=both` makes a
    /// network with a head for each level.
    ///
    /// # Errors
    /// Data or weights that cannot be opened, data without classes, classes that differ, losses that the data or the network
    /// has no use for.
    pub fn open(options: &TrainOptions, root: Option<&Path>, seed: u64) -> Result<TrainingInputs> {
        options.check().map_err(WrongOption::error)?;
        let spec = parse(&options.data, root)?;
        let mut skipped = Vec::new();
        let mut open = |spec: &DataSpec, split| -> Result<SharedDataset> {
            if !options.skip_unreadable {
                return data::open(spec, split);
            }
            let (readable, unreadable) = data::skip_unreadable(data::open_with_unreadable(spec, split)?)?;
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
        let initial = TrainingInputs::initial(options, root)?;
        let teacher = options.teacher.as_deref().map(|path| Trained::open(&under(root, path))).transpose()?;
        skipped.extend(teacher.as_ref().and_then(|teacher| teacher.note.clone()));
        let classes = match spec.source {
            Source::Csv { level: Level::Both, .. } | Source::Cifar100 { level: Level::Both, .. } => {
                Classes::Levels(Level::Both)
            }
            // A table may name classes that it has no image of.
            Source::Csv { level, .. } => Classes::One { level: Some(level), keep_empty: false },
            Source::Cifar100 { level, .. } => Classes::One { level: Some(level), keep_empty: true },
            _ => Classes::One { level: None, keep_empty: true },
        };
        let given = Given { data, validation, transform, initial, teacher };
        let mut inputs = TrainingInputs::put_together(options, given, classes, seed)?;
        inputs.notes.extend(skipped);
        Ok(inputs)
    }

    /// The weights a training starts from, and their file; relative paths are taken from `root`.
    ///
    /// # Errors
    /// The file is missing or no file of weights.
    pub fn initial(options: &TrainOptions, root: Option<&Path>) -> Result<Option<Initial>> {
        let Some(path) = options.init.as_deref().map(|path| under(root, path)) else { return Ok(None) };
        if path.is_dir() && options.weights_key.is_none() {
            let folder = checkpoint::resolve(&path)?;
            let state = checkpoint::load(&folder)?.model;
            let note = checkpoint::choice_note(&path, &folder);
            return Ok(Some(Initial { state, path, note }));
        }
        let imported = checkpoint::read_weights(&path, options.weights_key.as_deref())?;
        let note = imported.note();
        Ok(Some(Initial { state: imported.state, path, note }))
    }

    /// The same from data with one level of classes that is open already.
    ///
    /// # Errors
    /// As [`TrainingInputs::open`].
    pub fn assemble(
        options: &TrainOptions,
        data: SharedDataset,
        validation: Option<Validation>,
        transform: Transform,
        initial: Option<Initial>,
        seed: u64,
    ) -> Result<TrainingInputs> {
        let given = Given { data, validation, transform, initial, teacher: None };
        TrainingInputs::put_together(options, given, Classes::One { level: None, keep_empty: true }, seed)
    }

    /// The same from data with two levels of classes (labels are subclasses, as [`data::Taxonomy`] numbers them) that is open
    /// already: one head over a level, or one over each. The classes of the softmax are the classes that the data has samples of.
    ///
    /// # Errors
    /// As [`TrainingInputs::open`], and data with one level.
    #[allow(clippy::too_many_arguments)]
    pub fn levels(
        options: &TrainOptions,
        data: SharedDataset,
        validation: Option<Validation>,
        levels: Level,
        transform: Transform,
        initial: Option<Initial>,
        teacher: Option<Trained>,
        seed: u64,
    ) -> Result<TrainingInputs> {
        let given = Given { data, validation, transform, initial, teacher };
        TrainingInputs::put_together(options, given, Classes::Levels(levels), seed)
    }

    fn put_together(
        options: &TrainOptions,
        given: Given,
        classes: Classes,
        seed: u64,
    ) -> Result<TrainingInputs> {
        let Given { data, mut validation, transform, initial, teacher } = given;
        let mut notes = data.notes();
        if let Some(Validation { data: held, .. }) = &mut validation {
            notes.extend(held.notes());
            let (renumbered, note) = data::in_numbering_of(&data, held.clone(), "the validation data")?;
            *held = renumbered;
            notes.extend(note);
        }
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
        let targets = classes.targets(&data, options.outlier_loss == OutlierLoss::ExtraClass)?;
        let architecture = match &targets.heads[..] {
            [superclass, subclass] => options.two_headed(superclass.classes.len(), subclass.classes.len())?,
            [head, ..] => options.architecture(head.classes.len())?,
            [] => unreachable!("a network has a head"),
        };
        if let Some(Initial { state, path, note }) = &initial {
            notes.extend(note.clone());
            let network = Network::new(&architecture, DType::F32, None);
            notes.extend(network::check_start(&network, state, path)?);
        } else if options.fine_tune == FineTune::Frozen {
            return Err(Error::usage(
                "--fine-tune frozen trains the heads on a backbone that is trained already: say which with --init",
            ));
        }
        let strength = (options.teacher_weight, options.kl_temperature);
        let teacher = match teacher {
            None => None,
            Some(teacher) => Some(Teacher::new(teacher, &targets, &transform, strength, &mut notes)?),
        };
        let objective = objective(options, &targets, teacher.as_ref())?;
        Ok(TrainingInputs {
            data,
            validation,
            transform,
            architecture,
            targets,
            objective,
            teacher,
            initial,
            notes,
        })
    }

    /// The training with these inputs in a run folder.
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
            targets: &self.targets,
            objective: &self.objective,
            teacher: self.teacher.as_ref(),
            initial: self.initial.as_ref().map(|initial| (&initial.state, initial.path.as_path())),
            folder,
            resume,
            stop,
        }
    }
}

/// Weights that a training starts from.
#[derive(Debug, Clone)]
pub struct Initial {
    /// The tensors.
    pub state: StateDict,
    /// Their file or folder.
    pub path: PathBuf,
    /// The choice among the networks of a file, for people.
    pub note: Option<String>,
}

/// Inputs that are open already.
struct Given {
    data: SharedDataset,
    validation: Option<Validation>,
    transform: Transform,
    initial: Option<Initial>,
    teacher: Option<Trained>,
}

/// The classes of the data that the heads have.
enum Classes {
    /// Of one level; see [`Targets::single`].
    One { level: Option<Level>, keep_empty: bool },
    /// Of two levels: one of them, or both.
    Levels(Level),
}

impl Classes {
    fn targets(&self, data: &SharedDataset, novel_is_class: bool) -> Result<Targets> {
        match *self {
            Classes::One { level, keep_empty } => Targets::single(data, level, keep_empty, novel_is_class),
            Classes::Levels(levels) if data.taxonomy().is_some() => {
                Targets::of_levels(data, levels, novel_is_class)
            }
            Classes::Levels(_) => Err(Error::invalid(
                "the training data has one level of classes; superclasses and subclasses are read with labels=both",
            )),
        }
    }
}

/// The loss that the options ask for.
fn objective(options: &TrainOptions, targets: &Targets, teacher: Option<&Teacher>) -> Result<Objective> {
    let weight = options.outlier_weight();
    let exposure = match options.outlier_loss {
        OutlierLoss::ExtraClass => None,
        OutlierLoss::Uniform => Some(Exposure::Uniform { weight }),
        OutlierLoss::Energy => {
            let (inside, outside) = (options.energy_margins[0], options.energy_margins[1]);
            Some(Exposure::Energy { weight, inside, outside })
        }
    };
    let coupling = match (&targets.heads[..], options.kl_weight > 0.0) {
        (_, false) => None,
        ([superclass, _], true) => Some(Coupling {
            weight: options.kl_weight,
            groups: groups(superclass, targets),
            direction: options.kl_direction.direction(),
            detached: options.kl_detach.side(),
            temperature: options.kl_temperature,
        }),
        (_, true) => {
            return Err(Error::usage(
                "--kl-weight couples a superclass head and a subclass head; train both, on data with labels=both",
            ));
        }
    };
    Ok(Objective {
        smoothing: options.label_smoothing,
        class_weights: class_weights(options.class_weights, targets),
        exposure,
        coupling,
        consistency: teacher.map(|teacher| teacher.consistency.clone()),
    })
}

/// The superclass head's logit for each logit of the subclass head. Every subclass in training has a superclass in training.
fn groups(superclass: &HeadClasses, targets: &Targets) -> Vec<i32> {
    let logit = |parent: i64| superclass.indices.iter().position(|&index| index == parent);
    let parents = targets.superclasses().into_iter();
    parents.map(|parent| logit(parent).expect("a superclass that is trained") as i32).collect()
}

/// A path, taken from `root` if it is relative.
fn under(root: Option<&Path>, path: &Path) -> PathBuf {
    root.map_or_else(|| path.to_path_buf(), |root| root.join(path))
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
        // The demo is to be quick: its network sees the images as they are.
        (MNIST_SIDE, MNIST_SIDE) if matches!(source, Some(Source::Demo { .. })) => MNIST_SIDE,
        (MNIST_SIDE, MNIST_SIDE) => PADDED_SIDE,
        (width, height) if width == height => width,
        (width, height) => {
            return Err(Error::usage(format!(
                "the images of {} are {width} x {height} (the first one); a network wants squares: add {}size=64",
                options.data,
                if options.data.contains('?') { "," } else { "?" }
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
    transform.augment = options.augment;
    Ok(transform)
}

/// Keeps a random share of the training data for validation.
fn hold_out(data: SharedDataset, share: f64, seed: u64) -> Result<(SharedDataset, Option<Validation>)> {
    let count = (data.len() as f64 * share).round() as usize;
    if count == 0 || count >= data.len() {
        return Err(Error::usage(format!(
            "--holdout {share} of {} samples is {count}, which leaves one side empty; give a share of at least {}, or more data",
            data.len(),
            1.0 / data.len().max(2) as f64
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

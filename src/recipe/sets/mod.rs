//! The data of an experiment, opened: which networks are trained on which images, and what the others serve for.

mod one_level;
mod two_levels;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::keys::Recipe;
use super::networks::Network;
use crate::checkpoint::Trained;
use crate::data::{DataSpec, Level, SharedDataset, Transform};
use crate::error::Result;
use crate::novelty::{CalibrationSets, ReportSets};
use crate::ood::table::Group;
use crate::train::{TrainOptions, TrainingInputs, Validation};

pub use two_levels::SplitLists;

/// A data set with its name and description.
#[derive(Debug, Clone)]
pub struct NamedSet {
    /// Its name in tables and folders.
    pub name: String,
    /// OpenOOD's group, if it has one.
    pub group: Option<Group>,
    /// Where it comes from, for `meta.json`.
    pub description: String,
    /// The samples.
    pub data: SharedDataset,
}

/// The networks that are trained on the same images, and the sets whose features are extracted with them.
#[derive(Debug, Clone)]
pub struct Fold {
    /// The networks, in the order in which they are trained.
    pub trainings: Vec<Training>,
    /// The sets to extract. A set's index is its place among the caches of every head.
    pub sets: Vec<NamedSet>,
    /// The sets that thresholds are chosen on; `None` where no images were held back from training.
    pub calibration: Option<CalibrationSets>,
    /// The sets that nothing is chosen on.
    pub report: ReportSets,
    /// Whether there are classes that its networks have not seen, so that thresholds chosen with them are its own.
    pub has_unseen: bool,
}

/// One network to train.
#[derive(Debug, Clone)]
pub struct Training {
    /// The stage, for people.
    pub title: String,
    /// Its run folder below that of the experiment; empty for that folder itself.
    pub folder: PathBuf,
    /// The folder of its features below `features`; `None` for the name of the checkpoint.
    pub features: Option<PathBuf>,
    /// The options of `train`.
    pub options: TrainOptions,
    /// The checkpoint that is taken: `last` or `best`.
    pub checkpoint: &'static str,
    /// From image to network input.
    pub transform: Transform,
    /// The images and targets it is trained on.
    pub inputs: Inputs,
}

/// The inputs of a training.
#[derive(Debug, Clone)]
pub enum Inputs {
    /// Open already.
    Open(Box<TrainingInputs>),
    /// Put together when the training begins, since its teacher must have been trained before.
    Levels {
        /// The levels that the network knows.
        levels: Level,
        /// The images.
        data: SharedDataset,
        /// Images that choose the checkpoint.
        select: Option<SharedDataset>,
        /// Whether the first network of the fold teaches it.
        is_taught: bool,
        /// The beginning of a note about them.
        place: String,
    },
}

/// Everything an experiment sees.
#[derive(Debug, Clone)]
pub struct Sets {
    /// The networks to train and to choose thresholds with; several folds where classes are held out in turn.
    pub folds: Vec<Fold>,
    /// The networks that are handed over instead of those of the first fold: trained once more, no class left out.
    pub refit: Option<Fold>,
    /// The images to predict.
    pub test: Option<NamedSet>,
    /// Which images serve for what, for the run folder.
    pub lists: Option<SplitLists>,
    /// Things the user should know.
    pub notes: Vec<String>,
    /// The folder that relative paths of weights start from.
    root: Option<PathBuf>,
}

impl Sets {
    /// Opens the data that a recipe names; relative paths are taken from `root`.
    ///
    /// # Errors
    /// Data that cannot be opened, unless it is optional, or contradicts itself; splits that are impossible.
    pub fn open(recipe: &Recipe, root: Option<&Path>) -> Result<Sets> {
        match recipe {
            Recipe::OneLevel(keys) => one_level::open(keys, root),
            Recipe::TwoLevels(keys) => two_levels::open(keys, root),
        }
    }

    /// The inputs of a training, after the `before` networks of its fold, with the notes that were not said yet.
    pub(super) fn inputs<'t>(
        &self,
        training: &'t Training,
        before: &[Network],
        seed: u64,
    ) -> Result<(Cow<'t, TrainingInputs>, Vec<String>)> {
        let Training { options, transform, .. } = training;
        match &training.inputs {
            Inputs::Open(inputs) => Ok((Cow::Borrowed(inputs), Vec::new())),
            Inputs::Levels { levels, data, select, is_taught, place } => {
                let (data, transform) = (data.clone(), transform.clone());
                let select = select.clone().map(|data| Validation { data, split: "val" });
                let teacher = is_taught.then(|| Trained::open(&before[0].trained.path)).transpose()?;
                let initial = TrainingInputs::initial(options, self.root.as_deref())?;
                let inputs = TrainingInputs::levels(
                    options, data, select, *levels, transform, initial, teacher, seed,
                )?;
                let notes = inputs.notes.iter().map(|note| format!("{place}: {note}")).collect();
                Ok((Cow::Owned(inputs), notes))
            }
        }
    }
}

impl NamedSet {
    /// A set without a group.
    fn new(name: &str, description: &str, data: SharedDataset) -> NamedSet {
        NamedSet { name: name.into(), group: None, description: description.into(), data }
    }
}

/// Parses the name of a data set; relative paths are taken from `root`.
fn parse(text: &str, root: Option<&Path>) -> Result<DataSpec> {
    let spec: DataSpec = text.parse()?;
    Ok(match root {
        Some(root) => spec.under(root),
        None => spec,
    })
}

//! The networks of a fold: trained, or trained before, and the caches of their heads.

use std::path::{Path, PathBuf};

use super::options::NoveltyRecipe;
use super::sets::NoveltySets;
use crate::checkpoint::{HeadClasses, LabelsBy, StateDict, Trained};
use crate::data::{Level, SharedDataset, Transform};
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Head, Request, choose_head, of_head};
use crate::novelty::level_name;
use crate::recipe::stage_helpers::{Execution, Watcher};
use crate::train::{RunFolder, TrainingInputs, Validation};

/// The images that the networks of a fold are trained and chosen on.
pub(super) struct FoldTraining<'a> {
    /// The name of the fold, in folders and messages.
    pub name: &'a str,
    /// Images to train on.
    pub train: Vec<u32>,
    /// Images that choose the checkpoint; without them the last one is taken.
    pub select: Option<&'a [u32]>,
}

/// A trained network and the transform of its images.
pub(super) struct Network {
    /// The checkpoint, without its weights: only extraction needs them, and folds may be many.
    pub trained: Trained,
    /// From image to network input.
    transform: Transform,
    /// The folder with the caches of its features.
    features: PathBuf,
}

/// One head of a network, with its caches.
pub(super) struct HeadOf<'a> {
    /// The network.
    pub network: &'a Network,
    /// Meaning of its logits.
    pub classes: &'a HeadClasses,
    /// Its index among the network's heads.
    index: usize,
}

/// Trains the networks of a fold, each in its own folder below `models/NAME/`.
pub(super) fn train(
    recipe: &NoveltyRecipe,
    sets: &NoveltySets,
    root: Option<&Path>,
    folder: &Path,
    training: &FoldTraining<'_>,
    execution: &Execution<'_>,
    watcher: &mut dyn Watcher,
) -> Result<Vec<Network>> {
    let mut networks: Vec<Network> = Vec::new();
    for &level in recipe.networks() {
        let options = recipe.options(level)?;
        let part = level_folder(level);
        let place = folder.join("models").join(training.name).join(part);
        let run = RunFolder::lock(&place)?;
        let mut transform = Transform::new(recipe.data.size, recipe.normalize(&options)?);
        transform.augment = options.augment;
        transform.degrade = sets.degrade;
        if !execution.is_trained(&options, &run)? {
            let validation =
                training.select.map(|select| Validation { data: sets.part(select), split: "val" });
            // The subclass network may learn from the superclass network of its own fold.
            let taught = recipe.superclass_teaches && level == Level::Fine;
            let teacher = taught.then(|| Trained::open(&networks[0].trained.path)).transpose()?;
            let inputs = TrainingInputs::levels(
                &options,
                sets.part(&training.train),
                validation,
                level,
                transform.clone(),
                TrainingInputs::initial(&options, root)?,
                teacher,
                recipe.seed,
            )?;
            for note in &inputs.notes {
                watcher.note(&format!("{}, {part}: {note}", training.name));
            }
            let title = format!("training {part} network, {}", training.name.replace('_', " "));
            execution.train(&title, &options, &inputs, recipe.seed, &run, watcher)?;
        }
        let chosen = if training.select.is_some() { "best" } else { "last" };
        let trained = Trained { state: StateDict::new(), ..Trained::open(&run.checkpoints().join(chosen))? };
        let features = folder.join("features").join(training.name);
        let features = if level == Level::Both { features } else { features.join(part) };
        networks.push(Network { trained, transform, features });
    }
    Ok(networks)
}

/// The folder of a network for a level.
fn level_folder(level: Level) -> &'static str {
    if level == Level::Both { "both" } else { level_name(Some(level)) }
}

impl Network {
    /// Makes the missing caches of `parts`: name, images, and their description.
    pub(super) fn extract(
        &self,
        parts: &[(&str, SharedDataset, &str)],
        batch: usize,
        execution: &Execution<'_>,
        watcher: &mut dyn Watcher,
    ) -> Result<()> {
        let requests = parts.iter().map(|(name, data, description)| Request {
            data: data.clone(),
            description: (*description).to_string(),
            folder: self.features.join(name),
            labels: LabelsBy::Names,
        });
        let trained = Trained::open(&self.trained.path)?;
        execution.extract(&trained, &self.transform, batch, requests.collect(), watcher)
    }
}

/// The head of a level among the networks.
///
/// # Errors
/// None of them has one.
pub(super) fn head_of(networks: &[Network], level: Level) -> Result<HeadOf<'_>> {
    let found = networks.iter().find_map(|network| {
        let heads = &network.trained.heads;
        let index = heads.iter().position(|head| head.level == Some(level))?;
        Some(HeadOf { network, classes: &heads[index], index })
    });
    found.ok_or_else(|| Error::invalid(format!("no network knows the {} level", level_folder(level))))
}

impl HeadOf<'_> {
    /// The cache of one part of the images.
    pub(super) fn set(&self, part: &str) -> Result<FeatureSet> {
        FeatureSet::open(&self.path(part))
    }

    /// The head's last linear map, as the cache of a part holds it.
    pub(super) fn head(&self, part: &str) -> Result<Head> {
        Ok(choose_head(None, &[&self.set(part)?])?.head)
    }

    fn path(&self, name: &str) -> PathBuf {
        of_head(&self.network.trained.architecture.heads, self.index, &self.network.features.join(name))
    }
}

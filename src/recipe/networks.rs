//! The networks of a fold: trained, or trained before, and the caches of their heads.

use std::fs;
use std::path::{Path, PathBuf};

use super::experiment::{Experiment, Watcher};
use super::sets::{Fold, NamedSet, Training};
use crate::backend::{Choice, Precision};
use crate::checkpoint::{self, LabelsBy, StateDict, Trained};
use crate::data::Transform;
use crate::error::{Error, Result};
use crate::features::{Request, extract_all};
use crate::novelty::HeadSets;
use crate::train::{RunFolder, Summary, train};

/// A trained network and the transform of its images.
pub(super) struct Network {
    /// The checkpoint, without its weights: only extraction needs them, and folds may be many.
    pub trained: Trained,
    /// From image to network input.
    pub transform: Transform,
    /// The folder with the caches of its features.
    pub features: PathBuf,
    /// The summary of its training; `None` where it was finished before.
    pub summary: Option<Summary>,
}

/// The trained networks of a fold; its sets are extracted.
pub(super) struct TrainedFold<'a> {
    pub fold: &'a Fold,
    pub networks: Vec<Network>,
}

impl Network {
    /// Opens a checkpoint whose features are or will be in a folder.
    pub(super) fn open(checkpoint: &Path, transform: &Transform, features: PathBuf) -> Result<Network> {
        let trained = Trained { state: StateDict::new(), ..Trained::open(checkpoint)? };
        Ok(Network { trained, transform: transform.clone(), features, summary: None })
    }

    /// Its heads with their caches of some sets, which are extracted.
    pub(super) fn heads<'s>(
        &self,
        sets: impl IntoIterator<Item = &'s NamedSet>,
    ) -> Result<Vec<HeadSets<'_>>> {
        let folders = sets.into_iter().map(|set| self.features.join(&set.name));
        HeadSets::open(&self.trained, &folders.collect::<Vec<_>>())
    }
}

impl TrainedFold<'_> {
    /// Every head with its caches, the superclass head first.
    pub(super) fn heads<'s>(
        &self,
        sets: impl IntoIterator<Item = &'s NamedSet> + Clone,
    ) -> Result<Vec<HeadSets<'_>>> {
        let heads = self.networks.iter().map(|network| network.heads(sets.clone()));
        Ok(heads.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }
}

impl Experiment<'_> {
    /// Trains the networks of a fold, each in its own folder, and extracts the fold's sets.
    pub(super) fn train_fold<'f>(
        &self,
        fold: &'f Fold,
        watcher: &mut dyn Watcher,
    ) -> Result<TrainedFold<'f>> {
        let mut networks = Vec::new();
        for training in &fold.trainings {
            networks.push(self.train(training, &networks, watcher)?);
        }
        for network in &networks {
            self.extract(network, &fold.sets, watcher)?;
        }
        Ok(TrainedFold { fold, networks })
    }

    /// Trains a network, or goes on where its training stopped; `before` are the networks of its fold that are trained already.
    fn train(&self, training: &Training, before: &[Network], watcher: &mut dyn Watcher) -> Result<Network> {
        let Training { title, folder, options, .. } = training;
        let is_own = folder.as_os_str().is_empty();
        let locked = (!is_own).then(|| RunFolder::lock(&self.folder.path().join(folder))).transpose()?;
        let run = locked.as_ref().unwrap_or(self.folder);
        let last = run.checkpoints().join("last");
        let is_begun = last.exists();
        let mut summary = None;
        if !is_begun || checkpoint::read_meta(&last)?.epoch < options.epochs {
            let seed = self.recipe.seed();
            let (inputs, notes) = self.sets.inputs(training, before, seed)?;
            notes.iter().for_each(|note| watcher.note(note));
            let job = inputs.job(options, seed, run, is_begun, self.stop);
            watcher.stage(title, 0);
            let done = self.choice.on_device(|device| train(device, &job, watcher.training()))?;
            if !done.finished && options.max_steps.is_none_or(|most| done.steps < most) {
                return Err(self.interrupted(&format!("{title} stopped at step {}", done.steps)));
            }
            summary = Some(done);
        }
        let checkpoint = run.checkpoints().join(training.checkpoint);
        let features = match &training.features {
            Some(features) => features.clone(),
            // The name of the checkpoint that a link such as `last` points to.
            None => {
                let real = fs::canonicalize(&checkpoint).map_err(|e| Error::io("find", &checkpoint, e))?;
                real.file_name().unwrap_or_default().into()
            }
        };
        let features = self.folder.path().join("features").join(features);
        Ok(Network { summary, ..Network::open(&checkpoint, &training.transform, features)? })
    }

    /// Makes the missing caches of some sets.
    pub(super) fn extract<'s>(
        &self,
        network: &Network,
        sets: impl IntoIterator<Item = &'s NamedSet>,
        watcher: &mut dyn Watcher,
    ) -> Result<()> {
        let Network { trained, transform, .. } = network;
        let requests = sets.into_iter().map(|set| Request {
            data: set.data.clone(),
            description: set.description.clone(),
            folder: network.features.join(&set.name),
            labels: LabelsBy::Names,
        });
        let (batch, goes_on) = (self.recipe.extraction_batch(), || self.goes_on("extraction"));
        extract_missing(&self.choice, (trained, transform), batch, requests.collect(), watcher, &goes_on)
    }
}

/// Makes the caches that are missing, or of another network, whose weights are read only then; `goes_on` is an error once the user has
/// asked to stop.
pub(super) fn extract_missing(
    choice: &Choice,
    (trained, transform): (&Trained, &Transform),
    batch: usize,
    requests: Vec<Request>,
    watcher: &mut dyn Watcher,
    goes_on: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let (done, missing): (Vec<Request>, Vec<Request>) =
        requests.into_iter().partition(|request| request.is_done(trained, transform));
    for request in &done {
        request.check(trained)?.iter().for_each(|warning| watcher.note(warning));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let samples: usize = missing.iter().map(|request| request.data.len()).sum();
    watcher.stage("extraction", samples as u64);
    let mut progress = |samples: usize| {
        watcher.advance(samples as u64);
        goes_on()
    };
    // Features and all measures on them are f32, in whatever precision the network was trained.
    let mut choice = choice.clone();
    if choice.precision == Precision::Bf16 {
        choice.precision = Precision::F32;
    }
    let trained = Trained::open(&trained.path)?;
    choice.on_device(|device| extract_all(device, &trained, transform, batch, &missing, &mut progress))?;
    Ok(())
}

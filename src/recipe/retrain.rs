//! Networks that never saw some of the classes, trained again by the recipe of a run: on their features constants of scores are tuned as
//! on true OOD data.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::experiment::Watcher;
use super::networks::extract_missing;
use super::training::TrainRecipe;
use crate::backend::Choice;
use crate::checkpoint::{self, LabelsBy, Trained};
use crate::data::{Relabelled, Selected, SharedDataset, UNKNOWN_LABEL};
use crate::error::{Error, Result, printable};
use crate::features::{FeatureSet, Head, Request};
use crate::files;
use crate::ood::tuning::{Split, keep_out, shares};
use crate::train::{RECIPE_FILE, RunFolder, TrainOptions, TrainingInputs, train};

/// One in this many images of each class that stays is kept out of the training, so that scores are measured on images outside it.
const KEPT_OUT: usize = 10;
/// Images at once in extraction.
const BATCH: usize = 250;

/// Networks to train again.
pub struct Retraining<'a> {
    /// The run folder whose recipe they are trained by.
    pub run: &'a Path,
    /// How many; each never sees one share of the classes.
    pub networks: usize,
    /// Seed of the shares.
    pub seed: u64,
    /// The device.
    pub choice: &'a Choice,
    /// The folder in which each network has a run folder of its own, `split-1`, `split-2`, …; finished ones are taken as they are.
    pub folder: PathBuf,
    /// Set from outside (Ctrl-C) to stop soon, with everything kept.
    pub stop: &'a AtomicBool,
}

/// The images of one network.
struct Images {
    held_out: Vec<usize>,
    /// Of the classes that stay, most images: the training set.
    train: SharedDataset,
    /// Of the classes that stay, the images kept out of the training.
    id: SharedDataset,
    /// Of the held-out classes, without labels.
    ood: SharedDataset,
}

impl Retraining<'_> {
    /// Trains the networks, or takes those that are trained, and makes the splits of their features; `head` is that of the network whose
    /// scores are tuned.
    ///
    /// # Errors
    /// The run was not made by `train`, or has two levels of classes, a teacher or other classes than asked for; a training failed or
    /// was stopped.
    pub fn splits(&self, head: &Head, watcher: &mut dyn Watcher) -> Result<Vec<Split>> {
        let classes = head.classes();
        let file = self.run.join(RECIPE_FILE);
        let mut recipe = TrainRecipe::read(&file)?;
        let refuse = |what: &str| {
            Err(Error::usage(format!("{}: {what}; --tune without retrain needs no training", file.display())))
        };
        if recipe.train.teacher.is_some() {
            return refuse(
                "the network was trained with a teacher, which knows the classes that would be held out",
            );
        }
        if recipe.train.val.is_some() || recipe.train.holdout > 0.0 {
            watcher.note("the networks are trained on all images of the classes that stay but a tenth, and validated on none");
        }
        recipe.train = TrainOptions { val: None, holdout: 0.0, ..recipe.train };
        let whole = TrainingInputs::open(&recipe.train, None, recipe.seed)?;
        if whole.targets.heads.len() != 1 {
            return refuse("the network has two levels of classes; tuning holds out classes of one");
        }
        let found = whole.targets.heads[0].classes.len();
        if found != classes {
            return refuse(&format!("its data has {found} classes, the head of the caches {classes}"));
        }
        let pooled = whole.architecture.feature_dimension();
        let dimension = whole.architecture.heads[0].feature_dimension(pooled);
        if dimension != head.dimension() {
            let dimensions = (dimension, head.dimension());
            return refuse(&format!(
                "its network has {} features, the caches have {}",
                dimensions.0, dimensions.1
            ));
        }
        if let Some(init) = &recipe.train.init {
            watcher.note(&format!(
                "the networks start from {}, as the recipe says; if these weights have seen the held-out classes, tuning is not on \
                 unseen classes",
                init.display()
            ));
        }
        let shares = shares(classes, self.networks, self.seed)?;
        if shares.len() != self.networks {
            return Err(Error::usage(format!(
                "--tune retrain={}: of {classes} classes there can be {} shares to hold out, since two must stay",
                self.networks,
                shares.len()
            )));
        }
        let mut splits = Vec::new();
        for (number, held_out) in shares.into_iter().enumerate() {
            let images = divide(&whole, held_out, self.seed)?;
            let title = format!(
                "network {} of {}, without {}",
                number + 1,
                self.networks,
                listed(&images.held_out, &whole.targets.heads[0].classes)
            );
            let folder = self.folder.join(format!("split-{}", number + 1));
            splits.push(self.split((&recipe, &whole), images, &folder, &title, watcher)?);
        }
        Ok(splits)
    }

    fn split(
        &self,
        (recipe, whole): (&TrainRecipe, &TrainingInputs),
        images: Images,
        folder: &Path,
        title: &str,
        watcher: &mut dyn Watcher,
    ) -> Result<Split> {
        let options = &recipe.train;
        let (data, transform) = (images.train.clone(), whole.transform.clone());
        let inputs =
            TrainingInputs::assemble(options, data, None, transform, whole.initial.clone(), recipe.seed)?;
        let run = RunFolder::lock(folder)?;
        let description = format!("{}# classes held out: {:?}\n", recipe.to_toml(), images.held_out);
        let is_begun = run.recipe().exists();
        if is_begun {
            let found = files::read_text(&run.recipe(), LARGEST_RECIPE)?;
            if found != description {
                return Err(Error::usage(format!(
                    "{} holds a training by another recipe, or without other classes; choose another --out, or delete it",
                    folder.display()
                )));
            }
        } else {
            files::write(&run.recipe(), &description)?;
        }
        let last = run.checkpoints().join("last");
        if !last.exists() || checkpoint::read_meta(&last)?.epoch < options.epochs {
            watcher.stage(title, 0);
            let job = inputs.job(options, recipe.seed, &run, last.exists(), self.stop);
            let mut choice = self.choice.clone();
            choice.precision = recipe.precision;
            let done = choice.on_device(|device| train(device, &job, watcher.training()))?;
            if !done.finished && options.max_steps.is_none_or(|most| done.steps < most) {
                return Err(Error::Interrupted(format!(
                    "{title} stopped at step {}; the same command goes on from there",
                    done.steps
                )));
            }
        }
        let trained = Trained::open(&last)?;
        let request = |name: &str, data: &SharedDataset| Request {
            data: data.clone(),
            description: format!("{} without classes {:?}, {name}", options.data, images.held_out),
            folder: folder.join("features").join(name),
            labels: LabelsBy::Numbers,
        };
        let requests = [("train", &images.train), ("id", &images.id), ("ood", &images.ood)]
            .map(|(name, data)| request(name, data));
        let goes_on = || match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::Interrupted("extraction stopped; the same command goes on".into())),
            false => Ok(()),
        };
        let network = (&trained, &inputs.transform);
        extract_missing(self.choice, network, BATCH, requests.to_vec(), watcher, &goes_on)?;
        let [train, id, ood] = requests.map(|request| FeatureSet::open(&request.folder));
        let (train, id, ood) = (train?, id?, ood?);
        let head = train.own_head()?.ok_or_else(|| {
            Error::invalid(format!("{} holds no head; delete it and run again", train.path().display()))
        })?;
        Ok(Split { held_out: images.held_out, head, train, id, ood })
    }
}

/// A recipe is a page of text.
const LARGEST_RECIPE: u64 = 1 << 20;

/// The images of a network that never sees some classes. Those of no class are left out.
fn divide(whole: &TrainingInputs, held_out: Vec<usize>, seed: u64) -> Result<Images> {
    let (names, labels) = (&whole.targets.heads[0].classes, whole.targets.labels(0));
    let kept: Vec<usize> = (0..names.len()).filter(|class| held_out.binary_search(class).is_err()).collect();
    let mut by_class = vec![Vec::new(); names.len()];
    for (index, label) in labels.iter().enumerate() {
        if let Some(own) = usize::try_from(*label).ok().and_then(|label| by_class.get_mut(label)) {
            own.push(index as u32);
        }
    }
    for &class in &kept {
        let rows = &by_class[class];
        if rows.len() < 2 {
            return Err(Error::invalid(format!(
                "class `{}` has {} images; tuning keeps some of each class out of the training, so it needs 2",
                names[class],
                rows.len()
            )));
        }
    }
    let (train, id) = keep_out(kept.iter().map(|&class| (class, by_class[class].as_slice())), KEPT_OUT, seed);
    let ood: Vec<u32> = held_out.iter().flat_map(|&class| by_class[class].clone()).collect();
    if ood.is_empty() {
        return Err(Error::invalid(format!("no image is of the classes held out ({held_out:?})")));
    }
    let kept_names: Vec<String> = kept.iter().map(|&class| names[class].clone()).collect();
    let set = |mut rows: Vec<u32>| -> Result<SharedDataset> {
        rows.sort_unstable();
        let place = |row: &u32| {
            let place = kept.binary_search(&(labels[*row as usize].max(0) as usize));
            place.map_or(UNKNOWN_LABEL, |place| place as i64)
        };
        let own = rows.iter().map(place).collect();
        let selected = Arc::new(Selected::new(whole.data.clone(), rows));
        Ok(Arc::new(Relabelled::new(selected, own, kept_names.clone(), None)?))
    };
    Ok(Images { train: set(train)?, id: set(id)?, ood: set(ood)?, held_out })
}

/// Some classes by name, the first few of many.
fn listed(classes: &[usize], names: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<&str> = classes.iter().take(SHOWN).map(|&class| names[class].as_str()).collect();
    let more = classes.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!(" and {more} other classes") } else { String::new() };
    printable(&format!("{}{rest}", shown.join(", "))).to_string()
}

//! An experiment, stage by stage: split, train, extract, evaluate, calibrate, predict, score, collapse, report.
//!
//! On one level of classes:
//!
//! ```text
//! RUN/metrics.jsonl, checkpoints/, events   the training
//! RUN/features/CHECKPOINT/SET/              caches of each set
//! RUN/eval/, ood/, collapse/, thresholds.toml, report.html
//! ```
//!
//! On two levels, where classes are held out from the networks of a fold:
//!
//! ```text
//! RUN/outliers.csv, splits.csv              which images, and which serve for what
//! RUN/models/{fold_1,…,final}/LEVEL/        a training each: metrics.jsonl, checkpoints/, events
//! RUN/features/{fold_1,…,final}/LEVEL/SET/  caches of each head
//! RUN/eval/LEVEL/                           metrics on labelled images
//! RUN/novelty/                              scores that were calibrated and measured, figures' numbers
//! RUN/thresholds.toml, predictions.csv, dashboard.{json,csv}, report.html
//! ```
//!
//! Finished parts are not repeated: a finished training, a cache of the same checkpoint, scores and rows of collapse with a stamp
//! of what they were made from. An interrupted one goes on: training at its last checkpoint, collapse at the first checkpoint
//! without a row.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::calibrate::Novelty;
use super::keys::Recipe;
use super::sets::Sets;
use crate::backend::Choice;
use crate::collapse::CollapseReport;
use crate::error::{Error, Result};
use crate::eval;
use crate::files;
use crate::ood::table::Evaluation;
use crate::ood::{Compute, RowsPrecision, on_chosen};
use crate::report;
use crate::train::{Observer, RunFolder, Summary};

/// Watches an experiment.
pub trait Watcher {
    /// A stage begins, with `units` units of work (0: not countable).
    fn stage(&mut self, name: &str, units: u64);
    /// Some units are done.
    fn advance(&mut self, units: u64);
    /// Something the user should know.
    fn note(&mut self, text: &str);
    /// The observer of the training.
    fn training(&mut self) -> &mut dyn Observer;
}

/// An experiment with everything it needs.
pub struct Experiment<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Its data.
    pub sets: &'a Sets,
    /// The device.
    pub choice: Choice,
    /// The run folder.
    pub folder: &'a RunFolder,
    /// Set from outside (Ctrl-C) to stop soon, with everything kept.
    pub stop: &'a AtomicBool,
}

/// The results of an experiment.
#[derive(Debug)]
pub struct Outcome {
    /// The summary of the first training; `None` where it was finished before.
    pub training: Option<Summary>,
    /// Metrics of each head on labelled images that chose nothing.
    pub labelled: Vec<eval::Results>,
    /// OOD metrics; `None` without OOD sets.
    pub evaluation: Option<Evaluation>,
    /// The novelty thresholds; `None` where no images were held back from training to choose them.
    pub novelty: Option<Novelty>,
    /// A row per checkpoint; `None` where collapse is not asked for.
    pub collapse: Option<CollapseReport>,
    /// The page.
    pub report: PathBuf,
}

impl Experiment<'_> {
    /// Runs what is not done yet.
    ///
    /// # Errors
    /// Another recipe ran in this folder; a stage failed; the user stopped it.
    pub fn run(&self, watcher: &mut dyn Watcher) -> Result<Outcome> {
        self.claim_folder()?;
        if let Some(lists) = &self.sets.lists {
            lists.write(self.folder.path())?;
        }
        self.sets.notes.iter().for_each(|note| watcher.note(note));
        let folds = self.sets.folds.iter().map(|fold| self.train_fold(fold, watcher));
        let mut folds = folds.collect::<Result<Vec<_>>>()?;
        let labelled = self.evaluate(&folds[0], watcher)?;
        let novelty = self.calibrate(&folds, watcher)?;
        let thresholds = novelty.as_ref().map(|novelty| &novelty.thresholds);
        let evaluation = self.score(&folds[0], thresholds, watcher)?;
        let collapse = self.collapse(&folds[0], watcher)?;
        watcher.stage("report", 0);
        let report = report::build(self.folder.path())?;
        let training = folds[0].networks[0].summary.take();
        Ok(Outcome { training, labelled, evaluation, novelty, collapse, report })
    }

    /// Writes the recipe into its run folder, or checks that the one there is the same.
    fn claim_folder(&self) -> Result<()> {
        let (path, text) = (self.folder.recipe(), self.recipe.to_toml());
        if !path.exists() {
            return files::write(&path, text);
        }
        if Recipe::read(&path)? == *self.recipe {
            return Ok(());
        }
        Err(Error::usage(format!(
            "{} belongs to another recipe (its recipe.toml differs); choose another --out",
            self.folder.path().display()
        )))
    }

    /// Does work whose passes over rows of features run on the device of the experiment.
    pub(super) fn on_rows<T>(&self, work: impl FnMut(&mut dyn Compute) -> Result<T>) -> Result<T> {
        on_chosen(&self.choice, RowsPrecision::F64, work)
    }

    /// Ends the experiment before a stage that does not look at the signal itself.
    pub(super) fn goes_on(&self, stage: &str) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            Err(self.interrupted(&format!("{stage} stopped")))
        } else {
            Ok(())
        }
    }

    /// The error of work that was stopped from outside; the program adds the command that goes on.
    pub(super) fn interrupted(&self, what: &str) -> Error {
        Error::Interrupted(format!("{what}; {} keeps what is done", self.folder.path().display()))
    }
}

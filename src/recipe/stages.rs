//! An experiment, stage by stage: train, extract, score, collapse, report.
//!
//! Each stage leaves a stamp of what it was made from; where the stamp is the same the stage is not repeated, and an
//! interrupted one goes on: training at its last checkpoint, collapse at the first checkpoint without a row.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::experiment::Recipe;
use super::sets::{NamedSet, Sets};
use super::stage_helpers::{Execution, Watcher, checkpoint_name, claim_folder, is_stamped, write_stamp};
use super::thresholds;
use crate::backend::Choice;
use crate::checkpoint::{self, CheckpointRef, LabelsBy, Trained};
use crate::collapse::{self, CollapseReport, CollapseRow, CollapseSeries, Subject};
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Request, choose_head};
use crate::files;
use crate::novelty::ThresholdFile;
use crate::ood::table::Evaluation;
use crate::ood::{OodInput, run as run_ood};
use crate::report;
use crate::train::{RunFolder, Summary};

/// Where the head of scores comes from, for their stamp: scores made with a head beside the caches, which another network's may
/// have taken the place of, are made again.
const HEAD: &str = "inside the caches";

/// The results of an experiment.
#[derive(Debug)]
pub struct Outcome {
    /// The training's summary; `None` where it was finished before.
    pub training: Option<Summary>,
    /// OOD metrics; `None` without OOD sets.
    pub evaluation: Option<Evaluation>,
    /// The novelty threshold; `None` where no images were held back from training to choose it.
    pub thresholds: Option<ThresholdFile>,
    /// A row per checkpoint; `None` where collapse is not asked for.
    pub collapse: Option<CollapseReport>,
    /// The page.
    pub report: PathBuf,
}

/// An experiment with everything it needs.
pub struct Pipeline<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The data sets.
    pub sets: &'a Sets,
    /// The device.
    pub choice: Choice,
    /// The run folder.
    pub folder: &'a RunFolder,
    /// Set from outside (Ctrl-C) to stop soon, with everything kept.
    pub stop: &'a AtomicBool,
}

impl Pipeline<'_> {
    /// Runs what is not done yet.
    ///
    /// # Errors
    /// Another recipe ran in this folder; a stage failed; the user stopped it.
    pub fn run(&self, watcher: &mut dyn Watcher) -> Result<Outcome> {
        let notes = self.check_scores()?;
        claim_folder(self.folder, &self.recipe.to_toml(), |path| Ok(Recipe::read(path)? == *self.recipe))?;
        for note in self.sets.notes.iter().chain(&notes) {
            watcher.note(note);
        }
        let training = self.train(watcher)?;
        let trained = Trained::open(&self.folder.checkpoints().join("last"))?;
        let name = checkpoint_name(&trained.path)?;
        let features = self.folder.path().join("features").join(&name);
        self.extract(&trained, &features, true, watcher)?;
        self.execution().goes_on("scoring")?;
        let evaluation = self.score(&trained, &features, watcher)?;
        let thresholds = self.thresholds(&trained, &features)?;
        let collapse = if self.recipe.collapse.enabled { Some(self.collapse(&name, watcher)?) } else { None };
        watcher.stage("report", 0);
        let report = report::build(self.folder.path())?;
        Ok(Outcome { training, evaluation, thresholds, collapse, report })
    }

    /// Checks the scores' constants against the network and its training data, before hours of training: what will be done
    /// otherwise than asked.
    fn check_scores(&self) -> Result<Vec<String>> {
        if self.sets.ood.is_empty() {
            return Ok(Vec::new());
        }
        let architecture = &self.sets.inputs.architecture;
        let pooled = architecture.feature_dimension();
        let dimension = architecture.heads.first().map_or(pooled, |head| head.feature_dimension(pooled));
        self.recipe.run_options()?.scores.check_for(dimension, Some(self.sets.train.data.len()))
    }

    fn execution(&self) -> Execution<'_> {
        Execution { choice: &self.choice, stop: self.stop, folder: self.folder.path() }
    }

    fn train(&self, watcher: &mut dyn Watcher) -> Result<Option<Summary>> {
        let Recipe { train, seed, .. } = self.recipe;
        self.execution().train("training", train, &self.sets.inputs, *seed, self.folder, watcher)
    }

    /// Makes the caches of one checkpoint that are not there; with the ID test set or without.
    fn extract(
        &self,
        trained: &Trained,
        folder: &Path,
        with_id: bool,
        watcher: &mut dyn Watcher,
    ) -> Result<()> {
        let transform = &self.sets.inputs.transform;
        let request = |set: &NamedSet| Request {
            data: set.data.clone(),
            description: set.description.clone(),
            folder: folder.join(&set.name),
            labels: LabelsBy::Names,
        };
        let requests: Vec<Request> = std::iter::once(&self.sets.train)
            .chain(with_id.then_some(&self.sets.id))
            .chain(self.sets.calibrate.as_ref().filter(|_| with_id))
            .chain(&self.sets.ood)
            .map(request)
            .collect();
        let batch = self.recipe.evaluate.batch_size;
        self.execution().extract(trained, transform, batch, requests, watcher)
    }

    fn score(
        &self,
        trained: &Trained,
        features: &Path,
        watcher: &mut dyn Watcher,
    ) -> Result<Option<Evaluation>> {
        if self.sets.ood.is_empty() {
            return Ok(None);
        }
        let out = self.folder.path().join("ood");
        let sets: Vec<&str> = self.sets.ood.iter().map(|set| set.description.as_str()).collect();
        let stamp = json!({
            "checkpoint": trained.hash, "scores": self.recipe.scores, "seed": self.recipe.seed,
            "id": self.sets.id.description, "ood": sets, "head": HEAD,
        });
        let metrics = out.join("metrics.json");
        if is_stamped(&out, &stamp) {
            return Evaluation::read_json(&metrics).map(Some);
        }
        watcher.stage("scores", 0);
        let open = |set: &NamedSet| FeatureSet::open(&features.join(&set.name));
        let ood = self
            .sets
            .ood
            .iter()
            .map(|set| Ok(OodInput { name: set.name.clone(), group: set.group, set: open(set)? }));
        let (train, id) = (open(&self.sets.train)?, open(&self.sets.id)?);
        let head = choose_head(None, &[&train, &id])?.head;
        let ood = ood.collect::<Result<Vec<_>>>()?;
        let outcome = run_ood(Some(&train), &id, &ood, &head, &self.recipe.run_options()?, &out)?;
        write_stamp(&out, &stamp)?;
        Ok(Some(outcome.evaluation))
    }

    /// Chooses the novelty threshold and writes `thresholds.toml`.
    fn thresholds(&self, trained: &Trained, features: &Path) -> Result<Option<ThresholdFile>> {
        let file = thresholds::choose(self.sets, trained, features, self.recipe.scores.temperature)?;
        if let Some(file) = &file {
            file.write(&self.folder.path().join("thresholds.toml"))?;
        }
        Ok(file)
    }

    /// One row per checkpoint; `last` is the name of the final one, whose features are kept.
    fn collapse(&self, last: &str, watcher: &mut dyn Watcher) -> Result<CollapseReport> {
        let out = self.folder.path().join("collapse");
        let pattern = self.folder.checkpoints().join("epoch_*");
        let found = checkpoint::list(&[pattern.to_string_lossy().into_owned()])?;
        let mut series = CollapseSeries::default();
        series.report.global_mean = self.recipe.collapse.global_mean;
        for (index, checkpoint) in found.iter().enumerate() {
            self.execution().goes_on("collapse")?;
            watcher.note_collapse(index, found.len());
            let (row, cosines) = self.collapse_row(checkpoint, last, &out, watcher)?;
            series.report.checkpoints.push(row);
            series.cosines = cosines;
        }
        series.write(&out)?;
        Ok(series.report)
    }

    fn collapse_row(
        &self,
        checkpoint: &CheckpointRef,
        last: &str,
        out: &Path,
        watcher: &mut dyn Watcher,
    ) -> Result<(CollapseRow, Vec<f64>)> {
        let name = checkpoint.name();
        let trained = Trained::open(&checkpoint.path)?;
        let rows = out.join("rows").join(&name);
        let sets: Vec<&str> = self.sets.ood.iter().map(|set| set.description.as_str()).collect();
        let stamp = json!({
            "checkpoint": trained.hash, "global_mean": self.recipe.collapse.global_mean,
            "train": self.sets.train.description, "ood": sets,
        });
        let row_path = rows.join("row.json");
        if is_stamped(&rows, &stamp) && name != last {
            let text = files::read_text(&row_path, 1 << 20)?;
            if let Ok(row) = serde_json::from_str(&text) {
                return Ok((row, Vec::new()));
            }
        }
        let features = self.folder.path().join("features").join(&name);
        self.extract(&trained, &features, name == last, watcher)?;
        let open = |set: &NamedSet| FeatureSet::open(&features.join(&set.name));
        let ood = self.sets.ood.iter().map(|set| Ok((set.name.clone(), open(set)?)));
        let train = open(&self.sets.train)?;
        let head = choose_head(None, &[&train])?.head;
        let test = if name == last { Some(open(&self.sets.id)?) } else { None };
        let subject = Subject { train, test, head, ood: ood.collect::<Result<Vec<_>>>()?, notes: Vec::new() };
        let options = collapse::Options {
            global_mean: self.recipe.collapse.global_mean,
            ..collapse::Options::default()
        };
        let measurement = collapse::measure(&subject, &options)
            .map_err(|error| Error::invalid(format!("checkpoint {}: {error}", checkpoint.path.display())))?;
        measurement.warnings.iter().for_each(|warning| watcher.note(warning));
        let mut row = measurement.row;
        row.checkpoint = name.clone();
        row.epoch = checkpoint.epoch;
        drop(subject);
        let text = serde_json::to_string_pretty(&row).expect("a row is plain numbers");
        files::write_atomically(&row_path, |out| std::io::Write::write_all(out, text.as_bytes()))?;
        write_stamp(&rows, &stamp)?;
        if name != last {
            // The features of one checkpoint are as large as the training set; only the final ones serve again.
            fs::remove_dir_all(&features).map_err(|e| Error::io("remove", &features, e))?;
        }
        Ok((row, measurement.cosines))
    }
}

impl dyn Watcher + '_ {
    fn note_collapse(&mut self, index: usize, count: usize) {
        self.stage(&format!("collapse {}/{count}", index + 1), 0);
    }
}

//! The stages of one level: OOD scores of the trained network, and collapse of all its checkpoints.
//!
//! Each leaves a stamp of what it was made from; where the stamp is the same the stage is not repeated.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::experiment::{Experiment, Watcher};
use super::keys::Recipe;
use super::networks::{Network, TrainedFold};
use super::reading::WrongKey;
use super::sets::NamedSet;
use crate::checkpoint::{self, CheckpointRef};
use crate::collapse::{self, CollapseReport, CollapseRow, CollapseSeries, GlobalMean, Subject};
use crate::error::{Error, Result};
use crate::eval::{self, EVAL_FILE};
use crate::files;
use crate::novelty::ThresholdFile;
use crate::ood::table::Evaluation;
use crate::ood::{OodInput, Sets, ShiftedInput, run_on as run_ood};
use crate::samples::{self, Images, SAMPLES_FILE, SampleFile};

/// Where the head of scores comes from, for their stamp: scores made with a head beside the caches, which another network's may
/// have taken the place of, are made again.
const HEAD: &str = "inside the caches";

/// How scores are measured, for their stamp: 2 has standard errors and comparisons.
const MEASURE: u32 = 2;

/// Bootstrap replicates behind intervals of the metrics on labelled data.
const REPLICATES: u32 = 1000;

impl Experiment<'_> {
    /// Evaluates each head on the labelled images that nothing was chosen on, if there are some.
    pub(super) fn evaluate(
        &self,
        trained: &TrainedFold<'_>,
        watcher: &mut dyn Watcher,
    ) -> Result<Vec<eval::Results>> {
        let Some(seen) = trained.fold.report.seen else { return Ok(Vec::new()) };
        self.goes_on("evaluation")?;
        let set = &trained.fold.sets[seen];
        let heads = trained.heads([set])?;
        let mut results = Vec::new();
        for head in &heads {
            let cache = &head.sets[0];
            if cache.labels().is_none_or(|labels| labels.iter().all(|label| *label < 0)) {
                continue;
            }
            let folder = self.folder.path().join("eval");
            let out = if heads.len() > 1 { folder.join(head.level()) } else { folder };
            let seed = self.recipe.seed();
            let stamp = json!({ "checkpoint": head.trained.hash, "data": set.description, "seed": seed });
            if is_stamped(&out, &stamp) {
                results.push(eval::Results::read(&out.join(EVAL_FILE))?);
                continue;
            }
            watcher.stage("evaluation", 0);
            let options =
                eval::Options { class_names: head.classes.classes.clone(), replicates: REPLICATES, seed };
            let evaluated = eval::evaluate(cache, &head.head, &options)?;
            evaluated.write(&out, Some(&*set.data))?;
            if heads.len() == 1 && trained.fold.ood_sets().is_empty() {
                let (images, names) = (Images::Open(set.data.clone()), head.classes.classes.as_slice());
                let kept = samples::Options { seed, ..samples::Options::default() };
                SampleFile::of_labelled(cache, images, (&head.head, names), kept)?
                    .write(&out.join(SAMPLES_FILE))?;
            }
            write_stamp(&out, &stamp)?;
            results.push(evaluated.results);
        }
        Ok(results)
    }

    /// Scores the OOD sets, if there are some.
    pub(super) fn score(
        &self,
        trained: &TrainedFold<'_>,
        thresholds: Option<&ThresholdFile>,
        watcher: &mut dyn Watcher,
    ) -> Result<Option<Evaluation>> {
        let (fold, network) = (trained.fold, &trained.networks[0]);
        let ood = fold.ood_sets();
        let keys = match self.recipe {
            Recipe::OneLevel(keys) if !ood.is_empty() => keys,
            _ => return Ok(None),
        };
        self.goes_on("scoring")?;
        let out = self.folder.path().join("ood");
        // A threshold of a score at another temperature says nothing of the scores here.
        let entry = thresholds.and_then(|file| file.levels.first());
        let entry = entry.filter(|entry| entry.temperature == keys.scores.temperature);
        let threshold = entry.map(|entry| (entry.threshold.score.to_string(), entry.threshold.tau));
        let shifted = fold.shifted_sets();
        let stamp = json!({
            "checkpoint": network.trained.hash, "measure": MEASURE, "shifted": descriptions(shifted), "scores": keys.scores, "seed": keys.seed, "threshold": threshold,
            "id": fold.id_set().description, "ood": descriptions(ood), "head": HEAD, "samples": samples::BUDGET,
        });
        if is_stamped(&out, &stamp) {
            return Evaluation::read_json(&out.join("metrics.json")).map(Some);
        }
        watcher.stage("scores", 0);
        // Images held back from training for thresholds serve the scores that want such images, too.
        let held_back = fold.calibration.as_ref().map(|calibration| &fold.sets[calibration.seen]);
        let tested = ood.iter().chain(shifted).chain(held_back);
        let head = network.heads([fold.train_set(), fold.id_set()].into_iter().chain(tested))?.remove(0);
        let mut caches = head.sets.into_iter();
        let (train, id) = (caches.next(), caches.next().expect("the cache of the ID set"));
        let input =
            |(set, cache): (&NamedSet, _)| OodInput { name: set.name.clone(), group: set.group, set: cache };
        let ood: Vec<OodInput> = ood.iter().zip(caches.by_ref()).map(input).collect();
        let input = |(set, cache): (&NamedSet, _)| ShiftedInput { name: set.name.clone(), set: cache };
        let shifted: Vec<ShiftedInput> = shifted.iter().zip(caches.by_ref()).map(input).collect();
        let calibration = caches.next();
        let sets = Sets {
            train: train.as_ref(),
            calibration: calibration.as_ref(),
            id: &id,
            shifted: &shifted,
            ood: &ood,
        };
        let options = keys.run_options().map_err(WrongKey::error)?;
        let outcome = self.on_rows(|compute| run_ood(compute, sets, &head.head, &options, &out))?;
        let names = head.classes.classes.as_slice();
        let images = |set: &NamedSet| Images::Open(set.data.clone());
        let kept = samples::Options { seed: keys.seed, ..samples::Options::default() };
        let sets = std::iter::once((&id, images(fold.id_set())));
        let sets = sets.chain(ood.iter().zip(fold.ood_sets()).map(|(input, set)| (&input.set, images(set))));
        SampleFile::of_scored(&outcome, sets.collect(), (&head.head, names), threshold, kept)?
            .write(&out.join(SAMPLES_FILE))?;
        write_stamp(&out, &stamp)?;
        Ok(Some(outcome.evaluation))
    }

    /// Measures the collapse of every checkpoint, if that is asked for: a row each.
    pub(super) fn collapse(
        &self,
        trained: &TrainedFold<'_>,
        watcher: &mut dyn Watcher,
    ) -> Result<Option<CollapseReport>> {
        let global_mean = match self.recipe {
            Recipe::OneLevel(keys) if keys.collapse.enabled => keys.collapse.global_mean,
            _ => return Ok(None),
        };
        let pattern = self.folder.checkpoints().join("epoch_*");
        let found = checkpoint::list(&[pattern.to_string_lossy().into_owned()])?;
        let mut series = CollapseSeries::default();
        series.report.global_mean = global_mean;
        for (index, checkpoint) in found.iter().enumerate() {
            self.goes_on("collapse")?;
            watcher.stage(&format!("collapse {}/{}", index + 1, found.len()), 0);
            let (row, cosines) = self.collapse_row(checkpoint, trained, global_mean, watcher)?;
            series.report.checkpoints.push(row);
            series.cosines = cosines;
        }
        series.write(&self.folder.path().join("collapse"))?;
        Ok(Some(series.report))
    }

    fn collapse_row(
        &self,
        checkpoint: &CheckpointRef,
        trained: &TrainedFold<'_>,
        global_mean: GlobalMean,
        watcher: &mut dyn Watcher,
    ) -> Result<(CollapseRow, Vec<f64>)> {
        let (fold, last) = (trained.fold, &trained.networks[0]);
        let name = checkpoint.name();
        let features = last.features.with_file_name(&name);
        let is_last = features == last.features;
        let network = Network::open(&checkpoint.path, &last.transform, features)?;
        let rows = self.folder.path().join("collapse").join("rows").join(&name);
        let ood = fold.ood_sets();
        let stamp = json!({
            "checkpoint": network.trained.hash, "global_mean": global_mean,
            "train": fold.train_set().description, "ood": descriptions(ood),
        });
        let row_path = rows.join("row.json");
        if is_stamped(&rows, &stamp) && !is_last {
            let text = files::read_text(&row_path, 1 << 20)?;
            if let Ok(row) = serde_json::from_str(&text) {
                return Ok((row, Vec::new()));
            }
        }
        let test = is_last.then(|| fold.id_set());
        let sets = || std::iter::once(fold.train_set()).chain(test).chain(ood);
        self.extract(&network, sets(), watcher)?;
        let head = network.heads(sets())?.remove(0);
        let mut caches = head.sets.into_iter();
        let subject = Subject {
            train: caches.next().expect("the cache of the training set"),
            test: test.and_then(|_| caches.next()),
            head: head.head,
            ood: ood.iter().map(|set| set.name.clone()).zip(caches).collect(),
            notes: Vec::new(),
        };
        let options = collapse::Options { global_mean, ..collapse::Options::default() };
        let measurement = self
            .on_rows(|compute| collapse::measure_on(compute, &subject, &options))
            .map_err(|error| Error::invalid(format!("checkpoint {}: {error}", checkpoint.path.display())))?;
        measurement.warnings.iter().for_each(|warning| watcher.note(warning));
        let row = CollapseRow { checkpoint: name, epoch: checkpoint.epoch, ..measurement.row };
        drop(subject);
        let text = serde_json::to_string_pretty(&row).expect("a row is plain numbers");
        files::write(&row_path, text)?;
        write_stamp(&rows, &stamp)?;
        if !is_last {
            // The features of one checkpoint are as large as the training set; only the final ones serve again.
            let features = &network.features;
            fs::remove_dir_all(features).map_err(|e| Error::io("remove", features, e))?;
        }
        Ok((row, measurement.cosines))
    }
}

fn descriptions(sets: &[NamedSet]) -> Vec<&str> {
    sets.iter().map(|set| set.description.as_str()).collect()
}

const STAMP: &str = "stamp.json";

/// Whether a stage's folder was made from exactly what `stamp` says.
pub(super) fn is_stamped(folder: &Path, stamp: &Value) -> bool {
    let read = || serde_json::from_str::<Value>(&files::read_text(&folder.join(STAMP), 1 << 20).ok()?).ok();
    read().as_ref() == Some(stamp)
}

/// Writes down what a stage's folder was made from.
pub(super) fn write_stamp(folder: &Path, stamp: &Value) -> Result<()> {
    files::write(&folder.join(STAMP), stamp.to_string())
}

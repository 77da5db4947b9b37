//! An experiment on two levels, stage by stage: split, train each fold, calibrate, measure, train once more, predict, report.
//!
//! ```text
//! RUN/outliers.csv, splits.csv              which images, and which serve for what
//! RUN/models/{fold_1,…,final}/LEVEL/        a training each: metrics.jsonl, checkpoints/, events
//! RUN/features/{fold_1,…,final}/LEVEL/PART/ caches of what its heads say
//! RUN/novelty/                              scores that were calibrated and measured, figures' numbers
//! RUN/thresholds.toml, predictions.csv, dashboard.{json,csv}, report.html
//! ```
//!
//! Finished parts are not repeated: a finished training, a cache of the same checkpoint.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::findings::{Findings, ReportPart};
use super::networks::{FoldTraining, Network, head_of, train};
use super::options::NoveltyRecipe;
use super::sets::NoveltySets;
use crate::backend::Choice;
use crate::data::Level;
use crate::data::splits::Fold;
use crate::error::Result;
use crate::files;
use crate::novelty::{
    Columns, Dashboard, Gathered, Judgement, LevelEntry, LevelScores, LevelThreshold, Rates, Scored, Scorer,
    ThresholdFile, Truth, calibrate_level, judge_caches, predictions_csv, truths,
};
use crate::recipe::stage_helpers::{Execution, Watcher, claim_folder};
use crate::report;
use crate::train::RunFolder;

/// The levels in the order in which everything speaks of them.
const LEVELS: [Level; 2] = [Level::Coarse, Level::Fine];

/// The part of the images that is predicted.
const TEST: &str = "test";

/// The part of held-out classes that figures are about.
const NOVEL_REPORT: &str = "novel_report";

/// An experiment on two levels with everything it needs.
pub struct NoveltyPipeline<'a> {
    /// The recipe.
    pub recipe: &'a NoveltyRecipe,
    /// The data, divided into folds, and the outliers.
    pub sets: &'a NoveltySets,
    /// The folder that relative paths of weights start from.
    pub root: Option<&'a Path>,
    /// The device.
    pub choice: Choice,
    /// The run folder.
    pub folder: &'a RunFolder,
    /// Set from outside (Ctrl-C) to stop soon, with everything kept.
    pub stop: &'a AtomicBool,
}

/// The results of an experiment.
#[derive(Debug)]
pub struct NoveltyOutcome {
    /// The numbers, as a table.
    pub dashboard: Dashboard,
    /// Where the thresholds are.
    pub thresholds: PathBuf,
    /// Where the predictions are, if there was something to predict.
    pub predictions: Option<PathBuf>,
    /// The page.
    pub report: PathBuf,
}

/// The networks of a fold with the scores of their heads.
struct FoldNetworks<'a> {
    fold: &'a Fold,
    networks: Vec<Network>,
    /// In the order of [`LEVELS`].
    scorers: Vec<Scorer>,
    /// Calibration samples, in the order of [`LEVELS`].
    calibration: Vec<LevelScores>,
}

impl NoveltyPipeline<'_> {
    /// Runs what is not done yet.
    ///
    /// # Errors
    /// Another recipe ran in this folder; a stage failed; the user stopped it.
    pub fn run(&self, watcher: &mut dyn Watcher) -> Result<NoveltyOutcome> {
        claim_folder(self.folder, &self.recipe.to_toml(), |path| {
            Ok(NoveltyRecipe::read(path)? == *self.recipe)
        })?;
        self.sets.write_lists(self.folder.path())?;
        for note in &self.sets.notes {
            watcher.note(note);
        }
        let mut folds = Vec::new();
        for (number, fold) in self.sets.folds.iter().enumerate() {
            let name = format!("fold_{}", number + 1);
            let training =
                FoldTraining { name: &name, train: fold.train.clone(), select: Some(&fold.select) };
            folds.push(self.train_fold(&training, fold, watcher)?);
        }
        self.execution().goes_on("calibration")?;
        watcher.stage("calibration", 0);
        let pooled = (0..LEVELS.len())
            .map(|place| LevelScores::pooled(folds.iter().map(|trained| trained.calibration[place].clone())))
            .collect::<Result<Vec<_>>>()?;
        let chosen = LEVELS
            .iter()
            .zip(&pooled)
            .map(|(&level, samples)| calibrate_level(samples, self.recipe.calibrate.level(level).rule))
            .collect::<Result<Vec<_>>>()?;
        let mut of_folds = ReportPart::default();
        for trained in &folds {
            self.report_part(trained, &self.threshold_file(trained, &chosen)?, &mut of_folds)?;
        }
        let held_out = self.sets.folds.iter().any(|fold| !fold.held_out.is_empty());
        let handed =
            if self.recipe.refit.enabled && held_out { self.refit(watcher)? } else { folds.swap_remove(0) };
        let (thresholds, of_handed) = self.hand_over(&handed, &chosen)?;
        let file = self.folder.path().join("thresholds.toml");
        thresholds.write(&file)?;
        let predictions = self.predict(&handed, &thresholds, watcher)?;
        self.execution().goes_on("figures")?;
        watcher.stage("figures", 0);
        let findings =
            Findings { pooled: &pooled, chosen: &chosen, of_folds: &of_folds, of_handed: &of_handed };
        let dashboard = findings.write(self.recipe, &thresholds, self.folder.path())?;
        watcher.stage("report", 0);
        let report = report::build(self.folder.path())?;
        Ok(NoveltyOutcome { dashboard, thresholds: file, predictions, report })
    }

    /// Trains the networks that are handed over: with all classes, and with the images that chose a checkpoint before.
    fn refit(&self, watcher: &mut dyn Watcher) -> Result<FoldNetworks<'_>> {
        let fold = &self.sets.whole;
        let mut train = [fold.train.as_slice(), &fold.select].concat();
        train.sort_unstable();
        self.train_fold(&FoldTraining { name: "final", train, select: None }, fold, watcher)
    }

    /// The thresholds of the networks that are handed over, and how these do on images that chose nothing.
    fn hand_over(
        &self,
        handed: &FoldNetworks<'_>,
        chosen: &[LevelThreshold],
    ) -> Result<(ThresholdFile, ReportPart)> {
        let same_networks = !handed.fold.held_out.is_empty();
        let thresholds = chosen
            .iter()
            .zip(&handed.calibration)
            .map(|(chosen, samples)| match chosen.rule {
                _ if same_networks => Ok(chosen.clone()),
                // No class is novel to these networks: the rule's rate of false alarms is kept.
                rule if rule.needs_novel() => LevelThreshold::at_rate(chosen.false_novel.rate, samples),
                rule => calibrate_level(samples, rule),
            })
            .collect::<Result<Vec<_>>>()?;
        let mut file = self.threshold_file(handed, &thresholds)?;
        let mut verdicts = ReportPart::default();
        self.report_part(handed, &file, &mut verdicts)?;
        for (entry, verdicts) in file.levels.iter_mut().zip(&verdicts.levels) {
            entry.reported = Some(Rates::of(&verdicts.truths, &verdicts.answers));
        }
        Ok((file, verdicts))
    }

    /// Writes `predictions.csv`, if there is something to predict.
    fn predict(
        &self,
        handed: &FoldNetworks<'_>,
        file: &ThresholdFile,
        watcher: &mut dyn Watcher,
    ) -> Result<Option<PathBuf>> {
        let Some((data, name)) = &self.sets.test else { return Ok(None) };
        let parts = [(TEST, data.clone(), name.as_str())];
        for network in &handed.networks {
            network.extract(&parts, self.recipe.predict.batch_size, &self.execution(), watcher)?;
        }
        let judgement = self.judge(handed, file, TEST)?;
        let options = &self.recipe.predict;
        let columns = Columns { scores: options.with_scores, p_values: false, names: options.names };
        let text = predictions_csv(file, &**data, &judgement, columns)?;
        let path = self.folder.path().join("predictions.csv");
        files::write_atomically(&path, |out| std::io::Write::write_all(out, text.as_bytes()))?;
        Ok(Some(path))
    }

    fn execution(&self) -> Execution<'_> {
        Execution { choice: &self.choice, stop: self.stop, folder: self.folder.path() }
    }

    /// Trains the networks of a fold, extracts features and logits of its parts, and scores the calibration images.
    fn train_fold<'f>(
        &self,
        training: &FoldTraining<'_>,
        fold: &'f Fold,
        watcher: &mut dyn Watcher,
    ) -> Result<FoldNetworks<'f>> {
        let execution = self.execution();
        let path = self.folder.path();
        let networks = train(self.recipe, self.sets, self.root, path, training, &execution, watcher)?;
        let needs_fit = LEVELS.iter().any(|&level| self.recipe.calibrate.level(level).score.needs_fit());
        // A score is fitted on the known classes.
        let fit = if needs_fit { self.sets.seen(&training.train) } else { Vec::new() };
        let parts: Vec<_> = [
            ("train", &fit),
            ("calibrate", &fold.calibrate),
            ("report", &fold.report),
            ("novel_calibrate", &fold.novel_calibrate),
            (NOVEL_REPORT, &fold.novel_report),
        ]
        .into_iter()
        .filter(|(_, indices)| !indices.is_empty())
        .map(|(part, indices)| (part, self.sets.part(indices), part))
        .collect();
        for network in &networks {
            network.extract(&parts, self.recipe.predict.batch_size, &execution, watcher)?;
        }
        let part = parts.first().map_or("calibrate", |(part, ..)| part);
        let scorers =
            LEVELS.iter().map(|&level| self.scorer(&networks, level, part)).collect::<Result<Vec<_>>>()?;
        let mut trained = FoldNetworks { fold, networks, scorers, calibration: Vec::new() };
        trained.calibration =
            (0..LEVELS.len()).map(|place| self.calibration(&trained, place)).collect::<Result<Vec<_>>>()?;
        Ok(trained)
    }

    /// The scorer of a level; the cache of `part` holds its head.
    fn scorer(&self, networks: &[Network], level: Level, part: &str) -> Result<Scorer> {
        let head = head_of(networks, level)?;
        let options = self.recipe.calibrate.level(level);
        let training = if options.score.needs_fit() { Some(head.set("train")?) } else { None };
        let last_layer = head.head(part)?;
        Scorer::new(options.score, options.temperature, last_layer, head.classes.clone(), training.as_ref())
    }

    /// Seen samples are those of classes the head knows. Novel ones are outliers for superclasses, and for subclasses the
    /// classes held out: outliers, which training showed as `novel`, would say little about a new breed of dog.
    fn calibration(&self, trained: &FoldNetworks<'_>, place: usize) -> Result<LevelScores> {
        let level = LEVELS[place];
        let score = self.recipe.calibrate.level(level).score;
        let seen = self.samples(trained, place, "calibrate", &trained.fold.calibrate)?;
        let novel = match level {
            Level::Coarse => seen.clone(),
            Level::Fine | Level::Both => {
                self.samples(trained, place, "novel_calibrate", &trained.fold.novel_calibrate)?
            }
        };
        let gathered = Gathered::new((Some(level), score), (&seen.0, &seen.1), (&novel.0, &novel.1));
        Ok(gathered.scores)
    }

    /// The truths of the images of one part with a head's scores of them; nothing of a part without images.
    fn samples(
        &self,
        trained: &FoldNetworks<'_>,
        place: usize,
        part: &str,
        indices: &[u32],
    ) -> Result<(Vec<Truth>, Vec<Scored>)> {
        if indices.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let head = head_of(&trained.networks, LEVELS[place])?;
        let truths = truths(&*self.sets.part(indices), head.classes, Some(&self.sets.taxonomy))
            .expect("the head was trained on this data");
        Ok((truths, trained.scorers[place].samples(&head.set(part)?)?))
    }

    /// The thresholds of some networks: `chosen` in the order of [`LEVELS`].
    fn threshold_file(&self, trained: &FoldNetworks<'_>, chosen: &[LevelThreshold]) -> Result<ThresholdFile> {
        let entries = LEVELS.iter().enumerate().map(|(place, &level)| {
            let head = head_of(&trained.networks, level)?;
            let (scorer, samples) = (&trained.scorers[place], &trained.calibration[place]);
            Ok(LevelEntry::new(
                &head.network.trained,
                &*self.sets.data,
                scorer,
                chosen[place].clone(),
                samples,
            ))
        });
        ThresholdFile::new(self.recipe.calibrate.hierarchy, entries.collect::<Result<_>>()?)
    }

    /// The answers of both heads to the images of one part.
    fn judge(&self, trained: &FoldNetworks<'_>, file: &ThresholdFile, part: &str) -> Result<Judgement> {
        let heads =
            LEVELS.iter().map(|&level| head_of(&trained.networks, level)).collect::<Result<Vec<_>>>()?;
        let last_layers = heads.iter().map(|head| head.head(part)).collect::<Result<Vec<_>>>()?;
        let sets = heads.iter().map(|head| head.set(part)).collect::<Result<Vec<_>>>()?;
        judge_caches(file, &last_layers.iter().zip(&sets).collect::<Vec<_>>(), None)
    }

    /// Judges the networks of a fold on images that chose nothing.
    fn report_part(
        &self,
        trained: &FoldNetworks<'_>,
        file: &ThresholdFile,
        into: &mut ReportPart,
    ) -> Result<()> {
        let fold = trained.fold;
        for (part, indices) in [("report", &fold.report), (NOVEL_REPORT, &fold.novel_report)] {
            if indices.is_empty() {
                continue;
            }
            let judgement = self.judge(trained, file, part)?;
            let data = self.sets.part(indices);
            for (place, &level) in LEVELS.iter().enumerate() {
                let head = head_of(&trained.networks, level)?;
                let verdicts = match (level, part) {
                    (Level::Coarse, NOVEL_REPORT) => &mut into.known_superclass,
                    _ => &mut into.levels[place],
                };
                let known = truths(&*data, head.classes, Some(&self.sets.taxonomy));
                verdicts.truths.extend(known.expect("the head was trained on this data"));
                verdicts.samples.extend_from_slice(&judgement.samples[place]);
                verdicts.answers.extend_from_slice(&judgement.answers[place]);
            }
        }
        Ok(())
    }
}

//! The stages of novelty: thresholds of the networks, chosen on samples of all folds, what they are worth, and predictions.

use std::path::PathBuf;

use super::experiment::{Experiment, Watcher};
use super::findings::Findings;
use super::keys::Recipe;
use super::networks::TrainedFold;
use super::samples::keep_samples;
use crate::data::SharedDataset;
use crate::error::{Error, Result};
use crate::files;
use crate::novelty::{
    Calibration, Columns, Dashboard, HeadSets, Hierarchy, LevelScores, LevelThreshold, ReportSets,
    ThresholdFile, Verdicts, calibrate_level, judge, predictions_csv, report,
};
use crate::ood::Compute;

/// The results of these stages.
#[derive(Debug)]
pub struct Novelty {
    /// The thresholds of the networks that are handed over.
    pub thresholds: ThresholdFile,
    /// Their file.
    pub path: PathBuf,
    /// The predictions, if there was something to predict.
    pub predictions: Option<PathBuf>,
    /// The numbers of thresholds and answers as a table, on two levels.
    pub dashboard: Option<Dashboard>,
}

/// The heads of a fold's networks with their caches and calibration samples, the superclass head first.
struct FoldHeads<'a> {
    trained: &'a TrainedFold<'a>,
    data: Vec<SharedDataset>,
    heads: Vec<HeadSets<'a>>,
    calibrations: Vec<Calibration<'a>>,
}

impl<'a> FoldHeads<'a> {
    fn open(
        compute: &mut dyn Compute,
        recipe: &Recipe,
        trained: &'a TrainedFold<'a>,
    ) -> Result<FoldHeads<'a>> {
        let sets = trained.fold.calibration.as_ref();
        let sets = sets.ok_or_else(|| Error::invalid("there is no image to choose thresholds on"))?;
        let data: Vec<SharedDataset> = trained.fold.sets.iter().map(|set| set.data.clone()).collect();
        let heads = trained.heads(&trained.fold.sets)?;
        let calibration = |head: &HeadSets<'a>| {
            head.calibration(compute, &recipe.level_choice(head.classes.level), &data, sets)
        };
        let calibrations = heads.iter().map(calibration).collect::<Result<Vec<_>>>()?;
        Ok(FoldHeads { trained, data, heads, calibrations })
    }

    /// The thresholds of these networks: `chosen` in the order of the heads.
    fn file(&self, hierarchy: Hierarchy, chosen: &[LevelThreshold]) -> Result<ThresholdFile> {
        let entries = self.calibrations.iter().zip(chosen);
        let entries = entries.map(|(calibration, chosen)| calibration.entry(chosen.clone()));
        ThresholdFile::new(hierarchy, entries.collect())
    }

    /// The verdicts on sets that chose nothing.
    fn report(
        &self,
        compute: &mut dyn Compute,
        file: &ThresholdFile,
        sets: &ReportSets,
    ) -> Result<Vec<Verdicts>> {
        report(compute, file, &self.heads, &self.data, sets)
    }

    /// The thresholds of networks that are handed over, made from those `chosen` on all folds.
    fn thresholds(&self, chosen: &[LevelThreshold]) -> Result<Vec<LevelThreshold>> {
        let own = |(chosen, calibration): (&LevelThreshold, &Calibration<'_>)| match chosen.rule {
            _ if self.trained.fold.has_unseen => Ok(chosen.clone()),
            // No class is novel to these networks: the rule's rate of false alarms is kept.
            rule if rule.needs_novel() => {
                LevelThreshold::at_rate(chosen.false_novel.rate, &calibration.gathered.scores)
            }
            rule => calibrate_level(&calibration.gathered.scores, rule),
        };
        chosen.iter().zip(&self.calibrations).map(own).collect()
    }
}

impl Experiment<'_> {
    /// Chooses thresholds on the samples of all folds, trains the networks that are handed over where these are others, and
    /// predicts; `None` where no images were held back from training.
    pub(super) fn calibrate(
        &self,
        folds: &[TrainedFold<'_>],
        watcher: &mut dyn Watcher,
    ) -> Result<Option<Novelty>> {
        if folds[0].fold.calibration.is_none() {
            return Ok(None);
        }
        self.goes_on("calibration")?;
        watcher.stage("calibration", 0);
        let open = |fold| self.on_rows(|compute| FoldHeads::open(compute, self.recipe, fold));
        let folds = folds.iter().map(open).collect::<Result<Vec<_>>>()?;
        let pooled = |level: usize| {
            LevelScores::pooled(folds.iter().map(|fold| fold.calibrations[level].gathered.scores.clone()))
        };
        let pooled = (0..folds[0].heads.len()).map(pooled).collect::<Result<Vec<_>>>()?;
        let choose =
            |samples: &LevelScores| calibrate_level(samples, self.recipe.level_choice(samples.level).rule);
        let chosen = pooled.iter().map(choose).collect::<Result<Vec<_>>>()?;
        let refit = self.sets.refit.as_ref().map(|fold| self.train_fold(fold, watcher)).transpose()?;
        let refit = refit.as_ref().map(open).transpose()?;
        let handed = refit.as_ref().unwrap_or(&folds[0]);
        let hierarchy = self.recipe.hierarchy();
        let mut thresholds = handed.file(hierarchy, &handed.thresholds(&chosen)?)?;
        let of_handed =
            self.on_rows(|compute| handed.report(compute, &thresholds, &handed.trained.fold.report))?;
        for (entry, verdicts) in thresholds.levels.iter_mut().zip(&of_handed) {
            entry.reported = Some(verdicts.rates());
        }
        let path = self.folder.path().join("thresholds.toml");
        thresholds.write(&path)?;
        let predictions = self.predict(handed.trained, &thresholds, watcher)?;
        let Recipe::TwoLevels(keys) = self.recipe else {
            return Ok(Some(Novelty { thresholds, path, predictions, dashboard: None }));
        };
        self.goes_on("figures")?;
        watcher.stage("figures", 0);
        let (of_folds, held_out) = self.on_rows(|compute| {
            let (mut of_folds, mut held_out) = (vec![Verdicts::default(); pooled.len()], Verdicts::default());
            for fold in &folds {
                let (file, report) = (fold.file(hierarchy, &chosen)?, &fold.trained.fold.report);
                let own = fold.report(compute, &file, report)?;
                of_folds.iter_mut().zip(own).for_each(|(all, own)| all.extend(own));
                // An unknown dog is a dog, but no rule promises anything of it.
                let as_seen = ReportSets { seen: report.novel.other, ..ReportSets::default() };
                held_out.extend(fold.report(compute, &file, &as_seen)?.remove(0));
            }
            let (first, file) = (&folds[0], folds[0].file(hierarchy, &chosen)?);
            let of_fold = (first.trained.fold, first.heads.as_slice());
            keep_samples(compute, self.folder.path(), of_fold, &file, self.recipe.seed())?;
            Ok((of_folds, held_out))
        })?;
        let findings = Findings { pooled: &pooled, chosen: &chosen, of_folds, of_handed, held_out };
        let dashboard = Some(findings.write(keys, &thresholds, self.folder.path())?);
        Ok(Some(Novelty { thresholds, path, predictions, dashboard }))
    }

    /// Writes `predictions.csv`, if there is something to predict.
    fn predict(
        &self,
        handed: &TrainedFold<'_>,
        file: &ThresholdFile,
        watcher: &mut dyn Watcher,
    ) -> Result<Option<PathBuf>> {
        let (Some(test), Recipe::TwoLevels(keys)) = (&self.sets.test, self.recipe) else { return Ok(None) };
        for network in &handed.networks {
            self.extract(network, [test], watcher)?;
        }
        let heads = handed.heads([test])?;
        let judgement = self.on_rows(|compute| judge(compute, file, &heads, 0, None))?;
        let columns =
            Columns { scores: keys.predict.with_scores, p_values: false, names: keys.predict.names };
        let text = predictions_csv(file, &*test.data, &judgement, columns)?;
        let path = self.folder.path().join("predictions.csv");
        files::write(&path, text)?;
        Ok(Some(path))
    }
}

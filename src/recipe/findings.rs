//! The results of an experiment on two levels: the dashboard, TensorBoard's series, and the numbers behind the figures.

use std::path::Path;

use serde_json::json;

use super::keys::{Approach, TwoLevels};
use crate::data::Level;
use crate::error::Result;
use crate::novelty::{
    CalibrationRecord, Dashboard, LevelScores, LevelThreshold, ThresholdFile, Verdicts, candidates,
    level_name,
};
use crate::report::events::EventFile;

/// Bootstrap replicates behind intervals of AUROC.
const REPLICATES: u32 = 1000;

/// Everything that was found, by level: the superclass first.
pub(super) struct Findings<'a> {
    /// Calibration samples of all folds.
    pub pooled: &'a [LevelScores],
    /// The thresholds chosen on them.
    pub chosen: &'a [LevelThreshold],
    /// How the networks of the folds did on images that chose nothing.
    pub of_folds: Vec<Verdicts>,
    /// How the networks that are handed over did.
    pub of_handed: Vec<Verdicts>,
    /// Superclass verdicts of the folds on images of held-out subclasses.
    pub held_out: Verdicts,
}

impl Findings<'_> {
    /// Writes `dashboard.*`, the calibration scores and the events; the dashboard.
    pub(super) fn write(&self, recipe: &TwoLevels, file: &ThresholdFile, folder: &Path) -> Result<Dashboard> {
        let mut dashboard = Dashboard::default();
        settings(&mut dashboard, recipe, file);
        let mut add = |split: &str, level: Option<Level>, verdicts: &Verdicts| -> Result<()> {
            let metrics = verdicts.metrics(REPLICATES, recipe.seed)?;
            dashboard.level(split, level_name(level), &metrics);
            dashboard.notebook(split, level_name(level), &metrics);
            Ok(())
        };
        for (samples, verdicts) in self.pooled.iter().zip(self.of_folds.iter().zip(&self.of_handed)) {
            add("report", samples.level, verdicts.0)?;
            add("final", samples.level, verdicts.1)?;
        }
        if !self.held_out.is_empty() {
            add("held_out_subclasses", Some(Level::Coarse), &self.held_out)?;
        }
        // A run that is asked for again finds the same, and need not say it twice.
        if Dashboard::read(&folder.join("dashboard.json")).is_ok_and(|there| there == dashboard) {
            return Ok(dashboard);
        }
        self.log(&dashboard, &mut EventFile::create(folder, None)?)?;
        let record = |(samples, chosen): (&LevelScores, &LevelThreshold)| CalibrationRecord {
            samples: samples.clone(),
            rule: chosen.rule,
        };
        let records: Vec<CalibrationRecord> = self.pooled.iter().zip(self.chosen).map(record).collect();
        CalibrationRecord::write(&records, &folder.join("novelty"))?;
        dashboard.write(folder)?;
        Ok(dashboard)
    }

    /// Every number of the dashboard, and of each level every candidate threshold and histograms of what it was calibrated on.
    fn log(&self, dashboard: &Dashboard, events: &mut EventFile) -> Result<()> {
        let narrow = |scores: Vec<f64>| scores.into_iter().map(|score| score as f32).collect::<Vec<f32>>();
        for (samples, chosen) in self.pooled.iter().zip(self.chosen) {
            let (level, score) = (level_name(samples.level), samples.score);
            for (group, scores) in [("seen", samples.seen_scores()), ("novel", samples.novel_scores())] {
                events.histogram(0, &format!("calibration/{level}/{group}_{score}"), &narrow(scores))?;
            }
            for candidate in candidates(samples)? {
                events.scalar(0, &format!("tau/{level}/{}", candidate.rule), candidate.tau)?;
            }
            events.scalar(0, &format!("tau/{level}/chosen"), chosen.tau)?;
        }
        for row in dashboard.rows.iter().filter(|row| row.split != "config") {
            if let Some(value) = row.value.as_f64() {
                events.scalar(0, &format!("{}/{}/{}", row.split, row.head, row.metric), value)?;
            }
        }
        events.flush()
    }
}

/// The settings that the notebook's table names of a run, and the others that decide it.
fn settings(dashboard: &mut Dashboard, recipe: &TwoLevels, file: &ThresholdFile) {
    let approach = match recipe.approach {
        Approach::TwoHeads => "two_heads",
        Approach::TwoModels => "two_models",
    };
    dashboard.setting("approach", "one network with two heads, or a network for each level", approach);
    dashboard.setting("backbone", "feature extractor", recipe.train.arch.to_string());
    dashboard.setting("fine_tune", "what of the backbone is trained", json!(recipe.train.fine_tune));
    dashboard.setting("augment", "augmentation while training", recipe.train.augment.to_string());
    let outliers = recipe.outliers.as_ref().map_or(0, |outliers| outliers.count.number());
    dashboard.setting("outliers", "images of other things shown as novel", outliers);
    dashboard.setting("hold_out", "subclasses held out to choose thresholds", json!(recipe.splits.hold_out));
    dashboard.setting("refit", "whether the final networks know the held-out classes", recipe.refit.enabled);
    dashboard.setting("hierarchy", "how two levels are brought together", file.hierarchy.to_string());
    file.levels.iter().for_each(|entry| dashboard.threshold(entry));
}

//! Code that `run` and `demo` share: showing an experiment's progress and its result.

use crate::ood::table::Evaluation;
use crate::recipe::novelty::NoveltyOutcome;
use crate::recipe::{Outcome, Watcher};
use crate::train::Observer;

use super::output::{in_json, tell};
use super::progress::{Progress, TrainProgress};

/// Shows the stages of an experiment on standard error.
pub struct Shown {
    quiet: bool,
    progress: Option<Progress>,
    training: TrainProgress,
}

impl Shown {
    /// Shows nothing when `quiet`.
    pub fn new(quiet: bool) -> Shown {
        Shown { quiet, progress: None, training: TrainProgress::new("training", quiet) }
    }
}

impl Watcher for Shown {
    fn stage(&mut self, name: &str, units: u64) {
        self.training.finish();
        self.progress = None;
        if units > 0 {
            self.progress = Some(Progress::new(name, units, "images", self.quiet));
        } else if !self.quiet {
            tell(&format!("{} {name}", console::style("▸").for_stderr().cyan()));
        }
    }

    fn advance(&mut self, units: u64) {
        if let Some(progress) = &mut self.progress {
            progress.add(units);
            if progress.is_done() {
                progress.finish();
            }
        }
    }

    fn note(&mut self, text: &str) {
        if !self.quiet {
            tell(&format!("{} {text}", console::style("note:").for_stderr().yellow()));
        }
    }

    fn training(&mut self) -> &mut dyn Observer {
        &mut self.training
    }
}

/// The tables at the end of an experiment.
pub fn summary(outcome: &Outcome) -> String {
    let mut text = String::new();
    if let Some(evaluation) = &outcome.evaluation {
        text += &evaluation.summary();
    }
    for entry in outcome.thresholds.iter().flat_map(|file| &file.levels) {
        text += &format!("\n{}\n", entry.in_words());
    }
    if let Some(collapse) = &outcome.collapse {
        text += "\n";
        text += &collapse.summary();
    }
    text + &format!("\nreport: {}\n", outcome.report.display())
}

/// The same as JSON.
pub fn json(outcome: &Outcome) -> serde_json::Value {
    serde_json::json!({
        "training": outcome.training.as_ref().map(|t| serde_json::json!({
            "steps": t.steps, "epochs": t.epochs, "seconds": t.seconds, "train": t.train, "validation": t.validation,
        })),
        "ood": outcome.evaluation.as_ref().map(|e: &Evaluation| serde_json::json!(e)),
        "thresholds": outcome.thresholds.as_ref().map(|file| file.levels.iter().map(|entry| serde_json::json!({
            "level": entry.name(), "score": entry.threshold.score, "rule": entry.threshold.rule, "tau": entry.threshold.tau,
            "expected": entry.expected().0, "measured_on": entry.expected().1,
        })).collect::<Vec<_>>()),
        "collapse": outcome.collapse.as_ref().map(|c| serde_json::json!(c)),
        "report": in_json(&outcome.report),
    })
}

/// The table and the files at the end of an experiment on two levels.
pub fn novelty_summary(outcome: &NoveltyOutcome) -> String {
    let mut text = outcome.dashboard.table();
    text += &format!("\nthresholds: {}\n", outcome.thresholds.display());
    if let Some(predictions) = &outcome.predictions {
        text += &format!("predictions: {}\n", predictions.display());
    }
    text + &format!("report: {}\n", outcome.report.display())
}

/// The same as JSON.
pub fn novelty_json(outcome: &NoveltyOutcome) -> serde_json::Value {
    serde_json::json!({
        "dashboard": outcome.dashboard.json(), "thresholds": in_json(&outcome.thresholds),
        "predictions": outcome.predictions.as_deref().map(in_json), "report": in_json(&outcome.report),
    })
}

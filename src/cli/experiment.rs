//! Code that `run` and `demo` share: showing an experiment's progress and its result.

use serde_json::{Value, json};

use crate::error::Error;
use crate::novelty::LevelEntry;
use crate::recipe::{Novelty, Outcome, Watcher};
use crate::train::{Observer, Summary};

use super::output::{in_json, tell, width};
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

/// The error of an experiment; of one that was stopped with the command that goes on.
pub fn goes_on(error: Error, command: &str) -> Error {
    match error {
        Error::Interrupted(kept) => Error::Interrupted(format!("{kept}; `{command}` goes on")),
        other => other,
    }
}

/// The tables and files at the end of an experiment.
pub fn summary(outcome: &Outcome) -> String {
    let mut text = String::new();
    if let Some(evaluation) = &outcome.evaluation {
        text += &evaluation.summary_within(width());
    }
    if let Some(Novelty { dashboard: Some(dashboard), path, predictions, .. }) = &outcome.novelty {
        text += &format!("{}\nthresholds: {}\n", dashboard.table_within(width()), path.display());
        if let Some(predictions) = predictions {
            text += &format!("predictions: {}\n", predictions.display());
        }
        return text + &format!("report: {}\n", outcome.report.display());
    }
    for entry in outcome.novelty.iter().flat_map(|novelty| &novelty.thresholds.levels) {
        text += &format!("\n{}\n", entry.in_words());
    }
    if let Some(collapse) = &outcome.collapse {
        text += &format!("\n{}", collapse.summary_within(width()));
    }
    text + &format!("\nreport: {}\n", outcome.report.display())
}

/// The same as JSON.
pub fn json(outcome: &Outcome) -> Value {
    let report = in_json(&outcome.report);
    if let Some(Novelty { dashboard: Some(dashboard), path, predictions, .. }) = &outcome.novelty {
        return json!({
            "dashboard": dashboard.json(), "thresholds": in_json(path),
            "predictions": predictions.as_deref().map(in_json), "report": report,
        });
    }
    let training = |t: &Summary| {
        json!({
            "steps": t.steps, "epochs": t.epochs, "seconds": t.seconds, "train": t.train, "validation": t.validation,
        })
    };
    let level = |entry: &LevelEntry| {
        json!({
            "level": entry.name(), "score": entry.threshold.score, "rule": entry.threshold.rule, "tau": entry.threshold.tau,
            "expected": entry.expected().0, "measured_on": entry.expected().1,
        })
    };
    let levels = |novelty: &Novelty| novelty.thresholds.levels.iter().map(level).collect::<Vec<_>>();
    json!({
        "training": outcome.training.as_ref().map(training), "eval": outcome.labelled.first().map(|results| results.metrics),
        "ood": outcome.evaluation,
        "thresholds": outcome.novelty.as_ref().map(levels), "collapse": outcome.collapse, "report": report,
    })
}

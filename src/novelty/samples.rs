//! The samples that a threshold is calibrated on: scores and predicted classes of one head, of seen and of novel samples.

use crate::data::Level;
use crate::error::{Error, Result};

use super::score::Score;

/// A sample as a head sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Confidence that the sample belongs to a class the head knows; larger = more in-distribution.
    pub score: f64,
    /// The class of the largest logit, by its index in the data set's files; `None` where that is the head's own logit
    /// for novel samples, so that the sample is flagged whatever its score.
    pub predicted: Option<i64>,
}

impl Scored {
    /// The score, lower than any threshold where the head itself calls the sample novel: the order in which samples
    /// are flagged as a threshold rises.
    pub fn flagging_order(&self) -> f64 {
        if self.predicted.is_some() { self.score } else { f64::NEG_INFINITY }
    }
}

/// Calibration samples of one head. Those of several networks (folds) may be pooled: predicted classes are numbered as
/// in the data set's files, not by logit.
#[derive(Debug, Clone, PartialEq)]
pub struct LevelScores {
    /// Which of two levels; `None` where the data has one.
    pub level: Option<Level>,
    /// Which score.
    pub score: Score,
    /// Samples of classes the head knows; those of a class named `novel` are not among them.
    pub seen: Vec<Scored>,
    /// Samples of classes the head does not know; may be empty, then some rules cannot be used.
    pub novel: Vec<Scored>,
}

/// The level's name on the command line and in files; `class` where there is only one.
pub fn level_name(level: Option<Level>) -> &'static str {
    match level {
        Some(Level::Coarse) => "superclass",
        Some(Level::Fine | Level::Both) => "subclass",
        None => "class",
    }
}

impl LevelScores {
    /// The samples of several networks together, for instance those of every fold on its held-out classes.
    ///
    /// # Errors
    /// Nothing to pool, or parts of different levels or scores.
    pub fn pooled(parts: impl IntoIterator<Item = LevelScores>) -> Result<LevelScores> {
        let mut parts = parts.into_iter();
        let Some(mut whole) = parts.next() else {
            return Err(Error::invalid(
                "there are no calibration scores to pool; give at least one network's",
            ));
        };
        for part in parts {
            if (part.level, part.score) != (whole.level, whole.score) {
                return Err(Error::invalid(format!(
                    "scores `{}` of the {} level and `{}` of the {} level cannot be pooled; score every network alike",
                    whole.score,
                    level_name(whole.level),
                    part.score,
                    level_name(part.level)
                )));
            }
            whole.seen.extend(part.seen);
            whole.novel.extend(part.novel);
        }
        Ok(whole)
    }

    /// Scores of the seen samples.
    pub fn seen_scores(&self) -> Vec<f64> {
        self.seen.iter().map(|sample| sample.score).collect()
    }

    /// Scores of the novel samples.
    pub fn novel_scores(&self) -> Vec<f64> {
        self.novel.iter().map(|sample| sample.score).collect()
    }

    /// The seen samples in the order in which a rising threshold flags them, ascending: what p-values compare with.
    pub fn calibration_order(&self) -> Vec<f64> {
        flagging_order(&self.seen)
    }

    /// That there is something to calibrate on, and every score a number.
    pub(super) fn check(&self) -> Result<()> {
        if self.seen.is_empty() {
            return Err(Error::invalid(format!(
                "the calibration split holds no sample of a class that the {} head knows; give more data to calibrate on",
                level_name(self.level)
            )));
        }
        for (side, samples) in [("seen", &self.seen), ("novel", &self.novel)] {
            if let Some(row) = samples.iter().position(|sample| !sample.score.is_finite()) {
                return Err(Error::invalid(format!(
                    "the score `{}` of {side} calibration sample {row} is {}; a threshold needs finite scores",
                    self.score, samples[row].score
                )));
            }
        }
        Ok(())
    }
}

/// The samples' places in the order of flagging, ascending.
pub(super) fn flagging_order(samples: &[Scored]) -> Vec<f64> {
    let places: Vec<f64> = samples.iter().map(Scored::flagging_order).collect();
    super::summary::sorted(&places)
}

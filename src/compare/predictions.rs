//! What a network says about its labelled test set: answers, confidences, and losses of every sample.

use std::path::{Path, PathBuf};

use super::statistics::Calibration;
use crate::error::Result;
use crate::eval::{self, Sample};
use crate::features::FeatureSet;

/// Answers and losses of a network; a sample of unknown label has no losses.
pub(super) struct Predictions {
    /// The cache.
    pub path: PathBuf,
    /// The data set, as the cache's `meta.json` names it.
    pub data: Option<String>,
    /// Labels, -1 where unknown.
    pub labels: Vec<i64>,
    /// Of each sample.
    pub answers: Vec<Answer>,
}

/// What the network says about one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Answer {
    /// The class of the largest logit.
    pub class: u32,
    /// Its softmax probability.
    pub confidence: f64,
    /// The negative log-likelihood of the label, in nats; 0 where the label is unknown.
    pub nll: f64,
    /// Σ over classes of (p − y)², for the label's one-hot y (Brier, 1950); 0 where the label is unknown.
    pub brier: f64,
}

impl Predictions {
    /// Reads a cache; `None` where it holds no labels, or nothing that gives logits.
    ///
    /// # Errors
    /// The cache is damaged, or a label is no class of the network; the message names the file.
    pub fn read(path: &Path) -> Result<Option<Predictions>> {
        let set = FeatureSet::open(path)?;
        let head = set.own_head()?;
        let classes = set.classes().or_else(|| head.as_ref().map(|head| head.classes()));
        let (Some(classes), Some(labels)) = (classes, set.labels()) else { return Ok(None) };
        set.check_labels(classes)?;
        if set.logits().is_none() && head.as_ref().is_some_and(|head| head.dimension() != set.dimension()) {
            set.check_shape(head.map_or(0, |head| head.dimension()), classes)?;
            return Ok(None);
        }
        let mut answers = Vec::with_capacity(set.len());
        let block = (1 << 20) / classes.max(1) + 1;
        let mut logits = Vec::new();
        for start in (0..set.len()).step_by(block) {
            let range = start..(start + block).min(set.len());
            match (set.logits(), &head) {
                (Some(stored), _) => stored.read_f64(range.clone(), &mut logits),
                (None, Some(head)) => set.read_logits(head, range.clone(), &mut logits),
                (None, None) => return Ok(None),
            }
            let rows = logits.chunks_exact_mut(classes).zip(&labels[range]);
            answers.extend(rows.map(|(row, label)| Answer::of(row, *label)));
        }
        let labels = labels.to_vec();
        Ok(Some(Predictions { path: path.to_path_buf(), data: set.meta().data.clone(), labels, answers }))
    }

    /// The answers to samples of known label, with whether they are right.
    pub fn known(&self) -> impl Iterator<Item = (&Answer, bool)> {
        let known = self.answers.iter().zip(&self.labels).filter(|(_, label)| **label >= 0);
        known.map(|(answer, label)| (answer, i64::from(answer.class) == *label))
    }

    /// A number of each sample of known label.
    pub fn values(&self, value: fn(&Answer) -> f64) -> Vec<f64> {
        self.known().map(|(answer, _)| value(answer)).collect()
    }

    /// Right answers, of how many.
    pub fn right(&self) -> (u64, u64) {
        self.known().fold((0, 0), |(right, of), (_, is_right)| (right + u64::from(is_right), of + 1))
    }

    /// What the calibration error needs.
    pub fn calibration(&self) -> Calibration {
        Calibration::new(self.known().map(|(answer, is_right)| (answer.confidence, is_right)))
    }
}

impl Answer {
    /// The answer of one row of logits, which become probabilities.
    fn of(logits: &mut [f64], label: i64) -> Answer {
        match u32::try_from(label).ok().filter(|label| (*label as usize) < logits.len()) {
            Some(label) => {
                let Sample { predicted, confidence, nll, brier, .. } = Sample::of(0, label, logits);
                Answer { class: predicted, confidence, nll, brier }
            }
            None => {
                let eval::Answer { predicted, confidence } = eval::Answer::of(logits);
                Answer { class: predicted, confidence, nll: 0.0, brier: 0.0 }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_those_of_the_definitions() {
        // Probabilities 0.5, 0.25, 0.25 and label 1: NLL ln 4, Brier 0.25 + 0.5625 + 0.0625.
        let answer = Answer::of(&mut [2f64.ln(), 0.0, 0.0], 1);
        assert_eq!(answer.class, 0);
        assert!((answer.confidence - 0.5).abs() < 1e-15);
        assert!((answer.nll - 4f64.ln()).abs() < 1e-15 && (answer.brier - 0.875).abs() < 1e-15);
        let large = Answer::of(&mut [800.0, -800.0], 1);
        assert!((large.nll - 1600.0).abs() < 1e-9 && (large.brier - 2.0).abs() < 1e-12, "nothing overflows");
        assert_eq!(Answer::of(&mut [1.0, 2.0], -1).nll, 0.0);
    }
}

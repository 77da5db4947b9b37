//! Running metrics: losses and hits summed over some steps, or over an evaluation, and their means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::objective::{Objective, Term};
use super::queue::StepResult;
use crate::checkpoint::HeadClasses;
use crate::data::Level;
use crate::features::Evaluation;

/// Running metrics: sums over some steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RunningMetrics {
    /// Images seen.
    pub(super) images: u64,
    #[serde(default)]
    terms: Vec<TermMetrics>,
}

/// Running metrics of one term of the loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TermMetrics {
    /// Sum of the samples' losses, each times its weight.
    pub(super) loss: f64,
    /// Sum of the weights.
    pub(super) weight: f64,
    /// Samples that have a class.
    pub(super) labelled: u64,
    /// Samples whose prediction is their class.
    pub(super) correct: u64,
}

/// Numbers for a line of the log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measured {
    pub(super) loss: f64,
    pub(super) accuracy: f64,
    /// Each term or head by itself, where there are several.
    pub(super) further: BTreeMap<String, f64>,
}

impl RunningMetrics {
    pub(super) fn add(&mut self, result: &StepResult) {
        self.images += result.images as u64;
        self.terms.resize(result.terms.len(), TermMetrics::default());
        for (sum, term) in self.terms.iter_mut().zip(&result.terms) {
            sum.loss += term.loss;
            sum.weight += term.weight;
            sum.labelled += term.labelled;
            sum.correct += term.correct;
        }
    }

    /// The loss that was minimised, the mean accuracy of the heads, and of several terms each mean. Every sample has
    /// the same weight, whatever the size of its batch.
    pub(super) fn measure(&self, objective: &Objective, heads: &[HeadClasses]) -> Measured {
        let terms = objective.terms(heads.len());
        let (mut loss, mut accuracy, mut further) = (0.0, 0.0, BTreeMap::new());
        for (&term, sum) in terms.iter().zip(&self.terms) {
            let mean = if sum.weight > 0.0 { sum.loss / sum.weight } else { 0.0 };
            loss += objective.coefficient(term) * mean;
            if let Term::CrossEntropy(head) = term {
                let share = sum.correct as f64 / sum.labelled.max(1) as f64;
                accuracy += share;
                if heads.len() > 1 {
                    further.insert(format!("{}accuracy", prefix(&heads[head], heads.len())), share);
                }
            }
            if terms.len() > 1 {
                further.insert(name(term, heads), mean);
            }
        }
        Measured { loss, accuracy: accuracy / heads.len() as f64, further }
    }
}

impl Measured {
    /// The results of an evaluation, one of each head: the sum of their cross-entropies, the mean of their accuracies, and of
    /// several heads each. A head that has the class of no sample leaves nothing to say.
    pub(super) fn of(evaluations: &[Evaluation], heads: &[HeadClasses]) -> Option<Measured> {
        let (mut loss, mut accuracy, mut further) = (0.0, 0.0, BTreeMap::new());
        for (index, (evaluation, head)) in evaluations.iter().zip(heads).enumerate() {
            let (own_loss, own_accuracy) = (evaluation.loss()?, evaluation.accuracy()?);
            loss += own_loss;
            accuracy += own_accuracy;
            if heads.len() > 1 {
                further.insert(format!("{}accuracy", prefix(head, heads.len())), own_accuracy);
                further.insert(name(Term::CrossEntropy(index), heads), own_loss);
            }
        }
        Some(Measured { loss, accuracy: accuracy / heads.len() as f64, further })
    }
}

/// The name of a term in the log.
fn name(term: Term, heads: &[HeadClasses]) -> String {
    let of = |head: usize| prefix(&heads[head], heads.len());
    match term {
        Term::CrossEntropy(head) if heads.len() > 1 => format!("{}loss", of(head)),
        Term::CrossEntropy(_) => "cross_entropy".into(),
        Term::Outliers(head) => format!("{}outlier_loss", of(head)),
        Term::Coupling => "kl_loss".into(),
        Term::Consistency => "teacher_loss".into(),
    }
}

/// The prefix of the names of one head among several.
fn prefix(head: &HeadClasses, heads: usize) -> &'static str {
    match head.level {
        _ if heads == 1 => "",
        Some(Level::Coarse) => "superclass_",
        _ => "subclass_",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(images: usize, mean: f64, correct: u64) -> StepResult {
        let loss = mean * images as f64;
        let term = TermMetrics { loss, weight: images as f64, labelled: images as u64, correct };
        StepResult { images, loss, terms: vec![term] }
    }

    // Notebook A, trap A23: the mean of batch means gave the short last batch too much to say.
    #[test]
    fn a_short_batch_counts_by_its_samples() {
        let mut metrics = RunningMetrics::default();
        metrics.add(&result(64, 1.0, 32));
        metrics.add(&result(10, 2.0, 10));
        let heads = [HeadClasses::single(vec!["a".into(), "b".into()])];
        let measured = metrics.measure(&Objective::cross_entropy(0.0), &heads);
        assert!((measured.loss - 84.0 / 74.0).abs() < 1e-15);
        assert!((measured.accuracy - 42.0 / 74.0).abs() < 1e-15);
        assert!(measured.further.is_empty());
    }

    #[test]
    fn two_heads_are_judged_by_the_mean_of_their_accuracies() {
        let head =
            |level| HeadClasses { level: Some(level), ..HeadClasses::single(vec!["a".into(), "b".into()]) };
        let heads = [head(Level::Coarse), head(Level::Fine)];
        let found = |correct, loss_sum| Evaluation { samples: 10, correct, loss_sum };
        let measured = Measured::of(&[found(9, 2.0), found(5, 10.0)], &heads).unwrap();
        assert!((measured.accuracy - 0.7).abs() < 1e-15 && (measured.loss - 1.2).abs() < 1e-15);
        let names: Vec<&str> = measured.further.keys().map(String::as_str).collect();
        assert_eq!(names, ["subclass_accuracy", "subclass_loss", "superclass_accuracy", "superclass_loss"]);
        assert_eq!(Measured::of(&[found(9, 2.0), Evaluation::default()], &heads), None);
    }
}

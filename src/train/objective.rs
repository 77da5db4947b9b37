//! The loss of a training: cross-entropies of the heads, and the terms that couple heads, follow a teacher, or teach
//! outliers. The terms are part of a step's plan; the weight of each sample in them comes with every batch.

use super::ClassWeights;
use super::targets::Targets;
use crate::ops::{Direction, Side};

/// The terms of a training's loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// Label smoothing of the cross-entropies.
    pub smoothing: f64,
    /// Weight of each class of each head in its cross-entropy; `None`: all the same.
    pub class_weights: Option<Vec<Vec<f64>>>,
    /// The loss of outliers that are no class.
    pub exposure: Option<Exposure>,
    /// The divergence between the two heads.
    pub coupling: Option<Coupling>,
    /// The divergence from a teacher.
    pub consistency: Option<Consistency>,
}

/// The loss of outliers that are no class, for every head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Exposure {
    /// `weight` times the mean over outliers of the cross-entropy to a uniform target.
    Uniform {
        /// Weight beside the cross-entropies.
        weight: f64,
    },
    /// `weight` times the sum of two means of squared hinges: over samples of the classes, whose energy should stay below
    /// `inside`, and over outliers, whose energy should exceed `outside`.
    Energy {
        /// Weight beside the cross-entropies.
        weight: f64,
        /// The first margin.
        inside: f64,
        /// The second margin.
        outside: f64,
    },
}

/// The divergence between the superclass head and the subclass head summed up to superclasses.
#[derive(Debug, Clone, PartialEq)]
pub struct Coupling {
    /// Weight beside the cross-entropies.
    pub weight: f64,
    /// The superclass head's logit that each logit of the subclass head belongs to.
    pub groups: Vec<i32>,
    /// From which distribution to which, the superclass head's being the first.
    pub direction: Direction,
    /// The side that learns nothing from it.
    pub detached: Option<Side>,
    /// The temperature that divides both sides' logits.
    pub temperature: f64,
}

/// KL(teacher, subclass head summed up to superclasses) over the superclasses that both know.
#[derive(Debug, Clone, PartialEq)]
pub struct Consistency {
    /// Weight beside the cross-entropies.
    pub weight: f64,
    /// Which of the teacher's heads is followed.
    pub head: usize,
    /// Superclasses that both know.
    pub count: usize,
    /// Which of them each logit of the subclass head belongs to, or -1.
    pub groups: Vec<i32>,
    /// Which of them each logit of the teacher's head is, or -1.
    pub teacher_groups: Vec<i32>,
    /// The temperature that divides both sides' logits.
    pub temperature: f64,
}

/// One term of the loss; numbers are those of heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// Cross-entropy of a head.
    CrossEntropy(usize),
    /// The loss of outliers in a head.
    Outliers(usize),
    /// The divergence between the heads.
    Coupling,
    /// The divergence from the teacher.
    Consistency,
}

/// The targets of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BatchTargets {
    /// For each head, the logit of each sample's class; -1 where it has none.
    pub labels: Vec<Vec<i32>>,
    /// Which samples are outliers that are no class; empty if none are.
    pub outliers: Vec<bool>,
    /// Weights of the samples in each term.
    pub terms: Vec<TermWeights>,
}

/// Weights of a batch's samples in a term.
#[derive(Debug, Clone, PartialEq)]
pub struct TermWeights {
    /// Factor on each sample's loss and gradient, which the device makes for a mean over the batch; `None`: 1.
    pub factors: Option<Vec<f64>>,
    /// Factor from the sum of the losses times `factors` to the weighted sum of the losses.
    pub bare: f64,
    /// The sum of the weights in that weighted sum.
    pub total: f64,
    /// Samples that have a class in the term.
    pub labelled: u64,
}

impl BatchTargets {
    /// A batch for one head and the mean cross-entropy.
    pub fn plain(labels: &[i32]) -> BatchTargets {
        Objective::cross_entropy(0.0).batch(vec![labels.to_vec()], Vec::new())
    }
}

impl Objective {
    /// The mean cross-entropy of every head, and nothing else.
    pub fn cross_entropy(smoothing: f64) -> Objective {
        Objective { smoothing, class_weights: None, exposure: None, coupling: None, consistency: None }
    }

    /// The terms, in the order of a step's columns.
    pub fn terms(&self, heads: usize) -> Vec<Term> {
        let mut terms: Vec<Term> = (0..heads).map(Term::CrossEntropy).collect();
        if self.exposure.is_some() {
            terms.extend((0..heads).map(Term::Outliers));
        }
        terms.extend(self.coupling.as_ref().map(|_| Term::Coupling));
        terms.extend(self.consistency.as_ref().map(|_| Term::Consistency));
        terms
    }

    /// Weight of a term in the loss.
    pub fn coefficient(&self, term: Term) -> f64 {
        match term {
            Term::CrossEntropy(_) => 1.0,
            Term::Outliers(_) => match self.exposure {
                Some(Exposure::Uniform { weight } | Exposure::Energy { weight, .. }) => weight,
                None => 0.0,
            },
            Term::Coupling => self.coupling.as_ref().map_or(0.0, |coupling| coupling.weight),
            Term::Consistency => self.consistency.as_ref().map_or(0.0, |consistency| consistency.weight),
        }
    }

    /// Whether samples weigh differently in the cross-entropies.
    pub fn weighs_samples(&self) -> bool {
        self.class_weights.is_some() || self.exposure.is_some()
    }

    /// The targets of a batch: `labels` of each head, and which samples are outliers that are no class (empty: none).
    pub fn batch(&self, labels: Vec<Vec<i32>>, outliers: Vec<bool>) -> BatchTargets {
        let terms = self.terms(labels.len()).into_iter();
        let terms = terms.map(|term| self.weigh(term, &labels, &outliers)).collect();
        BatchTargets { labels, outliers, terms }
    }

    fn weigh(&self, term: Term, labels: &[Vec<i32>], outliers: &[bool]) -> TermWeights {
        let batch = labels[0].len();
        let is_outlier = |sample: usize| outliers.get(sample).is_some_and(|&outlier| outlier);
        let share = |yes: bool| f64::from(u8::from(yes));
        let coefficient = self.coefficient(term);
        let among = |member: &dyn Fn(usize) -> bool| {
            TermWeights::mean((0..batch).map(|sample| share(member(sample))).collect(), coefficient)
        };
        match term {
            Term::CrossEntropy(head) => {
                let labelled = labels[head].iter().filter(|&&label| label >= 0).count() as u64;
                if !self.weighs_samples() {
                    return TermWeights { factors: None, bare: 1.0, total: batch as f64, labelled };
                }
                let classes = self.class_weights.as_ref().map(|weights| &weights[head]);
                let weight = |&label: &i32| match usize::try_from(label) {
                    Ok(class) => classes.map_or(1.0, |weights| weights[class]),
                    Err(_) => 0.0,
                };
                let weights = labels[head].iter().map(weight).collect();
                TermWeights { labelled, ..TermWeights::mean(weights, 1.0) }
            }
            Term::Outliers(_) => match self.exposure {
                Some(Exposure::Energy { .. }) => {
                    // The sum of a mean over each side.
                    let sides = [among(&|sample| !is_outlier(sample)), among(&is_outlier)];
                    let [inside, outside] = sides.map(|side| side.factors.unwrap_or_default());
                    let both = inside.iter().zip(&outside).map(|(a, b)| a + b).collect();
                    let bare = if coefficient > 0.0 { 1.0 / coefficient } else { 0.0 };
                    TermWeights { factors: Some(both), bare, total: batch as f64, labelled: 0 }
                }
                _ => among(&is_outlier),
            },
            Term::Coupling => among(&|sample| !is_outlier(sample)),
            Term::Consistency => {
                let groups = self.consistency.as_ref().map_or(&[][..], |consistency| &consistency.groups);
                let subclasses = labels.last().expect("a head");
                let known = |sample: usize| {
                    let class = usize::try_from(subclasses[sample]).ok();
                    class.is_some_and(|class| groups[class] >= 0)
                };
                among(&|sample| !is_outlier(sample) && known(sample))
            }
        }
    }
}

impl TermWeights {
    /// `coefficient` times the weighted mean; zero where nothing has weight.
    fn mean(weights: Vec<f64>, coefficient: f64) -> TermWeights {
        let (batch, total) = (weights.len() as f64, weights.iter().sum::<f64>());
        let scale = if total > 0.0 { batch * coefficient / total } else { 0.0 };
        let bare = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let factors = weights.into_iter().map(|weight| weight * scale).collect();
        TermWeights { factors: Some(factors), bare, total, labelled: 0 }
    }
}

/// The weight of each class of each head that a choice means: for balanced ones `samples / (classes * samples of the class)`.
pub fn class_weights(choice: ClassWeights, targets: &Targets) -> Option<Vec<Vec<f64>>> {
    let balanced = |head| {
        let counts = targets.counts(head);
        let (samples, classes) = (counts.iter().sum::<u64>() as f64, counts.len() as f64);
        // A class without samples is never weighed.
        counts.iter().map(|&count| samples / (classes * count.max(1) as f64)).collect()
    };
    (choice == ClassWeights::Balanced).then(|| (0..targets.heads.len()).map(balanced).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighted(weights: &[f64]) -> Objective {
        Objective { class_weights: Some(vec![weights.to_vec()]), ..Objective::cross_entropy(0.0) }
    }

    #[test]
    fn weighted_samples_make_pytorchs_weighted_mean() {
        let batch = weighted(&[1.0, 3.0]).batch(vec![vec![0, 1, 1]], Vec::new());
        let TermWeights { factors, bare, total, labelled } = batch.terms[0].clone();
        // Factors go with a mean over the batch: 3 samples of weights 1, 3, 3.
        let expected = [3.0 / 7.0, 9.0 / 7.0, 9.0 / 7.0];
        let factors = factors.unwrap();
        assert!(factors.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{factors:?}");
        assert_eq!((total, labelled), (7.0, 3));
        assert!((bare * factors[0] - 1.0).abs() < 1e-15 && (bare * factors[1] - 3.0).abs() < 1e-15);
    }

    #[test]
    fn outliers_have_no_part_in_cross_entropy_and_divergence_and_a_mean_of_their_own() {
        let objective = Objective {
            exposure: Some(Exposure::Uniform { weight: 0.5 }),
            coupling: Some(Coupling {
                weight: 0.1,
                groups: vec![0, 0, 1],
                direction: Direction::FirstToSecond,
                detached: None,
                temperature: 1.0,
            }),
            ..Objective::cross_entropy(0.0)
        };
        let labels = vec![vec![0, -1, 1, -1], vec![1, -1, 2, -1]];
        let batch = objective.batch(labels, vec![false, true, false, true]);
        let factors: Vec<Vec<f64>> = batch.terms.iter().map(|term| term.factors.clone().unwrap()).collect();
        let (inside, outside) = (vec![2.0, 0.0, 2.0, 0.0], vec![0.0, 1.0, 0.0, 1.0]);
        let coupling = [0.2, 0.0, 0.2, 0.0];
        assert_eq!(factors[..4], [inside.clone(), inside, outside.clone(), outside]);
        assert!(factors[4].iter().zip(coupling).all(|(a, b)| (a - b).abs() < 1e-15));
    }

    #[test]
    fn a_batch_without_outliers_teaches_nothing_about_them() {
        let energy = Exposure::Energy { weight: 0.1, inside: -23.0, outside: -5.0 };
        let objective = Objective { exposure: Some(energy), ..Objective::cross_entropy(0.0) };
        let batch = objective.batch(vec![vec![0, 1]], vec![false, false]);
        assert_eq!(batch.terms[1].factors, Some(vec![0.1, 0.1]));
        let only = objective.batch(vec![vec![-1, -1]], vec![true, true]);
        assert_eq!((only.terms[0].factors.clone(), only.terms[0].total), (Some(vec![0.0, 0.0]), 0.0));
        assert_eq!(only.terms[1].factors, Some(vec![0.1, 0.1]));
    }
}

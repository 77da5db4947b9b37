//! What a network says of each labelled sample, from a pass over the logits of a cache.

use std::ops::Range;

use rayon::prelude::*;

use super::calibration::Bins;
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Head, block_rows};
use crate::linalg::argmax;

/// A network's answer: the class of the largest logit, the lowest of equal ones, and its softmax probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// The class.
    pub predicted: u32,
    /// Its probability.
    pub confidence: f64,
}

impl Answer {
    /// The answer of one row of logits.
    pub fn of(logits: &[f64]) -> Answer {
        let predicted = argmax(logits);
        let top = logits[predicted];
        let total: f64 = logits.iter().map(|logit| (logit - top).exp()).sum();
        Answer { predicted: predicted as u32, confidence: total.recip() }
    }
}

/// A network's answer for one labelled sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Its row in the cache.
    pub row: u32,
    /// Its class.
    pub label: u32,
    /// The class of the largest logit; the lowest of equal ones.
    pub predicted: u32,
    /// The softmax probability of the predicted class.
    pub confidence: f64,
    /// Whether the class is among those of the five largest logits; of equal ones the lowest classes are.
    pub in_top5: bool,
    /// −ln of the probability of its class.
    pub nll: f64,
    /// Σ over classes of (probability − whether it is the class)², in 0..=2.
    pub brier: f64,
}

impl Sample {
    /// Whether the predicted class is its class.
    pub fn is_correct(&self) -> bool {
        self.label == self.predicted
    }

    /// The answer of one row of logits, which become probabilities.
    pub(crate) fn of(row: u32, label: u32, logits: &mut [f64]) -> Sample {
        let class = label as usize;
        let predicted = argmax(logits);
        let (top, own) = (logits[predicted], logits[class]);
        let is_before = |(other, logit): (usize, &f64)| *logit > own || (*logit == own && other < class);
        let before = logits.iter().enumerate().filter(|entry| is_before(*entry)).count();
        logits.iter_mut().for_each(|logit| *logit = (*logit - top).exp());
        let total: f64 = logits.iter().sum();
        // One minus the probability of the class as the sum of the others, which keeps its digits where that is small.
        let (mut others, mut squares) = (0.0, 0.0);
        for (other, value) in logits.iter_mut().enumerate() {
            *value /= total;
            if other != class {
                others += *value;
                squares += *value * *value;
            }
        }
        Sample {
            row,
            label,
            predicted: predicted as u32,
            confidence: logits[predicted],
            in_top5: before < 5,
            nll: total.ln() + (top - own),
            brier: squares + others * others,
        }
    }
}

/// The labelled samples of a cache, and how far the probability of each class can be trusted.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// In the cache's order.
    pub samples: Vec<Sample>,
    /// Samples of unknown class, which are left out.
    pub unlabelled: u64,
    /// Number of classes.
    pub classes: usize,
    /// Probability of a class against how often it is the label, for each class.
    pub(super) classwise: Vec<Bins>,
}

/// What one block of rows gave.
struct Block {
    samples: Vec<Sample>,
    classwise: Vec<Bins>,
}

impl Samples {
    /// Reads a labelled cache: its logits, or those the head gives its features. The same bits for any number of threads.
    ///
    /// # Errors
    /// The cache is of another network, has no labels, or one that is no class of the head.
    pub fn read(set: &FeatureSet, head: &Head) -> Result<Samples> {
        set.check_shape(head.dimension(), head.classes())?;
        set.check_labels(head.classes())?;
        let labels = set.labels().unwrap_or(&[]);
        let unlabelled = set.len() - labels.iter().filter(|label| **label >= 0).count();
        if unlabelled == set.len() {
            return Err(Error::invalid(format!(
                "{}: no sample has a label, and an evaluation compares predictions with labels; give data whose classes the network \
                 knows (labels.npy with classes 0 to {}; -1 is unknown)",
                set.path().display(),
                head.classes() - 1
            )));
        }
        let rows = block_rows(set.dimension().max(head.classes()));
        let blocks: Vec<Range<usize>> =
            (0..set.len()).step_by(rows).map(|first| first..(first + rows).min(set.len())).collect();
        let of_block = |range: &Range<usize>| {
            let mut logits = Vec::new();
            set.read_logits(head, range.clone(), &mut logits);
            let mut classwise = vec![Bins::default(); head.classes()];
            let rows = range.clone().zip(logits.chunks_exact_mut(head.classes()));
            let labelled = rows.filter(|(row, _)| labels[*row] >= 0);
            let sample = |(row, logits): (usize, &mut [f64])| {
                let sample = Sample::of(row as u32, labels[row] as u32, logits);
                for (class, probability) in logits.iter().enumerate() {
                    classwise[class].add(*probability, class == sample.label as usize);
                }
                sample
            };
            let samples = labelled.map(sample).collect();
            Block { samples, classwise }
        };
        let mut all = Samples {
            samples: Vec::with_capacity(set.len() - unlabelled),
            unlabelled: unlabelled as u64,
            classes: head.classes(),
            classwise: vec![Bins::default(); head.classes()],
        };
        // A few blocks at a time: bins of a thousand classes are a third of a megabyte.
        for some in blocks.chunks(64) {
            let parts: Vec<Block> = some.par_iter().map(of_block).collect();
            for part in parts {
                all.samples.extend(part.samples);
                all.classwise.iter_mut().zip(&part.classwise).for_each(|(bins, other)| bins.merge(other));
            }
        }
        Ok(all)
    }
}

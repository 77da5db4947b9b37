//! Scores of features and the head together: ReAct, SHE, NCI.

use super::logit_scores::energy;
use super::method::Options;
use super::order_statistic::percentile;
use super::rows::{Rows, fold_blocks};
use super::saved::{Reader, Writer};
use super::table::FitSummary;
use crate::error::Result;
use crate::features::{FeatureSet, Head, Moments};
use crate::linalg::{argmax, dot, squared_norm};

/// ReAct: the energy of the logits of clipped features.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct React {
    clip: f64,
    temperature: f64,
}

impl React {
    /// Clips at a percentile of all training features.
    pub fn fit(train: &FeatureSet, options: &Options) -> (React, FitSummary) {
        let clip = percentile(train.features(), options.react_percentile);
        let parameters =
            [("percentile".to_string(), options.react_percentile), ("clip".to_string(), clip)].into();
        let summary = FitSummary { parameters, ..FitSummary::default() };
        (React { clip, temperature: options.temperature }, summary)
    }

    /// The score of each sample.
    pub fn score(&self, rows: &Rows, head: &Head) -> Vec<f64> {
        let clipped: Vec<f64> = rows.features.iter().map(|x| x.min(self.clip)).collect();
        let mut logits = Vec::new();
        head.logits(&clipped, rows.count, &mut logits);
        logits.chunks_exact(rows.classes).map(|logits| energy(logits, self.temperature)).collect()
    }

    pub fn save(&self, out: &mut Writer) {
        out.put("react", &[2], &[self.clip, self.temperature]);
    }

    pub fn load(file: &Reader) -> Result<React> {
        let values = file.get("react", &[Some(2)])?.1;
        if values[1] <= 0.0 {
            return Err(file.malformed("react", "a positive temperature", &values[1].to_string()));
        }
        Ok(React { clip: values[0], temperature: values[1] })
    }
}

/// SHE: the inner product with the mean of the correctly classified training features of the predicted class.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct She {
    /// Row-major, C x D.
    patterns: Vec<f64>,
}

impl She {
    /// Averages the correctly classified samples of each class; all of a class if none is (noted by name).
    pub fn fit(train: &FeatureSet, head: &Head, labels: &[u32], moments: &Moments) -> (She, Vec<String>) {
        let (classes, d) = (head.classes(), head.dimension());
        let (mut patterns, counts) = fold_blocks(
            train,
            head,
            (vec![0.0; classes * d], vec![0u64; classes]),
            |rows, range| {
                let mut part = (vec![0.0; classes * d], vec![0u64; classes]);
                for ((features, logits), &label) in rows.features().zip(rows.logits()).zip(&labels[range]) {
                    let class = label as usize;
                    if argmax(logits) == class {
                        part.1[class] += 1;
                        let sum = &mut part.0[class * d..(class + 1) * d];
                        sum.iter_mut().zip(features).for_each(|(sum, x)| *sum += x);
                    }
                }
                part
            },
            |mut total, part| {
                total.0.iter_mut().zip(&part.0).for_each(|(sum, x)| *sum += x);
                total.1.iter_mut().zip(&part.1).for_each(|(sum, x)| *sum += x);
                total
            },
        );
        let mut notes = Vec::new();
        for (class, pattern) in patterns.chunks_exact_mut(d).enumerate() {
            if counts[class] > 0 {
                pattern.iter_mut().for_each(|sum| *sum /= counts[class] as f64);
            } else {
                pattern.copy_from_slice(moments.class_mean(class));
                notes.push(format!(
                    "she: no training sample of class {class} is classified correctly; the mean of all is its pattern"
                ));
            }
        }
        (She { patterns }, notes)
    }

    /// The score of each sample.
    pub fn score(&self, rows: &Rows) -> Vec<f64> {
        let d = rows.dimension;
        rows.features()
            .zip(rows.predicted())
            .map(|(features, class)| dot(features, &self.patterns[class * d..(class + 1) * d]))
            .collect()
    }

    pub fn save(&self, classes: usize, out: &mut Writer) {
        out.put("she.patterns", &[classes, self.patterns.len() / classes], &self.patterns);
    }

    pub fn load(file: &Reader, dimension: usize, classes: usize) -> Result<She> {
        Ok(She { patterns: file.get("she.patterns", &[Some(classes), Some(dimension)])?.1 })
    }
}

/// NCI: how the centred feature aligns with the weight vector of the predicted class, plus a little of its L1 norm.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Nci {
    mean: Vec<f64>,
}

/// Weight of the L1 norm, the authors' choice for CIFAR.
const NCI_NORM_WEIGHT: f64 = 1e-4;
const SMALLEST_NORM: f64 = 1e-12;

impl Nci {
    pub fn fit(moments: &Moments) -> Nci {
        Nci { mean: moments.global_mean() }
    }

    /// The score of each sample.
    pub fn score(&self, rows: &Rows, head: &Head) -> Vec<f64> {
        let mut centred = vec![0.0; rows.dimension];
        rows.features()
            .zip(rows.predicted())
            .map(|(features, class)| {
                for ((centred, x), mean) in centred.iter_mut().zip(features).zip(&self.mean) {
                    *centred = x - mean;
                }
                let alignment =
                    dot(head.class_weight(class), &centred) / (squared_norm(&centred).sqrt() + SMALLEST_NORM);
                alignment + NCI_NORM_WEIGHT * features.iter().map(|x| x.abs()).sum::<f64>()
            })
            .collect()
    }

    pub fn save(&self, out: &mut Writer) {
        out.put("nci.mean", &[self.mean.len()], &self.mean);
    }

    pub fn load(file: &Reader, dimension: usize) -> Result<Nci> {
        Ok(Nci { mean: file.get("nci.mean", &[Some(dimension)])?.1 })
    }
}

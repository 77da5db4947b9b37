//! Percentile bootstrap of the metrics over samples (Efron and Tibshirani, 1993, chapter 13): how far they move when the test
//! samples are drawn again. It covers the choice of test samples only, not the seed of the training.

use rayon::prelude::*;

use super::calibration::{Bins, bin_of};
use super::confusion::Counts;
use super::samples::Sample;
use super::{Intervals, Metrics, Options};
use crate::error::{Error, Result};
use crate::ood::metrics::{Interval, RiskCoverage, percentiles, resample};

/// nll, brier, ece, macro precision, recall and F1, aurc, augrc of one replicate.
type Replicate = [f64; 8];

/// Intervals of the metrics that have no exact ones; the same bits for any number of threads.
///
/// # Errors
/// A single replicate.
pub(super) fn bootstrap(
    samples: &[Sample],
    classes: usize,
    risk_coverage: &RiskCoverage,
    metrics: &Metrics,
    options: &Options,
) -> Result<Intervals> {
    let Options { replicates, seed, .. } = *options;
    if replicates == 0 {
        return Ok(Intervals::default());
    }
    if replicates == 1 {
        return Err(Error::usage(format!("--bootstrap: {} (1000 is customary)", crate::ood::FEW_REPLICATES)));
    }
    let bins: Vec<usize> = samples.iter().map(|sample| bin_of(sample.confidence)).collect();
    let replicate = |number: u32| {
        let drawn = resample(seed, &[u64::from(number)], samples.len());
        of_resample(samples, &bins, classes, risk_coverage, &drawn)
    };
    let drawn: Vec<Replicate> = (0..replicates).into_par_iter().map(replicate).collect();
    let interval = |metric: usize| -> Interval {
        percentiles(&mut drawn.iter().map(|replicate| replicate[metric]).collect::<Vec<f64>>())
    };
    // The error of a resample is the calibration's and, on top of it, that of drawing again what was drawn once: mirrored at
    // the value the interval is rid of it twice, once for the resamples and once for the samples.
    let mirrored = |[low, high]: Interval| [low, high].map(|bound| (2.0 * metrics.ece - bound).max(0.0));
    let [high, low] = mirrored(interval(2));
    Ok(Intervals {
        nll: Some(interval(0)),
        brier: Some(interval(1)),
        ece: Some([low, high]),
        macro_precision: Some(interval(3)),
        macro_recall: Some(interval(4)),
        macro_f1: Some(interval(5)),
        aurc: Some(interval(6)),
        augrc: Some(interval(7)),
        ..Intervals::default()
    })
}

/// The metrics where each sample is drawn as often as `drawn` says.
fn of_resample(
    samples: &[Sample],
    bins: &[usize],
    classes: usize,
    risk_coverage: &RiskCoverage,
    drawn: &[u32],
) -> Replicate {
    let (mut nll, mut brier) = (0.0, 0.0);
    let (mut reliability, mut counts) = (Bins::default(), Counts::none(classes));
    for ((sample, bin), times) in samples.iter().zip(bins).zip(drawn).filter(|(_, times)| **times > 0) {
        nll += f64::from(*times) * sample.nll;
        brier += f64::from(*times) * sample.brier;
        reliability.add_often(*bin, sample.confidence, sample.is_correct(), *times);
        counts.add(sample.label, sample.predicted, u64::from(*times));
    }
    let (means, areas) = (counts.means(), risk_coverage.areas_of_resample(drawn));
    let count = samples.len() as f64;
    [
        nll / count,
        brier / count,
        reliability.expected_error(),
        means.precision,
        means.recall,
        means.f1,
        areas.aurc,
        areas.augrc,
    ]
}

//! How good a network's answers are on labelled data: accuracy, calibration, and how well confidence ranks the errors.
//!
//! | file | holds |
//! |---|---|
//! | `samples` | the answer for each sample, from a pass over logits |
//! | `calibration` | reliability diagram, expected calibration error |
//! | `confusion` | confusion matrix; precision, recall and F1 of each class |
//! | `intervals` | 95 % intervals from resampled samples |
//! | `files` | `eval.json` and the tables beside it |
//! | `summary` | the table for a terminal |
//!
//! Every number is a fraction, in f64, with its source beside it; larger confidence = surer.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::features::{FeatureSet, Head};
use crate::novelty::Proportion;
use crate::ood::metrics::{Interval, RiskCoverage};

mod calibration;
mod confusion;
mod files;
mod intervals;
mod samples;
mod summary;

pub(crate) use calibration::bin_of;
pub use calibration::{BINS, ReliabilityBin};
pub use confusion::{Cell, ClassResult, Confusion};
pub use files::EVAL_FILE;
pub use samples::{Answer, Sample, Samples};

use calibration::Bins;

/// Points of the risk-coverage curve that the results keep.
pub const CURVE_POINTS: usize = 200;
/// Confusions that the results name.
const MOST_CONFUSED: usize = 20;

/// What is to be known about the labelled data, beside its logits.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Names of the classes, by logit; may be empty.
    pub class_names: Vec<String>,
    /// Bootstrap replicates behind intervals; 0 for none.
    pub replicates: u32,
    /// Seed of the resamples.
    pub seed: u64,
}

/// Results on labelled data, as `eval.json` has them. Shares and areas are fractions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The data, as named by the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Hash of the checkpoint's parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// Samples with a label.
    pub samples: u64,
    /// Samples without, which are left out.
    pub unlabelled: u64,
    /// Number of classes.
    pub classes: u64,
    /// Every number.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Bounds of the metrics by name, between which 95 % of resamples lie; accuracy and top5 have the exact bounds of
    /// Clopper and Pearson.
    pub interval95: Intervals,
    /// Bootstrap replicates behind the intervals.
    pub replicates: u32,
    /// Bars of the reliability diagram.
    pub reliability: Vec<ReliabilityBin>,
    /// (coverage, errors among the accepted) by rising coverage, at most [`CURVE_POINTS`] of them.
    pub risk_coverage: Vec<(f64, f64)>,
    /// Each class.
    pub per_class: Vec<ClassResult>,
    /// The most frequent confusions.
    pub most_confused: Vec<Cell>,
}

/// Metrics of labelled samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Share of samples whose class has the largest logit.
    pub accuracy: f64,
    /// Share of samples whose class is among the five largest logits.
    pub top5: f64,
    /// Mean of −ln of the probability of the class (negative log-likelihood, cross-entropy).
    pub nll: f64,
    /// Mean squared distance of the probabilities from the one-hot class, in 0..=2 (Brier, 1950).
    pub brier: f64,
    /// Expected calibration error of the predicted class, 15 bins of equal width (Guo and others, 2017).
    pub ece: f64,
    /// Largest gap of a bin.
    pub mce: f64,
    /// Mean over classes of the expected calibration error of each class's probability (Kull and others, 2019).
    pub classwise_ece: f64,
    /// Mean precision over the classes with samples.
    pub macro_precision: f64,
    /// Mean recall over the classes with samples.
    pub macro_recall: f64,
    /// Mean F1 over the classes with samples.
    pub macro_f1: f64,
    /// Area under the risk-coverage curve of the largest probability (Geifman and El-Yaniv, 2017).
    pub aurc: f64,
    /// Area under the generalised risk-coverage curve (Traub and others, 2024).
    pub augrc: f64,
    /// `aurc` above that of the best ranking with as many errors.
    pub eaurc: f64,
}

/// 95 % intervals of the metrics with the same names; absent without a bootstrap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Intervals {
    /// Exact bounds (Clopper and Pearson, 1934).
    pub accuracy: Option<Interval>,
    /// Exact bounds.
    pub top5: Option<Interval>,
    /// Between percentiles of resamples, as all below.
    pub nll: Option<Interval>,
    /// Squared distance of the probabilities from the class.
    pub brier: Option<Interval>,
    /// Resamples look less calibrated than the samples, so their percentiles are mirrored at the value (basic bootstrap). Simulated, that covers
    /// the truth in 87 to 95 % of repetitions where a network is overconfident, and in about 70 % where its error is all but 0, which
    /// samples overestimate (plain percentiles: 80 to 93 %, and never).
    pub ece: Option<Interval>,
    /// Mean precision over classes.
    pub macro_precision: Option<Interval>,
    /// Mean recall over classes.
    pub macro_recall: Option<Interval>,
    /// Mean F1 over classes.
    pub macro_f1: Option<Interval>,
    /// Area under the risk-coverage curve.
    pub aurc: Option<Interval>,
    /// Area under the generalised risk-coverage curve.
    pub augrc: Option<Interval>,
}

/// A labelled data set, evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// Every number.
    pub results: Results,
    /// The answer for each labelled sample.
    pub samples: Vec<Sample>,
    /// Counts of labels and predictions.
    pub confusion: Confusion,
}

impl Metrics {
    /// Every metric with its name, in the order they are shown.
    pub fn named(&self) -> [(&'static str, f64); 13] {
        [
            ("accuracy", self.accuracy),
            ("top5", self.top5),
            ("macro_precision", self.macro_precision),
            ("macro_recall", self.macro_recall),
            ("macro_f1", self.macro_f1),
            ("nll", self.nll),
            ("brier", self.brier),
            ("ece", self.ece),
            ("mce", self.mce),
            ("classwise_ece", self.classwise_ece),
            ("aurc", self.aurc),
            ("augrc", self.augrc),
            ("eaurc", self.eaurc),
        ]
    }
}

impl Intervals {
    /// The interval of the metric of a name.
    pub fn of(&self, metric: &str) -> Option<Interval> {
        match metric {
            "accuracy" => self.accuracy,
            "top5" => self.top5,
            "nll" => self.nll,
            "brier" => self.brier,
            "ece" => self.ece,
            "macro_precision" => self.macro_precision,
            "macro_recall" => self.macro_recall,
            "macro_f1" => self.macro_f1,
            "aurc" => self.aurc,
            "augrc" => self.augrc,
            _ => None,
        }
    }
}

/// Evaluates the logits of a labelled cache, or those that a head gives its features.
///
/// # Errors
/// The cache has no labels, one that is no class of the head, or another shape than the head; a bootstrap of one replicate.
pub fn evaluate(set: &FeatureSet, head: &Head, options: &Options) -> Result<Evaluated> {
    let Samples { samples, unlabelled, classes, classwise } = Samples::read(set, head)?;
    let count = samples.len() as u64;
    let mean = |value: fn(&Sample) -> f64| samples.iter().map(value).sum::<f64>() / count as f64;
    let (mut bins, mut counts) = (Bins::default(), confusion::Counts::none(classes));
    for sample in &samples {
        bins.add_often(bin_of(sample.confidence), sample.confidence, sample.is_correct(), 1);
        counts.add(sample.label, sample.predicted, 1);
    }
    let confidences: Vec<f64> = samples.iter().map(|sample| sample.confidence).collect();
    let wrong: Vec<bool> = samples.iter().map(|sample| !sample.is_correct()).collect();
    let risk_coverage = RiskCoverage::new(&confidences, &wrong)?;
    let (areas, means) = (risk_coverage.areas(), counts.means());
    let share = |flag: fn(&Sample) -> bool| {
        Proportion::of(samples.iter().map(flag)).expect("at least one sample has a label")
    };
    let (accuracy, top5) = (share(Sample::is_correct), share(|sample| sample.in_top5));
    let metrics = Metrics {
        accuracy: accuracy.rate,
        top5: top5.rate,
        nll: mean(|sample| sample.nll),
        brier: mean(|sample| sample.brier),
        ece: bins.expected_error(),
        mce: bins.largest_error(),
        classwise_ece: classwise.iter().map(Bins::expected_error).sum::<f64>() / classes as f64,
        macro_precision: means.precision,
        macro_recall: means.recall,
        macro_f1: means.f1,
        aurc: areas.aurc,
        augrc: areas.augrc,
        eaurc: areas.eaurc,
    };
    let exact = |share: Proportion| Some([share.low, share.high]);
    let resampled = intervals::bootstrap(&samples, classes, &risk_coverage, &metrics, options)?;
    let confusion = Confusion::of(&samples);
    let results = Results {
        data: set.meta().data.clone(),
        checkpoint: set.meta().checkpoint.clone(),
        samples: count,
        unlabelled,
        classes: classes as u64,
        metrics,
        interval95: Intervals { accuracy: exact(accuracy), top5: exact(top5), ..resampled },
        replicates: options.replicates,
        reliability: bins.diagram(),
        risk_coverage: spread(&risk_coverage.points()),
        per_class: confusion.per_class(classes, &options.class_names),
        most_confused: confusion.most_confused(MOST_CONFUSED),
    };
    Ok(Evaluated { results, samples, confusion })
}

/// At most [`CURVE_POINTS`] of some points, the first and the last among them, evenly spread.
fn spread(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= CURVE_POINTS {
        return points.to_vec();
    }
    (0..CURVE_POINTS).map(|k| points[k * (points.len() - 1) / (CURVE_POINTS - 1)]).collect()
}

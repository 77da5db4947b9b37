//! How well a score tells in-distribution (ID) from out-of-distribution (OOD) samples, in every convention in use.
//!
//! Published tables differ in what counts as positive and in how the area under a precision-recall curve is taken;
//! the same scores can give an FPR95 of 57 or of 82 percent. So every number here has its convention in its name.

use serde::{Deserialize, Serialize};

use crate::error::Result;

mod best;
mod bootstrap;
mod curve;
mod delong;
mod ordered;
mod oscr;
mod paired;
mod risk_coverage;

pub use best::{Comparison, ToBest, with_best};
pub use bootstrap::{COVERAGE, Interval, Intervals};
pub use curve::{Curve, OperatingPoint};
pub use delong::{DeLong, Estimate, ScoredSides, auroc_interval, normal_quantile};
pub use ordered::{Ordered, Placements};
pub use oscr::{OscrCurve, oscr};
pub use paired::{FprDifference, fpr95_differences};
pub(crate) use paired::{percentiles, resample};
pub use risk_coverage::{RiskAreas, RiskCoverage};

/// True positive rate at which false positive rates are compared.
pub const TPR: f64 = 0.95;

/// All metrics of one score on one ID set and one OOD set, as fractions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OodMetrics {
    /// Area under the ROC curve, ties counted half; the same whichever side is positive.
    pub auroc: f64,
    /// OOD is positive: share of ID samples flagged when 95 % of OOD samples are caught
    /// (OpenOOD since v1.5, pytorch-ood).
    pub fpr95: f64,
    /// ID is positive: share of OOD samples accepted when 95 % of ID samples are kept
    /// (the papers of ODIN, Energy, ViM, KNN and NECO).
    pub fpr95_id_positive: f64,
    /// Average precision with ID as positive.
    pub aupr_in: f64,
    /// Average precision with OOD as positive.
    pub aupr_out: f64,
    /// Trapezoid area under the precision-recall curve with ID as positive (OpenOOD, pytorch-ood).
    pub aupr_in_trapezoid: f64,
    /// Trapezoid area under the precision-recall curve with OOD as positive (OpenOOD, pytorch-ood).
    pub aupr_out_trapezoid: f64,
    /// Smallest mean of both error rates over all thresholds.
    pub detection_error: f64,
    /// Confidence at or below which `fpr95` flags a sample.
    pub fpr95_threshold: f64,
    /// Confidence at or above which `fpr95_id_positive` keeps a sample.
    pub fpr95_id_positive_threshold: f64,
    /// Share of scores that equal another score.
    pub tied_share: f64,
    /// Number of ID samples.
    pub n_id: u64,
    /// Number of OOD samples.
    pub n_ood: u64,
    /// Share of OOD among all samples; both AUPRs depend on it.
    pub ood_prevalence: f64,
}

/// The two curves of one score: ID as positive and OOD as positive.
#[derive(Debug, Clone, PartialEq)]
pub struct Curves {
    /// ID samples are the positives; thresholds are confidences.
    pub id_positive: Curve,
    /// OOD samples are the positives; thresholds are negated confidences.
    pub ood_positive: Curve,
}

impl Curves {
    /// Curves of confidences (larger = more in-distribution).
    ///
    /// # Errors
    /// When a side is empty or a confidence is not finite; the message names the side and the row.
    pub fn new(id: &[f64], ood: &[f64]) -> Result<Curves> {
        let id_positive = Curve::with_names(id, ood, "ID", "OOD")?;
        let ood_positive = id_positive.opposite();
        Ok(Curves { id_positive, ood_positive })
    }

    /// Curves of sides that are in order already.
    pub fn of_ordered(id: &Ordered, ood: &Ordered) -> Curves {
        let id_positive = Curve::of_decreasing(id.values(), ood.values());
        let ood_positive = id_positive.opposite();
        Curves { id_positive, ood_positive }
    }

    /// Every number of these curves.
    pub fn metrics(&self) -> OodMetrics {
        let (n_id, n_ood) = (self.id_positive.positives(), self.id_positive.negatives());
        let catch = self.ood_positive.fpr_at_tpr(TPR);
        let keep = self.id_positive.fpr_at_tpr(TPR);
        OodMetrics {
            auroc: self.id_positive.auroc(),
            fpr95: catch.fpr,
            fpr95_id_positive: keep.fpr,
            aupr_in: self.id_positive.average_precision(),
            aupr_out: self.ood_positive.average_precision(),
            aupr_in_trapezoid: self.id_positive.aupr_trapezoid(),
            aupr_out_trapezoid: self.ood_positive.aupr_trapezoid(),
            detection_error: self.ood_positive.detection_error(),
            fpr95_threshold: 0.0 - catch.threshold,
            fpr95_id_positive_threshold: keep.threshold,
            tied_share: self.id_positive.tied_share(),
            n_id,
            n_ood,
            ood_prevalence: n_ood as f64 / (n_id + n_ood) as f64,
        }
    }
}

impl OodMetrics {
    /// All metrics of confidences (larger = more in-distribution) of ID and OOD samples.
    ///
    /// # Errors
    /// As [`Curves::new`].
    pub fn evaluate(id: &[f64], ood: &[f64]) -> Result<OodMetrics> {
        Ok(Curves::new(id, ood)?.metrics())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_fpr95_answer_different_questions() {
        // One stray ID sample among the OOD scores, one stray OOD sample among the ID scores.
        let id: Vec<f64> = (0..20).map(|i| if i < 2 { -5.0 } else { 10.0 + f64::from(i) }).collect();
        let ood: Vec<f64> = (0..10).map(|i| -f64::from(i)).collect();
        let m = OodMetrics::evaluate(&id, &ood).unwrap();
        // All ten OOD samples lie at or below 0, as do 2 of 20 ID samples.
        assert_eq!((m.fpr95, m.fpr95_threshold), (0.1, 0.0));
        // Keeping 19 of 20 ID samples needs the threshold -5, which accepts 6 of 10 OOD samples.
        assert_eq!((m.fpr95_id_positive, m.fpr95_id_positive_threshold), (0.6, -5.0));
        assert_eq!((m.n_id, m.n_ood), (20, 10));
        assert!((m.ood_prevalence - 1.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn curve_and_number_of_one_side_agree() {
        let id = [0.9, 0.8, 0.8, 0.4, 0.3];
        let ood = [0.7, 0.4, 0.1];
        let curves = Curves::new(&id, &ood).unwrap();
        let m = curves.metrics();
        let steps =
            |points: &[(f64, f64)]| points.windows(2).map(|w| (w[1].0 - w[0].0) * w[1].1).sum::<f64>();
        assert!((steps(&curves.id_positive.pr_points()) - m.aupr_in).abs() < 1e-15);
        assert!((steps(&curves.ood_positive.pr_points()) - m.aupr_out).abs() < 1e-15);
        assert!((m.aupr_in - m.aupr_out).abs() > 0.05, "the two must be distinguishable");
        assert_eq!(curves.ood_positive.fpr_at_tpr(TPR).fpr, m.fpr95);
    }

    #[test]
    fn an_error_names_the_side_and_the_row() {
        let message = OodMetrics::evaluate(&[1.0], &[0.0, f64::NEG_INFINITY]).unwrap_err().to_string();
        assert!(message.contains("OOD score in row 1 is -inf"), "{message}");
    }
}

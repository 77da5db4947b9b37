//! Count, mean, standard deviation and percentiles of a group of scores.

use serde::Serialize;

/// The percentiles of a [`Summary`].
pub const PERCENTILES: [u8; 9] = [1, 5, 10, 25, 50, 75, 90, 95, 99];

/// Statistics of a group of scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// Number of scores.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation about it, divided by the count (numpy's ddof 0).
    pub standard_deviation: f64,
    /// The [`PERCENTILES`], numpy's linear interpolation.
    pub percentiles: [f64; 9],
}

impl Summary {
    /// Of the scores, which may be in any order; `None` of no scores.
    pub fn of(scores: &[f64]) -> Option<Summary> {
        if scores.is_empty() {
            return None;
        }
        let count = scores.len() as f64;
        let mean = scores.iter().sum::<f64>() / count;
        let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / count;
        let sorted = sorted(scores);
        let percentiles = PERCENTILES.map(|percent| quantile(&sorted, f64::from(percent) / 100.0));
        Some(Summary { count: scores.len(), mean, standard_deviation: variance.sqrt(), percentiles })
    }
}

/// The scores in ascending order.
pub(super) fn sorted(scores: &[f64]) -> Vec<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

/// Linear interpolation between order statistics, the default of numpy's `quantile`; `sorted` is not empty.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let below = (position.floor() as usize).min(sorted.len() - 1);
    let above = (below + 1).min(sorted.len() - 1);
    let (low, high, fraction) = (sorted[below], sorted[above], position - below as f64);
    // From the nearer end, as numpy does: the same rounding, and never beyond either.
    if fraction >= 0.5 { high - (high - low) * (1.0 - fraction) } else { low + (high - low) * fraction }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_numpys() {
        // numpy 2: x = np.sin(np.arange(37.)); mean, std, percentile
        let scores: Vec<f64> = (0..37).map(|i| f64::from(i).sin()).collect();
        let summary = Summary::of(&scores).unwrap();
        let expected = [
            -0.997034119431972,
            -0.9887810699629126,
            -0.9599135615497058,
            -0.6636338842129675,
            0.0,
            0.6569865987187891,
            0.9303175217983778,
            0.9896080684376795,
            0.9965622385188043,
        ];
        assert_eq!(summary.count, 37);
        assert!((summary.mean - 0.014499254472396257).abs() < 1e-15, "{}", summary.mean);
        assert!(
            (summary.standard_deviation - 0.7060221585653218).abs() < 1e-15,
            "{}",
            summary.standard_deviation
        );
        for (found, expected) in summary.percentiles.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        }
        assert_eq!(Summary::of(&[]), None);
    }
}

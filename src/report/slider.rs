//! The threshold slider: what each threshold of each score flags in every set, for the page's script to draw.
//!
//! A threshold is one of a few hundred numbers of six digits, and what it flags is counted from all scores, so every figure beside the
//! slider is exact.

use serde::Serialize;

use super::plots::shown_range;

/// Bars of the histogram.
const BINS: usize = 60;
/// Quantiles of each set that the slider stops at.
const STOPS: usize = 120;

/// One score of every set: confidences, larger = more familiar.
pub(super) struct ScoredSets<'a> {
    pub score: &'a str,
    /// By set, the one of known classes first.
    pub sets: Vec<Vec<f64>>,
}

/// What the page's script needs of one score.
#[derive(Debug, Serialize, PartialEq)]
pub(super) struct Slider {
    pub score: String,
    /// The range that the histogram shows.
    pub low: f64,
    pub high: f64,
    /// Share of all samples outside of it.
    pub outside: f64,
    /// Bars by set: numbers of samples.
    pub bars: Vec<Vec<u32>>,
    /// Thresholds, ascending.
    pub thresholds: Vec<f64>,
    /// By set: samples below each threshold.
    pub flagged: Vec<Vec<u32>>,
    /// Samples of each set.
    pub samples: Vec<u32>,
    /// The place of the threshold where the slider begins: the largest that flags at most 5 % of the known samples.
    pub start: usize,
}

impl Slider {
    /// Counts; `None` where the first set or all others are empty.
    pub fn new(scored: &ScoredSets<'_>) -> Option<Slider> {
        let sorted: Vec<Vec<f64>> = scored
            .sets
            .iter()
            .map(|scores| {
                let mut sorted = scores.clone();
                sorted.sort_unstable_by(f64::total_cmp);
                sorted
            })
            .collect();
        if sorted.first()?.is_empty() {
            return None;
        }
        let (low, high) = shown_range(&sorted.iter().map(Vec::as_slice).collect::<Vec<&[f64]>>());
        let below = |scores: &[f64], limit: f64| scores.partition_point(|score| *score < limit);
        let inside = |scores: &[f64]| scores.partition_point(|score| *score <= high) - below(scores, low);
        let total: usize = sorted.iter().map(Vec::len).sum();
        let shown: usize = sorted.iter().map(|scores| inside(scores)).sum();
        let outside = 1.0 - shown as f64 / total as f64;
        let bars = sorted.iter().map(|scores| bars(scores, low, high)).collect();
        let quantile = |scores: &[f64], stop: usize| scores[stop * (scores.len() - 1) / STOPS];
        let stops = sorted.iter().filter(|scores| !scores.is_empty());
        let mut thresholds: Vec<f64> =
            stops.flat_map(|scores| (0..=STOPS).map(|stop| six_digits(quantile(scores, stop)))).collect();
        thresholds.sort_unstable_by(f64::total_cmp);
        thresholds.dedup();
        let flagged: Vec<Vec<u32>> = sorted
            .iter()
            .map(|scores| thresholds.iter().map(|threshold| below(scores, *threshold) as u32).collect())
            .collect();
        let few = sorted[0].len() as f64 * 0.05;
        let start = flagged[0].partition_point(|count| f64::from(*count) <= few).saturating_sub(1);
        let samples = sorted.iter().map(|scores| scores.len() as u32).collect();
        Some(Slider {
            score: scored.score.to_string(),
            low,
            high,
            outside,
            bars,
            thresholds,
            flagged,
            samples,
            start,
        })
    }
}

/// Numbers of the `sorted` scores in equal bins; those outside the range are in none.
fn bars(sorted: &[f64], low: f64, high: f64) -> Vec<u32> {
    let edge = |bin: usize| low + (high - low) * bin as f64 / BINS as f64;
    let below = |limit: f64| sorted.partition_point(|score| *score < limit);
    let mut bars: Vec<u32> = (0..BINS).map(|bin| (below(edge(bin + 1)) - below(edge(bin))) as u32).collect();
    let at_the_end = sorted.partition_point(|score| *score <= high) - below(high);
    bars[BINS - 1] += at_the_end as u32;
    bars
}

/// A number in six significant digits.
pub(super) fn six_digits(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_threshold_flags_is_counted_and_not_estimated() {
        let id: Vec<f64> = (0..1000).map(|i| f64::from(i * 7919 % 1000) / 7.0 + 20.0).collect();
        let ood: Vec<f64> = (0..300).map(f64::from).collect();
        let slider = Slider::new(&ScoredSets { score: "msp", sets: vec![id.clone(), ood.clone()] }).unwrap();
        assert!(slider.thresholds.len() > 200 && slider.thresholds.is_sorted_by(|a, b| a < b));
        for (at, threshold) in slider.thresholds.iter().enumerate() {
            let count = |scores: &[f64]| scores.iter().filter(|score| *score < threshold).count() as u32;
            assert_eq!([slider.flagged[0][at], slider.flagged[1][at]], [count(&id), count(&ood)]);
        }
        let flagged = slider.flagged[0][slider.start];
        assert!(flagged <= 50 && slider.flagged[0][slider.start + 1] > 50, "{flagged}");
        let shown: u32 = slider.bars.iter().flatten().sum();
        assert!((f64::from(shown) / 1300.0 - (1.0 - slider.outside)).abs() < 1e-12);
    }

    #[test]
    fn one_value_and_huge_values_have_a_slider_and_no_sample_has_none() {
        let of = |sets: Vec<Vec<f64>>| Slider::new(&ScoredSets { score: "x", sets });
        let same = of(vec![vec![2.0; 5], vec![2.0; 3]]).unwrap();
        assert_eq!((same.thresholds.as_slice(), same.start), (&[2.0][..], 0));
        let huge = of(vec![vec![-1e300, 1e300], vec![0.0]]).unwrap();
        assert!(huge.low.is_finite() && huge.high.is_finite());
        assert_eq!(of(vec![vec![], vec![1.0]]), None);
        assert!(of(vec![vec![1.0]]).is_some());
    }
}

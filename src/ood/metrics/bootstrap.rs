//! Bootstrap confidence intervals: how far a metric moves when the test samples are drawn again.
//!
//! ID and OOD samples are resampled separately (their numbers are a choice of the benchmark, not chance), with
//! replacement; the interval runs between percentiles of the replicates (Efron and Tibshirani, 1993, chapter 13).
//! It covers the choice of test samples only, not the seed of the training.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::curve::{self, Curve, Group};
use super::{Curves, TPR};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};

/// Share of replicates inside an interval.
pub const COVERAGE: f64 = 0.95;

/// A percentile interval: [low, high].
pub type Interval = [f64; 2];

/// 95 % percentile intervals of the metrics of [`super::OodMetrics`] with the same names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Area under the ROC curve.
    pub auroc: Interval,
    /// False positive rate at 95 % true positive rate, OOD positive.
    pub fpr95: Interval,
    /// False positive rate at 95 % true positive rate, ID positive.
    pub fpr95_id_positive: Interval,
    /// Average precision, ID positive.
    pub aupr_in: Interval,
    /// Average precision, OOD positive.
    pub aupr_out: Interval,
    /// Number of replicates behind the percentiles.
    pub replicates: u32,
}

/// The metrics of one replicate, in the order of [`Intervals`].
type Replicate = [f64; 5];

impl Curves {
    /// Percentile intervals from `replicates` resamples; the same bits for any number of threads.
    ///
    /// # Errors
    /// When there are fewer than 2 replicates, or more than 2³² − 1 scores.
    pub fn bootstrap(&self, replicates: u32, seed: u64) -> Result<Intervals> {
        if replicates < 2 {
            return Err(Error::invalid(format!(
                "a bootstrap interval needs at least 2 replicates, found {replicates}; 1000 is customary"
            )));
        }
        let sampler = Sampler::new(&self.id_positive)?;
        let drawn: Vec<Replicate> = (0..replicates)
            .into_par_iter()
            .map_init(|| sampler.scratch(), |scratch, replicate| sampler.replicate(seed, replicate, scratch))
            .collect();
        let interval = |metric: usize| {
            let mut values: Vec<f64> = drawn.iter().map(|replicate| replicate[metric]).collect();
            values.sort_unstable_by(f64::total_cmp);
            let tail = (1.0 - COVERAGE) / 2.0;
            [quantile(&values, tail), quantile(&values, 1.0 - tail)]
        };
        Ok(Intervals {
            auroc: interval(0),
            fpr95: interval(1),
            fpr95_id_positive: interval(2),
            aupr_in: interval(3),
            aupr_out: interval(4),
            replicates,
        })
    }
}

/// Draws replicates as counts per distinct threshold, so that nothing is ever sorted again.
struct Sampler {
    /// For each ID sample, in decreasing order of score, the index of its threshold.
    positive_group: Vec<u32>,
    negative_group: Vec<u32>,
    groups: usize,
    totals: Group,
}

impl Sampler {
    fn new(curve: &Curve) -> Result<Sampler> {
        let groups = curve.groups();
        if u32::try_from(groups.len()).is_err() {
            return Err(Error::invalid(format!(
                "the bootstrap takes at most 2^32 - 1 distinct scores, found {}; evaluate a subset",
                groups.len()
            )));
        }
        let expand = |count: fn(&Group) -> u64| -> Vec<u32> {
            let repeat = |(index, group)| std::iter::repeat_n(index as u32, count(group) as usize);
            groups.iter().enumerate().flat_map(repeat).collect()
        };
        Ok(Sampler {
            positive_group: expand(|group| group.positives),
            negative_group: expand(|group| group.negatives),
            groups: groups.len(),
            totals: Group { positives: curve.positives(), negatives: curve.negatives() },
        })
    }

    fn scratch(&self) -> Vec<Group> {
        vec![Group::default(); self.groups]
    }

    fn replicate(&self, seed: u64, replicate: u32, counts: &mut [Group]) -> Replicate {
        counts.fill(Group::default());
        let stream = Stream::for_purpose(seed, Purpose::Bootstrap, &[u64::from(replicate)]);
        let Group { positives, negatives } = self.totals;
        for i in 0..positives {
            let drawn = stream.below(i, positives) as usize;
            counts[self.positive_group[drawn] as usize].positives += 1;
        }
        for i in 0..negatives {
            let drawn = stream.below(positives + i, negatives) as usize;
            counts[self.negative_group[drawn] as usize].negatives += 1;
        }
        let auroc = curve::auroc(counts, self.totals);
        let fpr95_id_positive = curve::fpr_at_tpr(counts, self.totals, TPR);
        let aupr_in = curve::average_precision(counts, self.totals);
        // The opposite curve in place: decreasing negated scores, roles exchanged.
        counts.reverse();
        counts.iter_mut().for_each(|group| *group = group.swapped());
        let opposite = self.totals.swapped();
        let fpr95 = curve::fpr_at_tpr(counts, opposite, TPR);
        let aupr_out = curve::average_precision(counts, opposite);
        [auroc, fpr95, fpr95_id_positive, aupr_in, aupr_out]
    }
}

/// Linear interpolation between order statistics (the default of numpy's `quantile`).
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ood::metrics::OodMetrics;

    fn scores(stream: u64, n: u64, shift: f64) -> Vec<f64> {
        let stream = Stream::for_purpose(9, Purpose::Synthetic, &[stream]);
        // Rounded, so that there are ties.
        (0..n).map(|i| ((stream.normal(i) + shift) * 8.0).round() / 8.0).collect()
    }

    #[test]
    fn a_replicate_is_the_metrics_of_the_resampled_scores() {
        let (mut id, mut ood) = (scores(1, 41, 1.0), scores(2, 29, 0.0));
        let sampler = Sampler::new(&Curves::new(&id, &ood).unwrap().id_positive).unwrap();
        let mut scratch = sampler.scratch();
        id.sort_by(|a, b| b.total_cmp(a));
        ood.sort_by(|a, b| b.total_cmp(a));
        for replicate in 0..20 {
            let got = sampler.replicate(3, replicate, &mut scratch);
            let stream = Stream::for_purpose(3, Purpose::Bootstrap, &[u64::from(replicate)]);
            let drawn_id: Vec<f64> = (0..41).map(|i| id[stream.below(i, 41) as usize]).collect();
            let drawn_ood: Vec<f64> = (0..29).map(|i| ood[stream.below(41 + i, 29) as usize]).collect();
            let want = OodMetrics::evaluate(&drawn_id, &drawn_ood).unwrap();
            let want = [want.auroc, want.fpr95, want.fpr95_id_positive, want.aupr_in, want.aupr_out];
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() < 1e-12, "replicate {replicate}: {got} {want}");
            }
        }
    }

    #[test]
    fn intervals_do_not_depend_on_the_number_of_threads() {
        let curves = Curves::new(&scores(3, 300, 1.0), &scores(4, 200, 0.0)).unwrap();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| curves.bootstrap(64, 7).unwrap())
        };
        assert_eq!(with(1), with(3));
        assert_ne!(with(1), curves.bootstrap(64, 8).unwrap());
    }

    #[test]
    fn the_interval_of_auroc_agrees_with_hanley_and_mcneil() {
        // Normal scores one standard deviation apart: AUROC = Φ(1/√2) = 0.760.
        let (n_id, n_ood) = (400.0, 300.0);
        let curves = Curves::new(&scores(5, 400, 1.0), &scores(6, 300, 0.0)).unwrap();
        let interval = curves.bootstrap(600, 1).unwrap().auroc;
        let a = curves.id_positive.auroc();
        assert!(interval[0] < a && a < interval[1]);
        // Hanley and McNeil, Radiology 143, 1982: variance of an empirical AUROC.
        let (q1, q2) = (a / (2.0 - a), 2.0 * a * a / (1.0 + a));
        let variance =
            (a * (1.0 - a) + (n_id - 1.0) * (q1 - a * a) + (n_ood - 1.0) * (q2 - a * a)) / (n_id * n_ood);
        let width = 2.0 * 1.96 * variance.sqrt();
        assert!(((interval[1] - interval[0]) / width - 1.0).abs() < 0.15, "{interval:?} {width}");
    }

    #[test]
    fn separated_scores_have_no_spread_and_one_replicate_is_refused() {
        let curves = Curves::new(&[3.0, 2.0], &[1.0, 0.0, -1.0]).unwrap();
        let intervals = curves.bootstrap(10, 0).unwrap();
        assert_eq!((intervals.auroc, intervals.fpr95, intervals.replicates), ([1.0; 2], [0.0; 2], 10));
        assert!(curves.bootstrap(1, 0).unwrap_err().to_string().contains("at least 2 replicates"));
    }

    #[test]
    fn quantiles_interpolate_like_numpy() {
        // numpy.quantile([1, 2, 4, 8], [0.025, 0.5, 0.975])
        let sorted = [1.0, 2.0, 4.0, 8.0];
        for (share, want) in [(0.0, 1.0), (0.025, 1.075), (0.5, 3.0), (0.975, 7.7), (1.0, 8.0)] {
            assert!((quantile(&sorted, share) - want).abs() < 1e-12);
        }
    }
}

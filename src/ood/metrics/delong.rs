//! Variances and covariances of several AUROCs on the same samples, without resampling.
//!
//! DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating characteristic curves: a
//! nonparametric approach", Biometrics 44, 1988. With ψ(x, y) = 1 where x > y, ½ where x = y and else 0, an AUROC θ of n ID
//! confidences x and m OOD confidences y is the mean of ψ over all pairs, and each sample has a component:
//!
//! ```text
//! V10(i) = mean over j of ψ(xᵢ, yⱼ)        V01(j) = mean over i of ψ(xᵢ, yⱼ)
//! cov(θᵣ, θₛ) = S10(r, s) / n + S01(r, s) / m
//! ```
//!
//! where S10 and S01 are the covariances of the components of two scores over the samples, dividing by n − 1 and m − 1. The components come
//! from midranks (Sun and Xu, IEEE Signal Processing Letters 21, 2014), which takes a sort and not all n·m pairs; the integers
//! that they are sums of are exact, so nothing depends on the order of the samples.

use super::{COVERAGE, Interval, Ordered, Placements};
use crate::error::{Error, Result};

/// Confidences of the same samples by one score: of the ID samples and of the OOD samples (larger = more in-distribution).
pub type ScoredSides<'a> = (&'a [f64], &'a [f64]);

/// AUROCs of several scores (or networks) on the same samples, with their covariances.
#[derive(Debug, Clone, PartialEq)]
pub struct DeLong {
    aurocs: Vec<f64>,
    /// `aurocs.len()` x `aurocs.len()`, row-major.
    covariances: Vec<f64>,
}

/// A difference of two numbers that are known with an error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its standard error.
    pub error: f64,
}

impl Estimate {
    /// The normal interval that covers the true value in 95 % of all samples, about: value ± 1.96 errors.
    pub fn interval(&self) -> [f64; 2] {
        let reach = normal_quantile() * self.error;
        [self.value - reach, self.value + reach]
    }

    /// The chance of a value at least as far from 0 where the true one is 0, by the normal approximation; 1 where value and error are
    /// both 0.
    pub fn p_value(&self) -> f64 {
        if self.error > 0.0 {
            statrs::function::erf::erfc(self.value.abs() / self.error / std::f64::consts::SQRT_2)
        } else if self.value == 0.0 {
            1.0
        } else {
            0.0
        }
    }
}

/// The 95 % interval of an AUROC with its DeLong standard error, from `n` ID and `m` OOD samples; within [0, 1].
///
/// It is normal on the scale of the logit, logit(θ) ± 1.96 · error / (θ (1 − θ)) (Pepe, "The statistical evaluation of medical tests for
/// classification and prediction", 2003, section 5.2.4): near 1, where good scores are, an AUROC's distribution is skewed, and θ ± 1.96
/// errors (Wald) would reach beyond 1 and miss more often on one side. Of sides that are told apart without a mistake the error is 0
/// and says nothing. Then the bound is exact: the min(n, m) pairs that share no sample are all in order with a probability of at most
/// θ^min(n, m), so θ lies above 0.025^(1 / min(n, m)).
pub fn auroc_interval(auroc: &Estimate, (n, m): (usize, usize)) -> Interval {
    let bound = ((1.0 - COVERAGE) / 2.0).powf(1.0 / n.min(m).max(1) as f64);
    let theta = auroc.value;
    if theta >= 1.0 {
        return [bound, 1.0];
    }
    if theta <= 0.0 {
        return [0.0, 1.0 - bound];
    }
    let reach = normal_quantile() * auroc.error / (theta * (1.0 - theta));
    let logit = (theta / (1.0 - theta)).ln();
    [-reach, reach].map(|reach| 1.0 / (1.0 + (-(logit + reach)).exp()))
}

/// The quantile of the standard normal distribution that leaves half of what [`COVERAGE`] leaves: 1.96.
pub fn normal_quantile() -> f64 {
    // Φ⁻¹(q) = −√2 erfc⁻¹(2q), with q = (1 + coverage) / 2.
    -std::f64::consts::SQRT_2 * statrs::function::erf::erfc_inv(1.0 + COVERAGE)
}

impl DeLong {
    /// AUROCs and covariances of scores of the same ID and OOD samples, in the same order.
    ///
    /// # Errors
    /// No scores, a score with other numbers of samples than the first, fewer than two samples on a side (one has no variance), or
    /// a score that is not finite.
    pub fn new(scores: &[ScoredSides<'_>]) -> Result<DeLong> {
        let Some(&(id, ood)) = scores.first() else {
            return Err(Error::invalid("no scores were given; the covariance of AUROCs needs at least one"));
        };
        let (n, m) = (id.len(), ood.len());
        if n < 2 || m < 2 {
            return Err(Error::invalid(format!(
                "{n} ID and {m} OOD samples: the variance of an AUROC needs at least 2 of each"
            )));
        }
        let mut parts = Vec::with_capacity(scores.len());
        for (index, (own_id, own_ood)) in scores.iter().enumerate() {
            if (own_id.len(), own_ood.len()) != (n, m) {
                return Err(Error::invalid(format!(
                    "score {index} has {} ID and {} OOD samples, score 0 has {n} and {m}; AUROCs are compared on the same samples",
                    own_id.len(),
                    own_ood.len()
                )));
            }
            parts.push(Placements::new(&Ordered::new(own_id, "ID")?, &Ordered::new(own_ood, "OOD")?));
        }
        let covariance = |a: &Placements, b: &Placements| {
            covariance(&a.of_id, a.auroc, &b.of_id, b.auroc) / n as f64
                + covariance(&a.of_ood, a.auroc, &b.of_ood, b.auroc) / m as f64
        };
        let covariances = parts.iter().flat_map(|a| parts.iter().map(|b| covariance(a, b))).collect();
        Ok(DeLong { aurocs: parts.iter().map(|part| part.auroc).collect(), covariances })
    }

    /// The AUROC of a score, as [`super::OodMetrics`] has it.
    ///
    /// # Panics
    /// If there is no such score.
    pub fn auroc(&self, score: usize) -> f64 {
        self.aurocs[score]
    }

    /// The estimated covariance of the AUROCs of two scores.
    ///
    /// # Panics
    /// If there is no such score.
    pub fn covariance(&self, a: usize, b: usize) -> f64 {
        self.covariances[a * self.aurocs.len() + b]
    }

    /// An AUROC with its standard error.
    ///
    /// # Panics
    /// If there is no such score.
    pub fn estimate(&self, score: usize) -> Estimate {
        Estimate { value: self.auroc(score), error: self.covariance(score, score).max(0.0).sqrt() }
    }

    /// AUROC of `a` minus AUROC of `b`, with the standard error of the difference: what both scores have in common cancels.
    ///
    /// # Panics
    /// If there is no such score.
    pub fn difference(&self, a: usize, b: usize) -> Estimate {
        let variance = self.covariance(a, a) + self.covariance(b, b) - 2.0 * self.covariance(a, b);
        // Of equal components the rounding of three numbers is left.
        let rounding = 1e-12 * (self.covariance(a, a) + self.covariance(b, b));
        let error = if variance > rounding { variance.sqrt() } else { 0.0 };
        Estimate { value: self.auroc(a) - self.auroc(b), error }
    }
}

/// The covariance of components over the samples of one side, whose means are known; dividing by one less than their number.
fn covariance(a: &[f64], mean_a: f64, b: &[f64], mean_b: f64) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum();
    sum / (a.len() as f64 - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ood::metrics::Curves;
    use crate::rng::{Purpose, Stream};

    /// Confidences of two networks on the same samples: normal, with what both see in common.
    struct Draw {
        id: [Vec<f64>; 2],
        ood: [Vec<f64>; 2],
    }

    /// `correlation` of the confidences of one sample; ID means of the networks; `decimals` above 0 rounds, for ties.
    fn draw(repetition: u64, (n, m): (u64, u64), means: [f64; 2], correlation: f64, steps: f64) -> Draw {
        let stream = |word| Stream::for_purpose(3, Purpose::Synthetic, &[repetition, word]);
        let (common, own) = (stream(0), [stream(1), stream(2)]);
        let value = |network: usize, i: u64| {
            let value =
                correlation.sqrt() * common.normal(i) + (1.0 - correlation).sqrt() * own[network].normal(i);
            if steps > 0.0 { (value * steps).round() / steps } else { value }
        };
        let id = [0, 1].map(|network| (0..n).map(|i| value(network, i) + means[network]).collect());
        let ood = [0, 1].map(|network| (0..m).map(|j| value(network, n + j)).collect());
        Draw { id, ood }
    }

    impl Draw {
        fn sides(&self) -> [ScoredSides<'_>; 2] {
            [(&self.id[0], &self.ood[0]), (&self.id[1], &self.ood[1])]
        }
    }

    /// ψ over all pairs, as the paper has it.
    fn by_pairs((x, y): ScoredSides<'_>) -> (f64, Vec<f64>, Vec<f64>) {
        let psi = |x: f64, y: f64| {
            if x > y {
                1.0
            } else if x == y {
                0.5
            } else {
                0.0
            }
        };
        let (n, m) = (x.len() as f64, y.len() as f64);
        let v10: Vec<f64> = x.iter().map(|&x| y.iter().map(|&y| psi(x, y)).sum::<f64>() / m).collect();
        let v01: Vec<f64> = y.iter().map(|&y| x.iter().map(|&x| psi(x, y)).sum::<f64>() / n).collect();
        (v10.iter().sum::<f64>() / n, v10, v01)
    }

    #[test]
    fn covariances_are_those_of_all_pairs() {
        for (repetition, steps) in [(1, 0.0), (2, 2.0), (3, 1.0)] {
            let drawn = draw(repetition, (37, 23), [1.0, 0.4], 0.6, steps);
            let sides = drawn.sides();
            let found = DeLong::new(&sides).unwrap();
            let pairs = sides.map(by_pairs);
            let spread = |a: &[f64], b: &[f64], mean: [f64; 2]| {
                let sum: f64 = a.iter().zip(b).map(|(a, b)| (a - mean[0]) * (b - mean[1])).sum();
                sum / (a.len() as f64 - 1.0) / a.len() as f64
            };
            for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let mean = [pairs[a].0, pairs[b].0];
                let want = spread(&pairs[a].1, &pairs[b].1, mean) + spread(&pairs[a].2, &pairs[b].2, mean);
                assert!((found.covariance(a, b) - want).abs() < 1e-15, "{a} {b}");
            }
            for (network, (id, ood)) in sides.into_iter().enumerate() {
                assert!(
                    (found.auroc(network) - Curves::new(id, ood).unwrap().id_positive.auroc()).abs() < 1e-15
                );
            }
        }
    }

    #[test]
    fn values_are_those_of_the_published_method_by_hand() {
        // x = 3 5 7, y = 2 4 4: V10 = 1/3 1 1, V01 = 1 2/3 2/3; S10 = 4/27, S01 = 1/27; variance (4/27 + 1/27) / 3 = 5/81.
        let found = DeLong::new(&[(&[3.0, 5.0, 7.0], &[2.0, 4.0, 4.0])]).unwrap();
        assert!((found.auroc(0) - 7.0 / 9.0).abs() < 1e-15);
        assert!((found.covariance(0, 0) - 5.0 / 81.0).abs() < 1e-15);
    }

    #[test]
    fn intervals_of_a_difference_of_aurocs_cover_it_and_are_narrower_than_unpaired_ones() {
        const REPETITIONS: u64 = 1000;
        // AUROC of normal confidences at a distance d: Φ(d / √2).
        let means = [1.1, 0.9];
        let auroc = |distance: f64| 0.5 * statrs::function::erf::erfc(-distance / 2.0);
        let truth = auroc(means[0]) - auroc(means[1]);
        for (correlation, narrower) in [(0.0, 1.05), (0.7, 0.65)] {
            let (mut covered, mut unpaired_covered, mut width, mut unpaired_width) = (0, 0, 0.0, 0.0);
            for repetition in 0..REPETITIONS {
                let drawn = draw(100 + repetition, (120, 90), means, correlation, 0.0);
                let found = DeLong::new(&drawn.sides()).unwrap();
                let paired = found.difference(0, 1);
                let error = found.estimate(0).error.hypot(found.estimate(1).error);
                let unpaired = Estimate { error, ..paired };
                let covers = |[low, high]: [f64; 2]| u64::from(low <= truth && truth <= high);
                covered += covers(paired.interval());
                unpaired_covered += covers(unpaired.interval());
                width += paired.error;
                unpaired_width += unpaired.error;
            }
            let share = covered as f64 / REPETITIONS as f64;
            println!(
                "correlation {correlation}: {share}, unpaired {unpaired_covered}, widths {width} and {unpaired_width}"
            );
            assert!((0.935..=0.965).contains(&share), "correlation {correlation}: {share} covered");
            assert!(width < narrower * unpaired_width, "correlation {correlation}: {width} {unpaired_width}");
            if correlation > 0.5 {
                assert!(unpaired_covered as f64 / REPETITIONS as f64 > 0.99, "{unpaired_covered}");
            }
        }
    }

    #[test]
    fn one_score_alone_is_covered_too() {
        let truth = 0.5 * statrs::function::erf::erfc(-0.5);
        let covers = |repetition: u64| {
            let drawn = draw(5000 + repetition, (120, 90), [1.0, 1.0], 0.5, 0.0);
            let [low, high] = DeLong::new(&drawn.sides()).unwrap().estimate(0).interval();
            low <= truth && truth <= high
        };
        let covered = (0..1000u64).filter(|&repetition| covers(repetition)).count();
        println!("one score: {covered} of 1000");
        assert!((930..=965).contains(&covered), "{covered} of 1000");
    }

    #[test]
    fn the_interval_of_an_auroc_covers_it_and_stays_within_its_range() {
        const REPETITIONS: u64 = 1000;
        for (distance, (n, m)) in [(0.3, (60, 200)), (2.0, (150, 150)), (3.3, (400, 200)), (-1.5, (80, 80))] {
            let truth = 0.5 * statrs::function::erf::erfc(-distance / 2.0);
            let (mut covered, mut wald) = (0, 0);
            for repetition in 0..REPETITIONS {
                let drawn = draw(20_000 + repetition, (n, m), [distance; 2], 0.5, 0.0);
                let found = DeLong::new(&drawn.sides()).unwrap().estimate(0);
                let [low, high] = auroc_interval(&found, (n as usize, m as usize));
                assert!(0.0 <= low && low <= found.value && found.value <= high && high <= 1.0);
                covered += u64::from(low <= truth && truth <= high);
                let [low, high] = found.interval();
                wald += u64::from(low <= truth && truth <= high);
            }
            println!("AUROC {truth:.4}: {covered} of {REPETITIONS} covered, {wald} by Wald's interval");
            assert!((930..=975).contains(&covered), "AUROC {truth}: {covered} of {REPETITIONS}");
        }
    }

    #[test]
    fn sides_without_a_mistake_have_an_exact_bound() {
        let perfect = |value| auroc_interval(&Estimate { value, error: 0.0 }, (1000, 50));
        // 0.025 is the chance that 50 pairs that share no sample are all in order, at this AUROC.
        let [low, high] = perfect(1.0);
        assert!((low.powi(50) - 0.025).abs() < 1e-12 && high == 1.0);
        assert_eq!(perfect(0.0), [0.0, 1.0 - low]);
        // A constant score: every sample alike.
        assert_eq!(perfect(0.5), [0.5, 0.5]);
        // 1 / (1 + exp(±1.96 * 0.02 / 0.09 - ln 9)), by hand.
        let [low, high] = auroc_interval(&Estimate { value: 0.9, error: 0.02 }, (100, 100));
        assert!((low - 0.853_420).abs() < 1e-6 && (high - 0.932_941).abs() < 1e-6, "{low} {high}");
    }

    #[test]
    fn equal_scores_differ_by_exactly_nothing() {
        let drawn = draw(9, (50, 40), [1.0, 1.0], 0.5, 3.0);
        let same = (drawn.id[0].as_slice(), drawn.ood[0].as_slice());
        let found = DeLong::new(&[same, same]).unwrap().difference(0, 1);
        assert_eq!((found.value, found.error, found.p_value()), (0.0, 0.0, 1.0));
        assert_eq!(found.interval(), [0.0, 0.0]);
    }

    #[test]
    fn what_has_no_variance_is_refused_with_the_reason() {
        let cases: [(&[ScoredSides<'_>], &str); 4] = [
            (&[], "no scores"),
            (&[(&[1.0], &[0.0, 1.0])], "1 ID and 2 OOD samples"),
            (&[(&[1.0, 2.0], &[0.0, 1.0]), (&[1.0, 2.0, 3.0], &[0.0, 1.0])], "score 1 has 3 ID"),
            (&[(&[1.0, f64::NAN], &[0.0, 1.0])], "ID score in row 1 is NaN"),
        ];
        for (scores, expected) in cases {
            let message = DeLong::new(scores).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn quantile_and_p_value_are_those_of_the_normal_distribution() {
        // scipy.stats.norm.ppf(0.975), 2 * norm.sf(1.0), 2 * norm.sf(2.5)
        assert!((normal_quantile() - 1.959_963_984_540_054).abs() < 1e-9);
        for (value, want) in [(1.0, 0.317_310_507_862_914), (-2.5, 0.012_419_330_651_552)] {
            assert!((Estimate { value, error: 1.0 }.p_value() - want).abs() < 1e-9);
        }
    }
}

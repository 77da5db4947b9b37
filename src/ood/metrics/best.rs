//! Which scores may be the best one: multiple comparisons with the best, for estimates that are correlated.
//!
//! The score of the highest AUROC on a test set was chosen by that test set, and of many scores of equal worth one comes out first. So no
//! score is compared with the winner as if the winner had been named beforehand. Hsu's multiple comparisons with the best (MCB; Hsu, "Multiple
//! Comparisons: Theory and Methods", 1996, chapter 4, by the intervals of Edwards and Hsu, JASA 78, 1983) take every score
//! as a candidate: with estimates θ̂ᵢ and standard errors sᵢⱼ of their differences, score i is refused as the best one where
//!
//! ```text
//! tᵢ = max over j of (θ̂ⱼ − θ̂ᵢ) / sᵢⱼ  >  qᵢ,    P(max over j of (Wⱼ − Wᵢ) / sᵢⱼ > qᵢ) = 5 %
//! ```
//!
//! with W of the multivariate t distribution that has the covariance of the estimates (Dunnett's): normal, over the root of a χ² of as many degrees of
//! freedom as the errors are known with, since they are estimates too. The score that is truly best is refused in at most 5 % of all samples, however
//! many scores there are and wherever ties are; that is what "within noise of the best" means. The same event gives
//! intervals for θᵢ − max over j ≠ i of θⱼ that hold for all scores at once. Using the covariance (max-t) takes less than Bonferroni's
//! or Holm's bound does, since scores of one network are much alike. The quantiles come from [`DRAWS`] draws that are the same for
//! every table, so equal scores give equal bits.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{COVERAGE, Interval};
use crate::rng::{Purpose, Stream};

/// Draws behind the quantiles: with 9,999 the 500th largest is the quantile, and it leaves 5 % ± 0.2 %.
pub const DRAWS: u32 = 9999;
/// First word of the stream of the draws; bootstrap replicates are numbered below 2³².
const BEST: u64 = 1 << 40;
/// Share of the variances of two estimates below which the variance of their difference is rounding.
const ROUNDING: f64 = 1e-12;

/// How scores were compared, for the readers of `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The method, in words.
    pub method: String,
    /// The chance with which the truly best score is kept, at least.
    pub confidence: f64,
    /// Random draws behind the quantiles.
    pub draws: u32,
}

impl Default for Comparison {
    fn default() -> Comparison {
        Comparison {
            method: "Hsu's multiple comparisons with the best, with DeLong's covariance of the AUROCs".into(),
            confidence: COVERAGE,
            draws: DRAWS,
        }
    }
}

/// A score against the best of the others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ToBest {
    /// Its estimate minus the largest of the others: above 0 for the best score alone.
    pub difference: f64,
    /// The interval of the true difference; those of all scores hold at once in 95 % of all samples. It ends at 0 for a score that is not
    /// the best, and begins at 0 for one that certainly is.
    pub interval95: Interval,
    /// The chance of falling as far behind another score, in standard errors, if this one were the best; corrected for the number of
    /// scores. At least 1 / (draws + 1).
    pub p_value: f64,
    /// Whether it may be the best one: `p_value` is above 5 %.
    pub within_noise: bool,
}

/// Compares each of several estimates with the best of the others; `covariance` is theirs, row-major, known with so many degrees of freedom: of
/// AUROCs one less than the samples of the smaller side. Nothing of fewer than two estimates. The same bits for any number of threads.
///
/// # Panics
/// If the covariance has other extents.
pub fn with_best(estimates: &[f64], covariance: &[f64], degrees: f64) -> Vec<ToBest> {
    compare(estimates, covariance, degrees, DRAWS)
}

fn compare(estimates: &[f64], covariance: &[f64], degrees: f64, draws: u32) -> Vec<ToBest> {
    let count = estimates.len();
    assert_eq!(covariance.len(), count * count, "a covariance for every two estimates");
    if count < 2 {
        return Vec::new();
    }
    let errors = Errors { covariance, count };
    let maxima = maxima(&errors, degrees, draws);
    let tail = ((1.0 - COVERAGE) * f64::from(draws + 1)).round() as usize;
    let others = |i: usize| (0..count).filter(move |&j| j != i);
    let judged: Vec<(f64, f64)> = (0..count)
        .into_par_iter()
        .map(|i| {
            let behind = others(i).map(|j| {
                let (lead, error) = (estimates[j] - estimates[i], errors.of(i, j));
                // Without an error there is no chance: a lead is rounding, or certain.
                if error > 0.0 {
                    lead / error
                } else if lead.abs() <= errors.rounding(i, j) {
                    0.0
                } else {
                    lead * f64::INFINITY
                }
            });
            let statistic = behind.fold(f64::NEG_INFINITY, f64::max);
            let mut own: Vec<f64> = maxima.iter().map(|draw| draw[i]).collect();
            let reached = own.iter().filter(|&&maximum| maximum >= statistic).count();
            own.sort_unstable_by(|a, b| b.total_cmp(a));
            // The largest statistic whose p-value is above 5 %.
            ((reached + 1) as f64 / (own.len() + 1) as f64, own[tail - 1])
        })
        .collect();
    let is_candidate = |i: usize| judged[i].0 > 1.0 - COVERAGE;
    let candidates: Vec<usize> = (0..count).filter(|&i| is_candidate(i)).collect();
    (0..count)
        .map(|i| {
            let (p_value, quantile) = judged[i];
            let error = |j: usize| errors.of(i, j);
            let difference = others(i).map(|j| estimates[i] - estimates[j]).fold(f64::INFINITY, f64::min);
            let upper = others(i).map(|j| estimates[i] - estimates[j] + quantile * error(j));
            let lower = candidates.iter().filter(|&&j| j != i);
            let lower = lower.map(|&j| estimates[i] - estimates[j] - judged[j].1 * error(j));
            let interval95 = [lower.fold(0.0, f64::min), upper.fold(f64::INFINITY, f64::min).max(0.0)];
            ToBest { difference, interval95, p_value, within_noise: is_candidate(i) }
        })
        .collect()
}

/// Standard errors of the differences of every two estimates.
struct Errors<'a> {
    /// Of the estimates, `count` x `count`.
    covariance: &'a [f64],
    count: usize,
}

impl Errors<'_> {
    fn at(&self, i: usize, j: usize) -> f64 {
        self.covariance[i * self.count + j]
    }

    /// The error that rounding may make of a difference without a variance.
    fn rounding(&self, i: usize, j: usize) -> f64 {
        (ROUNDING * (self.at(i, i) + self.at(j, j))).max(0.0).sqrt()
    }

    /// The error; 0 where almost the same samples decide both, and what is left of the variance is rounding.
    fn of(&self, i: usize, j: usize) -> f64 {
        let error = (self.at(i, i) + self.at(j, j) - 2.0 * self.at(i, j)).max(0.0).sqrt();
        if error > self.rounding(i, j) { error } else { 0.0 }
    }
}

/// Of each draw of W, for every score i, the largest (Wⱼ − Wᵢ) / sᵢⱼ; 0 for a difference without an error.
fn maxima(errors: &Errors<'_>, degrees: f64, draws: u32) -> Vec<Vec<f64>> {
    let count = errors.count;
    let factor = cholesky(errors.covariance, count);
    let inverse = |cell: usize| {
        let error = errors.of(cell / count, cell % count);
        if error > 0.0 { 1.0 / error } else { 0.0 }
    };
    let inverse: Vec<f64> = (0..count * count).map(inverse).collect();
    (0..u64::from(draws))
        .into_par_iter()
        .map(|draw| {
            let stream = Stream::for_purpose(0, Purpose::Bootstrap, &[BEST, draw]);
            let normal: Vec<f64> = (0..count as u64).map(|i| stream.normal(i)).collect();
            let row = |i: usize| &factor[i * count..=i * count + i];
            let scale = 1.0 / chi_square_over_degrees(stream.normal(count as u64), degrees).sqrt();
            let value = |i: usize| scale * row(i).iter().zip(&normal).map(|(a, b)| a * b).sum::<f64>();
            let values: Vec<f64> = (0..count).map(value).collect();
            let largest = |i: usize| {
                let lead = |j: usize| (values[j] - values[i]) * inverse[i * count + j];
                (0..i).chain(i + 1..count).map(lead).fold(f64::NEG_INFINITY, f64::max)
            };
            (0..count).map(largest).collect()
        })
        .collect()
}

/// A χ² variable over its degrees of freedom, from a normal one (Wilson and Hilferty, 1931): off by less than 1 % of its standard deviation from ten
/// degrees on.
fn chi_square_over_degrees(normal: f64, degrees: f64) -> f64 {
    let part = 2.0 / (9.0 * degrees);
    (1.0 - part + normal * part.sqrt()).max(1e-3).powi(3)
}

/// The lower triangular factor of a covariance that may be singular: equal scores add nothing to the ones before them.
fn cholesky(covariance: &[f64], count: usize) -> Vec<f64> {
    let mut factor = vec![0.0; count * count];
    for j in 0..count {
        let (above, own) = factor.split_at(j * count);
        let mut own: Vec<f64> = own[..count].to_vec();
        for i in 0..j {
            let row = &above[i * count..];
            let taken: f64 = row[..i].iter().zip(&own).map(|(a, b)| a * b).sum();
            own[i] = if row[i] > 0.0 { (covariance[j * count + i] - taken) / row[i] } else { 0.0 };
        }
        let diagonal = covariance[j * count + j];
        let left = diagonal - own[..j].iter().map(|value| value * value).sum::<f64>();
        own[j] = if left > ROUNDING * diagonal { left.sqrt() } else { 0.0 };
        factor[j * count..(j + 1) * count].copy_from_slice(&own);
    }
    factor
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ood::metrics::{DeLong, ScoredSides};

    const REPETITIONS: u64 = 400;
    const FEW_DRAWS: u32 = 1999;
    const SAMPLES: u64 = 150;

    /// Results of scores of the same samples, ID samples at these distances; `shared` is the correlation of the scores of one sample.
    fn results(repetition: u64, distances: &[f64], shared: f64) -> Vec<ToBest> {
        let stream = |word: u64| Stream::for_purpose(11, Purpose::Synthetic, &[repetition, word]);
        let common = stream(0);
        let side = |score: usize, from: u64, distance: f64| -> Vec<f64> {
            let own = stream(1 + score as u64);
            let value = |i| shared.sqrt() * common.normal(i) + (1.0 - shared).sqrt() * own.normal(i);
            (from..from + SAMPLES).map(|i| value(i) + distance).collect()
        };
        let drawn: Vec<[Vec<f64>; 2]> = (0..distances.len())
            .map(|score| [side(score, 0, distances[score]), side(score, SAMPLES, 0.0)])
            .collect();
        let sides: Vec<ScoredSides<'_>> = drawn.iter().map(|[id, ood]| (&id[..], &ood[..])).collect();
        let found = DeLong::new(&sides).unwrap();
        let scores = 0..distances.len();
        let covariance: Vec<f64> = scores
            .clone()
            .flat_map(|a| (0..distances.len()).map(move |b| (a, b)))
            .map(|(a, b)| found.covariance(a, b))
            .collect();
        let estimates: Vec<f64> = scores.map(|score| found.auroc(score)).collect();
        compare(&estimates, &covariance, SAMPLES as f64 - 1.0, FEW_DRAWS)
    }

    /// AUROC of normal confidences at a distance d: Φ(d / √2).
    fn auroc(distance: f64) -> f64 {
        0.5 * statrs::function::erf::erfc(-distance / 2.0)
    }

    #[test]
    fn the_best_score_stays_within_noise_and_all_intervals_hold_at_once() {
        // One best score; the best shared by several; all equal; a crowd.
        let alike = [1.0; 6];
        let crowd: Vec<f64> = (0..20).map(|i| 1.0 - 0.02 * f64::from(i / 4)).collect();
        for (distances, shared, sharp) in [
            (&[1.3, 1.1, 1.0, 0.4][..], 0.6, false),
            (&[1.0, 1.0, 1.0, 0.6, 0.2], 0.5, false),
            (&alike, 0.7, true),
            (&alike, 0.0, true),
            (&crowd, 0.5, false),
        ] {
            let truth: Vec<f64> = distances.iter().map(|distance| auroc(*distance)).collect();
            let (mut kept, mut covered) = (0, 0);
            for repetition in 0..REPETITIONS {
                let found = results(repetition, distances, shared);
                kept += u64::from(found[0].within_noise);
                let holds = |i: usize| {
                    let others = truth.iter().enumerate().filter(|(j, _)| *j != i);
                    let best = others.map(|(_, theta)| *theta).fold(f64::NEG_INFINITY, f64::max);
                    let [low, high] = found[i].interval95;
                    (low..=high).contains(&(truth[i] - best))
                };
                covered += u64::from((0..truth.len()).all(holds));
            }
            let share = |count: u64| count as f64 / REPETITIONS as f64;
            println!("{distances:?}: best kept {:.3}, all intervals {:.3}", share(kept), share(covered));
            // 95 %, less three standard deviations of the simulation and of its quantiles; where all are equal it is 95 % exactly.
            assert!(share(kept) >= 0.91, "{distances:?}: the best was kept in {:.3}", share(kept));
            assert!(share(covered) >= 0.91, "{distances:?}: all intervals held in {:.3}", share(covered));
            assert!(!sharp || share(kept) <= 0.986, "{distances:?}: {:.3} is too many", share(kept));
        }
    }

    #[test]
    fn without_the_correction_the_best_of_equals_is_lost() {
        let equal = [1.0; 20];
        let lost = |is_lost: &dyn Fn(&[ToBest]) -> bool| {
            (0..REPETITIONS).filter(|repetition| is_lost(&results(*repetition, &equal, 0.3))).count() as f64
                / REPETITIONS as f64
        };
        // As if the winner had been named beforehand: one comparison at 5 %, with the errors of these normal scores.
        let error = {
            let spread: Vec<f64> = (0..REPETITIONS)
                .map(|repetition| {
                    let found = results(repetition, &[1.0, 1.0], 0.3);
                    found[0].difference
                })
                .collect();
            (spread.iter().map(|value| value * value).sum::<f64>() / spread.len() as f64).sqrt()
        };
        let naive = lost(&|found| found[0].difference < -1.645 * error);
        let corrected = lost(&|found| !found[0].within_noise);
        println!("lost: {naive:.3} without a correction, {corrected:.3} with it");
        assert!(naive > 0.25, "{naive}");
        assert!(corrected < 0.09, "{corrected}");
    }

    #[test]
    fn what_is_clearly_worse_is_said_to_be() {
        let mut told = 0;
        for repetition in 0..100 {
            let found = results(repetition, &[2.0, 1.2, 1.9], 0.8);
            told += u64::from(!found[1].within_noise && found[1].interval95[1] == 0.0);
            assert!(found[1].difference < 0.0 && (0.0..=1.0).contains(&found[1].p_value));
            for one in &found {
                assert_eq!(one.within_noise, one.p_value > 0.05);
                assert!(one.interval95[0] <= one.difference && one.difference <= one.interval95[1]);
            }
        }
        assert!(told >= 99, "{told} of 100");
    }

    #[test]
    fn intervals_and_p_values_of_two_scores_are_the_textbooks() {
        // One comparison: a one-sided test. scipy.stats.norm.sf(2) = 0.02275; norm.ppf(0.95) = 1.64485.
        let found = with_best(&[0.90, 0.88], &[0.0001, 0.00005, 0.00005, 0.0001], 1e9);
        assert!((found[1].p_value - 0.02275).abs() < 0.005, "{}", found[1].p_value);
        assert!((found[0].p_value - 0.97725).abs() < 0.005);
        assert!(found[0].within_noise && !found[1].within_noise);
        // The first is alone, so it is certainly the best, and ahead by at most 0.02 + 1.64485 * 0.01.
        assert_eq!((found[0].interval95[0], found[1].interval95[1]), (0.0, 0.0));
        assert!((found[0].interval95[1] - 0.036_448_5).abs() < 0.000_4, "{:?}", found[0].interval95);
        assert!((found[1].interval95[0] + 0.036_448_5).abs() < 0.000_4, "{:?}", found[1].interval95);
    }

    #[test]
    fn few_samples_widen_the_intervals_as_student_says() {
        // scipy.stats.t.ppf(0.95, 9) = 1.833113; of 1e9 degrees 1.644854.
        let found = with_best(&[0.90, 0.88], &[0.0001, 0.00005, 0.00005, 0.0001], 9.0);
        assert!((found[0].interval95[1] - 0.038_331_1).abs() < 0.000_5, "{:?}", found[0].interval95);
    }

    #[test]
    fn equal_and_almost_equal_scores_are_within_noise_of_each_other() {
        // The same score twice, one that differs from them in one pair of a billion, and a perfect one without variance.
        let v = 5e-6;
        let found = with_best(&[0.9, 0.9, 0.9 - 1e-9], &[v; 9], 100.0);
        assert!(found.iter().all(|one| one.within_noise && one.interval95[0] > -1e-8), "{found:?}");
        let constant = with_best(&[1.0, 0.5], &[0.0; 4], 100.0);
        assert!(constant[0].within_noise && !constant[1].within_noise);
        assert_eq!(with_best(&[0.5, 0.5], &[0.0; 4], 100.0)[1].interval95, [0.0, 0.0]);
        assert!(with_best(&[0.5], &[0.1], 100.0).is_empty());
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let covariance: Vec<f64> =
            (0..64).map(|cell| if cell / 8 == cell % 8 { 2e-5 } else { 1e-5 }).collect();
        let estimates: Vec<f64> = (0..8).map(|i| 0.9 - 0.001 * f64::from(i)).collect();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| with_best(&estimates, &covariance, 50.0))
        };
        assert_eq!(with(1), with(3));
    }
}

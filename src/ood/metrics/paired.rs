//! Differences of FPR95 between two networks, with bootstrap intervals.
//!
//! A false positive rate at a true positive rate is a share beyond a quantile, and has no variance in closed form that would hold for small
//! samples: ID and OOD samples are drawn again, with replacement, and the interval runs between percentiles of the
//! differences (Efron and Tibshirani, 1993, chapter 13). On the same samples a replicate draws the same samples for both networks, so
//! that what is hard for both cancels; on different samples it draws for each. Of a few hundred samples such intervals are wider than they
//! need to be: 98 % instead of 95 % covered with 250 a side and a correlation of 0.8, 96 % with 1000.

use rayon::prelude::*;

use super::bootstrap::{COVERAGE, Interval, quantile};
use super::curve::{self, Curve, Group};
use super::{ScoredSides, TPR};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};

/// Both FPR95 of one score by two networks: the second minus the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FprDifference {
    /// OOD positive: the difference of the networks, and its 95 % interval.
    pub fpr95: (f64, Interval),
    /// ID positive: the same.
    pub fpr95_id_positive: (f64, Interval),
}

/// Differences of FPR95 by several scores of two networks, the second minus the first, with intervals from `replicates` resamples; the same
/// bits for any number of threads. `paired` says that both networks scored the same samples in the same order.
///
/// # Errors
/// Fewer than 2 replicates; a side that is empty or holds a score that is not finite; scores of a network, or with `paired` of both, that
/// are of different numbers of samples.
pub fn fpr95_differences(
    scores: &[(ScoredSides<'_>, ScoredSides<'_>)],
    paired: bool,
    replicates: u32,
    seed: u64,
) -> Result<Vec<FprDifference>> {
    if replicates < 2 {
        return Err(Error::invalid(format!(
            "a bootstrap interval needs at least 2 replicates, found {replicates}; 1000 is customary"
        )));
    }
    let Some((a, b)) = scores.first() else { return Ok(Vec::new()) };
    let extents = [extent(a), extent(b)];
    if paired && extents[0] != extents[1] {
        return Err(unequal(extents[0], extents[1]));
    }
    let ranked = scores.iter().map(|(a, b)| Ok([Ranked::new(a, extents[0])?, Ranked::new(b, extents[1])?]));
    let ranked: Vec<[Ranked; 2]> = ranked.collect::<Result<_>>()?;
    let whole: Vec<[f64; 2]> = ranked.iter().map(|pair| difference(pair, [None, None])).collect();
    let drawn: Vec<Vec<[f64; 2]>> = (0..replicates)
        .into_par_iter()
        .map(|replicate| {
            let first = Resample::draw(seed, replicate, 0, extents[0]);
            let second = (!paired).then(|| Resample::draw(seed, replicate, 1, extents[1]));
            let counts = [Some(&first), Some(second.as_ref().unwrap_or(&first))];
            ranked.iter().map(|pair| difference(pair, counts)).collect()
        })
        .collect();
    let interval = |score: usize, metric: usize| {
        let mut values: Vec<f64> = drawn.iter().map(|replicate| replicate[score][metric]).collect();
        percentiles(&mut values)
    };
    let of = |(score, whole): (usize, &[f64; 2])| FprDifference {
        fpr95: (whole[0], interval(score, 0)),
        fpr95_id_positive: (whole[1], interval(score, 1)),
    };
    Ok(whole.iter().enumerate().map(of).collect())
}

/// The percentiles that hold [`COVERAGE`] of the replicates between them.
pub(crate) fn percentiles(values: &mut [f64]) -> Interval {
    values.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - COVERAGE) / 2.0;
    [quantile(values, tail), quantile(values, 1.0 - tail)]
}

/// Numbers of ID and OOD samples.
type Extents = (usize, usize);

fn extent((id, ood): &ScoredSides<'_>) -> Extents {
    (id.len(), ood.len())
}

fn unequal(expected: Extents, found: Extents) -> Error {
    Error::invalid(format!(
        "scores of {} ID and {} OOD samples are compared with scores of {} and {}; they must be of the same samples",
        expected.0, expected.1, found.0, found.1
    ))
}

/// How often each sample was drawn.
struct Resample {
    id: Vec<u32>,
    ood: Vec<u32>,
}

impl Resample {
    fn draw(seed: u64, replicate: u32, network: u64, (n, m): Extents) -> Resample {
        let side = |side: u64, count: usize| resample(seed, &[u64::from(replicate), network, side], count);
        Resample { id: side(0, n), ood: side(1, m) }
    }
}

/// How often each of `count` samples is drawn by as many draws with replacement; `path` names the draw.
pub(crate) fn resample(seed: u64, path: &[u64], count: usize) -> Vec<u32> {
    let stream = Stream::for_purpose(seed, Purpose::Bootstrap, path);
    let mut times = vec![0u32; count];
    (0..count as u64).for_each(|i| times[stream.below(i, count as u64) as usize] += 1);
    times
}

/// One score of one network: of each sample the number of its threshold, counted from the largest score.
struct Ranked {
    id: Vec<u32>,
    ood: Vec<u32>,
    thresholds: usize,
}

impl Ranked {
    fn new(sides: &ScoredSides<'_>, expected: Extents) -> Result<Ranked> {
        if extent(sides) != expected {
            return Err(unequal(expected, extent(sides)));
        }
        let curve = Curve::with_names(sides.0, sides.1, "ID", "OOD")?;
        let thresholds = curve.thresholds();
        let place = |score: &f64| thresholds.partition_point(|threshold| threshold > score) as u32;
        let places = |scores: &[f64]| scores.iter().map(place).collect();
        Ok(Ranked { id: places(sides.0), ood: places(sides.1), thresholds: thresholds.len() })
    }

    /// FPR95 with OOD positive and with ID positive, of all samples or of a resample.
    fn rates(&self, drawn: Option<&Resample>) -> [f64; 2] {
        let mut groups = vec![Group::default(); self.thresholds];
        let times =
            |times: Option<&Vec<u32>>, sample: usize| times.map_or(1, |times| u64::from(times[sample]));
        for (sample, place) in self.id.iter().enumerate() {
            groups[*place as usize].positives += times(drawn.map(|drawn| &drawn.id), sample);
        }
        for (sample, place) in self.ood.iter().enumerate() {
            groups[*place as usize].negatives += times(drawn.map(|drawn| &drawn.ood), sample);
        }
        let totals = Group { positives: self.id.len() as u64, negatives: self.ood.len() as u64 };
        let id_positive = curve::fpr_at_tpr(&groups, totals, TPR);
        // The opposite curve in place: decreasing negated scores, roles exchanged.
        groups.reverse();
        groups.iter_mut().for_each(|group| *group = group.swapped());
        [curve::fpr_at_tpr(&groups, totals.swapped(), TPR), id_positive]
    }
}

fn difference(pair: &[Ranked; 2], drawn: [Option<&Resample>; 2]) -> [f64; 2] {
    let (a, b) = (pair[0].rates(drawn[0]), pair[1].rates(drawn[1]));
    [b[0] - a[0], b[1] - a[1]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ood::metrics::OodMetrics;

    type Sides = (Vec<f64>, Vec<f64>);

    /// Confidences of two networks on the same samples, of correlation 0.8; the ID means are 2.2 and 1.8.
    fn draw(repetition: u64, n: u64, m: u64) -> [Sides; 2] {
        let stream = |word| Stream::for_purpose(4, Purpose::Synthetic, &[repetition, word]);
        let (common, own) = (stream(0), [stream(1), stream(2)]);
        [(0, 2.2), (1, 1.8)].map(|(network, mean)| {
            let network: usize = network;
            let value = |i: u64| 0.8f64.sqrt() * common.normal(i) + 0.2f64.sqrt() * own[network].normal(i);
            ((0..n).map(|i| value(i) + mean).collect(), (n..n + m).map(value).collect())
        })
    }

    fn sides(of: &Sides) -> ScoredSides<'_> {
        (&of.0, &of.1)
    }

    #[test]
    fn the_difference_is_that_of_the_metrics() {
        let [a, b] = draw(1, 60, 40);
        let found = fpr95_differences(&[(sides(&a), sides(&b))], true, 20, 0).unwrap()[0];
        let (a, b) = (OodMetrics::evaluate(&a.0, &a.1).unwrap(), OodMetrics::evaluate(&b.0, &b.1).unwrap());
        assert!((found.fpr95.0 - (b.fpr95 - a.fpr95)).abs() < 1e-15);
        assert!((found.fpr95_id_positive.0 - (b.fpr95_id_positive - a.fpr95_id_positive)).abs() < 1e-15);
    }

    #[test]
    fn a_replicate_draws_the_same_samples_for_both_networks() {
        let [a, _] = draw(2, 60, 40);
        let same = [(sides(&a), sides(&a))];
        let nothing = (0.0, [0.0, 0.0]);
        let paired = fpr95_differences(&same, true, 50, 1).unwrap()[0];
        assert_eq!((paired.fpr95, paired.fpr95_id_positive), (nothing, nothing));
        let unpaired = fpr95_differences(&same, false, 50, 1).unwrap()[0].fpr95.1;
        assert!(unpaired[0] < 0.0 && unpaired[1] > 0.0, "{unpaired:?}");
    }

    #[test]
    fn intervals_of_a_difference_of_fpr95_cover_it_and_are_narrower_than_unpaired_ones() {
        const REPETITIONS: u64 = 300;
        // OOD is standard normal: 95 % of it lies below 1.645; the share of ID there is Φ(1.645 − mean).
        let flagged = |mean: f64| 0.5 * statrs::function::erf::erfc((mean - 1.644_853_627) / 2f64.sqrt());
        let truth = flagged(1.8) - flagged(2.2);
        let (mut covered, mut width, mut unpaired_width) = (0, 0.0, 0.0);
        for repetition in 0..REPETITIONS {
            let [a, b] = draw(100 + repetition, 600, 600);
            let pair = [(sides(&a), sides(&b))];
            let [low, high] = fpr95_differences(&pair, true, 200, repetition).unwrap()[0].fpr95.1;
            covered += u64::from(low <= truth && truth <= high);
            width += high - low;
            if repetition % 10 == 0 {
                let [low, high] = fpr95_differences(&pair, false, 200, repetition).unwrap()[0].fpr95.1;
                unpaired_width += 10.0 * (high - low);
            }
        }
        let share = covered as f64 / REPETITIONS as f64;
        println!("covered {share}, widths {width} and {unpaired_width}");
        // Errs to the safe side: a quantile of few samples moves in steps, and a resample's more than the sample's.
        assert!((0.93..=0.985).contains(&share), "{share} covered");
        assert!(width < 0.8 * unpaired_width, "{width} {unpaired_width}");
    }

    #[test]
    fn intervals_do_not_depend_on_the_number_of_threads() {
        let [a, b] = draw(3, 200, 100);
        let pair = [(sides(&a), sides(&b))];
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| fpr95_differences(&pair, true, 64, 7).unwrap())
        };
        assert_eq!(with(1), with(3));
    }

    #[test]
    fn other_samples_are_refused_unless_they_are_said_to_be_others() {
        let ([a, _], [_, b]) = (draw(4, 30, 20), draw(5, 31, 20));
        let pair = [(sides(&a), sides(&b))];
        let message = fpr95_differences(&pair, true, 10, 0).unwrap_err().to_string();
        assert!(message.contains("30 ID and 20 OOD samples are compared with scores of 31"), "{message}");
        assert_eq!(fpr95_differences(&pair, false, 10, 0).unwrap().len(), 1);
        assert!(fpr95_differences(&pair, false, 1, 0).unwrap_err().to_string().contains("at least 2"));
        assert_eq!(fpr95_differences(&[], true, 10, 0).unwrap(), []);
    }
}

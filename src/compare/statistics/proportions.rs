//! Differences of two accuracies: of counts, so that the interval stays within ±1 and holds where one of them is 0 or 1.

use statrs::function::beta::beta_reg;

use super::Found;
use crate::ood::metrics::{Interval, normal_quantile};

/// Samples by which of two networks is right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Agreement {
    /// Both are right.
    pub both: u64,
    /// The first alone is.
    pub first: u64,
    /// The second alone is.
    pub second: u64,
    /// Neither is.
    pub neither: u64,
}

impl Agreement {
    /// Counts of samples that both networks classified.
    pub fn of(right: impl IntoIterator<Item = (bool, bool)>) -> Agreement {
        let mut counts = Agreement::default();
        for (first, second) in right {
            *match (first, second) {
                (true, true) => &mut counts.both,
                (true, false) => &mut counts.first,
                (false, true) => &mut counts.second,
                (false, false) => &mut counts.neither,
            } += 1;
        }
        counts
    }

    /// All samples.
    pub fn samples(&self) -> u64 {
        self.both + self.first + self.second + self.neither
    }

    /// The exact two-sided test that each network is right alone equally often (McNemar, Psychometrika 12, 1947): twice the smaller tail
    /// of the binomial distribution with share ½ over the samples on which one alone is right.
    pub fn mcnemar(&self) -> f64 {
        let (few, all) = (self.first.min(self.second), self.first + self.second);
        if 2 * few == all {
            return 1.0;
        }
        // P(X ≤ k) of n is the regularised incomplete beta function I(½; n − k, k + 1).
        (2.0 * beta_reg((all - few) as f64, few as f64 + 1.0, 0.5)).min(1.0)
    }

    /// Accuracy of the second network minus that of the first, by Newcombe's method 10 for paired data (Statistics in Medicine 17, 1998,
    /// 2635): the distances of Wilson's bounds from both shares are added as vectors at the angle that the correlation φ
    /// of the two outcomes asks for. `None` of no samples.
    pub(in crate::compare) fn difference(&self) -> Option<Found> {
        let n = self.samples();
        if n == 0 {
            return None;
        }
        let counts = [self.both + self.second, self.both + self.first];
        let [p1, p2] = counts.map(|count| count as f64 / n as f64);
        let interval =
            square_and_add((p1, wilson(counts[0], n)), (p2, wilson(counts[1], n)), self.correlation());
        Some(Found {
            value: p1 - p2,
            interval: Some(interval),
            p_value: Some(self.mcnemar()),
            method: "Newcombe, paired; McNemar",
        })
    }

    /// φ of the 2x2 table, a positive one with the continuity correction of method 10; 0 where a margin is empty.
    fn correlation(&self) -> f64 {
        let [a, b, c, d] = [self.both, self.second, self.first, self.neither].map(|count| count as f64);
        let margins = (a + b) * (c + d) * (a + c) * (b + d);
        if margins == 0.0 {
            return 0.0;
        }
        let determinant = a * d - b * c;
        let half = (a + b + c + d) / 2.0;
        (if determinant > 0.0 { (determinant - half).max(0.0) } else { determinant }) / margins.sqrt()
    }
}

/// Accuracy of the second network minus that of the first, each counted on samples of its own, by Newcombe's method 10 for independent
/// proportions (Statistics in Medicine 17, 1998, 873). `None` where one has no samples.
pub(in crate::compare) fn independent_difference(first: (u64, u64), second: (u64, u64)) -> Option<Found> {
    if first.1 == 0 || second.1 == 0 {
        return None;
    }
    let [(p1, w1), (p2, w2)] =
        [second, first].map(|(count, of)| (count as f64 / of as f64, wilson(count, of)));
    let interval = square_and_add((p1, w1), (p2, w2), 0.0);
    Some(Found { value: p1 - p2, interval: Some(interval), p_value: None, method: "Newcombe, unpaired" })
}

/// Wilson's score interval of a share (Journal of the American Statistical Association 22, 1927).
fn wilson(count: u64, of: u64) -> Interval {
    let (p, n, z) = (count as f64 / of as f64, of as f64, normal_quantile());
    let middle = p + z * z / (2.0 * n);
    let reach = z * ((p * (1.0 - p) + z * z / (4.0 * n)) / n).max(0.0).sqrt();
    let scale = 1.0 + z * z / n;
    // Rounding must not move a bound of nothing or of all inside.
    let low = if count == 0 { 0.0 } else { ((middle - reach) / scale).max(0.0) };
    let high = if count == of { 1.0 } else { ((middle + reach) / scale).min(1.0) };
    [low, high]
}

/// The interval of p1 − p2 from those of both.
fn square_and_add((p1, [l1, u1]): (f64, Interval), (p2, [l2, u2]): (f64, Interval), phi: f64) -> Interval {
    let added = |a: f64, b: f64| (a * a - 2.0 * phi * a * b + b * b).max(0.0).sqrt();
    [p1 - p2 - added(p1 - l1, u2 - p2), p1 - p2 + added(u1 - p1, p2 - l2)]
}

#[cfg(test)]
mod tests {
    use super::super::simulation::{coverage, stream};
    use super::*;

    /// A test set on which the second network is right alone, the first alone, both, or neither, by these chances.
    fn draw(repetition: u64, n: u64, [both, first, second]: [f64; 3]) -> Agreement {
        let stream = stream(repetition, 1);
        Agreement::of((0..n).map(|i| match stream.uniform(i) {
            u if u < both => (true, true),
            u if u < both + first => (true, false),
            u if u < both + first + second => (false, true),
            _ => (false, false),
        }))
    }

    fn unpaired(counts: &Agreement) -> Interval {
        let n = counts.samples();
        let found = independent_difference((counts.both + counts.first, n), (counts.both + counts.second, n));
        found.unwrap().interval.unwrap()
    }

    #[test]
    fn intervals_of_a_difference_of_accuracies_cover_it_and_are_narrower_than_unpaired_ones() {
        // Few and many samples, small and large differences, strong and weak correlation, accuracies near 1.
        let cases = [
            (200, [0.75, 0.06, 0.11]),
            (1000, [0.88, 0.03, 0.03]),
            (60, [0.50, 0.10, 0.25]),
            (400, [0.96, 0.01, 0.02]),
            (300, [0.42, 0.28, 0.28]),
        ];
        for (n, chances) in cases {
            let truth = chances[2] - chances[1];
            let interval = |repetition| draw(repetition, n, chances).difference().unwrap().interval.unwrap();
            let share = coverage(2000, truth, interval);
            assert!((0.935..=0.975).contains(&share), "{n} samples, {chances:?}: {share} covered");
            println!("{n} samples, {chances:?}: {share} covered");
            let width = |interval: Interval| interval[1] - interval[0];
            let paired: f64 = (0..100).map(|repetition| width(interval(repetition))).sum();
            let apart: f64 = (0..100).map(|repetition| width(unpaired(&draw(repetition, n, chances)))).sum();
            // Correlated outcomes cancel; those of the last case are anticorrelated, and do not.
            println!("mean widths {} and {}", paired / 100.0, apart / 100.0);
            assert_eq!(
                paired < 0.95 * apart,
                chances[0] > 0.45,
                "{n} samples, {chances:?}: {paired} {apart}"
            );
        }
    }

    #[test]
    fn unpaired_intervals_cover_the_difference_of_independent_test_sets() {
        let interval = |repetition: u64| {
            let right = |word: u64, n: u64, share: f64| {
                (0..n).filter(|&i| stream(repetition, word).uniform(i) < share).count() as u64
            };
            let found = independent_difference((right(2, 150, 0.8), 150), (right(3, 220, 0.87), 220));
            found.unwrap().interval.unwrap()
        };
        let share = coverage(2000, 0.07, interval);
        assert!((0.935..=0.965).contains(&share), "{share}");
    }

    #[test]
    fn a_sure_difference_is_rejected_and_no_difference_rarely() {
        let rejected = |chances| (0..1000).filter(|&r| draw(r, 300, chances).mcnemar() < 0.05).count();
        assert!(rejected([0.7, 0.1, 0.1]) <= 50, "the exact test keeps its level");
        assert!(rejected([0.7, 0.03, 0.15]) > 950);
    }

    #[test]
    fn intervals_are_those_of_the_published_method() {
        // Counts of both, first alone, second alone, neither, as in Newcombe's examples, where the difference is the first share minus the
        // second; an independent implementation in Python, with SciPy's Wilson bounds.
        let cases: [([u64; 4], Interval); 6] = [
            ([36, 12, 2, 0], [0.056_929_584_003_238_75, 0.340_427_602_974_940_8]),
            ([20, 12, 2, 16], [0.056_156_424_841_748_29, 0.329_206_995_400_140_5]),
            ([43, 0, 1, 0], [-0.118_077_096_982_132_87, 0.059_718_008_350_899]),
            ([50, 0, 0, 0], [-0.071_347_599_133_358_75, 0.071_347_599_133_358_75]),
            ([0, 10, 0, 0], [0.607_509_350_430_524_2, 1.0]),
            ([9100, 400, 300, 200], [0.004_818_676_356_668_284, 0.015_210_284_076_149_853]),
        ];
        for ([both, second, first, neither], want) in cases {
            let found = Agreement { both, first, second, neither }.difference().unwrap().interval.unwrap();
            for (found, want) in found.into_iter().zip(want) {
                assert!((found - want).abs() < 1e-9, "{both} {first} {second} {neither}: {found} {want}");
            }
        }
        let found = independent_difference((48, 80), (56, 70)).unwrap().interval.unwrap();
        assert!(
            (found[0] - 0.052_431_472_402_364_84).abs() < 1e-9
                && (found[1] - 0.333_872_654_036_905_9).abs() < 1e-9
        );
    }

    #[test]
    fn p_values_are_scipys() {
        // scipy.stats.binomtest(min(b, c), b + c, 0.5).pvalue
        for (first, second, want) in [
            (1, 9, 0.021_484_375),
            (5, 5, 1.0),
            (0, 3, 0.25),
            (120, 150, 0.077_389_398_980_218_49),
            (2, 1, 1.0),
            (0, 0, 1.0),
        ] {
            let counts = Agreement { both: 7, first, second, neither: 2 };
            assert!((counts.mcnemar() - want).abs() < 1e-10, "{first} {second}: {}", counts.mcnemar());
        }
    }

    #[test]
    fn no_samples_have_no_difference() {
        assert_eq!(Agreement::default().difference(), None);
        assert_eq!(independent_difference((0, 0), (1, 2)), None);
    }
}

//! Differences of means: of losses over test samples, and of any number over seeds.

use statrs::function::beta::{beta_reg, inv_beta_reg};

use super::Found;
use crate::ood::metrics::{COVERAGE, normal_quantile};

/// Mean of the second minus mean of the first, of numbers of the same samples: the t interval of the differences sample by sample.
/// `None` of no samples, or of other numbers of them.
pub(in crate::compare) fn paired_mean_difference(first: &[f64], second: &[f64]) -> Option<Found> {
    if first.is_empty() || first.len() != second.len() {
        return None;
    }
    let differences: Vec<f64> = first.iter().zip(second).map(|(first, second)| second - first).collect();
    let moments = Moments::of(&differences)?;
    let (error, freedom) = (moments.variance.map(|v| (v / moments.count).sqrt()), moments.count - 1.0);
    Some(by_t(moments.mean, error, freedom, "paired t"))
}

/// Mean of the second minus mean of the first, of different samples: Welch's t interval (Biometrika 34, 1947). `None` where one has no
/// samples.
pub(in crate::compare) fn mean_difference(first: &[f64], second: &[f64]) -> Option<Found> {
    let (a, b) = (Moments::of(first)?, Moments::of(second)?);
    Some(welch(&a, &b, "Welch t"))
}

/// A number of a seed.
pub(in crate::compare) type OfSeed = (u64, f64);

/// Mean over the seeds of the second run minus that of the first, with a t interval that covers how trainings differ, on the test samples
/// that they share.
///
/// Runs of the same seeds are compared seed by seed, since equal seeds draw equal subsets and orders of the data and that part
/// cancels. Runs of other seeds are independent: Welch's interval. Against a run of one training its spread is taken to be that of the
/// other (Student's interval with n − 1 degrees of freedom). `None` where a run has no seed.
pub(in crate::compare) fn over_seeds(first: &[OfSeed], second: &[OfSeed]) -> Option<Found> {
    let values = |of: &[OfSeed]| of.iter().map(|(_, value)| *value).collect::<Vec<f64>>();
    let seeds = |of: &[OfSeed]| of.iter().map(|(seed, _)| *seed).collect::<Vec<u64>>();
    let (x, y) = (values(first), values(second));
    if seeds(first) == seeds(second) {
        return Some(Found { method: "t over seeds, seed by seed", ..paired_mean_difference(&x, &y)? });
    }
    let (a, b) = (Moments::of(&x)?, Moments::of(&y)?);
    match (a.variance, b.variance) {
        (Some(_), Some(_)) => Some(welch(&a, &b, "Welch t over seeds")),
        (variance, other) => {
            let error = variance.or(other).map(|v| (v / a.count + v / b.count).sqrt());
            let freedom = a.count + b.count - 2.0;
            Some(by_t(b.mean - a.mean, error, freedom, "t over seeds, one training against several"))
        }
    }
}

/// Mean and variance (dividing by n − 1) of some numbers.
struct Moments {
    count: f64,
    mean: f64,
    /// Of one number there is none.
    variance: Option<f64>,
}

impl Moments {
    fn of(values: &[f64]) -> Option<Moments> {
        if values.is_empty() {
            return None;
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Moments { count, mean, variance: (values.len() > 1).then(|| squares / (count - 1.0)) })
    }
}

fn welch(a: &Moments, b: &Moments, method: &'static str) -> Found {
    let (Some(va), Some(vb)) = (a.variance, b.variance) else {
        return by_t(b.mean - a.mean, None, 0.0, method);
    };
    let (va, vb) = (va / a.count, vb / b.count);
    // Satterthwaite's degrees of freedom.
    let below = va * va / (a.count - 1.0) + vb * vb / (b.count - 1.0);
    let freedom = if below > 0.0 { (va + vb).powi(2) / below } else { a.count + b.count - 2.0 };
    by_t(b.mean - a.mean, Some((va + vb).sqrt()), freedom, method)
}

/// Estimate, interval and test by Student's t distribution.
fn by_t(value: f64, error: Option<f64>, freedom: f64, method: &'static str) -> Found {
    let Some(error) = error.filter(|error| error.is_finite() && freedom > 0.0) else {
        return Found { value, interval: None, p_value: None, method };
    };
    let reach = t_quantile(freedom) * error;
    let p_value = match error > 0.0 {
        true => two_tails(value / error, freedom),
        false => f64::from(u8::from(value == 0.0)),
    };
    Found { value, interval: Some([value - reach, value + reach]), p_value: Some(p_value), method }
}

/// P(|T| > |t|), by the regularised incomplete beta function I(ν / (ν + t²); ν/2, ½).
fn two_tails(t: f64, freedom: f64) -> f64 {
    let x = freedom / (freedom + t * t);
    if x >= 1.0 { 1.0 } else { beta_reg(freedom / 2.0, 0.5, x) }
}

/// The t beyond which both tails together hold what [`COVERAGE`] leaves.
fn t_quantile(freedom: f64) -> f64 {
    if freedom > 1000.0 {
        // The expansion around the normal quantile (Abramowitz and Stegun, 26.7.5): three terms leave less than 1e-9.
        let (z, v) = (normal_quantile(), freedom);
        let (z3, z5) = (z.powi(3), z.powi(5));
        return z + (z3 + z) / (4.0 * v) + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * v * v);
    }
    // t² / (ν + t²) is beta distributed, with parameters ½ and ν / 2.
    let y = inv_beta_reg(0.5, freedom / 2.0, COVERAGE);
    (freedom * y / (1.0 - y)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::simulation::{coverage, stream};
    use super::*;

    #[test]
    fn quantiles_and_tails_are_scipys() {
        // scipy.stats.t.ppf(0.975, v), 2 * scipy.stats.t.sf(t, v)
        for (freedom, want) in [
            (1.0, 12.706_204_736_174_694),
            (2.0, 4.302_652_729_749_462),
            (9.0, 2.262_157_162_798_205),
            (3.7, 2.867_520_707_191_19),
            (999.0, 1.962_341_461_133_449_3),
            (1001.0, 1.962_336_705_280_88),
            (9999.0, 1.960_201_263_621_357),
            (5e5, 1.959_968_729_093_804),
        ] {
            assert!((t_quantile(freedom) - want).abs() < 1e-8 * want, "{freedom}: {}", t_quantile(freedom));
        }
        for (t, freedom, want) in [(2.0, 4.0, 0.116_116_523_516_816_07), (-3.5, 100.0, 0.000_696_427_717_356)]
        {
            assert!((two_tails(t, freedom) - want).abs() < 1e-9, "{}", two_tails(t, freedom));
        }
    }

    /// Losses of two networks on one sample: skewed, with what both see in common.
    fn losses(repetition: u64, n: u64) -> (Vec<f64>, Vec<f64>) {
        let uniform = |word: u64, i: u64| stream(repetition, word).uniform(i);
        let common = |i: u64| -2.0 * (1.0 - uniform(11, i)).ln();
        let own = |word: u64, i: u64| -0.5 * (1.0 - uniform(word, i)).ln();
        (
            (0..n).map(|i| common(i) + own(12, i)).collect(),
            (0..n).map(|i| common(i) + own(13, i) + 0.1).collect(),
        )
    }

    #[test]
    fn intervals_of_a_difference_of_losses_cover_it_and_are_narrower_than_unpaired_ones() {
        let of = |repetition| {
            let (a, b) = losses(repetition, 200);
            (paired_mean_difference(&a, &b).unwrap(), mean_difference(&a, &b).unwrap())
        };
        let share = coverage(1000, 0.1, |repetition| of(repetition).0.interval.unwrap());
        println!("paired t covers {share}");
        assert!((0.935..=0.965).contains(&share), "{share}");
        let width = |found: Found| found.interval.map(|[low, high]| high - low).unwrap();
        let (paired, unpaired): (Vec<f64>, Vec<f64>) =
            (0..50).map(of).map(|(paired, unpaired)| (width(paired), width(unpaired))).unzip();
        assert!(paired.iter().sum::<f64>() < 0.4 * unpaired.iter().sum::<f64>());
    }

    #[test]
    fn intervals_over_few_seeds_cover_the_difference_of_recipes() {
        // Accuracies of 3 to 5 trainings each; recipes differ by 0.02, trainings of one by 0.01.
        let trainings = |repetition, word: u64, seeds: std::ops::Range<u64>, mean: f64| -> Vec<OfSeed> {
            seeds.map(|seed| (seed, mean + 0.01 * stream(repetition, 20 + word).normal(seed))).collect()
        };
        for (name, first, second) in
            [("same", 0..3, 0..3), ("other", 0..4, 10..15), ("one", 0..1, 0..4), ("one", 3..8, 1..2)]
        {
            let interval = |repetition| {
                let a = trainings(repetition, 1, first.clone(), 0.90);
                let b = trainings(repetition, 2, second.clone(), 0.92);
                over_seeds(&a, &b).unwrap().interval.unwrap()
            };
            let share = coverage(1000, 0.02, interval);
            println!("over seeds, {name}: {share}");
            assert!((0.93..=0.975).contains(&share), "{name}, {first:?} and {second:?}: {share}");
        }
    }

    #[test]
    fn one_training_has_no_interval_and_equal_numbers_have_an_empty_one() {
        let found = over_seeds(&[(0, 0.5)], &[(0, 0.75)]).unwrap();
        assert_eq!((found.value, found.interval, found.p_value), (0.25, None, None));
        let same = paired_mean_difference(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]).unwrap();
        assert_eq!((same.interval, same.p_value), (Some([0.0, 0.0]), Some(1.0)));
        assert_eq!(paired_mean_difference(&[1.0], &[1.0, 2.0]), None);
        assert_eq!(over_seeds(&[], &[(1, 2.0)]), None);
    }
}

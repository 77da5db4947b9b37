//! The expected calibration error, and differences of it by the bootstrap.
//!
//! ECE = Σ over bins of |correct − confident| / N, where a bin holds the samples whose largest probability lies in one of [`BINS`] equal
//! parts of (0, 1] (Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017). The absolute value is of a noisy
//! sum, so the ECE of a resample is larger than that of the sample, by an amount that a difference of two networks mostly cancels; what
//! is left of it the interval takes back by running between the reflected percentiles, 2 d − q (Davison and Hinkley, 1997, 5.2).

use rayon::prelude::*;

use super::Found;
use crate::eval::{BINS, bin_of};
use crate::ood::metrics::{percentiles, resample};

/// A word for this use of resamples, after the replicate: no numbers are shared with those of FPR95.
const ECE: u64 = 2;

/// What the ECE needs of each sample.
#[derive(Debug, Clone, Default)]
pub(in crate::compare) struct Calibration {
    /// The bin, and correct − confidence.
    samples: Vec<(u8, f64)>,
}

impl Calibration {
    pub fn new(samples: impl IntoIterator<Item = (f64, bool)>) -> Calibration {
        let place = |(confidence, correct): (f64, bool)| {
            (bin_of(confidence) as u8, f64::from(u8::from(correct)) - confidence)
        };
        Calibration { samples: samples.into_iter().map(place).collect() }
    }

    /// The ECE of all samples; `None` of none.
    pub fn ece(&self) -> Option<f64> {
        (!self.samples.is_empty()).then(|| self.weighted(|_| 1.0))
    }

    fn weighted(&self, times: impl Fn(usize) -> f64) -> f64 {
        let mut gaps = [0.0; BINS];
        for (index, (bin, gap)) in self.samples.iter().enumerate() {
            gaps[usize::from(*bin)] += times(index) * gap;
        }
        gaps.iter().map(|gap| gap.abs()).sum::<f64>() / self.samples.len() as f64
    }

    fn resampled(&self, times: &[u32]) -> f64 {
        self.weighted(|index| f64::from(times[index]))
    }
}

/// ECE of the second network minus that of the first; the same bits for any number of threads. `None` of no samples, or where `paired`
/// networks have other numbers of them.
pub(in crate::compare) fn ece_difference(
    first: &Calibration,
    second: &Calibration,
    paired: bool,
    replicates: u32,
    seed: u64,
) -> Option<Found> {
    let counts = [first.samples.len(), second.samples.len()];
    if paired && counts[0] != counts[1] {
        return None;
    }
    let value = second.ece()? - first.ece()?;
    let mut drawn: Vec<f64> = (0..u64::from(replicates))
        .into_par_iter()
        .map(|replicate| {
            let a = resample(seed, &[replicate, ECE], counts[0]);
            let b = (!paired).then(|| resample(seed, &[replicate, ECE, 1], counts[1]));
            second.resampled(b.as_ref().unwrap_or(&a)) - first.resampled(&a)
        })
        .collect();
    let interval = (replicates > 1).then(|| {
        let [low, high] = percentiles(&mut drawn);
        [2.0 * value - high, 2.0 * value - low]
    });
    let method = if paired { "paired bootstrap" } else { "unpaired bootstrap" };
    Some(Found { value, interval, p_value: None, method })
}

#[cfg(test)]
mod tests {
    use super::super::simulation::{coverage, stream};
    use super::*;

    #[test]
    fn the_error_is_that_of_the_definition() {
        // Two samples in (14/15, 1], one right: |1 − 1.9| / 4; one right at 0.5: 0.5 / 4; one wrong at 0.2, the edge of bin 2: 0.2 / 4.
        let found = Calibration::new([(0.95, true), (0.95, false), (0.5, true), (0.2, false)]).ece().unwrap();
        assert!((found - (0.9 + 0.5 + 0.2) / 4.0).abs() < 1e-12, "{found}");
        assert_eq!(Calibration::default().ece(), None);
    }

    /// Two networks on the same samples: confidence 0.6 to 1, right less often by 0.05 and by 0.15, mostly on the same samples.
    fn draw(repetition: u64, n: u64) -> [Calibration; 2] {
        let [place, luck] = [31, 32].map(|word| stream(repetition, word));
        [0.05, 0.15].map(|over| {
            Calibration::new((0..n).map(|i| {
                let confidence = 0.6 + 0.4 * place.uniform(i);
                (confidence, luck.uniform(i) < confidence - over)
            }))
        })
    }

    #[test]
    fn intervals_of_a_difference_of_calibration_errors_cover_it_and_are_narrower_than_unpaired_ones() {
        let interval = |repetition, paired| {
            let [a, b] = draw(repetition, 1500);
            ece_difference(&a, &b, paired, 200, repetition).unwrap().interval.unwrap()
        };
        let share = coverage(300, 0.10, |repetition| interval(repetition, true));
        println!("paired bootstrap of ECE covers {share}");
        assert!((0.92..=0.98).contains(&share), "{share}");
        let width =
            |paired| -> f64 { (0..20).map(|r| interval(r, paired)).map(|[low, high]| high - low).sum() };
        assert!(width(true) < 0.7 * width(false), "{} {}", width(true), width(false));
    }

    #[test]
    fn equal_networks_differ_by_nothing_and_threads_change_no_bit() {
        let [a, b] = draw(1, 300);
        let found = ece_difference(&a, &a, true, 50, 3).unwrap();
        assert_eq!((found.value, found.interval), (0.0, Some([0.0, 0.0])));
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| ece_difference(&a, &b, true, 60, 3))
        };
        assert_eq!(with(1), with(3));
    }
}

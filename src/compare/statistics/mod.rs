//! Differences of two networks with 95 % intervals, and how they are made.
//!
//! | of | on the same samples | on different samples |
//! |---|---|---|
//! | accuracy | Newcombe's method 10 for paired proportions, exact McNemar test | Newcombe's method 10 for independent proportions |
//! | NLL, Brier score | t interval of the differences sample by sample | Welch's t interval |
//! | AUROC | DeLong's covariance | variances add |
//! | ECE, FPR95 | bootstrap that draws the same samples for both | bootstrap that draws for each |
//! | anything, over seeds | t interval over trainings ([`over_seeds`]) | the same |

mod calibration;
mod means;
mod proportions;

pub(super) use calibration::{Calibration, ece_difference};
pub(super) use means::{mean_difference, over_seeds, paired_mean_difference};
pub use proportions::Agreement;
pub(super) use proportions::independent_difference;

use crate::ood::metrics::Interval;

/// A difference, its interval where there is one, and the test beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    pub value: f64,
    pub interval: Option<Interval>,
    pub p_value: Option<f64>,
    pub method: &'static str,
}

#[cfg(test)]
pub(super) mod simulation {
    use crate::rng::{Purpose, Stream};

    /// Share of `repetitions` whose interval covers the truth.
    pub fn coverage(repetitions: u64, truth: f64, interval: impl Fn(u64) -> [f64; 2]) -> f64 {
        let covers = |repetition: &u64| {
            let [low, high] = interval(*repetition);
            low <= truth && truth <= high
        };
        (0..repetitions).filter(covers).count() as f64 / repetitions as f64
    }

    /// Random numbers of a repetition.
    pub fn stream(repetition: u64, word: u64) -> Stream {
        Stream::for_purpose(21, Purpose::Synthetic, &[repetition, word])
    }
}

//! A stream of scores, step by step.

use serde::{Deserialize, Serialize};

use super::lond::{Lond, Tested};
use super::martingale::Martingale;
use super::ranks::Ranks;
use crate::rng::{Purpose, Stream};

/// What a stream is monitored with; it does not change while the stream lasts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The false discovery rate of the discoveries, within (0, 1).
    pub alpha: f64,
    /// Number of samples over which discoveries are possible.
    pub horizon: u64,
    /// Probability of a false alarm over the whole stream, within (0, 1).
    pub alarm: f64,
    /// Seed of the random numbers that break ties.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { alpha: 0.05, horizon: 1_000_000, alarm: 0.01, seed: 0 }
    }
}

/// What was counted so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Number of rows that came.
    pub rows: u64,
    /// Number of rows without a score: images that could not be read.
    pub failed: u64,
    /// Number of samples that the threshold calls novel.
    pub novel: u64,
    /// The row at which the alarm was raised.
    pub alarm: Option<u64>,
}

/// What a sample showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    /// The row, from 0.
    pub row: u64,
    /// The test of its p-value against the calibration samples.
    pub tested: Tested,
    /// Its p-value among calibration and all earlier samples, within (0, 1).
    pub online_p_value: f64,
    /// Logarithm to base 10 of the martingale.
    pub log10: f64,
    /// Whether the alarm has been raised, now or earlier.
    pub alarm: bool,
}

/// A stream of scores that begins after `n` calibration samples.
#[derive(Debug, Clone)]
pub struct Monitor {
    pub(super) settings: Settings,
    pub(super) calibration: u64,
    pub(super) ranks: Ranks,
    pub(super) lond: Lond,
    pub(super) martingale: Martingale,
    pub(super) counts: Counts,
    ties: Stream,
}

impl Monitor {
    /// A stream before its first sample; `calibration` holds the scores of the calibration samples in ascending order.
    ///
    /// # Panics
    /// If they are in another order.
    pub fn new(settings: Settings, calibration: &[f64]) -> Monitor {
        let ranks = Ranks::new(calibration.to_vec());
        let lond = Lond::new(settings.alpha, settings.horizon);
        let count = calibration.len() as u64;
        Monitor::assemble(settings, count, ranks, lond, Martingale::new(), Counts::default())
    }

    pub(super) fn assemble(
        settings: Settings,
        calibration: u64,
        ranks: Ranks,
        lond: Lond,
        martingale: Martingale,
        counts: Counts,
    ) -> Monitor {
        let ties = Stream::for_purpose(settings.seed, Purpose::Ties, &[]);
        Monitor { settings, calibration, ranks, lond, martingale, counts, ties }
    }

    /// Takes the next sample: its score in flagging order, its conformal p-value against the calibration samples, and whether the
    /// threshold calls it novel.
    ///
    /// # Panics
    /// If the score is NaN.
    pub fn observe(&mut self, score: f64, p_value: f64, novel: bool) -> Observed {
        let row = self.counts.rows;
        let online_p_value = self.online_p_value(score);
        self.ranks.insert(score);
        self.martingale.step(online_p_value);
        let tested = self.lond.test(p_value);
        self.counts.rows += 1;
        self.counts.novel += u64::from(novel);
        if self.counts.alarm.is_none() && self.martingale.logarithm() >= self.evidence() {
            self.counts.alarm = Some(row);
        }
        let (log10, alarm) = (self.martingale.log10(), self.counts.alarm.is_some());
        Observed { row, tested, online_p_value, log10, alarm }
    }

    /// Notes a row that has no score, and returns its number: neither p-values nor the martingale see it.
    pub fn fail(&mut self) -> u64 {
        self.counts.rows += 1;
        self.counts.failed += 1;
        self.counts.rows - 1
    }

    /// (#{earlier < score} + θ (#{earlier = score} + 1)) / (#earlier + 1), θ uniform on (0, 1).
    fn online_p_value(&self, score: f64) -> f64 {
        let place = self.ranks.place(score);
        let theta = self.ties.uniform(self.lond.tested());
        // 2⁻⁵⁴ is half the smallest step of θ: it is never 0. Rounding must not make the quotient 1.
        let theta = theta + 2f64.powi(-54);
        let p = (place.below as f64 + theta * (place.equal + 1) as f64) / (self.ranks.len() + 1) as f64;
        p.min(1.0 - f64::EPSILON / 2.0)
    }

    /// Natural logarithm of the capital at which the alarm is raised.
    fn evidence(&self) -> f64 {
        -self.settings.alarm.ln()
    }

    /// What the stream is monitored with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Number of calibration samples.
    pub fn calibration(&self) -> u64 {
        self.calibration
    }

    /// The tests.
    pub fn lond(&self) -> &Lond {
        &self.lond
    }

    /// The martingale.
    pub fn martingale(&self) -> &Martingale {
        &self.martingale
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::novelty::p_values;

    fn scores(seed: u64, count: u64, coarse: f64) -> Vec<f64> {
        let stream = Stream::for_purpose(seed, Purpose::Synthetic, &[8]);
        (0..count).map(|i| (stream.normal(i) * coarse).round() / coarse).collect()
    }

    #[test]
    fn online_p_values_are_those_of_a_plain_count() {
        let mut calibration = scores(1, 60, 5.0);
        calibration.sort_by(f64::total_cmp);
        let settings = Settings { seed: 3, ..Settings::default() };
        let mut monitor = Monitor::new(settings, &calibration);
        let theta = Stream::for_purpose(3, Purpose::Ties, &[]);
        let mut earlier = calibration.clone();
        let mut tied = 0;
        for (step, score) in scores(2, 400, 5.0).into_iter().enumerate() {
            let below = earlier.iter().filter(|known| **known < score).count() as f64;
            let equal = earlier.iter().filter(|known| **known == score).count();
            tied += usize::from(equal > 0);
            let theta = theta.uniform(step as u64) + 2f64.powi(-54);
            let expected = (below + theta * (equal + 1) as f64) / (earlier.len() + 1) as f64;
            // A row without a score uses no random number.
            if step % 10 == 9 {
                monitor.fail();
            }
            let observed = monitor.observe(score, p_values(&calibration, [score])[0], false);
            assert_eq!(observed.online_p_value, expected, "step {step}");
            assert_eq!(observed.row as usize, step + (step + 1) / 10);
            earlier.push(score);
        }
        assert!(tied > 300);
        assert_eq!(monitor.counts(), Counts { rows: 440, failed: 40, novel: 0, alarm: monitor.counts.alarm });
    }

    #[test]
    fn online_p_values_are_uniform_with_ties_and_without() {
        for coarse in [2.0, 1e12] {
            let mut calibration = scores(11, 50, coarse);
            calibration.sort_by(f64::total_cmp);
            let mut monitor = Monitor::new(Settings::default(), &calibration);
            let mut found: Vec<f64> = scores(12, 20_000, coarse)
                .iter()
                .map(|s| monitor.observe(*s, 1.0, false).online_p_value)
                .collect();
            found.sort_by(f64::total_cmp);
            let distance = found.iter().enumerate().map(|(i, p)| (p - (i as f64 + 0.5) / 20_000.0).abs());
            // Kolmogorov-Smirnov: beyond 1.95 / √n with probability 0.001.
            assert!(distance.fold(0.0, f64::max) < 1.95 / 20_000f64.sqrt(), "{coarse}");
        }
    }

    #[test]
    fn the_alarm_is_raised_once_and_stays() {
        let calibration: Vec<f64> = (0..100).map(f64::from).collect();
        let mut monitor = Monitor::new(Settings::default(), &calibration);
        let observed: Vec<Observed> =
            (0..40).map(|i| monitor.observe(-f64::from(i), 1.0 / 101.0, true)).collect();
        let first = observed.iter().position(|at| at.alarm).expect("every score is lower than all before");
        assert!(observed[first].log10 >= 2.0 && observed[..first].iter().all(|at| at.log10 < 2.0), "{first}");
        assert!(observed[first..].iter().all(|at| at.alarm));
        assert_eq!(monitor.counts().alarm, Some(first as u64));
        assert_eq!(monitor.counts().novel, 40);
        // Scores above all others are another stream too.
        let mut higher = Monitor::new(Settings::default(), &calibration);
        assert!((0..40).any(|i| higher.observe(200.0 + f64::from(i), 1.0, false).alarm));
    }
}

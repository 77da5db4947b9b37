//! Calibration: does a class predicted with probability p come true in a share p of the samples?

use serde::{Deserialize, Serialize};

/// Bins of equal width that probabilities are sorted into; bin k holds (k / 15, (k + 1) / 15], and 0 is in the first
/// (Guo and others, 2017).
pub const BINS: usize = 15;

/// What fell into one bin.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Bin {
    pub count: u64,
    pub probability: f64,
    pub true_count: u64,
}

/// Probabilities of an event and how often it came, by bins of the probability.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Bins(pub [Bin; BINS]);

/// A bar of a reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Lowest confidence, not in the bin itself.
    pub above: f64,
    /// Highest confidence.
    pub to: f64,
    /// Samples.
    pub count: u64,
    /// Mean confidence of its samples; absent where there are none.
    pub confidence: Option<f64>,
    /// Share of its samples classified correctly.
    pub accuracy: Option<f64>,
}

/// The bin of a probability.
pub(crate) fn bin_of(probability: f64) -> usize {
    ((probability * BINS as f64).ceil() as usize).clamp(1, BINS) - 1
}

impl Bins {
    /// Adds a probability and whether the event came.
    pub fn add(&mut self, probability: f64, came: bool) {
        self.add_often(bin_of(probability), probability, came, 1);
    }

    /// Adds what is known to be in a bin, `times` times.
    pub fn add_often(&mut self, bin: usize, probability: f64, came: bool, times: u32) {
        let bin = &mut self.0[bin];
        bin.count += u64::from(times);
        bin.probability += f64::from(times) * probability;
        bin.true_count += u64::from(times) * u64::from(came);
    }

    /// Adds what another pass over other samples found.
    pub fn merge(&mut self, other: &Bins) {
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            own.count += other.count;
            own.probability += other.probability;
            own.true_count += other.true_count;
        }
    }

    /// Expected calibration error: the gap between mean probability and frequency, averaged over all samples (Naeini and
    /// others, 2015; Guo and others, 2017).
    pub fn expected_error(&self) -> f64 {
        let count: u64 = self.0.iter().map(|bin| bin.count).sum();
        let gaps: f64 = self.0.iter().map(|bin| (bin.true_count as f64 - bin.probability).abs()).sum();
        gaps / count.max(1) as f64
    }

    /// The largest gap of a bin.
    pub fn largest_error(&self) -> f64 {
        let gap = |bin: &Bin| (bin.true_count as f64 - bin.probability).abs() / bin.count as f64;
        self.0.iter().filter(|bin| bin.count > 0).map(gap).fold(0.0, f64::max)
    }

    /// The bars of the diagram.
    pub fn diagram(&self) -> Vec<ReliabilityBin> {
        let edge = |index: usize| index as f64 / BINS as f64;
        let bars = self.0.iter().enumerate().map(|(index, bin)| {
            let mean = |sum: f64| (bin.count > 0).then(|| sum / bin.count as f64);
            ReliabilityBin {
                above: edge(index),
                to: edge(index + 1),
                count: bin.count,
                confidence: mean(bin.probability),
                accuracy: mean(bin.true_count as f64),
            }
        });
        bars.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_hold_their_upper_edge_and_the_first_holds_zero() {
        assert_eq!([0.0, 1e-9, 1.0 / 15.0, 1.0 / 15.0 + 1e-12, 1.0].map(bin_of), [0, 0, 0, 1, 14]);
        let mut bins = Bins::default();
        bins.add(1.0, true);
        bins.add(0.99, false);
        bins.add(0.5, true);
        assert!((bins.expected_error() - (0.99 + 0.5) / 3.0).abs() < 1e-15);
        assert!((bins.largest_error() - 0.5).abs() < 1e-15);
        let diagram = bins.diagram();
        assert_eq!((diagram.len(), diagram[14].count, diagram[14].accuracy), (15, 2, Some(0.5)));
        assert_eq!((diagram[0].count, diagram[0].confidence), (0, None));
    }
}

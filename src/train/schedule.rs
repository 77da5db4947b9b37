//! Learning rates over time.
//!
//! `cosine` and `multistep` change once per epoch, as PyTorch's `CosineAnnealingLR(T_max=epochs)` and `MultiStepLR` do when
//! they are stepped after each epoch; `onecycle` changes at every step, as `OneCycleLR` (`pct_start` 0.3, cosine,
//! `div_factor` 25, `final_div_factor` 1e4; momentum is left alone). Warm-up rises linearly, step by step, from nearly
//! zero; the schedule proper begins behind it.

use crate::values::named;

named! {
    /// The shape of the learning rate's curve.
    pub enum ScheduleKind: "schedule" {
        /// Always the same.
        Constant = "constant",
        /// Half a cosine down to zero.
        Cosine = "cosine",
        /// Up for 30 % of the steps, then down to nearly zero.
        OneCycle = "onecycle",
        /// Multiplied by `lr_decay` at each milestone.
        MultiStep = "multistep",
    }
}

/// A learning rate for every step.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The curve.
    pub kind: ScheduleKind,
    /// The largest learning rate.
    pub peak: f64,
    /// Epochs of the whole training.
    pub epochs: u64,
    /// Steps in an epoch.
    pub steps_per_epoch: u64,
    /// Epochs of linear warm-up; may be fractional.
    pub warmup_epochs: f64,
    /// Epochs at which `multistep` falls.
    pub milestones: Vec<u64>,
    /// Factor of each fall.
    pub decay: f64,
}

impl Schedule {
    /// The learning rate of a step, counted from 0.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let warmup = (self.warmup_epochs * self.steps_per_epoch as f64).round() as u64;
        if step < warmup {
            return self.peak * (step + 1) as f64 / warmup as f64;
        }
        let epoch = step / self.steps_per_epoch;
        match self.kind {
            ScheduleKind::Constant => self.peak,
            ScheduleKind::Cosine => {
                let whole_warmup = self.warmup_epochs.floor();
                let span = (self.epochs as f64 - whole_warmup).max(1.0);
                let progress = ((epoch as f64 - whole_warmup) / span).clamp(0.0, 1.0);
                self.peak * (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0
            }
            ScheduleKind::MultiStep => {
                let passed = self.milestones.iter().filter(|&&milestone| epoch >= milestone).count();
                self.peak * self.decay.powi(passed as i32)
            }
            ScheduleKind::OneCycle => {
                let total = (self.epochs * self.steps_per_epoch).saturating_sub(warmup);
                self.one_cycle((step - warmup) as f64, total as f64)
            }
        }
    }

    fn one_cycle(&self, step: f64, total: f64) -> f64 {
        const RISE: f64 = 0.3;
        const START_DIVISOR: f64 = 25.0;
        const END_DIVISOR: f64 = 1e4;
        let start = self.peak / START_DIVISOR;
        let end = start / END_DIVISOR;
        let top = RISE * total - 1.0;
        let anneal = |from: f64, to: f64, share: f64| {
            to + (from - to) / 2.0 * (1.0 + (std::f64::consts::PI * share.clamp(0.0, 1.0)).cos())
        };
        if step <= top {
            anneal(start, self.peak, if top > 0.0 { step / top } else { 1.0 })
        } else {
            anneal(self.peak, end, (step - top) / (total - 1.0 - top).max(1e-12))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule {
            kind,
            peak: 0.1,
            epochs: 10,
            steps_per_epoch: 4,
            warmup_epochs: 0.0,
            milestones: vec![5, 8],
            decay: 0.1,
        }
    }

    #[test]
    fn cosine_starts_at_the_peak_and_is_half_in_the_middle() {
        let s = schedule(ScheduleKind::Cosine);
        assert_eq!(s.learning_rate(0), 0.1);
        assert_eq!(s.learning_rate(3), 0.1);
        assert!((s.learning_rate(20) - 0.05).abs() < 1e-15);
    }

    #[test]
    fn multistep_falls_at_the_first_step_of_each_milestone() {
        let s = schedule(ScheduleKind::MultiStep);
        assert_eq!(s.learning_rate(19), 0.1);
        assert!((s.learning_rate(20) - 0.01).abs() < 1e-15);
        assert!((s.learning_rate(32) - 0.001).abs() < 1e-15);
    }

    #[test]
    fn warm_up_rises_to_the_peak_and_then_hands_over() {
        let s = Schedule { warmup_epochs: 2.0, ..schedule(ScheduleKind::Cosine) };
        assert!((s.learning_rate(0) - 0.1 / 8.0).abs() < 1e-15);
        assert!((s.learning_rate(7) - 0.1).abs() < 1e-15);
        assert!((s.learning_rate(8) - 0.1).abs() < 1e-15);
        assert!(s.learning_rate(39) > 0.0);
    }

    #[test]
    fn one_cycle_peaks_once_and_ends_near_zero() {
        let s = schedule(ScheduleKind::OneCycle);
        let rates: Vec<f64> = (0..40).map(|step| s.learning_rate(step)).collect();
        assert!((rates[0] - 0.004).abs() < 1e-15);
        assert!((rates[11] - 0.1).abs() < 1e-12);
        assert!((rates[39] - 0.1 / 25.0 / 1e4).abs() < 1e-12);
    }
}

//! The calibrated threshold of one head, and its rates on the samples it was calibrated on.

use std::collections::BTreeMap;

use super::choose::{NEVER, choose};
use super::proportion::Proportion;
use super::rule::Rule;
use super::samples::{LevelScores, Scored};
use super::score::Score;
use crate::error::{Error, Result};

/// When a sample of one head is flagged as novel.
#[derive(Debug, Clone, PartialEq)]
pub struct LevelThreshold {
    /// The score that is compared.
    pub score: Score,
    /// The rule that chose the threshold.
    pub rule: Rule,
    /// τ: a sample with a lower score is flagged; −∞ flags none.
    pub tau: f64,
    /// By predicted class (index in the data set's files) the thresholds that replace τ; only of `per-class`.
    pub class_taus: BTreeMap<i64, f64>,
    /// Number of seen calibration samples.
    pub seen: u64,
    /// Number of novel calibration samples.
    pub novel: u64,
    /// Share of the seen calibration samples that are flagged.
    pub false_novel: Proportion,
    /// Share of the novel calibration samples that are flagged, where there are any.
    pub caught_novel: Option<Proportion>,
}

/// Chooses the threshold of a head by a rule, from the samples of one network or the pooled ones of several.
///
/// # Errors
/// No seen samples, a score that is not finite, or a rule that needs novel samples where there are none.
pub fn calibrate_level(samples: &LevelScores, rule: Rule) -> Result<LevelThreshold> {
    samples.check()?;
    let chosen = choose(rule, samples)?;
    let flags = |group: &[Scored]| {
        Proportion::of(group.iter().map(|sample| flags(chosen.tau, &chosen.class_taus, sample)))
    };
    Ok(LevelThreshold {
        score: samples.score,
        rule,
        false_novel: flags(&samples.seen).expect("checked: there are seen samples"),
        caught_novel: flags(&samples.novel),
        seen: samples.seen.len() as u64,
        novel: samples.novel.len() as u64,
        tau: chosen.tau,
        class_taus: chosen.class_taus,
    })
}

/// The threshold of every rule with its usual constant that these samples allow, in the order of [`Rule::DEFAULTS`].
///
/// # Errors
/// As [`calibrate_level`].
pub fn candidates(samples: &LevelScores) -> Result<Vec<LevelThreshold>> {
    let possible = |rule: &Rule| !rule.needs_novel() || !samples.novel.is_empty();
    Rule::DEFAULTS.into_iter().filter(possible).map(|rule| calibrate_level(samples, rule)).collect()
}

fn flags(tau: f64, class_taus: &BTreeMap<i64, f64>, sample: &Scored) -> bool {
    match sample.predicted {
        None => true,
        Some(class) => sample.score < *class_taus.get(&class).unwrap_or(&tau),
    }
}

impl LevelThreshold {
    /// Whether a sample is flagged as novel: its score lies below the threshold (of its predicted class, where that has
    /// one), or the head itself calls it novel.
    pub fn flags(&self, sample: &Scored) -> bool {
        flags(self.tau, &self.class_taus, sample)
    }

    /// The conformal threshold of another network at a given false-novel rate: of the final network, on seen samples it
    /// was not trained on, at the rate that a rule attained on the pooled samples of the folds
    /// (`pooled.false_novel.rate`). A rate of 0 flags none.
    ///
    /// # Errors
    /// As [`calibrate_level`]; a rate that is no share.
    pub fn at_rate(rate: f64, samples: &LevelScores) -> Result<LevelThreshold> {
        if !(0.0..=1.0).contains(&rate) {
            return Err(Error::invalid(format!(
                "a false-novel rate of {rate} is no share; it lies between 0 and 1"
            )));
        }
        calibrate_level(samples, Rule::Conformal(rate))
    }

    /// Whether any sample is flagged by its score.
    pub fn flags_by_score(&self) -> bool {
        self.tau != NEVER || !self.class_taus.is_empty()
    }

    /// The guarantee for samples that are like the seen calibration samples, in a sentence.
    pub fn guarantee(&self) -> String {
        let share = match self.rule {
            Rule::Conformal(share) | Rule::PerClass(share) => share,
            _ => return self.rule.guarantee(),
        };
        if self.tau == NEVER && self.false_novel.count > 0 && self.class_taus.is_empty() {
            return format!(
                "none: the head's own logit for novel samples flags {} already, so no threshold can hold {share}",
                self.false_novel
            );
        }
        if !self.flags_by_score() && share > 0.0 {
            return format!(
                "{}; {} calibration samples are too few for any threshold (it takes {}), so none is flagged",
                self.rule.guarantee(),
                self.seen,
                (1.0 / share).ceil() - 1.0
            );
        }
        self.rule.guarantee()
    }
}

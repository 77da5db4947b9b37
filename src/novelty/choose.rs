//! From calibration samples to the threshold of a rule.

use std::collections::BTreeMap;

use super::rule::{Costs, Rule};
use super::samples::{LevelScores, Scored, flagging_order, level_name};
use super::summary::{Summary, quantile, sorted};
use crate::error::{Error, Result};

/// Below every score: nothing is flagged by its score.
pub(super) const NEVER: f64 = f64::NEG_INFINITY;

/// Thresholds of a rule: the one of all classes, and those of predicted classes that have their own.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen {
    pub tau: f64,
    pub class_taus: BTreeMap<i64, f64>,
}

/// Applies a rule to samples that have been checked.
pub(super) fn choose(rule: Rule, samples: &LevelScores) -> Result<Chosen> {
    if rule.needs_novel() && samples.novel.is_empty() {
        return Err(Error::usage(format!(
            "the rule `{rule}` weighs seen against novel samples and there are none that are novel to the {} head; give some \
             (--novel, for superclasses --novel-superclass), or choose a rule that needs none, such as conformal:0.05",
            level_name(samples.level)
        )));
    }
    let counts = Counts::of(samples);
    let seen = || Summary::of(&samples.seen_scores()).expect("checked: there are seen samples");
    let novel = || Summary::of(&samples.novel_scores()).expect("checked: there are novel samples");
    let tau = match rule {
        Rule::Conformal(share) | Rule::PerClass(share) => conformal(&counts.seen, share),
        Rule::Quantile(share) => quantile(&sorted(&samples.seen_scores()), share),
        Rule::P10 => quantile(&sorted(&samples.seen_scores()), 0.1),
        Rule::P5 => quantile(&sorted(&samples.seen_scores()), 0.05),
        Rule::MeanStd => {
            let tau = seen().mean - seen().standard_deviation;
            if samples.score.is_probability() { tau.clamp(0.0, 1.0) } else { tau }
        }
        Rule::ZScore(z) => seen().mean - z * seen().standard_deviation,
        Rule::Midpoint => 0.5 * (seen().mean + novel().mean),
        Rule::Youden => counts.least(|flagged, caught| {
            let (seen, novel) = counts.totals();
            flagged * novel - caught * seen
        }),
        Rule::MinError => counts.least(|flagged, caught| flagged + counts.totals().1 - caught),
        Rule::Intersection => counts.least(|flagged, caught| {
            let (seen, novel) = counts.totals();
            (flagged * novel - (novel - caught) * seen).abs()
        }),
        Rule::TargetFpr(rate) => counts.seen[whole_below(rate * counts.seen.len() as f64)],
        Rule::TargetTpr(rate) => {
            let needed = whole_above(rate * counts.novel.len() as f64);
            just_above(counts.novel[needed.clamp(1, counts.novel.len()) - 1])
        }
        Rule::Cost(costs) => counts.cheapest(costs),
        Rule::Tau(tau) => tau,
    };
    let class_taus = match rule {
        Rule::PerClass(share) => per_class(&samples.seen, share),
        _ => BTreeMap::new(),
    };
    Ok(Chosen { tau, class_taus })
}

/// The k-th smallest of n sorted scores with k = ⌊share · (n + 1)⌋; below all of them where k = 0.
pub(super) fn conformal(sorted: &[f64], share: f64) -> f64 {
    match whole_below(share * (sorted.len() + 1) as f64).min(sorted.len()) {
        0 => NEVER,
        k => sorted[k - 1],
    }
}

/// The conformal threshold of every predicted class that has enough samples for one.
fn per_class(seen: &[Scored], share: f64) -> BTreeMap<i64, f64> {
    let mut by_class: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    for sample in seen {
        if let Some(class) = sample.predicted {
            by_class.entry(class).or_default().push(sample.score);
        }
    }
    let taus = by_class.into_iter().map(|(class, scores)| (class, conformal(&sorted(&scores), share)));
    taus.filter(|(_, tau)| *tau != NEVER).collect()
}

/// The largest whole number that is not above `value`; a product that is whole but for its rounding is that number
/// (0.29 · 100 is a little less than 29 in floating point).
fn whole_below(value: f64) -> usize {
    let nearest = value.round();
    if (value - nearest).abs() <= 4.0 * f64::EPSILON * nearest {
        nearest as usize
    } else {
        value.floor() as usize
    }
}

/// The smallest whole number that is not below `value`, with the same care.
fn whole_above(value: f64) -> usize {
    let below = whole_below(value);
    if (below as f64) < value && (value - value.round()).abs() > 4.0 * f64::EPSILON * value.round() {
        below + 1
    } else {
        below
    }
}

/// The lowest threshold that flags a sample of this place.
fn just_above(place: f64) -> f64 {
    if place == NEVER { NEVER } else { place.next_up() }
}

/// Both groups in the order of flagging, ascending.
struct Counts {
    seen: Vec<f64>,
    novel: Vec<f64>,
}

impl Counts {
    fn of(samples: &LevelScores) -> Counts {
        Counts { seen: flagging_order(&samples.seen), novel: flagging_order(&samples.novel) }
    }

    /// Numbers of seen and novel samples.
    fn totals(&self) -> (i128, i128) {
        (self.seen.len() as i128, self.novel.len() as i128)
    }

    /// Every threshold that decides differently, ascending: below all scores, midway between neighbours (so that
    /// rounding on either side changes no decision), above all.
    fn thresholds(&self) -> Vec<f64> {
        let mut places: Vec<f64> = self.seen.iter().chain(&self.novel).copied().collect();
        places.sort_unstable_by(f64::total_cmp);
        places.dedup();
        places.retain(|place| *place != NEVER);
        let between = |pair: &[f64]| {
            // Neighbouring floats have nothing between them: the upper one flags the lower.
            let middle = pair[0] / 2.0 + pair[1] / 2.0;
            if middle > pair[0] && middle <= pair[1] { middle } else { pair[1] }
        };
        let last = places.last().map(|last| last.next_up());
        [NEVER].into_iter().chain(places.windows(2).map(between)).chain(last).collect()
    }

    /// The threshold of the smallest objective, a function of the numbers of seen and novel samples flagged; of equal
    /// ones the lowest threshold, which flags fewest.
    fn least<T: PartialOrd>(&self, objective: impl Fn(i128, i128) -> T) -> f64 {
        let mut best: Option<(T, f64)> = None;
        for tau in self.thresholds() {
            let value = objective(flagged(&self.seen, tau) as i128, flagged(&self.novel, tau) as i128);
            if best.as_ref().is_none_or(|(least, _)| value < *least) {
                best = Some((value, tau));
            }
        }
        best.expect("there is a threshold below all scores").1
    }

    fn cheapest(&self, Costs { miss, alarm, prevalence }: Costs) -> f64 {
        let (seen, novel) = self.totals();
        self.least(|flagged, caught| {
            let missed = (novel - caught) as f64 / novel as f64;
            let alarmed = flagged as f64 / seen as f64;
            miss * prevalence * missed + alarm * (1.0 - prevalence) * alarmed
        })
    }
}

/// How many of the sorted places a threshold flags; those below all scores at any.
fn flagged(sorted: &[f64], tau: f64) -> usize {
    sorted.partition_point(|place| *place < tau || *place == NEVER)
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;

//! Scores of the logits alone that nothing is fitted for: largest probability and logit, energy, entropies.

use std::sync::Arc;

use crate::error::Result;
use crate::features::Head;
use crate::linalg::{largest, sum_of_exponentials};
use crate::ood::compute::BlockScores;
use crate::ood::device::{FromNumbers, Steps};
use crate::ood::family::{Family, Fits, Fitted};
use crate::ood::method::{About, Cost, Method, Needs};
use crate::ood::options::Wanted;
use crate::ood::parameters::{Parameter, Parameters, Range, Value};
use crate::ood::rows::Rows;
use crate::ood::saved::{Reader, Writer};
use crate::ood::training::Training;
use crate::values::{Reals, Wholes};

/// The family.
pub(super) struct Logits;

const TEMPERATURE: Parameter = Parameter {
    name: "temperature",
    range: Range::Real(Reals::POSITIVE),
    default: |options| Value::Real(options.temperature),
    grid: &[],
    meaning: "divides the logits",
};

const fn of_logits(method: Method, explanation: &'static str, parameters: &'static [Parameter]) -> About {
    About { method, explanation, needs: Needs::LOGITS, cost: Cost::Logits, parameters }
}

const MEMBERS: &[About] = &[
    of_logits(
        Method::Msp,
        "Score: the largest softmax probability (Hendrycks and Gimpel, 2017).",
        &[TEMPERATURE],
    ),
    of_logits(Method::Mls, "Score: the largest logit (Hendrycks et al., 2022).", &[]),
    of_logits(
        Method::Energy,
        "Score: negative free energy, the log-sum-exp of the logits (Liu et al., 2020).",
        &[TEMPERATURE],
    ),
    of_logits(
        Method::Gen,
        "Score: minus the generalised entropy of the largest probabilities (Liu et al., 2023).",
        &[
            Parameter {
                name: "gamma",
                range: Range::Real(Reals::POSITIVE),
                default: |options| Value::Real(options.gen_gamma),
                grid: &["0.01", "0.1", "0.5"],
                meaning: "exponent of p (1 - p)",
            },
            Parameter {
                name: "m",
                range: Range::Whole(Wholes::POSITIVE),
                default: |options| Value::Whole(options.gen_m),
                grid: &["10", "100"],
                meaning: "how many of the largest probabilities count",
            },
            Parameter {
                name: "clamp",
                range: Range::Real(Reals::between(0.0, 0.1)),
                default: |_| Value::Real(0.0),
                grid: &[],
                meaning: "keeps probabilities this far from 0 and 1 (pytorch-ood: 1e-7)",
            },
        ],
    ),
    of_logits(
        Method::Entropy,
        "Score: minus the entropy of the softmax probabilities (as Hendrycks and Gimpel, 2017, discuss).",
        &[],
    ),
    of_logits(
        Method::OdinTemperature,
        "Score: the largest softmax probability at a high temperature, ODIN without its gradient step (Liang et al., 2018).",
        &[Parameter {
            name: "temperature",
            range: Range::Real(Reals::POSITIVE),
            default: |_| Value::Real(1000.0),
            grid: &[],
            meaning: "divides the logits",
        }],
    ),
];

/// `T logsumexp(l / T)`, shifted by the largest logit so that nothing overflows.
pub(in crate::ood) fn energy(logits: &[f64], temperature: f64) -> f64 {
    let largest = largest(logits);
    largest + temperature * sum_of_exponentials(logits, largest, temperature.recip()).ln()
}

/// The largest softmax probability of `l / T`.
fn maximum_probability(logits: &[f64], temperature: f64) -> f64 {
    let largest = largest(logits);
    sum_of_exponentials(logits, largest, temperature.recip()).recip()
}

/// `-Σ p^γ (1 - p)^γ` over the `m` largest probabilities.
///
/// Where the network is so sure that p rounds to 1, `1 - p` is a few units in the last place or zero, and the small γ makes
/// that visible; `clamp` keeps probabilities that far from 0 and 1, as pytorch-ood does (1e-7). The order of the sum under p decides it, and is therefore that of numpy, in which the score is
/// published.
fn generalised_entropy(
    logits: &[f64],
    [gamma, clamp]: [f64; 2],
    m: usize,
    probabilities: &mut Vec<f64>,
) -> f64 {
    let largest = largest(logits);
    probabilities.clear();
    probabilities.extend(logits.iter().map(|logit| (logit - largest).exp()));
    let total = pairwise_sum(probabilities);
    if m < probabilities.len() {
        probabilities.select_nth_unstable_by(m, |a, b| b.total_cmp(a));
        probabilities.truncate(m);
        // The selection leaves an order that depends on its pivots; sorting fixes the order of the sum.
        probabilities.sort_unstable_by(|a, b| b.total_cmp(a));
    }
    let clamped = |p: f64| if clamp > 0.0 { p.clamp(clamp, 1.0 - clamp) } else { p };
    let terms = probabilities.iter().map(|p| clamped(p / total));
    -terms.map(|p| p.powf(gamma) * (1.0 - p).powf(gamma)).sum::<f64>()
}

/// A sum in numpy's order: eight running sums over up to 128 values, halves beyond.
fn pairwise_sum(values: &[f64]) -> f64 {
    const LANES: usize = 8;
    const BLOCK: usize = 128;
    if values.len() < LANES {
        return values.iter().sum();
    }
    if values.len() > BLOCK {
        let half = values.len() / 2;
        let (left, right) = values.split_at(half - half % LANES);
        return pairwise_sum(left) + pairwise_sum(right);
    }
    let mut sums = [0.0; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum += value);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    rest.iter().fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, value| sum + value)
}

/// `Σ p ln p`, with 0 ln 0 = 0.
fn negative_entropy(logits: &[f64]) -> f64 {
    let top = largest(logits);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for logit in logits {
        let e = (logit - top).exp();
        sum += e;
        weighted += e * (logit - top);
    }
    weighted / sum - sum.ln()
}

/// A score of logits alone, ready to be computed.
#[derive(Debug, Clone, Copy)]
enum Formula {
    Msp { temperature: f64 },
    Mls,
    Energy { temperature: f64 },
    Gen { gamma: f64, m: usize, clamp: f64 },
    Entropy,
}

impl Formula {
    fn new(method: Method, parameters: &Parameters) -> Option<Formula> {
        let temperature = || parameters.real("temperature");
        Some(match method {
            Method::Msp | Method::OdinTemperature => Formula::Msp { temperature: temperature() },
            Method::Mls => Formula::Mls,
            Method::Energy => Formula::Energy { temperature: temperature() },
            Method::Gen => Formula::Gen {
                gamma: parameters.real("gamma"),
                m: parameters.whole("m"),
                clamp: parameters.real("clamp"),
            },
            Method::Entropy => Formula::Entropy,
            _ => return None,
        })
    }

    fn of(self, logits: &[f64], scratch: &mut Vec<f64>) -> f64 {
        match self {
            Formula::Msp { temperature } => maximum_probability(logits, temperature),
            Formula::Mls => largest(logits),
            Formula::Energy { temperature } => energy(logits, temperature),
            Formula::Gen { gamma, m, clamp } => generalised_entropy(logits, [gamma, clamp], m, scratch),
            Formula::Entropy => negative_entropy(logits),
        }
    }

    /// The score of each sample of a block, from what the block shares where it can be.
    fn of_rows(self, rows: &Rows) -> Vec<f64> {
        match self {
            Formula::Msp { temperature: 1.0 } => rows.softmax().largest().collect(),
            Formula::Mls => rows.logits().map(largest).collect(),
            Formula::Energy { temperature: 1.0 } => rows.energies().collect(),
            _ => {
                let mut scratch = Vec::new();
                rows.logits().map(|logits| self.of(logits, &mut scratch)).collect()
            }
        }
    }
}

impl Family for Logits {
    fn members(&self) -> &'static [About] {
        MEMBERS
    }

    fn fit(&self, wanted: &[Wanted], _training: &Training<'_>) -> Result<Fits> {
        Ok(Logits::of(wanted))
    }

    fn without_training(&self, wanted: &[Wanted], _head: &Head) -> Result<Fits> {
        Ok(Logits::of(wanted))
    }

    fn load(&self, wanted: &[Wanted], _file: &Reader, _head: &Head) -> Result<Fits> {
        Ok(Logits::of(wanted))
    }
}

impl Logits {
    fn of(wanted: &[Wanted]) -> Fits {
        let formulas = wanted.iter().filter_map(|wanted| {
            Some(OfLogits {
                name: wanted.name.clone(),
                formula: Formula::new(wanted.method, &wanted.parameters)?,
            })
        });
        formulas.map(|fitted| Arc::new(fitted) as Arc<dyn Fitted>).collect()
    }
}

#[derive(Debug)]
struct OfLogits {
    name: String,
    formula: Formula,
}

impl Fitted for OfLogits {
    fn score(&self, rows: &Rows, _head: &Head, scores: &mut BlockScores) {
        scores.push((self.name.clone(), self.formula.of_rows(rows)));
    }

    fn save(&self, _out: &mut Writer) {}

    fn on_device<'a>(&'a self, _head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let place = match self.formula {
            Formula::Msp { temperature } => steps.logit_scores(temperature).msp,
            Formula::Mls => steps.logit_scores(1.0).mls,
            Formula::Energy { temperature } => steps.logit_scores(temperature).energy,
            Formula::Gen { gamma, m, clamp } => steps.generalised_entropy([gamma, clamp], m),
            Formula::Entropy => steps.logit_scores(1.0).entropy,
        };
        Box::new(move |numbers| vec![(self.name.clone(), numbers.of(place).collect())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generalised_entropy_follows_its_definition() {
        let logits = [1.0, 3.0, -2.0, 0.5, 2.5, 0.0, -1.0, 4.0, 1.5];
        let total: f64 = logits.iter().map(|logit: &f64| logit.exp()).sum();
        let mut terms: Vec<f64> = logits.iter().map(|l| l.exp() / total).collect();
        terms.sort_by(|a, b| b.total_cmp(a));
        let expected: f64 = -terms.iter().take(4).map(|p| (p * (1.0 - p)).powf(0.1)).sum::<f64>();
        let found = generalised_entropy(&logits, [0.1, 0.0], 4, &mut Vec::new());
        assert!((found - expected).abs() < 1e-12, "{found} for {expected}");
    }

    #[test]
    fn a_pairwise_sum_keeps_what_one_after_the_other_loses() {
        let mut values = vec![1e-17; 1000];
        values[0] = 1.0;
        assert_eq!(values.iter().sum::<f64>(), 1.0);
        assert!((pairwise_sum(&values) - 1.0 - 1e-14).abs() < 1e-15);
    }

    #[test]
    fn an_entropy_without_its_logarithms_of_zero_is_the_sum_of_p_ln_p() {
        let logits = [0.5, -1.0, 3.0];
        let total: f64 = logits.iter().map(|l: &f64| l.exp()).sum();
        let expected: f64 = logits.iter().map(|l| l.exp() / total).map(|p| p * p.ln()).sum();
        assert!((negative_entropy(&logits) - expected).abs() < 1e-14);
        assert_eq!(negative_entropy(&[0.0, -2000.0]), 0.0);
    }
}

//! Scores of the logits alone: maximum softmax probability, maximum logit, energy, generalised entropy.

use super::method::{Method, Options};
use super::rows::Rows;

/// `T logsumexp(l / T)`, shifted by the largest logit so that nothing overflows.
pub(super) fn energy(logits: &[f64], temperature: f64) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|logit| ((logit - largest) / temperature).exp()).sum();
    largest + temperature * sum.ln()
}

/// The largest softmax probability of `l / T`.
fn maximum_probability(logits: &[f64], temperature: f64) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    logits.iter().map(|logit| ((logit - largest) / temperature).exp()).sum::<f64>().recip()
}

/// `-Σ p^γ (1 - p)^γ` over the `m` largest probabilities.
fn generalised_entropy(logits: &[f64], gamma: f64, m: usize, probabilities: &mut Vec<f64>) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    probabilities.clear();
    probabilities.extend(logits.iter().map(|logit| (logit - largest).exp()));
    let total: f64 = probabilities.iter().sum();
    if m < probabilities.len() {
        probabilities.select_nth_unstable_by(m, |a, b| b.total_cmp(a));
        probabilities.truncate(m);
        // The selection leaves an order that depends on its pivots; sorting fixes the order of the sum.
        probabilities.sort_unstable_by(|a, b| b.total_cmp(a));
    }
    -probabilities.iter().map(|p| (p / total).powf(gamma) * (1.0 - p / total).powf(gamma)).sum::<f64>()
}

/// One of the logit scores for each sample of a block; `None` if the score is not one of them.
pub(super) fn score(method: Method, rows: &Rows, options: &Options) -> Option<Vec<f64>> {
    let temperature = options.temperature;
    Some(match method {
        Method::Msp => rows.logits().map(|logits| maximum_probability(logits, temperature)).collect(),
        Method::Mls => {
            rows.logits().map(|logits| logits.iter().copied().fold(f64::NEG_INFINITY, f64::max)).collect()
        }
        Method::Energy => rows.logits().map(|logits| energy(logits, temperature)).collect(),
        Method::Gen => {
            let mut probabilities = Vec::new();
            rows.logits()
                .map(|logits| {
                    generalised_entropy(logits, options.gen_gamma, options.gen_m, &mut probabilities)
                })
                .collect()
        }
        _ => return None,
    })
}

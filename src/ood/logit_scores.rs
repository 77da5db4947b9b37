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
///
/// A confident network's largest p is so close to 1 that `1 - p` cancels, and the small γ makes that visible; its
/// complement is therefore the sum of the others.
fn generalised_entropy(logits: &[f64], gamma: f64, m: usize, probabilities: &mut Vec<f64>) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    probabilities.clear();
    probabilities.extend(logits.iter().map(|logit| (logit - largest).exp()));
    let top = logits.iter().position(|&logit| logit == largest).unwrap_or(0);
    let others: f64 = probabilities[..top].iter().chain(&probabilities[top + 1..]).sum();
    let total = 1.0 + others;
    if m < probabilities.len() {
        probabilities.select_nth_unstable_by(m, |a, b| b.total_cmp(a));
        probabilities.truncate(m);
        // The selection leaves an order that depends on its pivots; sorting fixes the order of the sum.
        probabilities.sort_unstable_by(|a, b| b.total_cmp(a));
    }
    let term = |unnormalised: &f64| {
        let p = unnormalised / total;
        let complement = if p > 0.5 { others / total } else { 1.0 - p };
        (p * complement).powf(gamma)
    };
    -probabilities.iter().map(term).sum::<f64>()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generalised_entropy_does_not_cancel_where_the_network_is_sure() {
        // The largest p is 1 - 2 exp(-40) to first order, the others exp(-40): the sum follows in closed form.
        let tiny = (-40.0f64).exp();
        let expected = -((2.0 * tiny).powf(0.1) + 2.0 * tiny.powf(0.1));
        let found = generalised_entropy(&[0.0, 40.0, 0.0], 0.1, 100, &mut Vec::new());
        assert!((found / expected - 1.0).abs() < 1e-12, "{found} for {expected}");
    }
}

//! Scores of the logits alone: maximum softmax probability, maximum logit, energy, generalised entropy.

use super::method::{Method, Options};
use super::rows::Rows;
use crate::linalg::largest;

/// `T logsumexp(l / T)`, shifted by the largest logit so that nothing overflows.
pub(super) fn energy(logits: &[f64], temperature: f64) -> f64 {
    let largest = largest(logits);
    let sum: f64 = logits.iter().map(|logit| ((logit - largest) / temperature).exp()).sum();
    largest + temperature * sum.ln()
}

/// The largest softmax probability of `l / T`.
fn maximum_probability(logits: &[f64], temperature: f64) -> f64 {
    let largest = largest(logits);
    logits.iter().map(|logit| ((logit - largest) / temperature).exp()).sum::<f64>().recip()
}

/// `-Σ p^γ (1 - p)^γ` over the `m` largest probabilities.
///
/// Where the network is so sure that p rounds to 1, `1 - p` is a few units in the last place or zero, and the small γ makes
/// that visible. The order of the sum under p decides it, and is therefore that of numpy, in which the score is
/// published.
fn generalised_entropy(logits: &[f64], gamma: f64, m: usize, probabilities: &mut Vec<f64>) -> f64 {
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
    -probabilities.iter().map(|p| (p / total).powf(gamma) * (1.0 - p / total).powf(gamma)).sum::<f64>()
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

/// One of the scores that need no fit, of one sample's logits: `msp`, `mls`, `energy` or `gen`; `None` for the others.
pub fn logit_score(method: Method, logits: &[f64], options: &Options) -> Option<f64> {
    Some(match method {
        Method::Msp => maximum_probability(logits, options.temperature),
        Method::Mls => largest(logits),
        Method::Energy => energy(logits, options.temperature),
        Method::Gen => generalised_entropy(logits, options.gen_gamma, options.gen_m, &mut Vec::new()),
        _ => return None,
    })
}

/// One of the logit scores for each sample of a block; `None` if the score is not one of them.
pub(super) fn score(method: Method, rows: &Rows, options: &Options) -> Option<Vec<f64>> {
    rows.logits().map(|logits| logit_score(method, logits, options)).collect()
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
        let found = generalised_entropy(&logits, 0.1, 4, &mut Vec::new());
        assert!((found - expected).abs() < 1e-12, "{found} for {expected}");
    }

    #[test]
    fn a_pairwise_sum_keeps_what_one_after_the_other_loses() {
        let mut values = vec![1e-17; 1000];
        values[0] = 1.0;
        assert_eq!(values.iter().sum::<f64>(), 1.0);
        assert!((pairwise_sum(&values) - 1.0 - 1e-14).abs() < 1e-15);
    }
}

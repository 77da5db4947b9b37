//! Conformal p-values, and the Benjamini-Hochberg procedure over a batch of them.

/// For each score the share of calibration samples that look no more in-distribution, the new one among them:
/// `p = (1 + #{calibration ≤ score}) / (n + 1)`. Of a seen sample that is exchangeable with them, P(p ≤ t) ≤ t.
///
/// # Panics
/// If `calibration` is not in ascending order.
pub fn p_values(calibration: &[f64], scores: impl IntoIterator<Item = f64>) -> Vec<f64> {
    assert!(calibration.is_sorted(), "calibration scores in ascending order");
    let denominator = (calibration.len() + 1) as f64;
    let not_above = |score: f64| calibration.partition_point(|known| *known <= score);
    scores.into_iter().map(|score| (1 + not_above(score)) as f64 / denominator).collect()
}

/// Which of the p-values are rejected so that at most the share `rate` of all rejections is false, in expectation
/// (Benjamini and Hochberg, 1995): those up to the largest p₍ᵢ₎ ≤ rate · i / m. Conformal p-values that share one
/// calibration set depend on each other in the way the procedure allows (Bates et al., 2023).
pub fn benjamini_hochberg(p_values: &[f64], rate: f64) -> Vec<bool> {
    let mut sorted = p_values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let mut ranked = sorted.iter().enumerate();
    let largest = ranked.rfind(|(index, p)| **p <= rate * (*index + 1) as f64 / count).map(|(_, p)| *p);
    p_values.iter().map(|p| largest.is_some_and(|largest| *p <= largest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    #[test]
    fn p_values_count_calibration_samples_at_or_below() {
        assert_eq!(p_values(&[1.0, 2.0, 2.0, 5.0], [0.0, 1.0, 2.0, 4.9, 5.0]), [0.2, 0.4, 0.8, 0.8, 1.0]);
        assert_eq!(p_values(&[], [3.0]), [1.0]);
    }

    #[test]
    fn rejections_are_those_of_a_plain_loop() {
        let stream = Stream::for_purpose(3, Purpose::Synthetic, &[71]);
        for case in 0..50u64 {
            // Coarse, so that there are ties; some very small.
            let p: Vec<f64> =
                (0..40).map(|i| (stream.uniform(case * 40 + i).powi(3) * 50.0).ceil() / 50.0).collect();
            let rate = 0.02 * (1 + case % 10) as f64;
            let mut order: Vec<usize> = (0..p.len()).collect();
            order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
            let mut plain = vec![false; p.len()];
            for i in 0..p.len() {
                if p[order[i]] <= rate * (i + 1) as f64 / p.len() as f64 {
                    order[..=i].iter().for_each(|index| plain[*index] = true);
                }
            }
            // A tie with the last rejected value is rejected with it in either form.
            assert_eq!(benjamini_hochberg(&p, rate), plain, "case {case}");
        }
        assert!(benjamini_hochberg(&[], 0.1).is_empty());
        assert_eq!(benjamini_hochberg(&[0.5, 0.6], 0.1), [false, false]);
    }
}

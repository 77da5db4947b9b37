//! Checks that need no OOD data; a result that fails them is not worth reading.

use super::compute::Compute;
use super::detectors::{Detectors, Scores};
use super::method::Cost;
use super::metrics::OodMetrics;
use super::rows::random_subset;
use super::table::Sanity;
use crate::error::Result;
use crate::features::FeatureSet;
use crate::rng::{Purpose, Stream};

/// Training samples whose scores are compared with those of the ID test set: enough for an AUROC within a percent.
const TRAINING_SAMPLES: usize = 10_000;
/// The same where a score compares each with a bank, or projects it by a hundred heads.
const FEW_TRAINING_SAMPLES: usize = 2_000;
/// A training set that stands out more than this from the ID test set asks for a word of warning.
const SUSPICIOUS_AUROC: f64 = 0.8;
/// A share of equal scores above this makes thresholds jump.
const SUSPICIOUS_TIES: f64 = 0.1;
/// Scores that a warning each is written about; of more, one warning is about all of them.
const MOST_WARNED: usize = 3;
/// Standard deviations by which two halves of one set may differ before something is wrong.
const SUSPICIOUS_DEVIATIONS: f64 = 5.0;

/// Scores of the training samples, drawn at random, that are compared with those of the ID test set.
///
/// # Errors
/// The training set cannot be scored.
pub(super) fn score_training(
    compute: &mut dyn Compute,
    detectors: &Detectors,
    train: &FeatureSet,
) -> Result<Scores> {
    let is_cheap = detectors.specs().iter().all(|spec| spec.method().about().cost <= Cost::Square);
    let count = if is_cheap { TRAINING_SAMPLES } else { FEW_TRAINING_SAMPLES };
    let sample = random_subset(train.len(), count, detectors.seed());
    detectors.score_samples(compute, train, &sample)
}

/// Runs all checks on fitted detectors and the scores of the ID test set; `train_scores` are those of [`score_training`].
///
/// # Errors
/// A score that is not finite.
pub(super) fn check(
    detectors: &Detectors,
    train_scores: Option<&Scores>,
    id_scores: &Scores,
) -> Result<Sanity> {
    let mut sanity = Sanity { warnings: detectors.warnings().to_vec(), ..Sanity::default() };
    let (mut leaking, mut saturated) = (Vec::new(), Vec::new());
    for (method, id) in id_scores {
        if let Some(train_scores) = train_scores {
            let leak = OodMetrics::evaluate(&train_scores[method], id)?.auroc;
            if leak > SUSPICIOUS_AUROC {
                leaking.push((method, leak));
            }
            sanity.train_versus_test_auroc.insert(method.clone(), leak);
        }
        if let Some((null, deviation)) = half_versus_half(id, detectors.seed())? {
            if (null - 0.5).abs() > SUSPICIOUS_DEVIATIONS * deviation {
                sanity.warnings.push(format!(
                    "{method}: two random halves of the ID test set differ (AUROC {null:.3}); the evaluation is broken"
                ));
            }
            sanity.half_versus_half_auroc.insert(method.clone(), null);
        }
        let ties = tied_share(id);
        if ties > SUSPICIOUS_TIES {
            saturated.push((method, ties));
        }
        sanity.tied_share.insert(method.clone(), ties);
    }
    sanity.warnings.extend(leaks_in_words(&leaking));
    sanity.warnings.extend(ties_in_words(&saturated));
    note_conditions(detectors, &mut sanity.warnings);
    Ok(sanity)
}

/// Warnings of scores that tell training from test samples, with their AUROCs.
fn leaks_in_words(found: &[(&String, f64)]) -> Vec<String> {
    let why = "memorised the training set, or the two were not extracted alike";
    if found.len() <= MOST_WARNED {
        let one = |(method, auroc): &(&String, f64)| {
            format!("{method} tells ID training from ID test samples (AUROC {auroc:.3}): it has {why}")
        };
        return found.iter().map(one).collect();
    }
    let each: Vec<String> = found.iter().map(|(method, auroc)| format!("{method} {auroc:.3}")).collect();
    vec![format!(
        "{} scores tell ID training from ID test samples: they have {why}. AUROC: {}",
        found.len(),
        each.join(", ")
    )]
}

/// Warnings of scores with many equal values, with the shares of these.
fn ties_in_words(found: &[(&String, f64)]) -> Vec<String> {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    if found.len() <= MOST_WARNED {
        let one = |(method, ties): &(&String, f64)| {
            format!("{method}: {} of the ID scores equal another one; the score saturates", percent(*ties))
        };
        return found.iter().map(one).collect();
    }
    let each: Vec<String> =
        found.iter().map(|(method, ties)| format!("{method} {}", percent(*ties))).collect();
    vec![format!(
        "{} scores saturate. Share of the ID scores that equal another one: {}",
        found.len(),
        each.join(", ")
    )]
}

/// AUROC of a random half against the other, and its standard deviation if nothing is wrong (Mann and Whitney).
fn half_versus_half(scores: &[f64], seed: u64) -> Result<Option<(f64, f64)>> {
    let half = scores.len() / 2;
    if half == 0 {
        return Ok(None);
    }
    let order = Stream::for_purpose(seed, Purpose::Subset, &[1]).permutation(scores.len());
    let pick = |part: &[u32]| part.iter().map(|&index| scores[index as usize]).collect::<Vec<f64>>();
    let (a, b) = (pick(&order[..half]), pick(&order[half..]));
    let (m, n) = (a.len() as f64, b.len() as f64);
    Ok(Some((OodMetrics::evaluate(&a, &b)?.auroc, ((m + n + 1.0) / (12.0 * m * n)).sqrt())))
}

/// Share of values that equal another value.
fn tied_share(scores: &[f64]) -> f64 {
    let mut sorted = scores.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let runs = sorted.chunk_by(|a, b| a == b).map(<[f64]>::len);
    let tied: usize = runs.filter(|&length| length > 1).sum();
    tied as f64 / scores.len().max(1) as f64
}

/// Says where a covariance does not have full rank.
fn note_conditions(detectors: &Detectors, warnings: &mut Vec<String>) {
    let dimension = detectors.head().dimension();
    for (method, fit) in detectors.fits() {
        match fit.rank {
            // Scores of a subspace have a dimension, and nothing is inverted for them.
            Some(rank) if rank < dimension && fit.dim.is_none() => {
                warnings.push(format!(
                    "{method}: the covariance has rank {rank} of {dimension}; directions in which the training \
                     features do not vary are ignored"
                ));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_counted_by_sample() {
        assert_eq!(tied_share(&[1.0, 2.0, 2.0, 3.0]), 0.5);
        assert_eq!(tied_share(&[1.0, 1.0, 1.0]), 1.0);
        assert_eq!(tied_share(&[0.0, 1.0]), 0.0);
        assert_eq!(tied_share(&[]), 0.0);
    }

    #[test]
    fn a_few_warnings_are_one_each_and_many_are_one() {
        let names: Vec<String> = ["a", "b", "c", "d"].map(String::from).into();
        let found: Vec<(&String, f64)> = names.iter().map(|name| (name, 0.9)).collect();
        assert_eq!((leaks_in_words(&found[..3]).len(), ties_in_words(&found[..3]).len()), (3, 3));
        let (leaks, ties) = (leaks_in_words(&found), ties_in_words(&found));
        assert!(leaks.len() == 1 && leaks[0].contains("4 scores") && leaks[0].ends_with("c 0.900, d 0.900"));
        assert!(ties.len() == 1 && ties[0].contains("4 scores") && ties[0].contains("d 90.0 %"), "{ties:?}");
        assert!(leaks_in_words(&[]).is_empty() && ties_in_words(&[]).is_empty());
    }

    #[test]
    fn halves_of_one_set_cannot_be_told_apart_and_the_spread_is_the_known_one() {
        let stream = Stream::new(1, &[]);
        let (mut squares, runs) = (0.0, 60);
        for run in 0..runs {
            let scores: Vec<f64> = (0..400).map(|i| stream.normal(run * 400 + i)).collect();
            let (auroc, deviation) = half_versus_half(&scores, run).unwrap().unwrap();
            squares += ((auroc - 0.5) / deviation).powi(2) / runs as f64;
        }
        assert!((0.5..1.7).contains(&squares), "{squares}");
        assert!(half_versus_half(&[1.0], 0).unwrap().is_none());
    }
}

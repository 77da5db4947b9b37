//! Open-set classification rate: correct classification against false acceptance (Dhamija, Günther, Boult, 2018).

use crate::error::{Error, Result};

/// Correct classification rate over false positive rate, as the acceptance threshold falls.
#[derive(Debug, Clone, PartialEq)]
pub struct OscrCurve {
    /// (share of OOD samples accepted, share of ID samples accepted and classified correctly), from (0, 0) to
    /// (1, closed-set accuracy): it does not reach (1, 1) unless every ID sample is classified correctly.
    pub points: Vec<(f64, f64)>,
}

impl OscrCurve {
    /// Builds the curve from confidences (larger = more in-distribution) and whether each ID sample was classified
    /// correctly.
    ///
    /// # Errors
    /// When lengths differ, a side is empty, or a confidence is not finite.
    pub fn new(id: &[f64], id_correct: &[bool], ood: &[f64]) -> Result<OscrCurve> {
        if id.len() != id_correct.len() {
            return Err(Error::invalid(format!(
                "OSCR needs one verdict per ID sample: found {} scores and {} verdicts",
                id.len(),
                id_correct.len()
            )));
        }
        // Correct ID samples against OOD samples make the curve's steps; wrong ID samples only shrink its height.
        let correct: Vec<f64> =
            id.iter().zip(id_correct).filter(|(_, correct)| **correct).map(|(score, _)| *score).collect();
        // Every score is checked, those of wrong samples too.
        let all = super::Curve::with_names(id, ood, "ID", "OOD")?;
        if correct.is_empty() {
            return Ok(OscrCurve { points: vec![(0.0, 0.0), (1.0, 0.0)] });
        }
        let accuracy = correct.len() as f64 / all.positives() as f64;
        let curve = super::Curve::with_names(&correct, ood, "ID", "OOD")?;
        Ok(OscrCurve {
            points: curve.roc_points().into_iter().map(|(fpr, tpr)| (fpr, tpr * accuracy)).collect(),
        })
    }

    /// Area under the curve; equal scores are joined by a straight line. At most the closed-set accuracy.
    pub fn area(&self) -> f64 {
        self.points.windows(2).map(|w| (w[1].0 - w[0].0) * (w[1].1 + w[0].1) / 2.0).sum()
    }
}

/// Area under the [`OscrCurve`].
///
/// # Errors
/// As [`OscrCurve::new`].
pub fn oscr(id: &[f64], id_correct: &[bool], ood: &[f64]) -> Result<f64> {
    Ok(OscrCurve::new(id, id_correct, ood)?.area())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn oscr_is_the_share_of_pairs_where_a_correct_sample_beats_an_ood_sample() {
        let stream = Stream::new(5, &[]);
        let id: Vec<f64> = (0..37).map(|i| stream.below(i, 12) as f64).collect();
        let ood: Vec<f64> = (0..23).map(|i| stream.below(100 + i, 9) as f64).collect();
        let correct: Vec<bool> = (0..37).map(|i| stream.below(200 + i, 4) > 0).collect();
        let mut wins = 0.0;
        for (a, correct) in id.iter().zip(&correct) {
            for b in ood.iter().filter(|_| *correct) {
                wins += if a > b { 1.0 } else { f64::from(u8::from(a == b)) / 2.0 };
            }
        }
        assert!((oscr(&id, &correct, &ood).unwrap() - wins / (37.0 * 23.0)).abs() < 1e-12);
    }

    #[test]
    fn the_curve_ends_at_the_closed_set_accuracy() {
        let curve = OscrCurve::new(&[3.0, 2.0, 1.0, 0.5], &[true, false, true, true], &[0.7, 0.1]).unwrap();
        assert_eq!(curve.points.first(), Some(&(0.0, 0.0)));
        assert_eq!(curve.points.last(), Some(&(1.0, 0.75)));
        assert_eq!(oscr(&[1.0], &[false], &[0.0]).unwrap(), 0.0);
    }

    #[test]
    fn a_missing_verdict_and_a_bad_score_are_errors() {
        assert!(
            oscr(&[1.0, 2.0], &[true], &[0.0]).unwrap_err().to_string().contains("2 scores and 1 verdicts")
        );
        assert!(oscr(&[1.0, f64::NAN], &[true, false], &[0.0]).unwrap_err().to_string().contains("row 1"));
    }
}

//! Selective prediction: how the errors among accepted samples grow as less confident ones are accepted too.

use super::curve::sorted_decreasing;
use super::ordered::{Ordered, Tied};
use crate::error::{Error, Result};

/// Samples of one confidence: all of them are accepted together, so that the order of equal confidences decides nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Step {
    samples: u64,
    failures: u64,
}

/// Failures among the samples accepted, as the confidence asked for falls.
///
/// A failure is a wrong prediction; where OOD samples are among the samples, each of them is one, whatever is predicted.
#[derive(Debug, Clone, PartialEq)]
pub struct RiskCoverage {
    /// By decreasing confidence.
    steps: Vec<Step>,
    /// The step of each sample, in the order of the input.
    step_of: Vec<u32>,
    failures: Vec<bool>,
}

/// Areas under risk-coverage curves, as fractions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RiskAreas {
    /// Area under the selective risk (failures / accepted), by trapezoids, flat down to coverage 0 (Geifman and El-Yaniv,
    /// 2017).
    pub aurc: f64,
    /// Area under the generalised risk (failures accepted / all), by trapezoids from (0, 0) (Traub and others, 2024).
    pub augrc: f64,
    /// `aurc` less that of the best order with as many failures (Geifman, Uziel and El-Yaniv, 2019).
    pub eaurc: f64,
}

impl RiskAreas {
    /// The areas of ID and OOD samples together: a failure is an ID sample that is not `correct`, by its place, or any OOD sample.
    pub fn with_ood(id: &Ordered, ood: &Ordered, correct: &[bool]) -> RiskAreas {
        let step = |(tied_id, tied_ood): Tied<'_>| {
            let wrong = tied_id.iter().filter(|&&sample| !correct[sample as usize]).count();
            Step {
                samples: (tied_id.len() + tied_ood.len()) as u64,
                failures: (wrong + tied_ood.len()) as u64,
            }
        };
        areas(&id.with(ood).map(step).collect::<Vec<Step>>())
    }
}

impl RiskCoverage {
    /// Orders samples by confidence (larger = surer); `failures` says of each whether accepting it is one.
    ///
    /// # Errors
    /// No sample, another number of failures than of confidences, or a confidence that is not finite (named by row).
    pub fn new(confidences: &[f64], failures: &[bool]) -> Result<RiskCoverage> {
        if confidences.len() != failures.len() || u32::try_from(confidences.len()).is_err() {
            return Err(Error::invalid(format!(
                "a risk-coverage curve needs a verdict for each of fewer than 2^32 samples; found {} confidences and {} verdicts",
                confidences.len(),
                failures.len()
            )));
        }
        let mut distinct = sorted_decreasing(confidences, "sample")?;
        distinct.dedup();
        let mut steps = vec![Step::default(); distinct.len()];
        let place = |confidence: &f64| distinct.partition_point(|other| other > confidence);
        let step_of: Vec<u32> = confidences.iter().map(|confidence| place(confidence) as u32).collect();
        for (step, failure) in step_of.iter().zip(failures) {
            steps[*step as usize].samples += 1;
            steps[*step as usize].failures += u64::from(*failure);
        }
        Ok(RiskCoverage { steps, step_of, failures: failures.to_vec() })
    }

    /// (coverage, selective risk) for each distinct confidence, by rising coverage.
    pub fn points(&self) -> Vec<(f64, f64)> {
        let all = self.step_of.len() as f64;
        let mut sum = Step::default();
        let point = |step: &Step| {
            sum = Step { samples: sum.samples + step.samples, failures: sum.failures + step.failures };
            (sum.samples as f64 / all, sum.failures as f64 / sum.samples as f64)
        };
        self.steps.iter().map(point).collect()
    }

    /// The areas under the curves.
    pub fn areas(&self) -> RiskAreas {
        areas(&self.steps)
    }

    /// The areas where each sample is drawn as often as `drawn` says: one bootstrap replicate.
    ///
    /// # Panics
    /// If `drawn` has another length, or draws nothing.
    pub(crate) fn areas_of_resample(&self, drawn: &[u32]) -> RiskAreas {
        assert_eq!(drawn.len(), self.step_of.len(), "a count for each sample");
        let mut steps = vec![Step::default(); self.steps.len()];
        for ((step, failure), count) in self.step_of.iter().zip(&self.failures).zip(drawn) {
            let step = &mut steps[*step as usize];
            step.samples += u64::from(*count);
            step.failures += u64::from(*count) * u64::from(*failure);
        }
        steps.retain(|step| step.samples > 0);
        areas(&steps)
    }
}

fn areas(steps: &[Step]) -> RiskAreas {
    let total: u64 = steps.iter().map(|step| step.samples).sum();
    let all = total as f64;
    let (mut aurc, mut augrc) = (0.0, 0.0);
    let (mut accepted, mut failed) = (0u64, 0u64);
    // Flat to coverage 0: the first selective risk reaches back to it.
    let mut selective = steps.first().map_or(0.0, |step| step.failures as f64 / step.samples as f64);
    let mut generalised = 0.0;
    for step in steps {
        accepted += step.samples;
        failed += step.failures;
        let width = step.samples as f64 / all;
        let next = (failed as f64 / accepted as f64, failed as f64 / all);
        aurc += width * (selective + next.0) / 2.0;
        augrc += width * (generalised + next.1) / 2.0;
        (selective, generalised) = next;
    }
    let error = failed as f64 / all;
    let best = if error < 1.0 { error + (1.0 - error) * (1.0 - error).ln() } else { 1.0 };
    RiskAreas { aurc, augrc, eaurc: aurc - best }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ood::metrics::Curve;
    use crate::rng::{Purpose, Stream};

    fn samples(count: u64) -> (Vec<f64>, Vec<bool>) {
        let stream = Stream::for_purpose(3, Purpose::Synthetic, &[8]);
        // Few distinct confidences, so that there are ties; wrong ones are less confident on the whole.
        let failures: Vec<bool> = (0..count).map(|i| stream.below(i, 4) == 0).collect();
        let value = |(i, wrong): (u64, &bool)| {
            ((stream.normal(count + i) - f64::from(u8::from(*wrong))) * 3.0).round()
        };
        ((0..).zip(&failures).map(value).collect(), failures)
    }

    #[test]
    fn augrc_is_what_the_auroc_of_failures_and_the_error_make_it() {
        let (confidences, failures) = samples(211);
        let pick = |wanted: bool| -> Vec<f64> {
            confidences.iter().zip(&failures).filter(|(_, f)| **f == wanted).map(|(c, _)| *c).collect()
        };
        let (correct, wrong) = (pick(false), pick(true));
        let auroc = Curve::new(&correct, &wrong).unwrap().auroc();
        let error = wrong.len() as f64 / 211.0;
        let areas = RiskCoverage::new(&confidences, &failures).unwrap().areas();
        // Traub and others, 2024, equation 7.
        let want = (1.0 - auroc) * error * (1.0 - error) + error * error / 2.0;
        assert!((areas.augrc - want).abs() < 1e-14, "{} {want}", areas.augrc);
    }

    #[test]
    fn every_ood_sample_is_a_failure() {
        let (confidences, wrong) = samples(90);
        let correct: Vec<bool> = wrong.iter().map(|wrong| !wrong).collect();
        let (ood, _) = samples(70);
        let all = [&confidences[..], &ood].concat();
        let failures = [&wrong[..], &[true; 70]].concat();
        let want = RiskCoverage::new(&all, &failures).unwrap().areas();
        let sides =
            [(&confidences, "ID"), (&ood, "OOD")].map(|(side, name)| Ordered::new(side, name).unwrap());
        assert_eq!(RiskAreas::with_ood(&sides[0], &sides[1], &correct), want);
    }

    #[test]
    fn a_resample_is_the_curve_of_the_samples_drawn() {
        let (confidences, failures) = samples(60);
        let drawn: Vec<u32> = (0..60).map(|i| [0, 2, 1, 0, 3][i % 5]).collect();
        let repeated: Vec<usize> =
            drawn.iter().enumerate().flat_map(|(i, count)| std::iter::repeat_n(i, *count as usize)).collect();
        let own = |index: &usize| (confidences[*index], failures[*index]);
        let (c, f): (Vec<f64>, Vec<bool>) = repeated.iter().map(own).unzip();
        let want = RiskCoverage::new(&c, &f).unwrap().areas();
        assert_eq!(RiskCoverage::new(&confidences, &failures).unwrap().areas_of_resample(&drawn), want);
    }

    #[test]
    fn equal_confidences_are_accepted_together_and_bad_ones_are_named() {
        let curve = RiskCoverage::new(&[1.0, 1.0, 0.5], &[false, true, true]).unwrap();
        assert_eq!(curve.points(), [(2.0 / 3.0, 0.5), (1.0, 2.0 / 3.0)]);
        assert!(
            RiskCoverage::new(&[1.0, f64::NAN], &[true, false]).unwrap_err().to_string().contains("row 1")
        );
        assert!(
            RiskCoverage::new(&[1.0], &[]).unwrap_err().to_string().contains("1 confidences and 0 verdicts")
        );
        let all_wrong = RiskCoverage::new(&[2.0, 1.0], &[true, true]).unwrap().areas();
        assert_eq!((all_wrong.aurc, all_wrong.eaurc), (1.0, 0.0));
    }
}

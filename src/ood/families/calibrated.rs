//! Scores fitted on labelled ID samples outside training: temperature scaling and KL matching.

use std::sync::Arc;

use super::logits::energy;
use crate::error::Result;
use crate::features::Head;
use crate::linalg::{View, argmax, largest, matmul, sum_of_exponentials};
use crate::ood::compute::BlockScores;
use crate::ood::device::{FromNumbers, Steps};
use crate::ood::family::{Family, Fits, Fitted};
use crate::ood::method::{About, Cost, Method, Needs};
use crate::ood::options::Wanted;
use crate::ood::rows::Rows;
use crate::ood::saved::{Reader, Writer};
use crate::ood::training::Training;

/// The family.
pub(super) struct Calibrated;

const MEMBERS: &[About] = &[
    About {
        method: Method::TempScale,
        explanation: "Score: the largest softmax probability at the temperature that makes held-out ID samples most likely (Guo et al., \
                      2017).",
        needs: Needs::CALIBRATION,
        cost: Cost::Logits,
        parameters: &[],
    },
    About {
        method: Method::Klm,
        explanation: "Score: minus the smallest divergence of the probabilities from the mean probabilities of a predicted class \
                      (Hendrycks et al., 2022).",
        needs: Needs::CALIBRATION,
        cost: Cost::Logits,
        parameters: &[],
    },
];

/// Temperatures that are looked for.
const TEMPERATURES: (f64, f64) = (1e-2, 1e2);

impl Family for Calibrated {
    fn members(&self) -> &'static [About] {
        MEMBERS
    }

    fn fit(&self, wanted: &[Wanted], training: &Training<'_>) -> Result<Fits> {
        let (logits, labels) = training.calibration()?;
        let classes = training.head.classes();
        let mut fits = Fits::new();
        for Wanted { name, method, .. } in wanted {
            let name = name.clone();
            if *method == Method::TempScale {
                let temperature = fit_temperature(logits, labels, classes);
                training.found(&name, &[("temperature", temperature), ("samples", labels.len() as f64)]);
                fits.push(Arc::new(TempScale { name, temperature }));
            } else {
                let klm = Klm::fit(name, logits, classes);
                training.found(&klm.name, &[("classes", klm.kept as f64), ("samples", labels.len() as f64)]);
                fits.push(Arc::new(klm));
            }
        }
        Ok(fits)
    }

    fn load(&self, wanted: &[Wanted], file: &Reader, head: &Head) -> Result<Fits> {
        let mut fits = Fits::new();
        for Wanted { name, method, .. } in wanted {
            let name = name.clone();
            if *method == Method::TempScale {
                let temperature = file.get(&name, &[Some(1)])?.1[0];
                if temperature <= 0.0 {
                    return Err(file.malformed(&name, "a positive temperature", &temperature.to_string()));
                }
                fits.push(Arc::new(TempScale { name, temperature }));
            } else {
                let (shape, logs) = file.get(&name, &[None, Some(head.classes())])?;
                fits.push(Arc::new(Klm { name, logs, kept: shape[0] }));
            }
        }
        Ok(fits)
    }
}

/// The temperature of the least mean negative log-likelihood of `softmax(l / T)`: the root of its derivative in 1 / T, which is
/// `mean(Σ p_c l_c - l_y)` and grows with 1 / T. Where there is no root between the bounds the better bound.
fn fit_temperature(logits: &[f64], labels: &[u32], classes: usize) -> f64 {
    // The derivative and its own, the mean variance of the logits under p.
    let slope = |inverse: f64| {
        let (mut value, mut variance) = (0.0, 0.0);
        for (row, &label) in logits.chunks_exact(classes).zip(labels) {
            let top = largest(row);
            let [mut sum, mut first, mut second] = [0.0; 3];
            for logit in row {
                let e = ((logit - top) * inverse).exp();
                let below = logit - top;
                sum += e;
                first += e * below;
                second += e * below * below;
            }
            let mean = first / sum;
            value += mean - (row[label as usize] - top);
            variance += second / sum - mean * mean;
        }
        let count = labels.len().max(1) as f64;
        (value / count, variance / count)
    };
    let (mut low, mut high) = (TEMPERATURES.1.recip(), TEMPERATURES.0.recip());
    if slope(high).0 <= 0.0 {
        return TEMPERATURES.0;
    }
    if slope(low).0 >= 0.0 {
        return TEMPERATURES.1;
    }
    // Newton's steps, halved where they leave the bracket.
    let mut inverse = 1.0;
    for _ in 0..200 {
        let (value, derivative) = slope(inverse);
        if value < 0.0 {
            low = inverse
        } else {
            high = inverse
        }
        let step = inverse - value / derivative;
        let next = if low < step && step < high { step } else { low + 0.5 * (high - low) };
        if (next - inverse).abs() <= 2.0 * f64::EPSILON * inverse {
            return next.recip();
        }
        inverse = next;
    }
    inverse.recip()
}

#[derive(Debug)]
struct TempScale {
    name: String,
    temperature: f64,
}

impl Fitted for TempScale {
    fn score(&self, rows: &Rows, _head: &Head, scores: &mut BlockScores) {
        let probability = |logits: &[f64]| {
            let top = largest(logits);
            sum_of_exponentials(logits, top, self.temperature.recip()).recip()
        };
        scores.push((self.name.clone(), rows.logits().map(probability).collect()));
    }

    fn save(&self, out: &mut Writer) {
        out.put(&self.name, &[1], &[self.temperature]);
    }

    fn on_device<'a>(&'a self, _head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let place = steps.logit_scores(self.temperature).msp;
        Box::new(move |numbers| vec![(self.name.clone(), numbers.of(place).collect())])
    }
}

/// KL matching: `-min_k KL(p || D_k)`, D_k the mean probabilities of the samples predicted as k. Logarithms are kept: a mean
/// that underflows would make every divergence infinite.
#[derive(Debug)]
struct Klm {
    name: String,
    /// ln D_k of the classes that were predicted, row-major, kept x C.
    logs: Vec<f64>,
    kept: usize,
}

impl Klm {
    fn fit(name: String, logits: &[f64], classes: usize) -> Klm {
        let mut own: Vec<Vec<(&[f64], f64)>> = vec![Vec::new(); classes];
        for row in logits.chunks_exact(classes) {
            own[argmax(row)].push((row, energy(row, 1.0)));
        }
        own.retain(|rows| !rows.is_empty());
        let log_mean = |rows: &[(&[f64], f64)], c: usize| {
            let values: Vec<f64> = rows.iter().map(|(row, energy)| row[c] - energy).collect();
            energy(&values, 1.0) - (rows.len() as f64).ln()
        };
        let logs = own.iter().flat_map(|rows| (0..classes).map(move |c| log_mean(rows, c))).collect();
        Klm { name, logs, kept: own.len() }
    }
}

impl Fitted for Klm {
    fn score(&self, rows: &Rows, _head: &Head, scores: &mut BlockScores) {
        let classes = rows.classes;
        let probabilities = rows.softmax().probabilities();
        let mut products = vec![0.0; rows.count * self.kept];
        let logs = View::new(&self.logs, self.kept, classes).transposed();
        matmul(View::new(&probabilities, rows.count, classes), logs, &mut products);
        let values = rows.softmax().rows().zip(rows.logits()).zip(products.chunks_exact(self.kept)).map(
            |(((e, sum, top), logits), products)| {
                let weighted: f64 = e.iter().zip(logits).map(|(e, logit)| e * (logit - top)).sum();
                let own = weighted / sum - sum.ln();
                // -min(own - product) of all classes.
                largest(products) - own
            },
        );
        scores.push((self.name.clone(), values.collect()));
    }

    fn save(&self, out: &mut Writer) {
        let classes = self.logs.len().checked_div(self.kept).unwrap_or(0);
        out.put(&self.name, &[self.kept, classes], &self.logs);
    }

    fn on_device<'a>(&'a self, _head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let p = steps.softmax(0.0);
        let products = steps.products(p, &self.logs);
        let (largest, own) = (steps.largest_of(products), steps.logit_scores(1.0).entropy);
        Box::new(move |numbers| {
            let values = numbers.of(largest).zip(numbers.of(own)).map(|(largest, own)| largest - own);
            vec![(self.name.clone(), values.collect())]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_temperature_is_at_a_bound_where_the_likelihood_has_no_maximum() {
        // Separable: surer is always better. Always wrong: less sure is.
        assert_eq!(fit_temperature(&[2.0, 0.0, 0.0, 2.0], &[0, 1], 2), TEMPERATURES.0);
        assert_eq!(fit_temperature(&[2.0, 0.0, 0.0, 2.0], &[1, 0], 2), TEMPERATURES.1);
    }

    #[test]
    fn the_temperature_makes_three_right_answers_of_four_a_probability_of_three_quarters() {
        let logits = [4.0, 0.0].repeat(4);
        let temperature = fit_temperature(&logits, &[0, 0, 0, 1], 2);
        // p = 1 / (1 + exp(-4 / T)) = 3/4.
        assert!((temperature - 4.0 / 3f64.ln()).abs() < 1e-12, "{temperature}");
    }
}

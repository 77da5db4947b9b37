//! Features and logits against the weights of the head: gradients, distances to decision boundaries, alignment.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::features::Head;
use crate::linalg::{dot, squared_distance, squared_norm};
use crate::ood::compute::BlockScores;
use crate::ood::device::{FromNumbers, Steps};
use crate::ood::family::{Family, Fits, Fitted};
use crate::ood::method::{About, Cost, Method, Needs};
use crate::ood::options::Wanted;
use crate::ood::parameters::{Parameter, Range, Value};
use crate::ood::rows::Rows;
use crate::ood::saved::{Reader, Writer};
use crate::ood::training::Training;
use crate::values::Reals;

/// The family.
pub(super) struct HeadFamily;

const MEMBERS: &[About] = &[
    About {
        method: Method::Nci,
        explanation: "Score: alignment of the centred feature with the weight vector of the predicted class, plus a little of the \
                      feature's norm (Liu and Qin, 2023).",
        needs: Needs::TRAINING,
        cost: Cost::Head,
        parameters: &[Parameter {
            name: "weight",
            range: Range::Real(Reals::NOT_NEGATIVE),
            default: |_| Value::Real(1e-4),
            grid: &["0", "0.0001", "0.001", "0.01"],
            meaning: "weight of the sum of the feature's magnitudes (the authors' for CIFAR: 1e-4; 0: none)",
        }],
    },
    About {
        method: Method::GradNorm,
        explanation: "Score: norm of the gradient of the divergence between uniform and predicted probabilities with respect to the \
                      head (Huang et al., 2021).",
        needs: Needs::HEAD,
        cost: Cost::Head,
        parameters: &[Parameter {
            name: "temperature",
            range: Range::Real(Reals::POSITIVE),
            default: |_| Value::Real(1.0),
            grid: &[],
            meaning: "divides the logits",
        }],
    },
    About {
        method: Method::Fdbd,
        explanation: "Score: distances to the decision boundaries of the other classes, relative to the distance from the mean \
                      training feature (Liu and Qin, 2024).",
        needs: Needs::TRAINING,
        cost: Cost::Head,
        parameters: &[],
    },
    About {
        method: Method::FdbdNorm,
        explanation: "Score: distances to the decision boundaries of the other classes, relative to the feature's norm (Liu and Qin, \
                      2024).",
        needs: Needs::HEAD,
        cost: Cost::Head,
        parameters: &[],
    },
];

const SMALLEST_NORM: f64 = 1e-12;

impl Family for HeadFamily {
    fn members(&self) -> &'static [About] {
        MEMBERS
    }

    fn fit(&self, wanted: &[Wanted], training: &Training<'_>) -> Result<Fits> {
        let mut fits = Fits::new();
        for wanted in wanted {
            let mean = || Ok(training.mean().to_vec());
            fits.push(fitted(wanted, training.head, mean)?);
        }
        Ok(fits)
    }

    fn without_training(&self, wanted: &[Wanted], head: &Head) -> Result<Fits> {
        let mean = || Err(Error::usage("the mean training feature needs a training set"));
        wanted.iter().map(|wanted| fitted(wanted, head, mean)).collect()
    }

    fn load(&self, wanted: &[Wanted], file: &Reader, head: &Head) -> Result<Fits> {
        let mut fits = Fits::new();
        for wanted in wanted {
            let mean = || Ok(file.get(&format!("{}.mean", wanted.name), &[Some(head.dimension())])?.1);
            fits.push(fitted(wanted, head, mean)?);
        }
        Ok(fits)
    }
}

/// A score of the family; `mean` gives the mean training feature, where it needs one.
fn fitted(wanted: &Wanted, head: &Head, mean: impl Fn() -> Result<Vec<f64>>) -> Result<Arc<dyn Fitted>> {
    let name = wanted.name.clone();
    Ok(match wanted.method {
        Method::Nci => Arc::new(Nci { name, mean: mean()?, weight: wanted.parameters.real("weight") }),
        Method::GradNorm => Arc::new(GradNorm { name, temperature: wanted.parameters.real("temperature") }),
        Method::Fdbd => Arc::new(Fdbd { name, mean: Some(mean()?), reciprocals: reciprocals(head) }),
        _ => Arc::new(Fdbd { name, mean: None, reciprocals: reciprocals(head) }),
    })
}

/// How the centred feature aligns with the weight vector of the predicted class, plus a little of its L1 norm.
#[derive(Debug)]
struct Nci {
    name: String,
    mean: Vec<f64>,
    weight: f64,
}

impl Fitted for Nci {
    fn score(&self, rows: &Rows, head: &Head, scores: &mut BlockScores) {
        let mut centred = vec![0.0; rows.dimension];
        let sums = rows.sums_of_magnitudes();
        let values = rows.features().zip(rows.predicted()).zip(sums).map(|((features, class), sum)| {
            for ((centred, x), mean) in centred.iter_mut().zip(features).zip(&self.mean) {
                *centred = x - mean;
            }
            let alignment =
                dot(head.class_weight(class), &centred) / (squared_norm(&centred).sqrt() + SMALLEST_NORM);
            alignment + self.weight * sum
        });
        scores.push((self.name.clone(), values.collect()));
    }

    fn save(&self, out: &mut Writer) {
        out.put(&format!("{}.mean", self.name), &[self.mean.len()], &self.mean);
    }

    fn on_device<'a>(&'a self, head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let predicted = steps.predicted();
        let products = steps.class_products(predicted, Some(&self.mean), head.weight());
        let (norms, [above, below]) = (steps.whole_norms(Some(&self.mean), None), steps.magnitudes());
        Box::new(move |numbers| {
            let alignments = numbers.of(products).zip(numbers.of(norms));
            let alignments = alignments.map(|(product, norm)| product / (norm.sqrt() + SMALLEST_NORM));
            let sums = numbers.of(above).zip(numbers.of(below)).map(|(above, below)| above + below);
            let values = alignments.zip(sums).map(|(alignment, sum)| alignment + self.weight * sum);
            vec![(self.name.clone(), values.collect())]
        })
    }
}

/// `Σ_c |C p_c - 1| · |h|₁ / T`: the L1 norm of the gradient is a product of two.
#[derive(Debug)]
struct GradNorm {
    name: String,
    temperature: f64,
}

impl Fitted for GradNorm {
    fn score(&self, rows: &Rows, _head: &Head, scores: &mut BlockScores) {
        let classes = rows.classes as f64;
        let of_row = |exponentials: &[f64], sum: f64| {
            let terms = exponentials.iter().map(|e| (classes * e / sum - 1.0).abs());
            terms.sum::<f64>()
        };
        let by_logits: Vec<f64> = if self.temperature == 1.0 {
            rows.softmax().rows().map(|(e, sum, _)| of_row(e, sum)).collect()
        } else {
            let divided = rows.logits.iter().map(|logit| logit / self.temperature).collect();
            let rows = Rows::new(Vec::new(), 0, divided, rows.classes);
            rows.softmax().rows().map(|(e, sum, _)| of_row(e, sum)).collect()
        };
        let values = by_logits.iter().zip(rows.sums_of_magnitudes());
        let values = values.map(|(logits, features)| logits * features / self.temperature);
        scores.push((self.name.clone(), values.collect()));
    }

    fn save(&self, _out: &mut Writer) {}

    fn on_device<'a>(&'a self, _head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let (deviation, [above, below]) = (steps.deviation(self.temperature), steps.magnitudes());
        Box::new(move |numbers| {
            let sums = numbers.of(above).zip(numbers.of(below)).map(|(above, below)| above + below);
            let values = numbers.of(deviation).zip(sums);
            let values = values.map(|(deviation, sum)| deviation * sum / self.temperature);
            vec![(self.name.clone(), values.collect())]
        })
    }
}

/// Distances to decision boundaries: `Σ_{c ≠ j} |l_j - l_c| / |W_j - W_c|`, j the predicted class, divided by the distance from
/// the mean or by the norm.
#[derive(Debug)]
struct Fdbd {
    name: String,
    mean: Option<Vec<f64>>,
    /// `1 / |W_j - W_c|`, 0 where the weights are the same; row-major, C x C.
    reciprocals: Vec<f64>,
}

fn reciprocals(head: &Head) -> Vec<f64> {
    let classes = head.classes();
    let pairs = (0..classes * classes).map(|index| (index / classes, index % classes));
    let distances = pairs.map(|(a, b)| squared_distance(head.class_weight(a), head.class_weight(b)).sqrt());
    distances.map(|distance| if distance > 0.0 { distance.recip() } else { 0.0 }).collect()
}

impl Fitted for Fdbd {
    fn score(&self, rows: &Rows, _head: &Head, scores: &mut BlockScores) {
        let classes = rows.classes;
        let sums = rows.logits().zip(rows.predicted()).map(|(logits, class)| {
            let own = &self.reciprocals[class * classes..(class + 1) * classes];
            let top = logits[class];
            logits.iter().zip(own).map(|(logit, reciprocal)| (top - logit).abs() * reciprocal).sum::<f64>()
        });
        let values = match &self.mean {
            Some(mean) => {
                let distances = rows.features().map(|row| squared_distance(row, mean).sqrt());
                sums.zip(distances).map(|(sum, distance)| sum / distance).collect()
            }
            None => sums.zip(rows.norms()).map(|(sum, norm)| sum / norm).collect(),
        };
        scores.push((self.name.clone(), values));
    }

    fn save(&self, out: &mut Writer) {
        if let Some(mean) = &self.mean {
            out.put(&format!("{}.mean", self.name), &[mean.len()], mean);
        }
    }

    fn on_device<'a>(&'a self, _head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let sums = steps.margin_sums(&self.reciprocals);
        let squares = steps.whole_norms(self.mean.as_deref(), None);
        Box::new(move |numbers| {
            let values = numbers.of(sums).zip(numbers.of(squares)).map(|(sum, square)| sum / square.sqrt());
            vec![(self.name.clone(), values.collect())]
        })
    }
}

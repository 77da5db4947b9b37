//! Features against one mean of training features for each class: SHE, nearest means, CADRef.

use std::sync::Arc;

use crate::error::Result;
use crate::features::Head;
use crate::linalg::{View, dot, matmul, squared_distance, squared_norm};
use crate::ood::compute::BlockScores;
use crate::ood::device::{FromNumbers, Numbers, Place, Steps};
use crate::ood::family::{Family, Fits, Fitted};
use crate::ood::method::{About, Cost, Method, Needs};
use crate::ood::options::Wanted;
use crate::ood::rows::Rows;
use crate::ood::saved::{Reader, Writer};
use crate::ood::training::Training;

/// The family.
pub(super) struct Patterns;

const fn pattern(method: Method, explanation: &'static str) -> About {
    About { method, explanation, needs: Needs::LABELS, cost: Cost::Head, parameters: &[] }
}

const MEMBERS: &[About] = &[
    pattern(
        Method::She,
        "Score: inner product of a feature with the mean training feature of the predicted class (Zhang et al., 2023).",
    ),
    pattern(
        Method::SheEuclidean,
        "Score: minus the distance of a feature from the mean training feature of the predicted class (Zhang et al., 2023).",
    ),
    pattern(
        Method::SheCosine,
        "Score: cosine of a feature with the mean training feature of the predicted class (Zhang et al., 2023).",
    ),
    pattern(
        Method::Cosine,
        "Score: the largest cosine of a feature with a class mean (as Techapanurak et al., 2020).",
    ),
    pattern(
        Method::Prototype,
        "Score: minus the distance of a feature from the nearest class mean (Mensink et al., 2013).",
    ),
    pattern(
        Method::CadRef,
        "Score: minus the relative deviation of a feature from the mean of its predicted class, split by whether it raises the \
         logit, and weighed by the energy (Ling et al., 2025).",
    ),
    pattern(
        Method::CaRef,
        "Score: minus the relative deviation of a feature from the mean of its predicted class (Ling et al., 2025).",
    ),
];

/// The mean energy of the training set is a tensor of its own.
fn mean_energy(name: &str) -> String {
    format!("{name}.mean_energy")
}

impl Family for Patterns {
    fn members(&self) -> &'static [About] {
        MEMBERS
    }

    fn fit(&self, wanted: &[Wanted], training: &Training<'_>) -> Result<Fits> {
        let mut fits = Fits::new();
        let mut predicted = None;
        for Wanted { name, method, .. } in wanted {
            let means = match method {
                Method::Cosine | Method::Prototype => training.class_means()?.to_vec(),
                Method::CadRef | Method::CaRef => {
                    if predicted.is_none() {
                        predicted = Some(training.predicted_means()?);
                    }
                    let (means, counts) = predicted.clone().unwrap_or_default();
                    note_empty(training, name, &counts, "no training sample is predicted as class");
                    means
                }
                _ => {
                    let (means, counts) = training.correct_means()?;
                    note_empty(training, name, counts, "no training sample is classified correctly of class");
                    means.clone()
                }
            };
            let energy = if *method == Method::CadRef { training.mean_energy() } else { 0.0 };
            if *method == Method::CadRef {
                training.found(name, &[("mean_energy", energy)]);
            }
            fits.push(Arc::new(Pattern {
                name: name.clone(),
                method: *method,
                means,
                classes: training.head.classes(),
                mean_energy: energy,
            }));
        }
        Ok(fits)
    }

    fn load(&self, wanted: &[Wanted], file: &Reader, head: &Head) -> Result<Fits> {
        let mut fits = Fits::new();
        for Wanted { name, method, .. } in wanted {
            let shape = [Some(head.classes()), Some(head.dimension())];
            let means = file.get(&format!("{name}.patterns"), &shape)?.1;
            let mean_energy = match method {
                Method::CadRef => file.get(&mean_energy(name), &[Some(1)])?.1[0],
                _ => 0.0,
            };
            fits.push(Arc::new(Pattern {
                name: name.clone(),
                method: *method,
                means,
                classes: head.classes(),
                mean_energy,
            }));
        }
        Ok(fits)
    }
}

fn note_empty(training: &Training<'_>, name: &str, counts: &[u64], what: &str) {
    let empty = counts.iter().enumerate().filter(|(_, count)| **count == 0);
    let empty: Vec<String> = empty.map(|(class, _)| class.to_string()).collect();
    if !empty.is_empty() {
        training.note(format!("{name}: {what} {}; the mean of all of it is taken", empty.join(", ")));
    }
}

#[derive(Debug)]
struct Pattern {
    name: String,
    method: Method,
    /// Row-major, C x D.
    means: Vec<f64>,
    classes: usize,
    /// Of the training set, for `cadref`.
    mean_energy: f64,
}

impl Pattern {
    /// Something of each sample and the pattern of its predicted class.
    fn of_predicted(&self, rows: &Rows, value: impl Fn(&[f64], &[f64], usize) -> f64) -> Vec<f64> {
        let d = rows.dimension;
        let own = |class: usize| &self.means[class * d..(class + 1) * d];
        rows.features().zip(rows.predicted()).map(|(row, class)| value(row, own(class), class)).collect()
    }

    /// Inner products with all patterns, row-major, count x C.
    fn products(&self, rows: &Rows) -> Vec<f64> {
        let mut products = vec![0.0; rows.count * rows.classes];
        let means = View::new(&self.means, rows.classes, rows.dimension).transposed();
        matmul(View::new(&rows.features, rows.count, rows.dimension), means, &mut products);
        products
    }

    /// Patterns divided by their norms.
    fn unit_means(&self, dimension: usize) -> Vec<f64> {
        let unit = |mean: &[f64]| {
            let norm = squared_norm(mean).sqrt();
            mean.iter().map(|x| x / norm).collect::<Vec<f64>>()
        };
        self.means.chunks_exact(dimension).flat_map(unit).collect()
    }

    fn cosines(&self, rows: &Rows) -> Vec<f64> {
        let scales: Vec<f64> =
            self.means.chunks_exact(rows.dimension).map(|mean| squared_norm(mean).sqrt().recip()).collect();
        let products = self.products(rows);
        let of_row = |(products, norm): (&[f64], &f64)| {
            let cosines = products.iter().zip(&scales).map(|(product, scale)| product * scale);
            cosines.fold(f64::NEG_INFINITY, f64::max) / norm
        };
        products.chunks_exact(rows.classes).zip(rows.norms()).map(of_row).collect()
    }

    fn nearest(&self, rows: &Rows) -> Vec<f64> {
        let d = rows.dimension;
        let squares: Vec<f64> = self.means.chunks_exact(d).map(squared_norm).collect();
        let products = self.products(rows);
        let of_row = |(features, products): (&[f64], &[f64])| {
            let relative = products.iter().zip(&squares).map(|(product, square)| square - 2.0 * product);
            let best = relative.enumerate().fold((0, f64::INFINITY), |best, (class, relative)| {
                if relative < best.1 { (class, relative) } else { best }
            });
            // The product finds the mean; the distance is taken by differences, which lose no digit.
            -squared_distance(features, &self.means[best.0 * d..(best.0 + 1) * d]).sqrt()
        };
        rows.features().zip(products.chunks_exact(rows.classes)).map(of_row).collect()
    }

    /// Deviations from the pattern that would raise the logit, over the energy, and those that would lower it, over its mean.
    fn cadref(&self, rows: &Rows, head: &Head) -> Vec<f64> {
        let deviations: Vec<[f64; 2]> = {
            let d = rows.dimension;
            let of_row = |(features, class): (&[f64], usize)| {
                let pattern = &self.means[class * d..(class + 1) * d];
                let [mut raises, mut lowers] = [0.0; 2];
                for ((x, mean), weight) in features.iter().zip(pattern).zip(head.class_weight(class)) {
                    let sign = if *weight == 0.0 { 0.0 } else { weight.signum() };
                    let deviation = (x - mean) * sign;
                    raises += deviation.max(0.0);
                    lowers += (-deviation).max(0.0);
                }
                [raises, lowers]
            };
            rows.features().zip(rows.predicted()).map(of_row).collect()
        };
        let whole = rows.energies().zip(rows.sums_of_magnitudes());
        let value = |([raises, lowers], (energy, sum)): ([f64; 2], (f64, &f64))| {
            -(raises / sum / energy + lowers / sum / self.mean_energy)
        };
        deviations.into_iter().zip(whole).map(value).collect()
    }
}

impl Fitted for Pattern {
    fn score(&self, rows: &Rows, head: &Head, scores: &mut BlockScores) {
        let values = match self.method {
            Method::She => self.of_predicted(rows, |row, pattern, _| dot(row, pattern)),
            Method::SheEuclidean => {
                self.of_predicted(rows, |row, pattern, _| -squared_distance(row, pattern).sqrt())
            }
            Method::SheCosine => {
                let lengths: Vec<f64> =
                    self.means.chunks_exact(rows.dimension).map(|mean| squared_norm(mean).sqrt()).collect();
                let products =
                    self.of_predicted(rows, |row, pattern, class| dot(row, pattern) / lengths[class]);
                products.iter().zip(rows.norms()).map(|(product, norm)| product / norm).collect()
            }
            Method::Cosine => self.cosines(rows),
            Method::Prototype => self.nearest(rows),
            Method::CaRef => {
                let sums = self.of_predicted(rows, |row, pattern, _| {
                    row.iter().zip(pattern).map(|(x, mean)| (x - mean).abs()).sum()
                });
                sums.iter().zip(rows.sums_of_magnitudes()).map(|(own, all)| -own / all).collect()
            }
            _ => self.cadref(rows, head),
        };
        scores.push((self.name.clone(), values));
    }

    fn save(&self, out: &mut Writer) {
        let shape = [self.classes, self.means.len() / self.classes];
        out.put(&format!("{}.patterns", self.name), &shape, &self.means);
        if self.method == Method::CadRef {
            out.put(&mean_energy(&self.name), &[1], &[self.mean_energy]);
        }
    }

    fn on_device<'a>(&'a self, head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let predicted = steps.predicted();
        let of = match self.method {
            Method::She => OnDevice::Plain(steps.class_products(predicted, None, self.means.as_slice())),
            Method::SheEuclidean => OnDevice::Distance(steps.class_distances(predicted, &self.means)),
            Method::SheCosine => {
                let products = steps.class_products(predicted, None, self.unit_means(head.dimension()));
                OnDevice::ByNorm(products, steps.whole_norms(None, None))
            }
            Method::Cosine => {
                let rows = steps.features();
                let cosines = steps.products(rows, &self.unit_means(head.dimension()));
                OnDevice::ByNorm(steps.largest_of(cosines), steps.whole_norms(None, None))
            }
            Method::Prototype => {
                let nearest = steps.nearest_class(&self.means);
                OnDevice::Distance(steps.class_distances(nearest, &self.means))
            }
            Method::CaRef => {
                OnDevice::Deviation(steps.class_magnitudes(predicted, &self.means, None), steps.magnitudes())
            }
            _ => {
                let parts = steps.class_magnitudes(predicted, &self.means, Some(head.weight()));
                OnDevice::Split(parts, steps.magnitudes(), steps.logit_scores(1.0).energy)
            }
        };
        Box::new(move |numbers| vec![(self.name.clone(), of.values(numbers, self.mean_energy))])
    }
}

/// What a score is made of on a device.
#[derive(Debug, Clone, Copy)]
enum OnDevice {
    /// As it is.
    Plain(Place),
    /// Minus the root of a squared distance.
    Distance(Place),
    /// Divided by the root of a squared norm.
    ByNorm(Place, Place),
    /// Minus the sum of the magnitudes of a deviation over that of the features.
    Deviation([Place; 2], [Place; 2]),
    /// The same of its two parts, over the energy and its mean.
    Split([Place; 2], [Place; 2], Place),
}

impl OnDevice {
    fn values(self, numbers: &Numbers, mean_energy: f64) -> Vec<f64> {
        let pairs = |[a, b]: [Place; 2]| numbers.of(a).zip(numbers.of(b));
        let sums = |places| pairs(places).map(|(above, below)| above + below);
        match self {
            OnDevice::Plain(place) => numbers.of(place).collect(),
            OnDevice::Distance(place) => numbers.of(place).map(|square| -square.sqrt()).collect(),
            OnDevice::ByNorm(product, square) => {
                pairs([product, square]).map(|(product, square)| product / square.sqrt()).collect()
            }
            OnDevice::Deviation(own, all) => sums(own).zip(sums(all)).map(|(own, all)| -own / all).collect(),
            OnDevice::Split(parts, all, energy) => pairs(parts)
                .zip(sums(all).zip(numbers.of(energy)))
                .map(|((raises, lowers), (sum, energy))| {
                    -(raises / sum / energy + lowers / sum / mean_energy)
                })
                .collect(),
        }
    }
}

//! OpenMax: the probability of an unknown class, from Weibull tails of the distances of logits to their class mean.

use std::sync::Arc;

use crate::error::Result;
use crate::features::Head;
use crate::linalg::{argmax, squared_distance, sum_of_exponentials};
use crate::ood::compute::BlockScores;
use crate::ood::device::{FromNumbers, Steps};
use crate::ood::family::{Family, Fits, Fitted};
use crate::ood::method::{About, Cost, Method, Needs};
use crate::ood::options::Wanted;
use crate::ood::parameters::{Parameter, Range, Value};
use crate::ood::rows::{Columns, Rows, add, fold_columns};
use crate::ood::saved::{Reader, Writer};
use crate::ood::training::Training;
use crate::values::Wholes;

/// The family.
pub(super) struct OpenMaxFamily;

const MEMBERS: &[About] = &[About {
    method: Method::OpenMax,
    explanation: "Score: minus the probability of an unknown class by Weibull tails of logit distances (Bendale and Boult, 2016).",
    needs: Needs { training: true, labels: true, ..Needs::LOGITS },
    cost: Cost::Logits,
    parameters: &[
        Parameter {
            name: "tail",
            range: Range::Whole(Wholes::between(2, 1_000_000)),
            default: |_| Value::Whole(20),
            grid: &["10", "20", "50"],
            meaning: "largest distances that a Weibull distribution is fitted to",
        },
        Parameter {
            name: "alpha",
            range: Range::Whole(Wholes::POSITIVE),
            default: |_| Value::Whole(3),
            grid: &[],
            meaning: "largest logits that are revised",
        },
    ],
}];

/// Added to distances before the fit, as libMR does: the distribution is then all but Gumbel's.
const SHIFT: f64 = 1e4;

/// A Weibull distribution of distances beyond the smallest of a tail.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Weibull {
    /// 0 where all distances of the tail are equal.
    shape: f64,
    log_scale: f64,
    least: f64,
    most: f64,
}

impl Weibull {
    /// By maximum likelihood. With `y = ln(1 + (t - min t) / SHIFT)`, which loses no digit, the shape k is the only root of
    /// `Σ y e^{ky} / Σ e^{ky} - 1/k - mean y`.
    fn fit(tail: &[f64]) -> Weibull {
        let least = tail.iter().copied().fold(f64::INFINITY, f64::min);
        let most = tail.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let y: Vec<f64> = tail.iter().map(|t| ((t - least) / SHIFT).ln_1p()).collect();
        let top = y.iter().copied().fold(0.0, f64::max);
        if top <= 0.0 {
            return Weibull { shape: 0.0, log_scale: 0.0, least, most };
        }
        let count = y.len() as f64;
        let mean = y.iter().sum::<f64>() / count;
        let deviation = (y.iter().map(|y| (y - mean) * (y - mean)).sum::<f64>() / count).sqrt();
        let slope = |k: f64| {
            let weights = y.iter().map(|y| (k * (y - top)).exp());
            let (sum, weighted) =
                weights.zip(&y).fold((0.0, 0.0), |(sum, weighted), (w, y)| (sum + w, weighted + w * y));
            weighted / sum - k.recip() - mean
        };
        let start = deviation.max(1e-300).recip();
        let (mut low, mut high) = (start, start);
        while slope(low) > 0.0 {
            low /= 2.0;
        }
        while slope(high) < 0.0 && high < 1e300 {
            high *= 2.0;
        }
        loop {
            let middle = low + 0.5 * (high - low);
            if middle <= low || middle >= high {
                break;
            }
            if slope(middle) < 0.0 { low = middle } else { high = middle }
        }
        let shape = high;
        let mean_power = y.iter().map(|y| (shape * (y - top)).exp()).sum::<f64>() / count;
        Weibull { shape, log_scale: top + mean_power.ln() / shape, least, most }
    }

    /// The share of the distribution below a distance.
    fn below(&self, distance: f64) -> f64 {
        if self.shape == 0.0 {
            return f64::from(u8::from(distance > self.most));
        }
        let beyond = (distance - self.least) / SHIFT;
        if beyond <= -1.0 {
            return 0.0;
        }
        let exponent = self.shape * (beyond.ln_1p() - self.log_scale);
        -(-exponent.min(700.0).exp()).exp_m1()
    }
}

#[derive(Debug)]
struct OpenMax {
    name: String,
    /// Mean logits of the correctly classified samples of each class, row-major, C x C.
    means: Vec<f64>,
    tails: Vec<Weibull>,
    alpha: usize,
}

impl OpenMax {
    fn fit(wanted: &Wanted, training: &Training<'_>) -> Result<OpenMax> {
        let classes = training.head.classes();
        let labels = training.labels()?;
        let (means, all) = means(training, labels);
        let tail = wanted.parameters.whole("tail");
        let columns = (training.set, Columns::Logits);
        // The largest distances of each class; of classes without a correct sample those of all its samples.
        let largest = fold_columns(
            columns,
            training.head,
            vec![Vec::new(); classes],
            |rows, range| {
                let mut distances = vec![Vec::new(); classes];
                for (logits, label) in rows.logits().zip(&labels[range]) {
                    let class = *label as usize;
                    if all[class] || argmax(logits) == class {
                        let mean = &means[class * classes..(class + 1) * classes];
                        distances[class].push(squared_distance(logits, mean).sqrt());
                    }
                }
                distances
            },
            |mut kept: Vec<Vec<f64>>, part| {
                for (kept, mut part) in kept.iter_mut().zip(part) {
                    kept.append(&mut part);
                    kept.sort_unstable_by(|a, b| b.total_cmp(a));
                    kept.truncate(tail);
                }
                kept
            },
        );
        let tails = largest.iter().map(|tail| Weibull::fit(tail)).collect();
        let empty: Vec<String> =
            (0..classes).filter(|class| all[*class]).map(|class| class.to_string()).collect();
        if !empty.is_empty() {
            training.note(format!(
                "{}: no training sample of class {} is classified correctly; all of it are taken",
                wanted.name,
                empty.join(", ")
            ));
        }
        let alpha = wanted.parameters.whole("alpha").min(classes);
        training.found(&wanted.name, &[("tail", tail as f64), ("alpha", alpha as f64)]);
        Ok(OpenMax { name: wanted.name.clone(), means, tails, alpha })
    }
}

impl OpenMax {
    /// Four numbers of each class.
    fn numbers_of_tails(&self) -> Vec<f64> {
        self.tails.iter().flat_map(|t| [t.shape, t.log_scale, t.least, t.most]).collect()
    }
}

/// Mean logits of the correctly classified samples of each class, of all its samples where none is; and where that is.
fn means(training: &Training<'_>, labels: &[u32]) -> (Vec<f64>, Vec<bool>) {
    let classes = training.head.classes();
    let sums = |correct: bool| {
        fold_columns(
            (training.set, Columns::Logits),
            training.head,
            (vec![0.0; classes * classes], vec![0.0; classes]),
            |rows, range| {
                let mut part = (vec![0.0; classes * classes], vec![0.0; classes]);
                for (logits, label) in rows.logits().zip(&labels[range]) {
                    let class = *label as usize;
                    if !correct || argmax(logits) == class {
                        part.1[class] += 1.0;
                        let sum = &mut part.0[class * classes..(class + 1) * classes];
                        sum.iter_mut().zip(logits).for_each(|(sum, x)| *sum += x);
                    }
                }
                part
            },
            |total, part| (add(total.0, part.0), add(total.1, part.1)),
        )
    };
    let (mut means, mut counts) = sums(true);
    let all: Vec<bool> = counts.iter().map(|count| *count == 0.0).collect();
    if all.contains(&true) {
        let (sums, numbers) = sums(false);
        for class in (0..classes).filter(|class| all[*class]) {
            let own = class * classes..(class + 1) * classes;
            means[own.clone()].copy_from_slice(&sums[own]);
            counts[class] = numbers[class];
        }
    }
    for (mean, count) in means.chunks_exact_mut(classes).zip(&counts) {
        mean.iter_mut().for_each(|sum| *sum /= count.max(1.0));
    }
    (means, all)
}

impl Family for OpenMaxFamily {
    fn members(&self) -> &'static [About] {
        MEMBERS
    }

    fn fit(&self, wanted: &[Wanted], training: &Training<'_>) -> Result<Fits> {
        wanted.iter().map(|wanted| Ok(Arc::new(OpenMax::fit(wanted, training)?) as Arc<dyn Fitted>)).collect()
    }

    fn load(&self, wanted: &[Wanted], file: &Reader, head: &Head) -> Result<Fits> {
        let classes = head.classes();
        let mut fits = Fits::new();
        for Wanted { name, parameters, .. } in wanted {
            let means = file.get(&format!("{name}.means"), &[Some(classes), Some(classes)])?.1;
            let tails = file.get(&format!("{name}.tails"), &[Some(classes), Some(4)])?.1;
            let tails = tails.as_chunks::<4>().0.iter();
            let tails = tails
                .map(|&[shape, log_scale, least, most]| Weibull { shape, log_scale, least, most })
                .collect();
            let alpha = parameters.whole("alpha").min(classes);
            fits.push(Arc::new(OpenMax { name: name.clone(), means, tails, alpha }));
        }
        Ok(fits)
    }
}

impl Fitted for OpenMax {
    fn score(&self, rows: &Rows, _head: &Head, scores: &mut BlockScores) {
        let classes = rows.classes;
        let mut order: Vec<usize> = Vec::new();
        let mut revised = vec![0.0; classes];
        let unknown = |logits: &[f64]| {
            order.clear();
            order.extend(0..classes);
            let larger = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
            if self.alpha < classes {
                order.select_nth_unstable_by(self.alpha - 1, larger);
                order.truncate(self.alpha);
            }
            order.sort_unstable_by(larger);
            revised.copy_from_slice(logits);
            let mut moved = 0.0;
            for (rank, &class) in order.iter().enumerate() {
                let weight = (self.alpha - rank) as f64 / self.alpha as f64;
                let mean = &self.means[class * classes..(class + 1) * classes];
                let outside = self.tails[class].below(squared_distance(logits, mean).sqrt());
                revised[class] = logits[class] * (1.0 - weight * outside);
                moved += logits[class] - revised[class];
            }
            let top = revised.iter().copied().fold(moved, f64::max);
            let own = (moved - top).exp();
            -own / (own + sum_of_exponentials(&revised, top, 1.0))
        };
        scores.push((self.name.clone(), rows.logits().map(unknown).collect()));
    }

    fn save(&self, out: &mut Writer) {
        let classes = self.tails.len();
        out.put(&format!("{}.means", self.name), &[classes, classes], &self.means);
        out.put(&format!("{}.tails", self.name), &[classes, 4], &self.numbers_of_tails());
    }

    fn on_device<'a>(&'a self, _head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let place = steps.open_max(&self.means, self.numbers_of_tails(), self.alpha);
        Box::new(move |numbers| vec![(self.name.clone(), numbers.of(place).map(|p| -p).collect())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_of_equal_distances_is_a_step() {
        let tail = Weibull::fit(&[2.0, 2.0, 2.0]);
        assert_eq!((tail.below(2.0), tail.below(2.1)), (0.0, 1.0));
    }

    #[test]
    fn the_likelihood_falls_on_either_side_of_the_fit() {
        let tail = [1.0, 1.4, 1.9, 3.0, 4.5];
        let fit = Weibull::fit(&tail);
        let likelihood = |shape: f64, log_scale: f64| -> f64 {
            let x = tail.iter().map(|t| (t - 1.0 + SHIFT).ln() - SHIFT.ln());
            x.map(|x| shape.ln() + (shape - 1.0) * x - shape * log_scale - (shape * (x - log_scale)).exp())
                .sum()
        };
        let best = likelihood(fit.shape, fit.log_scale);
        for (shape, scale) in [(1.01, 1.0), (0.99, 1.0), (1.0, 1.01), (1.0, 0.99)] {
            assert!(likelihood(fit.shape * shape, fit.log_scale * scale) < best, "{shape} {scale}");
        }
        assert!(fit.below(0.0) < fit.below(2.0) && fit.below(2.0) < fit.below(5.0));
    }
}

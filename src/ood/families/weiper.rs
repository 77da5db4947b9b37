//! WeiPer: how a sample's features, and its logits under many perturbed heads, are distributed, against training.

use std::sync::Arc;

use rayon::prelude::*;

use crate::error::Result;
use crate::features::Head;
use crate::linalg::{View, largest, matmul, squared_norm, sum_of_exponentials};
use crate::ood::compute::BlockScores;
use crate::ood::device::{FromNumbers, Steps, TrainingHistogram};
use crate::ood::family::{Family, Fits, Fitted};
use crate::ood::method::{About, Cost, Method, Needs};
use crate::ood::options::Wanted;
use crate::ood::parameters::{Parameter, Range, Value};
use crate::ood::rows::{Rows, add, fold_blocks};
use crate::ood::saved::{Reader, Writer};
use crate::ood::training::Training;
use crate::ops::HISTOGRAM_BINS;
use crate::rng::Stream;
use crate::values::{Reals, Wholes};

/// The family.
pub(super) struct WeiPerFamily;

const MEMBERS: &[About] = &[About {
    method: Method::WeiPer,
    explanation: "Score: minus the divergence of a sample's distributions of features and of logits under perturbed heads from those \
                  of training (Granz et al., 2024).",
    needs: Needs::TRAINING,
    cost: Cost::Heads,
    parameters: &[
        Parameter {
            name: "repeats",
            range: Range::Whole(Wholes::between(1, 100_000)),
            default: |_| Value::Whole(100),
            grid: &[],
            meaning: "perturbed heads",
        },
        Parameter {
            name: "delta",
            range: Range::Real(Reals::NOT_NEGATIVE),
            default: |_| Value::Real(1.8),
            grid: &[],
            meaning: "length of a perturbation relative to its weight vector",
        },
        Parameter {
            name: "lambda1",
            range: Range::Real(Reals::NOT_NEGATIVE),
            default: |_| Value::Real(2.5),
            grid: &[],
            meaning: "weight of the divergence of logits",
        },
        Parameter {
            name: "lambda2",
            range: Range::Real(Reals::NOT_NEGATIVE),
            default: |_| Value::Real(0.1),
            grid: &[],
            meaning: "weight of the mean largest probability under perturbed heads",
        },
    ],
}];

/// Bins of a histogram.
const BINS: usize = HISTOGRAM_BINS;
/// The stream of perturbations.
const PERTURBATIONS: u64 = 901;
/// Samples whose logits under all heads are held at once by a thread.
const ROWS: usize = 64;
/// The most numbers that all perturbed heads may have: half a gigabyte.
const MOST_WEIGHTS: usize = 1 << 26;

impl Family for WeiPerFamily {
    fn members(&self) -> &'static [About] {
        MEMBERS
    }

    fn fit(&self, wanted: &[Wanted], training: &Training<'_>) -> Result<Fits> {
        let mut fits = Fits::new();
        for wanted in wanted {
            let (head, repeats) = (training.head, wanted.parameters.whole("repeats"));
            let each = head.classes() * head.dimension();
            if each.saturating_mul(repeats) > MOST_WEIGHTS {
                let reason = format!(
                    "{} is left out: {repeats} perturbed heads of {} x {} weights do not fit half a gigabyte; ask for fewer, as \
                     weiper:repeats={}",
                    wanted.name,
                    head.classes(),
                    head.dimension(),
                    (MOST_WEIGHTS / each).max(1)
                );
                training.leave_out(&wanted.name, reason);
                continue;
            }
            fits.push(Arc::new(WeiPer::fit(wanted, training)));
        }
        Ok(fits)
    }

    fn load(&self, wanted: &[Wanted], file: &Reader, head: &Head) -> Result<Fits> {
        wanted
            .iter()
            .map(|wanted| Ok(Arc::new(WeiPer::load(wanted, file, head)?) as Arc<dyn Fitted>))
            .collect()
    }
}

/// Equal bins between two numbers.
#[derive(Debug, Clone, PartialEq)]
struct Bins {
    edges: Vec<f64>,
    /// The largest value; the last bin ends a little beyond it.
    most: f64,
    per_width: f64,
}

impl Bins {
    fn new(least: f64, most: f64) -> Bins {
        let end = most + 1e-8;
        let width = (end - least) / BINS as f64;
        let mut edges: Vec<f64> = (0..=BINS).map(|i| least + width * i as f64).collect();
        edges[BINS] = end;
        Bins { edges, most, per_width: width.recip() }
    }

    /// Adds the values to a histogram; values outside are in no bin.
    fn count(&self, values: &[f64], counts: &mut [u32; BINS]) {
        let (least, end) = (self.edges[0], self.edges[BINS]);
        for &x in values {
            if x < least || x >= end {
                continue;
            }
            // The quotient is off by one at the most, next to an edge.
            let mut bin = (((x - least) * self.per_width) as usize).min(BINS - 1);
            if x < self.edges[bin] {
                bin -= 1;
            } else if x >= self.edges[bin + 1] {
                bin += 1;
            }
            counts[bin] += 1;
        }
    }

    /// The share of the values in each bin.
    fn shares(&self, values: &[f64]) -> [f64; BINS] {
        let mut counts = [0u32; BINS];
        self.count(values, &mut counts);
        counts.map(|count| f64::from(count) / values.len() as f64)
    }
}

/// A mean training histogram, and how that of a sample is compared with it.
#[derive(Debug)]
struct Density {
    bins: Bins,
    /// Share of the training values in each bin.
    shares: Vec<f64>,
    /// Width of the box that smooths the histogram of a sample.
    width: usize,
    /// Added to every bin.
    floor: f64,
}

impl Density {
    /// As devices compare with it.
    fn on_device(&self) -> TrainingHistogram<'_> {
        let Density { bins: Bins { edges, per_width, .. }, shares, width, floor } = self;
        TrainingHistogram { edges, shares, per_width: *per_width, width: *width, floor: *floor }
    }

    /// Divergence of the smoothed histogram of some values from training, both ways round.
    fn divergence(&self, values: &[f64]) -> f64 {
        let own = self.bins.shares(values);
        let left = (self.width - 1) / 2;
        let at = |place: isize| own[place.clamp(0, BINS as isize - 1) as usize];
        let smooth = |bin: usize| {
            let first = bin as isize - left as isize;
            (0..self.width as isize).map(|offset| at(first + offset)).sum::<f64>() / self.width as f64
                + self.floor
        };
        let q: [f64; BINS] = std::array::from_fn(smooth);
        let all: f64 = q.iter().sum();
        let training: f64 = self.shares.iter().map(|p| p + self.floor).sum();
        let terms = self.shares.iter().zip(&q).map(|(p, q)| {
            let (p, q) = ((p + self.floor) / training, q / all);
            (p - q) * (p.ln() - q.ln())
        });
        terms.sum()
    }
}

#[derive(Debug)]
struct WeiPer {
    name: String,
    heads: Heads,
    features: Density,
    logits: Density,
    lambda1: f64,
    lambda2: f64,
}

/// The perturbed heads.
#[derive(Debug)]
struct Heads {
    /// Row-major, (repeats C) x D.
    weight: Vec<f64>,
    /// C numbers.
    bias: Vec<f64>,
    repeats: usize,
    seed: u64,
}

impl Heads {
    /// `W_c + δ |W_c| n / |n|`, n standard normal for each head and class.
    fn new(head: &Head, repeats: usize, delta: f64, seed: u64) -> Heads {
        let (classes, d) = (head.classes(), head.dimension());
        let stream = Stream::new(seed, &[PERTURBATIONS]);
        let mut weight = vec![0.0; repeats * classes * d];
        weight.par_chunks_mut(d).enumerate().for_each(|(row, perturbed)| {
            let own = head.class_weight(row % classes);
            perturbed.iter_mut().enumerate().for_each(|(j, n)| *n = stream.normal((row * d + j) as u64));
            let factor = delta * squared_norm(own).sqrt() / squared_norm(perturbed).sqrt();
            perturbed.iter_mut().zip(own).for_each(|(n, w)| *n = w + factor * *n);
        });
        Heads { weight, bias: head.bias().to_vec(), repeats, seed }
    }

    /// Calls `each` with the logits of some samples under all heads: row-major, samples x (repeats C).
    fn project(&self, rows: &Rows, mut each: impl FnMut(&[f64], &[f64])) {
        let (d, outputs) = (rows.dimension, self.repeats * self.bias.len());
        let weight = View::new(&self.weight, outputs, d).transposed();
        let mut logits = Vec::new();
        for features in rows.features.chunks(ROWS * d) {
            let count = features.len() / d;
            logits.resize(count * outputs, 0.0);
            matmul(View::new(features, count, d), weight, &mut logits[..count * outputs]);
            for head in logits[..count * outputs].chunks_exact_mut(self.bias.len()) {
                head.iter_mut().zip(&self.bias).for_each(|(logit, bias)| *logit += bias);
            }
            for (features, logits) in features.chunks_exact(d).zip(logits.chunks_exact(outputs)) {
                each(features, logits);
            }
        }
    }
}

fn bounds(values: &[f64], [least, most]: [f64; 2]) -> [f64; 2] {
    values.iter().fold([least, most], |[least, most], x| [least.min(*x), most.max(*x)])
}

impl WeiPer {
    fn new(wanted: &Wanted, heads: Heads, ranges: [[f64; 2]; 2], shares: [Vec<f64>; 2]) -> WeiPer {
        let [of_features, of_logits] = ranges.map(|[least, most]| Bins::new(least, most));
        let [features, logits] = shares;
        WeiPer {
            name: wanted.name.clone(),
            heads,
            features: Density { bins: of_features, shares: features, width: 4, floor: 0.01 },
            logits: Density { bins: of_logits, shares: logits, width: 15, floor: 0.025 },
            lambda1: wanted.parameters.real("lambda1"),
            lambda2: wanted.parameters.real("lambda2"),
        }
    }

    fn fit(wanted: &Wanted, training: &Training<'_>) -> WeiPer {
        let head = training.head;
        let (repeats, delta) = (wanted.parameters.whole("repeats"), wanted.parameters.real("delta"));
        let heads = Heads::new(head, repeats, delta, training.seed);
        let nothing = [f64::INFINITY, f64::NEG_INFINITY];
        let ranges = fold_blocks(
            training.set,
            head,
            [nothing; 2],
            |rows, _| {
                let mut of_logits = nothing;
                heads.project(rows, |_, logits| of_logits = bounds(logits, of_logits));
                [bounds(&rows.features, nothing), of_logits]
            },
            |total, part| [bounds(&part[0], total[0]), bounds(&part[1], total[1])],
        );
        let [of_features, of_logits] = ranges.map(|[least, most]| Bins::new(least, most));
        let counts = fold_blocks(
            training.set,
            head,
            vec![0.0; 2 * BINS],
            |rows, _| {
                let (mut features, mut logits) = ([0u32; BINS], [0u32; BINS]);
                of_features.count(&rows.features, &mut features);
                heads.project(rows, |_, values| of_logits.count(values, &mut logits));
                features.iter().chain(&logits).map(|count| f64::from(*count)).collect()
            },
            add,
        );
        let values =
            [head.dimension(), repeats * head.classes()].map(|each| (training.set.len() * each) as f64);
        let (features, logits) = counts.split_at(BINS);
        let shares = [
            features.iter().map(|count| count / values[0]).collect(),
            logits.iter().map(|count| count / values[1]).collect(),
        ];
        let [[h_min, h_max], [z_min, z_max]] = ranges;
        training.found(
            &wanted.name,
            &[("feature_min", h_min), ("feature_max", h_max), ("logit_min", z_min), ("logit_max", z_max)],
        );
        WeiPer::new(wanted, heads, ranges, shares)
    }

    fn load(wanted: &Wanted, file: &Reader, head: &Head) -> Result<WeiPer> {
        let name = &wanted.name;
        let get =
            |part: &str, count| file.get(&format!("{name}.{part}"), &[Some(count)]).map(|found| found.1);
        let ranges = get("ranges", 4)?;
        if ranges[0] > ranges[1] || ranges[2] > ranges[3] {
            return Err(file.malformed(
                &format!("{name}.ranges"),
                "two ascending ranges",
                &format!("{ranges:?}"),
            ));
        }
        let repeats = wanted.parameters.whole("repeats");
        let numbers = repeats.saturating_mul(head.classes()).saturating_mul(head.dimension());
        if numbers > MOST_WEIGHTS {
            let expected = "perturbed heads that fit half a gigabyte";
            return Err(file.malformed(name, expected, &format!("{repeats} of them")));
        }
        let words = get("seed", 2)?;
        let seed = (words[0] as u64) << 32 | words[1] as u64;
        let heads = Heads::new(head, repeats, wanted.parameters.real("delta"), seed);
        let shares = [get("feature_shares", BINS)?, get("logit_shares", BINS)?];
        Ok(WeiPer::new(wanted, heads, [[ranges[0], ranges[1]], [ranges[2], ranges[3]]], shares))
    }
}

impl Fitted for WeiPer {
    fn score(&self, rows: &Rows, _head: &Head, scores: &mut BlockScores) {
        let mut values = Vec::with_capacity(rows.count);
        let classes = self.heads.bias.len();
        self.heads.project(rows, |features, logits| {
            let of_head = |logits: &[f64]| {
                let top = largest(logits);
                sum_of_exponentials(logits, top, 1.0).recip()
            };
            let probability =
                logits.chunks_exact(classes).map(of_head).sum::<f64>() / self.heads.repeats as f64;
            let divergence =
                self.features.divergence(features) + self.lambda1 * self.logits.divergence(logits);
            values.push(self.lambda2 * probability - divergence);
        });
        scores.push((self.name.clone(), values));
    }

    fn save(&self, out: &mut Writer) {
        let name = &self.name;
        let range = |density: &Density| [density.bins.edges[0], density.bins.most];
        let [a, b] = [range(&self.features), range(&self.logits)];
        out.put(&format!("{name}.ranges"), &[4], &[a[0], a[1], b[0], b[1]]);
        out.put(&format!("{name}.feature_shares"), &[BINS], &self.features.shares);
        out.put(&format!("{name}.logit_shares"), &[BINS], &self.logits.shares);
        let seed = self.heads.seed;
        out.put(&format!("{name}.seed"), &[2], &[(seed >> 32) as f64, (seed & 0xFFFF_FFFF) as f64]);
    }

    fn on_device<'a>(&'a self, _head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let rows = steps.features();
        let z = steps.products(rows, &self.heads.weight);
        let features = steps.histogram(&self.features.on_device());
        let [logits, mean] = steps.histogram_of_heads(z, &self.heads.bias, &self.logits.on_device());
        Box::new(move |numbers| {
            let divergences = numbers.of(features).zip(numbers.of(logits));
            let divergences = divergences.map(|(features, logits)| features + self.lambda1 * logits);
            let values = numbers.of(mean).zip(divergences);
            let values = values.map(|(mean, divergence)| self.lambda2 * mean - divergence);
            vec![(self.name.clone(), values.collect())]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_those_of_a_search_among_their_edges() {
        let bins = Bins::new(-0.3, 7.1);
        let stream = Stream::new(1, &[]);
        let mut values: Vec<f64> = (0..2000).map(|i| stream.uniform(i) * 8.0 - 0.5).collect();
        values.extend_from_slice(&bins.edges);
        let mut expected = [0u32; BINS];
        for x in &values {
            let bin = bins.edges.partition_point(|edge| edge <= x);
            if (1..=BINS).contains(&bin) {
                expected[bin - 1] += 1;
            }
        }
        let mut found = [0u32; BINS];
        bins.count(&values, &mut found);
        assert_eq!(found, expected);
    }
}

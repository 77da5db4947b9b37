//! Energy of features that were clipped, pruned or scaled, or of a head of few weights.

use std::sync::Arc;

use super::logits::energy;
use crate::error::Result;
use crate::features::Head;
use crate::linalg::{View, add_matmul};
use crate::ood::compute::BlockScores;
use crate::ood::device::{FromNumbers, Place, Steps};
use crate::ood::family::{Family, Fits, Fitted, named};
use crate::ood::method::{About, Cost, Method, Needs};
use crate::ood::options::{Options, PERCENT, Wanted};
use crate::ood::order_statistic::{interpolate, percentiles};
use crate::ood::parameters::{Parameter, Range, Value};
use crate::ood::rows::Rows;
use crate::ood::saved::{Reader, Writer};
use crate::ood::training::Training;
use crate::ops::Shaping as Shape;
use crate::values::Reals;

/// The family.
pub(super) struct Shaping;

/// Percentiles that tuning tries.
const PERCENTILES: &[&str] = &["65", "75", "85", "90", "95", "99"];

const fn percent(
    name: &'static str,
    default: fn(&Options) -> Value,
    grid: &'static [&'static str],
    meaning: &'static str,
) -> Parameter {
    Parameter { name, range: Range::Real(PERCENT), default, grid, meaning }
}

const fn quantile(
    name: &'static str,
    default: fn(&Options) -> Value,
    grid: &'static [&'static str],
    meaning: &'static str,
) -> Parameter {
    Parameter { name, range: Range::Real(Reals::SHARE), default, grid, meaning }
}

const LOW: Parameter = quantile(
    "low",
    |_| Value::Real(0.6),
    &["0.3", "0.6"],
    "quantile of each training feature below which it becomes 0",
);
const HIGH: Parameter = quantile(
    "high",
    |_| Value::Real(0.95),
    &["0.85", "0.95", "0.99"],
    "quantile of each training feature at which it is clipped",
);
const PRUNED: Parameter =
    percent("percentile", |_| Value::Real(90.0), PERCENTILES, "share of a sample's features that is pruned");

const fn of_head(
    method: Method,
    explanation: &'static str,
    needs: Needs,
    parameters: &'static [Parameter],
) -> About {
    About { method, explanation, needs, cost: Cost::Head, parameters }
}

const MEMBERS: &[About] = &[
    of_head(
        Method::React,
        "Score: energy after features are clipped at a percentile (Sun et al., 2021).",
        Needs::TRAINING,
        &[
            percent(
                "percentile",
                |options| Value::Real(options.react_percentile),
                PERCENTILES,
                "percentile of all training features at which they are clipped",
            ),
            Parameter {
                name: "temperature",
                range: Range::Real(Reals::POSITIVE),
                default: |options| Value::Real(options.temperature),
                grid: &[],
                meaning: "divides the logits",
            },
        ],
    ),
    of_head(
        Method::Dice,
        "Score: energy by the weights of the head that contribute most on average (Sun and Li, 2022).",
        Needs::TRAINING,
        &[percent(
            "percentile",
            |_| Value::Real(90.0),
            &["10", "30", "50", "70", "90"],
            "share of the weights that is left out",
        )],
    ),
    of_head(
        Method::AshP,
        "Score: energy after all but a sample's largest features are set to zero (Djurisic et al., 2023).",
        Needs::HEAD,
        &[PRUNED],
    ),
    of_head(
        Method::AshB,
        "Score: energy after a sample's largest features share the sum of all, the others being zero (Djurisic et al., 2023).",
        Needs::HEAD,
        &[PRUNED],
    ),
    of_head(
        Method::AshS,
        "Score: energy after a sample's largest features are scaled by their share of the sum, the others being zero (Djurisic et \
         al., 2023).",
        Needs::HEAD,
        &[PRUNED],
    ),
    of_head(
        Method::Scale,
        "Score: energy after all of a sample's features are scaled by the share of its largest ones (Xu et al., 2024).",
        Needs::HEAD,
        &[percent(
            "percentile",
            |_| Value::Real(85.0),
            PERCENTILES,
            "share of a sample's features that the scale leaves out",
        )],
    ),
    of_head(
        Method::Vra,
        "Score: energy after each feature is cut to zero below one of its quantiles and clipped at another (Xu et al., 2023).",
        Needs::TRAINING,
        &[LOW, HIGH],
    ),
    of_head(
        Method::VraP,
        "Score: vra with a constant added to what lies between the quantiles (Xu et al., 2023).",
        Needs::TRAINING,
        &[
            LOW,
            HIGH,
            Parameter {
                name: "lambda",
                range: Range::Real(Reals::FINITE),
                default: |_| Value::Real(0.6),
                grid: &[],
                meaning: "added between the quantiles",
            },
        ],
    ),
    of_head(
        Method::VraOpenOod,
        "Score: energy after features are clipped to two percentiles of all features, as OpenOOD reads VRA (Xu et al., 2023).",
        Needs::TRAINING,
        &[
            percent(
                "low",
                |_| Value::Real(10.0),
                &["1", "10", "20"],
                "percentile of all training features that smaller ones are raised to",
            ),
            percent(
                "high",
                |_| Value::Real(90.0),
                &["80", "90", "95", "99"],
                "percentile of all training features at which they are clipped",
            ),
        ],
    ),
];

impl Family for Shaping {
    fn members(&self) -> &'static [About] {
        MEMBERS
    }

    fn fit(&self, wanted: &[Wanted], training: &Training<'_>) -> Result<Fits> {
        let mut fits = Shaping::of_samples(wanted, training.head);
        for wanted in wanted {
            let fitted = match wanted.method {
                Method::Dice => Some(Arc::new(Dice::fit(wanted, training)) as Arc<dyn Fitted>),
                _ => Clip::fit(wanted, training).map(|clip| Arc::new(clip) as _),
            };
            fits.extend(fitted);
        }
        Ok(fits)
    }

    fn without_training(&self, wanted: &[Wanted], head: &Head) -> Result<Fits> {
        Ok(Shaping::of_samples(wanted, head))
    }

    fn load(&self, wanted: &[Wanted], file: &Reader, head: &Head) -> Result<Fits> {
        let mut fits = Shaping::of_samples(wanted, head);
        for wanted in wanted {
            match wanted.method {
                Method::Dice => {
                    let shape = [Some(head.classes()), Some(head.dimension())];
                    let weight = file.get(&wanted.name, &shape)?.1;
                    fits.push(Arc::new(Dice {
                        name: wanted.name.clone(),
                        weight,
                        dimension: head.dimension(),
                    }));
                }
                Method::React | Method::Vra | Method::VraP | Method::VraOpenOod => {
                    fits.push(Arc::new(Clip::load(wanted, head.dimension(), file)?));
                }
                _ => {}
            }
        }
        Ok(fits)
    }
}

impl Shaping {
    /// The scores that look at a sample's own features only: ASH, whose variants of one percentile share their work, and SCALE.
    fn of_samples(wanted: &[Wanted], head: &Head) -> Fits {
        let mut ash: Vec<Ash> = Vec::new();
        for wanted in wanted {
            let variant = match wanted.method {
                Method::AshP => 0,
                Method::AshB => 1,
                Method::AshS => 2,
                _ => continue,
            };
            let percentile = wanted.parameters.real("percentile");
            let same = ash.iter().position(|ash| ash.percentile.to_bits() == percentile.to_bits());
            let place = same.unwrap_or_else(|| {
                ash.push(Ash { names: Default::default(), percentile, columns: columns(head) });
                ash.len() - 1
            });
            ash[place].names[variant] = Some(wanted.name.clone());
        }
        let scale = named(wanted, Method::Scale)
            .into_iter()
            .map(|wanted| Scale { percentile: wanted.parameters.real("percentile"), name: wanted.name });
        let ash = ash.into_iter().map(|ash| Arc::new(ash) as Arc<dyn Fitted>);
        ash.chain(scale.map(|scale| Arc::new(scale) as Arc<dyn Fitted>)).collect()
    }
}

/// The energy of every row of features by a weight (C x D, row-major) and a bias.
fn energies(features: &[f64], rows: &Rows, weight: &[f64], bias: &[f64], temperature: f64) -> Vec<f64> {
    let mut logits: Vec<f64> = Vec::with_capacity(rows.count * rows.classes);
    (0..rows.count).for_each(|_| logits.extend_from_slice(bias));
    let weight = View::new(weight, rows.classes, rows.dimension).transposed();
    add_matmul(View::new(features, rows.count, rows.dimension), weight, &mut logits);
    logits.chunks_exact(rows.classes).map(|logits| energy(logits, temperature)).collect()
}

/// Features moved into bounds that training gave, one for all features or one for each.
#[derive(Debug)]
struct Clip {
    name: String,
    /// Features below become 0, or the bound itself; empty where there is none.
    low: Vec<f64>,
    raises: bool,
    high: Vec<f64>,
    /// Added between the bounds.
    lambda: f64,
    temperature: f64,
}

impl Clip {
    fn new(wanted: &Wanted, low: Vec<f64>, high: Vec<f64>) -> Clip {
        let of = |method, name: &str, otherwise: f64| {
            if wanted.method == method { wanted.parameters.real(name) } else { otherwise }
        };
        Clip {
            name: wanted.name.clone(),
            low,
            raises: wanted.method == Method::VraOpenOod,
            high,
            lambda: of(Method::VraP, "lambda", 0.0),
            temperature: of(Method::React, "temperature", 1.0),
        }
    }

    fn fit(wanted: &Wanted, training: &Training<'_>) -> Option<Clip> {
        let (name, value) = (&wanted.name, |key: &str| wanted.parameters.real(key));
        let features = training.set.features();
        let (low, high) = match wanted.method {
            Method::React => {
                let clip = percentiles(features, &[value("percentile")])[0];
                training.found(name, &[("percentile", value("percentile")), ("clip", clip)]);
                (vec![], vec![clip])
            }
            Method::VraOpenOod => {
                let bounds = percentiles(features, &[value("low"), value("high")]);
                training.found(name, &[("low", bounds[0]), ("high", bounds[1])]);
                (vec![bounds[0]], vec![bounds[1]])
            }
            Method::Vra | Method::VraP => {
                let [low, high] = training.quantiles_by_feature([value("low"), value("high")]);
                (low, high)
            }
            _ => return None,
        };
        Some(Clip::new(wanted, low, high))
    }

    fn load(wanted: &Wanted, dimension: usize, file: &Reader) -> Result<Clip> {
        let name = &wanted.name;
        let bounds =
            |part: &str, count| file.get(&format!("{name}.{part}"), &[Some(count)]).map(|found| found.1);
        let per_feature = matches!(wanted.method, Method::Vra | Method::VraP);
        let count = if per_feature { dimension } else { 1 };
        let low = if wanted.method == Method::React { vec![] } else { bounds("low", count)? };
        Ok(Clip::new(wanted, low, bounds("high", count)?))
    }

    fn shaped(&self, rows: &Rows) -> Vec<f64> {
        let Clip { low, high, lambda, raises, .. } = self;
        match (low.as_slice(), high.as_slice()) {
            ([], &[high]) => rows.features.iter().map(|x| x.min(high)).collect(),
            (&[low], &[high]) if *raises => rows.features.iter().map(|x| x.max(low).min(high)).collect(),
            _ => {
                let mut shaped = rows.features.clone();
                for row in shaped.chunks_exact_mut(rows.dimension) {
                    for ((x, low), high) in row.iter_mut().zip(low).zip(high) {
                        let inside = if *x > *high { *high } else { *x + lambda };
                        *x = if *x < *low { 0.0 } else { inside };
                    }
                }
                shaped
            }
        }
    }
}

impl Fitted for Clip {
    fn score(&self, rows: &Rows, head: &Head, scores: &mut BlockScores) {
        let values = energies(&self.shaped(rows), rows, head.weight(), head.bias(), self.temperature);
        scores.push((self.name.clone(), values));
    }

    fn save(&self, out: &mut Writer) {
        if !self.low.is_empty() {
            out.put(&format!("{}.low", self.name), &[self.low.len()], &self.low);
        }
        out.put(&format!("{}.high", self.name), &[self.high.len()], &self.high);
    }

    fn on_device<'a>(&'a self, head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let shape = match self.raises {
            true => Shape::Clip,
            false => Shape::Cut { low: !self.low.is_empty(), lambda: self.lambda },
        };
        let per_feature = |bounds: &[f64]| match bounds {
            [one] => vec![*one; head.dimension()],
            all => all.to_vec(),
        };
        let bounds = [per_feature(&self.low), per_feature(&self.high)];
        let z = steps.project_within(shape, bounds, head.weight());
        let energy = steps.scores_of(z, None, head.bias(), self.temperature).energy;
        Box::new(move |numbers| vec![(self.name.clone(), numbers.of(energy).collect())])
    }
}

/// The head with only those weights that contribute most on the mean training feature.
#[derive(Debug)]
struct Dice {
    name: String,
    /// Row-major, C x D.
    weight: Vec<f64>,
    dimension: usize,
}

impl Dice {
    fn fit(wanted: &Wanted, training: &Training<'_>) -> Dice {
        let (mean, d) = (training.mean(), training.head.dimension());
        let weight = training.head.weight();
        let contributions: Vec<f64> =
            weight.iter().enumerate().map(|(index, weight)| mean[index % d] * weight).collect();
        let mut sorted = contributions.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let percentile = wanted.parameters.real("percentile");
        let bound = interpolate(&sorted, percentile / 100.0);
        let kept = |(weight, contribution): (&f64, &f64)| if *contribution > bound { *weight } else { 0.0 };
        let weight: Vec<f64> = weight.iter().zip(&contributions).map(kept).collect();
        let count = contributions.iter().filter(|contribution| **contribution > bound).count();
        training.found(&wanted.name, &[("percentile", percentile), ("kept", count as f64)]);
        Dice { name: wanted.name.clone(), weight, dimension: d }
    }
}

impl Fitted for Dice {
    fn score(&self, rows: &Rows, head: &Head, scores: &mut BlockScores) {
        let values = energies(&rows.features, rows, &self.weight, head.bias(), 1.0);
        scores.push((self.name.clone(), values));
    }

    fn save(&self, out: &mut Writer) {
        out.put(&self.name, &[self.weight.len() / self.dimension, self.dimension], &self.weight);
    }

    fn on_device<'a>(&'a self, head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let rows = steps.features();
        let z = steps.products(rows, &self.weight);
        let energy = steps.scores_of(z, None, head.bias(), 1.0).energy;
        Box::new(move |numbers| vec![(self.name.clone(), numbers.of(energy).collect())])
    }
}

/// The head's weight by feature: row-major, D x C.
fn columns(head: &Head) -> Vec<f64> {
    let (classes, d) = (head.classes(), head.dimension());
    (0..d * classes).map(|index| head.weight()[index % classes * d + index / classes]).collect()
}

/// How many of D features remain where a percentile is pruned: D - D p / 100, rounded half to even, at least 1.
fn kept(dimension: usize, percentile: f64) -> usize {
    let pruned = (dimension as f64 * percentile / 100.0).round_ties_even();
    dimension.saturating_sub(pruned as usize).max(1)
}

/// The largest `count` features of a sample; of equal ones the first. Gives the sum of them, and calls `each` in their order.
fn largest_features(
    features: &[f64],
    count: usize,
    scratch: &mut Vec<f64>,
    mut each: impl FnMut(usize, f64),
) -> f64 {
    scratch.clear();
    scratch.extend_from_slice(features);
    let descending = |a: &f64, b: &f64| b.partial_cmp(a).expect("finite features");
    let bound = *scratch.select_nth_unstable_by(count - 1, descending).1;
    let above = scratch[..count].iter().filter(|x| **x > bound).count();
    let (mut equal, mut sum) = (count - above, 0.0);
    for (index, &x) in features.iter().enumerate() {
        let is_kept = x > bound || (x == bound && equal > 0);
        if is_kept {
            equal -= usize::from(x == bound);
            sum += x;
            each(index, x);
        }
    }
    sum
}

/// `exp(all / kept)`; 1 where nothing is kept.
fn scale(all: f64, kept: f64) -> f64 {
    if kept == 0.0 { 1.0 } else { (all / kept).exp() }
}

/// The variants of ASH that keep one number of features.
#[derive(Debug)]
struct Ash {
    /// Of ASH-P, ASH-B and ASH-S, where they are wanted.
    names: [Option<String>; 3],
    percentile: f64,
    /// The head's weight, row-major, D x C.
    columns: Vec<f64>,
}

impl Fitted for Ash {
    fn score(&self, rows: &Rows, head: &Head, scores: &mut BlockScores) {
        let classes = rows.classes;
        let count = kept(rows.dimension, self.percentile);
        let wants_binary = self.names[1].is_some();
        let mut values = [const { Vec::new() }; 3];
        let (mut pruned, mut binary, mut logits) =
            (vec![0.0; classes], vec![0.0; classes], vec![0.0; classes]);
        let mut scratch = Vec::new();
        for features in rows.features() {
            pruned.fill(0.0);
            binary.fill(0.0);
            let sum = largest_features(features, count, &mut scratch, |index, x| {
                let column = &self.columns[index * classes..(index + 1) * classes];
                pruned.iter_mut().zip(column).for_each(|(logit, weight)| *logit += x * weight);
                if wants_binary {
                    binary.iter_mut().zip(column).for_each(|(logit, weight)| *logit += weight);
                }
            });
            let all: f64 = features.iter().sum();
            let factors = [(&pruned, 1.0), (&binary, all / count as f64), (&pruned, scale(all, sum))];
            for ((values, name), (product, factor)) in values.iter_mut().zip(&self.names).zip(factors) {
                if name.is_some() {
                    let bias = head.bias().iter();
                    logits.iter_mut().zip(product).zip(bias).for_each(|((l, p), b)| *l = factor * p + b);
                    values.push(energy(&logits, 1.0));
                }
            }
        }
        for (name, values) in self.names.iter().zip(values) {
            scores.extend(name.clone().map(|name| (name, values)));
        }
    }

    fn save(&self, _out: &mut Writer) {}

    fn on_device<'a>(&'a self, head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let largest = steps.largest_features(kept(head.dimension(), self.percentile));
        let wants = |variant: usize| self.names[variant].is_some();
        let pruned = (wants(0) || wants(2)).then(|| steps.project_largest(largest, false, head.weight()));
        let ones = wants(1).then(|| steps.project_largest(largest, true, head.weight()));
        let variants = [(pruned, None), (ones, Some(largest.share)), (pruned, Some(largest.scale))];
        let energies =
            variants.map(|(z, scale)| z.map(|z| steps.scores_of(z, scale, head.bias(), 1.0).energy));
        Box::new(move |numbers| {
            let of = |(name, energy): (&Option<String>, Option<Place>)| {
                Some((name.clone()?, numbers.of(energy?).collect()))
            };
            self.names.iter().zip(energies).filter_map(of).collect()
        })
    }
}

/// SCALE: the logits without their bias, scaled.
#[derive(Debug)]
struct Scale {
    name: String,
    percentile: f64,
}

impl Fitted for Scale {
    fn score(&self, rows: &Rows, head: &Head, scores: &mut BlockScores) {
        let count = kept(rows.dimension, self.percentile);
        let (mut scratch, mut scaled) = (Vec::new(), vec![0.0; rows.classes]);
        let logits = rows.computed_logits(head).chunks_exact(rows.classes);
        let values = rows.features().zip(logits).map(|(features, logits)| {
            let sum = largest_features(features, count, &mut scratch, |_, _| {});
            let factor = scale(features.iter().sum(), sum);
            for ((scaled, logit), bias) in scaled.iter_mut().zip(logits).zip(head.bias()) {
                *scaled = factor * (logit - bias) + bias;
            }
            energy(&scaled, 1.0)
        });
        scores.push((self.name.clone(), values.collect()));
    }

    fn save(&self, _out: &mut Writer) {}

    fn on_device<'a>(&'a self, head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let largest = steps.largest_features(kept(head.dimension(), self.percentile));
        let rows = steps.features();
        let z = steps.products(rows, head.weight());
        let energy = steps.scores_of(z, Some(largest.scale), head.bias(), 1.0).energy;
        Box::new(move |numbers| vec![(self.name.clone(), numbers.of(energy).collect())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_features_are_kept_and_of_equal_ones_the_first() {
        let mut found = Vec::new();
        let sum =
            largest_features(&[1.0, 3.0, 1.0, 0.0, 1.0], 3, &mut Vec::new(), |index, _| found.push(index));
        assert_eq!((found, sum), (vec![0, 1, 2], 5.0));
        assert_eq!([kept(512, 90.0), kept(16, 90.0), kept(4, 100.0), kept(10, 85.0)], [51, 2, 1, 2]);
    }
}

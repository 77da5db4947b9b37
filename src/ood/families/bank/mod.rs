//! Features against those of many training samples, the bank: k-th neighbour, guided energy, relation.
//!
//! One product in f32 with the normalised bank serves all of them. It chooses candidates, with a margin that no rounding can
//! cross; what counts is computed again in f64, so each score is that of an exhaustive search in f64.

mod search;

use std::sync::Arc;

use crate::error::Result;
use crate::features::Head;
use crate::instructions::arch;
use crate::linalg::{View, matmul, squared_norm};
use crate::ood::compute::BlockScores;
use crate::ood::device::{BankOf, FromNumbers, Place, Steps};
use crate::ood::family::{Family, Fits, Fitted};
use crate::ood::method::{About, Cost, Method, Needs};
use crate::ood::options::Wanted;
use crate::ood::parameters::{Parameter, Range, Value};
use crate::ood::rows::{Rows, random_subset, scoring_block};
use crate::ood::saved::{Reader, Writer};
use crate::ood::training::Training;
use crate::values::{Reals, Wholes};
use search::{ALIKE, Candidates, Multiply, alike, dot_f32};

/// The family.
pub(super) struct BankFamily;

const BANK: Parameter = Parameter {
    name: "bank",
    range: Range::Whole(Wholes::POSITIVE),
    default: |options| Value::Whole(options.knn_bank),
    grid: &[],
    meaning: "training samples compared with; a random subset is drawn from more",
};

const MEMBERS: &[About] = &[
    About {
        method: Method::Knn,
        explanation: "Score: minus the squared distance to the k-th nearest training feature, all normalised (Sun et al., 2022).",
        needs: Needs::TRAINING,
        cost: Cost::Bank,
        parameters: &[
            Parameter {
                name: "k",
                range: Range::Whole(Wholes::POSITIVE),
                default: |options| Value::Whole(options.knn_k),
                grid: &["1", "10", "50", "200"],
                meaning: "which neighbour",
            },
            BANK,
        ],
    },
    About {
        method: Method::NnGuide,
        explanation: "Score: energy times the mean of the largest cosines with training features, each weighed by that sample's \
                      energy (Park et al., 2023).",
        needs: Needs::TRAINING,
        cost: Cost::Bank,
        parameters: &[
            Parameter {
                name: "k",
                range: Range::Whole(Wholes::POSITIVE),
                default: |_| Value::Whole(100),
                grid: &["1", "10", "50", "200"],
                meaning: "how many of the largest count",
            },
            BANK,
        ],
    },
    About {
        method: Method::Relation,
        explanation: "Score: sum of how alike a sample and each training sample are, in features and in probabilities (Kim et al., \
                      2023).",
        needs: Needs::TRAINING,
        cost: Cost::Bank,
        parameters: &[
            Parameter {
                name: "power",
                range: Range::Real(Reals::POSITIVE),
                default: |_| Value::Real(1.0),
                grid: &["1", "2", "4", "8"],
                meaning: "exponent of each likeness",
            },
            BANK,
        ],
    },
];

/// Samples compared with the bank at once: their candidate lists bound the memory of a thread.
const QUERIES: usize = 256;
/// Bank rows of one product.
const TILE: usize = 2048;
/// Added to a norm before dividing by it, as in OpenOOD.
const NORM_FLOOR: f64 = 1e-10;

impl Family for BankFamily {
    fn members(&self) -> &'static [About] {
        MEMBERS
    }

    fn fit(&self, wanted: &[Wanted], training: &Training<'_>) -> Result<Fits> {
        let mut fits = Fits::new();
        for (number, group) in by_bank(wanted).into_iter().enumerate() {
            let bank = Bank::fit(&group, training);
            let held = bank.scales.len();
            for Wanted { name, method, parameters } in &group {
                if *method == Method::Relation {
                    training.found(name, &[("power", parameters.real("power")), ("bank", held as f64)]);
                    continue;
                }
                let asked = parameters.whole("k");
                let k = asked.min(held);
                if k < asked {
                    training.note(format!(
                        "{name}: there are only {held} training samples, so k is {k}, not {asked}"
                    ));
                }
                training.found(name, &[("k", k as f64), ("bank", held as f64)]);
            }
            fits.push(Arc::new(BankScores { number, ..BankScores::new(&group, bank) }));
        }
        Ok(fits)
    }

    fn load(&self, wanted: &[Wanted], file: &Reader, head: &Head) -> Result<Fits> {
        let mut fits = Fits::new();
        for (number, group) in by_bank(wanted).into_iter().enumerate() {
            let bank = Bank::load(&tensors(number), &group, file, head)?;
            fits.push(Arc::new(BankScores { number, ..BankScores::new(&group, bank) }));
        }
        Ok(fits)
    }
}

/// The scores of each size of the bank.
fn by_bank(wanted: &[Wanted]) -> Vec<Vec<Wanted>> {
    let mut groups: Vec<Vec<Wanted>> = Vec::new();
    for wanted in wanted {
        let size = |wanted: &Wanted| wanted.parameters.whole("bank");
        match groups.iter_mut().find(|group| size(&group[0]) == size(wanted)) {
            Some(group) => group.push(wanted.clone()),
            None => groups.push(vec![wanted.clone()]),
        }
    }
    groups
}

/// The prefix of the tensors of a bank.
fn tensors(number: usize) -> String {
    if number == 0 { "knn".into() } else { format!("knn.{number}") }
}

/// The training samples to compare with.
#[derive(Debug)]
struct Bank {
    /// Features as they were extracted, row-major, rows x D: exact in f32, unlike normalised ones.
    features: Vec<f32>,
    /// The same normalised, rounded.
    unit: Vec<f32>,
    /// The factor of each row that normalises it.
    scales: Vec<f64>,
    dimension: usize,
    /// `logsumexp` of each row's logits, for `nnguide`.
    energies: Vec<f64>,
    /// Probabilities of each row, row-major, rows x C, for `relation`.
    probabilities: Vec<f32>,
    classes: usize,
}

impl Bank {
    /// Keeps the training samples, or a random subset of the size asked for, and makes a note of that.
    fn fit(group: &[Wanted], training: &Training<'_>) -> Bank {
        let (set, head) = (training.set, training.head);
        let (rows, size) = (set.len(), group[0].parameters.whole("bank"));
        let wants = |method| group.iter().any(|wanted| wanted.method == method);
        let chosen: Option<Vec<usize>> = (rows > size).then(|| {
            let names: Vec<&str> = group.iter().map(|wanted| wanted.name.as_str()).collect();
            let names = names.join(", ");
            training
                .note(format!("{names} compares with {size} random training samples of {rows} (--knn-bank)"));
            random_subset(rows, size, training.seed)
        });
        let mut features = Vec::new();
        match &chosen {
            None => set.features().read_f32(0..rows, &mut features),
            Some(chosen) => {
                let mut one = Vec::new();
                for &index in chosen {
                    set.features().read_f32(index..index + 1, &mut one);
                    features.extend_from_slice(&one);
                }
            }
        }
        let (mut energies, mut probabilities) = (Vec::new(), Vec::new());
        if wants(Method::NnGuide) || wants(Method::Relation) {
            let all = chosen.unwrap_or_else(|| (0..rows).collect());
            for indices in all.chunks(scoring_block(head.dimension())) {
                let block = Rows::gather(set, head, indices);
                if wants(Method::NnGuide) {
                    energies.extend(block.energies());
                }
                if wants(Method::Relation) {
                    probabilities.extend(block.softmax().probabilities().into_iter().map(|p| p as f32));
                }
            }
        }
        Bank::new(features, head.dimension(), energies, (probabilities, head.classes()))
    }

    fn new(
        features: Vec<f32>,
        dimension: usize,
        energies: Vec<f64>,
        (probabilities, classes): (Vec<f32>, usize),
    ) -> Bank {
        let scale = |row: &[f32]| {
            let square: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            (square.sqrt() + NORM_FLOOR).recip()
        };
        let scales: Vec<f64> = features.chunks_exact(dimension).map(scale).collect();
        let rows = features.chunks_exact(dimension).zip(&scales);
        let unit =
            rows.flat_map(|(row, scale)| row.iter().map(move |&x| (f64::from(x) * scale) as f32)).collect();
        Bank { features, unit, scales, dimension, energies, probabilities, classes }
    }

    /// The inner product of a normalised query with a row of the normalised bank, in f64.
    fn cosine(&self, query: &[f64], index: usize) -> f64 {
        dot_f32(query, &self.features[index * self.dimension..(index + 1) * self.dimension])
            * self.scales[index]
    }

    /// The squared distance of a normalised query from a row of the normalised bank, by differences.
    fn distance(&self, query: &[f64], index: usize) -> f64 {
        let row = &self.features[index * self.dimension..(index + 1) * self.dimension];
        let scale = self.scales[index];
        let mut sums = [0.0; 4];
        for (lane, (x, y)) in query.iter().zip(row).enumerate() {
            let difference = x - f64::from(*y) * scale;
            sums[lane % 4] += difference * difference;
        }
        (sums[0] + sums[1]) + (sums[2] + sums[3])
    }

    fn save(&self, name: &str, out: &mut Writer) {
        let rows = self.scales.len();
        out.put_f32(&format!("{name}.bank"), &[rows, self.dimension], &self.features);
        if !self.energies.is_empty() {
            out.put(&format!("{name}.energies"), &[rows], &self.energies);
        }
        if !self.probabilities.is_empty() {
            out.put_f32(&format!("{name}.probabilities"), &[rows, self.classes], &self.probabilities);
        }
    }

    fn load(name: &str, group: &[Wanted], file: &Reader, head: &Head) -> Result<Bank> {
        let (d, classes) = (head.dimension(), head.classes());
        let wants = |method| group.iter().any(|wanted| wanted.method == method);
        let features = file.get_f32(&format!("{name}.bank"), &[None, Some(d)])?;
        let rows = features.len() / d;
        if rows == 0 {
            return Err(file.malformed(&format!("{name}.bank"), "at least one row", "none"));
        }
        let energies = match wants(Method::NnGuide) {
            true => file.get(&format!("{name}.energies"), &[Some(rows)])?.1,
            false => Vec::new(),
        };
        let probabilities = match wants(Method::Relation) {
            true => file.get_f32(&format!("{name}.probabilities"), &[Some(rows), Some(classes)])?,
            false => Vec::new(),
        };
        Ok(Bank::new(features, d, energies, (probabilities, classes)))
    }
}

/// The scores that share a bank.
#[derive(Debug)]
struct BankScores {
    bank: Bank,
    number: usize,
    /// By name, which neighbour.
    knn: Vec<(String, usize)>,
    /// By name, how many neighbours.
    nnguide: Vec<(String, usize)>,
    /// By name, the exponent.
    relation: Vec<(String, f64)>,
}

impl BankScores {
    fn new(group: &[Wanted], bank: Bank) -> BankScores {
        let held = bank.scales.len();
        let counts = |method| {
            let own = group.iter().filter(move |wanted| wanted.method == method);
            own.map(|wanted| (wanted.name.clone(), wanted.parameters.whole("k").min(held))).collect()
        };
        let relation = group.iter().filter(|wanted| wanted.method == Method::Relation);
        let relation =
            relation.map(|wanted| (wanted.name.clone(), wanted.parameters.real("power"))).collect();
        BankScores { number: 0, knn: counts(Method::Knn), nnguide: counts(Method::NnGuide), relation, bank }
    }

    /// Appends the scores of a block; of `knn` those given.
    fn score_some(&self, knn: &[(String, usize)], rows: &Rows, scores: &mut BlockScores) {
        let counted = knn.iter().chain(&self.nnguide).map(|(name, _)| name);
        let names = counted.chain(self.relation.iter().map(|(name, _)| name));
        let mut all: Vec<(String, Vec<f64>)> = names.map(|name| (name.clone(), Vec::new())).collect();
        for (number, features) in rows.features.chunks(QUERIES * self.bank.dimension).enumerate() {
            let values = self.score_queries(knn, features, (rows, number * QUERIES));
            all.iter_mut().zip(values).for_each(|((_, all), values)| all.extend(values));
        }
        scores.extend(all);
    }

    /// The scores of some samples, the first of which is the one given: `knn`, `nnguide`, `relation`, in this order.
    fn score_queries(
        &self,
        knn: &[(String, usize)],
        features: &[f64],
        (rows, first): (&Rows, usize),
    ) -> Vec<Vec<f64>> {
        let (bank, d) = (&self.bank, self.bank.dimension);
        let normalised: Vec<f64> = features
            .chunks_exact(d)
            .flat_map(|row| {
                let scale = (squared_norm(row).sqrt() + NORM_FLOOR).recip();
                row.iter().map(move |x| x * scale)
            })
            .collect();
        let single: Vec<f32> = normalised.iter().map(|&x| x as f32).collect();
        let count = single.len() / d;
        let probabilities: Vec<f64> = match self.relation.is_empty() {
            true => Vec::new(),
            false => {
                let own = rows.softmax().rows().skip(first).take(count);
                own.flat_map(|(e, sum, _)| e.iter().map(move |e| e / sum)).collect()
            }
        };
        let single_probabilities: Vec<f32> = probabilities.iter().map(|&p| p as f32).collect();
        let mut searches = self.searches(knn, count);
        let (mut cosines, mut likeness) = (vec![0.0; count * TILE], Vec::new());
        for (number, tile) in bank.unit.chunks(TILE * d).enumerate() {
            let (start, height) = (number * TILE, tile.len() / d);
            let cosines = &mut cosines[..count * height];
            matmul(View::new(&single, count, d), View::new(tile, height, d).transposed(), cosines);
            if !self.relation.is_empty() {
                likeness.resize(count * height, 0.0);
                let own = &bank.probabilities[start * bank.classes..(start + height) * bank.classes];
                let view = View::new(own, height, bank.classes).transposed();
                matmul(
                    View::new(&single_probabilities, count, bank.classes),
                    view,
                    &mut likeness[..count * height],
                );
            }
            for (query, cosines) in cosines.chunks_exact_mut(height).enumerate() {
                if let Some(nearest) = &mut searches.nearest {
                    nearest[query].offer(cosines, start);
                }
                if !self.relation.is_empty() {
                    let likeness = &mut likeness[query * height..(query + 1) * height];
                    alike(cosines, likeness, self.margin(), start, &mut searches.alike[query]);
                }
                if let Some(guides) = &mut searches.guides {
                    let energies = &searches.energies[start..start + height];
                    arch().dispatch(Multiply { values: &mut *cosines, others: energies });
                    guides[query].offer(cosines, start);
                }
            }
        }
        let energies: Vec<f64> = match self.nnguide.is_empty() {
            true => vec![0.0; count],
            false => rows.energies().skip(first).take(count).collect(),
        };
        let mut scores =
            vec![Vec::with_capacity(count); knn.len() + self.nnguide.len() + self.relation.len()];
        for (row, query) in normalised.chunks_exact(d).enumerate() {
            let mut values = Vec::with_capacity(scores.len());
            if let Some(nearest) = &mut searches.nearest {
                let mut distances: Vec<f64> =
                    nearest[row].finish().map(|index| bank.distance(query, index)).collect();
                for (_, k) in knn {
                    values.push(-*distances.select_nth_unstable_by(k - 1, f64::total_cmp).1);
                }
            }
            if let Some(guides) = &mut searches.guides {
                let mut guided: Vec<f64> = guides[row]
                    .finish()
                    .map(|index| bank.cosine(query, index) * bank.energies[index])
                    .collect();
                guided.sort_unstable_by(|a, b| b.total_cmp(a));
                for (_, k) in &self.nnguide {
                    values.push(guided[..*k].iter().sum::<f64>() / *k as f64 * energies[row]);
                }
            }
            if !self.relation.is_empty() {
                let own = &probabilities[row * bank.classes..(row + 1) * bank.classes];
                let likenesses: Vec<f64> = searches.alike[row]
                    .iter()
                    .map(|&index| {
                        let index = index as usize;
                        let other = &bank.probabilities[index * bank.classes..(index + 1) * bank.classes];
                        bank.cosine(query, index).max(0.0) * dot_f32(own, other)
                    })
                    .filter(|likeness| *likeness > ALIKE)
                    .collect();
                for (_, power) in &self.relation {
                    let powers = likenesses.iter().map(|r| if *power == 1.0 { *r } else { r.powf(*power) });
                    values.push(powers.sum());
                }
            }
            scores.iter_mut().zip(values).for_each(|(scores, value)| scores.push(value));
        }
        scores
    }

    /// How far a likeness of f32 products may be from the exact one.
    fn margin(&self) -> f32 {
        2.0 * (self.bank.dimension + self.bank.classes + 8) as f32 * f32::EPSILON
    }

    fn searches(&self, knn: &[(String, usize)], count: usize) -> Searches {
        // Rounding of both unit vectors to f32 (half an ulp each) and of a sum of D products (D ulps).
        let error = 2.0 * (self.bank.dimension as f32 + 4.0) * f32::EPSILON;
        let most = |scores: &[(String, usize)]| scores.iter().map(|(_, k)| *k).max();
        let search = |k: Option<usize>, margin: f32| {
            k.map(|k| (0..count).map(|_| Candidates::new(k, margin)).collect())
        };
        let energies: Vec<f32> = match self.nnguide.is_empty() {
            true => Vec::new(),
            false => self.bank.energies.iter().map(|&energy| energy as f32).collect(),
        };
        let largest = energies.iter().fold(0f32, |most, energy| most.max(energy.abs()));
        Searches {
            nearest: search(most(knn), error),
            guides: search(most(&self.nnguide), 2.0 * error * largest),
            alike: if self.relation.is_empty() { Vec::new() } else { vec![Vec::new(); count] },
            energies,
        }
    }
}

/// What some samples have found so far.
struct Searches {
    nearest: Option<Vec<Candidates>>,
    guides: Option<Vec<Candidates>>,
    /// Bank rows that may be alike.
    alike: Vec<Vec<u32>>,
    energies: Vec<f32>,
}

impl Fitted for BankScores {
    fn score(&self, rows: &Rows, _head: &Head, scores: &mut BlockScores) {
        self.score_some(&self.knn, rows, scores);
    }

    fn save(&self, out: &mut Writer) {
        self.bank.save(&tensors(self.number), out);
    }

    fn on_device<'a>(&'a self, _head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let bank = &self.bank;
        let of = BankOf { features: &bank.features, scales: &bank.scales, floor: NORM_FLOOR };
        let knn: Vec<Place> = self.knn.iter().map(|(_, k)| steps.neighbours(of, *k)).collect();
        let energies = steps.logit_scores(1.0).energy;
        let guided: Vec<Place> =
            self.nnguide.iter().map(|(_, k)| steps.guided_sum(of, &bank.energies, *k)).collect();
        let relation: Vec<Place> = self
            .relation
            .iter()
            .map(|(_, power)| steps.relation(of, &bank.probabilities, [ALIKE, *power]))
            .collect();
        Box::new(move |numbers| {
            let mut scores = BlockScores::new();
            for ((name, _), place) in self.knn.iter().zip(&knn) {
                scores.push((name.clone(), numbers.of(*place).map(|distance| -distance).collect()));
            }
            for ((name, k), place) in self.nnguide.iter().zip(&guided) {
                let values = numbers.of(*place).zip(numbers.of(energies));
                let values = values.map(|(sum, energy)| sum / *k as f64 * energy);
                scores.push((name.clone(), values.collect()));
            }
            for ((name, _), place) in self.relation.iter().zip(&relation) {
                scores.push((name.clone(), numbers.of(*place).collect()));
            }
            scores
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn the_search_is_the_exhaustive_one_even_where_f32_cannot_tell_neighbours_apart() {
        for (rows, d, k, spread) in
            [(5000, 19, 50, 1.0), (4500, 7, 3, 1e-5), (300, 33, 300, 0.1), (10, 1, 1, 1.0)]
        {
            let stream = Stream::new(3, &[]);
            let value = |i: usize| 1.0 + spread * stream.normal(i as u64);
            let bank: Vec<f32> = (0..rows * d).map(|i| value(i) as f32).collect();
            let features: Vec<f64> = (0..150 * d).map(|i| f64::from(value(rows * d + i) as f32)).collect();
            let block = Rows::new(features, d, Vec::new(), 0);
            let scores = BankScores {
                bank: Bank::new(bank.clone(), d, Vec::new(), (Vec::new(), 0)),
                number: 0,
                knn: vec![("knn".into(), k)],
                nnguide: vec![],
                relation: vec![],
            };
            let found = scores.score_queries(&scores.knn, &block.features, (&block, 0)).remove(0);
            let unit = |row: Vec<f64>| {
                let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt() + NORM_FLOOR;
                row.into_iter().map(|x| x / norm).collect::<Vec<f64>>()
            };
            for (query, found) in block.features().zip(&found) {
                let query = unit(query.to_vec());
                let mut distances: Vec<f64> = bank
                    .chunks(d)
                    .map(|row| {
                        let row = unit(row.iter().map(|&x| f64::from(x)).collect());
                        row.iter().zip(&query).map(|(a, b)| (a - b) * (a - b)).sum()
                    })
                    .collect();
                distances.sort_by(f64::total_cmp);
                let expected = -distances[k - 1];
                // Rounding moves unit vectors by some 1e-16, and so a squared distance by that times the distance.
                let tolerance = 1e-9 * expected.abs() + 2e-15 * expected.abs().sqrt();
                assert!((found - expected).abs() <= tolerance, "{found} against {expected}");
            }
        }
    }
}

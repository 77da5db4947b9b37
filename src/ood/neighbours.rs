//! The k-nearest-neighbour score: minus the squared distance to the k-th nearest normalised training feature.
//!
//! A product in f32 finds the candidates, with a margin no rounding can cross; their distances are then taken by
//! differences in f64, so the score is that of an exhaustive search in f64.

use super::method::Options;
use super::rows::Rows;
use super::saved::{Reader, Writer};
use crate::error::Result;
use crate::features::FeatureSet;
use crate::linalg::{View, matmul};
use crate::rng::{Purpose, Stream};

/// Samples compared with the bank at once: their candidate lists bound the memory of a thread.
const QUERIES: usize = 128;
/// Bank rows of one product: with the queries, some 5 MB at D = 512.
const TILE: usize = 2048;
/// Added to a norm before dividing by it, as in OpenOOD.
pub(super) const NORM_FLOOR: f64 = 1e-10;

/// The training features to compare with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Neighbours {
    /// As they were extracted, row-major, rows x D: exact in f32, unlike normalised ones.
    bank: Vec<f32>,
    /// The factor of each row that normalises it.
    scales: Vec<f64>,
    dimension: usize,
    k: usize,
}

impl Neighbours {
    /// Keeps the training features, or a random subset of `options.knn_bank` of them, and makes notes on it
    /// for the user.
    pub fn fit(train: &FeatureSet, options: &Options) -> (Neighbours, Vec<String>) {
        let mut notes = Vec::new();
        let rows = train.len();
        let mut bank = Vec::new();
        if rows <= options.knn_bank {
            train.features().read_f32(0..rows, &mut bank);
        } else {
            notes.push(format!(
                "knn compares with {} random training samples of {rows} (--knn-bank)",
                options.knn_bank
            ));
            let mut one = Vec::new();
            for index in random_subset(rows, options.knn_bank, options.seed) {
                train.features().read_f32(index..index + 1, &mut one);
                bank.extend_from_slice(&one);
            }
        }
        let dimension = train.dimension();
        let held = bank.len() / dimension;
        let k = options.knn_k.min(held);
        if k < options.knn_k {
            notes.push(format!(
                "knn: there are only {held} training samples, so k is {k}, not {}",
                options.knn_k
            ));
        }
        (Neighbours::new(bank, dimension, k), notes)
    }

    fn new(bank: Vec<f32>, dimension: usize, k: usize) -> Neighbours {
        let scales = bank
            .chunks_exact(dimension)
            .map(|row| {
                let square: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
                (square.sqrt() + NORM_FLOOR).recip()
            })
            .collect();
        Neighbours { bank, scales, dimension, k }
    }

    /// Number of the neighbour whose distance is the score.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The bank as it was extracted, row-major, and what normalises each of its rows.
    pub fn bank(&self) -> (&[f32], &[f64]) {
        (&self.bank, &self.scales)
    }

    /// The score of each sample.
    pub fn score(&self, rows: &Rows) -> Vec<f64> {
        rows.features
            .chunks(QUERIES * self.dimension)
            .flat_map(|queries| self.score_queries(queries))
            .collect()
    }

    fn score_queries(&self, features: &[f64]) -> Vec<f64> {
        let d = self.dimension;
        let normalised: Vec<f64> = features
            .chunks_exact(d)
            .flat_map(|row| {
                let scale = (crate::linalg::squared_norm(row).sqrt() + NORM_FLOOR).recip();
                row.iter().map(move |x| x * scale)
            })
            .collect();
        let queries: Vec<f32> = normalised.iter().map(|&x| x as f32).collect();
        let count = queries.len() / d;
        // Rounding of both unit vectors to f32 (half an ulp each) and of a sum of D products (D ulps).
        let error = (d as f32 + 4.0) * f32::EPSILON;
        let mut candidates: Vec<Candidates> =
            (0..count).map(|_| Candidates::new(self.k, 2.0 * error)).collect();
        let (mut tile, mut products) = (Vec::new(), Vec::new());
        for (number, raw) in self.bank.chunks(TILE * d).enumerate() {
            let first = number * TILE;
            tile.clear();
            for (row, scale) in raw.chunks_exact(d).zip(&self.scales[first..]) {
                tile.extend(row.iter().map(|&x| (f64::from(x) * scale) as f32));
            }
            let height = raw.len() / d;
            products.resize(count * height, 0.0);
            let view = View::new(&tile, height, d).transposed();
            matmul(View::new(&queries, count, d), view, &mut products[..count * height]);
            for (products, candidates) in products.chunks_exact(height).zip(&mut candidates) {
                candidates.offer(products, first);
            }
        }
        candidates
            .into_iter()
            .zip(normalised.chunks_exact(d))
            .map(|(candidates, query)| -self.kth_distance(query, &candidates.finish()))
            .collect()
    }

    /// The exact k-th smallest squared distance among candidates that hold the k nearest.
    fn kth_distance(&self, query: &[f64], candidates: &[u32]) -> f64 {
        let mut distances: Vec<f64> = candidates
            .iter()
            .map(|&index| {
                let index = index as usize;
                let (row, scale) =
                    (&self.bank[index * self.dimension..(index + 1) * self.dimension], self.scales[index]);
                let mut sums = [0.0; 4];
                for (lane, (x, y)) in query.iter().zip(row).enumerate() {
                    let difference = x - f64::from(*y) * scale;
                    sums[lane % 4] += difference * difference;
                }
                (sums[0] + sums[1]) + (sums[2] + sums[3])
            })
            .collect();
        *distances.select_nth_unstable_by(self.k - 1, f64::total_cmp).1
    }

    pub fn save(&self, out: &mut Writer) {
        out.put_f32("knn.bank", &[self.scales.len(), self.dimension], &self.bank);
        out.put("knn.k", &[1], &[self.k as f64]);
    }

    pub fn load(file: &Reader, dimension: usize) -> Result<Neighbours> {
        let bank = file.get_f32("knn.bank", &[None, Some(dimension)])?;
        let k = file.get("knn.k", &[Some(1)])?.1[0];
        let rows = bank.len() / dimension;
        if !(k >= 1.0 && k <= rows as f64 && k.fract() == 0.0) {
            return Err(file.malformed("knn.k", &format!("a whole number from 1 to {rows}"), &k.to_string()));
        }
        Ok(Neighbours::new(bank, dimension, k as usize))
    }
}

/// `count` of `rows` indices, drawn without replacement, ascending.
pub(super) fn random_subset(rows: usize, count: usize, seed: u64) -> Vec<usize> {
    let order = Stream::for_purpose(seed, Purpose::Subset, &[]).permutation(rows);
    let mut indices: Vec<usize> = order[..count.min(rows)].iter().map(|&index| index as usize).collect();
    indices.sort_unstable();
    indices
}

/// The bank rows that may be among the k nearest of one query.
struct Candidates {
    held: Vec<(f32, u32)>,
    k: usize,
    margin: f32,
    /// Products below this cannot belong to the k nearest.
    floor: f32,
    /// Length at which hopeless candidates are swept out.
    limit: usize,
}

impl Candidates {
    fn new(k: usize, margin: f32) -> Candidates {
        Candidates { held: Vec::new(), k, margin, floor: f32::NEG_INFINITY, limit: (4 * k).max(256) }
    }

    fn offer(&mut self, products: &[f32], first: usize) {
        for (offset, &product) in products.iter().enumerate() {
            if product >= self.floor {
                self.held.push((product, (first + offset) as u32));
                if self.held.len() >= self.limit {
                    self.sweep();
                    self.limit = self.limit.max(2 * self.held.len());
                }
            }
        }
    }

    fn sweep(&mut self) {
        if self.held.len() < self.k {
            return;
        }
        let kth = self.held.select_nth_unstable_by(self.k - 1, |a, b| b.0.total_cmp(&a.0)).1.0;
        self.floor = kth - self.margin;
        let floor = self.floor;
        self.held.retain(|candidate| candidate.0 >= floor);
    }

    fn finish(mut self) -> Vec<u32> {
        self.sweep();
        self.held.into_iter().map(|(_, index)| index).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_is_the_exhaustive_one_even_where_f32_cannot_tell_neighbours_apart() {
        for (rows, d, k, spread) in
            [(5000, 19, 50, 1.0), (4500, 7, 3, 1e-5), (300, 33, 300, 0.1), (10, 1, 1, 1.0)]
        {
            let stream = Stream::new(3, &[]);
            let value = |i: usize| 1.0 + spread * stream.normal(i as u64);
            let bank: Vec<f32> = (0..rows * d).map(|i| value(i) as f32).collect();
            let features: Vec<f64> = (0..150 * d).map(|i| f64::from(value(rows * d + i) as f32)).collect();
            let block = Rows { count: 150, dimension: d, features, ..Rows::default() };
            let found = Neighbours::new(bank.clone(), d, k).score(&block);
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

//! Blocks of samples in f64, with what several scores need of them; and passes over a whole set that fold block results in
//! order.

use std::cell::OnceCell;
use std::ops::Range;

use rayon::prelude::*;

use crate::features::{FeatureSet, Head};
use crate::linalg::{argmax, exponentials, largest, squared_norm};
use crate::rng::{Purpose, Stream};

/// Some samples: features, logits (stored, or computed by the head), and what is made of them once for all scores.
#[derive(Debug, Default)]
pub struct Rows {
    /// Number of samples.
    pub count: usize,
    /// D.
    pub dimension: usize,
    /// C.
    pub classes: usize,
    /// Row-major, count x D.
    pub features: Vec<f64>,
    /// Row-major, count x C.
    pub logits: Vec<f64>,
    predicted: OnceCell<Vec<usize>>,
    softmax: OnceCell<Softmax>,
    norms: OnceCell<Vec<f64>>,
    sums_of_magnitudes: OnceCell<Vec<f64>>,
    normalised: OnceCell<Vec<f64>>,
    computed_logits: OnceCell<Vec<f64>>,
}

/// Exponentials of logits: `e_c = exp(l_c - max l)`.
#[derive(Debug)]
pub struct Softmax {
    /// Row-major, count x C.
    exponentials: Vec<f64>,
    /// The sum of each row.
    sums: Vec<f64>,
    /// The largest logit of each row.
    tops: Vec<f64>,
    classes: usize,
}

impl Softmax {
    fn of(logits: &[f64], classes: usize) -> Softmax {
        let rows = || logits.chunks_exact(classes);
        let tops: Vec<f64> = rows().map(largest).collect();
        let mut all = vec![0.0; logits.len()];
        let each = rows().zip(&tops).zip(all.chunks_exact_mut(classes));
        let sums = each.map(|((row, top), out)| exponentials(row, *top, 1.0, out)).collect();
        Softmax { exponentials: all, sums, tops, classes }
    }

    /// `logsumexp(l)` of each sample.
    pub fn energies(&self) -> impl Iterator<Item = f64> {
        self.tops.iter().zip(&self.sums).map(|(top, sum)| top + sum.ln())
    }

    /// The largest probability of each sample.
    pub fn largest(&self) -> impl Iterator<Item = f64> {
        self.sums.iter().map(|sum| sum.recip())
    }

    /// The largest logit of each sample.
    pub fn tops(&self) -> &[f64] {
        &self.tops
    }

    /// Of each sample the exponentials `e`, their sum and the largest logit; probabilities are `e / sum`.
    pub fn rows(&self) -> impl Iterator<Item = (&[f64], f64, f64)> {
        let rows = self.exponentials.chunks_exact(self.classes.max(1));
        rows.zip(&self.sums).zip(&self.tops).map(|((row, sum), top)| (row, *sum, *top))
    }

    /// All probabilities, row-major.
    pub fn probabilities(&self) -> Vec<f64> {
        self.rows().flat_map(|(row, sum, _)| row.iter().map(move |e| e / sum)).collect()
    }
}

/// Samples of a scoring block: an f64 copy of a quarter of a million features, so that the few temporaries a score
/// needs stay below some 20 MB per thread.
pub(super) fn scoring_block(dimension: usize) -> usize {
    ((1 << 18) / dimension.max(1)).clamp(16, 1024)
}

/// What is read of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    /// Features and logits.
    All,
    /// Logits alone, where they are stored.
    Logits,
}

impl Rows {
    /// Samples in memory.
    pub fn new(features: Vec<f64>, dimension: usize, logits: Vec<f64>, classes: usize) -> Rows {
        let count = if dimension > 0 && !features.is_empty() {
            features.len() / dimension
        } else {
            logits.len().checked_div(classes).unwrap_or(0)
        };
        Rows { count, dimension, classes, features, logits, ..Rows::default() }
    }

    /// Reads consecutive samples.
    pub fn read(set: &FeatureSet, head: &Head, range: Range<usize>, columns: Columns) -> Rows {
        let mut rows = Rows { count: range.len(), ..Rows::shaped(head) };
        if columns == Columns::All || set.logits().is_none() {
            set.features().read_f64(range.clone(), &mut rows.features);
        }
        match set.logits() {
            Some(logits) => logits.read_f64(range, &mut rows.logits),
            None => head.logits(&rows.features, rows.count, &mut rows.logits),
        }
        rows
    }

    /// Reads samples by index.
    pub fn gather(set: &FeatureSet, head: &Head, indices: &[usize]) -> Rows {
        let mut rows = Rows { count: indices.len(), ..Rows::shaped(head) };
        let mut one = Vec::new();
        for &index in indices {
            set.features().read_f64(index..index + 1, &mut one);
            rows.features.extend_from_slice(&one);
            if let Some(logits) = set.logits() {
                logits.read_f64(index..index + 1, &mut one);
                rows.logits.extend_from_slice(&one);
            }
        }
        if set.logits().is_none() {
            head.logits(&rows.features, rows.count, &mut rows.logits);
        }
        rows
    }

    fn shaped(head: &Head) -> Rows {
        Rows { dimension: head.dimension(), classes: head.classes(), ..Rows::default() }
    }

    /// Features of each sample.
    pub fn features(&self) -> impl Iterator<Item = &[f64]> {
        self.features.chunks_exact(self.dimension)
    }

    /// Logits of each sample.
    pub fn logits(&self) -> impl Iterator<Item = &[f64]> {
        self.logits.chunks_exact(self.classes)
    }

    /// The class of the largest logit of each sample; of equal ones the first.
    pub fn predicted(&self) -> impl Iterator<Item = usize> + '_ {
        self.predicted.get_or_init(|| self.logits().map(argmax).collect()).iter().copied()
    }

    /// Exponentials of the logits.
    pub fn softmax(&self) -> &Softmax {
        self.softmax.get_or_init(|| Softmax::of(&self.logits, self.classes))
    }

    /// `logsumexp(l)` of each sample.
    pub fn energies(&self) -> impl Iterator<Item = f64> + '_ {
        self.softmax().energies()
    }

    /// Euclidean norm of each sample's features.
    pub fn norms(&self) -> &[f64] {
        self.norms.get_or_init(|| self.features().map(|row| squared_norm(row).sqrt()).collect())
    }

    /// Sum of the magnitudes of each sample's features.
    pub fn sums_of_magnitudes(&self) -> &[f64] {
        self.sums_of_magnitudes
            .get_or_init(|| self.features().map(|row| row.iter().map(|x| x.abs()).sum()).collect())
    }

    /// Features divided by their norm, row-major; a sample of zeros stays one.
    pub fn normalised(&self) -> &[f64] {
        self.normalised.get_or_init(|| {
            let mut features = self.features.clone();
            normalise(&mut features, self.dimension);
            features
        })
    }

    /// `W h + b` of each sample, row-major, whatever logits are stored.
    pub fn computed_logits(&self, head: &Head) -> &[f64] {
        self.computed_logits.get_or_init(|| {
            let mut logits = Vec::new();
            head.logits(&self.features, self.count, &mut logits);
            logits
        })
    }
}

/// Divides every row by its norm; a row of zeros stays one.
pub(super) fn normalise(features: &mut [f64], dimension: usize) {
    for row in features.chunks_exact_mut(dimension) {
        let norm = squared_norm(row).sqrt();
        if norm > 0.0 {
            row.iter_mut().for_each(|x| *x /= norm);
        }
    }
}

/// `count` of `rows` indices, drawn without replacement, ascending.
pub(super) fn random_subset(rows: usize, count: usize, seed: u64) -> Vec<usize> {
    let order = Stream::for_purpose(seed, Purpose::Subset, &[]).permutation(rows);
    let mut indices: Vec<usize> = order[..count.min(rows)].iter().map(|&index| index as usize).collect();
    indices.sort_unstable();
    indices
}

/// Runs over a set in blocks, in parallel, and folds what they give in their order: the same result, bit for bit,
/// for any number of threads, with no more block results alive than there are threads.
pub(super) fn fold_blocks<T: Send, A>(
    set: &FeatureSet,
    head: &Head,
    start: A,
    block: impl Fn(&Rows, Range<usize>) -> T + Sync,
    fold: impl FnMut(A, T) -> A,
) -> A {
    fold_columns((set, Columns::All), head, start, block, fold)
}

/// The same over some columns of a set only.
pub(super) fn fold_columns<T: Send, A>(
    (set, columns): (&FeatureSet, Columns),
    head: &Head,
    start: A,
    block: impl Fn(&Rows, Range<usize>) -> T + Sync,
    mut fold: impl FnMut(A, T) -> A,
) -> A {
    let size = scoring_block(set.dimension());
    let starts: Vec<usize> = (0..set.len()).step_by(size).collect();
    let mut result = start;
    for wave in starts.chunks(rayon::current_num_threads().max(1)) {
        let parts: Vec<T> = wave
            .par_iter()
            .map(|&first| {
                let range = first..(first + size).min(set.len());
                block(&Rows::read(set, head, range.clone(), columns), range)
            })
            .collect();
        for part in parts {
            result = fold(result, part);
        }
    }
    result
}

/// Adds one list of sums to another.
pub(super) fn add(mut total: Vec<f64>, part: Vec<f64>) -> Vec<f64> {
    total.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
    total
}

//! Blocks of samples in f64, and passes over a whole set that fold block results in order.

use std::ops::Range;

use rayon::prelude::*;

use crate::features::{FeatureSet, Head};
use crate::linalg::argmax;

/// Some samples: features, logits (stored, or computed by the head), predicted classes.
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
}

/// Samples of a scoring block: an f64 copy of a quarter of a million features, so that the few temporaries a score
/// needs stay below some 20 MB per thread.
pub(super) fn scoring_block(dimension: usize) -> usize {
    ((1 << 18) / dimension.max(1)).clamp(16, 1024)
}

impl Rows {
    /// Reads consecutive samples.
    pub fn read(set: &FeatureSet, head: &Head, range: Range<usize>) -> Rows {
        let mut rows = Rows { count: range.len(), ..Rows::shaped(head) };
        set.features().read_f64(range.clone(), &mut rows.features);
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
    pub fn predicted(&self) -> impl Iterator<Item = usize> {
        self.logits().map(argmax)
    }
}

/// Runs over a set in blocks, in parallel, and folds what they give in their order: the same result, bit for bit,
/// for any number of threads, with no more block results alive than there are threads.
pub(super) fn fold_blocks<T: Send, A>(
    set: &FeatureSet,
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
                block(&Rows::read(set, head, range.clone()), range)
            })
            .collect();
        for part in parts {
            result = fold(result, part);
        }
    }
    result
}

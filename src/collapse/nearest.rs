//! NC4: how often the network decides as the nearest class mean does, over a feature cache in blocks of rows.

use rayon::prelude::*;

use crate::features::{FeatureSet, Head, block_rows};
use crate::linalg::{self, View};

use super::geometry::Rows;

/// Counts over the samples of one set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Decisions {
    /// Samples seen.
    pub samples: u64,
    /// Samples where the largest logit and the nearest class mean name different classes.
    pub mismatches: u64,
    /// Samples with a known label.
    pub labelled: u64,
    /// Labelled samples whose largest logit is that of the label.
    pub correct: u64,
}

impl Decisions {
    pub fn mismatch_rate(&self) -> f64 {
        self.mismatches as f64 / self.samples as f64
    }

    /// `None` if no label is known.
    pub fn accuracy(&self) -> Option<f64> {
        (self.labelled > 0).then(|| self.correct as f64 / self.labelled as f64)
    }

    fn plus(self, other: Decisions) -> Decisions {
        Decisions {
            samples: self.samples + other.samples,
            mismatches: self.mismatches + other.mismatches,
            labelled: self.labelled + other.labelled,
            correct: self.correct + other.correct,
        }
    }
}

/// Class means as seen from their global mean, ready to be compared with samples.
pub(super) struct NearestMean<'a> {
    centred: &'a Rows,
    origin: &'a [f64],
    squared_norms: Vec<f64>,
}

/// Squared distances closer than this, relative to the squared lengths they were computed from, are computed again by
/// direct differences: |a|² − 2ab has lost those digits.
const CLOSE: f64 = 1e-9;

impl<'a> NearestMean<'a> {
    /// `centred` are class means less `origin`. Centring keeps the numbers small, so that far less cancels.
    pub fn new(centred: &'a Rows, origin: &'a [f64]) -> NearestMean<'a> {
        let squared_norms = centred.values.chunks_exact(origin.len()).map(linalg::squared_norm).collect();
        NearestMean { centred, origin, squared_norms }
    }

    /// Compares the network's decisions with those of the nearest mean; logits that the set lacks come from `head`.
    pub fn decisions(&self, set: &FeatureSet, head: &Head) -> Decisions {
        let block = block_rows(set.dimension().max(head.classes()));
        let starts: Vec<usize> = (0..set.len()).step_by(block).collect();
        starts
            .into_par_iter()
            .map(|start| self.block(set, head, start..(start + block).min(set.len())))
            .reduce(Decisions::default, Decisions::plus)
    }

    fn block(&self, set: &FeatureSet, head: &Head, range: std::ops::Range<usize>) -> Decisions {
        let (classes, dimension) = (self.centred.classes, self.centred.dimension);
        let (mut features, mut logits) = (Vec::new(), Vec::new());
        set.features().read_f64(range.clone(), &mut features);
        match set.logits() {
            Some(matrix) => matrix.read_f64(range.clone(), &mut logits),
            None => head.logits(&features, range.len(), &mut logits),
        }
        for row in features.chunks_exact_mut(dimension) {
            row.iter_mut().zip(self.origin).for_each(|(value, origin)| *value -= origin);
        }
        let mut products = vec![0.0; range.len() * classes];
        let means = View::new(&self.centred.values, classes, dimension).transposed();
        linalg::matmul(View::new(&features, range.len(), dimension), means, &mut products);
        let mut found = Decisions::default();
        for (i, row) in range.enumerate() {
            let sample = &features[i * dimension..(i + 1) * dimension];
            let nearest = self.nearest(sample, &products[i * classes..(i + 1) * classes]);
            let decided = linalg::argmax(&logits[i * classes..(i + 1) * classes]);
            let label = set.labels().and_then(|labels| usize::try_from(labels[row]).ok());
            found = found.plus(Decisions {
                samples: 1,
                mismatches: u64::from(nearest != decided),
                labelled: u64::from(label.is_some()),
                correct: u64::from(label == Some(decided)),
            });
        }
        found
    }

    /// The class of the nearest mean, the lowest one of several at the same distance. `products` are m·h per class.
    fn nearest(&self, sample: &[f64], products: &[f64]) -> usize {
        // |h − m|² = |h|² + (|m|² − 2 m·h); the first term is the same for every class.
        let partial = |class: usize| self.squared_norms[class] - 2.0 * products[class];
        let least = (0..products.len()).map(partial).fold(f64::INFINITY, f64::min);
        let longest = self.squared_norms.iter().copied().fold(linalg::squared_norm(sample), f64::max);
        let close = |class: &usize| partial(*class) <= least + CLOSE * longest;
        let mean = |class: usize| &self.centred.values[class * sample.len()..(class + 1) * sample.len()];
        let mut best = (0, f64::INFINITY);
        for class in (0..products.len()).filter(close) {
            let distance = linalg::squared_distance(sample, mean(class));
            if distance < best.1 {
                best = (class, distance);
            }
        }
        best.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Matrix;

    fn set(features: Vec<f32>, dimension: usize, logits: Option<Vec<f32>>, labels: Vec<i64>) -> FeatureSet {
        let features = Matrix::from_f32(features, dimension, "features").unwrap();
        let logits = logits.map(|logits| Matrix::from_f32(logits, 2, "logits").unwrap());
        FeatureSet::from_parts("test", features, logits, Some(labels)).unwrap()
    }

    #[test]
    fn equal_distances_go_to_the_lowest_class() {
        let origin = [0.0, 0.0];
        let means = Rows::new(vec![0.0, 2.0, 0.0, -2.0, 0.0, 2.0], 2);
        let nearest = NearestMean::new(&means, &origin);
        let of = |x: f64, y: f64| nearest.nearest(&[x, y], &[2.0 * y, -2.0 * y, 2.0 * y]);
        assert_eq!([of(1.0, 0.0), of(5.0, 1.0), of(5.0, -1.0)], [0, 0, 1]);
    }

    #[test]
    fn distances_that_cancel_are_settled_by_direct_differences() {
        // Two means 2e-9 apart at distance 1e3: |m|² − 2 m·h keeps no digit of the difference.
        let origin = [0.0, 0.0];
        let means = Rows::new(vec![1e3, 1e-9, 1e3, -1e-9], 2);
        let nearest = NearestMean::new(&means, &origin);
        for (sample, want) in [([1e3, 1e-7], 0), ([1e3, -1e-7], 1), ([1e3, 0.0], 0)] {
            let products: Vec<f64> = means.values.chunks(2).map(|m| linalg::dot(m, &sample)).collect();
            assert_eq!(nearest.nearest(&sample, &products), want);
        }
    }

    #[test]
    fn decisions_are_counted_and_unknown_labels_are_left_out() {
        let origin = [10.0, 10.0];
        let means = Rows::new(vec![1.0, 0.0, -1.0, 0.0], 2);
        let features = vec![11.0, 10.0, 9.0, 10.0, 12.0, 11.0, 8.0, 9.0];
        let logits = vec![1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0];
        let head = Head::new(vec![1.0, 0.0, -1.0, 0.0], vec![-10.0, 10.0], 2).unwrap();
        let nearest = NearestMean::new(&means, &origin);
        let found = nearest.decisions(&set(features.clone(), 2, Some(logits), vec![0, 1, -1, 0]), &head);
        assert_eq!(found, Decisions { samples: 4, mismatches: 1, labelled: 3, correct: 1 });
        assert_eq!((found.mismatch_rate(), found.accuracy()), (0.25, Some(1.0 / 3.0)));
        // Without logits the head decides: w·h + b = ±(x − 10), exactly the nearest mean.
        let found = nearest.decisions(&set(features, 2, None, vec![-1; 4]), &head);
        assert_eq!((found.mismatches, found.accuracy()), (0, None));
    }
}

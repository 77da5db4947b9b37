//! Counts, class means and scatter of features in f64: what Gaussian, subspace and collapse statistics are made of.
//!
//! One pass over the features, merged block by block (Chan, Golub, LeVeque, "Updating formulae and a pairwise
//! algorithm for computing sample variances", 1979). Blocks depend on the width alone and are merged in order, so
//! the result is the same bit for bit for any number of threads.

use rayon::prelude::*;

use super::{Matrix, block_rows};
use crate::error::{Error, Result};
use crate::linalg::{add_gram, mirror_lower, squared_distance};

/// Sufficient statistics of labelled features: per-class counts, means, scatter.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    classes: usize,
    dimension: usize,
    counts: Vec<u64>,
    means: Vec<f64>,
    /// Σ_c Σ_{i in c} (h_i − μ_c)(h_i − μ_c)ᵀ, on and below the diagonal.
    within: Vec<f64>,
    /// Σ_{i in c} |h_i − μ_c|², per class.
    class_scatter: Vec<f64>,
}

/// Widest features whose D x D scatter is computed: 2 GiB in f64. Networks have 512 or 2048.
const WIDEST: usize = 16_384;

impl Moments {
    /// Checks that a D x D matrix of this dimension is something memory can hold.
    ///
    /// # Errors
    /// More than 16,384 features.
    pub fn check_dimension(dimension: usize) -> Result<()> {
        if dimension <= WIDEST {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "covariances are computed for at most {WIDEST} features, found {dimension}; pool the features first, or \
             choose scores that need no covariance (--methods cheap)"
        )))
    }

    /// Statistics of no samples.
    pub fn empty(classes: usize, dimension: usize) -> Moments {
        Moments {
            classes,
            dimension,
            counts: vec![0; classes],
            means: vec![0.0; classes * dimension],
            within: vec![0.0; dimension * dimension],
            class_scatter: vec![0.0; classes],
        }
    }

    /// Statistics of a matrix of features; `labels[i]` in 0..`classes` is the class of row i.
    ///
    /// # Panics
    /// If there are fewer labels than rows or one is out of range.
    pub fn accumulate(features: &Matrix, labels: &[u32], classes: usize) -> Moments {
        Moments::accumulate_prepared(features, labels, classes, |_| {})
    }

    /// The same of rows that `prepare` changed: it is given some whole rows at a time.
    ///
    /// # Panics
    /// As [`Moments::accumulate`].
    pub(crate) fn accumulate_prepared(
        features: &Matrix,
        labels: &[u32],
        classes: usize,
        prepare: impl Fn(&mut [f64]) + Sync,
    ) -> Moments {
        let (rows, dimension) = (features.rows(), features.columns());
        let block = block_rows(dimension);
        let starts: Vec<usize> = (0..rows).step_by(block).collect();
        let mut total = Moments::empty(classes, dimension);
        // One block per thread at a time, so that few D x D matrices are alive; the order in which they are merged does not
        // depend on the number of threads.
        for wave in starts.chunks(rayon::current_num_threads().max(1)) {
            let parts: Vec<Moments> = wave
                .par_iter()
                .map(|&start| {
                    let end = (start + block).min(rows);
                    let mut values = Vec::new();
                    features.read_f64(start..end, &mut values);
                    prepare(&mut values);
                    Moments::of_block(values, &labels[start..end], classes, dimension)
                })
                .collect();
            for part in &parts {
                total.merge(part);
            }
        }
        total
    }

    /// Statistics that were accumulated elsewhere: means (C x D), scatter within classes (D x D, on and below the diagonal),
    /// sums of squared deviations of each class.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn from_sums(
        counts: Vec<u64>,
        means: Vec<f64>,
        within: Vec<f64>,
        class_scatter: Vec<f64>,
    ) -> Moments {
        let (classes, dimension) = (counts.len(), means.len() / counts.len().max(1));
        assert_eq!(means.len(), classes * dimension, "a mean for each class");
        assert_eq!(within.len(), dimension * dimension, "a square scatter");
        assert_eq!(class_scatter.len(), classes, "a sum for each class");
        Moments { classes, dimension, counts, means, within, class_scatter }
    }

    /// Statistics of one block of rows, which is centred in place: two passes, no cancellation.
    fn of_block(mut values: Vec<f64>, labels: &[u32], classes: usize, dimension: usize) -> Moments {
        let mut part = Moments::empty(classes, dimension);
        for (row, &label) in values.chunks_exact(dimension).zip(labels) {
            let class = label as usize;
            part.counts[class] += 1;
            let mean = &mut part.means[class * dimension..(class + 1) * dimension];
            mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        for (mean, &count) in part.means.chunks_exact_mut(dimension).zip(&part.counts) {
            mean.iter_mut().for_each(|sum| *sum /= count.max(1) as f64);
        }
        for (row, &label) in values.chunks_exact_mut(dimension).zip(labels) {
            let class = label as usize;
            let mean = &part.means[class * dimension..(class + 1) * dimension];
            part.class_scatter[class] += squared_distance(row, mean);
            row.iter_mut().zip(mean).for_each(|(x, mean)| *x -= mean);
        }
        add_gram(&values, labels.len(), dimension, &mut part.within);
        part
    }

    /// Adds the statistics of other samples, as if both had been accumulated together.
    ///
    /// # Panics
    /// If the other statistics have another shape.
    pub fn merge(&mut self, other: &Moments) {
        assert_eq!((self.classes, self.dimension), (other.classes, other.dimension), "shape of moments");
        let d = self.dimension;
        let mut shifts = Vec::new();
        for class in 0..self.classes {
            let (a, b) = (self.counts[class] as f64, other.counts[class] as f64);
            if b == 0.0 {
                continue;
            }
            let mean = &mut self.means[class * d..(class + 1) * d];
            let other_mean = &other.means[class * d..(class + 1) * d];
            if a == 0.0 {
                mean.copy_from_slice(other_mean);
            } else {
                let weight = a * b / (a + b);
                self.class_scatter[class] += weight * squared_distance(mean, other_mean);
                shifts.extend(mean.iter().zip(other_mean).map(|(x, y)| weight.sqrt() * (y - x)));
                mean.iter_mut().zip(other_mean).for_each(|(x, y)| *x += (y - *x) * (b / (a + b)));
            }
            self.counts[class] += other.counts[class];
            self.class_scatter[class] += other.class_scatter[class];
        }
        self.within.iter_mut().zip(&other.within).for_each(|(x, y)| *x += y);
        add_gram(&shifts, shifts.len() / d.max(1), d, &mut self.within);
    }

    /// Number of classes, C.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Number of features, D.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Number of samples, N.
    pub fn samples(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Number of samples of each class.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Class means, row-major, C x D (zero for a class without samples).
    pub fn means(&self) -> &[f64] {
        &self.means
    }

    /// Mean of one class, D numbers.
    pub fn class_mean(&self, class: usize) -> &[f64] {
        &self.means[class * self.dimension..(class + 1) * self.dimension]
    }

    /// Mean over all samples, D numbers.
    pub fn global_mean(&self) -> Vec<f64> {
        let total = self.samples().max(1) as f64;
        let mut mean = vec![0.0; self.dimension];
        for (class_mean, &count) in self.means.chunks_exact(self.dimension.max(1)).zip(&self.counts) {
            mean.iter_mut().zip(class_mean).for_each(|(sum, x)| *sum += x * (count as f64 / total));
        }
        mean
    }

    /// Within-class scatter Σ (h − μ_y)(h − μ_y)ᵀ, row-major, D x D; divided by N it is the tied covariance.
    pub fn within_scatter(&self) -> Vec<f64> {
        let mut scatter = self.within.clone();
        mirror_lower(&mut scatter, self.dimension);
        scatter
    }

    /// Scatter about a point `origin`: Σ (h − o)(h − o)ᵀ over all samples, row-major, D x D.
    ///
    /// # Panics
    /// If the origin has another dimension.
    pub fn scatter_about(&self, origin: &[f64]) -> Vec<f64> {
        assert_eq!(origin.len(), self.dimension, "dimension of an origin");
        let mut scatter = self.within.clone();
        let mut shifts = Vec::with_capacity(self.means.len());
        for (class_mean, &count) in self.means.chunks_exact(self.dimension.max(1)).zip(&self.counts) {
            let weight = (count as f64).sqrt();
            shifts.extend(class_mean.iter().zip(origin).map(|(x, o)| weight * (x - o)));
        }
        add_gram(&shifts, self.classes, self.dimension, &mut scatter);
        mirror_lower(&mut scatter, self.dimension);
        scatter
    }

    /// Global scatter Σ (h − μ)(h − μ)ᵀ about the sample mean, row-major, D x D.
    pub fn global_scatter(&self) -> Vec<f64> {
        self.scatter_about(&self.global_mean())
    }

    /// Σ |h − μ_c|² over the samples of each class; divided by the counts, the class variances (summed over features).
    pub fn class_scatter(&self) -> &[f64] {
        &self.class_scatter
    }
}

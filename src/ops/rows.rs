//! Operations on blocks of rows: what scores and statistics of many samples are made of.
//!
//! Features are f32, labels i32; everything computed from them is f64, summed up in a fixed order. Whatever is fitted
//! (means, bases, whitening maps) is handed over as f64. Matrices are row-major.

use super::Device;
use crate::error::Result;
use crate::tensor::Span;

/// Some rows of a matrix of features, with how each number is prepared: `(x - shift) / divisor`.
#[derive(Debug, Clone, Copy)]
pub struct Features {
    /// (rows, columns) f32.
    pub x: Span,
    /// Number of rows.
    pub rows: usize,
    /// Features of a row.
    pub columns: usize,
    /// What is subtracted from every row, (columns) f64; nothing if absent.
    pub shift: Option<Span>,
    /// What every row is divided by, (columns) f64; nothing if absent.
    pub divisor: Option<Span>,
}

/// Points that rows are compared with.
#[derive(Debug, Clone, Copy)]
pub struct Points {
    /// (count, columns).
    pub values: Span,
    /// How many there are.
    pub count: usize,
    /// The neighbour whose distance is wanted: the nearest is number 1.
    pub k: usize,
}

/// Labelled rows of features.
#[derive(Debug, Clone, Copy)]
pub struct Labelled {
    /// (rows, columns) f32.
    pub x: Span,
    /// (rows) i32, each in 0..classes.
    pub labels: Span,
    /// Number of rows.
    pub rows: usize,
    /// Features of a row.
    pub columns: usize,
    /// Number of classes.
    pub classes: usize,
}

/// A device that computes on blocks of rows.
///
/// All methods may return before the work is done.
pub trait RowOps: Device {
    /// Three `scores`, (rows) each, of logits (rows, classes) f64, these being the extents: the largest probability of
    /// `softmax(l / T)`, the largest logit, the energy `T logsumexp(l / T)`.
    ///
    /// # Errors
    /// Spans that do not fit, or the device failed.
    fn logit_scores(
        &mut self,
        extents: [usize; 2],
        temperature: f64,
        logits: Span,
        scores: [Span; 3],
    ) -> Result<()>;

    /// `z = ((x - shift) / divisor) basis`: basis (columns, outputs), z (rows, outputs).
    ///
    /// # Errors
    /// As [`RowOps::logit_scores`].
    fn project(&mut self, features: &Features, outputs: usize, basis: Span, z: Span) -> Result<()>;

    /// `norms[n] = |(x[n] - shift) / divisor|²`.
    ///
    /// # Errors
    /// As [`RowOps::logit_scores`].
    fn square_norms(&mut self, features: &Features, norms: Span) -> Result<()>;

    /// `norms[n] = |z[n]|²`, z (rows, columns) f64.
    ///
    /// # Errors
    /// As [`RowOps::logit_scores`].
    fn square_norms_of_coordinates(&mut self, extents: [usize; 2], z: Span, norms: Span) -> Result<()>;

    /// `norms[n] = 1 / (|x[n]| + floor)`; shift and divisor do not count.
    ///
    /// # Errors
    /// As [`RowOps::logit_scores`].
    fn inverse_norms(&mut self, features: &Features, floor: f64, norms: Span) -> Result<()>;

    /// The squared distance of each row of z (rows, columns) to the k-th nearest of points (count, columns), all f64.
    ///
    /// `scratch` holds distances, f64: at least those of one row, which are `count`; with more, more rows at a time.
    ///
    /// # Errors
    /// As [`RowOps::logit_scores`], or k is not in 1..=count.
    fn nearest(
        &mut self,
        extents: [usize; 2],
        z: Span,
        points: &Points,
        scratch: Span,
        nearest: Span,
    ) -> Result<()>;

    /// The same for features and a bank of features (count, columns) f32, both multiplied by a number a row first:
    /// `|x[n] scale[n] - bank[m] bank_scale[m]|²`.
    ///
    /// # Errors
    /// As [`RowOps::nearest`].
    fn nearest_normalised(
        &mut self,
        features: (&Features, Span),
        bank: (&Points, Span),
        scratch: Span,
        nearest: Span,
    ) -> Result<()>;

    /// `sums[c] += sum of the rows of class c`; sums (classes, columns).
    ///
    /// # Errors
    /// As [`RowOps::logit_scores`].
    fn class_sums(&mut self, rows: &Labelled, sums: Span) -> Result<()>;

    /// `deviations[n] = |x[n] - means[label of n]|²`; means (classes, columns).
    ///
    /// # Errors
    /// As [`RowOps::logit_scores`].
    fn class_deviations(&mut self, rows: &Labelled, means: Span, deviations: Span) -> Result<()>;

    /// Adds `sum of (x[n] - means[y]) (x[n] - means[y])ᵀ`, y the label of n, to scatter (slices, columns, columns), on and below
    /// the diagonal; the sum over slices is what is wanted.
    ///
    /// # Errors
    /// As [`RowOps::logit_scores`].
    fn within_scatter(&mut self, rows: &Labelled, means: Span, slices: usize, scatter: Span) -> Result<()>;
}

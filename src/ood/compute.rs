//! Where the passes over many rows run: on the CPU, or on a device with kernels for them.
//!
//! Fits (eigenvectors, quantiles) run on the CPU in either case; the time goes into the passes over all rows.

use rayon::prelude::*;

use super::detectors::Detectors;
use super::rows::{Rows, fold_blocks};
use super::spec::ScoreSpec;
use crate::error::Result;
use crate::features::{FeatureSet, Head, Matrix, Moments, block_rows};
use crate::linalg::{View, largest, matmul, squared_norm};

/// A linear map of rows: `z = ((x - shift) / divisor) basis`.
#[derive(Debug, Clone, Copy)]
pub struct Projector<'a> {
    /// Subtracted from every row, D numbers.
    pub shift: Option<&'a [f64]>,
    /// Divisors of every row's features, D numbers.
    pub divisor: Option<&'a [f64]>,
    /// Row-major, D x outputs.
    pub basis: &'a [f64],
    /// Coordinates.
    pub outputs: usize,
}

impl Projector<'_> {
    /// Norm of the coordinates of each of `count` rows.
    pub(super) fn norms(&self, features: &[f64], count: usize) -> Vec<f64> {
        self.leading_norms(features, count, &[self.outputs]).remove(0)
    }

    /// Norms of the first so many coordinates of each of `count` rows, for each number in `leading`.
    pub(super) fn leading_norms(&self, features: &[f64], count: usize, leading: &[usize]) -> Vec<Vec<f64>> {
        let dimension = self.basis.len() / self.outputs;
        let mut prepared = features.to_vec();
        for row in prepared.chunks_exact_mut(dimension) {
            if let Some(shift) = self.shift {
                row.iter_mut().zip(shift).for_each(|(x, shift)| *x -= shift);
            }
            if let Some(divisor) = self.divisor {
                row.iter_mut().zip(divisor).for_each(|(x, divisor)| *x /= divisor);
            }
        }
        let mut coordinates = vec![0.0; count * self.outputs];
        let basis = View::new(self.basis, dimension, self.outputs);
        matmul(View::new(&prepared, count, dimension), basis, &mut coordinates);
        let rows = || coordinates.chunks_exact(self.outputs);
        leading.iter().map(|own| rows().map(|row| squared_norm(&row[..*own]).sqrt()).collect()).collect()
    }
}

/// Sums over a set that ViM's scale is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ResidualSums {
    /// Of the largest logits.
    pub logits: f64,
    /// Of the norms of the coordinates.
    pub residuals: f64,
    /// Of the norms of the features.
    pub norms: f64,
}

impl ResidualSums {
    /// Both sums together.
    pub(super) fn plus(self, other: ResidualSums) -> ResidualSums {
        ResidualSums {
            logits: self.logits + other.logits,
            residuals: self.residuals + other.residuals,
            norms: self.norms + other.norms,
        }
    }
}

/// Some scores of the samples of a block, by name.
pub type BlockScores = Vec<(String, Vec<f64>)>;

/// Carries out the passes over many rows.
pub trait Compute {
    /// A difference of this one that the user should know of, of these scores.
    fn note(&self, _scores: &[ScoreSpec]) -> Option<String> {
        None
    }

    /// Counts, means and scatter of labelled features; see [`Moments::accumulate`].
    ///
    /// # Errors
    /// The device failed.
    fn moments(&mut self, features: &Matrix, labels: &[u32], classes: usize) -> Result<Moments>;

    /// Mean of all rows, D numbers.
    ///
    /// # Errors
    /// The device failed.
    fn mean(&mut self, features: &Matrix) -> Result<Vec<f64>>;

    /// Sums over all samples of a set: largest logits, norms of coordinates, norms of features.
    ///
    /// # Errors
    /// The device failed.
    fn residual_sums(
        &mut self,
        set: &FeatureSet,
        head: &Head,
        residual: &Projector<'_>,
    ) -> Result<ResidualSums>;

    /// Every fitted score of blocks 0..`blocks`, in their order; `read` gives a block's samples.
    ///
    /// # Errors
    /// The device failed.
    fn score_blocks(
        &mut self,
        detectors: &Detectors,
        blocks: usize,
        read: &(dyn Fn(usize) -> Rows + Sync),
    ) -> Result<Vec<BlockScores>>;
}

/// The CPU, in f64 throughout.
#[derive(Debug, Clone, Copy, Default)]
pub struct OnCpu;

impl Compute for OnCpu {
    fn moments(&mut self, features: &Matrix, labels: &[u32], classes: usize) -> Result<Moments> {
        Ok(Moments::accumulate(features, labels, classes))
    }

    /// Summed in the order of the rows.
    fn mean(&mut self, features: &Matrix) -> Result<Vec<f64>> {
        let (columns, rows) = (features.columns(), block_rows(features.columns()));
        let (mut sum, mut block) = (vec![0.0; columns], Vec::new());
        for start in (0..features.rows()).step_by(rows) {
            features.read_f64(start..(start + rows).min(features.rows()), &mut block);
            for row in block.chunks_exact(columns) {
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        }
        sum.iter_mut().for_each(|value| *value /= features.rows() as f64);
        Ok(sum)
    }

    fn residual_sums(
        &mut self,
        set: &FeatureSet,
        head: &Head,
        residual: &Projector<'_>,
    ) -> Result<ResidualSums> {
        Ok(fold_blocks(
            set,
            head,
            ResidualSums::default(),
            |rows, _| ResidualSums {
                logits: rows.logits().map(largest).sum(),
                residuals: residual.norms(&rows.features, rows.count).iter().sum(),
                norms: rows.features().map(|row| squared_norm(row).sqrt()).sum(),
            },
            ResidualSums::plus,
        ))
    }

    fn score_blocks(
        &mut self,
        detectors: &Detectors,
        blocks: usize,
        read: &(dyn Fn(usize) -> Rows + Sync),
    ) -> Result<Vec<BlockScores>> {
        Ok((0..blocks).into_par_iter().map(|block| detectors.score_rows(&read(block))).collect())
    }
}

//! Passes over many rows on a device that has kernels for them.
//!
//! | file | holds |
//! |---|---|
//! | `steps` | the computations of a pass, put together by the scores that want them: logits, projections, norms |
//! | `features`, `bank` | more of them: on single features; against a bank of training rows |
//! | `pipeline` | buffers on the device, and the stream of blocks through them |
//! | `moments` | class means and scatter, in two passes |

mod bank;
mod features;
mod moments;
mod pipeline;
mod steps;

use super::compute::{BlockScores, Compute, OnCpu, Projector, ResidualSums};
use super::detectors::Detectors;
use super::method::Method;
use super::rows::{Columns, Rows, scoring_block};
use super::spec::ScoreSpec;
use crate::backend::Choice;
use crate::error::Result;
use crate::features::{FeatureSet, Head, Matrix, Moments};
use crate::linalg::largest;
use crate::ops::{Device, PreparedRows, RowSquareNorms};
use crate::tensor::aligned;
use crate::values::named;
pub(super) use bank::BankOf;
pub(super) use features::TrainingHistogram;
pub(super) use pipeline::Numbers;
use pipeline::Pipeline;
pub(super) use steps::{Place, Steps};

/// Scores of a block from the numbers of its rows.
pub(super) type FromNumbers<'a> = Box<dyn Fn(&Numbers) -> BlockScores + 'a>;

named! {
    /// The precision of products in passes over rows. Fits are f64 in any case.
    pub enum RowsPrecision: "precision of passes over rows" {
        /// All of them.
        F64 = "f64",
        /// Distances between normalised features, which KNN is made of, are multiplied in f32 and added up in f64. The other scores
        /// stay f64: in f32 some are off by more than 1e-6 of their mean (RMDS by 2e-6, and whatever is made of its parts).
        F32 = "f32",
    }
    default F64
}

/// A device that goes over rows. Features are rounded to f32 on their way to it (caches of f32 and f16 are exact), all
/// sums are f64.
pub struct OnDevice {
    device: Box<dyn Device>,
    precision: RowsPrecision,
}

impl OnDevice {
    /// Passes on this device.
    pub fn new(device: Box<dyn Device>) -> OnDevice {
        OnDevice { device, precision: RowsPrecision::default() }
    }

    /// The same in another precision.
    #[must_use]
    pub fn with_precision(self, precision: RowsPrecision) -> OnDevice {
        OnDevice { precision, ..self }
    }
}

/// Does work whose passes over rows run on the device of a choice, or on the CPU where that computes. A device is tried before the work
/// begins, where its kernels are not known to be sound; what fails there runs on the CPU.
///
/// # Errors
/// `work`'s own; or the device cannot be had.
pub fn on_chosen<T>(
    choice: &Choice,
    precision: RowsPrecision,
    mut work: impl FnMut(&mut dyn Compute) -> Result<T>,
) -> Result<T> {
    choice.for_rows().on_device_for_rows(|device| {
        let Some(mut device) = device else { return work(&mut OnCpu) };
        // Any pass over rows stands for all of them: they are tried together.
        device.prepare(&RowSquareNorms::alone(PreparedRows {
            rows: 1,
            columns: 1,
            shift: false,
            divisor: false,
        }));
        let memory = aligned(device.red_zone());
        device.allocate(memory)?;
        work(&mut OnDevice::new(device).with_precision(precision))
    })
}

impl Compute for OnDevice {
    fn note(&self, scores: &[ScoreSpec]) -> Option<String> {
        let has_knn = scores.iter().any(|spec| spec.method() == Method::Knn);
        let single = self.precision == RowsPrecision::F32 && has_knn;
        single.then(|| "knn: distances were multiplied in f32 (--rows-precision f32)".to_string())
    }

    fn moments(&mut self, features: &Matrix, labels: &[u32], classes: usize) -> Result<Moments> {
        moments::accumulate(&mut *self.device, features, labels, classes)
    }

    fn mean(&mut self, features: &Matrix) -> Result<Vec<f64>> {
        moments::mean(&mut *self.device, features)
    }

    fn residual_sums(
        &mut self,
        set: &FeatureSet,
        head: &Head,
        residual: &Projector<'_>,
    ) -> Result<ResidualSums> {
        let block = scoring_block(set.dimension());
        let mut steps = Steps::new(self.device.red_zone(), [block, set.dimension(), head.classes()]);
        let rows = steps.features();
        let residuals = steps.norms(rows, residual);
        let norms = steps.whole_norms(None, None);
        let mut sums = ResidualSums::default();
        Pipeline::new(&mut *self.device, steps)?.stream(
            set.len().div_ceil(block),
            &|number| {
                let start = number * block;
                Rows::read(set, head, start..(start + block).min(set.len()), Columns::All)
            },
            &|rows| -> f64 { rows.logits().map(largest).sum() },
            |numbers, logits| {
                let sum = |place| numbers.of(place).map(f64::sqrt).sum();
                sums = sums.plus(ResidualSums { logits, residuals: sum(residuals), norms: sum(norms) });
            },
        )?;
        Ok(sums)
    }

    fn score_blocks(
        &mut self,
        detectors: &Detectors,
        blocks: usize,
        read: &(dyn Fn(usize) -> Rows + Sync),
    ) -> Result<Vec<BlockScores>> {
        let head = detectors.head();
        let block = scoring_block(head.dimension());
        let mut steps = Steps::new(self.device.red_zone(), [block, head.dimension(), head.classes()])
            .with_precision(self.precision);
        let scores: Vec<FromNumbers<'_>> =
            detectors.fitted().map(|fitted| fitted.on_device(head, &mut steps)).collect();
        if steps.is_empty() {
            // Every score is the same for all samples.
            return OnCpu.score_blocks(detectors, blocks, read);
        }
        let mut all = Vec::with_capacity(blocks);
        Pipeline::new(&mut *self.device, steps)?.stream(blocks, read, &|_| (), |numbers, ()| {
            all.push(scores.iter().flat_map(|of| of(&numbers)).collect())
        })?;
        Ok(all)
    }
}

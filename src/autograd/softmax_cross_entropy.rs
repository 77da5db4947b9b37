//! Softmax cross-entropy: loss, predictions and the gradient of the mean loss in one pass.

use super::{Tape, Var};
use crate::ops::{CrossEntropy, SoftmaxCrossEntropy};
use crate::plan::{BufferId, Storage};
use crate::tensor::{DType, Shape};

/// The results of a loss.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// Loss of each sample, (batch).
    pub per_sample: BufferId,
    /// Predicted class of each sample, (batch) i32.
    pub prediction: BufferId,
    /// The logits of the loss.
    pub logits: Var,
    /// Gradient of the mean loss with respect to the logits.
    pub logits_gradient: BufferId,
}

impl Tape {
    /// Records the cross-entropy between softmax(logits) and labels (batch, i32), with label smoothing.
    pub fn softmax_cross_entropy(&mut self, logits: Var, labels: Var, smoothing: f64) -> Loss {
        let (batch, classes) = (logits.shape.rows(), logits.shape.channels());
        assert_eq!(labels.shape, Shape::from([batch]), "one label per sample");
        let per_sample = self.plan.buffer("loss", labels.shape, self.dtype.accumulator(), Storage::Step);
        let prediction = self.plan.buffer("prediction", labels.shape, DType::I32, Storage::Step);
        let logits_gradient = self.transient_number("logits gradient", logits.shape);
        self.plan.push(SoftmaxCrossEntropy {
            attributes: CrossEntropy { batch, classes, smoothing },
            logits: logits.buffer,
            labels: labels.buffer,
            loss: per_sample,
            prediction,
            dlogits: logits_gradient,
        });
        Loss { per_sample, prediction, logits, logits_gradient }
    }
}

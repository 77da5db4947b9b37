//! Weights of samples.

use super::Tape;
use crate::ops::{Rows, ScaleRows};
use crate::plan::BufferId;
use crate::tensor::Shape;

impl Tape {
    /// Records that row n of `x` is multiplied by `weights[n]`, in place: the losses of samples, (batch), or their gradients,
    /// (batch, classes). Weights are constants; x is a loss that has already been recorded, not a value that
    /// gradients flow through.
    pub fn weigh(&mut self, weights: BufferId, x: BufferId, shape: Shape) {
        let rows = self.plan.buffers[weights.index()].shape.elements();
        let channels = shape.elements() / rows;
        assert_eq!(rows * channels, shape.elements(), "one weight per row");
        self.plan.push(ScaleRows { attributes: Rows { rows, channels }, weights, x });
    }
}

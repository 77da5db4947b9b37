//! The divergence of two softmaxes: losses and the gradients of their mean in one pass.

use super::{Tape, Var};
use crate::ops::{Direction, KlDivergence, Side, SoftmaxDivergence};
use crate::plan::{BufferId, Storage};
use crate::tensor::Shape;

/// The results of a divergence.
#[derive(Debug, Clone, Copy)]
pub struct Divergence {
    /// Divergence of each sample, (batch).
    pub per_sample: BufferId,
    /// Both sides and the gradients of the mean divergence with respect to their logits, zero on a detached side.
    pub gradients: [(Var, BufferId); 2],
}

impl Tape {
    /// Records the divergence between `softmax(first / temperature)` and `softmax(second / temperature)`.
    pub fn kl_divergence(
        &mut self,
        first: Var,
        second: Var,
        temperature: f64,
        direction: Direction,
        detached: Option<Side>,
    ) -> Divergence {
        assert_eq!(first.shape, second.shape, "both sides of a divergence have the same classes");
        let (batch, classes) = (first.shape.rows(), first.shape.channels());
        let number = self.dtype.accumulator();
        let per_sample = self.plan.buffer("divergence", Shape::from([batch]), number, Storage::Step);
        let dfirst = self.transient_number("divergence gradient", first.shape);
        let dsecond = self.transient_number("divergence gradient", second.shape);
        self.plan.push(SoftmaxDivergence {
            attributes: KlDivergence { batch, classes, temperature, direction, detached },
            first: first.buffer,
            second: second.buffer,
            loss: per_sample,
            dfirst,
            dsecond,
        });
        Divergence { per_sample, gradients: [(first, dfirst), (second, dsecond)] }
    }
}

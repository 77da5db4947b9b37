//! Softmax cross-entropy and the totals of a step: launches of `loss.cu`.

use super::Cuda;
use super::driver::Driver;
use crate::error::Result;
use crate::ops::{CrossEntropy, StepTotals};
use crate::tensor::Span;

pub(super) fn softmax_cross_entropy<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &CrossEntropy,
    [logits, labels, loss, prediction, dlogits]: [Span; 5],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, logits, labels, loss, prediction, dlogits, workspace);
    todo!()
}

pub(super) fn step_totals<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &StepTotals,
    [loss, prediction, labels, hyper, totals]: [Span; 5],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, loss, prediction, labels, hyper, totals, workspace);
    todo!()
}

//! The fully connected layer: launches of `linear.cu`.

use super::Cuda;
use super::driver::Driver;
use crate::error::Result;
use crate::ops::{Call, Linear};
use crate::tensor::Span;

/// Scratch memory of the calls of this family; `None` for others.
pub(super) fn workspace_bytes<D: Driver>(cuda: &Cuda<D>, call: &Call<()>) -> Option<usize> {
    let _ = (cuda, call);
    todo!()
}

pub(super) fn forward<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Linear,
    [x, weight, bias, y]: [Span; 4],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, x, weight, bias, y, workspace);
    todo!()
}

pub(super) fn input_gradient<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Linear,
    [dy, weight, dx]: [Span; 3],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, dy, weight, dx, workspace);
    todo!()
}

pub(super) fn weight_gradient<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Linear,
    [x, dy, dweight, dbias]: [Span; 4],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, x, dy, dweight, dbias, workspace);
    todo!()
}

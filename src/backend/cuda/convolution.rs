//! Convolutions as implicit matrix products: geometry, arguments and choice of variant for `convolution*.cu`.

use super::Cuda;
use super::driver::Driver;
use crate::error::Result;
use crate::ops::{Call, Conv2d, Conv2dGradient, Conv2dInference};
use crate::tensor::Span;

/// Scratch memory of the calls of this family; `None` for others.
pub(super) fn workspace_bytes<D: Driver>(cuda: &Cuda<D>, call: &Call<()>) -> Option<usize> {
    let _ = (cuda, call);
    todo!()
}

pub(super) fn forward<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Conv2d,
    [x, weight, y]: [Span; 3],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, x, weight, y, workspace);
    todo!()
}

pub(super) fn bias<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Conv2dInference,
    [x, weight, bias, y]: [Span; 4],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, x, weight, bias, y, workspace);
    todo!()
}

pub(super) fn bias_residual<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Conv2dInference,
    [x, weight, bias, residual, y]: [Span; 5],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, x, weight, bias, residual, y, workspace);
    todo!()
}

pub(super) fn input_gradient<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Conv2dGradient,
    [dy, weight, dx]: [Span; 3],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, dy, weight, dx, workspace);
    todo!()
}

pub(super) fn weight_gradient<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Conv2d,
    [x, dy, dweight]: [Span; 3],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, x, dy, dweight, workspace);
    todo!()
}

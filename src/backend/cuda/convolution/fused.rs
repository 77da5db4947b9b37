//! Convolutions together with the passes of batch normalisation over what they write.

use super::super::driver::Driver;
use super::super::{Cuda, batch_norm, pointwise};
use super::{forward, input_gradient};
use crate::error::Result;
use crate::ops::{Call, Conv2dBatchNorm, Conv2dGradient, Conv2dGradientReduce};
use crate::tensor::Span;

/// Scratch memory of the calls of this file; `None` for others. The parts run one after the other and share it.
pub(super) fn workspace_bytes<D: Driver>(cuda: &Cuda<D>, call: &Call<()>) -> Option<usize> {
    let extent = match call {
        Call::Conv2dBatchNormStatistics { attributes, .. } => attributes.conv.outputs(),
        Call::Conv2dInputGradientReduce { attributes, .. } => attributes.gradient.conv.inputs(),
        Call::Conv2dInputGradientMaskReduce { attributes, .. } => attributes.conv.inputs(),
        _ => return None,
    };
    batch_norm::partial_bytes(cuda, &extent)
}

pub(in super::super) fn forward_statistics<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Conv2dBatchNorm,
    [x, weight, y, others @ ..]: [Span; 11],
    workspace: Span,
) -> Result<()> {
    let [gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance] = others;
    forward(cuda, memory, &attributes.conv, [x, weight, y], workspace)?;
    let operands = [y, gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance];
    batch_norm::statistics(cuda, memory, &attributes.norm(), operands, workspace)
}

pub(in super::super) fn input_gradient_reduce<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Conv2dGradientReduce,
    [dy, weight, x, scale, bias, mean, inverse_std, dx, dgamma, dbeta]: [Span; 10],
    workspace: Span,
) -> Result<()> {
    let Conv2dGradientReduce { gradient, relu } = attributes;
    input_gradient(cuda, memory, gradient, [dy, weight, dx], workspace)?;
    let operands = [dx, x, scale, bias, mean, inverse_std, dgamma, dbeta];
    batch_norm::reduce(cuda, memory, &gradient.reduce(*relu), operands, workspace)
}

pub(in super::super) fn input_gradient_mask_reduce<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    gradient: &Conv2dGradient,
    [dy, weight, y, x, scale, bias, mean, inverse_std, dx, dgamma, dbeta]: [Span; 11],
    workspace: Span,
) -> Result<()> {
    input_gradient(cuda, memory, gradient, [dy, weight, dx], workspace)?;
    pointwise::mask(cuda, memory, &gradient.conv.inputs(), [y, dx])?;
    let operands = [dx, x, scale, bias, mean, inverse_std, dgamma, dbeta];
    batch_norm::reduce(cuda, memory, &gradient.reduce(false), operands, workspace)
}

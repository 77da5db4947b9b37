//! Batch normalisation and the passes that apply it: launches of `batch_norm.cu`.

use super::Cuda;
use super::driver::Driver;
use crate::error::Result;
use crate::ops::{BatchNorm, BatchNormGradient, Call, ScaleBias};
use crate::tensor::Span;

/// Scratch memory of the calls of this family; `None` for others.
pub(super) fn workspace_bytes<D: Driver>(cuda: &Cuda<D>, call: &Call<()>) -> Option<usize> {
    let _ = (cuda, call);
    todo!()
}

pub(super) fn statistics<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &BatchNorm,
    [x, gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance]: [Span; 9],
    workspace: Span,
) -> Result<()> {
    let _ = (
        cuda,
        memory,
        attributes,
        x,
        gamma,
        beta,
        mean,
        inverse_std,
        scale,
        bias,
        running_mean,
        running_variance,
        workspace,
    );
    todo!()
}

pub(super) fn frozen<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &BatchNorm,
    [gamma, beta, running_mean, running_variance, inverse_std, scale, bias]: [Span; 7],
    workspace: Span,
) -> Result<()> {
    let _ = (
        cuda,
        memory,
        attributes,
        gamma,
        beta,
        running_mean,
        running_variance,
        inverse_std,
        scale,
        bias,
        workspace,
    );
    todo!()
}

pub(super) fn fold<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &BatchNorm,
    [weight, gamma, beta, running_mean, running_variance, folded, bias]: [Span; 7],
    workspace: Span,
) -> Result<()> {
    let _ = (
        cuda,
        memory,
        attributes,
        weight,
        gamma,
        beta,
        running_mean,
        running_variance,
        folded,
        bias,
        workspace,
    );
    todo!()
}

pub(super) fn scale_bias<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &ScaleBias,
    [x, scale, bias, y]: [Span; 4],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, x, scale, bias, y, workspace);
    todo!()
}

pub(super) fn scale_bias_residual<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &ScaleBias,
    [x, scale, bias, residual, y]: [Span; 5],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, x, scale, bias, residual, y, workspace);
    todo!()
}

pub(super) fn reduce<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &BatchNormGradient,
    [dy, x, scale, bias, mean, inverse_std, dgamma, dbeta]: [Span; 8],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, dy, x, scale, bias, mean, inverse_std, dgamma, dbeta, workspace);
    todo!()
}

pub(super) fn input_gradient<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &BatchNormGradient,
    [dy, x, scale, bias, mean, inverse_std, dgamma, dbeta, dx]: [Span; 9],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, dy, x, scale, bias, mean, inverse_std, dgamma, dbeta, dx, workspace);
    todo!()
}

//! Optimizer steps over whole regions of parameters: launches of `optimizer.cu`.

use super::Cuda;
use super::driver::Driver;
use crate::error::Result;
use crate::ops::{Adam, Sgd};
use crate::tensor::Span;

pub(super) fn sgd<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Sgd,
    [parameters, gradients, velocity, hyper]: [Span; 4],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, parameters, gradients, velocity, hyper, workspace);
    todo!()
}

pub(super) fn adam<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Adam,
    [parameters, gradients, first, second, hyper]: [Span; 5],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, parameters, gradients, first, second, hyper, workspace);
    todo!()
}

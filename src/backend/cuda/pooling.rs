//! Pooling: launches of `pooling.cu`.

use super::Cuda;
use super::driver::Driver;
use crate::error::Result;
use crate::ops::Pool;
use crate::tensor::Span;

pub(super) fn max_pool<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Pool,
    [x, y, argmax]: [Span; 3],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, x, y, argmax, workspace);
    todo!()
}

pub(super) fn max_pool_gradient<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Pool,
    [dy, argmax, dx]: [Span; 3],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, dy, argmax, dx, workspace);
    todo!()
}

pub(super) fn global_average_pool<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Pool,
    [x, y]: [Span; 2],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, x, y, workspace);
    todo!()
}

pub(super) fn global_average_pool_gradient<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Pool,
    [dy, dx]: [Span; 2],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, dy, dx, workspace);
    todo!()
}

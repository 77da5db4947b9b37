//! Passes over elements: launches of `pointwise.cu`.

use super::Cuda;
use super::driver::Driver;
use crate::error::Result;
use crate::ops::{Rows, ShortcutA};
use crate::tensor::Span;

pub(super) fn relu<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Rows,
    [x, y]: [Span; 2],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, x, y, workspace);
    todo!()
}

pub(super) fn relu_gradient<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Rows,
    [y, dy, dx]: [Span; 3],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, y, dy, dx, workspace);
    todo!()
}

pub(super) fn add<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Rows,
    [a, b, y]: [Span; 3],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, a, b, y, workspace);
    todo!()
}

pub(super) fn copy<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Rows,
    [x, y]: [Span; 2],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, x, y, workspace);
    todo!()
}

pub(super) fn cast<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Rows,
    [x, y]: [Span; 2],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, x, y, workspace);
    todo!()
}

pub(super) fn accumulate<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &Rows,
    [x, y]: [Span; 2],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, x, y, workspace);
    todo!()
}

pub(super) fn shortcut_a<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &ShortcutA,
    [x, y]: [Span; 2],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, x, y, workspace);
    todo!()
}

pub(super) fn shortcut_a_gradient<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &ShortcutA,
    [dy, dx]: [Span; 2],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, dy, dx, workspace);
    todo!()
}

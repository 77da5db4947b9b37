//! Convolutions and their gradients.
//!
//! | file | holds |
//! |---|---|
//! | `direct`, `wgrad` | the direct algorithm: fprop and dgrad, wgrad |
//! | `winograd` | Winograd's algorithm for all three, where it needs far fewer products |
//! | `kernel` | the register-blocked inner loops of both |
//! | `taps` | which input a filter tap sees |

mod direct;
mod kernel;
mod taps;
mod wgrad;
mod winograd;

use bytemuck::{cast_slice, cast_slice_mut};

use super::Cpu;
use super::element::Element;
use super::memory::{NOTHING, scratch};
use crate::error::Result;
use crate::ops::{Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad, FpropEpilogue};
use crate::tensor::{DType, Span};

/// Whether Winograd's algorithm computes a convolution and its gradients.
fn is_winograd<T: Element>(conv: &Conv2d) -> bool {
    T::DTYPE == DType::F32 && winograd::fits(conv)
}

/// Bytes of workspace a forward convolution wants.
pub(super) fn fprop_workspace<T: Element>(conv: &Conv2d) -> usize {
    if is_winograd::<T>(conv) { winograd::workspace(conv) } else { direct::forward_workspace::<T>(conv) }
}

/// Bytes of workspace a dgrad wants.
pub(super) fn dgrad_workspace<T: Element>(conv: &Conv2d) -> usize {
    if is_winograd::<T>(conv) { winograd::workspace(conv) } else { direct::dgrad_workspace::<T>(conv) }
}

/// Bytes of workspace a wgrad wants.
pub(super) fn wgrad_workspace<T: Element>(conv: &Conv2d) -> usize {
    if is_winograd::<T>(conv) { winograd::wgrad_workspace(conv) } else { wgrad::workspace::<T>(conv) }
}

/// Forward propagation; bias, residual and rectifier are applied tile by tile.
pub(super) fn conv2d_fprop<T: Element>(
    cpu: &mut Cpu<T>,
    op: &Conv2dFprop<Span>,
    workspace: Span,
) -> Result<()> {
    let epilogue = op.epilogue.and_then(|epilogue| match epilogue {
        FpropEpilogue::Bias(epilogue) => Some(epilogue),
        FpropEpilogue::Statistics(_) => None,
    });
    let bias = epilogue.map_or(NOTHING, |epilogue| epilogue.bias);
    let residual = epilogue.and_then(|epilogue| epilogue.residual).unwrap_or(NOTHING);
    let packed = scratch::<T>(workspace, fprop_workspace::<T>(&op.conv))?;
    let ([x, weight, bias, added], [y, packed]) =
        cpu.memory.slices::<T, _, _>([op.x, op.weight, bias, residual], [op.y, packed])?;
    let residual = epilogue.and_then(|epilogue| epilogue.residual).map(|_| added);
    let relu = epilogue.is_some_and(|epilogue| epilogue.relu);
    if is_winograd::<T>(&op.conv) {
        let epilogue =
            epilogue.map(|_| Epilogue { bias: cast_slice(bias), residual: residual.map(cast_slice), relu });
        let [x, weight] = [x, weight].map(cast_slice);
        let [y, packed] = [y, packed].map(cast_slice_mut);
        winograd::forward(&op.conv, x, weight, epilogue, y, packed, &cpu.scratch);
    } else {
        let epilogue = epilogue.map(|_| Epilogue { bias, residual, relu });
        direct::forward(&op.conv, x, weight, epilogue, y, packed);
    }
    Ok(())
}

/// The gradient with respect to the input (dgrad).
pub(super) fn conv2d_dgrad<T: Element>(
    cpu: &mut Cpu<T>,
    op: &Conv2dDgrad<Span>,
    workspace: Span,
) -> Result<()> {
    let packed = scratch::<T>(workspace, dgrad_workspace::<T>(&op.conv))?;
    let ([dy, weight], [dx, packed]) = cpu.memory.slices::<T, _, _>([op.dy, op.weight], [op.dx, packed])?;
    if is_winograd::<T>(&op.conv) {
        let [dy, weight] = [dy, weight].map(cast_slice);
        let [dx, packed] = [dx, packed].map(cast_slice_mut);
        winograd::dgrad(&op.conv, dy, weight, op.accumulate, dx, packed, &cpu.scratch);
    } else {
        direct::dgrad(&op.conv, dy, weight, op.accumulate, dx, packed);
    }
    Ok(())
}

/// The gradient with respect to the weights (wgrad).
pub(super) fn conv2d_wgrad<T: Element>(
    cpu: &mut Cpu<T>,
    op: &Conv2dWgrad<Span>,
    workspace: Span,
) -> Result<()> {
    let sums = scratch::<T>(workspace, wgrad_workspace::<T>(&op.conv))?;
    let ([x, dy], [dweight, sums]) = cpu.memory.slices::<T, _, _>([op.x, op.dy], [op.dweight, sums])?;
    if is_winograd::<T>(&op.conv) {
        let [x, dy] = [x, dy].map(cast_slice);
        let [dweight, sums] = [dweight, sums].map(cast_slice_mut);
        winograd::wgrad(&op.conv, x, dy, dweight, sums, &cpu.scratch);
    } else {
        wgrad::wgrad(&op.conv, x, dy, dweight, sums);
    }
    Ok(())
}

/// The epilogue on a convolution's raw sums.
struct Epilogue<'a, T> {
    /// Added per output channel.
    pub bias: &'a [T],
    /// Added element by element.
    pub residual: Option<&'a [T]>,
    /// Whether negative results become zero.
    pub relu: bool,
}

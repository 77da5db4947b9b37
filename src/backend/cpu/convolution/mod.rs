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

use std::sync::{Mutex, PoisonError};

use bytemuck::{cast_slice, cast_slice_mut};

use super::batch_norm::{Forward, GradientSums, Layer, Moments};
use super::element::Element;
use super::memory::{NOTHING, scratch};
use super::scratch::Scratch;
use super::{Cpu, pointwise};
use crate::error::Result;
use crate::ops::{
    BiasEpilogue, Call, Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad, FpropEpilogue, StatisticsEpilogue,
};
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

/// Whether a convolution is computed with its epilogue in one call: in f32, where that saves passes over memory. In f64, the
/// reference, every pass is a call of its own.
pub(super) fn fuses<T: Element, B: Copy>(call: &Call<B>) -> bool {
    T::DTYPE == DType::F32
        && match call {
            Call::Conv2dFprop(fprop) => fprop.prologue.is_none() && fprop.epilogue.is_some(),
            Call::Conv2dDgrad(dgrad) => dgrad.epilogue.is_some(),
            _ => false,
        }
}

/// What becomes of a tile's results while they are in cache: `(number of the tile, its first element, its elements)`.
type TileEpilogue<'a, T> = dyn Fn(usize, usize, &mut [T]) + Sync + 'a;

/// Nothing.
fn no_epilogue<T>(_: usize, _: usize, _: &mut [T]) {}

/// Forward propagation; the epilogue is applied tile by tile.
pub(super) fn conv2d_fprop<T: Element>(
    cpu: &mut Cpu<T>,
    op: &Conv2dFprop<Span>,
    workspace: Span,
) -> Result<()> {
    let packed = scratch::<T>(workspace, fprop_workspace::<T>(&op.conv))?;
    if let Some(FpropEpilogue::Statistics(statistics)) = op.epilogue {
        return fprop_with_statistics(cpu, op, &statistics, packed);
    }
    let epilogue = op.epilogue.and_then(|epilogue| match epilogue {
        FpropEpilogue::Bias(epilogue) => Some(epilogue),
        FpropEpilogue::Statistics(_) => None,
    });
    let bias = epilogue.map_or(NOTHING, |epilogue| epilogue.bias);
    let residual = epilogue.and_then(|epilogue| epilogue.residual).unwrap_or(NOTHING);
    let ([x, weight, bias, added], [y, packed]) =
        cpu.memory.slices::<T, _, _>([op.x, op.weight, bias, residual], [op.y, packed])?;
    let epilogue = epilogue.map(|BiasEpilogue { residual, relu, .. }| Epilogue {
        bias,
        residual: residual.map(|_| added),
        relu,
    });
    fprop(&op.conv, [x, weight], epilogue, [y, packed], &cpu.scratch, &no_epilogue);
    Ok(())
}

/// Forward propagation, and the statistics of what it stores.
fn fprop_with_statistics<T: Element>(
    cpu: &mut Cpu<T>,
    op: &Conv2dFprop<Span>,
    s: &StatisticsEpilogue<Span>,
    packed: Span,
) -> Result<()> {
    let reads = [op.x, op.weight, s.gamma, s.beta];
    let writes = [op.y, packed, s.mean, s.inverse_std, s.scale, s.bias, s.running_mean, s.running_variance];
    let ([x, weight, gamma, beta], written) = cpu.memory.slices::<T, _, _>(reads, writes)?;
    let [y, packed, mean, inverse_std, scale, bias, running_mean, running_variance] = written;
    let tiles = InOrder::default();
    fprop(&op.conv, [x, weight], None, [y, packed], &cpu.scratch, &|tile, _, y: &mut [T]| {
        tiles.put(tile, Moments::of_block(y, op.conv.out_channels));
    });
    let layer = Layer { gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance };
    layer.take(s.epsilon, s.momentum, tiles.all());
    Ok(())
}

/// The gradient with respect to the input (dgrad); the epilogue is applied tile by tile.
pub(super) fn conv2d_dgrad<T: Element>(
    cpu: &mut Cpu<T>,
    op: &Conv2dDgrad<Span>,
    workspace: Span,
) -> Result<()> {
    let packed = scratch::<T>(workspace, dgrad_workspace::<T>(&op.conv))?;
    let Some(reduce) = &op.epilogue else {
        let ([dy, weight], [dx, packed]) =
            cpu.memory.slices::<T, _, _>([op.dy, op.weight], [op.dx, packed])?;
        dgrad(&op.conv, [dy, weight], op.accumulate, [dx, packed], &cpu.scratch, &no_epilogue);
        return Ok(());
    };
    let mask = reduce.mask();
    let ([dy, weight, y, x, scale, bias, mean, inverse_std], [dx, packed, dgamma, dbeta]) =
        cpu.memory.slices::<T, _, _>(
            [
                op.dy,
                op.weight,
                mask.unwrap_or(NOTHING),
                reduce.x,
                reduce.scale,
                reduce.bias,
                reduce.mean,
                reduce.inverse_std,
            ],
            [op.dx, packed, reduce.dgamma, reduce.dbeta],
        )?;
    let forward = Forward { scale, bias, mean };
    let relu = reduce.attributes(&op.conv).relu;
    let tiles = InOrder::default();
    dgrad(&op.conv, [dy, weight], op.accumulate, [dx, packed], &cpu.scratch, &|tile, first, dx: &mut [T]| {
        if mask.is_some() {
            pointwise::relu_backward(&y[first..][..dx.len()], dx);
        }
        tiles.put(tile, GradientSums::of_block(dx, &x[first..][..dx.len()], &forward, relu));
    });
    GradientSums::finish(&tiles.all(), inverse_std, dgamma, dbeta);
    Ok(())
}

/// Values of tiles, by the number of the tile.
struct InOrder<V> {
    values: Mutex<Vec<(usize, V)>>,
}

impl<V> Default for InOrder<V> {
    fn default() -> InOrder<V> {
        InOrder { values: Mutex::default() }
    }
}

impl<V> InOrder<V> {
    fn put(&self, tile: usize, value: V) {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).push((tile, value));
    }

    fn all(self) -> Vec<V> {
        let mut values = self.values.into_inner().unwrap_or_else(PoisonError::into_inner);
        values.sort_by_key(|(tile, _)| *tile);
        values.into_iter().map(|(_, value)| value).collect()
    }
}

/// `y = conv(x, weight)` and its epilogue, by the algorithm that suits.
fn fprop<T: Element>(
    conv: &Conv2d,
    [x, weight]: [&[T]; 2],
    epilogue: Option<Epilogue<'_, T>>,
    [y, packed]: [&mut [T]; 2],
    scratch: &Scratch,
    tile_epilogue: &TileEpilogue<'_, T>,
) {
    if !is_winograd::<T>(conv) {
        return direct::forward(conv, [x, weight], epilogue, [y, packed], tile_epilogue);
    }
    let epilogue = epilogue.map(|Epilogue { bias, residual, relu }| Epilogue {
        bias: cast_slice(bias),
        residual: residual.map(cast_slice),
        relu,
    });
    let (read, written) = ([x, weight].map(cast_slice), [y, packed].map(cast_slice_mut));
    winograd::forward(conv, read, epilogue, written, scratch, &|tile, first, values| {
        tile_epilogue(tile, first, cast_slice_mut(values));
    });
}

/// `dx (+)=` the gradient of the input, by the algorithm that suits.
fn dgrad<T: Element>(
    conv: &Conv2d,
    [dy, weight]: [&[T]; 2],
    accumulate: bool,
    [dx, packed]: [&mut [T]; 2],
    scratch: &Scratch,
    tile_epilogue: &TileEpilogue<'_, T>,
) {
    if !is_winograd::<T>(conv) {
        return direct::dgrad(conv, [dy, weight], accumulate, [dx, packed], tile_epilogue);
    }
    let (read, written) = ([dy, weight].map(cast_slice), [dx, packed].map(cast_slice_mut));
    winograd::dgrad(conv, read, accumulate, written, scratch, &|tile, first, values| {
        tile_epilogue(tile, first, cast_slice_mut(values));
    });
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

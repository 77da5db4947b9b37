//! Convolutions as blocked implicit matrix products: the patches of a tile of output pixels are gathered into a buffer
//! that stays in the second-level cache and multiplied by the filters; no whole patch matrix ever exists.
//!
//! The patch of output pixel (n, p, q) is the row (r, s, c) of inputs it sees, in the order of a KRSC filter, zero where
//! it hangs over the edge.

use rayon::prelude::*;

use super::chunks::flat;
use super::element::Element;
use super::matrix::{Matrix, multiply};
use crate::ops::Conv2d;

/// Output pixels whose patches are gathered at a time.
const TILE: usize = 128;

/// What is done with a convolution's raw sums.
pub(super) struct Epilogue<'a, T> {
    /// Added per output channel.
    pub bias: &'a [T],
    /// Added element by element.
    pub residual: Option<&'a [T]>,
    /// Whether negative results become zero.
    pub relu: bool,
}

/// Gathers the patches of the output pixels from `first` on, one row of `patches` each.
fn gather<T: Element>(conv: &Conv2d, x: &[T], first: usize, patches: &mut [T]) {
    let channels = conv.in_channels;
    let (rows, columns) = (conv.out_height(), conv.out_width());
    let filter_row = conv.filter_width * channels;
    for (index, patch) in patches.chunks_exact_mut(conv.filter_elements()).enumerate() {
        let pixel = first + index;
        let image = pixel / (rows * columns);
        let (p, q) = (pixel / columns % rows, pixel % columns);
        // The filter columns s that fall inside the input.
        let left = conv.padding.saturating_sub(q * conv.stride).min(conv.filter_width);
        let right =
            (conv.width + conv.padding).saturating_sub(q * conv.stride).min(conv.filter_width).max(left);
        for (r, patch) in patch.chunks_exact_mut(filter_row).enumerate() {
            let row = (p * conv.stride + r).wrapping_sub(conv.padding);
            if row >= conv.height || left == right {
                patch.fill(T::ZERO);
                continue;
            }
            let from =
                ((image * conv.height + row) * conv.width + q * conv.stride + left - conv.padding) * channels;
            let length = (right - left) * channels;
            patch[..left * channels].fill(T::ZERO);
            patch[left * channels..][..length].copy_from_slice(&x[from..][..length]);
            patch[right * channels..].fill(T::ZERO);
        }
    }
}

/// `y = conv(x, weight)`, followed by the epilogue if there is one.
pub(super) fn forward<T: Element>(
    conv: &Conv2d,
    x: &[T],
    weight: &[T],
    epilogue: Option<Epilogue<'_, T>>,
    y: &mut [T],
) {
    let (channels, filter) = (conv.out_channels, conv.filter_elements());
    y.par_chunks_mut(TILE * channels).enumerate().for_each_init(
        || vec![T::ZERO; TILE * filter],
        |patches, (tile, y)| {
            let pixels = y.len() / channels;
            let patches = &mut patches[..pixels * filter];
            gather(conv, x, tile * TILE, patches);
            let filters = Matrix::transposed(weight, filter);
            multiply([pixels, filter, channels], Matrix::row_major(patches, filter), filters, false, y);
            if let Some(epilogue) = &epilogue {
                finish(epilogue, tile * TILE * channels, y);
            }
        },
    );
}

/// Bias, residual and rectifier for the outputs from element `first` on.
fn finish<T: Element>(epilogue: &Epilogue<'_, T>, first: usize, y: &mut [T]) {
    let channels = epilogue.bias.len();
    for (index, row) in y.chunks_exact_mut(channels).enumerate() {
        for (y, &bias) in row.iter_mut().zip(epilogue.bias) {
            *y += bias;
        }
        if let Some(residual) = epilogue.residual {
            for (y, &residual) in row.iter_mut().zip(&residual[first + index * channels..]) {
                *y += residual;
            }
        }
        if epilogue.relu {
            for y in row {
                *y = y.rectified();
            }
        }
    }
}

/// `dx (+)=` the gradient of the input: each image's patch gradients are added where the patches came from.
pub(super) fn input_gradient<T: Element>(
    conv: &Conv2d,
    dy: &[T],
    weight: &[T],
    accumulate: bool,
    dx: &mut [T],
) {
    let (channels, filter) = (conv.out_channels, conv.filter_elements());
    let out_pixels = conv.out_height() * conv.out_width();
    let image = conv.height * conv.width * conv.in_channels;
    dx.par_chunks_exact_mut(image).zip(dy.par_chunks_exact(out_pixels * channels)).for_each_init(
        || vec![T::ZERO; TILE * filter],
        |patches, (dx, dy)| {
            if !accumulate {
                dx.fill(T::ZERO);
            }
            for (tile, dy) in dy.chunks(TILE * channels).enumerate() {
                let pixels = dy.len() / channels;
                let patches = &mut patches[..pixels * filter];
                let shape = [pixels, channels, filter];
                multiply(
                    shape,
                    Matrix::row_major(dy, channels),
                    Matrix::row_major(weight, filter),
                    false,
                    patches,
                );
                scatter(conv, patches, tile * TILE, dx);
            }
        },
    );
}

/// Adds patches of one image to the inputs they were gathered from; the reverse of [`gather`].
fn scatter<T: Element>(conv: &Conv2d, patches: &[T], first: usize, dx: &mut [T]) {
    let channels = conv.in_channels;
    for (index, patch) in patches.chunks_exact(conv.filter_elements()).enumerate() {
        let (p, q) = ((first + index) / conv.out_width(), (first + index) % conv.out_width());
        for (tap, patch) in patch.chunks_exact(channels).enumerate() {
            let row = (p * conv.stride + tap / conv.filter_width).wrapping_sub(conv.padding);
            let column = (q * conv.stride + tap % conv.filter_width).wrapping_sub(conv.padding);
            if row < conv.height && column < conv.width {
                let dx = &mut dx[(row * conv.width + column) * channels..][..channels];
                for (dx, &patch) in dx.iter_mut().zip(patch) {
                    *dx += patch;
                }
            }
        }
    }
}

/// In how many partial sums the weight gradient is taken; by shape alone. Many for few weights and many pixels, one
/// for many weights and few pixels.
fn partial_sums(conv: &Conv2d) -> usize {
    const PARTIAL_ELEMENTS: usize = 1 << 22;
    let weights = conv.out_channels * conv.filter_elements();
    (PARTIAL_ELEMENTS / weights.max(1)).clamp(1, 16).min(conv.out_pixels().div_ceil(TILE).max(1))
}

/// Bytes of workspace [`weight_gradient`] wants.
pub(super) fn weight_gradient_workspace<T: Element>(conv: &Conv2d) -> usize {
    partial_sums(conv) * conv.out_channels * conv.filter_elements() * T::DTYPE.size()
}

/// `dweight = dyᵀ patches`, as a fixed number of partial sums over runs of tiles, added in order.
pub(super) fn weight_gradient<T: Element>(
    conv: &Conv2d,
    x: &[T],
    dy: &[T],
    dweight: &mut [T],
    workspace: &mut [T],
) {
    let (channels, filter) = (conv.out_channels, conv.filter_elements());
    let tiles = conv.out_pixels().div_ceil(TILE);
    let parts = partial_sums(conv);
    workspace.par_chunks_exact_mut(channels * filter).enumerate().for_each_init(
        || vec![T::ZERO; TILE * filter],
        |patches, (part, sum)| {
            sum.fill(T::ZERO);
            for tile in part * tiles / parts..(part + 1) * tiles / parts {
                let dy = &dy[tile * TILE * channels..];
                let dy = &dy[..dy.len().min(TILE * channels)];
                let pixels = dy.len() / channels;
                let patches = &mut patches[..pixels * filter];
                gather(conv, x, tile * TILE, patches);
                let columns_of_dy = Matrix::transposed(dy, channels);
                multiply(
                    [channels, pixels, filter],
                    columns_of_dy,
                    Matrix::row_major(patches, filter),
                    true,
                    sum,
                );
            }
        },
    );
    dweight.par_chunks_mut(flat()).enumerate().for_each(|(index, dweight)| {
        dweight.fill(T::ZERO);
        for part in workspace.chunks_exact(channels * filter) {
            for (dweight, &part) in dweight.iter_mut().zip(&part[index * flat()..]) {
                *dweight += part;
            }
        }
    });
}

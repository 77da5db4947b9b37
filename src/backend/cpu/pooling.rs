//! Pooling over NHWC images: maximum over windows, mean over all pixels, and their gradients. One task per image.

use rayon::prelude::*;

use super::Cpu;
use super::chunks::vectorised;
use super::element::Element;
use crate::error::Result;
use crate::ops::{GlobalAveragePool, GlobalAveragePoolGradient, MaxPool, MaxPoolGradient, Pool};
use crate::tensor::Span;

/// Maximum of each window and its first position; NaN wins.
pub(super) fn max_pool<T: Element>(cpu: &mut Cpu<T>, op: &MaxPool<Span>, _: Span) -> Result<()> {
    let pool = &op.attributes;
    let ([x], [y, argmax]) = cpu.memory.split([op.x], [op.y, op.argmax])?;
    let (x, y): (&[T], &mut [T]) = (bytemuck::cast_slice(x), bytemuck::cast_slice_mut(y));
    let argmax: &mut [i32] = bytemuck::cast_slice_mut(argmax);
    let (input, output) = per_image(pool);
    let channels = pool.channels;
    let images = y.par_chunks_exact_mut(output).zip(argmax.par_chunks_exact_mut(output));
    images.zip(x.par_chunks_exact(input)).for_each(|((y, argmax), x)| {
        let pixels = y.chunks_exact_mut(channels).zip(argmax.chunks_exact_mut(channels));
        for (pixel, (y, argmax)) in pixels.enumerate() {
            let rows = covered(pixel / pool.out_width(), pool.height, pool);
            let columns = covered(pixel % pool.out_width(), pool.width, pool);
            let mut first = true;
            for row in rows {
                for column in columns.clone() {
                    let position = row * pool.width + column;
                    let x = &x[position * channels..][..channels];
                    take_larger(x, position as i32, first, y, argmax);
                    first = false;
                }
            }
        }
    });
    Ok(())
}

/// Each `dy` added where its maximum was.
pub(super) fn max_pool_gradient<T: Element>(
    cpu: &mut Cpu<T>,
    op: &MaxPoolGradient<Span>,
    _: Span,
) -> Result<()> {
    let ([dy, argmax], [dx]) = cpu.memory.split([op.dy, op.argmax], [op.dx])?;
    let (dy, dx): (&[T], &mut [T]) = (bytemuck::cast_slice(dy), bytemuck::cast_slice_mut(dx));
    let argmax: &[i32] = bytemuck::cast_slice(argmax);
    let (input, output) = per_image(&op.attributes);
    let channels = op.attributes.channels;
    let images = dx.par_chunks_exact_mut(input).zip(dy.par_chunks_exact(output));
    images.zip(argmax.par_chunks_exact(output)).for_each(|((dx, dy), argmax)| {
        dx.fill(T::ZERO);
        for (dy, argmax) in dy.chunks_exact(channels).zip(argmax.chunks_exact(channels)) {
            for (channel, (&dy, &position)) in dy.iter().zip(argmax).enumerate() {
                dx[position as usize * channels + channel] += dy;
            }
        }
    });
    Ok(())
}

/// Mean over all pixels, summed in f64.
pub(super) fn global_average_pool<T: Element>(
    cpu: &mut Cpu<T>,
    op: &GlobalAveragePool<Span>,
    _: Span,
) -> Result<()> {
    let (channels, pixels) = (op.attributes.channels, op.attributes.height * op.attributes.width);
    let ([x], [y]) = cpu.memory.slices::<T, _, _>([op.x], [op.y])?;
    y.par_chunks_exact_mut(channels).zip(x.par_chunks_exact(pixels * channels)).for_each(|(y, x)| {
        let mut sums = vec![0.0; channels];
        vectorised(
            #[inline(always)]
            || {
                for row in x.chunks_exact(channels) {
                    for (sum, &x) in sums.iter_mut().zip(row) {
                        *sum += x.to_f64();
                    }
                }
            },
        );
        for (y, sum) in y.iter_mut().zip(&sums) {
            *y = T::from_f64(sum / pixels as f64);
        }
    });
    Ok(())
}

/// Each pixel gets its share of the mean's gradient.
pub(super) fn global_average_pool_gradient<T: Element>(
    cpu: &mut Cpu<T>,
    op: &GlobalAveragePoolGradient<Span>,
    _: Span,
) -> Result<()> {
    let (channels, pixels) = (op.attributes.channels, op.attributes.height * op.attributes.width);
    let ([dy], [dx]) = cpu.memory.slices::<T, _, _>([op.dy], [op.dx])?;
    let share = T::from_f64(1.0 / pixels as f64);
    dx.par_chunks_exact_mut(pixels * channels).zip(dy.par_chunks_exact(channels)).for_each(|(dx, dy)| {
        for row in dx.chunks_exact_mut(channels) {
            for (dx, &dy) in row.iter_mut().zip(dy) {
                *dx = dy * share;
            }
        }
    });
    Ok(())
}

/// Elements of an image of the input and of the output.
fn per_image(pool: &Pool) -> (usize, usize) {
    (pool.height * pool.width * pool.channels, pool.out_height() * pool.out_width() * pool.channels)
}

/// The input positions `start..end` a window sees along one axis.
fn covered(output: usize, extent: usize, pool: &Pool) -> std::ops::Range<usize> {
    let start = (output * pool.stride).saturating_sub(pool.padding);
    let end = (output * pool.stride + pool.window).saturating_sub(pool.padding).min(extent);
    start..end
}

/// Replaces what is smaller than `x`, or everything at the first position of a window.
fn take_larger<T: Element>(x: &[T], position: i32, first: bool, y: &mut [T], argmax: &mut [i32]) {
    vectorised(
        #[inline(always)]
        || {
            for ((y, argmax), &x) in y.iter_mut().zip(argmax).zip(x) {
                let better = first | (x > *y) | (x.not_a_number() & !y.not_a_number());
                *y = if better { x } else { *y };
                *argmax = if better { position } else { *argmax };
            }
        },
    );
}

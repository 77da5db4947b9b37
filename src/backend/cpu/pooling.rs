//! Pooling over NHWC images: maximum over windows, mean over all pixels, and their gradients. One task per image.

use rayon::prelude::*;

use super::Cpu;
use super::chunks::vectorised;
use super::element::Element;
use super::memory::{integers, operand};
use crate::error::Result;
use crate::ops::Pool;
use crate::tensor::Span;

impl<T: Element> Cpu<T> {
    /// `max_pool` of [`crate::ops::Backend`].
    pub(super) fn maxima(&mut self, pool: &Pool, [x, y, argmax]: [Span; 3]) -> Result<()> {
        let [n_x, n_y] = pool.elements()?;
        let ([x], [y, argmax]) = self.memory.split(
            [operand::<T>("x", x, n_x)],
            [operand::<T>("y", y, n_y), integers("argmax", argmax, n_y)],
        )?;
        let (x, y, argmax) =
            (bytemuck::cast_slice(x), bytemuck::cast_slice_mut(y), bytemuck::cast_slice_mut(argmax));
        self.pool.install(|| max::<T>(pool, x, y, argmax));
        Ok(())
    }

    /// `max_pool_gradient` of [`crate::ops::Backend`].
    pub(super) fn maxima_gradient(&mut self, pool: &Pool, [dy, argmax, dx]: [Span; 3]) -> Result<()> {
        let [n_x, n_y] = pool.elements()?;
        let ([dy, argmax], [dx]) = self.memory.split(
            [operand::<T>("dy", dy, n_y), integers("argmax", argmax, n_y)],
            [operand::<T>("dx", dx, n_x)],
        )?;
        let (dy, argmax, dx) =
            (bytemuck::cast_slice(dy), bytemuck::cast_slice(argmax), bytemuck::cast_slice_mut(dx));
        self.pool.install(|| max_gradient::<T>(pool, dy, argmax, dx));
        Ok(())
    }

    /// `global_average_pool` of [`crate::ops::Backend`].
    pub(super) fn averages(&mut self, pool: &Pool, [x, y]: [Span; 2]) -> Result<()> {
        let [n_x, n_y] = pool.global_elements()?;
        let ([x], [y]) =
            self.memory.slices::<T, 1, 1>([operand::<T>("x", x, n_x)], [operand::<T>("y", y, n_y)])?;
        self.pool.install(|| global_average(pool, x, y));
        Ok(())
    }

    /// `global_average_pool_gradient` of [`crate::ops::Backend`].
    pub(super) fn averages_gradient(&mut self, pool: &Pool, [dy, dx]: [Span; 2]) -> Result<()> {
        let [n_x, n_y] = pool.global_elements()?;
        let ([dy], [dx]) =
            self.memory.slices::<T, 1, 1>([operand::<T>("dy", dy, n_y)], [operand::<T>("dx", dx, n_x)])?;
        self.pool.install(|| global_average_gradient(pool, dy, dx));
        Ok(())
    }
}

/// The input positions `start..end` a window sees along one axis.
fn covered(output: usize, extent: usize, pool: &Pool) -> std::ops::Range<usize> {
    let start = (output * pool.stride).saturating_sub(pool.padding);
    let end = (output * pool.stride + pool.window).saturating_sub(pool.padding).min(extent);
    start..end
}

/// Maximum of each window and its first position; NaN wins.
fn max<T: Element>(pool: &Pool, x: &[T], y: &mut [T], argmax: &mut [i32]) {
    let channels = pool.channels;
    let (input, output) =
        (pool.height * pool.width * channels, pool.out_height() * pool.out_width() * channels);
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

/// Each `dy` added where its maximum was.
fn max_gradient<T: Element>(pool: &Pool, dy: &[T], argmax: &[i32], dx: &mut [T]) {
    let channels = pool.channels;
    let (input, output) =
        (pool.height * pool.width * channels, pool.out_height() * pool.out_width() * channels);
    let images = dx.par_chunks_exact_mut(input).zip(dy.par_chunks_exact(output));
    images.zip(argmax.par_chunks_exact(output)).for_each(|((dx, dy), argmax)| {
        dx.fill(T::ZERO);
        for (dy, argmax) in dy.chunks_exact(channels).zip(argmax.chunks_exact(channels)) {
            for (channel, (&dy, &position)) in dy.iter().zip(argmax).enumerate() {
                dx[position as usize * channels + channel] += dy;
            }
        }
    });
}

/// Mean over all pixels, summed in f64.
fn global_average<T: Element>(pool: &Pool, x: &[T], y: &mut [T]) {
    let (channels, pixels) = (pool.channels, pool.height * pool.width);
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
}

/// Each pixel gets its share of the mean's gradient.
fn global_average_gradient<T: Element>(pool: &Pool, dy: &[T], dx: &mut [T]) {
    let (channels, pixels) = (pool.channels, pool.height * pool.width);
    let share = T::from_f64(1.0 / pixels as f64);
    dx.par_chunks_exact_mut(pixels * channels).zip(dy.par_chunks_exact(channels)).for_each(|(dx, dy)| {
        for row in dx.chunks_exact_mut(channels) {
            for (dx, &dy) in row.iter_mut().zip(dy) {
                *dx = dy * share;
            }
        }
    });
}

//! Element-wise passes over activations: affine maps, rectifiers, sums. All are bound by memory bandwidth, so each reads
//! and writes every element once.

use rayon::prelude::*;

use super::chunks::{flat, vectorised, whole_rows};
use super::element::Element;
use crate::ops::{Rows, ScaleBias};

/// `y = act(scale * x + bias [+ residual])`.
pub(super) fn scale_bias<T: Element>(
    attributes: &ScaleBias,
    x: &[T],
    scale: &[T],
    bias: &[T],
    residual: Option<&[T]>,
    y: &mut [T],
) {
    if attributes.relu {
        affine(attributes, x, scale, bias, residual, y, T::rectified);
    } else {
        affine(attributes, x, scale, bias, residual, y, |value| value);
    }
}

fn affine<T: Element>(
    attributes: &ScaleBias,
    x: &[T],
    scale: &[T],
    bias: &[T],
    residual: Option<&[T]>,
    y: &mut [T],
    activation: impl Fn(T) -> T + Copy + Sync,
) {
    let channels = attributes.extent.channels;
    let chunk = whole_rows(attributes.extent);
    y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).enumerate().for_each(|(index, (y, x))| {
        let residual = residual.map(|residual| &residual[index * chunk..][..y.len()]);
        vectorised(
            #[inline(always)]
            || match residual {
                None => {
                    for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                        for (((y, &x), &scale), &bias) in y.iter_mut().zip(x).zip(scale).zip(bias) {
                            *y = activation(scale * x + bias);
                        }
                    }
                }
                Some(residual) => {
                    let rows = y.chunks_exact_mut(channels).zip(x.chunks_exact(channels));
                    for ((y, x), residual) in rows.zip(residual.chunks_exact(channels)) {
                        let row = y.iter_mut().zip(x).zip(residual);
                        for ((((y, &x), &residual), &scale), &bias) in row.zip(scale).zip(bias) {
                            *y = activation(scale * x + bias + residual);
                        }
                    }
                }
            },
        );
    });
}

/// `y[i] = f(x[i])`.
pub(super) fn map<T: Element>(x: &[T], y: &mut [T], f: impl Fn(T) -> T + Sync) {
    y.par_chunks_mut(flat()).zip(x.par_chunks(flat())).for_each(|(y, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = f(x);
                }
            },
        );
    });
}

/// `y[i] = f(a[i], b[i])`.
pub(super) fn map2<T: Element>(a: &[T], b: &[T], y: &mut [T], f: impl Fn(T, T) -> T + Sync) {
    y.par_chunks_mut(flat()).zip(a.par_chunks(flat())).zip(b.par_chunks(flat())).for_each(|((y, a), b)| {
        vectorised(
            #[inline(always)]
            || {
                for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                    *y = f(a, b);
                }
            },
        );
    });
}

/// `x[n, c] *= weights[n]`.
pub(super) fn weigh_rows<T: Element>(extent: &Rows, weights: &[T], x: &mut [T]) {
    for (row, &weight) in x.chunks_exact_mut(extent.channels).zip(weights) {
        row.iter_mut().for_each(|x| *x = *x * weight);
    }
}

/// The gradient `dy` where the rectified value `y` is positive, else zero.
pub(super) fn passed<T: Element>(y: T, dy: T) -> T {
    if y > T::ZERO { dy } else { T::ZERO }
}

/// `y[i] = f(x[i], y[i])`.
pub(super) fn update<T: Element>(x: &[T], y: &mut [T], f: impl Fn(T, T) -> T + Sync) {
    y.par_chunks_mut(flat()).zip(x.par_chunks(flat())).for_each(|(y, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = f(x, *y);
                }
            },
        );
    });
}

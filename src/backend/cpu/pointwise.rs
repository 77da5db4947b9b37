//! Element-wise passes over activations: affine maps, rectifiers, sums. All are bound by memory bandwidth, so each reads
//! and writes every element once.

use rayon::prelude::*;

use super::chunks::{flat, vectorised, whole_rows};
use super::element::Element;
use super::{Cpu, shortcut};
use crate::error::Result;
use crate::ops::{
    Accumulate, Add, Cast, CopyRows, Relu, ReluGradient, ReluGradientInPlace, ScaleBias, ShortcutAForward,
    ShortcutAGradient,
};
use crate::tensor::Span;

pub(super) fn relu<T: Element>(cpu: &mut Cpu<T>, op: &Relu<Span>, _: Span) -> Result<()> {
    map(cpu, op.x, op.y, T::rectified)
}

pub(super) fn relu_gradient<T: Element>(cpu: &mut Cpu<T>, op: &ReluGradient<Span>, _: Span) -> Result<()> {
    map2(cpu, [op.y, op.dy], op.dx, passed)
}

pub(super) fn relu_gradient_in_place<T: Element>(
    cpu: &mut Cpu<T>,
    op: &ReluGradientInPlace<Span>,
    _: Span,
) -> Result<()> {
    update(cpu, op.y, op.x, passed)
}

pub(super) fn add<T: Element>(cpu: &mut Cpu<T>, op: &Add<Span>, _: Span) -> Result<()> {
    map2(cpu, [op.a, op.b], op.y, |a, b| a + b)
}

pub(super) fn copy<T: Element>(cpu: &mut Cpu<T>, op: &CopyRows<Span>, _: Span) -> Result<()> {
    map(cpu, op.x, op.y, |value| value)
}

/// Copies: the working type is its own accumulator.
pub(super) fn cast<T: Element>(cpu: &mut Cpu<T>, op: &Cast<Span>, _: Span) -> Result<()> {
    map(cpu, op.x, op.y, |value| value)
}

pub(super) fn accumulate<T: Element>(cpu: &mut Cpu<T>, op: &Accumulate<Span>, _: Span) -> Result<()> {
    update(cpu, op.x, op.y, |x, y| y + x)
}

pub(super) fn shortcut_a<T: Element>(cpu: &mut Cpu<T>, op: &ShortcutAForward<Span>, _: Span) -> Result<()> {
    let ([x], [y]) = cpu.memory.slices::<T, _, _>([op.x], [op.y])?;
    shortcut::forward(&op.attributes, x, y);
    Ok(())
}

pub(super) fn shortcut_a_gradient<T: Element>(
    cpu: &mut Cpu<T>,
    op: &ShortcutAGradient<Span>,
    _: Span,
) -> Result<()> {
    let ([dy], [dx]) = cpu.memory.slices::<T, _, _>([op.dy], [op.dx])?;
    shortcut::gradient(&op.attributes, dy, dx);
    Ok(())
}

/// `y = act(scale * x + bias [+ residual])`.
pub(super) fn affine<T: Element>(
    attributes: &ScaleBias,
    x: &[T],
    scale: &[T],
    bias: &[T],
    residual: Option<&[T]>,
    y: &mut [T],
) {
    if attributes.relu {
        affine_rows(attributes, x, scale, bias, residual, y, T::rectified);
    } else {
        affine_rows(attributes, x, scale, bias, residual, y, |value| value);
    }
}

fn affine_rows<T: Element>(
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
fn map<T: Element>(cpu: &mut Cpu<T>, x: Span, y: Span, f: impl Fn(T) -> T + Send + Sync) -> Result<()> {
    let ([x], [y]) = cpu.memory.slices::<T, _, _>([x], [y])?;
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
    Ok(())
}

/// `y[i] = f(a[i], b[i])`.
fn map2<T: Element>(
    cpu: &mut Cpu<T>,
    [a, b]: [Span; 2],
    y: Span,
    f: impl Fn(T, T) -> T + Send + Sync,
) -> Result<()> {
    let ([a, b], [y]) = cpu.memory.slices::<T, _, _>([a, b], [y])?;
    let pieces = y.par_chunks_mut(flat()).zip(a.par_chunks(flat())).zip(b.par_chunks(flat()));
    pieces.for_each(|((y, a), b)| {
        vectorised(
            #[inline(always)]
            || {
                for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                    *y = f(a, b);
                }
            },
        );
    });
    Ok(())
}

/// `y[i] = f(x[i], y[i])`.
fn update<T: Element>(cpu: &mut Cpu<T>, x: Span, y: Span, f: impl Fn(T, T) -> T + Send + Sync) -> Result<()> {
    let ([x], [y]) = cpu.memory.slices::<T, _, _>([x], [y])?;
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
    Ok(())
}

/// ReLU backward on a piece of memory that is in cache: `x = 0` where the rectified value `y` is not positive.
pub(super) fn relu_backward<T: Element>(y: &[T], x: &mut [T]) {
    vectorised(
        #[inline(always)]
        || {
            for (x, &y) in x.iter_mut().zip(y) {
                *x = passed(y, *x);
            }
        },
    );
}

/// The gradient `dy` where the rectified value `y` is positive, else zero.
fn passed<T: Element>(y: T, dy: T) -> T {
    if y > T::ZERO { dy } else { T::ZERO }
}

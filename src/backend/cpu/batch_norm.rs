//! Batch normalisation (Ioffe & Szegedy 2015): statistics, the affine map they give, and the two halves of the gradient.
//!
//! Statistics are taken block by block, mean first and then the squared deviations from it, in f64, and the blocks are
//! merged in order by Chan, Golub & LeVeque's formula (1979). A block's size depends on the shape alone.

use rayon::prelude::*;

use super::chunks::{vectorised, whole_rows};
use super::element::Element;
use super::{Cpu, pointwise};
use crate::error::Result;
use crate::ops::{
    BatchNormFold, BatchNormFrozen, BatchNormGradient, BatchNormInputGradient, BatchNormReduce,
    BatchNormStatistics, Rows, ScaleBiasForward, ScaleBiasResidual,
};
use crate::tensor::Span;

/// Elements of a block: 64 KB of f32, read twice, the second time from cache.
fn block_elements(extent: Rows) -> usize {
    whole_rows(extent)
}

/// Channels whose sums stay in registers while rows go by.
const GROUP: usize = 16;

/// The `N` channels of a row from `first` on.
#[inline(always)]
fn lanes<T, const N: usize>(row: &[T], first: usize) -> &[T; N] {
    row[first..].first_chunk().expect("channels of a row")
}

/// Mean and sum of squared deviations of some rows, per channel.
pub(super) struct Moments {
    count: f64,
    mean: Vec<f64>,
    deviations: Vec<f64>,
}

impl Moments {
    pub(super) fn of_block<T: Element>(x: &[T], channels: usize) -> Moments {
        let count = (x.len() / channels) as f64;
        let (mut mean, mut deviations) = (vec![0.0; channels], vec![0.0; channels]);
        vectorised(
            #[inline(always)]
            || {
                let grouped = channels - channels % GROUP;
                for first in (0..grouped).step_by(GROUP) {
                    moments_of::<T, GROUP>(x, channels, first, &mut mean, &mut deviations);
                }
                for channel in grouped..channels {
                    moments_of::<T, 1>(x, channels, channel, &mut mean, &mut deviations);
                }
            },
        );
        Moments { count, mean, deviations }
    }

    /// The moments of both parts together.
    fn merge(mut self, other: &Moments) -> Moments {
        let count = self.count + other.count;
        let share = other.count / count;
        for channel in 0..self.mean.len() {
            let difference = other.mean[channel] - self.mean[channel];
            self.mean[channel] += difference * share;
            self.deviations[channel] +=
                other.deviations[channel] + difference * difference * self.count * share;
        }
        self.count = count;
        self
    }
}

/// Sums over rows of `term(lane, value)` of `N` channels, four rows at a time.
#[inline(always)]
fn sums_of<T: Element, const N: usize>(
    x: &[T],
    channels: usize,
    first: usize,
    term: impl Fn(usize, f64) -> f64,
) -> [f64; N] {
    let mut sums = [0.0; N];
    let mut rows = x.chunks_exact(4 * channels);
    for rows in &mut rows {
        let [a, b, c, d]: [&[T; N]; 4] =
            [0, 1, 2, 3].map(|row| lanes(&rows[row * channels..][..channels], first));
        for lane in 0..N {
            let term = |row: &[T; N]| term(lane, row[lane].to_f64());
            sums[lane] += (term(a) + term(b)) + (term(c) + term(d));
        }
    }
    for row in rows.remainder().chunks_exact(channels) {
        let row: &[T; N] = lanes(row, first);
        for lane in 0..N {
            sums[lane] += term(lane, row[lane].to_f64());
        }
    }
    sums
}

/// Mean and squared deviations of `N` channels.
#[inline(always)]
fn moments_of<T: Element, const N: usize>(
    x: &[T],
    channels: usize,
    first: usize,
    mean: &mut [f64],
    deviations: &mut [f64],
) {
    let count = (x.len() / channels) as f64;
    let mut means: [f64; N] = sums_of(x, channels, first, |_, value| value);
    for mean in &mut means {
        *mean /= count;
    }
    let squares: [f64; N] = sums_of(x, channels, first, |lane, value| {
        let deviation = value - means[lane];
        deviation * deviation
    });
    mean[first..][..N].copy_from_slice(&means);
    deviations[first..][..N].copy_from_slice(&squares);
}

pub(super) fn batch_norm_statistics<T: Element>(
    cpu: &mut Cpu<T>,
    op: &BatchNormStatistics<Span>,
    _: Span,
) -> Result<()> {
    let attributes = &op.attributes;
    let channels = attributes.extent.channels;
    let ([x, gamma, beta], [mean, inverse_std, scale, bias, running_mean, running_variance]) =
        cpu.memory.slices::<T, _, _>(
            [op.x, op.gamma, op.beta],
            [op.mean, op.inverse_std, op.scale, op.bias, op.running_mean, op.running_variance],
        )?;
    let blocks = x.par_chunks(block_elements(attributes.extent));
    let blocks: Vec<Moments> = blocks.map(|block| Moments::of_block(block, channels)).collect();
    let layer = Layer { gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance };
    layer.take(attributes.epsilon, attributes.momentum, blocks);
    Ok(())
}

/// What a layer's statistics are made into.
pub(super) struct Layer<'a, T> {
    pub gamma: &'a [T],
    pub beta: &'a [T],
    pub mean: &'a mut [T],
    pub inverse_std: &'a mut [T],
    pub scale: &'a mut [T],
    pub bias: &'a mut [T],
    pub running_mean: &'a mut [T],
    pub running_variance: &'a mut [T],
}

impl<T: Element> Layer<'_, T> {
    /// Takes the statistics of blocks of rows, merged in order.
    pub(super) fn take(self, epsilon: f64, momentum: f64, blocks: impl IntoIterator<Item = Moments>) {
        let Some(moments) = blocks.into_iter().reduce(|merged, block| merged.merge(&block)) else {
            return;
        };
        let step = |running: T, new: f64| T::from_f64((1.0 - momentum) * running.to_f64() + momentum * new);
        for channel in 0..self.gamma.len() {
            let batch_mean = moments.mean[channel];
            let variance = moments.deviations[channel] / moments.count;
            // A single row has no spread: its unbiased variance would be 0 / 0.
            let unbiased = moments.deviations[channel] / (moments.count - 1.0).max(1.0);
            let map = affine_map(epsilon, batch_mean, variance, self.gamma[channel], self.beta[channel]);
            self.mean[channel] = T::from_f64(batch_mean);
            (self.inverse_std[channel], self.scale[channel], self.bias[channel]) = map;
            self.running_mean[channel] = step(self.running_mean[channel], batch_mean);
            self.running_variance[channel] = step(self.running_variance[channel], unbiased);
        }
    }
}

/// (inverse standard deviation, scale, bias) of one channel.
fn affine_map<T: Element>(epsilon: f64, mean: f64, variance: f64, gamma: T, beta: T) -> (T, T, T) {
    let inverse_std = 1.0 / (variance + epsilon).sqrt();
    let scale = gamma.to_f64() * inverse_std;
    let bias = beta.to_f64() - mean * scale;
    (T::from_f64(inverse_std), T::from_f64(scale), T::from_f64(bias))
}

/// The parameters and running statistics of a layer.
struct Parameters<'a, T> {
    gamma: &'a [T],
    beta: &'a [T],
    running_mean: &'a [T],
    running_variance: &'a [T],
}

impl<T: Element> Parameters<'_, T> {
    fn affine_map(&self, epsilon: f64, channel: usize) -> (T, T, T) {
        let (mean, variance) = (self.running_mean[channel].to_f64(), self.running_variance[channel].to_f64());
        affine_map(epsilon, mean, variance, self.gamma[channel], self.beta[channel])
    }
}

pub(super) fn batch_norm_frozen<T: Element>(
    cpu: &mut Cpu<T>,
    op: &BatchNormFrozen<Span>,
    _: Span,
) -> Result<()> {
    let ([gamma, beta, running_mean, running_variance], [inverse_std, scale, bias]) =
        cpu.memory.slices::<T, _, _>(
            [op.gamma, op.beta, op.running_mean, op.running_variance],
            [op.inverse_std, op.scale, op.bias],
        )?;
    let parameters = Parameters { gamma, beta, running_mean, running_variance };
    for channel in 0..op.attributes.extent.channels {
        (inverse_std[channel], scale[channel], bias[channel]) =
            parameters.affine_map(op.attributes.epsilon, channel);
    }
    Ok(())
}

pub(super) fn batch_norm_fold<T: Element>(cpu: &mut Cpu<T>, op: &BatchNormFold<Span>, _: Span) -> Result<()> {
    let ([weight, gamma, beta, running_mean, running_variance], [folded, bias]) =
        cpu.memory.slices::<T, _, _>(
            [op.weight, op.gamma, op.beta, op.running_mean, op.running_variance],
            [op.folded, op.bias],
        )?;
    let parameters = Parameters { gamma, beta, running_mean, running_variance };
    let filter = op.attributes.extent.channels;
    for (channel, (folded, weight)) in
        folded.chunks_exact_mut(filter).zip(weight.chunks_exact(filter)).enumerate()
    {
        let (_, scale, shift) = parameters.affine_map(op.attributes.epsilon, channel);
        bias[channel] = shift;
        for (folded, &weight) in folded.iter_mut().zip(weight) {
            *folded = weight * scale;
        }
    }
    Ok(())
}

pub(super) fn scale_bias<T: Element>(cpu: &mut Cpu<T>, op: &ScaleBiasForward<Span>, _: Span) -> Result<()> {
    let ([x, scale, bias], [y]) = cpu.memory.slices::<T, _, _>([op.x, op.scale, op.bias], [op.y])?;
    pointwise::affine(&op.attributes, x, scale, bias, None, y);
    Ok(())
}

pub(super) fn scale_bias_residual<T: Element>(
    cpu: &mut Cpu<T>,
    op: &ScaleBiasResidual<Span>,
    _: Span,
) -> Result<()> {
    let ([x, scale, bias, residual], [y]) =
        cpu.memory.slices::<T, _, _>([op.x, op.scale, op.bias, op.residual], [op.y])?;
    pointwise::affine(&op.attributes, x, scale, bias, Some(residual), y);
    Ok(())
}

/// The forward pass's per-channel numbers, as its gradient needs them.
pub(super) struct Forward<'a, T> {
    pub scale: &'a [T],
    pub bias: &'a [T],
    pub mean: &'a [T],
}

/// Per channel, over some rows, the sums of `d` and `d * (x - mean)`.
pub(super) struct GradientSums {
    d: Vec<f64>,
    dx: Vec<f64>,
}

impl GradientSums {
    /// Of some rows; `d` is `dy`, under a rectifier only where `scale * x + bias` is positive.
    pub(super) fn of_block<T: Element>(
        dy: &[T],
        x: &[T],
        forward: &Forward<'_, T>,
        relu: bool,
    ) -> GradientSums {
        let channels = forward.mean.len();
        let mut sums = GradientSums { d: vec![0.0; channels], dx: vec![0.0; channels] };
        vectorised(
            #[inline(always)]
            || {
                if relu {
                    sums.add(dy, x, forward, |d, affine| if affine > T::ZERO { d } else { T::ZERO });
                } else {
                    sums.add(dy, x, forward, |d, _| d);
                }
            },
        );
        sums
    }

    /// `gate(dy, scale * x + bias)` gives d.
    #[inline(always)]
    fn add<T: Element>(&mut self, dy: &[T], x: &[T], forward: &Forward<'_, T>, gate: impl Fn(T, T) -> T) {
        let channels = self.d.len();
        for (dy, x) in dy.chunks_exact(channels).zip(x.chunks_exact(channels)) {
            let affine = forward.scale.iter().zip(forward.bias).zip(forward.mean);
            for (((&dy, &x), ((&scale, &bias), &mean)), (sum_d, sum_dx)) in
                dy.iter().zip(x).zip(affine).zip(self.d.iter_mut().zip(&mut self.dx))
            {
                let d = gate(dy, scale * x + bias).to_f64();
                *sum_d += d;
                *sum_dx += d * (x.to_f64() - mean.to_f64());
            }
        }
    }

    /// The gradients of the layer's parameters, from the sums of blocks of rows, added in order.
    pub(super) fn finish<T: Element>(
        blocks: &[GradientSums],
        inverse_std: &[T],
        dgamma: &mut [T],
        dbeta: &mut [T],
    ) {
        for channel in 0..inverse_std.len() {
            let (mut sum_d, mut sum_dx) = (0.0, 0.0);
            for block in blocks {
                sum_d += block.d[channel];
                sum_dx += block.dx[channel];
            }
            dbeta[channel] = T::from_f64(sum_d);
            dgamma[channel] = T::from_f64(sum_dx * inverse_std[channel].to_f64());
        }
    }
}

/// `dbeta = sum of d`, `dgamma = sum of d * x̂`.
pub(super) fn batch_norm_reduce<T: Element>(
    cpu: &mut Cpu<T>,
    op: &BatchNormReduce<Span>,
    _: Span,
) -> Result<()> {
    let attributes = &op.attributes;
    let ([dy, x, scale, bias, mean, inverse_std], [dgamma, dbeta]) = cpu.memory.slices::<T, _, _>(
        [op.dy, op.x, op.scale, op.bias, op.mean, op.inverse_std],
        [op.dgamma, op.dbeta],
    )?;
    let forward = Forward { scale, bias, mean };
    let block = block_elements(attributes.extent);
    let sums_of_block = |(dy, x): (&[T], &[T])| GradientSums::of_block(dy, x, &forward, attributes.relu);
    let sums: Vec<GradientSums> = dy.par_chunks(block).zip(x.par_chunks(block)).map(sums_of_block).collect();
    GradientSums::finish(&sums, inverse_std, dgamma, dbeta);
    Ok(())
}

/// `dx = scale * (d - dbeta/rows - x̂ * dgamma/rows)`, or `scale * d` when frozen.
pub(super) fn batch_norm_input_gradient<T: Element>(
    cpu: &mut Cpu<T>,
    op: &BatchNormInputGradient<Span>,
    _: Span,
) -> Result<()> {
    let attributes = &op.attributes;
    let ([dy, x, scale, bias, mean, inverse_std, dgamma, dbeta], [dx]) = cpu.memory.slices::<T, _, _>(
        [op.dy, op.x, op.scale, op.bias, op.mean, op.inverse_std, op.dgamma, op.dbeta],
        [op.dx],
    )?;
    let forward = Forward { scale, bias, mean };
    // dx = scale * d + slope * (x - mean) + offset, with numbers per channel.
    let channels = attributes.extent.channels;
    let rows = attributes.extent.rows as f64;
    let (mut slope, mut offset) = (vec![T::ZERO; channels], vec![T::ZERO; channels]);
    if !attributes.frozen {
        for channel in 0..channels {
            let scale = scale[channel].to_f64();
            slope[channel] =
                T::from_f64(-scale * inverse_std[channel].to_f64() * dgamma[channel].to_f64() / rows);
            offset[channel] = T::from_f64(-scale * dbeta[channel].to_f64() / rows);
        }
    }
    if attributes.relu {
        input_gradient_rows(attributes, dy, x, &forward, &slope, &offset, dx, |d, affine| {
            if affine > T::ZERO { d } else { T::ZERO }
        });
    } else {
        input_gradient_rows(attributes, dy, x, &forward, &slope, &offset, dx, |d, _| d);
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn input_gradient_rows<T: Element>(
    attributes: &BatchNormGradient,
    dy: &[T],
    x: &[T],
    forward: &Forward<'_, T>,
    slope: &[T],
    offset: &[T],
    dx: &mut [T],
    gate: impl Fn(T, T) -> T + Copy + Sync,
) {
    let channels = attributes.extent.channels;
    let chunk = whole_rows(attributes.extent);
    dx.par_chunks_mut(chunk).zip(dy.par_chunks(chunk)).zip(x.par_chunks(chunk)).for_each(|((dx, dy), x)| {
        vectorised(
            #[inline(always)]
            || {
                let rows = dx.chunks_exact_mut(channels).zip(dy.chunks_exact(channels));
                for ((dx, dy), x) in rows.zip(x.chunks_exact(channels)) {
                    if attributes.frozen {
                        frozen_row(dx, dy, x, forward, gate);
                    } else {
                        input_gradient_row(dx, dy, x, forward, slope, offset, gate);
                    }
                }
            },
        );
    });
}

#[inline(always)]
fn input_gradient_row<T: Element>(
    dx: &mut [T],
    dy: &[T],
    x: &[T],
    forward: &Forward<'_, T>,
    slope: &[T],
    offset: &[T],
    gate: impl Fn(T, T) -> T,
) {
    let inputs = dx.iter_mut().zip(dy).zip(x);
    let affine = forward.scale.iter().zip(forward.bias).zip(forward.mean);
    for ((((dx, &dy), &x), ((&scale, &bias), &mean)), (&slope, &offset)) in
        inputs.zip(affine).zip(slope.iter().zip(offset))
    {
        *dx = scale * gate(dy, scale * x + bias) + slope * (x - mean) + offset;
    }
}

/// Frozen statistics pass nothing on, not even 0 * infinity.
#[inline(always)]
fn frozen_row<T: Element>(
    dx: &mut [T],
    dy: &[T],
    x: &[T],
    forward: &Forward<'_, T>,
    gate: impl Fn(T, T) -> T,
) {
    for (((dx, &dy), &x), (&scale, &bias)) in
        dx.iter_mut().zip(dy).zip(x).zip(forward.scale.iter().zip(forward.bias))
    {
        *dx = scale * gate(dy, scale * x + bias);
    }
}

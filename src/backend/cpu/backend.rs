//! [`Backend`] for the CPU: each method checks its operands and hands slices to the kernel.

use super::batch_norm::{self, Forward, Parameters, Statistics};
use super::convolution;
use super::element::Element;
use super::memory::{Memory, operand};
use super::{Cpu, pointwise, shortcut, weight_gradient};
use crate::error::Result;
use crate::ops::{
    Adam, Backend, BatchNorm, BatchNormGradient, Call, ClassGroups, Conv2d, Conv2dBatchNorm, Conv2dGradient,
    Conv2dGradientReduce, Conv2dInference, Conv2dScaled, Conv2dScaledBatchNorm, Cosine, CrossEntropy,
    EnergyMargin, ImageBatch, KlDivergence, Linear, Pool, PoolHead, Rows, ScaleBias, Sgd, ShortcutA,
    StepTotals,
};
use crate::tensor::Span;

/// Operands of the working type, each a variable of its own name, with the number of elements it must have.
macro_rules! operands {
    ($($name:ident: $elements:expr),*) => { [$(operand::<T>(stringify!($name), $name, $elements)),*] };
}

impl<T: Element> Backend for Cpu<T> {
    fn workspace_bytes(&self, call: &Call<()>) -> usize {
        match call {
            Call::Conv2dForward { attributes, .. } => convolution::forward_workspace::<T>(attributes),
            Call::Conv2dBias { attributes, .. } => convolution::forward_workspace::<T>(&attributes.conv),
            Call::Conv2dBiasResidual { attributes, .. } => {
                convolution::forward_workspace::<T>(&attributes.conv)
            }
            Call::Conv2dInputGradient { attributes, .. } => {
                convolution::input_gradient_workspace::<T>(&attributes.conv)
            }
            Call::Conv2dBatchNormStatistics { attributes, .. } => {
                convolution::forward_workspace::<T>(&attributes.conv)
            }
            Call::Conv2dScaledForward { attributes, .. } => {
                attributes.room_bytes(T::DTYPE) + convolution::forward_workspace::<T>(&attributes.conv)
            }
            Call::Conv2dScaledWeightGradient { attributes, .. } => {
                attributes.room_bytes(T::DTYPE) + weight_gradient::workspace::<T>(&attributes.conv)
            }
            Call::Conv2dScaledBatchNormStatistics { attributes, .. } => {
                let scaled = attributes.scaled();
                scaled.room_bytes(T::DTYPE) + convolution::forward_workspace::<T>(&scaled.conv)
            }
            Call::Conv2dInputGradientReduce { attributes, .. } => {
                convolution::input_gradient_workspace::<T>(&attributes.gradient.conv)
            }
            Call::Conv2dInputGradientMaskReduce { attributes, .. } => {
                convolution::input_gradient_workspace::<T>(&attributes.conv)
            }
            Call::Conv2dWeightGradient { attributes, .. } => weight_gradient::workspace::<T>(attributes),
            _ => 0,
        }
    }

    fn conv2d_forward(
        &self,
        memory: &mut Memory,
        conv: &Conv2d,
        operands: [Span; 3],
        workspace: Span,
    ) -> Result<()> {
        self.convolution(memory, conv, operands, workspace)
    }

    fn conv2d_bias(
        &self,
        memory: &mut Memory,
        attributes: &Conv2dInference,
        [x, weight, bias, y]: [Span; 4],
        workspace: Span,
    ) -> Result<()> {
        self.convolve(memory, attributes, [x, weight, bias], None, y, workspace)
    }

    fn conv2d_bias_residual(
        &self,
        memory: &mut Memory,
        attributes: &Conv2dInference,
        [x, weight, bias, residual, y]: [Span; 5],
        workspace: Span,
    ) -> Result<()> {
        self.convolve(memory, attributes, [x, weight, bias], Some(residual), y, workspace)
    }

    fn conv2d_input_gradient(
        &self,
        memory: &mut Memory,
        attributes: &Conv2dGradient,
        operands: [Span; 3],
        workspace: Span,
    ) -> Result<()> {
        self.convolution_to_input(memory, attributes, operands, workspace)
    }

    fn conv2d_weight_gradient(
        &self,
        memory: &mut Memory,
        conv: &Conv2d,
        operands: [Span; 3],
        workspace: Span,
    ) -> Result<()> {
        self.convolution_to_weight(memory, conv, operands, workspace)
    }

    fn conv2d_batch_norm_statistics(
        &self,
        memory: &mut Memory,
        attributes: &Conv2dBatchNorm,
        [x, weight, y, others @ ..]: [Span; 11],
        workspace: Span,
    ) -> Result<()> {
        let [gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance] = others;
        self.conv2d_forward(memory, &attributes.conv, [x, weight, y], workspace)?;
        let operands = [y, gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance];
        self.batch_norm_statistics(memory, &attributes.norm(), operands, workspace)
    }

    fn conv2d_scaled(
        &self,
        memory: &mut Memory,
        scaled: &Conv2dScaled,
        [x, scale, bias, weight, y]: [Span; 5],
        workspace: Span,
    ) -> Result<()> {
        let [z, workspace] = scaled.room(T::DTYPE, workspace)?;
        self.scale_bias(memory, &scaled.map(), [x, scale, bias, z], workspace)?;
        self.conv2d_forward(memory, &scaled.conv, [z, weight, y], workspace)
    }

    fn conv2d_scaled_weight_gradient(
        &self,
        memory: &mut Memory,
        scaled: &Conv2dScaled,
        [x, scale, bias, dy, dweight]: [Span; 5],
        workspace: Span,
    ) -> Result<()> {
        let [z, workspace] = scaled.room(T::DTYPE, workspace)?;
        self.scale_bias(memory, &scaled.map(), [x, scale, bias, z], workspace)?;
        self.conv2d_weight_gradient(memory, &scaled.conv, [z, dy, dweight], workspace)
    }

    fn conv2d_scaled_batch_norm_statistics(
        &self,
        memory: &mut Memory,
        attributes: &Conv2dScaledBatchNorm,
        [x, input_scale, input_bias, weight, y, others @ ..]: [Span; 13],
        workspace: Span,
    ) -> Result<()> {
        let [gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance] = others;
        let spans = [x, input_scale, input_bias, weight, y];
        self.conv2d_scaled(memory, &attributes.scaled(), spans, workspace)?;
        let operands = [y, gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance];
        self.batch_norm_statistics(memory, &attributes.behind.norm(), operands, workspace)
    }

    fn conv2d_input_gradient_reduce(
        &self,
        memory: &mut Memory,
        attributes: &Conv2dGradientReduce,
        [dy, weight, x, scale, bias, mean, inverse_std, dx, dgamma, dbeta]: [Span; 10],
        workspace: Span,
    ) -> Result<()> {
        let Conv2dGradientReduce { gradient, relu } = attributes;
        self.conv2d_input_gradient(memory, gradient, [dy, weight, dx], workspace)?;
        let operands = [dx, x, scale, bias, mean, inverse_std, dgamma, dbeta];
        self.batch_norm_reduce(memory, &gradient.reduce(*relu), operands, workspace)
    }

    fn conv2d_input_gradient_mask_reduce(
        &self,
        memory: &mut Memory,
        gradient: &Conv2dGradient,
        [dy, weight, y, x, scale, bias, mean, inverse_std, dx, dgamma, dbeta]: [Span; 11],
        workspace: Span,
    ) -> Result<()> {
        self.conv2d_input_gradient(memory, gradient, [dy, weight, dx], workspace)?;
        self.mask(memory, &gradient.conv.inputs(), [y, dx])?;
        let operands = [dx, x, scale, bias, mean, inverse_std, dgamma, dbeta];
        self.batch_norm_reduce(memory, &gradient.reduce(false), operands, workspace)
    }

    fn batch_norm_statistics(
        &self,
        memory: &mut Memory,
        attributes: &BatchNorm,
        [x, gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance]: [Span; 9],
        _: Span,
    ) -> Result<()> {
        let (n, c) = (attributes.extent.elements()?, attributes.extent.channels);
        let ([x, gamma, beta], [mean, inverse_std, scale, bias, running_mean, running_variance]) = memory
            .slices::<T, 3, 6>(
                operands!(x: n, gamma: c, beta: c),
                operands!(mean: c, inverse_std: c, scale: c, bias: c, running_mean: c, running_variance: c),
            )?;
        let out = Statistics { mean, inverse_std, scale, bias, running_mean, running_variance };
        self.pool.install(|| batch_norm::statistics(attributes, x, gamma, beta, out));
        Ok(())
    }

    fn batch_norm_frozen(
        &self,
        memory: &mut Memory,
        attributes: &BatchNorm,
        [gamma, beta, running_mean, running_variance, inverse_std, scale, bias]: [Span; 7],
        _: Span,
    ) -> Result<()> {
        let c = attributes.extent.channels;
        let ([gamma, beta, running_mean, running_variance], [inverse_std, scale, bias]) = memory
            .slices::<T, 4, 3>(
                operands!(gamma: c, beta: c, running_mean: c, running_variance: c),
                operands!(inverse_std: c, scale: c, bias: c),
            )?;
        let parameters = Parameters { gamma, beta, running_mean, running_variance };
        batch_norm::frozen(attributes, &parameters, inverse_std, scale, bias);
        Ok(())
    }

    fn batch_norm_fold(
        &self,
        memory: &mut Memory,
        attributes: &BatchNorm,
        [weight, gamma, beta, running_mean, running_variance, folded, bias]: [Span; 7],
        _: Span,
    ) -> Result<()> {
        let (n, c) = (attributes.extent.elements()?, attributes.extent.rows);
        let ([weight, gamma, beta, running_mean, running_variance], [folded, bias]) = memory
            .slices::<T, 5, 2>(
                operands!(weight: n, gamma: c, beta: c, running_mean: c, running_variance: c),
                operands!(folded: n, bias: c),
            )?;
        let parameters = Parameters { gamma, beta, running_mean, running_variance };
        batch_norm::fold(attributes, weight, &parameters, folded, bias);
        Ok(())
    }

    fn scale_bias(
        &self,
        memory: &mut Memory,
        attributes: &ScaleBias,
        [x, scale, bias, y]: [Span; 4],
        _: Span,
    ) -> Result<()> {
        let (n, c) = (attributes.extent.elements()?, attributes.extent.channels);
        let ([x, scale, bias], [y]) =
            memory.slices::<T, 3, 1>(operands!(x: n, scale: c, bias: c), operands!(y: n))?;
        self.pool.install(|| pointwise::scale_bias(attributes, x, scale, bias, None, y));
        Ok(())
    }

    fn scale_bias_residual(
        &self,
        memory: &mut Memory,
        attributes: &ScaleBias,
        [x, scale, bias, residual, y]: [Span; 5],
        _: Span,
    ) -> Result<()> {
        let (n, c) = (attributes.extent.elements()?, attributes.extent.channels);
        let ([x, scale, bias, residual], [y]) =
            memory.slices::<T, 4, 1>(operands!(x: n, scale: c, bias: c, residual: n), operands!(y: n))?;
        self.pool.install(|| pointwise::scale_bias(attributes, x, scale, bias, Some(residual), y));
        Ok(())
    }

    fn batch_norm_reduce(
        &self,
        memory: &mut Memory,
        attributes: &BatchNormGradient,
        [dy, x, scale, bias, mean, inverse_std, dgamma, dbeta]: [Span; 8],
        _: Span,
    ) -> Result<()> {
        let (n, c) = (attributes.extent.elements()?, attributes.extent.channels);
        let ([dy, x, scale, bias, mean, inverse_std], [dgamma, dbeta]) = memory.slices::<T, 6, 2>(
            operands!(dy: n, x: n, scale: c, bias: c, mean: c, inverse_std: c),
            operands!(dgamma: c, dbeta: c),
        )?;
        let forward = Forward { scale, bias, mean, inverse_std };
        self.pool.install(|| batch_norm::reduce(attributes, dy, x, &forward, dgamma, dbeta));
        Ok(())
    }

    fn batch_norm_input_gradient(
        &self,
        memory: &mut Memory,
        attributes: &BatchNormGradient,
        [dy, x, scale, bias, mean, inverse_std, dgamma, dbeta, dx]: [Span; 9],
        _: Span,
    ) -> Result<()> {
        let (n, c) = (attributes.extent.elements()?, attributes.extent.channels);
        let ([dy, x, scale, bias, mean, inverse_std, dgamma, dbeta], [dx]) = memory.slices::<T, 8, 1>(
            operands!(dy: n, x: n, scale: c, bias: c, mean: c, inverse_std: c, dgamma: c, dbeta: c),
            operands!(dx: n),
        )?;
        let forward = Forward { scale, bias, mean, inverse_std };
        self.pool.install(|| batch_norm::input_gradient(attributes, dy, x, &forward, dgamma, dbeta, dx));
        Ok(())
    }

    fn relu(&self, memory: &mut Memory, extent: &Rows, [x, y]: [Span; 2], _: Span) -> Result<()> {
        let n = extent.elements()?;
        let ([x], [y]) = memory.slices::<T, 1, 1>(operands!(x: n), operands!(y: n))?;
        self.pool.install(|| pointwise::map(x, y, T::rectified));
        Ok(())
    }

    fn relu_gradient(
        &self,
        memory: &mut Memory,
        extent: &Rows,
        [y, dy, dx]: [Span; 3],
        _: Span,
    ) -> Result<()> {
        self.pass2(memory, extent, [("y", y), ("dy", dy)], ("dx", dx), pointwise::passed)
    }

    fn add(&self, memory: &mut Memory, extent: &Rows, [a, b, y]: [Span; 3], _: Span) -> Result<()> {
        self.pass2(memory, extent, [("a", a), ("b", b)], ("y", y), |a, b| a + b)
    }

    fn copy(&self, memory: &mut Memory, extent: &Rows, [x, y]: [Span; 2], _: Span) -> Result<()> {
        let n = extent.elements()?;
        let ([x], [y]) = memory.slices::<T, 1, 1>(operands!(x: n), operands!(y: n))?;
        self.pool.install(|| pointwise::map(x, y, |value| value));
        Ok(())
    }

    fn accumulate(&self, memory: &mut Memory, extent: &Rows, [x, y]: [Span; 2], _: Span) -> Result<()> {
        let n = extent.elements()?;
        let ([x], [y]) = memory.slices::<T, 1, 1>(operands!(x: n), operands!(y: n))?;
        self.pool.install(|| pointwise::update(x, y, |x, y| y + x));
        Ok(())
    }

    fn max_pool(&self, memory: &mut Memory, pool: &Pool, operands: [Span; 3], _: Span) -> Result<()> {
        self.maxima(memory, pool, operands)
    }

    fn max_pool_gradient(
        &self,
        memory: &mut Memory,
        pool: &Pool,
        operands: [Span; 3],
        _: Span,
    ) -> Result<()> {
        self.maxima_gradient(memory, pool, operands)
    }

    fn global_average_pool(
        &self,
        memory: &mut Memory,
        pool: &Pool,
        operands: [Span; 2],
        _: Span,
    ) -> Result<()> {
        self.averages(memory, pool, operands)
    }

    fn global_average_pool_gradient(
        &self,
        memory: &mut Memory,
        pool: &Pool,
        operands: [Span; 2],
        _: Span,
    ) -> Result<()> {
        self.averages_gradient(memory, pool, operands)
    }

    fn linear(&self, memory: &mut Memory, linear: &Linear, operands: [Span; 4], _: Span) -> Result<()> {
        self.linear_forward(memory, linear, operands)
    }

    fn pool_head(
        &self,
        memory: &mut Memory,
        head: &PoolHead,
        [x, weight, bias, features, logits]: [Span; 5],
        _: Span,
    ) -> Result<()> {
        self.averages(memory, &head.pool, [x, features])?;
        self.linear_forward(memory, &head.linear(), [features, weight, bias, logits])
    }

    fn linear_input_gradient(
        &self,
        memory: &mut Memory,
        linear: &Linear,
        operands: [Span; 3],
        _: Span,
    ) -> Result<()> {
        self.linear_to_input(memory, linear, operands)
    }

    fn linear_weight_gradient(
        &self,
        memory: &mut Memory,
        linear: &Linear,
        operands: [Span; 4],
        _: Span,
    ) -> Result<()> {
        self.linear_to_weight(memory, linear, operands)
    }

    fn softmax_cross_entropy(
        &self,
        memory: &mut Memory,
        attributes: &CrossEntropy,
        operands: [Span; 5],
        _: Span,
    ) -> Result<()> {
        self.cross_entropy(memory, attributes, operands)
    }

    fn cosine(
        &self,
        memory: &mut Memory,
        attributes: &Cosine,
        [x, weight, scale, inverse_norms, cosines, y]: [Span; 6],
        _: Span,
    ) -> Result<()> {
        self.cosine_forward(memory, attributes, [x, weight, scale], [inverse_norms, cosines, y])
    }

    fn cosine_input_gradient(
        &self,
        memory: &mut Memory,
        attributes: &Cosine,
        [x, weight, scale, inverse_norms, cosines, dy, dx]: [Span; 7],
        _: Span,
    ) -> Result<()> {
        self.cosine_to_input(memory, attributes, [x, weight, scale, inverse_norms, cosines, dy], dx)
    }

    fn cosine_weight_gradient(
        &self,
        memory: &mut Memory,
        attributes: &Cosine,
        [x, weight, scale, inverse_norms, cosines, dy, dweight, dscale]: [Span; 8],
        _: Span,
    ) -> Result<()> {
        let read = [x, weight, scale, inverse_norms, cosines, dy];
        self.cosine_to_weight(memory, attributes, read, [dweight, dscale])
    }

    fn kl_divergence(
        &self,
        memory: &mut Memory,
        attributes: &KlDivergence,
        [first, second, loss, dfirst, dsecond]: [Span; 5],
        _: Span,
    ) -> Result<()> {
        self.divergence(memory, attributes, [first, second], [loss, dfirst, dsecond])
    }

    fn log_sum_groups(
        &self,
        memory: &mut Memory,
        attributes: &ClassGroups,
        operands: [Span; 3],
        _: Span,
    ) -> Result<()> {
        self.sum_groups(memory, attributes, operands)
    }

    fn log_sum_groups_gradient(
        &self,
        memory: &mut Memory,
        attributes: &ClassGroups,
        operands: [Span; 5],
        _: Span,
    ) -> Result<()> {
        self.sum_groups_gradient(memory, attributes, operands)
    }

    fn energy_margin(
        &self,
        memory: &mut Memory,
        attributes: &EnergyMargin,
        operands: [Span; 4],
        _: Span,
    ) -> Result<()> {
        self.margins(memory, attributes, operands)
    }

    fn weigh_rows(&self, memory: &mut Memory, extent: &Rows, [weights, x]: [Span; 2], _: Span) -> Result<()> {
        let (n, rows) = (extent.elements()?, extent.rows);
        let ([weights], [x]) = memory.slices::<T, 1, 1>(operands!(weights: rows), operands!(x: n))?;
        pointwise::weigh_rows(extent, weights, x);
        Ok(())
    }

    fn shortcut_a(
        &self,
        memory: &mut Memory,
        attributes: &ShortcutA,
        [x, y]: [Span; 2],
        _: Span,
    ) -> Result<()> {
        let [n_x, n_y] = attributes.elements()?;
        let ([x], [y]) = memory.slices::<T, 1, 1>(operands!(x: n_x), operands!(y: n_y))?;
        self.pool.install(|| shortcut::forward(attributes, x, y));
        Ok(())
    }

    fn shortcut_a_gradient(
        &self,
        memory: &mut Memory,
        attributes: &ShortcutA,
        [dy, dx]: [Span; 2],
        _: Span,
    ) -> Result<()> {
        let [n_x, n_y] = attributes.elements()?;
        let ([dy], [dx]) = memory.slices::<T, 1, 1>(operands!(dy: n_y), operands!(dx: n_x))?;
        self.pool.install(|| shortcut::gradient(attributes, dy, dx));
        Ok(())
    }

    fn sgd(&self, memory: &mut Memory, attributes: &Sgd, operands: [Span; 5], _: Span) -> Result<()> {
        self.step_sgd(memory, attributes, operands)
    }

    fn adam(&self, memory: &mut Memory, attributes: &Adam, operands: [Span; 6], _: Span) -> Result<()> {
        self.step_adam(memory, attributes, operands)
    }

    fn cast(&self, memory: &mut Memory, extent: &Rows, operands: [Span; 2], none: Span) -> Result<()> {
        self.copy(memory, extent, operands, none)
    }

    fn load_images(
        &self,
        memory: &mut Memory,
        attributes: &ImageBatch,
        operands: [Span; 4],
        _: Span,
    ) -> Result<()> {
        self.place_images(memory, attributes, operands)
    }

    fn step_totals(
        &self,
        memory: &mut Memory,
        attributes: &StepTotals,
        operands: [Span; 5],
        _: Span,
    ) -> Result<()> {
        self.record_totals(memory, attributes, operands)
    }
}

//! [`Backend`] for the CPU: each method checks its operands and hands slices to the kernel.

use super::batch_norm::{self, Forward, Parameters, Statistics};
use super::convolution;
use super::element::Element;
use super::memory::operand;
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

/// Bytes of scratch memory a call wants.
pub(super) fn workspace_bytes<T: Element>(call: &Call<()>) -> usize {
    match call {
        Call::Conv2dForward { attributes, .. } => convolution::forward_workspace::<T>(attributes),
        Call::Conv2dBias { attributes, .. } => convolution::forward_workspace::<T>(&attributes.conv),
        Call::Conv2dBiasResidual { attributes, .. } => convolution::forward_workspace::<T>(&attributes.conv),
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

impl<T: Element> Backend for Cpu<T> {
    fn conv2d_forward(&mut self, conv: &Conv2d, operands: [Span; 3], workspace: Span) -> Result<()> {
        self.convolution(conv, operands, workspace)
    }

    fn conv2d_bias(
        &mut self,
        attributes: &Conv2dInference,
        [x, weight, bias, y]: [Span; 4],
        workspace: Span,
    ) -> Result<()> {
        self.convolve(attributes, [x, weight, bias], None, y, workspace)
    }

    fn conv2d_bias_residual(
        &mut self,
        attributes: &Conv2dInference,
        [x, weight, bias, residual, y]: [Span; 5],
        workspace: Span,
    ) -> Result<()> {
        self.convolve(attributes, [x, weight, bias], Some(residual), y, workspace)
    }

    fn conv2d_input_gradient(
        &mut self,
        attributes: &Conv2dGradient,
        operands: [Span; 3],
        workspace: Span,
    ) -> Result<()> {
        self.convolution_to_input(attributes, operands, workspace)
    }

    fn conv2d_weight_gradient(&mut self, conv: &Conv2d, operands: [Span; 3], workspace: Span) -> Result<()> {
        self.convolution_to_weight(conv, operands, workspace)
    }

    fn conv2d_batch_norm_statistics(
        &mut self,
        attributes: &Conv2dBatchNorm,
        [x, weight, y, others @ ..]: [Span; 11],
        workspace: Span,
    ) -> Result<()> {
        let [gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance] = others;
        self.conv2d_forward(&attributes.conv, [x, weight, y], workspace)?;
        let operands = [y, gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance];
        self.batch_norm_statistics(&attributes.norm(), operands, workspace)
    }

    fn conv2d_scaled(
        &mut self,
        scaled: &Conv2dScaled,
        [x, scale, bias, weight, y]: [Span; 5],
        workspace: Span,
    ) -> Result<()> {
        let [z, workspace] = scaled.room(T::DTYPE, workspace)?;
        self.scale_bias(&scaled.map(), [x, scale, bias, z], workspace)?;
        self.conv2d_forward(&scaled.conv, [z, weight, y], workspace)
    }

    fn conv2d_scaled_weight_gradient(
        &mut self,
        scaled: &Conv2dScaled,
        [x, scale, bias, dy, dweight]: [Span; 5],
        workspace: Span,
    ) -> Result<()> {
        let [z, workspace] = scaled.room(T::DTYPE, workspace)?;
        self.scale_bias(&scaled.map(), [x, scale, bias, z], workspace)?;
        self.conv2d_weight_gradient(&scaled.conv, [z, dy, dweight], workspace)
    }

    fn conv2d_scaled_batch_norm_statistics(
        &mut self,
        attributes: &Conv2dScaledBatchNorm,
        [x, input_scale, input_bias, weight, y, others @ ..]: [Span; 13],
        workspace: Span,
    ) -> Result<()> {
        let [gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance] = others;
        let spans = [x, input_scale, input_bias, weight, y];
        self.conv2d_scaled(&attributes.scaled(), spans, workspace)?;
        let operands = [y, gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance];
        self.batch_norm_statistics(&attributes.behind.norm(), operands, workspace)
    }

    fn conv2d_input_gradient_reduce(
        &mut self,
        attributes: &Conv2dGradientReduce,
        [dy, weight, x, scale, bias, mean, inverse_std, dx, dgamma, dbeta]: [Span; 10],
        workspace: Span,
    ) -> Result<()> {
        let Conv2dGradientReduce { gradient, relu } = attributes;
        self.conv2d_input_gradient(gradient, [dy, weight, dx], workspace)?;
        let operands = [dx, x, scale, bias, mean, inverse_std, dgamma, dbeta];
        self.batch_norm_reduce(&gradient.reduce(*relu), operands, workspace)
    }

    fn conv2d_input_gradient_mask_reduce(
        &mut self,
        gradient: &Conv2dGradient,
        [dy, weight, y, x, scale, bias, mean, inverse_std, dx, dgamma, dbeta]: [Span; 11],
        workspace: Span,
    ) -> Result<()> {
        self.conv2d_input_gradient(gradient, [dy, weight, dx], workspace)?;
        self.mask(&gradient.conv.inputs(), [y, dx])?;
        let operands = [dx, x, scale, bias, mean, inverse_std, dgamma, dbeta];
        self.batch_norm_reduce(&gradient.reduce(false), operands, workspace)
    }

    fn batch_norm_statistics(
        &mut self,
        attributes: &BatchNorm,
        [x, gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance]: [Span; 9],
        _: Span,
    ) -> Result<()> {
        let (n, c) = (attributes.extent.elements()?, attributes.extent.channels);
        let ([x, gamma, beta], [mean, inverse_std, scale, bias, running_mean, running_variance]) =
            self.memory.slices::<T, 3, 6>(
                operands!(x: n, gamma: c, beta: c),
                operands!(mean: c, inverse_std: c, scale: c, bias: c, running_mean: c, running_variance: c),
            )?;
        let out = Statistics { mean, inverse_std, scale, bias, running_mean, running_variance };
        self.pool.install(|| batch_norm::statistics(attributes, x, gamma, beta, out));
        Ok(())
    }

    fn batch_norm_frozen(
        &mut self,
        attributes: &BatchNorm,
        [gamma, beta, running_mean, running_variance, inverse_std, scale, bias]: [Span; 7],
        _: Span,
    ) -> Result<()> {
        let c = attributes.extent.channels;
        let ([gamma, beta, running_mean, running_variance], [inverse_std, scale, bias]) =
            self.memory.slices::<T, 4, 3>(
                operands!(gamma: c, beta: c, running_mean: c, running_variance: c),
                operands!(inverse_std: c, scale: c, bias: c),
            )?;
        let parameters = Parameters { gamma, beta, running_mean, running_variance };
        batch_norm::frozen(attributes, &parameters, inverse_std, scale, bias);
        Ok(())
    }

    fn batch_norm_fold(
        &mut self,
        attributes: &BatchNorm,
        [weight, gamma, beta, running_mean, running_variance, folded, bias]: [Span; 7],
        _: Span,
    ) -> Result<()> {
        let (n, c) = (attributes.extent.elements()?, attributes.extent.rows);
        let ([weight, gamma, beta, running_mean, running_variance], [folded, bias]) =
            self.memory.slices::<T, 5, 2>(
                operands!(weight: n, gamma: c, beta: c, running_mean: c, running_variance: c),
                operands!(folded: n, bias: c),
            )?;
        let parameters = Parameters { gamma, beta, running_mean, running_variance };
        batch_norm::fold(attributes, weight, &parameters, folded, bias);
        Ok(())
    }

    fn scale_bias(&mut self, attributes: &ScaleBias, [x, scale, bias, y]: [Span; 4], _: Span) -> Result<()> {
        let (n, c) = (attributes.extent.elements()?, attributes.extent.channels);
        let ([x, scale, bias], [y]) =
            self.memory.slices::<T, 3, 1>(operands!(x: n, scale: c, bias: c), operands!(y: n))?;
        self.pool.install(|| pointwise::scale_bias(attributes, x, scale, bias, None, y));
        Ok(())
    }

    fn scale_bias_residual(
        &mut self,
        attributes: &ScaleBias,
        [x, scale, bias, residual, y]: [Span; 5],
        _: Span,
    ) -> Result<()> {
        let (n, c) = (attributes.extent.elements()?, attributes.extent.channels);
        let ([x, scale, bias, residual], [y]) = self
            .memory
            .slices::<T, 4, 1>(operands!(x: n, scale: c, bias: c, residual: n), operands!(y: n))?;
        self.pool.install(|| pointwise::scale_bias(attributes, x, scale, bias, Some(residual), y));
        Ok(())
    }

    fn batch_norm_reduce(
        &mut self,
        attributes: &BatchNormGradient,
        [dy, x, scale, bias, mean, inverse_std, dgamma, dbeta]: [Span; 8],
        _: Span,
    ) -> Result<()> {
        let (n, c) = (attributes.extent.elements()?, attributes.extent.channels);
        let ([dy, x, scale, bias, mean, inverse_std], [dgamma, dbeta]) = self.memory.slices::<T, 6, 2>(
            operands!(dy: n, x: n, scale: c, bias: c, mean: c, inverse_std: c),
            operands!(dgamma: c, dbeta: c),
        )?;
        let forward = Forward { scale, bias, mean, inverse_std };
        self.pool.install(|| batch_norm::reduce(attributes, dy, x, &forward, dgamma, dbeta));
        Ok(())
    }

    fn batch_norm_input_gradient(
        &mut self,
        attributes: &BatchNormGradient,
        [dy, x, scale, bias, mean, inverse_std, dgamma, dbeta, dx]: [Span; 9],
        _: Span,
    ) -> Result<()> {
        let (n, c) = (attributes.extent.elements()?, attributes.extent.channels);
        let ([dy, x, scale, bias, mean, inverse_std, dgamma, dbeta], [dx]) = self.memory.slices::<T, 8, 1>(
            operands!(dy: n, x: n, scale: c, bias: c, mean: c, inverse_std: c, dgamma: c, dbeta: c),
            operands!(dx: n),
        )?;
        let forward = Forward { scale, bias, mean, inverse_std };
        self.pool.install(|| batch_norm::input_gradient(attributes, dy, x, &forward, dgamma, dbeta, dx));
        Ok(())
    }

    fn relu(&mut self, extent: &Rows, [x, y]: [Span; 2], _: Span) -> Result<()> {
        let n = extent.elements()?;
        let ([x], [y]) = self.memory.slices::<T, 1, 1>(operands!(x: n), operands!(y: n))?;
        self.pool.install(|| pointwise::map(x, y, T::rectified));
        Ok(())
    }

    fn relu_gradient(&mut self, extent: &Rows, [y, dy, dx]: [Span; 3], _: Span) -> Result<()> {
        self.pass2(extent, [("y", y), ("dy", dy)], ("dx", dx), pointwise::passed)
    }

    fn add(&mut self, extent: &Rows, [a, b, y]: [Span; 3], _: Span) -> Result<()> {
        self.pass2(extent, [("a", a), ("b", b)], ("y", y), |a, b| a + b)
    }

    fn copy(&mut self, extent: &Rows, [x, y]: [Span; 2], _: Span) -> Result<()> {
        let n = extent.elements()?;
        let ([x], [y]) = self.memory.slices::<T, 1, 1>(operands!(x: n), operands!(y: n))?;
        self.pool.install(|| pointwise::map(x, y, |value| value));
        Ok(())
    }

    fn accumulate(&mut self, extent: &Rows, [x, y]: [Span; 2], _: Span) -> Result<()> {
        let n = extent.elements()?;
        let ([x], [y]) = self.memory.slices::<T, 1, 1>(operands!(x: n), operands!(y: n))?;
        self.pool.install(|| pointwise::update(x, y, |x, y| y + x));
        Ok(())
    }

    fn max_pool(&mut self, pool: &Pool, operands: [Span; 3], _: Span) -> Result<()> {
        self.maxima(pool, operands)
    }

    fn max_pool_gradient(&mut self, pool: &Pool, operands: [Span; 3], _: Span) -> Result<()> {
        self.maxima_gradient(pool, operands)
    }

    fn global_average_pool(&mut self, pool: &Pool, operands: [Span; 2], _: Span) -> Result<()> {
        self.averages(pool, operands)
    }

    fn global_average_pool_gradient(&mut self, pool: &Pool, operands: [Span; 2], _: Span) -> Result<()> {
        self.averages_gradient(pool, operands)
    }

    fn linear(&mut self, linear: &Linear, operands: [Span; 4], _: Span) -> Result<()> {
        self.linear_forward(linear, operands)
    }

    fn pool_head(
        &mut self,
        head: &PoolHead,
        [x, weight, bias, features, logits]: [Span; 5],
        _: Span,
    ) -> Result<()> {
        self.averages(&head.pool, [x, features])?;
        self.linear_forward(&head.linear(), [features, weight, bias, logits])
    }

    fn linear_input_gradient(&mut self, linear: &Linear, operands: [Span; 3], _: Span) -> Result<()> {
        self.linear_to_input(linear, operands)
    }

    fn linear_weight_gradient(&mut self, linear: &Linear, operands: [Span; 4], _: Span) -> Result<()> {
        self.linear_to_weight(linear, operands)
    }

    fn softmax_cross_entropy(
        &mut self,
        attributes: &CrossEntropy,
        operands: [Span; 5],
        _: Span,
    ) -> Result<()> {
        self.cross_entropy(attributes, operands)
    }

    fn cosine(
        &mut self,
        attributes: &Cosine,
        [x, weight, scale, inverse_norms, cosines, y]: [Span; 6],
        _: Span,
    ) -> Result<()> {
        self.cosine_forward(attributes, [x, weight, scale], [inverse_norms, cosines, y])
    }

    fn cosine_input_gradient(
        &mut self,
        attributes: &Cosine,
        [x, weight, scale, inverse_norms, cosines, dy, dx]: [Span; 7],
        _: Span,
    ) -> Result<()> {
        self.cosine_to_input(attributes, [x, weight, scale, inverse_norms, cosines, dy], dx)
    }

    fn cosine_weight_gradient(
        &mut self,
        attributes: &Cosine,
        [x, weight, scale, inverse_norms, cosines, dy, dweight, dscale]: [Span; 8],
        _: Span,
    ) -> Result<()> {
        let read = [x, weight, scale, inverse_norms, cosines, dy];
        self.cosine_to_weight(attributes, read, [dweight, dscale])
    }

    fn kl_divergence(
        &mut self,
        attributes: &KlDivergence,
        [first, second, loss, dfirst, dsecond]: [Span; 5],
        _: Span,
    ) -> Result<()> {
        self.divergence(attributes, [first, second], [loss, dfirst, dsecond])
    }

    fn log_sum_groups(&mut self, attributes: &ClassGroups, operands: [Span; 3], _: Span) -> Result<()> {
        self.sum_groups(attributes, operands)
    }

    fn log_sum_groups_gradient(
        &mut self,
        attributes: &ClassGroups,
        operands: [Span; 5],
        _: Span,
    ) -> Result<()> {
        self.sum_groups_gradient(attributes, operands)
    }

    fn energy_margin(&mut self, attributes: &EnergyMargin, operands: [Span; 4], _: Span) -> Result<()> {
        self.margins(attributes, operands)
    }

    fn weigh_rows(&mut self, extent: &Rows, [weights, x]: [Span; 2], _: Span) -> Result<()> {
        let (n, rows) = (extent.elements()?, extent.rows);
        let ([weights], [x]) = self.memory.slices::<T, 1, 1>(operands!(weights: rows), operands!(x: n))?;
        pointwise::weigh_rows(extent, weights, x);
        Ok(())
    }

    fn shortcut_a(&mut self, attributes: &ShortcutA, [x, y]: [Span; 2], _: Span) -> Result<()> {
        let [n_x, n_y] = attributes.elements()?;
        let ([x], [y]) = self.memory.slices::<T, 1, 1>(operands!(x: n_x), operands!(y: n_y))?;
        self.pool.install(|| shortcut::forward(attributes, x, y));
        Ok(())
    }

    fn shortcut_a_gradient(&mut self, attributes: &ShortcutA, [dy, dx]: [Span; 2], _: Span) -> Result<()> {
        let [n_x, n_y] = attributes.elements()?;
        let ([dy], [dx]) = self.memory.slices::<T, 1, 1>(operands!(dy: n_y), operands!(dx: n_x))?;
        self.pool.install(|| shortcut::gradient(attributes, dy, dx));
        Ok(())
    }

    fn sgd(&mut self, attributes: &Sgd, operands: [Span; 5], _: Span) -> Result<()> {
        self.step_sgd(attributes, operands)
    }

    fn adam(&mut self, attributes: &Adam, operands: [Span; 6], _: Span) -> Result<()> {
        self.step_adam(attributes, operands)
    }

    fn cast(&mut self, extent: &Rows, operands: [Span; 2], none: Span) -> Result<()> {
        self.copy(extent, operands, none)
    }

    fn load_images(&mut self, attributes: &ImageBatch, operands: [Span; 4], _: Span) -> Result<()> {
        self.place_images(attributes, operands)
    }

    fn step_totals(&mut self, attributes: &StepTotals, operands: [Span; 5], _: Span) -> Result<()> {
        self.record_totals(attributes, operands)
    }
}

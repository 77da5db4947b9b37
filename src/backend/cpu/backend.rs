//! [`Backend`] for the CPU: each method checks its operands and hands slices to the kernel.

use super::batch_norm::{self, Forward, Parameters, Statistics};
use super::convolution;
use super::element::Element;
use super::memory::{Memory, operand};
use super::{Cpu, pointwise, shortcut, weight_gradient};
use crate::error::Result;
use crate::ops::{
    Adam, Backend, BatchNorm, BatchNormGradient, Call, ClassGroups, Conv2d, Conv2dGradient, Conv2dInference,
    Cosine, CrossEntropy, EnergyMargin, ImageBatch, KlDivergence, Linear, Pool, Rows, ScaleBias, Sgd,
    ShortcutA, StepTotals,
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
            Call::Conv2dWeightGradient { attributes, .. } => weight_gradient::workspace::<T>(attributes),
            _ => 0,
        }
    }

    fn conv2d_forward(
        &self,
        memory: &mut Memory,
        conv: &Conv2d,
        x: Span,
        weight: Span,
        y: Span,
        workspace: Span,
    ) -> Result<()> {
        self.convolution(memory, conv, [x, weight, y], workspace)
    }

    fn conv2d_bias(
        &self,
        memory: &mut Memory,
        attributes: &Conv2dInference,
        x: Span,
        weight: Span,
        bias: Span,
        y: Span,
        workspace: Span,
    ) -> Result<()> {
        self.convolve(memory, attributes, [x, weight, bias], None, y, workspace)
    }

    fn conv2d_bias_residual(
        &self,
        memory: &mut Memory,
        attributes: &Conv2dInference,
        x: Span,
        weight: Span,
        bias: Span,
        residual: Span,
        y: Span,
        workspace: Span,
    ) -> Result<()> {
        self.convolve(memory, attributes, [x, weight, bias], Some(residual), y, workspace)
    }

    fn conv2d_input_gradient(
        &self,
        memory: &mut Memory,
        attributes: &Conv2dGradient,
        dy: Span,
        weight: Span,
        dx: Span,
        workspace: Span,
    ) -> Result<()> {
        self.convolution_to_input(memory, attributes, [dy, weight, dx], workspace)
    }

    fn conv2d_weight_gradient(
        &self,
        memory: &mut Memory,
        conv: &Conv2d,
        x: Span,
        dy: Span,
        dweight: Span,
        workspace: Span,
    ) -> Result<()> {
        self.convolution_to_weight(memory, conv, [x, dy, dweight], workspace)
    }

    fn batch_norm_statistics(
        &self,
        memory: &mut Memory,
        attributes: &BatchNorm,
        x: Span,
        gamma: Span,
        beta: Span,
        mean: Span,
        inverse_std: Span,
        scale: Span,
        bias: Span,
        running_mean: Span,
        running_variance: Span,
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
        gamma: Span,
        beta: Span,
        running_mean: Span,
        running_variance: Span,
        inverse_std: Span,
        scale: Span,
        bias: Span,
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
        weight: Span,
        gamma: Span,
        beta: Span,
        running_mean: Span,
        running_variance: Span,
        folded: Span,
        bias: Span,
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
        x: Span,
        scale: Span,
        bias: Span,
        y: Span,
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
        x: Span,
        scale: Span,
        bias: Span,
        residual: Span,
        y: Span,
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
        dy: Span,
        x: Span,
        scale: Span,
        bias: Span,
        mean: Span,
        inverse_std: Span,
        dgamma: Span,
        dbeta: Span,
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
        dy: Span,
        x: Span,
        scale: Span,
        bias: Span,
        mean: Span,
        inverse_std: Span,
        dgamma: Span,
        dbeta: Span,
        dx: Span,
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

    fn relu(&self, memory: &mut Memory, extent: &Rows, x: Span, y: Span, _: Span) -> Result<()> {
        let n = extent.elements()?;
        let ([x], [y]) = memory.slices::<T, 1, 1>(operands!(x: n), operands!(y: n))?;
        self.pool.install(|| pointwise::map(x, y, T::rectified));
        Ok(())
    }

    fn relu_gradient(
        &self,
        memory: &mut Memory,
        extent: &Rows,
        y: Span,
        dy: Span,
        dx: Span,
        _: Span,
    ) -> Result<()> {
        self.pass2(
            memory,
            extent,
            [("y", y), ("dy", dy)],
            ("dx", dx),
            |y, dy| {
                if y > T::ZERO { dy } else { T::ZERO }
            },
        )
    }

    fn add(&self, memory: &mut Memory, extent: &Rows, a: Span, b: Span, y: Span, _: Span) -> Result<()> {
        self.pass2(memory, extent, [("a", a), ("b", b)], ("y", y), |a, b| a + b)
    }

    fn copy(&self, memory: &mut Memory, extent: &Rows, x: Span, y: Span, _: Span) -> Result<()> {
        let n = extent.elements()?;
        let ([x], [y]) = memory.slices::<T, 1, 1>(operands!(x: n), operands!(y: n))?;
        self.pool.install(|| pointwise::map(x, y, |value| value));
        Ok(())
    }

    fn accumulate(&self, memory: &mut Memory, extent: &Rows, x: Span, y: Span, _: Span) -> Result<()> {
        let n = extent.elements()?;
        let ([x], [y]) = memory.slices::<T, 1, 1>(operands!(x: n), operands!(y: n))?;
        self.pool.install(|| pointwise::accumulate(x, y));
        Ok(())
    }

    fn max_pool(
        &self,
        memory: &mut Memory,
        pool: &Pool,
        x: Span,
        y: Span,
        argmax: Span,
        _: Span,
    ) -> Result<()> {
        self.maxima(memory, pool, [x, y, argmax])
    }

    fn max_pool_gradient(
        &self,
        memory: &mut Memory,
        pool: &Pool,
        dy: Span,
        argmax: Span,
        dx: Span,
        _: Span,
    ) -> Result<()> {
        self.maxima_gradient(memory, pool, [dy, argmax, dx])
    }

    fn global_average_pool(&self, memory: &mut Memory, pool: &Pool, x: Span, y: Span, _: Span) -> Result<()> {
        self.averages(memory, pool, [x, y])
    }

    fn global_average_pool_gradient(
        &self,
        memory: &mut Memory,
        pool: &Pool,
        dy: Span,
        dx: Span,
        _: Span,
    ) -> Result<()> {
        self.averages_gradient(memory, pool, [dy, dx])
    }

    fn linear(
        &self,
        memory: &mut Memory,
        linear: &Linear,
        x: Span,
        weight: Span,
        bias: Span,
        y: Span,
        _: Span,
    ) -> Result<()> {
        self.linear_forward(memory, linear, [x, weight, bias, y])
    }

    fn linear_input_gradient(
        &self,
        memory: &mut Memory,
        linear: &Linear,
        dy: Span,
        weight: Span,
        dx: Span,
        _: Span,
    ) -> Result<()> {
        self.linear_to_input(memory, linear, [dy, weight, dx])
    }

    fn linear_weight_gradient(
        &self,
        memory: &mut Memory,
        linear: &Linear,
        x: Span,
        dy: Span,
        dweight: Span,
        dbias: Span,
        _: Span,
    ) -> Result<()> {
        self.linear_to_weight(memory, linear, [x, dy, dweight, dbias])
    }

    fn softmax_cross_entropy(
        &self,
        memory: &mut Memory,
        attributes: &CrossEntropy,
        logits: Span,
        labels: Span,
        loss: Span,
        prediction: Span,
        dlogits: Span,
        _: Span,
    ) -> Result<()> {
        self.cross_entropy(memory, attributes, [logits, labels, loss, prediction, dlogits])
    }

    fn cosine(
        &self,
        memory: &mut Memory,
        attributes: &Cosine,
        x: Span,
        weight: Span,
        scale: Span,
        inverse_norms: Span,
        cosines: Span,
        y: Span,
        _: Span,
    ) -> Result<()> {
        self.cosine_forward(memory, attributes, [x, weight, scale], [inverse_norms, cosines, y])
    }

    fn cosine_input_gradient(
        &self,
        memory: &mut Memory,
        attributes: &Cosine,
        x: Span,
        weight: Span,
        scale: Span,
        inverse_norms: Span,
        cosines: Span,
        dy: Span,
        dx: Span,
        _: Span,
    ) -> Result<()> {
        self.cosine_to_input(memory, attributes, [x, weight, scale, inverse_norms, cosines, dy], dx)
    }

    fn cosine_weight_gradient(
        &self,
        memory: &mut Memory,
        attributes: &Cosine,
        x: Span,
        weight: Span,
        scale: Span,
        inverse_norms: Span,
        cosines: Span,
        dy: Span,
        dweight: Span,
        dscale: Span,
        _: Span,
    ) -> Result<()> {
        let read = [x, weight, scale, inverse_norms, cosines, dy];
        self.cosine_to_weight(memory, attributes, read, [dweight, dscale])
    }

    fn kl_divergence(
        &self,
        memory: &mut Memory,
        attributes: &KlDivergence,
        first: Span,
        second: Span,
        loss: Span,
        dfirst: Span,
        dsecond: Span,
        _: Span,
    ) -> Result<()> {
        self.divergence(memory, attributes, [first, second], [loss, dfirst, dsecond])
    }

    fn log_sum_groups(
        &self,
        memory: &mut Memory,
        attributes: &ClassGroups,
        x: Span,
        group_of: Span,
        y: Span,
        _: Span,
    ) -> Result<()> {
        self.sum_groups(memory, attributes, [x, group_of, y])
    }

    fn log_sum_groups_gradient(
        &self,
        memory: &mut Memory,
        attributes: &ClassGroups,
        x: Span,
        group_of: Span,
        y: Span,
        dy: Span,
        dx: Span,
        _: Span,
    ) -> Result<()> {
        self.sum_groups_gradient(memory, attributes, [x, group_of, y, dy, dx])
    }

    fn energy_margin(
        &self,
        memory: &mut Memory,
        attributes: &EnergyMargin,
        logits: Span,
        outlier: Span,
        loss: Span,
        dlogits: Span,
        _: Span,
    ) -> Result<()> {
        self.margins(memory, attributes, [logits, outlier, loss, dlogits])
    }

    fn weigh_rows(&self, memory: &mut Memory, extent: &Rows, weights: Span, x: Span, _: Span) -> Result<()> {
        let (n, rows) = (extent.elements()?, extent.rows);
        let ([weights], [x]) = memory.slices::<T, 1, 1>(operands!(weights: rows), operands!(x: n))?;
        pointwise::weigh_rows(extent, weights, x);
        Ok(())
    }

    fn shortcut_a(
        &self,
        memory: &mut Memory,
        attributes: &ShortcutA,
        x: Span,
        y: Span,
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
        dy: Span,
        dx: Span,
        _: Span,
    ) -> Result<()> {
        let [n_x, n_y] = attributes.elements()?;
        let ([dy], [dx]) = memory.slices::<T, 1, 1>(operands!(dy: n_y), operands!(dx: n_x))?;
        self.pool.install(|| shortcut::gradient(attributes, dy, dx));
        Ok(())
    }

    fn sgd(
        &self,
        memory: &mut Memory,
        attributes: &Sgd,
        parameters: Span,
        gradients: Span,
        velocity: Span,
        hyper: Span,
        _: Span,
    ) -> Result<()> {
        self.step_sgd(memory, attributes, [parameters, gradients, velocity, hyper])
    }

    fn adam(
        &self,
        memory: &mut Memory,
        attributes: &Adam,
        parameters: Span,
        gradients: Span,
        first: Span,
        second: Span,
        hyper: Span,
        _: Span,
    ) -> Result<()> {
        self.step_adam(memory, attributes, [parameters, gradients, first, second, hyper])
    }

    fn cast(&self, memory: &mut Memory, extent: &Rows, x: Span, y: Span, _: Span) -> Result<()> {
        self.copy(memory, extent, x, y, x)
    }

    fn load_images(
        &self,
        memory: &mut Memory,
        attributes: &ImageBatch,
        pixels: Span,
        table: Span,
        placement: Span,
        y: Span,
        _: Span,
    ) -> Result<()> {
        self.place_images(memory, attributes, [pixels, table, placement, y])
    }

    fn step_totals(
        &self,
        memory: &mut Memory,
        attributes: &StepTotals,
        loss: Span,
        prediction: Span,
        labels: Span,
        hyper: Span,
        totals: Span,
        _: Span,
    ) -> Result<()> {
        self.record_totals(memory, attributes, [loss, prediction, labels, hyper, totals])
    }
}

//! [`Backend`] for CUDA: each method hands its operands to the launcher of its family.

use super::driver::Driver;
use super::{
    Cuda, batch_norm, convolution, cosine, divergence, energy, groups, images, linear, loss, optimizer,
    pointwise, pooling,
};
use crate::error::Result;
use crate::ops::{
    Adam, Backend, BatchNorm, BatchNormGradient, Call, ClassGroups, Conv2d, Conv2dGradient, Conv2dInference,
    Cosine, CrossEntropy, EnergyMargin, ImageBatch, KlDivergence, Linear, Pool, Rows, ScaleBias, Sgd,
    ShortcutA, StepTotals,
};
use crate::tensor::Span;

impl<D: Driver> Backend for Cuda<D> {
    fn workspace_bytes(&self, call: &Call<()>) -> usize {
        convolution::workspace_bytes(self, call)
            .or_else(|| batch_norm::workspace_bytes(self, call))
            .or_else(|| linear::workspace_bytes(self, call))
            .unwrap_or(0)
    }

    fn conv2d_forward(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2d,
        x: Span,
        weight: Span,
        y: Span,
        workspace: Span,
    ) -> Result<()> {
        convolution::forward(self, memory, attributes, [x, weight, y], workspace)
    }

    fn conv2d_bias(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2dInference,
        x: Span,
        weight: Span,
        bias: Span,
        y: Span,
        workspace: Span,
    ) -> Result<()> {
        convolution::bias(self, memory, attributes, [x, weight, bias, y], workspace)
    }

    fn conv2d_bias_residual(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2dInference,
        x: Span,
        weight: Span,
        bias: Span,
        residual: Span,
        y: Span,
        workspace: Span,
    ) -> Result<()> {
        convolution::bias_residual(self, memory, attributes, [x, weight, bias, residual, y], workspace)
    }

    fn conv2d_input_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2dGradient,
        dy: Span,
        weight: Span,
        dx: Span,
        workspace: Span,
    ) -> Result<()> {
        convolution::input_gradient(self, memory, attributes, [dy, weight, dx], workspace)
    }

    fn conv2d_weight_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2d,
        x: Span,
        dy: Span,
        dweight: Span,
        workspace: Span,
    ) -> Result<()> {
        convolution::weight_gradient(self, memory, attributes, [x, dy, dweight], workspace)
    }

    fn batch_norm_statistics(
        &self,
        memory: &mut D::Memory,
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
        workspace: Span,
    ) -> Result<()> {
        batch_norm::statistics(
            self,
            memory,
            attributes,
            [x, gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance],
            workspace,
        )
    }

    fn batch_norm_frozen(
        &self,
        memory: &mut D::Memory,
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
        batch_norm::frozen(
            self,
            memory,
            attributes,
            [gamma, beta, running_mean, running_variance, inverse_std, scale, bias],
        )
    }

    fn batch_norm_fold(
        &self,
        memory: &mut D::Memory,
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
        batch_norm::fold(
            self,
            memory,
            attributes,
            [weight, gamma, beta, running_mean, running_variance, folded, bias],
        )
    }

    fn scale_bias(
        &self,
        memory: &mut D::Memory,
        attributes: &ScaleBias,
        x: Span,
        scale: Span,
        bias: Span,
        y: Span,
        _: Span,
    ) -> Result<()> {
        batch_norm::scale_bias(self, memory, attributes, [x, scale, bias, y])
    }

    fn scale_bias_residual(
        &self,
        memory: &mut D::Memory,
        attributes: &ScaleBias,
        x: Span,
        scale: Span,
        bias: Span,
        residual: Span,
        y: Span,
        _: Span,
    ) -> Result<()> {
        batch_norm::scale_bias_residual(self, memory, attributes, [x, scale, bias, residual, y])
    }

    fn batch_norm_reduce(
        &self,
        memory: &mut D::Memory,
        attributes: &BatchNormGradient,
        dy: Span,
        x: Span,
        scale: Span,
        bias: Span,
        mean: Span,
        inverse_std: Span,
        dgamma: Span,
        dbeta: Span,
        workspace: Span,
    ) -> Result<()> {
        batch_norm::reduce(
            self,
            memory,
            attributes,
            [dy, x, scale, bias, mean, inverse_std, dgamma, dbeta],
            workspace,
        )
    }

    fn batch_norm_input_gradient(
        &self,
        memory: &mut D::Memory,
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
        batch_norm::input_gradient(
            self,
            memory,
            attributes,
            [dy, x, scale, bias, mean, inverse_std, dgamma, dbeta, dx],
        )
    }

    fn relu(&self, memory: &mut D::Memory, attributes: &Rows, x: Span, y: Span, _: Span) -> Result<()> {
        pointwise::relu(self, memory, attributes, [x, y])
    }

    fn relu_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Rows,
        y: Span,
        dy: Span,
        dx: Span,
        _: Span,
    ) -> Result<()> {
        pointwise::relu_gradient(self, memory, attributes, [y, dy, dx])
    }

    fn add(
        &self,
        memory: &mut D::Memory,
        attributes: &Rows,
        a: Span,
        b: Span,
        y: Span,
        _: Span,
    ) -> Result<()> {
        pointwise::add(self, memory, attributes, [a, b, y])
    }

    fn copy(&self, memory: &mut D::Memory, attributes: &Rows, x: Span, y: Span, _: Span) -> Result<()> {
        pointwise::copy(self, memory, attributes, [x, y])
    }

    fn cast(&self, memory: &mut D::Memory, attributes: &Rows, x: Span, y: Span, _: Span) -> Result<()> {
        pointwise::cast(self, memory, attributes, [x, y])
    }

    fn accumulate(&self, memory: &mut D::Memory, attributes: &Rows, x: Span, y: Span, _: Span) -> Result<()> {
        pointwise::accumulate(self, memory, attributes, [x, y])
    }

    fn max_pool(
        &self,
        memory: &mut D::Memory,
        attributes: &Pool,
        x: Span,
        y: Span,
        argmax: Span,
        _: Span,
    ) -> Result<()> {
        pooling::max_pool(self, memory, attributes, [x, y, argmax])
    }

    fn max_pool_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Pool,
        dy: Span,
        argmax: Span,
        dx: Span,
        _: Span,
    ) -> Result<()> {
        pooling::max_pool_gradient(self, memory, attributes, [dy, argmax, dx])
    }

    fn global_average_pool(
        &self,
        memory: &mut D::Memory,
        attributes: &Pool,
        x: Span,
        y: Span,
        _: Span,
    ) -> Result<()> {
        pooling::global_average_pool(self, memory, attributes, [x, y])
    }

    fn global_average_pool_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Pool,
        dy: Span,
        dx: Span,
        _: Span,
    ) -> Result<()> {
        pooling::global_average_pool_gradient(self, memory, attributes, [dy, dx])
    }

    fn linear(
        &self,
        memory: &mut D::Memory,
        attributes: &Linear,
        x: Span,
        weight: Span,
        bias: Span,
        y: Span,
        workspace: Span,
    ) -> Result<()> {
        linear::forward(self, memory, attributes, [x, weight, bias, y], workspace)
    }

    fn linear_input_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Linear,
        dy: Span,
        weight: Span,
        dx: Span,
        workspace: Span,
    ) -> Result<()> {
        linear::input_gradient(self, memory, attributes, [dy, weight, dx], workspace)
    }

    fn linear_weight_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Linear,
        x: Span,
        dy: Span,
        dweight: Span,
        dbias: Span,
        workspace: Span,
    ) -> Result<()> {
        linear::weight_gradient(self, memory, attributes, [x, dy, dweight, dbias], workspace)
    }

    fn softmax_cross_entropy(
        &self,
        memory: &mut D::Memory,
        attributes: &CrossEntropy,
        logits: Span,
        labels: Span,
        loss: Span,
        prediction: Span,
        dlogits: Span,
        _: Span,
    ) -> Result<()> {
        loss::softmax_cross_entropy(self, memory, attributes, [logits, labels, loss, prediction, dlogits])
    }

    fn cosine(
        &self,
        memory: &mut D::Memory,
        attributes: &Cosine,
        x: Span,
        weight: Span,
        scale: Span,
        inverse_norms: Span,
        cosines: Span,
        y: Span,
        _: Span,
    ) -> Result<()> {
        cosine::forward(self, memory, attributes, [x, weight, scale, inverse_norms, cosines, y])
    }

    fn cosine_input_gradient(
        &self,
        memory: &mut D::Memory,
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
        let operands = [x, weight, scale, inverse_norms, cosines, dy, dx];
        cosine::input_gradient(self, memory, attributes, operands)
    }

    fn cosine_weight_gradient(
        &self,
        memory: &mut D::Memory,
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
        let operands = [x, weight, scale, inverse_norms, cosines, dy, dweight, dscale];
        cosine::weight_gradient(self, memory, attributes, operands)
    }

    fn kl_divergence(
        &self,
        memory: &mut D::Memory,
        attributes: &KlDivergence,
        first: Span,
        second: Span,
        loss: Span,
        dfirst: Span,
        dsecond: Span,
        _: Span,
    ) -> Result<()> {
        divergence::kl_divergence(self, memory, attributes, [first, second, loss, dfirst, dsecond])
    }

    fn log_sum_groups(
        &self,
        memory: &mut D::Memory,
        attributes: &ClassGroups,
        x: Span,
        group_of: Span,
        y: Span,
        _: Span,
    ) -> Result<()> {
        groups::log_sum(self, memory, attributes, [x, group_of, y])
    }

    fn log_sum_groups_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &ClassGroups,
        x: Span,
        group_of: Span,
        y: Span,
        dy: Span,
        dx: Span,
        _: Span,
    ) -> Result<()> {
        groups::gradient(self, memory, attributes, [x, group_of, y, dy, dx])
    }

    fn energy_margin(
        &self,
        memory: &mut D::Memory,
        attributes: &EnergyMargin,
        logits: Span,
        outlier: Span,
        loss: Span,
        dlogits: Span,
        _: Span,
    ) -> Result<()> {
        energy::margin(self, memory, attributes, [logits, outlier, loss, dlogits])
    }

    fn weigh_rows(
        &self,
        memory: &mut D::Memory,
        attributes: &Rows,
        weights: Span,
        x: Span,
        _: Span,
    ) -> Result<()> {
        loss::weigh_rows(self, memory, attributes, [weights, x])
    }

    fn shortcut_a(
        &self,
        memory: &mut D::Memory,
        attributes: &ShortcutA,
        x: Span,
        y: Span,
        _: Span,
    ) -> Result<()> {
        pointwise::shortcut_a(self, memory, attributes, [x, y])
    }

    fn shortcut_a_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &ShortcutA,
        dy: Span,
        dx: Span,
        _: Span,
    ) -> Result<()> {
        pointwise::shortcut_a_gradient(self, memory, attributes, [dy, dx])
    }

    fn sgd(
        &self,
        memory: &mut D::Memory,
        attributes: &Sgd,
        parameters: Span,
        gradients: Span,
        velocity: Span,
        hyper: Span,
        _: Span,
    ) -> Result<()> {
        optimizer::sgd(self, memory, attributes, [parameters, gradients, velocity, hyper])
    }

    fn adam(
        &self,
        memory: &mut D::Memory,
        attributes: &Adam,
        parameters: Span,
        gradients: Span,
        first: Span,
        second: Span,
        hyper: Span,
        _: Span,
    ) -> Result<()> {
        optimizer::adam(self, memory, attributes, [parameters, gradients, first, second, hyper])
    }

    fn load_images(
        &self,
        memory: &mut D::Memory,
        attributes: &ImageBatch,
        pixels: Span,
        table: Span,
        placement: Span,
        y: Span,
        _: Span,
    ) -> Result<()> {
        images::load_images(self, memory, attributes, [pixels, table, placement, y])
    }

    fn step_totals(
        &self,
        memory: &mut D::Memory,
        attributes: &StepTotals,
        loss: Span,
        prediction: Span,
        labels: Span,
        hyper: Span,
        totals: Span,
        _: Span,
    ) -> Result<()> {
        loss::step_totals(self, memory, attributes, [loss, prediction, labels, hyper, totals])
    }
}

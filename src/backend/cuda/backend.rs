//! [`Backend`] for CUDA: each method hands its operands to the launcher of its family.

use super::{
    Cuda, batch_norm, convolution, cosine, divergence, energy, groups, images, linear, loss, optimizer,
    pointwise, pool_head, pooling,
};
use crate::error::Result;
use crate::ops::{
    Adam, Backend, BatchNorm, BatchNormGradient, Call, ClassGroups, Conv2d, Conv2dBatchNorm, Conv2dGradient,
    Conv2dGradientReduce, Conv2dInference, Conv2dScaled, Conv2dScaledBatchNorm, Cosine, CrossEntropy,
    EnergyMargin, ImageBatch, KlDivergence, Linear, Pool, PoolHead, Rows, ScaleBias, Sgd, ShortcutA,
    StepTotals,
};
use crate::tensor::Span;

/// Bytes of scratch memory a call wants.
pub(super) fn workspace_bytes(cuda: &Cuda, call: &Call<()>) -> usize {
    convolution::workspace_bytes(cuda, call)
        .or_else(|| batch_norm::workspace_bytes(cuda, call))
        .or_else(|| linear::workspace_bytes(cuda, call))
        .or_else(|| pool_head::workspace_bytes(cuda, call))
        .unwrap_or(0)
}

impl Backend for Cuda {
    fn conv2d_forward(&mut self, attributes: &Conv2d, operands: [Span; 3], workspace: Span) -> Result<()> {
        convolution::forward(self, attributes, operands, workspace)
    }

    fn conv2d_bias(
        &mut self,
        attributes: &Conv2dInference,
        [x, weight, bias, y]: [Span; 4],
        workspace: Span,
    ) -> Result<()> {
        convolution::bias(self, attributes, [x, weight, bias, y], workspace)
    }

    fn conv2d_bias_residual(
        &mut self,
        attributes: &Conv2dInference,
        operands: [Span; 5],
        workspace: Span,
    ) -> Result<()> {
        convolution::bias_residual(self, attributes, operands, workspace)
    }

    fn conv2d_input_gradient(
        &mut self,
        attributes: &Conv2dGradient,
        operands: [Span; 3],
        workspace: Span,
    ) -> Result<()> {
        convolution::input_gradient(self, attributes, operands, workspace)
    }

    fn conv2d_weight_gradient(
        &mut self,
        attributes: &Conv2d,
        operands: [Span; 3],
        workspace: Span,
    ) -> Result<()> {
        convolution::weight_gradient(self, attributes, operands, workspace)
    }

    fn conv2d_batch_norm_statistics(
        &mut self,
        attributes: &Conv2dBatchNorm,
        operands: [Span; 11],
        workspace: Span,
    ) -> Result<()> {
        convolution::forward_statistics(self, attributes, operands, workspace)
    }

    fn conv2d_scaled(
        &mut self,
        attributes: &Conv2dScaled,
        operands: [Span; 5],
        workspace: Span,
    ) -> Result<()> {
        convolution::scaled_forward(self, attributes, operands, workspace)
    }

    fn conv2d_scaled_weight_gradient(
        &mut self,
        attributes: &Conv2dScaled,
        operands: [Span; 5],
        workspace: Span,
    ) -> Result<()> {
        convolution::scaled_weight_gradient(self, attributes, operands, workspace)
    }

    fn conv2d_scaled_batch_norm_statistics(
        &mut self,
        attributes: &Conv2dScaledBatchNorm,
        operands: [Span; 13],
        workspace: Span,
    ) -> Result<()> {
        convolution::scaled_forward_statistics(self, attributes, operands, workspace)
    }

    fn conv2d_input_gradient_reduce(
        &mut self,
        attributes: &Conv2dGradientReduce,
        operands: [Span; 10],
        workspace: Span,
    ) -> Result<()> {
        convolution::input_gradient_reduce(self, attributes, operands, workspace)
    }

    fn conv2d_input_gradient_mask_reduce(
        &mut self,
        attributes: &Conv2dGradient,
        operands: [Span; 11],
        workspace: Span,
    ) -> Result<()> {
        convolution::input_gradient_mask_reduce(self, attributes, operands, workspace)
    }

    fn batch_norm_statistics(
        &mut self,
        attributes: &BatchNorm,
        operands: [Span; 9],
        workspace: Span,
    ) -> Result<()> {
        batch_norm::statistics(self, attributes, operands, workspace)
    }

    fn batch_norm_frozen(&mut self, attributes: &BatchNorm, operands: [Span; 7], _: Span) -> Result<()> {
        batch_norm::frozen(self, attributes, operands)
    }

    fn batch_norm_fold(&mut self, attributes: &BatchNorm, operands: [Span; 7], _: Span) -> Result<()> {
        batch_norm::fold(self, attributes, operands)
    }

    fn scale_bias(&mut self, attributes: &ScaleBias, operands: [Span; 4], _: Span) -> Result<()> {
        batch_norm::scale_bias(self, attributes, operands)
    }

    fn scale_bias_residual(&mut self, attributes: &ScaleBias, operands: [Span; 5], _: Span) -> Result<()> {
        batch_norm::scale_bias_residual(self, attributes, operands)
    }

    fn batch_norm_reduce(
        &mut self,
        attributes: &BatchNormGradient,
        operands: [Span; 8],
        workspace: Span,
    ) -> Result<()> {
        batch_norm::reduce(self, attributes, operands, workspace)
    }

    fn batch_norm_input_gradient(
        &mut self,
        attributes: &BatchNormGradient,
        operands: [Span; 9],
        _: Span,
    ) -> Result<()> {
        batch_norm::input_gradient(self, attributes, operands)
    }

    fn relu(&mut self, attributes: &Rows, operands: [Span; 2], _: Span) -> Result<()> {
        pointwise::relu(self, attributes, operands)
    }

    fn relu_gradient(&mut self, attributes: &Rows, operands: [Span; 3], _: Span) -> Result<()> {
        pointwise::relu_gradient(self, attributes, operands)
    }

    fn add(&mut self, attributes: &Rows, operands: [Span; 3], _: Span) -> Result<()> {
        pointwise::add(self, attributes, operands)
    }

    fn copy(&mut self, attributes: &Rows, operands: [Span; 2], _: Span) -> Result<()> {
        pointwise::copy(self, attributes, operands)
    }

    fn cast(&mut self, attributes: &Rows, operands: [Span; 2], _: Span) -> Result<()> {
        pointwise::cast(self, attributes, operands)
    }

    fn accumulate(&mut self, attributes: &Rows, operands: [Span; 2], _: Span) -> Result<()> {
        pointwise::accumulate(self, attributes, operands)
    }

    fn max_pool(&mut self, attributes: &Pool, operands: [Span; 3], _: Span) -> Result<()> {
        pooling::max_pool(self, attributes, operands)
    }

    fn max_pool_gradient(&mut self, attributes: &Pool, operands: [Span; 3], _: Span) -> Result<()> {
        pooling::max_pool_gradient(self, attributes, operands)
    }

    fn global_average_pool(&mut self, attributes: &Pool, operands: [Span; 2], _: Span) -> Result<()> {
        pooling::global_average_pool(self, attributes, operands)
    }

    fn global_average_pool_gradient(
        &mut self,
        attributes: &Pool,
        operands: [Span; 2],
        _: Span,
    ) -> Result<()> {
        pooling::global_average_pool_gradient(self, attributes, operands)
    }

    fn linear(&mut self, attributes: &Linear, operands: [Span; 4], workspace: Span) -> Result<()> {
        linear::forward(self, attributes, operands, workspace)
    }

    fn pool_head(&mut self, attributes: &PoolHead, operands: [Span; 5], workspace: Span) -> Result<()> {
        pool_head::forward(self, attributes, operands, workspace)
    }

    fn linear_input_gradient(
        &mut self,
        attributes: &Linear,
        operands: [Span; 3],
        workspace: Span,
    ) -> Result<()> {
        linear::input_gradient(self, attributes, operands, workspace)
    }

    fn linear_weight_gradient(
        &mut self,
        attributes: &Linear,
        operands: [Span; 4],
        workspace: Span,
    ) -> Result<()> {
        linear::weight_gradient(self, attributes, operands, workspace)
    }

    fn softmax_cross_entropy(
        &mut self,
        attributes: &CrossEntropy,
        [logits, labels, loss, prediction, dlogits]: [Span; 5],
        _: Span,
    ) -> Result<()> {
        loss::softmax_cross_entropy(self, attributes, [logits, labels, loss, prediction, dlogits])
    }

    fn cosine(&mut self, attributes: &Cosine, operands: [Span; 6], _: Span) -> Result<()> {
        cosine::forward(self, attributes, operands)
    }

    fn cosine_input_gradient(&mut self, attributes: &Cosine, operands: [Span; 7], _: Span) -> Result<()> {
        cosine::input_gradient(self, attributes, operands)
    }

    fn cosine_weight_gradient(&mut self, attributes: &Cosine, operands: [Span; 8], _: Span) -> Result<()> {
        cosine::weight_gradient(self, attributes, operands)
    }

    fn kl_divergence(&mut self, attributes: &KlDivergence, operands: [Span; 5], _: Span) -> Result<()> {
        divergence::kl_divergence(self, attributes, operands)
    }

    fn log_sum_groups(&mut self, attributes: &ClassGroups, operands: [Span; 3], _: Span) -> Result<()> {
        groups::log_sum(self, attributes, operands)
    }

    fn log_sum_groups_gradient(
        &mut self,
        attributes: &ClassGroups,
        operands: [Span; 5],
        _: Span,
    ) -> Result<()> {
        groups::gradient(self, attributes, operands)
    }

    fn energy_margin(&mut self, attributes: &EnergyMargin, operands: [Span; 4], _: Span) -> Result<()> {
        energy::margin(self, attributes, operands)
    }

    fn weigh_rows(&mut self, attributes: &Rows, operands: [Span; 2], _: Span) -> Result<()> {
        loss::weigh_rows(self, attributes, operands)
    }

    fn shortcut_a(&mut self, attributes: &ShortcutA, operands: [Span; 2], _: Span) -> Result<()> {
        pointwise::shortcut_a(self, attributes, operands)
    }

    fn shortcut_a_gradient(&mut self, attributes: &ShortcutA, operands: [Span; 2], _: Span) -> Result<()> {
        pointwise::shortcut_a_gradient(self, attributes, operands)
    }

    fn sgd(&mut self, attributes: &Sgd, operands: [Span; 5], _: Span) -> Result<()> {
        optimizer::sgd(self, attributes, operands)
    }

    fn adam(&mut self, attributes: &Adam, operands: [Span; 6], _: Span) -> Result<()> {
        optimizer::adam(self, attributes, operands)
    }

    fn load_images(&mut self, attributes: &ImageBatch, operands: [Span; 4], _: Span) -> Result<()> {
        images::load_images(self, attributes, operands)
    }

    fn step_totals(
        &mut self,
        attributes: &StepTotals,
        [loss, prediction, labels, hyper, totals]: [Span; 5],
        _: Span,
    ) -> Result<()> {
        loss::step_totals(self, attributes, [loss, prediction, labels, hyper, totals])
    }
}

//! [`Backend`] for CUDA: each method hands its operands to the launcher of its family.

use super::driver::Driver;
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

impl<D: Driver> Backend for Cuda<D> {
    fn workspace_bytes(&self, call: &Call<()>) -> usize {
        convolution::workspace_bytes(self, call)
            .or_else(|| batch_norm::workspace_bytes(self, call))
            .or_else(|| linear::workspace_bytes(self, call))
            .or_else(|| pool_head::workspace_bytes(self, call))
            .unwrap_or(0)
    }

    fn scales_operands(&self, conv: &Conv2d) -> bool {
        convolution::scales_operands(self, conv)
    }

    fn conv2d_forward(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2d,
        operands: [Span; 3],
        workspace: Span,
    ) -> Result<()> {
        convolution::forward(self, memory, attributes, operands, workspace)
    }

    fn conv2d_bias(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2dInference,
        [x, weight, bias, y]: [Span; 4],
        workspace: Span,
    ) -> Result<()> {
        convolution::bias(self, memory, attributes, [x, weight, bias, y], workspace)
    }

    fn conv2d_bias_residual(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2dInference,
        operands: [Span; 5],
        workspace: Span,
    ) -> Result<()> {
        convolution::bias_residual(self, memory, attributes, operands, workspace)
    }

    fn conv2d_input_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2dGradient,
        operands: [Span; 3],
        workspace: Span,
    ) -> Result<()> {
        convolution::input_gradient(self, memory, attributes, operands, workspace)
    }

    fn conv2d_weight_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2d,
        operands: [Span; 3],
        workspace: Span,
    ) -> Result<()> {
        convolution::weight_gradient(self, memory, attributes, operands, workspace)
    }

    fn conv2d_batch_norm_statistics(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2dBatchNorm,
        operands: [Span; 11],
        workspace: Span,
    ) -> Result<()> {
        convolution::forward_statistics(self, memory, attributes, operands, workspace)
    }

    fn conv2d_scaled(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2dScaled,
        operands: [Span; 5],
        workspace: Span,
    ) -> Result<()> {
        convolution::scaled_forward(self, memory, attributes, operands, workspace)
    }

    fn conv2d_scaled_weight_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2dScaled,
        operands: [Span; 5],
        workspace: Span,
    ) -> Result<()> {
        convolution::scaled_weight_gradient(self, memory, attributes, operands, workspace)
    }

    fn conv2d_scaled_batch_norm_statistics(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2dScaledBatchNorm,
        operands: [Span; 13],
        workspace: Span,
    ) -> Result<()> {
        convolution::scaled_forward_statistics(self, memory, attributes, operands, workspace)
    }

    fn conv2d_input_gradient_reduce(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2dGradientReduce,
        operands: [Span; 10],
        workspace: Span,
    ) -> Result<()> {
        convolution::input_gradient_reduce(self, memory, attributes, operands, workspace)
    }

    fn conv2d_input_gradient_mask_reduce(
        &self,
        memory: &mut D::Memory,
        attributes: &Conv2dGradient,
        operands: [Span; 11],
        workspace: Span,
    ) -> Result<()> {
        convolution::input_gradient_mask_reduce(self, memory, attributes, operands, workspace)
    }

    fn batch_norm_statistics(
        &self,
        memory: &mut D::Memory,
        attributes: &BatchNorm,
        operands: [Span; 9],
        workspace: Span,
    ) -> Result<()> {
        batch_norm::statistics(self, memory, attributes, operands, workspace)
    }

    fn batch_norm_frozen(
        &self,
        memory: &mut D::Memory,
        attributes: &BatchNorm,
        operands: [Span; 7],
        _: Span,
    ) -> Result<()> {
        batch_norm::frozen(self, memory, attributes, operands)
    }

    fn batch_norm_fold(
        &self,
        memory: &mut D::Memory,
        attributes: &BatchNorm,
        operands: [Span; 7],
        _: Span,
    ) -> Result<()> {
        batch_norm::fold(self, memory, attributes, operands)
    }

    fn scale_bias(
        &self,
        memory: &mut D::Memory,
        attributes: &ScaleBias,
        operands: [Span; 4],
        _: Span,
    ) -> Result<()> {
        batch_norm::scale_bias(self, memory, attributes, operands)
    }

    fn scale_bias_residual(
        &self,
        memory: &mut D::Memory,
        attributes: &ScaleBias,
        operands: [Span; 5],
        _: Span,
    ) -> Result<()> {
        batch_norm::scale_bias_residual(self, memory, attributes, operands)
    }

    fn batch_norm_reduce(
        &self,
        memory: &mut D::Memory,
        attributes: &BatchNormGradient,
        operands: [Span; 8],
        workspace: Span,
    ) -> Result<()> {
        batch_norm::reduce(self, memory, attributes, operands, workspace)
    }

    fn batch_norm_input_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &BatchNormGradient,
        operands: [Span; 9],
        _: Span,
    ) -> Result<()> {
        batch_norm::input_gradient(self, memory, attributes, operands)
    }

    fn relu(&self, memory: &mut D::Memory, attributes: &Rows, operands: [Span; 2], _: Span) -> Result<()> {
        pointwise::relu(self, memory, attributes, operands)
    }

    fn relu_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Rows,
        operands: [Span; 3],
        _: Span,
    ) -> Result<()> {
        pointwise::relu_gradient(self, memory, attributes, operands)
    }

    fn add(&self, memory: &mut D::Memory, attributes: &Rows, operands: [Span; 3], _: Span) -> Result<()> {
        pointwise::add(self, memory, attributes, operands)
    }

    fn copy(&self, memory: &mut D::Memory, attributes: &Rows, operands: [Span; 2], _: Span) -> Result<()> {
        pointwise::copy(self, memory, attributes, operands)
    }

    fn cast(&self, memory: &mut D::Memory, attributes: &Rows, operands: [Span; 2], _: Span) -> Result<()> {
        pointwise::cast(self, memory, attributes, operands)
    }

    fn accumulate(
        &self,
        memory: &mut D::Memory,
        attributes: &Rows,
        operands: [Span; 2],
        _: Span,
    ) -> Result<()> {
        pointwise::accumulate(self, memory, attributes, operands)
    }

    fn max_pool(
        &self,
        memory: &mut D::Memory,
        attributes: &Pool,
        operands: [Span; 3],
        _: Span,
    ) -> Result<()> {
        pooling::max_pool(self, memory, attributes, operands)
    }

    fn max_pool_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Pool,
        operands: [Span; 3],
        _: Span,
    ) -> Result<()> {
        pooling::max_pool_gradient(self, memory, attributes, operands)
    }

    fn global_average_pool(
        &self,
        memory: &mut D::Memory,
        attributes: &Pool,
        operands: [Span; 2],
        _: Span,
    ) -> Result<()> {
        pooling::global_average_pool(self, memory, attributes, operands)
    }

    fn global_average_pool_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Pool,
        operands: [Span; 2],
        _: Span,
    ) -> Result<()> {
        pooling::global_average_pool_gradient(self, memory, attributes, operands)
    }

    fn linear(
        &self,
        memory: &mut D::Memory,
        attributes: &Linear,
        operands: [Span; 4],
        workspace: Span,
    ) -> Result<()> {
        linear::forward(self, memory, attributes, operands, workspace)
    }

    fn pool_head(
        &self,
        memory: &mut D::Memory,
        attributes: &PoolHead,
        operands: [Span; 5],
        workspace: Span,
    ) -> Result<()> {
        pool_head::forward(self, memory, attributes, operands, workspace)
    }

    fn linear_input_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Linear,
        operands: [Span; 3],
        workspace: Span,
    ) -> Result<()> {
        linear::input_gradient(self, memory, attributes, operands, workspace)
    }

    fn linear_weight_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Linear,
        operands: [Span; 4],
        workspace: Span,
    ) -> Result<()> {
        linear::weight_gradient(self, memory, attributes, operands, workspace)
    }

    fn softmax_cross_entropy(
        &self,
        memory: &mut D::Memory,
        attributes: &CrossEntropy,
        [logits, labels, loss, prediction, dlogits]: [Span; 5],
        _: Span,
    ) -> Result<()> {
        loss::softmax_cross_entropy(self, memory, attributes, [logits, labels, loss, prediction, dlogits])
    }

    fn cosine(
        &self,
        memory: &mut D::Memory,
        attributes: &Cosine,
        operands: [Span; 6],
        _: Span,
    ) -> Result<()> {
        cosine::forward(self, memory, attributes, operands)
    }

    fn cosine_input_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Cosine,
        operands: [Span; 7],
        _: Span,
    ) -> Result<()> {
        cosine::input_gradient(self, memory, attributes, operands)
    }

    fn cosine_weight_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &Cosine,
        operands: [Span; 8],
        _: Span,
    ) -> Result<()> {
        cosine::weight_gradient(self, memory, attributes, operands)
    }

    fn kl_divergence(
        &self,
        memory: &mut D::Memory,
        attributes: &KlDivergence,
        operands: [Span; 5],
        _: Span,
    ) -> Result<()> {
        divergence::kl_divergence(self, memory, attributes, operands)
    }

    fn log_sum_groups(
        &self,
        memory: &mut D::Memory,
        attributes: &ClassGroups,
        operands: [Span; 3],
        _: Span,
    ) -> Result<()> {
        groups::log_sum(self, memory, attributes, operands)
    }

    fn log_sum_groups_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &ClassGroups,
        operands: [Span; 5],
        _: Span,
    ) -> Result<()> {
        groups::gradient(self, memory, attributes, operands)
    }

    fn energy_margin(
        &self,
        memory: &mut D::Memory,
        attributes: &EnergyMargin,
        operands: [Span; 4],
        _: Span,
    ) -> Result<()> {
        energy::margin(self, memory, attributes, operands)
    }

    fn weigh_rows(
        &self,
        memory: &mut D::Memory,
        attributes: &Rows,
        operands: [Span; 2],
        _: Span,
    ) -> Result<()> {
        loss::weigh_rows(self, memory, attributes, operands)
    }

    fn shortcut_a(
        &self,
        memory: &mut D::Memory,
        attributes: &ShortcutA,
        operands: [Span; 2],
        _: Span,
    ) -> Result<()> {
        pointwise::shortcut_a(self, memory, attributes, operands)
    }

    fn shortcut_a_gradient(
        &self,
        memory: &mut D::Memory,
        attributes: &ShortcutA,
        operands: [Span; 2],
        _: Span,
    ) -> Result<()> {
        pointwise::shortcut_a_gradient(self, memory, attributes, operands)
    }

    fn sgd(&self, memory: &mut D::Memory, attributes: &Sgd, operands: [Span; 5], _: Span) -> Result<()> {
        optimizer::sgd(self, memory, attributes, operands)
    }

    fn adam(&self, memory: &mut D::Memory, attributes: &Adam, operands: [Span; 6], _: Span) -> Result<()> {
        optimizer::adam(self, memory, attributes, operands)
    }

    fn load_images(
        &self,
        memory: &mut D::Memory,
        attributes: &ImageBatch,
        operands: [Span; 4],
        _: Span,
    ) -> Result<()> {
        images::load_images(self, memory, attributes, operands)
    }

    fn step_totals(
        &self,
        memory: &mut D::Memory,
        attributes: &StepTotals,
        [loss, prediction, labels, hyper, totals]: [Span; 5],
        _: Span,
    ) -> Result<()> {
        loss::step_totals(self, memory, attributes, [loss, prediction, labels, hyper, totals])
    }
}

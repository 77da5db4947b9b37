//! Batch normalisation and the passes that apply it: launches of `normalization/batch_norm.cu` and `normalization/batch_norm_merge.cu`.
//!
//! Here the passes over elements; `sums` has the sums over rows, in their stages.

mod sums;
#[cfg(test)]
mod sums_tests;

pub(super) use sums::{Partials, batch_norm_reduce, batch_norm_statistics, workspace_bytes};

use super::call::{Operand, THREADS, all, entry, extent, few_threads, grid, modules_of_both_types, threads};
use super::driver::LaunchConfig;
use super::kernel_files::normalization::batch_norm::{
    FoldArguments, FrozenArguments, InputGradientArguments, ScaleBiasArguments,
};
use super::{Cuda, Entry, Module};
use crate::error::Result;
use crate::ops::{
    BatchNorm, BatchNormFold, BatchNormFrozen, BatchNormGradient, BatchNormInputGradient, Rows, ScaleBias,
    ScaleBiasForward, ScaleBiasResidual,
};
use crate::tensor::Span;

const FILE: &str = "normalization/batch_norm.cu";

const ENTRIES: &[Entry] = &[
    entry("batch_norm_moments", 64, true),
    entry("batch_norm_statistics", 40, false),
    entry("batch_norm_frozen", 32, false),
    entry("batch_norm_fold", 40, true),
    entry("scale_bias", 48, true),
    entry("scale_bias_residual", 64, true),
    entry("batch_norm_sums", 72, true),
    entry("batch_norm_reduce", 32, false),
    entry("batch_norm_input_gradient", 80, true),
];

/// The modules of this family.
pub(super) fn modules() -> Vec<Module> {
    let mut modules = modules_of_both_types(FILE, ENTRIES);
    modules.push(sums::MERGE);
    modules
}

/// Thread blocks that fill the device once, given the registers that the compile gate holds a kernel to: passes whose threads
/// stay with their channels run in one wave.
fn wave(cuda: &Cuda, kernel: &str) -> usize {
    const REGISTERS_PER_SM: usize = 1 << 16;
    let registers = ENTRIES.iter().find(|entry| entry.name == kernel).map_or(255, |entry| entry.registers);
    let resident = REGISTERS_PER_SM / (THREADS * registers as usize);
    cuda.driver().properties().sms as usize * resident.max(1)
}

pub(super) fn batch_norm_frozen(cuda: &mut Cuda, op: &BatchNormFrozen<Span>, _: Span) -> Result<()> {
    let BatchNorm { extent: Rows { channels, .. }, epsilon, .. } = op.attributes;
    let arguments = FrozenArguments {
        gamma: cuda.pointer(op.gamma),
        beta: cuda.pointer(op.beta),
        running_mean: cuda.pointer(op.running_mean),
        running_variance: cuda.pointer(op.running_variance),
        inverse_std: cuda.pointer(op.inverse_std),
        scale: cuda.pointer(op.scale),
        bias: cuda.pointer(op.bias),
        channels: extent(channels)?,
        epsilon: epsilon as f32,
    };
    let kernel = (&cuda.variant(FILE), "batch_norm_frozen");
    cuda.launch(kernel, threads(channels)?, &arguments, &all(op.operands()))
}

pub(super) fn batch_norm_fold(cuda: &mut Cuda, op: &BatchNormFold<Span>, _: Span) -> Result<()> {
    let BatchNorm { extent: Rows { rows: filters, channels: filter }, epsilon, .. } = op.attributes;
    let arguments = FoldArguments {
        weight: cuda.pointer(op.weight),
        gamma: cuda.pointer(op.gamma),
        beta: cuda.pointer(op.beta),
        running_mean: cuda.pointer(op.running_mean),
        running_variance: cuda.pointer(op.running_variance),
        folded: cuda.pointer(op.folded),
        bias: cuda.pointer(op.bias),
        filter: filter as u64,
        epsilon: epsilon as f32,
        vectorized: u32::from(filter.is_multiple_of(cuda.vector_size())),
    };
    let kernel = (&cuda.variant(FILE), "batch_norm_fold");
    cuda.launch(kernel, grid(filters, 1)?, &arguments, &all(op.operands()))
}

/// The grid of a grid-stride loop in which every thread keeps its channels: the number of threads is a multiple of the vectors in
/// a row.
fn grid_stride(cuda: &Cuda, kernel: &str, extents: &Rows, vectorized: bool) -> Result<LaunchConfig> {
    const PACKS_PER_THREAD: usize = 2;
    let groups = extents.channels / if vectorized { cuda.vector_size() } else { 1 };
    let multiple = groups / greatest_common_divisor(groups, THREADS);
    let enough = extents.rows.saturating_mul(groups).div_ceil(THREADS * PACKS_PER_THREAD);
    few_threads(enough.min(wave(cuda, kernel)).next_multiple_of(multiple) * THREADS)
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

pub(super) fn scale_bias(cuda: &mut Cuda, op: &ScaleBiasForward<Span>, _: Span) -> Result<()> {
    let [x, scale, bias, y] = [op.x, op.scale, op.bias, op.y].map(|span| cuda.pointer(span));
    affine(cuda, "scale_bias", &op.attributes, [x, scale, bias, 0, y], &all(op.operands()))
}

pub(super) fn scale_bias_residual(cuda: &mut Cuda, op: &ScaleBiasResidual<Span>, _: Span) -> Result<()> {
    let pointers = [op.x, op.scale, op.bias, op.residual, op.y].map(|span| cuda.pointer(span));
    affine(cuda, "scale_bias_residual", &op.attributes, pointers, &all(op.operands()))
}

fn affine(
    cuda: &Cuda,
    entry: &'static str,
    attributes: &ScaleBias,
    [x, scale, bias, residual, y]: [u64; 5],
    operands: &[Operand],
) -> Result<()> {
    let Rows { rows, channels } = attributes.extent;
    let vectorized = channels.is_multiple_of(cuda.vector_size());
    let arguments = ScaleBiasArguments {
        x,
        scale,
        bias,
        residual,
        y,
        rows: rows as u64,
        channels: extent(channels)?,
        relu: u32::from(attributes.relu),
        vectorized: u32::from(vectorized),
        unused: 0,
    };
    let config = grid_stride(cuda, entry, &attributes.extent, vectorized)?;
    cuda.launch((&cuda.variant(FILE), entry), config, &arguments, operands)
}

pub(super) fn batch_norm_input_gradient(
    cuda: &mut Cuda,
    op: &BatchNormInputGradient<Span>,
    _: Span,
) -> Result<()> {
    let BatchNormGradient { extent: rows, relu, frozen } = op.attributes;
    let vectorized = rows.channels.is_multiple_of(cuda.vector_size());
    let arguments = InputGradientArguments {
        dy: cuda.pointer(op.dy),
        x: cuda.pointer(op.x),
        scale: cuda.pointer(op.scale),
        bias: cuda.pointer(op.bias),
        mean: cuda.pointer(op.mean),
        inverse_std: cuda.pointer(op.inverse_std),
        dgamma: cuda.pointer(op.dgamma),
        dbeta: cuda.pointer(op.dbeta),
        dx: cuda.pointer(op.dx),
        rows: rows.rows as u64,
        channels: extent(rows.channels)?,
        relu: u32::from(relu),
        frozen: u32::from(frozen),
        vectorized: u32::from(vectorized),
    };
    let kernel = "batch_norm_input_gradient";
    let config = grid_stride(cuda, kernel, &rows, vectorized)?;
    cuda.launch((&cuda.variant(FILE), kernel), config, &arguments, &all(op.operands()))
}

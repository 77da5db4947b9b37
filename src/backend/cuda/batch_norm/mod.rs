//! Batch normalisation and the passes that apply it: launches of `batch_norm.cu` and `batch_norm_merge.cu`.
//!
//! Here the passes over elements; `sums` has the sums over rows, in their stages.

mod sums;
#[cfg(test)]
mod sums_tests;

use bytemuck::{Pod, Zeroable};
pub(super) use sums::{Partials, partial_bytes, reduce, statistics, workspace_bytes};

use super::call::{Operand, THREADS, entry, extent, few_threads, grid, modules_of_both_types, threads};
use super::driver::Geometry;
use super::{Cuda, Entry, Module};
use crate::error::Result;
use crate::ops::Access::{Read, Write};
use crate::ops::Content::{Activation, Number};
use crate::ops::{BatchNorm, BatchNormGradient, Rows, ScaleBias};
use crate::tensor::Span;

const FILE: &str = "batch_norm.cu";

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

/// What is compiled for this family.
pub(super) fn modules() -> Vec<Module> {
    let mut modules = modules_of_both_types(FILE, ENTRIES);
    modules.push(sums::MERGE);
    modules
}

/// Blocks that fill the device once, given the registers that the compile gate holds a kernel to: passes whose threads
/// stay with their channels run in one wave.
fn wave(cuda: &Cuda, kernel: &str) -> usize {
    const REGISTERS_PER_MULTIPROCESSOR: usize = 1 << 16;
    let registers = ENTRIES.iter().find(|entry| entry.name == kernel).map_or(255, |entry| entry.registers);
    let resident = REGISTERS_PER_MULTIPROCESSOR / (THREADS * registers as usize);
    cuda.driver().properties().multiprocessors as usize * resident.max(1)
}

/// `FrozenArguments` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Frozen {
    /// gamma, beta, running_mean, running_variance, inverse_std, scale, bias
    numbers: [u64; 7],
    channels: u32,
    epsilon: f32,
}

pub(super) fn frozen(
    cuda: &Cuda,
    attributes: &BatchNorm,
    [gamma, beta, running_mean, running_variance, inverse_std, scale, bias]: [Span; 7],
) -> Result<()> {
    attributes.extent.elements()?;
    let c = attributes.extent.channels;
    let operands = cuda.operands([
        ("gamma", gamma, Read, Number, c),
        ("beta", beta, Read, Number, c),
        ("running_mean", running_mean, Read, Number, c),
        ("running_variance", running_variance, Read, Number, c),
        ("inverse_std", inverse_std, Write, Number, c),
        ("scale", scale, Write, Number, c),
        ("bias", bias, Write, Number, c),
    ])?;
    let numbers = operands.map(|(_, span, _)| cuda.pointer(span));
    let arguments = Frozen { numbers, channels: extent(c)?, epsilon: attributes.epsilon as f32 };
    cuda.launch((&cuda.variant(FILE), "batch_norm_frozen"), threads(c)?, &arguments, &operands)
}

/// `FoldArguments` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Fold {
    /// weight, gamma, beta, running_mean, running_variance, folded, bias
    pointers: [u64; 7],
    filter: u64,
    epsilon: f32,
    wide: u32,
}

pub(super) fn fold(
    cuda: &Cuda,
    attributes: &BatchNorm,
    [weight, gamma, beta, running_mean, running_variance, folded, bias]: [Span; 7],
) -> Result<()> {
    let n = attributes.extent.elements()?;
    let Rows { rows: c, channels: filter } = attributes.extent;
    let operands = cuda.operands([
        ("weight", weight, Read, Number, n),
        ("gamma", gamma, Read, Number, c),
        ("beta", beta, Read, Number, c),
        ("running_mean", running_mean, Read, Number, c),
        ("running_variance", running_variance, Read, Number, c),
        ("folded", folded, Write, Activation, n),
        ("bias", bias, Write, Number, c),
    ])?;
    let arguments = Fold {
        pointers: operands.map(|(_, span, _)| cuda.pointer(span)),
        filter: filter as u64,
        epsilon: attributes.epsilon as f32,
        wide: u32::from(filter.is_multiple_of(cuda.pack())),
    };
    cuda.launch((&cuda.variant(FILE), "batch_norm_fold"), grid(c, 1)?, &arguments, &operands)
}

/// Blocks of a pass in which every thread stays with its channels: the number of threads is a multiple of the packs in
/// a row.
fn walk(cuda: &Cuda, kernel: &str, extents: &Rows, wide: bool) -> Result<Geometry> {
    const PACKS_PER_THREAD: usize = 2;
    let groups = extents.channels / if wide { cuda.pack() } else { 1 };
    let multiple = groups / greatest_common_divisor(groups, THREADS);
    let enough = extents.rows.saturating_mul(groups).div_ceil(THREADS * PACKS_PER_THREAD);
    few_threads(enough.min(wave(cuda, kernel)).next_multiple_of(multiple) * THREADS)
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// `ScaleBiasArguments` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Affine {
    x: u64,
    scale: u64,
    bias: u64,
    residual: u64,
    y: u64,
    rows: u64,
    channels: u32,
    relu: u32,
    wide: u32,
    unused: u32,
}

pub(super) fn scale_bias(cuda: &Cuda, attributes: &ScaleBias, [x, scale, bias, y]: [Span; 4]) -> Result<()> {
    let (n, c) = (attributes.extent.elements()?, attributes.extent.channels);
    let operands = cuda.operands([
        ("x", x, Read, Activation, n),
        ("scale", scale, Read, Number, c),
        ("bias", bias, Read, Number, c),
        ("y", y, Write, Activation, n),
    ])?;
    let [x, scale, bias, y] = operands.map(|(_, span, _)| cuda.pointer(span));
    affine(cuda, "scale_bias", attributes, [x, scale, bias, 0, y], &operands)
}

pub(super) fn scale_bias_residual(
    cuda: &Cuda,
    attributes: &ScaleBias,
    [x, scale, bias, residual, y]: [Span; 5],
) -> Result<()> {
    let (n, c) = (attributes.extent.elements()?, attributes.extent.channels);
    let operands = cuda.operands([
        ("x", x, Read, Activation, n),
        ("scale", scale, Read, Number, c),
        ("bias", bias, Read, Number, c),
        ("residual", residual, Read, Activation, n),
        ("y", y, Write, Activation, n),
    ])?;
    let pointers = operands.map(|(_, span, _)| cuda.pointer(span));
    affine(cuda, "scale_bias_residual", attributes, pointers, &operands)
}

fn affine(
    cuda: &Cuda,
    entry: &'static str,
    attributes: &ScaleBias,
    [x, scale, bias, residual, y]: [u64; 5],
    operands: &[Operand],
) -> Result<()> {
    let Rows { rows, channels } = attributes.extent;
    let wide = channels.is_multiple_of(cuda.pack());
    let arguments = Affine {
        x,
        scale,
        bias,
        residual,
        y,
        rows: rows as u64,
        channels: extent(channels)?,
        relu: u32::from(attributes.relu),
        wide: u32::from(wide),
        unused: 0,
    };
    let geometry = walk(cuda, entry, &attributes.extent, wide)?;
    cuda.launch((&cuda.variant(FILE), entry), geometry, &arguments, operands)
}

/// `InputGradientArguments` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct InputGradient {
    /// dy, x, scale, bias, mean, inverse_std, dgamma, dbeta, dx
    pointers: [u64; 9],
    rows: u64,
    channels: u32,
    relu: u32,
    frozen: u32,
    wide: u32,
}

pub(super) fn input_gradient(
    cuda: &Cuda,
    attributes: &BatchNormGradient,
    [dy, x, scale, bias, mean, inverse_std, dgamma, dbeta, dx]: [Span; 9],
) -> Result<()> {
    let (n, c) = (attributes.extent.elements()?, attributes.extent.channels);
    let operands = cuda.operands([
        ("dy", dy, Read, Activation, n),
        ("x", x, Read, Activation, n),
        ("scale", scale, Read, Number, c),
        ("bias", bias, Read, Number, c),
        ("mean", mean, Read, Number, c),
        ("inverse_std", inverse_std, Read, Number, c),
        ("dgamma", dgamma, Read, Number, c),
        ("dbeta", dbeta, Read, Number, c),
        ("dx", dx, Write, Activation, n),
    ])?;
    let wide = c.is_multiple_of(cuda.pack());
    let arguments = InputGradient {
        pointers: operands.map(|(_, span, _)| cuda.pointer(span)),
        rows: attributes.extent.rows as u64,
        channels: extent(c)?,
        relu: u32::from(attributes.relu),
        frozen: u32::from(attributes.frozen),
        wide: u32::from(wide),
    };
    let kernel = "batch_norm_input_gradient";
    let geometry = walk(cuda, kernel, &attributes.extent, wide)?;
    cuda.launch((&cuda.variant(FILE), kernel), geometry, &arguments, &operands)
}

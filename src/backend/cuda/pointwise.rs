//! Passes over elements: launches of `elementwise/pointwise.cu`.

use super::call::{Operand, all, entry, extent, few_threads, modules_of_both_types, of_both_types, threads};
use super::kernel_files::elementwise::pointwise::{Binary, Shortcut, Unary};
use super::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::{
    Accumulate, Add, Cast, CopyRows, Relu, ReluGradient, ReluGradientInPlace, ShortcutA, ShortcutAForward,
    ShortcutAGradient,
};
use crate::tensor::{DType, Span};

const FILE: &str = "elementwise/pointwise.cu";

const ENTRIES: &[Entry] = &[
    entry("relu", 32, true),
    entry("relu_gradient", 32, true),
    entry("add", 32, true),
    entry("copy", 32, true),
    entry("cast", 32, true),
    entry("shortcut_a", 40, true),
    entry("shortcut_a_gradient", 40, true),
];

/// The variant of the kernels for elements of a type, and the elements of a vector.
fn variant_for(dtype: DType) -> (Variant, usize) {
    (of_both_types(FILE)[usize::from(dtype == DType::Bf16)], 16 / dtype.size())
}

/// The modules of this family.
pub(super) fn modules() -> Vec<Module> {
    modules_of_both_types(FILE, ENTRIES)
}

fn unary(cuda: &Cuda, entry: &'static str, [x, y]: [Span; 2], operands: &[Operand]) -> Result<()> {
    let elements = y.elements;
    let arguments = Unary { x: cuda.pointer(x), y: cuda.pointer(y), elements: elements as u64 };
    let (variant, vector_size) = variant_for(y.dtype);
    cuda.launch((&variant, entry), threads(elements.div_ceil(vector_size))?, &arguments, operands)
}

fn binary(cuda: &Cuda, entry: &'static str, operands: [Span; 3], listed: &[Operand]) -> Result<()> {
    let elements = operands[2].elements;
    let [a, b, y] = operands.map(|span| cuda.pointer(span));
    let arguments = Binary { a, b, y, elements: elements as u64 };
    let (variant, vector_size) = variant_for(operands[2].dtype);
    cuda.launch((&variant, entry), threads(elements.div_ceil(vector_size))?, &arguments, listed)
}

pub(super) fn relu(cuda: &mut Cuda, op: &Relu<Span>, _: Span) -> Result<()> {
    unary(cuda, "relu", [op.x, op.y], &all(op.operands()))
}

pub(super) fn copy(cuda: &mut Cuda, op: &CopyRows<Span>, _: Span) -> Result<()> {
    unary(cuda, "copy", [op.x, op.y], &all(op.operands()))
}

pub(super) fn cast(cuda: &mut Cuda, op: &Cast<Span>, _: Span) -> Result<()> {
    unary(cuda, "cast", [op.x, op.y], &all(op.operands()))
}

pub(super) fn relu_gradient(cuda: &mut Cuda, op: &ReluGradient<Span>, _: Span) -> Result<()> {
    binary(cuda, "relu_gradient", [op.y, op.dy, op.dx], &all(op.operands()))
}

pub(super) fn relu_gradient_in_place(cuda: &mut Cuda, op: &ReluGradientInPlace<Span>, _: Span) -> Result<()> {
    binary(cuda, "relu_gradient", [op.y, op.x, op.x], &all(op.operands()))
}

pub(super) fn add(cuda: &mut Cuda, op: &Add<Span>, _: Span) -> Result<()> {
    binary(cuda, "add", [op.a, op.b, op.y], &all(op.operands()))
}

pub(super) fn accumulate(cuda: &mut Cuda, op: &Accumulate<Span>, _: Span) -> Result<()> {
    binary(cuda, "add", [op.y, op.x, op.y], &all(op.operands()))
}

pub(super) fn shortcut_a(cuda: &mut Cuda, op: &ShortcutAForward<Span>, _: Span) -> Result<()> {
    shortcut(cuda, "shortcut_a", &op.attributes, [op.x, op.y], &all(op.operands()))
}

pub(super) fn shortcut_a_gradient(cuda: &mut Cuda, op: &ShortcutAGradient<Span>, _: Span) -> Result<()> {
    shortcut(cuda, "shortcut_a_gradient", &op.attributes, [op.dy, op.dx], &all(op.operands()))
}

fn shortcut(
    cuda: &Cuda,
    entry: &'static str,
    attributes: &ShortcutA,
    [from, to]: [Span; 2],
    operands: &[Operand],
) -> Result<()> {
    let ShortcutA { height, width, in_channels, out_channels, stride, .. } = *attributes;
    let shift = (out_channels - in_channels) / 2;
    let vectorized = [in_channels, out_channels, shift].iter().all(|n| n.is_multiple_of(cuda.vector_size()));
    let elements = to.elements;
    let arguments = Shortcut {
        from: cuda.pointer(from),
        to: cuda.pointer(to),
        elements: elements as u64,
        height: extent(height)?,
        width: extent(width)?,
        in_channels: extent(in_channels)?,
        out_height: extent(attributes.out_height())?,
        out_width: extent(attributes.out_width())?,
        out_channels: extent(out_channels)?,
        stride: extent(stride)?,
        shift: extent(shift)?,
        vectorized: u32::from(vectorized),
        unused: 0,
    };
    let config = few_threads(elements.div_ceil(if vectorized { cuda.vector_size() } else { 1 }))?;
    cuda.launch((&cuda.variant(FILE), entry), config, &arguments, operands)
}

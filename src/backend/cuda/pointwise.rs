//! Passes over elements: launches of `pointwise.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{Operand, entry, extent, few_threads, modules_of_both_types, of_both_types, threads};
use super::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::Access::{Read, Update, Write};
use crate::ops::Content::{Activation, Number};
use crate::ops::{Content, Rows, ShortcutA};
use crate::tensor::{DType, Span};

const FILE: &str = "pointwise.cu";

const ENTRIES: &[Entry] = &[
    entry("relu", 32, true),
    entry("relu_gradient", 32, true),
    entry("add", 32, true),
    entry("copy", 32, true),
    entry("cast", 32, true),
    entry("shortcut_a", 40, true),
    entry("shortcut_a_gradient", 40, true),
];

/// What a call's operands hold where it takes activations or numbers: what their type says.
fn content_of(cuda: &Cuda, operand: Span) -> Content {
    if operand.dtype == cuda.dtype { Activation } else { Number }
}

/// The variant of the kernels for such a content, and the elements of a pack.
fn variant_for(cuda: &Cuda, content: Content) -> (Variant, usize) {
    let dtype = content.dtype(cuda.dtype);
    (of_both_types(FILE)[usize::from(dtype == DType::Bf16)], 16 / dtype.size())
}

/// What is compiled for this family.
pub(super) fn modules() -> Vec<Module> {
    modules_of_both_types(FILE, ENTRIES)
}

/// `Unary` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Unary {
    x: u64,
    y: u64,
    elements: u64,
}

/// `Binary` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Binary {
    a: u64,
    b: u64,
    y: u64,
    elements: u64,
}

/// `Shortcut` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Shortcut {
    from: u64,
    to: u64,
    elements: u64,
    height: u32,
    width: u32,
    in_channels: u32,
    out_height: u32,
    out_width: u32,
    out_channels: u32,
    stride: u32,
    shift: u32,
    wide: u32,
    unused: u32,
}

fn unary(
    cuda: &Cuda,
    entry: &'static str,
    content: Content,
    elements: usize,
    operands: [Operand; 2],
) -> Result<()> {
    let [x, y] = operands.map(|(_, span, _)| cuda.pointer(span));
    let arguments = Unary { x, y, elements: elements as u64 };
    let (variant, pack) = variant_for(cuda, content);
    cuda.launch((&variant, entry), threads(elements.div_ceil(pack))?, &arguments, &operands)
}

fn binary(
    cuda: &Cuda,
    entry: &'static str,
    content: Content,
    elements: usize,
    [a, b, y]: [Span; 3],
    operands: &[Operand],
) -> Result<()> {
    let [a, b, y] = [a, b, y].map(|span| cuda.pointer(span));
    let arguments = Binary { a, b, y, elements: elements as u64 };
    let (variant, pack) = variant_for(cuda, content);
    cuda.launch((&variant, entry), threads(elements.div_ceil(pack))?, &arguments, operands)
}

pub(super) fn relu(cuda: &Cuda, attributes: &Rows, [x, y]: [Span; 2]) -> Result<()> {
    let n = attributes.elements()?;
    let content = content_of(cuda, y);
    let operands = cuda.operands([("x", x, Read, content, n), ("y", y, Write, content, n)])?;
    unary(cuda, "relu", content, n, operands)
}

pub(super) fn copy(cuda: &Cuda, attributes: &Rows, [x, y]: [Span; 2]) -> Result<()> {
    let n = attributes.elements()?;
    let operands = cuda.operands([("x", x, Read, Activation, n), ("y", y, Write, Activation, n)])?;
    unary(cuda, "copy", Activation, n, operands)
}

pub(super) fn cast(cuda: &Cuda, attributes: &Rows, [x, y]: [Span; 2]) -> Result<()> {
    let n = attributes.elements()?;
    let operands = cuda.operands([("x", x, Read, Number, n), ("y", y, Write, Activation, n)])?;
    unary(cuda, "cast", Activation, n, operands)
}

pub(super) fn relu_gradient(cuda: &Cuda, attributes: &Rows, [y, dy, dx]: [Span; 3]) -> Result<()> {
    let n = attributes.elements()?;
    let content = content_of(cuda, y);
    let operands = cuda.operands([
        ("y", y, Read, content, n),
        ("dy", dy, Read, content, n),
        ("dx", dx, Write, content, n),
    ])?;
    binary(cuda, "relu_gradient", content, n, [y, dy, dx], &operands)
}

/// `dx` becomes zero where `y > 0` does not hold.
pub(super) fn mask(cuda: &Cuda, attributes: &Rows, [y, dx]: [Span; 2]) -> Result<()> {
    let n = attributes.elements()?;
    let operands = cuda.operands([("y", y, Read, Activation, n), ("dx", dx, Update, Activation, n)])?;
    binary(cuda, "relu_gradient", Activation, n, [y, dx, dx], &operands)
}

pub(super) fn add(cuda: &Cuda, attributes: &Rows, [a, b, y]: [Span; 3]) -> Result<()> {
    let n = attributes.elements()?;
    let operands = cuda.operands([
        ("a", a, Read, Activation, n),
        ("b", b, Read, Activation, n),
        ("y", y, Write, Activation, n),
    ])?;
    binary(cuda, "add", Activation, n, [a, b, y], &operands)
}

pub(super) fn accumulate(cuda: &Cuda, attributes: &Rows, [x, y]: [Span; 2]) -> Result<()> {
    let n = attributes.elements()?;
    let content = content_of(cuda, y);
    let operands = cuda.operands([("x", x, Read, content, n), ("y", y, Update, content, n)])?;
    binary(cuda, "add", content, n, [y, x, y], &operands)
}

pub(super) fn shortcut_a(cuda: &Cuda, attributes: &ShortcutA, [x, y]: [Span; 2]) -> Result<()> {
    let [n_x, n_y] = attributes.elements()?;
    let operands = cuda.operands([("x", x, Read, Activation, n_x), ("y", y, Write, Activation, n_y)])?;
    shortcut(cuda, "shortcut_a", attributes, n_y, operands)
}

pub(super) fn shortcut_a_gradient(cuda: &Cuda, attributes: &ShortcutA, [dy, dx]: [Span; 2]) -> Result<()> {
    let [n_x, n_y] = attributes.elements()?;
    let operands = cuda.operands([("dy", dy, Read, Activation, n_y), ("dx", dx, Write, Activation, n_x)])?;
    shortcut(cuda, "shortcut_a_gradient", attributes, n_x, operands)
}

fn shortcut(
    cuda: &Cuda,
    entry: &'static str,
    attributes: &ShortcutA,
    elements: usize,
    operands: [Operand; 2],
) -> Result<()> {
    let ShortcutA { height, width, in_channels, out_channels, stride, .. } = *attributes;
    let shift = (out_channels - in_channels) / 2;
    let wide = [in_channels, out_channels, shift].iter().all(|n| n.is_multiple_of(cuda.pack()));
    let [from, to] = operands.map(|(_, span, _)| cuda.pointer(span));
    let arguments = Shortcut {
        from,
        to,
        elements: elements as u64,
        height: extent(height)?,
        width: extent(width)?,
        in_channels: extent(in_channels)?,
        out_height: extent(attributes.out_height())?,
        out_width: extent(attributes.out_width())?,
        out_channels: extent(out_channels)?,
        stride: extent(stride)?,
        shift: extent(shift)?,
        wide: u32::from(wide),
        unused: 0,
    };
    let geometry = few_threads(elements.div_ceil(if wide { cuda.pack() } else { 1 }))?;
    cuda.launch((&cuda.variant(FILE), entry), geometry, &arguments, &operands)
}

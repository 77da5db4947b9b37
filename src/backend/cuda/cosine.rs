//! The cosine classifier: launches of `cosine.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{Operand, THREADS, entry, extent, grid};
use super::driver::Geometry;
use super::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::Access::{Read, Write};
use crate::ops::Content::Number;
use crate::ops::Cosine;
use crate::tensor::Span;

/// Always f32, whatever activations are.
const VARIANT: Variant = Variant { file: "cosine.cu", constants: &[] };

const ENTRIES: &[Entry] = &[
    entry("cosine_norms", 40, true),
    entry("cosine_forward", 80, false),
    entry("cosine_input_gradient", 80, false),
    entry("cosine_weight_gradient", 80, false),
    entry("cosine_scale_gradient", 40, false),
];

/// What is compiled for this family.
pub(super) fn modules() -> Vec<Module> {
    vec![Module { variant: VARIANT, entries: ENTRIES }]
}

/// Rows and columns of the part of a product that one block computes, and rows of a block of `cosine_norms`.
const TILE: usize = 64;
const ROWS_PER_BLOCK: usize = THREADS / 32;

/// A block for every tile of a matrix.
fn tiles(rows: usize, columns: usize) -> Result<Geometry> {
    grid(columns.div_ceil(TILE), rows.div_ceil(TILE))
}

/// `Norms` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Norms {
    /// x, weight, inverse_norms
    pointers: [u64; 3],
    batch: u32,
    outputs: u32,
    inputs: u32,
    epsilon: f32,
}

/// `Forward` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Forward {
    /// x, weight, scale, inverse_norms, cosines, y
    pointers: [u64; 6],
    batch: u32,
    outputs: u32,
    inputs: u32,
    softplus: u32,
}

pub(super) fn forward(
    cuda: &Cuda,
    attributes: &Cosine,
    [x, weight, scale, inverse_norms, cosines, y]: [Span; 6],
) -> Result<()> {
    let [n_x, n_weight, n_norms, n_y] = attributes.elements()?;
    let Cosine { batch, outputs, inputs, .. } = *attributes;
    let operands = cuda.operands([
        ("x", x, Read, Number, n_x),
        ("weight", weight, Read, Number, n_weight),
        ("scale", scale, Read, Number, 1),
        ("inverse_norms", inverse_norms, Write, Number, n_norms),
        ("cosines", cosines, Write, Number, n_y),
        ("y", y, Write, Number, n_y),
    ])?;
    let arguments = Norms {
        pointers: [x, weight, inverse_norms].map(|span| cuda.pointer(span)),
        batch: extent(batch)?,
        outputs: extent(outputs)?,
        inputs: extent(inputs)?,
        epsilon: attributes.epsilon as f32,
    };
    let [x, weight, scale, norms, cosines, y] = operands;
    let geometry = grid((batch + outputs).div_ceil(ROWS_PER_BLOCK), 1)?;
    cuda.launch((&VARIANT, "cosine_norms"), geometry, &arguments, &[x, weight, norms])?;
    let arguments = Forward {
        pointers: operands.map(|(_, span, _)| cuda.pointer(span)),
        batch: extent(batch)?,
        outputs: extent(outputs)?,
        inputs: extent(inputs)?,
        softplus: attributes.softplus.into(),
    };
    let norms = ("inverse_norms", norms.1, Read);
    let geometry = tiles(batch, outputs)?;
    let operands = [x, weight, scale, norms, cosines, y];
    cuda.launch((&VARIANT, "cosine_forward"), geometry, &arguments, &operands)
}

/// `Gradient` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Gradient {
    rows: u64,
    others: u64,
    row_norms: u64,
    other_norms: u64,
    /// cosines, dy, scale, gradient
    pointers: [u64; 4],
    row_count: u32,
    other_count: u32,
    inputs: u32,
    row_stride: u32,
    other_stride: u32,
    softplus: u32,
    constant: f32,
    unused: u32,
}

/// What both gradients read: x, weight, scale, inverse norms, cosines, dy.
fn read(attributes: &Cosine, read: [Span; 6]) -> Result<[super::call::Wanted; 6]> {
    let [n_x, n_weight, n_norms, n_y] = attributes.elements()?;
    let [x, weight, scale, norms, cosines, dy] = read;
    Ok([
        ("x", x, Read, Number, n_x),
        ("weight", weight, Read, Number, n_weight),
        ("scale", scale, Read, Number, 1),
        ("inverse_norms", norms, Read, Number, n_norms),
        ("cosines", cosines, Read, Number, n_y),
        ("dy", dy, Read, Number, n_y),
    ])
}

/// The gradient with respect to x or, seen from the other side, to weight.
fn gradient(
    cuda: &Cuda,
    attributes: &Cosine,
    [x, weight, scale, norms, cosines, dy, gradient]: [Operand; 7],
    to_weight: bool,
) -> Result<()> {
    let Cosine { batch, outputs, inputs, .. } = *attributes;
    let at = |operand: Operand| cuda.pointer(operand.1);
    let norms_of_x = at(norms);
    let norms_of_weight = norms_of_x + (batch * size_of::<f32>()) as u64;
    let mut arguments = Gradient {
        rows: at(x),
        others: at(weight),
        row_norms: norms_of_x,
        other_norms: norms_of_weight,
        pointers: [cosines, dy, scale, gradient].map(at),
        row_count: extent(batch)?,
        other_count: extent(outputs)?,
        inputs: extent(inputs)?,
        row_stride: extent(outputs)?,
        other_stride: 1,
        softplus: attributes.softplus.into(),
        constant: (1.0 / f64::from(attributes.epsilon as f32)) as f32,
        unused: 0,
    };
    if to_weight {
        std::mem::swap(&mut arguments.rows, &mut arguments.others);
        std::mem::swap(&mut arguments.row_norms, &mut arguments.other_norms);
        std::mem::swap(&mut arguments.row_count, &mut arguments.other_count);
        std::mem::swap(&mut arguments.row_stride, &mut arguments.other_stride);
    }
    let name = if to_weight { "cosine_weight_gradient" } else { "cosine_input_gradient" };
    let geometry = tiles(arguments.row_count as usize, inputs)?;
    let operands = [x, weight, scale, norms, cosines, dy, gradient];
    cuda.launch((&VARIANT, name), geometry, &arguments, &operands)
}

pub(super) fn input_gradient(
    cuda: &Cuda,
    attributes: &Cosine,
    [x, weight, scale, norms, cosines, dy, dx]: [Span; 7],
) -> Result<()> {
    let [x, weight, scale, norms, cosines, dy] = read(attributes, [x, weight, scale, norms, cosines, dy])?;
    let operands = cuda.operands([x, weight, scale, norms, cosines, dy, ("dx", dx, Write, Number, x.4)])?;
    gradient(cuda, attributes, operands, false)
}

/// `ScaleGradient` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ScaleGradient {
    /// cosines, dy, scale, dscale
    pointers: [u64; 4],
    elements: u64,
    softplus: u32,
    unused: u32,
}

pub(super) fn weight_gradient(
    cuda: &Cuda,
    attributes: &Cosine,
    [x, weight, scale, norms, cosines, dy, dweight, dscale]: [Span; 8],
) -> Result<()> {
    let [x, weight, scale, norms, cosines, dy] = read(attributes, [x, weight, scale, norms, cosines, dy])?;
    let operands = cuda.operands([
        x,
        weight,
        scale,
        norms,
        cosines,
        dy,
        ("dweight", dweight, Write, Number, weight.4),
        ("dscale", dscale, Write, Number, 1),
    ])?;
    let [x, weight, scale, norms, cosines, dy, dweight, dscale] = operands;
    gradient(cuda, attributes, [x, weight, scale, norms, cosines, dy, dweight], true)?;
    let operands = [cosines, dy, scale, dscale];
    let arguments = ScaleGradient {
        pointers: operands.map(|(_, span, _)| cuda.pointer(span)),
        elements: (attributes.batch * attributes.outputs) as u64,
        softplus: attributes.softplus.into(),
        unused: 0,
    };
    cuda.launch((&VARIANT, "cosine_scale_gradient"), grid(1, 1)?, &arguments, &operands)
}

//! The cosine classifier: launches of `head/cosine.cu`.

use super::call::{WARPS, all, entry, extent, grid};
use super::driver::LaunchConfig;
use super::kernel_files::common::pairwise_tile::TILE;
use super::kernel_files::head::cosine::{Forward, Gradient, Norms, ScaleGradient};
use super::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::Access::{Read, Write};
use crate::ops::{Cosine, CosineForward, CosineInputGradient, CosineWeightGradient};
use crate::tensor::Span;

/// Always f32, whatever activations are.
const VARIANT: Variant = Variant { file: "head/cosine.cu", constants: &[] };

const ENTRIES: &[Entry] = &[
    entry("cosine_norms", 40, true),
    entry("cosine_forward", 80, false),
    entry("cosine_input_gradient", 80, false),
    entry("cosine_weight_gradient", 80, false),
    entry("cosine_scale_gradient", 40, false),
];

/// The modules of this family.
pub(super) fn modules() -> Vec<Module> {
    vec![Module { variant: VARIANT, entries: ENTRIES }]
}

/// A thread block for each tile of a matrix.
fn tiles(rows: usize, columns: usize) -> Result<LaunchConfig> {
    grid(columns.div_ceil(TILE), rows.div_ceil(TILE))
}

pub(super) fn cosine(cuda: &mut Cuda, op: &CosineForward<Span>, _: Span) -> Result<()> {
    let Cosine { batch, outputs, inputs, epsilon, softplus } = op.attributes;
    let CosineForward { x, weight, scale, inverse_norms, cosines, y, .. } = *op;
    let arguments = Norms {
        x: cuda.pointer(x),
        weight: cuda.pointer(weight),
        inverse_norms: cuda.pointer(inverse_norms),
        batch: extent(batch)?,
        outputs: extent(outputs)?,
        inputs: extent(inputs)?,
        epsilon: epsilon as f32,
    };
    let config = grid((batch + outputs).div_ceil(WARPS), 1)?;
    let operands = [("x", x, Read), ("weight", weight, Read), ("inverse_norms", inverse_norms, Write)];
    cuda.launch((&VARIANT, "cosine_norms"), config, &arguments, &operands)?;
    let arguments = Forward {
        x: cuda.pointer(x),
        weight: cuda.pointer(weight),
        scale: cuda.pointer(scale),
        inverse_norms: cuda.pointer(inverse_norms),
        cosines: cuda.pointer(cosines),
        y: cuda.pointer(y),
        batch: extent(batch)?,
        outputs: extent(outputs)?,
        inputs: extent(inputs)?,
        softplus: softplus.into(),
    };
    let operands = [
        ("x", x, Read),
        ("weight", weight, Read),
        ("scale", scale, Read),
        ("inverse_norms", inverse_norms, Read),
        ("cosines", cosines, Write),
        ("y", y, Write),
    ];
    cuda.launch((&VARIANT, "cosine_forward"), tiles(batch, outputs)?, &arguments, &operands)
}

/// The gradient with respect to x or, seen from the other side, to weight.
fn gradient(cuda: &Cuda, op: &CosineInputGradient<Span>, to_weight: bool) -> Result<()> {
    let Cosine { batch, outputs, inputs, epsilon, softplus } = op.attributes;
    let at = |span| cuda.pointer(span);
    let norms_of_x = at(op.inverse_norms);
    let norms_of_weight = norms_of_x + (batch * size_of::<f32>()) as u64;
    let mut arguments = Gradient {
        rows: at(op.x),
        others: at(op.weight),
        row_norms: norms_of_x,
        other_norms: norms_of_weight,
        cosines: at(op.cosines),
        dy: at(op.dy),
        scale: at(op.scale),
        gradient: at(op.dx),
        row_count: extent(batch)?,
        other_count: extent(outputs)?,
        inputs: extent(inputs)?,
        row_stride: extent(outputs)?,
        other_stride: 1,
        softplus: softplus.into(),
        constant: (1.0 / f64::from(epsilon as f32)) as f32,
        unused: 0,
    };
    if to_weight {
        std::mem::swap(&mut arguments.rows, &mut arguments.others);
        std::mem::swap(&mut arguments.row_norms, &mut arguments.other_norms);
        std::mem::swap(&mut arguments.row_count, &mut arguments.other_count);
        std::mem::swap(&mut arguments.row_stride, &mut arguments.other_stride);
    }
    let name = if to_weight { "cosine_weight_gradient" } else { "cosine_input_gradient" };
    let config = tiles(arguments.row_count as usize, inputs)?;
    cuda.launch((&VARIANT, name), config, &arguments, &all(op.operands()))
}

pub(super) fn cosine_input_gradient(cuda: &mut Cuda, op: &CosineInputGradient<Span>, _: Span) -> Result<()> {
    gradient(cuda, op, false)
}

pub(super) fn cosine_weight_gradient(
    cuda: &mut Cuda,
    op: &CosineWeightGradient<Span>,
    _: Span,
) -> Result<()> {
    let CosineWeightGradient { attributes, x, weight, scale, inverse_norms, cosines, dy, dweight, dscale } =
        *op;
    let mirrored =
        CosineInputGradient { attributes, x, weight, scale, inverse_norms, cosines, dy, dx: dweight };
    gradient(cuda, &mirrored, true)?;
    let operands =
        [("cosines", cosines, Read), ("dy", dy, Read), ("scale", scale, Read), ("dscale", dscale, Write)];
    let arguments = ScaleGradient {
        cosines: cuda.pointer(cosines),
        dy: cuda.pointer(dy),
        scale: cuda.pointer(scale),
        dscale: cuda.pointer(dscale),
        elements: (attributes.batch * attributes.outputs) as u64,
        softplus: attributes.softplus.into(),
        unused: 0,
    };
    cuda.launch((&VARIANT, "cosine_scale_gradient"), grid(1, 1)?, &arguments, &operands)
}

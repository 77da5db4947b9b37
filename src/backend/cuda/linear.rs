//! The fully connected layer: launches of `head/linear.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{Operand, entry, extent, few_threads, grid, scratch};
use super::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::Access::{Read, Write};
use crate::ops::{Call, Linear, LinearForward, LinearInputGradient, LinearWeightGradient};
use crate::tensor::{DType, Span};

/// Always f32, whatever activations are.
const VARIANT: Variant = Variant { file: "head/linear.cu", constants: &[] };

const ENTRIES: &[Entry] = &[
    entry("linear_forward", 80, false),
    entry("linear_input_gradient", 80, false),
    entry("linear_weight_gradient", 80, false),
    entry("linear_split_k_reduce", 32, false),
    entry("linear_bias_gradient", 32, false),
];

/// The modules of this family.
pub(super) fn modules() -> Vec<Module> {
    vec![Module { variant: VARIANT, entries: ENTRIES }]
}

/// Rows and columns of the tile that a thread block computes, and its BLOCK_K; outputs of a thread block of
/// `linear_bias_gradient`. All as in the kernels.
const TILE: usize = 64;
const DEPTH: usize = 16;
const COLUMNS: usize = 8;

/// The grid of a GEMM: tiles times split-K slices.
struct Cut {
    rows: usize,
    columns: usize,
    depth: usize,
    slice: usize,
}

impl Cut {
    /// Enough slices to keep the device busy, none so thin that adding it costs more than it saves.
    fn new(cuda: &Cuda, [rows, columns, depth]: [usize; 3]) -> Cut {
        const BLOCKS_PER_MULTIPROCESSOR: usize = 2;
        const THINNEST: usize = 4 * DEPTH;
        let blocks = cuda.driver().properties().multiprocessors as usize * BLOCKS_PER_MULTIPROCESSOR;
        let slices = (blocks / Cut::tiles(rows, columns)).clamp(1, depth.div_ceil(THINNEST));
        Cut { rows, columns, depth, slice: depth.div_ceil(slices).next_multiple_of(DEPTH) }
    }

    fn tiles(rows: usize, columns: usize) -> usize {
        rows.div_ceil(TILE) * columns.div_ceil(TILE)
    }

    fn slices(&self) -> usize {
        self.depth.div_ceil(self.slice)
    }

    /// Elements of all slices, which are added afterwards: none where there is one slice.
    fn partial(&self) -> usize {
        if self.slices() == 1 { 0 } else { self.slices() * self.rows * self.columns }
    }
}

/// Scratch memory of the calls of this family; `None` for others.
pub(super) fn workspace_bytes(cuda: &Cuda, call: &Call<()>) -> Option<usize> {
    let extents = match call {
        Call::LinearForward(LinearForward { attributes: l, .. }) => [l.batch, l.outputs, l.inputs],
        Call::LinearInputGradient(LinearInputGradient { attributes: l, .. }) => {
            [l.batch, l.inputs, l.outputs]
        }
        Call::LinearWeightGradient(LinearWeightGradient { attributes: l, .. }) => {
            [l.outputs, l.inputs, l.batch]
        }
        _ => return None,
    };
    Some(Cut::new(cuda, extents).partial() * DType::F32.size())
}

/// `Gemm` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Product {
    a: u64,
    b: u64,
    bias: u64,
    c: u64,
    rows: u32,
    columns: u32,
    depth: u32,
    slice: u32,
}

/// `SplitKReduce` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Sum {
    partial: u64,
    bias: u64,
    c: u64,
    elements: u64,
    columns: u32,
    slices: u32,
}

/// `C = A B`, with the bias of its columns where there is one.
fn product(
    cuda: &Cuda,
    entry: &'static str,
    extents: [usize; 3],
    [a, b, c]: [Operand; 3],
    bias: Option<Operand>,
    workspace: Span,
) -> Result<()> {
    let cut = Cut::new(cuda, extents);
    let slices = cut.slices();
    let bias_pointer = bias.map_or(0, |(_, span, _)| cuda.pointer(span));
    let (rows, columns) = (extent(cut.rows)?, extent(cut.columns)?);
    let tiles = Cut::tiles(cut.rows, cut.columns);
    let target = if slices == 1 { c } else { ("partial", scratch(workspace, cut.partial())?, Write) };
    let arguments = Product {
        a: cuda.pointer(a.1),
        b: cuda.pointer(b.1),
        bias: if slices == 1 { bias_pointer } else { 0 },
        c: cuda.pointer(target.1),
        rows,
        columns,
        depth: extent(cut.depth)?,
        slice: extent(cut.slice)?,
    };
    let mut operands = vec![a, b, target];
    if slices == 1 {
        operands.extend(bias);
    }
    cuda.launch((&VARIANT, entry), grid(tiles, slices)?, &arguments, &operands)?;
    if slices == 1 {
        return Ok(());
    }
    let elements = cut.rows * cut.columns;
    let arguments = Sum {
        partial: cuda.pointer(target.1),
        bias: bias_pointer,
        c: cuda.pointer(c.1),
        elements: elements as u64,
        columns,
        slices: slices as u32,
    };
    let mut operands = vec![("partial", target.1, Read), c];
    operands.extend(bias);
    cuda.launch((&VARIANT, "linear_split_k_reduce"), few_threads(elements)?, &arguments, &operands)
}

pub(super) fn linear(cuda: &mut Cuda, op: &LinearForward<Span>, workspace: Span) -> Result<()> {
    let Linear { batch, inputs, outputs } = op.attributes;
    let operands = [("x", op.x, Read), ("weight", op.weight, Read), ("y", op.y, Write)];
    let bias = Some(("bias", op.bias, Read));
    product(cuda, "linear_forward", [batch, outputs, inputs], operands, bias, workspace)
}

pub(super) fn linear_input_gradient(
    cuda: &mut Cuda,
    op: &LinearInputGradient<Span>,
    workspace: Span,
) -> Result<()> {
    let Linear { batch, inputs, outputs } = op.attributes;
    let operands = [("dy", op.dy, Read), ("weight", op.weight, Read), ("dx", op.dx, Write)];
    product(cuda, "linear_input_gradient", [batch, inputs, outputs], operands, None, workspace)
}

/// `BiasGradient` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BiasGradient {
    dy: u64,
    dbias: u64,
    batch: u32,
    outputs: u32,
}

pub(super) fn linear_weight_gradient(
    cuda: &mut Cuda,
    op: &LinearWeightGradient<Span>,
    workspace: Span,
) -> Result<()> {
    let Linear { batch, inputs, outputs } = op.attributes;
    let (dy, dbias) = (("dy", op.dy, Read), ("dbias", op.dbias, Write));
    let operands = [dy, ("x", op.x, Read), ("dweight", op.dweight, Write)];
    product(cuda, "linear_weight_gradient", [outputs, inputs, batch], operands, None, workspace)?;
    let arguments = BiasGradient {
        dy: cuda.pointer(op.dy),
        dbias: cuda.pointer(op.dbias),
        batch: extent(batch)?,
        outputs: extent(outputs)?,
    };
    let config = grid(outputs.div_ceil(COLUMNS), 1)?;
    cuda.launch((&VARIANT, "linear_bias_gradient"), config, &arguments, &[dy, dbias])
}

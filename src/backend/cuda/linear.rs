//! The fully connected layer: launches of `head/linear.cu`.

use super::call::{Operand, entry, extent, few_threads, grid, scratch};
use super::kernel_files::head::linear::{BLOCK_K, BiasGradient, COLUMNS, Gemm, SplitKReduce, TILE};
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

/// The grid of a GEMM: tiles times split-K slices.
struct Cut {
    rows: usize,
    columns: usize,
    k_extent: usize,
    slice: usize,
}

impl Cut {
    /// Enough slices to keep the device busy, none so thin that adding it costs more than it saves.
    fn new(cuda: &Cuda, [rows, columns, k_extent]: [usize; 3]) -> Cut {
        const BLOCKS_PER_SM: usize = 2;
        const THINNEST: usize = 4 * BLOCK_K;
        let blocks = cuda.driver().properties().sms as usize * BLOCKS_PER_SM;
        let slices = (blocks / Cut::tiles(rows, columns)).clamp(1, k_extent.div_ceil(THINNEST));
        Cut { rows, columns, k_extent, slice: k_extent.div_ceil(slices).next_multiple_of(BLOCK_K) }
    }

    fn tiles(rows: usize, columns: usize) -> usize {
        rows.div_ceil(TILE) * columns.div_ceil(TILE)
    }

    fn slices(&self) -> usize {
        self.k_extent.div_ceil(self.slice)
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
    let arguments = Gemm {
        a: cuda.pointer(a.1),
        b: cuda.pointer(b.1),
        bias: if slices == 1 { bias_pointer } else { 0 },
        c: cuda.pointer(target.1),
        rows,
        columns,
        k_extent: extent(cut.k_extent)?,
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
    let arguments = SplitKReduce {
        partial: cuda.pointer(target.1),
        bias: bias_pointer,
        c: cuda.pointer(c.1),
        elements: elements as u64,
        columns,
        split_k: slices as u32,
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

//! Sums over the rows of a matrix, for statistics and for their gradient, in stages.
//!
//! The first stage takes partial sums over chunks of rows: a kernel of this family that reads the matrix, or the epilogue of the
//! convolution that has just computed it. Where chunks are very many, as they are behind a convolution, a second stage merges runs of
//! them. The last one merges the rest, and finalizes.

use super::super::call::{THREADS, entry, extent, grid, scratch};
use super::super::driver::LaunchConfig;
use super::super::kernel_files::common::reduce::Cut;
use super::super::kernel_files::normalization::batch_norm::{
    Chunks, FINALIZE_COLUMNS, FinalizeReduceArguments, FinalizeStatisticsArguments, ReduceArguments,
    StatisticsArguments,
};
use super::super::kernel_files::normalization::batch_norm_merge::{MERGE_COLUMNS, MergeArguments, RUN};
use super::super::{Cuda, Entry, Module, Variant};
use super::{FILE, wave};
use crate::error::Result;
use crate::ops::Access::{Read, Update, Write};
use crate::ops::{BatchNormReduce, BatchNormStatistics, Call, Rows, StatisticsEpilogue};
use crate::tensor::{DType, Span};

/// Always f32, whatever activations are.
const MERGE_VARIANT: Variant = Variant { file: "normalization/batch_norm_merge.cu", constants: &[] };
const MERGE_ENTRIES: &[Entry] = &[entry("merge_moments", 64, false), entry("merge_sums", 48, false)];
pub(super) const MERGE: Module = Module { variant: MERGE_VARIANT, entries: MERGE_ENTRIES };

impl Chunks {
    /// Enough chunks to keep the device busy, none so short that a thread has less than a few rows.
    fn new(cuda: &Cuda, extents: &Rows) -> Result<Chunks> {
        const ROWS_PER_THREAD: usize = 4;
        let Rows { rows, channels } = *extents;
        let vectorized = channels.is_multiple_of(cuda.vector_size());
        // Eight vectors are a line of 128 bytes.
        let (groups, most) = if vectorized { (channels / cuda.vector_size(), 8) } else { (channels, 32) };
        let columns = groups.next_power_of_two().min(most);
        let shortest = THREADS / columns * ROWS_PER_THREAD;
        // One cut for both kinds of sums: that of the kernel with more registers.
        let wanted = (wave(cuda, "batch_norm_sums") / groups.div_ceil(columns)).max(1);
        let rows_per_chunk = rows.div_ceil(wanted).next_multiple_of(shortest);
        let cut = Cut {
            rows: rows as u64,
            rows_per_chunk: rows_per_chunk as u64,
            channels: extent(channels)?,
            chunks: extent(rows.div_ceil(rows_per_chunk))?,
        };
        Ok(Chunks { cut, columns: columns as u32, vectorized: u32::from(vectorized) })
    }

    /// The sums of these chunks, at the front of scratch memory.
    fn partials(&self, extents: &Rows, workspace: Span) -> Result<Partials> {
        Partials::new(extents, self.cut.rows_per_chunk as usize, self.cut.chunks as usize, workspace)
    }

    /// Blocks of the first stage.
    fn first_stage(&self, cuda: &Cuda) -> Result<LaunchConfig> {
        let held = self.columns as usize * if self.vectorized == 1 { cuda.vector_size() } else { 1 };
        grid((self.cut.channels as usize).div_ceil(held), self.cut.chunks as usize)
    }
}

/// Partial sums of a first stage over a matrix, in scratch memory: (2, chunks, channels), f32. For statistics the means, and the squared
/// deviations from them, of every chunk; for a gradient its two sums.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Partials {
    cut: Cut,
    /// Where the first stage writes.
    pub(in super::super) span: Span,
    /// Room for merged ones.
    merged: Span,
}

/// Chunks that the last stage merges itself: a lane there has sixteen of them, four in flight at a time.
const FEW: usize = 512;

/// Chunks after merging.
fn merged(chunks: usize) -> usize {
    if chunks > FEW { chunks.div_ceil(RUN) } else { 0 }
}

impl Partials {
    /// Elements of scratch memory for the sums of `chunks` chunks.
    pub(in super::super) fn elements(chunks: usize, channels: usize) -> usize {
        2 * (chunks + merged(chunks)) * channels
    }

    /// The sums of chunks of `rows_per_chunk` rows, the last of which may have fewer, at the front of scratch memory.
    pub(in super::super) fn new(
        extents: &Rows,
        rows_per_chunk: usize,
        chunks: usize,
        workspace: Span,
    ) -> Result<Partials> {
        let Rows { rows, channels } = *extents;
        let all = scratch(workspace, Partials::elements(chunks, channels))?;
        let first = 2 * chunks * channels;
        Ok(Partials {
            cut: Cut {
                rows: rows as u64,
                rows_per_chunk: rows_per_chunk as u64,
                channels: extent(channels)?,
                chunks: extent(chunks)?,
            },
            span: Span { elements: first, ..all },
            merged: Span {
                offset: all.offset + first * DType::F32.size(),
                elements: all.elements - first,
                ..all
            },
        })
    }

    /// Runs of chunks merged into one each, where there are too many for the last stage.
    ///
    /// That has a block for eight channels, so 64 channels keep eight SMs busy. Behind a convolution of 64 channels
    /// over a million pixels there are 8192 chunks, 4 MB, of which each of its lanes would fetch 256 pieces one after the other; a
    /// run of 64 chunks has a block of its own for 32 channels, which has all of it in flight at a time.
    fn few(self, cuda: &Cuda, entry: &'static str) -> Result<Partials> {
        let chunks = merged(self.cut.chunks as usize);
        if chunks == 0 {
            return Ok(self);
        }
        let arguments = MergeArguments {
            partial: cuda.pointer(self.span),
            merged: cuda.pointer(self.merged),
            cut: self.cut,
        };
        let config = grid((self.cut.channels as usize).div_ceil(MERGE_COLUMNS), chunks)?;
        let operands = [("partial", self.span, Read), ("merged", self.merged, Write)];
        cuda.launch((&MERGE_VARIANT, entry), config, &arguments, &operands)?;
        let rows_per_chunk = self.cut.rows_per_chunk * RUN as u64;
        let cut = Cut { rows_per_chunk, chunks: chunks as u32, ..self.cut };
        Ok(Partials { cut, span: self.merged, merged: Span { elements: 0, ..self.merged } })
    }

    /// Blocks of the last stage.
    fn last_stage(&self) -> Result<LaunchConfig> {
        grid((self.cut.channels as usize).div_ceil(FINALIZE_COLUMNS), 1)
    }

    /// Statistics from means and deviations of chunks; `pivot` is a matrix whose first row was taken off before.
    pub(in super::super) fn finish_statistics(
        self,
        cuda: &Cuda,
        op: &StatisticsEpilogue<Span>,
        pivot: Option<Span>,
    ) -> Result<()> {
        let partials = self.few(cuda, "merge_moments")?;
        let arguments = FinalizeStatisticsArguments {
            pivot: pivot.map_or(0, |x| cuda.pointer(x)),
            partial: cuda.pointer(partials.span),
            gamma: cuda.pointer(op.gamma),
            beta: cuda.pointer(op.beta),
            mean: cuda.pointer(op.mean),
            inverse_std: cuda.pointer(op.inverse_std),
            scale: cuda.pointer(op.scale),
            bias: cuda.pointer(op.bias),
            running_mean: cuda.pointer(op.running_mean),
            running_variance: cuda.pointer(op.running_variance),
            cut: partials.cut,
            epsilon: op.epsilon as f32,
            momentum: op.momentum as f32,
            keep: (1.0 - op.momentum) as f32,
            unused: 0,
        };
        let mut operands = vec![
            ("gamma", op.gamma, Read),
            ("beta", op.beta, Read),
            ("mean", op.mean, Write),
            ("inverse_std", op.inverse_std, Write),
            ("scale", op.scale, Write),
            ("bias", op.bias, Write),
            ("running_mean", op.running_mean, Update),
            ("running_variance", op.running_variance, Update),
            ("partial", partials.span, Read),
        ];
        operands.extend(pivot.map(|x| ("x", x, Read)));
        let kernel = (&cuda.variant(FILE), "batch_norm_statistics");
        cuda.launch(kernel, partials.last_stage()?, &arguments, &operands)
    }

    /// dgamma and dbeta from the sums of chunks.
    pub(in super::super) fn finish_reduce(
        self,
        cuda: &Cuda,
        inverse_std: Span,
        [dgamma, dbeta]: [Span; 2],
    ) -> Result<()> {
        let partials = self.few(cuda, "merge_sums")?;
        let arguments = FinalizeReduceArguments {
            partial: cuda.pointer(partials.span),
            inverse_std: cuda.pointer(inverse_std),
            dgamma: cuda.pointer(dgamma),
            dbeta: cuda.pointer(dbeta),
            cut: partials.cut,
        };
        let operands = [
            ("inverse_std", inverse_std, Read),
            ("dgamma", dgamma, Write),
            ("dbeta", dbeta, Write),
            ("partial", partials.span, Read),
        ];
        let kernel = (&cuda.variant(FILE), "batch_norm_reduce");
        cuda.launch(kernel, partials.last_stage()?, &arguments, &operands)
    }
}

/// Scratch memory of the calls of this family; `None` for others.
pub(in super::super) fn workspace_bytes(cuda: &Cuda, call: &Call<()>) -> Option<usize> {
    let extents = match call {
        Call::BatchNormStatistics(op) => op.attributes.extent,
        Call::BatchNormReduce(op) => op.attributes.extent,
        _ => return None,
    };
    // Extents that no kernel can do are refused where they are used.
    let cut = Chunks::new(cuda, &extents).ok()?.cut;
    Some(Partials::elements(cut.chunks as usize, extents.channels) * DType::F32.size())
}

pub(in super::super) fn batch_norm_statistics(
    cuda: &mut Cuda,
    op: &BatchNormStatistics<Span>,
    workspace: Span,
) -> Result<()> {
    let extents = &op.attributes.extent;
    let chunks = Chunks::new(cuda, extents)?;
    let partials = chunks.partials(extents, workspace)?;
    let arguments =
        StatisticsArguments { x: cuda.pointer(op.x), partial: cuda.pointer(partials.span), chunks };
    let kernel = (&cuda.variant(FILE), "batch_norm_moments");
    let operands = [("x", op.x, Read), ("partial", partials.span, Write)];
    cuda.launch(kernel, chunks.first_stage(cuda)?, &arguments, &operands)?;
    partials.finish_statistics(cuda, &op.as_epilogue(), Some(op.x))
}

pub(in super::super) fn batch_norm_reduce(
    cuda: &mut Cuda,
    op: &BatchNormReduce<Span>,
    workspace: Span,
) -> Result<()> {
    let extents = &op.attributes.extent;
    let chunks = Chunks::new(cuda, extents)?;
    let partials = chunks.partials(extents, workspace)?;
    let arguments = ReduceArguments {
        dy: cuda.pointer(op.dy),
        x: cuda.pointer(op.x),
        scale: cuda.pointer(op.scale),
        bias: cuda.pointer(op.bias),
        mean: cuda.pointer(op.mean),
        partial: cuda.pointer(partials.span),
        chunks,
        relu: u64::from(op.attributes.relu),
    };
    let operands = [
        ("dy", op.dy, Read),
        ("x", op.x, Read),
        ("scale", op.scale, Read),
        ("bias", op.bias, Read),
        ("mean", op.mean, Read),
        ("partial", partials.span, Write),
    ];
    let kernel = (&cuda.variant(FILE), "batch_norm_sums");
    cuda.launch(kernel, chunks.first_stage(cuda)?, &arguments, &operands)?;
    partials.finish_reduce(cuda, op.inverse_std, [op.dgamma, op.dbeta])
}

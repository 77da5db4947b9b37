//! A network's head: launches of `head/pool_head.cu`, or of the two kernels it replaces where its thread block does not hold the images or
//! the matrix is large.

use super::call::{all, entry, extent, grid, modules_of_both_types};
use super::kernel_files::head::pool_head::{Arguments, IMAGES, MOST_CHANNELS};
use super::pooling::Averaging;
use super::{Cuda, Entry, Module};
use crate::error::Result;
use crate::ops::{Call, CallConfig, Expansion, PoolHead, PoolHeadForward};
use crate::tensor::Span;

const FILE: &str = "head/pool_head.cu";

const ENTRIES: &[Entry] = &[entry("pool_head", 80, true)];

/// The modules of this family.
pub(super) fn modules() -> Vec<Module> {
    modules_of_both_types(FILE, ENTRIES)
}

/// Elements of a weight that every thread block may read again: they come from L2.
/// Chosen, not measured.
const MOST_WEIGHTS: usize = 1 << 18;

fn fits(head: &PoolHead) -> bool {
    head.pool.channels <= MOST_CHANNELS && head.outputs * head.pool.channels <= MOST_WEIGHTS
}

/// How the call of this family is carried out; `None` for others.
pub(super) fn prepare(cuda: &Cuda, call: &Call<()>) -> Option<CallConfig> {
    match call {
        Call::PoolHeadForward(op) if fits(&op.attributes) => Some(CallConfig::default()),
        Call::PoolHeadForward(_) => Some(Expansion::on(cuda, call.numbered().expand()?)),
        _ => None,
    }
}

pub(super) fn pool_head(cuda: &mut Cuda, op: &PoolHeadForward<Span>, _: Span) -> Result<()> {
    let PoolHead { pool, outputs } = &op.attributes;
    let averaging = Averaging::new(cuda, pool);
    // The fewest images per thread block for which every SM has a thread block.
    let sms = cuda.driver().properties().sms as usize;
    let images = pool.batch.div_ceil(sms).clamp(1, IMAGES);
    let arguments = Arguments {
        x: cuda.pointer(op.x),
        weight: cuda.pointer(op.weight),
        bias: cuda.pointer(op.bias),
        features: cuda.pointer(op.features),
        logits: cuda.pointer(op.logits),
        batch: extent(pool.batch)?,
        pixels: extent(pool.height * pool.width)?,
        channels: extent(pool.channels)?,
        outputs: extent(*outputs)?,
        images: images as u32,
        column_blocks: extent(averaging.column_blocks)?,
        columns: averaging.columns as u32,
        vectorized: averaging.vectorized.into(),
        vectorized_rows: pool.channels.is_multiple_of(4).into(),
        unused: 0,
    };
    let config = grid(pool.batch.div_ceil(images), 1)?;
    cuda.launch((&cuda.variant(FILE), "pool_head"), config, &arguments, &all(op.operands()))
}

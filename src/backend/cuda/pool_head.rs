//! A network's head: launches of `head/pool_head.cu`, or of the two kernels it replaces where its thread block does not hold the images or
//! the matrix is large.

use bytemuck::{Pod, Zeroable};

use super::call::{all, entry, extent, grid, modules_of_both_types};
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

/// Images of a thread block at most, and channels of an image that its shared memory holds. As in the kernel.
const MOST_IMAGES: usize = 4;
const MOST_CHANNELS: usize = 2048;

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

/// `Arguments` of the kernel.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Arguments {
    /// x, weight, bias, features, logits
    pointers: [u64; 5],
    batch: u32,
    pixels: u32,
    channels: u32,
    outputs: u32,
    images: u32,
    column_blocks: u32,
    columns: u32,
    vectorized: u32,
    vectorized_rows: u32,
    unused: u32,
}

pub(super) fn pool_head(cuda: &mut Cuda, op: &PoolHeadForward<Span>, _: Span) -> Result<()> {
    let PoolHead { pool, outputs } = &op.attributes;
    let averaging = Averaging::new(cuda, pool);
    // The fewest images per thread block for which every SM has a thread block.
    let multiprocessors = cuda.driver().properties().multiprocessors as usize;
    let images = pool.batch.div_ceil(multiprocessors).clamp(1, MOST_IMAGES);
    let arguments = Arguments {
        pointers: [op.x, op.weight, op.bias, op.features, op.logits].map(|span| cuda.pointer(span)),
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

//! Pooling: launches of `pooling/pooling.cu`.

use super::call::{THREADS, all, entry, extent, few_threads, grid, modules_of_both_types};
use super::driver::LaunchConfig;
use super::kernel_files::pooling::pooling::{
    AverageArguments, AverageGradientArguments, MaxPoolArguments, MaxPoolGradientArguments, Window,
};
use super::{Cuda, Entry, Module};
use crate::error::Result;
use crate::ops::{GlobalAveragePool, GlobalAveragePoolGradient, GlobalPool, MaxPool, MaxPoolGradient, Pool};
use crate::tensor::Span;

const FILE: &str = "pooling/pooling.cu";

const ENTRIES: &[Entry] = &[
    entry("max_pool", 48, true),
    entry("max_pool_gradient", 64, true),
    entry("global_average_pool", 40, true),
    entry("global_average_pool_gradient", 40, true),
];

/// The modules of this family.
pub(super) fn modules() -> Vec<Module> {
    modules_of_both_types(FILE, ENTRIES)
}

fn window(pool: &Pool) -> Result<Window> {
    Ok(Window {
        height: extent(pool.height)?,
        width: extent(pool.width)?,
        out_height: extent(pool.out_height())?,
        out_width: extent(pool.out_width())?,
        channels: extent(pool.channels)?,
        window: extent(pool.window)?,
        stride: extent(pool.stride)?,
        padding: extent(pool.padding)?,
    })
}

/// Whether a thread holds a vector of channels, and the grid for `elements` elements.
fn vectors(cuda: &Cuda, channels: usize, elements: usize) -> Result<(bool, LaunchConfig)> {
    let vectorized = channels.is_multiple_of(cuda.vector_size());
    Ok((vectorized, few_threads(elements / if vectorized { cuda.vector_size() } else { 1 })?))
}

pub(super) fn max_pool(cuda: &mut Cuda, op: &MaxPool<Span>, _: Span) -> Result<()> {
    let (vectorized, config) = vectors(cuda, op.attributes.channels, op.y.elements)?;
    let arguments = MaxPoolArguments {
        x: cuda.pointer(op.x),
        y: cuda.pointer(op.y),
        argmax: cuda.pointer(op.argmax),
        elements: op.y.elements as u64,
        window: window(&op.attributes)?,
        vectorized: vectorized.into(),
    };
    cuda.launch((&cuda.variant(FILE), "max_pool"), config, &arguments, &all(op.operands()))
}

pub(super) fn max_pool_gradient(cuda: &mut Cuda, op: &MaxPoolGradient<Span>, _: Span) -> Result<()> {
    let (vectorized, config) = vectors(cuda, op.attributes.channels, op.dx.elements)?;
    let arguments = MaxPoolGradientArguments {
        dy: cuda.pointer(op.dy),
        argmax: cuda.pointer(op.argmax),
        dx: cuda.pointer(op.dx),
        elements: op.dx.elements as u64,
        window: window(&op.attributes)?,
        vectorized: vectorized.into(),
    };
    cuda.launch((&cuda.variant(FILE), "max_pool_gradient"), config, &arguments, &all(op.operands()))
}

/// The threads of a thread block over an image whose pixels are averaged.
pub(super) struct Averaging {
    /// Whether a thread holds a vector of channels.
    pub vectorized: bool,
    /// Threads side by side along channels.
    pub columns: usize,
    /// Times that they fit into the channels.
    pub column_blocks: usize,
}

impl Averaging {
    /// Few pixels need few lanes; what is left of the block goes along channels, as far as there are any.
    pub fn new(cuda: &Cuda, pool: &GlobalPool) -> Averaging {
        const PIXELS_PER_THREAD: usize = 4;
        let vectorized = pool.channels.is_multiple_of(cuda.vector_size());
        let groups = pool.channels / if vectorized { cuda.vector_size() } else { 1 };
        let pixels = pool.height * pool.width;
        let lanes = pixels.div_ceil(PIXELS_PER_THREAD).next_power_of_two().min(THREADS / 8);
        let columns = (THREADS / lanes).min(groups.next_power_of_two());
        Averaging { vectorized, columns, column_blocks: groups.div_ceil(columns) }
    }
}

pub(super) fn global_average_pool(cuda: &mut Cuda, op: &GlobalAveragePool<Span>, _: Span) -> Result<()> {
    let GlobalPool { batch, height, width, channels } = op.attributes;
    let Averaging { vectorized, columns, column_blocks } = Averaging::new(cuda, &op.attributes);
    let arguments = AverageArguments {
        x: cuda.pointer(op.x),
        y: cuda.pointer(op.y),
        pixels: extent(height * width)?,
        channels: extent(channels)?,
        column_blocks: extent(column_blocks)?,
        columns: columns as u32,
        vectorized: u32::from(vectorized),
        unused: 0,
    };
    let config = grid(batch * column_blocks, 1)?;
    cuda.launch((&cuda.variant(FILE), "global_average_pool"), config, &arguments, &all(op.operands()))
}

pub(super) fn global_average_pool_gradient(
    cuda: &mut Cuda,
    op: &GlobalAveragePoolGradient<Span>,
    _: Span,
) -> Result<()> {
    let GlobalPool { height, width, channels, .. } = op.attributes;
    let elements = op.dx.elements;
    let (vectorized, config) = vectors(cuda, channels, elements)?;
    let arguments = AverageGradientArguments {
        dy: cuda.pointer(op.dy),
        dx: cuda.pointer(op.dx),
        elements: elements as u64,
        pixels: extent(height * width)?,
        channels: extent(channels)?,
        vectorized: u32::from(vectorized),
        unused: 0,
    };
    cuda.launch(
        (&cuda.variant(FILE), "global_average_pool_gradient"),
        config,
        &arguments,
        &all(op.operands()),
    )
}

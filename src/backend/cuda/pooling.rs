//! Pooling: launches of `pooling/pooling.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{THREADS, all, entry, extent, few_threads, grid, modules_of_both_types};
use super::driver::LaunchConfig;
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

/// `MaxPoolArguments` and `MaxPoolGradientArguments` of the kernels, whose first three are x, y, argmax or dy, argmax, dx.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MaxArguments {
    pointers: [u64; 3],
    elements: u64,
    /// height, width, out_height, out_width, channels, window, stride, padding
    window: [u32; 8],
    vectorized: u64,
}

fn max_arguments(pool: &Pool, pointers: [u64; 3], elements: usize, vectorized: bool) -> Result<MaxArguments> {
    let extents = [
        pool.height,
        pool.width,
        pool.out_height(),
        pool.out_width(),
        pool.channels,
        pool.window,
        pool.stride,
        pool.padding,
    ];
    let mut window = [0; 8];
    for (to, from) in window.iter_mut().zip(extents) {
        *to = extent(from)?;
    }
    Ok(MaxArguments { pointers, elements: elements as u64, window, vectorized: u64::from(vectorized) })
}

/// Whether a thread holds a vector of channels, and the grid for so many elements.
fn vectors(cuda: &Cuda, channels: usize, elements: usize) -> Result<(bool, LaunchConfig)> {
    let vectorized = channels.is_multiple_of(cuda.vector_size());
    Ok((vectorized, few_threads(elements / if vectorized { cuda.vector_size() } else { 1 })?))
}

pub(super) fn max_pool(cuda: &mut Cuda, op: &MaxPool<Span>, _: Span) -> Result<()> {
    let (vectorized, config) = vectors(cuda, op.attributes.channels, op.y.elements)?;
    let pointers = [op.x, op.y, op.argmax].map(|span| cuda.pointer(span));
    let arguments = max_arguments(&op.attributes, pointers, op.y.elements, vectorized)?;
    cuda.launch((&cuda.variant(FILE), "max_pool"), config, &arguments, &all(op.operands()))
}

pub(super) fn max_pool_gradient(cuda: &mut Cuda, op: &MaxPoolGradient<Span>, _: Span) -> Result<()> {
    let (vectorized, config) = vectors(cuda, op.attributes.channels, op.dx.elements)?;
    let pointers = [op.dy, op.argmax, op.dx].map(|span| cuda.pointer(span));
    let arguments = max_arguments(&op.attributes, pointers, op.dx.elements, vectorized)?;
    cuda.launch((&cuda.variant(FILE), "max_pool_gradient"), config, &arguments, &all(op.operands()))
}

/// `AverageArguments` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Average {
    x: u64,
    y: u64,
    pixels: u32,
    channels: u32,
    column_blocks: u32,
    columns: u32,
    vectorized: u32,
    unused: u32,
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
    let arguments = Average {
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

/// `AverageGradientArguments` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AverageGradient {
    dy: u64,
    dx: u64,
    elements: u64,
    pixels: u32,
    channels: u32,
    vectorized: u32,
    unused: u32,
}

pub(super) fn global_average_pool_gradient(
    cuda: &mut Cuda,
    op: &GlobalAveragePoolGradient<Span>,
    _: Span,
) -> Result<()> {
    let GlobalPool { height, width, channels, .. } = op.attributes;
    let elements = op.dx.elements;
    let (vectorized, config) = vectors(cuda, channels, elements)?;
    let arguments = AverageGradient {
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

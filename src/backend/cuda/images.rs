//! From bytes to network inputs: launches of `input/images.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{all, entry, extent, few_threads, modules_of_both_types};
use super::{Cuda, Entry, Module};
use crate::error::Result;
use crate::ops::LoadImages;
use crate::tensor::Span;

const FILE: &str = "input/images.cu";

const ENTRIES: &[Entry] = &[entry("load_images", 48, false)];

/// The modules of this family.
pub(super) fn modules() -> Vec<Module> {
    modules_of_both_types(FILE, ENTRIES)
}

/// `ImageBatch` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Arguments {
    /// pixels, table, placement, y
    pointers: [u64; 4],
    elements: u64,
    images: u32,
    side: u32,
    channels: u32,
    unused: u32,
}

pub(super) fn load_images(cuda: &mut Cuda, op: &LoadImages<Span>, _: Span) -> Result<()> {
    let elements = op.y.elements;
    let arguments = Arguments {
        pointers: [op.pixels, op.table, op.placement, op.y].map(|span| cuda.pointer(span)),
        elements: elements as u64,
        images: extent(op.attributes.images)?,
        side: extent(op.attributes.side)?,
        channels: extent(op.attributes.channels)?,
        unused: 0,
    };
    extent(elements)?;
    let config = few_threads(elements.div_ceil(cuda.vector_size()))?;
    cuda.launch((&cuda.variant(FILE), "load_images"), config, &arguments, &all(op.operands()))
}

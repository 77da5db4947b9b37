//! From bytes to network inputs: launches of `input/images.cu`.

use super::call::{all, entry, extent, few_threads, modules_of_both_types};
use super::kernel_files::input::images::{ImageBatch, PLACEMENT_NUMBERS};
use super::{Cuda, Entry, Module};
use crate::error::Result;
use crate::ops::{self, LoadImages};
use crate::tensor::Span;

const FILE: &str = "input/images.cu";

const ENTRIES: &[Entry] = &[entry("load_images", 48, false)];

/// The modules of this family.
pub(super) fn modules() -> Vec<Module> {
    modules_of_both_types(FILE, ENTRIES)
}

const _: () = assert!(PLACEMENT_NUMBERS == ops::PLACEMENT_NUMBERS);

pub(super) fn load_images(cuda: &mut Cuda, op: &LoadImages<Span>, _: Span) -> Result<()> {
    let elements = op.y.elements;
    let arguments = ImageBatch {
        pixels: cuda.pointer(op.pixels),
        table: cuda.pointer(op.table),
        placement: cuda.pointer(op.placement),
        y: cuda.pointer(op.y),
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

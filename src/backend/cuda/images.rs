//! From bytes to network inputs: launches of `images.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{entry, extent, few_threads, modules_of_both_types};
use super::{Cuda, Entry, Module};
use crate::error::Result;
use crate::ops::Access::{Read, Write};
use crate::ops::Content::{Activation, Byte, Integer, Number};
use crate::ops::ImageBatch;
use crate::tensor::Span;

const FILE: &str = "images.cu";

const ENTRIES: &[Entry] = &[entry("load_images", 48, false)];

/// What is compiled for this family.
pub(super) fn modules() -> Vec<Module> {
    modules_of_both_types(FILE, ENTRIES)
}

/// `ImageBatch` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LoadImages {
    /// pixels, table, placement, y
    pointers: [u64; 4],
    elements: u64,
    images: u32,
    side: u32,
    channels: u32,
    unused: u32,
}

pub(super) fn load_images(
    cuda: &Cuda,
    attributes: &ImageBatch,
    [pixels, table, placement, y]: [Span; 4],
) -> Result<()> {
    let [n_pixels, n_table, n_placement, n_y] = attributes.elements()?;
    let operands = cuda.operands([
        ("pixels", pixels, Read, Byte, n_pixels),
        ("table", table, Read, Number, n_table),
        ("placement", placement, Read, Integer, n_placement),
        ("y", y, Write, Activation, n_y),
    ])?;
    let arguments = LoadImages {
        pointers: operands.map(|(_, span, _)| cuda.pointer(span)),
        elements: n_y as u64,
        images: extent(attributes.images)?,
        side: extent(attributes.side)?,
        channels: extent(attributes.channels)?,
        unused: 0,
    };
    extent(n_y)?;
    let geometry = few_threads(n_y.div_ceil(cuda.pack()))?;
    cuda.launch((&cuda.variant(FILE), "load_images"), geometry, &arguments, &operands)
}

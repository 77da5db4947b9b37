//! Margins for the energy of samples and outliers: launches of `energy.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{THREADS, entry, extent, grid};
use super::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::Access::{Read, Write};
use crate::ops::Content::{Integer, Number};
use crate::ops::EnergyMargin;
use crate::tensor::Span;

/// Always f32, whatever activations are.
const VARIANT: Variant = Variant { file: "energy.cu", constants: &[] };

const ENTRIES: &[Entry] = &[entry("energy_margin", 48, false)];

/// What is compiled for this family.
pub(super) fn modules() -> Vec<Module> {
    vec![Module { variant: VARIANT, entries: ENTRIES }]
}

/// `Margin` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Margin {
    /// logits, outlier, loss, dlogits
    pointers: [u64; 4],
    inside: f64,
    outside: f64,
    share: f64,
    batch: u32,
    classes: u32,
}

pub(super) fn margin(
    cuda: &Cuda,
    attributes: &EnergyMargin,
    [logits, outlier, loss, dlogits]: [Span; 4],
) -> Result<()> {
    const ROWS_PER_BLOCK: usize = THREADS / 32;
    let n = attributes.elements()?;
    let EnergyMargin { batch, classes, inside, outside } = *attributes;
    let operands = cuda.operands([
        ("logits", logits, Read, Number, n),
        ("outlier", outlier, Read, Integer, batch),
        ("loss", loss, Write, Number, batch),
        ("dlogits", dlogits, Write, Number, n),
    ])?;
    let arguments = Margin {
        pointers: operands.map(|(_, span, _)| cuda.pointer(span)),
        inside,
        outside,
        share: 1.0 / batch as f64,
        batch: extent(batch)?,
        classes: extent(classes)?,
    };
    let geometry = grid(batch.div_ceil(ROWS_PER_BLOCK), 1)?;
    cuda.launch((&VARIANT, "energy_margin"), geometry, &arguments, &operands)
}

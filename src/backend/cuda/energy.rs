//! Energy margin loss of samples and outliers: launches of `loss/energy.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{THREADS, all, entry, extent, grid};
use super::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::{EnergyMargin, EnergyMarginLoss};
use crate::tensor::Span;

/// Always f32, whatever activations are.
const VARIANT: Variant = Variant { file: "loss/energy.cu", constants: &[] };

const ENTRIES: &[Entry] = &[entry("energy_margin", 48, false)];

/// The modules of this family.
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

pub(super) fn energy_margin(cuda: &mut Cuda, op: &EnergyMarginLoss<Span>, _: Span) -> Result<()> {
    const ROWS_PER_BLOCK: usize = THREADS / 32;
    let EnergyMargin { batch, classes, inside, outside } = op.attributes;
    let arguments = Margin {
        pointers: [op.logits, op.outlier, op.loss, op.dlogits].map(|span| cuda.pointer(span)),
        inside,
        outside,
        share: 1.0 / batch as f64,
        batch: extent(batch)?,
        classes: extent(classes)?,
    };
    let config = grid(batch.div_ceil(ROWS_PER_BLOCK), 1)?;
    cuda.launch((&VARIANT, "energy_margin"), config, &arguments, &all(op.operands()))
}

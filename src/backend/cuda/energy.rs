//! Energy margin loss of samples and outliers: launches of `loss/energy.cu`.

use super::call::{WARPS, all, entry, extent, grid};
use super::kernel_files::loss::energy::Margin;
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

pub(super) fn energy_margin(cuda: &mut Cuda, op: &EnergyMarginLoss<Span>, _: Span) -> Result<()> {
    let EnergyMargin { batch, classes, inside, outside } = op.attributes;
    let arguments = Margin {
        logits: cuda.pointer(op.logits),
        outlier: cuda.pointer(op.outlier),
        loss: cuda.pointer(op.loss),
        dlogits: cuda.pointer(op.dlogits),
        inside,
        outside,
        share: 1.0 / batch as f64,
        batch: extent(batch)?,
        classes: extent(classes)?,
    };
    let config = grid(batch.div_ceil(WARPS), 1)?;
    cuda.launch((&VARIANT, "energy_margin"), config, &arguments, &all(op.operands()))
}

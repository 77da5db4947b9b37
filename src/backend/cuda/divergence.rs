//! The divergence of two softmaxes: launches of `loss/divergence.cu`.

use super::call::{WARPS, all, entry, extent, grid};
use super::kernel_files::loss::divergence::Divergence;
use super::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::{Direction, KlDivergence, Side, SoftmaxDivergence};
use crate::tensor::Span;

/// Always f32, whatever activations are.
const VARIANT: Variant = Variant { file: "loss/divergence.cu", constants: &[] };

const ENTRIES: &[Entry] = &[entry("kl_divergence", 80, false)];

/// The modules of this family.
pub(super) fn modules() -> Vec<Module> {
    vec![Module { variant: VARIANT, entries: ENTRIES }]
}

pub(super) fn kl_divergence(cuda: &mut Cuda, op: &SoftmaxDivergence<Span>, _: Span) -> Result<()> {
    let KlDivergence { batch, classes, temperature, direction, detached } = op.attributes;
    let share_of = |side| if detached == Some(side) { 0.0 } else { 1.0 / (batch as f64 * temperature) };
    let arguments = Divergence {
        first: cuda.pointer(op.first),
        second: cuda.pointer(op.second),
        loss: cuda.pointer(op.loss),
        dfirst: cuda.pointer(op.dfirst),
        dsecond: cuda.pointer(op.dsecond),
        batch: extent(batch)?,
        classes: extent(classes)?,
        inverse_temperature: 1.0 / temperature,
        share_of_first: share_of(Side::First),
        share_of_second: share_of(Side::Second),
        direction: match direction {
            Direction::FirstToSecond => 0,
            Direction::SecondToFirst => 1,
            Direction::Both => 2,
        },
        unused: 0,
    };
    let config = grid(batch.div_ceil(WARPS), 1)?;
    cuda.launch((&VARIANT, "kl_divergence"), config, &arguments, &all(op.operands()))
}

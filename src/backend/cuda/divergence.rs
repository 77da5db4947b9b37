//! The divergence of two softmaxes: launches of `loss/divergence.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{THREADS, all, entry, extent, grid};
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

/// `Divergence` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Divergence {
    /// first, second, loss, dfirst, dsecond
    pointers: [u64; 5],
    batch: u32,
    classes: u32,
    inverse_temperature: f64,
    share_of_first: f64,
    share_of_second: f64,
    direction: u32,
    unused: u32,
}

pub(super) fn kl_divergence(cuda: &mut Cuda, op: &SoftmaxDivergence<Span>, _: Span) -> Result<()> {
    const ROWS_PER_BLOCK: usize = THREADS / 32;
    let KlDivergence { batch, classes, temperature, direction, detached } = op.attributes;
    let share_of = |side| if detached == Some(side) { 0.0 } else { 1.0 / (batch as f64 * temperature) };
    let arguments = Divergence {
        pointers: [op.first, op.second, op.loss, op.dfirst, op.dsecond].map(|span| cuda.pointer(span)),
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
    let config = grid(batch.div_ceil(ROWS_PER_BLOCK), 1)?;
    cuda.launch((&VARIANT, "kl_divergence"), config, &arguments, &all(op.operands()))
}

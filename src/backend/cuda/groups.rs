//! Logits of superclasses (class groups): launches of `head/class_groups.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{THREADS, all, entry, extent, few_threads, grid};
use super::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::{ClassGroups, LogSumGroups, LogSumGroupsGradient};
use crate::tensor::Span;

/// Always f32, whatever activations are.
const VARIANT: Variant = Variant { file: "head/class_groups.cu", constants: &[] };

const ENTRIES: &[Entry] = &[entry("log_sum_groups", 48, false), entry("log_sum_groups_gradient", 48, false)];

/// The modules of this family.
pub(super) fn modules() -> Vec<Module> {
    vec![Module { variant: VARIANT, entries: ENTRIES }]
}

/// `LogSum` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LogSum {
    /// x, group_of, y
    pointers: [u64; 3],
    temperature: f64,
    batch: u32,
    classes: u32,
    groups: u32,
    unused: u32,
}

pub(super) fn log_sum_groups(cuda: &mut Cuda, op: &LogSumGroups<Span>, _: Span) -> Result<()> {
    const SUMS_PER_BLOCK: usize = THREADS / 32;
    let ClassGroups { batch, classes, groups, temperature } = op.attributes;
    let arguments = LogSum {
        pointers: [op.x, op.group_of, op.y].map(|span| cuda.pointer(span)),
        temperature,
        batch: extent(batch)?,
        classes: extent(classes)?,
        groups: extent(groups)?,
        unused: 0,
    };
    extent(op.y.elements)?;
    let config = grid(op.y.elements.div_ceil(SUMS_PER_BLOCK), 1)?;
    cuda.launch((&VARIANT, "log_sum_groups"), config, &arguments, &all(op.operands()))
}

/// `Gradient` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Gradient {
    /// x, group_of, y, dy, dx
    pointers: [u64; 5],
    inverse_temperature: f64,
    elements: u32,
    classes: u32,
    groups: u32,
    unused: u32,
}

pub(super) fn log_sum_groups_gradient(
    cuda: &mut Cuda,
    op: &LogSumGroupsGradient<Span>,
    _: Span,
) -> Result<()> {
    let ClassGroups { classes, groups, temperature, .. } = op.attributes;
    let arguments = Gradient {
        pointers: [op.x, op.group_of, op.y, op.dy, op.dx].map(|span| cuda.pointer(span)),
        inverse_temperature: 1.0 / temperature,
        elements: extent(op.dx.elements)?,
        classes: extent(classes)?,
        groups: extent(groups)?,
        unused: 0,
    };
    let config = few_threads(op.dx.elements)?;
    cuda.launch((&VARIANT, "log_sum_groups_gradient"), config, &arguments, &all(op.operands()))
}

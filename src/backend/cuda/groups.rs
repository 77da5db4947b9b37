//! Logits of superclasses (class groups): launches of `head/class_groups.cu`.

use super::call::{WARPS, all, entry, extent, few_threads, grid};
use super::kernel_files::head::class_groups::{Gradient, LogSum};
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

pub(super) fn log_sum_groups(cuda: &mut Cuda, op: &LogSumGroups<Span>, _: Span) -> Result<()> {
    let ClassGroups { batch, classes, groups, temperature } = op.attributes;
    let arguments = LogSum {
        x: cuda.pointer(op.x),
        group_of: cuda.pointer(op.group_of),
        y: cuda.pointer(op.y),
        temperature,
        batch: extent(batch)?,
        classes: extent(classes)?,
        groups: extent(groups)?,
        unused: 0,
    };
    extent(op.y.elements)?;
    let config = grid(op.y.elements.div_ceil(WARPS), 1)?;
    cuda.launch((&VARIANT, "log_sum_groups"), config, &arguments, &all(op.operands()))
}

pub(super) fn log_sum_groups_gradient(
    cuda: &mut Cuda,
    op: &LogSumGroupsGradient<Span>,
    _: Span,
) -> Result<()> {
    let ClassGroups { classes, groups, temperature, .. } = op.attributes;
    let arguments = Gradient {
        x: cuda.pointer(op.x),
        group_of: cuda.pointer(op.group_of),
        y: cuda.pointer(op.y),
        dy: cuda.pointer(op.dy),
        dx: cuda.pointer(op.dx),
        inverse_temperature: 1.0 / temperature,
        elements: extent(op.dx.elements)?,
        classes: extent(classes)?,
        groups: extent(groups)?,
        unused: 0,
    };
    let config = few_threads(op.dx.elements)?;
    cuda.launch((&VARIANT, "log_sum_groups_gradient"), config, &arguments, &all(op.operands()))
}

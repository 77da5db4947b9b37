//! Logits of groups of classes: launches of `groups.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{THREADS, entry, extent, few_threads, grid};
use super::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::Access::{Read, Write};
use crate::ops::ClassGroups;
use crate::ops::Content::{Integer, Number};
use crate::tensor::Span;

/// Always f32, whatever activations are.
const VARIANT: Variant = Variant { file: "groups.cu", constants: &[] };

const ENTRIES: &[Entry] = &[entry("log_sum_groups", 48, false), entry("log_sum_groups_gradient", 48, false)];

/// What is compiled for this family.
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

pub(super) fn log_sum(cuda: &Cuda, attributes: &ClassGroups, [x, group_of, y]: [Span; 3]) -> Result<()> {
    const SUMS_PER_BLOCK: usize = THREADS / 32;
    let [n_x, n_classes, n_y] = attributes.elements()?;
    let ClassGroups { batch, classes, groups, temperature } = *attributes;
    let operands = cuda.operands([
        ("x", x, Read, Number, n_x),
        ("group_of", group_of, Read, Integer, n_classes),
        ("y", y, Write, Number, n_y),
    ])?;
    let arguments = LogSum {
        pointers: operands.map(|(_, span, _)| cuda.pointer(span)),
        temperature,
        batch: extent(batch)?,
        classes: extent(classes)?,
        groups: extent(groups)?,
        unused: 0,
    };
    extent(n_y)?;
    let geometry = grid(n_y.div_ceil(SUMS_PER_BLOCK), 1)?;
    cuda.launch((&VARIANT, "log_sum_groups"), geometry, &arguments, &operands)
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

pub(super) fn gradient(
    cuda: &Cuda,
    attributes: &ClassGroups,
    [x, group_of, y, dy, dx]: [Span; 5],
) -> Result<()> {
    let [n_x, n_classes, n_y] = attributes.elements()?;
    let operands = cuda.operands([
        ("x", x, Read, Number, n_x),
        ("group_of", group_of, Read, Integer, n_classes),
        ("y", y, Read, Number, n_y),
        ("dy", dy, Read, Number, n_y),
        ("dx", dx, Write, Number, n_x),
    ])?;
    let arguments = Gradient {
        pointers: operands.map(|(_, span, _)| cuda.pointer(span)),
        inverse_temperature: 1.0 / attributes.temperature,
        elements: extent(n_x)?,
        classes: extent(attributes.classes)?,
        groups: extent(attributes.groups)?,
        unused: 0,
    };
    let geometry = few_threads(n_x)?;
    cuda.launch((&VARIANT, "log_sum_groups_gradient"), geometry, &arguments, &operands)
}

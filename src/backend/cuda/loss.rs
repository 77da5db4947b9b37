//! Softmax cross-entropy, weights of samples and the totals of a step: launches of `loss.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{THREADS, entry, extent, few_threads, grid};
use super::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::Access::{Read, Update, Write};
use crate::ops::Content::{Integer, Number};
use crate::ops::{self, check};
use crate::tensor::Span;

/// Always f32, whatever activations are.
const VARIANT: Variant = Variant { file: "loss.cu", constants: &[] };

const ENTRIES: &[Entry] = &[
    entry("softmax_cross_entropy", 40, false),
    entry("weigh_rows", 32, false),
    entry("step_totals", 40, false),
];

/// What is compiled for this family.
pub(super) fn modules() -> Vec<Module> {
    vec![Module { variant: VARIANT, entries: ENTRIES }]
}

/// `CrossEntropy` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CrossEntropy {
    /// logits, labels, loss, prediction, dlogits
    pointers: [u64; 5],
    batch: u32,
    classes: u32,
    hot: f32,
    spread: f32,
    share: f32,
    unused: u32,
}

pub(super) fn softmax_cross_entropy(
    cuda: &Cuda,
    attributes: &ops::CrossEntropy,
    [logits, labels, loss, prediction, dlogits]: [Span; 5],
) -> Result<()> {
    const ROWS_PER_BLOCK: usize = THREADS / 32;
    let ops::CrossEntropy { batch, classes, smoothing } = *attributes;
    check(batch > 0 && classes > 0, attributes)?;
    let operands = cuda.operands([
        ("logits", logits, Read, Number, batch * classes),
        ("labels", labels, Read, Integer, batch),
        ("loss", loss, Write, Number, batch),
        ("prediction", prediction, Write, Integer, batch),
        ("dlogits", dlogits, Write, Number, batch * classes),
    ])?;
    let spread = smoothing / classes as f64;
    let arguments = CrossEntropy {
        pointers: operands.map(|(_, span, _)| cuda.pointer(span)),
        batch: extent(batch)?,
        classes: extent(classes)?,
        hot: (1.0 - smoothing + spread) as f32,
        spread: spread as f32,
        share: (1.0 / batch as f64) as f32,
        unused: 0,
    };
    let geometry = grid(batch.div_ceil(ROWS_PER_BLOCK), 1)?;
    cuda.launch((&VARIANT, "softmax_cross_entropy"), geometry, &arguments, &operands)
}

/// `Weigh` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Weigh {
    /// weights, x
    pointers: [u64; 2],
    elements: u32,
    channels: u32,
}

pub(super) fn weigh_rows(cuda: &Cuda, attributes: &ops::Rows, [weights, x]: [Span; 2]) -> Result<()> {
    let elements = attributes.elements()?;
    let operands = cuda.operands([
        ("weights", weights, Read, Number, attributes.rows),
        ("x", x, Update, Number, elements),
    ])?;
    let arguments = Weigh {
        pointers: operands.map(|(_, span, _)| cuda.pointer(span)),
        elements: extent(elements)?,
        channels: extent(attributes.channels)?,
    };
    cuda.launch((&VARIANT, "weigh_rows"), few_threads(elements)?, &arguments, &operands)
}

/// `StepTotals` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct StepTotals {
    /// loss, prediction, labels, hyper, totals
    pointers: [u64; 5],
    batch: u32,
    slots: u32,
    columns: u32,
    column: u32,
}

pub(super) fn step_totals(
    cuda: &Cuda,
    attributes: &ops::StepTotals,
    [loss, prediction, labels, hyper, totals]: [Span; 5],
) -> Result<()> {
    let ops::StepTotals { batch, slots, columns, column } = *attributes;
    let n_totals = attributes.elements()?;
    let operands = cuda.operands([
        ("loss", loss, Read, Number, batch),
        ("prediction", prediction, Read, Integer, batch),
        ("labels", labels, Read, Integer, batch),
        ("hyper", hyper, Read, Number, hyper.elements.max(4)),
        ("totals", totals, Update, Number, n_totals),
    ])?;
    let arguments = StepTotals {
        pointers: operands.map(|(_, span, _)| cuda.pointer(span)),
        batch: extent(batch)?,
        slots: extent(slots)?,
        columns: extent(columns)?,
        column: extent(column)?,
    };
    cuda.launch((&VARIANT, "step_totals"), grid(1, 1)?, &arguments, &operands)
}

//! Softmax cross-entropy, weights of samples and the totals of a step: launches of `loss/cross_entropy.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{THREADS, all, entry, extent, few_threads, grid};
use super::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::{self, RecordTotals, ScaleRows, SoftmaxCrossEntropy};
use crate::tensor::Span;

/// Always f32, whatever activations are.
const VARIANT: Variant = Variant { file: "loss/cross_entropy.cu", constants: &[] };

const ENTRIES: &[Entry] = &[
    entry("softmax_cross_entropy", 40, false),
    entry("scale_rows", 32, false),
    entry("step_totals", 40, false),
];

/// The modules of this family.
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

pub(super) fn softmax_cross_entropy(cuda: &mut Cuda, op: &SoftmaxCrossEntropy<Span>, _: Span) -> Result<()> {
    const ROWS_PER_BLOCK: usize = THREADS / 32;
    let ops::CrossEntropy { batch, classes, smoothing } = op.attributes;
    let spread = smoothing / classes as f64;
    let arguments = CrossEntropy {
        pointers: [op.logits, op.labels, op.loss, op.prediction, op.dlogits].map(|span| cuda.pointer(span)),
        batch: extent(batch)?,
        classes: extent(classes)?,
        hot: (1.0 - smoothing + spread) as f32,
        spread: spread as f32,
        share: (1.0 / batch as f64) as f32,
        unused: 0,
    };
    let config = grid(batch.div_ceil(ROWS_PER_BLOCK), 1)?;
    cuda.launch((&VARIANT, "softmax_cross_entropy"), config, &arguments, &all(op.operands()))
}

/// `ScaleRows` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Weigh {
    /// weights, x
    pointers: [u64; 2],
    elements: u32,
    channels: u32,
}

pub(super) fn scale_rows(cuda: &mut Cuda, op: &ScaleRows<Span>, _: Span) -> Result<()> {
    let elements = op.x.elements;
    let arguments = Weigh {
        pointers: [op.weights, op.x].map(|span| cuda.pointer(span)),
        elements: extent(elements)?,
        channels: extent(op.attributes.channels)?,
    };
    cuda.launch((&VARIANT, "scale_rows"), few_threads(elements)?, &arguments, &all(op.operands()))
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

pub(super) fn step_totals(cuda: &mut Cuda, op: &RecordTotals<Span>, _: Span) -> Result<()> {
    let ops::StepTotals { batch, slots, columns, column } = op.attributes;
    let arguments = StepTotals {
        pointers: [op.loss, op.prediction, op.labels, op.hyper, op.totals].map(|span| cuda.pointer(span)),
        batch: extent(batch)?,
        slots: extent(slots)?,
        columns: extent(columns)?,
        column: extent(column)?,
    };
    cuda.launch((&VARIANT, "step_totals"), grid(1, 1)?, &arguments, &all(op.operands()))
}

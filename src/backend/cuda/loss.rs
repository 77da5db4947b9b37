//! Softmax cross-entropy, weights of samples and the totals of a step: launches of `loss/cross_entropy.cu`.

use super::call::{WARPS, all, entry, extent, few_threads, grid};
use super::kernel_files::loss::cross_entropy as kernels;
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

pub(super) fn softmax_cross_entropy(cuda: &mut Cuda, op: &SoftmaxCrossEntropy<Span>, _: Span) -> Result<()> {
    let ops::CrossEntropy { batch, classes, smoothing } = op.attributes;
    let spread = smoothing / classes as f64;
    let arguments = kernels::CrossEntropy {
        logits: cuda.pointer(op.logits),
        labels: cuda.pointer(op.labels),
        loss: cuda.pointer(op.loss),
        prediction: cuda.pointer(op.prediction),
        dlogits: cuda.pointer(op.dlogits),
        batch: extent(batch)?,
        classes: extent(classes)?,
        hot: (1.0 - smoothing + spread) as f32,
        spread: spread as f32,
        share: (1.0 / batch as f64) as f32,
        unused: 0,
    };
    let config = grid(batch.div_ceil(WARPS), 1)?;
    cuda.launch((&VARIANT, "softmax_cross_entropy"), config, &arguments, &all(op.operands()))
}

pub(super) fn scale_rows(cuda: &mut Cuda, op: &ScaleRows<Span>, _: Span) -> Result<()> {
    let elements = op.x.elements;
    let arguments = kernels::ScaleRows {
        weights: cuda.pointer(op.weights),
        x: cuda.pointer(op.x),
        elements: extent(elements)?,
        channels: extent(op.attributes.channels)?,
    };
    cuda.launch((&VARIANT, "scale_rows"), few_threads(elements)?, &arguments, &all(op.operands()))
}

pub(super) fn step_totals(cuda: &mut Cuda, op: &RecordTotals<Span>, _: Span) -> Result<()> {
    let ops::StepTotals { batch, slots, columns, column } = op.attributes;
    let arguments = kernels::StepTotals {
        loss: cuda.pointer(op.loss),
        prediction: cuda.pointer(op.prediction),
        labels: cuda.pointer(op.labels),
        hyper: cuda.pointer(op.hyper),
        totals: cuda.pointer(op.totals),
        batch: extent(batch)?,
        slots: extent(slots)?,
        columns: extent(columns)?,
        column: extent(column)?,
    };
    cuda.launch((&VARIANT, "step_totals"), grid(1, 1)?, &arguments, &all(op.operands()))
}

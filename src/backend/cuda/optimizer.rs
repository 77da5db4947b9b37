//! Optimizer steps over whole regions of parameters: launches of `optimizer/optimizer.cu`.

use super::call::{all, entry, modules_of_both_types, threads};
use super::kernel_files::optimizer::optimizer::{Adam, HYPER_ROW, Segments, Sgd, VECTOR_SIZE};
use super::{Cuda, Entry, Module};
use crate::error::Result;
use crate::ops::{self, AdamStep, SgdStep};
use crate::tensor::Span;

const FILE: &str = "optimizer/optimizer.cu";

const ENTRIES: &[Entry] = &[entry("sgd", 40, true), entry("adam", 48, true)];

/// The modules of this family.
pub(super) fn modules() -> Vec<Module> {
    modules_of_both_types(FILE, ENTRIES)
}

const _: () = assert!(HYPER_ROW == ops::HYPER_ROW);

impl Segments {
    fn new(segments: &ops::Segments) -> Segments {
        let mut end = 0;
        Segments {
            ends: segments.map(|segment| {
                end += segment.elements as u64;
                end
            }),
            weight_decays: segments.map(|segment| segment.weight_decay as f32),
            rows: segments.map(|segment| segment.row as u32),
        }
    }
}

pub(super) fn sgd(cuda: &mut Cuda, op: &SgdStep<Span>, _: Span) -> Result<()> {
    let attributes = &op.attributes;
    let operands = all(op.operands());
    let arguments = Sgd {
        parameters: cuda.pointer_or_null(op.parameters),
        gradients: cuda.pointer_or_null(op.gradients),
        velocity: cuda.pointer_or_null(op.velocity),
        hyper: cuda.pointer_or_null(op.hyper),
        bf16_weights: cuda.pointer_or_null(op.copies),
        segments: Segments::new(&attributes.segments),
        momentum: attributes.momentum as f32,
        nesterov: u32::from(attributes.nesterov),
    };
    cuda.launch(
        (&cuda.variant(FILE), "sgd"),
        threads(op.parameters.elements.div_ceil(VECTOR_SIZE))?,
        &arguments,
        &operands,
    )
}

pub(super) fn adam(cuda: &mut Cuda, op: &AdamStep<Span>, _: Span) -> Result<()> {
    let attributes = &op.attributes;
    let operands = all(op.operands());
    let arguments = Adam {
        parameters: cuda.pointer_or_null(op.parameters),
        gradients: cuda.pointer_or_null(op.gradients),
        first: cuda.pointer_or_null(op.first),
        second: cuda.pointer_or_null(op.second),
        hyper: cuda.pointer_or_null(op.hyper),
        bf16_weights: cuda.pointer_or_null(op.copies),
        segments: Segments::new(&attributes.segments),
        take1: (1.0 - attributes.beta1) as f32,
        beta2: attributes.beta2 as f32,
        take2: (1.0 - attributes.beta2) as f32,
        epsilon: attributes.epsilon as f32,
        decoupled: u32::from(attributes.decoupled),
        unused: 0,
    };
    cuda.launch(
        (&cuda.variant(FILE), "adam"),
        threads(op.parameters.elements.div_ceil(VECTOR_SIZE))?,
        &arguments,
        &operands,
    )
}

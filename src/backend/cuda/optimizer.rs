//! Optimizer steps over whole regions of parameters: launches of `optimizer/optimizer.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{all, entry, modules_of_both_types, threads};
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

/// Parameters that one thread updates.
const PACK: usize = 4;

/// `Segments` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Segments {
    /// Where each ends.
    ends: [u64; 3],
    weight_decays: [f32; 3],
    rows: [u32; 3],
}

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

/// Addresses of operands; 0 for those that are empty.
fn pointers<const N: usize>(cuda: &Cuda, spans: [Span; N]) -> [u64; N] {
    spans.map(|span| if span.elements > 0 { cuda.pointer(span) } else { 0 })
}

/// `Sgd` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Sgd {
    /// parameters, gradients, velocity, hyper, bf16 weights
    pointers: [u64; 5],
    segments: Segments,
    momentum: f32,
    nesterov: u32,
}

pub(super) fn sgd(cuda: &mut Cuda, op: &SgdStep<Span>, _: Span) -> Result<()> {
    let attributes = &op.attributes;
    let operands = all(op.operands());
    let arguments = Sgd {
        pointers: pointers(cuda, [op.parameters, op.gradients, op.velocity, op.hyper, op.copies]),
        segments: Segments::new(&attributes.segments),
        momentum: attributes.momentum as f32,
        nesterov: u32::from(attributes.nesterov),
    };
    cuda.launch(
        (&cuda.variant(FILE), "sgd"),
        threads(op.parameters.elements.div_ceil(PACK))?,
        &arguments,
        &operands,
    )
}

/// `Adam` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Adam {
    /// parameters, gradients, first, second, hyper, bf16 weights
    pointers: [u64; 6],
    segments: Segments,
    take1: f32,
    beta2: f32,
    take2: f32,
    epsilon: f32,
    decoupled: u32,
    unused: u32,
}

pub(super) fn adam(cuda: &mut Cuda, op: &AdamStep<Span>, _: Span) -> Result<()> {
    let attributes = &op.attributes;
    let operands = all(op.operands());
    let arguments = Adam {
        pointers: pointers(cuda, [op.parameters, op.gradients, op.first, op.second, op.hyper, op.copies]),
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
        threads(op.parameters.elements.div_ceil(PACK))?,
        &arguments,
        &operands,
    )
}

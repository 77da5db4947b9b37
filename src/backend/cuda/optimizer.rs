//! Optimizer steps over whole regions of parameters: launches of `optimizer.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{entry, threads};
use super::driver::Driver;
use super::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::Access::{Read, Update};
use crate::ops::Content::Number;
use crate::ops::{self, check};
use crate::tensor::Span;

/// Always f32, whatever activations are.
const VARIANT: Variant = Variant { file: "optimizer.cu", constants: &[] };

const ENTRIES: &[Entry] = &[entry("sgd", 40, true), entry("adam", 48, true)];

/// What is compiled for this family.
pub(super) fn modules() -> Vec<Module> {
    vec![Module { variant: VARIANT, entries: ENTRIES }]
}

/// Parameters that one thread updates.
const PACK: usize = 4;

/// `Sgd` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Sgd {
    /// parameters, gradients, velocity, hyper
    pointers: [u64; 4],
    elements: u64,
    momentum: f32,
    weight_decay: f32,
    nesterov: u32,
    unused: u32,
}

pub(super) fn sgd<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &ops::Sgd,
    [parameters, gradients, velocity, hyper]: [Span; 4],
) -> Result<()> {
    let n = attributes.elements;
    check(n > 0, attributes)?;
    // Without momentum the velocity is not touched, and may be empty.
    let n_velocity = if attributes.momentum == 0.0 { velocity.elements } else { n };
    let operands = cuda.operands([
        ("parameters", parameters, Update, Number, n),
        ("gradients", gradients, Read, Number, n),
        ("velocity", velocity, Update, Number, n_velocity),
        ("hyper", hyper, Read, Number, hyper.elements.max(1)),
    ])?;
    let arguments = Sgd {
        pointers: operands.map(|(_, span, _)| cuda.pointer(memory, span)),
        elements: n as u64,
        momentum: attributes.momentum as f32,
        weight_decay: attributes.weight_decay as f32,
        nesterov: u32::from(attributes.nesterov),
        unused: 0,
    };
    cuda.launch(memory, (&VARIANT, "sgd"), threads(n.div_ceil(PACK))?, &arguments, &operands)
}

/// `Adam` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Adam {
    /// parameters, gradients, first, second, hyper
    pointers: [u64; 5],
    elements: u64,
    take1: f32,
    beta2: f32,
    take2: f32,
    epsilon: f32,
    weight_decay: f32,
    decoupled: u32,
}

pub(super) fn adam<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &ops::Adam,
    [parameters, gradients, first, second, hyper]: [Span; 5],
) -> Result<()> {
    let n = attributes.elements;
    check(n > 0, attributes)?;
    let operands = cuda.operands([
        ("parameters", parameters, Update, Number, n),
        ("gradients", gradients, Read, Number, n),
        ("first", first, Update, Number, n),
        ("second", second, Update, Number, n),
        ("hyper", hyper, Read, Number, hyper.elements.max(3)),
    ])?;
    let arguments = Adam {
        pointers: operands.map(|(_, span, _)| cuda.pointer(memory, span)),
        elements: n as u64,
        take1: (1.0 - attributes.beta1) as f32,
        beta2: attributes.beta2 as f32,
        take2: (1.0 - attributes.beta2) as f32,
        epsilon: attributes.epsilon as f32,
        weight_decay: attributes.weight_decay as f32,
        decoupled: u32::from(attributes.decoupled),
    };
    cuda.launch(memory, (&VARIANT, "adam"), threads(n.div_ceil(PACK))?, &arguments, &operands)
}

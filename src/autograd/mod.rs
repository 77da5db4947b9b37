//! The tape: it records operations as they are called, and their gradients in reverse order.
//!
//! Nothing is computed while a tape is recorded. Recording appends calls to a [`Plan`]; [`Tape::backward`] appends the
//! calls of the gradient; the plan is what runs, once per step. Each differentiable operation is one file: the calls it
//! records forward, and what it records backward.
//!
//! An operation of a program's own is recorded as those of this module are: by [`Tape::push`] of its calls, then
//! [`Tape::record`] of its gradient's (`docs/examples/new_operation.rs`).
//!
//! A gradient belongs to a buffer. A buffer used twice (a block's input feeds both its convolution and its shortcut)
//! receives two contributions: each is passed on finished ([`Backward::give`]), and the second is added to the first. Where an
//! operation could have added in place, `plan::fuse` sees to it.

mod activation;
mod add;
mod batch_norm;
mod conv2d;
mod conv_batch_norm;
mod cosine;
mod energy_margin;
mod kl_divergence;
mod linear;
mod load_images;
mod log_sum_groups;
mod pool;
mod shortcut_a;
mod softmax_cross_entropy;
mod weigh;

use std::collections::HashMap;

pub use batch_norm::{BatchNormOptions, BatchNormParameters, Statistics};
pub use cosine::SHORTEST_VECTOR;
pub use energy_margin::EnergyLoss;
pub use kl_divergence::Divergence;
pub use softmax_cross_entropy::Loss;

use crate::ops::{Accumulate, Call, Rows};
use crate::plan::{BufferId, Plan, Storage};
use crate::tensor::{DType, Shape, Span};

/// A value on the tape.
#[derive(Debug, Clone, Copy)]
pub struct Var {
    /// The buffer that holds it.
    pub buffer: BufferId,
    /// Its extents.
    pub shape: Shape,
    /// Whether a gradient should reach it.
    pub differentiable: bool,
}

/// A parameter: persistent memory for its value and, unless it is frozen or only used for inference, its gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Where the value lies.
    pub value: Span,
    /// Where the gradient is written.
    pub gradient: Option<Span>,
    /// A copy in the activations' type, where they are narrower than the value; who changes the value changes the copy.
    pub copy: Option<Span>,
    /// The extents of all of them.
    pub shape: Shape,
}

/// The purpose of a recorded network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, gradients.
    Train,
    /// Running statistics, folded into the convolutions.
    Inference,
}

type BackwardFunction = Box<dyn FnOnce(&mut Backward<'_>, BufferId)>;

struct Node {
    output: BufferId,
    backward: BackwardFunction,
}

/// Records operations.
pub struct Tape {
    plan: Plan,
    nodes: Vec<Node>,
    dtype: DType,
    mode: Mode,
}

impl Tape {
    /// An empty tape for activations of a type.
    pub fn new(dtype: DType, mode: Mode) -> Tape {
        Tape { plan: Plan::default(), nodes: Vec::new(), dtype, mode }
    }

    /// The purpose that the network is recorded for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Records a part as for inference: with running statistics, folded into the convolutions, and without gradients.
    pub fn in_inference<R>(&mut self, record: impl FnOnce(&mut Tape) -> R) -> R {
        let mode = std::mem::replace(&mut self.mode, Mode::Inference);
        let recorded = record(self);
        self.mode = mode;
        recorded
    }

    /// A tensor that the host fills before every step.
    pub fn input(&mut self, name: &str, shape: impl Into<Shape>, dtype: DType) -> Var {
        let shape = shape.into();
        Var { buffer: self.plan.buffer(name, shape, dtype, Storage::Step), shape, differentiable: false }
    }

    /// An input of activations.
    pub fn activation_input(&mut self, name: &str, shape: impl Into<Shape>) -> Var {
        self.input(name, shape, self.dtype)
    }

    /// An input of numbers such as learning rates, in the accumulator's type.
    pub fn number_input(&mut self, name: &str, shape: impl Into<Shape>) -> Var {
        self.input(name, shape, self.dtype.accumulator())
    }

    /// A floating-point input that gradients should reach (for tests and sensitivity studies).
    pub fn differentiable_input(&mut self, name: &str, shape: impl Into<Shape>) -> Var {
        Var { differentiable: true, ..self.input(name, shape, self.dtype) }
    }

    /// Keeps a value until the end of the step for the host to read.
    pub fn keep(&mut self, var: Var) -> BufferId {
        self.plan.keep(var.buffer);
        var.buffer
    }

    /// Appends a call. Gradients flow through it if [`Tape::record`] follows; an optimizer's step has none.
    pub fn push(&mut self, call: impl Into<Call<BufferId>>) {
        self.plan.push(call);
    }

    /// A buffer at a fixed place in memory.
    pub fn persistent(&mut self, name: &str, span: Span) -> BufferId {
        self.plan.buffer(name, Shape::new(&[span.elements]), span.dtype, Storage::Persistent(span))
    }

    /// Walks back from a loss: appends the calls that compute the gradient of its mean with respect to every
    /// parameter and differentiable input it depends on. Returns the gradients of `inputs`.
    pub fn backward(&mut self, loss: &Loss, inputs: &[Var]) -> Vec<Option<BufferId>> {
        self.backward_from(loss.logits, loss.logits_gradient, inputs)
    }

    /// Walks back from any value whose gradient a buffer holds.
    pub fn backward_from(
        &mut self,
        output: Var,
        gradient: BufferId,
        inputs: &[Var],
    ) -> Vec<Option<BufferId>> {
        self.backward_from_all(&[(output, gradient)], inputs)
    }

    /// Walks back from several values at once, such as the logits under a loss and a divergence: gradients of the same
    /// value are added up, in the buffer of the first.
    pub fn backward_from_all(
        &mut self,
        outputs: &[(Var, BufferId)],
        inputs: &[Var],
    ) -> Vec<Option<BufferId>> {
        let mut backward = Backward { plan: &mut self.plan, gradients: HashMap::new(), dtype: self.dtype };
        for &(output, gradient) in outputs {
            backward.give(output, gradient);
        }
        for node in self.nodes.drain(..).rev() {
            if let Some(&gradient) = backward.gradients.get(&node.output) {
                (node.backward)(&mut backward, gradient);
            }
        }
        let found: Vec<Option<BufferId>> =
            inputs.iter().map(|input| backward.gradients.get(&input.buffer).copied()).collect();
        found.iter().flatten().for_each(|&id| self.plan.keep(id));
        found
    }

    /// The recorded step.
    pub fn finish(self) -> Plan {
        self.plan
    }

    /// A buffer for the result of a call, in the activations' type; it holds its values until their last use.
    pub fn transient(&mut self, name: &str, shape: impl Into<Shape>) -> BufferId {
        self.plan.buffer(name, shape.into(), self.dtype, Storage::Transient)
    }

    /// The same for statistics, heads and losses: in the accumulator's type.
    pub fn transient_number(&mut self, name: &str, shape: impl Into<Shape>) -> BufferId {
        self.plan.buffer(name, shape.into(), self.dtype.accumulator(), Storage::Transient)
    }

    /// A convolution's weight in the type of the activations.
    fn narrow_parameter(&mut self, name: &str, parameter: &Parameter) -> BufferId {
        let span = parameter.copy.unwrap_or(parameter.value);
        assert_eq!(span.dtype, self.dtype, "a weight is needed in the type of the activations");
        self.plan.buffer(name, parameter.shape, span.dtype, Storage::Persistent(span))
    }

    /// No activations: a place for an operand that a call does without.
    pub fn nothing(&self) -> Span {
        Span { offset: 0, elements: 0, dtype: self.dtype }
    }

    /// The buffer of a parameter's value.
    pub fn parameter(&mut self, name: &str, parameter: &Parameter) -> BufferId {
        self.plan.buffer(name, parameter.shape, parameter.value.dtype, Storage::Persistent(parameter.value))
    }

    /// Records an operation's result and how its gradient flows on.
    ///
    /// `inputs` are the values it was computed from; `has_parameters` says whether it learns any. [`Tape::backward`] calls `backward`
    /// with the buffer that holds the gradient with respect to `output`: it pushes the calls that compute the gradients with respect to the
    /// inputs, and gives each of them on. It may overwrite the buffer or give it on, but not both.
    pub fn record(
        &mut self,
        output: BufferId,
        shape: Shape,
        inputs: &[Var],
        has_parameters: bool,
        backward: impl FnOnce(&mut Backward<'_>, BufferId) + 'static,
    ) -> Var {
        let differentiable =
            self.mode == Mode::Train && (has_parameters || inputs.iter().any(|input| input.differentiable));
        if differentiable {
            self.nodes.push(Node { output, backward: Box::new(backward) });
        }
        Var { buffer: output, shape, differentiable }
    }
}

/// The walk back: gradients found so far, and the plan that computes them.
pub struct Backward<'a> {
    plan: &'a mut Plan,
    gradients: HashMap<BufferId, BufferId>,
    dtype: DType,
}

impl Backward<'_> {
    /// Appends a call.
    pub fn push(&mut self, call: impl Into<Call<BufferId>>) {
        self.plan.push(call);
    }

    /// A buffer for the result of a call, in the activations' type; it holds its values until their last use.
    pub fn transient(&mut self, name: &str, shape: impl Into<Shape>) -> BufferId {
        self.plan.buffer(name, shape.into(), self.dtype, Storage::Transient)
    }

    /// The same for statistics, heads and losses: in the accumulator's type.
    pub fn transient_number(&mut self, name: &str, shape: impl Into<Shape>) -> BufferId {
        self.plan.buffer(name, shape.into(), self.dtype.accumulator(), Storage::Transient)
    }

    /// Where a parameter's gradient goes: its persistent place, or a scrap nobody reads if it is frozen.
    pub fn parameter_gradient(&mut self, name: &str, parameter: &Parameter) -> BufferId {
        let storage = parameter.gradient.map_or(Storage::Transient, Storage::Persistent);
        self.plan.buffer(name, parameter.shape, parameter.value.dtype, storage)
    }

    /// Passes on a finished gradient, in a buffer whose present content nothing else will read. A value that no gradient should reach
    /// takes none.
    pub fn give(&mut self, var: Var, gradient: BufferId) {
        if !var.differentiable {
            return;
        }
        match self.gradients.get(&var.buffer) {
            None => {
                self.gradients.insert(var.buffer, gradient);
            }
            Some(&existing) => {
                let attributes = Rows { rows: var.shape.rows(), channels: var.shape.channels() };
                self.plan.push(Accumulate { attributes, x: gradient, y: existing });
            }
        }
    }
}

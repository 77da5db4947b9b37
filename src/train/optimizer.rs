//! Optimizers, with PyTorch's formulas and defaults.

use crate::autograd::Tape;
use crate::nn::{Group, Parameters};
use crate::ops::{Adam, AdamStep, Segment, Segments, Sgd, SgdStep};
use crate::plan::BufferId;
use crate::tensor::Span;
use crate::values::named;

named! {
    /// Which rule changes the parameters.
    pub enum OptimizerKind: "optimizer" {
        /// Stochastic gradient descent with momentum.
        Sgd = "sgd",
        /// Adam with L2 penalty (PyTorch's `Adam`).
        Adam = "adam",
        /// Adam with decoupled weight decay (PyTorch's `AdamW`).
        AdamW = "adamw",
    }
}

/// An optimizer with its constants; the learning rate changes and comes separately.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optimizer {
    /// The rule.
    pub kind: OptimizerKind,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Nesterov's look-ahead, for SGD.
    pub nesterov: bool,
    /// Weight decay; every parameter but those of [`Group::Undecayed`] is decayed, as PyTorch does by default.
    pub weight_decay: f64,
    /// Whether the heads have a learning rate of their own.
    pub separate_heads: bool,
}

/// The numbers that an optimizer reads from memory at a step; the learning rate is the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// For the whole network, or its backbone.
    pub network: [f64; HYPER_NUMBERS],
    /// For the heads, where they have a rate of their own.
    pub heads: [f64; HYPER_NUMBERS],
}

/// PyTorch's defaults for Adam.
const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Numbers an optimizer reads from memory at every step: see [`crate::ops::SgdStep`] and [`crate::ops::AdamStep`].
pub const HYPER_NUMBERS: usize = 3;

impl Optimizer {
    /// Number of states per parameter.
    pub fn slots(&self) -> usize {
        match self.kind {
            OptimizerKind::Sgd => 1,
            OptimizerKind::Adam | OptimizerKind::AdamW => 2,
        }
    }

    /// Names of the states, as checkpoints call them.
    pub fn slot_names(&self) -> &'static [&'static str] {
        match self.kind {
            OptimizerKind::Sgd => &["velocity"],
            OptimizerKind::Adam | OptimizerKind::AdamW => &["first_moment", "second_moment"],
        }
    }

    /// Appends the update of all parameters to a recorded step, one call for all groups. `hyper` is (rows, numbers): of the
    /// network or its backbone, and of the heads, where they have a rate of their own.
    pub fn record(&self, tape: &mut Tape, parameters: &Parameters, hyper: BufferId) {
        let part = |region: Option<Span>| {
            region.expect("the network was made for training with this optimizer's slots")
        };
        let (segments, copy) = (self.segments(parameters), parameters.copies().is_some());
        let values = tape.persistent("parameters", parameters.values());
        let gradients = tape.persistent("gradients", part(parameters.gradients()));
        let first = tape.persistent(self.slot_names()[0], part(parameters.slot(0)));
        let copies = tape.persistent("copies of parameters", parameters.copies().unwrap_or(tape.nothing()));
        match self.kind {
            OptimizerKind::Sgd => {
                let attributes = Sgd { segments, momentum: self.momentum, nesterov: self.nesterov, copy };
                let nothing = tape.nothing();
                let velocity =
                    if self.momentum == 0.0 { tape.persistent("velocity", nothing) } else { first };
                tape.push(SgdStep { attributes, parameters: values, gradients, velocity, hyper, copies });
            }
            OptimizerKind::Adam | OptimizerKind::AdamW => {
                let second = tape.persistent(self.slot_names()[1], part(parameters.slot(1)));
                let attributes = Adam {
                    segments,
                    beta1: BETA1,
                    beta2: BETA2,
                    epsilon: EPSILON,
                    decoupled: self.kind == OptimizerKind::AdamW,
                    copy,
                };
                tape.push(AdamStep {
                    attributes,
                    parameters: values,
                    gradients,
                    first,
                    second,
                    hyper,
                    copies,
                });
            }
        }
    }

    /// The groups of parameters, in the order in which they lie in memory.
    fn segments(&self, parameters: &Parameters) -> Segments {
        Group::ALL.map(|group| Segment {
            elements: parameters.group(group).len(),
            weight_decay: if group == Group::Undecayed { 0.0 } else { self.weight_decay },
            row: usize::from(self.separate_heads && group != Group::Backbone),
        })
    }

    /// The numbers of step `step` (counted from 1), at one rate for all parameters.
    pub fn rates(&self, learning_rate: f64, step: u64) -> Rates {
        self.two_rates(learning_rate, learning_rate, step)
    }

    /// The same where the heads have a rate of their own.
    pub fn two_rates(&self, network: f64, heads: f64, step: u64) -> Rates {
        Rates { network: self.hyper(network, step), heads: self.hyper(heads, step) }
    }

    /// The numbers that the update reads from memory at step `step` (counted from 1).
    fn hyper(&self, learning_rate: f64, step: u64) -> [f64; HYPER_NUMBERS] {
        match self.kind {
            OptimizerKind::Sgd => [learning_rate, 0.0, 0.0],
            OptimizerKind::Adam | OptimizerKind::AdamW => {
                let t = step as f64;
                [learning_rate, 1.0 - BETA1.powf(t), (1.0 - BETA2.powf(t)).sqrt()]
            }
        }
    }
}

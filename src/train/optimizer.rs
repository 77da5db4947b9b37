//! Optimizers, with PyTorch's formulas and defaults.

use serde::{Deserialize, Serialize};

use crate::autograd::Tape;
use crate::nn::Parameters;
use crate::ops::{Adam, Call, Sgd};
use crate::plan::BufferId;

/// Which rule changes the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Adam with L2 penalty (PyTorch's `Adam`).
    Adam,
    /// Adam with decoupled weight decay (PyTorch's `AdamW`).
    AdamW,
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
    /// Weight decay; every parameter is decayed, as PyTorch does by default.
    pub weight_decay: f64,
}

/// PyTorch's defaults for Adam.
const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Numbers an optimizer reads from memory at every step: see `sgd` and `adam` in [`crate::ops::Backend`].
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

    /// Appends the update of all parameters to a recorded step.
    pub fn record(&self, tape: &mut Tape, parameters: &Parameters, hyper: BufferId) {
        let values = parameters.values();
        let elements = values.elements;
        let slot = |index| parameters.slot(index).expect("the network was made with this optimizer's slots");
        let values = tape.persistent("parameters", values);
        let gradients = parameters.gradients().expect("the network was made for training");
        let gradients = tape.persistent("gradients", gradients);
        let first = tape.persistent(self.slot_names()[0], slot(0));
        match self.kind {
            OptimizerKind::Sgd => {
                let attributes = Sgd {
                    elements,
                    momentum: self.momentum,
                    nesterov: self.nesterov,
                    weight_decay: self.weight_decay,
                };
                tape.push(Call::SgdStep {
                    attributes,
                    parameters: values,
                    gradients,
                    velocity: first,
                    hyper,
                });
            }
            OptimizerKind::Adam | OptimizerKind::AdamW => {
                let second = tape.persistent(self.slot_names()[1], slot(1));
                let attributes = Adam {
                    elements,
                    beta1: BETA1,
                    beta2: BETA2,
                    epsilon: EPSILON,
                    weight_decay: self.weight_decay,
                    decoupled: self.kind == OptimizerKind::AdamW,
                };
                tape.push(Call::AdamStep { attributes, parameters: values, gradients, first, second, hyper });
            }
        }
    }

    /// What the update reads from memory at step `step` (counted from 1).
    pub fn hyper(&self, learning_rate: f64, step: u64) -> [f64; HYPER_NUMBERS] {
        match self.kind {
            OptimizerKind::Sgd => [learning_rate, 0.0, 0.0],
            OptimizerKind::Adam | OptimizerKind::AdamW => {
                let t = step as f64;
                [learning_rate, 1.0 - BETA1.powf(t), (1.0 - BETA2.powf(t)).sqrt()]
            }
        }
    }
}

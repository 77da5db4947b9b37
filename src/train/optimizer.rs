//! Optimizers, with PyTorch's formulas and defaults.

use serde::{Deserialize, Serialize};

use crate::autograd::Tape;
use crate::nn::{Group, Parameters};
use crate::ops::{Adam, Call, Sgd};
use crate::plan::BufferId;
use crate::tensor::Span;

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
    /// Weight decay; every parameter but those of [`Group::Undecayed`] is decayed, as PyTorch does by default.
    pub weight_decay: f64,
    /// Whether the heads have a learning rate of their own.
    pub separate_heads: bool,
}

/// What an optimizer reads from memory at a step: the rate comes first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// For the whole network, or its backbone.
    pub network: [f64; HYPER_NUMBERS],
    /// For the heads, where they have a rate of their own.
    pub heads: [f64; HYPER_NUMBERS],
}

/// Parameters that one call updates: from where on in a region, how many, which numbers, which decay.
struct Update {
    start: usize,
    elements: usize,
    hyper: BufferId,
    weight_decay: f64,
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

    /// Appends the update of all parameters to a recorded step; `head_hyper` holds the heads' numbers, where they have a
    /// rate of their own.
    pub fn record(
        &self,
        tape: &mut Tape,
        parameters: &Parameters,
        hyper: BufferId,
        head_hyper: Option<BufferId>,
    ) {
        for update in self.updates(parameters, hyper, head_hyper) {
            self.record_one(tape, parameters, &update);
        }
    }

    /// One update per group, those with the same settings merged.
    fn updates(&self, parameters: &Parameters, hyper: BufferId, head_hyper: Option<BufferId>) -> Vec<Update> {
        let mut updates: Vec<Update> = Vec::new();
        for group in Group::ALL {
            let range = parameters.group(group);
            let hyper = if group == Group::Backbone { hyper } else { head_hyper.unwrap_or(hyper) };
            let weight_decay = if group == Group::Undecayed { 0.0 } else { self.weight_decay };
            let same = |last: &&mut Update| (last.hyper, last.weight_decay) == (hyper, weight_decay);
            match updates.last_mut().filter(same) {
                _ if range.is_empty() => {}
                Some(last) => last.elements += range.len(),
                None => {
                    let (start, elements) = (range.start, range.len());
                    updates.push(Update { start, elements, hyper, weight_decay });
                }
            }
        }
        updates
    }

    fn record_one(&self, tape: &mut Tape, parameters: &Parameters, update: &Update) {
        let Update { start, elements, hyper, weight_decay } = *update;
        let part = |region: Option<Span>| {
            let region = region.expect("the network was made for training with this optimizer's slots");
            Span { offset: region.offset + start * region.dtype.size(), elements, ..region }
        };
        let values = tape.persistent("parameters", part(Some(parameters.values())));
        let gradients = tape.persistent("gradients", part(parameters.gradients()));
        let first = tape.persistent(self.slot_names()[0], part(parameters.slot(0)));
        match self.kind {
            OptimizerKind::Sgd => {
                let attributes =
                    Sgd { elements, momentum: self.momentum, nesterov: self.nesterov, weight_decay };
                tape.push(Call::SgdStep {
                    attributes,
                    parameters: values,
                    gradients,
                    velocity: first,
                    hyper,
                });
            }
            OptimizerKind::Adam | OptimizerKind::AdamW => {
                let second = tape.persistent(self.slot_names()[1], part(parameters.slot(1)));
                let attributes = Adam {
                    elements,
                    beta1: BETA1,
                    beta2: BETA2,
                    epsilon: EPSILON,
                    weight_decay,
                    decoupled: self.kind == OptimizerKind::AdamW,
                };
                tape.push(Call::AdamStep { attributes, parameters: values, gradients, first, second, hyper });
            }
        }
    }

    /// What the updates read at step `step` (counted from 1) at one rate for everything.
    pub fn rates(&self, learning_rate: f64, step: u64) -> Rates {
        self.two_rates(learning_rate, learning_rate, step)
    }

    /// The same where the heads have a rate of their own.
    pub fn two_rates(&self, network: f64, heads: f64, step: u64) -> Rates {
        Rates { network: self.hyper(network, step), heads: self.hyper(heads, step) }
    }

    /// What the update reads from memory at step `step` (counted from 1).
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

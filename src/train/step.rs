//! One training step as a plan: forward, losses, backward, update.

use super::objective::{BatchTargets, Exposure, Objective, Term};
use super::optimizer::{HYPER_NUMBERS, Optimizer, Rates};
use crate::autograd::{Mode, Tape, Var};
use crate::error::Result;
use crate::nn::{ImageInput, Images, Model, Network, Output, compile};
use crate::ops::{Device, Direction, HYPER_ROW, HYPER_ROWS, Readback, RecordTotals, Side, StepTotals};
use crate::plan::{BufferId, Executable};
use crate::tensor::{DType, HostValues, Shape, Span};

/// A training step for one batch size.
pub struct TrainStep {
    executable: Executable,
    images: ImageInput,
    heads: Vec<HeadLabels>,
    outliers: Option<BufferId>,
    groups: Vec<(BufferId, Vec<i32>)>,
    hyper: BufferId,
    terms: Vec<RecordedTerm>,
    totals: BufferId,
    slots: usize,
}

/// The inputs of a step.
#[derive(Debug, Clone, Copy)]
pub struct StepInputs<'a> {
    /// Bytes of the images; none where all images lie in memory.
    pub pixels: &'a [u8],
    /// Which image each is, and where it lies in it: see [`crate::ops::LoadImages`].
    pub placement: &'a [i32],
    /// The targets of the samples.
    pub targets: &'a BatchTargets,
    /// The optimizer's numbers.
    pub rates: &'a Rates,
    /// Where the totals of the step go.
    pub slot: usize,
}

/// Where the labels of a head go: a class for every sample, which the loss needs; and, where some have none, once more
/// with -1 there, so that they are no hits.
#[derive(Clone, Copy)]
struct HeadLabels {
    labels: BufferId,
    counted: Option<BufferId>,
}

struct RecordedTerm {
    per_sample: BufferId,
    factors: Option<BufferId>,
}

impl TrainStep {
    /// Records a step for batches of images.
    pub fn new(
        network: &Network,
        device: &dyn Device,
        optimizer: &Optimizer,
        images: &Images,
        objective: &Objective,
    ) -> TrainStep {
        let (batch, slots) = (images.batch, 2 * device.steps_in_flight());
        let mut tape = Tape::new(device.dtype(), Mode::Train);
        let (input, x) = ImageInput::record(&mut tape, network, images);
        let heads = network.architecture().heads.len();
        let terms = objective.terms(heads);
        let labels = |tape: &mut Tape| HeadLabels {
            labels: tape.input("labels", [batch], DType::I32).buffer,
            counted: objective.exposure.map(|_| tape.input("labels that count", [batch], DType::I32).buffer),
        };
        let heads = (0..heads).map(|_| labels(&mut tape)).collect();
        // The optimizer's numbers, and the slot of the step's totals.
        let hyper = tape.number_input("hyper", [HYPER_ROWS, HYPER_ROW]).buffer;
        let totals = tape.number_input("totals", Shape::from([slots, 2 * terms.len()])).buffer;
        let mut recorder = Recorder {
            objective,
            network,
            images: x,
            output: network.forward(&mut tape, x),
            attributes: StepTotals { batch, slots, columns: terms.len(), column: 0 },
            heads,
            outliers: None,
            groups: Vec::new(),
            hyper,
            totals,
            predictions: Vec::new(),
            gradients: Vec::new(),
        };
        let terms = terms.into_iter().enumerate();
        let terms = terms.map(|(column, term)| recorder.term(&mut tape, column, term)).collect();
        let Recorder { heads, outliers, groups, gradients, .. } = recorder;
        tape.backward_from_all(&gradients, &[]);
        optimizer.record(&mut tape, network.parameters(), hyper);
        TrainStep {
            executable: compile(network, device, tape.finish()),
            images: input,
            heads,
            outliers,
            groups,
            hyper,
            terms,
            totals,
            slots,
        }
    }

    /// The laid-out plan.
    pub fn executable(&self) -> &Executable {
        &self.executable
    }

    /// The way in for images.
    pub fn images(&self) -> &ImageInput {
        &self.images
    }

    /// Steps whose totals the device remembers.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Terms of the loss, each with two totals.
    pub fn columns(&self) -> usize {
        self.terms.len()
    }

    /// Whether [`TrainStep::set_up`] is due before a series of steps: something in the plan's memory stays from step to step.
    pub fn needs_set_up(&self) -> bool {
        !(self.executable.plan().setup.is_empty() && self.groups.is_empty())
    }

    /// Folds the frozen part and writes the groups of subclasses; due before a series of steps whenever another plan
    /// ran.
    ///
    /// # Errors
    /// The device failed.
    pub fn set_up(&self, model: &mut Model) -> Result<()> {
        model.set_up(&self.executable)?;
        for (buffer, groups) in &self.groups {
            model.write(self.executable.span(*buffer), HostValues::I32(groups))?;
        }
        Ok(())
    }

    /// Hands all that a step needs to the device, images as bytes.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// The step was made for normalised numbers.
    pub fn load(&self, model: &mut Model, inputs: &StepInputs<'_>) -> Result<()> {
        let images = self.images.bytes(&self.executable, inputs.pixels, inputs.placement);
        self.load_behind(images, model, inputs)
    }

    /// Hands targets, the optimizer's numbers and the slot of the step's totals to the device, in one copy with the images.
    fn load_behind<'a>(
        &self,
        images: Vec<(Span, HostValues<'a>)>,
        model: &mut Model,
        inputs: &StepInputs<'a>,
    ) -> Result<()> {
        let place = |buffer| self.executable.span(buffer);
        let StepInputs { targets, rates, slot, .. } = *inputs;
        let mut writes = images;
        let some_class = |labels: &Vec<i32>| labels.iter().map(|&label| label.max(0)).collect();
        // Only where some samples are of no class is there anything to replace.
        let replaced: Option<Vec<Vec<i32>>> = (self.heads.iter().any(|head| head.counted.is_some()))
            .then(|| targets.labels.iter().map(some_class).collect());
        let some_classes = replaced.as_ref().unwrap_or(&targets.labels);
        for ((head, labels), some_class) in self.heads.iter().zip(&targets.labels).zip(some_classes) {
            writes.push((place(head.labels), HostValues::I32(some_class)));
            writes.extend(head.counted.map(|counted| (place(counted), HostValues::I32(labels))));
        }
        let marks: Vec<i32> = targets.outliers.iter().map(|&outlier| i32::from(outlier)).collect();
        writes.extend(self.outliers.map(|outliers| (place(outliers), HostValues::I32(&marks))));
        for (term, weights) in self.terms.iter().zip(&targets.terms) {
            if let (Some(buffer), Some(factors)) = (term.factors, &weights.factors) {
                writes.push((place(buffer), HostValues::F64(factors)));
            }
        }
        let row = |[rate, first, second]: [f64; HYPER_NUMBERS]| [rate, first, second, slot as f64];
        let hyper: [[f64; HYPER_ROW]; HYPER_ROWS] = [row(rates.network), row(rates.heads)];
        writes.push((place(self.hyper), HostValues::F64(hyper.as_flattened())));
        model.write_all(&writes)
    }

    /// Queues the step on the loaded inputs.
    ///
    /// # Errors
    /// The device failed.
    pub fn queue(&self, model: &mut Model) -> Result<()> {
        model.run(&self.executable)
    }

    /// Begins to copy the totals of all slots to the host: for each slot and term of the loss a pair of (sum of weighed
    /// losses, number of hits).
    ///
    /// # Errors
    /// The device failed.
    pub fn begin_totals(&self, model: &Model) -> Result<Readback> {
        model.begin_read(self.executable.span(self.totals))
    }

    /// Runs one step on normalised numbers, and waits for the loss of each sample.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// The step was made for bytes.
    pub fn run(
        &self,
        model: &mut Model,
        images: HostValues<'_>,
        targets: &BatchTargets,
        rates: &Rates,
    ) -> Result<Vec<f64>> {
        let images = vec![self.images.numbers(&self.executable, images)];
        self.load_behind(
            images,
            model,
            &StepInputs { pixels: &[], placement: &[], targets, rates, slot: 0 },
        )?;
        self.queue(model)?;
        self.losses(model)
    }

    /// Waits for the last step, and tells the loss of each of its samples, all terms together as they are weighed.
    ///
    /// # Errors
    /// The device failed.
    pub fn losses(&self, model: &Model) -> Result<Vec<f64>> {
        let (first, others) = self.terms.split_first().expect("a step has a loss");
        let read = |term: &RecordedTerm| model.read_f64(self.executable.span(term.per_sample));
        let mut losses = read(first)?;
        for term in others {
            losses.iter_mut().zip(read(term)?).for_each(|(loss, more)| *loss += more);
        }
        Ok(losses)
    }
}

/// The buffers that the terms of a loss are recorded with, and the gradients they leave for the backward pass.
struct Recorder<'a> {
    objective: &'a Objective,
    network: &'a Network,
    images: Var,
    output: Output,
    attributes: StepTotals,
    heads: Vec<HeadLabels>,
    outliers: Option<BufferId>,
    groups: Vec<(BufferId, Vec<i32>)>,
    hyper: BufferId,
    totals: BufferId,
    /// Predictions of each head.
    predictions: Vec<BufferId>,
    gradients: Vec<(Var, BufferId)>,
}

impl Recorder<'_> {
    /// Records a term: its losses and their gradients, the weights of samples, and the totals in its column.
    fn term(&mut self, tape: &mut Tape, column: usize, term: Term) -> RecordedTerm {
        let (head, per_sample, gradients) = match term {
            Term::CrossEntropy(head) => {
                let labels = self.labels(self.heads[head].labels);
                let logits = self.output.heads[head].logits;
                let loss = tape.softmax_cross_entropy(logits, labels, self.objective.smoothing);
                self.predictions.push(loss.prediction);
                (head, loss.per_sample, vec![(logits, loss.logits_gradient)])
            }
            Term::Outliers(head) => {
                let (per_sample, gradient) = self.outliers(tape, head);
                (head, per_sample, vec![gradient])
            }
            Term::Coupling => {
                let (per_sample, gradients) = self.coupling(tape);
                (0, per_sample, gradients)
            }
            Term::Consistency => {
                let (per_sample, gradient) = self.consistency(tape);
                (0, per_sample, vec![gradient])
            }
        };
        let is_bare = matches!(term, Term::CrossEntropy(_)) && !self.objective.weighs_samples();
        let factors = (!is_bare).then(|| {
            let batch = Shape::from([self.attributes.batch]);
            let factors = tape.number_input("sample weights", batch).buffer;
            tape.weigh(factors, per_sample, batch);
            for (logits, gradient) in &gradients {
                tape.weigh(factors, *gradient, logits.shape);
            }
            factors
        });
        let labels = self.heads[head];
        tape.push(RecordTotals {
            attributes: StepTotals { column, ..self.attributes },
            loss: per_sample,
            prediction: self.predictions[head],
            labels: labels.counted.unwrap_or(labels.labels),
            hyper: self.hyper,
            totals: self.totals,
        });
        self.gradients.extend(gradients);
        RecordedTerm { per_sample, factors }
    }

    fn labels(&self, buffer: BufferId) -> Var {
        Var { buffer, shape: Shape::from([self.attributes.batch]), differentiable: false }
    }

    fn outliers(&mut self, tape: &mut Tape, head: usize) -> (BufferId, (Var, BufferId)) {
        let logits = self.output.heads[head].logits;
        match self.objective.exposure.expect("outliers that are no class") {
            Exposure::Uniform { .. } => {
                // With all of the target spread out the label does not matter.
                let labels = self.labels(self.heads[head].labels);
                let loss = tape.softmax_cross_entropy(logits, labels, 1.0);
                (loss.per_sample, (logits, loss.logits_gradient))
            }
            Exposure::Energy { inside, outside, .. } => {
                let batch = self.attributes.batch;
                let marks =
                    *self.outliers.get_or_insert_with(|| tape.input("outliers", [batch], DType::I32).buffer);
                let loss = tape.energy_margin(logits, self.labels(marks), inside, outside);
                (loss.per_sample, loss.gradient)
            }
        }
    }

    fn coupling(&mut self, tape: &mut Tape) -> (BufferId, Vec<(Var, BufferId)>) {
        let coupling = self.objective.coupling.as_ref().expect("a divergence between the heads");
        let [superclass, subclass] = &self.output.heads[..] else { panic!("two heads") };
        let (superclass, subclass) = (superclass.logits, subclass.logits);
        let groups = self.group_input(tape, &coupling.groups);
        let count = superclass.shape.channels();
        let sum = tape.log_sum_groups(subclass, groups, count, coupling.temperature);
        let found =
            tape.kl_divergence(superclass, sum, coupling.temperature, coupling.direction, coupling.detached);
        // A detached side needs no backward pass.
        let [first, second] = found.gradients;
        let gradients = match coupling.detached {
            None => vec![first, second],
            Some(Side::First) => vec![second],
            Some(Side::Second) => vec![first],
        };
        (found.per_sample, gradients)
    }

    fn consistency(&mut self, tape: &mut Tape) -> (BufferId, (Var, BufferId)) {
        let consistency = self.objective.consistency.as_ref().expect("a divergence from a teacher");
        let teacher = self.network.teacher().expect("a network with a teacher");
        let subclass = self.output.heads.last().expect("a head").logits;
        let (count, temperature) = (consistency.count, consistency.temperature);
        let teacher_groups = self.group_input(tape, &consistency.teacher_groups);
        let groups = self.group_input(tape, &consistency.groups);
        let images = self.images;
        let given = tape.in_inference(|tape| {
            let logits = teacher.forward(tape, images).heads[consistency.head].logits;
            tape.log_sum_groups(logits, teacher_groups, count, temperature)
        });
        let sum = tape.log_sum_groups(subclass, groups, count, temperature);
        let forward = Direction::FirstToSecond;
        let found = tape.kl_divergence(given, sum, temperature, forward, Some(Side::First));
        (found.per_sample, found.gradients[1])
    }

    fn group_input(&mut self, tape: &mut Tape, groups: &[i32]) -> BufferId {
        let buffer = tape.input("groups", [groups.len()], DType::I32).buffer;
        self.groups.push((buffer, groups.to_vec()));
        buffer
    }
}

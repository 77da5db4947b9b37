//! One training step as a plan: forward, loss, backward, update.

use super::optimizer::{HYPER_NUMBERS, Optimizer};
use crate::autograd::{Mode, Tape};
use crate::error::Result;
use crate::nn::{ImageInput, Images, Model, Network, prepare};
use crate::ops::{Backend, Call, StepTotals};
use crate::plan::{BufferId, Prepared};
use crate::tensor::{DType, HostValues, Shape};

/// A training step for one batch size.
pub struct TrainStep {
    prepared: Prepared,
    images: ImageInput,
    labels: BufferId,
    hyper: BufferId,
    loss: BufferId,
    totals: BufferId,
    slots: usize,
}

impl TrainStep {
    /// Records a step for batches of images.
    pub fn new<B: Backend>(
        network: &Network,
        backend: &B,
        optimizer: &Optimizer,
        images: &Images,
        smoothing: f64,
    ) -> TrainStep {
        let (batch, slots) = (images.batch, 2 * backend.steps_in_flight());
        let mut tape = Tape::new(backend.dtype(), Mode::Train);
        let (input, x) = ImageInput::record(&mut tape, network, images);
        let labels = tape.input("labels", [batch], DType::I32);
        // The optimizer's numbers, and the slot of the step's totals.
        let hyper = tape.number_input("hyper", [HYPER_NUMBERS + 1]).buffer;
        let totals = tape.number_input("totals", Shape::from([slots, 2])).buffer;
        let output = network.forward(&mut tape, x);
        let loss = tape.softmax_cross_entropy(output.logits, labels, smoothing);
        tape.push(Call::RecordTotals {
            attributes: StepTotals { batch, slots, columns: 1, column: 0 },
            loss: loss.per_sample,
            prediction: loss.prediction,
            labels: labels.buffer,
            hyper,
            totals,
        });
        tape.backward(&loss, &[]);
        optimizer.record(&mut tape, network.parameters(), hyper);
        TrainStep {
            prepared: prepare(network, backend, tape.finish()),
            images: input,
            labels: labels.buffer,
            hyper,
            loss: loss.per_sample,
            totals,
            slots,
        }
    }

    /// The laid-out plan.
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// The way in for images.
    pub fn images(&self) -> &ImageInput {
        &self.images
    }

    /// Steps whose totals the device remembers.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Hands labels, the optimizer's numbers and the slot of the step's totals to the device.
    ///
    /// # Errors
    /// The device failed.
    pub fn load<B: Backend>(
        &self,
        model: &mut Model<B>,
        labels: &[i32],
        hyper: [f64; HYPER_NUMBERS],
        slot: usize,
    ) -> Result<()> {
        model.write(self.prepared.span(self.labels), HostValues::I32(labels))?;
        let [rate, first, second] = hyper;
        model.write(self.prepared.span(self.hyper), HostValues::F64(&[rate, first, second, slot as f64]))
    }

    /// Queues the step on what was loaded.
    ///
    /// # Errors
    /// The device failed.
    pub fn queue<B: Backend>(&self, model: &mut Model<B>) -> Result<()> {
        model.run(&self.prepared)
    }

    /// Begins to copy the totals of all slots to the host: pairs of (sum of losses, number of hits).
    ///
    /// # Errors
    /// The device failed.
    pub fn begin_totals<B: Backend>(&self, model: &Model<B>) -> Result<B::Reading> {
        model.begin_read(self.prepared.span(self.totals))
    }

    /// Runs one step on normalised numbers, and waits for the loss of each sample.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// The step was made for bytes.
    pub fn run<B: Backend>(
        &self,
        model: &mut Model<B>,
        images: HostValues<'_>,
        labels: &[i32],
        hyper: [f64; HYPER_NUMBERS],
    ) -> Result<Vec<f64>> {
        self.images.write_numbers(model, &self.prepared, images)?;
        self.load(model, labels, hyper, 0)?;
        self.queue(model)?;
        self.losses(model)
    }

    /// Waits for the last step, and tells the loss of each of its samples.
    ///
    /// # Errors
    /// The device failed.
    pub fn losses<B: Backend>(&self, model: &Model<B>) -> Result<Vec<f64>> {
        model.read_f64(self.prepared.span(self.loss))
    }
}

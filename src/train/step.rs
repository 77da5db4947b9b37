//! One training step as a plan: forward, loss, backward, update.

use super::optimizer::{HYPER_NUMBERS, Optimizer};
use crate::autograd::{Mode, Tape};
use crate::error::Result;
use crate::nn::{Model, Network, prepare};
use crate::ops::Backend;
use crate::plan::{BufferId, Prepared};
use crate::tensor::HostValues;
use crate::tensor::{DType, Shape};

/// A training step for one batch size.
pub struct TrainStep {
    prepared: Prepared,
    images: BufferId,
    labels: BufferId,
    hyper: BufferId,
    loss: BufferId,
    prediction: BufferId,
}

/// What a step or an evaluation of a batch found, in the order of the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchResult {
    /// Cross-entropy of each sample.
    pub losses: Vec<f64>,
    /// Predicted class of each sample.
    pub predictions: Vec<i32>,
}

impl BatchResult {
    /// Number of predictions that equal the label.
    pub fn correct(&self, labels: &[i32]) -> u64 {
        self.predictions.iter().zip(labels).filter(|(prediction, label)| prediction == label).count() as u64
    }

    /// Sum of the losses.
    pub fn loss_sum(&self) -> f64 {
        self.losses.iter().sum()
    }
}

/// Extents of an image: rows, columns, channels.
pub type ImageExtent = [usize; 3];

impl TrainStep {
    /// Records a step for batches of `batch` images.
    pub fn new<B: Backend>(
        network: &Network,
        backend: &B,
        optimizer: &Optimizer,
        batch: usize,
        [height, width, channels]: ImageExtent,
        smoothing: f64,
    ) -> TrainStep {
        let mut tape = Tape::new(backend.dtype(), Mode::Train);
        let images = tape.input("images", [batch, height, width, channels], backend.dtype());
        let labels = tape.input("labels", [batch], DType::I32);
        let hyper = tape.input("hyper", Shape::from([HYPER_NUMBERS]), backend.dtype());
        let output = network.forward(&mut tape, images);
        let loss = tape.softmax_cross_entropy(output.logits, labels, smoothing);
        tape.backward(&loss, &[]);
        optimizer.record(&mut tape, network.parameters(), hyper.buffer);
        TrainStep {
            prepared: prepare(network, backend, tape.finish()),
            images: images.buffer,
            labels: labels.buffer,
            hyper: hyper.buffer,
            loss: loss.per_sample,
            prediction: loss.prediction,
        }
    }

    /// The laid-out plan.
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Hands a batch and the optimizer's numbers to the device.
    ///
    /// # Errors
    /// The device failed.
    pub fn load<B: Backend>(
        &self,
        model: &mut Model<B>,
        images: HostValues<'_>,
        labels: &[i32],
        hyper: [f64; HYPER_NUMBERS],
    ) -> Result<()> {
        model.write(self.prepared.span(self.images), images)?;
        model.write(self.prepared.span(self.labels), HostValues::I32(labels))?;
        model.write(self.prepared.span(self.hyper), HostValues::F64(&hyper))
    }

    /// Runs the step on what was loaded.
    ///
    /// # Errors
    /// The device failed.
    pub fn run<B: Backend>(&self, model: &mut Model<B>) -> Result<BatchResult> {
        model.run(&self.prepared)?;
        Ok(BatchResult {
            losses: model.read_f64(self.prepared.span(self.loss))?,
            predictions: model.read_i32(self.prepared.span(self.prediction))?,
        })
    }
}

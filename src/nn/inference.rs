//! A forward pass in inference mode as a plan: images to features and logits, batch normalisation folded.

use super::{Model, Network, prepare};
use crate::autograd::{Mode, Tape};
use crate::error::Result;
use crate::ops::Backend;
use crate::plan::{BufferId, Prepared};
use crate::tensor::HostValues;

/// A forward pass for one batch size.
pub struct Inference {
    prepared: Prepared,
    images: BufferId,
    features: BufferId,
    logits: BufferId,
}

impl Inference {
    /// Records the pass for batches of `batch` images of `[height, width, channels]`.
    pub fn new<B: Backend>(
        network: &Network,
        backend: &B,
        batch: usize,
        [height, width, channels]: [usize; 3],
    ) -> Inference {
        let mut tape = Tape::new(backend.dtype(), Mode::Inference);
        let images = tape.input("images", [batch, height, width, channels], backend.dtype());
        let output = network.forward(&mut tape, images);
        let features = tape.keep(output.features);
        let logits = tape.keep(output.logits);
        let prepared = prepare(network, backend, tape.finish());
        Inference { prepared, images: images.buffer, features, logits }
    }

    /// The laid-out plan.
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Folds the current parameters; due before a series of [`Inference::run`] whenever parameters changed or another
    /// plan ran.
    ///
    /// # Errors
    /// The device failed.
    pub fn set_up<B: Backend>(&self, model: &mut Model<B>) -> Result<()> {
        model.set_up(&self.prepared)
    }

    /// Features (batch, D) and logits (batch, C) of a batch of NHWC images.
    ///
    /// # Errors
    /// The device failed.
    pub fn run<B: Backend>(
        &self,
        model: &mut Model<B>,
        images: HostValues<'_>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        model.write(self.prepared.span(self.images), images)?;
        model.run(&self.prepared)?;
        Ok((
            model.read_f32(self.prepared.span(self.features))?,
            model.read_f32(self.prepared.span(self.logits))?,
        ))
    }
}

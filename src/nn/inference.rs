//! A forward pass in inference mode as a plan: images to features and logits, batch normalisation folded.

use super::{ImageInput, Images, Model, Network, prepare};
use crate::autograd::{Mode, Tape};
use crate::error::Result;
use crate::ops::Backend;
use crate::plan::{BufferId, Prepared};

/// A forward pass for one batch size.
pub struct Inference {
    prepared: Prepared,
    images: ImageInput,
    features: BufferId,
    logits: BufferId,
}

impl Inference {
    /// Records the pass for batches of images.
    pub fn new<B: Backend>(network: &Network, backend: &B, images: &Images) -> Inference {
        let mut tape = Tape::new(backend.dtype(), Mode::Inference);
        let (images, x) = ImageInput::record(&mut tape, network, images);
        let output = network.forward(&mut tape, x);
        let features = tape.keep(output.features);
        let logits = tape.keep(output.logits);
        let prepared = prepare(network, backend, tape.finish());
        Inference { prepared, images, features, logits }
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

    /// The way in for images.
    pub fn images(&self) -> &ImageInput {
        &self.images
    }

    /// Features (batch, D) and logits (batch, C) of the images that were handed over.
    ///
    /// # Errors
    /// The device failed.
    pub fn run<B: Backend>(&self, model: &mut Model<B>) -> Result<(Vec<f32>, Vec<f32>)> {
        model.run(&self.prepared)?;
        Ok((
            model.read_f32(self.prepared.span(self.features))?,
            model.read_f32(self.prepared.span(self.logits))?,
        ))
    }
}

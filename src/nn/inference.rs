//! A forward pass in inference mode as a plan: images to features and logits, batch normalisation folded.

use super::{HeadKind, ImageInput, Images, Model, Network, compile};
use crate::autograd::{Mode, SHORTEST_VECTOR, Tape};
use crate::error::Result;
use crate::ops::{Device, Readback};
use crate::plan::{BufferId, Executable};

/// A forward pass for one batch size.
pub struct Inference {
    executable: Executable,
    images: ImageInput,
    heads: Vec<HeadBuffers>,
}

struct HeadBuffers {
    kind: HeadKind,
    features: BufferId,
    logits: BufferId,
}

/// The results of a head for a batch: `logits = features Wᵀ + b`, with the W and b of its last linear map.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadValues {
    /// Inputs of the last linear map, (batch, D), row-major: pooled features, of a `cosine` head divided by their norm, of
    /// a `cosine-relu-linear` head rectified cosines.
    pub features: Vec<f32>,
    /// One number per class, (batch, C), row-major.
    pub logits: Vec<f32>,
}

/// A batch whose values are on their way to the host.
pub struct InferenceReading {
    /// Of each head, in order.
    heads: Vec<HeadReading>,
}

struct HeadReading {
    features: Readback,
    logits: Readback,
}

impl Inference {
    /// Records the pass for batches of images.
    pub fn new(network: &Network, device: &dyn Device, images: &Images) -> Inference {
        let mut tape = Tape::new(device.dtype(), Mode::Inference);
        let (images, x) = ImageInput::record(&mut tape, network, images);
        let output = network.forward(&mut tape, x);
        let kinds = network.architecture().heads.iter().map(|head| head.kind);
        let heads = kinds.zip(output.heads).map(|(kind, head)| HeadBuffers {
            kind,
            features: tape.keep(head.features),
            logits: tape.keep(head.logits),
        });
        let heads = heads.collect();
        let executable = compile(network, device, tape.finish());
        Inference { executable, images, heads }
    }

    /// The compiled plan.
    pub fn executable(&self) -> &Executable {
        &self.executable
    }

    /// Folds the current parameters; due before a series of [`Inference::run`] whenever parameters changed or another
    /// plan ran.
    ///
    /// # Errors
    /// The device failed.
    pub fn set_up(&self, model: &mut Model) -> Result<()> {
        model.set_up(&self.executable)
    }

    /// The input for images.
    pub fn images(&self) -> &ImageInput {
        &self.images
    }

    /// The results of each head for the images that were written.
    ///
    /// # Errors
    /// The device failed.
    pub fn run(&self, model: &mut Model) -> Result<Vec<HeadValues>> {
        let reading = self.begin(model)?;
        self.finish(reading)
    }

    /// Queues the pass over the images that were written, and the copies of its results; the next images may be
    /// written before these arrive.
    ///
    /// # Errors
    /// The device failed.
    pub fn begin(&self, model: &mut Model) -> Result<InferenceReading> {
        model.run(&self.executable)?;
        let begin = |head: &HeadBuffers| {
            let features = model.begin_read(self.executable.span(head.features))?;
            Ok(HeadReading { features, logits: model.begin_read(self.executable.span(head.logits))? })
        };
        Ok(InferenceReading { heads: self.heads.iter().map(begin).collect::<Result<_>>()? })
    }

    /// Waits for such a batch, not for work queued behind it, and returns the results of each head for its images.
    ///
    /// # Errors
    /// The device failed.
    pub fn finish(&self, reading: InferenceReading) -> Result<Vec<HeadValues>> {
        let finish = |(head, reading): (&HeadBuffers, HeadReading)| {
            let features = reading.features.wait_f32()?;
            let mut values = HeadValues { features, logits: reading.logits.wait_f32()? };
            if head.kind == HeadKind::Cosine {
                let dimension = self.executable.plan().buffers[head.features.index()].shape.channels();
                values.features.chunks_exact_mut(dimension).for_each(normalise);
            }
            Ok(values)
        };
        self.heads.iter().zip(reading.heads).map(finish).collect()
    }
}

/// Divides a vector by its length.
fn normalise(row: &mut [f32]) {
    let length = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt().max(SHORTEST_VECTOR);
    row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
}

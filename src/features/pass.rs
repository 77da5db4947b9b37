//! One pass of a network over a data set: images to features and logits, in order, without augmentation.

use std::collections::VecDeque;

use crate::data::{Loader, LoaderOptions, SharedDataset, Transform};
use crate::error::Result;
use crate::nn::{HeadValues, ImageSource, Images, Inference, InferenceReading, Model, Network};
use crate::ops::Device;
use crate::tensor::HostValues;

/// Batches that a device has been given before the values of the oldest are looked at: of one that works by itself one that
/// is computed, one that waits for it to end, and one whose values are looked at meanwhile.
pub fn batches_in_flight(device: &dyn Device) -> usize {
    device.steps_in_flight().min(3)
}

/// The plans of a pass: one for full batches, one for the short batch at the end.
pub struct Pass {
    batch: usize,
    full: Inference,
    rest: Option<Inference>,
}

/// The network's outputs for some consecutive samples.
pub struct PassBatch {
    /// Features and logits of each head.
    pub heads: Vec<HeadValues>,
    /// Labels as the data set has them, -1 where unknown.
    pub labels: Vec<i64>,
}

impl Pass {
    /// Plans a pass over `samples` images of `size` x `size` pixels.
    pub fn new(network: &Network, device: &dyn Device, batch: usize, samples: usize, size: usize) -> Pass {
        let extent = [size, size, network.architecture().in_channels];
        let batch = batch.min(samples).max(1);
        let plan =
            |batch| Inference::new(network, device, &Images { batch, extent, source: ImageSource::Bytes });
        let rest = samples % batch;
        Pass { batch, full: plan(batch), rest: (rest > 0).then(|| plan(rest)) }
    }

    /// Bytes of memory the plans need, parameters included.
    pub fn bytes(&self) -> usize {
        self.full.executable().bytes().max(self.rest.as_ref().map_or(0, |rest| rest.executable().bytes()))
    }

    /// Runs the pass and hands each batch to `consume`, in order.
    ///
    /// A device that works by itself gets the next batches before `consume` sees this one, but few, so that memory
    /// stays bounded.
    ///
    /// # Errors
    /// A sample cannot be read, the device failed, or `consume` said so.
    pub fn run(
        &self,
        model: &mut Model,
        data: &SharedDataset,
        transform: &Transform,
        mut consume: impl FnMut(PassBatch) -> Result<()>,
    ) -> Result<()> {
        let table = model.network().parameters().image_table();
        model.write(table, HostValues::F32(&transform.table()))?;
        self.full.set_up(model)?;
        let mut loader = Loader::new(data.clone(), transform, LoaderOptions::evaluation(self.batch))?;
        let most = batches_in_flight(model.device());
        let mut in_flight = VecDeque::new();
        while let Some(batch) = loader.next() {
            let batch = batch?;
            let plan = if batch.labels.len() == self.batch {
                &self.full
            } else {
                let rest = self.rest.as_ref().expect("a pass is planned for the size of its data set");
                rest.set_up(model)?;
                rest
            };
            plan.images().write_bytes(model, plan.executable(), &batch.pixels, &batch.placement)?;
            let reading = plan.begin(model)?;
            in_flight.push_back(InFlight { plan, reading, labels: batch.labels.clone() });
            loader.recycle(batch);
            if in_flight.len() >= most {
                let oldest = in_flight.pop_front().expect("at least one batch");
                consume(oldest.finish()?)?;
            }
        }
        in_flight.into_iter().try_for_each(|batch| consume(batch.finish()?))
    }
}

/// A batch that was queued.
struct InFlight<'a> {
    plan: &'a Inference,
    reading: InferenceReading,
    labels: Vec<i64>,
}

impl InFlight<'_> {
    fn finish(self) -> Result<PassBatch> {
        Ok(PassBatch { heads: self.plan.finish(self.reading)?, labels: self.labels })
    }
}

/// Loss and accuracy of a head over the samples whose class it has, every sample counting the same.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Evaluation {
    /// Number of samples with a label.
    pub samples: u64,
    /// Number of samples classified correctly; the answer is the first largest logit.
    pub correct: u64,
    /// Sum of the cross-entropies.
    pub loss_sum: f64,
}

impl Evaluation {
    /// Adds the logits of a batch, row-major, and the logit of each sample's class, or -1.
    pub fn add(&mut self, logits: &[f32], labels: &[i64]) {
        let classes = logits.len() / labels.len().max(1);
        for (logits, &label) in logits.chunks_exact(classes).zip(labels) {
            let Some(&own) = usize::try_from(label).ok().and_then(|label| logits.get(label)) else {
                continue;
            };
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
            self.samples += 1;
            self.correct +=
                u64::from(logits.iter().position(|&logit| logit == largest) == Some(label as usize));
            self.loss_sum += sum.ln() + f64::from(largest) - f64::from(own);
        }
    }

    /// Share of samples classified correctly; `None` without labels.
    pub fn accuracy(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.correct as f64 / self.samples as f64)
    }

    /// Mean cross-entropy; `None` without labels.
    pub fn loss(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.loss_sum / self.samples as f64)
    }
}

//! One pass of a network over a data set: images to features and logits, in order, without augmentation.

use crate::data::{Loader, LoaderOptions, SharedDataset, Transform};
use crate::error::Result;
use crate::nn::{ImageSource, Images, Inference, Model, Network};
use crate::ops::Backend;
use crate::tensor::HostValues;

/// The plans of a pass: one for full batches, one for the short batch at the end.
pub struct Pass {
    batch: usize,
    full: Inference,
    rest: Option<Inference>,
}

/// What the network says of some consecutive samples.
pub struct PassBatch {
    /// (n, D), row-major.
    pub features: Vec<f32>,
    /// (n, C), row-major.
    pub logits: Vec<f32>,
    /// Labels, -1 where unknown.
    pub labels: Vec<i64>,
}

impl Pass {
    /// Plans a pass over `samples` images of `size` x `size` pixels.
    pub fn new<B: Backend>(
        network: &Network,
        backend: &B,
        batch: usize,
        samples: usize,
        size: usize,
    ) -> Pass {
        let extent = [size, size, network.architecture().in_channels];
        let batch = batch.min(samples).max(1);
        let plan =
            |batch| Inference::new(network, backend, &Images { batch, extent, source: ImageSource::Bytes });
        let rest = samples % batch;
        Pass { batch, full: plan(batch), rest: (rest > 0).then(|| plan(rest)) }
    }

    /// Bytes of memory the plans need, parameters included.
    pub fn bytes(&self) -> usize {
        self.full.prepared().bytes().max(self.rest.as_ref().map_or(0, |rest| rest.prepared().bytes()))
    }

    /// Runs the pass and hands each batch to `consume`.
    ///
    /// # Errors
    /// A sample cannot be read, the device failed, or `consume` said so.
    pub fn run<B: Backend>(
        &self,
        model: &mut Model<B>,
        data: &SharedDataset,
        transform: &Transform,
        mut consume: impl FnMut(PassBatch) -> Result<()>,
    ) -> Result<()> {
        let table = model.network().parameters().image_table();
        model.write(table, HostValues::F32(&transform.table()))?;
        self.full.set_up(model)?;
        let mut loader = Loader::new(data.clone(), transform, LoaderOptions::evaluation(self.batch))?;
        while let Some(batch) = loader.next() {
            let batch = batch?;
            let plan = if batch.labels.len() == self.batch {
                &self.full
            } else {
                let rest = self.rest.as_ref().expect("a pass is planned for the size of its data set");
                rest.set_up(model)?;
                rest
            };
            plan.images().write_bytes(model, plan.prepared(), &batch.pixels, &batch.placement)?;
            let (features, logits) = plan.run(model)?;
            consume(PassBatch { features, logits, labels: batch.labels.clone() })?;
            loader.recycle(batch);
        }
        Ok(())
    }
}

/// Loss and accuracy over the samples whose class is known, every sample counting the same.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Evaluation {
    /// Number of samples with a label.
    pub samples: u64,
    /// Number of right answers; the first largest logit answers.
    pub correct: u64,
    /// Sum of the cross-entropies.
    pub loss_sum: f64,
}

impl Evaluation {
    /// Adds the samples of a batch.
    pub fn add(&mut self, batch: &PassBatch) {
        let classes = batch.logits.len() / batch.labels.len().max(1);
        for (logits, &label) in batch.logits.chunks_exact(classes).zip(&batch.labels) {
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

    /// Share of right answers; `None` without labels.
    pub fn accuracy(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.correct as f64 / self.samples as f64)
    }

    /// Mean cross-entropy; `None` without labels.
    pub fn loss(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.loss_sum / self.samples as f64)
    }
}
